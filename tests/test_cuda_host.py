"""The code of a GPU thread, run column by column on the CPU, against the SIMD engine.

Same headers, memory layout, blocks of history, pauses and windows as on a GPU; only the launch is missing. The
numbers agree to round-off and not to the bit, since plain numbers use the library's exp and log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from device_runs import (
    NETWORK,
    STORM,
    TABLE,
    cotangents,
    disagreement,
    everything,
    gradients,
    observed,
    of_columns,
    same_decisions,
    spread,
)
from gradient_cases import CASES, NAMES
from gradient_problem import Inputs, adaptive, fixed, make
from torch import Tensor

import dgpde
from dgpde._native import native_module
from dgpde.kernels.column_flow import cuda, function
from dgpde.kernels.column_flow.native import least_steps
from dgpde.kernels.column_flow.problem import ColumnProblem
from dgpde.options import SolveOptions

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

TOLERANCE = 1e-11
OPTIONS = SolveOptions(dt_initial=300.0, time_error=5e-3)


class SmallWindows:
    """The native module, but with 32 columns in work at a time."""

    WINDOW = 32

    def __getattr__(self, name: str) -> Any:
        return getattr(native_module(), name)


class HostThreads(cuda.CudaBackend):
    """The CUDA backend with its threads run on the CPU."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.launches: list[str] = []

    @property
    def module(self) -> Any:
        return self._module

    def _launch(self, kind: str, run: Any, io: Any) -> None:
        self.launches.append(kind)
        getattr(self.module, f"host_{kind}")(run, io)


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HostThreads]:
    """Call it to send the runs that follow to the host threads."""

    def begin(module: Any = None) -> HostThreads:
        backend = HostThreads(module or native_module())
        monkeypatch.setattr(function, "choose_backend", lambda *_: backend)
        return backend

    return begin


def big(options: SolveOptions = OPTIONS) -> tuple[ColumnProblem, Inputs]:
    """70 columns, which is two groups of 32 and part of a third, each with its own number of steps."""
    problem, inputs = make(STORM, options)
    return problem, spread(STORM, problem, inputs)


def calm(options: SolveOptions) -> tuple[ColumnProblem, Inputs]:
    """70 columns none of whose steps is cut."""
    return make(replace(CASES["unsaturated flux over free drainage"], n=70), options)


def weights_of(problem: ColumnProblem, inputs: Inputs) -> dict[str, Tensor]:
    with torch.no_grad():
        return cotangents(observed(problem, inputs, function.column_flow(problem, inputs)))


@pytest.mark.parametrize("steps", [adaptive, fixed])
@pytest.mark.parametrize("name", NAMES)
def test_every_branch_is_that_of_the_simd_engine(
    name: str, steps: Callable[..., SolveOptions], on_threads: Callable[..., HostThreads]
) -> None:
    problem, inputs = make(CASES[name], steps(CASES[name]))
    expected = everything(problem, inputs)
    backend = on_threads()
    found = everything(problem, inputs)
    assert {"forward", "adjoint", "tangent"} == set(backend.launches)
    if not bool(same_decisions(found, expected).all()):
        torch.testing.assert_close(found["psi"], expected["psi"], rtol=1e-2, atol=1e-3)
        return
    error, where = disagreement(found, expected)
    assert error < TOLERANCE, where


@pytest.mark.parametrize("case", [STORM, TABLE, NETWORK], ids=["van Genuchten", "table", "network"])
def test_many_columns_with_steps_of_their_own(case: Any, on_threads: Callable[..., HostThreads]) -> None:
    problem, inputs = make(case, OPTIONS)
    inputs = spread(case, problem, inputs)
    expected = everything(problem, inputs)
    assert expected["steps"].unique().numel() > 2
    on_threads()
    found = everything(problem, inputs)
    alike = same_decisions(found, expected)
    assert float(alike.double().mean()) > 0.8
    error, where = disagreement(of_columns(found, alike), of_columns(expected, alike))
    assert error < 1e-9, where  # adaptive steps follow the round-off of hard columns


def test_a_run_that_pauses_is_the_run_that_does_not(
    monkeypatch: pytest.MonkeyPatch, on_threads: Callable[..., HostThreads]
) -> None:
    problem, inputs = calm(SolveOptions(dt_fixed=60.0))
    assert int(least_steps(problem).sum()) > 5 * native_module().ROWS_PER_BLOCK
    backend = on_threads()
    w = weights_of(problem, inputs)
    straight = gradients(problem, inputs, w)  # blocks for all steps are granted at the start
    assert backend.launches.count("forward") == 2, "the run without history and the run with it"
    monkeypatch.setattr(cuda, "least_steps", lambda problem: torch.zeros(1, dtype=torch.int64))
    backend.launches.clear()
    paused = gradients(problem, inputs, w)
    assert backend.launches.count("forward") > 3
    for name, value in straight.items():
        assert paused[name].equal(value), name


