"""Does an approval open anything but the one copy that it was given for, and is it good more than once?

Mallory has every approval that was ever given, every copy, and a recipient's key.
"""

import shutil
from pathlib import Path

import pytest
from scene import change, done, facts, open_as, stanch, team, verify_log

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


def redeem(bundle, name, *approvals):
    more = " ".join(f"--approval {approval}" for approval in approvals)
    return stanch(f"--json release redeem {bundle} --identity {name}.key --trust pub.pem {more}")


def propose(name, recipient):
    words = f"release propose model --base base --cert leakcert.json --name {name} --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to {recipient}={facts(recipient)['to']}"))


CREATE = "release create {} --to acme --approver rita --approver rolf --policy gate.toml --out {} --json"
GIVEN = ("rita-for-acme.json", "rolf-for-acme.json")


def test_for_another_recipients_copy():
    """Of the same release: the shares are of another key."""
    shutil.copytree("bolt.sealed", "got")
    shutil.copytree("bolt.sealed.quorum", "got.quorum")
    for name in ("bolt", "acme"):
        refused = redeem("got", name, *GIVEN)
        assert refused.code in {1, 3}, refused
        assert open_as(name).code == 3


def test_for_a_second_copy_of_the_same_request():
    done(team("rolf", CREATE.format("r1", "second")))
    refused = redeem("second", "acme", *GIVEN)
    assert (refused.code, refused.slug) == (3, "quorum-not-met"), refused
    refused = team("rita", "--json release deliver second file:store")
    assert (refused.code, refused.slug) == (3, "approvals-missing"), refused


def test_for_the_next_release():
    propose("r2", "acme")
    done(team("rolf", CREATE.format("r2", "next")))
    refused = redeem("next", "acme", *GIVEN)
    assert (refused.code, refused.slug) == (3, "quorum-not-met"), refused
    request = facts("acme")["request"]  # which rita is asked to approve again
    refused = team("rita", f"--json release approve r2 --to acme --identity rita.key --request {request}")
    assert (refused.code, refused.slug) == (1, "policy-violation"), refused


def test_one_approval_that_counts_twice():
    propose("r2", "acme")
    request = done(team("rolf", CREATE.format("r2", "next"))).data["request"]
    approve = f"release approve r2 --to acme --identity rita.key --request {request}"
    first = done(team("rita", f"{approve} --out one.json"))
    again = team("rita", f"{approve} --out two.json")
    assert "1 of 2" in first.out
    assert again.code != 0 or "1 of 2" in again.out
    for given in (("one.json",) * 2, ("one.json", "two.json")):
        refused = redeem("next", "acme", *(path for path in given if Path(path).exists()))
        assert (refused.code, refused.slug) == (3, "quorum-not-met"), refused
    assert team("rita", "release deliver next file:store").code == 3


def test_with_another_key_than_the_recipients():
    """Who intercepts copy and approvals cannot read the shares: they are wrapped to the recipient."""
    done(stanch("release fetch {uri} --trust pub.pem --out got".format(**facts("acme"))))
    done(stanch("key new --out mallory.key"))
    refused = redeem("got", "mallory", *GIVEN)
    assert refused.code in {1, 3}, refused
    assert open_as("mallory").code == 3


def test_after_the_approver_lost_the_role():
    """An approval that was given in office counts for nothing once the office is lost; the share stays given."""
    propose("r2", "acme")
    request = done(team("rolf", CREATE.format("r2", "next"))).data["request"]
    approve = f"--identity {{0}}.key --request {request}"
    done(team("rolf", f"release approve r2 --to acme {approve.format('rolf')}"))
    ((grant,),) = change(
        "SELECT grant_.id FROM grant_ JOIN principal ON principal = principal.id WHERE display = 'rita'"
    )
    done(team("olga", f"access revoke {grant}"))
    refused = team("rita", f"--json release approve r2 --to acme {approve.format('rita')}")
    assert (refused.code, refused.slug) == (3, "not-permitted"), refused
    refused = redeem("next", "acme", "rita-for-acme.json")
    assert (refused.code, refused.slug) == (3, "quorum-not-met"), refused
    refused = team("rolf", "--json release deliver acme.sealed file:store")
    assert (refused.code, refused.slug) == (3, "approvals-missing"), refused


def test_after_the_copy_was_taken_back():
    done(team("rita", "release revoke {uri} {to} --reason left".format(**facts("acme"))))
    refused = team("rita", "--json release deliver acme.sealed file:store")
    assert (refused.code, refused.slug) == (3, "revoked"), refused
    assert stanch("release fetch {uri} --trust pub.pem --out late".format(**facts("acme"))).code == 3
    assert verify_log().code == 0
