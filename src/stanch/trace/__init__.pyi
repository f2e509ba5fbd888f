from .budget import LIFETIME, PER_CASE, ErrorBudget, ErrorBudgetExhausted
from .canary_pairs import Pair, find_pairs
from .case import Case, Intake, is_case_id, open_case
from .chat import Chat
from .custody import Act, Custody, extend_custody, read_custody
from .decision import (
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
    judge,
)
from .evidence import (
    EvidencePack,
    LedgerProofs,
    PackForm,
    PackInvalid,
    VerifiedPack,
    pack,
    recompute_features,
    report_case,
    verify_pack,
)
from .examination import Examination, examine, load_examination
from .hunt import Hunt, HuntVerdict, ask_pairs, require_pairs
from .plan import CasePlan, PlanMismatch, ReleaseRecord, VerifiedCasePlan, beacons, fix_plan
from .receipt import Receipt, sign_receipt, verify_receipt
from .report_blocks import Report
from .report_html import render_html
from .report_json import render_json
from .report_nobody import report_nobody
from .report_pdf import render_pdf
from .stratum import shown_decoys
from .text_detection import TenantScore, TextDetection, detect_text
from .text_keys import TextRoot
from .text_scores import TextScores
from .transparency import Period, Transparency, render_transparency, report_transparency

__all__ = [
    "LIFETIME",
    "PER_CASE",
    "Accusation",
    "Accused",
    "Act",
    "Case",
    "CasePlan",
    "CaseVerdict",
    "Chat",
    "Custody",
    "Decision",
    "ErrorBudget",
    "ErrorBudgetExhausted",
    "EvidencePack",
    "Examination",
    "Hunt",
    "HuntVerdict",
    "Inconclusive",
    "Intake",
    "KeyHistory",
    "LedgerProofs",
    "NothingFound",
    "PackForm",
    "PackInvalid",
    "Pair",
    "Period",
    "PlanMismatch",
    "Reason",
    "Receipt",
    "ReleaseRecord",
    "Report",
    "TenantScore",
    "TextDetection",
    "TextRoot",
    "TextScores",
    "Transparency",
    "VerifiedCasePlan",
    "VerifiedPack",
    "ask_pairs",
    "beacons",
    "decide",
    "decision_to_json",
    "detect_text",
    "error_sentence",
    "examine",
    "extend_custody",
    "find_pairs",
    "fix_plan",
    "is_case_id",
    "judge",
    "load_examination",
    "open_case",
    "pack",
    "read_custody",
    "recompute_features",
    "render_html",
    "render_json",
    "render_pdf",
    "render_transparency",
    "report_case",
    "report_nobody",
    "report_transparency",
    "require_pairs",
    "shown_decoys",
    "sign_receipt",
    "verify_pack",
    "verify_receipt",
]
