"""What an audit does, fixed before the tuning begins: parameters and their pre-registration."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from stanch.audit.codec import to_json
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

ATTACK_PACK: Final = 2
"""Number of the set of attacks that this release runs; a certificate names the one it was made with.

Pack 2 looks in both directions (members may score lower, too), and counts what greedy decoding gives.
"""

MIN_COINS: Final = 32
"""Fewest coins for which the scan test is run."""

DEFAULT_ALPHA: Final = 0.05
"""Error probability of an audit that registers no other."""

MIN_CANDIDATES: Final = 99
"""Fewest candidates of a secret's rank that the gate takes: ten secrets that all come first then reach p = 3e-11."""

MIN_ALPHA: Final = 0.001
"""The least that may be registered: a verdict may not be made deaf to leaks by asking for certainty."""

BOUND_CONFIDENCE: Final = 0.95
"""Confidence of every bound that the gate compares with a threshold."""

Order = Literal["in", "out", "two_sided", "reversed_in", "reversed_out", "reversed_two_sided"]
DIRECT_ORDERS: Final[tuple[Order, ...]] = ("in", "out", "two_sided")
"""Guess orders that take higher scores for those of members."""

REVERSED_ORDERS: Final[tuple[Order, ...]] = ("reversed_in", "reversed_out", "reversed_two_sided")
"""The same of the negated scores: unlearning by gradient ascent leaves members lower scores than all others."""

ORDERS: Final = (*DIRECT_ORDERS, *REVERSED_ORDERS)


def count_parts(orders: Collection[Order]) -> int:
    """Return how many parts of alpha the orders of a score take: one for each direct order, one for all reversed ones.

    The reversed ones need little: what they are there for shows clearly. So the others lose hardly any power.
    """
    return sum(order in DIRECT_ORDERS for order in orders) + any(order in REVERSED_ORDERS for order in orders)


def count_sharers(order: Order, orders: Collection[Order]) -> int:
    """Return how many of ``orders`` share the part of ``order``."""
    return sum(other in REVERSED_ORDERS for other in orders) if order in REVERSED_ORDERS else 1


Mode = Literal["planned", "holdout", "bare"]
"""Where the evidence comes from: canaries put in by coins, records kept out, or members alone."""

TESTED_SCORES: Final = ("ratio/1", "suffix_loss/1", "ez/1")
"""Scores that may enter a verdict, in the order of preference; the first of an audit is its headline score."""

ROWS_TIER: Final = "row"
"""Tier of ordinary records (members and hold-out) in a score table; every other tier holds canaries."""

