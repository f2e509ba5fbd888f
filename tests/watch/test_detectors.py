"""Detectors over events: what they find, and that nothing depends on how the entries are cut into steps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import START, request, window

from stanch.scan import SpanIndex
from stanch.watch import Containment, Measure, Severity, detectors
from stanch.watch.counts import HOUR, SavedArray
from stanch.watch.drift import drift_detector
from stanch.watch.esr import rate_detector
from stanch.watch.events import FEATURES, Event
from stanch.watch.firstseen import FirstSeenDetector
from stanch.watch.leak import FILL, FindingDetector, LeakCapDetector, LoneHitDetector
from stanch.watch.mmd import ExtractionDetector
from stanch.watch.probe import probe_detector

DAYS = 9


def play(detector, events, cuts=()):
    """Run a detector over events in steps that end at ``cuts``."""
    state, alarms = b"", []
    edges = [0, *sorted(set(cuts)), len(events)]
    for start, end in itertools.pairwise(edges):
        state, found = detector.step(state, events[start:end])
        alarms += found
    return state, alarms


def steady(hours, *, per_hour=8, principals=("a", "b"), seed=1, **outcome):
    """Return requests of a few principals, hour by hour."""
    generator, events = np.random.default_rng(seed), []
    for hour in range(hours):
        for principal in principals:
            for _ in range(generator.poisson(per_hour)):
                at = START + hour * HOUR + int(generator.integers(HOUR))
                events += request(len(events), at, principal, **({"released": 100, "verdict": "allow"} | outcome))
    return sorted(events, key=lambda event: event.time)


BACKGROUND = steady(DAYS * 24)


def test_a_rise_of_requests_is_found_and_named():
    late = START + DAYS * 24 * HOUR
    rise = [e for i in range(60) for e in request(10_000 + 2 * i, late + 60 * i, "a", prompt_tokens=100)]
    end = request(20_000, late + HOUR, "b")
    _, alarms = play(rate_detector(), [*BACKGROUND, *rise, *end])
    found = next(alarm for alarm in alarms if alarm.signal == "requests")
    assert (found.detector, found.principal, found.severity) == ("D2", "a", Severity.MEDIUM)
    assert (found.at, found.containment) == (late + HOUR, Containment.LOWER_BUDGET)
    assert found.statistic >= found.threshold == 1e5
    assert set(found.entries) <= set(range(10_000, 10_120))
    assert {alarm.principal for alarm in alarms} == {"a"}
    assert play(rate_detector(), BACKGROUND)[1] == []


def test_whoever_is_young_has_no_baseline():
    events = steady(60) + [e for i in range(500) for e in request(9000, START + 61 * HOUR, "a")]
    assert play(rate_detector(), [*events, *request(1, START + 63 * HOUR)])[1] == []


def test_bytes_read_and_refusals_of_insiders_are_counted():
    def act(i, hour, phase="outcome", egress=0):
        time = START + hour * HOUR + i
        return Event(index=i, time=time, kind="release.open", phase=phase, principal="insider", egress=egress)

    quiet = [act(0, hour) for hour in range(DAYS * 24)]
    copied = [act(i, DAYS * 24, egress=1 << 30) for i in range(5)]
    refused = [act(i, DAYS * 24, phase="denied") for i in range(40)]
    _, alarms = play(rate_detector(), [*quiet, *copied, *refused, act(0, DAYS * 24 + 1)])
    assert {alarm.signal for alarm in alarms} == {"MiB read", "refusals"}


def test_probing_prompts_are_counted_apart():
    late = START + DAYS * 24 * HOUR
    probes = [e for i in range(12) for e in request(10_000, late + i, "b", probe=True)]
    _, (alarm,) = play(probe_detector(), [*BACKGROUND, *probes, *request(1, late + HOUR)])
    assert (alarm.detector, alarm.principal, alarm.signal) == ("D6", "b", "probing prompts")


def test_a_model_that_grows_talkative_drifts():
    events = [e for h in range(DAYS * 24) for e in request(2 * h, START + h * HOUR, released=100 + 20 * (h % 5))]
    for h in range(DAYS * 24, DAYS * 24 + 120):
        events += request(2 * h, START + h * HOUR, released=400)
    _, alarms = play(drift_detector(), events)
    assert alarms[0].model == "sha256:m"
    assert alarms[0].principal is None
    assert {alarm.signal for alarm in alarms} == {"length"}
    change = START + DAYS * 24 * HOUR
    assert change <= alarms[0].window_start < alarms[0].at <= change + 30 * HOUR


@pytest.mark.parametrize(
    ("signal", "usual", "then"),
    [
        ("repetition", lambda h: {"runs": 200, "repeated": h % 5}, {"runs": 200, "repeated": 150}),
        ("log-probability", lambda h: {"entries": 100, "surprisal": 6000 + 500 * (h % 5)},
         {"entries": 100, "surprisal": 30_000}),
    ],
)  # fmt: skip
def test_a_model_that_repeats_itself_or_grows_unsure_drifts(signal, usual, then):
    """The hours between have answers that tell nothing of the signal: too short, or without log-probabilities."""
    events = []
    for h in range(2 * DAYS * 24 + 240):
        told = {} if h % 2 else then if h >= 2 * DAYS * 24 else usual(h)
        events += request(2 * h, START + h * HOUR, released=100 + 20 * (h % 5), **told)
    _, alarms = play(drift_detector(), events)
    assert {alarm.signal for alarm in alarms} == {signal}
    assert alarms[0].window_start >= START + 2 * DAYS * 24 * HOUR


def test_what_an_earlier_release_remembers_of_drift_is_read_on(monkeypatch):
    """It had two signals and three columns: both go on from where they were, in the middle of an hour too."""
    events = [e for h in range(DAYS * 24) for e in request(2 * h, START + h * HOUR, released=100 + 20 * (h % 5))]
    whole, _ = play(drift_detector(), events)
    with monkeypatch.context() as earlier:
        earlier.setattr("stanch.watch.drift.SIGNALS", ("length", "filtered share"))
        earlier.setattr("stanch.watch.drift.COLUMNS", 3)
        state, _ = play(drift_detector(), events[:-10])
    after, _ = drift_detector().step(state, events[-10:])
    assert after == whole
    for h in range(DAYS * 24, DAYS * 24 + 120):
        events += request(2 * h, START + h * HOUR, released=400)
    _, alarms = drift_detector().step(after, events[2 * DAYS * 24 :])
    assert {alarm.signal for alarm in alarms} == {"length"}


def test_a_new_network_at_night_is_reported_among_many():
    def day(number, events):
        for principal in range(40):
            for hour in (9, 10, 14):
                at = START + number * 24 * HOUR + hour * HOUR
                events += [request(len(events), at + i, f"p{principal}")[0] for i in range(8)]

    events = []
    for number in range(62):
        day(number, events)
    intruder = request(77_000, START + 62 * 24 * HOUR + 3 * HOUR, "p7", network="203.0.113.0/24")
    day(62, intruder)
    _, (alarm,) = play(FirstSeenDetector(), [*events, *intruder, *request(0, START + 63 * 24 * HOUR)])
    assert (alarm.principal, alarm.severity) == ("p7", Severity.LOW)
    assert alarm.signal in {"network", "hours"}
    assert 77_000 in alarm.entries


def test_findings_alarm_at_once_and_canaries_are_critical():
    findings = {"canary": 1, "training-text": 2, "aws-key": 1}
    events = request(4, START + 70, findings=findings, verdict="block")
    state, alarms = FindingDetector().step(b"", events)
    assert state == b""
    assert [(a.signal, a.severity) for a in alarms] == [
        ("canary", Severity.CRITICAL), ("training-text", Severity.HIGH), ("secret", Severity.HIGH),
    ]  # fmt: skip
    assert {(a.entries, a.at, a.window_start) for a in alarms} == {((5,), START + 70, START)}
    # Personal values that were redacted are the guard's daily work.
    assert FindingDetector().step(b"", request(4, START, findings={"email": 9}, verdict="redact"))[1] == []


def test_the_leak_cap_speaks_at_half_at_four_fifths_and_at_the_end():
    events = [e for i in range(30) for e in request(2 * i, START + i, drawn=1)]
    _, alarms = play(LeakCapDetector(cap=20), events)
    assert [(a.statistic, a.threshold) for a in alarms] == [(10, 10), (16, 16), (20, 20)]
    _, (alarm,) = play(LeakCapDetector(cap=20), request(0, START, drawn=50))
    assert alarm.signal == "leak cap"


def lone_hits(hour, count, *, expected=2.7, principal="a", same=False):
    """Return the events of an answer with so many lone windows, new ones or always the same."""
    found = tuple(f"{0 if same else hour}-{n}" for n in range(count))
    told = {"lone": count, "lone_windows": found, "lone_expected": int(expected * 1e6), "folded_chars": 4000}
    return request(2 * hour, START + hour * HOUR, principal, **told)


def test_chance_hits_of_an_index_as_it_is_built_raise_no_alarm(monkeypatch):
    """The chance is that of the index, which the outcome tells; 100 hours of 40 principals promise 0.04 alarms."""
    generator = np.random.default_rng(4)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
    texts, chances = ["".join(generator.choice(letters, 400)) for _ in range(400)], []
    for salt in range(8):  # a salt of its own fills a small index by a tenth more or less
        monkeypatch.setattr("stanch.scan.spans.index.random_bytes", lambda size, salt=salt: bytes([salt]) * size)
        chances.append(SpanIndex.build(texts, key=bytes(32)).header.fill_fp)
    chance = float(np.mean(chances))
    # A small index is a little fuller than a large one; what D1 promises leaves more than that.
    assert 0.8 * FILL < chance <= 1.02 * FILL, "D1 promises for the rate of an index as it is built"
    events = [
        event
        for hour in range(100)
        for who in range(40)
        for event in lone_hits(
            hour, int(generator.poisson(20_000 * chance)), expected=20_000 * chance, principal=f"p{who}"
        )
    ]
    assert play(LoneHitDetector(), events)[1] == []


def test_an_answer_that_comes_again_is_no_new_evidence():
    assert play(LoneHitDetector(), [e for i in range(200) for e in lone_hits(i, 3, expected=0.26, same=True)])[1] == []
    assert len(play(LoneHitDetector(), [e for i in range(20) for e in lone_hits(i, 3, expected=0.26)])[1]) >= 3
    # What an earlier release wrote tells neither chance nor windows: each hit counts, by the chance of today's index.
    old = [e for i in range(9) for e in request(2 * i, START + i * HOUR, lone=9, folded_chars=400)]
    assert play(LoneHitDetector(), old)[1]
    quiet = [e for i in range(99) for e in request(2 * i, START + i * HOUR, lone=6, folded_chars=10_000)]
    assert play(LoneHitDetector(), quiet)[1] == []


def test_short_answers_that_draw_text_are_found_by_lone_hits():
    quiet = [e for i in range(100) for e in lone_hits(i, 3)]
    assert play(LoneHitDetector(), quiet)[1] == []
    drawn = [e for i in range(100, 103) for e in lone_hits(i, 14)]
    _, (alarm,) = play(LoneHitDetector(), [*quiet, *drawn, *request(0, START + 110 * HOUR)])
    assert (alarm.signal, alarm.severity, alarm.containment) == (
        "lone index hits", Severity.HIGH, Containment.LOWER_BUDGET,
    )  # fmt: skip


def windows(count, *, attack):
    generator = np.random.default_rng(5)
    found = []
    for number in range(count):
        for principal in range(60):
            mean = generator.normal(0, 0.004, FEATURES) + (principal % 7) / 100
            found.append(window(len(found), START + number * 24 * HOUR, mean, f"p{principal}"))
    return [*found, window(len(found), START + count * 24 * HOUR, np.full(FEATURES, attack), "p3")]


def test_queries_from_elsewhere_are_found_once_enough_windows_calibrate():
    (alarm,) = [a for a in play(ExtractionDetector(), windows(40, attack=0.06))[1] if a.principal == "p3"]
    assert alarm.statistic > alarm.threshold
    assert play(ExtractionDetector(), windows(20, attack=0.06))[1] == []  # calibrating
    assert play(ExtractionDetector(), [window(0, START, np.zeros(FEATURES), count=99)]) == (b"", [])


ALL = detectors()
NAMES = [detector.name for detector in ALL]
MIXED = sorted(
    [
        *steady(
            4 * 24,
            per_hour=2,
            seed=2,
            lone=1,
            lone_windows=("w",),
            lone_expected=900_000,
            folded_chars=3000,
            drawn=2,
            findings={"canary": 1},
        ),
        *(window(0, START + i * HOUR, np.full(FEATURES, i / 100)) for i in range(40)),
        *(e for i in range(40) for e in request(3, START + 90 * HOUR + i, "a", probe=True)),
        *request(3, START + 200 * HOUR, "c"),
    ],
    key=lambda event: event.time,
)


@pytest.mark.parametrize("detector", ALL, ids=NAMES)
@settings(max_examples=5)
@given(cuts=st.lists(st.integers(0, len(MIXED)), max_size=6))
def test_however_the_entries_are_cut_the_alarms_and_the_state_are_the_same(detector, cuts):
    assert play(detector, MIXED, cuts) == play(detector, MIXED)


def test_cutting_at_every_alarm_and_hour_changes_nothing():
    events = [*BACKGROUND, *(e for i in range(60) for e in request(5, START + DAYS * 24 * HOUR + i, "a"))]
    events += request(5, START + (DAYS * 24 + 1) * HOUR)
    detector = rate_detector()
    whole = play(detector, events)
    assert whole[1]
    hours = [at for at in range(1, len(events)) if events[at].time // HOUR != events[at - 1].time // HOUR]
    assert play(detector, events, hours) == whole


def test_an_entry_older_than_the_open_hour_counts_in_it():
    late = [*request(0, START + 5 * HOUR), *request(2, START + 2 * HOUR), *request(4, START + 6 * HOUR)]
    assert play(rate_detector(), late) == play(rate_detector(), late, cuts=(1, 2, 3, 4))


def test_years_of_silence_are_no_flood_of_hours():
    events = [*BACKGROUND, *request(0, START + 10**5 * 24 * HOUR)]
    assert play(rate_detector(), events)[1] == []


def test_every_detector_says_what_it_promises():
    assert len(set(NAMES)) == len(NAMES)
    for detector in ALL:
        assert detector.signals
        assert detector.promise.needs
        assert (detector.promise.value > 0) or detector.promise.measure is Measure.EXACT
    assert rate_detector().promise.most == 1e-5


@pytest.mark.parametrize(
    "array", [np.zeros((3, 400), "<f4"), np.full((2, 2), np.nan), np.arange(5.0), np.empty((0, 7))]
)
def test_an_array_comes_back_from_a_saved_state(array):
    saved = SavedArray.of(array)
    assert len(saved.data) <= array.nbytes
    found = saved.load()
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert found.flags.owndata, "whoever loads it makes it longer in place"


@given(count=st.integers(0, 40), fill=st.floats(0, 2))
def test_plain_and_compressed_bytes_are_told_apart(count, fill):
    array = np.random.default_rng(count).integers(0, 3, count) * fill
    assert SavedArray.of(array).load().tobytes() == array.tobytes()


def test_a_state_of_an_earlier_release_holds_plain_bytes():
    array = np.zeros((3, 400), "<f4")
    assert (SavedArray(array.dtype.str, array.shape, array.tobytes()).load() == array).all()
