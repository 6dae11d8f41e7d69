"""From a case in words to a small column problem, its inputs, and what is observed of its run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from neural_cases import network
from torch import Tensor

from dgpde.kernels.column_flow.problem import SOIL_PARAMETERS, ColumnProblem, ColumnResult
from dgpde.kernels.soil_relation.reference import is_shared, theta_kr
from dgpde.options import SolveOptions
from dgpde.soil.tabulated import inner_slopes

Inputs = dict[str, Tensor]
Value = float | tuple[float, ...]  # one number, or one for each interval or cell
HOUR = 3600.0

SOILS: dict[str, dict[str, float]] = {
    "van_genuchten": {"theta_r": 0.078, "theta_s": 0.43, "alpha": 3.6, "n": 1.56, "l": 0.5, "air_entry": 0.0},
    "brooks_corey": {"theta_r": 0.05, "theta_s": 0.42, "psi_e": 0.15, "lam": 0.7, "l": 0.6},
    "gardner": {"theta_r": 0.05, "theta_s": 0.4, "alpha": 2.2},
    "haverkamp": {
        "theta_r": 0.075,
        "theta_s": 0.29,
        "alpha": 0.15,
        "beta": 2.9,
        "a": 0.05,
        "gamma": 3.7,
    },
    "kosugi": {"theta_r": 0.06, "theta_s": 0.44, "s_m": 0.8, "sigma": 1.1, "l": 0.5},
    "fredlund_xing": {"theta_s": 0.43, "a": 0.6, "n": 1.7, "m": 0.9, "p": 3.2, "s_r": 120.0},
    "durner": {
        "theta_r": 0.06,
        "theta_s": 0.45,
        "alpha1": 6.0,
        "n1": 2.1,
        "alpha2": 0.6,
        "n2": 1.5,
        "w2": 0.4,
        "l": 0.5,
    },
    "peters_durner_iden": {
        "theta_r": 0.1,
        "theta_s": 0.42,
        "alpha": 3.1,
        "n": 1.8,
        "omega": 2e-3,
        "l": 0.5,
        "h_0": 6.3e4,
        "a": -1.5,
    },
    "saturated": {"theta_s": 0.35},
    "network": {
        "theta_r": 0.06,
        "theta_s": 0.42,
        "alpha": 3.2,
        "n": 1.6,
        "l": 0.5,
        "x1": 0.4,
        "x2": -0.7,
        "x3": 0.9,
    },
}

DEFAULTS: dict[str, dict[str, float]] = {
    "head": {"psi": -0.4},
    "flux": {"q": 5e-7},
    "free_drainage": {},
    "seepage_face": {},
    "general_head": {"head": 0.4, "conductance": 3e-7},
    "deep_water_table": {"level": -1.0, "coefficient": 4e-7, "exponent": 0.8},
    "atmosphere": {"precipitation": 4e-7, "evaporation": 5e-8, "psi_min": -40.0, "ponding_max": 0.01},
}
FEDDES = {"h1": -0.1, "h2": -0.25, "h3": -1.0, "h4": -8.0}


@dataclass(frozen=True)
class Case:
    """A problem in words. `values` overrides boundary values ("top.psi"), soil parameters ("alpha"), Feddes heads.

    A tuple gives a value for each interval (forcing) or each cell (psi0, soil, k_sat), bottom first.
    """

    top: str = "atmosphere"
    bottom: str = "free_drainage"
    relation: str = "van_genuchten"
    variant: int = 0
    psi0: Value = -1.0
    ponding0: float = 0.0
    k_sat: Value = 2.9e-6
    storage: float = 1e-4
    face_mean: str = "arithmetic"
    gravity: float = 1.0
    transpiration: float | None = None
    omega_c: float = 1.0
    stress_table: bool = False  # of the roots, in place of Feddes
    evaporation_table: bool = False
    source: float | None = None
    values: dict[str, Value] = field(default_factory=dict)
    nz: int = 6
    n: int = 2
    hours: tuple[float, ...] = (1.0, 2.5, 1.7)
    dt_fixed: float = 0.8 * HOUR  # of the proofs that need the same steps in perturbed runs
    time_error: float = 1e-2
    reached: Callable[[ColumnProblem, Inputs, ColumnResult], bool] = lambda problem, inputs, result: True

    @property
    def times(self) -> Tensor:
        return torch.tensor([0.0, *self.hours], dtype=torch.float64).cumsum(0) * HOUR


def first_two(values: dict[str, Value]) -> dict[str, Value]:
    """The values of the first two intervals of those that change in time."""
    return {name: value[:2] if isinstance(value, tuple) else value for name, value in values.items()}


KNOTS = (math.log(0.01), 0.6)
KNOT_COUNT = 15  # to 0.01 exp(8.4) = 44 m


def table() -> Tensor:
    """Two classes of [15 knots, 4], van Genuchten at the knots with slopes by differences; flat at knot 0."""
    h = torch.exp(KNOTS[0] + KNOTS[1] * torch.arange(KNOT_COUNT, dtype=torch.float64))
    rows = []
    for alpha, n in ((3.6, 1.56), (1.2, 1.9)):
        p = {name: torch.full_like(h, value) for name, value in SOILS["van_genuchten"].items()}
        p |= {"alpha": torch.full_like(h, alpha), "n": torch.full_like(h, n)}
        theta, kr = theta_kr("van_genuchten", 0, p, -h)
        log_kr = kr.log()
        theta[0], log_kr[0] = 0.43, 0.0
        columns = [theta, _slopes(theta), log_kr, _slopes(log_kr)]
        rows.append(torch.stack(columns, 1))
    return torch.stack(rows)


def _slopes(y: Tensor) -> Tensor:
    """Harmonic mean of the neighbouring differences (Fritsch & Butland 1984), so that the cubic is monotone."""
    step = y.diff() / KNOTS[1]
    inner = 2.0 * step[:-1] * step[1:] / (step[:-1] + step[1:])
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner, step[-1:]])


STRESS_KNOTS = (math.log(0.1), 0.4)
STRESS_COUNT = 12  # to 0.1 exp(4.4) = 8.1 m


def stress_table(n: int) -> Tensor:
    """[12 knots, 2, n], not monotone: 0 at both ends, two maxima, another curve for each column; slopes limited."""
    x = torch.linspace(0.0, 1.0, STRESS_COUNT, dtype=torch.float64)
    column = torch.linspace(0.8, 1.0, n, dtype=torch.float64)[:, None]
    values = column * torch.sin(math.pi * x) ** 0.7 * (1.0 - 0.4 * torch.exp(-80.0 * (x - 0.4 * column) ** 2))
    values[:, 0] = values[:, -1] = 0.0
    return with_slopes(values)


def evaporation_table(n: int) -> Tensor:
    """[12 knots, 2, n]: from 1 to 0 with a rise on the way, another curve for each column."""
    x = torch.linspace(0.0, 1.0, STRESS_COUNT, dtype=torch.float64)
    column = torch.linspace(0.8, 1.0, n, dtype=torch.float64)[:, None]
    values = (1.0 - x) ** column * (1.0 - 0.3 * torch.exp(-60.0 * (x - 0.5 * column) ** 2))
    values[:, 0], values[:, -1] = 1.0, 0.0
    return with_slopes(values)


def with_slopes(values: Tensor) -> Tensor:
    """[12 knots, 2, n] of values [n, 12 knots], slopes 0 at both ends."""
    inner = inner_slopes(values.diff(dim=-1) / STRESS_KNOTS[1])
    slopes = torch.nn.functional.pad(inner, (1, 1))
    return torch.stack([values, slopes], -1).permute(1, 2, 0).contiguous()


def make(case: Case, options: SolveOptions | None = None, seed: int = 3) -> tuple[ColumnProblem, Inputs]:
    """The problem and its inputs; every number differs a little from cell to cell and column to column."""
    generator = torch.Generator().manual_seed(seed)
    nz, n, t = case.nz, case.n, len(case.hours)

    def spread(value: Value, *shape: int, by: float = 0.06) -> Tensor:
        centre = torch.as_tensor(value, dtype=torch.float64)
        if centre.dim():
            centre = centre.reshape(-1, *[1] * (len(shape) - 1))
        noise = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return centre * (1.0 + by * (noise - 0.5))

    problem = ColumnProblem(
        n=n,
        nz=nz,
        dz=torch.linspace(0.12, 0.05, nz, dtype=torch.float64),
        gravity=case.gravity,
        relation=case.relation,
        variant=case.variant,
        face_mean=case.face_mean,
        top=case.top,
        bottom=case.bottom,
        roots=case.transpiration is not None,
        sources=case.source is not None,
        times=case.times,
        save=(0, 1, t),
        options=options or adaptive(case),
    )
    inputs: Inputs = {
        "psi0": spread(case.psi0, nz, n),
        "ponding0": spread(case.ponding0, n),
        "k_sat": spread(case.k_sat, nz, n, by=0.5),
        "specific_storage": spread(case.storage, nz, n),
    }
    if case.relation == "tabulated":
        classes = torch.arange(nz * n, dtype=torch.int32).reshape(nz, n) // 3 % 2
        problem = replace(problem, classes=classes, knots=KNOTS)
        inputs["soil.table"] = table()
    if case.relation == "network":
        inputs["soil.weights"] = network(units=3, features=3).weights().detach()
    for name in SOIL_PARAMETERS[case.relation]:
        if is_shared(name):
            continue
        value = case.values.get(name, SOILS[case.relation][name])
        inputs[f"soil.{name}"] = spread(value, nz, n, by=0.04)
    for side, kind in (("top", case.top), ("bottom", case.bottom)):
        for name, default in DEFAULTS[kind].items():
            inputs[f"{side}.{name}"] = spread(case.values.get(f"{side}.{name}", default), t, n)
    if case.transpiration is not None:
        depth = torch.linspace(0.2, 1.0, nz, dtype=torch.float64)[:, None]
        growth = torch.linspace(0.5, 2.0, t, dtype=torch.float64)[:, None, None]
        density = depth**growth * spread(1.0, t, nz, n, by=0.2)
        inputs["root_density"] = density / (density * problem.dz[:, None]).sum(1, keepdim=True)
        inputs["transpiration"] = spread(case.transpiration, t, n)
        if case.stress_table:
            problem = replace(problem, responses={"root_response": STRESS_KNOTS})
            inputs["root_response"] = stress_table(n)
        else:
            for name, default in FEDDES.items():
                inputs[name] = spread(case.values.get(name, default), t, n, by=0.02)
        inputs["omega_c"] = torch.full((n,), case.omega_c, dtype=torch.float64)
        if case.omega_c < 1.0:
            inputs["omega_c"] = spread(case.omega_c, n, by=0.02)
    if case.evaporation_table:
        problem = replace(problem, responses=problem.responses | {"evaporation_response": STRESS_KNOTS})
        inputs["evaporation_response"] = evaporation_table(n)
    if case.source is not None:
        inputs["source"] = spread(case.source, t, nz, n) * torch.linspace(-0.5, 1.0, nz).double()[:, None]
    return problem, inputs


def adaptive(case: Case) -> SolveOptions:
    """Steps by truncation error, converged to round-off so that the two engines can agree to it."""
    return SolveOptions(dt_initial=900.0, time_error=case.time_error, tolerance=1e-14, record_steps=True)


def fixed(case: Case) -> SolveOptions:
    """Steps that a small change of the inputs leaves as they are; they vary from interval to interval."""
    return SolveOptions(dt_fixed=case.dt_fixed, tolerance=1e-14, max_newton=60, record_steps=True)


OBSERVABLES = ("psi", "theta", "ponding", "top_flux", "bottom_flux", "runoff", "uptake")


def observe(problem: ColumnProblem, inputs: Inputs, result: ColumnResult) -> dict[str, Tensor]:
    """Everything that can be observed. theta is that of the last state, which is a function of the soil too."""
    names = SOIL_PARAMETERS[problem.relation] or ("table",)
    parameters = {name: inputs[f"soil.{name}"] for name in names}
    if problem.classes is not None:
        parameters["classes"] = problem.classes
    theta, _ = theta_kr(problem.relation, problem.variant, parameters, result.psi[-1], problem.knots)
    return {
        "psi": result.psi,
        "theta": theta,
        **{name: getattr(result, name) for name in OBSERVABLES[2:]},
    }


def weights(values: dict[str, Tensor], seed: int = 11) -> dict[str, Tensor]:
    """Random cotangents that bring every observable to the order of 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, value in values.items():
        size = value.detach().abs().max().item() or 1.0
        drawn[name] = torch.randn(value.shape, generator=generator, dtype=torch.float64) / size
    return drawn


def direction(name: str, value: Tensor, seed: int = 7) -> Tensor:
    """A random relative change of an input; one that is zero everywhere moves by a size that suits it.

    An air entry of 0 stays: it switches the air entry off, and kr has no finite slope there (it grows with
    air_entry^(n - 1)).
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    size = {"ponding0": 1e-3, "top.q": 1e-7, "top.precipitation": 1e-7, "soil.air_entry": 0.0}.get(name, 1.0)
    return noise * torch.where(value == 0.0, size * float(bool((value == 0.0).all())), value)
