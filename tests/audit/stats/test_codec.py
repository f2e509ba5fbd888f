"""Dataclasses to JSON and back: nothing is lost, invented or silently converted."""

import itertools
import math
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from stanch.audit.codec import first_difference, from_json, to_json
from stanch.errors import InvalidInput


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Leaf:
    size: float
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...]
    colour: Colour = Colour.RED
    counts: dict[str, int] = field(default_factory=dict)
    old: bool = False


TREE = Tree((Leaf(1.5), Leaf(2.0, "two")), counts={"a": 1}, old=True)
PLAIN = {
    "leaves": [{"size": 1.5, "name": None}, {"size": 2.0, "name": "two"}],
    "colour": "red", "counts": {"a": 1}, "old": True,
}  # fmt: skip


def test_a_dataclass_becomes_plain_json_and_reads_back():
    assert to_json(TREE) == PLAIN
    assert isinstance(to_json(TREE)["leaves"], list)
    assert from_json(Tree, PLAIN, what="tree") == TREE
    assert from_json(Tree, {**PLAIN, "leaves": []}, what="tree").leaves == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaves": None}, "tree: Expected `array`, got `null` - at `..leaves`"),
        ({"old": 1}, "tree: Expected `bool`, got `int`"),
        ({"colour": "blue"}, "tree: Invalid enum value 'blue'"),
        ({"more": 1}, "tree: field more is unknown, missing or not in its normal form"),
        ({"counts": ...}, "tree: field counts is unknown"),
        ({"leaves": [{"size": 1.0}]}, r"tree: field leaves\[0\].name is unknown"),
        ({"leaves": [{"size": math.nan, "name": None}]}, r"tree: field leaves\[0\].size is unknown"),
        ({"leaves": [{"size": math.inf, "name": None}]}, r"tree: field leaves\[0\].size is unknown"),
    ],
)
def test_what_is_no_such_dataclass_is_refused_and_its_field_named(change, message):
    value = {name: item for name, item in {**PLAIN, **change}.items() if item is not ...}
    with pytest.raises(InvalidInput, match=message):
        from_json(Tree, value, what="tree")


def test_keys_become_text():
    assert to_json({1: {2: "x"}}) == {"1": {"2": "x"}}


def test_what_has_no_fields_becomes_no_object():
    for value in ((1, 2), 1.5, None, "text"):
        with pytest.raises(InvalidInput, match="not a JSON object"):
            to_json(value)


def test_first_difference_names_the_place():
    left = {"a": [1, {"b": 2.0}], "c": True}
    assert first_difference(left, {"a": [1, {"b": 2.0}], "c": True}) is None
    assert first_difference(left, {"a": [1, {"b": 2.5}], "c": True}) == "a[1].b"
    assert first_difference(left, {"a": [1], "c": True}) == "a[1]"
    assert first_difference([1], [1, 2, 3]) == "[1]"
    assert first_difference(left, {"a": [1, {"b": 2.0}], "c": 1}) == "c"
    assert first_difference(left, {"a": [1, {"b": 2.0}]}) == "c"
    assert first_difference({}, {"z": 1}) == "z"
    assert first_difference({"b": 1}, {"a": 1, "b": 2}) == "b"
    assert first_difference({"b": [1]}, {"b": [2]}, path="at") == "at.b[0]"
    assert first_difference("a", "b") == "(whole value)"


def test_empty_values_of_two_kinds_are_not_equal():
    for mine, other in itertools.permutations(({}, [], "", None, 0, False), 2):
        assert first_difference({"b": [mine]}, {"b": [other]}) == "b[0]"


@pytest.mark.parametrize(
    ("mine", "other", "is_equal"),
    [
        (0.25, 0.75, True), (0.25, 0.76, False), (0.75, 0.25, True),
        (4.0, 6.0, True), (4.0, 6.01, False), (6.0, 4.0, True), (-4.0, -6.0, True), (4, 6, True),
        (True, 1, False), (1, True, False), (0, False, False), (False, False, True), ("1", 1, False), (None, 0, False),
        (math.nan, math.nan, False), (1.0, math.inf, False), (math.inf, 1.0, False), (math.inf, math.inf, False),
    ],
)  # fmt: skip
def test_numbers_may_differ_by_the_tolerance_absolute_below_one_and_relative_above(mine, other, is_equal):
    for wrap in (lambda value: value, lambda value: [{"x": value}]):
        assert (first_difference(wrap(mine), wrap(other), tolerance=0.5) is None) == is_equal
    assert first_difference(1.0, 1.0 + 1e-15) is not None
