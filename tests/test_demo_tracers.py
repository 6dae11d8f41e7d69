"""The demonstrations on tracers: bromide through a column, the plume of Cape Cod, deuterium in a plot."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from dgpde.demos import bromide, run_demo
from dgpde.demos.least_squares import Prior, least_squares, rows


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
    """Every eighth reading on cells of 1 cm: theta 0.545 and 9 mm were found by others with a closed form.

    Backward Euler with steps of 4 min and cells of 1 cm disperse by 0.7 mm more.
    """
    readings = bromide.load(every=8, cells=30, dt_max=240.0)
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
    assert {path.name for path in folder.iterdir()} == {"bromide.csv", "bromide.png"}
    with (folder / "bromide.csv").open() as file:
        rows = {(row["model"], row["parameter"]): float(row["value"]) for row in csv.DictReader(file)}
    plain, standing = ("all water flows", "with immobile water")
    assert rows[plain, "theta"] == pytest.approx(0.545, abs=0.004)
    assert math.exp(rows[plain, "ln dispersivity"]) == pytest.approx(0.009, abs=5e-4)
    assert rows[plain, "rmse c/c0"] == pytest.approx(0.015, abs=5e-4)
    assert rows[standing, "rmse c/c0"] < 0.005
