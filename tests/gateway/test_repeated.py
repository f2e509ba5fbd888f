"""Events of one shape: what is read the short way is what strict reading takes, or it is read strictly."""

import json
from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st

from stanch.gateway.dialect import Channel, Part, Taken
from stanch.gateway.dialect_openai import OpenAiReader
from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.repeated import RepeatedEvent
from stanch.gateway.sse import Event

REQUEST = SimpleNamespace(choices=1, alternatives=None, tool_names=frozenset())
TEXTS = st.text(max_size=8) | st.sampled_from(["content", "x", '"', "\\", '","content":"', "delta", "\u2028", "\x7f"])


def frame(text, *, field="content", **more):
    choice = {"index": 0, "delta": {field: text}, "finish_reason": None}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps(head | {"choices": [choice]} | more, ensure_ascii=False)


def read(reader, data):
    """Return what a reader takes, or that it refuses."""
    try:
        taken, count = reader.read_events([Event("", data)])
        assert count == 1
        return Taken(parts=[taken]) if isinstance(taken, Part) else taken
    except UpstreamProtocol as error:
        return str(error)


@given(st.lists(TEXTS | st.tuples(TEXTS, TEXTS), min_size=2, max_size=6), st.sampled_from(["content", "refusal"]))
@example(["a", ("b", "c"), "d"], "content")
def test_a_reader_with_a_memory_takes_what_one_without_takes(texts, field):
    remembering = OpenAiReader(REQUEST, is_chat=True)
    for text in texts:
        data = frame(text, field=field) if isinstance(text, str) else frame(text[0], field=field, id=text[1])
        assert read(remembering, data) == read(OpenAiReader(REQUEST, is_chat=True), data)


@given(st.text(alphabet='"\\{}[]:, \nab0', max_size=30))
def test_bytes_put_in_the_place_of_a_text_are_never_believed(raw):
    """What is not a plain string would change the shape of the event: it is read strictly, and mostly refused."""
    remembering = OpenAiReader(REQUEST, is_chat=True)
    known = frame("known")
    read(remembering, known)
    forged = known.replace("known", raw)
    assert read(remembering, forged) == read(OpenAiReader(REQUEST, is_chat=True), forged)


def test_the_short_way_is_taken_and_learned_anew():
    def taken(*frames, name=""):
        part, count = repeated.read([Event(name, frame) for frame in frames])
        return part and part.text, count

    repeated, said = RepeatedEvent(), Part(Channel(0, "content"), "a")
    assert taken(frame("a")) == (None, 0)
    repeated.learn(Event("", frame("a")), said)
    assert taken(frame("the next")) == ("the next", 1)
    assert taken(frame("the next"), frame(" one"), frame('say "x"'), frame("y")) == ("the next one", 2)
    for other in (frame('say "x"'), frame("b", usage=None), frame("a")[:-1]):
        assert taken(other, frame("a")) == (None, 0)
    assert taken(frame("the next"), name="named") == (None, 0)
    repeated.learn(Event("", frame("content", id="content")), said._replace(text="content"))
    assert taken(frame("z", id="content")) == ("z", 1)


def test_what_was_read_with_something_left_out_is_not_remembered():
    reader = OpenAiReader(REQUEST, is_chat=True)
    for number in range(3):
        read(reader, frame("a", padding="p"))
        assert reader.dropped.total() == number + 1
