"""From a prior and a few numbers about a place to van Genuchten-Mualem parameters, and back from moisture to head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgpde.demos.tables import DAY, read_csv

# m. Without an air entry, kr of a soil with n < 2 is infinitely steep at saturation, which is neither physical nor
# good for Newton: Vogel, van Genuchten and Cislerova (2001) advise 2 cm, Ippisch, Vogel and Bastian (2006) say why.
AIR_ENTRY = 0.02
NAMES = ("theta_r", "theta_s", "alpha", "n", "k_sat")


def catalogue(texture: str, source: str = "HYDRUS") -> dict[str, float]:
    """Van Genuchten parameters of a texture class from the soil catalogue, in SI units.

    `source` is `HYDRUS` for the class means of Carsel and Parrish (1988), Water Resources Research 24, 755-769.

    Raises:
        ValueError: the catalogue has no van Genuchten row of that name and source.
    """
    for row in read_csv("soil-properties/pedon_soil_catalogue.csv", delimiter=";"):
        if row["name"] == texture and row["source"] == source and row["soilmodel"] == "Genuchten":
            return {
                "theta_r": float(row["theta_r"]),
                "theta_s": float(row["theta_s"]),
                "alpha": float(row["alpha"]) * 100,  # 1/cm -> 1/m
                "n": float(row["n"]),
                "k_sat": float(row["k_s"]) / 100 / DAY,  # cm/d -> m/s
            }
    raise ValueError(f"texture {texture!r} has no van Genuchten row from {source!r} in the catalogue")


def logit(x: float) -> float:
    """Logarithm of the odds of x in (0, 1)."""
    return math.log(x / (1.0 - x))


@dataclass(frozen=True)
class SoilPrior:
    """A Gaussian prior in a space where every point is a valid soil.

    Coordinates: logit of theta_r and of theta_s between their bounds, log alpha, log(n - 1), log k_sat, and all
    five are standardised: z = 0 is the prior's median, z = 1 is one standard deviation from it.

    Attributes:
        centre, spread: median and standard deviation of the coordinates, shape [..., 5], broadcast against z.
        theta_r_bounds, theta_s_bounds: open intervals [-].
    """

    centre: Tensor
    spread: Tensor
    theta_r_bounds: tuple[float, float] = (0.0, 0.12)
    theta_s_bounds: tuple[float, float] = (0.33, 0.50)

    @classmethod
    def from_catalogue(
        cls,
        textures: Sequence[str],
        spread: Sequence[float] = (0.8, 0.8, 0.7, 0.5, 1.3),
        theta_r_bounds: tuple[float, float] = (0.0, 0.12),
        theta_s_bounds: tuple[float, float] = (0.33, 0.50),
    ) -> SoilPrior:
        """Prior whose median is the mean, in the coordinates above, of texture classes of the catalogue.

        Args:
            textures: class names.
            spread: standard deviations of the five coordinates. The defaults are a factor 2 in alpha, 1.6 in
                n - 1 and 3.7 in k_sat, near the scatter within a class of Carsel and Parrish (1988), table 6.
            theta_r_bounds, theta_s_bounds: open intervals [-] that must hold the catalogue's values.
        """
        rows = []
        for texture in textures:
            soil = catalogue(texture)
            scaled = [
                (soil[name] - low) / (high - low)
                for name, (low, high) in (("theta_r", theta_r_bounds), ("theta_s", theta_s_bounds))
            ]
            if not all(0.0 < value < 1.0 for value in scaled):
                raise ValueError(f"theta bounds do not hold theta_r and theta_s of {texture!r}; widen them")
            rows.append(
                [
                    logit(scaled[0]),
                    logit(scaled[1]),
                    math.log(soil["alpha"]),
                    math.log(soil["n"] - 1.0),
                    math.log(soil["k_sat"]),
                ]
            )
        centre = torch.tensor(rows, dtype=torch.float64).mean(dim=0)
        return cls(centre, torch.tensor(list(spread), dtype=torch.float64), theta_r_bounds, theta_s_bounds)

    def soil(self, z: Tensor) -> dict[str, Tensor]:
        """Parameters by name, shape [...], from standardised coordinates z [..., 5]."""
        theta_r, theta_s, log_alpha, log_n1, log_k = (self.centre + self.spread * z).unbind(-1)
        (r_low, r_high), (s_low, s_high) = self.theta_r_bounds, self.theta_s_bounds
        return {
            "theta_r": r_low + (r_high - r_low) * torch.sigmoid(theta_r),
            "theta_s": s_low + (s_high - s_low) * torch.sigmoid(theta_s),
            "alpha": torch.exp(log_alpha),
            "n": 1.0 + torch.exp(log_n1),
            "k_sat": torch.exp(log_k),
        }


def head_of_moisture(
    theta: Tensor, soil: dict[str, Tensor], wettest: float = 0.995, driest: float = 0.01
) -> Tensor:
    """Pressure head [m] at which a van Genuchten soil with `AIR_ENTRY` holds theta; differentiable in both.

    Effective saturation is limited to [`driest`, `wettest`], because a measured theta may lie outside of
    [theta_r, theta_s] of a soil that is still being learned; where the limit is active it sets the head, and
    theta has no influence. Shapes broadcast.
    """
    saturation = ((theta - soil["theta_r"]) / (soil["theta_s"] - soil["theta_r"])).clamp(driest, wettest)
    m = 1.0 - 1.0 / soil["n"]
    saturation = saturation * (1.0 + (soil["alpha"] * AIR_ENTRY) ** soil["n"]) ** -m
    return -(((saturation ** (-1.0 / m)) - 1.0) ** (1.0 / soil["n"])) / soil["alpha"]


class PlotToSoil(nn.Module):
    """A small network from what is known of each layer of each place to its soil's coordinates z.

    [n, layers, features] -> [n, layers, 5], float64. The last layer starts at zero: before training every soil
    is the prior's median.
    """

    def __init__(self, features: int, hidden: int = 24) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden, dtype=torch.float64)
        self.last = nn.Linear(hidden, len(NAMES), dtype=torch.float64)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Coordinates z [n, layers, 5]."""
        return self.last(torch.tanh(self.first(features)))
