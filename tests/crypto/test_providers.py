"""What every kind of recipient must do, in one suite; then what only some of them can."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import servers
from stanch.crypto import passphrase
from stanch.crypto.identity import Identity, generate_identity, load_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.providers import pkcs11
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    DestroyableKey,
    KeyDestroyed,
    KeyProvider,
    KeyUnavailable,
    Stanza,
    WrapContext,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import DecryptionFailed, InvalidInput, MissingExtraError

CONTEXT = WrapContext(bytes(32), bytes(range(32)), "2030-01-01T00:00:00Z")
ROOT = bytes(range(100, 132))
TYPES = {
    "x25519": "hpke-x25519",
    "hybrid": "hpke-mlkem768-x25519",
    "passphrase": "passphrase",
    "age": "age",
    "pkcs11": "pkcs11-aes-gcm",
    "aws": "aws-kms",
}


@dataclass(frozen=True)
class Kind:
    """How one kind of key is written down.

    Attributes:
        make: Returns the text of a new private file.
        secrets: What must never be shown, for such a text.
        sound_from: From which byte on the test's service notices a change of ``ct``. ministack only imitates KMS: it
            neither reads the key id that it puts first nor authenticates the rest, so a change gives another root.
    """

    make: Callable[[], str]
    secrets: Callable[[str], list[str]] = lambda _: []
    sound_from: int = 0


def _own(kind, tmp_path):
    path = tmp_path / f"made-{time.monotonic_ns()}"
    generate_identity(kind).save(path)
    return path.read_text()


def _age():
    return subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout


def _passphrase(tmp_path):
    path = tmp_path / f"passphrase-{time.monotonic_ns()}"
    path.touch(0o600)
    path.write_text(f"marker {path.name}\n")
    return f"passphrase:{path}\n"


@pytest.fixture(params=TYPES)
def name(request):
    return request.param


@pytest.fixture
def kind(name, request, tmp_path, age_is_installed, monkeypatch):
    match name:
        case "x25519" | "hybrid":
            return Kind(lambda: _own(name, tmp_path), lambda text: [json.loads(text)["secret"]])
        case "passphrase":  # tests/crypto/test_passphrase.py has the real costs
            monkeypatch.setattr(passphrase, "_COSTS", {"t": (1, 16), "m_kib": (64, 1 << 20), "p": (1, 16)})
            return Kind(lambda: _passphrase(tmp_path), lambda _: ["marker"])
        case "age":
            age_is_installed()
            return Kind(_age, lambda text: [text.splitlines()[-1]])
        case "pkcs11":
            token = request.getfixturevalue("softhsm")
            return Kind(token.key, lambda _: [token.pin])
    service = request.getfixturevalue("kms")
    return Kind(service.key, lambda _: [service.environment["AWS_SECRET_ACCESS_KEY"]], sound_from=84)


@pytest.fixture(scope="session")
def age_is_installed():
    def check():
        pytest.importorskip("pyrage", reason="pyrage is not installed")
        try:
            subprocess.run(["age", "--version"], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("age is not installed")

    return check


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a private file."""

    def write(text):
        path = tmp_path / f"id-{time.monotonic_ns()}"
        path.touch(0o600)
        path.write_text(text)
        return path

    return write


def load(path):
    return load_identity(path, passphrase=lambda: pytest.fail("the passphrase is in a file"))


@pytest.fixture
def key(kind, save):
    return load(save(kind.make()))


def recipient_of(key: KeyProvider) -> KeyProvider:
    """Return what a sender has: the public text alone, where the kind has a public half."""
    return key if isinstance(key, Passphrase) else parse_recipient(key.describe().recipient)


@pytest.fixture
def sender(name, key, request, monkeypatch):
    """What a sender has of a key. The text of a PKCS#11 key says nothing of module and PIN: the environment does."""
    if name == "pkcs11":
        monkeypatch.setenv("STANCH_PKCS11_MODULE", str(servers.SOFTHSM_MODULE))
        monkeypatch.setenv("STANCH_PKCS11_PIN_FILE", str(request.getfixturevalue("softhsm").pin_file))
    return recipient_of(key)


