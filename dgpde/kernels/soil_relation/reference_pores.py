"""Kosugi, Fredlund-Xing, Durner and Peters-Durner-Iden: theta and kr, capacity, wet suction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.reference_common import Parameters, log_mualem, softplus, split

#: Suction of zero water content of Fredlund & Xing (1994), 1e6 kPa, in m.
FREDLUND_XING_DRY = 1e5

# ------------------------------------------------------------------------------------------------- Kosugi


def kosugi(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Kosugi (1996): Se = Q(u), kr = Se^l Q(u + sigma)^2; u = ln(h/s_m)/sigma, Q(u) = erfc(u/sqrt 2)/2."""
    theta_r, theta_s = p["theta_r"], p["theta_s"]
    dry, h = split(psi)
    u = (torch.log(h) - torch.log(p["s_m"])) / p["sigma"]
    log_se = torch.special.log_ndtr(-u)
    log_kr = p["l"] * log_se + 2.0 * torch.special.log_ndtr(-(u + p["sigma"]))
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(log_se), theta_s)
    return theta, torch.where(dry, torch.exp(log_kr), torch.ones_like(psi))


def kosugi_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """(theta_s - theta_r) exp(-u^2/2) / (sqrt(2 pi) sigma h)."""
    dry, h = split(psi)
    u = (torch.log(h) - torch.log(p["s_m"])) / p["sigma"]
    density = torch.exp(-0.5 * u * u) / (math.sqrt(2.0 * math.pi) * p["sigma"] * h)
    return torch.where(dry, (p["theta_s"] - p["theta_r"]) * density, torch.zeros_like(psi))


def kosugi_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The mode of the pore-size distribution, s_m exp(-sigma^2)."""
    return p["s_m"] * torch.exp(-p["sigma"] * p["sigma"])


# ------------------------------------------------------------------------------------------ Fredlund-Xing


def _fredlund_xing_terms(p: Parameters, psi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """unsaturated, not yet oven-dry, h, t = n ln(h/a) - 1, 1 + softplus(t) = ln(e + (h/a)^n), C(h)."""
    dry, h = split(psi)
    t = p["n"] * (torch.log(h) - torch.log(p["a"])) - 1.0
    moist = ~(h >= FREDLUND_XING_DRY)
    # C = ln((s_r + h_dry)/(s_r + h)) / ln((s_r + h_dry)/s_r), without cancellation where C is small
    room = torch.log1p(torch.where(moist, FREDLUND_XING_DRY - h, torch.zeros_like(h)) / (p["s_r"] + h))
    return dry, moist, h, t, 1.0 + softplus(t), room / torch.log1p(FREDLUND_XING_DRY / p["s_r"])


def fredlund_xing(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Fredlund & Xing (1994): theta = theta_s C(h) G, kr = G^p (Leong & Rahardjo 1997).

    G = ln(e + (h/a)^n)^-m, C = 1 - ln(1 + h/s_r)/ln(1 + h_dry/s_r), h_dry = 1e5 m (1e6 kPa); drier than
    that the soil holds no water and theta stays 0.
    """
    dry, _, _, _, bracket, c = _fredlund_xing_terms(p, psi)
    log_g = -p["m"] * torch.log(bracket)
    theta = torch.where(dry, p["theta_s"] * c * torch.exp(log_g), p["theta_s"])
    return theta, torch.where(dry, torch.exp(p["p"] * log_g), torch.ones_like(psi))


def fredlund_xing_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """The sum of the slopes of G and of C; 0 drier than h_dry."""
    dry, moist, h, t, bracket, c = _fredlund_xing_terms(p, psi)
    g = torch.exp(-p["m"] * torch.log(bracket))
    slope_g = p["m"] * p["n"] * torch.exp(-softplus(-t)) / (bracket * h)
    slope_c = 1.0 / ((p["s_r"] + h) * torch.log1p(FREDLUND_XING_DRY / p["s_r"]))
    slope = p["theta_s"] * g * (c * slope_g + slope_c)
    return torch.where(dry & moist, slope, torch.zeros_like(psi))


