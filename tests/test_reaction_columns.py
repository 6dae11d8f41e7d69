"""Reactions along runs of the column engine, whose columns take steps of their own: the same as its own kernel."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

import dgpde
from dgpde import (
    Checkpoint,
    Freundlich,
    Immobile,
    InflowConcentration,
    Monod,
    Reaction,
    Series,
    Solute,
    SolveOptions,
    Transport,
)

TIMES = [0.0, 3600.0, 10800.0, 14400.0]
Inputs = dict[str, Tensor]


def inputs() -> Inputs:
    def of(value: object) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    return {
        "k_sat": of([1e-5, 3e-6, 2e-5, 6e-6, 1.3e-5]),
        "psi0": of(-0.8),
        "rain": of([4e-6, 0.0, 1e-6]),
        "storage": of(1e-3),
        "transpiration": of(5e-8),
        "source": of([2e-8, -1e-8, 3e-8])[:, None, None],
        "decay": of(2e-5),
        "yield": of(0.7),
        "top": of([[1.0, 2.0, 3.0, 4.0, 5.0], [0.5] * 5, [0.2] * 5]),
        "c0": of([0.1, 0.2, 0.3, 0.4, 0.5]),
        "dispersivity": of(0.03),
        "immobile": of(0.02),
        "production": of([1e-8, 2e-8, 3e-8])[:, None, None],
    }


def storm(p: Inputs, every: int | None = None) -> dgpde.Solution:
    """Rain, sun and rain on five soils, with roots, a source and elastic storage; adaptive steps."""
    return dgpde.Richards(
        dgpde.Grid.columns(5, [0.1] * 4 + [0.05] * 4),
        dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, p["k_sat"]),
        {
            "top": dgpde.Atmosphere(Series(p["rain"]), Series([0.0, 1e-7, 0.0])),
            "bottom": dgpde.FreeDrainage(),
        },
        sources=[
            dgpde.RootUptake(p["transpiration"], density=torch.ones(8, 1).double()),
            dgpde.Source(Series(p["source"])),
        ],
        specific_storage=p["storage"],
    ).solve(
        p["psi0"],
        TIMES,
        SolveOptions(linear_tolerance=1e-12, checkpoint=None if every is None else Checkpoint(every=every)),
    )


def carried(
    p: Inputs, chain: bool, scheme: str = "upwind", every: int | None = None
) -> dgpde.TransportSolution:
    """A parent and its daughter; the decay of both by the kernel or as a reaction."""
    flow = storm(p, every)
    immobile = Immobile(p["immobile"], 1e-5)
    daughter = Solute("b", p["dispersivity"], immobile=immobile, decay=p["decay"])
    if chain:
        daughter = Solute(
            "b", p["dispersivity"], immobile=immobile, decay=p["decay"], parent="a", yield_=p["yield"]
        )
    parent = Solute(
        "a",
        p["dispersivity"],
        diffusion=1e-9,
        decay=p["decay"] if chain else 0.0,
        production=Series(p["production"]),
    )

    def rate(c: Tensor, theta: Tensor, features: None, decay: Tensor, made: Tensor) -> Tensor:
        lost = decay * theta * c[0]
        return torch.stack([-lost, made * lost])

    transport = Transport(
        flow.grid,
        [parent, daughter],
        {"top": InflowConcentration(Series(p["top"]))},
        scheme,
        reaction=None if chain else Reaction(rate, parameters=[p["decay"], p["yield"]]),
    )
    return transport.solve(p["c0"], flow, options=SolveOptions(linear_tolerance=1e-12))


def total(done: dgpde.TransportSolution) -> Tensor:
    c = done.concentration
    weight = torch.linspace(0.3, 9.7, c.numel(), dtype=torch.float64).cos().view_as(c)
    return (weight * c).sum() + 1e5 * (2.0 * done.solute_flux["bottom"] + 0.3 * done.solute_flux["top"]).sum()


@pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")
@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_a_linear_reaction_is_the_kernels_chain(scheme: str) -> None:
    p = inputs()
    one, two = carried(p, True, scheme), carried(p, False, scheme)
    # some 60 steps, each solved to 1e-12
    assert float((one.concentration - two.concentration).abs().max()) < 1e-9
    for side in ("top", "bottom"):
        assert float((one.solute_flux[side] - two.solute_flux[side]).abs().max()) < 1e-15
    assert float((one.mass.total.sum(-1) - two.mass.total[..., 0]).abs().max()) < 1e-10
    assert float(two.mass_balance_error.max()) < 1e-10


@pytest.mark.parametrize("every", [None, 1])
def test_gradients_are_the_kernels_through_the_flow_too(every: int | None) -> None:
    found = []
    for chain in (True, False):
        p = {name: value.requires_grad_() for name, value in inputs().items()}
        total(carried(p, chain, every=None if chain else every)).backward()
        found.append({name: value.grad for name, value in p.items()})
    for name, one in found[0].items():
        two = found[1][name]
        assert one is not None
        assert two is not None
        # both are exact for steps that are solved to 1e-12
        assert float((one - two).norm()) < 1e-8 * float(one.norm()), name


def monod_inputs() -> tuple[Inputs, Inputs]:
    """Values, and a direction to move in."""
    p = inputs() | {"half": torch.tensor(0.4).double(), "speed": torch.tensor(5e-5).double()}
    generator = torch.Generator().manual_seed(4)
    return p, {n: torch.randn(v.shape, generator=generator).double() * v.abs().mean() for n, v in p.items()}


def growing(p: Inputs, every: int | None = None) -> dgpde.TransportSolution:
    """A substrate that sorbs and what is made of it, by Monod's kinetics."""
    flow = storm(p, every)
    monod = Monod(p["speed"], {"a": p["half"], "b": 0.1}, {"a": -1.0, "b": p["yield"]})
    solutes = [
        Solute(
            "a",
            p["dispersivity"],
            sorption=Freundlich(1e-4, 0.8, 1500.0, rate=1e-4),
            production=Series(p["production"]),
        ),
        Solute("b", p["dispersivity"], decay=p["decay"], immobile=Immobile(p["immobile"], 1e-5)),
    ]
    top = {"top": InflowConcentration(Series(p["top"]))}
    transport = Transport(flow.grid, solutes, top, "tvd", reaction=Reaction(monod))
    return transport.solve(p["c0"], flow, options=SolveOptions(linear_tolerance=1e-12))


