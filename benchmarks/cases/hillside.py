"""Rain on half of a heterogeneous section, 64 x 64 cells, hourly steps of a day.

The case was run with FiPy (Picard, 8.4 processor seconds on such a machine); its check values are FiPy's, whose
iteration stops at a change of 1e-5 m and has a capacity of its own in the Picard matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement
from benchmarks.peer_fields import conductivity, measured, off

N, DX, DZ, STEPS, HOUR = 64, 0.1, 0.025, 24, 3600.0
RAIN = 1e-6
TOLERANCE = 1e-9
PSI = 1e-2  # m; FiPy's face takes the arithmetic mean of K, ours the harmonic mean of k_sat and a mean of kr
FIPY = {"psi_32_32": (-0.614769, PSI), "psi_63_32": (-0.575149, PSI), "water_added": (0.27648, 1e-9)}


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check the states, then time forward, and forward and backward; ``size`` is the number of columns, 64."""
    if device != "cpu":
        raise ValueError(f"device: the field engine runs on the CPU, not on {device}")
    grid = dgpde.Grid((N, size), (DZ, DX))
    x = (torch.arange(size, dtype=torch.float64) + 0.5) * DX
    rain = torch.where((x - 0.5 * size * DX).abs() < 0.25 * size * DX, RAIN, 0.0).double()
    options = dgpde.SolveOptions(dt_fixed=HOUR, tolerance=TOLERANCE)
    field = conductivity((N, 1, size), 1e-5, 1.0, (2, 0, 4))[:, 0]
    psi0 = (-grid.z).expand(grid.shape)

    def forward() -> dgpde.Solution:
        soil = dgpde.VanGenuchten(0.08, 0.4, 1.5, 2.0, field.clone().requires_grad_())
        flow = dgpde.Richards(grid, soil, {"top": dgpde.Flux(rain)}, face_mean="arithmetic")
        return flow.solve(psi0, [0.0, STEPS * HOUR], options)

    def loss() -> Tensor:
        return (forward().theta[-1] ** 2).sum()

    def check(run: dgpde.Solution) -> dict[str, float]:
        found = {f"psi_{k}_{i}": float(run.psi[-1, k, i]) for k, i in ((32, 32), (63, 32))}
        found["water_added"] = float((run.theta[-1] - run.theta[0]).sum()) * DX * DZ
        return off(found, FIPY)

    return measured(forward, loss, check, repeats, N * size, {"tolerance": TOLERANCE})
