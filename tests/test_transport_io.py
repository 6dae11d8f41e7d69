"""Results of transport on disk and in figures: HDF5 round trips, XDMF, xarray."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch

import dgpde
from dgpde import Immobile, InflowConcentration, Linear, Solute, SteadyFlow, Transport, TransportSolution
from dgpde.io.transport import MASSES, REPORT, quantities

TIMES = [0.0, 1800.0, 7200.0, 9000.0]
SHAPES = [(4, 3), (1, 1), (3, 2, 4)]


def solutes(single: bool) -> Solute | list[Solute]:
    """One that sorbs and stands still in part, or two, the second with a name that is no word of a path."""
    first = Solute("a", 0.05, 0.01, sorption=Linear(1e-4, 1500.0), immobile=Immobile(0.02, 1e-5), decay=1e-6)
    return first if single else [first, Solute("b/c d", 0.05, parent="a")]


def columns(single: bool, count: int = 3) -> TransportSolution:
    """Columns under uneven fluxes."""
    grid = dgpde.Grid.columns(count, [0.1, 0.05, 0.05, 0.1], z_bottom=-0.3)
    flow = SteadyFlow(0.3, -1e-6 * torch.arange(1, count + 1).double())
    model = Transport(grid, solutes(single), {"top": InflowConcentration(1.0)}, "tvd")
    return model.solve(0.1, flow, TIMES)


def field(single: bool, shape: tuple[int, ...] = (4, 3)) -> TransportSolution:
    """A section or a domain with a cell that takes no part, where there is room for one."""
    mask = torch.ones(shape, dtype=torch.bool)
    flux = {"x": torch.full((*shape[:-1], shape[-1] + 1), 1e-6, dtype=torch.float64)}
    if mask.numel() > 1:
        mask[-1] = False
        flux["x"][-1] = 0.0
    spacing = [torch.linspace(0.1 + axis, 0.2 + axis, size).double() for axis, size in enumerate(shape)]
    grid = dgpde.Grid(shape, spacing, mask, z_bottom=-2.0)
    model = Transport(grid, solutes(single), {"west": InflowConcentration(1.0)})
    return model.solve(0.1, SteadyFlow(0.3, flux), TIMES)


def assert_same(one: TransportSolution, other: TransportSolution) -> None:
    """Every number and the grid, bit for bit; NaN equals NaN."""
    assert one.names == other.names
    assert one.grid.same_as(other.grid)
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("times", "concentration", *REPORT)]
    pairs += [(getattr(one.mass, name), getattr(other.mass, name)) for name in MASSES]
    assert one.solute_flux.keys() == other.solute_flux.keys()
    pairs += [(one.solute_flux[side], other.solute_flux[side]) for side in one.solute_flux]
    for first, second in pairs:
        torch.testing.assert_close(first.detach(), second, rtol=0, atol=0, equal_nan=True)
    assert repr(one) == repr(other)


@pytest.mark.parametrize("single", [True, False])
def test_columns_round_trip(tmp_path: Path, single: bool) -> None:
    run = columns(single)
    run.to_hdf5(tmp_path / "run.h5")
    back = TransportSolution.from_hdf5(tmp_path / "run.h5")
    assert_same(run, back)
    torch.testing.assert_close(back.breakthrough(-0.2), run.breakthrough(-0.2), rtol=0, atol=0)
    some = TransportSolution.from_hdf5(tmp_path / "run.h5", columns=[0, 2])
    assert some.grid.n == 2
    torch.testing.assert_close(some.concentration, run.concentration[..., [0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(some.mass.sorbed, run.mass.sorbed[..., [0, 2]], rtol=0, atol=0)
    assert some.status.numel() == 2


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fields_round_trip(tmp_path: Path, shape: tuple[int, ...], single: bool) -> None:
    run = field(single, shape)
    run.to_hdf5(tmp_path / "run.h5")
    back = TransportSolution.from_hdf5(tmp_path / "run.h5")
    assert_same(run, back)
    back.to_hdf5(tmp_path / "again.h5")
    assert_same(run, TransportSolution.from_hdf5(tmp_path / "again.h5"))


def test_columns_in_one_system(tmp_path: Path) -> None:
    """Columns that rode on the field engine have one status."""
    grid = dgpde.Grid.columns(3, [0.1] * 4)
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    flow = dgpde.Richards(grid, soil, {"top": dgpde.Flux(1e-6)}, engine="field").solve(-0.5, TIMES)
    run = Transport(grid, Solute("a"), {"top": InflowConcentration(1.0)}).solve(0.0, flow)
    run.to_hdf5(tmp_path / "run.h5")
    assert_same(run, TransportSolution.from_hdf5(tmp_path / "run.h5"))
    with pytest.raises(ValueError, match="^columns"):
        TransportSolution.from_hdf5(tmp_path / "run.h5", columns=[0])


@pytest.mark.parametrize("run", [columns(False), field(False)], ids=["columns", "section"])
def test_every_dataset_says_what_it_is(tmp_path: Path, run: TransportSolution) -> None:
    run.to_hdf5(tmp_path / "run.h5")
    words = quantities(run.grid, False, run.grid.lateral)
    with h5py.File(tmp_path / "run.h5") as file:
        group = file["system" if run.grid.lateral else "columns"]
        found = {name: value for name, value in file.items() if name in words} | dict(group.items())
        assert found.keys() == words.keys()
        for name, data in found.items():
            assert (data.attrs["units"], data.attrs["long_name"]) == (
                words[name].units,
                words[name].long_name,
            )
            assert tuple(axis.label for axis in data.dims) == words[name].dims
        assert list(file.attrs["solutes"]) == ["a", "b/c d"]


def test_a_failed_column_stays_one(tmp_path: Path) -> None:
    grid = dgpde.Grid.columns(2, [0.1] * 3)
    theta = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    model = Transport(grid, Solute("a", immobile=Immobile(0.2, 1e-5)), {"top": InflowConcentration(1.0)})
    run = model.solve(0.0, SteadyFlow(theta, -1e-6), TIMES, dgpde.SolveOptions(on_failure="return"))
    assert run.status.tolist() == [0, 4]
    run.to_hdf5(tmp_path / "run.h5")
    back = TransportSolution.from_hdf5(tmp_path / "run.h5")
    assert_same(run, back)
    assert back.reason(1) == run.reason(1)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
def test_xdmf_points_into_the_hdf5_file(tmp_path: Path, shape: tuple[int, ...], single: bool) -> None:
    """The hyperslab of every scalar and time, read as ParaView would, is the concentration."""
    run = field(single, shape)
    run.to_xdmf(tmp_path / "run.xdmf")
    assert_same(run, TransportSolution.from_hdf5(tmp_path / "run.h5"))
    root = ElementTree.parse(tmp_path / "run.xdmf").getroot()
    steps = root.findall("./Domain/Grid/Grid")
    assert len(steps) == len(TIMES)
    for row, step in enumerate(steps):
        scalars = {a.attrib["Name"]: a for a in step.findall("Attribute")}
        assert scalars.keys() == {*run.names, "active"}
        for name in run.names:
            slab = scalars[name].find("DataItem")
            assert slab is not None
            pick, source = slab.findall("DataItem")
            start, _, count = np.array((pick.text or "").split(), dtype=int).reshape(3, -1)
            file, _, dataset = (source.text or "").partition(":/")
            with h5py.File(tmp_path / file) as data:
                region = tuple(slice(a, a + n) for a, n in zip(start, count, strict=True))
                values = data[dataset][region].reshape(shape)
            np.testing.assert_array_equal(values, run.of(name)[row].numpy())
            sizes = [int(n) for n in slab.attrib["Dimensions"].split()]
            assert np.prod(sizes) == values.size


def test_xdmf_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^path: columns"):
        columns(True).to_xdmf(tmp_path / "run.xdmf")
    with pytest.raises(ValueError, match="^path .* is that of the HDF5 file"):
        field(True).to_xdmf(tmp_path / "run.h5")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^path"):
        TransportSolution.from_hdf5(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        TransportSolution.from_hdf5(tmp_path / "text.h5")
    columns(True).to_hdf5(tmp_path / "run.h5")
    with pytest.raises(ValueError, match="does not hold a dgpde solution"):
        dgpde.Solution.from_hdf5(tmp_path / "run.h5")
    with pytest.raises(ValueError, match="^columns must be indices"):
        TransportSolution.from_hdf5(tmp_path / "run.h5", columns=[3])
    with h5py.File(tmp_path / "run.h5", "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(ValueError, match="has the format 99"):
        TransportSolution.from_hdf5(tmp_path / "run.h5")


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("lateral", [True, False])
def test_xarray(single: bool, lateral: bool) -> None:
    pytest.importorskip("xarray")
    run = field(single, (3, 2, 4)) if lateral else columns(single)
    data = run.to_xarray()
    some = () if single else ("solute",)
    axes = ("z", "y", "x") if lateral else ("z", "column")
    assert data["concentration"].dims == ("time", *some, *axes)
    assert data["top_solute_flux"].dims == ("interval", *some, *axes[1:])
    assert data["dissolved"].attrs["units"] == ("kg" if lateral else "kg m-2")
    np.testing.assert_array_equal(data["concentration"], run.concentration)
    np.testing.assert_array_equal(data["z"], run.grid.z.flatten()[: run.grid.nz])
    assert ("active" in data) == lateral
    if not single:
        assert list(data["solute"].values) == ["a", "b/c d"]
        np.testing.assert_array_equal(data["concentration"].sel(solute="b/c d"), run.of("b/c d"))
