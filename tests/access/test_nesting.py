"""A policy that is nested too deeply is refused; Cedar's parser would end the whole process."""

import threading

import pytest

from stanch.access import parse_policies
from stanch.access.policy import default_text
from stanch.errors import InvalidInput

N = 20_000
DEEP = {
    "parentheses": "(" * N + "true" + ")" * N,
    "sets": "[" * N + "]" * N + " == []",
    "records": '{"a":' * N + "1" + "}" * N + " == {}",
    "conditions": "if true then " * N + "true" + " else true" * N,
    "a chain": "true" + " && true" * N,
    "a chain that is longer than Python reads": "true" + " && true" * 900,
    "a chain that is longer than Cedar reads": "true" + " || true" * 100,
    "a long path": "principal" + ".a" * N,
    "left open": "(" * N,
}


def with_rule(condition):
    return f'{default_text()}\n@id("new")\nforbid (principal, action, resource) when {{ {condition} }};\n'


@pytest.mark.parametrize("condition", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deeply_is_refused(condition):
    caught = []

    def parse():
        with pytest.raises(InvalidInput, match="nested too deeply") as error:
            parse_policies(with_rule(condition))
        caught.append(error)

    thread = threading.Thread(target=parse)  # as the console does it, on a smaller stack
    thread.start()
    thread.join()
    assert caught


def test_brackets_in_texts_and_comments_do_not_count():
    text = with_rule("!(principal.suspended) // " + "(" * N + "\n")
    assert "new" in parse_policies(text).policies
    assert "new" in parse_policies(with_rule("(" * 40 + "true" + ")" * 40)).policies


@pytest.mark.parametrize(("deep", "accepted"), [(49, True), (50, False)])
def test_fifty_brackets_in_one_another_are_the_most(deep, accepted):
    text = with_rule("(" * deep + "true" + ")" * deep)  # in those of `when`
    if accepted:
        assert "new" in parse_policies(text).policies
    else:
        with pytest.raises(InvalidInput, match="nested too deeply"):
            parse_policies(text)


@pytest.mark.parametrize(("people", "accepted"), [(1990, True), (1991, False)])
def test_a_policy_has_two_thousand_words_at_most(people, accepted):
    names = ", ".join('Stanch::User::"a"' for _ in range(people))
    text = (
        f'{default_text()}@id("new") forbid (principal, action == Stanch::Action::"log:read", resource)'
        f" when {{ principal in [{names}] }};"
    )
    if accepted:
        assert "new" in parse_policies(text).policies
    else:
        with pytest.raises(InvalidInput, match="nested too deeply"):
            parse_policies(text)


def test_a_mebibyte_is_the_most():
    text = default_text() + "//"
    text = text.ljust(1 << 20, "x")
    assert parse_policies(text).policies == parse_policies(default_text()).policies
    with pytest.raises(InvalidInput, match="at most 1048576 characters"):
        parse_policies(text + "x")
