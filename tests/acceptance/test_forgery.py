"""Can somebody pass off work of his own as the publisher's, the auditor's, an approver's, or the log's?

Mallory reads and writes the bucket, knows every format, and has keys of every kind: her own.
"""

import base64
import json
import shutil
from pathlib import Path

import pytest
from scene import done, facts, flip, get, open_as, stanch, team, verify_log

from stanch.crypto import SigningKey
from stanch.sign import Statement, sign_statement

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("mallory")]


@pytest.fixture
def mallory(here):
    done(stanch("key new --kind sign --out mallory.pem"))
    done(stanch("key new --out mallory.key"))
    return here


def sign_again(source, **changed):
    """Sign the words of a signed file, some of them changed, with mallory's key; return the new file's name."""
    words = json.loads(base64.b64decode(json.loads(Path(source).read_bytes())["dsseEnvelope"]["payload"]))
    words["predicate"] |= changed
    statement = Statement.parse(json.dumps(words).encode())
    Path("forged.json").write_bytes(sign_statement(statement, SigningKey.load(Path("mallory.pem"))).to_bytes())
    return "forged.json"


def say_other(source, **changed):
    """Change the words of a signed file and leave its signature; return the new file's name."""
    signed = json.loads(Path(source).read_bytes())
    words = json.loads(base64.b64decode(signed["dsseEnvelope"]["payload"]))
    words["predicate"] |= changed
    text = json.dumps(words, sort_keys=True, separators=(",", ":"))
    signed["dsseEnvelope"]["payload"] = base64.b64encode(text.encode()).decode()
    Path("forged.json").write_text(json.dumps(signed))
    return "forged.json"


def test_a_copy_that_somebody_else_sealed():
    to = facts("acme")["to"]
    done(stanch(f"seal create model --to {to} --sign-key mallory.pem --lineage acme/bot --number 9 --out mine"))
    uri = done(stanch("release deliver mine file:store --trust mallory.pub.pem --json")).data["uri"]
    for line in (f"release fetch {uri} --out got", "seal verify mine", "release open mine --identity acme.key"):
        refused = stanch(f"--json {line} --trust pub.pem")
        assert (refused.code, refused.slug) == (1, "no-trusted-signature"), line
    assert not Path("got").exists()
    shutil.copy("acme.sealed/manifest.sigstore.json", "mine")  # the publisher's signature, of another manifest
    refused = open_as("acme", "mine")
    assert (refused.code, refused.slug) == (1, "policy-violation")


@pytest.mark.parametrize("part", ["manifest.json", "manifest.sigstore.json", "digests.bin", "body/00002.floe"])
def test_one_bit_of_a_copy(here, part):
    get("acme")
    assert open_as("acme").code == 0
    flip(here / "got" / part, where=100)
    refused = open_as("acme")
    assert refused.code in ({2} if part == "manifest.sigstore.json" else {1, 2}), refused
    assert stanch("seal verify got --trust pub.pem").code == refused.code


def test_a_certificate():
    for forged in (sign_again("leakcert.json"), say_other("leakcert.json", validity="forever")):
        for line in ("", "--trust pub.pem"):
            refused = team("dana", f"--json audit gate model --cert {forged} --policy gate.toml {line}")
            assert (refused.code, refused.slug) == (1, "no-trusted-signature"), refused


def test_an_approval(mallory):
    done(stanch("release fetch {uri} --trust pub.pem --out got".format(**facts("acme"))))
    for approval in (mallory / "got.quorum").glob("approval-2*"):
        approval.unlink()
    redeem = "--json release redeem got --identity acme.key --trust pub.pem"
    refused = stanch(redeem)
    assert (refused.code, refused.slug) == (3, "quorum-not-met")
    for forged in (sign_again("rolf-for-acme.json"), say_other("rolf-for-acme.json", x=1), "rita-for-acme.json"):
        refused = stanch(f"{redeem} --approval {forged}")
        assert refused.code in {1, 3}, refused
        assert open_as("acme").code == 3
    words = "release approve-offline got.quorum/quorum.json --trust pub.pem --identity mallory.key --key {key} --out x"
    request = facts("acme")["request"]
    for key in ("team/.stanch/keys/people/dana.json", "team/.stanch/keys/people/ada.json"):
        refused = stanch(f"--json {words.format(key=key)} --request {request}")
        assert refused.code == 3, refused
        assert not Path("x").exists()


def test_a_revocation_list_that_names_nobody():
    uri, to = facts("acme")["uri"], facts("acme")["to"]
    done(team("rita", f"release revoke {uri} {to} --reason left"))
    taken = sign_again("store/revocations.json", revoked=[])
    shutil.copy(taken, "store/revocations.json")
    refused = stanch(f"--json release fetch {uri} --trust pub.pem --out got")
    assert (refused.code, refused.slug) == (1, "no-trusted-signature"), refused


def test_an_entry_of_the_log():
    done(team("ada", "log prove 24 --out entry.json"))
    Path("policy").write_text(f"log {Path('log.vkey').read_text()}\nquorum none\n")
    check = "--json log check entry.json entry.json.tlog-proof --policy policy"
    assert done(stanch(check)).data["index"] == 24
    entry = Path("entry.json").read_text()
    assert "release.deliver" in entry
    Path("entry.json").write_text(entry.replace("release.deliver", "release.request"))
    refused = stanch(check)
    assert (refused.code, refused.slug) == (1, "proof-invalid")
    assert verify_log().code == 0
