"""The examination of a suspect under a logged plan, kept in the case folder."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from stanch.crypto import canonical_json, parse_json, write_atomic
from stanch.errors import InvalidInput, NotFound
from stanch.mark import BaseNeeded, Detection, detect
from stanch.terms import SILENT, Digest, EntryRef, Progress
from stanch.trace.case import Case
from stanch.trace.custody import Act, utc
from stanch.trace.plan import CasePlan, ReleaseRecord, VerifiedCasePlan, refuse_old_plan

FILE = "examination.json"
_MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Examination:
    """What the analyses of a plan showed.

    Attributes:
        plan: The plan that was followed, and where it stands in the log.
        detection: Every recipient's scores.
        examined_at: When, ``YYYY-MM-DDTHH:MM:SSZ``.
    """

    plan: VerifiedCasePlan
    detection: Detection
    examined_at: str

    @property
    def case(self) -> str:
        """Id of the case."""
        return self.plan.plan.case


class _ExaminationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan: CasePlan
    plan_entry: int
    plan_leaf_hash: str
    plan_act: str
    examined_at: str
    detection: Detection
    schema: Literal["urn:stanch:trace-examination:v1"] = "urn:stanch:trace-examination:v1"


def examine(
    case: Case,
    plan: VerifiedCasePlan,
    release: ReleaseRecord,
    *,
    actor: str,
    at: datetime,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Examination:
    """Score the suspect as planned, write it down in the chain of custody, and keep the result in the case folder.

    Suspect and original are hashed before and the suspect again afterwards, so that what was scored is what was taken
    into custody. An examination that was killed or failed is done again from the start: the same plan gives the same
    scores, so that it spends nothing; each that came to its end has a line of the chain.

    Args:
        case: The case.
        plan: Its plan, logged before.
        release: The release that the plan names.
        actor: Who does it.
        at: When.
        threads: 0 means one a processor; the result does not depend on it.
        progress: Told about each variant.

    Raises:
        PlanMismatch: The plan is about another case, suspect or release.
        CustodyBroken: Chain or suspect were changed.
        InvalidInput: The original is another one, or the suspect cannot be read.
        Conflict: Another process examines the case.
    """
    with case.held():
        plan.plan.check(case, release)
        case.check_suspect()
        release.check_original()
        keys = release.closed_keys(case.custody().acquired)
        originals, scores = release.originals, plan.plan.score_plan
        try:
            detection = detect(originals, case.suspect_folder, keys, scores, threads=threads, progress=progress)
        except BaseNeeded:
            # The release was committed to without a base. One named now could be chosen to fit somebody's key.
            detection = Detection.without_base(originals, scores)
        case.check_suspect()
        note = f"examined under plan {plan.plan.digest}, log entry {plan.entry.index}"
        case.extend(Act(actor, "examined", at, note))
        examination = Examination(plan, detection, utc(at))
        _save(case, examination)
    return examination


def _save(case: Case, examination: Examination) -> None:
    entry = examination.plan.entry
    file = _ExaminationFile(
        plan=examination.plan.plan,
        plan_entry=entry.index,
        plan_leaf_hash=entry.leaf_hash.hex(),
        plan_act=entry.act,
        examined_at=examination.examined_at,
        detection=examination.detection,
    )
    write_atomic(case.folder / FILE, canonical_json(msgspec.to_builtins(file)), mode=0o600)


def load_examination(case: Case) -> Examination:
    """Read the examination of a case.

    Raises:
        NotFound: The case was not examined yet.
        InvalidInput: The file is not an examination of this case.
    """
    path = case.folder / FILE
    if not path.is_file():
        raise NotFound(f"case {case.id}: was not examined yet", next_step="examine it under a logged plan")
    try:
        fields = parse_json(path.read_bytes(), what=str(path), max_bytes=_MAX_BYTES)
        refuse_old_plan(fields.get("plan") if isinstance(fields, dict) else None, str(path))
        file = msgspec.convert(fields, _ExaminationFile)
        entry = EntryRef(file.plan_entry, Digest("sha256", bytes.fromhex(file.plan_leaf_hash)).value, file.plan_act)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidInput(f"{path}: not an examination", why=str(error)) from error
    if (file.plan.case, file.plan.suspect) != (case.id, str(case.suspect)):
        raise InvalidInput(f"{path}: it is about another case or suspect")
    if file.detection.plan != file.plan.score_plan or file.detection.threshold != file.plan.threshold:
        raise InvalidInput(f"{path}: its scores were not made under its plan")
    return Examination(VerifiedCasePlan(file.plan, entry), file.detection, file.examined_at)
