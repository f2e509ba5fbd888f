from .charts import (
    CHART_CSS,
    ExposurePoint,
    RocCurve,
    exposure_chart,
    extraction_chart,
    histogram_chart,
    roc_chart,
)
from .ci_formats import to_junit, to_markdown, to_sarif
from .evidence import Reason
from .extraction import Extracted
from .features import AdapterOff, Scorer, tokenizer_digest
from .gate import GateBreached, GateDecision, GateInconclusive, GatePassed, Outcome, RuleOutcome, gate
from .gate_policy import GatePolicy, ReleaseContext, parse_policy, read_policy, require_as_strict
from .html import render_html
from .leakcert import LEAKCERT_TYPE, LeakCert, model_subjects, predicate
from .multiplicity import benjamini_hochberg, conformal_p_values
from .one_run import dp_claim_p_value, one_run_p_value
from .params import ATTACK_PACK, AuditParams, PreRegistration, preregister
from .passes import LocalPass, PassEngine, Passing
from .power import scan_power
from .rates import Suppressed, auc, clopper_pearson, permutation_p_value, tnr_at_fnr, tpr_at_fpr
from .report import Report, conclude
from .run import AuditResult, audit
from .scan_test import ScanResult, scan_epsilon
from .score_table import ScoreTable, read_table
from .subjects import AuditInput
from .table_audit import audit_scores, check_report, recompute

__all__ = [
    "ATTACK_PACK",
    "CHART_CSS",
    "LEAKCERT_TYPE",
    "AdapterOff",
    "AuditInput",
    "AuditParams",
    "AuditResult",
    "ExposurePoint",
    "Extracted",
    "GateBreached",
    "GateDecision",
    "GateInconclusive",
    "GatePassed",
    "GatePolicy",
    "LeakCert",
    "LocalPass",
    "Outcome",
    "PassEngine",
    "Passing",
    "PreRegistration",
    "Reason",
    "ReleaseContext",
    "Report",
    "RocCurve",
    "RuleOutcome",
    "ScanResult",
    "ScoreTable",
    "Scorer",
    "Suppressed",
    "auc",
    "audit",
    "audit_scores",
    "benjamini_hochberg",
    "check_report",
    "clopper_pearson",
    "conclude",
    "conformal_p_values",
    "dp_claim_p_value",
    "exposure_chart",
    "extraction_chart",
    "gate",
    "histogram_chart",
    "model_subjects",
    "one_run_p_value",
    "parse_policy",
    "permutation_p_value",
    "predicate",
    "preregister",
    "read_policy",
    "read_table",
    "recompute",
    "render_html",
    "require_as_strict",
    "roc_chart",
    "scan_epsilon",
    "scan_power",
    "tnr_at_fnr",
    "to_junit",
    "to_markdown",
    "to_sarif",
    "tokenizer_digest",
    "tpr_at_fpr",
]
