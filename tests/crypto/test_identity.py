import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto.frame import frame
from stanch.crypto.hashes import sha256
from stanch.crypto.hpke import hpke_encrypt
from stanch.crypto.identity import Identity, generate_identity, load_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.recipient import Recipient, parse_recipient
from stanch.crypto.stanza import BoundContext, KeyUnavailable, Stanza, WrapContext, decode_base64url, encode_base64url
from stanch.errors import DecryptionFailed, InvalidInput

CONTEXT = WrapContext(bytes(32), bytes(range(32)), "2030-01-01T00:00:00Z")
ROOT = bytes(range(100, 132))


@pytest.fixture(params=["x25519", "hybrid"])
def kind(request):
    return request.param


@pytest.fixture
def identity(kind):
    return generate_identity(kind, rng=lambda count: bytes(range(count)))


@given(st.binary(max_size=40))
def test_base64url_is_one_to_one(data):
    assert decode_base64url(encode_base64url(data), what="x") == data


@pytest.mark.parametrize("text", ["A", "AB==", "A+", "A/", "AB\n", "AAB", " AA", "é"])
def test_other_base64_is_refused(text):
    with pytest.raises(InvalidInput):
        decode_base64url(text, what="x")


def test_recipient_text_round_trips(identity, kind):
    text = str(identity.recipient)
    assert text.startswith(f"stanch1-{kind}-")
    assert parse_recipient(text) == identity.recipient
    assert parse_recipient(text).key_id.startswith(f"{kind}:")
    assert len(parse_recipient(text).key_id) == len(f"{kind}:") + 32
    assert identity.recipient not in [text, generate_identity(kind).recipient]
    assert {identity.recipient, parse_recipient(text)} == {identity.recipient}


def test_every_wrong_character_of_a_recipient_is_noticed():
    identity = generate_identity(rng=lambda count: bytes(range(count)))
    text = str(identity.recipient)
    for index in range(len(text)):
        for replacement in "Aa0-_+ ":
            if text[index] != replacement:
                with pytest.raises(InvalidInput):
                    parse_recipient(text[:index] + replacement + text[index + 1 :])
    for wrong in ("", text[:-1], text + "A", text.upper(), "age1xyz", text.replace("x25519", "hybrid")):
        with pytest.raises(InvalidInput):
            parse_recipient(wrong)


def test_a_recipient_of_another_length_is_refused_though_its_checksum_fits():
    for public in (b"", bytes(31), bytes(33)):
        text = encode_base64url(public + sha256(b"x25519", public)[:4])
        with pytest.raises(InvalidInput, match="expected 32 bytes"):
            parse_recipient(f"stanch1-x25519-{text}")


def test_wrap_and_unwrap(identity, kind):
    stanza = identity.recipient.wrap(ROOT, CONTEXT)
    type_, size = {"x25519": ("hpke-x25519", 80), "hybrid": ("hpke-mlkem768-x25519", 1168)}[kind]
    assert (stanza.type, stanza.key_id, stanza.not_after) == (type_, identity.recipient.key_id, CONTEXT.not_after)
    assert len(decode_base64url(stanza.fields["ct"], what="ct")) == size
    assert identity.unwrap(stanza, CONTEXT) == ROOT
    assert identity.unwrap(Stanza.from_json(json.loads(json.dumps(stanza.to_json()))), CONTEXT) == ROOT
    assert identity.describe().names(stanza)
    assert not generate_identity().describe().names(stanza)
    assert not identity.describe().names(Stanza("quorum-share", stanza.key_id, stanza.not_after, stanza.fields))


