"""``release propose`` and ``release create`` say how strong the marks are, what they cost, and keep both."""

import json
from types import SimpleNamespace

import life
import pytest
from chain_model import make_chain

from stanch.ledger import EntryQuery, decode_entry
from stanch.release import utility
from stanch.seal import read_manifest
from stanch.terms import Digest
from stanch.tune.statement import RunFacts, state_no_privacy
from stanch.tune.verify import model_files
from stanch.workspace import Workspace
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_model import pass_gate
from stanch.workspace.verbs_release import release_folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace that let a model through the gate whose tuning states its data set."""
    folder = tmp_path_factory.mktemp("marks")
    chain = make_chain(folder)
    facts = RunFacts(
        files=model_files(chain.model), base_digest=str(Digest.sha256(b"base")), dataset_root="ab" * 32, updates=3,
        dtype="float32", device="cpu", versions={"stanch": "0"},
    )  # fmt: skip
    (chain.model / "statement.json").write_bytes(state_no_privacy(facts).to_json())
    certificate = folder / "cert.json"
    with Workspace.init(folder / "w") as workspace:
        signer = workspace.keys.signer("publisher")
        life.certify(life.make_result(chain.model), chain.model, signer, certificate)
        pass_gate(workspace, chain.model, certificate, life.POLICY)
    return SimpleNamespace(folder=folder, chain=chain, certificate=certificate, workspace=folder / "w")


@pytest.fixture
def propose(stanch, world, template):
    """Propose a release of the model by its name, with more words."""

    def call(name, *words, model=world.chain.model):
        return stanch(
            "--workspace", world.workspace, *words[:1], "release", "propose", model, "--name", name,
            "--cert", world.certificate, "--to", f"acme={template.material.acme.recipient}", *words[1:],
        )  # fmt: skip

    return call


def outcome(workspace, kind, phase):
    reader = workspace.ledger.reader()
    ref = list(reader.query(EntryQuery(kind=kind, phase=phase)))[-1]
    return decode_entry(reader.entry(ref.index))["unmapped"]["stanch"]["payload"]


def test_a_release_says_and_keeps_how_strong_its_marks_are(stanch, world, propose, tmp_path):
    shown = propose("r1", "--json")
    assert shown.code == 0, shown.err
    strength = shown.json["data"]["strength"]
    plan = stanch("--json", "mark", "plan", world.chain.model).json["data"]
    assert strength == {name: plan[name] for name in ("alpha", "distortion", "colluders")}
    assert strength["distortion"] == pytest.approx(1.0308 * strength["alpha"], rel=1e-4)
    assert strength["colluders"]["nf4"]["k_max"] < strength["colluders"]["bf16"]["k_max"]
    with Workspace.open(world.workspace) as workspace:
        kept = ReleaseState.load(release_folder(workspace, "r1")).facts.strength
        assert kept.to_json() == strength
        assert outcome(workspace, "release.propose", "intent")["strength"] == kept.to_payload()
    made = stanch("--workspace", world.workspace, "release", "create", "r1", "--to", "acme", "--out", tmp_path / "c")
    assert made.code == 0, made.err
    most, even = strength["colluders"]["int8"].values()
    assert f"int8     up to {most:,} averaged copies, each found but for 3e-5 · {even:,} at even chances" in made.out
    assert f"by {strength['distortion']:.2%} of its rms" in made.out
    assert "loss       not measured: no records were given" in made.out
    commitments = read_manifest(tmp_path / "c").commitments
    assert (commitments.dataset, commitments.recipe) == ("ab" * 32, None)


def test_the_loss_is_measured_and_logged_and_a_mark_that_costs_too_much_refused(
    stanch, world, propose, tmp_path, monkeypatch
):
    assert propose("r2", "--json", "--alpha", "0.02").json["data"]["strength"]["alpha"] == 0.02
    words = ("release", "create", "r2", "--to", "acme", "--holdout", world.chain.rows, "--out")
    made = stanch("--workspace", world.workspace, "--json", *words, tmp_path / "c")
    assert made.code == 0, made.err
    found = made.json["data"]["utility"]
    assert made.json["data"]["strength"]["alpha"] == 0.02
    assert (found["records"], found["tolerance"]) == (16, 0.005)
    assert found["rise"] == pytest.approx(found["marked_loss"] / found["loss"] - 1)
    with Workspace.open(world.workspace) as workspace:
        told = outcome(workspace, "release.create", "outcome")["utility"]
        assert {name: type(found[name])(value) for name, value in told.items()} == found
        digest = str(dataset_ref(world.chain.rows).digest)
        assert outcome(workspace, "release.create", "intent")["holdout"] == digest
    monkeypatch.setattr(utility, "TOLERANCE", found["rise"] - 1e-6)
    refused = stanch("--workspace", world.workspace, *words, tmp_path / "d")
    assert refused.code == 1
    assert f"{found['loss']:.4f} before, {found['marked_loss']:.4f} nats a token after" in refused.err
    assert "--alpha" in refused.err
    assert not (tmp_path / "d").exists()


def test_records_that_are_not_there_and_a_strength_that_nobody_tested_are_refused(stanch, world, propose, tmp_path):
    assert propose("r3", "--json", "--alpha", "0.5").code == 2
    propose("r4", "--json")
    words = ("--workspace", world.workspace, "release", "create", "r4", "--to", "acme", "--out", tmp_path / "c")
    assert stanch(*words, "--holdout", tmp_path / "none.jsonl").code == 2
    (tmp_path / "empty.jsonl").touch()
    assert stanch(*words, "--holdout", tmp_path / "empty.jsonl").code == 2
    assert not (tmp_path / "c").exists()


def test_an_edited_statement_is_refused(world, propose):
    path = world.chain.model / "statement.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"abab", b"cdcd", 1))
    try:
        shown = propose("r5", "--json")
    finally:
        path.write_bytes(good)
    assert (shown.code, "statement.json" in shown.out) == (1, True)


def test_a_release_of_an_earlier_stanch_keeps_its_strength(world, propose):
    propose("r6", "--json")
    with Workspace.open(world.workspace) as workspace:
        state = ReleaseState.load(release_folder(workspace, "r6"))
        path = state.folder / "release.json"
        facts = json.loads(path.read_text())
        for name in ("strength", "dataset", "recipe"):
            del facts[name]
        path.write_text(json.dumps(facts))
        earlier = ReleaseState.load(state.folder)
        assert earlier.facts.strength is None
        assert earlier.copy_key(earlier.mark_plan(), "acme") == state.copy_key(state.mark_plan(), "acme")
