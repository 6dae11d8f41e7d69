"""Three proofs of every gradient of the column engine, on every branch, with steps of varying length.

1. The hand-derived adjoint against autograd through the PyTorch reference, which replays the accepted steps.
2. The Taylor remainder f(x + e v) - f(x) - e <grad, v>, which must shrink with e^2.
3. <J v, w> = <v, J^T w> with the hand-derived tangent.

Each is made for each input by itself, with cotangents on every output: psi, theta, ponding, top and bottom flux,
run-off and uptake.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gradient_cases import CASES, NAMES, SOIL_NAMES
from gradient_problem import (
    HOUR,
    OBSERVABLES,
    Inputs,
    adaptive,
    direction,
    first_two,
    fixed,
    make,
    observe,
    weights,
)
from torch import Tensor
from torch.autograd import forward_ad

from dgpde.kernels.column_flow.function import column_flow
from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult
from dgpde.kernels.column_flow.reference import column_flow_reference

# forward-mode AD of torch itself compiles its decompositions with torch.jit, which warns
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

# Relative changes of an input, small ones first: those after the first are for inputs that hardly curve the outputs.
SIZES = (1e-4, 4e-4, 2e-3, 1e-2, 4e-2)


def leaves(inputs: Inputs) -> Inputs:
    return {name: value.clone().requires_grad_() for name, value in inputs.items()}


def pull(values: dict[str, Tensor], cotangents: dict[str, Tensor], at: Inputs) -> Inputs:
    """J^T w by reverse mode."""
    loss = torch.stack([(cotangents[name] * values[name]).sum() for name in OBSERVABLES]).sum()
    gradients = torch.autograd.grad(loss, list(at.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(at.items(), gradients, strict=True)
    }


def gradients(
    problem: ColumnProblem, inputs: Inputs
) -> tuple[ColumnResult, dict[str, Tensor], Inputs, Inputs]:
    """A run on the CPU engine: result, cotangents w, J^T w, observed values."""
    at = leaves(inputs)
    result = column_flow(problem, at)
    assert (result.report.status == 0).all()
    values = observe(problem, at, result)
    w = weights(values)
    return result, w, pull(values, w, at), {name: value.detach() for name, value in values.items()}


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance; 0 where both vanish."""
    size = b.norm().item()
    apart = (a - b).norm().item()
    return apart / size if size > 0.0 else (0.0 if apart == 0.0 else float("inf"))


@pytest.mark.parametrize("name", NAMES)
def test_adjoint_against_autograd_through_the_reference(name: str) -> None:
    case = CASES[name]
    problem, inputs = make(case, adaptive(case))
    result, w, adjoint, values = gradients(problem, inputs)
    assert case.reached(problem, inputs, result), "the case does not reach its branch"
    steps = result.report.step_sizes
    assert steps is not None
    lengths = torch.cat([size[:, 0][size[:, 0] > 0.0] for size in steps])
    assert lengths.max() > 1.05 * lengths.min()

    at = leaves(inputs)
    # The reference polishes what has converged to round-off, whatever the tolerance.
    patient = replace(problem, options=replace(problem.options, tolerance=1e-10, max_newton=60))
    truth = column_flow_reference(patient, at, steps)
    assert (truth.report.status == 0).all()
    expected = observe(problem, at, truth)
    for key in OBSERVABLES:
        size = expected[key].detach().abs().max().item()
        # Newton stops at round-off of the residual; the condition of the step makes that about 1e-12 of psi.
        assert (values[key] - expected[key].detach()).abs().max().item() <= 1e-11 * size, key
    for key, gradient in pull(expected, w, at).items():
        assert distance(adjoint[key], gradient) <= 1e-9, key


