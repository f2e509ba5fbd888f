"""The audit of a model: the one place that knows the order of feature pass, tests, verdict and report."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

import stanch
from stanch.audit.coverage import list_coverage
from stanch.audit.evidence import Reason
from stanch.audit.exposure import CONTROL_P, measure_exposure
from stanch.audit.extraction import (
    Chance,
    Drawn,
    Extracted,
    Probe,
    chance_of,
    draw,
    extraction_curve,
    list_extracted,
    probe_of,
    sampling_key,
    summarise_rows,
    summarise_secrets,
)
from stanch.audit.features import AdapterOff, Scorer, plan_batches
from stanch.audit.first_look import look
from stanch.audit.integrity import Problem, check_plan, find_overlap, is_formal, require_same_base
from stanch.audit.membership import (
    MembershipResult,
    claim_p_value,
    holdout_membership,
    planned_membership,
    tie_seed_of,
)
from stanch.audit.near_verbatim import measure_near_verbatim
from stanch.audit.one_run import least_claim_p_value
from stanch.audit.params import ATTACK_PACK, MIN_COINS, AuditParams, preregister, registers_exposure
from stanch.audit.passes import Passing
from stanch.audit.reconstruction import ProbeSides, measure_reconstruction
from stanch.audit.repeated import summarise_repeated
from stanch.audit.report import Report, conclude
from stanch.audit.score_table import ScoreTable
from stanch.audit.scores import NEEDS_BASE
from stanch.audit.sections import (
    DpCheck,
    Exposure,
    Extraction,
    FeaturePass,
    ModelFile,
    ModelSummary,
    PlanSummary,
    PlanTier,
    Reconstruction,
    Shift,
    Tool,
)
from stanch.audit.shift import MIN_SIDE, is_shifted, measure_shift
from stanch.audit.subjects import HOLDOUT, MEMBER, AuditInput, Passes, Subjects, gather, run_passes, table_id, tabulate
from stanch.audit.verdict import DP_CLAIM_ERROR
from stanch.data import CanaryPlan, Record, TokenRecord, turns
from stanch.errors import InvalidInput
from stanch.terms import SILENT, NeighboringRelation, Progress

_MAX_OVERLAP = 0.1
_LIMITS = (
    "Says nothing about attacks that were not run; the coverage table lists them.",
    "Only verbatim text counts as extracted; a paraphrase does not.",
    "A small epsilon lower bound does not certify privacy: only differential privacy gives an upper bound.",
)
_NO_BASE = "Without the base model only suffix_loss/1 was tested, and rows that come out may be known to everybody."
_BLACK_BOX = (
    "The model was asked over a network: what it is made of was not seen; min_k_pp/1 and exact ranks of secrets were "
    "not run."
)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """A report, and what is kept out of it: scores by id, rows that come out and records found, as ids and positions.

    Attributes:
        report: The report; it holds no row, no secret and no id of a row.
        table: The scores of each canary, tested row and hold-out record.
        extracted: Rows that can be drawn out of the model; their text stands in the data set alone.
        flagged: Ids of members found one by one, with a false discovery rate of 5 %.
    """

    report: Report
    table: ScoreTable
    extracted: tuple[Extracted, ...] = field(repr=False)
    flagged: tuple[str, ...] = field(repr=False)


def utc_now() -> datetime:
    """Return the time of the system's clock."""
    return datetime.now(UTC)


