"""A copy opens when two people who took no part in making it released it, and not before, whatever else one holds."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import life
import pytest
from sqlalchemy import insert, select, update

from stanch.access import ApprovalStatement, sign_approval
from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.crypto.localkey import save_local_key
from stanch.errors import (
    ApprovalsMissing,
    InvalidInput,
    NoIdentityMatched,
    NotFound,
    NotPermitted,
    PolicyViolation,
    QuorumNotMet,
    SeparationOfDuties,
)
from stanch.ledger import Act, Credential, decode_entry, intent, new_act_id, outcome
from stanch.mark import embed
from stanch.release import QuorumFiles, approve, open_copy, quorum_folder, read_publisher, read_record, redeem_copy
from stanch.seal import Recipients, VolatileReleases
from stanch.seal.memory import check_release
from stanch.sign import TrustedKeys
from stanch.store.schema import access as rows
from stanch.terms import Digest
from stanch.tune import TuneSpec
from stanch.workspace import Workspace, verbs_model
from stanch.workspace.artifacts import model_ref
from stanch.workspace.copies import KeptCopy
from stanch.workspace.verbs_access import add_person, grant_role, revoke_grant
from stanch.workspace.verbs_approve import approve_release, load_record, register_key
from stanch.workspace.verbs_deliver import deliver_copy
from stanch.workspace.verbs_origin import state_origin
from stanch.workspace.verbs_person import replace_local_key
from stanch.workspace.verbs_release import (
    CopyTerms,
    ReleaseState,
    create_release,
    propose_release,
    recall_recipients,
    release_folder,
)

both = pytest.mark.on_both_grounds


@pytest.fixture(scope="session")
def created(proposed, ground, tmp_path_factory):
    """The team's workspace with acme's copy, which is sealed for nobody yet."""
    folder = tmp_path_factory.mktemp("created")
    case = replace(proposed, folder=ground.copy(proposed.folder, folder / "w"))
    with life.cheaply(), case.acting("rolf") as rolf:
        case.create(rolf, folder / "copy")
    return case, folder / "copy"


class Team:
    """An opened workspace in which everybody can act, and acme's copy."""

    def __init__(self, case, workspace, copy):
        self.case, self.log, self.copy = case, workspace, copy
        self.trusted = TrustedKeys(workspace.keys.publics("publisher"))
        self.acme = case.material.acme

    def __call__(self, name):
        return self.log.acting_as(name, unlock=lambda: life.passphrase(name))

    @property
    def files(self):
        return KeptCopy.newest(release_folder(self.log, "r1"), "acme").quorum

    def approve(self, name, **where):
        return self.case.approve(self(name), **where)

    def redeem(self, *approvals, identity=None):
        key = identity or self.acme
        return redeem_copy(self.copy, self.trusted, self.files.record, approvals, key, now=self.log.now())

    def read(self, identity=None):
        with open_copy(self.copy, self.trusted, [identity or self.acme], memory=VolatileReleases()) as opened:
            return {file.path: bytes(opened.read(file.path)) for file in opened.files()}

    def deliver(self, name, store):
        return deliver_copy(self(name), self.copy, f"file:{store}", self.trusted)


@pytest.fixture
def team(created, ground, tmp_path):
    case, copy = created
    shutil.copytree(copy, tmp_path / "copy")
    shutil.copytree(quorum_folder(copy), quorum_folder(tmp_path / "copy"))
    case = replace(case, folder=ground.copy(case.folder, tmp_path / "w"))
    with case.acting("nina") as workspace:
        yield Team(case, workspace, tmp_path / "copy")


def force_approval(workspace, request):
    """Hand in a valid signed approval by whoever acts, past the policies."""
    people = workspace.people
    statement = ApprovalStatement(
        request=request.digest, approver=people.session.principal, origin=workspace.ledger.origin,
        created_ms=int(workspace.door.clock() * 1000), expires_ms=int(request.release.expires.timestamp() * 1000),
    )  # fmt: skip
    people.approvals.record_approval(sign_approval(people.local.key, statement))


