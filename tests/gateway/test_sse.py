"""Event streams: the examples of the standard, every way of cutting, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.sse import Event, EventParser, write_event


def parse(data):
    return EventParser().feed(data)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
         [("", "first event"), ("", "second event")]),
        (b"data\n\ndata\ndata\n\ndata:", [("", ""), ("", "\n")]),
        (b"data:test\n\ndata: test\n\n", [("", "test"), ("", "test")]),
        (b"event: add\ndata: 1\n\ndata: 2\n\n", [("add", "1"), ("", "2")]),
        (b"event: lost\n\ndata: 2\n\n", [("", "2")]),
        (b"\xef\xbb\xbfdata: bom\r\rdata: cr\r\n\r\n", [("", "bom"), ("", "cr")]),
        (b"data: \xef\xbb\xbfinside\n\n\xef\xbb\xbfdata: not at the start\n\n", [("", "\ufeffinside")]),
        (b"Data: case\nretry: 5\nunknown: x\n\ndata: ok\n\n", [("", "ok")]),
        (b"data: never ended\n", []),
    ],
)  # fmt: skip
def test_the_standard_is_kept(stream, events):
    assert parse(stream) == [Event(*event) for event in events]


pieces = st.sampled_from(
    [
        b"data:",
        b"data",
        b"event: e",
        b" ",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b":",
        b"\xc3\xa9",
        b"x",
        b"\xef\xbb\xbf",
        b"id",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=40), st.data())
def test_events_do_not_depend_on_the_cuts(parts, data):
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser, found = EventParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == parse(stream) == reference(stream)


def reference(stream):
    """A second reading, straight from the text of the standard, over the whole stream at once."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events, data, name = [], "", ""
    for line in text.split("\n")[:-1]:
        if line == "":
            if data:
                events.append(Event(name, data[:-1]))
            data, name = "", ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value[1:] if value[:1] == " " else value
            data += value + "\n" if field == "data" else ""
            name = value if field == "event" else name
    return events


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_the_one_error(data):
    try:
        assert all(isinstance(event, Event) for event in parse(data))
    except UpstreamProtocol:
        with pytest.raises(UnicodeDecodeError):
            data.decode()


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: x\n" * 20, b"data: x\n:" + b"y" * 90])
def test_an_event_has_a_limit_whatever_it_is_made_of(stream):
    parser = EventParser(limit=64)
    with pytest.raises(UpstreamProtocol):  # noqa: PT012 - any of the bytes may be the one
        for at in range(len(stream)):
            parser.feed(stream[at : at + 1])


def test_the_limit_is_of_one_event_and_not_of_the_stream():
    parser = EventParser(limit=64)
    assert len(parser.feed(b"data: 0123456789\n\n" * 100)) == 100


def test_what_is_written_is_read_back():
    assert parse(write_event(b'{"a":1}', "named")) == [Event("named", '{"a":1}')]
