"""Verbs about a release: propose it, make the copies."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from stanch.audit import GatePolicy, require_as_strict
from stanch.audit.certificate_file import read_certificate
from stanch.crypto import random_bytes
from stanch.crypto.recipient import parse_public, parse_recipient
from stanch.crypto.stanza import KeyProvider
from stanch.data import open_dataset
from stanch.errors import InvalidInput, MissingExtraError, PolicyViolation
from stanch.ledger import EntryQuery, decode_entry
from stanch.mark import MarkParams, MarkRoot, RecipientSlot, commit, plan_mark
from stanch.release import (
    CopyOrder,
    Evaluate,
    QuorumFiles,
    QuorumSplit,
    ReleasedCopy,
    ReleaseRequest,
    create_copy,
    quorum_folder,
)
from stanch.seal import BaseModel
from stanch.sign import TimestampAuthority, TrustedKeys
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, JsonValue, Progress
from stanch.tune import PrivacyStatement
from stanch.tune.statement import NAME as STATEMENT_NAME
from stanch.weights import directory_digest
from stanch.workspace.act import Done, Request
from stanch.workspace.ancestry import refuse_marked
from stanch.workspace.approvers import find_approvers
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.copies import CopyFacts, KeptCopy
from stanch.workspace.opening import Workspace
from stanch.workspace.release_state import ReleaseFacts, ReleaseState, prove_commitment
from stanch.workspace.tuning_log import find_tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What is proposed.

    Attributes:
        name: Name of the release.
        model: The tuned model's or adapter's folder.
        base: The base model's folder, for an adapter.
        certificate: Its leak certificate.
        recipients: Public key (``stanch1-…``) of each recipient, by name.
        not_after: When all grants end.
        lineage: The line of releases; the name of the model's folder where None.
        release_number: Higher than every earlier one of that line; the next one where None.
        alpha: Strength of the marks; None for what fits the model.
    """

    name: str
    model: Path
    base: Path | None
    certificate: Path
    recipients: dict[str, str]
    not_after: datetime
    lineage: str | None = None
    release_number: int | None = None
    alpha: float | None = None


def release_folder(workspace: Workspace, name: str) -> Path:
    """Return where a release is kept; the name is checked."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "-._") for c in name) or name.startswith("."):
        raise InvalidInput(f"not a release name: {name[:64]!r}", why="use letters, digits, '-', '.' and '_'")
    return workspace.state / "releases" / name


def model_of(state: ReleaseState) -> ArtifactRef:
    """Return what the log calls the release's model."""
    return ArtifactRef("model", state.model.name, Digest.parse(state.facts.digest))


def model_of_copy(workspace: Workspace, state: ReleaseState, kept: KeptCopy) -> ArtifactRef:
    """Return the model that a kept copy is of, where the release's file and the log say the same.

    Raises:
        PolicyViolation: The log does not say that this copy was made; or not for the request in the file, or that one
            is for another model: the file, which nobody signs, was changed.
    """
    request, manifest = state.facts.request(kept.facts.recipient), f"sha256:{kept.facts.manifest_sha256}"
    made = {told["manifest"]: told["request"] for told in _outcomes(workspace, "release.create")}
    if manifest not in made:
        raise PolicyViolation(
            f"the log does not say that {kept.facts.recipient}'s copy with manifest {manifest} was made",
            next_step=f"make the copy again: stanch release create {state.facts.name}",
        )
    if (made[manifest], request.model) != (str(request.digest), state.facts.digest):
        raise PolicyViolation(
            f"{state.folder}: the log says otherwise which model {kept.facts.recipient}'s copy is of",
            why=f"the file names {state.facts.digest} and request {request.digest}",
            next_step="find out who changed the workspace's files",
        )
    return model_of(state)


