"""Fields through ``Richards``: against columns, symmetries, storage policies, failures, and wrong arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from field_cases import CASES, HOUR, losses, random, section

import dgpde
from dgpde import Atmosphere, FreeDrainage, Grid, Head, Richards, Series, SolveOptions, VanGenuchten, Well

DAY = 86400.0
TIMES = [0.0, 6 * HOUR, 12 * HOUR, DAY, 3 * DAY]


def loam(**changes: object) -> VanGenuchten:
    values = {"theta_r": 0.078, "theta_s": 0.43, "alpha": 3.6, "n": 1.56, "k_sat": 2.9e-6, "air_entry": 0.02}
    return VanGenuchten(**(values | changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- two engines


@pytest.mark.parametrize("n", [1, 2, 63])
@pytest.mark.parametrize(
    "bottom", [FreeDrainage(), Head(0.2), dgpde.GeneralHead(-0.5, 1e-7)], ids=lambda b: b.kind
)
def test_columns_through_the_field_engine(n: int, bottom: dgpde.Boundary) -> None:
    """Two implementations of one truth: both converge far below what is compared."""
    nz = 20
    rain = Series(torch.tensor([4e-6, 0.0, 1e-7, 0.0]).double()[:, None] * (0.5 + random(n, seed=3)))
    pet = Series(torch.tensor([0.0, 6e-8, 2e-8, 6e-8]).double())
    soil = loam(k_sat=2e-6 * (0.5 + random(nz, n, seed=4)), alpha=3.0 + random(nz, 1, seed=5))
    boundaries = {"top": Atmosphere(rain, pet, psi_min=-50.0, ponding_max=5e-3), "bottom": bottom}
    grid = Grid.columns(n, dz=[0.05] * nz)
    options = SolveOptions(dt_fixed=1800.0, tolerance=1e-12)
    found, expected = (
        Richards(grid, soil, boundaries, specific_storage=1e-5, engine=engine).solve(-0.8, TIMES, options)
        for engine in ("field", "column")
    )
    assert int(found.stats.steps) == int(expected.stats.steps[0])
    # the tolerance of a step, 1e-12 of the pores, over psi's smallest capacity and 144 steps
    torch.testing.assert_close(found.psi, expected.psi, rtol=1e-7, atol=1e-8)
    for side in ("top", "bottom"):
        torch.testing.assert_close(
            found.boundary_flux[side], expected.boundary_flux[side], rtol=1e-7, atol=1e-15
        )
    torch.testing.assert_close(found.ponding, expected.ponding, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close(found.runoff, expected.runoff, rtol=1e-7, atol=1e-15)
    torch.testing.assert_close(found.evaporation, expected.evaporation, rtol=1e-6, atol=1e-15)
    assert float(found.mass_balance_error) < 1e-9


def test_gradients_of_columns_agree_between_the_engines() -> None:
    nz, n = 12, 5
    gradients = []
    for engine in ("field", "column"):
        k_sat = (2e-6 * (0.5 + random(nz, n, seed=4))).requires_grad_()
        alpha = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        rain = torch.tensor([4e-6, 0.0, 1e-7, 0.0], dtype=torch.float64, requires_grad=True)
        flow = Richards(
            Grid.columns(n, dz=[0.08] * nz),
            loam(k_sat=k_sat, alpha=alpha),
            {"top": Atmosphere(Series(rain), 1e-8), "bottom": FreeDrainage()},
            engine=engine,
        )
        run = flow.solve(-0.8, TIMES, SolveOptions(dt_fixed=3600.0, tolerance=1e-13))
        loss = (run.theta[1:] ** 2).sum() + 1e5 * run.boundary_flux["bottom"].sum()
        gradients.append(torch.autograd.grad(loss, (k_sat, alpha, rain)))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "lengths", [[12 * HOUR], [4 * HOUR, 5 * HOUR, 3 * HOUR]], ids=["equal", "two lengths"]
)
def test_gradients_of_an_aquifer_whose_solves_recall_each_other(lengths: list[float]) -> None:
    """Backward and forward mode of a linear problem, each solve begun from those before, against direct solves."""
    shape = (3, 7, 9)
    active = torch.ones(shape, dtype=torch.bool)
    active[1:, 5:, 6:] = False
    grid = Grid(shape, (2.0, 10.0, 12.0), active=active)
    times = [0.0, *torch.tensor(lengths).cumsum(0).tolist()]
    leaves = (1e-5 * torch.exp(random(*shape, seed=1)), 1e-4 * (0.5 + random(*shape, seed=2)))
    directions = tuple(leaf * random(*shape, seed=3 + k) for k, leaf in enumerate(leaves))

    def head(k_sat: torch.Tensor, storage: torch.Tensor, backend: str) -> torch.Tensor:
        flow = Richards(
            grid,
            dgpde.Saturated(k_sat),
            {"west": dgpde.HydraulicHead(10.0), "top": dgpde.Flux(1e-8)},
            [Well((0, 3, 4), -2e-4)],
            specific_storage=storage,
        )
        # the second interval of uneven ones has steps of another length
        options = SolveOptions(dt_fixed=HOUR if len(lengths) == 1 else 1.3 * HOUR, backend=backend)
        return flow.solve(8.0 - grid.z, times, options).psi[1:]

    found = {}
    for backend in ("cpu", "reference"):
        given = [leaf.clone().requires_grad_() for leaf in leaves]
        psi = head(*given, backend)
        gradients = torch.autograd.grad((psi * torch.linspace(0.0, 1.0, 9).double()).square().sum(), given)
        with torch.autograd.forward_ad.dual_level():
            pairs = zip(leaves, directions, strict=True)
            moving = head(*(torch.autograd.forward_ad.make_dual(a, d) for a, d in pairs), backend)
            tangent = torch.autograd.forward_ad.unpack_dual(moving).tangent
        found[backend] = (*gradients, tangent)
    for ours, exact in zip(found["cpu"], found["reference"], strict=True):
        # linear_tolerance, 1e-10, times the condition of the steps, below 1e3
        torch.testing.assert_close(ours, exact, rtol=0.0, atol=1e-7 * float(exact.abs().max()))


# --------------------------------------------------------------------------------------------------- symmetries


def test_a_section_is_a_domain_one_cell_wide() -> None:
    nz, nx = 6, 7
    k_sat = 2e-6 * (0.5 + random(nz, nx, seed=1))
    flat = Richards(
        Grid((nz, nx), (0.2, 0.5)), loam(k_sat=k_sat), {"top": dgpde.Flux(5e-7), "west": Head(-0.2)}
    ).solve(-0.5, TIMES)
    deep = Richards(
        Grid((nz, 1, nx), (0.2, 1.0, 0.5)),
        loam(k_sat=k_sat[:, None, :]),
        {"top": dgpde.Flux(5e-7), "west": Head(-0.2)},
    ).solve(-0.5, TIMES)
    assert torch.equal(flat.psi, deep.psi[:, :, 0])
    assert torch.equal(flat.boundary_flux["west"], deep.boundary_flux["west"][..., 0])


def test_x_and_y_may_be_exchanged() -> None:
    nz, ny, nx = 4, 3, 5
    k_sat = 2e-6 * (0.5 + random(nz, ny, nx, seed=1))
    along = Richards(
        Grid((nz, ny, nx), (0.2, 0.7, 0.5)),
        loam(k_sat=k_sat),
        {"west": Head(-0.2), "north": dgpde.SeepageFace(), "top": dgpde.Flux(1e-6)},
        anisotropy=3.0,
    ).solve(-0.5, TIMES)
    across = Richards(
        Grid((nz, nx, ny), (0.2, 0.5, 0.7)),
        loam(k_sat=k_sat.transpose(1, 2)),
        {"south": Head(-0.2), "east": dgpde.SeepageFace(), "top": dgpde.Flux(1e-6)},
        anisotropy=3.0,
    ).solve(-0.5, TIMES)
    # the sums of a row have another order: Newton ends elsewhere within its tolerance
    torch.testing.assert_close(along.psi, across.psi.transpose(2, 3), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4)], ids=str)
def test_water_at_rest_stays_at_rest(shape: tuple[int, ...]) -> None:
    """A hydraulic head on every side equal to that inside: nothing moves, on uneven layers and with z_bottom."""
    spacing = ([0.5, 0.3, 0.2, 0.1, 0.05], *[0.7] * (len(shape) - 1))
    grid = Grid(shape, spacing, z_bottom=-1.15)
    sides = {side: dgpde.HydraulicHead(-0.4) for side in grid.sides}
    flow = Richards(grid, loam(), sides, specific_storage=1e-5)
    psi0 = (-0.4 - grid.z).expand(shape)
    run = flow.solve(psi0, [0.0, DAY])
    torch.testing.assert_close(run.psi[-1], psi0, rtol=0.0, atol=1e-9)
    # round-off of heads of a metre in conductances of 3e-6 / 0.025 1/s
    assert all(float(flux.abs().max()) < 1e-18 for flux in run.boundary_flux.values())


def test_inactive_cells_take_no_part() -> None:
    nz, nx = 6, 8
    active = torch.ones(nz, nx, dtype=torch.bool)
    active[:, 5:] = False
    active[:, 5:6] = False
    psi0 = -0.5 - 0.1 * random(nz, nx, seed=2)
    boundaries = {"top": dgpde.Flux(5e-7), "west": Head(-0.2), "east": Head(0.5)}
    run = Richards(Grid((nz, nx), (0.2, 0.5), active=active), loam(), boundaries).solve(psi0, TIMES)
    small = Richards(Grid((nz, 5), (0.2, 0.5)), loam(), {"top": dgpde.Flux(5e-7), "west": Head(-0.2)})
    expected = small.solve(psi0[:, :5], TIMES)
    torch.testing.assert_close(run.psi[:, :, :5], expected.psi, rtol=1e-9, atol=1e-9)
    assert torch.equal(run.psi[-1][:, 5:], psi0[:, 5:])
    assert bool((run.boundary_flux["top"][:, 5:] == 0.0).all())
    assert bool((run.boundary_flux["east"] == 0.0).all())


def test_a_well_takes_what_it_says() -> None:
    grid = Grid((1, 21, 21), (5.0, 10.0, 10.0))
    flow = Richards(
        grid,
        dgpde.Saturated(k_sat=1e-4),
        {"west": Head(20.0)},
        sources=[Well((0, 10, 10), Series([-1e-3, 0.0]))],
        specific_storage=1e-5,
    )
    run = flow.solve(20.0, [0.0, DAY, 2 * DAY], SolveOptions(dt_fixed=HOUR))
    assert int(run.stats.steps) == 48
    assert int(run.stats.newton_iterations) <= 48  # linear: one solve a step, and none once nothing moves
    stored = (run.psi.flatten(1).sum(1) * 1e-5 * 500.0).diff()
    gain = run.boundary_total["west"] * DAY - torch.tensor([1e-3 * DAY, 0.0], dtype=torch.float64)
    torch.testing.assert_close(stored, gain, rtol=1e-8, atol=1e-8)


def test_a_river_feeds_a_lake() -> None:
    """Steady saturated flow in a row between two rivers: the resistances add up."""
    n, k_sat, area, conductance = 8, 1e-4, 2.0 * 3.0, 1e-5
    grid = Grid((1, 1, n), (2.0, 3.0, 5.0))
    rivers = [dgpde.River((0, 0, 0), 12.0, conductance), dgpde.River((0, 0, n - 1), 10.0, 2.0 * conductance)]
    flow = Richards(grid, dgpde.Saturated(k_sat=k_sat), sources=rivers)
    run = flow.solve(11.0, [0.0, DAY], SolveOptions(dt_fixed=DAY))
    head = run.psi[-1, 0, 0] + grid.z[0, 0, 0]
    resistance = 1.0 / conductance + (n - 1) * 5.0 / (k_sat * area) + 0.5 / conductance
    torch.testing.assert_close(conductance * (12.0 - head[0]).item(), 2.0 / resistance, rtol=1e-9, atol=0.0)
    torch.testing.assert_close((head[1:] - head[:-1]), (head[1] - head[0]).expand(n - 1), rtol=1e-8, atol=0.0)
    assert float(run.mass_balance_error) < 1e-9


def test_steady_flow_through_a_hill() -> None:
    """A long run ends where what comes in goes out."""
    case = section()
    v = case.leaves
    grid = case.model(v).grid
    soil = VanGenuchten(0.05, v["theta_s"], v["alpha"], v["n"], v["k_sat"])
    flow = Richards(grid, soil, {"top": dgpde.Flux(1e-7), "west": dgpde.SeepageFace()})
    options = SolveOptions(dt_initial=60.0, dt_max=1e9, time_error=0.05)
    run = flow.solve(v["psi0"], [0.0, 1e9, 2e9], options, save="last")
    into, out = run.boundary_total["top"][-1], run.boundary_total["west"][-1]
    torch.testing.assert_close(out, -into, rtol=1e-6, atol=0.0)


# ------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", CASES)
def test_every_checkpoint_policy_gives_the_same_bits(name: str, tmp_path: object) -> None:
    case = CASES[name]()
    results = []
    for checkpoint in (
        None,
        dgpde.Checkpoint(every=1),
        dgpde.Checkpoint(every=2, where="host"),
        dgpde.Checkpoint(every=2, where="disk", directory=tmp_path),  # type: ignore[arg-type]
    ):
        leaves = {key: value.clone().requires_grad_() for key, value in case.leaves.items()}
        value = losses(case.solve(leaves, checkpoint=checkpoint))
        results.append(torch.autograd.grad(value, list(leaves.values())))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_chosen_cells_instead_of_fields() -> None:
    case = section()
    grid = case.model(case.leaves).grid
    cells = [(0, 0), (3, 2), (6, 4)]
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    for cell in cells:
        mask[cell] = True
    gradients = []
    for chosen in (None, cells, mask):
        k_sat = case.leaves["k_sat"].clone().requires_grad_()
        flow = case.model(case.leaves | {"k_sat": k_sat})
        run = flow.solve(case.leaves["psi0"], case.times, case.options, save=[1, -1], save_cells=chosen)
        if chosen is None:
            psi = torch.stack([run.psi[(slice(None), *cell)] for cell in cells], 1)
            theta = torch.stack([run.theta[(slice(None), *cell)] for cell in cells], 1)
        else:
            psi, theta = run.psi, run.theta
        gradients.append((psi.detach(), theta.detach(), torch.autograd.grad((psi + theta).sum(), k_sat)[0]))
    for other in gradients[1:]:
        for first, second in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(second, first, rtol=1e-12, atol=0.0)


def test_a_run_gives_the_same_bits_again() -> None:
    case = section()
    first, second = (case.solve(case.leaves) for _ in range(2))
    assert torch.equal(first.psi, second.psi)
    assert first.stats.step_sizes is second.stats.step_sizes is None


# ----------------------------------------------------------------------------------------------------- failures


def impossible() -> tuple[Richards, SolveOptions]:
    """A closed full section without storage into which water is forced."""
    flow = Richards(Grid((3, 4), (0.1, 0.1)), loam(), {"top": dgpde.Flux(1e-6)})
    return flow, SolveOptions(dt_initial=60.0, dt_min=10.0, max_newton=5)


def test_a_failure_says_where_when_and_what_to_do() -> None:
    flow, options = impossible()
    with pytest.raises(dgpde.SolveError, match=r"t = .* s, worst in cell \(\d, \d\): .*dt_min") as caught:
        flow.solve(0.5, [0.0, HOUR, 2 * HOUR], options)
    assert caught.value.solution is not None
    assert int(caught.value.status[0]) in (1, 2)


def test_a_failure_may_be_returned() -> None:
    from dataclasses import replace

    flow, options = impossible()
    run = flow.solve(0.5, [0.0, HOUR, 2 * HOUR], replace(options, on_failure="return"))
    assert int(run.status[0]) != 0
    assert bool(run.psi[1:].isnan().all())
    assert bool(run.theta[1:].isnan().all())
    assert not bool(run.psi[0].isnan().any())


def test_a_singular_adjoint_raises() -> None:
    """A full section without storage and without a head: its Jacobian cannot be solved with."""
    flow = Richards(Grid((2, 3), (0.1, 0.1)), dgpde.Saturated(k_sat=1e-5), {"top": dgpde.Flux(0.0)})
    psi0 = torch.full((2, 3), 0.5, dtype=torch.float64, requires_grad=True)
    grid_psi = psi0 - 0.1 * torch.arange(2).double()[:, None]
    run = flow.solve(grid_psi, [0.0, HOUR], SolveOptions(dt_fixed=HOUR))
    with pytest.raises(dgpde.SolveError, match="transposed linear solve"):
        run.psi[-1][0, 0].backward()


def test_there_are_no_second_derivatives() -> None:
    case = section()
    k_sat = case.leaves["k_sat"].clone().requires_grad_()
    run = case.model(case.leaves | {"k_sat": k_sat}).solve(case.leaves["psi0"], case.times, case.options)
    (gradient,) = torch.autograd.grad(run.psi.sum(), k_sat, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        gradient.sum().backward()


# ---------------------------------------------------------------------------------------------- wrong arguments

GRID = Grid((3, 2, 4), (0.1, 1.0, 1.0))


def field(**changes: object) -> Richards:
    values: dict[str, object] = {"grid": GRID, "soil": loam(), "boundaries": {"bottom": FreeDrainage()}}
    return Richards(**(values | changes))  # type: ignore[arg-type]


def solve(model: Richards | None = None, **changes: object) -> dgpde.Solution:
    values: dict[str, object] = {"psi0": -0.5, "times": [0.0, 60.0]}
    return (model or field()).solve(**(values | changes))  # type: ignore[arg-type]


HOLE = torch.ones(3, 2, 4, dtype=torch.bool)
HOLE[0, 0, 0] = False
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "section has no south": (
        lambda: field(grid=Grid((3, 4), (0.1, 1.0)), boundaries={"south": Head(0.0)}),
        ValueError,
        "boundaries names 'south'",
    ),
    "drainage to the side": (
        lambda: field(boundaries={"west": FreeDrainage()}),
        ValueError,
        "boundaries\\['west'\\]",
    ),
    "shape of a side": (
        lambda: solve(field(boundaries={"west": Head(torch.zeros(2, 4).double())})),
        ValueError,
        r"psi of the west Head .* broadcast to \[3, 2\]",
    ),
    "anisotropy": (lambda: field(anisotropy=0.0), ValueError, "anisotropy must be > 0"),
    "anisotropy shape": (
        lambda: solve(field(anisotropy=torch.ones(3).double())),
        ValueError,
        "anisotropy is a tensor",
    ),
    "engine": (lambda: field(engine="fields"), ValueError, "engine must be one of column, field"),
    "column engine": (lambda: field(engine="column"), ValueError, "engine 'column'"),
    "well in columns": (
        lambda: Richards(Grid.columns(2, [0.1]), loam(), sources=[Well((0, 0), 1e-6)]),
        ValueError,
        r"sources\[0\] is a Well",
    ),
    "well outside": (
        lambda: field(sources=[Well((3, 0, 0), 1e-6)]),
        ValueError,
        "cells has an index outside",
    ),
    "well index": (
        lambda: field(sources=[Well((0, 0), 1e-6)]),
        TypeError,
        "cells must be an index of 3 integers",
    ),
    "well twice": (
        lambda: field(sources=[Well([(0, 0, 0), (0, 0, 0)], 1e-6)]),
        ValueError,
        "cells holds a cell twice",
    ),
    "well nowhere": (
        lambda: field(sources=[Well(torch.zeros(3, 2, 4, dtype=torch.bool), 1e-6)]),
        ValueError,
        "cells holds no cell",
    ),
    "well mask": (
        lambda: field(sources=[Well(torch.zeros(3, 2, dtype=torch.bool), 1e-6)]),
        ValueError,
        "cells is a mask of the shape",
    ),
    "well inactive": (
        lambda: field(grid=Grid((3, 2, 4), (0.1, 1.0, 1.0), active=HOLE), sources=[Well((0, 0, 0), 1e-6)]),
        ValueError,
        "cells of Well 0",
    ),
    "river in columns": (
        lambda: Richards(Grid.columns(2, [0.1]), loam(), sources=[dgpde.River((0, 0), 1.0, 1e-6)]),
        ValueError,
        r"sources\[0\] is a River",
    ),
    "river inactive": (
        lambda: field(
            grid=Grid((3, 2, 4), (0.1, 1.0, 1.0), active=HOLE), sources=[dgpde.River((0, 0, 0), 0.0, 1e-6)]
        ),
        ValueError,
        "cells of River 0",
    ),
    "river conductance": (lambda: dgpde.River((0, 0, 0), 0.0, -1.0), ValueError, "conductance must be >= 0"),
    "river head": (
        lambda: solve(field(sources=[dgpde.River([(0, 0, 0), (0, 1, 0)], torch.zeros(3).double(), 1e-6)])),
        ValueError,
        "H of River 0 is a tensor",
    ),
    "well rate": (lambda: Well((0, 0, 0), "much"), TypeError, "rate must be a number"),
    "well rates": (
        lambda: solve(field(sources=[Well((0, 0, 0), Series([1e-6, 2e-6]))])),
        ValueError,
        "rate of Well 0 is a Series of 2 intervals",
    ),
    "float32": (lambda: solve(psi0=torch.zeros(3, 2, 4)), ValueError, "psi0 .* float64"),
    "backend": (
        lambda: solve(options=SolveOptions(backend="cuda")),
        ValueError,
        "backend must be one of cpu, triton, reference",
    ),
    "cells": (lambda: solve(save_cells=(9, 9, 9)), ValueError, "save_cells has an index outside"),
    "cells of columns": (
        lambda: Richards(Grid.columns(2, [0.1]), loam()).solve(-1.0, [0.0, 1.0], save_cells=[(0, 0)]),
        ValueError,
        "save_cells is for sections",
    ),
    "psi0 shape": (
        lambda: solve(psi0=torch.zeros(2, 3, 4).double()),
        ValueError,
        "psi0 is a tensor of the shape",
    ),
    "pond": (lambda: solve(ponding0=0.1), ValueError, "ponding0 must be 0"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_wrong_argument(case: str) -> None:
    call, error, message = WRONG[case]
    with pytest.raises(error, match=f"^{message}"):
        call()
