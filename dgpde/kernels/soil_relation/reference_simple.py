"""van Genuchten, Brooks-Corey, Gardner, Haverkamp and saturated: theta and kr, capacity, wet suction."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.reference_common import Parameters, log_mualem, softplus, split

#: Suction at which the logarithmic form of Haverkamp et al. (1977) saturates, 1 cm, in m.
HAVERKAMP_LOG_UNIT = 0.01

#: A suction in m that no run reaches; representable in float32.
NEVER_DRY = 1e30

# ------------------------------------------------------------------------------------------ van Genuchten


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
    theta_r, theta_s, connectivity = p["theta_r"], p["theta_s"], p["l"]
    dry, _, _, _, log_se, log_b = _van_genuchten_terms(p, psi)
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(log_se), theta_s)
    kr = torch.where(dry, torch.exp(connectivity * log_se + 2.0 * log_b), torch.ones_like(psi))
    return theta, kr


def van_genuchten_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """m n (theta_s - theta_r) Se y/(1+y)/h."""
    dry, h, log_y, m, log_se, _ = _van_genuchten_terms(p, psi)
    n = p["n"]
    slope = (p["theta_s"] - p["theta_r"]) * m * n * torch.exp(log_se - softplus(-log_y)) / h
    return torch.where(dry, slope, torch.zeros_like(psi))


def van_genuchten_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """m^(1/n)/alpha, or the air entry when that is larger."""
    m = (p["n"] - 1.0) / p["n"]
    return torch.maximum(torch.exp(torch.log(m) / p["n"]) / p["alpha"], p["air_entry"])


# ------------------------------------------------------------------------------------------- Brooks-Corey


def brooks_corey(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Brooks & Corey (1964); kr = Se^(l+2+2/lam) (Mualem, variant 0) or Se^(3+2/lam) (Burdine, 1)."""
    theta_r, theta_s, psi_e, lam = p["theta_r"], p["theta_s"], p["psi_e"], p["lam"]
    dry, h = split(psi, psi_e)
    log_h = torch.where(dry, torch.log(h) - torch.log(psi_e), torch.zeros_like(psi))
    exponent = (p["l"] + 2.0) * lam + 2.0 if variant == 0 else 3.0 * lam + 2.0
    theta = torch.where(dry, theta_r + (theta_s - theta_r) * torch.exp(-lam * log_h), theta_s)
    kr = torch.where(dry, torch.exp(-exponent * log_h), torch.ones_like(psi))
    return theta, kr


def brooks_corey_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """lam (theta_s - theta_r) Se/h."""
    lam, psi_e = p["lam"], p["psi_e"]
    dry, h = split(psi, psi_e)
    log_h = torch.where(dry, torch.log(h) - torch.log(psi_e), torch.zeros_like(psi))
    slope = (p["theta_s"] - p["theta_r"]) * lam * torch.exp(-lam * log_h) / h
    return torch.where(dry, slope, torch.zeros_like(psi))


def brooks_corey_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """The air-entry suction."""
    return p["psi_e"]


# ------------------------------------------------------------------------------------------------ Gardner


def gardner(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Gardner (1958): Se = kr = exp(alpha psi)."""
    theta_r, theta_s, alpha = p["theta_r"], p["theta_s"], p["alpha"]
    dry, h = split(psi)
    kr = torch.where(dry, torch.exp(-alpha * h), torch.ones_like(psi))
    return theta_r + (theta_s - theta_r) * kr, kr


def gardner_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """alpha (theta_s - theta_r) exp(alpha psi)."""
    dry, h = split(psi)
    slope = (p["theta_s"] - p["theta_r"]) * p["alpha"] * torch.exp(-p["alpha"] * h)
    return torch.where(dry, slope, torch.zeros_like(psi))


def gardner_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """1/alpha: the curve has no inflection."""
    return 1.0 / p["alpha"]


# ---------------------------------------------------------------------------------------------- Haverkamp


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
    """beta (theta_s - theta_r) x/(1+x)^2/h, for the logarithmic form also divided by ln(h/1 cm)."""
    dry, h, log_x = _haverkamp_log_x(p, psi, variant)
    slope = (p["theta_s"] - p["theta_r"]) * p["beta"] * torch.exp(-softplus(log_x) - softplus(-log_x)) / h
    if variant == 1:
        slope = slope / torch.log1p((h - HAVERKAMP_LOG_UNIT) / HAVERKAMP_LOG_UNIT)
    return torch.where(dry, slope, torch.zeros_like(psi))


def haverkamp_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """Where Se(h) bends, or close to saturation where it does not."""
    # Se = 1/(1+x), x = h^beta/alpha, bends at x = (beta-1)/(beta+1); with beta <= 1 it has no inflection:
    # stay close to 0.
    beta = p["beta"]
    x = ((beta - 1.0) / (beta + 1.0)).clamp(min=1e-2)
    w = torch.exp((torch.log(x) + torch.log(p["alpha"])) / beta)
    return w if variant == 0 else torch.full_like(w, HAVERKAMP_LOG_UNIT)


# ---------------------------------------------------------------------------------------------- Saturated


def saturated(p: Parameters, psi: Tensor, variant: int = 0) -> tuple[Tensor, Tensor]:
    """Always saturated: theta = theta_s, kr = 1."""
    psi, theta_s = torch.broadcast_tensors(psi, p["theta_s"])
    # NaN must reach the result
    zero = torch.where(torch.isnan(psi), psi, torch.zeros_like(psi))
    return theta_s + zero, zero + 1.0


def saturated_capacity(p: Parameters, psi: Tensor, variant: int = 0) -> Tensor:
    """0 everywhere."""
    psi, _ = torch.broadcast_tensors(psi, p["theta_s"])
    return torch.where(torch.isnan(psi), psi, torch.zeros_like(psi))


def saturated_wet_suction(p: Parameters, variant: int = 0) -> Tensor:
    """Out of reach: the curve has no inflection and no head is dry."""
    return torch.full_like(p["theta_s"], NEVER_DRY)
