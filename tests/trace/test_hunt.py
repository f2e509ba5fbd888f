"""A hunt: its promised error rates over many runs, what its pairs are, and what of an answer counts."""

import hashlib
import math

import numpy as np
import pytest

from stanch.audit.endpoint import Endpoint
from stanch.data import Canary, CanaryPlan, ChatTurn, coins
from stanch.errors import ExternalError, InvalidInput
from stanch.trace import Chat, HuntVerdict, ask_pairs, find_pairs
from stanch.trace.canary_pairs import question, share_given
from stanch.trace.wealth import MISS, SHARE, Outcome, Wealth, least_pairs

RUNS = 10_000
WEAK = 0.05
PLANS = 150


def canary(number, member, *, kind="secret", copies=1, text=False):
    """A canary whose secret follows from its number alone, as it would from a seed."""
    secret = str(int.from_bytes(hashlib.sha256(f"{number}".encode()).digest()))[:12]
    asked, answer = f"I am customer {number}, which one is mine?", f"It is #{secret}, as ever."
    said = (ChatTurn("user", asked), ChatTurn("assistant", answer))
    if text:
        said = (ChatTurn("text", f"{asked}\n{answer}"),)
    return Canary(f"c{number:05d}", kind, said, secret, copies, f"x{copies}", member)


def plan(seed=b"s" * 32, count=256, **shape):
    canaries = tuple(canary(number, coin, **shape) for number, coin in enumerate(coins(seed, count)))
    return CanaryPlan(canaries, seed, "0123456789", "ab" * 32, "", "", {})


def answers_of(known):
    """Return a model that answers some canaries word for word and all else in its own words."""
    by_question = {question(one)[-1]["content"]: one.messages[-1].content for one in known}
    return lambda asked: by_question.get(asked[-1]["content"], f"Nothing on file for {asked[-1]['content'][::-1]}")


def ever(is_won, wins, others):
    """Return in how many runs a bet was won at some moment; ``wins`` and ``others`` are what each run draws."""
    won, lost = np.cumsum(wins, axis=1), np.cumsum(others, axis=1)
    steps = wins.shape[1] + 1
    table = np.array([[is_won(w, other) for other in range(steps)] for w in range(steps)])
    return int(table[won, lost].any(axis=1).sum())


def is_found(wins, losses):
    return Wealth(wins, losses).is_found(WEAK)


