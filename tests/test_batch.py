"""A column does not know its company: batch size, lanes, threads, strides, and a column that breaks."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from gradient_cases import CASES
from gradient_problem import OBSERVABLES, Case, Inputs, make, observe, weights
from torch import Tensor

import dgpde
from dgpde.errors import SolveError
from dgpde.kernels.column_flow.function import column_flow
from dgpde.kernels.column_flow.problem import ColumnProblem
from dgpde.options import SolveOptions

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

COUNTERS = (
    "steps",
    "newton_iterations",
    "cuts",
    "rejections",
    "restarts",
    "mass_balance_error",
    "water_moved",
)
SHARED = ("soil.table", "soil.weights")  # inputs without a column axis
M_PERTURB = -6  # malloc.h
OPTIONS = SolveOptions(dt_initial=300.0, time_error=5e-3)
STORM = replace(CASES["storm, pond, run-off, drying"], transpiration=1e-7, omega_c=0.6, source=1e-9, n=129)
TABLE = replace(CASES["table"], n=129)
KINDS = {"van Genuchten": STORM, "table": TABLE, "network": replace(CASES["network"], n=129)}


def spread_columns(case: Case) -> tuple[ColumnProblem, Inputs]:
    """Columns that differ enough to take different numbers of steps."""
    problem, inputs = make(case, OPTIONS)
    factor = torch.logspace(-0.5, 0.5, problem.n, dtype=torch.float64)
    return problem, inputs | {"k_sat": inputs["k_sat"] * factor, "psi0": inputs["psi0"] * factor.flip(0)}


def take(problem: ColumnProblem, inputs: Inputs, columns: slice) -> tuple[ColumnProblem, Inputs]:
    """The problem of some columns alone."""
    part = {name: value if name in SHARED else value[..., columns].clone() for name, value in inputs.items()}
    classes = None if problem.classes is None else problem.classes[:, columns].clone()
    return replace(problem, n=part["psi0"].shape[1], classes=classes), part


def cotangents(problem: ColumnProblem, inputs: Inputs) -> dict[str, Tensor]:
    with torch.no_grad():
        return weights(observe(problem, inputs, column_flow(problem, inputs)))


def everything(problem: ColumnProblem, inputs: Inputs, w: dict[str, Tensor]) -> dict[str, Tensor]:
    """Observables, counters and gradients of all inputs, each with the columns last."""
    at = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    result = column_flow(problem, at)
    assert (result.report.status == 0).all()
    values = observe(problem, at, result)
    loss = torch.stack([(w[name] * values[name]).sum() for name in OBSERVABLES]).sum()
    gradients = torch.autograd.grad(loss, list(at.values()))
    found = {name: value.detach() for name, value in values.items()}
    found |= {name: getattr(result.report, name) for name in COUNTERS}
    found |= {f"gradient {name}": value for name, value in zip(at, gradients, strict=True)}
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_one_big_batch_equals_many_small_ones(kind: str) -> None:
    problem, inputs = spread_columns(KINDS[kind])
    w = cotangents(problem, inputs)
    whole = everything(problem, inputs, w)
    assert len(set(whole["steps"].tolist())) > 2
    parts = [slice(0, 1), slice(1, 3), slice(3, 66), slice(66, 129)]
    shared = [name for name in SHARED if name in inputs]
    sums = {name: torch.zeros_like(inputs[name]) for name in shared}
    for columns in parts:
        small = take(problem, inputs, columns)
        found = everything(*small, {name: value[..., columns] for name, value in w.items()})
        for name, value in found.items():
            if name.removeprefix("gradient ") in SHARED:
                sums[name.removeprefix("gradient ")] += value
            else:
                assert torch.equal(value, whole[name][..., columns]), (name, columns)
    for name, total in sums.items():  # over columns, made in another order
        size = float(whole[f"gradient {name}"].abs().max())
        torch.testing.assert_close(total, whole[f"gradient {name}"], rtol=1e-12, atol=1e-12 * max(1.0, size))


@pytest.mark.parametrize("n", [1, 2, 63, 129])
def test_sizes(n: int) -> None:
    """The last pack of lanes is rarely full; what it repeats is never counted."""
    for case in KINDS.values():
        problem, inputs = make(replace(case, n=n), OPTIONS)
        found = everything(problem, inputs, cotangents(problem, inputs))
        assert all(bool(torch.isfinite(value).all()) for value in found.values())


@pytest.fixture
def native() -> Iterator[object]:
    """The native module, whose instruction set is put back."""
    from dgpde import _C

    chosen = _C.instruction_set()
    yield _C
    _C.set_instruction_set(chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_instruction_sets_agree(kind: str, native) -> None:
    """Other widths and other roundings of a*b + c, the same solution on the same steps."""
    options = SolveOptions(dt_fixed=600.0, tolerance=1e-14, max_newton=60)
    problem, inputs = make(replace(KINDS[kind], n=13), options)
    w = cotangents(problem, inputs)
    found = {}
    for name in ("generic", "avx2", "avx512"):
        try:
            native.set_instruction_set(name)
        except (ValueError, RuntimeError):
            continue  # not on this machine
        found[name] = everything(problem, inputs, w)
    assert "generic" in found
    for other in found.values():
        for name, value in found["generic"].items():
            if name in ("steps", "cuts"):
                assert torch.equal(value, other[name]), name
            elif name not in COUNTERS:
                apart = (value - other[name]).norm().item()
                assert apart <= 1e-12 * value.norm().item(), (name, apart / value.norm().item())


def test_backward_in_another_instruction_set_is_refused(native) -> None:
    problem, inputs = make(replace(STORM, n=3), OPTIONS)
    native.set_instruction_set("generic")
    psi0 = inputs["psi0"].clone().requires_grad_()
    psi = column_flow(problem, inputs | {"psi0": psi0}).psi
    try:
        native.set_instruction_set("avx2")
    except (ValueError, RuntimeError):
        pytest.skip("this machine has one instruction set only")
    with pytest.raises(RuntimeError, match="instruction set"):
        psi.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_repetition_change_nothing(kind: str) -> None:
    problem, inputs = make(KINDS[kind], OPTIONS)
    w = cotangents(problem, inputs)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5, 1):
            torch.set_num_threads(threads)
            found.append(everything(problem, inputs, w))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        same(found[0], other)


def test_memory_that_is_not_clean_changes_nothing() -> None:
    """Fresh memory full of 1 bits (nan as numbers) or of something else, as glibc can be told to give it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        pytest.skip("needs the mallopt of glibc")
    problem, inputs = make(replace(STORM, n=5), OPTIONS)
    w = cotangents(problem, inputs)
    found = []
    try:
        for fill in (0, 1, 85, 255):  # the complement of the byte is written
            mallopt(M_PERTURB, fill)
            found.append(everything(problem, inputs, w))
    finally:
        mallopt(M_PERTURB, 0)
    for other in found[1:]:
        same(found[0], other)