def audit(
    target: Scorer,
    *,
    base: Scorer | AdapterOff | None,
    material: AuditInput,
    params: AuditParams | None = None,
    passing: Passing | None = None,
    progress: Progress = SILENT,
    clock: Callable[[], datetime] = utc_now,
) -> AuditResult:
    """Test whether ``target`` leaks what it was tuned on.

    Args:
        target: The tuned model.
        base: The model it was tuned from; :class:`AdapterOff` if that is the target without its adapter; None if it is
            not at hand (then only ``suffix_loss/1`` is tested).
        material: Canary plan, training rows, hold-out records; what is given decides the mode.
        params: The parameters; with a plan they must be those it registered.
        passing: Who does the feature passes, and where finished parts are kept; by default this process, nowhere.
        progress: Told after each record and secret.
        clock: Time of the report.

    Raises:
        InvalidInput: The material is empty or unusable, or ``base`` is not the base of ``target``.
    """
    params, passing = _testable(params or AuditParams(), base), passing or Passing()
    _check_material(material)
    subjects = gather(target, material, params)
    require_same_base(target, base, subjects.scored, params, tuned_from=material.tuned_from)
    what = "canaries" if subjects.canaries else "rows"
    passes = run_passes(target, base, subjects.scored, params, what=what, passing=passing, progress=progress)
    sides = _draw_sides(target, base, subjects, passes, params, passing=passing, progress=progress)
    rows, control = sides.rows, sides.control
    found = _Findings(tabulate(subjects, passes, material.plan))
    found.extraction = _extraction(material, subjects, passes, sides, params)
    if params.near_verbatim:
        probes = [row.probe for row in rows], [row.probe for row in control]
        near = measure_near_verbatim(target, base, *probes, progress=progress)
        found.extraction = dataclasses.replace(found.extraction, near_verbatim=near)
    if base is not None and params.reconstruction_values:
        found.reconstruction = _reconstruction(target, base, material, subjects, params, progress=progress)
    found.limits += [*material.limits] + [_NO_BASE] * (base is None) + [_BLACK_BOX] * (not target.white_box)
    if material.members and not rows:
        found.note(Problem(Reason.TOO_FEW_ROWS, "no row is long enough to be tested for extraction"))
    if material.plan is not None:
        problems = check_plan(material.plan, subjects.trained, target, params, material.commitment)
        found.note(*material.problems, *problems)
        found.exposure = _exposure(target, material.plan, params, found, progress=progress)
        found.note(*_control_problems(found.exposure))
        found.membership = _planned(material, material.plan, found.table, params)
    elif material.mode == "holdout":
        found.table = tabulate(subjects, passes, None, without=_overlap(material, found))
        found.shift = _shift(material, passes, found)
        found.membership = holdout_membership(found.table, params.scores, params)
    found.dp = _dp(material, params, found)
    report = conclude(_report(target, base, material, sides.seen, params, found=found, now=clock()))
    listed = list_extracted((*rows, *sides.repeated), params, controlled=bool(control))
    extracted = tuple(dataclasses.replace(row, record_id=table_id(row.record_id)) for row in listed)
    flagged = () if found.membership is None else found.membership.flagged or ()
    return AuditResult(report, found.table, extracted, flagged)


@dataclass(frozen=True, slots=True)
class _Sides:
    """What was drawn: rows of the sample, rows never tuned on, and rows outside the sample that are much repeated.

    ``seen`` is all that went through the models for it, and for the scores.
    """

    seen: Passes
    rows: tuple[Drawn, ...]
    control: tuple[Drawn, ...]
    repeated: tuple[Drawn, ...]


@dataclass(slots=True)
class _Findings:
    """What the tests found, gathered on the way to the report."""

    table: ScoreTable
    extraction: Extraction | None = None
    membership: MembershipResult | None = None
    exposure: Exposure | None = None
    reconstruction: tuple[Reconstruction, ...] = ()
    shift: Shift | None = None
    dp: DpCheck | None = None
    reasons: list[Reason] = field(default_factory=list)
    limits: list[str] = field(default_factory=lambda: list(_LIMITS))

    def note(self, *problems: Problem) -> None:
        for problem in problems:
            self.reasons.append(problem.reason)
            self.limits.append(f"{problem.reason}: {problem.found}.")


def _testable(params: AuditParams, base: Scorer | AdapterOff | None) -> AuditParams:
    """Return the parameters with the scores that can be computed; a plan that registered others will say so."""
    if base is not None:
        return params
    scores = tuple(name for name in params.scores if name not in NEEDS_BASE)
    if not scores:
        raise InvalidInput(
            "none of the chosen scores can be computed without the base model",
            next_step="give the base model, or choose suffix_loss/1",
        )
    return dataclasses.replace(params, scores=scores)


def _check_material(material: AuditInput) -> None:
    if material.plan is None and not material.members:
        raise InvalidInput(
            "nothing to audit with: no canary plan and no training rows", next_step="give --plan, --data or both"
        )
    if material.mode == "holdout" and min(len(material.members), len(material.holdout)) < MIN_SIDE:
        raise InvalidInput(
            f"hold-out audit: expected at least {MIN_SIDE} records on each side, "
            f"found {len(material.members)} members and {len(material.holdout)} others",
            next_step="keep more records out, or plan canaries",
        )


def _planned(material: AuditInput, plan: CanaryPlan, table: ScoreTable, params: AuditParams) -> MembershipResult:
    return planned_membership(
        table.formal_tiers(params.formal_tiers),
        params.scores,
        params,
        tie_seed=tie_seed_of(plan.plan_id),
        formal=is_formal(plan, material.commitment),
    )


def _exposure(
    target: Scorer, plan: CanaryPlan, params: AuditParams, found: _Findings, *, progress: Progress
) -> Exposure | None:
    if registers_exposure(params, plan.preregistration):
        return measure_exposure(target, plan, params, progress=progress)
    found.limits.append("Exposure was not tested: the plan registered other numbers of secrets or candidates, or none.")
    return None


