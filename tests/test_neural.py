"""Learned relations: the definition, its limits for any weights, and the ways to compute it."""

from __future__ import annotations

import pytest
import torch
from neural_cases import WAYS, columns, loss_of, network, prior, put, weights_of
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from dgpde.kernels.soil_relation.reference_network import curves, departure

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

ROUTES = sorted({route for route, _ in WAYS})
HEADS = -torch.logspace(-5, 7, 400, dtype=torch.float64)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("route", ROUTES)
def test_an_untrained_network_is_its_prior(route: str) -> None:
    net = dgpde.SoilNetwork(units=8, features=2)
    soil = dgpde.NeuralSoil(prior(), net, [0.7, torch.tensor(-3.0, dtype=torch.float64)], route=route)
    psi = HEADS[HEADS > -1e5]
    (theta, kr), (theta0, kr0) = soil.theta_kr(psi), prior().theta_kr(psi)
    # round-off, through logarithms of up to 100; a table has its own error besides
    table = (1e-7, 1e-5) if route == "baked" else (0.0, 0.0)
    assert float((theta - theta0).detach().abs().max()) <= 1e-14 + table[0]
    assert float((kr / kr0 - 1.0).detach().abs().max()) <= 1e-12 + table[1]


@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0, 1e6])
@pytest.mark.parametrize("units", [1, 2, 8, 16])
def test_curves_fall_between_their_limits_for_any_weights(units: int, scale: float) -> None:
    for seed in range(5):
        net = network(units, 3, scale, seed)
        x = [scale * value for value in random(3, 1, seed=seed)]
        u = torch.linspace(-30.0, 30.0, 2001, dtype=torch.float64)
        weights = net.weights().detach()
        for part in weights:
            value, slope = departure(part, u, x)
            assert bool((slope > -1.0 + 1.0 / (2.0 + 101.0 * units)).all()) and bool(
                (slope < net.steepest).all()
            )
            assert bool((value.abs() < 5.0 * net.steepest + 5.0).all())
        p = {name: torch.tensor(v, dtype=torch.float64) for name, v in vars_of_prior().items()} | {
            "weights": weights
        }
        found = curves(p, u, x)
        assert bool((found.theta_slope <= 0.0).all()) and bool((found.ln_kr_slope < 0.0).all())
        inside = (found.theta > 0.05 + 1e-12) & (found.theta < 0.41 - 1e-12)
        assert bool((found.theta_slope[inside] < 0.0).all())
        # round-off of the values themselves
        assert bool((found.theta.diff() <= 1e-16).all()) and bool((found.ln_kr.diff() <= 1e-13).all())
        assert float(found.theta.min()) >= 0.05 and float(found.theta.max()) <= 0.41
        far = curves(p, torch.tensor([-400.0, 400.0], dtype=torch.float64), x)
        assert float(far.theta[0]) == pytest.approx(0.41, abs=1e-12) and float(far.ln_kr[0]) > -1e-12
        assert float(far.theta[1]) == pytest.approx(0.05, abs=1e-12) and float(far.ln_kr[1]) < -300.0


def vars_of_prior() -> dict[str, float]:
    return {"theta_r": 0.05, "theta_s": 0.41, "alpha": 3.5, "n": 1.6, "l": 0.5}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_a_soil_is_saturated_at_zero_and_falls(route: str, scale: float) -> None:
    soil = dgpde.NeuralSoil(prior(), network(8, 0, scale, 3), route=route)
    psi = torch.cat([torch.tensor([2.0, 0.0], dtype=torch.float64), HEADS])
    with torch.no_grad():
        theta, kr = soil.theta_kr(psi)
    assert theta[:2].tolist() == [0.41, 0.41] and kr[:2].tolist() == [1.0, 1.0]
    assert bool((theta.diff() <= 1e-15).all()) and bool((kr.diff() <= 0.0).all())
    assert bool((theta > 0.0).all()) and bool((kr >= 0.0).all()) and bool((kr <= 1.0).all())
    if route != "baked":  # a table goes on as a power of the suction, down to 0
        assert float(theta.min()) >= 0.05


def test_the_slopes_are_those_of_the_curves() -> None:
    net = network(6, 2, 0.7, 5)
    u = torch.linspace(-9.0, 9.0, 61, dtype=torch.float64).requires_grad_()
    p = {name: torch.tensor(v, dtype=torch.float64) for name, v in vars_of_prior().items()} | {
        "weights": net.weights()
    }
    found = curves(p, u, [torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.8, dtype=torch.float64)])
    for value, slope in ((found.theta, found.theta_slope), (found.ln_kr, found.ln_kr_slope)):
        (expected,) = torch.autograd.grad(value.sum(), u, retain_graph=True)
        torch.testing.assert_close(slope, expected, rtol=1e-11, atol=1e-14)


