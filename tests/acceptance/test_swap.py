"""Can one thing be put in another's place: a model, a part of a copy, a copy, a recipient's key?

Everything that is put in place is genuine, and signed by the publisher; it is only not what was meant.
"""

import json
import shutil
from pathlib import Path

import pytest
from scene import done, facts, flip, get, life, open_as, stanch, team, verify_log

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


def exchange(one, other):
    one.rename("aside")
    other.rename(one)
    Path("aside").rename(other)


def propose(more=""):
    to = facts("acme")["to"]
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    return team("dana", f"--json {words} --to acme={to} {more}")


CREATE = "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out new.sealed"


@pytest.mark.parametrize("part", ["adapter_model.safetensors", "tokenizer.json", "adapter_config.json"])
def test_the_model_after_its_audit(here, part):
    done(propose())
    flip(here / "model" / part)
    refused = team("dana", "audit gate model --cert leakcert.json --policy gate.toml")
    assert refused.code in ({1, 2} if part == "adapter_config.json" else {1}), refused  # there the bit breaks the JSON
    assert f"{part} is another file than the audited one" in refused.out or "not valid JSON" in refused.err
    refused = team("rolf", CREATE)
    assert refused.code == 2, refused
    assert "not the model that release r2 was proposed for" in refused.err or "not valid JSON" in refused.err
    assert not list(here.glob("new.sealed*"))
    assert verify_log().code == 0


def test_another_model_under_the_audited_ones_name(here):
    done(propose())
    shutil.rmtree("model")
    life.make_adapter(here / "model", seed=99)
    refused = team("rolf", CREATE)
    assert (refused.code, "not the model that release r2 was proposed for" in refused.err) == (2, True), refused
    assert not list(here.glob("new.sealed*"))


def test_two_streams_of_one_copy(here):
    get("acme")
    one, other = (here / "got/body" / name for name in ("00001.floe", "00003.floe"))
    exchange(one, other)
    refused = open_as("acme")
    assert (refused.code, refused.slug) == (1, "non-canonical-stream"), refused


def test_two_pieces_of_one_stream(here):
    get("acme")
    stream = max((here / "got/body").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(stream.read_bytes())
    data[100:1100], data[2100:3100] = data[2100:3100], data[100:1100]
    stream.write_bytes(data)
    refused = open_as("acme")
    assert (refused.code, refused.slug) == (1, "tampered"), refused


@pytest.mark.parametrize("part", ["recipients.json", "digests.bin", "body/00002.floe", "manifest.json"])
def test_a_part_of_another_recipients_copy(here, part):
    get("acme")
    shutil.copy(here / "bolt.sealed" / part, here / "got" / part)
    for name in ("acme", "bolt"):
        assert open_as(name).code in {1, 3}


def test_the_copies_of_two_recipients_in_the_bucket(here):
    ours, theirs = (here / facts(name)["uri"].removeprefix("file:") for name in ("acme", "bolt"))
    exchange(ours, theirs)
    fetched = stanch("--json release fetch {uri} --trust pub.pem --out got".format(**facts("acme")))
    assert fetched.code == 1, fetched
    assert not Path("got").exists()


@pytest.mark.parametrize("change", [{"recipient_key": "bolt"}, {"not_after": "2099-01-01T00:00:00Z"}])
def test_a_request_between_proposal_and_copy(here, change):
    """An administrator writes another key, or another end, into the proposal's file."""
    done(propose())
    path = here / "team/.stanch/releases/r2/release.json"
    document = json.loads(path.read_text())
    if "recipient_key" in change:
        change = {"recipient_key": facts("bolt")["to"]}
    document["requests"]["acme"] |= change
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    refused = team("rolf", CREATE)
    assert refused.code == 1, refused
    assert "what stands in its file for acme was never proposed" in refused.err
    assert not list(here.glob("new.sealed*"))
    assert verify_log().code == 0


def test_the_publishers_key_at_the_recipient():
    """The limit: whoever can replace pub.pem at the recipient is trusted there."""
    done(stanch("key new --kind sign --out mallory.pem"))
    to = facts("acme")["to"]
    done(stanch(f"seal create model --to {to} --sign-key mallory.pem --lineage acme/bot --number 9 --out mine"))
    assert open_as("acme", "mine").code == 1
    shutil.copy("mallory.pub.pem", "pub.pem")
    assert open_as("acme", "mine").code == 0
