"""The transport kernel against its reference, its gradients proven three times, checkpoints, hostile sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transport_cases import SORPTIONS, Built, N, outputs, relative, weighted

import dgpde
from dgpde import (
    Checkpoint,
    Freundlich,
    Grid,
    Immobile,
    InflowConcentration,
    Linear,
    Series,
    Solute,
    SolveError,
    SolveOptions,
    SteadyFlow,
    Transport,
)

SCHEMES = ("upwind", "central", "tvd")
TIMES = [0.0, 1e4, 2.5e4, 3e4]
STEPS = SolveOptions(dt_fixed=4e3)
STORM = SolveOptions(time_error=4e-3)
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")


def with_backend(options: SolveOptions, backend: str | None) -> SolveOptions:
    return SolveOptions(dt_fixed=options.dt_fixed, backend=backend)


def compare(case: Built, runs: list[dgpde.TransportSolution], value: float, gradient: float) -> None:
    """Values and every gradient of the kernel's run (first) against those of the reference (second)."""
    for found, expected in zip(outputs(runs[0]), outputs(runs[1]), strict=True):
        assert relative(found, expected) < value
    names, tensors = list(case.inputs), list(case.inputs.values())
    # the runs share the soil relation's part of the graph
    gradients = [torch.autograd.grad(weighted(outputs(run)), tensors, retain_graph=True) for run in runs]
    wrong = {
        name: relative(found, expected)
        for name, found, expected in zip(names, *gradients, strict=True)
        if not relative(found, expected) < gradient
    }
    assert not wrong


