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
