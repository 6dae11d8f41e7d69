"""One implicit step of the field engine: inexact Newton with a Krylov solver, and what is tried when it fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import Evaluation, Stencil, Step, source_sums
from dgpde.linear import LinearSolver, StencilMatrix
from dgpde.options import SolveOptions

MEMORY = 5  # residual norms that the line search looks back on
HALVINGS = 3
CLOSINGS = 8  # iterations that serve only the balance of the whole field, at most
BALANCE = 1e-10  # of the water moved, what the residuals of all cells together may come to
OFF_BALANCE = (
    1e-7  # the same after CLOSINGS iterations that did not help: absurd heads hide all in their round-off
)
LOOSEST = 0.1  # relative residual of a linear solve, at most
MARGIN = 0.03  # a linear solve ends this far below the norm of the residual that is accepted


@dataclass
class Outcome:
    """One attempted step."""

    psi: Tensor  # [nz, ny, nx] m
    now: Evaluation  # there
    converged: bool
    finite: bool
    iterations: int  # of the attempt that came last
    restarted: bool
    worst: int  # flat index of the cell that was furthest from convergence


@dataclass
class Work:
    """Counters of a run."""

    newton: int = 0
    linear: int = 0
    solves: int = 0
    restarts: int = 0


@dataclass
class Newton:
    """Solves steps.

    Attributes:
        stencil: the equations.
        options: tolerance, max_newton.
        solver: of the linear systems.
        work: counters, added to.
    """

    stencil: Stencil
    options: SolveOptions
    solver: LinearSolver
    work: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        problem = self.stencil.problem
        self.wet = self.stencil.wet_suction()
        nothing = torch.zeros_like(self.wet)
        pore = problem.volume(nothing) * self.stencil.theta(nothing)
        self.allowed = self.options.tolerance * pore  # m3
        inside = self.allowed if problem.active is None else self.allowed[problem.active]
        self.least, self.total = float(inside.min()), float(inside.norm())
        self.cuts_in_turn = 0
        self._matrix_dt: float | None = None  # of the linear problem whose matrix the solver holds

    def solve(self, step: Step, guess: Tensor) -> Outcome:
        """Newton from the guess; when it fails, once more from the wet side."""
        limit = self.options.max_newton
        outcome = self._newton(step, guess, limit)
        if outcome.converged or self.stencil.problem.linear:
            return outcome
        self.work.restarts += 1
        again = self._newton(step, self._restart(step), 2 * limit)
        again.restarted = True
        return again

    def _restart(self, step: Step) -> Tensor:
        """The wet side of the old state; once a cut has not helped, in turn a state without full cells."""
        if self.cuts_in_turn % 2 == 0:
            return torch.maximum(step.psi, -self.wet)
        return torch.minimum(step.psi, -self.wet)

    def _newton(self, step: Step, guess: Tensor, limit: int) -> Outcome:
        """Newton with a non-monotone line search."""
        linear = self.stencil.problem.linear
        psi, now = guess, self._evaluate(step, guess)
        norms: list[float] = []
        norm = math.inf
        forcing, closings = LOOSEST, 0
        for iteration in range(limit + 1):
            before, norm = norm, now.norm
            if not math.isfinite(norm):
                return Outcome(psi, now, False, False, iteration, False, self._not_finite(now))
            done = self._done(now, iteration == 0)
            if done:
                closings += 1
                if self._balanced(step, psi, now, BALANCE if closings < CLOSINGS else OFF_BALANCE):
                    return Outcome(psi, now, True, True, iteration, False, -1)
                if closings == CLOSINGS:
                    break
            if iteration == limit:
                break
            norms = [*norms[1 - MEMORY :], norm]
            forcing = self._forcing(norm, before, forcing, step.dt, closing=done)
            update = self._update(now, step.dt, forcing)
            if not bool(torch.isfinite(update).all()):
                return Outcome(psi, now, False, False, iteration, False, self._not_finite(now))
            self.work.newton += 1
            target = psi + update if linear else self.stencil.move(psi, update, now)
            psi, now = self._along(step, psi, target, max(norms))
        worst = int((now.residual.abs() - self.allowed / step.dt).argmax())
        return Outcome(psi, now, False, True, iteration, False, worst)

    def _done(self, now: Evaluation, first: bool) -> bool:
        """Whether the residual is accepted in every cell; a first guess must be right to round-off."""
        return (now.exact if first else now.beyond) <= 0.0

    def _evaluate(self, step: Step, psi: Tensor) -> Evaluation:
        # the solver may hold the matrix of a linear problem already
        known = self.stencil.problem.linear and self._matrix_dt == step.dt
        if not known:
            self._matrix_dt = (
                None  # the next matrix may be written in the place of the one that the solver holds
            )
        return self.stencil.evaluate(step, psi, self.allowed, not known)

    def _along(self, step: Step, psi: Tensor, target: Tensor, ceiling: float) -> tuple[Tensor, Evaluation]:
        """The first of 1, 1/2, 1/4, 1/8 of the way whose residual is below the ceiling; the best of them when none
        is.
        """
        best, now = target, self._evaluate(step, target)
        last, norm, share = target, now.norm, 1.0
        for _ in range(HALVINGS):
            if norm <= ceiling:
                break
            share *= 0.5
            trial = psi + share * (target - psi)
            there, last = self._evaluate(step, trial), trial
            if there.norm < norm or not math.isfinite(norm):
                best, now, norm = trial, there, there.norm
        # the matrix that stands is that of the last trial
        return best, now if best is last else self._evaluate(step, best)

    def _update(self, now: Evaluation, dt: float, tolerance: float) -> Tensor:
        """-J^-1 F, as far as the tolerance asks for."""
        problem = self.stencil.problem
        # The matrix of a linear problem depends on the step's length alone.
        if not problem.linear or self._matrix_dt != dt:
            assert now.matrix is not None
            self.solver.setup(StencilMatrix(now.matrix, symmetric=problem.symmetric))
            self._matrix_dt = dt
        result = self.solver.solve(-now.residual, tolerance=tolerance)
        self.work.linear += result.iterations
        self.work.solves += 1
        return result.x

    def _forcing(self, norm: float, before: float, last: float, dt: float, closing: bool) -> float:
        """Relative residual asked of the next linear solve (Eisenstat & Walker 1996, SIAM J. Sci. Comput. 17:16,
        choice 2), never less than is worth it.
        """
        if self.stencil.problem.linear:
            return min(self.options.linear_tolerance, 0.5 * self.least / (norm * dt))
        enough = MARGIN * self.total / (norm * dt)
        if closing:
            return min(LOOSEST, enough)
        forcing = 0.9 * (norm / before) ** 2 if math.isfinite(before) else LOOSEST
        if 0.9 * last**2 > 0.1:
            forcing = max(forcing, 0.9 * last**2)
        return min(LOOSEST, max(forcing, enough))

    def _balanced(self, step: Step, psi: Tensor, now: Evaluation, share: float) -> bool:
        """Whether the residuals of all cells together are at most this share of the water that moves."""
        gain, inflow, source = water(self.stencil, step, psi, now)
        moved = float(gain.abs().sum()) + step.dt * (
            sum(float(part.abs().sum()) for part in inflow.values()) + source[1]
        )
        error = abs(now.total) * step.dt
        noise = 4.0 * torch.finfo(torch.float64).eps * now.magnitude * step.dt
        return error <= share * moved + noise

    def _not_finite(self, now: Evaluation) -> int:
        bad = ~torch.isfinite(now.residual)
        return int(bad.flatten().to(torch.int8).argmax())


def water(
    stencil: Stencil, step: Step, psi: Tensor, now: Evaluation
) -> tuple[Tensor, dict[str, Tensor], tuple[float, float]]:
    """(gain [nz, ny, nx] m3 of the cells in the step, inflow by side [*side] m3/s, (sum, sum of magnitudes) of
    sources, wells, rivers and roots m3/s).
    """
    problem = stencil.problem
    gain = problem.volume(psi) * (now.theta - step.theta)
    gain = gain + stencil.inputs["storage"] * now.theta * (psi - step.psi)
    inflow = {side: problem.area(side, psi) * flux for side, flux in now.flux.items()}
    return gain, inflow, source_sums(problem, stencil.inputs, step.interval, psi, now.uptake)
