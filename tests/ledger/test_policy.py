"""Trust policy files: vectors, every refusal, quorums, and proofs that need one."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto import SigningKey, leaf_hash
from stanch.errors import InvalidInput, NoTrustedSignature, QuorumUnmet
from stanch.ledger import Checkpoint, Cosigner, NoteSigner, NoteVerifier, TlogProof, TrustPolicy, Witness, verify_proof
from stanch.ledger.checkpoint import open_checkpoint, sign_checkpoint
from stanch.ledger.note import NoteSignature
from stanch.ledger.policy import Group

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
    with pytest.raises(QuorumUnmet, match=r"udcff.*known cosignatures$"):
        parsed.require_quorum([])


# A log and four witnesses, X1, X2, X3 and Y1, as lines.
LOG, *WITNESSES = VALID[2]["policy"].splitlines()[:5]


@pytest.mark.parametrize(
    ("lines", "number", "reason"),
    [
        (["log x"], 1, "not a key"),
        ([LOG, "witness a b c d e"], 2, "expected a log, witness, group or quorum line"),
        ([LOG, f"{WITNESSES[0]} https://one.example https://two.example"], 2, "expected a log"),
        ([LOG, "", "# a comment", f"!{WITNESSES[0]}"], 4, "expected a log"),
        ([LOG, *WITNESSES[:2], WITNESSES[0]], 4, "a name that is taken"),
        ([LOG, WITNESSES[0].replace(" X1 ", " none ")], 2, "a name that is taken"),
        ([LOG, WITNESSES[0], "group X1 1 X1"], 3, "a name that is taken"),
        ([LOG, "group g 1 X1", WITNESSES[0]], 2, "no line before defines"),
        ([LOG, "quorum X1", WITNESSES[0]], 2, "no line before defines"),
        ([LOG, "quorum none!"], 2, "no line before defines"),
        ([LOG, WITNESSES[0], "group g 0 X1"], 3, "a threshold that is neither"),
        ([LOG, WITNESSES[0], "group g 10000 X1"], 3, "a threshold that is neither"),
        ([LOG, "quorum none", "quorum none"], 3, "a second quorum line"),
    ],
)
def test_a_refusal_names_the_line(lines, number, reason):
    with pytest.raises(InvalidInput, match=f"line {number} breaks") as caught:
        TrustPolicy.parse("".join(f"{line}\n" for line in lines).encode())
    assert reason in caught.value.why


def test_a_policy_that_is_not_read_from_a_file_keeps_the_same_rules():
    (log,) = TrustPolicy.of([LOG.split()[1]]).logs
    one, two = (Witness(name, NoteVerifier.parse(vkey)) for _, name, vkey in map(str.split, WITNESSES[:2]))
    for reason, parts in {
        "names no log key": {"logs": ()},
        "a log key is not of type 01": {"logs": (log, one.key)},
        "a witness key is not of type 04": {"witnesses": (one, Witness("log", log))},
        "a log key stands there twice": {"logs": (log, log)},
        "a witness key stands there twice": {"witnesses": (one, Witness("again", one.key))},
        "a name stands for two things": {"witnesses": (one, Witness(one.name, two.key))},
        "a name stands for two": {"witnesses": (Witness("none", one.key),)},
        "g asks for 0 of 1": {"groups": (Group("g", 0, ("X1",)),)},
        "g asks for 2 of 1": {"groups": (Group("g", 2, ("X1",)),)},
        "X9 is not defined before": {"groups": (Group("g", 1, ("X9",)),)},
        "g is not defined before": {"groups": (Group("g", 1, ("g",)),)},
        "X1 is not defined before its group, or is a member twice": {"groups": (Group("g", 1, ("X1", "X1")),)},
        "the quorum X9 is not defined": {"quorum": "X9"},
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            TrustPolicy(**{"logs": (log,), "witnesses": (one, two), **parts})
    nested = (Group("g", 1, ("X1",)), Group("all", 2, ("g", "X2")))
    assert TrustPolicy((log,), (one, two), nested, "all").overlap() == 2
    assert one.url == ""


def test_the_overlap_counts_the_members_that_share_least():
    lines = [LOG, *WITNESSES, "group pair all X1 X2", "group g 2 pair X3 Y1", "quorum g"]
    parsed = TrustPolicy.parse("".join(f"{line}\n" for line in lines).encode())
    assert parsed.overlap() == 1  # {X1, X2, X3} and {X3, Y1}


def test_without_a_bound_every_time_counts_and_the_log_itself_never_does(ground):
    witness = Cosigner("w.example", SigningKey.from_seed(bytes([1]) * 32))
    policy = TrustPolicy.of([ground.policy.logs[0].vkey], known([witness]))
    checkpoint = Checkpoint(policy.logs[0].name, 1, leaf_hash(b"entry"))
    note = sign_checkpoint(checkpoint, NoteSigner(policy.logs[0].name, ground.key)).note
    first = note + witness.cosign(checkpoint.text(), 0).encode()
    assert [signature.time_s for signature in policy.open(first).cosignatures] == [0]
    policy.require_quorum(policy.open(first).cosignatures)
    assert verify_proof(TlogProof(0, (), first).to_bytes(), b"entry", policy).checkpoint_size == 1
    with pytest.raises(QuorumUnmet, match="found 0 known"):
        policy.require_quorum([NoteSignature(witness.name, witness.verifier.key_id, None)])


def test_limits():
    text = VALID[0]["policy"].encode()
    filled = text + b"#" * ((64 << 10) - len(text) - 1) + b"\n"
    assert TrustPolicy.parse(filled) == TrustPolicy.parse(text)
    with pytest.raises(InvalidInput, match="65536 bytes"):
        TrustPolicy.parse(b"#" + filled)
    with pytest.raises(InvalidInput, match="no quorum line"):
        TrustPolicy.parse(b"")
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
    with pytest.raises(InvalidInput, match="a witness key is not of type 04"):
        TrustPolicy.of([ground.policy.logs[0].vkey], [Witness("w", ground.policy.logs[0])])
    with pytest.raises(InvalidInput, match="a log key is not of type 01"):
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
