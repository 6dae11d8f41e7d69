"""Plans a run of a slab, runs it, and prints the bytes planned and measured as JSON: a process of its own."""

from __future__ import annotations

import json
import sys

import torch

import dgpde
from benchmarks.measure import peak_memory, reset_peak_memory

SHAPE = (20, 64, 64)
HOUR = 3600.0
OPTIONS = {
    "fixed": dgpde.SolveOptions(dt_fixed=HOUR, tolerance=1e-9),
    "adaptive": dgpde.SolveOptions(dt_initial=900.0, tolerance=1e-9),
    "every 2": dgpde.SolveOptions(dt_fixed=HOUR, tolerance=1e-9, checkpoint=dgpde.Checkpoint(every=2)),
    "saturated": dgpde.SolveOptions(dt_fixed=HOUR),
}


def model(kind: str) -> tuple[dgpde.Richards, list[torch.Tensor]]:
    """A heterogeneous slab under rain and its leaves, parameter fields."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    grid = dgpde.Grid(SHAPE, (0.5, 10.0, 10.0))
    k_sat = (1e-5 * noise.exp()).requires_grad_()
    if kind == "saturated":
        wells = [dgpde.Well((5, 30, 30), -1e-4)]
        sides = {"west": dgpde.HydraulicHead(10.0), "east": dgpde.HydraulicHead(9.0)}
        return dgpde.Richards(grid, dgpde.Saturated(k_sat), sides, wells, specific_storage=1e-4), [k_sat]
    values = (0.08, 0.4, 1.5, 2.0)
    leaves = [torch.full(SHAPE, value, dtype=torch.float64, requires_grad=True) for value in values]
    flow = dgpde.Richards(
        grid, dgpde.VanGenuchten(*leaves, k_sat), {"top": dgpde.Flux(1e-6)}, specific_storage=1e-5
    )
    return flow, [*leaves, k_sat]


def main(kind: str) -> None:
    """Measure from a state in which everything that loads once has been loaded."""
    torch.set_num_threads(1)
    options, times, psi0 = OPTIONS[kind], [k * HOUR for k in range(6)], 3.0 - model(kind)[0].grid.z
    model(kind)[0].solve(psi0, times[:2], options, save="last").psi.sum().backward()
    flow, leaves = model(kind)
    plan = flow.plan(times, options, psi0=psi0, save="last")
    measured = {}
    before = reset_peak_memory()
    with torch.no_grad():
        run = flow.solve(psi0, times, options, save="last")
    measured["forward"] = peak_memory() - before
    steps = int(run.stats.steps)
    del run, flow, leaves
    flow, leaves = model(kind)
    before = reset_peak_memory()
    flow.solve(psi0, times, options, save="last").psi.sum().backward()
    measured["backward"] = peak_memory() - before
    planned = {"forward": plan.forward, "backward": plan.backward}
    print(json.dumps({"planned": planned, "measured": measured, "steps": [plan.steps, steps]}))


if __name__ == "__main__":
    main(sys.argv[1])
