"""From what was taken out of an upstream answer to the gateway's own frames: each channel through a guard of its own.

Sans-IO, and the same for every dialect. What a frame holds is written by the gateway, a member of a closed set, or was
released by the guard.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from stanch.crypto import hmac_sha256
from stanch.gateway.dialect import ARGUMENTS, Channel, Ending, Made, Part, Reader, Taken, Usage, Writer
from stanch.gateway.fields import unexpected
from stanch.gateway.logprobs import LogprobGate
from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.sse import Event
from stanch.guard import ENCODED_TRAINING_TEXT, TRAINING_TEXT, Action, Guard, GuardStream, Step, check_text
from stanch.scan import fold_text
from stanch.scan.fold import CodePoints
from stanch.terms import Finding

MAX_ANSWER = 4 << 20
"""Code points of all channels of one answer together."""

_KEPT = 8192
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
        attempted: How many protected windows were stopped before that.
        entries: How many tokens' log-probabilities were released.
        folded_chars: Folded characters that were compared with the index of training text.
        lone: Windows of it that stood alone among them.
        held: The most code points that one channel held back.
    """

    action: Action = Action.ALLOW
    scanned: int = 0
    released: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    usage: Usage | None = None
    drawn: set[str] = field(default_factory=set)
    attempted: int = 0
    entries: int = 0
    folded_chars: int = 0
    lone: int = 0
    held: int = 0
    texts: dict[Channel, list[str]] = field(default_factory=dict, repr=False)

    def note(self, channel: Channel, text: str, action: Action, findings: tuple[Finding, ...]) -> None:
        """Count what one step released."""
        self.action = self.action.worst(action)
        if findings:
            self.findings.update(finding.kind for finding in findings)
        self.released += len(text)
        if text:
            self.texts.setdefault(channel, []).append(whole_text(text))

    def note_counts(self, counts: tuple[int, int]) -> None:
        """Count what the guard of one channel compared."""
        self.folded_chars += counts[0]
        self.lone += counts[1]

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

    def digest(self, key: bytes) -> str:
        """Return a keyed digest of the released text, channel by channel; the text itself is kept nowhere."""
        channels = [[*channel, "".join(texts)] for channel, texts in sorted(self.texts.items())]
        return hmac_sha256(key, b"stanch/answer/v1\x00" + orjson.dumps(channels)).hex()


class Stream:
    """A streamed answer. :meth:`take` returns frames to send now, :meth:`tail` those to send once all is recorded.

    Attributes:
        tally: What became of it so far.
        is_ended: Whether the server ended it in due form.
    """

    def __init__(self, guard: Guard, reader: Reader, writer: Writer, budget_key: bytes) -> None:
        self.tally = Tally()
        self.is_ended = False
        self._budget_key = budget_key
        self._recent: dict[Channel, _Recent] = {}
        self._guard = guard
        self._reader = reader
        self._writer = writer
        self._open: dict[Channel, GuardStream] = {}
        self._gates: dict[Channel, LogprobGate] = {}
        self._arguments: dict[Channel, list[str]] = {}
        self._finished: dict[int, str] = {}
        self._begun: set[int] = set()
        self._end = ""

    @property
    def is_blocked(self) -> bool:
        """Whether the answer was ended: nothing more of it is ever released."""
        return self.tally.action == Action.BLOCK

    @property
    def is_whole(self) -> bool:
        """Whether the answer ended in due form, be it without the dialect's last mark where servers leave that out."""
        ended = self._reader.ends_with_choices and bool(self._finished) and not self._begun - self._finished.keys()
        return self.is_ended or ended

    def take(self, event: Event) -> list[bytes]:
        """Take an upstream event; a frame that says nothing does not come out.

        Raises:
            UpstreamProtocol: The event is not allowed here.
            GuardError: The guard failed.
        """
        taken = self._reader.read_event(event)
        self.tally.usage = taken.usage or self.tally.usage
        begun = {opened.choice for opened in taken.opened} | {part.channel.choice for part in taken.parts}
        if begun & self._finished.keys():
            raise unexpected("$ after the end of its choice")
        self._begun |= begun
        made = Made(opened=[] if self.is_blocked else taken.opened)
        for channel, entries in taken.entries.items():
            text = "".join(part.text for part in taken.parts if part.channel == channel)
            self._gates.setdefault(channel, LogprobGate(self._guard)).push(text, entries)
        for part in taken.parts:
            self._push(part, made)
        for choice, reason in taken.finished.items():
            self._finish(choice, reason, made)
        self._end = taken.end or self._end
        if taken.is_last:
            self._close()
        return self._writer.frames(made)

    def tail(self, incident: str, usage: Usage) -> list[bytes]:
        """Return the last frames: why the answer ended, what it used, and the mark of its end."""
        ending = Ending(self._finished, self._end, usage, incident if self.is_blocked else "")
        return self._writer.tail(ending)

    def count(self) -> None:
        """Add what the channels' guards compared to the tally; belongs to the end, however it came."""
        while self._open:
            self.tally.note_counts(self._open.popitem()[1].counts)

    def _close(self) -> None:
        if not self.is_blocked:
            _check_ends(self._begun, self._finished, self._end)
        self.is_ended = True

    def _push(self, part: Part, made: Made) -> None:
        channel = part.channel
        self.tally.scan(part.text)
        if channel.field == ARGUMENTS:
            # Held whole: half a call is of no use to a client, and one that is ended must not run.
            self._arguments.setdefault(channel, []).append(part.text)
            return
        if self.is_blocked:
            return
        if channel not in self._open:
            self._open[channel] = self._guard.open()
            self._recent[channel] = _Recent()
        self._recent[channel].push(part.text)
        self._step(channel, self._open[channel].feed(part.text), made)

    def _step(self, channel: Channel, step: Step, made: Made) -> None:
        """Hand on what a step of the guard released, and count it."""
        self._release(channel, step.text, made)
        self._recent[channel].released += len(step.text)
        if channel in self._gates:
            entries = self._gates[channel].release(step.text, step.action)
            made.entries.setdefault(channel, []).extend(entries)
            self.tally.entries += len(entries)
        self._note_drawn(channel, step.findings)
        self.tally.note(channel, step.text, step.action, step.findings)
        self.tally.held = max(self.tally.held, step.held_chars)

    def _note_drawn(self, channel: Channel, findings: tuple[Finding, ...]) -> None:
        """Count the windows of a copied run that was cut: those that the client can read at least half of."""
        index = self._guard.policy.index
        for finding in findings:
            self.tally.attempted += finding.kind == ENCODED_TRAINING_TEXT  # nothing of an encoded run is out
            if index is None or finding.kind != TRAINING_TEXT:
                continue
            run = fold_text(self._recent[channel].slice(finding.start, finding.end), "index")
            k, stride = index.params.k, index.params.stride
            # All but the last character of the first window has left the first stage, and a stride less of the second;
            # the second stage may hold more of them back.
            out = self._recent[channel].released - finding.start
            for start, released in ((0, k - 1), (stride, k - stride)):
                if 2 * min(released, out - start) >= k:
                    window = run[start : start + k]
                    self.tally.drawn.add(hmac_sha256(self._budget_key, b"stanch/drawn/v1\x00" + window)[:8].hex())
                else:
                    self.tally.attempted += 1

    def _finish(self, choice: int, reason: str, made: Made) -> None:
        """Flush the channels of a choice."""
        if (known := self._finished.get(choice)) is not None:
            if known != reason:
                raise unexpected("$ after the end of its choice")
            return
        self._finished[choice] = reason
        for channel in [known for known in self._arguments if known.choice == choice]:
            text = "".join(self._arguments.pop(channel))
            if not self.is_blocked:
                checked = check_text(self._guard, text)
                self._release(channel, checked.text, made)
                self.tally.note(channel, checked.text, checked.action, checked.findings)
        for channel in [known for known in self._open if known.choice == choice]:
            if self.is_blocked:
                break
            self._step(channel, self._open[channel].finish(), made)
        if not self.is_blocked:
            made.ended.append(choice)

    @staticmethod
    def _release(channel: Channel, text: str, made: Made) -> None:
        if text:
            made.texts[channel] = made.texts.get(channel, "") + whole_text(text)


