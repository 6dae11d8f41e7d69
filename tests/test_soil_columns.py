"""Every soil relation inside the column engine: C++ against the reference, in values and in all soil gradients."""

from __future__ import annotations

import pytest
import torch
from soil_cases import CASES, uniform
from torch import Tensor

import dgpde.kernels.soil_relation.function as function
from dgpde import FreeDrainage, Grid, Head, Richards, Series, SolveOptions
from dgpde.boundary import Flux
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

pytestmark = pytest.mark.skipif(bool(function._why_no_native()), reason=function._why_no_native())

F64 = torch.float64
GRID = Grid.columns(n=3, dz=[0.1, 0.1, 0.05, 0.05, 0.02, 0.02])
TIMES = torch.tensor([0.0, 1800.0, 5400.0, 7200.0], dtype=F64)
# the storage term of a soil divides by its theta_s, so that water contents matter twice
STORAGE = 1e-4

CENTRE: dict[str, tuple[type[Soil], dict[str, float]]] = {
    "van_genuchten": (
        VanGenuchten,
        {"theta_r": 0.05, "theta_s": 0.4, "alpha": 3.0, "n": 1.6, "k_sat": 1e-5, "l": 0.4, "air_entry": 0.02},
    ),
    "brooks_corey": (BrooksCorey, {"theta_r": 0.05, "theta_s": 0.4, "psi_e": 0.1, "lam": 0.7, "k_sat": 1e-5}),
    "gardner": (Gardner, {"theta_r": 0.05, "theta_s": 0.4, "alpha": 2.0, "k_sat": 1e-5}),
    "haverkamp": (
        Haverkamp,
        {"theta_r": 0.05, "theta_s": 0.4, "alpha": 0.5, "beta": 3.0, "a": 0.3, "gamma": 3.0, "k_sat": 1e-5},
    ),
    "kosugi": (Kosugi, {"theta_r": 0.05, "theta_s": 0.4, "s_m": 0.8, "sigma": 1.3, "k_sat": 1e-5, "l": 0.4}),
    "fredlund_xing": (
        FredlundXing,
        {"theta_s": 0.4, "a": 1.0, "n": 1.8, "m": 1.1, "p": 3.0, "k_sat": 1e-5, "s_r": 100.0},
    ),
    "durner": (
        Durner,
        {
            "theta_r": 0.05,
            "theta_s": 0.4,
            "alpha1": 9.0,
            "n1": 2.0,
            "alpha2": 0.5,
            "n2": 1.5,
            "w2": 0.4,
            "k_sat": 1e-5,
            "l": 0.4,
        },
    ),
    "peters_durner_iden": (
        PetersDurnerIden,
        {
            "theta_r": 0.1,
            "theta_s": 0.4,
            "alpha": 2.0,
            "n": 1.7,
            "omega": 0.01,
            "k_sat": 1e-5,
            "l": 0.4,
            "h_0": 6e4,
            "a": -1.4,
        },
    ),
    "saturated": (Saturated, {"k_sat": 1e-5, "theta_s": 0.4}),
}


def run(soil: Soil, backend: str, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """States of a run from dry soil at the top to a wet bottom, and the gradients of a random sum of them."""
    torch.manual_seed(13)
    psi0 = torch.linspace(0.2, -1.5, 6, dtype=F64)[:, None].expand(6, 3) - 0.3 * torch.rand(1, 3, dtype=F64)
    rain = Series(torch.tensor([2e-6, 0.0, -1e-8], dtype=F64)[:, None] * (0.5 + torch.rand(3, 3, dtype=F64)))
    bottom = Head(-0.2) if soil.relation == "saturated" else FreeDrainage()
    flow = Richards(GRID, soil, boundaries={"top": Flux(rain), "bottom": bottom}, specific_storage=STORAGE)
    options = SolveOptions(dt_fixed=900.0, tolerance=1e-12, backend=backend)
    psi = flow.solve(psi0.contiguous(), TIMES, options=options).psi
    weights = torch.rand(psi.shape, dtype=F64)
    return psi.detach(), list(torch.autograd.grad((psi * weights).sum(), leaves))


def check(soils: dict[str, tuple[Soil, list[Tensor]]], names: list[str]) -> None:
    psi, grads = run(soils["cpu"][0], "cpu", soils["cpu"][1])
    expected_psi, expected = run(soils["reference"][0], "reference", soils["reference"][1])
    # Newton stops at 1e-12 of the water in a cell, which is about 1e-11 m in the driest one
    torch.testing.assert_close(psi, expected_psi, rtol=1e-8, atol=1e-9)
    for name, a, b in zip(names, grads, expected, strict=True):
        assert torch.isfinite(a).all(), name
        # a gradient that is nothing but round-off (theta_r and theta_s of a saturated soil) has no relative error
        assert float((a - b).norm()) <= 1e-8 * float(b.norm()) + 1e-12, name


@pytest.mark.parametrize(("relation", "variant"), CASES)
def test_states_and_soil_gradients_agree(relation: str, variant: int) -> None:
    kind, centre = CENTRE[relation]
    words = {
        ("brooks_corey", 1): {"relative_permeability": "burdine"},
        ("haverkamp", 1): {"retention": "logarithm"},
    }.get((relation, variant), {})
    if words.get("retention"):
        centre = {**centre, "alpha": 100.0}
    soils = {}
    for backend in ("cpu", "reference"):
        torch.manual_seed(17)
        leaves = {
            k: (v * (1.0 + 0.05 * uniform(-1, 1, 18).reshape(6, 3))).requires_grad_()
            for k, v in centre.items()
        }
        soils[backend] = (kind(**leaves, **words), list(leaves.values()))
    check(soils, list(centre))


def test_tables_and_their_knots_agree() -> None:
    torch.manual_seed(19)
    loam = VanGenuchten(
        torch.tensor([0.05, 0.08], dtype=F64),
        0.4,
        torch.tensor([3.0, 1.0], dtype=F64),
        torch.tensor([1.6, 1.3], dtype=F64),
        1e-5,
    )
    classes = torch.randint(0, 2, (6, 3))
    baked = Tabulated.from_soil(loam, classes, psi_range=(-1e-2, -10.0), n_knots=16)
    soils = {}
    for backend in ("cpu", "reference"):
        theta, rest = (
            t.detach().clone().requires_grad_() for t in (baked.theta_knots, baked.ln_kr_knots[:, 1:])
        )
        ln_kr = torch.cat([torch.zeros(2, 1, dtype=F64), rest], dim=1)
        soils[backend] = (Tabulated(theta, ln_kr, (-1e-2, -10.0), 1e-5, classes), [theta, rest])
    check(soils, ["theta", "ln_kr"])