def test_each_part_of_the_context_is_bound(identity):
    stanza = identity.wrap(ROOT, CONTEXT)
    others = [
        WrapContext(bytes(31) + b"\x01", CONTEXT.manifest_sha256, CONTEXT.not_after),
        WrapContext(CONTEXT.bundle_id, bytes(32), CONTEXT.not_after),
        WrapContext(CONTEXT.bundle_id, CONTEXT.manifest_sha256, "2031-01-01T00:00:00Z"),
        WrapContext(CONTEXT.bundle_id, CONTEXT.manifest_sha256, None),
    ]
    for other in others:
        with pytest.raises(DecryptionFailed):
            identity.unwrap(stanza, other)
    renamed = Stanza(stanza.type, identity.recipient.kind + ":" + "0" * 32, stanza.not_after, stanza.fields)
    with pytest.raises(DecryptionFailed):
        identity.unwrap(renamed, CONTEXT)
    info = CONTEXT.info("other-type", stanza.key_id)
    retyped = hpke_encrypt(identity.recipient.public, ROOT, info=info, kind=identity.recipient.kind)
    with pytest.raises(DecryptionFailed):
        identity.unwrap(
            Stanza(stanza.type, stanza.key_id, stanza.not_after, {"ct": encode_base64url(retyped)}), CONTEXT
        )


def test_another_identity_and_a_public_key_do_not_open(identity, kind):
    stanza = identity.wrap(ROOT, CONTEXT)
    with pytest.raises(DecryptionFailed):
        generate_identity(kind).unwrap(stanza, CONTEXT)
    with pytest.raises(KeyUnavailable):
        identity.recipient.unwrap(stanza, CONTEXT)


@pytest.mark.parametrize(
    ("stanza_type", "fields"),
    [
        ("passphrase", {"ct": "AA"}),
        ("hpke-x25519", {}),
        ("hpke-x25519", {"ct": "AA"}),
        ("hpke-x25519", {"ct": 5}),
        ("hpke-x25519", {"ct": "A" * 107, "more": "x"}),
        ("hpke-x25519", {"ct": "+" * 107}),
        ("hpke-mlkem768-x25519", {"ct": "A" * 107}),
    ],
)
def test_malformed_stanzas_are_refused(identity, stanza_type, fields):
    with pytest.raises(InvalidInput):
        identity.unwrap(Stanza(stanza_type, identity.recipient.key_id, None, fields), CONTEXT)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"type": "x", "key_id": "k"},
        {"type": "X", "key_id": "k", "not_after": None},
        {"type": "x", "key_id": "", "not_after": None},
        {"type": "x", "key_id": "k k", "not_after": None},
        {"type": "x", "key_id": 5, "not_after": None},
        {"type": 5, "key_id": "k", "not_after": None},
        {"type": "x", "not_after": None},
        {"type": "x", "key_id": "k", "not_after": 5},
        {"type": "x", "key_id": "k", "not_after": None, "Field": "v"},
        {"type": "x", "key_id": "k", "not_after": None, "field": True},
        {"type": "x", "key_id": "k", "not_after": None, "field": ["v"]},
        {"type": "x", "key_id": "k", "not_after": None, "field": "v" * 8193},
        {"type": "x", "key_id": "k", "not_after": None} | {f"f{chr(97 + n)}": "v" for n in range(17)},
    ],
)
def test_stanzas_of_another_form_are_refused(value):
    with pytest.raises(InvalidInput):
        Stanza.from_json(value)


WIDEST = {"type": "x" * 40, "key_id": "k" * 200, "not_after": None, "f" * 32: "v" * 8192}


def test_a_stanza_has_its_widest_form():
    value = WIDEST | {f"f_{chr(97 + n)}": n for n in range(15)}
    assert Stanza.from_json(value).to_json() == value
    for change in ({"type": "x" * 41}, {"key_id": "k" * 201}, {"f" * 33: "v"}, {"field": "v" * 8193}):
        with pytest.raises(InvalidInput):
            Stanza.from_json(WIDEST | change)
    with pytest.raises(InvalidInput):
        Stanza.from_json(value | {"one_more": 1})
    with pytest.raises(InvalidInput):
        Stanza.from_json({name: item for name, item in WIDEST.items() if name != "not_after"})


def test_a_context_without_an_end_says_so_with_no_bytes():
    # docs/spec/sealed-bundle.md: INFO.
    ends = {None: b"", "2030-01-01T00:00:00Z": b"2030-01-01T00:00:00Z"}
    for not_after, end in ends.items():
        info = WrapContext(b"b" * 32, b"m" * 32, not_after).info("t", "k")
        assert info == frame(b"stanch/seal/v1/wrap", b"b" * 32, b"m" * 32, b"t", b"k", end)


