"""Time-stamps of signatures: asked for when a user names an authority, and the policy that demands them."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from stanch.crypto.timestamp import MAX_TIMESTAMP, QUERY_TYPE, TimestampQuery, TimestampRoots
from stanch.errors import ExternalError, NoTrustedSignature, PolicyViolation, VerificationError
from stanch.sign.bundle import Bundle, gather_evidence
from stanch.sign.policy import Evidence, TrustedKeys
from stanch.store.http import HttpRequest, exchange


@dataclass(frozen=True, slots=True)
class TimestampAuthority:
    """Whom to ask for time-stamps.

    Attributes:
        url: Where it answers.
        roots: What its certificate must descend from.
    """

    url: str
    roots: TimestampRoots


def stamp_bundle(bundle: Bundle, authority: TimestampAuthority) -> Bundle:
    """Return ``bundle`` with a time-stamp of each of its signatures.

    The authority learns the SHA-256 of the signatures and who asks, nothing else.

    Raises:
        ExternalError: It did not answer.
        NoTrustedSignature: Its answer is no time-stamp that its roots vouch for.
        MissingExtraError: rfc3161-client is not installed.
    """
    stamps = []
    for signature in (bundle.signature, *bundle.further):
        query = TimestampQuery.about(signature)
        request = HttpRequest("POST", authority.url, {"Content-Type": QUERY_TYPE}, query.data)
        answer = exchange(request, timeout_seconds=30, max_bytes=MAX_TIMESTAMP)
        if answer.status != 200:
            raise ExternalError("the time-stamping authority refused", why=f"it answered with status {answer.status}")
        authority.roots.verify(answer.body, signature, query=query)
        stamps.append(answer.body)
    return replace(bundle, timestamps=(*bundle.timestamps, *stamps))


@dataclass(frozen=True, slots=True)
class Timestamped:
    """``trusted`` must hold for signatures with a time-stamp alone, and for each as of the time that it says.

    So what a key signed before its ``not_after`` stays valid afterwards. The keys stand in this policy, and not beside
    it, so that a time-stamp of a stranger's signature over the same statement counts for nothing.

    Attributes:
        trusted: The keys.
        roots: The roots of time-stamping authorities.
    """

    trusted: TrustedKeys
    roots: TimestampRoots

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Return the ids of the keys whose time-stamped signatures count."""
        return frozenset(self._moments(evidence))

    def signed_at(self, bundle: Bundle) -> datetime:
        """Return when as many keys as the threshold demands had signed, at the latest.

        Raises:
            VerificationError: As :meth:`check`.
        """
        moments = sorted(self._moments(gather_evidence(bundle)).values())
        return moments[self.trusted.threshold - 1]

    def _moments(self, evidence: Evidence) -> dict[str, datetime]:
        """Return for each key whose signature counts the earliest time at which an authority saw one."""
        found: dict[str, datetime] = {}
        failures: list[VerificationError] = []
        for signature in evidence.signatures:
            moment = self._moment(signature, evidence.timestamps)
            if moment is None:
                continue
            try:
                signers = self._check_at(moment, replace(evidence, signatures=(signature,)))
            except VerificationError as error:
                failures.append(error)
                continue
            found |= {key_id: min(moment, found.get(key_id, moment)) for key_id in signers}
        if len(found) >= self.trusted.threshold:
            return found
        if failures and not found:
            raise failures[0]
        if found:
            raise NoTrustedSignature(
                f"too few time-stamped trusted signatures: expected {self.trusted.threshold}, found {len(found)}"
            )
        raise PolicyViolation(
            "no signature has a time-stamp of a trusted authority",
            next_step="the publisher adds one: stanch sign timestamp SIGNATURE --tsa URL --roots FILE",
        )

    def _check_at(self, moment: datetime, evidence: Evidence) -> frozenset[str]:
        return replace(self.trusted, threshold=1, clock=lambda: moment).check(evidence)

    def _moment(self, signature: bytes, timestamps: tuple[bytes, ...]) -> datetime | None:
        """Return the earliest time at which a trusted authority saw the signature."""
        moments = []
        for stamp in timestamps:
            with suppress(NoTrustedSignature):
                moments.append(self.roots.verify(stamp, signature))
        return min(moments, default=None)
