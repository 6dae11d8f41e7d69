"""Three proofs of the gradients of transport with a reaction, through the flow and all that a solute may have."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from transport_problem import SHAPE, directions, leaves, outputs, run, total

import dgpde
from dgpde.transport_solution import TransportSolution

CASES = [("upwind", None), ("tvd", "linear"), ("upwind", "freundlich"), ("tvd", "kinetic")]


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
