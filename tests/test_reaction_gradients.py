"""Three proofs of the gradients of transport with a reaction, through the flow and all that a solute may have."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from transport_problem import SHAPE, directions, leaves, outputs, run, total

import dgpde
from dgpde import InflowConcentration, Monod, Reaction, Solute, SolveOptions, SteadyFlow, Transport
from dgpde.transport_solution import TransportSolution

CASES = [
    pytest.param("upwind", None, marks=pytest.mark.slow),
    pytest.param("tvd", "linear", marks=pytest.mark.slow),
    ("upwind", "freundlich"),
    ("tvd", "kinetic"),
]


def network(c: Tensor, theta: Tensor, features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """A rate law of two layers; what the parent loses makes half as much of the daughter, and some comes back."""
    x = torch.cat([c, theta[None], features])
    hidden = torch.tanh(torch.einsum("hi,i...->h...", first, x))
    speed = 1e-4 * torch.nn.functional.softplus(torch.einsum("oh,h...->o...", second, hidden))
    forth, back = theta * speed[0] * c[0] / (0.2 + c[0].abs()) * c[1], theta * speed[1] * c[1]
    return torch.stack([0.3 * back - forth, 0.5 * forth - back])


def all_leaves() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    more = {"first": (6, 5), "second": (2, 6), "features": (2, *SHAPE)}
    return leaves() | {
        name: torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.3
        for name, shape in more.items()
    }


def reacting(p: dict[str, Tensor], scheme: str, sorbs: str | None, **more: object) -> TransportSolution:
    reaction = dgpde.Reaction(network, p["features"], [p["first"], p["second"]])
    return run(p, scheme, scheme == "tvd", sorbs, reaction=reaction, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scheme", "sorbs"), CASES)
def test_gradients_by_taylor_and_by_the_dot_product(scheme: str, sorbs: str | None) -> None:
    p = all_leaves()
    d = directions(p)
    tracked = {name: value.clone().requires_grad_() for name, value in p.items()}
    value = total(reacting(tracked, scheme, sorbs))
    value.backward()
    pulled = {name: 0.0 if v.grad is None else float((v.grad * d[name]).sum()) for name, v in tracked.items()}
    # a section has no horizontal across; everything else counts
    assert {name for name, slope in pulled.items() if slope == 0.0} == {"horizontal"}
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(v, d[name]) for name, v in p.items()}
        pushed = sum(
            float(forward_ad.unpack_dual(part).tangent.sum())
            for part in outputs(reacting(duals, scheme, sorbs))
        )
    slope = sum(pulled.values())
    assert abs(pushed - slope) < 1e-10 * abs(slope)
    rest = []
    for size in (1e-3, 5e-4):
        with torch.no_grad():
            there = total(reacting({n: v + size * d[n] for n, v in p.items()}, scheme, sorbs))
        rest.append(abs(float((there - value).detach()) - size * slope))
    # order 2: a quarter; the limiter has kinks, which a step this small may cross
    assert rest[1] < (0.27 if scheme != "tvd" else 0.35) * rest[0]


# ------------------------------------------------------------------------------- autograd through plain PyTorch

CELLS, LENGTH, THETA = 7, 0.2, 0.35
STEPS = (500.0, 500.0, 1500.0, 2500.0)
FLOW, DISPERSIVITY = 8e-6, 0.07
Inputs = dict[str, Tensor]


def row_inputs() -> Inputs:
    generator = torch.Generator().manual_seed(2)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return {
        "first": uniform(6, 5) - 0.3,
        "second": uniform(2, 6) - 0.3,
        "features": uniform(2, 1, CELLS),
        "c0": 0.2 + uniform(2, 1, CELLS),
        "west": torch.tensor([1.3, 0.4], dtype=torch.float64),
        "theta": THETA + 0.05 * uniform(1, CELLS),
        "flow": torch.tensor(FLOW, dtype=torch.float64),
        "dispersivity": torch.tensor(DISPERSIVITY, dtype=torch.float64),
        "half": 0.1 + uniform(1, CELLS),
        "speed": torch.tensor(3e-4, dtype=torch.float64),
        "yield": torch.tensor(0.6, dtype=torch.float64),
    }


def written_out(c: Tensor, old: Tensor, dt: float, p: Inputs, made: Tensor) -> Tensor:
    """The residual of a step in a row of cells, as one would write it down; [2, 1, CELLS] kg/s per m2 of section."""
    through = p["flow"] * torch.cat([p["west"][:, None, None], c], -1)  # upwind, third type in the west
    spread = p["flow"] * p["dispersivity"] * c.diff(dim=-1) / LENGTH
    none = torch.zeros_like(c[..., :1])
    through = through - torch.cat([none, spread, none], -1)
    return LENGTH * p["theta"] * (c - old) / dt + through.diff(dim=-1) - LENGTH * made


def by_autograd(p: Inputs, rate: object) -> Tensor:
    """All concentrations, each step by Newton with a dense matrix, its last update differentiated."""
    c, found = p["c0"], [p["c0"]]
    for dt in STEPS:

        def residual(x: Tensor, old: Tensor = c, dt: float = dt) -> Tensor:
            return written_out(x, old, dt, p, rate(p, x))  # type: ignore[operator]

        at = c.detach()
        for _ in range(30):
            matrix = torch.autograd.functional.jacobian(residual, at).reshape(at.numel(), -1)
            at = at - torch.linalg.solve(matrix, residual(at).flatten()).view_as(at).detach()
        matrix = torch.autograd.functional.jacobian(residual, at).reshape(at.numel(), -1)
        c = at - torch.linalg.solve(matrix, residual(at).flatten()).view_as(at)
        found.append(c)
    return torch.stack(found)


def by_the_package(p: Inputs, reaction: Reaction) -> Tensor:
    grid = dgpde.Grid((1, CELLS), (1.0, LENGTH))
    solutes = [Solute(name, longitudinal_dispersivity=p["dispersivity"]) for name in ("a", "b")]
    sides = {name: {"west": InflowConcentration(p["west"][k])} for k, name in enumerate(("a", "b"))}
    flow = SteadyFlow(p["theta"], {"x": p["flow"].expand(1, CELLS + 1), "z": 0.0})
    times = torch.tensor([0.0, *STEPS], dtype=torch.float64).cumsum(0)
    transport = Transport(grid, solutes, sides, reaction=reaction)
    return transport.solve(p["c0"], flow, times, SolveOptions(linear_tolerance=1e-13)).concentration


def network_rate(p: Inputs, c: Tensor) -> Tensor:
    return network(c, p["theta"], p["features"], p["first"], p["second"])


def network_reaction(p: Inputs) -> Reaction:
    return Reaction(network, p["features"], [p["first"], p["second"]])


def monod_rate(p: Inputs, c: Tensor) -> Tensor:
    speed = p["theta"] * p["speed"] * c[0] / (p["half"] + c[0]) * c[1] / (0.3 + c[1]) * 0.2 / (0.2 + c[1])
    return torch.stack([-speed, p["yield"] * speed])


def monod_reaction(p: Inputs) -> Reaction:
    return Reaction(
        Monod(p["speed"], {"a": p["half"], "b": 0.3}, {"a": -1.0, "b": p["yield"]}, None, {"b": 0.2})
    )


@pytest.mark.parametrize(
    ("rate", "reaction", "unused"),
    [
        (network_rate, network_reaction, {"half", "speed", "yield"}),
        (monod_rate, monod_reaction, {"first", "second", "features"}),
    ],
)
def test_gradients_by_autograd_through_plain_pytorch(
    rate: object, reaction: object, unused: set[str]
) -> None:
    found = []
    for way in (lambda p: by_autograd(p, rate), lambda p: by_the_package(p, reaction(p))):  # type: ignore[operator]
        p = {name: value.requires_grad_() for name, value in row_inputs().items()}
        c = way(p)
        (c * torch.linspace(0.3, 9.7, c.numel(), dtype=torch.float64).view_as(c).cos()).sum().backward()
        found.append((c.detach(), {name: value.grad for name, value in p.items()}))
    (c1, one), (c2, two) = found
    # four steps, each solved to 1e-13 and better
    assert float((c1 - c2).abs().max()) < 1e-11
    assert {name for name, value in one.items() if value is None} == unused
    for name, value in one.items():
        gradient = two[name]
        if value is not None:
            assert gradient is not None
            assert float((gradient - value).norm()) < 1e-9 * float(value.norm()), name


@pytest.mark.slow
def test_gradcheck_of_a_row() -> None:
    p = {name: value for name, value in row_inputs().items() if name not in ("first", "second", "features")}
    names = tuple(p)
    scales = {name: float(value.abs().mean()) for name, value in p.items()}
    at = tuple((p[name] / scales[name]).requires_grad_() for name in names)

    def run(*values: Tensor) -> Tensor:
        q = {name: value * scales[name] for name, value in zip(names, values, strict=True)}
        return by_the_package(q, monod_reaction(q))[-1]

    assert torch.autograd.gradcheck(run, at, check_forward_ad=True, fast_mode=True)
