"""Customer dictionaries: the golden, what matches, streams as whole texts, and a file that is verified."""

import base64
import copy
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput, VerificationError
from stanch.scan import Dictionary, Operator, Policy, Scanner, fold_text
from stanch.scan.dictionary import DictionaryLane, term_digest
from stanch.scan.stems import stems_of
from stanch.terms import Severity

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors/scan/dictionary.json").read_text())
KEY = bytes(range(32))
TERMS = ["Project Nightjar", "Élan Vital 9", "orion", "Nightjar West Gate 12", "название"]
BOOK = Dictionary.build(TERMS, key=KEY, label="codename")


@pytest.fixture(scope="module")
def scanner():
    policy = Policy(dictionaries=(BOOK,), operators={"codename": Operator.NUMBERED}, report_key=bytes(32))
    return Scanner(policy)


def spans(text, book=BOOK):
    return sorted((found.start, found.end) for found in book.find(text))


@pytest.mark.parametrize("vector", VECTORS["terms"], ids=lambda vector: vector["term"])
def test_golden_digests(vector):
    key = bytes.fromhex(vector["key"])
    assert term_digest(key, fold_text(vector["term"], "squeezed")).hex() == vector["digest"]
    assert Dictionary.build([vector["term"]], key=key, label="x").digests == {bytes.fromhex(vector["digest"])}


def test_golden_file():
    vector = VECTORS["file"]
    book = Dictionary.parse(bytes.fromhex(vector["hex"]), what="golden", key=bytes.fromhex(vector["key"]))
    assert (book.label, book.words, book.lengths) == (vector["label"], set(vector["words"]), set(vector["lengths"]))
    assert [digest.hex() for digest in sorted(book.digests)] == vector["digests"]
    assert book.stems.hex() == vector["stems"]
    assert Dictionary.build(["orion", "Project Nightjar"], key=book.key, label=book.label) == book
    with pytest.raises(VerificationError, match="another version of folding") as caught:
        Dictionary.parse(bytes.fromhex(vector["hex_of_fold_1"]), what="golden", key=book.key)
    assert caught.value.next_step == "build the dictionary again from the terms"


@pytest.mark.parametrize(
    "text",
    [
        "Project Nightjar",
        "PROJECT---nightjar",
        "project\n\tNightjar",
        "ProjectNightjar",
        "raJthgiN tcejorP",
        "ＰＲＯＪＥＣＴ Night\u200bjar",
        "рrоject nightjar",  # Cyrillic р and о
        "elan vital 9",
        "E\u0301LAN  vital-9",
        "названиЕ",
        base64.b64encode(b"about Project Nightjar").decode().rstrip("="),
        base64.urlsafe_b64encode("über? élan vital 9".encode()).decode().rstrip("="),
    ],
)
def test_terms_are_found_in_any_spelling(text):
    assert (4, 4 + len(text)) in spans(f"so: {text}.")


@pytest.mark.parametrize(
    "text",
    ["projects nightjar", "nightjar project", "xorion", "orionx", "orion7", ""],
)
def test_other_words_are_not(text):
    assert spans(text) == []


def test_overlapping_terms_are_one_replacement(scanner):
    done = scanner.redact("see project nightjar west gate 12 and orion, orion")
    assert done.text == "see <CODENAME_1> and <CODENAME_2>, <CODENAME_2>"
    assert {finding.kind for finding in done.findings} == {"codename"}
    assert {finding.severity for finding in done.findings} == {Severity.HIGH}


def test_a_long_gap_ends_a_term():
    assert spans("project" + "-" * 200 + "nightjar")
    assert not spans("project" + "-" * 300 + "nightjar")
    assert not spans("project é" + "-" * 300 + "nightjar")


def test_only_the_first_kibibyte_of_a_run_is_decoded():
    head = base64.b64encode(b"x" * 700 + b" orion ").decode().rstrip("=")
    tail = base64.b64encode(b"x" * 800 + b" orion ").decode().rstrip("=")
    assert spans(f"a {head} b") == [(2, 2 + len(head))]
    assert spans(f"a {tail} b") == []


def test_kinds_can_be_turned_off():
    assert not Scanner(Policy(dictionaries=(BOOK,), without=frozenset({"codename"}))).scan("orion").findings
    assert not Scanner(Policy(dictionaries=(BOOK,), kinds=frozenset({"email"}))).scan("orion").findings
    assert Scanner(Policy(dictionaries=(BOOK,), kinds=frozenset({"codename"}))).scan("orion").findings


