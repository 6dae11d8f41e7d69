"""Root uptake in sections and domains: against columns, where roots are, what moves with the water, wrong arguments.

The kernels' part has its three proofs in test_field_gradients.py, whose cases have roots, and is compared with the
reference in test_field_kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from field_cases import HOUR, random
from torch import Tensor

import dgpde
from dgpde import Feddes, Grid, NeuralStress, Richards, RootUptake, Series, SolveOptions, TabulatedStress

DAY = 86400.0
TIMES = [0.0, 1.0 * DAY, 1.5 * DAY, 4.0 * DAY]
NZ = 11
DZ = [0.06] * 9 + [0.03, 0.02]
STEPS = SolveOptions(dt_fixed=0.1 * DAY, tolerance=1e-13)


def leaves_of(n: int) -> dict[str, Tensor]:
    return {
        "tp": torch.tensor([8e-8, 2e-8, 6e-8]).double()[:, None] * (0.6 + random(n, seed=1)),
        "depth": torch.tensor([0.3, 0.4, 0.45], dtype=torch.float64),
        "density": 0.1 + random(NZ, n, seed=2),
        "h1": torch.tensor(-0.15, dtype=torch.float64),
        "h3_high": torch.tensor(-0.9, dtype=torch.float64),
        "h4": -4.0 - random(n, seed=3),
        "table": 0.1 + 0.8 * random(2, 6, seed=4),
        "feature": random(n, seed=5),
        "share": 0.2 + 0.7 * random(6, seed=7),
    }


def stress_of(kind: str, v: dict[str, Tensor], n: int) -> Feddes | TabulatedStress | NeuralStress:
    if kind == "table":
        wilted = torch.nn.functional.pad(v["table"], (0, 1))
        return TabulatedStress(wilted, (-0.1, -6.0), torch.arange(n) % 2)
    if kind == "network":
        net = NeuralStress((-0.1, -0.3, -1.0, -6.0), features=[v["feature"]], seed=1)
        with torch.no_grad():
            net.scale.fill_(0.3)
        return net
    return Feddes(v["h1"], -0.3, v["h3_high"], -1.4, v["h4"], rate_high=9e-8, rate_low=1e-8)


def columns(kind: str, engine: str, v: dict[str, Tensor], n: int) -> Richards:
    """Columns that dry under roots from wet above to dry below."""
    place = {"density": v["density"]} if kind == "table" else {"root_depth": Series(v["depth"])}
    roots = RootUptake(Series(v["tp"]), response=stress_of(kind, v, n), **place)
    share = None
    if kind == "network":
        share = TabulatedStress(torch.nn.functional.pad(v["share"], (0, 1)), (-0.05, -6.0))
    return Richards(
        Grid.columns(n, DZ),
        dgpde.VanGenuchten(0.05, 0.4, 3.0 + 2.0 * random(n, seed=6), 1.6, 4e-6),
        {"top": dgpde.Atmosphere(1e-8, 2e-8, evaporation_response=share), "bottom": dgpde.FreeDrainage()},
        [roots],
        engine=engine,
    )


PSI0 = torch.linspace(-3.0, -0.08, NZ, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("kind", ["feddes", "table", "network"])
@pytest.mark.parametrize("n", [1, 2, 63])
def test_columns_through_the_field_engine(n: int, kind: str) -> None:
    """Two implementations of one truth, in value and in gradient: both converge far below what is compared."""
    found = {}
    for engine in ("column", "field"):
        v = {name: value.requires_grad_() for name, value in leaves_of(n).items()}
        run = columns(kind, engine, v, n).solve(PSI0.expand(NZ, n), TIMES, STEPS)
        assert float(run.mass_balance_error.max()) < 1e-9
        loss = (run.theta[1:] ** 2).sum() + 1e6 * (run.uptake * torch.arange(1.0, 4.0)[:, None]).sum()
        gradients = torch.autograd.grad(loss, list(v.values()), allow_unused=True)
        found[engine] = (run, dict(zip(v, gradients, strict=True)))
    (run, by_leaf), (expected, by_column) = found["field"], found["column"]
    # the tolerance of a step, 1e-13 of the pores, over psi's smallest capacity and 40 steps
    torch.testing.assert_close(run.psi, expected.psi, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(run.uptake, expected.uptake, rtol=1e-9, atol=1e-16)
    dry = run.uptake < 0.98 * leaves_of(n)["tp"]
    assert bool(dry.any())  # roots are under stress
    for name, want in by_column.items():
        got = by_leaf[name]
        assert (want is None) == (got is None), name
        if want is not None:
            # both adjoints are exact to their linear solves, 1e-10
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7 * float(want.abs().max()))


def field(roots: RootUptake, grid: Grid, **sides: dgpde.Boundary) -> Richards:
    soil = dgpde.VanGenuchten(0.05, 0.4, 3.0, 1.6, 4e-6)
    return Richards(grid, soil, {"top": dgpde.Flux(1e-9)} | sides, [roots], specific_storage=1e-5)


def test_a_section_is_a_domain_one_cell_wide_and_may_be_turned() -> None:
    nz, m = 6, 5
    tp, psi0 = 1e-7 * random(m, seed=1), -0.5 - random(nz, m, seed=2)
    runs = [
        field(RootUptake(tp.reshape(top), root_depth=0.4), Grid((nz, *top), ([0.1] * nz, *widths))).solve(
            psi0.reshape(nz, *top), [0.0, DAY], SolveOptions(dt_fixed=0.1 * DAY, tolerance=1e-13)
        )
        for top, widths in (((m,), (0.5,)), ((1, m), (1.0, 0.5)), ((m, 1), (0.5, 1.0)))
    ]
    for run in runs[1:]:
        torch.testing.assert_close(run.uptake.flatten(), runs[0].uptake.flatten(), rtol=1e-11, atol=0.0)
        torch.testing.assert_close(run.psi.flatten(), runs[0].psi.flatten(), rtol=0.0, atol=1e-10)


def test_roots_are_below_the_surface_of_the_active_cells() -> None:
    nz, nx = 6, 4
    active = torch.ones(nz, nx, dtype=torch.bool)
    active[4:, 1] = False  # a ditch
    active[3, 2] = False  # a stone
    active[:, 3] = False
    grid = Grid((nz, nx), ([0.1] * nz, 0.5), active=active)
    options = SolveOptions(dt_fixed=900.0, tolerance=1e-13)
    tp = 2e-7
    for place in ({"root_depth": 0.25}, {"density": torch.ones(nz, 1, dtype=torch.float64)}):
        run = field(RootUptake(tp, **place), grid).solve(-1.0, [0.0, 1800.0], options)
        # without stress each column gives what is asked of it, to the tolerance of the heads
        expected = torch.tensor([tp, tp, tp, 0.0], dtype=torch.float64)
        torch.testing.assert_close(run.uptake[0], expected, rtol=1e-12, atol=0.0)
        assert float(run.mass_balance_error) < 1e-9
    drier = field(RootUptake(tp, root_depth=0.25), grid).solve(-1.0, [0.0, 1800.0], options)
    change = (drier.theta[-1] - drier.theta[0])[:, 1]
    assert int(change.argmin()) == 3  # most is taken from the highest active cell


def test_what_is_taken_is_lost() -> None:
    grid = Grid((8, 3, 4), ([0.1] * 8, 0.7, 0.5))
    closed = Richards(
        grid,
        dgpde.VanGenuchten(0.05, 0.4, 3.0, 1.6, 4e-6),
        sources=[RootUptake(Series([1e-7, 3e-8]), root_depth=0.5)],
    )
    run = closed.solve(-0.5 - random(8, 3, 4, seed=1), [0.0, DAY, 3.0 * DAY])
    volume = 0.1 * 0.7 * 0.5
    stored = volume * run.theta.flatten(1).sum(1)
    given = 0.7 * 0.5 * (run.uptake.flatten(1).sum(1) * run.times.diff())
    # the balance of a step closes to 1e-10 of the water that moves
    torch.testing.assert_close(-stored.diff(), given, rtol=1e-9, atol=0.0)


def test_a_learned_response_with_features_on_a_domain() -> None:
    """Features of the shape of the surface; rows that share them have the uptake of a section of that feature."""
    nz, ny, nx = 6, 2, 3
    feature = torch.tensor([[-1.0], [0.7]], dtype=torch.float64)

    def net(features: Tensor) -> NeuralStress:
        made = NeuralStress((-0.1, -0.3, -1.0, -6.0), features=[features], seed=1)
        with torch.no_grad():
            made.scale.fill_(0.5)
        return made

    options = SolveOptions(dt_fixed=0.1 * DAY, tolerance=1e-13)
    grid = Grid((nz, ny, nx), ([0.1] * nz, 1e4, 0.5))  # rows so wide that they hardly exchange water
    demand = 1e-7 * (torch.arange(nx) % 2 + 1.0).double()
    both = field(RootUptake(demand, root_depth=0.4, response=net(feature)), grid)
    run = both.solve(-1.5, [0.0, DAY], options)
    for row in range(ny):
        alone = field(
            RootUptake(demand, root_depth=0.4, response=net(feature[row])),
            Grid((nz, nx), ([0.1] * nz, 0.5)),
        ).solve(-1.5, [0.0, DAY], options)
        torch.testing.assert_close(run.uptake[0, row], alone.uptake[0], rtol=1e-6, atol=0.0)
    assert float((run.uptake[0, 0] / run.uptake[0, 1] - 1.0).detach().abs().min()) > 0.03


def test_roots_take_solutes_up_with_the_water() -> None:
    """Where all water has a concentration of 1 roots do not change it; what they take is in the balance."""
    grid = Grid((8, 6), ([0.1] * 8, 0.5))
    tp = (1e-7 * (0.5 + random(6, seed=1))).requires_grad_()
    model = field(RootUptake(tp, root_depth=0.5), grid, bottom=dgpde.FreeDrainage())
    run = model.solve(-0.6, [0.0, 6 * HOUR, DAY], SolveOptions(dt_fixed=HOUR, tolerance=1e-12))
    sides = {"top": dgpde.InflowConcentration(1.0)}
    done = dgpde.Transport(grid, dgpde.Solute("a", longitudinal_dispersivity=0.05), sides).solve(1.0, run)
    # round-off of 24 steps
    assert float((done.concentration.detach() - 1.0).abs().max()) < 1e-12
    start = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)[:, None]
    done = dgpde.Transport(grid, dgpde.Solute("a", longitudinal_dispersivity=0.05), sides).solve(start, run)
    assert float(done.mass_balance_error.max()) < 1e-10
    loss = done.concentration.square().sum()
    (slope,) = torch.autograd.grad(loss, tp)
    direction = tp.detach() * torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)

    def at(size: float) -> float:
        moved = field(
            RootUptake(tp.detach() + size * direction, root_depth=0.5), grid, bottom=dgpde.FreeDrainage()
        )
        carrier = moved.solve(-0.6, [0.0, 6 * HOUR, DAY], SolveOptions(dt_fixed=HOUR, tolerance=1e-12))
        there = dgpde.Transport(grid, dgpde.Solute("a", longitudinal_dispersivity=0.05), sides).solve(
            start, carrier
        )
        return float(there.concentration.square().sum())

    remainders = [
        abs(at(size) - float(loss.detach()) - size * float((slope * direction).sum()))
        for size in (0.2, 0.1, 0.05)
    ]
    orders = [float(torch.tensor(a / b).log2()) for a, b in zip(remainders, remainders[1:], strict=False)]
    assert min(orders) > 1.8, (orders, remainders)


GRID = Grid((4, 2, 3), ([0.1] * 4, 1.0, 1.0))
ACTIVE = torch.ones(4, 2, 3, dtype=torch.bool)
ACTIVE[3:] = False
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "compensation": (
        lambda: field(RootUptake(1e-8, root_depth=0.3, omega_c=0.7), GRID).solve(-1.0, [0.0, 1.0]),
        ValueError,
        "omega_c of RootUptake must be 1",
    ),
    "gradient of compensation": (
        lambda: field(
            RootUptake(1e-8, root_depth=0.3, omega_c=torch.ones(3, requires_grad=True).double()), GRID
        ).solve(-1.0, [0.0, 1.0]),
        ValueError,
        "omega_c of RootUptake must be 1",
    ),
    "transpiration of columns": (
        lambda: field(RootUptake(torch.full((6,), 1e-8).double(), root_depth=0.3), GRID).solve(
            -1.0, [0.0, 1.0]
        ),
        ValueError,
        "transpiration of RootUptake is a tensor of the shape",
    ),
    "density": (
        lambda: field(
            RootUptake(1e-8, density=torch.tensor([0.0, 0.0, 0.0, 1.0]).double()[:, None, None]),
            Grid((4, 2, 3), ([0.1] * 4, 1.0, 1.0), active=ACTIVE),
        ).solve(-1.0, [0.0, 1.0]),
        ValueError,
        "density of RootUptake is zero over a whole column",
    ),
    "classes": (
        lambda: field(
            RootUptake(
                1e-8,
                root_depth=0.3,
                response=TabulatedStress(
                    torch.tensor([[1.0, 0.5, 0.2, 0.0]]).double(), (-0.1, -5.0), torch.zeros(6, dtype=int)
                ),
            ),
            GRID,
        ).solve(-1.0, [0.0, 1.0]),
        ValueError,
        "classes of TabulatedStress has the shape",
    ),
    "excluded": (
        lambda: dgpde.Transport(GRID, dgpde.Solute("salt", uptake="excluded")).solve(
            1.0, field(RootUptake(1e-8, root_depth=0.3), GRID).solve(-1.0, [0.0, 60.0])
        ),
        ValueError,
        "uptake of 'salt' is 'excluded'; in sections and domains",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_wrong_argument(case: str) -> None:
    call, kind, message = WRONG[case]
    with pytest.raises(kind, match=f"^{message}"):
        call()
