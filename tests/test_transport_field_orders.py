"""Transport on sections: orders of convergence in space and time, fronts at grid Peclet numbers of 2 and 50."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import InflowConcentration, Solute, SolveOptions, SteadyFlow, Transport, ZeroGradient

pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")

SCHEMES = ("upwind", "central", "tvd")
THETA, V, ANGLE = 0.3, 1e-5, math.radians(30.0)
ALONG, ACROSS = 0.5, 0.05  # m
SIZE, CENTRE, VARIANCE, END = 24.0, (9.0, 10.0), 4.0, 4e5  # m, m, m2, s


def density(cells: int, time: float) -> Tensor:
    """A Gaussian plume in oblique flow at the centres of a square section, exact; [cells, cells] over z and x."""
    at = (torch.arange(cells, dtype=torch.float64) + 0.5) * SIZE / cells
    direction = torch.tensor([math.cos(ANGLE), math.sin(ANGLE)], dtype=torch.float64)
    outer = direction[:, None] * direction
    spread = V * (ALONG * outer + ACROSS * (torch.eye(2, dtype=torch.float64) - outer))
    covariance = VARIANCE * torch.eye(2, dtype=torch.float64) + 2.0 * spread * time
    z, x = torch.meshgrid(at, at, indexing="ij")
    away = torch.stack([x, z], -1) - (torch.tensor(CENTRE, dtype=torch.float64) + V * time * direction)
    power = (away * torch.linalg.solve(covariance, away[..., None])[..., 0]).sum(-1)
    return VARIANCE / torch.linalg.det(covariance).sqrt() * torch.exp(-0.5 * power)


def plume(scheme: str, cells: int, steps: int) -> Tensor:
    """The same as simulated, with the whole dispersion tensor."""
    grid = dgpde.Grid((cells, cells), (SIZE / cells, SIZE / cells))
    flux = {"x": THETA * V * math.cos(ANGLE), "z": THETA * V * math.sin(ANGLE)}
    sides = {"east": ZeroGradient(), "top": ZeroGradient()}
    model = Transport(grid, Solute("c", ALONG, ACROSS), sides, scheme, cross_terms=True)
    options = SolveOptions(dt_fixed=END / steps, linear_tolerance=1e-13)
    with torch.no_grad():
        done = model.solve(density(cells, 0.0), SteadyFlow(THETA, flux), [0.0, END], options)
    assert float(done.mass_balance_error) < 1e-10
    return done.concentration[-1]


@pytest.mark.parametrize(("scheme", "order", "within"), [("upwind", 1.0, 0.2), ("central", 2.0, 0.2)])
def test_order_in_space(scheme: str, order: float, within: float) -> None:
    """In the mean square over the section; steps as the power of the cells, so that both errors fall alike."""
    errors = []
    for cells, steps in ((30, 24), (60, 24 * 2 ** round(order))):
        exact = density(cells, END)
        errors.append(float((plume(scheme, cells, steps) - exact).norm() / exact.norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=within)


def test_tvd_is_between_the_orders() -> None:
    """The limiter costs the peak its second order; away from it the scheme has that of central differences."""
    errors = []
    for cells, steps in ((30, 24), (60, 96)):
        exact = density(cells, END)
        errors.append(float((plume("tvd", cells, steps) - exact).norm() / exact.norm()))
    assert 1.4 < math.log2(errors[0] / errors[1]) < 2.3
    exact = density(60, END)
    assert errors[1] < 0.5 * float((plume("upwind", 60, 96) - exact).norm() / exact.norm())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_in_time(scheme: str) -> None:
    """Backward Euler: halving steps halves their differences, on one grid."""
    coarse, middle, fine = (plume(scheme, 24, steps) for steps in (16, 32, 64))
    ratio = float((coarse - middle).norm() / (middle - fine).norm())
    assert math.log2(ratio) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(
    ("engine", "scheme"),
    [
        *(("column", scheme) for scheme in SCHEMES),
        ("field", "upwind"),
        *(pytest.param("field", scheme, marks=pytest.mark.slow) for scheme in ("central", "tvd")),
    ],
)
def test_order_in_time_of_flow_and_transport(engine: str, scheme: str) -> None:
    """Infiltration that carries a solute, water and solute on the same steps: first order together."""
    if engine == "column":
        grid = dgpde.Grid.columns(1, [0.05] * 20)
        water = torch.tensor([4e-6], dtype=torch.float64)
    else:
        grid = dgpde.Grid((20, 3), (0.05, 0.2))
        water = torch.tensor([6e-6, 3e-6, 1e-6], dtype=torch.float64)
    soil = dgpde.VanGenuchten(0.065, 0.41, 3.0, 1.7, 1.2e-5)
    flow = dgpde.Richards(grid, soil, {"top": dgpde.Flux(water), "bottom": dgpde.FreeDrainage()})
    model = Transport(grid, Solute("c", 0.05, 0.01), {"top": InflowConcentration(1.0)}, scheme)
    found = []
    for steps in (24, 48, 96):
        options = SolveOptions(dt_fixed=1.2e4 / steps, tolerance=1e-13)
        with torch.no_grad():
            run = flow.solve(-1.0, [0.0, 1.2e4], options)
            found.append(model.solve(0.0, run, options=options).concentration[-1])
        assert int(run.stats.steps.max()) == steps
    ratio = float((found[0] - found[1]).norm() / (found[1] - found[2]).norm())
    # the wetting front moves by less than a cell a step at the end: the next order is a tenth
    assert math.log2(ratio) == pytest.approx(1.0, abs=0.2)


def front(scheme: str, peclet: float, oblique: bool) -> tuple[Tensor, float]:
    """A front halfway through 1 m of saturated sand at a grid Peclet number, and the largest inflow; [z, x]."""
    cells, height, q = 60, 12 if oblique else 1, 1e-5
    size = 1.0 / cells
    grid = dgpde.Grid((height, cells), (size, size))
    solute = Solute("a", diffusion=size * q / (THETA * peclet), tortuosity=1.0)
    flux = {"x": q, "z": 0.4 * q} if oblique else {"x": q}
    sides = {"west": InflowConcentration(1.0)}
    if oblique:
        sides["bottom"] = InflowConcentration(0.5)
    end = 0.5 * THETA / q
    with torch.no_grad():
        done = Transport(grid, solute, sides, scheme).solve(
            0.0, SteadyFlow(THETA, flux), [0.0, end], SolveOptions(dt_fixed=end / 100, linear_tolerance=1e-13)
        )
    return done.concentration[-1], float(done.mass_balance_error)


@pytest.mark.parametrize("peclet", [2.0, 50.0])
@pytest.mark.parametrize("oblique", [False, True])
def test_grid_peclet(peclet: float, oblique: bool) -> None:
    """Upwind and tvd are bounded at any grid Peclet number, tvd is the sharper; central along x only up to 2."""
    found = {}
    for scheme in SCHEMES:
        found[scheme], error = front(scheme, peclet, oblique)
        assert error < 1e-10
    for scheme in ("upwind", "tvd"):
        # a hundred solves to 1e-13
        assert float(found[scheme].min()) >= -1e-12
        assert float(found[scheme].max()) <= 1.0 + 1e-12
    if not oblique:
        steepest = {scheme: float(-c.diff(dim=1).min()) for scheme, c in found.items()}
        assert steepest["tvd"] > 1.15 * steepest["upwind"]
        assert (float(found["central"].max()) <= 1.0 + 1e-12) == (peclet <= 2.0)
