"""The scanner on whole texts: places, scores, context, evasion, many texts at once."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan import Location, Operator, Policy, Scanner
from stanch.scan.examples import ExampleMaker
from stanch.terms import Severity

TOKEN = ExampleMaker("token").fill("ghp_{A62:30}{crc62}")


def kinds(scanner, text, **options):
    return [finding.kind for finding in scanner.scan(text, **options).findings]


def test_positions_are_code_points_of_the_original(scanner):
    text = f"Grüße — 名前 {TOKEN} 😀"
    (finding,) = scanner.scan(text).findings
    assert text[finding.start : finding.end] == TOKEN
    assert (finding.kind, finding.severity, finding.score) == ("github-token", Severity.CRITICAL, 0.95)
    assert scanner.scan(text.encode()).findings == (finding,)


@pytest.mark.parametrize(
    "disguise",
    [
        "\u200b".join,
        lambda token: "".join(chr(ord(c) + 0xFEE0) for c in token),
        lambda token: token.replace("p", "\u0440").replace("a", "\u0430").replace("e", "\u0435"),
        lambda token: token[:9] + "\u00ad\u2060" + token[9:],
        lambda token: token.replace("A", "𝐀").replace("h", "𝒽"),
    ],
    ids=["zero-width", "fullwidth", "homoglyph", "soft-hyphen", "mathematical"],
)
def test_disguised_tokens_are_found_whole(scanner, disguise):
    text = f"use {disguise(TOKEN)} now"
    (finding,) = scanner.scan(text).findings
    assert finding.kind == "github-token"
    assert scanner.redact(text).text == "use <GITHUB-TOKEN> now"


def test_bytes_that_are_no_utf8_count_as_one_code_point(scanner):
    (finding,) = scanner.scan(b"\xff\xfe " + TOKEN.encode()).findings
    assert (finding.start, finding.end) == (3, 43)


def test_context_words_count_whole_and_only_near(scanner):
    card = "4539148803436467"
    assert kinds(scanner, f"card {card}") == ["payment-card"]
    assert kinds(scanner, f"{card}") == []
    assert [f.kind for f in scanner.scan(card).residuals] == ["payment-card"]
    assert kinds(scanner, f"discard {card}") == []
    assert kinds(scanner, "card " + "word " * 20 + card) == []
    assert kinds(scanner, f"card, tracking number {card}") == []
    assert kinds(scanner, f"<PAYMENT-CARD> {card}") == []


def test_a_contrary_word_counts_unless_a_context_word_is_closer(scanner):
    card = "4539148803436467"
    assert kinds(scanner, f"tracking my card {card}") == ["payment-card"]
    assert kinds(scanner, f"card, tracking {card}") == []


def test_a_word_cut_by_the_context_window_does_not_count(scanner):
    # 96 bytes before the number, "discard" would be cut to "card".
    number = "4539148803436467"
    for padding in range(80, 100):
        assert kinds(scanner, "discard " + "." * padding + " " + number) == []


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("ssn", "536228745", "us-ssn"),
        ("ssn[0]", "536228745", "us-ssn"),
        ("rows[3].patientSSN", "536228745", "us-ssn"),
        ("patient_ssns[2]", "536228745", "us-ssn"),
        ("home_phone", "2025550143", "phone"),
        ("homePhones[1]", "2025550143", "phone"),
        ("vin", "WVWZZZ1JZXW000001", "vehicle-vin"),
    ],
)
def test_a_field_is_known_by_its_last_words(scanner, field, value, kind):
    assert kinds(scanner, value, location=Location("1", field)) == [kind]
    assert kinds(scanner, value, location=Location("1", f"{field}.note")) == []
    assert kinds(scanner, value, location=Location("1", f"{field}Hash")) == []


def test_fields_and_json_keys_count(scanner):
    number = "4539148803436467"
    assert kinds(scanner, f'{{"card_number": "{number}"}}') == ["payment-card"]
    assert kinds(scanner, number, location=Location("r", "payment.cardNumber")) == ["payment-card"]
    assert kinds(scanner, number, location=Location("r", "payment.total")) == []


def test_least_score_divides_findings_and_residuals(scanner):
    text = "card 4539148803436467"
    assert not Scanner(Policy(min_score=0.9)).scan(text).findings
    assert len(Scanner(Policy(min_score=0.9)).scan(text).residuals) == 1
    assert len(scanner.scan(text).findings) == 1


def test_reserved_domains_are_only_noted(scanner):
    (finding,) = scanner.scan("write to ana@example.org").findings
    assert (finding.kind, finding.severity) == ("email", Severity.INFO)
    (finding,) = scanner.scan("write to ana@correo.org").findings
    assert finding.severity is Severity.MEDIUM


def test_kinds_can_be_chosen():
    text = f"{TOKEN} ana@correo.es"
    assert kinds(Scanner(Policy(kinds=frozenset({"email"}))), text) == ["email"]
    assert kinds(Scanner(Policy(without=frozenset({"email"}))), text) == ["github-token"]
    assert kinds(Scanner(Policy(recognisers=())), text) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": frozenset({"nonsense"})},
        {"operators": {"nonsense": Operator.DROP}},
        {"min_score": 0.1},
        {"operators": {"email": Operator.PSEUDONYM}},
        {"operators": {"email": Operator.PSEUDONYM}, "pseudonym_key": b"short"},
        {"literals": ("a-b-c",)},
        {"literals": ("x" * 5000,)},
    ],
)
def test_policies_that_cannot_be_kept_are_refused(wrong):
    with pytest.raises(InvalidInput) as caught:
        Policy(**wrong)
    assert "a-b-c" not in str(caught.value)


def test_policies_hide_keys_and_literals():
    shown = repr(Policy(literals=("the canary",), pseudonym_key=b"k" * 32))
    assert "canary" not in shown
    assert "kkkk" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Project Nightjar 77",
        "PROJECT-nightjar77",
        "p.r.o.j.e.c.t nightjar 7 7",
        "77 rajthgin tcejorp",
        "ＰＲＯＪＥＣＴ Nightj\u200bar 77",
    ],
)
def test_literals_are_found_in_any_spelling(full_scanner, text):
    (finding,) = full_scanner.scan(f"so: {text}.").findings
    assert (finding.kind, finding.start, finding.end) == ("canary", 4, 4 + len(text))
    assert full_scanner.redact(f"so: {text}.").text == "so: <CANARY>."


def test_a_long_gap_ends_a_literal(full_scanner):
    assert full_scanner.scan("Project Nightjar" + "-" * 256 + "77").findings
    assert not full_scanner.scan("Project Nightjar" + "-" * 300 + "77").findings


def test_literals_follow_the_choice_of_kinds():
    assert not Scanner(Policy(literals=("Nightjar",), without=frozenset({"canary"}))).scan("nightjar").findings
    assert not Scanner(Policy(literals=("Nightjar",), kinds=frozenset({"email"}))).scan("nightjar").findings
    assert Scanner(Policy(literals=("Nightjar",), kinds=frozenset({"canary"}))).scan("nightjar").findings


PIECES = st.sampled_from(
    [TOKEN, "ana@correo.es", "card 4539148803436467", "4539148803436467", "é", " ", "\x1e", "-----", "DE89"]
)


@settings(deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=4).map("".join), max_size=8))
def test_many_texts_at_once_give_what_each_gives_alone(full_scanner, texts):
    places = [Location(str(number), "card" if number % 2 else "") for number in range(len(texts))]
    together = list(full_scanner.scan_many(zip(places, texts, strict=True)))
    assert together == [full_scanner.scan(text, location=place) for place, text in zip(places, texts, strict=True)]


def test_a_block_gives_the_results_in_which_something_is_found(full_scanner):
    texts = ["nothing", "ana@correo.es", "4539148803436467", "card 4539148803436467", "é " + TOKEN, ""]
    places = [Location(str(number), "card" if number == 2 else "note") for number in range(len(texts))]
    whole = full_scanner.scan_many(zip(places, texts, strict=True))
    found = {number: result for number, result in enumerate(whole) if result.findings or result.residuals}
    assert dict(full_scanner.scan_block(texts, (place.field for place in places), places.__getitem__)) == found
    assert {2, 3, 4} <= found.keys()


def test_many_texts_are_read_block_by_block(scanner):
    given_out = []

    def texts():
        for number in range(6):
            given_out.append(number)
            yield Location(str(number)), "x" * 400_000

    results = scanner.scan_many(texts())
    next(results)
    assert len(given_out) == 4  # one more, to know whether it follows the third
    assert [result.location.record for result in results] == ["1", "2", "3", "4", "5"]


def test_threads_share_a_scanner(full_scanner):
    text = f"card 4539148803436467 {TOKEN} " * 50
    expected, results = full_scanner.scan(text), []
    threads = [threading.Thread(target=lambda: results.append(full_scanner.scan(text))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


def test_equal_values_have_equal_fingerprints(scanner):
    one, two, three = scanner.scan("Ana@Correo.es, ana@correo.es, eva@correo.es").findings
    assert one.fingerprint == two.fingerprint != three.fingerprint
    assert len(one.fingerprint) == 32
    other = Scanner(Policy(report_key=b"\1" * 32)).scan("ana@correo.es").findings[0]
    assert other.fingerprint != one.fingerprint
