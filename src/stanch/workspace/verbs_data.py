"""Verbs about data: scan, take stock, drop duplicates, find repeats, split, plant canaries, index."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stanch.crypto.stanza import KeyProvider
from stanch.data import (
    CanaryPlan,
    Dataset,
    DatasetManifest,
    DuplicateReport,
    InjectedDataset,
    RecordProof,
    RepeatReport,
    ScanPlan,
    Split,
    build_index,
    build_manifest,
    drop_duplicates,
    find_near_duplicates,
    find_repeated_spans,
    inject,
    prove_record,
    scan_dataset,
    split_members,
    verify_manifest,
    write_split,
)
from stanch.data.copies import find_copies
from stanch.data.engines import LOCAL, Engine
from stanch.errors import InvalidInput
from stanch.scan import IndexParams, Layout, Scanner, ScanReport, SpanIndex, open_vault
from stanch.scan.canonical import is_pseudonym
from stanch.terms import SILENT, EntryRef, JsonValue, Progress
from stanch.workspace.act import Done, Request
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.indexes import Sealed, save_index
from stanch.workspace.opening import Workspace


def scan_data(
    workspace: Workspace,
    dataset: Dataset,
    scanner: Scanner,
    out: Path | None = None,
    *,
    plan: ScanPlan = ScanPlan(),  # noqa: B008 - frozen
    progress: Progress = SILENT,
) -> ScanReport:
    """Find secrets and personal data; write the redacted data set to ``out`` if given."""

    def run(_ref: EntryRef) -> Done[ScanReport]:
        report = scan_dataset(dataset, scanner, out=out, plan=plan, progress=progress)
        return Done(report, {"findings": len(report.findings), "records": report.records})

    return workspace.door.act(Request("data.scan", "data:read", dataset_ref(dataset.path)), run)


def reveal_values(
    workspace: Workspace, vault: Path, identity: Callable[[], KeyProvider], pseudonyms: Sequence[str]
) -> dict[str, str]:
    """Return the values that pseudonyms stand for; the record says which were asked for, never a value.

    Raises:
        InvalidInput: A text is no pseudonym; it is not shown, and nothing is recorded.
    """
    if not all(is_pseudonym(name) for name in pseudonyms):
        raise InvalidInput("pseudonym: expected <KIND: and 20 of A-Z and 2-7 and >, as it stands in the copy")

    def run(_ref: EntryRef) -> Done[dict[str, str]]:
        opened = open_vault(vault, identity())
        return Done({name: opened.reveal(name) for name in pseudonyms}, {"values": len(pseudonyms)})

    payload: dict[str, JsonValue] = {"pseudonyms": [*pseudonyms]}
    return workspace.door.act(Request("data.reveal", "data:reveal", dataset_ref(vault), payload), run)


def take_stock(workspace: Workspace, dataset: Dataset) -> DatasetManifest:
    """Fix the data set's content: a salted Merkle root over its records, recorded in the log."""

    def run(_ref: EntryRef) -> Done[DatasetManifest]:
        manifest = build_manifest(dataset, key=workspace.keys.secret("dataset"))
        return Done(manifest, {"root": manifest.root, "records": manifest.count})

    return workspace.door.act(Request("data.manifest", "data:add", dataset_ref(dataset.path)), run)


def verify_stock(workspace: Workspace, dataset: Dataset, manifest: DatasetManifest) -> DatasetManifest:
    """Verify that the data set holds the records of the manifest, all of them, in their order."""

    def run(_ref: EntryRef) -> Done[DatasetManifest]:
        return Done(verify_manifest(dataset, manifest, key=workspace.keys.secret("dataset")))

    payload: dict[str, JsonValue] = {"root": manifest.root}
    return workspace.door.act(Request("data.verify", "data:read", dataset_ref(dataset.path), payload), run)


def prove_stock(workspace: Workspace, dataset: Dataset, manifest: DatasetManifest, record_id: str) -> RecordProof:
    """Prove that one record is in the data set of the manifest; the proof shows it, and the log its position."""

    def run(_ref: EntryRef) -> Done[RecordProof]:
        proof = prove_record(dataset, manifest, record_id, key=workspace.keys.secret("dataset"))
        return Done(proof, {"record": proof.index + 1})

    payload: dict[str, JsonValue] = {"root": manifest.root}
    return workspace.door.act(Request("data.prove", "data:read", dataset_ref(dataset.path), payload), run)


