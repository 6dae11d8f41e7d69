"""How far a Newton update is followed: the path of the iteration, not its end. Plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRIPLE = math.log(3.0)


def move(
    psi: Tensor,
    update: Tensor,
    theta: Tensor,
    capacity: Tensor,
    wet: Tensor,
    theta_r: Tensor,
    theta_s: Tensor,
) -> Tensor:
    """The new psi. The update is applied in theta where a cell is dry (h > wet) and in psi elsewhere.

    With the local power law theta - theta_r ~ h^-s, s = C h/(theta - theta_r), theta_new = theta + C x means
    h_new = h (1 + r)^(-1/s), r = C x/(theta - theta_r), 1/s = (x/h)/r. A dry cell that would pass saturation
    stops at psi = 0; drying, theta - theta_r at most halves and h at most triples in one iteration.

    Args:
        psi, update: [nz, ny, nx] m.
        theta, capacity: at psi.
        wet: suction near the inflection of theta(psi), m.
        theta_r, theta_s: what broadcasts to the cells.
    """
    h = -psi
    plain = torch.maximum(psi + update, -3.0 * torch.maximum(h, wet))
    large = (h > wet) & (update.abs() > 0.05 * h)
    if not bool(large.any()):
        return plain
    hs = torch.where(large, h, 1.0)
    wetness = theta - theta_r
    some = wetness > 0.0
    r = torch.where(some, capacity * update / torch.where(some, wetness, 1.0), 0.0)
    y = update / hs
    tiny = r.abs() < 1e-4
    rs = torch.where(tiny, 1.0, r)
    exponent = torch.where(tiny, y * (1.0 - 0.5 * r), y / rs * torch.log1p(rs.clamp(min=-0.5)))
    dry = -hs * torch.exp((-exponent).clamp(max=TRIPLE))
    passes = wetness * (1.0 + r) >= theta_s - theta_r
    return torch.where(large, torch.where(passes, 0.0, dry), plain)
