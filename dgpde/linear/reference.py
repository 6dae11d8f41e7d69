"""The exact answer for small problems: sparse LU factors from SciPy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde.linear.stencil import StencilMatrix

#: Fill of the factors grows with cells^(4/3) in 3-D: half a gigabyte at this size.
LARGEST = 100_000


class ReferenceBackend:
    """LU factors of the matrix; the transposed system uses the same ones."""

    name = "reference"
    recalls = False
    precise = True

    def __init__(self) -> None:
        self.matrix: StencilMatrix | None = None
        self.factors: Any = None

    def setup(self, matrix: StencilMatrix, reuse: bool) -> None:
        """Factor. ``reuse`` is ignored: exact factors of another matrix are of no use.

        Raises:
            ValueError: more than ``LARGEST`` cells.
        """
        cells = matrix.coefficients[0].numel()
        if cells > LARGEST:
            raise ValueError(
                f"matrix has {cells} cells; the reference factors at most {LARGEST}, use backend='cpu'"
            )
        self.matrix, self.factors = matrix, None

    def prepare(self, transposed: bool) -> None:
        """Factor now."""
        import scipy.sparse.linalg

        assert self.matrix is not None
        if self.factors is None:
            try:
                self.factors = scipy.sparse.linalg.splu(self.matrix.to_scipy().tocsc())
            except RuntimeError:  # "Factor is exactly singular"
                self.factors = False

    def begin_precise(self) -> None:
        """Nothing: the factors are in float64 in any case."""

    @property
    def nbytes(self) -> int:
        """Bytes of the factors: a number and a 32-bit index for each entry."""
        return 12 * int(self.factors.L.nnz + self.factors.U.nnz) if self.factors else 0

    def solve(
        self,
        rhs: Tensor,
        x0: Tensor | None,
        tolerance: float,
        max_iterations: int,
        transposed: bool,
        recall: bool = False,
    ) -> tuple[Tensor, int, float, str]:
        """x, iterations (1), relative residual, reason ("" when converged)."""
        assert self.matrix is not None
        failed = torch.full_like(rhs, torch.nan)
        if not bool(torch.isfinite(rhs).all()):
            return failed, 0, float("nan"), "not finite"
        norm = float(torch.linalg.vector_norm(rhs))
        if norm == 0.0:
            return torch.zeros_like(rhs), 0, 0.0, ""
        self.prepare(transposed)
        if self.factors is False:
            return failed, 0, float("nan"), "pivot"
        flat = rhs.detach().contiguous().flatten().numpy()
        x = torch.from_numpy(self.factors.solve(flat, trans="T" if transposed else "N")).reshape(rhs.shape)
        matrix = self.matrix.transpose() if transposed else self.matrix
        residual = float(torch.linalg.vector_norm(rhs - matrix.matvec(x))) / norm
        return x, 1, residual, "" if residual <= tolerance else "stagnated"