def test_gradcheck_of_the_curves() -> None:
    net = network(3, 1, 0.5, 7)
    leaves = weights_of(net)
    psi = -torch.tensor([0.02, 0.4, 6.0], dtype=torch.float64)

    def both(x: Tensor, head: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        soil = dgpde.NeuralSoil(prior(), put(net, dict(zip(leaves, given, strict=True))), [x], route="torch")
        return soil.theta_kr(head)

    at = [value.requires_grad_() for value in (torch.tensor(0.4, dtype=torch.float64), psi, *leaves.values())]
    assert torch.autograd.gradcheck(both, at)
    assert torch.autograd.gradgradcheck(both, at)


@pytest.mark.parametrize("route", ["fused", "torch", "baked"])
def test_curves_give_ln_kr_where_kr_underflows(route: str) -> None:
    net = network(features=1)
    soil = dgpde.NeuralSoil(prior(), net, [torch.tensor([[0.3], [-0.6]], dtype=torch.float64)], route=route)
    psi = -torch.logspace(-3, 2, 60, dtype=torch.float64)
    theta, ln_kr = (curve.detach() for curve in soil.curves(psi))
    expected = [curve.detach() for curve in soil.theta_kr(psi)]
    # a table is within its error, the others within round-off of their own exp and log
    slack = 1e-12 if route != "baked" else 2.0 * max(soil.table_error()[:2])
    assert float((theta - expected[0]).abs().max()) <= slack
    assert float((ln_kr - torch.log(expected[1])).abs().max()) <= slack * float(1.0 + ln_kr.abs().max())
    far = torch.tensor([-1e200, 0.0, 2.0], dtype=torch.float64)
    theta, ln_kr = soil.curves(far)
    assert bool((ln_kr[:, 0] < -700.0).all()) and bool(torch.isfinite(ln_kr).all())
    assert bool((ln_kr[:, 1:] == 0.0).all()) and bool((theta[:, 1:] == 0.41).all())
    gradient = torch.autograd.grad(ln_kr.sum() + theta.sum(), list(net.parameters()))
    assert all(bool(torch.isfinite(g).all()) for g in gradient)


def test_the_capacity_is_the_slope() -> None:
    for route in ROUTES:
        soil = dgpde.NeuralSoil(prior(), network(4, 0, 0.5, 2), route=route)
        psi = (-torch.tensor([0.01, 0.3, 2.0, 40.0], dtype=torch.float64)).requires_grad_()
        (slope,) = torch.autograd.grad(soil.theta(psi).sum(), psi)
        torch.testing.assert_close(soil.capacity(psi), slope, rtol=1e-9, atol=1e-13)


def test_the_table_error_is_stated_and_falls_with_the_fourth_power() -> None:
    net = network(8, 0, 0.7, 1)
    coarse, fine = (
        dgpde.NeuralSoil(prior(), net, route="baked", n_knots=knots).table_error() for knots in (192, 384)
    )
    assert fine.theta < 1e-5 and fine.ln_kr < 1e-3
    assert coarse.theta / fine.theta > 10.0
    soil = dgpde.NeuralSoil(prior(), net, route="baked")
    exact = dgpde.NeuralSoil(prior(), net, route="torch")
    with torch.no_grad():
        psi = HEADS[HEADS > -1e6]
        assert float((soil.theta(psi) - exact.theta(psi)).abs().max()) < 1.5 * fine.theta
    with pytest.raises(ValueError, match=r"^route: .* no table"):
        exact.table_error()


def test_one_table_for_each_distinct_soil() -> None:
    net = network(4, 1)
    texture = torch.tensor([[0.1], [0.1], [0.9], [0.1]], dtype=torch.float64)
    soil = dgpde.NeuralSoil(prior(), net, [texture], route="baked")
    assert soil.parameters_on((4, 3))["table"].shape == (2, 384, 4)
    assert soil.classes_on((4, 3))[:, 2].tolist() == [0, 0, 1, 0]
    # what is learned is a number of its own in each cell, also where two happen to be equal
    learned = dgpde.NeuralSoil(prior(), net, [texture.clone().requires_grad_()], route="baked")
    assert learned.parameters_on((4, 3))["table"].shape == (4, 384, 4)
    psi = -torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = dgpde.NeuralSoil(prior(), net, [texture], route="torch")
    for found in (soil, learned):
        torch.testing.assert_close(found.theta(psi), exact.theta(psi), rtol=0.0, atol=1e-6)


def _by(route: str, engine: str, leaves: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    net = network(4, 1)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in leaves.items()}
    soil = dgpde.NeuralSoil(
        prior(leaves["theta_s"], leaves["k_sat"]), put(net, leaves), [leaves["x"]], route=route
    )
    loss = loss_of(columns(soil, engine))
    return loss.detach(), torch.autograd.grad(loss, list(leaves.values()))


def _leaves() -> dict[str, Tensor]:
    return {
        "theta_s": torch.tensor(0.41, dtype=torch.float64),
        "k_sat": 5e-6 * torch.exp(0.3 * random(1, 3, seed=4)),
        "x": torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)[:, None],
    } | weights_of(network(4, 1))


