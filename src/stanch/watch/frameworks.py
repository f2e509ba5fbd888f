"""Other people's lists of threats: the identifiers that are used here, and which of them a detector's signal points to.

The one place where they are written. Published lists are theirs; the words here are ours.
"""

from dataclasses import dataclass

FRAMEWORKS = {
    "AML.T0010.003": "MITRE ATLAS: AI Supply Chain Compromise: Model",
    "AML.T0018": "MITRE ATLAS: Manipulate AI Model",
    "AML.T0024": "MITRE ATLAS: Exfiltration via AI Inference API",
    "AML.T0024.000": "MITRE ATLAS: Infer Training Data Membership",
    "AML.T0024.001": "MITRE ATLAS: Invert AI Model",
    "AML.T0024.002": "MITRE ATLAS: Extract AI Model",
    "AML.T0025": "MITRE ATLAS: Exfiltration via Cyber Means",
    "AML.T0035": "MITRE ATLAS: AI Artifact Collection",
    "AML.T0044": "MITRE ATLAS: Full AI Model Access",
    "AML.T0057": "MITRE ATLAS: LLM Data Leakage",
    "LLM02:2026": "OWASP Top 10 for LLM applications: Sensitive Information Disclosure",
    "LLM04:2026": "OWASP Top 10 for LLM applications: Supply Chain",
    "LLM05:2026": "OWASP Top 10 for LLM applications: Data and Model Poisoning",
    "LLM06:2026": "OWASP Top 10 for LLM applications: Unbounded Consumption",
    "NISTAML.031": "NIST AI 100-2 E2025: Model Extraction",
    "NISTAML.032": "NIST AI 100-2 E2025: Data Reconstruction",
    "NISTAML.033": "NIST AI 100-2 E2025: Membership Inference",
    "NISTAML.038": "NIST AI 100-2 E2025: Data Extraction",
    "EDPB 28/2024 55(i)": "EDPB Opinion 28/2024, paragraph 55: attribute and membership inference",
    "EDPB 28/2024 55(ii)": "EDPB Opinion 28/2024, paragraph 55: exfiltration",
    "EDPB 28/2024 55(iii)": "EDPB Opinion 28/2024, paragraph 55: regurgitation of training data",
    "EDPB 28/2024 55(iv)": "EDPB Opinion 28/2024, paragraph 55: model inversion",
    "EDPB 28/2024 55(v)": "EDPB Opinion 28/2024, paragraph 55: reconstruction",
    "GDPR 33": "GDPR Article 33: a breach is told to the authority within 72 hours",
    "RAND central copies": "RAND RR-A2849-1: few, controlled and monitored systems hold the weights",
    "RAND few people": "RAND RR-A2849-1: fewer people have access to the weights",
    "RAND hard interfaces": "RAND RR-A2849-1: interfaces are hardened against taking weights out",
    "RAND insiders": "RAND RR-A2849-1: a programme against insiders",
    "RAND defence in depth": "RAND RR-A2849-1: several layers, so that one failure is not the end",
}
"""Identifiers, with what each names."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a signal is a sign of.

    Attributes:
        maps: Keys of :data:`FRAMEWORKS`.
        means: What may follow from it, as the end of a sentence; empty: nothing that can be said of it alone.
    """

    maps: tuple[str, ...] = ()
    means: str = ""


_RECITED = Sign(
    ("AML.T0057", "LLM02:2026", "NISTAML.038", "EDPB 28/2024 55(iii)"),
    "what stood in training rows may be known to whoever asked",
)
_INFERRED = Sign(
    ("AML.T0024.000", "NISTAML.033", "EDPB 28/2024 55(i)"),
    "whoever asked may have learnt whether a record was in the training data",
)
_COPIED = Sign(("AML.T0024.002", "NISTAML.031"), "whoever asked may have a copy of what the model can do")
_MUCH = Sign(("AML.T0024", "LLM06:2026"))
_TAKEN = Sign(
    ("AML.T0025", "AML.T0035", "EDPB 28/2024 55(ii)", "RAND insiders"), "somebody may hold files of the model"
)
_UNUSUAL = Sign(("RAND insiders",))

SIGNS: dict[tuple[str, str], Sign] = {
    ("D1", "canary"): _RECITED,
    ("D1", "training-text"): _RECITED,
    ("D1", "secret"): Sign(("AML.T0057", "LLM02:2026"), "a secret may be known to whoever asked"),
    ("D2", "requests"): _MUCH,
    ("D2", "tokens/1000"): _MUCH,
    ("D2", "refusals"): Sign(),
    ("D2", "budget hits"): _MUCH,
    ("D2", "log-probability bits/1000"): _INFERRED,
    ("D2", "acts"): _UNUSUAL,
    ("D2", "MiB read"): _TAKEN,
    **{("D3", name): _UNUSUAL for name in (
        "model", "adapter", "network", "key", "client", "tool", "hours", "act", "artifact"
    )},
    ("D4", "query distribution"): _COPIED,
    **{("D5-cap", share): _RECITED for share in (
        "half of the leak cap", "80 % of the leak cap", "leak cap"
    )},
    ("D5", "lone index hits"): _RECITED,
    ("D6", "probing prompts"): Sign(_RECITED.maps),
    ("D6", "own terms"): Sign(_INFERRED.maps),
    ("D7", "length"): Sign(),
    ("D7", "filtered share"): Sign(),
    ("D7", "repetition"): Sign(),
    ("D7", "log-probability"): Sign(),
}  # fmt: skip
"""What each signal of each detector is a sign of, by the names of both."""


def sign_of(detector: str, signal: str) -> Sign:
    """Return what a signal is a sign of; of one that is none of a detector's, nothing."""
    return SIGNS.get((detector, signal), Sign())
