"""Reactions between solutes: what must hold of their answers, and what bad input says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import (
    Freundlich,
    Grid,
    InflowConcentration,
    Monod,
    Reaction,
    Series,
    Solute,
    SolveOptions,
    SteadyFlow,
    Transport,
)

TIGHT = SolveOptions(linear_tolerance=1e-12)
TIMES = [0.0, 2000.0, 4000.0, 9000.0]


def section(nz: int = 5, nx: int = 7) -> tuple[Grid, SteadyFlow]:
    """Uneven cells with water that moves along x at different speeds."""
    dx = 0.05 + 0.1 * torch.rand(nx, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    speed = torch.linspace(5e-6, 2e-5, nz, dtype=torch.float64)[:, None].expand(nz, nx + 1)
    return Grid((nz, nx), (0.1, dx)), SteadyFlow(0.3, {"x": speed, "z": 0.0})


def batch() -> tuple[Grid, SteadyFlow]:
    """One cell in which nothing moves."""
    return Grid.columns(1, [1.0]), SteadyFlow(0.4, 0.0)


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_a_linear_rate_is_decay(scheme: str) -> None:
    k = 3e-5
    grid, flow = section()
    sides = {"west": InflowConcentration(1.0)}
    rate = Reaction(lambda c, theta, features: -k * theta * c)
    decay = Transport(grid, Solute("a", 0.05, 0.01, 1e-9, decay=k), sides, scheme)
    reacts = Transport(grid, Solute("a", 0.05, 0.01, 1e-9), sides, scheme, reaction=rate)
    one, two = (transport.solve(0.1, flow, TIMES, TIGHT) for transport in (decay, reacts))
    assert float((one.concentration - two.concentration).abs().max()) < 1e-12
    assert float(two.mass_balance_error) < 1e-10
    assert two.mass.total.shape == one.mass.total.shape


def test_a_linear_rate_is_a_chain_in_a_transient_flow() -> None:
    k = 2e-5
    grid = Grid.columns(3, [0.1] * 6)
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, torch.tensor([1e-5, 3e-6, 2e-5]).double())
    sides = {"top": dgpde.Flux(Series([4e-6, 0.0])), "bottom": dgpde.FreeDrainage()}
    flow = dgpde.Richards(grid, soil, sides, engine="field").solve(-0.8, [0.0, 3600.0, 10800.0])
    top = {"top": InflowConcentration(1.0)}
    chain = [Solute("a", 0.03, decay=k), Solute("b", 0.03, parent="a", yield_=0.7, decay=k)]
    plain = [Solute("a", 0.03), Solute("b", 0.03)]

    def rate(c: Tensor, theta: Tensor, features: None) -> Tensor:
        lost = k * theta * c
        return torch.stack([-lost[0], 0.7 * lost[0] - lost[1]])

    one = Transport(grid, chain, top).solve(0.0, flow, options=TIGHT)
    two = Transport(grid, plain, top, reaction=Reaction(rate)).solve(0.0, flow, options=TIGHT)
    assert float((one.concentration - two.concentration).abs().max()) < 1e-11


def test_what_one_loses_the_other_gains() -> None:
    grid, flow = section()
    monod = Monod(1e-4, {"a": 0.2}, {"a": -1.0, "b": 1.0})
    solutes = [Solute("a", 0.05, 0.01), Solute("b", 0.05, 0.01)]
    sides = {"a": {"west": InflowConcentration(1.0)}}
    one = Transport(grid, solutes, sides, reaction=Reaction(monod)).solve(0.1, flow, TIMES, TIGHT)
    two = Transport(grid, solutes, sides).solve(0.1, flow, TIMES, TIGHT)
    assert float((one.concentration[:, 0] - two.concentration[:, 0]).abs().max()) > 0.1
    assert float((one.concentration - two.concentration).sum(1).abs().max()) < 1e-10
    assert float(one.mass_balance_error.max()) < 1e-10


def _truth(monod: Monod, c: dict[str, Tensor], end: float, count: int = 500) -> dict[str, Tensor]:
    """The classical Runge-Kutta method in a cell; of 4th order, so exact here to 1e-12."""
    h = end / count

    def slope(at: dict[str, Tensor]) -> dict[str, Tensor]:
        made = monod(at, 1.0)
        return {name: made.get(name, torch.zeros_like(value)) for name, value in at.items()}

    def moved(by: dict[str, Tensor], size: float) -> dict[str, Tensor]:
        return {name: value + size * by[name] for name, value in c.items()}

    for _ in range(count):
        k1 = slope(c)
        k2 = slope(moved(k1, h / 2))
        k3 = slope(moved(k2, h / 2))
        k4 = slope(moved(k3, h))
        c = {n: v + h / 6 * (k1[n] + 2 * k2[n] + 2 * k3[n] + k4[n]) for n, v in c.items()}
    return c


def test_monod_is_michaelis_and_menten_in_a_cell() -> None:
    # K ln(c0/c) + c0 - c = k t, the integral of dc/dt = -k c/(K + c)
    grid, flow = batch()
    k, half, end = 1e-4, 0.2, 6000.0
    transport = Transport(grid, Solute("a"), reaction=Reaction(Monod(k, {"a": half}, {"a": -1.0})))
    found = []
    for steps in (40, 80):
        done = transport.solve(0.6, flow, [0.0, end], SolveOptions(dt_fixed=end / steps))
        c = float(done.concentration[-1])
        found.append(half * math.log(0.6 / c) + 0.6 - c - k * end)
    assert abs(found[1]) < 1e-2  # of 0.6, and of first order in the step
    assert abs(found[0] / found[1] - 2.0) < 0.1


def test_dual_monod_with_biomass_follows_its_equations_to_first_order() -> None:
    names = ("acetate", "nitrate", "biomass", "oxygen")
    monod = Monod(
        5e-4,
        {"acetate": 0.1, "nitrate": 0.05},
        {"acetate": -1.0, "nitrate": -0.6, "biomass": 0.2},
        biomass="biomass",
        inhibition={"oxygen": 0.01},
    )
    start = torch.tensor([0.8, 0.4, 0.1, 0.004], dtype=torch.float64)
    truth = _truth(monod, dict(zip(names, start, strict=True)), 2e4)
    wanted = torch.stack([truth[name] for name in names])
    # the batch cell changes: donor and acceptor are used, biomass has grown
    assert float(wanted[0]) < 0.5
    assert float(wanted[2]) > 0.15
    grid, flow = batch()
    transport = Transport(grid, [Solute(name) for name in names], reaction=Reaction(monod))
    errors = []
    for steps in (20, 40, 80):
        done = transport.solve(
            start[:, None, None], flow, [0.0, 2e4], SolveOptions(dt_fixed=2e4 / steps, linear_tolerance=1e-12)
        )
        errors.append(float((done.concentration[-1, :, 0, 0] - wanted).abs().max()))
    assert errors[-1] < 1e-2
    assert all(1.8 < one / two < 2.2 for one, two in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("rate", [1e-6, 1e-4, 1e-2, 1.0])
def test_a_mixing_front_stays_positive_however_fast(rate: float) -> None:
    # donor and acceptor enter side by side; at the fastest, a step could use up 3e4 times what there is
    grid, flow = section(9, 12)
    inside = torch.zeros(9, dtype=torch.float64)
    inside[3:6] = 1.0
    monod = Monod(rate, {"donor": 0.01, "acceptor": 0.002}, {"donor": -1.0, "acceptor": -0.5, "product": 0.1})
    solutes = [Solute(name, 0.05, 0.005, 1e-9) for name in ("donor", "acceptor", "product")]
    sides = {
        "donor": {"west": InflowConcentration(inside)},
        "acceptor": {"west": InflowConcentration(0.3 * (1.0 - inside))},
    }
    c0 = torch.zeros(3, 9, 12, dtype=torch.float64)
    c0[1], c0[2] = 0.3, 1e-3
    done = Transport(grid, solutes, sides, reaction=Reaction(monod)).solve(c0, flow, TIMES)
    assert float(done.concentration.detach().min()) > -1e-14
    assert float(done.mass_balance_error.max()) < 1e-9  # 1e-10 a step
    if rate == 1.0:  # at once: where there is one there is not the other
        both = torch.minimum(done.concentration[-1, 0], done.concentration[-1, 1])
        assert float(both.max()) < 1e-4


def test_sorbing_solutes_react_too() -> None:
    grid, flow = section()
    solutes = [Solute("a", 0.05, sorption=Freundlich(1e-4, 0.7, 1500.0)), Solute("b", 0.05)]
    monod = Monod(1e-4, {"a": 0.2}, {"a": -1.0, "b": 1.0})
    sides = {"a": {"west": InflowConcentration(1.0)}}
    done = Transport(grid, solutes, sides, "tvd", reaction=Reaction(monod)).solve(0.0, flow, TIMES)
    assert float(done.mass_balance_error.max()) < 1e-9
    assert float(done.concentration.min()) > -1e-12


def test_cells_without_part_take_none() -> None:
    active = torch.ones(3, 4, dtype=torch.bool)
    active[1, 1] = False
    grid = Grid((3, 4), (0.5, 0.5), active=active)
    flow = dgpde.Richards(
        grid, dgpde.Saturated(1e-5), {"west": dgpde.HydraulicHead(1.0), "east": dgpde.HydraulicHead(0.0)}
    ).solve(0.5, [0.0, 3e4], SolveOptions(dt_fixed=1e4))
    features = torch.ones(1, 3, 4, dtype=torch.float64, requires_grad=True)
    c0 = torch.full((3, 4), 0.25, dtype=torch.float64, requires_grad=True)

    def rate(c: Tensor, theta: Tensor, features: Tensor) -> Tensor:
        return (
            -1e-5 * features[0] * theta * c.clamp(min=0.0).sqrt() * c
        )  # no number below 0 without the clamp

    transport = Transport(
        grid, Solute("c", 0.1), {"west": InflowConcentration(1.0)}, reaction=Reaction(rate, features)
    )
    found = transport.solve(c0, flow)
    assert float(found.concentration[-1, 1, 1].detach()) == 0.25
    (found.concentration[-1] ** 2).sum().backward()
    assert c0.grad is not None
    assert features.grad is not None
    assert float(c0.grad[1, 1]) == 0.5
    assert float(features.grad[0, 1, 1]) == 0.0
    assert float(features.grad.min()) < 0.0


class Learned(torch.nn.Module):
    """A small network of one concentration and two features, in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        self.register_buffer("speed", torch.tensor(1e-5))

    def forward(self, c: Tensor, theta: Tensor, features: Tensor) -> Tensor:
        x = torch.stack([c, *features], -1)
        return -self.speed * theta * c * self.layers(x)[..., 0].exp()


