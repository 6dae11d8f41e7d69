"""Results of transport in HDF5, as xarray Datasets and for ParaView.

Layout of the HDF5 file, for T intervals and the sides of the grid; (solutes,) as in ``TransportSolution``:

    attributes solutes (names) and single (no axis of solutes)   /time [T + 1]   /grid as in ``dgpde.io.hdf5``
    /concentration [T + 1, (solutes,) *grid]   /<side>_solute_flux [T, (solutes,) *side]
    /dissolved /sorbed /immobile [T + 1, (solutes,) n]
    /columns/status /failed_time /iterations [n], /mass_balance_error /mass_moved [(solutes,) n]; of sections and
    domains /system, n = 1

Every dataset has the attributes ``units`` and ``long_name``, and labels on its dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.io.hdf5 import (
    AXES,
    GROUPS,
    SIDE_AXES,
    Quantity,
    grid_axes,
    opened,
    picked_grid,
    publish,
    put,
    put_format,
    put_grid,
)
from dgpde.io.xdmf import Shown, View, beside, write_view
from dgpde.transport_solution import STATUS_TEXT, Mass, TransportSolution

if TYPE_CHECKING:
    import xarray

FORMAT = "dgpde transport solution"
FORMAT_VERSION = 1
MASSES = ("dissolved", "sorbed", "immobile")
REPORT = ("status", "failed_time", "iterations", "mass_balance_error", "mass_moved")


def quantities(grid: Grid, single: bool, system: bool) -> dict[str, Quantity]:
    """The datasets by name, each with its dimensions.

    Args:
        grid: of the run.
        single: there is no axis of solutes.
        system: cells stand or fall together; else columns do.
    """
    axes, who = grid_axes(grid), "system" if system else "column"
    some = () if single else ("solute",)
    amount = "kg" if grid.lateral else "kg m-2"
    found = {
        "concentration": Quantity("kg m-3", "concentration of the (mobile) water", ("time", *some, *axes)),
        "dissolved": Quantity(amount, "mass in the (mobile) water", ("time", *some, who)),
        "sorbed": Quantity(amount, "mass on the solid", ("time", *some, who)),
        "immobile": Quantity(amount, "mass in the immobile water", ("time", *some, who)),
        "status": Quantity("1", "0 where it finished, else the reason", (who,)),
        "failed_time": Quantity("s", "time of the failure, NaN where it finished", (who,)),
        "iterations": Quantity("1", "linear solves", (who,)),
        "mass_balance_error": Quantity("1", "mass balance error relative to what moved", (*some, who)),
        "mass_moved": Quantity(amount, "sum of the magnitudes of all exchanges", (*some, who)),
    }
    for side in grid.sides:
        dims = tuple(axis for axis in axes if axis != SIDE_AXES[side])
        name = f"mean mass flux through the {side}, positive into the domain"
        found[f"{side}_solute_flux"] = Quantity("kg m-2 s-1", name, ("interval", *some, *dims))
    return found


def values(solution: TransportSolution) -> dict[str, Tensor]:
    """The datasets of a solution by name, those of the report last."""
    found = {"concentration": solution.concentration}
    found |= {f"{side}_solute_flux": flux for side, flux in solution.solute_flux.items()}
    found |= {name: getattr(solution.mass, name) for name in MASSES}
    return found | {name: getattr(solution, name) for name in REPORT}


def _single(solution: TransportSolution) -> bool:
    return solution.concentration.dim() == 1 + len(solution.grid.shape)


def _system(solution: TransportSolution) -> bool:
    """Whether one status stands for all cells: sections and domains, and several columns in one system."""
    return solution.grid.lateral or solution.status.numel() != solution.grid.n


def write_transport(path: str | Path, solution: TransportSolution) -> None:
    """Write a solution; the file appears under its name only when it is whole. Gradients are not kept."""
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    single, system = _single(solution), _system(solution)
    words = quantities(solution.grid, single, system)
    with h5py.File(temporary, "w") as file:
        put_format(file, FORMAT, FORMAT_VERSION, STATUS_TEXT)
        file.attrs["solutes"] = list(solution.names)
        file.attrs["single"] = single
        put(file, "time", AXES["time"], solution.times)
        put_grid(file, solution.grid)
        group = file.create_group(GROUPS["system" if system else "column"])
        for name, value in values(solution).items():
            put(group if name in REPORT else file, name, words[name], value)
    publish(temporary, target)


def read_transport(path: str | Path, *, columns: Sequence[int] | slice | None = None) -> TransportSolution:
    """Read what ``write_transport`` wrote, on the CPU.

    Args:
        path: the file.
        columns: some of the columns, increasing indices or a slice; default all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of this format, or has no such columns.
    """
    with opened(path, FORMAT, FORMAT_VERSION) as file:
        grid, pick = picked_grid(file, columns)
        group = file[GROUPS["system"] if GROUPS["system"] in file else GROUPS["column"]]

        def read(parent: h5py.Group, name: str) -> Tensor:
            return torch.from_numpy(np.asarray(parent[name][..., pick]))

        return TransportSolution(
            grid,
            torch.from_numpy(file["time"][...]),
            tuple(str(name) for name in file.attrs["solutes"]),
            concentration=read(file, "concentration"),
            solute_flux={side: read(file, f"{side}_solute_flux") for side in grid.sides},
            mass=Mass(*(read(file, name) for name in MASSES)),
            **{name: read(group, name) for name in REPORT},
        )


def write_transport_xdmf(path: str | Path, solution: TransportSolution) -> None:
    """Write the XDMF file and the HDF5 file of a section or a domain; see ``TransportSolution.to_xdmf``."""
    target, file = beside(path, solution.grid)
    write_transport(file, solution)
    single, c = _single(solution), solution.concentration
    shown = [Shown(name, "concentration", () if single else (k,)) for k, name in enumerate(solution.names)]
    view = View(solution.grid, solution.times.tolist(), tuple(c.shape), c.element_size(), None)
    write_view(target, view, file.name, shown)


def transport_to_xarray(solution: TransportSolution) -> xarray.Dataset:
    """A Dataset with the dimensions time, interval, (solute,) and those of the grid, as ``dgpde.io.xarray`` has them.

    Raises:
        ImportError: xarray is not installed.
    """
    from dgpde.io.xarray import active, attributes, places, times, xarray_module

    module, grid = xarray_module(), solution.grid
    words = quantities(grid, _single(solution), _system(solution))
    variables: dict[str, Any] = {
        name: (words[name].dims, value.detach().cpu().numpy(), attributes(words[name]))
        for name, value in values(solution).items()
    }
    coordinates = times(solution.times) | places(grid)
    if not _single(solution):
        coordinates["solute"] = ("solute", list(solution.names), {"long_name": "solute"})
    return module.Dataset(
        variables | active(grid), coords=coordinates, attrs={"gravity": grid.gravity, "source": "dgpde"}
    )
