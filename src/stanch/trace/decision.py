"""The decision of a case: whom the scores accuse, or what they allow to be said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from stanch.errors import CustodyBroken
from stanch.mark import Detection, RecipientScore, Variant, colluders
from stanch.mark.strength import TREATMENTS
from stanch.terms import JsonValue
from stanch.trace.case import Case
from stanch.trace.custody import utc
from stanch.trace.examination import Examination
from stanch.trace.plan import CasePlan, opened_before

_TOLD = 5
_MARGIN = 4.0  # a copy whose score is expected at τ + 4 is missed with chance about 3e-5


class CaseVerdict(StrEnum):
    """How a case ends."""

    ACCUSED = "accused"
    NOTHING = "nothing"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why a case is inconclusive."""

    TOO_LITTLE_MATCHED = (
        "nobody was found, and less than a quarter of the marked weights was recognised: the suspect shares none with "
        "the original, or they were rearranged"
    )
    DECOYS_IMPLAUSIBLE = "keys that were never issued do not score like noise"
    BASE_MISSING = (
        "nothing was compared: the suspect is a whole model, and the release an adapter that was proposed without its "
        "base model"
    )
    CUSTODY_BROKEN = "the chain of custody or the suspect was changed"
    WEIGHTS_UNREAD = "nobody was found, and the suspect holds what could be weights and was not read"
    KEYS_TOO_LATE = "the suspect was found before the keys were committed to"
    KEY_DISCLOSED = "the keys of all who were found had been disclosed before the suspect was taken into custody"


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """What the log says about a batch of keys.

    Attributes:
        committed: When the batch was committed to.
        disclosed: When each leaf was first opened to anybody; its holder can add or remove that mark from then on.
    """

    committed: datetime
    disclosed: Mapping[int, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accusation:
    """One recipient from whose copy the suspect was made: leaf, best variant, z, and the bound on log10 of p."""

    recipient: str
    batch: int
    leaf: int
    variant: Variant
    z: float
    log10_p: float

    @classmethod
    def of(cls, score: RecipientScore) -> "Accusation":
        """Take what an accused recipient's score says."""
        return cls(score.recipient, score.batch, score.leaf, score.variant, score.best, score.log10_p)


@dataclass(frozen=True, slots=True)
class Accused:
    """Every recipient whose score reached τ.

    Attributes:
        recipients: Those accused.
        next_z: The highest score of those that did not reach τ.
        disclosed: Recipients whose score reached τ and who are not accused: their keys had been disclosed before.
    """

    recipients: tuple[Accusation, ...]
    next_z: float
    disclosed: tuple[str, ...] = ()
    verdict = CaseVerdict.ACCUSED


@dataclass(frozen=True, slots=True)
class NothingFound:
    """No recipient reached τ.

    Attributes:
        power: What would have been found, in words.
        next_z: The highest score.
        unmarked_original: Whether the suspect is the unmarked original itself, which no recipient ever had.
    """

    power: str
    next_z: float
    unmarked_original: bool
    verdict = CaseVerdict.NOTHING


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """The evidence does not decide."""

    reason: Reason
    detail: str
    verdict = CaseVerdict.INCONCLUSIVE


Decision: TypeAlias = Accused | NothingFound | Inconclusive


def error_sentence(plan: CasePlan) -> str:
    """Return the sentence that states the error bound, with the plan's numbers."""
    return (
        f"The probability, over the secret keys, that any innocent recipient, of {plan.n} that the batch may have, "
        f"would be accused of any suspect file in {plan.analyses} analyses is at most {plan.epsilon}."
    )


def decide(case: Case, examination: Examination, history: KeyHistory) -> Decision:
    """Decide a case from its examination; chain and suspect are checked again.

    Guarantee: that of :func:`error_sentence`. A suspect older than the keys accuses nobody, and neither does a key that
    had been opened to somebody before the suspect was taken into custody.
    """
    try:
        acquired = case.custody().acquired
        case.check_suspect()
    except CustodyBroken as error:
        return Inconclusive(Reason.CUSTODY_BROKEN, error.what)
    return judge(case.discovered, acquired, examination, history)


def judge(discovered: str, acquired: str, examination: Examination, history: KeyHistory) -> Decision:
    """Decide as :func:`decide` does, for a suspect whose chain and files were checked or are not looked at again.

    ``discovered`` and ``acquired`` say when it was found and taken into custody, ``YYYY-MM-DDTHH:MM:SSZ``.
    """
    # The times are of one form, so that they compare as text.
    committed = utc(history.committed)
    if discovered < committed or acquired < committed:
        return Inconclusive(Reason.KEYS_TOO_LATE, f"found {discovered}, keys committed to {committed}")
    found = examination.detection
    if not found.decoys_plausible:
        return Inconclusive(Reason.DECOYS_IMPLAUSIBLE, "the statistic did not behave as it must; no score is relied on")
    if found.accused:
        return _accuse(tuple(Accusation.of(score) for score in found.accused), found.next_z, acquired, history)
    if found.needs_base:
        told = "get the adapter itself from whoever holds the suspect, and open a case about it; --base with "
        return Inconclusive(Reason.BASE_MISSING, f"{told}`stanch release propose` lets later releases be traced")
    # The bound holds whatever share was compared; what is absent can only keep a copy from being found.
    more = f" and {len(found.unread) - _TOLD} more" if found.unread[_TOLD:] else ""
    unread = f"{', '.join(found.unread[:_TOLD])}{more}"
    if found.too_little:
        share = f"{found.matched:.1%} of {found.coordinates:,} coordinates"
        return Inconclusive(Reason.TOO_LITTLE_MATCHED, f"{share}; not read: {unread}" if unread else share)
    if unread:
        told = "open a case about each file of them alone, and bring tensors of an unknown form into floats first"
        return Inconclusive(Reason.WEIGHTS_UNREAD, f"{unread}; {told}")
    return NothingFound(_power(examination), found.next_z, _is_original(found))


def _accuse(
    reached: tuple[Accusation, ...], next_z: float, acquired: str, history: KeyHistory
) -> Accused | Inconclusive:
    """Accuse those who reached τ, but for keys that were disclosed before the suspect was in custody."""
    early = opened_before(history.disclosed, acquired)
    disclosed = tuple(item.recipient for item in reached if item.leaf in early)
    left = tuple(item for item in reached if item.leaf not in early)
    if not left:
        return Inconclusive(Reason.KEY_DISCLOSED, ", ".join(disclosed))
    return Accused(left, next_z, disclosed)


def _is_original(found: Detection) -> bool:
    """Say whether the suspect equals the original at every marked weight: then ``plain`` shows nothing at all."""
    plain = next((result for result in found.variants if result.variant is Variant.PLAIN), None)
    return plain is not None and plain.matched == found.coordinates and plain.decoys is None and plain.release_z == 0


def _power(examination: Examination) -> str:
    """Say which copies would have been found, each missed with chance about 3e-5."""
    plan, matched = examination.plan.plan, examination.detection.matched
    release, wanted = plan.release, plan.threshold + _MARGIN
    reach = {
        name: int(colluders(release.coordinates, release.alpha, noise, wanted, matched))
        for name, noise in TREATMENTS.items()
    }
    told = [f"{name}: {count}" for name, count in reach.items() if count]
    lost = [name for name, count in reach.items() if not count]
    said = (
        f"A copy of release {release.name} treated as follows, alone or averaged from up to so many recipients' "
        f"copies, would have been found, each missed with chance about 3e-5: {', '.join(told) or 'none'}."
    )
    return f"{said} Not certain to be found, even alone: {', '.join(lost)}." if lost else said


def decision_to_json(decision: Decision, examination: Examination) -> dict[str, JsonValue]:
    """Return ``stanch/trace-result/v1``: the decision with all numbers that it rests on, and no key."""
    found, plan = examination.detection, examination.plan.plan
    accused = decision.recipients if isinstance(decision, Accused) else ()
    said: dict[str, JsonValue] = {}
    if isinstance(decision, Accused) and decision.disclosed:
        said = {"disclosed": list(decision.disclosed)}
    if isinstance(decision, NothingFound):
        said = {"power": decision.power, "unmarked_original": decision.unmarked_original}
    if isinstance(decision, Inconclusive):
        said = {"reason": str(decision.reason), "detail": decision.detail}
    return {
        "schema": "stanch/trace-result/v1",
        "case": plan.case,
        "suspect": plan.suspect,
        "release": plan.release.original,
        "verdict": str(decision.verdict),
        "accused": [_accusation_json(item) for item in accused],
        "next_z": found.next_z,
        "release_z": found.release_z,
        "threshold": plan.threshold,
        "n": plan.n,
        "analyses": plan.analyses,
        "epsilon": plan.epsilon,
        "sentence": error_sentence(plan),
        "coordinates": found.coordinates,
        "matched": found.matched,
        "unmatched": list(found.unmatched),
        "unread": list(found.unread),
        **said,
    }


def _accusation_json(item: Accusation) -> JsonValue:
    return {
        "recipient": item.recipient,
        "leaf": item.leaf,
        "batch": item.batch,
        "variant": str(item.variant),
        "z": item.z,
        "log10_p": item.log10_p,
    }
