"""Transport in columns against closed forms, orders of convergence and invariants."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import (
    Atmosphere,
    Concentration,
    Flux,
    FreeDrainage,
    Freundlich,
    Grid,
    Immobile,
    InflowConcentration,
    Langmuir,
    Linear,
    Richards,
    RootUptake,
    Series,
    Solute,
    SolveOptions,
    Source,
    SteadyFlow,
    Transport,
    ZeroGradient,
)

SCHEMES = ("upwind", "central", "tvd")
HOUR = 3600.0
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")


def storm(n: int = 5) -> tuple[Grid, dgpde.Solution]:
    """Layered, dry columns under a storm that ponds, then roots; thirty layers of uneven size."""
    dz = [0.08] * 10 + [0.04] * 10 + [0.02] * 10
    grid = Grid.columns(n, dz)
    clay = (torch.arange(30) < 12)[:, None]
    soil = dgpde.VanGenuchten(
        theta_r=torch.where(clay, 0.1, 0.05).double(),
        theta_s=torch.where(clay, 0.45, 0.38).double(),
        alpha=torch.where(clay, 1.0, 6.0).double(),
        n=torch.where(clay, 1.25, 2.0).double(),
        k_sat=torch.where(clay, 4e-7, 2e-5).double() * torch.linspace(0.5, 1.5, n).double(),
    )
    rain = Series([4e-5, 0.0, 5e-6, 0.0])
    model = Richards(
        grid,
        soil,
        {"top": Atmosphere(rain, 0.0, ponding_max=0.03), "bottom": FreeDrainage()},
        [
            RootUptake(5e-8, root_depth=0.8),
            Source(Series(torch.tensor([0.0, 1e-8, -1e-8, 0.0])[:, None, None])),
        ],
        specific_storage=1e-5,
    )
    run = model.solve(-3.0, torch.tensor([0.0, 1.0, 6.0, 9.0, 40.0]) * HOUR)
    assert bool((run.ponding > 0.0).any())
    assert bool((run.uptake > 0.0).all())
    return grid, run


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_stays_one(scheme: str) -> None:
    """Water of concentration 1 everywhere, and coming in, keeps it through a storm: fluxes are continuous."""
    grid, run = storm()
    solute = Solute(
        "a",
        longitudinal_dispersivity=0.02,
        diffusion=1e-9,
        sorption=Linear(1e-4, 1500.0),
        immobile=Immobile(0.02, 1e-6),
        source_concentration=1.0,
    )
    done = Transport(grid, solute, {"top": InflowConcentration(1.0)}, scheme).solve(1.0, run)
    # round-off of a few hundred steps
    assert float((done.concentration - 1.0).abs().max()) < 1e-12
    assert float(done.mass_balance_error.max()) < 1e-12


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mass(scheme: str) -> None:
    """All that comes in, leaves and reacts is what the soil holds more, phase by phase, for every solute."""
    grid, run = storm()
    parent = Solute(
        "parent",
        longitudinal_dispersivity=0.02,
        decay=3e-6,
        sorption=Freundlich(1e-4, 0.8, 1500.0, rate=2e-5),
    )
    daughter = Solute(
        "daughter",
        longitudinal_dispersivity=0.02,
        parent="parent",
        yield_=0.7,
        sorption=Langmuir(2.0, 1e-4, 1500.0),
        immobile=Immobile(0.02, 1e-6),
        uptake="excluded",
    )
    done = Transport(grid, [parent, daughter], {"top": InflowConcentration(2.0)}, scheme).solve(0.1, run)
    assert float(done.mass_balance_error.max()) < 1e-10
    assert done.mass.total.shape == (5, 2, 5)
    # an independent sum for a conservative one that roots do not take
    plain = Transport(
        grid, Solute("salt", uptake="excluded"), {"top": InflowConcentration(2.0)}, scheme
    ).solve(0.1, run)
    dt = run.times.diff()[:, None]
    gain = ((plain.solute_flux["top"] + plain.solute_flux["bottom"]) * dt).sum(0)
    dz = grid.dz[:, None]
    held = (run.theta * plain.concentration * dz).sum(1)
    assert torch.allclose(held, plain.mass.dissolved, rtol=1e-12)
    # sources take out 3e-9 ... m/s of water with what it holds: all but that closes
    taken = held[-1] - held[0] - gain
    assert float(taken.abs().max()) < 0.05 * float(held.max())


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_positive_and_bounded(scheme: str) -> None:
    """A sharp front through a storm stays between 0 and the concentration of the rain, without uptake."""
    dz = [0.02] * 40
    grid = Grid.columns(3, dz)
    soil = dgpde.VanGenuchten(theta_r=0.05, theta_s=0.4, alpha=4.0, n=1.8, k_sat=1e-5)
    model = Richards(grid, soil, {"top": Flux(Series([5e-6, 1e-6, 8e-6])), "bottom": FreeDrainage()})
    run = model.solve(-1.0, torch.tensor([0.0, 2.0, 8.0, 12.0]) * HOUR)
    done = Transport(grid, Solute("a"), {"top": InflowConcentration(Series([1.0, 0.0, 0.5]))}, scheme).solve(
        0.0, run
    )
    # tvd is solved to 1e-13 of its terms, upwind directly
    slack = 0.0 if scheme == "upwind" else 1e-12
    assert float(done.concentration.min()) >= -slack
    assert float(done.concentration.max()) <= 1.0 + 1e-12


def front(scheme: str, peclet: float, cells: int = 80) -> Tensor:
    """A front halfway through 1 m of saturated sand, grid Peclet number as given."""
    dz = 1.0 / cells
    grid = Grid.columns(1, [dz] * cells)
    theta, q = 0.35, -1e-5
    solute = Solute("a", diffusion=dz * abs(q) / (theta * peclet), tortuosity=1.0)
    model = Transport(grid, solute, {"top": InflowConcentration(1.0)}, scheme)
    end = 0.5 * theta / abs(q)
    return model.solve(0.0, SteadyFlow(theta, q), [0.0, end], SolveOptions(dt_fixed=end / 200)).concentration[
        -1, :, 0
    ]


@pytest.mark.parametrize("peclet", [2.0, 50.0])
def test_grid_peclet(peclet: float) -> None:
    """Upwind and tvd are bounded at any grid Peclet number, tvd is the sharper; central only up to 2."""
    found = {scheme: front(scheme, peclet) for scheme in SCHEMES}
    for scheme in ("upwind", "tvd"):
        assert float(found[scheme].min()) >= -1e-12
        assert float(found[scheme].max()) <= 1.0 + 1e-12
        assert bool((found[scheme].diff() >= -1e-12).all())
    assert float(found["tvd"].diff().max()) > 1.2 * float(found["upwind"].diff().max())
    within = float(found["central"].max()) <= 1.0 + 1e-12
    assert within == (peclet <= 2.0)


def test_central_warns_with_numbers() -> None:
    with pytest.warns(UserWarning, match=r"grid Peclet number is 50 .* largest Courant number 0.2"):
        front("central", 50.0)


def steady_profile(scheme: str, cells: int) -> float:
    """Largest error of the steady profile of decay under flow with dispersion, uniform cells."""
    length, theta, q, spread, decay = 1.0, 0.4, -1e-6, 0.1, 2e-6
    grid = Grid.columns(1, [length / cells] * cells)
    solute = Solute("a", longitudinal_dispersivity=spread, decay=decay)
    sides = {"top": Concentration(1.0), "bottom": Concentration(0.3)}
    done = Transport(grid, solute, sides, scheme).solve(
        1.0, SteadyFlow(theta, q), [0.0, 1e12], SolveOptions(dt_max=1e12)
    )
    # theta D c'' + |q| c' - theta decay c = 0 along depth x: exponents r
    d = spread * abs(q)
    root = math.sqrt(q * q + 4.0 * d * theta * decay)
    r1, r2 = (abs(q) + root) / (2.0 * d), (abs(q) - root) / (2.0 * d)
    x = grid.depth.flatten()
    # far from the outlet of water the first-type outlet is one-sided: compare in the upper half
    e1, e2 = math.exp(r1 * length), math.exp(r2 * length)
    b = (0.3 - e1) / (e2 - e1)
    exact = (1.0 - b) * torch.exp(r1 * x) + b * torch.exp(r2 * x)
    return float((done.concentration[-1, :, 0] - exact)[x < 0.4].abs().max())


def test_order_in_space() -> None:
    """First order upwind, second order central."""
    for scheme, order in (("upwind", 1.0), ("central", 2.0)):
        coarse, fine = steady_profile(scheme, 320), steady_profile(scheme, 640)
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1), scheme


def test_order_in_time() -> None:
    """Backward Euler: first order, against many small steps."""
    grid = Grid.columns(1, [0.02] * 50)
    solute = Solute("a", longitudinal_dispersivity=0.05)
    model = Transport(grid, solute, {"top": InflowConcentration(1.0)}, "central")

    def run(steps: int) -> Tensor:
        options = SolveOptions(dt_fixed=2e4 / steps)
        return model.solve(0.0, SteadyFlow(0.35, -1e-5), [0.0, 2e4], options).concentration[-1]

    exact = run(8000)
    errors = [float((run(steps) - exact).abs().max()) for steps in (50, 100)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.1)


def still(
    solutes: object, c0: object, end: float, steps: int = 4000, boundaries: object = None
) -> dgpde.TransportSolution:
    """One cell of water that does not move."""
    grid = Grid.columns(1, [0.1])
    options = SolveOptions(dt_fixed=end / steps)
    return Transport(grid, solutes, boundaries).solve(c0, SteadyFlow(0.3, 0.0), [0.0, end], options)  # type: ignore[arg-type]


def test_decay_chain() -> None:
    """Bateman 1910: three members, the sorbed mass decays too; retardation leaves decay as it is."""
    a = Solute("a", decay=2e-6, sorption=Linear(2e-4, 1500.0))
    b = Solute("b", decay=5e-7, parent="a", yield_=0.5)
    c = Solute("c", parent="b")
    end = 1e6
    done = still([a, b, c], {"a": 1.0, "b": 0.0, "c": 0.0}, end)
    total = 0.3 + 0.3  # water and solid hold as much
    made_a = total * math.exp(-2e-6 * end)
    made_b = 0.5 * total * 2e-6 / (5e-7 - 2e-6) * (math.exp(-2e-6 * end) - math.exp(-5e-7 * end))
    held = done.mass.total[-1, :, 0] / 0.1
    # first order in time: a quarter of a thousandth of the time constants
    assert float(held[0]) == pytest.approx(made_a, rel=1e-3)
    assert float(held[1]) == pytest.approx(made_b, rel=1e-3)
    assert float(held[2]) == pytest.approx(0.5 * (total - made_a) - made_b, rel=1e-3)


def test_production() -> None:
    assert float(still(Solute("a", production=3e-7), 0.2, 1e5, 10).concentration[-1, 0, 0]) == pytest.approx(
        0.2 + 3e-7 * 1e5 / 0.3, rel=1e-12
    )


def test_kinetic_sorption_and_immobile_water() -> None:
    """Both relax exponentially to equilibrium, at rates that the closed forms give."""
    rate, end = 1e-5, 5e4
    # production into clean water: m' = rate (a c - s)
    a = 2e-4 * 1500.0
    kinetic = Solute("a", sorption=Linear(2e-4, 1500.0, rate=rate), production=0.0)
    grid = Grid.columns(1, [0.1])
    inflow = {"top": InflowConcentration(1.0), "bottom": ZeroGradient()}
    # flushed so fast that c is that of the inflow: s = a (1 - exp(-rate t))
    fast = SolveOptions(dt_fixed=end / 4000)
    done = Transport(grid, kinetic, inflow).solve(0.0, SteadyFlow(0.3, -1.0), [0.0, end], fast)
    assert float(done.mass.sorbed[-1, 0]) == pytest.approx(0.1 * a * (1.0 - math.exp(-rate * end)), rel=1e-3)
    double = Solute("a", immobile=Immobile(0.1, rate * 0.1))
    done = Transport(grid, double, inflow).solve(0.0, SteadyFlow(0.3, -1.0), [0.0, end], fast)
    expected = 0.1 * 0.1 * (1.0 - math.exp(-rate * end))
    assert float(done.mass.immobile[-1, 0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("sorption", "held"),
    [
        (Freundlich(3e-4, 0.5, 1500.0), lambda c: 0.45 * math.sqrt(c)),
        (Freundlich(3e-4, 1.6, 1500.0), lambda c: 0.45 * c**1.6),
        (Langmuir(2.0, 3e-4, 1500.0), lambda c: 0.9 * c / (1.0 + 2.0 * c)),
    ],
)
def test_isotherm_from_clean_soil(sorption: dgpde.solute.Sorption, held: object) -> None:
    """Into a clean soil, where Freundlich's slope is infinite: what was added stands in equilibrium."""
    done = still(Solute("a", sorption=sorption, production=1e-6), 0.0, 1e5, 7)
    c = float(done.concentration[-1, 0, 0])
    assert 0.3 * c + held(c) == pytest.approx(0.1, rel=1e-10)  # type: ignore[operator]
    assert float(done.mass_balance_error) < 1e-12


