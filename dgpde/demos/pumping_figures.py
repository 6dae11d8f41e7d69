"""Figures of the pumping tests: drawdown over time, and the field of transmissivity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dgpde import plot
from dgpde.demos.pumping import Aquifer, FieldFit, Fit, theis
from dgpde.demos.tables import DAY

COLOURS = ("#2a6f97", "#c8553d")


def draw(folder: Path, one: Aquifer, simple: Fit, many: Aquifer, even: Fit, field: FieldFit) -> list[Path]:
    """Write all figures to `folder` and return their paths."""
    with plot.style():
        made = {
            "korendijk.png": korendijk(one, simple),
            "horkheim.png": horkheim(many, even, field),
            "horkheim_field.png": transmissivity(many, field),
        }
        for name, figure in made.items():
            plot.save(figure, folder / name)
    return [folder / name for name in made]


@torch.no_grad()
def korendijk(aquifer: Aquifer, fit: Fit) -> Any:
    """Both wells of Oude Korendijk over the logarithm of time: readings, the fitted model, Theis' formula."""
    figure, axes = plot.figure(1, 1, (6, 4))
    ax, test = axes[0, 0], aquifer.tests[0]
    t, s = torch.tensor(fit.transmissivity).double(), torch.tensor(fit.storativity).double()
    simulated = aquifer.drawdown(test, t, s)
    for curve, values, colour in zip(test.curves, simulated, COLOURS, strict=True):
        # the quarter of the plane has a quarter of the rate
        formula = theis(
            fit.transmissivity, fit.storativity, 4.0 * test.rate, curve.place[0], curve.time.tolist()
        )
        ax.scatter(curve.time, curve.drawdown, s=12, color=colour, label=f"{curve.name}, measured")
        ax.plot(curve.time, values, color=colour, lw=1.4, label=f"{curve.name}, model")
        ax.plot(curve.time, formula, color=plot.INK, lw=0.8, ls=":", label=None)
    ax.set_xscale("log")
    ax.set_xlabel("time since pumping began [s]")
    ax.set_ylabel("drawdown [m]")
    ax.set_title(f"Oude Korendijk: T {fit.transmissivity * DAY:.0f} m2/d, S {fit.storativity:.2g}")
    ax.legend(title="dotted: Theis (1935)")
    return figure


@torch.no_grad()
def horkheim(aquifer: Aquifer, even: Fit, field: FieldFit) -> Any:
    """The cross-hole curves, one row a pumped well: readings, one transmissivity, a field of it."""
    tests = aquifer.tests
    figure, axes = plot.figure(len(tests), len(tests[0].curves), (15, 8), sharex=True, sharey="row")
    numbers = [
        (torch.tensor(even.transmissivity).double(), torch.tensor(even.storativity).double()),
        (field.transmissivity, torch.tensor(field.storativity).double()),
    ]
    styles = ((plot.PRIOR, "--", "T even"), (plot.SIMULATED, "-", "T a field"))
    for row, test in enumerate(tests):
        models = [aquifer.drawdown(test, t, s) for t, s in numbers]
        for place, curve in enumerate(test.curves):
            ax = axes[row, place]
            ax.scatter(curve.time, 1e3 * curve.drawdown, s=6, color=plot.OBSERVED, label="measured")
            for values, (colour, line, label) in zip(models, styles, strict=True):
                ax.plot(curve.time, 1e3 * values[place], color=colour, ls=line, lw=1.2, label=label)
            ax.set_xscale("log")
            ax.set_title(f"{test.name} pumped, {curve.name}", fontsize=8)
        axes[row, 0].set_ylabel("drawdown [mm]")
    axes[-1, 3].set_xlabel("time since pumping began [s]")
    axes[0, 0].legend()
    return figure


def transmissivity(aquifer: Aquifer, field: FieldFit) -> Any:
    """The field of T around the wells."""
    figure, axes = plot.figure(1, 1, (7, 5))
    ax, grid = axes[0, 0], aquifer.grid
    faces = [torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]) for sizes in grid.spacing]
    mesh = ax.pcolormesh(
        faces[2], faces[1], field.transmissivity[0].log10(), cmap="viridis", shading="flat", rasterized=True
    )
    figure.colorbar(mesh, label="log10 of T in m2/s")
    wells = {curve.name: curve.place for test in aquifer.tests for curve in test.curves}
    for name, (x, y) in wells.items():
        pumped = name in {test.name for test in aquifer.tests}
        ax.scatter([x], [y], s=24, color="white" if pumped else plot.INK, edgecolors=plot.INK, zorder=3)
        ax.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    xs, ys = ([place[axis] for place in wells.values()] for axis in (0, 1))
    ax.set_xlim(min(xs) - 8.0, max(xs) + 8.0)
    ax.set_ylim(min(ys) - 8.0, max(ys) + 8.0)
    ax.set_aspect("equal")
    ax.set_xlabel("x [m]")
    ax.set_ylabel("y [m]")
    ax.set_title("Horkheim: transmissivity (white: pumped wells)")
    return figure
