"""Safe building blocks of the reference relations; why they look as they do is told in reference.py."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]

TINY_SUCTION = {torch.float64: 1e-300, torch.float32: 1e-36}


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full relative accuracy, with exact first and second derivatives (also at x = 0)."""
    positive = x > 0
    tail = torch.log1p(torch.exp(torch.where(positive, -x, x)))
    return torch.where(positive, x + tail, tail)


def split(psi: Tensor, entry: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mask of the cells drier than saturation (or than the suction ``entry``); their suction, 1 m elsewhere.

    NaN counts as dry, so that it reaches the result.
    """
    tiny = TINY_SUCTION[psi.dtype]
    limit = torch.full_like(psi, tiny) if entry is None else entry.detach().clamp(min=tiny)
    dry = ~(psi >= -limit)
    return dry, torch.where(dry, -psi, torch.ones_like(psi))


def log_mualem(log_y: Tensor, m: Tensor) -> Tensor:
    """log(1 - (1 - Se^(1/m))^m) for Se = (1 + y)^-m, from log y.

    (1 - Se^(1/m))^m = (y/(1+y))^m = exp(-m softplus(-log y)); for y > exp(40) the logarithm is log m - log y
    to round-off.
    """
    far = log_y > 40.0
    near = torch.where(far, torch.zeros_like(log_y), log_y)
    return torch.where(far, torch.log(m) - log_y, log1mexp(-m * softplus(-near)))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact with its derivative on both sides of -log 2 (Maechler 2012)."""
    near = x > -math.log(2.0)
    small = torch.log(-torch.expm1(torch.where(near, x, torch.full_like(x, -0.5))))
    return torch.where(near, small, torch.log1p(-torch.exp(torch.where(near, torch.full_like(x, -1.0), x))))
