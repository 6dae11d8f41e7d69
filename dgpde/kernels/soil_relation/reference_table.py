"""The tabulated relation: monotone C1 cubics of theta and ln kr in x = ln(-psi), one table per class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.reference_common import Parameters, split


def knot_place(psi: Tensor, knots: tuple[float, float], n_knots: int) -> tuple[Tensor, ...]:
    """unsaturated at a table's resolution, beyond the last knot, x, position in the interval, the knot before it."""
    first, spacing = knots
    last = first + spacing * (n_knots - 1)
    dry, h = split(psi, torch.full_like(psi, math.exp(first)))
    x = torch.log(h)
    beyond = dry & ~(x <= last)
    inner = torch.where(dry & ~beyond, x, torch.full_like(x, first))
    position = (inner - first) / spacing
    # NaN goes to interval 0 and stays NaN through the position
    cell = torch.nan_to_num(position.detach()).floor().clamp(0, n_knots - 2).to(torch.int64)
    return dry, beyond, x, position - cell.to(psi.dtype), cell


def _table_rows(p: Parameters, psi: Tensor, knots: tuple[float, float]) -> tuple[Tensor, ...]:
    """The first four of `knot_place` and the two rows of the interval."""
    n_class, n_knots, _ = p["table"].shape
    *place, cell = knot_place(psi, knots, n_knots)
    row = p["classes"].to(torch.int64).expand(psi.shape) * n_knots + cell
    flat = p["table"].reshape(n_class * n_knots, 4)
    return *place, flat[row], flat[row + 1]


def hermite(u: Tensor, f0: Tensor, d0: Tensor, f1: Tensor, d1: Tensor) -> Tensor:
    """Cubic with values f and slopes d (per interval) at u = 0 and 1."""
    return f0 + u * (d0 + u * ((3.0 * (f1 - f0) - 2.0 * d0 - d1) + u * (2.0 * (f0 - f1) + d0 + d1)))


def _hermite_slope(u: Tensor, f0: Tensor, d0: Tensor, f1: Tensor, d1: Tensor) -> Tensor:
    return d0 + u * (2.0 * (3.0 * (f1 - f0) - 2.0 * d0 - d1) + 3.0 * u * (2.0 * (f0 - f1) + d0 + d1))


def _last_row(p: Parameters, psi: Tensor) -> Tensor:
    return p["table"][:, -1][p["classes"].to(torch.int64).expand(psi.shape)]


def tabulated(p: Parameters, psi: Tensor, knots: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Cubic Hermite in x = ln(-psi) of theta and of ln kr, per class.

    ``p``: "table" [n_class, n_knots, 4] (theta, dtheta/dx, ln kr, dln kr/dx) and "classes" (integer,
    broadcast to psi). Wetter than knot 0: its values. Drier than the last knot: theta_N
    exp((theta_N'/theta_N)(x - x_N)) and ln kr linear in x, which continue value and slope and stay positive.
    """
    psi = torch.broadcast_to(psi, torch.broadcast_shapes(psi.shape, p["classes"].shape))
    spacing = knots[1]
    _, beyond, x, u, low, high = _table_rows(p, psi, knots)
    theta = hermite(u, low[..., 0], spacing * low[..., 1], high[..., 0], spacing * high[..., 1])
    log_kr = hermite(u, low[..., 2], spacing * low[..., 3], high[..., 2], spacing * high[..., 3])
    end = _last_row(p, psi)
    past = torch.where(beyond, x - (knots[0] + spacing * (p["table"].shape[1] - 1)), torch.zeros_like(x))
    theta = torch.where(beyond, end[..., 0] * torch.exp(end[..., 1] / end[..., 0] * past), theta)
    return theta, torch.exp(torch.where(beyond, end[..., 2] + end[..., 3] * past, log_kr))


def tabulated_capacity(p: Parameters, psi: Tensor, knots: tuple[float, float]) -> Tensor:
    """-(dtheta/dx)/h; 0 wetter than knot 0."""
    psi = torch.broadcast_to(psi, torch.broadcast_shapes(psi.shape, p["classes"].shape))
    spacing = knots[1]
    dry, beyond, x, u, low, high = _table_rows(p, psi, knots)
    slope = (
        _hermite_slope(u, low[..., 0], spacing * low[..., 1], high[..., 0], spacing * high[..., 1]) / spacing
    )
    end = _last_row(p, psi)
    past = torch.where(beyond, x - (knots[0] + spacing * (p["table"].shape[1] - 1)), torch.zeros_like(x))
    slope = torch.where(beyond, end[..., 1] * torch.exp(end[..., 1] / end[..., 0] * past), slope)
    return torch.where(dry, -slope * torch.exp(-x), torch.zeros_like(psi))


def tabulated_wet_suction(p: Parameters, knots: tuple[float, float]) -> Tensor:
    """Suction of the knot with the largest capacity, per cell."""
    table = p["table"]
    x = knots[0] + knots[1] * torch.arange(table.shape[1], dtype=table.dtype, device=table.device)
    steepest = x[(-table[..., 1] * torch.exp(-x)).argmax(-1)]
    return torch.exp(steepest)[p["classes"].to(torch.int64)]
