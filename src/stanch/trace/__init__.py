"""From a copy that surfaced back to its recipient: custody, a plan logged beforehand, a decision, and evidence.

A suspect is taken into custody, what will be analysed is fixed and logged, the suspect is scored, and an accusation is
packed so that an opposing expert re-computes it with Python and numpy::

    case = open_case(folder, suspect, Intake("2027-014", "…", discovered, "a customer", "p_…"), opened=now)
    plan = fix_plan(case, release, epsilon=PER_CASE, budget=ErrorBudget(spent=earlier))
    # plan.digest goes into the log as payload.plan; its entry comes back
    examination = examine(case, VerifiedCasePlan(plan, entry), release, actor="p_…", at=now)
    decision = decide(case, examination, KeyHistory(committed))  # Accused | NothingFound | Inconclusive
    pack(case, decision, examination, release, proofs, case_key, out)
    verify_pack(out, key=case_key.public, vkey=log.verifier.vkey)

``release`` is a :class:`ReleaseRecord`: original, mark plan, batch and keys. Nothing here writes the log or knows who
may do what. A finding proves *this copy or a derivative of it*, never *this person*. The format of packs is in
``docs/spec/evidence-pack.md``.
"""

from stanch.trace.budget import LIFETIME, PER_CASE, ErrorBudget, ErrorBudgetExhausted
from stanch.trace.case import Case, Intake, open_case
from stanch.trace.custody import Act, Custody, extend_custody, read_custody
from stanch.trace.decision import (
    Accusation,
    Accused,
    CaseVerdict,
    Decision,
    Inconclusive,
    KeyHistory,
    NothingFound,
    Reason,
    decide,
    decision_to_json,
    error_sentence,
)
from stanch.trace.evidence import (
    EvidencePack,
    LedgerProofs,
    PackInvalid,
    VerifiedPack,
    pack,
    recompute_features,
    verify_pack,
)
from stanch.trace.examination import Examination, examine, load_examination
from stanch.trace.plan import CasePlan, PlanMismatch, ReleaseRecord, VerifiedCasePlan, fix_plan
from stanch.trace.receipt import Receipt, sign_receipt, verify_receipt
from stanch.trace.text_detection import TenantScore, TextDetection, detect_text
from stanch.trace.text_keys import TextRoot
from stanch.trace.text_scores import TextScores
from stanch.trace.transparency import Period, Transparency, render_transparency, report_transparency

__all__ = [
    "LIFETIME",
    "PER_CASE",
    "Accusation",
    "Accused",
    "Act",
    "Case",
    "CasePlan",
    "CaseVerdict",
    "Custody",
    "Decision",
    "ErrorBudget",
    "ErrorBudgetExhausted",
    "EvidencePack",
    "Examination",
    "Inconclusive",
    "Intake",
    "KeyHistory",
    "LedgerProofs",
    "NothingFound",
    "PackInvalid",
    "Period",
    "PlanMismatch",
    "Reason",
    "Receipt",
    "ReleaseRecord",
    "TenantScore",
    "TextDetection",
    "TextRoot",
    "TextScores",
    "Transparency",
    "VerifiedCasePlan",
    "VerifiedPack",
    "decide",
    "decision_to_json",
    "detect_text",
    "error_sentence",
    "examine",
    "extend_custody",
    "fix_plan",
    "load_examination",
    "open_case",
    "pack",
    "read_custody",
    "recompute_features",
    "render_transparency",
    "report_transparency",
    "sign_receipt",
    "verify_pack",
    "verify_receipt",
]
