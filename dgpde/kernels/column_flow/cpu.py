"""The C++ twin: packs of columns in SIMD lanes, packs shared out among threads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.column_flow.native import allocate_outputs, native_problem, relative_balance
from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult


def forward(problem: ColumnProblem, inputs: dict[str, Tensor], record: bool) -> tuple[ColumnResult, Tensor, Any]:
    """Run the columns. Returns the result, the state after the last interval, and the history when `record`."""
    module = native_module()
    native = native_problem(module, problem, inputs)
    outputs = allocate_outputs(module, problem, inputs)
    history = module.ColumnHistory() if record else None
    module.column_forward(native.native, outputs.native, history, native.single, torch.get_num_threads())
    relative_balance(outputs.result.report)
    return outputs.result, outputs.psi_end, history
