"""A used-up budget: refused at once, recorded once a minute with a count, and free again when something comes back."""

import asyncio
import json
import time

import pytest
import serving
from answers import chunk, sse, whole
from serving import MODEL, entries, http, key_of

from stanch.access import Session
from stanch.errors import LedgerUnavailable
from stanch.gateway.budgets import DAY_MS, DRAWN, MINUTE_MS, Amounts, Budgets, Charge, Limits
from stanch.gateway.exhausted import Exhausted
from stanch.gateway.probe import Probes
from stanch.ledger import Ledger
from stanch.watch.esr import read_rates
from stanch.watch.events import read_entry
from stanch.workspace import Workspace

ASK = {"model": "bot", "messages": [{"role": "user", "content": "Well?"}]}
GOOD = http(json.dumps(whole({"content": "Well."})).encode(), "application/json")
NOON = 20_000 * DAY_MS + DAY_MS // 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("exhausted") / "w") as workspace:
        yield workspace


def test_a_loop_of_refused_requests_is_not_judged_and_makes_two_entries(workspace, guard, monkeypatch):
    judged = []
    judge = Probes.judge
    monkeypatch.setattr(Probes, "judge", lambda *given: judged.append(1) or judge(*given))
    # The clock stands still, so that no minute ends meanwhile.
    now_ms = int(time.time() * 1000)
    monkeypatch.setattr(Budgets, "now_ms", lambda _self: now_ms)
    key = key_of(workspace, "loop")

    async def main():
        async with serving.serving(workspace, guard, key, limits=Limits(1, 10**9, 8)) as (client, server):
            server.answers.append(GOOD)
            first, second = await client.ask(ASK), await client.ask(ASK)
            before, seen = workspace.ledger.reader().size(), len(judged)
            rest = [await client.ask(ASK) for _ in range(998)]
            client.app.desk.flush()
            client.app.desk.flush()
            return first, [second, *rest], workspace.ledger.reader().size() - before, len(judged) - seen

    first, others, new, looked = asyncio.run(main())
    assert (first.status, {answer.code for answer in others}) == (200, {"budget_exhausted"})
    assert (new, looked) == (1, 0)
    (one, *_), (last, *_) = entries(workspace)[-2:]
    assert one == last == "denied"
    assert entries(workspace)[-1][2] == {"error": "budget-exhausted", "budget": "requests/minute", "refused": 998}
    reader = workspace.ledger.reader()
    read = read_entry(reader.size() - 1, reader.entry(reader.size() - 1))
    assert dict(read_rates(read))[2] == dict(read_rates(read))[3] == 998


def test_who_asks_for_less_than_was_refused_is_not_refused_unasked(workspace, guard):
    limits = Limits(None, 3000, 8)

    async def main():
        async with serving.serving(workspace, guard, key_of(workspace, "less"), limits=limits) as (client, server):
            server.answers.append(GOOD)
            return [(await client.ask(ASK | {"max_tokens": most})).status for most in (4000, 100)]

    assert asyncio.run(main()) == [429, 200]


def test_what_a_request_gives_back_may_be_used_at_once(workspace, guard):
    limits, free = Limits(None, 3000, 8), asyncio.Event()

    async def slow(writer):
        await free.wait()
        writer.write(http(sse(chunk({"content": "x"}, "stop"), {"choices": [], "usage": {"completion_tokens": 1}})))

    async def main():
        async with serving.serving(workspace, guard, key_of(workspace, "gives"), limits=limits) as (client, server):
            server.answers += [slow, GOOD]
            first = asyncio.create_task(client.ask(ASK | {"max_tokens": 2900, "stream": True}))
            while not server.asked:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
            refused = [await client.ask(ASK | {"max_tokens": 2800}) for _ in range(2)]
            free.set()
            await first
            return [answer.status for answer in (*refused, await client.ask(ASK | {"max_tokens": 2800}))]

    assert asyncio.run(main()) == [429, 429, 200]


@pytest.fixture
def clock():
    return [NOON]


def charge(clock, tokens=50):
    return Charge("p_a", "m", Amounts(tokens=tokens), clock[0])


@pytest.mark.parametrize(
    ("row", "until"),
    [("requests/minute", 40_000), ("tokens/day", MINUTE_MS), ("tokens/total", MINUTE_MS), (DRAWN, MINUTE_MS)],
)
def test_it_is_remembered_until_the_window_ends_and_a_minute_at_most(workspace, clock, row, until):
    exhausted = Exhausted(workspace, now_ms=lambda: clock[0])
    clock[0] += MINUTE_MS - 40_000 if row == "requests/minute" else 0
    exhausted.note(charge(clock), row)
    for later, expected in ((0, row), (until - 1, row), (until, ""), (0, "")):
        clock[0] += later if later != until else 1
        assert exhausted.find(charge(clock)) == expected


def test_counts_that_cannot_be_recorded_are_kept(workspace, monkeypatch):
    exhausted = Exhausted(workspace, now_ms=lambda: int(time.time() * 1000))
    for who in ("p_" + "a" * 26, "p_" + "a" * 26, "p_" + "b" * 26):
        exhausted.count(
            "gateway.infer",
            Session(who, "k" * 16, mfa=False, started_ms=0, expires_ms=0, kind="api-key"),
            MODEL,
            "tokens/day",
        )
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", lambda *_: (_ for _ in ()).throw(LedgerUnavailable("full")))
        with pytest.raises(LedgerUnavailable):
            exhausted.flush()
    before = len(entries(workspace))
    exhausted.flush()
    exhausted.flush()
    assert [one[2]["refused"] for one in entries(workspace)[before:]] == [2, 1]
