"""Solutions in HDF5: one dataset a quantity, chunked and compressed, with units and named dimensions.

Layout, for n columns of nz cells, T intervals and S saved times:

    /time [T + 1]   /saved [S] (indices into time)   /psi /theta [S, nz, n]   /ponding [T + 1, n]
    /top_flux /bottom_flux /runoff /uptake /evaporation [T, n]
    /grid/dz /grid/z [nz], attributes kind, gravity and z_bottom
    /columns/status /columns/failed_time /columns/steps ... [n]
    /step_sizes/000000 ... [m, n], when they were recorded

Sections and domains, whose fields have the shape of the grid, (nz, nx) or (nz, ny, nx):

    /psi /theta /saturation [S, *grid]; [S, m] of the m cells that a run with save_cells kept, /cells [m]
    /ponding [T + 1, *top]   /<side>_flux [T, *side] for every side   /runoff /uptake /evaporation [T, *top]
    /grid/dz /dy /dx (sizes) /z /y /x (centres), /grid/active [*grid] when some cells take no part;
    over terrain /grid/surface [*top], and /grid/corners [nz + 1, ny + 1, nx + 1, 3]
    /system/status ... [1], what is one number for cells that stand or fall together

Every dataset has the attributes ``units`` and ``long_name``, and labels on its dimensions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.kernels.column_flow.problem import STATUS_TEXT, Report
from dgpde.solution import FieldResult, Solution

FORMAT = "dgpde solution"
FORMAT_VERSION = 2  # 1 held columns only, and no kind
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Quantity:
    """Unit (as UDUNITS writes it), name in words and dimensions of a dataset."""

    units: str
    long_name: str
    dims: tuple[str, ...]


TRAJECTORY = {
    "psi": Quantity("m", "pressure head", ("saved_time", "z", "column")),
    "theta": Quantity("1", "volumetric water content", ("saved_time", "z", "column")),
    "ponding": Quantity("m", "water standing on the surface", ("time", "column")),
    "top_flux": Quantity(
        "m s-1", "mean flux through the top, positive into the soil", ("interval", "column")
    ),
    "bottom_flux": Quantity(
        "m s-1", "mean flux through the bottom, positive into the soil", ("interval", "column")
    ),
    "runoff": Quantity("m s-1", "mean run-off from the surface", ("interval", "column")),
    "uptake": Quantity("m s-1", "mean uptake by roots", ("interval", "column")),
    "evaporation": Quantity("m s-1", "mean actual evaporation of the surface", ("interval", "column")),
}
PER_COLUMN = {
    "status": Quantity("1", "0 where the column finished, else the reason", ("column",)),
    "failed_time": Quantity("s", "time at which the column failed, NaN where it finished", ("column",)),
    "steps": Quantity("1", "accepted time steps", ("column",)),
    "newton_iterations": Quantity("1", "Newton iterations", ("column",)),
    "cuts": Quantity("1", "steps cut because Newton failed", ("column",)),
    "rejections": Quantity("1", "steps repeated because of their truncation error", ("column",)),
    "restarts": Quantity("1", "Newton restarts from the wet side", ("column",)),
    "mass_balance_error": Quantity("1", "mass balance error relative to the water moved", ("column",)),
    "water_moved": Quantity("m", "sum of the magnitudes of all exchanges", ("column",)),
    "dt_next": Quantity("s", "time step that the run would have tried next", ("column",)),
}
COUNTS = {
    "linear_iterations": Quantity("1", "iterations of the linear solver", ("system",)),
}
AXES = {
    "time": Quantity("s", "output times, ends of the intervals", ("time",)),
    "saved": Quantity("1", "indices into time of the saved pressure heads", ("saved_time",)),
    "dz": Quantity("m", "layer thickness, from the bottom up", ("z",)),
    "dy": Quantity("m", "cell size along y", ("y",)),
    "dx": Quantity("m", "cell size along x", ("x",)),
    "z": Quantity("m", "elevation of the cell centres", ("z",)),
    "y": Quantity("m", "northing of the cell centres, from the south side", ("y",)),
    "x": Quantity("m", "easting of the cell centres, from the west side", ("x",)),
    "cells": Quantity("1", "flat indices into the grid of the cells that were kept", ("cell",)),
}
KINDS = {("z", "column"): "columns", ("z", "x"): "section", ("z", "y", "x"): "domain"}
GROUPS = {"column": "columns", "system": "system"}  # of the report, by the dimension of its values
SIDE_AXES = {"top": "z", "bottom": "z", "west": "x", "east": "x", "south": "y", "north": "y"}
STATE = ("psi", "theta", "saturation")  # have a value in every cell


def grid_axes(grid: Grid) -> tuple[str, ...]:
    """Names of the axes of a field of the grid."""
    if not grid.lateral:
        return ("z", "column")
    return ("z", "x") if len(grid.shape) == 2 else ("z", "y", "x")


def field_quantities(grid: Grid, some_cells: bool) -> dict[str, Quantity]:
    """The datasets of shape [time, ...] of a grid by name, each with its dimensions."""
    if not grid.lateral:
        return TRAJECTORY
    axes = grid_axes(grid)
    cells = ("cell",) if some_cells else axes
    found = {name: replace(TRAJECTORY[name], dims=("saved_time", *cells)) for name in ("psi", "theta")}
    found["saturation"] = Quantity("1", "water content over that at psi = 0", ("saved_time", *cells))
    top = axes[1:]
    for name in ("ponding", "runoff", "uptake", "evaporation"):
        found[name] = replace(TRAJECTORY[name], dims=(TRAJECTORY[name].dims[0], *top))
    for side in grid.sides:
        dims = tuple(axis for axis in axes if axis != SIDE_AXES[side])
        name = f"mean flux through the {side}, positive into the soil"
        found[f"{side}_flux"] = Quantity("m s-1", name, ("interval", *dims))
    return found


def report_quantities(report: Report) -> dict[str, Quantity]:
    """The datasets of a report by name: one value a column, or one for a system of cells."""
    if report.linear_iterations is None:
        return PER_COLUMN
    found = {name: replace(quantity, dims=("system",)) for name, quantity in PER_COLUMN.items()}
    found["water_moved"] = replace(found["water_moved"], units="m3")
    return found | COUNTS


def create(
    group: h5py.Group, name: str, quantity: Quantity, shape: Sequence[int], dtype: np.dtype[np.generic]
) -> h5py.Dataset:
    """An empty dataset with the attributes of its quantity; what has several dimensions is compressed."""
    options: dict[str, object] = {}
    if len(shape) > 1 and math.prod(shape) > 0:
        options = {
            "chunks": _chunks(quantity.dims, shape, dtype.itemsize),
            "compression": "gzip",
            "compression_opts": 1,
            "shuffle": True,
        }
    data = group.create_dataset(name, shape=tuple(shape), dtype=dtype, **options)
    data.attrs["units"] = quantity.units
    data.attrs["long_name"] = quantity.long_name
    for axis, label in enumerate(quantity.dims):
        data.dims[axis].label = label
    return data


def put(group: h5py.Group, name: str, quantity: Quantity, value: Tensor) -> None:
    """A dataset that holds a whole tensor."""
    array = value.detach().cpu().numpy()
    create(group, name, quantity, array.shape, array.dtype)[...] = array


def _chunks(dims: Sequence[str], shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """About a megabyte: what is read together lies together.

    Of columns whole profiles, as many as fit, then as many times as fit. Of fields rows along x, then y, z and
    time: a layer of a large field is read without its other layers.
    """
    room = max(1, CHUNK_BYTES // itemsize)
    order = list(range(len(shape)))[::-1]
    if dims[-1] == "column":
        order = [*order[1:-1], order[0], order[-1]]
    chunks = [1] * len(shape)
    for axis in order:
        chunks[axis] = max(1, min(shape[axis], room))
        room //= chunks[axis]
    return tuple(chunks)


def put_header(
    file: h5py.File, grid: Grid, times: Tensor, saved: Sequence[int], cells: Tensor | None = None
) -> None:
    """Format, grid and axes, and the cells that are kept when these are not all."""
    put_format(file, FORMAT, FORMAT_VERSION, STATUS_TEXT)
    put(file, "time", AXES["time"], times)
    put(file, "saved", AXES["saved"], torch.tensor(saved, dtype=torch.int64))
    if cells is not None:
        put(file, "cells", AXES["cells"], cells)
    put_grid(file, grid)


def put_format(file: h5py.File, words: str, version: int, status_text: Mapping[int, str]) -> None:
    """What the file holds, and what its status codes mean."""
    from dgpde import __version__

    file.attrs["format"] = words
    file.attrs["format_version"] = version
    file.attrs["dgpde_version"] = __version__
    file.attrs["status_text"] = [f"{code}: {text}" for code, text in status_text.items()]


def put_grid(file: h5py.File, grid: Grid) -> None:
    """The group /grid."""
    group = file.create_group("grid")
    group.attrs["gravity"] = grid.gravity
    group.attrs["z_bottom"] = grid.z_bottom
    group.attrs["columns"] = grid.n
    group.attrs["kind"] = KINDS[grid_axes(grid)]
    for name, value in axis_values(grid).items():
        put(group, name, AXES[name], value)
    if grid.surface is not None:
        quantity = Quantity(
            "m", "elevation of the land surface, which the layers follow", grid_axes(grid)[1:]
        )
        put(group, "surface", quantity, grid.surface)
        quantity = Quantity("m", "x, y and z of the corners of the cells", ("z", "y", "x", "axis"))
        put(group, "corners", quantity, corners(grid))
    if grid.active is not None:
        quantity = Quantity("1", "1 where a cell takes part, 0 where it does not", grid_axes(grid))
        put(group, "active", quantity, grid.active.to(torch.uint8))


def axis_values(grid: Grid) -> dict[str, Tensor]:
    """Sizes and centres of the cells along each axis with a length, [size of the axis] m."""
    found = {"dz": grid.dz, "z": grid.layers}
    if grid.lateral:
        for name, sizes in zip(grid_axes(grid)[1:], grid.spacing[1:], strict=True):
            found |= {f"d{name}": sizes, name: sizes.cumsum(0) - 0.5 * sizes}
    return found


def corners(grid: Grid) -> Tensor:
    """[nz + 1, ny + 1, nx + 1, 3] x, y, z of the corners of the cells over terrain, m; a section is 1 m wide.

    The elevation of a corner is the mean of those of the columns around it.
    """
    assert grid.lift is not None
    zero = torch.zeros(1, dtype=torch.float64)
    lift = grid.lift if len(grid.shape) == 3 else grid.lift[None]
    wide = [torch.cat([zero, sizes.cumsum(0)]) for sizes in grid.spacing[1:]]
    y, x = wide if len(wide) == 2 else (torch.cat([zero, zero + 1.0]), wide[0])
    padded = torch.nn.functional.pad(lift[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    base = 0.25 * (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1])
    z = grid.z_faces[:, None, None] + base
    return torch.stack([x.expand_as(z), y[:, None].expand_as(z), z], -1)


def put_report(file: h5py.File, report: Report) -> None:
    """The group /columns or /system, and /step_sizes when they were recorded."""
    quantities = report_quantities(report)
    who = quantities["status"].dims[0]
    group = file.create_group(GROUPS[who])
    for name, quantity in quantities.items():
        put(group, name, quantity, getattr(report, name))
    if report.step_sizes is not None:
        steps = file.create_group("step_sizes")
        quantity = Quantity("s", "accepted time steps of an interval, zero padded", ("step", who))
        for interval, sizes in enumerate(report.step_sizes):
            put(steps, f"{interval:06d}", quantity, sizes)


def get_report(file: h5py.File, pick: slice | list[int] = slice(None)) -> Report:
    """What ``put_report`` wrote; of a run of columns, for some of them."""
    system = GROUPS["system"] in file
    names = [*PER_COLUMN, *(COUNTS if system else ())]
    group, pick = (file[GROUPS["system"]], slice(None)) if system else (file[GROUPS["column"]], pick)
    values: dict[str, Any] = {name: torch.from_numpy(np.asarray(group[name][pick])) for name in names}
    report = Report(**values)
    if "step_sizes" in file:
        steps = file["step_sizes"]
        report.step_sizes = [torch.from_numpy(steps[name][:, pick]) for name in sorted(steps)]
    return report


def trajectory(solution: Solution, theta: bool) -> dict[str, Tensor]:
    """The datasets of shape [time, ...] of a solution by name."""
    found = {"psi": solution.psi}
    if theta:
        with torch.no_grad():
            found["theta"] = solution.theta
            if solution.grid.lateral:
                found["saturation"] = solution.saturation
    return found | {"ponding": solution.ponding} | solution.series()


def write_solution(path: str | Path, solution: Solution, *, theta: bool = True) -> None:
    """Write a solution that is in memory; the file appears under its name only when it is whole.

    Args:
        path: the file; one of that name is replaced.
        solution: the run; gradients are not kept.
        theta: store the water content (of sections and domains the saturation too) as well (default), which
            ``read_solution`` needs to give it back.
    """
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    with h5py.File(temporary, "w") as file:
        put_header(file, solution.grid, solution.times, solution.saved, solution.cells)
        quantities = field_quantities(solution.grid, solution.cells is not None)
        for name, value in trajectory(solution, theta).items():
            put(file, name, quantities[name], value)
        put_report(file, solution.report())
    publish(temporary, target)


def publish(temporary: Path, target: Path) -> None:
    """Give a file that is whole its name, in one step that a kill cannot divide."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


