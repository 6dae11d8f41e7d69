"""Water that roots take from the cells of fields, by PyTorch for every backend: one formula, its slopes by autograd.

    U_c = V_c Tp b_c a(psi_c)   [m3/s],   F holds + U_c,   uptake of a column of cells = sum of its U_c / its area [m/s]

with a of Feddes or a table, as in the columns (``column_flow/reference_responses.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import FEDDES_HEADS
from dgpde.kernels.column_flow.reference_responses import feddes
from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.flow_stencil.problem import (
    Cotangents,
    StencilProblem,
    Step,
    Tangents,
    of_interval,
)
from dgpde.kernels.flow_stencil.responses import by_table

Inputs = dict[str, Tensor]


def response(problem: StencilProblem, at: Inputs, psi: Tensor) -> Tensor:
    """a at psi [layers, ny, nx]; ``at``: the inputs of an interval."""
    if problem.root_knots is None:
        return feddes(psi, *(at[f"roots.{name}"] for name in FEDDES_HEADS))
    return by_table(at["root_response"], problem.root_knots, psi)


def at_interval(problem: StencilProblem, inputs: Inputs, interval: int) -> Inputs:
    """What the inputs of the roots are in an interval."""
    return {name: of_interval(name, inputs[name], interval) for name in problem.root_names()}


def taken(problem: StencilProblem, at: Inputs, psi: Tensor, volume: Tensor) -> Tensor:
    """U of the highest layers, [layers, ny, nx] m3/s, given psi and the volume of their cells."""
    density = at["roots.density"].narrow(0, problem.shape[0] - psi.shape[0], psi.shape[0])
    return volume * at["roots.transpiration"] * density * response(problem, at, psi)


class RootZone:
    """The roots of a run: what they take from the layers that they reach.

    Args:
        problem: one with ``roots``.
        inputs: its inputs, detached.

    Attributes:
        first: the lowest of these layers.
    """

    def __init__(self, problem: StencilProblem, inputs: Inputs) -> None:
        self.problem, self.inputs = problem, inputs
        reached = (inputs["roots.density"] > 0.0).movedim(1, 0).flatten(1).any(1)
        self.first = int(reached.to(torch.int8).argmax())
        self.volume = problem.volume(inputs["psi0"])
        self.plan = problem.plan(self.volume)

    def taken(self, interval: int, psi: Tensor) -> tuple[Tensor, Tensor]:
        """(U, dU/dpsi) of the layers from ``first`` up, [layers, ny, nx] m3/s and m2/s."""
        problem, at = self.problem, at_interval(self.problem, self.inputs, interval)
        x = psi[self.first :].detach().clone().requires_grad_()
        with torch.enable_grad():
            found = taken(problem, at, x, self.volume[self.first :])
            slope = torch.autograd.grad(found.sum(), x)[0]
        return found.detach(), slope

    def uptake(self, taken: Tensor) -> Tensor:
        """[ny, nx] m/s, given U of any of the highest layers that hold all roots."""
        return taken.sum(0) / self.plan

    def field(self, interval: int, psi: Tensor) -> Tensor:
        """U of all cells, [nz, ny, nx] m3/s."""
        return self._padded(self.taken(interval, psi)[0])

    def _padded(self, value: Tensor) -> Tensor:
        below = self.problem.shape[0] - value.shape[0]
        return torch.cat([value.new_zeros(below, *value.shape[1:]), value])

    def _seed(self, cotangents: Cotangents, first: int) -> Tensor | None:
        """Of U, from its outputs, [layers, ny, nx] or [1, ny, nx]."""
        seed = cotangents["uptake"][None] / self.plan if "uptake" in cotangents else None
        if "roots" not in cotangents:
            return seed
        by_cell = cotangents["roots"][first:]
        return by_cell if seed is None else by_cell + seed

    def load(self, step: Step, psi: Tensor, cotangents: Cotangents, found: Tensor) -> None:
        """Add d/dpsi of <cotangents, outputs>."""
        seed = self._seed(cotangents, self.first)
        if seed is not None:
            found[self.first :].add_(seed * self.taken(step.interval, psi)[1])

    def pull(
        self, step: Step, psi: Tensor, multiplier: Tensor, cotangents: Cotangents, gradients: Inputs
    ) -> None:
        """Add d/dx of <cotangents, outputs> - <multiplier, F> to the gradients of the roots' inputs."""
        problem = self.problem
        names = [name for name in problem.root_names() if name in gradients]
        if not names:
            return
        # a density that is 0 has a gradient too
        first = 0 if "roots.density" in names else self.first
        seed = self._seed(cotangents, first)
        seed = -multiplier[first:] if seed is None else seed - multiplier[first:]
        at = at_interval(problem, self.inputs, step.interval)
        leaves = {name: at[name].detach().clone().requires_grad_() for name in names}
        with torch.enable_grad():
            found = taken(problem, at | leaves, psi[first:], self.volume[first:])
            by_input = torch.autograd.grad(found, list(leaves.values()), seed)
        for name, gradient in zip(names, by_input, strict=True):
            of_interval(name, gradients[name], step.interval).add_(gradient)

    def push(self, step: Step, psi: Tensor, dot_psi: Tensor, tangents: Tangents, found: Tensor) -> Tangents:
        """Add the tangent of U to that of F; returns those of the outputs."""
        problem, at = self.problem, at_interval(self.problem, self.inputs, step.interval)
        moving = {
            name: of_interval(name, tangents[name], step.interval)
            for name in problem.root_names()
            if name in tangents
        }
        first = 0 if "roots.density" in moving else self.first

        def function(here: Inputs) -> Inputs:
            return {"roots": taken(problem, at | here, here["psi"], self.volume[first:])}

        where = {"psi": psi[first:]} | {name: at[name] for name in moving}
        dot = pushed(function, where, moving | {"psi": dot_psi[first:]})["roots"]
        found[first:].add_(dot)
        return {"roots": self._padded(dot), "uptake": self.uptake(dot)}
