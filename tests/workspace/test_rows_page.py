"""The rows that come out are shown in full to whoever may read the data set, and to nobody else."""

import math
import stat
from dataclasses import replace

import life
import pytest

from stanch.audit.extraction import Chance, Extracted
from stanch.audit.rows_page import MASKED, render_rows, texts_of
from stanch.data import open_dataset, turns
from stanch.errors import InvalidInput
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.verbs_rows import write_rows


@pytest.fixture
def leaked(case):
    """The records of the data set, and the result of an audit in which the third and the eighth come out."""
    records = tuple(open_dataset(case.material.data))
    rows = (
        Extracted(records[2].id, (5, 20), attributable=False, chance=Chance(math.log(0.5), greedy=True)),
        Extracted(records[7].id, (5, 25), attributable=True, chance=Chance(math.log(1e-3), greedy=False)),
    )
    return records, replace(case.material.result, extracted=rows)


def write(case, leaked, name, out):
    records, result = leaked
    with life.acting(case.folder, name) as workspace:
        start = workspace.ledger.reader().size()
        in_full = write_rows(workspace, dataset_ref(case.material.data), result, records, out)
        return in_full, life.entries(workspace, start)


def contents(records):
    return [turn.content for record in records for turn in turns(record)]


def test_whoever_may_read_the_data_sees_the_rows(case, leaked, tmp_path):
    out = tmp_path / "rows.html"
    in_full, entries = write(case, leaked, "dana", out)
    page, records = out.read_text(), leaked[0]
    assert in_full
    assert all(text in page for text in contents((records[2], records[7])))
    assert not any(text in page for text in contents(records[:2] + records[3:7] + records[8:]))
    assert [entry[:2] for entry in entries] == [("intent", "audit.rows"), ("outcome", "audit.rows")]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["dana", "nina"])
def test_what_is_there_already_is_not_replaced(case, leaked, tmp_path, name):
    out = tmp_path / "rows.html"
    out.write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        write(case, leaked, name, out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("name", ["rita", "ada", "nina"])
def test_nobody_else_does_and_the_refusal_is_recorded(case, leaked, tmp_path, name):
    out = tmp_path / "rows.html"
    in_full, entries = write(case, leaked, name, out)
    page = out.read_text()
    assert not in_full
    assert page.count(MASKED) == 2
    assert not any(word in page for text in contents(leaked[0]) for word in text.split() if len(word) > 4)
    assert [entry[:2] for entry in entries] == [("denied", "audit.rows")]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_the_worst_row_stands_first_and_no_text_becomes_markup(leaked):
    records, result = leaked
    page = render_rows(result.extracted, {records[7].id: '<script>alert(1)</script>"'})
    assert page.index(f"<td>{records[7].id}</td>") < page.index(f"<td>{records[2].id}</td>")
    assert "<script" not in page
    assert "2,302" in page  # samples for 90 % at a probability of one in a thousand
    assert "1 of them because of the tuning" in page
    assert texts_of(result.extracted, records[:3]).keys() == {records[2].id}
    assert "<p>None.</p>" in render_rows((), None)
