"""Bromide through an unsaturated soil column (Bogner & Germann 2019): water and solute in one fit.

A packed column of forest soil, 30 cm high, drained to a suction of 10 hPa at its bottom, is irrigated at 10 mm/h with
bromide for 18 hours. Water content, retention, conductivity and dispersivity are fitted together to the drainage's
rise and fall and to the breakthrough: one backward reaches all of them through transport and flow. Once with all
water flowing, once with a part of it that stands still and exchanges bromide.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import dgpde
from dgpde import plot
from dgpde.demos.least_squares import Estimate, Prior, least_squares, rows
from dgpde.demos.tables import column, read_csv

HOUR = 3600.0  # s
MM_H = 1e-3 / HOUR  # m/s
HEIGHT = 0.30  # m
SUCTION = -0.102  # m of water at the bottom
IRRIGATED = 64410.0  # s
INTERVAL = 120.0  # s, output times; drainage is compared as means over them
INTERVALS = 560
RISE = (0.0, 4500.0)  # s, the parts of the drainage that say something of the soil
FALL = (64000.0, 67200.0)
THETA_R = 0.05
NOISE = {"bromide": 0.015, "drainage": 1.0}  # -, mm/h: what models of this kind leave
PLAIN = ("theta_s", "ln alpha", "ln (n - 1)", "ln (k_sat/q - 1)", "ln dispersivity")
STANDING = ("ln theta_im", "ln rate_im")
# A forest soil; conductivity above the irrigation of q, since no water was seen to pond.
PRIOR_MEAN = (
    0.5,
    math.log(3.0),
    math.log(0.5),
    math.log(10.0),
    math.log(0.01),
    math.log(0.05),
    math.log(1e-6),
)
PRIOR_SPREAD = (1.0, 1.0, 0.5, 2.0, 9.0, 2.0, 2.0)
PUBLISHED = (
    0.545,
    0.009,
)  # water content and dispersivity [m] of a convection-dispersion fit, in the data's README


@dataclass(frozen=True)
class Column:
    """The readings, and how finely the column is cut.

    Attributes:
        grid_cells: layers of the model.
        dt_max: longest step [s]; backward Euler disperses by v^2 dt/2, at 60 s a fiftieth to a twentieth
            of the dispersion.
        irrigation: m/s, the mean of the drainage while it was steady.
        bromide: times [b] s and concentrations over that of the inflow [b].
        drainage: indices of intervals [d] and the mean drainage in them [d] mm/h.
    """

    grid_cells: int
    dt_max: float
    irrigation: float
    bromide: tuple[Tensor, Tensor]
    drainage: tuple[Tensor, Tensor]

    @property
    def times(self) -> Tensor:
        """[INTERVALS + 1] s."""
        return INTERVAL * torch.arange(INTERVALS + 1, dtype=torch.float64)

    @property
    def groups(self) -> list[int]:
        """Number of readings of bromide and of drainage."""
        return [self.bromide[0].numel(), self.drainage[0].numel()]

    @property
    def readings(self) -> Tensor:
        """[b + d] in units of their noise."""
        return torch.cat([self.bromide[1] / NOISE["bromide"], self.drainage[1] / NOISE["drainage"]])

    def simulate(self, p: Tensor) -> tuple[dgpde.Solution, dgpde.TransportSolution]:
        """Water and bromide of one column for every column of p.

        Args:
            p: [5, n], or [7, n] with immobile water: ``PLAIN`` and ``STANDING``.
        """
        theta_s, ln_alpha, ln_n, ln_k, ln_spread = p[:5, None]
        grid = dgpde.Grid.columns(p.shape[1], [HEIGHT / self.grid_cells] * self.grid_cells)
        soil = dgpde.VanGenuchten(
            theta_r=THETA_R,
            theta_s=theta_s,
            alpha=ln_alpha.exp(),
            n=1.0 + ln_n.exp(),
            k_sat=self.irrigation * (1.0 + ln_k.exp()),
            air_entry=0.02,
        )
        on = ((IRRIGATED - self.times[:-1]) / INTERVAL).clamp(0.0, 1.0)
        flow = dgpde.Richards(
            grid,
            soil,
            {"top": dgpde.Flux(dgpde.Series(self.irrigation * on)), "bottom": dgpde.Head(SUCTION)},
        )
        # drained to field capacity: at rest above the suction
        options = dgpde.SolveOptions(dt_initial=1.0, dt_max=self.dt_max)
        run = flow.solve(SUCTION - grid.z, self.times, options)
        solute = dgpde.Solute(
            "bromide",
            longitudinal_dispersivity=ln_spread.exp(),
            immobile=dgpde.Immobile(p[5:6].exp(), p[6:7].exp()) if len(p) > 5 else None,
        )
        model = dgpde.Transport(grid, solute, {"top": dgpde.InflowConcentration(1.0)}, "central")
        return run, model.solve(0.0, run)

    def values(self, p: Tensor) -> Tensor:
        """The readings [b + d] as simulated, in units of their noise; the reading i in the column i of p."""
        run, carried = self.simulate(p)
        seconds, intervals = self.bromide[0], self.drainage[0]
        count = seconds.numel()
        outlet = outflow(carried, seconds, torch.arange(count))
        drained = -run.boundary_flux["bottom"][intervals, torch.arange(count, count + intervals.numel())]
        return torch.cat([outlet / NOISE["bromide"], drained / (MM_H * NOISE["drainage"])])

    def misfits(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Simulated less measured [b + d] in units of the noise, and the Jacobian, at p [k]."""
        found, slopes = rows(self.values, p, sum(self.groups))
        return found - self.readings, slopes


