"""Signed notes and checkpoints against the vectors, one failure each."""

import pytest

import stanch.errors
from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NoTrustedSignature, ProofInvalid
from stanch.ledger import Checkpoint, NoteSigner, NoteVerifier, open_checkpoint, open_note
from stanch.ledger.checkpoint import sign_checkpoint
from stanch.ledger.note import Cosigner, decode_base64, parse_note, sign_note, signature_line


def signer(golden):
    return NoteSigner(golden["origin"], SigningKey.from_seed(bytes.fromhex(golden["seed"])))


def test_golden_checkpoint_is_signed_byte_for_byte(load):
    golden = load("note/checkpoint.json")
    root = bytes.fromhex(load("ledger/merkle.json")["roots"]["7"])
    signed = sign_checkpoint(Checkpoint(golden["origin"], 7, root), signer(golden))
    assert signed.note.decode() == golden["note"]
    assert signer(golden).verifier.vkey == golden["vkey"]
    assert open_checkpoint(signed.note, [NoteVerifier.parse(golden["vkey"])]).checkpoint.root == root


def test_golden_witness_line_verifies_and_states_its_time(load):
    golden = load("note/checkpoint.json")
    witness = NoteVerifier.parse(golden["witness_vkey"])
    note = (golden["note"] + golden["witness_line"]).encode()
    verified = open_note(note, [witness, NoteVerifier.parse(golden["vkey"])])
    assert [(s.name, s.time_s) for s in verified.signatures] == [
        (golden["origin"], None),
        ("example.com/stanch/witness", golden["witness_time"]),
    ]
    assert witness.vkey == golden["witness_vkey"]


def test_a_witness_alone_does_not_make_a_checkpoint(load):
    golden = load("note/checkpoint.json")
    note = (golden["note"] + golden["witness_line"]).encode()
    with pytest.raises(ProofInvalid, match="did not sign it"):
        open_checkpoint(note, [NoteVerifier.parse(golden["witness_vkey"])])


def test_unknown_keys_are_ignored(load):
    golden = load("note/checkpoint.json")
    note = (golden["note"] + golden["witness_line"]).encode()
    assert len(open_note(note, [NoteVerifier.parse(golden["vkey"])]).signatures) == 1


def test_several_keys_sign_one_note_in_their_order():
    signers = [NoteSigner(name, SigningKey.from_seed(name.encode() * 32)) for name in "ba"]
    note = sign_note("text\n", signers)
    assert [s.name for s in open_note(note, [signer.verifier for signer in signers]).signatures] == ["b", "a"]
    assert note.decode() == "text\n\n" + "".join(signer.line("text\n") for signer in signers)


def test_of_several_lines_of_one_key_the_first_counts():
    witness = Cosigner("w", SigningKey.from_seed(bytes(32)))
    first, second = (witness.cosign("text\n", time_s) for time_s in (1, 2))
    bad = first.replace("AAAA", "AAAB", 1)
    for lines in (first + second, first + bad):
        assert [s.time_s for s in open_note(f"text\n\n{lines}".encode(), [witness.verifier]).signatures] == [1]
    with pytest.raises(NoTrustedSignature, match="of w does not verify"):
        open_note(f"text\n\n{bad}{first}".encode(), [witness.verifier])


def test_every_invalid_note_is_refused_with_its_error(load):
    golden = load("note/checkpoint.json")
    verifiers = [NoteVerifier.parse(golden["vkey"]), NoteVerifier.parse(golden["witness_vkey"])]
    open_note((golden["note"] + golden["witness_line"]).encode(), verifiers)
    for case in load("note/invalid.json"):
        with pytest.raises(stanch.errors.VerificationError) as caught:
            open_note(case["note"].encode(), verifiers)
        assert type(caught.value).__name__ == case["error"], case["name"]


def test_bytes_that_are_not_utf8_are_refused(load):
    golden = load("note/checkpoint.json")
    with pytest.raises(ProofInvalid, match="UTF-8"):
        open_note(b"\xff" + golden["note"].encode(), [NoteVerifier.parse(golden["vkey"])])


def test_no_verifier_trusts_nothing(load):
    with pytest.raises(NoTrustedSignature):
        open_note(load("note/checkpoint.json")["note"].encode(), [])


def test_every_invalid_vkey_is_refused(load):
    for case in load("note/invalid_vkeys.json"):
        with pytest.raises(InvalidInput):
            NoteVerifier.parse(case["vkey"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda vkey: vkey.replace("b2e24c33", "b2e24c34"), "expected id b2e24c33, found b2e24c34"),
        (lambda vkey: vkey[:-1] + "!", "bad base64"),
        (lambda vkey: vkey[:-4], "expected 33 bytes, found 30"),
        (lambda vkey: vkey + "AAAA", "expected 33 bytes, found 36"),
        (lambda vkey: vkey.replace("+b2e24c33", ""), r"expected name\+hex\+base64"),
    ],
)
def test_a_refused_vkey_says_what_is_wrong(load, change, reason):
    with pytest.raises(InvalidInput, match=reason):
        NoteVerifier.parse(change(load("note/checkpoint.json")["vkey"]))


