"""Ten days of pumping from a heterogeneous confined aquifer, 40 x 160 x 160 cells, daily steps.

The case was run with MODFLOW 6 (95 processor seconds on such a machine); its check values are MODFLOW's. The head of
the western column is held at 40 m, that of the eastern one at 35 m in the cells whose bottom is below that level: the
five layers above stay free there and take recharge, which is what MODFLOW's recharge of 21 980.16 m3 says. The cells of
a held head are not part of the grid; their neighbours see them as a `River` through the conductance between the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement
from benchmarks.peer_fields import conductivity, measured, off

NZ, N, DZ, DX = 40, 160, 1.0, 10.0
FREE = 5  # layers of the eastern column above 35 m
DAY = 86400.0
HEAD = 1e-4  # m
# 3.5e-7 m3 in a cell of 35 m3 of pores; MODFLOW's own is 1e-8 m3/s, 8.6e-4 m3 in a step
TOLERANCE = 1e-8
MODFLOW = {
    "mean": (37.305462, HEAD),
    "min": (18.328278, HEAD),
    "max": (40.2018508, HEAD),
    "h_20_80_80": (26.1752738, HEAD),
    "h_0_40_40": (38.5196363, HEAD),
    "h_39_120_53": (38.4188398, HEAD),
}


def model() -> tuple[dgpde.Richards, Tensor, Tensor]:
    """The aquifer without its western column, its initial state, and its leaf ln K [nz, n, n]."""
    ln_k = (
        conductivity((NZ, N, N), 1e-4, 1.5, (2, 4, 4)).log().flip(0).requires_grad_()
    )  # layer 0 is the highest
    k = ln_k.exp()
    active = torch.ones(NZ, N, N - 1, dtype=torch.bool)
    active[: NZ - FREE, :, -1] = False
    grid = dgpde.Grid((NZ, N, N - 1), (DZ, DX, DX), active=active)

    def sideways(a: Tensor, b: Tensor) -> Tensor:
        return DZ * DX * 2.0 / (DX / a + DX / b)

    layers = torch.arange(NZ - FREE)[:, None].expand(-1, N)
    rows = torch.arange(N)[None, :].expand(NZ - FREE, -1)
    beside = torch.stack([layers, rows, torch.full_like(rows, N - 3)], -1).reshape(-1, 3)
    above = torch.stack([torch.full((N,), NZ - FREE), torch.arange(N), torch.full((N,), N - 2)], -1)
    vertical = 0.1 * DX * DX * 2.0 / (DZ / k[NZ - FREE, :, -1] + DZ / k[NZ - FREE - 1, :, -1])
    west = torch.zeros(NZ, N, N - 1, dtype=torch.bool)
    west[:, :, 0] = True
    well = [(NZ - 1 - layer, 80, 79) for layer in range(20, 30)]
    flow = dgpde.Richards(
        grid,
        dgpde.Saturated(k_sat=0.1 * k[:, :, 1:]),
        {"top": dgpde.Flux(1e-8)},
        sources=[
            dgpde.Well(well, -0.002),
            dgpde.River(west, 40.0, sideways(k[:, :, 0], k[:, :, 1]).flatten()),
            dgpde.River(
                beside.tolist(), 35.0, sideways(k[: NZ - FREE, :, -1], k[: NZ - FREE, :, -2]).flatten()
            ),
            dgpde.River(above.tolist(), 35.0, vertical),
        ],
        specific_storage=1e-4,
        anisotropy=10.0,
    )
    return flow, (40.0 - grid.z).expand(grid.shape), ln_k


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check the heads, then time forward, and forward and backward; ``size`` is the number of columns, 25600."""
    if device != "cpu" or size != N * N:
        raise ValueError(f"size: this case has {N * N} columns, on the CPU")
    options = dgpde.SolveOptions(dt_fixed=DAY, tolerance=TOLERANCE)

    def forward() -> dgpde.Solution:
        flow, psi0, _ = model()
        return flow.solve(psi0, [0.0, 10 * DAY], options, save="last")

    def loss() -> Tensor:
        return (forward().psi[-1] ** 2).mean()

    def check(run: dgpde.Solution) -> dict[str, float]:
        head = run.psi[-1] + run.grid.z
        head[: NZ - FREE, :, -1] = 35.0
        head = torch.cat([torch.full((NZ, N, 1), 40.0, dtype=torch.float64), head], 2).flip(0)
        found = {"mean": float(head.mean()), "min": float(head.min()), "max": float(head.max())}
        places = ((20, 80, 80), (0, 40, 40), (39, 120, 53))
        found |= {f"h_{k}_{j}_{i}": float(head[k, j, i]) for k, j, i in places}
        assert int(run.stats.newton_iterations) == int(run.stats.steps)
        return off(found, MODFLOW)

    return measured(forward, loss, check, repeats, NZ * N * N, {"tolerance": TOLERANCE})
