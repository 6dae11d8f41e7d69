"""Forward mode of transport in columns: against the adjoint, differences and itself, with and without the flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from transport_cases import SORPTIONS, Built, outputs

import dgpde
from dgpde import (
    Checkpoint,
    Freundlich,
    Grid,
    InflowConcentration,
    Solute,
    SolveOptions,
    SteadyFlow,
    Transport,
)

SCHEMES = ("upwind", "central", "tvd")
TIMES = [0.0, 1e4, 2.5e4, 3e4]
STEPS = SolveOptions(dt_fixed=4e3)
STORM = SolveOptions(time_error=4e-3)
pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")


class Dual(Built):
    """Every input moves in a direction of its own, as large as it is; `only`: the named ones."""

    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.directions: dict[str, Tensor] = {}

    def add(self, name: str, value: object) -> Tensor:
        base = torch.as_tensor(value, dtype=torch.float64).clone()
        random = torch.Generator().manual_seed(len(self.directions) + 100)
        direction = base * (torch.rand(base.shape, dtype=torch.float64, generator=random) - 0.5)
        if self.only and name not in self.only:
            direction = torch.zeros_like(base)
        self.directions[name] = direction
        still = bool(self.only) and name not in self.only
        self.inputs[name] = base if still else forward_ad.make_dual(base, direction)
        return self.inputs[name]


def pushed(values: list[Tensor]) -> list[Tensor]:
    found = [forward_ad.unpack_dual(value).tangent for value in values]
    assert all(tangent is not None for tangent in found)
    return found  # type: ignore[return-value]


def solve(
    case: Built, scheme: str, sorption: str, immobile: bool, options: SolveOptions | None
) -> list[Tensor]:
    """In steady water with `STEPS`, or with `options` through a flow of varying steps."""
    model, c0 = case.transport(scheme, sorption, immobile)
    if options is None:
        return outputs(model.solve(c0, case.steady(), TIMES, STEPS))
    return outputs(model.solve(c0, case.storm(options)))


def dot_products(
    scheme: str, sorption: str, immobile: bool, options: SolveOptions | None
) -> tuple[float, float]:
    """<w, J v> and <J^T w, v> for random w and v."""
    with forward_ad.dual_level():
        case = Dual(seed=3)
        tangents = pushed(solve(case, scheme, sorption, immobile, options))
        directions = case.directions
    plain = Built(seed=3)
    values = solve(plain, scheme, sorption, immobile, options)
    random = torch.Generator().manual_seed(8)
    weights = [torch.randn(value.shape, dtype=torch.float64, generator=random) for value in values]
    gradients = torch.autograd.grad(
        values, list(plain.inputs.values()), weights, allow_unused=True, materialize_grads=True
    )
    forward = sum(float((w * t).sum()) for w, t in zip(weights, tangents, strict=True))
    pairs = zip(plain.inputs, gradients, strict=True)
    return forward, sum(float((gradient * directions[name]).sum()) for name, gradient in pairs)


@pytest.mark.parametrize("immobile", [False, True], ids=["", "immobile"])
@pytest.mark.parametrize("sorption", SORPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_dot_product_in_steady_water(scheme: str, sorption: str, immobile: bool) -> None:
    """Chain, limiter, sorption, both sides; exact transposes of one another up to the round-off of their solves."""
    forward, reverse = dot_products(scheme, sorption, immobile, None)
    assert forward == pytest.approx(reverse, rel=1e-11)


@pytest.mark.parametrize(
    ("scheme", "sorption", "immobile"),
    [("upwind", "linear kinetic", True), ("central", "freundlich < 1", False), ("tvd", "langmuir", True)],
)
def test_dot_product_through_the_flow(scheme: str, sorption: str, immobile: bool) -> None:
    """Soil, rain, roots, sources, specific storage and initial heads too, on the flow's own steps."""
    forward, reverse = dot_products(scheme, sorption, immobile, STORM)
    assert forward == pytest.approx(reverse, rel=1e-11)


