"""Proof files: what verifies, and that nothing else does; also by a second reader that shares no code."""

import base64
import hashlib

import pytest

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NotFound, NoTrustedSignature, ProofInvalid, VerificationError
from stanch.ledger import NoteSigner, TlogProof, TrustPolicy, verify_proof


@pytest.fixture
def published(ground):
    with ground.create() as log:
        ground.fill(log, 260)
        log.publish()
        yield log.reader()


def read_independently(proof, entry, origin, public):
    """Verify a proof with the standard library and the signature check alone, straight from the C2SP documents."""
    head, note = proof.decode().split("\n\n", 1)
    magic, index_line, *path = head.split("\n")
    assert magic == "c2sp.org/tlog-proof@v1"
    index = int(index_line.split(" ")[1])
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    name, size, root = text.splitlines()
    assert name == origin
    line = signatures.removesuffix("\n").removeprefix(f"— {origin} ")
    signature = base64.b64decode(line)
    assert signature[:4] == hashlib.sha256(origin.encode() + b"\n\x01" + public.raw).digest()[:4]
    public.verify(signature[4:], text.encode())
    node, position, last = hashlib.sha256(b"\0" + entry).digest(), index, int(size) - 1
    for sibling in map(base64.b64decode, path):
        if position % 2 or position == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        position, last = position // 2, last // 2
    assert last == 0
    assert node == base64.b64decode(root)
    return index


def test_every_entry_has_a_proof_that_two_readers_accept(ground, published):
    for index in [0, 1, 2, 127, 128, 254, 255, 256, 257, 258, 259]:
        entry, proof = published.entry(index), published.prove(index)
        verified = verify_proof(proof, entry, ground.policy)
        assert verified.leaf_hash == hashlib.sha256(b"\0" + entry).digest()
        assert (verified.index, verified.entry, verified.checkpoint_size) == (index, entry, 260)
        assert read_independently(proof, entry, published.origin, ground.key.public) == index


def test_a_proof_at_an_older_size_stays_available(ground):
    with ground.create() as log:
        ground.fill(log, 3)
        log.publish()
        ground.fill(log, 300)
        log.publish()
        reader = log.reader()
        assert verify_proof(reader.prove(1, 3), reader.entry(1), ground.policy).checkpoint_size == 3
        with pytest.raises(InvalidInput):
            reader.prove(3, 3)
        with pytest.raises(NotFound):
            reader.prove(1, 4)


def test_an_entry_that_is_not_published_has_no_proof_yet(ground):
    with ground.create() as log:
        log.publish()
        log.append(ground.entry())
        with pytest.raises(InvalidInput, match="not in the checkpoint"):
            log.reader().prove(0)
        log.publish()
        log.reader().prove(0)


def test_another_entry_does_not_verify(ground, published):
    for other in (published.entry(8), b"", published.entry(7) + b" "):
        with pytest.raises(ProofInvalid):
            verify_proof(published.prove(7), other, ground.policy)


def test_another_log_is_not_trusted(published):
    other = TrustPolicy((NoteSigner(published.origin, SigningKey.from_seed(bytes(32))).verifier,))
    with pytest.raises(NoTrustedSignature):
        verify_proof(published.prove(7), published.entry(7), other)


def test_a_policy_without_a_log_is_refused():
    with pytest.raises(InvalidInput):
        TrustPolicy(())


def test_no_single_changed_byte_of_a_proof_verifies(ground, published):
    proof, entry = published.prove(7), published.entry(7)
    for position in range(len(proof)):
        changed = bytearray(proof)
        changed[position] ^= 1
        with pytest.raises(VerificationError):
            verify_proof(bytes(changed), entry, ground.policy)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.replace(b"@v1", b"@v2"),
        lambda p: p.replace(b"index 7", b"index 07"),
        lambda p: p.replace(b"index 7", b"index -7"),
        lambda p: p.replace(b"index 7", b"index 9223372036854775808"),
        lambda p: p.replace(b"index 7\n", b""),
        lambda p: p.replace(b"index 7", b"7"),
        lambda p: p.replace(b"index 7", b"index 6"),
        lambda p: p.replace(b"\n\n", b"\n", 1),
        lambda p: p.replace(b"\n", b"\r\n"),
        lambda p: p[: len(p) // 2],
        lambda p: p[:0],
        lambda p: p + b"x" * (128 << 10),
        lambda p: p.replace(b"index 7\n", b"index 7\n" + b"A" * 43 + b"=\n"),
        lambda p: p.replace(b"index 7\n", b"index 7\n" + (b"A" * 43 + b"=\n") * 64),
        lambda p: p.replace(b"index 7\n", b"index 7\nAAAA\n"),
        lambda p: p.replace(b"index 7", b"extra !!\nindex 7"),
        lambda p: p.replace(b"index 7", "index ٧".encode()),
    ],
)
def test_malformed_proofs_are_refused(ground, published, change):
    proof = published.prove(7)
    verify_proof(proof, published.entry(7), ground.policy)
    with pytest.raises(ProofInvalid):
        verify_proof(change(proof), published.entry(7), ground.policy)


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        (b"c2sp.org/tlog-proof@v1\nindex 0", "and a checkpoint"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\n", "and a checkpoint"),
        (b"c2sp.org/tlog-proof@v1\n\nnote", "a line 'index N'"),
        (b"c2sp.org/tlog-proof@v1\nextra AAAA\n\nnote", "a line 'index N'"),
        ("c2sp.org/tlog-proof@v1\nindex 0\né\n\nnote".encode(), "not ASCII"),
    ],
)
def test_an_incomplete_proof_is_refused_before_anything_is_verified(proof, reason):
    with pytest.raises(ProofInvalid, match=reason):
        TlogProof.parse(proof)


def test_extra_data_is_skipped_since_it_is_not_authenticated(ground, published):
    proof = published.prove(7).replace(b"index 7", b"extra AAAA\nindex 7")
    assert verify_proof(proof, published.entry(7), ground.policy).index == 7


def test_proof_files_round_trip(published):
    proof = published.prove(259)
    assert TlogProof.parse(proof).to_bytes() == proof


def test_the_limits_are_exact():
    head = b"c2sp.org/tlog-proof@v1\nindex 0\n"
    line = b"A" * 43 + b"=\n"
    assert len(TlogProof.parse(head + 63 * line + b"\nnote").path) == 63
    with pytest.raises(ProofInvalid, match="63 hashes"):
        TlogProof.parse(head + 64 * line + b"\nnote")
    room = (128 << 10) - len(head) - 1
    assert len(TlogProof.parse(head + b"\n" + b"x" * room).checkpoint) == room
    with pytest.raises(ProofInvalid, match="131072 bytes"):
        TlogProof.parse(head + b"\n" + b"x" * (room + 1))
