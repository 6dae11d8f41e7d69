"""The water of one step, as what it carries sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES
from dgpde.kernels.transport_stencil.cell import Values


@dataclass(frozen=True)
class Water:
    """What the flow does in one step; all of it is differentiable.

    Attributes:
        dt: s; [1, 1, nx] where columns take steps of their own.
        old, new: water of the cells before and after, [nz, ny, nx] m3.
        theta: water content after, [nz, ny, nx].
        flow: by axis, [nz, ny, nx] m3/s.
        sides: by side, [*side] m3/s into the domain.
        rates: what sources bring in, by name: a field [nz, ny, nx], or the rates [m] of ``cells``, m3/s.
        cells: by name of the rates, [m] flat indices.
    """

    dt: float | Tensor
    old: Tensor
    new: Tensor
    theta: Tensor
    flow: dict[int, Tensor]
    sides: dict[str, Tensor]
    rates: dict[str, Tensor]
    cells: dict[str, Tensor] = field(default_factory=dict)

    def named(self) -> Values:
        """The tensors by name."""
        found = {"old": self.old, "new": self.new, "theta": self.theta}
        found |= {f"flow_{AXES[k]}": value for k, value in self.flow.items()}
        found |= {f"side.{side}": value for side, value in self.sides.items()}
        return found | {f"rate.{name}": value for name, value in self.rates.items()}

    def with_values(self, named: Values) -> Water:
        """The same with other tensors."""
        return Water(
            self.dt,
            named["old"],
            named["new"],
            named["theta"],
            {k: named[f"flow_{AXES[k]}"] for k in self.flow},
            {side: named[f"side.{side}"] for side in self.sides},
            {name: named[f"rate.{name}"] for name in self.rates},
            self.cells,
        )

    def inflow(self) -> Tensor:
        """What sources bring in, [nz, ny, nx] m3/s; what they take out does not count."""
        total = torch.zeros_like(self.old)
        for name, rate in self.rates.items():
            entering = torch.where(rate > 0.0, rate, 0.0)
            if name in self.cells:
                flat = torch.zeros_like(total).flatten()
                entering = flat.index_add(0, self.cells[name], entering).reshape(total.shape)
            total = total + entering
        return total
