"""One network for the curves of many soils, from texture and bulk density: UNSODA 2.0.

    python -m benchmarks.learning.unsoda

Laboratory drying points of the samples that have six points of retention, particle sizes and a bulk density; those
with five points of K(h) count for K as well. Suctions up to 160 m, no zero of K. Inputs are logits of clay and
sand, bulk density, ln of the geometric mean diameter of the particles. Five folds, each leaving out a fifth of the
*publications*, whose soils no model of that fold has seen; samples without a known publication are one of them.
Compared on the soils left out:

- network: a `ParameterNet` gives van Genuchten-Mualem parameters, a `SoilNetwork` that sees the same inputs departs
  from them; trained on the points;
- same without departure: the `ParameterNet` alone, trained on the points;
- regression: least squares, in all quadratic terms of the inputs, of the parameters that were fitted to each soil
  of the other folds, which is how pedotransfer functions are made;
- own fit: van Genuchten-Mualem fitted to the very points that it is tested on. It predicts nothing; it is what the
  form can do.

Errors are root mean squares over the points of a soil, then over soils. A seed is the initialisation and the part
of the training publications, a sixth, on which training stops. Sizes and rates were chosen on seed 100, on which
nothing is reported.
"""

from __future__ import annotations

import copy
import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import dgpde
from benchmarks.learning.optimise import minimise
from benchmarks.learning.record import Row, arguments, spread, table, write
from benchmarks.measure import ROOT
from dgpde.parameter_net import values_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ROOT / "benchmarks" / "data" / "unsoda"
DRIEST = 160.0  # m
LEAST = {"theta": 6, "K": 5}  # points that a sample must have
SCALE = {"theta": 0.05, "K": 0.7}  # of the residuals: water content, log10 K
FOLDS, HIDDEN, UNITS, STEPS, RATE, DECAY = 5, 24, 6, 200, 0.01, 1e-2
CM_PER_DAY = 0.01 / 86400.0
RANGES = {
    "theta_s": dgpde.Range(0.42, 0.25, 0.95),
    "theta_r": dgpde.Range(0.04, 0.0, 0.24),
    "alpha": dgpde.Range(2.0, 0.0),
    "n": dgpde.Range(1.4, 1.02),
    "l": dgpde.Range(0.5, -4.0, 4.0),
    "k_sat": dgpde.Range(1e-6, 0.0, spread=2.0),
}
OWN = len(RANGES)


@dataclass(frozen=True)
class Points:
    """Points of one curve: soil of each, ln of its suction [m], its value (theta or log10 of K in m/s)."""

    soil: Tensor
    ln_h: Tensor
    value: Tensor

    def of(self, soils: Tensor) -> Points:
        """Those of some soils [n] (a mask)."""
        keep = soils[self.soil]
        return Points(self.soil[keep], self.ln_h[keep], self.value[keep])


@dataclass(frozen=True)
class Samples:
    """Inputs [n, 4], standardised; fold [n]; publication [n]; retention and conductivity."""

    inputs: Tensor
    fold: Tensor
    publication: Tensor
    theta: Points
    conductivity: Points


