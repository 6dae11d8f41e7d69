"""The soil of a run whose relation PyTorch evaluates: at each Newton iteration value and slopes, by autograd.

It stands where ``cpu_soil.NativeSoil`` and ``triton_soil.TritonSoil`` stand for the relations that are compiled.
"""

from __future__ import annotations

from torch import Tensor

from dgpde.kernels.flow_stencil.curves import Curves
from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.soil_relation.module import SoilFunction


class FunctionSoil:
    """theta and kr of all cells by a function.

    Args:
        function: the relation.
        parameters: its tensors, in the order of ``function.names``: [nz, ny, nx] or weights.
    """

    def __init__(self, function: SoilFunction, parameters: list[Tensor]) -> None:
        self.function = function
        self.values = dict(zip(function.names, parameters, strict=True))

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        return self.function.theta_kr(psi.detach(), self.values)[0].contiguous()

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes."""
        return Curves(*(value.contiguous() for value in self.function.slopes(psi, self.values)))

    def wet_suction(self, psi: Tensor) -> Tensor:
        """Suction near the inflection of theta(psi); psi gives the shape."""
        return self.function.wet_suction(psi, self.values)

    def pull(
        self, psi: Tensor, by_theta: Tensor, by_kr: Tensor | None, gradients: list[Tensor | None]
    ) -> Tensor:
        """Add to the gradients of the parameters (None where not wanted); returns that of psi."""
        names = self.function.names
        wanted = {name: g for name, g in zip(names, gradients, strict=True) if g is not None}
        by_psi, found = self.function.pull(psi, self.values, by_theta, by_kr, tuple(wanted))
        for name, gradient in wanted.items():
            gradient += found[name]
        return by_psi

    def push(self, psi: Tensor, dot_psi: Tensor, dots: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr; parameters without a tangent do not move."""
        moving = {name: dot for name, dot in zip(self.function.names, dots, strict=True) if dot is not None}

        def curves(at: dict[str, Tensor]) -> dict[str, Tensor]:
            theta, kr = self.function.theta_kr(at["psi"], self.values | {name: at[name] for name in moving})
            return {"theta": theta, "kr": kr}

        at = {"psi": psi} | {name: self.values[name] for name in moving}
        found = pushed(curves, at, {"psi": dot_psi} | moving)
        return found["theta"], found["kr"]
