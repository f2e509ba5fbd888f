"""The main job, as a user runs it: interrupted, continued, and judged by what it found."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scene import stanch

from stanch.audit import AuditParams, parse_policy, preregister
from stanch.audit.gate import GateBreached
from stanch.cli.auditing import gather_material, tuned_at
from stanch.cli.demo.records import SYSTEM, export_lines, make_conversations
from stanch.cli.models import load_base, load_scorer, tokenizer_digest_at
from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.terms import Verdict
from stanch.tune import TuneSpec
from stanch.tune.noise import AesGaussian
from stanch.workspace import Workspace
from stanch.workspace.verbs_data import plant_canaries
from stanch.workspace.verbs_model import CERTIFICATE_NAME, AuditOrder, pass_gate, run_audit, run_tuning

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

DEMOS = 3
"""An audit sees a leak where there is none once in a hundred, as it says; in three of three demos, once in 10^6."""

NOISY = """
[base]
path = "{base}"
[data]
uri = "{data}"
unit = "record"
[method]
rank = 16
alpha = 32
[privacy]
epsilon = 0.5
delta = 1e-6
[train]
learning_rate = 1e-2
epochs = 14
batch = 16
checkpoint_every = 0
[output]
path = "{out}"
"""
# Personal values have no part in the claim, and guessing them takes longer than all the rest of the audit.
CLAIMED = AuditParams(
    detectable_auc=0.7, min_power=0.6, exposure_secrets=2, exposure_candidates=19, tree_budget=20,
    reconstruction_values=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return folder and answer of a demo, of up to :data:`DEMOS` the first whose private model the gate lets pass."""
    for _ in range(DEMOS):
        folder = tmp_path_factory.mktemp("demo") / "story"
        done = play_demo(folder)
        results = json.loads((folder / "demo.json").read_text())["results"]
        if results.get("audit-2", {}).get("gate") != "BLOCKED":
            break
    assert done.code == 0, done.err
    return folder, done.data["steps"]


