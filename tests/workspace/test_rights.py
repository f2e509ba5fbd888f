"""Who edits the rows of rights without an act is named, with the row and the entry; so is who adds entries as well."""

import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from msgspec.structs import replace

from stanch.access import ApiKeyOrder
from stanch.access.policy import default_text
from stanch.crypto import SigningKey, leaf_hash
from stanch.crypto.localkey import load_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotAuthenticated, OutcomeNotRecorded, StoreError
from stanch.ledger import Act, Credential, EntryQuery, Ledger, Phase, intent, new_act_id, outcome, sign_act
from stanch.ledger.damage import LogDamaged
from stanch.ledger.entry import read_event
from stanch.ledger.erasure import Selection
from stanch.ledger.proof import stored_frontier
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace, verbs_access
from stanch.workspace.health import examine
from stanch.workspace.health_check import State
from stanch.workspace.verbs_access import (
    Newcomer,
    add_person,
    grant_role,
    issue_key,
    register_newcomer,
    resume_principal,
    revoke_grant,
    revoke_key,
    suspend_principal,
)
from stanch.workspace.verbs_artifact import classify_model, hold_artifact, lift_hold, restore_model
from stanch.workspace.verbs_contain import quarantine_model
from stanch.workspace.verbs_glass import break_glass
from stanch.workspace.verbs_log import erase_personal, list_entries, verify_log
from stanch.workspace.verbs_person import clear_principal, replace_local_key
from stanch.workspace.verbs_policy import activate_policies, rollback_policies

MODEL, OTHER = (ArtifactRef("model", name, Digest.sha256(name.encode())) for name in ("m", "o"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "w"
    with Workspace.init(folder) as workspace:
        add_person(workspace, "anna", ["auditor"], clearance=2)
        bot = register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("consumer",), clearance=1))
        revoke_grant(workspace, grant_role(workspace, "anna", "ml_engineer", 10).id)
        grant_role(workspace, "anna", "legal_reader", 10)
        for name in ("anna", "bot"):
            suspend_principal(workspace, name)
        resume_principal(workspace, "anna")
        text = default_text() + '\n@id("more") permit(principal, action, resource) when { false };\n'
        activate_policies(workspace, text)
        rollback_policies(workspace)
        order = ApiKeyOrder(principal=bot, models=(str(MODEL.digest),), networks=("10.0.0.0/8",))
        revoke_key(workspace, issue_key(workspace, order)[0].id)
        issue_key(workspace, order)
        quarantine_model(workspace, MODEL)
        quarantine_model(workspace, OTHER)
        restore_model(workspace, OTHER.digest)
        classify_model(workspace, MODEL.digest, 4)
        clear_principal(workspace, "anna", 7)
        clear_principal(workspace, "anna", 2)
        hold_artifact(workspace, MODEL)
        hold_artifact(workspace, OTHER)
        lift_hold(workspace, OTHER)
        replace_local_key(workspace, "anna")
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "w")


def found(folder):
    return [check.found for check in examine(folder) if check.name == "rights" and check.state is State.FAILED]


def warned(folder):
    return [check.found for check in examine(folder) if check.name == "rights" and check.state is State.WARNING]


def edit(folder, statement):
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:
        people = dict(connection.execute("SELECT display, id FROM principal"))
        assert connection.execute(statement, people).rowcount > 0
    connection.close()


def test_what_acts_did_does_not_differ(folder):
    assert [check.state for check in examine(folder) if check.name == "rights"] == [State.OK]


BOOTSTRAP = "INSERT INTO grant_ SELECT 'g_forged', {}, 'platform_admin', 'workspace', 1, NULL, NULL, 'bootstrap', NULL"

GLASS = "INSERT INTO glass SELECT 'gl_forged', :anna, 'a', 'c', {}, {}, 1, :owner, 1"