def _control_problems(exposure: Exposure | None) -> list[Problem]:
    if exposure is None or exposure.fisher_out is None or exposure.fisher_out >= CONTROL_P:
        return []
    found = f"secrets that were held back stand out as well (p = {exposure.fisher_out:.1e})"
    return [Problem(Reason.CONTROL_FAILED, found)]


def _overlap(material: AuditInput, found: _Findings) -> frozenset[str]:
    """Return the prefixed ids of near-duplicates between the two sides; they are left out on both."""
    inside, outside = find_overlap(material.members, material.holdout)
    left = len(material.members) - len(inside), len(material.holdout) - len(outside)
    if len(outside) > _MAX_OVERLAP * max(len(material.holdout), 1) or (material.holdout and min(left) < MIN_SIDE):
        said = f"{len(outside)} of {len(material.holdout)} hold-out records are near-duplicates of training rows"
        found.note(Problem(Reason.HOLDOUT_NOT_DISJOINT, said))
        if min(left) < MIN_SIDE:
            return frozenset()
    return frozenset({MEMBER + name for name in inside} | {HOLDOUT + name for name in outside})


def _shift(material: AuditInput, passes: Passes, found: _Findings) -> Shift:
    """Run the blind test on the very records that the attack is tested on."""
    texts = {record.id: _whole_text(record) for record in material.members}
    texts |= {table_id(HOLDOUT + record.id): _whole_text(record) for record in material.holdout}
    losses = None
    if passes.base is not None:
        by_id = {table_id(name): float(f.lp.mean(dtype=np.float64)) for name, f in passes.base.items()}
        losses = np.array([by_id[name] for name in found.table.ids])
    shift = measure_shift([texts[name] for name in found.table.ids], found.table.member, losses)
    if is_shifted(shift):
        said = "members and hold-out records are told apart by their texts alone"
        found.note(Problem(Reason.DISTRIBUTION_SHIFT, said))
    return shift


def _whole_text(record: Record) -> str:
    return "\n".join(turn.content for turn in turns(record) if turn.role != "system")


def _draw_sides(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    subjects: Subjects,
    passes: Passes,
    params: AuditParams,
    *,
    passing: Passing,
    progress: Progress,
) -> _Sides:
    """Draw every row; those without scores are looked at for that, and the control in the target alone."""
    rows, control = (
        [record for record in records if record.id not in passes.target]
        for records in ((*subjects.rows, *subjects.repeated), subjects.holdout)
    )
    inside = passes.joined(look(target, base, rows, params, passing=passing, progress=progress))
    outside = look(target, None, control, params, passing=passing, progress=progress)
    seen = inside.joined(outside)
    return _Sides(
        seen,
        draw(_probes(subjects.rows), inside.target, inside.base, params),
        draw(_probes(subjects.holdout), seen.target, None, params),
        draw(_probes(subjects.repeated), inside.target, inside.base, params),
    )


def _probes(records: Sequence[TokenRecord]) -> Iterator[Probe]:
    return (probe for probe in map(probe_of, records) if probe is not None)


def _extraction(
    material: AuditInput,
    subjects: Subjects,
    passes: Passes,
    sides: _Sides,
    params: AuditParams,
) -> Extraction:
    rows, control = sides.rows, sides.control
    secrets = None
    if material.plan is not None:
        by_coin: dict[bool, list[Chance]] = {True: [], False: []}
        for canary, record in zip(material.plan.canaries, subjects.canaries, strict=True):
            if canary.kind != "secret":  # a base model may say its own text, and one rare token is no secret
                continue
            by_coin[canary.member].append(chance_of(passes.target[record.id], *record.span))
        secrets = summarise_secrets(by_coin[True], by_coin[False], params) if any(by_coin.values()) else None
    short = len(subjects.rows) - len(rows)
    return Extraction(
        decoding=params.decoding,
        n_budget=params.sample_budget,
        p=params.sample_probability,
        rows=summarise_rows(rows, control, params, too_short=short, census=subjects.census) if rows else None,
        secrets=secrets,
        tiers=summarise_repeated((*rows, *sides.repeated), subjects.copies, params, controlled=bool(control)),
        curve=extraction_curve(rows, control, params),
    )


def _reconstruction(
    target: Scorer,
    base: Scorer | AdapterOff,
    material: AuditInput,
    subjects: Subjects,
    params: AuditParams,
    *,
    progress: Progress,
) -> tuple[Reconstruction, ...]:
    tested = {table_id(record.id) for record in subjects.rows}
    members = [record for record in material.members if record.id in tested]
    plan_id = "" if material.plan is None else material.plan.plan_id
    sides = ProbeSides(members, material.holdout, material.max_tokens)
    return measure_reconstruction(target, base, sides, params, key=sampling_key(plan_id), progress=progress)


