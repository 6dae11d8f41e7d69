"""The C++ twin: packs of columns in SIMD lanes, packs shared out among threads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.column_flow.native import (
    NativeProblem,
    Outputs,
    Segment,
    gather_segment,
    segment_outputs,
)
from dgpde.kernels.column_flow.problem import ColumnProblem


class CpuBackend:
    """`dgpde._C.column_*` on tensors in main memory, float64 or float32."""

    name = "cpu"

    @property
    def module(self) -> Any:
        """`dgpde._C`."""
        return native_module()

    def table_chunks(self, table: Tensor) -> int:
        """Copies of a table's gradient: a fixed number, whatever the number of threads."""
        chunks: int = self.module.TABLE_CHUNKS
        return chunks

    def forward(
        self, native: NativeProblem, problem: ColumnProblem, out: Outputs, segment: Segment, record: bool
    ) -> Any:
        """Run one segment into ``out``; returns the history of accepted states when ``record``."""
        part = segment_outputs(self.module, out, segment)
        history = self.module.ColumnHistory() if record else None
        self.module.column_forward(
            native.native, part.native, history, native.single, torch.get_num_threads()
        )
        gather_segment(out, part, segment)
        return history

    def adjoint(self, native: NativeProblem, cotangents: Any, history: Any) -> None:
        """Walk one segment backwards."""
        self.module.column_adjoint(native.native, cotangents, history, native.single, torch.get_num_threads())

    def tangent(self, native: NativeProblem, tangents: Any, history: Any) -> None:
        """Walk one segment forwards along its accepted steps."""
        self.module.column_tangent(native.native, tangents, history, native.single, torch.get_num_threads())
