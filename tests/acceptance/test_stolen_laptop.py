"""A laptop with everything on its disk is stolen. What does the thief have?

Once a recipient's, with a copy and its key; once the publisher's, with the whole workspace; each with and without
passphrases. What lay in plain is the thief's, and the answers say so.
"""

import shutil
from pathlib import Path

import pytest
from scene import done, facts, get, open_as, stanch, team

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


@pytest.fixture
def laptop(here):
    """A recipient who locked his key, and whose copy was made for it."""
    Path("his.txt").write_text("long enough to guess at for years")
    Path("his.txt").chmod(0o600)
    to = done(stanch("key new --out his.key --new-passphrase-file his.txt --json")).data["recipient"]
    done(stanch("key new --kind sign --out mine.pem"))
    done(stanch(f"seal create model --to {to} --sign-key mine.pem --lineage acme/bot --out his.sealed"))
    return here


OPEN = "--json release open his.sealed --identity his.key --trust mine.pub.pem"


@pytest.mark.usefixtures("laptop")
def test_a_locked_key_and_a_copy():
    done(stanch(f"{OPEN} --passphrase-file his.txt"))
    Path("guess.txt").write_text("password1")
    Path("guess.txt").chmod(0o600)
    refused = stanch(f"{OPEN} --passphrase-file guess.txt")
    assert (refused.code, refused.slug) == (1, "decryption-failed"), refused
    assert "this passphrase does not unlock it" in refused.out
    refused = stanch(OPEN)
    assert (refused.code, "the key is locked" in refused.out) == (3, True), refused


@pytest.mark.usefixtures("laptop")
def test_nothing_of_the_model_lies_about():
    """The thief searches the disk: no row of the weights lies in plain once the copy was opened."""
    done(stanch(f"{OPEN} --passphrase-file his.txt"))
    get("acme")
    done(open_as("acme"))
    shutil.move("model", "../elsewhere")
    line = "--json inventory . --model ../elsewhere"
    assert done(stanch(line)).data["stray"] == []
    shutil.copy("../elsewhere/adapter_model.safetensors", "notes.txt")
    assert stanch(line).code == 1  # the search would have found it


def test_a_key_without_a_passphrase_opens():
    """The limit: who has copy and key has the model. What was not fetched yet can still be kept from him."""
    done(get("acme")[1])
    assert open_as("acme").code == 0
    done(team("rita", "release revoke {uri} {to} --reason stolen".format(**facts("acme"))))
    assert open_as("acme").code == 0
    refused = open_as("acme", more="--revocations store/revocations.json")
    assert (refused.code, "was revoked at" in refused.out) == (3, True), refused
    assert stanch("release fetch {uri} --trust pub.pem --out late".format(**facts("acme"))).code == 3


def test_the_workspace_without_passphrases():
    """The thief of the publisher's disk acts as nobody whose key is locked."""
    for name in ("rita.txt", "rolf.txt", "olga.txt"):
        Path(name).unlink()
    Path("guess.txt").write_text("password1")
    Path("guess.txt").chmod(0o600)
    for name in ("olga", "rita"):
        refused = stanch(f"--workspace team --as {name} --passphrase-file guess.txt access add thief --role auditor")
        assert (refused.code, "this passphrase does not unlock it" in refused.err) == (1, True), refused
    # Keys without a passphrase act for him; what they may is little, and it is recorded.
    for line in (
        "access add thief --role auditor",
        "release deliver acme.sealed file:loot",
        "access grant dana auditor",
    ):
        refused = stanch(f"--workspace team --as dana {line}")
        assert (refused.code, "may not" in refused.err) == (3, True), refused
    assert not Path("loot").exists()
    denied = done(team("ada", "--json log query --phase denied")).data["entries"]
    assert len(denied) == 3


def test_one_approvers_laptop():
    """Rolf's private key and passphrase: one share of two. Rita's is not there."""
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={facts('acme')['to']}"))
    create = "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out c --json"
    request = done(team("rolf", create)).data["request"]
    done(team("rolf", f"release approve r2 --to acme --identity rolf.key --request {request} --out one.json"))
    for more in ("", "--approval one.json", "--approval one.json --approval one.json"):
        refused = stanch(f"--json release redeem c --identity acme.key --trust pub.pem {more}")
        assert (refused.code, refused.slug) == (3, "quorum-not-met")


def test_the_publishers_own_keys():
    """The limit: keys of the workspace itself lie there unlocked; a thief signs with them until nobody trusts them."""
    publisher = "team/.stanch/keys/publisher.pem"
    to = facts("acme")["to"]
    done(stanch(f"seal create model --to {to} --sign-key {publisher} --lineage acme/bot --number 2 --out fake"))
    assert open_as("acme", "fake").code == 0
    done(team("olga", "key rotate publisher"))
    shutil.copy("team/.stanch/keys/publisher.v2.pub.pem", "pub.pem")
    refused = open_as("acme", "fake")
    assert (refused.code, refused.slug) == (1, "no-trusted-signature"), refused