def outflow(carried: dgpde.TransportSolution, seconds: Tensor, columns: Tensor) -> Tensor:
    """Concentration [b] of the water that leaves each of some columns at a time of its own, linear in time."""
    place = seconds / INTERVAL
    before = place.floor().long()
    share = place - before
    low, high = (carried.concentration[before + k, 0, columns] for k in (0, 1))
    return (1.0 - share) * low + share * high


def load(every: int = 4, cells: int = 60, dt_max: float = 60.0) -> Column:
    """The data of the column.

    Args:
        every: of the breakthrough's readings one in so many is taken; they were smoothed before publication, so that
            neighbours say the same.
        cells: layers of the model.
        dt_max: longest step [s].
    """
    folder = "column-bromide-c1"
    bromide = read_csv(f"{folder}/bromide_breakthrough.csv")[::every]
    drained = read_csv(f"{folder}/drainage.csv")
    seconds, rate = column(drained, "time_s"), column(drained, "drainage_mm_h")
    steady = rate[(seconds > RISE[1]) & (seconds < FALL[0])].mean().item()
    within = ((seconds - 1e-6) / INTERVAL).floor().long()
    total = torch.zeros(INTERVALS, dtype=torch.float64).index_add_(0, within, rate)
    number = torch.bincount(within, minlength=INTERVALS)
    start = INTERVAL * torch.arange(INTERVALS)
    told = (number > 0) & ((start < RISE[1]) | (start >= FALL[0]))
    intervals = told.nonzero()[:, 0]
    return Column(
        grid_cells=cells,
        dt_max=dt_max,
        irrigation=steady * MM_H,
        bromide=(column(bromide, "time_s"), column(bromide, "bromide_c_c0")),
        drainage=(intervals, total[intervals] / number[intervals]),
    )


@dataclass(frozen=True)
class Fit:
    """One model's parameters and what they leave.

    Attributes:
        estimate: the search's end.
        theta: mean water content of the column while the flow is steady.
        bromide, drainage: root mean square misfits, - and mm/h.
        error: standard errors of the parameters and, last, of theta, if misfits were independent.
        error_blocks: the same from drawing blocks of misfits of two hours (bromide) anew.
    """

    estimate: Estimate
    theta: float
    bromide: float
    drainage: float
    error: list[float]
    error_blocks: list[float]


