"""Strict reading of the manifest, the index and the recipients."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from stanch.crypto import canonical_json
from stanch.crypto.identity import generate_identity
from stanch.errors import InvalidInput, NonCanonicalStream, NotSealed
from stanch.seal import Recipients, UnsupportedFormat, folder, manifest, parse_manifest, recipients
from stanch.seal.index import INDEX_FORMAT, parse_index
from stanch.seal.layout import MAX_INDEX, MAX_STREAMS, STREAM_PLAIN, stored_size
from stanch.seal.manifest import StreamEntry
from stanch.seal.quorum import check_recipients
from stanch.seal.times import format_time, parse_time
from stanch.weights import MAX_HEADER_BYTES, check_paths

HEX = "ab" * 32


def entry(n, size, **changes):
    segments = max(1, -(-size // 1_048_544))
    return {"n": n, "size": size, "stored": stored_size(size), "entries": 1 + segments, "digests": HEX} | changes


GOOD = {
    "format": "stanch/sealed-bundle/v1",
    "bundle_id": HEX,
    "created": "2026-01-01T00:00:00Z",
    "kind": "model",
    "lineage": "acme/bot",
    "release_number": 1,
    "not_after": None,
    "cipher": {"name": "FLOE-AES256GCM-HKDF384", "segment": 1048576},
    "segment_hash": "blake3",
    "root_commitment": HEX,
    "streams": [entry(0, 300), entry(1, 0)],
    "base_model": None,
    "commitments": {"dataset": None, "recipe": None, "certificate": None, "mark": None},
    "quorum": None,
    "summary": None,
}


def test_the_good_manifest_is_a_fixed_point():
    data = canonical_json(GOOD)
    assert parse_manifest(data).to_bytes() == data
    full = GOOD | {
        "not_after": "2027-01-01T00:00:00Z",
        "base_model": {"name": "base", "digest": HEX},
        "quorum": {"m": 2, "n": 3},
        "summary": {"task": "support"},
    }
    parsed = parse_manifest(canonical_json(full))
    assert parsed.to_bytes() == canonical_json(full)
    assert parsed.summary == {"task": "support"}


def test_the_limits_are_those_that_the_specification_says():
    # docs/spec/sealed-bundle.md, section 2: every writer and reader draws these lines at the same place.
    mebi = 1 << 20
    assert (16 * mebi, 4 * mebi, 256 * mebi) == (manifest.MAX_MANIFEST, folder.MAX_SIGNATURE, MAX_INDEX)
    assert (4 * mebi, 4096) == (recipients.MAX_RECIPIENTS_FILE, recipients.MAX_STANZAS)
    assert (MAX_STREAMS, STREAM_PLAIN, stored_size(STREAM_PLAIN)) == (65_536, 134_213_632, 134_217_802)


@pytest.mark.parametrize(
    "change",
    [
        {"streams": [entry(0, 300)]},
        {"streams": [entry(0, MAX_INDEX), entry(1, STREAM_PLAIN)]},
        {"quorum": {"m": 3, "n": 3}},
        {"quorum": {"m": 16, "n": 16}},
        {"lineage": "a" * 200},
        {"release_number": 2**53 - 1},
    ],
    ids=lambda change: str(change)[:60],
)
def test_the_last_value_that_is_allowed_is_accepted(change):
    assert parse_manifest(canonical_json(GOOD | change)).to_bytes() == canonical_json(GOOD | change)


def test_as_many_streams_as_are_allowed(monkeypatch):
    monkeypatch.setattr(manifest, "MAX_STREAMS", 2)
    parse_manifest(canonical_json(GOOD))
    with pytest.raises(InvalidInput, match="1 to 2 streams, found 3"):
        parse_manifest(canonical_json(GOOD | {"streams": [entry(n, 1) for n in range(3)]}))


def test_a_release_is_told_by_its_manifest_and_a_marked_copy_by_what_all_copies_share():
    commitments = {"dataset": None, "recipe": None, "certificate": "cd" * 32, "mark": HEX}
    plain, one, two = (
        parse_manifest(canonical_json(GOOD | change))
        for change in ({}, {"commitments": commitments}, {"commitments": commitments, "bundle_id": "ef" * 32})
    )
    assert plain.release_digest == hashlib.sha256(canonical_json(GOOD)).hexdigest()
    assert one.release_digest == two.release_digest == hashlib.sha256(canonical_json(commitments)).hexdigest()


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_field_is_required(name):
    document = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(NotSealed if name == "format" else InvalidInput):
        parse_manifest(canonical_json(document))


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"bundle_id": "AB" * 32},
        {"bundle_id": HEX + "\n"},
        {"bundle_id": HEX[:-2]},
        {"created": "2026-01-01"},
        {"created": "2026-13-01T00:00:00Z"},
        {"created": "2026-01-01T00:00:00+00:00"},
        {"kind": "weights"},
        {"lineage": ""},
        {"lineage": "Acme"},
        {"lineage": "acme\n"},
        {"lineage": "a" * 201},
        {"release_number": 0},
        {"release_number": True},
        {"release_number": "1"},
        {"release_number": 1.5},
        {"not_after": "tomorrow"},
        {"cipher": {"name": "FLOE-AES256GCM-HKDF384", "segment": 65536}},
        {"cipher": {"name": "none", "segment": 1048576}},
        {"cipher": {"name": "FLOE-AES256GCM-HKDF384", "segment": 1048576, "mask": 2}},
        {"segment_hash": "md5"},
        {"root_commitment": None},
        {"streams": []},
        {"streams": [entry(1, 300)]},
        {"streams": [entry(0, 300), entry(2, 0)]},
        {"streams": [entry(0, -1)]},
        {"streams": [entry(0, 300) | {"more": 1}]},
        {"base_model": {"name": "base"}},
        {"base_model": {"name": "base", "digest": HEX, "more": 1}},
        {"base_model": "base"},
        {"commitments": {"dataset": None}},
        {"commitments": GOOD["commitments"] | {"more": None}},
        {"commitments": {"dataset": "x", "recipe": None, "certificate": None, "mark": None}},
        {"quorum": {"m": 1, "n": 3}},
        {"quorum": {"m": 4, "n": 3}},
        {"quorum": {"m": 2, "n": 17}},
        {"quorum": {"m": 2, "n": 3, "more": 1}},
        {"summary": {"a": 1}},
        {"summary": []},
    ],
    ids=str,
)
def test_each_broken_rule_of_the_manifest_is_refused(change):
    with pytest.raises(InvalidInput):
        parse_manifest(canonical_json(GOOD | change))


@pytest.mark.parametrize(
    "stream",
    [
        entry(1, 10, stored=115),
        entry(1, 10, stored=117),
        entry(1, 10, entries=3),
        entry(1, 1_048_544, stored=stored_size(1_048_544) + 32, entries=3),
        entry(1, STREAM_PLAIN + 1),
    ],
    ids=str,
)
def test_other_lengths_than_the_canonical_ones_are_refused(stream):
    with pytest.raises(NonCanonicalStream):
        parse_manifest(canonical_json(GOOD | {"streams": [entry(0, 300), stream]}))
    with pytest.raises(NonCanonicalStream):
        parse_manifest(canonical_json(GOOD | {"streams": [entry(0, MAX_INDEX + 1)]}))


def test_other_spellings_of_the_same_manifest_are_refused():
    data = canonical_json(GOOD)
    for other in (
        json.dumps(GOOD).encode(),
        data + b"\n",
        data.replace(b'"n":0,', b'"n":0.0,', 1),
        data.replace(b'"kind":"model"', b'"kind":"mod\\u0065l"'),
        data.replace(b'"kind":"model"', b'"kind":"model","kind":"model"'),
        b"\xef\xbb\xbf" + data,
    ):
        assert other != data
        with pytest.raises(InvalidInput):
            parse_manifest(other)


def test_other_formats_are_named():
    for found in ("stanch/sealed-bundle/v2", "stanch/sealed-bundle/v10"):
        with pytest.raises(UnsupportedFormat):
            parse_manifest(canonical_json(GOOD | {"format": found}))
    for document in (GOOD | {"format": "other"}, GOOD | {"format": 1}, [], 5, {"model_type": "llama"}):
        with pytest.raises(NotSealed) as caught:
            parse_manifest(canonical_json(document))
        assert not isinstance(caught.value, UnsupportedFormat)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\x85b",
        "c:/a",
        "C:a",
        "cafe\u0301",
        "x" * 1025,
    ],
    ids=ascii,
)
def test_unsafe_paths_are_refused(path):
    with pytest.raises(InvalidInput):
        check_paths([path])


@pytest.mark.parametrize("paths", [["a", "a"], ["A", "a"], ["a", "a/b"], ["A/b", "a"], ["ß", "SS"], ["x/Y", "X/y"]])
def test_paths_that_hide_each_other_are_refused(paths):
    with pytest.raises(InvalidInput):
        check_paths(paths)
    with pytest.raises(InvalidInput):
        check_paths(reversed(paths))


def test_ordinary_paths_are_accepted():
    check_paths(["a", "b/a", "b/c.d", "café", "日本/x", "a b", "...", "model-00001-of-00002.safetensors"])


def index_file(path, size, streams, **changes):
    return {
        "path": path,
        "size": size,
        "streams": streams,
        "blake3": HEX,
        "sha256": None,
        "type": "file",
        "head": None,
    } | changes


def streams_of(*sizes):
    return [StreamEntry(**entry(n, size)) for n, size in enumerate(sizes)]


def parse(files, *sizes, **changes):
    document = {"format": INDEX_FORMAT, "files": files, "oms": None, "notes": {}} | changes
    return parse_index(canonical_json(document), streams_of(300, *sizes))


def test_a_good_index_is_read():
    weights = index_file("b", 30, [2, 3], type="safetensors", head=2)
    index = parse([index_file("a", 0, [1]), weights], 0, 20, 10, oms={"any": ["thing"]})
    assert [file.path for file in index.files] == ["a", "b"]
    assert index.oms == {"any": ["thing"]}


def test_files_stand_in_the_order_of_their_bytes_not_of_their_letters():
    # U+10000 comes after U+FF41 in UTF-8, before it in UTF-16.
    first, second = index_file("\uff41", 0, [1]), index_file("\U00010000", 0, [2])
    assert len(parse([first, second], 0, 0).files) == 2
    with pytest.raises(InvalidInput, match="sorted by the bytes"):
        parse([index_file("\U00010000", 0, [1]), index_file("\uff41", 0, [2])], 0, 0)


@pytest.mark.parametrize("head", [8, 8 + MAX_HEADER_BYTES])
def test_the_shortest_and_the_longest_head_of_a_safetensors_file(head):
    for size in (head, head + 1):
        sizes = [head, 1][: 1 + size - head]
        assert parse([index_file("a", size, list(range(1, 1 + len(sizes))), type="safetensors", head=1)], *sizes)
    wrong = head - 1 if head == 8 else head + 1
    with pytest.raises(InvalidInput, match="cuts"):
        parse([index_file("a", wrong + 1, [1, 2], type="safetensors", head=1)], wrong, 1)


@pytest.mark.parametrize(
    ("files", "sizes"),
    [
        ([index_file("a", 5, [1])], [6]),
        ([index_file("a", 5, [1])], [5, 5]),
        ([index_file("a", 5, [1]), index_file("b", 5, [1])], [5]),
        ([index_file("a", 5, [0])], []),
        ([index_file("a", 5, [2]), index_file("b", 5, [1])], [5, 5]),
        ([index_file("b", 5, [1]), index_file("a", 5, [2])], [5, 5]),
        ([index_file("a", 10, [1, 2])], [5, 5]),
        ([index_file("a", 0, [])], []),
        ([index_file("a", 5, [1], head=1)], [5]),
        ([index_file("a", 5, [1], type="safetensors", head=1)], [5]),
        ([index_file("a", 30, [1, 2], type="safetensors", head=2)], [20, 10]),
        ([index_file("a", 30, [1, 2], type="safetensors", head=None)], [20, 10]),
        ([index_file("a", 20, [1, 2], type="safetensors", head=1)], [20, 0]),
        ([index_file("a", 19, [1], type="safetensors", head=1)], [20]),
        ([index_file("a", 30, [1, 2, 3], type="safetensors", head=1)], [20, 5, 5]),
        ([index_file("a", 0, [], type="safetensors", head=1)], []),
        ([index_file("../a", 5, [1])], [5]),
        ([index_file("a", 5, [1], type="pickle")], [5]),
        ([index_file("a", 5, [1], blake3="x")], [5]),
        ([index_file("a", 5, [1], more=1)], [5]),
    ],
    ids=str,
)
def test_each_broken_rule_of_the_index_is_refused(files, sizes):
    with pytest.raises(InvalidInput):
        parse(files, *sizes)


def test_an_index_of_another_format_or_spelling_is_refused():
    with pytest.raises(InvalidInput):
        parse([index_file("a", 0, [1])], 0, format="stanch/sealed-index/v2")
    with pytest.raises(InvalidInput):
        parse([index_file("a", 0, [1])], 0, notes={"a": 1})
    document = {"format": "stanch/sealed-index/v1", "files": [], "oms": None, "notes": {}}
    with pytest.raises(InvalidInput):
        parse_index(json.dumps(document).encode(), streams_of(300))


STANZA = {"type": "hpke-x25519", "key_id": "x25519:" + "0" * 32, "not_after": None, "ct": "A" * 107}
RECIPIENTS = {
    "format": "stanch/recipients/v1",
    "bundle_id": HEX,
    "manifest_sha256": HEX,
    "epoch": 0,
    "stanzas": [STANZA],
}


def test_good_recipients_are_a_fixed_point():
    other = {"type": "future-kind", "key_id": "arn:aws:kms:x", "not_after": "2027-01-01T00:00:00Z", "uri": "x", "k": 3}
    data = canonical_json(RECIPIENTS | {"stanzas": [STANZA, other], "epoch": 7})
    assert Recipients.parse(data).to_bytes() == data
    most = canonical_json(RECIPIENTS | {"stanzas": [STANZA | {"key_id": f"k{n}"} for n in range(4096)]})
    assert len(Recipients.parse(most).stanzas) == 4096


def test_other_spellings_of_the_same_recipients_are_refused():
    data = canonical_json(RECIPIENTS)
    for other in (json.dumps(RECIPIENTS).encode(), data + b"\n", data.replace(b"hpke", b"hp\\u006be"), b"[]", b"5"):
        with pytest.raises(InvalidInput):
            Recipients.parse(other)


def test_a_bundle_is_sealed_for_somebody_and_for_nobody_twice():
    one, other = generate_identity().recipient, generate_identity().recipient
    check_recipients([one, other], None)
    with pytest.raises(InvalidInput, match="needs at least one recipient"):
        check_recipients([], None)
    with pytest.raises(InvalidInput, match="a recipient is named twice"):
        check_recipients([one, other, one], None)


def test_recipients_of_another_format_say_which_was_expected():
    for other in (canonical_json(RECIPIENTS | {"format": "stanch/recipients/v2"}), b"[]", b"{}"):
        with pytest.raises(InvalidInput, match="expected format stanch/recipients/v1 with its five fields"):
            Recipients.parse(other)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": "1"},
        {"bundle_id": 5},
        {"stanzas": {}},
        {"stanzas": [STANZA, STANZA]},
        {"stanzas": [STANZA | {"not_after": "soon"}]},
        {"stanzas": [STANZA | {"type": "passphrase"}, STANZA | {"type": "passphrase", "key_id": "other"}]},
        {"stanzas": [STANZA | {"key_id": f"k{n}"} for n in range(4097)]},
    ],
    ids=lambda change: str(change)[:60],
)
def test_each_broken_rule_of_the_recipients_is_refused(change):
    with pytest.raises(InvalidInput):
        Recipients.parse(canonical_json(RECIPIENTS | change))
    for name in RECIPIENTS:
        with pytest.raises(InvalidInput):
            Recipients.parse(canonical_json({key: value for key, value in RECIPIENTS.items() if key != name}))


def test_times():
    moment = datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC)
    assert format_time(moment) == "2026-02-28T23:59:59Z"
    assert parse_time("2026-02-28T23:59:59Z", what="x") == moment.replace(microsecond=0)
    for text in ("2026-02-30T00:00:00Z", "2026-02-28T23:59:59", "2026-2-28T23:59:59Z", "２026-02-28T23:59:59Z", ""):
        with pytest.raises(InvalidInput):
            parse_time(text, what="x")
    with pytest.raises(InvalidInput):
        format_time(datetime(2026, 1, 1))  # noqa: DTZ001 - a time without zone is what must be refused
