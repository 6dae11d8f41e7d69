"""The bromide plume of Cape Cod: its spread along the flow, fitted, and drawn from the aquifer's own statistics.

Garabedian et al. (1991) followed a plume for 461 days; Hess et al. (1992) measured how ln K varies. First the mass
along the flow at two dates is that of advection and dispersion, velocity and dispersivity found by least squares
through the solver's gradient. Then water and solute move through fields of K drawn with the site's variance and
correlation length: how fast plumes spread there is a prediction of the dispersivity that was measured.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dgpde
from dgpde import plot
from dgpde.demos.least_squares import Estimate, least_squares, rows
from dgpde.demos.tables import DAY, column, read_csv

FOLDER = "k-fields-and-plumes"
PUBLISHED = (0.42, 1.1)  # m/d and m, of a Gaussian that follows both dates, in the data's README
LOCAL = (0.05, 0.005)  # m, dispersivities along and across the flow within a cell
STEP = 0.8 * DAY  # of the plumes in random fields
CELL = 0.65  # m, a quarter of the correlation length
SEEDS = 6
BEFORE, LENGTH = 20.0, 320.0  # m of the one-dimensional model upstream of the injection, and in all


@dataclass(frozen=True)
class Site:
    """What was measured at Cape Cod; mass fractions [m] at a date and a distance each."""

    day: Tensor  # [m] since the injection
    distance: Tensor  # [m] m
    fraction: Tensor  # [m] of the mass that is not farther
    variance: float  # of ln K
    correlation: float  # m, horizontal
    porosity: float
    velocity: float  # m/d
    conductivity: float  # m/s, geometric mean
    dispersivity: float  # m, by the moments of the plume

    @property
    def days(self) -> list[float]:
        """The dates."""
        return sorted(set(self.day.tolist()))


def load() -> Site:
    """Read the plume and the line of the site in the table of sites."""
    plume = read_csv(f"{FOLDER}/cape_cod_mass_cdf.csv")
    about = next(
        row
        for row in read_csv(f"{FOLDER}/site_geostatistics_macrodispersivity.csv")
        if row["site"] == "Cape Cod"
    )
    return Site(
        day=column(plume, "day"),
        distance=column(plume, "distance_m"),
        fraction=column(plume, "cumulative_mass_fraction"),
        variance=float(about["lnK_variance"]),
        correlation=float(about["corr_length_m"]),
        porosity=float(about["porosity"]),
        velocity=float(about["velocity_m_d"]),
        conductivity=1e-3 * float(about["KG_1e-3_m_s"]),
        dispersivity=float(about["A_L_m"]),
    )


# ----------------------------------------------------------------------------------------- one dimension


def mass_along(site: Site, p: Tensor, cell: float = 1.0, dt: float = 0.1) -> Tensor:
    """Mass fraction up to every face of a line [1 + dates, faces, n], from a pulse at distance 0.

    Args:
        site: whose dates are taken.
        p: [2, n] logarithms of velocity [m/d] and dispersivity [m] of each of n lines.
        cell: m.
        dt: longest step [d]; it disperses by v dt/2, 0.02 m at 0.1 d.
    """
    count = round(LENGTH / cell)
    grid = dgpde.Grid.columns(p.shape[1], [cell] * count, gravity=0.0)
    flow = dgpde.SteadyFlow(site.porosity, site.porosity * p[:1].exp() / DAY)
    solute = dgpde.Solute("bromide", longitudinal_dispersivity=p[1:2].exp())
    c0 = torch.zeros(count, 1, dtype=torch.float64)
    first = round(BEFORE / cell)
    c0[first - 1 : first + 1] = 1.0
    times = [0.0, *(day * DAY for day in site.days)]
    model = dgpde.Transport(grid, solute, scheme="central")
    done = model.solve(c0, flow, times, dgpde.SolveOptions(dt_fixed=dt * DAY))
    passed = done.concentration.cumsum(1)
    return torch.cat([torch.zeros_like(passed[:, :1]), passed], 1) / passed[:, -1:]


def fractions(site: Site, p: Tensor, cell: float = 1.0, dt: float = 0.1) -> Tensor:
    """The measured fractions [m] as simulated, linear between faces; the reading i from the column i of p [2, m]."""
    passed = mass_along(site, p, cell, dt)
    place = (site.distance + BEFORE) / cell
    below = place.floor().long()
    share = place - below
    date = 1 + torch.tensor([site.days.index(day) for day in site.day.tolist()])
    line = torch.arange(p.shape[1])
    return (1.0 - share) * passed[date, below, line] + share * passed[date, below + 1, line]


def fit(site: Site, cell: float = 1.0, dt: float = 0.1, rounds: int = 20) -> Estimate:
    """Logarithms of velocity [m/d] and dispersivity [m] by least squares of all fractions."""

    def misfits(p: Tensor) -> tuple[Tensor, Tensor]:
        found, slopes = rows(lambda wide: fractions(site, wide, cell, dt), p, site.day.numel())
        return found - site.fraction, slopes

    start = torch.tensor([0.5, 2.0], dtype=torch.float64).log()
    return least_squares(misfits, start, rounds=rounds)


# ------------------------------------------------------------------------------------------ random fields


def random_field(shape: tuple[int, int], cell: float, variance: float, length: float, seed: int) -> Tensor:
    """A Gaussian field [ny, nx] of covariance variance * exp(-distance/length), exact on the grid.

    By circulant embedding on twice the grid (Dietrich & Newsam 1993, Water Resour. Res. 29, 2861-2869).

    Raises:
        ValueError: ``shape`` is too small beside ``length`` for the embedding to be a covariance.
    """
    sizes = [2 * size for size in shape]
    lags = [cell * torch.minimum(torch.arange(size), size - torch.arange(size)).double() for size in sizes]
    distance = (lags[0][:, None].square() + lags[1].square()).sqrt()
    spectrum = torch.fft.fft2(variance * torch.exp(-distance / length)).real
    if bool((spectrum < 0.0).any()):
        raise ValueError(f"shape {shape} spans too few correlation lengths; take more cells or larger ones")
    noise = torch.randn(2, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    waves = (spectrum / math.prod(sizes)).sqrt() * torch.complex(noise[0], noise[1])
    return torch.fft.fft2(waves).real[: shape[0], : shape[1]].contiguous()


@dataclass(frozen=True)
class Spread:
    """A plume on its way through a field.

    Attributes:
        centre: [T + 1] m along the flow.
        variance: [T + 1] m2 along the flow.
        ln_k: [ny, nx] the field.
        concentration: [ny, nx] at the end.
        velocity: m/d, mean of the pore water.
        own: m, dispersivity that is not the field's: that within cells and v dt/2 of the steps.
    """

    centre: Tensor
    variance: Tensor
    ln_k: Tensor
    concentration: Tensor
    velocity: float
    own: float

    def dispersivity(self, beyond: float = 30.0) -> float:
        """Half the slope of variance over distance beyond some metres, less ``own`` [m]."""
        away = self.centre - self.centre[0]
        far = away > beyond
        x, y = away[far], self.variance[far]
        x, y = x - x.mean(), y - y.mean()
        return (0.5 * (x * y).sum() / x.square().sum()).item() - self.own


def spread(
    site: Site,
    seed: int,
    size: tuple[float, float] = (80.0, 170.0),
    path: float = 100.0,
    variance: float = -1.0,
) -> Spread:
    """A line of tracer across a plan of steady flow, carried ``path`` metres on average.

    Args:
        site: conductivity, its variance and correlation length, porosity and velocity.
        seed: of the field.
        size: of the plan across and along the flow [m].
        path: m.
        variance: of ln K; the site's when negative.
    """
    ny, nx = (round(length / CELL) for length in size)
    ln_k = random_field((ny, nx), CELL, site.variance if variance < 0.0 else variance, site.correlation, seed)
    k = site.conductivity * ln_k.exp()
    grid = dgpde.Grid((1, ny, nx), (1.0, CELL, CELL))
    gradient = site.velocity / DAY * site.porosity / site.conductivity
    sides = {"west": dgpde.HydraulicHead(gradient * nx * CELL), "east": dgpde.HydraulicHead(0.0)}
    flow = dgpde.Richards(grid, dgpde.Saturated(k[None], theta_s=site.porosity), sides)
    with torch.no_grad():
        head = flow.steady(0.0).psi
        times = torch.linspace(0.0, path / site.velocity * DAY, 26, dtype=torch.float64)
        options = dgpde.SolveOptions(dt_fixed=STEP)
        water = flow.solve(head[-1], times, options)
        c0 = torch.zeros(grid.shape, dtype=torch.float64)
        first = round(8.0 / CELL)
        c0[..., first : first + 4] = 1.0
        solute = dgpde.Solute("bromide", *LOCAL)
        done = dgpde.Transport(grid, solute, {"east": dgpde.ZeroGradient()}, "tvd").solve(c0, water)
    x = (torch.arange(nx, dtype=torch.float64) + 0.5) * CELL
    mass = done.concentration.sum((1, 2))
    total = mass.sum(1)
    centre = (mass * x).sum(1) / total
    square = (mass * (x - centre[:, None]).square()).sum(1) / total
    velocity = ((centre[-1] - centre[0]) / (times[-1] - times[0])).item()
    return Spread(
        centre, square, ln_k, done.concentration[-1, 0], velocity * DAY, LOCAL[0] + 0.5 * velocity * STEP
    )


def run(folder: Path, iterations: int | None = None, seeds: int = SEEDS) -> tuple[Estimate, list[Spread]]:
    """Fit the plume, predict its dispersivity, write figure and table to ``folder``.

    Args:
        folder: must be there.
        iterations: most steps of the fit; None for as many as it takes.
        seeds: random fields.
    """
    start = time.perf_counter()
    site = load()
    found = fit(site, rounds=20 if iterations is None else iterations)
    values = found.p.exp()
    error = (values * found.covariance().diagonal().sqrt()).tolist()
    # the points of a date are sums of the same samples
    groups = [site.day.tolist().count(day) for day in site.days]
    blocks = (values * found.block_bootstrap(groups, length=4).diagonal().sqrt()).tolist()
    v, a = values.tolist()
    published = torch.tensor(PUBLISHED, dtype=torch.float64).log()
    with torch.no_grad():
        theirs = fractions(site, published[:, None].expand(-1, site.day.numel())) - site.fraction
    lines: list[Sequence[object]] = [["what", "value", "error_independent", "error_blocks"]]
    lines += [
        ["velocity m/d", v, error[0], blocks[0]],
        ["dispersivity m", a, error[1], blocks[1]],
        ["rmse", found.misfit.square().mean().sqrt().item(), "", ""],
        ["rmse, published", theirs.square().mean().sqrt().item(), "", ""],
    ]
    print(
        f"Cape Cod, {site.day.numel()} mass fractions at days {', '.join(f'{day:.0f}' for day in site.days)}"
    )
    print(f"published: v {PUBLISHED[0]} m/d, A_L {PUBLISHED[1]} m, RMSE {lines[4][1]:.4f}")
    print(
        f"fitted:    v {v:.4f} +- {error[0]:.4f} m/d, A_L {a:.2f} +- {error[1]:.2f} m (in blocks: "
        f"{lines[1][3]:.4f}, {lines[2][3]:.2f}), RMSE {lines[3][1]:.4f}, {found.rounds} steps"
    )
    plumes = []
    for seed in range(seeds):
        plumes.append(spread(site, seed))
        print(
            f"field {seed}: variance of ln K {plumes[-1].ln_k.var():.3f}, v {plumes[-1].velocity:.3f} m/d, "
            f"A_L {plumes[-1].dispersivity():.2f} m",
            flush=True,
        )
        lines.append([f"A_L m, field {seed}", plumes[-1].dispersivity(), "", ""])
    each = torch.tensor([plume.dispersivity() for plume in plumes])
    if seeds > 1:
        print(
            f"A_L of the fields {each.mean():.2f} +- {each.std() / math.sqrt(seeds):.2f} m (one field: +- "
            f"{each.std():.2f}); variance times length {site.variance * site.correlation:.2f} m; measured "
            f"{site.dispersivity} m"
        )
    with (folder / "capecod.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    draw(folder / "capecod.png", site, found, plumes)
    print(f"\ncapecod.png and capecod.csv are in {folder}")
    print(f"{time.perf_counter() - start:.1f} s in all")
    return found, plumes


@torch.no_grad()
def draw(path: Path, site: Site, found: Estimate, plumes: Sequence[Spread]) -> None:
    """The plume's mass along the flow; variances over distance; a field with its plume."""
    with plot.style():
        figure, axes = plot.figure(2, 2, (11, 7))
        mass, growth, field, cloud = axes.flat
        faces = torch.arange(round(LENGTH) + 1) - BEFORE
        fitted = mass_along(site, found.p[:, None])[..., 0]
        theirs = mass_along(site, torch.tensor(PUBLISHED, dtype=torch.float64).log()[:, None])[..., 0]
        for k, day in enumerate(site.days):
            own = site.day == day
            first = k == 0
            mass.scatter(
                site.distance[own],
                site.fraction[own],
                s=16,
                color=plot.OBSERVED,
                label="measured" if first else None,
            )
            mass.plot(faces, fitted[1 + k], color=plot.SIMULATED, lw=1.5, label="fitted" if first else None)
            mass.plot(
                faces, theirs[1 + k], color=plot.NEW, lw=1.0, ls="--", label="published" if first else None
            )
            mass.annotate(f"day {day:.0f}", (float(site.distance[own].mean()) - 45.0, 0.6))
        mass.set_xlim(20.0, 270.0)
        mass.set_xlabel("distance along the flow [m]")
        mass.set_ylabel("mass fraction")
        mass.set_title("bromide at Cape Cod")
        mass.legend(loc="upper left")
        for k, plume in enumerate(plumes):
            away = plume.centre - plume.centre[0]
            # what cells and steps add of their own is taken off
            grown = plume.variance - plume.variance[0] - 2.0 * plume.own * away
            growth.plot(away, grown, color=plot.PRIOR, lw=0.9, label="random fields" if k == 0 else None)
        straight = torch.tensor([0.0, 105.0])
        for slope, colour, what in (
            (site.dispersivity, plot.OBSERVED, f"measured A_L, {site.dispersivity} m"),
            (site.variance * site.correlation, plot.NEW, "variance times correlation length"),
        ):
            growth.plot(straight, 2.0 * slope * straight, color=colour, lw=1.4, ls="--", label=what)
        growth.set_xlabel("distance travelled [m]")
        growth.set_ylabel("variance along the flow [m2]")
        growth.set_title("how plumes grow in fields of the site's statistics")
        growth.legend()
        if plumes:
            maps: Sequence[tuple[Any, Tensor, str, str]] = (
                (field, plumes[0].ln_k, "viridis", "ln K less its mean"),
                (cloud, plumes[0].concentration, "magma_r", "concentration"),
            )
            for ax, values, colours, label in maps:
                edges = [plot.array(CELL * torch.arange(size + 1)) for size in values.shape]
                mesh = ax.pcolormesh(edges[1], edges[0], plot.array(values), cmap=colours, rasterized=True)
                figure.colorbar(mesh, ax=ax, label=label)
                ax.set_aspect("equal")
                ax.set_xlabel("x [m]")
                ax.set_ylabel("y [m]")
            field.set_title("a field of conductivity")
            cloud.set_title("a line of tracer that went through it")
        plot.save(figure, path)
