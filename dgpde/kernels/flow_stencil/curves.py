"""What every backend's soil returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Curves:
    """The soil at some psi, [nz, ny, nx] each."""

    theta: Tensor
    kr: Tensor
    capacity: Tensor
    dkr: Tensor
