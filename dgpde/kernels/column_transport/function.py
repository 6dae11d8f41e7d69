"""Transport along a run of water as one node of the autograd graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.checkpoint import StateStore
from dgpde.errors import SolveError
from dgpde.kernels.column_flow.native import Segment
from dgpde.kernels.column_transport.cpu import Backward, Run, adjoint, forward
from dgpde.kernels.column_transport.problem import (
    OUTPUTS,
    TransportProblem,
    TransportReport,
    TransportResult,
    check_inputs,
)
from dgpde.kernels.column_transport.reference import column_transport_reference
from dgpde.kernels.column_transport.water import Water
from dgpde.kernels.node import FirstOrderOnly, is_tracked

BACKENDS = ("cpu", "reference")


def column_transport(
    problem: TransportProblem, inputs: dict[str, Tensor], water: Water, backend: str | None = None
) -> TransportResult:
    """Carry the solutes along the accepted steps of the water.

    Differentiable in every input of the transport and of the water. The accepted steps are constants of the
    differentiation.

    Args:
        problem: what is not differentiated.
        inputs: the tensors named by ``problem.input_names()``, float64 on the CPU, of full shape.
        water: a flow run or steady water.
        backend: "cpu" (None) or "reference".

    Raises:
        ValueError: the backend is not one of them.
    """
    check_inputs(problem, inputs)
    if backend not in (None, *BACKENDS):
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)} or None for transport in columns, it is {backend!r}"
        )
    if backend == "reference":
        return column_transport_reference(problem, inputs, water.reference_steps())
    names = problem.input_names()
    tensors = [*water.tensors, *(inputs[name] for name in names)]
    journey = Journey(problem, names, water)
    journey.record = any(is_tracked(tensor) for tensor in tensors)
    if journey.record:
        found = dict(zip(OUTPUTS, ColumnTransport.apply(journey, *tensors), strict=True))
    else:
        found = journey.run([tensor.detach() for tensor in tensors])
    initial = [
        inputs.get(f"{i}.c0", found["concentration"].new_zeros(problem.nz, problem.n))
        for i in range(len(problem.solutes))
    ]
    # The initial concentrations are results too, and no kernel's.
    concentration = torch.cat([torch.stack(initial)[None], found["concentration"]])
    return TransportResult(concentration, found["top_flux"], found["bottom_flux"], journey.report)


class Journey:
    """One run of transport: what is kept of it, and how it is walked backwards."""

    def __init__(self, problem: TransportProblem, names: tuple[str, ...], water: Water) -> None:
        self.problem, self.names, self.water = problem, names, water
        self.record = False
        self.report: TransportReport
        self.kept: Any = None  # rows of the only segment
        self.states: StateStore | None = None

    def split(self, tensors: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The tensors of the water, and those of the transport by name."""
        count = len(self.water.names)
        return tensors[:count], dict(zip(self.names, tensors[count:], strict=True))

    def run(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """The forward run; keeps states as the water's checkpoint policy says when ``record`` is set."""
        of_water, inputs = self.split([tensor.detach() for tensor in tensors])
        run = Run.begin(self.problem)
        whole = len(self.water.cuts) == 1
        if self.record and not whole:
            self.states = StateStore(self.water.checkpoint)
        for index, (segment, rows) in enumerate(self.water.rows(of_water, self.record)):
            if self.states is not None:
                self.states.put(index, {"state": run.state, "status": run.report.status})
            kept = native_module().TransportRows() if self.record and whole else None
            forward(self.problem, inputs, rows, run, segment, kept)
            self.kept = kept
        self.report = run.report
        return run.outputs

    def rows_of(
        self, index: int, segment: Segment, rows: Any, inputs: dict[str, Tensor]
    ) -> tuple[Any, Tensor]:
        """The accepted states of a segment, and which columns had failed before it."""
        if self.states is None:
            return self.kept, torch.zeros(self.problem.n, dtype=torch.int32)
        start = self.states.get(index)
        again = Run.begin(self.problem)
        again.state.copy_(start["state"])
        again.report.status.copy_(start["status"])
        kept = native_module().TransportRows()
        forward(self.problem, inputs, rows, again, segment, kept)
        return kept, start["status"]

    def backward(
        self, tensors: list[Tensor], wanted: set[str], cotangents: dict[str, Tensor | None]
    ) -> dict[str, Tensor]:
        """Gradients of the wanted inputs, of the water ("flow.k_sat", "theta") and of the transport ("0.decay").

        Raises:
            SolveError: a transposed solve did not meet its tolerance.
        """
        problem = self.problem
        of_water, inputs = self.split([tensor.detach() for tensor in tensors])
        of_the_water = {name for name in wanted if name in self.water.names}
        sweep = Backward(
            problem=problem,
            inputs=inputs,
            cotangents={name: value.contiguous() for name, value in cotangents.items() if value is not None},
            gradients={
                name: torch.zeros(inputs[name].shape, dtype=torch.float64)
                for name in self.names
                if name in wanted
            },
            carry=torch.zeros(len(problem.solutes), 3, problem.nz, problem.n, dtype=torch.float64),
            status=torch.zeros(problem.n, dtype=torch.int32),
            continuous=self.water.continuous,
            water_wanted=bool(of_the_water),
        )

        def work(segment: Segment, rows: Any) -> Any:
            kept, skip = self.rows_of(self.water.cuts.index(segment), segment, rows, inputs)
            return adjoint(sweep, rows, kept, segment, skip)

        found = self.water.backward(of_water, of_the_water, work)
        if bool(sweep.status.any()):
            columns = sweep.status.nonzero().flatten()
            raise SolveError(
                f"the transposed linear solve of {columns.numel()} column(s) of the transport did not meet "
                f"linear_tolerance = {problem.linear_tolerance:g} (columns {columns[:8].tolist()}): loosen it, or "
                "shorten the steps of the flow",
                columns=columns,
            )
        return found | sweep.gradients


class ColumnTransport(torch.autograd.Function):
    """(journey, *inputs of the water, *inputs of the transport) -> concentration, top_flux, bottom_flux."""

    @staticmethod
    def forward(journey: Journey, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run, and keep in the journey what its checkpoint policy says."""
        found = journey.run(list(tensors))
        return tuple(found[name] for name in OUTPUTS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs; autograd raises when one of them is changed in place before backward."""
        journey, *tensors = inputs
        ctx.journey = journey
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs that ask for one."""
        tensors = ctx.saved_tensors
        wanted = tuple(i for i in range(len(tensors)) if ctx.needs_input_grad[1 + i])
        found = TransportReverse.apply(ctx.journey, wanted, *tensors, *cotangents)
        by_number = dict(zip(wanted, found, strict=True))
        # the journey itself has no gradient
        return (None, *(by_number.get(i) for i in range(len(tensors))))

    @staticmethod
    def jvp(ctx: Any, _journey: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Raise: there is no tangent run yet."""
        raise NotImplementedError(
            "transport in columns has no forward mode: take reverse mode, run the flow with engine='field', or "
            "options.backend='reference'"
        )


class TransportReverse(FirstOrderOnly):
    """(journey, numbers of the wanted inputs, *inputs, *cotangents of the outputs) -> their gradients."""

    @staticmethod
    def forward(journey: Journey, wanted: tuple[int, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Walk the journey backwards."""
        names = (*journey.water.names, *journey.names)
        inputs = [tensor for tensor in tensors[: len(names)] if tensor is not None]
        asked = [names[i] for i in wanted]
        cotangents = dict(zip(OUTPUTS, tensors[len(names) :], strict=True))
        found = journey.backward(inputs, set(asked), cotangents)
        return tuple(found[name] for name in asked)
