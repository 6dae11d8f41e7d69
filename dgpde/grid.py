"""Where the cells are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgpde.series import numeric

Spacing = float | Sequence[float] | Tensor | NDArray[np.generic]
SIDES = ("top", "bottom", "west", "east", "south", "north")


class Grid:
    """Cell-centred grid: (nz, nx) for a section, (nz, ny, nx) for a domain; z up, index 0 at the bottom.

    Args:
        shape: number of cells along z, (y,) x.
        spacing: cell size along each axis [m]; a number, or one number a cell along that axis. A section is 1 m
            wide.
        active: boolean field of ``shape``, False where a cell takes no part; None when all do.
        z_bottom: elevation of the lowest face [m], default 0; -sum(dz) puts z = 0 at the surface.
        surface: elevation of the land surface [m] at the centres of the columns, what broadcasts to ``shape[1:]``;
            the layers then follow the terrain, each as thick everywhere as ``spacing`` says. A face between two
            columns has the fall of the terrain between their centres, and a lateral flux is that along the slope,
            K (cos(theta) dpsi/dx + sin(theta)) (Maxwell 2013, Adv. Water Resour. 53:109). None (default): level.

    Attributes:
        shape: as given; a field of the grid has this shape.
        lateral: True when water may move sideways, False for independent columns.
        dz: [nz] float64 m, on the CPU.
        gravity: component of gravity along z, 1 vertical.
        z_bottom: elevation of the lowest face [m]; 0 over terrain.
        surface: [*shape[1:]] float64 on the CPU, as given; None when the grid is level.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or sign.
    """

    def __init__(
        self,
        shape: Sequence[int],
        spacing: Sequence[Spacing],
        active: Tensor | None = None,
        *,
        z_bottom: float = 0.0,
        surface: float | Tensor | NDArray[np.generic] | None = None,
    ) -> None:
        self.shape = _shape("shape", shape)
        if len(self.shape) not in (2, 3):
            raise ValueError(f"shape must be (nz, nx) or (nz, ny, nx), not {self.shape}")
        if isinstance(spacing, int | float) or len(spacing) != len(self.shape):
            raise ValueError(f"spacing must hold one entry for each of the {len(self.shape)} axes of shape")
        sizes = [_sizes(f"spacing[{axis}]", size, self.shape[axis]) for axis, size in enumerate(spacing)]
        self.dz = sizes[0]
        self.spacing = tuple(sizes)
        self.lateral = True
        self.gravity = 1.0
        self.z_bottom = _number("z_bottom", z_bottom)
        self.active = _active(active, self.shape)
        self.surface = None if surface is None else _surface(surface, self.shape[1:])
        if surface is not None and self.z_bottom != 0.0:
            raise ValueError("z_bottom and surface both say where the layers are; give one of them")

    @classmethod
    def columns(
        cls,
        n: int,
        dz: Sequence[float] | Tensor | NDArray[np.generic],
        *,
        gravity: float = 1.0,
        z_bottom: float = 0.0,
    ) -> Grid:
        """n independent soil columns of the same layering; a field has the shape (nz, n).

        Args:
            n: number of columns, at least 1.
            dz: [nz] layer thicknesses from the bottom up [m].
            gravity: component of gravity along the column, from 1 (vertical, default) to 0 (horizontal).
            z_bottom: elevation of the lowest face [m], default 0; -sum(dz) puts z = 0 at the soil surface.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape, sign or size.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise TypeError(f"n must be an integer, not {type(n).__name__}")
        if n < 1:
            raise ValueError(f"n must be at least 1, it is {n}")
        if isinstance(dz, int | float):
            raise ValueError("dz must hold one thickness a layer, for instance [0.05] * 40; it is one number")
        grid = cls.__new__(cls)
        grid.dz = _sizes("dz", numeric("dz", dz), -1)
        grid.shape = (grid.dz.numel(), int(n))
        grid.spacing = (grid.dz,)
        grid.lateral = False
        grid.active = grid.surface = None
        grid.gravity = _number("gravity", gravity)
        if not 0.0 <= grid.gravity <= 1.0:
            raise ValueError(f"gravity must lie between 0 (horizontal) and 1 (vertical), it is {gravity}")
        grid.z_bottom = _number("z_bottom", z_bottom)
        return grid

    @property
    def nz(self) -> int:
        """Number of layers."""
        return self.shape[0]

    @property
    def n(self) -> int:
        """Number of columns: all positions in the plane."""
        return math.prod(self.shape[1:])

    def same_as(self, other: Grid) -> bool:
        """Whether the cells of two grids are the same: sizes, places, kind, active cells and terrain."""
        fields = ((self.active, other.active), (self.surface, other.surface))
        return (
            self.shape == other.shape
            and self.lateral == other.lateral
            and self.gravity == other.gravity
            and self.z_bottom == other.z_bottom
            and all(torch.equal(a, b) for a, b in zip(self.spacing, other.spacing, strict=True))
            and all((a is None) == (b is None) for a, b in fields)
            and all(a is None or b is None or torch.equal(a, b) for a, b in fields)
        )

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that the grid has: top and bottom; of sections also west and east; of domains all six."""
        if not self.lateral:
            return SIDES[:2]
        return SIDES[:4] if len(self.shape) == 2 else SIDES

    def side_shape(self, side: str) -> tuple[int, ...]:
        """Shape of the faces of a side: (n,) for columns; of a section (nx,) for top and bottom, (nz,) for west
        and east; of a domain (ny, nx), (nz, ny) for west and east, (nz, nx) for south and north.
        """
        gone = {"top": 0, "bottom": 0, "south": 1, "north": 1}.get(side, len(self.shape) - 1)
        return tuple(size for axis, size in enumerate(self.shape) if axis != gone)

    def side_area(self, side: str) -> Tensor:
        """Area of the faces of a side, [*side] m2 (of a section, which is 1 m wide); 1 for a column's."""
        if not self.lateral:
            return torch.ones(self.side_shape(side), dtype=torch.float64)
        gone = {"top": 0, "bottom": 0, "south": 1, "north": 1}.get(side, len(self.shape) - 1)
        area = torch.ones((), dtype=torch.float64)
        for axis, sizes in enumerate(self.spacing):
            if axis != gone:
                area = area[..., None] * sizes
        return area

    def side_elevation(self, side: str) -> Tensor:
        """Elevation of the centres of the faces of a side, as what broadcasts to ``side_shape``, m."""
        if side in ("top", "bottom"):
            return self.z_faces[-1 if side == "top" else 0] + self.base(side)
        layers = self.layers.reshape(-1, *[1] * (len(self.shape) - 2))
        return layers + self.base(side)

    def base(self, side: str) -> Tensor:
        """What terrain lifts the columns by at a side, as what broadcasts to ``side_shape``, m; 0 when level."""
        lift = self.lift
        if lift is None:
            return torch.zeros((), dtype=torch.float64)
        if side in ("top", "bottom"):
            return lift
        edge = 0 if side in ("south", "west") else -1
        return lift.select(0 if side in ("south", "north") else -1, edge)

    @property
    def lift(self) -> Tensor | None:
        """[*shape[1:]] elevation of the lowest faces over terrain, m; None when the grid is level."""
        return None if self.surface is None else self.surface - self.dz.sum()

    @property
    def z_faces(self) -> Tensor:
        """Elevation of the faces between layers, bottom and top included, over terrain above the lowest face: [nz + 1]
        m.
        """
        zero = torch.zeros(1, dtype=torch.float64)
        return self.z_bottom + torch.cat([zero, self.dz.cumsum(0)])

    @property
    def z(self) -> Tensor:
        """Elevation of the cell centres, shaped [nz, 1] (or [nz, 1, 1]) to broadcast against a field, m; over terrain
        of the grid's shape.
        """
        z = self.layers.reshape(-1, *[1] * (len(self.shape) - 1))
        return z if self.lift is None else z + self.lift

    @property
    def layers(self) -> Tensor:
        """Elevation of the centres of the layers, counted as ``z_faces``: [nz] m."""
        faces = self.z_faces
        return 0.5 * (faces[1:] + faces[:-1])

    @property
    def depth(self) -> Tensor:
        """Depth of the cell centres below the top face, shaped like ``z``, m."""
        return (self.z_faces[-1] - self.layers).reshape(-1, *[1] * (len(self.shape) - 1))

    def __repr__(self) -> str:
        kind = "Grid" if self.lateral else "Grid.columns"
        return f"{kind}(shape={self.shape}, height={self.dz.sum().item():.6g} m)"


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, int) or not all(
        isinstance(size, int | np.integer) and not isinstance(size, bool) for size in shape
    ):
        raise TypeError(f"{name} must be a sequence of integers, not {shape!r}")
    if any(size < 1 for size in shape):
        raise ValueError(f"{name} must have at least one cell along each axis, it is {tuple(shape)}")
    return tuple(int(size) for size in shape)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, it is {value}")
    return float(value)


