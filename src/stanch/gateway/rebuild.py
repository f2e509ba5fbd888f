"""From what was taken out of an upstream answer to the gateway's own frames: each field through a guard of its own.

Sans-IO, and the same for every dialect. What a frame holds is written by the gateway, a member of a closed set, or was
released by the guard.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from stanch.crypto import hmac_sha256
from stanch.crypto.hashes import Hasher
from stanch.errors import StanchError
from stanch.gateway.dialect import ARGUMENTS, Channel, Ending, Entry, Made, Opened, Part, Reader, Taken, Usage, Writer
from stanch.gateway.fields import unexpected
from stanch.gateway.logprobs import LogprobGate
from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.repetition import Repetition
from stanch.gateway.sse import Event
from stanch.gateway.voice import Voice
from stanch.guard import BORDER, ENCODED_TRAINING_TEXT, TRAINING_TEXT, Action, Guard, Step, check_text
from stanch.scan import SpanIndex, fold_text
from stanch.scan.fold import CodePoints
from stanch.terms import Finding

MAX_ANSWER = 4 << 20
"""Code points of all channels of one answer together."""

_BLOCK = Action.BLOCK  # a member is looked up much slower than a name
_TRAINING = frozenset({TRAINING_TEXT, ENCODED_TRAINING_TEXT})
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Tally:
    """What became of an answer, in numbers.

    Attributes:
        action: The worst verdict of all channels.
        scanned: Code points that the guard was given.
        released: Code points that it released.
        findings: How many findings of each kind.
        usage: The model server's own count, if it gave one.
        drawn: Keyed fingerprints of the protected windows of which at least half was released.
        attempted: Those of the protected windows for which the answer was cut or changed before that.
        entries: How many tokens' log-probabilities were released.
        surprisal: Their sum, negated, in hundredths.
        folded_chars: Folded characters that were compared with the index of training text.
        lone: The windows of it that stood alone among them: folded text, of which digests are recorded.
        held: The most code points that one channel held back.
    """

    action: Action = Action.ALLOW
    scanned: int = 0
    released: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    usage: Usage | None = None
    drawn: set[str] = field(default_factory=set)
    attempted: set[str] = field(default_factory=set)
    entries: int = 0
    surprisal: int = 0
    folded_chars: int = 0
    lone: set[bytes] = field(default_factory=set, repr=False)
    held: int = 0
    _said: dict[Channel, tuple[Hasher, Repetition]] = field(default_factory=dict, repr=False)

    def note(self, action: Action, findings: tuple[Finding, ...]) -> None:
        """Count what one step found."""
        self.action = self.action.worst(action)
        if findings:
            self.findings.update(finding.kind for finding in findings)

    def release(self, channel: Channel, text: str) -> None:
        """Count what was released."""
        self.released += len(text)
        if text:
            if (said := self._said.get(channel)) is None:
                said = self._said[channel] = Hasher("sha256"), Repetition()
            said[0].update(text.encode())
            said[1].push(text)

    def release_entries(self, entries: list[Entry]) -> None:
        """Count log-probabilities that were released."""
        self.entries += len(entries)
        self.surprisal += sum(round(-100 * entry.logprob) for entry in entries)

    def repetition(self) -> tuple[int, int]:
        """Return how many runs of words the released text has, and how many stood earlier in their channel."""
        counted = [said.finish() for _, said in self._said.values()]
        return sum(runs for runs, _ in counted), sum(repeated for _, repeated in counted)

    def forget(self) -> None:
        """Count nothing as released: the whole answer is held."""
        self.released = 0
        self._said.clear()

    def note_compared(self, characters: int, lone: frozenset[bytes]) -> None:
        """Count what the guard of one field compared."""
        self.folded_chars += characters
        self.lone |= lone

    def scan(self, text: str) -> None:
        """Count what one step is given.

        Raises:
            UpstreamProtocol: The answer is too long.
        """
        self.scanned += len(text)
        if self.scanned > MAX_ANSWER:
            raise UpstreamProtocol("the model's server sent too long an answer")

    def completion_tokens(self) -> int:
        """Return what is charged: the server's count, but never below a quarter of the released characters."""
        return max(self.usage.completion if self.usage is not None else 0, -(-self.released // 4))

    def digest(self, mac: Callable[[bytes], bytes]) -> str:
        """Return a keyed digest of the released text, channel by channel; the text itself is kept nowhere."""
        channels = [[*channel, said.digest().hex()] for channel, (said, _) in sorted(self._said.items())]
        return mac(b"stanch/answer/v2\x00" + orjson.dumps(channels)).hex()


class Stream:
    """A streamed answer. :meth:`frames` are to be sent now, those of :meth:`tail` once all is recorded.

    Attributes:
        tally: What became of it so far.
        is_ended: Whether the server ended it in due form.
    """

    def __init__(self, guard: Guard, reader: Reader, writer: Writer, budget_key: bytes) -> None:
        self.tally = Tally()
        self.is_ended = False
        self._budget_key = budget_key
        self._guard = guard
        self._reader = reader
        self._writer = writer
        self._voices: dict[tuple[int, str], Voice] = {}
        self._gates: dict[Channel, LogprobGate] = {}
        self._arguments: dict[Channel, tuple[Voice, list[str]]] = {}  # and what its guard let pass, which is held
        self._finished: dict[int, str] = {}
        self._begun: dict[int, str] = {}  # and what kind of place each is
        self._ending: set[int] = set()  # places that have ended, of which something is still held
        self._opening: list[Opened] = []  # places that have begun behind them
        self._pages = [Made()]
        self._end = ""

    @property
    def is_blocked(self) -> bool:
        """Whether the answer was ended: nothing more of it is ever released."""
        return self.tally.action is _BLOCK

    @property
    def is_whole(self) -> bool:
        """Whether the answer ended in due form, be it without the dialect's last mark where servers leave that out."""
        return self.is_ended or (self._reader.has_choices and self._finished.keys() >= {*self._reader.expected})

    def take(self, *events: Event) -> None:
        """Take upstream events; those in a row that only go on one text are judged together.

        Raises:
            UpstreamProtocol: An event is not allowed here; those before it were taken.
            GuardError: The guard failed.
        """
        for taken in self._read(events):
            if isinstance(taken, Part):
                if not taken.text and taken.channel.choice in self._finished:
                    continue
                self._note_begun(taken.channel.choice, "")
                if self._opening and not self._ending:
                    self._open()
                self._push(taken)
            else:
                self._take(taken)
            if self.is_blocked or self.is_ended:
                return

    def _take(self, taken: Taken) -> None:
        self.tally.usage = taken.usage or self.tally.usage
        # Some servers go on to say nothing of a choice that has ended, beside the usage.
        taken.parts = [part for part in taken.parts if part.text or part.channel.choice not in self._finished]
        self._begin(taken)
        for channel, entries in taken.entries.items():
            text = "".join(part.text for part in taken.parts if part.channel == channel)
            self._gates.setdefault(channel, LogprobGate(self._guard)).push(text, entries)
        for part in taken.parts:
            self._push(part)
        for choice, reason in taken.finished.items():
            self._finish(choice, reason)
        self._end = taken.end or self._end
        if taken.is_last:
            self._close()

    def frames(self) -> list[bytes]:
        """Return the frames of what was taken since; what says nothing makes none."""
        pages, self._pages = self._pages, [Made()]
        return [frame for page in pages for frame in self._writer.frames(page)]

    def _read(self, events: Sequence[Event]) -> Iterator[Taken | Part]:
        """Yield what the events say; texts in a row that go on one channel come as one."""
        waiting: Part | None = None
        while events:
            try:
                taken, count = self._reader.read_events(events)
            except StanchError:
                if waiting is not None:
                    yield waiting
                raise
            events = events[count:]
            part = taken if isinstance(taken, Part) else taken.only_part
            if waiting is not None and (part is None or part.channel != waiting.channel):
                yield waiting
                waiting = None
            if part is None:
                yield taken
            else:
                waiting = part if waiting is None else Part(part.channel, waiting.text + part.text)
        if waiting is not None:
            yield waiting

    def tail(self, incident: str, usage: Usage) -> list[bytes]:
        """Return the last frames: why the answer ended, what it used, and the mark of its end."""
        ending = Ending(self._finished, self._end, usage, incident if self.is_blocked else "")
        return self._writer.tail(ending)

    def count(self) -> None:
        """Add what the fields' guards compared to the tally; belongs to the end, however it came."""
        while self._voices:
            self.tally.note_compared(*self._voices.popitem()[1].compared)

    def _begin(self, taken: Taken) -> None:
        """Note what begins. What ended before it is released now, unless both may be parts of one text."""
        for choice, kind in (
            *((one.choice, one.kind) for one in taken.opened),
            *((one.channel.choice, "") for one in taken.parts),
        ):
            self._note_begun(choice, kind)
        for opened in taken.opened:
            adjoins = all(self._begun[choice] == opened.kind for choice in self._ending)
            for voice in self._voices.values():
                if voice.waiting and voice.waiting[-1].choice in self._ending:
                    if adjoins:
                        self._hear(voice, voice.part())
                    else:
                        self._flush(voice)
        if not self.is_blocked:
            self._opening += taken.opened
            if not self._ending:
                self._open()

    def _note_begun(self, choice: int, kind: str) -> None:
        if choice in self._finished:
            raise unexpected("$ after the end of its choice")
        self._begun.setdefault(choice, kind)

    def _open(self) -> None:
        """Write that places begin."""
        self._pages[-1].opened += self._opening
        self._opening = []

    def _close(self) -> None:
        if not self.is_blocked:
            _check_ends(set(self._begun), self._finished, self._end)
            for voice in self._voices.values():
                self._flush(voice)
        self.is_ended = True

    def _push(self, part: Part) -> None:
        channel = part.channel
        self.tally.scan(part.text)
        if self.is_blocked:
            return
        if channel.field == ARGUMENTS:
            # Held whole: half a call is of no use to a client, and one that is ended must not run.
            held, texts = self._arguments.setdefault(channel, (Voice(self._guard), []))
            texts += self._hold(held, held.say(channel, part.text))
            return
        key = _voice_of(self._reader, channel)
        if (voice := self._voices.get(key)) is None:
            voice = self._voices[key] = Voice(self._guard)
        self._hear(voice, voice.say(channel, part.text))

    def _hear(self, voice: Voice, steps: Iterable[Step]) -> None:
        """Hand on what steps of a voice released, place by place, and count it."""
        for step in steps:
            if step.findings:
                self._note_windows(voice, step.findings, voice.released)
            self.tally.note(step.action, step.findings)
            self.tally.held = max(self.tally.held, step.held_chars)
            first, *others = step.places()
            self._release(voice, first)
            for text in others:
                self._leave(voice.waiting.popleft())
                self._release(voice, text)

    def _hold(self, voice: Voice, steps: Iterable[Step]) -> Iterator[str]:
        """Count what steps found in a text that is held whole, and yield what they let pass."""
        for step in steps:
            self._note_windows(voice, step.findings, 0)
            self.tally.note(step.action, step.findings)
            yield step.text

    def _release(self, voice: Voice, text: str) -> None:
        if not text:
            return
        channel = voice.waiting[0]
        self._write(channel, text)
        if (gate := self._gates.get(channel)) is not None:
            entries = gate.release(text, self.tally.action)
            self._pages[-1].entries.setdefault(channel, []).extend(entries)
            self.tally.release_entries(entries)

    def _write(self, channel: Channel, text: str) -> None:
        self._open_if_waiting(channel.choice)
        text, texts = whole_text(text), self._pages[-1].texts
        self.tally.release(channel, text)
        texts[channel] = texts.get(channel, "") + text

    def _leave(self, channel: Channel) -> None:
        """Note that all of a channel is out; if that was the last of its place, the place ends."""
        self._end_if_out(channel.choice)
        self._pages.append(Made())
        if not self._ending:
            self._open()

    def _end_if_out(self, choice: int) -> None:
        waiting = (channel for voice in self._voices.values() for channel in voice.waiting)
        if choice in self._ending and all(channel.choice != choice for channel in waiting):
            self._ending.remove(choice)
            self._open_if_waiting(choice)
            self._pages[-1].ended.append(choice)

    def _open_if_waiting(self, choice: int) -> None:
        if self._opening and any(opened.choice == choice for opened in self._opening):
            self._open()

    def _note_windows(self, voice: Voice, findings: tuple[Finding, ...], released: int) -> None:
        """Count the windows of copied runs, of which so many code points are out: drawn if half of one can be read."""
        index = self._guard.policy.index
        for finding in findings:
            if index is None or finding.kind not in _TRAINING:
                continue
            first, *second = _windows(index, finding, voice.slice(finding.start, finding.end))
            k, stride = index.params.k, index.params.stride
            # All but the last character of the first window has left the first stage, and a stride less of the second;
            # the second stage may hold more of them back. Nothing of an encoded run is out.
            out = released - finding.start if second else 0
            for window, start, left in ((first, 0, k - 1), *((window, stride, k - stride) for window in second)):
                where = self.tally.drawn if 2 * min(left, out - start) >= k else self.tally.attempted
                where.add(_fingerprint(self._budget_key, window))

    def _finish(self, choice: int, reason: str) -> None:
        """Flush what a choice says, or note that a place ends: in the next one of its kind the text may go on."""
        if (known := self._finished.get(choice)) is not None:
            if known != reason:
                raise unexpected("$ after the end of its choice")
            return
        self._finished[choice] = reason
        for channel in [known for known in self._arguments if known.choice == choice]:
            voice, texts = self._arguments.pop(channel)
            if not self.is_blocked:
                texts += self._hold(voice, voice.finish())
            if not self.is_blocked:
                self._write(channel, "".join(texts))
        if self._reader.has_choices:
            for (of, _), voice in self._voices.items():
                if of == choice:
                    self._flush(voice)
        if not self.is_blocked:
            self._ending.add(choice)
            self._end_if_out(choice)

    def _flush(self, voice: Voice) -> None:
        """Release what is held."""
        if not self.is_blocked:
            self._hear(voice, voice.finish())
        while voice.waiting and not self.is_blocked:
            self._leave(voice.waiting.popleft())


def rebuild_whole(
    guard: Guard, reader: Reader, taken: Taken, writer: Writer, incident: str, prompt: int, *, budget_key: bytes
) -> tuple[bytes, Tally]:
    """Judge a whole answer before its first byte; if one channel is blocked, the whole answer is empty.

    Args:
        guard: The guard.
        reader: Read the answer.
        taken: The answer.
        writer: Writes it.
        incident: What a block would be called.
        prompt: The tokens of the prompt, where the server does not count them.
        budget_key: Makes the fingerprints of protected windows.

    Raises:
        UpstreamProtocol: A choice has no end, or the answer is too long.
        GuardError: The guard failed.
    """
    tally, voices = Tally(usage=taken.usage), dict[tuple[object, ...], dict[Channel, str]]()
    begun = {opened.choice for opened in taken.opened} | {part.channel.choice for part in taken.parts}
    _check_ends(begun, taken.finished, taken.end)
    for channel, said in taken.parts:
        tally.scan(said)
        places = voices.setdefault(channel if channel.field == ARGUMENTS else _voice_of(reader, channel), {})
        places[channel] = places.get(channel, "") + said
    made = Made(opened=taken.opened, ended=list(taken.finished))
    for places in voices.values():
        checked = check_text(guard, *places.values())
        tally.note(checked.action, checked.findings)
        tally.attempted |= _attempted(guard, checked.findings, [*places.values()], budget_key)
        if all(channel.field != ARGUMENTS for channel in places):
            tally.note_compared(*checked.compared)
        for channel, kept in zip(places, checked.texts, strict=True):
            made.texts[channel] = whole_text(kept)
            tally.release(channel, made.texts[channel])
            if channel in taken.entries:
                gate = LogprobGate(guard)
                gate.push(places[channel], taken.entries[channel])
                made.entries[channel] = gate.release(kept, checked.action)
    is_blocked = tally.action == Action.BLOCK
    if is_blocked:
        tally.forget()
        made = Made()
    for entries in made.entries.values():
        tally.release_entries(entries)
    used = Usage(taken.usage.prompt if taken.usage else prompt, tally.completion_tokens())
    return writer.whole(made, Ending(taken.finished, taken.end, used, incident if is_blocked else "")), tally


def _attempted(guard: Guard, findings: tuple[Finding, ...], texts: list[str], budget_key: bytes) -> set[str]:
    """Return fingerprints of the windows for which texts, judged together, were cut or changed."""
    index, found = guard.policy.index, [finding for finding in findings if finding.kind in _TRAINING]
    if index is None or not found:
        return set()
    points = CodePoints()  # the guard counts what this gives
    text = points.push(BORDER.join(texts)) + points.finish()
    windows = (_windows(index, finding, text[finding.start : finding.end]) for finding in found)
    return {_fingerprint(budget_key, window) for of_one in windows for window in of_one}


def _windows(index: SpanIndex, finding: Finding, text: str) -> tuple[bytes, ...]:
    """Return the first two windows of a copied run, which made the guard act; of an encoded one, as it is written."""
    folded, k, stride = fold_text(text, "index"), index.params.k, index.params.stride
    return (folded,) if finding.kind == ENCODED_TRAINING_TEXT else (folded[:k], folded[stride : stride + k])


def _fingerprint(key: bytes, window: bytes) -> str:
    return hmac_sha256(key, b"stanch/drawn/v1\x00" + window)[:8].hex()


def _voice_of(reader: Reader, channel: Channel) -> tuple[int, str]:
    """Return of which answer, and which field of it, a channel is a part."""
    return channel.choice if reader.has_choices else 0, channel.field


def whole_text(text: str) -> str:
    """Return text that UTF-8 can write: half a surrogate pair, which JSON can say, becomes U+FFFD."""
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def _check_ends(begun: set[int], finished: Mapping[int, str], end: str) -> None:
    """Refuse an answer of which something began and did not end, or that says nothing of its end."""
    if begun - finished.keys() or not (finished or end):
        raise UpstreamProtocol("the model's server ended its answer without saying why")
