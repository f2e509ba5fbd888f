"""Reports: counts, order, and never a value or a piece of one."""

import json
import logging
import traceback

import pytest

from stanch.crypto.identity import generate_identity
from stanch.errors import StanchError
from stanch.scan import (
    Dictionary,
    Location,
    Operator,
    Policy,
    Replacer,
    ReportBuilder,
    Scanner,
    Vault,
    open_vault,
    to_sarif,
)
from stanch.scan.dictionary import DictionaryLane
from stanch.scan.examples import ExampleMaker
from stanch.terms import Severity


def build(scanner, records):
    builder = ReportBuilder(scanner.policy, scanner.engine)
    for number, fields in enumerate(records):
        builder.record()
        for name, text in fields.items():
            builder.add(scanner.scan(text, location=Location(f"r{number}", name)))
    return builder


def test_counts_and_order(scanner):
    token = ExampleMaker("t").fill("ghp_{A62:30}{crc62}")
    report = build(scanner, [{"a": f"{token} {token}", "b": "ana@correo.es"}, {"a": token}, {"a": "nothing"}]).build()
    assert report.records == 3
    assert [(c.kind, c.findings, c.records) for c in report.counts] == [("github-token", 3, 2), ("email", 1, 1)]
    assert (report.worst(), report.at_or_above(Severity.HIGH), report.at_or_above(Severity.INFO)) == (
        Severity.CRITICAL,
        3,
        4,
    )
    assert report.size == 2 * len(token) + 1 + 13 + len(token) + 7


def test_an_empty_report(scanner):
    report = build(scanner, []).build()
    assert (report.worst(), report.counts, report.records) == (None, (), 0)


def test_residuals_lead_the_audit_to_what_was_left(scanner):
    report = build(scanner, [{"note": "4539148803436467"}]).build()
    (target,) = report.residual_targets
    assert (target.record, target.field, target.start, target.end, target.kind) == ("r0", "note", 0, 16, "payment-card")
    assert report.to_json()["residuals"] == {"payment-card": 1}


def test_json_has_the_fields_of_the_format(scanner):
    builder = build(scanner, [{"a": "ana@correo.es"}])
    builder.skip("line 7: too long")
    document = builder.build().to_json()
    assert document["schema"] == "stanch/scan-report/v1"
    assert set(document) == {
        "schema", "pack", "policy", "engine", "records", "bytes", "counts", "findings", "residuals", "skipped",
        "dropped",
    }  # fmt: skip
    assert set(document["findings"][0]) == {
        "kind", "severity", "score", "record", "field", "start", "end", "fingerprint", "recogniser", "version"
    }  # fmt: skip
    assert document["skipped"] == ["line 7: too long"]
    json.dumps(document)


def test_the_policy_digest_follows_what_is_looked_for():
    digests = {
        Policy().digest(),
        Policy(min_score=0.6).digest(),
        Policy(without=frozenset({"email"})).digest(),
        Policy(literals=("a canary",)).digest(),
    }
    assert len(digests) == 4
    assert Policy().digest() == Policy(report_key=bytes(32)).digest()


def test_no_piece_of_a_planted_value_is_shown_anywhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    maker = ExampleMaker("planted")
    values = [maker.fill("ghp_{A62:30}{crc62}") for _ in range(500)] + [
        maker.fill("{A62:14}@correo.es") for _ in range(500)
    ]
    literals = tuple(maker.fill("the canary {A62:20}") for _ in range(5))
    terms = tuple(maker.fill("{A62:16}") for _ in range(5))
    book = Dictionary.build(terms, key=bytes(32), label="codename")
    vault = Vault(tmp_path / "v", [generate_identity().recipient])
    operators = {"email": Operator.VAULT, "github-token": Operator.PSEUDONYM, "codename": Operator.NUMBERED}
    scanner = Scanner(
        Policy(literals=literals, dictionaries=(book,), operators=operators, pseudonym_key=bytes(32), vault=vault)
    )
    builder = build(scanner, [{"a": f"see {value}, {terms[0]}, {literals[0]}"} for value in values])
    report = builder.build()
    result = scanner.scan(values[0])
    redacted = [scanner.redact(f"see {value}, {terms[1]}") for value in values[::4]]
    vault.save()
    book.save(tmp_path / "d")
    session = scanner.open_stream()
    session.feed(values[2][:20])
    shown = [
        json.dumps(report.to_json()), json.dumps(to_sarif(report, "train.jsonl")), (tmp_path / "v").read_text(),
        (tmp_path / "d").read_text("latin-1"), *(done.text for done in redacted),
    ]  # fmt: skip
    things = (report, builder, result, redacted, session, scanner.policy, book, vault, DictionaryLane(book))
    shown += [repr(thing) for thing in (*things, Replacer(scanner.policy), *book.find(terms[0]))]
    shown += [repr(session.feed(values[2][20:])), repr(session.finish())]
    failing = (
        lambda: session.feed(values[3]),
        lambda: Dictionary.build([*terms, "abc"], key=bytes(32), label="x"),
        lambda: Policy(literals=(*literals, "abc")),
        lambda: open_vault(tmp_path / "v", generate_identity()),
        lambda: Dictionary.load(tmp_path / "d", key=bytes(31) + b"x"),
    )
    for fail in failing:
        with pytest.raises(StanchError) as caught:
            fail()
        shown.append("".join(traceback.format_exception(caught.value)) + repr(caught.value.problem()))
    everything = "\n".join([*shown, caplog.text])
    assert len(report.findings) >= 3 * len(values)
    whole = [value.removesuffix("@correo.es").removeprefix("ghp_") for value in (*values, *terms)]
    whole += [literal.removeprefix("the canary ") for literal in literals]
    pieces = {value[at : at + 8] for value in whole for at in range(len(value) - 7)}
    assert len(pieces) > 1000 * 6
    seen = {everything[at : at + 8] for at in range(len(everything) - 7)}
    assert not pieces & seen


@pytest.mark.parametrize("place", [Location(), Location("r1", "messages[0].content")])
def test_locations_are_kept(scanner, place):
    assert scanner.scan("x", location=place).location == place
