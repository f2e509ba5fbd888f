"""Trust policy files: vectors, every refusal, quorums, and proofs that need one."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NoTrustedSignature, QuorumUnmet
from stanch.ledger import Cosigner, NoteVerifier, TlogProof, TrustPolicy, Witness, verify_proof
from stanch.ledger.checkpoint import open_checkpoint
from stanch.ledger.note import NoteSignature

VECTORS = Path(__file__).parent.parent / "vectors" / "policy"
VALID = json.loads((VECTORS / "valid.json").read_text())
INVALID = json.loads((VECTORS / "invalid.json").read_text())
NOW = 1_767_225_600


def signatures(policy, names, time_s=NOW):
    return [NoteSignature(w.key.name, w.key.key_id, time_s) for w in policy.witnesses if w.name in names]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["name"])
def test_valid_policies_say_which_quorums_are_met(case):
    policy = TrustPolicy.parse(case["policy"].encode())
    for names in case["met"]:
        policy.require_quorum(signatures(policy, names))
    for names in case["unmet"]:
        with pytest.raises(QuorumUnmet):
            policy.require_quorum(signatures(policy, names))


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["name"])
def test_the_overlap_is_that_of_the_worst_two_quorums(case):
    policy = TrustPolicy.parse(case["policy"].encode())
    names = [witness.name for witness in policy.witnesses]
    quorums = [
        frozenset(chosen)
        for count in range(len(names) + 1)
        for chosen in itertools.combinations(names, count)
        if policy._met(policy.quorum, chosen)
    ]
    assert policy.overlap() == min(len(one & other) for one in quorums for other in quorums) == case["overlap"]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case["name"])
def test_every_invalid_policy_is_refused(case):
    with pytest.raises(InvalidInput, match="trust policy"):
        TrustPolicy.parse(case["policy"].encode())


def test_names_are_opaque_bytes():
    policy = VALID[1]["policy"].encode().replace(b" only ", b" \xff\xfe ").replace(b"quorum only", b"quorum \xff\xfe")
    parsed = TrustPolicy.parse(policy)
    with pytest.raises(QuorumUnmet, match="udcff"):
        parsed.require_quorum([])


def test_limits():
    with pytest.raises(InvalidInput, match="65536 bytes"):
        TrustPolicy.parse(b"#" * (64 << 10) + b"\n")
    witnesses = [Witness(f"w{i}", Cosigner(f"w{i}", SigningKey.generate("ed25519")).verifier) for i in range(257)]
    log = VALID[0]["policy"].split()[1]
    with pytest.raises(InvalidInput, match="at most 256"):
        dataclasses.replace(TrustPolicy.of([log]), witnesses=tuple(witnesses))
    assert TrustPolicy.of([log], witnesses[:255]).overlap() == 255


@given(st.binary(max_size=400))
def test_any_bytes_are_a_policy_or_refused(data):
    with contextlib.suppress(InvalidInput):
        TrustPolicy.parse(data)


@given(st.lists(st.sampled_from([line for case in VALID for line in case["policy"].splitlines()]), max_size=12))
def test_any_lines_are_a_policy_or_refused(lines):
    with contextlib.suppress(InvalidInput):
        TrustPolicy.parse("".join(f"{line}\n" for line in lines).encode()).overlap()


@pytest.fixture
def cosigned(ground):
    """A log of five entries, two witnesses, and a proof of entry 3 under a checkpoint that the first cosigned."""
    witnesses = [Cosigner(f"w{i}.example", SigningKey.from_seed(bytes([i]) * 32)) for i in (1, 2)]
    with ground.create() as log:
        ground.fill(log, 5)
        text = open_checkpoint(log.publish().note, [log.verifier]).checkpoint.text()
        proof = log.reader().prove(3)
        yield log.reader().entry(3), proof, [proof + w.cosign(text, NOW).encode() for w in witnesses], witnesses


def known(witnesses):
    return [Witness(witness.name, witness.verifier) for witness in witnesses]


def test_a_proof_needs_the_quorum(ground, cosigned):
    entry, bare, (first, second), witnesses = cosigned
    vkeys = [ground.policy.logs[0].vkey]
    one, both = TrustPolicy.of(vkeys, known(witnesses[:1])), TrustPolicy.of(vkeys, known(witnesses))
    assert verify_proof(first, entry, one).index == 3
    for proof, policy in ((bare, one), (second, one), (first, both), (bare, both)):
        with pytest.raises(QuorumUnmet):
            verify_proof(proof, entry, policy)
    assert verify_proof(first + second.removeprefix(bare), entry, both).index == 3
    assert verify_proof(first, entry, ground.policy).index == 3  # cosignatures of strangers do no harm


def test_old_cosignatures_do_not_count_against_a_stale_view(ground, cosigned):
    entry, _, (first, _), witnesses = cosigned
    policy = TrustPolicy.of([ground.policy.logs[0].vkey], known(witnesses[:1]))
    assert verify_proof(first, entry, policy, not_before_s=NOW).index == 3
    with pytest.raises(QuorumUnmet, match="made since"):
        verify_proof(first, entry, policy, not_before_s=NOW + 1)


def test_a_bad_cosignature_of_a_known_witness_is_refused(ground, cosigned):
    entry, _, (first, _), witnesses = cosigned
    note = TlogProof.parse(first).checkpoint
    policy = TrustPolicy.of([ground.policy.logs[0].vkey], known(witnesses[:1]))
    last = note.splitlines(keepends=True)[-1]
    changed = first.replace(last, last[:60] + (b"A" if last[60:61] != b"A" else b"B") + last[61:])
    with pytest.raises(NoTrustedSignature):
        verify_proof(changed, entry, policy)


def test_the_log_cannot_be_its_own_witness(ground, cosigned):
    _, _, _, witnesses = cosigned
    with pytest.raises(InvalidInput, match="not of type 04"):
        TrustPolicy.of([ground.policy.logs[0].vkey], [Witness("w", ground.policy.logs[0])])
    with pytest.raises(InvalidInput, match="not of type 01"):
        TrustPolicy((witnesses[0].verifier,))
    assert isinstance(witnesses[0].verifier, NoteVerifier)


def test_golden_cosignature(load):
    golden = load("note/checkpoint.json")
    cosigner = Cosigner("example.com/stanch/witness", SigningKey.from_seed(bytes(range(32, 64))))
    assert cosigner.verifier.vkey.endswith("witness+8150228b+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X")
    text = golden["note"].rpartition("\n\n")[0] + "\n"
    line = cosigner.cosign(text, NOW)
    assert line == (
        "— example.com/stanch/witness gVAiiwAAAABpVbkA2PnEKcMjzz711MmUt+LMa2yIgS9hvIBeL7Wvkboths4b+9dHALrLVvZo9Z7mk0ZF"
        "mRIxGSFvFr91kPh65WB4AQ==\n"
    )
