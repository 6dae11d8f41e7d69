"""From a prior and a few numbers about a place to van Genuchten-Mualem parameters, and back from moisture to head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import dgpde
from dgpde.demos.tables import DAY, read_csv
from dgpde.parameter_net import values_of

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

    Coordinates (those of ``dgpde.Range``): logit of theta_r and of theta_s between their bounds, log alpha,
    log(n - 1), log k_sat, and all five are standardised: z = 0 is the prior's median, z = 1 is one standard
    deviation from it.

    Attributes:
        ranges: one set of ranges for all places, or one for each, along the first dimension of z.
    """

    ranges: tuple[dict[str, dgpde.Range], ...]

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
        found = [catalogue(texture) for texture in textures]
        for name, (low, high) in (("theta_r", theta_r_bounds), ("theta_s", theta_s_bounds)):
            for texture, soil in zip(textures, found, strict=True):
                if not low < soil[name] < high:
                    raise ValueError(f"{name}_bounds do not hold {name} of {texture!r}; widen them")
        bounds = {"theta_r": theta_r_bounds, "theta_s": theta_s_bounds, "n": (1.0, math.inf)}
        ranges = {}
        for name, deviation in zip(NAMES, spread, strict=True):
            low, high = bounds.get(name, (0.0, math.inf))
            first = dgpde.Range(found[0][name], low, high)
            mean = sum(first.coordinate(soil[name]) for soil in found) / len(found)
            median = first.value(torch.tensor(mean, dtype=torch.float64)).item()
            ranges[name] = dgpde.Range(median, low, high, spread=deviation)
        return cls((ranges,))

    def soil(self, z: Tensor) -> dict[str, Tensor]:
        """Parameters by name, shape [...], from standardised coordinates z [..., 5]."""
        if len(self.ranges) == 1:
            return values_of(self.ranges[0], z)
        places = [values_of(ranges, part) for ranges, part in zip(self.ranges, z, strict=True)]
        return {name: torch.stack([place[name] for place in places]) for name in NAMES}


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
