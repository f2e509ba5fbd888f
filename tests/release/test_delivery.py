"""Delivering and fetching: whole or not at all, whatever the store, the network, the disk or a signal does."""

import http.server
import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages

from delivery_world import MIB, Store, deliver, fails_at, make_bundle, make_world, open_store, revoke

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import (
    BundleIncomplete,
    Conflict,
    Equivocation,
    InvalidInput,
    NoIdentityMatched,
    NotFound,
    NoTrustedSignature,
    NotSealed,
    PolicyViolation,
    Rollback,
    StoreError,
    StoreTimeout,
    Tampered,
    UnexpectedFile,
    VerificationError,
)
from stanch.release import (
    FetchParams,
    RemoteBundle,
    RemoteConflict,
    Revoked,
    RevokeOrder,
    fetch,
    fetch_key,
    open_copy,
    read_publisher,
)
from stanch.release.pool import run_all
from stanch.seal import FileReleases, Recipients, VolatileReleases, rekey, verify_sealed
from stanch.sign import TrustedKeys
from stanch.store import REPLACE, open_blobs


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, whole ones whatever range is asked for, and says nothing."""

    def log_message(self, *_):
        """Say nothing."""


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def delivered(world, tmp_path_factory):
    """A store that holds the bundle; tests only read it."""
    blobs = open_store(tmp_path_factory.mktemp("store"))
    deliver(world.bundle, blobs, world.trusted)
    return blobs


@pytest.fixture
def blobs(tmp_path):
    return open_store(tmp_path / "store")


def get(world, blobs, dest, *, memory=None, **params):
    params = FetchParams(**{"workers": 2} | params)
    return fetch(world.remote(blobs), dest, world.trusted, memory=memory or VolatileReleases(), params=params)


def assert_opens(world, bundle):
    assert contents(bundle) == contents(world.bundle)
    with open_copy(bundle, world.trusted, [world.identities[1]], memory=VolatileReleases()) as opened:
        source = world.bundle.parent / "source"
        assert {f.path: bytes(opened.read(f.path)) for f in opened.files()} == contents(source)


def assert_nothing_opens(world, dest):
    assert not dest.exists()
    with pytest.raises(NotSealed):
        read_publisher(dest.with_name(dest.name + ".partial"), world.trusted)


@pytest.fixture(params=["file", "s3"])
def uri(request, tmp_path):
    return f"file:{tmp_path}/store" if request.param == "file" else request.getfixturevalue("s3").uri()


def test_what_was_delivered_is_fetched_and_opens(world, uri, tmp_path):
    report = deliver(world.bundle, open_blobs(uri), world.trusted)
    assert (report.sent, report.skipped) == (len(world.sealed.manifest.streams) + 4, 0)
    remote = RemoteBundle.open(f"{uri}/{report.bundle_id}")
    fetched = fetch(remote, tmp_path / "got", world.trusted, memory=VolatileReleases())
    assert fetched.received == sum(stream.stored for stream in world.sealed.manifest.streams)
    assert fetched.manifest == world.sealed.manifest
    assert_opens(world, fetched.path)
    again = deliver(world.bundle, open_blobs(uri), world.trusted)
    assert (again.sent, again.skipped) == (0, report.sent)
    remote.blobs.put(remote.key("body/00001.floe"), b"x", mode=REPLACE)
    with pytest.raises(RemoteConflict, match="00001"):
        deliver(world.bundle, open_blobs(uri), world.trusted, check=True)


def test_a_key_goes_out_without_a_byte_of_the_streams(world, blobs):
    deliver(world.bundle, blobs, world.trusted, with_key=False)
    store = Store(blobs)
    report = deliver(world.bundle, store, world.trusted)
    assert (report.sent, report.skipped) == (1, len(world.sealed.manifest.streams) + 3)
    assert not [key for _, key in store.calls if key.endswith((".floe", "digests.bin"))]


def revokes_at(world, blobs, at):
    """Return what takes the bundle back from its first recipient when a call is reached."""
    order = RevokeOrder(world.identities[0].describe().key_id, "left", world.publisher, datetime.now(UTC))
    done = []

    def before(_count, name, key):
        if (name, key.rpartition("/")[2]) == at and not done:
            done.append(at)
            revoke(world.remote(blobs), order, world.trusted)

    return before


@pytest.mark.parametrize("at", [("put", "00003.floe"), ("put", "recipients.json"), ("get", "recipients.json")])
def test_what_is_revoked_while_it_is_delivered_does_not_stay_out(world, blobs, at):
    """A copy waits in the store, as its streams are compared again its key is revoked."""
    deliver(world.bundle, blobs, world.trusted, with_key=False)
    blobs.delete(f"{world.bundle_id}/body/00003.floe")
    with pytest.raises((Revoked, Conflict)):
        deliver(world.bundle, Store(blobs, before=revokes_at(world, blobs, at)), world.trusted, check=True)
    kept = Recipients.parse(blobs.get(f"{world.bundle_id}/recipients.json"))
    assert world.identities[0].describe().key_id not in {stanza.key_id for stanza in kept.stanzas}


def test_where_the_line_is_too_slow_streams_go_one_by_one(world, blobs, tmp_path):
    under_way, most, lock, together = [0], [], threading.Lock(), threading.Event()

    class Slow(Store):
        def put(self, key, data, *, mode):
            with lock:
                under_way[0] += 1
                most.append(under_way[0])
                if under_way[0] > 1:
                    together.set()
            try:
                if "/body/" in key:
                    together.wait(60)  # the first one, until another one comes
                if under_way[0] > 1:
                    raise StoreTimeout("the line is slow")
                return super().put(key, data, mode=mode)
            finally:
                with lock:
                    under_way[0] -= 1

    assert deliver(world.bundle, Slow(blobs), world.trusted).sent == len(world.sealed.manifest.streams) + 4
    assert max(most) > 1
    assert_opens(world, get(world, blobs, tmp_path / "got").path)


def test_a_line_that_is_dead_ends_the_delivery(world, blobs):
    def before(_count, name, _key):
        if name == "put":
            raise StoreTimeout("the line is dead")

    with pytest.raises(StoreTimeout):
        deliver(world.bundle, Store(blobs, before=before), world.trusted)


def test_a_service_that_refuses_and_holds_nothing_is_asked_again(world, blobs):
    """S3 answers 409 while another writer of the key is under way, who may fail after all."""
    refused = []

    def before(_count, name, key):
        if name == "put" and key.endswith("00001.floe") and len(refused) < 2:
            refused.append(key)
            raise Conflict("409")

    assert deliver(world.bundle, Store(blobs, before=before), world.trusted).skipped == 0

    def always(_count, name, key):
        if name == "put" and key.endswith("00001.floe"):
            raise Conflict("409")

    blobs.delete(f"{world.bundle_id}/body/00001.floe")
    with pytest.raises(StoreError, match="holds none"):
        deliver(world.bundle, Store(blobs, before=always), world.trusted, check=True)


def test_a_release_is_remembered_under_every_key_of_its_publisher(world, blobs, tmp_path):
    """An old key signed release 1, a new one release 2; who trusts both is not led back to 1, nor to another 2."""
    recipients, new = [identity.recipient for identity in world.identities], SigningKey.generate("p256")
    newer = make_bundle(tmp_path / "2", new, recipients, number=2, sizes={"a": 5})
    twin = make_bundle(tmp_path / "3", world.publisher, recipients, number=2, sizes={"a": 5})
    both, memory = TrustedKeys((world.publisher.public, new.public)), VolatileReleases()
    for bundle in (world.bundle, newer.path, twin.path):
        deliver(bundle, blobs, both)

    def pull(bundle_id, name):
        return fetch(RemoteBundle(blobs, "file:here", bundle_id), tmp_path / name, both, memory=memory)

    pull(newer.manifest.bundle_id, "a")
    with pytest.raises(Rollback, match="older than release 2"):
        pull(world.bundle_id, "b")
    with pytest.raises(Equivocation):
        pull(twin.manifest.bundle_id, "b")
    for bundle, error in ((world.bundle, Rollback), (twin.path, Equivocation)):
        with pytest.raises(error):
            open_copy(bundle, both, [world.identities[0]], memory=memory)


def test_a_web_server_may_hand_it_out(world, tmp_path):
    deliver(world.bundle, open_store(tmp_path / "store"), world.trusted)
    handler = partial(QuietHandler, directory=tmp_path / "store")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = RemoteBundle.open(f"http://127.0.0.1:{server.server_port}/{world.bundle_id}")
        fetch(remote, tmp_path / "got", world.trusted, memory=VolatileReleases())
        server.shutdown()
    assert_opens(world, tmp_path / "got")


def test_two_deliveries_at_once_are_one(world, blobs, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(deliver, world.bundle, blobs, world.trusted) for _ in range(2)]
    reports = [run.result() for run in runs]
    assert sum(report.sent for report in reports) == len(world.sealed.manifest.streams) + 4
    assert_opens(world, get(world, blobs, tmp_path / "got").path)


def test_a_delivery_that_fails_at_any_call_is_no_bundle_and_goes_on(world, blobs, tmp_path):
    for number in range(1, 100):
        store = Store(blobs, before=fails_at(number))
        try:
            report = deliver(world.bundle, store, world.trusted)
        except StoreError:
            with pytest.raises(BundleIncomplete):
                get(world, blobs, tmp_path / "got")
            assert not (tmp_path / "got.partial").exists()
        else:
            break
    assert number > 10
    assert report.skipped > 3
    get(world, blobs, tmp_path / "got")
    assert_opens(world, tmp_path / "got")


def test_a_fetch_that_fails_at_any_call_opens_nothing_and_goes_on(world, delivered, tmp_path):
    received = []
    for number in range(1, 100):
        store = Store(delivered, before=fails_at(number))
        try:
            received.append(get(world, store, tmp_path / "got").received)
            break
        except StoreError:
            assert_nothing_opens(world, tmp_path / "got")
    assert number > 5
    # What an earlier try had written was not asked for again.
    assert received[0] < sum(stream.stored for stream in world.sealed.manifest.streams)
    assert_opens(world, tmp_path / "got")


def test_a_killed_transfer_opens_nothing_and_goes_on(world, tmp_path):
    (tmp_path / "pem").write_bytes(world.publisher.public.to_pem())
    dest, store = tmp_path / "got", tmp_path / "store"
    script = Path(__file__).with_name("kill_transfer.py")
    words = [sys.executable, script, world.bundle, store, dest, tmp_path / "pem", world.bundle_id]
    with subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:

        def run(act, number):
            nursery.stdin.write(f"{act} {number}\n")
            nursery.stdin.flush()
            return nursery.stdout.readline().strip()

        for number in (4, 12):
            assert run("deliver", number) == "killed"
            with pytest.raises(BundleIncomplete):
                get(world, open_store(store), tmp_path / "other")
        assert run("deliver", 1000) == "exit 0"
        for act, number in (("fetch", 7), ("write", 1), ("write", 4)):
            assert run(act, number) == "killed"
            assert_nothing_opens(world, dest)
        assert run("fetch", 1000) == "exit 0"
        nursery.stdin.close()
    assert_opens(world, dest)


class Forgetful(VolatileReleases):
    """A memory that can be asked and not written."""

    def remember(self, *_):
        raise StoreError("cannot be remembered")


def test_without_a_memory_nothing_is_fetched_and_a_failing_one_costs_no_transfer(world, delivered, tmp_path):
    with pytest.raises(StoreError, match="cannot be remembered here"):
        get(world, delivered, tmp_path / "got", memory=FileReleases(tmp_path / "no" / "file"))
    assert list(tmp_path.glob("got*")) == []
    with pytest.raises(StoreError, match="cannot be remembered"):
        get(world, delivered, tmp_path / "got", memory=Forgetful())
    assert_nothing_opens(world, tmp_path / "got")
    assert get(world, delivered, tmp_path / "got").received == 0


def test_what_another_bundle_left_is_named_before_anything_is_asked_for(world, delivered, tmp_path):
    left = tmp_path / "got.partial" / "body"
    left.mkdir(parents=True)
    (left / "00099.floe").write_bytes(b"x")
    store = Store(delivered)
    with pytest.raises(UnexpectedFile, match="00099") as caught:
        get(world, store, tmp_path / "got")
    assert caught.value.next_step == f"remove {left} and fetch again"
    assert not [key for _, key in store.calls if key.endswith(".floe")]


def test_a_link_in_place_of_the_body_is_not_written_through(world, delivered, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "00000.floe").write_bytes(b"precious" * 1000)
    (tmp_path / "got.partial").mkdir()
    (tmp_path / "got.partial" / "body").symlink_to("../victim")
    with pytest.raises(UnexpectedFile, match="expected a directory"):
        get(world, delivered, tmp_path / "got")
    assert contents(tmp_path / "victim") == {"00000.floe": b"precious" * 1000}


@pytest.fixture
def disk(make_disk):
    return make_disk(2)


def test_a_full_disk_opens_nothing_and_a_larger_one_goes_on(world, delivered, disk, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        get(world, delivered, disk / "got")
    assert_nothing_opens(world, disk / "got")
    with pytest.raises(StoreError):
        deliver(world.bundle, open_store(disk / "store"), world.trusted)
    with pytest.raises(BundleIncomplete):
        get(world, open_store(disk / "store"), tmp_path / "got")
    subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
    fetched = get(world, delivered, disk / "got")
    assert fetched.received < sum(stream.stored for stream in world.sealed.manifest.streams)
    assert_opens(world, disk / "got")
    deliver(world.bundle, open_store(disk / "store"), world.trusted)
    assert_opens(world, get(world, open_store(disk / "store"), tmp_path / "got").path)


def lie(part, change):
    return lambda key, data: change(data) if key.endswith(part) else data


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:] if data else data


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda data: data + b"x"], ids=["flip", "cut", "add"])
def test_a_store_that_lies_costs_a_segment_and_nothing_of_it_is_kept(world, delivered, tmp_path, change):
    parts = ["manifest.json", "manifest.sigstore.json", "recipients.json", "digests.bin", "00000.floe", "00003.floe"]
    for number, part in enumerate(parts):
        store, dest = Store(delivered, after=lie(part, change)), tmp_path / f"got{number}"
        with pytest.raises((VerificationError, InvalidInput)):
            get(world, store, dest, workers=1)
        assert_nothing_opens(world, dest)
        assert len([key for _, key in store.calls if key.endswith(part)]) <= (2 if part.endswith("floe") else 1)
        for name, data in contents(dest.with_name(dest.name + ".partial")).items():
            good = (world.bundle / name).read_bytes()
            assert all(byte in (0, good[at]) for at, byte in enumerate(data) if byte != good[at])
        get(world, delivered, dest)
        assert contents(dest) == contents(world.bundle)


def test_a_damaged_partial_is_mended_and_a_strange_file_in_it_refused(world, delivered, tmp_path):
    store = Store(delivered, before=lambda _count, _name, key: fails_at(1)(1) if key.endswith("00003.floe") else None)
    with pytest.raises(StoreError):
        get(world, store, tmp_path / "got")
    body = tmp_path / "got.partial" / "body"
    (body / "00001.floe").write_bytes(os.urandom(5000))
    (tmp_path / "got.partial" / "extra").write_bytes(b"x")
    with pytest.raises(UnexpectedFile, match="extra"):
        get(world, delivered, tmp_path / "got")
    assert_nothing_opens(world, tmp_path / "got")
    (tmp_path / "got.partial" / "extra").unlink()
    assert get(world, delivered, tmp_path / "got").received < sum(s.stored for s in world.sealed.manifest.streams)
    assert_opens(world, tmp_path / "got")


def test_a_link_in_the_partial_is_not_followed(world, delivered, tmp_path):
    (tmp_path / "got.partial" / "body").mkdir(parents=True)
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "got.partial" / "body" / "00001.floe").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError):
        get(world, delivered, tmp_path / "got")
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_two_fetches_to_one_place_do_not_meet(world, delivered, tmp_path):
    def during(_count, _name, key):
        if key.endswith("00001.floe"):
            with pytest.raises(Conflict, match="another process"):
                get(world, delivered, tmp_path / "got")

    get(world, Store(delivered, before=during), tmp_path / "got")
    with pytest.raises(Conflict, match="exists already"):
        get(world, delivered, tmp_path / "got")


def test_an_older_release_is_not_fetched_and_an_unfinished_one_not_remembered(world, blobs, tmp_path):
    recipients = [identity.recipient for identity in world.identities]
    newer = make_bundle(tmp_path / "2", world.publisher, recipients, number=2, sizes={"a": 5})
    twin = make_bundle(tmp_path / "3", world.publisher, recipients, number=2, sizes={"a": 5})
    for bundle in (world.bundle, newer.path, twin.path):
        deliver(bundle, blobs, world.trusted)
    memory = VolatileReleases()

    def pull(bundle_id, name, store=blobs, **params):
        remote = RemoteBundle(store, "file:here", bundle_id)
        return fetch(remote, tmp_path / name, world.trusted, memory=memory, params=FetchParams(**params))

    with pytest.raises(Rollback, match="release 3 or later"):
        pull(newer.manifest.bundle_id, "a", min_release=3)
    with pytest.raises(StoreError):
        pull(newer.manifest.bundle_id, "a", Store(blobs, before=fails_at(6)))
    pull(world.bundle_id, "old")
    pull(newer.manifest.bundle_id, "a")
    with pytest.raises(Rollback, match="older than release 2"):
        pull(world.bundle_id, "b")
    with pytest.raises(Equivocation):
        pull(twin.manifest.bundle_id, "b")
    assert not (tmp_path / "b.partial").exists()


def test_another_bundle_in_its_place_is_refused(world, blobs, tmp_path):
    other = make_bundle(tmp_path / "other", world.publisher, [world.identities[0].recipient], sizes={"a": 5})
    deliver(other.path, blobs, world.trusted)
    for info in list(blobs.list()):
        blobs.put(info.key.replace(other.manifest.bundle_id, world.bundle_id), blobs.get(info.key), mode=REPLACE)
    with pytest.raises(Tampered, match="another bundle"):
        get(world, blobs, tmp_path / "got")


def test_another_publisher_is_not_trusted(world, delivered, blobs, tmp_path):
    strange = TrustedKeys((SigningKey.generate("p256").public,))
    with pytest.raises(NoTrustedSignature):
        fetch(world.remote(delivered), tmp_path / "got", strange, memory=VolatileReleases())
    with pytest.raises(NoTrustedSignature):
        deliver(world.bundle, blobs, strange)
    assert list(blobs.list()) == []


def test_a_damaged_bundle_is_not_sent(blobs, tmp_path):
    mine = make_world(tmp_path / "mine")
    path = mine.bundle / "body" / "00003.floe"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(Tampered, match="stream 3"):
        deliver(mine.bundle, blobs, mine.trusted)
    assert list(blobs.list()) == []
    path.write_bytes(good)

    def damage(_count, name, key):  # after the whole bundle was verified
        if name == "put" and key.endswith("00003.floe"):
            path.write_bytes(flip(good))

    with pytest.raises(Tampered, match="stream 3"):
        deliver(mine.bundle, Store(blobs, before=damage), mine.trusted)
    assert not [info for info in blobs.list() if "00003" in info.key or "manifest" in info.key]


def test_recipients_alone_are_replaced_and_only_by_newer_ones(blobs, tmp_path):
    mine = make_world(tmp_path / "mine")
    deliver(mine.bundle, blobs, mine.trusted)
    old = (mine.bundle / "recipients.json").read_bytes()
    _, publisher = read_publisher(mine.bundle, mine.trusted)
    rekey(mine.bundle, publisher, mine.identities[1], remove=[mine.identities[0].describe().key_id])
    assert deliver(mine.bundle, blobs, mine.trusted).sent == 1
    new = (mine.bundle / "recipients.json").read_bytes()
    assert blobs.get(f"{mine.bundle_id}/recipients.json") == new != old
    (mine.bundle / "recipients.json").write_bytes(old)
    with pytest.raises(RemoteConflict, match=r"recipients\.json"):
        deliver(mine.bundle, blobs, mine.trusted)
    assert blobs.get(f"{mine.bundle_id}/recipients.json") == new


def test_a_list_that_was_changed_after_a_revocation_says_how_it_is_delivered(blobs, tmp_path):
    mine, new = make_world(tmp_path / "mine", sizes={"a": 5}), generate_identity().recipient
    deliver(mine.bundle, blobs, mine.trusted)
    gone = mine.identities[0].recipient.key_id
    revoke(mine.remote(blobs), RevokeOrder(gone, "left", mine.publisher, datetime.now(UTC)), mine.trusted)
    publisher = read_publisher(mine.bundle, mine.trusted)[1]
    rekey(mine.bundle, publisher, mine.identities[1], [new], [gone])
    with pytest.raises(RemoteConflict, match="epoch 1, the bundle's is 1") as caught:
        deliver(mine.bundle, blobs, mine.trusted)
    assert "stanch seal rekey BUNDLE --remove KEY-ID --add RECIPIENT" in caught.value.next_step
    rekey(mine.bundle, publisher, mine.identities[1], [new], [new.key_id])
    assert deliver(mine.bundle, blobs, mine.trusted).sent == 1


def test_another_bundle_than_was_decided_about_is_not_delivered(world, blobs, tmp_path):
    other = make_bundle(tmp_path / "other", world.publisher, [generate_identity().recipient], sizes={"a": 5})
    decided = read_publisher(world.bundle, world.trusted)[1]
    with pytest.raises(Tampered, match="decided about"):
        deliver(other.path, blobs, world.trusted, decided=decided)
    assert list(blobs.list()) == []
    assert deliver(world.bundle, blobs, world.trusted, decided=decided).has_key


def test_memory_does_not_grow_with_the_bundle(tmp_path):
    mine = make_world(tmp_path / "mine", sizes={"weights.bin": 24 * MIB})
    blobs = open_store(tmp_path / "store")
    deliver(mine.bundle, blobs, mine.trusted)
    tracemalloc.start()
    get(mine, blobs, tmp_path / "got")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * MIB
    assert verify_sealed(tmp_path / "got", read_publisher(tmp_path / "got", mine.trusted)[1]).stored > 24 * MIB


@pytest.mark.parametrize("uri", ["file:x", "nonsense", "s3://bucket", f"file:nowhere/{'A' * 64}", "a" * 64])
def test_a_uri_that_names_no_bundle_is_refused(uri):
    with pytest.raises(InvalidInput, match="URI of a delivered bundle"):
        RemoteBundle.open(uri)


def test_reading_makes_no_store(tmp_path):
    with pytest.raises(NotFound):
        RemoteBundle.open(f"file:{tmp_path}/nowhere/{'a' * 64}")
    assert list(tmp_path.iterdir()) == []


def test_after_a_failure_no_new_work_begins():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise StoreError("no")
        return number

    with pytest.raises(StoreError):
        list(run_all(range(1000), work, 2))
    assert len(begun) < 20


def test_a_bundle_whose_key_waits_opens_for_nobody_and_is_completed_later(world, blobs, tmp_path):
    remote, memory, identity = world.remote(blobs), VolatileReleases(), world.identities[0]
    assert not deliver(world.bundle, blobs, world.trusted, with_key=False).has_key
    got = fetch(remote, tmp_path / "got", world.trusted, memory=memory).path
    publisher = read_publisher(got, world.trusted)[1]
    verify_sealed(got, publisher)  # whole, so that its recipient can sign for it
    with pytest.raises(NoIdentityMatched):
        open_copy(got, world.trusted, [identity], memory=VolatileReleases())
    with pytest.raises(NotFound, match="not in the store yet"):
        fetch_key(remote, got, world.trusted, memory=memory)
    again = deliver(world.bundle, blobs, world.trusted)
    assert (again.sent, again.has_key) == (1, True)
    assert deliver(world.bundle, blobs, world.trusted, with_key=False).sent == 0  # a key that is there stays
    assert fetch_key(remote, got, world.trusted, memory=memory) is None
    name = remote.key("recipients.json")  # nobody signs it: the store leaves a recipient out
    left = Recipients.parse(blobs.get(name))
    blobs.put(name, replace(left, stanzas=left.stanzas[1:]).to_bytes(), mode=REPLACE)
    with pytest.raises(Conflict, match="has its key already"):
        fetch_key(remote, got, world.trusted, memory=memory)
    with open_copy(got, world.trusted, [identity], memory=VolatileReleases()) as opened:
        assert bytes(opened.read("config.json")) == (world.bundle.parent / "source/config.json").read_bytes()


def test_a_key_is_of_one_bundle_and_can_be_taken_back_while_it_waits(world, blobs, tmp_path):
    memory = VolatileReleases()
    deliver(world.bundle, blobs, world.trusted, with_key=False)
    got = fetch(world.remote(blobs), tmp_path / "got", world.trusted, memory=memory).path
    recipients = [identity.recipient for identity in world.identities]
    other = make_bundle(tmp_path / "other", world.publisher, recipients)
    deliver(other.path, blobs, world.trusted)
    theirs = RemoteBundle(blobs, "file:here", other.manifest.bundle_id)
    with pytest.raises(PolicyViolation, match="is another bundle"):
        fetch_key(theirs, got, world.trusted, memory=memory)
    order = RevokeOrder(recipients[0].key_id, "left", world.publisher, datetime.now(UTC))
    revoke(world.remote(blobs), order, world.trusted)
    with pytest.raises(Revoked):
        deliver(world.bundle, blobs, world.trusted)
    with pytest.raises(Revoked):
        fetch_key(world.remote(blobs), got, world.trusted, memory=memory)
