"""Sections and domains on disk: HDF5 round trips, XDMF, xarray."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_io import assert_same

import dgpde
from dgpde import Atmosphere, Flux, FreeDrainage, Grid, HydraulicHead, Richards, Solution, SolveOptions
from dgpde.io.hdf5 import field_quantities, report_quantities
from dgpde.io.xdmf import write_xdmf

TIMES = [0.0, 1800.0, 7200.0, 9000.0]
SHAPES = [(1, 1), (5, 2), (4, 3, 5), (1, 6, 3), (3, 1, 1)]


def model(shape: tuple[int, ...], active: bool = True, **words: object) -> Richards:
    """Graded spacing, a cell that takes no part, water from above and to the side."""
    spacing = [torch.linspace(0.1 + axis, 0.2 + axis, size).double() for axis, size in enumerate(shape)]
    mask = torch.ones(shape, dtype=torch.bool)
    if mask.numel() > 1:
        mask.flatten()[-1] = False
    grid = Grid(shape, spacing, mask if active else None, z_bottom=-2.0)
    soil = dgpde.VanGenuchten(0.065, torch.linspace(0.3, 0.45, shape[-1]).double(), 7.5, 1.89, 1.2e-5)
    boundaries = {"top": Atmosphere(2e-6, 1e-8), "west": HydraulicHead(-1.9)}
    return Richards(grid, soil, boundaries, specific_storage=1e-4, **words)  # type: ignore[arg-type]


def same_field(one: Solution, other: Solution) -> None:
    """Every number and the whole grid, bit for bit."""
    assert_same(one, other)
    assert one.grid.shape == other.grid.shape
    assert one.grid.lateral == other.grid.lateral
    assert one.grid.z_bottom == other.grid.z_bottom
    assert all(torch.equal(a, b) for a, b in zip(one.grid.spacing, other.grid.spacing, strict=True))
    for first, second in (
        (one.grid.active, other.grid.active),
        (one.cells, other.cells),
        (one.stats.linear_iterations, other.stats.linear_iterations),
    ):
        assert (first is None) == (second is None)
        assert first is None or (second is not None and torch.equal(first, second))
    if one.grid.lateral:
        assert torch.equal(one.saturation, other.saturation)
    assert repr(one) == repr(other)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    run = model(shape).solve(-0.5, TIMES, SolveOptions(record_steps=True), save=[0, 3])
    run.to_hdf5(tmp_path / "run.h5")
    back = Solution.from_hdf5(tmp_path / "run.h5")
    same_field(run, back)
    assert back.boundary_flux.keys() == run.boundary_flux.keys() == set(run.grid.sides)
    assert run.stats.step_sizes is not None
    assert back.stats.step_sizes is not None
    assert all(torch.equal(a, b) for a, b in zip(run.stats.step_sizes, back.stats.step_sizes, strict=True))
    back.to_hdf5(tmp_path / "again.h5")
    same_field(run, Solution.from_hdf5(tmp_path / "again.h5"))


@pytest.mark.parametrize("shape", [(5, 2), (4, 3, 5)], ids=str)
def test_some_cells(tmp_path: Path, shape: tuple[int, ...]) -> None:
    flow = model(shape)
    cells = [[0] * len(shape), [size - 2 for size in shape]]
    run, whole = flow.solve(-0.5, TIMES, save_cells=cells), flow.solve(-0.5, TIMES)
    run.to_xdmf(tmp_path / "run.xdmf")
    back = Solution.from_hdf5(tmp_path / "run.h5")
    same_field(run, back)
    assert back.cells is not None
    assert torch.equal(back.saturation, whole.saturation.flatten(1)[:, back.cells])
    points = ElementTree.parse(tmp_path / "run.xdmf").find(".//Geometry/DataItem")
    assert points is not None
    assert points.text is not None
    xyz = np.array(points.text.split(), dtype=float).reshape(2, 3)
    assert xyz[:, 2].tolist() == [float(run.grid.z.flatten()[index[0]]) for index in cells]


def test_columns_of_the_field_engine(tmp_path: Path) -> None:
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    boundaries = {"top": Flux(1e-6), "bottom": FreeDrainage()}
    run = Richards(Grid.columns(3, [0.2] * 4), soil, boundaries, engine="field").solve(-1.0, TIMES)
    run.to_hdf5(tmp_path / "run.h5")
    same_field(run, Solution.from_hdf5(tmp_path / "run.h5"))
    with pytest.raises(ValueError, match="^columns"):
        Solution.from_hdf5(tmp_path / "run.h5", columns=[0])
    with pytest.raises(ValueError, match="^path: columns"):
        run.to_xdmf(tmp_path / "run.xdmf")


def test_words_on_every_dataset(tmp_path: Path) -> None:
    run = model((4, 3, 5)).solve(-0.5, TIMES)
    run.to_hdf5(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r") as file:
        found = set()

        def look(name: str, entry: object) -> None:
            if isinstance(entry, h5py.Dataset):
                found.add(name.split("/")[-1])
                assert entry.attrs["units"], name
                assert entry.attrs["long_name"], name
                assert all(dim.label for dim in entry.dims), name

        file.visititems(look)
        assert [dim.label for dim in file["psi"].dims] == ["saved_time", "z", "y", "x"]
        assert [dim.label for dim in file["west_flux"].dims] == ["interval", "z", "y"]
        assert file["psi"].compression == "gzip"
        assert file["system/water_moved"].attrs["units"] == "m3"
    assert found >= field_quantities(run.grid, some_cells=False).keys() | {"active", "dx", "dy", "x", "y"}
    assert found >= report_quantities(run.report()).keys()


def test_theta_can_be_left_out(tmp_path: Path) -> None:
    run = model((4, 3, 5)).solve(-0.5, TIMES)
    run.to_xdmf(tmp_path / "run.xdmf", theta=False)
    back = Solution.from_hdf5(tmp_path / "run.h5")
    for name in ("theta", "saturation"):
        with pytest.raises(ValueError, match="^theta"):
            getattr(back, name)
    assert {entry.get("Name") for entry in ElementTree.parse(tmp_path / "run.xdmf").iter("Attribute")} == {
        "psi",
        "active",
    }


def read_item(folder: Path, item: ElementTree.Element) -> NDArray[np.float64]:
    """What a reader makes of a DataItem."""
    shape = [int(size) for size in str(item.get("Dimensions")).split()]
    if item.get("ItemType") == "HyperSlab":
        pick, source = list(item)
        start, stride, count = np.array(str(pick.text).split(), dtype=int).reshape(3, -1)
        slices = tuple(slice(a, a + s * n, s) for a, s, n in zip(start, stride, count, strict=True))
        return read_item(folder, source)[slices].reshape(shape)
    if item.get("Format") == "HDF":
        name, where = str(item.text).split(":")
        with h5py.File(folder / name, "r") as file:
            data = file[where][...]
        assert list(data.shape) == shape or data.size == np.prod(shape)
        return data.reshape(shape)
    return np.array(str(item.text).split(), dtype=float).reshape(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_xdmf_says_where_everything_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    run = model(shape).solve(-0.5, TIMES, save=[1, 3])
    run.to_xdmf(tmp_path / "a run.xdmf")
    domain = ElementTree.parse(tmp_path / "a run.xdmf").getroot().find("Domain/Grid")
    assert domain is not None
    cells = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    assert len(domain) == 2
    for row, grid in enumerate(domain):
        time, topology = grid.find("Time"), grid.find("Topology")
        assert time is not None
        assert float(str(time.get("Value"))) == TIMES[run.saved[row]]
        assert topology is not None
        assert topology.get("Dimensions") == " ".join(str(size + 1) for size in cells)
        x, y, z = (read_item(tmp_path, item) for item in grid.findall("Geometry/DataItem"))
        assert (len(z), len(y), len(x)) == tuple(size + 1 for size in cells)
        assert z[0] == -2.0
        widths = [np.diff(z), np.diff(x)] if len(shape) == 2 else [np.diff(z), np.diff(y), np.diff(x)]
        for found, expected in zip(widths, run.grid.spacing, strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)  # sums and their differences
        values = {
            str(entry.get("Name")): read_item(tmp_path, entry[0]) for entry in grid.findall("Attribute")
        }
        assert run.grid.active is None or "active" in values
        for name in ("psi", "theta", "saturation"):
            np.testing.assert_array_equal(values[name], getattr(run, name)[row].numpy().reshape(cells))


def test_xdmf_without_inactive_cells_and_wrong_paths(tmp_path: Path) -> None:
    run = model((5, 2), active=False).solve(-0.5, TIMES[:2])
    with pytest.raises(ValueError, match="^path"):
        run.to_xdmf(tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []
    write_xdmf(tmp_path / "run.xmf", run)
    assert "active" not in (tmp_path / "run.xmf").read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"run.xmf", "run.h5"}


def test_xarray() -> None:
    pytest.importorskip("xarray")
    flow = model((4, 3, 5))
    data = flow.solve(-0.5, TIMES).to_xarray()
    assert data["theta"].dims == ("saved_time", "z", "y", "x")
    assert data["north_flux"].dims == ("interval", "z", "x")
    assert data["active"].dims == ("z", "y", "x")
    assert data["x"].attrs["units"] == "m"
    assert float(data["psi"].sel(x=2.1, method="nearest").isel(saved_time=0).mean()) == -0.5
    some = flow.solve(-0.5, TIMES, save_cells=[[3, 1, 2], [0, 2, 4]]).to_xarray()
    assert some["psi"].dims == ("saved_time", "cell")
    assert some["cell_x"].values.tolist() == [float(data["x"][2]), float(data["x"][4])]
    assert some["status"].dims == ("system",)


def test_a_large_field_is_read_by_its_layers(tmp_path: Path) -> None:
    """A chunk holds rows of a layer, not columns of the whole height."""
    run = model((3, 400, 500), active=False).solve(0.0, [0.0, 1e-3], SolveOptions(), save="last")
    run.to_hdf5(tmp_path / "run.h5", theta=False)
    with h5py.File(tmp_path / "run.h5", "r") as file:
        assert file["psi"].chunks == (1, 1, 262, 500)
