"""Opening a delivered bundle where it lies: only what is needed is read, and nothing of the store is believed."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages

from delivery_world import MIB, Store, deliver, make_bundle, make_world, revoke

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import (
    BundleIncomplete,
    NoIdentityMatched,
    NoTrustedSignature,
    Rollback,
    SignatureMissing,
    StoreError,
    Tampered,
)
from stanch.release import Revocation, RevocationList, Revoked, RevokeOrder, open_remote
from stanch.seal import OpenParams, SealParams, VolatileReleases, seal
from stanch.seal.layout import PLAIN, SEGMENT
from stanch.sign import TrustedKeys, sign_manifest
from stanch.store import FileBlobs, open_blobs

SIZE = 9_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def delivered(world, tmp_path):
    blobs = FileBlobs(tmp_path / "store")
    deliver(world.bundle, blobs, world.trusted)
    return world.remote(blobs)


def open_it(world, remote, *, identity=None, trusted=None, memory=None, **options):
    return open_remote(
        remote, trusted or world.trusted, [identity or world.identities[0]], memory=memory or VolatileReleases(),
        **options,
    )  # fmt: skip


def test_one_tensor_of_a_bundle_in_s3_costs_two_segments(world, s3, tmp_path):
    tensors = {"first": 1000, "second": SIZE - 2 * PLAIN, "last": 2000}
    header, start = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]}
        start += size
    text, data = json.dumps(header).encode(), os.urandom(start)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    params = SealParams(kind="model", lineage="acme/bot", release_number=1, workers=2)
    sealed = seal(
        tmp_path / "source", tmp_path / "b.sealed", [world.identities[0].recipient], params,
        lambda manifest: sign_manifest(manifest, world.publisher).to_bytes(),
    )  # fmt: skip
    blobs = open_blobs(s3.uri())
    deliver(sealed.path, blobs, world.trusted)
    here, received = sorted(tmp_path.rglob("*")), []
    store = Store(blobs, after=lambda key, got: received.append((key.rpartition("/")[2], len(got))) or got)
    remote = type(world.remote(store))(store, "s3:", sealed.manifest.bundle_id)
    with open_it(world, remote) as bundle:
        assert not any(name.endswith(".floe") and name != "00000.floe" for name, _ in received)
        received.clear()
        last = bundle.tensor("last")
    assert last.raw.tobytes() == data[-2000:]
    weights = [size for name, size in received if name not in {"00000.floe", "00001.floe"}]
    assert sum(size > 74 for size in weights) <= 2
    assert sum(weights) <= 2 * SEGMENT + 74
    assert not any(name == "head" for name, _ in store.calls)
    assert sorted(tmp_path.rglob("*")) == here


def test_every_file_reads_as_from_the_directory(world, delivered):
    with open_it(world, delivered, params=OpenParams(threads=3)) as bundle:
        for file in bundle.files():
            assert bytes(bundle.read(file.path)) == (world.bundle.parent / "source" / file.path).read_bytes()


@pytest.mark.parametrize(
    ("name", "error"),
    [("manifest.json", BundleIncomplete), ("manifest.sigstore.json", SignatureMissing),
     ("digests.bin", BundleIncomplete), ("recipients.json", BundleIncomplete), ("body/00000.floe", BundleIncomplete)],
)  # fmt: skip
def test_a_missing_part_is_named(world, delivered, name, error):
    delivered.blobs.delete(delivered.key(name))
    with pytest.raises(error, match=name.replace(".", r"\.")):
        open_it(world, delivered)


@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_a_segment_that_is_not_the_signed_one_is_never_shown(world, delivered, change):
    key = delivered.key("body/00003.floe")

    def after(asked, data):
        if asked != key or not data:
            return data
        return data[:-1] + bytes([data[-1] ^ 1]) if change == "flip" else data[:-1]

    if change == "gone":
        delivered.blobs.delete(key)
    store = delivered.blobs if change == "gone" else Store(delivered.blobs, after=after)
    with open_it(world, world.remote(store)) as bundle:
        assert bytes(bundle.read("config.json"))
        with pytest.raises(Tampered if change == "flip" else BundleIncomplete):
            bundle.read("weights.bin")


def test_a_store_that_fails_later_fails_that_read(world, delivered):
    def before(_count, _name, key):
        if key.endswith("00003.floe"):
            raise StoreError("the network is gone")

    with open_it(world, world.remote(Store(delivered.blobs, before=before))) as bundle:
        with pytest.raises(StoreError):
            bundle.read("weights.bin")
        assert len(bundle.read("config.json")) == 20


def test_strangers_neither_sign_nor_open(world, delivered):
    with pytest.raises(NoTrustedSignature):
        open_it(world, delivered, trusted=TrustedKeys((SigningKey.generate("p256").public,)))
    with pytest.raises(NoIdentityMatched):
        open_it(world, delivered, identity=generate_identity())


def test_an_older_release_and_a_revoked_one_stay_closed(world, delivered, tmp_path):
    newer = make_bundle(tmp_path, world.publisher, [world.identities[0].recipient], number=2, sizes={"f": MIB // 64})
    deliver(newer.path, delivered.blobs, world.trusted)
    memory = VolatileReleases()
    latest = type(delivered)(delivered.blobs, delivered.location, newer.manifest.bundle_id)
    open_it(world, latest, memory=memory).close()
    with pytest.raises(Rollback):
        open_it(world, delivered, memory=memory)

    first, second = (identity.recipient.key_id for identity in world.identities)
    entry = Revocation(delivered.bundle_id, first, "left", "2026-01-01T00:00:00Z")
    with pytest.raises(Revoked):
        open_it(world, delivered, revocations=RevocationList(1, (entry,)))
    revoke(delivered, RevokeOrder(second, "left", world.publisher, datetime.now(UTC)), world.trusted)
    open_it(world, delivered).close()
    with pytest.raises(Revoked):
        open_it(world, delivered, identity=world.identities[1])
