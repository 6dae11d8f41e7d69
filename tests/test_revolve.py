"""Binomial checkpoints: as few runs again as can be, never more states than allowed, the same bits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde import Checkpoint, Grid, Richards, Series, SolveOptions
from dgpde.checkpoint import StateStore
from dgpde.revolve import first_states, reversal, split

HOUR = 3600.0


@cache
def least(length: int, states: int) -> int:
    """Intervals run again at least, by trying every place."""
    if states == 1 or length <= 1:
        return length * (length - 1) // 2
    return min(m + least(length - m, states - 1) + least(m, states) for m in range(1, length))


@cache
def taken(length: int, states: int) -> int:
    if states == 1 or length <= 1:
        return length * (length - 1) // 2
    m = split(length, states)
    assert 1 <= m < length
    return m + taken(length - m, states - 1) + taken(m, states)


@pytest.mark.parametrize("states", range(1, 8))
def test_no_place_is_better(states: int) -> None:
    for length in range(1, 80):
        assert taken(length, states) == least(length, states), length


class Counted(StateStore):
    """Knows how many states it held at most."""

    most = 0

    def put(self, index: int, state: dict[str, Tensor]) -> None:
        super().put(index, state)
        self.most = max(self.most, len(self.kept))


@pytest.mark.parametrize("where", ["device", "disk"])
@pytest.mark.parametrize(("length", "states"), [(1, 1), (1, 5), (2, 1), (7, 2), (30, 4), (9, 20)])
def test_the_walk(length: int, states: int, where: str) -> None:
    store, again = Counted(Checkpoint(states=states, where=where)), 0
    kept = first_states(length, states)
    for index in kept:
        store.put(index, {"at": torch.tensor([index])})

    def advance(state: dict[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
        nonlocal again
        assert int(state["at"]) == first
        again += last - first
        return {"at": torch.tensor([last])}

    def item(state: dict[str, Tensor], interval: int) -> int:
        assert int(state["at"]) == interval
        return interval

    for _ in range(2):  # a second sweep, with retain_graph, begins with the first state alone
        assert list(reversal(store, length, states, advance, item)) == list(range(length))[::-1]
        assert store.kept == {0}
    assert store.most <= states
    # the forward run went to the last kept state in any case
    assert again == 2 * least(length, min(states, length)) - kept[-1]


def test_a_run_that_ended_early() -> None:
    store = StateStore(Checkpoint(states=3))
    for index in [k for k in first_states(12, 3) if k <= 5]:
        store.put(index, {"at": torch.tensor([index])})
    found = reversal(
        store,
        12,
        3,
        lambda state, first, last: {"at": torch.tensor([last])} if last <= 5 else None,
        lambda state, interval: interval,
    )
    assert list(found) == [5, 4, 3, 2, 1, 0]


def outputs(checkpoint: Checkpoint | None, flux: Tensor, k_sat: Tensor, failing: bool = False) -> Tensor:
    grid = Grid((4, 2), (0.2, 1.0))
    sides = {"top": dgpde.Flux(Series(flux))}
    if not failing:
        sides |= {"bottom": dgpde.FreeDrainage(), "west": dgpde.SeepageFace()}  # type: ignore[dict-item]
    flow = Richards(grid, dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, k_sat), sides)  # type: ignore[arg-type]
    options = SolveOptions(
        dt_initial=1800.0, dt_min=100.0, time_error=3e-2, checkpoint=checkpoint, on_failure="return"
    )
    run = flow.solve(-0.5, [k * HOUR for k in range(10)], options)
    assert (int(run.status) != 0) == failing
    parts = [run.psi, *run.boundary_flux.values()]
    return torch.cat([part[~part.isnan()].flatten() for part in parts])


@pytest.mark.parametrize("failing", [False, True])
def test_policies_give_the_same_bits(failing: bool, tmp_path: Path) -> None:
    flux = torch.tensor([1e-6, 0.0, 4e-6, 5e-6, 0.0, 0.0, 2e-6, 1e-6, 0.0], dtype=torch.float64)
    if failing:
        flux[4:] = 1e-4  # into a closed domain
    policies = [None, *(Checkpoint(states=states) for states in (1, 2, 50))]
    policies += [Checkpoint("binomial", states=3, where="disk")]
    found = []
    for policy in policies:
        leaves = flux.clone().requires_grad_(), torch.tensor(1e-5, dtype=torch.float64, requires_grad=True)
        values = outputs(policy, *leaves, failing)
        weights = torch.cos(torch.arange(values.numel()).double())
        gradients = torch.autograd.grad((weights * values).sum(), leaves, retain_graph=True)
        again = torch.autograd.grad((weights * values).sum(), leaves)
        assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(leaf.detach(), leaf.detach()) for leaf in leaves]
            tangent = forward_ad.unpack_dual(outputs(policy, *duals, failing)).tangent
        assert tangent is not None
        found.append([values.detach(), *gradients, tangent])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"policy": "binomial"}, ValueError, "policy 'binomial' does not go"),
        ({"states": 0}, ValueError, "states must be at least 1"),
        ({"states": 1.5}, TypeError, "states must be an integer"),
        ({"states": True}, TypeError, "states must be an integer"),
        ({"states": 3, "every": 2}, ValueError, "policy 'every' does not go"),
        ({"policy": "binomial", "states": 3, "every": 2}, ValueError, "policy 'binomial' does not go"),
        ({"policy": "some"}, ValueError, "policy must be"),
    ],
)
def test_refusals(words: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Checkpoint(**words)  # type: ignore[arg-type]


def test_columns_refuse() -> None:
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    flow = Richards(Grid.columns(2, [0.1] * 3), soil)
    with pytest.raises(ValueError, match="^checkpoint: 'binomial' is for sections"):
        flow.solve(-1.0, [0.0, HOUR], SolveOptions(checkpoint=Checkpoint(states=2)))


def test_plan_knows() -> None:
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    flow = Richards(Grid((6, 2, 3), (0.1, 1.0, 1.0)), soil, {"top": dgpde.Flux(1e-6)})
    times = [k * HOUR for k in range(12)]
    options = SolveOptions(dt_fixed=900.0, checkpoint=Checkpoint(states=3))
    plan = flow.plan(times, options)
    assert plan.history == 4 * 8 * (36 + 6)
    assert plan.checkpoints == 3 * (8 * (36 + 6) + 9)