def fit(readings: Column, immobile: bool, rounds: int = 60) -> Fit:
    """Least squares of both series under a weak prior."""
    count = 7 if immobile else 5
    mean, spread = (torch.tensor(x[:count], dtype=torch.float64) for x in (PRIOR_MEAN, PRIOR_SPREAD))
    found = least_squares(readings.misfits, mean, Prior(mean, spread), rounds)
    wide = found.p.clone().requires_grad_()
    run, _ = readings.simulate(wide[:, None])
    theta = run.theta[INTERVALS // 2].mean()
    (slope,) = torch.autograd.grad(theta, wide)
    errors = []
    for covariance in (found.covariance(), found.block_bootstrap(readings.groups, length=5)):
        own = covariance.diagonal().sqrt().tolist()
        errors.append([*own, float(slope @ covariance @ slope) ** 0.5])
    parts = [part.square().mean().sqrt().item() for part in found.misfit.split(readings.groups)]
    return Fit(found, theta.item(), parts[0] * NOISE["bromide"], parts[1] * NOISE["drainage"], *errors)


def run(folder: Path, iterations: int | None = None, readings: Column | None = None) -> dict[str, Fit]:
    """Fit both models, print what was found, write figure and table to ``folder``.

    Args:
        folder: must be there.
        iterations: most steps of each fit; None for as many as it takes.
        readings: the data and the model's resolution; None for the demonstration's own.
    """
    start = time.perf_counter()
    readings = load() if readings is None else readings
    print(
        f"bromide column: {readings.groups[0]} concentrations, {readings.groups[1]} mean drainages, irrigation "
        f"{readings.irrigation / MM_H:.2f} mm/h"
    )
    print(
        f"published convection-dispersion fit: theta {PUBLISHED[0]}, dispersivity {1e3 * PUBLISHED[1]:.0f} mm, "
        "RMSE 0.015"
    )
    fits = {}
    for name, immobile in (("all water flows", False), ("with immobile water", True)):
        fits[name] = found = fit(readings, immobile, 60 if iterations is None else iterations)
        p, errors, blocks = found.estimate.p, found.error, found.error_blocks
        print(f"\n{name}: {found.estimate.rounds} steps")
        print(f"  theta {found.theta:.4f} +- {errors[-1]:.4f} (misfits in blocks: {blocks[-1]:.4f})")
        print(
            f"  dispersivity {1e3 * p[4].exp():.2f} mm +- {100 * errors[4]:.1f} % (in blocks: {100 * blocks[4]:.1f} %)"
        )
        k_sat = readings.irrigation * (1.0 + p[3].exp()) / MM_H
        print(f"  alpha {p[1].exp():.2f} 1/m, n {1 + p[2].exp():.2f}, k_sat {k_sat:.1f} mm/h")
        if immobile:
            print(
                f"  immobile {p[5].exp():.4f} (factor {math.exp(errors[5]):.1f}), rate {p[6].exp():.1e} 1/s "
                f"(factor {math.exp(errors[6]):.1f})"
            )
        print(f"  RMSE {found.bromide:.4f} in c/c0, {found.drainage:.2f} mm/h in drainage")
    print(
        "\nThe published curves are smoothed: what is left is the model's, and errors in blocks are the fairer ones."
    )
    write(folder / "bromide.csv", fits)
    with torch.no_grad():
        _, carried = readings.simulate(found.estimate.p[:, None])
    carried.to_hdf5(folder / "bromide.h5")
    draw(folder / "bromide.png", readings, fits)
    print(f"\nbromide.png, bromide.csv and, with immobile water, bromide.h5 are in {folder}")
    print(f"{time.perf_counter() - start:.1f} s in all")
    return fits


def write(path: Path, fits: dict[str, Fit]) -> None:
    """A table of all parameters with their errors."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "parameter", "value", "error_independent", "error_blocks"])
        for name, found in fits.items():
            names: Sequence[str] = (*PLAIN, *STANDING)[: found.estimate.p.numel()]
            values = [*found.estimate.p.tolist(), found.theta]
            for row in zip((*names, "theta"), values, found.error, found.error_blocks, strict=True):
                writer.writerow([name, row[0], *(f"{x:.6g}" for x in row[1:])])
            for what, left in (("rmse c/c0", found.bromide), ("rmse mm/h", found.drainage)):
                writer.writerow([name, what, f"{left:.6g}", "", ""])


@torch.no_grad()
def draw(path: Path, readings: Column, fits: dict[str, Fit]) -> None:
    """Breakthrough with what is left of it, and the drainage's rise and fall."""
    everything = load(every=1)
    seconds, measured = everything.bromide
    with plot.style():
        figure, axes = plot.figure(2, 2, (10, 7))
        plain, rest, rise, fall = axes.flat
        plain.scatter(seconds / HOUR, measured, s=6, color=plot.OBSERVED, label="measured, smoothed")
        rest.axhline(0.0, color=plot.INK, lw=0.6)
        start = readings.times[:-1] / HOUR
        for ax in (rise, fall):
            at = readings.drainage[0]
            ax.scatter(start[at] + 0.5 * INTERVAL / HOUR, readings.drainage[1], s=10, color=plot.OBSERVED)
        for (name, found), colour in zip(fits.items(), (plot.SIMULATED, plot.NEW), strict=True):
            water, carried = readings.simulate(found.estimate.p[:, None])
            simulated = outflow(carried, seconds, torch.zeros(seconds.numel(), dtype=torch.long))
            plain.plot(seconds / HOUR, simulated, color=colour, lw=1.5, label=name)
            rest.plot(seconds / HOUR, simulated - measured, color=colour, lw=1.2)
            drained = -water.boundary_flux["bottom"][:, 0] / MM_H
            for ax in (rise, fall):
                ax.stairs(drained, readings.times / HOUR, color=colour, lw=1.4, baseline=None)
        plain.set_title("bromide in the outflow")
        plain.set_ylabel("c / c0")
        plain.legend()
        rest.set_title("simulated less measured")
        rest.set_ylabel("c / c0")
        rise.set_title("drainage begins")
        rise.set_ylabel("mm/h")
        rise.set_xlim(RISE[0] / HOUR, RISE[1] / HOUR)
        fall.set_title("drainage ends")
        fall.set_xlim(FALL[0] / HOUR, FALL[1] / HOUR)
        for ax in axes.flat:
            ax.set_xlabel("time since irrigation began [h]")
        plot.save(figure, path)