@pytest.mark.parametrize("layout", ["columns first", "every other", "stretched"])
def test_layouts(layout: str) -> None:
    """Strides are read as they are: transposed, sliced and expanded inputs give the bits of dense ones."""

    def lay(value: Tensor) -> Tensor:
        if layout == "columns first":
            return value.movedim(-1, 0).contiguous().movedim(0, -1)
        if layout == "every other":
            wide = torch.full((*value.shape[:-1], 2 * value.shape[-1]), torch.nan, dtype=torch.float64)
            wide[..., ::2] = value
            return wide[..., ::2]
        return value[..., :1].expand(value.shape)

    problem, inputs = make(replace(STORM, n=11), OPTIONS)
    strided = {name: lay(value) for name, value in inputs.items()}
    dense = {name: value.clone(memory_format=torch.contiguous_format) for name, value in strided.items()}
    w = cotangents(problem, dense)
    w = {name: lay(value) for name, value in w.items()}
    same(everything(problem, dense, w), everything(problem, strided, w))


def test_only_the_gradients_that_are_asked_for() -> None:
    problem, inputs = make(replace(STORM, n=5), OPTIONS)
    w = cotangents(problem, inputs)
    full = everything(problem, inputs, w)
    for name in inputs:
        at = inputs | {name: inputs[name].clone().requires_grad_()}
        values = observe(problem, at, column_flow(problem, at))
        loss = torch.stack([(w[out] * values[out]).sum() for out in OBSERVABLES]).sum()
        (gradient,) = torch.autograd.grad(loss, [at[name]])
        assert torch.equal(gradient, full[f"gradient {name}"]), name


# ---- float32 -------------------------------------------------------------------------------------------------


