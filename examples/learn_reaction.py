"""Learn how fast something is used up, as a function of its concentration, from what leaves columns of soil.

A substrate is fed to four columns at different strengths for four days, then two of clean water. There it is used up
by Monod's kinetics (1949), of which the model knows nothing. Concentrations are measured at the outlet every three
hours and along the columns at the end of the feed, with noise. Three steps:

1. calibrate first-order decay (one number), the physics that one would try;
2. put a network where the rate law is unknown: rate = -theta c exp(net(c)), small, trained through the transport;
3. compare both laws with the truth, where the columns have been and beyond.

Over five seeds of noise and weights the network's law is 1.4 to 3.5 % off (root mean square between 0.02 and 1 kg/m3),
that of first order 56 %; the network fits to the noise, first order to five times that.

Run it with `python examples/learn_reaction.py`; it takes a minute a seed and needs no data. Figures go to
`out/learn_reaction/`. `--seeds`, `--days` and `--iterations` make it smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import dgpde
from dgpde import plot

HOUR, DAY = 3600.0, 86400.0
FED = (0.1, 0.3, 0.6, 1.0)  # kg/m3, of the columns
NOISE = 0.01  # kg/m3, standard deviation
LARGEST, HALF = 8e-6, 0.15  # kg m-3 s-1 and kg/m3, of the truth
TRUTH = dgpde.Monod(LARGEST, {"substrate": HALF}, {"substrate": -1.0})
Law = Callable[[Tensor], Tensor]  # use per volume of water [kg m-3 s-1] at a concentration


def truth(c: Tensor) -> Tensor:
    """Monod's law."""
    return LARGEST * c / (HALF + c)


class FirstOrder(torch.nn.Module):
    """rate = -theta k c."""

    def __init__(self) -> None:
        super().__init__()
        self.log_k = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def law(self, c: Tensor) -> Tensor:
        """What is used."""
        return 1e-5 * self.log_k.exp() * c

    def forward(self, c: Tensor, theta: Tensor, features: None) -> Tensor:
        return -theta * self.law(c)


class Learned(FirstOrder):
    """The same with k a network of c: nothing is used where there is nothing, whatever its weights."""

    def __init__(self, units: int = 8) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(1, units), torch.nn.Tanh(), torch.nn.Linear(units, 1)
        ).double()

    def law(self, c: Tensor) -> Tensor:
        """What is used."""
        return super().law(c) * self.net(4.0 * c[..., None] - 1.0)[..., 0].exp()


class Columns:
    """Four columns of 0.3 m, water moving down, fed for two thirds of the time."""

    def __init__(self, days: int) -> None:
        self.grid = dgpde.Grid.columns(n=len(FED), dz=[0.015] * 20)
        self.times = torch.arange(8 * days + 1, dtype=torch.float64) * 3.0 * HOUR
        fed = torch.arange(8 * days) < 16 * days // 3
        self.end_of_feed = int(fed.sum())
        self.inflow = dgpde.Series(fed[:, None] * torch.tensor(FED, dtype=torch.float64))
        self.flow = dgpde.SteadyFlow(0.35, -1.0e-6)

    def run(self, reaction: dgpde.Reaction) -> Tensor:
        """Concentrations, [times, cells, columns]."""
        model = dgpde.Transport(
            self.grid,
            dgpde.Solute("substrate", longitudinal_dispersivity=0.01),
            {"top": dgpde.InflowConcentration(self.inflow)},
            reaction=reaction,
        )
        return model.solve(0.0, self.flow, self.times).concentration

    def readings(self, reaction: dgpde.Reaction) -> Tensor:
        """At the outlet in time, then along the columns at the end of the feed; in standard deviations of the noise."""
        c = self.run(reaction)
        return torch.cat([c[1:, 0].flatten(), c[self.end_of_feed, 2::4].flatten()]) / NOISE


