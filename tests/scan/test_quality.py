"""Precision and recall on a labelled corpus of our own; printed, with floors."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from stanch.scan import Location
from stanch.terms import Severity

MESSAGES = 600
# Exact kinds have a checksum or a fixed shape and stand in plain text: all must be found.
EXACT = {
    "github-token",
    "npm-token",
    "aws-access-key-id",
    "slack-token",
    "stripe-key",
    "jwt",
    "private-key",
    "iban",
    "us-ssn",
    "email",
}
RECALL = {"person": 0.97}


def beside(name):
    """Return the module of that name beside this file."""
    spec = importlib.util.spec_from_file_location(f"scan_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus():
    maker = beside("corpus").CorpusMaker(20260101)
    return [maker.message() for _ in range(MESSAGES)]


@pytest.fixture(scope="module")
def counts(scanner, corpus):
    """Count by kind: planted, found at the planted place, reported, reported anywhere else, covered characters."""
    planted, hit, reported, wrong = Counter(), Counter(), Counter(), Counter()
    characters = Counter()
    results = scanner.scan_many((Location(str(number)), message.text) for number, message in enumerate(corpus))
    for message, result in zip(corpus, results, strict=True):
        truth = [plant for plant in message.plants if plant.kind]
        sensitive = {at for plant in truth for at in range(plant.start, plant.end)}
        covered = {at for finding in result.findings for at in range(finding.start, finding.end)}
        characters += Counter(both=len(sensitive & covered), truth=len(sensitive), covered=len(covered))
        for plant in truth:
            planted[plant.kind] += 1
            hit[plant.kind] += any(
                f.kind == plant.kind and f.start <= plant.start and f.end >= plant.end for f in result.findings
            )
        for finding in result.findings:
            reported[finding.kind] += 1
            if not any(plant.start < finding.end and finding.start < plant.end for plant in truth):
                wrong[finding.kind, finding.severity] += 1
    return planted, hit, reported, wrong, characters


def test_recall_and_precision(counts, capsys):
    planted, hit, reported, wrong, characters = counts
    false = Counter({kind: sum(n for (k, _), n in wrong.items() if k == kind) for kind in reported})
    precision = 1 - sum(false.values()) / sum(reported.values())
    recall = sum(hit.values()) / sum(planted.values())
    f1 = 2 * characters["both"] / (characters["truth"] + characters["covered"])
    lines = [
        f"{kind:22} recall {hit[kind] / count:.4f} of {count:4}, reported {reported[kind]:4}, false {false[kind]}"
        for kind, count in sorted(planted.items())
    ]
    with capsys.disabled():
        sys.stdout.write(
            "\n" + "\n".join(lines) + f"\nall: recall {recall:.4f}, precision {precision:.4f}, F1 {f1:.4f}\n"
        )
    for kind in planted:
        floor = 1.0 if kind in EXACT else RECALL.get(kind, 0.98)
        assert hit[kind] >= floor * planted[kind], kind
    assert recall >= 0.99
    assert precision >= 0.99
    assert f1 >= 0.98


def test_no_high_finding_where_nothing_was_planted(counts, corpus):
    wrong = counts[3]
    high = sum(number for (_, severity), number in wrong.items() if severity.rank >= Severity.HIGH.rank)
    assert high <= 1 + sum(len(message.text) for message in corpus) / 10_000_000


def test_redacted_messages_scan_clean_and_hold_no_exact_value(scanner, corpus):
    for message in corpus[:150]:
        done = scanner.redact(message.text)
        assert scanner.scan(done.text).findings == ()
        for plant in message.plants:
            if plant.kind in EXACT:
                assert message.text[plant.start : plant.end] not in done.text


@pytest.mark.parametrize("half", ["tuned", "held-out"])
def test_goals_over_many_styles(scanner, half):
    pytest.importorskip("faker", reason="faker is not installed")
    quality, measure = beside("quality"), beside("measure")
    figures = measure.personal_figures(scanner, quality.personal(half, 1))
    assert figures["structured_f1"] >= 0.97, figures
    assert figures["character_f1"] >= 0.93, figures
    assert figures["high_false"] == 0, figures
    secret = measure.secret_figures(scanner, quality.secrets(half, 2))
    assert secret["recall"] >= 0.95, secret
    assert secret["false_positive_rate"] <= 0.02, secret
