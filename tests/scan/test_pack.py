"""Rule packs: the shipped one keeps its promises; malformed and hostile ones are refused by name."""

import re
from pathlib import Path

import pytest

from stanch.errors import InvalidInput
from stanch.scan import PackError, Policy, Scanner, lint_pack, load_pack, pack_digest
from stanch.scan.examples import ExampleMaker
from stanch.scan.lint import lint_rules, try_rule
from stanch.scan.pack import SHIPPED, _RuleDocument, parse_pack, read_pack, shipped_pack
from stanch.terms import Severity

SPECIFICATION = Path(__file__).parents[2] / "docs/spec/recogniser-pack.md"
RULE = """
format: stanch-pack/1
name: mine
recognisers:
  - id: widget
    kind: widget-key
    version: 1
    family: secret
    anchor: 'wk_'
    before: 3
    after: 13
    confirm: 'wk_[0-9a-z]{12}'
    left: '[0-9A-Za-z_]'
    right: '[0-9A-Za-z_]'
    cont: '[0-9a-z]'
    score: 0.7
    severity: high
    examples: ['wk_{a36:12}', 'key=wk_{a36:12};', '(wk_{a36:12})']
    counterexamples: ['wk_{a36:11}', 'wk_{a36:13}', 'xwk_{a36:12}']
    source: {title: Widget keys, url: 'https://widgets.test/keys', read: 2026-01-02}
"""

# A secret of any kind may also be assigned to a secret-like name, and a password assigned is both.
EXPECTED_TOGETHER = {"secret-assignment", "password", "http-credentials"}


def write(tmp_path, text):
    path = tmp_path / "pack.yaml"
    path.write_text(text.replace("2026-01-02", "'2026-01-02'"))
    return path


def test_the_shipped_pack_is_clean():
    assert lint_rules(load_pack()) == []


def test_the_shipped_packs_are_what_the_strict_loader_reads():
    assert load_pack() == tuple(rule for name in SHIPPED for rule in parse_pack(shipped_pack(name), name=name))


def test_a_pack_of_ones_own_is_found_and_clean(tmp_path):
    path = write(tmp_path, RULE)
    assert lint_pack(path) == []
    rules = load_pack(path)
    assert Scanner(Policy(recognisers=rules)).redact("see wk_0a1b2c3d4e5f!").text == "see <WIDGET-KEY>!"


def test_examples_of_one_kind_are_no_high_finding_of_another(scanner):
    for rule in load_pack():
        for number, template in enumerate(rule.examples):
            found = scanner.scan(ExampleMaker(f"{rule.id}/{number}").fill(template)).findings
            high = {finding.kind for finding in found if finding.severity.rank >= Severity.HIGH.rank}
            assert high <= EXPECTED_TOGETHER | {rule.kind}, (rule.id, template)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stanch-pack/1", "stanch-pack/2", "expected format"),
        ("anchor: 'wk_'", "anchor: 'wk_+'", "not allowed"),
        ("anchor: 'wk_'", "anchor: '[0-9A-Za-z]{2}_'", "too many strings"),
        ("before: 3", "before: 9", "before"),
        ("before: 3", "before: 2", "before"),
        ("after: 13", "after: 0", "after"),
        ("after: 13", "after: 5000", "after"),
        ("score: 0.7", "score: 1.5", "score"),
        ("severity: high", "severity: awful", "not a rule pack"),
        ("left: '[0-9A-Za-z_]'", "left: 'abc'", "byte set"),
        ("cont: '[0-9a-z]'", "hold: 'run:[a-z]:1'", "before"),
        ("cont: '[0-9a-z]'", "hold: 'run:[a-v_]:4'", "stand in the anchor"),
        ("cont: '[0-9a-z]'", "hold: 'run:[a-v_]:4:[a-v]'", "stand in the anchor"),
        ("cont: '[0-9a-z]'", "hold: 'forever'", "hold"),
        ("cont: '[0-9a-z]'", "colour: red", "not a rule pack"),
        ("    version: 1\n", "", "not a rule pack"),
        ("id: widget\n", "id: widget\n    id: widget\n", "not a rule pack"),
        ("name: mine", "name: &a mine\nother: *a", "not a rule pack"),
        ("name: mine", "name: !!python/object:os.system mine", "not a rule pack"),
    ],
)
def test_malformed_packs_are_refused(tmp_path, old, new, message):
    assert old in RULE
    path = write(tmp_path, RULE.replace(old, new))
    with pytest.raises(InvalidInput) as caught:
        load_pack(path)
    assert message in caught.value.what
    assert str(path) in caught.value.what
    assert lint_pack(path)[0].rule in {"", "widget"}


@pytest.mark.parametrize("rule", [rule for rule in load_pack() if rule.trail], ids=lambda rule: rule.id)
def test_a_rule_that_waits_for_the_byte_behind_releases_nothing_of_a_value(rule):
    alone = Scanner(Policy(recognisers=(rule,)))
    for number, template in enumerate(rule.examples):
        text = ExampleMaker(f"{rule.id}/{number}").fill(template) + " end"
        session = alone.open_stream()
        released = "".join(session.feed(character).text for character in text) + session.finish().text
        assert released == alone.replace(text).text


