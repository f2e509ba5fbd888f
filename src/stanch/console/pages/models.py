"""Models: the gate, the certificate, the copies that left, and the line of releases."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from sqlalchemy import select

from stanch.access.roll import holders
from stanch.audit.certificate_file import read_certificate
from stanch.audit.leakcert import LeakCert
from stanch.audit.verdict import MEANING
from stanch.console.desk import Call
from stanch.console.lineage import Copied, Lineage, draw_up
from stanch.console.pages.log import Row, rows_of
from stanch.console.pages.paging import Paged, take
from stanch.console.pages.releases import CopyState, Look, load_releases
from stanch.console.route import Nothing
from stanch.errors import NotFound, StanchError
from stanch.ledger import EntryQuery
from stanch.ledger.entry import read_event
from stanch.sign import TrustedKeys
from stanch.store.schema.workspace import resource
from stanch.terms import Digest
from stanch.trace import TextRoot
from stanch.watch.events import INFER
from stanch.workspace.release_state import ReleaseState

_HISTORY, _SHOWN_HOLDERS = 25, 50


class ModelRow(Struct, frozen=True):
    """A model: name, digest, what the gate said, whether it is in quarantine, and how many releases there are of it."""

    name: str
    digest: str
    gate: str
    quarantined: bool
    sensitivity: int
    releases: int
    served_as: tuple[str, ...]


class ModelList(Struct, frozen=True):
    """Models, and where the next part of the list begins."""

    models: tuple[ModelRow, ...]
    next: str


class Certificate(Struct, frozen=True):
    """A leak certificate, verified under the publisher's keys: its verdict, what that means, and its figures."""

    verdict: str
    meaning: str
    mode: str
    issued: str
    expires: str
    reasons: tuple[str, ...]
    rows_out: int
    rows_tried: int
    rows_upper: float
    epsilon_lower: float
    membership_auc: float
    trouble: str


class ReleaseLine(Struct, frozen=True):
    """One release of the model: its name, line and number, the entry that commits to its marks, and its copies."""

    name: str
    lineage: str
    number: int
    entry: int
    checkpoint: int
    base: str
    recipients: int
    copies: tuple[CopyState, ...]


class Served(Struct, frozen=True):
    """How the gateway answers for the model: under which name, and by which files it is guarded; empty: by none."""

    name: str
    dialects: tuple[str, ...]
    index: str
    canaries: str
    certificate: str


class Tenant(Struct, frozen=True):
    """A tenant under whose watermark a model's server writes, and the id of its key, which says nothing of the key."""

    name: str
    key_id: str


class Watermark(Struct, frozen=True):
    """How text of the model is watermarked.

    Attributes:
        tenants: Under whose keys its server writes, as the settings say.
        trouble: Why the settings' secret cannot be used.
        recorded: What the log says of the newest request: ``none``, ``asserted``, ``requested``, or ``embedded`` where
            the server acknowledged it; empty: there was no request.
        entry: That entry; -1 without one.
    """

    tenants: tuple[Tenant, ...]
    trouble: str
    recorded: str
    entry: int


class ModelView(Struct, frozen=True):
    """All that the workspace knows of one model."""

    model: ModelRow
    certificate: Certificate | None
    served: tuple[Served, ...]
    watermark: Watermark
    lineage: Lineage
    lines: tuple[ReleaseLine, ...]
    history: tuple[Row, ...]
    infer: tuple[str, ...]
    export: tuple[str, ...]


def list_models(call: Call, asked: Paged) -> ModelList:
    """Show the models that the workspace knows: judged, released or served."""
    shown, after = take(known_models(call, load_releases(call)), lambda row: f"{row.name}@{row.digest}", asked)
    return ModelList(shown, after)


def show_model(call: Call, _asked: Nothing) -> ModelView:
    """Show one model by its digest.

    Raises:
        NotFound: The workspace knows none of that digest.
    """
    releases = load_releases(call)
    known = known_models(call, releases)
    row = _find(known, call.path["digest"])
    states = [state for state in releases if state.facts.digest == row.digest]
    query = EntryQuery(subject=Digest.parse(row.digest), newest_first=True, limit=_HISTORY)
    look = Look(call)
    lines = _lines(look, states)
    return ModelView(
        row, _certificate(call, states), _served(call, row.digest), _watermark(call, row.digest),
        _lineage(look, row.digest, known, releases, {row.digest: lines}), lines, rows_of(call, query),
        _grantees(call, "consumer", row), _grantees(call, "release_manager", row),
    )  # fmt: skip


def lineage_of(call: Call, digest: str) -> Lineage:
    """Return where a model comes from and where it went.

    Raises:
        NotFound: The workspace knows none of that digest.
    """
    releases = load_releases(call)
    known = known_models(call, releases)
    return _lineage(Look(call), _find(known, digest).digest, known, releases, {})


def _find(known: list[ModelRow], digest: str) -> ModelRow:
    found = next((row for row in known if row.digest == digest), None)
    if found is None:
        raise NotFound("there is no such model", next_step="stanch audit run MODEL")
    return found


