"""Solutions as xarray Datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgpde.io.hdf5 import PER_COLUMN, TRAJECTORY, trajectory
from dgpde.solution import Solution

if TYPE_CHECKING:
    import xarray


def to_xarray(solution: Solution) -> xarray.Dataset:
    """A Dataset with the dimensions saved_time, time, interval, z and column; gradients are not kept.

    ``time`` are the output times [s] (of ponding), ``saved_time`` those of psi and theta, ``interval`` the
    starts of the intervals that fluxes are means of, ``interval_end`` their ends; ``z`` the elevations of the
    cells. Every variable has the attributes ``units`` and ``long_name``.

    Raises:
        ImportError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError("xarray is not installed; install dgpde[xarray], or write with to_hdf5") from error

    def variable(name: str) -> tuple[tuple[str, ...], object, dict[str, str]]:
        quantity = (TRAJECTORY | PER_COLUMN)[name]
        attributes = {"units": quantity.units, "long_name": quantity.long_name}
        return quantity.dims, values[name].detach().cpu().numpy(), attributes

    values = trajectory(solution, theta=True)
    report = solution.report()
    values |= {name: getattr(report, name) for name in PER_COLUMN}
    seconds = {"units": "s"}
    times = solution.times.numpy()
    return xarray.Dataset(
        {name: variable(name) for name in values},
        coords={
            "time": ("time", times, seconds | {"long_name": "output times"}),
            "saved_time": (
                "saved_time",
                solution.saved_times.numpy(),
                seconds | {"long_name": "times of psi"},
            ),
            "interval": ("interval", times[:-1], seconds | {"long_name": "start of the interval"}),
            "interval_end": ("interval", times[1:], seconds | {"long_name": "end of the interval"}),
            "z": ("z", solution.grid.z[:, 0].numpy(), {"units": "m", "long_name": "elevation, upward"}),
        },
        attrs={"gravity": solution.grid.gravity, "source": "dgpde"},
    )
