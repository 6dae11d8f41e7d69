"""What every backend of the column engine receives and returns: data, no numerics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.reference import is_shared

if TYPE_CHECKING:
    from dgpde.kernels.column_flow.function import Ride
    from dgpde.options import SolveOptions

# Soil parameters of each relation in the order in which the kernels take them; k_sat is separate.
SOIL_PARAMETERS: dict[str, tuple[str, ...]] = {
    "van_genuchten": ("theta_r", "theta_s", "alpha", "n", "l", "air_entry"),
    "brooks_corey": ("theta_r", "theta_s", "psi_e", "lam", "l"),
    "gardner": ("theta_r", "theta_s", "alpha"),
    "haverkamp": ("theta_r", "theta_s", "alpha", "beta", "a", "gamma"),
    "kosugi": ("theta_r", "theta_s", "s_m", "sigma", "l"),
    "fredlund_xing": ("theta_s", "a", "n", "m", "p", "s_r"),
    "durner": ("theta_r", "theta_s", "alpha1", "n1", "alpha2", "n2", "w2", "l"),
    "peters_durner_iden": ("theta_r", "theta_s", "alpha", "n", "omega", "l", "h_0", "a"),
    "saturated": ("theta_s",),
    "tabulated": (),
    "network": ("theta_r", "theta_s", "alpha", "n", "l", "x1", "x2", "x3", "weights"),
}

# Series values [T, n] of each boundary, in kernel order.
BOUNDARY_VALUES: dict[str, tuple[str, ...]] = {
    "head": ("psi",),
    "flux": ("q",),
    "free_drainage": (),
    "seepage_face": (),
    "general_head": ("head", "conductance"),
    "deep_water_table": ("level", "coefficient", "exponent"),
    "atmosphere": ("precipitation", "evaporation", "psi_min", "ponding_max"),
}
TOP_BOUNDARIES = ("head", "flux", "seepage_face", "general_head", "atmosphere")
BOTTOM_BOUNDARIES = ("head", "flux", "free_drainage", "seepage_face", "general_head", "deep_water_table")

FACE_MEANS = ("arithmetic", "upstream", "geometric", "harmonic")
FEDDES_HEADS = ("h1", "h2", "h3", "h4")
RESPONSES = ("root_response", "evaporation_response")  # tables, in kernel order

STATUS_TEXT = {
    0: "finished",
    1: "the nonlinear solve did not converge at the smallest time step (dt_min); "
    "lower dt_min, loosen tolerance, refine the layers where the front stands, or check the soil parameters there",
    2: "a value that is not finite came up in the solve; check the soil parameters and the forcing of this column",
    3: "the step limit was reached (max_steps); raise max_steps or time_error, "
    "or lower the number of intervals per call",
}


@dataclass(frozen=True)
class ColumnProblem:
    """The part of a column-flow run through which no gradient flows.

    Shapes: n columns of nz cells, T output intervals. ``dz`` [nz] m and ``times`` [T + 1] s are float64 on
    the CPU. ``save`` lists the indices into ``times`` whose psi is returned. ``classes`` [nz, n] (int32) and
    ``knots`` (first ln(-psi), spacing) belong to tabulated soils, ``responses`` (likewise, by name) to what has a
    tabulated response: roots, the evaporation of an atmosphere.
    """

    n: int
    nz: int
    dz: Tensor
    gravity: float
    relation: str
    variant: int
    face_mean: str
    top: str
    bottom: str
    roots: bool
    sources: bool
    times: Tensor
    save: tuple[int, ...]
    options: SolveOptions
    classes: Tensor | None = None
    knots: tuple[float, float] | None = None
    responses: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def intervals(self) -> int:
        """Number of output intervals, T."""
        return self.times.numel() - 1

    @property
    def root_inputs(self) -> tuple[str, ...]:
        """Names of the inputs of the roots."""
        response = ("root_response",) if "root_response" in self.responses else FEDDES_HEADS
        return ("transpiration", "root_density", *response, "omega_c")

    def input_names(self) -> tuple[str, ...]:
        """Names of the tensors that the kernel reads, in its order; all of them are differentiable.

        Responses are [n_knots, 2, n]: a and da/dx of each column at knots of x = ln(-psi).
        """
        soil = SOIL_PARAMETERS[self.relation] if self.relation != "tabulated" else ("table",)
        names = ["psi0", "ponding0", "k_sat", "specific_storage"]
        names += [f"soil.{name}" for name in soil]
        names += [f"top.{name}" for name in BOUNDARY_VALUES[self.top]]
        names += [f"bottom.{name}" for name in BOUNDARY_VALUES[self.bottom]]
        if self.roots:
            names += list(self.root_inputs)
        if "evaporation_response" in self.responses:
            names.append("evaporation_response")
        if self.sources:
            names.append("source")
        return tuple(names)


@dataclass
class Report:
    """What happened to each column. Integer and float tensors of shape [n]; no gradient flows through them."""

    status: Tensor  # int32, a key of STATUS_TEXT
    failed_time: Tensor  # float64 s, nan when the column finished
    steps: Tensor  # int64, accepted steps
    newton_iterations: Tensor  # int64
    cuts: Tensor  # int64, steps cut because Newton failed
    rejections: Tensor  # int64, steps repeated because of their truncation error
    restarts: Tensor  # int64, Newton restarts from the wet side
    mass_balance_error: Tensor  # float64, relative to water_moved
    water_moved: Tensor  # float64 m
    dt_next: Tensor  # float64 s, the step that the controller would try next
    step_sizes: list[Tensor] | None = field(default=None)  # T tensors [m_i, n], zero padded
    linear_iterations: Tensor | None = field(default=None)  # int64; None for direct solves


@dataclass
class ColumnResult:
    """psi [len(save), nz, n] m, ponding [T + 1, n] m, fluxes and uptake [T, n] m/s (interval means), report.

    ``ride`` is what the run's steps can be walked again by (function.py), for what its water carries.
    """

    psi: Tensor
    ponding: Tensor
    top_flux: Tensor
    bottom_flux: Tensor
    runoff: Tensor
    uptake: Tensor
    report: Report
    ride: Ride | None = None

    @property
    def boundary_flux(self) -> dict[str, Tensor]:
        """The fluxes by side."""
        return {"top": self.top_flux, "bottom": self.bottom_flux}


def check_inputs(problem: ColumnProblem, inputs: dict[str, Tensor]) -> None:
    """Assert what the package itself guarantees: every named input is there with its full shape."""
    t, nz, n = problem.intervals, problem.nz, problem.n
    for name in problem.input_names():
        value = inputs[name]
        if is_shared(name):
            assert value.dim() == 3 and (value.shape[2] == 4 or name != "soil.table"), (name, value.shape)
            continue
        if name in ("psi0", "k_sat", "specific_storage") or name.startswith("soil."):
            shape: tuple[int, ...] = (nz, n)
        elif name in ("ponding0", "omega_c"):
            shape = (n,)
        elif name in ("root_density", "source"):
            shape = (t, nz, n)
        elif name in RESPONSES:
            shape = (value.shape[0], 2, n)
        else:
            shape = (t, n)
        assert tuple(value.shape) == shape, (name, tuple(value.shape), shape)
        assert isinstance(value, torch.Tensor)
