"""Solutions as xarray Datasets."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dgpde.grid import Grid
from dgpde.io.hdf5 import (
    AXES,
    Quantity,
    axis_values,
    field_quantities,
    grid_axes,
    report_quantities,
    trajectory,
)
from dgpde.solution import Solution

if TYPE_CHECKING:
    import xarray


def to_xarray(solution: Solution) -> xarray.Dataset:
    """A Dataset with the dimensions saved_time, time, interval, z and column (or y, x); gradients are not kept.

    ``time`` are the output times [s] (of ponding), ``saved_time`` those of psi and theta, ``interval`` the
    starts of the intervals that fluxes are means of, ``interval_end`` their ends; ``z`` (``y``, ``x``) the
    positions of the cells. A run with ``save_cells`` has the dimension ``cell`` instead, whose positions are
    coordinates. ``active`` is there when some cells take no part. Every variable has the attributes ``units``
    and ``long_name``.

    Raises:
        ImportError: xarray is not installed.
    """
    grid, report = solution.grid, solution.report()
    per_run = report_quantities(report)
    quantities = field_quantities(grid, solution.cells is not None) | per_run
    values = trajectory(solution, theta=True) | {name: getattr(report, name) for name in per_run}
    variables: dict[str, Any] = {
        name: (quantities[name].dims, value.detach().cpu().numpy(), attributes(quantities[name]))
        for name, value in values.items()
    }
    saved = ("saved_time", solution.saved_times.numpy(), {"units": "s", "long_name": "times of psi"})
    return xarray_module().Dataset(
        variables | active(grid),
        coords=times(solution.times) | {"saved_time": saved} | places(grid) | _kept(solution),
        attrs={"gravity": grid.gravity, "source": "dgpde"},
    )


def xarray_module() -> ModuleType:
    """xarray, or an ImportError that says what to do."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError("xarray is not installed; install dgpde[xarray], or write with to_hdf5") from error
    module: ModuleType = xarray
    return module


def attributes(quantity: Quantity) -> dict[str, str]:
    """Those of a variable."""
    return {"units": quantity.units, "long_name": quantity.long_name}


def times(seconds: Tensor) -> dict[str, Any]:
    """Coordinates in time from the output times [T + 1]."""
    values = seconds.numpy()
    words = {"units": "s"}
    return {
        "time": ("time", values, words | {"long_name": "output times"}),
        "interval": ("interval", values[:-1], words | {"long_name": "start of the interval"}),
        "interval_end": ("interval", values[1:], words | {"long_name": "end of the interval"}),
    }


def places(grid: Grid) -> dict[str, Any]:
    """Coordinates of the cells along each axis."""
    along = {name: value for name, value in axis_values(grid).items() if name in ("z", "y", "x")}
    return {name: (name, value.numpy(), attributes(AXES[name])) for name, value in along.items()}


def active(grid: Grid) -> dict[str, Any]:
    """The variable ``active`` where some cells take no part."""
    if grid.active is None:
        return {}
    words = {"units": "1", "long_name": "whether a cell takes part"}
    return {"active": (grid_axes(grid), grid.active.numpy(), words)}


def _kept(solution: Solution) -> dict[str, Any]:
    """Coordinates of the cells that were kept, ``cell_z``, ``cell_x``."""
    if solution.cells is None:
        return {}
    grid, along = solution.grid, axis_values(solution.grid)
    cells = solution.cells.cpu().numpy()
    found: dict[str, Any] = {"cell": ("cell", cells, {"units": "1", "long_name": AXES["cells"].long_name})}
    for name, index in zip(grid_axes(grid), np.unravel_index(cells, grid.shape), strict=True):
        found[f"cell_{name}"] = ("cell", along[name].numpy()[index], attributes(AXES[name]))
    return found
