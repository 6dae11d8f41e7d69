"""Four stations of the U.S. Climate Reference Network, 2020: learn soils from March to August, predict the autumn."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from dgpde.demos.fit import fit
from dgpde.demos.grassland import TEXTURES, Grassland
from dgpde.demos.score import ErrorTable, nan_mean, rmse
from dgpde.demos.tables import load_uscrn

ITERATIONS = 150
NOISE = 0.03  # standard deviation of reading minus model that the prior is weighed against [-]
CORRELATED = 10.0  # days: errors of neighbouring days are alike, so a day counts as a tenth of a reading


def loss_of(model: Grassland) -> tuple[Tensor, dict[str, float]]:
    """Negative log posterior for each reading, and the RMSE over the training days."""
    observed = model.observed[model.train_days]
    seen = ~torch.isnan(observed)
    error = (model.predict().theta[model.train_days] - observed)[seen].square().mean()
    prior = model.z.square().sum() + model.vegetation.square().sum()
    loss = 0.5 * error / NOISE**2 + 0.5 * prior * CORRELATED / int(seen.sum())
    return loss, {"rmse": math.sqrt(error.item())}


def errors(model: Grassland, theta: Tensor) -> list[float]:
    """RMSE of a prediction [D or 1, 5, s] on training and withheld days, all stations and then one by one."""
    theta = theta.expand_as(model.observed)
    stations: list[slice | list[int]] = [slice(None), *([i] for i in range(len(model.data.stations)))]
    return [
        rmse(theta[days][:, :, station], model.observed[days][:, :, station])
        for station in stations
        for days in (model.train_days, model.later_days)
    ]


def run(folder: Path, iterations: int | None = None) -> ErrorTable:
    """Train, print the table of errors, write figures, table and HDF5 result to `folder`."""
    start = time.perf_counter()
    torch.manual_seed(0)
    model = Grassland(load_uscrn(list(TEXTURES)))
    print(
        f"USCRN 2020: {len(model.data.stations)} stations, 1.5 m in {len(model.dz)} cells, {len(model.days)} days; "
        f"{len(model.train_days)} training days, {len(model.later_days)} withheld; rain missing on "
        f"{int(torch.isnan(model.data.rain[model.first :]).sum())} station days (taken as zero)"
    )
    with torch.no_grad():
        before = model.predict()
    names = ["all", *(name.split("_")[1] for name in model.data.stations)]
    table = ErrorTable([f"{name} {days}" for name in names for days in ("train", "later")])
    table.add("prior soil", errors(model, before.theta))
    train = model.observed[model.train_days]
    table.add("mean of the training days", errors(model, nan_mean(train, (0,))))
    table.add("last training day for ever", errors(model, last_seen(train)))
    groups = [{"params": [model.z], "lr": 0.10}, {"params": [model.vegetation], "lr": 0.10}]
    count = ITERATIONS if iterations is None else iterations
    history = fit(lambda: loss_of(model), groups, count, "training through the solver")
    with torch.no_grad():
        after = model.predict()
    table.add("learned", errors(model, after.theta))
    print("\nRMSE of water content [m3/m3]")
    print(table.text())
    for name, values in zip(names[1:], model.factors().T.tolist(), strict=True):
        print(
            "{}: T x {:.2f}, E x {:.2f} of reference ET, roots to {:.2f} m, shape {:.2f}".format(
                name, *values
            )
        )
    table.write(folder / "rmse.csv")
    after.run.to_hdf5(folder / "uscrn.h5")
    from dgpde.demos import uscrn_figures

    figures = uscrn_figures.draw(folder, model, before, after, history)
    print(f"\n{len(figures)} figures, rmse.csv and uscrn.h5 are in {folder}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    return table


def last_seen(train: Tensor) -> Tensor:
    """The last reading of each probe that is not missing [1, 5, s], NaN if there is none."""
    result = train[0]
    for day in train:
        result = torch.where(torch.isnan(day), result, day)
    return result[None]
