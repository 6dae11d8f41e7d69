"""A trajectory of the field engine: forward, adjoint and tangent, for the node of `dgpde.kernels.node`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from dgpde.checkpoint import Checkpoint, StateStore
from dgpde.errors import SolveError
from dgpde.forecast import Forecast
from dgpde.kernels.flow_stencil.problem import (
    IDENTITY,
    Linearised,
    Stencil,
    StencilProblem,
    Step,
)
from dgpde.linear import LinearSolver, StencilMatrix
from dgpde.newton import Newton, Work
from dgpde.options import SolveOptions
from dgpde.revolve import first_states, reversal
from dgpde.timeloop import Account, Record, State, run_interval

# (state at the start of a span, its steps, number of the step, tangents of theta before and after it, of its outputs)
Watch = Callable[[State, list[Record], int, tuple[Tensor, Tensor], dict[str, Tensor]], None]
MakeStencil = Callable[[StencilProblem, dict[str, Tensor]], Stencil]
MakeSolver = Callable[[SolveOptions], LinearSolver]
Keep = Callable[[Record], None]


class Progress(Protocol):
    """What shows how far a run has come; see ``dgpde.progress.ProgressBar``."""

    @property
    def due(self) -> bool:
        """Whether to show it again before the interval ends."""

    def show(self, done: int, within: float = 0.0, *details: str) -> None:
        """Show it: intervals done, s of the next one, and what else there is to say."""


@dataclass
class FieldRun:
    """A run that is ready: what is solved, on which backend, and what it leaves behind.

    Attributes:
        problem: what is not differentiated.
        times: [T + 1] float64 s on the CPU.
        save: indices into ``times`` whose psi is returned.
        cells: [m] int64, flat indices of the cells whose psi is returned; None for all, as fields.
        options: tolerances, steps, checkpoints.
        make_stencil, make_solver: of the backend.
        account, work: what the run came to.
        progress: shows how far the run has come.
        dt0, dt_next: s, the step to begin with (0 for ``options.dt_initial``), and the one that would come next.
        precise0: ``State.precise`` to begin with.
    """

    problem: StencilProblem
    times: Tensor
    save: tuple[int, ...]
    cells: Tensor | None
    options: SolveOptions
    make_stencil: MakeStencil
    make_solver: MakeSolver
    account: Account = field(default_factory=Account)
    work: Work = field(default_factory=Work)
    progress: Progress | None = None
    dt0: float = 0.0
    dt_next: float = 0.0
    precise0: bool = False

    def __post_init__(self) -> None:
        self.names = self.problem.input_names()
        self.record = False
        self.states: StateStore | None = None
        self.end: State | None = None  # of the forward run, or of the part of it that was done
        self.history: list[Record] = []

    @property
    def intervals(self) -> int:
        """Number of output intervals."""
        return self.times.numel() - 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in the order of the node's: psi, ponding, run-off, uptake by roots and the flux of every side."""
        return ("psi", "ponding", *self.problem.flux_names)

    @property
    def every(self) -> int:
        """Intervals between two kept states."""
        checkpoint = self.options.checkpoint or Checkpoint("all")
        return self.intervals if checkpoint.policy == "all" else checkpoint.every or 1

    @property
    def states_at_most(self) -> int:
        """How many states a binomial policy keeps; 0 of another one."""
        return (self.options.checkpoint or Checkpoint("all")).states or 0

    def span(self, interval: int) -> tuple[float, float]:
        """Start and end of an interval, s."""
        return float(self.times[interval]), float(self.times[interval + 1])

    def seen(self, psi: Tensor) -> Tensor:
        """What is returned of a state: the field, or its cells [m]."""
        return psi if self.cells is None else psi.flatten()[self.cells]

    # ------------------------------------------------------------------------------------------------ forward

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run through all intervals; what a run that failed did not reach stays nan."""
        intervals = self.intervals
        newton = self._newton(inputs)
        self.work = newton.work
        psi0, ponding0 = inputs["psi0"], inputs["ponding0"]
        whole = self.every >= intervals
        self.states = (
            None if whole or not self.record else StateStore(self.options.checkpoint or Checkpoint("all"))
        )
        state = State(psi0, ponding0, self.dt0 or self.options.dt_initial, self.precise0)
        out = self.unreached(inputs)
        out["ponding"][0] = ponding0
        rows = {index: row for row, index in enumerate(self.save)}
        if 0 in rows:
            out["psi"][rows[0]] = self.seen(psi0)
        keep: Keep | None = self.history.append if self.record and whole else None
        if self.progress is not None:
            keep = _Shown(self.progress, self.account, self.work, keep)
        most = self.states_at_most
        kept = first_states(intervals, most) if most else range(0, intervals, self.every)
        for interval in range(intervals):
            if self.states is not None and interval in kept:
                self.states.put(interval, _packed(state))
            means = run_interval(newton, self.span(interval), interval, state, self.account, keep)
            if means is None:
                break
            for name, mean in means.items():
                out[name][interval] = mean
            out["ponding"][interval + 1] = state.ponding
            if interval + 1 in rows:
                out["psi"][rows[interval + 1]] = self.seen(state.psi)
            if isinstance(keep, _Shown):
                keep.show(interval + 1, 0.0, state.dt)
        self.dt_next, self.end = state.dt, state
        return out

    def unreached(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs before anything has been computed: nan."""
        return self._outputs(inputs, torch.nan)

    def _outputs(self, inputs: dict[str, Tensor], value: float) -> dict[str, Tensor]:
        """The outputs, filled with one value."""
        psi0, ponding0 = inputs["psi0"], inputs["ponding0"]
        out = {
            "psi": psi0.new_full((len(self.save), *self.seen(psi0).shape), value),
            "ponding": psi0.new_full((self.intervals + 1, *ponding0.shape), value),
        }
        for name in self.problem.flux_names:
            shape = self.problem.side_shape(name if name in self.problem.sides else "top")
            out[name] = psi0.new_full((self.intervals, *shape), value)
        return out

    def exact(self) -> _Exact:
        """What solves with the true Jacobians of steps."""
        return _Exact(self)

    def _newton(self, inputs: dict[str, Tensor]) -> Newton:
        return Newton(self.make_stencil(self.problem, inputs), self.options, self.make_solver(self.options))

    def replays(self, inputs: dict[str, Tensor], backwards: bool) -> Iterator[tuple[State, list[Record]]]:
        """Spans of intervals, each with the state at its start and its accepted steps; those that were not kept
        are run again. A run that failed is walked as far as it came. A run without a gradient has kept nothing: it
        can be walked forwards only, an interval at a time.
        """
        start = State(inputs["psi0"], inputs["ponding0"], self.dt0 or self.options.dt_initial)
        most = self.states_at_most if self.states is not None else 0
        if not self.record or (most and not backwards):
            assert not backwards
            for first in range(self.intervals):
                begin = replace(start)
                records = self._again(inputs, start, first, first + 1)
                yield begin, records
                if self.account.status != 0 and self.span(first)[1] > self.account.failed_time:
                    return
            return
        if self.states is None:
            yield start, self.history
            return
        if most:
            yield from reversal(
                self.states,
                self.intervals,
                most,
                lambda kept, first, last: self._advanced(inputs, kept, first, last),
                lambda kept, first: self._again_from(inputs, kept, first, first + 1),
            )
            return
        firsts = list(range(0, self.intervals, self.every))
        for first in reversed(firsts) if backwards else firsts:
            if first not in self.states.kept:
                continue
            last = min(first + self.every, self.intervals)
            yield self._again_from(inputs, self.states.get(first), first, last)

    def _again_from(
        self, inputs: dict[str, Tensor], kept: dict[str, Tensor], first: int, last: int
    ) -> tuple[State, list[Record]]:
        """A kept state and the accepted steps of the intervals [first, last) that begin with it."""
        begin = _unpacked(kept)
        return begin, self._again(inputs, replace(begin), first, last)

    def _advanced(
        self, inputs: dict[str, Tensor], kept: dict[str, Tensor], first: int, last: int
    ) -> dict[str, Tensor] | None:
        """The state that a kept one comes to in the intervals [first, last); None when it does not get there."""
        newton, account, state = self._newton(inputs), Account(), _unpacked(kept)
        for interval in range(first, last):
            if run_interval(newton, self.span(interval), interval, state, account) is None:
                return None
        return _packed(state)

    def _again(self, inputs: dict[str, Tensor], state: State, first: int, last: int) -> list[Record]:
        """The accepted steps of the intervals [first, last), as far as they come; ``state`` is changed in place."""
        newton, account, records = self._newton(inputs), Account(), list[Record]()
        for interval in range(first, last):
            if run_interval(newton, self.span(interval), interval, state, account, records.append) is None:
                break
        return records

    # ------------------------------------------------------------------------------------------------ adjoint

    def adjoint(
        self, inputs: dict[str, Tensor], cotangents: dict[str, Tensor | None], wanted: set[str]
    ) -> dict[str, Tensor]:
        """Gradients of the wanted inputs, each with the input's own shape.

        Raises:
            SolveError: a transposed solve did not meet options.linear_tolerance.
        """
        walk = Backward(self, inputs, cotangents, wanted)
        for start, records in self.replays(inputs, backwards=True):
            walk.span(start, records)
        return walk.finish()

    def tangent(
        self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], watch: Watch | None = None
    ) -> dict[str, Tensor]:
        """Tangents of the outputs along the accepted steps; inputs that are not named do not move.

        ``watch``: called with every step and its tangents.
        """
        stencil, exact = self.make_stencil(self.problem, inputs), _Exact(self)
        psi0, ponding0 = inputs["psi0"], inputs["ponding0"]
        rows = {index: row for row, index in enumerate(self.save)}
        d_psi = tangents.get("psi0", torch.zeros_like(psi0))
        d_pond = tangents.get("ponding0", torch.zeros_like(ponding0))
        d_theta = stencil.push_theta(psi0, d_psi, tangents)
        out = self._outputs(inputs, 0.0)
        out["ponding"][0] = d_pond
        if 0 in rows:
            out["psi"][rows[0]] = self.seen(d_psi)
        forcing = {name: value for name, value in tangents.items() if name not in ("psi0", "ponding0")}
        still = torch.zeros_like(psi0)
        moved: Tensor | None = None
        before: Tensor | None = None
        for start, records in self.replays(inputs, backwards=False):
            psi, ponding = start.psi, start.ponding
            for index, record in enumerate(records):
                # no derivative of a step depends on the theta that it started from: F is linear in it
                step = Step(record.interval, record.dt, psi, still, ponding)
                there = stencil.linearise(step, record.psi)
                old = (d_theta, d_psi, d_pond)
                d_residual, _, _ = there.push(still, old, forcing)
                # as with the adjoint's multipliers, the solve begins from the last two carried on
                guess = moved if before is None or moved is None else 2.0 * moved - before
                before, moved = moved, exact.solve(there, d_residual, guess, record, transposed=False)
                d_psi = -moved
                _, d_theta, d_out = there.push(d_psi, old, forcing)
                if watch is not None:
                    watch(start, records, index, (old[0], d_theta), d_out)
                d_pond = d_out["ponding"]
                weight = record.dt / (self.span(record.interval)[1] - self.span(record.interval)[0])
                for name in self.problem.flux_names:
                    out[name][record.interval] += weight * d_out[name]
                if _ends_interval(records, index):
                    out["ponding"][record.interval + 1] = d_pond
                    if record.interval + 1 in rows:
                        out["psi"][rows[record.interval + 1]] = self.seen(d_psi)
                psi, ponding = record.psi, record.ponding
        return out


