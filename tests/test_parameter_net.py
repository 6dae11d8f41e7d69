"""Parameters from attributes: bounds for any weights, the prior before training, training through the solver."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import ParameterNet, Range

RANGES = {
    "theta_s": Range(0.4, 0.3, 0.55),
    "alpha": Range(3.6),
    "n": Range(1.6, 1.05, 4.0, "log"),
    "k_sat": Range(1e-5, 1e-8, 1e-2, "log", spread=2.0),
    "shifted": Range(1.5, 1.0),
}


def test_before_training_every_place_has_the_start() -> None:
    net = ParameterNet(3, RANGES, (7, 5))
    found = net(torch.randn(4, 2, 3, dtype=torch.float64))
    for name, entry in RANGES.items():
        assert found[name].shape == (4, 2)
        # round-off of a logit and back
        torch.testing.assert_close(
            found[name], torch.full((4, 2), entry.start, dtype=torch.float64), rtol=1e-14, atol=0.0
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_keep_to_their_bounds_for_any_weights(dtype: torch.dtype) -> None:
    for scale in (0.1, 10.0, 1e3):
        net = ParameterNet(2, RANGES, seed=3, dtype=dtype)
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(scale * torch.randn_like(weight))
        found = net(torch.randn(50, 2, dtype=dtype))
        for name, entry in RANGES.items():
            assert bool((found[name] >= entry.low * (1 - 1e-6)).all()), name
            assert bool((found[name] <= entry.high * (1 + 1e-6)).all()), name


@pytest.mark.parametrize("name", RANGES)
def test_coordinates_are_the_inverse_of_values(name: str) -> None:
    entry = RANGES[name]
    z = torch.tensor([-2.0, -0.3, 0.0, 1.1], dtype=torch.float64)
    back = [entry.coordinate(value) for value in entry.value(z).tolist()]
    torch.testing.assert_close(torch.tensor(back, dtype=torch.float64), z, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: entry.value(x) / entry.start, [z.requires_grad_()])


def test_a_seed_draws_the_same_network_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two = (ParameterNet(3, RANGES, seed=5) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_soil_roots_and_surface_are_learned_together_in_batches() -> None:
    """alpha, the heads of root stress, omega_c and the driest surface head from attributes; the rest stays frozen."""
    ranges = {
        "alpha": Range(3.6, 0.5, 20.0, "log"),
        "stress": Range(2.0, 0.5, 8.0, "log"),
        "omega_c": Range(0.8, 0.1, 1.0),
        "driest": Range(50.0, 5.0, 500.0, "log"),
        "slope": Range(0.5, 0.0, 1.0),
    }
    place = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grid_of = {n: dgpde.Grid.columns(n=n, dz=[0.1] * 6) for n in (6, 3)}

    def run(net: ParameterNet, curves: dgpde.SoilNetwork, batch: Tensor) -> Tensor:
        p = net(place[batch])
        soil = dgpde.NeuralSoil(dgpde.VanGenuchten(0.05, 0.4, p["alpha"], 1.6, 5e-6), curves, [p["slope"]])
        feddes = dgpde.Feddes(h3_high=-p["stress"], h3_low=-p["stress"], h4=-30.0)
        model = dgpde.Richards(
            grid_of[batch.numel()],
            soil,
            {"top": dgpde.Atmosphere(0.0, 5e-8, -p["driest"]), "bottom": dgpde.FreeDrainage()},
            [dgpde.RootUptake(8e-8, root_depth=0.5, response=feddes, omega_c=p["omega_c"])],
        )
        return model.solve(-1.0, [0.0, 86400.0, 4 * 86400.0], dgpde.SolveOptions(tolerance=1e-9)).theta

    def networks(scale: float) -> tuple[ParameterNet, dgpde.SoilNetwork]:
        net, curves = ParameterNet(2, ranges, (4,), seed=2), dgpde.SoilNetwork(3, features=1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(3)
            for weight in [*net.parameters(), *curves.parameters()]:
                weight.add_(scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
        return net, curves

    with torch.no_grad():
        observed = run(*networks(0.3), torch.arange(6))
    net, curves = networks(0.0)
    optimiser = torch.optim.Adam([*net.parameters(), *curves.parameters()], lr=0.03)
    losses = []
    for epoch in range(8):
        for batch in torch.arange(6).split(3):
            optimiser.zero_grad()
            loss = (run(net, curves, batch) - observed[..., batch]).square().mean()
            loss.backward()
            if epoch == 1:
                assert all(
                    bool((weight.grad != 0.0).any()) for weight in net.parameters() if weight.grad is not None
                )
            optimiser.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-2:]) < 0.2 * sum(losses[:2]), losses


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Range(0.5, 0.6, 1.0), ValueError, r"^start: is 0.5"),
        (lambda: Range(0.5, 1.0, 0.0), ValueError, r"^low: is 1.0"),
        (lambda: Range(0.5, -math.inf), ValueError, r"^low: is -inf"),
        (lambda: Range(0.5, 0.0, 1.0, "log"), ValueError, r"^low: is 0.0"),
        (lambda: Range(0.5, 0.0, 1.0, "cubic"), ValueError, r"^scale: is 'cubic'"),
        (lambda: Range(0.5, spread=0.0), ValueError, r"^spread: is 0.0"),
        (lambda: Range(0.5).coordinate(-1.0), ValueError, r"^value: is -1.0"),
        (lambda: ParameterNet(0, RANGES), ValueError, r"^attributes: holds 0"),
        (lambda: ParameterNet(2, RANGES, (3.0,)), TypeError, r"^hidden: holds a float"),  # type: ignore[arg-type]
        (lambda: ParameterNet(2, {}), TypeError, r"^ranges: "),
        (lambda: ParameterNet(2, {"alpha": 3.0}), TypeError, r"^ranges: 'alpha' is a float"),  # type: ignore[dict-item]
        (lambda: ParameterNet(2, RANGES, dtype=torch.int8), ValueError, r"^dtype: "),
        (lambda: ParameterNet(2, RANGES)(3.0), TypeError, r"^attributes: is a float"),
        (lambda: ParameterNet(2, RANGES)(torch.zeros(2)), TypeError, r"^attributes: is torch.float32"),
        (
            lambda: ParameterNet(2, RANGES)(torch.zeros(5, 3).double()),
            ValueError,
            r"^attributes: has shape \(5, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