_EXPOSURE = ("exposure_secrets", "exposure_candidates")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an attacker draws text: the ``top_k`` likeliest tokens at ``temperature``."""

    top_k: int = 40
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditParams:
    """Parameters of an audit; the defaults are those of the attack pack.

    Attributes:
        alpha: Total error probability of the epsilon bound, shared over scores, orders and formal tiers; and
            of a planned audit's verdict, shared over its families.
        scores: Scores that are tested; a subset of :data:`TESTED_SCORES`.
        orders: Guess orders of the scan test.
        formal_tiers: ``("all",)`` pools every canary with one copy; else names of tiers that are tested formally.
        detectable_auc: Strength of the attack that a verdict of NO LEAK DETECTED claims it would have seen.
        min_power: Probability with which it would have been seen.
        decoding: The decoding whose samples an attacker draws.
        sample_budget: How many samples the attacker may draw for one row or secret.
        sample_probability: With which probability one of them must be the text to count as extractable.
        rows: How many rows are tested for extraction when the data set has more.
        tree_budget: A secret is ranked exactly if that surely takes no more node-forwards than this; else by sample.
        exposure_candidates: Uniform candidates per secret behind the exposure p-value.
        exposure_secrets: How many secrets put in, and how many held back, are ranked; the first of the plan.
        reconstruction_values: How many personal values of rows, and of hold-out rows, are guessed among 100 candidates,
            and how many values that a scan is not sure of; 0: none.
        near_verbatim: Whether rows are also counted that come out nearly word for word.
    """

    alpha: float = DEFAULT_ALPHA
    scores: tuple[str, ...] = TESTED_SCORES
    orders: tuple[Order, ...] = ORDERS
    formal_tiers: tuple[str, ...] = ("all",)
    detectable_auc: float = 0.60
    min_power: float = 0.80
    decoding: Decoding = Decoding()
    sample_budget: int = 10_000
    sample_probability: float = 0.9
    rows: int = 3000
    tree_budget: int = 6000
    exposure_candidates: int = 999
    exposure_secrets: int = 16
    reconstruction_values: int = 32
    near_verbatim: bool = False

    def __post_init__(self) -> None:
        if not self.scores or len(set(self.scores)) != len(self.scores) or not set(self.scores) <= set(TESTED_SCORES):
            raise InvalidInput(
                f"audit scores: expected some of {', '.join(TESTED_SCORES)}, found {', '.join(self.scores) or 'none'}"
            )
        if not self.orders or len(set(self.orders)) != len(self.orders) or not set(self.orders) <= set(ORDERS):
            raise InvalidInput(f"audit orders: expected some of {', '.join(ORDERS)}, found {self.orders!r}")
        if not self.formal_tiers or len(set(self.formal_tiers)) != len(self.formal_tiers):
            raise InvalidInput(f"audit formal tiers: expected distinct names, found {self.formal_tiers!r}")
        if not MIN_ALPHA <= self.alpha < 1:
            raise InvalidInput(f"alpha: expected a number from {MIN_ALPHA} to 1, found {self.alpha}")
        _check_open_unit("min_power", self.min_power)
        _check_open_unit("sample_probability", self.sample_probability)
        if not 0.5 < self.detectable_auc < 1:
            raise InvalidInput(f"detectable_auc: expected a number between 0.5 and 1, found {self.detectable_auc}")
        for name in ("sample_budget", "rows", "tree_budget", "exposure_candidates", "exposure_secrets"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.reconstruction_values < 0:
            raise InvalidInput(f"reconstruction_values: expected at least 0, found {self.reconstruction_values}")

    @property
    def splits(self) -> int:
        """Into how many equal parts ``alpha`` is divided; the reversed orders of a score and tier share one."""
        return len(self.scores) * count_parts(self.orders) * len(self.formal_tiers)


def _check_open_unit(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InvalidInput(f"{name}: expected a number between 0 and 1, found {value}")


@dataclass(frozen=True, slots=True)
class PreRegistration:
    """What an audit promises before the tuning; part of the committed plan digest.

    Only what could be chosen after looking at scores is in it. Power targets and the number of tested rows are not:
    they change how much an audit can see, never its error rate. What is None was not registered, before attack pack 2.
    """

    attack_pack: int
    scores: tuple[str, ...]
    orders: tuple[Order, ...]
    guess_grid: str
    epsilon_grid: str
    alpha: float
    splits: int
    formal_tiers: tuple[str, ...]
    decoding: Decoding
    sample_budget: int
    sample_probability: float
    exposure_secrets: int | None = None
    exposure_candidates: int | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the object that goes into the plan's digest."""
        return to_json(self)

    def differs_from(self, registered: Mapping[str, JsonValue]) -> str | None:
        """Return the first field in which a plan's pre-registration differs from this one, or None."""
        mine = self.to_json()
        return next((name for name in sorted({*mine, *registered}) if mine.get(name) != registered.get(name)), None)


def preregister(params: AuditParams) -> PreRegistration:
    """Return what must be inside the committed digest of a canary plan before tuning begins."""
    return PreRegistration(
        attack_pack=ATTACK_PACK,
        scores=params.scores,
        orders=params.orders,
        guess_grid="floor(8*(m/8)^(i/39)+1/2),i=0..39",
        epsilon_grid="k/100,k=0..2000",
        alpha=params.alpha,
        splits=params.splits,
        formal_tiers=params.formal_tiers,
        decoding=params.decoding,
        sample_budget=params.sample_budget,
        sample_probability=params.sample_probability,
        exposure_secrets=params.exposure_secrets,
        exposure_candidates=params.exposure_candidates,
    )


def as_registered(params: AuditParams, registered: Mapping[str, JsonValue]) -> AuditParams:
    """Return the parameters with as many secrets and candidates for exposure as a plan registered, if it did."""
    secrets, candidates = (registered.get(name) for name in _EXPOSURE)
    if not isinstance(secrets, int) or not isinstance(candidates, int):
        return params
    return replace(params, exposure_secrets=secrets, exposure_candidates=candidates)


def registers_exposure(params: AuditParams, registered: Mapping[str, JsonValue]) -> bool:
    """Say whether a plan registered these secrets and candidates: chosen afterwards they make any p-value."""
    return all(registered.get(name) == getattr(params, name) for name in _EXPOSURE)