@dataclass(frozen=True)
class _Shown:
    """Keeps accepted steps, where they are wanted, and shows how far they have come."""

    progress: Progress
    account: Account
    work: Work
    keep: Keep | None

    def __call__(self, record: Record) -> None:
        if self.keep is not None:
            self.keep(record)
        if self.progress.due:
            self.show(record.interval, sum(self.account.step_sizes[-1]), record.dt)

    def show(self, done: int, within: float, dt: float) -> None:
        account = self.account
        iterations = self.work.newton / max(1, account.steps)
        balance = abs(account.imbalance) / account.moved if account.moved > 0.0 else 0.0
        details = (f"dt = {dt:.3g} s", f"{iterations:.1f} iterations a step", f"balance {balance:.0e}")
        self.progress.show(done, within, *details)


class _Exact:
    """Solves with the true Jacobians of accepted steps."""

    def __init__(self, run: FieldRun) -> None:
        self.run, self.solver = run, run.make_solver(run.options)
        self.dt: float | None = None  # of the matrix that the solver holds

    def recalls(self, record: Record) -> bool:
        """Whether the solver begins this step's solve by itself from those before, which had the same matrix."""
        return self.run.problem.linear and self.solver.recalls and self.dt == record.dt

    def solve(
        self,
        there: Linearised,
        rhs: Tensor,
        guess: Tensor | None,
        record: Record,
        transposed: bool,
    ) -> Tensor:
        """Solve with the true Jacobian, or its transpose, to options.linear_tolerance.

        Raises:
            SolveError: the residual stayed above it.
        """
        problem = self.run.problem
        active = problem.active
        if active is not None:
            # Rows of cells that take no part are multiples of the identity, of another size than those of the others.
            outside = torch.where(active, 0.0, rhs) / IDENTITY
            rhs = torch.where(active, rhs, 0.0)
            guess = None if guess is None else torch.where(active, guess, 0.0)
        if not bool(rhs.any()):
            return rhs if active is None else outside
        tolerance = self.run.options.linear_tolerance
        # The matrix of a linear problem depends on the step's length alone.
        if not problem.linear or self.dt != record.dt:
            self.solver.setup(StencilMatrix(there.matrix, symmetric=problem.symmetric))
            self.dt = record.dt
        result = self.solver.solve(rhs, guess, tolerance, transposed, recall=problem.linear)
        if not result.converged:
            what = "transposed linear solve of the adjoint" if transposed else "linear solve of the tangent"
            start = self.run.span(record.interval)[0]
            raise SolveError(
                f"the {what} did not meet linear_tolerance = {tolerance:g} in a step of {record.dt:.6g} s of the "
                f"interval that begins at {start:.6g} s (relative residual {result.residual:.3g} after "
                f"{result.iterations} iterations): the Jacobian is singular or nearly so, as in a saturated domain "
                "without specific storage and without a head boundary; give a specific_storage, or loosen "
                "linear_tolerance",
                times=torch.tensor([start], dtype=torch.float64),
            )
        return result.x if active is None else torch.where(active, result.x, outside)


