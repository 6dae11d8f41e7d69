"""Sections of fields as figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dgpde
from dgpde import plot
from dgpde.plot import array

pytest.importorskip("matplotlib")


def run(shape: tuple[int, ...], active: torch.Tensor | None = None, **words: Any) -> dgpde.Solution:
    """At rest over a water table at z = 0.55, on graded spacing."""
    spacing = [torch.linspace(0.1, 0.3, size).double() for size in shape]
    grid = dgpde.Grid(shape, spacing, active)
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, 1.2e-5)
    level = 0.55 + 0.1 * torch.arange(shape[-1], dtype=torch.float64) / shape[-1]
    return dgpde.Richards(grid, soil).solve(level - grid.z, [0.0, 1.0, 2.0], **words)


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4)], ids=str)
@pytest.mark.parametrize("name", ["psi", "theta", "saturation"])
@pytest.mark.parametrize("plane", ["xz", "yz", "xy"])
def test_section(tmp_path: Path, shape: tuple[int, ...], name: str, plane: str) -> None:
    active = torch.ones(shape, dtype=torch.bool)
    active[0, ..., 0] = False
    solution = run(shape, active)
    if len(shape) == 2 and plane != "xz":
        return
    with plot.style():
        figure, axes = plot.figure(1, 1, (4, 3))
        mesh = plot.field_section(axes[0, 0], solution, name, row=1, plane=plane, index=0)
        figure.colorbar(mesh, label=plot.FIELDS[name][0])
        plot.save(figure, tmp_path / "section.png")
    assert (tmp_path / "section.png").read_bytes().startswith(b"\x89PNG")
    field = array(getattr(solution, name)[1])
    if len(shape) == 3:
        field = {"xz": field[:, 0], "yz": field[:, :, 0], "xy": field[0]}[plane]
    drawn: Any = mesh.get_array()
    gone = {"xz": 1, "yz": 3, "xy": 3}[plane]
    assert int(np.ma.getmaskarray(drawn).sum()) == gone
    np.testing.assert_array_equal(drawn.compressed(), field[~np.ma.getmaskarray(drawn)])
    assert axes[0, 0].get_xlabel() == f"{plane[0]} [m]"
    assert axes[0, 0].get_xlim()[1] == pytest.approx(
        float(solution.grid.spacing["zyx".index(plane[0]) - 3].sum())
    )


def test_the_water_table_is_where_it_is() -> None:
    solution = run((6, 4))
    _, axes = plot.figure(1, 1, (4, 3))
    plot.field_section(axes[0, 0], solution, row=0)
    lines = [entry for entry in axes[0, 0].collections if hasattr(entry, "levels")]
    assert len(lines) == 1
    points: Any = lines[0].get_paths()[0].vertices
    # psi is linear in z at the start; matplotlib interpolates linearly between centres
    sizes = solution.grid.spacing[1]
    x: Any = array(sizes.cumsum(0) - 0.5 * sizes)
    np.testing.assert_allclose(
        points[:, 1], np.interp(points[:, 0], x, 0.55 + 0.1 * np.arange(4) / 4), rtol=1e-9
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1)], ids=str)
def test_a_plane_one_cell_thin_has_no_line(shape: tuple[int, ...]) -> None:
    _, axes = plot.figure(1, 1, (4, 3))
    plot.field_section(axes[0, 0], run(shape))
    assert len(axes[0, 0].collections) == 1


def test_wrong_arguments() -> None:
    _, axes = plot.figure(1, 1, (4, 3))
    section, domain = run((6, 4)), run((2, 3, 4))
    cells = run((6, 4), save_cells=[0, 0])
    for solution, words, name in (
        (section, {"name": "head"}, "name"),
        (section, {"plane": "yz"}, "plane"),
        (domain, {"plane": "zx"}, "plane"),
        (domain, {"index": 3}, "index"),
        (section, {"index": 1}, "index"),
        (section, {"row": 3}, "row"),
        (cells, {}, "solution"),
    ):
        with pytest.raises(ValueError, match=f"^{name}"):
            plot.field_section(axes[0, 0], solution, **words)


def plume(shape: tuple[int, ...]) -> dgpde.TransportSolution:
    """Two solutes carried along x of a section or a domain with a cell that takes no part."""
    active = torch.ones(shape, dtype=torch.bool)
    active[0, ..., 0] = False
    flux = {"x": torch.full((*shape[:-1], shape[-1] + 1), 1e-6, dtype=torch.float64)}
    flux["x"][0] = 0.0
    model = dgpde.Transport(
        dgpde.Grid(shape, [0.1, 0.2, 0.3][-len(shape) :], active),
        [dgpde.Solute("a"), dgpde.Solute("b", 0.1)],
        {"west": dgpde.InflowConcentration(1.0)},
    )
    return model.solve(0.2, dgpde.SteadyFlow(0.3, flux), [0.0, 1e4, 3e4])


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4)], ids=str)
@pytest.mark.parametrize("plane", ["xz", "yz", "xy"])
def test_concentration_section(tmp_path: Path, shape: tuple[int, ...], plane: str) -> None:
    if len(shape) == 2 and plane != "xz":
        return
    solution = plume(shape)
    with plot.style():
        figure, axes = plot.figure(1, 1, (4, 3))
        mesh = plot.concentration_section(
            axes[0, 0], solution, "b", row=1, plane=plane, index=0, limits=(0.0, 1.0)
        )
        figure.colorbar(mesh, label=plot.CONCENTRATION[0])
        plot.save(figure, tmp_path / "section.png")
    field = array(solution.of("b")[1])
    if len(shape) == 3:
        field = {"xz": field[:, 0], "yz": field[:, :, 0], "xy": field[0]}[plane]
    drawn: Any = mesh.get_array()
    np.testing.assert_array_equal(drawn.compressed(), field[~np.ma.getmaskarray(drawn)])
    assert mesh.get_clim() == (0.0, 1.0)
    with pytest.raises(ValueError, match="^name is 'c'"):
        plot.concentration_section(axes[0, 0], solution, "c")
    with pytest.raises(ValueError, match="^row must lie within the 3"):
        plot.concentration_section(axes[0, 0], solution, "a", row=3)
    with pytest.raises(ValueError, match="^plane must be one of"):
        plot.concentration_section(axes[0, 0], solution, "a", plane="zx")


@pytest.mark.parametrize("single", [True, False])
def test_curves_of_columns(single: bool) -> None:
    solutes = dgpde.Solute("a") if single else [dgpde.Solute("a"), dgpde.Solute("b", 0.1)]
    model = dgpde.Transport(
        dgpde.Grid.columns(3, [0.1] * 5), solutes, {"top": dgpde.InflowConcentration(1.0)}
    )
    solution = model.solve(0.0, dgpde.SteadyFlow(0.3, -1e-6), [0.0, 3600.0, 36000.0])
    with plot.style():
        _, axes = plot.figure(1, 2, (6, 3))
        plot.breakthrough(axes[0, 0], solution, 0.25, column=1)
        plot.concentration_profiles(axes[0, 1], solution, "a", [1, 2], column=-1)
    lines = axes[0, 0].get_lines()
    assert [line.get_label() for line in lines] == list(solution.names)
    found = array(solution.breakthrough(0.25)).reshape(3, len(lines), 3)
    for k, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_ydata(), found[:, k, 1])
        np.testing.assert_array_equal(line.get_xdata(), [0.0, 1.0, 10.0])
    assert axes[0, 0].get_xlabel() == "time [h]"
    profiles = axes[0, 1].get_lines()
    assert [line.get_label() for line in profiles] == ["1 h", "10 h"]
    np.testing.assert_array_equal(profiles[1].get_xdata(), solution.of("a")[2, :, 2])
    with pytest.raises(ValueError, match="^column must lie within the 3"):
        plot.breakthrough(axes[0, 0], solution, 0.25, column=3)
    with pytest.raises(ValueError, match="^solution must be that of a section"):
        plot.concentration_section(axes[0, 0], solution, "a")
    with pytest.raises(ValueError, match="^solution must be that of columns"):
        plot.concentration_profiles(axes[0, 0], plume((3, 2)), "a", [0])
