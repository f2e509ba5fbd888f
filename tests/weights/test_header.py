import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput, InvalidSafetensors
from stanch.weights import ELEMENT_TYPES, Tensor, build_head, open_tensors, parse_header, read_header, write_safetensors

safetensors = pytest.importorskip("safetensors")


def head(document, *, length=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return (len(body) if length is None else length).to_bytes(8, "little") + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = {"a": entry(), "b": entry(shape=(1, 2), offsets=(8, 16))}

BAD = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "length too small": head(GOOD, length=3),
    "length too large": head(GOOD, length=10_000),
    "not an object": head(b"[]"),
    "leading space": head(b" {}"),
    "not JSON": head(b"{nope}"),
    "not UTF-8": head(b'{"\xff": 1}'),
    "duplicate key": head(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2)),
    "hole": head({"a": entry(), "b": entry(offsets=(12, 20))}),
    "hole at the start": head({"a": entry(offsets=(8, 16))}),
    "overlap": head({"a": entry(), "b": entry(offsets=(4, 12))}),
    "same place": head({"a": entry(), "b": entry()}),
    "wrong size": head({"a": entry(shape=(3,))}),
    "unknown type": head({"a": entry(dtype="F31")}),
    "type is a number": head({"a": entry(dtype=3)}),
    "negative dimension": head({"a": entry(shape=(-2,), offsets=(0, 8))}),
    "boolean dimension": head({"a": entry(shape=(True, 2))}),
    "fractional dimension": head({"a": entry(shape=(2.0,))}),
    "offsets reversed": head({"a": entry(offsets=(8, 0))}),
    "three offsets": head({"a": entry(offsets=(0, 8, 8))}),
    "extra field": head({"a": entry() | {"note": 1}}),
    "missing field": head({"a": {"dtype": "F32", "shape": [2]}}),
    "tensor is a list": head({"a": [1]}),
    "metadata is not text": head({"__metadata__": {"a": 1}}),
    "metadata is a list": head({"__metadata__": []}),
    "huge number": head(b'{"a":{"dtype":"F32","shape":[1' + b"0" * 5000 + b'],"data_offsets":[0,8]}}'),
    "deep nesting": head(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_headers_are_refused(name):
    with pytest.raises(InvalidSafetensors):
        parse_header(BAD[name])


def test_a_good_header_is_read_in_the_order_of_offsets():
    header = parse_header(head({"b": GOOD["b"], "__metadata__": {"format": "pt"}, "a": GOOD["a"]}))
    assert [info.name for info in header.tensors] == ["a", "b"]
    assert header.metadata == {"format": "pt"}
    assert header.data_size == 16
    assert header.tensors[1].count == 2


def test_the_limit_is_checked_before_the_header_is_read(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((100_000_001).to_bytes(8, "little") + b"{}")
    with pytest.raises(InvalidSafetensors, match="out of range"):
        read_header(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_refused(tmp_path, change):
    data = head(GOOD) + bytes(16 + change)
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidSafetensors, match="expected"):
        open_tensors(path)


def test_an_error_never_quotes_the_file_content(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(head(b'{"SECRET ROW'))
    with pytest.raises(InvalidSafetensors) as caught:
        read_header(path)
    assert "SECRET" not in caught.value.what + caught.value.why


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw):
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    made = []
    for name in names:
        dtype = draw(st.sampled_from(sorted(ELEMENT_TYPES)))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        count = int(np.prod(shape, dtype=int)) * np.dtype(ELEMENT_TYPES[dtype]).itemsize
        raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), ELEMENT_TYPES[dtype]).reshape(shape)
        made.append(Tensor(name, dtype, raw))
    return made


@settings(max_examples=60, deadline=None)
@given(made=tensors(), metadata=st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=5), max_size=3))
def test_what_is_written_is_read_back_here_and_by_the_reference(tmp_path_factory, made, metadata):
    path = tmp_path_factory.mktemp("w") / "m.safetensors"
    write_safetensors(path, made, metadata=metadata)
    again = open_tensors(path)
    assert {name: (t.dtype, t.shape, t.raw.tobytes()) for name, t in again.items()} == {
        t.name: (t.dtype, t.shape, t.raw.tobytes()) for t in made
    }
    assert list(again) == [t.name for t in made] or any(t.raw.size == 0 for t in made)
    assert dict(read_header(path).metadata) == metadata
    reference = dict(safetensors.deserialize(path.read_bytes()))
    assert {name: bytes(value["data"]) for name, value in reference.items()} == {t.name: t.raw.tobytes() for t in made}


def test_data_starts_at_a_multiple_of_eight():
    for length in range(1, 20):
        assert build_head([("n" * length, "F32", (1,))]).data_offset % 8 == 0


def test_names_must_differ(tmp_path):
    twins = [Tensor.from_float32("a", np.zeros(1, np.float32))] * 2
    with pytest.raises(InvalidInput, match="twice"):
        write_safetensors(tmp_path / "m.safetensors", twins)
    assert list(tmp_path.iterdir()) == []


def test_views_cannot_be_written_to(tmp_path):
    path = tmp_path / "m.safetensors"
    write_safetensors(path, [Tensor.from_float32("a", np.ones(3, np.float32))])
    with pytest.raises(ValueError, match="read-only"):
        open_tensors(path)["a"].raw[0] = 2