def test_windows_and_checkpoints_give_the_same_bits(on_threads: Callable[..., HostThreads]) -> None:
    problem, inputs = big()
    on_threads()
    w = weights_of(problem, inputs)
    whole = gradients(problem, inputs, w)
    cut = replace(problem, options=replace(OPTIONS, checkpoint=dgpde.Checkpoint(every=2)))
    for name, value in gradients(cut, inputs, w).items():
        assert value.equal(whole[name]), name
    backend = on_threads(SmallWindows())
    for name, value in gradients(problem, inputs, w).items():
        assert value.equal(whole[name]), name
    assert backend.launches.count("adjoint") == 3


def test_a_table_has_one_gradient_whatever_the_window(
    monkeypatch: pytest.MonkeyPatch, on_threads: Callable[..., HostThreads]
) -> None:
    problem, inputs = make(TABLE, OPTIONS)
    on_threads()
    w = weights_of(problem, inputs)
    whole = gradients(problem, inputs, w)["gradient soil.table"]
    assert gradients(problem, inputs, w)["gradient soil.table"].equal(whole)
    monkeypatch.setattr(cuda, "TABLE_BYTES", 1)  # 32 copies
    backend = on_threads()
    apart = gradients(problem, inputs, w)["gradient soil.table"]
    assert backend.launches.count("adjoint") == 3
    torch.testing.assert_close(apart, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))


def test_step_sizes_are_those_of_the_simd_engine(on_threads: Callable[..., HostThreads]) -> None:
    problem, inputs = calm(replace(OPTIONS, record_steps=True))
    expected = function.column_flow(problem, inputs).report.step_sizes
    on_threads()
    found = function.column_flow(problem, inputs).report.step_sizes
    assert found is not None
    assert expected is not None
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0.0)


def test_a_failed_column_is_reported_and_leaves_the_others_alone(
    on_threads: Callable[..., HostThreads],
) -> None:
    problem, inputs = big()
    on_threads()
    good = function.column_flow(problem, inputs)
    broken = inputs | {"k_sat": inputs["k_sat"].clone()}
    broken["k_sat"][:, 33] = float("inf")
    bad = function.column_flow(problem, broken)
    others = torch.arange(problem.n) != 33
    assert int(bad.report.status[33]) == 2
    assert float(bad.report.failed_time[33]) == 0.0
    assert bad.report.status[others].eq(0).all()
    assert bad.psi[:, :, others].equal(good.psi[:, :, others])


def test_float32_agrees_with_the_simd_engine_to_its_precision(
    on_threads: Callable[..., HostThreads],
) -> None:
    problem, inputs = make(
        CASES["unsaturated flux over free drainage"], SolveOptions(dt_fixed=600.0, tolerance=1e-6)
    )
    inputs = {name: value.float() for name, value in inputs.items()}
    w = weights_of(problem, inputs)
    w = {name: value.float() for name, value in w.items()}
    expected = gradients(problem, inputs, w)
    on_threads()
    found = gradients(problem, inputs, w)
    assert found["psi"].dtype == torch.float32
    error, where = disagreement(found, expected)
    assert error < 2e-3, where


def test_plan_says_what_the_history_takes(on_threads: Callable[..., HostThreads]) -> None:
    problem, inputs = calm(SolveOptions(dt_fixed=120.0))
    module = native_module()
    memory = module.column_memory(problem.n, problem.nz, 8, True, 1)
    assert memory["rows_per_block"] == module.ROWS_PER_BLOCK
    backend = on_threads()
    trajectory = function.Trajectory(backend, problem, problem.input_names(), None)
    trajectory.record = True
    trajectory.run([inputs[name] for name in problem.input_names()])
    rows = int(least_steps(problem).sum()) + 1
    planned = -(-rows // memory["rows_per_block"]) * memory["rows_per_block"] * memory["history_row"]
    assert trajectory.histories[0].nbytes == planned


def test_cuda_by_name_says_why_it_is_not_there() -> None:
    if torch.cuda.is_available() and native_module().cuda:
        pytest.skip("CUDA is there")
    psi = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ImportError, match=r"^backend 'cuda' is not available: dgpde was built with"):
        function.choose_backend(psi, "cuda")
