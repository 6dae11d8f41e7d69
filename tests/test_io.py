"""Solutions on disk: round trips, runs that are streamed, killed and resumed, xarray."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import (
    Atmosphere,
    FreeDrainage,
    Grid,
    Richards,
    RootUptake,
    Series,
    Solution,
    SolveError,
    SolveOptions,
)
from dgpde.io.hdf5 import PER_COLUMN, TRAJECTORY

NZ, N, T = 8, 3, 12
TIMES = torch.arange(T + 1, dtype=torch.float64) * 3600.0
SERIES = ("top_flux", "bottom_flux", "runoff", "uptake", "evaporation")


def model(ponding_max: float = 0.002, k_sat: float = 2e-6) -> Richards:
    """Showers on three columns: ponding, run-off and drying all happen."""
    hours = torch.arange(T, dtype=torch.float64)
    rain = torch.where(hours % 5 == 1, 6e-6, 0.0)[:, None] * torch.tensor(
        [0.0, 1.0, 2.0], dtype=torch.float64
    )
    return Richards(
        Grid.columns(N, [0.1] * (NZ - 2) + [0.05, 0.05], z_bottom=-0.7),
        dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, torch.tensor([1.0, 1.0, 0.2]).double() * k_sat),
        boundaries={
            "top": Atmosphere(Series(rain), 5e-8, psi_min=-50.0, ponding_max=ponding_max),
            "bottom": FreeDrainage(),
        },
        sources=[RootUptake(Series(3e-8 * (hours % 3)), root_depth=Series(0.2 + 0.02 * hours))],
        specific_storage=1e-5,
    )


def assert_same(one: Solution, other: Solution) -> None:
    """Every number of the two, bit for bit; NaN equals NaN."""
    assert one.saved == other.saved
    pairs: dict[str, tuple[Tensor, Tensor]] = {
        name: (getattr(one, name), getattr(other, name))
        for name in ("times", "psi", "theta", "ponding", "status", "failed_time", "water_moved", "dt_next")
    }
    pairs["mass_balance_error"] = one.mass_balance_error, other.mass_balance_error
    assert one.series().keys() == other.series().keys()
    pairs |= {name: (value, other.series()[name]) for name, value in one.series().items()}
    counts = ("steps", "newton_iterations", "cuts", "rejections", "restarts")
    pairs |= {name: (getattr(one.stats, name), getattr(other.stats, name)) for name in counts}
    for name, (first, second) in pairs.items():
        assert first.dtype == second.dtype, name
        torch.testing.assert_close(
            first.detach(),
            second.detach(),
            rtol=0,
            atol=0,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    assert torch.equal(one.grid.z, other.grid.z)
    assert one.grid.gravity == other.grid.gravity


def test_round_trip(tmp_path: Path) -> None:
    run = model().solve(-1.0, TIMES, SolveOptions(record_steps=True))
    run.to_hdf5(tmp_path / "run.h5")
    back = Solution.from_hdf5(tmp_path / "run.h5")
    assert_same(run, back)
    assert run.stats.step_sizes is not None
    assert back.stats.step_sizes is not None
    assert all(torch.equal(a, b) for a, b in zip(run.stats.step_sizes, back.stats.step_sizes, strict=True))


def test_round_trip_of_saved_times(tmp_path: Path) -> None:
    run = model().solve(-1.0, TIMES, save=[0, 5, 12])
    run.to_hdf5(tmp_path / "run.h5", theta=False)
    back = Solution.from_hdf5(tmp_path / "run.h5")
    assert back.saved_times.tolist() == [0.0, 5 * 3600.0, 12 * 3600.0]
    assert torch.equal(back.psi, run.psi)
    with pytest.raises(ValueError, match="^theta"):
        _ = back.theta


def test_units_on_every_dataset(tmp_path: Path) -> None:
    model().solve(-1.0, TIMES).to_hdf5(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r") as file:
        found = set()

        def look(name: str, entry: object) -> None:
            if isinstance(entry, h5py.Dataset):
                found.add(name.split("/")[-1])
                assert entry.attrs["units"], name
                assert entry.attrs["long_name"], name
                assert all(dim.label for dim in entry.dims), name

        file.visititems(look)
        assert file["psi"].compression == "gzip"
        assert file["psi"].chunks is not None
        assert file.attrs["dgpde_version"] == dgpde.__version__
    assert found >= TRAJECTORY.keys() | PER_COLUMN.keys()


def test_some_columns(tmp_path: Path) -> None:
    run = model().solve(-1.0, TIMES)
    run.to_hdf5(tmp_path / "run.h5")
    for columns, index in ((slice(1, 3), [1, 2]), ([0, 2], [0, 2])):
        part = Solution.from_hdf5(tmp_path / "run.h5", columns=columns)
        assert part.grid.shape == (NZ, 2)
        assert torch.equal(part.psi, run.psi[..., index])
        assert torch.equal(part.stats.steps, run.stats.steps[index])
    for wrong in ([], [3], [-1], [2, 1]):
        with pytest.raises(ValueError, match="^columns"):
            Solution.from_hdf5(tmp_path / "run.h5", columns=wrong)


def test_what_is_no_solution(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^path"):
        Solution.from_hdf5(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"^path .*not an HDF5 file"):
        Solution.from_hdf5(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(ValueError, match=r"^path .*does not hold"):
        Solution.from_hdf5(tmp_path / "other.h5")


# Blocks: the same run in pieces.


@pytest.mark.parametrize("save", ["all", "last", [0, 4, 5, 11]], ids=str)
@pytest.mark.parametrize("block", [1, 5, 12, 100])
def test_stream_is_the_run(tmp_path: Path, save: str | list[int], block: int) -> None:
    run = model().solve(-1.0, TIMES, save=save)
    path = model().stream(tmp_path / "run.h5", -1.0, TIMES, save=save, block=block)
    back = Solution.from_hdf5(path)
    # A call that begins anew evaluates the soil at the state that it is given: round-off, not more.
    pairs = {name: (getattr(run, name), getattr(back, name)) for name in ("psi", "theta", "ponding")}
    pairs |= {name: (run.series()[name], back.series()[name]) for name in SERIES}
    for first, second in pairs.values():
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8 * first.abs().max().item())
    assert torch.equal(run.stats.steps, back.stats.steps)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.h5"]


def test_progress_computes_the_same_with_the_same_gradient(capsys: pytest.CaptureFixture[str]) -> None:
    grads = []
    for progress in (False, True):
        psi0 = torch.full((NZ, N), -1.0, dtype=torch.float64, requires_grad=True)
        run = model().solve(psi0, TIMES, progress=progress)
        (run.theta[-1].sum() + run.uptake.sum() * 3600.0).backward()
        grads.append(psi0.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-8, atol=0.0)
    assert "interval 12 of 12" in capsys.readouterr().err


class Killed(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize(
    "moment", ["before a block", "while a block is written", "while the blocks are joined"]
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_resume_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, after: int
) -> None:
    from dgpde.io import hdf5, stream

    whole = model().stream(tmp_path / "whole.h5", -1.0, TIMES, block=5)
    calls = 0

    def dying(number: int, original: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > number:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        if moment == "before a block":
            patch.setattr(stream, "_write_block", dying(after, stream._write_block))
        elif moment == "while a block is written":
            patch.setattr(hdf5, "put_report", dying(after, hdf5.put_report))
        else:
            patch.setattr(hdf5, "publish", dying(4, hdf5.publish))
        with pytest.raises(Killed):
            model().stream(tmp_path / "run.h5", -1.0, TIMES, block=5)
    assert not (tmp_path / "run.h5").exists()
    with pytest.raises(FileNotFoundError, match="resume"):
        Solution.from_hdf5(tmp_path / "run.h5")
    path = model().resume(tmp_path / "run.h5")
    assert_same(Solution.from_hdf5(whole), Solution.from_hdf5(path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.h5", "whole.h5"]
    assert model().resume(path) == path


PROGRAM = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from test_io import TIMES, model
    import dgpde.io.stream as stream
    original = stream._write_block
    def slow(*args):
        original(*args)
        print("block", flush=True)
        import time
        time.sleep(0.5)
    stream._write_block = slow
    model().stream({path!r}, -1.0, TIMES, block=2)
"""


