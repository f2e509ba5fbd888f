"""Which attack classes of the public lists an audit covered, and which it did not."""

from stanch.audit.sections import Coverage, Exposure, Extraction, Membership, Reconstruction

_EDPB = "EDPB Opinion 28/2024, para 55"
_ATLAS = "MITRE ATLAS"
_LATER = "not part of this attack pack"


def list_coverage(
    membership: Membership | None,
    exposure: Exposure | None,
    extraction: Extraction | None,
    reconstruction: tuple[Reconstruction, ...] = (),
) -> tuple[Coverage, ...]:
    """Return one row for each attack class, with what was run or why it was not."""
    told = "three scores, exact scan test or permutation test" if membership else "needs planned canaries or a hold-out"
    drawn = (
        "(n, p)-discoverable extraction and greedy decoding of rows and secrets"
        if extraction
        else "needs training rows or canaries"
    )
    ranked = "rank among uniform candidates" if exposure else "needs planned secrets"
    guessed = "true values against 99 others" if reconstruction else "needs base model and rows with personal data"
    tested = membership is not None
    came_out = extraction is not None
    return (
        Coverage(f"{_EDPB} (i)", "membership inference", tested, told),
        Coverage(f"{_EDPB} (i)", "attribute inference", run=False, why=_LATER),
        Coverage(f"{_EDPB} (ii)", "exfiltration", exposure is not None, ranked),
        Coverage(f"{_EDPB} (iii)", "regurgitation of training data", came_out, drawn),
        Coverage(f"{_EDPB} (iv)", "model inversion", run=False, why=_LATER),
        Coverage(f"{_EDPB} (v)", "reconstruction of personal data", bool(reconstruction), guessed),
        Coverage("OWASP LLM02:2026", "sensitive information disclosure", came_out, drawn),
        Coverage(f"{_ATLAS} AML.T0024.000", "infer training data membership", tested, told),
        Coverage(f"{_ATLAS} AML.T0024.001", "invert the model", run=False, why=_LATER),
        Coverage(f"{_ATLAS} AML.T0024.002", "extract the model", run=False, why=_LATER),
        Coverage(f"{_ATLAS} AML.T0057", "language-model data leakage", came_out, drawn),
    )
