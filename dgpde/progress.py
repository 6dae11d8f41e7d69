"""A bar on stderr that says how far a run has come."""

from __future__ import annotations

import sys
import time

from torch import Tensor

WIDTH = 40
PAUSE = 0.2  # s between two looks at a run within an interval
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


class ProgressBar:
    """The bar of one run; its line ends with the run.

    Args:
        times: [T + 1] output times, s.
        first: the interval with which the run begins, or goes on.
    """

    def __init__(self, times: Tensor, first: int = 0) -> None:
        self.times, self.first = times.tolist(), first
        self.begun = time.monotonic()
        self.shown = -PAUSE
        self.length = 0

    @property
    def due(self) -> bool:
        """Whether the last look is long enough ago for another one within an interval."""
        return time.monotonic() - self.shown >= PAUSE

    def show(self, done: int, within: float = 0.0, *details: str) -> None:
        """Draw the bar.

        Args:
            done: intervals that are complete, those before ``first`` among them.
            within: s of the next one that are.
            details: what else there is to say.
        """
        count = len(self.times) - 1
        start, now = self.times[self.first], self.times[done] + within
        part = (now - start) / (self.times[-1] - start) if self.first < count else 1.0
        spent = time.monotonic() - self.begun
        filled = round(WIDTH * (now - self.times[0]) / (self.times[-1] - self.times[0]))
        left = [f"{_clock(spent * (1.0 - part) / part)} left"] if 0.0 < part < 1.0 else []
        words = ", ".join((f"interval {done} of {count}", f"t = {duration(now)}", *details, *left))
        line = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {words}"
        # a shorter line must cover a longer one
        end = "\n" if done == count else ""
        print(f"\r{line:{self.length}}", end=end, file=sys.stderr, flush=True)
        self.length, self.shown = len(line), time.monotonic()


def duration(seconds: float) -> str:
    """A time in the largest unit that it fills."""
    for size, name in UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {name}"
    return f"{seconds:.4g} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
