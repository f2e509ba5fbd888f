"""Targets of the ground: crypto, config, ledger, access, weights."""

import functools
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from fuzz_harness import Counting, QuickPassphrase, Target, as_file, bytes_of, corpus, scratch, text_of

from stanch.config.load import load_config
from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.certificate import CertificateAuthority
from stanch.crypto.floe import HEADER_SIZE, SEGMENT_OVERHEAD, Floe
from stanch.crypto.identity import Identity, generate_identity, load_identity
from stanch.crypto.localkey import load_local_key, save_local_key
from stanch.crypto.merkle import (
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    verify_consistency,
    verify_inclusion,
)
from stanch.crypto.providers.pkcs11_uri import Pkcs11Uri
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.signing import SigningKey, VerifyKey
from stanch.crypto.siv import decrypt_siv, encrypt_siv
from stanch.crypto.stanza import Stanza, WrapContext
from stanch.errors import (
    DecryptionFailed,
    InvalidInput,
    NoTrustedSignature,
    ProofInvalid,
)
from stanch.store.http import check_url
from stanch.store.postgresql import Address
from stanch.terms import Digest
from stanch.weights.adapter import open_adapter
from stanch.weights.header import build_head, read_head
from stanch.weights.model import open_model
from stanch.weights.tensors import Tensor, open_tensors, write_safetensors

