"""The network relation: van Genuchten-Mualem curves whose suction axis two small networks warp.

With u = ln h, h = -psi in m, the features x of the cell, and the departures D_1, D_2 of the two networks,

    u_1 = u + D_1(u, x)          theta = theta_r + (theta_s - theta_r) Se(u_1)
    u_2 = u_1 + D_2(u_1, x)      kr    = kr_prior(u_2)

    D(u, x) = sum_j a_j s(t_j),   t_j = w_j u + b_j + sum_f U_jf x_f,   s(t) = t/sqrt(1 + t^2),   s' = (1 + t^2)^(-3/2)

    Se = (1 + y)^-m,  y = (alpha h)^n,  m = 1 - 1/n,    kr = Se^l A^2,  A = 1 - (y/(1 + y))^m

Both curves fall with the suction when 1 + dD/du > 0, that is when sum_j min(a_j w_j, 0) > -1 because 0 < s' <= 1;
``dgpde.soil.neural`` makes weights of which that is always true. u_1 is a function of Se alone, and so is kr.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.reference_common import Parameters, log_mualem, softplus, split

#: Columns of the weights before those of the features: amplitude a, rate w, bias b.
OWN = 3
FEATURES = ("x1", "x2", "x3")


class Curves(NamedTuple):
    """Both curves at u = ln h and their slopes in u."""

    theta: Tensor
    theta_slope: Tensor
    ln_kr: Tensor
    ln_kr_slope: Tensor


def departure(weights: Tensor, u: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """D(u, x) and dD/du; weights [units, 3 + F], u [...], F features that broadcast with u."""
    t = weights[:, 1] * u[..., None] + weights[:, 2]
    for f, feature in enumerate(features):
        t = t + weights[:, OWN + f] * feature[..., None]
    root = torch.rsqrt(1.0 + t * t)
    value = (weights[:, 0] * (t * root)).sum(-1)
    slope = (weights[:, 0] * weights[:, 1] * (root * root * root)).sum(-1)
    return value, slope


def features_of(p: Parameters) -> list[Tensor]:
    """As many features as the weights have columns for."""
    return [p[name] for name in FEATURES[: p["weights"].shape[-1] - OWN]]


def curves(p: Parameters, u: Tensor, features: list[Tensor]) -> Curves:
    """Both curves at u = ln h [...]; ``p``: theta_r, theta_s, alpha, n, l, and weights [2, units, 3 + F]."""
    n, log_alpha = p["n"], torch.log(p["alpha"])
    m = (n - 1.0) / n
    first, first_slope = departure(p["weights"][0], u, features)
    u1 = u + first
    second, second_slope = departure(p["weights"][1], u1, features)
    stretch = 1.0 + first_slope
    log_y1, log_y2 = n * (log_alpha + u1), n * (log_alpha + u1 + second)
    span = p["theta_s"] - p["theta_r"]
    log_se = -m * softplus(log_y1)
    theta = p["theta_r"] + span * torch.exp(log_se)
    # d ln Se/du = -(n - 1) f, f = y/(1 + y)
    theta_slope = -span * (n - 1.0) * torch.exp(log_se - softplus(-log_y1)) * stretch
    log_f2, log_g2 = -softplus(-log_y2), -softplus(log_y2)
    log_a = log_mualem(log_y2, m)
    ln_kr = m * p["l"] * log_g2 + 2.0 * log_a
    # d ln A/du = -(n - 1) g (1 - A)/A, g = 1 - f, 1 - A = f^m
    bend = torch.exp(log_g2 + m * log_f2 - log_a)
    ln_kr_slope = -(n - 1.0) * (p["l"] * torch.exp(log_f2) + 2.0 * bend) * stretch * (1.0 + second_slope)
    return Curves(theta, theta_slope, ln_kr, ln_kr_slope)


def warped_ln(p: Parameters, psi: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """theta and ln kr at psi [m], with any number of features; ``p`` as for :func:`curves`."""
    dry, h = split(psi)
    found = curves(p, torch.log(h), features)
    theta = torch.where(dry, found.theta, p["theta_s"])
    return theta, torch.where(dry, found.ln_kr, torch.zeros_like(theta))


def warped(p: Parameters, psi: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """theta and kr likewise."""
    theta, ln_kr = warped_ln(p, psi, features)
    return theta, torch.exp(ln_kr)


def network(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """theta and kr of the warped van Genuchten-Mualem curves."""
    return warped(p, psi, features_of(p))


def network_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """-(d theta/d ln h)/h."""
    dry, h = split(psi)
    slope = -curves(p, torch.log(h), features_of(p)).theta_slope / h
    return torch.where(dry, slope, torch.zeros_like(slope))


def network_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The suction that the first network sends, to first order, to the prior's inflection m^(1/n)/alpha."""
    n = p["n"]
    u = torch.log((n - 1.0) / n) / n - torch.log(p["alpha"])
    features = features_of(p)
    for feature in features:
        u = u + torch.zeros_like(feature)
    return torch.exp(u - departure(p["weights"][0], u, features)[0])