@pytest.mark.parametrize(
    ("statement", "row", "said"),
    [
        (BOOTSTRAP.format(":anna"), "grant g_forged", "no entry of the log made it"),
        (BOOTSTRAP.format(":owner"), "grant g_", "no entry of the log made it"),
        ("UPDATE grant_ SET role = 'platform_admin' WHERE role = 'auditor' AND granted_by <> 'bootstrap'",
         "grant g_", "role is platform_admin in the database, auditor in the log (entry "),
        ("UPDATE grant_ SET expires_ms = NULL WHERE role = 'legal_reader' AND granted_by <> 'bootstrap'",
         "grant g_", "expires_ms is None in the database"),
        ("UPDATE grant_ SET revoked_ms = NULL WHERE revoked_ms IS NOT NULL", "grant g_", "revoked is False"),
        ("UPDATE grant_ SET revoked_ms = 5 WHERE role = 'consumer' AND granted_by = 'bootstrap'",
         "grant g_", "revoked is True"),
        ("DELETE FROM grant_ WHERE role = 'consumer' AND granted_by <> 'bootstrap'", "grant g_", "does not hold it"),
        ("DELETE FROM grant_ WHERE role = 'consumer' AND granted_by = 'bootstrap'", "grant of consumer to p_",
         "does not hold it"),
        ("INSERT INTO principal SELECT 'p_forged', 'user', 'x', 'y', 'z', 100, 0, 1", "principal p_forged", "no entry"),
        ("UPDATE principal SET clearance = 100 WHERE display = 'anna'", "principal p_",
         "clearance is 100 in the database, 2 in the log (entry "),
        ("UPDATE principal SET suspended = 1 WHERE display = 'owner'", "principal p_", "suspended is True"),
        ("UPDATE principal SET suspended = 1 WHERE display = 'anna'", "principal p_", "suspended is True"),
        ("UPDATE principal SET suspended = 0 WHERE display = 'bot'", "principal p_", "suspended is False"),
        ("UPDATE credential SET public = zeroblob(32) WHERE principal = :anna", "key ", "public half is "),
        ("UPDATE credential SET principal = :owner WHERE principal = :anna", "key ", "principal is p_"),
        ("UPDATE policy SET text = 'permit(principal, action, resource);', digest = 'x' WHERE version = 2",
         "policy 2", "policy is sha256:"),
        ("UPDATE policy SET state = CASE version WHEN 1 THEN 'active' ELSE 'retired' END", "policy 1",
         "state is active in the database, retired in the log (entry "),
        ("DELETE FROM policy WHERE version = 2", "policy 2", "the database does not hold it"),
        (GLASS.format(1, 99999999999999), "glass gl_forged", "no entry of the log made it"),
        ("UPDATE resource SET quarantined = 0", "quarantine model sha256:", "does not hold it"),
        ("UPDATE resource SET quarantined = 1", "quarantine model sha256:", "no entry of the log made it"),
        ("UPDATE resource SET sensitivity = 0", "sensitivity model sha256:", "the database does not hold it"),
        ("UPDATE resource SET legal_hold = 0", "legal hold model sha256:", "the database does not hold it"),
        ("UPDATE resource SET kind = 'x' WHERE quarantined", "quarantine model sha256:", "does not hold it"),
        ("UPDATE resource SET kind = 'x' WHERE sensitivity", "sensitivity model sha256:", "the database does not hold"),
        ("UPDATE credential SET revoked_ms = NULL WHERE principal = :anna", "key ", "revoked is False"),
        ("UPDATE resource SET gate = 'passed'", "gate model m sha256:", "no entry of the log made it"),
        ("UPDATE api_key SET principal = :anna", "API key ", "principal is p_"),
        ("UPDATE api_key SET revoked_ms = NULL", "API key ", "revoked is False"),
        ("UPDATE api_key SET expires_ms = expires_ms + 1", "API key ", "expires_ms is "),
        ("UPDATE api_key SET networks = '[\"0.0.0.0/0\"]'", "API key ", "networks is ['0.0.0.0/0'] in the database"),
        ("UPDATE api_key SET models = '[\"workspace\"]'", "API key ", "models is ['workspace'] in the database"),
        ("UPDATE api_key SET actions = '[\"log:read\"]'", "API key ", "actions is ['log:read'] in the database"),
    ],
)  # fmt: skip
def test_an_edited_row_is_named_with_its_entry(statement, row, said, folder):
    edit(folder, statement)
    assert any(line.startswith(row) and said in line for line in found(folder)), found(folder)


# Who adds entries as well. Whoever writes the database needs no key for that: the log signs what its rows hold.


