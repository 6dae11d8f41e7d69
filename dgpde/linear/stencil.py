"""7-point matrices on a structured grid, held as seven fields: no index arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import scipy.sparse

#: Order of the coefficients, and the shift (z, y, x) from a cell to that neighbour.
NEIGHBOURS = {
    "diag": (0, 0, 0),
    "below": (-1, 0, 0),
    "above": (1, 0, 0),
    "south": (0, -1, 0),
    "north": (0, 1, 0),
    "west": (0, 0, -1),
    "east": (0, 0, 1),
}
_OPPOSITE = (0, 2, 1, 4, 3, 6, 5)
#: The coefficients of a single layer [1, ny, nx] as those of [ny, 1, nx]: y takes the place of z.
TURN = (0, 3, 4, 1, 2, 5, 6)
#: Of one layer: how much couplings along y over those along x may vary from row to row, times the same from column to
#: column, before lines along y are solved exactly.
UNEVEN = 30.0


def _inside(shift: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The cells that have the neighbour at ``shift``, and those neighbours in the same order."""
    here = tuple(slice(max(0, -d), -d if d > 0 else None) for d in shift)
    there = tuple(slice(max(0, d), d if d < 0 else None) for d in shift)
    return here, there


class StencilMatrix:
    """A matrix A whose rows couple each cell with its six neighbours.

        (A x)[z, y, x] = diag x[z, y, x] + below x[z-1, y, x] + above x[z+1, y, x]
                       + south x[z, y-1, x] + north x[z, y+1, x] + west x[z, y, x-1] + east x[z, y, x+1]

    with every coefficient taken at (z, y, x). A cell that is not part of the problem has diag 1 and nothing else.

    Args:
        coefficients: [7, nz, ny, nx] float64, in the order of the formula; 0 where the neighbour lies outside the grid.
            Kept as it is when contiguous, else copied; it must not be written to while a solver uses it.
        symmetric: promise that A equals its transpose. Products then read four of the seven fields, so a promise
            that is not kept gives wrong products.

    Raises:
        TypeError, ValueError: wrong type, shape, or a coefficient of a neighbour outside the grid that is not 0.
    """

    def __init__(self, coefficients: Tensor, symmetric: bool = False) -> None:
        if not isinstance(coefficients, Tensor):
            raise TypeError(f"coefficients must be a tensor, not {type(coefficients).__name__}")
        if coefficients.dtype != torch.float64:
            raise TypeError(
                f"coefficients must be float64, they are {coefficients.dtype}; convert them with .double()"
            )
        if coefficients.dim() != 4 or coefficients.shape[0] != 7 or 0 in coefficients.shape:
            raise ValueError(
                f"coefficients must have the shape [7, nz, ny, nx], not {list(coefficients.shape)}; "
                "a section is [7, nz, 1, nx], a plain aquifer [7, 1, ny, nx]"
            )
        self.coefficients = coefficients.detach().contiguous()  # [7, nz, ny, nx]
        self.symmetric = bool(symmetric)
        for k, (name, shift) in enumerate(NEIGHBOURS.items()):
            for axis, d in enumerate(shift):
                edge = self.coefficients[k].select(axis, 0 if d < 0 else -1)
                if d != 0 and torch.count_nonzero(edge) != 0:
                    raise ValueError(
                        f"coefficients of {name!r} are not 0 at the edge, where that neighbour is missing"
                    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        _, nz, ny, nx = self.coefficients.shape
        return nz, ny, nx

    @property
    def device(self) -> torch.device:
        """Where the coefficients are."""
        return self.coefficients.device

    def matvec(self, x: Tensor) -> Tensor:
        """A x, [nz, ny, nx] from x [nz, ny, nx] float64."""
        check_field("x", x, self)
        result = self.coefficients[0] * x
        for c, shift in zip(self.coefficients[1:], list(NEIGHBOURS.values())[1:], strict=True):
            here, there = _inside(shift)
            result[here] += c[here] * x[there]
        return result

    def transpose(self) -> StencilMatrix:
        """The transpose, with coefficients of its own; a symmetric matrix returns itself."""
        if self.symmetric:
            return self
        result = torch.zeros_like(self.coefficients)
        for k, shift in enumerate(NEIGHBOURS.values()):
            here, there = _inside(shift)
            result[_OPPOSITE[k]][there] = self.coefficients[k][here]
        return StencilMatrix(result)

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The same matrix in compressed rows; unknowns in memory order (x fastest)."""
        import scipy.sparse

        nz, ny, nx = self.shape
        steps = [shift[0] * ny * nx + shift[1] * nx + shift[2] for shift in NEIGHBOURS.values()]
        index = torch.arange(nz * ny * nx).reshape(self.shape)
        rows, columns, values = [], [], []
        for c, shift, step in zip(self.coefficients.cpu(), NEIGHBOURS.values(), steps, strict=True):
            here, _ = _inside(shift)
            rows.append(index[here].flatten())
            columns.append(rows[-1] + step)
            values.append(c[here].flatten())
        entries = torch.cat(values).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy())
        matrix = scipy.sparse.csr_matrix(entries, shape=(index.numel(), index.numel()))
        matrix.eliminate_zeros()
        return matrix


def check_field(name: str, x: Tensor, matrix: StencilMatrix) -> None:
    """Refuse what is not a float64 field of the matrix's shape on its device.

    Raises:
        TypeError, ValueError: with the name first.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
    if x.dtype != torch.float64:
        raise TypeError(f"{name} must be float64, it is {x.dtype}; convert it with .double()")
    if tuple(x.shape) != matrix.shape:
        raise ValueError(
            f"{name} must have the shape {list(matrix.shape)} of the matrix, not {list(x.shape)}"
        )
    if x.device != matrix.device:
        raise ValueError(
            f"{name} is on {x.device}, the matrix on {matrix.device}; move one of them with .to()"
        )


def is_uneven(matrix: StencilMatrix) -> bool:
    """Whether a single layer is stretched along y in some places and along x in others.

    Coarsening along the stronger couplings, as the hierarchy does it, then serves neither; exact lines along one axis
    and coarsening along the other serve both.
    """
    if matrix.shape[0] > 1 or 1 in matrix.shape[1:]:
        return False
    _, _, _, south, north, west, east = matrix.coefficients.abs()
    spread = 1.0
    for axis in (1, 2):
        # sums over rows and columns: a conductivity that varies from cell to cell is not meant
        along_y, along_x = (south + north).sum((0, axis)), (west + east).sum((0, axis))
        both = (along_y > 0.0) & (along_x > 0.0)
        if bool(both.any()):
            ratio = along_y[both] / along_x[both]
            spread *= float(ratio.max() / ratio.min())
    return spread > UNEVEN
