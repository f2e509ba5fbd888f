"""Both stages: what blocks, what is redacted, chunk invariance, error latch, what shows."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.guard import CANARY, TRAINING_TEXT, Action, Guard, GuardError, GuardPolicy, check_text
from stanch.scan import FINE, Policy, Scanner, SpanIndex
from stanch.terms import Severity

EMAIL = "ana.diaz@example.org"
TOKEN = "AKIAIOSFODNN7EXAMPLQ"
PRIVATE_KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEvQIBADANBgkq' * 3}\n-----END RSA PRIVATE KEY-----"
SPLITS = 25


def play(guard, chunks):
    """Return what came out, and the verdict."""
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


def split(text, rng):
    if rng.random() < 0.01:
        return list(text)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.choice((1, 1, 2, 3, 5))))
    return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


@pytest.fixture(scope="module")
def guard(policy):
    return Guard(policy)


def test_clean_text_passes(guard):
    text = "Your ticket is closed. Is there anything else? Then have a good day."
    assert play(guard, [text]) == (text, Action.ALLOW)
    assert check_text(guard, text).findings == ()


def test_personal_data_is_redacted(guard):
    assert play(guard, ["Mail ana.di", f"az@example.org or {EMAIL}."]) == ("Mail <EMAIL> or <EMAIL>.", Action.REDACT)
    checked = check_text(guard, f"Mail {EMAIL} now")
    assert (checked.text, checked.action) == ("Mail <EMAIL> now", Action.REDACT)
    (finding,) = checked.findings
    assert (finding.kind, finding.start, finding.end, finding.reason) == ("email", 5, 25, "action: redact")


@pytest.mark.parametrize("secret", [TOKEN, PRIVATE_KEY, "IBAN DE89 3704 0044 0532 0130 00"])
def test_secrets_block(guard, secret):
    text = f"Here it is: {secret} and more"
    for chunks in ([text], list(text)):
        out, action = play(guard, chunks)
        assert action == Action.BLOCK
        assert "Here it is: ".startswith(out.removesuffix("IBAN "))


def test_severity_from_which_findings_block():
    lax = Guard(GuardPolicy(block_from=Severity.CRITICAL))
    strict = Guard(GuardPolicy(block_from=Severity.INFO))
    assert check_text(lax, f"Mail {EMAIL} now").action == Action.REDACT
    assert play(strict, [f"Mail {EMAIL} now"]) == ("Mail ", Action.BLOCK)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda canary: canary,
        str.upper,
        lambda canary: canary[::-1],
        lambda canary: canary[::-1].upper(),
        " ".join,
        lambda canary: "\n".join(canary.split()),
        lambda canary: canary.replace(" ", "").replace("-", "…"),
        lambda canary: "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in canary),
    ],
)
def test_a_canary_blocks_however_it_is_written(guard, canary, disguise):
    text = "It is: " + disguise(canary) + ". More."
    for chunks in ([text], list(text)):
        out, action = play(guard, chunks)
        assert (out, action) == ("It is: ", Action.BLOCK)
    (finding,) = check_text(guard, text).findings
    assert (finding.kind, finding.severity) == (CANARY, Severity.CRITICAL)


def test_no_setting_lets_a_canary_pass(canary):
    lax = Guard(GuardPolicy(canaries=(canary,), block_from=Severity.CRITICAL))
    assert check_text(lax, canary).action == Action.BLOCK


def test_a_canary_inside_another_finding_blocks():
    """The email starts first and labels both; the verdict is still that of the canary."""
    guard = Guard(GuardPolicy(canaries=("exampleorg4417zulu",)))
    text = "Mail ana.diaz@example.org 4417 zulu and more"
    for chunks in ([text], list(text), [text[:27], text[27:]]):
        out, action = play(guard, chunks)
        assert action == Action.BLOCK
        assert out in {"Mail <EMAIL>", "Mail "}
    assert play(guard, [text]) == play(guard, list(text))


def test_training_text_blocks_with_the_length_of_the_run(guard, library):
    text = "Well: " + library[3][20:200] + " done."
    checked = check_text(guard, text)
    assert (checked.text, checked.action) == ("", Action.BLOCK)
    (finding,) = checked.findings
    assert (finding.kind, finding.severity) == (TRAINING_TEXT, Severity.CRITICAL)
    assert 6 <= finding.start < 6 + 16
    assert 186 - 16 <= finding.end <= 186
    assert finding.reason.endswith("characters in one run (limit 47)")
    out, action = play(guard, text)
    assert action == Action.BLOCK
    assert len(out) <= len("Well: ") + 48


def test_what_the_cut_would_hide_is_dropped(words):
    """An address in the middle of which the text is cut does not leave as the harmless half that was seen of it."""
    inside = 0
    for lead in range(16):
        source = words(random.Random(2), 30)[: 10 + lead] + " ana.diaz-lopez@example.org " + words(random.Random(4), 30)
        index = SpanIndex.build([source], key=bytes(32), params=FINE)
        guard = Guard(GuardPolicy(index=index))
        text = "z " + source[lead % 3 :]
        out, action = play(guard, [text])
        assert action == Action.BLOCK
        assert "ana." not in out
        assert not out.endswith(" ana")
        assert play(guard, list(text)) == (out, action)
        (finding,) = [f for f in guard.open().feed(text).findings if f.kind == TRAINING_TEXT]
        inside += "@" in text[: finding.start + 32] and "org" not in text[: finding.start + 32]
    assert inside >= 3


def recipe(rng, words, library, canary):
    parts = []
    for _ in range(rng.randint(1, 3)):
        source = rng.choice(library)
        at = rng.randrange(0, len(source) - 120)
        parts += [
            words(rng, 2),
            rng.choice(
                (
                    EMAIL,
                    "Dr Ana Diaz-Lopez",
                    canary,
                    canary[::-1],
                    canary[: rng.randrange(1, len(canary))],
                    TOKEN,
                    "IBAN DE89 3704 0044 0532 0130 00",
                    "+49 30 901820",
                    "4111 1111 1111 1111",
                    source[at : at + rng.randint(20, 90)],
                    EMAIL + canary,
                    "x@" + canary + ".org",
                    "\ud835\udc00\ud835\udc01 é ⒜",
                )
            ),
        ]
    return rng.choice((" ", " ", "", ", ")).join(parts)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chunks_leave_no_trace(guard, library, words, canary, seed):
    rng = random.Random(seed)
    text = recipe(rng, words, library, canary)
    whole = play(guard, [text])
    checked = check_text(guard, text)
    assert checked.action == whole[1]
    assert checked.text == ("" if whole[1] == Action.BLOCK else whole[0])
    for _ in range(SPLITS):
        assert play(guard, split(text, rng)) == whole


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_output_holds_a_finding_or_the_beginning_of_one(guard, canary, words, seed):
    rng = random.Random(seed)
    secret = rng.choice((canary, canary[::-1], EMAIL))
    before = words(rng, rng.randint(1, 6)) + " "
    stream, text, released = guard.open(), before + secret, ""
    while text:
        size = rng.randint(1, 9)
        released += stream.feed(text[:size]).text
        text = text[size:]
        assert before.startswith(released)
    assert secret not in released + stream.finish().text


def test_blocked_stays_blocked(guard, canary):
    stream = guard.open()
    assert stream.feed(canary + " is it. ").action == Action.BLOCK
    for step in (stream.feed("harmless text. "), stream.feed(""), stream.finish(), stream.feed("x"), stream.finish()):
        assert (step.text, step.action, step.findings, step.held_chars) == ("", Action.BLOCK, (), 0)


def test_held_characters_are_told(guard):
    stream = guard.open()
    assert stream.feed("it is fine and ").held_chars == 1
    step = stream.feed("mail ana.diaz@exam")
    assert step.held_chars > 0
    assert "ana" not in step.text


def test_an_error_inside_is_final_and_says_nothing(guard, monkeypatch):
    stream = guard.open()
    stream.feed("All is well. ")

    def broken(text, **_):
        raise ValueError(text)

    monkeypatch.setattr(stream._reading.session, "step", broken)
    with pytest.raises(GuardError) as caught:
        stream.feed("very private words")
    error = caught.value
    assert "private" not in f"{error} {error.why} {error.next_step}"
    assert error.__cause__ is error.__context__ is None
    monkeypatch.undo()
    for call in (lambda: stream.feed("more"), stream.finish):
        with pytest.raises(GuardError, match="has ended"):
            call()


@pytest.mark.parametrize("chunk", [None, b"bytes", 7])
def test_what_is_no_text_ends_the_stream(guard, chunk):
    stream = guard.open()
    with pytest.raises(GuardError):
        stream.feed(chunk)
    with pytest.raises(GuardError):
        stream.feed("text")


def test_an_interrupt_leaves_the_stream_dead(guard, monkeypatch):
    stream = guard.open()

    def interrupted(_text, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream._reading.session, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.feed("text that is long enough for no stage to hold all of it. " * 20)
    monkeypatch.undo()
    with pytest.raises(GuardError):
        stream.finish()


def test_a_finished_stream_takes_nothing(guard):
    stream = guard.open()
    stream.finish()
    with pytest.raises(GuardError):
        stream.feed("text")
    with pytest.raises(GuardError):
        stream.finish()


def test_streams_do_not_share_state(guard, canary):
    one, other = guard.open(), guard.open()
    assert one.feed(canary + " is it. ").action == Action.BLOCK
    assert other.feed("fine. ").action == Action.ALLOW


def test_surrogate_pairs_cut_in_two_are_joined(guard, library):
    """Bold letters outside the basic plane, as a source of UTF-16 units gives them, hide nothing."""
    copied = library[1][:100]
    bold = "".join(chr(0x1D41A + ord(c) - 97) if c.isalpha() else c for c in copied)
    units = bold.encode("utf-16-le", "surrogatepass")
    halves = [units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)]
    assert play(guard, halves) == play(guard, [bold])
    assert play(guard, halves)[1] == Action.BLOCK


def test_policies_refuse_canaries_that_would_be_found_everywhere():
    with pytest.raises(InvalidInput):
        GuardPolicy(canaries=("abc",))


def test_nothing_shows_text(guard, canary):
    step = guard.open().feed("private words. ")
    shown = f"{step!r} {guard.policy!r} {check_text(guard, 'private words')!r} {guard.open()!r}"
    assert "private" not in shown
    assert canary not in shown


def test_pieces_join_to_the_released_text(canary):
    scanner = Scanner(Policy(literals=(canary,)))
    session = scanner.open_stream()
    released = session.feed(f"Mail {EMAIL} or {canary} ok. ")
    assert "".join(text for text, *_ in released.pieces) == released.text
    assert [piece for piece in released.pieces if piece[1]] == [
        ("<EMAIL>", "email", Severity.INFO, 5),
        ("<CANARY>", "canary", Severity.CRITICAL, 5 + len(EMAIL) + 4),
    ]
