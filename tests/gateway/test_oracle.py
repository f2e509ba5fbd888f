"""Who lets the model repeat candidates learns from each cut that one is protected: how many that are is bounded."""

import asyncio
import json

import pytest
import serving
from answers import INDEX_KEY, whole
from serving import entries, http, key_of

from stanch.gateway.budgets import Limits
from stanch.guard import Action, Guard, GuardPolicy
from stanch.scan import Dictionary, SpanIndex
from stanch.workspace import Workspace

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge"]
JSON = "application/json"


def row(number):
    """Return a text that shares no window with another number's."""
    return " ".join(
        WORDS[(number * 7 + at * (number % 11 + 1)) % len(WORDS)] + str(number * 31 + at) for at in range(16)
    )


ROWS = [row(number) for number in range(300)]


def asks(said, *, stream=False):
    return {"model": "bot", "stream": stream, "messages": [{"role": "user", "content": f"Repeat: {said}"}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("oracle") / "w") as workspace:
        yield workspace


@pytest.fixture(scope="module")
def parrot_guard():
    return Guard(GuardPolicy(index=SpanIndex.build(ROWS, key=INDEX_KEY)))


def parrot(place, guard, key, said, limits=None):
    """Let the model repeat texts, one a request, and return the answers."""

    async def main():
        async with serving.serving(place, guard, key, limits=limits) as (client, server):
            answers = []
            for text in said:
                server.answers.append(http(json.dumps(whole({"content": text})).encode(), JSON))
                answers.append(await client.ask(asks(text)))
            return answers

    return asyncio.run(main())


def test_whoever_lets_texts_be_repeated_learns_of_few_that_they_are_protected(place, parrot_guard):
    limits = Limits(10**6, 10**9, 8)
    answers = parrot(place, parrot_guard, key_of(place, "guesser"), ROWS, limits)
    cut = [answer for answer in answers if answer.status == 200]
    assert all(answer.json["choices"][0]["finish_reason"] == "content_filter" for answer in cut)
    assert 30 <= len(cut) <= 32  # 8 for each of the 8 that may be drawn, two windows a cut
    assert {answer.code for answer in answers[len(cut) :]} == {"budget_exhausted"}
    told = [one[2] for one in entries(place, "gateway.drawn")]
    assert [(one["budget"], one["percent"], one["limit"]) for one in told] == [
        ("cut-windows", percent, 64) for percent in (50, 80, 100)
    ]


def test_the_same_text_again_tells_nothing_new(place, parrot_guard):
    answers = parrot(place, parrot_guard, key_of(place, "repeater"), ROWS[:1] * 40, Limits(10**6, 10**9, 1))
    assert {answer.status for answer in answers} == {200}


def test_own_terms_that_are_replaced_are_counted(place):
    terms = ["silver kestrel", "violet heron"]
    dictionary = Dictionary.build(terms, key=INDEX_KEY, label="codename")
    guard = Guard(GuardPolicy(dictionaries=(dictionary,), actions={"codename": Action.REDACT}))
    (answer,) = parrot(place, guard, key_of(place, "namer"), ["The silver kestrel, the violet heron, the red fox."])
    assert answer.json["choices"][0]["message"]["content"] == "The <CODENAME>, the <CODENAME>, the red fox."
    assert entries(place)[-1][2]["terms"] == 2
