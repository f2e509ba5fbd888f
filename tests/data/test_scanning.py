import gzip
import json
import logging
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import (
    CanarySpec,
    build_manifest,
    inject_uncommitted,
    open_dataset,
    plan_canaries,
    read_steps,
    scan_dataset,
)
from stanch.errors import InvalidInput, LeakFound
from stanch.scan import Operator, Policy, Scanner

# The golden of the scan note: a body and its CRC-32 in base 62.
TOKEN = "ghp_" + "0123456789ABCDEFGHIJabcdefghij" + "4Us3aw"
MAIL = "ana.planted@nightjar-works.io"


@pytest.fixture(scope="module")
def scanner():
    return Scanner(Policy())


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def luhn(digits):
    total = sum(int(d) if i % 2 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def rows():
    return [
        {"id": 1, "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]},
        {
            "id": 2,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": f"write to {MAIL}"}], "name": "ana"},
                {"role": "assistant", "content": f"the key is {TOKEN} and the mail {MAIL}."},
            ],
            "meta": {"tags": ["x", f"cc {MAIL}"], "score": 0.5, "flag": None, "ok": True},
        },
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": MAIL}}]}]},
    ]


def test_every_string_is_scanned_and_reported_by_place(write_rows, scanner):
    report = scan_dataset(open_dataset(write_rows(rows())), scanner)
    places = [(location.record, location.field, finding.kind) for location, finding in report.findings]
    assert places == [
        ("r2", "messages[0].content[0].text", "email"),
        ("r2", "messages[1].content", "github-token"),
        ("r2", "messages[1].content", "email"),
        ("r2", "meta.tags[1]", "email"),
        ("r3", "messages[0].tool_calls[0].function.arguments", "email"),
    ]
    assert report.records == 3
    assert [(finding.start, finding.end) for _, finding in report.findings[:2]] == [
        (9, 9 + len(MAIL)),
        (11, 11 + len(TOKEN)),
    ]


def test_redaction_changes_the_values_and_nothing_else(write_rows, scanner, tmp_path):
    dataset = open_dataset(write_rows(rows()))
    report = scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl")
    assert len(report.findings) == 5  # the report is that of the dataset as it was
    label = scanner.redact(TOKEN).text
    expected = json.loads(json.dumps(rows()).replace(TOKEN, label).replace(MAIL, "<EMAIL>"))
    written = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert written == expected
    assert [list(row) for row in written] == [list(row) for row in rows()]


def test_the_output_is_clean_and_keeps_line_ids(write_rows, scanner, tmp_path):
    dataset = open_dataset(write_rows(rows()))
    scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl.gz")
    clean = open_dataset(tmp_path / "clean.jsonl.gz")
    assert scan_dataset(clean, scanner).findings == ()
    assert [record.id for record in clean] == [record.id for record in dataset]
    assert MAIL.encode() not in gzip.decompress((tmp_path / "clean.jsonl.gz").read_bytes())


def test_the_redaction_is_in_provenance_and_manifest(write_rows, scanner, tmp_path, key):
    dataset = open_dataset(write_rows(rows()), key=key)
    report = scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl")
    clean = open_dataset(tmp_path / "clean.jsonl", key=key)
    (step,) = read_steps(clean)
    assert step.operation == "redact"
    assert step.parameters == {"pack": str(report.pack), "policy": str(report.policy), "findings": 5}
    manifest = build_manifest(clean, key=key)
    assert (manifest.pack, manifest.policy) == (str(report.pack), str(report.policy))
    assert manifest.parents[0].root == f"sha256-rfc9162:{build_manifest(dataset, key=key).root}"


def test_a_value_under_a_doubled_key_is_refused_and_not_passed_on(tmp_path, scanner, errors_text):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "mail {MAIL}", "text": "nothing"}}\n{{"text": "more"}}\n')
    with pytest.raises(InvalidInput, match=r"^t\.jsonl:1: expected one JSON object") as caught:
        open_dataset(path)
    assert "a key stands twice" in errors_text(caught.value)
    assert MAIL not in errors_text(caught.value)
    report = scan_dataset(open_dataset(path, skip_bad=True), scanner, out=tmp_path / "clean.jsonl")
    assert (report.findings, len(report.skipped)) == ((), 1)
    assert (tmp_path / "clean.jsonl").read_text() == '{"text": "more"}\n'


def test_rows_without_a_finding_are_written_as_they_stand(tmp_path, scanner):
    path = tmp_path / "t.jsonl"
    said = ['{ "text" : "\\u0061 b",\r"n":18446744073709551615, "f": 1.50E1 }', f'{{"text": "to {MAIL}", "f": 1.50E1}}']
    path.write_bytes("\n".join(said).encode())
    scan_dataset(open_dataset(path), scanner, out=tmp_path / "clean.jsonl")
    assert (tmp_path / "clean.jsonl").read_bytes() == f'{said[0]}\n{{"text":"to <EMAIL>","f":15.0}}\n'.encode()


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "a", MAIL: 1}, "email"),
        ({"text": "a", "deep": [{MAIL: {"x": f"and {MAIL}"}}]}, "email"),
        ({"text": "a", "card_number": int(luhn("453957876362148"))}, "card"),
    ],
)
def test_what_cannot_be_rewritten_stops_the_redaction(write_rows, scanner, tmp_path, row, kind, errors_text):
    dataset = open_dataset(write_rows([{"text": "first"}, row]))
    before = everything(tmp_path)
    report = scan_dataset(dataset, scanner)
    assert [finding.kind for _, finding in report.findings if kind in finding.kind]
    assert MAIL not in json.dumps(report.to_json())  # not even in the path of what stands under the key
    with pytest.raises(
        LeakFound, match=rf"clean\.jsonl: 1 findings would remain \(.*{kind}.*\); nothing was written"
    ) as e:
        scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl")
    assert MAIL not in errors_text(e.value)
    assert everything(tmp_path) == before


