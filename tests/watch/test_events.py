"""Entries as the ledger keeps them, read strictly."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from watching import MODEL, START, infer_entries, refusal, who, window_entry

from stanch.errors import InvalidInput
from stanch.ledger import Act, intent, new_act_id, outcome
from stanch.watch.events import FEATURES, Intent, Outcome, Window, read_entries, read_entry

ORIGIN = "example.com/log"


def read(entry, index=7):
    return read_entry(index, entry.encode(ORIGIN))


def test_a_request_is_read_with_its_flags_and_amounts():
    payload = {"dialect": "chat", "network": "10.0.0.0/24", "probe": {"quotes": True, "repeats": False}, "new": 1}
    done = {"verdict": "block", "findings": {"canary": 2}, "released": 5, "lone": 3, "folded_chars": 900, "drawn": 1}
    asked, answered = (read(entry) for entry in infer_entries(1, START, payload, done))
    assert isinstance(asked.detail, Intent)
    assert (asked.index, asked.time, asked.model, asked.key) == (7, START, str(MODEL.digest), "k1")
    assert (asked.principal, asked.detail.network, asked.detail.probe.is_set) == (who(2), "10.0.0.0/24", True)
    assert isinstance(answered.detail, Outcome)
    assert (answered.detail.findings, answered.detail.lone, answered.detail.drawn) == ({"canary": 2}, 3, 1)
    assert read(refusal(1, START)).detail == Outcome()


def test_acts_of_the_workspace_carry_what_was_handed_out():
    act = Act(kind="release.deliver", id=new_act_id(START * 1000), principal=who(3), subject=(MODEL,))
    assert read(intent(act, time_ms=START * 1000)).detail is None
    event = read(outcome(act, time_ms=START * 1000 + 999, egress_bytes=1 << 30))
    assert (event.egress, event.time, event.subjects) == (1 << 30, START, (str(MODEL.digest),))


def test_a_window_is_read_as_its_vector():
    mean = np.linspace(-1, 1, FEATURES).astype("<f4")
    event = read(window_entry(1, START, mean))
    assert isinstance(event.detail, Window)
    assert (event.detail.vector() == mean).all()


@pytest.mark.parametrize("mean", [np.zeros(FEATURES - 1), np.full(FEATURES, np.nan), np.full(FEATURES, np.inf)])
def test_a_window_of_another_form_is_refused(mean):
    detail = read(window_entry(1, START, mean)).detail
    with pytest.raises(InvalidInput, match=r"gateway\.window"):
        detail.vector()


@pytest.mark.parametrize(
    "payload",
    [
        {"lone": -1},
        {"findings": {"canary": "2"}},
        {"findings": []},
        {"verdict": 3},
        {"drawn": "x"},
    ],
)
def test_a_payload_of_another_form_is_refused_by_its_index(payload):
    entry = infer_entries(1, START, None, payload)[1]
    with pytest.raises(InvalidInput, match="entry 7"):
        read(entry)


@settings(max_examples=60)
@given(st.binary(max_size=300))
@example(b'{"x":' + b"[" * 9000)
def test_bytes_that_are_no_entry_are_refused(data):
    with pytest.raises(InvalidInput):
        list(read_entries([(0, data)]))


@settings(max_examples=60)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read(place, value):
    data = bytearray(infer_entries(1, START)[1].encode(ORIGIN))
    data[place % len(data)] = value
    try:
        read_entry(0, bytes(data))
    except InvalidInput:
        return
