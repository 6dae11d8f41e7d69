"""Steady states: exact solutions, what a long run comes to, gradients in three ways, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_cases import Tensors, dense, random
from references.fields import MODES, Tracy
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde import Flux, Grid, Head, Richards, SolveError, SolveOptions
from dgpde.assembly import check_start
from dgpde.field import set_up_field
from dgpde.kernels.flow_stencil.problem import Step
from dgpde.kernels.flow_stencil.reference import jacobian, terms

DAY = 86400.0
TIGHT = SolveOptions(linear_tolerance=1e-12)


def gardner(nz: int, rates: Tensor) -> tuple[Richards, Tensor]:
    """Columns over a water table under rates of infiltration [m/s], and psi (Gardner 1958, Soil Sci. 85:228)."""
    alpha, k_sat, height = 2.0, 1e-6, 1.5
    grid = Grid.columns(rates.numel(), [height / nz] * nz)
    soil = dgpde.Gardner(0.05, 0.4, alpha, k_sat)
    flow = Richards(grid, soil, {"top": Flux(rates), "bottom": Head(0.0)})
    # K dpsi/dz + K = rate, K = k_sat exp(alpha psi)
    share = rates / k_sat
    return flow, (share + (1.0 - share) * torch.exp(-alpha * grid.z)).log() / alpha


def test_gardner_columns() -> None:
    rates = torch.tensor([9e-7, 3e-7, 0.0, -1e-8, -2e-8], dtype=torch.float64)
    errors = []
    for nz in (25, 50, 100):
        flow, exact = gardner(nz, rates)
        run = flow.steady(-1.0)
        assert run.psi.shape == (1, nz, 5)
        torch.testing.assert_close(run.boundary_flux["top"][0], rates, rtol=0.0, atol=0.0)
        # what enters leaves
        torch.testing.assert_close(run.boundary_flux["bottom"][0], -rates, rtol=1e-9, atol=1e-16)
        assert float(run.mass_balance_error) < 1e-9
        errors.append((run.psi[0] - exact).abs().max().item())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.9).all(), (errors, orders)  # central differences
    assert errors[-1] < 2e-4


@pytest.mark.parametrize("name", MODES)
def test_tracy(name: str) -> None:
    """The limit of the exact transient solutions; saturation, in which they are linear, to second order."""
    tracy = Tracy(name)
    sizes = (6, 12) if tracy.domain else (12, 24)
    errors = []
    for n in sizes:
        flow, psi0 = tracy.model(n, "arithmetic")
        run = flow.steady(psi0)
        assert float(run.mass_balance_error) < 1e-9
        errors.append(tracy.errors(run.psi[0].numpy(), 1e6 * DAY)["exp_alpha_psi_max"])
    # the mild case is resolved; the others have a layer at the top of the size of the coarse cells
    assert errors[1] < (0.3 if "mild" in name else 0.6) * errors[0], errors
    assert errors[1] < 0.06, errors


def everything() -> tuple[Tensors, object]:
    """A section whose sides are all open: rain that runs off where it is wet, seepage, a river, a well, roots."""
    nz, nx = 6, 5
    grid = Grid((nz, nx), ([0.3, 0.25, 0.2, 0.2, 0.15, 0.1], [0.4, 0.5, 0.3, 0.6, 0.5]))
    leaves = {
        "k_sat": 3e-6 * torch.exp(2.0 * random(nz, nx, seed=1) - 1.0),
        "alpha": 1.5 + random(nz, nx, seed=2),
        "n": torch.tensor(1.7, dtype=torch.float64),
        "ratio": torch.tensor(2.5, dtype=torch.float64),
        "rain": 2e-5 * torch.tensor([1.0, 0.9, 0.0, 0.01, 0.02], dtype=torch.float64),
        "pet": torch.tensor([0.0, 0.0, 2e-5, 0.0, 1e-8], dtype=torch.float64),
        "share": torch.tensor([0.9, 0.7, 0.5, 0.3], dtype=torch.float64),
        "psi_min": torch.tensor(-1.0, dtype=torch.float64),
        "ponding_max": torch.zeros((), dtype=torch.float64),
        "head": torch.tensor(0.55, dtype=torch.float64),
        "conductance": torch.tensor(2e-6, dtype=torch.float64),
        "well": torch.tensor(-2e-7, dtype=torch.float64),
        "source": 1e-7 * random(nz, nx, seed=6),
        "tp": 1e-7 * random(nx, seed=7),
        "h4": torch.tensor(-1.5, dtype=torch.float64),
    }

    def model(v: Tensors) -> Richards:
        share = dgpde.TabulatedStress(torch.nn.functional.pad(v["share"], (0, 1)), (-0.1, -60.0))
        stress = dgpde.Feddes(-0.02, -0.04, -0.05, -0.05, v["h4"])
        roots = dgpde.RootUptake(v["tp"], root_depth=0.9, response=stress)
        soil = dgpde.VanGenuchten(0.05, 0.4, v["alpha"], v["n"], v["k_sat"])
        return Richards(
            grid,
            soil,
            {
                "top": dgpde.Atmosphere(
                    v["rain"], v["pet"], v["psi_min"], v["ponding_max"], evaporation_response=share
                ),
                "west": dgpde.SeepageFace(),
                "east": dgpde.GeneralHead(v["head"], v["conductance"]),
            },
            [
                dgpde.Well((1, 2), v["well"]),
                dgpde.Source(v["source"]),
                dgpde.River((2, 0), v["head"], 3e-7),
                roots,
            ],
            specific_storage=1e-4,
            anisotropy=v["ratio"],
        )

    return leaves, model


def drained() -> tuple[Tensors, object]:
    """A domain with an inactive corner, drained below, with prescribed heads."""
    nz, ny, nx = 4, 3, 3
    active = torch.ones(nz, ny, nx, dtype=torch.bool)
    active[2:, 2, 2] = False
    grid = Grid((nz, ny, nx), ([0.4, 0.3, 0.2, 0.1], [1.0, 0.7, 0.9], 0.8), active=active)
    leaves = {
        "k_sat": 2e-6 * torch.exp(2.0 * random(nz, ny, nx, seed=11) - 1.0),
        "lam": torch.tensor(0.6, dtype=torch.float64),
        "psi_e": 0.1 + 0.1 * random(nz, ny, nx, seed=12),
        "q": 1.5e-6 * (0.5 + random(ny, nx, seed=13)),
        "H": torch.tensor(0.5, dtype=torch.float64),
        "psi_east": -0.5 + 0.3 * random(nz, ny, seed=14),
    }

    def model(v: Tensors) -> Richards:
        sides = {
            "top": Flux(v["q"]),
            "bottom": dgpde.FreeDrainage(),
            "west": dgpde.HydraulicHead(v["H"]),
            "east": Head(v["psi_east"]),
        }
        soil = dgpde.BrooksCorey(0.04, 0.4, v["psi_e"], v["lam"], v["k_sat"])
        return Richards(grid, soil, sides, face_mean="arithmetic")

    return leaves, model


def columns() -> tuple[Tensors, object]:
    """Three columns of the column engine's grid."""
    leaves = {
        "k_sat": torch.tensor([1e-6, 3e-6, 2e-5], dtype=torch.float64),
        "q": torch.tensor([4e-7, -1e-9, 1e-6], dtype=torch.float64),
        "psi": torch.tensor([0.0, -0.3, 0.2], dtype=torch.float64),
    }

    def model(v: Tensors) -> Richards:
        soil = dgpde.VanGenuchten(0.065, 0.41, 3.0, 1.6, v["k_sat"])
        return Richards(Grid.columns(3, [0.1] * 12), soil, {"top": Flux(v["q"]), "bottom": Head(v["psi"])})

    return leaves, model


