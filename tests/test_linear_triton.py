"""The linear solver in Triton: in its interpreter against the C++ twin, compiled for a GPU without one, and on one."""

from __future__ import annotations

import pytest
import torch
from linear_cases import random_matrix, random_rhs, richards_jacobian
from triton_tools import compile_for_gpu, run_in_the_interpreter

from dgpde.linear import LinearSolver, StencilMatrix

triton = pytest.importorskip("triton", reason="the package triton is not installed")


def test_in_the_interpreter() -> None:
    run_in_the_interpreter("interpreted_triton_linear.py", "not slow")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches compile."""
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter takes the place of the compiler (TRITON_INTERPRET)")
    from dgpde.linear import triton_hierarchy, triton_krylov

    monkeypatch.setattr(triton_hierarchy, "launch", compile_for_gpu)
    monkeypatch.setattr(triton_krylov, "launch", compile_for_gpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.usefixtures("compiled")
def test_the_hierarchy_compiles(dtype: torch.dtype, transposed: bool) -> None:
    from dgpde.linear.triton_hierarchy import Hierarchy, Level, _coarsen

    matrix = random_matrix((3, 40, 50))
    hierarchy = Hierarchy(matrix, transposed, dtype)
    level = hierarchy.levels[0]
    level.fy, level.fx = 2, 2 if transposed else 1
    _coarsen(level, matrix.coefficients, [torch.ones(40).double(), torch.ones(50).double()], transposed)
    coarse = Level.empty((3, 20, 25 if transposed else 50), level.b)
    for zero in (False, True):
        level.sweep(0, alone=zero, keep=not zero)
        level.sweep(1)
        level.restrict(coarse, zero)
    level.prolong(coarse)


@pytest.mark.parametrize("symmetric", [False, True], ids=["gmres", "cg"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.usefixtures("compiled")
def test_the_iterations_compile(dtype: torch.dtype, symmetric: bool) -> None:
    from dgpde.linear.triton_hierarchy import Hierarchy
    from dgpde.linear.triton_krylov import Krylov

    matrix = random_matrix((3, 5, 50), symmetric=symmetric)
    krylov = Krylov(matrix, Hierarchy(matrix, False, dtype), False, 2, 0)
    b = random_rhs(matrix)
    x, r, q = b.clone(), b.clone(), b.clone()
    krylov._residual(b, x, r)
    if symmetric:
        krylov._conjugate_gradients(x, r, 1.0, 1e-8, 1)
        return
    krylov._gmres(x, r, 1.0, 1e-8, 1)
    for count in (1, 3):  # a count of 1 is a literal to the compiler
        basis = b.to(dtype).reshape(1, -1).repeat(count, 1)
        krylov._dots(basis, count, q)


def test_refused_on_the_cpu() -> None:
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter runs on the CPU (TRITON_INTERPRET)")
    with pytest.raises(ValueError, match=r"matrix is on cpu: Triton kernels run on GPUs"):
        LinearSolver(backend="triton").setup(random_matrix((2, 3, 4)))


@pytest.mark.gpu
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("kind", ["general", "symmetric", "holes", "jacobian", "blocks"])
def test_solves_on_a_gpu_as_on_the_cpu(kind: str, transposed: bool) -> None:
    shape = (12, 70, 133)
    if kind in ("jacobian", "blocks"):
        matrix = richards_jacobian(shape, dt=1e6, blocks=1e6 if kind == "blocks" else 1.0)
    else:
        matrix = random_matrix(shape, symmetric=kind == "symmetric", inactive=0.3 if kind == "holes" else 0.0)
    rhs, found = random_rhs(matrix), []
    for device, backend in (("cuda", "triton"), ("cpu", "cpu")):
        solver = LinearSolver(tolerance=1e-10, backend=backend)
        solver.setup(StencilMatrix(matrix.coefficients.to(device), matrix.symmetric))
        found.append([solver.solve(rhs.to(device), transposed=transposed) for _ in range(2)])
    (here, again), (there, _) = found
    assert here.converged, here.reason
    assert torch.equal(here.x, again.x)  # the same bits on every run
    # small levels are visited once on a GPU
    assert here.iterations <= 1.5 * there.iterations + 2
    assert float((here.x.cpu() - there.x).norm()) < 1e-6 * float(there.x.norm())