def test_a_bound_context_opens_with_its_purpose_and_values_only(identity):
    def bound(label=b"purpose", values=(b"a", b"b"), plain=CONTEXT):
        return BoundContext(plain.bundle_id, plain.manifest_sha256, plain.not_after, label, values)

    stanza = identity.wrap(ROOT, bound())
    assert identity.unwrap(stanza, bound()) == ROOT
    later = WrapContext(CONTEXT.bundle_id, CONTEXT.manifest_sha256, None)
    for other in (bound(b"other"), bound(values=(b"ab",)), bound(values=(b"a",)), bound(plain=later), CONTEXT):
        with pytest.raises(DecryptionFailed):
            identity.unwrap(stanza, other)
    assert bound().info("t", "k") == frame(b"purpose", b"a", b"b", CONTEXT.info("t", "k"))


def test_roots_and_keys_of_other_lengths_are_refused(identity):
    with pytest.raises(InvalidInput):
        identity.wrap(ROOT[:-1], CONTEXT)
    with pytest.raises(InvalidInput):
        Identity(bytes(31))
    with pytest.raises(InvalidInput):
        Recipient("x25519", bytes(33))
    with pytest.raises(InvalidInput):
        generate_identity("rsa")


def test_identity_file_round_trips(tmp_path, kind):
    path, identity = tmp_path / "id", generate_identity(kind)
    identity.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes()).keys() == {"format", "kind", "public", "secret"}
    assert Identity.load(path).unwrap(identity.wrap(ROOT, CONTEXT), CONTEXT) == ROOT
    with pytest.raises(InvalidInput, match="exists"):
        identity.save(path)


def test_readable_by_others_is_refused(tmp_path):
    path = tmp_path / "id"
    generate_identity().save(path)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(InvalidInput, match="others may read"):
            Identity.load(path)


def test_locked_identity_opens_with_its_passphrase_only(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (64, 1 << 20), "p": (1, 16)})
    path, identity = tmp_path / "id", generate_identity(kind)
    identity.save(path, passphrase=Passphrase("correct horse"))
    assert b"secret" not in path.read_bytes()
    loaded = Identity.load(path, passphrase=lambda: Passphrase("correct horse"))
    assert loaded.recipient == identity.recipient
    with pytest.raises(DecryptionFailed):
        Identity.load(path, passphrase=lambda: Passphrase("wrong"))
    with pytest.raises(InvalidInput, match="locked"):
        Identity.load(path)
    document = json.loads(path.read_bytes())
    document["public"] = str(generate_identity().recipient)
    os.truncate(path, 0)
    path.write_text(json.dumps(document))
    with pytest.raises(DecryptionFailed):
        Identity.load(path, passphrase=lambda: Passphrase("correct horse"))


def test_a_lock_is_bound_to_the_kind_and_the_public_key(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (64, 1 << 20), "p": (1, 16)})
    # docs/spec/sealed-bundle.md: the associated data of the lock.
    bound, lock = [], Passphrase.lock
    monkeypatch.setattr(Passphrase, "lock", lambda self, secret, aad: bound.append(aad) or lock(self, secret, aad=aad))
    identity = generate_identity(kind)
    identity.save(tmp_path / "id", passphrase=Passphrase("x"))
    assert bound == [frame(b"stanch/identity/v1/lock", kind.encode(), str(identity.recipient).encode())]


def test_damaged_identity_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (64, 1 << 20), "p": (1, 16)})
    identity, other = generate_identity(), generate_identity()
    identity.save(tmp_path / "good")
    good = json.loads((tmp_path / "good").read_bytes())
    locked = Passphrase("x").lock(bytes(32), aad=b"")
    wrong = [
        [],
        good | {"format": "stanch/identity/v2"},
        good | {"kind": "rsa"},
        good | {"kind": "hybrid"},
        good | {"secret": good["secret"][:-1]},
        good | {"secret": "A"},
        good | {"secret": 5},
        good | {"public": str(other.recipient)},
        good | {"locked": {}},
        {key: value for key, value in good.items() if key != "secret"},
        {key: value for key, value in good.items() if key != "secret"} | {"locked": {"t": [1]}},
        {key: value for key, value in good.items() if key != "secret"} | {"locked": locked | {"more": [1]}},
        {key: value for key, value in good.items() if key != "secret"} | {"locked": locked | {"ct": [1]}},
    ]
    for number, document in enumerate(wrong):
        path = tmp_path / str(number)
        path.touch(0o600)
        path.write_text(json.dumps(document))
        with pytest.raises(InvalidInput):
            Identity.load(path, passphrase=lambda: Passphrase("x"))