@pytest.mark.parametrize("name", NAMES)
def test_taylor_remainder(name: str) -> None:
    """|(f_i(x + e v) - f_i(x) - e <grad f_i, v>)_i| over the seven observables f_i, for each input x."""
    case = CASES[name]
    problem, inputs = make(case, fixed(case))
    at = leaves(inputs)
    result = column_flow(problem, at)
    values = observe(problem, at, result)
    w = weights(values)
    nothing = {key: torch.zeros_like(value) for key, value in w.items()}
    adjoint = [pull(values, nothing | {out: w[out]}, at) for out in OBSERVABLES]
    values = {out: value.detach() for out, value in values.items()}
    steps = result.report.step_sizes
    assert steps is not None
    assert (result.report.cuts == 0).all(), "the proof needs the same steps in perturbed runs"
    assert len({round(size.item(), 3) for interval in steps for size in interval[:, 0]}) > 1
    # Round-off of a run seen through w, measured at up to 2e-15 of the observed sizes.
    noise = 2e-15 * sum((w[key] * values[key]).abs().sum().item() for key in OBSERVABLES)
    for key, value in inputs.items():
        v = direction(key, value)
        slopes = torch.stack([(gradient[key] * v).sum() for gradient in adjoint])

        def remainder(size: float, key: str = key, v: Tensor = v, slopes: Tensor = slopes) -> float:
            moved = inputs | {key: inputs[key] + size * v}
            run = column_flow(problem, moved)
            assert (run.report.steps == result.report.steps).all(), key
            after = observe(problem, moved, run)
            changes = torch.stack([(w[out] * (after[out] - values[out])).sum() for out in OBSERVABLES])
            return (changes - size * slopes).norm().item()

        for size in SIZES:
            coarse, fine = remainder(size), remainder(0.25 * size)
            if coarse == 0.0 and not slopes.any():  # no influence here, as of h1 on a wilted column
                break
            if fine > 30.0 * noise:
                assert math.log2(coarse / fine) / 2.0 == pytest.approx(2.0, abs=0.1), (key, coarse, fine)
                break
        else:  # linear in this input, as far as a change of a few per cent can show
            assert coarse <= 500.0 * noise, (key, coarse, noise)


@pytest.mark.parametrize("name", NAMES)
def test_dot_product(name: str) -> None:
    case = CASES[name]
    problem, inputs = make(case, adaptive(case))
    _, w, adjoint, _ = gradients(problem, inputs)
    for key, value in inputs.items():
        v = direction(key, value)
        with forward_ad.dual_level():
            duals = inputs | {key: forward_ad.make_dual(value, v)}
            pushed = observe(problem, duals, column_flow(problem, duals))
            moved = {out: forward_ad.unpack_dual(pushed[out]).tangent for out in OBSERVABLES}
        parts = [(w[out] * moved[out]).sum() for out in OBSERVABLES if moved[out] is not None]
        forward = torch.stack(parts).sum().item() if parts else 0.0
        backward = (adjoint[key] * v).sum().item()
        size = max(abs(forward), abs(backward))
        assert abs(forward - backward) <= 1e-11 * size, (key, forward, backward)


@pytest.mark.parametrize("name", SOIL_NAMES)
def test_gradcheck(name: str) -> None:
    """torch.autograd.gradcheck in both modes on a tiny case of every soil, all inputs at once."""
    case = replace(
        CASES[name], nz=3, n=1, hours=(0.6, 1.1), dt_fixed=HOUR, values=first_two(CASES[name].values)
    )
    case = replace(case, psi0=-0.3 if "pond" in name else -1.1 if case.top == "atmosphere" else 0.4)
    problem, inputs = make(case, fixed(case))
    moving = {key: value for key, value in inputs.items() if bool((direction(key, value) != 0.0).any())}
    # Inputs and outputs are brought to the order of 1, so that one size of the differences suits them all.
    sizes = {
        key: value.abs().max() if bool(value.any()) else torch.tensor(1e-3) for key, value in moving.items()
    }
    scale = {key: 1.0 / (value.abs().max() or 1.0) for key, value in gradients(problem, inputs)[3].items()}

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        scaled = {key: value * sizes[key] for key, value in zip(moving, values, strict=True)}
        if "soil.table" in scaled:  # a table is flat at knot 0, where log kr = 0: these numbers may not move
            free = torch.ones_like(scaled["soil.table"], dtype=torch.bool)
            free[:, 0, 1:] = False
            scaled["soil.table"] = torch.where(free, scaled["soil.table"], inputs["soil.table"])
        at = inputs | scaled
        observed = observe(problem, at, column_flow(problem, at))
        return tuple(observed[out] * scale[out] for out in OBSERVABLES)

    at = [(value / sizes[key]).detach().requires_grad_() for key, value in moving.items()]
    fast = problem.relation in ("tabulated", "network")  # many numbers: one random projection instead of each
    assert torch.autograd.gradcheck(
        outputs, at, eps=1e-6, atol=1e-6, rtol=1e-5, check_forward_ad=True, fast_mode=fast
    )