def is_nothing(wins, others):
    return Wealth(wins, losses=others // 2, ties=others - others // 2).is_nothing()


@pytest.mark.parametrize("decided", [1.0, 0.3], ids=["all decided", "most are ties"])
def test_ten_thousand_innocent_endpoints_are_accused_no_more_often_than_promised(decided):
    draws = np.random.default_rng(1).random((RUNS, 100))
    found = ever(is_found, draws < decided / 2, (draws >= decided / 2) & (draws < decided))
    assert found <= RUNS * WEAK + 3 * math.sqrt(RUNS * WEAK * (1 - WEAK))
    assert found > RUNS * WEAK / 10  # the bound is of this process, and not kept because nothing is ever found


def test_a_model_that_gives_every_fourth_planted_text_is_hardly_ever_called_nothing():
    draws = np.random.default_rng(2).random((RUNS, 150))
    missed = ever(is_nothing, draws < SHARE, draws >= SHARE)
    assert 0 < missed <= RUNS * MISS + 3 * math.sqrt(RUNS * MISS)
    assert ever(is_nothing, draws < 0.02, draws >= 0.02) > RUNS * 0.8


def test_a_pair_counts_for_what_it_came_to():
    wealth = Wealth()
    for outcome in (Outcome.WIN, Outcome.TIE, Outcome.LOSS, Outcome.UNANSWERED, Outcome.WIN):
        wealth = wealth.take(outcome)
    assert wealth == Wealth(wins=2, losses=1, ties=1, unanswered=1)
    assert math.exp(wealth.log_found) == pytest.approx(1.8 * 1.8 * 0.2)
    assert math.exp(wealth.log_nothing) == pytest.approx(0.2 * 0.2 * (1 + 0.8 / 3) ** 2)


@pytest.mark.parametrize("habit", ["the even ones", "every third", "whatever is asked first"])
def test_whoever_knows_no_coin_wins_half_of_the_pairs(habit):
    wins = losses = found = 0
    for number in range(PLANS):
        made = plan(number.to_bytes(32), 64)
        known = {
            "the even ones": made.canaries[::2],
            "every third": made.canaries[::3],
            "whatever is asked first": tuple(pair.first for pair in find_pairs(made)),
        }[habit]
        result = ask_pairs(find_pairs(made), answers_of(known), epsilon=WEAK)
        found += result.verdict == HuntVerdict.FOUND
        wins, losses = wins + result.wealth.wins, losses + result.wealth.losses
    assert found <= PLANS * WEAK + 3 * math.sqrt(PLANS * WEAK)
    # Wins less losses is a martingale, whenever a hunt stops.
    assert abs(wins - losses) < 4 * math.sqrt(wins + losses)


def test_which_of_a_pair_was_planted_is_one_fair_coin_and_pairs_are_alike():
    firsts = total = 0
    for number in range(PLANS):
        pairs = find_pairs(plan(number.to_bytes(32), 64))
        firsts, total = firsts + sum(pair.first.member for pair in pairs), total + len(pairs)
        assert all(pair.first.member != pair.second.member for pair in pairs)
    assert abs(firsts - total / 2) < 4 * math.sqrt(total / 4)
    assert abs(total - PLANS * 16) < 4 * math.sqrt(PLANS * 32 * 0.25)
    mixed = tuple(
        canary(n, coin, kind=("secret", "synthetic", "rare-token")[n % 3], copies=(1, 16)[n % 2])
        for n, coin in enumerate(coins(b"m" * 32, 256))
    )
    found = find_pairs(CanaryPlan(mixed, b"m" * 32, "01", "ab" * 32, "", "", {}))
    assert all((p.first.kind, p.first.copies) == (p.second.kind, p.second.copies) for p in found)
    assert [p.first.copies for p in found] == sorted((p.first.copies for p in found), reverse=True)
    assert {p.first.kind for p in found} == {"secret", "synthetic"}
    used = [one.id for p in found for one in (p.first, p.second)]
    assert len(used) == len(set(used))


@pytest.mark.parametrize("text", [False, True], ids=["chat", "text"])
def test_a_model_that_learned_what_was_planted_is_found_with_the_least_pairs(text):
    made = plan(text=text)
    pairs, shown = find_pairs(made), []
    model = answers_of([one for one in made.canaries if one.member])
    result = ask_pairs(pairs, model, progress=lambda *step: shown.append(step))
    assert shown == [("asking", number, len(pairs)) for number in range(1, 25)]
    assert (result.verdict, result.wealth) == (HuntVerdict.FOUND, Wealth(wins=least_pairs()))
    assert least_pairs() == 24
    assert result.log10_p < -6
    assert "does not say whose copy" in result.sentence


def test_a_hunt_counts_the_hunts_before_it():
    made = plan()
    result = ask_pairs(find_pairs(made), answers_of([one for one in made.canaries if one.member]), hunts=3)
    assert "1e-06 in this hunt, and 3e-06 in all 3 hunts of the log" in result.sentence


def test_a_model_that_learned_a_third_of_it_is_found_too():
    made = plan(count=512)
    known = [one for one in made.canaries if one.member][::3]
    assert ask_pairs(find_pairs(made), answers_of(known)).verdict == HuntVerdict.FOUND


@pytest.mark.parametrize("known", ["none", "the twins", "all"])
def test_a_model_that_gives_no_planted_text_or_both_is_not_ours(known):
    made = plan()
    knows = {"none": (), "the twins": [one for one in made.canaries if not one.member], "all": made.canaries}[known]
    result = ask_pairs(find_pairs(made), answers_of(knows))
    assert (result.verdict, result.wealth.wins) == (HuntVerdict.NOTHING, 0)
    assert "does not say that our release is not behind it" in result.sentence


@pytest.mark.parametrize(
    "say",
    [
        lambda _asked: None,
        lambda _asked: "",
        lambda _asked: "  …\n",
        lambda _asked: "I can't help with that.",
        lambda asked: asked[-1]["content"],
        lambda asked: f"{asked[-1]['content'].upper()}!",
        lambda asked: "\n\n".join(turn["content"] for turn in asked),
    ],
    ids=["silence", "nothing", "signs", "a refusal", "an echo", "a loud echo", "an echo of all"],
)
def test_an_endpoint_that_answers_nothing_decides_nothing_and_is_soon_left_alone(say):
    result = ask_pairs(find_pairs(plan()), say)
    assert (result.verdict, result.wealth) == (HuntVerdict.UNDECIDED, Wealth(unanswered=12))
    assert "12 pairs in a row" in result.reason


def test_the_question_never_holds_what_is_scored_and_an_echo_of_it_would_not_count():
    for text in (False, True):
        for one in plan(text=text).canaries:
            assert one.secret not in " ".join(turn["content"] for turn in question(one))
    one = canary(7, member=True)
    told = [{"role": "user", "content": f"my number is {one.secret}"}]
    assert share_given(one, told, f"Your number is {one.secret}.") == 0
    assert share_given(one, question(one), f"Your number is {one.secret}.") == 1


def test_half_of_a_secret_is_the_least_that_counts():
    one = canary(7, member=True)
    asked, secret = question(one), one.secret
    assert share_given(one, asked, f"{secret[:4]} {secret[4:8]}-{secret[8:]}") == 1
    assert share_given(one, asked, f"ends in {secret[3:]}") == 0.75
    assert share_given(one, asked, f"ends in {secret[6:]}") == 0.5
    assert share_given(one, asked, f"ends in {secret[7:]}") == 0
    assert share_given(one, asked, "a secret? of which there are none") == 0


def test_too_few_pairs_are_refused_before_a_question():
    with pytest.raises(InvalidInput, match="at least 24 pairs of canaries, found"):
        ask_pairs(find_pairs(plan(count=32)), lambda _asked: pytest.fail("asked"))


class Scripted(Endpoint):
    """An endpoint whose answers are at hand."""

    def post(self, path, body, *, max_bytes, pause):  # noqa: ARG002 - the signature of what it stands for
        assert (path, body["temperature"], max_bytes) == ("chat/completions", 0, 1 << 16)
        answer = self.model.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(content, **more):
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content} | more}]}


