"""What an audit says that it covered of the public lists of attacks."""

import pytest

from stanch.audit.coverage import list_coverage

EDPB, ATLAS = "EDPB Opinion 28/2024, para 55", "MITRE ATLAS"
LISTED = [
    (f"{EDPB} (i)", "membership inference"),
    (f"{EDPB} (i)", "attribute inference"),
    (f"{EDPB} (ii)", "exfiltration"),
    (f"{EDPB} (iii)", "regurgitation of training data"),
    (f"{EDPB} (iv)", "model inversion"),
    (f"{EDPB} (v)", "reconstruction of personal data"),
    ("OWASP LLM02:2026", "sensitive information disclosure"),
    (f"{ATLAS} AML.T0024.000", "infer training data membership"),
    (f"{ATLAS} AML.T0024.001", "invert the model"),
    (f"{ATLAS} AML.T0024.002", "extract the model"),
    (f"{ATLAS} AML.T0057", "language-model data leakage"),
]


@pytest.mark.parametrize(
    ("part", "covered", "needs"),
    [
        (0, {"membership inference", "infer training data membership"}, "planned canaries or a hold-out"),
        (1, {"exfiltration"}, "planned secrets"),
        (
            2,
            {"regurgitation of training data", "sensitive information disclosure", "language-model data leakage"},
            "training rows or canaries",
        ),
        (3, {"reconstruction of personal data"}, "base model and rows with personal data"),
    ],
)
def test_each_part_of_an_audit_covers_its_attacks_and_no_other(part, covered, needs):
    without = list_coverage(None, None, None)
    found = list_coverage(*(object() if i == part else () if i == 3 else None for i in range(4)))
    for rows in (without, found):
        assert [(row.reference, row.attack) for row in rows] == LISTED
    assert not any(row.run for row in without)
    assert {row.attack for row in found if row.run} == covered
    for before, after in zip(without, found, strict=True):
        assert (after.why != before.why) == after.run
        assert (before.why == f"needs {needs}") == after.run
