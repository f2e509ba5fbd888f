"""Verbs about the log: verify, list, prove, export, anchor, erase, recover."""

import shutil
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stanch.config import load_config
from stanch.config.load import user_config_file
from stanch.errors import ExternalError, InvalidInput, NotFound
from stanch.ledger import EntryQuery, FsckReport, LedgerReader, LogPlace, TrustPolicy, decode_entry, fsck
from stanch.ledger.anchor import Anchors
from stanch.ledger.erasure import BASIS, Erased, Selection, erase
from stanch.ledger.export import Format, export_line
from stanch.ledger.recover import Recovery, recover
from stanch.ledger.tiles import CHECKPOINT_KEY
from stanch.ledger.witness_client import fetch_note
from stanch.store import open_blobs, open_tables
from stanch.terms import ArtifactRef, Digest, EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.exported import exporting
from stanch.workspace.keyring import Keyring
from stanch.workspace.opening import KEYS, SETTINGS, STATE, Workspace, find_workspace, log_verifiers
from stanch.workspace.people import Ground, People, Unlock
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.witnessing import ledger_params
from stanch.workspace.words import Words


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the log is compared with.

    Attributes:
        vkeys: The log's keys as somebody noted them; by default the workspace's own copies, or the policy's.
        policy: A trust policy file; by default the one of the settings.
        notes: Files with checkpoints that were kept elsewhere.
        jobs: How many processes share the work.
    """

    vkeys: tuple[str, ...] = ()
    policy: Path | None = None
    notes: tuple[Path, ...] = ()
    jobs: int = 1


def verify_log(workspace: Workspace, comparison: Comparison | None = None) -> FsckReport:
    """Recompute the log from its entries and compare it with all that its anchors, witnesses and others kept.

    Not an act: it needs no permission beyond reading the files, and it must also work when the log refuses to append.

    Raises:
        VerificationError: The first thing that differs, with its index.
        QuorumUnmet: Nothing differs, but too few witnesses cosigned the published checkpoint.
    """
    asked = comparison or Comparison()
    ledger, policy = workspace.ledger, workspace.ledger.policy
    if asked.policy is not None:
        policy = TrustPolicy.parse(asked.policy.read_bytes())
    elif asked.vkeys:
        policy = TrustPolicy.of(asked.vkeys, policy.witnesses)
    # The anchor beside the log, which stands where none is configured, is compared by the guard; it is not outside.
    configured = workspace.config.ledger.anchors
    anchors = [note for _, note in ledger.anchors.notes(ledger.origin)] if configured else []
    for witness in ledger.witnesses:
        with suppress(ExternalError):
            note = fetch_note(witness, ledger.origin)
            anchors += [note] if note is not None else []
    anchors += [path.read_bytes() for path in asked.notes]
    where = workspace.config.workspace
    place = LogPlace(where.tables, where.blobs, workspace.folder, tuple(key.vkey for key in ledger.verifiers))
    return fsck(ledger.reader(), policy, anchors=anchors, place=place, jobs=asked.jobs)


def list_entries(workspace: Workspace, query: EntryQuery) -> list[tuple[int, dict[str, Any]]]:
    """Return the entries that a query asks for, oldest first; the look is recorded."""

    def run(_ref: EntryRef) -> Done[list[tuple[int, dict[str, Any]]]]:
        reader = workspace.ledger.reader()
        workspace.ledger.publish()
        found = [ref.index for ref in reader.query(query)]
        entries = [(index, decode_entry(reader.entry(index))) for index in sorted(found)]
        return Done(entries, {"entries": len(entries)})

    return workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), run)


def prove_entry(workspace: Workspace, index: int) -> tuple[bytes, bytes]:
    """Return an entry's bytes and its inclusion proof under the latest checkpoint."""

    def run(_ref: EntryRef) -> Done[tuple[bytes, bytes]]:
        workspace.ledger.publish()
        reader = workspace.ledger.reader()
        return Done((reader.entry(index), reader.prove(index)), {"index": index})

    return workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), run)


def export_log(workspace: Workspace, folder: Path, form: Format, *, start: int = 0, proofs: bool = True) -> int:
    """Write the published entries from ``start`` on as lines, each with its proof file beside; return how many.

    Without ``proofs`` only the lines are written: who reads them trusts whoever brings them.

    Raises:
        InvalidInput: The folder exists or cannot be made; nothing is written then.
    """
    if folder.exists():
        raise InvalidInput(f"{folder}: exists already", next_step="choose a new folder")

    def run(_ref: EntryRef) -> Done[int]:
        size = workspace.ledger.publish().checkpoint.size
        count = max(0, size - start)
        with exporting(folder) as beside:
            _write_export(workspace.ledger.reader(), beside, form, range(start, size), proofs=proofs)
        payload: Mapping[str, JsonValue] = {"entries": count, "start": start, "format": form}
        return Done(count, payload, undo=lambda: shutil.rmtree(folder, ignore_errors=True))

    return workspace.door.act(Request("log.export", "log:read", workspace_ref(workspace)), run)


