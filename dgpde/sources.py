"""Water that is taken from or brought into the cells: data and checks.

Every value may be a number, a tensor that broadcasts or, when it varies in time, a ``Series``; all of them
are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dgpde.frame import NOT_NEGATIVE, POSITIVE, Frame, Limits, Stored, store, tensor_of
from dgpde.grid import Grid
from dgpde.series import Number, Value
from dgpde.stress import Feddes, NeuralStress, TabulatedStress


@dataclass(frozen=True, eq=False)
class RootUptake:
    """Transpiration taken up by roots: S = Tp b(z) a(psi) / max(omega, omega_c), omega = integral of b a.

    Jarvis 1989, J. Hydrol. 107, 57-72: roots in wet layers make up for those in dry ones down to a water
    stress index omega of omega_c; 1 (the default) is Feddes without compensation.

    In sections and domains each column of cells, [*top] of them, has its own roots; the surface is the top of its
    highest active cell, and cells that are not active have none. There omega_c must be 1: compensation would couple all
    cells of a column.

    Args:
        transpiration: potential transpiration Tp [m/s], not negative; number, [*top] ([n] of columns) or Series [T],
            [T, *top].
        root_depth: depth of the root zone below the surface [m], positive; number, [*top] or Series. The density
            is that of ``root_density``.
        density: root density instead of ``root_depth``, not negative, in any unit (it is divided by its
            integral over the column); what broadcasts to the grid's shape ([nz, 1], [nz, n]), or Series of that.
        response: to pressure head, a(psi): a ``Feddes`` (default, that of grass), a ``TabulatedStress`` or a
            ``NeuralStress``.
        omega_c: critical water stress index, in (0, 1]; number or [n]. Default 1.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range; both or neither of root_depth and density.
    """

    transpiration: Value
    root_depth: Value | None = None
    density: Value | None = None
    response: Feddes | TabulatedStress | NeuralStress = field(default_factory=Feddes)
    omega_c: Value = 1.0

    def __post_init__(self) -> None:
        if (self.root_depth is None) == (self.density is None):
            raise ValueError("root_depth or density must be given, and not both")
        if not isinstance(self.response, Feddes | TabulatedStress | NeuralStress):
            raise TypeError(
                "response must be a Feddes, a TabulatedStress or a NeuralStress, not "
                f"{type(self.response).__name__}"
            )
        for name, limits in _ROOT_LIMITS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, store(name, value, limits))

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        values = {name: getattr(self, name) for name in _ROOT_LIMITS}
        found = ((name, tensor_of(value)) for name, value in values.items() if value is not None)
        return [(name, tensor) for name, tensor in found if tensor is not None] + self.response.tensors()

    def inputs(self, frame: Frame) -> dict[str, Tensor]:
        """The kernel's root inputs for the intervals of the frame: transpiration, density, Feddes' heads, omega_c.

        A tabulated response is read beside them (``Words.responses``).
        """
        grid = frame.grid
        surface = grid.side_shape("top")
        value: dict[str, Stored] = {name: getattr(self, name) for name in _ROOT_LIMITS}
        transpiration = frame.compact(
            "transpiration of RootUptake", value["transpiration"], surface, NOT_NEGATIVE
        )
        if self.density is None:
            depth = frame.compact("root_depth of RootUptake", value["root_depth"], surface, POSITIVE)
            density = root_density(depth, grid.z_faces, _top_of_active(grid), plane=len(surface))
            if grid.active is not None:
                density = _normalised(density * grid.active.to(density), grid)
        else:
            density = self._given_density(frame, value["density"])
        omega_c = frame.constant("omega_c of RootUptake", value["omega_c"], surface, _ROOT_LIMITS["omega_c"])
        return {
            "transpiration": frame.full(transpiration, surface),
            "root_density": frame.full(density, grid.shape),
            **(self.response.inputs(frame, transpiration) if isinstance(self.response, Feddes) else {}),
            "omega_c": omega_c,
        }

    @staticmethod
    def _given_density(frame: Frame, value: Stored) -> Tensor:
        """[t or 1, nz, *(top or 1)], divided by its integral over the column."""
        name, grid = "density of RootUptake", frame.grid
        given = frame.compact(name, value, grid.shape, NOT_NEGATIVE)
        given = given.expand(-1, grid.nz, *given.shape[2:])
        rooted = (given.detach() > 0.0).any(1)
        if grid.active is not None:
            given = given * grid.active.to(given)
            rooted = (given.detach() > 0.0).any(1) | ~grid.active.any(0).to(given.device)
        if not bool(rooted.all()):
            raise ValueError(
                f"{name} is zero over a whole column; give that column at least one cell with roots"
            )
        return _normalised(given, grid)


def _top_of_active(grid: Grid) -> Tensor | None:
    """[*top] elevation of the top of the highest active cell of each column; None where all are active."""
    if grid.active is None:
        return None
    layer = torch.arange(1, grid.nz + 1).reshape(-1, *[1] * (len(grid.shape) - 1))
    return grid.z_faces[(layer * grid.active).amax(0)]


def _normalised(density: Tensor, grid: Grid) -> Tensor:
    """[t, nz, ...] divided by its integral over each column; columns without any stay without."""
    dz = grid.dz.to(density).reshape(-1, *[1] * (density.dim() - 2))
    total = (density * dz).sum(1, keepdim=True)
    return density / torch.where(total > 0.0, total, 1.0)


_ROOT_LIMITS = {
    "transpiration": NOT_NEGATIVE,
    "root_depth": POSITIVE,
    "density": NOT_NEGATIVE,
    "omega_c": Limits(lower=0.0, upper=1.0, open_lower=True),
}


def root_density(
    root_depth: Tensor, z_faces: Tensor, surface: Tensor | None = None, plane: int = 1
) -> Tensor:
    """Root density per cell of a root zone of the given depth, with sum(b dz) = 1.

    Hoffman & van Genuchten 1983 (in: Limitations to Efficient Water Use in Crop Production, ASA, 361-385):
    with x the depth below the surface and L the root depth, b = 5/(3 L) for x < 0.2 L, 25/(12 L) (1 - x/L)
    down to L, 0 below. It is integrated exactly over each cell, so that b is continuously differentiable in L
    also while the root zone grows through a face. Roots that would be below the column are given to the
    column in proportion.

    Args:
        root_depth: [..., *top] m, positive; of columns [..., n].
        z_faces: [nz + 1] elevation of the faces, m, increasing.
        surface: [*top] m, a face above the lowest one, or the lowest one where there is no soil (b is 0 then). None
            (default): the highest face.
        plane: how many dimensions ``top`` has, default 1.

    Returns:
        [..., nz, *top] 1/m.
    """
    faces = z_faces.to(root_depth).reshape(-1, *[1] * plane)
    top = faces[-1:] if surface is None else surface.to(root_depth)[None]
    along = -1 - plane
    x = ((top - faces) / root_depth.unsqueeze(along)).clamp(0.0, 1.0)  # [..., nz + 1, *top]
    above = torch.where(x < 0.2, 5.0 / 3.0 * x, 1.0 / 3.0 + 25.0 / 12.0 * ((x - 0.2) - 0.5 * (x * x - 0.04)))
    whole = above.narrow(along, 0, 1)
    share = -above.diff(dim=along) / torch.where(whole > 0.0, whole, 1.0)
    return share / faces.diff(dim=0)


@dataclass(frozen=True, eq=False)
class Source:
    """Water brought into the cells, per volume of soil.

    Args:
        values: rate [1/s], positive into the soil; number, [n], [nz, 1], [nz, n] or Series [T], [T, n],
            [T, nz, 1], [T, nz, n].
    """

    values: Value | Number

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", store("values", self.values))

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensor among the values, for the choice of type and device."""
        tensor = tensor_of(self.values)  # type: ignore[arg-type]
        return [] if tensor is None else [("values", tensor)]

    def compact(self, frame: Frame, number: int) -> Tensor:
        """[t or 1, nz or 1, n or 1] for the intervals of the frame; ``number`` tells sources apart."""
        value: Stored = self.values  # type: ignore[assignment]
        return frame.compact(f"values of Source {number}", value, frame.grid.shape)