def read_solution(path: str | Path, *, columns: Sequence[int] | slice | None = None) -> Solution:
    """Read a solution, on the CPU.

    Args:
        path: what ``Solution.to_hdf5`` or ``Richards.stream`` wrote.
        columns: some of the columns, increasing indices or a slice; default all.

    Raises:
        FileNotFoundError: there is no such file; when an unfinished run is there, the message says so.
        ValueError: the file is not a solution of this format.
    """
    with opened(path, FORMAT, FORMAT_VERSION) as file:
        grid, pick = picked_grid(file, columns)
        cells = torch.from_numpy(file["cells"][...]) if "cells" in file else None
        values = {
            name: torch.from_numpy(np.asarray(file[name][..., pick]))
            for name in field_quantities(grid, cells is not None)
            if name in file
        }
        result = FieldResult(
            psi=values["psi"],
            ponding=values["ponding"],
            boundary_flux={side: values[f"{side}_flux"] for side in grid.sides},
            runoff=values["runoff"],
            uptake=values["uptake"],
            report=get_report(file, pick),
        )
        times, saved = torch.from_numpy(file["time"][...]), [int(index) for index in file["saved"]]
    return Solution(
        grid,
        times,
        saved,
        result,
        theta=values.get("theta"),
        saturation=values.get("saturation"),
        evaporation=values.get("evaporation"),
        cells=cells,
    )


