"""The fused network against the PyTorch reference: values, slopes, every derivative, every instruction set."""

from __future__ import annotations

import pytest
import torch
from neural_cases import network
from soil_cases import random_heads, spread, uniform
from torch import Tensor
from torch.autograd import forward_ad

import dgpde.kernels.soil_relation.function as function
from dgpde.kernels.soil_relation import cpu, reference

pytestmark = [
    pytest.mark.skipif(bool(function._why_no_native()), reason=function._why_no_native()),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),
]

F64, F32 = torch.float64, torch.float32


def drawn(n: int, units: int = 5, features: int = 3, seed: int = 1) -> tuple[list[Tensor], Tensor]:
    """Parameters as the kernel takes them, weights last, and heads from 1e-10 to 1e8 m."""
    torch.manual_seed(seed)
    fields = [uniform(0.0, 0.2, n), uniform(0.25, 0.6, n), spread(0.05, 20.0, n), uniform(1.05, 4.0, n)]
    fields += [uniform(-0.5, 2.0, n), *(torch.randn(n, dtype=F64) for _ in range(3))]
    return [*fields, network(units, features, 0.6, seed).weights().detach().contiguous()], random_heads(n)


def by_reference(parameters: list[Tensor], psi: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    leaves = [value.detach().double().requires_grad_() for value in (psi, *parameters)]
    values = dict(zip(reference.soil_names("network"), leaves[1:], strict=True))
    return leaves, *reference.theta_kr("network", 0, values, leaves[0])


@pytest.mark.parametrize("features", [0, 1, 3])
@pytest.mark.parametrize("n", [1, 2, 63, 129])
def test_values_slopes_and_gradients(n: int, features: int) -> None:
    parameters, psi = drawn(n, 5, features)
    what = cpu.Relation("network")
    theta, kr, capacity, dkr = (value[0] for value in cpu.curves(what, psi[None], parameters))
    leaves, expected_theta, expected_kr = by_reference(parameters, psi)
    # exp() of logarithms of up to some hundred, each with round-off
    torch.testing.assert_close(theta, expected_theta.detach(), rtol=2e-12, atol=5e-13)
    torch.testing.assert_close(kr, expected_kr.detach(), rtol=2e-11, atol=5e-13)
    h = torch.where(psi < 0.0, -psi, torch.ones_like(psi))
    for curve, slope in ((expected_theta, capacity), (expected_kr, dkr)):
        (expected,) = torch.autograd.grad(curve.sum(), leaves[0], retain_graph=True)
        torch.testing.assert_close(slope * h, expected * h, rtol=1e-10, atol=1e-12)
    weight = torch.randn(2, n, dtype=F64)
    _, gradients = cpu.backward(what, psi[None], parameters, weight[:1].contiguous(), weight[1:].contiguous())
    total = (expected_theta * weight[0] + expected_kr * weight[1]).sum()
    wanted = torch.autograd.grad(total, leaves[1:], allow_unused=True)
    for name, got, want in zip(reference.soil_names("network"), gradients, wanted, strict=True):
        want = torch.zeros_like(got) if want is None else want
        torch.testing.assert_close(
            got, want, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_tangent_is_the_transpose_of_the_gradient() -> None:
    parameters, psi = drawn(63)
    psi = torch.where(psi.abs() < 1e-6, -1e-6, psi)
    what = cpu.Relation("network")
    torch.manual_seed(2)
    w = torch.randn(2, 1, 63, dtype=F64)
    v = [torch.randn_like(value) for value in (psi, *parameters)]
    dot_theta, dot_kr = cpu.tangent(what, psi[None], parameters, v[0][None], v[1:])
    by_psi, by_parameters = cpu.backward(what, psi[None], parameters, w[0], w[1])
    forward = (w[0] * dot_theta + w[1] * dot_kr).sum()
    parts = [(by_psi[0] * v[0]).sum(), *((g * d).sum() for g, d in zip(by_parameters, v[1:], strict=True))]
    size = sum(float(part.abs()) for part in parts)
    assert abs(float(forward) - sum(float(part) for part in parts)) <= 1e-12 * size


def test_gradients_do_not_depend_on_the_threads_and_are_sums_over_the_cells() -> None:
    parameters, psi = drawn(2000)
    psi = psi.clamp(max=-1e-4)
    what, ones = cpu.Relation("network"), torch.ones(1, 2000, dtype=F64)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(cpu.backward(what, psi[None], parameters, ones, ones)[1][-1])
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    halves = torch.zeros_like(found[0])
    for part in (slice(0, 777), slice(777, 2000)):
        cells = [value[part].contiguous() for value in parameters[:-1]] + parameters[-1:]
        halves += cpu.backward(what, psi[None, part].contiguous(), cells, ones[:, part].contiguous(), None)[
            1
        ][-1]
        halves += cpu.backward(what, psi[None, part].contiguous(), cells, None, ones[:, part].contiguous())[
            1
        ][-1]
    torch.testing.assert_close(halves, found[0], rtol=1e-11, atol=1e-9)


def test_instruction_sets_agree() -> None:
    from dgpde._native import native_module

    module = native_module()
    parameters, psi = drawn(301)
    results = {}
    for name in ("generic", "avx2", "avx512"):
        try:
            module.set_instruction_set(name)
        except ValueError:
            continue
        results[name] = torch.stack(
            cpu.curves(cpu.Relation("network"), psi[None].clamp(max=-1e-6), parameters)
        )
    module.set_instruction_set("auto")
    first = next(iter(results.values()))
    for name, result in results.items():
        torch.testing.assert_close(result, first, rtol=1e-11, atol=1e-13, msg=name)  # other roundings


def test_float32() -> None:
    parameters, psi = drawn(129)
    psi = psi.clamp(min=-1e6, max=-1e-6)
    single = [value.float() for value in parameters]
    found = cpu.forward(cpu.Relation("network"), psi.float()[None], single)
    _, theta, kr = by_reference(single, psi.float())
    torch.testing.assert_close(found[0][0].double(), theta.detach(), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(found[1][0].double(), kr.detach(), rtol=2e-3, atol=3e-4)


def test_forward_mode_through_the_operation() -> None:
    parameters, psi = drawn(7, 3, 1)
    psi = psi.clamp(min=-1e3, max=-1e-3)
    names = reference.soil_names("network")
    torch.manual_seed(4)
    moves = [torch.randn_like(value) for value in parameters]
    found = []
    for backend in ("cpu", "reference"):
        with forward_ad.dual_level():
            duals = {n: forward_ad.make_dual(v, d) for n, v, d in zip(names, parameters, moves, strict=True)}
            curves = function.soil_relation("network", 0, duals, psi, backend=backend)
            found.append(torch.stack([forward_ad.unpack_dual(curve).tangent for curve in curves]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