def add_entries(folder, *entries):
    """Append entries to the rows of the log, as the program does."""
    with closing(sqlite3.connect(folder / ".stanch" / "stanch.db")) as connection:
        origin, size, frontier = connection.execute("SELECT origin, size, frontier FROM ledger_log").fetchone()
        grown = stored_frontier(size, frontier)
        for entry in entries:
            data = entry if isinstance(entry, bytes) else entry.encode(origin)
            row = (origin, grown.size, data, leaf_hash(data))
            connection.execute("INSERT INTO ledger_entry (origin, idx, data, leaf_hash) VALUES (?, ?, ?, ?)", row)
            grown = grown.append([leaf_hash(data)])
        connection.execute("UPDATE ledger_log SET size = ?, frontier = ?", (grown.size, grown.to_bytes()))
        connection.commit()


def grant_row(folder, grant, role="platform_admin"):
    edit(folder, f"INSERT INTO grant_ SELECT '{grant}', :anna, '{role}', 'workspace', 1, 9, NULL, :owner, NULL")


def people_of(folder):
    with closing(sqlite3.connect(folder / ".stanch" / "stanch.db")) as connection:
        return dict(connection.execute("SELECT display, id FROM principal"))


def forged(folder, credential=None):
    """An act in the owner's name that makes anna an administrator."""
    people, now_ms = people_of(folder), int(time.time() * 1000)
    return Act(
        kind="access.grant", id=new_act_id(now_ms), principal=people["owner"], profile="solo", credential=credential
    )


def given(folder, role="platform_admin"):
    payload = {"grant": "g_forged", "role": role, "scope": "workspace", "expires_ms": 9}
    return payload | {"to": people_of(folder)["anna"]}


def test_an_outcome_that_nobody_began_gives_no_right(folder):
    act = forged(folder, Credential(kind="local", key_id="ed25519:0"))
    add_entries(folder, outcome(act, time_ms=1, payload=given(folder)))
    grant_row(folder, "g_forged")
    said = found(folder)
    assert any("says that it was done, but no such act had begun" in line for line in said), said
    assert any(line.startswith("grant g_forged: the database holds it, but no entry") for line in said), said


@pytest.mark.parametrize("key", ["registered", "own", "none"])
def test_an_act_without_the_signature_of_its_principal_gives_no_right(folder, key):
    used = {"own": Credential(kind="local", key_id="ed25519:0", sig="A" * 85 + "A=="), "none": None}
    with closing(sqlite3.connect(folder / ".stanch" / "stanch.db")) as connection:
        owners = connection.execute("SELECT min(id) FROM credential WHERE principal = ?", (people_of(folder)["owner"],))
        used["registered"] = Credential(kind="local", key_id=owners.fetchone()[0])
    act = forged(folder, used[key])
    add_entries(folder, intent(act, time_ms=1), outcome(act, time_ms=1, payload=given(folder)))
    grant_row(folder, "g_forged")
    said = found(folder)
    wanted = {
        "registered": "has not signed it", "own": "which the log does not say is its principal's",
        "none": "does not say with what its principal signed in",
    }  # fmt: skip
    assert any(line.startswith("entry ") and wanted[key] in line for line in said), said
    assert any(line.startswith("grant g_forged: the database holds it") for line in said), said


def test_a_signed_act_of_before_that_is_repeated_gives_no_right(folder):
    with Workspace.open(folder) as workspace:
        entries = [data for _, data in workspace.ledger.reader().tail()]
    begun, done = (
        next(data for data in entries if f'"phase":"{phase}"'.encode() in data and b'"access.grant"' in data)
        for phase in ("intent", "outcome")
    )
    old = read_event(done).unmapped.stanch.payload["grant"].encode()
    add_entries(folder, begun, done.replace(old, b"g_forged"))
    grant_row(folder, "g_forged", "ml_engineer")
    assert any("begins an act that began before" in line for line in found(folder)), found(folder)


def test_an_outcome_that_gives_more_than_was_signed_gives_no_right(folder, monkeypatch):
    """Whoever is quick puts an outcome of his own behind an intent that was signed."""
    append = Ledger.append_nowait

    def refuse(self, entry, *, within=None):
        if entry.phase is Phase.OUTCOME:
            raise StoreError("the disk is full")
        return append(self, entry, within=within)

    with Workspace.open(folder) as workspace, monkeypatch.context() as context:
        context.setattr(Ledger, "append_nowait", refuse)
        with pytest.raises(OutcomeNotRecorded):
            grant_role(workspace, "anna", "auditor", 3)
        size = workspace.ledger.reader().size()
        begun = read_event(workspace.ledger.reader().entry(size - 1))
    act = Act(
        kind="access.grant", id=begun.metadata.correlation_uid, principal=begun.actor.user.uid, profile="solo",
        credential=Credential(kind="local", key_id=begun.unmapped.stanch.credential.key_id),
    )  # fmt: skip
    add_entries(folder, outcome(act, time_ms=begun.time, payload=given(folder)))
    grant_row(folder, "g_forged")
    wanted = "asked for role auditor, and its outcome says platform_admin"
    assert any(line.startswith(f"entry {size - 1}: ") and wanted in line for line in found(folder)), found(folder)


