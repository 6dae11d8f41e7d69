"""Measured soil moisture: a learned closure inside the physics, calibrated physics, and an LSTM.

    python -m benchmarks.learning.stations

Four stations of the U.S. Climate Reference Network in 2020 (`uscrn-soil-moisture`): water content of every day at 5,
10, 20, 50 and 100 cm, rain, temperature, reference evapotranspiration of Hargreaves. The model is that of the
demonstration (dgpde/demos/grassland.py): 1.5 m of soil in five layers, grass, free drainage. One record trains all four
stations at once. Known to all: weather, the texture word of a station, the moisture of the first day (1 March).

- calibrated physics: van Genuchten-Mualem in every layer (a station's own values and what a layer departs from them),
  factors on transpiration and evaporation, root depth and shape; where Feddes' stress begins and ends, which all
  stations share;
- hybrid: a `NeuralStress` in the place of Feddes, shared by all stations, its weights learned with the rest;
- LSTM: weather, first day and texture in, five water contents out, one network for all stations; width and number of
  steps by the last fifth of the record.

All numbers of the first two have standard normal priors; a reading minus the model has a deviation of 0.03 against
which they are weighed, and ten neighbouring days count as one (as in the demonstration).

- length of the record: 30, 60, 120, 184 days from 1 March, tested on 1 September to 31 December: all days, days in
  dry spells (less than 5 mm in the last 10 days), days in storms (15 mm or more on that day or the day before);
- unseen depths: trained on 5, 20 and 100 cm of the longest record, tested on 10 and 50 cm;
- unseen sites: trained on three stations, tested on the fourth, each in its turn.

Errors are root mean squares of water content, for every station and seed; a seed is the starts of all three. Nothing
was tuned on the test days; which four of the file's eight stations are simulated was decided by the demonstration.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import dgpde
from benchmarks.learning.optimise import minimise
from benchmarks.learning.record import Row, arguments, spread, table, write
from dgpde.demos import crop
from dgpde.demos.grassland import (
    EVAPORATION,
    LAYER_BOTTOMS,
    ROOTS,
    TEXTURES,
    TRANSPIRATION,
    Grassland,
    linear_weights,
)
from dgpde.demos.score import rmse
from dgpde.demos.soils import AIR_ENTRY, NAMES, head_of_moisture
from dgpde.demos.tables import DAY, USCRN_DEPTHS, load_uscrn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = (30, 60, 120, 184)
LONGEST = LENGTHS[-1]
WAYS = ("hybrid", "calibrated physics", "LSTM")
NOISE, CORRELATED = 0.03, 10.0
EVALUATIONS = 100
UNITS = 8
HEADS = (-0.05, -0.2, -4.0, -150.0)  # prior of the response to drought
KEPT = (0, 2, 4)  # depths whose record is given where others are withheld
WITHHELD = (1, 3)
SITES, LAYERS = len(TEXTURES), len(LAYER_BOTTOMS)
OWN = SITES * 5 + SITES * LAYERS * 5 + 4 + 4 * SITES + 2  # numbers of the calibrated physics


@cache
def site() -> Grassland:
    """The measurements, the grid and the priors."""
    return Grassland(load_uscrn(list(TEXTURES)))


@dataclass(frozen=True)
class Record:
    """What is given: days 1 to ``days`` at the stations and depths, and the first day at the depths."""

    days: int
    depths: tuple[int, ...] = tuple(range(len(USCRN_DEPTHS)))
    stations: tuple[int, ...] = tuple(range(SITES))

    def observed(self) -> Tensor:
        """[days + 1, 5, 4], nan where it is not given."""
        found = torch.full_like(site().observed[: self.days + 1], torch.nan)
        for depth in self.depths:
            for station in self.stations:
                found[:, depth, station] = site().observed[: self.days + 1, depth, station]
        return found

    def first(self, depths: Tensor) -> Tensor:
        """Water content of the first day [m, 4] at depths [m], between those that are given."""
        given = torch.tensor([USCRN_DEPTHS[k] for k in self.depths], dtype=torch.float64)
        weights = linear_weights(given, depths.clamp(float(given[0]), float(given[-1])))
        return weights @ site().observed[0, list(self.depths)]


# ---- physics -------------------------------------------------------------------------------------------------------


@cache
def pattern() -> dgpde.NeuralStress:
    """The network whose weights are put in from rows of x."""
    return dgpde.NeuralStress(HEADS, units=UNITS, seed=0)


def response_of(x: Tensor) -> Any:
    """The response of each column, by the numbers that follow the soil's and the vegetation's in every row."""
    rest = x[:, OWN:].repeat_interleave(SITES, 0)
    if rest.shape[1] == 0:
        stress = x[:, OWN - 2 : OWN].repeat_interleave(SITES, 0)
        h4 = HEADS[3] * torch.sigmoid(stress[:, 1] + 2.0)
        h3 = -0.4 + (h4 + 0.4) * torch.sigmoid(stress[:, 0] - 3.0)
        return dgpde.Feddes(*HEADS[:2], h3, h3, h4)
    weights = {}
    for name, base in pattern().named_parameters():
        part, rest = rest[:, : base.numel()], rest[:, base.numel() :]
        weights[name] = base.detach() + part.reshape(rest.shape[0], *base.shape)
    first, last = (math.log(-HEADS[k]) for k in (0, 3))
    psi = -torch.exp(torch.linspace(first, last, 96, dtype=torch.float64))
    call = torch.func.vmap(lambda own: torch.func.functional_call(pattern(), own, (psi,))[0])
    values = torch.nn.functional.pad(call(weights)[:, 1:-1], (1, 1))
    return dgpde.TabulatedStress(values, (HEADS[0], HEADS[3]), torch.arange(values.shape[0]))


def solve(x: Tensor, records: list[Record], days: int) -> Tensor:
    """Water content [days, 5, rows, 4] of the first days, a record for each row of x."""
    model, rows = site(), x.shape[0]
    part = x[:, :OWN].split([SITES * 5, SITES * LAYERS * 5, 4, 4 * SITES, 2], 1)
    own = part[0].reshape(rows, SITES, 1, 5) + 0.7 * part[1].reshape(rows, SITES, LAYERS, 5)
    soil = model.prior.soil(own.transpose(0, 1))  # [stations, rows, layers]
    cells = {name: soil[name].permute(2, 1, 0).flatten(1)[model.layer_of_cell] for name in NAMES}
    factors = part[2].reshape(rows, 4, 1) + 0.5 * part[3].reshape(rows, 4, SITES)
    spreads = torch.tensor([0.4, 0.4, 0.3, 0.5], dtype=torch.float64)[:, None]
    centre = torch.tensor([TRANSPIRATION, EVAPORATION, ROOTS, 1.0], dtype=torch.float64)[:, None]
    transpiration, evaporation, depth, shape = (centre * torch.exp(spreads * factors)).unbind(1)
    density = crop.root_density(*model.edges, depth.flatten(), shape.reshape(-1, 1)).T

    def series(values: Tensor, factor: Tensor) -> dgpde.Series:
        return dgpde.Series((values[:days, None] * factor).flatten(1) / DAY)

    flow = dgpde.Richards(
        dgpde.Grid.columns(rows * SITES, model.dz),
        dgpde.VanGenuchten(**cells, air_entry=AIR_ENTRY),
        {
            "top": dgpde.Atmosphere(
                series(model.rain, torch.ones_like(evaporation)),
                series(model.reference_et, evaporation),
                psi_min=-150.0,
                ponding_max=0.01,
            ),
            "bottom": dgpde.FreeDrainage(),
        },
        [
            dgpde.RootUptake(
                series(model.growth * model.reference_et, transpiration),
                density=density,
                response=response_of(x),
                omega_c=0.7,
            )
        ],
        specific_storage=1e-5,
    )
    bottoms = model.edges[1]
    start = torch.stack([record.first(bottoms - model.dz / 2) for record in records], 1).flatten(1)
    options = dgpde.SolveOptions(dt_initial=600.0, time_error=2e-3, on_failure="return")
    run = flow.solve(head_of_moisture(start, cells), model.times[: days + 1], options)
    theta = torch.einsum("dk,tkc->tdc", model.probe_weights, run.theta)
    return (0.5 * (theta[1:] + theta[:-1])).unflatten(-1, (rows, SITES))


def with_physics(way: str, records: list[Record], seeds: range) -> list[Tensor]:
    """Water content of the whole year [D, 5, 4] after learning, for every record and seed (that runs faster).

    The records must have the same length.
    """
    rows = [record for record in records for _ in seeds]
    days = records[0].days
    observed = torch.stack([record.observed()[1:] for record in rows], 2)
    seen = ~torch.isnan(observed)
    target = torch.where(seen, observed, 0.0)
    count = OWN + (sum(w.numel() for w in pattern().parameters()) if way == "hybrid" else 0)
    draws = [torch.Generator().manual_seed(400 + seed) for seed in seeds]
    starts = torch.stack([0.2 * torch.randn(count, generator=draw, dtype=torch.float64) for draw in draws])

    def loss(x: Tensor) -> Tensor:
        wrong = torch.where(seen, solve(x, rows, days + 1)[1:] - target, 0.0) / NOISE
        return 0.5 * wrong.square().sum((0, 1, 3)) / CORRELATED + 0.5 * x.square().sum(1)

    found = minimise(loss, starts.repeat(len(records), 1), EVALUATIONS)
    with torch.no_grad():
        return list(solve(found.x, rows, len(site().days)).unbind(2))


# ---- LSTM ----------------------------------------------------------------------------------------------------------


class Recurrent(torch.nn.Module):
    """An LSTM from features [stations, days, f] to water contents [stations, days, m]."""

    def __init__(self, features: int, width: int, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(features, width, batch_first=True)
        self.head = torch.nn.Linear(width, mean.numel())
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        """Water contents of every day."""
        return self.mean + self.scale * self.head(self.lstm(x)[0])


def recurrent(record: Record, seed: int, steps: int = 150) -> Tensor:
    """Water content of the whole year [D, 5, 4]; depths that are not given lie between those that are."""
    model = site()
    given = torch.tensor([USCRN_DEPTHS[k] for k in record.depths], dtype=torch.float64)
    rain, demand, warm = model.rain * 1e3, model.reference_et * 1e3, model.growth
    known = record.first(given).T  # [4, m]
    texture = torch.tensor(
        [[math.log10(ranges["k_sat"].start) + 5.0, ranges["n"].start] for ranges in model.prior.ranges],
        dtype=torch.float64,
    )
    fixed = torch.cat([10.0 * (known - 0.25), texture], 1)
    weather = torch.stack([torch.log1p(rain), demand - 4.0, warm], -1).transpose(0, 1)
    x = torch.cat([weather, fixed[:, None].expand(-1, len(model.days), -1)], -1).float()
    observed = record.observed()[:, list(record.depths)].permute(2, 0, 1).float()  # [4, days + 1, m]
    split = record.days + 1 - max(3, record.days // 5)

    def error(theta: Tensor, first: int, last: int) -> Tensor:
        seen = ~torch.isnan(observed[:, first:last])
        return (theta[:, first:last] - observed[:, first:last])[seen].square().mean()

    readings = observed[list(record.stations), 1:split]
    mean, scale = readings.nanmean((0, 1)), readings.flatten()[~readings.flatten().isnan()].std()
    best, least = None, math.inf
    for width in (16, 48):
        torch.manual_seed(seed)
        network = Recurrent(x.shape[2], width, mean, scale)
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.02, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            optimiser.zero_grad()
            theta = network(x[:, : record.days + 1])
            error(theta, 1, split).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            if step % 5 == 4:
                later = error(theta.detach(), split, record.days + 1).item()
                if later < least:
                    best, least = copy.deepcopy(network), later
            optimiser.step()
            schedule.step()
    assert best is not None
    with torch.no_grad():
        theta = best(x).double()
    between = linear_weights(given, torch.tensor(USCRN_DEPTHS, dtype=torch.float64))
    return torch.einsum("dm,stm->tds", between, theta)


# ---- errors --------------------------------------------------------------------------------------------------------


@cache
def kinds_of_days() -> dict[str, Tensor]:
    """The test days by what the weather was, [D, 4] each."""
    rain = site().rain
    padded = torch.cat([torch.zeros(10, SITES, dtype=torch.float64), rain])
    last_ten = padded.unfold(0, 10, 1)[1:].sum(-1)
    pair = torch.maximum(rain, torch.cat([torch.zeros_like(rain[:1]), rain[:-1]]))
    later = (torch.arange(len(rain)) >= int(site().later_days[0]))[:, None].expand_as(rain)
    return {
        "later": later,
        "later, dry spells": later & (last_ten < 5e-3),
        "later, storms": later & (pair >= 15e-3),
    }


def errors_of(theta: Tensor, depths: tuple[int, ...], station: int, days: dict[str, Tensor]) -> Row:
    """Root mean square errors of a station at some depths, on several sets of days."""
    at = list(depths)
    return {
        name: rmse(
            theta[chosen[:, station]][:, at, station], site().observed[chosen[:, station]][:, at, station]
        )
        for name, chosen in days.items()
    }


def predictions(way: str, records: list[Record], seeds: range) -> list[Tensor]:
    """[D, 5, 4] of every record and seed, records first."""
    if way == "LSTM":
        return [recurrent(record, seed) for record in records for seed in seeds]
    return with_physics(way, records, seeds)


def learn(way: str, length: int, seeds: range) -> dict[str, list[Row]]:
    """Errors at one length of the record; at the longest also of unseen depths and sites."""
    whole, depths = Record(length), Record(length, KEPT)
    folds = [Record(length, stations=tuple(k for k in range(SITES) if k != left)) for left in range(SITES)]
    records = [whole, depths, *folds] if length == LONGEST else [whole]
    found = predictions(way, records, seeds)
    per = len(seeds)
    everywhere, later = range(SITES), kinds_of_days()
    rows = {
        f"{length} days": [
            errors_of(theta, whole.depths, s, later) for theta in found[:per] for s in everywhere
        ]
    }
    if length == LONGEST:
        year = (torch.arange(len(site().days)) > 0)[:, None].expand(-1, SITES)
        days = {"record": year & ~later["later"], "later": later["later"]}
        rows["unseen depths"] = [
            errors_of(theta, WITHHELD, s, days) for theta in found[per : 2 * per] for s in everywhere
        ]
        rows["unseen sites"] = [
            errors_of(theta, whole.depths, left, days)
            for left in everywhere
            for theta in found[(2 + left) * per : (3 + left) * per]
        ]
    return rows


def last_reading(length: int) -> list[Row]:
    """Errors of the record's last day for ever."""
    days = site().observed[1 : length + 1]
    last = days[0]
    for day in days:
        last = torch.where(torch.isnan(day), last, day)
    theta = last.expand_as(site().observed)
    return [errors_of(theta, tuple(range(5)), s, kinds_of_days()) for s in range(SITES)]