def opened(path: str | Path, words: str, version: int) -> h5py.File:
    """A file that is there and holds what it should, open for reading.

    Raises:
        FileNotFoundError: there is no such file; when an unfinished run is there, the message says so.
        ValueError: the file is not one of this format.
    """
    source = Path(path)
    if not source.exists():
        parts = source.with_name(source.name + ".parts")
        hint = "; its run is not finished: call Richards.resume" if parts.exists() else ""
        raise FileNotFoundError(f"path {source} does not exist{hint}")
    if not h5py.is_hdf5(source):
        raise ValueError(f"path {source} is not an HDF5 file")
    file = h5py.File(source, "r")
    found, number = file.attrs.get("format"), file.attrs.get("format_version")
    if found == words and number <= version:
        return file
    file.close()
    if found != words:
        raise ValueError(f"path {source} is an HDF5 file, but does not hold a {words}")
    raise ValueError(f"path {source} has the format {number}; update dgpde to read it")


def picked_grid(file: h5py.File, columns: Sequence[int] | slice | None) -> tuple[Grid, slice | list[int]]:
    """The grid of a file with as many columns as are wanted, and what to index its datasets with.

    Raises:
        ValueError: some columns are wanted of a system of cells, or such that are not there.
    """
    grid = _grid(file["grid"])
    if columns is None:
        return grid, slice(None)
    if grid.lateral or GROUPS["system"] in file:
        raise ValueError(f"columns: path {file.filename} holds one system of cells; read all of it")
    pick = _pick(grid.n, columns)
    return _grid(file["grid"], len(range(grid.n)[pick]) if isinstance(pick, slice) else len(pick)), pick