def fit(misfit: Callable[[], Tensor], weights: list[Tensor], iterations: int) -> float:
    """L-BFGS on the mean squared misfit in standard deviations; returns its root, 1 being the noise."""
    optimiser = torch.optim.LBFGS(
        weights, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-6
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = misfit().square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return float(misfit().square().mean().sqrt())


def error(law: Law, c: Tensor) -> float:
    """Root mean square of the error of a law over concentrations, relative to that of the truth."""
    with torch.no_grad():
        return float((law(c) - truth(c)).square().mean().sqrt() / truth(c).square().mean().sqrt())


def draw_laws(path: Path, laws: dict[str, list[Law]]) -> None:
    """What is used over concentration."""
    c = torch.linspace(0.0, 1.3, 200, dtype=torch.float64)
    made, axes = plot.figure(1, 1, (6.0, 4.0))
    ax = axes.flat[0]
    ax.axvspan(0.0, max(FED), color="#eeeeee", lw=0, label="visited")
    for (name, members), colour in zip(
        laws.items(), (plot.OBSERVED, plot.PRIOR, plot.SIMULATED), strict=True
    ):
        for k, law in enumerate(members):
            with torch.no_grad():
                ax.plot(c, DAY * law(c), color=colour, lw=1.4, label=name if k == 0 else None)
    ax.set(xlabel="concentration [kg m$^{-3}$]", ylabel="use [kg m$^{-3}$ d$^{-1}$]")
    ax.legend()
    plot.save(made, path)


def draw_outlets(path: Path, site: Columns, measured: Tensor, models: dict[str, torch.nn.Module]) -> None:
    """Concentrations at the outlets."""
    days = site.times[1:] / DAY
    seen = NOISE * measured[: len(days) * len(FED)].view(-1, len(FED))
    made, axes = plot.figure(2, 2, (10.0, 6.0), sharex=True)
    with torch.no_grad():
        runs = {name: site.run(dgpde.Reaction(model))[1:, 0] for name, model in models.items()}
    for k, (ax, strength) in enumerate(zip(axes.flat, FED, strict=True)):
        ax.plot(days, seen[:, k], ".", ms=3, color=plot.OBSERVED, label="measured")
        for (name, found), colour in zip(runs.items(), (plot.PRIOR, plot.SIMULATED), strict=True):
            ax.plot(days, found[:, k], color=colour, lw=1.2, label=name)
        ax.set(title=f"fed with {strength:g} kg m$^{{-3}}$", ylabel="outlet [kg m$^{-3}$]")
    axes.flat[0].legend()
    for ax in axes.flat[2:]:
        ax.set(xlabel="days")
    plot.save(made, path)


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description="Learn a rate law inside the transport.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--days", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out/learn_reaction"))
    given = parser.parse_args(arguments)
    site = Columns(given.days)
    with torch.no_grad():
        exact = site.readings(dgpde.Reaction(TRUTH))
    visited = torch.linspace(0.02, max(FED), 200, dtype=torch.float64)
    laws: dict[str, list[Law]] = {"truth": [truth], "first order": [], "network": []}
    errors: dict[str, list[float]] = {"first order": [], "network": []}
    for seed in range(given.seeds):
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        measured = exact + torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        models: dict[str, FirstOrder] = {"first order": FirstOrder(), "network": Learned()}
        for name, model in models.items():

            def misfit(model: FirstOrder = model, measured: Tensor = measured) -> Tensor:
                return site.readings(dgpde.Reaction(model)) - measured

            left = fit(misfit, list(model.parameters()), given.iterations)
            laws[name].append(model.law)
            errors[name].append(error(model.law, visited))
            print(
                f"seed {seed}, {name}: misfit {left:.2f} standard deviations, error of the law where it has been "
                f"{100.0 * errors[name][-1]:.1f} %",
                flush=True,
            )
    given.out.mkdir(parents=True, exist_ok=True)
    with plot.style():
        draw_laws(given.out / "laws.png", laws)
        draw_outlets(given.out / "outlets.png", site, measured, dict(models))
    print(f"figures: {given.out}")
    return errors


if __name__ == "__main__":
    main()
