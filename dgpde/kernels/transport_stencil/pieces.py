"""Pieces that the steps, their adjoint and their tangent share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.flow_stencil.problem import on_side
from dgpde.kernels.transport_stencil.cell import Cell, Values, inverse_slope, invert, isotherm
from dgpde.kernels.transport_stencil.problem import Network
from dgpde.kernels.transport_stencil.water import Water

State = dict[
    str, Tensor
]  # "<number of the solute>.c", ".sorbed", ".immobile"; ".trend" and ".length", see ``trend``
TREND, LENGTH = "trend", "length"


class StepFailure(Exception):
    """A step, its adjoint or its tangent did not come to an end; the message says why."""


@dataclass(frozen=True)
class Stepped:
    """The end of a step.

    Attributes:
        state: after it.
        sides: by side, mass into the domain, [S, *side] kg/s.
        iterations: of all linear solves.
        reacted: [S] kg/s that production, decay of the parent and its own, and sources add in all cells, each with
            the stepper's share.
        moved: [S] kg/s, the magnitudes of all exchanges.
        carried: [S] kg/s, c times what the water's step leaves unbalanced.
    """

    state: State
    sides: Values
    iterations: int
    reacted: Tensor
    moved: Tensor
    carried: Tensor


@dataclass
class Pulled:
    """What an adjoint of a step has found so far.

    Attributes:
        bars: cotangents of the states at the end, to which a daughter's decay adds.
        before: of the states before.
        values: of the values of each solute.
        water: of ``Water.named()``.
    """

    bars: State
    before: State
    values: list[Values]
    water: Values


def identical(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> bool:
    """Whether two sets are the same tensors."""
    return len(one) == len(two) and all(a is b for a, b in zip(one, two, strict=True))


def equal(held: tuple[Tensor | None, ...], key: tuple[Tensor | None, ...]) -> bool:
    """Whether two sets of tensors hold the same numbers."""
    for a, b in zip(held, key, strict=True):
        if (a is None) != (b is None) or (a is not None and a is not b and not torch.equal(a, b)):  # type: ignore[arg-type]
            return False
    return True


def trend(number: int, change: Tensor, dt: float | Tensor) -> State:
    """What a step leaves for the next one to begin its solve from: the change of c and the step's length, [1] s."""
    length = dt if isinstance(dt, Tensor) else change.new_tensor([dt])
    return {f"{number}.{TREND}": change, f"{number}.{LENGTH}": length}


def without_trend(state: State) -> State:
    """What the adjoint needs of a state."""
    return {name: value for name, value in state.items() if not name.endswith((TREND, LENGTH))}


def of_solute(state: State, number: int, names: Iterable[str]) -> Values:
    """The states of one solute that are there."""
    return {name: state[f"{number}.{name}"] for name in names if f"{number}.{name}" in state}


def add_to(bars: Values, name: str, value: Tensor) -> None:
    """Add to a sum that may not have begun."""
    bars[name] = bars[name] + value if name in bars else value


def leaves_of(values: Values) -> Values:
    """The values as leaves that ask for a gradient."""
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def columns(cell: Cell, linear: Tensor, weight: Tensor, c: Tensor) -> Tensor:
    """linear/(linear + weight s_eq'), 0 where the slope is infinite."""
    assert cell.species.sorption is not None
    inverse = inverse_slope(cell.species.sorption, cell.values, c)
    sorbs = torch.isfinite(inverse) & (weight != 0.0)
    r = torch.where(sorbs, inverse, 1.0)
    return torch.where(sorbs, linear * r / (linear * r + weight), 1.0)


def column_slopes(cell: Cell, linear: Tensor, weight: Tensor, c: Tensor) -> Tensor:
    """s_eq' times ``_column``, finite where s_eq' is not."""
    assert cell.species.sorption is not None
    inverse = inverse_slope(cell.species.sorption, cell.values, c)
    sorbs = torch.isfinite(inverse)
    r = torch.where(sorbs, inverse, 1.0)
    return torch.where(sorbs, linear / (linear * r + weight), 0.0)


def moved_by(cell: Cell, linear: Tensor, weight: Tensor | None, c: Tensor, y: Tensor) -> Tensor:
    """c after a Newton update y, taken in the amount linear c + weight s_eq(c)."""
    if weight is None:
        return c + y
    kind = cell.species.sorption
    assert kind is not None
    amount = linear * c + weight * isotherm(kind, cell.values, c) + linear * y
    return invert(kind, cell.values, linear, weight, amount)


def balance(
    network: Network, cell: Cell, states: Values, water: Water, masses: list[Tensor], share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(reacted, moved, carried) of ``Stepped`` for one solute, kg/s; ``share`` of the cells, [1, 1, nx] or ()."""
    c, species, values = states["c"], cell.species, cell.values
    reacted, moved = c.new_zeros(()), c.new_zeros(())
    parts = []
    if species.decays:
        parts.append(-cell.decayed(states))
    if cell.born is not None:
        parts.append(values["yield"] * cell.born)
    if species.produces:
        parts.append((cell.geometry.volume * values["production"]).expand_as(c))
    if species.sources:
        parts.append(cell.water["inflow"] * values["source_concentration"])
        taken = torch.zeros_like(c)
        for name, rate in water.rates.items():
            leaving = torch.where(rate < 0.0, rate, 0.0)
            if name in water.cells:
                taken.view(-1).index_add_(0, water.cells[name], leaving)
            else:
                taken = taken + leaving
        parts.append(taken * c)
    for part in parts:
        reacted, moved = reacted + (share * part).sum(), moved + (share * part).abs().sum()
    for side, mass in zip(species.sides, masses, strict=True):
        moved = moved + (at_side(share, side) * mass).abs().sum()
    # c times (gain of water - inflow through faces, sides and sources); N holds the first of these inflows
    unbalanced = (cell.water["new"] - cell.water["old"]) / cell.dt * c - network.apply(c)
    carried = (share * unbalanced).sum()
    for side in species.sides:
        carried = carried - (at_side(share, side) * cell.water[side] * on_side(c, side)).sum()
    for name, rate in water.rates.items():
        lost = rate * c.flatten()[water.cells[name]] if name in water.cells else share * rate * c
        carried = carried - lost.sum()
    return reacted, moved, carried


def at_side(share: Tensor, side: str) -> Tensor:
    """A share of the cells at the faces of a side."""
    return on_side(share, side) if share.dim() else share


def pushed_values(function: Callable[[Values], Values], at: Values, tangents: Values) -> Values:
    """Tangents of a function's values at some inputs; those without a tangent do not move."""
    moving = {name: value for name, value in tangents.items() if name in at}
    still = {name: value for name, value in at.items() if name not in moving}
    if not moving:
        with torch.no_grad():
            return {name: torch.zeros_like(value) for name, value in function(at).items()}
    return pushed(lambda leaves: function(still | leaves), {n: at[n] for n in moving}, moving)
