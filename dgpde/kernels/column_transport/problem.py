"""What every backend of transport in columns receives and returns: data, no numerics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCHEMES = ("upwind", "central", "tvd")
ISOTHERMS = ("none", "linear", "freundlich", "langmuir")
SIDE_KINDS = ("concentration", "inflow_concentration", "zero_gradient", "solute_flux")

CELL_INPUTS = (
    "c0",
    "dispersivity",
    "diffusion",
    "decay",
    "capacity",
    "shape",
    "sorption_rate",
    "immobile_theta",
    "immobile_rate",
    "yield",
)  # [nz, n]
CELL_SERIES = ("production", "source_c")  # [T, nz, n]
SIDE_SERIES = ("top", "bottom")  # [T, n]
OUTPUTS = ("concentration", "top_flux", "bottom_flux")

NO_CONVERGENCE, NOT_FINITE, FLOW_FAILED, NO_MOBILE_WATER = 1, 2, 3, 4


@dataclass(frozen=True)
class SoluteProblem:
    """What is not differentiated of one solute.

    Attributes:
        isotherm: of the mass sorbed per volume of soil m(c), from "capacity" a and "shape" b: "linear" a c,
            "freundlich" a c^b, "langmuir" a c/(1 + b c), or "none".
        kinetic: the sorbed mass follows m(c) at "sorption_rate".
        immobile: there is immobile water.
        uptake: roots take the solute with the water.
        evaporates: it leaves with water that evaporates.
        diffusion_power: the diffusion in the soil is "diffusion" theta^power.
        parent: number of the solute whose decay makes this one, or -1.
        top, bottom: kinds of the boundaries, of SIDE_KINDS.
        present: the inputs that are there; the others are 0 everywhere ("yield" 1).
    """

    isotherm: str
    kinetic: bool
    immobile: bool
    uptake: bool
    evaporates: bool
    diffusion_power: float
    parent: int
    top: str
    bottom: str
    present: tuple[str, ...]


@dataclass(frozen=True)
class TransportProblem:
    """The part of a transport run in columns through which no gradient flows.

    Shapes: n columns of nz cells, T output intervals, S solutes. ``dz`` [nz] m and ``times`` [T + 1] s are float64
    on the CPU. ``evaporation``: water that leaves at the top evaporates. ``dtype``: of the inputs and outputs, float64
    or float32.
    """

    n: int
    nz: int
    dz: Tensor
    times: Tensor
    scheme: str
    solutes: tuple[SoluteProblem, ...]
    evaporation: bool
    dtype: torch.dtype = torch.float64
    max_newton: int = 100
    linear_tolerance: float = 1e-10

    @property
    def intervals(self) -> int:
        """Number of output intervals, T."""
        return self.times.numel() - 1

    def input_names(self) -> tuple[str, ...]:
        """Names of the tensors that are read, "<number of the solute>.<input>"; all of them are differentiable."""
        return tuple(f"{i}.{name}" for i, solute in enumerate(self.solutes) for name in solute.present)


@dataclass
class TransportReport:
    """What happened; no gradient flows through it. Float64 unless it says otherwise."""

    mass: Tensor  # [T + 1, S, 3, n] kg/m2: dissolved, sorbed, in the immobile water
    imbalance: Tensor  # [S, n] kg/m2, what the balance of the run lacks
    moved: Tensor  # [S, n] kg/m2, sum of the magnitudes of all exchanges
    status: Tensor  # [n] int32
    failed_time: Tensor  # [n] s, nan where the column finished
    iterations: Tensor  # [n] int64, linear solves
    peclet: Tensor  # [n] largest grid Peclet number (central only)
    courant: Tensor  # [n] largest Courant number (central only)


@dataclass
class TransportResult:
    """concentration [T + 1, S, nz, n] kg/m3; top_flux and bottom_flux [T, S, n] kg m-2 s-1, positive inward."""

    concentration: Tensor
    top_flux: Tensor
    bottom_flux: Tensor
    report: TransportReport


def check_inputs(problem: TransportProblem, inputs: dict[str, Tensor]) -> None:
    """Assert what the package itself guarantees: every named input is there with its full shape."""
    t, nz, n = problem.intervals, problem.nz, problem.n
    for name in problem.input_names():
        kind = name.partition(".")[2]
        shape = (nz, n) if kind in CELL_INPUTS else (t, nz, n) if kind in CELL_SERIES else (t, n)
        assert tuple(inputs[name].shape) == shape, (name, tuple(inputs[name].shape), shape)
        assert inputs[name].dtype == problem.dtype, (name, inputs[name].dtype)