@pytest.mark.parametrize("kind", [0, 2, 3, 5, 255])
def test_a_key_of_another_type_is_refused_even_with_its_right_id(load, kind):
    with pytest.raises(InvalidInput, match=f"found type {kind}"):
        NoteVerifier("n", kind, signer(load("note/checkpoint.json")).key.public)


def test_every_single_bit_of_the_golden_note_matters(load):
    golden = load("note/checkpoint.json")
    verifiers = [NoteVerifier.parse(golden["vkey"])]
    note = golden["note"].encode()
    for position in range(8 * len(note)):
        changed = bytearray(note)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises((ProofInvalid, NoTrustedSignature)):
            open_checkpoint(bytes(changed), verifiers)


@pytest.mark.parametrize(
    "text",
    [
        "example.com/stanch/log\n07\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n",
        "example.com/stanch/log\n-7\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n",
        "example.com/stanch/log\n9223372036854775808\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n",
        "example.com/stanch/log\n٧\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n",
        "example.com/stanch/log\n7\n3bib5A==\n",
        "example.com/stanch/log\n7\n",
        "example.com/stanch/log\n7\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\nextension\n",
        "example.com/other/log\n7\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n",
    ],
)
def test_a_rightly_signed_text_that_is_no_checkpoint_is_refused(load, text):
    key = signer(load("note/checkpoint.json"))
    with pytest.raises(ProofInvalid):
        open_checkpoint(sign_note(text, [key]), [key.verifier])


def test_the_limits_are_exact():
    line = "— n AAAAAAA=\n"  # a key id and one byte of signature
    assert len(parse_note(f"text\n\n{line * 32}".encode()).signatures) == 32
    with pytest.raises(ProofInvalid, match="32 signatures"):
        parse_note(f"text\n\n{line * 33}".encode())
    with pytest.raises(ProofInvalid, match="no signature or a bad name"):
        parse_note("text\n\n— n AAAAAA==\n".encode())
    end = f"\n\n{line}".encode()
    assert parse_note(end.rjust(64 << 10, b"x")).text == "x" * ((64 << 10) - len(end)) + "\n"
    with pytest.raises(ProofInvalid, match="65536 bytes"):
        parse_note(end.rjust((64 << 10) + 1, b"x"))
    longest = NoteSigner("x" * 256, SigningKey.from_seed(bytes(32)))
    assert open_note(sign_note("text\n", [longest]), [longest.verifier]).text == "text\n"
    largest = Checkpoint("x" * 256, 2**63 - 1, bytes(32))
    assert open_checkpoint(sign_checkpoint(largest, longest).note, [longest.verifier]).checkpoint == largest


@pytest.mark.parametrize("note", ["— n AAAAAAA=\n", "text\n\n— n AAAAAAA=", "text\n\n— n AAAAAAA=x"])
def test_a_note_has_a_text_and_ends_in_a_newline(note):
    with pytest.raises(ProofInvalid, match="no signature lines after an empty line"):
        parse_note(note.encode())


@pytest.mark.parametrize("text", ["AAAA=", "AAA", "A===", "AAB=", "é", "AA AA", "AAAA\n"])
def test_other_base64_is_refused(text):
    with pytest.raises(ProofInvalid, match="base64"):
        decode_base64(text, "what")


def test_a_text_without_its_last_newline_is_not_signed():
    with pytest.raises(InvalidInput, match="newline"):
        sign_note("text", [NoteSigner("n", SigningKey.from_seed(bytes(32)))])


@pytest.mark.parametrize("size", [70, 72, 8, 0])
def test_a_cosignature_of_another_length_is_refused(size):
    witness = Cosigner("w", SigningKey.from_seed(bytes(32))).verifier
    note = "text\n\n" + signature_line("w", witness.key_id + bytes(size) + b"x")
    with pytest.raises(NoTrustedSignature, match="w is not 72 bytes"):
        open_note(note.encode(), [witness])


@pytest.mark.parametrize("name", ["", "with space", "a+b", "a\u2003b", "tab\t", "a\x7fb", "a\u200bb", "x" * 257])
def test_names_that_cannot_stand_in_a_note_are_refused(name):
    with pytest.raises(InvalidInput, match="not a log or key name"):
        _ = NoteSigner(name, SigningKey.from_seed(bytes(32))).verifier


def test_a_p256_key_cannot_sign_notes():
    with pytest.raises(InvalidInput):
        _ = NoteSigner("example.com/log", SigningKey.generate("p256")).verifier
