"""Verbs about a model: tune it, audit it, let it through the gate."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from stanch.audit import (
    LEAKCERT_TYPE,
    AdapterOff,
    AuditInput,
    AuditParams,
    AuditResult,
    GatePassed,
    GatePolicy,
    LocalPass,
    PassEngine,
    Passing,
    Scorer,
    audit,
    gate,
    model_subjects,
    predicate,
    render_html,
    require_as_strict,
)
from stanch.audit.certificate_file import read_certificate
from stanch.crypto import sync_folder, write_atomic
from stanch.data import Dataset
from stanch.errors import GateFailed, Inconclusive, InvalidInput
from stanch.sign import (
    Statement,
    TrustedKeys,
    sign_statement,
)
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, JsonValue, Progress
from stanch.tune import Keeping, TunedModel, TuneSpec, journal_name, run_folder, tune
from stanch.tune.refusals import PrivacySpent
from stanch.weights import DirectoryDigest, directory_digest
from stanch.workspace.act import Done, Request
from stanch.workspace.artifacts import dataset_ref, model_ref
from stanch.workspace.opening import Workspace
from stanch.workspace.tuning_log import Spent, find_spent, taught, tell_model
from stanch.workspace.verbs_training import LogRecorder
from stanch.workspace.verbs_tune import keep_heads

CERTIFICATE_NAME = "leakcert.json"
REPORT_NAME, SCORES_NAME, PAGE_NAME = "report.json", "scores.csv", "report.html"
_NOTHING = Spent((), frozenset(), ())


def run_tuning(
    workspace: Workspace,
    spec: TuneSpec,
    dataset: Dataset,
    *,
    resume: bool = False,
    keeping: Keeping | None = None,
    progress: Progress = SILENT,
) -> TunedModel:
    """Fine-tune; the log holds the spec's privacy before the first step and the model's digest after the last.

    In between it keeps what the run tells, and the heads of the budget journal: a resumed run must hold the last of
    them. Private runs on the same file that the log holds count as earlier ones; of those that never ended the
    statement says that it does not count them.

    Raises:
        PrivacySpent: The log does not say what an earlier run spent, and the spec does not name it.
    """
    ref = dataset_ref(dataset.path)

    def run(_ref: EntryRef) -> Done[TunedModel]:
        spent = _count_earlier(workspace, spec, ref, resume=resume) if spec.privacy.enabled else _NOTHING
        kept = keep_heads(workspace, dataset.path, run_folder(spec), keeping)
        tuned = tune(
            spec, dataset=dataset, earlier=spent.earlier, progress=progress, resume=resume, keeping=kept,
            recorder=LogRecorder(workspace, ref, spent),
        )  # fmt: skip
        return Done(tuned, {**tell_model(model_ref(tuned.path).digest, tuned.statement), **taught(spec, dataset)})

    payload: dict[str, JsonValue] = {"privacy": spec.privacy.enabled, "epsilon": repr(spec.privacy.epsilon)}
    return workspace.door.act(Request("tune.run", "model:tune", ref, payload), run)


def _count_earlier(workspace: Workspace, spec: TuneSpec, data: ArtifactRef, *, resume: bool) -> Spent:
    named = [Path(run) for run in spec.privacy.earlier]
    known = [journal_name(run) for run in (*named, *([run_folder(spec)] if resume else []))]
    spent = find_spent(workspace, data.digest, known)
    missing = spent.untold - {str(model_ref(run).digest) for run in named}
    if missing:
        raise PrivacySpent(
            f"{data.name}: the log does not say what private runs on it spent ({len(missing)})",
            why=f"an earlier release recorded them; one of them made {min(missing)}",
            next_step="name their folders with --earlier",
        )
    return replace(spent, untold=frozenset())


@dataclass(frozen=True, slots=True)
class AuditSubject:
    """A model that lies in no folder: what the log calls it, and the files that it is made of.

    Without files no certificate is made.
    """

    ref: ArtifactRef
    files: DirectoryDigest | None

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Return the model in ``folder``."""
        found = directory_digest(folder)
        return cls(ArtifactRef("model", folder.resolve().name, found.root), found)