def test_a_bad_row_later_leaves_nothing_behind(write_rows, scanner, tmp_path):
    path = write_rows([{"text": MAIL}] * 150)
    with path.open("a") as file:
        file.write('{"text": 3\n')
    dataset = open_dataset(path)
    before = everything(tmp_path)
    with pytest.raises(InvalidInput, match=r"^train\.jsonl:151: expected one JSON object"):
        scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl")
    assert everything(tmp_path) == before


def test_a_dataset_with_canaries_is_scanned_but_not_redacted(chats, scanner, tmp_path):
    plan = plan_canaries(chats, CanarySpec(n=8), preregistration={}, rng=lambda size: bytes(range(size)))
    planted = inject_uncommitted(chats, plan, out=tmp_path / "planted.jsonl").dataset
    assert scan_dataset(planted, scanner).records == len(planted)
    with pytest.raises(InvalidInput, match="holds canaries and is not redacted"):
        scan_dataset(planted, scanner, out=tmp_path / "clean.jsonl")


def test_progress_tells_the_stages(write_rows, scanner, tmp_path):
    calls = []
    dataset = open_dataset(write_rows([{"text": "t"}] * 1001))
    scan_dataset(dataset, scanner, out=tmp_path / "clean.jsonl", progress=lambda *call: calls.append(call))
    assert calls == [("scan", 1001, 1001), ("check", 1001, 1001)]


def test_residuals_are_named_by_place_for_the_audit(write_rows, scanner):
    # A card number without any context scores below the default threshold: a residual, not a finding.
    card = luhn("453957876362148")
    report = scan_dataset(open_dataset(write_rows([{"text": "first"}, {"text": f"so {card} then"}])), scanner)
    (target,) = [target for target in report.residual_targets if "card" in target.kind]
    assert (target.record, target.field, target.start, target.end) == ("r2", "text", 3, 3 + len(card))


def test_no_report_message_log_or_file_holds_a_value(write_rows, tmp_path, caplog, capsys, key, errors_text):
    # 1,000 planted values, each of their 8-character pieces.
    rng = random.Random(41)
    letters = "abcdefghijklmnopqrstuvwxyz"
    values = [
        "".join(rng.choices(letters, k=12)) + "@" + "".join(rng.choices(letters, k=9)) + ".io" for _ in range(1000)
    ]
    lines = [{"text": f"please write to {value} soon", "note": value} for value in values]
    caplog.set_level(logging.DEBUG)
    dataset = open_dataset(write_rows(lines), key=key)
    strict = Scanner(Policy(operators={"*": Operator.DROP}))
    report = scan_dataset(dataset, strict, out=tmp_path / "clean.jsonl")
    assert len(report.findings) == 2000
    with pytest.raises(LeakFound) as caught:
        scan_dataset(
            open_dataset(write_rows([{"text": "t", values[0]: 1}], "k.jsonl")), strict, out=tmp_path / "x.jsonl"
        )
    outputs = capsys.readouterr()
    seen = "\n".join(
        [
            json.dumps(report.to_json()),
            repr(report),
            errors_text(caught.value),
            caplog.text,
            outputs.out,
            outputs.err,
            (tmp_path / "clean.jsonl").read_text(),
            (tmp_path / "clean.jsonl.provenance.json").read_text(),
            build_manifest(open_dataset(tmp_path / "clean.jsonl", key=key), key=key).to_json().decode(),
        ]
    )
    pieces = {seen[i : i + 8] for i in range(len(seen) - 7)}
    assert not [value for value in values if any(value[i : i + 8] in pieces for i in range(len(value) - 10))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab ü\n", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(extra=st.dictionaries(st.text("klm", max_size=4), JSON, max_size=3))
def test_rows_of_any_shape_come_through_unchanged_but_for_the_values(tmp_path, scanner, extra):
    row = {"text": f"to {MAIL} now", **extra, "more": [extra, MAIL]}
    path = tmp_path / "any.jsonl"
    path.write_text(json.dumps(row) + "\n")
    scan_dataset(open_dataset(path), scanner, out=tmp_path / "clean.jsonl")
    assert json.loads((tmp_path / "clean.jsonl").read_text()) == {
        "text": "to <EMAIL> now",
        **extra,
        "more": [extra, "<EMAIL>"],
    }


def test_rows_of_any_shape_are_scanned_and_none_is_left_out(write_rows, scanner, tmp_path):
    odd = {"messages": [{"role": "wizard", "content": f"to {MAIL}"}]}
    picture = {"messages": [{"role": "user", "content": [{"type": "image", "url": f"https://a.io/?m={MAIL}"}]}]}
    given = [rows()[0], odd, picture, {"messages": [], "note": MAIL}]
    report = scan_dataset(open_dataset(write_rows(given)), scanner, out=tmp_path / "clean.jsonl")
    assert (report.records, report.skipped) == (4, ())
    assert [place.record for place, _ in report.findings] == ["r2", "r3", "r4"]
    written = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(given).replace(MAIL, "<EMAIL>"))


def test_rows_of_no_known_form_can_be_opened_to_be_scanned(write_rows, scanner):
    pair = {"chosen": [{"role": "user", "content": MAIL}], "rejected": [{"role": "user", "content": "x"}]}
    path = write_rows([{"prompt": "p", **pair}, {"question": f"q {MAIL}"}])
    with pytest.raises(InvalidInput, match="no chat form fits"):
        open_dataset(path)
    dataset = open_dataset(path, chat="any")
    assert dataset.chat == "any"
    report = scan_dataset(dataset, scanner)
    assert [place.field for place, _ in report.findings] == ["chosen[0].content", "question"]
