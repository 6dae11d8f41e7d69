"""Pumping tests: transmissivity and storativity from drawdown, by the solver's own derivatives.

Oude Korendijk (Kruseman & de Ridder 1970): one pumped well, two observation wells, two numbers. Horkheimer Insel
(Schad 1997): four pumped wells, 28 cross-hole curves; two numbers first, then a field of transmissivity under a
prior of smoothness. Both aquifers are taken as confined and of one layer; drawdown is that of a fully penetrating
well in an aquifer whose outer boundary is too far off to matter.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde.demos.tables import DAY, column, read_csv

# The solve is linear: one step an output time. Rings of cells that grow outwards make stiff systems, whose
# residual need not be as small as that of a water balance.
OPTIONS = dgpde.SolveOptions(dt_initial=0.1, linear_tolerance=1e-8)
FOLDER = "aquifer-tests"
THICKNESS = 2.925  # m, mean of the saturated thickness at Horkheim's wells
PUBLISHED = (463.0 / DAY, 1.8e-4)  # T m2/s and S of Oude Korendijk
ITERATIONS = 12  # of L-BFGS
FIRST_SECOND = 20.0  # of Horkheim's curves: before it the wells' own storage is seen


@dataclass(frozen=True)
class Curve:
    """Drawdown in one well.

    Attributes:
        name: of the well.
        place: x and y [m], counted from the grid's south-west corner.
        time: [k] s since pumping began.
        drawdown: [k] m, positive down.
    """

    name: str
    place: tuple[float, float]
    time: Tensor
    drawdown: Tensor


@dataclass(frozen=True)
class PumpingTest:
    """One pumped well and the wells that saw it. Rate in m3/s, positive when pumped; place as in ``Curve``."""

    name: str
    place: tuple[float, float]
    rate: float
    curves: list[Curve]


@dataclass(frozen=True)
class Aquifer:
    """One layer of cells and what was done to it.

    Attributes:
        grid: (1, ny, nx).
        far: sides at which drawdown is zero; the others are closed.
        tests: the pumping tests.
    """

    grid: dgpde.Grid
    far: tuple[str, ...]
    tests: list[PumpingTest]

    def drawdown(self, test: PumpingTest, transmissivity: Tensor, storativity: Tensor) -> list[Tensor]:
        """Simulated drawdown [m] of each curve at its times.

        Args:
            test: one of ``tests``.
            transmissivity: m2/s, a number or what broadcasts to the grid's shape.
            storativity: [-], likewise.
        """
        grid, thickness = self.grid, float(self.grid.dz)
        well, share = around(grid, test.place)
        places = [around(grid, curve.place) for curve in test.curves]
        seen = sorted({cell for cells, _ in places for cell in cells})
        times = output_times(test)
        flow = dgpde.Richards(
            grid,
            dgpde.Saturated(transmissivity / thickness),
            boundaries=dict.fromkeys(self.far, dgpde.HydraulicHead(0.0)),
            sources=[dgpde.Well(well, -test.rate * share)],
            specific_storage=storativity / thickness,
        )
        fall = -(flow.solve(-grid.z, times, OPTIONS, save_cells=seen).psi + float(grid.z))
        found = []
        for curve, (cells, weights) in zip(test.curves, places, strict=True):
            own = fall[:, [seen.index(cell) for cell in cells]] @ weights
            found.append(at_readings(times, own, curve.time))
        return found

    def misfits(self, transmissivity: Tensor, storativity: Tensor) -> Tensor:
        """Simulated less measured drawdown [m], all curves of all tests in a row."""
        return torch.cat(
            [
                simulated - curve.drawdown
                for test in self.tests
                for simulated, curve in zip(
                    self.drawdown(test, transmissivity, storativity), test.curves, strict=True
                )
            ]
        )


def output_times(test: PumpingTest) -> Tensor:
    """Zero, then times that grow by a sixth from before the first reading to the last: the steps of the solve."""
    readings = torch.cat([curve.time for curve in test.curves])
    first, last = 0.2 * float(readings.min()), float(readings.max())
    count = 1 + math.ceil(math.log(last / first) / math.log(7.0 / 6.0))
    steps = torch.logspace(math.log10(first), math.log10(last), count, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), steps])


def at_readings(times: Tensor, fall: Tensor, readings: Tensor) -> Tensor:
    """Drawdown [k] at readings [k] from that at the output times [T + 1], linear in the logarithm of time."""
    after = torch.searchsorted(times, readings * (1.0 - 1e-9)).clamp(min=2)
    low, high = times[after - 1].log(), times[after].log()
    part = (readings.log() - low) / (high - low)
    return (1.0 - part) * fall[after - 1] + part * fall[after]


def around(grid: dgpde.Grid, place: tuple[float, float]) -> tuple[list[tuple[int, int, int]], Tensor]:
    """The cells whose centres surround a place, and their bilinear weights; one cell along an axis on a centre."""
    along = []
    for sizes, at in zip(grid.spacing[:0:-1], place, strict=True):  # x, then y
        centres = sizes.cumsum(0) - 0.5 * sizes
        k = int(torch.searchsorted(centres, at - 1e-9))
        if k == 0 or abs(float(centres[k]) - at) < 1e-9:
            along.append([(k, 1.0)])
        else:
            low, high = centres[k - 1 : k + 1].tolist()
            part = (at - low) / (high - low)
            along.append([(k - 1, 1.0 - part), (k, part)])
    pairs = [((0, j, i), wy * wx) for j, wy in along[1] for i, wx in along[0]]
    return [cell for cell, _ in pairs], torch.tensor([weight for _, weight in pairs], dtype=torch.float64)


def growing(first: float, factor: float, reach: float) -> list[float]:
    """Sizes that grow from ``first`` by ``factor`` until they add up to ``reach`` [m]."""
    sizes: list[float] = []
    while sum(sizes) < reach:
        sizes.append((sizes[-1] if sizes else first) * factor)
    return sizes


def korendijk() -> Aquifer:
    """Oude Korendijk, a quarter of the plane: the well is on the corner cell, which is a quarter of a cell."""
    rows = [row for row in read_csv(f"{FOLDER}/drawdown.csv") if row["test"] == "oude_korendijk"]
    about = next(row for row in read_csv(f"{FOLDER}/tests.csv") if row["test"] == "oude_korendijk")
    # 3 m, then 6 m: centres at 30 m and 90 m from the well, where the observation wells are
    sizes = [3.0, *[6.0] * 16]
    sizes += growing(6.0, 1.4, 8000.0)
    quarter = dgpde.Grid((1, len(sizes), len(sizes)), ([float(about["thickness_m"])], sizes, sizes))
    # the wells lie along x from the corner: in the first row, whose centres are 1.5 m from the axis of symmetry
    curves = []
    for name in ("P30", "P90"):
        own = [row for row in rows if row["well"] == name]
        place = (float(own[0]["distance_m"]), 1.5)
        curves.append(Curve(name, place, column(own, "time_s"), column(own, "drawdown_m")))
    rate = float(about["discharge_m3_d"]) / DAY / 4.0
    return Aquifer(quarter, ("east", "north"), [PumpingTest("Oude Korendijk", (1.5, 1.5), rate, curves)])


def horkheim(cell: float = 1.5) -> Aquifer:
    """Horkheimer Insel: square cells of ``cell`` m around the wells, growing ones to 400 m around them."""
    wells = {
        row["well"]: (float(row["x_m"]), float(row["y_m"]))
        for row in read_csv(f"{FOLDER}/horkheim_wells.csv")
    }
    rows = read_csv(f"{FOLDER}/horkheim_drawdown.csv")
    margin = growing(cell, 1.35, 400.0)
    sizes, corner = [], []
    for axis in (0, 1):
        places = [place[axis] for place in wells.values()]
        low, high = min(places) - 4.0, max(places) + 4.0
        inner = [cell] * math.ceil((high - low) / cell)
        sizes.append([*margin[::-1], *inner, *margin])
        corner.append(low - sum(margin))
    local = {name: (x - corner[0], y - corner[1]) for name, (x, y) in wells.items()}
    tests = []
    for pumped in sorted({row["pumped_well"] for row in rows}):
        curves, rate = [], 0.0
        for name in wells:
            # a pumped well shows the losses of the well itself
            if name == pumped:
                continue
            own = [
                row
                for row in rows
                if (row["pumped_well"], row["observed_well"]) == (pumped, name)
                and float(row["time_s"]) >= FIRST_SECOND
            ]
            rate = float(own[0]["discharge_m3_s"])
            curves.append(Curve(name, local[name], column(own, "time_s"), column(own, "drawdown_m")))
        tests.append(PumpingTest(pumped, local[pumped], rate, curves))
    grid = dgpde.Grid((1, len(sizes[1]), len(sizes[0])), ([THICKNESS], sizes[1], sizes[0]))
    return Aquifer(grid, ("west", "east", "south", "north"), tests)


def jacobian(model: Callable[[Tensor], Tensor], p: Tensor) -> tuple[Tensor, Tensor]:
    """Values [m] of a model of few parameters p [k] and their Jacobian [m, k], by the solver's forward mode."""
    columns = []
    for unit in torch.eye(p.numel(), dtype=p.dtype):
        with forward_ad.dual_level():
            value, tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(p, unit)))
            columns.append(tangent)
    return value, torch.stack(columns, 1)


