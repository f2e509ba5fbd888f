"""From what was taken out of an upstream answer to the gateway's own frames: each channel through a guard of its own.

Sans-IO. What a frame holds is written here, a member of a closed set, or was released by the guard.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import orjson

from stanch.crypto import hmac_sha256
from stanch.gateway.dialect import ARGUMENTS, AnswerReader, Call, Channel, Dialect, Part, Taken, Usage
from stanch.gateway.fields import unexpected
from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.sse import DONE, write_event
from stanch.guard import TRAINING_TEXT, Action, Guard, GuardStream, check_text
from stanch.scan import fold_text
from stanch.scan.fold import CodePoints
from stanch.terms import Finding, JsonValue

MAX_ANSWER = 4 << 20
"""Code points of all channels of one answer together."""
FILTERED = "content_filter"

_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_KEPT = 8192
_LONE = re.compile("[\ud800-\udfff]")
Delta = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Header:
    """What the gateway writes into each frame of an answer.

    Attributes:
        id: Random letters and digits; ids of the answer and of its calls are made of them.
        created: Seconds since 1970.
        model: The name that the client asked for.
        dialect: How frames look.
    """

    id: str
    created: int
    model: str
    dialect: Dialect

    def frame(self, choices: list[JsonValue], more: Delta | None = None, *, whole: bool = False) -> bytes:
        """Return a frame, or the body of a whole answer."""
        chat = self.dialect == "chat"
        kind = ("chat.completion" if whole else "chat.completion.chunk") if chat else "text_completion"
        head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}", "object": kind}
        body = orjson.dumps(head | {"created": self.created, "model": self.model, "choices": choices} | (more or {}))
        return body if whole else write_event(body)

    def call(self, call: Call, arguments: str = "") -> Delta:
        """Return a tool call; its name is one of the request's."""
        function: Delta = {"name": call.name, "arguments": arguments}
        return {"index": call.call, "id": f"call_{self.id}{call.choice:x}{call.call:x}", "type": "function",
                "function": function}  # fmt: skip

    def choice(self, index: int, delta: Delta, finish: str | None = None) -> JsonValue:
        """Return a choice of a streamed frame."""
        content = {"delta": delta} if self.dialect == "chat" else {"text": delta.get("text", "")}
        return {"index": index, **content, "logprobs": None, "finish_reason": finish}


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
    folded_chars: int = 0
    lone: int = 0
    held: int = 0
    texts: dict[Channel, list[str]] = field(default_factory=dict, repr=False)

    def note(self, channel: Channel, text: str, action: Action, findings: tuple[Finding, ...]) -> None:
        """Count what one step released."""
        self.action = self.action.worst(action)
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
    """A streamed answer. :meth:`take` returns frames to send now, :meth:`tail` those to send once all is recorded."""

    def __init__(self, guard: Guard, reader: AnswerReader, header: Header, budget_key: bytes) -> None:
        self.tally = Tally()
        self._budget_key = budget_key
        self._recent: dict[Channel, _Recent] = {}
        self._guard = guard
        self._reader = reader
        self._header = header
        self._open: dict[Channel, GuardStream] = {}
        self._arguments: dict[Channel, list[str]] = {}
        self._finished: dict[int, str] = {}
        self._begun: set[int] = set()

    @property
    def is_blocked(self) -> bool:
        """Whether the answer was ended: nothing more of it is ever released."""
        return self.tally.action == Action.BLOCK

    def take(self, data: str) -> list[bytes]:
        """Take the data of one upstream event; at most one frame for each choice comes out, and none that is empty.

        Raises:
            UpstreamProtocol: The event is not allowed here.
            GuardError: The guard failed.
        """
        taken = self._reader.read_event(data)
        self.tally.usage = taken.usage or self.tally.usage
        deltas: dict[int, Delta] = {}
        for part in taken.parts:
            if part.channel.choice in self._finished:
                raise unexpected("$.choices after finish_reason")
            self._push(part, deltas)
        self._begin_calls(taken, deltas)
        for choice, reason in taken.finished.items():
            self._finish(choice, reason, deltas)
        return [
            self._header.frame([self._header.choice(choice, self._with_role(choice, delta))])
            for choice, delta in deltas.items()
            if delta
        ]

    def count(self) -> None:
        """Add what the channels' guards compared to the tally; belongs to the end, however it came."""
        while self._open:
            self.tally.note_counts(self._open.popitem()[1].counts)

    def close(self) -> None:
        """Say that the upstream ended its answer in due form.

        Raises:
            UpstreamProtocol: A choice has no end.
        """
        begun = self._begun | {channel.choice for channel in (*self._open, *self._arguments)}
        if not self.is_blocked and (not self._finished or begun - self._finished.keys()):
            raise UpstreamProtocol("the model's server ended its answer without a finish_reason")

    def tail(self, incident: str, usage: Usage | None) -> list[bytes]:
        """Return the last frames: why each choice ended, the usage if it is wanted, and the end of the stream."""
        more: Delta = {"stanch": {"incident": incident}} if self.is_blocked else {}
        reasons = self._finished
        if self.is_blocked:
            reasons = dict.fromkeys(self._begun | self._finished.keys() | {0}, FILTERED)
        frames = [
            self._header.frame([self._header.choice(choice, {}, reason)], more)
            for choice, reason in sorted(reasons.items())
        ]
        if usage is not None:
            frames.append(self._header.frame([], {"usage": write_usage(usage)}))
        return [*frames, DONE]

    def _push(self, part: Part, deltas: dict[int, Delta]) -> None:
        channel = part.channel
        self.tally.scan(part.text)
        if channel.field == ARGUMENTS:
            # Held whole: escapes can spell a value that only shows once they are decoded.
            self._arguments.setdefault(channel, []).append(part.text)
            return
        if self.is_blocked:
            return
        if channel not in self._open:
            self._open[channel] = self._guard.open()
            self._recent[channel] = _Recent()
        self._recent[channel].push(part.text)
        step = self._open[channel].feed(part.text)
        self._release(channel, step.text, deltas)
        self._recent[channel].released += len(step.text)
        self._note_drawn(channel, step.findings)
        self.tally.note(channel, step.text, step.action, step.findings)
        self.tally.held = max(self.tally.held, step.held_chars)

    def _note_drawn(self, channel: Channel, findings: tuple[Finding, ...]) -> None:
        """Count the windows of a copied run that was cut: those that the client can read at least half of."""
        index = self._guard.policy.index
        for finding in findings:
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

    def _begin_calls(self, taken: Taken, deltas: dict[int, Delta]) -> None:
        if self.is_blocked:
            return
        for call in taken.calls:
            if call.choice in self._finished:
                raise unexpected("$.choices after finish_reason")
            calls = deltas.setdefault(call.choice, {}).setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101 - for mypy; written nowhere else before a choice ends
            calls.append(self._header.call(call))

    def _finish(self, choice: int, reason: str, deltas: dict[int, Delta]) -> None:
        """Flush the channels of a choice; why it ended is said in the tail."""
        if self._finished.setdefault(choice, reason) != reason:
            raise unexpected("$.choices.finish_reason")
        for channel in [known for known in self._arguments if known.choice == choice]:
            text = "".join(self._arguments.pop(channel))
            if not self.is_blocked:
                released, action, findings = check_arguments(self._guard, text)
                self._release(channel, released, deltas)
                self.tally.note(channel, released, action, findings)
        for channel in [known for known in self._open if known.choice == choice]:
            if self.is_blocked:
                break
            step = self._open[channel].finish()
            self._release(channel, step.text, deltas)
            self._recent[channel].released += len(step.text)
            self._note_drawn(channel, step.findings)
            self.tally.note(channel, step.text, step.action, step.findings)

    def _release(self, channel: Channel, text: str, deltas: dict[int, Delta]) -> None:
        if not text:
            return
        delta = deltas.setdefault(channel.choice, {})
        if channel.field == ARGUMENTS:
            calls = delta.setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101 - for mypy; see above
            calls.append({"index": channel.call, "function": {"arguments": whole_text(text)}})
            return
        before = delta.get(channel.field, "")
        assert isinstance(before, str)  # noqa: S101 - for mypy; a channel's field holds text
        delta[channel.field] = before + whole_text(text)

    def _with_role(self, choice: int, delta: Delta) -> Delta:
        if choice in self._begun or self._header.dialect != "chat":
            self._begun.add(choice)
            return delta
        self._begun.add(choice)
        return {"role": "assistant", **delta}


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


