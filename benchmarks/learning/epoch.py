"""Time and memory of one epoch of training: 1,000 columns, a year, forcing of every hour.

    python -m benchmarks.learning.epoch

1,000 columns of 40 cells, each with weather of its own and soil of its own: three attributes of a site are the
features of a `SoilNetwork` over a van Genuchten prior, baked into 1,000 tables inside the solver. The loss takes
the water contents of three cells once a day; its gradient goes through 8,760 hours of adaptive steps to the
network's weights and to the prior. The measurements are drawn, since neither time nor memory depends on what they
are. States are kept every 96 hours and the steps between them computed again in the backward sweep. One core.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.measure import Timing, one_core, peak_memory, reset_peak_memory, timed

if __name__ == "__main__":
    one_core()

import torch

import dgpde
from benchmarks.learning.record import write
from benchmarks.learning.weather import DAY, rain_and_evaporation

HOURS, CELLS, DEPTH = 24, 40, 1.6  # of a day; of a column; m
EVERY = 96  # hours between two states that are kept
OBSERVED = (39, 35, 25)  # cells: 2, 18 and 58 cm below the surface


def epoch(columns: int, days: int) -> dict[str, Any]:
    """Forward run, loss and gradient, with their processor times [s] and peak memory [GB]."""
    weather = [rain_and_evaporation(days, seed, HOURS) for seed in range(columns)]
    rain, demand = (torch.stack([pair[k] for pair in weather], 1) for k in (0, 1))
    draw = torch.Generator().manual_seed(0)
    attributes = 2.0 * torch.rand(3, columns, generator=draw, dtype=torch.float64) - 1.0
    measured = 0.3 + 0.05 * torch.randn(days, len(OBSERVED), columns, generator=draw, dtype=torch.float64)
    names = {"theta_r": 0.05, "theta_s": 0.43, "alpha": 2.5, "n": 1.6, "k_sat": 5e-6}
    prior = {
        name: torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for name, value in names.items()
    }
    network = dgpde.SoilNetwork(units=8, features=3)
    with torch.no_grad():
        network.slope.add_(0.3 * torch.randn(network.slope.shape, generator=draw, dtype=torch.float64))
    times = torch.arange(days * HOURS + 1, dtype=torch.float64) * DAY / HOURS
    options = dgpde.SolveOptions(checkpoint=dgpde.Checkpoint(every=EVERY))
    began = reset_peak_memory()
    forward, backward = Timing(), Timing()

    def run() -> tuple[torch.Tensor, dgpde.Solution]:
        soil = dgpde.NeuralSoil(dgpde.VanGenuchten(**prior), network, list(attributes))
        flow = dgpde.Richards(
            dgpde.Grid.columns(columns, [DEPTH / CELLS] * CELLS),
            soil,
            boundaries={
                "top": dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(0.3 * demand), ponding_max=0.01),
                "bottom": dgpde.FreeDrainage(),
            },
            sources=[dgpde.RootUptake(dgpde.Series(0.7 * demand), root_depth=0.8)],
        )
        solution = flow.solve(-2.0, times, options, save=range(0, days * HOURS + 1, HOURS))
        return (solution.theta[1:, OBSERVED] - measured).square().mean(), solution

    loss, solution = timed(run, forward)
    timed(loss.backward, backward)
    gradients = [value.grad for value in (*prior.values(), *network.parameters())]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    steps = solution.stats.steps.double()
    return {
        "columns": columns,
        "days": days,
        "cells": CELLS,
        "steps of a column, mean": steps.mean().item(),
        "mass balance error, largest": solution.mass_balance_error.max().item(),
        "forward, processor s": forward.cpu[0],
        "gradient, processor s": backward.cpu[0],
        "forward, s": forward.wall[0],
        "gradient, s": backward.wall[0],
        "peak memory, GB": peak_memory() / 1e9,
        "of which before the run, GB": began / 1e9,
    }


def main() -> None:
    """One epoch; print and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--columns", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    chosen = parser.parse_args()
    found = epoch(chosen.columns, chosen.days)
    for name, value in found.items():
        print(f"{name:32}{value:12.4g}")
    if (chosen.columns, chosen.days) == (1000, 365):
        write("epoch", found)


if __name__ == "__main__":
    main()
