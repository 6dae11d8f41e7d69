"""What every backend of the field engine's stencil receives and returns: data, no numerics.

Fields are [nz, ny, nx], z up, x fastest. A side's faces are [ny, nx] (top, bottom), [nz, nx] (south, north) or
[nz, ny] (west, east); index 0 of y is the south, index 0 of x the west.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, FEDDES_HEADS
from dgpde.kernels.soil_relation.module import SoilFunction
from dgpde.kernels.soil_relation.reference import soil_names

SIDES = ("bottom", "top", "south", "north", "west", "east")
AXES = ("z", "y", "x")
PRESCRIBED = {"head": "psi", "atmosphere": "psi_min"}  # the head at which a side needs its own conductivity
DARCY = ("head", "free_drainage", "seepage_face", "atmosphere")  # sides that need a transmissivity
IDENTITY = 1.0  # m2/s, the diagonal of a cell that is not active, which has no neighbours
LINEAR = ("head", "flux", "free_drainage", "general_head")  # in a saturated medium
ROUND_OFF = (
    200.0 * torch.finfo(torch.float64).eps
)  # of a residual, relative to the sum of its terms' magnitudes
COEFFICIENTS = ("diag", "below", "above", "south", "north", "west", "east")

_SIDE_CELLS: dict[str, tuple[slice | int, ...]] = {
    "bottom": (0,),
    "top": (-1,),
    "south": (slice(None), 0),
    "north": (slice(None), -1),
    "west": (slice(None), slice(None), 0),
    "east": (slice(None), slice(None), -1),
}


def on_side(field: Tensor, side: str) -> Tensor:
    """The cells of a field [nz, ny, nx] that touch a side, [*side], as a view."""
    return field[_SIDE_CELLS[side]]


@dataclass(frozen=True)
class StencilProblem:
    """The part of a field-flow run through which no gradient flows.

    Attributes:
        shape: (nz, ny, nx).
        widths: sizes of the cells along z, y and x, [nz], [ny], [nx] m.
        rise: H of the upper (northern, eastern) cell less that of the other at equal psi, m: [nz, 1, 1], and of
            the terrain [1, ny, nx], [1, ny, nx]; the last entry along the axis belongs to no face.
        gravity: component of gravity along z.
        relation, variant, classes, knots: of the soil, as the soil kernels take them; classes [nz, ny, nx].
        function: of the relation "module", which PyTorch evaluates; None for all others.
        face_mean: name of the mean of the relative conductivities.
        lateral: whether water moves sideways; independent columns stand along x.
        sides: kind of boundary by side, a key of ``BOUNDARY_VALUES``; a side without one is closed.
        wells: [m] int64, cells (as flat indices) that the wells draw from; None without wells.
        rivers: [m] int64, cells that exchange water with a head outside; None without any.
        source: whether there is a source in the cells.
        roots: whether roots take water from them.
        root_knots: of their response, where it is a table: x = ln(-psi) of the first knot, and the spacing.
        evaporation_knots: of the response of the top's evaporation, where it has one.
        active: [nz, ny, nx] bool; None when every cell takes part.
    """

    shape: tuple[int, int, int]
    widths: tuple[Tensor, Tensor, Tensor]
    rise: tuple[Tensor, Tensor, Tensor]
    gravity: float
    relation: str
    variant: int
    face_mean: str
    lateral: bool
    sides: dict[str, str]
    wells: Tensor | None = None
    rivers: Tensor | None = None
    source: bool = False
    roots: bool = False
    root_knots: tuple[float, float] | None = None
    evaporation_knots: tuple[float, float] | None = None
    active: Tensor | None = None
    classes: Tensor | None = None
    knots: tuple[float, float] | None = None
    function: SoilFunction | None = None

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which cells have neighbours."""
        return tuple(k for k in range(3) if self.shape[k] > 1 and (self.lateral or k == 0))

    def side_rise(self, side: str) -> float:
        """Fall of H from the faces of a side to the centres of their cells at equal psi, m."""
        sign = {"top": 1.0, "bottom": -1.0}.get(side, 0.0)
        return sign * self.gravity * self.half(side)

    def side_elevation(self, side: str) -> Tensor:
        """Gravity times z of the centres of a side's cells above the lowest face, [*side or 1] m."""
        z = self.gravity * (self.widths[0].cumsum(0) - 0.5 * self.widths[0])
        return {"top": z[-1], "bottom": z[0]}.get(side, z[:, None])

    @property
    def linear(self) -> bool:
        """Whether a step is a linear problem."""
        return self.symmetric and not self.roots and all(kind in LINEAR for kind in self.sides.values())

    @property
    def symmetric(self) -> bool:
        """Whether the Jacobian is symmetric: that of a medium whose conductivity does not vary with psi."""
        return self.relation == "saturated"

    def side_shape(self, side: str) -> tuple[int, int]:
        """Shape of the faces of a side."""
        nz, ny, nx = self.shape
        return {"bottom": (ny, nx), "top": (ny, nx), "south": (nz, nx), "north": (nz, nx)}.get(side, (nz, ny))

    def half(self, side: str) -> float:
        """Distance from the faces of a side to the centres of its cells, m."""
        axis = SIDES.index(side) // 2
        return 0.5 * float(self.widths[axis][0 if SIDES.index(side) % 2 == 0 else -1])

    def volume(self, sample: Tensor) -> Tensor:
        """[nz, ny, nx] m3, 0 where a cell is not active; of the sample's type and device."""
        dz, dy, dx = (width.to(sample) for width in self.widths)
        volume = dz[:, None, None] * (dy[:, None] * dx)
        return volume if self.active is None else volume * self.active.to(volume)

    def plan(self, sample: Tensor) -> Tensor:
        """[ny, nx] m2 seen from above, active or not; of the sample's type and device."""
        _, dy, dx = (width.to(sample) for width in self.widths)
        return dy[:, None] * dx

    def area(self, side: str, sample: Tensor) -> Tensor:
        """[*side] m2, 0 where the cell is not active."""
        widths = [width.to(sample) for width in self.widths]
        first, second = (widths[axis] for axis in range(3) if axis != SIDES.index(side) // 2)
        area = first[:, None] * second
        return area if self.active is None else area * on_side(self.active, side).to(area)

    def soil_names(self) -> tuple[str, ...]:
        """Names of the soil parameters that the kernel reads."""
        return soil_names(self.relation) if self.function is None else self.function.names

    def root_names(self) -> tuple[str, ...]:
        """Names of the tensors that the roots read."""
        if not self.roots:
            return ()
        heads = tuple(f"roots.{name}" for name in FEDDES_HEADS)
        return (
            "roots.transpiration",
            "roots.density",
            *(heads if self.root_knots is None else ("root_response",)),
        )

    @property
    def flux_names(self) -> tuple[str, ...]:
        """Names of a step's outputs that a run returns as means over each interval."""
        return ("runoff", *(("uptake",) if self.roots else ()), *self.sides)

    def input_names(self) -> tuple[str, ...]:
        """Names of the tensors that the kernel reads; all of them are differentiable.

        psi0 [nz, ny, nx] m, ponding0 [ny, nx] m, face_z, face_y, face_x [nz, ny, nx] m2/s (of ``axes``;
        transmissivity of the face above, north, east of a cell: area times conductivity over distance; 0 where
        there is none), storage [nz, ny, nx] m2 (volume times Ss/theta_s), soil.<name> [nz, ny, nx] (a table and
        weights: as they are).

        With one row for each interval or a single one: of each side its values <side>.<name>, <side>.kr and
        <side>.transmissivity [1/s], [., *side]; source [., nz, ny, nx] 1/s (any of the sizes may be 1); wells
        [., m] m3/s; rivers.head (the psi of equal H, m) and rivers.conductance (m2/s) [., m]; roots.transpiration
        (m/s) and Feddes' roots.h1 to h4 (m) [., ny, nx], roots.density (1/m) [., nz, ny, nx]. Instead of these heads
        root_response [knots, 2, ny, nx], a and da/dx; evaporation_response likewise. Of all these ny and nx may be 1.
        """
        names = ["psi0", "ponding0", *(f"face_{AXES[axis]}" for axis in self.axes), "storage"]
        names += [f"soil.{name}" for name in self.soil_names()]
        for side, kind in self.sides.items():
            names += [f"{side}.{name}" for name in BOUNDARY_VALUES[kind]]
            names += [f"{side}.kr"] if kind in PRESCRIBED else []
            names += [f"{side}.transmissivity"] if kind in DARCY else []
        names += ["source"] if self.source else []
        names += ["wells"] if self.wells is not None else []
        names += ["rivers.head", "rivers.conductance"] if self.rivers is not None else []
        names += ["evaporation_response"] if self.evaporation_knots is not None else []
        return (*names, *self.root_names())


def is_series(name: str) -> bool:
    """Whether the first dimension of an input is the output interval (or 1)."""
    return name in ("source", "wells") or name.partition(".")[0] in (*SIDES, "rivers", "roots")


def of_interval(name: str, value: Tensor, interval: int) -> Tensor:
    """What an input is in one interval."""
    if not is_series(name):
        return value
    return value[interval if value.shape[0] > 1 else 0]


@dataclass(frozen=True)
class Step:
    """One step: its interval, its length and the state that it starts from.

    Attributes:
        interval: index of the output interval whose forcing holds.
        dt: s; infinite for a steady state, which has no storage terms.
        psi: [nz, ny, nx] m.
        theta: [nz, ny, nx], theta(psi).
        ponding: [ny, nx] m.
    """

    interval: int
    dt: float
    psi: Tensor
    theta: Tensor
    ponding: Tensor

    @property
    def pond_dt(self) -> float:
        """s over which a pond changes. In a steady state there is none, whatever this is."""
        return self.dt if math.isfinite(self.dt) else 1.0


class Evaluation(NamedTuple):
    """The step's equations at some psi.

    Attributes:
        residual: [nz, ny, nx] m3/s.
        norm: its 2-norm.
        beyond, exact: by how much it is beyond what is accepted and round-off, and beyond round-off alone, in the
            worst cell, m3/s; 0 or less when no cell is.
        total: its sum.
        magnitude: sum of the magnitudes of its terms but the flows between cells, which cancel in ``total``, m3/s.
        theta, capacity: [nz, ny, nx], and its slope in psi [1/m].
        flux: by side, [*side] m/s into the domain.
        ponding, runoff: [ny, nx] m at the end of the step, and m/s.
        uptake: [ny, nx] m/s by roots; None without any.
        matrix: [7, nz, ny, nx] m2/s, the true Jacobian in the order of ``COEFFICIENTS``; None when not asked for.
            It holds until the stencil is asked for another one, which may be written in its place.
    """

    residual: Tensor
    norm: float
    beyond: float
    exact: float
    total: float
    magnitude: float
    theta: Tensor
    capacity: Tensor
    flux: dict[str, Tensor]
    ponding: Tensor
    runoff: Tensor
    matrix: Tensor | None
    uptake: Tensor | None = None

    def fluxes(self) -> dict[str, Tensor]:
        """What ``StencilProblem.flux_names`` names."""
        found = {"runoff": self.runoff} | self.flux
        return found if self.uptake is None else found | {"uptake": self.uptake}


# Of a step's outputs: "ponding", "runoff", "uptake", a side's name for its flux, and those of ``Carried.outputs``.
Cotangents = dict[str, Tensor]
Tangents = dict[str, Tensor]


class Carried(NamedTuple):
    """What an accepted step does to the water, for what the water carries.

    Attributes:
        theta: [nz, ny, nx] at the end of the step.
        elastic: [nz, ny, nx] m3, water that elastic storage took up in the step.
        flow: by axis, [nz, ny, nx] m3/s through the face above, north, east of a cell, positive along the axis; 0
            where there is none.
        sides: by side, [*side] m/s into the domain.
        rivers: [m] m3/s into the cells of the rivers; None without any.
        roots: [nz, ny, nx] m3/s out of the cells by roots; None without any.
    """

    theta: Tensor
    elastic: Tensor
    flow: dict[int, Tensor]
    sides: dict[str, Tensor]
    rivers: Tensor | None
    roots: Tensor | None = None

    def outputs(self) -> dict[str, Tensor]:
        """What a step's cotangents and tangents may hold of it: "elastic", "flow_z" ..., "rivers", "roots"."""
        found = {"elastic": self.elastic} | {f"flow_{AXES[k]}": value for k, value in self.flow.items()}
        places = {"rivers": self.rivers, "roots": self.roots}
        return found | {name: value for name, value in places.items() if value is not None}


class Linearised(Protocol):
    """A step at its accepted state, for the adjoint and the tangent."""

    @property
    def matrix(self) -> Tensor:
        """[7, nz, ny, nx], the true Jacobian; it holds as long as that of an ``Evaluation``."""

    def load(self, cotangents: Cotangents, carry_theta: Tensor) -> Tensor:
        """d/dpsi of <cotangents, outputs> + <carry_theta, theta(psi)>, [nz, ny, nx]."""

    def pull(
        self, multiplier: Tensor, cotangents: Cotangents, carry_theta: Tensor, gradients: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add d/dx of <cotangents, outputs> + <carry_theta, theta(psi)> - <multiplier, F> to the gradients.

        Args:
            multiplier: solution of the transposed system, [nz, ny, nx].
            cotangents, carry_theta: as for ``load``.
            gradients: of the inputs wanted, each with the input's shape; added to.

        Returns:
            The same for theta, psi and ponding of the state before the step.
        """

    def push(
        self, psi: Tensor, state: tuple[Tensor, Tensor, Tensor], tangents: Tangents
    ) -> tuple[Tensor, Tensor, Tangents]:
        """Tangents of F, theta(psi) and the outputs, those of ``Carried`` among them.

        Args:
            psi: tangent of psi at the end of the step, [nz, ny, nx].
            state: tangents of theta, psi and ponding before the step.
            tangents: of the inputs, by name; those that are missing do not move.
        """


class Stencil(Protocol):
    """One run's equations on one backend."""

    name: str
    problem: StencilProblem
    inputs: dict[str, Tensor]

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi, [nz, ny, nx]."""

    def wet_suction(self) -> Tensor:
        """Suction near the inflection of theta(psi), [nz, ny, nx] m."""

    def evaluate(self, step: Step, psi: Tensor, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations of the step at psi; with the Jacobian when ``matrix``.

        ``allowed``: residual times dt that is accepted, [nz, ny, nx] m3.
        """

    def move(self, psi: Tensor, update: Tensor, now: Evaluation) -> Tensor:
        """Where a Newton update leads from psi, whose equations are ``now``; see ``reference_path``."""

    def linearise(self, step: Step, psi: Tensor) -> Linearised:
        """The step at its accepted state."""

    def pull_theta(self, psi: Tensor, carry_theta: Tensor, gradients: dict[str, Tensor]) -> Tensor:
        """Add d/dx of <carry_theta, theta(psi; x)> to the soil's gradients; returns d/dpsi."""

    def push_theta(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> Tensor:
        """Tangent of theta(psi; x)."""


class CarryingStencil(Stencil, Protocol):
    """A stencil whose water can carry something; its steps take and give what ``Carried.outputs`` names."""

    def carried(self, step: Step, psi: Tensor) -> Carried:
        """What the step does to the water, psi at its end."""


def river_inflow(inputs: dict[str, Tensor], cells: Tensor, interval: int, psi: Tensor) -> Tensor:
    """[m] m3/s from the rivers into their cells at psi [nz, ny, nx]."""
    head, conductance = (
        of_interval(name, inputs[name], interval) for name in ("rivers.head", "rivers.conductance")
    )
    return conductance * (head - psi.flatten()[cells])


def source_sums(
    problem: StencilProblem, inputs: dict[str, Tensor], interval: int, psi: Tensor, uptake: Tensor | None
) -> tuple[float, float]:
    """Water that sources, wells, rivers and roots bring in an interval at psi, and the sum of its magnitudes, m3/s.

    ``uptake``: of the roots, [ny, nx] m/s.
    """
    total = size = 0.0
    if problem.source:
        rate = of_interval("source", inputs["source"], interval).detach()
        gain = problem.volume(inputs["psi0"]) * rate
        total, size = total + float(gain.sum()), size + float(gain.abs().sum())
    if problem.wells is not None:
        rate = of_interval("wells", inputs["wells"], interval).detach()
        total, size = total + float(rate.sum()), size + float(rate.abs().sum())
    if problem.rivers is not None:
        rate = river_inflow(inputs, problem.rivers, interval, psi)
        total, size = total + float(rate.sum()), size + float(rate.abs().sum())
    if uptake is not None:
        taken = float((problem.plan(uptake) * uptake).sum())  # never negative
        total, size = total - taken, size + taken
    return total, size


def zero_output(problem: StencilProblem, sample: Tensor) -> dict[str, Tensor]:
    """Zeros of the shapes of a step's outputs."""
    surface = torch.zeros(problem.shape[1:], dtype=sample.dtype, device=sample.device)
    outputs = {"ponding": surface, "runoff": surface.clone()}
    for side in problem.sides:
        outputs[side] = sample.new_zeros(problem.side_shape(side))
    if problem.roots:
        outputs["uptake"] = surface.clone()
    return outputs