def draw(found: dict[str, dict[str, list[Row]]]) -> Figure:
    """Errors over the length of the record, and where nothing was measured: medians and ranges."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), sharey=True)
    kinds = tuple(kinds_of_days())
    for axis, name in zip(axes, kinds, strict=False):
        for k, (way, sets) in enumerate(found.items()):
            shown = [spread(sets[f"{length} days"])[name] for length in LENGTHS]
            places = [length * (1.0 + 0.03 * (k - 1.5)) for length in LENGTHS]
            middle = [entry["median"] for entry in shown]
            reach = [
                [abs(entry[end] - m) for entry, m in zip(shown, middle, strict=True)]
                for end in ("least", "largest")
            ]
            axis.errorbar(places, middle, reach, fmt="o-", capsize=2, label=way)
        axis.set(xscale="log", xlabel="days of record", title=name)
        axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
        axis.minorticks_off()
    elsewhere = ("unseen depths", "unseen sites")
    for k, way in enumerate(WAYS):
        for place, name in enumerate(elsewhere):
            values = [row["later"] for row in found[way][name]]
            axes[3].plot([place + 0.15 * (k - 1)] * len(values), values, "o", color=f"C{k}", alpha=0.6)
    axes[3].set_xticks(range(2), elsewhere)
    axes[3].set(title="later, 184 days", xlim=(-0.5, 1.5))
    axes[0].set(ylabel="error of water content")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def main() -> None:
    """Every way at every length: tables, record, figure."""
    seeds = range(arguments(__doc__, seeds=3).parse_args().seeds)
    record: dict[str, Any] = {}
    found: dict[str, dict[str, list[Row]]] = {}
    for way in WAYS:
        began = time.process_time()
        found[way] = {}
        for length in LENGTHS:
            found[way] |= learn(way, length, seeds)
        seconds = time.process_time() - began
        for name, rows in found[way].items():
            print(table(f"{way}, {name}", rows), flush=True)
        record[way] = {name: {"spread": spread(rows), "rows": rows} for name, rows in found[way].items()}
        record[way]["processor seconds"] = seconds
    found["last reading"] = {f"{length} days": last_reading(length) for length in LENGTHS}
    record["last reading"] = {
        name: {"spread": spread(rows), "rows": rows} for name, rows in found["last reading"].items()
    }
    write("stations", record, draw(found))


if __name__ == "__main__":
    main()
