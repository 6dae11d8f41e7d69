"""One pass of the C++ kernels over the stencil."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import FACE_MEANS
from dgpde.kernels.flow_stencil.problem import Step

if TYPE_CHECKING:
    from dgpde.kernels.flow_stencil.cpu import CpuStencil


class Call:
    """A FlowCall and the tensors that it points to, which must outlive it."""

    def __init__(self, stencil: CpuStencil, step: Step) -> None:
        problem = stencil.problem
        self.native: Any = stencil.module.FlowCall()
        self.native.nz, self.native.ny, self.native.nx = problem.shape
        self.native.threads = torch.get_num_threads()
        self.native.face_mean = FACE_MEANS.index(problem.face_mean)
        self.native.dt = step.dt
        self.kept: list[Tensor] = []
        for axis in range(3):
            self.set("width", stencil.widths[axis], axis)
            self.set("rise", stencil.rises[axis], axis)
        if stencil.active is not None:
            self.set("active", stencil.active)

    def set(self, name: str, value: Tensor, slot: int = 0, dense: bool = True) -> None:
        """Point to a tensor; a contiguous one unless its strides are given too. Results must be contiguous."""
        value = value.contiguous() if dense else value
        self.kept.append(value)
        self.native.set(name, value.data_ptr(), slot)

    def set_one_or_all(self, name: str, value: Tensor) -> int:
        """Point to a field, or to its one value where all cells share it; returns the stride."""
        one = not any(value.stride())
        self.set(name, value, dense=not one)
        return 0 if one else 1
