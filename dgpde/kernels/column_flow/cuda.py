"""The GPU twin: one thread a column, on torch's current stream, in memory that torch allocates.

Columns are run in windows, so that scratch memory is bounded however many there are. The number of steps of a run
is not known beforehand: the rows of its history come in blocks for groups of 32 columns, a column that has filled
its blocks pauses at an accepted state, and the launch is repeated with another block for its group until nothing
waits. Groups whose columns take few steps hold few blocks; no step is lost or taken twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpde._native import cuda_missing, native_module
from dgpde.kernels.column_flow.native import (
    NativeProblem,
    Outputs,
    Segment,
    gather_segment,
    least_steps,
    segment_outputs,
)
from dgpde.kernels.column_flow.problem import ColumnProblem

TABLE_BYTES = 256 * 2**20  # most that the copies of a table's gradient take together


class CudaBackend:
    """`dgpde._C.cuda_*` on CUDA tensors, float64 or float32.

    Raises:
        ImportError: the native module was built without CUDA, or torch finds no device; the message says which.
    """

    name = "cuda"

    def __init__(self) -> None:
        missing = cuda_missing(self.module)
        if missing is not None:
            raise ImportError(f"backend 'cuda' is not available: {missing}")

    @property
    def module(self) -> Any:
        """`dgpde._C`."""
        return native_module()

    def table_chunks(self, table: Tensor) -> int:
        """Copies of a table's gradient: one for each column of a window, so that no two threads share one."""
        return _table_window(self.module, table.numel() * table.element_size())

    def forward(
        self, native: NativeProblem, problem: ColumnProblem, out: Outputs, segment: Segment, record: bool
    ) -> DeviceHistory | None:
        """Run one segment into ``out``; returns its history when ``record``."""
        part = segment_outputs(self.module, out, segment)
        module, n, device = self.module, problem.n, native.device
        memory = module.thread_memory(problem.nz, native.single)
        history = DeviceHistory(module, n, problem.nz, native.single, device) if record else None
        window = min(module.WINDOW, _round_up(n, module.GROUP))
        groups = window // module.GROUP
        scratch = _bytes(groups * memory["forward_scratch"], device)
        rest = _bytes(window * memory["rest"], device)
        for first in range(0, n, window):
            count = min(window, n - first)
            phase = torch.zeros(_round_up(count, module.GROUP), dtype=torch.int32, device=device)
            run = self._run(native, first, count, scratch)
            run.set_rest(rest.data_ptr())
            run.set_phase(phase.data_ptr())
            if history is not None:
                mine = torch.arange(phase.numel() // module.GROUP, device=device) + first // module.GROUP
                history.grant(mine, int(least_steps(problem).sum()) + 1)
                history.attach(run)
            self._launch("forward", run, part.native)
            while history is not None:
                paused = (phase == module.PAUSED).view(-1, module.GROUP).any(1)
                waiting = paused.nonzero().flatten() + first // module.GROUP
                if waiting.numel() == 0:
                    break
                # an eighth more, so that launches grow with the logarithm of the steps and memory fits closely
                history.grant(waiting, history.most_granted * module.ROWS_PER_BLOCK // 8)
                history.attach(run)
                self._launch("forward", run, part.native)
        gather_segment(out, part, segment)
        return history

    def adjoint(self, native: NativeProblem, cotangents: Any, history: DeviceHistory) -> None:
        """Walk one segment backwards."""
        problem, window = native.native, self.module.WINDOW
        if problem.n_knots > 0:
            table = problem.n_classes * problem.n_knots * 4 * (4 if native.single else 8)
            window = _table_window(self.module, table)
        self._replay("adjoint", native, cotangents, history, window)

    def tangent(self, native: NativeProblem, tangents: Any, history: DeviceHistory) -> None:
        """Walk one segment forwards along its accepted steps."""
        self._replay("tangent", native, tangents, history, self.module.WINDOW)

    def _replay(self, kind: str, native: NativeProblem, io: Any, history: DeviceHistory, window: int) -> None:
        module, n = self.module, native.native.n
        window = min(window, _round_up(n, module.GROUP))
        memory = module.thread_memory(native.native.nz, native.single)
        scratch = _bytes(window // module.GROUP * memory["replay_scratch"], native.device)
        for first in range(0, n, window):
            run = self._run(native, first, min(window, n - first), scratch)
            history.attach(run)
            self._launch(kind, run, io)

    def _run(self, native: NativeProblem, first: int, count: int, scratch: Tensor) -> Any:
        run = self.module.ColumnRun(native.native, native.single)
        run.first, run.count = first, count
        run.set_scratch(scratch.data_ptr())
        if native.device.type == "cuda":
            run.device = native.device.index
            run.stream = torch.cuda.current_stream(native.device).cuda_stream
        return run

    def _launch(self, kind: str, run: Any, io: Any) -> None:
        getattr(self.module, f"cuda_{kind}")(run, io)


class DeviceHistory:
    """The accepted states of a run: blocks of rows for groups of neighbouring columns (csrc/cuda/column_run.h)."""

    def __init__(self, module: Any, n: int, nz: int, single: bool, device: torch.device) -> None:
        self.group, self.rows = module.GROUP, module.ROWS_PER_BLOCK
        self.row_bytes = module.thread_memory(nz, single)["row"]
        self.n, self.groups, self.device = n, -(-n // module.GROUP), device
        self.granted = torch.zeros(self.groups, dtype=torch.int32, device=device)
        self.most_granted = 0
        self.blocks = torch.zeros((0, self.groups), dtype=torch.int64, device=device)
        self.counts = torch.zeros(n, dtype=torch.int64, device=device)
        self.complete = torch.zeros(n, dtype=torch.int32, device=device)
        self.slabs: list[tuple[Tensor, Tensor, Tensor]] = []  # memory, its groups, their first blocks in it
        self._steps: tuple[Tensor, Tensor] | None = None

    def grant(self, groups: Tensor, rows: int) -> None:
        """Give each of these groups at least one block, and blocks for ``rows`` more rows."""
        more, width = max(1, -(-rows // self.rows)), groups.numel()
        size = self.rows * self.row_bytes
        slab = _bytes(more * width * size, self.device)
        start = self.granted[groups].long()
        self.slabs.append((slab, groups, start))
        self.granted[groups] += more
        self.most_granted = int(self.granted.max())
        if self.most_granted > self.blocks.shape[0]:
            longer = self.blocks.new_zeros((self.most_granted, self.groups))
            longer[: self.blocks.shape[0]] = self.blocks
            self.blocks = longer
        index = torch.arange(more, device=self.device)[:, None]
        place = index * width + torch.arange(width, device=self.device)
        self.blocks[start + index, groups.expand(more, width)] = slab.data_ptr() + place * size

    def attach(self, run: Any) -> None:
        """Point a run at this history as it now is."""
        run.set_history(
            self.blocks.data_ptr(),
            self.granted.data_ptr(),
            self.groups,
            self.counts.data_ptr(),
            self.complete.data_ptr(),
        )

    @property
    def nbytes(self) -> int:
        """Memory of the rows."""
        return sum(slab.numel() for slab, _, _ in self.slabs)

    def step_sizes(self, interval: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Accepted steps [s] of an output interval, [most steps of a column, n], zero padded."""
        dt, intervals = self._steps = self._steps or self._read_steps()
        mine = intervals == interval
        place = mine.cumsum(0) - 1
        sizes = torch.zeros((int(mine.sum(0).max()), self.n), dtype=torch.float64)
        rows, columns = mine.nonzero(as_tuple=True)
        sizes[place[rows, columns], columns] = dt[rows, columns]
        return sizes.numpy()

    def _read_steps(self) -> tuple[Tensor, Tensor]:
        """dt [s] and output interval of every row, [rows, n], in main memory; interval -1 where there is no step."""
        shape = (self.blocks.shape[0], self.rows, self.groups, self.group)
        dt = torch.zeros(shape, dtype=torch.float64)
        interval = torch.full(shape, -1, dtype=torch.int64)
        tail = 8 * self.group
        for slab, groups, start in self.slabs:
            width = groups.numel()
            rows = slab.view(-1, width, self.rows, self.row_bytes)[..., -2 * tail :].cpu()
            block = start.cpu() + torch.arange(rows.shape[0])[:, None]
            group = groups.cpu().expand(rows.shape[0], width)
            dt[block, :, group] = rows[..., :tail].contiguous().view(torch.float64)
            interval[block, :, group] = rows[..., tail:].contiguous().view(torch.int64)
        dt, interval = (x.reshape(shape[0] * self.rows, -1)[:, : self.n] for x in (dt, interval))
        there = torch.arange(dt.shape[0])[:, None] < self.counts.cpu()
        return dt, torch.where(there, interval, -1)


def _bytes(size: int, device: torch.device) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def _table_window(module: Any, table_bytes: int) -> int:
    """Columns in work at once where each needs two copies of the table."""
    groups = TABLE_BYTES // (2 * table_bytes * module.GROUP)
    return module.GROUP * max(1, min(groups, module.WINDOW // module.GROUP))
