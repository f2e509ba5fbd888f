import io

import numpy as np
import pytest

from stanch.audit.score_table import MAX_ROWS, ScoreTable, parse_table, read_table
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
        ("id,kind,tier,member,copied,s", "expected the columns"),
        ("score,id", "expected the columns"),
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
    with pytest.raises(InvalidInput, match="one class only"):
        parse(long(rows=[f"{i},0" for i in range(40)]))


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
    def build(ids=("a", "b"), values=(0.0, 1.0), names=("s",), kinds=("k", "k")):
        scores = {name: np.array(values) for name in names}
        return ScoreTable(ids, kinds, ("t", "t"), np.array([True, False]), np.array([1, 1]), scores)

    build()
    for wrong in (
        {"ids": ("a", "a")},
        {"values": (0.0,)},
        {"values": (0.0, np.nan)},
        {"names": ("a b",)},
        {"names": ("s", "a b")},
        {"names": ()},
        {"kinds": ("k",)},
    ):
        with pytest.raises(InvalidInput):
            build(**wrong)


def wide(names=("s",), *, copies="1", first="k,t"):
    """A table of 32 records in the wide layout."""
    rows = (f"i{n},{first if n == 0 else 'k,t'},{n % 2},{copies if n == 0 else 1}," + ",".join("0" for _ in names)
            for n in range(32))  # fmt: skip
    return "\n".join([",".join(["id,kind,tier,member,copies", *names]), *rows]) + "\n"


def test_a_table_has_at_most_64_scores_with_names_of_at_most_64_characters():
    names = [f"s{n}" for n in range(64)]
    assert tuple(parse(wide(names)).scores) == tuple(names)
    with pytest.raises(InvalidInput, match=r"line 1: expected .* tier, member, copies and then 1 to 64 scores"):
        parse(wide([*names, "more"]))
    with pytest.raises(InvalidInput, match="line 1: expected the columns"):
        parse(wide(()))
    rows = [f"{n},{n % 2},i{n},{name}" for name in names for n in range(32)]
    assert len(parse(long(header="score,member,id,name", rows=rows)).scores) == 64
    with pytest.raises(InvalidInput, match=f"line {len(rows) + 2}: expected at most 64 names"):
        parse(long(header="score,member,id,name", rows=[*rows, "1,1,i1,more"]))
    longest = "Az09_./+-".ljust(64, "n")
    assert tuple(parse(wide([longest])).scores) == (longest,)
    for wrong in (longest + "n", "a:b", "ä"):
        with pytest.raises(InvalidInput, match="names of scores"):
            parse(wide([wrong]))
        with pytest.raises(InvalidInput, match="names of letters"):
            parse(long(header="score,member,id,name", rows=[f"{n},{n % 2},i{n},{wrong}" for n in range(32)]))


def test_a_wide_table_may_have_a_score_of_the_name_score():
    assert tuple(parse(wide(["score"])).scores) == ("score",)


def test_a_record_has_one_to_a_million_copies():
    for copies in ("1", "1000000", "0000007"):
        assert parse(wide(copies=copies)).copies[0] == int(copies)
    for copies in ("0", "1000001", "00000001", "1.0", "", "+1", "٣", "²"):
        with pytest.raises(InvalidInput, match="line 2: expected a whole number from 1 to 1,000,000 in"):
            parse(wide(copies=copies))


def test_a_line_has_fewer_than_65_536_characters():
    line = "0.5,1,".ljust(65_534, "x")
    assert len(parse(long(header="score,member,id", rows=[line, *(f"1,{n % 2},{n}" for n in range(40))]))) == 41
    with pytest.raises(InvalidInput, match="line 2: expected fewer than 65536 characters"):
        parse(long(header="score,member,id", rows=[line + "x", *(f"1,{n % 2},{n}" for n in range(40))]))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("+1.5", 1.5), ("-.5", -0.5), ("2.", 2), ("1e3", 1000), ("1E-3", 0.001), ("1.5e+2", 150), ("-0", 0)],
)
def test_numbers_are_decimal(text, value):
    assert parse(long(rows=long_rows(first=f"{text},1"))).scores["score"][0] == value


@pytest.mark.parametrize("text", [".", "+", "e3", "1e", "1.5.2", "1e3.5", "--1", "1 ", "1,"])
def test_what_is_no_decimal_number_is_refused(text):
    with pytest.raises(InvalidInput, match="line 2: expected"):
        parse(long(rows=long_rows(first=f"{text},1")))


def test_both_ways_to_write_a_boolean_are_read():
    rows = [f"{n},{('0', '1', 'false', 'true')[n % 4]}" for n in range(32)]
    assert parse(long(rows=rows)).member.tolist() == [False, True] * 16


def test_what_a_long_table_leaves_out_has_its_default():
    table = parse(long())
    assert table.kinds == ("record",) * 32
    assert table.tiers == ("row",) * 32
    assert table.ids == tuple(f"r{n}" for n in range(32))
    given = parse(long(header="tier,member,score,id", rows=[f"t{n},{n % 2},{n},x{n}" for n in range(32)]))
    assert given.tiers == tuple(f"t{n}" for n in range(32))
    assert given.ids == tuple(f"x{n}" for n in range(32))


def test_an_empty_file_is_refused_at_its_first_line():
    with pytest.raises(InvalidInput, match=r"^scores.csv line 1: expected the columns score and member, or"):
        parse("")


def test_the_fewest_records_are_32_and_the_most_five_million(monkeypatch):
    assert MAX_ROWS == 5_000_000
    assert len(parse(long())) == 32
    with pytest.raises(InvalidInput, match="at least 32 records, found 31"):
        parse(long(rows=long_rows(31)))
    monkeypatch.setattr("stanch.audit.score_table.MAX_ROWS", 32)
    assert len(parse(long())) == 32


def test_the_same_record_has_one_tier_and_one_membership():
    rows = [f"{n},{n % 2},i{n},a,t" for n in range(32)]
    for other in ("1,1,i1,b,u", "1,0,i1,b,t"):
        with pytest.raises(InvalidInput, match="line 34: the same id has another member or tier above"):
            parse(long(header="score,member,id,name,tier", rows=[*rows, other]))


def test_a_table_is_printed_without_what_is_in_it(tables):
    assert repr(tables(m=32)) == "ScoreTable(rows=32, scores=('ratio/1', 'suffix_loss/1', 'ez/1'))"
