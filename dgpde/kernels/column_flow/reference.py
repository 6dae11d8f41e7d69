"""Column flow in plain PyTorch, float64: what the fused kernels are tested against.

Every step is solved by Newton iterations outside the graph until nothing but round-off is left, and enters
the graph through one differentiable Newton correction at the converged state psi*,

    psi = psi* - J^-1 F(psi*, inputs),      J = dF/dpsi (psi*) held constant,

whose value is psi* and whose derivatives, in reverse and in forward mode, are those of the implicit function.
The accepted step sizes are constants of the differentiation. Dense solves, a graph node per operation and
step: memory and time are of no concern here, being obviously right is. See `reference_residual` for the
equations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult, Report
from dgpde.kernels.column_flow.reference_newton import StepOutcome, newton_update, solve_step
from dgpde.kernels.column_flow.reference_residual import (
    StepData,
    Terms,
    WaterOfStep,
    linearise,
    prepare,
    primal,
    residual,
    terms,
    water,
    wet_side,
    with_forcing,
    with_state,
)

CUT = 0.25
LANDING = 1e-9  # a remainder shorter than this fraction of a step belongs to the step


def column_flow_reference(
    problem: ColumnProblem,
    inputs: dict[str, Tensor],
    step_sizes: list[Tensor] | None = None,
    carried: list[tuple[int, Tensor, WaterOfStep]] | None = None,
) -> ColumnResult:
    """Run n columns through all output intervals.

    Parameters
    ----------
    problem : the description of the run; `problem.options` gives the tolerances and the step control.
    inputs : the tensors of `problem.input_names()` in their full shapes; computed in float64 on the CPU.
        "dt0" [n] s, when there, is the step that the controller tries first.
    step_sizes : T tensors [m_i, n] of step sizes [s] to replay, padded with zeros (`Report.step_sizes` of
        another run). Default: equal steps when `options.dt_fixed` is set, else by truncation error.
    carried : receives, for every accepted step, its interval, the columns that took it and their water.

    Returns
    -------
    ColumnResult; differentiable with respect to every input. A column that cannot go on keeps its last
    state and is reported in `report.status`; the others finish.
    """
    run = _Run(problem, inputs, carried)
    for interval in range(problem.intervals):
        if step_sizes is not None:
            run.replay(interval, step_sizes[interval].to(torch.float64))
        elif problem.options.dt_fixed is not None:
            run.fixed(interval, problem.options.dt_fixed)
        else:
            run.adaptive(interval)
        run.close(interval)
    return run.result()


class _Run:
    """State, sums and counters of a trajectory."""

    def __init__(
        self,
        problem: ColumnProblem,
        inputs: dict[str, Tensor],
        carried: list[tuple[int, Tensor, WaterOfStep]] | None,
    ) -> None:
        n = problem.n
        self.carried, self.interval = carried, 0
        inputs = {name: value.to("cpu", torch.float64) for name, value in inputs.items()}
        self.problem, self.inputs = problem, inputs
        self.base = prepare(problem, inputs)
        self.suction = wet_side(self.base.primal())
        self.in_graph = any(
            value.requires_grad or torch.autograd.forward_ad.unpack_dual(value).tangent is not None
            for value in inputs.values()
        )
        self.psi, self.pond = inputs["psi0"], inputs["ponding0"]
        self.saved: dict[int, Tensor] = {0: self.psi}
        self.ponding = [self.pond]
        self.means: dict[str, list[Tensor]] = {name: [] for name in ("top", "bottom", "runoff", "uptake")}
        self.forced = self.base
        options = problem.options
        first = inputs.get("dt0", torch.full((n,), options.dt_initial, dtype=torch.float64))
        self.dt_next = primal(first).clamp(options.dt_min, options.dt_max)
        self.sizes: list[Tensor] = []
        self.interval_sizes: list[Tensor] = []
        self.sums = self._zero_sums()
        zeros = torch.zeros(n, dtype=torch.int64)
        self.report = Report(
            status=torch.zeros(n, dtype=torch.int32),
            failed_time=torch.full((n,), torch.nan, dtype=torch.float64),
            steps=zeros.clone(),
            newton_iterations=zeros.clone(),
            cuts=zeros.clone(),
            rejections=zeros.clone(),
            restarts=zeros.clone(),
            mass_balance_error=torch.zeros(n, dtype=torch.float64),
            water_moved=torch.zeros(n, dtype=torch.float64),
            dt_next=self.dt_next,
        )
        self.balance = torch.zeros(n, dtype=torch.float64)

    def _zero_sums(self) -> dict[str, Tensor]:
        return {name: torch.zeros(self.problem.n, dtype=torch.float64) for name in self.means}

    # -- one interval, three ways to choose the steps --------------------------------------------------------

    def replay(self, interval: int, sizes: Tensor) -> None:
        """Take the steps [m, n] that are given."""
        self.forced = with_forcing(self.base, self.inputs, interval)
        start = float(self.problem.times[interval])
        elapsed = torch.zeros(self.problem.n, dtype=torch.float64)
        for dt in sizes:
            columns = ((dt > 0.0) & (self.report.status == 0)).nonzero().squeeze(1)
            if columns.numel() == 0:
                continue
            data, outcome = self.attempt(columns, dt[columns])
            self.fail(columns[~outcome.converged], outcome.finite[~outcome.converged], start + elapsed)
            self.accept(columns, data, outcome, outcome.converged)
            elapsed = elapsed + dt

    def fixed(self, interval: int, dt_fixed: float) -> None:
        """Equal steps; one that fails is cut for its column, which then lands on the mesh of equal steps
        again.
        """
        times, n = self.problem.times, self.problem.n
        self.forced = with_forcing(self.base, self.inputs, interval)
        start, length = float(times[interval]), float(times[interval + 1] - times[interval])
        count = max(1, int(-(-length * (1.0 - LANDING) // dt_fixed)))
        mesh = length / count
        for step in range(count):
            remaining = torch.full((n,), mesh, dtype=torch.float64)
            dt = remaining.clone()
            while True:
                columns = self.unfinished(remaining, start + (step + 1) * mesh)
                if columns.numel() == 0:
                    break
                taken = self.land(dt[columns], remaining[columns])
                data, outcome = self.attempt(columns, taken)
                ok = outcome.converged
                self.accept(columns, data, outcome, ok)
                remaining[columns[ok]] = self.left(remaining[columns[ok]], taken[ok])
                dt[columns[ok]] = 2.0 * taken[ok]
                self.cut(
                    columns[~ok], outcome.finite[~ok], taken[~ok], dt, start + (step + 1) * mesh - remaining
                )

    def adaptive(self, interval: int) -> None:
        """Steps whose error dt/2 max |theta'_new - theta'_old| stays below `time_error`.

        The difference of backward and forward Euler with the old rate (Kavetski, Binning & Sloan 2001, Adv.
        Water Resour. 24:595). At the start of an interval the old rate is that of the fluxes of the new
        forcing.
        """
        times, n, options = self.problem.times, self.problem.n, self.problem.options
        self.forced = with_forcing(self.base, self.inputs, interval)
        start, length = float(times[interval]), float(times[interval + 1] - times[interval])
        remaining = torch.full((n,), length, dtype=torch.float64)
        rate = torch.zeros_like(primal(self.psi))
        known = torch.zeros(n, dtype=torch.bool)
        while True:
            columns = self.unfinished(remaining, start + length)
            if columns.numel() == 0:
                return
            proposed = self.dt_next[columns].clamp(options.dt_min, options.dt_max)
            taken = self.land(proposed, remaining[columns])
            data, outcome = self.attempt(columns, taken)
            values = data.primal()
            divergence = -terms(values.psi_old, values).residual / data.dz
            old_rate = torch.where(known[columns], rate[:, columns], divergence)
            new_rate = (values.retention(outcome.psi)[0] - values.theta_old) / taken
            error = 0.5 * taken * (new_rate - old_rate).abs().amax(0) / options.time_error
            ok = outcome.converged & ((error <= 1.0) | (taken <= options.dt_min * (1.0 + LANDING)))
            factor = torch.where(error > 0.0, 0.9 / error.sqrt(), torch.inf).clamp(0.25, 4.0)
            grown = torch.where(
                ok, torch.maximum(taken * factor, torch.where(factor < 1.0, 0.0, proposed)), taken * factor
            )
            rejected = outcome.converged & ~ok
            self.dt_next[columns] = grown
            self.report.rejections[columns[rejected]] += 1
            self.report.newton_iterations[columns[rejected]] += outcome.iterations[rejected]
            self.accept(columns, data, outcome, ok)
            rate[:, columns[ok]] = new_rate[:, ok]
            known[columns[ok]] = True
            remaining[columns[ok]] = self.left(remaining[columns[ok]], taken[ok])
            failed = ~outcome.converged
            self.cut(
                columns[failed],
                outcome.finite[failed],
                taken[failed],
                self.dt_next,
                start + length - remaining,
            )

    def unfinished(self, remaining: Tensor, end: float) -> Tensor:
        """Indices of the columns that have time left; those that have used up `max_steps` are given up."""
        left = (remaining > 0.0) & (self.report.status == 0)
        spent = left & (self.report.steps >= self.problem.options.max_steps)
        self.report.status[spent] = 3
        self.report.failed_time[spent] = end - remaining[spent]
        return (left & ~spent).nonzero().squeeze(1)

    def land(self, dt: Tensor, remaining: Tensor) -> Tensor:
        """The step to take: the proposal, or all that remains when nothing worth a step would be left."""
        return torch.where(remaining <= dt * (1.0 + LANDING), remaining, dt)

    def left(self, remaining: Tensor, taken: Tensor) -> Tensor:
        return torch.where(taken == remaining, torch.zeros_like(remaining), remaining - taken)

    # -- one step --------------------------------------------------------------------------------------------

    def attempt(self, columns: Tensor, dt: Tensor) -> tuple[StepData, StepOutcome]:
        """Solve one step of the given columns outside the graph."""
        everything = columns.numel() == self.problem.n
        forced = self.forced if everything else self.forced.select(columns)
        psi = self.psi if everything else self.psi.index_select(1, columns)
        pond = self.pond if everything else self.pond.index_select(0, columns)
        data = with_state(forced, psi, pond, dt)
        with torch.no_grad():
            outcome = solve_step(data.primal(), self.suction[:, columns])
        return data, outcome

    def accept(self, columns: Tensor, data: StepData, outcome: StepOutcome, ok: Tensor) -> None:
        """Move the columns that are ok to the new state, through the differentiable Newton correction."""
        if not bool(ok.any()):
            return
        psi_star, count = outcome.psi, outcome.iterations
        if not bool(ok.all()):
            chosen = ok.nonzero().squeeze(1)
            columns, data = columns[chosen], data.select(chosen)
            psi_star, count = psi_star[:, chosen], count[chosen]
        psi = psi_star
        if self.in_graph:
            _, jacobian = linearise(psi_star, data)
            psi = psi_star + newton_update(jacobian, residual(psi_star, data))
        new = terms(psi, data)
        if self.carried is not None:
            self.carried.append((self.interval, columns, water(psi, data)))
        if columns.numel() == self.problem.n:
            self.psi, self.pond = psi, new.top.ponding
        else:
            self.psi = self.psi.index_copy(1, columns, psi)
            self.pond = self.pond.index_copy(0, columns, new.top.ponding)
        step = {
            "top": new.top.flux,
            "bottom": new.bottom.flux,
            "runoff": new.top.runoff,
            "uptake": new.uptake,
        }
        for name, value in step.items():
            self.sums[name] = self.sums[name].index_add(0, columns, data.dt * value)
        self.account(columns, data, new)
        self.report.steps[columns] += 1
        self.report.newton_iterations[columns] += count
        self.report.restarts[columns] += outcome.restarted[ok].to(torch.int64)
        row = torch.zeros(self.problem.n, dtype=torch.float64)
        row[columns] = data.dt
        self.interval_sizes.append(row)

    def account(self, columns: Tensor, data: StepData, new: Terms) -> None:
        """Add the step to the balance of the soil, and to the sum of all that water did in it."""
        dt = primal(data.dt)
        gain = primal(new.top.flux + new.bottom.flux - new.uptake + new.source)
        self.balance[columns] += dt * (primal(new.storage.sum(0)) - gain)
        moved = new.storage.abs().sum(0) + new.top.flux.abs() + new.bottom.flux.abs()
        moved = moved + new.uptake + new.source.abs()
        pond = new.top.ponding - data.ponding_old
        self.report.water_moved[columns] += dt * primal(moved) + primal(pond).abs()

    def cut(self, columns: Tensor, finite: Tensor, taken: Tensor, dt: Tensor, time: Tensor) -> None:
        """Shorten the failed steps by 4 in `dt` [n], or give the columns up that are at the smallest step."""
        last = taken <= self.problem.options.dt_min * (1.0 + LANDING)
        dt[columns] = (CUT * taken).clamp(min=self.problem.options.dt_min)
        self.report.cuts[columns] += 1
        self.fail(columns[last], finite[last], time)

    def fail(self, columns: Tensor, finite: Tensor, time: Tensor) -> None:
        """Mark the columns as failed at their time (status 1; 2 when a value was not finite)."""
        self.report.status[columns] = torch.where(finite, 1, 2).to(torch.int32)
        self.report.failed_time[columns] = time[columns]

    # -- results ---------------------------------------------------------------------------------------------

    def close(self, interval: int) -> None:
        """Write the outputs of an interval."""
        length = float(self.problem.times[interval + 1] - self.problem.times[interval])
        for name, total in self.sums.items():
            self.means[name].append(total / length)
        self.sums = self._zero_sums()
        self.interval = interval + 1
        if interval + 1 in self.problem.save:
            self.saved[interval + 1] = self.psi
        self.ponding.append(self.pond)
        if self.problem.options.record_steps:
            rows = self.interval_sizes
            self.sizes.append(_packed(torch.stack(rows)) if rows else torch.zeros(0, self.problem.n).double())
        self.interval_sizes = []

    def result(self) -> ColumnResult:
        self.report.mass_balance_error = torch.where(
            self.balance == 0.0, torch.zeros_like(self.balance), self.balance.abs() / self.report.water_moved
        )
        self.report.step_sizes = self.sizes if self.problem.options.record_steps else None
        mean = {name: torch.stack(values) for name, values in self.means.items()}
        return ColumnResult(
            psi=torch.stack([self.saved[index] for index in self.problem.save]),
            ponding=torch.stack(self.ponding),
            top_flux=mean["top"],
            bottom_flux=mean["bottom"],
            runoff=mean["runoff"],
            uptake=mean["uptake"],
            report=self.report,
        )


def _packed(rows: Tensor) -> Tensor:
    """Accepted steps [m, n] with the zeros of each column moved behind its steps, and empty rows dropped."""
    order = (rows == 0.0).to(torch.int8).argsort(dim=0, stable=True)
    packed = rows.gather(0, order)
    return packed[: int((packed > 0.0).any(1).sum())]
