"""Transport along a run of water as one node of the autograd graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.checkpoint import StateStore
from dgpde.errors import SolveError
from dgpde.kernels.column_flow.native import Segment
from dgpde.kernels.column_transport.cpu import (
    Backward,
    Forward,
    NativeWater,
    Run,
    adjoint,
    forward,
    tangent,
)
from dgpde.kernels.column_transport.problem import (
    OUTPUTS,
    TransportProblem,
    TransportReport,
    TransportResult,
    check_inputs,
)
from dgpde.kernels.column_transport.reference import column_transport_reference
from dgpde.kernels.column_transport.water import Water
from dgpde.kernels.node import as_node

BACKENDS = ("cpu", "reference")


def column_transport(
    problem: TransportProblem, inputs: dict[str, Tensor], water: Water, backend: str | None = None
) -> TransportResult:
    """Carry the solutes along the accepted steps of the water.

    Differentiable in every input of the transport and of the water, in reverse and in forward mode. The accepted steps
    are constants of the differentiation.

    Args:
        problem: what is not differentiated.
        inputs: the tensors named by ``problem.input_names()``, of ``problem.dtype`` on the CPU, of full shape.
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
        if problem.dtype != torch.float64:
            raise ValueError(f"backend 'reference' computes in float64, the inputs are {problem.dtype}")
        return column_transport_reference(problem, inputs, water.reference_steps())
    journey = Journey(problem, water)
    own = {name: inputs[name] for name in problem.input_names()}
    found = as_node(journey, dict(zip(water.names, water.tensors, strict=True)) | own)
    initial = [
        inputs.get(f"{i}.c0", found["concentration"].new_zeros(problem.nz, problem.n))
        for i in range(len(problem.solutes))
    ]
    # The initial concentrations are results too, and no kernel's.
    concentration = torch.cat([torch.stack(initial)[None], found["concentration"]])
    return TransportResult(concentration, found["top_flux"], found["bottom_flux"], journey.report)


class Journey:
    """One run of transport (``dgpde.kernels.node.Run``): what is kept of it, and how it is walked again."""

    output_names = OUTPUTS

    def __init__(self, problem: TransportProblem, water: Water) -> None:
        self.problem, self.water = problem, water
        self.own = problem.input_names()
        self.names = (*water.names, *self.own)
        self.record = False
        self.report: TransportReport
        self.kept: Any = None  # rows of the only segment
        self.states: StateStore | None = None

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The forward run; keeps states as the water's checkpoint policy says when ``record`` is set."""
        run = Run.begin(self.problem)
        whole = len(self.water.cuts) == 1
        if self.record and not whole:
            self.states = StateStore(self.water.checkpoint)
        for index, (segment, water) in enumerate(self.water.walk(inputs, self.record)):
            if self.states is not None:
                self.states.put(index, {"state": run.state, "status": run.report.status})
            kept = native_module().TransportRows() if self.record and whole else None
            forward(self.problem, inputs, water, run, segment, kept)
            self.kept = kept
            del water  # before the next one is made
        self.report = run.report
        return run.outputs

    def rows_of(
        self, index: int, segment: Segment, water: NativeWater, inputs: dict[str, Tensor]
    ) -> tuple[Any, Tensor]:
        """The accepted states of a segment, and which columns had failed before it."""
        if self.states is None:
            return self.kept, torch.zeros(self.problem.n, dtype=torch.int32)
        start = self.states.get(index)
        again = Run.begin(self.problem)
        again.state.copy_(start["state"])
        again.report.status.copy_(start["status"])
        kept = native_module().TransportRows()
        forward(self.problem, inputs, water, again, segment, kept)
        return kept, start["status"]

    def adjoint(
        self, inputs: dict[str, Tensor], cotangents: dict[str, Tensor | None], wanted: set[str]
    ) -> dict[str, Tensor]:
        """Gradients of the wanted inputs, of the water ("flow.k_sat", "theta") and of the transport ("0.decay").

        Raises:
            SolveError: a transposed solve did not meet its tolerance.
        """
        problem = self.problem
        of_the_water = {name for name in wanted if name in self.water.names}
        sweep = Backward(
            problem=problem,
            inputs=inputs,
            cotangents={name: value.contiguous() for name, value in cotangents.items() if value is not None},
            gradients={
                name: torch.zeros(inputs[name].shape, dtype=problem.dtype)
                for name in self.own
                if name in wanted
            },
            carry=torch.zeros(len(problem.solutes), 3, problem.nz, problem.n, dtype=problem.dtype),
            status=torch.zeros(problem.n, dtype=torch.int32),
        )

        def work(segment: Segment, water: NativeWater) -> None:
            kept, skip = self.rows_of(self.water.cuts.index(segment), segment, water, inputs)
            adjoint(sweep, water, kept, segment, skip)

        found = self.water.backward(inputs, of_the_water, work)
        if bool(sweep.status.any()):
            columns = sweep.status.nonzero().flatten()
            raise SolveError(
                f"the transposed linear solve of {columns.numel()} column(s) of the transport did not meet "
                f"linear_tolerance = {problem.linear_tolerance:g} (columns {columns[:8].tolist()}): loosen it, or "
                "shorten the steps of the flow",
                columns=columns,
            )
        return found | sweep.gradients

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tangents of the outputs; inputs of the water and of the transport that are not named do not move."""
        problem = self.problem
        own = {name: value for name, value in tangents.items() if name in self.own}
        walk = Forward.begin(problem, inputs, own)

        def work(segment: Segment, water: NativeWater) -> None:
            kept, skip = self.rows_of(self.water.cuts.index(segment), segment, water, inputs)
            tangent(walk, water, kept, segment, skip)

        of_the_water = {name: value for name, value in tangents.items() if name in self.water.names}
        self.water.tangent(inputs, of_the_water, work)
        return walk.outputs