def _rows(name: str) -> list[dict[str, str]]:
    with (FILES / f"unsoda_{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _finer(sizes: list[tuple[float, float]], micrometres: float) -> float:
    """Cumulative fraction at a size, linear in its logarithm between those measured."""
    sizes = sorted((math.log(max(size, 0.1)), part) for size, part in sizes)
    x = math.log(micrometres)
    for (a, low), (b, high) in zip(sizes, sizes[1:], strict=False):
        if a <= x <= b and b > a:
            return low + (high - low) * (x - a) / (b - a)
    return sizes[0][1] if x < sizes[0][0] else sizes[-1][1]


@cache
def samples() -> Samples:
    """The samples that can be used."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        "theta": defaultdict(list),
        "K": defaultdict(list),
    }
    for name, file, column in (("theta", "retention", "theta"), ("K", "K_of_h", "K_cm_d")):
        for row in _rows(file):
            h, value = 0.01 * float(row["suction_cm"]), float(row[column])
            if row["where"] == "lab" and row["process"] == "drying" and h <= DRIEST and value > 0.0:
                # a point at saturation stands where the air has not entered
                entry = math.log(max(h, 1e-3)), value if name == "theta" else math.log10(value * CM_PER_DAY)
                found[name][row["code"]].append(entry)
    sizes = defaultdict(list)
    for row in _rows("particle_size"):
        sizes[row["code"]].append((float(row["particle_size_um"]), float(row["cumulative_fraction"])))
    inputs, publications, kept = [], [], []
    for row in _rows("samples"):
        code = row["code"]
        if (
            len(found["theta"][code]) < LEAST["theta"]
            or len(sizes[code]) < 2
            or not row["bulk_density_g_cm3"]
        ):
            continue
        clay, fine = (min(max(_finer(sizes[code], size), 0.005), 0.995) for size in (2.0, 50.0))
        sand, silt = 1.0 - fine, max(fine - clay, 0.0)
        diameter = clay * math.log(1.0) + silt * math.log(10.0) + sand * math.log(316.0)
        inputs.append(
            [
                math.log(clay / (1.0 - clay)),
                math.log(sand / (1.0 - sand)),
                float(row["bulk_density_g_cm3"]),
                diameter,
            ]
        )
        publications.append(row["publication_ID"])
        kept.append(code)
    x = torch.tensor(inputs, dtype=torch.float64)
    names = sorted(set(publications))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    publication = torch.tensor([names.index(name) for name in publications])
    fold = torch.tensor([order[names.index(name)] % FOLDS for name in publications])

    def points(name: str) -> Points:
        entries = [
            (k, *point)
            for k, code in enumerate(kept)
            for point in (found[name][code] if len(found[name][code]) >= LEAST[name] else [])
        ]
        soil, ln_h, value = zip(*entries, strict=True)
        return Points(
            torch.tensor(soil),
            torch.tensor(ln_h, dtype=torch.float64),
            torch.tensor(value, dtype=torch.float64),
        )

    scaled = (x - x.mean(0)) / x.std(0)
    return Samples(scaled, fold, publication, points("theta"), points("K"))


def residuals(
    x: Tensor, data: Samples, soils: Tensor, network: dgpde.SoilNetwork | None = None
) -> dict[str, Tensor]:
    """Mean squared residual of every soil [n] of each curve, of the soils of a mask; NaN without points.

    x: coordinates of van Genuchten's parameters [n, 6].
    """
    found = {}
    for name, points in (("theta", data.theta.of(soils)), ("K", data.conductivity.of(soils))):
        values = {key: value[points.soil] for key, value in values_of(RANGES, x).items()}
        prior = dgpde.VanGenuchten(**values)
        soil: dgpde.Soil = prior
        if network is not None:
            features = list(data.inputs[points.soil].unbind(1))
            soil = dgpde.NeuralSoil(prior, network, features, route="torch")
        psi = -torch.exp(points.ln_h)
        if name == "theta":
            residual = soil.theta(psi) - points.value
        else:
            residual = torch.log10(soil.conductivity(psi)) - points.value
        count = torch.bincount(points.soil, minlength=x.shape[0]).to(x)
        squares = torch.zeros_like(count).index_add(0, points.soil, residual.square())
        found[name] = squares / torch.where(count > 0, count, torch.nan)
    return found


def total(found: dict[str, Tensor]) -> Tensor:
    """The loss: mean over soils of the scaled squares of both curves."""
    return sum((found[name].nanmean() / SCALE[name] ** 2 for name in SCALE), torch.zeros(()))


@cache
def own_fits(evaluations: int = 300) -> Tensor:
    """Coordinates [n, 6] of van Genuchten-Mualem fitted to each soil's own points."""
    data = samples()
    everyone = torch.ones(data.fold.numel(), dtype=torch.bool)

    def loss(x: Tensor) -> Tensor:
        found = residuals(x, data, everyone)
        parts = [torch.nan_to_num(found[name]) / SCALE[name] ** 2 for name in SCALE]
        # what the points say nothing about (K_s and l without K) stays near its start
        return 10.0 * torch.stack(parts).sum(0) + 0.005 * x.square().sum(1)

    return minimise(loss, torch.zeros(data.fold.numel(), OWN, dtype=torch.float64), evaluations).x


def regression(data: Samples, train: Tensor) -> Tensor:
    """Coordinates [n, 6] of every soil by quadratic least squares on the fits of the training soils."""
    x = data.inputs
    quadratic = [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i, x.shape[1])]
    terms = torch.cat([torch.ones_like(x[:, :1]), x, torch.stack(quadratic, 1)], 1)
    has_k = torch.zeros_like(train)
    has_k[data.conductivity.soil] = True
    columns = []
    for k in range(OWN):
        # l and K_s are fitted where there is K
        use = train & has_k if k >= 4 else train
        columns.append(terms @ torch.linalg.lstsq(terms[use], own_fits()[use, k : k + 1]).solution)
    return torch.cat(columns, 1)