@dataclass(frozen=True, eq=False)
class Well:
    """Water that a well brings into each of its cells; of a field, not of columns.

    Args:
        cells: which cells: one index (k, j, i), in sections (k, i), a list of them, or a boolean tensor of the
            grid's shape (its cells in the order of memory).
        rate: volume rate of each cell [m3/s] (of sections m2/s), positive into the domain, so that a pumping well
            has a negative one; number, [m] for m cells, or Series [T], [T, m].

    Raises:
        TypeError, ValueError: cells or rate of the wrong kind; cells outside of the grid when a model is made.
    """

    cells: Sequence[int] | Sequence[Sequence[int]] | Tensor
    rate: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", store("rate", self.rate))

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensor among the values, for the choice of type and device."""
        tensor = tensor_of(self.rate)  # type: ignore[arg-type]
        return [] if tensor is None else [("rate", tensor)]

    def flat(self, shape: tuple[int, ...]) -> Tensor:
        """[m] int64, the cells as indices into a flattened field of that shape."""
        return flat_cells("cells", self.cells, shape)

    def rates(self, frame: Frame, number: int) -> Tensor:
        """[t or 1, m] for the intervals of the frame; ``number`` tells wells apart."""
        count = self.flat(frame.grid.shape).numel()
        value: Stored = self.rate  # type: ignore[assignment]
        rate = frame.compact(f"rate of Well {number}", value, (count,))
        return rate.expand(-1, count)


@dataclass(frozen=True, eq=False)
class River:
    """Water that cells exchange with a body of water of given head: a river, a lake, a head held in the ground.

    Each cell receives conductance (H - H of the cell), as with MODFLOW's GHB; of a field, not of columns.

    Args:
        cells: which cells, as for ``Well``.
        H: hydraulic head of the water body [m], z counted as by the grid; number, [m] for m cells, or Series [T],
            [T, m].
        conductance: [m2/s] (of sections m/s), not negative; shaped as H.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range; cells outside of the grid when a model is made.
    """

    cells: Sequence[int] | Sequence[Sequence[int]] | Tensor
    H: Value
    conductance: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "H", store("H", self.H))
        object.__setattr__(self, "conductance", store("conductance", self.conductance, NOT_NEGATIVE))

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        found = ((name, tensor_of(getattr(self, name))) for name in ("H", "conductance"))
        return [(name, tensor) for name, tensor in found if tensor is not None]

    def flat(self, shape: tuple[int, ...]) -> Tensor:
        """[m] int64, the cells as indices into a flattened field of that shape."""
        return flat_cells("cells", self.cells, shape)

    def inputs(self, frame: Frame, number: int) -> dict[str, Tensor]:
        """Head (as the psi of equal H) and conductance, [t or 1, m] each; ``number`` tells rivers apart."""
        cells = self.flat(frame.grid.shape)
        z = frame.grid.gravity * frame.grid.z.expand(frame.grid.shape).flatten()[cells]
        values: dict[str, Stored] = {name: getattr(self, name) for name in ("H", "conductance")}
        head = frame.compact(f"H of River {number}", values["H"], (cells.numel(),))
        name = f"conductance of River {number}"
        conductance = frame.compact(name, values["conductance"], (cells.numel(),), NOT_NEGATIVE)
        return {"head": head - z.to(head), "conductance": conductance.expand(-1, cells.numel())}


def flat_cells(name: str, cells: object, shape: tuple[int, ...]) -> Tensor:
    """[m] int64 indices into a flattened field, from an index, a list of indices or a mask.

    Raises:
        TypeError, ValueError: the message starts with ``name``.
    """
    if isinstance(cells, Tensor) and cells.dtype == torch.bool:
        if tuple(cells.shape) != shape:
            raise ValueError(f"{name} is a mask of the shape {list(cells.shape)}, it must be {list(shape)}")
        found = cells.flatten().nonzero().flatten().cpu()
    else:
        try:
            index = np.atleast_2d(np.asarray(cells))
        except ValueError as error:
            raise TypeError(f"{name} is not a list of indices ({error})") from error
        if index.dtype.kind not in "iu" or index.ndim != 2 or index.shape[1] != len(shape):
            raise TypeError(
                f"{name} must be an index of {len(shape)} integers, a list of them, or a boolean mask of the grid"
            )
        index = np.where(index < 0, index + np.array(shape), index)
        if (index < 0).any() or (index >= np.array(shape)).any():
            raise ValueError(f"{name} has an index outside of the grid's shape {shape}")
        found = torch.from_numpy(np.ravel_multi_index(tuple(index.T), shape).astype(np.int64))
    if found.numel() == 0:
        raise ValueError(f"{name} holds no cell; give at least one")
    if found.unique().numel() != found.numel():
        raise ValueError(f"{name} holds a cell twice; give each once")
    return found
