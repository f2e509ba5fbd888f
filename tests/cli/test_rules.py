"""``stanch rules``: what its commands print for machines, and their exit codes."""

from pathlib import Path

import pytest

from stanch.scan import load_pack

PACK = Path(__file__).parents[2] / "src/stanch/scan/packs/private-keys.yaml"


def test_the_shipped_rules_are_listed_with_their_sources(stanch):
    shown = stanch("rules", "list", "--json")
    assert shown.code == 0, shown
    data = shown.json["data"]
    assert [row["rule"] for row in data["rules"]] == [rule.id for rule in load_pack()]
    assert data["kinds"] == len({row["kind"] for row in data["rules"]})
    token = next(row for row in data["rules"] if row["rule"] == "npm-token")
    assert (token["severity"], token["family"], token["validator"]) == ("critical", "secret", "crc62-token")
    assert token["source"]["url"].startswith("https://")
    assert token["source"]["read"] == "2026-11-28"


def test_a_pack_is_tried_with_every_engine(stanch):
    pytest.importorskip("hyperscan", reason="hyperscan is not installed")
    shown = stanch("rules", "test", PACK, "--json")
    assert shown.code == 0, shown
    trials = shown.json["data"]["trials"]
    assert {trial["engine"] for trial in trials} == {"hyperscan", "re2"}
    assert all(trial["examples"] >= 3 and not trial["errors"] for trial in trials)


def test_a_broken_pack_says_which_rule_and_what_to_do(stanch, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PACK.read_text().replace("score: 0.9", "score: 9", 1).replace("swallow:", "gulp:", 2))
    shown = stanch("rules", "lint", path, "--json")
    assert shown.code == 1, shown
    errors = shown.json["data"]["errors"]
    assert [error["rule"] for error in errors] == ["private-key-rsa", "private-key-ec"]
    assert all(error["what"] for error in errors)
    assert "swallow:" in errors[1]["next"]
    assert "private-key-rsa" in stanch("rules", "test", path).err
