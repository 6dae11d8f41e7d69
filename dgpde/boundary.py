"""What happens at the faces of the domain: data and checks.

Every value may be a number, a tensor that broadcasts to the faces of the side (``Grid.side_shape``: [n] for
columns) or, when it varies in time, a ``Series`` ([T] or [T, *side]); all of them are differentiable. Fluxes are
positive into the domain.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from dgpde.frame import ANY, NOT_NEGATIVE, Frame, Limits, Stored, store, tensor_of
from dgpde.grid import SIDES
from dgpde.series import Value
from dgpde.stress import NeuralStress, TabulatedStress


class SideValues:
    """What stands on a side: the kernels' name for it, the sides where it may stand, its values."""

    kind: ClassVar[str]
    sides: ClassVar[tuple[str, ...]] = SIDES
    limits: ClassVar[dict[str, Limits]] = {}

    def __post_init__(self) -> None:
        for name, value in self.values().items():
            object.__setattr__(self, name, store(name, value, self.limits.get(name, ANY)))

    def values(self) -> dict[str, Stored]:
        """The values by name, as they are stored."""
        names = (entry.name for entry in fields(self))  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names if name != "evaporation_response"}

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        found = ((name, tensor_of(value)) for name, value in self.values().items())
        return [(name, tensor) for name, tensor in found if tensor is not None]

    def inputs(self, frame: Frame, side: str) -> dict[str, Tensor]:
        """The kernel's values of this boundary, [t, *side] each, for the intervals of the frame."""
        return {
            name: frame.series(self._called(name, side), value, side, self.limits.get(name, ANY))
            for name, value in self.values().items()
        }

    def _called(self, name: str, side: str) -> str:
        return f"{name} of the {side} {type(self).__name__}"


class Boundary(SideValues):
    """Base of all boundaries of the water; those of solutes are in ``transport_boundary.py``."""


@dataclass(frozen=True, eq=False)
class Head(Boundary):
    """Pressure head given on the face.

    Args:
        psi: pressure head [m]; a depth of standing water when positive.
    """

    psi: Value
    kind: ClassVar[str] = "head"


@dataclass(frozen=True, eq=False)
class HydraulicHead(Boundary):
    """Hydraulic head H = psi + z given on the face; z counts from ``z_bottom`` of the grid.

    Args:
        H: hydraulic head [m].
    """

    H: Value
    kind: ClassVar[str] = "head"

    def inputs(self, frame: Frame, side: str) -> dict[str, Tensor]:
        """The pressure head on the face, psi = H - g z_face."""
        shape, z_face = frame.grid.side_shape(side), frame.grid.side_elevation(side)
        head = frame.compact(self._called("H", side), self.values()["H"], shape)
        return {"psi": frame.full(head - (frame.grid.gravity * z_face).to(head), shape)}


@dataclass(frozen=True, eq=False)
class Flux(Boundary):
    """Flux given through the face, whatever the soil can take.

    Args:
        q: volume flux [m/s], positive into the domain.
    """

    q: Value
    kind: ClassVar[str] = "flux"


@dataclass(frozen=True, eq=False)
class NoFlow(Boundary):
    """No water through the face; what a side is without a boundary."""

    kind: ClassVar[str] = "flux"

    def inputs(self, frame: Frame, side: str) -> dict[str, Tensor]:
        """A flux of zero."""
        return {"q": frame.series(self._called("q", side), 0.0, side)}


@dataclass(frozen=True, eq=False)
class FreeDrainage(Boundary):
    """Unit gradient of hydraulic head at the bottom: water leaves with K(psi) of the lowest cell."""

    kind: ClassVar[str] = "free_drainage"
    sides: ClassVar[tuple[str, ...]] = ("bottom",)


@dataclass(frozen=True, eq=False)
class SeepageFace(Boundary):
    """Water leaves against atmospheric pressure (psi = 0 on the face) and none comes back."""

    kind: ClassVar[str] = "seepage_face"


