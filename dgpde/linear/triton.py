"""The Triton twin: hierarchies, vectors and iterations on the device of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.linear.stencil import TURN, StencilMatrix, is_uneven
from dgpde.linear.triton_hierarchy import Hierarchy, SingularLine
from dgpde.linear.triton_krylov import RESTART, Extra, Krylov

CONTRAST = 1e4  # of lateral couplings; above it the preconditioner is built in float64
#: Columns of a level below which a W cycle visits it once: each of its sweeps is a launch, which costs more there than
#: what it computes.
FEWEST = 4096


class TritonBackend:
    """Preconditions in float32 unless weak couplings decide the answer, as the C++ twin does.

    Args:
        cycle: "V" or "W".
        fewest: columns of a level that a W cycle visits twice, at least.
    """

    name = "triton"
    recalls = False

    def __init__(self, cycle: str, fewest: int = FEWEST) -> None:
        self.gamma, self.fewest = {"V": 1, "W": 2}[cycle], fewest
        self.matrix: StencilMatrix | None = None
        self.hierarchies: dict[bool, Hierarchy] = {}
        self.singular = False
        self.precise = False
        self.extra: Extra | None = None

    def setup(self, matrix: StencilMatrix, reuse: bool, extra: Extra | None = None) -> None:
        """Take a matrix; ``reuse`` keeps the hierarchies when shape and symmetry are the same.

        ``extra`` makes the system that of matrix + extra, preconditioned by the matrix alone; it belongs to the plain
        or to the transposed system, whichever is solved.
        """
        self.extra = extra
        old, cells = self.matrix, matrix.coefficients[0].numel()
        if old is not None and (old.coefficients[0].numel(), old.symmetric) != (cells, matrix.symmetric):
            self.precise = False
        if extra is None and is_uneven(matrix):
            # y takes the place of z, along which lines are solved exactly: the order of the cells is the same
            _, ny, nx = matrix.shape
            turned = matrix.coefficients[list(TURN)].reshape(7, ny, 1, nx)
            matrix = StencilMatrix(turned, matrix.symmetric)
        same = old is not None and (old.shape, old.symmetric) == (matrix.shape, matrix.symmetric)
        if not (reuse and same):
            self.hierarchies = {}
        self.matrix, self.singular = matrix, False

    def prepare(self, transposed: bool) -> None:
        """Build the hierarchy of the matrix or of its transpose, unless it is there."""
        self._hierarchy(transposed)

    def begin_precise(self) -> None:
        """Precondition in float64 from the first matrix on."""
        self.precise = True

    @property
    def nbytes(self) -> int:
        """Bytes of the hierarchies; vectors are there during a solve only."""
        return sum(one.nbytes for one in self.hierarchies.values())

    def _hierarchy(self, transposed: bool) -> Hierarchy | None:
        """None when a line is singular."""
        assert self.matrix is not None
        which = transposed and not self.matrix.symmetric
        if self.singular:
            return None
        try:
            if which not in self.hierarchies:
                dtype = torch.float64 if self.precise else torch.float32
                self.hierarchies[which] = Hierarchy(self.matrix, which, dtype)
                if not self.precise and self.hierarchies[which].contrast >= CONTRAST:
                    self._go_precise()
                    self.hierarchies[which] = Hierarchy(self.matrix, which, torch.float64)
        except SingularLine:
            self.singular = True
            return None
        return self.hierarchies[which]

    def _go_precise(self) -> None:
        self.precise, self.hierarchies = True, {}

    def solve(
        self,
        rhs: Tensor,
        x0: Tensor | None,
        tolerance: float,
        max_iterations: int,
        transposed: bool,
        recall: bool = False,
    ) -> tuple[Tensor, int, float, str]:
        """x, iterations, relative residual, reason ("" when converged); no answer is recalled (``recalls``)."""
        rhs = rhs.detach().contiguous()
        trial = min(max_iterations, RESTART) if not self.precise else max_iterations
        found = self._solve(rhs, x0, tolerance, trial, transposed)
        x, iterations, _, reason = found
        gave_up = reason not in ("", "pivot") and (reason != "not finite" or iterations > 0)
        if self.precise or not gave_up or iterations >= max_iterations:
            return found
        self._go_precise()
        guess = None if reason == "not finite" else x
        x, more, residual, reason = self._solve(
            rhs, guess, tolerance, max_iterations - iterations, transposed
        )
        return x, iterations + more, residual, reason

    def _solve(
        self,
        rhs: Tensor,
        x0: Tensor | None,
        tolerance: float,
        max_iterations: int,
        transposed: bool,
    ) -> tuple[Tensor, int, float, str]:
        hierarchy = self._hierarchy(transposed)
        if hierarchy is None:
            return torch.full_like(rhs, torch.nan), 0, float("nan"), "pivot"
        assert self.matrix is not None
        krylov = Krylov(self.matrix, hierarchy, transposed, self.gamma, self.fewest, self.extra)
        shape = self.matrix.shape
        guess = None if x0 is None else x0.detach().reshape(shape)
        x, iterations, residual, reason = krylov.solve(rhs.reshape(shape), guess, tolerance, max_iterations)
        return x.reshape(rhs.shape), iterations, residual, reason
