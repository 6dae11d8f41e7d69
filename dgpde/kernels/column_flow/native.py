"""From a ColumnProblem and its tensors to the structs of `dgpde._C`, shared by the CPU and CUDA callers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import (
    BOUNDARY_VALUES,
    FACE_MEANS,
    FEDDES_HEADS,
    RESPONSES,
    SOIL_PARAMETERS,
    ColumnProblem,
    ColumnResult,
    Report,
)
from dgpde.kernels.soil_relation.reference import is_shared
from dgpde.kernels.soil_relation.reference_network import OWN

_BOUNDARY_CODES = {name: code for code, name in enumerate(BOUNDARY_VALUES)}
_RELATION_CODES = {name: code for code, name in enumerate(SOIL_PARAMETERS)}


def input_slots(problem: ColumnProblem) -> tuple[tuple[str, str, int], ...]:
    """(input name, name in the C++ struct, slot) for every tensor that the kernel reads."""
    return _slots(problem.input_names(), problem.relation, problem.top, problem.bottom)


@cache
def _slots(names: tuple[str, ...], relation: str, top: str, bottom: str) -> tuple[tuple[str, str, int], ...]:
    slots = []
    for name in names:
        group, _, field = name.partition(".")
        if name == "soil.table":
            slots.append((name, "soil", 0))
        elif name == "soil.weights":
            slots.append((name, "weights", 0))
        elif group == "soil":
            slots.append((name, "soil", SOIL_PARAMETERS[relation].index(field)))
        elif group == "top":
            slots.append((name, "top", BOUNDARY_VALUES[top].index(field)))
        elif group == "bottom":
            slots.append((name, "bottom", BOUNDARY_VALUES[bottom].index(field)))
        elif name in FEDDES_HEADS:
            slots.append((name, "feddes", int(name[1]) - 1))
        elif name in RESPONSES:
            slots.append((name, "response", RESPONSES.index(name)))
        else:
            slots.append((name, name, 0))
    return tuple(slots)


def strides_tzn(name: str, value: Tensor) -> tuple[int, int, int]:
    """Strides in elements along (interval, cell, column); 0 where the input has no such axis."""
    strides = tuple(0 if size == 1 else step for size, step in zip(value.shape, value.stride(), strict=True))
    if name in ("ponding0", "omega_c"):
        return 0, 0, strides[0]
    if name in ("root_density", "source", *RESPONSES):
        return strides[0], strides[1], strides[2]
    if name in ("psi0", "k_sat", "specific_storage") or name.startswith("soil."):
        return 0, strides[0], strides[1]
    return strides[0], 0, strides[1]


def table_rows(table: Tensor) -> Tensor:
    """[n_knots, 2, n] with the numbers of a column side by side, as the kernels read them; one for all stays one."""
    own = table[..., :1] if table.stride(2) == 0 else table
    return own.permute(2, 0, 1).contiguous().permute(1, 2, 0)


@dataclass
class NativeProblem:
    """The C++ problem together with the tensors whose memory it points to."""

    native: Any
    single: bool
    device: torch.device
    keep: list[Any]


def native_problem(module: Any, problem: ColumnProblem, inputs: dict[str, Tensor]) -> NativeProblem:
    """Build `dgpde._C.ColumnProblem`. Inputs must have their full shapes; stride-0 views are read as they are."""
    options = problem.options
    p = module.ColumnProblem()
    p.n, p.nz, p.intervals = problem.n, problem.nz, problem.intervals
    p.gravity = problem.gravity
    p.relation, p.variant = _RELATION_CODES[problem.relation], problem.variant
    p.face_mean = FACE_MEANS.index(problem.face_mean)
    p.top, p.bottom = _BOUNDARY_CODES[problem.top], _BOUNDARY_CODES[problem.bottom]
    p.roots, p.sources = problem.roots, problem.sources
    p.tolerance, p.dt_min, p.dt_max = options.tolerance, options.dt_min, options.dt_max
    p.dt_fixed = options.dt_fixed or 0.0
    p.time_error = 0.0 if options.dt_fixed or options.time_error is None else options.time_error
    p.linear_tolerance = options.linear_tolerance
    p.max_newton, p.max_steps = options.max_newton, options.max_steps
    keep: list[Any] = []
    device = inputs["psi0"].device

    dz, times = (x.contiguous().to(device) for x in (problem.dz, problem.times))
    p.set_dz(dz.data_ptr())
    p.set_times(times.data_ptr())
    keep += [dz, times]
    if "dt0" in inputs:
        dt0 = inputs["dt0"].contiguous()
        p.set_dt0(dt0.data_ptr(), 1)
        keep.append(dt0)
    if "skip" in inputs:
        p.set_skip(inputs["skip"].data_ptr())
        keep.append(inputs["skip"])

    for name, group, slot in input_slots(problem):
        value = inputs[name].detach()
        if is_shared(name):
            value = value.contiguous()
            if name == "soil.table":
                p.n_classes, p.n_knots = value.shape[0], value.shape[1]
            else:
                p.n_units, p.n_features = value.shape[1], value.shape[2] - OWN
            p.set_input(group, slot, value.data_ptr(), 0, 0, 0)
        else:
            value = table_rows(value) if name in RESPONSES else value
            p.set_input(group, slot, value.data_ptr(), *strides_tzn(name, value))
        keep.append(value)
    for name, (first, step) in problem.responses.items():
        p.set_response(RESPONSES.index(name), inputs[name].shape[0], first, step, math.exp(first))
    if problem.classes is not None:
        assert problem.knots is not None
        p.x_first, p.x_step = problem.knots
        classes = problem.classes.contiguous().to(device)
        p.set_classes(classes.data_ptr(), *classes.stride())
        keep.append(classes)
    return NativeProblem(p, inputs["psi0"].dtype == torch.float32, device, keep)


def least_steps(problem: ColumnProblem) -> Tensor:
    """Fewest steps [T] that a column can take: exact with dt_fixed, else as dt_max asks for, at least one."""
    longest = problem.options.dt_fixed or problem.options.dt_max
    return torch.ceil(problem.times.diff() / longest * (1 - 1e-9)).clamp(min=1).long()


class Backend(Protocol):
    """What the C++ twin and the CUDA twin both offer to the trajectory."""

    name: str

    def forward(
        self, native: NativeProblem, problem: ColumnProblem, out: Outputs, segment: Segment, record: bool
    ) -> Any:
        """Run one segment into ``out``; returns the history of accepted states when ``record``.

        ``problem`` is that of the segment, from which ``native`` was made.
        """

    def adjoint(self, native: NativeProblem, cotangents: Any, history: Any) -> None:
        """Walk one segment backwards."""

    def tangent(self, native: NativeProblem, tangents: Any, history: Any) -> None:
        """Walk one segment forwards along its accepted steps."""

    def table_chunks(self, table: Tensor) -> int:
        """Copies of the gradient of a tabulated soil that the adjoint fills; their sum is the gradient."""

    @property
    def module(self) -> Any:
        """`dgpde._C`, which makes the structs."""


@dataclass(frozen=True)
class Segment:
    """Output intervals [first, last) of a run."""

    first: int
    last: int


def segment_problem(problem: ColumnProblem, segment: Segment) -> ColumnProblem:
    """The problem of a segment alone."""
    if segment.first == 0 and segment.last == problem.intervals:
        return problem
    return replace(problem, times=problem.times[segment.first : segment.last + 1])


def segment_inputs(inputs: dict[str, Tensor], segment: Segment, problem: ColumnProblem) -> dict[str, Tensor]:
    """Inputs of a segment: series are cut to its intervals, everything else is shared."""
    if segment.first == 0 and segment.last == problem.intervals:
        return inputs
    return {
        name: value[segment.first : segment.last]
        if is_series(name) and value.shape[0] == problem.intervals
        else value
        for name, value in inputs.items()
    }


def is_series(name: str) -> bool:
    """Whether the first dimension of an input is the output interval."""
    return name.startswith(("top.", "bottom.")) or name in (
        "transpiration",
        "root_density",
        *FEDDES_HEADS,
        "source",
    )


@dataclass
class Outputs:
    """The tensors that the forward runs of all segments fill. What a failed column never reached stays nan."""

    result: ColumnResult
    rows: Tensor  # [T + 1] int64: row of psi for each time, or -1
    psi: Tensor  # [nz, n] state at the start of the next segment; nothing writes to it
    ponding: Tensor  # [n]
    dt_next: Tensor  # [n] float64 s


def allocate_outputs(problem: ColumnProblem, inputs: dict[str, Tensor]) -> Outputs:
    """Empty results and the initial state."""
    psi0 = inputs["psi0"].detach()
    n, nz, t = problem.n, problem.nz, problem.intervals
    nan, device = float("nan"), psi0.device

    def full(*shape: int) -> Tensor:
        return torch.full(shape, nan, dtype=psi0.dtype, device=device)

    psi, ponding = full(len(problem.save), nz, n), full(t + 1, n)
    ponding[0] = inputs["ponding0"].detach()
    rows = torch.full((t + 1,), -1, dtype=torch.int64)
    for row, index in enumerate(problem.save):
        rows[index] = row
    if rows[0] >= 0:
        psi[int(rows[0])] = psi0

    def count() -> Tensor:
        return torch.zeros(n, dtype=torch.int64, device=device)

    def amount(value: float) -> Tensor:
        return torch.full((n,), value, dtype=torch.float64, device=device)

    dt0 = inputs.get("dt0")
    dt_next = amount(problem.options.dt_initial) if dt0 is None else dt0.detach().clone()
    report = Report(
        status=torch.zeros(n, dtype=torch.int32, device=device),
        failed_time=amount(nan),
        steps=count(),
        newton_iterations=count(),
        cuts=count(),
        rejections=count(),
        restarts=count(),
        mass_balance_error=amount(0.0),
        water_moved=amount(0.0),
        dt_next=dt_next,
    )
    result = ColumnResult(psi, ponding, full(t, n), full(t, n), full(t, n), full(t, n), report)
    return Outputs(result, rows.to(device), psi0, inputs["ponding0"].detach(), dt_next.clone())


@dataclass
class SegmentOutputs:
    """`dgpde._C.ColumnOutput` of one segment, pointing into the outputs of the run and at its own counters."""

    native: Any
    counters: dict[str, Tensor]
    psi_end: Tensor | None  # [nz, n], for the segment that follows
    keep: list[Tensor]


def segment_outputs(module: Any, out: Outputs, segment: Segment) -> SegmentOutputs:
    """Point a segment's output at its part of the run's tensors."""
    result, native = out.result, module.ColumnOutput()
    device, n = out.psi.device, out.ponding.shape[0]
    counters = {
        name: torch.zeros(n, dtype=torch.int64, device=device)
        for name in ("steps", "newton", "cuts", "rejections", "restarts")
    }
    counters |= {
        name: torch.zeros(n, dtype=torch.float64, device=device)
        for name in ("failed_time", "dt_next", "mass_error", "water_moved")
    }
    counters["status"] = torch.zeros(n, dtype=torch.int32, device=device)
    # fresh memory of this size costs as much as a percent of a large run, so the last segment has none
    follows = segment.last + 1 < out.rows.shape[0]
    psi_end = torch.empty(out.psi.shape, dtype=out.psi.dtype, device=device) if follows else None
    rows = out.rows[segment.first : segment.last + 1]
    for name, tensor in {
        "psi": result.psi,
        **({} if psi_end is None else {"psi_end": psi_end}),
        "save_row": rows,
        "ponding": result.ponding[segment.first :],
        "top_flux": result.top_flux[segment.first :],
        "bottom_flux": result.bottom_flux[segment.first :],
        "runoff": result.runoff[segment.first :],
        "uptake": result.uptake[segment.first :],
        **counters,
    }.items():
        native.set(name, tensor.data_ptr())
    return SegmentOutputs(native, counters, psi_end, [rows])


def gather_segment(out: Outputs, part: SegmentOutputs, segment: Segment) -> None:
    """Add a segment's counters to the report and hand its state on."""
    report, c = out.result.report, part.counters
    running = report.status == 0
    report.status = torch.where(running, c["status"], report.status)
    report.failed_time = torch.where(running, c["failed_time"], report.failed_time)
    for total, name in (
        (report.steps, "steps"),
        (report.newton_iterations, "newton"),
        (report.cuts, "cuts"),
        (report.rejections, "rejections"),
        (report.restarts, "restarts"),
        (report.mass_balance_error, "mass_error"),
        (report.water_moved, "water_moved"),
    ):
        total += c[name]
    if part.psi_end is not None:
        out.psi = part.psi_end
    out.ponding = torch.where(report.status == 0, out.result.ponding[segment.last], out.ponding)
    out.dt_next = c["dt_next"]
    report.dt_next = c["dt_next"]


def relative_balance(report: Report) -> None:
    """Turn the signed imbalance [m] into a fraction of the water moved; a column that moved none has none."""
    moved = report.water_moved
    still = moved == 0.0
    error = report.mass_balance_error.abs() / torch.where(still, torch.ones_like(moved), moved)
    report.mass_balance_error = torch.where(still, torch.zeros_like(error), error)
