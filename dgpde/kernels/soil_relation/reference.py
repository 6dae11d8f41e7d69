"""The soil hydraulic relations in plain PyTorch: the specification of every other implementation.

A relation gives, for a pressure head psi [m] (negative when unsaturated) and its parameters,

    theta(psi)     volumetric water content [-]
    kr(psi)        relative conductivity [-], 1 at psi >= 0; K = k_sat kr
    capacity(psi)  d theta / d psi [1/m], 0 at psi >= 0
    wet_suction    the suction h = -psi [m] of the inflection of theta: an estimate that guides Newton's path, no physics

All functions are elementwise, broadcast, keep the dtype of ``psi`` and are differentiable by autograd (twice) in psi and in every
parameter.  Three rules keep values and gradients free of NaN for every finite psi from +inf to -1e8 m and n down to 1.001:

- the dry branch never sees a wet cell: its suction is replaced by 1 m *before* the formula, and the result by the saturated value
  after it ("double where");
- powers are taken as exp(exponent log), and 1 + y, 1 - (1 - Se^(1/m))^m through softplus, expm1 and log1p, so that nothing cancels
  near saturation and nothing overflows when very dry;
- a psi that is NaN stays NaN.

Suctions below ``TINY_SUCTION`` (1e-300 m in float64, 1e-36 m in float32) count as saturated: their reciprocal overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]

TINY_SUCTION = {torch.float64: 1e-300, torch.float32: 1e-36}

#: Suction of zero water content of Fredlund & Xing (1994), 1e6 kPa, in m.
FREDLUND_XING_DRY = 1e5

#: Suction at which the logarithmic form of Haverkamp et al. (1977) saturates, 1 cm, in m.
HAVERKAMP_LOG_UNIT = 0.01

#: Stands for "never dry" in wet_suction; representable in float32.
NO_INFLECTION = 1e30


# ---------------------------------------------------------------------------------------------------------------- helpers


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full relative accuracy for every x, with exact first and second derivatives (also at x = 0)."""
    positive = x > 0
    tail = torch.log1p(torch.exp(torch.where(positive, -x, x)))
    return torch.where(positive, x + tail, tail)


