"""Sections and domains that are written as they are computed, stopped, and gone on with."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from test_field_io import SHAPES, model, same_field

import dgpde
from dgpde import Flux, Grid, Richards, Series, Solution, SolveError, SolveOptions
from dgpde.io import hdf5, stream
from dgpde.linear import LinearSolver, StencilMatrix

T = 7
TIMES = [0.0, 900.0, 1800.0, 7200.0, 9000.0, 12600.0, 16200.0, 18000.0]
OPTIONS = SolveOptions(dt_initial=900.0, time_error=2e-2)  # few steps, of varying length
RAIN = torch.tensor([2e-6, 0.0, 3e-5, 1e-6, 0.0, 5e-6, 0.0], dtype=torch.float64)


def rained(shape: tuple[int, ...]) -> Richards:
    """The model of the other files under rain that varies, with a well that does too."""
    still = model(shape)
    side = torch.linspace(0.5, 1.5, shape[-1]).double()
    surface = dgpde.Atmosphere(Series(RAIN.reshape(-1, *[1] * (len(shape) - 1)) * side), 1e-8)
    wells = [dgpde.Well([0] * len(shape), Series(-1e-8 * RAIN / RAIN.max()))]
    sides = {"top": surface, "west": dgpde.HydraulicHead(Series(-1.9 + 1e3 * RAIN))}
    return Richards(still.grid, still.soil, sides, wells, specific_storage=1e-4)


@pytest.mark.parametrize("save", ["all", "last", [0, 2, 5]], ids=str)
@pytest.mark.parametrize(
    ("shape", "block"), [*((shape, 3) for shape in SHAPES), ((4, 3, 5), 1), ((5, 2), 50)]
)
def test_stream_is_the_run(tmp_path: Path, shape: tuple[int, ...], block: int, save: str | list[int]) -> None:
    flow = rained(shape)
    run = flow.solve(-0.5, TIMES, OPTIONS, save=save)
    path = flow.stream(tmp_path / "run.h5", -0.5, TIMES, OPTIONS, save=save, block=block)
    back = Solution.from_hdf5(path)
    # the sums of the balance are rounded in another order
    torch.testing.assert_close(back.water_moved, run.water_moved, rtol=1e-13, atol=0.0)
    assert float(back.mass_balance_error) < 1e-9
    back.water_moved, back.mass_balance_error = run.water_moved, run.mass_balance_error
    same_field(run, back)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.h5", "run.xdmf"]
    # what stands beside the file is what to_xdmf writes
    run.to_xdmf(tmp_path / "again.xdmf")
    text = (tmp_path / "again.xdmf").read_text().replace("again.h5", "run.h5")
    assert (tmp_path / "run.xdmf").read_text() == text


def test_some_cells(tmp_path: Path) -> None:
    flow, cells = rained((4, 3, 5)), [[0, 0, 0], [2, 1, 3]]
    run = flow.solve(-0.5, TIMES, OPTIONS, save_cells=cells)
    path = flow.stream(tmp_path / "run.h5", -0.5, TIMES, OPTIONS, save_cells=cells, block=2)
    back = Solution.from_hdf5(path)
    assert torch.equal(back.psi, run.psi)
    assert torch.equal(back.saturation, run.saturation)
    assert back.cells is not None
    assert run.cells is not None
    assert torch.equal(back.cells, run.cells)
    assert (
        ElementTree.parse(tmp_path / "run.xdmf").find(".//Topology[@TopologyType='Polyvertex']") is not None
    )


def test_columns_of_the_field_engine(tmp_path: Path) -> None:
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    flow = Richards(Grid.columns(3, [0.2] * 4), soil, {"top": Flux(Series(RAIN))}, engine="field")
    path = flow.stream(tmp_path / "run.h5", -1.0, TIMES, OPTIONS, block=2)
    assert torch.equal(Solution.from_hdf5(path).psi, flow.solve(-1.0, TIMES, OPTIONS).psi)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


class Killed(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("moment", ["block", "report", "join"])
def test_resume_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, after: int
) -> None:
    flow, calls = rained((4, 3, 5)), 0
    cells = [[0, 0, 0], [2, 1, 3]] if after == 1 else None
    whole = flow.stream(tmp_path / "whole.h5", -0.5, TIMES, OPTIONS, save_cells=cells, block=2)

    def dying(number: int, original: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > number:
                raise Killed
            return original(*args, **kwargs)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        if moment == "block":
            patch.setattr(stream, "_write_block", dying(after, stream._write_block))
        elif moment == "report":
            patch.setattr(hdf5, "put_report", dying(after, hdf5.put_report))
        else:
            patch.setattr(stream, "write_view", dying(0, stream.write_view))
        with pytest.raises(Killed):
            flow.stream(tmp_path / "run.h5", -0.5, TIMES, OPTIONS, save_cells=cells, block=2)
    assert not (tmp_path / "run.h5").exists()
    path = rained((4, 3, 5)).resume(tmp_path / "run.h5")
    same_field(Solution.from_hdf5(whole), Solution.from_hdf5(path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "run.h5",
        "run.xdmf",
        "whole.h5",
        "whole.xdmf",
    ]
    assert flow.resume(path) == path


def hard() -> StencilMatrix:
    """Weak couplings that decide the answer between strong ones."""
    shape = (2, 9, 8)
    face = 10.0 ** (12.0 * torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    c = torch.zeros(7, *shape, dtype=torch.float64)
    c[6, ..., :-1] = -face[..., :-1]
    c[5, ..., 1:] = -face[..., :-1]
    c[0] = 1.0 - c[1:].sum(0)
    return StencilMatrix(c, symmetric=True)


def test_a_solver_begins_where_another_ended() -> None:
    matrix, first = hard(), LinearSolver(tolerance=1e-6)
    rhs = torch.ones(matrix.shape, dtype=torch.float64)
    first.setup(matrix)
    first.solve(rhs)
    assert first.precise
    second = LinearSolver(tolerance=1e-6)
    assert not second.precise
    second.begin_precise()
    for solver in (first, second):
        solver.setup(matrix)
        assert solver.precise
    assert torch.equal(first.solve(rhs).x, second.solve(rhs).x)


def failing() -> Richards:
    """A flux is forced into a closed pore space until it is full."""
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 2e-4)
    q = torch.tensor([0.0, 0.0, 1e-4, 1e-4, 1e-4, 0.0, 0.0], dtype=torch.float64)
    return Richards(Grid((4, 3), (0.1, 1.0)), soil, {"top": Flux(Series(q))})


@pytest.mark.parametrize("block", [1, 2, 7])
def test_a_run_that_fails(tmp_path: Path, block: int) -> None:
    options, path = SolveOptions(dt_min=100.0, dt_initial=900.0), tmp_path / "run.h5"
    ends = SolveOptions(dt_min=100.0, dt_initial=900.0, on_failure="return")
    run = failing().solve(-1.0, TIMES, ends)
    assert int(run.status) != 0  # full pores take no more water, however high the head
    with pytest.raises(SolveError, match="the run could not go on at"):
        failing().stream(path, -1.0, TIMES, options, block=block)
    failing().resume(path, ends)
    back = Solution.from_hdf5(path)
    assert int(back.status) == int(run.status)
    assert torch.equal(back.failed_time, run.failed_time)
    for name in ("psi", "theta", "ponding", "runoff"):
        first, second = getattr(run, name), getattr(back, name)
        torch.testing.assert_close(first, second, rtol=0.0, atol=0.0, equal_nan=True)
    assert bool(back.psi[-1].isnan().all())


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow, path = rained((5, 2)), tmp_path / "run.h5"
    with pytest.raises(ValueError, match="^path .*XDMF"):
        flow.stream(tmp_path / "run.xdmf", -0.5, TIMES)
    psi0 = torch.full((5, 2), -0.5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="^psi0 requires a gradient"):
        flow.stream(path, psi0, TIMES)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_join", lambda *_: None)
        flow.stream(path, -0.5, TIMES, block=5)
    with pytest.raises(ValueError, match=r"^path .*another model"):
        model((5, 2)).resume(path)
    flow.resume(path)
    columns = Richards(Grid.columns(2, [0.1] * 3), flow.soil.__class__(0.06, 0.4, 7.5, 1.9, 1e-5))
    with pytest.raises(ValueError, match="^save_cells"):
        columns.stream(tmp_path / "columns.h5", -1.0, TIMES, save_cells=[[0, 0]])


@pytest.mark.parametrize("kind", ["solve", "stream"])
def test_the_bar_says_how_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr("dgpde.progress.PAUSE", 0.0)  # every step
    flow = rained((5, 2))
    if kind == "solve":
        flow.solve(-0.5, TIMES, OPTIONS, progress=True)
    else:
        flow.stream(tmp_path / "run.h5", -0.5, TIMES, OPTIONS, block=2, progress=True)
    lines = capsys.readouterr().err.split("\r")
    last = lines[-1]
    assert last.endswith("\n")
    assert "interval 7 of 7, t = 5 h, dt = " in last
    assert re.search(r"\d iterations a step, balance \d", last)
    assert last.startswith("[" + 40 * "#" + "]")
    assert any(re.search(r"interval 3 of 7, t = .*, 0:00:\d\d left", line) for line in lines)