def propose_release(workspace: Workspace, proposal: Proposal) -> ReleaseState:
    """Plan the marks, commit to every recipient's key in the log, and write one request a copy.

    The commitment is in the log before the beacon exists, and the beacon before any copy can be made.

    Raises:
        InvalidInput: The name is taken, the number does not rise in its lineage, the model cannot be marked, or a
            recipient is malformed, or in profile ``team`` no public key of stanch's own kinds.
        PolicyViolation: The model or its base was made from a marked copy of an earlier release.
    """
    folder = release_folder(workspace, proposal.name)
    if folder.exists():
        raise InvalidInput(f"release {proposal.name} exists already", next_step="choose another name")
    for recipient in proposal.recipients.values():
        # Shares are wrapped to the recipient by its approvers, who have its public key alone.
        parse_public(recipient) if workspace.people.team else parse_recipient(recipient)
    lineage = proposal.lineage or _default_lineage(proposal.model)
    number = _rising(workspace, lineage, proposal.release_number)
    params = MarkParams.fixed(proposal.alpha) if proposal.alpha is not None else None
    plan = plan_mark(proposal.model, base=proposal.base, params=params)
    dataset, recipe = _tuned_on(proposal.model)
    root = MarkRoot.generate()
    commitment = commit(plan, root, [RecipientSlot(name) for name in proposal.recipients])
    requests = _requests(workspace, proposal, plan.original, lineage, number)
    base = None if proposal.base is None else str(directory_digest(proposal.base).root)
    ref = ArtifactRef("model", proposal.model.resolve().name, plan.original)

    def run(logged: EntryRef) -> Done[ReleaseState]:
        _rising(workspace, lineage, number, before=logged.index)  # others may have been proposed meanwhile
        made_of = [path for path in (proposal.model, proposal.base) if path is not None]
        unscored = refuse_marked(ReleaseState.load_all(workspace.state / "releases"), [p.resolve() for p in made_of])
        entry, proof, size = prove_commitment(workspace.ledger, logged.index)
        facts = ReleaseFacts(
            name=proposal.name, model=str(proposal.model.resolve()), digest=str(plan.original),
            base=str(proposal.base.resolve()) if proposal.base is not None else None,
            certificate=str(proposal.certificate.resolve()), requester=workspace.people.session.principal,
            entry=logged.index, checkpoint=size, requests=requests, base_digest=base,
            strength=plan.strength, dataset=dataset, recipe=recipe,
        )  # fmt: skip
        state = ReleaseState.create(folder, facts, commitment, root, (entry, proof))
        told: dict[str, JsonValue] = {"checkpoint": size, "beacon": state.beacon().hex(), "unscored": [*unscored]}
        return Done(state, told | {"lineage": lineage, "release_number": number}, undo=state.destroy, stays=True)

    payload: dict[str, JsonValue] = {
        "batch_root": commitment.root.hex(),
        "layout_digest": plan.layout.digest.hex(),
        "leaves": len(commitment.leaves),
        "base": base,
        "strength": plan.strength.to_payload(),
        "requests": [str(request.digest) for request in requests.values()],
        "lineage": lineage,
        "release_number": number,
    }
    return workspace.door.act(Request("release.propose", "model:audit", ref, payload), run)


def _tuned_on(model: Path) -> tuple[str | None, str | None]:
    """Return the root of the data set and the digest of the plan that the statement of a model's tuning names, if any.

    The audit computed the statement again, and the certificate is about its very bytes.

    Raises:
        Tampered: The statement was edited.
    """
    if not (model / STATEMENT_NAME).is_file():
        return None, None
    fields = PrivacyStatement.from_json((model / STATEMENT_NAME).read_bytes()).fields
    plan = fields.get("plan_digest")  # a tuning without privacy has no plan
    return _hex(fields.get("dataset_root")), None if plan is None else _hex(plan)


def _hex(value: JsonValue) -> str:
    return Digest.parse(f"sha256:{value}").hex


def recall_recipients(workspace: Workspace, manifest: Digest) -> frozenset[str]:
    """Return the id of the key that a copy was sealed for, whatever its list says now; none for what was not made here.

    Raises:
        PolicyViolation: The log names a request that is in no release's file.
    """
    made = [told["request"] for told in _outcomes(workspace, "release.create") if told.get("manifest") == str(manifest)]
    states = ReleaseState.load_all(workspace.state / "releases") if made else []
    requests = {str(request.digest): request for state in states for request in state.facts.requests.values()}
    if not set(made) <= requests.keys():
        raise PolicyViolation(
            f"the log says that the copy with manifest {manifest} was made here, and no release's file says for whom",
            next_step="find out who changed the workspace's files",
        )
    keys = (parse_recipient(requests[digest].recipient_key).describe().key_id for digest in made)
    return frozenset(key for key in keys if key is not None)


def _outcomes(workspace: Workspace, kind: str, before: int | None = None) -> list[dict[str, Any]]:
    """Return what the log says of the acts of a kind that were done."""
    refs = workspace.ledger.reader().query(EntryQuery(kind=kind, phase="outcome", status=1, before=before))
    return _payloads(workspace, (ref.index for ref in refs))


def _payloads(workspace: Workspace, indexes: Iterable[int]) -> list[dict[str, Any]]:
    entries = workspace.ledger.reader().entries(indexes).values()
    return [decode_entry(entry)["unmapped"]["stanch"]["payload"] for entry in entries]


