"""A relation that PyTorch evaluates: any function of psi and some tensors, with its derivatives by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Values = dict[str, Tensor]

#: Prefix of the inputs that all cells share, such as the weights of a network.
WEIGHT = "weight."

#: Suctions [m] among which the one of the largest capacity is looked for, four a decade.
SUCTIONS = tuple(10.0 ** (-3.0 + 0.25 * k) for k in range(25))


@dataclass(frozen=True)
class SoilFunction:
    """theta and kr as a function, and the tensors through which it is differentiated.

    Attributes:
        names: of the tensors: fields, one value for each cell, and weights (``WEIGHT``), shared by all cells.
        call: (psi, tensors by name) -> (theta, kr), elementwise in psi and the fields.
    """

    names: tuple[str, ...]
    call: Callable[[Tensor, Values], tuple[Tensor, Tensor]]

    def theta_kr(self, psi: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        """theta and kr, shaped as psi; differentiable."""
        theta, kr = self.call(psi, values)
        return theta.expand(psi.shape), kr.expand(psi.shape)

    def slopes(self, psi: Tensor, values: Values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """theta, kr and their slopes in psi."""
        with torch.enable_grad():
            x = psi.detach().requires_grad_()
            theta, kr = self.theta_kr(x, values)
            found = [
                torch.autograd.grad(curve.sum(), x, retain_graph=True, allow_unused=True)[0]
                if curve.requires_grad
                else None
                for curve in (theta, kr)
            ]
        capacity, dkr = (torch.zeros_like(psi) if slope is None else slope for slope in found)
        return theta.detach(), kr.detach(), capacity, dkr

    def pull(
        self, psi: Tensor, values: Values, by_theta: Tensor, by_kr: Tensor | None, wanted: tuple[str, ...]
    ) -> tuple[Tensor, Values]:
        """Cotangents of psi and of the wanted tensors, given those of theta and kr (None is 0)."""
        with torch.enable_grad():
            x = psi.detach().requires_grad_()
            leaves = {name: values[name].detach().requires_grad_() for name in wanted}
            theta, kr = self.theta_kr(x, values | leaves)
            total = (theta * by_theta).sum()
            if by_kr is not None:
                total = total + (kr * by_kr).sum()
            ends = [x, *leaves.values()]
            found = (
                torch.autograd.grad(total, ends, allow_unused=True)
                if total.requires_grad
                else [None] * len(ends)
            )
        by_psi, *rest = (
            torch.zeros_like(end) if g is None else g for end, g in zip(ends, found, strict=True)
        )
        return by_psi, dict(zip(leaves, rest, strict=True))

    def wet_suction(self, psi: Tensor, values: Values) -> Tensor:
        """Suction [m] of the largest capacity among ``SUCTIONS``, shaped as psi."""
        best, steepest = torch.full_like(psi, SUCTIONS[0]), torch.full_like(psi, -1.0)
        for suction in SUCTIONS:
            capacity = self.slopes(torch.full_like(psi, -suction), values)[2]
            best = torch.where(capacity > steepest, suction, best)
            steepest = torch.maximum(capacity, steepest)
        return best
