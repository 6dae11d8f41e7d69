"""The demonstrations on tracers: bromide through a column, the plume of Cape Cod, deuterium in a plot."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from dgpde.demos import bromide, capecod, run_demo, watson
from dgpde.demos.least_squares import Prior, least_squares, rows
from dgpde.demos.tables import MM


def exponential(p: torch.Tensor) -> torch.Tensor:
    """a exp(-b t) at t = 0, 1, 2 ..., the value i from the column i of p."""
    return p[0] * torch.exp(-p[1] * torch.arange(p.shape[1]))


def test_rows_are_the_jacobian() -> None:
    p = torch.tensor([2.0, 0.3], dtype=torch.float64)
    values, slopes = rows(exponential, p, 7)
    t = torch.arange(7).double()
    torch.testing.assert_close(values, 2.0 * torch.exp(-0.3 * t))
    torch.testing.assert_close(slopes, torch.stack([torch.exp(-0.3 * t), -2.0 * t * torch.exp(-0.3 * t)], 1))


def test_least_squares_finds_what_made_the_data() -> None:
    truth = torch.tensor([2.0, 0.3], dtype=torch.float64)
    noise = 0.01 * torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    measured = exponential(truth[:, None].expand(-1, 400)) + noise

    def misfits(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, slopes = rows(exponential, p, 400)
        return (values - measured) / 0.01, slopes / 0.01

    start = torch.tensor([0.5, 1.0], dtype=torch.float64)
    found = least_squares(misfits, start)
    error = found.covariance().diagonal().sqrt()
    assert bool(((found.p - truth).abs() < 3.0 * error).all())
    # independent misfits: drawing blocks of them anew gives the same covariance, to the noise of their few large ones
    blocks = found.block_bootstrap([400], 5).diagonal().sqrt()
    assert bool(((blocks / error - 1.0).abs() < 0.35).all())
    # a prior far narrower than the data holds the parameters
    held = least_squares(misfits, start, Prior(start, torch.full((2,), 1e-9, dtype=torch.float64)))
    torch.testing.assert_close(held.p, start, rtol=0, atol=1e-6)


def test_bromide_is_read_whole() -> None:
    readings = bromide.load(every=1)
    assert readings.groups[0] == 213
    # the README says 10 mm/h; the gauge's own mean over the steady hours is half a percent more
    assert readings.irrigation / bromide.MM_H == pytest.approx(10.05, abs=0.01)
    intervals, rate = readings.drainage
    assert bool((rate[intervals < 9] == 0.0).all())  # nothing drained in the first twenty minutes
    assert rate.max() < 12.0


def test_bromide_gives_the_published_dispersion() -> None:
    """Every sixteenth reading on cells of 1 cm: theta 0.545 and 9 mm were found by others with a closed form.

    Backward Euler with steps of 4 min and cells of 1 cm disperse by 0.7 mm more.
    """
    readings = bromide.load(every=16, cells=30, dt_max=240.0)
    found = bromide.fit(readings, immobile=False, rounds=14)
    assert found.theta == pytest.approx(bromide.PUBLISHED[0], abs=0.006)
    assert found.estimate.p[4].exp() == pytest.approx(bromide.PUBLISHED[1], abs=1.5e-3)
    assert found.bromide < 0.017
    # the misfits come in runs, so that their errors are larger than independent ones would say
    assert found.error[-1] < found.error_blocks[-1] < 0.01


def test_one_backward_through_transport_and_flow_is_the_slope() -> None:
    """Central differences of the fit's own values, parameter by parameter."""
    readings = bromide.load(every=40, cells=20, dt_max=600.0)
    p = torch.tensor(bromide.PRIOR_MEAN, dtype=torch.float64)
    p[5] = math.log(0.1)
    _, slopes = readings.misfits(p)
    step = 1e-4
    for k in range(p.numel()):
        ends = []
        for sign in (1.0, -1.0):
            there = p.clone()
            there[k] += sign * step
            with torch.no_grad():
                ends.append(readings.values(there[:, None].expand(-1, sum(readings.groups))))
        measured = (ends[0] - ends[1]) / (2.0 * step)
        # accepted steps follow the truncation error, hence differ a little from one run to the other
        scale = float(measured.abs().max())
        assert float((slopes[:, k] - measured).abs().max()) < 0.02 * scale, (
            *bromide.PLAIN,
            *bromide.STANDING,
        )[k]


