"""Typed reading of ledger entries: what the detectors see of them, and nothing else."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Raw, Struct

from stanch.errors import InvalidInput
from stanch.ledger import ocsf

FEATURES = 256
"""Length of the mean feature vector of a window of prompts."""

INFER, WINDOW, ALERT_STATE = "gateway.infer", "gateway.window", "watch.alert.state"
_Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Text = Annotated[str, Meta(max_length=512)]
_Payload = TypeVar("_Payload", "Intent", "Outcome", "Window", "Closing")


class Probe(Struct, frozen=True, gc=False):
    """Which suspicious forms a prompt has: it quotes the corpus, repeats one word, or nearly equals earlier ones."""

    quotes: bool | _Count = False
    repeats: bool | _Count = False
    near_equal: bool | _Count = False

    @property
    def is_set(self) -> bool:
        """Whether the prompt has any of them."""
        return bool(self.quotes or self.repeats or self.near_equal)


class Intent(Struct, frozen=True, gc=False):
    """What the intent of a request to a model records.

    Attributes:
        client: Keyed digest of what kind of program asked.
        tools: Keyed digests of the names of the tools that the model may call.
    """

    dialect: _Text = ""
    client: _Text = ""
    network: _Text = ""
    adapters: tuple[_Text, ...] = ()
    tools: Annotated[tuple[_Text, ...], Meta(max_length=128)] = ()
    probe: Probe = Probe()


class Outcome(Struct, frozen=True, gc=False):
    """What the outcome of a request to a model records.

    Attributes:
        findings: How many findings of each kind.
        released: Characters that the client received.
        drawn: Protected windows that left with this answer.
        lone: Different index hits that no other hit follows, in ``folded_chars`` characters of folded text.
        lone_windows: Keyed digests of their windows, at most 256.
        lone_expected: How many of them chance gives in so many characters with the index at hand, in millionths; None
            in entries of an earlier release, which told no windows either.
        runs: Runs of four words in what was released; none in entries of an earlier release.
        repeated: How many of them stood earlier in it.
        entries: Tokens whose log-probabilities were released.
        surprisal: Sum of these, negated, in hundredths.
        error: Slug of the error that ended it.
        terms: Findings of the owner's dictionaries.
        refused: How many requests a refusal stands for.
    """

    verdict: _Text = ""
    findings: dict[_Text, _Count] = {}
    released: _Count = 0
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    logprob_bits: _Count = 0
    drawn: _Count = 0
    attempted: _Count = 0
    lone: _Count = 0
    lone_windows: Annotated[tuple[_Text, ...], Meta(max_length=256)] = ()
    lone_expected: _Count | None = None
    folded_chars: _Count = 0
    runs: _Count = 0
    repeated: _Count = 0
    entries: _Count = 0
    surprisal: _Count = 0
    error: _Text = ""
    terms: _Count = 0
    refused: _Count = 1


class Window(Struct, frozen=True, gc=False):
    """The mean feature vector of ``count`` prompts of one principal: base64 of 256 little-endian float32."""

    principal: _Text
    model: _Text
    count: _Count
    mean: Annotated[str, Meta(max_length=4 * -(-4 * FEATURES // 3))]

    def vector(self) -> npt.NDArray[np.float64]:
        """Return the mean.

        Raises:
            InvalidInput: It is not base64 of 256 finite numbers.
        """
        try:
            data = base64.b64decode(self.mean, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput("gateway.window: its mean is not base64") from error
        if len(data) != 4 * FEATURES:
            raise InvalidInput(f"gateway.window: expected {FEATURES} numbers, found {len(data)} bytes")
        found = np.frombuffer(data, "<f4").astype(np.float64)
        if not np.isfinite(found).all():
            raise InvalidInput("gateway.window: its mean holds a number that is not finite")
        return found


class Closing(Struct, frozen=True, gc=False):
    """A step of an alert: the alert's id, its new state, and what it was found to be once it is closed.

    Attributes:
        principal: Whom the alert is about, if one.
        since: When what it is about began, Unix seconds.
        until: When that ended.
    """

    alert: _Text = ""
    to: _Text = ""
    conclusion: _Text = msgspec.field(default="", name="as")
    principal: _Text | None = None
    since: _Count = 0
    until: _Count = 0


Detail: TypeAlias = Intent | Outcome | Window | Closing


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """One entry as detectors see it.

    Attributes:
        index: Its place in the log.
        time: Seconds UTC.
        key: Id of the credential that was used; empty if none is recorded.
        model: Digest of the first model it is about; empty if it is about none.
        subjects: Digests of all artifacts it is about.
        egress: Bytes of weights that were handed out.
        detail: The payload of a request to a model, of a window, or of a step of an alert; None in other entries.
    """

    index: int
    time: int
    kind: str
    phase: str
    principal: str
    key: str = ""
    model: str = ""
    subjects: tuple[str, ...] = ()
    egress: int = 0
    detail: Detail | None = None


Tail: TypeAlias = Iterable[tuple[int, bytes]]


class _Ours(Struct, gc=False):
    phase: Literal["intent", "outcome", "denied", "note"]
    v: Literal[1]
    credential: ocsf.KeyUse | None = None
    egress_bytes: ocsf.Count = 0
    kind: str = ""
    payload: Raw = Raw(b"{}")
    subject: tuple[ocsf.Subject, ...] = ()


class _Unmapped(Struct, gc=False):
    stanch: _Ours


class _Entry(Struct, gc=False):
    """The part of :class:`stanch.ledger.ocsf.Event` that detectors look at; the rest is passed over."""

    actor: ocsf.Actor
    time: ocsf.Count
    unmapped: _Unmapped


_ENTRY = msgspec.json.Decoder(_Entry)
_INTENT, _OUTCOME = msgspec.json.Decoder(Intent), msgspec.json.Decoder(Outcome)
_WINDOW, _CLOSING = msgspec.json.Decoder(Window), msgspec.json.Decoder(Closing)


def read_entry(index: int, data: bytes) -> Event:
    """Read one entry. Whether its bytes are canonical and belong to the log is for :func:`stanch.ledger.fsck` to say.

    Raises:
        InvalidInput: It is no entry, or the part that detectors read has not the form that the gateway writes.
    """
    try:
        found = _ENTRY.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"entry {index}: it is not an entry of a log", why=str(error)[:200]) from error
    ours = found.unmapped.stanch
    kind, phase, subjects = ours.kind, ours.phase, ours.subject
    detail: Detail | None = None
    if kind == INFER and phase != "note":
        payload = ours.payload
        detail = _read(index, payload, _INTENT) if phase == "intent" else _read(index, payload, _OUTCOME)
    elif kind == WINDOW:
        detail = _read(index, ours.payload, _WINDOW)
    elif kind == ALERT_STATE and phase in {"outcome", "note"}:
        detail = _read(index, ours.payload, _CLOSING)
    return Event(
        index=index, time=found.time // 1000, kind=kind, phase=phase, principal=found.actor.user.uid,
        key="" if ours.credential is None else ours.credential.key_id,
        model=next((subject.digest for subject in subjects if subject.kind == "model"), ""),
        subjects=tuple([subject.digest for subject in subjects]), egress=ours.egress_bytes, detail=detail,
    )  # fmt: skip


def read_entries(tail: Tail) -> Iterator[Event]:
    """Read entries as :meth:`stanch.ledger.LedgerReader.tail` yields them."""
    return (read_entry(index, data) for index, data in tail)


def _read(index: int, payload: Raw, decoder: msgspec.json.Decoder[_Payload]) -> _Payload:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"entry {index}: its payload is not as the gateway writes it", why=str(error)[:200],
            next_step="another release wrote it: run the watch of that release",
        ) from error  # fmt: skip
