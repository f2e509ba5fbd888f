import errno
import os
import shutil
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.stanza import KeyUnavailable
from stanch.errors import DecryptionFailed, InvalidInput, NoIdentityMatched, NotPermitted, StoreError, Tampered
from stanch.seal import GrantExpired, OpenParams, Quorum, Recipients, read_manifest, rekey, verify_sealed
from stanch.seal.folder import BundleFolder
from stanch.seal.recipients import changing, unwrap_root
from stanch.terms import VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def change(sealed, **options):
    settings = {"identity": sealed.identity, "clock": lambda: NOW} | options
    return rekey(sealed.path, sealed.publisher, **settings)


def bytes_of(path, *, without=()):
    return {
        p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name not in without
    }


def test_adding_and_removing_touches_only_the_recipients(small):
    before = bytes_of(small.path, without={"recipients.json"})
    new = generate_identity()
    recipients = change(small, add=[new.recipient, Passphrase("a passphrase")])
    assert recipients.epoch == 1
    assert [stanza.type for stanza in recipients.stanzas] == ["hpke-x25519", "hpke-x25519", "passphrase"]
    assert Recipients.parse((small.path / "recipients.json").read_bytes()) == recipients
    for identity in (small.identity, new, Passphrase("a passphrase")):
        assert small.read_all(identities=[identity]) == small.files
    with pytest.raises(DecryptionFailed):
        small.open(identities=[Passphrase("another")])
    recipients = change(small, identity=new, remove=[small.identity.recipient.key_id])
    assert recipients.epoch == 2
    with pytest.raises(NoIdentityMatched):
        small.open()
    assert small.read_all(identities=[new]) == small.files
    assert bytes_of(small.path, without={"recipients.json"}) == before
    verify_sealed(small.path, small.publisher)
    assert [path.name for path in small.path.parent.iterdir() if "partial" in path.name] == []


def test_a_bundle_that_is_mounted_itself_keeps_its_recipients_and_says_what_is_needed(make_disk, small):
    disk = make_disk(8)
    shutil.copytree(small.path, disk, dirs_exist_ok=True)
    before = bytes_of(disk)
    with pytest.raises(InvalidInput, match="as they were") as caught:
        rekey(disk, small.publisher, small.identity, [generate_identity().recipient], clock=lambda: NOW)
    assert "mount the folder above it" in caught.value.next_step
    assert bytes_of(disk) == before
    assert [path.name for path in disk.parent.iterdir() if "partial" in path.name] == []


def test_of_two_changes_at_once_none_is_lost(small, monkeypatch):
    bob, carol = generate_identity(), generate_identity()
    change(small, add=[bob.recipient])
    other = threading.Thread(target=change, args=(small,), kwargs={"remove": [bob.recipient.key_id]})
    module, waiting = sys.modules["stanch.seal.rekey"], [other]

    def unwrap(*given):
        root = unwrap_root(*given)
        if waiting:  # this one has read the list; the other one comes now
            waiting.pop().start()
            other.join(0.5)
        return root

    monkeypatch.setattr(module, "unwrap_root", unwrap)
    change(small, add=[carol.recipient])
    other.join()
    written = Recipients.parse((small.path / "recipients.json").read_bytes())
    left = {stanza.key_id for stanza in written.stanzas}
    assert (written.epoch, left) == (3, {small.identity.recipient.key_id, carol.recipient.key_id})


def test_a_change_is_durable_and_the_folder_may_be_the_one_that_one_is_in(small, monkeypatch):
    synced, kept = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()) or kept(handle)
    )
    monkeypatch.chdir(small.path)
    change(small._replace(path=Path()), add=[generate_identity().recipient])
    assert synced[-2:] == [small.path.parent, small.path]


def test_a_new_grant_can_end_before_the_release_but_not_after(make_sealed):
    end = NOW + timedelta(days=10)
    sealed = make_sealed({"f": b"x"}, not_after=end)
    new = generate_identity()
    change(sealed, add=[new], not_after=NOW + timedelta(days=1))
    later = OpenParams(clock=lambda: NOW + timedelta(days=2))
    with pytest.raises(GrantExpired):
        sealed.open(identities=[new], params=later)
    assert sealed.read_all(identities=[new, sealed.identity], params=later) == {"f": b"x"}
    for wrong in (end + timedelta(seconds=1), NOW):
        with pytest.raises(InvalidInput):
            change(sealed, add=[generate_identity()], not_after=wrong)
    assert change(sealed, add=[generate_identity()], not_after=end).stanzas[-1].not_after == "2026-06-11T12:00:00Z"
    other = generate_identity()
    recipients = change(sealed, add=[other])
    assert recipients.stanzas[-1].not_after == read_manifest(sealed.path).not_after


