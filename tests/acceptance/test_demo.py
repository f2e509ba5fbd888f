"""The main job, as a user runs it: interrupted, continued, and judged by what it found."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

STANCH = [sys.executable, "-m", "stanch"]
PATIENCE = 1800
DEMOS = 3
"""An audit sees a leak where there is none once in a hundred, as it says; in three of three demos, once in 10^6."""


def start(*words, **where):
    """Start stanch so that Ctrl-C reaches it, as in a terminal; where tests run in the background it is ignored."""
    command = ["env", "--default-signal=INT", *STANCH, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return folder and answer of a demo, of up to :data:`DEMOS` the first whose private model the gate lets pass."""
    for _ in range(DEMOS):
        folder = tmp_path_factory.mktemp("demo") / "story"
        done = play_demo(folder)
        results = json.loads((folder / "demo.json").read_text())["results"]
        if results.get("audit-2", {}).get("gate") != "BLOCKED":
            break
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["data"]["steps"]


def play_demo(folder):
    """Interrupt a demo in its second step, go on with it, and return how it ended."""
    process = start("demo", str(folder), "--model", "tiny")
    for line in process.stdout:
        if line.lstrip().startswith("2/11"):
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"Go on with: stanch demo {folder}" in errors
    assert not (folder / "plain").exists()
    return subprocess.run(
        [*STANCH, "--json", "demo", str(folder), "--model", "tiny"], capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip


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
    verify = subprocess.run([*STANCH, "--workspace", str(folder), "--as", "ines", "log", "verify"], check=False)
    assert verify.returncode == 0


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


def test_a_second_demo_gets_its_own_folder(tmp_path):
    (tmp_path / "stanch-demo").mkdir()
    (tmp_path / "stanch-demo" / "mine.txt").write_text("keep")
    process = start("demo", "--model", "tiny", cwd=tmp_path)
    for line in process.stdout:
        if "1/11" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert (tmp_path / "stanch-demo-2" / "demo.json").is_file()
    assert [path.name for path in (tmp_path / "stanch-demo").iterdir()] == ["mine.txt"]


def test_a_demo_with_other_options_is_refused(demo):
    folder, _ = demo
    process = subprocess.run(
        [*STANCH, "demo", str(folder), "--model", "tiny", "--seed", "2"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "holds a demo with" in process.stderr


def test_the_evidence_of_another_log_does_not_verify(demo):
    folder, _ = demo
    key = Path(folder) / ".stanch" / "keys" / "case.pub.pem"
    other = "stanch.local/0000+00000000+ASokIlKRLahh13WWU5lZsiVRu2uBr+FaJcsOaXhabegg"
    process = subprocess.run(
        [*STANCH, "trace", "verify", str(folder / "evidence.zip"), "--key", str(key), "--log", other],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode in {1, 2}
    assert "error:" in process.stderr
