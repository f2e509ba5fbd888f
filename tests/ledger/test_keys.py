"""A log whose key is replaced: both sign for thirty days, and what the old one signed stays valid."""

import pytest

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NotFound, NoTrustedSignature
from stanch.ledger import Cosigner, Ledger, LedgerReader, NoteSigner, TrustPolicy, fsck, open_checkpoint
from stanch.ledger.keys import OVERLAP_MS, LogKeys
from stanch.ledger.recover import recover
from stanch.ledger.tiles import CHECKPOINT_KEY
from stanch.ledger.witness import AddCheckpoint, WitnessState, add_checkpoint

NEW = SigningKey.from_seed(bytes(range(64, 96)))
DAY = 24 * 3600


def opened(ground, keys, origin="example.com/stanch/log"):
    return Ledger.open(ground.tables, ground.blobs, origin=origin, keys=keys, params=ground.params, clock=ground.clock)


def replace(log, ground, key):
    with ground.tables.write() as connection:
        log.replace_key(key, connection)
    log.use_keys([key, ground.key])


@pytest.fixture
def rotated(either):
    """A log with three entries under its old key and three under both; its verifiers, the new one first."""
    with either.create() as log:
        either.fill(log, 3)
        log.publish()
        replace(log, either, NEW)
        either.fill(log, 3)
        log.publish()
        either.verifiers = log.verifiers
    return either


def published(ground):
    return ground.blobs.get(CHECKPOINT_KEY)


def advance(ground, seconds):
    now = ground.clock() + seconds
    ground.clock = lambda: now


def test_keys_are_those_of_a_log_that_the_database_holds(ground):
    with pytest.raises(NotFound, match="is not in this database"):
        LogKeys.read(ground.tables, "example.com/stanch/log", [NEW])
    with pytest.raises(InvalidInput, match="not a log or key name"):
        LogKeys("two words", (NEW,))
    with pytest.raises(InvalidInput, match="expected an Ed25519 key, found p256"):
        LogKeys("example.com/stanch/log", (NEW, SigningKey.generate("p256")))
    assert OVERLAP_MS == 30 * DAY * 1000


def test_both_keys_sign_for_thirty_days_and_the_new_one_alone_after(rotated):
    new, old = rotated.verifiers
    assert {new.key.key_id, old.key.key_id} == {NEW.key_id, rotated.key.key_id}
    for key in (new, old):
        assert open_checkpoint(published(rotated), [key]).checkpoint.size == 6
    advance(rotated, OVERLAP_MS / 1000 - 1)
    with opened(rotated, [NEW, rotated.key]) as log:
        rotated.fill(log, 1)
    assert open_checkpoint(published(rotated), [old]).checkpoint.size == 7
    advance(rotated, 1)
    with opened(rotated, [NEW, rotated.key]) as log:
        rotated.fill(log, 1)
    assert open_checkpoint(published(rotated), [new]).checkpoint.size == 8
    with pytest.raises(NoTrustedSignature):
        open_checkpoint(published(rotated), [old])


def test_a_whole_check_needs_the_keys_of_the_whole_history(rotated):
    new, old = rotated.verifiers
    reader = LedgerReader(rotated.tables, rotated.blobs, verifiers=rotated.verifiers)
    assert fsck(reader, TrustPolicy(rotated.verifiers)).size == 6
    assert fsck(reader, TrustPolicy((old,))).size == 6
    with pytest.raises(NoTrustedSignature):
        fsck(reader, TrustPolicy((new,)))


def test_a_proof_verifies_under_either_key(rotated):
    reader = LedgerReader(rotated.tables, rotated.blobs, verifiers=rotated.verifiers)
    for key in rotated.verifiers:
        assert TrustPolicy((key,)).open(reader.checkpoint().note).checkpoint.size == 6


def test_a_witness_that_knows_the_old_key_goes_on_cosigning(rotated):
    new, old = rotated.verifiers
    witness = Cosigner("example.com/witness", SigningKey.from_seed(bytes(32)))
    request = AddCheckpoint(0, (), published(rotated)).to_bytes()
    for keys in ((old,), (new,), (old, new)):
        reply = add_checkpoint(WitnessState(witness, keys, {}), request, rotated.clock)
        assert reply.status == 200
        opened_note = open_checkpoint(reply.record.note, [*keys, witness.verifier])
        assert [signature.name for signature in opened_note.cosignatures] == [witness.name]


def test_the_log_opens_with_its_present_key_and_all_before_it(rotated):
    newer = SigningKey.from_seed(bytes(range(96, 128)))
    with pytest.raises(InvalidInput, match="expected its key"):
        opened(rotated, [rotated.key])
    with opened(rotated, [NEW, rotated.key]) as log:
        assert log.verifiers == rotated.verifiers
    # A key that a rotation made and did not come to record is passed over.
    with opened(rotated, [newer, NEW, rotated.key]) as log:
        assert log.verifiers == rotated.verifiers
        rotated.fill(log, 1)
    assert {line.split()[1] for line in published(rotated).decode().splitlines()[4:]} == {log.origin}
    assert len(published(rotated).decode().splitlines()) == 6
    with pytest.raises(NoTrustedSignature):
        open_checkpoint(published(rotated), [NoteSigner(log.origin, newer).verifier])


def test_another_process_goes_on_under_the_old_key_while_that_signs(either):
    with either.create() as log, either.open(either.open_tables()) as other:
        replace(log, either, NEW)
        either.fill(other, 2)
        other.publish()
        either.fill(log, 1)
        log.publish()
        either.fill(other, 1)
        assert other.publish().checkpoint.size == 4


@pytest.mark.parametrize("which", ["present", "earlier"])
def test_a_key_of_this_log_cannot_replace_another(rotated, which):
    key = NEW if which == "present" else rotated.key
    with opened(rotated, [NEW, rotated.key]) as log:
        with pytest.raises(InvalidInput, match="before"):
            replace(log, rotated, key)
        with rotated.tables.write() as connection, pytest.raises(InvalidInput, match="Ed25519"):
            log.replace_key(SigningKey.generate("p256"), connection)
        assert log.verifiers == rotated.verifiers


def test_recovery_finds_the_key_that_signed_last(rotated):
    with rotated.tables.write() as connection:  # as a database from before the rotation would say
        connection.exec_driver_sql("UPDATE ledger_log SET key_id = ?", (rotated.key.key_id,))
        connection.exec_driver_sql("DELETE FROM ledger_key")
    unused = NoteSigner(rotated.verifiers[0].name, SigningKey.from_seed(bytes(32))).verifier
    notes = {"published": published(rotated)}
    recover(rotated.tables, rotated.blobs, keys=[unused, *rotated.verifiers], memories=notes, now_ms=0)
    with opened(rotated, [NEW, rotated.key]) as log:
        assert log.verifiers == rotated.verifiers
