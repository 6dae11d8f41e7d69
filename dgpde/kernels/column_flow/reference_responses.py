"""Responses a(psi) to the pressure head, of root uptake and evaporation, in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import FEDDES_HEADS, ColumnProblem
from dgpde.kernels.soil_relation.reference_table import hermite, knot_place


def stress(problem: ColumnProblem, values: dict[str, Tensor], psi: Tensor) -> Tensor:
    """a at psi [nz, n] by the response that the problem has; values: of the interval, by input name."""
    knots = problem.responses.get("root_response")
    if knots is None:
        return feddes(psi, *(values[name] for name in FEDDES_HEADS))
    return tabulated_response(psi, values["root_response"], knots)


def feddes(psi: Tensor, h1: Tensor, h2: Tensor, h3: Tensor, h4: Tensor) -> Tensor:
    """Feddes, Kowalik & Zaradny (1978) response a(psi) in [0, 1]: 0 at h1 and wetter, 1 from h2 to h3, 0 at
    h4 and drier.
    """
    wet, dry = (h1 - psi) / (h1 - h2), (psi - h4) / (h3 - h4)
    a = torch.where(psi > h2, wet, torch.where(psi < h3, dry, torch.ones_like(psi)))
    return torch.where((psi >= h1) | (psi <= h4), torch.zeros_like(psi), a)


def tabulated_response(psi: Tensor, table: Tensor, knots: tuple[float, float]) -> Tensor:
    """Cubic Hermite in x = ln(-psi); wetter than the first knot its value, drier than the last that one's.

    Args:
        psi: [nz, n] m.
        table: [n_knots, 2, n], a and da/dx of each column.
        knots: x of the first knot, spacing.
    """
    _, beyond, _, u, cell = knot_place(psi, knots, table.shape[0])
    column = torch.arange(psi.shape[1], device=psi.device)
    (low, low_slope), (high, high_slope) = (
        (table[cell + after, 0, column], knots[1] * table[cell + after, 1, column]) for after in (0, 1)
    )
    return torch.where(beyond, table[-1, 0], hermite(u, low, low_slope, high, high_slope))
