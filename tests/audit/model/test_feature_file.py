"""The file ``leakfeat/v1``: its name, its bytes, and that it is read only as what it was written as."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from stanch.audit.feature_file import PassOf, cut_shards, decode_features, encode_features
from stanch.audit.features import Features, ScorerIdentity, record_digest
from stanch.audit.params import Decoding
from stanch.crypto import canonical_json
from stanch.data import TokenRecord
from stanch.errors import InvalidInput
from stanch.weights import build_head

KIND = PassOf(ScorerIdentity("aa", (("f", 1, "ff"),), "ad", "bb", "tt", "float32", "e 1"), "off", Decoding(3, 0.5))
RECORDS = [TokenRecord("one", (5, 6, 7, 8), (1, 3)), TokenRecord("two", (9, 10, 11), (2, 3))]
HEADER = {
    "schema": "leakfeat/v1", "model": "aa", "base": "bb", "tokenizer": "tt", "dtype": "float32", "engine": "e 1",
    "adapter": "off", "decoding": '{"temperature":0.5,"top_k":3}',
    "records": hashlib.sha256(record_digest(RECORDS[0]) + record_digest(RECORDS[1])).hexdigest(),
}  # fmt: skip


def features(record, first):
    def column(number):
        return np.arange(first, first + record.span[1] - record.span[0], dtype=np.float32) + number / 8

    return Features(record.id, record.span[0], *(column(n) for n in range(3)), column(0) % 2 == 0, column(3))


FOUND = [features(RECORDS[1], 10), features(RECORDS[0], 1)]
BODY = b"".join(
    np.array(values, kind).tobytes()
    for values, kind in (
        ([0, 2, 3], "<i8"), ([1, 2, 10], "<f4"), ([1.125, 2.125, 10.125], "<f4"), ([1.25, 2.25, 10.25], "<f4"),
        ([1.375, 2.375, 10.375], "<f4"), ([0, 1, 1], "u1"),
    )
) + record_digest(RECORDS[0]) + record_digest(RECORDS[1])  # fmt: skip
LAYOUT = [
    ("offsets", "I64", (3,)), ("lp", "F32", (3,)), ("mu", "F32", (3,)), ("sigma", "F32", (3,)), ("lq", "F32", (3,)),
    ("hit", "U8", (3,)), ("records", "U8", (2, 32)),
]  # fmt: skip


def written(body=BODY, layout=LAYOUT, **metadata):
    """A file with any body, layout and metadata, and the digest of that body."""
    content = {"content": hashlib.sha256(body).hexdigest()}
    return build_head(layout, HEADER | content | metadata).head + body


def decoded(data, records=RECORDS, kind=KIND):
    return decode_features(data, kind, records, what="f")


def test_a_file_holds_the_columns_of_all_records_in_their_order():
    assert KIND.metadata(RECORDS) == HEADER
    assert KIND.name(RECORDS) == hashlib.sha256(canonical_json(HEADER)).hexdigest() + ".leakfeat"
    data = encode_features(KIND, RECORDS, FOUND)
    assert data == written()
    size = int.from_bytes(data[:8], "little")
    assert json.loads(data[8 : 8 + size])["__metadata__"]["schema"] == "leakfeat/v1"
    for found, wanted in zip(decoded(data), FOUND[::-1], strict=True):
        assert (found.record_id, found.start) == (wanted.record_id, wanted.start)
        for name in ("lp", "mu", "sigma", "hit", "lq"):
            assert getattr(found, name).tolist() == getattr(wanted, name).tolist()
            assert getattr(found, name).dtype == getattr(wanted, name).dtype
    assert decoded(encode_features(KIND, RECORDS[:1], FOUND), RECORDS[:1])[0].record_id == "one"


@pytest.mark.parametrize(
    "change",
    [{"model": "ab"}, {"base": "ab"}, {"tokenizer": "ab"}, {"dtype": "bfloat16"}, {"engine": "e 2"}],
)
def test_what_is_of_another_model_is_not_read(change):
    other = replace(KIND, identity=replace(KIND.identity, **change))
    assert other.name(RECORDS) != KIND.name(RECORDS)
    with pytest.raises(InvalidInput, match="of another model or other records, or are damaged"):
        decoded(written(), kind=other)


def test_what_is_of_another_pass_or_other_records_is_not_read():
    kinds = replace(KIND, adapter="on"), replace(KIND, decoding=Decoding(3, 0.6))
    moved = [replace(RECORDS[0], span=(1, 4)), RECORDS[1]]
    for kind, records in (*((kind, RECORDS) for kind in kinds), (KIND, RECORDS[::-1]), (KIND, moved)):
        assert kind.name(records) != KIND.name(RECORDS)
        with pytest.raises(InvalidInput, match="of another model or other records, or are damaged"):
            decoded(written(), records, kind)


@pytest.mark.parametrize("data", [written(content="00"), written(schema="leakfeat/v2"), written(more="x")])
def test_a_file_says_what_it_holds_and_nothing_more(data):
    with pytest.raises(InvalidInput, match="or are damaged"):
        decoded(data)


@pytest.mark.parametrize(
    "data",
    [
        written(BODY + b"\0"),  # more than its tensors hold
        written(layout=[*LAYOUT[:1], LAYOUT[2], LAYOUT[1], *LAYOUT[3:]]),
        written(layout=[("offsets", "U64", (3,)), *LAYOUT[1:]]),
        written(layout=[*LAYOUT[:5], ("hit", "BOOL", (3,)), LAYOUT[6]]),
        written(layout=[*LAYOUT[:6], ("records", "U8", (64,))]),
        written(BODY[8:], [("offsets", "I64", (2,)), *LAYOUT[1:]]),
        written(BODY[:-1], [*LAYOUT[:6], ("records", "U8", (63,))]),
        written(BODY + bytes(4), [*LAYOUT, ("more", "F32", (1,))]),
    ],
)
def test_other_tensors_are_not_read(data):
    with pytest.raises(InvalidInput, match="f: "):
        decoded(data)


def test_offsets_and_digests_are_those_of_the_records():
    for body in (np.array([0, 1, 3], "<i8").tobytes() + BODY[24:], BODY[:-32] + bytes(32)):
        with pytest.raises(InvalidInput, match="f: the features are of other records"):
            decoded(written(body))


def test_every_truncation_is_noticed():
    data = written()
    for end in range(0, len(data), 5):
        with pytest.raises(InvalidInput):
            decoded(data[:end])


def test_shards_are_cut_in_the_order_of_the_digests():
    records = [TokenRecord(f"r{n}", (n, 1, 2), (1, 3)) for n in range(5)]
    twins = [replace(records[0], id=name) for name in ("b", "a")]
    shards = cut_shards([*records, *twins], 3)
    assert [len(shard) for shard in shards] == [3, 3, 1]
    flat = [record for shard in shards for record in shard]
    assert flat == sorted([*records, *twins], key=lambda record: (record_digest(record), record.id))
    assert cut_shards([]) == []
    many = [replace(records[0], id=f"{n:04d}") for n in range(2049)]
    assert [len(shard) for shard in cut_shards(many)] == [2048, 1]