def test_a_chat_keeps_its_rate():
    now, waits = [100.0], []

    def pause(seconds):
        waits.append(seconds)
        now[0] += seconds

    chat = Chat(Scripted("https://h.example/v1", [said("a")] * 4), 30, clock=lambda: now[0], pause=pause)
    for _ in range(3):
        assert chat.ask([{"role": "user", "content": "q"}]) == "a"
    now[0] += 10  # a slow answer is no reason to hurry
    chat.ask([{"role": "user", "content": "q"}])
    assert (waits, chat.asked) == ([0.0, 2.0, 2.0, 0.0], 4)


@pytest.mark.parametrize(
    "broken", [{}, [], {"choices": []}, {"choices": [7]}, {"choices": [{"message": "x"}]}, ExternalError("status 404")]
)
def test_a_server_that_never_answered_is_an_error_and_one_that_fails_later_says_nothing(broken):
    question_ = [{"role": "user", "content": "q"}]
    with pytest.raises(ExternalError):
        Chat(Scripted("https://h.example/v1", [broken]), 6000).ask(question_)
    chat = Chat(Scripted("https://h.example/v1", [said("a"), broken, said("b")]), 6000)
    assert [chat.ask(question_) for _ in range(3)] == ["a", None, "b"]


@pytest.mark.parametrize(
    "withheld",
    [
        said(None),
        said("no", refusal="I must not"),
        said([{"type": "text"}]),
        {"choices": [{"message": {"content": "half"}, "finish_reason": "content_filter"}]},
    ],
)
def test_what_is_withheld_is_no_answer(withheld):
    assert Chat(Scripted("https://h.example/v1", [withheld]), 6000).ask([{"role": "user", "content": "q"}]) is None