KEY = bytes(range(32))
SIGNER = SigningKey.from_seed(KEY)
CONTEXT = WrapContext(bytes(32), bytes(range(32)), "2027-01-01T00:00:00Z")
LEAVES = [bytes([number]) * 3 for number in range(7)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
PLAIN = b"the quick brown fox " * 10
SEGMENT = 64


def _identity() -> Identity:
    return generate_identity(rng=Counting("identity"))


# crypto


def _read_json(data: bytes) -> object:
    value = parse_json(data, what="input")
    assert parse_json(canonical_json(value), what="again") == value
    return value


def _make_json() -> Iterable[bytes]:
    yield b'{"a":[1,-2.5e3,"\\u00e9",null,true],"b":{"c":{}}}'
    yield canonical_json({"x": [0.1, 1e300, 9007199254740991]})


AGE = b"# created: 2026\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n"


def _read_recipient(data: bytes) -> object:
    return parse_recipient(text_of(data)).describe()


def _make_recipients() -> Iterable[bytes]:
    yield str(_identity().recipient).encode()
    yield str(generate_identity("hybrid", rng=Counting("hybrid")).recipient).encode()
    yield b"pkcs11:token=box;object=key?module-path=/usr/lib/softhsm.so&pin-source=file:/run/pin"
    yield b"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    yield b"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def _read_identity(data: bytes) -> object:
    return repr(Identity.parse(data, what="identity", passphrase=lambda: QuickPassphrase("open")))


def _make_identities() -> Iterable[bytes]:
    for name, passphrase in (("plain", None), ("locked", QuickPassphrase("open", rng=Counting("lock")))):
        path = as_file(b"", name)
        path.unlink()
        _identity().save(path, passphrase=passphrase)
        yield path.read_bytes()


def _make_local_keys() -> Iterable[bytes]:
    for name, passphrase in (("plain", None), ("locked", QuickPassphrase("open", rng=Counting("lock")))):
        path = as_file(b"", name)
        path.unlink()
        save_local_key(path, SIGNER, passphrase=passphrase)
        yield path.read_bytes()


def _read_local_key(data: bytes) -> object:
    return repr(load_local_key(as_file(data), passphrase=lambda: QuickPassphrase("open")).key)


def _make_signing_keys() -> Iterable[bytes]:
    path = as_file(b"", "signing.pem")
    path.unlink()
    SIGNER.save(path)
    yield path.read_bytes()
    key = ec.derive_private_key(12_345, ec.SECP256R1())
    yield key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _make_verify_keys() -> Iterable[bytes]:
    yield SIGNER.public.to_pem()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        yield ec.derive_private_key(12_345, curve).public_key().public_bytes(serialization.Encoding.PEM, spki)


def _open_floe(data: bytes) -> object:
    decryptor = Floe.decryptor(KEY, b"aad", data[:HEADER_SIZE], seg=SEGMENT)
    room, out, left = SEGMENT - SEGMENT_OVERHEAD, memoryview(bytearray(len(PLAIN) + SEGMENT)), len(PLAIN)
    body, position = data[HEADER_SIZE:], 0
    while left > 0:
        plain = min(room, left)
        cut = body[position * SEGMENT :] if left <= room else body[position * SEGMENT : (position + 1) * SEGMENT]
        written = decryptor.segment_into(cut[: SEGMENT + 1], position, left <= room, out[position * room :])
        left -= plain
        position += 1
        if written != plain:
            raise DecryptionFailed("another length")
    return bytes(out[: len(PLAIN)])


def _make_floe() -> Iterable[bytes]:
    room = SEGMENT - SEGMENT_OVERHEAD
    encryptor, parts = Floe.encryptor(KEY, b"aad", seg=SEGMENT, rng=Counting("floe")), []
    for position in range(-(-len(PLAIN) // room)):
        piece, out = PLAIN[position * room : (position + 1) * room], memoryview(bytearray(SEGMENT))
        parts.append(bytes(out[: encryptor.segment_into(piece, position, (position + 1) * room >= len(PLAIN), out)]))
    yield encryptor.header + b"".join(parts)


def _unwrap(data: bytes) -> object:
    stanza = Stanza.from_json(parse_json(data, what="stanza"))
    provider = QuickPassphrase("open") if stanza.type == "passphrase" else _identity()
    return provider.unwrap(stanza, CONTEXT)


def _make_stanzas() -> Iterable[bytes]:
    yield canonical_json(_identity().wrap(KEY, CONTEXT).to_json())
    yield canonical_json(QuickPassphrase("open", rng=Counting("stanza")).wrap(KEY, CONTEXT).to_json())


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def _check_inclusion(data: bytes) -> object:
    verify_inclusion(HASHES[3], 3, 7, _split(data), merkle_root(HASHES))
    return "included"


def _check_consistency(data: bytes) -> object:
    verify_consistency(3, merkle_root(HASHES[:3]), 7, merkle_root(HASHES), _split(data))
    return "consistent"


@functools.cache
def _certificates() -> tuple[bytes, tuple[bytes, ...]]:
    """Return an authority in PEM and the leaves that it issued in DER."""
    key, name = ec.derive_private_key(7, ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=ours")
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public).serial_number(77)
            .not_valid_before(start).not_valid_after(start + timedelta(days=90))
        )  # fmt: skip

    authority = builder(name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    leaves = []
    for subject in (x509.UniformResourceIdentifier("spiffe://example.com/bot"), x509.DNSName("bot.example.com")):
        leaf = builder(x509.Name.from_rfc4514_string("CN=bot"), ec.derive_private_key(8, ec.SECP256R1()).public_key())
        leaf = leaf.add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        leaves.append(leaf.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    pem = authority.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem, tuple(leaves)


def _read_authority(data: bytes) -> object:
    return CertificateAuthority.from_pem(data, what="authority").spki_sha256


@functools.cache
def _authority() -> CertificateAuthority:
    return CertificateAuthority.from_pem(corpus("certificate-authority")[0], what="authority")


# config

SETTINGS = b"""[ledger]
origin = "example.com/stanch/log"
[gateway]
requests_per_minute = 60
[gate]
release_context = "partner"
max_auc = 0.6
[[alerts.sinks]]
name = "pager"
kind = "webhook"
url = "https://a.example"
secret = "env:PAGER"
"""


def _read_environment(data: bytes) -> object:
    text = text_of(data).replace("\x00", "")
    return load_config(
        None, environ={"STANCH_GATEWAY__TOKENS_PER_DAY": text, "STANCH_GATEWAY__REQUESTS_PER_MINUTE": text}
    )


# weights


def _tensors(*names: str) -> list[Tensor]:
    return [Tensor.from_float32(name, np.arange(12, dtype=np.float32).reshape(3, 4)) for name in names]


def _make_safetensors() -> Iterable[bytes]:
    head = build_head([("a", "F32", (2, 3)), ("b", "BF16", (4,)), ("c", "U8", ())], {"format": "pt"})
    yield head.head + bytes(head.data_size)
    path = scratch() / "m.safetensors"
    write_safetensors(path, _tensors("x", "y"))
    yield path.read_bytes()


def _map_tensors(data: bytes) -> object:
    return {name: tensor.raw.shape for name, tensor in open_tensors(as_file(data, "t.safetensors")).items()}


ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 4}, "use_rslora": False}


def _open_adapter(data: bytes) -> object:
    path = as_file(data, "adapter_config.json", folder="adapter")
    if not (path.parent / "adapter_model.safetensors").exists():
        stem = "base_model.model.layers.0.q_proj"
        factors = {"A": (4, 3), "B": (5, 4)}
        write_safetensors(
            path.parent / "adapter_model.safetensors",
            [
                Tensor.from_float32(f"{stem}.lora_{k}.weight", np.zeros(shape, np.float32))
                for k, shape in factors.items()
            ],
        )
    return [module.delta().shape for module in open_adapter(path.parent).modules.values()]


def _open_shards(data: bytes) -> object:
    path = as_file(data, "model.safetensors.index.json", folder="shards")
    for number in (1, 2):
        if not (path.parent / f"m-{number}.safetensors").exists():
            write_safetensors(path.parent / f"m-{number}.safetensors", _tensors(f"t{number}"))
    return sorted(open_model(path.parent))


INPUT, BAD, PROOF = (InvalidInput,), (DecryptionFailed, InvalidInput), (ProofInvalid, NoTrustedSignature)

TARGETS = (
    Target(name="json", parser="stanch.crypto.canonical.parse_json", reads="any JSON", kind="plain", run=_read_json,
           refuses=INPUT, make=_make_json),
    Target(name="digest", parser="stanch.terms.Digest.parse", reads="a digest as text", kind="canonical", refuses=INPUT,
           run=lambda data: Digest.parse(text_of(data)), rewrite=bytes_of,
           make=lambda: [str(Digest.sha256(b"")).encode(), f"blake3:{'0f' * 32}".encode()]),
    Target(name="recipient", parser="stanch.crypto.recipient.parse_recipient", reads="the text of a recipient",
           kind="plain", run=_read_recipient, refuses=INPUT, make=_make_recipients),
    Target(name="pkcs11-uri", parser="stanch.crypto.providers.pkcs11_uri.Pkcs11Uri.parse", reads="a PKCS#11 URI",
           kind="plain", run=lambda data: str(Pkcs11Uri.parse(text_of(data))), refuses=INPUT,
           make=lambda: list(_make_recipients())[2:3]),
    Target(name="age-identity", parser="stanch.crypto.identity.load_identity", reads="an identity file of age",
           kind="plain", run=lambda data: load_identity(as_file(data)).describe(), refuses=INPUT, make=lambda: [AGE]),
    Target(name="identity", parser="stanch.crypto.identity.Identity.parse", reads="an identity file, open or locked",
           kind="plain", run=_read_identity, refuses=BAD, make=_make_identities),
    Target(name="local-key", parser="stanch.crypto.localkey.load_local_key", reads="a person's key file", kind="plain",
           run=_read_local_key, refuses=BAD, make=_make_local_keys),
    Target(name="signing-key", parser="stanch.crypto.signing.SigningKey.load", reads="a private key in PEM",
           kind="plain", run=lambda data: SigningKey.load(as_file(data)).key_id, refuses=INPUT,
           make=_make_signing_keys),
    Target(name="verify-key", parser="stanch.crypto.signing.VerifyKey.from_pem", reads="a public key in PEM",
           kind="plain", run=lambda data: VerifyKey.from_pem(data).key_id, refuses=INPUT, make=_make_verify_keys),
    Target(name="floe", parser="stanch.crypto.floe.FloeDecryptor", reads="header and segments of an encrypted stream",
           kind="authentic", run=_open_floe, refuses=(DecryptionFailed,), make=_make_floe),
    Target(name="stanza", parser="stanch.crypto.stanza.Stanza.from_json", reads="a wrapped root key, then unwrapped",
           kind="authentic", run=_unwrap, refuses=BAD, make=_make_stanzas),
    Target(name="siv", parser="stanch.crypto.siv.decrypt_siv", reads="an encrypted value", kind="authentic",
           refuses=(DecryptionFailed,), run=lambda data: decrypt_siv(KEY, data, aad=b"aad"),
           make=lambda: [encrypt_siv(KEY, bytes(12), PLAIN, aad=b"aad")]),
    Target(name="frontier", parser="stanch.crypto.merkle.Frontier.parse", reads="the right edge of a tree",
           kind="canonical", refuses=INPUT, run=lambda data: Frontier.parse(7, data), rewrite=lambda f: f.to_bytes(),
           make=lambda: [Frontier().append(HASHES).to_bytes()]),
    Target(name="inclusion", parser="stanch.crypto.merkle.verify_inclusion", reads="an inclusion path",
           kind="authentic", run=_check_inclusion, refuses=(ProofInvalid,),
           make=lambda: [b"".join(inclusion_path(HASHES, 3))]),
    Target(name="consistency", parser="stanch.crypto.merkle.verify_consistency", reads="a consistency path",
           kind="authentic", run=_check_consistency, refuses=(ProofInvalid,),
           make=lambda: [b"".join(consistency_path(HASHES, 3))]),
    Target(name="certificate-authority", parser="stanch.crypto.certificate.CertificateAuthority.from_pem",
           reads="an authority in PEM", kind="plain", run=_read_authority, refuses=INPUT,
           make=lambda: [_certificates()[0]]),
    Target(name="certificate", parser="stanch.crypto.certificate.CertificateAuthority.open_client",
           reads="a client's certificate", kind="authentic", run=lambda data: _authority().open_client(data),
           refuses=(NoTrustedSignature, InvalidInput), make=lambda: _certificates()[1]),
    Target(name="config", parser="stanch.config.load.load_config", reads="stanch.toml", kind="plain", refuses=INPUT,
           run=lambda data: load_config(as_file(data, "stanch.toml"), environ={}),
           make=lambda: [SETTINGS, b'gate.max_auc = 0.5\n["gateway"]\nlisten = \'127.0.0.1:1\'\n']),
    Target(name="environment", parser="stanch.config.load.load_config", reads="settings from the environment",
           kind="plain", refuses=INPUT, run=_read_environment, make=lambda: [b"5", b"1_000"]),
    Target(name="tables-uri", parser="stanch.store.postgresql.Address.parse", reads="the address of a database",
           kind="plain", run=lambda data: Address.parse(text_of(data)), refuses=INPUT,
           make=lambda: [b"postgresql://me@db.example:5432/stanch?sslmode=verify-full", b"postgresql:///stanch?host=/run/pg"]),
    Target(name="url", parser="stanch.store.http.check_url", reads="a URL that is asked", kind="plain", refuses=INPUT,
           run=lambda data: check_url(text_of(data)),
           make=lambda: [b"https://w.example:8443/a?b=c", b"http://127.0.0.1:1/x"]),
    Target(name="safetensors", parser="stanch.weights.header.read_head", reads="a weight file", kind="plain",
           refuses=INPUT, run=lambda data: read_head(io.BytesIO(data), len(data), what="input"),
           make=_make_safetensors),
    Target(name="tensors", parser="stanch.weights.tensors.open_tensors", reads="a weight file, mapped", kind="plain",
           run=_map_tensors, refuses=INPUT, make=_make_safetensors),
    Target(name="adapter", parser="stanch.weights.adapter.open_adapter", reads="the configuration of an adapter",
           kind="plain", run=_open_adapter, refuses=INPUT, make=lambda: [json.dumps(ADAPTER).encode()]),
    Target(name="shards", parser="stanch.weights.model.open_model", reads="the index of a sharded model", kind="plain",
           run=_open_shards, refuses=INPUT,
           make=lambda: [b'{"weight_map": {"t1": "m-1.safetensors", "t2": "m-2.safetensors"}}']),
)  # fmt: skip
