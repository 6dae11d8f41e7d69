"""Solutions in HDF5: one dataset a quantity, chunked and compressed, with units and named dimensions.

Layout, for n columns of nz cells, T intervals and S saved times:

    /time [T + 1]   /saved [S] (indices into time)   /psi /theta [S, nz, n]   /ponding [T + 1, n]
    /top_flux /bottom_flux /runoff /uptake /evaporation [T, n]
    /grid/dz /grid/z [nz], attributes gravity and z_bottom
    /columns/status /columns/failed_time /columns/steps ... [n]
    /step_sizes/000000 ... [m, n], when they were recorded

Every dataset has the attributes ``units`` and ``long_name``, and labels on its dimensions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.kernels.column_flow.problem import STATUS_TEXT, ColumnResult, Report
from dgpde.solution import Solution

FORMAT = "dgpde solution"
FORMAT_VERSION = 1
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
AXES = {
    "time": Quantity("s", "output times, ends of the intervals", ("time",)),
    "saved": Quantity("1", "indices into time of the saved pressure heads", ("saved_time",)),
    "dz": Quantity("m", "layer thickness, from the bottom up", ("z",)),
    "z": Quantity("m", "elevation of the cell centres", ("z",)),
}


def create(
    group: h5py.Group, name: str, quantity: Quantity, shape: Sequence[int], dtype: np.dtype[np.generic]
) -> h5py.Dataset:
    """An empty dataset with the attributes of its quantity; what has several dimensions is compressed."""
    options: dict[str, object] = {}
    if len(shape) > 1 and math.prod(shape) > 0:
        options = {
            "chunks": _chunks(shape, dtype.itemsize),
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


def _chunks(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """About a megabyte: whole profiles of as many columns as fit, then as many times as fit."""
    inner = math.prod(shape[1:-1])
    columns = min(shape[-1], max(1, CHUNK_BYTES // (itemsize * inner)))
    times = min(shape[0], max(1, CHUNK_BYTES // (itemsize * inner * columns)))
    return (times, *shape[1:-1], columns)


def put_header(file: h5py.File, grid: Grid, times: Tensor, saved: Sequence[int]) -> None:
    """Format, grid and axes."""
    from dgpde import __version__

    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["dgpde_version"] = __version__
    file.attrs["status_text"] = [f"{code}: {text}" for code, text in STATUS_TEXT.items()]
    put(file, "time", AXES["time"], times)
    put(file, "saved", AXES["saved"], torch.tensor(saved, dtype=torch.int64))
    group = file.create_group("grid")
    group.attrs["gravity"] = grid.gravity
    group.attrs["z_bottom"] = grid.z_bottom
    group.attrs["columns"] = grid.n
    put(group, "dz", AXES["dz"], grid.dz)
    put(group, "z", AXES["z"], grid.z[:, 0])


def put_report(file: h5py.File, report: Report) -> None:
    """The group /columns, and /step_sizes when they were recorded."""
    group = file.create_group("columns")
    for name, quantity in PER_COLUMN.items():
        put(group, name, quantity, getattr(report, name))
    if report.step_sizes is not None:
        steps = file.create_group("step_sizes")
        quantity = Quantity("s", "accepted time steps of an interval, zero padded", ("step", "column"))
        for interval, sizes in enumerate(report.step_sizes):
            put(steps, f"{interval:06d}", quantity, sizes)


def get_report(file: h5py.File, pick: slice | list[int] = slice(None)) -> Report:
    """What ``put_report`` wrote, for some of the columns."""
    group = file["columns"]
    values: dict[str, Any] = {name: torch.from_numpy(np.asarray(group[name][pick])) for name in PER_COLUMN}
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
    return found | {"ponding": solution.ponding} | solution.series()


def write_solution(path: str | Path, solution: Solution, *, theta: bool = True) -> None:
    """Write a solution that is in memory; the file appears under its name only when it is whole.

    Args:
        path: the file; one of that name is replaced.
        solution: the run; gradients are not kept.
        theta: store the water content as well (default), which ``read_solution`` needs to give it back.
    """
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    with h5py.File(temporary, "w") as file:
        put_header(file, solution.grid, solution.times, solution.saved)
        for name, value in trajectory(solution, theta).items():
            put(file, name, TRAJECTORY[name], value)
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
    source = Path(path)
    if not source.exists():
        parts = source.with_name(source.name + ".parts")
        hint = "; its run is not finished: call Richards.resume" if parts.exists() else ""
        raise FileNotFoundError(f"path {source} does not exist{hint}")
    if not h5py.is_hdf5(source):
        raise ValueError(f"path {source} is not an HDF5 file")
    with h5py.File(source, "r") as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError(f"path {source} is an HDF5 file, but does not hold a {FORMAT}")
        if file.attrs["format_version"] > FORMAT_VERSION:
            raise ValueError(
                f"path {source} has the format {file.attrs['format_version']}; update dgpde to read it"
            )
        group = file["grid"]
        pick = _pick(int(group.attrs["columns"]), columns)
        values = {
            name: torch.from_numpy(np.asarray(file[name][..., pick])) for name in TRAJECTORY if name in file
        }
        grid = Grid.columns(
            values["ponding"].shape[1],
            group["dz"][...],
            gravity=float(group.attrs["gravity"]),
            z_bottom=float(group.attrs["z_bottom"]),
        )
        result = ColumnResult(
            psi=values["psi"],
            ponding=values["ponding"],
            top_flux=values["top_flux"],
            bottom_flux=values["bottom_flux"],
            runoff=values["runoff"],
            uptake=values["uptake"],
            report=get_report(file, pick),
        )
        times, saved = torch.from_numpy(file["time"][...]), [int(index) for index in file["saved"]]
    return Solution(
        grid, times, saved, result, theta=values.get("theta"), evaporation=values.get("evaporation")
    )


def _pick(count: int, columns: Sequence[int] | slice | None) -> slice | list[int]:
    """What h5py is to be indexed with."""
    if columns is None:
        return slice(None)
    if isinstance(columns, slice):
        return columns
    indices = [int(column) for column in columns]
    if not indices or min(indices) < 0 or max(indices) >= count:
        raise ValueError(f"columns must be indices from 0 to {count - 1}, at least one")
    if any(second <= first for first, second in zip(indices, indices[1:], strict=False)):
        raise ValueError("columns must increase, with no index twice")
    return indices
