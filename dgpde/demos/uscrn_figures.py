"""Figures of the USCRN demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import dgpde
from dgpde import plot
from dgpde.demos.grassland import LAYER_BOTTOMS, Grassland, Prediction
from dgpde.demos.soils import AIR_ENTRY
from dgpde.demos.tables import DAY, MM, USCRN_DEPTHS

COLOURS = ("#e09f3e", "#c8553d", "#6a994e", "#2a6f97", "#6d597a")  # one a depth


def draw(
    folder: Path, model: Grassland, before: Prediction, after: Prediction, history: list[dict[str, float]]
) -> list[Path]:
    """Write all figures to `folder` and return their paths."""
    with plot.style():
        made = {
            "series.png": series(model, before, after),
            "retention.png": retention(model, after),
            "balance.png": balance(model, after, history),
        }
        for name, figure in made.items():
            plot.save(figure, folder / name)
    return [folder / name for name in made]


def series(model: Grassland, before: Prediction, after: Prediction) -> Any:
    """Moisture at the five probes of every station: readings, prior soil, learned soil; rain on top."""
    days = np.array(model.days, dtype="datetime64[D]")
    stations = len(model.data.stations)
    figure, axes = plot.figure(
        len(USCRN_DEPTHS) + 1, stations, (3.6 * stations, 11), sharex=True, height_ratios=[0.7, *[1] * 5]
    )
    for j, name in enumerate(model.data.stations):
        plot.rain_bars(axes[0, j], days, {"rain": (model.rain[:, j] / MM, plot.NEW)})
        axes[0, j].set_title(name.replace("_", " "))
        for d, depth in enumerate(USCRN_DEPTHS):
            ax = axes[d + 1, j]
            ax.axvspan(days[model.later_days[0]], days[-1], color="#f0efeb", lw=0)
            ax.plot(days, before.theta[:, d, j], color=plot.PRIOR, lw=1.0, ls="--", label="prior soil")
            ax.plot(
                days,
                model.observed[:, d, j],
                color=plot.OBSERVED,
                lw=1.2,
                label="measured (shaded: withheld)",
            )
            ax.plot(days, after.theta[:, d, j], color=plot.SIMULATED, lw=1.3, label="learned")
            ax.set_ylim(0.0, 0.5)
            plot.month_axis(ax)
            ax.tick_params(axis="x", labelrotation=45)
            if j == 0:
                ax.set_ylabel(f"{100 * depth:.0f} cm")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3)
    return figure


def retention(model: Grassland, after: Prediction) -> Any:
    """Learned retention and conductivity of every layer beside the prior of the station."""
    suction = torch.logspace(-2, 2.2, 120, dtype=torch.float64)
    psi = -suction[:, None]
    stations = len(model.data.stations)
    figure, axes = plot.figure(2, stations, (3.6 * stations, 6.4), sharex=True, sharey="row")
    prior = model.prior.soil(torch.zeros(stations, 1, 5, dtype=torch.float64))
    tops = (0.0, *LAYER_BOTTOMS[:-1])
    for j, name in enumerate(model.data.stations):
        learned = dgpde.VanGenuchten(
            **{key: value[:, j] for key, value in after.soil.items()}, air_entry=AIR_ENTRY
        )
        median = dgpde.VanGenuchten(**{key: value[j] for key, value in prior.items()}, air_entry=AIR_ENTRY)
        with torch.no_grad():
            for row, (relation, unit) in enumerate((("theta", 1.0), ("conductivity", DAY / MM))):
                ax = axes[row, j]
                curves = getattr(learned, relation)(psi) * unit
                for layer, (top, bottom, colour) in enumerate(zip(tops, LAYER_BOTTOMS, COLOURS, strict=True)):
                    label = f"{100 * top:g} to {100 * bottom:g} cm"
                    ax.plot(suction, curves[:, layer], color=colour, lw=1.5, label=label)
                ax.plot(
                    suction,
                    getattr(median, relation)(psi) * unit,
                    color=plot.INK,
                    ls="--",
                    label="prior, median",
                )
                ax.set_xscale("log")
        axes[0, j].set_title(name.replace("_", " "))
        axes[1, j].set_yscale("log")
        axes[1, j].set_ylim(1e-6, 1e4)
        axes[1, j].set_xlabel("suction [m]")
    axes[0, 0].set_ylabel("water content")
    axes[1, 0].set_ylabel("conductivity [mm/d]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=6)
    return figure


def balance(model: Grassland, after: Prediction, history: list[dict[str, float]]) -> Any:
    """Cumulative water balance of every station, and the course of training."""
    run = after.run
    stored = (run.theta * model.dz[:, None]).sum(dim=1)
    if run.evaporation is None:
        raise ValueError("run has no evaporation: its top must be an Atmosphere")
    flows = {
        "precipitation": model.rain / DAY,
        "uptake": run.uptake,
        "evaporation": run.evaporation,
        "drainage": -run.boundary_flux["bottom"],
        "runoff": run.runoff,
    }
    days = np.array(model.days, dtype="datetime64[D]")
    stations = len(model.data.stations)
    figure, axes = plot.figure(1, stations + 1, (3.2 * (stations + 1), 5.2))
    for j, name in enumerate(model.data.stations):
        terms = {label: torch.cumsum(flux[:, j : j + 1] * DAY, dim=0) for label, flux in flows.items()}
        terms["storage change"] = stored[1:, j : j + 1] - stored[0, j]
        plot.water_balance(axes[0, j], days, terms)
        axes[0, j].set_title(name.replace("_", " "))
        axes[0, j].legend(
            title="mm at the end",
            alignment="left",
            loc="upper left",
            bbox_to_anchor=(0.0, -0.25),
            borderaxespad=0.0,
        )
        plot.month_axis(axes[0, j])
        axes[0, j].tick_params(axis="x", labelrotation=45)
        if j:
            axes[0, j].set_ylabel("")
    last = axes[0, stations]
    last.plot([numbers["rmse"] for numbers in history], color=plot.SIMULATED)
    last.set_title("RMSE, training days")
    last.set_xlabel("iteration")
    last.set_ylim(bottom=0.0)
    return figure