AGE = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        ("age1x", "pyrage", "expected age1"), ("pkcs11:x", "pkcs11", r"PKCS#11 URI"), ("arn:x", "boto3", "KMS key"),
        ("passphrase:", None, "no recipient here"), ("stanch1-rsa-AA", None, "expected stanch1-x25519"),
        ("nobody", None, "expected stanch1-…, age1…"),
    ],
)  # fmt: skip
def test_each_text_is_refused_by_the_part_that_reads_it(text, part, words):
    if part:
        pytest.importorskip(part, reason=f"{part} is not installed")
    with pytest.raises(InvalidInput, match=words):
        parse_recipient(text)


@pytest.mark.parametrize(
    ("data", "part", "shown"),
    [
        (f"{AGE}\n", "pyrage", "age1"), (f"# a comment\n\n {AGE}", "pyrage", "age1"),
        ("pkcs11:token=a;object=b\n", "pkcs11", "pkcs11:token=a;object=b"), ("passphrase:\n", None, "passphrase:"),
    ],
)  # fmt: skip
def test_a_file_that_names_a_key_kept_elsewhere_is_known_by_its_content(tmp_path, data, part, shown):
    if part:
        pytest.importorskip(part, reason=f"{part} is not installed")
    (tmp_path / "id").touch(0o600)
    (tmp_path / "id").write_text(data)
    assert load_identity(tmp_path / "id", passphrase=lambda: Passphrase("x")).describe().recipient.startswith(shown)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"arn", b"pkcs11:token=a;object=b\nmore", b"passphrase:\nmore", b"stanch1-x25519-AA"]
)
def test_a_file_of_anything_else_opens_nothing(tmp_path, data):
    (tmp_path / "id").touch(0o600)
    (tmp_path / "id").write_bytes(data)
    with pytest.raises(InvalidInput, match="id: expected an identity file of stanch or age"):
        load_identity(tmp_path / "id", passphrase=lambda: Passphrase("x"))


def test_a_file_that_names_a_key_of_kms_is_read_as_its_name(tmp_path):
    pytest.importorskip("boto3", reason="boto3 is not installed")
    (tmp_path / "id").touch(0o600)
    (tmp_path / "id").write_text("arn:aws:kms:x")
    with pytest.raises(InvalidInput, match="KMS key: expected"):
        load_identity(tmp_path / "id")


def test_a_passphrase_is_read_from_the_file_that_the_text_names(tmp_path):
    (tmp_path / "words").touch(0o600)
    (tmp_path / "words").write_text("from a file")
    key = parse_recipient(f"passphrase:{tmp_path / 'words'}", passphrase=lambda: pytest.fail("asked"))
    assert key._secret.reveal() == "from a file"
    assert parse_recipient("passphrase:", passphrase=lambda: Passphrase("asked"))._secret.reveal() == "asked"


def test_nothing_secret_is_printed(tmp_path):
    secret = bytes(range(50, 82))
    identity = Identity(secret)
    shown = [repr(identity), str(identity.recipient), repr(identity.recipient), repr(identity.describe())]
    assert shown[0] == f"Identity({identity.recipient.key_id})"
    assert shown[2] == f"Recipient({identity.recipient.key_id})"
    stanza = identity.wrap(ROOT, CONTEXT)
    shown += [repr(stanza), repr(Passphrase("marker-passphrase"))]
    assert stanza.fields["ct"] not in repr(stanza)  # a wrapped key belongs into its file, not into a log
    path = tmp_path / "id"
    identity.save(path)
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"public": "stanch1-x25519-nonsense"}))
    with pytest.raises(InvalidInput) as caught:
        Identity.load(path)
    shown.append(f"{caught.value} {caught.value.why} {caught.value.next_step}")
    for text in shown:
        assert encode_base64url(secret) not in text
        assert secret.hex() not in text
        assert repr(secret) not in text
        assert "marker-passphrase" not in text
