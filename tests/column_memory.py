"""Plans a run of columns, runs it, and prints the bytes planned and measured as JSON: a process of its own."""

from __future__ import annotations

import json
import sys

import torch

import dgpde
from benchmarks import celia
from benchmarks.cases.celia import OPTIONS, model
from benchmarks.measure import peak_memory, reset_peak_memory


def main(size: int, steps: int) -> None:
    """The first steps of the infiltration batch, from a state in which all that loads once has been loaded."""
    torch.set_num_threads(1)
    times = [0.0, steps * celia.DT]
    model(8, "cpu")[0].solve(celia.PSI_INITIAL, times, OPTIONS).psi.sum().backward()
    psi0 = torch.full((celia.NZ, size), celia.PSI_INITIAL, dtype=torch.float64)
    flow, leaves = model(size, "cpu")
    plan = flow.plan(times, OPTIONS, psi0=psi0)
    measured = {}
    before = reset_peak_memory()
    with torch.no_grad():
        run: dgpde.Solution = flow.solve(psi0, times, OPTIONS)
    measured["forward"] = peak_memory() - before
    assert run.psi.shape[-1] == size
    del run, flow, leaves
    flow, leaves = model(size, "cpu")
    before = reset_peak_memory()
    flow.solve(psi0, times, OPTIONS).psi.sum().backward()
    measured["backward"] = peak_memory() - before
    print(json.dumps({"planned": {"forward": plan.forward, "backward": plan.backward}, "measured": measured}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