@pytest.mark.parametrize("immobile", [False, True], ids=["", "immobile"])
@pytest.mark.parametrize("sorption", SORPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_steady_flow_against_reference(scheme: str, sorption: str, immobile: bool) -> None:
    """Every input of the transport, theta and flux, with steps of two lengths; to what Newton leaves (1e-13)."""
    case = Built(seed=3)
    model, c0 = case.transport(scheme, sorption, immobile)
    flow = case.steady()
    runs = [model.solve(c0, flow, TIMES, with_backend(STEPS, name)) for name in (None, "reference")]
    compare_inputs = {name: value for name, value in case.inputs.items() if name != "source_c"}
    case.inputs = compare_inputs  # without sources it has no part
    compare(case, runs, 1e-11, 1e-10)


@pytest.mark.parametrize(
    ("scheme", "sorption", "immobile"),
    [("upwind", "linear kinetic", True), ("central", "freundlich < 1", False), ("tvd", "langmuir", True)],
)
def test_through_the_flow_against_reference(scheme: str, sorption: str, immobile: bool) -> None:
    """One backward from the solutes to the soil, the rain and the initial heads, on the flow's own varying steps."""
    case = Built(seed=5)
    model, c0 = case.transport(scheme, sorption, immobile)
    run = case.storm(STORM)
    assert bool((run.uptake > 0.0).all())
    runs = [model.solve(c0, run, options=SolveOptions(backend=name)) for name in (None, "reference")]
    # the flow's two solutions agree to their tolerances (1e-11 of the pores a step)
    compare(case, runs, 1e-9, 1e-7)


def test_taylor_through_the_flow() -> None:
    """The remainder of a step in all inputs at once falls with its square, on fixed steps of the water."""
    fixed = SolveOptions(dt_fixed=1500.0, tolerance=1e-13)

    def run(case: Built) -> Tensor:
        model, c0 = case.transport("tvd", "freundlich < 1", True)
        return weighted(outputs(model.solve(c0, case.storm(fixed))))

    case = Built(seed=7)
    value = run(case)
    names, tensors = list(case.inputs), list(case.inputs.values())
    gradient = torch.autograd.grad(value, tensors)
    random = torch.Generator().manual_seed(2)
    step = [t.detach() * (torch.rand(t.shape, dtype=torch.float64, generator=random) - 0.5) for t in tensors]
    slope = sum(float((g * s).sum()) for g, s in zip(gradient, step, strict=True))

    class Moved(Built):
        size = 0.0

        def add(self, name: str, value: object) -> Tensor:
            base = torch.as_tensor(value, dtype=torch.float64)
            tensor = base.detach() + self.size * step[names.index(name)]
            self.inputs[name] = tensor
            return tensor

    rest = []
    for size in (4e-3, 2e-3, 1e-3):
        moved = Moved(seed=7)
        moved.size = size
        rest.append(abs((run(moved) - value).item() - size * slope))
    orders = [torch.log2(torch.tensor(a / b)).item() for a, b in zip(rest, rest[1:], strict=False)]
    assert all(order == pytest.approx(2.0, abs=0.2) for order in orders), (orders, rest)


@pytest.mark.parametrize("where", ["all", "device", "host", "disk"])
def test_checkpoints_give_the_same_bits(where: str, tmp_path: object) -> None:
    """Whatever is kept and wherever, of a steady and of a transient run."""

    def gradients(checkpoint: Checkpoint | None, transient: bool) -> list[Tensor]:
        case = Built(seed=9)
        model, c0 = case.transport("tvd", "freundlich kinetic", True)
        if transient:
            done = model.solve(c0, case.storm(SolveOptions(time_error=4e-3, checkpoint=checkpoint)))
        else:
            done = model.solve(c0, case.steady(), TIMES, SolveOptions(dt_fixed=4e3, checkpoint=checkpoint))
            del case.inputs["source_c"]
        found = torch.autograd.grad(weighted(outputs(done)), list(case.inputs.values()))
        return [done.concentration.detach(), *found]

    for transient in (False, True):
        expected = gradients(None, transient)
        policies = (
            [Checkpoint("all")] if where == "all" else [Checkpoint(every=k, where=where) for k in (1, 2)]
        )
        for policy in policies:
            for found, value in zip(gradients(policy, transient), expected, strict=True):
                assert torch.equal(found, value)


@pytest.mark.parametrize("n", [1, 2, 63, 129])
@pytest.mark.parametrize("nz", [1, 2, 3, 17])
def test_sizes(n: int, nz: int) -> None:
    """A column gives the same bits in any company, gradients too; inputs that are not contiguous."""
    random = torch.Generator().manual_seed(nz)
    grid = Grid.columns(n, [0.1] * nz)
    spread = (0.01 + torch.rand(n, nz, dtype=torch.float64, generator=random)).T
    flux = -1e-6 * torch.rand(n, dtype=torch.float64, generator=random)

    def run(grid: Grid, spread: Tensor, flux: Tensor) -> tuple[Tensor, Tensor]:
        spread = (
            spread.clone().requires_grad_() if spread.is_contiguous() else spread.detach().requires_grad_()
        )
        solute = Solute("a", longitudinal_dispersivity=spread, sorption=Freundlich(1e-4, 0.8, 1500.0))
        model = Transport(grid, solute, {"top": InflowConcentration(1.0)}, "tvd")
        done = model.solve(0.0, SteadyFlow(0.3, flux), [0.0, 3e4, 5e4], SolveOptions(dt_fixed=1e4))
        (gradient,) = torch.autograd.grad(done.concentration.sum(), spread)
        return done.concentration, gradient

    whole, gradient = run(grid, spread, flux)
    assert bool(torch.isfinite(whole).all())
    for column in {0, n // 2, n - 1}:
        cut = slice(column, column + 1)
        alone, own = run(Grid.columns(1, [0.1] * nz), spread[:, cut], flux[cut])
        assert torch.equal(whole[..., cut], alone)
        assert torch.equal(gradient[:, cut], own)


def test_a_failing_column_leaves_the_others() -> None:
    """Immobile water beyond the water content of one column: it is reported, NaN after, the others are as alone."""
    grid = Grid.columns(3, [0.1] * 4)
    theta = torch.tensor([0.05, 0.35, 0.05], dtype=torch.float64)
    solute = Solute("a", immobile=Immobile(theta, 1e-5))
    model = Transport(grid, solute, {"top": InflowConcentration(1.0)})
    flow, times = SteadyFlow(0.3, -1e-6), [0.0, 1e4, 2e4]
    with pytest.raises(SolveError, match="immobile water") as caught:
        model.solve(0.0, flow, times)
    assert caught.value.columns.tolist() == [1]
    done = model.solve(0.0, flow, times, SolveOptions(on_failure="return"))
    assert done.status.tolist() == [0, 4, 0]
    assert bool(done.concentration[1:, :, 1].isnan().all())
    assert bool(torch.isfinite(done.concentration[:, :, [0, 2]]).all())
    assert torch.equal(done.concentration[:, :, 0], done.concentration[:, :, 2])
    assert float(done.failed_time[1]) == 0.0


def test_a_failed_flow_is_reported() -> None:
    """A column whose water failed: its solutes end there, with a reason of their own."""
    grid = Grid.columns(2, [0.1] * 4)
    soil = dgpde.VanGenuchten(
        theta_r=0.05, theta_s=0.4, alpha=3.0, n=1.6, k_sat=torch.tensor([1e-5, 1e-5]).double()
    )
    flux = Series(torch.tensor([[1e-7, 1e-7], [1e-7, -1e-3]]).double())
    model = dgpde.Richards(grid, soil, {"top": dgpde.Flux(flux)})
    run = model.solve(-1.0, [0.0, 1e4, 2e4], SolveOptions(on_failure="return"))
    assert run.status.tolist()[1] != 0
    done = Transport(grid, Solute("a")).solve(1.0, run, options=SolveOptions(on_failure="return"))
    assert done.status.tolist() == [0, 3]
    assert torch.equal(done.failed_time[1], run.failed_time[1])
    assert bool(torch.isfinite(done.concentration[:, :, 0]).all())
    assert bool(done.concentration[2, :, 1].isnan().all())


def test_recorded_or_not_is_the_same() -> None:
    """A run without gradients is walked again, to the same bits; its transport's own gradients too."""
    case = Built(seed=11)
    model, c0 = case.transport("upwind", "linear", False)
    tracked = model.solve(c0, case.storm(STORM))
    with torch.no_grad():
        run = Built(seed=11)
        run.transport("upwind", "linear", False)
        water = run.storm(STORM)
    assert water.psi.grad_fn is None
    for done in (model.solve(c0, water), model.solve(c0.detach(), water)):
        assert torch.equal(done.concentration, tracked.concentration)
    own = torch.autograd.grad(weighted(outputs(model.solve(c0, water))), c0)[0]
    assert torch.equal(own, torch.autograd.grad(weighted(outputs(tracked)), c0)[0])


def test_second_derivatives_raise() -> None:
    case = Built()
    model, c0 = case.transport("upwind", "none", False)
    done = model.solve(c0, case.steady(), TIMES, STEPS)
    (gradient,) = torch.autograd.grad(weighted(outputs(done)), c0, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        gradient.sum().backward()


def test_what_cannot_be_ridden_on() -> None:
    grid = Grid.columns(N, [0.1] * 4)
    soil = dgpde.VanGenuchten(theta_r=0.05, theta_s=0.4, alpha=3.0, n=1.6, k_sat=1e-5)
    model = dgpde.Richards(grid, soil)
    transport = Transport(grid, Solute("a", sorption=Linear(1e-4, 1500.0)))
    run = model.solve(-1.0, [0.0, 1e3, 2e3], progress=True)
    with pytest.raises(ValueError, match="^flow must be a run of the column engine"):
        transport.solve(0.0, run)
    with pytest.raises(ValueError, match="^backend must be one of cpu, reference"):
        transport.solve(0.0, SteadyFlow(0.3, 0.0), [0.0, 1.0], SolveOptions(backend="cuda"))
    psi0 = torch.full((4, N), -1.0, dtype=torch.float64)
    run = model.solve(psi0, [0.0, 1e3])
    psi0 += 0.1
    with pytest.raises(RuntimeError, match="^psi0 of the flow run was changed in place"):
        transport.solve(0.0, run)
