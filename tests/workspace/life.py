"""A model's life in small: an adapter with enough weights to mark, its certificate, and a team with all its roles."""

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from servers import PostgresqlServer, S3Server
from stanch.audit import (
    LEAKCERT_TYPE,
    AuditParams,
    AuditResult,
    GatePolicy,
    model_subjects,
    predicate,
    preregister,
)
from stanch.audit.membership import planned_membership, tie_seed_of
from stanch.audit.params import ATTACK_PACK, TESTED_SCORES
from stanch.audit.rates import clopper_pearson
from stanch.audit.report import Report, conclude
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import (
    Exposure,
    ExposureTier,
    Extraction,
    ModelSummary,
    PlanSummary,
    RowExtraction,
    SecretExtraction,
    Tool,
)
from stanch.config import load_config
from stanch.crypto.identity import Identity, generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.ledger import decode_entry
from stanch.mark import commit
from stanch.sign import Statement, sign_statement
from stanch.terms import ArtifactRef, CommitmentEvidence
from stanch.weights import Tensor, directory_digest, write_safetensors
from stanch.workspace import Workspace
from stanch.workspace.opening import SETTINGS
from stanch.workspace.verbs_access import add_person
from stanch.workspace.verbs_approve import approve_release, load_record, register_key
from stanch.workspace.verbs_model import pass_gate
from stanch.workspace.verbs_release import CopyTerms, Proposal, create_release, propose_release

POLICY = GatePolicy.for_context("internal-api")
MODULES, OUTPUTS, INPUTS, RANK = 8, 128, 64, 16
START = datetime.now(UTC).replace(microsecond=0)
"""When certificates are issued: before any test looks at its clock, however long the suite takes."""
ROLES = {
    "dana": ("data_steward", "ml_engineer"),
    "rita": ("release_manager",),
    "rolf": ("release_manager",),
    "ruth": ("release_manager",),
    "ada": ("auditor",),
    "ines": ("incident_lead",),
    "nina": (),
}
APPROVERS = ("rita", "rolf")
"""Who registered a key that shares are wrapped to."""
LOCKED = ("olga", "rita", "rolf", "ines")
"""Whose keys a passphrase locks; ruth releases without one."""


def passphrase(name="olga"):
    return Passphrase(f"the passphrase of {name}")


