"""The error that names what in a log is not as the rest of it says."""

from collections.abc import Callable

from stanch.errors import Tampered


class LogDamaged(Tampered):
    """A part of the log is not what the rest of it says.

    Attributes:
        place: The damaged object, for example ``entry``, ``bundle``, ``tile log/tile/0/000`` or ``frontier``.
        index: The entry concerned; None where the object is not about one entry.
    """

    def __init__(self, place: str, index: int | None, *, expected: str, found: str) -> None:
        where = place if index is None else f"{place} {index}"
        super().__init__(
            f"log: {where}: expected {expected}, found {found}",
            why="it was changed after it was recorded",
            next_step="keep the files as they are, as evidence; compare with a copy or a kept checkpoint",
        )
        self.place = place
        self.index = index
        self._told = expected, found

    def __reduce__(self) -> tuple[Callable[..., "LogDamaged"], tuple[str | int | None, ...]]:
        """Let a process that shares a check's work hand the error over."""
        return _rebuild, (self.place, self.index, *self._told)


def _rebuild(place: str, index: int | None, expected: str, found: str) -> LogDamaged:
    return LogDamaged(place, index, expected=expected, found=found)
