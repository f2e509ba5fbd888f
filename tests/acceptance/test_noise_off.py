"""Somebody switches the noise off behind the certificate's back: the audit falsifies the claim and the gate blocks."""

import numpy as np
import pytest

from stanch.audit import AuditParams, parse_policy, preregister
from stanch.audit.gate import GateBreached
from stanch.cli.auditing import gather_material, tuned_at
from stanch.cli.demo.records import SYSTEM, export_lines, make_conversations
from stanch.cli.demo.tiny_torch import make_tiny_model
from stanch.cli.models import load_base, load_scorer, tokenizer_digest_at
from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.terms import Verdict
from stanch.tune import TuneSpec
from stanch.tune.noise import AesGaussian
from stanch.workspace import Workspace
from stanch.workspace.verbs_data import plant_canaries
from stanch.workspace.verbs_model import CERTIFICATE_NAME, AuditOrder, pass_gate, run_audit, run_tuning

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

SPEC = """
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
PARAMS = AuditParams(
    detectable_auc=0.7, min_power=0.6, exposure_secrets=2, exposure_candidates=19, tree_budget=20,
    reconstruction_values=0,
)  # fmt: skip


def test_a_claim_without_noise_is_falsified_and_blocked(tmp_path, monkeypatch):
    def silence(_self, _step, _parameter, count, _scale, take):
        take(slice(0, count), np.zeros(count))

    monkeypatch.setattr(AesGaussian, "draw", silence)
    # Whoever switches the noise off also switches off the run's own check of it.
    monkeypatch.setattr("stanch.tune.coverage_torch.check_noise", lambda _gradient: None)
    base = make_tiny_model(tmp_path / "base", seed=7)
    people = make_conversations(7, 24, repeated=0)
    export, train = tmp_path / "export.jsonl", tmp_path / "train.jsonl"
    export.write_text("".join(f"{line}\n" for line in export_lines(people, 7)))
    with Workspace.init(tmp_path / "w") as workspace:
        dataset = open_dataset(export, key=workspace.keys.secret("dataset"))
        plan = plan_canaries(
            dataset, CanarySpec(n=64, secret_length=8, system=SYSTEM), preregistration=preregister(PARAMS).to_json(),
            tokenizer_digest=tokenizer_digest_at(base),
        )  # fmt: skip
        injected = plant_canaries(workspace, dataset, plan, train)
        injected.plan.save(tmp_path / "plan.json")
        out = tmp_path / "private"
        spec = TuneSpec.from_toml(SPEC.format(base=base, data=train, out=out).encode())
        tuned = run_tuning(workspace, spec, open_dataset(train, key=workspace.keys.secret("dataset")))
        assert tuned.statement.epsilon <= 0.5, "the statement cannot know that the noise was off"
        material = gather_material(workspace, tuned_at(out), tmp_path / "plan.json", train, None)
        order = AuditOrder(
            out,
            lambda: load_scorer(out, base),
            lambda scorer: load_base(scorer, base),
            material,
            PARAMS,
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
