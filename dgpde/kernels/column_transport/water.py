"""The water that carries the solutes: of a flow run, walked again, or steady."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.checkpoint import Checkpoint
from dgpde.kernels.column_flow.adjoint import Replay, run_adjoint, run_tangent
from dgpde.kernels.column_flow.function import Ride
from dgpde.kernels.column_flow.native import NativeProblem, Segment, native_problem, segment_problem
from dgpde.kernels.column_flow.reference import column_flow_reference
from dgpde.kernels.column_flow.reference_residual import WaterOfStep
from dgpde.kernels.column_transport.cpu import NativeWater, flow_water, steady_water
from dgpde.kernels.column_transport.reference import Step
from dgpde.kernels.node import is_tracked

Work = Callable[[Segment, NativeWater], None]


class Water(Protocol):
    """What the node of a transport asks of its water.

    Attributes:
        names: of the differentiable inputs.
        tensors: the inputs, with their graphs.
        cuts: the segments of the run.
        checkpoint: what is kept for the backward sweep.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    cuts: list[Segment]
    checkpoint: Checkpoint

    def walk(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, NativeWater]]:
        """The water of the segments, first first; ``record``: they will be walked again."""

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """Walk the segments last first by ``work``; gradients of the wanted inputs."""

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], work: Work) -> None:
        """Walk the segments first first by ``work``, with tangents of the water's inputs."""

    def reference_steps(self) -> list[Step]:
        """The accepted steps in plain PyTorch, differentiable."""


class FlowWater:
    """The water of a column-flow run."""

    def __init__(self, ride: Ride) -> None:
        ride.check_unchanged()
        self.ride, self.trajectory = ride, ride.trajectory
        self.names = tuple(f"flow.{name}" for name in self.trajectory.names)
        self.tensors = ride.tensors
        self.cuts = self.trajectory.cuts
        self.checkpoint = self.trajectory.problem.options.checkpoint or Checkpoint("all")
        storage = ride.tensors[self.trajectory.names.index("specific_storage")]
        self.elastic = is_tracked(storage) or bool((storage.detach() != 0.0).any())

    def walk(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, NativeWater]]:
        """See ``Water``."""
        of_flow = self._of_flow(inputs)
        if record:
            self.trajectory.keep(of_flow)
        for segment, part, history in self.trajectory.walk(of_flow):
            yield segment, self._water(segment, part, history)
            del history  # before the next one is made

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """See ``Water``."""
        trajectory, of_flow = self.trajectory, self._of_flow(inputs)
        replays = trajectory.replays(of_flow, backwards=True)
        if not wanted:
            self._alone(replays, work)
            return {}

        def walk(segment: Segment, native: NativeProblem, io: Any, history: Any) -> None:
            work(segment, flow_water(native, history, self.elastic, cotangents=io))

        names = {name.removeprefix("flow.") for name in wanted}
        found = run_adjoint(trajectory.backend, trajectory.problem, of_flow, {}, names, replays, walk)
        return {f"flow.{name}": value for name, value in found.items()}

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], work: Work) -> None:
        """See ``Water``."""
        trajectory, of_flow = self.trajectory, self._of_flow(inputs)
        replays = trajectory.replays(of_flow, backwards=False)
        if not tangents:
            self._alone(replays, work)
            return

        def walk(segment: Segment, native: NativeProblem, io: Any, history: Any) -> None:
            work(segment, flow_water(native, history, self.elastic, tangents=io))

        moving = {name.removeprefix("flow."): value for name, value in tangents.items()}
        run_tangent(trajectory.backend, trajectory.problem, of_flow, moving, replays, walk)

    def _alone(self, replays: Iterator[Replay], work: Work) -> None:
        """Walk segments of whose water nothing is asked."""
        for segment, part, history in replays:
            work(segment, self._water(segment, part, history))
            del history  # before the next one is made

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

    def _water(self, segment: Segment, part: dict[str, Tensor], history: Any) -> NativeWater:
        problem = segment_problem(self.trajectory.problem, segment)
        return flow_water(native_problem(native_module(), problem, part), history, self.elastic)


class SteadyRows:
    """Water that does not change: "theta" [nz, n] and "flux" [nz + 1, n] m/s, positive up."""

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

    def _water(self, fields: dict[str, Tensor], segment: Segment) -> NativeWater:
        steps = self.steps[segment.first : segment.last]
        intervals = [k for k, sizes in enumerate(steps) for _ in sizes]
        return steady_water(fields, [size for sizes in steps for size in sizes], intervals)

    def _fields(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: inputs[name] for name in self.names}

    def walk(self, inputs: dict[str, Tensor], record: bool) -> Iterator[tuple[Segment, NativeWater]]:
        """See ``Water``."""
        for segment in self.cuts:
            yield segment, self._water(self._fields(inputs), segment)

    def backward(self, inputs: dict[str, Tensor], wanted: set[str], work: Work) -> dict[str, Tensor]:
        """See ``Water``."""
        cells, faces = inputs["theta"].shape, inputs["flux"].shape
        theta, before, flux, lack = (
            inputs["theta"].new_zeros(shape) for shape in (cells, cells, faces, cells)
        )
        for segment in reversed(self.cuts):
            water = self._water(self._fields(inputs), segment)
            if wanted:
                of_theta = before.data_ptr() if "theta" in wanted else 0
                water.native.set_sums(theta.data_ptr(), of_theta, flux.data_ptr(), lack.data_ptr())
            work(segment, water)
        if not wanted:
            return {}
        # what a balance lacks is the flux below the cell less the one above
        flux[:-1] += lack
        flux[1:] -= lack
        found = {"theta": theta + before, "flux": flux}
        return {name: found[name] for name in wanted}

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor], work: Work) -> None:
        """See ``Water``."""
        fields = self._fields(inputs)
        if tangents:
            fields |= {
                f"{name}_moves": tangents.get(name, torch.zeros_like(inputs[name])) for name in self.names
            }
        for segment in self.cuts:
            work(segment, self._water(fields, segment))

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
