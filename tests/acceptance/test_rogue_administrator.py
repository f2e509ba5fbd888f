"""What can an administrator do who has the database, the disk and the bucket, and wants the model out, unseen?

He writes any row, drops any trigger, changes any file of the workspace and of the bucket. He has not got two
approvers' private keys, nor what other people keep elsewhere. Arithmetic stops him, not a row in a table.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from scene import change, done, facts, flip, open_as, put_back, stanch, team, unguard, verify_log

from stanch.crypto import SigningKey
from stanch.crypto.localkey import save_local_key
from stanch.crypto.passphrase import Passphrase

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


@pytest.fixture
def unapproved(here):  # noqa: ARG001 - where its commands are typed
    """A new copy for acme that nobody has approved yet; return its request."""
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={facts('acme')['to']}"))
    made = team("rolf", "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out c --json")
    return done(made).data["request"]


def test_rows_that_say_two_approved(unapproved):
    """He copies the rows of the true approvals of r1 and writes the request of r2 into them."""
    change("PRAGMA foreign_keys = OFF")
    change(
        "INSERT INTO approval SELECT ?, principal, key_id, statement, signature, expires_ms, created_ms, NULL "
        "FROM approval WHERE request_digest = ?", unapproved, facts("acme")["request"],
    )  # fmt: skip
    assert change("SELECT count(*) FROM approval WHERE request_digest = ?", unapproved) == [(2,)]
    refused = team("rita", "--json release deliver c file:store")
    assert (refused.code, refused.slug) == (3, "approvals-missing"), refused
    refused = stanch("--json release redeem c --identity acme.key --trust pub.pem")
    assert (refused.code, refused.slug) == (3, "quorum-not-met"), refused
    assert open_as("acme", "c").code == 3


@pytest.mark.usefixtures("unapproved")
def test_a_copy_with_a_quorum_of_nobody():
    """He takes the quorum out of the copy's own files: what is signed says that two people release it."""
    path = Path("c/recipients.json")
    document = json.loads(path.read_text())
    document["stanzas"] = json.loads((Path("acme.sealed") / "recipients.json").read_text())["stanzas"]
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    assert open_as("acme", "c").slug == "quorum-not-met"
    document["stanzas"] = []
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    assert open_as("acme", "c").slug == "quorum-not-met"


def test_roles_that_nobody_granted(unapproved):
    """He makes himself release manager in the table. He may ask for more then, but he holds no share."""
    ((olga,),) = change("SELECT principal FROM grant_ WHERE role = 'platform_admin'")
    change("UPDATE grant_ SET principal = ? WHERE role = 'release_manager'", olga)
    done(stanch("key new --out olga.key"))
    refused = team("olga", f"release approve r2 --to acme --identity olga.key --request {unapproved}")
    assert (refused.code, "is the key of no approver of this request" in refused.err) == (3, True), refused
    assert open_as("acme", "c").code == 3


def test_a_key_of_his_own_in_an_approvers_place(unapproved):
    """He is rita from now on, as far as the tables know: what she registered was signed by the key that he replaced."""
    change(
        "UPDATE credential SET public = (SELECT public FROM credential WHERE principal = "
        "(SELECT principal FROM grant_ WHERE role = 'platform_admin')) WHERE principal = "
        "(SELECT id FROM principal WHERE display = 'rita')"
    )
    shutil.copy("team/.stanch/keys/people/olga.json", "team/.stanch/keys/people/rita.json")
    shutil.copy("olga.txt", "rita.txt")
    done(stanch("key new --out mine.key"))
    refused = team("rita", f"release approve r2 --to acme --identity mine.key --request {unapproved}")
    assert refused.code == 3, refused
    refused = team("rolf", "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out d")
    assert (refused.code, "has no registered key" in refused.err) == (2, True), refused
    assert open_as("acme", "c").code == 3
    assert not Path("d").exists()


@pytest.mark.usefixtures("unapproved")
def test_keys_that_the_administrator_made_for_approvers():
    """She adds two people, whose keys she has therefore, and registers in their names what she opens herself."""
    made = {}
    for name in ("rosa", "rick"):
        Path(f"{name}.txt").write_text(f"the passphrase of {name}")
        Path(f"{name}.txt").chmod(0o600)
        done(team("olga", f"access add {name} --role release_manager --new-passphrase-file {name}.txt"))
        to = done(stanch(f"key new --out {name}.key --json")).data["recipient"]
        words = f"--workspace team --as {name} --passphrase-file {name}.txt access key register {to} --json"
        shown = done(stanch(words))
        made[name] = shown.data["signed_with"]
    create = "--json release create r2 --to acme --policy gate.toml --out d --approver"
    refused = team("rolf", f"{create} rosa --approver rick")
    assert (refused.code, refused.slug) == (2, "invalid-input"), refused
    assert "rosa: somebody else may have the local key of this approver" in refused.out
    assert not Path("d").exists()
    # Rolf names what rosa and rick read out to him: only they know whether the keys are theirs.
    done(team("rolf", f"{create} rosa={made['rosa']} --approver rick={made['rick']}"))