def test_resume_after_a_real_kill(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    program = textwrap.dedent(PROGRAM.format(tests=str(Path(__file__).parent), path=str(path)))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "block\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    blocks = list((tmp_path / "run.h5.parts").glob("block-*.h5"))
    assert 2 <= len(blocks) < 6
    begun = time.monotonic()
    model().resume(path)
    assert time.monotonic() - begun < 60.0
    whole = model().stream(tmp_path / "whole.h5", -1.0, TIMES, block=2)
    assert_same(Solution.from_hdf5(whole), Solution.from_hdf5(path))


def test_resume_refuses_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgpde.io import stream

    path = tmp_path / "run.h5"
    with pytest.raises(FileNotFoundError, match="^path"):
        model().resume(path)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_join", lambda *_: None)
        model().stream(path, -1.0, TIMES, block=5)
    for other in (model(k_sat=3e-6), model(ponding_max=0.0)):
        with pytest.raises(ValueError, match=r"^path .*another model"):
            other.resume(path)
    with pytest.raises(FileExistsError, match="^path"):
        model().stream(path, -1.0, TIMES)
    model().resume(path)
    with pytest.raises(FileExistsError, match="^path"):
        model().stream(path, -1.0, TIMES)


def test_stream_refuses(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    for block, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="^block"):
            model().stream(path, -1.0, TIMES, block=block)
    with pytest.raises(ValueError, match=r"^options\.record_steps"):
        model().stream(path, -1.0, TIMES, SolveOptions(record_steps=True))
    psi0 = torch.full((NZ, N), -1.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="^psi0 requires a gradient"):
        model().stream(path, psi0, TIMES)
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        model().stream(path, psi0, TIMES)
    assert path.exists()


# Columns that fail.


OPTIONS = SolveOptions(dt_min=1e-3)
RETURN = SolveOptions(dt_min=1e-3, on_failure="return")


def failing() -> tuple[Richards, Tensor]:
    """A flux is forced into the middle column until its closed, stiff pore space is full."""
    q = torch.zeros(T, N, dtype=torch.float64)
    q[5:, 1] = 1e-4
    flow = Richards(
        Grid.columns(N, [0.1] * NZ),
        dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 2e-4),
        boundaries={"top": dgpde.Flux(Series(q))},
    )
    return flow, torch.full((NZ, 1), -1.0, dtype=torch.float64)


