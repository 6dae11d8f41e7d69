"""The tangent of one step of all solutes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, on_side
from dgpde.kernels.transport_stencil.cell import Cell, Values
from dgpde.kernels.transport_stencil.coupled import CoupledStepper
from dgpde.kernels.transport_stencil.joint import System
from dgpde.kernels.transport_stencil.pieces import State, column_slopes, of_solute, pushed_values
from dgpde.kernels.transport_stencil.problem import Faces
from dgpde.kernels.transport_stencil.step import Stepper
from dgpde.kernels.transport_stencil.water import Water

Dots = tuple[Values, list[Values], State]


def tangent(
    stepper: Stepper, water: Water, values: list[Values], state: State, after: State, dots: Dots
) -> tuple[State, Values]:
    """Tangents of a step's end and of the masses through its sides.

    Args:
        stepper: of the run.
        water, values, state, after: of the step.
        dots: tangents of ``water.named()``, of the values of each solute, of ``state``; what is missing does not
            move.
    """
    moved: State = {}
    sides: dict[str, list[Tensor]] = {}
    changes = (
        _changes(stepper, water, values, state, after, dots) if isinstance(stepper, CoupledStepper) else None
    )
    for number, species in enumerate(stepper.species):
        one = _Solute(stepper, number, water, values, state, after, dots, moved)
        c = one.c
        network, cell = stepper.network(number, water, values[number])[0], one.cell()
        linear, weight = cell.slopes()
        if changes is None:
            column = stepper.set_up(network, cell, c, linear, weight)
            y = stepper.solve_linear(network, one.right_side(), None, transposed=False)
        else:
            y, column = changes[number]
        dc = y if column is None else column * y
        if stepper.geometry.active is not None:
            still = torch.zeros_like(dc)
            dc = torch.where(stepper.geometry.active, dc, dots[2].get(f"{number}.c", still))
        pushed = one.ends(dc)
        moved[f"{number}.c"] = dc
        for name in species.states[1:]:
            moved[f"{number}.{name}"] = pushed[name]
        if column is not None:  # what sorbs moves with y where its slope is unbounded
            assert weight is not None
            extra = cell.kept()[0] * column_slopes(cell, linear, weight, c) * y
            moved[f"{number}.sorbed"] = moved[f"{number}.sorbed"] + extra
        for side in species.sides:
            sides.setdefault(side, []).append(pushed[f"side.{side}"])
    return moved, {side: torch.stack(parts) for side, parts in sides.items()}


def _changes(
    stepper: CoupledStepper, water: Water, values: list[Values], state: State, after: State, dots: Dots
) -> list[tuple[Tensor, Tensor | None]]:
    """(y, factors of the columns) of all solutes that a reaction joins."""
    count = len(stepper.species)
    fixed: State = {}  # tangents of the states at the end while c stands still
    right = []
    for number in range(count):
        one = _Solute(stepper, number, water, values, state, after, dots, fixed)
        right.append(one.right_side())
        pushed = one.ends(torch.zeros_like(one.c))
        fixed |= {f"{number}.{name}": pushed[name] for name in stepper.species[number].states[1:]}
    ends = [stepper.after(number, water, values, state, after) for number in range(count)]
    c, mine = torch.stack([after[f"{number}.c"] for number in range(count)]), values[count]
    moving = dots[1][count] | ({"theta": dots[0]["theta"]} if "theta" in dots[0] else {})
    rhs = torch.stack(right) + stepper.reaction.push(c, water.theta, mine, moving)
    slopes = stepper.reaction.slopes(c, water.theta, mine)
    system = System(stepper, [network for network, _ in ends], [cell for _, cell in ends], c, slopes)
    y = stepper.solve_all(system, rhs, c, transposed=False)
    return list(zip(y, system.column, strict=True))


@dataclass
class _Solute:
    """One solute of a step; ``moved``: tangents of the states at the end of the solutes before it."""

    stepper: Stepper
    number: int
    water: Water
    values: list[Values]
    state: State
    after: State
    dots: Dots
    moved: State

    def __post_init__(self) -> None:
        number, species = self.number, self.stepper.species[self.number]
        self.c, self.parent = self.after[f"{number}.c"], species.parent
        inputs = {f"water.{k}": v for k, v in self.water.named().items()}
        inputs |= {f"value.{k}": v for k, v in self.values[number].items()}
        inputs |= {f"state.{k}": self.state[f"{number}.{k}"] for k in species.states}
        moving = {f"water.{k}": v for k, v in self.dots[0].items()}
        moving |= {f"value.{k}": v for k, v in self.dots[1][number].items()}
        moving |= {f"state.{k}": v for k, v in of_solute(self.dots[2], number, species.states).items()}
        if self.parent is not None:
            names = self.stepper.species[self.parent].states
            inputs |= {f"parent.{k}": v for k, v in of_solute(self.after, self.parent, names).items()}
            inputs |= {f"its.{k}": v for k, v in self.values[self.parent].items()}
            moving |= {f"parent.{k}": v for k, v in of_solute(self.moved, self.parent, names).items()}
            moving |= {f"its.{k}": v for k, v in self.dots[1][self.parent].items()}
        self.inputs, self.moving = inputs, moving

    def cell(self) -> Cell:
        """Its cells as they are, without what the parent loses."""
        mine = self.values[self.number]
        conductance = self.stepper.network(self.number, self.water, mine)[1]
        return self.stepper.cell(self.number, self.water, mine, self.state, conductance, None)

    def build(self, at: Values) -> tuple[Cell, Values]:
        """Its cells and what its faces conduct, made of other inputs."""
        number, which, stepper = self.number, self.parent, self.stepper
        inner = self.water.with_values({k: at[f"water.{k}"] for k in self.water.named()})
        numbers = {k: at[f"value.{k}"] for k in self.values[number]}
        states = {f"{number}.{k}": at[f"state.{k}"] for k in stepper.species[number].states}
        g, x, on_sides = stepper.conduct(number, inner, numbers, twice=True)
        born = None
        if which is not None:
            names = stepper.species[which].states
            its = {k: at[f"its.{k}"] for k in self.values[which]}
            ends = {k: at[f"parent.{k}"] for k in names}
            old = {f"{which}.{k}": self.state[f"{which}.{k}"] for k in names}
            born = stepper.cell(which, inner, its, old, {}, None).decayed(ends)
        cell = stepper.cell(number, inner, numbers, states, on_sides, born)
        outputs = {f"g{k}": v for k, v in g.items()} | {f"x{n}{t}": v for (n, t), v in x.items()}
        return cell, outputs

    def right_side(self) -> Tensor:
        """Minus the tangent of its residual while c stands still."""

        def residual(at: Values) -> Values:
            cell, outputs = self.build(at)
            return outputs | {"residual": cell.residual(self.c)}

        pushed, dots, geometry = (
            pushed_values(residual, self.inputs, self.moving),
            self.dots[0],
            self.stepper.geometry,
        )
        faces = Faces(
            {k: dots[f"flow_{AXES[k]}"] for k in self.water.flow if f"flow_{AXES[k]}" in dots},
            {k: pushed[f"g{k}"] for k in geometry.axes},
            {(n, t): pushed[f"x{n}{t}"] for n, t in geometry.pairs},
        )
        network = self.stepper.network(self.number, self.water, self.values[self.number])[0]
        return -(pushed["residual"] + network.push(self.c, faces))

    def ends(self, dc: Tensor) -> Values:
        """Tangents of the masses through its sides and of its states, but for what sorbs by a curve."""

        def states(at: Values) -> Values:
            cell, _ = self.build(at)
            found = {f"side.{s}": cell.side(s, on_side(at["c"], s))[0] for s in cell.species.sides}
            if cell.species.sorption:
                c = self.c if cell.species.nonlinear else at["c"]
                found["sorbed"] = cell.states(c)["sorbed"]
            if cell.species.immobile:
                found["immobile"] = cell.states(at["c"])["immobile"]
            return found

        return pushed_values(states, self.inputs | {"c": self.c}, self.moving | {"c": dc})
