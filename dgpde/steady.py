"""Steady states of the field engine: the solution of F = 0 without its storage terms, as one node of the graph.

Newton at an infinite step, from the first guess; when that fails, from where implicit Euler steps of growing length
have come (pseudo-transient continuation: Kelley & Keyes 1998, SIAM J. Numer. Anal. 35:508). The state does not depend
on the first guess, so its adjoint is one transposed solve, J^T lambda = g, at the state itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from dgpde.assembly import Words, check_start
from dgpde.boundary import Atmosphere
from dgpde.errors import SolveError
from dgpde.field import field_solution, set_up_field
from dgpde.kernels.flow_stencil.problem import Evaluation, Linearised, Step
from dgpde.kernels.node import as_node
from dgpde.newton import Newton, Outcome, water
from dgpde.options import SolveOptions
from dgpde.series import Value
from dgpde.solution import Solution
from dgpde.timeloop import Record
from dgpde.trajectory import FieldRun, Watch

Tensors = dict[str, Tensor]

FOREVER = torch.tensor([0.0, math.inf], dtype=torch.float64)
GROWTH = 8.0  # of the step after one that went well
LONGEST = 1e18  # s, a step after which Newton at an infinite one is given up
MOST_STEPS = 100  # those that were cut with them
SETTLED = 0.02  # change of theta in a step below which Newton at an infinite one is tried again
CLOSED = (
    1e-12  # what may be left of the sum of a row of the Jacobian, of its diagonal, where nothing fixes a head
)
BALANCE = (
    1e-11  # sum of the residuals' magnitudes that is accepted, of the water that moves through the domain
)

CLOSED_TEXT = (
    "no boundary ties the water in the domain to a head, so there is no steady state, or one for every content of "
    "water: give a side a Head, HydraulicHead, GeneralHead or FreeDrainage, or the domain a River"
)


def solve_steady(words: Words, psi0: Value, options: SolveOptions) -> Solution:
    """The steady state of a model; arguments as for ``Richards.steady``.

    Raises:
        TypeError, ValueError, SolveError: as ``Richards.steady``.
    """
    start = check_start(words, psi0, [0.0, 1.0], options, 0.0)
    if isinstance(words.top, Atmosphere):
        most = words.top.inputs(start.frame, "top")["ponding_max"]
        if bool((most.detach() != 0.0).any()):
            raise ValueError("ponding_max must be 0 in a steady state: what cannot infiltrate runs off")
    transient, inputs = set_up_field(words, start, options, "last", None)
    run = SteadyRun(
        problem=transient.problem,
        times=FOREVER,
        save=(1,),
        cells=None,
        options=options,
        make_stencil=transient.make_stencil,
        make_solver=transient.make_solver,
    )
    out = as_node(run, inputs)
    return field_solution(words, replace(start, times=FOREVER), run, out)


class SteadyRun(FieldRun):
    """A steady state that is ready to be solved; its one interval and step have no end."""

    def forward(self, inputs: Tensors) -> Tensors:
        """Solve.

        Raises:
            SolveError: there is no steady state, or none was found.
        """
        problem = self.problem
        if (
            problem.rivers is None
            and not problem.roots
            and all(kind == "flux" for kind in problem.sides.values())
        ):
            raise SolveError(f"the domain is closed: {CLOSED_TEXT}")
        stencil = self.make_stencil(problem, inputs)
        solver = self.make_solver(self.options)
        newton = Newton(stencil, self.options, solver, self.work)
        final = _Final(stencil, self.options, solver, self.work)
        found = self._continue(newton, final, inputs["psi0"], inputs["ponding0"])
        step = self._step(found.psi, inputs["ponding0"])
        self._check_open(stencil.linearise(step, found.psi).matrix)
        account, (_, inflow, sources) = self.account, water(stencil, step, found.psi, found.now)
        account.imbalance = abs(sum(float(part.sum()) for part in inflow.values()) + sources[0])
        account.moved = sum(float(part.abs().sum()) for part in inflow.values()) + sources[1]
        self.history = [Record(0, math.inf, found.psi, found.now.ponding)]
        out = {"psi": found.psi[None], "ponding": torch.stack([inputs["ponding0"], found.now.ponding])}
        return out | {name: flux[None] for name, flux in found.now.fluxes().items()}

    def _step(self, psi: Tensor, ponding: Tensor) -> Step:
        """The step without end; what it starts from has no weight in it."""
        return Step(0, math.inf, psi, torch.zeros_like(psi), ponding)

    def _continue(self, newton: Newton, final: _Final, psi: Tensor, ponding: Tensor) -> Outcome:
        """Newton at an infinite step from where steps of growing length lead."""
        options, account, stencil = self.options, self.account, newton.stencil
        found = final.attempt(self._step(psi, ponding))
        dt, newton.cuts_in_turn = options.dt_initial, 0
        while not found.converged:
            if dt > LONGEST or dt < options.dt_min or account.steps + account.cuts >= MOST_STEPS:
                raise self._failure(found, dt)
            theta = stencil.theta(psi)
            went = newton.solve(Step(0, dt, psi, theta, ponding), psi)
            if not went.converged:
                newton.cuts_in_turn += 1
                account.cuts += 1
                dt *= 0.25
                continue
            newton.cuts_in_turn = 0
            account.steps += 1
            change = float((went.now.theta - theta).abs().max())
            psi = went.psi
            dt *= GROWTH if 2 * went.iterations <= options.max_newton and not went.restarted else 2.0
            if change < SETTLED:
                found = final.attempt(self._step(psi, ponding))
        return found

    def _failure(self, last: Outcome, dt: float) -> SolveError:
        cell = ""
        if last.worst >= 0:
            nz, ny, nx = self.problem.shape
            place = (last.worst // (ny * nx), last.worst // nx % ny, last.worst % nx)
            cell = f", worst in the cell (z, y, x) = {place}"
        return SolveError(
            f"no steady state was found{cell}: {self.account.steps} steps of growing length came to one of {dt:.3g} s, "
            f"and {self.account.cuts} were cut; check that the boundaries and sources can be in balance, begin from "
            "another psi0, or run to a late time with solve"
        )

    def _check_open(self, matrix: Tensor) -> None:
        """That psi is not free to move as a whole: under no-flow and one-sided boundaries it may be."""
        active = self.problem.active
        loose = matrix.sum(0).abs() <= CLOSED * matrix[0].abs()
        if bool((loose if active is None else loose[active]).all()):
            raise SolveError(f"every flow through the sides is prescribed at this state: {CLOSED_TEXT}")

    # ---------------------------------------------------------------------------------------------- derivatives

    def adjoint(self, inputs: Tensors, cotangents: dict[str, Tensor | None], wanted: set[str]) -> Tensors:
        """Gradients of the wanted inputs; those of the first guess are zero.

        Raises:
            SolveError: the transposed solve did not meet options.linear_tolerance.
        """
        there, psi, record = self._linearised(inputs)
        bars = {name: value for name, value in cotangents.items() if value is not None}
        still, ponding = torch.zeros_like(psi), torch.zeros_like(record.ponding)
        seeds = {"ponding": bars["ponding"][1] if "ponding" in bars else ponding}
        seeds |= {name: bars[name][0] for name in self.problem.flux_names if name in bars}
        gradients = {name: torch.zeros_like(inputs[name]) for name in wanted}
        load = there.load(seeds, still)
        if "psi" in bars:
            load = load + bars["psi"][0]
        multiplier = self.exact().solve(there, load, None, record, transposed=True)
        within = {name: value for name, value in gradients.items() if name not in ("psi0", "ponding0")}
        there.pull(multiplier, seeds, still, within)
        return gradients

    def tangent(self, inputs: Tensors, tangents: Tensors, watch: Watch | None = None) -> Tensors:
        """Tangents of the outputs; the first guess does not matter. Nothing can ride on a step without end."""
        assert watch is None
        there, psi, record = self._linearised(inputs)
        still, ponding = torch.zeros_like(psi), torch.zeros_like(record.ponding)
        old = (still, still, ponding)
        moving = {name: value for name, value in tangents.items() if name not in ("psi0", "ponding0")}
        residual, _, _ = there.push(still, old, moving)
        d_psi = -self.exact().solve(there, residual, None, record, transposed=False)
        _, _, found = there.push(d_psi, old, moving)
        out = {"psi": d_psi[None], "ponding": torch.stack([ponding, found["ponding"]])}
        return out | {name: found[name][None] for name in self.problem.flux_names}

    def _linearised(self, inputs: Tensors) -> tuple[Linearised, Tensor, Record]:
        record = self.history[0]
        stencil = self.make_stencil(self.problem, inputs)
        return stencil.linearise(self._step(record.psi, inputs["ponding0"]), record.psi), record.psi, record


class _Final(Newton):
    """Newton at an infinite step: storage says neither how small a residual must be nor when it balances."""

    def attempt(self, step: Step) -> Outcome:
        """From the psi of the step."""
        self.step = step
        return self._newton(step, step.psi, 2 * self.options.max_newton)

    def _done(self, now: Evaluation, first: bool) -> bool:
        """To round-off, or against the water that moves."""
        if now.exact <= 0.0:
            return True
        if first:
            return False
        _, inflow, source = water(self.stencil, self.step, self.step.psi, now)
        moved = sum(float(part.abs().sum()) for part in inflow.values()) + source[1]
        return float(now.residual.abs().sum()) <= BALANCE * moved

    def _balanced(self, step: Step, psi: Tensor, now: Evaluation, share: float) -> bool:
        return True

    def _forcing(self, norm: float, before: float, last: float, dt: float, closing: bool) -> float:
        """As of Eisenstat & Walker (see ``Newton``), without a floor: the last iterations are exact."""
        exact = self.options.linear_tolerance
        if self.stencil.problem.linear or not math.isfinite(before):
            return exact if self.stencil.problem.linear else 0.01
        return min(0.1, max(exact, 0.9 * (norm / before) ** 2))
