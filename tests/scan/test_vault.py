"""The vault: opened by its recipients only, verified before anything is decrypted, and never a value in sight."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.siv import decrypt_siv, encrypt_siv
from stanch.errors import DecryptionFailed, InvalidInput, NoIdentityMatched, NotFound, StanchError, Tampered
from stanch.scan import Operator, Policy, Scanner, Vault, open_vault

KEY = bytes(range(32))
ME = generate_identity()


def save(path, recipients=(ME.recipient,), values=(("email", "<EMAIL:A>", "ana@correo.es"),)):
    vault = Vault(path, list(recipients))
    for entry in values:
        vault.add(*entry)
    vault.save()
    return vault


def test_rfc_8452_vector():
    # RFC 8452, appendix C.2: AES-256, eight bytes of plaintext.
    key, nonce = b"\1" + bytes(31), b"\3" + bytes(11)
    box = encrypt_siv(key, nonce, b"\1" + bytes(7), aad=b"")
    assert box.hex() == "030000000000000000000000c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"
    assert decrypt_siv(key, box, aad=b"") == b"\1" + bytes(7)
    for wrong in (box[:-1], box[:5], b"", bytes(40)):
        with pytest.raises(DecryptionFailed):
            decrypt_siv(key, wrong, aad=b"")
    with pytest.raises(DecryptionFailed):
        decrypt_siv(key, box, aad=b"other")


def test_every_recipient_opens_it_and_nobody_else(tmp_path):
    other = generate_identity("hybrid")
    save(tmp_path / "v", [ME.recipient, other.recipient])
    for identity in (ME, other):
        opened = open_vault(tmp_path / "v", identity)
        assert dict(opened.kinds) == {"<EMAIL:A>": "email"}
        assert opened.reveal("<EMAIL:A>") == "ana@correo.es"
        with pytest.raises(NotFound):
            opened.reveal("<EMAIL:B>")
    with pytest.raises(NoIdentityMatched):
        open_vault(tmp_path / "v", generate_identity())


def test_a_passphrase_can_be_a_recipient(tmp_path):
    save(tmp_path / "v", [Passphrase("correct horse")])
    assert open_vault(tmp_path / "v", Passphrase("correct horse")).reveal("<EMAIL:A>") == "ana@correo.es"
    with pytest.raises(DecryptionFailed):
        open_vault(tmp_path / "v", Passphrase("wrong"))


def test_the_file_is_private_and_holds_no_value(tmp_path):
    vault = save(tmp_path / "v")
    path = tmp_path / "v"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = path.read_text() + repr(vault) + repr(open_vault(path, ME))
    assert "ana" not in shown
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read"):
        open_vault(path, ME)


def test_an_existing_file_is_not_replaced(tmp_path):
    save(tmp_path / "v")
    with pytest.raises(InvalidInput, match="exists already"):
        Vault(tmp_path / "v", [ME.recipient])
    late = Vault(tmp_path / "w", [ME.recipient])
    (tmp_path / "w").touch()
    with pytest.raises(InvalidInput, match="exists already"):
        late.save()
    with pytest.raises(InvalidInput, match="recipients"):
        Vault(tmp_path / "x", [])


def test_the_first_spelling_is_kept(tmp_path):
    save(tmp_path / "v", values=[("email", "<EMAIL:A>", "Ana@correo.es"), ("email", "<EMAIL:A>", "ana@correo.es")])
    assert open_vault(tmp_path / "v", ME).reveal("<EMAIL:A>") == "Ana@correo.es"


def test_no_byte_can_be_changed(tmp_path):
    path = tmp_path / "v"
    save(path, values=[("email", f"<EMAIL:{n}>", f"ana{n}@correo.es") for n in range(3)])
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    changed = [b"\n".join([*lines[:1], lines[2], lines[1], *lines[3:]]), b"\n".join([lines[0], *lines[2:]])]
    changed += [whole[:cut] for cut in (0, 1, len(lines[0]), len(whole) - 1, whole.rindex(b'{"mac'))]
    changed += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for data in changed:
        path.write_bytes(data)
        with pytest.raises((Tampered, DecryptionFailed, InvalidInput, NoIdentityMatched)):
            open_vault(path, ME)


def test_entries_of_another_vault_do_not_fit(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    save(one)
    save(two)
    lines = two.read_bytes().split(b"\n")
    two.write_bytes(b"\n".join([lines[0], one.read_bytes().split(b"\n")[1], *lines[2:]]))
    with pytest.raises(Tampered):
        open_vault(two, ME)


@settings(deadline=None, max_examples=100)
@given(data=st.one_of(st.binary(max_size=300), st.text(alphabet='{}[]":,formatidsnz0\n', max_size=200).map(str.encode)))
def test_any_bytes_are_refused_by_name(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StanchError):
        open_vault(path, ME)


def test_a_scanner_fills_it_and_whole_text_and_stream_write_the_same_names(tmp_path):
    vault = Vault(tmp_path / "v", [ME.recipient])
    scanner = Scanner(Policy(operators={"email": Operator.VAULT}, pseudonym_key=KEY, vault=vault))
    done = scanner.redact("to ana@correo.es and +1 415 267 8943")
    session = scanner.open_stream()
    streamed = session.feed("to ana@cor").text + session.feed("reo.es and +1 415 267 8943").text + session.finish().text
    assert done.text == streamed
    vault.save()
    opened = open_vault(tmp_path / "v", ME)
    (name,) = opened.kinds
    assert done.text == f"to {name} and <PHONE>"
    assert opened.reveal(name) == "ana@correo.es"


def test_the_operator_needs_a_vault():
    with pytest.raises(InvalidInput, match="needs a vault"):
        Policy(operators={"email": Operator.VAULT}, pseudonym_key=KEY)


def test_a_child_process_cannot_lose_values(tmp_path, monkeypatch):
    vault = Vault(tmp_path / "v", [ME.recipient])
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StanchError, match="child"):
        vault.add("email", "<EMAIL:A>", "ana@correo.es")
