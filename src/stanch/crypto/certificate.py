"""X.509 certificates (RFC 5280): what access needs of a client's certificate, and whether an authority issued it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from stanch.crypto.hashes import sha256
from stanch.errors import InvalidInput, NoTrustedSignature

_E = TypeVar("_E", bound=x509.ExtensionType)

_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
_MAX_DER = 65_536
_MOST_NAMES = 64


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client's certificate says.

    Attributes:
        digest: SHA-256 of its DER bytes.
        uris: The URIs of its subject alternative names.
        dns_names: The DNS names among them.
        not_before: From when on it is valid.
        not_after: Until when.
        for_clients: Whether its extended key usage allows client authentication.
        is_authority: Whether it may issue certificates itself.
    """

    digest: bytes
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    for_clients: bool
    is_authority: bool

    def valid_at(self, now: datetime) -> bool:
        """Say whether its time has begun and not ended."""
        return self.not_before <= now.astimezone(UTC) <= self.not_after


class CertificateAuthority:
    """A certificate authority that clients' certificates may come from."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self._certificate = certificate

    @classmethod
    def from_pem(cls, pem: bytes, *, what: str) -> Self:
        """Read a PEM certificate of an authority.

        Raises:
            InvalidInput: It is none, or not an authority's.
        """
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            certificate.public_key()  # read lazily, and needed to name the authority
        except (*_UNREADABLE, x509.ExtensionNotFound) as error:
            raise InvalidInput(f"{what}: expected the certificate of an authority in PEM") from error
        if not constraints.ca:
            raise InvalidInput(f"{what}: is not an authority's certificate")
        return cls(certificate)

    @property
    def spki_sha256(self) -> bytes:
        """SHA-256 of its SubjectPublicKeyInfo: the name of the authority that a renewed certificate keeps."""
        public = self._certificate.public_key()
        return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def open_client(self, der: bytes) -> ClientCertificate:
        """Return what a certificate says that this authority itself signed.

        Raises:
            NoTrustedSignature: Another authority signed it, or nobody.
            InvalidInput: It is not a certificate, or names a subject in a way that is not understood.
        """
        certificate = _load(der)
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise NoTrustedSignature("the certificate was not issued by this authority") from error
        return _read(certificate, der)


def certificate_end(path: Path) -> datetime:
    """Return until when the first certificate of a PEM file is valid.

    Raises:
        InvalidInput: The file cannot be read, or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    except _UNREADABLE as error:
        raise InvalidInput(f"{path}: expected a certificate in PEM") from error


def _load(der: bytes) -> x509.Certificate:
    if len(der) > _MAX_DER:
        raise InvalidInput(f"certificate: expected at most {_MAX_DER} bytes, found {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise InvalidInput("certificate: expected X.509 in DER") from error


def _read(certificate: x509.Certificate, der: bytes) -> ClientCertificate:
    try:
        extensions = certificate.extensions
        names = _extension(extensions, x509.SubjectAlternativeName)
        usage = _extension(extensions, x509.ExtendedKeyUsage)
        constraints = _extension(extensions, x509.BasicConstraints)
    except _UNREADABLE as error:
        raise InvalidInput("certificate: its extensions cannot be read") from error
    uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names is not None else ()
    dns = tuple(names.get_values_for_type(x509.DNSName)) if names is not None else ()
    if len(uris) + len(dns) > _MOST_NAMES:
        raise InvalidInput(f"certificate: expected at most {_MOST_NAMES} names")
    return ClientCertificate(
        sha256(der), uris, dns, certificate.not_valid_before_utc, certificate.not_valid_after_utc,
        usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH in usage,
        constraints is not None and constraints.ca,
    )  # fmt: skip


def _extension(extensions: x509.Extensions, kind: type[_E]) -> _E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
