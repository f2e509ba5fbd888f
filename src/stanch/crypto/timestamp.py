"""Time-stamps (RFC 3161): what is asked of an authority, and what its answer proves. No input or output here.

An answer says: these bytes existed at that time. Only their SHA-256 goes to the authority.
"""

import importlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from stanch.errors import InvalidInput, MissingExtraError, NoTrustedSignature

MAX_TIMESTAMP = 64 << 10
QUERY_TYPE = "application/timestamp-query"
_MOST_ROOTS = 64
_UNREADABLE = (
    ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip


def _client() -> Any:  # noqa: ANN401 - an optional part
    try:
        return importlib.import_module("rfc3161_client")
    except ImportError as error:
        raise MissingExtraError("timestamp") from error


@dataclass(frozen=True, slots=True)
class TimestampQuery:
    """A question to an authority: its DER bytes, and the random number that the answer must repeat."""

    data: bytes
    nonce: int

    @classmethod
    def about(cls, message: bytes) -> Self:
        """Ask when ``message`` existed.

        Raises:
            MissingExtraError: rfc3161-client is not installed.
        """
        client = _client()
        builder = client.TimestampRequestBuilder().data(message).hash_algorithm(client.HashAlgorithm.SHA256)
        request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
        return cls(request.as_bytes(), request.nonce)


@dataclass(frozen=True, slots=True)
class TimestampRoots:
    """The certificates that time-stamping authorities must descend from."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def from_pem(cls, pem: bytes, *, what: str) -> Self:
        """Read the PEM certificates of one or several root authorities.

        Raises:
            InvalidInput: There are none, more than 64, or one is not an authority's.
        """
        try:
            found = tuple(x509.load_pem_x509_certificates(pem))
            authorities = [
                certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for certificate in found
            ]
        except (*_UNREADABLE, x509.ExtensionNotFound) as error:
            raise InvalidInput(f"{what}: expected certificates of time-stamping authorities in PEM") from error
        if not all(authorities) or len(found) > _MOST_ROOTS:
            raise InvalidInput(f"{what}: expected at most {_MOST_ROOTS} certificates, each of an authority")
        return cls(found)

    def verify(self, response: bytes, message: bytes, *, query: TimestampQuery | None = None) -> datetime:
        """Return when ``message`` existed, according to an authority that one of the roots vouches for.

        Its certificate must have been valid then and allow time-stamping alone (RFC 3161, 2.3).

        Args:
            response: A DER ``TimeStampResp``.
            message: What it must be about.
            query: The question that it must answer.

        Raises:
            NoTrustedSignature: No trusted authority says so of these bytes.
            MissingExtraError: rfc3161-client is not installed.
        """
        client = _client()
        if len(response) > MAX_TIMESTAMP:
            raise NoTrustedSignature(f"time-stamp: expected at most {MAX_TIMESTAMP} bytes, found {len(response)}")
        verifier = client.VerifierBuilder(
            roots=list(self.certificates), nonce=None if query is None else query.nonce
        ).build()
        try:
            read = client.decode_timestamp_response(response)
            verifier.verify_message(read, message)
            moment: datetime = read.tst_info.gen_time
        except (client.VerificationError, *_UNREADABLE) as error:
            raise NoTrustedSignature(
                "no trusted time-stamp over these bytes", why=str(error)[:200] if str(error).isprintable() else ""
            ) from error
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
