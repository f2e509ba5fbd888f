import base64
import gzip
import hmac
import json
from collections.abc import Callable
from hashlib import sha256

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import lines as line_files
from stanch.data import open_dataset, turns
from stanch.data.faithful import lost_in
from stanch.errors import InvalidInput

PLANTED = "sk-planted-0123456789"


def test_records_stream_in_order_and_again(chats):
    first, second = list(chats), list(chats)
    assert first == second
    assert [record.index for record in first] == list(range(200)) == list(range(len(chats)))
    assert first[3].source == "train.jsonl"
    assert [field.path for field in first[0].fields] == ["messages[0].content", "messages[1].content"]
    assert json.loads(first[0].raw)["messages"][1]["content"] == first[0].fields[1].text


def test_ids_without_a_key_are_line_numbers_and_blank_lines_do_not_shift_them(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n   \n{"text": "b"}')
    dataset = open_dataset(path)
    assert [(record.id, record.index, record.raw) for record in dataset] == [
        ("r1", 0, b'{"text": "a"}'),
        ("r4", 1, b'{"text": "b"}'),
    ]
    assert len(dataset) == 2


def test_keyed_ids_follow_the_content_and_number_repeats(write_rows, key):
    rows = [{"text": "a", "n": 1}, {"n": 1, "text": "a"}, {"text": "b"}, {"text": "a", "n": 1.0}]
    ids = [record.id for record in open_dataset(write_rows(rows), key=key)]
    # HKDF-SHA256 with an empty salt and one block of output, written out from RFC 5869.
    extracted = hmac.digest(bytes(32), key, "sha256")
    id_key = hmac.digest(extracted, b"stanch/record-id/v1\x01", "sha256")
    expected = base64.b32encode(hmac.digest(id_key, b'{"n":1,"text":"a"}', "sha256")[:20]).decode()
    assert ids[:2] == [expected, f"{expected}-2"]
    assert ids[3] == f"{expected}-3"  # 1.0 and 1 have one canonical form
    assert len({name.split("-")[0] for name in ids}) == 2


def test_another_key_gives_other_ids(write_rows, key):
    path = write_rows([{"text": "a"}])
    (one,) = open_dataset(path, key=key)
    (other,) = open_dataset(path, key=bytes(32))
    assert one.id != other.id


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sharegpt"),
        ({"prompt": "q", "completion": "a"}, "prompt"),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            "prompt",
        ),
        ({"output": "a", "instruction": "q", "input": ""}, "instruction"),
    ],
)
def test_auto_recognises_each_chat_form(write_rows, row, form):
    dataset = open_dataset(write_rows([row] * 3))
    assert dataset.chat == form
    for record in dataset:
        assert [(turn.role, turn.content) for turn in turns(record)] == [("user", "q"), ("assistant", "a")]


def test_auto_looks_at_the_first_hundred_records_and_fails_by_line_later(write_rows):
    rows = [{"messages": [{"role": "user", "content": "q"}], "text": "t"}] * 99 + [{"text": "t"}] * 20
    assert open_dataset(write_rows(rows)).chat == "text"
    rows = [{"text": "t"}] * 100 + [{"messages": []}]
    dataset = open_dataset(write_rows(rows, "other.jsonl"))
    with pytest.raises(InvalidInput, match=r"^other\.jsonl:101: expected a string under 'text'"):
        list(dataset)


