"""Water that enters two soils from above: a smoothed random field of sand and loamy sand (Cockett, Heagy & Haber 2018,
Comput. Geosci. 116:91), psi = -0.3 m at first, -0.1 m on the surface. 50 x 50 x 45 and 128 x 128 x 128 cells of 2 cm.

Nobody has published values of it, so what it must show is that water balances, that no cell leaves the range of its
initial and boundary heads, and that the gradient is the slope of the loss. Four parameters of the soil and k_sat are
fields of their own.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement
from benchmarks.peer_fields import measured, off
from dgpde.checkpoint import Plan

SHAPES = {100: (12, 10, 10), 2500: (45, 50, 50), 16_384: (128, 128, 128)}
CELL, TOLERANCE = 0.02, 1e-8
DRY, WET = -0.3, -0.1  # m
TIMES, STEP = [0.0, 600.0], 60.0
SAND = {"theta_r": 0.02, "theta_s": 0.417, "alpha": 13.8, "n": 1.592, "k_sat": 5.83e-5}
LOAMY_SAND = {"theta_r": 0.035, "theta_s": 0.401, "alpha": 11.5, "n": 1.474, "k_sat": 1.69e-5}
SLOPE = 1e-3  # relative, of the finite difference of the loss


def sandy(shape: tuple[int, int, int]) -> Tensor:
    """Where the soil is sand: smoothed noise above its median."""
    noise = np.random.default_rng(seed=1).standard_normal(shape)
    smooth = scipy.ndimage.gaussian_filter(noise, sigma=3.0, mode="wrap")
    return torch.from_numpy(smooth > np.median(smooth))


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check balance, range and slope, then time forward, and forward and backward; ``size``: number of columns."""
    if device != "cpu":
        raise ValueError(f"device: this case is timed on the CPU, not on {device}")
    shape = SHAPES[size]
    grid, sand = dgpde.Grid(shape, (CELL, CELL, CELL)), sandy(shape)
    options = dgpde.SolveOptions(dt_fixed=STEP, tolerance=TOLERANCE)
    fields = {
        name: torch.where(sand, value, LOAMY_SAND[name]).double().requires_grad_()
        for name, value in SAND.items()
    }

    def model(share: float = 0.0) -> dgpde.Richards:
        """With ln k_sat moved by a share of a wave along x."""
        wave = torch.cos(torch.arange(shape[2], dtype=torch.float64))
        k_sat = fields["k_sat"] * torch.exp(share * wave)
        soil = dgpde.VanGenuchten(**{name: fields[name] for name in SAND if name != "k_sat"}, k_sat=k_sat)
        return dgpde.Richards(grid, soil, {"top": dgpde.Head(WET)})

    def forward() -> dgpde.Solution:
        return model().solve(DRY, TIMES, options, save="last")

    def value(run: dgpde.Solution) -> Tensor:
        return (run.theta[-1] ** 2).sum()

    def loss() -> Tensor:
        return value(forward())

    def check(run: dgpde.Solution) -> dict[str, float]:
        psi = run.psi[-1]
        # a closed bottom lets water gather there, but not within ten minutes
        beyond = max(0.0, float(psi.max()) - WET, DRY - float(psi.min()) - 0.5 * CELL * shape[0])
        found = {"beyond_range": beyond}
        if size < max(SHAPES):
            wave = torch.cos(torch.arange(shape[2], dtype=torch.float64))
            (k_sat,) = torch.autograd.grad(loss(), fields["k_sat"])
            slope = float((k_sat * fields["k_sat"].detach() * wave).sum())
            with torch.no_grad():
                ends = [float(value(model(h).solve(DRY, TIMES, options, save="last"))) for h in (-1e-3, 1e-3)]
            found["slope"] = (ends[1] - ends[0]) / 2e-3 / slope - 1.0
        limits = {"beyond_range": (0.0, 1e-6), "slope": (0.0, SLOPE)}
        return off(found, {name: limits[name] for name in found})

    def plan() -> Plan:
        return model().plan(TIMES, options, psi0=DRY, save="last")

    cells = shape[0] * size
    return measured(forward, loss, check, repeats, cells, {"tolerance": TOLERANCE}, plan)
