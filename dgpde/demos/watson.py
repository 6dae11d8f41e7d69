"""Deuterium into a dry plot (Benettin et al. 2024): what one column can say of water that moved in patches.

A bare plot of 3 m2 near Florence took 27 mm of water with deuterium on 12 September 2023 and 28 mm without a day later;
probes along a trench saw the water, ten cores the deuterium. One column of one soil under evaporation and a share of
both irrigations, the rest having gone by in patches: first its soil from the probes alone and its dispersivity from the
early cores, then all of it from both together, by gradients through transport and flow. The late cores are withheld.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import dgpde
from dgpde import plot
from dgpde.demos.least_squares import Estimate, Prior, least_squares, rows
from dgpde.demos.score import ErrorTable
from dgpde.demos.soils import AIR_ENTRY, head_of_moisture
from dgpde.demos.tables import DAY, MM, column, read_csv

FOLDER = "watson-tracer-2023"
HOUR = 3600.0  # s
START = dt.datetime(2023, 9, 12, 16, 30)
RESET = dt.datetime(2023, 9, 13, 8, 30)  # animals had moved the shallow probes
# beginning, end, mm, and per mil of the second irrigation: tap water
IRRIGATIONS = (
    (dt.datetime(2023, 9, 12, 16, 40), dt.datetime(2023, 9, 12, 19, 0), 27.0, "INPUT"),
    (dt.datetime(2023, 9, 13, 17, 30), dt.datetime(2023, 9, 13, 19, 45), 28.0, "TAP"),
)
DEPTHS = (0.10, 0.20, 0.30, 0.40)  # m, of the probes
HEIGHT, CELLS = 1.0, 50
THETA_R = 0.02
NOISE = (0.03, 30.0)  # -, per mil: what probes at a depth and cores of a date differ by
NAMES = ("theta_s", "ln alpha", "ln (n - 1)", "ln k_sat", "ln evaporation", "logit share", "ln dispersivity")
# Evaporation is held near 3 mm/d, what a day of September may ask for: it was not measured, and left free it would
# have to make away with the water that the probes did not see.
PRIOR_MEAN = (0.4, math.log(4.0), math.log(0.5), math.log(1e-5), math.log(3.0), 0.0, math.log(0.03))
PRIOR_SPREAD = (0.05, 0.7, 0.5, 1.5, 0.1, 1.5, 1.0)
EARLY = ("C", "D", "E", "F")  # cores up to the morning after the second irrigation
DATES = dict(
    zip("CDEFGHIJ", [date for date in ("13 Sep", "14 Sep", "23 Sep", "1 Oct") for _ in range(2)], strict=True)
)
UNRELIABLE = ("E020", "D020b")  # by the authors' note; taken from a blue patch on purpose


@dataclass(frozen=True)
class Sample:
    """A piece of a core.

    Attributes:
        core: its letter.
        time: s since the start.
        top, bottom: depth [m].
        d2h: per mil.
    """

    core: str
    time: float
    top: float
    bottom: float
    d2h: float


@dataclass(frozen=True)
class Plot:
    """What was measured.

    Attributes:
        theta0: [4] mean water content at each depth of the probes before the first irrigation.
        times: [r] s of the readings that are compared.
        theta: [r, 4] mean water content at each depth.
        before: samples of the cores A and B.
        samples: those of the others.
        inflow: per mil of each irrigation.
    """

    theta0: Tensor
    times: Tensor
    theta: Tensor
    before: list[Sample]
    samples: list[Sample]
    inflow: tuple[float, ...]


def seconds(when: dt.datetime) -> float:
    """Since the start."""
    return (when - START).total_seconds()


def load() -> Plot:
    """Read the probes and the cores.

    Readings that are compared: every two hours from the reset to the noon after the second irrigation, then daily.
    """
    table = read_csv(f"{FOLDER}/water_content.csv")
    when = [dt.datetime.strptime(row["time_utc+1"], "%Y-%m-%d %H:%M") for row in table]
    probes = [[name for name in table[0] if name.endswith(f"_{round(100 * d)}")] for d in DEPTHS]
    means = torch.stack(
        [torch.nanmean(torch.stack([column(table, name) for name in names]), 0) for names in probes], 1
    )
    wanted = [RESET + dt.timedelta(minutes=35, hours=2 * k) for k in range(14)]
    wanted += [dt.datetime(2023, 9, 15 + k, 12, 5) for k in range(16)]
    chosen = [next(k for k, time in enumerate(when) if time >= at) for at in wanted]
    samples = []
    inflow = {}
    for row in read_csv(f"{FOLDER}/isotope_profiles.csv"):
        if not row["core"]:
            inflow[row["shortID"]] = float(row["d2H"])
        elif row["shortID"] not in UNRELIABLE:
            text = f"{row['date']} {row['mean sampling time']}"
            samples.append(
                Sample(
                    row["core"],
                    seconds(dt.datetime.strptime(text, "%d/%m/%Y %H:%M")),
                    float(row["depth_min"]) / 100.0,
                    float(row["depth_max"]) / 100.0,
                    float(row["d2H"]),
                )
            )
    return Plot(
        theta0=means[0],
        times=torch.tensor([seconds(when[k]) for k in chosen], dtype=torch.float64),
        theta=means[chosen],
        before=[sample for sample in samples if sample.core in "AB"],
        samples=[sample for sample in samples if sample.core not in "AB"],
        inflow=tuple(inflow[name] for *_, name in IRRIGATIONS),
    )


def mean_at(samples: Sequence[Sample], top: float, bottom: float) -> float:
    """Mean d2H of the samples of a depth; of the deepest ones below them."""
    inside = [s.d2h for s in samples if s.top < bottom - 1e-6 and s.bottom > top + 1e-6]
    if not inside:
        deepest = max(sample.bottom for sample in samples)
        inside = [sample.d2h for sample in samples if sample.bottom == deepest]
    return sum(inside) / len(inside)


class Model:
    """One column under the two irrigations."""

    def __init__(self, data: Plot, dt_max: float = HOUR) -> None:
        self.data, self.dt_max = data, dt_max
        edges = [seconds(moment) for begin, end, *_ in IRRIGATIONS for moment in (begin, end)]
        marks = {0.0, *edges, *data.times.tolist(), *(sample.time for sample in data.samples)}
        self.times = torch.tensor(sorted(marks), dtype=torch.float64)
        begin = self.times[:-1]
        self.rain = torch.zeros_like(begin)
        self.inflow = torch.zeros_like(begin)
        for (first, last, amount, _), d2h in zip(IRRIGATIONS, data.inflow, strict=True):
            during = (begin >= seconds(first)) & (begin < seconds(last))
            self.rain[during] = amount * MM / (seconds(last) - seconds(first))
            self.inflow[begin >= seconds(first)] = d2h
        self.grid = dgpde.Grid.columns(1, [HEIGHT / CELLS] * CELLS, z_bottom=-HEIGHT)
        depth = self.grid.depth.flatten()
        self.theta0 = interpolated(depth, torch.tensor(DEPTHS, dtype=torch.float64), data.theta0)[:, None]
        size = HEIGHT / CELLS
        found = [mean_at(data.before, float(d) - 0.5 * size, float(d) + 0.5 * size) for d in depth]
        self.c0 = torch.tensor(found, dtype=torch.float64)[:, None]

    def simulate(self, p: Tensor) -> tuple[dgpde.Solution, dgpde.TransportSolution]:
        """Water and deuterium of one column for every column of p [7, n]; see ``NAMES``, evaporation in mm/d."""
        theta_s, ln_alpha, ln_n, ln_k, ln_evaporation, share, ln_spread = p[:, None]
        soil = {"theta_r": torch.full_like(theta_s, THETA_R), "theta_s": theta_s, "alpha": ln_alpha.exp()}
        soil |= {"n": 1.0 + ln_n.exp(), "k_sat": ln_k.exp()}
        grid = dgpde.Grid.columns(p.shape[1], self.grid.dz, z_bottom=-HEIGHT)
        top = dgpde.Atmosphere(
            dgpde.Series(self.rain[:, None] * torch.sigmoid(share[0])),
            dgpde.Series((ln_evaporation[0].exp() * MM / DAY).expand(len(self.rain), -1)),
            psi_min=-1e4,
            ponding_max=0.05,
        )
        flow = dgpde.Richards(
            grid,
            dgpde.VanGenuchten(**soil, air_entry=AIR_ENTRY),
            {"top": top, "bottom": dgpde.FreeDrainage()},
        )
        options = dgpde.SolveOptions(dt_initial=10.0, dt_max=self.dt_max)
        run = flow.solve(head_of_moisture(self.theta0, soil), self.times, options)
        water = dgpde.Solute(
            "deuterium", longitudinal_dispersivity=ln_spread.exp(), diffusion=2.3e-9, evaporates=True
        )
        model = dgpde.Transport(
            grid, water, {"top": dgpde.InflowConcentration(dgpde.Series(self.inflow))}, "tvd"
        )
        return run, model.solve(self.c0, run)

    def at_probes(self, run: dgpde.Solution, row: int, depth: float) -> Tensor:
        """Water content [n] at a probe: of the two cells around it."""
        face = round((HEIGHT - depth) / HEIGHT * CELLS)
        return 0.5 * (run.theta[row, face - 1] + run.theta[row, face])

    def in_core(self, run: dgpde.Solution, carried: dgpde.TransportSolution, sample: Sample) -> Tensor:
        """d2H [n] of all water of a sample's depth."""
        low, high = (round((HEIGHT - depth) / HEIGHT * CELLS) for depth in (sample.bottom, sample.top))
        row = int(torch.searchsorted(self.times, sample.time - 1e-6))
        water = run.theta[row, low:high]
        return (water * carried.concentration[row, low:high]).sum(0) / water.sum(0)

    def values(self, p: Tensor, probes: bool, cores: Sequence[Sample]) -> Tensor:
        """Readings as simulated, in units of their noise; the reading i in the column i of p."""
        run, carried = self.simulate(p)
        found: list[Tensor] = []
        if probes:
            index = torch.searchsorted(self.times, self.data.times - 1e-6).tolist()
            for row in index:
                for depth in DEPTHS:
                    found.append(self.at_probes(run, row, depth)[len(found)] / NOISE[0])
        for sample in cores:
            found.append(self.in_core(run, carried, sample)[len(found)] / NOISE[1])
        return torch.stack(found)

    def fit(
        self, start: Tensor, prior: Prior, probes: bool, cores: Sequence[Sample], rounds: int
    ) -> Estimate:
        """Least squares over the probes, some cores or both."""
        parts = [self.data.theta.flatten() / NOISE[0]] if probes else []
        parts.append(torch.tensor([sample.d2h for sample in cores], dtype=torch.float64) / NOISE[1])
        measured = torch.cat(parts)

        def misfits(p: Tensor) -> tuple[Tensor, Tensor]:
            found, slopes = rows(lambda wide: self.values(wide, probes, cores), p, measured.numel())
            return found - measured, slopes

        return least_squares(misfits, start, prior, rounds)


def interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y [k] over increasing x [k], linear, at any places, constant beyond the ends."""
    place = at.clamp(float(x[0]), float(x[-1]))
    after = torch.searchsorted(x, place).clamp(1, x.numel() - 1)
    share = (place - x[after - 1]) / (x[after] - x[after - 1])
    return y[after - 1] + share * (y[after] - y[after - 1])


def score(model: Model, methods: dict[str, Tensor]) -> tuple[ErrorTable, ErrorTable]:
    """Root mean square errors of water content by depth and of d2H by date, beside those of simple rules."""
    data = model.data
    moisture = ErrorTable(["all", *(f"{100 * depth:.0f} cm" for depth in DEPTHS)])
    dates = list(dict.fromkeys(DATES.values()))
    isotopes = ErrorTable([*dates, "early", "late"])

    def add_moisture(name: str, simulated: Tensor) -> None:
        off = (simulated - data.theta).square()
        moisture.add(name, [off.mean().sqrt().item(), *off.mean(0).sqrt().tolist()])

    def add_isotopes(name: str, simulated: Sequence[float]) -> None:
        off = torch.tensor([x - s.d2h for x, s in zip(simulated, data.samples, strict=True)]).square()
        early = torch.tensor([sample.core in EARLY for sample in data.samples])
        groups = [torch.tensor([DATES[s.core] == date for s in data.samples]) for date in dates]
        isotopes.add(name, [off[group].nanmean().sqrt().item() for group in (*groups, early, ~early)])

    add_moisture("first reading for ever", data.theta[:1].expand_as(data.theta))
    add_moisture("mean of all readings", data.theta.mean(0).expand_as(data.theta))
    add_isotopes(
        "cores before the irrigations", [mean_at(data.before, s.top, s.bottom) for s in data.samples]
    )
    early = [sample for sample in data.samples if sample.core in EARLY]
    add_isotopes("mean of the early cores", [mean_at(early, s.top, s.bottom) for s in data.samples])
    last = [sample for sample in data.samples if sample.core in "EF"]
    add_isotopes("cores of 14 Sep for ever", [mean_at(last, s.top, s.bottom) for s in data.samples])
    others = []
    for sample in data.samples:
        beside = [
            s.d2h
            for s in data.samples
            if DATES[s.core] == DATES[sample.core] and s.core != sample.core and s.top == sample.top
        ]
        others.append(beside[0] if beside else math.nan)
    add_isotopes("the other core of the date", others)
    index = torch.searchsorted(model.times, data.times - 1e-6).tolist()
    with torch.no_grad():
        for name, p in methods.items():
            run, carried = model.simulate(p[:, None])
            at = [[model.at_probes(run, row, depth)[0] for depth in DEPTHS] for row in index]
            add_moisture(name, torch.tensor(at, dtype=torch.float64))
            add_isotopes(name, [model.in_core(run, carried, sample)[0].item() for sample in data.samples])
    return moisture, isotopes


def run(folder: Path, iterations: int | None = None, dt_max: float = HOUR) -> tuple[ErrorTable, ErrorTable]:
    """Fit, print the tables of errors, write figure and tables to ``folder``.

    Args:
        folder: must be there.
        iterations: most steps of each fit; None for as many as it takes.
        dt_max: longest step [s].
    """
    start = time.perf_counter()
    model = Model(load(), dt_max)
    data = model.data
    mean, spread = (torch.tensor(x, dtype=torch.float64) for x in (PRIOR_MEAN, PRIOR_SPREAD))
    early = [sample for sample in data.samples if sample.core in EARLY]
    rounds = 12 if iterations is None else iterations
    prior = Prior(mean, spread)
    by_probes = model.fit(mean, prior, True, [], rounds)
    # the cores may then say only how it spreads: the soil is that of the probes
    held = torch.cat([torch.full((6,), 1e-4, dtype=torch.float64), spread[6:]])
    then_cores = model.fit(by_probes.p, Prior(by_probes.p, held), False, early, rounds)
    together = model.fit(by_probes.p, prior, True, early, rounds)
    methods = {"probes, then early cores": then_cores.p, "both together": together.p}
    moisture, isotopes = score(model, {"prior": mean, **methods})
    for name, p in methods.items():
        theta_s, alpha, n, k_sat, evaporation, odds, length = (p[0], *p[1:].exp())
        print(
            f"{name}: theta_s {theta_s:.3f}, alpha {alpha:.2f} 1/m, n {1 + n:.2f}, k_sat {k_sat:.1e} m/s, evaporation "
            f"of at most {evaporation:.2f} mm/d, share of the irrigation {odds / (1.0 + odds):.2f}, dispersivity "
            f"{100 * length:.1f} cm"
        )
    print("\nRMSE of water content, means of the probes of a depth [-]")
    print(moisture.text())
    print("\nRMSE of d2H of the cores [per mil]; the late ones were withheld from the fits")
    print(isotopes.text())
    moisture.write(folder / "rmse_water.csv")
    isotopes.write(folder / "rmse_d2h.csv")
    draw(folder / "watson.png", model, methods)
    print(f"\nwatson.png, rmse_water.csv and rmse_d2h.csv are in {folder}")
    print(f"{time.perf_counter() - start:.1f} s in all")
    return moisture, isotopes


@torch.no_grad()
def draw(path: Path, model: Model, methods: dict[str, Tensor]) -> None:
    """Water content at the probes over time, and d2H over depth at the four dates of the cores."""
    data = model.data
    colours = dict(zip(methods, (plot.NEW, plot.SIMULATED), strict=True))
    runs = {name: model.simulate(p[:, None]) for name, p in methods.items()}
    dates = list(dict.fromkeys(DATES.values()))
    with plot.style():
        figure, axes = plot.figure(2, 4, (13, 7))
        for ax, depth, k in zip(axes[0], DEPTHS, range(len(DEPTHS)), strict=True):
            ax.scatter(data.times / DAY, data.theta[:, k], s=8, color=plot.OBSERVED, label="mean of probes")
            for name, (water, _) in runs.items():
                face = round((HEIGHT - depth) / HEIGHT * CELLS)
                theta = 0.5 * (water.theta[:, face - 1, 0] + water.theta[:, face, 0])
                ax.plot(model.times / DAY, theta, color=colours[name], lw=1.3, label=name)
            ax.set_title(f"{100 * depth:.0f} cm")
            ax.set_xlabel("days since 12 Sep 16:30")
            ax.set_ylim(0.0, 0.35)
        axes[0, 0].set_ylabel("water content")
        axes[0, 0].legend()
        centre = model.grid.depth.flatten()
        for ax, date in zip(axes[1], dates, strict=True):
            own = [sample for sample in data.samples if DATES[sample.core] == date]
            row = int(torch.searchsorted(model.times, own[0].time - 1e-6))
            for name, (_, carried) in runs.items():
                ax.plot(carried.concentration[row, :, 0], centre, color=colours[name], lw=1.3)
            ax.plot(model.c0[:, 0], centre, color=plot.PRIOR, lw=1.0, ls="--", label="before")
            for core, marker in zip(sorted({sample.core for sample in own}), "os", strict=True):
                pieces = [sample for sample in own if sample.core == core]
                ax.scatter(
                    [piece.d2h for piece in pieces],
                    [0.5 * (piece.top + piece.bottom) for piece in pieces],
                    s=18,
                    marker=marker,
                    color=plot.OBSERVED,
                    label=f"core {core}",
                )
            ax.set_ylim(0.8, 0.0)
            ax.set_xlim(-80.0, 420.0)
            ax.set_title(f"{date}, {'fitted' if own[0].core in EARLY else 'withheld'}")
            ax.set_xlabel("d2H [per mil]")
            ax.legend()
        axes[1, 0].set_ylabel("depth [m]")
        plot.save(figure, path)
