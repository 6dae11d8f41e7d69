"""The C++ soil relations against the PyTorch reference and its autograd, and the proofs of their gradients."""

from __future__ import annotations

import pytest
import torch
from soil_cases import CASES, random_heads, random_parameters
from torch import Tensor

import dgpde.kernels.soil_relation.function as function
from dgpde.kernels.column_flow.problem import SOIL_PARAMETERS
from dgpde.kernels.soil_relation import cpu, reference
from dgpde.soil import Tabulated, VanGenuchten

pytestmark = pytest.mark.skipif(bool(function._why_no_native()), reason=function._why_no_native())

F64, F32 = torch.float64, torch.float32

#: Relative and absolute tolerance on dimensionless numbers of order one: theta, kr, h d/dpsi, p d/dp. Both sides take
#: exp() of logarithms up to a few hundred, each with half a unit of round-off in the last place, and that round-off is
#: multiplied by the logarithm; derivatives in parameters near a singular limit (n to 1) lose another factor of 1000.
TOLERANCE = {F64: (2e-12, 5e-13), F32: (2e-3, 3e-4)}


def close(actual: Tensor, expected: Tensor, scale: Tensor, dtype: torch.dtype, what: str) -> None:
    relative, absolute = TOLERANCE[dtype]
    actual, expected = actual.double() * scale, expected.double() * scale
    assert torch.isfinite(actual).all(), f"{what}: not finite"
    excess = (actual - expected).abs() - relative * expected.abs() - absolute
    worst = int(excess.argmax())
    message = f"{what}: cell {worst}, {actual.flatten()[worst]:.15g} for {expected.flatten()[worst]:.15g}"
    assert excess.flatten()[worst] <= 0.0, message