def own_key(folder, name):
    return load_local_key(folder / ".stanch" / "keys" / "people" / f"{name}.json").key


def add_signed(folder, name, kind, asked, done, *, key=None, seconds=0, profile="solo"):
    """Append both entries of an act that somebody signs with the own key, so many seconds from now."""
    key, now_ms = key or own_key(folder, name), int((time.time() + seconds) * 1000)
    act = Act(
        kind=kind, id=new_act_id(now_ms), principal=people_of(folder)[name], profile=profile,
        credential=Credential(kind="local", key_id=key.key_id),
    )  # fmt: skip
    with closing(sqlite3.connect(folder / ".stanch" / "stanch.db")) as connection:
        ((origin,),) = connection.execute("SELECT origin FROM ledger_log")
    begun = sign_act(intent(act, time_ms=now_ms, payload=asked), origin, key)
    add_entries(folder, begun, outcome(act, time_ms=now_ms, payload=done))


@pytest.mark.parametrize("grants", [[], [5]], ids=["well", "badly"])
def test_who_is_registered_is_not_registered_again_with_another_key(folder, grants):
    """An administrator's own signature is good for adding people, and gives nobody a second key without a trace."""
    key = SigningKey.generate("ed25519")
    done = {"principal": people_of(folder)["anna"], "kind": "user", "clearance": 2, "grants": grants}
    add_signed(folder, "owner", "access.add", {}, done | {"key": key.key_id})
    row = f"INSERT INTO credential SELECT '{key.key_id}', :anna, 'local', x'{key.public.raw.hex()}', 1, NULL, NULL"
    edit(folder, row)
    said = found(folder)
    assert any(line.startswith(f"key {key.key_id}: the database holds it, but no entry") for line in said), said
    assert any(line.startswith("entry ") and "access.add" in line for line in said), said


def test_a_key_that_was_replaced_gives_no_right(folder):
    """A thief has the owner's earlier key, and the database."""
    stolen = own_key(folder, "owner")
    with Workspace.open(folder, principal="owner") as workspace:
        replace_local_key(workspace, "owner")
        assert verify_log(workspace).conclusion
    asked = {"to": people_of(folder)["anna"], "role": "platform_admin", "scope": "workspace", "days": 30}
    add_signed(folder, "owner", "access.grant", asked, given(folder), key=stolen, seconds=90)
    grant_row(folder, "g_forged")
    said = found(folder)
    assert any("which was replaced before" in line for line in said), said
    assert any(line.startswith("grant g_forged: the database holds it") for line in said), said
    with Workspace.open(folder, principal="owner") as workspace, pytest.raises(LogDamaged, match="was replaced before"):
        verify_log(workspace)


def test_who_may_not_grant_makes_nobody_an_administrator(folder):
    """Anna, an auditor with a key of her own, signs an act that nobody let her do, and writes the row."""
    asked = {"to": people_of(folder)["anna"], "role": "platform_admin", "scope": "workspace", "days": 30}
    add_signed(folder, "anna", "access.grant", asked, given(folder))
    edit(folder, "INSERT INTO grant_ SELECT 'g_forged', :anna, 'platform_admin', 'workspace', 1, 9, NULL, :anna, NULL")
    said = found(folder)
    assert any("its principal was not permitted access:grant: no role that it held" in line for line in said), said
    assert any(line.startswith("grant g_forged: the database holds it") for line in said), said


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (lambda _w, _anna: None, ""),
        (lambda w, _anna: suspend_principal(w, "anna"), "suspended"),
        (lambda w, anna: revoke_grant(w, platform_admin(w, anna)), "no role that it held"),
    ],
    ids=["holds it", "suspended", "revoked"],
)
def test_an_administrator_is_one_as_long_as_the_log_says_so(folder, before, why):
    with Workspace.open(folder, principal="owner") as workspace:
        grant_role(workspace, "anna", "platform_admin", 3)
        before(workspace, workspace.people.find("anna"))
    asked = {"to": people_of(folder)["anna"], "role": "ml_engineer", "scope": "workspace", "days": 30}
    add_signed(folder, "anna", "access.grant", asked, given(folder, "ml_engineer"))
    edit(folder, "INSERT INTO grant_ SELECT 'g_forged', :anna, 'ml_engineer', 'workspace', 1, 9, NULL, :anna, NULL")
    said = found(folder)
    assert any(why in line for line in said) if why else not said, said


