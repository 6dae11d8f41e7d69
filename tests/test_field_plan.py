"""`plan` of sections and domains against the memory of processes that run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dgpde
from dgpde import Checkpoint, Flux, Grid, Richards, SolveOptions, VanGenuchten

HERE = Path(__file__).parent


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the peak memory of a process")
@pytest.mark.parametrize(
    "kind",
    ["fixed", "saturated", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("adaptive", "every 2"))],
)
def test_plan_against_the_memory_of_a_process(kind: str) -> None:
    # the C library is told to give back every array that is freed; else it keeps some of those below 32 MB
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, str(HERE / "field_memory.py"), kind],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    for name, planned in found["planned"].items():
        assert planned == pytest.approx(found["measured"][name], rel=0.1), (name, found)
    # the steps of an adaptive run are those of its first interval, in which they are shortest, times their number
    planned, taken = found["steps"]
    assert planned == taken if kind != "adaptive" else taken <= planned <= 2 * taken


def column(**words: object) -> Richards:
    soil = VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    return Richards(Grid((6, 2, 3), (0.1, 1.0, 1.0)), soil, {"top": Flux(1e-6)}, **words)  # type: ignore[arg-type]


def test_parts_of_a_plan() -> None:
    times, fixed = [0.0, 3600.0, 7200.0, 9000.0], {"dt_fixed": 900.0}
    whole = column().plan(times, SolveOptions(**fixed))
    assert whole.steps == 10
    assert whole.history == 10 * 8 * (36 + 6)
    assert whole.checkpoints == 0
    less = column().plan(times, SolveOptions(**fixed, checkpoint=Checkpoint(every=1)))
    assert less.history == 4 * 8 * (36 + 6)
    assert less.checkpoints == 3 * (8 * (36 + 6) + 9)
    few = column().plan(times, SolveOptions(**fixed), save="last", save_cells=(0, 0, 0))
    assert whole.outputs - few.outputs == 8 * (4 * 36 - 1)
    adaptive = SolveOptions(dt_initial=300.0)
    steps = int(column().solve(-1.0, times, adaptive).stats.steps)
    assert column().plan(times, adaptive, psi0=-1.0, probe=3).steps == steps
    assert column().plan(times, adaptive, psi0=-1.0, probe=100).steps == steps


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: column().plan([0.0, 1.0], probe=0), ValueError, "probe must be at least 1 interval"),
        (lambda: column().plan([0.0, 1.0], probe=1.5), TypeError, "probe must be an integer"),
        (lambda: column().plan([0.0, 1.0], SolveOptions(backend="reference")), ValueError, "backend: only"),
        (lambda: column().plan([0.0, 1.0], psi0=torch.zeros(5).double()), ValueError, "psi0 is a tensor"),
        (
            lambda: Richards(Grid.columns(2, [0.1]), column().soil).plan([0.0, 1.0], save_cells=(0, 0)),
            ValueError,
            "save_cells is for sections",
        ),
    ],
)
def test_plan_refuses(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()  # type: ignore[operator]


def test_plan_of_a_run_that_cannot_go_on() -> None:
    options = SolveOptions(max_newton=1, dt_min=10.0)
    with pytest.raises(dgpde.SolveError, match="^the intervals that plan runs"):
        Richards(
            Grid((6, 2, 3), (0.1, 1.0, 1.0)),
            VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5),
            {"top": Flux(1e-3)},
        ).plan([0.0, 3600.0], options, psi0=-10.0)
