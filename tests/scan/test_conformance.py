"""One suite for every engine: the same hits in blocks and streams, and the same findings of the shipped rules."""

import random
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stanch.errors import ExternalError, InvalidInput
from stanch.scan import Policy, Scanner, engine_hyperscan, gate, load_pack
from stanch.scan.engine import Pattern
from stanch.scan.engine_hyperscan import HyperscanEngine
from stanch.scan.engine_re2 import Re2Engine
from stanch.scan.examples import ExampleMaker
from stanch.scan.rules import anchor_pattern

ENGINES = [HyperscanEngine, Re2Engine]
PATTERNS = [
    Pattern("literal", b"abc", caseless=False),
    Pattern("width", b"[0-9]{3,5}", caseless=False),
    Pattern("caseless", b"ke?y", caseless=True),
    Pattern("choice", b"(?:ab|b[a-c]{1,2}|x)y?", caseless=False),
    Pattern("class", b"[A-Fx]_[^0-9a]", caseless=False),
    Pattern("caseless class", b"[k-z_]{2}\\.", caseless=True),
    Pattern("bytes", b"\\xc3[\\x80-\\xbf]", caseless=True),
    Pattern("long", b"(?:z[ -]?){20}", caseless=False),
    Pattern("lead", b"[0-9]{2}", caseless=False, lead=b"019_-"),
    Pattern("trail", b"[a-c]{1,2}", caseless=False, trail=b"abc0\xc3"),
    Pattern("both", b"ye?", caseless=True, lead=b"kKxX ", trail=b"eE."),
    Pattern("excluded", b"_[^a]", caseless=False, trail=b"0"),
    Pattern("digits", b"[0-9](?:[ .-]?[0-9]){3,5}", caseless=False, lead=b"_0", trail=b"019"),
    Pattern("run", b"[!-\\xff]{9,12}[a-z_]{2,3}[0-9]?[x-z]{1,2}[!-~]{3}", caseless=False, lead=b"aA"),
]
SHIPPED = [anchor_pattern(rule) for rule in load_pack()]
TEXT = st.text(alphabet="abcABCxyzkKeY019_-. éÀ", max_size=60).map(str.encode)


def reference(patterns, data):
    """Try every span with the expressions of the standard library."""
    import re  # noqa: PLC0415 - used here alone

    flags = {True: re.IGNORECASE | re.DOTALL, False: re.DOTALL}
    compiled = [(re.compile(p.expression, flags[p.caseless]), p.lead, p.trail) for p in patterns]
    ends = range(1, len(data) + 1)
    return [
        (end, index)
        for end in ends
        for index, (expression, lead, trail) in enumerate(compiled)
        if (end == len(data) or data[end] not in trail)
        and any(
            expression.fullmatch(data, start, end) and (start == 0 or data[start - 1] not in lead)
            for start in range(end)
        )
    ]


@pytest.fixture(scope="module", params=[*ENGINES, "gated"], ids=lambda engine: getattr(engine, "name", engine))
def engine(request):
    if request.param != "gated":
        yield request.param(PATTERNS, cached=False)
        return
    with pytest.MonkeyPatch.context() as patch:  # as if each block were large
        patch.setattr(engine_hyperscan, "_LARGE", 0)
        made = HyperscanEngine(PATTERNS, cached=False)
        assert set(made._parts[1]) == {gate.digits, gate.runs}
        yield made


@settings(max_examples=150, deadline=None)
@given(data=TEXT)
def test_all_ends_are_found_once_and_in_order(engine, data):
    assert engine.scan(data) == reference(PATTERNS, data)


@settings(max_examples=150, deadline=None)
@given(data=TEXT, seed=st.integers(0, 1 << 20))
@example(data=b"000000000_ax00Y", seed=0)
def test_a_stream_finds_what_a_block_holds(engine, data, seed):
    stream, rng, hits, at = engine.open_stream(), random.Random(seed), [], 0
    while at < len(data):
        size = rng.randint(0, 9)
        hits += stream.feed(data[at : at + size])
        at += size
    hits += stream.close()
    assert [end for end, _ in hits] == sorted(end for end, _ in hits)
    assert sorted(hits) == engine.scan(data)  # of one end, that which asks about the next byte may come later


def test_an_anchor_longer_than_any_chunk_is_found(engine):
    stream = engine.open_stream()
    hits = [hit for byte in b"z " * 20 for hit in stream.feed(bytes([byte]))]
    assert (39, 7) in hits


@pytest.mark.parametrize("make", ENGINES, ids=lambda engine: engine.name)
def test_no_patterns_no_hits(make):
    engine = make([], cached=False)
    stream = engine.open_stream()
    assert (engine.scan(b"abc"), stream.feed(b"abc"), engine.scan(b"")) == ([], [], [])
    stream.close()


@pytest.mark.parametrize("make", ENGINES, ids=lambda engine: engine.name)
def test_a_bad_pattern_is_named(make):
    with pytest.raises(InvalidInput, match="broken"):
        make([*PATTERNS, Pattern("broken", b"a(", caseless=False)], cached=False)


def test_re2_refuses_what_would_mean_something_else():
    with pytest.raises(InvalidInput, match="excluded"):
        Re2Engine([Pattern("excluded", b"[^a]b", caseless=True)], cached=False)


def test_re2_searches_on_when_its_set_gives_up(monkeypatch):
    engine = Re2Engine(PATTERNS, cached=False)
    expected = engine.scan(b"abc 12345 KEY")
    silent = type("Silent", (), {"Match": lambda *_: []})()
    monkeypatch.setattr(engine._sensitive, "_set", silent)
    monkeypatch.setattr(engine._caseless, "_set", silent)
    assert engine.scan(b"abc 12345 KEY") == expected


def shipped_texts():
    maker = ExampleMaker("conformance")
    examples = [maker.fill(example) for rule in load_pack() for example in (*rule.examples, *rule.counterexamples)]
    return [f"{one} – {two}" for one, two in zip(examples, [*examples[7:], *examples[:7]], strict=True)]


def test_both_engines_find_the_same_anchors_of_the_shipped_rules():
    block = "\x1e".join(shipped_texts()).encode()
    hits = HyperscanEngine(SHIPPED, cached=True).scan(block)
    assert hits == Re2Engine(SHIPPED, cached=True).scan(block)
    assert {index for _, index in hits} == set(range(len(SHIPPED)))


def test_scanners_find_and_redact_the_same_with_both_engines(scanner):
    other = Scanner(scanner.policy, engine="re2")
    assert (scanner.engine, other.engine) == ("hyperscan", "re2")
    rng = random.Random(5)
    for number, text in enumerate(shipped_texts()):
        whole = scanner.replace(text)
        assert whole == other.replace(text)
        if number % 8 == 0:
            cut = rng.randint(0, len(text))
            session = other.open_stream()
            assert "".join(s.text for s in (session.feed(text[:cut]), session.feed(text[cut:]), session.finish())) == (
                whole.text
            )


def test_without_hyperscan_re2_takes_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    monkeypatch.delitem(sys.modules, "stanch.scan.engine_hyperscan", raising=False)
    policy = Policy(kinds=frozenset({"email"}), literals=("the canary",))
    scanner = Scanner(policy)
    assert scanner.engine == "re2"
    assert scanner.redact("ana@correo.es").text == "<EMAIL>"
    with pytest.raises(ExternalError):
        Scanner(policy, engine="hyperscan")
