"""What each command asks the policies for. A command that stands here nowhere does not start.

A command names the kinds of acts that it does (:data:`stanch.workspace.kinds.KINDS` says which action permits each), or
says why it does none. Tests walk all commands and compare.
"""

from typing import NamedTuple

from stanch.errors import StanchError


class Acts(NamedTuple):
    """The kinds of acts that a command does, or why it does none."""

    kinds: tuple[str, ...] = ()
    why_none: str = ""


def _acts(*kinds: str) -> Acts:
    return Acts(kinds)


_FILES_ONLY = Acts(why_none="works on files that whoever runs it holds; no workspace is opened")
_OWN_KEYS = Acts(why_none="uses keys that whoever can read the workspace's files can read")
_OWN_RECORD = Acts(why_none="reads what whoever can read the workspace's files can read")

ACTIONS: dict[str, Acts] = {
    "demo": Acts(why_none="plays every act through the door of a workspace of its own"),
    "init": Acts(why_none="nobody is registered before it"),
    "migrate": Acts(why_none="changes the form of the tables and nothing in them; whoever owns the file may"),
    "status": _OWN_RECORD,
    "doctor": _OWN_RECORD,
    "threats": Acts(why_none="reads nothing but its own table"),
    "config show": _OWN_RECORD,
    "scan": _acts("data.scan"),
    "data manifest": _acts("data.manifest"),
    "data verify": _acts("data.verify"),
    "data prove": _acts("data.prove"),
    "data check": _FILES_ONLY,
    "data dedup": _acts("data.dedup", "data.duplicates"),
    "data split": _acts("data.split"),
    "data dictionary build": _OWN_KEYS,
    "data vault open": _acts("data.reveal"),
    "data canaries plan": _OWN_KEYS,
    "data canaries list": _FILES_ONLY,
    "data canaries inject": _acts("data.inject"),
    "data index build": _acts("data.index"),
    "data index merge": _acts("data.merge"),
    "data index query": _acts("data.query"),
    "data repeats": _acts("data.repeats"),
    "tune plan": _OWN_KEYS,
    "tune run": _acts("tune.run", "tune.anchor", "tune.event"),
    "tune derived": _acts("model.derive"),
    "tune verify": _FILES_ONLY,
    "tune statement": _FILES_ONLY,
    "tune fetch-model": _FILES_ONLY,
    "tune demo-batch-loss": _FILES_ONLY,
    "audit run": _acts("audit.run", "audit.rows"),
    "audit gate": _acts("audit.gate"),
    "audit scores": _FILES_ONLY,
    "audit verify": _FILES_ONLY,
    "release propose": _acts("release.propose"),
    "release approve": _acts("release.approve"),
    "release create": _acts("release.create"),
    "release open": _FILES_ONLY,
    "release approve-offline": _FILES_ONLY,
    "release redeem": _FILES_ONLY,
    "release deliver": _acts("release.deliver"),
    "release fetch": _FILES_ONLY,
    "release fetch-key": _FILES_ONLY,
    "release receive": _FILES_ONLY,
    "release receipt": _acts("release.receive"),
    "release revoke": _acts("release.revoke"),
    "inventory": _FILES_ONLY,
    "guard check": _OWN_KEYS,
    "guard conformance": _FILES_ONLY,
    "gateway serve": _acts("gateway.serve", "gateway.embed", "gateway.infer"),
    "gateway budgets": _OWN_RECORD,
    "gateway reset-budget": _acts("gateway.reset"),
    "gateway restore-budget": _acts("gateway.restore"),
    "watch alerts": _acts("watch.alert.read"),
    "watch show": _acts("watch.alert.read"),
    "watch ack": _acts("watch.alert.state"),
    "watch investigate": _acts("watch.alert.state"),
    "watch close": _acts("watch.alert.state"),
    "watch reopen": _acts("watch.alert.state"),
    "watch suppress": _acts("watch.alert.suppress"),
    "watch deliver": _acts("watch.alert.raise", "watch.deliver"),
    "incident open": _acts("watch.incident.open"),
    "incident list": _acts("watch.incident.read"),
    "incident show": _acts("watch.incident.read"),
    "incident contain": _acts(
        "key.revoke", "model.quarantine", "gateway.limit", "release.revoke", "watch.incident.update"
    ),
    "incident join": _acts("watch.incident.update"),
    "incident notify": _acts("watch.incident.update"),
    "incident state": _acts("watch.incident.update"),
    "incident task": _acts("watch.incident.update"),
    "incident done": _acts("watch.incident.update"),
    "incident custody": _acts("watch.incident.update"),
    "incident close": _acts("watch.incident.update"),
    "incident export": _acts("watch.incident.export"),
    "incident report": _acts("watch.incident.report"),
    "watch simulate": _acts("watch.simulate"),
    "watch detectors": Acts(why_none="says what every installation has; no workspace is opened"),
    "watch status": _OWN_RECORD,
    "watch serve": _acts("watch.serve", "watch.alert.raise", "watch.deliver", "watch.check", "audit.run"),
    "serve": _acts(
        "gateway.serve",
        "gateway.embed",
        "gateway.infer",
        "watch.serve",
        "watch.alert.raise",
        "watch.deliver",
        "watch.check",
        "audit.run",
        "console.serve",
        "release.read",
    ),
    "console serve": _acts("console.serve", "release.read"),
    "console token": _acts("console.token"),
    "trace open": _acts("trace.open"),
    "trace plan": _acts("trace.plan"),
    "trace run": _acts("trace.open", "trace.plan", "trace.examine"),
    "trace hunt": _acts("trace.hunt"),
    "trace cases": _acts("trace.read"),
    "trace show": _acts("trace.show"),
    "trace pack": _acts("trace.pack"),
    "trace report": _acts("trace.report"),
    "trace text": _FILES_ONLY,
    "trace text-root": _FILES_ONLY,
    "trace transparency": _acts("log.read"),
    "trace verify": _FILES_ONLY,
    "rules list": _FILES_ONLY,
    "rules lint": _FILES_ONLY,
    "rules test": _FILES_ONLY,
    "key new": _FILES_ONLY,
    "key show": _FILES_ONLY,
    "key list": _OWN_RECORD,
    "key rotate": _acts("key.rotate"),
    "seal create": _FILES_ONLY,
    "seal verify": _FILES_ONLY,
    "seal ls": _FILES_ONLY,
    "seal rekey": _FILES_ONLY,
    "seal reseal": _FILES_ONLY,
    "seal unseal-unsafe": _FILES_ONLY,
    "mark plan": _FILES_ONLY,
    "mark commit": _FILES_ONLY,
    "mark beacon": _FILES_ONLY,
    "mark apply": _FILES_ONLY,
    "mark detect": _FILES_ONLY,
    "mark lineage": _FILES_ONLY,
    "mark rehearse": _FILES_ONLY,
    "sign create": _FILES_ONLY,
    "sign verify": _FILES_ONLY,
    "sign intake": _FILES_ONLY,
    "sign provenance": _FILES_ONLY,
    "sign timestamp": _FILES_ONLY,
    "seal doctor": _FILES_ONLY,
    "seal shred": Acts(why_none="destroys keys that whoever runs it holds; of a workspace here it reads the log"),
    "access who": _OWN_RECORD,
    "access add": _acts("access.add", "access.register"),
    "access grant": _acts("access.grant"),
    "access suspend": _acts("access.suspend"),
    "access resume": _acts("access.resume"),
    "access revoke": _acts("access.revoke"),
    "access clear": _acts("access.clear"),
    "access rekey": _acts("access.rekey"),
    "access classify": _acts("access.classify"),
    "access restore": _acts("access.restore"),
    "access why": _acts("policy.read"),
    "access key issue": _acts("key.issue", "key.revoke"),
    "access key list": _OWN_RECORD,
    "access key register": _acts("key.register"),
    "access key revoke": _acts("key.revoke"),
    "access approve": _acts("policy.approve"),
    "access policy show": _acts("policy.read"),
    "access policy check": _acts("policy.read"),
    "access policy activate": _acts("policy.write"),
    "access policy rollback": _acts("policy.rollback"),
    "access break-glass": _acts("access.break-glass"),
    "access review": _acts("access.review"),
    "log anchor": _acts("log.anchor"),
    "log check": _FILES_ONLY,
    "log erase": _acts("log.erase"),
    "log export": _acts("log.export"),
    "log hold": _acts("log.hold", "log.lift"),
    "log query": _acts("log.read"),
    "log recover": _acts("log.recover"),
    "log verify": _OWN_RECORD,
    "log witness key": _FILES_ONLY,
    "log witness serve": _FILES_ONLY,
    "log show": _acts("log.read"),
    "log prove": _acts("log.read"),
}


def require_declared(command: str) -> None:
    """Refuse to start a command that does not say what it asks the policies for.

    Raises:
        StanchError: It does not: a bug of ours.
    """
    if command not in ACTIONS:
        raise StanchError(
            f"{command}: does not declare what it asks the policies for", next_step="add it to stanch/cli/actions.py"
        )