def _default_lineage(model: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", model.resolve().name.lower())[:200] or "-"


def _rising(workspace: Workspace, lineage: str, number: int | None, before: int | None = None) -> int:
    """Return the number of a new release: above those of its lineage that were begun ``before`` and did not fail."""
    reader = workspace.ledger.reader()
    failed = {ref.act for ref in reader.query(EntryQuery(kind="release.propose", phase="outcome", status=2))}
    begun = reader.query(EntryQuery(kind="release.propose", phase="intent", before=before))
    told = _payloads(workspace, (ref.index for ref in begun if ref.act not in failed))
    told += _outcomes(workspace, "release.propose", before)  # which alone said it in earlier releases of stanch
    logged = [one["release_number"] for one in told if one.get("lineage") == lineage]
    # Still earlier ones did not log it: the files of their proposals say it.
    kept = [
        state
        for state in ReleaseState.load_all(workspace.state / "releases")
        if before is None or state.facts.entry < before
    ]
    asked = [request for state in kept for request in state.facts.requests.values() if request.lineage == lineage]
    highest = max([0, *logged, *(request.release_number for request in asked)])
    if number is not None and number <= highest:
        raise InvalidInput(
            f"{lineage}: expected a release number above {highest}, found {number}",
            why="recipients refuse one that does not rise",
            next_step=f"leave out --number: the next one is {highest + 1}",
        )
    return number or highest + 1


def _requests(
    workspace: Workspace, proposal: Proposal, model: Digest, lineage: str, number: int
) -> dict[str, ReleaseRequest]:
    if not proposal.certificate.is_file():
        raise InvalidInput(f"{proposal.certificate}: no such file", next_step="audit first: stanch audit run MODEL")
    certificate = Digest.sha256(proposal.certificate.read_bytes()).hex
    return {
        name: ReleaseRequest(
            request_id=random_bytes(16).hex(), model=str(model), certificate_sha256=certificate, recipient_name=name,
            recipient_key=key, not_after=proposal.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
            release_number=number, lineage=lineage,
            proposer_key=workspace.people.session.key_id,
        )
        for name, key in proposal.recipients.items()
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyTerms:
    """On what terms a copy is made.

    Attributes:
        policy: What the gate demands.
        approvers: Whom to split the key among; in profile ``team`` only.
        authority: Who confirms when the copy was signed; None where nobody is asked.
        holdout: File of records on which the loss before and after marking is compared; None where it is not measured.
    """

    policy: GatePolicy
    approvers: Sequence[str] = ()
    authority: TimestampAuthority | None = None
    holdout: Path | None = None

    def to_payload(self) -> dict[str, JsonValue]:
        """Return what the log holds of them: the policy, and the digest of the records."""
        holdout = None if self.holdout is None else str(dataset_ref(self.holdout).digest)
        return {"policy": self.policy.to_payload(), "holdout": holdout}


def create_release(
    workspace: Workspace, name: str, recipient: str, dest: Path, terms: CopyTerms, *, progress: Progress = SILENT
) -> ReleasedCopy:
    """Make one recipient's copy: gate, mark, seal and sign in one pass.

    In profile ``team`` its root key exists in shares alone, one for each approver: whatever the database says,
    nobody opens it before enough of them released theirs. The signed record lies beside it and in the workspace.

    Args:
        workspace: The workspace.
        name: Name of the release.
        recipient: The recipient's name in it.
        dest: The new bundle.
        terms: What the gate demands, who approves, who confirms the time.
        progress: Told what is done.

    Raises:
        NotPermitted: The gate was not passed, the role is missing, or an approver may not approve.
        GateFailed: The certificate does not hold for the files as they are now, or the mark raises the loss on the
            hold-out records too much.
        PolicyViolation: The policy is looser than the workspace's ``[gate]``, or the request is not one that the log
            says was proposed: the release's file was changed, or the proposal did not come to its end.
        InvalidInput: ``dest`` exists; too few approvers, or one is the proposer or the recipient, stands twice or has
            no registered key; or approvers are named in profile ``solo``.
        ExternalError: The authority did not answer; there is no copy without the time-stamp that was asked for.
    """
    for path in (dest, quorum_folder(dest)):
        if path.exists():
            raise InvalidInput(f"{path}: exists already", next_step="choose another --out")
    needed = _needed(workspace, terms.approvers)
    state = ReleaseState.load(release_folder(workspace, name))
    request, ref = state.facts.request(recipient), model_of(state)

    def run(_ref: EntryRef) -> Done[ReleasedCopy]:
        require_as_strict(terms.policy, workspace.config.gate)
        _require_proposed(workspace, state, request)
        provider: KeyProvider = parse_recipient(request.recipient_key)
        if needed:
            listed = find_approvers(workspace, terms.approvers, ref)
            provider = QuorumSplit(request, listed, needed)
        order = _order(workspace, state, request, terms, provider)
        order = replace(order, evaluate=_loss_on(workspace, terms.holdout, order, state.base, progress))
        copy = create_copy(order, dest, now=workspace.now(), progress=progress)
        try:
            kept = _keep(workspace, state, copy)
        except BaseException:
            copy.destroy()
            raise

        def undo() -> None:
            copy.destroy()
            kept.destroy()
            shutil.rmtree(quorum_folder(dest), ignore_errors=True)

        told: dict[str, JsonValue] = {"request": str(request.digest), "manifest": str(copy.manifest)}
        told |= {} if copy.utility is None else {"utility": copy.utility.to_payload()}
        return Done(copy, told, egress_bytes=copy.size, undo=undo)

    payload = {"request": str(request.digest), **terms.to_payload()}
    return workspace.door.act(Request("release.create", "release:create", ref, payload), run)


def _needed(workspace: Workspace, approvers: Sequence[str]) -> int:
    """Return how many approvals a copy needs; refuse a number of approvers that does not suit the profile."""
    needed = workspace.config.access.release_approvals if workspace.people.team else 0
    if bool(approvers) and not needed:
        raise InvalidInput("profile solo has no approvers", next_step="leave out --approver")
    if len(approvers) < needed:
        raise InvalidInput(
            f"approvers: expected at least {needed}, found {len(approvers)}", next_step="name them with --approver"
        )
    return needed


def _require_proposed(workspace: Workspace, state: ReleaseState, request: ReleaseRequest) -> None:
    """Refuse a request that no proposal in the log names, or one that was not done: its file alone proves nothing."""
    reader = workspace.ledger.reader()
    logged = decode_entry(reader.entry(state.facts.entry))
    entry = logged["unmapped"]["stanch"]
    named = entry["kind"] == "release.propose" and str(request.digest) in entry["payload"].get("requests", ())
    if not named or request.model != state.facts.digest:
        raise PolicyViolation(
            f"release {state.facts.name}: what stands in its file for {request.recipient_name} was never proposed",
            why=f"log entry {state.facts.entry} names other requests than {request.digest}, or it is for another model",
            next_step="find out who changed the workspace's files, and propose the release again",
        )
    act = logged["metadata"]["correlation_uid"]
    if not any(reader.query(EntryQuery(act=act, phase="outcome", status=1))):
        raise PolicyViolation(
            f"release {state.facts.name}: its proposal did not come to its end",
            why="the log holds no outcome of it, which says to what its marks are bound: no pack could show them",
            next_step="propose it again under another name",
        )


def _keep(workspace: Workspace, state: ReleaseState, copy: ReleasedCopy) -> KeptCopy:
    if copy.record is not None:
        QuorumFiles(copy.record).write(quorum_folder(copy.path))
    facts = CopyFacts(
        recipient=copy.recipient, manifest_sha256=copy.manifest.hex, created_ms=int(workspace.now().timestamp() * 1000)
    )
    return KeptCopy.create(state.folder, facts, copy.record)


def _order(
    workspace: Workspace, state: ReleaseState, request: ReleaseRequest, terms: CopyTerms, provider: KeyProvider
) -> CopyOrder:
    certificate = Path(state.facts.certificate)
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    verified = read_certificate(certificate, trusted)
    if Digest.sha256(certificate.read_bytes()).hex != request.certificate_sha256:
        raise InvalidInput(
            f"{certificate}: not the certificate that was approved", next_step="propose the release again"
        )
    plan = state.mark_plan()
    base = state.base
    return CopyOrder(
        original=state.model, certificate=verified, policy=terms.policy, plan=plan,
        key=state.copy_key(plan, request.recipient_name), recipient=provider,
        signer=workspace.keys.signer("publisher"), authority=terms.authority,
        lineage=request.lineage, release_number=request.release_number, not_after=request.expires,
        base=BaseModel(base.name, directory_digest(base).root.hex) if base is not None else None,
        certificate_digest=Digest("sha256", bytes.fromhex(request.certificate_sha256)),
        mark_commitment=state.commitment(plan).root, dataset=state.facts.dataset, recipe=state.facts.recipe,
    )  # fmt: skip


def _loss_on(
    workspace: Workspace, holdout: Path | None, order: CopyOrder, base: Path | None, progress: Progress
) -> Evaluate | None:
    """Return what measures the loss on hold-out records, read as the model's tuning read its own; None without any."""
    if holdout is None:
        return None
    try:
        from stanch.release.loss_torch import LossOn  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    records = tuple(open_dataset(holdout, key=workspace.keys.secret("dataset")))
    loss = LossOn(records=records, base=base, base_model=order.base, progress=progress)
    tuning = find_tuning(workspace, order.plan.original)
    if tuning is None:
        return loss
    return replace(loss, max_tokens=tuning.max_tokens, completion_only=tuning.completion_only)
