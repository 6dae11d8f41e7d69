"""The soil of a run by the C++ kernel: the pointwise pass of the CPU's stencil."""

from __future__ import annotations

from torch import Tensor

from dgpde.kernels.flow_stencil.curves import Curves
from dgpde.kernels.soil_relation import cpu as soil
from dgpde.kernels.soil_relation.reference import is_shared


class NativeSoil:
    """theta and kr of all cells.

    Args:
        relation: which one, with the classes [cells] and knots of a table.
        names: of the parameters, in the kernel's order.
        parameters: [nz, ny, nx] each; what all cells share as it is.
    """

    def __init__(self, relation: soil.Relation, names: tuple[str, ...], parameters: list[Tensor]) -> None:
        self.relation, self.names = relation, names
        self.parameters = [_flat(value, name) for value, name in zip(parameters, names, strict=True)]

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        return soil.forward(self.relation, _row(psi), self.parameters)[0].reshape(psi.shape)

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes in psi."""
        found = soil.curves(self.relation, _row(psi), self.parameters)
        return Curves(*(value.reshape(psi.shape) for value in found))

    def wet_suction(self, psi: Tensor) -> Tensor:
        """Suction near the inflection of theta(psi); psi gives the shape."""
        return soil.wet_suction(self.relation, self.parameters, psi.numel()).reshape(psi.shape)

    def pull(
        self, psi: Tensor, by_theta: Tensor, by_kr: Tensor | None, gradients: list[Tensor | None]
    ) -> Tensor:
        """Add to the gradients of the parameters (None where not wanted); returns that of psi."""
        kr = None if by_kr is None else _row(by_kr)
        by_psi, found = soil.backward(self.relation, _row(psi), self.parameters, _row(by_theta), kr)
        for gradient, value in zip(gradients, found, strict=True):
            if gradient is not None:
                gradient += value.reshape(gradient.shape)
        return by_psi.reshape(psi.shape)

    def push(self, psi: Tensor, dot_psi: Tensor, dots: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr; parameters without a tangent do not move."""
        rows = [
            None if value is None else value.contiguous() if is_shared(name) else value.reshape(-1)
            for name, value in zip(self.names, dots, strict=True)
        ]
        found = soil.tangent(self.relation, _row(psi), self.parameters, _row(dot_psi), rows)
        return found[0].reshape(psi.shape), found[1].reshape(psi.shape)


def _row(field: Tensor) -> Tensor:
    """A field as the soil's kernel reads it, [1, cells]."""
    return field.reshape(1, -1).contiguous()


def _flat(value: Tensor, name: str) -> Tensor:
    """A parameter as [cells], a view of stride 0 where all cells share one value; a table or weights as they are."""
    if is_shared(name):
        return value.contiguous()
    if not any(value.stride()):
        return value[(0,) * value.dim()].expand(value.numel())
    return value.reshape(-1)