def trained(data: Samples, train: Tensor, seed: int, departs: bool, steps: int) -> dict[str, Tensor]:
    """Mean squared residuals of all soils [n] by a ``ParameterNet``, with a departure or without, trained on a mask."""
    torch.manual_seed(seed)
    there = torch.unique(data.publication[train])
    held = there[torch.randperm(there.numel())[: max(1, there.numel() // 6)]]
    stop = train & torch.isin(data.publication, held)
    fit = train & ~stop
    perceptron = dgpde.ParameterNet(data.inputs.shape[1], RANGES, hidden=(HIDDEN,), seed=seed)
    network = dgpde.SoilNetwork(units=UNITS, features=data.inputs.shape[1], seed=seed) if departs else None
    model = torch.nn.ModuleList([perceptron, *([network] if network is not None else [])])
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, least = copy.deepcopy(model.state_dict()), math.inf
    for step in range(steps):
        optimiser.zero_grad()
        total(residuals(perceptron.coordinates(data.inputs), data, fit, network)).backward()
        optimiser.step()
        schedule.step()
        if step % 10 == 9:
            with torch.no_grad():
                error = total(residuals(perceptron.coordinates(data.inputs), data, stop, network)).item()
            if error < least:
                best, least = copy.deepcopy(model.state_dict()), error
    model.load_state_dict(best)
    with torch.no_grad():
        everyone = torch.ones_like(train)
        return residuals(perceptron.coordinates(data.inputs), data, everyone, network)


def cross_validated(way: str, seed: int, steps: int = STEPS) -> dict[str, Tensor]:
    """Root mean square errors of every soil [n] by a model that has not seen its publication."""
    data = samples()
    everyone = torch.ones(data.fold.numel(), dtype=torch.bool)
    if way == "own fit":
        found = residuals(own_fits(), data, everyone)
    else:
        found = {name: torch.full((data.fold.numel(),), torch.nan, dtype=torch.float64) for name in SCALE}
        for fold in range(FOLDS):
            train, test = data.fold != fold, data.fold == fold
            if way == "regression":
                part = residuals(regression(data, train), data, everyone)
            else:
                part = trained(data, train, seed, departs=way == "network", steps=steps)
            for name, value in found.items():
                value[test] = part[name][test]
    return {name: value.sqrt() for name, value in found.items()}


def row_of(errors: dict[str, Tensor]) -> Row:
    """Root mean square and median over the soils."""
    row = {}
    for name, label in (("theta", "theta"), ("K", "log10 K")):
        known = errors[name][~errors[name].isnan()]
        row[f"{label}, rms"] = known.square().mean().sqrt().item()
        row[f"{label}, median soil"] = known.median().item()
    return row


def draw(errors: dict[str, dict[str, Tensor]]) -> Figure:
    """Distributions of the errors over the soils."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, name, label in zip(axes, SCALE, ("theta [-]", "log10 K"), strict=True):
        for way, found in errors.items():
            values = found[name][~found[name].isnan()].sort().values
            axis.plot(values, torch.linspace(0.0, 1.0, values.numel()), label=way)
        axis.set(
            xlabel=f"error of a soil, {label}", ylabel="part of the soils", xlim=(0.0, 5.0 * SCALE[name])
        )
    axes[0].legend()
    figure.tight_layout()
    return figure


def main() -> None:
    """Cross-validate every way, print the tables, write record and figure."""
    seeds = range(arguments(__doc__, seeds=3).parse_args().seeds)
    data = samples()
    record: dict[str, Any] = {
        "soils": data.fold.numel(),
        "with K": torch.unique(data.conductivity.soil).numel(),
        "publications": torch.unique(data.publication).numel(),
    }
    shown = {}
    for way in ("network", "same without departure", "regression", "own fit"):
        drawn = way not in ("regression", "own fit")
        found = [cross_validated(way, seed) for seed in (seeds if drawn else range(1))]
        rows = [row_of(entry) for entry in found]
        print(table(way, rows), flush=True)
        record[way] = {"spread": spread(rows), "seeds": rows}
        shown[way] = found[0]
    write("unsoda", record, draw(shown))


if __name__ == "__main__":
    main()
