"""Runs that can be computed a block of intervals at a time, for ``stream``: one interface over both engines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from dgpde.assembly import Setup, Start, compact_view, kept_in
from dgpde.boundary import Atmosphere
from dgpde.errors import SolveError, failure
from dgpde.field import field_failure, field_solution
from dgpde.frame import Frame
from dgpde.io import hdf5
from dgpde.kernels.column_flow.problem import STATUS_TEXT, Report
from dgpde.kernels.flow_stencil.problem import is_series
from dgpde.kernels.node import as_node
from dgpde.newton import Work
from dgpde.options import SolveOptions
from dgpde.progress import ProgressBar
from dgpde.solution import Solution, actual_evaporation, masked_after_failure
from dgpde.timeloop import Account
from dgpde.trajectory import FieldRun

if TYPE_CHECKING:
    from dgpde.richards import Block, Richards

BLOCK_BYTES = 256 << 20
FEWEST_BLOCKS = 20  # so that a kill loses little of a run that would fit in one block
Tensors = dict[str, Tensor]


class Part(Protocol):
    """The intervals [first, last) of a run, computed.

    Attributes:
        first, last: the intervals.
        state: what the next part starts from.
        report: of this part alone.
    """

    first: int
    last: int
    state: Tensors
    report: Report

    def values(self, report: Report) -> Tensors:
        """The datasets of the part by name; ``report`` is that of the run up to its end."""

    def failure(self) -> SolveError:
        """What to raise when something failed in it."""


class Parted(Protocol):
    """A run that is ready.

    Attributes:
        times, save, options: of the whole run.
        psi0, ponding0: the state at its start.
        cells: [m] indices of the cells that are kept, None for all.
    """

    flow: Richards
    times: Tensor
    save: tuple[int, ...]
    options: SolveOptions
    psi0: Tensor
    ponding0: Tensor
    cells: Tensor | None

    def default_block(self) -> int:
        """Intervals whose results and forcing take at most BLOCK_BYTES, and no more than a part of the run."""

    def fingerprint(self) -> str:
        """A hash of everything that the run depends on, its initial state and its options left out."""

    def parts(self, block: int, first: int, state: Tensors | None, bar: ProgressBar | None) -> Iterator[Part]:
        """Compute the run from the interval ``first`` on; ``state`` is that of the part before, if there is one."""


@dataclass
class ColumnPart:
    """See ``Part``."""

    run: ColumnRun
    block: Block

    def __post_init__(self) -> None:
        block = self.block
        self.first, self.last, self.report = block.first, block.last, _on_cpu(block.result.report)
        self.state = {
            "psi": block.psi_end,
            "ponding": block.result.ponding[-1],
            "dt_next": block.result.report.dt_next,
        }

    def values(self, report: Report) -> Tensors:
        """The first ponding of a part is the last of the one before, so only part 0 has it."""
        run, block = self.run, self.block
        flow = run.flow
        times = run.times[self.first : self.last + 1]
        kept = kept_in(run.save, self.first, self.last)
        result = masked_after_failure(replace(block.result, report=report), times, kept)
        values = {"psi": result.psi, "theta": flow.soil.theta(result.psi)}
        values["ponding"] = result.ponding if self.first == 0 else result.ponding[1:]
        values |= {name: getattr(result, name) for name in ("top_flux", "bottom_flux", "runoff", "uptake")}
        if isinstance(flow.words.top, Atmosphere):
            frame = replace(run.setup.frame, first=self.first, last=self.last)
            rain = flow.words.top.inputs(frame, "top")["precipitation"]
            values["evaporation"] = actual_evaporation(result, rain, times)
        return values

    def failure(self) -> SolveError:
        """The columns that failed."""
        return failure(self.report.status, self.report.failed_time, STATUS_TEXT)


class ColumnRun:
    """A run of the column engine; see ``Parted``."""

    def __init__(self, flow: Richards, setup: Setup) -> None:
        self.flow, self.setup, problem = flow, setup, setup.problem
        self.times, self.save, self.options = problem.times, problem.save, problem.options
        self.psi0, self.ponding0 = setup.psi0, setup.ponding0
        self.cells: Tensor | None = None

    def default_block(self) -> int:
        """See ``Parted``."""
        problem, itemsize = self.setup.problem, torch.finfo(self.setup.frame.dtype).bits // 8
        share = len(problem.save) / (problem.intervals + 1)
        cells = (2.0 * share + problem.roots + problem.sources) * problem.nz
        return _block(problem.intervals, itemsize * problem.n * (cells + 10))

    def fingerprint(self) -> str:
        """See ``Parted``."""
        setup, problem = self.setup, self.setup.problem
        _, inputs = setup.span(0, 1, (0,))  # looks at every value, which the frame then has seen
        words = (
            problem.n,
            problem.gravity,
            problem.relation,
            problem.variant,
            problem.face_mean,
            problem.top,
        )
        soil = {name: value for name, value in inputs.items() if name == "k_sat" or name.startswith("soil.")}
        tensors = {"times": problem.times, "dz": problem.dz} | soil
        if problem.classes is not None:
            tensors["classes"] = problem.classes
        rest = (problem.bottom, problem.roots, problem.sources, problem.knots, *problem.responses.items())
        return _hash((*words, *rest), tensors, setup.frame)

    def parts(self, block: int, first: int, state: Tensors | None, bar: ProgressBar | None) -> Iterator[Part]:
        """See ``Parted``."""
        setup, dt0 = self.setup, None
        if state is not None:
            setup, dt0 = replace(setup, psi0=state["psi"], ponding0=state["ponding"]), state["dt_next"]
        for part in self.flow.blocks(setup, block, first, dt0):
            yield ColumnPart(self, part)
            if bar is not None:
                bar.show(part.last)


@dataclass
class FieldPart:
    """See ``Part``."""

    first: int
    last: int
    run: FieldRun
    solution: Solution
    state: Tensors

    def __post_init__(self) -> None:
        self.report = _on_cpu(self.solution.report())

    def values(self, report: Report) -> Tensors:
        """What a run that failed did not reach is nan as it is."""
        values = hdf5.trajectory(self.solution, theta=True)
        if self.first > 0:
            values["ponding"] = values["ponding"][1:]
        return values

    def failure(self) -> SolveError:
        """Where and why it could not go on."""
        return field_failure(self.solution.grid, self.run, self.solution)


class RunOfField:
    """A run of the field engine; see ``Parted``."""

    def __init__(self, flow: Richards, start: Start, run: FieldRun, inputs: Tensors) -> None:
        self.flow, self.start, self.run = flow, start, run
        self.inputs = {name: value.detach() for name, value in inputs.items()}
        self.times, self.save, self.options = run.times, run.save, run.options
        self.psi0, self.ponding0, self.cells = start.psi0, start.ponding0, run.cells

    def default_block(self) -> int:
        """See ``Parted``."""
        run = self.run
        cells = run.problem.cells if run.cells is None else run.cells.numel()
        share = len(run.save) / (run.intervals + 1)
        faces = sum(self.flow.grid.side_area(side).numel() for side in self.flow.grid.sides)
        return _block(run.intervals, 8 * (3 * share * cells + faces + 4 * self.ponding0.numel()))

    def fingerprint(self) -> str:
        """See ``Parted``."""
        flow, problem, run = self.flow, self.run.problem, self.run
        shape, frame = flow.grid.shape, self.start.frame
        words = (shape, problem.gravity, problem.relation, problem.variant, problem.face_mean, problem.sides)
        tensors = {f"soil.{name}": value for name, value in flow.soil.parameters_on(shape).items()}
        tensors |= {"k_sat": flow.soil.k_sat_on(shape), "times": run.times}
        tensors |= {f"widths{axis}": width for axis, width in enumerate(problem.widths)}
        tensors |= {f"rise{axis}": rise for axis, rise in enumerate(problem.rise)}
        others = ("active", "classes", "wells", "rivers")
        tensors |= {name: value for name in others if (value := getattr(problem, name)) is not None}
        if run.cells is not None:
            tensors["cells"] = run.cells
        return _hash((*words, problem.source, problem.knots), tensors, frame)

    def parts(self, block: int, first: int, state: Tensors | None, bar: ProgressBar | None) -> Iterator[Part]:
        """See ``Parted``."""
        shape = self.run.problem.shape
        if state is None:
            state = {"psi": self.psi0, "ponding": self.ponding0, "dt_next": torch.zeros(1)}
            state |= {
                "precise": torch.zeros(1, dtype=torch.bool),
                "status": torch.zeros(1, dtype=torch.int32),
            }
            state["failed_time"] = torch.full((1,), torch.nan, dtype=torch.float64)
        while first < self.run.intervals:
            last = min(first + block, self.run.intervals)
            frame = replace(self.start.frame, first=first, last=last)
            start = replace(self.start, times=self.times[first : last + 1], frame=frame)
            inputs = {
                name: value[first:last] if is_series(name) and value.shape[0] > 1 else value
                for name, value in self.inputs.items()
            }
            inputs["psi0"] = state["psi"].reshape(shape)
            inputs["ponding0"] = state["ponding"].reshape(shape[1:])
            run = replace(
                self.run,
                times=start.times,
                save=kept_in(self.save, first, last),
                dt0=float(state["dt_next"]),
                precise0=bool(state["precise"]),
                account=Account(int(state["status"]), float(state["failed_time"])),
                work=Work(),
                progress=None if bar is None else _Shifted(bar, first),
            )
            # a run that has failed goes no further
            out = as_node(run, inputs) if run.account.status == 0 else run.unreached(inputs)
            solution = field_solution(self.flow.words, start, run, out)
            if run.end is not None:
                end = run.end
                state = {"psi": end.psi, "ponding": end.ponding, "precise": torch.tensor([end.precise])}
            report = solution.report()
            state |= {name: getattr(report, name) for name in ("dt_next", "status", "failed_time")}
            yield FieldPart(first, last, run, solution, state)
            first = last


@dataclass(frozen=True)
class _Shifted:
    """The bar of a whole run, for a part of it."""

    bar: ProgressBar
    first: int

    @property
    def due(self) -> bool:
        """See ``trajectory.Progress``."""
        return self.bar.due

    def show(self, done: int, within: float = 0.0, *details: str) -> None:
        """See ``trajectory.Progress``."""
        self.bar.show(self.first + done, within, *details)


def _block(intervals: int, bytes_each: float) -> int:
    return max(1, min(int(BLOCK_BYTES // bytes_each), -(-intervals // FEWEST_BLOCKS)))


def _hash(words: tuple[object, ...], tensors: Tensors, frame: Frame) -> str:
    """Of words, of tensors and of the values that the frame has handed out."""
    digest = hashlib.sha256(repr(words).encode())
    tensors = {**frame.seen, **tensors}
    for name in sorted(tensors.keys() - {"psi0", "ponding0"}):
        array = np.ascontiguousarray(compact_view(tensors[name]).detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _on_cpu(report: Report) -> Report:
    names: Iterable[str] = (*hdf5.PER_COLUMN, *hdf5.COUNTS)
    values = {name: getattr(report, name) for name in names}
    return Report(**{name: value.cpu() for name, value in values.items() if value is not None})
