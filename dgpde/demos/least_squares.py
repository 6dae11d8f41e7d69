"""Least squares on models whose columns cost little: every reading has a column, so one backward is a Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.errors import SolveError

SETTLED = 1e-4  # part of the cost that a step must win for the search to go on
MOST_TRIES = 6  # of one step, each damped ten times as much


def rows(model: Callable[[Tensor], Tensor], p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values [count] of a model and their Jacobian [count, k], by one reverse sweep.

    Args:
        model: from parameters [k, count] to values [count], the value i from the column i of the parameters alone.
        p: [k] where to look.
        count: of values.
    """
    wide = p.detach()[:, None].expand(-1, count).clone().requires_grad_()
    values = model(wide)
    (slopes,) = torch.autograd.grad(values.sum(), wide)
    return values.detach(), slopes.T


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions: mean [k] and standard deviation [k] of the parameters."""

    mean: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Estimate:
    """Where a search ended.

    Attributes:
        p: [k] parameters.
        misfit: [m] simulated less measured, in units of ``noise``; those of the data alone.
        slopes: [m, k] their Jacobian.
        precision: [k] of the prior, 1/spread^2; zeros without one.
        rounds: accepted steps.
    """

    p: Tensor
    misfit: Tensor
    slopes: Tensor
    precision: Tensor
    rounds: int

    def covariance(self) -> Tensor:
        """s^2 (J^T J + P)^-1 [k, k], what independent misfits would mean; s^2 is their variance, P the prior."""
        freedom = self.misfit.numel() - self.p.numel()
        return torch.linalg.inv(self._normal()) * (self.misfit.square().sum() / freedom)

    def block_bootstrap(self, groups: list[int], length: int, draws: int = 2000, seed: int = 0) -> Tensor:
        """Covariance [k, k] of the parameters when misfits come in runs: circular blocks of them are drawn anew.

        Refits are one Gauss-Newton step from here (Kuensch 1989, Ann. Statist. 17, 1217-1241, for the blocks).

        Args:
            groups: sizes of the series of readings that ``misfit`` holds one after the other.
            length: readings in a block.
            draws: of all blocks.
            seed: of the random numbers.
        """
        random = torch.Generator().manual_seed(seed)
        parts = []
        for series in self.misfit.split(groups):
            size = series.numel()
            starts = torch.randint(size, (draws, -(-size // length)), generator=random)
            index = (starts[..., None] + torch.arange(length)) % size
            parts.append((series - series.mean())[index.flatten(1)[:, :size]])
        moved = torch.linalg.solve(self._normal(), self.slopes.T @ torch.cat(parts, 1).T)
        return torch.cov(moved)

    def _normal(self) -> Tensor:
        return self.slopes.T @ self.slopes + torch.diag(self.precision)


def least_squares(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    prior: Prior | None = None,
    rounds: int = 60,
) -> Estimate:
    """Levenberg-Marquardt (Marquardt 1963, J. SIAM 11, 431-441), the damping in the scale of the curvature.

    Args:
        evaluate: from p [k] to the misfits [m], in units of the noise, and their Jacobian [m, k].
        start: [k] where to begin.
        prior: of the parameters; None for none.
        rounds: most steps.

    Raises:
        SolveError: the model cannot be run at ``start``.
    """
    mean = start if prior is None else prior.mean
    precision = torch.zeros_like(start) if prior is None else prior.spread.square().reciprocal()

    def cost(misfit: Tensor, p: Tensor) -> float:
        return float(misfit.square().sum() + (precision * (p - mean).square()).sum())

    p, damping = start, 1e-2
    misfit, slopes = evaluate(p)
    least, done = cost(misfit, p), 0
    while done < rounds:
        normal = slopes.T @ slopes + torch.diag(precision)
        downhill = -(slopes.T @ misfit + precision * (p - mean))
        better = False
        for _ in range(MOST_TRIES):
            there = p + torch.linalg.solve(normal + damping * torch.diag(normal.diagonal()), downhill)
            try:
                found = evaluate(there)
            except SolveError:  # a step into what cannot be run is too long
                damping *= 10.0
                continue
            better = cost(found[0], there) < least
            if better:
                break
            damping *= 10.0
        if not better:
            break
        won = least - cost(found[0], there)
        p, (misfit, slopes), done, damping = there, found, done + 1, max(damping / 10.0, 1e-6)
        least -= won
        if won < SETTLED * least:
            break
    return Estimate(p, misfit, slopes, precision, done)
