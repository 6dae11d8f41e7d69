"""Column transport in float32 against the same run in float64.

Rounding is 6e-8, and Newton leaves up to 4e-6 of a row's terms: 15 steps of it are 6e-5 of the largest concentration.
Gradients sum products of two such numbers over cells and steps, with differences of neighbours in them: 1e-3 of the
largest of each input.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transport_cases import SORPTIONS, Built, outputs, relative, weighted

import dgpde
from dgpde import (
    Checkpoint,
    Freundlich,
    Grid,
    InflowConcentration,
    Reaction,
    Solute,
    SolveOptions,
    SteadyFlow,
    Transport,
)

VALUE, GRADIENT = 6e-5, 1e-3
TIMES, STEPS = [0.0, 1e4, 2.5e4, 3e4], SolveOptions(dt_fixed=2e3)
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")
SCHEMES = ("upwind", "central", "tvd")


def solved(
    dtype: torch.dtype,
    scheme: str,
    sorption: str,
    immobile: bool,
    through: bool,
    checkpoint: Checkpoint | None,
) -> tuple[dgpde.TransportSolution, dict[str, Tensor]]:
    """A run and the gradients of all its inputs."""
    case = Built(seed=3, dtype=dtype)
    model, c0 = case.transport(scheme, sorption, immobile)
    if through:
        done = model.solve(c0, case.storm(SolveOptions(dt_fixed=5e2, checkpoint=checkpoint)))
    else:
        options = SolveOptions(dt_fixed=2e3, checkpoint=checkpoint)
        done = model.solve(c0, case.steady(), TIMES, options)
        del case.inputs["source_c"]
    grads = torch.autograd.grad(weighted(outputs(done)), list(case.inputs.values()))
    return done, dict(zip(case.inputs, grads, strict=True))


@pytest.mark.parametrize("immobile", [False, True], ids=["", "immobile"])
@pytest.mark.parametrize("sorption", SORPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_steady_flow_against_float64(scheme: str, sorption: str, immobile: bool) -> None:
    compare(scheme, sorption, immobile, False, VALUE, GRADIENT)


@pytest.mark.parametrize(
    ("scheme", "sorption", "immobile"), [("upwind", "linear", False), ("tvd", "langmuir", True)]
)
def test_through_the_flow_against_float64(scheme: str, sorption: str, immobile: bool) -> None:
    """Heads of a float32 flow carry its own tolerance, a few 1e-6 of the water: ten times those of steady water."""
    compare(scheme, sorption, immobile, True, 10 * VALUE, 10 * GRADIENT)


def compare(scheme: str, sorption: str, immobile: bool, through: bool, value: float, gradient: float) -> None:
    done, grads = solved(torch.float32, scheme, sorption, immobile, through, None)
    expected, exact = solved(torch.float64, scheme, sorption, immobile, through, None)
    for found, truth in zip(outputs(done), outputs(expected), strict=True):
        assert found.dtype == torch.float32
        assert relative(found.double(), truth) < value
    for name, truth in exact.items():
        assert grads[name].dtype == torch.float32
        assert relative(grads[name].double(), truth) < gradient, name
    # sums over cells and steps in float32, written down in float64
    assert done.mass.total.dtype == torch.float64
    assert float(done.mass_balance_error.max()) < VALUE


@pytest.mark.parametrize("through", [False, True], ids=["steady", "through the flow"])
def test_checkpoints_give_the_same_bits(through: bool) -> None:
    expected = solved(torch.float32, "upwind", "linear", False, through, None)[1]
    found = solved(torch.float32, "upwind", "linear", False, through, Checkpoint(every=1))[1]
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_constant_stays() -> None:
    """c = 1 everywhere and at the inflow: rows sum to zero up to their rounding, each step adds a few of them."""
    theta, flux = torch.full((9, 3), 0.35), torch.tensor([-2e-6, 1e-6, 0.0])
    solute = Solute("a", longitudinal_dispersivity=0.02, sorption=Freundlich(1e-4, 0.8, 1500.0))
    sides = {"top": InflowConcentration(1.0), "bottom": InflowConcentration(1.0)}
    model = Transport(Grid.columns(3, [0.1] * 9), solute, sides, "tvd")
    done = model.solve(1.0, SteadyFlow(theta, flux), TIMES, STEPS)
    assert done.concentration.dtype == torch.float32
    assert float((done.concentration - 1.0).abs().max()) < 3e-6


@pytest.mark.parametrize("n", [1, 2, 63, 129])
def test_sizes(n: int) -> None:
    """A column gives the same bits in any company, gradients too; inputs that are not contiguous."""
    random = torch.Generator().manual_seed(n)
    spread = (0.01 + torch.rand(n, 5, generator=random)).T
    flux = -1e-6 * torch.rand(n, generator=random)

    def run(columns: slice) -> list[Tensor]:
        tracked = [spread[:, columns].detach().requires_grad_(), flux[columns].clone().requires_grad_()]
        model = Transport(
            Grid.columns(tracked[1].numel(), [0.1] * 5),
            Solute("a", longitudinal_dispersivity=tracked[0]),
            {"top": InflowConcentration(1.0)},
        )
        done = model.solve(0.0, SteadyFlow(0.3, tracked[1].expand(6, -1)), TIMES, STEPS)
        return [done.concentration, torch.autograd.grad(done.concentration.sum(), tracked[0])[0]]

    whole = run(slice(None))
    for column in {0, n // 2, n - 1}:
        cut = slice(column, column + 1)
        for found, alone in zip(whole, run(cut), strict=True):
            assert torch.equal(found[..., cut], alone)


@pytest.mark.parametrize("sorption", ["linear", "freundlich < 1"])
@pytest.mark.parametrize("through", [False, True], ids=["steady", "through the flow"])
def test_dot_product(through: bool, sorption: str) -> None:
    """<J v, w> = <v, J^T w>: both sides are sums of numbers that are right to 1e-4 or better."""

    def run(*inputs: Tensor) -> Tensor:
        spread, theta, c0 = inputs
        solute = Solute("a", longitudinal_dispersivity=spread)
        if sorption != "linear":
            solute = Solute("a", longitudinal_dispersivity=spread, sorption=Freundlich(2e-4, 0.8, 1500.0))
        model = Transport(Grid.columns(3, [0.1] * 5), solute, {"top": InflowConcentration(1.0)})
        if through:
            soil = dgpde.VanGenuchten(theta_r=0.05, theta_s=theta + 0.1, alpha=3.0, n=1.6, k_sat=1e-5)
            rain = dgpde.Flux(torch.full((3,), 1e-6))
            flow = dgpde.Richards(Grid.columns(3, [0.1] * 5), soil, {"top": rain})
            return model.solve(c0, flow.solve(-1.0, TIMES, STEPS)).concentration
        return model.solve(c0, SteadyFlow(theta, torch.full((6, 3), -1e-6)), TIMES, STEPS).concentration

    random = torch.Generator().manual_seed(4)
    values = [
        0.02 + 0.01 * torch.rand(5, 3, generator=random),
        0.3 + 0.05 * torch.rand(5, 3, generator=random),
    ]
    values.append(0.5 + torch.rand(5, 3, generator=random))
    moves = [0.1 * value * torch.rand(5, 3, generator=random) for value in values]
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(x, v) for x, v in zip(values, moves, strict=True)]
        pushed = torch.autograd.forward_ad.unpack_dual(run(*duals)).tangent
    assert pushed is not None and pushed.dtype == torch.float32
    tracked = [value.clone().requires_grad_() for value in values]
    done = run(*tracked)
    cotangent = torch.rand(done.shape, generator=random)
    pulled = torch.autograd.grad(done, tracked, cotangent)
    left = float((pushed.double() * cotangent).sum())
    right = sum(float((g.double() * v).sum()) for g, v in zip(pulled, moves, strict=True))
    assert abs(left - right) < 1e-4 * abs(left)


def test_what_needs_float64() -> None:
    grid, flow = Grid.columns(2, [0.1] * 4), SteadyFlow(torch.full((4, 2), 0.3), 0.0)
    with pytest.raises(ValueError, match="^backend 'reference' computes in float64"):
        Transport(grid, Solute("a")).solve(0.0, flow, TIMES, SolveOptions(backend="reference"))
    reaction = Reaction(lambda c, theta, features: -1e-6 * c)
    with pytest.raises(ValueError, match="float32"):
        Transport(grid, Solute("a"), reaction=reaction).solve(0.0, flow, TIMES, STEPS)
