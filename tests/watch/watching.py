"""Entries and events for the tests of the watch."""

import base64

import numpy as np
from sqlalchemy import func, select

from stanch.ledger import Act, Credential, denied, intent, noted, outcome
from stanch.store.schema.alerts import outbox
from stanch.terms import ArtifactRef, Digest
from stanch.watch.events import Event, Intent, Outcome, Probe, Window

START = 1_767_225_600 // 86_400 * 86_400
MODEL = ArtifactRef("model", "m", Digest.sha256(b"m"))


def who(number):
    return "p_" + "abcdefghij"[number] * 26


def uuid(number):
    return f"01900000-0000-7000-8000-{number:012x}"


def infer_entries(number, time, payload_in=None, payload_out=None, *, principal=None):
    act = Act(
        kind="gateway.infer", id=uuid(number), principal=principal or who(2), subject=(MODEL,),
        credential=Credential(kind="apikey", key_id="k1"),
    )  # fmt: skip
    ms = time * 1000
    return [
        intent(act, time_ms=ms, payload=payload_in or {"dialect": "chat", "network": "10.0.0.0/24"}),
        outcome(act, time_ms=ms, payload=payload_out or {"verdict": "allow", "released": 10}),
    ]


def refusal(number, time, *, principal=None):
    act = Act(kind="gateway.infer", id=uuid(number), principal=principal or who(2), subject=(MODEL,))
    return denied(act, time_ms=time * 1000)


def window_entry(number, time, mean, *, principal=None):
    act = Act(kind="gateway.window", id=uuid(number), principal=who(9))
    text = base64.b64encode(np.asarray(mean, "<f4").tobytes()).decode()
    payload = {"principal": principal or who(2), "model": str(MODEL.digest), "count": 200, "mean": text}
    return noted(act, time_ms=time * 1000, payload=payload)


def request(index, time, principal="a", *, probe=False, network="n", **outcome_fields):
    """Return the events of one request: intent and outcome."""
    common = {"time": time, "kind": "gateway.infer", "principal": principal, "model": "sha256:m", "key": "k"}
    asked = Intent(dialect="chat", network=network, probe=Probe(quotes=probe))
    return [
        Event(index=index, phase="intent", detail=asked, **common),
        Event(index=index + 1, phase="outcome", detail=Outcome(**outcome_fields), **common),
    ]


def window(index, time, mean, principal="a", count=200):
    text = base64.b64encode(np.asarray(mean, "<f4").tobytes()).decode()
    detail = Window(principal=principal, model="sha256:m", count=count, mean=text)
    return Event(index=index, time=time, kind="gateway.window", phase="note", principal="gw", detail=detail)


def count_outbox(connection):
    """Return how many deliveries there are by sink and state."""
    place = (outbox.c.sink, outbox.c.state)
    return {tuple(row): count for *row, count in connection.execute(select(*place, func.count()).group_by(*place))}
