"""A Krylov method whose preconditioner may be a solve of its own: flexible GMRES.

Saad 1993, A flexible inner-outer preconditioned GMRES algorithm, SIAM J. Sci. Comput. 14, 461-469.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dgpde.kernels.transport_stencil.problem import Solved

RESTART, CYCLES = 40, 10

Map = Callable[[Tensor], Tensor]


def flexible_gmres(apply: Map, precondition: Map, rhs: Tensor, weight: Tensor, tolerance: float) -> Solved:
    """A x = rhs, with the residual measured after its rows are multiplied by ``weight``.

    Args:
        apply: A times a vector.
        precondition: roughly A^-1 times a vector; it need not be linear, nor the same from call to call.
        rhs: of any shape.
        weight: positive, broadcasts to ``rhs``.
        tolerance: of the weighted residual, relative to the weighted right side.

    Returns:
        the solution, converged or not; the residual is computed from it.
    """
    x = torch.zeros_like(rhs)
    size = float(torch.linalg.vector_norm(weight * rhs))
    if size == 0.0:
        return Solved(x, 0, 0.0, True)
    residual, relative, count = rhs, 1.0, 0
    for _ in range(CYCLES):
        update, used = _cycle(apply, precondition, residual, weight, tolerance / relative)
        x, count, before = x + update, count + used, relative
        residual = rhs - apply(x)
        relative = float(torch.linalg.vector_norm(weight * residual)) / size
        # not less than half: round-off, or a method that has come to a stand
        if not relative > tolerance or not relative < 0.5 * before:
            break
    return Solved(x, count, relative, relative <= tolerance)


def _cycle(
    apply: Map, precondition: Map, residual: Tensor, weight: Tensor, tolerance: float
) -> tuple[Tensor, int]:
    """An update that lowers a residual, and the number of steps taken."""
    first = (weight * residual).flatten()
    norm = float(torch.linalg.vector_norm(first))
    basis, directions = first.new_empty(RESTART + 1, first.numel()), []
    basis[0] = first / norm
    triangle: list[list[float]] = []  # columns of R
    turns: list[tuple[float, float]] = []  # cosines and sines of the rotations that make it
    target = [norm]
    for k in range(RESTART):
        direction = precondition(basis[k].view_as(residual) / weight)
        image = (weight * apply(direction)).flatten()
        before = float(torch.linalg.vector_norm(image))
        column = [0.0] * (k + 1)
        for _ in range(2):  # once more, against round-off
            # no BLAS: the order of its sums may change from run to run, and with it the last bits
            shares_of = (basis[: k + 1] * image).sum(1)
            image = image - (shares_of[:, None] * basis[: k + 1]).sum(0)
            column = [have + more for have, more in zip(column, shares_of.tolist(), strict=True)]
        length = float(torch.linalg.vector_norm(image))
        for i, (cosine, sine) in enumerate(turns):
            upper, lower = column[i], column[i + 1]
            column[i], column[i + 1] = cosine * upper + sine * lower, cosine * lower - sine * upper
        size = math.hypot(column[k], length)
        if size == 0.0 or not math.isfinite(size):
            break
        cosine, sine = column[k] / size, length / size
        turns.append((cosine, sine))
        triangle.append([*column[:k], size])
        target[k:] = [cosine * target[k], -sine * target[k]]
        directions.append(direction)
        if not abs(target[-1]) > 0.5 * tolerance * norm or not length > 1e-15 * before:
            break
        basis[k + 1] = image / length
    update = torch.zeros_like(residual)
    shares: list[float] = []
    for i in reversed(range(len(triangle))):
        rest = sum(
            triangle[j][i] * share for j, share in zip(range(i + 1, len(triangle)), shares, strict=True)
        )
        shares.insert(0, (target[i] - rest) / triangle[i][i])
    for share, direction in zip(shares, directions, strict=True):
        update = update + share * direction
    return update, len(directions)
