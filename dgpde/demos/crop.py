"""Crop water demand by the dual crop coefficient of FAO-56, and the growth of roots.

Source: Allen, Pereira, Raes and Smith (1998), Crop evapotranspiration, FAO Irrigation and Drainage Paper 56,
chapters 6-8. All functions are plain PyTorch, so that crop parameters can be learned with the soil.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def kcb_curve(day: Tensor, values: Sequence[float], lengths: Sequence[int]) -> Tensor:
    """Basal crop coefficient [-] on days since planting (FAO-56, figure 34 and equation 66).

    Args:
        day: days since planting, any shape.
        values: coefficient in the initial stage, in mid-season, and at the end of the late stage.
        lengths: length of the initial, development, mid and late stages, days.

    Constant before planting and after the end of the late stage.
    """
    initial, middle, end = values
    knots = [0.0, float(lengths[0]), float(sum(lengths[:2])), float(sum(lengths[:3])), float(sum(lengths))]
    levels = [initial, initial, middle, middle, end]
    result = torch.full_like(day, initial)
    for a, b, level_a, level_b in zip(knots, knots[1:], levels, levels[1:], strict=False):
        inside = level_a + (level_b - level_a) * (day - a) / (b - a)
        result = torch.where((day >= a) & (day < b), inside, result)
    return torch.where(day >= knots[-1], torch.full_like(day, end), result)


def kc_maximum(kcb: Tensor, rh_min: Tensor, wind_2m: Tensor, height: Tensor) -> Tensor:
    """Upper limit of evaporation and transpiration together, as a crop coefficient (FAO-56, equation 72).

    Args:
        kcb: basal crop coefficient [-]; rh_min: daily minimum of relative humidity, %;
        wind_2m: m/s; height: of the crop, m. Shapes broadcast.
    """
    climate = 0.04 * (wind_2m.clamp(1.0, 6.0) - 2.0) - 0.004 * (rh_min.clamp(20.0, 80.0) - 45.0)
    return torch.maximum(1.2 + climate * (height / 3.0) ** 0.3, kcb + 0.05)


def evaporation_coefficient(kcb: Tensor, kc_max: Tensor, height: Tensor, kcb_min: float = 0.15) -> Tensor:
    """Potential coefficient of soil evaporation when the whole surface is wet (FAO-56, equations 71 and 76).

    The smaller of what energy allows, Kc_max - Kcb, and of what the soil not shaded by the crop can evaporate,
    (1 - f_c) Kc_max with the cover f_c = ((Kcb - Kcb_min)/(Kc_max - Kcb_min))^(1 + h/2). How much of it the soil
    can supply is left to the Richards equation.
    """
    cover = ((kcb - kcb_min).clamp(min=0.0) / (kc_max - kcb_min)) ** (1.0 + 0.5 * height)
    return torch.minimum(kc_max - kcb, (1.0 - cover).clamp(0.01, 1.0) * kc_max)


def root_depth(
    kcb: Tensor, first: float, last: Tensor | float, kcb_initial: float, kcb_middle: float
) -> Tensor:
    """Depth of roots [m], growing with the crop coefficient from `first` to `last` and not shrinking afterwards.

    `kcb` [T] is the tabulated curve of the season in order of time; pyfao56 grows roots in the same way.
    """
    grown = torch.cummax(kcb, dim=0).values
    return first + (last - first) * ((grown - kcb_initial) / (kcb_middle - kcb_initial)).clamp(0.0, 1.0)


def triangular_root_density(top: Tensor, bottom: Tensor, depth: Tensor, peak: Tensor | float) -> Tensor:
    """Mean root density [1/m] of cells, rising linearly to a peak below the surface and falling linearly to zero.

    The triangular distribution on [0, depth] with its mode at peak * depth, integrated exactly over each cell. A
    surface that is hot and often dry holds few roots, so the densest are below it; peak = 0 would be the linear
    decrease of Prasad (1988), Journal of Hydrology 99, 297-306.

    Args:
        top, bottom: depths of the upper and lower edges of the cells, m, [nz]; top < bottom.
        depth: of the roots, m, [T].
        peak: depth of the greatest density as a part of `depth`, in (0, 1).

    Returns:
        [T, nz].
    """

    def above(edge: Tensor) -> Tensor:
        x = (edge[None, :] / depth[:, None]).clamp(max=1.0)
        return torch.where(x < peak, x**2 / peak, 1.0 - (1.0 - x) ** 2 / (1.0 - peak))

    return (above(bottom) - above(top)) / (bottom - top)


def root_density(top: Tensor, bottom: Tensor, depth: Tensor, shape: Tensor | float = 1.0) -> Tensor:
    """Mean root density [1/m] of cells, whose integral over depth is one.

    The roots above a depth d make up the fraction B(d) = 1 - (1 - d/depth)^(shape + 1), so the density falls
    linearly to zero at `depth` for shape = 1 and is uniform for shape = 0 (Hoffman and van Genuchten 1983, a
    power law). Cells get the difference of B between their edges: the sum is exact on any grid.

    Args:
        top, bottom: depths of the upper and lower edges of the cells, m, [nz]; top < bottom.
        depth: of the roots, m, [T].
        shape: exponent, > -1.

    Returns:
        [T, nz].
    """

    def above(edge: Tensor) -> Tensor:
        left = (1.0 - edge[None, :] / depth[:, None]).clamp(min=0.0)
        # The power of zero has no derivative in its exponent: below the roots B is one, whatever the shape.
        inside = left > 0.0
        return 1.0 - torch.where(
            inside, torch.where(inside, left, torch.ones_like(left)) ** (shape + 1.0), 0.0
        )

    return (above(bottom) - above(top)) / (bottom - top)
