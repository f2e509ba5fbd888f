"""Private datasets: open, describe, de-duplicate, plant canaries, split.

Example:
    >>> from stanch.data import open_dataset, turns
    >>> dataset = open_dataset("train.jsonl")  # doctest: +SKIP
    >>> [turns(record)[-1].role for record in dataset]  # doctest: +SKIP
    ['assistant', 'assistant']
"""

from stanch.data.chat import ChatForm, ChatTurn, turns
from stanch.data.dataset import Dataset, open_dataset
from stanch.data.plan import Canary, CanaryPlan, coins, seed_commitment
from stanch.data.record import Record, TextField
from stanch.data.tokens import ChatTokenizer, TokenRecord, tokenise, tokenise_canary

__all__ = [
    "Canary",
    "CanaryPlan",
    "ChatForm",
    "ChatTokenizer",
    "ChatTurn",
    "Dataset",
    "Record",
    "TextField",
    "TokenRecord",
    "coins",
    "open_dataset",
    "seed_commitment",
    "tokenise",
    "tokenise_canary",
    "turns",
]
