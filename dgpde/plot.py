"""Figures of soil moisture and solutes: profiles, breakthrough, sections of fields, retention curves, water balance.

Functions draw on axes that they are given and return nothing; `figure` makes axes without pyplot, so nothing here
needs a display or keeps global state. Arrays are numpy or CPU tensors. matplotlib is imported when a
function is called: `pip install dgpde[demo]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from dgpde.grid import Grid
    from dgpde.solution import Solution
    from dgpde.transport_solution import TransportSolution

INK = "#222222"
OBSERVED = "#111111"
SIMULATED = "#c8553d"
PRIOR = "#8a8f98"
NEW = "#2a6f97"
MAP = "#6a994e"
BALANCE = {
    "rain and irrigation": "#2a6f97",
    "precipitation": "#2a6f97",
    "uptake": "#386641",
    "evaporation": "#e09f3e",
    "drainage": "#6d597a",
    "runoff": "#9a8c98",
    "storage change": "#111111",
}
FIELDS = {
    "psi": ("pressure head [m]", "RdYlBu"),
    "theta": ("water content [-]", "YlGnBu"),
    "saturation": ("saturation [-]", "YlGnBu"),
}
CONCENTRATION = ("concentration [kg/m3]", "YlOrBr")
SOLUTES = (SIMULATED, NEW, MAP, "#6d597a", "#e09f3e", INK)
UNITS = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"}
PLANES = {"xz": ("x", "z"), "yz": ("y", "z"), "xy": ("x", "y")}  # across and up the figure
NOWHERE = "#d9d9d9"  # cells that take no part
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def array(values: Tensor | ArrayLike) -> NDArray[np.generic]:
    """A numpy array of a tensor (detached, on the CPU) or of anything that numpy reads."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def style() -> AbstractContextManager[None]:
    """A context in which matplotlib draws in the style of this module."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """A figure and its [rows, columns] array of axes, made without pyplot; call it inside `style()`.

    Args:
        rows, columns: of the array of axes.
        size: width and height in inches.
        options: as of `matplotlib.figure.Figure.subplots`.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **options)


def save(made: Figure, path: Any) -> None:
    """Write a figure at the resolution of this module's style."""
    made.savefig(path, dpi=STYLE["savefig.dpi"])


