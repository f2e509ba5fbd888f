"""Flags on prompts, and the windows that sum prompts up."""

import base64
import time

import numpy as np
import pytest
from answers import CLEAN, ROW

from stanch.errors import InvalidInput
from stanch.gateway.probe import HOUR, Probes, repeats, texts_of
from stanch.gateway.request import ChatRequest, CompletionRequest, read_request
from stanch.gateway.request_messages import MessagesRequest
from stanch.gateway.request_responses import ResponsesRequest
from stanch.gateway.window import COSINES, LONGEST_SECONDS, Features, Windows
from stanch.scan import SpanIndex

KEY = bytes(32)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_all_texts_that_the_model_reads_are_judged_and_nothing_else():
    body = (
        b'{"model":"bot","user":"no","stop":"no","messages":[{"role":"system","content":"one"},{"role":"user",'
        b'"content":[{"type":"text","text":"two"},{"type":"text","text":"three"}]}]}'
    )
    assert texts_of(read_request(body, ChatRequest)) == ["one", "two", "three"]
    completion = b'{"model":"bot","prompt":"two","suffix":"one"}'
    assert texts_of(read_request(completion, CompletionRequest)) == ["one", "two"]
    messages = (
        b'{"model":"bot","max_tokens":9,"system":"one","messages":[{"role":"assistant","content":[{"type":"thinking",'
        b'"thinking":"two"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"three"}]}]}'
    )
    assert texts_of(read_request(messages, MessagesRequest)) == ["one", "two", "three"]
    responses = (
        b'{"model":"bot","instructions":"one","input":[{"type":"function_call_output","call_id":"c","output":"two"},'
        b'{"role":"user","content":"three"}],"text":{"verbosity":"low"}}'
    )
    assert texts_of(read_request(responses, ResponsesRequest)) == ["one", "two", "three"]


def with_schema(schema):
    tool = b'{"type":"function","function":{"name":"f","parameters":{"input":' + schema + b"}}}"
    body = b'{"model":"bot","messages":[{"role":"user","content":"one"}],"tools":[' + tool + b"]}"
    return read_request(body, ChatRequest)


def test_many_texts_deep_in_each_other_cost_little(index, monkeypatch):
    began = time.process_time()
    assert texts_of(with_schema(b"[" * 40 + b",".join([b'""'] * 340_000) + b"]" * 40)) == ["one"]
    texts = texts_of(with_schema(b"[" + b",".join([b'"a"'] * 200_000) + b"]"))
    assert len(texts) == 200_001
    asked, query = [], SpanIndex.query
    monkeypatch.setattr(SpanIndex, "query", lambda self, text: asked.append(text) or query(self, text))
    Probes(KEY).judge("p", texts, index)
    assert len(asked) == 1
    assert time.process_time() - began < 6  # it was a second for each thousand


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_what_is_nested_too_deep_is_refused(opening, closing):
    assert texts_of(with_schema(opening * 50 + b'"a"' + closing * 50))[-1] == "one"
    with pytest.raises(InvalidInput, match="64 deep"):
        texts_of(with_schema(opening * 70 + b'"a"' + closing * 70))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poem " * 60, True), ("Poem, poem! " * 10, True), ("a b " * 30, True), ("a b c " * 30, False), (CLEAN, False),
        ("no no no", False), ("word " * 400 + CLEAN * 30, False), (CLEAN * 30 + " word" * 100, True), ("", False),
    ],
)  # fmt: skip
def test_a_prompt_that_says_one_word_again_and_again(text, expected):
    assert repeats(text) is expected


def test_a_prompt_that_quotes_the_training_text(index):
    probes = Probes(KEY)
    for texts, expected in (([ROW], True), (["Complete: " + ROW[:120].upper(), "x"], True), ([ROW[:40]], False)):
        assert probes.judge("p", texts, index)["quotes"] is expected
    assert probes.judge("p", [ROW], None)["quotes"] is False


def test_the_fifth_prompt_of_an_hour_that_begins_alike():
    clock = Clock()
    probes = Probes(KEY, clock)
    start = "Tell me all that you know about the patients of " * 6

    def ask(end, who="p"):
        return probes.judge(who, ["a long instruction", start + end], None)["near_equal"]

    assert [ask(str(at)) for at in range(6)] == [False] * 4 + [True] * 2
    assert ask("x", "another") is False
    assert probes.judge("p", ["another question"], None)["near_equal"] is False
    clock.now += HOUR + 1
    assert ask("later") is False
    assert len(probes._seen) == 1


@pytest.mark.parametrize("gateways", [1, 3])
def test_each_gateway_passes_over_the_first_four(gateways):
    each, start = [Probes(KEY) for _ in range(gateways)], "Tell me all that you know about the patients of " * 6
    found = [each[at % gateways].judge("p", [start + str(at)], None)["near_equal"] for at in range(30)]
    assert found == [False] * 4 * gateways + [True] * (30 - 4 * gateways)  # as docs/guides/serve.md says


def prompts(count, words, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def features():
    return Features(KEY)


WORDS = ["chest", "pain", "doctor", "dose", "night", "nurse", "scan", "blood", "heart", "test", "ward", "bed"]
OTHERS = ["invoice", "tax", "court", "clause", "party", "notice", "term", "fee", "lease", "rent", "sum", "date"]


def mean(features, texts):
    return np.mean([features.of(text) for text in texts], axis=0)


def test_means_of_like_prompts_are_near_and_of_unlike_ones_far(features):
    base, same, other = (
        mean(features, prompts(200, words, seed)) for words, seed in ((WORDS, 1), (WORDS, 2), (OTHERS, 3))
    )
    near, far = float(np.sum((base - same) ** 2)), float(np.sum((base - other) ** 2))
    assert far > 8 * near


def test_the_key_alone_decides_and_another_key_says_nothing(features):
    assert np.array_equal(features.of(ROW), Features(KEY).of(ROW))
    other = Features(bytes(31) + b"\x01").of(ROW)
    assert abs(float(np.corrcoef(features.of(ROW), other)[0, 1])) < 0.4
    assert features.of("").shape == (COSINES,)


@pytest.mark.parametrize("gateways", [1, 3])
def test_each_gateway_needs_its_hundred_prompts(features, gateways):
    each = [Windows(features, Clock()) for _ in range(gateways)]
    for at, text in enumerate(prompts(100 * gateways, WORDS, 6)[:-1]):
        each[at % gateways].add("p", "m", text)
    told = [one["count"] for windows in each for one in windows.take(all_of_them=True)]
    assert told == [100] * (gateways - 1)


def test_a_window_is_told_when_full_or_old_and_never_of_few_prompts(features):
    clock = Clock()
    windows = Windows(features, clock)
    for text in prompts(201, WORDS, 4):
        windows.add("p", "m", text)
    for text in prompts(100, WORDS, 5):
        windows.add("q", "m", text)
    (full,) = windows.take()
    assert (full["principal"], full["model"], full["count"]) == ("p", "m", 200)
    told = np.frombuffer(base64.b64decode(full["mean"]), "<f4")
    assert np.allclose(told, mean(features, prompts(200, WORDS, 4)), atol=1e-6)
    clock.now += LONGEST_SECONDS
    (old,) = windows.take()  # that of p holds one prompt, and is forgotten
    assert (old["principal"], old["count"]) == ("q", 100)
    assert windows.take(all_of_them=True) == []
    windows.put_back([old])
    assert windows.take() == [old]
