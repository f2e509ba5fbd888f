"""Other tools' rules and recognisers, with every way to the network closed."""

import importlib
import json
import socket
import sys

import pytest

from stanch.errors import ExternalError, InvalidInput, MissingExtraError
from stanch.scan import Policy, Scanner, load_pack
from stanch.scan.adapters import (
    NUMBERS,
    PresidioFinder,
    SpacyFinder,
    load_kingfisher,
    open_spacy,
    parse_gitleaks,
    presidio_recognizer,
    read_kingfisher,
    read_numbers,
)
from stanch.scan.adapters.kingfisher import FilterCheck
from stanch.scan.check import Candidate
from stanch.scan.examples import ExampleMaker
from stanch.terms import Severity


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("something asks the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


class Catalogue:
    """What ``kingfisher_sdk.Rules`` offers to a reader."""

    def __init__(self, *details):
        self._details = {detail["id"]: detail for detail in details}

    def metadata(self):
        return [{"id": name} for name in self._details]

    def detail(self, name):
        return self._details[name]


def detail(**facts):
    return {
        "id": "w", "detection_regex": "wk_([0-9a-z]{8})", "visible": True, "path": None, "betterleaks_filter": None,
        "betterleaks_secret_group": 0, "min_entropy": 0.0, "pattern_requirements": None, "name": "more is allowed",
    } | facts  # fmt: skip


def names(scanner, text):
    return {finding.recogniser for finding in scanner.scan(text).findings}


def values(rules, text):
    result = Scanner(Policy(recognisers=rules.recognisers)).scan(text)
    return [text[finding.start : finding.end] for finding in result.findings]


def subject(name):
    return {
        "kind": "member",
        "node": {"kind": "identifier", "value": "finding"},
        "property": {"kind": "string", "value": name},
    }


def call(name, of, *texts):
    nodes = [{"kind": "string", "value": text} for text in texts]
    arguments = [subject(of), {"kind": "array", "nodes": nodes}] if texts else [subject(of)]
    return {"kind": "call", "callee": {"kind": "identifier", "value": name}, "arguments": arguments}


def binary(left, operator, right):
    return {"kind": "binary", "operator": operator, "left": left, "right": right}


def number(value):
    return {"kind": "float", "value": str(value)}


UNKNOWN = binary(call("tokenRatio", "secret"), ">=", number(2.5))


@pytest.mark.parametrize(
    ("tree", "drops"),
    [
        (None, False),
        (call("matchesAny", "secret", "(", "^0a"), False),  # an expression that RE2 refuses says nothing
        (call("matchesAny", "secret", "zz", "^0a"), True),
        (call("matchesAny", "match", "^wk_0a"), True),
        (call("matchesAny", "line", "# ok$"), True),
        (call("containsAny", "secret", "A1B"), True),
        (call("containsAny", "secret", "wk_"), False),
        (binary(call("entropy", "secret"), "<", number(3.5)), True),
        (binary(call("entropy", "secret"), "<=", number(1.5)), False),
        (binary(call("entropy", "secret"), ">", number(1.5)), True),
        (binary(call("entropy", "secret"), ">=", number(3.5)), False),
        (UNKNOWN, False),
        ({"kind": "unary", "operator": "!", "node": UNKNOWN}, False),
        (binary(UNKNOWN, "||", call("containsAny", "secret", "0a")), True),
        (binary(UNKNOWN, "&&", call("containsAny", "secret", "0a")), False),
        ({"kind": "unary", "operator": "!", "node": binary(UNKNOWN, "&&", {"kind": "bool", "value": False})}, True),
        (call("matchesAny", "path", "."), False),
        ({"kind": "sequence", "nodes": []}, False),
    ],
)
def test_filters_drop_what_they_are_sure_of(tree, drops):
    check = FilterCheck(json.dumps(tree), 0.0)
    text = b"a wk_0a1b2c3d # ok\nb"
    candidate = Candidate(text, 0, len(text), 2, 13, 5, 13, "a ")
    assert (check.judge(candidate).outcome.value < 0) is drops


def test_rules_of_kingfisher_are_read_as_recognisers():
    rules = read_kingfisher(
        Catalogue(
            detail(betterleaks_filter=call("containsAny", "secret", "dead")),
            detail(id="helper", visible=False),
            detail(id="named", path="x"),
            detail(id="odd", pattern_requirements={"min_digits": 2}),
            detail(id="verbose", detection_regex="(?x)a b"),
            detail(id="group", detection_regex="(g)k_([a-z]{4})", betterleaks_secret_group=2),
        )
    )
    assert [rule.id for rule in rules.recognisers] == ["kingfisher/w", "kingfisher/group"]
    assert [name for name, _ in rules.skipped] == ["helper", "named", "odd", "verbose"]
    assert values(rules, "wk_0a1b2c3d wk_00dead00 gk_abcd") == ["0a1b2c3d", "abcd"]
    assert {rule.severity for rule in rules.recognisers} == {Severity.HIGH}


@pytest.mark.parametrize(
    "change", [{"detection_regex": None}, {"visible": "yes"}, {"min_entropy": "high"}, {"path": 3}]
)
def test_a_changed_description_breaks_the_contract_by_name(change):
    with pytest.raises(ExternalError, match="rule w: kingfisher-secret-scanner describes it in an unknown way"):
        read_kingfisher(Catalogue(detail(**change)))


def test_the_installed_kingfisher_keeps_the_contract_and_shares_our_database():
    pytest.importorskip("kingfisher_sdk", reason="kingfisher-secret-scanner is not installed")
    rules = read_kingfisher(load_kingfisher())
    assert len(rules.recognisers) >= 250, "the public wrapper has changed"
    assert len(rules.skipped) < 80
    scanner = Scanner(Policy(recognisers=load_pack() + rules.recognisers))
    good = ExampleMaker("k").fill("ghp_{A62:30}{crc62}")
    bad = good[:-1] + ("a" if good[-1] != "a" else "b")
    seen = names(scanner, f"token {good}")
    assert any(name.startswith("kingfisher/") for name in seen)
    assert any("/" not in name for name in seen)
    assert not scanner.scan(f"token {bad}").findings, "our checksum is laid over the foreign rule"
    session = scanner.open_stream()
    parts = [session.feed(f"token {good}"[place : place + 5]).text for place in range(0, 50, 5)]
    assert good[:12] not in "".join(parts) + session.finish().text


SHAPES = {
    "ar.cuit": "20-{d:8}-{d:1}", "at.vnr": "{d:4} 010180", "be.nn": "850730{d:5}", "bg.egn": "{d:10}",
    "ch.ssn": "756{d:10}", "cl.rut": "{d:8}-{d:1}", "cn.ric": "110105198507{d:6}", "cz.rc": "850730/{d:4}",
    "dk.cpr": "300785-{d:4}", "ec.ci": "17{d:8}", "ee.ik": "3850730{d:4}", "fi.hetu": "300785-{d:3}{A36:1}",
    "gr.amka": "300785{d:5}", "hr.oib": "{d:11}", "ie.pps": "{d:7}{A26:1}", "il.idnr": "{d:9}",
    "is_.kennitala": "300785-{d:3}9", "kr.rrn": "850730-1{d:6}", "lt.asmens": "3850730{d:4}",
    "mx.curp": "GOMA850730HDFRRN{d:2}", "no.fodselsnummer": "300785{d:5}", "pt.nif": "2{d:8}",
    "ro.cnp": "185073012{d:4}",
    "sk.rc": "850730/{d:4}", "th.pin": "1{d:12}", "tr.tckimlik": "1{d:10}", "ua.rntrc": "{d:10}",
    "za.idnr": "8507305{d:6}",
}  # fmt: skip


def test_national_numbers_need_their_check_digit_and_a_word():
    pytest.importorskip("stdnum", reason="python-stdnum is not installed")
    rules = read_numbers()
    scanner = Scanner(Policy(recognisers=rules.recognisers))
    for rule in rules.recognisers:
        name = rule.check.name
        word, judge = NUMBERS[name].words.split()[0], importlib.import_module(f"stdnum.{name}").is_valid
        tries = [ExampleMaker(f"{name}/{n}").fill(SHAPES[name]) for n in range(400)]
        right = next(value for value in tries if judge(value))
        # Denmark has given up its check digit: there a wrong number is one with a wrong date.
        wrong = next((value for value in tries if not judge(value)), "99" + right[2:])
        assert rule.id in names(scanner, f"{word}: {right}."), name
        assert rule.id not in names(scanner, f"{word}: {wrong}."), name
        assert rule.id not in names(scanner, f"{word}: {right}1."), name
        assert not names(scanner, f"given is {right}."), name


def test_an_unknown_national_number_is_refused():
    with pytest.raises(InvalidInput, match=r"unknown number 'xx\.y'"):
        read_numbers(["xx.y"])


def test_presidio_recognisers_are_a_finder_without_the_network():
    predefined = pytest.importorskip(
        "presidio_analyzer.predefined_recognizers", reason="presidio-analyzer is not installed"
    )
    finder = PresidioFinder([predefined.EmailRecognizer(), predefined.IpRecognizer()])
    scanner = Scanner(Policy(recognisers=(), finders=(finder,)))
    text = "Grüße an ana.diaz@correo.es und 😀 bob@nothing.invalidtld von 192.168.0.17"
    found = [(finding.kind, text[finding.start : finding.end]) for finding in scanner.scan(text).findings]
    assert found == [("presidio-email-address", "ana.diaz@correo.es"), ("presidio-ip-address", "192.168.0.17")]
    redacted = scanner.redact(text).text
    assert redacted.startswith("Grüße an <PRESIDIO-EMAIL-ADDRESS> und")
    assert Policy(finders=(finder,)).digest() != Policy().digest()
    assert not Scanner(Policy(recognisers=(), finders=(finder,), without=finder.kinds)).scan(text).findings
    assert scanner.open_stream().feed(text + "\n").findings == ()


def test_presidio_recognisers_that_ask_a_service_are_refused():
    presidio = pytest.importorskip("presidio_analyzer", reason="presidio-analyzer is not installed")

    class Remote(presidio.RemoteRecognizer):
        def load(self):
            pass

        def analyze(self, *_arguments):
            raise AssertionError

        def get_supported_entities(self):
            return ["X"]

    with pytest.raises(InvalidInput, match="Far asks a service"):
        PresidioFinder([Remote(["X"], "Far", "en", "1")])


def test_our_scanner_is_a_recogniser_of_presidio(scanner):
    presidio = pytest.importorskip("presidio_analyzer", reason="presidio-analyzer is not installed")
    recognizer = presidio_recognizer(scanner)
    assert isinstance(recognizer, presidio.EntityRecognizer)
    text = "Grüße an ana.diaz@correo.es, SSN 536-90-4399"
    results = recognizer.analyze(text, ["EMAIL", "US_SSN"], None)
    assert {(r.entity_type, text[r.start : r.end]) for r in results} == {
        ("EMAIL", "ana.diaz@correo.es"),
        ("US_SSN", "536-90-4399"),
    }
    assert {r.entity_type for r in recognizer.analyze(text, ["EMAIL"], None)} == {"EMAIL"}
    registry = presidio.RecognizerRegistry(recognizers=[recognizer], supported_languages=["en"])
    assert registry.get_recognizers("en", entities=["EMAIL"]) == [recognizer]


def test_spacy_reads_sentences_with_a_capital(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spacy is not installed")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Zyx Qwerty"}, {"label": "ORG", "pattern": "Acme"},
                        {"label": "PERSON", "pattern": "lowly"}])  # fmt: skip
    pipeline.to_disk(tmp_path / "model")
    finder = open_spacy(str(tmp_path / "model"))
    text = "héllo lowly. So said Zyx Qwerty of Acme!\nthe lowly one. " + "x" * 10_000 + " Zyx Qwerty"
    scanner = Scanner(Policy(recognisers=(), finders=(finder,)))
    first, *_ = scanner.scan(text).findings
    assert (first.kind, text[first.start : first.end], first.recogniser) == ("person", "Zyx Qwerty", "spacy")
    assert scanner.redact("So said Zyx Qwerty.").text == "So said <PERSON>."
    with_orgs = SpacyFinder(pipeline, {"ORG": "organisation"})
    assert [s.kind for s in with_orgs.find("Acme and Zyx Qwerty")] == ["organisation"]


