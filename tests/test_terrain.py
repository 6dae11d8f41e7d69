"""Layers that follow the land surface: rest, flow along a slope, balances, files. (Gradients: the domain of
``field_cases`` stands on terrain.)
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch
from field_cases import random
from torch import Tensor

import dgpde
from dgpde import Flux, Grid, Head, HydraulicHead, Richards, SolveOptions
from dgpde.assembly import check_start
from dgpde.field import set_up_field
from dgpde.kernels.flow_stencil.problem import Step

HOUR = 3600.0
LOAM = dgpde.VanGenuchten(0.065, 0.41, 2.5, 1.6, 1e-5)
SHAPES = [(5, 4), (4, 3, 5), (3, 1, 2), (1, 2, 3)]


def hills(shape: tuple[int, ...], seed: int = 1) -> Grid:
    """Layers, columns and terrain of uneven sizes."""
    spacing = [torch.linspace(0.2, 0.4, size).double() * 4.0 ** (axis > 0) for axis, size in enumerate(shape)]
    return Grid(shape, spacing, surface=10.0 + random(*shape[1:], seed=seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_at_rest_stays_at_rest(shape: tuple[int, ...]) -> None:
    grid = hills(shape)
    psi0 = 9.7 - grid.z
    assert psi0.shape == shape
    run = Richards(grid, LOAM, specific_storage=1e-5).solve(psi0, [0.0, 1e6])
    torch.testing.assert_close(run.psi[-1], psi0, rtol=0.0, atol=1e-8)
    sides = {"west": HydraulicHead(9.7), "top": dgpde.GeneralHead(9.7, 1e-6), "bottom": HydraulicHead(9.7)}
    river = [dgpde.River([0] * len(shape), 9.7, 1e-5)]
    steady = Richards(grid, LOAM, sides, river).steady(psi0 + 0.3)
    torch.testing.assert_close(steady.psi[0], psi0, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_level_terrain_is_a_level_grid(shape: tuple[int, ...]) -> None:
    given = hills(shape)
    height = float(given.dz.sum())
    level = Grid(shape, given.spacing, z_bottom=7.0)
    flat = Grid(shape, given.spacing, surface=7.0 + height)
    torch.testing.assert_close(flat.z, level.z.expand(shape), rtol=1e-14, atol=0.0)
    torch.testing.assert_close(flat.depth, level.depth, rtol=1e-13, atol=0.0)
    sides = {"top": Flux(1e-6), "west": HydraulicHead(7.2), "bottom": dgpde.GeneralHead(7.3, 1e-6)}
    runs = [Richards(grid, LOAM, sides).solve(-0.5, [0.0, HOUR, 3 * HOUR]) for grid in (level, flat)]
    torch.testing.assert_close(runs[0].psi, runs[1].psi, rtol=0.0, atol=1e-9)


def outflow(grid: Grid, psi: float, backend: str) -> Tensor:
    """The flow out of each cell to its neighbours [m3/s] at a uniform psi, without gravity along z."""
    flow = Richards(grid, dgpde.Gardner(0.05, 0.4, 2.0, 3e-6), anisotropy=2.0)
    start = check_start(flow.words, psi, [0.0, 1.0], SolveOptions(), 0.0)
    run, inputs = set_up_field(flow.words, start, SolveOptions(backend=backend), "all", None)
    stencil = run.make_stencil(run.problem, inputs)
    at = inputs["psi0"].contiguous()
    step = Step(0, math.inf, at, torch.zeros_like(at), inputs["ponding0"])
    return stencil.evaluate(step, at, torch.zeros_like(at), False).residual


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_flow_along_a_tilted_plane(backend: str) -> None:
    """K sin(theta) through the height of each layer, with the conductivity along the slope."""
    slope, dx, dy, dz = 0.3, 5.0, 2.0, 0.25
    conductivity = 2.0 * 3e-6 * math.exp(2.0 * -0.4)
    expected = conductivity * math.sin(math.atan(slope)) * dz
    x = (torch.arange(6) + 0.5).double() * dx
    found = outflow(Grid((1, 6), (dz, dx), surface=slope * x), -0.4, backend)[0, 0]
    wanted = torch.tensor([-1.0, 0.0, 0.0, 0.0, 0.0, 1.0]).double() * expected  # downhill is to the west
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * expected)
    y = (torch.arange(4) + 0.5).double()[:, None] * dy
    found = outflow(Grid((1, 4, 6), (dz, dy, dx), surface=slope * y), -0.4, backend)[0]
    wanted = torch.tensor([-1.0, 0.0, 0.0, 1.0]).double()[:, None].expand(4, 6) * expected * dx
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * expected * dx)


def test_uniform_flow_down_a_hillside() -> None:
    """Fed above with what runs along the slope at one head, the hillside has that head; at its foot it ends."""
    slope, psi, n = 0.4, -0.6, 40
    soil = dgpde.Gardner(0.05, 0.4, 3.0, 1e-5)
    along = 1e-5 * math.exp(3.0 * psi) * math.sin(math.atan(slope))
    grid = Grid((1, n), (0.5, 1.0), surface=-slope * torch.arange(n).double())
    flow = Richards(grid, soil, {"west": Flux(along), "east": Head(-1.0)}, face_mean="arithmetic")
    run = flow.steady(psi)
    assert float(run.mass_balance_error) < 1e-9
    # what the foot holds back fades by exp(-alpha sin(theta)) a metre
    torch.testing.assert_close(run.psi[0, 0, :10], torch.full((10,), psi).double(), rtol=0.0, atol=1e-6)


def test_water_balances_in_a_storm() -> None:
    grid = hills((6, 4, 5), seed=3)
    sides = {"top": dgpde.Atmosphere(dgpde.Series([3e-5, 0.0]), 1e-8), "west": dgpde.SeepageFace()}
    flow = Richards(grid, LOAM, sides, specific_storage=1e-4)
    run = flow.solve(9.5 - grid.z, [0.0, 5 * HOUR, 20 * HOUR], SolveOptions(time_error=1e-2))
    assert float(run.mass_balance_error) < 1e-9
    assert float(run.boundary_total["west"][-1]) < 0.0
    # the valleys are wet, and what they do not take runs off
    low, high = int(grid.lift.argmin()), int(grid.lift.argmax())  # type: ignore[union-attr]
    saturation = run.saturation[-1, -1].flatten()
    assert float(saturation[low]) > float(saturation[high])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    grid = hills(shape)
    run = Richards(grid, LOAM, {"top": Flux(1e-6)}).solve(-1.0, [0.0, HOUR])
    run.to_xdmf(tmp_path / "run.xdmf")
    back = dgpde.Solution.from_hdf5(tmp_path / "run.h5").grid
    assert grid.surface is not None
    assert back.surface is not None
    assert torch.equal(back.surface, grid.surface)
    assert torch.equal(back.z, grid.z)
    mesh = ElementTree.parse(tmp_path / "run.xdmf").find(".//Grid/Grid")
    assert mesh is not None
    assert mesh.find("Topology").get("TopologyType") == "3DSMesh"  # type: ignore[union-attr]
    item = mesh.find("Geometry/DataItem")
    cells = shape if len(shape) == 3 else (shape[0], 1, shape[1])
    assert item is not None
    assert [int(size) for size in str(item.get("Dimensions")).split()] == [*(size + 1 for size in cells), 3]
    with h5py.File(tmp_path / "run.h5", "r") as file:
        corners = file["grid/corners"][...]
    assert list(corners.shape) == [*(size + 1 for size in cells), 3]
    heights = np.diff(corners[..., 2], axis=0)
    np.testing.assert_allclose(heights, np.broadcast_to(grid.dz[:, None, None], heights.shape), rtol=1e-12)
    if 1 not in shape[1:]:
        inner = corners[-1, 1:-1, 1:-1, 2] if len(shape) == 3 else corners[-1, 0, 1:-1, 2]
        surface = grid.surface.numpy()
        pairs = 0.5 * (surface[..., 1:] + surface[..., :-1])
        np.testing.assert_allclose(
            inner, 0.5 * (pairs[1:] + pairs[:-1]) if len(shape) == 3 else pairs, rtol=1e-12
        )


@pytest.mark.parametrize(
    ("surface", "z_bottom", "error", "message"),
    [
        (torch.zeros(3), 0.0, ValueError, "surface has the shape"),
        (torch.tensor([0.0, torch.nan]), 0.0, ValueError, "surface has values that are not finite"),
        (torch.zeros(2, requires_grad=True), 0.0, ValueError, "surface requires a gradient"),
        (torch.zeros(2), 1.0, ValueError, "z_bottom and surface"),
        ("high", 0.0, TypeError, "surface"),
    ],
)
def test_refusals(surface: object, z_bottom: float, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Grid((3, 2), (0.1, 1.0), z_bottom=z_bottom, surface=surface)  # type: ignore[arg-type]
