"""Public cases of sections and domains within their suggested tolerances, and the order in space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.cases import read, table
from references.fields import MODES, Tracy, drawdown

import dgpde

DAY = 86400.0


@pytest.mark.parametrize("name", MODES)
def test_the_series_is_the_table_of_the_case(name: str) -> None:
    tracy = Tracy(name)
    data = table(name, "fields.csv")
    inside = (
        (data["x_m"] > 0) & (data["x_m"] < tracy.length) & (data["z_m"] > 0) & (data["z_m"] < tracy.length)
    )
    y = data.get("y_m")
    if y is not None:
        inside &= (y > 0) & (y < tracy.length)
    for time in np.unique(data["t_s"]):
        rows = inside & (data["t_s"] == time)
        found = tracy.exact(data["z_m"][rows], data["x_m"][rows], None if y is None else y[rows], time)
        np.testing.assert_allclose(found, data["psi_m"][rows], atol=1e-8)  # the table has ten digits


@pytest.mark.parametrize(
    ("name", "label", "n", "dt", "face_mean"),
    # The calibrations are nodal, with exact values on the sides; the first cell stands half a cell inside. In the
    # mild case, which has no front to dominate, their errors of space and time cancel in part; ours are made smaller.
    [(name, "n=16 dt=1000 s arith K", 16, 1000.0, "arithmetic") for name in MODES if "mild" not in name]
    + [("P4_tracy2d_specified_head_sin_mild", "n=16 dt=1000 s arith K", 24, 250.0, "arithmetic")]
    + [
        pytest.param(name, "n=32 dt=500 s upwind K", 32, 500.0, "upstream", marks=pytest.mark.slow)
        for name in MODES
        if name != "P4_tracy3d"
    ],
)
def test_tracy(name: str, label: str, n: int, dt: float, face_mean: str) -> None:
    tracy = Tracy(name)
    flow, psi0 = tracy.model(n, face_mean)
    tolerance = tracy.case["suggested_tolerance"][label]
    times = tracy.case["times_s"][: len(tolerance["psi_max_m"])]
    with torch.no_grad():
        run = flow.solve(psi0, [0.0, *times], dgpde.SolveOptions(dt_fixed=dt))
    assert float(run.mass_balance_error) < 1e-9
    for k, time in enumerate(times):
        found = tracy.errors(run.psi[k + 1].numpy(), time)
        for quantity, error in found.items():
            assert error <= tolerance[quantity][k], (time, quantity, error)


def test_second_order_in_space() -> None:
    # the mild case at steady state, where no error of the time step is left
    tracy = Tracy("P4_tracy2d_specified_head_sin_mild")
    errors = []
    for n in (8, 16, 32):
        flow, psi0 = tracy.model(n, "arithmetic")
        with torch.no_grad():
            run = flow.solve(psi0, [0.0, 2000 * DAY], dgpde.SolveOptions(dt_initial=3600.0, dt_max=500 * DAY))
        centre = (np.arange(n) + 0.5) * tracy.length / n
        exact = tracy.exact(centre[:, None], centre[None, :], None, 2000 * DAY)
        saturation = np.abs(np.exp(tracy.alpha * run.psi[-1].numpy()) - np.exp(tracy.alpha * exact))
        errors.append(float(np.sqrt((saturation**2).mean())))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.8).all(), (errors, orders)


def test_theis() -> None:
    """Drawdown around a well of the size of a cell, between fixed heads, as one linear solve a step."""
    p = read("P6")["params"]
    n, size, dt = 101, 20.0, 36.0
    grid = dgpde.Grid((1, n, n), (p["thickness_m"], size, size))
    heads = {side: dgpde.Head(p["h0_m"]) for side in ("west", "east", "south", "north")}
    flow = dgpde.Richards(
        grid,
        dgpde.Saturated(k_sat=p["K_m_per_s"]),
        boundaries=heads,
        sources=[dgpde.Well((0, n // 2, n // 2), -p["Q_m3_per_s"])],
        specific_storage=p["Ss_1_per_m"],
    )
    times = [0.0, *read("P6")["times_s"][:3]]
    with torch.no_grad():
        run = flow.solve(p["h0_m"], times, dgpde.SolveOptions(dt_fixed=dt))
    assert float(run.mass_balance_error) < 1e-9
    assert int(run.stats.newton_iterations) == int(run.stats.steps)  # one solve a step
    tolerance = read("P6")["suggested_tolerance"]["dx=20 m dt=36 s"]["drawdown_abs_m"]
    for k, time in enumerate(times[1:]):
        x, expected = drawdown(time)
        on_centre = (x % size == 0.0) & (x < 1000.0)
        found = p["h0_m"] - run.psi[k + 1, 0, n // 2, n // 2 + (x[on_centre] // size).astype(int)].numpy()
        error = np.abs(found - expected[on_centre])
        assert (error <= tolerance[f"t={time:.0f}"]).all(), (time, error)
        # farther than two cells from the well the case's own calibration leaves 1.1e-3 m, at other probes
        assert (error[x[on_centre] > 40.0] <= 2e-3).all(), (time, error)


def test_infiltration_into_a_deep_dry_domain() -> None:
    """A published deck of ParFlow, 240 layers: psi after ten hours, which its authors give to eight digits."""
    porosity, hour = 0.451, 3600.0
    grid = dgpde.Grid((240, 2, 2), (0.025, 1.0, 1.0))
    flow = dgpde.Richards(
        grid,
        dgpde.VanGenuchten(0.15 * porosity, porosity, alpha=1.0, n=4.0, k_sat=1e-3 / hour),
        {"top": dgpde.Flux(0.8e-3 / hour), "bottom": dgpde.Head(0.0)},
        specific_storage=1e-8,
    )
    psi0 = (-3.0 - grid.z).expand(grid.shape)
    with torch.no_grad():
        run = flow.solve(psi0, [0.0, 10 * hour], dgpde.SolveOptions(dt_fixed=hour, tolerance=1e-8))
    assert float(run.mass_balance_error) < 1e-9  # whatever the tolerance
    expected = {0.0125: -0.0536811, 5.8875: -8.8783141, 5.9625: -1.4517186, 5.9875: -1.1762865}
    for z, psi in expected.items():
        layer = int((grid.z[:, 0, 0] - z).abs().argmin())
        # ParFlow ends Newton at a residual of its own
        assert abs(float(run.psi[-1, layer, 0, 0]) / psi - 1.0) < 1e-3, z
