"""The demonstrations: their data, their crop, their soils, and a small training run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from pathlib import Path

import pytest
import torch

import dgpde
from dgpde.demos import cotton, crop, fit, grassland, run_demo, score, soils, tables, uscrn
from dgpde.demos import maricopa as trainers


@pytest.fixture(scope="module")
def maricopa() -> tables.Maricopa:
    return tables.load_maricopa()


def test_maricopa_is_read_whole(maricopa: tables.Maricopa) -> None:
    assert len(maricopa.plots) == 64
    assert len(maricopa.days) == 196
    assert maricopa.theta.shape == (21, 10, 64)
    # Known gaps: 35 plots without readings on 9 July, one depth of one profile on 18 June.
    assert int((~torch.isnan(maricopa.theta)).sum()) == 13089
    july = maricopa.dates.index(dt.date(2018, 7, 9))
    assert int(torch.isnan(maricopa.theta[july]).all(dim=0).sum()) == 35
    assert not torch.isnan(maricopa.theta[0]).any()
    for name in ("reference_et", "rain", "rh_min", "wind_2m", "irrigation", "lower_limit", "upper_limit"):
        assert torch.isfinite(getattr(maricopa, name)).all(), name
    assert (maricopa.lower_limit < maricopa.upper_limit).all()
    assert maricopa.position.abs().max() < 200.0


def test_season_balance_is_that_of_the_readme(maricopa: tables.Maricopa) -> None:
    season = slice(maricopa.day(dt.date(2018, 5, 4)), maricopa.day(dt.date(2018, 9, 24)) + 1)
    # Millimetres, as published: irrigation 780, rain 86, storage loss 88, short reference ET 1,115.
    assert maricopa.irrigation[season].sum(dim=0).mean() * 1e3 == pytest.approx(780, abs=1)
    assert maricopa.rain[season].sum() * 1e3 == pytest.approx(86, abs=0.5)
    assert maricopa.reference_et[season].sum() * 1e3 == pytest.approx(1115, abs=8)
    stored = (maricopa.theta * 0.2).sum(dim=1)
    assert (stored[0] - stored[-1]).mean() * 1e3 == pytest.approx(88, abs=1)


def test_uscrn_is_read_in_metres_a_day() -> None:
    data = tables.load_uscrn(["AZ_Elgin_5_S", "KY_Versailles_3_NNW"])
    assert data.theta.shape == (366, 5, 2)
    assert torch.nansum(data.rain[:, 0]) * 1e3 == pytest.approx(320, abs=1)
    with pytest.raises(ValueError, match="^stations"):
        tables.load_uscrn(["Nowhere"])


def test_kcb_curve_has_the_published_stages() -> None:
    day = torch.tensor(
        [-3.0, 0.0, 31.0, 32.0, 55.5, 79.0, 115.0, 116.0, 133.5, 151.0, 200.0], dtype=torch.float64
    )
    expected = [0.15, 0.15, 0.15, 0.15, 0.64, 1.13, 1.13, 1.13, 0.825, 0.52, 0.52]
    curve = crop.kcb_curve(day, (0.15, 1.13, 0.52), (32, 47, 37, 35))
    assert curve.tolist() == pytest.approx(expected, abs=1e-12)


def test_evaporation_and_transpiration_stay_below_their_maximum() -> None:
    kcb = torch.linspace(0.15, 1.3, 24, dtype=torch.float64)
    height = 1.2 * kcb / 1.13
    kc_max = crop.kc_maximum(kcb, torch.tensor(15.0), torch.tensor(3.0), height)
    ke = crop.evaporation_coefficient(kcb, kc_max, height)
    assert (ke > 0).all()
    assert (kcb + ke <= kc_max + 1e-12).all()
    assert (ke[1:] <= ke[:-1] + 1e-12).all()


@pytest.mark.parametrize("shape", [0.0, 1.0, 2.5])
def test_root_density_integrates_to_one_with_a_gradient(shape: float) -> None:
    bottom = torch.tensor([0.1, 0.3, 0.35, 1.0, 2.0], dtype=torch.float64)
    top = torch.tensor([0.0, 0.1, 0.3, 0.35, 1.0], dtype=torch.float64)
    depth = torch.tensor([0.18, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    exponent = torch.tensor(shape, dtype=torch.float64, requires_grad=True)
    density = crop.root_density(top, bottom, depth, exponent)
    assert (density * (bottom - top)).sum(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-14)
    assert (density >= 0).all()
    density[:, 0].sum().backward()
    assert depth.grad is not None
    assert torch.isfinite(depth.grad).all()
    assert exponent.grad is not None
    assert torch.isfinite(exponent.grad)


def test_triangular_roots_have_their_peak_where_they_should() -> None:
    edges = torch.linspace(0.0, 2.0, 201, dtype=torch.float64)
    depth = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    peak = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    density = crop.triangular_root_density(edges[:-1], edges[1:], depth, peak)
    assert (density.sum(dim=1) * 0.01).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    # The peaks are at 0.15 m and 0.30 m, on faces: either neighbour may hold the largest mean.
    for cell, face in zip(density.argmax(dim=1).tolist(), (15, 30), strict=True):
        assert cell in (face - 1, face)
    coarse = torch.tensor([0.0, 0.1, 0.4, 0.7, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda d, p: crop.triangular_root_density(coarse[:-1], coarse[1:], d, p), (depth, peak)
    )


def test_prior_is_the_catalogue() -> None:
    loam = soils.SoilPrior.from_catalogue(["Sandy Loam"])
    soil = loam.soil(torch.zeros(5, dtype=torch.float64))
    # Carsel and Parrish (1988): 0.065, 0.41, 0.075 1/cm, 1.89, 106.1 cm/d.
    expected = {"theta_r": 0.065, "theta_s": 0.41, "alpha": 7.5, "n": 1.89, "k_sat": 1.061 / 86400.0}
    for name, value in expected.items():
        assert soil[name].item() == pytest.approx(value, rel=1e-12), name
    with pytest.raises(ValueError, match="^texture"):
        soils.catalogue("Moon dust")


def test_head_of_moisture_inverts_van_genuchten() -> None:
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soil = soils.SoilPrior.from_catalogue(["Sandy Loam", "Sandy Clay Loam"]).soil(z)
    theta = soil["theta_r"] + 0.6 * (soil["theta_s"] - soil["theta_r"])
    psi = soils.head_of_moisture(theta, soil)
    held = dgpde.VanGenuchten(**soil, air_entry=soils.AIR_ENTRY).theta(psi)
    assert (held - theta).abs().max() < 1e-12


def test_errors_leave_out_missing_readings() -> None:
    observed = torch.tensor([0.1, math.nan, 0.3], dtype=torch.float64)
    assert score.rmse(torch.tensor([0.1, 5.0, 0.2], dtype=torch.float64), observed) == pytest.approx(
        math.sqrt(0.005)
    )
    table = score.ErrorTable(["a", "b"])
    table.add("prior", [0.1, math.nan])
    assert table.text().splitlines()[-1].split() == ["prior", "0.1000", "-"]


def test_unknown_site_is_refused() -> None:
    with pytest.raises(ValueError, match="^site"):
        run_demo("atlantis")


def test_split_is_a_partition_and_is_always_the_same() -> None:
    split = cotton.Split.draw(64, 21)
    assert sorted([*split.train_plots.tolist(), *split.new_plots.tolist()]) == list(range(64))
    # The first date is the initial profile, which is neither trained on nor predicted.
    assert [*split.train_dates.tolist(), *split.later_dates.tolist()] == list(range(1, 21))
    assert len(split.new_plots) == 12
    assert torch.equal(split.new_plots, cotton.Split.draw(64, 21).new_plots)


def small_cotton(data: tables.Maricopa) -> cotton.Cotton:
    """Four plots: three to train on, one withheld."""
    split = cotton.Split(
        torch.tensor([0, 20, 40]), torch.tensor([50]), torch.arange(1, 13), torch.arange(13, len(data.dates))
    )
    return cotton.Cotton(data, split, time_error=2e-2)


def test_grid_layers_and_readings_fit_together(maricopa: tables.Maricopa) -> None:
    model = small_cotton(maricopa)
    assert model.dz.sum().item() == pytest.approx(2.0, abs=1e-12)
    assert model.reading_weights.sum(dim=1).tolist() == pytest.approx([1.0] * 10, abs=1e-12)
    evaporation, transpiration, _ = model.demand()
    days = model.n_days
    # Demand is that of the daytime half of each day: no less and no more than the daily totals.
    assert evaporation[1::2].abs().sum() == 0.0
    assert transpiration[1::2].abs().sum() == 0.0
    kcb = crop.kcb_curve(torch.arange(14.0, 14.0 + days, dtype=torch.float64), cotton.KCB, cotton.STAGES)
    reference = maricopa.reference_et[model.first : model.first + days]
    total = (transpiration.detach() * 43200.0).sum()
    assert total.item() == pytest.approx((kcb * reference).sum().item(), rel=1e-12)


def test_withheld_plots_get_no_offset(maricopa: tables.Maricopa) -> None:
    model = small_cotton(maricopa)
    with pytest.raises(ValueError, match="^plots"):
        model.coordinates(torch.tensor([50]), own=True)


def test_the_initial_profile_is_the_measured_one_whatever_the_soil(maricopa: tables.Maricopa) -> None:
    model = small_cotton(maricopa)
    plots = torch.tensor([0, 20, 40, 50])
    z = 0.5 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        prediction = model.predict(plots, z)
    assert (prediction.theta[0] - maricopa.theta[0][:, plots]).abs().max() < 1e-9
    assert prediction.run.mass_balance_error.max() < 1e-9


def test_two_iterations_learn_something(maricopa: tables.Maricopa) -> None:
    torch.manual_seed(0)
    model = small_cotton(maricopa)
    trainer = trainers.Trainer(model)
    groups = [{"params": list(model.parameters()), "lr": 0.05}]
    history = fit.fit(trainer, groups, 2, "test")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.crop.grad is not None
    assert (model.crop.grad != 0.0).all()
    loss, _ = trainer()
    assert history[0]["loss"] > history[1]["loss"] > loss.item()


def test_uscrn_has_a_gradient_for_every_soil_and_plant() -> None:
    model = grassland.Grassland(tables.load_uscrn(list(grassland.TEXTURES)), time_error=2e-2)
    assert model.dz.sum().item() == pytest.approx(1.5, abs=1e-12)
    # The moisture at a probe, from cells that were set from the probes, is a weighted mean of the probes.
    assert (model.probe_weights.sum(dim=1) - 1.0).abs().max() < 1e-12
    assert (model.cell_weights.sum(dim=1) - 1.0).abs().max() < 1e-12
    loss, numbers = uscrn.loss_of(model)
    loss.backward()
    assert 0.0 < numbers["rmse"] < 0.1
    for parameter in (model.z, model.vegetation):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0.0).all()


def test_a_column_that_is_given_up_has_no_say(maricopa: tables.Maricopa) -> None:
    model = small_cotton(maricopa)
    # Eleven steps in half a day are too few for one of the three plots and enough for the others.
    model.options = dataclasses.replace(model.options, max_steps=11)
    loss, numbers = trainers.Trainer(model)()
    loss.backward()
    assert 0 < numbers["columns given up"] < 6
    assert model.offset.grad is not None
    assert torch.isfinite(model.offset.grad).all()
    by_plot = model.offset.grad.abs().amax(dim=(1, 2))
    assert (by_plot == 0.0).any()
    assert (by_plot > 0.0).any()


@pytest.mark.slow
def test_uscrn_from_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = run_demo("uscrn", tmp_path / "out", iterations=1)
    names = {path.name for path in folder.iterdir()}
    assert names == {"rmse.csv", "uscrn.h5", "series.png", "retention.png", "balance.png"}
    run = dgpde.Solution.from_hdf5(folder / "uscrn.h5")
    assert run.psi.shape[2] == len(grassland.TEXTURES)


@pytest.mark.slow
def test_maricopa_from_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = run_demo("maricopa", tmp_path, iterations=2)
    figures = {"profiles.png", "series.png", "retention.png", "balance.png", "errors.png", "field.png"}
    assert {path.name for path in folder.iterdir()} == {"rmse.csv", "maricopa.h5", *figures}