def fredlund_xing_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The scale a, close to the inflection on a logarithmic axis."""
    return p["a"]


# ------------------------------------------------------------------------------------------------- Durner


def _log_mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """log(a exp(x) + b exp(y)) for a, b > 0."""
    top = torch.maximum(x, y).detach()
    return top + torch.log(a * torch.exp(x - top) + b * torch.exp(y - top))


def _durner_system(p: Parameters, i: int, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log y, m, log Se and log of the Mualem integral of pore system i."""
    n = p[f"n{i}"]
    m = (n - 1.0) / n
    log_y = n * (torch.log(p[f"alpha{i}"]) + torch.log(h))
    return log_y, m, -m * softplus(log_y), log_mualem(log_y, m)


def durner(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Durner (1994): Se = w1 Se1 + w2 Se2, w1 = 1 - w2; conductivity of Priesack & Durner (2006)."""
    theta_r, theta_s, w2 = p["theta_r"], p["theta_s"], p["w2"]
    dry, h = split(psi)
    _, _, log_se1, log_b1 = _durner_system(p, 1, h)
    _, _, log_se2, log_b2 = _durner_system(p, 2, h)
    log_se = _log_mix(1.0 - w2, log_se1, w2, log_se2)
    weight1, weight2 = (1.0 - w2) * p["alpha1"], w2 * p["alpha2"]
    log_b = _log_mix(weight1, log_b1, weight2, log_b2) - torch.log(weight1 + weight2)
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(log_se), theta_s)
    return theta, torch.where(dry, torch.exp(p["l"] * log_se + 2.0 * log_b), torch.ones_like(psi))


def durner_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """The weighted sum of the capacities of the two systems."""
    dry, h = split(psi)
    slope = torch.zeros_like(h)
    for i, weight in ((1, 1.0 - p["w2"]), (2, p["w2"])):
        log_y, m, log_se, _ = _durner_system(p, i, h)
        slope = slope + weight * m * p[f"n{i}"] * torch.exp(log_se - softplus(-log_y)) / h
    return torch.where(dry, (p["theta_s"] - p["theta_r"]) * slope, torch.zeros_like(psi))


def durner_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The inflection of the pore system that carries more of the conductivity."""
    h1 = torch.exp(torch.log1p(-1.0 / p["n1"]) / p["n1"]) / p["alpha1"]
    h2 = torch.exp(torch.log1p(-1.0 / p["n2"]) / p["n2"]) / p["alpha2"]
    return torch.where((1.0 - p["w2"]) * p["alpha1"] >= p["w2"] * p["alpha2"], h1, h2)


# ------------------------------------------------------------------------------------- Peters-Durner-Iden


def _pdi_smoothing(p: Parameters) -> Tensor:
    """Width b of the non-capillary saturation in ln h (Iden & Durner 2014 give it in log10 h)."""
    ratio = p["theta_r"] / (p["theta_s"] - p["theta_r"])
    return math.log(10.0) * (0.1 - 0.2 / (p["n"] * p["n"]) * torch.expm1(-ratio * ratio))


def _pdi_capillary(p: Parameters, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log y, log G, log S_cap, log of the Mualem integral at suctions h < h_0; G = (1 + y)^-m, y = (alpha
    h)^n.

    S_cap = (G - G0)/(1 - G0) = G (1 - exp(-D))/(1 - G0), D = log(G/G0), and the bracket of Mualem's integral is
    1 - (f/f0)^m with f = y/(1+y) = exp(-softplus(-log y)); for y > exp(40), f0 - f = 1/y - 1/y0 to round-off.
    """
    n = p["n"]
    m = (n - 1.0) / n
    log_y = n * (torch.log(p["alpha"]) + torch.log(h))
    log_y0 = n * (torch.log(p["alpha"]) + torch.log(p["h_0"]))
    log_g, log_g0 = -m * softplus(log_y), -m * softplus(log_y0)
    missing = torch.expm1(log_g) / torch.expm1(log_g0)  # 1 - S_cap
    wet = missing < 0.5
    log_wet = torch.log1p(-torch.where(wet, missing, torch.zeros_like(missing)))
    log_dry = log_g + torch.log(-torch.expm1(log_g0 - log_g)) - torch.log(-torch.expm1(log_g0))
    log_s = torch.where(wet, log_wet, log_dry)
    far = log_y > 40.0
    near = torch.where(far, torch.zeros_like(log_y), log_y)
    log_b_far = torch.log(m) - log_y + torch.log(-torch.expm1(log_y - log_y0))
    log_b_near = torch.log(-torch.expm1(m * (softplus(-log_y0) - softplus(-near))))
    return log_y, log_g, log_s, torch.where(far, log_b_far, log_b_near)


def _pdi_split(p: Parameters, psi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """unsaturated, oven-dry (h >= h_0), h with oven-dry cells at h_0, h with oven-dry cells well inside."""
    dry, h = split(psi)
    oven = h >= p["h_0"]
    inside = (1.0 / p["alpha"]).detach()
    return dry, oven, torch.where(oven, p["h_0"], h), torch.where(oven, inside, h)


def peters_durner_iden(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Peters (2013), Iden & Durner (2014), Peters (2014), with the capillary part of van Genuchten.

    theta = (theta_s - theta_r) S_cap + theta_r S_nc, kr = (1 - omega) K_cap + omega K_nc; with x = ln(alpha h),
    x0 = ln(alpha h_0): S_nc = 1 - b softplus(x/b)/x0 and K_nc = (alpha h_0)^(a (1 - S_nc)) = exp(a b softplus(x/b)).
    """
    theta_r, theta_s, omega = p["theta_r"], p["theta_s"], p["omega"]
    dry, oven, h, inside = _pdi_split(p, psi)
    _, _, log_s, log_b = _pdi_capillary(p, inside)
    none = torch.zeros_like(h)
    s_cap = torch.where(oven, none, torch.exp(log_s))
    k_cap = torch.where(oven, none, torch.exp(p["l"] * log_s + 2.0 * log_b))
    b = _pdi_smoothing(p)
    film = b * softplus((torch.log(p["alpha"]) + torch.log(h)) / b)
    s_nc = 1.0 - film / (torch.log(p["alpha"]) + torch.log(p["h_0"]))
    theta = torch.where(dry, (theta_s - theta_r) * s_cap + theta_r * s_nc, theta_s)
    kr = torch.where(dry, (1.0 - omega) * k_cap + omega * torch.exp(p["a"] * film), torch.ones_like(psi))
    return theta, kr


def peters_durner_iden_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """The sum of the capillary and the non-capillary capacity; 0 drier than h_0."""
    dry, oven, _, h = _pdi_split(p, psi)
    n = p["n"]
    log_y, log_g, _, _ = _pdi_capillary(p, h)
    log_g0 = -(n - 1.0) / n * softplus(n * (torch.log(p["alpha"]) + torch.log(p["h_0"])))
    slope_cap = (n - 1.0) * torch.exp(log_g - softplus(-log_y)) / (h * -torch.expm1(log_g0))
    t = (torch.log(p["alpha"]) + torch.log(h)) / _pdi_smoothing(p)
    slope_nc = torch.exp(-softplus(-t)) / (h * (torch.log(p["alpha"]) + torch.log(p["h_0"])))
    slope = (p["theta_s"] - p["theta_r"]) * slope_cap + p["theta_r"] * slope_nc
    return torch.where(dry & ~oven, slope, torch.zeros_like(psi))


def peters_durner_iden_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The inflection of the capillary part."""
    return torch.exp(torch.log1p(-1.0 / p["n"]) / p["n"]) / p["alpha"]
