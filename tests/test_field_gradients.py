"""Gradients of fields in three ways: autograd through the reference, Taylor remainders, the dot product."""

from __future__ import annotations

import pytest
import torch
from field_cases import CASES, Case, Tensors, by_autograd, losses
from torch.autograd import forward_ad

from dgpde.kernels.node import as_node

BACKENDS = ("cpu", "reference")


def leaves_of(case: Case) -> Tensors:
    return {name: value.clone().requires_grad_() for name, value in case.leaves.items()}


def weigh(outputs: Tensors) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, value in outputs.items():
        scale = 1.0 if name == "psi" else 50.0 if name == "ponding" else 1e6
        total = (
            total
            + scale * (value * torch.cos(torch.arange(value.numel()).double()).reshape(value.shape)).sum()
        )
    return total


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_is_autograd_through_the_reference(name: str, backend: str) -> None:
    case = CASES[name]()
    leaves = leaves_of(case)
    run, inputs = case.run(leaves)
    expected = torch.autograd.grad(weigh(by_autograd(run, inputs)), list(leaves.values()), allow_unused=True)
    leaves = leaves_of(case)
    run, inputs = case.run(leaves, backend)
    found = torch.autograd.grad(weigh(as_node(run, inputs)), list(leaves.values()), allow_unused=True)
    sizes = [step for interval in run.account.step_sizes for step in interval]
    assert len({round(size, 6) for size in sizes}) > 3  # dt varies
    for leaf, want, got in zip(leaves, expected, found, strict=True):
        assert want is not None, leaf
        assert float(want.abs().max()) > 0.0, leaf
        # both are exact to what Newton leaves (tolerance 1e-13), carried through some 50 steps
        scale = float(want.abs().max())
        torch.testing.assert_close(
            got, want, rtol=1e-7, atol=1e-7 * scale, msg=lambda text, leaf=leaf: f"{leaf}: {text}"
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_the_dot_product_of_tangent_and_adjoint(name: str, backend: str) -> None:
    case = CASES[name]()
    leaves = leaves_of(case)
    generator = torch.Generator().manual_seed(5)
    directions = {
        leaf: value.detach() * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for leaf, value in leaves.items()
    }
    run, inputs = case.run(leaves, backend)
    outputs = as_node(run, inputs)
    bars = {
        key: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for key, value in outputs.items()
    }
    total = sum((outputs[key] * bar).sum() for key, bar in bars.items())
    gradients = torch.autograd.grad(total, list(leaves.values()))
    adjoint = sum(float((g * directions[leaf]).sum()) for leaf, g in zip(leaves, gradients, strict=True))
    with forward_ad.dual_level():
        moving = {k: forward_ad.make_dual(v.detach(), directions[k]) for k, v in leaves.items()}
        run, inputs = case.run(moving, backend)
        moved = as_node(run, inputs)
        parts = [(forward_ad.unpack_dual(moved[key]).tangent, bar) for key, bar in bars.items()]
    tangent = sum(float((dot * bar).sum()) for dot, bar in parts)
    size = sum(float((dot * bar).abs().sum()) for dot, bar in parts)
    # round-off of the two sweeps relative to the sum of magnitudes
    assert abs(tangent - adjoint) <= 1e-10 * size


@pytest.mark.parametrize("backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_taylor_remainders_are_of_second_order(name: str, backend: str) -> None:
    case = CASES[name]()
    fixed = {"dt_fixed": 1800.0, "backend": backend}
    leaves = leaves_of(case)
    value = losses(case.solve(leaves, **fixed))
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    generator = torch.Generator().manual_seed(9)
    directions = {
        leaf: v.detach().abs() * torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for leaf, v in leaves.items()
    }
    slope = sum(
        float((g * directions[k]).sum()) for k, g in zip(leaves, gradients, strict=True) if g is not None
    )
    remainders = []
    for size in (1e-4, 5e-5, 2.5e-5):
        with torch.no_grad():
            there = losses(
                case.solve({k: v.detach() + size * directions[k] for k, v in leaves.items()}, **fixed)
            )
        remainders.append(abs(float(there - value) - size * slope))
    orders = [torch.tensor(a / b).log2().item() for a, b in zip(remainders, remainders[1:], strict=False)]
    # upstream weighting and the switches of the surface leave kinks, which may sit between two of the sizes
    assert max(orders) > 1.8, (remainders, orders)
    assert remainders[0] < 1e-3 * abs(1e-4 * slope) or min(orders) > 1.8, (remainders, slope)
