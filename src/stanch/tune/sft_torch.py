"""``trl.SFTTrainer`` with differential privacy."""

from trl.trainer.sft_trainer import SFTTrainer

from stanch.tune.trainer_torch import PrivateTrainer


class PrivateSFTTrainer(PrivateTrainer, SFTTrainer):
    """As :class:`stanch.tune.PrivateTrainer`, with TRL's preparation of rows: chat templates, masks, truncation.

    ``train_dataset`` is a ``datasets.Dataset`` with a column ``record_id`` (:func:`stanch.tune.training_rows` makes its
    rows); ``model`` is a ``PeftModel``, or a model beside ``peft_config``. TRL caches the prepared rows on disk, where
    ``datasets`` keeps its cache.
    """

    def _send_telemetry(self) -> None:
        """Tell nobody that a private run starts."""
