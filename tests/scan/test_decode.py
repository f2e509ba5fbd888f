"""Decoded views: what an encoded run says is found, whole and in a stream, for every way of cutting."""

import base64
import json
import random
import time
from urllib.parse import quote

import pytest
from hostile_text import make_text, split
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan import Dictionary, Operator, Policy, Scanner
from stanch.scan.decode import ENCODINGS, LONGEST_HELD, decoded_views
from stanch.scan.found import Found
from stanch.scan.policy_bytes import PolicySecrets, policy_from_bytes, policy_to_bytes
from stanch.scan.policy_file import parse_policy
from stanch.terms import Severity

LITERAL = "the canary sings 4417-0093"
TERM = "Project Nightjar"
MAIL = "ana.diaz@correo.es"


def as_json(text: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H"))


ENCODERS = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "url": lambda text: "https://example.org/find?q=" + quote(text, safe=""),
    "json": as_json,
    "short json": lambda text: json.dumps(json.dumps({"said": text}))[1:-1].replace(" ", "\\u0020"),
}


@pytest.fixture(scope="module")
def literal_scanner():
    """Literals and a dictionary alone, for which streams and whole texts agree."""
    terms = Dictionary.build([TERM], key=bytes(range(32)), label="project")
    policy = Policy(recognisers=(), literals=(LITERAL,), dictionaries=(terms,), decode_depth=1, report_key=bytes(32))
    return Scanner(policy)


@pytest.fixture(scope="module")
def deep_scanner():
    return Scanner(Policy(literals=(LITERAL,), decode_depth=1, report_key=bytes(32)))


def drain(scanner, chunks):
    session = scanner.open_stream()
    steps = [session.feed(chunk) for chunk in chunks] + [session.finish()]
    assert steps[-1].held_chars == 0
    findings = [finding for step in steps for finding in step.findings]
    return "".join(step.text for step in steps), sorted(findings, key=lambda f: (f.start, f.end, f.kind))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("secret", [LITERAL, TERM, LITERAL.upper(), "élan " + LITERAL])
def test_an_encoded_text_is_found_and_its_span_replaced(literal_scanner, encode, secret):
    encoded = encode(f"so it says: {secret}, and that is all there is")
    text = f"see “{encoded}” and more"
    done = literal_scanner.replace(text)
    assert done.findings
    start, end = text.index(encoded), text.index(encoded) + len(encoded)
    for finding in done.findings:
        assert start <= finding.start < finding.end <= end
        assert finding.kind in {"canary", "project"}
    # What is left of the run does not say it any more.
    assert not literal_scanner.scan(done.text).findings
    assert done.text.startswith("see “")
    assert done.text.endswith("” and more")
    assert drain(literal_scanner, list(text)) == (done.text, list(done.findings))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_rules_search_decoded_texts_of_whole_mode(deep_scanner, encode):
    text = f"see {encode(f'please write to {MAIL} before noon')} now"
    found = deep_scanner.scan(text).findings
    assert "email" in {finding.kind for finding in found}
    assert not any(MAIL in text[f.start : f.end] for f in found if f.kind == "email" and "%" in text)
    assert MAIL not in deep_scanner.redact(text).text


def test_percent_and_json_report_the_encoded_value_only(deep_scanner):
    text = "go to https://example.org/a/long/path?mail=ana.diaz%40correo.es&more=1 now"
    (found,) = (f for f in deep_scanner.scan(text).findings if f.kind == "email")
    assert text[found.start : found.end] == "ana.diaz%40correo.es"
    text = r"said:{\"mail\":\"ana.diaz\u0040correo.es\",\"more\":1} now"
    (found,) = (f for f in deep_scanner.scan(text).findings if f.kind == "email")
    assert text[found.start : found.end] == r"ana.diaz\u0040correo.es"


def test_what_stands_unencoded_beside_an_escape_is_found_once(deep_scanner):
    text = "go to https://example.org/a%20long/path?mail=ana.diaz@correo.es&more=1 now"
    assert [text[f.start : f.end] for f in deep_scanner.scan(text).findings if f.kind == "email"] == [MAIL]


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_depth_0_and_short_runs_find_nothing(encode):
    flat = Scanner(Policy(recognisers=(), literals=("canary 4417",)))
    deep = Scanner(Policy(recognisers=(), literals=("canary 4417",), decode_depth=1))
    encoded = encode("the canary 4417 is here")
    if "4417" not in encoded:
        assert not flat.scan(encoded).findings
    assert deep.scan(encoded).findings
    short = base64.b64encode(b"canary 4417").decode()
    assert len(short) < 24
    assert not deep.scan(short).findings


def test_it_is_decoded_once(deep_scanner):
    once = base64.b64encode(LITERAL.encode())
    assert deep_scanner.scan(once.decode()).findings
    assert not deep_scanner.scan(base64.b64encode(once).decode()).findings


def test_half_a_surrogate_pair_and_bytes_that_are_no_text(deep_scanner):
    for run in ("\\ud83d" * 8, "\\ud83d\\ude00" * 4, "%ff" * 12, "ff" * 16, "/" * 40, "\\u" * 20, "%" * 30):
        assert deep_scanner.scan(run).findings == ()
        assert drain(deep_scanner, list(run))[0] == run