def rebuild_whole(guard: Guard, taken: Taken, header: Header, incident: str) -> tuple[bytes, Tally]:
    """Judge a whole answer before its first byte; if one channel is blocked, the whole answer is empty.

    Raises:
        UpstreamProtocol: A choice has no end, or the answer is too long.
        GuardError: The guard failed.
    """
    tally = Tally(usage=taken.usage)
    if not taken.finished or any(part.channel.choice not in taken.finished for part in taken.parts):
        raise UpstreamProtocol("the model's server ended its answer without a finish_reason")
    released: dict[Channel, str] = {}
    joined: dict[Channel, str] = {}
    for part in taken.parts:
        joined[part.channel] = joined.get(part.channel, "") + part.text
    for channel, text in joined.items():
        tally.scan(text)
        if channel.field == ARGUMENTS:
            kept, action, findings = check_arguments(guard, text)
        else:
            checked = check_text(guard, text)
            tally.note_counts(checked.counts)
            kept, action, findings = checked.text, checked.action, checked.findings
        released[channel] = kept
        tally.note(channel, kept, action, findings)
        tally.attempted += sum(finding.kind == TRAINING_TEXT for finding in findings)
    is_blocked = tally.action == Action.BLOCK
    if is_blocked:
        tally.released, tally.texts = 0, {}
    choices = [
        _whole_choice(header, choice, reason, taken.calls, {} if is_blocked else released)
        for choice, reason in sorted(
            (dict.fromkeys(taken.finished, FILTERED) if is_blocked else taken.finished).items()
        )
    ]
    used = Usage(taken.usage.prompt if taken.usage else 0, tally.completion_tokens())
    more: Delta = {"stanch": {"incident": incident}} if is_blocked else {}
    return header.frame(choices, {"usage": write_usage(used), **more}, whole=True), tally