def test_a_model_that_is_not_there_is_not_downloaded():
    pytest.importorskip("spacy", reason="spacy is not installed")
    with pytest.raises(InvalidInput, match="no spaCy model 'en_core_web_nothing' can be opened"):
        open_spacy("en_core_web_nothing")


@pytest.mark.parametrize(
    ("module", "extra", "action"),
    [
        ("kingfisher_sdk", "rules", load_kingfisher),
        ("stdnum.pt.nif", "ids", lambda: read_numbers(["pt.nif"])),
        ("presidio_analyzer", "presidio", lambda: PresidioFinder([])),
        ("presidio_analyzer", "presidio", lambda: presidio_recognizer(Scanner(Policy(recognisers=())))),
        ("spacy", "ner", lambda: open_spacy("x")),
    ],
)
def test_a_missing_part_is_named_with_its_install_line(monkeypatch, module, extra, action):
    from stanch.scan.adapters import numbers  # noqa: PLC0415 - its memory is emptied here

    numbers._module.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as error:
        action()
    assert error.value.next_step == f"pip install 'stanch[{extra}]'"


def test_no_gitleaks_rule_asks_the_network():
    rules = parse_gitleaks(b"[[rules]]\nid = 'widget'\nregex = 'wk_[0-9a-z]{12}'", name="mine.toml")
    assert values(rules, "wk_0a1b2c3d4e5f") == ["wk_0a1b2c3d4e5f"]
