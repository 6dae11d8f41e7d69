"""Linear systems of the field engine: 7-point matrices on structured grids, solved plain and transposed."""

from dgpde.linear.solver import LinearResult, LinearSolver
from dgpde.linear.stencil import StencilMatrix

__all__ = ["LinearResult", "LinearSolver", "StencilMatrix"]
