from .check import Checked, check_text
from .escape import BORDER, REPLAYED
from .policy import CANARY, ENCODED_TEXT, ENCODED_TRAINING_TEXT, TRAINING_TEXT, Action, GuardPolicy
from .spans import SpanGate
from .stream import Guard, GuardError, GuardStream, Step

__all__ = [
    "BORDER",
    "CANARY",
    "ENCODED_TEXT",
    "ENCODED_TRAINING_TEXT",
    "REPLAYED",
    "TRAINING_TEXT",
    "Action",
    "Checked",
    "Guard",
    "GuardError",
    "GuardPolicy",
    "GuardStream",
    "SpanGate",
    "Step",
    "check_text",
]