def with_field(stanza, field, value):
    return Stanza(stanza.type, stanza.key_id, stanza.not_after, {**stanza.fields, field: value})


def flipped(text, index):
    data = bytearray(decode_base64url(text, what="field"))
    data[index] ^= 1
    return encode_base64url(bytes(data))


def refuses(key, stanza, context=CONTEXT):
    """Check that nothing opens, and return all that the error shows."""
    with pytest.raises((DecryptionFailed, InvalidInput)) as caught:
        key.unwrap(stanza, context)
    error = caught.value
    return f"{error.what} {error.why} {error.next_step} {error!r} {error.__cause__!r}"


def test_round_trip(name, key, sender):
    stanza = sender.wrap(ROOT, CONTEXT)
    assert (stanza.type, stanza.not_after) == (TYPES[name], CONTEXT.not_after)
    again = Stanza.from_json(json.loads(json.dumps(stanza.to_json())))
    assert again == stanza
    assert key.unwrap(again, CONTEXT) == ROOT
    assert key.describe().names(stanza)
    assert key.unwrap(key.wrap(ROOT, CONTEXT), CONTEXT) == ROOT


def test_another_key_does_not_open(kind, key, save):
    other = load(save(kind.make()))
    stanza = key.wrap(ROOT, CONTEXT)
    assert other.describe().key_id is None or not other.describe().names(stanza)
    refuses(other, stanza)
    refuses(key, other.wrap(ROOT, CONTEXT))


def test_each_part_of_the_context_is_bound(key):
    stanza = key.wrap(ROOT, CONTEXT)
    bundle, manifest, end = CONTEXT.bundle_id, CONTEXT.manifest_sha256, CONTEXT.not_after
    for other in (
        WrapContext(bytes(31) + b"\x01", manifest, end),
        WrapContext(bundle, bytes(32), end),
        WrapContext(bundle, manifest, "2031-01-01T00:00:00Z"),
        WrapContext(bundle, manifest, None),
    ):
        refuses(key, stanza, other)
    refuses(key, Stanza(stanza.type, stanza.key_id[:-1] + "!", stanza.not_after, stanza.fields))
    for other_type in {*TYPES.values(), "quorum-share"} - {stanza.type}:
        refuses(key, Stanza(other_type, stanza.key_id, stanza.not_after, stanza.fields))