def test_a_module_is_cast_and_its_parameters_receive_gradients() -> None:
    grid, flow = section()
    module = Learned()
    features = torch.rand(2, 5, 7, dtype=torch.float64, requires_grad=True)
    transport = Transport(
        grid, Solute("a", 0.05), {"west": InflowConcentration(1.0)}, reaction=Reaction(module, features)
    )
    transport.solve(0.0, flow, TIMES).concentration[-1].sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert float(parameter.grad.abs().max()) > 0.0
    assert features.grad is not None
    assert float(features.grad.abs().max()) > 0.0


def test_backends_and_checkpoints_agree() -> None:
    grid, flow = section()
    c0, found = torch.full((5, 7), 0.2, dtype=torch.float64), []
    for backend, every in (("cpu", None), ("cpu", 1), ("reference", None)):
        half = torch.full((7,), 0.2, dtype=torch.float64, requires_grad=True)
        reaction = Reaction(Monod(1e-4, {"a": half}, {"a": -1.0}))
        transport = Transport(
            grid, Solute("a", 0.05, 0.01), {"west": InflowConcentration(1.0)}, "tvd", reaction=reaction
        )
        checkpoint = None if every is None else dgpde.Checkpoint(every=every)
        options = SolveOptions(linear_tolerance=1e-13, backend=backend, checkpoint=checkpoint)
        done = transport.solve(c0, flow, TIMES, options)
        done.concentration.square().sum().backward()
        assert half.grad is not None
        found.append((done.concentration.detach(), half.grad))
    assert all(torch.equal(one, two) for one, two in zip(found[0], found[1], strict=True))
    for one, two in zip(found[0], found[2], strict=True):
        # both solve to a relative 1e-13, in 3 steps
        assert float((one - two).abs().max()) < 1e-10 * float(two.abs().max())


