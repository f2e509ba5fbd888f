"""Every error that stanch raises on purpose, in one tree.

Each error says in one line *what* happened, in one line *why*, and in one line *what to do next*; none ever carries a
secret or a training row. The family decides the exit code of the command line and the status of an HTTP answer
(RFC 9457, ``urn:stanch:problem:<slug>``); an exception in brackets behind a name::

                                exit HTTP
    StanchError                  70  500  a bug of ours, when raised as itself
      InvalidInput                2  400  the caller's input or usage
        EntryTooLarge UnknownSetting SchemaTooOld SchemaTooNew UnsafeArtifact InvalidSafetensors UnitNotChosen
        UnitColumnMissing
      VerificationError           1  409  something is not what it claims to be
        ProofInvalid NoTrustedSignature QuorumUnmet TileConflict LogRolledBack Equivocation
        Tampered NotSealed SignatureMissing NonCanonicalStream UnexpectedFile BundleIncomplete Rollback
        DecryptionFailed NoIdentityMatched PolicyViolation CustodyBroken
      NotPermitted                3  403  the principal may not do this
        NotAuthenticated(401) SeparationOfDuties ApprovalsMissing QuorumNotMet
      GateFailed                  1  409  the gate refused the model
      LeakFound                   1  409  a leak was found
      Inconclusive                5  409  the evidence does not decide
      StoreError                  4  503  the ground gave way
        NotFound(2, 404) Conflict StoreUnsafe StoreTimeout CommitUnknown LedgerUnavailable ClockWentBack ClockAhead
        OutcomeNotRecorded
      MissingExtraError           4  501  an optional part is not installed
      ExternalError               4  502  another program or service failed
"""

import re
from typing import ClassVar


def printable(words: str) -> str:
    """Return what somebody else wrote so that it cannot look like a line of ours, or command the terminal."""
    return words if words.isprintable() else ascii(words)


