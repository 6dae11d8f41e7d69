"""The C++ twin: packs of columns in SIMD lanes, packs shared out among threads. Float64 or float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.column_flow.native import NativeProblem, Segment
from dgpde.kernels.column_transport.problem import (
    CELL_INPUTS,
    CELL_SERIES,
    ISOTHERMS,
    SCHEMES,
    SIDE_KINDS,
    TransportProblem,
    TransportReport,
)

STATES = 3  # numbers of a cell and solute that are handed on from segment to segment


def strides_tzn(kind: str, value: Tensor) -> tuple[int, int, int]:
    """Strides in elements along (interval, cell, column); 0 where the input has no such axis."""
    steps = tuple(0 if size == 1 else step for size, step in zip(value.shape, value.stride(), strict=True))
    if kind in CELL_INPUTS:
        return 0, steps[0], steps[1]
    if kind in CELL_SERIES:
        return steps[0], steps[1], steps[2]
    return steps[0], 0, steps[1]


def is_series(name: str) -> bool:
    """Whether the first dimension of an input is the output interval."""
    return name.partition(".")[2] not in CELL_INPUTS


def cut_series(values: dict[str, Tensor], segment: Segment) -> dict[str, Tensor]:
    """The series among the values cut to the intervals of a segment; the others as they are."""
    return {
        name: value[segment.first : segment.last] if is_series(name) else value
        for name, value in values.items()
    }


@dataclass
class NativeTransport:
    """The C++ problem of a segment together with the tensors whose memory it points to."""

    native: Any
    keep: list[Tensor]


def native_transport(
    problem: TransportProblem, inputs: dict[str, Tensor], segment: Segment, skip: Tensor
) -> NativeTransport:
    """Build ``dgpde._C.TransportProblem`` of some intervals.

    Args:
        problem, inputs: of the whole run; there may be others among the inputs.
        segment: the intervals.
        skip: [n] int32, not 0 where a column has failed before.
    """
    p = native_module().TransportProblem()
    p.n, p.nz, p.intervals = problem.n, problem.nz, segment.last - segment.first
    p.evaporation, p.max_newton = problem.evaporation, problem.max_newton
    p.single = problem.dtype == torch.float32
    p.linear_tolerance = problem.linear_tolerance
    p.set_scheme(SCHEMES.index(problem.scheme))
    dz = problem.dz.contiguous()
    times = problem.times[segment.first : segment.last + 1].contiguous()
    p.set_dz(dz.data_ptr())
    p.set_times(times.data_ptr())
    p.set_skip(skip.data_ptr())
    keep = [dz, times, skip]
    for solute in problem.solutes:
        p.add_solute(
            ISOTHERMS.index(solute.isotherm),
            solute.kinetic,
            solute.immobile,
            solute.uptake,
            solute.evaporates,
            solute.diffusion_power,
            solute.parent,
            SIDE_KINDS.index(solute.top),
            SIDE_KINDS.index(solute.bottom),
        )
    own = {name: inputs[name] for name in problem.input_names()}
    for name, value in cut_series(own, segment).items():
        number, _, kind = name.partition(".")
        p.set_input(int(number), kind, value.data_ptr(), *strides_tzn(kind, value))
        keep.append(value)
    return NativeTransport(p, keep)


def empty_report(problem: TransportProblem) -> TransportReport:
    """The report of a run that has not begun."""
    n, s, t = problem.n, len(problem.solutes), problem.intervals

    def full(value: float, *shape: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.float64)

    return TransportReport(
        mass=full(torch.nan, t + 1, s, 3, n),
        imbalance=full(0.0, s, n),
        moved=full(0.0, s, n),
        status=torch.zeros(n, dtype=torch.int32),
        failed_time=full(torch.nan, n),
        iterations=torch.zeros(n, dtype=torch.int64),
        peclet=full(0.0, n),
        courant=full(0.0, n),
    )


@dataclass
class Run:
    """The tensors that the forward runs of all segments fill, and the state that they hand on."""

    outputs: dict[str, Tensor]
    report: TransportReport
    state: Tensor  # [S, STATES, nz, n]

    @classmethod
    def begin(cls, problem: TransportProblem) -> Run:
        """Nothing computed yet; what a failed column never reaches stays nan."""
        n, nz, s, t = problem.n, problem.nz, len(problem.solutes), problem.intervals
        outputs = {
            "concentration": torch.full((t, s, nz, n), torch.nan, dtype=problem.dtype),
            "top_flux": torch.zeros(t, s, n, dtype=problem.dtype),
            "bottom_flux": torch.zeros(t, s, n, dtype=problem.dtype),
        }
        return cls(outputs, empty_report(problem), torch.zeros(s, STATES, nz, n, dtype=problem.dtype))


def forward(
    problem: TransportProblem,
    inputs: dict[str, Tensor],
    water: NativeWater,
    run: Run,
    segment: Segment,
    kept: Any,
) -> None:
    """Carry the solutes over one segment into ``run``; ``kept`` receives the accepted states, unless it is None."""
    native = native_transport(problem, inputs, segment, run.report.status.clone())
    out = native_module().TransportOutput()
    out.start = segment.first == 0
    report = run.report
    for name, tensor in run.outputs.items():
        out.set(name, tensor[segment.first :].data_ptr())
    for name, tensor in {
        "state": run.state,
        "mass": report.mass[segment.first :],
        "imbalance": report.imbalance,
        "moved": report.moved,
        "failed_time": report.failed_time,
        "peclet": report.peclet,
        "courant": report.courant,
        "status": report.status,
        "iterations": report.iterations,
    }.items():
        out.set(name, tensor.data_ptr())
    native_module().transport_forward(native.native, water.native, out, kept, torch.get_num_threads())


@dataclass
class Backward:
    """What the reverse sweep carries from segment to segment."""

    problem: TransportProblem
    inputs: dict[str, Tensor]
    cotangents: dict[
        str, Tensor
    ]  # of the outputs that have one: concentration [T, ...] and fluxes, contiguous
    gradients: dict[str, Tensor]  # of the inputs that are asked for, zeros at first
    carry: Tensor  # [S, STATES, nz, n]
    status: Tensor  # [n] int32


def adjoint(sweep: Backward, water: NativeWater, kept: Any, segment: Segment, skip: Tensor) -> None:
    """Walk one segment backwards; what the water's own inputs are given goes where ``water`` says."""
    problem = sweep.problem
    native = native_transport(problem, sweep.inputs, segment, skip)
    io = native_module().TransportCotangents()
    io.first = segment.first == 0
    for name, tensor in sweep.cotangents.items():
        io.set(name, tensor[segment.first :].data_ptr())
    io.set("carry", sweep.carry.data_ptr())
    io.set("status", sweep.status.data_ptr())
    io.set_solutes(len(problem.solutes))
    for name, tensor in cut_series(sweep.gradients, segment).items():
        number, _, kind = name.partition(".")
        io.set_gradient(int(number), kind, tensor.data_ptr(), *strides_tzn(kind, tensor))
    native_module().transport_adjoint(native.native, water.native, kept, io, torch.get_num_threads())


