"""A progress bar on the last line of a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class ProgressBar:
    """Shows how far a loop is, what it last measured, and how long it will still take.

    Where standard error is no terminal nothing is drawn, so that logs stay readable.

    Args:
        what: the text before the bar.
        total: the number of steps.
        done: how many were done before (by a run that is resumed).

    >>> with ProgressBar("training", 100) as bar:
    ...     for step in range(100):
    ...         bar.advance("loss 0.25")
    """

    WIDTH = 28
    PAUSE = 0.1  # seconds between two drawings: a terminal is slow

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first = done
        self._begin = time.monotonic()
        self._drawn_at = 0.0
        self._drawn = ""
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def advance(self, note: str = "") -> None:
        """One step is done; `note` is shown behind the bar."""
        self.done += 1
        now = time.monotonic()
        if not self._shown or (now - self._drawn_at < self.PAUSE and self.done < self.total):
            return
        self._drawn_at = now
        seconds = (now - self._begin) / (self.done - self._first) * (self.total - self.done)
        filled = "#" * (self.WIDTH * self.done // self.total)
        rest = f"{int(seconds // 60)}:{int(seconds % 60):02} left"
        self._write(f"{self.what} [{filled:<{self.WIDTH}}] {self.done}/{self.total}  {rest}  {note}")

    def say(self, line: str) -> None:
        """Prints a line that stays, above the bar."""
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._drawn:
            self._write("")

    def _write(self, text: str) -> None:
        # Spaces wipe out what a longer text before has left.
        sys.stderr.write("\r" + text.ljust(len(self._drawn)) + ("" if text else "\r"))
        sys.stderr.flush()
        self._drawn = text
