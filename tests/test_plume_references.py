"""Plumes in uniform flow against exact solutions (references P7), with the tolerances that the cases give.

Those tolerances are for Crank-Nicolson; steps here are backward Euler's, short enough that their numerical dispersion,
v^2 dt/(2 R), is at most 4 % of the physical one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from references.cases import read, table
from torch import Tensor

import dgpde
from dgpde.solute import Linear, Solute
from dgpde.steady_flow import SteadyFlow
from dgpde.transport import Transport
from dgpde.transport_boundary import Concentration, InflowConcentration, SoluteBoundary, ZeroGradient
from dgpde.transport_solution import TransportSolution

POROSITY = 0.3
BULK = 1500.0


def plume(
    params: dict[str, float],
    shape: tuple[int, int, int],
    dx: float,
    dt: float,
    times: list[float],
    c0: Tensor | float,
    scheme: str,
    boundaries: dict[str, SoluteBoundary],
    angle: float = 0.0,
) -> TransportSolution:
    """A run in uniform flow at an angle to x."""
    q = POROSITY * params["v_m_per_s"]
    flux = {"x": q * math.cos(angle), "y": q * math.sin(angle)}
    solute = Solute(
        "c",
        params["alpha_L_m"],
        (params["alpha_T_m"], params["alpha_V_m"] or 0.0),
        sorption=Linear((params["R"] - 1.0) * POROSITY / BULK, BULK),
        decay=params["lam_1_per_s"],
    )
    grid = dgpde.Grid(shape, (dx, dx, dx) if shape[0] > 1 else (1.0, dx, dx))
    transport = Transport(grid, solute, boundaries, scheme, cross_terms=angle != 0.0)
    with torch.no_grad():
        return transport.solve(c0, SteadyFlow(POROSITY, flux), times, dgpde.SolveOptions(dt_fixed=dt))


@pytest.mark.parametrize(
    ("name", "scheme", "dx", "dt"),
    [
        ("P7a_gauss2d_aligned", "central", 0.5, 4320.0),
        ("P7a_gauss2d_aligned", "upwind", 0.5, 21600.0),
        ("P7b_gauss2d_oblique30", "central", 0.5, 4320.0),
        ("P7b_gauss2d_oblique30", "tvd", 0.5, 4320.0),
        ("P7b_gauss2d_oblique30", "upwind", 0.5, 21600.0),
        ("P7c_gauss3d_oblique", "central", 1.0, 8640.0),
        pytest.param("P7a_gauss2d_aligned", "central", 0.25, 1080.0, marks=pytest.mark.slow),
        pytest.param("P7b_gauss2d_oblique30", "central", 0.25, 1080.0, marks=pytest.mark.slow),
        pytest.param("P7c_gauss3d_oblique", "central", 0.5, 4320.0, marks=pytest.mark.slow),
        pytest.param("P7c_gauss3d_oblique", "upwind", 0.5, 8640.0, marks=pytest.mark.slow),
    ],
)
def test_a_gaussian_plume(name: str, scheme: str, dx: float, dt: float) -> None:
    case = read(name)
    params, box = case["params"], case["domain"]["suggested"]
    sizes = [round(high / dx) for _, high in box]
    shape = (sizes[2] if len(box) == 3 else 1, sizes[1], sizes[0])
    first, second = (m for m in case["scalars"]["moments"][:2])
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * dx for n in sizes]

    def exact(moment: dict[str, object]) -> Tensor:
        """The density at the centres of the cells."""
        covariance = torch.tensor(moment["covariance_m2"], dtype=torch.float64)
        mesh = torch.meshgrid(*reversed(axes), indexing="ij")
        away = torch.stack([m - x for m, x in zip(reversed(mesh), moment["centre_m"], strict=True)], -1)  # type: ignore[call-overload]
        power = -0.5 * (away * torch.linalg.solve(covariance, away[..., None])[..., 0]).sum(-1)
        peak = 1.0 / torch.linalg.det(2.0 * math.pi * covariance).sqrt()
        # the formula is the case's own
        assert abs(float(moment["mass"] * peak) / (POROSITY * params["R"]) / moment["peak_C"] - 1.0) < 1e-6  # type: ignore[operator]
        return moment["mass"] * peak * torch.exp(power).reshape(shape) / (POROSITY * params["R"])  # type: ignore[operator]

    found = plume(
        params,
        shape,
        dx,
        dt,
        [0.0, second["t_s"]],
        exact(first),
        scheme,
        {side: ZeroGradient() for side in ("east", "north")},
        math.radians(params.get("flow_angle_deg_from_x", 20.0)),
    )
    c, truth = found.concentration[-1], exact(second)
    (tolerance,) = (
        value
        for text, value in case["suggested_tolerance"].items()
        if text.startswith(f"dx={dx:g} m") and (scheme if scheme != "tvd" else "central") in text
    )
    assert float((c - truth).norm() / truth.norm()) < tolerance["L2_rel"]
    assert float((c - truth).abs().max() / truth.max()) < tolerance["max_rel_to_peak"]
    # backward Euler loses 1/(1 + lambda dt) a step: in all lambda^2 dt t/2, at most 5e-4 of the mass here
    kept = float(found.mass.total[-1] / found.mass.total[0])
    assert (
        abs(kept / (second["mass"] / first["mass"]) - 1.0)
        < 1e-6 + 0.6 * params["lam_1_per_s"] ** 2 * dt * second["t_s"]
    )
    if scheme == "central":
        # moments are exact but for the step's own dispersion; the tail that is cut off holds the rest
        for axis, x in enumerate(axes):
            weight = c.sum(dim=[k for k in range(3) if k != 2 - axis])
            centre = float((weight * x).sum() / weight.sum())
            assert abs(centre - second["centre_m"][axis]) < 2e-3


def from_the_inlet(
    case: dict[str, Any], third: bool, x: Tensor, y: Tensor, z: Tensor | None, time: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The case's integral as factors [x, k], [y, k], [z, k] over the nodes k of a Gauss-Legendre rule in sqrt(tau).

    The concentration at (x, y, z) is the sum over k of their product; z None for a strip.
    """
    params = case["params"]
    v = params["v_m_per_s"] / params["R"]
    dx, dy = params["Dx"] / params["R"], params["Dy"] / params["R"]
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(1500))
    root = 0.5 * (nodes + 1.0)
    tau, share = time * root * root, weights * time * root
    x = x[:, None]
    bell = torch.exp(-((x - v * tau) ** 2) / (4.0 * dx * tau))
    if third:
        # exp(v x/D) erfc(a) = bell * erfcx(a)
        late = torch.special.erfcx((x + v * tau) / (4.0 * dx * tau).sqrt())
        k = bell * (v / (math.pi * dx * tau).sqrt() - v * v / (2.0 * dx) * late)
    else:
        k = bell * x / (4.0 * math.pi * dx * tau**3).sqrt()
    k = k * torch.exp(-params["lam_1_per_s"] * tau) * share

    def across(place: Tensor, half: float, d: float) -> Tensor:
        scale = (4.0 * d * tau).sqrt()
        return 0.5 * (torch.erf((place[:, None] + half) / scale) - torch.erf((place[:, None] - half) / scale))

    wide = across(y, params["source_half_width_y_m"], dy)
    if z is None:
        return k, wide, torch.ones(1, k.shape[1], dtype=torch.float64)
    return k, wide, across(z, params["source_half_height_z_m"], params["Dz"] / params["R"])


