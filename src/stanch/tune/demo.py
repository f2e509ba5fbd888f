"""Why ``model.loss`` breaks differential privacy, shown in one figure."""

from dataclasses import dataclass

from stanch.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class BatchLossSensitivity:
    """How far removing one record moves the clipped sum, in clipping bounds; privacy needs at most 1.

    Attributes:
        batch_mean: With the mean over all labelled tokens of the batch, as ``model.loss`` is.
        per_record: With the mean over each record's own labelled tokens, as stanch trains.
    """

    batch_mean: float
    per_record: float


def show_batch_loss() -> BatchLossSensitivity:
    """Measure both losses on 15 equal records of 12 tokens and one of 256, which is removed.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        from stanch.tune import demo_torch  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return BatchLossSensitivity(
        batch_mean=demo_torch.measure_sensitivity(batch_mean=True),
        per_record=demo_torch.measure_sensitivity(batch_mean=False),
    )