@dataclass(frozen=True)
class Fit:
    """Two numbers with their standard errors (of the logarithms), and what they leave.

    Attributes:
        transmissivity: m2/s.
        storativity: [-].
        error: standard errors of ln T and ln S if the misfits were independent, which drawdown is not.
        rmse: m.
        rounds: Gauss-Newton steps.
    """

    transmissivity: float
    storativity: float
    error: tuple[float, float]
    rmse: float
    rounds: int


def fit_two(aquifer: Aquifer, transmissivity: float, storativity: float, rounds: int = 12) -> Fit:
    """Least squares of all drawdowns over ln T and ln S: Gauss-Newton, steps of at most 1 in a logarithm.

    Args:
        aquifer: what was measured.
        transmissivity, storativity: where to begin, m2/s and -.
        rounds: at most; it ends when a step would change neither by a part of 1e-3.
    """

    def model(p: Tensor) -> Tensor:
        return aquifer.misfits(p[0].exp(), p[1].exp())

    p = torch.tensor([transmissivity, storativity], dtype=torch.float64).log()
    for done in range(rounds + 1):
        misfit, slope = jacobian(model, p)
        step = torch.linalg.lstsq(slope, -misfit[:, None]).solution[:, 0]
        if done == rounds or float(step.abs().max()) < 1e-3:
            break
        p = p + step.clamp(-1.0, 1.0)
    variance = misfit.square().sum() / (misfit.numel() - 2)
    error = (torch.linalg.inv(slope.T @ slope).diagonal() * variance).sqrt().tolist()
    t, s = p.exp().tolist()
    return Fit(t, s, (error[0], error[1]), misfit.square().mean().sqrt().item(), done)