@pytest.mark.parametrize("through", [False, True], ids=["steady", "through the flow"])
def test_taylor(through: bool) -> None:
    """What a step in all inputs at once leaves over the tangent falls with its square, in every output."""
    options = SolveOptions(dt_fixed=1500.0, tolerance=1e-13) if through else None
    case = ("tvd", "freundlich < 1", True, options)
    with forward_ad.dual_level():
        dual = Dual(seed=7)
        tangents = pushed(solve(dual, *case))
        directions = dual.directions
    values = solve(Built(seed=7), *case)

    class Moved(Built):
        size = 0.0

        def add(self, name: str, value: object) -> Tensor:
            base = torch.as_tensor(value, dtype=torch.float64).clone()
            self.inputs[name] = base + self.size * directions[name]
            return self.inputs[name]

    rest = []
    # at 4e-3 the third order still shows in the outputs whose second derivative is small
    for size in (1e-3, 5e-4, 2.5e-4):
        moved = Moved(seed=7)
        moved.size = size
        there = solve(moved, *case)
        rest.append(
            [(b - a - size * d).detach().norm() for a, b, d in zip(values, there, tangents, strict=True)]
        )
    for near, far in zip(rest[1:], rest[:-1], strict=True):
        orders = [float(torch.log2(a / b)) for a, b in zip(far, near, strict=True)]
        assert all(order == pytest.approx(2.0, abs=0.2) for order in orders), (orders, rest)


@pytest.mark.parametrize("only", [("k_sat", "rain"), ("decay", "c0")], ids=["water alone", "solutes alone"])
def test_what_does_not_move(only: tuple[str, ...]) -> None:
    """Tangents of some inputs alone are those with zeros for the others: the rest is skipped, not lost."""
    case = ("tvd", "langmuir", True, STORM)

    def tangents(whole: bool) -> list[Tensor]:
        with forward_ad.dual_level():
            dual = Dual(seed=4)
            dual.only = only
            if whole:  # duals whose tangents are zeros
                dual.add = lambda name, value: _with_zeros(dual, name, value)  # type: ignore[method-assign]
            return pushed(solve(dual, *case))

    def _with_zeros(dual: Dual, name: str, value: object) -> Tensor:
        tensor = Dual.add(dual, name, value)
        if name not in only:
            dual.inputs[name] = forward_ad.make_dual(tensor, torch.zeros_like(tensor))
        return dual.inputs[name]

    for found, expected in zip(tangents(False), tangents(True), strict=True):
        assert float(expected.abs().max()) > 0.0
        assert torch.equal(found, expected)


@pytest.mark.parametrize("through", [False, True], ids=["steady", "through the flow"])
def test_checkpoints_give_the_same_bits(through: bool) -> None:
    """Whatever is kept."""

    def tangents(checkpoint: Checkpoint | None) -> list[Tensor]:
        with forward_ad.dual_level():
            case = Dual(seed=9)
            model, c0 = case.transport("tvd", "freundlich kinetic", True)
            if through:
                run = case.storm(SolveOptions(time_error=4e-3, checkpoint=checkpoint))
                return pushed(outputs(model.solve(c0, run)))
            options = SolveOptions(dt_fixed=4e3, checkpoint=checkpoint)
            return pushed(outputs(model.solve(c0, case.steady(), TIMES, options)))

    expected = tangents(None)
    for every in (1, 2):
        for found, value in zip(tangents(Checkpoint(every=every)), expected, strict=True):
            assert torch.equal(found, value)


SIDES = (dgpde.Concentration, dgpde.InflowConcentration, dgpde.ZeroGradient, dgpde.SoluteFlux)


@pytest.mark.parametrize("flux", [2e-6, -2e-6], ids=["up", "down"])
@pytest.mark.parametrize("bottom", SIDES)
@pytest.mark.parametrize("top", SIDES)
def test_sides(top: type, bottom: type, flux: float) -> None:
    """Each kind on each side with water in and out, by the dot product."""
    grid, n = Grid.columns(3, [0.1, 0.05, 0.1, 0.2]), 3
    values = {"flux": torch.full((n,), flux).double(), "spread": torch.full((4, n), 0.03).double()}
    values |= {side: torch.linspace(0.5, 1.0, n).double() * 1e-6 for side in ("top", "bottom")}

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        ends = {
            side: kind() if kind is dgpde.ZeroGradient else kind(inputs[side] * scale)
            for side, kind in (("top", top), ("bottom", bottom))
            for scale in [1.0 if kind is dgpde.SoluteFlux else 1e6]
        }
        solute = Solute("a", longitudinal_dispersivity=inputs["spread"], diffusion=1e-9)
        model = Transport(grid, solute, ends, "tvd")
        return outputs(model.solve(0.4, SteadyFlow(0.35, inputs["flux"]), TIMES, STEPS))

    random = torch.Generator().manual_seed(1)
    v = {name: x * torch.rand(x.shape, dtype=torch.float64, generator=random) for name, x in values.items()}
    with forward_ad.dual_level():
        tangents = pushed(run({name: forward_ad.make_dual(x, v[name]) for name, x in values.items()}))
    tracked = {name: x.clone().requires_grad_() for name, x in values.items()}
    found = run(tracked)
    weights = [torch.randn(x.shape, dtype=torch.float64, generator=random) for x in found]
    gradients = torch.autograd.grad(
        found, list(tracked.values()), weights, allow_unused=True, materialize_grads=True
    )
    forward = sum(float((w * t).sum()) for w, t in zip(weights, tangents, strict=True))
    reverse = sum(float((g * v[name]).sum()) for name, g in zip(tracked, gradients, strict=True))
    assert forward == pytest.approx(reverse, rel=1e-11)


