"""What every backend of the transport stencil receives and returns: data, no numerics.

Fields are [nz, ny, nx], z up, x fastest, as those of the flow stencil. What belongs to a face is stored with the cell
below, south or west of it; the last entry along the axis belongs to no face and is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, SIDES, on_side

SCHEMES = ("upwind", "central", "tvd")
PAIRS = tuple(
    (n, t) for n in range(3) for t in range(3) if t != n
)  # axis of a face, axis of a gradient along it


@dataclass(frozen=True)
class Geometry:
    """Where solutes move; no gradient flows through it.

    Attributes:
        shape: (nz, ny, nx).
        widths: sizes of the cells along z, y and x, [nz], [ny], [nx] m.
        axes: those along which cells have neighbours.
        active: [nz, ny, nx] bool; None when every cell takes part.
        scheme: of advection, one of ``SCHEMES``.
        cross_terms: whether gradients along a face drive dispersion through it.
    """

    shape: tuple[int, int, int]
    widths: tuple[Tensor, Tensor, Tensor]
    axes: tuple[int, ...]
    active: Tensor | None
    scheme: str
    cross_terms: bool

    @property
    def wide(self) -> bool:
        """Whether the flow through a face depends on more than its two cells, or not linearly on them."""
        return self.scheme != "upwind" or self.crossing

    @property
    def crossing(self) -> bool:
        """Whether there are cross terms."""
        return self.cross_terms and len(self.axes) > 1

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(axis of a face, axis of a gradient along it) of the cross terms."""
        return tuple(pair for pair in PAIRS if set(pair) <= set(self.axes)) if self.crossing else ()

    @cached_property
    def volume(self) -> Tensor:
        """[nz, ny, nx] m3, 0 where a cell is not active."""
        dz, dy, dx = self.widths
        volume = dz[:, None, None] * (dy[:, None] * dx)
        return volume if self.active is None else volume * self.active

    def broad(self, axis: int, values: Tensor) -> Tensor:
        """Values along an axis as what broadcasts to a field."""
        return values.reshape([-1 if k == axis else 1 for k in range(3)])

    @cached_property
    def area(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the faces across z, y and x, what broadcasts to a field, m2."""
        z, y, x = (self.broad(axis, width) for axis, width in enumerate(self.widths))
        return y * x, z * x, z * y

    @cached_property
    def half(self) -> tuple[Tensor, Tensor, Tensor]:
        """Half of the cells' sizes, what broadcasts to a field, m."""
        z, y, x = (self.broad(axis, 0.5 * width) for axis, width in enumerate(self.widths))
        return z, y, x

    @cached_property
    def inverse(self) -> dict[int, Tensor]:
        """By axis, [nz, ny, nx] 1/m: one over the distance of the two cells of a face, 0 without a face."""
        found = {}
        for axis in self.axes:
            half, last = 0.5 * self.widths[axis], self.shape[axis] - 1
            inverse = half.new_zeros(self.shape[axis])
            inverse[:last] = 1.0 / (half[:-1] + half[1:])
            field = self.broad(axis, inverse).expand(self.shape).clone()
            if self.active is not None:
                active = self.active.to(field)
                field.narrow(axis, 0, last).mul_(active.narrow(axis, 0, last) * active.narrow(axis, 1, last))
            found[axis] = field
        return found

    def side_area(self, side: str) -> Tensor:
        """[*side] m2, 0 where the cell is not active."""
        axis = SIDES.index(side) // 2
        first, second = (self.widths[k] for k in range(3) if k != axis)
        area = first[:, None] * second
        return area if self.active is None else area * on_side(self.active, side)

    def side_half(self, side: str) -> float:
        """Distance from the faces of a side to the centres of its cells, m."""
        at = SIDES.index(side)
        return 0.5 * float(self.widths[at // 2][0 if at % 2 == 0 else -1])


@dataclass(frozen=True)
class Faces:
    """What solutes move through between cells, by axis.

    Attributes:
        flow: water, [nz, ny, nx] m3/s, positive along the axis.
        conductance: area (theta D)_nn over the distance, [nz, ny, nx] m3/s.
        cross: by (n, t), area (theta D)_nt, [nz, ny, nx] m4/s.
    """

    flow: dict[int, Tensor]
    conductance: dict[int, Tensor]
    cross: dict[tuple[int, int], Tensor]

    def named(self) -> dict[str, Tensor]:
        """All of them by name."""
        found = {f"flow_{AXES[k]}": value for k, value in self.flow.items()}
        found |= {f"conductance_{AXES[k]}": value for k, value in self.conductance.items()}
        return found | {f"cross_{AXES[n]}{AXES[t]}": value for (n, t), value in self.cross.items()}


@dataclass(frozen=True)
class Solved:
    """What a linear solve returns, converged or not.

    Attributes:
        x: [nz, ny, nx].
        iterations: of Krylov.
        residual: ||b - A x|| / ||b||, computed from x.
        converged: whether it is at most the tolerance.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool


class Network(Protocol):
    """What one solute does between the cells in one step, on one backend.

    N(c) [nz, ny, nx] kg/s: what leaves a cell less what enters it, less c of the cell times the water that leaves
    less the water that enters; so that N of a constant is 0 whatever the water does.
    """

    geometry: Geometry
    faces: Faces

    def apply(self, c: Tensor) -> Tensor:
        """N(c)."""

    def setup(self, diagonal: Tensor, column: Tensor | None, at: Tensor) -> None:
        """Take J = diag(diagonal) + dN/dc(at) diag(column) for the solves; ``column`` None for ones."""

    def solve(self, rhs: Tensor, guess: Tensor | None, tolerance: float, transposed: bool) -> Solved:
        """J x = rhs, or with the transpose."""

    def pull(self, multiplier: Tensor, c: Tensor) -> Faces:
        """d/d(faces) of -<multiplier, N(c)>."""

    def push(self, c: Tensor, faces: Faces) -> Tensor:
        """dN(c) for tangents of the faces; entries that are missing do not move."""
