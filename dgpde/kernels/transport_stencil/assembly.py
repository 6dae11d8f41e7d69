"""What the steps of some solutes, their adjoint and their tangent are made of: networks, cells and matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.transport_stencil.cell import Cell, Species, Values
from dgpde.kernels.transport_stencil.dispersion import Dispersion, disperse, disperse_sides
from dgpde.kernels.transport_stencil.pieces import State, columns, equal, identical
from dgpde.kernels.transport_stencil.problem import Faces, Geometry, Network
from dgpde.kernels.transport_stencil.water import Water

DISPERSION = (
    "longitudinal",
    "horizontal",
    "vertical",
    "diffusion",
    "tortuosity",
    "theta_s",
    "immobile_theta",
)

MakeNetwork = Callable[[Faces], Network]


@dataclass(frozen=True)
class _Conducted:
    """The network of one solute, and what it was made of."""

    key: tuple[Tensor, ...]
    network: Network
    sides: Values  # conductances of the sides


class Assembly:
    """Networks, cells and matrices of some solutes on some geometry.

    Args:
        geometry, species: what is solved.
        make_network: of the backend, one for each solute.
        tolerance: relative residual of the linear solves.

    Attributes:
        lasting: whether all steps have the same water, so that an adjoint's part by the dispersion can wait for
            ``flush``.
        wanted: by solute, names of the values whose gradients are wanted; None for all.
        wants_water: whether those of the water are.
        share: of the cells in the sums of ``Stepped``, [1, 1, nx] or ().
    """

    def __init__(
        self,
        geometry: Geometry,
        species: tuple[Species, ...],
        make_network: Sequence[MakeNetwork],
        tolerance: float,
    ) -> None:
        self.geometry, self.species, self.make_network = geometry, species, make_network
        self.tolerance = tolerance
        self.lasting = False
        self.wanted: list[set[str]] | None = None
        self.wants_water = True
        self.share = torch.ones((), dtype=torch.float64)
        self._known: dict[int, _Conducted] = {}
        self._pending: dict[int, Values] = {}

    def mobile(self, number: int, water: Water, values: Values) -> tuple[Tensor, Tensor, Tensor]:
        """(m before, m after, mobile theta after) of one solute."""
        if not self.species[number].immobile:
            return water.old, water.new, water.theta
        standing = values["immobile_theta"]
        apart = self.geometry.volume * standing
        return water.old - apart, water.new - apart, water.theta - standing

    def conduct(
        self, number: int, water: Water, values: Values, twice: bool = False
    ) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor], Values]:
        """Conductances and cross terms of the faces, conductances of the sides that need them.

        ``twice``: for a tangent, which differentiates the derivatives again.
        """
        theta = self.mobile(number, water, values)[2]
        pore = None
        if "diffusion" in values:
            if "tortuosity" in values:
                pore = theta * values["tortuosity"] * values["diffusion"]
            else:
                pore = theta ** (10.0 / 3.0) / values["theta_s"] ** 2 * values["diffusion"]
        given = Dispersion(values.get("longitudinal"), values.get("horizontal"), values.get("vertical"), pore)
        kinds = self.species[number].sides
        held = tuple(side for side, kind in kinds.items() if kind == "concentration")
        native = None if twice else getattr(self.make_network[number], "disperse", None)
        faces = (native or disperse)(self.geometry, water.flow, water.sides, given)
        return *faces, disperse_sides(self.geometry, water.flow, water.sides, given, held)

    def cell(
        self, number: int, water: Water, values: Values, state: State, sides: Values, born: Tensor | None
    ) -> Cell:
        """The cells of one solute."""
        old, new, _ = self.mobile(number, water, values)
        inside: Values = {"old": old, "new": new} | water.sides
        if self.species[number].sources:
            inside["inflow"] = water.inflow()
        before = {name: state[f"{number}.{name}"] for name in self.species[number].states}
        return Cell(self.geometry, self.species[number], water.dt, values, inside, sides, before, born)

    def network(self, number: int, water: Water, values: Values) -> tuple[Network, Values]:
        """The network of one solute; of the same water and numbers the one that is there."""
        key = (
            water.theta,
            *water.flow.values(),
            *(values[name] for name in sorted(values) if name in DISPERSION),
        )
        known = self._known.get(number)
        if known is not None and identical(known.key, key):
            return known.network, known.sides
        with torch.no_grad():
            conductance, cross, sides = self.conduct(number, water, values)
        network = self.make_network[number](Faces(water.flow, conductance, cross))
        self._known[number] = _Conducted(key, network, sides)
        return network, sides

    def numbers(self, water: Water, values: list[Values]) -> tuple[float, float]:
        """The largest grid Peclet and Courant numbers of the faces; the first is infinite where nothing disperses."""
        peclet = courant = 0.0
        least = torch.where(self.geometry.volume > 0.0, water.new, torch.inf)
        for number in range(len(self.species)):
            network, _ = self.network(number, water, values[number])
            for axis, flow in network.faces.flow.items():
                moves = flow.abs()
                ratio = torch.where(moves > 0.0, moves / network.faces.conductance[axis], 0.0)
                peclet = max(peclet, float(ratio.max()))
                courant = max(courant, float((water.dt * moves / least).max()))
        return peclet, courant

    def set_up(
        self, network: Network, cell: Cell, c: Tensor, linear: Tensor, weight: Tensor | None
    ) -> Tensor | None:
        """Hand the Jacobian at c to the solver, ``Cell.slopes`` given; returns the factors of its columns."""
        column = None if weight is None else columns(cell, linear, weight, c)
        self.hand(network, linear, column, c)
        return column

    def hand(self, network: Network, diagonal: Tensor, column: Tensor | None, c: Tensor) -> None:
        """``Network.setup``, unless the solver has that matrix."""
        key = (diagonal, column, c if self.geometry.scheme == "tvd" else None)
        held = getattr(network, "held", None)
        if held is None or not equal(held, key):
            network.setup(diagonal, column, c)
            network.held = key  # type: ignore[attr-defined]
