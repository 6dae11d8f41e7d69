"""The measured data that travel with the package (`dgpde/data`), read into float64 tensors in SI units."""

from __future__ import annotations

import csv
import datetime as dt
import math
from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor

MM = 1e-3  # m
DAY = 86400.0  # s
EARTH_RADIUS = 6.371e6  # m


def read_csv(name: str, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of the file `dgpde/data/<name>` as dictionaries of text; empty cells are empty text."""
    text = resources.files("dgpde").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter=delimiter))


def number(text: str) -> float:
    """A cell as a float; an empty cell is NaN."""
    return float(text) if text.strip() else math.nan


def column(rows: list[dict[str, str]], name: str) -> Tensor:
    """One column of a table as a float64 vector, NaN where a cell is empty."""
    return torch.tensor([number(row[name]) for row in rows], dtype=torch.float64)


@dataclass(frozen=True)
class Maricopa:
    """Irrigated cotton at Maricopa, 2018. n plots, D days of weather, R reading dates, 10 depths, 5 layers."""

    plots: list[str]
    position: Tensor  # [n, 2] m east and north of the field's centre
    lower_limit: Tensor  # [n, 5] water content at the lower limit, layers 0-40 ... 160-200 cm, top first
    upper_limit: Tensor  # [n, 5] water content at the drained upper limit
    dates: list[dt.date]  # R reading dates
    depths: Tensor  # [10] m, centres of 20 cm layers, top first
    theta: Tensor  # [R, 10, n] neutron-probe water content, NaN where there is no reading
    days: list[dt.date]  # D days of weather
    reference_et: Tensor  # [D] m/d, ASCE short reference
    rain: Tensor  # [D] m/d
    rh_min: Tensor  # [D] %
    wind_2m: Tensor  # [D] m/s at 2 m
    irrigation: Tensor  # [D, n] m/d

    def day(self, date: dt.date) -> int:
        """Index of a date in `days`."""
        return (date - self.days[0]).days


def wind_at_2m(wind: Tensor, height: float) -> Tensor:
    """Wind speed at 2 m over grass from the speed at `height` m, both in m/s (FAO-56, equation 47)."""
    return wind * 4.87 / math.log(67.8 * height - 5.42)


def load_maricopa() -> Maricopa:
    """Read `maricopa-cotton-2018`; see the README beside the files for what was measured."""
    folder = "maricopa-cotton-2018"
    sites = read_csv(f"{folder}/plots.csv")
    plots = [row["plot"] for row in sites]
    index = {plot: i for i, plot in enumerate(plots)}
    latitude, longitude = torch.deg2rad(column(sites, "lat_deg")), torch.deg2rad(column(sites, "lon_deg"))
    east = EARTH_RADIUS * torch.cos(latitude.mean()) * (longitude - longitude.mean())
    north = EARTH_RADIUS * (latitude - latitude.mean())
    layers = ("040", "080", "120", "160", "200")

    weather = read_csv(f"{folder}/weather.csv")
    days = [dt.date.fromisoformat(row["date"]) for row in weather]
    if any((b - a).days != 1 for a, b in zip(days, days[1:], strict=False)):
        raise ValueError(f"{folder}/weather.csv is not daily without gaps")
    irrigation = torch.zeros(len(days), len(plots), dtype=torch.float64)
    for row in read_csv(f"{folder}/irrigation.csv"):
        day = (dt.date.fromisoformat(row["date"]) - days[0]).days
        irrigation[day, index[row["plot"]]] += float(row["irrigation_mm"]) * MM

    readings = read_csv(f"{folder}/neutron_theta.csv")
    dates = sorted({dt.date.fromisoformat(row["date"]) for row in readings})
    depths = sorted({int(row["depth_cm"]) for row in readings})
    theta = torch.full((len(dates), len(depths), len(plots)), math.nan, dtype=torch.float64)
    for row in readings:
        when = dates.index(dt.date.fromisoformat(row["date"]))
        theta[when, depths.index(int(row["depth_cm"])), index[row["plot"]]] = float(row["theta"])
    return Maricopa(
        plots=plots,
        position=torch.stack([east, north], dim=1),
        lower_limit=torch.stack([column(sites, f"SLLL{name}") for name in layers], dim=1),
        upper_limit=torch.stack([column(sites, f"SDUL{name}") for name in layers], dim=1),
        dates=dates,
        depths=torch.tensor(depths, dtype=torch.float64) / 100,
        theta=theta,
        days=days,
        reference_et=column(weather, "etref_mm") * MM,
        rain=column(weather, "rain_mm") * MM,
        rh_min=column(weather, "rhmin_pct"),
        wind_2m=wind_at_2m(column(weather, "wind_m_s"), height=3.0),
        irrigation=irrigation,
    )


USCRN_DEPTHS = (0.05, 0.10, 0.20, 0.50, 1.00)  # m


@dataclass(frozen=True)
class Uscrn:
    """Daily records of stations of the U.S. Climate Reference Network. s stations, D days, 5 depths."""

    stations: list[str]
    days: list[dt.date]
    rain: Tensor  # [D, s] m/d, NaN where missing
    reference_et: Tensor  # [D, s] m/d, Hargreaves-Samani, NaN where missing
    temperature: Tensor  # [D, s] C, daily mean, NaN where missing
    theta: Tensor  # [D, 5, s] daily mean water content at 5, 10, 20, 50, 100 cm, NaN where missing


def load_uscrn(stations: list[str]) -> Uscrn:
    """Read the named stations of `uscrn-soil-moisture`, the whole of 2020.

    Raises:
        ValueError: a station is not in the file.
    """
    rows = read_csv("uscrn-soil-moisture/uscrn_daily_2020_8stations.csv")
    known = sorted({row["station"] for row in rows})
    unknown = [name for name in stations if name not in known]
    if unknown:
        raise ValueError(f"stations {unknown} are not in the file; it holds {known}")
    days = sorted({dt.date.fromisoformat(row["date"]) for row in rows})
    tables = [[row for row in rows if row["station"] == name] for name in stations]
    if any([dt.date.fromisoformat(row["date"]) for row in table] != days for table in tables):
        raise ValueError("uscrn-soil-moisture is not daily without gaps for every station")
    names = [f"theta_{round(100 * depth)}cm" for depth in USCRN_DEPTHS]
    theta = [torch.stack([column(table, name) for name in names], dim=1) for table in tables]
    return Uscrn(
        stations=list(stations),
        days=days,
        rain=torch.stack([column(table, "precip_mm") for table in tables], dim=1) * MM,
        reference_et=torch.stack([column(table, "et0_hargreaves_mm") for table in tables], dim=1) * MM,
        temperature=torch.stack([column(table, "tmean_C") for table in tables], dim=1),
        theta=torch.stack(theta, dim=2),
    )