def test_float32() -> None:
    """Single precision: heads to 1e-4, gradients to 1 %, as far as its steps are the same."""
    case = replace(CASES["drying from the surface"], n=9, transpiration=3e-8, omega_c=0.6, psi0=-0.8)
    problem, inputs = make(case, SolveOptions(dt_fixed=1800.0, tolerance=1e-6))
    w = cotangents(problem, inputs)
    double = everything(problem, inputs, w)
    single = everything(
        problem,
        {name: value.float() for name, value in inputs.items()},
        {name: value.float() for name, value in w.items()},
    )
    assert single["psi"].dtype == single["gradient k_sat"].dtype == torch.float32
    assert torch.equal(single["steps"], double["steps"])
    for name in OBSERVABLES:
        assert (single[name] - double[name]).norm() <= 1e-4 * double[name].norm(), name
    for name in inputs:
        exact = double[f"gradient {name}"]
        assert (single[f"gradient {name}"] - exact).norm() <= 1e-2 * exact.norm(), name
    # stored and moved water differ by round-off of psi and theta: about 1e-7 of the stores, 1e-4 of what moved
    assert (single["mass_balance_error"] < 1e-3).all()


# ---- a column that breaks --------------------------------------------------------------------------------------


def columns_with(broken: str | None, n: int = 9) -> tuple[dgpde.Richards, Tensor, Inputs]:
    """Nine columns, of which the fifth cannot go on after its first interval (or at all)."""
    generator = torch.Generator().manual_seed(2)
    k_sat = 1e-6 * (1.0 + torch.rand(12, n, generator=generator, dtype=torch.float64))
    flux = torch.full((3, n), 1e-7, dtype=torch.float64)
    if broken == "sucked dry":
        flux[1:, 4] = -1e-2  # 36 m an hour out of a column that holds 0.3 m
    elif broken == "sucked dry at once":
        flux[1:, 4] = -1e2  # no step of the second interval can be done
    elif broken == "overflow":
        flux[0, 4] = 1e308
    leaves = {"k_sat": k_sat.requires_grad_(), "q": flux.requires_grad_()}
    leaves["alpha"] = torch.tensor(3.6, dtype=torch.float64, requires_grad=True)
    soil = dgpde.VanGenuchten(
        theta_r=0.078, theta_s=0.43, alpha=leaves["alpha"], n=1.56, k_sat=leaves["k_sat"]
    )
    flow = dgpde.Richards(
        dgpde.Grid.columns(n=n, dz=[0.06] * 12),
        soil,
        boundaries={"top": dgpde.Flux(dgpde.Series(leaves["q"])), "bottom": dgpde.FreeDrainage()},
    )
    psi0 = torch.full((12, n), -0.9, dtype=torch.float64)
    return flow, psi0, leaves


