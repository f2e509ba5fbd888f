"""The leak certificate that a model has to have while it is served."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.errors import NotPermitted, StanchError, VerificationError
from stanch.sign import TrustedKeys
from stanch.terms import Digest

if TYPE_CHECKING:
    from stanch.audit import LeakCert
    from stanch.config import GatewayModelSection
    from stanch.workspace import Workspace

_Stamp = tuple[int, int, int, int]


class NotCertified(NotPermitted):
    """The settings require a leak certificate of the model, and none is good now."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path}: not a leak certificate that lets the model be served", why=why,
            next_step="audit the model that the server has loaded: stanch audit run MODEL",
        )  # fmt: skip


def certificate_of(workspace: "Workspace", section: "GatewayModelSection") -> "RequiredCertificate | None":
    """Return the leak certificate that the settings require of a model, not yet looked at; None: they require none."""
    if not section.require_certificate:
        return None
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    return RequiredCertificate(workspace.folder / section.require_certificate, Digest.parse(section.digest), trusted)


@dataclass(slots=True)
class RequiredCertificate:
    """A certificate's file, read again when it changed; its end is compared at every check.

    Whether its figures are good enough is for the gate and the policies to say.

    Attributes:
        path: The file.
        model: Digest of the model that is served.
        trusted: Whose signature counts.
    """

    path: Path
    model: Digest
    trusted: TrustedKeys
    _read: "tuple[_Stamp, LeakCert] | None" = field(default=None, repr=False)

    def check(self, now: datetime) -> "LeakCert":
        """Return the certificate if it is there, signed, about this model, and good at ``now``.

        Raises:
            NotCertified: It is not.
        """
        from stanch.audit.gate import CLOCK_SKEW  # noqa: PLC0415 - a gateway that requires none loads no audit

        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if self._read is None or self._read[0] != stamp:
                self._read = (stamp, self._parse())
        except (OSError, StanchError) as error:
            raise NotCertified(self.path, error.what if isinstance(error, StanchError) else "no such file") from error
        certificate = self._read[1]
        if certificate.issued_at > now + CLOCK_SKEW:
            raise NotCertified(self.path, f"issued in the future, at {certificate.issued}")
        if now >= certificate.expires_at:
            raise NotCertified(self.path, f"expired at {certificate.expires}")
        return certificate

    def _parse(self) -> "LeakCert":
        from stanch.audit import LeakCert  # noqa: PLC0415 - as above
        from stanch.audit.certificate_file import read_certificate  # noqa: PLC0415 - as above
        from stanch.audit.leakcert import ROOT_SUBJECT  # noqa: PLC0415 - as above

        statement = read_certificate(self.path, self.trusted).statement
        certificate = LeakCert.parse(statement.predicate)
        if {one.digest for one in statement.subjects if one.name == ROOT_SUBJECT} != {self.model}:
            raise VerificationError("it is about another model")
        return certificate
