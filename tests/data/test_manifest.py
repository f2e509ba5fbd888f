import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import (
    DatasetManifest,
    RecordProof,
    build_manifest,
    open_dataset,
    prove_record,
    split_members,
    verify_manifest,
    verify_record,
    write_split,
)
from stanch.errors import InvalidInput, NotFound, ProofInvalid, Tampered
from stanch.terms import Digest

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "data" / "manifest.json").read_text())
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def oracle_root(rows, key):
    """The root by docs/spec/dataset-manifest.md with the standard library alone (rows of strings and integers)."""
    salt_key = hmac.digest(hmac.digest(bytes(32), key, "sha256"), b"stanch/record-salt/v1\x01", "sha256")
    nodes = []
    for index, row in enumerate(rows):
        canonical = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        salt = hmac.digest(salt_key, index.to_bytes(8, "little"), "sha256")[:16]
        nodes.append(hashlib.sha256(b"\x00" + salt + hashlib.sha256(canonical).digest()).digest())

    def root(part):
        if len(part) == 1:
            return part[0]
        half = 1
        while half * 2 < len(part):
            half *= 2
        return hashlib.sha256(b"\x01" + root(part[:half]) + root(part[half:])).digest()

    return root(nodes).hex()


def manifest_of(path, key):
    dataset = open_dataset(path, key=key)
    return dataset, build_manifest(dataset, key=key, now=lambda: NOW)


@pytest.mark.parametrize("vector", VECTORS["manifests"], ids=lambda vector: vector["what"])
def test_golden_manifest(tmp_path, vector):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(line + "\n" for line in vector["lines"]), encoding="utf-8")
    dataset, manifest = manifest_of(path, bytes.fromhex(vector["key"]))
    assert [record.id for record in dataset] == vector["ids"]
    assert json.loads(manifest.to_json()) == vector["manifest"]
    rows = [json.loads(line) for line in vector["lines"]]
    assert oracle_root(rows, bytes.fromhex(vector["key"])) == vector["manifest"]["root"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=20))
def test_the_root_is_that_of_the_oracle_and_every_record_is_proven(tmp_path, texts):
    key = bytes(range(32))
    rows = [{"text": text} for text in texts]
    path = tmp_path / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset, manifest = manifest_of(path, key)
    assert manifest.root == oracle_root(rows, key)
    root = Digest.parse(f"sha256:{manifest.root}")
    for record in dataset:
        proof = RecordProof.from_json(prove_record(dataset, manifest, record.id, key=key).to_json())
        proven = verify_record(proof, root, count=manifest.count)
        assert (proven.index, json.loads(proven.row)) == (record.index, rows[record.index])


def test_file_round_trip_and_verification(chats, key):
    manifest = build_manifest(chats, key=key)
    read = DatasetManifest.from_json(manifest.to_json())
    assert read == manifest
    assert verify_manifest(chats, read, key=key) is read
    assert manifest.created.endswith("Z")
    assert datetime.fromisoformat(manifest.created).tzinfo is not None


def test_the_manifest_shows_no_row_and_no_key(chats, key):
    written = build_manifest(chats, key=key).to_json().decode()
    words = {word for record in chats for field in record.fields for word in field.text.split()}
    assert not [word for word in words if f"{word} " in written]
    assert key.hex() not in written


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: rows[::-1],
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [*rows[:-1], {"text": "other"}],
    ],
)
def test_other_rows_are_noticed(write_rows, key, edit):
    rows = [{"text": f"row {index}"} for index in range(9)]
    _, manifest = manifest_of(write_rows(rows), key)
    changed = open_dataset(write_rows(edit(rows)), key=key)
    with pytest.raises(Tampered, match="not those of the manifest"):
        verify_manifest(changed, manifest, key=key)
    with pytest.raises(Tampered, match="not those of the manifest"):
        prove_record(changed, manifest, next(iter(changed)).id, key=key)