@dataclass(frozen=True, slots=True)
class AuditOrder:
    """What is audited (a folder, or what stands for it), how, against which base, with what, and where to.

    Finished parts of the feature pass lie beside ``out`` until the audit is complete, so that an interrupted one is
    taken up where it was; with ``keep_features`` they stay. ``engine`` does the parts.
    """

    model: Path | AuditSubject
    target: Callable[[], Scorer]
    base: Callable[[Scorer], Scorer | AdapterOff | None]
    material: AuditInput
    params: AuditParams
    out: Path
    engine: PassEngine = field(default_factory=LocalPass)
    keep_features: bool = False

    @property
    def features(self) -> Path:
        """Where finished parts of the feature pass lie: per-token losses, for the owner alone."""
        return self.out.with_name(self.out.name + ".features")


@dataclass(frozen=True, slots=True)
class Audited:
    """A finished audit: the result, and the folder with report, scores, page and, as a rule, signed certificate."""

    result: AuditResult
    folder: Path
    certificate: Digest | None


def run_audit(workspace: Workspace, order: AuditOrder, *, progress: Progress = SILENT) -> Audited:
    """Audit a model; write report, scores and page, and sign the leak certificate.

    The folder appears when it is complete.
    """
    subject = order.model if isinstance(order.model, AuditSubject) else AuditSubject.at(order.model)
    if order.out.exists():
        raise InvalidInput(f"{order.out}: exists already", next_step="choose another --out")

    def run(_ref: EntryRef) -> Done[Audited]:
        target = order.target()
        result = audit(
            target, base=order.base(target), material=order.material, params=order.params, progress=progress,
            passing=Passing(order.engine, order.features), clock=workspace.now,
        )  # fmt: skip
        partial = order.out.with_name(order.out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        write_atomic(partial / REPORT_NAME, result.report.to_bytes(), mode=0o600)
        write_atomic(partial / SCORES_NAME, result.table.to_csv(), mode=0o600)
        write_atomic(partial / PAGE_NAME, render_html(result.report, result.table).encode(), mode=0o600)
        payload: dict[str, JsonValue] = {
            "verdict": str(result.report.verdict), "report": str(result.report.digest),
        }  # fmt: skip
        certificate = None
        if subject.files is not None:
            signed = _certify(workspace, result, subject.files, subject.ref)
            write_atomic(partial / CERTIFICATE_NAME, signed)
            certificate = Digest.sha256(signed)
            payload["certificate"] = str(certificate)
        partial.rename(order.out)
        if not order.keep_features:
            shutil.rmtree(order.features, ignore_errors=True)
        sync_folder(order.out.parent)
        return Done(Audited(result, order.out, certificate), payload, undo=lambda: shutil.rmtree(order.out))

    return workspace.door.act(Request("audit.run", "model:audit", subject.ref), run)


def _certify(workspace: Workspace, result: AuditResult, found: DirectoryDigest, ref: ArtifactRef) -> bytes:
    certificate = predicate(result.report, ref, now=workspace.now())
    statement = Statement(model_subjects(found), LEAKCERT_TYPE, certificate.to_predicate())
    return sign_statement(statement, workspace.keys.signer("publisher")).to_bytes()


def pass_gate(workspace: Workspace, model: Path, certificate: Path, policy: GatePolicy) -> GatePassed:
    """Ask the gate about the model as it is now; the answer is recorded and decides whether it may be released.

    The intent holds the whole policy that was asked with.

    Raises:
        PolicyViolation: The policy is looser than the workspace's ``[gate]``.
        GateFailed: A rule is breached, or the certificate is about other files.
        Inconclusive: The certificate does not decide.
    """
    found = directory_digest(model)
    ref = ArtifactRef("model", model.resolve().name, found.root)

    def run(_ref: EntryRef) -> Done[GatePassed]:
        require_as_strict(policy, workspace.config.gate)
        verified = read_certificate(certificate, TrustedKeys(workspace.keys.publics("publisher")))
        try:
            passed = gate(verified, found, policy, now=workspace.now())
        except (GateFailed, Inconclusive):
            workspace.people.set_gate(ref, "failed")
            raise
        _, settle = workspace.people.rehearse(lambda on: on.set_gate(ref, "passed"))
        return Done(passed, {"certificate": str(Digest.sha256(certificate.read_bytes()))}, settle=settle)

    return workspace.door.act(Request("audit.gate", "model:audit", ref, {"policy": policy.to_payload()}), run)
