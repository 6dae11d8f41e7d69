"""The reverse and forward derivatives of a whole trajectory, segment by segment, on a native backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dgpde.errors import SolveError
from dgpde.kernels.column_flow.native import (
    Backend,
    NativeProblem,
    Segment,
    input_slots,
    native_problem,
    segment_inputs,
    segment_problem,
    strides_tzn,
    table_rows,
)
from dgpde.kernels.column_flow.problem import RESPONSES, SOIL_PARAMETERS, ColumnProblem
from dgpde.kernels.soil_relation.reference import is_shared

OUTPUTS = ("psi", "ponding", "top_flux", "bottom_flux", "runoff", "uptake")
Walk = Callable[
    [Segment, NativeProblem, Any, Any], None
]  # segment, its problem, cotangents or tangents, history
Replay = tuple[Segment, dict[str, Tensor], Any]  # segment, inputs with the state at its start, history


def output_strides(name: str, value: Tensor) -> tuple[int, int, int]:
    """Strides (row or interval, cell, column) of an output."""
    if name == "psi":
        return value.stride(0), value.stride(1), value.stride(2)
    return value.stride(0), 0, value.stride(1)


def _segment_rows(problem: ColumnProblem, segment: Segment, device: torch.device) -> Tensor:
    rows = [-1] * (problem.intervals + 1)
    for row, index in enumerate(problem.save):
        rows[index] = row
    return torch.tensor(rows[segment.first : segment.last + 1], device=device)


def run_adjoint(
    backend: Backend,
    problem: ColumnProblem,
    inputs: dict[str, Tensor],
    cotangents: dict[str, Tensor | None],
    wanted: set[str],
    replays: Iterable[Replay],
    walk: Walk | None = None,
    native: NativeProblem | None = None,
) -> dict[str, Tensor]:
    """Gradients of the wanted inputs, each with the input's own shape.

    Args:
        backend: walks the segments.
        problem, inputs: of the whole run; inputs may have size 1 in time where they are constant.
        cotangents: of the outputs by name; None is zero.
        wanted: names of the inputs whose gradients are asked for.
        replays: the segments with their histories, last first.
        walk: walks a segment in the backend's place, for whom its water carried something.
        native: the problem of a run in one segment, where the forward run has left it.

    Raises:
        SolveError: a transposed solve did not meet options.linear_tolerance.
    """
    module = backend.module
    psi0 = inputs["psi0"]
    n, nz, dtype, device = problem.n, problem.nz, psi0.dtype, psi0.device
    n_soil = 0 if problem.relation == "tabulated" else len(SOIL_PARAMETERS[problem.relation])

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    state: dict[str, Tensor] = {}  # what one segment hands to the next
    gradients = {name: zeros(*inputs[name].shape) for name in wanted}
    if problem.roots and "omega_c" not in gradients:
        gradients["omega_c"] = zeros(n)
    if "soil.table" in wanted:
        table = inputs["soil.table"]
        # chunks of (sum, what its rounding lost), see ColumnAdjoint::add_soil
        gradients["soil.table"] = zeros(backend.table_chunks(table), 2, *table.shape)
    if "soil.weights" in wanted:
        # of each column by itself: so the sum has one order, however the run is cut into segments
        gradients["soil.weights"] = zeros(inputs["soil.weights"].numel(), n)
    for name in wanted.intersection(RESPONSES):
        # laid out as by table_rows
        gradients[name] = zeros(n, *inputs[name].shape[:2]).permute(1, 2, 0)
    failed = torch.zeros(n, dtype=torch.int32, device=device)
    dense = {name: value.contiguous() for name, value in cotangents.items() if value is not None}

    resume = False
    for segment, part, history in replays:
        mine = native or native_problem(module, segment_problem(problem, segment), part)
        if not state and segment.first > 0:
            state = {
                name: zeros(nz, n)
                for name in ("carry_psi", "carry_theta", "sum_face", "sum_storage", "sum_k")
            }
            state |= {"carry_ponding": zeros(n), "sum_soil": zeros(max(n_soil, 1), nz, n)}
        io = module.ColumnCotangents()
        io.resume, io.first = resume, segment.first == 0
        rows = _segment_rows(problem, segment, device)
        io.set_save_row(rows.data_ptr())
        io.set_status(failed.data_ptr())
        for name, value in dense.items():
            first = 0 if name == "psi" else segment.first
            io.set_cotangent(name, value[first:].data_ptr(), *output_strides(name, value))
        for name, value in state.items():
            soil, cell = (nz * n if name == "sum_soil" else 0), (0 if name == "carry_ponding" else n)
            io.set_state(name, value.data_ptr(), soil, cell, 1)
        cut = segment_inputs(gradients, segment, problem)
        for name, group, slot in input_slots(problem):
            if name not in gradients:
                continue
            value = gradients[name] if is_shared(name) else cut[name]
            if name == "soil.weights":
                strides = value.stride(0), 0, 1
            else:
                strides = (value.stride(0), 0, 0) if name == "soil.table" else strides_tzn(name, value)
            io.set_gradient(group, slot, value.data_ptr(), *strides)
        if walk:
            walk(segment, mine, io, history)
        else:
            backend.adjoint(mine, io, history)
        del history  # before the next one is made
        resume = True

    if failed.count_nonzero():
        columns = failed.nonzero().flatten().tolist()
        raise SolveError(
            f"the transposed linear solve of {len(columns)} column(s) did not meet linear_tolerance = "
            f"{problem.options.linear_tolerance:g} (columns {columns[:8]}{'...' if len(columns) > 8 else ''}): "
            "their Jacobian is singular or nearly so, as in a saturated column without specific storage and "
            "without a head boundary; give a specific_storage, or loosen linear_tolerance",
            columns=failed.nonzero().flatten().cpu(),
        )
    if "soil.table" in wanted:
        gradients["soil.table"] = gradients["soil.table"].sum(1).sum(0)
    if "soil.weights" in wanted:
        gradients["soil.weights"] = gradients["soil.weights"].sum(1).reshape(inputs["soil.weights"].shape)
    psi_bar = dense.get("psi")
    if "psi0" in wanted and psi_bar is not None and problem.save and problem.save[0] == 0:
        gradients["psi0"] += psi_bar[0]
    ponding_bar = dense.get("ponding")
    if "ponding0" in wanted and ponding_bar is not None:
        gradients["ponding0"] += ponding_bar[0]
    return {name: gradients[name] for name in wanted}


def run_tangent(
    backend: Backend,
    problem: ColumnProblem,
    inputs: dict[str, Tensor],
    tangents: dict[str, Tensor],
    replays: Iterable[Replay],
    walk: Walk | None = None,
) -> dict[str, Tensor]:
    """Tangents of the outputs for tangents of some inputs (the others do not move).

    Args:
        backend, problem, inputs: as for `run_adjoint`.
        tangents: by input name, with the inputs' shapes.
        replays: the segments with their histories, first first.
        walk: as for `run_adjoint`.
    """
    module = backend.module
    psi0 = inputs["psi0"]
    n, nz, t, dtype, device = problem.n, problem.nz, problem.intervals, psi0.dtype, psi0.device

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    outputs = {"psi": zeros(len(problem.save), nz, n), "ponding": zeros(t + 1, n)}
    outputs |= {name: zeros(t, n) for name in OUTPUTS[2:]}
    if "psi0" in tangents and problem.save and problem.save[0] == 0:
        outputs["psi"][0] = tangents["psi0"]
    if "ponding0" in tangents:
        outputs["ponding"][0] = tangents["ponding0"]
    state = {"psi": zeros(nz, n), "theta": zeros(nz, n), "ponding": zeros(n)}

    for segment, part, history in replays:
        native = native_problem(module, segment_problem(problem, segment), part)
        io = module.ColumnTangents()
        io.start = segment.first == 0
        rows = _segment_rows(problem, segment, device)
        io.set_save_row(rows.data_ptr())
        for name, value in state.items():
            io.set_state(name, value.data_ptr(), 0 if name == "ponding" else n, 1)
        for name, value in outputs.items():
            first = 0 if name == "psi" else segment.first
            io.set_output(name, value[first:].data_ptr(), *output_strides(name, value))
        cut = segment_inputs(tangents, segment, problem)
        keep = []
        for name, group, slot in input_slots(problem):
            if name not in cut:
                continue
            value = cut[name].detach()
            if is_shared(name):
                value = value.contiguous()
                io.set_tangent(group, slot, value.data_ptr(), 0, 0, 0)
            else:
                value = table_rows(value) if name in RESPONSES else value
                io.set_tangent(group, slot, value.data_ptr(), *strides_tzn(name, value))
            keep.append(value)
        if walk:
            walk(segment, native, io, history)
        else:
            backend.tangent(native, io, history)
        del history
    return outputs
