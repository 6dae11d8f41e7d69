"""The linear solver's Triton kernels in Triton's interpreter against the C++ twin, which takes the same steps. Run by
``test_linear_triton.py`` in a process of its own.
"""

from __future__ import annotations

import pytest
import torch
from linear_cases import random_matrix, random_rhs, richards_jacobian
from test_linear_layer import layer

from dgpde.linear import LinearResult, LinearSolver, StencilMatrix
from dgpde.linear.triton import TritonBackend


def both(
    matrix: StencilMatrix,
    transposed: bool = False,
    *,
    steps: int = 3,
    precise: bool = True,
    cycle: str = "V",
    fewest: int = 0,
) -> tuple[LinearResult, LinearResult, TritonBackend]:
    """Of Triton and of C++ after a few steps."""
    rhs, found = random_rhs(matrix), []
    for backend in ("triton", "cpu"):
        solver = LinearSolver(tolerance=1e-10, backend=backend, cycle=cycle, max_iterations=steps)
        if backend == "triton":
            solver._backend = mine = TritonBackend(cycle, fewest)
        if precise:
            solver.begin_precise()
        solver.setup(matrix)
        found.append(solver.solve(rhs, transposed=transposed))
    return found[0], found[1], mine


def alike(here: LinearResult, there: LinearResult, close: float = 1e-11) -> None:
    """Sums are added in another order: the iterates differ by round-off of a few steps."""
    assert here.iterations == there.iterations
    assert here.reason == there.reason
    assert float((here.x - there.x).norm()) < close * float(there.x.norm())


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("kind", ["general", "symmetric", "holes"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (2, 1, 1),
        (1, 2, 1),
        (1, 1, 2),
        (3, 5, 6),
        pytest.param((1, 9, 8), marks=pytest.mark.slow),
        pytest.param((2, 1, 33), marks=pytest.mark.slow),
    ],
    ids=lambda s: "x".join(map(str, s)),
)
def test_takes_the_steps_of_the_twin(shape: tuple[int, int, int], kind: str, transposed: bool) -> None:
    matrix = random_matrix(shape, symmetric=kind == "symmetric", inactive=0.3 if kind == "holes" else 0.0)
    alike(*both(matrix, transposed)[:2])


@pytest.mark.parametrize("stretch", [30.0, pytest.param(1 / 30.0, marks=pytest.mark.slow)])
def test_coarsens_along_one_direction_as_the_twin(stretch: float) -> None:
    matrix = richards_jacobian((2, 7, 8), spacing=(1.0, 5.0 * stretch, 5.0), dt=1e6, inactive=0.1)
    here, there, mine = both(matrix, steps=2)
    alike(here, there, 1e-9)  # couplings over seven decades
    first = mine.hierarchies[False].levels[0]
    assert (first.fy, first.fx) == ((1, 2) if stretch > 1.0 else (2, 1))


def test_converges_in_float32() -> None:
    matrix = random_matrix((2, 2, 3))
    here, there, mine = both(matrix, steps=40, precise=False)
    assert not mine.precise
    assert here.converged
    assert abs(here.iterations - there.iterations) <= 1  # the round-off of float32
    assert float((here.x - there.x).norm()) < 1e-8 * float(there.x.norm())  # condition number below 1e3


def test_the_w_cycle_and_where_it_visits_once() -> None:
    matrix = richards_jacobian((1, 3, 9), spacing=(1.0, 5.0, 5.0), dt=1e6)
    alike(*both(matrix, cycle="W", steps=1)[:2], 1e-9)  # condition number about 1e5
    once = both(matrix, cycle="W", fewest=10**6, steps=1)[0]
    assert torch.equal(once.x, both(matrix, cycle="V", steps=1)[0].x)


def test_goes_over_to_float64_as_the_twin_does() -> None:
    matrix = richards_jacobian((1, 3, 12), spacing=(0.25, 10.0, 10.0), blocks=1e6, dt=1e9, rough=0.1)
    here, there, mine = both(matrix, steps=1, precise=False)
    assert mine.precise
    assert all(value.dtype == torch.float64 for value in mine.hierarchies[False].levels[0].fields.values())
    alike(here, there, 1e-6)  # blocks of contrast 1e6


def test_a_layer_stretched_both_ways_is_turned() -> None:
    here, there, mine = both(layer(7, 7, 2.2), steps=2)
    assert mine.matrix is not None
    assert mine.matrix.shape == (7, 1, 7)
    alike(here, there, 1e-9)


def test_guess_reuse_and_zero() -> None:
    matrix = random_matrix((2, 1, 3))
    rhs = random_rhs(matrix)
    solver = LinearSolver(tolerance=1e-8, backend="triton")
    solver.setup(matrix)
    first = solver.solve(rhs)
    again = solver.solve(rhs, first.x)
    assert again.iterations == 0
    assert torch.equal(again.x, first.x)
    assert solver.nbytes > 0
    solver.setup(StencilMatrix(matrix.coefficients * 1.01), reuse=True)
    assert solver.solve(rhs).converged
    zero = solver.solve(torch.zeros_like(rhs))
    assert zero.converged
    assert zero.iterations == 0
    assert not zero.x.any()


def test_what_cannot_be_solved_is_reported() -> None:
    matrix = random_matrix((2, 3, 4))
    rhs = random_rhs(matrix)
    lone = matrix.coefficients.clone()
    lone[:, :, 1, 1] = 0.0  # a line without a diagonal
    for coefficients, b, reason in (
        (lone, rhs, "pivot"),
        (torch.zeros_like(lone), rhs, "pivot"),
        (matrix.coefficients, rhs * torch.nan, "not finite"),
    ):
        solver = LinearSolver(backend="triton")
        solver.setup(StencilMatrix(coefficients))
        found = solver.solve(b)
        assert not found.converged
        assert found.reason == reason
        assert bool(found.x.isnan().all())
    few = both(matrix, steps=1)[0]
    assert (few.reason, few.iterations) == ("iterations", 1)
    symmetric = random_matrix((2, 3, 4), symmetric=True).coefficients
    solver = LinearSolver(backend="triton")
    solver.setup(StencilMatrix(-symmetric, symmetric=True))
    assert solver.solve(rhs).reason == "breakdown"
