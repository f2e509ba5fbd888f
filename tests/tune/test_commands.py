"""``stanch tune`` from plan to statement, over the command line."""

import json
from pathlib import Path

import pytest

from stanch.cli.frame import run
from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import InvalidInput
from stanch.tune import TuneSpec
from stanch.workspace import Workspace

from .conftest import STEPS, spec_text, write_chats


@pytest.fixture
def place(base, tmp_path, monkeypatch) -> Path:
    """A workspace, a spec, its data, and keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))
    monkeypatch.chdir(tmp_path)
    Workspace.init(tmp_path / "w").close()
    write_chats(tmp_path / "chats.jsonl", 60)
    (tmp_path / "spec.toml").write_text(spec_text(base, Path("out")) + '[data]\nuri = "chats.jsonl"\n')
    SigningKey.generate("p256").save(tmp_path / "sign.pem")
    identity = generate_identity()
    identity.save(tmp_path / "me.key")
    (tmp_path / "me.pub").write_text(str(identity.recipient))
    return tmp_path


@pytest.fixture
def stanch(place, capsys):
    def call(*words: str) -> tuple[int, dict, str]:
        capsys.readouterr()
        code = run(["--workspace", str(place / "w"), "--json", *words])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    return call


def test_a_run_takes_other_privacy_than_the_spec_says(stanch, monkeypatch):
    asked = []

    def stop(_workspace, spec, *_others, **_more):
        asked.append((spec.privacy.enabled, spec.privacy.epsilon))
        raise InvalidInput("enough")

    monkeypatch.setattr("stanch.workspace.verbs_model.run_tuning", stop)
    for flags in ((), ("--epsilon", "0.25"), ("--no-privacy",)):
        assert stanch("tune", "run", "spec.toml", *flags)[0] == 2
    assert asked == [(True, 1.0), (True, 0.25), (False, 1.0)]
    code, refused, _ = stanch("tune", "run", "spec.toml", "--no-privacy", "--epsilon", "1")
    assert (code, len(asked)) == (2, 3)
    assert "either" in refused["error"]["what"]


def test_from_plan_to_statement(stanch, place):
    code, planned, _ = stanch("tune", "plan", "spec.toml")
    assert code == 0
    assert planned["data"]["plan"]["steps"] == STEPS
    assert planned["data"]["plan"]["n_units"] == planned["data"]["records"] == 60
    assert not (place / "out").exists()

    code, refused, _ = stanch("tune", "plan", "spec.toml", "--delta", "0.5")
    assert (code, refused["error"]["slug"]) == (2, "delta-too-large")

    recipient = (place / "me.pub").read_text()
    sealed = ("--checkpoint-to", recipient, "--identity", "me.key")
    code, refused, _ = stanch("tune", "run", "spec.toml", *sealed)
    assert (code, refused["error"]["slug"]) == (2, "checkpoint-not-sealable")
    code, made, shown = stanch("tune", "run", "spec.toml", *sealed, "--sign-key", "sign.pem")
    assert code == 0, shown
    assert made["data"]["epsilon"] <= 1.0

    code, verified, _ = stanch("tune", "verify", "out")
    assert code == 0
    head = verified["data"]["head"]
    assert head.endswith(f":{STEPS}")
    assert stanch("tune", "verify", "out", "--anchor", head)[0] == 0
    code, refused, _ = stanch("tune", "verify", "out", "--anchor", f"{head}0")
    assert (code, refused["error"]["slug"]) == (1, "budget-rolled-back")
    assert stanch("tune", "verify", "out", "--dataset-root", "00" * 32)[0] == 1

    code, stated, _ = stanch("tune", "statement", "out")
    assert code == 0
    assert stated["data"]["plan_digest"] == planned["data"]["digest"]
    assert "recognises at most" in stated["data"]["reading"]
    journal = place / "out/budget.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"charge"', b'"resume"', 1))
    code, refused, _ = stanch("tune", "verify", "out")
    assert (code, refused["error"]["slug"]) == (1, "tampered")
    assert "budget.jsonl" in refused["error"]["what"]


def test_canaries_are_units_of_the_column_that_is_named(stanch, place, base):
    lines = "".join(f"question {n:03} of many,answer {n * 7:04},c{n % 30}\n" for n in range(60))
    (place / "rows.csv").write_text(f"prompt,completion,customer_id\n{lines}")
    spec = spec_text(base, Path("out")) + '[data]\nuri = "planted.csv"\nunit = "column:customer_id"\n'
    (place / "column.toml").write_text(spec)
    (place / "plain.toml").write_text(spec.replace("planted", "plain"))
    code, planned, shown = stanch(
        "data", "canaries", "plan", "rows.csv", "--n", "32", "--tokenizer", str(base), "--out", "plan.json"
    )
    assert (code, planned["data"]["n"]) == (0, 32), shown
    into = ("data", "canaries", "inject", "rows.csv", "--plan", "plan.json")
    assert stanch(*into, "--out", "plain.csv")[0] == 0
    code, refused, _ = stanch("tune", "plan", "plain.toml")
    assert (code, refused["error"]["slug"]) == (2, "unit-column-missing")
    code, injected, _ = stanch(*into, "--out", "planted.csv", "--unit-column", "customer_id")
    assert code == 0
    code, planned, _ = stanch("tune", "plan", "column.toml")
    assert (code, planned["data"]["plan"]["n_units"]) == (0, 30 + injected["data"]["inserted"])


def test_changes_to_a_spec_are_checked(base, tmp_path):
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())
    assert spec.changed(privacy={"epsilon": 3.0, "delta": None}).privacy.epsilon == 3.0
    assert spec.with_earlier([Path("a"), Path("b")]).privacy.earlier == ("a", "b")
    with pytest.raises(InvalidInput, match="epsilon"):
        spec.changed(privacy={"epsilon": -1.0})