def test_failed_column_is_reported_and_the_others_finish(tmp_path: Path) -> None:
    flow, psi0 = failing()
    with pytest.raises(SolveError, match="1 of 3 columns") as caught:
        flow.solve(psi0, TIMES, OPTIONS)
    error = caught.value
    assert error.columns.tolist() == [1]
    assert 5 * 3600.0 <= error.times.item() < 6 * 3600.0
    run = flow.solve(psi0, TIMES, RETURN)
    assert run.status.tolist()[::2] == [0, 0]
    assert run.status[1] != 0
    assert "dt_min" in run.reason(1) or "finite" in run.reason(1)
    assert bool(torch.isfinite(run.psi[:, :, [0, 2]]).all())
    assert bool(torch.isfinite(run.psi[:6, :, 1]).all())
    assert bool(torch.isnan(run.psi[6:, :, 1]).all())
    assert bool(torch.isnan(run.boundary_flux["top"][5:, 1]).all())
    assert error.solution is not None
    torch.testing.assert_close(error.solution.psi, run.psi, rtol=0, atol=0, equal_nan=True)
    # In blocks, and from a file, the failure is the same one.
    path = flow.stream(tmp_path / "run.h5", psi0, TIMES, SolveOptions(on_failure="return"), block=4)
    back = Solution.from_hdf5(path)
    torch.testing.assert_close(back.psi, run.psi, rtol=1e-8, atol=0, equal_nan=True)
    torch.testing.assert_close(back.failed_time, run.failed_time, rtol=1e-6, atol=0, equal_nan=True)
    assert torch.equal(back.status, run.status)


def test_failed_stream_can_go_on_with_other_options(tmp_path: Path) -> None:
    flow, psi0 = failing()
    path = tmp_path / "run.h5"
    with pytest.raises(SolveError):
        flow.stream(path, psi0, TIMES, OPTIONS, block=4)
    assert len(list((tmp_path / "run.h5.parts").glob("block-*.h5"))) == 1
    flow.resume(path, RETURN)
    assert Solution.from_hdf5(path).status[1] != 0


def test_failed_column_gives_no_gradient_and_spoils_none() -> None:
    flow, _ = failing()
    psi0 = torch.full((NZ, N), -1.0, dtype=torch.float64, requires_grad=True)
    run = flow.solve(psi0, TIMES, RETURN)
    run.theta[-1][:, run.status == 0].sum().backward()
    assert psi0.grad is not None
    assert bool(torch.isfinite(psi0.grad).all())
    assert bool((psi0.grad[:, 1] == 0).all())
    assert bool((psi0.grad[:, 0] != 0).all())


# xarray.


@pytest.mark.parametrize("save", ["all", [0, 5]], ids=str)
def test_xarray(save: str | list[int]) -> None:
    pytest.importorskip("xarray")
    run = model().solve(-1.0, TIMES, save=save)
    data = run.to_xarray()
    assert data["psi"].dims == ("saved_time", "z", "column")
    assert data["psi"].attrs["units"] == "m"
    assert data["top_flux"].attrs["units"] == "m s-1"
    assert data["ponding"].dims == ("time", "column")
    for name in ("psi", "theta", "ponding", *SERIES, *PER_COLUMN):
        assert name in data, name
    at_depth = data["theta"].sel(z=-0.35, method="nearest").values
    assert at_depth.shape == (len(run.saved), N)
    torch.testing.assert_close(torch.from_numpy(at_depth), run.theta[:, 3].detach())
    assert data["evaporation"].sel(interval=7200.0).values.shape == (N,)


def test_xarray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="xarray is not installed"):
        model().solve(-1.0, TIMES).to_xarray()


def test_leftovers_of_a_kill_after_publishing_are_removed(tmp_path: Path) -> None:
    path = model().stream(tmp_path / "run.h5", -1.0, TIMES)
    (tmp_path / "run.h5.parts").mkdir()
    model().resume(path)
    assert not (tmp_path / "run.h5.parts").exists()
    shutil.rmtree(tmp_path)
