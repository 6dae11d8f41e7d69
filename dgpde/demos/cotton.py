"""The Maricopa model: 2 m soil columns under cotton, from learned soil and crop parameters to moisture."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import dgpde
from dgpde.demos import crop
from dgpde.demos.soils import AIR_ENTRY, NAMES, SoilPrior, head_of_moisture, logit
from dgpde.demos.tables import DAY, Maricopa

PLANTING = dt.date(2018, 4, 20)
KCB = (0.15, 1.13, 0.52)  # initial, mid-season, end: values used by the experiment's authors
STAGES = (32, 47, 37, 35)  # days
FIRST_ROOTS, LAST_ROOTS = 0.18, 1.0  # m
CROP_HEIGHT = 1.2  # m, full-grown cotton (FAO-56, table 12: 1.2 to 1.5 m)
LAYER_BOTTOMS = (
    0.20,
    0.40,
    0.80,
    1.20,
    1.60,
    2.00,
)  # m: the layers of the limits in plots.csv, the first cut in two
LIMITS_OF_LAYER = (0, 0, 1, 2, 3, 4)  # which of the limits in plots.csv belongs to each
# Cotton of the HYDRUS database (Taylor and Ashcroft 1972). Demand lasts half a day here, so the daily rates at which
# stress begins are doubled.
FEDDES = dgpde.Feddes(
    h1=-0.10,
    h2=-0.25,
    h3_high=-2.0,
    h3_low=-6.0,
    h4=-140.0,
    rate_high=2 * 5e-3 / DAY,
    rate_low=2 * 1e-3 / DAY,
)
ROOT_PEAK = 0.2  # prior of where roots are densest, as a part of their depth
STRESS = 0.7  # critical stress index of root uptake in the prior; 1 is no compensation (Jarvis 1989)
READING = 0.20  # m, thickness of the layer that one neutron reading stands for


def cell_sizes() -> list[float]:
    """Cell thicknesses [m] from the bottom up: 10 cm below 1.2 m, 5 cm above, finer in the top 10 cm."""
    return [0.10] * 8 + [0.05] * 22 + [0.03, 0.03, 0.02, 0.01, 0.01]


@dataclass(frozen=True)
class Split:
    """What the training sees. Index 0 of the dates is the initial profile, which nobody has to predict."""

    train_plots: Tensor  # [a] indices
    new_plots: Tensor  # [b] indices
    train_dates: Tensor  # [r] indices into the reading dates, the initial one left out
    later_dates: Tensor  # [s]

    @classmethod
    def draw(
        cls, n_plots: int, n_dates: int, n_new: int = 12, n_train_dates: int = 13, seed: int = 2018
    ) -> Split:
        """Withhold `n_new` plots at random and every date after the first `n_train_dates`."""
        order = torch.randperm(n_plots, generator=torch.Generator().manual_seed(seed))
        return cls(
            train_plots=order[n_new:].sort().values,
            new_plots=order[:n_new].sort().values,
            train_dates=torch.arange(1, n_train_dates),
            later_dates=torch.arange(n_train_dates, n_dates),
        )


@dataclass(frozen=True)
class Prediction:
    """One run of the model for c columns."""

    run: dgpde.Solution
    plots: Tensor  # [c] indices of the plots
    theta: Tensor  # [R, 10, c] water content at the readings
    soil: dict[str, Tensor]  # parameters [6 layers, c], top layer first
    precipitation: Tensor  # [T, c] m/s, rain and irrigation
    evaporation: Tensor  # [T, 1] m/s, potential
    transpiration: Tensor  # [T, 1] m/s, potential


class Cotton(nn.Module):
    """Soil and crop of the Maricopa field as a trainable module.

    A layer's soil is prior + map(what is known of the plot) + the plot's own offset. The offsets have a prior of
    mean zero, so whatever the map can explain costs less when the map explains it; plots without training data
    have the map alone.

    Args:
        data: the measurements.
        split: which plots may have an offset, and whose statistics scale the features.
        textures: classes of the catalogue whose mean is the prior of every layer.
        offset_spread: standard deviation of an offset, in standard deviations of the prior.
        time_error: of the solver, water content.
    """

    def __init__(
        self,
        data: Maricopa,
        split: Split,
        textures: tuple[str, ...] = ("Sandy Loam", "Sandy Clay Loam"),
        offset_spread: float = 0.7,
        time_error: float = 1e-2,
    ) -> None:
        super().__init__()
        self.data = data
        self.split = split
        self.offset_spread = offset_spread
        self.prior = SoilPrior.from_catalogue(textures)
        self.features = known_of_plots(data, split.train_plots)
        self.map = dgpde.ParameterNet(self.features.shape[-1], self.prior.ranges[0], hidden=(24,))
        self.offset = nn.Parameter(
            torch.zeros(len(split.train_plots), len(LAYER_BOTTOMS), len(NAMES), dtype=torch.float64)
        )
        # Standardised: logarithms of the factors on Kcb, evaporation and final root depth; logits of the peak of the
        # root profile and of the critical stress index of root uptake.
        self.crop = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        # A half day takes some 10 steps. An optimiser may try a soil on which the solver crawls: such a column is given
        # up, and counted.
        self.options = dgpde.SolveOptions(
            dt_initial=600.0, time_error=time_error, max_steps=500, on_failure="return"
        )

        self.first = data.day(data.dates[0])
        self.n_days = data.day(data.dates[-1]) - self.first
        half_days = torch.arange(2 * self.n_days + 1, dtype=torch.float64)
        self.times = half_days * (DAY / 2)  # s since 06:00 of the first reading
        self.reading_steps = [2 * (data.day(date) - self.first) for date in data.dates]
        self.dz = torch.tensor(cell_sizes(), dtype=torch.float64)
        bottom_edge = torch.flip(torch.cumsum(torch.flip(self.dz, [0]), 0), [0])
        self.edges = (bottom_edge - self.dz, bottom_edge)  # depths of the upper and lower edges [nz]
        centre = bottom_edge - self.dz / 2
        bottoms = torch.tensor(LAYER_BOTTOMS, dtype=torch.float64)
        self.layer_of_cell = torch.bucketize(centre, bottoms)
        self.reading_of_cell = torch.clamp((centre / READING).long(), max=9)
        member = nn.functional.one_hot(self.reading_of_cell, 10).T.to(torch.float64)
        self.reading_weights = member * self.dz / READING  # [10, nz]

    def crop_factors(self) -> Tensor:
        """Factors on Kcb, soil evaporation and final root depth, each 1 in the prior."""
        spread = torch.tensor([0.15, 0.50, 0.30], dtype=torch.float64)
        return torch.exp(spread * self.crop[:3])

    def root_peak(self) -> Tensor:
        """Where roots are densest, as a part of their depth."""
        return torch.sigmoid(logit(ROOT_PEAK) + self.crop[3])

    def stress_index(self) -> Tensor:
        """Critical stress index omega_c, below which roots in wet layers no longer make up for those in dry ones."""
        return torch.sigmoid(logit(STRESS) + self.crop[4])

    def demand(self) -> tuple[Tensor, Tensor, Tensor]:
        """Potential evaporation and transpiration [T] m/s, root density [T, nz] 1/m."""
        days = slice(self.first, self.first + self.n_days)
        kcb_factor, evaporation_factor, root_factor = self.crop_factors().unbind()
        since = torch.tensor([(d - PLANTING).days for d in self.data.days[days]], dtype=torch.float64)
        table = crop.kcb_curve(since, KCB, STAGES)
        kcb = kcb_factor * table
        height = CROP_HEIGHT * (torch.cummax(table, 0).values / KCB[1])
        kc_max = crop.kc_maximum(kcb, self.data.rh_min[days], self.data.wind_2m[days], height)
        ke = evaporation_factor * crop.evaporation_coefficient(kcb, kc_max, height)
        depth = crop.root_depth(table, FIRST_ROOTS, LAST_ROOTS * root_factor, KCB[0], KCB[1])
        density = crop.triangular_root_density(*self.edges, depth, self.root_peak())
        et = self.data.reference_et[days] / DAY  # m/s, mean of the day
        return (
            self.daytime(ke * et),
            self.daytime(kcb * et),
            density.repeat_interleave(2, 0),
        )

    def daytime(self, mean: Tensor) -> Tensor:
        """Spread a daily mean [D, ...] over the 12 hours from 06:00 to 18:00; the nights are zero: [2 D, ...]."""
        return torch.stack([2.0 * mean, torch.zeros_like(mean)], dim=1).flatten(0, 1)

    def coordinates(self, plots: Tensor, own: bool) -> Tensor:
        """Standardised soil coordinates z [c, 6 layers, 5] of plots, with their own offsets or by the map alone."""
        z = self.map.coordinates(self.features[plots])
        if not own:
            return z
        row = torch.full((len(self.data.plots),), -1, dtype=torch.long)
        row[self.split.train_plots] = torch.arange(len(self.split.train_plots))
        if bool((row[plots] < 0).any()):
            raise ValueError("plots without training data have no offset of their own; use own=False")
        return z + self.offset_spread * self.offset[row[plots]]

    def predict(self, plots: Tensor, z: Tensor, save: str = "readings", progress: bool = False) -> Prediction:
        """Run the columns of `plots` [c] with soil coordinates z [c, 6, 5].

        `save`: `readings` keeps psi at the reading dates only, `all` at every half day.
        """
        data = self.data
        soil = {name: value.T for name, value in self.prior.soil(z).items()}  # [6, c]
        cells = {name: value[self.layer_of_cell] for name, value in soil.items()}  # [nz, c]
        evaporation, transpiration, density = (x.unsqueeze(-1) for x in self.demand())
        days = slice(self.first, self.first + self.n_days)
        water = (data.rain[days, None] + data.irrigation[days][:, plots]) / DAY
        precipitation = self.daytime(water)
        psi0 = head_of_moisture(data.theta[0][self.reading_of_cell][:, plots], cells)
        flow = dgpde.Richards(
            dgpde.Grid.columns(n=len(plots), dz=self.dz),
            dgpde.VanGenuchten(**cells, air_entry=AIR_ENTRY),
            boundaries={
                "top": dgpde.Atmosphere(
                    precipitation=dgpde.Series(precipitation),
                    evaporation=dgpde.Series(evaporation),
                    psi_min=-150.0,
                    ponding_max=0.05,
                ),
                "bottom": dgpde.FreeDrainage(),
            },
            sources=[
                dgpde.RootUptake(
                    transpiration=dgpde.Series(transpiration),
                    density=dgpde.Series(density),
                    response=FEDDES,
                    omega_c=self.stress_index(),
                )
            ],
            specific_storage=1e-5,
        )
        keep = "all" if save == "all" else self.reading_steps
        run = flow.solve(psi0, self.times, options=self.options, save=keep, progress=progress)
        theta = run.theta if save != "all" else run.theta[self.reading_steps]
        return Prediction(
            run,
            plots,
            torch.einsum("dk,rkc->rdc", self.reading_weights, theta),
            soil,
            precipitation,
            evaporation,
            transpiration,
        )


def known_of_plots(data: Maricopa, train_plots: Tensor) -> Tensor:
    """What is known of each layer of each plot before any run: [n, 6, features], scaled by the training plots.

    Of the layer: lower limit, drained upper limit, moisture of the first profile; of the plot: the same for all
    layers, and the position; and which layer it is.
    """
    middles = [(a + b) / 2 for a, b in zip((0.0, *LAYER_BOTTOMS), LAYER_BOTTOMS, strict=False)]
    inside = [(data.depths - m).abs() < (b - m) for m, b in zip(middles, LAYER_BOTTOMS, strict=True)]
    first = torch.stack([data.theta[0][rows].mean(dim=0) for rows in inside], dim=1)  # [n, 6]
    limits = list(LIMITS_OF_LAYER)
    layers = torch.stack(
        [data.lower_limit[:, limits], data.upper_limit[:, limits], first], dim=2
    )  # [n, 6, 3]
    layers = (layers - layers[train_plots].mean(dim=0)) / layers[train_plots].std(dim=0)
    position = data.position / data.position[train_plots].std(dim=0)
    count = len(LAYER_BOTTOMS)
    plot = torch.cat([layers.flatten(1), position], dim=1)[:, None, :].expand(-1, count, -1)
    which = torch.eye(count, dtype=torch.float64).expand(len(data.plots), count, count)
    return torch.cat([layers, plot, 2.0 * which], dim=2)
