"""The specification docs/spec/gateway.md says what the code does: its tables are compared with it, row by row."""

import functools
import json
from collections import Counter
from pathlib import Path

import pytest
from answers import chunk
from saying import CHANNELS, SAY, asked, play, rebuilt, said_whole

from stanch.gateway.app import ENDPOINTS
from stanch.gateway.embedding import read_vectors
from stanch.gateway.fields import Fields
from stanch.gateway.problem import _CODES

PAGE = (Path(__file__).parents[2] / "docs/spec/gateway.md").read_text(encoding="utf-8")
CLASSES = {
    "text": "text", "text_or_parts": "text", "closed": "closed", "count": "count", "skip": "written",
    "number": "gated", "numbers": "gated", "texts": "gated", "tables": "gated", "value": "vector",
}  # fmt: skip


def classed(place, name):
    """Return a place with its class, by the method that takes it."""
    if place.endswith(".input") and name == "value":
        return place, "text"  # an object that the guard reads as JSON text
    return place, "gated" if ".logprobs." in place and name == "text" else CLASSES[name]


def rows(heading):
    """Return the rows of the first table under a heading, as lists of cells."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture
def taken(monkeypatch):
    """Return the set that fills with each place that the readers look at, and how they take it."""
    found, inside = set(), []

    def wrap(name, original):
        @functools.wraps(original)
        def method(self, *names, **more):
            if not inside:
                for one in names if name == "skip" else names[:1]:
                    found.add(classed(f"{self._path}.{one}", name))
            inside.append(name)
            try:
                return original(self, *names, **more)
            finally:
                inside.pop()

        return method

    for name in CLASSES:
        monkeypatch.setattr(Fields, name, wrap(name, getattr(Fields, name)))
    return found


def read_everything(guard, dialect):
    """Let a dialect's reader see every kind of answer."""
    if dialect == "embeddings":
        item = {"index": 0, "embedding": [1]}
        return read_vectors(json.dumps({"data": [item], "usage": {"prompt_tokens": 1}}), (1, 1), Counter())
    for channel in CHANNELS[dialect]:
        play(guard, dialect, SAY[dialect](channel, ["{}"], ""))
        rebuilt(guard, dialect, said_whole(dialect, channel, "{}"))
    if dialect == "chat":
        one = {"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -1}]}
        event = chunk({"content": "a"}, "stop")
        event["choices"][0]["logprobs"] = {"content": [one]}
        play(guard, dialect, [event], asked("chat", logprobs=True))
    if dialect == "completions":
        answer = said_whole(dialect, "text", "a") | {"usage": {"prompt_tokens": 1}}
        answer["choices"][0]["logprobs"] = {"tokens": [], "token_logprobs": []}
        rebuilt(guard, dialect, answer, asked("completions", logprobs=1))
    if dialect == "responses":
        last = SAY[dialect]("output_text", ["x"], "incomplete:max_output_tokens")
        play(guard, dialect, last)
        rebuilt(guard, dialect, last[-1]["response"])
    return None


DIALECTS = [endpoint.dialect for endpoint in ENDPOINTS.values()]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_table_of_fields_is_the_allow_list(guard, taken, dialect):
    read_everything(guard, dialect)
    written = {(path, kind) for path, kind, *_ in rows(f"Fields of {dialect}")}
    assert written == taken


def test_the_endpoints_are_listed():
    listed = {(path, dialect) for path, dialect, *_ in rows("Endpoints")}
    assert listed >= {(path, endpoint.dialect) for path, endpoint in ENDPOINTS.items()}


def test_the_channels_are_listed():
    listed = {(dialect, channel) for dialect, channel, *_ in rows("Channels")}
    assert listed == {(dialect, one) for dialect, channels in CHANNELS.items() for one in channels if one != "first"}


def test_the_failures_are_listed():
    listed = {(code, int(status), message) for code, status, message in rows("Failures")}
    assert listed >= {(code, kind.http_status, message) for kind, code, message in _CODES}
