"""A reaction that PyTorch evaluates: what the solutes of a cell make of each other, its derivatives by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.transport_stencil.cell import Values
from dgpde.kernels.transport_stencil.pieces import leaves_of, pushed_values

FEATURES = "features"  # name of the features among the tensors


@dataclass(frozen=True)
class PointRate:
    """Mass that a reaction makes of each solute, per volume of soil and time; pointwise over the cells.

    Cells that take no part see what the first active cell sees, so that nothing which is not a number enters.

    Attributes:
        call: (c [S, nz, ny, nx] kg/m3, theta [nz, ny, nx], tensors by name) -> kg m-3 s-1 in the shape of c, with
            or without axes of one cell.
        volume: [nz, ny, nx] m3, 0 where a cell is not active.
        active: [nz, ny, nx] bool, or None.
    """

    call: Callable[[Tensor, Tensor, Values], Tensor]
    volume: Tensor
    active: Tensor | None

    def made(self, c: Tensor, theta: Tensor, values: Values) -> Tensor:
        """[S, nz, ny, nx] kg/s; differentiable."""
        made = self.volume * self._rate(c, theta, values).reshape(c.shape)
        return made if self.active is None else torch.where(self.active, made, 0.0)

    def _rate(self, c: Tensor, theta: Tensor, values: Values) -> Tensor:
        if self.active is not None:
            c, theta, values = self._filled(c), self._filled(theta), dict(values)
            if FEATURES in values:
                values[FEATURES] = self._filled(values[FEATURES])
        return self.call(c, theta, values)

    def _filled(self, value: Tensor) -> Tensor:
        assert self.active is not None
        first = int(self.active.flatten().nonzero()[0])
        sample = value.flatten(-3)[..., first, None, None, None]
        return torch.where(self.active, value, sample)

    def check(self, c: Tensor, theta: Tensor, values: Values) -> None:
        """Try the rate: that it is finite, pointwise, and knows no tensors but those that it is handed.

        Raises:
            ValueError: what is wrong with it; the message starts with "reaction".
        """
        with torch.enable_grad():
            rate = self._rate(c, theta, values)
        if not bool(torch.isfinite(rate.detach()).all()):
            raise ValueError(
                "reaction: its rate has values that are not finite (NaN or infinite) at the concentrations of the "
                "start"
            )
        if rate.requires_grad:
            raise ValueError(
                "reaction: its rate uses tensors that ask for a gradient and that it is not handed: make them "
                "parameters of an nn.Module, or pass them with parameters=[...]"
            )
        # every other cell changes: the rest must not
        moves = (torch.arange(c[0].numel(), device=c.device) % 2 == 1).view_as(c[0])
        there = torch.where(moves, c + 0.1 * max(float(c.abs().max()), 1e-3), c)
        with torch.no_grad():
            again = self._rate(there, theta, values).reshape(c.shape)
        rate = rate.reshape(c.shape)
        difference = torch.where(moves, 0.0, again - rate).abs().max()
        if not float(difference) <= 1e-12 * float(torch.maximum(rate.abs(), again.abs()).max()):
            raise ValueError(
                "reaction: its rate in a cell changes with the concentrations of other cells, or from call to call; it "
                "must be a function of the cell (no dropout, no batch normalisation in training)"
            )

    def slopes(self, c: Tensor, theta: Tensor, values: Values) -> Tensor:
        """d made_i/d c_j of every cell, [S, S, nz, ny, nx] m3/s; one sweep backwards for each solute."""
        rows = []
        with torch.enable_grad():
            x = c.detach().requires_grad_()
            made = self.made(x, theta, values)
            for one in made:
                row = None
                if one.requires_grad:
                    (row,) = torch.autograd.grad(one.sum(), x, retain_graph=True, allow_unused=True)
                rows.append(torch.zeros_like(c) if row is None else row)
        return torch.stack(rows)

    def pull(
        self, multiplier: Tensor, c: Tensor, theta: Tensor, values: Values, wanted: set[str]
    ) -> tuple[Tensor, Values]:
        """Gradients of <multiplier, made> at fixed c: of theta, and of the wanted tensors."""
        leaves = leaves_of({"theta": theta} | {name: values[name] for name in values if name in wanted})
        with torch.enable_grad():
            inner = values | {name: leaf for name, leaf in leaves.items() if name in values}
            total = (multiplier * self.made(c, leaves["theta"], inner)).sum()
            found: tuple[Tensor | None, ...] = (None,) * len(leaves)
            if total.requires_grad:
                found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        by_name = {name: g for name, g in zip(leaves, found, strict=True) if g is not None}
        by_theta = by_name.pop("theta", None)
        return torch.zeros_like(theta) if by_theta is None else by_theta, by_name

    def push(self, c: Tensor, theta: Tensor, values: Values, moving: Values) -> Tensor:
        """Tangent of ``made`` at fixed c, given those of "theta" and of the tensors; what is missing does not move."""

        def made(at: Values) -> Values:
            return {"made": self.made(c, at["theta"], {name: at[name] for name in values})}

        return pushed_values(made, {"theta": theta} | values, moving)["made"]