def split(psi: Tensor, entry: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mask of the cells drier than saturation (or than the suction ``entry``), and their suction; 1 m elsewhere.

    NaN counts as dry, so that it reaches the result.
    """
    tiny = TINY_SUCTION[psi.dtype]
    limit = torch.full_like(psi, tiny) if entry is None else entry.detach().clamp(min=tiny)
    dry = ~(psi >= -limit)
    return dry, torch.where(dry, -psi, torch.ones_like(psi))


def log_mualem(log_y: Tensor, m: Tensor) -> Tensor:
    """log(1 - (1 - Se^(1/m))^m) for Se = (1 + y)^-m, from log y.

    (1 - Se^(1/m))^m = (y/(1+y))^m = exp(-m softplus(-log y)); for y > exp(40) the logarithm is log m - log y to round-off.
    """
    far = log_y > 40.0
    near = torch.where(far, torch.zeros_like(log_y), log_y)
    return torch.where(far, torch.log(m) - log_y, torch.log(-torch.expm1(-m * softplus(-near))))


# ----------------------------------------------------------------------------------------------------------- van Genuchten


def _van_genuchten_terms(p: Parameters, psi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dry, h, log y, m, log Se (rescaled by the air entry), log of the rescaled Mualem integral."""
    alpha, n, air_entry = p["alpha"], p["n"], p["air_entry"]
    m = (n - 1.0) / n
    dry, h = split(psi, air_entry)
    log_y = n * (torch.log(alpha) + torch.log(h))
    entry = air_entry > 0
    log_y_e = n * (torch.log(alpha) + torch.log(torch.where(entry, air_entry, torch.ones_like(air_entry))))
    zero = torch.zeros_like(log_y_e)
    log_se = -m * softplus(log_y) - torch.where(entry, -m * softplus(log_y_e), zero)
    log_b = log_mualem(log_y, m) - torch.where(entry, log_mualem(log_y_e, m), zero)
    return dry, h, log_y, m, log_se, log_b


def van_genuchten(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """van Genuchten (1980), Mualem conductivity, optional air entry (Ippisch et al. 2006)."""
    theta_r, theta_s, l = p["theta_r"], p["theta_s"], p["l"]
    dry, _, _, _, log_se, log_b = _van_genuchten_terms(p, psi)
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(log_se), theta_s)
    kr = torch.where(dry, torch.exp(l * log_se + 2.0 * log_b), torch.ones_like(psi))
    return theta, kr


def van_genuchten_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    dry, h, log_y, m, log_se, _ = _van_genuchten_terms(p, psi)
    n = p["n"]
    slope = (p["theta_s"] - p["theta_r"]) * m * n * torch.exp(log_se - softplus(-log_y)) / h
    return torch.where(dry, slope, torch.zeros_like(psi))


def van_genuchten_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    m = (p["n"] - 1.0) / p["n"]
    return torch.maximum(torch.exp(torch.log(m) / p["n"]) / p["alpha"], p["air_entry"])


# ------------------------------------------------------------------------------------------------------------ Brooks-Corey


def brooks_corey(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Brooks & Corey (1964); kr after Mualem (variant 0: Se^(l+2+2/lam)) or Burdine (variant 1: Se^(3+2/lam))."""
    theta_r, theta_s, psi_e, lam, l = p["theta_r"], p["theta_s"], p["psi_e"], p["lam"], p["l"]
    dry, h = split(psi, psi_e)
    log_h = torch.where(dry, torch.log(h) - torch.log(psi_e), torch.zeros_like(psi))
    exponent = (l + 2.0) * lam + 2.0 if variant == 0 else 3.0 * lam + 2.0
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(-lam * log_h), theta_s)
    kr = torch.where(dry, torch.exp(-exponent * log_h), torch.ones_like(psi))
    return theta, kr


def brooks_corey_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    lam, psi_e = p["lam"], p["psi_e"]
    dry, h = split(psi, psi_e)
    log_h = torch.where(dry, torch.log(h) - torch.log(psi_e), torch.zeros_like(psi))
    slope = (p["theta_s"] - p["theta_r"]) * lam * torch.exp(-lam * log_h) / h
    return torch.where(dry, slope, torch.zeros_like(psi))


def brooks_corey_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    return p["psi_e"]


# ----------------------------------------------------------------------------------------------------------------- Gardner


def gardner(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Gardner (1958): Se = kr = exp(alpha psi)."""
    theta_r, theta_s, alpha = p["theta_r"], p["theta_s"], p["alpha"]
    dry, h = split(psi)
    kr = torch.where(dry, torch.exp(-alpha * h), torch.ones_like(psi))
    return theta_r + (theta_s - theta_r) * kr, kr


def gardner_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    dry, h = split(psi)
    slope = (p["theta_s"] - p["theta_r"]) * p["alpha"] * torch.exp(-p["alpha"] * h)
    return torch.where(dry, slope, torch.zeros_like(psi))


def gardner_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    return 1.0 / p["alpha"]


# --------------------------------------------------------------------------------------------------------------- Haverkamp


def _haverkamp_log_x(p: Parameters, psi: Tensor, variant: int) -> tuple[Tensor, Tensor, Tensor]:
    """dry, suction and log x of Se = 1/(1+x); x = h^beta/alpha, or ln(h/1 cm)^beta/alpha (variant 1)."""
    if variant == 0:
        dry, h = split(psi)
        return dry, h, p["beta"] * torch.log(h) - torch.log(p["alpha"])
    dry, h = split(psi, torch.full_like(psi, HAVERKAMP_LOG_UNIT))
    # log1p keeps ln(h / unit) positive for every h above the unit
    w = torch.log1p((h - HAVERKAMP_LOG_UNIT) / HAVERKAMP_LOG_UNIT)
    return dry, h, p["beta"] * torch.log(w) - torch.log(p["alpha"])


def haverkamp(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Haverkamp et al. (1977): Se = alpha/(alpha + h^beta), kr = a/(a + h^gamma), h in m.

    Variant 1 is their form for clay: Se = alpha/(alpha + ln(h/1 cm)^beta) where h > 1 cm, 1 where wetter.
    """
    theta_r, theta_s = p["theta_r"], p["theta_s"]
    dry, _, log_x = _haverkamp_log_x(p, psi, variant)
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(-softplus(log_x)), theta_s)
    unsaturated, h = split(psi)
    log_kr = -softplus(p["gamma"] * torch.log(h) - torch.log(p["a"]))
    return theta, torch.where(unsaturated, torch.exp(log_kr), torch.ones_like(psi))


def haverkamp_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    dry, h, log_x = _haverkamp_log_x(p, psi, variant)
    slope = (p["theta_s"] - p["theta_r"]) * p["beta"] * torch.exp(-softplus(log_x) - softplus(-log_x)) / h
    if variant == 1:
        slope = slope / torch.log1p((h - HAVERKAMP_LOG_UNIT) / HAVERKAMP_LOG_UNIT)
    return torch.where(dry, slope, torch.zeros_like(psi))


def haverkamp_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    # Se = 1/(1+x), x = h^beta/alpha, bends at x = (beta-1)/(beta+1); with beta <= 1 it has no inflection: stay close to 0.
    beta = p["beta"]
    x = ((beta - 1.0) / (beta + 1.0)).clamp(min=1e-2)
    w = torch.exp((torch.log(x) + torch.log(p["alpha"])) / beta)
    return w if variant == 0 else torch.full_like(w, HAVERKAMP_LOG_UNIT)


# --------------------------------------------------------------------------------------------------------------- Saturated


def saturated(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Always saturated: theta = theta_s, kr = 1."""
    psi, theta_s = torch.broadcast_tensors(psi, p["theta_s"])
    # NaN must reach the result: 0 * psi keeps it and is 0 otherwise (psi is finite in every run that is sane).
    zero = torch.where(torch.isnan(psi), psi, torch.zeros_like(psi))
    return theta_s + zero, zero + 1.0


def saturated_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    psi, _ = torch.broadcast_tensors(psi, p["theta_s"])
    return torch.where(torch.isnan(psi), psi, torch.zeros_like(psi))


def saturated_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    return torch.full_like(p["theta_s"], NO_INFLECTION)


# ---------------------------------------------------------------------------------------------------------------- dispatch

Relation = Callable[[Parameters, Tensor, int], tuple[Tensor, Tensor]]

_THETA_KR: dict[str, Relation] = {
    "van_genuchten": van_genuchten,
    "brooks_corey": brooks_corey,
    "gardner": gardner,
    "haverkamp": haverkamp,
    "saturated": saturated,
}
_CAPACITY: dict[str, Callable[[Parameters, Tensor, int], Tensor]] = {
    "van_genuchten": van_genuchten_capacity,
    "brooks_corey": brooks_corey_capacity,
    "gardner": gardner_capacity,
    "haverkamp": haverkamp_capacity,
    "saturated": saturated_capacity,
}
_WET_SUCTION: dict[str, Callable[[Parameters, int], Tensor]] = {
    "van_genuchten": van_genuchten_wet_suction,
    "brooks_corey": brooks_corey_wet_suction,
    "gardner": gardner_wet_suction,
    "haverkamp": haverkamp_wet_suction,
    "saturated": saturated_wet_suction,
}

#: Kernel names of the parameters of each relation, in the order in which kernels take them (k_sat is separate).
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
    "tabulated": ("table",),
}


def theta_kr(
    relation: str,
    variant: int,
    params: Parameters,
    psi: Tensor,
    classes: Tensor | None = None,
    knots: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Water content and relative conductivity.

    relation, variant: kernel name and variant number; params: the kernel's parameters, broadcastable to ``psi``
    (``table`` [n_class, n_knots, 4] of "tabulated"); psi: [..., *shape] m; classes: [*shape] integer and knots: (x of the first
    knot, spacing of x = ln(-psi)), both for "tabulated" only.  Returns (theta, kr), shaped as the broadcast of psi and params.
    """
    return _THETA_KR[relation](params, psi, variant)


def capacity(
    relation: str,
    variant: int,
    params: Parameters,
    psi: Tensor,
    classes: Tensor | None = None,
    knots: tuple[float, float] | None = None,
) -> Tensor:
    """d theta / d psi [1/m]; arguments as in :func:`theta_kr`."""
    return _CAPACITY[relation](params, psi, variant)


def wet_suction(
    relation: str,
    variant: int,
    params: Parameters,
    classes: Tensor | None = None,
    knots: tuple[float, float] | None = None,
) -> Tensor:
    """Suction [m] of the inflection of theta(psi), > 0: drier than this Newton updates theta, wetter psi.  Not differentiated."""
    with torch.no_grad():
        return _WET_SUCTION[relation](params, variant)
