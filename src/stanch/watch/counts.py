"""Counts by the hour: what entries add to the hour that is open, and the arrays a detector keeps for every key."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stanch.watch.alarm import Alarm, Containment, Severity
from stanch.watch.alert import alert_id
from stanch.watch.detector import FalseAlarm
from stanch.watch.events import Closing, Event

HOUR = 3600
Floats: TypeAlias = npt.NDArray[np.float64]
Added: TypeAlias = Sequence[tuple[int, float]]
"""What an entry adds to the hour of its principal or model: columns and amounts; empty if nothing is counted of it."""

_MOST_EVIDENCE = 32
_SAMPLE = 1024
_LONGEST_GAP = 28 * 24


class SavedArray(Struct, frozen=True, array_like=True):
    """An array in a saved state: most hours of most keys are empty, and only what differs from them is kept.

    Attributes:
        data: How far each place that differs lies from the one before (u32), then the values there, compressed. Without
            ``fill``: all of the array, compressed where that makes it shorter.
        fill: The value of all other places.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    fill: bytes = b""

    @classmethod
    def of(cls, array: npt.NDArray[np.generic]) -> "SavedArray":
        """Save an array."""
        bits = np.ascontiguousarray(array).reshape(-1).view(f"<u{array.itemsize}")
        if bits.size:
            values, counts = np.unique(bits[:: 1 + bits.size // _SAMPLE], return_counts=True)
            common = values[counts.argmax()]
            places = np.flatnonzero(bits != common)
            if 2 * places.size < bits.size:
                steps = np.diff(places, prepend=0).astype("<u4")
                told = zlib.compress(steps.tobytes() + bits[places].tobytes(), 1)
                return cls(array.dtype.str, array.shape, told, common.tobytes())
        data = bits.tobytes()
        packed = zlib.compress(data, 1)
        return cls(array.dtype.str, array.shape, min(data, packed, key=len))  # equally long ones are plain

    def load(self) -> npt.NDArray[np.float64]:
        """Return the array, writable."""
        dtype = np.dtype(self.dtype)
        if not self.fill:
            size = math.prod(self.shape) * dtype.itemsize
            data = self.data if len(self.data) == size else zlib.decompressobj().decompress(self.data, size)
            return np.frombuffer(data, dtype).reshape(self.shape).copy()
        entry = 4 + dtype.itemsize
        told = zlib.decompressobj().decompress(self.data, max(1, entry * math.prod(self.shape)))
        number = len(told) // entry
        found = np.full(self.shape, np.frombuffer(self.fill, dtype)[0])
        places = np.cumsum(np.frombuffer(told, "<u4", number), dtype=np.int64)
        found.reshape(-1)[places] = np.frombuffer(told, dtype, number, 4 * number)
        return found


class Field(NamedTuple):
    """One array of a bank: leading axes, value of a new key, type, and whether it has an axis of keys."""

    lead: tuple[int, ...] = ()
    fill: float = 0.0
    dtype: str = "<f8"
    by_key: bool = True


class Crossing(NamedTuple):
    """A statistic that reached its threshold.

    Attributes:
        row: Whose it is.
        since: The hour from which on it grew.
        held: What may be learnt of the last of its hours, should a person say that it was benign.
    """

    row: int
    signal: int
    statistic: float
    since: int
    held: tuple[float, ...] = ()


class Bank:
    """Arrays of shape (…, keys, signals) that one hour after the other goes into."""

    fields: ClassVar[Mapping[str, Field]]

    def __init__(self, signals: int) -> None:
        self.signals = signals
        self.arrays = {name: self._new(field, 0) for name, field in self.fields.items()}
        self._roomy: dict[str, Floats] = {}

    def grow(self, rows: int) -> None:
        """Make place for ``rows`` keys, and for a quarter more behind it: new keys come a few at a time."""
        for name, field in self.fields.items():
            held = self.arrays[name]
            if not field.by_key or rows <= held.shape[-2]:
                continue
            room = self._roomy.get(name, held)
            if held.base is not room or room.shape[-2] < rows:
                room = self._new(field, rows + rows // 4)
                room[..., : held.shape[-2], :] = held
                self._roomy[name] = room
            self.arrays[name] = room[..., :rows, :]

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take what an hour held, (keys, columns), and say which statistics reached their thresholds."""
        raise NotImplementedError

    def restore(self, name: str, saved: Floats) -> None:
        """Take a saved array; signals that a later release added behind its own have nothing in it yet."""
        added = self.signals - saved.shape[-1]
        if added:
            field = self.fields[name]
            new = np.full((*saved.shape[:-1], added), field.fill, field.dtype)
            saved = np.concatenate([saved, new], axis=-1)
        self.arrays[name] = saved

    def learn(self, at: Crossing, hour: int, now: int) -> None:
        """Take the hours of an alarm, which ended with ``hour``, for what is usual: a person said that it was benign.

        A statistic that keeps no hours of an alarm learns nothing.
        """

    def _new(self, field: Field, rows: int) -> Floats:
        shape = (*field.lead, rows, self.signals) if field.by_key else (*field.lead, self.signals)
        return np.full(shape, field.fill, field.dtype)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a detector that counts by the hour reads entries and words its alarms.

    Attributes:
        columns: How many amounts a key has an hour.
        read: What an entry adds to the hour of its principal or model.
        of_model: Whether keys are models; otherwise they are principals.
    """

    columns: int
    read: Callable[[Event], Added]
    severity: Severity
    containment: Containment | None = None
    of_model: bool = False


class _Raised(Struct, frozen=True, array_like=True):
    """The alarm of an alert: what crossed, and the hour in which it did."""

    row: int
    signal: int
    since: int
    hour: int
    held: tuple[float, ...] = ()


class _Saved(Struct):
    hour: int = -1
    keys: list[str] = []
    open: dict[str, list[float]] = {}
    evidence: dict[str, list[int]] = {}
    arrays: dict[str, SavedArray] = {}
    alerts: dict[str, _Raised] = {}


_DECODER = msgspec.msgpack.Decoder(_Saved)
_ENCODER = msgspec.msgpack.Encoder()


class HourlyDetector:
    """A detector whose statistic moves once an hour: when the first entry of a later hour is read."""

    def __init__(
        self,
        name: str,
        signals: tuple[str, ...],
        promise: FalseAlarm,
        reading: Reading,
        make: Callable[[int], Bank],
    ) -> None:
        self.name = name
        self.signals = signals
        self.promise = promise
        self._reading = reading
        self._make = make
        self._last: tuple[bytes, _Saved, Bank] | None = None

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        if not entries:
            return state, []
        saved, bank = self._open(state)
        known = {key: row for row, key in enumerate(saved.keys)}
        alarms: list[Alarm] = []
        reading, until = self._reading, (saved.hour + 1) * HOUR
        for event in entries:
            if event.time >= until:
                alarms += self._close(saved, bank, known, event.time // HOUR)
                until = (saved.hour + 1) * HOUR
            if isinstance(event.detail, Closing) and event.detail.conclusion == "benign":
                self._learn(saved, bank, event.detail.alert)
            added = reading.read(event)
            if not added:
                continue
            key = event.model if reading.of_model else event.principal
            counts = saved.open.get(key)
            if counts is None:
                counts = saved.open[key] = [0.0] * reading.columns
                saved.evidence[key] = []
            for column, amount in added:
                counts[column] += amount
            if len(saved.evidence[key]) < _MOST_EVIDENCE:
                saved.evidence[key].append(event.index)
        if not saved.arrays:
            saved.arrays = {name: SavedArray.of(array) for name, array in bank.arrays.items()}
        after = _ENCODER.encode(saved)
        self._last = (after, saved, bank)
        return after, alarms

    def _open(self, state: bytes) -> tuple[_Saved, Bank]:
        """Return what a state holds; what this detector came to last is at hand."""
        last, self._last = self._last, None
        if last is not None and last[0] == state:
            return last[1:]
        saved = _DECODER.decode(state) if state else _Saved()
        bank = self._make(len(self.signals))
        for name, array in saved.arrays.items():
            if name in bank.fields:
                bank.restore(name, array.load())
        for counts in saved.open.values():
            counts.extend([0.0] * (self._reading.columns - len(counts)))
        return saved, bank

    def _close(self, saved: _Saved, bank: Bank, known: dict[str, int], hour: int) -> list[Alarm]:
        """Close the open hour and the empty ones after it; of a long silence, as many as anything is kept of.

        ``known`` has the row of each key.
        """
        alarms: list[Alarm] = []
        saved.arrays = {}  # what was told of the bank no longer holds
        if saved.hour >= 0:
            for key in saved.open:
                if known.setdefault(key, len(saved.keys)) == len(saved.keys):
                    saved.keys.append(key)
            bank.grow(len(saved.keys))
            amounts = np.zeros((len(saved.keys), self._reading.columns))
            for key, found in saved.open.items():
                amounts[known[key]] = found
            alarms += self._alarms(saved, bank.close(saved.hour, amounts), saved.hour)
            saved.open, saved.evidence = {}, {}
            for silent in range(max(saved.hour + 1, hour - _LONGEST_GAP), hour):
                alarms += self._alarms(saved, bank.close(silent, np.zeros_like(amounts)), silent)
        saved.hour = hour
        saved.alerts = {key: found for key, found in saved.alerts.items() if hour - found.hour < _LONGEST_GAP}
        return alarms

    def _learn(self, saved: _Saved, bank: Bank, alert: str) -> None:
        """Let the bank learn the hours of an alert of ours, once."""
        raised = saved.alerts.pop(alert, None)
        if raised is not None:
            saved.arrays = {}
            bank.grow(len(saved.keys))
            bank.learn(Crossing(raised.row, raised.signal, 0.0, raised.since, raised.held), raised.hour, saved.hour)

    def _alarms(self, saved: _Saved, crossings: list[Crossing], hour: int) -> list[Alarm]:
        reading = self._reading
        alarms = [
            Alarm(
                detector=self.name, signal=self.signals[found.signal],
                principal=None if reading.of_model else saved.keys[found.row],
                model=saved.keys[found.row] if reading.of_model else None,
                window_start=found.since * HOUR, at=(hour + 1) * HOUR, severity=reading.severity,
                statistic=found.statistic, threshold=self.promise.value,
                entries=tuple(saved.evidence.get(saved.keys[found.row], ())), containment=reading.containment,
            )
            for found in crossings
        ]  # fmt: skip
        for found, alarm in zip(crossings, alarms, strict=True):
            saved.alerts[alert_id(alarm)] = _Raised(found.row, found.signal, found.since, hour, found.held)
        return alarms
