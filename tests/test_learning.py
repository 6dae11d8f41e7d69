"""The experiments of benchmarks/learning, each once in the small: that they run, and that learning learns."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.learning import (
    data_efficiency,
    evidence,
    identifiability,
    root_stress,
    soil_curves,
    stations,
    steady_profile,
    unsoda,
)
from benchmarks.learning.optimise import minimise
from benchmarks.learning.record import spread
from benchmarks.learning.report import with_results
from benchmarks.learning.weather import DAY, rain_and_evaporation
from benchmarks.measure import ROOT


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    """[n, p] -> [n], least (0) where every number is 1."""
    return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1.0 - x[:, :-1]).square()).sum(1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_minimise_finds_the_minimum_of_every_row(n: int) -> None:
    start = torch.randn(n, 6, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    found = minimise(rosenbrock, start, 300)
    # quadratic convergence near the minimum: round-off is reached when the minimum is; 4 is the other minimum's value
    assert bool(((found.loss < 1e-12) | ((found.loss - 4.0).abs() < 0.2)).all())
    assert found.loss.shape == (n,)


def test_minimise_rows_do_not_see_each_other() -> None:
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    together = minimise(rosenbrock, start, 20).x
    alone = torch.cat([minimise(rosenbrock, row[None], 20).x for row in start])
    # sums over rows of three or of one differ by round-off, which twenty steps of a stiff problem multiply
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_minimise_takes_no_step_into_what_is_not_finite() -> None:
    def walled(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0.0, x[:, 0] - torch.log(x[:, 0].clamp(min=1e-300)), torch.nan)

    found = minimise(walled, torch.full((2, 1), 0.05, dtype=torch.float64), 60)
    # the minimum of x - ln x is at 1; the loss is flat to 1e-10 within 1e-5 of it
    torch.testing.assert_close(found.x, torch.ones_like(found.x), rtol=0, atol=1e-5)


def test_minimise_refuses_a_start_that_fails() -> None:
    with pytest.raises(RuntimeError, match="loss at the start"):
        minimise(lambda x: x.sum(1) * math.nan, torch.zeros(1, 2, dtype=torch.float64), 3)


def test_weather_has_the_mean_it_says() -> None:
    rain, demand = rain_and_evaporation(20_000, seed=0, per_day=2, wet=0.25, depth=0.01, demand=0.003)
    assert rain.shape == demand.shape == (40_000,)
    # 5,000 wet days of an exponential depth: the sum has a standard deviation of 2 %
    assert abs(rain.sum().item() * DAY / 2 / (20_000 * 0.25 * 0.01) - 1.0) < 0.08
    assert bool((demand > 0.0).all())


def test_steady_profile_learns() -> None:
    found = steady_profile.learn("exact", range(2), evaluations=(25, 35))
    # a start is wrong by 50 % or so
    assert all(row["mean K error %"] < 5.0 for row in found.rows)


@pytest.mark.parametrize("n", [1, 3])
def test_minimise_from_the_curvature_of_a_quadratic_is_newtons_step(n: int) -> None:
    draw = torch.Generator().manual_seed(n)
    root = torch.randn(n, 5, 5, generator=draw, dtype=torch.float64)
    curvature = root @ root.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    middle = 0.1 * torch.randn(n, 5, generator=draw, dtype=torch.float64)

    def bowl(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.einsum("ni,nij,nj->n", x - middle, curvature, x - middle)

    # the start, and the one step, which is shorter than the largest allowed
    found = minimise(bowl, torch.zeros(n, 5, dtype=torch.float64), 2, curvature=curvature)
    # round-off of a solve whose matrix has a condition number of up to 1e3
    torch.testing.assert_close(found.x, middle, rtol=1e-10, atol=1e-12)


def line(rows: int) -> tuple[evidence.Problem, torch.Tensor]:
    """Noisy readings of a rough series, smooth by second differences: linear, so that the evidence is known."""
    draw = torch.Generator().manual_seed(rows)
    place = torch.linspace(0.0, 1.0, 30, dtype=torch.float64)
    readings = 3.0 * torch.sin(6.0 * place) + torch.randn(rows, 30, generator=draw, dtype=torch.float64)

    def residuals(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        return x - readings[which]

    def bent(x: torch.Tensor) -> torch.Tensor:
        return x.diff(n=2, dim=1)[:, None]

    return evidence.Problem(residuals, bent, torch.zeros(30, dtype=torch.float64)), readings


def test_the_strength_makes_the_measurements_most_probable() -> None:
    problem, readings = line(2)
    start = torch.zeros(2, 30, dtype=torch.float64)
    found = evidence.fit(problem, start, torch.ones(2, 1, dtype=torch.float64), rounds=25, evaluations=8)
    bend = torch.eye(30, dtype=torch.float64).diff(n=2, dim=0)
    strengths = torch.logspace(-2, 4, 6001, dtype=torch.float64)
    # readings = a straight line that is free + what bends: the projection on the bends has covariance 1 + 1/strength
    flat = torch.linalg.qr(torch.stack([torch.ones(30), torch.arange(30.0)], 1).double(), mode="complete").Q[
        :, 2:
    ]
    size, axes = torch.linalg.eigh(flat.T @ bend.T @ bend @ flat)
    variance = 1.0 + 1.0 / (strengths[:, None] * size)
    for row in range(2):
        seen = (axes.T @ flat.T @ readings[row]).square()
        best = strengths[(variance.log() + seen / variance).sum(1).argmin()]
        # the grid's spacing is 0.23 %; 25 halvings of the distance
        assert abs(float(found.strengths[row, 0] / best) - 1.0) < 5e-3
        exact = torch.linalg.solve(torch.eye(30) + found.strengths[row] * bend.T @ bend, readings[row])
        # round-off of the solve, times its condition number
        torch.testing.assert_close(found.x[row], exact, rtol=1e-6, atol=1e-8)


def test_derivatives_are_those_of_autograd() -> None:
    x = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)

    def function(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows.prod(1), rows.square().sum(1)], 1)

    value, found = evidence.derivatives(function, x)
    exact = torch.autograd.functional.jacobian(lambda row: function(row[None])[0], x)
    torch.testing.assert_close(value, function(x[None])[0])
    torch.testing.assert_close(found, exact.T)


def small_columns(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Some days of record on 30 cells for `soil_curves` and what reads its numbers."""
    for module in (soil_curves, identifiability):
        monkeypatch.setattr(module, "TRAINED", days)
        monkeypatch.setattr(module, "CELLS", 30)
    for name, value in {"DAYS": days + 3, "FINE": 60, "ROUNDS": 2, "EACH": 4}.items():
        monkeypatch.setattr(soil_curves, name, value)
    monkeypatch.setattr(soil_curves, "STARTS", {"network": 1, "van Genuchten": 1})
    for cached in (soil_curves.weather, soil_curves.truth):
        cached.cache_clear()


