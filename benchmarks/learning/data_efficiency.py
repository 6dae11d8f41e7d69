"""How much data: a learned soil inside the physics, calibrated physics, and an LSTM, by length of the record.

    python -m benchmarks.learning.data_efficiency

The truth is 1.5 m of bimodal soil (Durner 1994) under a crop whose roots make up in wet layers for dry ones (Jarvis
1989, omega_c = 0.5), four years of drawn daily weather. What is measured: daily water content at 5, 20 and 50 cm,
noise 0.01, for 10 days to 3 years from day 60 on. The last year is the test: 60 summer days of it are without rain,
three of its autumn days bring 90 mm; nothing like either is in the record. Known to all: rain and demand of every
day; to the models with physics also the uniform head of -1 m on day 0, root depth, free drainage, and the split of
the demand.

- hybrid: the learned soil of `learned_soil` inside the solver;
- calibrated physics: van Genuchten-Mualem in its place;
- LSTM: rain and demand in, the three water contents out; width, number of steps by the last fifth of the record.
  What is asked of other depths is interpolated from its three.

Neither of the first two knows of the compensation: they have the stress of Feddes, whose dry end and its beginning
are learned with the soil. All numbers of theirs have a normal prior; of two starts the better fit counts. A seed is
a weather, a noise, and starts. Errors are root mean squares over the test year; drainage, evapotranspiration and
storage were never measured. Only the truth has 120 cells; the models have 30. Nothing was tuned on these seeds.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import dgpde
from benchmarks.learning.learned_soil import COUNT, OWN, curves, soil_of
from benchmarks.learning.optimise import minimise
from benchmarks.learning.record import Row, arguments, spread, table, write
from benchmarks.learning.weather import DAY, rain_and_evaporation
from dgpde.soil.roughness import bends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH, FINE, CELLS = 1.5, 120, 30
BEFORE, RECORD, TEST = 60, 1095, 365  # days
LENGTHS = (10, 30, 90, 365, 1095)
SENSORS, UNSEEN = (0.05, 0.2, 0.5), (0.1, 0.35, 0.8)  # m below the surface
NOISE = 0.01
ROOTS, SOIL_PART = 0.8, 0.25  # m; part of the demand that the soil surface gets
EVALUATIONS, STARTS = 120, 2
STRESS = 2  # numbers of the response to drought
WAYS = ("hybrid", "calibrated physics", "LSTM")
SHOWN = ("theta", "theta, unseen depths", "drainage mm/d", "evapotranspiration mm/d", "storage mm")


@cache
def weather(seed: int) -> tuple[Tensor, Tensor]:
    """Rain and demand [days] m/s; the last year has the drought and the storms."""
    days = BEFORE + RECORD + TEST
    rain, demand = rain_and_evaporation(days, seed=seed, wet=0.3, depth=0.009, demand=0.003)
    first = BEFORE + RECORD
    middle = first - first % 365 + (365 if first % 365 > 150 else 0) + 150  # the next day 150 of a year
    rain[middle : middle + 60] = 0.0
    for day in (100, 115, 116):
        rain[middle + day] = 0.09 / DAY
    return rain, demand


def sizes(nz: int) -> Tensor:
    """Heights of the cells from the bottom up [nz] m, five times finer at the top."""
    weight = torch.linspace(5.0, 1.0, nz, dtype=torch.float64)
    return DEPTH * weight / weight.sum()


def solve(
    soil: dgpde.Soil, seeds: list[int], nz: int, days: int, roots: dict[str, Any], time_error: float = 2e-3
) -> dgpde.Solution:
    """A column for each entry of seeds."""
    series = [weather(seed) for seed in seeds]
    rain, demand = (torch.stack([pair[k][:days] for pair in series], 1) for k in (0, 1))
    flow = dgpde.Richards(
        dgpde.Grid.columns(len(seeds), sizes(nz)),
        soil,
        boundaries={
            "top": dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(SOIL_PART * demand), ponding_max=0.02),
            "bottom": dgpde.FreeDrainage(),
        },
        sources=[dgpde.RootUptake(dgpde.Series((1.0 - SOIL_PART) * demand), root_depth=ROOTS, **roots)],
    )
    times = torch.arange(days + 1, dtype=torch.float64) * DAY
    return flow.solve(-1.0, times, dgpde.SolveOptions(time_error=time_error, on_failure="return"))


def at_depths(profile: Tensor, depths: tuple[float, ...]) -> Tensor:
    """[T, nz, n] -> [T, m, n] linearly between centres of cells."""
    dz = sizes(profile.shape[1])
    centres = dz.cumsum(0) - 0.5 * dz
    z = DEPTH - torch.tensor(depths, dtype=torch.float64)
    below = (torch.searchsorted(centres, z) - 1).clamp(0, centres.numel() - 2)
    part = ((z - centres[below]) / (centres[below + 1] - centres[below])).clamp(0.0, 1.0)[:, None]
    return profile[:, below] * (1.0 - part) + profile[:, below + 1] * part


def results(run: dgpde.Solution) -> dict[str, Tensor]:
    """What is compared, of every day [days, ..., n]."""
    assert run.evaporation is not None
    dz = run.grid.dz[:, None]
    return {
        "theta": at_depths(run.theta[1:], SENSORS),
        "theta, unseen depths": at_depths(run.theta[1:], UNSEEN),
        "drainage mm/d": -run.boundary_flux["bottom"] * DAY * 1e3,
        "evapotranspiration mm/d": (run.uptake + run.evaporation) * DAY * 1e3,
        "storage mm": (run.theta[1:] * dz).sum(1) * 1e3,
    }


@cache
def truth(seed: int) -> dict[str, Tensor]:
    """The results of the truth, without the last dimension."""
    soil = dgpde.Durner(
        theta_r=0.04, theta_s=0.46, alpha1=6.0, n1=2.6, alpha2=0.15, n2=1.7, w2=0.5, k_sat=2e-5
    )
    feddes = dgpde.Feddes(h3_high=-4.0, h3_low=-4.0, h4=-150.0)
    run = solve(soil, [seed], FINE, BEFORE + RECORD + TEST, {"response": feddes, "omega_c": 0.5}, 2e-4)
    return {name: value[..., 0] for name, value in results(run).items()}


def measured(seed: int) -> Tensor:
    """[BEFORE + RECORD, 3] noisy water contents; the first BEFORE are not given to anyone."""
    draw = torch.Generator().manual_seed(5000 + seed)
    theta = truth(seed)["theta"][: BEFORE + RECORD]
    return theta + NOISE * torch.randn(theta.shape, generator=draw, dtype=torch.float64)


def stress_of(x: Tensor) -> dict[str, Any]:
    """The response of the roots by the last two numbers of every row."""
    wilting = -80.0 * torch.exp(0.5 * x[:, -1])
    begins = wilting * torch.sigmoid(x[:, -2] - 2.0) - 0.3
    return {"response": dgpde.Feddes(h3_high=begins, h3_low=begins, h4=wilting - 0.6)}


def roughness(x: Tensor) -> Tensor:
    """[n] penalty of the curvatures of log10 K and of 10 theta over log10 of suction."""
    psi = -(10.0 ** torch.linspace(-2.0, 3.0, 101, dtype=torch.float64))
    theta, log_k = (bends(curve.T, psi).square().sum(0) for curve in curves(x, psi))
    return 100.0 * theta + log_k


def with_physics(
    way: str, length: int, seeds: range, evaluations: int = EVALUATIONS
) -> list[dict[str, Tensor]]:
    """The results of every seed after learning from a record of that many days."""
    columns = [seed for seed in seeds for _ in range(STARTS)]
    observed = torch.stack([measured(seed)[BEFORE : BEFORE + length] for seed in columns], -1)
    p = (COUNT if way == "hybrid" else OWN) + STRESS
    draw = torch.Generator().manual_seed(9000)
    start = 0.3 * torch.randn(len(columns), p, generator=draw, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        run = solve(soil_of(x[:, :-STRESS]), columns, CELLS, BEFORE + length, stress_of(x))
        misfit = (at_depths(run.theta[BEFORE + 1 :], SENSORS) - observed) / NOISE
        total = 0.5 * misfit.square().sum((0, 1)) + 0.5 * x.square().sum(1)
        return total + roughness(x[:, :-STRESS]) if way == "hybrid" else total

    found = minimise(loss, start, evaluations)
    best = found.loss.reshape(len(seeds), STARTS).argmin(1) + STARTS * torch.arange(len(seeds))
    x = found.x[best]
    with torch.no_grad():
        run = solve(soil_of(x[:, :-STRESS]), list(seeds), CELLS, BEFORE + RECORD + TEST, stress_of(x))
        values = results(run)
    return [{name: value[..., k] for name, value in values.items()} for k in range(len(seeds))]


class Recurrent(torch.nn.Module):
    """An LSTM from the weather [.., days, 2] to water contents [.., days, 3]."""

    def __init__(self, width: int, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(2, width, batch_first=True)
        self.head = torch.nn.Linear(width, len(SENSORS))
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        """Water contents of every day."""
        return self.mean + self.scale * self.head(self.lstm(x)[0])


def recurrent(length: int, seed: int, steps: int = 400, memory: int = 120) -> dict[str, Tensor]:
    """The results of an LSTM, those that it has.

    It is trained on pieces of 60 days of the record, each after up to ``memory`` days of weather.
    """
    rain, demand = weather(seed)
    x = torch.stack([torch.log1p(rain * DAY * 1e3), demand * DAY * 1e3 - 3.0], 1).float()
    observed = measured(seed).float()
    record = range(BEFORE, BEFORE + length)
    split = record.stop - max(2, length // 5)
    pieces = [(a, min(a + 60, split)) for a in range(BEFORE, split, 60)]
    longest = memory + 60
    inputs, targets, counts = [], [], []
    for a, b in pieces:
        first = max(0, b - longest)
        pad = longest - (b - first)
        inputs.append(torch.nn.functional.pad(x[first:b], (0, 0, pad, 0)))
        targets.append(torch.nn.functional.pad(observed[first:b], (0, 0, pad, 0)))
        counts.append(torch.arange(longest) >= longest - (b - a))
    batch, target, counted = torch.stack(inputs), torch.stack(targets), torch.stack(counts)
    known = observed[BEFORE:split]
    mean, scale = known.mean(0), known.std(0)
    best, least = None, math.inf
    for width in (16, 48):
        torch.manual_seed(seed)
        model = Recurrent(width, mean, scale)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            optimiser.zero_grad()
            misfit = (model(batch) - target)[counted]
            misfit.square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if step % 10 == 9:
                with torch.no_grad():
                    seen = model(x[max(0, split - longest) : record.stop][None])[0, -(record.stop - split) :]
                    error = (seen - observed[split : record.stop]).square().mean().item()
                if error < least:
                    best, least = copy.deepcopy(model), error
    assert best is not None
    with torch.no_grad():
        theta = best(x[None])[0].double()
    upper, middle, lower = theta.unbind(1)
    places = [upper + (middle - upper) / 3.0, 0.5 * (middle + lower), lower]  # of UNSEEN
    return {"theta": theta, "theta, unseen depths": torch.stack(places, 1)}


def errors(found: dict[str, Tensor], seed: int) -> Row:
    """Root mean square errors of the test year, of what there is."""
    row = {}
    for name, value in found.items():
        wrong = (value - truth(seed)[name])[BEFORE + RECORD :]
        row[name] = wrong.square().mean().sqrt().item()
    return row


@dataclass(frozen=True)
class Found:
    """Errors of every seed at one length, seconds of the processor for all of them."""

    rows: list[Row]
    seconds: float


def learn(way: str, length: int, seeds: range) -> Found:
    """One way at one length."""
    began = time.process_time()
    lstm = way == "LSTM"
    values = [recurrent(length, seed) for seed in seeds] if lstm else with_physics(way, length, seeds)
    rows = [errors(value, seed) for value, seed in zip(values, seeds, strict=True)]
    return Found(rows, time.process_time() - began)


def draw(found: dict[str, dict[int, Found]]) -> Figure:
    """Errors over the length of the record: medians, and the range of the seeds."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(SHOWN), figsize=(3.6 * len(SHOWN), 3.6))
    for axis, name in zip(axes, SHOWN, strict=True):
        for way, lengths in found.items():
            spreads = [spread(entry.rows).get(name) for entry in lengths.values()]
            known = [entry for entry in spreads if entry is not None]
            if known:
                days = list(lengths)
                (line,) = axis.plot(days, [entry["median"] for entry in known], "o-", label=way)
                bounds = ([entry[end] for entry in known] for end in ("least", "largest"))
                axis.fill_between(days, *bounds, color=line.get_color(), alpha=0.2)
        axis.set(xscale="log", yscale="log", xlabel="days of record", title=f"error of {name}")
    axes[0].legend()
    figure.tight_layout()
    return figure


def main() -> None:
    """Every way at every length: tables, record, figure."""
    seeds = range(arguments(__doc__, seeds=4).parse_args().seeds)
    record: dict[str, Any] = {}
    shown: dict[str, dict[int, Found]] = {}
    run = partial(learn, seeds=seeds)
    for way in WAYS:
        shown[way] = {length: run(way, length) for length in LENGTHS}
        record[way] = {}
        for length, entry in shown[way].items():
            print(table(f"{way}, {length} days, {entry.seconds:.0f} s", entry.rows), flush=True)
            record[way][f"{length} days"] = {
                "processor seconds": entry.seconds,
                "spread": spread(entry.rows),
                "seeds": entry.rows,
            }
    write("data_efficiency", record, draw(shown))


if __name__ == "__main__":
    main()