def platform_admin(workspace, principal):
    grants = workspace.people.directory.facts_of(principal).grants
    return next(grant.id for grant in grants if grant.role == "platform_admin")


def test_a_role_that_has_ended_gives_no_right(folder):
    with Workspace.open(folder, principal="owner") as workspace:
        grant_role(workspace, "anna", "platform_admin", 3)
    asked = {"to": people_of(folder)["anna"], "role": "ml_engineer", "scope": "workspace", "days": 30}
    add_signed(folder, "anna", "access.grant", asked, given(folder, "ml_engineer"), seconds=4 * 86_400)
    said = found(folder)
    assert any("its principal was not permitted access:grant" in line for line in said), said


def test_what_the_first_principal_gave_up_gives_no_right(folder):
    with Workspace.open(folder, principal="owner") as workspace:
        owner = workspace.people.session.principal
        grant_role(workspace, "anna", "platform_admin", 3)
        revoke_grant(workspace, platform_admin(workspace, owner))
    add_signed(folder, "owner", "access.clear", {}, {"principal": people_of(folder)["anna"], "clearance": 2})
    said = found(folder)
    assert any("its principal was not permitted access:grant" in line for line in said), said


def test_policies_of_ones_own_say_who_may_grant_while_they_are_in_force(folder):
    """Auditors grant under the second set, and not under the shipped one that comes back."""
    own = '@id("own") permit(principal in Stanch::Role::"auditor", action == Stanch::Action::"access:grant", resource);'
    with Workspace.open(folder, principal="owner") as workspace:
        activate_policies(workspace, f"{default_text()}\n{own}\n")
        grant_role(workspace.acting_as("anna"), "anna", "ml_engineer", 3)
        assert found(folder) == []
        rollback_policies(workspace)
    add_signed(folder, "anna", "access.clear", {}, {"principal": people_of(folder)["anna"], "clearance": 2})
    said = found(folder)
    assert any("its principal was not permitted access:grant" in line for line in said), said


def test_nobody_in_a_team_grants_to_themselves_by_an_act_of_their_own_making(tmp_path):
    folder = tmp_path / "team"
    with Workspace.init(folder, profile="team", owner="anna", passphrase=Passphrase("of anna, long enough")) as team:
        key, anna = team.people.local.key, team.people.session.principal
        add_person(team, "owner", ["auditor"])
    done = given(folder) | {"to": anna}
    add_signed(folder, "anna", "access.grant", {}, done, key=key, profile="team")
    said = found(folder)
    assert any("grants a role to its own principal" in line for line in said), said


def test_an_act_that_came_without_a_key_is_believed_and_named(folder):
    """The limit: a browser's act carries nothing that only its principal has; its outcome cannot say otherwise."""
    act = forged(folder, Credential(kind="browser", key_id="bs_0123456789abcdef0123"))
    ended = replace(act, credential=Credential(kind="local", key_id="ed25519:0"))
    add_entries(folder, intent(act, time_ms=1), outcome(ended, time_ms=1, payload=given(folder)))
    grant_row(folder, "g_forged")
    assert found(folder) == []
    (said,) = warned(folder)
    assert said.startswith("1 of ")
    assert "came without a key of whoever acted" in said


@pytest.mark.parametrize("payload", [{"grant": "g_forged"}, {"grants": ["g_forged"]}, {"grants": 5}])
def test_an_outcome_like_those_of_an_older_release_does_not_end_the_comparison(folder, payload):
    act = forged(folder, Credential(kind="browser", key_id="bs_0123456789abcdef0123"))
    add_entries(folder, intent(act, time_ms=1), outcome(act, time_ms=1, payload=payload))
    grant_row(folder, "g_forged")
    said = found(folder)
    assert any("does not say what it gave, though earlier entries do" in line for line in said), said


