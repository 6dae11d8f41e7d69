"""The soil hydraulic relations in plain PyTorch: the specification of every other implementation.

A relation gives, for a pressure head psi [m] (negative when unsaturated) and its parameters,

    theta(psi)     volumetric water content [-]
    kr(psi)        relative conductivity [-], 1 at psi >= 0; K = k_sat kr
    capacity(psi)  d theta / d psi [1/m], 0 at psi >= 0
    wet_suction    suction h = -psi [m] near the inflection of theta: it guides Newton's path, no physics

All functions are elementwise, broadcast, keep the dtype of ``psi`` and are differentiable by autograd (twice)
in psi and in every parameter. Three rules keep values and gradients free of NaN for every psi from +inf to
-1e8 m and n down to 1.001:

- the dry branch never sees a wet cell: its suction is replaced by 1 m *before* the formula, and the result by
  the saturated value after it ("double where");
- powers are taken as exp(exponent log), and 1 + y, 1 - (1 - Se^(1/m))^m through softplus, expm1 and log1p, so
  that nothing cancels near saturation and nothing overflows when very dry;
- a psi that is NaN stays NaN.

Suctions below ``TINY_SUCTION`` (1e-300 m in float64, 1e-36 m in float32) count as saturated: their reciprocal
overflows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgpde.kernels.soil_relation import reference_network as nets
from dgpde.kernels.soil_relation import reference_pores as pores
from dgpde.kernels.soil_relation import reference_simple as simple
from dgpde.kernels.soil_relation.module import WEIGHT
from dgpde.kernels.soil_relation.reference_common import Parameters
from dgpde.kernels.soil_relation.reference_table import tabulated, tabulated_capacity, tabulated_wet_suction

Curves = Callable[[Parameters, Tensor, int], tuple[Tensor, Tensor]]

#: Kernel names of the parameters of each relation, in the order in which kernels take them (k_sat is
#: separate).
PARAMETERS: dict[str, tuple[str, ...]] = {
    "van_genuchten": ("theta_r", "theta_s", "alpha", "n", "l", "air_entry"),
    "brooks_corey": ("theta_r", "theta_s", "psi_e", "lam", "l"),
    "gardner": ("theta_r", "theta_s", "alpha"),
    "haverkamp": ("theta_r", "theta_s", "alpha", "beta", "a", "gamma"),
    "kosugi": ("theta_r", "theta_s", "s_m", "sigma", "l"),
    "fredlund_xing": ("theta_s", "a", "n", "m", "p", "s_r"),
    "durner": ("theta_r", "theta_s", "alpha1", "n1", "alpha2", "n2", "w2", "l"),
    "peters_durner_iden": ("theta_r", "theta_s", "alpha", "n", "omega", "l", "h_0", "a"),
    "saturated": ("theta_s",),
    "tabulated": (),
    "network": ("theta_r", "theta_s", "alpha", "n", "l", "x1", "x2", "x3", "weights"),
}


#: Parameters that all cells share, by name; the others are one value for each cell.
SHARED = ("table", "weights")


def soil_names(relation: str) -> tuple[str, ...]:
    """Names of the tensors that the kernel of a relation reads."""
    return PARAMETERS[relation] or ("table",)


def is_shared(name: str) -> bool:
    """Whether all cells share a parameter, which is then as it is and not a field; its name or an input's."""
    name = name.removeprefix("soil.")
    return name in SHARED or name.startswith(WEIGHT)


Slope = Callable[[Parameters, Tensor, int], Tensor]
Suction = Callable[[Parameters, int], Tensor]

_RELATIONS: dict[str, tuple[Curves, Slope, Suction]] = {
    "van_genuchten": (simple.van_genuchten, simple.van_genuchten_capacity, simple.van_genuchten_wet_suction),
    "brooks_corey": (simple.brooks_corey, simple.brooks_corey_capacity, simple.brooks_corey_wet_suction),
    "gardner": (simple.gardner, simple.gardner_capacity, simple.gardner_wet_suction),
    "haverkamp": (simple.haverkamp, simple.haverkamp_capacity, simple.haverkamp_wet_suction),
    "network": (nets.network, nets.network_capacity, nets.network_wet_suction),
    "saturated": (simple.saturated, simple.saturated_capacity, simple.saturated_wet_suction),
    "kosugi": (pores.kosugi, pores.kosugi_capacity, pores.kosugi_wet_suction),
    "fredlund_xing": (pores.fredlund_xing, pores.fredlund_xing_capacity, pores.fredlund_xing_wet_suction),
    "durner": (pores.durner, pores.durner_capacity, pores.durner_wet_suction),
    "peters_durner_iden": (
        pores.peters_durner_iden,
        pores.peters_durner_iden_capacity,
        pores.peters_durner_iden_wet_suction,
    ),
}


def _knots(relation: str, knots: tuple[float, float] | None) -> tuple[float, float]:
    if knots is None:
        raise ValueError(
            f"knots: are needed by the relation {relation!r}; give (ln of the first suction, spacing)"
        )
    return knots


def theta_kr(
    relation: str, variant: int, params: Parameters, psi: Tensor, knots: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Water content and relative conductivity.

    relation, variant: kernel name and variant number. params: the kernel's parameters, broadcastable to
    ``psi``; for "tabulated" they are "table" [n_class, n_knots, 4] and "classes" (integer, broadcastable to
    ``psi``), and knots is (x of the first knot, spacing) of x = ln(-psi). psi: [..., *shape] m. Returns
    (theta, kr), shaped as the broadcast of psi and params.
    """
    if relation == "tabulated":
        return tabulated(params, psi, _knots(relation, knots))
    return _RELATIONS[relation][0](params, psi, variant)


def capacity(
    relation: str, variant: int, params: Parameters, psi: Tensor, knots: tuple[float, float] | None = None
) -> Tensor:
    """Slope d theta / d psi [1/m]; arguments as in :func:`theta_kr`."""
    if relation == "tabulated":
        return tabulated_capacity(params, psi, _knots(relation, knots))
    return _RELATIONS[relation][1](params, psi, variant)


def wet_suction(
    relation: str, variant: int, params: Parameters, knots: tuple[float, float] | None = None
) -> Tensor:
    """Suction [m] near the inflection of theta(psi): Newton restarts from there. No gradient flows through
    it.
    """
    with torch.no_grad():
        if relation == "tabulated":
            return tabulated_wet_suction(params, _knots(relation, knots))
        return _RELATIONS[relation][2](params, variant)