TIMES = torch.tensor([0.0, 3600.0, 9000.0, 12000.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("broken", "status", "time"),
    [("sucked dry", 1, 3600.0), ("sucked dry at once", 1, 3600.0), ("overflow", 2, 0.0)],
)
def test_a_broken_column_leaves_the_others_alone(broken: str, status: int, time: float) -> None:
    others = torch.arange(9) != 4
    runs = []
    for what in (None, broken):
        flow, psi0, leaves = columns_with(what)
        run = flow.solve(psi0, TIMES, SolveOptions(dt_min=1e-3, on_failure="return"))
        theta = run.theta[:, :, others]
        (theta.square().sum() + 1e5 * run.boundary_flux["bottom"][:, others].sum()).backward()
        runs.append((run, leaves))
    (healthy, clean), (mixed, dirty) = runs
    assert mixed.status[others].eq(0).all()
    assert mixed.status[4] == status
    assert time <= mixed.failed_time[4].item() < TIMES[-1]
    assert mixed.failed_time[others].isnan().all()
    assert torch.equal(mixed.psi[:, :, others], healthy.psi[:, :, others])
    for side in ("top", "bottom"):
        assert torch.equal(mixed.boundary_flux[side][:, others], healthy.boundary_flux[side][:, others])
    assert mixed.psi[-1, :, 4].isnan().all()
    for name in ("k_sat", "q"):
        a, b = clean[name].grad, dirty[name].grad
        assert a is not None
        assert b is not None
        assert torch.equal(a[:, others], b[:, others]), name
        assert torch.equal(b[:, 4], torch.zeros_like(b[:, 4])), name
    # A parameter that all columns share sees the same: what was not observed gives nothing, not nan.
    assert clean["alpha"].grad is not None
    assert dirty["alpha"].grad is not None
    torch.testing.assert_close(dirty["alpha"].grad, clean["alpha"].grad, rtol=1e-13, atol=0.0)


def test_failure_is_raised_with_column_time_and_reason() -> None:
    flow, psi0, _ = columns_with("sucked dry")
    with pytest.raises(SolveError, match="column") as caught:
        flow.solve(psi0, TIMES, SolveOptions(dt_min=1e-3))
    text = str(caught.value)
    assert "4" in text
    assert "dt_min" in text
    assert "36" in text  # 3600 s or a little later


@pytest.mark.parametrize("broken", ["sucked dry", "sucked dry at once"])
def test_what_a_column_did_before_it_failed_can_be_differentiated(broken: str) -> None:
    flow, psi0, leaves = columns_with(broken)
    run = flow.solve(psi0, TIMES, SolveOptions(dt_min=1e-3, on_failure="return"))
    run.theta[1].square().sum().backward()
    found = {name: leaf.grad for name, leaf in leaves.items()}
    flow, psi0, leaves = columns_with(None)
    run = flow.solve(psi0, TIMES, SolveOptions(dt_min=1e-3))
    run.theta[1].square().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(found[name], leaf.grad, rtol=1e-12, atol=0.0)


# ---- what autograd is asked and may not do -----------------------------------------------------------------------


def test_singular_transposed_solve_raises() -> None:
    """A closed, saturated column without storage is at rest in every head: J is singular."""
    case = replace(
        CASES["saturated soil"], top="flux", bottom="flux", source=None, gravity=0.0, values={}, n=2
    )
    problem, inputs = make(case, SolveOptions(dt_fixed=3600.0))
    constant = {
        "psi0": 1.0,
        "k_sat": 1e-6,
        "specific_storage": 0.0,
        "soil.theta_s": 0.4,
        "top.q": 0.0,
        "bottom.q": 0.0,
    }
    for name, value in constant.items():
        inputs[name] = torch.full_like(inputs[name], value)
    problem = replace(problem, dz=torch.full((problem.nz,), 0.125, dtype=torch.float64))
    psi0 = inputs["psi0"].requires_grad_()
    result = column_flow(problem, inputs | {"psi0": psi0})
    assert (result.report.status == 0).all()
    with pytest.raises(SolveError, match=r"transposed linear solve of 2 column\(s\).*specific_storage"):
        result.psi[-1].square().sum().backward()


@pytest.fixture
def run() -> tuple[Inputs, Tensor]:
    problem, inputs = make(replace(STORM, n=3), OPTIONS)
    at = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    leaves = {
        name: value * 1.0 for name, value in at.items()
    }  # not leaves, so that they may be changed in place
    result = column_flow(problem, leaves)
    return at | {f"inner {name}": value for name, value in leaves.items()}, result.psi[-1].square().sum()


def test_second_order_raises(run: tuple[Inputs, Tensor]) -> None:
    at, loss = run
    (gradient,) = torch.autograd.grad(loss, at["k_sat"], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(gradient.sum(), at["k_sat"])


def test_change_in_place_before_backward_raises(run: tuple[Inputs, Tensor]) -> None:
    at, loss = run
    with torch.no_grad():
        at["inner k_sat"].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_backward_twice(run: tuple[Inputs, Tensor]) -> None:
    at, loss = run
    first = torch.autograd.grad(loss, at["k_sat"], retain_graph=True)[0]
    second = torch.autograd.grad(loss, at["k_sat"])[0]
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, at["k_sat"])


def test_functional_transforms() -> None:
    """torch.func.grad and torch.func.jvp see the node as autograd does."""
    problem, inputs = make(replace(STORM, n=2), OPTIONS)

    def loss(k_sat: Tensor) -> Tensor:
        return column_flow(problem, inputs | {"k_sat": k_sat}).psi[-1].square().sum()

    k_sat = inputs["k_sat"].clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(k_sat), k_sat)
    assert torch.equal(torch.func.grad(loss)(inputs["k_sat"]), expected)
    v = inputs["k_sat"] * torch.linspace(-1.0, 1.0, inputs["k_sat"].numel()).double().reshape(-1, 2)
    _, moved = torch.func.jvp(loss, (inputs["k_sat"],), (v,))
    torch.testing.assert_close(moved, (expected * v).sum(), rtol=1e-11, atol=0.0)
