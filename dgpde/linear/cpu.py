"""The C++ twin: multigrid and Krylov iterations of ``dgpde._C``, one call a solve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.linear.stencil import TURN, StencilMatrix, is_uneven

#: By the codes of ``LinearStatus`` in ``csrc/linear_call.h``.
REASONS = ("", "iterations", "breakdown", "pivot", "not finite", "stagnated")


class CpuBackend:
    """Owns the hierarchies and work vectors in C++; the matrix is kept alive as long as they point to it."""

    name = "cpu"
    recalls = True

    def __init__(self, cycle: str) -> None:
        self.module = native_module()
        self.engine: Any = self.module.LinearEngine()
        self.gamma = {"V": 1, "W": 2}[cycle]
        self.matrix: StencilMatrix | None = None
        self.coefficients: Tensor | None = None  # as the engine sees them
        self.turned = False

    def setup(self, matrix: StencilMatrix, reuse: bool) -> None:
        """Point the engine at a matrix; ``reuse`` keeps the hierarchies when the shape is the same."""
        turned = is_uneven(matrix)
        if turned != self.turned and self.precise:
            self.engine.begin_in_double()  # the engine would begin anew with another shape
        self.turned = turned
        coefficients, (nz, ny, nx) = matrix.coefficients, matrix.shape
        if turned:
            # y takes the place of z, along which lines are solved exactly: the order of the cells is the same
            coefficients, nz, ny = coefficients[list(TURN)], ny, nz
        data = self.module.StencilData(coefficients.data_ptr(), nz, ny, nx, matrix.symmetric)
        self.engine.set_matrix(data, reuse)
        self.matrix, self.coefficients = matrix, coefficients

    def prepare(self, transposed: bool) -> None:
        """Build the hierarchy of the matrix or of its transpose, unless it is there."""
        self.engine.prepare(transposed, torch.get_num_threads())

    @property
    def precise(self) -> bool:
        """Whether the preconditioner is one in float64."""
        return bool(self.engine.in_double)

    def begin_precise(self) -> None:
        """Precondition in float64 from the first matrix on."""
        self.engine.begin_in_double()

    @property
    def nbytes(self) -> int:
        """Bytes of the hierarchies and work vectors, and of the matrix's copy when it is turned."""
        copy = self.coefficients.nbytes if self.turned and self.coefficients is not None else 0
        return int(self.engine.nbytes) + copy

    def solve(
        self,
        rhs: Tensor,
        x0: Tensor | None,
        tolerance: float,
        max_iterations: int,
        transposed: bool,
        recall: bool = False,
    ) -> tuple[Tensor, int, float, str]:
        """x, iterations, relative residual, reason ("" when converged)."""
        rhs = rhs.detach().contiguous()
        x = torch.empty_like(rhs) if x0 is None else x0.detach().clone(memory_format=torch.contiguous_format)
        options = self.module.LinearOptions()
        options.tolerance, options.max_iterations = tolerance, max_iterations
        options.transposed, options.guess = transposed, x0 is not None
        options.recall = recall
        options.gamma, options.threads = self.gamma, torch.get_num_threads()
        report = self.engine.solve(rhs.data_ptr(), x.data_ptr(), options)
        return x, report.iterations, report.residual, REASONS[report.status]
