"""Random hard columns: soils, layering, initial states, forcing and time steps on which Richards solvers fail.

2,000 columns come in groups of 40 that share what one run must share (grid, kinds of boundary, face mean, times,
steps); everything else is drawn for each column. Drawn are

- nz 10-200 cells on 0.5-10 m, uniform or refined towards the top up to 100 times;
- 1-8 layers of van Genuchten soils, half of them from the catalogue of Carsel & Parrish (1988, Water Resour. Res.
  24, 755-769) with another conductivity, half random: n 1.05-3, alpha 0.1-15 /m, k_sat 1e-11-1e-3 m/s with contrasts
  up to 1e6 in a column, air entry 0 or 0.02 m;
- specific storage 0 or 1e-7-1e-4 /m;
- initial psi: hydrostatic above a water table, or -1, -10, -100, -1000 m everywhere;
- top: ponded 0-0.2 m; a flux up to 30 times the conductivity of the column; storms of 1-100 mm/h with a ponding limit;
  evaporation with a head limit; storms and evaporation in turn. Bottom: closed, head, free drainage;
- fixed steps of 1 s to 1 day (cut where Newton fails) or steps by truncation error.

Nothing that is physically impossible is drawn: a flux that is forced into a column which cannot drain it (closed, or
draining by gravity alone) fills at most half of the pore space that is free at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dgpde

Array = NDArray[np.float64]

COLUMNS, GROUP = 2000, 40
INTERVALS = 4
PSI0 = ("water table", "-1 m", "-10 m", "-100 m", "-1000 m")
TOPS = ("ponded", "flux", "storm", "evaporation", "weather")
BOTTOMS = ("closed", "head", "free drainage")
DAY, HOUR = 86400.0, 3600.0
# theta_r, theta_s, alpha [1/m], n: sand, loamy sand, sandy loam, loam, silt, silt loam, sandy clay loam, clay loam,
# silty clay loam, sandy clay, silty clay, clay
CATALOGUE = np.array(
    [
        (0.045, 0.43, 14.5, 2.68),
        (0.057, 0.41, 12.4, 2.28),
        (0.065, 0.41, 7.5, 1.89),
        (0.078, 0.43, 3.6, 1.56),
        (0.034, 0.46, 1.6, 1.37),
        (0.067, 0.45, 2.0, 1.41),
        (0.100, 0.39, 5.9, 1.48),
        (0.095, 0.41, 1.9, 1.31),
        (0.089, 0.43, 1.0, 1.23),
        (0.100, 0.38, 2.7, 1.23),
        (0.070, 0.36, 0.5, 1.09),
        (0.068, 0.38, 0.8, 1.09),
    ]
)


@dataclass(frozen=True)
class HardColumns:
    """A group of columns that one call solves. Arrays are float64; fields [nz, n], series [INTERVALS, n]."""

    dz: Array  # [nz] m
    face_mean: str
    top: str  # of TOPS
    bottom: str  # of BOTTOMS
    times: Array  # [INTERVALS + 1] s
    dt_fixed: float | None  # s
    values: dict[
        str, Tensor
    ]  # what is differentiated: psi0, alpha, n, k_sat, theta_s and the boundary values
    fixed: dict[str, Tensor]
    labels: dict[str, list[str]]  # stratum of each column, by name

    @property
    def n(self) -> int:
        """Number of columns."""
        return int(self.values["psi0"].shape[1])

    def model(self, values: dict[str, Tensor]) -> dgpde.Richards:
        """The columns with these values in place of ``self.values``."""
        soil = dgpde.VanGenuchten(
            theta_r=self.fixed["theta_r"],
            theta_s=values["theta_s"],
            alpha=values["alpha"],
            n=values["n"],
            k_sat=values["k_sat"],
            air_entry=self.fixed["air_entry"],
        )
        top: dgpde.Head | dgpde.Flux | dgpde.Atmosphere
        if self.top == "ponded":
            top = dgpde.Head(dgpde.Series(values["top"]))
        elif self.top == "flux":
            top = dgpde.Flux(dgpde.Series(values["top"]))
        else:
            top = dgpde.Atmosphere(
                dgpde.Series(values["top"]),
                dgpde.Series(self.fixed["evaporation"]),
                psi_min=self.fixed["psi_min"],
                ponding_max=self.fixed["ponding_max"],
            )
        boundaries: dict[str, dgpde.boundary.Boundary] = {"top": top}
        if self.bottom == "head":
            boundaries["bottom"] = dgpde.Head(self.fixed["bottom"])
        elif self.bottom == "free drainage":
            boundaries["bottom"] = dgpde.FreeDrainage()
        return dgpde.Richards(
            dgpde.Grid.columns(self.n, self.dz),
            soil,
            boundaries=boundaries,
            specific_storage=self.fixed["specific_storage"],
            face_mean=self.face_mean,
        )

    def round_off(self, run: dgpde.Solution) -> Tensor:
        """[n] m: what round-off alone does to the balance.

        It is that of the water held, four units in the last place at every step, and that of the heads on either
        side of a boundary face, which a conductive half cell multiplies: q = k_sat / (dz/2) (psi_b - psi).
        """
        unit, k_sat = 4.0 * torch.finfo(torch.float64).eps, self.values["k_sat"]
        held = torch.from_numpy(self.dz) @ self.values["theta_s"]
        faces = torch.zeros_like(held)
        for cell, there in ((-1, self.top != "flux"), (0, self.bottom == "head")):
            half = 0.5 * float(self.dz[cell])
            if there:
                faces += k_sat[cell] / half * (run.psi[-1, cell].detach().abs() + half)
        return unit * (held * run.stats.steps + float(self.times[-1]) * faces)

    def solve(self, values: dict[str, Tensor] | None = None, **options: object) -> dgpde.Solution:
        """Run the group; a column that fails is reported, not raised."""
        chosen: dict[str, object] = {"on_failure": "return", "dt_fixed": self.dt_fixed} | options
        values = self.values if values is None else values
        ponding = self.fixed.get("ponding0", 0.0)
        return self.model(values).solve(
            values["psi0"],
            torch.from_numpy(self.times),
            options=dgpde.SolveOptions(**chosen),  # type: ignore[arg-type]
            save="last",
            ponding0=ponding,
        )


def hard_columns(columns: int = COLUMNS, seed: int = 0) -> Iterator[HardColumns]:
    """Groups with ``columns`` columns in all; the first ones are the same whatever their number."""
    for group in range(-(-columns // GROUP)):
        draw = np.random.default_rng((seed, group))
        yield _group(draw, group, min(GROUP, columns - group * GROUP))


def _log_uniform(draw: np.random.Generator, low: float, high: float, size: int | None = None) -> Array:
    return np.asarray(np.exp(draw.uniform(np.log(low), np.log(high), size)))


def _grid(draw: np.random.Generator) -> Array:
    """[nz] cell sizes from the bottom up."""
    nz = int(_log_uniform(draw, 10.0, 201.0))
    length = float(_log_uniform(draw, 0.5, 10.0))
    refinement = 1.0 if draw.random() < 0.5 else float(_log_uniform(draw, 5.0, 100.0))
    dz = np.geomspace(refinement, 1.0, nz)
    return np.asarray(dz * (length / dz.sum()))


def _layered(draw: np.random.Generator, nz: int) -> dict[str, Array]:
    """Soil of one column, [nz] each."""
    layers = min(int(draw.integers(1, 9)), nz)
    cuts = np.sort(draw.choice(np.arange(1, nz), layers - 1, replace=False))
    which = np.searchsorted(cuts, np.arange(nz), side="right")
    listed = CATALOGUE[draw.integers(0, len(CATALOGUE), layers)]
    theta_r = draw.uniform(0.0, 0.1, layers)
    theta_s = draw.uniform(0.3, 0.6, layers)
    alpha = _log_uniform(draw, 0.1, 15.0, layers)
    n = 1.0 + _log_uniform(draw, 0.05, 2.0, layers)
    random = draw.random(layers) < 0.5
    log_k = np.clip(draw.uniform(-11.0, -3.0) + draw.uniform(-3.0, 3.0, layers), -11.0, -3.0)
    return {
        "theta_r": np.where(random, theta_r, listed[:, 0])[which],
        "theta_s": np.where(random, theta_s, listed[:, 1])[which],
        "alpha": np.where(random, alpha, listed[:, 2])[which],
        "n": np.where(random, n, listed[:, 3])[which],
        "k_sat": 10.0 ** log_k[which],
        "air_entry": np.full(nz, 0.02 if draw.random() < 0.5 else 0.0),
        "specific_storage": np.full(
            nz, 0.0 if draw.random() < 0.5 else float(_log_uniform(draw, 1e-7, 1e-4))
        ),
    }


def _group(draw: np.random.Generator, group: int, n: int) -> HardColumns:
    """Kinds of boundary and of step are taken in turn, so that every pair of them comes up."""
    dz = _grid(draw)
    nz, length = dz.size, float(dz.sum())
    z = np.cumsum(dz) - 0.5 * dz
    top, bottom = TOPS[group % len(TOPS)], BOTTOMS[group % len(BOTTOMS)]
    adaptive = (group // 5) % 2 == 1
    dt_fixed: float | None = None
    if adaptive:
        span = float(draw.choice([HOUR, 6.0 * HOUR, DAY, 5.0 * DAY]))
    else:
        dt_fixed = float(_log_uniform(draw, 1.0, DAY))
        span = dt_fixed * float(draw.choice([1.0, 3.0]))
    times: Array = span * np.arange(INTERVALS + 1, dtype=np.float64)

    soils = [_layered(draw, nz) for _ in range(n)]
    soil = {name: np.stack([column[name] for column in soils], axis=1) for name in soils[0]}

    # a water table from the bottom to the surface; below half of the column where a flux must find room
    state = draw.integers(0, len(PSI0), n)
    table = length * draw.uniform(0.0, 0.5 if top == "flux" else 1.0, n)
    uniform = np.array([0.0, -1.0, -10.0, -100.0, -1000.0])[state]
    psi0 = np.where(state == 0, table - z[:, None], uniform)

    values = {"psi0": psi0} | {name: soil[name] for name in ("alpha", "n", "k_sat", "theta_s")}
    fixed = {name: soil[name] for name in ("theta_r", "air_entry", "specific_storage")}
    fixed["bottom"] = np.where(state == 0, table, draw.choice([-1.0, 0.0, 0.5], n))
    if top == "ponded":
        values["top"] = np.broadcast_to(draw.uniform(0.0, 0.2, n), (INTERVALS, n)).copy()
    elif top == "flux":
        room = (dz[:, None] * (soil["theta_s"] - _theta(soil, psi0))).sum(axis=0)
        conductivity = length / (dz[:, None] / soil["k_sat"]).sum(axis=0)
        flux = draw.uniform(0.0, 30.0, n) * conductivity
        if bottom != "head":
            flux = np.minimum(flux, 0.5 * room / times[-1])
        on = draw.random((INTERVALS, n)) < 0.7
        values["top"] = flux * on
    else:
        rain = _log_uniform(draw, 1e-3, 0.1, INTERVALS * n).reshape(INTERVALS, n) / HOUR
        evaporation = draw.uniform(1e-3, 0.02, (INTERVALS, n)) / DAY
        raining = {
            "storm": np.full((INTERVALS, n), True),
            "evaporation": np.full((INTERVALS, n), False),
            "weather": (np.arange(INTERVALS)[:, None] + draw.integers(0, 2, n)) % 2 == 0,
        }[top]
        values["top"] = rain * raining
        fixed["evaporation"] = evaporation * ~raining
        fixed["psi_min"] = np.minimum(draw.choice([-10.0, -150.0, -1000.0], n), 1.5 * psi0.min(axis=0))
        fixed["ponding_max"] = draw.choice([0.0, 0.01, 0.2], n)
        fixed["ponding0"] = np.where(
            draw.random(n) < 0.3, draw.uniform(0.0, 1.0, n) * fixed["ponding_max"], 0.0
        )

    face_mean = ("arithmetic", "upstream")[(group // 2) % 2]
    smallest = soil["n"].min(axis=0)
    contrast = soil["k_sat"].max(axis=0) / soil["k_sat"].min(axis=0)
    labels = {
        "top": [top] * n,
        "bottom": [bottom] * n,
        "face mean": [face_mean] * n,
        "steps": [
            "by truncation error"
            if adaptive
            else _class(
                dt_fixed or 0.0, {60.0: "fixed, < 1 min", HOUR: "fixed, < 1 h", np.inf: "fixed, to 1 day"}
            )
        ]
        * n,
        "initial psi": [PSI0[i] for i in state],
        "air entry": ["0.02 m" if entry > 0.0 else "none" for entry in soil["air_entry"][0]],
        "smallest n": [
            _class(v, {1.1: "< 1.1", 1.3: "1.1-1.3", 2.0: "1.3-2", np.inf: "> 2"}) for v in smallest
        ],
        "k_sat contrast": [_class(v, {1.5: "none", 1e3: "< 1e3", np.inf: "1e3-1e6"}) for v in contrast],
        "cells": [_class(nz, {30.0: "10-29", 100.0: "30-99", np.inf: "100-200"})] * n,
    }
    return HardColumns(
        dz=dz,
        face_mean=face_mean,
        top=top,
        bottom=bottom,
        times=times,
        dt_fixed=dt_fixed,
        values={name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()},
        fixed={name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in fixed.items()},
        labels=labels,
    )


def _theta(soil: dict[str, Array], psi: Array) -> Array:
    """van Genuchten water content without air entry, near enough for the room that is left."""
    y = (soil["alpha"] * np.maximum(-psi, 0.0)) ** soil["n"]
    se = (1.0 + y) ** (1.0 / soil["n"] - 1.0)
    return np.asarray(soil["theta_r"] + (soil["theta_s"] - soil["theta_r"]) * se)


def _class(value: float, bounds: dict[float, str]) -> str:
    """Name of the first bound above the value."""
    return next(name for bound, name in bounds.items() if value < bound)


def near_saturation(
    bottom: str, face_mean: str, roots: bool, n: int
) -> tuple[dgpde.Richards, Tensor, Tensor]:
    """Columns under rain of 0.9 to 1.1 k_sat in hourly intervals over two days, without air entry: model, psi0, times.

    Drawn for each column: n 1.1-1.5, alpha 0.5-8 /m, k_sat 1e-8-1e-5 m/s, half of them on another layer (k_sat up to 10
    times more or less); rain for 6-36 h, then evaporation and one more shower; psi0 -0.3 to -50 m. ``bottom`` is
    "free drainage" or "head" (-0.5, 0 or 0.3 m).
    """
    hours, nz = 48, 50
    draw = np.random.default_rng(0)
    exponent = np.tile(draw.uniform(1.1, 1.5, n), (nz, 1))
    k_sat = np.tile(10.0 ** draw.uniform(-8.0, -5.0, n), (nz, 1))
    rate = draw.uniform(0.9, 1.1, n) * k_sat[0]
    below = np.arange(nz)[:, None] < np.where(draw.random(n) < 0.5, draw.integers(5, nz - 5, n), 0)
    exponent = np.where(below, draw.uniform(1.1, 1.5, n), exponent)
    k_sat = np.where(below, k_sat * 10.0 ** draw.uniform(-1.0, 1.0, n), k_sat)
    hour = np.arange(hours)[:, None]
    rain = rate * ((hour < draw.integers(6, 37, n)) | (hour == 42))
    soil = dgpde.VanGenuchten(
        theta_r=0.05,
        theta_s=0.42,
        alpha=torch.from_numpy(_log_uniform(draw, 0.5, 8.0, n)),
        n=torch.from_numpy(exponent),
        k_sat=torch.from_numpy(k_sat),
    )
    head = torch.from_numpy(draw.choice([-0.5, 0.0, 0.3], n))
    psi0 = torch.from_numpy(np.tile(draw.choice([-0.3, -1.0, -5.0, -50.0], n), (nz, 1)))
    flow = dgpde.Richards(
        dgpde.Grid.columns(n, [0.02] * nz),
        soil,
        boundaries={
            "top": dgpde.Atmosphere(
                dgpde.Series(torch.from_numpy(rain)), 2e-8, psi_min=-150.0, ponding_max=0.01
            ),
            "bottom": dgpde.Head(head) if bottom == "head" else dgpde.FreeDrainage(),
        },
        sources=[dgpde.RootUptake(transpiration=5e-8, root_depth=0.5)] if roots else [],
        face_mean=face_mean,
    )
    return flow, psi0, HOUR * torch.arange(hours + 1, dtype=torch.float64)