def _lineage(
    look: Look,
    digest: str,
    known: list[ModelRow],
    releases: list[ReleaseState],
    lines: dict[str, tuple[ReleaseLine, ...]],
) -> Lineage:
    """Return the graph around a model; ``lines`` holds the releases of models whose copies were looked at already."""
    bases: dict[str, set[str]] = defaultdict(set)
    for state in releases:
        if state.base is not None:
            bases[state.facts.digest].add(str(state.base))

    def copies(model: str) -> Iterator[Copied]:
        if model not in lines:
            lines[model] = _lines(look, [state for state in releases if state.facts.digest == model])
        for line in lines[model]:
            for copy in line.copies:
                yield Copied(line.name, copy.recipient, line.entry, copy.made_ms > 0)

    workspace = look.call.workspace
    records = look.call.desk.records.upto_now(workspace.tables, workspace.ledger.origin)
    return draw_up(digest, {one.digest: one.name for one in known}, bases, records, copies)


def known_models(call: Call, releases: list[ReleaseState]) -> list[ModelRow]:
    """Return every model that was judged, released or is served."""
    served: dict[str, list[str]] = defaultdict(list)
    for section in call.workspace.config.gateway.models:
        served[section.digest].append(section.name)
    released: dict[str, list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    for state in releases:
        released[state.facts.digest].append(state.facts.name)
        names[state.facts.digest] = state.model.name
    with call.workspace.tables.read() as connection:
        rows = connection.execute(select(resource).where(resource.c.kind == "model")).all()
    found = {
        row.digest: ModelRow(
            row.name, row.digest, row.gate, bool(row.quarantined), row.sensitivity, len(released[row.digest]),
            tuple(served[row.digest]),
        )
        for row in rows
    }  # fmt: skip
    for digest in [*released, *served]:
        if digest not in found:
            name = names.get(digest) or served[digest][0]
            found[digest] = ModelRow(name, digest, "", False, 0, len(released[digest]), tuple(served[digest]))
    return list(found.values())


def _certificate(call: Call, states: list[ReleaseState]) -> Certificate | None:
    """Return the certificate that the newest release of a model rests on."""
    if not states:
        return None
    newest = max(states, key=lambda state: state.facts.entry)
    trusted = TrustedKeys(call.workspace.keys.publics("publisher"))
    try:
        cert = LeakCert.parse(read_certificate(Path(newest.facts.certificate), trusted).statement.predicate)
    except StanchError as error:
        return Certificate("", "", "", "", "", (), 0, 0, 0, 0, 0, error.what)
    rows = cert.extraction
    return Certificate(
        cert.verdict, MEANING[cert.verdict], cert.mode, cert.issued, cert.expires,
        tuple(reason.value for reason in cert.reasons), rows.attributable if rows else 0, rows.n if rows else 0,
        rows.upper if rows else 0, cert.epsilon.lower if cert.epsilon else 0,
        cert.membership.auc.estimate if cert.membership else 0, "",
    )  # fmt: skip


def _served(call: Call, digest: str) -> tuple[Served, ...]:
    return tuple(
        Served(one.name, one.dialects, one.index, one.canaries, one.require_certificate)
        for one in call.workspace.config.gateway.models
        if one.digest == digest
    )


def _watermark(call: Call, digest: str) -> Watermark:
    """Return under whose watermark the model's server writes; of a secret no more than the ids of its keys is told."""
    tenants: list[Tenant] = []
    trouble = ""
    for one in call.workspace.config.gateway.models:
        if one.digest == digest and one.text_root:
            try:
                root = TextRoot.load(call.workspace.folder / one.text_root)
                tenants += [Tenant(name, root.key_id(name)) for name in one.tenants]
            except StanchError:
                trouble = "the text root that the settings name cannot be used"
    reader, told, entry = call.workspace.ledger.reader(), dict[str, Any](), -1
    for phase in ("outcome", "intent"):  # an outcome says more, where a watermark was asked for
        newest = EntryQuery(subject=Digest.parse(digest), kind=INFER, phase=phase, newest_first=True, limit=1)
        if "watermark" not in told:
            entry = next((ref.index for ref in reader.query(newest)), -1)
            told = read_event(reader.entry(entry)).unmapped.stanch.payload or {} if entry >= 0 else {}
    return Watermark(tuple(tenants), trouble, str(told.get("watermark", "")), entry)


def _lines(look: Look, states: list[ReleaseState]) -> tuple[ReleaseLine, ...]:
    return tuple(_line(look, state) for state in states)


def _line(look: Look, state: ReleaseState) -> ReleaseLine:
    facts = state.facts
    first = next(iter(facts.requests.values()))
    base = state.base.name if state.base is not None else ""
    return ReleaseLine(
        facts.name, first.lineage, first.release_number, facts.entry, facts.checkpoint, base, len(facts.requests),
        look.copies(state),
    )  # fmt: skip


def _grantees(call: Call, role: str, row: ModelRow) -> tuple[str, ...]:
    """Return who holds a role in the workspace or on this very model: the first names, and how many more."""
    scopes = ("workspace", f"Model:{row.name}@{row.digest}")
    with call.workspace.tables.read() as connection:
        names, count = holders(connection, role, scopes, call.now_ms, limit=_SHOWN_HOLDERS)
    return (*names, f"and {count - len(names):,} more") if count > len(names) else names
