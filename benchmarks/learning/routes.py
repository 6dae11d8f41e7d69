"""What a network in place of a formula costs: the same run with van Genuchten's soil, baked and fused, and with roots.

    python -m benchmarks.learning.routes

256 columns of 40 cells, 120 days of forcing every six hours, adaptive steps, the loss the water contents of three cells
at all output times. The networks' weights are drawn a little off their prior, so that their runs are nearly, not quite,
those of the formulas. The ways take turns on one core; what counts is the least processor time of the turns, and the
run's price is divided by its number of steps, since the curves are not the same. Evaluating the network, baking it and
its own backward are in the price.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Timing, one_core, timed

if __name__ == "__main__":
    one_core()

import torch

import dgpde
from benchmarks.learning.record import write
from benchmarks.learning.weather import DAY, rain_and_evaporation

COLUMNS, CELLS, DEPTH = 256, 40, 1.6  # m
DAYS, PER_DAY = 120, 4
OBSERVED = (38, 30, 20)
PRIOR = {"theta_r": 0.065, "theta_s": 0.41, "alpha": 3.5, "n": 1.6, "k_sat": 5e-6}
Parts = tuple[dgpde.VanGenuchten | dgpde.NeuralSoil, dgpde.Feddes | dgpde.NeuralStress]


def formulas() -> tuple[dgpde.VanGenuchten, dgpde.Feddes]:
    """Van Genuchten and Feddes, with parameters to be learned."""
    prior = {name: torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for name, x in PRIOR.items()}
    dry = torch.nn.Parameter(torch.tensor(-4.0, dtype=torch.float64))
    return dgpde.VanGenuchten(**prior), dgpde.Feddes(h3_high=dry, h3_low=dry, h4=-150.0)


def network(route: str) -> Parts:
    """The same with a learned departure of the curves."""
    prior, response = formulas()
    departure = dgpde.SoilNetwork(units=8)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in departure.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return dgpde.NeuralSoil(prior, departure, route=route), response


def learned_roots() -> Parts:
    """The same with a learned response of the roots."""
    return formulas()[0], dgpde.NeuralStress()


WAYS: dict[str, Callable[[], Parts]] = {
    "van Genuchten, Feddes": formulas,
    "soil baked": lambda: network("baked"),
    "soil fused, 8 units": lambda: network("fused"),
    "learned response of roots": learned_roots,
}


def run(way: Callable[[], Parts], forcing: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float, float]:
    """Processor seconds forward and backward, and the accepted steps of all columns."""
    rain, demand = forcing
    forward, backward = Timing(), Timing()
    times = torch.arange(DAYS * PER_DAY + 1, dtype=torch.float64) * DAY / PER_DAY

    def solve() -> tuple[torch.Tensor, dgpde.Solution]:
        soil, response = way()
        flow = dgpde.Richards(
            dgpde.Grid.columns(COLUMNS, [DEPTH / CELLS] * CELLS),
            soil,
            boundaries={
                "top": dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(0.3 * demand), ponding_max=0.01),
                "bottom": dgpde.FreeDrainage(),
            },
            sources=[dgpde.RootUptake(dgpde.Series(0.7 * demand), root_depth=0.8, response=response)],
        )
        solution = flow.solve(-1.0, times)
        return solution.theta[1:, OBSERVED].square().sum(), solution

    loss, solution = timed(solve, forward)
    timed(loss.backward, backward)
    return forward.cpu[0], backward.cpu[0], float(solution.stats.steps.sum())


def main() -> None:
    """All ways in turns; print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    weather = [rain_and_evaporation(DAYS, seed, PER_DAY) for seed in range(COLUMNS)]
    forcing = torch.stack([pair[0] for pair in weather], 1), torch.stack([pair[1] for pair in weather], 1)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, way in WAYS.items():
            found[name].append(run(way, forcing))
    rows: dict[str, Any] = {}
    for name, seconds in found.items():
        steps = seconds[0][2]
        forward, gradient = (min(turn[k] for turn in seconds) for k in (0, 1))
        rows[name] = {"forward, processor s": forward, "gradient, processor s": gradient, "steps": steps}
        first = rows["van Genuchten, Feddes"]
        scale = first["steps"] / steps
        rows[name] |= {
            "forward, times": scale * forward / first["forward, processor s"],
            "forward and gradient, times": scale
            * (forward + gradient)
            / (first["forward, processor s"] + first["gradient, processor s"]),
        }
        print(f"{name:28}" + "".join(f"{value:12.4g}" for value in rows[name].values()))
    write("routes", {"columns": COLUMNS, "cells": CELLS, "days": DAYS, "turns": turns, "ways": rows})


if __name__ == "__main__":
    main()