def test_all_ways_agree_in_loss_and_gradient() -> None:
    leaves = _leaves()
    truth, gradients = _by("torch", "field", leaves)
    for route, engine in WAYS[1:]:
        loss, found = _by(route, engine, leaves)
        # the fused network is the same function, computed to round-off; a table has an error of some 1e-7
        limit = 1e-6 if route == "baked" else 1e-9
        assert float((loss - truth).abs()) <= limit * float(truth.abs()), (route, engine)
        for name, got, want in zip(leaves, found, gradients, strict=True):
            assert float((got - want).norm()) <= 10.0 * limit * float(want.norm()), (route, engine, name)


@pytest.mark.parametrize(("route", "engine"), WAYS)
def test_taylor_remainder_of_the_weights(route: str, engine: str) -> None:
    leaves = _leaves()
    loss, gradients = _by(route, engine, leaves)
    directions = {
        name: random(*value.shape, seed=k) * value.abs().mean()
        for k, (name, value) in enumerate(leaves.items())
    }
    slope = sum(float((g * directions[k]).sum()) for k, g in zip(leaves, gradients, strict=True))
    rest = []
    for size in (2e-3, 1e-3):
        moved = {name: value + size * directions[name] for name, value in leaves.items()}
        rest.append(abs(float(_by(route, engine, moved)[0] - loss) - size * slope))
    assert 1.8 < torch.tensor(rest[0] / rest[1]).log2().item() < 2.2, rest


@pytest.mark.parametrize(("route", "engine"), WAYS)
def test_dot_product_of_the_weights(route: str, engine: str) -> None:
    leaves = _leaves()
    directions = {
        name: random(*value.shape, seed=k) * value.abs().mean()
        for k, (name, value) in enumerate(leaves.items())
    }
    _, gradients = _by(route, engine, leaves)
    backward = sum(float((g * directions[k]).sum()) for k, g in zip(leaves, gradients, strict=True))
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, directions[name]) for name, value in leaves.items()}
        soil = dgpde.NeuralSoil(
            prior(duals["theta_s"], duals["k_sat"]), put(network(4, 1), duals), [duals["x"]], route=route
        )
        forward = forward_ad.unpack_dual(loss_of(columns(soil, engine))).tangent
    assert float(forward) == pytest.approx(backward, rel=1e-9)  # both sweeps solve to 1e-12


def test_equal_values_that_move_apart_have_tables_of_their_own() -> None:
    with forward_ad.dual_level():
        x = forward_ad.make_dual(
            torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
        )
        soil = dgpde.NeuralSoil(prior(), network(4, 1), [x], route="baked")
        moved = forward_ad.unpack_dual(soil.theta(torch.full((2,), -0.5, dtype=torch.float64))).tangent
    assert float(moved[0]) == pytest.approx(-float(moved[1])) and float(moved[0]) != 0.0