def check_arguments(guard: Guard, text: str) -> tuple[str, Action, tuple[Finding, ...]]:
    """Judge JSON text as it is written and as its strings read; what only shows decoded ends the answer."""
    written = check_text(guard, text)
    decoded = _ESCAPE.sub(_unescape, text)
    if decoded == text or written.action == Action.BLOCK:
        return written.text, written.action, written.findings
    read = check_text(guard, decoded)
    if read.action == Action.ALLOW:
        return written.text, written.action, written.findings
    return "", Action.BLOCK, read.findings


def whole_text(text: str) -> str:
    """Return text that UTF-8 can write: half a surrogate pair, which JSON can say, becomes U+FFFD."""
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def write_usage(usage: Usage) -> dict[str, JsonValue]:
    """Return the usage as clients read it."""
    total = usage.prompt + usage.completion
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": total}


def _whole_choice(
    header: Header, choice: int, reason: str, calls: list[Call], released: dict[Channel, str]
) -> JsonValue:
    own = {channel: whole_text(text) for channel, text in released.items() if channel.choice == choice}
    if header.dialect == "completions":
        return {"index": choice, "text": own.get(Channel(choice, "text"), ""), "logprobs": None,
                "finish_reason": reason}  # fmt: skip
    message: Delta = {"role": "assistant", "content": None if reason != FILTERED else ""}
    message |= {channel.field: text for channel, text in own.items() if channel.field != ARGUMENTS}
    made: list[JsonValue] = [
        {name: value for name, value in header.call(call, own.get(Channel(choice, ARGUMENTS, call.call), "")).items()
         if name != "index"}
        for call in calls
        if call.choice == choice and reason != FILTERED
    ]  # fmt: skip
    if made:
        message["tool_calls"] = made
    return {"index": choice, "message": message, "logprobs": None, "finish_reason": reason}


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _SHORT.get(match[2], match[2])
