"""The reference cases of one-dimensional flow: their problems in the words of dgpde, and their profiles."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

import dgpde

FOLDER = Path(__file__).parent
Array = NDArray[np.float64]


@cache
def read(name: str) -> dict[str, Any]:
    """case.json of the case whose folder has the name, or begins with it and an underscore."""
    return json.loads((folder(name) / "case.json").read_text())


@cache
def table(name: str, file: str) -> dict[str, Array]:
    """The columns of a CSV file of a case; text columns are left out."""
    with (folder(name) / file).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = {}
    for key in rows[0]:
        try:
            columns[key] = np.array([float(row[key]) for row in rows])
        except ValueError:
            continue
    return columns


def folder(name: str) -> Path:
    if (FOLDER / name).is_dir():
        return FOLDER / name
    (found,) = FOLDER.glob(f"{name}_*")
    return found


@dataclass(frozen=True)
class Problem:
    """A case on a grid: the model, its initial state and the elevation of its cells."""

    flow: dgpde.Richards
    psi0: torch.Tensor  # [nz, 1] m
    z: Array  # [nz] m


def layers(name: str) -> list[tuple[float, dict[str, Any]]]:
    """Thickness and soil of each layer from the bottom up."""
    case = read(name)
    domain = case["domain"]
    if "layers_from_bottom" in domain:
        return [(layer["thickness_m"], layer["soil"]) for layer in domain["layers_from_bottom"]]
    if "x_m" in domain:  # semi-infinite: the length that the case advises
        return [(1.2 if name == "P8E" else 1.0, case["soil"])]
    bottom, top = domain["z_m"]
    return [(top - bottom, case["soil"])]


def soil_of(parts: list[dict[str, Any]]) -> dgpde.Soil:
    """The relation of a case on its cells, from the soil of each cell."""

    def field(key: str, scale: float = 1.0) -> torch.Tensor:
        return torch.tensor([[part[key] * scale] for part in parts], dtype=torch.float64)

    common = {"theta_r": field("theta_r"), "theta_s": field("theta_s"), "k_sat": field("Ks_m_per_s")}
    model = parts[0]["model"]
    if model == "van Genuchten-Mualem":
        return dgpde.VanGenuchten(alpha=field("alpha_1_per_m"), n=field("n"), l=field("l"), **common)
    if model == "Gardner exponential":
        return dgpde.Gardner(alpha=field("alpha_1_per_m"), **common)
    # The cases give Haverkamp's coefficients for suctions in cm.
    beta, gamma = parts[0]["beta"], parts[0]["gamma"]
    conductivity = {"a": field("A", 100.0**-gamma), "gamma": field("gamma")}
    if "ln(h)" in parts[0]["formula"]:
        return dgpde.Haverkamp(
            alpha=field("a"), beta=field("beta"), retention="logarithm", **conductivity, **common
        )
    return dgpde.Haverkamp(alpha=field("a", 100.0**-beta), beta=field("beta"), **conductivity, **common)


def steady_head(name: str, z: Array) -> Array:
    """Initial psi of the Srivastava & Yeh cases: steady under a downward flux over a water table."""
    q = read(name)["initial_condition"]["qA_m_per_s"]
    psi, base, w_base = np.empty_like(z), 0.0, 1.0
    for thickness, soil in layers(name):
        alpha, ratio = soil["alpha_1_per_m"], q / soil["Ks_m_per_s"]
        inside = (z >= base) & (z < base + thickness)
        psi[inside] = np.log(ratio + (w_base - ratio) * np.exp(-alpha * (z[inside] - base))) / alpha
        w_base = ratio + (w_base - ratio) * np.exp(-alpha * thickness)
        base += thickness
    return psi


def problem(name: str, dz: float, face_mean: str) -> Problem:
    """The case on cells of the given size."""
    parts: list[dict[str, Any]] = []
    for thickness, soil in layers(name):
        parts += [soil] * round(thickness / dz)
    horizontal = name in ("P8D", "P8E")
    grid = dgpde.Grid.columns(n=1, dz=[dz] * len(parts), gravity=0.0 if horizontal else 1.0)
    z = grid.z[:, 0].numpy()
    psi0, top, bottom = {
        "P1": (np.full_like(z, -10.0), dgpde.Head(-0.75), dgpde.Head(-10.0)),
        "P2a": (np.full_like(z, -0.615), dgpde.Flux(3.80277778e-05), dgpde.Head(-0.615)),
        "P2b": (np.full_like(z, -0.615), dgpde.Head(-0.207), dgpde.Head(-0.615)),
        "P8B": (-z, dgpde.Head(0.1), dgpde.Head(0.0)),
        # The inlet is at x = 0, the bottom of the column that lies flat.
        "P8D": (np.full_like(z, -10.0), dgpde.Head(-10.0), dgpde.Head(-0.75)),
        "P8E": (np.full_like(z, -6.0), dgpde.Head(-6.0), dgpde.Head(0.0)),
    }.get(name) or (steady_head(name, z), dgpde.Flux(rain(name)), dgpde.Head(0.0))
    flow = dgpde.Richards(
        grid,
        soil_of(parts),
        boundaries={"top": top, "bottom": bottom},
        specific_storage=read(name)["Ss"],
        face_mean={"arith": "arithmetic", "upwind": "upstream"}[face_mean],
    )
    return Problem(flow, torch.tensor(psi0)[:, None], z)


def rain(name: str) -> float:
    """The flux into the top of the Srivastava & Yeh cases [m/s], written as "q=-qB (downward), qB=... m/s"."""
    text = read(name)["boundary_conditions"]["top"]
    return float(text.split("qB=")[1].split()[0])


def profile(name: str, time: float, z: Array, column: str) -> Array:
    """A reference profile at the elevations z, by monotone cubics that do not cross a layer interface."""
    data = table(name, "profiles.csv")
    now = data["t_s"] == time
    assert now.any(), (name, time)
    z_table = data["z_m"][now]
    values = np.empty_like(z)
    base = 0.0
    for thickness, _ in layers(name):
        inside = (z_table >= base - 1e-9) & (z_table <= base + thickness + 1e-9)
        points, first = np.unique(z_table[inside], return_index=True)
        chosen = (z >= base) & (z < base + thickness)
        # At an interface theta has two values: the one of this layer is the one above its own bottom.
        data_column = data[column][now][inside][first].copy()
        if column == "theta_below" and base > 0.0:
            data_column[0] = data["theta_above"][now][inside][first][0]
        values[chosen] = PchipInterpolator(points, data_column)(z[chosen])
        base += thickness
    return values


def similarity_profile(name: str, time: float, x: Array) -> Array:
    """theta(x / sqrt(t)) of the absorption cases; the initial value ahead of the table."""
    data = table(name, "similarity.csv")
    phi, theta = data["phi_m_per_sqrt_s"], data["theta"]
    return PchipInterpolator(phi, theta)(np.minimum(x / np.sqrt(time), phi[-1]))


def front(z: Array, theta: Array, level: float) -> float:
    """Elevation where a profile that is wet above crosses the level, linear between cell centres."""
    k = int(np.nonzero(theta < level)[0].max())
    return float(z[k] + (level - theta[k]) / (theta[k + 1] - theta[k]) * (z[k + 1] - z[k]))
