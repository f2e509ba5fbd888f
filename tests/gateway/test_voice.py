"""What a field of an answer keeps of what it said: as much as the next place of it can go on from."""

import tracemalloc

from stanch.gateway.dialect import Channel
from stanch.gateway.voice import Voice
from stanch.guard import REPLAYED, Action, Guard, GuardPolicy, Step

PIECE = "A sentence of forty characters, or so...".ljust(200, ".")
PIECES = 5000


class Through:
    """A stream that lets everything through, and keeps nothing."""

    compared = (0, frozenset())

    def feed(self, text):
        return Step(text, Action.ALLOW, (), 0)

    def finish(self):
        return Step("", Action.ALLOW, (), 0)


class Noted(Guard):
    """A guard that notes what its streams are told of what was said before."""

    def __init__(self):
        super().__init__(GuardPolicy())
        self.after = []

    def open(self, after=""):
        self.after.append(after)
        return Through()


def test_a_long_answer_is_not_kept_and_its_end_is_told_to_the_next_place():
    guard = Noted()
    voice = Voice(guard)
    first, second = Channel(0, "text"), Channel(2, "text")
    said = [f"{number}{PIECE}" for number in range(PIECES)]
    list(voice.say(first, said[0]))
    tracemalloc.start()
    try:
        for text in said[1:]:
            list(voice.say(first, text))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100_000 < sum(map(len, said)) / 5
    list(voice.finish())
    list(voice.say(second, "Next."))
    list(voice.finish())
    list(voice.say(Channel(4, "text"), "Last."))
    assert guard.after == ["", "".join(said)[-REPLAYED:], ("".join(said) + "Next.")[-REPLAYED:]]
