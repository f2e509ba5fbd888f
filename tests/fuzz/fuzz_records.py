"""Targets of the record and of permission: ledger, access."""

import functools
import json
from collections.abc import Iterable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fuzz_ground import HASHES, INPUT, KEY, LEAVES, PROOF, SIGNER
from fuzz_harness import Target, as_file, bytes_of, corpus, text_of
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from stanch.access.apikey import format_key, parse_key
from stanch.access.approval import ApprovalStatement
from stanch.access.issuer import Issuer, Providers
from stanch.access.policy import default_text, parse_policies
from stanch.access.token import Tokens
from stanch.crypto.merkle import (
    consistency_path,
    inclusion_path,
    merkle_root,
)
from stanch.crypto.signing import SigningKey
from stanch.errors import (
    ExternalError,
    InvalidInput,
    NotAuthenticated,
    NoTrustedSignature,
    ProofInvalid,
    QuorumUnmet,
    Tampered,
)
from stanch.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from stanch.ledger.entry import Act, Credential, intent, noted, outcome, read_event
from stanch.ledger.note import Cosigner, NoteSigner, NoteVerifier, open_note, sign_note
from stanch.ledger.policy import TrustPolicy
from stanch.ledger.signature import check_act, sign_act
from stanch.ledger.tiles import decode_bundle, decode_tile, encode_bundle
from stanch.ledger.tlogproof import TlogProof, verify_proof
from stanch.ledger.witness import AddCheckpoint
from stanch.terms import ArtifactRef, Digest

NOW = 1_767_225_600
ORIGIN = "example.com/stanch/log"
LOG = NoteSigner(ORIGIN, SIGNER)
WITNESS = Cosigner("example.com/stanch/witness", SigningKey.from_seed(bytes(range(32, 64))))
ISSUER = "https://issuer.example"

# ledger


def _make_notes() -> Iterable[bytes]:
    text = Checkpoint(ORIGIN, 7, merkle_root(HASHES)).text()
    yield sign_note(text, [LOG])
    yield sign_note(text, [LOG]) + WITNESS.cosign(text, NOW).encode()


def _open_note(data: bytes) -> object:
    note = open_note(data, [LOG.verifier, WITNESS.verifier])
    return note.text, {signature.name for signature in note.signatures} and ORIGIN in note.text


def _open_checkpoint(data: bytes) -> object:
    return open_checkpoint(data, [LOG.verifier, WITNESS.verifier]).checkpoint


def _policy() -> TrustPolicy:
    return TrustPolicy.of([LOG.verifier.vkey])


def _make_proofs() -> Iterable[bytes]:
    signed = sign_checkpoint(Checkpoint(ORIGIN, 7, merkle_root(HASHES)), LOG)
    yield TlogProof(3, tuple(inclusion_path(HASHES, 3)), signed.note).to_bytes()
    yield TlogProof(0, tuple(inclusion_path(HASHES, 0)), signed.note).to_bytes()


def _check_proof(data: bytes) -> object:
    return verify_proof(data, LEAVES[3 if TlogProof.parse(data).index else 0], _policy())


def _make_requests() -> Iterable[bytes]:
    note = sign_checkpoint(Checkpoint(ORIGIN, 7, merkle_root(HASHES)), LOG).note
    yield AddCheckpoint(0, (), note).to_bytes()
    yield AddCheckpoint(3, tuple(consistency_path(HASHES, 3)), note).to_bytes()


def _make_policies() -> Iterable[bytes]:
    log, witness = LOG.verifier.vkey, WITNESS.verifier.vkey
    yield f"log {log}\nquorum none\n".encode()
    witnessed = f"witness w1 {witness} https://w.example\ngroup g 1 w1\nquorum g\n"
    yield f"# ours\nlog {log} https://log.example\n{witnessed}".encode()


def _act(kind: str) -> Act:
    subject = (ArtifactRef("model", "bot", Digest.sha256(b"weights")),)
    credential = Credential(kind="local", key_id=SIGNER.key_id)
    return Act(
        kind=kind, id="019b76da-a800-7000-8000-000000000000", principal="p_aaaqeayeaudaocajbifqydiob4", subject=subject,
        policy=str(Digest.sha256(b"policy")), decision=("role-trainer",), credential=credential,
    )  # fmt: skip


def _make_entries() -> Iterable[bytes]:
    yield intent(
        _act("release.create"), time_ms=NOW * 1000, payload={"number": 1, "list": [1, None, {"a": "b"}]}
    ).encode(ORIGIN)
    yield outcome(_act("tune.run"), time_ms=NOW * 1000, egress_bytes=12).encode(ORIGIN)
    yield noted(_act("access.grant"), time_ms=NOW * 1000, payload={"role": "auditor"}).encode(ORIGIN)


def _make_signed_entries() -> Iterable[bytes]:
    entry = intent(_act("release.create"), time_ms=NOW * 1000, payload={"number": 1})
    yield sign_act(entry, ORIGIN, SIGNER).encode(ORIGIN)


def _check_signed_entry(data: bytes) -> object:
    event = read_event(data)
    check_act(event, SIGNER.public)
    ours = event.unmapped.stanch
    # What is signed; the rest of an entry is what its Merkle proof covers.
    return event.metadata.correlation_uid, ours.kind, ours.payload, event.time, ours.subject and ours.subject[0].digest


# access