def _sizes(name: str, value: Spacing, count: int) -> Tensor:
    """[count] float64 cell sizes on the CPU."""
    sizes = numeric(name, value)
    if sizes.requires_grad:
        raise ValueError(f"{name} requires a gradient, but none is computed to the grid: detach it")
    sizes = sizes.detach().to(device="cpu", dtype=torch.float64)
    if sizes.dim() == 0:
        sizes = sizes.expand(count)
    if sizes.dim() != 1 or sizes.numel() == 0 or (count >= 0 and sizes.numel() != count):
        expected = f"[{count}]" if count >= 0 else "one-dimensional"
        raise ValueError(f"{name} has the shape {list(sizes.shape)}, it must be {expected}, one size a cell")
    if not bool(torch.isfinite(sizes).all()) or not bool((sizes > 0).all()):
        raise ValueError(f"{name} must be finite and positive everywhere")
    return sizes.contiguous()


def _surface(surface: float | Tensor | NDArray[np.generic], shape: tuple[int, ...]) -> Tensor:
    """[*shape] float64 elevations on the CPU."""
    given = numeric("surface", surface)
    if given.requires_grad:
        raise ValueError("surface requires a gradient, but none is computed to the grid: detach it")
    given = given.detach().to(device="cpu", dtype=torch.float64)
    if not bool(torch.isfinite(given).all()):
        raise ValueError("surface has values that are not finite (NaN or infinite); fill them")
    try:
        return given.expand(shape).contiguous()
    except RuntimeError:
        raise ValueError(
            f"surface has the shape {list(given.shape)}, which does not broadcast to {list(shape)}, one elevation a "
            "column"
        ) from None


def _active(active: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    if active is None:
        return None
    if not isinstance(active, Tensor) or active.dtype != torch.bool:
        raise TypeError("active must be a boolean tensor of the grid's shape, or None")
    if tuple(active.shape) != shape:
        raise ValueError(f"active has the shape {list(active.shape)}, it must be {list(shape)}")
    if not bool(active.any()):
        raise ValueError("active leaves no cell; at least one must be True")
    return active
