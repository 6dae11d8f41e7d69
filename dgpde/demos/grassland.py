"""The USCRN model: 1.5 m soil columns under grass at weather stations, from learned parameters to moisture."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import dgpde
from dgpde.demos import crop
from dgpde.demos.soils import AIR_ENTRY, SoilPrior, head_of_moisture
from dgpde.demos.tables import DAY, USCRN_DEPTHS, Uscrn

# Texture is general knowledge of the regions, not data (see the README beside the file): it only centres the prior.
TEXTURES = {
    "AZ_Elgin_5_S": "Sandy Loam",
    "TX_Bronte_11_NNE": "Sandy Loam",
    "PA_Avondale_2_N": "Loam",
    "KY_Versailles_3_NNW": "Silt Loam",
}
FIRST = dt.date(2020, 3, 1)  # after the frost of all four
SPLIT = dt.date(2020, 9, 1)  # the first withheld day
BROKEN = {
    ("KY_Versailles_3_NNW", 4): dt.date(2020, 7, 15)
}  # probe 100 cm: a step of the sensor, not of the soil
LAYER_BOTTOMS = (0.075, 0.15, 0.35, 0.75, 1.50)  # m: one layer around each probe
ROOTS = 0.6  # m, prior
TRANSPIRATION, EVAPORATION = 0.5, 0.35  # prior fractions of reference ET


def cell_sizes() -> list[float]:
    """Cell thicknesses [m] from the bottom up, 1.5 m in all."""
    return [0.075] * 10 + [0.05] * 12 + [0.025] * 4 + [0.02, 0.02, 0.01]


@dataclass(frozen=True)
class Prediction:
    """One run of the model for the s stations."""

    run: dgpde.Solution
    theta: Tensor  # [D, 5, s] water content at the probes, noon of every day
    soil: dict[str, Tensor]  # parameters [5, s], top layer first


class Grassland(nn.Module):
    """Soil and vegetation of the stations as a trainable module: every layer of every station has its own soil.

    Args:
        data: the measurements.
        time_error: of the solver, water content.
    """

    def __init__(self, data: Uscrn, time_error: float = 2e-3) -> None:
        super().__init__()
        stations = len(data.stations)
        self.data = data
        priors = [
            SoilPrior.from_catalogue([TEXTURES[name]], theta_s_bounds=(0.30, 0.55)) for name in data.stations
        ]
        self.prior = SoilPrior(tuple(prior.ranges[0] for prior in priors))
        self.z = nn.Parameter(torch.zeros(stations, 5, 5, dtype=torch.float64))
        # Standardised logarithms of factors on transpiration, evaporation, root depth and root-profile shape.
        self.vegetation = nn.Parameter(torch.zeros(4, stations, dtype=torch.float64))
        self.options = dgpde.SolveOptions(dt_initial=600.0, time_error=time_error)

        self.first = data.days.index(FIRST)
        self.days = data.days[self.first :]
        self.times = torch.arange(len(self.days) + 1, dtype=torch.float64) * DAY
        self.rain = torch.nan_to_num(data.rain[self.first :], nan=0.0)
        self.reference_et = fill(data.reference_et)[self.first :]
        self.growth = growth(fill(data.temperature))[self.first :]
        self.observed = data.theta[self.first :].clone()
        for (station, depth), since in BROKEN.items():
            if station in data.stations:
                self.observed[self.days.index(since) :, depth, data.stations.index(station)] = torch.nan
        self.train_days = torch.arange(1, self.days.index(SPLIT))
        self.later_days = torch.arange(self.days.index(SPLIT), len(self.days))

        self.dz = torch.tensor(cell_sizes(), dtype=torch.float64)
        bottom = torch.flip(torch.cumsum(torch.flip(self.dz, [0]), 0), [0])
        self.edges = (bottom - self.dz, bottom)
        centre_depth = bottom - self.dz / 2
        layers = torch.tensor(LAYER_BOTTOMS, dtype=torch.float64)
        self.layer_of_cell = torch.bucketize(centre_depth, layers).clamp(max=4)
        probes = torch.tensor(USCRN_DEPTHS, dtype=torch.float64)
        self.probe_weights = linear_weights(centre_depth, probes)  # [5, nz]
        self.cell_weights = linear_weights(
            probes, centre_depth.clamp(USCRN_DEPTHS[0], USCRN_DEPTHS[-1])
        )  # [nz, 5]

    def factors(self) -> Tensor:
        """Transpiration and evaporation as fractions of reference ET, root depth [m], root shape: [4, s]."""
        spread = torch.tensor([0.4, 0.4, 0.3, 0.5], dtype=torch.float64)[:, None]
        centre = torch.tensor([TRANSPIRATION, EVAPORATION, ROOTS, 1.0], dtype=torch.float64)[:, None]
        return centre * torch.exp(spread * self.vegetation)

    def predict(self, progress: bool = False) -> Prediction:
        """Run all stations from the first day to the last."""
        soil = {name: value.T for name, value in self.prior.soil(self.z).items()}  # [5, s]
        cells = {name: value[self.layer_of_cell] for name, value in soil.items()}  # [nz, s]
        transpiration, evaporation, depth, shape = self.factors()
        density = torch.stack(
            [crop.root_density(*self.edges, d[None], s)[0] for d, s in zip(depth, shape, strict=True)], dim=1
        )
        first = self.observed[0]
        if bool(torch.isnan(first).any()):
            raise ValueError("theta has gaps on the first day, which the run starts from; choose another day")
        flow = dgpde.Richards(
            dgpde.Grid.columns(n=len(self.data.stations), dz=self.dz),
            dgpde.VanGenuchten(**cells, air_entry=AIR_ENTRY),
            boundaries={
                "top": dgpde.Atmosphere(
                    precipitation=dgpde.Series(self.rain / DAY),
                    evaporation=dgpde.Series(evaporation * self.reference_et / DAY),
                    psi_min=-150.0,
                    ponding_max=0.01,
                ),
                "bottom": dgpde.FreeDrainage(),
            },
            sources=[
                dgpde.RootUptake(
                    transpiration=dgpde.Series(transpiration * self.growth * self.reference_et / DAY),
                    density=density,
                    response=dgpde.Feddes(h4=-150.0),
                    omega_c=0.7,
                )
            ],
            specific_storage=1e-5,
        )
        psi0 = head_of_moisture(self.cell_weights @ first, cells)
        run = flow.solve(psi0, self.times, options=self.options, progress=progress)
        # A daily mean is compared with the mean of its two midnights.
        theta = torch.einsum("dk,tkc->tdc", self.probe_weights, run.theta)
        return Prediction(run, 0.5 * (theta[1:] + theta[:-1]), soil)


def linear_weights(points: Tensor, at: Tensor) -> Tensor:
    """Weights [m, k] of linear interpolation at `at` [m] between `points` [k], in any order, all inside their range."""
    order = points.argsort()
    ordered = points[order]
    upper = torch.searchsorted(ordered, at).clamp(1, len(points) - 1)
    low, high = ordered[upper - 1], ordered[upper]
    share = (at - low) / (high - low)
    rows = torch.arange(len(at))
    weights = torch.zeros(len(at), len(points), dtype=torch.float64)
    weights[rows, order[upper - 1]] = 1.0 - share
    weights[rows, order[upper]] = share
    return weights


def fill(series: Tensor) -> Tensor:
    """A daily series [D, s] with gaps filled by the value of the day before (the first day by the day after)."""
    filled = series.clone()
    for day in range(1, len(filled)):
        filled[day] = torch.where(torch.isnan(filled[day]), filled[day - 1], filled[day])
    for day in range(len(filled) - 2, -1, -1):
        filled[day] = torch.where(torch.isnan(filled[day]), filled[day + 1], filled[day])
    return filled


def growth(temperature: Tensor, days: int = 20, dormant: float = 5.0, full: float = 15.0) -> Tensor:
    """Activity of grass [D, s], 0 to 1, linear in the mean temperature [C] of the last `days` days."""
    total = torch.cumsum(torch.cat([torch.zeros_like(temperature[:1]), temperature]), dim=0)
    last = torch.arange(1, len(temperature) + 1)
    first = (last - days).clamp(min=0)
    mean = (total[last] - total[first]) / (last - first)[:, None]
    return ((mean - dormant) / (full - dormant)).clamp(0.0, 1.0)
