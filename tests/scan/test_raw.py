"""The fast way over raw JSON lines: a line that is not suspect holds nothing once it is parsed."""

import json

import orjson
import pytest
from chat_corpus import ChatMaker
from hostile_text import make_line

from stanch.scan import Policy, Scanner


def strings(value):
    """Yield every string, key name and number of a parsed row, as a scan of a data set sees them."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def holding(scanner, lines):
    """Return the numbers of the lines in which a scan of the parsed strings finds anything."""
    found = set()
    for number, line in enumerate(lines):
        results = [scanner.scan(text) for text in strings(orjson.loads(line))]
        if any(result.findings or result.residuals for result in results):
            found.add(number)
    return found


def test_no_line_with_a_finding_is_passed_over(full_scanner, scanner):
    lines = [make_line(seed) for seed in range(900)]
    for searcher in (scanner, full_scanner):
        found = holding(searcher, lines)
        assert len(found) > 200
        assert found <= searcher.suspect_lines(lines)


def test_most_clean_lines_of_talk_are_passed_over(scanner):
    lines = [line.rstrip(b"\n") for line in ChatMaker(5).lines(600_000)]
    found, suspects = holding(scanner, lines), scanner.suspect_lines(lines)
    assert found <= suspects
    assert len(suspects) - len(found) < 0.25 * len(lines)
    assert 0 < len(suspects) < 0.8 * len(lines)


@pytest.mark.parametrize(
    "line",
    [
        rb'{"a": "ana\u0040correo.es"}',
        rb'{"a": "\ud83d\ude00 ana\u0040c\u006frreo.es"}',
        rb'{"a": "regards,\u000aMaria Lopez"}',
        rb'{"a": "C:\\u0040"}',
        rb'{"a": "https:\/\/app:Xk29fJq81LmZ0@db.internal\/x"}',
        rb'{"a": "x\nana@correo.es"}',
        rb'{"a": "kind regards,\nMaria Lopez"}',
        b'{"n": 4539148803436467, "m": [1, 4539148803436467]}',
        rb'{"n": 45391488034364670e-1, "card": 1}',
        '{"a": "ana＠correo.es"}'.encode(),
        '{"a": "ana@cor\u200breo.es"}'.encode(),
        b'{"ana@correo.es": 1}',
        b'{"a": {"card": "4539148803436467"}}',
        b'{"a": "ana@correo.es", "a": "b"}',
        b'{"a": "\xff"}',
    ],
)
def test_what_could_hold_something_is_suspect(scanner, line):
    assert scanner.suspect_lines([b'{"a": "b"}', line, b'{"a": "c"}']) == {1}


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "b"}',
        rb'{"a": "one\ntwo \"three\" or four/five"}',
        rb'{"a": "Th\u00e9 \ud83d\ude00"}',
        b'{"n": 12.5}',
        b"",
        b"[]",
        b'{"a": "@x"}',
    ],
)
def test_harmless_lines_are_passed_over(scanner, line):
    assert scanner.suspect_lines([line]) == set()


def test_literals_are_found_in_any_spelling(full_scanner):
    lines = [b'{"a": "Project Night-jar 77"}', rb'{"a": "Project\nNightjar 77"}', b'{"a": "nothing of that"}']
    assert full_scanner.suspect_lines(lines) == {0, 1}


def test_re2_suspects_the_same_lines():
    lines = [make_line(seed) for seed in range(60)]
    policy = Policy(kinds=frozenset({"email", "github-token", "payment-card"}))
    assert Scanner(policy, engine="re2").suspect_lines(lines) == Scanner(policy).suspect_lines(lines)


def test_no_lines_no_suspects(scanner):
    assert scanner.suspect_lines([]) == set()
    assert json.loads(make_line(1))
