"""Sections and domains for ParaView and VisIt: XDMF 3, whose values stay in the HDF5 file beside it.

The grid is rectilinear (3DRectMesh), over terrain curvilinear (3DSMesh), written as one collection in time; psi,
theta, saturation and, when some cells take no part, ``active`` (0 or 1) are values of the cells. Axes are in the order
of memory, (z, y, x); a section is one cell wide along y. A run with ``save_cells`` becomes points at the centres of
its cells.
The format: https://www.xdmf.org/index.php/XDMF_Model_and_Format.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.io.hdf5 import STATE, axis_values, grid_axes, publish, write_solution
from dgpde.solution import Solution


def write_xdmf(path: str | Path, solution: Solution, *, theta: bool = True) -> None:
    """Write the XDMF file and the HDF5 file of a solution; arguments as for ``Solution.to_xdmf``."""
    target, values = beside(path, solution.grid)
    write_solution(values, solution, theta=theta)
    view = View(
        solution.grid,
        solution.saved_times.tolist(),
        tuple(solution.psi.shape),
        solution.psi.element_size(),
        solution.cells,
    )
    write_view(target, view, values.name, [Shown(name, name) for name in (STATE if theta else STATE[:1])])


def beside(path: str | Path, grid: Grid) -> tuple[Path, Path]:
    """The XDMF file and the HDF5 file of its values.

    Raises:
        ValueError: the grid is one of columns, or the path is that of the HDF5 file.
    """
    target = Path(path)
    if not grid.lateral:
        raise ValueError("path: columns have no place in space for an XDMF file; write them with to_hdf5")
    values = target.with_suffix(".h5")
    if values == target:
        raise ValueError(
            f"path {target} is that of the HDF5 file; give the XDMF file another ending, as .xdmf"
        )
    return target, values


def xdmf_beside(path: Path) -> Path:
    """The XDMF file that describes an HDF5 file."""
    return path.with_suffix(".xdmf")


@dataclass(frozen=True)
class View:
    """What an XDMF file says of a run.

    Attributes:
        grid: of the run.
        times: saved times, s.
        size: shape of the datasets.
        width: bytes of a number in them.
        cells: [m] indices of the cells that were kept, None for all.
    """

    grid: Grid
    times: list[float]
    size: tuple[int, ...]
    width: int
    cells: Tensor | None


@dataclass(frozen=True)
class Shown:
    """A scalar of the cells: its name, its dataset, and its place along the axes between time and space."""

    name: str
    dataset: str
    within: tuple[int, ...] = ()


def write_view(target: Path, view: View, file: str, shown: Sequence[Shown]) -> None:
    """Write an XDMF file whose values are datasets of an HDF5 file."""
    root = Element("Xdmf", Version="3.0")
    series = SubElement(
        SubElement(root, "Domain"), "Grid", Name="dgpde", GridType="Collection", CollectionType="Temporal"
    )
    for row, time in enumerate(view.times):
        _add_time(series, view, file, row, time, shown)
    ElementTree.indent(root)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(
        '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8"
    )
    publish(temporary, target)


def _add_time(series: Element, view: View, file: str, row: int, time: float, shown: Sequence[Shown]) -> None:
    """The grid of one saved time."""
    grid = SubElement(series, "Grid", Name=f"t{row}", GridType="Uniform")
    SubElement(grid, "Time", Value=repr(time))
    shape: tuple[int, ...]
    if view.cells is None:
        shape, centre = _add_mesh(grid, view.grid, file), "Cell"
    else:
        shape, centre = _add_points(grid, view.grid, view.cells), "Node"
    size, precision = view.size, str(view.width)
    for scalar in shown:
        values = SubElement(grid, "Attribute", Name=scalar.name, AttributeType="Scalar", Center=centre)
        slab = SubElement(
            values, "DataItem", ItemType="HyperSlab", Dimensions=_words(shape), Type="HyperSlab"
        )
        # start, stride and count along the axes of the dataset
        lead = [row, *scalar.within]
        rest = size[len(lead) :]
        pick = [[*lead, *[0] * len(rest)], [1] * len(size), [*[1] * len(lead), *rest]]
        rows = SubElement(
            slab, "DataItem", Dimensions=f"3 {len(size)}", Format="XML", NumberType="Int", Precision="8"
        )
        rows.text = " ".join(_words(line) for line in pick)
        SubElement(
            slab, "DataItem", Dimensions=_words(size), Format="HDF", NumberType="Float", Precision=precision
        ).text = f"{file}:/{scalar.dataset}"
    if view.grid.active is not None and view.cells is None:
        values = SubElement(grid, "Attribute", Name="active", AttributeType="Scalar", Center=centre)
        SubElement(
            values, "DataItem", Dimensions=_words(shape), Format="HDF", NumberType="UChar", Precision="1"
        ).text = f"{file}:/grid/active"


def _add_mesh(parent: Element, grid: Grid, file: str) -> tuple[int, int, int]:
    """Topology and geometry of the whole grid; returns its cells along z, y, x."""
    wide = torch.ones(1, dtype=torch.float64)  # m, a section
    dz, dy, dx = grid.spacing if len(grid.spacing) == 3 else (grid.spacing[0], wide, grid.spacing[1])
    shape = (dz.numel(), dy.numel(), dx.numel())
    points = [size + 1 for size in shape]
    if grid.lift is not None:
        SubElement(parent, "Topology", TopologyType="3DSMesh", Dimensions=_words(points))
        geometry = SubElement(parent, "Geometry", GeometryType="XYZ")
        SubElement(
            geometry,
            "DataItem",
            Dimensions=_words([*points, 3]),
            Format="HDF",
            NumberType="Float",
            Precision="8",
        ).text = f"{file}:/grid/corners"
        return shape
    SubElement(parent, "Topology", TopologyType="3DRectMesh", Dimensions=_words(points))
    geometry = SubElement(parent, "Geometry", GeometryType="VXVYVZ")
    for faces in (_faces(dx), _faces(dy), grid.z_faces):
        _add_numbers(geometry, faces)
    return shape


def _add_points(parent: Element, grid: Grid, cells: Tensor) -> tuple[int]:
    """Topology and geometry of the cells that were kept; returns how many they are."""
    along = axis_values(grid)
    places = np.unravel_index(cells.cpu().numpy(), grid.shape)
    at = {name: along[name].numpy()[index] for name, index in zip(grid_axes(grid), places, strict=True)}
    count = len(at["z"])
    SubElement(
        parent, "Topology", TopologyType="Polyvertex", NumberOfElements=str(count), NodesPerElement="1"
    )
    geometry = SubElement(parent, "Geometry", GeometryType="XYZ")
    middle = np.full(count, 0.5)  # of a section, 1 m wide
    z = at["z"] if grid.lift is None else grid.z.numpy()[places]
    points = np.stack([at["x"], at.get("y", middle), z], axis=1)
    _add_numbers(geometry, torch.from_numpy(points))
    return (count,)


def _add_numbers(parent: Element, values: Tensor) -> None:
    item = SubElement(
        parent, "DataItem", Dimensions=_words(values.shape), Format="XML", NumberType="Float", Precision="8"
    )
    item.text = " ".join(repr(value) for value in values.flatten().tolist())


def _faces(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _words(numbers: Iterable[int]) -> str:
    return " ".join(str(int(number)) for number in numbers)
