"""Checkpoint policies change the memory of a run and nothing else, and `plan` says how much that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gradient_cases import CASES
from gradient_problem import OBSERVABLES, Case, Inputs, direction, make, observe, weights
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde.assembly import set_up
from dgpde.checkpoint import Checkpoint, plan_columns
from dgpde.kernels.column_flow.function import Trajectory, column_flow
from dgpde.kernels.column_flow.problem import ColumnProblem
from dgpde.options import SolveOptions

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

# Ponding, run-off, evaporation limit and compensated uptake in ten uneven intervals; a table in the other.
LONG = replace(
    CASES["storm, pond, run-off, drying"],
    nz=8,
    n=5,
    hours=(0.7, 1.0, 2.0, 0.5, 1.0, 3.0, 0.4, 1.1, 0.9, 2.0),
    transpiration=1e-7,
    omega_c=0.6,
    values={
        "top.precipitation": (3e-5, 0.0, 0.0, 3e-5, 1e-6, 0.0, 4e-5, 0.0, 0.0, 0.0),
        "top.evaporation": 3e-7,
        "top.ponding_max": 0.006,
    },
)
PROBLEMS = {
    "van Genuchten": LONG,
    "table": replace(LONG, relation="tabulated", psi0=-0.6),
    "network": replace(LONG, relation="network", psi0=-0.6),
}
POLICIES = [
    Checkpoint(every=every, where=where) for every in (1, 3, 7) for where in ("device", "host", "disk")
] + [Checkpoint(every=100), Checkpoint("all")]


def options(checkpoint: Checkpoint | None) -> SolveOptions:
    return SolveOptions(dt_initial=300.0, time_error=5e-3, checkpoint=checkpoint, record_steps=True)


def name_of(policy: Checkpoint) -> str:
    return f"{policy.policy} {policy.every or ''} {policy.where}"


def everything(case: Case, checkpoint: Checkpoint | None) -> dict[str, Tensor]:
    """Outputs, steps, gradients of all inputs and the tangent of a run under a policy."""
    problem, inputs = make(case, options(checkpoint))
    at = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    result = column_flow(problem, at)
    assert (result.report.status == 0).all()
    values = observe(problem, at, result)
    w = weights(values)
    loss = torch.stack([(w[name] * values[name]).sum() for name in OBSERVABLES]).sum()
    found = {name: value.detach() for name, value in values.items()}
    assert result.report.step_sizes is not None
    found |= {f"steps {i}": sizes for i, sizes in enumerate(result.report.step_sizes)}
    gradients = torch.autograd.grad(loss, list(at.values()))
    found |= {f"gradient {name}": value for name, value in zip(at, gradients, strict=True)}
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, direction(name, value)) for name, value in inputs.items()}
        moved = column_flow(problem, duals)
        for name in OBSERVABLES:
            if name != "theta":
                tangent = forward_ad.unpack_dual(getattr(moved, name)).tangent
                assert tangent is not None
                found[f"tangent {name}"] = tangent
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Tensor]]:
    """The runs that keep every state, which is the default."""
    return {name: everything(case, None) for name, case in PROBLEMS.items()}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_policies_give_the_same_bits(
    policy: Checkpoint, problem: str, whole: dict[str, dict[str, Tensor]]
) -> None:
    found = everything(PROBLEMS[problem], policy)
    assert found.keys() == whole[problem].keys()
    for name, value in found.items():
        assert torch.equal(value, whole[problem][name]), name
    assert any(bool((value != 0.0).any()) for name, value in found.items() if name.startswith("gradient"))


def test_recorded_steps_fill_the_intervals() -> None:
    problem, inputs = make(LONG, options(None))
    for checkpoint in (None, Checkpoint(every=4)):
        chosen = replace(problem, options=options(checkpoint))
        report = column_flow(chosen, inputs).report
        assert report.step_sizes is not None
        assert len(report.step_sizes) == problem.intervals
        taken = torch.stack([(sizes > 0.0).sum(0) for sizes in report.step_sizes]).sum(0)
        assert torch.equal(taken, report.steps)
        for sizes, length in zip(report.step_sizes, problem.times.diff(), strict=True):
            torch.testing.assert_close(sizes.sum(0), length.expand(problem.n), rtol=1e-13, atol=0.0)
    silent = replace(problem, options=replace(options(None), record_steps=False))
    assert column_flow(silent, inputs).report.step_sizes is None


def trajectory(problem: ColumnProblem, inputs: Inputs) -> tuple[Trajectory, Tensor]:
    at = inputs | {"psi0": inputs["psi0"].clone().requires_grad_()}
    psi = column_flow(problem, at).psi
    assert psi.grad_fn is not None
    return psi.grad_fn.trajectory, psi  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [1, 64, 300])
def test_plan_against_the_bytes_of_a_run(n: int) -> None:
    """With dt_fixed the number of steps is known, and the plan is right to 10 %."""
    case = replace(LONG, n=n, hours=(4.0,) * 10, values={"top.precipitation": 2e-7}, psi0=-1.0)
    problem, inputs = make(case, SolveOptions(dt_fixed=0.25 * 3600.0))
    plan = plan_columns(problem, inputs, 8)
    kept, psi = trajectory(problem, inputs)
    assert plan.steps == 160
    assert plan.history == pytest.approx(kept.histories[0].nbytes, rel=0.1)
    assert plan.checkpoints == 0
    assert psi.element_size() * psi.numel() < plan.outputs < plan.forward < plan.backward

    part = replace(problem, options=SolveOptions(dt_fixed=0.25 * 3600.0, checkpoint=Checkpoint(every=3)))
    less = plan_columns(part, inputs, 8)
    kept, _ = trajectory(part, inputs)
    assert not kept.histories
    assert kept.states is not None
    states = [value for state in kept.states.states.values() for value in state.values()]
    assert less.checkpoints == pytest.approx(sum(v.element_size() * v.numel() for v in states), rel=0.1)
    tensors = {name: value.detach() for name, value in inputs.items()}
    longest = max(history.nbytes for _, _, history in kept.replays(tensors, backwards=True))
    assert less.history == pytest.approx(longest, rel=0.1)
    assert less.backward < plan.backward
    assert "MB" in str(less)


@pytest.mark.parametrize("checkpoint", [None, Checkpoint(every=2)], ids=["all", "every 2"])
@pytest.mark.parametrize("backward", [False, True])
def test_memory_goes_with_the_graph(checkpoint: Checkpoint | None, backward: bool) -> None:
    """No circle of references holds the history: it goes at once, without the garbage collector."""
    problem, inputs = make(LONG, options(checkpoint))
    kept, psi = trajectory(problem, inputs)
    alive = weakref.ref(kept)
    del kept
    if backward:
        psi.sum().backward()
    assert alive() is not None
    del psi
    assert alive() is None


def test_files_of_a_disk_policy_go_with_the_graph(tmp_path: Path) -> None:
    folder = tmp_path / "states"
    problem, inputs = make(LONG, options(Checkpoint(every=2, where="disk", directory=folder)))
    kept, psi = trajectory(problem, inputs)
    assert [path.name for path in folder.rglob("*.h5")] == ["states.h5"]
    psi.sum().backward()
    del kept, psi
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the peak memory of a process")
@pytest.mark.parametrize(
    ("n", "steps", "names"),
    [
        (20_000, 2, ["forward"]),
        (1000, 100, ["backward"]),
        pytest.param(100_000, 2, ["forward"], marks=pytest.mark.slow),
    ],
)
def test_plan_against_the_memory_of_a_process(n: int, steps: int, names: list[str]) -> None:
    # as for fields: the C library gives back every array that is freed. The plan has a gradient for every input, of
    # which a short run of many columns takes few, so there the forward run alone is held to it.
    here = Path(__file__).parent
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(here / "column_memory.py"), str(n), str(steps)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    for name in names:
        assert found["planned"][name] == pytest.approx(found["measured"][name], rel=0.1), (name, found)


@pytest.mark.parametrize(("n", "every"), [(1, None), (129, None), (129, 5)])
def test_plan_of_adaptive_steps(n: int, every: int | None) -> None:
    """Columns of many soils under rain: the probed columns tell the history to 10 %, exactly when all are probed."""
    spread = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    flow = dgpde.Richards(
        dgpde.Grid.columns(n=n, dz=[0.05] * 20),
        dgpde.VanGenuchten(
            0.05, 0.42, alpha=1.0 + 6.0 * spread, n=1.4 + spread.flip(0), k_sat=10 ** (-6 + spread)
        ),
        boundaries={
            "top": dgpde.Atmosphere(dgpde.Series(2e-6 * (torch.arange(24) % 6 == 0)), 2e-8, psi_min=-100.0),
            "bottom": dgpde.FreeDrainage(),
        },
    )
    times = 3600.0 * torch.arange(25, dtype=torch.float64)
    options = SolveOptions(checkpoint=None if every is None else Checkpoint(every=every))
    run = flow.solve(-2.0, times, options)
    all_probed, some = (flow.plan(times, options, psi0=-2.0, probe=probe) for probe in (n, 24))
    assert all_probed.steps == pytest.approx(float(run.stats.steps.double().mean()), abs=1.0)
    setup = set_up(flow.words, -2.0, times, options, "all", 0.0)
    problem, inputs = setup.span(0, 24, setup.problem.save)
    inputs |= {"psi0": setup.psi0.requires_grad_(), "ponding0": setup.ponding0}
    kept, _ = trajectory(problem, inputs)
    tensors = {name: value.detach() for name, value in inputs.items()}
    longest = max(history.nbytes for _, _, history in kept.replays(tensors, backwards=True))
    assert all_probed.history == longest
    assert some.history == pytest.approx(longest, rel=0.1)
    assert some.backward > some.forward > some.outputs


@pytest.mark.parametrize(("probe", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_plan_refuses_other_probes(probe: object, error: type[Exception]) -> None:
    soil = dgpde.VanGenuchten(theta_r=0.065, theta_s=0.41, alpha=7.5, n=1.89, k_sat=1.2e-5)
    flow = dgpde.Richards(dgpde.Grid.columns(n=3, dz=[0.1] * 8), soil)
    with pytest.raises(error, match=r"^probe must be"):
        flow.plan([0.0, 3600.0], probe=probe)  # type: ignore[arg-type]


def test_public_plan_and_policy() -> None:
    """The same through Richards, whose blocks under a progress bar are one graph too."""
    grid = dgpde.Grid.columns(n=3, dz=[0.1] * 8)
    soil = dgpde.VanGenuchten(theta_r=0.065, theta_s=0.41, alpha=7.5, n=1.89, k_sat=1.2e-5)
    rain = dgpde.Series(torch.tensor([1e-6, 0.0, 2e-6, 0.0], dtype=torch.float64))
    flow = dgpde.Richards(
        grid,
        soil,
        boundaries={
            "top": dgpde.Atmosphere(precipitation=rain, evaporation=1e-7, psi_min=-100.0),
            "bottom": dgpde.FreeDrainage(),
        },
    )
    times = torch.arange(5, dtype=torch.float64) * 3600.0
    gradients = []
    for checkpoint, progress in ((None, False), (Checkpoint(every=1), False), (None, True)):
        psi0 = torch.full((8, 3), -1.0, dtype=torch.float64, requires_grad=True)
        run = flow.solve(psi0, times, SolveOptions(checkpoint=checkpoint), progress=progress)
        run.theta[-1].square().sum().backward()
        assert psi0.grad is not None
        gradients.append(psi0.grad)
    assert torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-12, atol=1e-16)
    plan = flow.plan(times, SolveOptions(dt_fixed=900.0, checkpoint=Checkpoint(every=1)))
    assert plan.steps == 16
    assert plan.checkpoints > 0
