"""Private datasets: open, scan, describe, de-duplicate, plant canaries, split, index.

Example:
    >>> from stanch.data import open_dataset, find_near_duplicates, drop_duplicates, plan_canaries, inject
    >>> dataset = open_dataset("train.jsonl")  # doctest: +SKIP
    >>> distinct = drop_duplicates(dataset, find_near_duplicates(dataset), Path("distinct.jsonl"))  # doctest: +SKIP
    >>> plan = plan_canaries(distinct, CanarySpec(n=512), preregistration={})  # doctest: +SKIP
    >>> injected = inject(distinct, plan, committed=entry, out=Path("planted.jsonl"))  # doctest: +SKIP

No torch, no transformers: a tokenizer is handed in as :class:`ChatTokenizer`. No message, representation or report of
this package quotes a row.
"""

from stanch.data.canaries import CanarySpec, CanaryWriter, plan_canaries
from stanch.data.chat import ChatForm, ChatTurn, turns
from stanch.data.dataset import Dataset, open_dataset
from stanch.data.engines import Local
from stanch.data.indexing import build_index, open_sealed_index, seal_index
from stanch.data.injection import InjectedDataset, check_injected, inject, inject_uncommitted
from stanch.data.manifest import (
    DatasetManifest,
    ProvenRecord,
    RecordProof,
    build_manifest,
    prove_record,
    verify_manifest,
    verify_record,
)
from stanch.data.neardup import DuplicateReport, drop_duplicates, find_near_duplicates
from stanch.data.plan import Canary, CanaryPlan, coins, seed_commitment
from stanch.data.provenance import Step, read_steps
from stanch.data.rare_tokens import find_rare_tokens, require_single_tokens
from stanch.data.record import Record, TextField
from stanch.data.repeats import RepeatedSpan, RepeatReport, find_repeated_spans
from stanch.data.scanning import ScanPlan, scan_dataset
from stanch.data.split import Split, split_members, write_split
from stanch.data.tokens import ChatTokenizer, TokenRecord, tokenise, tokenise_canary
from stanch.scan import ScanReport

__all__ = [
    "Canary",
    "CanaryPlan",
    "CanarySpec",
    "CanaryWriter",
    "ChatForm",
    "ChatTokenizer",
    "ChatTurn",
    "Dataset",
    "DatasetManifest",
    "DuplicateReport",
    "InjectedDataset",
    "Local",
    "ProvenRecord",
    "Record",
    "RecordProof",
    "RepeatReport",
    "RepeatedSpan",
    "ScanPlan",
    "ScanReport",
    "Split",
    "Step",
    "TextField",
    "TokenRecord",
    "build_index",
    "build_manifest",
    "check_injected",
    "coins",
    "drop_duplicates",
    "find_near_duplicates",
    "find_rare_tokens",
    "find_repeated_spans",
    "inject",
    "inject_uncommitted",
    "open_dataset",
    "open_sealed_index",
    "plan_canaries",
    "prove_record",
    "read_steps",
    "require_single_tokens",
    "scan_dataset",
    "seal_index",
    "seed_commitment",
    "split_members",
    "tokenise",
    "tokenise_canary",
    "turns",
    "verify_manifest",
    "verify_record",
    "write_split",
]
