"""Leak tests of a tuned model, the leak certificate, and the gate.

An audit answers one question, "does this tuned model leak what it was tuned on?", with numbers that carry their error
rates: a verdict, a lower bound for epsilon with ceiling and power, rates with honest intervals, rows and secrets
that come out, and a predicate that :mod:`stanch.sign` turns into a certificate bound to the model's files. The gate
holds that certificate against a policy and the files as they are now.

Example:
    >>> import numpy as np
    >>> coins = np.arange(512) % 3 == 0
    >>> scores = coins + np.linspace(0.0, 0.5, 512)  # a model that shows each member
    >>> result = scan_epsilon(scores, coins, orders=("in",))
    >>> result.lower <= result.ceiling
    True

The statistics (:func:`scan_epsilon`, :func:`auc`, :func:`audit_scores` ...), certificate and gate need numpy and scipy
alone. :func:`audit` runs a model through :class:`stanch.audit.hf_torch.HfScorer`, which needs the extra ``train``.
No figure here certifies privacy: a small lower bound says that the attacks run found little.
"""

from stanch.audit.charts import (
    CHART_CSS,
    ExposurePoint,
    RocCurve,
    exposure_chart,
    extraction_chart,
    histogram_chart,
    roc_chart,
)
from stanch.audit.ci_formats import to_junit, to_markdown, to_sarif
from stanch.audit.evidence import Reason
from stanch.audit.extraction import Extracted
from stanch.audit.features import AdapterOff, Scorer, tokenizer_digest
from stanch.audit.gate import GateBreached, GateDecision, GateInconclusive, GatePassed, Outcome, RuleOutcome, gate
from stanch.audit.gate_policy import GatePolicy, ReleaseContext, parse_policy, read_policy
from stanch.audit.html import render_html
from stanch.audit.leakcert import LEAKCERT_TYPE, LeakCert, model_subjects, predicate
from stanch.audit.multiplicity import benjamini_hochberg, conformal_p_values
from stanch.audit.one_run import dp_claim_p_value, one_run_p_value
from stanch.audit.params import ATTACK_PACK, AuditParams, PreRegistration, preregister
from stanch.audit.passes import LocalPass, PassEngine, Passing
from stanch.audit.power import scan_power
from stanch.audit.rates import Suppressed, auc, clopper_pearson, permutation_p_value, tnr_at_fnr, tpr_at_fpr
from stanch.audit.report import Report, conclude
from stanch.audit.run import AuditResult, audit
from stanch.audit.scan_test import ScanResult, scan_epsilon
from stanch.audit.score_table import ScoreTable, read_table
from stanch.audit.subjects import AuditInput
from stanch.audit.table_audit import audit_scores, check_report, recompute

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
