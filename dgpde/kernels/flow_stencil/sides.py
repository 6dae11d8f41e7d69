"""Boundary faces for backends that leave them to PyTorch: few faces, one set of formulas, slopes by autograd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES
from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.flow_stencil.problem import (
    DARCY,
    PRESCRIBED,
    Cotangents,
    StencilProblem,
    Step,
    Tangents,
    is_series,
    of_interval,
    on_side,
)
from dgpde.kernels.flow_stencil.reference import side_flow
from dgpde.kernels.flow_stencil.responses import EVAPORATION
from dgpde.kernels.reference_faces import Boundary

Inputs = dict[str, Tensor]


def side_names(problem: StencilProblem, side: str) -> list[str]:
    """Names of the inputs that the faces of a side read."""
    kind = problem.sides[side]
    names = [f"{side}.{name}" for name in BOUNDARY_VALUES[kind]]
    names += [f"{side}.kr"] if kind in PRESCRIBED else []
    names += [EVAPORATION] if side == "top" and problem.evaporation_knots is not None else []
    return names + ([f"{side}.transmissivity"] if kind in DARCY else [])


@dataclass(frozen=True)
class SideFaces:
    """The faces of one side at some state.

    Attributes:
        problem, inputs, side, step: whose faces.
        psi, kr: of their cells, [*side].
    """

    problem: StencilProblem
    inputs: Inputs
    side: str
    step: Step
    psi: Tensor
    kr: Tensor

    @cached_property
    def area(self) -> Tensor:
        """[*side] m2, 0 where the cell is not active."""
        return self.problem.area(self.side, self.psi)

    def _flow(self, at: Inputs) -> Boundary:
        """At psi, kr and ponding; and at one interval's row of each input that is among ``at``."""
        rows = {
            name: value[None] if is_series(name) else value
            for name, value in at.items()
            if name in self.inputs
        }
        state = (at["psi"], at["kr"], at["ponding"])
        return side_flow(self.problem, self.inputs | rows, self.side, self.step, state)

    def _at(self, names: list[str]) -> Inputs:
        at = {"psi": self.psi, "kr": self.kr, "ponding": self.step.ponding}
        return at | {name: of_interval(name, self.inputs[name], self.step.interval) for name in names}

    def _outputs(self, found: Boundary) -> dict[str, Tensor]:
        outputs = {self.side: found.flux}
        if self.side == "top":
            outputs |= {"ponding": found.ponding, "runoff": found.runoff}
        return outputs

    def _derivatives(self, names: list[str], cotangents: Cotangents) -> Inputs:
        """d/dx of <cotangents, outputs> for psi, kr, ponding and the inputs named."""
        at = {name: value.detach().clone().requires_grad_() for name, value in self._at(names).items()}
        with torch.enable_grad():
            outputs = self._outputs(self._flow(at))
            pairs = [
                (outputs[name], seed)
                for name, seed in cotangents.items()
                if name in outputs and outputs[name].requires_grad
            ]
        if not pairs:
            return {name: torch.zeros_like(value) for name, value in at.items()}
        values, seeds = zip(*pairs, strict=True)
        found = torch.autograd.grad(values, list(at.values()), seeds, allow_unused=True)
        return {
            name: torch.zeros_like(value) if gradient is None else gradient
            for (name, value), gradient in zip(at.items(), found, strict=True)
        }

    def evaluate(self) -> Boundary:
        """Flux, its round-off scale, pond and run-off."""
        with torch.no_grad():
            return self._flow(self._at([]))

    def slope(self, dkr: Tensor) -> Tensor:
        """dq/dpsi, with the slope of the cells' kr."""
        found = self._derivatives([], {self.side: torch.ones_like(self.psi)})
        return found["psi"] + found["kr"] * dkr

    def load(self, cotangents: Cotangents, dkr: Tensor) -> Tensor:
        """d/dpsi of the outputs paired with the cotangents."""
        found = self._derivatives([], cotangents)
        return found["psi"] + found["kr"] * dkr

    def pull(self, multiplier: Tensor, cotangents: Cotangents, gradients: Inputs) -> tuple[Tensor, Tensor]:
        """Add d/dx of <cotangents, outputs> - <multiplier, F>; returns it for kr and the ponding before.

        ``multiplier``: [*side], of the equations F of the cells, which hold -A q.
        """
        weight = self.area * multiplier
        seed = cotangents.get(self.side)
        names = [name for name in side_names(self.problem, self.side) if name in gradients]
        found = self._derivatives(names, cotangents | {self.side: weight if seed is None else weight + seed})
        for name in names:
            of_interval(name, gradients[name], self.step.interval).add_(found[name])
        return found["kr"], found["ponding"]

    def push(self, psi: Tensor, kr: Tensor, ponding: Tensor, tangents: Tangents) -> dict[str, Tensor]:
        """Tangents of the outputs."""
        names = [name for name in side_names(self.problem, self.side) if name in tangents]
        moving = {name: of_interval(name, tangents[name], self.step.interval) for name in names}
        moving |= {"psi": psi, "kr": kr, "ponding": ponding}
        return pushed(lambda at: self._outputs(self._flow(at)), self._at(names), moving)


def faces_of(
    problem: StencilProblem, inputs: Inputs, step: Step, psi: Tensor, kr: Tensor
) -> dict[str, SideFaces]:
    """The faces of every side that is open, given psi and kr of the field."""
    return {
        side: SideFaces(problem, inputs, side, step, on_side(psi, side), on_side(kr, side))
        for side in problem.sides
    }
