"""Rain on a deep dry soil over a water table, 240 layers of 1 m x 1 m x 0.025 m cells, ten hourly steps.

A published deck of ParFlow, whose authors give psi after ten hours; on one core of such a machine ParFlow makes
1.3e5 to 1.5e5 cell-steps a second. 96 x 96 columns are 2.2 million cells; on a GPU the whole deck of 1008 x 1008
columns, 2.4e8 cells, is run, forward only: its history would not fit beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement
from benchmarks.peer_fields import measured, off
from dgpde.checkpoint import Plan

NZ, DZ, DX, HOUR, STEPS = 240, 0.025, 1.0, 3600.0, 10
WHOLE = 1008  # columns along each side of the whole deck
POROSITY = 0.451
TOLERANCE = 1e-8
# z and psi, m; ParFlow ends Newton at a residual of its own, so 1e-3 relative
PROFILE = {0.0125: -0.0536811, 5.8875: -8.8783141, 5.9625: -1.4517186, 5.9875: -1.1762865}
WANTED = {f"psi_{z}": (psi, 1e-3 * abs(psi)) for z, psi in PROFILE.items()}


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check the profile, then time forward, and forward and backward; ``size`` is the number of columns."""
    n = round(size**0.5)
    grid = dgpde.Grid((NZ, n, n), (DZ, DX, DX))
    options = dgpde.SolveOptions(dt_fixed=HOUR, tolerance=TOLERANCE)
    psi0, times = (-3.0 - grid.z).expand(grid.shape).to(device), [0.0, STEPS * HOUR]

    def model() -> dgpde.Richards:
        k_sat = torch.tensor(1e-3 / HOUR, dtype=torch.float64, device=device, requires_grad=True)
        soil = dgpde.VanGenuchten(0.15 * POROSITY, POROSITY, alpha=1.0, n=4.0, k_sat=k_sat)
        sides = {"top": dgpde.Flux(0.8e-3 / HOUR), "bottom": dgpde.Head(0.0)}
        return dgpde.Richards(grid, soil, sides, specific_storage=1e-8)

    def forward() -> dgpde.Solution:
        return model().solve(psi0, times, options, save="last")

    def loss() -> Tensor:
        return (forward().theta[-1] ** 2).sum()

    def check(run: dgpde.Solution) -> dict[str, float]:
        layers = {z: int((grid.z.flatten() - z).abs().argmin()) for z in PROFILE}
        found = {f"psi_{z}": float(run.psi[-1, layer, n // 2, n // 2]) for z, layer in layers.items()}
        spread = float((run.psi[-1] - run.psi[-1, :, :1, :1]).abs().max())  # all columns are the same one
        return off(found | {"spread": spread}, WANTED | {"spread": (0.0, 1e-6)})

    def plan() -> Plan:
        return model().plan(times, options, psi0=psi0, save="last")

    return measured(
        forward,
        loss if n < WHOLE else None,
        check,
        repeats,
        NZ * size,
        {"tolerance": TOLERANCE},
        plan if device == "cpu" else None,
        device,
    )