@pytest.mark.parametrize(("route", "engine"), WAYS)
def test_checkpoints_give_the_same_bits(route: str, engine: str) -> None:
    found = []
    for checkpoint in (None, dgpde.Checkpoint("every", every=1)):
        net = network(4, 0)
        soil = dgpde.NeuralSoil(prior(), net, route=route)
        loss_of(columns(soil, engine, checkpoint=checkpoint)).backward()
        found.append([weight.grad.clone() for weight in net.parameters() if weight.grad is not None])
    assert len(found[0]) == 6 and all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_mini_batches_of_columns_train_one_network() -> None:
    """Adam on batches of columns whose texture differs finds curves that the prior has not."""
    truth, net = network(4, 1, 0.4, 9), dgpde.SoilNetwork(4, 1)
    texture = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)

    def run(weights: dgpde.SoilNetwork, batch: Tensor) -> Tensor:
        soil = dgpde.NeuralSoil(prior(), weights, [texture[batch]], route="baked")
        return columns(soil, "column", n=batch.numel(), tolerance=1e-8, linear_tolerance=1e-10).theta

    with torch.no_grad():
        observed = run(truth, torch.arange(6))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        for batch in torch.randperm(6, generator=generator).split(3):
            optimiser.zero_grad()
            loss = (run(net, batch) - observed[:, :, batch]).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-2:]) < 0.05 * sum(losses[:2]), losses


@pytest.mark.parametrize("route", [route for route, engine in WAYS if engine == "column"])
def test_float32(route: str) -> None:
    net = network(4, 1).float()
    soil32 = dgpde.NeuralSoil(
        dgpde.VanGenuchten(*(torch.tensor(v) for v in (0.05, 0.41, 3.5, 1.6, 5e-6))),
        net,
        [torch.tensor(0.3)],
        route=route,
    )
    soil64 = dgpde.NeuralSoil(prior(), network(4, 1), [0.3], route=route)
    grid = dgpde.Grid.columns(n=5, dz=[0.1] * 8)
    found = []
    for soil, start in ((soil32, torch.tensor(-1.0)), (soil64, -1.0)):
        model = dgpde.Richards(grid, soil, {"bottom": dgpde.FreeDrainage()})
        run = model.solve(start, [0.0, 4e4], dgpde.SolveOptions(tolerance=1e-5, time_error=1e-3))
        run.theta.sum().backward()
        found.append((run.theta.detach().double(), soil.network.slope.grad.double()))
    assert run.psi.dtype == torch.float64 and soil32.network.slope.dtype == torch.float32
    torch.testing.assert_close(
        found[0][0], found[1][0], rtol=0.0, atol=1e-3
    )  # of the steps chosen, not of round-off
    assert float((found[0][1] - found[1][1]).norm()) < 0.02 * float(found[1][1].norm())


def test_the_column_engine_refuses_what_pytorch_evaluates() -> None:
    soil = dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(), route="torch")
    with pytest.raises(
        ValueError, match=r"^soil: NeuralSoil is evaluated by PyTorch.*engine='field'.*baked.*fused"
    ):
        dgpde.Richards(dgpde.Grid.columns(n=2, dz=[0.1] * 3), soil)