@pytest.mark.parametrize("payload", [{}, {"digest": "x"}])
@pytest.mark.parametrize("kind", ["log.lift", "access.restore", "access.rekey", "access.clear", "log.hold"])
def test_an_outcome_of_no_shape_does_not_end_the_comparison(folder, kind, payload):
    act = replace(forged(folder, Credential(kind="browser", key_id="bs_0123456789abcdef0123")), kind=kind)
    add_entries(folder, intent(act, time_ms=1), outcome(act, time_ms=1, payload=payload))
    grant_row(folder, "g_forged")
    said = found(folder)
    assert any(f"{kind} does not fit the entries before it" in line for line in said), said
    assert any(line.startswith("grant g_forged: the database holds it") for line in said), said


def test_a_lift_of_what_was_never_held_does_not_end_the_comparison(folder):
    act = replace(forged(folder, Credential(kind="browser", key_id="bs_0123456789abcdef0123")), kind="log.lift")
    payload = {"of": "model", "digest": str(Digest.sha256(b"never"))}
    add_entries(folder, intent(act, time_ms=1, payload=payload), outcome(act, time_ms=1, payload=payload))
    edit(folder, "UPDATE principal SET clearance = 100 WHERE display = 'anna'")
    assert any("clearance is 100 in the database" in line for line in found(folder)), found(folder)


def test_who_lifts_a_quarantine_that_a_row_alone_made_is_compared_on(folder):
    digest = Digest.sha256(b"never")
    edit(folder, f"INSERT INTO resource SELECT 'model', 'n', '{digest}', 0, 1, '', 0, ''")
    assert any(line.startswith("quarantine ") for line in found(folder)), found(folder)
    with Workspace.open(folder) as workspace:
        restore_model(workspace, digest)
    assert found(folder) == []
    grant_row(folder, "g_forged")
    assert any(line.startswith("grant g_forged: the database holds it") for line in found(folder)), found(folder)


def test_an_outcome_of_an_older_release_excuses_the_person_that_it_names_and_nobody_else(tmp_path):
    """A workspace of then: olga added somebody with a key, and the entry says who, and not what she got."""
    folder = tmp_path / "w"
    with Workspace.init(folder) as workspace:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verbs_access, "_registered", lambda principal, *_: {"principal": principal, "roles": []})
            add_person(workspace, "anna", ["auditor"])
        add_person(workspace, "bert", ["auditor"])
        list_entries(workspace.acting_as("anna"), EntryQuery(limit=1))
    assert found(folder) == []
    assert any(line.startswith("rows of 1 people not compared: entry ") for line in warned(folder)), warned(folder)
    edit(folder, "UPDATE grant_ SET expires_ms = 5 WHERE principal = :anna")
    assert found(folder) == []
    edit(folder, "INSERT INTO grant_ SELECT 'g_x', :bert, 'platform_admin', 'workspace', 1, 9, NULL, :owner, NULL")
    assert any(line.startswith("grant g_x: the database holds it") for line in found(folder)), found(folder)


def test_emergency_rights_and_their_review_do_not_differ(folder):
    clock = [time.time()]
    with Workspace.open(folder, clock=lambda: clock[0]) as workspace:
        grant_role(workspace, "owner", "break_glass", 3)
        glass = break_glass(workspace, "the pager rang", 1)
        resume_principal(workspace, "bot")
    assert found(folder) == []
    edit(folder, "UPDATE glass SET until_ms = until_ms + 60000")
    assert any(line.startswith(f"glass {glass.id}: until_ms is ") for line in found(folder)), found(folder)


def test_who_was_erased_is_not_let_in_and_differs_in_nothing(folder):
    with Workspace.open(folder) as workspace:
        anna = workspace.people.find("anna")
        acting = workspace.acting_as("anna")
        erase_personal(workspace, Selection(anna), "gdpr-17-1-b")
        with pytest.raises(NotAuthenticated):
            list_entries(acting, EntryQuery(limit=1))
        with pytest.raises(InvalidInput, match="nobody erases themselves"):
            erase_personal(workspace, Selection(workspace.people.session.principal), "gdpr-17-1-b")
    with pytest.raises(NotAuthenticated):
        Workspace.open(folder, principal="anna")
    assert found(folder) == []
