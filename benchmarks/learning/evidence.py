"""Fits under smoothness priors whose strengths are chosen by the data, with Gauss and Newton's curvature.

The loss of a problem is half the sum of squares of its residuals (misfit over noise), plus half of what its curves
bend, S_j = sum of squares of its bends j, times a strength lambda_j each. The strengths are those that make the
measurements most probable when the fit is taken as linear around it (MacKay 1992, Neural Comput. 4, 415):

    lambda_j = gamma_j / S_j,   gamma_j = rank_j - lambda_j tr(H^-1 B_j'B_j),   H = J'J + sum_j lambda_j B_j'B_j + loose

with J and B_j the derivatives of residuals and bends in the p numbers, rank_j the number of directions in which the
curve can bend: gamma_j counts those that the measurements determine. H^-1 is the covariance of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from benchmarks.learning.optimise import minimise

NOTHING = 1e-8  # of the largest eigenvalue of B'B: what counts as no direction
DAMPING = 1e-3  # of the diagonal of H, added where its inverse gives directions of descent


@dataclass(frozen=True)
class Problem:
    """What n fits have in common.

    residuals: x [m, p], ``which`` of the n problems each row is [m] -> [m, r].
    bends: x [m, p] -> [m, q, c].
    loose: precision [p] of a prior that only keeps numbers which nothing else holds.
    """

    residuals: Callable[..., Tensor]
    bends: Callable[[Tensor], Tensor]
    loose: Tensor

    def loss(self, x: Tensor, which: Tensor, strengths: Tensor) -> Tensor:
        """[m]; strengths [m, q]."""
        misfit = self.residuals(x, which=which).square().sum(1)
        smooth = (strengths * self.bends(x).square().sum(2)).sum(1)
        return 0.5 * (misfit + smooth + (self.loose * x.square()).sum(1))


@dataclass(frozen=True)
class Curvature:
    """Of n problems: J'J [n, p, p], B_j'B_j [n, q, p, p], S [n, q]."""

    misfit: Tensor
    smooth: Tensor
    bent: Tensor

    def total(self, strengths: Tensor, loose: Tensor) -> Tensor:
        """H [n, p, p]."""
        return self.misfit + (strengths[..., None, None] * self.smooth).sum(1) + torch.diag(loose)


@dataclass(frozen=True)
class Fitted:
    """x [n, p], strengths [n, q], covariance of x [n, p, p]."""

    x: Tensor
    strengths: Tensor
    covariance: Tensor


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values [...] and derivatives [p, ...] of a function of rows at one row x [p]: a row for each direction."""
    count = x.numel()
    with forward_ad.dual_level():
        rows = forward_ad.make_dual(x.expand(count, -1).clone(), torch.eye(count, dtype=x.dtype))
        found = forward_ad.unpack_dual(function(rows))
    assert found.tangent is not None
    return found.primal[0], found.tangent


@torch.no_grad()
def curvature(problem: Problem, x: Tensor) -> Curvature:
    """At x [n, p], one problem after the other."""
    misfit, smooth, bent = [], [], []
    for k, row in enumerate(x):
        which = torch.full((x.shape[1],), k)
        _, j = derivatives(partial(problem.residuals, which=which), row)
        b, slopes = derivatives(problem.bends, row)
        misfit.append(j @ j.T)
        smooth.append(torch.einsum("pqc,sqc->qps", slopes, slopes))
        bent.append(b.square().sum(1))
    return Curvature(torch.stack(misfit), torch.stack(smooth), torch.stack(bent))


def most_probable(found: Curvature, strengths: Tensor, loose: Tensor) -> Tensor:
    """gamma/S [n, q]."""
    size = torch.linalg.eigvalsh(found.smooth)
    rank = (size > NOTHING * size[..., -1:]).sum(-1)
    inverse = torch.linalg.inv(found.total(strengths, loose))
    taken = strengths * torch.einsum("nps,nqsp->nq", inverse, found.smooth)
    return (rank - taken) / found.bent


def fit(problem: Problem, start: Tensor, strengths: Tensor, rounds: int, evaluations: int) -> Fitted:
    """Rounds of L-BFGS from Gauss and Newton's curvature, the strengths [n, q] adapted after the first.

    A strength goes half of the way to the most probable one, in its logarithm, in each round.
    """
    x, which = start, torch.arange(start.shape[0])
    for turn in range(rounds):
        found = curvature(problem, x)
        if turn:
            strengths = (strengths * most_probable(found, strengths, problem.loose)).sqrt()
        total = found.total(strengths, problem.loose)
        damped = total + torch.diag_embed(DAMPING * (total.diagonal(dim1=1, dim2=2) + 1.0))
        now = strengths

        def loss(rows: Tensor, now: Tensor = now) -> Tensor:
            return problem.loss(rows, which, now)

        x = minimise(loss, x, evaluations, curvature=damped).x
    covariance = torch.linalg.inv(curvature(problem, x).total(strengths, problem.loose))
    return Fitted(x, strengths, covariance)
