"""The C++ solver for matrices that are on a GPU: systems and solutions travel to the host and back."""

from __future__ import annotations

from torch import Tensor

from dgpde.linear.cpu import CpuBackend
from dgpde.linear.stencil import StencilMatrix


class HostBackend:
    """Copies the matrix (seven fields) once a set-up, the right-hand side, the guess and the solution once a solve."""

    name = "host"

    def __init__(self, cycle: str) -> None:
        self.backend = CpuBackend(cycle)

    def setup(self, matrix: StencilMatrix, reuse: bool) -> None:
        """Take a copy of the matrix; ``reuse`` as in ``CpuBackend``."""
        self.backend.setup(StencilMatrix(matrix.coefficients.cpu(), matrix.symmetric), reuse)

    def prepare(self, transposed: bool) -> None:
        """Build the hierarchy now."""
        self.backend.prepare(transposed)

    @property
    def precise(self) -> bool:
        """As of ``CpuBackend``."""
        return self.backend.precise

    def begin_precise(self) -> None:
        """As of ``CpuBackend``."""
        self.backend.begin_precise()

    @property
    def nbytes(self) -> int:
        """Bytes of hierarchies, work vectors and the matrix's copy, on the host."""
        matrix = self.backend.matrix
        return self.backend.nbytes + (0 if matrix is None else matrix.coefficients.nbytes)

    def solve(
        self, rhs: Tensor, x0: Tensor | None, tolerance: float, max_iterations: int, transposed: bool
    ) -> tuple[Tensor, int, float, str]:
        """x on the device of ``rhs``, iterations, relative residual, reason ("" when converged)."""
        guess = None if x0 is None else x0.cpu()
        x, iterations, residual, reason = self.backend.solve(
            rhs.cpu(), guess, tolerance, max_iterations, transposed
        )
        return x.to(rhs.device), iterations, residual, reason