def _grid(group: h5py.Group, columns: int | None = None) -> Grid:
    """The grid of a file; of columns, as many as are wanted (None for all)."""
    dz, z_bottom = group["dz"][...], float(group.attrs["z_bottom"])
    kind = group.attrs.get("kind", "columns")  # format 1 says nothing
    if kind == "columns":
        count = int(group.attrs["columns"]) if columns is None else columns
        return Grid.columns(count, dz, gravity=float(group.attrs["gravity"]), z_bottom=z_bottom)
    spacing = [dz, *(group[name][...] for name in ("dy", "dx") if name in group)]
    active = torch.from_numpy(group["active"][...]).bool() if "active" in group else None
    surface = group["surface"][...] if "surface" in group else None
    return Grid([sizes.size for sizes in spacing], spacing, active, z_bottom=z_bottom, surface=surface)


def _pick(count: int, columns: Sequence[int] | slice) -> slice | list[int]:
    """What h5py is to be indexed with."""
    if isinstance(columns, slice):
        return columns
    indices = [int(column) for column in columns]
    if not indices or min(indices) < 0 or max(indices) >= count:
        raise ValueError(f"columns must be indices from 0 to {count - 1}, at least one")
    if any(second <= first for first, second in zip(indices, indices[1:], strict=False)):
        raise ValueError("columns must increase, with no index twice")
    return indices
