"""The publisher's signature over a sealed bundle's manifest.

Subject ``manifest.json`` with its SHA-256; predicate ``{lineage, release_number, bundle_id}``, which must equal what
the manifest itself says, so that a signature cannot be moved to another line of releases.
"""

from dataclasses import dataclass

from stanch.crypto import SigningKey, parse_json
from stanch.errors import InvalidInput, PolicyViolation
from stanch.sign.bundle import Bundle, sign_statement, verify_bundle
from stanch.sign.policy import HasSubject, PredicateType, TrustedKeys, all_of
from stanch.sign.statement import Statement, Subject
from stanch.sign.timestamp import TimestampAuthority, Timestamped, stamp_bundle
from stanch.terms import Digest, JsonValue, VerifiedDigest

SEALED_BUNDLE_TYPE = "urn:stanch:sealed-bundle:v1"
_FIELDS = ("lineage", "release_number", "bundle_id")


@dataclass(frozen=True, slots=True)
class _Manifest:
    digest: Digest
    predicate: dict[str, JsonValue]


def _read(manifest: bytes) -> _Manifest:
    fields = parse_json(manifest, what="manifest.json")
    if not isinstance(fields, dict) or not all(name in fields for name in _FIELDS):
        raise InvalidInput("manifest.json: expected the fields lineage, release_number and bundle_id")
    return _Manifest(Digest.sha256(manifest), {name: fields[name] for name in _FIELDS})


def sign_manifest(
    manifest: bytes, signer: SigningKey, *others: SigningKey, authority: TimestampAuthority | None = None
) -> Bundle:
    """Return the publisher's signature over the bytes of a bundle's ``manifest.json``, with those of further keys.

    Where an ``authority`` is named, each signature carries its time-stamp.

    Raises:
        InvalidInput: The manifest is none, or a key stands twice.
        ExternalError: The authority did not answer.
        NoTrustedSignature: Its answer is no time-stamp that its roots vouch for.
    """
    read = _read(manifest)
    statement = Statement((Subject("manifest.json", read.digest),), SEALED_BUNDLE_TYPE, read.predicate)
    signature = sign_statement(statement, signer, *others)
    return signature if authority is None else stamp_bundle(signature, authority)


def verify_manifest(manifest: bytes, bundle: Bundle, trusted: TrustedKeys | Timestamped) -> VerifiedDigest:
    """Check the publisher's signature over ``manifest.json``; where time-stamps are demanded, say when it was made.

    Raises:
        NoTrustedSignature: No trusted key signed.
        PolicyViolation: The signature is about another manifest, line or number.
    """
    read = _read(manifest)
    policy = all_of(trusted, PredicateType(SEALED_BUNDLE_TYPE), HasSubject("manifest.json", read.digest))
    verified = verify_bundle(bundle, policy)
    if verified.statement.predicate != read.predicate:
        raise PolicyViolation("the signature names another line of releases or number than the manifest")
    moment = trusted.signed_at(bundle) if isinstance(trusted, Timestamped) else None
    keys = trusted.trusted.keys if isinstance(trusted, Timestamped) else trusted.keys
    return VerifiedDigest(read.digest.value, verified.signer_key_ids, moment, tuple(key.key_id for key in keys))