CASES = {"section": everything, "domain": drained, "columns": columns}
PSI0 = -0.4


def outputs(run: dgpde.Solution) -> Tensors:
    return {"psi": run.psi, "theta": run.theta, "runoff": run.runoff} | run.boundary_flux


def weigh(values: Tensors) -> Tensor:
    scale = {"psi": 1.0, "theta": 10.0}
    parts = [
        scale.get(name, 1e6)
        * (value * torch.cos(torch.arange(value.numel()).double()).reshape(value.shape)).sum()
        for name, value in values.items()
    ]
    return torch.stack(parts).sum()


def by_autograd(flow: Richards, psi: Tensor) -> Tensors:
    """One differentiable Newton step at the state, through the reference."""
    start = check_start(flow.words, PSI0, [0.0, 1.0], SolveOptions(), 0.0)
    run, inputs = set_up_field(flow.words, start, SolveOptions(), "all", None)
    problem = run.problem
    psi = psi.detach().reshape(problem.shape)
    zero, pond = torch.zeros_like(psi), inputs["ponding0"].detach()
    step = Step(0, float("inf"), psi, zero, pond)
    matrix = dense(problem, jacobian(problem, {k: v.detach() for k, v in inputs.items()}, step, psi)[0])
    residual = terms(problem, inputs, step, psi, (zero, psi, pond)).residual
    psi = psi - torch.linalg.solve(matrix, residual.flatten()).reshape(psi.shape)
    found = terms(problem, inputs, step, psi, (zero, psi.detach(), pond))
    shape = flow.grid.shape
    values = {"psi": psi.reshape(1, *shape), "theta": found.theta.reshape(1, *shape)}
    values["runoff"] = found.outputs["runoff"].reshape(1, *shape[1:])
    for side in flow.grid.sides:
        faces = (1, *flow.grid.side_shape(side))
        flux = found.outputs.get(side)
        values[side] = torch.zeros(faces).double() if flux is None else flux.reshape(faces)
    return values


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_is_autograd_through_the_reference(name: str, backend: str) -> None:
    leaves, model = CASES[name]()
    leaves = {key: value.clone().requires_grad_() for key, value in leaves.items()}
    options = SolveOptions(backend=backend, linear_tolerance=1e-12)
    psi0 = torch.full(model(leaves).grid.shape, PSI0, dtype=torch.float64, requires_grad=True)
    run = model(leaves).steady(psi0, options)
    assert float(run.mass_balance_error) < 1e-9
    found = torch.autograd.grad(weigh(outputs(run)), [*leaves.values(), psi0])
    assert bool((found[-1] == 0.0).all())  # the first guess does not matter
    values = by_autograd(model(leaves), run.psi)
    torch.testing.assert_close(values["psi"].detach(), run.psi.detach(), rtol=0.0, atol=1e-9)
    expected = torch.autograd.grad(weigh(values), list(leaves.values()), allow_unused=True)
    for leaf, want, got in zip(leaves, expected, found, strict=False):
        assert want is not None, leaf
        scale = float(want.abs().max())
        assert scale > 0.0, leaf
        # both are exact to the linear solves
        torch.testing.assert_close(
            got, want, rtol=1e-8, atol=1e-8 * scale, msg=lambda text, leaf=leaf: f"{leaf}: {text}"
        )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_the_dot_product_of_tangent_and_adjoint(name: str, backend: str) -> None:
    leaves, model = CASES[name]()
    generator = torch.Generator().manual_seed(5)
    options = SolveOptions(backend=backend, linear_tolerance=1e-12)

    def like(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)

    directions = {key: value * like(value) for key, value in leaves.items()}
    leaves = {key: value.requires_grad_() for key, value in leaves.items()}
    values = outputs(model(leaves).steady(PSI0, options))
    bars = {key: like(value) for key, value in values.items()}
    total = torch.stack([(values[key] * bar).sum() for key, bar in bars.items()]).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    adjoint = sum(
        float((g * directions[key]).sum()) for key, g in zip(leaves, gradients, strict=True) if g is not None
    )
    with forward_ad.dual_level():
        moving = {k: forward_ad.make_dual(v.detach(), directions[k]) for k, v in leaves.items()}
        moved = outputs(model(moving).steady(PSI0, options))
        dots = {key: forward_ad.unpack_dual(value).tangent for key, value in moved.items()}
    parts = [(dots[key] * bar).sum() for key, bar in bars.items() if dots[key] is not None]
    sizes = [(dots[key] * bar).abs().sum() for key, bar in bars.items() if dots[key] is not None]
    # round-off and linear solves to 1e-12 relative to the sum of magnitudes
    assert abs(float(sum(parts)) - adjoint) <= 1e-10 * float(sum(sizes))


