"""From a ColumnProblem and its tensors to the structs of `dgpde._C`, shared by the CPU and CUDA callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import (
    BOUNDARY_VALUES,
    FACE_MEANS,
    SOIL_PARAMETERS,
    ColumnProblem,
    ColumnResult,
    Report,
)

_BOUNDARY_CODES = {name: code for code, name in enumerate(BOUNDARY_VALUES)}
_RELATION_CODES = {name: code for code, name in enumerate(SOIL_PARAMETERS)}
_COUNTERS = ("steps", "newton", "cuts", "rejections", "restarts")


def input_slots(problem: ColumnProblem) -> list[tuple[str, str, int]]:
    """(input name, name in the C++ struct, slot) for every tensor that the kernel reads."""
    slots = []
    for name in problem.input_names():
        group, _, field = name.partition(".")
        if name == "soil.table":
            slots.append((name, "soil", 0))
        elif group == "soil":
            slots.append((name, "soil", SOIL_PARAMETERS[problem.relation].index(field)))
        elif group == "top":
            slots.append((name, "top", BOUNDARY_VALUES[problem.top].index(field)))
        elif group == "bottom":
            slots.append((name, "bottom", BOUNDARY_VALUES[problem.bottom].index(field)))
        elif name in ("h1", "h2", "h3", "h4"):
            slots.append((name, "feddes", int(name[1]) - 1))
        else:
            slots.append((name, name, 0))
    return slots


def strides_tzn(name: str, value: Tensor) -> tuple[int, int, int]:
    """Strides in elements along (interval, cell, column); 0 where the input has no such axis."""
    strides = tuple(0 if size == 1 else step for size, step in zip(value.shape, value.stride(), strict=True))
    if name in ("ponding0", "omega_c"):
        return 0, 0, strides[0]
    if name in ("root_density", "source"):
        return strides[0], strides[1], strides[2]
    if name in ("psi0", "k_sat", "specific_storage") or name.startswith("soil."):
        return 0, strides[0], strides[1]
    return strides[0], 0, strides[1]


@dataclass
class NativeProblem:
    """The C++ problem together with the tensors whose memory it points to."""

    native: Any
    single: bool
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
    p.max_newton, p.max_steps = options.max_newton, options.max_steps
    keep: list[Any] = []

    dz, times = problem.dz.contiguous(), problem.times.contiguous()
    p.set_dz(dz.data_ptr())
    p.set_times(times.data_ptr())
    dt0 = inputs.get("dt0")
    if dt0 is None:
        dt0 = torch.full((1,), options.dt_initial, dtype=torch.float64)
    dt0 = dt0.contiguous()
    p.set_dt0(dt0.data_ptr(), 0 if dt0.numel() == 1 else 1)
    keep += [dz, times, dt0]

    for name, group, slot in input_slots(problem):
        value = inputs[name].detach()
        if name == "soil.table":
            value = value.contiguous()
            p.n_classes, p.n_knots = value.shape[0], value.shape[1]
            p.set_input(group, slot, value.data_ptr(), 0, 0, 0)
        else:
            p.set_input(group, slot, value.data_ptr(), *strides_tzn(name, value))
        keep.append(value)
    if problem.classes is not None:
        assert problem.knots is not None
        p.x_first, p.x_step = problem.knots
        classes = problem.classes.contiguous()
        p.set_classes(classes.data_ptr(), *classes.stride())
        keep.append(classes)
    return NativeProblem(p, inputs["psi0"].dtype == torch.float32, keep)


@dataclass
class Outputs:
    """The tensors that a forward run fills."""

    native: Any
    result: ColumnResult
    psi_end: Tensor


def allocate_outputs(module: Any, problem: ColumnProblem, inputs: dict[str, Tensor]) -> Outputs:
    """Result tensors, nan until written: what a failed column never reached stays nan."""
    psi0 = inputs["psi0"]
    n, nz, t = problem.n, problem.nz, problem.intervals
    nan = float("nan")

    def full(*shape: int) -> Tensor:
        return torch.full(shape, nan, dtype=psi0.dtype, device=psi0.device)

    psi, ponding = full(len(problem.save), nz, n), full(t + 1, n)
    ponding[0] = inputs["ponding0"].detach()
    rows = torch.full((t + 1,), -1, dtype=torch.int64)
    for row, index in enumerate(problem.save):
        rows[index] = row
    if problem.save and rows[0] >= 0:
        psi[int(rows[0])] = psi0.detach()
    rows = rows.to(psi0.device)
    doubles = {
        name: torch.full((n,), nan, dtype=torch.float64, device=psi0.device)
        for name in ("failed_time", "dt_next", "mass_error", "water_moved")
    }
    counters = {name: torch.zeros(n, dtype=torch.int64, device=psi0.device) for name in _COUNTERS}
    status = torch.zeros(n, dtype=torch.int32, device=psi0.device)
    series = {name: full(t, n) for name in ("top_flux", "bottom_flux", "runoff", "uptake")}
    psi_end = full(nz, n)

    out = module.ColumnOutput()
    buffers = {"psi": psi, "psi_end": psi_end, "ponding": ponding, "save_row": rows, "status": status}
    for name, tensor in (buffers | series | doubles | counters).items():
        out.set(name, tensor.data_ptr())
    report = Report(
        status=status,
        failed_time=doubles["failed_time"],
        steps=counters["steps"],
        newton_iterations=counters["newton"],
        cuts=counters["cuts"],
        rejections=counters["rejections"],
        restarts=counters["restarts"],
        mass_balance_error=doubles["mass_error"],
        water_moved=doubles["water_moved"],
        dt_next=doubles["dt_next"],
    )
    result = ColumnResult(psi=psi, ponding=ponding, report=report, **series)
    result.report.rows = rows  # keeps the memory that `out` points to
    return Outputs(out, result, psi_end)


def relative_balance(report: Report) -> None:
    """Turn the signed imbalance [m] into a fraction of the water moved; a column that moved none has none."""
    moved = report.water_moved
    still = moved == 0.0
    error = report.mass_balance_error.abs() / torch.where(still, torch.ones_like(moved), moved)
    report.mass_balance_error = torch.where(still, torch.zeros_like(error), error)