def roughness(grid: dgpde.Grid, field: Tensor) -> Tensor:
    """Integral over the plane of the squared gradient of a field [1, ny, nx], by its differences over faces."""
    total = field.new_zeros(())
    for axis, across in ((1, 2), (2, 1)):
        sizes = grid.spacing[axis]
        distance = (0.5 * (sizes[1:] + sizes[:-1])).reshape([-1 if k == axis else 1 for k in range(3)])
        width = grid.spacing[across].reshape([-1 if k == across else 1 for k in range(3)])
        total = total + (field.diff(dim=axis).square() * width / distance).sum()
    return total


@dataclass(frozen=True)
class FieldFit:
    """A field of transmissivity [1, ny, nx] m2/s, one storativity, RMSE [m] and the loss of each evaluation."""

    transmissivity: Tensor
    storativity: float
    rmse: float
    losses: list[float]


def fit_field(
    aquifer: Aquifer, start: Fit, iterations: int, noise: float = 1e-3, spread: float = 0.5
) -> FieldFit:
    """A field of ln T and one ln S by L-BFGS on the adjoint's gradient, beginning with two fitted numbers.

    Minimises sum of (misfit / noise)^2 / 2 + roughness of ln T / (2 spread^2).

    Args:
        aquifer: what was measured.
        start: where to begin.
        iterations: of L-BFGS.
        noise: standard deviation of a reading less the model [m].
        spread: of ln T; what a smooth field may differ over some cells.
    """
    grid = aquifer.grid
    field = torch.full(grid.shape, math.log(start.transmissivity), dtype=torch.float64, requires_grad=True)
    ln_s = torch.tensor(math.log(start.storativity), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [field, ln_s], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
    )
    losses: list[float] = []

    def loss() -> Tensor:
        optimiser.zero_grad()
        misfit = aquifer.misfits(field.exp(), ln_s.exp())
        value = 0.5 * (misfit / noise).square().sum() + 0.5 * roughness(grid, field) / spread**2
        value.backward()
        losses.append(value.item())
        return value

    if iterations:
        optimiser.step(loss)
    with torch.no_grad():
        rmse = aquifer.misfits(field.exp(), ln_s.exp()).square().mean().sqrt().item()
    return FieldFit(field.detach().exp(), ln_s.exp().item(), rmse, losses)