@pytest.mark.parametrize("every", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_gradients_of_a_monod_by_the_dot_product(every: int | None) -> None:
    p, d = monod_inputs()
    leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
    total(growing(leaves, every)).backward()
    pulled = {
        name: 0.0 if leaf.grad is None else float((leaf.grad * d[name]).sum())
        for name, leaf in leaves.items()
    }
    assert all(slope != 0.0 for slope in pulled.values())
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, d[name]) for name, value in p.items()}
        pushed = float(forward_ad.unpack_dual(total(growing(duals, every))).tangent)
    scale = sum(abs(slope) for slope in pulled.values())
    assert abs(pushed - sum(pulled.values())) < 1e-9 * scale


@pytest.mark.slow
def test_gradients_of_a_monod_by_taylor() -> None:
    p, d = monod_inputs()
    # steps of the flow as they come would change with its inputs: only those of the transport move here
    still = {"k_sat", "psi0", "rain", "storage", "transpiration", "source"}
    leaves = {name: value.clone().requires_grad_(name not in still) for name, value in p.items()}
    value = total(growing(leaves))
    value.backward()
    slope = sum(float((leaf.grad * d[name]).sum()) for name, leaf in leaves.items() if leaf.grad is not None)
    rest = []
    for size in (4e-3, 2e-3):
        with torch.no_grad():
            there = total(growing({n: v if n in still else v + size * d[n] for n, v in p.items()}))
        rest.append(abs(float((there - value).detach()) - size * slope))
    assert rest[1] < 0.35 * rest[0]  # order 2: a quarter; the limiter has kinks


def test_a_batch_is_its_columns() -> None:
    p = inputs()
    whole = carried(p, False).concentration
    for column in (0, 3):
        part = p | {
            name: p[name][..., column : column + 1].expand(*p[name].shape) for name in ("k_sat", "top", "c0")
        }
        alone = carried(part, False).concentration
        # columns share their Newton iterations: equal to the tolerance
        assert float((whole[..., column] - alone[..., 0]).abs().max()) < 1e-9


def test_what_cannot_be_says_so() -> None:
    p = inputs()
    flow = storm(p)
    reaction = Reaction(lambda c, theta, features: -1e-5 * theta * c)
    with pytest.raises(ValueError, match="^uptake of 'a' is 'excluded'; with a reaction"):
        Transport(flow.grid, Solute("a", uptake="excluded"), reaction=reaction).solve(0.1, flow)
    transport = Transport(flow.grid, Solute("a"), reaction=reaction)
    flow.ride = None
    with pytest.raises(ValueError, match="^flow must be a run of the column engine"):
        transport.solve(0.1, flow)


def test_a_step_that_cannot_be_done_fails_the_run() -> None:
    flow = storm(inputs())
    # above c = 1 there is no number, and the rate leads there
    transport = Transport(
        flow.grid,
        Solute("a"),
        reaction=Reaction(lambda c, theta, features: 1e-3 * theta * torch.sqrt(1.0 - c)),
    )
    with pytest.raises(dgpde.SolveError, match="could not go on"):
        transport.solve(0.5, flow)
    done = transport.solve(0.5, flow, options=SolveOptions(on_failure="return"))
    assert int(done.status) == 1
    assert bool(done.concentration[-1].isnan().all())