def drawn(relation: str, n: int, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters and heads rounded to ``dtype``."""
    torch.manual_seed(7)
    parameters = {name: value.to(dtype) for name, value in random_parameters(relation, n).items()}
    heads = random_heads(n).to(dtype)
    if relation == "van_genuchten":  # the derivative in an air entry of 0 is refused by the soil classes
        parameters["air_entry"] = parameters["air_entry"].clamp(min=0.0)
    return parameters, heads


def reference_jacobian(
    relation: str, variant: int, parameters: dict[str, Tensor], psi: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """theta, kr and their derivatives in psi and in each parameter, in float64 by autograd."""
    leaves = [psi.double().requires_grad_()] + [
        value.double().requires_grad_() for value in parameters.values()
    ]
    values = dict(zip(parameters, leaves[1:], strict=True))
    theta, kr = reference.theta_kr(relation, variant, values, leaves[0])
    grads = []
    for curve in (theta, kr):
        if not curve.requires_grad:
            grads.append([torch.zeros_like(leaf) for leaf in leaves])
            continue
        found = torch.autograd.grad(curve.sum(), leaves, allow_unused=True, retain_graph=True)
        grads.append([torch.zeros_like(leaves[0]) if g is None else g for g in found])
    return theta.detach(), kr.detach(), grads[0], grads[1]


def test_parameter_order_is_the_same_everywhere() -> None:
    assert dict(reference.PARAMETERS) == dict(SOIL_PARAMETERS)


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_values_slopes_and_partials_agree_with_autograd(
    relation: str, variant: int, dtype: torch.dtype
) -> None:
    n = 4001
    parameters, psi = drawn(relation, n, dtype)
    theta, kr, dtheta, dkr = reference_jacobian(relation, variant, parameters, psi)
    what = cpu.Relation(relation, variant)
    heads, values = psi[None], list(parameters.values())
    one = torch.ones(n, dtype=F64)
    suction = (-psi.double()).clamp(min=0.0)

    actual_theta, actual_kr = cpu.forward(what, heads, values)
    close(actual_theta[0], theta, one, dtype, "theta")
    close(actual_kr[0], kr, one, dtype, "kr")
    capacity, slope = cpu.slopes(what, heads, values)
    close(capacity[0], dtheta[0], suction, dtype, "capacity")
    close(slope[0], dkr[0], suction, dtype, "dkr/dpsi")
    by_theta, by_kr = cpu.partials(what, heads, values)
    for i, (name, value) in enumerate(parameters.items()):
        scale = value.double().abs()
        close(by_theta[i, 0], dtheta[1 + i], scale, dtype, f"d theta/d {name}")
        close(by_kr[i, 0], dkr[1 + i], scale, dtype, f"d kr/d {name}")


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_wet_suction_agrees(relation: str, variant: int, dtype: torch.dtype) -> None:
    parameters, _ = drawn(relation, 129, dtype)
    expected = reference.wet_suction(relation, variant, {k: v.double() for k, v in parameters.items()})
    actual = cpu.wet_suction(cpu.Relation(relation, variant), list(parameters.values()), 129)
    # the exponent 1/n of a small number m: float32 loses two digits
    torch.testing.assert_close(actual.double(), expected, rtol=1e-12 if dtype == F64 else 1e-3, atol=1e-30)


@pytest.mark.parametrize(("relation", "variant"), CASES)
@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
def test_extremes_are_finite_and_nan_is_not_hidden(relation: str, variant: int, dtype: torch.dtype) -> None:
    parameters, _ = drawn(relation, 200, dtype)
    extremes = [1e8, 1.0, 0.0, -0.0, -5e-324, -1e-310, -1e-300, -1e-40, -1e-20, -1e5, -1e6, -1e8]
    psi = torch.tensor(extremes, dtype=dtype)[:, None].expand(len(extremes), 200).contiguous()
    what, values = cpu.Relation(relation, variant), list(parameters.values())
    results = [*cpu.forward(what, psi, values), *cpu.partials(what, psi, values)]
    if dtype == F64:  # at 1e-40 m the slopes of kr pass the largest float32
        results += cpu.slopes(what, psi, values)
    assert all(torch.isfinite(result).all() for result in results)
    theta, kr = results[:2]
    assert (kr[:4] == 1.0).all()
    # theta_r + (theta_s - theta_r): one rounding away from theta_s
    saturation = parameters["theta_s"].expand(4, 200)
    torch.testing.assert_close(theta[:4], saturation, rtol=4 * torch.finfo(dtype).eps, atol=0.0)
    if relation != "saturated":
        broken = torch.full((1, 200), float("nan"), dtype=dtype)
        assert all(torch.isnan(result).all() for result in cpu.forward(what, broken, values))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 63, 129])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_lane_and_the_tail(n: int, batch: int) -> None:
    """Sizes that fill packs partly; the same cell gives the same bits wherever it stands."""
    parameters, _ = drawn("van_genuchten", n, F64)
    torch.manual_seed(1)
    psi = -torch.rand(batch, n, dtype=F64)
    what, values = cpu.Relation("van_genuchten"), list(parameters.values())
    theta, kr = cpu.forward(what, psi, values)
    for i in range(n):
        one = cpu.forward(what, psi[:, i : i + 1].contiguous(), [value[i : i + 1] for value in values])
        assert torch.equal(theta[:, i], one[0][:, 0])
        assert torch.equal(kr[:, i], one[1][:, 0])


def test_instruction_sets_agree() -> None:
    from dgpde._native import native_module

    module = native_module()
    if not hasattr(module, "set_instruction_set"):
        pytest.skip("this build has one instruction set")
    for relation, variant in CASES:
        parameters, psi = drawn(relation, 301, F64)
        what, values = cpu.Relation(relation, variant), list(parameters.values())
        results = {}
        for name in ("generic", "avx2", "avx512"):
            try:
                module.set_instruction_set(name)
            except ValueError:
                continue
            results[name] = torch.stack(cpu.forward(what, psi[None], values))
        module.set_instruction_set("auto")
        first = next(iter(results.values()))
        for name, result in results.items():
            # fused multiply-adds round differently
            torch.testing.assert_close(result, first, rtol=1e-12, atol=1e-14, msg=f"{relation} {name}")


# ---- the differentiable operation ----------------------------------------------------------------------------


def operation(relation: str, variant: int, names: list[str], backend: str | None):
    def curves(psi: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return torch.stack(function.soil_relation(relation, variant, parameters, psi, backend=backend))

    return curves


def tame(relation: str, n: int) -> tuple[dict[str, Tensor], Tensor]:
    """Soils and heads at which finite differences mean something."""
    parameters, _ = drawn(relation, n, F64)
    for name in ("n", "n1", "n2"):
        if name in parameters:
            parameters[name] = parameters[name].clamp(min=1.2)
    if "air_entry" in parameters:
        parameters["air_entry"] = torch.full((n,), 0.01, dtype=F64)
    torch.manual_seed(11)
    return parameters, -torch.exp(torch.empty(n, dtype=F64).uniform_(0.5, 3.0))


@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_reverse_and_forward_mode_agree_with_the_reference(relation: str, variant: int) -> None:
    """Agreement with autograd, and <Jv, w> = <v, J'w> to round-off; heads saturated and unsaturated, one batch axis."""
    parameters, _ = drawn(relation, 63, F64)
    if "air_entry" in parameters:
        parameters["air_entry"] = parameters["air_entry"].clamp(min=0.001)
    psi = random_heads(5 * 63).reshape(5, 63)
    psi = torch.where(psi.abs() < 1e-6, -1e-6, psi)  # products of 1/h and random numbers would leave float64
    leaves = [psi.requires_grad_()] + [value.requires_grad_() for value in parameters.values()]
    names = list(parameters)
    torch.manual_seed(3)
    w = torch.rand(2, 5, 63, dtype=F64)
    v = [torch.rand_like(leaf) for leaf in leaves]
    found = {}
    for backend in ("cpu", "reference"):
        curves = operation(relation, variant, names, backend)
        value = curves(*leaves)
        grads = torch.autograd.grad((value * w).sum(), leaves, allow_unused=True)
        grads = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True)]
        with torch.autograd.forward_ad.dual_level():
            duals = [
                torch.autograd.forward_ad.make_dual(x.detach(), t) for x, t in zip(leaves, v, strict=True)
            ]
            tangent = torch.autograd.forward_ad.unpack_dual(curves(*duals)).tangent
        found[backend] = (
            value.detach(),
            grads,
            torch.zeros_like(value) if tangent is None else tangent.detach(),
        )
        forward, backward = (
            (found[backend][2] * w).sum(),
            sum((g * t).sum() for g, t in zip(grads, v, strict=True)),
        )
        size = sum((g * t).abs().sum() for g, t in zip(grads, v, strict=True))
        assert abs(float((forward - backward).detach())) <= 1e-12 * float(size.detach()) + 1e-300
    torch.testing.assert_close(found["cpu"][0], found["reference"][0], rtol=1e-11, atol=1e-14)
    for name, a, b in zip(["psi", *names], found["cpu"][1], found["reference"][1], strict=True):
        assert float((a - b).norm()) <= 1e-10 * float(b.norm()), name
    assert float((found["cpu"][2] - found["reference"][2]).norm()) <= 1e-10 * float(
        found["reference"][2].norm()
    )


