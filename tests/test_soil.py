"""The soil classes: their formulas, limits, monotonicity, gradients, tables and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import torch
from soil_cases import CASES, random_heads, random_parameters
from torch import Tensor

from dgpde.kernels.soil_relation import reference
from dgpde.soil import (
    BrooksCorey,
    Durner,
    FredlundXing,
    Gardner,
    Haverkamp,
    Kosugi,
    PetersDurnerIden,
    Saturated,
    Soil,
    Tabulated,
    VanGenuchten,
)
from dgpde.soil.tabulated import monotone_slopes

F64 = torch.float64
HEADS = -torch.logspace(-2, 4, 61, dtype=F64)

# ---- the formulas, written a second time as they stand in the papers --------------------------------------------


def van_genuchten(h, theta_r, theta_s, alpha, n, l, air_entry):  # noqa: E741
    m = 1 - 1 / n
    se = (1 + (alpha * h) ** n) ** -m
    sc = (1 + (alpha * air_entry) ** n) ** -m
    s = np.where(h > air_entry, se / sc, 1.0)
    top, bottom = 1 - (1 - (s * sc) ** (1 / m)) ** m, 1 - (1 - sc ** (1 / m)) ** m
    return theta_r + (theta_s - theta_r) * s, np.where(h > air_entry, s**l * (top / bottom) ** 2, 1.0)


def brooks_corey(h, theta_r, theta_s, psi_e, lam, l, burdine=False):  # noqa: E741
    se = np.where(h > psi_e, (psi_e / h) ** lam, 1.0)
    return theta_r + (theta_s - theta_r) * se, se ** (3 + 2 / lam if burdine else l + 2 + 2 / lam)


def haverkamp(h, theta_r, theta_s, alpha, beta, a, gamma, logarithm=False):
    base = np.where(h > 0.01, np.log(np.maximum(h / 0.01, 1.0)), 0.0) if logarithm else h
    return theta_r + (theta_s - theta_r) * alpha / (alpha + base**beta), a / (a + h**gamma)


def kosugi(h, theta_r, theta_s, s_m, sigma, l):  # noqa: E741
    x = np.log(h / s_m) / (math.sqrt(2) * sigma)
    se = 0.5 * scipy.special.erfc(x)
    kr = se**l * (0.5 * scipy.special.erfc(x + sigma / math.sqrt(2))) ** 2
    return theta_r + (theta_s - theta_r) * se, kr


def fredlund_xing(h, theta_s, a, n, m, p, s_r):
    gamma = 1 / np.log(math.e + (h / a) ** n) ** m
    return (1 - np.log(1 + h / s_r) / np.log(1 + 1e5 / s_r)) * theta_s * gamma, gamma**p


def durner(h, theta_r, theta_s, alpha1, n1, alpha2, n2, w2, l):  # noqa: E741
    se, top, bottom = 0.0, 0.0, 0.0
    for w, alpha, n in ((1 - w2, alpha1, n1), (w2, alpha2, n2)):
        m = 1 - 1 / n
        s = (1 + (alpha * h) ** n) ** -m
        se = se + w * s
        top = top + w * alpha * (1 - (1 - s ** (1 / m)) ** m)
        bottom = bottom + w * alpha
    return theta_r + (theta_s - theta_r) * se, se**l * (top / bottom) ** 2


def peters_durner_iden(h, theta_r, theta_s, alpha, n, omega, l, h_0, a):  # noqa: E741
    m = 1 - 1 / n
    gamma, gamma_0 = (1 + (alpha * h) ** n) ** -m, (1 + (alpha * h_0) ** n) ** -m
    s_cap = (gamma - gamma_0) / (1 - gamma_0)
    x, x_a, x_0 = np.log10(h), np.log10(1 / alpha), np.log10(h_0)
    b = 0.1 + 0.2 / n**2 * (1 - math.exp(-((theta_r / (theta_s - theta_r)) ** 2)))
    s_nc = 1 + (x - x_a + b * np.log(1 + np.exp((x_a - x) / b))) / (x_a - x_0)
    k_cap = s_cap**l * (1 - ((1 - gamma ** (1 / m)) / (1 - gamma_0 ** (1 / m))) ** m) ** 2
    k_nc = (h_0 * alpha) ** (a * (1 - s_nc))
    return (theta_s - theta_r) * s_cap + theta_r * s_nc, (1 - omega) * k_cap + omega * k_nc


FORMULAS: dict[str, tuple[Soil, Callable[..., tuple[np.ndarray, np.ndarray]], tuple[float, ...]]] = {
    "van_genuchten": (
        VanGenuchten(0.065, 0.41, 7.5, 1.89, 2e-5),
        van_genuchten,
        (0.065, 0.41, 7.5, 1.89, 0.5, 0.0),
    ),
    "air_entry": (
        VanGenuchten(0.065, 0.41, 2.5, 1.3, 2e-5, l=-0.4, air_entry=0.02),
        van_genuchten,
        (0.065, 0.41, 2.5, 1.3, -0.4, 0.02),
    ),
    "mualem": (BrooksCorey(0.02, 0.4, 0.1, 0.7, 2e-5, l=0.3), brooks_corey, (0.02, 0.4, 0.1, 0.7, 0.3)),
    "burdine": (
        BrooksCorey(0.02, 0.4, 0.1, 0.7, 2e-5, "burdine"),
        brooks_corey,
        (0.02, 0.4, 0.1, 0.7, 0.0, True),
    ),
    "gardner": (
        Gardner(0.02, 0.4, 2.0, 2e-5),
        lambda h, tr, ts, a: (tr + (ts - tr) * np.exp(-a * h), np.exp(-a * h)),
        (0.02, 0.4, 2.0),
    ),
    "haverkamp": (
        Haverkamp(0.075, 0.287, 0.02, 3.96, 4e-4, 4.74, 2e-5),
        haverkamp,
        (0.075, 0.287, 0.02, 3.96, 4e-4, 4.74),
    ),
    "haverkamp_clay": (
        Haverkamp(0.124, 0.495, 739.0, 4.0, 124.6 / 100**1.77, 1.77, 2e-5, "logarithm"),
        haverkamp,
        (0.124, 0.495, 739.0, 4.0, 124.6 / 100**1.77, 1.77, True),
    ),
    "kosugi": (Kosugi(0.05, 0.45, 0.8, 1.3, 2e-5, l=0.2), kosugi, (0.05, 0.45, 0.8, 1.3, 0.2)),
    "fredlund_xing": (
        FredlundXing(0.45, 1.5, 1.8, 1.1, 3.2, 2e-5, 150.0),
        fredlund_xing,
        (0.45, 1.5, 1.8, 1.1, 3.2, 150.0),
    ),
    "durner": (
        Durner(0.02, 0.5, 12.0, 2.2, 0.4, 1.4, 0.45, 2e-5, l=0.1),
        durner,
        (0.02, 0.5, 12.0, 2.2, 0.4, 1.4, 0.45, 0.1),
    ),
    "peters_durner_iden": (
        PetersDurnerIden(0.1, 0.45, 2.0, 1.7, 1e-3, 2e-5, l=0.3, h_0=6e4, a=-1.4),
        peters_durner_iden,
        (0.1, 0.45, 2.0, 1.7, 1e-3, 0.3, 6e4, -1.4),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_curves_are_the_published_formulas(name: str) -> None:
    soil, formula, values = FORMULAS[name]
    theta, kr = formula(-HEADS.numpy(), *values)
    np.testing.assert_allclose(soil.theta(HEADS).numpy(), theta, rtol=1e-11)
    # 1 - (1 - Se^(1/m))^m as the papers write it loses digits as fast as kr falls
    np.testing.assert_allclose(soil.conductivity(HEADS).numpy(), 2e-5 * kr, rtol=1e-9, atol=1e-17)


@pytest.mark.parametrize("name", FORMULAS)
def test_capacity_is_the_slope_of_theta(name: str) -> None:
    soil = FORMULAS[name][0]
    psi = HEADS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(soil.theta(psi).sum(), psi)
    torch.testing.assert_close(soil.capacity(HEADS), slope, rtol=1e-10, atol=1e-18)
    assert torch.autograd.gradcheck(soil.capacity, HEADS[11:41:5].clone().requires_grad_(), atol=1e-6)


@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_curves_fall_with_suction_between_their_limits(relation: str, variant: int) -> None:
    torch.manual_seed(0)
    parameters = {name: value[:, None] for name, value in random_parameters(relation, 200).items()}
    if "l" in parameters:
        parameters["l"] = parameters["l"].clamp(min=0.0)
    psi = torch.cat([torch.tensor([1.0, 0.0], dtype=F64), -torch.logspace(-8, 8, 400, dtype=F64)]).expand(
        200, -1
    )
    theta, kr = reference.theta_kr(relation, variant, parameters, psi)
    # equal neighbours may differ by a rounding of the largest value
    assert (theta.diff(dim=1) <= 1e-15).all()
    assert (kr.diff(dim=1) <= 1e-15).all()
    assert (theta <= parameters["theta_s"] + 1e-15).all()
    assert (theta >= parameters.get("theta_r", torch.zeros(1).double()) - 1e-15).all() or relation in (
        "peters_durner_iden",
        "fredlund_xing",  # these dry out completely
    )
    assert (theta >= -1e-7).all()
    assert (theta[:, :2] == parameters["theta_s"]).all() or relation == "gardner"
    assert (kr[:, :2] == 1.0).all()
    assert (reference.capacity(relation, variant, parameters, psi) >= 0.0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_reference_is_safe_at_the_extremes(relation: str, variant: int, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    n = 300
    parameters = {k: v.to(dtype).requires_grad_() for k, v in random_parameters(relation, n).items()}
    extremes = [1e8, 1.0, 0.0, -0.0, -5e-324, -1e-310, -1e-20, -1e-3, -1.0, -6e4, -1e5, -2e5, -1e8]
    psi = torch.tensor(extremes, dtype=dtype)[:, None].repeat(1, n).requires_grad_()
    results = [
        *reference.theta_kr(relation, variant, parameters, psi),
        reference.capacity(relation, variant, parameters, psi),
    ]
    for result in results:
        assert result.dtype == dtype
        assert torch.isfinite(result).all()
        if result.requires_grad:
            leaves = [psi, *parameters.values()]
            for grad in torch.autograd.grad(result.sum(), leaves, allow_unused=True, retain_graph=True):
                assert grad is None or torch.isfinite(grad).all()
    broken = torch.full((n,), float("nan"), dtype=dtype)
    assert all(
        torch.isnan(curve).all() for curve in reference.theta_kr(relation, variant, parameters, broken)
    )


def test_n_close_to_one() -> None:
    soil = VanGenuchten(0.05, 0.4, 2.0, torch.tensor(1.001, dtype=F64, requires_grad=True), 1e-5)
    psi = random_heads(100).requires_grad_()
    value = soil.theta(psi).sum() + soil.conductivity(psi).sum() * 1e5
    grads = torch.autograd.grad(value, (psi, soil.n))
    assert torch.isfinite(value)
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_air_entry_of_zero_is_the_plain_relation_and_its_limit() -> None:
    plain = VanGenuchten(0.05, 0.4, 2.0, 2.5, 1e-5)
    tiny = VanGenuchten(0.05, 0.4, 2.0, 2.5, 1e-5, air_entry=1e-12)
    torch.testing.assert_close(plain.theta(HEADS), tiny.theta(HEADS), rtol=1e-14, atol=0.0)
    torch.testing.assert_close(plain.conductivity(HEADS), tiny.conductivity(HEADS), rtol=1e-12, atol=0.0)
    soil = VanGenuchten(0.05, 0.4, 2.0, 1.2, 1e-5, air_entry=0.05)
    around = torch.tensor([-0.05, -0.05 * (1 + 1e-12), 0.0], dtype=F64)
    torch.testing.assert_close(soil.theta(around), torch.full((3,), 0.4, dtype=F64), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        soil.conductivity(around), torch.full((3,), 1e-5, dtype=F64), rtol=1e-9, atol=0.0
    )


# ---- parameters ------------------------------------------------------------------------------------------------


def test_parameters_may_be_numbers_fields_and_modules() -> None:
    alpha = torch.nn.Parameter(torch.tensor(2.0, dtype=F64))
    raw = torch.zeros(4, 3, dtype=F64, requires_grad=True)
    n = 1.0 + torch.nn.functional.softplus(raw)  # a network's output
    k_sat = torch.full((4, 1), 1e-5, dtype=F64)
    soil = VanGenuchten(0.05, 0.4, alpha, n, k_sat)
    assert soil.alpha is alpha
    assert soil.n is n
    assert [name for name, _ in soil.named_parameters()] == ["alpha"]
    expanded = soil.parameters_on((4, 3))
    assert list(expanded) == ["theta_r", "theta_s", "alpha", "n", "l", "air_entry"]
    assert all(value.shape == (4, 3) for value in expanded.values())
    assert expanded["alpha"].stride() == (0, 0)
    assert soil.k_sat_on((4, 3)).shape == (4, 3)
    psi = -torch.rand(2, 4, 3, dtype=F64)
    (soil.conductivity(psi).sum() + soil.theta(psi).sum()).backward()
    assert alpha.grad is not None
    assert raw.grad is not None
    assert raw.grad.shape == (4, 3)
    assert "alpha=2" in repr(soil)
    assert "n=[4, 3]" in repr(soil)


def test_results_have_the_dtype_of_psi() -> None:
    for soil, _, _ in FORMULAS.values():
        psi = torch.tensor([-1.0, 0.5], dtype=torch.float32)
        for value in (soil.theta(psi), soil.conductivity(psi), soil.capacity(psi)):
            assert value.dtype == torch.float32


GOOD: dict[type[Soil], dict[str, float]] = {
    VanGenuchten: {"theta_r": 0.05, "theta_s": 0.4, "alpha": 2.0, "n": 1.5, "k_sat": 1e-5},
    BrooksCorey: {"theta_r": 0.05, "theta_s": 0.4, "psi_e": 0.1, "lam": 0.5, "k_sat": 1e-5},
    Gardner: {"theta_r": 0.05, "theta_s": 0.4, "alpha": 2.0, "k_sat": 1e-5},
    Haverkamp: {
        "theta_r": 0.05,
        "theta_s": 0.4,
        "alpha": 2.0,
        "beta": 3.0,
        "a": 1.0,
        "gamma": 2.0,
        "k_sat": 1e-5,
    },
    Kosugi: {"theta_r": 0.05, "theta_s": 0.4, "s_m": 2.0, "sigma": 1.5, "k_sat": 1e-5},
    FredlundXing: {"theta_s": 0.4, "a": 2.0, "n": 1.5, "m": 1.0, "p": 3.0, "k_sat": 1e-5, "s_r": 100.0},
    Durner: {
        "theta_r": 0.05,
        "theta_s": 0.4,
        "alpha1": 9.0,
        "n1": 2.0,
        "alpha2": 0.5,
        "n2": 1.5,
        "w2": 0.4,
        "k_sat": 1e-5,
    },
    PetersDurnerIden: {"theta_r": 0.05, "theta_s": 0.4, "alpha": 2.0, "n": 1.5, "omega": 0.01, "k_sat": 1e-5},
    Saturated: {"k_sat": 1e-5},
}
BAD: list[tuple[type[Soil], str, float, str]] = [
    (VanGenuchten, "alpha", 0.0, "alpha: is 0; must be > 0 1/m"),
    (VanGenuchten, "n", 1.0, "n: is 1; must be > 1"),
    (VanGenuchten, "air_entry", -0.1, "air_entry: is -0.1; must be >= 0"),
    (BrooksCorey, "psi_e", -0.1, "psi_e: is -0.1; must be > 0 m: give the suction"),
    (BrooksCorey, "lam", 0.0, "lam: is 0; must be > 0"),
    (Gardner, "alpha", -1.0, "alpha: is -1; must be > 0"),
    (Haverkamp, "beta", 0.0, "beta: is 0; must be > 0"),
    (Haverkamp, "a", -1.0, "a: is -1; must be > 0"),
    (Haverkamp, "gamma", 0.0, "gamma: is 0"),
    (Kosugi, "s_m", -1.0, "s_m: is -1; must be > 0 m: it is a suction"),
    (Kosugi, "sigma", 0.0, "sigma: is 0; must be > 0"),
    (FredlundXing, "theta_s", 0.0, "theta_s: is 0; must be > 0"),
    (FredlundXing, "a", 0.0, "a: is 0"),
    (FredlundXing, "m", 0.0, "m: is 0"),
    (FredlundXing, "p", -1.0, "p: is -1"),
    (FredlundXing, "s_r", 0.0, "s_r: is 0"),
    (Durner, "n2", 0.9, "n2: is 0.9; must be > 1"),
    (Durner, "w2", 1.0, r"w2: is 1; must lie inside \(0, 1\); use VanGenuchten"),
    (PetersDurnerIden, "omega", 1.5, r"omega: is 1.5; must lie in \[0, 1\]"),
    (PetersDurnerIden, "a", 0.0, "a: is 0; must be < 0"),
    (PetersDurnerIden, "h_0", 0.4, "h_0: is 0.4; must be larger than 1/alpha"),
    (PetersDurnerIden, "l", -2.0, "l: is -2; must be > -2"),
    (Saturated, "theta_s", 1.5, r"theta_s: is 1.5; must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("kind", "name", "value", "message"), BAD)
def test_wrong_values_are_refused_by_name(kind: type[Soil], name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        kind(**{**GOOD[kind], name: value})
    field = torch.full((3,), GOOD[kind].get(name, {"a": -1.5, "h_0": 6e4}.get(name, 0.5)), dtype=F64)
    field[1] = value
    with pytest.raises(ValueError, match="^" + message):
        kind(**{**GOOD[kind], name: field})


@pytest.mark.parametrize("kind", GOOD)
def test_every_parameter_is_checked(kind: type[Soil]) -> None:
    kind(**GOOD[kind])
    for name, value in GOOD[kind].items():
        for broken in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"^{name}: holds NaN or infinite values"):
                kind(**{**GOOD[kind], name: broken})
        with pytest.raises(
            TypeError, match=f"^{name}: is a str; give a number, a torch tensor or an nn.Parameter"
        ):
            kind(**{**GOOD[kind], name: "loam"})
        with pytest.raises(TypeError, match=f"^{name}: has dtype torch.int64"):
            kind(**{**GOOD[kind], name: torch.tensor(1)})
        soil = kind(**{**GOOD[kind], name: torch.full((5,), value, dtype=F64)})
        expand = soil.k_sat_on if name == "k_sat" else soil.parameters_on
        with pytest.raises(ValueError, match=f"^{name}: has shape .* which does not broadcast to the grid's"):
            expand((4, 3))
    with pytest.raises(ValueError, match="^k_sat: is 0; must be > 0"):
        kind(**{**GOOD[kind], "k_sat": 0.0})
    if "theta_r" in GOOD[kind]:
        with pytest.raises(ValueError, match="^theta_r: is 0.4; must be smaller than theta_s everywhere"):
            kind(**{**GOOD[kind], "theta_r": 0.4})
        with pytest.raises(ValueError, match=r"^theta_r: is -0.1; must lie in \[0, 1\]"):
            kind(**{**GOOD[kind], "theta_r": -0.1})


def test_other_refusals() -> None:
    good = GOOD[VanGenuchten]
    with pytest.raises(ValueError, match=r"^alpha: has shape \(4,\), which does not broadcast with \(3,\)"):
        VanGenuchten(**{**good, "theta_s": torch.full((3,), 0.4), "alpha": torch.full((4,), 2.0)})
    zero = torch.zeros((), dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match="^air_entry: requires a gradient but is 0 where n <= 2"):
        VanGenuchten(**good, air_entry=zero)
    VanGenuchten(**{**good, "n": 2.5}, air_entry=zero)
    with pytest.raises(ValueError, match="^relative_permeability: is 'corey'; choose 'mualem' or 'burdine'"):
        BrooksCorey(**GOOD[BrooksCorey], relative_permeability="corey")
    with pytest.raises(ValueError, match="^l: requires a gradient but Burdine's"):
        BrooksCorey(**GOOD[BrooksCorey], relative_permeability="burdine", l=zero)
    with pytest.raises(ValueError, match="^retention: is 'linear'; choose 'power' or 'logarithm'"):
        Haverkamp(**GOOD[Haverkamp], retention="linear")
    with pytest.raises(ValueError, match="^beta: is 0.5; must be >= 1"):
        Haverkamp(**{**GOOD[Haverkamp], "beta": 0.5}, retention="logarithm")
    soil = VanGenuchten(**good)
    with pytest.raises(TypeError, match="^psi: is a float; give a torch tensor"):
        soil.theta(-1.0)
    with pytest.raises(TypeError, match="^psi: has dtype torch.int64"):
        soil.conductivity(torch.tensor([-1]))
    with pytest.raises(ValueError, match="^knots: are needed"):
        reference.theta_kr("tabulated", 0, {}, HEADS)


# ---- tables ----------------------------------------------------------------------------------------------------

LOAM = VanGenuchten(0.078, 0.43, 3.6, 1.56, 2.9e-6)


def test_table_of_a_soil_converges_to_it() -> None:
    psi = -torch.logspace(-2.5, 5.5, 500, dtype=F64)
    errors = []
    for n_knots in (41, 81, 161):
        table = Tabulated.from_soil(LOAM, psi_range=(-1e-3, -1e6), n_knots=n_knots)
        errors.append(float((table.theta(psi) - LOAM.theta(psi)).abs().max()))
        assert (
            float((table.conductivity(psi) / LOAM.conductivity(psi)).log().abs().max()) < 50.0 / n_knots**1.5
        )
    # third order next to the limited ends, fourth inside
    assert errors[0] / errors[1] > 7.0
    assert errors[1] / errors[2] > 7.0
    assert errors[2] < 1e-6


def test_table_is_monotone_continuous_and_exact_at_its_knots() -> None:
    torch.manual_seed(3)
    theta = 0.4 - torch.rand(30, dtype=F64).cumsum(0) * 0.01
    theta[7:11] = theta[7]  # a plateau
    theta[20:] -= 0.05  # a jump
    ln_kr = -torch.rand(30, dtype=F64).cumsum(0).square()
    ln_kr[0] = 0.0
    soil = Tabulated(theta, ln_kr, (-0.01, -1e4), k_sat=2e-6)
    first, spacing = soil.knots
    knots = -torch.exp(first + spacing * torch.arange(30, dtype=F64))
    torch.testing.assert_close(soil.theta(knots), theta, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(soil.conductivity(knots), 2e-6 * ln_kr.exp(), rtol=1e-11, atol=0.0)
    psi = -torch.logspace(-4, 6, 20001, dtype=F64)
    for curve in (soil.theta, soil.conductivity):
        assert (curve(psi).diff() <= 1e-15).all()
    # value and slope from both sides of every knot
    for side in (1 - 1e-9, 1 + 1e-9):
        torch.testing.assert_close(soil.capacity(knots * side), soil.capacity(knots), rtol=1e-5, atol=1e-7)
    assert soil.theta(torch.tensor([-1e8], dtype=F64)) > 0.0
    assert (soil.theta(torch.tensor([-1e-3, 0.0, 1.0], dtype=F64)) == theta[0]).all()
    assert (soil.capacity(torch.tensor([-1e-3, 0.0, 1.0], dtype=F64)) == 0.0).all()


def test_gradients_reach_every_knot() -> None:
    torch.manual_seed(5)
    theta = (0.4 - torch.rand(2, 12, dtype=F64).cumsum(1) * 0.02).requires_grad_()
    ln_kr = -torch.rand(2, 12, dtype=F64).cumsum(1)
    ln_kr[:, 0] = 0.0
    ln_kr.requires_grad_()
    classes = torch.randint(0, 2, (50,))
    psi = -torch.logspace(-3, 4, 50, dtype=F64)

    def curves(theta: Tensor, rest: Tensor) -> Tensor:
        ln_kr = torch.cat([torch.zeros(2, 1, dtype=F64), rest], dim=1)
        soil = Tabulated(theta, ln_kr, (-0.01, -1e3), 1.0, classes)
        return torch.stack([soil.theta(psi), soil.conductivity(psi), soil.capacity(psi)])

    assert torch.autograd.gradcheck(curves, (theta, ln_kr[:, 1:].detach().requires_grad_()))
    soil = Tabulated(theta, ln_kr, (-0.01, -1e3), 1.0, classes)
    loss = soil.theta(psi).square().sum() + soil.conductivity(psi).square().sum()
    for grad in torch.autograd.grad(loss, (theta, ln_kr)):
        assert (grad != 0.0).all()


def test_network_is_baked_with_its_gradients() -> None:
    torch.manual_seed(9)
    weights = torch.rand(3, dtype=F64, requires_grad=True)

    def relation(psi: Tensor) -> tuple[Tensor, Tensor]:
        # a sum of falling curves: the simplest monotone network
        scales = torch.tensor([0.5, 2.0, 8.0], dtype=F64)
        hidden = 1.0 / (1.0 - scales * psi[:, None])
        mix = torch.softmax(weights, 0)
        return 0.05 + 0.35 * hidden @ mix, (hidden.square() @ mix)

    psi = -torch.logspace(-2, 3, 40, dtype=F64)
    soil = Tabulated.from_function(relation, 1.0, psi_range=(-1e-4, -1e5), n_knots=400)
    direct = relation(psi)
    torch.testing.assert_close(soil.theta(psi), direct[0], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(soil.conductivity(psi), direct[1], rtol=1e-5, atol=0.0)
    baked = torch.autograd.grad(soil.theta(psi).sum() + soil.conductivity(psi).sum(), weights)[0]
    exact = torch.autograd.grad(direct[0].sum() + direct[1].sum(), weights)[0]
    torch.testing.assert_close(baked, exact, rtol=1e-5, atol=1e-7)


def test_monotone_slopes_never_overshoot() -> None:
    torch.manual_seed(2)
    values = -torch.rand(200, 9, dtype=F64).pow(6).cumsum(1)
    slopes = monotone_slopes(values, 0.5)
    secants = values.diff(dim=1) / 0.5
    assert (slopes <= 0.0).all()
    assert (slopes[:, 0] == 0.0).all()
    assert (slopes[:, 1:] >= 3.0 * secants - 1e-15).all()
    assert (slopes[:, :-1] >= 3.0 * secants - 1e-15).all()
    straight = -torch.arange(9.0, dtype=F64)
    torch.testing.assert_close(monotone_slopes(straight, 0.5)[1:], torch.full((8,), -2.0, dtype=F64))


def test_tables_refuse_what_they_cannot_hold() -> None:
    theta = torch.linspace(0.4, 0.1, 10, dtype=F64)
    ln_kr = torch.linspace(0.0, -9.0, 10, dtype=F64)
    window = (-0.01, -100.0)
    with pytest.raises(ValueError, match=r"^theta: has shape \(3,\); give \[n_knots\]"):
        Tabulated(theta[:3], ln_kr[:3], window, 1e-5)
    with pytest.raises(ValueError, match=r"^ln_kr: has shape \(9,\) but theta has \(10,\)"):
        Tabulated(theta, ln_kr[:9], window, 1e-5)
    with pytest.raises(ValueError, match="^theta: rises from knot 0 to knot 1"):
        Tabulated(theta.flip(0), ln_kr, window, 1e-5)
    with pytest.raises(ValueError, match=r"^theta: must lie in \(0, 1\]"):
        Tabulated(theta - 0.1, ln_kr, window, 1e-5)
    with pytest.raises(ValueError, match="^ln_kr: must be 0 at the first knot"):
        Tabulated(theta, ln_kr - 1.0, window, 1e-5)
    with pytest.raises(ValueError, match="^ln_kr: holds NaN or infinite values"):
        Tabulated(theta, torch.log(torch.zeros(10)), window, 1e-5)
    with pytest.raises(ValueError, match="^psi_range: is .*; give"):
        Tabulated(theta, ln_kr, (-100.0, -0.01), 1e-5)
    with pytest.raises(ValueError, match="^classes: are needed with 2 classes"):
        Tabulated(theta.expand(2, 10), ln_kr.expand(2, 10), window, 1e-5)
    with pytest.raises(ValueError, match=r"^classes: must lie in \[0, 1\]"):
        Tabulated(theta.expand(2, 10), ln_kr.expand(2, 10), window, 1e-5, torch.tensor([0, 2]))
    with pytest.raises(TypeError, match="^classes: must be an integer tensor"):
        Tabulated(theta, ln_kr, window, 1e-5, torch.tensor([0.0]))
    with pytest.raises(ValueError, match="^n_knots: is 3"):
        Tabulated.from_soil(LOAM, n_knots=3)
    with pytest.raises(ValueError, match="^k_sat: is 0"):
        Tabulated(theta, ln_kr, window, 0.0)
    soil = Tabulated(
        theta.expand(2, 10), ln_kr.expand(2, 10), window, 1e-5, torch.zeros(4, 3, dtype=torch.int64)
    )
    assert soil.parameters_on((4, 3))["table"].shape == (2, 10, 4)
    assert soil.classes_on((4, 3)).dtype == torch.int32
    with pytest.raises(ValueError, match="^classes: has shape"):
        soil.classes_on((5, 3))


def test_classes_choose_their_rows() -> None:
    soils = [LOAM, VanGenuchten(0.045, 0.43, 14.5, 2.68, 8e-5)]
    k_sat = torch.tensor([2.9e-6, 8e-5], dtype=F64)
    both = VanGenuchten(
        *(torch.stack([getattr(s, name) for s in soils]) for name in ("theta_r", "theta_s", "alpha", "n")),
        k_sat,
    )
    classes = torch.tensor([[0, 1, 1], [1, 0, 0]])
    table = Tabulated.from_soil(both, classes, psi_range=(-1e-3, -1e3), n_knots=200)
    psi = -torch.rand(4, 2, 3, dtype=F64)
    for curve in ("theta", "conductivity"):
        expected = torch.where(classes == 0, getattr(soils[0], curve)(psi), getattr(soils[1], curve)(psi))
        torch.testing.assert_close(getattr(table, curve)(psi), expected, rtol=1e-4, atol=1e-12)
