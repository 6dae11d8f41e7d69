"""Solutes whose matrix does not know the state: kept factors, summed cotangents, whatever else is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transport_cases import Built, outputs, relative, weighted

import dgpde
from dgpde import (
    Checkpoint,
    Grid,
    InflowConcentration,
    Linear,
    Series,
    Solute,
    SolveOptions,
    SteadyFlow,
    Transport,
)

NZ = 7
TIMES = [0.0, 3e4, 5e4, 6e4]
STEPS = SolveOptions(dt_fixed=7e3)  # 5 of 6000 s, 3 of 6667 s, 2 of 5000 s
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")
Values = dict[str, Tensor]


def values(n: int, nz: int = NZ) -> Values:
    """Inputs of n columns, each with its own; not contiguous where they are fields."""
    random = torch.Generator().manual_seed(n)

    def cells(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(n, nz, dtype=torch.float64, generator=random)).T

    signs = torch.where(torch.arange(n) % 3 == 1, 1.0, -1.0).double()
    return {
        "spread": cells(0.01, 0.05),
        "diffusion": cells(1e-9, 3e-9),
        "decay": cells(1e-6, 3e-6),
        "k_d": cells(1e-5, 1e-4),
        "theta": cells(0.3, 0.4),
        # on every face: torch sums a number for all faces up in an order that depends on n
        "flux": (signs * (1e-6 + 1e-6 * torch.rand(n, dtype=torch.float64, generator=random))).repeat(
            nz + 1, 1
        ),
        "c0": cells(0.1, 1.0),
        "top": 1.0 + torch.rand(len(TIMES) - 1, n, dtype=torch.float64, generator=random),
    }


def run(given: Values, scheme: str, options: SolveOptions = STEPS) -> list[Tensor]:
    """One linear solute."""
    nz, n = given["theta"].shape
    solute = Solute(
        "a",
        longitudinal_dispersivity=given["spread"],
        diffusion=given["diffusion"],
        decay=given["decay"],
        sorption=Linear(given["k_d"], 1500.0),
        production=Series(given["production"]) if "production" in given else 0.0,
    )
    model = Transport(
        Grid.columns(n, [0.1] * nz), solute, {"top": InflowConcentration(Series(given["top"]))}, scheme
    )
    return outputs(model.solve(given["c0"], SteadyFlow(given["theta"], given["flux"]), TIMES, options))


def gradients(given: Values, scheme: str, only: tuple[str, ...] | None = None) -> tuple[list[Tensor], Values]:
    """Outputs, and the gradient in every input, or with `only` those in some while the others are constants."""
    names = tuple(given) if only is None else only
    tracked = {name: x.detach().requires_grad_(name in names) for name, x in given.items()}
    found = run(tracked, scheme)
    grads = torch.autograd.grad(sum(x.square().sum() for x in found), [tracked[name] for name in names])
    return [x.detach() for x in found], dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("n", [1, 2, 63, 129])
@pytest.mark.parametrize("nz", [1, 2, 17])
@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_sizes(scheme: str, nz: int, n: int) -> None:
    """A column gives the same bits in any company, gradients too."""
    given = values(n, nz)
    whole, grads = gradients(given, scheme)
    assert all(bool(torch.isfinite(x).all()) for x in (*whole, *grads.values()))
    for column in {0, n // 2, n - 1}:
        cut = slice(column, column + 1)
        alone, own = gradients({name: x[..., cut] for name, x in given.items()}, scheme)
        for found, expected in zip(whole, alone, strict=True):
            assert torch.equal(found[..., cut], expected)
        for name, expected in own.items():
            assert torch.equal(grads[name][..., cut], expected), name


@pytest.mark.parametrize("produced", [False, True], ids=["", "produced"])
@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_equal_steps_against_reference(scheme: str, produced: bool) -> None:
    """Steps that share their factors, walked up and down in turn, in a whole pack of columns and a part of one."""
    given = values(9, 17)
    if produced:
        given["production"] = 1e-6 * (
            1.0 + torch.arange(3 * 17 * 9).reshape(3, 17, 9).double().remainder(7.0)
        )

    def found(backend: str | None) -> list[Tensor]:
        tracked = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
        done = run(tracked, scheme, SolveOptions(dt_fixed=1e3, backend=backend))
        return [*done, *torch.autograd.grad(weighted(done), list(tracked.values()))]

    for value, expected in zip(found(None), found("reference"), strict=True):
        # sums of 60 steps and differences of neighbours in them: some thousand roundings of the largest
        assert relative(value, expected) < 1e-12


@pytest.mark.parametrize("name", list(values(1)))
def test_one_gradient_alone(name: str) -> None:
    """What nobody asks for is left out, and changes nothing that is."""
    given = values(9)
    whole = gradients(given, "upwind")[1]
    alone = gradients(given, "upwind", (name,))[1]
    assert torch.equal(alone[name], whole[name])


@pytest.mark.parametrize("transient", [False, True], ids=["steady", "through the flow"])
@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_checkpoints_give_the_same_bits(scheme: str, transient: bool) -> None:
    """A chain of plain solutes: sums are made interval by interval, however the run is cut."""

    def found(checkpoint: Checkpoint | None) -> list[Tensor]:
        case = Built(seed=9)
        model, c0 = case.transport(scheme, "linear", False)
        if transient:
            done = model.solve(c0, case.storm(SolveOptions(time_error=4e-3, checkpoint=checkpoint)))
        else:
            options = SolveOptions(dt_fixed=1e3, checkpoint=checkpoint)
            done = model.solve(c0, case.steady(), [0.0, 1e4, 2.5e4, 3e4], options)
            del case.inputs["source_c"]
        return [*torch.autograd.grad(weighted(outputs(done)), list(case.inputs.values()))]

    expected = found(None)
    for every in (1, 2):
        for gradient, value in zip(found(Checkpoint(every=every)), expected, strict=True):
            assert torch.equal(gradient, value)


@pytest.mark.parametrize("immobile", [False, True], ids=["", "immobile"])
def test_columns_that_take_other_numbers_of_steps(immobile: bool) -> None:
    """Lanes whose steps of a segment are over keep what they carry until the segment before it."""
    grid = Grid.columns(5, [0.05] * 6)
    rain = Series(torch.tensor([[5e-6, 0.0, 1e-6, 3e-6, 0.0], [0.0, 5e-6, 0.0, 1e-6, 0.0]]).double())

    def found(checkpoint: Checkpoint | None) -> list[Tensor]:
        k_sat = torch.linspace(1e-5, 3e-5, 5).double().requires_grad_()
        spread = torch.full((6, 5), 0.02, dtype=torch.float64, requires_grad=True)
        soil = dgpde.VanGenuchten(theta_r=0.05, theta_s=0.4, alpha=3.0, n=1.6, k_sat=k_sat)
        flow = dgpde.Richards(grid, soil, {"top": dgpde.Flux(rain), "bottom": dgpde.FreeDrainage()})
        water = flow.solve(
            -1.0, [0.0, 6e3, 1.2e4], SolveOptions(time_error=1e-3, record_steps=True, checkpoint=checkpoint)
        )
        steps = water.stats.steps
        assert int(steps.max()) > int(steps.min()) + 3
        still = dgpde.Immobile(0.03, 1e-5) if immobile else None
        solute = Solute("a", longitudinal_dispersivity=spread, immobile=still)
        done = Transport(grid, solute, {"top": InflowConcentration(1.0)}).solve(0.2, water)
        return [*torch.autograd.grad(done.concentration.square().sum(), [k_sat, spread])]

    for gradient, value in zip(found(Checkpoint(every=1)), found(None), strict=True):
        assert torch.equal(gradient, value)


def test_elimination_that_fills_in() -> None:
    """Central differences at a Courant number of 60, whose pivots alternate: the residuals of the multipliers are
    looked at, and the gradients are those of the reference (to the condition of the system, some hundreds)."""
    given = values(3)
    given["spread"] = torch.zeros_like(given["spread"])
    given["flux"] = 60.0 * given["flux"]

    def found(backend: str | None) -> list[Tensor]:
        tracked = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
        options = SolveOptions(dt_fixed=7e3, backend=backend)
        done = run(tracked, "central", options)
        return [*done, *torch.autograd.grad(weighted(done), list(tracked.values()))]

    for value, expected in zip(found(None), found("reference"), strict=True):
        assert relative(value, expected) < 1e-10
