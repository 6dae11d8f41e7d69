"""Learned responses of root uptake: limits, what they cost in exactness, gradients to knots, weights and features.

The kernels' part has its three proofs in test_gradients.py, in the cases named "tabulated uptake".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_problem import STRESS_KNOTS, stress_table
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde import Feddes, NeuralStress, RootUptake, Series, TabulatedStress
from dgpde.kernels.column_flow.reference_responses import feddes, tabulated_response

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

DAY = 86400.0
PRIOR = (-0.1, -0.25, -2.0, -60.0)
TIMES = torch.tensor([0.0, 1.0, 1.5, 4.0], dtype=torch.float64) * DAY
#: Steps that vary from interval to interval and do not depend on the inputs.
STEPS = dgpde.SolveOptions(dt_fixed=0.4 * DAY, tolerance=1e-13, max_newton=60)


def solve(
    response: Any,
    n: int = 3,
    options: dgpde.SolveOptions = STEPS,
    dtype: torch.dtype = torch.float64,
    evaporation: Any = None,
) -> dgpde.Solution:
    """Columns that dry at different rates under roots whose depth grows."""
    demand = torch.linspace(0.6, 1.4, n, dtype=dtype) * 8e-8
    depth = torch.tensor([0.3, 0.4, 0.45], dtype=dtype)
    alpha = torch.linspace(3.0, 5.0, n, dtype=dtype)
    roots = RootUptake(demand, root_depth=Series(depth), response=response, omega_c=0.7)
    flow = dgpde.Richards(
        dgpde.Grid.columns(n=n, dz=[0.06] * 9),
        dgpde.VanGenuchten(0.05, 0.4, alpha, 1.6, torch.full((n,), 4e-6, dtype=dtype)),
        {"top": dgpde.Atmosphere(0.0, 1e-8, evaporation_response=evaporation), "bottom": dgpde.NoFlow()},
        [roots],
    )
    profile = torch.linspace(-0.2, -6.0, 9, dtype=dtype)[:, None]
    return flow.solve(profile, TIMES, options)


def shaken(size: float, prior: tuple[float, ...] = PRIOR, **arguments: Any) -> NeuralStress:
    """A network whose weights are not those at which it begins."""
    net = NeuralStress(prior, seed=2, units=4, **arguments)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return net


def numbers(module: torch.nn.Module) -> list[Tensor]:
    """The weights; what belongs to features is empty where there are none."""
    return [weight for weight in module.parameters() if weight.numel() > 0]


# ---- curves --------------------------------------------------------------------------------------------------------


def test_a_table_stays_between_the_values_of_its_knots_and_has_no_jump() -> None:
    table = stress_table(2)
    first, spacing = STRESS_KNOTS
    x = first + spacing * torch.linspace(0.0, 11.0, 11 * 64 + 1, dtype=torch.float64)
    a = tabulated_response(-torch.exp(x)[:, None].expand(-1, 2), table, STRESS_KNOTS)
    for knot in range(11):
        part, ends = a[64 * knot : 64 * knot + 65], table[knot : knot + 2, 0]
        # round-off of the cubic
        assert bool((part >= ends.amin(0) - 1e-15).all()) and bool((part <= ends.amax(0) + 1e-15).all())
    slope = a.diff(dim=0) / (spacing / 64)
    # a jump of the slope at a knot would not shrink with the distance of the points: 3 knots' worth of curvature is
    # 6 secants, of which a 64th is seen here
    assert slope.diff(dim=0).abs().max() < 6.0 * table[:, 0].diff(dim=0).abs().max() / spacing / 64 * 2.0
    beyond = tabulated_response(torch.tensor([[0.5, -0.01], [-9.0, -1e6]]).double(), table, STRESS_KNOTS)
    assert bool((beyond == 0.0).all())


@pytest.mark.parametrize("size", [0.3, 30.0, 3e3])
def test_limits_hold_for_any_weights(size: float) -> None:
    net = shaken(size, features=[torch.linspace(-1.0, 1.0, 5).double(), 0.4])
    psi = -torch.logspace(-4, 4, 400, dtype=torch.float64)
    a = net(psi)
    assert a.shape == (5, 400) and bool(((a >= 0.0) & (a <= 1.0)).all())
    outside = (psi >= PRIOR[0]) | (psi <= PRIOR[3])
    assert bool((a[:, outside] == 0.0).all()) and bool((a[:, ~outside] > 0.0).any())
    baked = net.baked().values
    assert bool((baked[:, [0, -1]] == 0.0).all())
    gradient = torch.autograd.grad(a.sum(), numbers(net))
    assert all(bool(torch.isfinite(g).all()) for g in gradient)


@pytest.mark.parametrize("size", [0.3, 30.0, 3e3])
def test_limits_of_two_heads_hold_for_any_weights(size: float) -> None:
    net = shaken(size, prior=(-0.05, -100.0))
    psi = -torch.logspace(-4, 4, 400, dtype=torch.float64)
    a = net(psi)[0]
    assert bool(((a >= 0.0) & (a <= 1.0)).all())
    assert bool((a[psi >= -0.05] == 1.0).all()) and bool((a[psi <= -100.0] == 0.0).all())
    assert net.baked().values[0, 0] == 1.0 and net.baked().values[0, -1] == 0.0
    gradient = torch.autograd.grad(a.sum(), numbers(net))
    assert all(bool(torch.isfinite(g).all()) for g in gradient)


def test_evaporation_follows_its_response() -> None:
    """Of a column so flat that its one cell has the head of the surface."""
    top = dgpde.Atmosphere(
        0.0, 2e-8, psi_min=-1e4, evaporation_response=TabulatedStress(RAMP.flip(0), (-0.1, -60.0))
    )
    grid = dgpde.Grid.columns(n=2, dz=[0.02])
    soil = dgpde.VanGenuchten(0.05, 0.4, 3.0, 1.5, 4e-6)
    start = torch.tensor([[-0.05, -30.0]], dtype=torch.float64)
    run = dgpde.Richards(grid, soil, {"top": top}).solve(
        start, [0.0, 60.0], dgpde.SolveOptions(dt_fixed=60.0)
    )
    table = TabulatedStress(RAMP.flip(0), (-0.1, -60.0))
    share = tabulated_response(run.psi[-1], table.table(_frame(2), "table"), table.knots)[0]
    assert run.evaporation is not None and share[0] == 1.0 and 0.0 < float(share[1]) < 0.3
    # what the balance of a minute's water in 2 cm leaves of 2e-8 m/s
    torch.testing.assert_close(run.evaporation[0], 2e-8 * share, rtol=1e-6, atol=0.0)


def test_an_untrained_response_is_its_prior() -> None:
    psi = -torch.logspace(-3, 3, 200, dtype=torch.float64)
    heads = [torch.tensor(h, dtype=torch.float64) for h in PRIOR]
    expected = 0.98 * feddes(psi, *heads)
    # logit and its inverse near 0.98 lose two digits
    torch.testing.assert_close(NeuralStress(PRIOR, seed=1)(psi)[0], expected, rtol=1e-13, atol=1e-15)
    table = TabulatedStress(torch.cat([torch.zeros(1), torch.ones(6), torch.zeros(1)]), (-0.1, -60.0))
    assert float(solve(table).uptake.sum()) > 0.0


def test_a_fine_table_is_feddes() -> None:
    knots = 2000
    psi = -torch.exp(torch.linspace(math.log(0.1), math.log(60.0), knots, dtype=torch.float64))
    values = feddes(psi, *(torch.tensor(h, dtype=torch.float64) for h in PRIOR))
    values[0] = values[-1] = 0.0
    run = solve(TabulatedStress(values, (PRIOR[0], PRIOR[3])))
    exact = solve(Feddes(PRIOR[0], PRIOR[1], PRIOR[2], PRIOR[2], PRIOR[3]))
    assert float(exact.uptake.min() / exact.uptake.max()) < 0.7, "the columns are to be under stress"
    # the corners of the trapezoid fall between knots, 0.003 in ln h apart
    torch.testing.assert_close(run.uptake, exact.uptake, rtol=1e-4, atol=0.0)


def test_the_error_of_a_baked_table_falls_with_its_knots() -> None:
    errors = []
    for knots in (48, 96, 192):
        net = shaken(0.5, n_knots=knots)
        table = net.baked()
        first, spacing = table.knots
        psi = -torch.exp(first + spacing * (torch.arange(knots - 1).double() + 0.5))
        rows = table.values.detach()[0]
        expected = net(psi)[0].detach()
        inputs = table.table(_frame(1), "table").detach()
        errors.append(
            float((tabulated_response(psi[:, None], inputs, table.knots)[:, 0] - expected).abs().max())
        )
        assert rows.shape == (knots,)
    # the corners of the prior bound the order: 1
    assert errors[0] < 0.05 and errors[2] < 0.5 * errors[0], errors


def _frame(n: int) -> Any:
    from dgpde.frame import Frame

    return Frame(dgpde.Grid.columns(n=n, dz=[0.1]), 1, torch.float64, torch.device("cpu"))


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 63, 129])
def test_a_column_of_a_batch_is_the_column_alone(n: int) -> None:
    curves = torch.stack([net.baked().values[0] for net in (shaken(0.2), shaken(2.0))]).detach()
    backwards = curves.T.flip(1).T  # not contiguous, the second class first
    classes = (torch.arange(n) // 2 + 1) % 2
    together = solve(TabulatedStress(curves, (-0.1, -60.0), classes), n)
    swapped = solve(TabulatedStress(backwards, (-0.1, -60.0), 1 - classes), n)
    assert torch.equal(together.psi, swapped.psi)
    for kind in (0, 1):
        own = classes == kind
        alone = solve(TabulatedStress(curves[kind], (-0.1, -60.0)), n)
        assert torch.equal(together.uptake[:, own], alone.uptake[:, own])


def test_single_precision() -> None:
    net = shaken(0.3)
    double, single = solve(net), solve(net.float(), dtype=torch.float32)
    assert single.psi.dtype == torch.float32
    # 24 bits through some tens of steps
    torch.testing.assert_close(single.uptake.double(), double.uptake, rtol=2e-4, atol=1e-12)


class Run(torch.nn.Module):
    """A run as a function of a network's weights, for torch.func."""

    def __init__(self, net: NeuralStress, n: int) -> None:
        super().__init__()
        self.net, self.n = net, n
        self.surface = shaken(0.4, prior=(-0.05, -100.0))

    def forward(self, options: dgpde.SolveOptions = STEPS) -> Tensor:
        run = solve(self.net, self.n, options, evaporation=self.surface)
        draw = torch.Generator().manual_seed(4)
        assert run.evaporation is not None
        parts = (run.theta, run.uptake / 8e-8, run.evaporation / 1e-8)
        weighted = [(p * torch.randn(p.shape, generator=draw, dtype=torch.float64)).sum() for p in parts]
        return torch.stack(weighted).sum()


