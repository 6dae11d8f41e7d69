"""The Triton stencil in Triton's interpreter against the reference. Run by ``test_field_triton.py`` in a process of its
own, since the interpreter is chosen when triton is imported (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from field_cases import section
from neural_cases import network
from soil_cases import CASES as SOILS
from soil_cases import random_heads, random_parameters
from test_field_kernel import compare, make, same

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, FACE_MEANS
from dgpde.kernels.flow_stencil.function import choose_stencil
from dgpde.kernels.flow_stencil.problem import SIDES
from dgpde.kernels.flow_stencil.triton import TritonStencil
from dgpde.kernels.flow_stencil.triton_soil import TritonSoil
from dgpde.kernels.soil_relation import cpu as soil

SHAPES = [(1, 1, 1), (2, 3, 5), (7, 1, 9), (5, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("face_mean", FACE_MEANS)
def test_every_mean_and_shape(shape: tuple[int, int, int], face_mean: str) -> None:
    compare(*make(shape, face_mean=face_mean), backend=TritonStencil)


@pytest.mark.parametrize(("relation", "variant"), SOILS)
def test_every_relation(relation: str, variant: int) -> None:
    compare(*make((3, 2, 17), relation, variant), backend=TritonStencil)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 129)], ids=str)
def test_a_network(shape: tuple[int, int, int]) -> None:
    compare(*make(shape, "network"), backend=TritonStencil)
    problem, inputs, step, psi = make(shape, "network")
    for features in range(3):
        inputs["soil.weights"] = network(2, features, 0.5).weights().detach()
        compare(problem, inputs, step, psi, backend=TritonStencil)


# the faces are the reference's own code; where they stand, a mixed set in every shape above tells as well
@pytest.mark.parametrize(
    ("side", "kind"),
    [
        *(("bottom", kind) for kind in BOUNDARY_VALUES if kind != "atmosphere"),
        *((side, "head") for side in SIDES[1:]),
    ],
)
def test_boundaries(side: str, kind: str) -> None:
    compare(*make((2, 3, 4), sides={side: kind}), backend=TritonStencil)


def test_atmosphere() -> None:
    compare(*make((3, 4, 5), sides={"top": "atmosphere"}), backend=TritonStencil)


def test_inactive_cells_columns_and_several_programs() -> None:
    compare(*make((4, 3, 11), inactive=True), backend=TritonStencil)
    compare(
        *make((4, 1, 21), sides={"top": "atmosphere", "bottom": "head"}, lateral=False), backend=TritonStencil
    )
    compare(*make((2, 2, 129)), backend=TritonStencil)  # wells in the first and the third program


def test_a_tabulated_response_of_roots() -> None:
    compare(*make((3, 2, 17), root_knots=(-2.0, 0.4), inactive=True), backend=TritonStencil)


def test_a_response_of_evaporation() -> None:
    compare(*make((3, 2, 17), evaporation_knots=(-2.0, 0.4)), backend=TritonStencil)


def test_one_value_for_all_cells_and_views() -> None:
    problem, inputs, step, psi = make((3, 2, 17))
    shared = dict(inputs)
    for name in ("soil.theta_r", "soil.alpha", "storage"):
        shared[name] = inputs[name][:1, :1, :1].expand(problem.shape)
    for name in ("soil.n", "soil.theta_s", "face_x"):
        shared[name] = torch.stack([inputs[name], torch.full_like(psi, torch.nan)], -1)[..., 0]
    full = {name: value.clone().contiguous() for name, value in shared.items()}
    view = torch.stack([psi, torch.full_like(psi, torch.nan)], -1)[..., 0]
    found = TritonStencil(problem, shared).evaluate(step, view, torch.zeros_like(psi), True)
    expected = TritonStencil(problem, full).evaluate(step, psi, torch.zeros_like(psi), True)
    assert torch.equal(found.residual, expected.residual)
    assert found.matrix is not None and expected.matrix is not None
    assert torch.equal(found.matrix, expected.matrix)
    one = {"storage": torch.full((), 1e-5).double().expand(problem.shape)}
    many = {"storage": one["storage"].clone()}
    state = (psi, psi, step.ponding)
    pushed = [TritonStencil(problem, shared).linearise(step, psi).push(psi, state, t) for t in (one, many)]
    assert torch.equal(pushed[0][0], pushed[1][0])


@pytest.mark.parametrize(("relation", "variant"), SOILS)
def test_heads_at_both_ends_of_what_is_promised(relation: str, variant: int) -> None:
    torch.manual_seed(5)
    psi = random_heads(300)
    parameters = list(random_parameters(relation, 300).values())
    here, there = TritonSoil(relation, variant, parameters, None, None), soil.Relation(relation, variant)
    curves = here.curves(psi)
    for name, value in zip(
        ("theta", "kr", "capacity", "dkr"), soil.curves(there, psi[None], parameters), strict=True
    ):
        same(getattr(curves, name), value[0], name)
    weight = torch.randn(300, dtype=torch.float64)
    gradients = [torch.zeros_like(value) for value in parameters]
    here.pull(psi, weight, weight, gradients)
    expected = soil.backward(there, psi[None], parameters, weight[None], weight[None])[1]
    for slot, value in enumerate(expected):
        same(gradients[slot], value.reshape(-1), f"parameter {slot}")


def test_a_table() -> None:
    torch.manual_seed(3)
    cells, knots, classes = 300, 12, 3
    x = -4.0 + 0.7 * torch.arange(knots, dtype=torch.float64)
    water = 0.4 / (1.0 + torch.exp(x))
    rows = [water, -water * (1.0 - water / 0.4), -torch.exp(0.4 * x), -0.4 * torch.exp(0.4 * x)]
    table = torch.stack(rows, -1) * (0.8 + 0.4 * torch.rand(classes, 1, 1, dtype=torch.float64))
    kind = torch.randint(classes, (cells,), dtype=torch.int32)
    # wetter than the first knot, inside, beyond the last one
    psi = torch.cat(
        [torch.tensor([0.3, -math.exp(-4.0)]), -torch.exp(-5.0 + 11.0 * torch.rand(cells - 2))]
    ).double()
    there = soil.Relation("tabulated", 0, kind, (-4.0, 0.7))
    here = TritonSoil("tabulated", 0, [table], kind, (-4.0, 0.7))
    curves = here.curves(psi)
    for name, value in zip(
        ("theta", "kr", "capacity", "dkr"), soil.curves(there, psi[None], [table]), strict=True
    ):
        same(getattr(curves, name), value[0], name)
    assert torch.equal(here.theta(psi), curves.theta)
    by_theta, by_kr = torch.randn(2, cells, dtype=torch.float64)
    gradient = torch.zeros_like(table)
    by_psi = here.pull(psi, by_theta, by_kr, [gradient])
    expected = soil.backward(there, psi[None], [table], by_theta[None], by_kr[None])
    same(by_psi, expected[0][0], "psi")
    same(gradient, expected[1][0].reshape(table.shape), "table")
    dot = torch.randn_like(table)
    moved = soil.tangent(there, psi[None], [table], by_theta[None], [dot])
    for found, value in zip(here.push(psi, by_theta, [dot]), moved, strict=True):
        same(found, value[0], "tangent")


def test_the_same_bits_again() -> None:
    problem, inputs, step, psi = make((2, 2, 129))
    found = [TritonStencil(problem, inputs).evaluate(step, psi, psi, True) for _ in range(2)]
    assert found[0].norm == found[1].norm
    assert torch.equal(found[0].residual, found[1].residual)


def test_asked_for_by_name() -> None:
    assert choose_stencil(torch.device("cpu"), "triton")[0] is TritonStencil


def test_a_relation_without_a_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relation: 'clay' has no Triton kernel.*van_genuchten"):
        TritonSoil("clay", 0, [torch.zeros(1).double()], None, None)


@pytest.mark.slow
def test_a_run_and_its_gradient() -> None:
    case = section()
    case = replace(
        case, times=[0.0, 300.0, 600.0, 900.0, 1200.0], options=replace(case.options, dt_fixed=300.0)
    )
    found = []
    for backend in ("triton", "cpu"):
        leaves = {name: value.clone().requires_grad_() for name, value in case.leaves.items()}
        run = case.solve(leaves, backend=backend)
        grads = torch.autograd.grad(run.psi[-1].sum(), list(leaves.values()))
        found.append({"psi": run.psi.detach()} | dict(zip(leaves, grads, strict=True)))
    for name in found[0]:
        # linear systems are solved to 1e-12 of their right-hand side, on matrices that differ by round-off
        same(found[0][name], found[1][name], name, close=1e-10)
