"""How roots respond to drought, learned from soil moisture alone.

    python -m benchmarks.learning.root_stress

The truth is 1.5 m of loam under a crop that closes its stomata in two steps: uptake falls to half of the demand within
the first metres of suction, stays there, and ends near 100 m; near saturation it suffers from want of air. No four
heads of Feddes have this form. Two years of drawn daily weather; 60 summer days of the second are without rain.
Measured: daily water content at 5, 15, 30, 50, 80 cm in the first year from day 30 on, noise 0.01. Known to all: soil,
rain, demand of the crop and of the surface, root depth, the uniform head of -1 m on day 0, free drainage.

- learned response: a `NeuralStress` (8 units) for each seed, its weights with a normal prior around where they begin;
- calibrated Feddes: its four heads, each a logit within the range that the first has, with a standard normal prior;
- Feddes of grass: not calibrated, for comparison.

The first two start twice for each seed and take the better fit. A seed is a weather, a noise and starts. Errors of
the response are root mean squares of a(psi) weighted by how often roots were at psi in the record, and over all
suctions from 0.05 to 100 m; transpiration was never measured. The truth has 90 cells, the models have 30. Nothing was
tuned on these seeds.
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
from benchmarks.learning.optimise import minimise
from benchmarks.learning.record import Row, arguments, spread, table, write
from benchmarks.learning.weather import DAY, rain_and_evaporation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH, FINE, CELLS = 1.5, 90, 30
BEFORE, RECORD, DAYS = 30, 365, 730
SENSORS = (0.05, 0.15, 0.3, 0.5, 0.8)  # m below the surface
NOISE = 0.01
ROOTS, SURFACE = 0.9, 0.2  # m; part of the demand that the soil surface gets
UNITS, EVALUATIONS, STARTS = 8, 150, 2
HEADS = (-0.05, -0.2, -4.0, -150.0)  # priors of all
KNOTS = 128
SUCTION = torch.logspace(math.log10(0.05), 2, 200, dtype=torch.float64)  # m, where responses are compared
SOIL = dgpde.VanGenuchten(theta_r=0.06, theta_s=0.43, alpha=2.5, n=1.5, k_sat=4e-6)


def true_response(suction: Tensor) -> Tensor:
    """Two steps of closing (each as van Genuchten 1987 has it), want of air, wilting."""
    steps = 0.5 / (1.0 + (suction / 2.0) ** 3) + 0.5 / (1.0 + (suction / 60.0) ** 4)
    air = ((suction - 0.05) / 0.25).clamp(0.0, 1.0)
    return steps * air * (1.0 - suction / 150.0).clamp(min=0.0)


def knot_suctions() -> Tensor:
    """[KNOTS] m."""
    return torch.exp(torch.linspace(math.log(-HEADS[0]), math.log(-HEADS[3]), KNOTS, dtype=torch.float64))


def tabulated(values: Tensor) -> dgpde.TabulatedStress:
    """Responses at the knots [n, KNOTS], one for each column."""
    inner = torch.nn.functional.pad(values[:, 1:-1], (1, 1))
    return dgpde.TabulatedStress(inner, (HEADS[0], HEADS[3]), torch.arange(values.shape[0]))


@cache
def weather(seed: int) -> tuple[Tensor, Tensor]:
    """Rain and demand [DAYS] m/s; the second summer is dry."""
    rain, demand = rain_and_evaporation(DAYS, seed=300 + seed, wet=0.2, depth=0.009, demand=0.003)
    rain[RECORD + 150 : RECORD + 210] = 0.0
    return rain, demand


def sizes(nz: int) -> Tensor:
    """Heights of the cells from the bottom up [nz] m, five times finer at the top."""
    weight = torch.linspace(5.0, 1.0, nz, dtype=torch.float64)
    return DEPTH * weight / weight.sum()


def solve(response: Any, seeds: list[int], nz: int, days: int, time_error: float = 2e-3) -> dgpde.Solution:
    """A column for each entry of seeds."""
    rain, demand = (torch.stack([weather(seed)[k][:days] for seed in seeds], 1) for k in (0, 1))
    flow = dgpde.Richards(
        dgpde.Grid.columns(len(seeds), sizes(nz)),
        SOIL,
        {
            "top": dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(SURFACE * demand), ponding_max=0.02),
            "bottom": dgpde.FreeDrainage(),
        },
        [dgpde.RootUptake(dgpde.Series((1.0 - SURFACE) * demand), root_depth=ROOTS, response=response)],
    )
    times = torch.arange(days + 1, dtype=torch.float64) * DAY
    return flow.solve(-1.0, times, dgpde.SolveOptions(time_error=time_error, on_failure="return"))


def at_sensors(profile: Tensor) -> Tensor:
    """[T, nz, n] -> [T, m, n] linearly between centres of cells."""
    dz = sizes(profile.shape[1])
    centres = dz.cumsum(0) - 0.5 * dz
    z = DEPTH - torch.tensor(SENSORS, dtype=torch.float64)
    below = (torch.searchsorted(centres, z) - 1).clamp(0, centres.numel() - 2)
    part = ((z - centres[below]) / (centres[below + 1] - centres[below])).clamp(0.0, 1.0)[:, None]
    return profile[:, below] * (1.0 - part) + profile[:, below + 1] * part


@dataclass(frozen=True)
class Truth:
    """theta at the sensors [DAYS + 1, m], transpiration [DAYS] m/s, how often roots were at SUCTION [200]."""

    theta: Tensor
    uptake: Tensor
    visits: Tensor


@cache
def truth(seed: int) -> Truth:
    """What is measured and what is withheld."""
    run = solve(tabulated(true_response(knot_suctions())[None]), [seed], FINE, DAYS, 2e-4)
    faces = torch.cat([torch.zeros(1, dtype=torch.float64), sizes(FINE).cumsum(0)])
    weight = dgpde.root_density(torch.tensor([ROOTS], dtype=torch.float64), faces)[:, 0] * sizes(FINE)
    suction = -run.psi[BEFORE:RECORD, :, 0]
    place = torch.bucketize(suction.log(), SUCTION.log()).clamp(max=SUCTION.numel() - 1)
    visits = torch.zeros(SUCTION.numel(), dtype=torch.float64)
    visits.index_add_(0, place.flatten(), weight.expand_as(suction).flatten())
    return Truth(at_sensors(run.theta)[..., 0], run.uptake[:, 0], visits / visits.sum())


def feddes_heads(x: Tensor) -> list[Tensor]:
    """h1, h2, h3, h4 [n] of rows of four numbers, in order whatever the numbers are."""
    h4 = HEADS[3] * torch.sigmoid(x[:, 3] + 1.5)  # of its share of the range that all have
    h3 = -0.3 + (h4 + 0.3) * torch.sigmoid(x[:, 2] - 2.0)
    h1 = HEADS[0] - 0.1 * torch.sigmoid(x[:, 0])
    h2 = h1 - 0.15 * torch.sigmoid(x[:, 1])
    return [h1, h2, h3, h4]


def response_of(way: str, x: Tensor) -> Any:
    """The response of every column by the rows of x."""
    if way == "calibrated Feddes":
        h1, h2, h3, h4 = feddes_heads(x)
        return dgpde.Feddes(h1, h2, h3, h3, h4)
    return tabulated(curves(way, x, knot_suctions()))


@cache
def pattern() -> dgpde.NeuralStress:
    """The network whose weights are put in from rows of x."""
    return dgpde.NeuralStress(HEADS, units=UNITS, seed=0)


def curves(way: str, x: Tensor, suction: Tensor) -> Tensor:
    """a [n, m]."""
    if way == "calibrated Feddes":
        h1, h2, h3, h4 = (head[:, None] for head in feddes_heads(x))
        return torch.minimum((h1 + suction) / (h1 - h2), (-suction - h4) / (h3 - h4)).clamp(0.0, 1.0)
    weights, rest = {}, x
    for name, base in pattern().named_parameters():
        part, rest = rest[:, : base.numel()], rest[:, base.numel() :]
        weights[name] = base.detach() + part.reshape(x.shape[0], *base.shape)
    call = torch.func.vmap(lambda own: torch.func.functional_call(pattern(), own, (-suction,))[0])
    result: Tensor = call(weights)
    return result


@dataclass(frozen=True)
class Found:
    """Responses of every seed at SUCTION [seeds, 200], errors of every seed, seconds of the processor for all."""

    curves: Tensor
    rows: list[Row]
    seconds: float


def learn(way: str, seeds: range, evaluations: int = EVALUATIONS) -> Found:
    """The response of every seed from its moisture."""
    began = time.process_time()
    columns = [seed for seed in seeds for _ in range(STARTS)]
    if way == "Feddes of grass":
        h1, h2, _, h4 = (torch.tensor(h, dtype=torch.float64) for h in (-0.1, -0.25, 0.0, -80.0))
        with torch.no_grad():
            run = solve(dgpde.Feddes(), list(seeds), CELLS, DAYS)
        trapezoid = torch.minimum((h1 + SUCTION) / (h1 - h2), (-SUCTION - h4) / (-8.0 - h4)).clamp(0.0, 1.0)
        drawn = trapezoid.expand(len(seeds), -1)
        return Found(drawn, errors(drawn, run, seeds), time.process_time() - began)
    noise = [torch.Generator().manual_seed(7000 + seed) for seed in seeds]
    observed = torch.stack([truth(seed).theta[BEFORE + 1 : RECORD + 1] for seed in seeds], -1)
    for k, draw in enumerate(noise):
        observed[..., k] += NOISE * torch.randn(observed.shape[:2], generator=draw, dtype=torch.float64)
    observed = observed.repeat_interleave(STARTS, -1)
    count = 4 if way == "calibrated Feddes" else sum(weight.numel() for weight in pattern().parameters())
    start = 0.3 * torch.randn(
        len(columns), count, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )

    def loss(x: Tensor) -> Tensor:
        run = solve(response_of(way, x), columns, CELLS, RECORD)
        misfit = (at_sensors(run.theta)[BEFORE + 1 :] - observed) / NOISE
        return 0.5 * misfit.square().sum((0, 1)) + 0.5 * x.square().sum(1)

    found = minimise(loss, start, evaluations)
    best = found.loss.reshape(len(seeds), STARTS).argmin(1) + STARTS * torch.arange(len(seeds))
    x = found.x[best]
    with torch.no_grad():
        run = solve(response_of(way, x), list(seeds), CELLS, DAYS)
        drawn = curves(way, x, SUCTION)
    return Found(drawn, errors(drawn, run, seeds), time.process_time() - began)


def errors(drawn: Tensor, run: dgpde.Solution, seeds: range) -> list[Row]:
    """Of every seed."""
    rows = []
    theta = at_sensors(run.theta)
    for k, seed in enumerate(seeds):
        known = truth(seed)
        wrong = drawn[k] - true_response(SUCTION)
        uptake = (run.uptake[:, k] - known.uptake) * DAY * 1e3
        test, dry = slice(RECORD, None), slice(RECORD + 150, RECORD + 220)
        moisture = (theta[..., k] - known.theta)[1:]
        rows.append(
            {
                "a, where roots were": (known.visits * wrong.square()).sum().sqrt().item(),
                "a, 0.05-100 m": wrong.square().mean().sqrt().item(),
                "transpiration mm/d, record": uptake[BEFORE:RECORD].square().mean().sqrt().item(),
                "transpiration mm/d, test year": uptake[test].square().mean().sqrt().item(),
                "transpiration mm/d, drought": uptake[dry].square().mean().sqrt().item(),
                "transpiration, drought, total %": 100.0
                * abs(uptake[dry].sum().item())
                / (known.uptake[dry].sum().item() * DAY * 1e3),
                "theta, test year": moisture[test].square().mean().sqrt().item(),
            }
        )
    return rows


def draw(found: dict[str, Found]) -> Figure:
    """Learned responses of every seed over the truth, and errors of transpiration."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for k, (way, entry) in enumerate(found.items()):
        color = f"C{k}"
        lines = left.plot(SUCTION, entry.curves.T, color=color, alpha=0.5)
        lines[0].set_label(way)
        names = ("transpiration mm/d, record", "transpiration mm/d, test year", "transpiration mm/d, drought")
        for place, name in enumerate(names):
            values = [row[name] for row in entry.rows]
            right.plot([place + 0.2 * (k - 1)] * len(values), values, "o", color=color, alpha=0.6)
    left.plot(SUCTION, true_response(SUCTION), "k--", label="truth")
    visits = truth(0).visits
    left.fill_between(SUCTION, 0.3 * visits / visits.max(), color="0.85", label="where roots were (seed 0)")
    left.set(xscale="log", xlabel="suction [m]", ylabel="a(psi)", ylim=(-0.02, 1.05))
    left.legend(fontsize=8)
    right.set_xticks(range(3), ["record", "test year", "its drought"])
    right.set(yscale="log", ylabel="error of transpiration, never measured [mm/d]")
    figure.tight_layout()
    return figure


def main() -> None:
    """Every way: tables, record, figure."""
    seeds = range(arguments(__doc__, seeds=10).parse_args().seeds)
    record: dict[str, Any] = {}
    found: dict[str, Found] = {}
    for way in ("learned response", "calibrated Feddes", "Feddes of grass"):
        entry = found[way] = learn(way, seeds)
        print(table(f"{way}, {entry.seconds:.0f} s", entry.rows), flush=True)
        record[way] = {"processor seconds": entry.seconds, "spread": spread(entry.rows), "seeds": entry.rows}
    write("root_stress", record, draw(found))


if __name__ == "__main__":
    main()