def deduplicate(
    workspace: Workspace, dataset: Dataset, out: Path, *, ignore_columns: bool = False, engine: Engine = LOCAL
) -> tuple[DuplicateReport, Dataset]:
    """Keep the first of the records that say the same, and hold nothing else either unless columns are ignored."""

    def run(_ref: EntryRef) -> Done[tuple[DuplicateReport, Dataset]]:
        report = find_near_duplicates(dataset, engine=engine)
        kept = drop_duplicates(dataset, report, out, ignore_columns=ignore_columns)
        return Done((report, kept), {"clusters": len(report.clusters), "kept": len(kept)})

    return workspace.door.act(Request("data.dedup", "data:add", dataset_ref(dataset.path)), run)


def find_duplicates(
    workspace: Workspace, dataset: Dataset, *, ignore_columns: bool = False, engine: Engine = LOCAL
) -> tuple[DuplicateReport, int]:
    """Find the records that say the same, and how many :func:`deduplicate` would leave out; nothing is written."""

    def run(_ref: EntryRef) -> Done[tuple[DuplicateReport, int]]:
        report = find_near_duplicates(dataset, engine=engine)
        copies = len(find_copies(dataset, report.clusters, ignore_columns=ignore_columns))
        return Done((report, copies), {"clusters": len(report.clusters), "copies": copies})

    return workspace.door.act(Request("data.duplicates", "data:read", dataset_ref(dataset.path)), run)


def find_repeats(workspace: Workspace, dataset: Dataset, min_chars: int) -> RepeatReport:
    """Find the long runs of text that stand in more than one record."""

    def run(_ref: EntryRef) -> Done[RepeatReport]:
        report = find_repeated_spans(dataset, min_chars=min_chars)
        return Done(report, {"spans": len(report.spans), "records": report.records})

    return workspace.door.act(Request("data.repeats", "data:read", dataset_ref(dataset.path)), run)


def split_data(
    workspace: Workspace,
    dataset: Dataset,
    holdout: float,
    members: Path,
    held_out: Path,
    unit_column: str | None = None,
) -> Split:
    """Split members from records kept out; near-duplicates, and the records of a unit, never straddle the split."""

    def run(_ref: EntryRef) -> Done[Split]:
        groups, key = find_near_duplicates(dataset), workspace.keys.secret("dataset")
        split = split_members(dataset, holdout=holdout, key=key, groups=groups, unit_column=unit_column)
        write_split(dataset, split, members=members, nonmembers=held_out)
        return Done(split, {"members": len(split.members), "held_out": len(split.nonmembers)})

    return workspace.door.act(Request("data.split", "data:add", dataset_ref(dataset.path)), run)


def plant_canaries(
    workspace: Workspace, dataset: Dataset, plan: CanaryPlan, out: Path, *, unit_column: str | None = None
) -> InjectedDataset:
    """Log the plan's commitment, and only then plant the canaries whose coins say so, in units of their own."""

    def run(ref: EntryRef) -> Done[InjectedDataset]:
        injected = inject(dataset, plan, committed=ref, out=out, unit_column=unit_column)
        return Done(injected, {"inserted_dataset": str(dataset_ref(injected.dataset.path).digest)})

    payload: dict[str, JsonValue] = {"commitment": plan.commitment, "canaries": len(plan.canaries)}
    return workspace.door.act(Request("data.inject", "data:add", dataset_ref(dataset.path), payload), run)


def index_data(
    workspace: Workspace,
    dataset: Dataset,
    out: Path | Sealed,
    params: IndexParams,
    *,
    public: Iterable[str] = (),
    layout: Layout | None = None,
    engine: Engine = LOCAL,
) -> SpanIndex:
    """Build the keyed index of the training text, for the guard; with a layout, one part of it."""

    def run(_ref: EntryRef) -> Done[SpanIndex]:
        key = workspace.keys.secret("index")
        index = build_index(dataset, key=key, params=params, public=public, layout=layout, engine=engine)
        save_index(workspace.keys, index, out)
        return Done(index, {"keys": index.header.keys})

    return workspace.door.act(Request("data.index", "data:read", dataset_ref(dataset.path)), run)