@pytest.mark.parametrize(
    ("name", "scheme", "dx", "dt"),
    [
        ("P7d_strip2d_first_type", "central", 0.5, 17280.0),
        ("P7d_strip2d_first_type", "upwind", 0.5, 17280.0),
        ("P7e_patch3d_first_type", "central", 0.5, 17280.0),
        ("P7f_patch3d_third_type", "central", 0.5, 17280.0),
        pytest.param("P7d_strip2d_first_type", "central", 0.25, 1080.0, marks=pytest.mark.slow),
        pytest.param("P7e_patch3d_first_type", "upwind", 0.5, 17280.0, marks=pytest.mark.slow),
        pytest.param("P7f_patch3d_third_type", "upwind", 0.5, 17280.0, marks=pytest.mark.slow),
        pytest.param("P7e_patch3d_first_type", "central", 0.25, 8640.0, marks=pytest.mark.slow),
        pytest.param("P7f_patch3d_third_type", "central", 0.25, 8640.0, marks=pytest.mark.slow),
    ],
)
def test_a_source_on_the_inlet(name: str, scheme: str, dx: float, dt: float) -> None:
    """Mean and largest error over the cells of the box, as the cases' own solver was judged."""
    case = read(name)
    params = case["params"]
    domain = "P7d" not in name
    shape = (round(5.0 / dx) if domain else 1, round(10.0 / dx), round(40.0 / dx))  # y and z are half of it
    centres = [(torch.arange(n, dtype=torch.float64) + 0.5) * dx for n in shape]
    patch = (centres[1] < params["source_half_width_y_m"]).double().expand(shape[0], -1).clone()
    if domain:
        patch *= (centres[0] < params["source_half_height_z_m"]).double()[:, None]
    inlet = Concentration(patch) if "first" in name else InflowConcentration(patch)
    time = case["times_s"][0]
    found = plume(params, shape, dx, dt, [0.0, time], 0.0, scheme, {"west": inlet, "east": ZeroGradient()})
    columns = table(name, "points.csv")
    # at the inlet itself the integrand of the first type has no limit
    data = {
        key: torch.from_numpy(values[(columns["t_s"] == time) & (columns["x_m"] > 0.0)])
        for key, values in columns.items()
    }
    places = data["x_m"], data["y_m"], data["z_m"] if domain else None
    k, wide, high = from_the_inlet(case, "third" in name, *places, time)
    # the file has ten digits
    assert float(((k * wide * high).sum(1) - data["C_over_C0"]).abs().max()) < 1e-9
    k, wide, high = from_the_inlet(
        case, "third" in name, centres[2], centres[1], centres[0] if domain else None, time
    )
    off = (found.concentration[-1] - torch.einsum("zt,yt,xt->zyx", high, wide, k)).abs()
    (tolerance,) = (
        v
        for text, v in case["suggested_tolerance"].items()
        if text.startswith(f"dx={dx:g} m") and scheme in text
    )
    assert float(off.mean()) < tolerance["mean_abs"]
    assert float(off[..., round(2.0 / dx) :].max()) < tolerance["max_abs_beyond_x_2m"]
    assert float(found.mass_balance_error) < 1e-10