@pytest.mark.slow
def test_bromide_from_end_to_end(tmp_path: Path) -> None:
    """Water that stands still explains the tail that dispersion cannot."""
    pytest.importorskip("matplotlib")
    folder = run_demo("bromide", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"bromide.csv", "bromide.h5", "bromide.png"}
    with (folder / "bromide.csv").open() as file:
        rows = {(row["model"], row["parameter"]): float(row["value"]) for row in csv.DictReader(file)}
    plain, standing = ("all water flows", "with immobile water")
    assert rows[plain, "theta"] == pytest.approx(0.545, abs=0.004)
    assert math.exp(rows[plain, "ln dispersivity"]) == pytest.approx(0.009, abs=5e-4)
    assert rows[plain, "rmse c/c0"] == pytest.approx(0.015, abs=5e-4)
    assert rows[standing, "rmse c/c0"] < 0.005


def test_cape_cod_is_that_of_a_gaussian() -> None:
    """v = 0.42 m/d and A_L = 1.1 m follow both dates, as the data's README has it; cells of 2 m, steps of 0.4 d.

    The steps disperse by v dt/2, 0.08 m, by which the fit's A_L is less.
    """
    site = capecod.load()
    assert site.day.numel() == 29
    assert site.days == [203.0, 461.0]
    found = capecod.fit(site, cell=2.0, dt=0.4)
    v, a = found.p.exp().tolist()
    assert v == pytest.approx(capecod.PUBLISHED[0], rel=0.025)
    assert a == pytest.approx(capecod.PUBLISHED[1], abs=0.15)
    assert found.misfit.square().mean().sqrt() < 0.05
    # the line itself against the normal distribution: variance 2 A_L x
    p = torch.tensor([[0.42], [1.1]], dtype=torch.float64).log()
    passed = capecod.mass_along(site, p, 2.0, 0.4)[1, :, 0]
    x = 2.0 * torch.arange(passed.numel()) - capecod.BEFORE
    scale = math.sqrt(2.0 * (1.1 + 0.21 * 0.4) * 0.42 * 203.0)
    exact = 0.5 * (1.0 + torch.erf((x - 0.42 * 203.0) / scale / math.sqrt(2.0)))
    # central differences have a third moment of v t h^2, a skewness of 0.12 here, 0.008 in the sum
    assert float((passed - exact).abs().max()) < 0.012


