"""The nonlinear solve of one implicit step of the reference: a ladder of Newton iterations, column by column.

Newton from the old state with a limited update and a line search, then again from the wet side; what is
left is the caller's to cut. Nothing of this enters the graph, and nothing of it changes where the solution
is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.column_flow.reference_residual import StepData, Terms, linearise, terms

RESTART_ITERATIONS = 40  # from the wet side, after options.max_newton from the old state
HALVINGS = 3  # of the line search
ROUND_OFF = 200.0 * torch.finfo(torch.float64).eps


@dataclass
class StepOutcome:
    """One attempted step of m columns, outside the graph."""

    psi: Tensor  # [nz, m]
    converged: Tensor  # [m] bool
    finite: Tensor  # [m] bool
    iterations: Tensor  # [m] int64
    restarted: Tensor  # [m] bool


def solve_step(data: StepData, suction: Tensor) -> StepOutcome:
    """The ladder: Newton from the old state, then from the wet side. No graph; failure is reported per
    column.
    """
    options = data.problem.options
    psi, converged, iterations, finite = _newton(
        data, data.psi_old, suction, options.tolerance, options.max_newton
    )
    restarted = ~converged
    if bool(restarted.any()):
        again = restarted.nonzero().squeeze(1)
        part = data.select(again)
        start = torch.maximum(part.psi_old, -suction[:, again])
        wet, ok, more, fine = _newton(part, start, suction[:, again], options.tolerance, RESTART_ITERATIONS)
        psi[:, again] = wet
        converged[again] = ok
        finite[again] = fine
        iterations[again] += more
    return StepOutcome(psi, converged, finite, iterations, restarted)


def _newton(
    data: StepData, start: Tensor, suction: Tensor, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Newton with a limited update and a non-monotone line search on the L2 norm of F dt / dz.

    The columns that have converged (|F| dt <= tolerance dz theta_s + round-off in every cell) are polished
    with the others until the update stops to shrink, so that what is returned is exact to round-off.
    Returns psi [nz, m], converged [m], iterations [m], finite [m].
    """
    psi = start.clone()
    now, jacobian = linearise(psi, data)
    norm = _norm(now, data)
    history = [norm]
    done = _closed(now, data, tolerance)
    hopeless = ~torch.isfinite(norm)  # no line search leads out of there
    iterations = torch.zeros_like(done, dtype=torch.int64)
    for _ in range(limit):
        if bool((done | hopeless).all()):
            break
        target = _limited(psi, psi + newton_update(jacobian, now.residual), suction)
        target = torch.where(done | hopeless, psi, target)
        iterations += (~done & ~hopeless).to(torch.int64)
        psi, now, jacobian = _search(psi, target, torch.stack(history[-5:]).amax(0), done | hopeless, data)
        norm = _norm(now, data)
        history.append(norm)
        done = done | _closed(now, data, tolerance)
    psi = _polish(psi, now, jacobian, done, data)
    finite = torch.isfinite(norm) & torch.isfinite(psi).all(0)
    return psi, done & finite, iterations, finite


def _search(
    psi: Tensor, target: Tensor, bound: Tensor, done: Tensor, data: StepData
) -> tuple[Tensor, Terms, Tensor]:
    """Take the first of all, 1/2, 1/4, 1/8 of the way whose norm is below `bound` [m]; the best if none is.

    Returns the new psi with its terms and Jacobian; columns that are done do not move.
    """
    now, jacobian = linearise(target, data)
    best, best_norm = target, _norm(now, data)
    accepted = done | (best_norm < bound)
    if bool(accepted.all()):
        return best, now, jacobian
    for halving in range(HALVINGS):
        trial = torch.where(accepted, best, psi + 0.5 ** (halving + 1) * (target - psi))
        norm = _norm(terms(trial, data), data)
        better = ~accepted & ((norm < best_norm) | ~torch.isfinite(best_norm))
        best, best_norm = torch.where(better, trial, best), torch.where(better, norm, best_norm)
        accepted = accepted | (best_norm < bound)
        if bool(accepted.all()):
            break
    now, jacobian = linearise(best, data)
    return best, now, jacobian


def _polish(psi: Tensor, now: Terms, jacobian: Tensor, done: Tensor, data: StepData) -> Tensor:
    """Up to three more plain Newton updates of the converged columns, while the update shrinks."""
    last = torch.full_like(done, torch.inf, dtype=psi.dtype)
    for _ in range(3):
        step = newton_update(jacobian, now.residual)
        size = (step.abs() / (1.0 + psi.abs())).amax(0)
        useful = done & (size < 0.5 * last)
        psi = torch.where(useful, psi + step, psi)
        if not bool((useful & (size > 1e-14)).any()):
            break
        last = torch.where(useful, size, last)
        now, jacobian = linearise(psi, data)
    return psi


def newton_update(jacobian: Tensor, right: Tensor) -> Tensor:
    """-J^-1 F [nz, m]; not finite where J is singular, which the line search then refuses."""
    solution, info = torch.linalg.solve_ex(jacobian, right.T[:, :, None])
    solution = torch.where((info == 0)[:, None, None], solution, torch.nan)
    return -solution[:, :, 0].T


def _limited(psi: Tensor, new: Tensor, suction: Tensor) -> Tensor:
    """A dry cell that would pass saturation stops at psi = 0; a drying one at most triples its suction.

    Only the path of the iteration changes, not its end.
    """
    new = torch.where((psi < -suction) & (new > 0.0), torch.zeros_like(new), new)
    return torch.maximum(new, 3.0 * torch.minimum(psi, -suction))


def _norm(now: Terms, data: StepData) -> Tensor:
    return (now.residual * data.dt / data.dz).square().sum(0).sqrt()


def _closed(now: Terms, data: StepData, tolerance: float) -> Tensor:
    """Convergence [m]: the water that is missing is below the tolerance, or below the round-off of its
    terms.
    """
    allowed = tolerance * data.dz * data.theta_s + ROUND_OFF * data.dt * now.magnitude
    return (now.residual.abs() * data.dt <= allowed).all(0)
