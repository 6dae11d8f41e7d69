"""How much a curve over suction bends, as a penalty on the curve itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bends(values: Tensor, psi: Tensor) -> Tensor:
    """Second derivatives over x = log10(-psi), each times the root of its width: their squares sum to an integral.

        bend_i = [ (y_i+1 - y_i)/(x_i+1 - x_i) - (y_i - y_i-1)/(x_i - x_i-1) ] / sqrt(w_i),   w_i = (x_i+1 - x_i-1)/2

    so that sum_i bend_i^2 is the integral of (d2y/dx2)^2 by divided differences. A straight line in x has none.

    Args:
        values: of the curve at ``psi`` [m, ...], m at least 3.
        psi: heads [m], all negative, in the order of falling head (rising suction).

    Returns:
        [m - 2, ...], differentiable in ``values``.

    Raises TypeError or ValueError, the message starting with the argument's name.
    """
    x = log10_suction(psi)
    if values.dim() == 0 or values.shape[0] != x.numel():
        raise ValueError(
            f"values: has shape {tuple(values.shape)}; its first dimension must be that of psi, {x.numel()}"
        )
    gap = x.diff()
    width = 0.5 * (gap[1:] + gap[:-1])

    def beside(row: Tensor) -> Tensor:
        return row.to(values).reshape(-1, *[1] * (values.dim() - 1))

    slope = values.diff(dim=0) / beside(gap)
    return slope.diff(dim=0) / beside(width.sqrt())


def log10_suction(psi: Tensor) -> Tensor:
    """log10(-psi) of a checked row of heads; raises TypeError or ValueError."""
    if not isinstance(psi, Tensor):
        raise TypeError(f"psi: is a {type(psi).__name__}; give a tensor of heads in m")
    if psi.dim() != 1 or psi.numel() < 3:
        raise ValueError(f"psi: has shape {tuple(psi.shape)}; give a row of at least 3 heads")
    if not bool((psi < 0.0).all()) or not bool((psi.diff() < 0.0).all()):
        raise ValueError("psi: must be negative and fall from each head to the next")
    return torch.log(-psi) / math.log(10.0)
