"""The file of a leak certificate: a signed statement that counts only byte for byte as it was written."""

from pathlib import Path

from stanch.audit.leakcert import LEAKCERT_TYPE
from stanch.crypto import sha256
from stanch.errors import InvalidInput, VerificationError
from stanch.sign import Bundle, PredicateType, TrustedKeys, VerifiedStatement, all_of, verify_bundle


def read_certificate(path: Path, trusted: TrustedKeys) -> VerifiedStatement:
    """Read a leak certificate and check who signed it.

    Raises:
        InvalidInput: There is no such file, or it is no certificate.
        VerificationError: As :func:`verify_certificate`.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", next_step="audit first: stanch audit run MODEL --out REPORT")
    return verify_certificate(path.read_bytes(), trusted, what=str(path))


def verify_certificate(data: bytes, trusted: TrustedKeys, *, what: str) -> VerifiedStatement:
    """Return the statement of a leak certificate that is, byte for byte, as a trusted key's owner wrote it.

    Raises:
        InvalidInput: It is no certificate.
        VerificationError: No trusted key signed it, or a byte outside what is signed was changed.
    """
    bundle = Bundle.parse(data, what=what)
    verified = verify_bundle(bundle, all_of(trusted, PredicateType(LEAKCERT_TYPE)))
    hints = {sha256(key.to_pem()).hex() for key in trusted.keys}
    if bundle.to_bytes() != data or bundle.hint not in hints:
        raise VerificationError(
            f"{what}: the envelope around the signature is not as it was written",
            why="its spacing, the signer's hint or another part that no signature covers was changed",
            next_step="get the file again from whoever made it",
        )
    return verified