PIECES = [
    "Project", "Nightjar", "nightjar", "WEST", "gate", "12", "orion", "noiro", "élan", "E\u0301lan", "vital", "9", "7",
    "raJthgiN", "tcejorP", "название", "x" * 30, "ProjectNightjar", base64.b64encode(b"see Project Nightjar.").decode(),
    base64.b64encode(b"plain words and nothing").decode(), "A" * 1100, "\u200b" * 300, "-" * 300, "⒜", "①", "\ud83d",
]  # fmt: skip
GLUE = [" ", "", "-", ". ", "\n", "\u200b", "\u0301", "\x1e", "=", "/", "名"]


def make_text(rng):
    parts = [rng.choice(pool) for _ in range(rng.randint(1, 9)) for pool in (PIECES, GLUE)]
    return "".join(parts)


def cut(text, rng):
    places = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((1, 2, 5, 12))))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def test_a_lane_finds_the_same_however_the_text_is_cut_and_never_late():
    rng = random.Random(3)
    for number in range(250):
        text = make_text(rng).replace("\ud83d", "")
        whole = spans(text)
        for chunks in [list(text) if number % 10 == 0 else cut(text, rng) for _ in range(4)]:
            lane, found, floor = DictionaryLane(BOOK), [], 0
            for chunk in chunks:
                new = lane.feed(chunk)
                assert all(item.start >= floor for item in new)
                assert lane.floor() >= floor
                floor = lane.floor()
                found += new
            found += lane.finish()
            assert sorted((item.start, item.end) for item in found) == whole


def test_a_stream_equals_the_whole_text(scanner):
    rng = random.Random(4)
    for _ in range(150):
        text = make_text(rng)
        whole = scanner.replace(text)
        session = scanner.open_stream()
        steps = [session.feed(chunk) for chunk in cut(text, rng)] + [session.finish()]
        assert "".join(step.text for step in steps) == whole.text
        found = [finding for step in steps for finding in step.findings]
        assert sorted(found, key=lambda f: (f.start, f.end, f.kind)) == list(whole.findings)


def test_held_text_is_bounded(scanner):
    session = scanner.open_stream()
    for chunk in ["word "] * 300 + ["x" * 100] * 300 + ["nightjar "] * 300 + ["-"] * 3000:
        assert session.feed(chunk).held_chars <= 1024 + 100


def test_only_what_may_become_a_term_is_held():
    session = Scanner(Policy(recognisers=(), dictionaries=(BOOK,))).open_stream()
    chunks = ("Our ", "Project ", "goes ", "intolerably ", "at ", "once. ")
    # A word of two letters waits for the next, and "Project goes" still begins as a term does.
    assert [session.feed(chunk).held_chars for chunk in chunks] == [0, 8, 13, 0, 3, 0]


def test_a_term_is_found_whatever_words_it_is_cut_into():
    rng = random.Random(9)
    squeezed = [fold_text(term, "squeezed").decode() for term in TERMS]
    for number in range(300):
        term = rng.choice(squeezed)[:: rng.choice((1, -1))]
        cuts = sorted(rng.sample(range(1, len(term)), min(rng.randrange(4), len(term) - 1)))
        words = " ".join(term[a:b] for a, b in zip([0, *cuts], [*cuts, len(term)], strict=True))
        text = f"so {words}, {number}"
        lane, found = DictionaryLane(BOOK), []
        for chunk in [text] if number % 2 else cut(text, rng):
            found += lane.feed(chunk)
        found += lane.finish()
        assert (3, 3 + len(words)) in [(item.start, item.end) for item in found]


def test_stems_tell_little():
    rng = random.Random(8)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(6000)]
    terms = [" ".join(words[at : at + 2]) for at in range(0, 4000, 2)]
    book = Dictionary.build(terms, key=KEY, label="x")
    stems = {stem for term in terms for stem in stems_of(fold_text(term, "squeezed"))}
    assert len(book.stems) == len(stems)
    assert all(book.begun.may_begin(stem) for stem in stems)
    others = [word[:6].encode() for word in words[4000:] if word[:6].encode() not in stems]
    by_chance = sum(book.begun[stem] for stem in others) / len(others)
    assert 0.09 < by_chance < 0.15  # 1 - e^(-1/8) = 0.1175; 2,000 words: the deviation is 0.7 %
    may = [stem for stem in others if book.begun.may_begin(stem)]
    assert may == [stem for stem in others if book.begun[stem[:3]] and book.begun[stem]]
    assert len(may) / len(others) < 0.06  # 1 - e^(-4000/26^3) + 0.1175 e^(-4000/26^3) = 0.30 of all first three letters
    assert Dictionary.build(["orion"], key=KEY, label="x").stems == b""


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=60), at=st.integers(0, 60), term=st.sampled_from(TERMS))
def test_a_term_between_separators_is_always_found(text, at, term):
    text = f"{text[:at]} {term}, {text[at:]}"
    assert any(text[start:end].strip() == term for start, end in spans(text))