def features(n: int) -> list[Tensor | float]:
    return [torch.linspace(-1.0, 0.8, n, dtype=torch.float64).requires_grad_(), 0.3]


def test_weights_and_features_against_autograd_through_the_reference() -> None:
    given = features(3)
    net = shaken(0.4, features=given)
    run = Run(net, 3)
    at = [*numbers(run), given[0]]
    expected = torch.autograd.grad(run(dgpde.SolveOptions(dt_fixed=0.4 * DAY, backend="reference")), at)
    for options in (
        STEPS,
        dgpde.SolveOptions(
            dt_fixed=0.4 * DAY, tolerance=1e-13, max_newton=60, checkpoint=dgpde.Checkpoint(every=2)
        ),
    ):
        found = torch.autograd.grad(run(options), at)
        for gradient, truth in zip(found, expected, strict=True):
            assert float(truth.norm()) > 0.0
            assert float((gradient - truth).norm()) <= 1e-9 * float(truth.norm())


def test_weights_taylor_and_dot_product() -> None:
    net = shaken(0.4, features=features(3))
    run = Run(net, 3)
    names = [name for name, weight in run.named_parameters() if weight.numel() > 0]
    at = {name: run.get_parameter(name).detach().clone().requires_grad_() for name in names}
    draw = torch.Generator().manual_seed(8)
    v = {name: torch.randn(at[name].shape, generator=draw, dtype=torch.float64) for name in names}
    value = torch.func.functional_call(run, at, ())
    gradient = dict(zip(names, torch.autograd.grad(value, list(at.values())), strict=True))
    backward = float(sum((gradient[name] * v[name]).sum() for name in names))
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(at[name].detach(), v[name]) for name in names}
        forward = float(forward_ad.unpack_dual(torch.func.functional_call(run, duals, ())).tangent.detach())
    assert abs(forward - backward) <= 1e-11 * abs(backward)

    def remainder(size: float) -> float:
        moved = {name: at[name].detach() + size * v[name] for name in names}
        return abs(float((torch.func.functional_call(run, moved, ()) - value).detach()) - size * backward)

    order = math.log2(remainder(4e-3) / remainder(1e-3)) / 2.0
    assert order == pytest.approx(2.0, abs=0.1)


