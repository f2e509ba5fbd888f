"""Who watches the log of a workspace, as its settings say: policy, witnesses, anchors."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from stanch.config import Config
from stanch.errors import InvalidInput
from stanch.ledger import Ledger, LedgerParams, NoteVerifier, TrustPolicy, Witness
from stanch.ledger.anchor_uri import open_anchor
from stanch.terms import EntryRef
from stanch.workspace.door import Witnessing

ANCHORS = "anchors"


def ledger_params(config: Config, folder: Path, state: str, keys: Sequence[NoteVerifier]) -> LedgerParams:
    """Return how the log is run.

    Args:
        config: The settings.
        folder: The workspace's folder; relative paths start there.
        state: Name of its folder of state. Without another anchor, checkpoints are kept in it.
        keys: All keys of the log, the newest first.

    Raises:
        InvalidInput: The policy or the key of a witness is malformed.
        StoreError: An anchor's folder cannot be used.
    """
    settings = config.ledger
    policy = trust_policy(config, folder, keys)
    highwater = Path(settings.highwater) if settings.highwater else Path(state) / "ledger.highwater"
    uris = settings.anchors or (f"file:./{state}/{ANCHORS}",)
    return LedgerParams(
        highwater=folder / highwater,
        checkpoint_seconds=float(settings.checkpoint_seconds),
        policy=policy,
        witnesses=tuple(witness for witness in policy.witnesses if witness.url),
        refresh_seconds=settings.max_checkpoint_age_seconds / 2,
        anchors=tuple(open_anchor(uri, log_folder=folder) for uri in uris),
    )


def trust_policy(config: Config, folder: Path, keys: Sequence[NoteVerifier]) -> TrustPolicy:
    """Return what is demanded of the log: the policy file, or the log's own keys and every configured witness."""
    configured = [_witness(entry.vkey, entry.url) for entry in config.ledger.witnesses]
    if not config.ledger.policy:
        return TrustPolicy.of([key.vkey for key in keys], configured)
    path = folder / config.ledger.policy
    try:
        policy = TrustPolicy.parse(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: the trust policy cannot be read", why=error.strerror or "") from error
    # One is enough: a new key signs beside the one it replaced, so there is time to add it.
    if not set(keys) & set(policy.logs):
        raise InvalidInput(f"{path}: does not trust this log", next_step=f"add the line: log {keys[0].vkey}")
    urls = {witness.key.vkey: witness.url for witness in configured}
    unknown = urls.keys() - {witness.key.vkey for witness in policy.witnesses}
    if unknown:
        raise InvalidInput(f"{path}: does not name the witness {min(unknown)}", next_step="add it, and say its weight")
    witnesses = tuple(Witness(w.name, w.key, urls.get(w.key.vkey, w.url)) for w in policy.witnesses)
    return TrustPolicy(policy.logs, witnesses, policy.groups, policy.quorum)


def witnessing(config: Config, ledger: Ledger) -> Witnessing | None:
    """Return which acts wait for the witnesses; None while none is asked."""
    if not ledger.witnesses:
        return None

    def wait(ref: EntryRef, seconds: float) -> None:
        ledger.require_quorum(ref, timeout_seconds=seconds)

    return Witnessing(config.ledger.witness_required_for, wait)


def watchers(ledger: Ledger) -> list[str]:
    """Return lines that say who outside would notice a rewritten history, or that nobody would."""
    shared = ledger.policy.overlap()
    lines = [f"witness    {witness.name} at {witness.url}" for witness in ledger.witnesses]
    if ledger.witnesses and shared < 1:
        lines.append("warning    two histories could both reach the quorum: no witness is in every quorum")
    elif ledger.witnesses:
        lines.append(f"quorum     fewer than {shared} lying witnesses cannot help to show two histories (2k - n > f)")
    for anchor in ledger.anchors.anchors:
        last_ms = ledger.anchors.last_ms(ledger.origin)[anchor.uri]
        kept = "nothing yet" if last_ms is None else datetime.fromtimestamp(last_ms / 1000, UTC).strftime("%F %TZ")
        place = "outside" if anchor.outside else "on the log's own disk"
        lines.append(f"anchor     {anchor.uri} ({place}): {kept}")
    if not ledger.witnesses and not any(anchor.outside for anchor in ledger.anchors.anchors):
        lines.append(
            "warning    nothing outside is configured: "
            "whoever holds the log key and this disk could rewrite history unseen"
        )
    return lines


def _witness(vkey: str, url: str) -> Witness:
    key = NoteVerifier.parse(vkey)
    return Witness(key.name, key, url)
