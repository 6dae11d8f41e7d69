"""A column-flow trajectory as one node of the autograd graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dgpde.checkpoint import Checkpoint, StateStore
from dgpde.kernels.column_flow.adjoint import OUTPUTS, Replay, run_adjoint, run_tangent
from dgpde.kernels.column_flow.cpu import CpuBackend
from dgpde.kernels.column_flow.cuda import CudaBackend
from dgpde.kernels.column_flow.native import (
    Backend,
    NativeProblem,
    Outputs,
    Segment,
    allocate_outputs,
    native_problem,
    relative_balance,
    segment_inputs,
    segment_problem,
)
from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult, Report, check_inputs
from dgpde.kernels.node import FirstOrderOnly, is_tracked

log = logging.getLogger("dgpde")
BACKENDS = ("cpu", "cuda", "reference")


def choose_backend(sample: Tensor, name: str | None) -> Backend | None:
    """The native backend for a tensor's device, or None for the reference.

    Raises:
        ValueError: the backend asked for by name does not run such tensors.
        ImportError: the native module is missing or was built without it.
    """
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, it is {name!r}")
    if name == "reference":
        return None
    device = sample.device.type
    if name == "cuda":
        CudaBackend()  # raises where there is no GPU to move the tensors to
    if name is not None and name != device:
        raise ValueError(
            f"backend {name!r} needs tensors on {name}, these are on {device}; move them with .to()"
        )
    if name is None:
        _log_choice(device)
    return CpuBackend() if device == "cpu" else CudaBackend()


@cache
def _log_choice(name: str) -> None:
    log.info("column flow runs on the %s backend", name)


def column_flow(
    problem: ColumnProblem, inputs: dict[str, Tensor], backend: str | None = None
) -> ColumnResult:
    """Run the columns; differentiable in every input, in reverse and in forward mode.

    The accepted steps are constants of the differentiation: the gradient is that of the discrete solution on the
    steps that the run took.

    Args:
        problem: what is not differentiated.
        inputs: the tensors named by ``problem.input_names()``, of full shape; optionally "dt0" [n] s.
        backend: "cpu", "cuda", "reference" or None for the device's own.
    """
    check_inputs(problem, inputs)
    chosen = choose_backend(inputs["psi0"], backend)
    if chosen is None:
        from dgpde.kernels.column_flow.reference import column_flow_reference

        return column_flow_reference(problem, inputs)
    names = problem.input_names()
    tensors = [inputs[name] for name in names]
    trajectory = Trajectory(chosen, problem, names, inputs.get("dt0"))
    trajectory.record = any(is_tracked(tensor) for tensor in tensors)
    if trajectory.record:
        outputs = dict(zip(OUTPUTS, ColumnFlow.apply(trajectory, *tensors), strict=True))
        result = ColumnResult(**outputs, report=trajectory.report)
    else:
        result = trajectory.run([tensor.detach() for tensor in tensors])
    return replace(result, ride=Ride(trajectory, tuple(tensors)))


def segments(problem: ColumnProblem) -> list[Segment]:
    """The intervals between two kept states."""
    checkpoint = problem.options.checkpoint or Checkpoint("all")
    if checkpoint.policy == "binomial":
        raise ValueError("checkpoint: 'binomial' is for sections and domains; give columns every=k")
    length = checkpoint.every if checkpoint.policy == "every" else problem.intervals
    assert length is not None
    starts = range(0, problem.intervals, length)
    return [Segment(first, min(first + length, problem.intervals)) for first in starts]


class Trajectory:
    """One run: its segments, what is kept of them, and how they are walked again."""

    def __init__(
        self, backend: Backend, problem: ColumnProblem, names: tuple[str, ...], dt0: Tensor | None
    ) -> None:
        self.backend, self.problem, self.names, self.dt0 = backend, problem, names, dt0
        self.cuts = segments(problem)
        self.record = False
        self.report: Report
        self.histories: list[Any] = []
        self.native: NativeProblem | None = None  # of a run in one segment that was recorded
        self.states: StateStore | None = None

    def _inputs(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        inputs = {name: tensor.detach() for name, tensor in zip(self.names, tensors, strict=True)}
        if self.dt0 is not None:
            inputs["dt0"] = self.dt0
        return inputs

    def _segment(
        self, inputs: dict[str, Tensor], cut: Segment, state: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        part = segment_inputs(inputs, cut, self.problem)
        return part | {
            "psi0": state["psi"],
            "ponding0": state["ponding"],
            "dt0": state["dt"],
            "skip": state["status"],
        }

    def run(self, tensors: list[Tensor]) -> ColumnResult:
        """The forward run; keeps histories or states when ``record`` is set.

        Of the results it keeps the report alone: the outputs hold the node that holds this trajectory, and
        autograd cannot free such a circle.
        """
        inputs = self._inputs(tensors)
        out = allocate_outputs(self.problem, inputs)
        whole = len(self.cuts) == 1
        if self.record and not whole:
            self.states = StateStore(self.problem.options.checkpoint or Checkpoint("all"))
        for index, cut in enumerate(self.cuts):
            state = _state_of(out)
            if self.states is not None:
                self.states.put(index, state)
            part = self._segment(inputs, cut, state)
            keep = self.record and whole
            native, history = self._forward(cut, part, out, keep)
            if keep:
                self.native = native
                self.histories.append(history)
        relative_balance(out.result.report)
        if self.problem.options.record_steps:
            out.result.report.step_sizes = self._step_sizes(inputs)
        self.report = out.result.report
        return out.result

    def _forward(
        self, cut: Segment, part: dict[str, Tensor], out: Outputs, record: bool
    ) -> tuple[NativeProblem, Any]:
        """Run one segment: its problem and, when ``record``, its history."""
        problem = segment_problem(self.problem, cut)
        native = native_problem(self.backend.module, problem, part)
        return native, self.backend.forward(native, problem, out, cut, record)

    def keep(self, inputs: dict[str, Tensor]) -> None:
        """Run again, when nothing was recorded, and keep what the checkpoint policy says."""
        if not self.record:
            self.record = True
            report = self.report
            self.run([inputs[name] for name in self.names])
            self.report = report

    def walk(self, inputs: dict[str, Tensor]) -> Iterator[Replay]:
        """The segments with their histories, first first, whether or not anything was recorded."""
        if self.record:
            yield from self.replays(inputs, backwards=False)
            return
        state = self._start(inputs)
        scratch = allocate_outputs(self.problem, inputs)
        for cut in self.cuts:
            part = self._segment(inputs, cut, state)
            yield cut, part, self._forward(cut, part, scratch, True)[1]
            state = _state_of(scratch)

    def replays(self, inputs: dict[str, Tensor], backwards: bool) -> Iterator[Replay]:
        """The segments with their histories; those that were not kept are run again.

        Who walks them deletes a history before asking for the next, so that there is one at a time.
        """
        order = range(len(self.cuts))
        for index in reversed(order) if backwards else order:
            cut = self.cuts[index]
            if self.states is None and self.histories:
                yield cut, inputs, self.histories[index]
                continue
            assert self.states is not None
            part = self._segment(inputs, cut, self.states.get(index))
            scratch = allocate_outputs(self.problem, inputs)
            yield cut, part, self._forward(cut, part, scratch, True)[1]

    def _start(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        psi0 = inputs["psi0"]
        n, device = self.problem.n, psi0.device
        dt = self.dt0
        if dt is None:
            dt = torch.full((n,), self.problem.options.dt_initial, dtype=torch.float64, device=device)
        return {
            "psi": psi0,
            "ponding": inputs["ponding0"],
            "dt": dt,
            "status": torch.zeros(n, dtype=torch.int32, device=device),
        }

    def _step_sizes(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """T tensors [m_i, n] of accepted steps, zero padded."""
        tables = [(cut, history) for cut, _, history in self.walk(inputs)]
        sizes: list[Tensor] = []
        for cut, history in tables:
            for interval in range(cut.last - cut.first):
                sizes.append(torch.from_numpy(history.step_sizes(interval)))
        return sizes


def _state_of(out: Outputs) -> dict[str, Tensor]:
    """What the next segment begins with."""
    return {
        "psi": out.psi,
        "ponding": out.ponding,
        "dt": out.dt_next,
        "status": out.result.report.status.clone(),
    }


class Ride:
    """A finished run whose accepted steps are walked again, with the inputs that it had.

    Attributes:
        trajectory: its segments; it holds none of the outputs.
        tensors: the differentiable inputs, in the order of ``trajectory.names``, with their graphs.
    """

    def __init__(self, trajectory: Trajectory, tensors: tuple[Tensor, ...]) -> None:
        self.trajectory, self.tensors = trajectory, tensors
        self._versions = tuple(tensor._version for tensor in tensors)

    def check_unchanged(self) -> None:
        """Raise RuntimeError when an input has been changed in place since the run."""
        for name, tensor, version in zip(self.trajectory.names, self.tensors, self._versions, strict=True):
            if tensor._version != version:
                raise RuntimeError(
                    f"{name} of the flow run was changed in place after it; its steps cannot be walked again"
                )


class ColumnFlow(torch.autograd.Function):
    """(trajectory, *inputs) -> psi, ponding, top_flux, bottom_flux, runoff, uptake."""

    @staticmethod
    def forward(trajectory: Trajectory, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run, and keep in the trajectory what its checkpoint policy says."""
        result = trajectory.run(list(tensors))
        return tuple(getattr(result, name) for name in OUTPUTS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs; autograd raises when one of them is changed in place before backward."""
        trajectory, *tensors = inputs
        ctx.trajectory = trajectory
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs that ask for one."""
        trajectory: Trajectory = ctx.trajectory
        tensors = ctx.saved_tensors
        wanted = tuple(i for i in range(len(tensors)) if ctx.needs_input_grad[1 + i])
        # a node of its own only where somebody could differentiate it (and be told that it cannot be)
        adjoint = ColumnAdjoint.apply if torch.is_grad_enabled() else ColumnAdjoint.forward
        found = dict(zip(wanted, adjoint(trajectory, wanted, *tensors, *cotangents), strict=True))
        # the trajectory itself has no gradient
        return (None, *(found.get(i) for i in range(len(tensors))))

    @staticmethod
    def jvp(ctx: Any, _trajectory: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Tangents of the outputs, all of them."""
        return ColumnTangent.apply(ctx.trajectory, *ctx.saved_tensors, *tangents)


class ColumnAdjoint(FirstOrderOnly):
    """(trajectory, numbers of the wanted inputs, *inputs, *cotangents of the outputs) -> their gradients."""

    @staticmethod
    def forward(
        trajectory: Trajectory, wanted: tuple[int, ...], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Walk the trajectory backwards."""
        count = len(trajectory.names)
        inputs = trajectory._inputs([tensor for tensor in tensors[:count] if tensor is not None])
        names = [trajectory.names[i] for i in wanted]
        gradients = run_adjoint(
            trajectory.backend,
            trajectory.problem,
            inputs,
            dict(zip(OUTPUTS, tensors[count:], strict=True)),
            set(names),
            trajectory.replays(inputs, backwards=True),
            native=trajectory.native,
        )
        return tuple(gradients[name] for name in names)


class ColumnTangent(FirstOrderOnly):
    """(trajectory, *inputs, *tangents of the inputs) -> tangents of the outputs."""

    @staticmethod
    def forward(trajectory: Trajectory, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Walk the trajectory forwards, along its accepted steps."""
        count = len(trajectory.names)
        inputs = trajectory._inputs([tensor for tensor in tensors[:count] if tensor is not None])
        moving = zip(trajectory.names, tensors[count:], strict=True)
        outputs = run_tangent(
            trajectory.backend,
            trajectory.problem,
            inputs,
            {name: tangent.detach() for name, tangent in moving if tangent is not None},
            trajectory.replays(inputs, backwards=False),
        )
        return tuple(outputs[name] for name in OUTPUTS)