def month_axis(axes: Axes) -> None:
    """Label a time axis by month."""
    from matplotlib.dates import DateFormatter, MonthLocator

    axes.xaxis.set_major_locator(MonthLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%-d %b"))


def moisture_in_time(
    axes: Axes,
    times: ArrayLike,
    depth_edges: Tensor | ArrayLike,
    theta: Tensor | ArrayLike,
    limits: tuple[float, float],
) -> QuadMesh:
    """Water content as colour over time and depth; returns the mesh for a colour bar.

    Args:
        axes: to draw on.
        times: [T] dates or numbers, increasing.
        depth_edges: [nz + 1] m below the surface.
        theta: [T, nz], cell j between edges j and j + 1.
        limits: of the colour scale.
    """
    mesh = axes.pcolormesh(
        mid_edges(times), array(depth_edges), array(theta).T, cmap="YlGnBu", vmin=limits[0], vmax=limits[1]
    )
    axes.set_ylim(float(np.max(array(depth_edges))), 0.0)
    axes.set_ylabel("depth [m]")
    return mesh


def field_section(
    axes: Axes,
    solution: Solution,
    name: str = "psi",
    *,
    row: int = -1,
    plane: str = "xz",
    index: int | None = None,
    limits: tuple[float, float] | None = None,
) -> QuadMesh:
    """A plane through a section or a domain as colours, with the water table; returns the mesh for a colour bar.

    The water table, psi = 0, is a line between cell centres, where it crosses a plane of two cells or more each
    way. Cells that take no part are grey.

    Args:
        axes: to draw on.
        solution: a run of a section or a domain, with all its cells (no ``save_cells``).
        name: `psi`, `theta` or `saturation`.
        row: which of the saved times, an index into ``solution.saved``; default the last.
        plane: `xz`, `yz` or `xy`; a section has only `xz`.
        index: of the cells that the plane goes through, along the axis that it leaves out; default the middle one.
        limits: of the colour scale; default those of the values.

    Raises:
        ValueError: the message starts with the name of the argument.
    """
    grid = solution.grid
    if not grid.lateral or solution.cells is not None:
        raise ValueError("solution must be that of a section or a domain with all its cells")
    if name not in FIELDS:
        raise ValueError(f"name must be one of {', '.join(FIELDS)}, it is {name!r}")
    cut = _Cut(grid, plane, index)
    _check_row(row, len(solution.saved))
    values = np.ma.masked_invalid(cut.of(getattr(solution, name)[row]))
    psi = np.ma.masked_invalid(cut.of(solution.psi[row]))
    if cut.gone is not None:
        psi = np.ma.masked_where(cut.gone, psi)
    mesh = cut.draw(axes, values, FIELDS[name][1], limits)
    if min(psi.shape) > 1 and psi.min() < 0.0 < psi.max():
        axes.contour(*cut.centres, psi, levels=[0.0], colors=SIMULATED, linewidths=1.6)
    return mesh


def concentration_section(
    axes: Axes,
    solution: TransportSolution,
    solute: str,
    *,
    row: int = -1,
    plane: str = "xz",
    index: int | None = None,
    limits: tuple[float, float] | None = None,
) -> QuadMesh:
    """A plane of concentration through a section or a domain; returns the mesh for a colour bar.

    Args:
        axes: to draw on.
        solution: a run of a section or a domain.
        solute: its name.
        row: which of the output times; default the last.
        plane, index, limits: as of ``field_section``.

    Raises:
        ValueError: the message starts with the name of the argument.
    """
    if not solution.grid.lateral:
        raise ValueError("solution must be that of a section or a domain; columns have profiles")
    values = solution.of(solute)
    cut = _Cut(solution.grid, plane, index)
    _check_row(row, values.shape[0])
    return cut.draw(axes, np.ma.masked_invalid(cut.of(values[row])), CONCENTRATION[1], limits)


class _Cut:
    """A plane through a section or a domain."""

    def __init__(self, grid: Grid, plane: str, index: int | None) -> None:
        self.order = "zx" if len(grid.shape) == 2 else "zyx"
        if plane not in PLANES or not set(plane) <= set(self.order):
            raise ValueError(f"plane must be one of {', '.join(PLANES)} (of a section xz), it is {plane!r}")
        self.plane, self.index = plane, index
        across_up = PLANES[plane]
        faces: dict[str, Any] = {"z": array(grid.z_faces)}
        for axis, sizes in zip(self.order[1:], grid.spacing[1:], strict=True):
            faces[axis] = np.concatenate([[0.0], np.cumsum(array(sizes))])
        self.faces = [faces[axis] for axis in across_up]
        self.centres = [0.5 * (edges[1:] + edges[:-1]) for edges in self.faces]
        self.gone = None if grid.active is None else ~self.of(grid.active)

    def of(self, field: Tensor) -> NDArray[Any]:
        """The plane of a field of the grid, [up, across]."""
        left = [axis for axis in range(len(self.order)) if self.order[axis] not in self.plane]
        if left:
            size = field.shape[left[0]]
            at = size // 2 if self.index is None else self.index
            if not -size <= at < size:
                raise ValueError(f"index must lie within the {size} cells of the axis, it is {at}")
            field = field.select(left[0], at)
        elif self.index not in (None, 0):
            raise ValueError(f"index must be 0 or None for a section, it is {self.index}")
        return array(field)

    def draw(
        self, axes: Axes, values: NDArray[Any], colours: str, limits: tuple[float, float] | None
    ) -> QuadMesh:
        """Colours of the cells, grey where they take no part."""
        if self.gone is not None:
            values = np.ma.masked_where(self.gone, values)
        low, high = (None, None) if limits is None else limits
        axes.set_facecolor(NOWHERE)
        mesh = axes.pcolormesh(*self.faces, values, cmap=colours, vmin=low, vmax=high)
        axes.set_xlabel(f"{PLANES[self.plane][0]} [m]")
        axes.set_ylabel(f"{PLANES[self.plane][1]} [m]")
        return mesh


def _check_row(row: int, rows: int) -> None:
    if not -rows <= row < rows:
        raise ValueError(f"row must lie within the {rows} saved times, it is {row}")


def breakthrough(
    axes: Axes, solution: TransportSolution, z: float, *, column: int = 0, unit: float = 3600.0
) -> None:
    """Concentration of every solute at an elevation of a column over time, one line a solute.

    Args:
        axes: to draw on.
        solution: a run of columns.
        z: elevation [m], as of ``TransportSolution.breakthrough``.
        column: which.
        unit: of the axis of time [s], with its name for 1, 60, 3600 and 86400.

    Raises:
        TypeError, ValueError: as ``TransportSolution.breakthrough``; no such column.
    """
    values = array(solution.breakthrough(z))
    _check_column(column, solution)
    curves = values.reshape(len(solution.times), len(solution.names), -1)[..., column]
    for k, name in enumerate(solution.names):
        axes.plot(
            array(solution.times / unit), curves[:, k], color=SOLUTES[k % len(SOLUTES)], lw=1.4, label=name
        )
    axes.set_xlabel(f"time [{UNITS.get(unit, f'{unit:g} s')}]")
    axes.set_ylabel(CONCENTRATION[0])
    axes.legend()


def concentration_profiles(
    axes: Axes,
    solution: TransportSolution,
    solute: str,
    rows: Sequence[int],
    *,
    column: int = 0,
    unit: float = 3600.0,
) -> None:
    """Concentration over elevation in a column, one line for each of some output times, light to dark.

    Args:
        axes: to draw on.
        solution: a run of columns.
        solute: its name.
        rows: which of the output times.
        column: which.
        unit: of the times in the legend [s].

    Raises:
        ValueError: the grid is no columns, or there is no such solute, time or column.
    """
    import matplotlib

    if solution.grid.lateral:
        raise ValueError("solution must be that of columns; sections have concentration_section")
    _check_column(column, solution)
    values = array(solution.of(solute))
    colours = matplotlib.colormaps[CONCENTRATION[1]]
    for k, row in enumerate(rows):
        _check_row(row, len(values))
        label = f"{float(solution.times[row]) / unit:.4g} {UNITS.get(unit, f'x {unit:g} s')}"
        shade = colours(0.3 + 0.6 * k / max(1, len(rows) - 1))
        axes.plot(values[row, :, column], array(solution.grid.z).ravel(), color=shade, lw=1.4, label=label)
    axes.set_xlabel(CONCENTRATION[0])
    axes.set_ylabel("z [m]")
    axes.legend()


def _check_column(column: int, solution: TransportSolution) -> None:
    count = solution.grid.n
    if not -count <= column < count:
        raise ValueError(f"column must lie within the {count} columns, it is {column}")


def mid_edges(times: ArrayLike) -> NDArray[np.generic]:
    """Edges [T + 1] half way between times [T], the outermost steps mirrored."""
    t: Any = np.asarray(times)
    if np.issubdtype(t.dtype, np.datetime64):
        t = t.astype("datetime64[s]")
    step = t[1:] - t[:-1]
    return np.concatenate([t[:1] - step[:1] / 2, t[:-1] + step / 2, t[-1:] + step[-1:] / 2])


def readings_on_moisture(
    axes: Axes,
    times: ArrayLike,
    depths: Tensor | ArrayLike,
    theta: Tensor | ArrayLike,
    limits: tuple[float, float],
) -> None:
    """Measured water content [R, d] as filled circles in the colours of `moisture_in_time`."""
    t, d = np.meshgrid(np.asarray(times), array(depths), indexing="ij")
    axes.scatter(
        t.ravel(), d.ravel(), c=array(theta).ravel(), cmap="YlGnBu", vmin=limits[0], vmax=limits[1], s=26,
        edgecolors=INK, linewidths=0.6, zorder=3,
    )  # fmt: skip


def rain_bars(axes: Axes, times: ArrayLike, parts: Mapping[str, tuple[Tensor | ArrayLike, str]]) -> None:
    """Daily water input in mm as stacked bars; `parts` maps a label to (values [D], colour)."""
    base = np.zeros(len(np.asarray(times)))
    for label, (values, colour) in parts.items():
        height: Any = array(values)
        axes.bar(np.asarray(times), height, bottom=base, width=1.0, color=colour, label=label)
        base = base + height
    axes.set_ylabel("mm/d")
    axes.tick_params(labelbottom=False)


def retention_fan(
    axes: Axes,
    suction: ArrayLike,
    values: Mapping[str, tuple[Tensor | ArrayLike, str]],
    prior: tuple[Tensor | ArrayLike, Tensor | ArrayLike, Tensor | ArrayLike],
) -> None:
    """Curves over suction: the prior's median and band, and one thin line a soil.

    Args:
        axes: to draw on; suction is on a logarithmic axis.
        suction: [k] m, positive.
        values: label -> (curves [m, k], colour).
        prior: lower, median, upper curve, [k] each.
    """
    h: Any = np.asarray(suction)
    low, middle, high = (array(x) for x in prior)
    axes.fill_between(h, low, high, color=PRIOR, alpha=0.25, lw=0, label="prior, middle 80 %")
    for label, (curves, colour) in values.items():
        lines = array(curves)
        for i, line in enumerate(lines):
            axes.plot(h, line, color=colour, lw=0.6, alpha=0.45, label=label if i == 0 else None)
    axes.plot(h, middle, color=INK, lw=1.6, ls="--", label="prior, median")
    axes.set_xscale("log")
    axes.set_xlim(h[0], h[-1])


def water_balance(
    axes: Axes, times: ArrayLike, terms: Mapping[str, Tensor | ArrayLike], unit: float = 1e3
) -> None:
    """Cumulative terms of the water balance: mean of the columns and the band of the middle 80 %.

    Args:
        axes: to draw on.
        times: [T].
        terms: name -> cumulative water [T, n] in m; known names have their own colour.
        unit: factor on the values, 1000 for mm.
    """
    for name, values in terms.items():
        data = np.asarray(array(values), dtype=float) * unit
        colour = BALANCE.get(name, "#555555")
        low, high = np.quantile(data, [0.1, 0.9], axis=1)
        axes.fill_between(np.asarray(times), low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            np.asarray(times), data.mean(axis=1), color=colour, lw=1.8, label=f"{name}, {data[-1].mean():.0f}"
        )
    axes.set_ylabel("cumulative, mm")


def errors_by_depth(
    axes: Axes,
    depths: Tensor | ArrayLike,
    methods: Mapping[str, tuple[Tensor | ArrayLike, str, str]],
) -> None:
    """Root mean square error over depth; `methods` maps a label to (errors [d], colour, line style)."""
    for label, (values, colour, line) in methods.items():
        axes.plot(array(values), array(depths), color=colour, ls=line, lw=1.6, marker="o", ms=3, label=label)
    axes.set_ylim(float(np.max(array(depths))) * 1.05, 0.0)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("RMSE of water content")


def observed_against_simulated(
    axes: Axes,
    observed: Tensor | ArrayLike,
    simulated: Tensor | ArrayLike,
    colour: str,
    limits: Sequence[float],
) -> None:
    """Scatter with the line of equality; pairs without a reading are left out."""
    x, y = np.ravel(array(observed)), np.ravel(array(simulated))
    seen = ~np.isnan(x)
    axes.plot(limits, limits, color=INK, lw=0.8)
    axes.scatter(x[seen], y[seen], s=4, color=colour, alpha=0.25, linewidths=0, rasterized=True)
    axes.set_xlim(limits[0], limits[1])
    axes.set_ylim(limits[0], limits[1])
    axes.set_aspect("equal")
    axes.set_xlabel("observed")
    axes.set_ylabel("simulated")
