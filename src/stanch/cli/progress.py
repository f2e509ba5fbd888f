"""Progress with time left: a bar on a terminal, or plain lines every few seconds."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_SECONDS = 10.0


class Bar:
    """Shows progress; call it as ``bar(stage, done, total)``.

    Nothing is drawn for stages that end within half a second.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        plain: bool,
        color: bool = True,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._plain = plain
        self._color = color
        self._shown = shown
        self._clock = clock
        self._stage = ""
        self._started = 0.0
        self._printed = 0.0
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that ``done`` of ``total`` steps of ``stage`` are finished."""
        if not self._shown:
            return
        now = self._clock()
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._printed = stage, now, now
        if self._plain:
            self._print(now, done, total)
        elif self._rich is not None or now - self._started > 0.5:
            self._draw(done, total)

    def _print(self, now: float, done: int, total: int | None) -> None:
        if now - self._printed < PLAIN_SECONDS:
            return
        self._printed = now
        left = f", {(now - self._started) / done * (total - done):.0f} s left" if total and done else ""
        self._stream.write(f"{self._stage}: {done}{f' of {total}' if total else ''}{left}\n")
        self._stream.flush()

    def _draw(self, done: int, total: int | None) -> None:
        if self._rich is None:
            from rich.console import Console  # noqa: PLC0415 - only commands that last need it
            from rich.progress import (  # noqa: PLC0415 - same
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._rich = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(file=self._stream, no_color=not self._color),
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task(self._stage, total=total)
        assert self._task is not None  # noqa: S101 - set together with _rich
        self._rich.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._rich is not None:
            self._rich.stop()
        self._rich, self._task, self._stage = None, None, ""
