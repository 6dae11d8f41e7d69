"""The water that carries the solutes: of a flow run, walked again, or steady."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.checkpoint import Checkpoint
from dgpde.kernels.column_flow.adjoint import run_adjoint, run_tangent
from dgpde.kernels.column_flow.function import Ride
from dgpde.kernels.column_flow.native import NativeProblem, Segment, native_problem, segment_problem
from dgpde.kernels.column_flow.reference import column_flow_reference
from dgpde.kernels.column_flow.reference_residual import WaterOfStep
from dgpde.kernels.column_transport.cpu import flow_water, steady
from dgpde.kernels.column_transport.reference import Step
from dgpde.kernels.node import is_tracked

Work = Callable[[Segment, Any], Any]  # segment, rows of its water -> rows of their cotangents
Follow = Callable[[Segment, Any, Any], None]  # segment, rows of its water, rows of their tangents or None


class Water(Protocol):
    """What the node of a transport asks of its water.

    Attributes:
        names: of the differentiable inputs.
        tensors: the inputs, with their graphs.
        cuts: the segments of the run.
        checkpoint: what is kept for the backward sweep.
        continuous: whether the fluxes follow from the bottom flux by continuity.
    """

    continuous: bool
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    cuts: list[Segment]
    checkpoint: Checkpoint

    def rows(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, Any]]:
        """The water of the segments, first first; ``record``: they will be walked backwards."""

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """Walk the segments last first; gradients of the wanted inputs from the cotangents that ``work`` returns."""

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], follow: Follow) -> None:
        """Walk the segments first first, with what the water's named inputs move."""

    def reference_steps(self) -> list[Step]:
        """The accepted steps in plain PyTorch, differentiable."""


class FlowWater:
    """The water of a column-flow run."""

    continuous = True

    def __init__(self, ride: Ride) -> None:
        ride.check_unchanged()
        self.ride, self.trajectory = ride, ride.trajectory
        self.names = tuple(f"flow.{name}" for name in self.trajectory.names)
        self.tensors = ride.tensors
        self.cuts = self.trajectory.cuts
        self.checkpoint = self.trajectory.problem.options.checkpoint or Checkpoint("all")
        storage = ride.tensors[self.trajectory.names.index("specific_storage")]
        self.elastic = is_tracked(storage) or bool((storage.detach() != 0.0).any())

    def rows(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, Any]]:
        """See ``Water``."""
        of_flow = self._of_flow(inputs)
        if record:
            self.trajectory.keep(of_flow)
        for segment, part, history in self.trajectory.walk(of_flow):
            yield segment, flow_water(self._native(segment, part), history, self.elastic)

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """See ``Water``."""
        trajectory, of_flow = self.trajectory, self._of_flow(inputs)

        def carried(segment: Segment, native: NativeProblem, history: Any) -> Any:
            return work(segment, flow_water(native, history, self.elastic))

        replays = trajectory.replays(of_flow, backwards=True)
        if not wanted:
            for segment, part, history in replays:
                carried(segment, self._native(segment, part), history)
                del history  # before the next one is made
            return {}
        names = {name.removeprefix("flow.") for name in wanted}
        found = run_adjoint(trajectory.backend, trajectory.problem, of_flow, {}, names, replays, carried)
        return {f"flow.{name}": value for name, value in found.items()}

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], follow: Follow) -> None:
        """See ``Water``."""
        trajectory, of_flow = self.trajectory, self._of_flow(inputs)

        def carried(segment: Segment, native: NativeProblem, history: Any, moves: Any) -> None:
            follow(segment, flow_water(native, history, self.elastic), moves)

        replays = trajectory.replays(of_flow, backwards=False)
        if not tangents:
            for segment, part, history in replays:
                carried(segment, self._native(segment, part), history, None)
                del history  # before the next one is made
            return
        moving = {name.removeprefix("flow."): value for name, value in tangents.items()}
        run_tangent(trajectory.backend, trajectory.problem, of_flow, moving, replays, carried)

    def reference_steps(self) -> list[Step]:
        """See ``Water``; the flow is solved again by its reference, on the steps that it took."""
        trajectory = self.trajectory
        inputs = dict(zip(trajectory.names, self.tensors, strict=True))
        sizes = trajectory._step_sizes(trajectory._inputs([tensor.detach() for tensor in self.tensors]))
        steps: list[Step] = []
        column_flow_reference(trajectory.problem, inputs, sizes, steps)
        return steps

    def _of_flow(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.trajectory._inputs([inputs[name] for name in self.names])

    def _native(self, segment: Segment, part: dict[str, Tensor]) -> NativeProblem:
        problem = segment_problem(self.trajectory.problem, segment)
        return native_problem(native_module(), problem, part)


class SteadyRows:
    """Water that does not change: "theta" [nz, n] and "flux" [nz + 1, n] m/s, positive up."""

    continuous = False

    def __init__(
        self, theta: Tensor, flux: Tensor, steps: list[list[float]], checkpoint: Checkpoint | None
    ) -> None:
        """Args:
        theta, flux: of full shape.
        steps: of each interval, s.
        checkpoint: as for a flow run; None for all.
        """
        self.names: tuple[str, ...] = ("theta", "flux")
        self.tensors: tuple[Tensor, ...] = (theta, flux)
        self.steps = steps
        self.checkpoint = checkpoint or Checkpoint("all")
        length = self.checkpoint.every if self.checkpoint.policy == "every" else len(steps)
        assert length is not None
        starts = range(0, len(steps), length)
        self.cuts = [Segment(first, min(first + length, len(steps))) for first in starts]

    def _make(self, theta: Tensor, flux: Tensor, segment: Segment) -> Any:
        steps = self.steps[segment.first : segment.last]
        intervals = [k for k, sizes in enumerate(steps) for _ in sizes]
        return steady(theta, flux, [size for sizes in steps for size in sizes], intervals)

    def _rows(self, theta: Tensor, flux: Tensor, segment: Segment) -> Any:
        water = native_module().WaterRows()
        native_module().steady_water(self._make(theta, flux, segment), water, torch.get_num_threads())
        return water

    def rows(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, Any]]:
        """See ``Water``."""
        for segment in self.cuts:
            yield segment, self._rows(inputs["theta"], inputs["flux"], segment)

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """See ``Water``."""
        bars = None
        for segment in reversed(self.cuts):
            bars = work(segment, self._rows(inputs["theta"], inputs["flux"], segment))
        if not wanted:
            return {}
        found = {name: torch.empty(inputs[name].shape, dtype=torch.float64) for name in self.names}
        into = self._make(found["theta"], found["flux"], self.cuts[0])
        native_module().steady_gradients(into, bars, torch.get_num_threads())
        return {name: found[name] for name in wanted}

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], follow: Follow) -> None:
        """See ``Water``; the rows are linear in the inputs."""
        d = {name: tangents.get(name, torch.zeros_like(inputs[name])) for name in self.names}
        for segment in self.cuts:
            moves = self._rows(d["theta"], d["flux"], segment) if tangents else None
            follow(segment, self._rows(inputs["theta"], inputs["flux"], segment), moves)

    def reference_steps(self) -> list[Step]:
        """See ``Water``."""
        theta, flux = self.tensors
        n = theta.shape[1]
        columns, none = torch.arange(n), torch.zeros_like(theta)
        found: list[Step] = []
        for interval, sizes in enumerate(self.steps):
            for size in sizes:
                dt = torch.full((n,), size, dtype=torch.float64)
                lacking = flux[:-1] - flux[1:]
                found.append((interval, columns, WaterOfStep(dt, theta, theta, flux[0], none, lacking, none)))
        return found
