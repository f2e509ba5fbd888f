"""An insider with a role and a month of patience wants the model out. What does she get, and what does the log show?

Dana, who tunes models, works from the first day to the thirtieth with the commands that everybody has.
"""

import shutil
from pathlib import Path

import pytest
from scene import change, done, facts, open_as, stanch, team

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]

COPY = "--approver rita --approver rolf --policy gate.toml --out loot"
TRIED = [
    "access grant dana release_manager",
    "access add second --role release_manager",
    "access key register {to}",
    "release deliver acme.sealed file:loot",
    f"release create r1 --to acme {COPY}",
    "release approve r1 --to acme --identity dana.key --request {request}",
    "release revoke {uri} {to} --reason none",
    "access break-glass --reason why.txt --for 15m",
    "access approve ours.cedar",
    "access policy activate ours.cedar",
    "access policy rollback",
    "log erase --field actor.user.email_addr --before 2030-01-01 --basis gdpr-17-1-b",
    "key rotate publisher",
    "log show",
]
"""What she tries, one thing every second day."""


def test_what_her_role_does_not_hold(later):
    done(stanch("key new --out dana.key"))
    Path("why.txt").write_text("to look at it")
    Path("ours.cedar").write_text(done(team("olga", "--json access policy show")).data["text"] + "// mine\n")
    for number, line in enumerate(TRIED):
        refused = later.team(1 + 2 * number, "dana", line.format(**facts("acme")))
        assert refused.code == 3, refused
        assert "may not" in refused.err, refused
    assert not Path("loot").exists()
    # An auditor whose role was granted anew reads all of it, in order, with her pseudonym and the day.
    done(later.team(29, "olga", "access grant ada auditor"))
    ((dana,),) = change("SELECT id FROM principal WHERE display = 'dana'")
    found = done(later.team(31, "ada", f"--json log query --phase denied --principal {dana}")).data["entries"]
    assert len(found) == len(TRIED)
    assert {entry["event"]["unmapped"]["stanch"]["kind"] for entry in found} >= {"access.grant", "release.deliver"}
    days = [entry["event"]["time"] // 86_400_000 for entry in found]
    assert [day - days[0] for day in days] == [2 * number for number in range(len(TRIED))]
    # Her roles have ended by themselves.
    refused = later.team(31, "dana", "data manifest material/train.jsonl")
    assert (refused.code, "no role that it holds permits this" in refused.err) == (3, True), refused


def test_what_her_role_holds():
    """She proposes, under another name, a release to a key of her own: two people are shown whom it is for."""
    hers = done(stanch("key new --out dana.key --json")).data["recipient"]
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={hers}"))
    done(team("rolf", f"release create r2 --to acme {COPY}"))
    shown = team("rita", "release approve r2 --to acme --identity rita.key")
    assert (shown.code, hers in shown.err) == (2, True), shown
    assert facts("acme")["to"] not in shown.err
    assert open_as("dana", "loot").code == 3


def test_the_model_that_she_tuned():
    """The limit: who tunes holds the weights. A plain copy is found where it lies; no command stops it."""
    shutil.copytree("model", "home/pictures")
    Path("home/pictures/adapter_model.safetensors").rename("home/pictures/img_001.jpg")
    found = stanch("--json inventory home --model model")
    assert found.code == 1, found
    assert [Path(stray["place"]).name for stray in found.data["stray"]] == ["img_001.jpg"]
