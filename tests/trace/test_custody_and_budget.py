import re
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_world import NOW, PRINCIPAL, make_adapter

from stanch.errors import CustodyBroken, InvalidInput
from stanch.trace import (
    Act,
    ErrorBudget,
    ErrorBudgetExhausted,
    Intake,
    extend_custody,
    fix_plan,
    open_case,
    read_custody,
)
from stanch.trace.custody import Item

ITEMS = [Item("a.safetensors", 3, "00" * 32)]


def chain(path, count=4):
    for number in range(count):
        extend_custody(
            path, "case-1", Act("p_x", "acquired" if not number else "examined", NOW, f"act {number}"), ITEMS
        )
    return path.read_bytes().splitlines(keepends=True)


def test_a_chain_reads_back(tmp_path):
    chain(tmp_path / "c")
    custody = read_custody(tmp_path / "c", "case-1")
    assert [line.n for line in custody.lines] == [0, 1, 2, 3]
    assert len(set(custody.heads)) == 5
    assert custody.lines[0].at == "2027-03-04T05:06:07Z"


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0].replace(b"act 0", b"act 9"), *lines[1:]],
        lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")],
        lambda lines: [*lines[:-1], b"{}\n"],
        lambda lines: [re.sub(b'"previous":"..', '"previous":"é'.encode(), lines[0]), *lines[1:]],
    ],
    ids=["reordered", "first missing", "gap", "repeated", "edited", "not canonical", "cut off", "not a line", "accent"],
)
def test_a_chain_that_was_changed_is_refused(tmp_path, change):
    lines = chain(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"".join(change(lines)))
    with pytest.raises(CustodyBroken):
        read_custody(tmp_path / "c", "case-1")


def test_a_chain_of_another_case_is_refused(tmp_path):
    chain(tmp_path / "c")
    with pytest.raises(CustodyBroken):
        read_custody(tmp_path / "c", "case-2")


def test_a_time_without_a_zone_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="time zone"):
        extend_custody(tmp_path / "c", "case-1", Act("p_x", "acquired", datetime(2027, 1, 1), ""), ITEMS)  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize("name", ["ab", "A-case", "../x", "-x-", "a" * 65, "a\n"])
def test_case_ids_are_plain(tmp_path, name):
    intake = Intake(name, "", NOW, "", PRINCIPAL)
    with pytest.raises(InvalidInput, match="case id"):
        open_case(tmp_path / "case", make_adapter(tmp_path / "s", 1, modules=1), intake, opened=NOW)


def test_what_is_no_suspect_is_refused(tmp_path):
    intake = Intake("case-1", "", NOW, "", PRINCIPAL)
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "model.bin").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="no weights"):
        open_case(tmp_path / "case", tmp_path / "pickle", intake, opened=NOW)
    linked = make_adapter(tmp_path / "linked", 1, modules=1)
    (linked / "link").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="link"):
        open_case(tmp_path / "case", linked, intake, opened=NOW)
    with pytest.raises(InvalidInput, match="no such"):
        open_case(tmp_path / "case", tmp_path / "absent", intake, opened=NOW)
    assert not (tmp_path / "case").exists()


def test_a_case_is_opened_once_and_its_suspect_is_read_only(tmp_path):
    intake = Intake("case-1", "a file", NOW, "somebody", PRINCIPAL)
    suspect = make_adapter(tmp_path / "s", 1, modules=1)
    case = open_case(tmp_path / "case", suspect, intake, opened=datetime.now(UTC))
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in case.suspect_folder.iterdir())
    assert [line.action for line in case.custody().lines] == ["acquired"]
    with pytest.raises(InvalidInput, match="exists"):
        open_case(tmp_path / "case", suspect, intake, opened=NOW)


@given(st.lists(st.sampled_from(["1e-9", "2.5e-7", "1e-7", "4e-10"]), max_size=14))
def test_the_budget_is_spent_exactly(spent):
    budget, total = ErrorBudget(), Fraction(0)
    for epsilon in spent:
        if total + Fraction(epsilon) > Fraction("1e-6"):
            with pytest.raises(ErrorBudgetExhausted):
                budget.charge(epsilon)
        else:
            budget, total = budget.charge(epsilon), total + Fraction(epsilon)
    assert budget.left == float(Fraction("1e-6") - total)


@pytest.mark.parametrize("epsilon", ["0", "-1e-9", "1", "2", "nan", "1e-9 ", "1/10", "", "1e-100", "١e-9"])
def test_what_is_no_probability_is_refused(epsilon):
    with pytest.raises(InvalidInput):
        ErrorBudget().charge(epsilon)
    with pytest.raises(InvalidInput):
        ErrorBudget(spent=(epsilon,))


def test_a_plan_beyond_the_budget_is_refused(world, tmp_path):
    case = world.open_case(make_adapter(tmp_path / "s", 8))
    with pytest.raises(ErrorBudgetExhausted, match="left"):
        fix_plan(case, world.release, epsilon="1e-9", budget=ErrorBudget(spent=("1e-9",) * 1000))
