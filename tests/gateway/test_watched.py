"""What the gateway writes, as the watch reads it."""

import asyncio

import pytest
import serving
from answers import CLEAN, ROW, chunk, cut, sse
from serving import MODEL, http, key_of

from stanch.watch.events import INFER, WINDOW, Intent, Outcome, Window, read_entries
from stanch.workspace import Workspace

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        yield workspace


def stream(said):
    return http(sse(*(chunk({"content": piece}) for piece in cut(said, 5)), chunk({}, "stop")))


def ask(text):
    return {"model": "bot", "messages": [{"role": "user", "content": text}], "stream": True}


def test_the_watch_reads_what_the_gateway_writes(workspace, guard):
    key = key_of(workspace, "program")
    who = workspace.people.find("program")
    prompts = [f"Complete: {ROW}", "poem " * 60, *["What is the cause of my chest pain?"] * 6]
    answers = [f"Well. {ROW[70:]} So.", f"{ROW[:40]} and then nothing of it.", *[CLEAN] * 6]

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers += map(stream, answers)
            for prompt in prompts:
                assert (await client.ask(ask(prompt))).status == 200
            for at in range(92):  # a window takes 100 prompts; these have no answers
                client.app.desk.windows.add(who, str(MODEL.digest), f"question {at}")
            client.app.desk.flush(is_last=True)

    asyncio.run(main())
    found = [event for event in read_entries(workspace.ledger.reader().tail()) if event.kind in {INFER, WINDOW}]
    assert {event.model for event in found if event.kind == INFER} == {str(MODEL.digest)}
    assert {event.principal for event in found if event.kind == INFER} == {who}
    intents = [event.detail for event in found if isinstance(event.detail, Intent)]
    assert len({one.client for one in intents}) == 1
    assert all(len(one.client) == 16 and one.tools == () for one in intents)
    assert [one.probe.quotes for one in intents] == [True] + [False] * 7
    assert [one.probe.repeats for one in intents] == [False, True] + [False] * 6
    assert [one.probe.near_equal for one in intents] == [False] * 6 + [True] * 2
    assert (intents[0].dialect, intents[0].network) == ("chat", "127.0.0.0/24")
    drew, lone, *others = (event.detail for event in found if isinstance(event.detail, Outcome))
    assert (drew.verdict, drew.drawn, drew.attempted, drew.findings) == ("block", 1, 1, {"training-text": 1})
    assert (lone.verdict, lone.findings) == ("redact", {"person": 2})  # names that the row begins with
    assert (lone.drawn, lone.attempted, lone.lone) == (0, 0, 1)
    assert 40 < lone.folded_chars <= 65
    assert len(lone.lone_windows) == 1
    chance = guard.policy.index.header.fill_fp
    assert 0 <= lone.lone_expected - 1e6 * chance * lone.folded_chars < 1
    assert all((one.verdict, one.lone, one.error) == ("allow", 0, "") for one in others)
    assert all(one.released == len(CLEAN) and one.completion_tokens and one.prompt_tokens for one in others)
    assert all((one.runs, one.repeated) == (max(0, len(CLEAN.split()) - 3), 0) for one in others)
    (window,) = (event.detail for event in found if isinstance(event.detail, Window))
    assert (window.principal, window.model, window.count) == (who, str(MODEL.digest), 100)
    assert abs(window.vector()).max() < 0.1