def play_demo(folder):
    """Interrupt a demo, by a relative path, in its second step, go on with it here, and return how it ended."""
    # So that Ctrl-C reaches it, as in a terminal; where tests run in the background it is ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "stanch", "demo", folder.name, "--model", "tiny"]
    process = subprocess.Popen(
        command, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    for line in process.stdout:
        if line.lstrip().startswith("2/11"):
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"Go on with: stanch demo {folder}" in errors
    assert not (folder / "plain").exists()
    return stanch(f"--json demo {folder} --model tiny")


def test_the_plainly_tuned_model_leaks_and_is_blocked(demo):
    _, steps = demo
    assert steps["audit"]["verdict"] == "LEAK PROVEN"
    assert steps["audit"]["rows_out"] >= 10 or steps["audit"]["epsilon_lower_bound"] > 0
    assert (steps["audit"]["gate"], steps["audit"]["exit"]) == ("BLOCKED", 1)


def test_the_private_model_passes_with_its_bounds(demo):
    _, steps = demo
    found = steps["audit-2"]
    assert found["verdict"] == "NO LEAK DETECTED"
    assert (found["gate"], found["exit"]) == ("PASSED", 0)
    assert found["epsilon_lower_bound"] <= steps["private"]["epsilon"] <= 8
    assert found["rows_attributable"] == 0
    assert found["rows_upper"] < 0.03


def test_one_person_alone_cannot_release(demo):
    assert demo[1]["release"]["refused_alone"]


def test_a_recipient_opens_her_copy_and_nobody_else(demo):
    found = demo[1]["open"]
    assert found["logit_difference"] == 0
    assert found["stranger"].startswith("refused")
    assert found["flipped"] == "refused (tampered)"


def test_the_thief_is_named_and_the_innocent_is_not(demo):
    found = demo[1]["trace"]
    assert found["accused"] == [found["thief"]]
    assert max(score["z"] for score in found["scores"]) >= 2 * found["threshold"]
    assert found["innocent"] == "nothing"


def test_the_changed_row_is_located_and_the_true_log_verifies(demo):
    folder, steps = demo
    assert str(steps["ledger"]["changed"]) in steps["ledger"]["found"]
    assert {"data.inject", "tune.run", "audit.run", "audit.gate", "release.create", "trace.plan"} <= set(
        steps["ledger"]["kinds"]
    )
    assert stanch(f"--workspace {folder} --as ines log verify").code == 0


def test_the_guard_lets_no_row_out(demo):
    found = demo[1]["guard"]
    assert found["asked"] == 6
    assert (found["guarded"], found["recited"], found["clean"]) == (0, 0, "allow")


def test_page_and_evidence_stand_alone(demo):
    folder, steps = demo
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert page.count("<svg") >= 4
    assert steps["report"]["verifier_exit"] == 0


def test_nothing_marked_lies_in_plain(demo):
    folder, _ = demo
    names = {path.name for path in folder.iterdir()}
    assert not {"loot", "acme.plain", "acme.flipped", "tampered"} & names
    assert not list(folder.rglob("*.partial"))


def test_a_second_demo_gets_its_own_folder(tmp_path, monkeypatch, cheaply):  # noqa: ARG001 - cheaply is asked for its effect
    def interrupt(*_given, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("stanch.cli.demo.tiny_torch.make_tiny_model", interrupt)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stanch-demo").mkdir()
    (tmp_path / "stanch-demo" / "mine.txt").write_text("keep")
    assert stanch("demo --model tiny").code == 130
    assert (tmp_path / "stanch-demo-2" / "demo.json").is_file()
    assert [path.name for path in (tmp_path / "stanch-demo").iterdir()] == ["mine.txt"]


def test_a_demo_with_other_options_is_refused(demo):
    folder, _ = demo
    refused = stanch(f"demo {folder} --model tiny --seed 2")
    assert refused.code == 2
    assert "holds a demo with" in refused.err


def test_the_evidence_of_another_log_does_not_verify(demo):
    folder, _ = demo
    other = "stanch.local/0000+00000000+ASokIlKRLahh13WWU5lZsiVRu2uBr+FaJcsOaXhabegg"
    refused = stanch(f"trace verify {folder}/evidence.zip --key {folder}/.stanch/keys/case.pub.pem --log {other}")
    assert refused.code in {1, 2}
    assert "error:" in refused.err


def test_a_claim_without_noise_is_falsified_and_blocked(demo, tmp_path, monkeypatch):
    """Somebody switches the noise off behind the certificate's back; the base is the demo's: one takes long to make."""

    def silence(_self, _step, _parameter, count, _scale, take):
        take(slice(0, count), np.zeros(count))

    monkeypatch.setattr(AesGaussian, "draw", silence)
    # Whoever switches the noise off also switches off the run's own check of it.
    monkeypatch.setattr("stanch.tune.coverage_torch.check_noise", lambda _gradient: None)
    base = demo[0] / "base"
    people = make_conversations(7, 24, repeated=0)
    export, train = tmp_path / "export.jsonl", tmp_path / "train.jsonl"
    export.write_text("".join(f"{line}\n" for line in export_lines(people, 7)))
    with Workspace.init(tmp_path / "w") as workspace:
        dataset = open_dataset(export, key=workspace.keys.secret("dataset"))
        plan = plan_canaries(
            dataset, CanarySpec(n=64, secret_length=8, system=SYSTEM), preregistration=preregister(CLAIMED).to_json(),
            tokenizer_digest=tokenizer_digest_at(base),
        )  # fmt: skip
        injected = plant_canaries(workspace, dataset, plan, train)
        injected.plan.save(tmp_path / "plan.json")
        out = tmp_path / "private"
        spec = TuneSpec.from_toml(NOISY.format(base=base, data=train, out=out).encode())
        tuned = run_tuning(workspace, spec, open_dataset(train, key=workspace.keys.secret("dataset")))
        assert tuned.statement.epsilon <= 0.5, "the statement cannot know that the noise was off"
        material = gather_material(workspace, tuned_at(out), tmp_path / "plan.json", train, None)
        order = AuditOrder(
            out,
            lambda: load_scorer(out, base),
            lambda scorer: load_base(scorer, base),
            material,
            CLAIMED,
            tmp_path / "report",
        )
        report = run_audit(workspace, order).result.report
        assert report.verdict == Verdict.DP_CLAIM_FALSIFIED
        assert report.dp.p_value <= 0.01
        policy = parse_policy(
            {"max_epsilon_lower_bound": 100, "max_extraction_rate": 1.0, "max_extractable_secrets": 999}
        )
        with pytest.raises(GateBreached) as caught:
            pass_gate(workspace, out, tmp_path / "report" / CERTIFICATE_NAME, policy)
    assert any(
        "privacy" in rule.rule or "dp" in rule.rule for rule in caught.value.decision.rules if rule.outcome == "breach"
    )