@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_taylor_remainder_is_of_second_order(relation: str, variant: int) -> None:
    parameters, psi = tame(relation, 12)
    leaves = [psi] + list(parameters.values())
    names = list(parameters)
    torch.manual_seed(5)
    # relative perturbations keep every parameter inside its range
    direction = [leaf * (torch.rand_like(leaf) - 0.5) for leaf in leaves]
    w = torch.rand(2, 12, dtype=F64)

    def at(step: float) -> Tensor:
        moved = [leaf + step * d for leaf, d in zip(leaves, direction, strict=True)]
        return (operation(relation, variant, names, "cpu")(*moved) * w).sum()

    tracked = [leaf.clone().requires_grad_() for leaf in leaves]
    value = (operation(relation, variant, names, "cpu")(*tracked) * w).sum()
    grads = torch.autograd.grad(value, tracked)
    slope = float(sum((g * d).sum() for g, d in zip(grads, direction, strict=True)))
    value = value.detach()
    steps = [2.0**-k for k in range(5, 9)]
    first = [abs(float(at(s) - value)) for s in steps]
    second = [abs(float(at(s) - value) - s * slope) for s in steps]
    if max(second) < 1e-13:
        return  # linear in its parameters: saturated
    order = [torch.log2(torch.tensor(a / b)).item() for a, b in zip(second, second[1:], strict=False)]
    assert 1.9 <= order[-1] <= 2.1, (order, first)