def test_soil_curves_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    small_columns(monkeypatch, 5)
    monkeypatch.setattr(soil_curves, "EVALUATIONS", {"network": 20, "van Genuchten": 1})
    learned = soil_curves.learn("films", "network", range(2)).rows
    drawn = soil_curves.learn("films", "van Genuchten", range(2)).rows
    for old, new in zip(drawn, learned, strict=True):
        assert new["theta, 30 days after"] < old["theta, 30 days after"]
        assert new["log10 K, seen, expected"] > 0.0
    assert spread(drawn)
    plain = soil_curves.plain("films", 4, range(1), steps=100)
    assert all(math.isfinite(value) for value in plain[0].values())
    for cached in (soil_curves.weather, soil_curves.truth):
        cached.cache_clear()


def test_limits_at_steps_tell_more_of_the_dry_range(monkeypatch: pytest.MonkeyPatch) -> None:
    small_columns(monkeypatch, 20)  # without them the surface would not have come to its limit
    rows = {name: identifiability.row_of("films", design) for name, design in identifiability.DESIGNS.items()}
    assert all(value > 0.0 for row in rows.values() for value in row.values())
    assert rows["weather alone, hourly"]["log10 K, 0.1-1 m"] < rows["weather alone"]["log10 K, 0.1-1 m"]
    assert rows["stepped"]["theta, 1-10 m"] < rows["weather alone, hourly"]["theta, 1-10 m"]
    for cached in (soil_curves.weather, soil_curves.truth):
        cached.cache_clear()


def test_unsoda_splits_by_publication_and_learns() -> None:
    data = unsoda.samples()
    for publication in torch.unique(data.publication):
        assert torch.unique(data.fold[data.publication == publication]).numel() == 1
    train = data.fold != 0
    first = unsoda.total(unsoda.trained(data, train, seed=0, departs=True, steps=5))
    later = unsoda.total(unsoda.trained(data, train, seed=0, departs=True, steps=40))
    assert later < first


def test_data_efficiency_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_efficiency, "RECORD", 320)
    monkeypatch.setattr(data_efficiency, "FINE", 40)
    for cached in (data_efficiency.weather, data_efficiency.truth):
        cached.cache_clear()
    for way in ("hybrid", "calibrated physics"):
        values = data_efficiency.with_physics(way, 10, range(1), evaluations=4)
        row = data_efficiency.errors(values[0], 0)
        assert all(math.isfinite(value) for value in row.values())
    lstm = data_efficiency.errors(data_efficiency.recurrent(100, 0, steps=20), 0)
    # a year of water contents between 0.06 and 0.36: the mean alone is wrong by 0.1
    assert lstm["theta"] < 0.15
    for cached in (data_efficiency.weather, data_efficiency.truth):
        cached.cache_clear()


def test_root_stress_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_stress, "RECORD", 160)
    monkeypatch.setattr(root_stress, "DAYS", 400)
    monkeypatch.setattr(root_stress, "FINE", 40)
    for cached in (root_stress.weather, root_stress.truth):
        cached.cache_clear()
    untrained = root_stress.learn("Feddes of grass", range(2)).rows
    for way in ("learned response", "calibrated Feddes"):
        for old, new in zip(untrained, root_stress.learn(way, range(2), evaluations=25).rows, strict=True):
            assert new["a, where roots were"] < old["a, where roots were"]
    for cached in (root_stress.weather, root_stress.truth):
        cached.cache_clear()


def test_stations_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stations, "EVALUATIONS", 8)
    before = [row["later"] for row in stations.last_reading(30)]
    for way in ("hybrid", "calibrated physics"):
        record = stations.Record(20, stations.KEPT, (0, 2))
        (theta,) = stations.with_physics(way, [record], range(1))
        seen = theta[1:21][:, list(stations.KEPT)]
        given = record.observed()[1:][:, list(stations.KEPT)]
        error = (seen - given)[~torch.isnan(given)].square().mean().sqrt()
        assert theta.shape == stations.site().observed.shape and float(error) < 0.06
    lstm = stations.recurrent(stations.Record(30), 0, steps=20)
    rows = [
        stations.errors_of(lstm, stations.KEPT, s, stations.kinds_of_days()) for s in range(stations.SITES)
    ]
    assert all(0.0 < row["later"] < 0.3 for row in rows) and all(0.0 < error < 0.3 for error in before)


def test_figures_of_the_readme_are_those_of_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text()
    assert with_results(readme) == readme, "run: python -m benchmarks.learning.report --readme"