@dataclass
class Forward:
    """What the tangent run carries from segment to segment."""

    problem: TransportProblem
    inputs: dict[str, Tensor]
    tangents: dict[str, Tensor]  # of the inputs that move
    outputs: dict[str, Tensor]  # their tangents, filled
    state: Tensor  # [S, STATES, nz, n]

    @classmethod
    def begin(
        cls, problem: TransportProblem, inputs: dict[str, Tensor], tangents: dict[str, Tensor]
    ) -> Forward:
        """Nothing has moved yet."""
        n, nz, s, t = problem.n, problem.nz, len(problem.solutes), problem.intervals
        shapes = {"concentration": (t, s, nz, n), "top_flux": (t, s, n), "bottom_flux": (t, s, n)}
        outputs = {name: torch.zeros(shape, dtype=problem.dtype) for name, shape in shapes.items()}
        return cls(problem, inputs, tangents, outputs, torch.zeros(s, STATES, nz, n, dtype=problem.dtype))


def tangent(walk: Forward, water: NativeWater, kept: Any, segment: Segment, skip: Tensor) -> None:
    """Walk one segment forwards along its accepted steps."""
    native = native_transport(walk.problem, walk.inputs, segment, skip)
    io = native_module().TransportTangents()
    io.start = segment.first == 0
    for name, tensor in walk.outputs.items():
        io.set(name, tensor[segment.first :].data_ptr())
    io.set("state", walk.state.data_ptr())
    io.set_solutes(len(walk.problem.solutes))
    for name, value in cut_series(walk.tangents, segment).items():
        number, _, kind = name.partition(".")
        io.set_tangent(int(number), kind, value.data_ptr(), *strides_tzn(kind, value))
    native_module().transport_tangent(native.native, water.native, kept, io, torch.get_num_threads())


@dataclass
class NativeWater:
    """``dgpde._C.TransportWater`` of a segment together with what its pointers point to."""

    native: Any
    keep: list[Any]


def flow_water(
    flow: NativeProblem, history: Any, elastic: bool, cotangents: Any = None, tangents: Any = None
) -> NativeWater:
    """The water of the accepted steps of a segment of a flow run.

    Args:
        flow, history: of the segment.
        elastic: whether any cell stores water elastically.
        cotangents, tangents: ``dgpde._C.ColumnCotangents`` that the adjoint of the flow adds to,
            ``dgpde._C.ColumnTangents`` that its tangent reads; None where nothing of the flow is asked for or moves.
    """
    water = native_module().TransportWater()
    water.set_flow(flow.native, history, elastic)
    if cotangents is not None:
        water.set_cotangents(cotangents)
    if tangents is not None:
        water.set_tangents(tangents)
    return NativeWater(water, [flow, history, cotangents, tangents])


def steady_water(fields: dict[str, Tensor], steps: list[float], intervals: list[int]) -> NativeWater:
    """Water that does not change: "theta" [nz, n], "flux" [nz + 1, n]; "theta_moves", "flux_moves" where they move."""
    water = native_module().TransportWater()
    water.nz, water.n = fields["theta"].shape
    water.steps, water.intervals = steps, intervals
    for name, value in fields.items():
        water.set_steady(name, value.data_ptr(), *strides_tzn("c0", value)[1:])
    return NativeWater(water, list(fields.values()))
