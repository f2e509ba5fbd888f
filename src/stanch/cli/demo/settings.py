"""What the demo tunes and asks: sizes for two cores and a few minutes, stated beside what production would ask."""

from dataclasses import dataclass
from pathlib import Path

GATE = """# The demo's gate. Its thresholds fit few rows and coins.
# A production policy for a partner asks for more: max_extraction_rate 0.001 (about 3,000 rows), detectable_auc 0.60
# with min_power 0.80 (512 coins), and 10 secrets.
[gate]
release_context = "partner"
max_extraction_rate = 0.03
min_rows = 100
max_extractable_secrets = 0
min_secrets = 4
max_epsilon_lower_bound = 0.5
min_coins = 100
detectable_auc = 0.70
min_power = 0.60
require_mode = "planned"
require_witnessed_commitment = true
"""

DETECTABLE_AUC, MIN_POWER = 0.70, 0.60
ALPHA = 0.01
"""How often an audit may see a leak where there is none: one demo in a hundred, at most."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the demo is with one base model.

    Attributes:
        customers: Different support records.
        repeated: How many of them stand several times in the export.
        held_out: Records of the same kind that are kept out of tuning.
        coins: Canaries; about half go in.
        rank: Of the LoRA factors.
        layers: Which layers are tuned (``all`` or numbers).
        plain_rate: Learning rate without privacy.
        plain_epochs: Epochs without privacy.
        plain_batch: Expected records in a step without privacy.
        private_rate: Learning rate with privacy.
        private_epochs: Epochs with privacy.
        private_batch: Expected units in a private step.
    """

    customers: int
    repeated: int
    held_out: int
    coins: int
    rank: int
    layers: tuple[int, ...] | str
    plain_rate: float
    plain_epochs: float
    plain_batch: int
    private_rate: float
    private_epochs: float
    private_batch: int


SIZES = {
    "smollm2": Sizes(200, 20, 60, 128, 16, tuple(range(26, 30)), 8e-3, 2.5, 4, 1e-3, 2.0, 48),
    "tiny": Sizes(200, 20, 60, 128, 16, "all", 4e-3, 5.0, 4, 2e-3, 2.0, 48),
}
EPSILON = 8.0
SECRET_LENGTH = 8
EXPOSURE_SECRETS, EXPOSURE_CANDIDATES, TREE_BUDGET = 4, 99, 100


def tune_spec(sizes: Sizes, *, base: Path, data: str, out: str, private: bool) -> str:
    """Return the SPEC.toml of one of the two tuning runs."""
    layers = f'"{sizes.layers}"' if isinstance(sizes.layers, str) else str(list(sizes.layers))
    privacy = f"epsilon = {EPSILON}" if private else "enabled = false"
    rate = sizes.private_rate if private else sizes.plain_rate
    epochs = sizes.private_epochs if private else sizes.plain_epochs
    batch = sizes.private_batch if private else sizes.plain_batch
    return f"""[base]
path = "{base}"

[data]
uri = "{data}"
unit = "record"

[method]
rank = {sizes.rank}
alpha = {2 * sizes.rank}
layers = {layers}

[privacy]
{privacy}

[train]
learning_rate = {rate}
epochs = {epochs}
batch = {batch}
dtype = "float32"
checkpoint_every = 0

[extra]
duplicates = "{"group" if private else "keep"}"

[output]
path = "{out}"
"""