def test_random_fields_have_their_covariance() -> None:
    fields = [capecod.random_field((40, 60), 0.65, 0.24, 2.6, seed) for seed in range(60)]
    values = torch.stack(fields)
    # 60 fields of some 60 correlation areas each: about 2 % and, of the covariances, 4 % of the variance
    assert float(values.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(values.square().mean()) == pytest.approx(0.24, rel=0.05)
    for axis in (1, 2):
        size = values.shape[axis]
        pairs = values.narrow(axis, 0, size - 4) * values.narrow(axis, 4, size - 4)
        assert float(pairs.mean()) == pytest.approx(0.24 * math.exp(-1.0), abs=0.015)
    assert torch.equal(fields[3], capecod.random_field((40, 60), 0.65, 0.24, 2.6, 3))
    with pytest.raises(ValueError, match="^shape"):
        capecod.random_field((3, 3), 0.1, 0.24, 100.0, 0)


def test_a_plume_spreads_by_the_variance_of_ln_k() -> None:
    """No variance, no dispersivity but its own; with it, some."""
    site = capecod.load()
    even = capecod.spread(site, 0, size=(3.0, 60.0), path=40.0, variance=0.0)
    # TVD sharpens at first what is wide of a few cells
    assert even.dispersivity(20.0) == pytest.approx(0.0, abs=0.02)
    assert even.velocity == pytest.approx(site.velocity, rel=1e-2)
    uneven = capecod.spread(site, 0, size=(20.0, 60.0), path=40.0)
    assert 0.15 < uneven.dispersivity(20.0) < 1.5


@pytest.mark.slow
def test_cape_cod_from_end_to_end(tmp_path: Path) -> None:
    """Fields of the site's statistics spread plumes as first-order theory says, variance times length.

    That is 0.62 m, two thirds of the 0.96 m that were measured.
    """
    pytest.importorskip("matplotlib")
    folder = run_demo("capecod", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"capecod.csv", "capecod.png"}
    with (folder / "capecod.csv").open() as file:
        values = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    assert values["velocity m/d"] == pytest.approx(0.42, rel=0.025)
    assert values["dispersivity m"] == pytest.approx(1.1, abs=0.1)
    assert values["rmse"] < values["rmse, published"]
    each = [value for what, value in values.items() if "field" in what]
    # six fields, which differ by 0.17 m
    assert sum(each) / len(each) == pytest.approx(0.62, abs=0.15)


def test_watson_is_read_whole() -> None:
    data = watson.load()
    assert data.inflow == (393.36, -35.23)
    # ten cores of 69 samples, less the two that are left out
    assert (len(data.before), len(data.samples)) == (15, 52)
    assert {sample.core for sample in data.samples} == set(watson.DATES)
    assert data.theta.shape == (30, 4)
    assert bool(torch.isfinite(data.theta).all())
    # 10 cm: dry, then wet an hour after the second irrigation began
    assert data.theta0.tolist() == pytest.approx([0.0908, 0.0825, 0.1052, 0.1746], abs=1e-4)
    assert float(data.theta[5, 0]) == pytest.approx(0.2645, abs=1e-4)


def test_watson_irrigates_what_was_measured() -> None:
    """55 mm and no more, half of which the prior's share lets in; nothing lost of the isotope but what evaporates."""
    model = watson.Model(watson.load())
    assert float((model.rain * model.times.diff()).sum()) == pytest.approx(55.0 * MM, rel=1e-12)
    p = torch.tensor(watson.PRIOR_MEAN, dtype=torch.float64)
    with torch.no_grad():
        run, carried = model.simulate(p[:, None])
    dt = model.times.diff()
    evaporated = float((run.evaporation[:, 0] * dt).sum())  # type: ignore[index]
    assert 0.0 < evaporated < 19.0 * 3.0 * MM
    gain = float((run.boundary_flux["top"][:, 0] * dt).sum())
    assert gain + evaporated == pytest.approx(27.5 * MM, rel=1e-9)
    assert float(carried.mass_balance_error) < 1e-10
    # between the coldest water that was there and the heaviest that came
    assert float(carried.concentration.min()) > min(sample.d2h for sample in model.data.before) - 1e-6
    assert float(carried.concentration.max()) < model.data.inflow[0] + 1e-6


def test_watson_learns_from_probes_and_cores() -> None:
    """Three steps on both: better than never having irrigated, by far, and than the mean of each probe."""
    model = watson.Model(watson.load(), dt_max=6.0 * watson.HOUR)
    early = [sample for sample in model.data.samples if sample.core in watson.EARLY]
    mean, spread = (torch.tensor(x, dtype=torch.float64) for x in (watson.PRIOR_MEAN, watson.PRIOR_SPREAD))
    found = model.fit(mean, Prior(mean, spread), True, early, 3)
    moisture, isotopes = watson.score(model, {"prior": mean, "fitted": found.p})
    assert moisture.rows["fitted"][0] < min(
        moisture.rows["prior"][0], moisture.rows["mean of all readings"][0]
    )
    assert isotopes.rows["fitted"][-1] < 0.5 * isotopes.rows["cores before the irrigations"][-1]
    assert watson.interpolated(
        torch.tensor([0.0, 1.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 4.0])
    ).tolist() == [1.0, 2.0, 4.0]


@pytest.mark.slow
def test_watson_from_end_to_end(tmp_path: Path) -> None:
    """The withheld cores: no better than what stood there on 14 September, far better than before."""
    pytest.importorskip("matplotlib")
    folder = run_demo("watson", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"watson.png", "rmse_water.csv", "rmse_d2h.csv"}
    with (folder / "rmse_d2h.csv").open() as file:
        late = {row["method"]: float(row["late"]) for row in csv.DictReader(file)}
    assert late["both together"] < 30.0 < late["mean of the early cores"]
    assert late["both together"] < 0.4 * late["cores before the irrigations"]