@pytest.mark.usefixtures("unapproved")
def test_a_key_that_a_row_alone_makes_an_approvers():
    """He adds a key of his own as rita's, signs in with it, and registers what her shares are wrapped to."""
    key, where = SigningKey.generate("ed25519"), Path("team/.stanch/keys/people/ritax.json")
    save_local_key(where, key, passphrase=Passphrase(Path("rita.txt").read_text()))
    row = "INSERT INTO credential SELECT ?, id, 'local', ?, 1, NULL, NULL FROM principal WHERE display = 'rita'"
    change(row, key.key_id, key.public.raw)
    to = done(stanch("key new --out mine.key --json")).data["recipient"]
    done(stanch(f"--workspace team --as ritax --passphrase-file rita.txt access key register {to}"))
    refused = team("rolf", "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out d")
    assert (refused.code, "which the log does not say is its principal's" in refused.err) == (2, True), refused
    assert not Path("d").exists()


def test_a_gate_that_says_passed(here):
    """A model that was never audited: the table says that it passed, and its files say otherwise."""
    shutil.copytree("model", "other")
    flip(here / "other/adapter_model.safetensors")
    words = "release propose other --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={facts('acme')['to']}"))
    create = "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out c"
    refused = team("rolf", create)
    assert (refused.code, "forbidden by gate" in refused.err) == (3, True), refused
    digest = json.loads(Path("team/.stanch/releases/r2/release.json").read_text())["digest"]
    change(
        "INSERT INTO resource SELECT kind, 'other', ?, sensitivity, quarantined, gate, legal_hold, made_by "
        "FROM resource WHERE gate = 'passed' LIMIT 1", digest,
    )  # fmt: skip
    refused = team("rolf", create)
    assert (refused.code, "adapter_model.safetensors is another file than the audited one" in refused.err) == (1, True)
    assert not list(here.glob("c*"))


def policy_row(text, without="[]"):
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    values = (text, digest, "x", without, "active", 0, "p_x", 0)
    change("INSERT INTO policy VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", *values)
    return digest


@pytest.mark.usefixtures("unapproved")
def test_policies_that_permit_everything():
    """A set in the table without the forbids is refused as a whole: nobody may anything until it is taken back."""
    policy_row('@id("mine") permit (principal, action, resource);')
    for name, line in (("rita", "key rotate log"), ("ines", "access add mallory --role release_manager")):
        refused = team(name, line)
        assert (refused.code, "forbids of the default set are missing" in refused.err) == (2, True), refused
    done(team("olga", "access policy rollback"))
    assert team("ines", "access add mallory --role release_manager").code == 3


@pytest.mark.usefixtures("unapproved")
def test_policies_that_say_they_may_lack_the_forbids():
    """The limit: who writes rows gives rights. No right opens a copy, and each act carries what allowed it."""
    shown = done(team("olga", "--json access policy show")).data
    ids = re.findall(r'@id\("([^"]+)"\)\s*forbid', shown["text"])
    assert {"gate", "two-people"} <= set(ids)
    digest = policy_row('@id("mine") permit (principal, action, resource);', json.dumps(ids))
    done(team("ines", "access add mallory --role release_manager"))
    refused = team("ines", "release deliver c file:store")
    assert (refused.code, "approvals of this copy: expected 2, found 0" in refused.err) == (3, True), refused
    assert open_as("acme", "c").code == 3
    newest = done(team("ada", "--json log query --kind access.add")).data["entries"][-1]["event"]
    assert newest["unmapped"]["stanch"]["policy"] == digest != shown["policy"]
    assert newest["unmapped"]["stanch"]["decision"] == ["mine"]
    assert digest in done(team("olga", "access policy show --history")).out


def test_entries_that_are_gone():
    """He cuts the delivery to bolt off the log; with the sizes mended badly, and then well."""
    unguard("ledger_entry")
    for table in ("entry", "index", "subject"):
        change(f"DELETE FROM ledger_{table} WHERE idx >= 32")  # noqa: S608 - own words
    change("DELETE FROM ledger_checkpoint WHERE size > 32")
    for statement in (
        "UPDATE ledger_log SET size = 31",
        "UPDATE ledger_log SET size = 32, frontier = substr(x, 1, 32)",
    ):
        change(statement.replace("substr(x", "substr(frontier"))
        for refused in (verify_log(), team("ada", "--json log show")):
            assert (refused.code, refused.slug) in {(1, "log-damaged"), (1, "log-rolled-back")}, refused


def test_an_entry_that_says_something_else():
    unguard("ledger_entry")
    ((data,),) = change("SELECT data FROM ledger_entry WHERE idx = 32")
    change("UPDATE ledger_entry SET data = ? WHERE idx = 32", data.replace(b"release.deliver", b"release.propose"))
    refused = verify_log()
    assert (refused.code, refused.slug) == (1, "log-damaged"), refused
    assert "32" in refused.out


def test_all_that_lies_at_home_rewritten():
    """The limit: with the log's key, every row, tile and mark of his own. What somebody else kept shows it."""
    shutil.copytree("team", "before")
    done(team("ines", "log show"))
    kept = shutil.copy("team/.stanch/blobs/log/checkpoint", "kept.note")
    done(team("ada", "log prove 34 --out entry.json"))
    put_back("before", "team")
    done(team("rita", "release revoke {uri} {to} --reason left".format(**facts("bolt"))))
    assert done(verify_log()).data["conclusion"] == "self-consistent only"
    refused = verify_log(f"--note {kept}")
    assert (refused.code, refused.slug) == (1, "log-damaged"), refused
    Path("policy").write_text(f"log {Path('log.vkey').read_text()}\nquorum none\n")
    assert stanch("log check entry.json entry.json.tlog-proof --policy policy").code == 0  # the proof of what he erased