def test_another_key_is_noticed(chats, key):
    manifest = build_manifest(chats, key=key)
    with pytest.raises(Tampered):
        verify_manifest(chats, manifest, key=bytes(32))
    with pytest.raises(InvalidInput, match="expected 32 bytes, found 3"):
        build_manifest(chats, key=b"abc")


def test_equal_rows_have_different_leaves(write_rows, key):
    path = write_rows([{"text": "same"}] * 2)
    dataset, manifest = manifest_of(path, key)
    first, second = (prove_record(dataset, manifest, record.id, key=key) for record in dataset)
    assert first.row == second.row
    assert first.path != second.path  # each path is the other's leaf


@pytest.mark.parametrize(
    "forge",
    [
        lambda proof: replace(proof, row=proof.row + b" "),
        lambda proof: replace(proof, salt=bytes(16)),
        lambda proof: replace(proof, salt=proof.salt + b"\x00"),
        lambda proof: replace(proof, index=proof.index + 1),
        lambda proof: replace(proof, index=-1),
        lambda proof: replace(proof, count=proof.count + 1),
        lambda proof: replace(proof, path=proof.path[:-1]),
        lambda proof: replace(proof, path=(*proof.path, bytes(32))),
        lambda proof: replace(proof, path=(bytes(32), *proof.path[1:])),
        lambda proof: replace(proof, path=(b"short", *proof.path[1:])),
        # The salt and row of a leaf moved by one byte: the boundary must be fixed.
        lambda proof: replace(proof, salt=proof.salt[:-1], row=proof.salt[-1:] + proof.row),
    ],
)
def test_a_forged_proof_is_refused(chats, key, forge):
    manifest = build_manifest(chats, key=key)
    record = next(record for record in chats if record.index == 6)
    proof = prove_record(chats, manifest, record.id, key=key)
    root = Digest.parse(f"sha256:{manifest.root}")
    assert verify_record(proof, root, count=manifest.count).index == 6
    with pytest.raises(ProofInvalid):
        verify_record(forge(proof), root, count=manifest.count)
    with pytest.raises(ProofInvalid):
        verify_record(proof, Digest("blake3", root.value), count=manifest.count)


def test_unknown_record(chats, key):
    with pytest.raises(NotFound, match="no record has this id"):
        prove_record(chats, build_manifest(chats, key=key), "r1", key=key)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "stanch/dataset-manifest/v2"},
        {"tree": "sha1"},
        {"count": "3"},
        {"extra": 1},
        {"parents": [{"root": "x", "operation": "shuffle", "parameters_digest": "", "entry": None}]},
    ],
)
def test_what_is_no_manifest_is_refused(chats, key, change):
    document = json.loads(build_manifest(chats, key=key).to_json()) | change
    with pytest.raises(InvalidInput):
        DatasetManifest.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("change", [{"schema": "x"}, {"salt": "zz"}, {"path": ["q"]}, {"index": "1"}, {"extra": 1}])
def test_what_is_no_proof_is_refused(chats, key, change, errors_text):
    record = next(iter(chats))
    proof = prove_record(chats, build_manifest(chats, key=key), record.id, key=key)
    with pytest.raises(InvalidInput) as caught:
        RecordProof.from_json(json.dumps(json.loads(proof.to_json()) | change).encode())
    assert record.fields[0].text not in errors_text(caught.value)
    assert record.fields[0].text not in repr(proof)


def test_a_derived_dataset_leads_back_to_its_parent(chats, key, tmp_path):
    split = split_members(chats, holdout=0.3, key=key)
    members, nonmembers = write_split(
        chats, split, members=tmp_path / "members.jsonl", nonmembers=tmp_path / "nonmembers.jsonl"
    )
    parent = build_manifest(chats, key=key)
    for side in (members, nonmembers):
        manifest = build_manifest(side, key=key)
        (step,) = manifest.parents
        assert (step.root, step.operation, step.entry) == (f"sha256-rfc9162:{parent.root}", "split", None)
    assert {record.id for record in members} | {record.id for record in nonmembers} == {r.id for r in chats}
