"""How a run is solved: tolerances, steps, backend, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgpde.checkpoint import Checkpoint

ON_FAILURE = ("raise", "return")


@dataclass(frozen=True)
class SolveOptions:
    """Options of ``Richards.solve``. All of them have defaults that suit hourly or daily forcing.

    Attributes:
        dt_initial: first time step of every column [s], default 60; never more than dt_max.
        dt_min: smallest step before a column is given up [s], default 1e-6.
        dt_max: largest step [s], default 86400.
        dt_fixed: when set, every output interval is covered by equal steps of at most this length [s] and the
            truncation error is not looked at; a step that does not converge is still cut. Default None:
            steps follow ``time_error``.
        tolerance: a step has converged when the water that its residual moves in every cell is below this
            part of the cell's pore volume, plus round-off; default 1e-11.
        time_error: accepted truncation error of a step as water content [-], default 1e-3: half the step times
            the change of d theta/dt in it, the difference of backward and forward Euler (Kavetski, Binning &
            Sloan 2001, Adv. Water Resour. 24, 595-605).
        max_newton: Newton iterations before a step is restarted from the wet side, then cut; default 20.
        linear_tolerance: relative residual accepted of the linear solves, default 1e-10. Columns are solved
            directly; what remains of their transposed systems is checked against it.
        max_steps: accepted steps of one column in one output interval before it is given up, default 10 million.
        backend: "cpu", "cuda" (columns), "triton" (fields), "reference", or None (default) for the fastest one that
            fits the tensors.
        checkpoint: what is kept for the backward sweep; None (default) lets the package choose.
        on_failure: "raise" (default) a SolveError when a column cannot go on, or "return" the solution with a
            status per column.
        record_steps: keep the accepted step sizes in ``Solution.stats``, default False.

    Raises:
        TypeError, ValueError: an option of the wrong kind or range; the message starts with its name.
    """

    dt_initial: float = 60.0
    dt_min: float = 1e-6
    dt_max: float = 86400.0
    dt_fixed: float | None = None
    tolerance: float = 1e-11
    time_error: float = 1e-3
    max_newton: int = 20
    linear_tolerance: float = 1e-10
    max_steps: int = 10_000_000
    backend: str | None = None
    checkpoint: Checkpoint | None = None
    on_failure: str = "raise"
    record_steps: bool = False

    def __post_init__(self) -> None:
        for name in ("dt_initial", "dt_min", "dt_max", "tolerance", "time_error", "linear_tolerance"):
            _positive(name, getattr(self, name))
        if self.dt_fixed is not None:
            _positive("dt_fixed", self.dt_fixed)
            if self.dt_fixed < self.dt_min:
                raise ValueError(f"dt_fixed ({self.dt_fixed} s) is below dt_min ({self.dt_min} s)")
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min ({self.dt_min} s) is above dt_max ({self.dt_max} s)")
        if self.dt_initial < self.dt_min:
            raise ValueError(f"dt_initial ({self.dt_initial} s) is below dt_min ({self.dt_min} s)")
        for name in ("max_newton", "max_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, it is {value}")
        if self.backend is not None and not isinstance(self.backend, str):
            raise TypeError(f"backend must be a name or None, not {type(self.backend).__name__}")
        if self.on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure must be one of {', '.join(ON_FAILURE)}, it is {self.on_failure!r}")
        if not isinstance(self.record_steps, bool):
            raise TypeError(f"record_steps must be True or False, not {type(self.record_steps).__name__}")
        if self.checkpoint is not None:
            # Imported here: checkpoint.py is above this file in the package.
            from dgpde.checkpoint import Checkpoint

            if not isinstance(self.checkpoint, Checkpoint):
                raise TypeError(
                    f"checkpoint must be a Checkpoint or None, not {type(self.checkpoint).__name__}"
                )


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, it is {value}")