class Gardner(torch.nn.Module):
    """kr = Se = exp(alpha psi), by PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.log_alpha = torch.nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, psi: Tensor, theta_s: Tensor) -> tuple[Tensor, Tensor]:
        kr = torch.exp(torch.exp(self.log_alpha) * psi.clamp(max=0.0))
        return 0.05 + (theta_s - 0.05) * kr, kr


def test_a_module_is_the_relation_that_it_computes() -> None:
    theta_s = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    module = Gardner()
    alpha = torch.exp(module.log_alpha.detach()).requires_grad_()
    found = []
    for soil in (
        dgpde.ModuleSoil(module, 5e-6, {"theta_s": theta_s}),
        dgpde.Gardner(0.05, theta_s, alpha, 5e-6),
    ):
        loss = loss_of(columns(soil, "field"))
        learned = module.log_alpha if isinstance(soil, dgpde.ModuleSoil) else alpha
        found.append((loss.detach(), *torch.autograd.grad(loss, [theta_s, learned])))
    scaled = (found[1][0], found[1][1], found[1][2] * alpha.detach())
    for got, want in zip(found[0], scaled, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=0.0)
    assert [p.shape for p in dgpde.ModuleSoil(module, 5e-6, {"theta_s": 0.4}).parameters()] == [
        torch.Size([])
    ]


def test_a_module_in_a_section_with_a_head_boundary() -> None:
    grid = dgpde.Grid((4, 3), ([0.2] * 4, [0.5] * 3))
    found = []
    for soil in (
        dgpde.ModuleSoil(Gardner(), 5e-6, {"theta_s": torch.linspace(0.35, 0.45, 3, dtype=torch.float64)}),
        dgpde.Gardner(
            0.05,
            torch.linspace(0.35, 0.45, 3, dtype=torch.float64),
            float(torch.tensor(0.8, dtype=torch.float64).exp()),
            5e-6,
        ),
    ):
        model = dgpde.Richards(
            grid, soil, {"top": dgpde.Head(-0.1), "west": dgpde.SeepageFace()}, specific_storage=1e-4
        )
        run = model.solve(0.3 - grid.z, [0.0, 3600.0, 7200.0])
        found.append(run.theta)
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=0.0)


class Broken(torch.nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, psi: Tensor) -> object:
        theta, kr = 0.4 * torch.exp(psi.clamp(max=0.0)), torch.exp(psi.clamp(max=0.0))
        bad: dict[str, object] = {
            "one": theta,
            "shape": (theta.sum(), kr),
            "nan": (theta * torch.nan, kr),
            "falls": (0.5 - theta, kr),
            "kr": (theta, 0.5 * kr),
        }
        return bad[self.what]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("one", TypeError, r"^module: must return the two tensors"),
        ("shape", ValueError, r"^module: returns theta of shape \(\)"),
        ("nan", ValueError, r"^module: returns a theta that is not finite"),
        ("falls", ValueError, r"^module: theta must not fall"),
        ("kr", ValueError, r"^module: kr must be 1"),
    ],
)
def test_a_module_that_is_no_relation_is_refused(what: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dgpde.ModuleSoil(Broken(what), 1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dgpde.ModuleSoil(3, 1e-5), TypeError, r"^module: is a int"),  # type: ignore[arg-type]
        (lambda: dgpde.ModuleSoil(Gardner(), 0.0, {"theta_s": 0.4}), ValueError, r"^k_sat: "),
        (lambda: dgpde.ModuleSoil(Gardner(), 1e-5, [0.4]), TypeError, r"^fields: is a list"),  # type: ignore[arg-type]
        (lambda: dgpde.ModuleSoil(Gardner(), 1e-5, {"psi": 0.4}), ValueError, r"^fields: 'psi'"),
        (lambda: dgpde.SoilNetwork(units=0), ValueError, r"^units: is 0"),
        (lambda: dgpde.SoilNetwork(units=2.0), TypeError, r"^units: is a float"),  # type: ignore[arg-type]
        (lambda: dgpde.SoilNetwork(features=-1), ValueError, r"^features: is -1"),
        (lambda: dgpde.SoilNetwork(psi_range=(-1.0, -0.1)), ValueError, r"^psi_range: "),
        (lambda: dgpde.SoilNetwork(steepest=0.0), ValueError, r"^steepest: is 0.0"),
        (lambda: dgpde.SoilNetwork(seed="a"), TypeError, r"^seed: is a str"),  # type: ignore[arg-type]
        (lambda: dgpde.SoilNetwork(dtype=torch.int64), ValueError, r"^dtype: "),
        (
            lambda: dgpde.NeuralSoil(dgpde.Gardner(0.0, 0.4, 1.0, 1e-5), dgpde.SoilNetwork()),
            TypeError,
            r"^prior: is a Gardner",
        ),
        (
            lambda: dgpde.NeuralSoil(
                dgpde.VanGenuchten(0.0, 0.4, 1.0, 1.5, 1e-5, air_entry=0.1), dgpde.SoilNetwork()
            ),
            ValueError,
            r"^prior: has an air entry",
        ),
        (lambda: dgpde.NeuralSoil(prior(), torch.nn.Linear(1, 1)), TypeError, r"^network: is a Linear"),  # type: ignore[arg-type]
        (
            lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(), [0.1]),
            ValueError,
            r"^features: has 1 entries",
        ),
        (
            lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(features=1), torch.ones(1)),
            TypeError,
            r"^features: is a Tensor",
        ),
        (
            lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(features=1), [torch.nan]),
            ValueError,
            r"^x1: holds NaN",
        ),
        (
            lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(), route="fast"),
            ValueError,
            r"^route: is 'fast'",
        ),
        (lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(), n_knots=3), ValueError, r"^n_knots: is 3"),
        (
            lambda: dgpde.NeuralSoil(prior(), dgpde.SoilNetwork(), psi_range=(0.0, -1.0)),
            ValueError,
            r"^psi_range: ",
        ),
    ],
)
def test_wrong_arguments_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_a_feature_that_does_not_broadcast_is_named() -> None:
    soil = dgpde.NeuralSoil(prior(), network(2, 1), [torch.ones(5).double()])
    with pytest.raises(ValueError, match=r"^x1: has shape \(5,\)"):
        dgpde.Richards(dgpde.Grid.columns(n=2, dz=[0.1] * 3), soil)
