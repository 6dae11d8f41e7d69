"""The column engine on a GPU against the CPU: outputs, gradients and tangents to 1e-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from device_runs import (
    STORM,
    TABLE,
    disagreement,
    everything,
    gradients,
    observed,
    of_columns,
    same_decisions,
    spread,
    to,
)
from gradient_cases import CASES, NAMES
from gradient_problem import adaptive, fixed, make

import dgpde
from dgpde.kernels.column_flow import cuda, function
from dgpde.options import SolveOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),
]

TOLERANCE = 1e-10
OPTIONS = SolveOptions(dt_initial=300.0, time_error=5e-3)


@pytest.mark.parametrize("steps", [adaptive, fixed])
@pytest.mark.parametrize("name", NAMES)
def test_every_branch_is_that_of_the_cpu(name: str, steps: Callable[..., SolveOptions]) -> None:
    problem, inputs = make(CASES[name], steps(CASES[name]))
    found, expected = everything(*to(problem, inputs, "cuda")), everything(problem, inputs)
    if not bool(same_decisions(found, expected).all()):
        torch.testing.assert_close(found["psi"].cpu(), expected["psi"], rtol=1e-2, atol=1e-3)
        return
    error, where = disagreement(found, expected)
    assert error < TOLERANCE, where


@pytest.mark.parametrize("case", [STORM, TABLE], ids=["van Genuchten", "table"])
def test_many_columns_with_steps_of_their_own(case: Any) -> None:
    case = replace(case, n=1000)
    problem, inputs = make(case, OPTIONS)
    inputs = spread(case, problem, inputs)
    found, expected = everything(*to(problem, inputs, "cuda")), everything(problem, inputs)
    alike = same_decisions(found, expected)
    assert float(alike.double().mean()) > 0.8
    error, where = disagreement(of_columns(found, alike), of_columns(expected, alike))
    assert error < 1e-9, where  # adaptive steps follow the round-off of hard columns


@pytest.mark.parametrize("case", [STORM, TABLE], ids=["van Genuchten", "table"])
def test_the_same_bits_on_every_run_and_under_every_checkpoint(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(case, n=1000)
    problem, inputs = make(case, OPTIONS)
    problem, inputs = to(problem, spread(case, problem, inputs), "cuda")
    with torch.no_grad():
        plain = observed(problem, inputs, function.column_flow(problem, inputs))
    w = {name: torch.ones_like(value) for name, value in plain.items()}
    first = gradients(problem, inputs, w)
    options = replace(OPTIONS, checkpoint=dgpde.Checkpoint(every=1, where="host"))
    again = [gradients(problem, inputs, w), gradients(replace(problem, options=options), inputs, w)]
    monkeypatch.setattr(cuda, "least_steps", lambda problem: torch.zeros(1, dtype=torch.int64))
    again.append(gradients(problem, inputs, w))  # with pauses
    for found in again:
        for name, value in first.items():
            assert value.equal(found[name]), name


def test_a_side_stream_is_used() -> None:
    problem, inputs = make(STORM, OPTIONS)
    expected = function.column_flow(problem, inputs)
    problem, inputs = to(problem, inputs, "cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = function.column_flow(problem, inputs)
    stream.synchronize()
    torch.testing.assert_close(found.psi.cpu(), expected.psi, rtol=1e-8, atol=1e-10)


def test_float32_is_close_to_float64() -> None:
    problem, inputs = make(
        CASES["unsaturated flux over free drainage"], SolveOptions(dt_fixed=600.0, tolerance=1e-6)
    )
    expected = function.column_flow(problem, inputs).psi
    problem, inputs = to(problem, {name: value.float() for name, value in inputs.items()}, "cuda")
    found = function.column_flow(problem, inputs).psi
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-3, atol=1e-4)


def test_memory_is_what_plan_says() -> None:
    n, hours = 20_000, 24
    soil = dgpde.VanGenuchten(0.05, 0.42, alpha=torch.full((n,), 3.0).double().cuda(), n=1.8, k_sat=1e-5)
    flow = dgpde.Richards(dgpde.Grid.columns(n=n, dz=[0.02] * 50), soil, boundaries={"top": dgpde.Flux(1e-7)})
    psi0 = torch.full((50, n), -1.0, dtype=torch.float64, device="cuda")
    times = 3600.0 * torch.arange(hours + 1, dtype=torch.float64)
    options = SolveOptions(dt_fixed=600.0)
    planned = flow.plan(times, options, psi0=psi0, save="last")
    with torch.no_grad():
        flow.solve(psi0, times, options, save="last")  # what is made once is made
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        flow.solve(psi0, times, options, save="last")
    assert abs(torch.cuda.max_memory_allocated() - start - planned.forward) < 0.1 * planned.forward
