"""The tangent of one step of all solutes."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, on_side
from dgpde.kernels.transport_stencil.cell import Cell, Values
from dgpde.kernels.transport_stencil.pieces import State, column_slopes, of_solute, pushed_values
from dgpde.kernels.transport_stencil.problem import Faces
from dgpde.kernels.transport_stencil.step import Stepper
from dgpde.kernels.transport_stencil.water import Water


def tangent(
    stepper: Stepper,
    water: Water,
    values: list[Values],
    state: State,
    after: State,
    dots: tuple[Values, list[Values], State],
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
    for number, species in enumerate(stepper.species):
        mine = values[number]
        network, conductance = stepper.network(number, water, mine)
        c = after[f"{number}.c"]
        inputs = (
            {f"water.{k}": v for k, v in water.named().items()}
            | {f"value.{k}": v for k, v in mine.items()}
            | {f"state.{k}": state[f"{number}.{k}"] for k in species.states}
        )
        moving = {f"water.{k}": v for k, v in dots[0].items()}
        moving |= {f"value.{k}": v for k, v in dots[1][number].items()}
        moving |= {
            f"state.{k}": dots[2][f"{number}.{k}"] for k in species.states if f"{number}.{k}" in dots[2]
        }
        which = species.parent
        if which is not None:
            names = stepper.species[which].states
            inputs |= {f"parent.{k}": v for k, v in of_solute(after, which, names).items()}
            inputs |= {f"its.{k}": v for k, v in values[which].items()}
            moving |= {f"parent.{k}": v for k, v in of_solute(moved, which, names).items()}
            moving |= {f"its.{k}": v for k, v in dots[1][which].items()}

        def build(
            at: Values, c: Tensor, number: int = number, which: int | None = which
        ) -> tuple[Cell, Values]:
            inner = water.with_values({k: at[f"water.{k}"] for k in water.named()})
            numbers = {k: at[f"value.{k}"] for k in values[number]}
            states = {f"{number}.{k}": at[f"state.{k}"] for k in stepper.species[number].states}
            g, x, on_sides = stepper.conduct(number, inner, numbers, twice=True)
            born = None
            if which is not None:
                its = {k: at[f"its.{k}"] for k in values[which]}
                ends = {k: at[f"parent.{k}"] for k in stepper.species[which].states}
                old = {f"{which}.{k}": state[f"{which}.{k}"] for k in stepper.species[which].states}
                born = stepper.cell(which, inner, its, old, {}, None).decayed(ends)
            cell = stepper.cell(number, inner, numbers, states, on_sides, born)
            outputs = {f"g{k}": v for k, v in g.items()} | {f"x{n}{t}": v for (n, t), v in x.items()}
            return cell, outputs

        def first(at: Values, c: Tensor = c) -> Values:
            cell, outputs = build(at, c)
            return outputs | {"residual": cell.residual(c)}

        pushed = pushed_values(first, inputs, moving)
        faces = Faces(
            {k: dots[0][f"flow_{AXES[k]}"] for k in water.flow if f"flow_{AXES[k]}" in dots[0]},
            {k: pushed[f"g{k}"] for k in stepper.geometry.axes},
            {(n, t): pushed[f"x{n}{t}"] for n, t in stepper.geometry.pairs},
        )
        rhs = -(pushed["residual"] + network.push(c, faces))
        cell = stepper.cell(number, water, mine, state, conductance, None)
        linear, weight = cell.slopes()
        column = stepper.set_up(network, cell, c, linear, weight)
        y = stepper.solve_linear(network, rhs, None, transposed=False)
        dc = y if column is None else column * y
        if stepper.geometry.active is not None:
            dc = torch.where(stepper.geometry.active, dc, dots[2].get(f"{number}.c", torch.zeros_like(dc)))
        # what sorbs moves with y where its slope is unbounded
        extra = None
        if column is not None:
            assert weight is not None
            extra = cell.kept()[0] * column_slopes(cell, linear, weight, c) * y

        def second(at: Values, c: Tensor = c) -> Values:
            cell, _ = build(at, c)
            found = {f"side.{s}": cell.side(s, on_side(at["c"], s))[0] for s in cell.species.sides}
            ends = cell.states(c)
            if cell.species.sorption:
                if not cell.species.nonlinear:
                    ends["sorbed"] = cell.states(at["c"])["sorbed"]
                found["sorbed"] = ends["sorbed"]
            if cell.species.immobile:
                found["immobile"] = cell.states(at["c"])["immobile"]
            return found

        pushed = pushed_values(second, inputs | {"c": c}, moving | {"c": dc})
        moved[f"{number}.c"] = dc
        for name in species.states[1:]:
            moved[f"{number}.{name}"] = pushed[name]
        if extra is not None:
            moved[f"{number}.sorbed"] = moved[f"{number}.sorbed"] + extra
        for side in species.sides:
            sides.setdefault(side, []).append(pushed[f"side.{side}"])
    return moved, {side: torch.stack(parts) for side, parts in sides.items()}
