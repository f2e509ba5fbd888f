"""Passphrases: real Argon2id at its real costs, and every way in which a lock stays shut."""

import threading
import unicodedata

import pytest

from stanch.crypto.passphrase import Passphrase
from stanch.crypto.stanza import Stanza, WrapContext, decode_base64url, encode_base64url
from stanch.errors import DecryptionFailed, InvalidInput

CONTEXT = WrapContext(bytes(32), bytes(range(32)), None)
ROOT = bytes(range(32))


@pytest.fixture(scope="module")
def stanza():
    return Passphrase("correct horse battery staple").wrap(ROOT, CONTEXT)


def with_field(stanza, name, value):
    return Stanza(stanza.type, stanza.key_id, stanza.not_after, {**stanza.fields, name: value})


def test_round_trip(stanza):
    fields = stanza.fields
    assert (stanza.type, fields["t"], fields["m_kib"], fields["p"]) == ("passphrase", 3, 65536, 4)
    lengths = {name: len(decode_base64url(fields[name], what=name)) for name in ("salt", "check", "nonce", "ct")}
    assert lengths == {"salt": 16, "check": 32, "nonce": 12, "ct": 48}
    provider = Passphrase("correct horse battery staple")
    assert provider.unwrap(stanza, CONTEXT) == ROOT
    assert provider.describe().names(stanza)
    assert (provider.describe().key_id, provider.describe().recipient) == (None, "passphrase:")


def test_argon2id_agrees_with_rfc_9106():
    # The library is checked with the published vector of RFC 9106, section 5.3, since our own has no associated data.
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415 - only this check names the library

    argon = Argon2id(
        salt=b"\x02" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\x04" * 12, secret=b"\x03" * 8
    )
    assert argon.derive(b"\x01" * 32).hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


@pytest.mark.parametrize("text", ["correct horse battery stapl", "Correct horse battery staple", "x"])
def test_wrong_passphrases_are_refused(stanza, text):
    with pytest.raises(DecryptionFailed):
        Passphrase(text).unwrap(stanza, CONTEXT)


def test_context_and_key_id_are_bound(stanza):
    provider = Passphrase("correct horse battery staple")
    with pytest.raises(DecryptionFailed):
        provider.unwrap(stanza, WrapContext(bytes(32), bytes(32), None))
    with pytest.raises(DecryptionFailed):
        provider.unwrap(Stanza(stanza.type, "passphrase:other", None, stanza.fields), CONTEXT)


@pytest.mark.parametrize("name", ["salt", "check", "nonce", "ct"])
def test_changed_values_are_refused(stanza, name):
    data = bytearray(decode_base64url(stanza.fields[name], what=name))
    data[0] ^= 1
    with pytest.raises(DecryptionFailed):
        Passphrase("correct horse battery staple").unwrap(with_field(stanza, name, encode_base64url(data)), CONTEXT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t", 2),
        ("t", 17),
        ("m_kib", 65535),
        ("m_kib", (1 << 20) + 1),
        ("p", 3),
        ("p", 17),
        ("t", "3"),
        ("t", True),
        ("salt", "AA"),
        ("salt", 5),
        ("check", "!"),
        ("more", "x"),
    ],
)
def test_costs_out_of_range_and_malformed_fields_are_refused_before_any_work(stanza, monkeypatch, name, value):
    monkeypatch.setattr(Passphrase, "_stretch", lambda *_: pytest.fail("the passphrase was stretched"))
    with pytest.raises(InvalidInput):
        Passphrase("x").unwrap(with_field(stanza, name, value), CONTEXT)


@pytest.mark.parametrize(("name", "value"), [("t", 16), ("m_kib", 1 << 20), ("p", 16)])
def test_the_highest_costs_are_accepted(stanza, monkeypatch, name, value):
    asked = []

    def stretch(_self, _salt, costs):
        asked.append(costs)
        return bytes(32), bytes(32)

    monkeypatch.setattr(Passphrase, "_stretch", stretch)
    with pytest.raises(DecryptionFailed):
        Passphrase("x").unwrap(with_field(stanza, name, value), CONTEXT)
    assert asked == [{"t": 3, "m_kib": 65536, "p": 4} | {name: value}]


def test_a_file_holds_a_passphrase_and_perhaps_a_newline(tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (64, 1 << 20), "p": (1, 16)})
    path = tmp_path / "passphrase"
    path.touch(0o600)
    for data, text in ((b"x y\n", "x y"), (b" x", " x"), (b"x\n\n", "x\n"), ("caf\u00e9".encode(), "caf\u00e9")):
        path.write_bytes(data)
        fields = Passphrase.read(path).lock(ROOT, aad=b"a")
        assert Passphrase(text).unlock(fields, b"a") == ROOT
    for data, words in ((b"\n", "at least one character"), (b"\xff", "UTF-8 text")):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match=words):
            Passphrase.read(path)


def test_a_missing_field_or_another_type_is_refused(stanza):
    fields = {name: value for name, value in stanza.fields.items() if name != "check"}
    with pytest.raises(InvalidInput):
        Passphrase("x").unwrap(Stanza(stanza.type, stanza.key_id, None, fields), CONTEXT)
    with pytest.raises(InvalidInput, match="expected the fields"):
        Passphrase("x").unlock(fields, b"")
    with pytest.raises(InvalidInput):
        Passphrase("x").unwrap(Stanza("hpke-x25519", stanza.key_id, None, stanza.fields), CONTEXT)


def test_no_repr_shows_a_passphrase():
    assert repr(Passphrase("marker1234")) == "Passphrase(…)"


def test_one_text_however_the_keyboard_composes_it():
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert composed != decomposed
    stanza = Passphrase(composed).wrap(ROOT, CONTEXT)
    assert Passphrase(decomposed).unwrap(stanza, CONTEXT) == ROOT


def test_empty_passphrases_and_other_roots_are_refused():
    with pytest.raises(InvalidInput):
        Passphrase("")
    with pytest.raises(InvalidInput):
        Passphrase("x").wrap(bytes(31), CONTEXT)


def test_two_wraps_share_no_value(stanza):
    other = Passphrase("correct horse battery staple").wrap(ROOT, CONTEXT)
    assert other.key_id != stanza.key_id
    for name in ("salt", "check", "nonce", "ct"):
        assert other.fields[name] != stanza.fields[name]


def test_eight_threads_at_once(stanza):
    results = []

    def unwrap():
        results.append(Passphrase("correct horse battery staple").unwrap(stanza, CONTEXT))

    threads = [threading.Thread(target=unwrap) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ROOT] * 8
