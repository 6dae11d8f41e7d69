"""Solution of a 7-point system and of its transpose, behind one interface for all backends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dgpde.linear.cpu import CpuBackend
from dgpde.linear.reference import ReferenceBackend
from dgpde.linear.stencil import StencilMatrix, check_field

#: What ``LinearResult.reason`` says, for people.
REASON_TEXT = {
    "": "converged",
    "iterations": "max_iterations were not enough",
    "breakdown": "the Krylov iteration broke down; a matrix declared symmetric may not be positive definite",
    "pivot": "a line of the matrix, or of its coarse operators, has a zero or non-finite pivot: the matrix is singular",
    "not finite": "the right-hand side, the first guess or an iterate is not finite",
    "stagnated": "the residual has reached round-off of the matrix; ask for a larger tolerance",
}


class Backend(Protocol):
    """What a way to solve offers to ``LinearSolver``."""

    name: str
    recalls: bool

    @property
    def precise(self) -> bool:
        """Whether the preconditioner is one in float64."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept between solves."""

    def begin_precise(self) -> None:
        """Precondition in float64 from the first matrix on."""

    def setup(self, matrix: StencilMatrix, reuse: bool) -> None:
        """Take a matrix."""

    def prepare(self, transposed: bool) -> None:
        """Build the preconditioner unless it is there."""

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


@dataclass(frozen=True)
class LinearResult:
    """What a solve returns, converged or not.

    Attributes:
        x: [nz, ny, nx] the solution; the last iterate when not converged; all NaN when ``reason`` is "pivot" or
            "not finite".
        iterations: Krylov iterations, one application of the preconditioner each.
        residual: ||b - A x|| / ||b|| (or with the transpose), computed from x.
        converged: whether ``residual`` is at most the tolerance.
        reason: "" when converged, else a key of ``REASON_TEXT``.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool
    reason: str = ""


class LinearSolver:
    """Solves A x = b and A^T x = b for a :class:`StencilMatrix`.

    The backend "cpu" is a preconditioned Krylov method, conjugate gradients for matrices declared symmetric, else
    flexible GMRES; the preconditioner is a multigrid cycle with exact solves along z (README of this folder). Results
    do not depend on the number of threads (``torch.set_num_threads``). "triton" is the same method for matrices on a
    GPU. "reference" is SciPy's sparse LU, for small problems.

    Args:
        tolerance: of the relative residual in the 2-norm.
        max_iterations: of one solve.
        backend: "cpu", "triton", "reference", or None for "cpu".
        cycle: "W" (default) visits each coarser level twice as often as the one above, "V" as often. A W cycle costs
            little more, since coarser levels are a quarter of the size, and takes about half the iterations where K
            varies much.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        *,
        tolerance: float = 1e-8,
        max_iterations: int = 200,
        backend: str | None = None,
        cycle: str = "W",
    ) -> None:
        self.tolerance = _tolerance(tolerance)
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, it is {max_iterations}")
        if cycle not in ("V", "W"):
            raise ValueError(f"cycle must be 'V' or 'W', it is {cycle!r}")
        if backend not in (None, "cpu", "triton", "reference"):
            raise ValueError(f"backend must be 'cpu', 'triton', 'reference' or None, it is {backend!r}")
        self.max_iterations = max_iterations
        self._backend = _make(backend, cycle)
        self._matrix: StencilMatrix | None = None

    def setup(self, matrix: StencilMatrix, reuse: bool = False) -> None:
        """Take a new matrix. What is derived from it is built by the first solve that needs it.

        Args:
            matrix: on the CPU, for the backend "triton" on a GPU; its coefficients must not change while they are in
                use.
            reuse: go on with the preconditioner of the matrix before, which is right when the new one differs little;
                it is built anew when the shape has changed.

        Raises:
            TypeError, ValueError: not a StencilMatrix, or not where the backend computes.
        """
        if not isinstance(matrix, StencilMatrix):
            raise TypeError(f"matrix must be a StencilMatrix, not {type(matrix).__name__}")
        if self._backend.name == "triton":
            from dgpde.triton_launch import why_not

            if reason := why_not(matrix.device):
                raise ValueError(f"matrix is on {matrix.device}: {reason}")
        elif matrix.device.type != "cpu":
            raise ValueError(
                f"matrix is on {matrix.device}; backend {self._backend.name!r} needs it on the CPU; use 'triton'"
            )
        self._backend.setup(matrix, reuse)
        self._matrix = matrix

    def prepare(self, transposed: bool = False) -> None:
        """Build the preconditioner now rather than in the first solve."""
        if self._matrix is None:
            raise ValueError("matrix: there is none yet; call setup(matrix) first")
        self._backend.prepare(transposed)

    @property
    def precise(self) -> bool:
        """Whether solves have gone over to a preconditioner in float64, which later ones then use too.

        It is all that a solver remembers from one matrix to the next: a new one with ``begin_precise`` goes on alike,
        to the last bit.
        """
        return self._backend.precise

    def begin_precise(self) -> None:
        """Precondition in float64 from the start; to be called before the first ``setup``."""
        self._backend.begin_precise()

    @property
    def nbytes(self) -> int:
        """Memory that the preconditioners and work vectors hold now, bytes; the matrix is not counted."""
        return self._backend.nbytes

    @property
    def recalls(self) -> bool:
        """Whether ``solve(recall=True)`` makes a difference: with the backend "cpu"."""
        return self._backend.recalls

    def solve(
        self,
        rhs: Tensor,
        x0: Tensor | None = None,
        tolerance: float | None = None,
        transposed: bool = False,
        recall: bool = False,
    ) -> LinearResult:
        """Solve A x = rhs, or A^T x = rhs.

        Args:
            rhs: [nz, ny, nx] float64. Zero returns zero at once.
            x0: [nz, ny, nx] first guess; zero when None.
            tolerance: instead of the solver's own.
            transposed: solve with the transpose.
            recall: of a symmetric matrix: begin from the combination of the last four answers of such solves whose
                right-hand sides come nearest to this one, in place of ``x0``, and keep this one's. Right-hand sides
                that follow each other smoothly, as those of equal steps do, then take fewer iterations. 16 bytes a
                cell for each answer, until the next ``setup``. The other backends, and matrices that are not
                symmetric, keep none.

        Returns:
            A :class:`LinearResult`, also when the solve did not converge: the caller decides what that means.

        Raises:
            TypeError, ValueError: wrong type or shape; no matrix.
        """
        if self._matrix is None:
            raise ValueError("matrix: there is none yet; call setup(matrix) first")
        check_field("rhs", rhs, self._matrix)
        if x0 is not None:
            check_field("x0", x0, self._matrix)
        limit = self.tolerance if tolerance is None else _tolerance(tolerance)
        x, iterations, residual, reason = self._backend.solve(
            rhs, x0, limit, self.max_iterations, transposed, recall
        )
        return LinearResult(x, iterations, residual, reason == "", reason)


def _make(backend: str | None, cycle: str) -> Backend:
    if backend == "reference":
        return ReferenceBackend()
    if backend == "triton":
        from dgpde.linear.triton import TritonBackend

        return TritonBackend(cycle)
    return CpuBackend(cycle)


def _tolerance(value: float) -> float:
    if not (math.isfinite(value) and 0.0 < value < 1.0):
        raise ValueError(f"tolerance must lie between 0 and 1, it is {value!r}")
    return float(value)