def test_solutes_ride_on_responses() -> None:
    """A salt that neither roots nor air take: its mass, and the gradient of its concentration to the weights."""
    net, surface = shaken(0.4), shaken(0.4, prior=(-0.05, -100.0))
    run = solve(net, 2, evaporation=surface)
    salt = dgpde.Solute("salt", uptake="excluded")
    carried = dgpde.Transport(run.grid, salt).solve(1.0, run)
    dz = run.grid.dz[:, None]
    held = ((carried.concentration * run.theta).squeeze() * dz).sum(-2)
    torch.testing.assert_close(held[-1], held[0], rtol=1e-9, atol=0.0)  # of a closed column
    weights = [*numbers(net), *numbers(surface)]
    start = [weight.detach().clone() for weight in weights]
    direction = [
        torch.randn(w.shape, generator=torch.Generator().manual_seed(6), dtype=w.dtype) for w in weights
    ]

    def top(size: float) -> Tensor:
        with torch.no_grad():
            for weight, first, way in zip(weights, start, direction, strict=True):
                weight.copy_(first + size * way)
        moved = solve(net, 2, evaporation=surface)
        return dgpde.Transport(run.grid, salt).solve(1.0, moved).concentration[-1, -3:].sum()

    gradient = torch.autograd.grad(top(0.0), weights)
    slope = float(sum((g * way).sum() for g, way in zip(gradient, direction, strict=True)))
    with torch.no_grad():
        change = float(top(1e-4) - top(-1e-4)) / 2e-4
    # central differences of a curved function
    assert slope == pytest.approx(change, rel=1e-5) and slope != 0.0


