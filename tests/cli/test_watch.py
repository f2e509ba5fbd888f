"""``stanch watch``: exit codes of a simulation, the picture, and how far the detectors have read."""

import xml.etree.ElementTree as ET

import pytest

from stanch.cli import watch_plot
from stanch.cli.watch_simulate import _EXITS
from stanch.terms import ArtifactRef, Digest
from stanch.watch import runner
from stanch.watch.insider import Scenario, Trace
from stanch.watch.leak import FindingDetector
from stanch.workspace import Done, Request, Workspace


@pytest.mark.parametrize(
    ("words", "code", "verdict"),
    [
        ("--detector D5 --principals 50 --hours 200 --threshold 1000", 0, "holds"),
        ("--detector D5 --principals 10 --hours 100", 5, "too small"),
    ],
)
def test_a_simulation_ends_with_the_code_of_its_verdict(stanch, words, code, verdict):
    shown = stanch("watch", "simulate", *words.split(), "--json")
    assert (shown.code, shown.json["data"]["verdict"]) == (code, verdict)
    assert verdict.upper() in stanch("watch", "simulate", *words.split()).out
    assert _EXITS["broken"] == 1


def test_the_picture_says_what_the_scenario_found():
    traces = (Trace("bulk copy", "D2", 3.0, ("D3",)), Trace("slow drip", "", float("inf"), ()))
    picture = watch_plot.draw(Scenario(60, 90, traces, {"D2": 0.1}))
    root = ET.fromstring(picture)  # noqa: S314 - our own text
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert "bulk copy: D2, 3 h" in words
    assert "slow drip: not found" in words
    assert "1 of 2 insiders" in picture


def test_a_replay_says_what_a_watch_would_have_said_and_changes_nothing(stanch, tmp_path):
    place = tmp_path / "w"
    with Workspace.init(place) as workspace:
        model = ArtifactRef("model", "bot", Digest.sha256(b"bot"))
        done = {"verdict": "block", "findings": {"canary": 1}}
        workspace.door.act(Request("gateway.infer", "model:infer", model), lambda _ref: Done(None, done))
        size = workspace.ledger.reader().size()
        before = runner.progress(workspace.tables, workspace.ledger.origin, [FindingDetector()])
    told = stanch("--workspace", place, "watch", "simulate", "--replay", "--json").json["data"]
    assert told["entries"] == size
    assert [(one["detector"], one["signal"], one["entries"]) for one in told["alarms"]] == [
        ("D1", "canary", [size - 1])
    ]  # fmt: skip
    assert "nobody was told" in stanch("--workspace", place, "watch", "simulate", "--replay").out
    with Workspace.open(place) as workspace:
        assert workspace.ledger.reader().size() == size
        assert runner.progress(workspace.tables, workspace.ledger.origin, [FindingDetector()]) == before


def test_status_says_how_far_each_detector_has_read(stanch, files):
    before = stanch("--workspace", files.w, "watch", "status", "--json").json["data"]
    assert {row["behind"] for row in before["detectors"]} == {before["entries"]}
    with Workspace.open(files.w) as workspace:
        reader = workspace.ledger.reader()
        runner.catch_up(reader, reader.tables, [FindingDetector()], deliver=lambda *_: None)
    after = stanch("--workspace", files.w, "watch", "status", "--json").json["data"]["detectors"]
    assert after[0] == {
        "detector": "D1", "next_entry": before["entries"], "behind": 0, "alarms": 0, "last_alarm_at": None,
        "state_bytes": 0,
    }  # fmt: skip
    assert "0 alarms" in stanch("--workspace", files.w, "watch", "status").out
