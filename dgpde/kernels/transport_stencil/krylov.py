"""A Krylov method whose preconditioner may be a solve of its own: flexible GMRES.

Saad 1993, A flexible inner-outer preconditioned GMRES algorithm, SIAM J. Sci. Comput. 14, 461-469.
"""

from __future__ import annotations

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
    columns = first.new_zeros(RESTART + 1, RESTART)
    weights, used = first.new_zeros(0), 0
    target = first.new_zeros(RESTART + 1)
    target[0] = norm
    for k in range(RESTART):
        direction = precondition(basis[k].view_as(residual) / weight)
        image = (weight * apply(direction)).flatten()
        before = float(torch.linalg.vector_norm(image))
        for _ in range(2):  # once more, against round-off
            share = basis[: k + 1] @ image
            image = image - share @ basis[: k + 1]
            columns[: k + 1, k] += share
        length = float(torch.linalg.vector_norm(image))
        columns[k + 1, k] = length
        directions.append(direction)
        used = k + 1
        weights = torch.linalg.lstsq(columns[: k + 2, :used], target[: k + 2, None]).solution[:, 0]
        left = float(torch.linalg.vector_norm(target[: k + 2] - columns[: k + 2, :used] @ weights))
        if not left > 0.5 * tolerance * norm or not length > 1e-15 * before:
            break
        basis[k + 1] = image / length
    update = sum((w * d for w, d in zip(weights, directions, strict=True)), torch.zeros_like(residual))
    return update, used
