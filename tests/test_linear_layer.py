"""Single layers that are stretched along y in some places and along x in others: lines along y solve them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import Grid, HydraulicHead, Richards, SolveOptions
from dgpde.linear import LinearSolver, StencilMatrix


def graded(count: int, ratio: float) -> Tensor:
    """Sizes that grow from the middle outwards."""
    distance = (torch.arange(count, dtype=torch.float64) - 0.5 * (count - 1)).abs()
    return ratio**distance


def layer(ny: int, nx: int, ratio: float, symmetric: bool = True, seed: int = 1) -> StencilMatrix:
    """Steady flow in a heterogeneous layer with a head on one side."""
    dy, dx = graded(ny, ratio), graded(nx, ratio)
    k = torch.exp(torch.randn(ny, nx, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    c = torch.zeros(7, 1, ny, nx, dtype=torch.float64)
    along_y = 2.0 * dx / (dy[:-1, None] / k[:-1] + dy[1:, None] / k[1:])
    along_x = 2.0 * dy[:, None] / (dx[:-1] / k[:, :-1] + dx[1:] / k[:, 1:])
    c[4, 0, :-1], c[3, 0, 1:] = -along_y, -along_y
    c[6, 0, :, :-1], c[5, 0, :, 1:] = -along_x, -along_x
    c[0] = -c[1:].sum(0) + 1e-9 * dy[:, None] * dx
    c[0, 0, 0] += dx * k[0] / dy[0]
    return StencilMatrix(c, symmetric=symmetric)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("ny", "nx"), [(62, 62), (63, 40), (17, 129)])
def test_few_iterations_to_a_small_residual(ny: int, nx: int, symmetric: bool, transposed: bool) -> None:
    matrix, solver = layer(ny, nx, 1.1, symmetric), LinearSolver(tolerance=1e-10)
    rhs = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    solver.setup(matrix)
    found = solver.solve(rhs, transposed=transposed)
    assert found.converged, found
    assert found.iterations <= 40  # above 100 without lines along y
    a = matrix.transpose() if transposed else matrix
    assert float((rhs - a.matvec(found.x)).norm()) <= 1e-10 * float(rhs.norm())


@pytest.mark.parametrize(("ny", "nx"), [(1, 1), (1, 63), (63, 1), (2, 2), (2, 63)])
def test_every_size_is_solved(ny: int, nx: int) -> None:
    matrix, solver, exact = (
        layer(ny, nx, 1.3),
        LinearSolver(tolerance=1e-10),
        LinearSolver(backend="reference"),
    )
    rhs = torch.ones(matrix.shape, dtype=torch.float64)
    for each in (solver, exact):
        each.setup(matrix)
    torch.testing.assert_close(solver.solve(rhs).x, exact.solve(rhs).x, rtol=1e-7, atol=0.0)


def test_turning_and_turning_back() -> None:
    """One solver for matrices of both kinds, and another that begins where it is."""
    matrices = [layer(30, 30, ratio, seed=seed) for seed, ratio in enumerate((1.0, 1.2, 1.0, 1.2))]
    solver = LinearSolver(tolerance=1e-10)
    rhs = torch.ones(matrices[0].shape, dtype=torch.float64)
    for matrix in matrices:
        fresh = LinearSolver(tolerance=1e-10)
        if solver.precise:
            fresh.begin_precise()
        for each in (solver, fresh):
            each.setup(matrix)
        assert torch.equal(solver.solve(rhs).x, fresh.solve(rhs).x)
        assert solver.precise == fresh.precise
    solver = LinearSolver(tolerance=1e-10)
    solver.begin_precise()
    for matrix in matrices:
        solver.setup(matrix)
        assert solver.precise  # whichever way it is turned


@pytest.mark.parametrize("soil", ["saturated", "unsaturated"])
def test_the_gradient_of_a_graded_aquifer(soil: str) -> None:
    """To a residual of 1e-10, which it did not reach."""
    n = 62
    sizes = graded(n, 1.2)
    k_sat = torch.full((1, n, n), 1e-4, dtype=torch.float64, requires_grad=True)
    relation = (
        dgpde.Saturated(k_sat) if soil == "saturated" else dgpde.VanGenuchten(0.05, 0.3, 1.0, 2.0, k_sat)
    )
    sides = dict.fromkeys(("west", "east", "south", "north"), HydraulicHead(20.0))
    grid = Grid((1, n, n), (10.0, sizes, sizes))
    flow = Richards(grid, relation, sides, [dgpde.Well((0, 31, 31), -1e-3)], specific_storage=1e-5)  # type: ignore[arg-type]
    run = flow.solve(20.0 - grid.z, [0.0, 3600.0, 86400.0], SolveOptions(dt_fixed=43200.0), save="last")
    assert int(run.stats.linear_iterations) < 40 * int(run.stats.newton_iterations)  # type: ignore[arg-type]
    run.psi.square().sum().backward()
    assert k_sat.grad is not None
    assert bool(torch.isfinite(k_sat.grad).all())
    # more conductive everywhere draws the table down less
    assert float((k_sat.grad * k_sat.detach()).sum()) > 0.0