def _nan(c: Tensor, theta: Tensor, features: None) -> Tensor:
    return c * torch.nan


WEIGHT = torch.tensor(1e-5, dtype=torch.float64, requires_grad=True)
WRONG: list[tuple[Callable[..., object], type[Exception], str]] = [
    (_nan, ValueError, r"^reaction: its rate has values that are not finite"),
    (lambda c, theta, features: c[0], ValueError, r"^reaction: its rate returned the shape \[7\] for c"),
    (lambda c, theta, features: 1.0, TypeError, "^reaction: its rate returned a float"),
    (lambda c, theta, features: c.float(), ValueError, "^reaction: its rate returned torch.float32"),
    (lambda c, theta, features: -WEIGHT * c, ValueError, "^reaction: its rate uses tensors that ask for"),
    (
        lambda c, theta, features: -1e-5 * c / (1.0 + c.mean()),
        ValueError,
        "other cells, or from call to call",
    ),
    (
        lambda c, theta, features: -1e-5 * c * torch.rand(5, 7),
        ValueError,
        "other cells, or from call to call",
    ),
    (torch.nn.Dropout(0.5).forward, TypeError, "argument"),
]


@pytest.mark.parametrize(("rate", "error", "message"), WRONG)
def test_rates_that_cannot_be(rate: Callable[..., object], error: type[Exception], message: str) -> None:
    grid, flow = section()
    transport = Transport(grid, Solute("a"), reaction=Reaction(rate))
    with pytest.raises(error, match=message):
        transport.solve(0.5, flow, TIMES)


