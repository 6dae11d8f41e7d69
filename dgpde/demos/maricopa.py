"""64 irrigated cotton plots at Maricopa, Arizona, 2018: learn soils from moisture, predict dates and plots not seen."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from dgpde.demos.cotton import LAST_ROOTS, Cotton, Prediction, Split
from dgpde.demos.fit import fit
from dgpde.demos.score import ErrorTable, nan_mean, rmse
from dgpde.demos.tables import load_maricopa

ITERATIONS = 70
NOISE = 0.02  # standard deviation of reading minus model that the prior is weighed against [-]
COLUMNS = ["trained on", "later dates", "new plots", "new plots, later"]


class Trainer:
    """The objective: readings of the training plots and dates, with the priors.

    Every training plot is run twice in the same batch: with its own offset, and by the map alone, so that the map
    is trained on exactly what it has to do for a new plot. A column that the solver had to give up has no say in
    that iteration.
    """

    def __init__(self, model: Cotton) -> None:
        self.model = model
        self.plots = model.split.train_plots
        self.observed = model.data.theta[model.split.train_dates][:, :, self.plots]  # [r, 10, a]
        self.seen = ~torch.isnan(self.observed)

    def __call__(self) -> tuple[Tensor, dict[str, float]]:
        """Negative log posterior for each reading, and the two RMSE over the training readings."""
        model, a = self.model, len(self.plots)
        z = torch.cat([model.coordinates(self.plots, own=True), model.coordinates(self.plots, own=False)])
        prediction = model.predict(torch.cat([self.plots, self.plots]), z)
        theta, solved = prediction.theta[model.split.train_dates], prediction.run.status == 0
        own, mapped = (
            (theta[:, :, half] - self.observed)[self.seen & solved[half]].square().mean()
            for half in (slice(a), slice(a, None))
        )
        prior = model.offset.square().sum() + z[a:].square().sum() + model.crop.square().sum()
        loss = 0.5 * (own + mapped) / NOISE**2 + 0.5 * prior / int(self.seen.sum())
        numbers = {"rmse": math.sqrt(own.item()), "map": math.sqrt(mapped.item())}
        if not bool(solved.all()):
            numbers["columns given up"] = int((~solved).sum())
        return loss, numbers


def predict_all(model: Cotton, own: bool, save: str = "readings", progress: bool = False) -> Prediction:
    """Predict all plots in the order of the data: training plots with (`own`) or without offsets, new ones without."""
    plots = torch.arange(len(model.data.plots))
    z = model.coordinates(plots, own=False)
    if own:
        train = model.split.train_plots
        z = z.index_copy(0, train, model.coordinates(train, own=True))
    return model.predict(plots, z, save, progress)


def errors(model: Cotton, theta: Tensor) -> list[float]:
    """RMSE of a prediction [R or 1, 10, n or 1] over the four sets of readings in `COLUMNS`."""
    split, observed = model.split, model.data.theta
    theta = theta.expand_as(observed)
    return [
        rmse(theta[dates][:, :, plots], observed[dates][:, :, plots])
        for plots in (split.train_plots, split.new_plots)
        for dates in (split.train_dates, split.later_dates)
    ]


def baselines(model: Cotton) -> dict[str, Tensor]:
    """Predictions [1, 10, n] that use no physics.

    `mean of the training dates`: of that plot and depth for training plots, of all training plots at that depth for
    new plots. `first profile for ever`: the profile of 4 May, which the model starts from, at every later date.
    """
    split, observed = model.split, model.data.theta
    dates = torch.cat([torch.zeros(1, dtype=torch.long), split.train_dates])
    seen = observed[dates][:, :, split.train_plots]
    mean = nan_mean(seen, (0, 2)).expand(1, observed.shape[1], observed.shape[2]).clone()
    mean[:, :, split.train_plots] = nan_mean(seen, (0,))
    return {"mean of the training dates": mean, "first profile for ever": observed[:1]}


def run(folder: Path, iterations: int | None = None) -> ErrorTable:
    """Train, print the table of errors, write figures, table and HDF5 result to `folder`."""
    start = time.perf_counter()
    torch.manual_seed(0)
    data = load_maricopa()
    split = Split.draw(len(data.plots), len(data.dates))
    model = Cotton(data, split)
    print(
        f"Maricopa cotton 2018: {len(data.plots)} plots of 2 m, {len(model.dz)} cells, {model.n_days} days; "
        f"{len(split.train_plots)} training plots, {len(split.new_plots)} withheld; "
        f"{len(split.train_dates)} training dates, {len(split.later_dates)} withheld"
    )
    with torch.no_grad():
        before = predict_all(model, own=False)
    table = ErrorTable(COLUMNS)
    table.add("prior soil", errors(model, before.theta))
    for name, theta in baselines(model).items():
        table.add(name, errors(model, theta))

    trainer = Trainer(model)
    groups = [
        {"params": [model.offset], "lr": 0.2},
        {"params": [model.crop], "lr": 0.2},
        {"params": list(model.map.parameters()), "lr": 0.02},
    ]
    history = fit(
        trainer, groups, ITERATIONS if iterations is None else iterations, "training through the solver"
    )

    with torch.no_grad():
        mapped = predict_all(model, own=False)
        after = predict_all(model, own=True, save="all")
    for prediction in (mapped, after):
        if bool((prediction.run.status != 0).any()):
            raise RuntimeError(
                "the solver gave up a column of the final prediction; train with more iterations"
            )
    table.add("learned, map alone", errors(model, mapped.theta))
    table.add("learned, map and offsets", errors(model, after.theta))
    last, first = (data.dates[int(i)] for i in (split.train_dates[-1], split.later_dates[0]))
    print("\nRMSE of water content [m3/m3]")
    print(table.text())
    print(
        f"trained on: training plots to {last:%d %B}; later dates: the same plots from {first:%d %B}; new plots:\n"
        "withheld plots, on the dates of the training and later. The first profile of every plot is given: the runs\n"
        "start from it, and it is not scored."
    )
    print(summary(model, after))
    table.write(folder / "rmse.csv")
    after.run.to_hdf5(folder / "maricopa.h5")
    from dgpde.demos import maricopa_figures

    figures = maricopa_figures.draw(folder, model, before, after, mapped, history)
    print(f"\n{len(figures)} figures, rmse.csv and maricopa.h5 are in {folder}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    return table


def summary(model: Cotton, prediction: Prediction) -> str:
    """What was learned of the crop, and the season's water balance, for a terminal."""
    kcb, evaporation, depth = model.crop_factors().tolist()
    water = season_balance(model, prediction)
    mean = {name: 1e3 * series[-1].mean().item() for name, series in water.items()}
    return "\n".join(
        [
            f"\ncrop: Kcb x {kcb:.3f}, soil evaporation x {evaporation:.3f}, roots to "
            f"{LAST_ROOTS * depth:.2f} m, densest at {model.root_peak().item():.2f} of it, critical stress index "
            f"{model.stress_index().item():.2f}",
            "season, mean of plots [mm]: " + ", ".join(f"{name} {value:.0f}" for name, value in mean.items()),
            f"largest mass balance error: {prediction.run.mass_balance_error.max().item():.1e} of the water moved",
        ]
    )


def season_balance(model: Cotton, prediction: Prediction) -> dict[str, Tensor]:
    """Cumulative water since the first reading [T + 1, n] m: in, out, and the change of storage."""
    run = prediction.run
    dt = (model.times[1:] - model.times[:-1])[:, None]

    def total(flux: Tensor) -> Tensor:
        flux = flux.expand(len(dt), len(prediction.plots))
        return torch.cat([torch.zeros_like(flux[:1]), torch.cumsum(flux * dt, dim=0)])

    if run.evaporation is None:
        raise ValueError("prediction has no evaporation: its top must be an Atmosphere")
    balance = {
        "rain and irrigation": total(prediction.precipitation),
        "uptake": total(run.uptake),
        "evaporation": total(run.evaporation),
        "drainage": total(-run.boundary_flux["bottom"]),
        "runoff": total(run.runoff),
    }
    stored = (run.theta * model.dz[:, None]).sum(dim=1)
    if len(stored) == len(model.times):
        balance["storage change"] = stored - stored[:1]
    return balance