@pytest.mark.parametrize("name", CASES)
def test_taylor_remainders_are_of_second_order(name: str) -> None:
    leaves, model = CASES[name]()
    leaves = {key: value.requires_grad_() for key, value in leaves.items() if key != "ponding_max"}
    rest = {"ponding_max": 0.0}

    def value(at: Tensors) -> Tensor:
        return weigh(outputs(model(at | rest).steady(PSI0, TIGHT)))

    gradients = torch.autograd.grad(here := value(leaves), list(leaves.values()))
    generator = torch.Generator().manual_seed(9)
    directions = {
        k: v.detach().abs() * torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for k, v in leaves.items()
    }
    slope = sum(float((g * directions[k]).sum()) for k, g in zip(leaves, gradients, strict=True))
    remainders = []
    for size in (1e-3, 5e-4, 2.5e-4):
        with torch.no_grad():
            there = value({k: v.detach() + size * directions[k] for k, v in leaves.items()})
        remainders.append(abs(float(there - here) - size * slope))
    orders = np.log2(np.array(remainders[:-1]) / remainders[1:])
    assert max(orders) > 1.8, (remainders, orders)
    assert remainders[0] < 1e-2 * abs(1e-3 * slope)


def test_a_long_run_comes_to_it() -> None:
    leaves, model = everything()
    flow = model(leaves)
    steady = flow.steady(PSI0)
    with torch.no_grad():
        run = flow.solve(PSI0, [0.0, 2000 * DAY], SolveOptions(dt_max=100 * DAY))
    torch.testing.assert_close(run.psi[-1], steady.psi[0], rtol=0.0, atol=1e-7)  # as far as it has come
    assert bool((steady.runoff[0] > 0.0).any())  # the surface switches