def test_a_rate_that_is_not_finite_on_the_way_fails_the_run() -> None:
    grid, flow = batch()
    transport = Transport(
        grid, Solute("a"), reaction=Reaction(lambda c, theta, features: 1e-3 * torch.sqrt(1.0 - c))
    )
    with pytest.raises(dgpde.SolveError, match="shorter steps|finite"):
        transport.solve(0.5, flow, [0.0, 1e6])


def test_bad_input() -> None:
    grid, flow = section()
    a, b = Solute("a"), Solute("b")

    def rate(c: Tensor, theta: Tensor, features: None) -> Tensor:
        return -1e-5 * c

    with pytest.raises(TypeError, match="^rate must be a function"):
        Reaction(3.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^parameters must be a sequence"):
        Reaction(rate, parameters=torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^parameters\[1\] must be a tensor"):
        Reaction(rate, parameters=[torch.ones(2), 1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="^parameters are for plain functions"):
        Reaction(Learned(), parameters=[torch.ones(1)])
    with pytest.raises(ValueError, match="^features have the shape"):
        Reaction(rate, torch.ones(3))
    with pytest.raises(ValueError, match="^features has values that are not finite"):
        Reaction(rate, torch.full((1, 5, 7), torch.nan))
    with pytest.raises(ValueError, match=r"^features have the shape \[1, 7, 5\]; give \[F, 5, 7\]"):
        Transport(grid, a, reaction=Reaction(rate, torch.ones(1, 7, 5))).solve(0.0, flow, TIMES)
    with pytest.raises(TypeError, match="^reaction must be a Reaction or None, not function"):
        Transport(grid, a, reaction=rate)  # type: ignore[arg-type]
    wrong = Reaction(lambda c, t, f, k: -k * c, parameters=[torch.tensor(torch.nan)])
    with pytest.raises(ValueError, match=r"^parameters\[0\] of the reaction has values that are not finite"):
        Transport(grid, a, reaction=wrong).solve(0.0, flow, TIMES)
    monod = Monod(1e-5, {"a": 0.1, "oxygen": 0.1}, {"a": -1.0})
    with pytest.raises(
        ValueError, match="^reaction: half_saturation of its Monod names 'oxygen'; the solutes are a, b"
    ):
        Transport(grid, [a, b], reaction=Reaction(monod))
    with pytest.raises(ValueError, match="^features have no place in a Monod"):
        Reaction(monod, torch.ones(1, 5, 7))
    with pytest.raises(ValueError, match=r"^half_saturation\['a'\] must be > 0"):
        Monod(1e-5, {"a": 0.0}, {"a": -1.0})
    with pytest.raises(ValueError, match="^rate must be >= 0"):
        Monod(-1e-5, {"a": 0.1}, {"a": -1.0})
    with pytest.raises(ValueError, match="^rate cannot vary in time"):
        Monod(Series([1.0]), {"a": 0.1}, {"a": -1.0})
    with pytest.raises(TypeError, match="^half_saturation must map names"):
        Monod(1e-5, 0.1, {"a": -1.0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^stoichiometry names no solute"):
        Monod(1e-5, {"a": 0.1}, {})
    wide = Monod(1e-5, {"a": torch.ones(5)}, {"a": -1.0})
    with pytest.raises(
        ValueError, match=r"half_saturation\['a'\] of the Monod is a tensor of the shape \[5\]"
    ):
        Transport(grid, a, reaction=Reaction(wide)).solve(0.0, flow, TIMES)