def _write_export(reader: LedgerReader, beside: Path, form: Format, indexes: range, *, proofs: bool) -> None:
    """Write entries, beside their proofs under the checkpoint at which the range ends."""
    name = "entries.jsonl" if form == "jsonl" else "entries.log"
    found = reader.proofs(indexes, indexes.stop) if proofs and indexes else iter(())
    with (beside.parent / name).open("w", encoding="utf-8") as file:
        for index, data in reader.tail(indexes.start, len(indexes)):
            file.write(f"{export_line(data, form)}\n")
            if (proof := next(found, None)) is not None:
                (beside / f"{index}.tlog-proof").write_bytes(proof)


def anchor_log(workspace: Workspace) -> tuple[int, tuple[str, ...]]:
    """Keep the latest checkpoint at every anchor; return its size and the anchors."""

    def run(_ref: EntryRef) -> Done[tuple[int, tuple[str, ...]]]:
        size = workspace.ledger.anchor().checkpoint.size
        uris = tuple(anchor.uri for anchor in workspace.ledger.anchors.anchors)
        return Done((size, uris), {"size": size, "anchors": list(uris)})

    return workspace.door.act(Request("log.anchor", "log:write", workspace_ref(workspace)), run)


def erase_personal(workspace: Workspace, selection: Selection, basis: str) -> Erased:
    """Erase personal data; pseudonyms, the tree and every proof stay. Who was erased is not let in any more.

    Args:
        workspace: The workspace.
        selection: What is erased.
        basis: Code of the legal basis, which is recorded.

    Raises:
        InvalidInput: The basis is not a code; it must not hold personal data itself. Or it is whoever acts.
        NotPermitted: Not allowed, or under legal hold.
    """
    if not BASIS.fullmatch(basis):
        raise InvalidInput("legal basis: expected a code such as gdpr-17-1-b", why="free text may name a person")
    what: dict[str, JsonValue] = {"basis": basis}
    if selection.principal is not None:
        what["principal"] = selection.principal
    else:
        what |= {"field": selection.field, "before": selection.before_ms}

    def run(_ref: EntryRef) -> Done[Erased]:
        if selection.principal == workspace.people.session.principal:
            raise InvalidInput("nobody erases themselves", next_step="ask another platform administrator")
        now_ms = int(workspace.door.clock() * 1000)
        reader = workspace.ledger.reader()
        erased = erase(reader, workspace.blobs, selection, Words(reader, selection).forget, now_ms=now_ms)
        return Done(erased, {"basis": basis, **asdict(erased)})

    return workspace.door.act(Request("log.erase", "log:write", workspace_ref(workspace), what), run)


def recover_log(folder: Path | None, principal: str | None, *, unlock: Unlock | None = None) -> Recovery:
    """Rebuild the rows of a log from its published tiles, then open the workspace and record it.

    A log that was rolled back takes no entry, so the rows come first and the record after.

    Raises:
        VerificationError: The tiles do not lead to the largest checkpoint that is remembered; nothing was changed.
        NotPermitted: Whoever acts may not do this. A log that takes no entry cannot record the refusal.
    """
    found = find_workspace(folder)
    config = load_config(found / SETTINGS, user_file=user_config_file())
    keys = Keyring(found / STATE / KEYS)
    verifiers, origin = log_verifiers(config, keys), config.ledger.origin
    params = ledger_params(config, found, STATE, verifiers)
    with closing(open_tables(config.workspace.tables, base=found)) as tables:
        blobs = open_blobs(config.workspace.blobs, base=found)
        ground = Ground(tables, keys, origin, config.access.profile)
        people = People.login(ground, principal, unlock=unlock)
        request = Request(
            "log.recover", "log:write", ArtifactRef("workspace", "workspace", Digest.sha256(origin.encode()))
        )
        people.decide(request, LedgerReader(tables, blobs, verifiers=verifiers)).require()
        memories: dict[str, bytes] = {}
        with suppress(NotFound):
            memories[CHECKPOINT_KEY] = blobs.get(CHECKPOINT_KEY)
        with suppress(FileNotFoundError):
            memories["high-water file"] = params.highwater.read_bytes()
        memories |= Anchors(tables, params.anchors, every_seconds=params.anchor_seconds).memories(origin)
        done = recover(tables, blobs, keys=verifiers, memories=memories, now_ms=int(ground.clock() * 1000))
    with Workspace.open(folder, principal=principal, unlock=unlock) as workspace:
        what: Mapping[str, JsonValue] = asdict(done)
        return workspace.door.act(replace(request, payload=what), lambda _ref: Done(done))
