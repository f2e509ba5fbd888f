"""Can the past be passed off as the present: an old release, an old list, an old database, a whole old workspace?

Who holds the bucket or the disk keeps copies of what lay there, and puts them back.
"""

import shutil
from pathlib import Path

import pytest
from scene import DATABASE, done, facts, get, open_as, put_back, release, stanch, team, verify_log

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


def second_release(here):
    to = facts("acme")["to"]
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={to}"))
    shutil.copy("acme.json", "acme-1.json")
    for name in ("acme.sealed", "acme.sealed.quorum"):
        shutil.rmtree(name)
    for path in here.glob("*-for-acme.json"):
        path.unlink()
    release("acme", to, "r2")


def test_an_old_release_in_the_place_of_the_new_one(here):
    name = Path(facts("acme")["uri"].removeprefix("file:")).name
    old = shutil.copytree(f"store/{name}", f"old/{name}")
    done(get("acme", "one")[0])
    second_release(here)
    for shown in get("acme", "two"):
        done(shown)
    assert done(open_as("acme", "two")).data["release_number"] == 2
    fetch = "--json release fetch file:{} --trust pub.pem --out late"
    for refused in (stanch(fetch.format(old)), open_as("acme", "one")):
        assert (refused.code, refused.slug) == (1, "rollback"), refused
    new = facts("acme")["uri"].removeprefix("file:")
    put_back(old, new)  # and under the new one's name: an id of a bundle is signed
    refused = stanch(fetch.format(new))
    assert (refused.code, refused.slug) == (1, "tampered"), refused
    assert not Path("late").exists()


def test_the_first_contact_is_pinned_by_hand():
    """The limit: who never saw release 2 cannot miss it, unless somebody said its number."""
    line = "--json release fetch {uri} --trust pub.pem --out got".format(**facts("acme"))
    refused = stanch(f"{line} --min-release 2")
    assert (refused.code, refused.slug) == (1, "rollback"), refused
    assert stanch(line).code == 0


def test_a_revocation_that_is_taken_back_out_of_the_bucket():
    done(team("rita", "release revoke {uri} {to} --reason other".format(**facts("bolt"))))
    shutil.copy("store/revocations.json", "old.json")
    done(team("rita", "release revoke {uri} {to} --reason left".format(**facts("acme"))))
    fetch = "--json release fetch {uri} --trust pub.pem --out got".format(**facts("acme"))
    assert stanch(fetch).code == 3
    shutil.copy("old.json", "store/revocations.json")
    refused = stanch(fetch)
    assert (refused.code, refused.slug) == (1, "rollback"), refused
    Path("store/revocations.json").unlink()
    refused = stanch(fetch)
    assert (refused.code, refused.slug) == (1, "rollback"), refused
    assert not Path("got").exists()


def test_an_old_database():
    shutil.copy(DATABASE, "old.db")
    done(team("ines", "log show"))
    for suffix in ("-wal", "-shm"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    shutil.copy("old.db", DATABASE)
    for name, line in (("ada", "log show"), ("olga", "access grant ada release_manager"), ("dana", "data manifest x")):
        refused = team(name, f"--json {line}")
        assert (refused.code, refused.slug) == (1, "log-rolled-back"), refused
    assert (verify_log().code, verify_log().slug) == (1, "log-rolled-back")
    done(team("olga", "log recover"))
    assert done(verify_log()).data["size"] >= 38


def test_a_whole_old_workspace():
    """Everything at home is of the old state: only a checkpoint that somebody else kept shows it."""
    shutil.copytree("team", "old")
    done(team("ada", "log show"))
    shutil.copy("team/.stanch/blobs/log/checkpoint", "kept.note")
    put_back("old", "team")
    assert done(verify_log()).data["conclusion"] == "self-consistent only"  # and it does not claim more
    refused = verify_log("--note kept.note")
    assert (refused.code, refused.slug) == (1, "log-rolled-back"), refused


def test_two_histories_that_both_grew():
    """Restored, and then used: the log signs another history of the same length."""
    shutil.copytree("team", "old")
    done(team("ada", "log show"))
    shutil.copy("team/.stanch/blobs/log/checkpoint", "kept.note")
    put_back("old", "team")
    done(team("ada", "log query --kind access.add"))
    assert verify_log().code == 0
    refused = verify_log("--note kept.note")
    assert (refused.code, refused.slug) == (1, "log-damaged"), refused