@dataclass(frozen=True)
class Riding:
    """Cotangents of one step from what the water carries.

    Attributes:
        seeds: of the step's outputs, by the names of ``Cotangents``; added to those that there are.
        after, before: of theta at its end and at its start, [nz, ny, nx].
    """

    seeds: dict[str, Tensor]
    after: Tensor
    before: Tensor


class Backward:
    """The sweep from the last step to the first."""

    def __init__(
        self,
        run: FieldRun,
        inputs: dict[str, Tensor],
        cotangents: dict[str, Tensor | None],
        wanted: set[str],
    ) -> None:
        self.run, self.inputs = run, inputs
        self.bars = {name: value for name, value in cotangents.items() if value is not None}
        self.stencil = run.make_stencil(run.problem, inputs)
        self.exact = _Exact(run)
        self.gradients = {name: torch.zeros_like(inputs[name]) for name in wanted}
        self.within = {n: g for n, g in self.gradients.items() if n not in ("psi0", "ponding0")}
        psi0 = inputs["psi0"]
        # cotangents of theta, psi and ponding at the end of the step in hand, from the steps after it
        self.theta, self.psi = torch.zeros_like(psi0), torch.zeros_like(psi0)
        self.nothing = torch.zeros_like(psi0)
        self.forecast = Forecast()  # of the multipliers
        self.ponding = torch.zeros_like(inputs["ponding0"])
        self.rows = {index: row for row, index in enumerate(run.save)}

    def span(self, start: State, records: list[Record]) -> None:
        """Walk the accepted steps of a span, last first."""
        for index in reversed(range(len(records))):
            self.step(start, records, index)

    def step(self, start: State, records: list[Record], index: int, riding: Riding | None = None) -> None:
        """Walk one of them; each must follow the one after it."""
        record = records[index]
        if _ends_interval(records, index):
            self._observe(record.interval + 1)
        before = records[index - 1] if index else None
        psi = before.psi if before else start.psi
        ponding = before.ponding if before else start.ponding
        # no derivative of a step depends on the theta that it started from: F is linear in it
        step = Step(record.interval, record.dt, psi, self.nothing, ponding)
        seeds = self._seeds(record)
        if riding is not None:
            self.theta = self.theta + riding.after
            for name, seed in riding.seeds.items():
                seeds[name] = seeds[name] + seed if name in seeds else seed
        there = self.stencil.linearise(step, record.psi)
        load = self.psi + there.load(seeds, self.theta)
        guess = None if self.exact.recalls(record) else self.forecast.guess(record.dt)
        multiplier = self.exact.solve(there, load, guess, record, transposed=True)
        self.forecast.add(record.dt, multiplier)
        self.theta, self.psi, self.ponding = there.pull(multiplier, seeds, self.theta, self.within)
        if riding is not None:
            self.theta = self.theta + riding.before

    def _seeds(self, record: Record) -> dict[str, Tensor]:
        """Cotangents of one step's outputs: interval means weigh each step by its length."""
        start, end = self.run.span(record.interval)
        weight = record.dt / (end - start)
        seeds = {"ponding": self.ponding}
        for name in self.run.problem.flux_names:
            if name in self.bars:
                seeds[name] = weight * self.bars[name][record.interval]
        return seeds

    def _observe(self, index: int) -> None:
        """Add the cotangents of what is returned of the state at times[index]."""
        if "ponding" in self.bars:
            self.ponding = self.ponding + self.bars["ponding"][index]
        if "psi" in self.bars and index in self.rows:
            bar = self.bars["psi"][self.rows[index]]
            if self.run.cells is None:
                self.psi = self.psi + bar
            else:
                at = torch.zeros_like(self.psi).flatten().index_add_(0, self.run.cells, bar)
                self.psi = self.psi + at.reshape(self.psi.shape)

    def finish(self) -> dict[str, Tensor]:
        """The initial state's part, and the gradients."""
        self._observe(0)
        psi0 = self.inputs["psi0"]
        by_theta = self.stencil.pull_theta(psi0, self.theta, self.within)
        if "psi0" in self.gradients:
            self.gradients["psi0"] += self.psi + by_theta
        if "ponding0" in self.gradients:
            self.gradients["ponding0"] += self.ponding
        return self.gradients


def _ends_interval(records: list[Record], index: int) -> bool:
    return index + 1 == len(records) or records[index + 1].interval != records[index].interval


def _packed(state: State) -> dict[str, Tensor]:
    dt = torch.tensor([state.dt], dtype=torch.float64)
    return {
        "psi": state.psi,
        "ponding": state.ponding,
        "dt": dt,
        "precise": torch.tensor([state.precise]),
    }


def _unpacked(kept: dict[str, Tensor]) -> State:
    return State(kept["psi"], kept["ponding"], float(kept["dt"]), bool(kept["precise"]))