def test_first_guesses_do_not_matter() -> None:
    leaves, model = everything()
    flow = model(leaves)
    found = [flow.steady(psi0).psi for psi0 in (-30.0, -0.4, 2.0)]
    for psi in found[1:]:
        torch.testing.assert_close(psi, found[0], rtol=0.0, atol=1e-9)


def test_saturated_is_one_solve() -> None:
    soil = dgpde.Saturated(torch.rand(1, 9, 8, generator=torch.Generator().manual_seed(1)).double() + 0.1)
    sides = {"west": dgpde.HydraulicHead(3.0), "north": dgpde.HydraulicHead(2.0)}
    run = Richards(Grid((1, 9, 8), (2.0, 5.0, 7.0)), soil, sides).steady(0.0)
    assert int(run.stats.newton_iterations) <= 2  # one solve, and one more where that ends at its tolerance
    assert float(run.mass_balance_error) < 1e-9
    # a uniform head, where nothing drives water
    still = Richards(Grid((1, 9, 8), (2.0, 5.0, 7.0)), soil, {"west": dgpde.HydraulicHead(3.0)}).steady(0.0)
    torch.testing.assert_close(still.psi, torch.full_like(still.psi, 2.0), rtol=1e-9, atol=0.0)


LOAM = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
GRID = Grid((5, 3), (0.2, 1.0))


@pytest.mark.parametrize(
    ("flow", "psi0", "message"),
    [
        (Richards(GRID, LOAM), -1.0, "the domain is closed"),
        (Richards(GRID, LOAM, {"top": Flux(1e-7)}), -1.0, "the domain is closed"),
        (
            # hydrostatic, and nothing seeps: it may stand at any level
            Richards(GRID, LOAM, {"west": dgpde.SeepageFace()}),
            (-1.5 - GRID.z).expand(5, 3).contiguous(),
            "every flow through the sides is prescribed",
        ),
        (
            # more is drawn than the soil lets through
            Richards(GRID, LOAM, {"bottom": Head(-1.0), "top": Flux(-1e-4)}),
            -1.0,
            "no steady state was found",
        ),
    ],
    ids=["closed", "flux alone", "dry seepage", "drawn dry"],
)
def test_no_steady_state(flow: Richards, psi0: float | Tensor, message: str) -> None:
    with pytest.raises(SolveError, match=f"^{message}"):
        flow.steady(psi0, SolveOptions(max_newton=5))


def test_refusals() -> None:
    series = dgpde.Series([1e-7, 2e-7])
    with pytest.raises(ValueError, match="Series of 2 intervals"):
        Richards(GRID, LOAM, {"top": Flux(series), "bottom": Head(0.0)}).steady(-1.0)
    with pytest.raises(ValueError, match="^ponding_max must be 0"):
        Richards(GRID, LOAM, {"top": dgpde.Atmosphere(1e-6, 0.0, ponding_max=0.01)}).steady(-1.0)
    roots = [dgpde.RootUptake(transpiration=1e-8, root_depth=0.5, omega_c=0.7)]
    with pytest.raises(ValueError, match="^omega_c of RootUptake must be 1"):
        Richards(Grid.columns(2, [0.1] * 5), LOAM, {"bottom": Head(0.0)}, roots).steady(-1.0)
