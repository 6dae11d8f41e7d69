"""The transport stencil: the C++ twin against the reference, and the reference against what it must be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import SIDES
from dgpde.kernels.transport_stencil.assembly import MakeNetwork
from dgpde.kernels.transport_stencil.cpu import CpuEngine, CpuNetwork
from dgpde.kernels.transport_stencil.dispersion import Dispersion, disperse
from dgpde.kernels.transport_stencil.problem import SCHEMES, Faces, Geometry
from dgpde.kernels.transport_stencil.reference import ReferenceNetwork, network

# Sums of at most 30 products in another order.
SAME = 1e-13
Shape = tuple[int, int, int]
MakeEngine = Callable[[Geometry], MakeNetwork]
SHAPES = [(1, 1, 1), (2, 1, 1), (1, 1, 63), (5, 1, 4), (3, 4, 5), (2, 3, 129), (1, 63, 2)]


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(
    shape: tuple[int, int, int], scheme: str, cross_terms: bool, holes: bool, seed: int = 0
) -> tuple[Geometry, Faces]:
    """Random cells, holes and faces; flows of both signs, and some that stand."""
    axes = tuple(k for k in range(3) if shape[k] > 1)
    active = None
    if holes:
        active = uniform(*shape, seed=seed + 1) > 0.2
        active[0, 0, 0] = True
    widths = tuple(0.5 + uniform(n, seed=seed + 2) for n in shape)
    geometry = Geometry(shape, widths, axes, active, scheme, cross_terms)  # type: ignore[arg-type]
    exists = {k: (geometry.inverse[k] > 0.0).double() for k in axes}
    flow = {k: (2.0 * uniform(*shape, seed=seed + 3 + k) - 1.0) * exists[k] for k in axes}
    for value in flow.values():
        value[value.abs() < 0.05] = 0.0
    conductance = {k: uniform(*shape, seed=seed + 6 + k) * exists[k] for k in axes}
    cross = {(n, t): 0.2 * (uniform(*shape, seed=seed + 9 + t) - 0.5) * exists[n] for n, t in geometry.pairs}
    return geometry, Faces(flow, conductance, cross)


def close(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= SAME * (1.0 + two.abs().max()))


def check_network(make: MakeEngine, shape: Shape, scheme: str, cross_terms: bool, holes: bool) -> None:
    """N, its tangent and its cotangents by a backend against the reference."""
    geometry, faces = case(shape, scheme, cross_terms, holes)
    mine, reference = make(geometry)(faces), ReferenceNetwork(geometry, faces)
    c = uniform(*shape, 2, seed=20)[..., 0]  # strided, as a view of several solutes would be
    multiplier = uniform(*shape, 2, seed=21)[..., 1] - 0.5
    assert close(mine.apply(c), reference.apply(c))
    _, other = case(shape, scheme, cross_terms, holes, seed=50)
    exists = {k: geometry.inverse[k] > 0.0 for k in geometry.axes}
    moving = Faces(
        {k: v * exists[k] for k, v in other.flow.items()},
        {k: v * exists[k] for k, v in other.conductance.items()},
        {k: v * exists[k[0]] for k, v in other.cross.items()},
    )
    assert close(mine.push(c, moving), reference.push(c, moving))
    only = Faces({}, moving.conductance, {})
    assert close(mine.push(c, only), reference.push(c, only))
    pulled, wanted = mine.pull(multiplier, c).named(), reference.pull(multiplier, c).named()
    for name, value in wanted.items():
        there = exists["zyx".index(name.partition("_")[2][0])]  # elsewhere there is nothing that could move
        assert close(torch.where(there, pulled[name], 0.0), torch.where(there, value, 0.0)), name


def check_solves(
    make: MakeEngine,
    shape: Shape,
    scheme: str,
    cross_terms: bool,
    columns: bool,
    transposed: bool,
    tolerance: float,
) -> None:
    """Solves with the Jacobian by a backend against the reference; also where only c has changed, and from a guess."""
    geometry, faces = case(shape, scheme, cross_terms, holes=True)
    mine, reference = make(geometry)(faces), ReferenceNetwork(geometry, faces)
    rhs = uniform(*shape, seed=22) - 0.5
    diagonal = 1.0 + 3.0 * uniform(*shape, seed=23)
    column = uniform(*shape, seed=24) if columns else None  # a solid that holds all: 0
    if column is not None:
        column[0, 0, 0] = 0.0
    for seed, guess in ((20, None), (25, uniform(*shape, seed=26))):
        c, found = uniform(*shape, seed=seed), []
        for one in (mine, reference):
            one.setup(diagonal, column, c)
            found.append(one.solve(rhs, guess, tolerance, transposed))
        assert found[0].converged
        # the condition numbers of these systems are below 100
        assert (found[0].x - found[1].x).norm() <= 100 * tolerance * found[1].x.norm()
        # a residual that is believed without a look is the one that there is, to round-off
        rough = mine.solve(rhs, None, 1e-2, transposed)
        assert reference._matrix is not None
        matrix = reference._matrix.T if transposed else reference._matrix
        rest = float((rhs.flatten() - matrix @ rough.x.flatten()).norm() / rhs.norm())
        assert rough.converged
        assert abs(rest - rough.residual) <= 1e-12


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("cross_terms", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cpu_backend_is_the_reference(shape: Shape, scheme: str, cross_terms: bool, holes: bool) -> None:
    check_network(CpuEngine, shape, scheme, cross_terms, holes)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("cross_terms", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (2, 3, 63), (4, 2, 2)])
def test_solves_with_the_jacobian(
    shape: Shape, scheme: str, cross_terms: bool, columns: bool, transposed: bool
) -> None:
    check_solves(CpuEngine, shape, scheme, cross_terms, columns, transposed, 1e-13)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_constant_stays_one_and_mass_is_kept(scheme: str) -> None:
    geometry, faces = case((4, 5, 6), scheme, True, holes=True)
    one = torch.ones(geometry.shape, dtype=torch.float64)
    assert float(network(geometry, faces, one).abs().max()) == 0.0
    # what leaves a cell enters its neighbour: the sum of N is -c times the water that comes together in the cells
    c = uniform(4, 5, 6, seed=30)
    gain = torch.zeros_like(c)
    for axis, flow in faces.flow.items():
        size = flow.shape[axis]
        gain -= flow
        gain.narrow(axis, 1, size - 1).add_(flow.narrow(axis, 0, size - 1))
    assert abs(float(network(geometry, faces, c).sum() - (gain * c).sum())) < 1e-13 * float(c.sum())


def test_threads_change_no_bit() -> None:
    geometry, faces = case((5, 6, 33), "tvd", True, holes=True)
    c, rhs, found = uniform(5, 6, 33, seed=1), uniform(5, 6, 33, seed=2), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            cpu: CpuNetwork = CpuEngine(geometry)(faces)
            cpu.setup(torch.ones_like(c), None, c)
            solved = [cpu.solve(rhs, None, 1e-12, transposed).x for transposed in (False, True)]
            found.append([cpu.apply(c), *solved, *cpu.pull(rhs, c).named().values()])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_system_without_positive_pivots_is_not_solved() -> None:
    geometry, faces = case((2, 2, 3), "upwind", False, holes=False)
    cpu = CpuEngine(geometry)(faces)
    c = torch.zeros(2, 2, 3, dtype=torch.float64)
    cpu.setup(c - 100.0, None, c)
    assert not cpu.solve(c + 1.0, None, 1e-10, False).converged


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("fields", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (4, 1, 3), (3, 4, 9)])
def test_dispersion_of_the_cpu_backend_is_the_reference(
    shape: tuple[int, int, int], fields: bool, sides: bool
) -> None:
    geometry, faces = case(shape, "upwind", True, holes=True)
    names = ("longitudinal", "horizontal", "vertical", "pore")
    given = {n: uniform(*(shape if fields else (1, 1, 1)), seed=40 + k) for k, n in enumerate(names)}
    water = {s: uniform(*geometry.side_area(s).shape, seed=50) - 0.5 for s in SIDES} if sides else {}
    found = []
    for way in (CpuEngine.disperse, disperse):
        flow = {k: v.clone().requires_grad_() for k, v in faces.flow.items()}
        inflow = {s: v.clone().requires_grad_() for s, v in water.items()}
        leaves = {n: v.clone().requires_grad_() for n, v in given.items()}
        g, x = way(geometry, flow, inflow, Dispersion(**leaves))
        parts = [*g.values(), *x.values()]
        if not parts:
            return
        torch.stack([(p * uniform(*shape, seed=60 + k)).sum() for k, p in enumerate(parts)]).sum().backward()
        # what no face can change has no gradient, or 0
        of_flow = [torch.where(geometry.inverse[k] > 0.0, v.grad, 0.0) for k, v in flow.items()]  # type: ignore[arg-type]
        rest = [
            torch.zeros_like(v) if v.grad is None else v.grad for v in (*inflow.values(), *leaves.values())
        ]
        found.append([p.detach() for p in parts] + of_flow + rest)
    for one, two in zip(*found, strict=True):
        assert close(one, two)