@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_gradcheck(relation: str, variant: int) -> None:
    parameters, psi = tame(relation, 3)
    leaves = [psi.requires_grad_()] + [value.requires_grad_() for value in parameters.values()]
    curves = operation(relation, variant, list(parameters), "cpu")
    # log-scaled inputs: h_0 and the coefficients of Haverkamp are too large for absolute differences
    logs = [leaf.detach().abs().log().requires_grad_() for leaf in leaves]
    signs = [leaf.detach().sign() for leaf in leaves]

    def of_logs(*x: Tensor) -> Tensor:
        return curves(*[s * torch.exp(y) for s, y in zip(signs, x, strict=True)])

    assert torch.autograd.gradcheck(of_logs, logs, check_forward_ad=True)
    if relation == "durner":  # one relation with every kind of term; the mechanism is shared
        assert torch.autograd.gradgradcheck(of_logs, logs)


def test_second_derivatives_are_those_of_the_reference() -> None:
    parameters, psi = tame("kosugi", 9)
    names = list(parameters)
    found = []
    for backend in ("cpu", "reference"):
        leaves = [psi.clone().requires_grad_()] + [v.clone().requires_grad_() for v in parameters.values()]
        value = operation("kosugi", 0, names, backend)(*leaves).square().sum()
        first = torch.autograd.grad(value, leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(g.sum() for g in first), leaves))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_shapes_broadcast_like_the_reference() -> None:
    """Scalars, fields, layers and extra leading dimensions, and a psi that is itself broadcast and not contiguous."""
    for alpha_shape, n_shape, psi_shape in [
        ((), (), (5,)),
        ((), (4, 3), (4, 3)),
        ((4, 1), (), (2, 4, 3)),
        ((1, 3), (4, 1), (7, 2, 4, 3)),
        ((4, 3), (), (4, 1)),
        ((1, 1), (), (4, 3)),
        ((4, 3), (), ()),
        ((3,), (), (0, 3)),
    ]:
        torch.manual_seed(2)
        alpha = (1.0 + torch.rand(alpha_shape, dtype=F64)).requires_grad_()
        n = (1.5 + torch.rand(n_shape, dtype=F64)).requires_grad_()
        psi = (-torch.rand(psi_shape, dtype=F64)).requires_grad_()
        soil = VanGenuchten(0.05, 0.4, alpha, n, 1e-5)
        stretched = psi.mT.contiguous().mT if psi.dim() > 1 else psi
        results = []
        for backend in ("cpu", "reference"):
            pair = function.soil_relation("van_genuchten", 0, soil._prepared(psi), stretched, backend=backend)
            loss = torch.stack(pair).square().sum()
            results.append((*pair, *torch.autograd.grad(loss, (alpha, n, psi))))
        for a, b in zip(*results, strict=True):
            assert a.shape == b.shape, (alpha_shape, n_shape, psi_shape)
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_two_runs_give_the_same_bits_and_do_not_read_old_buffers() -> None:
    parameters, psi = drawn("durner", 129, F64)
    what, values = cpu.Relation("durner"), list(parameters.values())
    first = cpu.backward(what, psi[None], values, torch.ones(1, 129, dtype=F64), None)
    trash = [torch.full((129,), float("nan"), dtype=F64) for _ in range(50)]
    del trash
    second = cpu.backward(what, psi[None], values, torch.ones(1, 129, dtype=F64), None)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    assert torch.isfinite(torch.stack(first[1])).all()


# ---- tables --------------------------------------------------------------------------------------------------


