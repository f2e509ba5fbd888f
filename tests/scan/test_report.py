"""Reports: counts, order, and never a value or a piece of one."""

import json

import pytest

from stanch.errors import StanchError
from stanch.scan import Location, Policy, ReportBuilder, Scanner
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
        "schema", "pack", "policy", "engine", "records", "bytes", "counts", "findings", "residuals", "skipped"
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


def test_no_piece_of_a_planted_value_is_shown_anywhere():
    maker = ExampleMaker("planted")
    values = [maker.fill("ghp_{A62:30}{crc62}") for _ in range(500)] + [
        maker.fill("{A62:14}@correo.es") for _ in range(500)
    ]
    literals = tuple(maker.fill("the canary {A62:20}") for _ in range(5))
    scanner = Scanner(Policy(literals=literals))
    builder = build(scanner, [{"a": f"see {value}, {literal}"} for value in values for literal in literals[:1]])
    report = builder.build()
    result = scanner.scan(values[0])
    redacted = scanner.redact(values[1])
    session = scanner.open_stream()
    session.feed(values[2][:20])
    shown = [
        json.dumps(report.to_json()),
        repr(report),
        repr(result),
        repr(redacted),
        repr(session),
        repr(scanner.policy),
    ]
    shown += [repr(session.feed(values[2][20:])), repr(session.finish())]
    try:
        session.feed(values[3])
    except StanchError as error:
        shown.append(f"{error!r} {error.what} {error.why} {error.next_step}")
    everything = "\n".join(shown)
    assert len(report.findings) >= 2 * len(values)
    pieces = {value[at : at + 8] for value in (*values, *literals) for at in range(4, len(value.split("@")[0]) - 7)}
    pieces -= {piece for piece in pieces if piece in "the canary "}
    seen = {everything[at : at + 8] for at in range(len(everything) - 7)}
    assert not pieces & seen


@pytest.mark.parametrize("place", [Location(), Location("r1", "messages[0].content")])
def test_locations_are_kept(scanner, place):
    assert scanner.scan("x", location=place).location == place
