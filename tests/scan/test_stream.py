"""The streaming contract: stream = whole for every split, bounded hold, swallowing, fail closed."""

import os
import random
import subprocess
import sys

import pytest
from hostile_text import make_text, split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.scan import Location, Policy, Scanner, StreamClosedError, load_pack
from stanch.scan.examples import ExampleMaker
from stanch.scan.rules import RuleLane

SPLITS = int(os.environ.get("STANCH_SPLITS", "20000"))
"""Ways of cutting that are tried; `make nightly` tries a million."""

SPLITS_A_TEXT = 40


def drain(scanner: Scanner, chunks) -> tuple[str, list]:
    session = scanner.open_stream()
    released = [session.feed(chunk) for chunk in chunks] + [session.finish()]
    assert released[-1].held_chars == 0
    findings = [finding for step in released for finding in step.findings]
    return "".join(step.text for step in released), sorted(findings, key=lambda f: (f.start, f.end, f.kind))


def test_stream_equals_whole_for_every_split(full_scanner):
    rng = random.Random(11)
    for seed in range(SPLITS // SPLITS_A_TEXT):
        text = make_text(seed, 2)
        whole = full_scanner.replace(text)
        expected = (whole.text, list(whole.findings))
        for _ in range(SPLITS_A_TEXT):
            chunks = split(text, rng)
            assert drain(full_scanner, chunks) == expected, f"seed {seed}, chunks of {[len(part) for part in chunks]}"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_stream_equals_whole_for_long_texts(full_scanner, seed):
    text, rng = make_text(seed), random.Random(seed + 1)
    whole = full_scanner.replace(text)
    for chunks in (list(text), split(text, rng), split(text, rng)):
        assert drain(full_scanner, chunks) == (whole.text, list(whole.findings))


@pytest.mark.parametrize("rule", load_pack(), ids=lambda rule: rule.id)
def test_every_cut_of_every_example(scanner, rule):
    for number, template in enumerate(rule.examples):
        text = f"so, {ExampleMaker(str(number)).fill(template)} and more"
        whole = scanner.replace(text)
        for cut in range(len(text) + 1):
            assert drain(scanner, (text[:cut], text[cut:])) == (whole.text, list(whole.findings))


def reach() -> int:
    return max(rule.before + rule.after for rule in load_pack())


@settings(max_examples=10, deadline=None, derandomize=True)
@given(text=st.text(alphabet="aZ09@.:/-_+=# \n'eyJ", min_size=200, max_size=1500))
def test_held_text_is_bounded_by_the_reach_of_the_rules(scanner, text):
    session = scanner.open_stream()
    assert max(session.feed(char).held_chars for char in text) <= reach()


def test_held_text_is_bounded_when_invisible_characters_pile_up(full_scanner):
    session = full_scanner.open_stream()
    for chunk in ["AKI", *["\u200b" * 1000] * 100, "p", *["-" * 1000] * 100]:
        assert session.feed(chunk).held_chars <= 1000 + 300 * 4


def test_clean_prose_is_held_for_the_current_word_only(scanner):
    prose = "the refund for the second invoice was sent to the bank on monday and should arrive soon. " * 40
    session = scanner.open_stream()
    held = [session.feed(prose[at : at + 5]).held_chars for at in range(0, len(prose), 5)]
    assert sum(held) / len(held) <= 10


def test_literal_kinds_hold_nothing_of_prose_without_their_letters():
    scanner = Scanner(Policy(kinds=frozenset({"github-token"})))
    session = scanner.open_stream()
    assert all(session.feed(chunk).held_chars == 0 for chunk in ("no to", "kens i", "n here", " at all"))


@pytest.mark.parametrize("end", ["\n-----END RSA PRIVATE KEY-----", "", "\n-----END EC PRIVATE KEY-----", "\n-----EN"])
def test_a_long_key_is_swallowed_while_it_arrives(scanner, end):
    body = ExampleMaker("pem").fill("{b64:64}\n" * 400)
    text = f"see\n-----BEGIN RSA PRIVATE KEY-----\n{body}{end}. Then we left."
    session = scanner.open_stream()
    steps = [session.feed(text[at : at + 7]) for at in range(0, len(text), 7)]
    assert max(step.held_chars for step in steps) <= reach()
    output = "".join(step.text for step in steps) + session.finish().text
    assert output == scanner.replace(text).text
    assert output.startswith("see\n<PRIVATE-KEY>")
    assert not any(body[at : at + 16] in output for at in range(0, len(body) - 16, 8))


def test_a_session_ends(scanner):
    session = scanner.open_stream()
    session.finish()
    with pytest.raises(StreamClosedError):
        session.feed("more")
    with pytest.raises(StreamClosedError):
        session.finish()


def test_an_internal_error_releases_nothing_more(scanner, monkeypatch):
    session = scanner.open_stream()
    session.feed("write to ana.di")
    with monkeypatch.context() as patch:
        patch.setattr(RuleLane, "feed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.feed("az@correo.es")
    with pytest.raises(StreamClosedError):
        session.finish()


def test_a_field_name_counts_in_streams_as_in_whole_texts(scanner):
    location = Location("r1", "customer.phone")
    session = scanner.open_stream(location=location)
    steps = [session.feed("415555"), session.feed("0132 "), session.finish()]
    found = [finding for step in steps for finding in step.findings]
    assert found == list(scanner.scan("4155550132 ", location=location).findings)
    assert [finding.kind for finding in found] == ["phone"]
    assert not scanner.scan("4155550132 ").findings


def test_released_shows_no_text(scanner):
    assert "secret" not in repr(scanner.open_stream().feed("a secret text here "))


def test_many_streams_do_not_crash_the_interpreter():
    script = """
import resource, sys
from stanch.scan import Policy, Scanner
scanner = Scanner(Policy(kinds=frozenset({"github-token", "email"})))
open_ones = []
for number in range(100_000):
    session = scanner.open_stream()
    session.feed("mail bob@corr")
    if number % 3 == 0:
        open_ones.append(session)
    elif number % 3 == 1:
        session.finish()
    if len(open_ones) > 50:
        open_ones.clear()
    if number == 2_000:
        warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
del scanner
assert open_ones[0].finish().text == "bob@corr"
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
sys.stdout.write(f"alive {grown < 20_000}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive True", "")
