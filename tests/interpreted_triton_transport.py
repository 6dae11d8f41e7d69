"""The Triton transport stencil in Triton's interpreter against the reference. Run by ``test_transport_triton.py`` in a
process of its own.
"""

from __future__ import annotations

import pytest
import torch
from test_transport_stencil import Shape, check_network, check_solves

import dgpde
from dgpde.kernels.transport_stencil.problem import SCHEMES
from dgpde.kernels.transport_stencil.triton import TritonEngine

SHAPES = [(1, 1, 1), (2, 1, 1), (5, 1, 4), (3, 4, 5), pytest.param((2, 1, 129), marks=pytest.mark.slow)]


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("cross_terms", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_reference(shape: Shape, scheme: str, cross_terms: bool, holes: bool) -> None:
    check_network(TritonEngine, shape, scheme, cross_terms, holes)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("scheme", "cross_terms", "columns"),
    [("upwind", False, True), ("central", True, False), ("tvd", True, True)],
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3)], ids=str)
def test_solves_with_the_jacobian(
    shape: Shape, scheme: str, cross_terms: bool, columns: bool, transposed: bool
) -> None:
    check_solves(TritonEngine, shape, scheme, cross_terms, columns, transposed, 1e-11)


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
