import io

import numpy as np
import pytest

from stanch.audit.score_table import ScoreTable, parse_table, read_table
from stanch.errors import InvalidInput


def parse(text):
    return parse_table(io.StringIO(text, newline=""), what="scores.csv")


def long_rows(count=32, first="0.5,1"):
    return [first, *(f"{i / 7},{i % 2}" for i in range(1, count))]


def long(*, rows=None, header="score,member"):
    return "\n".join([header, *(rows or long_rows())]) + "\n"


def test_wide_layout_reads_back_exactly(tables, tmp_path):
    table = tables(m=64)
    path = tmp_path / "scores.csv"
    path.write_bytes(table.to_csv())
    again = read_table(path)
    assert again.to_csv() == table.to_csv()
    assert again.digest == table.digest
    for name, values in table.scores.items():
        assert np.array_equal(again.scores[name], values)


def test_wide_layout_is_pinned():
    table = ScoreTable(
        ids=("a", "b,c"),
        kinds=("secret", "record"),
        tiers=("once", "row"),
        member=np.array([True, False]),
        copies=np.array([1, 4]),
        scores={"ratio/1": np.array([0.1, -2.0])},
    )
    expected = b'id,kind,tier,member,copies,ratio/1\na,secret,once,1,1,0.10000000000000001\n"b,c",record,row,0,4,-2\n'
    assert table.to_csv() == expected


def test_long_layout():
    table = parse(long())
    assert (len(table), tuple(table.scores), table.ids[0]) == (32, ("score",), "r0")
    assert table.member.tolist()[:3] == [True, True, False]
    assert table.copies.tolist() == [1] * 32


def test_long_layout_joins_scores_of_one_record_by_id():
    rows = [f"x{i},{name},{value},{i % 2 == 0!s}".lower() for i in range(32) for name, value in (("a", i), ("b", -i))]
    table = parse(long(header="id,name,score,member", rows=rows))
    assert len(table) == 32
    assert table.scores["a"].tolist() == list(range(32))
    assert table.scores["b"].tolist() == [-float(i) for i in range(32)]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("nan,1", "line 2: expected a finite decimal number in the column score"),
        ("inf,1", "line 2: expected a finite"),
        ("-Infinity,1", "line 2: expected a finite"),
        ("1e999,1", "line 2: expected a finite"),
        ("1_000,1", "line 2: expected a finite"),
        (" 1,1", "line 2: expected a finite"),
        ("0x10,1", "line 2: expected a finite"),
        ("١,1", "line 2: expected a finite"),
        (",1", "line 2: expected a finite"),
        ("0.5,yes", "line 2: expected 0, 1, true or false"),
        ("0.5,True", "line 2: expected 0, 1, true or false"),
        ("0.5,2", "line 2: expected 0, 1, true or false"),
        ("0.5", "line 2: expected 2 columns, found 1"),
        ("0.5,1,7", "line 2: expected 2 columns, found 3"),
        ('"0.5,1', "not valid CSV"),
        ("x" * 70_000 + ",1", "line 2: expected fewer than"),
    ],
)
def test_bad_cells_are_refused_with_their_line(first, message):
    with pytest.raises(InvalidInput, match=message):
        parse(long(rows=long_rows(first=first)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("score,label", "unknown: \\['label'\\]"),
        ("score,score", "each column once"),
        ("", "expected the columns"),
        ("score,member,extra", "unknown"),
        ("ratio,member", "expected the columns"),
    ],
)
def test_bad_headers_are_refused(header, message):
    with pytest.raises(InvalidInput, match=message):
        parse(long(header=header))


def test_name_without_id_is_refused():
    with pytest.raises(InvalidInput, match="needs the column id"):
        parse(long(header="score,member,name", rows=[f"{i},{i % 2},a" for i in range(40)]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("1,1,x1,a", "this id and name stand twice"),
        ("1,0,x1,b", "another member or tier"),
        ("1,1,x1,b", "39 records have no score of the name b"),
        ("1,1,x1,b c", "names of letters"),
    ],
)
def test_contradicting_rows_are_refused(extra, message):
    rows = [f"{i},{i % 2},x{i},a" for i in range(40)]
    with pytest.raises(InvalidInput, match=message):
        parse(long(header="score,member,id,name", rows=[*rows, extra]))


def test_too_few_rows_and_one_class_are_refused():
    with pytest.raises(InvalidInput, match="at least 32"):
        parse(long(rows=long_rows(31)))
    with pytest.raises(InvalidInput, match="one class only"):
        parse(long(rows=[f"{i},1" for i in range(40)]))


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr("stanch.audit.score_table.MAX_ROWS", 50)
    with pytest.raises(InvalidInput, match="line 52: expected at most 50 rows"):
        parse(long(rows=long_rows(60)))


def test_wide_layout_refuses_bad_rows():
    header = "id,kind,tier,member,copies,s\n"
    rows = [f"i{i},k,t,{i % 2},1,{i}\n" for i in range(40)]
    assert len(parse(header + "".join(rows))) == 40
    for bad, message in (
        ("i0,k,t,1,1,5\n", "line 42: this id stands twice"),
        ("z,k,t,1,0,5\n", "line 42: expected a whole number"),
        ("z,k,t,1,-1,5\n", "line 42: expected a whole number"),
        ("z,k,t,1,99999999,5\n", "line 42: expected a whole number"),
    ):
        with pytest.raises(InvalidInput, match=message):
            parse(header + "".join(rows) + bad)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"score,member\n\xff,1\n")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_table(tmp_path / "latin.csv")


def test_errors_quote_no_cell():
    with pytest.raises(InvalidInput) as caught:
        parse(long(rows=long_rows(first="hunter2,1")))
    assert "hunter2" not in caught.value.what + caught.value.why


def test_selection_of_tiers(tables):
    once, often = tables(m=40), tables(m=40, tier="often", seed=2)
    table = ScoreTable(
        ids=(*once.ids, *(f"o{name}" for name in often.ids), "row"),
        kinds=(*once.kinds, *often.kinds, "record"),
        tiers=(*once.tiers, *often.tiers, "row"),
        member=np.concatenate([once.member, often.member, [True]]),
        copies=np.concatenate([once.copies, often.copies * 4, [1]]),
        scores={name: np.concatenate([once.scores[name], often.scores[name], [0.0]]) for name in once.scores},
    )
    assert table.formal_tiers(("all",))["all"].ids == once.ids
    assert {name: len(part) for name, part in table.formal_tiers(("once", "often")).items()} == {
        "once": 40,
        "often": 40,
    }
    assert table.rows().ids == ("row",)


def test_negated_turns_scores_round(tables):
    table = tables(m=32)
    assert table.negated().scores["ez/1"].tolist() == (-table.scores["ez/1"]).tolist()


def test_columns_of_other_lengths_and_unusable_scores_are_refused():
    def build(ids=("a", "b"), values=(0.0, 1.0), name="s", kinds=("k", "k")):
        return ScoreTable(ids, kinds, ("t", "t"), np.array([True, False]), np.array([1, 1]), {name: np.array(values)})

    build()
    for wrong in (
        {"ids": ("a", "a")},
        {"values": (0.0,)},
        {"values": (0.0, np.nan)},
        {"name": "a b"},
        {"kinds": ("k",)},
    ):
        with pytest.raises(InvalidInput):
            build(**wrong)
