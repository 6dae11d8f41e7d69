"""Solutions as xarray Datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dgpde.io.hdf5 import AXES, axis_values, field_quantities, grid_axes, report_quantities, trajectory
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
    try:
        import xarray
    except ImportError as error:
        raise ImportError("xarray is not installed; install dgpde[xarray], or write with to_hdf5") from error

    grid, report = solution.grid, solution.report()
    per_run = report_quantities(report)
    quantities = field_quantities(grid, solution.cells is not None) | per_run
    values = trajectory(solution, theta=True) | {name: getattr(report, name) for name in per_run}

    def variable(name: str) -> tuple[tuple[str, ...], object, dict[str, str]]:
        quantity = quantities[name]
        attributes = {"units": quantity.units, "long_name": quantity.long_name}
        return quantity.dims, values[name].detach().cpu().numpy(), attributes

    variables = {name: variable(name) for name in values}
    if grid.active is not None:
        words = {"units": "1", "long_name": "whether a cell takes part"}
        variables["active"] = (grid_axes(grid), grid.active.numpy(), words)
    seconds = {"units": "s"}
    times = solution.times.numpy()
    return xarray.Dataset(
        variables,
        coords={
            "time": ("time", times, seconds | {"long_name": "output times"}),
            "saved_time": (
                "saved_time",
                solution.saved_times.numpy(),
                seconds | {"long_name": "times of psi"},
            ),
            "interval": ("interval", times[:-1], seconds | {"long_name": "start of the interval"}),
            "interval_end": ("interval", times[1:], seconds | {"long_name": "end of the interval"}),
        }
        | _places(solution),
        attrs={"gravity": grid.gravity, "source": "dgpde"},
    )


def _places(solution: Solution) -> dict[str, Any]:
    """Coordinates of the cells: along each axis, and of the cells that were kept as ``cell_z``, ``cell_x``."""
    grid = solution.grid
    along = {name: value.numpy() for name, value in axis_values(grid).items() if name in ("z", "y", "x")}
    words = {name: {"units": AXES[name].units, "long_name": AXES[name].long_name} for name in along}
    found: dict[str, Any] = {name: (name, value, words[name]) for name, value in along.items()}
    if solution.cells is not None:
        cells = solution.cells.cpu().numpy()
        found["cell"] = ("cell", cells, {"units": "1", "long_name": AXES["cells"].long_name})
        for name, index in zip(grid_axes(grid), np.unravel_index(cells, grid.shape), strict=True):
            found[f"cell_{name}"] = ("cell", along[name][index], words[name])
    return found