def test_operators_get_no_encoded_value():
    encoded = base64.b64encode(f"please write to {MAIL} before noon".encode()).decode().rstrip("=")
    for operator, expected in ((Operator.PSEUDONYM, "<EMAIL>"), (Operator.FAKE, "<EMAIL>"), (Operator.MASK, "****")):
        policy = Policy(
            kinds=frozenset({"email"}), decode_depth=1, operators={"email": operator}, pseudonym_key=bytes(range(32))
        )
        assert Scanner(policy).replace(f"see {encoded} now").text == f"see {expected} now"


def encoded_texts():
    """Texts of prose, runs, pieces of runs and hostile texts; no run is longer than a stream holds."""
    pieces = st.one_of(
        st.sampled_from([" ", "\n", "é", "“", "\u200b", "%", "\\", "=", "the ", "😀", "\x1e"]),
        st.builds(
            lambda encode, secret, pad: encode("x" * pad + secret + "y" * pad),
            st.sampled_from([*ENCODERS.values()]),
            st.sampled_from([LITERAL, TERM, "nothing at all is here"]),
            st.integers(0, 9),
        ),
        st.builds(make_text, st.integers(0, 2**32), st.just(1)),
    )
    return st.lists(pieces, min_size=1, max_size=5).map("".join)


@settings(max_examples=50, deadline=None)
@given(text=encoded_texts(), seed=st.integers(0, 2**32))
def test_stream_equals_whole_for_every_split(literal_scanner, text, seed):
    rng = random.Random(seed)
    whole = literal_scanner.replace(text)
    for chunks in (split(text, rng), split(text, rng), list(text)):
        if all(len(run) <= LONGEST_HELD for e in ENCODINGS for run in e.long_run.findall(text)):
            assert drain(literal_scanner, chunks) == (whole.text, list(whole.findings))
        assert drain(literal_scanner, chunks) == drain(literal_scanner, [text])


@settings(max_examples=20, deadline=None)
@given(text=encoded_texts(), seed=st.integers(0, 2**32))
def test_a_stream_with_rules_does_not_depend_on_the_cuts(deep_scanner, text, seed):
    rng = random.Random(seed)
    assert drain(deep_scanner, split(text, rng)) == drain(deep_scanner, list(text)) == drain(deep_scanner, [text])


def test_a_long_run_is_held_for_a_kibibyte_and_then_released(literal_scanner):
    early, late = (base64.b64encode((" " * pad + LITERAL + "!" * 3000).encode()).decode() for pad in (600, 900))
    released, findings = drain(literal_scanner, [early[at : at + 50] for at in range(0, len(early), 50)])
    assert [(f.start, f.end) for f in findings] == [(0, LONGEST_HELD)]
    assert released == "<CANARY>" + early[LONGEST_HELD:]
    # The documented limit: what stands later in a run passes a stream, and not a whole text.
    assert drain(literal_scanner, [late]) == (late, [])
    assert literal_scanner.scan(late).findings
    session = literal_scanner.open_stream()
    held = [session.feed(late[at : at + 10]).held_chars for at in range(0, len(late), 10)]
    assert max(held) < LONGEST_HELD
    assert max(held[110:]) <= len(LITERAL)


def test_nothing_of_a_run_is_released_before_it_ends():
    session = Scanner(Policy(recognisers=(), literals=(LITERAL,), decode_depth=1)).open_stream()
    encoded = base64.b64encode(LITERAL.encode()).decode().rstrip("=")
    assert session.feed("see ").text == "see "
    assert all(session.feed(character).text == "" for character in encoded)
    assert session.feed(" ").text + session.finish().text == "<CANARY> "


@given(st.text(max_size=200))
def test_views_have_spans_in_their_text(text):
    for view in decoded_views(text * 3):
        for low in range(0, len(view.text), 7):
            found = Found(low, min(low + 5, len(view.text)), "k", Severity.LOW, 1.0, "r", 1, "")
            back = view.encloses(found)
            if back is not None:
                assert 0 <= back.start < back.end <= len(text) * 3
            else:
                assert view.text[found.start : found.end] in text * 3


def test_many_findings_among_many_escapes_take_linear_time(deep_scanner):
    small, large = (time_of(deep_scanner, "mail\\n" * 40 + f"a\\u0040b{MAIL}\\t" * count) for count in (300, 3000))
    assert large < 60 * max(small, 0.005)


def time_of(scanner, text):
    begin = time.process_time()
    assert scanner.scan(text).findings
    return time.process_time() - begin


def test_policy_file_digest_and_bytes_know_the_depth(tmp_path):
    def built(text, **changes):
        return parse_policy(tmp_path / "p", text).build(lambda *_: bytes(32), **changes)

    head = b'format = "stanch/scan-policy/v1"\n'
    plain, deep = built(head), built(head + b"decode_depth = 1\n")
    assert (plain.decode_depth, deep.decode_depth, built(head, decode=True).decode_depth) == (0, 1, 1)
    sent = Policy(recognisers=(), decode_depth=1)
    assert sent.digest() != Policy(recognisers=()).digest()
    assert policy_from_bytes(policy_to_bytes(sent), PolicySecrets.of(sent)).decode_depth == 1
    with pytest.raises(InvalidInput, match="decode_depth"):
        built(head + b"decode_depth = 2\n")
    with pytest.raises(InvalidInput, match="decode_depth: expected 0 or 1"):
        Policy(decode_depth=2)


def test_raw_lines_are_all_parsed(deep_scanner):
    line = json.dumps({"text": base64.b64encode(LITERAL.encode()).decode()}).encode()
    assert deep_scanner.suspect_lines([line]) == {0}