@dataclass(frozen=True, eq=False)
class GeneralHead(Boundary):
    """Exchange with a water body outside: q = conductance (H - H of the cell), as MODFLOW's GHB.

    Args:
        H: hydraulic head of the water body [m], z counted from ``z_bottom`` of the grid.
        conductance: per unit area of face [1/s], not negative.
    """

    H: Value
    conductance: Value
    kind: ClassVar[str] = "general_head"
    limits: ClassVar[dict[str, Limits]] = {"conductance": NOT_NEGATIVE}

    def inputs(self, frame: Frame, side: str) -> dict[str, Tensor]:
        """The head counted from the lowest face, as the kernels count z, and the conductance."""
        values = self.values()
        head = _above_bottom(frame, self._called("H", side), values["H"], side)
        called = self._called("conductance", side)
        conductance = frame.series(called, values["conductance"], side, NOT_NEGATIVE)
        return {"head": head, "conductance": conductance}


@dataclass(frozen=True, eq=False)
class DeepWaterTable(Boundary):
    """Drainage to a deep water table: q = -coefficient exp(exponent (H of the lowest cell - level)).

    Hopmans & Stricker 1989, J. Hydrol. 107, 281-306 (the "deep drainage" of HYDRUS, whose Aqh is -coefficient
    and whose Bqh is -exponent when ``level`` is the elevation that its depths count from).

    Args:
        level: reference elevation [m], z counted from ``z_bottom`` of the grid.
        coefficient: outflow when the head of the lowest cell equals ``level`` [m/s], not negative.
        exponent: growth of the outflow with that head [1/m], not negative.
    """

    level: Value
    coefficient: Value
    exponent: Value
    kind: ClassVar[str] = "deep_water_table"
    sides: ClassVar[tuple[str, ...]] = ("bottom",)
    limits: ClassVar[dict[str, Limits]] = {"coefficient": NOT_NEGATIVE, "exponent": NOT_NEGATIVE}

    def inputs(self, frame: Frame, side: str) -> dict[str, Tensor]:
        """The level counted from the lowest face, as the kernels count z; coefficient and exponent."""
        values = self.values()
        level = _above_bottom(frame, self._called("level", side), values["level"], side)
        others = {
            name: frame.series(self._called(name, side), values[name], side, NOT_NEGATIVE)
            for name in ("coefficient", "exponent")
        }
        return {"level": level, **others}


@dataclass(frozen=True, eq=False)
class Atmosphere(Boundary):
    """Rain and evaporation on the soil surface, limited by what the soil takes and gives.

    Water that the soil does not take stands on the surface up to ``ponding_max``, the rest runs off;
    evaporation falls short when the surface would have to dry below ``psi_min``.

    Args:
        precipitation: rain and irrigation [m/s], not negative.
        evaporation: potential evaporation of the soil surface [m/s], not negative.
        psi_min: driest head of the surface [m], negative; default -150.
        ponding_max: depth of water that can stand on the surface [m], default 0 (all excess runs off).
        evaporation_response: share of the evaporation that the soil lets through at the head of its top cell at the
            end of a step, a ``TabulatedStress`` or a ``NeuralStress`` of two heads. Default None: all of
            it, down to psi_min, which limits it in either case.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range.
    """

    precipitation: Value
    evaporation: Value
    psi_min: Value = -150.0
    ponding_max: Value = 0.0
    evaporation_response: TabulatedStress | NeuralStress | None = None
    kind: ClassVar[str] = "atmosphere"
    sides: ClassVar[tuple[str, ...]] = ("top",)
    limits: ClassVar[dict[str, Limits]] = {
        "precipitation": NOT_NEGATIVE,
        "evaporation": NOT_NEGATIVE,
        "psi_min": Limits(upper=0.0, open_upper=True),
        "ponding_max": NOT_NEGATIVE,
    }

    def __post_init__(self) -> None:
        response = self.evaporation_response
        if response is not None and not isinstance(response, TabulatedStress | NeuralStress):
            raise TypeError(
                "evaporation_response must be a TabulatedStress, a NeuralStress or None, not "
                f"{type(response).__name__}"
            )
        super().__post_init__()

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among the values and of the response, for the choice of type and device."""
        response = self.evaporation_response
        return super().tensors() + ([] if response is None else response.tensors())


def _above_bottom(frame: Frame, name: str, value: Stored, side: str) -> Tensor:
    """A hydraulic head or level [t, *side] counted from the lowest face instead of from z = 0."""
    grid = frame.grid
    shape = grid.side_shape(side)
    head = frame.compact(name, value, shape)
    lowest = grid.gravity * (grid.z_bottom + grid.base(side))
    return frame.full(head - lowest.to(head) if bool((lowest != 0.0).any()) else head, shape)