class _Recent:
    """The last code points that a channel was given; a run that is cut lies within them.

    Attributes:
        released: How many code points of the channel have left, labels of redacted findings counted as they read.
    """

    def __init__(self) -> None:
        self._points = CodePoints()  # the guard counts what this gives
        self._text = ""
        self._start = 0
        self.released = 0

    def push(self, text: str) -> None:
        """Forget what is too old, and add text."""
        if (old := len(self._text) - _KEPT) > _KEPT:
            self._text, self._start = self._text[old:], self._start + old
        self._text += self._points.push(text)

    def slice(self, start: int, end: int) -> str:
        """Return what stands between two positions of the channel's text."""
        return self._text[max(0, start - self._start) : max(0, end - self._start)]


def rebuild_whole(guard: Guard, taken: Taken, writer: Writer, incident: str, prompt: int) -> tuple[bytes, Tally]:
    """Judge a whole answer before its first byte; if one channel is blocked, the whole answer is empty.

    Args:
        guard: The guard.
        taken: The answer.
        writer: Writes it.
        incident: What a block would be called.
        prompt: The tokens of the prompt, where the server does not count them.

    Raises:
        UpstreamProtocol: A choice has no end, or the answer is too long.
        GuardError: The guard failed.
    """
    tally = Tally(usage=taken.usage)
    begun = {opened.choice for opened in taken.opened} | {part.channel.choice for part in taken.parts}
    _check_ends(begun, taken.finished, taken.end)
    joined: dict[Channel, str] = {}
    for part in taken.parts:
        joined[part.channel] = joined.get(part.channel, "") + part.text
    made = Made(opened=taken.opened, ended=list(taken.finished))
    for channel, text in joined.items():
        tally.scan(text)
        checked = check_text(guard, text)
        kept, action, findings = checked.text, checked.action, checked.findings
        if channel.field != ARGUMENTS:
            tally.note_counts(checked.counts)
        made.texts[channel] = whole_text(kept)
        if channel in taken.entries:
            gate = LogprobGate(guard)
            gate.push(text, taken.entries[channel])
            made.entries[channel] = gate.release(kept, action)
        tally.note(channel, kept, action, findings)
        tally.attempted += sum(finding.kind in _TRAINING for finding in findings)
    is_blocked = tally.action == Action.BLOCK
    if is_blocked:
        tally.released, tally.texts, made = 0, {}, Made()
    tally.entries = sum(len(entries) for entries in made.entries.values())
    used = Usage(taken.usage.prompt if taken.usage else prompt, tally.completion_tokens())
    return writer.whole(made, Ending(taken.finished, taken.end, used, incident if is_blocked else "")), tally


def whole_text(text: str) -> str:
    """Return text that UTF-8 can write: half a surrogate pair, which JSON can say, becomes U+FFFD."""
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def _check_ends(begun: set[int], finished: Mapping[int, str], end: str) -> None:
    """Refuse an answer of which something began and did not end, or that says nothing of its end."""
    if begun - finished.keys() or not (finished or end):
        raise UpstreamProtocol("the model's server ended its answer without saying why")