@pytest.mark.parametrize("n", [1, 2, 63, 129])
@pytest.mark.parametrize("nz", [1, 2, 17])
def test_sizes(n: int, nz: int) -> None:
    """A column moves by the same bits in any company; inputs and tangents that are not contiguous."""
    random = torch.Generator().manual_seed(nz)
    flux = -1e-6 * torch.rand(n, dtype=torch.float64, generator=random)
    spread = (0.01 + torch.rand(n, nz, dtype=torch.float64, generator=random)).T
    push = torch.rand(n, nz, dtype=torch.float64, generator=random).T

    def run(columns: slice) -> Tensor:
        grid = Grid.columns(len(range(n)[columns]), [0.1] * nz)
        with forward_ad.dual_level():
            moved = forward_ad.make_dual(spread[:, columns], push[:, columns])
            q = forward_ad.make_dual(flux[columns], flux[columns])
            solute = Solute("a", longitudinal_dispersivity=moved, sorption=Freundlich(1e-4, 0.8, 1500.0))
            model = Transport(grid, solute, {"top": InflowConcentration(1.0)}, "tvd")
            options = SolveOptions(dt_fixed=1e4)
            done = model.solve(0.0, SteadyFlow(0.3, q), [0.0, 3e4, 5e4], options)
            return pushed([done.concentration])[0]

    whole = run(slice(None))
    assert bool(
        torch.isfinite(whole).all()
    )  # clean soil at the start, where the isotherm is infinitely steep
    for column in {0, n // 2, n - 1}:
        cut = slice(column, column + 1)
        assert torch.equal(whole[..., cut], run(cut))


def test_a_failing_column_leaves_the_others() -> None:
    """A column without water that moves: the tangents of the others are as without it."""
    theta = torch.tensor([0.05, 0.35, 0.05], dtype=torch.float64)
    times = [0.0, 1e4, 2e4]

    def run(theta: Tensor) -> Tensor:
        grid = Grid.columns(theta.numel(), [0.1] * 4)
        with forward_ad.dual_level():
            moved = forward_ad.make_dual(theta, torch.ones_like(theta))
            solute = Solute("a", immobile=dgpde.Immobile(moved, 1e-5))
            model = Transport(grid, solute, {"top": InflowConcentration(1.0)})
            options = SolveOptions(on_failure="return")
            done = model.solve(0.0, SteadyFlow(0.3, -1e-6), times, options)
            return pushed([done.concentration])[0]

    assert torch.equal(run(theta)[..., [0, 2]], run(theta[[0, 2]]))


def test_second_derivatives_raise() -> None:
    """The tangent has no derivative of its own: reverse over forward says so."""
    case = Built()
    model, c0 = case.transport("upwind", "none", False)
    with forward_ad.dual_level():
        moved = forward_ad.make_dual(c0, torch.ones_like(c0))
        (tangent,) = pushed([model.solve(moved, case.steady(), TIMES, STEPS).solute_flux["top"]])
    with pytest.raises(RuntimeError, match="second derivatives"):
        tangent.sum().backward()


def test_gauss_newton_product() -> None:
    """`torch.func.jvp` and `vjp`: J^T J v of a breakthrough, symmetric and positive."""
    grid, random = Grid.columns(1, [0.1] * 6), torch.Generator().manual_seed(0)

    def model(spread: Tensor) -> Tensor:
        transport = Transport(
            grid, Solute("a", longitudinal_dispersivity=spread), {"top": InflowConcentration(1.0)}
        )
        return transport.solve(0.0, SteadyFlow(0.3, -3e-6), [0.0, 2e4, 5e4], STEPS).solute_flux["bottom"]

    spread = torch.full((6, 1), 0.05, dtype=torch.float64)
    u, v = (torch.rand(6, 1, dtype=torch.float64, generator=random) for _ in range(2))

    def product(x: Tensor) -> Tensor:
        pushed_forward = torch.func.jvp(model, (spread,), (x,))[1]
        return torch.func.vjp(model, spread)[1](pushed_forward)[0]

    assert float((u * product(v)).sum()) == pytest.approx(float((v * product(u)).sum()), rel=1e-11)
    assert float((u * product(u)).sum()) > 0.0
