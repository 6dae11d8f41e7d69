"""theta(psi) and K(psi) of soils that no van Genuchten curve fits, from moisture alone.

    python -m benchmarks.learning.soil_curves

1.2 m of bimodal (Durner 1994) or film-conducting (Peters-Durner-Iden) soil stands over a water table under 60 days
of drawn weather; ten sensors read water content every hour with noise of 0.005. How far the surface may dry is set
anew each day, from 2.5 m of suction to 150 m and back by factors of about two, as a laboratory can with an osmotic
solution (the humidity of air cannot be held so finely): where it is dry gravity plays no part, and moisture alone
would tell little but K dpsi/dtheta (`identifiability` says what each design can tell). Told to the
inversions: the weather, these limits, the water table, that the start is at rest over it. Not told: any
other head, any flux, any parameter. The truth is computed on 240 cells, the inversions on 80. Three ways
to learn:

- network: van Genuchten-Mualem curves and the departures of a `SoilNetwork` (8 units a curve), baked into tables
  inside the solver: 6 + 50 numbers. The bends of the departures over log10 of suction are penalised (as by
  `NeuralSoil.roughness`), theta's and log10 K's each with the strength that makes the measurements most probable
  (`evidence`), which is found anew for each soil and seed; the numbers of the network are left alone (normal prior of
  standard deviation 10). L-BFGS from two starts, then from the better one with Gauss and Newton's curvature;
- van Genuchten: the 6 numbers alone (theta_r, theta_s, alpha, n, K_s, l), from two starts, of which the one that fits
  best counts;
- plain network: theta(depth, time, past rain, demand and limit) by a perceptron without physics, of equal size and of
  10 times that, its weight decay and its number of steps chosen on the last fifth of the record. It has no curves, so
  it is compared by what all of them predict: water content at depths without sensors and in the 30 days that
  follow.

Errors of the curves are root mean squares over evenly spaced log10 of suction within the range that the sensors
saw (all but a thousandth of their readings at either end), and for each decade in full. "Expected" beside that of
log10 K is the standard deviation that the fit itself states. Design, prior and optimiser were chosen on seeds 100
and 101.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import dgpde
from benchmarks.learning.evidence import Problem, derivatives, fit
from benchmarks.learning.learned_soil import COUNT, OWN, curves, departure_bends, soil_of
from benchmarks.learning.optimise import minimise
from benchmarks.learning.plain_network import fit_plain, past_weather
from benchmarks.learning.record import Row, arguments, spread, table, write
from benchmarks.learning.weather import DAY, rain_and_evaporation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS, TRAINED, PARTS = 90, 60, 24  # days in all, of the record; readings of a day
LIMITS = (
    150.0,
    80.0,
    40.0,
    20.0,
    10.0,
    5.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
)  # m, of the surface's suction, daily
DEPTH = 1.2  # m, of the water table
SENSORS = (0.03, 0.07, 0.12, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95, 1.1)  # m below the surface
UNSEEN = (0.01, 0.05, 0.16, 0.25, 0.52, 0.7, 0.87, 1.03)
NOISE = 0.005
RARE = 1e-3  # part of the readings at either end of the suctions that does not count as seen
FINE, CELLS = 240, 80
STRENGTHS = (100.0, 0.5)  # of the penalties of theta's and log10 K's bends, at first
LOOSE = 0.01  # precision of the prior of a network's numbers
DRAWS = 4  # for each seed, of which those that fit best are where the fits start
STARTS = {"network": 2, "van Genuchten": 2}
EVALUATIONS = {"network": 160, "van Genuchten": 100}  # of L-BFGS from every start
PLAIN = 4  # seeds of the plain network
ROUNDS, EACH = 7, 15  # with Gauss and Newton's curvature, evaluations of each
TRUTHS: dict[str, dgpde.Soil] = {
    "bimodal": dgpde.Durner(
        theta_r=0.04, theta_s=0.46, alpha1=6.0, n1=2.6, alpha2=0.15, n2=1.7, w2=0.5, k_sat=2e-5
    ),
    "films": dgpde.PetersDurnerIden(theta_r=0.10, theta_s=0.42, alpha=4.0, n=2.8, omega=2e-3, k_sat=3e-5),
}
DECADES = ((0.01, 0.1), (0.1, 1.0), (1.0, 10.0), (10.0, 100.0), (100.0, 1000.0))  # m of suction


def sizes(nz: int) -> list[float]:
    """Heights of the cells from the bottom up [m]: fine at the top, which dries most, and over the water table."""
    place = torch.linspace(1.0, 0.0, nz, dtype=torch.float64)
    weight = 0.2 + 3.8 * torch.sin(0.9 * math.pi * place)
    return (DEPTH * weight / weight.sum()).tolist()


@dataclass(frozen=True)
class Design:
    """Readings of a day; the largest suctions of the surface [m], a day each, over and over."""

    parts: int
    limits: tuple[float, ...]

    @property
    def readings(self) -> int:
        """Of the record."""
        return TRAINED * self.parts


STEPPED = Design(PARTS, LIMITS)


@cache
def weather(design: Design = STEPPED) -> tuple[Tensor, Tensor, Tensor]:
    """Rain and demand of bare soil [DAYS * parts] m/s, and the driest head of the surface [DAYS * parts] m."""
    rain, demand = rain_and_evaporation(
        DAYS, seed=1, per_day=design.parts, wet=0.25, depth=0.012, demand=0.012
    )
    daily = torch.tensor(
        [-design.limits[day % len(design.limits)] for day in range(DAYS)], dtype=torch.float64
    )
    return rain, demand, daily.repeat_interleave(design.parts)


def solve(
    soil: dgpde.Soil, n: int, nz: int, days: int, time_error: float = 5e-4, design: Design = STEPPED
) -> dgpde.Solution:
    """n columns of nz cells."""
    intervals = days * design.parts
    rain, demand, driest = (dgpde.Series(series[:intervals]) for series in weather(design))
    top = dgpde.Atmosphere(rain, demand, psi_min=driest, ponding_max=0.01)
    flow = dgpde.Richards(
        dgpde.Grid.columns(n, sizes(nz)), soil, boundaries={"top": top, "bottom": dgpde.Head(0.0)}
    )
    times = torch.arange(intervals + 1, dtype=torch.float64) * DAY / design.parts
    return flow.solve(-flow.grid.z, times, dgpde.SolveOptions(time_error=time_error, on_failure="return"))


def at_depths(profile: Tensor, depths: tuple[float, ...]) -> Tensor:
    """[T, nz, n] -> [T, m, n] linearly between centres of cells."""
    faces = torch.cat(
        [torch.zeros(1, dtype=torch.float64), torch.tensor(sizes(profile.shape[1])).double().cumsum(0)]
    )
    centres = 0.5 * (faces[1:] + faces[:-1])
    z = DEPTH - torch.tensor(depths, dtype=torch.float64)
    below = (torch.searchsorted(centres, z) - 1).clamp(0, centres.numel() - 2)
    part = ((z - centres[below]) / (centres[below + 1] - centres[below])).clamp(0.0, 1.0)[:, None]
    return profile[:, below] * (1.0 - part) + profile[:, below + 1] * part


@dataclass(frozen=True)
class Truth:
    """theta at the sensors and where there is none [readings, m], the flux through the bottom in the record
    [readings] m/s, suctions seen by the sensors [m]."""

    sensors: Tensor
    unseen: Tensor
    exchange: Tensor
    seen: tuple[float, float]


@cache
def truth(name: str, design: Design = STEPPED) -> Truth:
    """What is measured and what is withheld."""
    run = solve(TRUTHS[name], 1, FINE, DAYS, time_error=1e-4, design=design)
    suctions = -at_depths(run.psi, SENSORS)[: design.readings + 1].flatten()
    rare = torch.tensor([RARE, 1.0 - RARE], dtype=torch.float64)
    return Truth(
        at_depths(run.theta, SENSORS)[..., 0],
        at_depths(run.theta, UNSEEN)[..., 0],
        run.boundary_flux["bottom"][: design.readings, 0],
        tuple(suctions.quantile(rare).tolist()),
    )


@dataclass(frozen=True)
class Found:
    """The best start of each seed: x [seeds, p], their errors, seconds of the processor for all seeds and starts."""

    x: Tensor
    rows: list[Row]
    seconds: float


def misfits(x: Tensor, observed: Tensor, design: Design) -> Tensor:
    """[n, readings * sensors] residuals over noise; observed [readings, sensors, n]."""
    run = solve(soil_of(x), x.shape[0], CELLS, TRAINED, design=design)
    return ((at_depths(run.theta, SENSORS)[1:] - observed) / NOISE).flatten(0, 1).T


@torch.no_grad()
def starting(way: str, observed: Tensor, seeds: range, design: Design) -> Tensor:
    """x [seeds * starts, p]: of the draws of each seed those that fit best, so none whose run fails."""
    drawn = []
    for seed in seeds:
        draw = torch.Generator().manual_seed(10_000 + seed)
        own = 0.7 * torch.randn(DRAWS, OWN, generator=draw, dtype=torch.float64)
        rest = 0.1 * torch.randn(DRAWS, COUNT - OWN, generator=draw, dtype=torch.float64)
        drawn.append(torch.cat([own, rest], 1) if way == "network" else own)
    x = torch.stack(drawn)
    misfit = misfits(x.flatten(0, 1), observed.repeat_interleave(DRAWS, -1), design).square().sum(1)
    order = torch.where(misfit.isfinite(), misfit, torch.inf).reshape(len(seeds), DRAWS).argsort(1)
    chosen = order[:, : STARTS[way], None].expand(-1, -1, x.shape[2])
    return x.gather(1, chosen).flatten(0, 1)


def fitted(
    way: str, observed: Tensor, seeds: range, seen: tuple[float, float], design: Design
) -> tuple[Tensor, dict[str, Tensor]]:
    """x [seeds, p] of the best start, and what a fit with evidence says of itself [seeds]."""
    starts = STARTS[way]
    which = torch.arange(len(seeds)).repeat_interleave(starts)
    loose = torch.full((COUNT,), LOOSE, dtype=torch.float64)
    loose[:OWN] = 0.0

    def residuals(x: Tensor, which: Tensor) -> Tensor:
        return misfits(x, observed[..., which], design)

    problem = Problem(residuals, departure_bends, loose)
    strengths = torch.tensor(STRENGTHS, dtype=torch.float64).expand(which.numel(), -1)

    def loss(x: Tensor) -> Tensor:
        if way == "network":
            return problem.loss(x, which, strengths)
        return 0.5 * misfits(x, observed[..., which], design).square().sum(1)

    found = minimise(loss, starting(way, observed, seeds, design), EVALUATIONS[way])
    x = found.x[found.loss.reshape(len(seeds), starts).argmin(1) + starts * torch.arange(len(seeds))]
    if way == "van Genuchten":
        return x, {}
    learned = fit(problem, x, strengths[: len(seeds)], ROUNDS, EACH)
    return learned.x, {
        "log10 K, seen, expected": expected(learned.x, learned.covariance, seen),
        "strength of theta": learned.strengths[:, 0],
        "strength of log10 K": learned.strengths[:, 1],
    }


def learn(name: str, way: str, seeds: range, design: Design = STEPPED) -> Found:
    """Curves from the noisy moisture of every seed, all starts and seeds as columns of one batch."""
    known = truth(name, design)
    record = known.sensors[1 : design.readings + 1]
    observed = record[..., None] + torch.stack([noise_of(seed, record.shape) for seed in seeds], -1)
    began = time.process_time()
    x, said = fitted(way, observed, seeds, known.seen, design)
    seconds = time.process_time() - began
    with torch.no_grad():
        run = solve(soil_of(x), len(seeds), CELLS, DAYS, design=design)
        errors = curve_errors(name, x, known.seen) | prediction_errors(
            known, design, at_depths(run.theta, SENSORS), at_depths(run.theta, UNSEEN)
        )
        missed = (run.boundary_flux["bottom"][: design.readings] - known.exchange[:, None]).norm(dim=0)
        errors["bottom flux error %"] = 100.0 * missed / known.exchange.norm()
    errors |= said
    rows = [{key: value[k].item() for key, value in errors.items()} for k in range(len(seeds))]
    return Found(x, rows, seconds)


def noise_of(seed: int, shape: torch.Size) -> Tensor:
    """The noise of a seed."""
    return NOISE * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(x: Tensor, covariance: Tensor, seen: tuple[float, float]) -> Tensor:
    """Root mean square [n] over the range seen of the standard deviations of log10 K."""
    psi = -torch.logspace(math.log10(seen[0]), math.log10(seen[1]), 101, dtype=torch.float64)
    found = []
    for row, inverse in zip(x, covariance, strict=True):
        _, slopes = derivatives(lambda rows: curves(rows, psi)[1], row)
        found.append(torch.einsum("pm,pq,qm->m", slopes, inverse, slopes).mean().sqrt())
    return torch.stack(found)


def curve_errors(name: str, x: Tensor, seen: tuple[float, float]) -> dict[str, Tensor]:
    """Root mean square errors [n] of theta and log10 K within the range seen and over every decade."""
    errors = {}
    ranges = {"seen": seen} | {f"{low:g}-{high:g} m": (low, high) for low, high in DECADES}
    for label, (low, high) in ranges.items():
        psi = -torch.logspace(math.log10(low), math.log10(high), 101, dtype=torch.float64)
        theta, log_k = curves(x, psi)
        soil = TRUTHS[name]
        errors[f"log10 K, {label}"] = (log_k - torch.log10(soil.conductivity(psi))).square().mean(1).sqrt()
        errors[f"theta, {label}"] = (theta - soil.theta(psi)).square().mean(1).sqrt()
        if label == "seen":
            true = torch.log10(-soil.theta(psi).diff() / psi.diff().abs())
            slope = torch.log10(-theta.diff(dim=1) / psi.diff().abs())
            middle = torch.log10(soil.conductivity(psi))
            error = (log_k - middle).unfold(1, 2, 1).mean(-1) - (slope - true)
            errors["log10 diffusivity, seen"] = error.square().mean(1).sqrt()
    return errors


def prediction_errors(known: Truth, design: Design, sensors: Tensor, unseen: Tensor) -> dict[str, Tensor]:
    """Root mean square errors [n] of theta [T + 1, m, n] where and when nothing was measured."""
    last = design.readings
    between = unseen[1 : last + 1] - known.unseen[1 : last + 1, :, None]
    after = sensors[last + 1 :] - known.sensors[last + 1 :, :, None]
    return {
        "theta, unseen depths": between.square().mean((0, 1)).sqrt(),
        "theta, 30 days after": after.square().mean((0, 1)).sqrt(),
    }


def plain_series() -> tuple[Tensor, Tensor, Tensor]:
    """Rain, demand, and the logarithm of the surface's largest suction, which a network takes better than itself."""
    rain, demand, driest = weather()
    return rain, demand, torch.log(-driest)


