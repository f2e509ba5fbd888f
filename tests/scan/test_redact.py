"""Redaction: operators, clusters, the way back, output that scans clean."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto.identity import generate_identity
from stanch.errors import LeakFound
from stanch.scan import Operator, Policy, Redacted, Replacement, Replacer, Scanner, Vault
from stanch.scan.canonical import canonical_value, pseudonym_digest
from stanch.scan.examples import ExampleMaker
from stanch.scan.found import Found
from stanch.scan.resolve import Keep, Replace, Resolver
from stanch.terms import Severity

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors/scan/pseudonym.json").read_text())
KEY = bytes(range(32))


VAULT = Vault(Path("never written"), [generate_identity().recipient])


def with_operator(operator, **options):
    return Scanner(Policy(operators={"*": operator}, pseudonym_key=KEY, vault=VAULT, **options))


def test_golden_pseudonym():
    for vector in VECTORS:
        digest = pseudonym_digest(bytes.fromhex(vector["key"]), vector["kind"], vector["canonical"].encode())
        assert digest.hex().startswith(vector["digest_starts"])


def test_label(scanner):
    assert scanner.redact("to ana@correo.es, now").text == "to <EMAIL>, now"


def test_numbers_are_the_same_for_equal_values_and_run_through_a_record():
    scanner = with_operator(Operator.NUMBERED)
    replacer = Replacer(scanner.policy)
    text = "ana@correo.es, Eva@correo.es, eva@correo.es, +1 202 555 0143"
    assert scanner.redact(text, replacer=replacer).text == "<EMAIL_1>, <EMAIL_2>, <EMAIL_2>, <PHONE_1>"
    assert scanner.redact("eva@correo.es or leo@correo.es", replacer=replacer).text == "<EMAIL_2> or <EMAIL_3>"
    assert scanner.redact("leo@correo.es").text == "<EMAIL_1>"
    key = ExampleMaker("t").fill("-----BEGIN PRIVATE KEY-----\n{b64:64}\n-----END PRIVATE KEY-----")
    assert scanner.redact(f"{key} and {key}").text == "<PRIVATE-KEY_1> and <PRIVATE-KEY_2>"


def test_drop_record_labels_a_single_text():
    assert with_operator(Operator.DROP_RECORD).redact("to ana@correo.es, now").text == "to <EMAIL>, now"


def test_drop():
    assert with_operator(Operator.DROP).redact("to ana@correo.es, now").text == "to , now"


def test_mask_shows_four_characters_of_a_long_value_below_high():
    scanner = with_operator(Operator.MASK)
    assert scanner.redact("to ana.diaz@correo.es, now").text == "to ****o.es, now"
    assert scanner.redact("to ana@mail.es, now").text == "to ****, now"
    token = ExampleMaker("t").fill("ghp_{A62:30}{crc62}")
    assert scanner.redact(f"use {token} now").text == "use **** now"
    key = ExampleMaker("t").fill("-----BEGIN PRIVATE KEY-----\n{b64:64}\n-----END PRIVATE KEY-----")
    assert scanner.redact(f"use {key} now").text == "use **** now"


def test_mask_shows_nothing_of_overlapping_values():
    text = "https://ana:x9Tq@correo-central.es/"
    assert with_operator(Operator.MASK).redact(text).text == "https://****/"


def test_pseudonyms_stay_the_same_for_the_same_value():
    scanner = with_operator(Operator.PSEUDONYM)
    text = scanner.redact("Ana@Correo.es and ana@correo.es and eva@correo.es").text
    one, two, three = text.split(" and ")
    assert one == two != three
    assert one.startswith("<EMAIL:")
    assert len(one) == len("<EMAIL:>") + 20
    other = Scanner(Policy(operators={"*": Operator.PSEUDONYM}, pseudonym_key=bytes(32)))
    assert other.redact("ana@correo.es").text != one


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        ("email", "Ana@Correo.ES", b"ana@correo.es"),
        ("phone", "+1 (202) 555-0143", b"+12025550143"),
        ("phone", "(202) 555-0143", b"+12025550143"),
        ("phone", "1", b"1"),
        ("payment-card", "4539 1488-0343 6467", b"4539148803436467"),
        ("us-ssn", "536-22-8745", b"536228745"),
        ("iban", "DE89 3704 0044 0532 0130 00", b"DE89370400440532013000"),
        ("mac-address", "3c-22-FB-0a-12-34", b"3C22FB0A1234"),
        ("uk-nino", "ab 12 34 56 c", b"AB123456C"),
        ("ip-address", "2A00:1450:0:0::200E", b"2a00:1450::200e"),
        ("ip-address", "no address", b"no address"),
        ("person", "Alice  JOHNSON", b"alice johnson"),
        ("github-token", "ｇhp_x", b"ghp_x"),
    ],
)
def test_canonical_values(kind, value, canonical):
    assert canonical_value(kind, value) == canonical


def test_overlapping_findings_are_replaced_together_and_named_after_the_first(scanner):
    text = "https://ana:x9Tq@correo-central.es/"
    done = scanner.replace(text)
    assert done.text == "https://<URL-CREDENTIALS>/"
    assert {finding.kind for finding in done.findings} == {"url-credentials", "email"}
    (entry,) = done.replacements
    assert (entry.start, entry.end, entry.output_start, entry.output_end) == (8, 34, 8, 25)


def found(start, end, kind="a", severity=Severity.LOW, **more):
    return Found(start, end, kind, severity, 1.0, kind, 1, "", **more)


def test_ties_go_to_severity_then_length_then_id():
    for entries, winner in [
        ([found(0, 4, "a"), found(0, 3, "b", Severity.HIGH)], "b"),
        ([found(0, 4, "b"), found(0, 3, "a")], "b"),
        ([found(0, 4, "b"), found(0, 4, "a")], "a"),
        ([found(0, 9, "b"), found(0, 4, "a", swallows=True)], "a"),
        ([found(1, 4, "b", Severity.CRITICAL), found(0, 2, "a")], "a"),
    ]:
        resolver = Resolver()
        for entry in entries:
            resolver.add(entry)
        steps = [step for step in resolver.advance(20) if isinstance(step, Replace)]
        assert [step.found.kind for step in steps] == [winner]


def test_a_cluster_waits_for_the_floor():
    resolver = Resolver()
    assert resolver.advance(3) == [Keep(0, 3)]
    entry = found(4, 8)
    resolver.add(entry)
    assert resolver.advance(5) == [Keep(3, 4)]
    assert resolver.advance(7) == []
    assert resolver.advance(9) == [Replace(entry, alone=True), Keep(8, 9)]


def test_the_way_back(scanner):
    text = "a ana@correo.es b +1 202 555 0143 c"
    done = scanner.redact(text)
    assert done.text == "a <EMAIL> b <PHONE> c"
    assert [done.original(done.text.index(mark)) for mark in "abc"] == [0, text.index(" b ") + 1, len(text) - 1]
    assert done.original(5) == 2
    assert done.original_end(9) == 15
    assert done.output(len(text) - 1) == len(done.text) - 1


def test_what_one_replacement_brings_to_light_is_replaced_too(scanner):
    text = "ana@correo.esX@x.eva@correo.es"
    once, done = scanner.replace(text), scanner.redact(text)
    assert scanner.scan(done.text).findings == ()
    assert len(done.findings) >= len(once.findings)


def test_second_rounds_keep_original_positions():
    first = Redacted("ab<E>cdefg", (), (Replacement("e", 2, 9, 2, 5),))
    again = Redacted("ab<E><F>g", (), (Replacement("f", 5, 9, 5, 8),))
    done = first.then(again)
    assert [(r.kind, r.start, r.end, r.output_start, r.output_end) for r in done.replacements] == [
        ("e", 2, 9, 2, 5),
        ("f", 9, 13, 5, 8),
    ]
    over = first.then(Redacted("a<F>efg", (), (Replacement("f", 1, 7, 1, 4),)))
    assert [(r.kind, r.start, r.end, r.output_start, r.output_end) for r in over.replacements] == [("f", 1, 11, 1, 4)]


def test_output_that_never_scans_clean_is_a_leak(scanner, monkeypatch):
    monkeypatch.setattr(Replacer, "write", lambda *_, **__: "ana@correo.es")
    with pytest.raises(LeakFound) as caught:
        scanner.redact("to eva@correo.es")
    assert "correo" not in f"{caught.value.what}{caught.value.why}"


PIECES = st.sampled_from(
    [
        "ana@correo.es",
        "@",
        ".",
        "x",
        " ",
        "4539148803436467",
        "card ",
        "ssn ",
        "536-22-8745",
        "+1 202 555 0143",
        "Alice Johnson",
        "1",
    ]
)


@settings(deadline=None, max_examples=120)
@given(pieces=st.lists(PIECES, max_size=8), operator=st.sampled_from(Operator), place=st.integers(0, 60))
def test_redaction_is_idempotent_its_output_scans_clean_and_streams_agree(pieces, operator, place):
    scanner, text = SCANNERS[operator], "".join(pieces)
    done = scanner.redact(text)
    assert scanner.scan(done.text).findings == ()
    assert scanner.redact(done.text).text == done.text
    session = scanner.open_stream()
    streamed = session.feed(text[:place]).text + session.feed(text[place:]).text + session.finish().text
    assert streamed == scanner.replace(text).text


SCANNERS = {operator: with_operator(operator) for operator in Operator}


def test_redacted_shows_no_text(scanner):
    assert "hello" not in repr(scanner.redact("hello world"))