@contextmanager
def cheaply():
    """Let Argon2id take 1 MiB once, and a mark have 128 decoys, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(commit.__kwdefaults__, "decoys", 128)
        patch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)})
        yield


def make_base(folder):
    folder.mkdir(parents=True)
    values = np.random.default_rng(1).normal(size=(OUTPUTS, INPUTS)).astype(np.float32)
    tensors = [Tensor.from_float32(f"{name}.weight", 0.02 * values) for name in module_names()]
    write_safetensors(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type":"llama"}')
    return folder


def make_adapter(folder, seed=2):
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors = []
    for name in module_names():
        for part, shape in (("A", (RANK, INPUTS)), ("B", (OUTPUTS, RANK))):
            values = 0.01 * generator.normal(size=shape).astype(np.float32)
            tensors.append(Tensor.from_float32(f"base_model.model.{name}.lora_{part}.weight", values))
    write_safetensors(folder / "adapter_model.safetensors", tensors, metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def module_names():
    return [f"model.layers.{layer}.self_attn.q_proj" for layer in range(MODULES)]


def make_table(shift=0.0, count=512):
    """Scores of members and others that differ by ``shift``: 0 shows no leak, 4 proves one."""
    generator = np.random.default_rng(1)
    coins = generator.random(count) < 0.5
    common = generator.normal(size=count) + shift * coins
    return ScoreTable(
        ids=tuple(f"c{index}" for index in range(count)),
        kinds=("secret",) * count,
        tiers=("once",) * count,
        member=coins,
        copies=np.ones(count, dtype=np.int64),
        scores={name: common + 0.3 * generator.normal(size=count) for name in TESTED_SCORES},
    )


def make_result(model, shift=0.0):
    """What a planned audit of the folder ``model`` finds whose canaries have the scores of :func:`make_table`."""
    params, seed, table, found = AuditParams(), tie_seed_of("plan"), make_table(shift), directory_digest(model)
    member = planned_membership(
        table.formal_tiers(params.formal_tiers), params.scores, params, tie_seed=seed, formal=True
    )
    rows = RowExtraction(0, 3000, 0, 0, clopper_pearson(0, 3000, side="upper").upper, 0, 0, 0, census=True)
    report = conclude(
        Report(
            attack_pack=ATTACK_PACK,
            created=START.strftime("%Y-%m-%dT%H:%M:%SZ"),
            tool=Tool("stanch", "0.1.0"),
            mode="planned",
            model=ModelSummary(str(found.root), ()),
            plan=PlanSummary("plan", "ab" * 32, CommitmentEvidence("ab" * 32, 3, 5), ()),
            preregistration=preregister(params),
            tie_seed=str(seed),
            scores=member.scores,
            scan=member.scan,
            membership=member.membership,
            epsilon=member.epsilon,
            power=member.power,
            exposure=Exposure(999, (ExposureTier("once", 16, 16, 1.0, 3.0, 39.9),), (), fisher_in=0.6, fisher_out=0.5),
            extraction=Extraction(
                decoding=params.decoding,
                n_budget=params.sample_budget,
                p=params.sample_probability,
                rows=rows,
                secrets=SecretExtraction(0, 250, 0, 250),
            ),
            reasons=member.reasons,
            limits=("a limit",),
            scores_digest=str(table.digest),
        )
    )
    return AuditResult(report, table, (), ())


def certify(result, model, signer, path, **options):
    """Write the signed leak certificate of the folder ``model``."""
    found = directory_digest(model)
    cert = predicate(result.report, ArtifactRef("model", model.name, found.root), now=START, **options)
    statement = Statement(model_subjects(found), LEAKCERT_TYPE, cert.to_predicate())
    path.write_bytes(sign_statement(statement, signer).to_bytes())
    return path


@dataclass(frozen=True)
class Material:
    """What every test reads and none changes."""

    folder: Path
    base: Path
    model: Path
    data: Path
    acme: Identity
    other: Identity
    result: AuditResult
    identities: dict[str, Identity]

    def copy_model(self, folder):
        """Return a copy of the model that a test may change."""
        return Path(shutil.copytree(self.model, folder))


def make_data(path, count=40):
    words = ["river", "stone", "market", "lantern", "cedar", "violet", "harbour", "winter", "copper", "meadow"]
    generator = np.random.default_rng(5)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {index}: " + " ".join(generator.choice(words, 14))},
                {"role": "assistant", "content": " ".join(generator.choice(words, 20))},
            ]
        }
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_material(folder):
    model = make_adapter(folder / "adapter")
    return Material(
        folder, make_base(folder / "base"), model, make_data(folder / "train.jsonl"), generate_identity(),
        generate_identity(), make_result(model), {name: generate_identity() for name in APPROVERS},
    )  # fmt: skip


class Files:
    """Rows and blobs in the workspace's own folder."""

    def prepare(self, folder):
        """Make the folder of a workspace whose settings lead here."""
        folder.mkdir()

    def copy(self, folder, target):
        """Copy a closed workspace, and return its folder."""
        return Path(shutil.copytree(folder, target))