def test_far_ahead_of_a_front() -> None:
    """Concentrations fall below the smallest numbers there are: nothing overflows, and the limiter finds its step."""
    model = Transport(
        Grid.columns(9, [0.02] * 120),
        Solute("a", longitudinal_dispersivity=0.01),
        {"top": InflowConcentration(1.0)},
        "tvd",
    )
    done = model.solve(0.0, SteadyFlow(0.3, -1e-7), [0.0, 10.0, 20.0])
    assert float(done.concentration[-1, 0, 0]) == 0.0
    assert float(done.mass_balance_error.max()) < 1e-12


def test_newton_on_rough_states() -> None:
    """Random steps of concentration, uneven cells, Courant numbers up to 100: found, bounded, off Langmuir's pole."""
    random = torch.Generator().manual_seed(0)
    dz = (0.02 + 0.08 * torch.rand(40, generator=random)).tolist()
    grid, n = Grid.columns(200, dz), 200
    flux = 1e-6 * (2.0 * torch.rand(n, generator=random) - 1.0).double()
    c0 = (torch.rand(40, n, generator=random) > 0.5) * torch.rand(40, n, generator=random).double()
    for sorption in (
        None,
        Freundlich(1e-3, 0.5, 1500.0),
        Freundlich(1e-3, 2.0, 1500.0),
        Langmuir(100.0, 1e-3, 1500.0),
    ):
        for courant in (0.1, 1.0, 10.0, 100.0):
            dt = courant * 0.05 * 0.3 / 1e-6
            model = Transport(grid, Solute("a", sorption=sorption), {"top": InflowConcentration(1.0)}, "tvd")
            options = SolveOptions(dt_fixed=dt, on_failure="return")
            done = model.solve(c0, SteadyFlow(0.3, flux), [0.0, 10 * dt], options)
            # about one step in 2e5 of a column goes round in circles for good
            assert int((done.status != 0).sum()) <= 1
            found = done.concentration[:, :, done.status == 0]
            assert float(found.min()) > -1e-12
            assert float(found.max()) < 1.0 + 1e-12