def table_of_three(n_knots: int = 40) -> Tabulated:
    soil = VanGenuchten(
        theta_r=torch.tensor([0.05, 0.08, 0.1], dtype=F64),
        theta_s=torch.tensor([0.4, 0.45, 0.5], dtype=F64),
        alpha=torch.tensor([10.0, 3.0, 0.5], dtype=F64),
        n=torch.tensor([2.5, 1.6, 1.2], dtype=F64),
        k_sat=1e-5,
    )
    torch.manual_seed(4)
    return Tabulated.from_soil(soil, torch.randint(0, 3, (6, 17)), psi_range=(-1e-3, -1e4), n_knots=n_knots)


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
def test_table_agrees_with_the_reference(dtype: torch.dtype) -> None:
    soil = table_of_three()
    torch.manual_seed(6)
    psi = random_heads(4 * 6 * 17).reshape(4, 6, 17).to(dtype)
    psi[0, 0, :3] = torch.tensor([-1e-3, -1e4, -1.0], dtype=dtype)  # the ends
    psi.requires_grad_()
    w = torch.rand(2, 4, 6, 17, dtype=dtype)
    results = []
    for backend in ("cpu", "reference"):
        table = soil.table().detach().to(dtype).requires_grad_()
        params = {"table": table, "classes": soil.classes}
        value = torch.stack(function.soil_relation("tabulated", 0, params, psi, soil.knots, backend))
        grads = torch.autograd.grad((value * w).sum(), (psi, table))
        v = [psi.detach() * 0.3, torch.rand_like(table)]
        with torch.autograd.forward_ad.dual_level():
            duals = [
                torch.autograd.forward_ad.make_dual(x.detach(), t)
                for x, t in zip((psi, table), v, strict=True)
            ]
            params = {"table": duals[1], "classes": soil.classes}
            dual = torch.stack(function.soil_relation("tabulated", 0, params, duals[0], soil.knots, backend))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
            torch.manual_seed(6)
        results.append((value.detach(), *grads, tangent))
        transposed = sum((g * t).double().sum() for g, t in zip(grads, v, strict=True))
        size = sum((g * t).double().abs().sum() for g, t in zip(grads, v, strict=True))
        gap = abs(float((tangent * w).double().sum() - transposed))
        assert gap <= (1e-12 if dtype == F64 else 1e-4) * float(size)
    tolerance = 1e-10 if dtype == F64 else 2e-4
    for what, a, b in zip(("value", "grad psi", "grad table"), results[0][:3], results[1][:3], strict=True):
        # psi where h d/dpsi matters; 1/h itself spans twenty decades
        if what == "grad psi":
            a, b = a * psi.detach(), b * psi.detach()
        assert float((a - b).abs().max()) <= tolerance * float(b.abs().max()), what


def test_table_slopes_suction_and_extremes() -> None:
    soil = table_of_three()
    classes = soil.classes.reshape(-1)
    what = cpu.Relation("tabulated", 0, classes, soil.knots)
    table = soil.table()
    torch.manual_seed(8)
    psi = random_heads(classes.numel())
    params = {"table": table, "classes": classes}
    capacity, _ = cpu.slopes(what, psi[None], [table])
    expected = reference.capacity("tabulated", 0, params, psi, soil.knots)
    torch.testing.assert_close(capacity[0] * psi, expected * psi, rtol=1e-10, atol=1e-13)
    suction = cpu.wet_suction(what, [table], classes.numel())
    torch.testing.assert_close(suction, reference.wet_suction("tabulated", 0, params, soil.knots))
    for value in (1e8, 0.0, -0.0, -5e-324, -1e-300, -1e-3, -1e4, -1e8):
        heads = torch.full((1, classes.numel()), value, dtype=F64)
        results = [*cpu.forward(what, heads, [table]), *cpu.slopes(what, heads, [table])]
        assert all(torch.isfinite(result).all() for result in results)
    broken = torch.full((1, classes.numel()), float("nan"), dtype=F64)
    assert all(torch.isnan(result).all() for result in cpu.forward(what, broken, [table]))


def test_backend_is_refused_with_a_reason() -> None:
    psi = torch.zeros(3, dtype=F64)
    params = VanGenuchten(0.05, 0.4, 2.0, 1.5, 1e-5)._prepared(psi)
    with pytest.raises(ValueError, match="^backend: is 'cuda'; choose None or one of cpu, reference"):
        function.soil_relation("van_genuchten", 0, params, psi, backend="cuda")
    with pytest.raises(ValueError, match="^backend: 'cpu' cannot be used here: psi is on meta"):
        function.soil_relation("van_genuchten", 0, params, psi.to("meta"), backend="cpu")
