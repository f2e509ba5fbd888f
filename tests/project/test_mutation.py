"""Mutation testing: every survivor on record has its reason, no reason is left over, and the changes are real."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import mutate  # noqa: E402 - a tool
from mutants import mutants  # noqa: E402 - same

RESULTS = json.loads((ROOT / "benchmarks" / "results" / "mutation.json").read_text())["modules"]
LISTED = mutate.listed()

SOURCE = '''
"""A module."""
LIMIT = 3

def take(items: list[int], most: int = LIMIT) -> list[int]:
    """Return them."""
    if not items or len(items) > most:
        raise ValueError(f"expected {most} at most")
    return [item for item in items if item != 0]
'''
CHANGES = {
    "LIMIT = 4",
    "if items or len(items) > most:",
    "if not items:",
    "if len(items) > most:",
    "if not items or len(items) >= most:",
    "if not items or len(items) <= most:",
    "pass",
    "return [item for item in items if item == 0]",
    "return [item for item in items if item != 1]",
}


def reasons():
    """Return the reason for each survivor: module, place, code before and after."""
    return {
        (reason["module"], *change): reason["why"] for reason in mutate.table("reason") for change in reason["changes"]
    }


def test_each_change_is_made_once_and_compiles():
    found = list(mutants(SOURCE, "module.py"))
    assert {mutant.now for mutant in found} == CHANGES
    assert len(found) == len(CHANGES)
    assert {mutant.now for mutant in found if mutant.at_import} == {"LIMIT = 4"}
    namespaces = [{} for _ in found]
    for mutant, namespace in zip(found, namespaces, strict=True):
        exec(mutant.code, namespace)  # noqa: S102 - what is tried

    def outcome(namespace, items):
        try:
            return namespace["take"](items)
        except ValueError:
            return None

    tried = ([], [0, 2], [1, 1, 1], [1, 1, 1, 1])
    whole = {}
    exec(SOURCE, whole)  # noqa: S102 - same
    for mutant, namespace in zip(found, namespaces, strict=True):
        assert [outcome(namespace, t) for t in tried] != [outcome(whole, t) for t in tried], mutant.now


def test_every_survivor_is_explained_and_nothing_else():
    survivors = {
        (module, survivor["place"], survivor["was"], survivor["now"])
        for module, found in RESULTS.items()
        for survivor in found["survivors"]
    }
    assert survivors == set(reasons())
    assert all(len(why.split()) >= 4 for why in reasons().values())


def test_every_listed_module_was_tried_whole_and_no_other():
    assert set(RESULTS) == set(LISTED)
    for module, found in RESULTS.items():
        assert found["mutants"] == found["killed"] + found["timeouts"] + len(found["survivors"]), module
        assert found["mutants"] > len(found["survivors"]), module


def test_the_page_shows_what_is_on_record():
    page = mutate.PAGE.read_text()
    assert mutate.with_table(page) == page, "run: python tools/mutate.py --table"
