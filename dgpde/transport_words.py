"""The checked words of a transport model, and a run of it that is ready to be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dgpde.frame import Frame
from dgpde.grid import Grid
from dgpde.options import SolveOptions
from dgpde.reaction import Reaction
from dgpde.solute import Solute
from dgpde.solution import Solution
from dgpde.steady_flow import SteadyFlow
from dgpde.transport_boundary import SoluteBoundary


@dataclass(frozen=True)
class TransportWords:
    """The checked arguments of a ``Transport``: what stays the same from run to run."""

    grid: Grid
    solutes: tuple[Solute, ...]
    single: bool  # one Solute was given, not a list: results have no axis of solutes
    boundaries: dict[str, dict[str, SoluteBoundary]]  # by solute, then for every side of the grid
    scheme: str
    cross_terms: bool
    reaction: Reaction | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the solutes."""
        return tuple(solute.name for solute in self.solutes)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the words, for the choice of type and device."""
        for solute in self.solutes:
            for name, tensor in solute.tensors():
                yield f"{name} of {solute.name!r}", tensor
            for side, boundary in self.boundaries[solute.name].items():
                for name, tensor in boundary.tensors():
                    yield f"{name} of the {side} {type(boundary).__name__}", tensor


@dataclass(frozen=True)
class TransportSetup:
    """A run that is ready to be computed.

    Attributes:
        words: the model.
        flow: the water.
        times: [T + 1] s, float64 on the CPU.
        frame: shape, type and device of the run.
        c0: [S, *grid.shape] kg/m3, a view of what was given.
        options: as given.
    """

    words: TransportWords
    flow: Solution | SteadyFlow
    times: Tensor
    frame: Frame
    c0: Tensor
    options: SolveOptions

    def solute_inputs(self, solute: Solute) -> dict[str, Tensor]:
        """The values of one solute as views of [*grid.shape]; production and source_concentration [T, *grid.shape];
        those of its sides as "top.c" and so on, [T, *side].

        Raises:
            ValueError: a shape that does not broadcast, a type or a device that does not fit.
        """
        frame, grid = self.frame, self.words.grid
        found = {}
        for name, value in solute.values().items():
            called = f"{name} of {solute.name!r}"
            if name in solute.in_time:
                found[name] = frame.full(frame.compact(called, value, grid.shape), grid.shape)
            else:
                found[name] = frame.constant(called, value, grid.shape)
        for side, boundary in self.words.boundaries[solute.name].items():
            found |= {f"{side}.{name}": value for name, value in boundary.inputs(frame, side).items()}
        return found