def test_damaged_stanzas_do_not_open(kind, key):
    stanza = key.wrap(ROOT, CONTEXT)
    text = stanza.fields["ct"]
    size = len(decode_base64url(text, what="ct"))
    for index in (kind.sound_from, (kind.sound_from + size) // 2, size - 1):
        damaged = with_field(stanza, "ct", flipped(text, index))
        if kind.sound_from:
            assert key.unwrap(damaged, CONTEXT) != ROOT  # which the root commitment then refuses
        else:
            refuses(key, damaged)
    data = decode_base64url(text, what="ct")
    for wrong in (data[:-1], data + b"\x00", data[: size // 2], b""):
        refuses(key, with_field(stanza, "ct", encode_base64url(wrong)))
    for wrong in ("+" * len(text), "A", 5):
        refuses(key, with_field(stanza, "ct", wrong))
    for field in set(stanza.fields) - {"ct"}:
        value = stanza.fields[field]
        refuses(key, with_field(stanza, field, f"{value}x" if isinstance(value, str) else value + 99))
        refuses(key, Stanza(stanza.type, stanza.key_id, None, {k: v for k, v in stanza.fields.items() if k != field}))
    refuses(key, with_field(stanza, "more", "x"))


def test_two_wraps_share_no_ciphertext(key):
    first, second = (key.wrap(ROOT, CONTEXT) for _ in range(2))
    for field in {"ct", "nonce", "salt"} & set(first.fields):
        assert first.fields[field] != second.fields[field]


def test_only_32_bytes_are_wrapped(sender):
    for wrong in (b"", ROOT[:-1], ROOT + b"\x00"):
        with pytest.raises(InvalidInput, match="root key"):
            sender.wrap(wrong, CONTEXT)


def test_no_secret_is_shown(kind, save):
    text = kind.make()
    key = load(save(text))
    stanza = key.wrap(ROOT, CONTEXT)
    shown = [repr(key), str(key), repr(key.describe()), repr(stanza), json.dumps(stanza.to_json())]
    shown += [
        refuses(key, stanza, WrapContext(bytes(32), bytes(32), None)),
        refuses(key, with_field(stanza, "ct", "A")),
    ]
    secrets = kind.secrets(text)
    assert secrets
    for secret in [*secrets, ROOT.hex(), repr(ROOT)[2:-1], encode_base64url(ROOT)]:
        assert not [line for line in shown if secret in line]


def test_eight_threads_at_once(key):
    stanza, results = key.wrap(ROOT, CONTEXT), []

    def unwrap():
        results.append(key.unwrap(stanza, CONTEXT))

    threads = [threading.Thread(target=unwrap) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ROOT] * 8


def test_a_file_that_others_may_read_is_refused(kind, save):
    path = save(kind.make())
    for mode in (0o640, 0o604, 0o622):
        path.chmod(mode)
        with pytest.raises(InvalidInput, match="others may read"):
            load_identity(path)


def test_a_missing_part_is_named(name, kind, save, monkeypatch):
    needs = {"age": ("pyrage", "age"), "pkcs11": ("pkcs11", "pkcs11"), "aws": ("boto3", "aws")}
    path = save(kind.make())
    if name not in needs:
        load(path)
        return
    module, extra = needs[name]
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        load_identity(path)
    assert caught.value.extra == extra


@pytest.mark.parametrize("name", ["pkcs11", "aws"], indirect=True)
def test_a_destroyed_key_opens_nothing(name, kind, key, save):
    assert isinstance(key, DestroyableKey)
    stanza, beside = key.wrap(ROOT, CONTEXT), load(save(kind.make()))
    kept = beside.wrap(ROOT, CONTEXT)
    gone = key.destroy()
    assert (gone.type, gone.key_id, gone.recipient) == (TYPES[name], stanza.key_id, key.describe().recipient)
    for act in (lambda: key.unwrap(stanza, CONTEXT), lambda: key.wrap(ROOT, CONTEXT)):
        with pytest.raises(KeyDestroyed):
            act()
    assert beside.unwrap(kept, CONTEXT) == ROOT
    states = (gone.state, key.destroy().state)
    assert states == {"pkcs11": ("destroyed", "absent"), "aws": ("scheduled", "scheduled")}[name]
    days = (gone.gone_at.timestamp() - time.time()) / 86400
    assert days == pytest.approx({"pkcs11": 0, "aws": 7}[name], abs=0.01)


@pytest.mark.parametrize("name", ["x25519", "hybrid", "passphrase", "age"], indirect=True)
def test_other_keys_cannot_be_destroyed(key):
    assert not isinstance(key, DestroyableKey)


# --- age ---


@pytest.mark.parametrize("name", ["age"], indirect=True)
def test_age_itself_opens_ours_and_we_open_its(key, kind, save):
    path = save(kind.make())
    key = load_identity(path)
    stanza = key.wrap(ROOT, CONTEXT)
    file = decode_base64url(stanza.fields["ct"], what="ct")
    plain = subprocess.run(["age", "-d", "-i", path], input=file, check=True, capture_output=True).stdout
    assert plain[-32:] == ROOT
    assert len(plain) == 72
    made = subprocess.run(["age", "-r", key.describe().recipient], input=plain, check=True, capture_output=True).stdout
    assert key.unwrap(with_field(stanza, "ct", encode_base64url(made)), CONTEXT) == ROOT
    for wrong in (plain[:-1], plain[:4] + bytes(32) + plain[36:], ROOT):
        made = subprocess.run(["age", "-r", key.describe().recipient], input=wrong, check=True, capture_output=True)
        refuses(key, with_field(stanza, "ct", encode_base64url(made.stdout)))


@pytest.fixture(scope="module")
def age_key():
    age = pytest.importorskip("pyrage", reason="pyrage is not installed")
    from stanch.crypto.providers.age import AgeIdentity  # noqa: PLC0415 - after the check that it can be used

    return AgeIdentity(str(age.x25519.Identity.generate()))


def test_an_age_file_has_4096_bytes_at_most(age_key):
    stanza = age_key.wrap(ROOT, CONTEXT)
    with pytest.raises(DecryptionFailed):
        age_key.unwrap(with_field(stanza, "ct", encode_base64url(bytes(4096))), CONTEXT)
    with pytest.raises(InvalidInput, match="at most 4096 bytes, found 4097"):
        age_key.unwrap(with_field(stanza, "ct", encode_base64url(bytes(4097))), CONTEXT)


def test_an_age_recipient_opens_nothing_and_both_halves_show_its_id_alone(age_key):
    recipient = age_key.recipient
    with pytest.raises(KeyUnavailable):
        recipient.unwrap(recipient.wrap(ROOT, CONTEXT), CONTEXT)
    assert repr(recipient) == f"AgeRecipient({recipient.key_id})"
    assert repr(age_key) == f"AgeIdentity({recipient.key_id})"


def test_age_texts_that_are_no_unicode_are_refused(age_key):
    for make in (type(age_key), type(age_key.recipient)):
        with pytest.raises(InvalidInput, match="expected"):
            make("age1\udc80")


@pytest.mark.parametrize("name", ["age"], indirect=True)
def test_malformed_age_keys_are_refused_without_being_quoted(kind, save):
    good = kind.make()
    secret = good.splitlines()[-1]
    load(save(f"# comment\n\n{secret}\n\n"))
    for text in (good + secret, secret[:-1], secret + "A", f"# only a comment\n{secret.lower()}", "# nothing"):
        with pytest.raises(InvalidInput) as caught:
            load_identity(save(text))
        assert secret[20:40].lower() not in f"{caught.value.what}{caught.value.why}".lower()
    with pytest.raises(InvalidInput):
        parse_recipient("age1" + "q" * 58)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_age_refuses_any_other_bytes(age_key, data):  # one key for all examples
    stanza = age_key.wrap(ROOT, CONTEXT)
    head = decode_base64url(stanza.fields["ct"], what="ct")[:22]
    for wrong in (data, head + data):
        refuses(age_key, with_field(stanza, "ct", encode_base64url(wrong)))


# --- PKCS#11 ---


def test_a_token_that_is_not_there_is_said(softhsm, tmp_path):
    uri = softhsm.key()
    for wrong in (
        uri.replace("token=stanch-test", "token=elsewhere"),
        uri.replace("libsofthsm2", "nothing"),
        uri.replace(f"module-path={pkcs11.Pkcs11Uri.parse(uri).module}&", ""),
        uri.partition("&")[0],
    ):
        with pytest.raises(KeyUnavailable):
            parse_recipient(wrong).wrap(ROOT, CONTEXT)
    wrong_pin = tmp_path / "pin"
    wrong_pin.touch(0o600)
    wrong_pin.write_text("marker-wrong-pin")
    with pytest.raises(KeyUnavailable, match="refused") as caught:
        parse_recipient(uri.replace(str(softhsm.pin_file), str(wrong_pin))).wrap(ROOT, CONTEXT)
    assert caught.value.why == "PinIncorrect"
    parse_recipient(uri).wrap(ROOT, CONTEXT)


def test_a_token_that_does_not_answer_is_not_waited_for(softhsm, monkeypatch):
    key = parse_recipient(softhsm.key())
    monkeypatch.setattr(pkcs11, "_SECONDS", 0.2)
    known = set(threading.enumerate())
    with pkcs11._ONE_AT_A_TIME:
        began = time.monotonic()
        with pytest.raises(KeyUnavailable, match="did not answer"):
            key.wrap(ROOT, CONTEXT)
        assert time.monotonic() - began < 5
    for thread in set(threading.enumerate()) - known:
        assert thread.daemon  # nor is it waited for when the program ends
        thread.join()


def test_a_token_is_known_by_everything_that_the_uri_says_of_it(softhsm):
    uri = softhsm.key()
    with softhsm.open() as session:
        token = session.token
    for name, value in (("manufacturer", token.manufacturer_id), ("serial", token.serial), ("model", token.model)):
        named = uri.replace("pkcs11:", f"pkcs11:{name}={quote(value, safe='')};")
        parse_recipient(named).wrap(ROOT, CONTEXT)
        with pytest.raises(KeyUnavailable, match="expected one such token, found 0"):
            parse_recipient(named.replace(f"{name}=", f"{name}=x")).wrap(ROOT, CONTEXT)


def test_a_key_may_be_named_by_its_id(softhsm):
    import pkcs11 as library  # noqa: PLC0415 - a part that may be missing

    attribute = library.Attribute
    with softhsm.open() as session:
        for number in (b"\x01", b"\x02"):
            kept = {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False}
            session.generate_key(library.KeyType.AES, 256, id=number, label="same", store=True, template=kept)
    first, second = (parse_recipient(softhsm.uri("same").replace("?", f";id=%{number}?")) for number in ("01", "02"))
    assert first.unwrap(first.wrap(ROOT, CONTEXT), CONTEXT) == ROOT
    assert second.destroy().state == "destroyed"
    with pytest.raises(KeyDestroyed):
        second.wrap(ROOT, CONTEXT)
    first.wrap(ROOT, CONTEXT)


def test_only_destroying_asks_a_token_to_be_written_to(softhsm, monkeypatch):
    key, asked = pkcs11.Pkcs11Key(softhsm.key()), []
    act = key._in_session
    monkeypatch.setattr(key, "_in_session", lambda what, rw: asked.append(rw) or act(what, rw=rw))
    key.unwrap(key.wrap(ROOT, CONTEXT), CONTEXT)
    key.destroy()
    assert asked == [False, False, True]


def test_a_reader_without_a_card_is_passed_over(softhsm, monkeypatch):
    import pkcs11 as library  # noqa: PLC0415 - a part that may be missing

    class Empty:
        def get_token(self):
            raise library.TokenNotPresent

    class Module:
        def __init__(self, path):
            self.module = real(path)

        def get_slots(self, *, token_present):
            return self.module.get_slots(token_present=True) + ([] if token_present else [Empty()])

    key, real = parse_recipient(softhsm.key()), library.lib
    monkeypatch.setattr(library, "lib", Module)
    assert key.unwrap(key.wrap(ROOT, CONTEXT), CONTEXT) == ROOT


def test_a_token_that_is_lost_is_no_wrong_key(softhsm, monkeypatch):
    from pkcs11 import exceptions  # noqa: PLC0415 - a part that may be missing

    class Key:
        def decrypt(self, *_, **__):
            raise self.error

    key, fake = pkcs11.Pkcs11Key(softhsm.key()), Key()
    stanza = key.wrap(ROOT, CONTEXT)
    monkeypatch.setattr(key, "_key", lambda _: fake)
    for error, told in (
        (exceptions.DeviceRemoved, KeyUnavailable),
        (exceptions.EncryptedDataInvalid, DecryptionFailed),
    ):
        fake.error = error
        with pytest.raises(told):
            key.unwrap(stanza, CONTEXT)


def test_a_pkcs11_keys_id_follows_from_its_text():
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    key, text = pkcs11.Pkcs11Key("pkcs11:object=b;token=a"), b"pkcs11:token=a;object=b"
    assert key.key_id == key_id("pkcs11", text)
    assert repr(key) == f"Pkcs11Key({text.decode()})"


def test_a_secret_that_is_no_aes_key_is_refused(softhsm):
    import pkcs11 as library  # noqa: PLC0415 - a part that may be missing

    attribute = library.Attribute
    with softhsm.open() as session:
        session.create_object(
            {
                attribute.CLASS: library.ObjectClass.SECRET_KEY, attribute.KEY_TYPE: library.KeyType.GENERIC_SECRET,
                attribute.VALUE: bytes(32), attribute.LABEL: "generic", attribute.TOKEN: True,
                attribute.SENSITIVE: True, attribute.EXTRACTABLE: False,
            }
        )  # fmt: skip
    with pytest.raises(InvalidInput, match="expected an AES-256 key"):
        parse_recipient(softhsm.uri("generic")).wrap(ROOT, CONTEXT)


@pytest.mark.parametrize("size", [31, 33])
def test_what_a_token_returns_has_its_length(size, monkeypatch):
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    key = pkcs11.Pkcs11Key("pkcs11:token=a;object=b")
    monkeypatch.setattr(key, "_on_token", lambda _act: bytes(48))
    stanza = key.wrap(ROOT, CONTEXT)
    monkeypatch.setattr(key, "_on_token", lambda _act: bytes(size))
    with pytest.raises(KeyUnavailable, match="ciphertext of a wrong length"):
        key.wrap(ROOT, CONTEXT)
    with pytest.raises(DecryptionFailed):
        key.unwrap(stanza, CONTEXT)


def test_a_pin_is_text_in_a_file_of_its_own(save, monkeypatch):
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    for variable in (pkcs11.MODULE_VARIABLE, pkcs11.PIN_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    path, uri = save("1234"), "pkcs11:token=a;object=b"
    with pytest.raises(KeyUnavailable, match="the PIN's file is not named"):
        pkcs11.Pkcs11Key(uri).wrap(ROOT, CONTEXT)
    with pytest.raises(KeyUnavailable, match="module is not named"):
        pkcs11.Pkcs11Key(f"{uri}?pin-source=file:{path}").wrap(ROOT, CONTEXT)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="a PIN is UTF-8 text"):
        pkcs11.Pkcs11Key(f"{uri}?pin-source=file:{path}").wrap(ROOT, CONTEXT)


def test_a_key_that_could_leave_the_token_is_refused(softhsm):
    for template in ({"EXTRACTABLE": True}, {"SENSITIVE": False}, {"bits": 128}):
        with pytest.raises(InvalidInput, match="cannot be extracted"):
            parse_recipient(softhsm.key(**template)).wrap(ROOT, CONTEXT)


def test_a_program_that_is_logged_in_itself_stays_so(softhsm):
    key = parse_recipient(softhsm.key())
    with softhsm.open():
        stanza = key.wrap(ROOT, CONTEXT)
    assert key.unwrap(stanza, CONTEXT) == ROOT


def test_two_keys_of_one_name_are_refused(softhsm):
    uri = softhsm.key()
    label = pkcs11.Pkcs11Uri.parse(uri).key["object"].decode()
    import pkcs11 as library  # noqa: PLC0415 - a part that may be missing

    with softhsm.open() as session:
        session.generate_key(library.KeyType.AES, 256, label=label, store=True)
    with pytest.raises(InvalidInput, match="names 2 keys"):
        parse_recipient(uri).wrap(ROOT, CONTEXT)


# --- the texts ---


@pytest.mark.parametrize(
    "text", ["", "nobody", "stanch1-rsa-AA", "stanch1-", "ssh-ed25519 AAAA", "passphrase", "PKCS11:x"]
)
def test_other_texts_are_no_recipients(text):
    with pytest.raises(InvalidInput):
        parse_recipient(text)


def test_a_passphrase_without_a_file_is_asked_for(save):
    for text in ("passphrase:", "passphrase:/etc/hostname"):
        with pytest.raises(InvalidInput, match="no recipient here"):
            parse_recipient(text)
    key = load_identity(save("passphrase:\n"), passphrase=lambda: Passphrase("asked"))
    assert key.unwrap(Passphrase("asked").wrap(ROOT, CONTEXT), CONTEXT) == ROOT


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(["stanch1-x25519-", "age1", "pkcs11:token=", "arn:aws:kms:"]).flatmap(
            lambda head: st.text(max_size=60).map(lambda tail: head + tail)
        ),
    )
)
def test_any_text_is_read_or_refused(text):
    if not text.startswith("passphrase:"):
        with contextlib.suppress(InvalidInput):
            assert parse_recipient(text).describe().recipient


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120))
def test_any_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed-identity"
    path.touch(0o600)
    path.write_bytes(data)
    with pytest.raises((InvalidInput, DecryptionFailed)):
        load_identity(path)


def test_identities_of_our_own_are_told_apart(save, tmp_path):
    for kind in ("x25519", "hybrid"):
        text = _own(kind, tmp_path)
        key = load_identity(save(text))
        assert isinstance(key, Identity)
        assert key.recipient.kind == kind
