"""A busy workspace: many principals, a long history of mixed acts, alerts, incidents and releases. Seeded."""

import json
import shutil
from collections import deque

import life
import numpy as np
from seating import alarm

from stanch.gateway import budgets
from stanch.ledger import Act, Credential, denied, intent, new_act_id, outcome
from stanch.store.schema.access import api_key, grant, principal
from stanch.store.schema.gateway import budget_use, budget_window
from stanch.terms import ArtifactRef, Digest
from stanch.watch.alert import AlertState
from stanch.workspace.verbs_alerts import Change, find_alerts, move_alert, raise_alarms
from stanch.workspace.verbs_incident import open_incident

DAY_MS = 86_400_000
WAITING = 4096
ALPHABET = list("abcdefghijklmnopqrstuvwxyz234567")
MODELS = [ArtifactRef("model", f"m{number}", Digest.sha256(b"m%d" % number)) for number in range(36)]
DATA = [ArtifactRef("dataset", f"d{number}", Digest.sha256(b"d%d" % number)) for number in range(12)]
OTHERS = ("data.scan", "data.query", "tune.run", "audit.run", "log.read", "watch.alert.read", "release.read")
"""What is done beside requests to models, each as often as the others."""


def names_of(count, seed=1):
    """Return pseudonymous ids."""
    letters = np.random.default_rng(seed).choice(ALPHABET, (count, 26))
    return ["p_" + "".join(row) for row in letters]


def add_crowd(tables, names, now_ms):
    """Register principals, each with a role, every tenth a service with a key, and what they used today."""
    model = str(MODELS[0].digest)
    people = [
        (name, "service" if at % 10 == 0 else "user", "https://login.example", f"s{name}", f"person {at}", 0, 0, now_ms)
        for at, name in enumerate(names)
    ]
    held = [
        (f"g_{name[2:18]}", name, "consumer", "workspace", now_ms - DAY_MS, now_ms + 90 * DAY_MS, None, names[0], None)
        for name in names
    ]
    keys = [
        (name[2:18], name, bytes(32), 1, json.dumps([model]), '["10.0.0.0/8"]', '["model:infer"]', now_ms,
         now_ms + 90 * DAY_MS, None, names[0])
        for name in names[::10]
    ]  # fmt: skip
    used = [
        (name, model, *row)
        for at, name in enumerate(names)
        for row in budgets.rows(budgets.Amounts(requests=1 + at % 7, tokens=1000 + at), now_ms)
        if row[2] and budgets.Limits().of(row[0]) is not None
    ]
    drawn = [(name, model, "protected-windows", f"{at:032x}") for name in names[::4] for at in range(8)]
    with tables.write() as connection:
        for table, rows in (
            (principal, people), (grant, held), (api_key, keys), (budget_use, used), (budget_window, drawn)
        ):  # fmt: skip
            tables.insert(connection, table, rows)


def make_history(names, count, since_ms, until_ms, *, requests=0.7, seed=2):
    """Yield so many entries: a share of requests to models; of the other acts some are refused and some fail."""
    generator = np.random.default_rng(seed)
    for number in range(count // 2):
        yield from _act(generator, names, requests, since_ms + (until_ms - since_ms) * 2 * number // count)


def append(ledger, entries):
    """Append entries, many at a time, and wait until all are durable."""
    waiting = deque()
    for entry in entries:
        if len(waiting) == WAITING:
            waiting.popleft().result()
        waiting.append(ledger.append_nowait(entry))
    while waiting:
        waiting.popleft().result()


def _act(generator, names, requests, time_ms):
    kind = "gateway.infer" if generator.random() < requests else OTHERS[generator.integers(len(OTHERS))]
    about = {"gateway.infer": MODELS, "tune.run": MODELS, "audit.run": MODELS, "data.scan": DATA}.get(kind, ())
    subject = (about[generator.integers(len(about))],) if about else ()
    act = Act(
        kind=kind, id=new_act_id(time_ms), principal=names[generator.integers(len(names))], subject=subject,
        credential=Credential(kind="api-key", key_id=f"k{generator.integers(500)}"), decision=("role-consumer",),
    )  # fmt: skip
    fate = 1 if kind == "gateway.infer" else generator.random()
    if fate < 0.06:
        return [denied(act, time_ms=time_ms)] * 2
    asked, told = {}, {}
    if kind == "gateway.infer":
        asked = {"dialect": "chat", "network": f"10.0.{generator.integers(4)}.0/24", "probe": {"quotes": False}}
        told = {"verdict": "allow", "released": 400, "prompt_tokens": 90, "completion_tokens": 100, "folded_chars": 390}
    result = "failed" if fate < 0.14 else "done"
    return [
        intent(act, time_ms=time_ms, payload=asked), outcome(act, time_ms=time_ms + 900, result=result, payload=told)
    ]  # fmt: skip


def add_findings(case, names, alerts, incidents):
    """Raise alerts of all detectors, let some of them be taken on, and open incidents."""
    with case.acting("olga") as workspace:
        detectors = ("D1", "D2", "D3", "D4", "D5", "D6", "D7")
        many = [
            alarm(100 + at, detector=detectors[at % 7], principal=names[at % len(names)], entries=tuple(range(at % 30)))
            for at in range(alerts)
        ]
        for start in range(0, alerts, 64):
            raise_alarms(workspace, many[start : start + 64])
        lead = workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))
        found, now_ms = find_alerts(lead), int(lead.door.clock() * 1000)
        for one in found[: alerts // 10]:
            move_alert(lead, one.id, Change(AlertState.ACKNOWLEDGED))
        for at in range(incidents):
            open_incident(lead, now_ms - (1 + at) * 3_600_000, [one.id for one in found[3 * at : 3 * at + 3]])


def add_releases(case, count):
    """Keep the release ``r1`` under more names, as releases of other models, which passed the gate."""
    with case.acting("olga") as workspace:
        folder = workspace.state / "releases"
        for at in range(count):
            model, target = MODELS[at % len(MODELS)], folder / f"s{at}"
            shutil.copytree(folder / "r1", target)
            facts = json.loads((target / "release.json").read_bytes())
            facts |= {"name": f"s{at}", "digest": str(model.digest)}
            (target / "release.json").write_text(json.dumps(facts))
        for model in MODELS:
            workspace.people.set_gate(model, "passed")
