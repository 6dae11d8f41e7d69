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
