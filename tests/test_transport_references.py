"""Transport against the public reference solutions P5 (one-dimensional), on both engines, and the moments of P7a."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from references.cases import read, table

from dgpde import (
    Concentration,
    Grid,
    InflowConcentration,
    Linear,
    Solute,
    SolveOptions,
    SteadyFlow,
    Transport,
    TransportSolution,
    ZeroGradient,
)

THETA = 0.4  # any water content gives the same concentrations
SCHEMES = ("upwind", "central", "tvd")
CASES = ("P5a", "P5b", "P5c", "P5d", "P5e", "P5f")
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")


def solve(
    case: dict[str, Any], cells_per_m: int, dt: float, scheme: str, where: str = "column"
) -> tuple[TransportSolution, np.ndarray, torch.Tensor]:
    """The case from its inlet, distances of the cells from it, and their concentrations [T + 1, cells].

    Args:
        case: as ``read`` gives it.
        cells_per_m: resolution.
        dt: s.
        scheme: of advection.
        where: "column", down a column; "x" or "z", the axis of a section of the field engine.
    """
    values = case["params"]
    length = case["calibration_plain_solver"]["domain_length_m"]
    count = round(length * cells_per_m)
    size, q = length / count, THETA * values["v_m_per_s"]
    inlet_side, outlet_side, grid, flux = {
        "column": ("top", "bottom", Grid.columns(1, [size] * count), -q),
        "x": ("west", "east", Grid((1, count), (1.0, size)), {"x": q}),
        "z": ("bottom", "top", Grid((count, 1), (size, 1.0)), {"z": q}),
    }[where]
    retardation = values["R"] - 1.0
    solute = Solute(
        "c",
        diffusion=values["D_m2_per_s"],
        tortuosity=1.0,
        decay=values["lam_1_per_s"],
        sorption=Linear(retardation * THETA / 1500.0, 1500.0) if retardation > 0.0 else None,
    )
    first = "C(0,t)" in case["boundary_conditions"]["inlet"]
    inlet = Concentration(values["C0"]) if first else InflowConcentration(values["C0"])
    model = Transport(grid, solute, {inlet_side: inlet, outlet_side: ZeroGradient()}, scheme)
    with torch.no_grad():
        done = model.solve(0.0, SteadyFlow(THETA, flux), [0.0, *case["times_s"]], SolveOptions(dt_fixed=dt))
    along = done.concentration.flatten(1)
    distance = (np.arange(count) + 0.5) * size
    return done, distance, along.flip(1) if where == "column" else along


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("where", "scheme"),
    [
        *(("column", scheme) for scheme in SCHEMES),
        ("x", "central"),
        *(pytest.param("x", scheme, marks=pytest.mark.slow) for scheme in ("upwind", "tvd")),
        *(pytest.param("z", scheme, marks=pytest.mark.slow) for scheme in SCHEMES),
    ],
)
def test_profiles(name: str, where: str, scheme: str) -> None:
    """Within the tolerances of the cases for their plain solver; tvd within those of upwind, and closer on average."""
    case, rows = read(name), table(name, "profiles.csv")
    for label, tolerance in case["suggested_tolerance"].items():
        cells, _, rest = label.partition(" cells/m dt=")
        dt, _, kind = rest.partition(" s ")
        if kind != ("central BE" if scheme == "central" else "upwind BE"):
            continue
        done, distance, along = solve(case, int(cells), float(dt), scheme, where)
        errors = []
        for k, time in enumerate(case["times_s"]):
            here = rows["t_s"] == time
            x, exact = rows["x_m"][here], rows["C"][here]
            inside = (x >= distance[0]) & (x <= distance[-1])
            errors.append(np.abs(np.interp(x[inside], distance, along[k + 1].numpy()) - exact[inside]))
        assert max(error.max() for error in errors) < tolerance["C_max_abs"], label
        assert max(error.mean() for error in errors) < tolerance["C_mean_abs"], label
        assert float(done.mass_balance_error) < 1e-10


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("where", "side"), [("column", "top"), pytest.param("x", "west", marks=pytest.mark.slow)]
)
def test_inflow(name: str, where: str, side: str) -> None:
    """Mass that has come in, against the scalars of the cases: exact for a third-type inlet."""
    case = read(name)
    scalar = case["scalars"]["cumulative_solute_inflow_per_porosity_m"]
    dt = case["times_s"][0] / 100.0
    done, *_ = solve(case, 40, dt, "central", where)
    total = (done.solute_flux[side][:, 0] * done.times.diff()).cumsum(0) / THETA
    third = "C(0,t)" not in case["boundary_conditions"]["inlet"]
    # a first-type inlet lets a front of infinite slope in at first: 2 % of it is lost on these cells
    assert torch.allclose(total, torch.tensor(scalar["value"]).double(), rtol=1e-9 if third else 0.02)


def test_moments_of_a_plume() -> None:
    """P7a summed across the flow is one-dimensional: mass, centre and variance of a retarded, decaying plume."""
    case = read("P7a")
    values, moments = case["params"], case["scalars"]["moments"]
    porosity, length, count = values["porosity"], 60.0, 240
    grid = Grid.columns(1, [length / count] * count)
    solute = Solute(
        "c",
        longitudinal_dispersivity=values["alpha_L_m"],
        decay=values["lam_1_per_s"],
        sorption=Linear((values["R"] - 1.0) * porosity / 1500.0, 1500.0),
    )
    start = moments[0]
    z = grid.z.flatten()
    centre, variance = start["centre_m"][0], start["covariance_m2"][0][0]
    c0 = torch.exp(-0.5 * (z - centre) ** 2 / variance) / (2.0 * torch.pi * variance) ** 0.5
    c0 = c0 / (porosity * values["R"])
    flow = SteadyFlow(porosity, porosity * values["v_m_per_s"])
    times = [moment["t_s"] for moment in moments]
    model = Transport(grid, solute, {"top": ZeroGradient()}, "central")
    done = model.solve(c0[:, None], flow, times, SolveOptions(dt_fixed=1350.0))
    centres, variances = done.moments()
    for k, moment in enumerate(moments):
        # backward Euler decays by 1/(1 + lambda dt), and spreads by v^2 dt/(2 R^2), 1.1 % of the dispersion
        assert float(done.mass.total[k, 0]) == pytest.approx(moment["mass"], rel=2e-4)
        assert float(centres[k, 0]) == pytest.approx(moment["centre_m"][0], rel=1e-3)
        assert float(variances[k, 0]) == pytest.approx(moment["covariance_m2"][0][0], rel=0.015)