@dataclass(frozen=True)
class Servers(Files):
    """Rows in PostgreSQL and blobs in S3, with the variables set that lead there."""

    postgresql: PostgresqlServer
    s3: S3Server

    def prepare(self, folder):
        super().prepare(folder)
        tables, blobs = self.postgresql.database(), self.s3.uri()
        text = f'[workspace]\ntables = "{tables}"\nblobs = "{blobs}"\n\n[ledger]\norigin = "example.com/shared"\n'
        (folder / SETTINGS).write_text(f'{text}\n[access]\nprofile = "team"\n')

    def copy(self, folder, target):
        where = load_config(folder / SETTINGS, environ={}).workspace
        settings = super().copy(folder, target) / SETTINGS
        text = settings.read_text()
        for old, new in ((where.tables, self.postgresql.copy(where.tables)), (where.blobs, self.s3.copy(where.blobs))):
            text = text.replace(old, new)
        settings.write_text(text)
        return target


def make_team(folder, identities):
    """Make a workspace with profile ``team`` and everybody of :data:`ROLES`; approvers have registered their keys."""
    with Workspace.init(folder, profile="team", owner="olga", passphrase=passphrase()) as workspace:
        for name, roles in ROLES.items():
            bring_person(workspace, name, roles, locked=name in LOCKED)
        for name, identity in identities.items():
            acting_in(workspace, name, register_key, str(identity.recipient))
    return folder


def bring_person(workspace, name, roles, *, locked=True, **more):
    """Register a person with the key that the person made."""
    key = workspace.keys.add_person(name, passphrase=passphrase(name) if locked else None)
    return add_person(workspace, name, roles, key=key.public, **more)


def acting_in(workspace, name, act, *arguments):
    """Let somebody do one act in an opened workspace."""
    return act(workspace.acting_as(name, unlock=lambda: passphrase(name)), *arguments)


@contextmanager
def acting(folder, name):
    """Open the workspace in ``folder`` as ``name``."""
    with Workspace.open(folder, principal=name, unlock=lambda: passphrase(name)) as workspace:
        yield workspace


def entries(workspace, start=0):
    """Return the entries from ``start`` on, as ``(phase, kind, act, result)``."""
    reader = workspace.ledger.reader()
    found = [decode_entry(reader.entry(index)) for index in range(start, reader.size())]
    return [
        (ours["phase"], ours["kind"], entry["metadata"]["correlation_uid"], ours.get("result", ""))
        for entry in found
        for ours in (entry["unmapped"]["stanch"],)
    ]


def tree(folder):
    """Return the names below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def contents(folder):
    """Return the bytes of every file below a folder."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@dataclass(frozen=True)
class Case:
    """A workspace of a team that a test may change, the material, and a certificate signed by its publisher."""

    folder: Path
    material: Material
    certificate: Path

    def acting(self, name):
        return acting(self.folder, name)

    def create(self, workspace, out, *, name="r1", recipient="acme", approvers=APPROVERS):
        """Make a recipient's copy as whoever acts."""
        return create_release(workspace, name, recipient, out, CopyTerms(policy=POLICY, approvers=approvers))

    def approve(self, workspace, *, name="r1", recipient="acme"):
        """Approve what a copy's record asks for as whoever acts, with the own identity."""
        request = load_record(workspace, name, recipient).request.digest
        identity = self.material.identities.get(workspace.people.name, self.material.other)
        return approve_release(workspace, name, recipient, identity, request=request)

    def proposal(self, name="r1", **changes):
        material = self.material
        settings = {
            "name": name, "model": material.model, "base": material.base, "certificate": self.certificate,
            "recipients": {"acme": str(material.acme.recipient), "bolt": str(material.other.recipient)},
            "not_after": in_days(30), "lineage": "acme/bot",
        }  # fmt: skip
        return Proposal(**settings | changes)


def make_proposed(folder, material, ground):
    """Make a team whose dana let the model through the gate and proposed release ``r1``."""
    ground.prepare(folder / "w")
    case = Case(make_team(folder / "w", material.identities), material, folder / "leakcert.json")
    with case.acting("dana") as workspace:
        certify(material.result, material.model, workspace.keys.signer("publisher"), case.certificate)
        pass_gate(workspace, material.model, case.certificate, POLICY)
        propose_release(workspace, case.proposal())
    return case


def in_days(days):
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