def test_a_response_is_learned_from_moisture() -> None:
    with torch.no_grad():
        observed = solve(shaken(0.8), 4).theta
    net = NeuralStress(PRIOR, seed=5, units=6)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (solve(net, 4).theta - observed).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0], losses


# ---- wrong arguments -----------------------------------------------------------------------------------------------

RAMP = torch.linspace(0.0, 1.0, 30, dtype=torch.float64)
FLAT = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
RANGE = (-0.1, -60.0)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "integers": (
        lambda: TabulatedStress(FLAT.long(), RANGE),
        TypeError,
        r"^values is a tensor of torch.int64",
    ),
    "shape": (lambda: TabulatedStress(FLAT[:3], RANGE), ValueError, r"^values has the shape \[3\]"),
    "above 1": (lambda: TabulatedStress(2.0 * FLAT, RANGE), ValueError, r"^values must be <= 1"),
    "below 0": (lambda: TabulatedStress(FLAT - 0.1, RANGE), ValueError, r"^values must be >= 0"),
    "nan": (
        lambda: TabulatedStress(FLAT / 0.0, RANGE),
        ValueError,
        r"^values has values that are not finite",
    ),
    "not wilting": (
        lambda: TabulatedStress(FLAT.clamp(min=0.1), RANGE),
        ValueError,
        r"^values must be 0 at the",
    ),
    "range": (lambda: TabulatedStress(FLAT, (-60.0, -0.1)), ValueError, r"^psi_range"),
    "no classes": (lambda: TabulatedStress(FLAT.expand(2, 4), RANGE), ValueError, r"^classes are needed"),
    "classes type": (lambda: TabulatedStress(FLAT, RANGE, FLAT), TypeError, r"^classes must be an integer"),
    "classes values": (
        lambda: TabulatedStress(FLAT, RANGE, torch.tensor([0, 1])),
        ValueError,
        r"^classes must lie in \[0, 0\]",
    ),
    "classes count": (
        lambda: solve(TabulatedStress(FLAT, RANGE, torch.zeros(2, dtype=torch.int64))),
        ValueError,
        r"^classes of TabulatedStress has the shape \[2\], it must be \[3\]",
    ),
    "prior": (lambda: NeuralStress((-0.1, -0.25, -0.2, -60.0)), ValueError, r"^prior must be four heads"),
    "prior count": (lambda: NeuralStress((-0.1, -1.0, -60.0)), ValueError, r"^prior must be four heads"),
    "units": (lambda: NeuralStress(PRIOR, units=0), ValueError, r"^units must be an integer"),
    "knots": (lambda: NeuralStress(PRIOR, n_knots=3), ValueError, r"^n_knots must be an integer"),
    "dtype": (lambda: NeuralStress(PRIOR, dtype=torch.int64), ValueError, r"^dtype must be"),
    "features": (lambda: NeuralStress(PRIOR, FLAT), TypeError, r"^features must be a list"),  # type: ignore[arg-type]
    "feature shape": (
        lambda: solve(NeuralStress(PRIOR, [FLAT])),
        ValueError,
        r"^features\[0\] of NeuralStress is a tensor of the shape \[4\]",
    ),
    "feature series": (
        lambda: solve(NeuralStress(PRIOR, [Series(FLAT[:3])])),  # type: ignore[list-item]
        ValueError,
        r"^features\[0\] of NeuralStress cannot vary in time",
    ),
    "weights": (
        lambda: solve(shaken(math.inf)),
        ValueError,
        r"^\w+ of NeuralStress has values that are not finite",
    ),
    "evaporation": (
        lambda: dgpde.Atmosphere(0.0, 1e-8, evaporation_response=Feddes()),  # type: ignore[arg-type]
        TypeError,
        r"^evaporation_response must be a TabulatedStress",
    ),
    "response": (lambda: RootUptake(1e-8, root_depth=1.0, response=FLAT), TypeError, r"^response must be"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        make()
