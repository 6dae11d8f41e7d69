"""Put a network where you do not know the physics: learn both curves of a soil from twelve days of readings.

The true soil has two pore systems (Durner 1994), which no van Genuchten curve can follow. Six probes measure its
moisture and two tensiometers its head, with the noise of good sensors. Three steps:

1. calibrate a van Genuchten soil (five numbers): the physics that we have;
2. let networks warp its curves (`dgpde.NeuralSoil`), starting from the calibrated soil, which is their prior;
3. look at the curves, inside and outside of the heads that the soil has visited.

Run it with `python examples/learn_relations.py`; it takes about half a minute and needs no data. Figures go to
`out/learn_relations/`. `--iterations` and `--days` make it smaller.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import dgpde
from dgpde import Range, plot

HOUR = 3600.0
DEPTHS = (0.03, 0.08, 0.15, 0.25, 0.40, 0.60)  # m, of the probes; tensiometers at the second and the fourth
NOISE, HEAD_NOISE = 0.003, 0.05  # standard deviations of a water content and of ln(-psi)
START = {
    "theta_r": Range(0.05, 0.0, 0.15),
    "theta_s": Range(0.42, 0.35, 0.55),
    "alpha": Range(3.0, 0.2, 30.0, "log"),
    "n": Range(1.5, 1.05, 5.0, "log"),
    "k_sat": Range(1e-5, 1e-8, 1e-3, "log", spread=2.0),
}
TRUTH = dgpde.Durner(
    theta_r=0.05, theta_s=0.45, alpha1=12.0, n1=3.0, alpha2=0.35, n2=1.7, w2=0.55, k_sat=2e-5
)
Soils = dict[str, tuple[dgpde.Soil, str]]  # with the colour of each


class Site:
    """A column of 1 m: eight hours of storm, two days and a half of drying, and so on."""

    def __init__(self, days: int) -> None:
        self.grid = dgpde.Grid.columns(n=1, dz=[0.05] * 16 + [0.02] * 10)
        hours = torch.arange(24 * days, dtype=torch.float64)
        self.times = torch.arange(24 * days + 1, dtype=torch.float64) * HOUR
        storm = (hours % 72 >= 6) & (hours % 72 < 14)
        sun = torch.sin(math.pi * ((hours % 24) - 6.0) / 12.0).clamp(min=0.0)
        rain, evaporation = storm * 5e-3 / HOUR, 1.2e-3 / HOUR * sun
        self.surface = dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(evaporation), psi_min=-200.0)
        depth = self.grid.depth[:, 0]
        self.probes = [int((depth - at).abs().argmin()) for at in DEPTHS]

    def run(self, soil: dgpde.Soil) -> dgpde.Solution:
        """From psi = -1 m everywhere."""
        model = dgpde.Richards(self.grid, soil, {"top": self.surface, "bottom": dgpde.FreeDrainage()})
        return model.solve(-1.0, self.times)

    def readings(self, soil: dgpde.Soil) -> Tensor:
        """Of all instruments, in standard deviations of their noise, [times, 8]."""
        run = self.run(soil)
        heads = run.psi[:, [self.probes[1], self.probes[3]], 0].clamp(max=-1e-2)
        return torch.cat([run.theta[:, self.probes, 0] / NOISE, torch.log(-heads) / HEAD_NOISE], 1)


def fit(misfit: Callable[[], Tensor], weights: list[Tensor], iterations: int) -> float:
    """L-BFGS on the mean squared misfit in standard deviations; returns its root, 1 being the noise."""
    optimiser = torch.optim.LBFGS(
        weights, max_iter=iterations, history_size=30, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = misfit().square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return float(misfit().square().mean().sqrt())


def errors(soil: dgpde.Soil, psi: Tensor) -> tuple[float, float]:
    """Root mean square error over heads of theta, and of log10 K."""
    with torch.no_grad():
        theta = soil.theta(psi) - TRUTH.theta(psi)
        conductivity = soil.conductivity(psi).log10() - TRUTH.conductivity(psi).log10()
    return float(theta.square().mean().sqrt()), float(conductivity.square().mean().sqrt())


def draw_curves(path: Path, soils: Soils, visited: Tensor) -> None:
    """Both curves over suction."""
    suction = torch.logspace(-2.5, 3, 200, dtype=torch.float64)
    made, axes = plot.figure(1, 2, (10.0, 4.0))
    for ax, curve, label in zip(
        axes.flat, ("theta", "conductivity"), ("water content [-]", "K [m/s]"), strict=True
    ):
        ax.axvspan(-float(visited[1]), -float(visited[0]), color="#eeeeee", lw=0, label="visited")
        for name, (soil, colour) in soils.items():
            with torch.no_grad():
                ax.plot(suction, getattr(soil, curve)(-suction), color=colour, lw=1.4, label=name)
        ax.set(xscale="log", xlabel="suction [m]", ylabel=label)
    axes.flat[1].set(yscale="log", ylim=(1e-15, 1e-4))
    axes.flat[0].legend()
    plot.save(made, path)


def draw_moisture(path: Path, soils: Soils, site: Site, measured: Tensor) -> None:
    """Moisture in time at three probes."""
    days = site.times / 86400.0
    made, axes = plot.figure(3, 1, (10.0, 6.0), sharex=True)
    with torch.no_grad():
        runs = {name: NOISE * site.readings(soil) for name, (soil, _) in soils.items() if name != "truth"}
    for ax, probe in zip(axes.flat, (0, 2, 4), strict=True):
        ax.plot(days, NOISE * measured[:, probe], ".", ms=2, color=plot.OBSERVED, label="measured")
        for name, found in runs.items():
            ax.plot(days, found[:, probe], color=soils[name][1], lw=1.0, label=name)
        ax.set(ylabel="water content [-]", title=f"{DEPTHS[probe]:.2f} m")
    axes.flat[0].legend()
    axes.flat[-1].set(xlabel="days")
    plot.save(made, path)


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    parser = argparse.ArgumentParser(description="Learn the curves of a soil inside the solver.")
    parser.add_argument("--days", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("out/learn_relations"))
    given = parser.parse_args(arguments)
    site = Site(given.days)
    with torch.no_grad():
        measured = site.readings(TRUTH)
        generator = torch.Generator().manual_seed(0)
        measured += torch.randn(measured.shape, generator=generator, dtype=torch.float64)

    # 1. Five numbers within bounds: z are their coordinates, START says what they stand for.
    z = torch.zeros(len(START), dtype=torch.float64, requires_grad=True)

    def physics() -> dgpde.VanGenuchten:
        return dgpde.VanGenuchten(
            **{name: entry.value(part) for (name, entry), part in zip(START.items(), z.unbind(), strict=True)}
        )

    left = fit(lambda: site.readings(physics()) - measured, [z], given.iterations)
    print(f"van Genuchten: misfit {left:.2f} standard deviations")
    calibrated = dgpde.VanGenuchten(
        **{
            name: entry.value(part)
            for (name, entry), part in zip(START.items(), z.detach().clone(), strict=True)
        }
    )

    # 2. The same soil as a prior, and two networks that depart from it; all is trained together.
    net = dgpde.SoilNetwork(units=8)

    def learned() -> dgpde.NeuralSoil:
        return dgpde.NeuralSoil(physics(), net)

    left = fit(lambda: site.readings(learned()) - measured, [*net.parameters(), z], 2 * given.iterations)
    print(f"with networks: misfit {left:.2f} standard deviations")

    # 3. The curves where the soil has been (the middle 98 % of its heads), and beyond.
    with torch.no_grad():
        heads = site.run(TRUTH).psi.flatten()
    visited = heads.quantile(torch.tensor([0.01, 0.99], dtype=torch.float64)).clamp(max=-1e-3)
    inside = -torch.logspace(*(-visited).log10().tolist(), 60, dtype=torch.float64)
    soils: Soils = {
        "truth": (TRUTH, plot.OBSERVED),
        "van Genuchten": (calibrated, plot.PRIOR),
        "with networks": (learned(), plot.SIMULATED),
    }
    found = {name: errors(soil, inside) for name, (soil, _) in soils.items() if name != "truth"}
    for name, (theta, conductivity) in found.items():
        print(f"{name}: errors where it has been: theta {theta:.4f}, log10 K {conductivity:.3f}")
    given.out.mkdir(parents=True, exist_ok=True)
    with plot.style():
        draw_curves(given.out / "curves.png", soils, visited)
        draw_moisture(given.out / "moisture.png", soils, site, measured)
    print(f"figures: {given.out}")
    return found


if __name__ == "__main__":
    main()
