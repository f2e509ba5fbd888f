from .canaries import CanarySpec, CanaryWriter, plan_canaries
from .chat import ChatForm, ChatTurn, turns
from .dataset import Dataset, open_dataset
from .engines import Local
from .indexing import build_index, open_sealed_index, seal_index
from .injection import InjectedDataset, check_injected, inject, inject_uncommitted
from .manifest import (
    DatasetManifest,
    ProvenRecord,
    RecordProof,
    build_manifest,
    prove_record,
    verify_manifest,
    verify_record,
)
from .neardup import DuplicateReport, drop_duplicates, find_near_duplicates
from .plan import Canary, CanaryPlan, coins, seed_commitment
from .provenance import Step, read_steps
from .rare_tokens import find_rare_tokens, require_single_tokens
from .record import Record, TextField
from .repeats import RepeatedSpan, RepeatReport, find_repeated_spans
from .scanning import ScanPlan, scan_dataset
from .split import Split, split_members, write_split
from .tokens import ChatTokenizer, TokenRecord, tokenise, tokenise_canary

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