@both
def test_two_open_it_and_one_does_not(team, tmp_path):
    stanzas = Recipients.parse((team.copy / "recipients.json").read_bytes()).stanzas
    assert [stanza.type for stanza in stanzas] == ["quorum"]
    with pytest.raises(QuorumNotMet):
        team.read()
    with pytest.raises(ApprovalsMissing):
        team.deliver("rolf", tmp_path / "store")
    first = team.approve("rita")
    assert (first.count, first.needed) == (1, 2)
    again = team.approve("rita")  # the same person twice is one person
    assert again.count == 1
    with pytest.raises(ApprovalsMissing):
        team.deliver("rolf", tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(QuorumNotMet):
        team.redeem(first.approval, again.approval)
    with pytest.raises(QuorumNotMet):
        team.read()
    second = team.approve("rolf")
    assert second.count == 2
    team.redeem(*team.files.approvals.values())
    state = ReleaseState.load(release_folder(team.log, "r1"))
    plan = state.mark_plan()
    plain = embed(state.model, tmp_path / "plain", plan, state.copy_key(plan, "acme")).path
    assert team.read() == life.contents(plain)
    with pytest.raises(QuorumNotMet):
        team.read(team.case.material.other)


@both
def test_an_administrator_with_everything_and_one_approvers_keys_opens_nothing(team, tmp_path):
    """Disk, database, bucket, publisher's key, rita's two keys: every way that they give is refused."""
    rita, record = team("rita"), team.files.record
    hers = approve(
        read_record(record, team.trusted), team.case.material.identities["rita"], rita.people.local.key,
        now=team.log.now(),
    )  # fmt: skip
    own, signer = generate_identity(), SigningKey.generate("ed25519")
    rolf = team.log.people.find("rolf")
    with team.log.tables.write() as connection:  # the administrator's own key as rolf's, and rolf's approval made up
        connection.execute(
            insert(rows.credential).values(
                id=signer.key_id, principal=rolf, kind="local", public=signer.public.raw, not_before_ms=0
            )
        )
    request = read_record(record, team.trusted).request
    statement = ApprovalStatement(
        request=request.digest, approver=rolf, origin=team.log.ledger.origin,
        created_ms=int(team.log.door.clock() * 1000), expires_ms=int(request.release.expires.timestamp() * 1000),
    )  # fmt: skip
    team.log.people.approvals.record_approval(sign_approval(signer, statement))
    force_approval(rita, request)
    assert team.log.people.approvals.count_approvals(request.digest, requester="") == 2  # the database is convinced
    kept = KeptCopy.newest(release_folder(team.log, "r1"), "acme")
    kept.add_approval(1, hers)
    kept.add_approval(2, hers)
    team.deliver("rita", tmp_path / "store")
    with pytest.raises(NotPermitted, match="no approver"):
        approve(read_record(record, team.trusted), own, signer, now=team.log.now())
    with pytest.raises(NoIdentityMatched):
        approve(read_record(record, team.trusted), own, team("rolf").people.local.key, now=team.log.now())
    for identity in (team.acme, own, team.case.material.identities["rita"]):
        with pytest.raises(QuorumNotMet):
            team.redeem(hers, hers, identity=identity)
        with pytest.raises(QuorumNotMet):
            team.read(identity)


@both
def test_rows_that_somebody_made_up_do_not_count(team, tmp_path):
    team.approve("rita")
    rolf, table = team.log.people.find("rolf"), rows.approval
    with team.log.tables.write() as connection:
        row = connection.execute(select(table)).mappings().one()
        connection.execute(insert(table).values(**{**row, "principal": rolf}))
    with pytest.raises(ApprovalsMissing):
        team.deliver("rolf", tmp_path / "store")
    with pytest.raises(QuorumNotMet):
        team.redeem(*team.files.approvals.values())


def test_an_approval_opens_no_other_copy(team, tmp_path):
    """Another recipient's copy, and a second copy for the same one: same release, other requests."""
    approvals = [team.approve(name).approval for name in life.APPROVERS]
    old = team.files.record
    for recipient, key in (("bolt", team.case.material.other), ("acme", team.acme)):
        other = tmp_path / f"other-{recipient}"
        record = team.case.create(team("rolf"), other, recipient=recipient).record
        with pytest.raises(QuorumNotMet):
            redeem_copy(other, team.trusted, record, approvals, key, now=team.log.now())
        with pytest.raises(PolicyViolation, match="another manifest"):
            redeem_copy(other, team.trusted, old, approvals, key, now=team.log.now())
    memory = VolatileReleases()  # whoever sees all three sees one release
    for copy in (team.copy, tmp_path / "other-bolt", tmp_path / "other-acme"):
        manifest, publisher = read_publisher(copy, team.trusted)
        seen = check_release(memory, publisher, manifest)
        memory.remember(*publisher.signer_key_ids, manifest.lineage, seen)
    request = read_record(old, team.trusted).request.digest
    with pytest.raises(PolicyViolation, match="another"):  # an approver who was shown the first copy
        approve_release(team("rita"), "r1", "acme", team.case.material.identities["rita"], request=request)
    with pytest.raises(ApprovalsMissing):  # two approved the other copy
        deliver_copy(team("rolf"), tmp_path / "other-acme", f"file:{tmp_path}/store", team.trusted)


@pytest.mark.parametrize("change", [{"not_after": "2099-01-01T00:00:00Z"}, {"certificate_sha256": "22" * 32}, "key"])
def test_a_request_that_was_changed_after_the_copy_was_made_is_not_approved(team, change):
    facts = release_folder(team.log, "r1") / "release.json"
    document = json.loads(facts.read_bytes())
    other = {"recipient_key": str(team.case.material.other.recipient)}
    document["requests"]["acme"] |= other if change == "key" else change
    facts.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(PolicyViolation, match="another request"):
        team.approve("rita")
    assert team.files.approvals == {}


def test_release_numbers_never_go_back(team, monkeypatch):
    """Neither in the log nor, of what was proposed before the log said it, in the files."""
    dana, releases = team("dana"), team.log.state / "releases"

    def propose(name, **changes):
        (first, *others) = propose_release(dana, team.case.proposal(name, **changes)).facts.requests.values()
        assert {(one.lineage, one.release_number) for one in others} == {(first.lineage, first.release_number)}
        return first.lineage, first.release_number

    assert propose("r2") == ("acme/bot", 2)
    for number in (1, 2):
        with pytest.raises(InvalidInput, match="above 2, found") as caught:
            propose("no", release_number=number)
        assert "the next one is 3" in caught.value.next_step
    assert propose("r5", release_number=5) == ("acme/bot", 5)
    assert propose("other", lineage="acme/other") == ("acme/other", 1)
    named = dana.folder / "Tuned Model"
    shutil.copytree(team.case.material.model, named)
    assert propose("named", model=named, lineage=None) == ("tuned-model", 1)
    shutil.rmtree(releases / "r5")
    assert propose("logged") == ("acme/bot", 6)
    silent = {"unmapped": {"stanch": {"payload": {}}}}
    monkeypatch.setattr("stanch.workspace.verbs_release.decode_entry", lambda _: silent)
    assert propose("kept") == ("acme/bot", 7)


def test_the_proposer_an_auditor_and_the_recipient_are_no_approvers(team, tmp_path, monkeypatch):
    grant_role(team("olga"), "rolf", "ml_engineer", 3)
    propose_release(team("rolf"), team.case.proposal("r2"))
    with pytest.raises(SeparationOfDuties):
        team.case.create(team("rita"), tmp_path / "out", name="r2")
    with pytest.raises(SeparationOfDuties):  # of r1's model too he is now a proposer
        team.approve("rolf")
    mine = team.case.proposal("r3", recipients={"acme": str(team.case.material.identities["rita"].recipient)})
    propose_release(team("dana"), mine)
    monkeypatch.setattr("stanch.workspace.people._TAKING_PART", ("audit.run",))
    with pytest.raises(InvalidInput, match="the recipient is among"):
        team.case.create(team("rita"), tmp_path / "out", name="r3")
    assert not (tmp_path / "out").exists()


@both
def test_who_audited_it_after_it_was_made_may_not_approve_it(team, tmp_path, monkeypatch):
    grant_role(team("olga"), "rita", "ml_engineer", 3)
    for name in life.APPROVERS:
        team.approve(name)
    monkeypatch.setattr(verbs_model, "audit", lambda *_, **__: team.case.material.result)
    order = verbs_model.AuditOrder(
        team.case.material.model, lambda: None, lambda _: None, verbs_model.AuditInput(), verbs_model.AuditParams(),
        tmp_path / "report",
    )  # fmt: skip
    verbs_model.run_audit(team("rita"), order)
    with pytest.raises(SeparationOfDuties):
        team.approve("rita")
    with pytest.raises(ApprovalsMissing):  # her earlier approval counts no more
        team.deliver("rolf", tmp_path / "store")


def test_an_approver_is_who_registered_a_key_and_may_approve(team, tmp_path):
    rolf = team("rolf")
    for names, error, said in (
        ((), InvalidInput, "at least 2"),
        (("rita",), InvalidInput, "at least 2"),
        (("rita", "rita"), InvalidInput, "stands twice"),
        (("rita", "nobody"), InvalidInput, "0 principals"),
        (("rita", "dana"), NotPermitted, "may not release:approve"),
        (("rita", "ruth"), InvalidInput, "no registered key"),
    ):
        with pytest.raises(error, match=said):
            team.case.create(rolf, tmp_path / "out", approvers=names)
        assert not (tmp_path / "out").exists()
    with pytest.raises(NotPermitted, match="may not release:approve"):
        register_key(team("ruth"), str(team.acme.recipient))
    with pytest.raises(NotPermitted):
        register_key(team("nina"), str(team.acme.recipient))
    with pytest.raises(InvalidInput, match="stanch1"):
        register_key(rolf, "age1qqq")


def test_the_newest_key_that_somebody_registered_counts(team, tmp_path):
    new = generate_identity("hybrid")
    register_key(team("rita"), str(new.recipient))
    team.case.create(team("rolf"), tmp_path / "out")
    request = load_record(team.log, "r1", "acme").request
    assert request.approvers[0].recipient == str(new.recipient)
    with pytest.raises(NoIdentityMatched):
        approve_release(team("rita"), "r1", "acme", team.case.material.identities["rita"], request=request.digest)
    assert approve_release(team("rita"), "r1", "acme", new, request=request.digest).count == 1


@both
def test_a_registration_counts_only_with_its_persons_own_signature(team, tmp_path):
    """An administrator gives rita a signing key of his own: what she registered is not hers any more, nor is his."""
    signer, rita = SigningKey.generate("ed25519"), team.log.people.find("rita")
    with team.log.tables.write() as connection:
        old = connection.execute(select(rows.credential.c.id).where(rows.credential.c.principal == rita)).scalar_one()
        connection.execute(update(rows.credential).where(rows.credential.c.id == old).values(public=signer.public.raw))
    with pytest.raises(InvalidInput, match="no registered key"):
        team.case.create(team("rolf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_key_without_passphrase_is_no_second_factor(team, tmp_path):
    with pytest.raises(NotPermitted, match="release:approve") as caught:
        team.approve("ruth")
    assert "second-factor" in caught.value.why
    with pytest.raises(NotPermitted) as caught:
        team.case.create(team("ruth"), tmp_path / "out")
    assert "second-factor" in caught.value.why


def test_nobody_grants_to_himself(team):
    with pytest.raises(SeparationOfDuties):
        grant_role(team("olga"), "olga", "ml_engineer", 3)


def test_an_administrator_may_not_release(team, tmp_path):
    for refused in (
        lambda: team.approve("olga"),
        lambda: team.case.create(team("olga"), tmp_path / "out"),
        lambda: team.deliver("olga", tmp_path / "store"),
    ):
        with pytest.raises(NotPermitted):
            refused()
    assert life.tree(tmp_path / "store") == []


def test_an_expired_request_is_neither_approved_nor_created(team, tmp_path):
    clock = life.in_days(0).timestamp

    def later():
        return clock() + 31 * 86_400

    with Workspace.open(
        team.case.folder, principal="olga", unlock=lambda: life.passphrase("olga"), clock=later
    ) as olga:  # the roles of thirty days have ended too: renew them
        for name in life.APPROVERS:
            grant_role(olga, name, "release_manager", 30)
        rita, rolf = (olga.acting_as(name, unlock=lambda name=name: life.passphrase(name)) for name in life.APPROVERS)
        with pytest.raises(InvalidInput, match="expired"):
            team.case.approve(rita)
        with pytest.raises(InvalidInput, match="end before it begins"):
            team.case.create(rolf, tmp_path / "out")


def test_an_approval_of_somebody_who_lost_the_role_meanwhile_does_not_count(team, tmp_path):
    for name in life.APPROVERS:
        team.approve(name)
    olga, rita = team("olga"), team("rita").people.session.principal
    (held,) = olga.people.directory.facts_of(rita).grants
    revoke_grant(olga, held.id)
    with pytest.raises(ApprovalsMissing):
        team.deliver("rolf", tmp_path / "store")
    model = verbs_model.model_ref(team.case.material.model)
    grant_role(olga, "rita", "release_manager", 3, on=model)
    team.deliver("rolf", tmp_path / "store")


def test_a_gate_that_fails_shuts_every_name_of_the_bytes(team, tmp_path):
    ref = verbs_model.model_ref(team.case.material.model)
    rolf = team("rolf")
    for name in ("other", "third"):
        rolf.people.set_gate(replace(ref, name=name), "failed")
        assert rolf.people.resource_facts(ref).gate == "failed"
        assert rolf.people.resource_facts(replace(ref, name=name)).gate == "failed"
    with pytest.raises(NotPermitted):
        team.case.create(rolf, tmp_path / "out")
    rolf.people.set_gate(ref, "passed")
    assert rolf.people.resource_facts(replace(ref, name="other")).gate == "failed"


def test_who_was_given_a_key_by_somebody_else_approves_only_where_that_key_is_named(team, tmp_path):
    """An administrator replaces an approver's key, and registers in that name what opens the share."""
    rolf, olga = team("rolf"), team("olga")
    replace_local_key(olga, "rita", passphrase=life.passphrase("rita"))
    register_key(team("rita"), str(team.case.material.other.recipient))
    with pytest.raises(InvalidInput, match="rita: somebody else may have the local key") as caught:
        team.case.create(rolf, tmp_path / "out")
    assert olga.people.session.principal in caught.value.why
    with pytest.raises(InvalidInput, match="rita: expected a registration with the local key ed25519:0"):
        team.case.create(rolf, tmp_path / "out", approvers=("rita=ed25519:0", "rolf"))
    assert not (tmp_path / "out").exists()
    named = f"rita={rolf.keys.person_id('rita')}"
    made = team.case.create(rolf, tmp_path / "out", approvers=(named, "rolf"))
    assert made.path == tmp_path / "out"


def test_a_key_that_nobody_signed_for_is_an_approvers_only_where_it_is_named(team, tmp_path):
    """Who writes the database adds both entries of a replacement in a browser's name, and the row."""
    rita, olga = (team(name).people.session for name in ("rita", "olga"))
    key, where = SigningKey.generate("ed25519"), team.log.state / "keys/people/ritax.json"
    save_local_key(where, key, passphrase=life.passphrase("ritax"))
    act = Act(
        kind="access.rekey", id=new_act_id(int(team.log.door.clock() * 1000)), principal=olga.principal,
        profile="team", credential=Credential(kind="browser", key_id="bs_0123456789abcdef0123"),
    )  # fmt: skip
    asked = {"earlier": rita.key_id}
    team.log.ledger.append_nowait(intent(act, time_ms=rita.started_ms, payload=asked)).result()
    payload = asked | {"key": key.key_id, "principal": rita.principal}
    team.log.ledger.append_nowait(outcome(act, time_ms=rita.started_ms, payload=payload)).result()
    team.log.people.directory.replace_key(rita.key_id, key.public)
    register_key(team("ritax"), str(team.case.material.other.recipient))
    with pytest.raises(InvalidInput, match="rita: somebody else may have the local key") as caught:
        team.case.create(team("rolf"), tmp_path / "out")
    assert "nobody signed" in caught.value.why


def test_a_model_that_did_not_pass_the_gate_is_neither_released_nor_delivered(team, tmp_path):
    for name in life.APPROVERS:
        team.approve(name)
    rolf, ref = team("rolf"), verbs_model.model_ref(team.case.material.model)
    rolf.people.set_gate(ref, "failed")
    for act in (lambda: team.case.create(rolf, tmp_path / "out"), lambda: team.deliver("rolf", tmp_path / "store")):
        with pytest.raises(NotPermitted) as caught:
            act()
        assert "gate" in caught.value.why
    rolf.people.set_gate(ref, "passed")
    team.deliver("rolf", tmp_path / "store")


@both
def test_a_suspended_person_may_nothing(team):
    team.log.people.directory.suspend(team("rita").people.session.principal)
    with pytest.raises(NotPermitted):
        team.approve("rita")


def test_one_person_suffices_in_profile_solo(team, tmp_path):
    material = team.case.material
    with Workspace.init(tmp_path / "solo") as workspace:
        cert = life.certify(material.result, material.model, workspace.keys.signer("publisher"), tmp_path / "cert.json")
        propose_release(workspace, team.case.proposal(certificate=cert))
        with pytest.raises(NotFound, match="no copy for"):
            load_record(workspace, "r1", "acme")
        with pytest.raises(InvalidInput, match="solo"):
            team.case.create(workspace, tmp_path / "out")
        with pytest.raises(NotPermitted) as caught:
            team.case.create(workspace, tmp_path / "out", approvers=())
        assert "gate" in caught.value.why
        verbs_model.pass_gate(workspace, material.model, cert, life.POLICY)
        made = create_release(workspace, "r1", "acme", tmp_path / "out", CopyTerms(policy=life.POLICY))
        assert not quorum_folder(made.path).exists()
        trusted = TrustedKeys(workspace.keys.publics("publisher"))
        with open_copy(made.path, trusted, [material.acme], memory=VolatileReleases()) as opened:
            assert opened.files()
        with pytest.raises(InvalidInput, match="without approvals"):
            load_record(workspace, "r1", "acme")
        deliver_copy(workspace, made.path, f"file:{tmp_path}/store", trusted)
        assert recall_recipients(workspace, made.manifest) == {material.acme.recipient.key_id}
        assert recall_recipients(workspace, Digest.sha256(b"another")) == frozenset()
        shutil.rmtree(release_folder(workspace, "r1"))
        with pytest.raises(PolicyViolation, match="no release's file says for whom"):
            recall_recipients(workspace, made.manifest)
        add_person(workspace, "new", ["auditor", "ml_engineer"])


KILLED = """
import os, signal, sys
from pathlib import Path
import life
from stanch.workspace import Workspace, verbs_release

def create(folder, step):
    name = {"sealed": "create_copy", "kept": "_keep"}[step]
    original = getattr(verbs_release, name)

    def die(*given, **options):
        original(*given, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(verbs_release, name, die)
    with life.cheaply(), Workspace.open(folder, principal="rolf", unlock=lambda: life.passphrase("rolf")) as rolf:
        terms = verbs_release.CopyTerms(policy=life.POLICY, approvers=life.APPROVERS)
        verbs_release.create_release(rolf, "r1", "acme", folder.parent / step, terms)

for step in ("sealed", "kept"):  # each in a child of its own: a new interpreter costs seconds
    child = os.fork()
    if not child:
        create(Path(sys.argv[1]), step)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_killed_create_leaves_nothing_that_opens(team, tmp_path):
    """Killed when the copy is whole, before its record is kept and after: tests/seal kills it at earlier steps."""
    before = {path.name for path in (release_folder(team.log, "r1") / "copies").iterdir()}
    where = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(life.__file__).parent), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(team.case.folder)]
    done = subprocess.run(command, env=where, check=True, timeout=300, capture_output=True, text=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 2
    for step, refusal in (("sealed", NotPermitted), ("kept", PolicyViolation)):
        killed = Team(team.case, team.log, tmp_path / step)
        for identity in (team.acme, *team.case.material.identities.values()):
            with pytest.raises(QuorumNotMet):
                killed.read(identity)
        with pytest.raises(refusal):
            killed.deliver("rolf", tmp_path / "store")
    kept = {path.name for path in (release_folder(team.log, "r1") / "copies").iterdir()}
    assert len(kept - before) == 1


def test_a_copy_whose_place_is_taken_is_not_made(team, tmp_path):
    (tmp_path / "out.quorum").mkdir()
    with pytest.raises(InvalidInput, match="exists already"):
        team.case.create(team("rolf"), tmp_path / "out")
    with pytest.raises(InvalidInput, match="exists already"):
        team.case.create(team("rolf"), team.copy)


def test_the_log_names_request_and_manifest_of_a_copy(team):
    reader = team.log.ledger.reader()
    (entry,) = (
        ours
        for index in range(reader.size())
        for ours in (decode_entry(reader.entry(index))["unmapped"]["stanch"],)
        if (ours["kind"], ours["phase"]) == ("release.create", "outcome")
    )
    assert (
        entry["payload"]["manifest"] == f"sha256:{read_record(team.files.record, team.trusted).request.manifest_sha256}"
    )
    assert entry["egress_bytes"] == sum(path.stat().st_size for path in team.copy.rglob("*") if path.is_file())
    assert QuorumFiles.read(quorum_folder(team.copy)) == team.files


def test_the_log_says_whose_rights_were_changed(team):
    """OCSF ``user``: an outcome names the person concerned, and an intent does not yet know."""
    olga = team("olga")
    start = olga.ledger.reader().size()
    new = add_person(olga, "newcomer", ("data_steward",))
    made = grant_role(olga, "newcomer", "ml_engineer", 3)
    revoke_grant(olga, made.id)
    reader = olga.ledger.reader()
    events = [decode_entry(reader.entry(index)) for index in range(start, reader.size())]
    assert [event["user"]["uid"] for event in events] == ["unknown", new] * 3
    assert {event["actor"]["user"]["uid"] for event in events} == {olga.people.session.principal}


def test_whoever_tuned_or_derived_a_model_took_part_in_making_it(case, tmp_path, monkeypatch):
    """The subject of a tuning is its data; the log still knows whose model it is."""
    model, derived = case.material.model, tmp_path / "merged"
    shutil.copytree(model, derived)
    (derived / "config.json").write_text('{"merged": true}')
    tuned = SimpleNamespace(path=model, statement=SimpleNamespace(guarantee="none", epsilon=None))
    monkeypatch.setattr(verbs_model, "tune", lambda *_, **__: tuned)
    monkeypatch.setattr(verbs_model, "keep_heads", lambda *_: None)
    monkeypatch.setattr(verbs_model, "run_folder", lambda _: tmp_path)
    spec = TuneSpec.from_toml(b'base = { path = "base" }\nprivacy = { enabled = false }')
    with case.acting("dana") as workspace:
        verbs_model.run_tuning(workspace, spec, SimpleNamespace(path=case.material.data))
        state_origin(workspace, derived, model, "merged")
        reader, people = workspace.ledger.reader(), workspace.people
        for made in (model, derived):
            assert people.involved(model_ref(made), reader) == {people.session.principal}
        assert people.involved(replace(model_ref(model), digest=Digest.sha256(b"another")), reader) == frozenset()