def _dp(material: AuditInput, params: AuditParams, found: _Findings) -> DpCheck | None:
    """Test a privacy claim where it can be compared: add/remove neighbours, one canary one unit, coins proven."""
    claim, plan = material.dp_claim, material.plan
    if claim is None:
        return None
    reason = ""
    if plan is None or not is_formal(plan, material.commitment):
        reason = "there are no coins that were proven to be fixed before the tuning"
    elif claim.relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
        reason = f"relation_not_comparable: neighbours are {claim.relation}"
    elif claim.unit != "record":
        reason = f"unit_not_comparable: a unit is {claim.unit}, and several canaries may be one"
    elif sum(canary.copies == 1 for canary in plan.canaries) < MIN_COINS:
        reason = f"fewer than {MIN_COINS} canaries with one copy"
    if plan is None or reason:
        found.limits.append(f"The privacy claim was not tested: {reason}.")
        return DpCheck(claim, material.accountant, None)
    p = claim_p_value(found.table, params.scores, claim, tie_seed=tie_seed_of(plan.plan_id))
    coins = sum(canary.copies == 1 for canary in plan.canaries)
    least = least_claim_p_value(coins, len(params.scores), claim)
    if least > DP_CLAIM_ERROR:
        found.limits.append(
            f"No leak could have falsified the privacy claim: with {coins} coins, epsilon {claim.epsilon:g} and delta "
            f"{claim.delta:g} the least p-value is {least:.2g}. More coins, or a stronger claim, can be falsified."
        )
    return DpCheck(claim, material.accountant, p)


def _report(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    material: AuditInput,
    seen: Passes,
    params: AuditParams,
    *,
    found: _Findings,
    now: datetime,
) -> Report:
    membership = found.membership or MembershipResult((), (), None, None, None, (), None)
    identity, plan = target.identity, material.plan
    base_digest = identity.base if base is None or isinstance(base, AdapterOff) else base.identity.model
    return Report(
        attack_pack=ATTACK_PACK,
        created=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=Tool("stanch", stanch.__version__),
        mode=material.mode,
        model=material.model or _summarise_model(target),
        adapter=_digest(identity.adapter),
        base=_digest(base_digest),
        tokenizer_digest=_digest(identity.tokenizer),
        dataset_digest=material.dataset_digest,
        plan=None if plan is None else _summarise_plan(plan, material, params),
        preregistration=preregister(params),
        tie_seed="0" if plan is None else str(tie_seed_of(plan.plan_id)),
        features=_summarise_pass(target, seen.records),
        scores=membership.scores,
        scan=membership.scan,
        membership=membership.membership,
        epsilon=membership.epsilon,
        power=membership.power,
        dp=found.dp,
        exposure=found.exposure,
        extraction=found.extraction,
        reconstruction=found.reconstruction,
        shift=found.shift,
        coverage=list_coverage(membership.membership, found.exposure, found.extraction, found.reconstruction),
        reasons=tuple(dict.fromkeys((*found.reasons, *membership.reasons))),
        limits=tuple(dict.fromkeys(found.limits)),
        scores_digest=str(found.table.digest),
    )


def _digest(value: str) -> str | None:
    return f"sha256:{value}" if value else None


def _summarise_model(target: Scorer) -> ModelSummary | None:
    digest = _digest(target.identity.model)
    files = tuple(ModelFile(name, size, f"sha256:{value}") for name, size, value in target.identity.files)
    return None if digest is None else ModelSummary(digest, files)


def _summarise_plan(plan: CanaryPlan, material: AuditInput, params: AuditParams) -> PlanSummary:
    tiers = dict.fromkeys((canary.tier, canary.copies) for canary in plan.canaries)
    return PlanSummary(
        plan_id=plan.plan_id,
        commitment=plan.commitment,
        evidence=material.commitment,
        tiers=tuple(
            PlanTier(
                tier=tier,
                copies=copies,
                n_in=sum(c.member for c in plan.canaries if c.tier == tier),
                n_out=sum(not c.member for c in plan.canaries if c.tier == tier),
                formal=copies == 1 if params.formal_tiers == ("all",) else tier in params.formal_tiers,
            )
            for tier, copies in tiers
        ),
    )


def _summarise_pass(target: Scorer, records: Sequence[TokenRecord]) -> FeaturePass:
    batches = sum(1 for _ in plan_batches(records, target.token_budget))
    tokens = sum(record.span[1] - record.span[0] for record in records)
    return FeaturePass(target.identity.dtype, batches, tokens)
