"""What a text says with its JSON escapes read: no secret leaves, chunk borders leave no trace, code passes."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.guard import ENCODED_TRAINING_TEXT, TRAINING_TEXT, Action, Guard, check_text
from stanch.scan.found import Found
from stanch.scan.stream import StreamClosedError
from stanch.terms import Severity

EMAIL = "ana.diaz@example.org"


def units(text):
    """Escape every letter, those beyond the first plane in surrogate pairs."""
    data = text.encode("utf-16-be")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))


def one_letter(text):
    return text[:9] + units(text[9:10]) + text[10:]


def words_quoted(text):
    return text.replace(" ", '\\"\\n\\/')


def mathematical(text):
    return units("".join(chr(0x1D41A + ord(c) - 97) if "a" <= c <= "z" else c for c in text))


ESCAPES = {
    "all": units,
    "HEX": lambda text: units(text).upper().replace("\\U", "\\u"),
    "every other": lambda text: "".join(units(c) if at % 2 else c for at, c in enumerate(text)),
    "one letter": one_letter,
    "between words": words_quoted,
    "surrogate pairs": mathematical,
}


@pytest.fixture(scope="module")
def guard(policy):
    return Guard(policy)


def play(guard, chunks):
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("what", ["training text", "canary", "reversed canary"])
@pytest.mark.parametrize("before", ['{"text":"', "It is so. " * 600 + "It reads: "])
def test_nothing_of_an_escaped_secret_leaves(guard, library, canary, escape, what, before):
    secret = {"training text": library[2][7:127], "canary": canary, "reversed canary": canary[::-1]}[what]
    text = f'{before}{ESCAPES[escape](secret)}"}} and more'
    most = 0 if "canary" in what else len(ESCAPES[escape](secret[:56]))
    for chunks in ([text], list(text), [text[at : at + 7] for at in range(0, len(text), 7)]):
        out, action = play(guard, chunks)
        assert action == Action.BLOCK
        assert text.startswith(out)
        assert len(out) <= len(before) + most
    assert check_text(guard, text).text == ""


def test_a_run_is_called_encoded_only_if_an_escape_lies_in_it(guard, library):
    run = library[2][7:127]
    for text, kind in ((f"\\n{run}", TRAINING_TEXT), (one_letter(run), ENCODED_TRAINING_TEXT)):
        stream = guard.open()
        found = [one for piece in text for one in stream.feed(piece).findings]
        assert [one.kind for one in found] == [kind]
        assert text[found[0].start : found[0].end] in text


@pytest.mark.parametrize(
    ("text", "out", "action"),
    [
        (f'{{"to":"{EMAIL}\\n"}}', '{"to":"<EMAIL>\\n"}', Action.REDACT),
        (f"\\n {EMAIL} and {units('x')}", f"\\n <EMAIL> and {units('x')}", Action.REDACT),
        ("\\u0041na.diaz@example.org", "<EMAIL>", Action.REDACT),
        ("bo\\u0072n on 12.03.1975.", "bo\\u0072n on <DATE-OF-BIRTH>.", Action.REDACT),
        ('C:\\temp\\new "\\\\" \\d+ \\', 'C:\\temp\\new "\\\\" \\d+ \\', Action.ALLOW),
        ("\\ud83d\\ude00 \\ud83d \\ude00 \\ud83d\\u0041 \\u12", "\\ud83d\\ude00 \\ud83d \\ude00 \\ud83d\\u0041 \\u12",
         Action.ALLOW),
    ],
)  # fmt: skip
def test_what_is_written_plainly_is_labelled_and_the_rest_passes(guard, text, out, action):
    for chunks in ([text], list(text)):
        assert play(guard, chunks) == (out, action)


def test_what_is_told_of_text_that_has_left_is_refused_unless_all_of_it_has(guard):
    session = guard.policy.scanner.open_stream()
    released = session.feed("It is so. ").text
    assert len(released) > 3

    def found(start, end):
        return Found(start, end, "email", Severity.INFO, 1.0, "x", 1, "")

    session.tell(found(0, 2), 0)
    session.tell(found(12, 14), 10)
    with pytest.raises(StreamClosedError):
        session.tell(found(1, 12), 1)
    assert released + session.feed("ab cd ef").text + session.finish().text == "It is so. ab<EMAIL>d ef"


PERSONAL = (
    EMAIL, "+49 30 123456789", "93.184.216.34", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "born on 12.03.1975",
    "licence plate B-MW 1234", "Hauptstra\u00dfe 5\n10115 Berlin",
)  # fmt: skip


def test_json_says_what_the_text_in_it_would_say(guard):
    """An ordinary call of a tool: values after line breaks and quotes are labelled, and it stays JSON."""
    text = "".join(f"{mark}{value}{mark}\nand \u2022{value}\t" for value in PERSONAL for mark in ("\n", '"', "\u201c"))
    labelled = check_text(guard, text)
    assert labelled.action == Action.REDACT
    for written in (json.dumps({"body": text}), json.dumps({"body": text}, ensure_ascii=False)):
        checked = check_text(guard, written)
        assert json.loads(checked.text) == {"body": labelled.text}
        assert {found.kind for found in checked.findings} == {found.kind for found in labelled.findings}
        for size in (1, 2, 7):
            chunks = [written[at : at + size] for at in range(0, len(written), size)]
            assert play(guard, chunks) == (checked.text, Action.REDACT)


def test_an_escape_hides_no_value_that_has_begun_before_the_first_one(guard):
    for value in PERSONAL[1:4]:
        for before in ("", "It is so. " * 600):
            text = f"{before}{value[:5]}{units(value[5:])}{units(' ')}."
            for chunks in ([text], list(text)):
                out, action = play(guard, chunks)
                assert action == Action.REDACT
                assert "<" in out
                assert value[:5] not in out


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chunks_leave_no_trace(guard, library, canary, words, seed):
    rng = random.Random(seed)
    personal = rng.choice(PERSONAL)
    secrets = (canary, library[rng.randrange(12)][: rng.randint(20, 130)], words(rng, 5), personal, "ana 😀 \ud83d")
    parts = []
    for _ in range(rng.randint(1, 4)):
        said = ESCAPES[rng.choice(list(ESCAPES))](rng.choice(secrets[:4]))
        whole = rng.choice((said, said[rng.randrange(9) :], said[: rng.randrange(len(said))], json.dumps(secrets[4])))
        parts += [rng.choice((words(rng, 2), personal, "\\", '"')), whole]
    text = rng.choice((" ", "", '\\"', "\n", "\\n", "\\u2022")).join(parts)
    whole = play(guard, [text])
    for count in (1, 3, 9):
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(count))
        assert play(guard, [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]) == whole
    assert play(guard, list(text)) == whole