def test_evaporation_leaves_solute_behind() -> None:
    """Salt stays when water evaporates; an isotope of water goes with it at the cell's concentration."""
    grid = Grid.columns(1, [0.05] * 10)
    soil = dgpde.VanGenuchten(theta_r=0.05, theta_s=0.4, alpha=2.0, n=1.6, k_sat=1e-6)
    run = Richards(grid, soil, {"top": Atmosphere(0.0, 3e-8)}).solve(-1.0, [0.0, 1e5, 4e5])
    both = [Solute("salt"), Solute("isotope", evaporates=True)]
    done = Transport(grid, both).solve(1.0, run)
    assert float(done.solute_flux["top"][:, 0].abs().max()) == 0.0
    assert float(done.of("salt")[-1, -1, 0]) > 1.05
    assert torch.allclose(done.of("isotope"), torch.ones(1, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(done.solute_flux["top"][:, 1], run.boundary_flux["top"], rtol=1e-9)


def test_breakthrough_and_moments() -> None:
    grid = Grid.columns(2, [0.1] * 10, z_bottom=-1.0)
    model = Transport(grid, [Solute("a")], {"top": InflowConcentration(1.0)})
    done = model.solve(torch.linspace(0, 1, 10)[:, None].double(), SteadyFlow(0.3, -1e-6), [0.0, 1e4])
    assert done.breakthrough(-0.5).shape == (2, 1, 2)
    assert float(done.breakthrough(-0.5)[0, 0, 0]) == pytest.approx(0.5)
    assert float(done.breakthrough(-1.0)[0, 0, 0]) == 0.0
    centre, variance = done.moments()
    assert float(centre[0, 0, 0]) == pytest.approx(-0.05 - 0.9 * (1 - 19 / 27), rel=1e-6)
    assert float(variance[0, 0, 0]) > 0.0
    with pytest.raises(ValueError, match=r"^z must lie between -1 and"):
        done.breakthrough(0.5)