def test_two_rules_of_one_id_are_refused():
    with pytest.raises(InvalidInput, match="same id"):
        parse_pack((RULE + RULE.split("recognisers:\n")[1]).replace("2026-01-02", "'x'").encode(), name="twice")


def test_a_large_pack_is_refused_before_it_is_read():
    with pytest.raises(InvalidInput, match="at most"):
        parse_pack(b" " * (5 << 20) + b" ", name="large")


def test_the_example_of_the_specification_is_a_pack_and_its_table_names_every_field(tmp_path):
    text = SPECIFICATION.read_text()
    path = tmp_path / "pack.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert lint_pack(path) == []
    rules = load_pack(path)
    value = ExampleMaker("x").fill("wk_test_{A62:24}")
    assert Scanner(Policy(recognisers=rules)).redact(f"see {value}!").text == "see <WIDGET-KEY>!"
    table = text.partition("| field | type | meaning |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(_RuleDocument.__struct_fields__)


def test_every_generator_of_the_specification_is_known():
    section = SPECIFICATION.read_text().partition("## 6. Generators")[2].partition("## 7.")[0]
    for name in re.findall(r"\{(\w+)\}", section):
        if name != "word":
            assert ExampleMaker(name).fill(f"{{A62:30}}{{{name}}}")
    drawn = re.search(r"draws N signs: (.*?)\. ", section, re.DOTALL)[1]
    for name in re.findall(r"\b[AabHhd]\w*\b(?=[` ])", " ".join(re.findall(r"`([^`]+)`", drawn)) + " "):
        assert len(ExampleMaker(name).fill(f"{{{name}:7}}")) == 7


def test_the_linter_names_every_malformed_rule_and_says_what_to_do(tmp_path):
    rules = RULE.split("recognisers:\n")[1]
    second = rules.replace("id: widget", "id: second").replace("anchor: 'wk_'", "anchor: 'wk_+'")
    third = rules.replace("id: widget", "id: third").replace("wk_", "wl_").replace("hold: 'x'", "")
    fourth = rules.replace("id: widget", "id: fourth").replace("cont: '[0-9a-z]'", "hold: 'forever'")
    path = write(tmp_path, RULE.replace("score: 0.7", "score: 1.5") + second + third + fourth)
    errors = lint_pack(path)
    assert [error.rule for error in errors] == ["widget", "second", "fourth"]
    assert "run:" in errors[2].next_step
    rules, malformed = read_pack(path)
    assert ([rule.id for rule in rules], [rule for rule, _ in malformed]) == (["third"], ["widget", "second", "fourth"])


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_a_trial_counts_examples_with_each_engine(tmp_path, engine):
    if engine == "hyperscan":
        pytest.importorskip("hyperscan", reason="hyperscan is not installed")
    (rule,) = load_pack(write(tmp_path, RULE.replace("'xwk_{a36:12}'", "'wk_{a36:12}'")))
    trial = try_rule(rule, engine=engine)
    assert (trial.examples, trial.counterexamples) == (3, 3)
    assert [error.message for error in trial.errors] == ["counter-example 2 is found"]
    assert trial.errors[0].next_step


def test_a_missing_pack_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="absent"):
        load_pack(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("['wk_{a36:11}', 'wk_{a36:13}', 'xwk_{a36:12}']", "['wk_{a36:11}']", "expected at least 3"),
        ("'(wk_{a36:12})'", "'(wk_{a36:9})'", "example 2 is not found"),
        ("'xwk_{a36:12}'", "'wk_{a36:12}'", "counter-example 2 is found"),
        ("https://widgets", "http://widgets", "source"),
        ("confirm: 'wk_[0-9a-z]{12}'", "confirm: 'wk_(?=x)'", "not RE2"),
        ("score: 0.7", "score: 0.7\n    validator: magic", "unknown validator"),
        ("'(wk_{a36:12})'", "'{nope}'", "unknown generator"),
    ],
)
def test_the_linter_says_what_is_wrong(tmp_path, old, new, error):
    assert old in RULE
    errors = lint_pack(write(tmp_path, RULE.replace(old, new)))
    assert len(errors) == 1
    assert errors[0].rule == "widget"
    assert error in errors[0].message


def test_a_kind_swallows_in_all_rules_or_in_none(tmp_path):
    second = RULE.split("recognisers:\n")[1].replace("id: widget", "id: other").replace("wk_", "wl_")
    second = second.replace("    right: '[0-9A-Za-z_]'\n", "    hold: 'swallow:[0-9a-z]:'\n").replace(
        "'wl_{a36:13}'", "'wl_'"
    )
    errors = lint_pack(write(tmp_path, RULE + second))
    assert {error.rule for error in errors} == {"widget", "other"}
    assert all("swallow" in error.message for error in errors)


def test_the_digest_is_of_what_rules_do(tmp_path):
    rules = load_pack(write(tmp_path, RULE))
    same = load_pack(write(tmp_path, RULE.replace("Widget keys", "Keys of widgets")))
    other = load_pack(write(tmp_path, RULE.replace("score: 0.7", "score: 0.8")))
    assert pack_digest(rules) == pack_digest(same) != pack_digest(other)


def test_errors_are_values():
    assert PackError("a", "b") == PackError("a", "b")
