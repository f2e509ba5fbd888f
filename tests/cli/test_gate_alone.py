"""The gate on a build server: a model, a certificate, a key; no workspace. And the action that calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import life
import pytest
import yaml

from stanch.audit.gate_policy import ReleaseContext
from stanch.crypto import SigningKey

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.fixture(scope="module")
def signed(files, tmp_path_factory):
    """A model that leaks nothing, one that leaks, their certificates, and the key that signed both."""
    folder = tmp_path_factory.mktemp("signed")
    signer = SigningKey.load(files.sign_pem)
    certificates = [
        life.certify(life.make_result(files.model, shift), files.model, signer, folder / f"{name}.json")
        for name, shift in (("quiet", 0.0), ("leaking", 4.0))
    ]
    return files.model, *certificates, files.sign_pub_pem


def test_answers_without_a_workspace_and_leaves_none(stanch, signed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, quiet, _, key = signed
    shown = stanch("--json", "audit", "gate", model, "--cert", quiet, "--trust", key, "--out", "faces")
    assert (shown.code, shown.json["data"]["outcome"]) == (0, "pass")
    assert shown.json["data"]["release_context"] == "open-weights"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["faces", "gate.md", "gate.sarif", "gate.xml"]
    assert json.loads((tmp_path / "faces/gate.sarif").read_text())["version"] == "2.1.0"
    assert ET.parse(tmp_path / "faces/gate.xml").getroot().get("failures") == "0"  # noqa: S314 - our own output


def test_blocks_a_leaking_model_and_still_writes_why(stanch, signed, tmp_path):
    model, _, leaking, key = signed
    shown = stanch("audit", "gate", model, "--cert", leaking, "--trust", key, "--out", tmp_path / "faces")
    assert shown.code == 1
    assert "breach        max_epsilon_lower_bound" in shown.out
    assert "**Release gate: breach**" in (tmp_path / "faces/gate.md").read_text()


def test_a_key_that_did_not_sign_is_not_trusted(stanch, signed, files, tmp_path):
    model, quiet, _, _ = signed
    shown = stanch("audit", "gate", model, "--cert", quiet, "--trust", files.other_pub_pem, "--out", tmp_path / "faces")
    assert (shown.code, shown.out) == (1, "")
    assert not (tmp_path / "faces").exists()


def test_the_context_of_the_command_line_chooses_the_limits(stanch, signed, tmp_path):
    model, quiet, _, key = signed
    policy = tmp_path / "stanch.toml"
    policy.write_text('[gate]\nrelease_context = "partner"\nmin_rows = 3001\n')
    words = ("--json", "audit", "gate", model, "--cert", quiet, "--trust", key, "--policy", policy)
    assert stanch(*words).json["data"]["release_context"] == "partner"
    assert stanch(*words).code == 5
    for context in ReleaseContext.__args__:
        assert stanch(*words, "--release-context", context).json["data"]["release_context"] == context


@pytest.mark.parametrize("key", ["max_extraction_rate = 0.5", 'require_mode = "any-but-bare"', "min_secrets = 0"])
def test_a_file_beside_a_context_may_only_ask_for_more(stanch, signed, run_action, tmp_path, key):
    """The file may come from the very change that is judged."""
    model, quiet, _, trust = signed
    policy = tmp_path / "stanch.toml"
    policy.write_text(f'[gate]\nrelease_context = "internal-api"\n{key}\n')
    words = ("audit", "gate", model, "--cert", quiet, "--trust", trust, "--policy", policy)
    assert stanch(*words).code == 0
    refused = stanch(*words, "--release-context", "open-weights")
    assert refused.code not in {0, 5}
    assert f"gate policy: {key.split()[0]}" in refused.err
    done, output, _ = run_action(
        model=model, certificate=quiet, trust=trust, policy=policy, **{"release-context": "open-weights"}
    )
    assert (done.returncode, output) == (refused.code, {"outcome": ""})


def test_an_answer_with_chosen_keys_does_not_let_a_model_out(stanch, signed, files):
    """Whoever signs a certificate with a key of her own gets an answer, but no release."""
    model, quiet, _, key = signed
    shown = stanch("--workspace", files.w, "audit", "gate", model, "--cert", quiet, "--trust", key)
    assert shown.code == 0
    recorded = stanch("--workspace", files.w, "audit", "gate", model, "--cert", quiet)
    assert recorded.code == 1
    assert "trusted" in recorded.err


@pytest.fixture
def run_action(tmp_path):
    """Run the action's gate step as a runner does, with inputs as its variables."""
    step = next(step for step in ACTION["runs"]["steps"] if step["id"] == "gate")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "stanch").write_text(f'#!/bin/sh\nexec {sys.executable} -m stanch "$@"\n')
    (tools / "stanch").chmod(0o755)

    def run(**inputs):
        output, summary = tmp_path / "output", tmp_path / "summary"
        output.write_text("")
        summary.write_text("")
        given = {name: inputs.get(name, spec.get("default")) for name, spec in ACTION["inputs"].items()}
        variables = {}
        for name, expression in step["env"].items():
            variables[name] = str(given[expression.removeprefix("${{ inputs.").removesuffix(" }}")])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], check=False, cwd=tmp_path,
            env={**os.environ, **variables, "PATH": f"{tools}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output),
                 "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True, text=True,
        )  # fmt: skip
        return done, dict(line.split("=", 1) for line in output.read_text().splitlines()), summary.read_text()

    return run


def test_the_action_blocks_and_forgets_earlier_answers_and_reads_no_input_as_a_command(run_action, signed, tmp_path):
    model, quiet, leaking, key = signed
    done, output, summary = run_action(model=model, certificate=leaking, trust=key)
    assert (done.returncode, output["outcome"]) == (1, "breach"), done.stderr
    assert "**Release gate: breach**" in summary
    assert (tmp_path / output["sarif"]).is_file()
    assert (tmp_path / output["junit"]).is_file()
    done, output, summary = run_action(model="$(touch owned); touch owned", certificate=quiet, trust=key)
    assert (done.returncode, output, summary) == (2, {"outcome": ""}, "")
    assert not (tmp_path / "owned").exists()


def test_no_step_of_the_action_pastes_an_input_into_its_script():
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
