"""Figures of the Maricopa demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import dgpde
from dgpde import plot
from dgpde.demos.cotton import LAYER_BOTTOMS, Cotton, Prediction
from dgpde.demos.soils import AIR_ENTRY
from dgpde.demos.tables import DAY, MM

LIMITS = (0.10, 0.30)
DEPTHS_SHOWN = (0, 1, 2, 4, 7)  # indices of readings: 10, 30, 50, 90, 150 cm


def draw(
    folder: Path,
    model: Cotton,
    before: Prediction,
    after: Prediction,
    mapped: Prediction,
    history: list[dict[str, float]],
) -> list[Path]:
    """Write all figures to `folder` and return their paths. `after` must hold psi at every half day."""
    chosen = chosen_plots(model)
    with plot.style():
        made = {
            "profiles.png": profiles(model, after, chosen),
            "series.png": series(model, before, after, chosen),
            "retention.png": retention(model, after),
            "balance.png": balance(model, after),
            "errors.png": errors(model, before, after, mapped),
            "field.png": field(model, after, history),
        }
        for name, figure in made.items():
            plot.save(figure, folder / name)
    return [folder / name for name in made]


def chosen_plots(model: Cotton) -> list[int]:
    """Two training and two new plots: of each kind the ones with the least and the most irrigation."""
    total = model.data.irrigation.sum(dim=0)
    chosen = []
    for plots in (model.split.train_plots, model.split.new_plots):
        order = plots[total[plots].argsort()]
        chosen += [int(order[0]), int(order[-1])]
    return chosen


def name_of(model: Cotton, i: int) -> str:
    """Plot, its kind and its irrigation in the season."""
    kind = "withheld plot" if i in model.split.new_plots.tolist() else "training plot"
    days = slice(model.first, model.first + model.n_days)
    return f"{kind} {model.data.plots[i]}, {model.data.irrigation[days, i].sum().item() / MM:.0f} mm of irrigation"


def half_days(model: Cotton) -> np.ndarray[Any, Any]:
    """Times of the output, datetime64."""
    start = np.datetime64(model.data.dates[0]) + np.timedelta64(6, "h")
    return start + (model.times.numpy() / 3600).astype("timedelta64[h]")


def mark_split(model: Cotton, axes: Any, label: bool = False) -> None:
    """A line between the last training date and the first withheld one."""
    dates = model.data.dates
    last, first = dates[int(model.split.train_dates[-1])], dates[int(model.split.later_dates[0])]
    at = np.datetime64(last) + (np.datetime64(first) - np.datetime64(last)) / 2
    axes.axvline(at, color=plot.INK, lw=1.0, ls=(0, (4, 2)))
    if label:
        axes.annotate(
            "withheld dates",
            (at, 1.0),
            (4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )


def profiles(model: Cotton, after: Prediction, chosen: list[int]) -> Any:
    """Simulated moisture over time and depth with the readings on top, and the water that came in."""
    data, t = model.data, half_days(model)
    figure, axes = plot.figure(
        2 * len(chosen), 1, (10, 3.0 * len(chosen)), sharex=True, height_ratios=[1, 3.2] * len(chosen)
    )
    days = slice(model.first, model.first + model.n_days)
    noon = np.array(data.days[days], dtype="datetime64[h]") + np.timedelta64(12, "h")
    dates = np.array(data.dates, dtype="datetime64[h]") + np.timedelta64(6, "h")
    edges = torch.cat([model.edges[1][:1], model.edges[0]]).flip(0)
    mesh: Any = None
    for row, i in enumerate(chosen):
        top, body = axes[2 * row, 0], axes[2 * row + 1, 0]
        plot.rain_bars(
            top,
            noon,
            {
                "irrigation": (data.irrigation[days, i] / MM, plot.NEW),
                "rain": (data.rain[days] / MM, "#00b4d8"),
            },
        )
        top.set_title(name_of(model, i))
        if row == 0:
            top.legend(ncol=2, loc="upper left")
        mark_split(model, top, label=row == 0)
        mesh = plot.moisture_in_time(body, t, edges, after.run.theta[:, :, i].flip(1), LIMITS)
        plot.readings_on_moisture(body, dates, data.depths, data.theta[:, :, i], LIMITS)
        mark_split(model, body)
        plot.month_axis(body)
    figure.colorbar(
        mesh, ax=axes[:, 0].tolist(), label="water content; circles: neutron probe", aspect=60, pad=0.01
    )
    return figure


def series(model: Cotton, before: Prediction, after: Prediction, chosen: list[int]) -> Any:
    """Moisture in time at five depths of the chosen plots: readings, prior soil, learned soil."""
    data, t = model.data, half_days(model)
    dates = np.array(data.dates, dtype="datetime64[h]") + np.timedelta64(6, "h")
    theta = torch.einsum("dk,tkc->tdc", model.reading_weights, after.run.theta)
    figure, axes = plot.figure(len(DEPTHS_SHOWN), len(chosen), (13, 10), sharex=True, sharey=True)
    later = model.split.later_dates.tolist()
    train = [0, *model.split.train_dates.tolist()]
    for j, i in enumerate(chosen):
        new = i in model.split.new_plots.tolist()
        for row, d in enumerate(DEPTHS_SHOWN):
            ax = axes[row, j]
            ax.axvspan(
                dates[train[-1]] + (dates[later[0]] - dates[train[-1]]) / 2, dates[-1], color="#f0efeb", lw=0
            )
            ax.plot(dates, before.theta[:, d, i], color=plot.PRIOR, lw=1.1, ls="--", label="prior soil")
            ax.plot(t, theta[:, d, i], color=plot.SIMULATED, lw=1.3, label="learned")
            seen, unseen = ([0], [*train[1:], *later]) if new else (train, later)
            ax.plot(
                dates[seen],
                data.theta[seen, d, i],
                "o",
                ms=4,
                color=plot.OBSERVED,
                label="reading, known to the model",
            )
            ax.plot(
                dates[unseen],
                data.theta[unseen, d, i],
                "o",
                ms=4,
                mfc="white",
                mec=plot.OBSERVED,
                label="reading, withheld",
            )
            plot.month_axis(ax)
            ax.tick_params(axis="x", labelrotation=45)
            if j == 0:
                ax.set_ylabel(f"{100 * data.depths[d].item():.0f} cm")
            if row == 0:
                ax.set_title(name_of(model, i).replace(", ", "\n"))
    axes[0, 0].set_ylim(0.05, 0.36)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4)
    return figure


def retention(model: Cotton, after: Prediction) -> Any:
    """Learned retention and conductivity of every plot and layer beside the prior."""
    suction = torch.logspace(-2, 2.2, 120, dtype=torch.float64)
    psi = -suction[:, None]
    sample = model.prior.soil(
        torch.randn(2000, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )
    median = model.prior.soil(torch.zeros(1, 5, dtype=torch.float64))
    figure, axes = plot.figure(2, len(LAYER_BOTTOMS), (15, 6), sharex=True, sharey="row")

    def curves(soil: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        relation = dgpde.VanGenuchten(**soil, air_entry=AIR_ENTRY)
        return relation.theta(psi).T, (relation.conductivity(psi) * DAY / MM).T  # [m, k]; mm/d

    with torch.no_grad():
        spread = [x.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0) for x in curves(sample)]
        middle = [x[0] for x in curves(median)]
        for layer, (top, bottom) in enumerate(zip((0.0, *LAYER_BOTTOMS), LAYER_BOTTOMS, strict=False)):
            learned = curves({name: value[layer] for name, value in after.soil.items()})
            for row in range(2):
                plot.retention_fan(
                    axes[row, layer],
                    suction.numpy(),
                    {
                        "learned, training plots": (learned[row][model.split.train_plots], plot.SIMULATED),
                        "learned, withheld plots (by the map)": (
                            learned[row][model.split.new_plots],
                            plot.NEW,
                        ),
                    },
                    (spread[row][0], middle[row], spread[row][1]),
                )
            axes[0, layer].set_title(f"{100 * top:.0f} to {100 * bottom:.0f} cm")
            axes[1, layer].set_yscale("log")
            axes[1, layer].set_ylim(1e-6, 1e4)
            axes[1, layer].set_xlabel("suction [m]")
    axes[0, 0].set_ylabel("water content")
    axes[1, 0].set_ylabel("conductivity [mm/d]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4)
    return figure


def balance(model: Cotton, after: Prediction) -> Any:
    """Water balance of the field in time, and what becomes of the water plot by plot."""
    from dgpde.demos.maricopa import season_balance

    terms = season_balance(model, after)
    t = half_days(model)
    figure, axes = plot.figure(1, 2, (13, 5), width_ratios=[1.25, 1])
    left, right = axes[0]
    plot.water_balance(
        left, t, {name: x for name, x in terms.items() if name != "runoff" or x[-1].mean() > 5e-4}
    )
    observed = (model.data.theta - model.data.theta[:1]).sum(dim=1) * 0.2 / MM
    seen = ~torch.isnan(observed)
    dates = np.array(model.data.dates, dtype="datetime64[h]") + np.timedelta64(6, "h")
    mean = torch.where(seen, observed, 0.0).sum(dim=1) / seen.sum(dim=1)
    left.plot(dates, mean, "o", ms=4, mfc="white", mec=plot.OBSERVED, label="storage change, neutron probe")
    left.axhline(0.0, color="#999999", lw=0.6)
    left.legend(loc="upper left", title="mean of plots [mm], at the end", alignment="left")
    left.set_title("Water balance of the season; bands: middle 80 % of plots")
    mark_split(model, left)
    plot.month_axis(left)
    water = terms["rain and irrigation"][-1] / MM
    for name in ("uptake", "evaporation", "drainage", "storage change"):
        right.scatter(
            water, terms[name][-1] / MM, s=16, color=plot.BALANCE[name], label=name, alpha=0.8, lw=0
        )
    right.axhline(0.0, color="#999999", lw=0.6)
    right.set_xlabel("rain and irrigation of the plot [mm]")
    right.set_ylabel("mm")
    right.set_title("Where the water went, one dot a plot")
    right.legend()
    return figure


def errors(model: Cotton, before: Prediction, after: Prediction, mapped: Prediction) -> Any:
    """RMSE by depth for the four sets of readings, and observed against simulated."""
    from dgpde.demos.maricopa import baselines

    data, split = model.data, model.split
    simple = baselines(model)
    methods = {
        "prior soil": (before.theta, plot.PRIOR, "--"),
        "mean of the training dates": (simple["mean of the training dates"], "#bc6c25", ":"),
        "first profile for ever": (simple["first profile for ever"], "#7f5539", ":"),
        "learned, map alone": (mapped.theta, plot.MAP, "-"),
        "learned, map and offsets": (after.theta, plot.SIMULATED, "-"),
    }
    figure, axes = plot.figure(2, 4, (14, 8.4))
    sets = [
        (p, d) for p in (split.train_plots, split.new_plots) for d in (split.train_dates, split.later_dates)
    ]
    names = [
        "training plots, training dates",
        "training plots, withheld dates",
        "withheld plots, training dates",
        "withheld plots, withheld dates",
    ]
    for column, ((plots, dates), name) in enumerate(zip(sets, names, strict=True)):
        truth = data.theta[dates][:, :, plots]
        lines = {}
        for method, (theta, colour, style) in methods.items():
            if method == "learned, map and offsets" and column > 1:
                continue  # a withheld plot has no offset: the two are the same
            error = (theta.expand_as(data.theta)[dates][:, :, plots] - truth).square()
            lines[method] = (torch.nanmean(error, dim=(0, 2)).sqrt(), colour, style)
        top, bottom = axes[0, column], axes[1, column]
        plot.errors_by_depth(top, data.depths, lines)
        top.set_title(name)
        top.set_xlim(0.0, 0.115)
        plot.observed_against_simulated(
            bottom, truth, before.theta[dates][:, :, plots], plot.PRIOR, (0.05, 0.35)
        )
        plot.observed_against_simulated(
            bottom, truth, after.theta[dates][:, :, plots], plot.SIMULATED, (0.05, 0.35)
        )
    axes[0, 0].set_ylabel("depth [m]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=5)
    return figure


def field(model: Cotton, after: Prediction, history: list[dict[str, float]]) -> Any:
    """The field from above: learned storage capacity and drainage of every plot; and the course of training."""
    from dgpde.demos.maricopa import season_balance

    where = model.data.position
    new = model.split.new_plots
    figure, axes = plot.figure(1, 3, (15, 4.4), width_ratios=[1, 1, 0.75])
    relation = dgpde.VanGenuchten(**after.soil, air_entry=AIR_ENTRY)
    heads = torch.tensor([-1.0, -150.0], dtype=torch.float64)
    wet, dry = (relation.theta(h.expand(len(LAYER_BOTTOMS), len(after.plots))) for h in heads)
    thickness = torch.tensor(LAYER_BOTTOMS, dtype=torch.float64).diff(
        prepend=torch.zeros(1, dtype=torch.float64)
    )
    maps = {
        "water held between 1 m and 150 m of suction [mm]": (thickness @ (wet - dry) / MM, "YlGnBu"),
        "drainage below 2 m in the season [mm]": (season_balance(model, after)["drainage"][-1] / MM, "PuBu"),
    }
    for ax, (title, (values, colours)) in zip(axes[0], maps.items(), strict=False):
        dots = ax.scatter(
            where[:, 0],
            where[:, 1],
            c=values.detach(),
            cmap=colours,
            marker="s",
            s=130,
            edgecolors="#777777",
            lw=0.5,
        )
        ax.scatter(
            where[new, 0],
            where[new, 1],
            facecolors="none",
            edgecolors=plot.SIMULATED,
            marker="s",
            s=190,
            lw=1.6,
        )
        ax.set_title(title)
        ax.set_xlabel("m east")
        ax.set_ylabel("m north")
        ax.set_aspect("equal")
        ax.set_xlim(-125, 125)
        ax.set_ylim(-80, 80)
        figure.colorbar(dots, ax=ax, orientation="horizontal", shrink=0.8)
    last = axes[0, 2]
    if history:
        for name, label, colour in (
            ("rmse", "map and offsets", plot.SIMULATED),
            ("map", "map alone", plot.MAP),
        ):
            last.plot([numbers[name] for numbers in history], color=colour, label=label)
        last.legend(title="RMSE, training plots and dates")
    last.set_ylim(bottom=0.0)
    last.set_xlabel("iteration")
    last.set_title("training")
    axes[0, 0].annotate(
        "outlined: withheld plots", (0.01, 0.02), xycoords="axes fraction", color=plot.SIMULATED, fontsize=8
    )
    return figure