def test_named_columns_are_the_text(write_rows):
    dataset = open_dataset(write_rows([{"title": "T", "n": 1, "body": "B"}]), fields=["title", "body"])
    (record,) = dataset
    assert dataset.chat == "fields"
    assert [(turn.role, turn.content) for turn in turns(record)] == [("text", "T\nB")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chat": "xml"}, "unknown chat form"),
        ({"chat": "fields"}, "unknown chat form"),
        ({"fields": []}, "each column once"),
        ({"fields": ["text", "text"]}, "each column once"),
        ({"fields": ["text"], "chat": "text"}, "each column once"),
        ({"key": b"short"}, "expected 32 bytes, found 5"),
    ],
)
def test_wrong_arguments_are_refused(write_rows, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        open_dataset(write_rows([{"text": "a"}]), **arguments)


def test_no_form_fits(write_rows):
    with pytest.raises(InvalidInput, match="no chat form fits"):
        open_dataset(write_rows([{"body": "a"}]))


def test_missing_file_folder_and_empty_file(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        open_dataset(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="cannot read"):
        open_dataset(tmp_path)
    (tmp_path / "empty.jsonl").write_text(" \n\n")
    with pytest.raises(InvalidInput, match="empty"):
        open_dataset(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        f'{{"text": "{PLANTED}"',
        f'{{"text": {PLANTED}}}',
        f'["{PLANTED}"]',
        f'"{PLANTED}"',
        f'{{"text": "{PLANTED}", "n": NaN}}',
        f'{{"text": "{PLANTED}\\ud800"}}',
    ],
)
def test_an_unreadable_line_is_named_and_never_quoted(tmp_path, line, errors_text: Callable[[BaseException], str]):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(InvalidInput, match=r"^t\.jsonl:2: expected one JSON object") as caught:
        open_dataset(path)
    assert PLANTED not in errors_text(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"text": {"deep": PLANTED}},
        {"text": None, "x": PLANTED},
    ],
)
def test_a_row_that_does_not_fit_is_named_and_never_quoted(write_rows, row, errors_text):
    dataset = open_dataset(write_rows([{"text": "a"}, row]), chat="text")
    with pytest.raises(InvalidInput, match=r"^train\.jsonl:2: expected a string under 'text'") as caught:
        list(dataset)
    assert PLANTED not in errors_text(caught.value)


def test_invalid_utf8_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(InvalidInput, match=r"^t\.jsonl:1:"):
        open_dataset(path)


@pytest.mark.parametrize(("depth", "accepted"), [(63, True), (65, False), (5000, False)])
def test_depth_is_bounded(tmp_path, depth, accepted):
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": "a", "x": ' + "[" * depth + "]" * depth + "}\n")
    if accepted:
        assert len(list(open_dataset(path))) == 1
    else:
        with pytest.raises(InvalidInput, match=r"^deep\.jsonl:1: (nested deeper than 64|expected one JSON object)"):
            list(open_dataset(path))


FAITHFUL = [
    '{"text":"a","n":[18446744073709551615,-9223372036854775808,1e20,0.30000000000000004,0.00000000000000000000001]}',
    '{"text": ":a: \\"text\\": \\u003a 123456789012345678901234567890 ", "x": {"text": "a:b"}, "y": {"text": "a:b"}}',
    '{"text" : "", "n" : 100000000000000000000000000000.0 }',
]
LOST = [
    ('{"text":"one","text":"two"}', "a key stands twice"),
    ('{"text" \t: "one" , "te\\u0078t":"two"}', "a key stands twice"),
    ('{"text":"a","x":[{"k":1,"k":1}]}', "a key stands twice"),
    ('{"text":"a","x":{"k":1,"k":2},"y":"\\u003A"}', "a key stands twice"),
    ('{"text":"a","n":18446744073709551616}', "a number has more digits than 64 bits hold"),
    ('{"text":"a","n":-9223372036854775809}', "a number has more digits than 64 bits hold"),
    ('{"text":"a","n":' + "9" * 5000 + "e-5000}", "a number has more digits than 64 bits hold"),
    ('{"text":"a","n":0.1000000000000000055511151231257827}', "a number has more digits than 64 bits hold"),
    ('{"text":"a","n":1234567890123456789e-9999999999999999999}', "a number has more digits than 64 bits hold"),
    ('{"text":"a","x":' + "[" * 400 + "]" * 400 + "}", "it is nested too deep"),
]


@pytest.mark.parametrize("line", FAITHFUL)
def test_a_line_whose_row_holds_all_of_it_is_read(tmp_path, line):
    path = tmp_path / "t.jsonl"
    path.write_text(line + "\n")
    assert [raw for _, raw, _ in open_dataset(path).rows()] == [line.encode()]


