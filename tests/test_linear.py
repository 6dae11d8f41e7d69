"""The linear solver: against SciPy, itself transposed, and on the kinds of matrices that a Richards step makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.linear import LinearResult, LinearSolver, StencilMatrix
from dgpde.linear.solver import REASON_TEXT
from tests.linear_cases import darcy_matrix, random_field, random_matrix, random_rhs, richards_jacobian

SHAPES = [
    (1, 1, 1),
    (2, 1, 1),
    (1, 2, 1),
    (1, 1, 2),
    (3, 3, 3),
    (63, 1, 1),
    (2, 1, 129),
    (2, 129, 1),
    (1, 9, 8),
    (5, 4, 7),
    (3, 17, 33),
    (4, 5, 65),
    (2, 3, 260),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))


def solve(
    matrix: StencilMatrix,
    rhs: Tensor,
    *,
    transposed: bool = False,
    backend: str | None = None,
    tolerance: float = 1e-10,
    cycle: str = "W",
    x0: Tensor | None = None,
) -> LinearResult:
    solver = LinearSolver(tolerance=tolerance, backend=backend, cycle=cycle)
    solver.setup(matrix)
    return solver.solve(rhs, x0, transposed=transposed)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# The matrix.


@shapes
def test_products_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    matrix = random_matrix(shape, inactive=0.2)
    sparse, x = matrix.to_scipy(), random_rhs(matrix)
    # a sum of seven products, each rounded once
    close = {"rtol": 1e-14, "atol": 1e-14}
    flat = x.flatten().numpy()
    np.testing.assert_allclose(matrix.matvec(x).flatten().numpy(), sparse @ flat, **close)
    np.testing.assert_allclose(matrix.transpose().matvec(x).flatten().numpy(), sparse.T @ flat, **close)
    assert (matrix.transpose().to_scipy() != sparse.T).nnz == 0
    assert torch.equal(matrix.transpose().transpose().coefficients, matrix.coefficients)


def test_symmetric_matrix_is_its_transpose() -> None:
    matrix = random_matrix((4, 5, 6), symmetric=True)
    assert matrix.transpose() is matrix
    assert (matrix.to_scipy() != matrix.to_scipy().T).nnz == 0


# Against exact factors.


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("kind", ["general", "symmetric", "holes"])
@shapes
def test_agrees_with_factors(shape: tuple[int, int, int], kind: str, transposed: bool) -> None:
    matrix = random_matrix(shape, symmetric=kind == "symmetric", inactive=0.3 if kind == "holes" else 0.0)
    rhs = random_rhs(matrix)
    exact = solve(matrix, rhs, transposed=transposed, backend="reference")
    assert exact.converged
    found = solve(matrix, rhs, transposed=transposed)
    assert found.converged, found.reason
    assert found.residual <= 1e-10
    # the condition number of these matrices is below 1e3
    assert relative(found.x, exact.x) < 1e-7
    product = (matrix.transpose() if transposed else matrix).matvec(found.x)
    # the residual that is reported is that of x
    assert float((rhs - product).norm() / rhs.norm()) == pytest.approx(found.residual, rel=1e-3, abs=1e-15)


@pytest.mark.parametrize("cycle", ["V", "W"])
@pytest.mark.parametrize("stretch", [1.0, 30.0, 1 / 30.0])
def test_agrees_on_a_richards_jacobian(stretch: float, cycle: str) -> None:
    matrix = richards_jacobian((7, 21, 18), spacing=(1.0, 5.0 * stretch, 5.0), dt=1e6, inactive=0.1)
    rhs = random_rhs(matrix)
    for transposed in (False, True):
        exact = solve(matrix, rhs, transposed=transposed, backend="reference", tolerance=1e-8)
        found = solve(matrix, rhs, transposed=transposed, cycle=cycle, tolerance=1e-11)
        assert found.converged, found.reason
        # couplings over seven decades: the solution is known to about condition number x tolerance
        assert relative(found.x, exact.x) < 1e-5


def test_transposed_solve_is_the_transpose_of_the_solve() -> None:
    matrix = richards_jacobian((12, 19, 23), dt=1e5, inactive=0.05)
    b, c = random_rhs(matrix, 1), random_rhs(matrix, 2)
    limit = 1e-12
    x, y = solve(matrix, b, tolerance=limit), solve(matrix, c, transposed=True, tolerance=limit)
    assert x.converged
    assert y.converged
    difference = abs(float((x.x * c).sum()) - float((b * y.x).sum()))
    # <x, c> - <b, y> = <x, c - A^T y> - <b - A x, y>
    assert difference < 1.01 * limit * float(x.x.norm() * c.norm() + b.norm() * y.x.norm())


def test_solves_with_the_transposed_matrix_alike() -> None:
    matrix = richards_jacobian((6, 15, 14), dt=1e5)
    rhs = random_rhs(matrix)
    assert (
        relative(solve(matrix, rhs, transposed=True).x, solve(matrix.transpose(), rhs).x) < 1e-12
    )  # the same iterates: coefficients are read at the neighbour, else nothing differs


# The same bits.


@pytest.mark.parametrize("kind", ["general", "symmetric"])
def test_bits_do_not_depend_on_threads(kind: str) -> None:
    # large enough for threads on the finest level, few iterations: threads that outnumber the free cores wait for long
    matrix = random_matrix((3, 70, 133), symmetric=kind == "symmetric", excess=1e-3)
    rhs = random_rhs(matrix)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(solve(matrix, rhs, transposed=True, tolerance=1e-3))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(found[0].x, other.x)
        assert found[0].iterations == other.iterations


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512"])
def test_every_instruction_set(name: str) -> None:
    module = native_module()
    try:
        module.set_instruction_set(name)
    except ValueError as reason:
        pytest.skip(str(reason))
    try:
        for shape in SHAPES:
            matrix = random_matrix(shape, inactive=0.1)
            rhs = random_rhs(matrix)
            found = solve(matrix, rhs)
            assert found.converged, (shape, found.reason)
            assert relative(found.x, solve(matrix, rhs, backend="reference").x) < 1e-7, shape
    finally:
        module.set_instruction_set("auto")


# Memory order, first guesses, reuse.


def test_views_are_read_as_they_are() -> None:
    matrix = random_matrix((5, 6, 7))
    rhs = random_rhs(matrix)
    strided = torch.full((5, 6, 14), torch.nan, dtype=torch.float64)
    strided[..., ::2] = rhs
    turned = matrix.coefficients.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not turned.is_contiguous()
    expected = solve(matrix, rhs).x
    assert torch.equal(solve(StencilMatrix(turned), strided[..., ::2]).x, expected)
    assert torch.equal(solve(matrix, rhs.expand(5, 6, 7)).x, expected)
    ones = torch.ones(1, 1, 1, dtype=torch.float64).expand(5, 6, 7)
    assert solve(matrix, ones, x0=ones).converged


@pytest.mark.parametrize("symmetric", [False, True])
def test_first_guess(symmetric: bool) -> None:
    matrix = random_matrix((6, 20, 20), symmetric=symmetric, excess=1e-3)
    rhs = random_rhs(matrix)
    from_zero = solve(matrix, rhs)
    guess = from_zero.x.clone()
    again = solve(matrix, rhs, x0=guess, tolerance=1.1e-10)
    assert again.iterations == 0
    assert torch.equal(again.x, guess)
    near = solve(matrix, rhs, x0=guess * (1 + 1e-6))
    assert near.converged
    assert near.iterations < from_zero.iterations
    assert torch.equal(guess, from_zero.x)  # the guess is not written to
    far = solve(matrix, rhs, x0=torch.full_like(rhs, 1e8))
    assert far.converged, far.reason


def test_recall_begins_from_earlier_answers() -> None:
    """Loads that each follow from the answer before: fewer iterations, the same answers; a new matrix forgets."""
    matrix = random_matrix((6, 20, 31), symmetric=True, excess=1.0)
    load, counts = random_rhs(matrix), []
    solver = LinearSolver(tolerance=1e-10)
    solver.setup(matrix)
    for step in range(9):
        plain, recalled = solver.solve(load), solver.solve(load, recall=True, transposed=step % 2 == 1)
        assert plain.converged and recalled.converged
        # both to the tolerance, times the condition of the matrix, below 1e3
        assert relative(recalled.x, plain.x) < 1e-7
        assert relative(matrix.matvec(recalled.x), load) <= 1e-10
        counts.append((plain.iterations, recalled.iterations))
        load = 0.1 * recalled.x
    assert counts[0][0] == counts[0][1]
    assert all(fewer <= plain for plain, fewer in counts)
    assert all(fewer <= 0.9 * plain for plain, fewer in counts[6:]), counts
    again = solver.solve(load, recall=True)
    assert solver.solve(load, recall=True).iterations == 0
    assert solver.solve(-1e-200 * load, recall=True).converged  # whatever its size
    bytes_of_answers = solver.nbytes
    solver.setup(matrix)
    anew = solver.solve(load, recall=True)
    assert anew.iterations == solver.solve(load).iterations > again.iterations
    # four answers and loads, whatever came after them
    assert solver.nbytes == bytes_of_answers
    other = LinearSolver(tolerance=1e-10)
    other.setup(matrix)
    other.solve(load)
    # and their dot products, a few numbers a block
    assert 0 <= bytes_of_answers - other.nbytes - 4 * 16 * load.numel() < 1000


def test_recall_takes_no_notice_of_matrices_that_are_not_symmetric() -> None:
    matrix = random_matrix((4, 9, 9))
    rhs = random_rhs(matrix)
    solver = LinearSolver(tolerance=1e-10)
    solver.setup(matrix)
    first = solver.solve(rhs, recall=True)
    assert solver.solve(rhs, recall=True).iterations == first.iterations
    assert LinearSolver().recalls
    assert not LinearSolver(backend="reference").recalls


def test_reuse_keeps_the_preconditioner_and_solves_the_new_matrix() -> None:
    first = richards_jacobian((8, 24, 24), dt=1e5)
    second = StencilMatrix(first.coefficients * 1.5)
    second.coefficients[0] *= 1.001
    rhs = random_rhs(first)
    solver = LinearSolver(tolerance=1e-10)
    solver.setup(first)
    solver.solve(rhs)
    solver.solve(rhs, transposed=True)
    solver.setup(second, reuse=True)
    for transposed in (False, True):
        found = solver.solve(rhs, transposed=transposed)
        assert found.converged
        assert relative(found.x, solve(second, rhs, transposed=transposed).x) < 1e-6
    other = random_matrix((3, 4, 5))
    solver.setup(other, reuse=True)  # another shape: nothing to keep
    assert solver.solve(random_rhs(other)).converged


def test_memory_is_what_the_readme_says() -> None:
    matrix = random_matrix((8, 64, 128), symmetric=True)
    solver = LinearSolver()
    solver.setup(matrix)
    assert solver.solve(random_rhs(matrix)).converged
    # hierarchy and CG; rows of coarse levels are rounded up to whole packs
    assert solver.nbytes == pytest.approx((50 + 24) * matrix.coefficients[0].numel(), rel=0.15)


def test_one_solver_for_matrices_of_changing_size() -> None:
    solver = LinearSolver(tolerance=1e-10)
    for shape in reversed(SHAPES):
        matrix = random_matrix(shape)
        solver.setup(matrix)
        assert solver.solve(random_rhs(matrix)).converged, shape
        assert solver.solve(random_rhs(matrix), transposed=True).converged, shape


# What cannot be solved, and right-hand sides at the ends of the number range.


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_zero_right_hand_side(backend: str) -> None:
    matrix = random_matrix((3, 4, 5))
    zero = torch.zeros(3, 4, 5, dtype=torch.float64)
    found = solve(matrix, zero, backend=backend, x0=zero + 1)
    assert found.converged
    assert (found.iterations, found.residual) == (0, 0.0)
    assert torch.equal(found.x, zero)


@pytest.mark.parametrize("scale", [1e-290, 1e-160, 1e160, 1e290])
@pytest.mark.parametrize("symmetric", [False, True])
def test_size_of_the_right_hand_side_does_not_matter(scale: float, symmetric: bool) -> None:
    matrix = random_matrix((4, 9, 10), symmetric=symmetric)
    rhs = random_rhs(matrix)
    found = solve(matrix, rhs * scale)
    assert found.converged, found.reason
    assert relative(found.x / scale, solve(matrix, rhs).x) < 1e-8


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e30])
@pytest.mark.parametrize("symmetric", [False, True])
def test_size_of_the_matrix_does_not_matter(scale: float, symmetric: bool) -> None:
    matrix = random_matrix((4, 9, 10), symmetric=symmetric)
    rhs = random_rhs(matrix)
    found = solve(StencilMatrix(matrix.coefficients * scale, symmetric), rhs)
    assert found.converged, found.reason
    assert relative(found.x * scale, solve(matrix, rhs).x) < 1e-8


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value: float, backend: str) -> None:
    matrix = random_matrix((3, 4, 5))
    rhs = random_rhs(matrix)
    rhs[2, 3, 4] = value
    found = solve(matrix, rhs, backend=backend)
    assert not found.converged
    assert found.reason == "not finite"
    assert bool(found.x.isnan().all())


@pytest.mark.parametrize("where", ["diagonal", "nan", "column"])
def test_singular_lines(where: str) -> None:
    matrix = random_matrix((3, 4, 5))
    if where == "diagonal":
        matrix.coefficients[:, 0, 2, 3] = 0.0
    elif where == "nan":
        matrix.coefficients[0, 1, 2, 3] = torch.nan
    else:  # two equal rows in a line
        matrix.coefficients[:, :2, 2, 3] = 0.0
        matrix.coefficients[0, :2, 2, 3] = 1.0
        matrix.coefficients[2, 0, 2, 3] = matrix.coefficients[1, 1, 2, 3] = 1.0
    found = solve(matrix, random_rhs(matrix))
    assert not found.converged
    assert found.reason == "pivot"
    assert bool(found.x.isnan().all())
    sound = random_matrix((3, 4, 5))
    assert solve(sound, random_rhs(sound)).converged


def test_closed_aquifer_without_storage_is_singular() -> None:
    # powers of two, so that sums of rows are exactly zero
    matrix, _ = darcy_matrix(np.ones((1, 4, 4)), (1.0, 1.0, 1.0), heads=False)
    assert not solve(matrix, random_rhs(matrix)).converged


@pytest.mark.parametrize("symmetric", [False, True])
def test_too_few_iterations(symmetric: bool) -> None:
    matrix = random_matrix((6, 20, 20), symmetric=symmetric, excess=1e-3)
    solver = LinearSolver(max_iterations=1, tolerance=1e-12)
    solver.setup(matrix)
    found = solver.solve(random_rhs(matrix))
    assert (found.converged, found.reason, found.iterations) == (False, "iterations", 1)
    assert found.residual > 1e-12
    assert found.reason in REASON_TEXT


def test_tolerance_below_round_off_is_reported() -> None:
    matrix = random_matrix((6, 20, 20), excess=1e-6)
    found = solve(matrix, random_rhs(matrix), tolerance=1e-30)
    assert not found.converged
    assert found.residual < 1e-10  # as good as it gets
    assert found.reason in ("stagnated", "breakdown", "iterations")


def test_indefinite_matrix_declared_symmetric() -> None:
    matrix = random_matrix((4, 5, 6), symmetric=True)
    found = solve(StencilMatrix(-matrix.coefficients, symmetric=True), random_rhs(matrix))
    assert not found.converged
    assert found.reason == "breakdown"


# What the set-up chooses.


def test_independent_columns_are_solved_by_their_lines() -> None:
    matrix = random_matrix((20, 6, 7))
    matrix.coefficients[3:] = 0.0
    solver = LinearSolver(tolerance=1e-12)
    solver.setup(matrix)
    found = solver.solve(random_rhs(matrix))
    assert found.converged
    assert found.iterations <= 4  # the lines are exact in float32, so each iteration gains some seven digits
    assert solver._backend.engine.levels(False) == 1


@pytest.mark.parametrize(
    ("shape", "spacing", "levels"),
    [
        ((4, 16, 16), (1.0, 1.0, 1.0), 5),
        ((4, 5, 16), (1.0, 1.0, 1.0), 5),
        # joins along y bring the ratio of the couplings from 4096 to 16; then x is joined
        ((4, 16, 16), (1.0, 1.0, 64.0), 9),
        ((4, 1, 1), (1.0, 1.0, 1.0), 1),
    ],
)
def test_coarsening_goes_down_to_one_column(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], levels: int
) -> None:
    matrix, _ = darcy_matrix(np.ones(shape), spacing)
    solver = LinearSolver()
    solver.setup(matrix)
    solver.prepare()
    assert solver._backend.engine.levels(False) == levels


def test_float64_where_weak_couplings_decide() -> None:
    words = {"spacing": (1.0, 10.0, 10.0), "dt": 1e6, "water_table": 10.0}
    for blocks, expected in ((1.0, False), (1e8, True)):
        matrix = richards_jacobian((20, 32, 32), blocks=blocks, **words)
        solver = LinearSolver()
        solver.setup(matrix)
        assert solver.solve(random_rhs(matrix)).converged
        assert solver._backend.engine.in_double is expected
        solver.setup(random_matrix((3, 4, 5)))
        assert solver.solve(random_rhs(random_matrix((3, 4, 5)))).converged
        assert not solver._backend.engine.in_double  # a new shape starts anew


def test_float32_directions_do_not_limit_the_tolerance() -> None:
    matrix = richards_jacobian((20, 32, 32), spacing=(1.0, 10.0, 10.0), dt=1e6, water_table=10.0)
    solver = LinearSolver(tolerance=1e-12)
    solver.setup(matrix)
    found = solver.solve(random_rhs(matrix))
    assert found.converged
    assert (
        found.iterations <= 18
    )  # 9 for the first eight digits, and hardly more than in proportion for all twelve
    assert not solver._backend.engine.in_double


# How the iterations grow.

GROWTH = {
    "ratio 10": {"spacing": (1.0, 10.0, 10.0), "water_table": 20.0},
    "ratio 1": {"spacing": (1.0, 1.0, 1.0), "water_table": 20.0},
    "ratio 1, wet, long step": {"spacing": (1.0, 1.0, 1.0), "water_table": 35.0, "dt": 1e6},
    "ratio 100, wet, long step": {"spacing": (0.1, 10.0, 10.0), "water_table": 3.5, "dt": 1e6},
    "dy/dx 20": {"spacing": (1.0, 200.0, 10.0), "water_table": 20.0, "dt": 1e6},
    "dx/dy 20": {"spacing": (1.0, 10.0, 200.0), "water_table": 20.0, "dt": 1e6},
    "blocks": {"spacing": (1.0, 10.0, 10.0), "water_table": 35.0, "dt": 1e6, "blocks": 1e6},
    # Noise of the same slope as above. With ten times that (heads that no flow could keep up in the conductive blocks)
    # the non-symmetric part rules, and the iterations grow from 14 to 63.
    "blocks, ratio 1": {
        "spacing": (1.0, 1.0, 1.0),
        "water_table": 35.0,
        "dt": 1e6,
        "blocks": 1e6,
        "rough": 0.05,
    },
    "holes": {"spacing": (1.0, 10.0, 10.0), "water_table": 20.0, "dt": 1e6, "inactive": 0.2},
}


def counts(size: int, words: dict) -> list[int]:
    matrix = richards_jacobian((40, size, size), **words)
    rhs = random_rhs(matrix)
    found = [solve(matrix, rhs, transposed=transposed, tolerance=1e-8) for transposed in (False, True)]
    assert all(one.converged for one in found), [one.reason for one in found]
    return [one.iterations for one in found]


@pytest.mark.parametrize("name", GROWTH)
def test_iterations_on_jacobians(name: str) -> None:
    assert max(counts(32, GROWTH[name])) <= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", GROWTH)
def test_iterations_hardly_grow_with_the_grid(name: str) -> None:
    # 1.5 times at 64 times the cells, and one iteration for the whole numbers
    small, large = counts(32, GROWTH[name]), counts(256, GROWTH[name])
    assert max(large) <= 1.5 * max(small) + 1


# Published values of three operators of saturated flow.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slab", "step", "cube"])
def test_check_values(name: str) -> None:
    """Mean and middle value found by hypre, PETSc and PyAMG."""
    shape, variance, corr = (
        ((96, 96, 96), 4.0, (4, 4, 4)) if name == "cube" else ((40, 128, 128), 2.25, (2, 4, 4))
    )
    k = 1e-5 * random_field(shape, variance, corr)
    spacing = (1.0, 1.0, 1.0) if name == "cube" else (0.25, 10.0, 10.0)
    matrix, rhs = darcy_matrix(
        k, spacing, storage=0.05 / 3600 if name == "step" else 0.0, heads=name != "step"
    )
    if name == "step":
        rhs = torch.from_numpy(np.random.default_rng(2).standard_normal(shape) * 25.0 * 1e-7)
    mean, middle = {
        "slab": (0.5122266, 0.9977285),
        "step": (1.6751761e-05, -1.0982195e-03),
        "cube": (0.4680612, 0.9796449),
    }[name]
    found = solve(matrix, rhs, tolerance=1e-8)
    assert found.converged
    assert float(found.x.mean()) == pytest.approx(
        mean, rel=1e-6
    )  # a residual of 1e-8; the values have seven digits
    assert float(found.x.flatten()[found.x.numel() // 2]) == pytest.approx(middle, rel=1e-6)


# Every argument wrong once.

GOOD = random_matrix((2, 3, 4))
FIELD = random_rhs(GOOD)


def ready() -> LinearSolver:
    solver = LinearSolver()
    solver.setup(GOOD)
    return solver


def outside() -> StencilMatrix:
    c = GOOD.coefficients.clone()
    c[6, 0, 0, -1] = -1.0
    return StencilMatrix(c)


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str, str]] = {
    "coefficients type": (lambda: StencilMatrix([1.0]), TypeError, "coefficients ", "list"),
    "coefficients dtype": (
        lambda: StencilMatrix(torch.zeros(7, 1, 1, 1)),
        TypeError,
        "coefficients ",
        "float32",
    ),
    "coefficients shape": (lambda: StencilMatrix(FIELD), ValueError, "coefficients ", "[7, nz, ny, nx]"),
    "coefficients empty": (
        lambda: StencilMatrix(torch.zeros(7, 1, 0, 1, dtype=torch.float64)),
        ValueError,
        "coefficients ",
        "[7, 1, 0, 1]",
    ),
    "coefficients outside": (outside, ValueError, "coefficients ", "'east'"),
    "x shape": (lambda: GOOD.matvec(FIELD[:1]), ValueError, "x ", "[2, 3, 4]"),
    "x dtype": (lambda: GOOD.matvec(FIELD.float()), TypeError, "x ", "float64"),
    "tolerance zero": (lambda: LinearSolver(tolerance=0.0), ValueError, "tolerance ", "between 0 and 1"),
    "tolerance nan": (lambda: ready().solve(FIELD, tolerance=float("nan")), ValueError, "tolerance ", "nan"),
    "max_iterations": (lambda: LinearSolver(max_iterations=0), ValueError, "max_iterations ", "at least 1"),
    "backend": (lambda: LinearSolver(backend="gpu"), ValueError, "backend ", "'gpu'"),
    "cycle": (lambda: LinearSolver(cycle="F"), ValueError, "cycle ", "'F'"),
    "no matrix": (lambda: LinearSolver().solve(FIELD), ValueError, "matrix", "setup"),
    "no matrix to prepare": (lambda: LinearSolver().prepare(), ValueError, "matrix", "setup"),
    "matrix type": (lambda: LinearSolver().setup(FIELD), TypeError, "matrix ", "Tensor"),
    "rhs type": (lambda: ready().solve(FIELD.numpy()), TypeError, "rhs ", "ndarray"),
    "rhs dtype": (lambda: ready().solve(FIELD.float()), TypeError, "rhs ", "float64"),
    "rhs shape": (lambda: ready().solve(FIELD[None]), ValueError, "rhs ", "[2, 3, 4]"),
    "rhs device": (lambda: ready().solve(FIELD.to("meta")), ValueError, "rhs ", "meta"),
    "x0 shape": (lambda: ready().solve(FIELD, FIELD[:, :1]), ValueError, "x0 ", "[2, 3, 4]"),
    "reference size": (
        lambda: LinearSolver(backend="reference").setup(random_matrix((1, 400, 400))),
        ValueError,
        "matrix ",
        "160000 cells",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    call, error, start, part = WRONG[name]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(start)
    assert part in str(caught.value)