@pytest.mark.parametrize(
    "terms", [["abc"], ["a-b c"], [""], ["x" * 4097], ["one two three four five six seven eight nine"], []]
)
def test_terms_that_cannot_be_kept_are_refused_without_being_shown(terms):
    with pytest.raises(InvalidInput) as caught:
        Dictionary.build(terms, key=KEY, label="x")
    assert not any(term and term in str(caught.value) for term in terms)


@pytest.mark.parametrize(("key", "label"), [(bytes(31), "x"), (KEY, ""), (KEY, "A"), (KEY, "a b"), (KEY, "x" * 41)])
def test_keys_and_labels_are_checked(key, label):
    with pytest.raises(InvalidInput):
        Dictionary.build(["term"], key=key, label=label)


def test_the_file_comes_back_and_holds_no_term(tmp_path):
    BOOK.save(tmp_path / "d")
    assert Dictionary.load(tmp_path / "d", key=KEY) == BOOK
    data = (tmp_path / "d").read_bytes().lower()
    assert not any(fold_text(term, "squeezed") in data for term in TERMS)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o600
    shown = repr(BOOK)
    assert KEY.hex() not in shown
    assert repr(KEY) not in shown
    assert "digests" not in shown
    with pytest.raises(VerificationError, match="another key"):
        Dictionary.load(tmp_path / "d", key=bytes(32))
    with pytest.raises(InvalidInput):
        Dictionary.load(tmp_path / "missing", key=KEY)


def test_no_byte_can_be_changed(tmp_path):
    BOOK.save(tmp_path / "d")
    whole = (tmp_path / "d").read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole))]
    for data in [*changed, *(whole[:end] for end in range(0, len(whole), 5)), whole + b"\0"]:
        with pytest.raises(VerificationError):
            Dictionary.parse(data, what="d", key=KEY)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200), framed=st.booleans())
def test_any_bytes_are_refused(data, framed):
    with pytest.raises(VerificationError):
        Dictionary.parse(b"STXDICT\2" + data if framed else data, what="d", key=KEY)


def test_whoever_holds_the_key_cannot_write_nonsense_either(tmp_path):
    from stanch.scan.dictionary import _code  # noqa: PLC0415 - the code that a holder of the key can compute

    BOOK.save(tmp_path / "d")
    whole = (tmp_path / "d").read_bytes()
    size = int.from_bytes(whole[8:12], "little")
    header = json.loads(whole[12 : 12 + size])
    wrong = [
        header | {"count": 4}, header | {"count": 0}, header | {"fold": "other"}, header | {"label": "A B"},
        header | {"more": 1}, {k: v for k, v in header.items() if k != "words"}, header | {"words": [0]},
        header | {"words": []}, header | {"lengths": []}, header | {"lengths": [1 << 20]}, header | {"words": [9]}, [],
        header | {"stems": header["stems"] + 1}, header | {"stems": -1}, header | {"words": [1]},
    ]  # fmt: skip
    for document in wrong:
        text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        body = whole[:8] + len(text).to_bytes(4, "little") + text + whole[12 + size : -32]
        with pytest.raises(VerificationError):
            Dictionary.parse(body + _code(KEY, body), what="d", key=KEY)


@pytest.mark.parametrize("gap", ["\u00ad" * 300, "\u200b" * 300, " " * 300, "\u200b" * 200 + " " + "\u200b" * 200])
def test_a_long_gap_cuts_a_whole_text_as_it_cuts_a_stream(gap):
    for text in (f"xx{gap}orion", f"Project{gap}Nightjar", f"élan{gap}vital 9"):
        for whole in (text, f"so {base64.b64encode(text.encode()).decode()} on"):
            lane = DictionaryLane(BOOK)
            found = lane.feed(whole) + lane.finish()
            assert spans(whole) == sorted((item.start, item.end) for item in found)


def test_what_was_no_term_before_is_looked_up_only_once(monkeypatch):
    book = Dictionary.build(["orion", "nightjar"], key=KEY, label="codename")
    looked, digest = [], Dictionary._digest
    monkeypatch.setattr(Dictionary, "_digest", lambda self, word: looked.append(word) or digest(self, word))
    for text in (
        "a house and a mouse",
        "the house of Orion",
        "HOUSE, mouse and orion",
        "Project Nightjar in the house",
    ):
        assert len(book.find(text)) == ("rion" in text) + ("Nightjar" in text)
    assert looked.count(b"house") == looked.count(b"mouse") == 1
    assert set(copy.copy(book).__dict__) == {"label", "words", "lengths", "digests", "stems", "key", "severity"}
