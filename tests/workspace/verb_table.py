"""Every verb with what calls it: how it is prepared, run, and what it must leave; ``test_verbs`` walks them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any

import life

from stanch.access import (
    ApiKeyOrder,
    ApiKeys,
    ApprovalStatement,
    Directory,
    Glasses,
    PolicyChange,
    PolicyVersions,
    sign_approval,
)
from stanch.access.bootstrap import Bootstrap
from stanch.access.policy import default_text
from stanch.audit import AuditInput, AuditParams
from stanch.audit.endpoint import Endpoint
from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.data import CanarySpec, build_manifest, open_dataset, plan_canaries
from stanch.errors import NotPermitted
from stanch.ledger import EntryQuery, Ledger, LedgerReader
from stanch.ledger.erasure import Selection
from stanch.release import RemoteBundle, RevokeOrder
from stanch.release.redemption import approve
from stanch.scan import STANDARD, Policy, Scanner, SpanIndex, Vault
from stanch.sign import TrustedKeys
from stanch.terms import Digest
from stanch.trace import Period, sign_receipt
from stanch.trace.incident_report import Audience
from stanch.tune import JournalHead, TrainEvent, TuneSpec
from stanch.watch import Alarm, Severity
from stanch.watch.alert import AlertState
from stanch.watch.incident import HOUR_MS, Matter, waive_notice
from stanch.workspace import (
    Workspace,
    verbs_access,
    verbs_alerts,
    verbs_approve,
    verbs_artifact,
    verbs_case,
    verbs_casework,
    verbs_check,
    verbs_console,
    verbs_contain,
    verbs_data,
    verbs_deliver,
    verbs_follow,
    verbs_glass,
    verbs_hunt,
    verbs_incident,
    verbs_incident_report,
    verbs_index,
    verbs_key,
    verbs_log,
    verbs_model,
    verbs_origin,
    verbs_person,
    verbs_policy,
    verbs_receipt,
    verbs_release,
    verbs_rows,
    verbs_serve,
    verbs_trace,
    verbs_training,
    verbs_tune,
)
from stanch.workspace.artifacts import dataset_ref, model_ref
from stanch.workspace.copies import KeptCopy
from stanch.workspace.keyring import Keyring
from stanch.workspace.people import People
from stanch.workspace.release_state import ReleaseState

NAME = f"<EMAIL:{'A' * 20}>"
SPEC = TuneSpec.from_toml(b'[base]\npath = "base"\n')


class Enough:
    """Wants no more than what there is."""

    def put(self, *_line):
        return True

    def rest(self, _seconds):
        return False

    def end(self):
        return 0


def dataset(case):
    return open_dataset(case.material.data)


def keyed(workspace, case):
    return open_dataset(case.material.data, key=workspace.keys.secret("dataset"))


def stock(workspace, case):
    return build_manifest(keyed(workspace, case), key=workspace.keys.secret("dataset"))


def plan(case):
    return plan_canaries(
        dataset(case), CanarySpec(n=32), preregistration={"alpha": 0.05}, rng=lambda size: bytes(range(size))
    )


@cache
def plan_of_pairs(path):
    """Canaries of which enough pairs have different coins."""
    return plan_canaries(
        open_dataset(path), CanarySpec(n=192), preregistration={"alpha": 0.05}, rng=lambda size: bytes(range(size))
    )


def plant_it(workspace, scene):
    planted = plan_of_pairs(scene.material.data)
    life.acting_in(
        workspace, "dana", verbs_data.plant_canaries, dataset(scene), planted, workspace.folder / "planted.jsonl"
    )


def hunting(case):
    return verbs_hunt.HuntOrder(
        endpoint=Endpoint("http://127.0.0.1:9/v1", "bot"), plan=plan_of_pairs(case.material.data), grounds="a contract",
        queries=96, per_minute=6000,
    )  # fmt: skip


def order(case, out):
    return verbs_model.AuditOrder(
        case.material.model, lambda: None, lambda _: None, AuditInput(), AuditParams(), out / "report"
    )


def suspect(workspace, case):
    return verbs_trace.Suspect(
        path=case.stolen, case="c-1", description="found", received_from="a host", discovered=workspace.now()
    )


def index_it(workspace, scene):
    scene.kept["index"] = workspace.folder / "part.index"
    verbs_data.index_data(workspace, dataset(scene), scene.kept["index"], STANDARD)


def fill_it(workspace, scene):
    identity, path = generate_identity(), workspace.folder / "values.vault"
    if not path.exists():
        vault = Vault(path, [identity.recipient])
        vault.add("email", NAME, "ana@works.io")
        vault.save()
        scene.kept |= {"vault": path, "identity": identity}


def lower_it(workspace, _scene):
    lower = partial(verbs_contain.lower_budget, requests=1, tokens=1)
    life.acting_in(workspace, "ines", lower, "nina", Digest.sha256(b"m"))


def open_it(workspace, scene):
    record = verbs_trace.release_record(workspace, ReleaseState.load(verbs_release.release_folder(workspace, "r1")))
    scene.kept |= {"record": record, "case": verbs_trace.take_suspect(workspace, suspect(workspace, scene))}


def plan_it(workspace, scene):
    open_it(workspace, scene)
    scene.kept["plan"] = verbs_trace.plan_case(workspace, scene.kept["case"], scene.kept["record"])


def examine_it(workspace, scene):
    plan_it(workspace, scene)
    kept = scene.kept
    kept["traced"] = verbs_trace.examine_case(workspace, kept["case"], kept["plan"], kept["record"])


def approve_share(workspace, scene):
    request = verbs_approve.load_record(workspace, "r1", "bolt").request.digest
    identity = scene.material.identities["rita"]
    return verbs_approve.approve_release(workspace, "r1", "bolt", identity, request=request)


def hand_in_share(workspace, scene):
    """Hand in an approval that was made elsewhere; whoever is no approver has none to hand in."""
    record = verbs_approve.load_record(workspace, "r1", "bolt")
    people, now, share = workspace.people, workspace.now(), b""
    with suppress(NotPermitted):
        record.request.share_of(people.local.key.key_id)
        share = approve(record, scene.material.identities["rita"], people.local.key, now=now)
    statement = ApprovalStatement(
        request=record.request.digest, approver=people.session.principal, origin=workspace.ledger.origin,
        created_ms=int(now.timestamp() * 1000), expires_ms=int(record.request.release.expires.timestamp() * 1000),
    )  # fmt: skip
    return verbs_approve.take_approval(workspace, "r1", "bolt", share, sign_approval(people.local.key, statement))


def deliver_it(workspace, scene):
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    made = verbs_deliver.deliver_copy(workspace, scene.copy, f"file:{scene.folder}/store", trusted)
    scene.kept["uri"] = f"file:{scene.folder}/store/{made.bundle_id}"


def revoke_it(workspace, scene):
    signer = workspace.keys.signer("publisher")
    order = RevokeOrder(scene.material.other.recipient.key_id, "left", signer, workspace.now())
    remote = RemoteBundle.open(scene.kept["uri"])
    return verbs_deliver.revoke_copy(workspace, remote, order, TrustedKeys((signer.public,)))


def take_receipt(workspace):
    key = SigningKey.generate("ed25519")
    kept = KeptCopy.newest(verbs_release.release_folder(workspace, "r1"), "bolt")
    expected = verbs_receipt.expect_receipt(workspace, Digest.parse(f"sha256:{kept.facts.manifest_sha256}"))
    signed = sign_receipt(expected, key, received=workspace.now())
    return verbs_receipt.receive(workspace, "r1", "bolt", signed, key.public)


POLICIES = (
    default_text()
    + '@id("ours") permit (principal, action == Stanch::Action::"log:read", resource)'
    + (" when { context.approvals > 9 };")
)


def add_bot(workspace, _scene):
    verbs_access.register_newcomer(workspace, verbs_access.Newcomer(name="bot", kind="service"))


def key_order(workspace):
    model = str(Digest.sha256(b"model"))
    return ApiKeyOrder(principal=workspace.people.find("bot"), models=(model,), networks=("10.0.0.0/8",))


def issue_it(workspace, scene):
    add_bot(workspace, scene)
    scene.kept["key"] = verbs_access.issue_key(workspace, key_order(workspace))[0].id


def approve_it(workspace, _scene):
    """Hand in signed approvals of two other administrators; who may sign them is tested elsewhere."""
    for name in ("adam", "anke"):
        verbs_access.add_person(workspace, name, ["platform_admin"], passphrase=life.passphrase(name))
    versions = PolicyVersions(workspace.tables)
    change = PolicyChange(workspace.ledger.origin, POLICIES, (), versions.active())
    for name in ("adam", "anke"):
        people = workspace.acting_as(name, unlock=lambda name=name: life.passphrase(name)).people
        now_ms = int(workspace.door.clock() * 1000)
        statement = ApprovalStatement(
            request=change.digest, approver=people.session.principal, origin=workspace.ledger.origin,
            created_ms=now_ms, expires_ms=now_ms + 3_600_000,
        )  # fmt: skip
        people.approvals.record_approval(sign_approval(people.local.key, statement))


def activate_it(workspace, _scene):
    versions = PolicyVersions(workspace.tables)
    versions.activate(PolicyChange(workspace.ledger.origin, POLICIES, (), versions.active()), by="p_x", now_ms=1)


def give_glass(workspace, _scene):
    admin = workspace.acting_as("olga", unlock=lambda: life.passphrase("olga"))
    verbs_access.grant_role(admin, "rita", "break_glass", 3)


def break_it(workspace, scene):
    rita = workspace.people.find("rita")
    glasses = Glasses(workspace.tables, clock=lambda: workspace.door.clock() - 3600)
    scene.kept["glass"] = glasses.open_glass(rita, act="a", reason_commitment="c", minutes=15).id


ALARM = Alarm("D2", "requests", "p_a", None, 0, 0, Severity.LOW, 2.0, 1.0, (0,))


def raise_it(workspace, scene):
    admin = workspace.acting_as("olga", unlock=lambda: life.passphrase("olga"))
    scene.kept["alert"] = verbs_alerts.raise_alarms(admin, [ALARM])[0].id


def open_incident_it(workspace, scene):
    raise_it(workspace, scene)
    scene.kept["incident"] = verbs_incident.open_incident(workspace, 5, [scene.kept["alert"]]).id


def give_task_it(workspace, scene):
    open_incident_it(workspace, scene)
    given = verbs_casework.give_task(workspace, scene.kept["incident"], "call them", who="ines", due_ms=9)
    scene.kept["task"] = given.tasks[0].entry


def quiet(workspace):
    until = int(workspace.door.clock() * 1000) + 86_400_000
    return verbs_alerts.Quiet(detector="D2", principal=None, model=None, until_ms=until, reason="a test")


@dataclass(frozen=True, eq=False)
class Verb:
    """A verb: who may, how it is called, what it is called in the log, and the stage that must not run unrecorded."""

    function: Callable[..., Any]
    kind: str
    person: str
    stage: tuple[Any, str]
    call: Callable[[Workspace, Any, Any], Any]
    before: Callable[[Workspace, Any], None] | None = None

    @property
    def name(self):
        return self.function.__name__


VERBS = [
    Verb(verbs_data.scan_data, "data.scan", "dana", (verbs_data, "scan_dataset"),
         lambda w, c, out: verbs_data.scan_data(w, dataset(c), Scanner(Policy()), out / "clean.jsonl")),
    Verb(verbs_data.reveal_values, "data.reveal", "ines", (verbs_data, "open_vault"),
         lambda w, c, _out: verbs_data.reveal_values(w, c.kept["vault"], lambda: c.kept["identity"], [NAME]),
         before=fill_it),
    Verb(verbs_data.take_stock, "data.manifest", "dana", (verbs_data, "build_manifest"),
         lambda w, c, _out: verbs_data.take_stock(w, keyed(w, c))),
    Verb(verbs_data.verify_stock, "data.verify", "dana", (verbs_data, "verify_manifest"),
         lambda w, c, _out: verbs_data.verify_stock(w, keyed(w, c), stock(w, c))),
    Verb(verbs_data.prove_stock, "data.prove", "dana", (verbs_data, "prove_record"),
         lambda w, c, _out: verbs_data.prove_stock(w, keyed(w, c), stock(w, c), next(iter(keyed(w, c))).id)),
    Verb(verbs_data.deduplicate, "data.dedup", "dana", (verbs_data, "drop_duplicates"),
         lambda w, c, out: verbs_data.deduplicate(w, dataset(c), out / "kept.jsonl")),
    Verb(verbs_data.find_duplicates, "data.duplicates", "dana", (verbs_data, "find_near_duplicates"),
         lambda w, c, _out: verbs_data.find_duplicates(w, dataset(c))),
    Verb(verbs_data.split_data, "data.split", "dana", (verbs_data, "write_split"),
         lambda w, c, out: verbs_data.split_data(w, dataset(c), 0.2, out / "in.jsonl", out / "held.jsonl")),
    Verb(verbs_data.plant_canaries, "data.inject", "dana", (verbs_data, "inject"),
         lambda w, c, out: verbs_data.plant_canaries(w, dataset(c), plan(c), out / "planted.jsonl")),
    Verb(verbs_data.index_data, "data.index", "dana", (verbs_data, "build_index"),
         lambda w, c, out: verbs_data.index_data(w, dataset(c), out / "text.index", STANDARD)),
    Verb(verbs_data.find_repeats, "data.repeats", "dana", (verbs_data, "find_repeated_spans"),
         lambda w, c, _out: verbs_data.find_repeats(w, dataset(c), 200)),
    Verb(verbs_index.query_index, "data.query", "dana", (SpanIndex, "query"),
         lambda w, c, _out: verbs_index.query_index(w, c.kept["index"], ["a text"]), before=index_it),
    Verb(verbs_index.merge_indexes, "data.merge", "dana", (SpanIndex, "merge"),
         lambda w, c, out: verbs_index.merge_indexes(w, [c.kept["index"]], out / "merged.index"), before=index_it),
    Verb(verbs_model.run_tuning, "tune.run", "dana", (verbs_model, "tune"),
         lambda w, c, _out: verbs_model.run_tuning(w, SPEC, dataset(c))),
    Verb(verbs_tune.keep_head, "tune.anchor", "dana", (verbs_tune, "_hand_on"),
         lambda w, c, _out: verbs_tune.keep_head(w, c.material.data, "ab" * 32, JournalHead(1, "ab" * 32, 0))),
    Verb(verbs_training.record_event, "tune.event", "dana", (verbs_training, "_go_on"),
         lambda w, c, _out: verbs_training.record_event(
             w, dataset_ref(c.material.data), TrainEvent("train.end", "ab" * 16, "", {}))),
    Verb(verbs_training.record_training, "tune.run", "dana", (verbs_training, "find_spent"),
         lambda w, c, _out: verbs_training.record_training(
             w, c.material.data, lambda *_given: c.material.model, max_tokens=9, completion_only=True)),
    Verb(verbs_model.run_audit, "audit.run", "dana", (verbs_model, "audit"),
         lambda w, c, out: verbs_model.run_audit(w, order(c, out))),
    Verb(verbs_model.pass_gate, "audit.gate", "dana", (verbs_model, "gate"),
         lambda w, c, _out: verbs_model.pass_gate(w, c.material.model, c.certificate, life.POLICY)),
    Verb(verbs_rows.show_rows, "audit.rows", "dana", (verbs_rows, "render_rows"),
         lambda w, c, out: verbs_rows.show_rows(
             w, dataset_ref(c.material.data), c.material.result, tuple(dataset(c)), out / "rows.html")),
    Verb(verbs_release.propose_release, "release.propose", "dana", (verbs_release.ReleaseState, "create"),
         lambda w, c, _out: verbs_release.propose_release(w, c.proposal("r2"))),
    Verb(verbs_release.create_release, "release.create", "rolf", (verbs_release, "create_copy"),
         lambda w, _c, out: verbs_release.create_release(
             w, "r1", "bolt", out / "copy", verbs_release.CopyTerms(policy=life.POLICY, approvers=life.APPROVERS))),
    Verb(verbs_approve.register_key, "key.register", "rita", (verbs_approve, "_registered"),
         lambda w, c, _out: verbs_approve.register_key(w, str(c.material.acme.recipient))),
    Verb(verbs_approve.approve_release, "release.approve", "rita", (verbs_approve, "sign_approval"),
         lambda w, c, _out: approve_share(w, c)),
    Verb(verbs_approve.take_approval, "release.approve", "rita", (verbs_approve, "check_approval"),
         lambda w, c, _out: hand_in_share(w, c)),
    Verb(verbs_deliver.revoke_copy, "release.revoke", "rolf", (verbs_deliver, "revoke"),
         lambda w, c, _out: revoke_it(w, c), before=deliver_it),
    Verb(verbs_receipt.receive, "release.receive", "rolf", (verbs_receipt, "verify_receipt"),
         lambda w, _c, _out: take_receipt(w)),
    Verb(verbs_deliver.deliver_copy, "release.deliver", "rolf", (verbs_deliver, "deliver"),
         lambda w, c, _out: deliver_it(w, c)),
    Verb(verbs_access.add_person, "access.add", "olga", (Keyring, "add_person"),
         lambda w, _c, _out: verbs_access.add_person(w, "new", ["auditor"])),
    Verb(verbs_access.grant_role, "access.grant", "olga", (Directory, "grant"),
         lambda w, _c, _out: verbs_access.grant_role(w, "nina", "consumer", 3)),
    Verb(verbs_access.revoke_grant, "access.revoke", "olga", (Directory, "revoke"),
         lambda w, c, _out: verbs_access.revoke_grant(w, c.grant)),
    Verb(verbs_access.suspend_principal, "access.suspend", "olga", (Directory, "suspend"),
         lambda w, _c, _out: verbs_access.suspend_principal(w, "nina")),
    Verb(verbs_access.resume_principal, "access.resume", "olga", (Directory, "suspend"),
         lambda w, _c, _out: verbs_access.resume_principal(w, "nina"),
         before=lambda w, _c: w.people.directory.suspend(w.people.find("nina"))),
    Verb(verbs_person.clear_principal, "access.clear", "olga", (Directory, "clear"),
         lambda w, _c, _out: verbs_person.clear_principal(w, "nina", 3)),
    Verb(verbs_person.take_local_key, "access.rekey", "olga", (Directory, "replace_key"),
         lambda w, _c, _out: verbs_person.take_local_key(w, "nina", SigningKey.generate("ed25519").public)),
    Verb(verbs_person.replace_local_key, "access.rekey", "olga", (Keyring, "replace_person"),
         lambda w, _c, _out: verbs_person.replace_local_key(w, "nina", passphrase=life.passphrase("nina"))),
    Verb(verbs_artifact.classify_model, "access.classify", "olga", (People, "remember_bytes"),
         lambda w, c, _out: verbs_artifact.classify_model(w, model_ref(c.material.model).digest, 3)),
    Verb(verbs_artifact.restore_model, "access.restore", "olga", (People, "remember_bytes"),
         lambda w, c, _out: verbs_artifact.restore_model(w, model_ref(c.material.model).digest),
         before=lambda w, c: w.people.remember_bytes(model_ref(c.material.model), {"quarantined": 1})),
    Verb(verbs_artifact.hold_artifact, "log.hold", "olga", (People, "remember_bytes"),
         lambda w, c, _out: verbs_artifact.hold_artifact(w, dataset_ref(c.material.data))),
    Verb(verbs_artifact.lift_hold, "log.lift", "olga", (People, "remember_bytes"),
         lambda w, c, _out: verbs_artifact.lift_hold(w, dataset_ref(c.material.data)),
         before=lambda w, c: w.people.remember_bytes(dataset_ref(c.material.data), {"legal_hold": 1})),
    Verb(verbs_access.register_newcomer, "access.register", "olga", (Directory, "register_subject"),
         lambda w, _c, _out: verbs_access.register_newcomer(w, verbs_access.Newcomer(name="bot", kind="service"))),
    Verb(verbs_access.issue_key, "key.issue", "olga", (ApiKeys, "issue_key"),
         lambda w, _c, _out: verbs_access.issue_key(w, key_order(w)), before=add_bot),
    Verb(verbs_access.revoke_key, "key.revoke", "olga", (ApiKeys, "revoke_key"),
         lambda w, c, _out: verbs_access.revoke_key(w, c.kept["key"]), before=issue_it),
    Verb(verbs_access.explain_access, "policy.read", "ada", (verbs_access, "explain"),
         lambda w, _c, _out: verbs_access.explain_access(w, "log:read", verbs_access.workspace_ref(w), who="dana")),
    Verb(verbs_policy.show_policies, "policy.read", "ada", (PolicyVersions, "history"),
         lambda w, _c, _out: verbs_policy.show_policies(w)),
    Verb(verbs_policy.check_policies, "policy.read", "ada", (verbs_policy, "simulate"),
         lambda w, _c, _out: verbs_policy.check_policies(w, POLICIES)),
    Verb(verbs_policy.approve_policies, "policy.approve", "olga", (verbs_policy, "sign_approval"),
         lambda w, _c, _out: verbs_policy.approve_policies(w, POLICIES)),
    Verb(verbs_policy.activate_policies, "policy.write", "olga", (PolicyVersions, "activate"),
         lambda w, _c, _out: verbs_policy.activate_policies(w, POLICIES), before=approve_it),
    Verb(verbs_policy.rollback_policies, "policy.rollback", "olga", (PolicyVersions, "rollback"),
         lambda w, _c, _out: verbs_policy.rollback_policies(w), before=activate_it),
    Verb(verbs_glass.break_glass, "access.break-glass", "rita", (Glasses, "open_glass"),
         lambda w, _c, _out: verbs_glass.break_glass(w, "the pager rang", 15), before=give_glass),
    Verb(verbs_glass.review_glass, "access.review", "ada", (Glasses, "review"),
         lambda w, c, _out: verbs_glass.review_glass(w, c.kept["glass"]), before=break_it),
    Verb(verbs_log.list_entries, "log.read", "ada", (verbs_log, "decode_entry"),
         lambda w, _c, _out: verbs_log.list_entries(w, EntryQuery(limit=10))),
    Verb(verbs_follow.follow_log, "log.export", "ada", (verbs_follow, "_lines"),
         lambda w, _c, _out: verbs_follow.follow_log(w, verbs_follow.Following(0, True, lambda: w), Enough())),
    Verb(verbs_log.export_log, "log.export", "ada", (LedgerReader, "proofs"),
         lambda w, _c, out: verbs_log.export_log(w, out / "export", "jsonl")),
    Verb(verbs_log.anchor_log, "log.anchor", "olga", (Ledger, "anchor"),
         lambda w, _c, _out: verbs_log.anchor_log(w)),
    Verb(verbs_log.erase_personal, "log.erase", "olga", (verbs_log, "erase"),
         lambda w, _c, _out: verbs_log.erase_personal(w, Selection(w.people.find("nina")), "gdpr-17-1-b")),
    Verb(verbs_log.prove_entry, "log.read", "ada", (LedgerReader, "prove"),
         lambda w, _c, _out: verbs_log.prove_entry(w, 0)),
    Verb(verbs_trace.count_period, "log.read", "ada", (verbs_trace, "report_transparency"),
         lambda w, _c, _out: verbs_trace.count_period(w, Period(w.now() - timedelta(days=1), w.now()))),
    Verb(verbs_console.serve_console, "console.serve", "olga", (verbs_console, "_finish"),
         lambda w, _c, _out: verbs_console.serve_console(w, lambda: None)),
    Verb(verbs_console.make_token, "console.token", "olga", (Bootstrap, "issue"),
         lambda w, _c, _out: verbs_console.make_token(w)),
    Verb(verbs_console.look, "release.read", "rita", (verbs_console, "_read"),
         lambda w, _c, _out: verbs_console.look(w, "release:approve", {"page": "releases"}, lambda: None)),
    Verb(verbs_serve.serve_models, "gateway.serve", "olga", (verbs_serve, "_finish"),
         lambda w, _c, _out: verbs_serve.serve_models(w, [], lambda: None)),
    Verb(verbs_serve.reset_budget, "gateway.reset", "olga", (verbs_serve, "_resetting"),
         lambda w, _c, _out: verbs_serve.reset_budget(
             w, verbs_serve.BudgetReset(w.people.find("nina"), (), "tokens", "why"), lambda _connection, _order: None)),
    Verb(verbs_serve.serve_watch, "watch.serve", "olga", (verbs_serve, "_finish"),
         lambda w, _c, _out: verbs_serve.serve_watch(w, [], lambda: None)),
    Verb(verbs_key.rotate_key, "key.rotate", "olga", (Keyring, "add_secret"),
         lambda w, _c, _out: verbs_key.rotate_key(w, "pepper")),
    Verb(verbs_alerts.raise_alarms, "watch.alert.raise", "olga", (verbs_alerts, "_raising"),
         lambda w, _c, _out: verbs_alerts.raise_alarms(w, [ALARM])),
    Verb(verbs_alerts.find_alerts, "watch.alert.read", "ada", (verbs_alerts, "list_alerts"),
         lambda w, _c, _out: verbs_alerts.find_alerts(w)),
    Verb(verbs_alerts.show_alert, "watch.alert.read", "ines", (verbs_alerts, "load_alert"),
         lambda w, c, _out: verbs_alerts.show_alert(w, c.kept["alert"]), before=raise_it),
    Verb(verbs_alerts.move_alert, "watch.alert.state", "ines", (verbs_alerts, "_step"),
         lambda w, c, _out: verbs_alerts.move_alert(
             w, c.kept["alert"], verbs_alerts.Change(AlertState.ACKNOWLEDGED)), before=raise_it),
    Verb(verbs_alerts.suppress_alerts, "watch.alert.suppress", "ines", (verbs_alerts, "_keep"),
         lambda w, _c, _out: verbs_alerts.suppress_alerts(w, quiet(w))),
    Verb(verbs_alerts.keep_simulation, "watch.simulate", "ines", (verbs_alerts, "_told"),
         lambda w, _c, _out: verbs_alerts.keep_simulation(w, {"detector": "D1"})),
    Verb(verbs_console.look, "watch.alert.read", "ada", (verbs_console, "_read"),
         lambda w, _c, _out: verbs_console.look(w, "finding:read", {"page": "alerts"}, lambda: None)),
    Verb(verbs_alerts.deliver_alerts, "watch.deliver", "olga", (verbs_alerts, "deliver_due"),
         lambda w, _c, _out: verbs_alerts.deliver_alerts(w)),
    Verb(verbs_check.record_check, "watch.check", "olga", (verbs_check, "_checked"),
         lambda w, _c, _out: verbs_check.record_check(
             w, "a check", lambda: verbs_check.Found(verbs_check.CheckState.GOOD))),
    Verb(verbs_incident.open_incident, "watch.incident.open", "ines", (verbs_incident, "_gather"),
         lambda w, _c, _out: verbs_incident.open_incident(w, 5)),
    Verb(verbs_incident.find_incidents, "watch.incident.read", "ada", (verbs_incident, "list_incidents"),
         lambda w, _c, _out: verbs_incident.find_incidents(w)),
    Verb(verbs_incident.show_incident, "watch.incident.read", "ines", (verbs_incident, "load_incident"),
         lambda w, c, _out: verbs_incident.show_incident(w, c.kept["incident"]), before=open_incident_it),
    Verb(verbs_incident.update_incident, "watch.incident.update", "ines", (verbs_incident, "load_incident"),
         lambda w, c, _out: verbs_incident.update_incident(
             w, c.kept["incident"], "waive", lambda one, _entry: waive_notice(one, "encrypted")),
         before=open_incident_it),
    Verb(verbs_casework.give_task, "watch.incident.update", "ines", (verbs_casework, "add_task"),
         lambda w, c, _out: verbs_casework.give_task(w, c.kept["incident"], "call them", who="ines", due_ms=9),
         before=open_incident_it),
    Verb(verbs_casework.end_task, "watch.incident.update", "ines", (verbs_casework, "finish_task"),
         lambda w, c, _out: verbs_casework.end_task(w, c.kept["incident"], c.kept["task"]), before=give_task_it),
    Verb(verbs_casework.note_notice, "watch.incident.update", "ines", (verbs_casework, "notify"),
         lambda w, c, _out: verbs_casework.note_notice(w, c.kept["incident"], 5 + 80 * HOUR_MS, late_because="away"),
         before=open_incident_it),
    Verb(verbs_casework.state_matter, "watch.incident.update", "ines", (verbs_casework, "add_statement"),
         lambda w, c, _out: verbs_casework.state_matter(w, c.kept["incident"], Matter.PEOPLE, "400 customers"),
         before=open_incident_it),
    Verb(verbs_incident.join_incident, "watch.incident.update", "ines", (verbs_incident, "_gather"),
         lambda w, c, _out: verbs_incident.join_incident(w, c.kept["incident"], [c.kept["alert"]]),
         before=open_incident_it),
    Verb(verbs_casework.hand_evidence, "watch.incident.update", "ines", (verbs_casework, "hand_over"),
         lambda w, c, _out: verbs_casework.hand_evidence(
             w, c.kept["incident"], Digest.sha256(b"a disk"), "the disk", holder="ines", since_ms=7),
         before=open_incident_it),
    Verb(verbs_incident.export_incident, "watch.incident.export", "ines", (verbs_incident, "export_json"),
         lambda w, c, out: verbs_incident.export_incident(w, c.kept["incident"], out / "incident"),
         before=open_incident_it),
    Verb(verbs_incident_report.write_report, "watch.incident.report", "ines", (verbs_incident_report, "_evidence"),
         lambda w, c, out: verbs_incident_report.write_report(
             w, c.kept["incident"], Audience.CUSTOMER, out / "report"),
         before=open_incident_it),
    Verb(verbs_origin.state_origin, "model.derive", "dana", (verbs_origin, "_stated"),
         lambda w, c, _out: verbs_origin.state_origin(w, c.material.model, c.material.base, "quantised")),
    Verb(verbs_contain.quarantine_model, "model.quarantine", "ines", (People, "remember_bytes"),
         lambda w, c, _out: verbs_contain.quarantine_model(w, model_ref(c.material.model))),
    Verb(verbs_contain.lower_budget, "gateway.limit", "ines", (verbs_contain, "_limit"),
         lambda w, _c, _out: verbs_contain.lower_budget(w, "nina", Digest.sha256(b"m"), requests=1, tokens=1)),
    Verb(verbs_contain.restore_budget, "gateway.restore", "olga", (verbs_contain, "_give_back"),
         lambda w, _c, _out: verbs_contain.restore_budget(w, "nina", Digest.sha256(b"m")), before=lower_it),
    Verb(verbs_trace.take_suspect, "trace.open", "ines", (verbs_trace, "open_case"),
         lambda w, c, _out: verbs_trace.take_suspect(w, suspect(w, c))),
    Verb(verbs_trace.plan_case, "trace.plan", "ines", (verbs_trace, "VerifiedCasePlan"),
         lambda w, c, _out: verbs_trace.plan_case(w, c.kept["case"], c.kept["record"]),
         before=open_it),
    Verb(verbs_trace.examine_case, "trace.examine", "ines", (verbs_trace, "examine"),
         lambda w, c, _out: verbs_trace.examine_case(w, c.kept["case"], c.kept["plan"], c.kept["record"]),
         before=plan_it),
    Verb(verbs_hunt.hunt_release, "trace.hunt", "ines", (verbs_hunt, "ask_pairs"),
         lambda w, c, _out: verbs_hunt.hunt_release(w, hunting(c)), before=plant_it),
    Verb(verbs_case.find_cases, "trace.read", "ada", (verbs_case, "read_cases"),
         lambda w, _c, _out: verbs_case.find_cases(w)),
    Verb(verbs_case.show_case, "trace.show", "ines", (verbs_case, "read_case"),
         lambda w, _c, _out: verbs_case.show_case(w, "c-1"), before=open_it),
    Verb(verbs_trace.write_case_report, "trace.report", "ines", (verbs_trace, "report_case"),
         lambda w, c, out: verbs_trace.write_case_report(w, c.kept["traced"], out / "report.html"),
         before=examine_it),
    Verb(verbs_trace.pack_evidence, "trace.pack", "ines", (verbs_trace, "pack"),
         lambda w, c, out: verbs_trace.pack_evidence(w, c.kept["traced"], out / "evidence.zip"),
         before=examine_it),
]  # fmt: skip

NOT_ACTS = {
    "verify_log": "reads what anybody who has the files can read, and works when the log takes no entries",
    "find_due": "a list of what is due, from what whoever may read the workspace's folder can read",
    "overdue_reviews": "likewise, a part of it",
    "unused_grants": "likewise, a part of it",
    "end_incident": "update_incident, walked here, with one change",
    "remind_incidents": "raise_alarms, walked here, for each clock that ran",
    "tell_glasses": "raise_alarms, walked here, for each use of emergency rights",
    "contain_incident": "an act of containment and update_incident, each walked here",
    "write_rows": "show_rows, walked here, or a page without the rows where that is refused",
    "list_receipts": "a question to the log inside a page that was asked for",
    "model_of_copy": "a question to the log inside another act",
    "key_history": "likewise",
    "find_receipt": "a question to the log inside another act",
    "receipts_of": "a question to the log inside another act",
    "recall_recipients": "a question to the log before keys are destroyed that whoever asks holds",
    "expect_receipt": "reads the files of a copy that whoever may read the workspace's folder can read",
    "keep_heads": "what keeps the heads of a run, each by an act",
    "load_record": "reads the files of a copy that whoever may read the workspace's folder can read",
    "release_folder": "a name",
    "release_record": "what a tracing needs of a release, inside another act",
    "workspace_ref": "a name",
    "bootstrap_of": "a part of the workspace",
    "console_secret": "a part of the workspace",
    "require_no_administrator": "a question inside another act",
    "refuse": "a refusal that comes before any verb; tests/console walks it",
    "note_sign_in": "an entry of its own: whoever signs in is nobody before it",
    "trace_suspect": "three acts in a row, each walked here",
    "continue_case": "the last two of them",
    "ready_case": "plan_case, walked here, or no act",
    "case_folder": "a name",
    "find_case": "a name",
    "existing_case": "a name",
    "kept_plan": "reads the files of a case that whoever may read the workspace's folder can read",
    "read_cases": "find_cases, walked here, without the act; the console's look is one",
    "read_case": "show_case, walked here, likewise",
    "load_case": "reads the files of a case that whoever may read the workspace's folder can read",
}
WITHOUT_WORKSPACE = {"log.recover": "a log that was rolled back opens no workspace; tests/cli/test_log.py recovers one"}
BY_THE_GATEWAY = {
    "gateway.embed": "asked for each request; tests/gateway walks it",
    "gateway.infer": "asked for each request; tests/gateway walks it",
}