def plain(name: str, hidden: int, seeds: range, steps: int = 1000) -> list[Row]:
    """The errors of networks without physics."""
    known, last = truth(name), STEPPED.readings
    inputs = past_weather(plain_series(), DAY / PARTS)
    rows = []
    for seed in seeds:
        record = known.sensors[1 : last + 1]
        model = fit_plain(inputs[:last], SENSORS, record + noise_of(seed, record.shape), hidden, seed, steps)
        first = torch.full(
            (1, len(SENSORS), 1), torch.nan, dtype=torch.float64
        )  # the start, which nobody asks for
        sensors = torch.cat([first, model(inputs, SENSORS)[..., None]])
        unseen = torch.cat([first[:, : len(UNSEEN)], model(inputs, UNSEEN)[..., None]])
        rows.append(
            {key: value.item() for key, value in prediction_errors(known, STEPPED, sensors, unseen).items()}
        )
    return rows


@torch.no_grad()
def draw(found: dict[str, dict[str, Found]]) -> Figure:
    """Learned curves of every seed over the truth."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(found), figsize=(5.5 * len(found), 7), squeeze=False)
    suction = torch.logspace(-2, 3, 300, dtype=torch.float64)
    for (upper, lower), (name, ways) in zip(axes.T, found.items(), strict=True):
        for (way, entry), color in zip(ways.items(), ("tab:blue", "tab:orange"), strict=True):
            theta, log_k = curves(entry.x, -suction)
            for axis, values in ((upper, theta), (lower, log_k)):
                lines = axis.plot(suction, values.T, color=color, alpha=0.5)
                lines[0].set_label(way)
        soil = TRUTHS[name]
        upper.plot(suction, soil.theta(-suction), "k--", label="truth")
        lower.plot(suction, torch.log10(soil.conductivity(-suction)), "k--")
        for axis in (upper, lower):
            axis.axvspan(*truth(name).seen, color="0.93", zorder=0)
            axis.set(xscale="log", xlabel="suction [m]")
        upper.set(title=f"{name} (grey: what the sensors saw)", ylabel="theta [-]")
        lower.set(ylabel="log10 K [m/s]", ylim=(-16, -4))
        upper.legend()
    figure.tight_layout()
    return figure


def main() -> None:
    """Learn in every way, print the tables, write record and figure."""
    seeds = range(arguments(__doc__, seeds=10).parse_args().seeds)
    record: dict[str, Any] = {}
    shown: dict[str, dict[str, Found]] = {}
    for name in TRUTHS:
        shown[name] = {way: learn(name, way, seeds) for way in STARTS}
        record[name] = {"suctions seen by the sensors [m]": truth(name).seen}
        for way, entry in shown[name].items():
            print(
                table(f"{name}, {way}, {STARTS[way]} starts, {entry.seconds:.0f} s for all", entry.rows),
                flush=True,
            )
            record[name][way] = {"seconds": entry.seconds, "spread": spread(entry.rows), "seeds": entry.rows}
        for hidden in (4, 24):
            rows = plain(name, hidden, seeds[:PLAIN])
            print(table(f"{name}, plain network of {hidden} hidden units", rows), flush=True)
            record[name][f"plain network, {hidden} hidden"] = {"spread": spread(rows), "seeds": rows}
    write("soil_curves", record, draw(shown))


if __name__ == "__main__":
    main()