def theis(
    transmissivity: float, storativity: float, rate: float, distance: float, times: Sequence[float]
) -> Tensor:
    """Drawdown [m] in a confined aquifer without end (Theis 1935): Q/(4 pi T) W(r^2 S/(4 T t)).

    W is integrated by the trapezoidal rule over v of exp(-u e^v), v from 0, where u is the argument of W.
    """
    v = torch.linspace(0.0, 40.0, 20001, dtype=torch.float64)
    u = distance**2 * storativity / (4.0 * transmissivity * np.asarray(times, dtype=float))
    integrand = torch.exp(-torch.from_numpy(u)[:, None] * v.exp())
    return rate / (4.0 * math.pi * transmissivity) * torch.trapezoid(integrand, v, dim=1)


def run(folder: Path, iterations: int | None = None) -> list[list[object]]:
    """Fit both sites, print what was found, write figures and table to ``folder``.

    Args:
        folder: must be there.
        iterations: of the field's fit; None for the demonstration's own.
    """
    start = time.perf_counter()
    rows: list[list[object]] = []

    def say(site: str, values: tuple[float, float, float]) -> None:
        rows.append([site, *values])
        t, s, rmse = values
        print(f"{site}: T {t:.5f} m2/s ({t * DAY:.1f} m2/d), S {s:.3g}, RMSE {rmse * 1e3:.2f} mm", flush=True)

    one = korendijk()
    print(f"Oude Korendijk, published: T {PUBLISHED[0] * DAY:.0f} m2/d, S {PUBLISHED[1]:.2g}")
    simple = fit_two(one, 1e-3, 1e-3)
    say("Oude Korendijk", (simple.transmissivity, simple.storativity, simple.rmse))
    print(f"  standard errors of ln T and ln S: {simple.error[0]:.3f}, {simple.error[1]:.3f}")
    many = horkheim()
    curves = sum(len(test.curves) for test in many.tests)
    print(f"Horkheim: {curves} curves of {len(many.tests)} tests, {tuple(many.grid.shape)} cells")
    even = fit_two(many, 0.01, 0.01)
    say("Horkheim, T even", (even.transmissivity, even.storativity, even.rmse))
    count = ITERATIONS if iterations is None else iterations
    field = fit_field(many, even, count)
    inner = field.transmissivity.log()[0, 15:-15, 15:-15]
    say("Horkheim, T a field", (inner.mean().exp().item(), field.storativity, field.rmse))
    print(
        f"  {len(field.losses)} gradients; standard deviation of ln T among the wells {inner.std().item():.2f}"
    )
    with (folder / "pumping.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["site", "transmissivity_m2_s", "storativity", "rmse_m"])
        writer.writerows(rows)
    from dgpde.demos import pumping_figures

    figures = pumping_figures.draw(folder, one, simple, many, even, field)
    print(f"\n{len(figures)} figures and pumping.csv are in {folder}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    return rows