@pytest.mark.parametrize("release_end", [None, NOW + timedelta(days=10)])
def test_a_grants_own_end_holds_in_a_copied_list(make_sealed, release_end):
    """Its recipient writes another end into a copy of the list, one that the release itself would allow."""
    sealed = make_sealed({"f": b"x"}, not_after=release_end)
    new, path = generate_identity(), sealed.path / "recipients.json"
    first, short = change(sealed, add=[new], not_after=NOW + timedelta(days=1)).stanzas
    longest = change(sealed, add=[generate_identity()], not_after=release_end).stanzas[-1]
    assert longest.not_after == first.not_after
    later = OpenParams(clock=lambda: NOW + timedelta(days=2))
    written = Recipients.parse(path.read_bytes())
    for end in (longest.not_after, "2026-06-04T12:00:00Z"):
        copied = replace(written, stanzas=(longest, replace(short, not_after=end)))
        path.write_bytes(copied.to_bytes())
        for params in (later, None):
            with pytest.raises(DecryptionFailed):
                sealed.open(identities=[new], params=params)
    path.write_bytes(written.to_bytes())
    with pytest.raises(GrantExpired):
        sealed.open(identities=[new], params=later)
    assert sealed.read_all(identities=[new]) == {"f": b"x"}


def test_what_cannot_be_changed_is_refused_and_nothing_is_written(small):
    before = bytes_of(small.path)
    me = small.identity.recipient
    for options, error in (
        ({}, InvalidInput),
        ({"remove": [me.key_id]}, InvalidInput),
        ({"remove": ["x25519:unknown"]}, InvalidInput),
        ({"add": [me]}, InvalidInput),
        ({"add": [generate_identity()], "identity": generate_identity()}, NoIdentityMatched),
        ({"add": [Passphrase("a"), Passphrase("b")]}, InvalidInput),
    ):
        with pytest.raises(error):
            change(small, **options)
    with pytest.raises(Tampered):
        rekey(small.path, VerifiedDigest(bytes(32), ("k",), None), small.identity, [generate_identity()])
    assert bytes_of(small.path) == before


def test_a_bundle_that_opens_by_quorum_takes_no_recipient(small, monkeypatch):
    manifest = msgspec.structs.replace(read_manifest(small.path), quorum=Quorum(2, 3))
    monkeypatch.setattr(BundleFolder, "verified_manifest", lambda *_: manifest)
    before = bytes_of(small.path)
    with pytest.raises(NotPermitted, match="takes no other recipients"):
        change(small, add=[generate_identity().recipient])
    assert bytes_of(small.path) == before


def test_the_root_key_is_wiped_whether_the_change_is_made_or_refused(small, monkeypatch):
    made, module = [], sys.modules["stanch.seal.rekey"]
    monkeypatch.setattr(module, "unwrap_root", lambda *given: made.append(unwrap_root(*given)) or made[-1])
    change(small, add=[generate_identity().recipient])
    with pytest.raises(InvalidInput, match=r"x25519:unknown: is not a recipient"):
        change(small, remove=["x25519:unknown"])
    assert [root._root for root in made] == [bytearray(32)] * 2


def test_a_folder_that_cannot_be_locked_keeps_its_recipients(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(StoreError, match="cannot be changed"), changing(path):
            pytest.fail("it was not locked")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *((code, InvalidInput) for code in (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)),
        (errno.EIO, StoreError),
    ],
)
def test_a_new_list_that_cannot_be_moved_into_the_bundle_leaves_the_old_one(small, monkeypatch, code, error):
    before, names = bytes_of(small.path), {path.name for path in small.path.parent.iterdir()}
    kept = Path.replace

    def refuse(path, target):
        if path.name.endswith("recipients.json.partial"):
            raise OSError(code, os.strerror(code))
        return kept(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(error) as caught:
        change(small, add=[generate_identity().recipient])
    assert caught.value.why == os.strerror(code)
    assert bytes_of(small.path) == before
    assert {path.name for path in small.path.parent.iterdir()} == names


def test_a_new_list_that_cannot_be_written_leaves_the_old_one(small, monkeypatch):
    before = bytes_of(small.path)

    def refuse(path, _data):
        raise InvalidInput(f"{path}: cannot be written")

    monkeypatch.setattr("stanch.seal.recipients.write_atomic", refuse)
    with pytest.raises(InvalidInput, match="as they were") as caught:
        change(small, add=[generate_identity().recipient])
    assert caught.value.why.endswith("recipients.json.partial: cannot be written")
    assert bytes_of(small.path) == before


def test_a_passphrase_that_nothing_is_sealed_for_is_named_by_its_type(small):
    with pytest.raises(NoIdentityMatched, match=r"recipient of this bundle: \['passphrase'\]"):
        small.open(identities=[Passphrase("another")])


def test_an_ended_grant_cannot_rekey(make_sealed):
    sealed = make_sealed({"f": b"x"}, not_after=NOW + timedelta(days=1))
    with pytest.raises(GrantExpired):
        change(sealed, add=[generate_identity()], clock=lambda: NOW + timedelta(days=2))


class Away:
    """A key whose service does not answer."""

    def __init__(self, identity):
        self._identity = identity

    def describe(self):
        return self._identity.describe()

    def unwrap(self, _stanza, _context):
        raise KeyUnavailable("the service is away")


def test_a_service_that_is_away_hides_no_other_key(small):
    second = generate_identity()
    change(small, add=[second.recipient])
    away = Away(small.identity)
    for identities in ([away, second], [second, away]):
        assert small.read_all(identities=identities) == small.files
    with pytest.raises(KeyUnavailable, match="is away"):
        small.open(identities=[away])
