"""Weather that is drawn: rain in showers, evaporation that follows the season."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DAY = 86400.0
YEAR = 365.0


def rain_and_evaporation(
    days: int, seed: int, per_day: int = 1, wet: float = 0.3, depth: float = 0.008, demand: float = 0.003
) -> tuple[Tensor, Tensor]:
    """Rain and potential evapotranspiration [days * per_day] m/s.

    A day is wet with the probability ``wet`` and then brings an exponentially distributed depth of the mean ``depth``
    [m] (Todorovic & Woolhiser 1975, J. Appl. Meteorol. 14, 17-24), all of it in one of its ``per_day`` parts, which is
    drawn. The demand [m/d] is ``demand`` (1 - 0.7 cos(2 pi t / year)), from a winter's start, times 0.8 to 1.2,
    drawn, and half of that on wet days.
    """
    draw = torch.Generator().manual_seed(seed)
    chance, amount, spread = torch.rand(3, days, generator=draw, dtype=torch.float64)
    part = torch.randint(per_day, (days,), generator=draw)
    rainy = chance < wet
    daily = torch.where(rainy, -depth * torch.log1p(-amount), 0.0)
    rain = torch.zeros(days, per_day, dtype=torch.float64)
    rain[torch.arange(days), part] = daily * per_day / DAY
    time = torch.arange(days, dtype=torch.float64) + 0.5
    season = 1.0 - 0.7 * torch.cos(2.0 * math.pi * time / YEAR)
    evaporation = demand / DAY * season * (0.8 + 0.4 * spread) * torch.where(rainy, 0.5, 1.0)
    return rain.flatten(), evaporation.repeat_interleave(per_day)
