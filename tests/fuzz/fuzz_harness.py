"""What a fuzz target is, and what one input does to it."""

import dataclasses
import functools
import resource
import signal
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from stanch.crypto import sha256
from stanch.crypto.passphrase import Passphrase
from stanch.errors import StanchError

CORPUS = Path(__file__).with_name("corpus")
SLOW_S = 1.0
"""Most processor seconds that one input may take."""
MOST_MEMORY = 64 << 20
"""Most bytes that a parser may hold for one input of at most 64 KiB."""

Kind = Literal["plain", "canonical", "authentic"]
Outcome = Literal["refused", "accepted", "same"]


class Fault(Exception):
    """An input did what none may do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A parser of bytes from outside.

    Attributes:
        name: Its name, and that of its folder in the corpus.
        parser: The function, for people.
        reads: What the bytes are.
        kind: ``plain``: what is accepted means nothing by itself. ``canonical``: what is accepted is written again,
            byte for byte. ``authentic``: what is accepted says what a valid input said, and nothing else.
        run: Parses; returns the content.
        make: Makes valid inputs with the real writers.
        refuses: The errors that it may raise.
        rewrite: For ``canonical``: writes the content.
    """

    name: str
    parser: str
    reads: str
    kind: Kind
    run: Callable[[bytes], object]
    make: Callable[[], Iterable[bytes]]
    refuses: tuple[type[StanchError], ...]
    rewrite: Callable[[object], bytes] | None = None

    @property
    def seeds(self) -> tuple[bytes, ...]:
        """The valid inputs in the corpus."""
        return corpus(self.name)

    @property
    def found(self) -> tuple[bytes, ...]:
        """Inputs that earlier runs found worth keeping, valid or not."""
        paths = sorted((CORPUS / self.name).iterdir())
        return tuple(path.read_bytes() for path in paths if not path.name.startswith("seed-"))

    def contents(self) -> list[object]:
        """What the seeds say."""
        return _contents(self)

    def feed(self, data: bytes) -> Outcome:
        """Parse one input.

        Raises:
            Fault: It crashed, was accepted though it may not be, or was not written again as it was.
        """
        try:
            content = self.run(data)
        except self.refuses:
            return "refused"
        except Exception as error:
            raise Fault(f"{self.name}: {type(error).__name__}: {error}"[:400]) from error
        if self.kind == "authentic":
            if not any(content == known for known in self.contents()):
                raise Fault(f"{self.name}: a forged input was accepted as authentic")
            return "same"
        if self.rewrite is not None and self.rewrite(content) != data:
            raise Fault(f"{self.name}: an input that is not in canonical form was accepted")
        return "accepted"


@functools.cache
def corpus(name: str) -> tuple[bytes, ...]:
    """Return the seeds of a target."""
    return tuple(path.read_bytes() for path in sorted((CORPUS / name).glob("seed-*")))


@functools.cache
def _contents(target: Target) -> list[object]:
    return [target.run(seed) for seed in target.seeds]


@dataclasses.dataclass
class Tally:
    """What many inputs did."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0


def feed_all(target: Target, inputs: Iterable[bytes], *, sample: int = 0) -> Tally:
    """Feed inputs one by one; every ``sample``-th one with its memory counted.

    One that takes more than :data:`SLOW_S` or holds more than :data:`MOST_MEMORY` is a fault too.
    """
    tally = Tally()
    target.contents()
    previous = signal.signal(signal.SIGVTALRM, _stop)
    try:
        for number, data in enumerate(inputs):
            counted = bool(sample) and number % sample == 0
            if counted:
                tracemalloc.start()
            signal.setitimer(signal.ITIMER_VIRTUAL, 10 * SLOW_S)
            start = time.thread_time()
            try:
                tally.outcomes[target.feed(data)] += 1
            except Fault as fault:
                tally.faults.append((str(fault), data))
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            spent = time.thread_time() - start
            if counted:
                held = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                tally.largest = max(tally.largest, held)
                if held > MOST_MEMORY:
                    tally.faults.append((f"{target.name}: held {held} bytes", data))
            else:
                tally.slowest = max(tally.slowest, spent)
                if spent > SLOW_S:
                    tally.faults.append((f"{target.name}: took {spent:.1f} s", data))
    finally:
        signal.signal(signal.SIGVTALRM, previous)
    return tally


def _stop(_number: int, _frame: object) -> None:
    raise Fault("an input did not come to an end")


def bound_memory(size: int = 6 << 30) -> None:
    """Let this process have so many bytes of addresses and no more; for processes of their own."""
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="stanch-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: S108 - memory, made private by mkdtemp


def scratch() -> Path:
    """Return a folder of this process."""
    return Path(_scratch().name)


def as_file(data: bytes, name: str = "input", *, folder: str = "one") -> Path:
    """Write a new private file and return its path."""
    path = scratch() / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def text_of(data: bytes) -> str:
    """Return bytes as the text that a parser of texts is given."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: object) -> bytes:
    """Return the bytes of :func:`text_of`."""
    return str(text).encode("utf-8", "surrogateescape")


class QuickPassphrase(Passphrase):
    """A passphrase as it is, but for its costs: what is fuzzed is the reading, not Argon2id."""

    def _stretch(self, salt, costs):
        data = repr((salt, sorted(costs.items()))).encode() + self._secret.reveal().encode()
        return sha256(b"key", data), sha256(b"check", data)


class Counting:
    """A source of bytes that are always the same."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._number = 0

    def __call__(self, count: int) -> bytes:
        self._number += 1
        blocks = (
            sha256(self._name, self._number.to_bytes(4, "big"), block.to_bytes(4, "big"))
            for block in range(-(-count // 32))
        )
        return b"".join(blocks)[:count]


def write_seeds(targets: Sequence[Target]) -> None:
    """Make every seed anew with the real writers."""
    for target in targets:
        folder = CORPUS / target.name
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("seed-*"):
            path.unlink()
        corpus.cache_clear()
        for number, seed in enumerate(list(target.make())):
            (folder / f"seed-{number}").write_bytes(seed)
        corpus.cache_clear()
