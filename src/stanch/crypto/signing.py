"""Signatures: ECDSA over P-256, P-384 and P-521 (FIPS 186-5), Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204).

ECDSA signs with SHA-256, SHA-384 and SHA-512 (RFC 6979 not assumed; random nonces), ML-DSA with an empty context. The
algorithm always follows from the trusted key, never from the message.
"""

import hashlib
import re
from pathlib import Path
from typing import Literal, NamedTuple, Self

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from stanch.crypto.files import read_private, write_private
from stanch.crypto.frame import frame
from stanch.errors import InvalidInput, NoTrustedSignature

KeyKind = Literal["p256", "p384", "p521", "ed25519", "mldsa65"]
KEY_ID = re.compile(r"[a-z0-9]{1,16}:[0-9a-f]{32}")

_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey
_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey


class _Curve(NamedTuple):
    curve: ec.EllipticCurve
    algorithm: ec.ECDSA


_CURVES: dict[KeyKind, _Curve] = {
    "p256": _Curve(ec.SECP256R1(), ec.ECDSA(hashes.SHA256())),
    "p384": _Curve(ec.SECP384R1(), ec.ECDSA(hashes.SHA384())),
    "p521": _Curve(ec.SECP521R1(), ec.ECDSA(hashes.SHA512())),
}


def key_id(kind: str, public: bytes) -> str:
    """Return ``kind:`` and the first 32 hex of ``SHA-256(frame("stanch/key-id/v1", kind, public))``."""
    return f"{kind}:{hashlib.sha256(frame(b'stanch/key-id/v1', kind.encode(), public)).hexdigest()[:32]}"


def _kind(key: object, what: str) -> KeyKind:
    match key:
        case ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey():
            return "ed25519"
        case mldsa.MLDSA65PrivateKey() | mldsa.MLDSA65PublicKey():
            return "mldsa65"
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            for kind, known in _CURVES.items():
                if key.curve.name == known.curve.name:
                    return kind
    raise InvalidInput(f"{what}: expected a key of P-256, P-384, P-521, Ed25519 or ML-DSA-65")


class VerifyKey:
    """The public half of a signing key."""

    def __init__(self, key: _Public) -> None:
        self.kind = _kind(key, "verification key")
        self._key = key

    @classmethod
    def from_pem(cls, pem: bytes | str, *, what: str = "public key") -> Self:
        """Read a PEM SubjectPublicKeyInfo.

        Raises:
            InvalidInput: It is not one, or not of an accepted kind.
        """
        try:
            key = serialization.load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
            raise InvalidInput(
                f"{what}: expected a public key in PEM (BEGIN PUBLIC KEY)",
                next_step="make one with: stanch key new --kind sign --out FILE",
            ) from error
        _kind(key, what)
        return cls(key)  # type: ignore[arg-type]  # _kind refused every other type

    @classmethod
    def from_raw_ed25519(cls, raw: bytes) -> Self:
        """Read the 32 raw bytes of an Ed25519 public key."""
        try:
            return cls(ed25519.Ed25519PublicKey.from_public_bytes(raw))
        except ValueError as error:
            raise InvalidInput(f"Ed25519 public key: expected 32 bytes, found {len(raw)}") from error

    @property
    def raw(self) -> bytes:
        """Ed25519: the 32 raw bytes. ML-DSA-65: its 1,952. The curves: the uncompressed point, 65, 97 or 133 bytes."""
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return self._key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return self._key.public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The short public name of the key, as in :func:`key_id`."""
        return key_id(self.kind, self.raw)

    def to_pem(self) -> bytes:
        """Return the PEM SubjectPublicKeyInfo with its final newline."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature over ``message``.

        Raises:
            NoTrustedSignature: It does not verify under this key.
        """
        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, message, _CURVES[self.kind].algorithm)
            else:
                self._key.verify(signature, message)
        except InvalidSignature as error:
            raise NoTrustedSignature(f"the signature by {self.key_id} does not verify") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and (self.kind, self.raw) == (other.kind, other.raw)

    def __hash__(self) -> int:
        return hash((self.kind, self.raw))

    def __repr__(self) -> str:
        return f"VerifyKey({self.key_id})"


class SigningKey:
    """A private key that signs. Its repr shows the public key id only."""

    def __init__(self, key: _Private) -> None:
        self.kind = _kind(key, "signing key")
        self._key = key

    @classmethod
    def generate(cls, kind: KeyKind) -> Self:
        """Make a new key from the operating system's randomness."""
        match kind:
            case "ed25519":
                return cls(ed25519.Ed25519PrivateKey.generate())
            case "mldsa65":
                return cls(mldsa.MLDSA65PrivateKey.generate())
            case _:
                return cls(ec.generate_private_key(_CURVES[kind].curve))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the Ed25519 key of a 32-byte seed (RFC 8032, 5.1.5)."""
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PKCS#8 PEM private key from a file that only its owner can read.

        Raises:
            InvalidInput: The file is missing, readable by others, or not such a key.
        """
        try:
            key = serialization.load_pem_private_key(read_private(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
            raise InvalidInput(
                f"{path}: expected an unencrypted private signing key in PEM (BEGIN PRIVATE KEY)",
                next_step="make one with: stanch key new --kind sign --out FILE",
            ) from error
        _kind(key, str(path))
        return cls(key)  # type: ignore[arg-type]  # _kind refused every other type

    def save(self, path: Path) -> None:
        """Write the key as PKCS#8 PEM with mode 0600; an existing file is never replaced."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)

    @property
    def public(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key())

    @property
    def key_id(self) -> str:
        """The id of the public half."""
        return self.public.key_id

    @property
    def seed(self) -> bytes:
        """The 32-byte seed of an Ed25519 key; a secret."""
        if not isinstance(self._key, ed25519.Ed25519PrivateKey):
            raise InvalidInput("only an Ed25519 key has a seed")
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return a signature: 64 bytes for Ed25519, 3,309 for ML-DSA-65, DER for the curves."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, _CURVES[self.kind].algorithm)
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"
