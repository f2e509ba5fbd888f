"""Rule files of gitleaks: what each of their keys does, what is refused, and streams that agree with whole texts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan import Policy, Scanner, load_pack, pack_digest
from stanch.scan.adapters import parse_gitleaks, read_gitleaks
from stanch.scan.examples import ExampleMaker
from stanch.terms import Severity

WIDGET = "[[rules]]\nid = 'widget'\nregex = 'wk_[0-9a-z]{12}'\n"
TOKEN = "wk_0a1b2c3d4e5f"


def read(text, **options):
    return parse_gitleaks(text.encode(), name="mine.toml", **options)


def scanner(text, **options):
    return Scanner(Policy(recognisers=read(text, **options).recognisers, report_key=bytes(32)))


def values(text, found):
    return [text[finding.start : finding.end] for finding in found.findings]


def found(rules, text, **options):
    return values(text, scanner(rules, **options).scan(text))


def test_a_rule_is_found_unverified_and_never_critical(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WIDGET)
    (rule,) = read_gitleaks(path).recognisers
    assert (rule.id, rule.kind, rule.severity, rule.verified) == (
        "gitleaks/widget",
        "gitleaks-widget",
        Severity.HIGH,
        False,
    )
    both = Scanner(Policy(recognisers=(*load_pack(), rule)))
    assert both.redact(f"see {TOKEN}, ana.diaz@correo.es").text == "see <GITLEAKS-WIDGET>, <EMAIL>"
    assert pack_digest((rule,)) != pack_digest(read(WIDGET + "entropy = 1.0").recognisers)


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (r"regex = 'key=(\w{6})(;)'", "key=abc123;", ["abc123"]),  # the first group that holds something
        (r"regex = 'key=(\w{3})?(\d{3});'", "key=123;", ["123"]),
        ("regex = 'key=(a)(\\w{6});'\nsecretGroup = 2", "key=abc1234;", ["bc1234"]),
        ("SecretGroup = 2\nREGEX = 'key=(a)(\\w{6});'", "key=abc1234;", ["bc1234"]),  # keys in any case
        (r"regex = '\bwk_\d{3}\b'", "xwk_123 wk_1234 wk_124.", ["wk_124"]),
        (r"regex = '^wk_\d{3}$'", "wk_123", ["wk_123"]),
        (r"regex = '^wk_\d{3}$'", "a wk_123", []),
        (r"regex = '^wk_\d{3}$'", "wk_123 b", []),
        (r"regex = '(?m)^wk_\d{3}$'", "a\nwk_124\nb", ["wk_124"]),
        (r"regex = '(?i)WIDGET\s*=\s*([0-9a-f]{8})'", "wiDget = 0a1b2c3d", ["0a1b2c3d"]),
        ("regex = 'wk_[a-z]{8}'\nentropy = 2.5", "wk_aabbaabb wk_abcdefgi", ["wk_abcdefgi"]),
        ("regex = 'wk_\\w{8}'\nkeywords = ['wk_']", "wk_0a1b2c3d", ["wk_0a1b2c3d"]),
        ("regex = '[a-f0-9]{16}'\nkeywords = ['Widget', 'x']", "a 0a1b2c3d4e5f6071", []),
        ("regex = '[a-f0-9]{16}'\nkeywords = ['Widget', 'xyz']", "a 0a1b2c3d4e5f6071 of WIDGETS", ["0a1b2c3d4e5f6071"]),
        ("regex = 'wk_\\w{4}'\n[[rules.allowlists]]\nstopwords = ['TEst']", "wk_test wk_t3st", ["wk_t3st"]),
        ("regex = 'wk_\\w{4}'\n[rules.allowlist]\nregexes = ['9$']", "wk_ab19 wk_ab18", ["wk_ab18"]),
        ("regex = 'k=(\\w{4})'\n[[rules.allowlists]]\nregexTarget = 'match'\nregexes = ['^k=']", "k=ab18", []),
        (
            "regex = 'wk_\\w{4}'\n[[rules.allowlists]]\nregexTarget = 'line'\nregexes = ['# ok$']",
            "wk_ab18 # ok\nwk_ab17\n# ok", ["wk_ab17"],
        ),
        (
            "regex = 'wk_\\w{4}'\n[[rules.allowlists]]\ncondition = 'AND'\nregexes = ['1']\nstopwords = ['a']",
            "wk_ab18 wk_bb18 wk_ab28", ["wk_bb18", "wk_ab28"],
        ),
        (
            "regex = 'wk_\\w{4}'\n[[rules.allowlists]]\ncondition = 'AND'\nregexes = ['1']\ncommits = ['ab']",
            "wk_ab18", ["wk_ab18"],
        ),
        ("regex = 'wk_\\w{4}'\n[[rules.allowlists]]\ncommits = ['ab']", "wk_ab18", ["wk_ab18"]),
        ("regex = 'wk_\\w{4}'\n[[allowlists]]\ntargetRules = ['rule']\nstopwords = ['b1']", "wk_ab18", []),
        ("regex = 'wk_\\w{4}'\n[[allowlists]]\ntargetRules = ['other']\nstopwords = ['b1']", "wk_ab18", ["wk_ab18"]),
        ("regex = 'wk_\\w{4}'\n[allowlist]\nregexes = ['b1']", "wk_ab18", []),
    ],
)  # fmt: skip
def test_what_a_rule_finds(rules, text, expected):
    assert found(f"[[rules]]\nid = 'rule'\n{rules}\n", text) == expected


@pytest.mark.parametrize(
    ("rule", "scanned", "runs"),
    [
        ("path = '\\.env$'", "", False),
        ("path = '\\.env$'", "a/.env", True),
        ("path = '\\.env$'", "a/.env.jsonl", False),
        ("[[rules.allowlists]]\npaths = ['^vendor/']", "vendor/x", False),
        ("[[rules.allowlists]]\npaths = ['^vendor/']", "src/x", True),
        ("[[rules.allowlists]]\ncondition = 'AND'\npaths = ['^vendor/']", "vendor/x", False),
        ("[[rules.allowlists]]\ncondition = 'AND'\npaths = ['^vendor/']\ncommits = ['a']", "vendor/x", True),
        ("[[allowlists]]\ntargetRules = ['widget']\npaths = ['x']", "x", False),
        ("[[rules.required]]\nid = 'other'", "", False),
        ("skipReport = true", "", False),
    ],
)
def test_rules_that_do_not_run_are_named(rule, scanned, runs):
    rules = read(WIDGET + rule, scanned=scanned)
    assert [r.id for r in rules.recognisers] == (["gitleaks/widget"] if runs else [])
    assert [name for name, _ in rules.skipped] == ([] if runs else ["widget"])


def test_a_rule_without_a_regex_looks_at_names_alone():
    assert read("[[rules]]\nid = 'keys'\npath = '\\.pem$'", scanned="a.pem").skipped == (
        ("keys", "looks at file names alone"),
    )


def test_disabled_rules_are_left_out():
    rules = read(f"{WIDGET}[[rules]]\nid = 'b'\nregex = 'bk_[a-z]{{4}}'\n[extend]\ndisabledRules = ['widget']")
    assert [rule.id for rule in rules.recognisers] == ["gitleaks/b"]


@pytest.mark.parametrize("line", ["useDefault = true", "path = 'base.toml'", "url = 'https://rules.test/x.toml'"])
def test_nothing_is_extended_or_fetched(line):
    with pytest.raises(InvalidInput, match="extends another rule set") as error:
        read(f"{WIDGET}[extend]\n{line}")
    assert error.value.next_step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 to 5000 rules"),
        ("rules = 3", "not a gitleaks rule file"),
        ("[[rules]\n", "not a gitleaks rule file"),
        ("[[rules]]\nregex = 'a'", "not a gitleaks rule file"),
        ("[[rules]]\nid = 'a'", "rule a: a rule has an id"),
        (WIDGET + "colour = 'red'", "not a gitleaks rule file"),
        (WIDGET + "entropy = 1.0\nEntropy = 2.0", "not a gitleaks rule file"),
        (WIDGET + "entropy = -1.0", "not negative"),
        (WIDGET + "secretGroup = 1", "no group 1"),
        (WIDGET + WIDGET, "two rules"),
        (WIDGET.replace("wk_[0-9a-z]{12}", "(?=a)b"), "rule widget: the expression is not RE2 syntax"),
        (WIDGET.replace("wk_[0-9a-z]{12}", ".*"), "rule widget: nothing in the expression"),
        (WIDGET + "path = '('", "not RE2 syntax"),
        (WIDGET + "[[rules.allowlists]]\ndescription = 'empty'", "an allow-list names"),
        (WIDGET + "[[rules.allowlists]]\nregexes = ['(']", "not RE2 syntax"),
        (WIDGET + "[[rules.allowlists]]\nstopwords = ['a']\ncondition = 'XOR'", "condition"),
        (WIDGET + "[[rules.allowlists]]\nregexes = ['a']\nregexTarget = 'file'", "regexTarget"),
        (WIDGET + "[[rules.allowlists]]\nregexes = ['a']\ntargetRules = ['a']", "targetRules"),
        (WIDGET + "[rules.allowlist]\nregexes = ['a']\n[[rules.allowlists]]\nregexes = ['a']", "exclude each other"),
        ("a = " + "[" * 5000 + "]" * 5000, "not a gitleaks rule file"),
        ("#" * (5 << 20) + "\n", "at most"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_by_name(text, message):
    with pytest.raises(InvalidInput, match=message) as error:
        read(text)
    assert error.value.what.startswith("mine.toml: ")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_gitleaks(tmp_path)


def test_rules_without_a_bound_or_that_look_around_run_on_whole_texts_only():
    rules = read(
        "[[rules]]\nid = 'bounded'\nregex = 'bk_[a-z]{4,90}'\n"
        "[[rules]]\nid = 'endless'\nregex = 'ek_[a-z]{4,}'\n"
        "[[rules]]\nid = 'around'\nregex = '[0-9]{8}'\nkeywords = ['widget']\n"
    )
    assert rules.whole_only == ("gitleaks/endless", "gitleaks/around")
    assert rules.to_json()["whole_only"] == ["gitleaks/endless", "gitleaks/around"]
    searcher = Scanner(Policy(recognisers=rules.recognisers))
    text = "bk_abcd ek_abcd widget 19283746"
    assert values(text, searcher.scan(text)) == ["bk_abcd", "ek_abcd", "19283746"]
    session = searcher.open_stream()
    assert session.feed(text).text + session.finish().text == "<GITLEAKS-BOUNDED> ek_abcd widget 19283746"


def test_an_endless_match_is_cut():
    text = "ek_" + "ab" * 4000
    (value,) = found("[[rules]]\nid = 'e'\nregex = 'ek_[a-z]{4,}'", text)
    assert len(value) == 3 + 4095


def test_our_checksums_are_laid_over_foreign_rules():
    rules = "[[rules]]\nid = 'any'\nregex = '\\b\\w{40}\\b'"
    good = ExampleMaker("x").fill("ghp_{A62:30}{crc62}")
    bad = good[:-1] + ("a" if good[-1] != "a" else "b")
    result = scanner(rules).scan(f"{good} {bad}")
    assert [finding.score for finding in result.findings] == [0.95]
    assert result.findings[0].start == 0


MANY = "".join(
    f"[[rules]]\nid = 'r{n}'\nregex = '''{expression}'''\n"
    for n, expression in enumerate(
        [
            r"(?i)[\w.-]{0,50}?(?:widget)[ \t\w.-]{0,20}[\s'\"]{0,3}(?:=|:)['\"\s=]{0,5}([a-z0-9]{8})(?:['\"\s;]|$)",
            r"\b((?:A3T[A-Z0-9]|AKIA|ASIA)[A-Z2-7]{4})\b",
            r"[0-9a-f]{8}-us\d{1,2}",
            r"\b(sgp_[a-f0-9]{4}|[a-f0-9]{6})\b",
            r"-----BEGIN KEY-----[a-z ]{4,40}-----END",
        ]
    )
)


def test_streams_and_whole_texts_agree():
    searcher = scanner(MANY)
    rnd = random.Random(7)
    pieces = ["widget", "=", ":", '"', " ", ";", "0a1b2c3d", "abcdef12", "AKIA", "A3TX", "BCD2", "-us1", "sgp_", "00ff",
              "aabbcc", "-----BEGIN KEY-----", "some words", "-----END", 'widget="0a1b2c3d"', "AKIABCD2", "sgp_00ff",
              "0a1b2c3d-us1", "é", "\u200b", "K"]  # fmt: skip
    seen = 0
    for _ in range(600):
        text = "".join(rnd.choice(pieces) for _ in range(rnd.randint(1, 14)))
        whole, session, place, released = searcher.replace(text), searcher.open_stream(), 0, []
        while place < len(text):
            size = rnd.randint(1, 9)
            released.append(session.feed(text[place : place + size]))
            place += size
        released.append(session.finish())
        assert "".join(part.text for part in released) == whole.text, text
        reported = [finding for part in released for finding in part.findings]
        assert sorted(map(repr, reported)) == sorted(map(repr, whole.findings)), text
        seen += len(reported)
    assert seen > 200


KEYS = (
    st.sampled_from(["''", "'a'", "'wk_[a-z]{4}'", "'('", "1", "-1", "2.5", "true", "[]", "['a']", "{}"]),
)  # fmt: skip
TOML = st.recursive(
    st.sampled_from(["''", "'a'", "'wk_[a-z]{4}'", "'('", "1", "-1", "2.5", "true", "[]", "['a']", "{}"]),
    lambda inner: st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=4).map(
        lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in dict(pairs).items()) + "}"
    ) | st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), TOML), max_size=4))
def test_any_table_is_read_or_invalid_input(pairs):
    text = "\n".join(f"{key} = {value}" for key, value in dict(pairs).items())
    try:
        read(text)
        read(f"{WIDGET}{text}")
    except InvalidInput:
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_invalid_input(data):
    with pytest.raises(InvalidInput):
        parse_gitleaks(data, name="mine.toml")
