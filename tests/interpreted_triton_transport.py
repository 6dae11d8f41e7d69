"""The Triton transport stencil in Triton's interpreter against the reference. Run by ``test_transport_triton.py`` in a
process of its own.
"""

from __future__ import annotations

import pytest
import torch
from test_transport_stencil import case, close, uniform

import dgpde
from dgpde.kernels.transport_stencil.problem import SCHEMES, Faces
from dgpde.kernels.transport_stencil.reference import ReferenceNetwork
from dgpde.kernels.transport_stencil.triton import TritonEngine

SHAPES = [(1, 1, 1), (2, 1, 1), (5, 1, 4), (3, 4, 5), pytest.param((2, 1, 129), marks=pytest.mark.slow)]


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("cross_terms", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_reference(shape: tuple[int, int, int], scheme: str, cross_terms: bool, holes: bool) -> None:
    geometry, faces = case(shape, scheme, cross_terms, holes)
    mine, reference = TritonEngine(geometry)(faces), ReferenceNetwork(geometry, faces)
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
        there = exists["zyx".index(name.partition("_")[2][0])]
        assert close(torch.where(there, pulled[name], 0.0), torch.where(there, value, 0.0)), name


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("scheme", "cross_terms", "columns"),
    [("upwind", False, True), ("central", True, False), ("tvd", True, True)],
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3)], ids=str)
def test_solves_with_the_jacobian(
    shape: tuple[int, int, int], scheme: str, cross_terms: bool, columns: bool, transposed: bool
) -> None:
    geometry, faces = case(shape, scheme, cross_terms, holes=True)
    mine, reference = TritonEngine(geometry)(faces), ReferenceNetwork(geometry, faces)
    c, rhs = uniform(*shape, seed=20), uniform(*shape, seed=22) - 0.5
    diagonal = 1.0 + 3.0 * uniform(*shape, seed=23)
    column = uniform(*shape, seed=24) if columns else None  # a solid that holds all: 0
    if column is not None:
        column[0, 0, 0] = 0.0
    found = []
    for one in (mine, reference):
        one.setup(diagonal, column, c)
        found.append(one.solve(rhs, None, 1e-11, transposed))
    assert found[0].converged
    # the condition numbers of these systems are below 100
    assert (found[0].x - found[1].x).norm() <= 1e-9 * found[1].x.norm()


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_rides_on_a_flow_of_the_same_backend(scheme: str) -> None:
    grid = dgpde.Grid((3, 2), ([0.2, 0.2, 0.1], 0.4))
    found = []
    for backend in ("triton", "cpu"):
        k_sat = torch.full((3, 2), 1e-5, dtype=torch.float64, requires_grad=True)
        length = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
        options = dgpde.SolveOptions(backend=backend, dt_fixed=900.0, tolerance=1e-12)
        flow = dgpde.Richards(
            grid,
            dgpde.VanGenuchten(0.065, 0.41, 5.0, 1.7, k_sat),
            {
                "top": dgpde.Flux(-2e-6),
                "bottom": dgpde.FreeDrainage(),
            },
            sources=[dgpde.River([(0, 1)], -0.5, 1e-6)],
            specific_storage=1e-3,
        ).solve(-0.8, [0.0, 900.0, 1800.0], options)
        transport = dgpde.Transport(
            grid,
            dgpde.Solute("c", length, 0.01, 1e-9),
            {"top": dgpde.InflowConcentration(1.0)},
            scheme,
            cross_terms=True,
        )
        run = transport.solve(0.1, flow, options=options)
        loss = (run.concentration[-1] ** 2).sum() + flow.psi[-1].mean()
        found.append([run.concentration.detach(), *torch.autograd.grad(loss, [k_sat, length])])
    for mine, theirs in zip(*found, strict=True):
        # two Newton iterations end within 1e-12 of the pore space of the solution
        assert float((mine - theirs).abs().max()) < 1e-7 * float(theirs.abs().max())


@pytest.mark.slow
def test_a_reaction_is_that_of_the_cpu() -> None:
    grid, found = dgpde.Grid((2, 3), (0.1, [0.1, 0.2, 0.1])), []
    flow = dgpde.SteadyFlow(0.3, {"x": 1e-5, "z": 0.0})
    for backend in ("cpu", "triton"):
        half = torch.full((3,), 0.2, dtype=torch.float64, requires_grad=True)
        monod = dgpde.Monod(1e-4, {"a": half, "b": 0.1}, {"a": -1.0, "b": 0.5})
        transport = dgpde.Transport(
            grid,
            [dgpde.Solute("a", 0.05, 0.01), dgpde.Solute("b")],
            {"west": dgpde.InflowConcentration(1.0)},
            "tvd",
            reaction=dgpde.Reaction(monod),
        )
        options = dgpde.SolveOptions(linear_tolerance=1e-12, backend=backend)
        done = transport.solve(0.2, flow, [0.0, 2000.0], options)
        done.concentration.square().sum().backward()
        assert half.grad is not None
        found.append((done.concentration.detach(), half.grad))
    for one, two in zip(*found, strict=True):
        # one step, solved to 1e-12 by both
        assert float((one - two).abs().max()) < 1e-10 * float(one.abs().max())