class StanchError(Exception):
    """Base of all errors of stanch.

    Attributes:
        what: One line: what happened, naming the file or object, what was expected and what was found.
        why: One line: the reason, when it is not obvious.
        next_step: One line: what the user can do now.
    """

    exit_code: ClassVar[int] = 70
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step

    @property
    def slug(self) -> str:
        """The error's name in kebab case, as used in ``urn:stanch:problem:<slug>`` and in JSON output."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    def problem(self) -> dict[str, str | int]:
        """Return the body of an HTTP answer (RFC 9457, ``application/problem+json``); ``next`` is our extension."""
        title = (type(self).__doc__ or "").partition("\n")[0]
        body: dict[str, str | int] = {
            "type": f"urn:stanch:problem:{self.slug}", "title": title, "status": self.http_status, "detail": self.what,
        }  # fmt: skip
        return body | {name: text for name, text in (("why", self.why), ("next", self.next_step)) if text}


class InvalidInput(StanchError):
    """The input or the usage is wrong; nothing was changed."""

    exit_code = 2
    http_status = 400


class EntryTooLarge(InvalidInput):
    """A log entry is longer than 65,535 bytes."""


class UnknownSetting(InvalidInput):
    """A configuration file or variable names a setting that does not exist."""


class SchemaTooOld(InvalidInput):
    """The database was written by an older release and needs a migration."""


class SchemaTooNew(InvalidInput):
    """The database was written by a newer release than this one."""


class UnsafeArtifact(InvalidInput):
    """A model or file could execute code when loaded, and is refused."""


class InvalidSafetensors(InvalidInput):
    """A safetensors file breaks a rule of its format."""


class UnitNotChosen(InvalidInput):
    """The data names persons, but no privacy unit was chosen."""


class UnitColumnMissing(InvalidInput):
    """A record lacks the column that names its privacy unit."""


class VerificationError(StanchError):
    """Something is not what it claims to be."""

    exit_code = 1
    http_status = 409


class ProofInvalid(VerificationError):
    """An inclusion or consistency proof does not hold."""


class NoTrustedSignature(VerificationError):
    """No signature by a trusted key verifies."""


class QuorumUnmet(VerificationError):
    """Too few witnesses cosigned."""


class TileConflict(VerificationError):
    """A tile of the log exists with other bytes."""


class LogRolledBack(VerificationError):
    """The log is shorter than, or differs from, what was seen before."""


class Equivocation(VerificationError):
    """Two different things were signed under one number."""


class Tampered(VerificationError):
    """Bytes differ from their signed digest."""


class NotSealed(VerificationError):
    """The input is not a sealed bundle."""


class SignatureMissing(VerificationError):
    """A signature file that must be there is not."""


class NonCanonicalStream(VerificationError):
    """An encrypted stream has a length that its signed size does not allow."""


class UnexpectedFile(VerificationError):
    """A sealed bundle holds an entry that does not belong there."""


class BundleIncomplete(VerificationError):
    """A sealed bundle lacks a part."""


class Rollback(VerificationError):
    """An older release was given in place of one already seen."""


class DecryptionFailed(VerificationError):
    """Decryption failed; which part failed is never said."""


class NoIdentityMatched(VerificationError):
    """None of the given identities is a recipient."""


class PolicyViolation(VerificationError):
    """A verification policy does not hold."""


class CustodyBroken(VerificationError):
    """The chain of custody has a gap, a fork or an edit."""


class NotPermitted(StanchError):
    """The principal may not do this; the refusal is recorded."""

    exit_code = 3
    http_status = 403


class NotAuthenticated(NotPermitted):
    """Who asks could not be established."""

    http_status = 401

    def problem(self) -> dict[str, str | int]:
        """Return one and the same body for every reason, so that nobody learns which keys or names exist."""
        return {
            "type": "urn:stanch:problem:not-authenticated", "title": "Who asks could not be established.",
            "status": 401, "detail": "not authenticated",
        }  # fmt: skip


class SeparationOfDuties(NotPermitted):
    """The rule of separated duties forbids this."""


class ApprovalsMissing(NotPermitted):
    """Too few people approved this very request."""


class QuorumNotMet(NotPermitted):
    """Too few key shares were released."""


class GateFailed(StanchError):
    """The gate refused the model."""

    exit_code = 1
    http_status = 409


class LeakFound(StanchError):
    """A leak was found."""

    exit_code = 1
    http_status = 409


class Inconclusive(StanchError):
    """The evidence does not decide either way."""

    exit_code = 5
    http_status = 409


class StoreError(StanchError):
    """The store failed; nothing half-written is accepted."""

    exit_code = 4
    http_status = 503


class NotFound(StoreError):
    """The named object does not exist."""

    exit_code = 2
    http_status = 404


class Conflict(StoreError):
    """The object exists already or changed meanwhile."""


class StoreUnsafe(StoreError):
    """The store cannot keep what it is asked to keep."""


class StoreTimeout(StoreError):
    """The store did not take or give what was asked for in the time that it has."""


class CommitUnknown(StoreError):
    """The connection broke at COMMIT; whether the change is durable must be read back."""


class LedgerUnavailable(StoreError):
    """The record could not be made durable; the act did not happen."""


class ClockWentBack(StoreError):
    """The clock is behind the last recorded time."""


class ClockAhead(StoreError):
    """The clock is ahead of the database server's."""


class OutcomeNotRecorded(StoreError):
    """The act ran, but its outcome could not be recorded; its result was withheld."""


class MissingExtraError(StanchError):
    """An optional part of stanch is not installed."""

    exit_code = 4
    http_status = 501

    def __init__(self, extra: str) -> None:
        super().__init__(
            f"this needs the optional part '{extra}', which is not installed",
            next_step=f"pip install 'stanch[{extra}]'",
        )
        self.extra = extra


class ExternalError(StanchError):
    """Another program or service failed."""

    exit_code = 4
    http_status = 502


def bug(error: Exception) -> StanchError:
    """Return what is shown of an exception that nobody raised on purpose: its type, never its text."""
    return StanchError(
        f"a bug in stanch: {type(error).__name__}",
        next_step="run the same command with --debug and report what it shows",
    )