@pytest.mark.parametrize(("line", "why"), LOST)
def test_a_line_that_says_more_than_its_row_is_refused(tmp_path, line, why):
    path = tmp_path / "t.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InvalidInput) as caught:
        open_dataset(path)
    assert (caught.value.what, caught.value.why) == ("t.jsonl:1: expected one JSON object", why)


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(["text", "k", ":", 'a":', "\\"]), st.sampled_from([":", 'x":"y', 1, {"k": ":"}]))
    ),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " \t: ")]),
)
def test_a_key_that_stands_twice_is_always_seen(pairs, ascii_only, separators):
    said = [json.dumps(item, ensure_ascii=ascii_only, separators=separators) for pair in pairs for item in pair]
    if ascii_only:
        said = [one.replace("\\\\", "\\u005c").replace(":", "\\u003a") if one[0] == '"' else one for one in said]
    comma, colon = separators
    line = ("{" + comma.join(colon.join(said[at : at + 2]) for at in range(0, len(said), 2)) + "}").encode()
    twice = len({key for key, _ in pairs}) < len(pairs)
    assert lost_in(line, orjson.loads(line)) == ("a key stands twice" if twice else "")


def test_line_length_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(line_files, "MAX_LINE", 64)
    path = tmp_path / "t.jsonl"
    fitting = json.dumps({"text": "x" * (64 - len('{"text": ""}') - 1)})
    path.write_text(fitting + "\n")
    assert len(list(open_dataset(path))) == 1
    path.write_text(fitting.replace("x", "xx", 1) + "\n")
    with pytest.raises(InvalidInput, match=r"t\.jsonl:1: expected a line of at most 64 MiB"):
        open_dataset(path)


def test_gzip_is_read_and_a_bomb_is_refused(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    dataset = open_dataset(path)
    assert dataset.format == "jsonl.gz"
    assert [record.id for record in dataset] == ["r1", "r2"]
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b'{"text": "a"}\n' + b'{"text": "' + b"a" * (32 << 20) + b'"}\n'))
    with pytest.raises(InvalidInput, match=r"bomb\.jsonl\.gz: the file expands more than 200-fold"):
        open_dataset(bomb)


@pytest.mark.parametrize("damage", [lambda data: data[:-6], lambda _: b"no gzip", lambda data: data[:14] + b"\xff" * 9])
def test_damaged_gzip_is_refused(tmp_path, damage):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b'{"text": "a"}\n' * 10)))
    with pytest.raises(InvalidInput, match="cannot read"):
        list(open_dataset(path))


def test_a_file_that_changes_meanwhile_is_refused(write_rows):
    path = write_rows([{"text": "a"}, {"text": "b"}])
    dataset = open_dataset(path)
    running = iter(dataset)
    next(running)
    write_rows([{"text": "a"}, {"text": "b"}, {"text": "c"}])
    with pytest.raises(InvalidInput, match="changed while it was in use"):
        list(running)
    with pytest.raises(InvalidInput, match="changed while it was in use"):
        len(dataset)


def test_integers_without_a_canonical_form_are_named(write_rows, key):
    path = write_rows([{"text": "a"}, {"text": "b", "n": 2**53}])
    assert len(list(open_dataset(path))) == 2
    with pytest.raises(InvalidInput, match=r"^train\.jsonl:2: .*integer"):
        list(open_dataset(path, key=key))


def test_representations_hold_no_text_and_no_key(write_rows, key):
    dataset = open_dataset(write_rows([{"text": PLANTED}]), key=key)
    (record,) = dataset
    for thing in (dataset, record, record.fields, turns(record)):
        assert PLANTED not in repr(thing)
        assert key.hex() not in repr(thing)
        assert repr(key) not in repr(thing)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=8), compressed=st.booleans())
def test_any_text_survives_the_file(tmp_path, texts, compressed):
    path = tmp_path / ("any.jsonl.gz" if compressed else "any.jsonl")
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if compressed else data)
    records = list(open_dataset(path))
    assert [record.fields[0].text for record in records] == texts
    assert sha256(b"".join(record.raw + b"\n" for record in records)).digest() == sha256(data).digest()