@functools.cache
def _keys() -> tuple[ECKey, OKPKey]:
    private = ec.derive_private_key(99, ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ed = as_file(b"", "ed.pem")
    ed.unlink()
    SIGNER.save(ed)
    return ECKey.import_key(private, {"kid": "ec"}), OKPKey.import_key(ed.read_bytes(), {"kid": "ed"})


def _make_key_sets() -> Iterable[bytes]:
    yield json.dumps({"keys": [key.as_dict(private=False) for key in _keys()]}).encode()


def _make_tokens() -> Iterable[bytes]:
    claims = {
        "iss": ISSUER, "sub": "bot", "aud": "example.com/stanch", "exp": NOW + 300, "iat": NOW, "jti": "t1",
        "client_id": "c", "nonce": "n",
    }  # fmt: skip
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": "ed"}
    yield jwt.encode(header, claims, _keys()[1], algorithms=["EdDSA"]).encode()


def _web(keys: bytes):
    metadata = json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"}).encode()
    return lambda _method, url, **_: (200, keys if url.endswith("/jwks") else metadata)


def _trusted() -> Issuer:
    return Issuer(url=ISSUER, kind="rfc9068", audience="example.com/stanch")


def _read_key_set(data: bytes) -> object:
    return Providers(_web(data), clock=lambda: NOW).provider(_trusted()).keys.keys()


@functools.cache
def _tokens() -> Tokens:
    return Tokens([_trusted()], Providers(_web(corpus("key-set")[0]), clock=lambda: NOW), clock=lambda: NOW)


def _read_token(data: bytes) -> object:
    return _tokens().bearer(text_of(data)).claims


def _make_approvals() -> Iterable[bytes]:
    request = Digest.sha256(b"r")
    yield ApprovalStatement(request=request, approver="p_a", origin=ORIGIN, created_ms=1, expires_ms=2).to_bytes()


TARGETS = (
    Target(name="note", parser="stanch.ledger.note.open_note", reads="a signed note", kind="authentic", run=_open_note,
           refuses=PROOF, make=_make_notes),
    Target(name="checkpoint", parser="stanch.ledger.checkpoint.open_checkpoint", reads="a signed checkpoint",
           kind="authentic", run=_open_checkpoint, refuses=PROOF, make=_make_notes),
    Target(name="vkey", parser="stanch.ledger.note.NoteVerifier.parse", reads="a log's or witness's key",
           kind="canonical", refuses=INPUT, run=lambda data: NoteVerifier.parse(text_of(data)),
           rewrite=lambda v: bytes_of(v.vkey),
           make=lambda: [LOG.verifier.vkey.encode(), WITNESS.verifier.vkey.encode()]),
    Target(name="tlog-proof", parser="stanch.ledger.tlogproof.verify_proof", reads="a proof file", kind="authentic",
           run=_check_proof, refuses=(*PROOF, QuorumUnmet), make=_make_proofs),
    Target(name="add-checkpoint", parser="stanch.ledger.witness.AddCheckpoint.parse", reads="a request to a witness",
           kind="canonical", run=AddCheckpoint.parse, rewrite=lambda r: r.to_bytes(), refuses=(ProofInvalid,),
           make=_make_requests),
    Target(name="trust-policy", parser="stanch.ledger.policy.TrustPolicy.parse",
           reads="which logs and witnesses are trusted", kind="plain", run=TrustPolicy.parse, refuses=INPUT,
           make=_make_policies),
    Target(name="entry", parser="stanch.ledger.entry.read_event", reads="a log entry", kind="plain", run=read_event,
           refuses=INPUT, make=_make_entries),
    Target(name="signed-entry", parser="stanch.ledger.signature.check_act", reads="a log entry signed by its principal",
           kind="authentic", run=_check_signed_entry, refuses=(InvalidInput, NoTrustedSignature),
           make=_make_signed_entries),
    Target(name="tile", parser="stanch.ledger.tiles.decode_tile", reads="a tile of hashes", kind="canonical",
           rewrite=b"".join, run=lambda data: decode_tile(data, 7, what="tile"), refuses=(Tampered,),
           make=lambda: [b"".join(HASHES)]),
    Target(name="entry-bundle", parser="stanch.ledger.tiles.decode_bundle", reads="a bundle of entries",
           kind="canonical", run=lambda data: decode_bundle(data, 3, what="bundle"), rewrite=encode_bundle,
           refuses=(Tampered,), make=lambda: [encode_bundle(list(_make_entries()))]),
    Target(name="api-key", parser="stanch.access.apikey.parse_key", reads="an API key", kind="plain",
           refuses=(NotAuthenticated,), run=lambda data: parse_key(text_of(data)),
           make=lambda: [format_key(bytes(range(10)), KEY).encode()]),
    Target(name="approval", parser="stanch.access.approval.ApprovalStatement.parse", reads="an approval",
           kind="canonical", run=ApprovalStatement.parse, rewrite=lambda s: s.to_bytes(), refuses=INPUT,
           make=_make_approvals),
    Target(name="key-set", parser="stanch.access.issuer.Providers", reads="an issuer's published keys", kind="plain",
           run=_read_key_set, refuses=(ExternalError,), make=_make_key_sets),
    Target(name="token", parser="stanch.access.token.Tokens.bearer", reads="a bearer token", kind="authentic",
           run=_read_token, refuses=(NotAuthenticated,), make=_make_tokens),
    Target(name="cedar", parser="stanch.access.policy.parse_policies", reads="a set of policies", kind="plain",
           run=lambda data: parse_policies(text_of(data)).digest, refuses=INPUT,
           make=lambda: [default_text().encode()]),
)  # fmt: skip
