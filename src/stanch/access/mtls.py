"""Services that show a client certificate: the leaf that the TLS layer verified, to issuer and subject.

The name is the certificate's single URI, else its single DNS name; never the common name, and never anything out of an
HTTP header. Two names are as bad as none: whoever chose which one counts would choose who somebody is.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from stanch.access.clock import Clock
from stanch.access.directory import MAX_NAME, Directory, Proof, not_authenticated
from stanch.access.session import Session
from stanch.crypto.certificate import CertificateAuthority, ClientCertificate
from stanch.errors import InvalidInput, NoTrustedSignature


class Certificates:
    """Identifies clients by certificates of the trusted authorities.

    Args:
        authorities: Who may issue; a chain is cut at the authority that signed the leaf, so that one is listed.
        clock: Seconds since 1970.
    """

    def __init__(self, authorities: Iterable[CertificateAuthority], *, clock: Clock = time.time) -> None:
        self._authorities = tuple(authorities)
        self._clock = clock

    def trust(self, authorities: Iterable[CertificateAuthority]) -> None:
        """Believe these authorities from now on, in place of those from before."""
        self._authorities = tuple(authorities)

    def identify(self, leaf: bytes) -> tuple[tuple[str, str], Proof]:
        """Return issuer and subject of a client's certificate, and the proof for a session.

        Args:
            leaf: DER of the certificate that the TLS layer verified against these authorities.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        for authority in self._authorities:
            try:
                found = authority.open_client(leaf)
            except NoTrustedSignature:
                continue
            except InvalidInput as error:
                raise not_authenticated() from error
            subject = _subject(found)
            now = datetime.fromtimestamp(self._clock(), UTC)
            if subject is None or not found.for_clients or found.is_authority or not found.valid_at(now):
                break
            proof = Proof(
                kind="mtls",
                credential=f"x509:{found.digest.hex()[:32]}",
                mfa=False,
                expires_ms=int(found.not_after.timestamp() * 1000),
            )
            return (f"mtls:{authority.spki_sha256.hex()}", subject), proof
        raise not_authenticated()

    def session(self, leaf: bytes, directory: Directory) -> Session:
        """Open a session for the registered service of a client's certificate, or raise ``NotAuthenticated``."""
        name, proof = self.identify(leaf)
        return directory.vouched(name, proof)


def _subject(certificate: ClientCertificate) -> str | None:
    names = certificate.uris or certificate.dns_names
    return names[0] if len(names) == 1 and 1 <= len(names[0]) <= MAX_NAME else None
