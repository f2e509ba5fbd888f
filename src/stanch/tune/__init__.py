"""Fine-tune a causal language model on private records, by default with differential privacy.

A privacy plan is fixed before the first step, a budget journal charges every step before it is applied, and a statement
says what the finished model guarantees, so that anybody can recompute its epsilon::

    spec = TuneSpec.load(Path("support.toml"))
    tuned = tune(spec, dataset=open_dataset(spec.data.uri, key=key))     # needs the extra `train`
    print(tuned.statement.reading)
    verified = verify_run(tuned.path)                                   # needs dp-accounting, no torch

People who keep their own trainer use :class:`PrivateTrainer` or :class:`PrivateSFTTrainer` in place of the trainer of
transformers or TRL, or, without privacy, :class:`StanchCallback`. What is imported here does not need torch; these
three load it when they are asked for.
"""

from typing import Any

import lazy_loader

from stanch.errors import MissingExtraError

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module's protocol
    """Load a name when it is asked for, and say which extra it needs when a part is missing."""
    try:
        return _load(name)
    except ImportError as error:
        raise MissingExtraError("trl" if name == "PrivateSFTTrainer" else "train") from error
