"""The roughness of learned curves: what it is, its gradient, its words."""

from __future__ import annotations

import math

import pytest
import torch
from neural_cases import WAYS, network, prior, put, weights_of
from torch import Tensor

import dgpde
from dgpde.soil.roughness import bends

ROUTES = sorted({route for route, _ in WAYS})


def test_the_roughness_is_the_integral_of_the_squared_curvature() -> None:
    psi = -torch.logspace(-1, 2, 601, dtype=torch.float64)
    soil = dgpde.NeuralSoil(prior(), network(4, 0, scale=0.5, seed=3), route="torch")
    exact = []
    for k in (0, 1):

        def curve(x: Tensor, k: int = k) -> Tensor:
            value = soil.curves(-(10.0**x))[k]
            return value if k == 0 else value / torch.log(torch.tensor(10.0, dtype=torch.float64))

        def slope(x: Tensor, curve: object = curve) -> Tensor:
            return torch.func.grad(curve)(x)

        x = torch.log10(-psi)
        second = torch.vmap(torch.func.grad(slope))(x)
        exact.append((second.square()[1:-1] * 0.5 * (x[2:] - x[:-2])).sum())
    found = soil.roughness(psi, of="curves")
    # divided differences of second order at 1/200 of a decade; bends of the curves are about 1/10 wide; neither counts
    # the half gaps at both ends
    torch.testing.assert_close(found.theta, exact[0].detach(), rtol=2e-3, atol=0.0)
    torch.testing.assert_close(found.log10_k, exact[1].detach(), rtol=2e-3, atol=0.0)


def test_the_roughness_does_not_depend_on_how_the_heads_are_spaced() -> None:
    soil = dgpde.NeuralSoil(prior(), network(4, 0, scale=0.5, seed=3), route="torch")
    place = torch.linspace(0.0, 1.0, 801, dtype=torch.float64)
    even, uneven = -(10.0 ** (3.0 * place - 1.0)), -(10.0 ** (3.0 * (0.5 * place + 0.5 * place**2) - 1.0))
    for of in ("departure", "curves"):
        for one, other in zip(soil.roughness(even, of), soil.roughness(uneven, of), strict=True):
            # both have errors of the second order in spacings of 1/270 to 1/130 of a decade
            torch.testing.assert_close(one, other, rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("route", ROUTES)
def test_an_untrained_soil_departs_nowhere(route: str) -> None:
    soil = dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(units=4), route=route)
    psi = -torch.logspace(-1, 2, 40, dtype=torch.float64)
    departure, curves = soil.roughness(psi), soil.roughness(psi, of="curves")
    assert float(departure.theta.detach()) == float(departure.log10_k.detach()) == 0.0
    assert float(curves.theta) > 0.0 and float(curves.log10_k) > 0.0


def test_the_departure_is_the_soil_less_its_prior() -> None:
    soil = dgpde.NeuralSoil(prior(), network(4, 0, scale=0.5, seed=3))
    bare = dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(units=4))
    psi = -torch.logspace(-1, 2, 40, dtype=torch.float64)
    (theta, ln_kr), (theta0, ln_kr0) = soil.curves(psi), bare.curves(psi)
    found = soil.roughness(psi)
    torch.testing.assert_close(found.theta, bends(theta - theta0, psi).square().sum())
    torch.testing.assert_close(found.log10_k, bends((ln_kr - ln_kr0) / math.log(10.0), psi).square().sum())


def test_bends_of_a_straight_line_are_none_and_of_a_parabola_known() -> None:
    x = torch.tensor([-1.0, -0.4, -0.1, 0.7, 1.0, 2.0], dtype=torch.float64)
    psi = -(10.0**x)
    values = torch.stack([3.0 - 2.0 * x, x * x], 1)
    found = bends(values, psi)
    # round-off of differences of numbers near 1 over gaps of 0.3 and more
    assert float(found[:, 0].abs().max()) < 1e-13
    width = 0.5 * (x[2:] - x[:-2])
    torch.testing.assert_close(found[:, 1], 2.0 * width.sqrt(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("route", ROUTES)
def test_the_roughness_of_cells_is_that_of_each(route: str) -> None:
    psi = -torch.logspace(-1, 2, 40, dtype=torch.float64)
    theta_s = torch.tensor([[0.38, 0.41], [0.44, 0.47], [0.4, 0.5]], dtype=torch.float64)
    feature = torch.tensor([-0.4, 0.7], dtype=torch.float64)
    net = network(4, 1, scale=0.5, seed=5)
    found = dgpde.NeuralSoil(prior(theta_s), net, [feature], route=route).roughness(psi)
    assert found.theta.shape == found.log10_k.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = dgpde.NeuralSoil(prior(float(theta_s[i, j])), net, [float(feature[j])]).roughness(psi)
            torch.testing.assert_close(found.theta[i, j], alone.theta, rtol=1e-12, atol=0.0)
            torch.testing.assert_close(found.log10_k[i, j], alone.log10_k, rtol=1e-12, atol=0.0)


def test_gradcheck_of_the_roughness() -> None:
    psi = -torch.logspace(-0.5, 1.5, 9, dtype=torch.float64)
    net = network(2, 1, scale=0.5, seed=7)
    names, leaves = zip(*weights_of(net).items(), strict=True)
    feature = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def call(feature: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        soil = dgpde.NeuralSoil(prior(), put(net, dict(zip(names, values, strict=True))), [feature], "torch")
        return *soil.roughness(psi), *soil.roughness(psi, of="curves")

    inputs = tuple(value.requires_grad_(True) for value in (feature, *leaves))
    # central differences of 1e-6 of numbers of the order of 1
    assert torch.autograd.gradcheck(call, inputs, atol=1e-6, check_forward_ad=True)


@pytest.mark.parametrize(
    ("psi", "error", "message"),
    [
        ([-1.0, -2.0, -3.0], TypeError, "psi: is a list"),
        (torch.tensor([-1.0, -2.0]), ValueError, "psi: has shape"),
        (torch.tensor([[-1.0, -2.0, -3.0]]), ValueError, "psi: has shape"),
        (torch.tensor([-1.0, -2.0, 0.0]), ValueError, "psi: must be negative and fall"),
        (torch.tensor([-3.0, -2.0, -1.0]), ValueError, "psi: must be negative and fall"),
        (torch.tensor([-1.0, float("nan"), -3.0]), ValueError, "psi: must be negative and fall"),
    ],
)
def test_heads_that_are_no_row_are_named(psi: object, error: type[Exception], message: str) -> None:
    soil = dgpde.NeuralSoil(prior(), network(2, 0))
    with pytest.raises(error, match=f"^{message}"):
        soil.roughness(psi)  # type: ignore[arg-type]


def test_what_bends_is_named() -> None:
    soil = dgpde.NeuralSoil(prior(), network(2, 0))
    with pytest.raises(ValueError, match="^of: is 'prior'; choose"):
        soil.roughness(-torch.logspace(0, 1, 5), of="prior")


def test_values_that_do_not_go_with_the_heads_are_named() -> None:
    with pytest.raises(ValueError, match="^values: has shape"):
        bends(torch.zeros(4), -torch.logspace(0, 1, 5))
