"""The C++ stencil against the reference: residual, Jacobian, and both derivatives, for every relation and boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from soil_cases import CASES as SOILS
from soil_cases import random_parameters
from torch import Tensor

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, FACE_MEANS
from dgpde.kernels.flow_stencil.cpu import CpuStencil
from dgpde.kernels.flow_stencil.problem import (
    AXES,
    DARCY,
    PRESCRIBED,
    SIDES,
    CarryingStencil,
    StencilProblem,
    Step,
    zero_output,
)
from dgpde.kernels.flow_stencil.reference import ReferenceStencil, terms
from dgpde.kernels.soil_relation.reference import is_shared

Tensors = dict[str, Tensor]
# Round-off: values agree relative to the largest of their field, whose terms they are made of.
CLOSE = 1e-12
SHAPES = [(1, 1, 1), (2, 1, 2), (1, 3, 2), (5, 1, 63), (3, 4, 17), (2, 2, 129)]
MIXED = {
    "top": "atmosphere",
    "bottom": "free_drainage",
    "west": "head",
    "east": "general_head",
    "south": "seepage_face",
    "north": "flux",
}


def make(
    shape: tuple[int, int, int],
    relation: str = "van_genuchten",
    variant: int = 0,
    sides: dict[str, str] | None = None,
    face_mean: str = "upstream",
    inactive: bool = False,
    lateral: bool = True,
    root_knots: tuple[float, float] | None = None,
    evaporation_knots: tuple[float, float] | None = None,
) -> tuple[StencilProblem, Tensors, Step, Tensor]:
    """A random problem in which every input differs from cell to cell."""
    torch.manual_seed(sum(shape) + len(relation))
    nz, ny, nx = shape
    cells = nz * ny * nx

    def draw(*size: int, low: float = 0.5, high: float = 1.5) -> Tensor:
        return low + (high - low) * torch.rand(size, dtype=torch.float64)

    active = None
    if inactive:
        active = torch.rand(shape) < 0.7
        active[0, 0, 0] = True
    problem = StencilProblem(
        shape=shape,
        widths=(draw(nz), draw(ny), draw(nx)),
        rise=(draw(nz, 1, 1), draw(1, ny, nx, low=-0.2, high=0.2), draw(1, ny, nx, low=-0.2, high=0.2)),
        gravity=1.0,
        relation=relation,
        variant=variant,
        face_mean=face_mean,
        lateral=lateral,
        sides={side: (sides or MIXED)[side] for side in SIDES if side in (sides or MIXED)},
        wells=torch.tensor([cells - 1, 0][: min(2, cells)]) if cells > 1 else torch.tensor([0]),
        rivers=torch.tensor([0 if inactive else cells // 2]),
        source=True,
        roots=True,
        root_knots=root_knots,
        evaporation_knots=evaporation_knots,
        active=active,
    )
    inputs = {
        "psi0": draw(*shape, low=-3.0, high=0.5),
        "ponding0": draw(ny, nx, low=0.0, high=2e-3),
        "storage": 1e-4 * draw(*shape),
        "source": 1e-7 * draw(2, nz, 1, nx),
        "wells": -1e-7 * draw(2, problem.wells.numel()),
        "rivers.head": draw(2, 1, low=-1.0, high=1.0),
        "rivers.conductance": 1e-6 * draw(2, 1),
        "roots.transpiration": 1e-4 * draw(2, ny, 1),
        "roots.density": draw(2, nz, ny, nx),
    }
    inputs["roots.density"][:, : nz // 2] = 0.0
    if root_knots is None:
        for name, head in (("h1", -0.1), ("h2", -0.6), ("h3", -1.5), ("h4", -2.4)):
            inputs[f"roots.{name}"] = head + 0.3 * draw(2, 1, nx, low=-0.5, high=0.5)
    else:
        inputs["root_response"] = draw(9, 2, ny, nx, low=0.0, high=1.0)
    if evaporation_knots is not None:
        inputs["evaporation_response"] = draw(9, 2, ny, 1, low=0.0, high=1.0)
    for axis in problem.axes:
        face = 1e-5 * draw(*shape)
        face.narrow(axis, shape[axis] - 1, 1).zero_()
        if active is not None:
            inside, size = active, shape[axis] - 1
            face.narrow(axis, 0, size).mul_(inside.narrow(axis, 0, size) & inside.narrow(axis, 1, size))
        inputs[f"face_{AXES[axis]}"] = face
    if active is not None:
        inputs["storage"] = inputs["storage"] * active
    for name, value in random_parameters(relation, cells).items():
        inputs[f"soil.{name}"] = value if is_shared(name) else value.reshape(shape)
    scale = {
        "psi": (-2.0, 0.5),
        "q": (-1e-6, 1e-6),
        "head": (-1.0, 2.0),
        "conductance": (1e-7, 1e-6),
        "level": (0.0, 1.0),
        "coefficient": (1e-8, 1e-7),
        "exponent": (0.1, 1.0),
        "precipitation": (0.0, 4e-5),
        "evaporation": (0.0, 2e-5),
        "psi_min": (-5.0, -2.0),
        "ponding_max": (0.0, 2e-3),
        "kr": (0.0, 1.0),
        "transmissivity": (1e-6, 1e-4),
    }
    for side, kind in problem.sides.items():
        names = [*BOUNDARY_VALUES[kind], *(["kr"] if kind in PRESCRIBED else [])]
        for name in [*names, *(["transmissivity"] if kind in DARCY else [])]:
            rows = 1 if name == "transmissivity" else 2
            low, high = scale[name]
            inputs[f"{side}.{name}"] = draw(rows, *problem.side_shape(side), low=low, high=high)
    assert set(inputs) == set(problem.input_names())
    psi = draw(*shape, low=-3.0, high=0.5)
    theta = ReferenceStencil(problem, inputs).theta(inputs["psi0"])
    return problem, inputs, Step(1, 737.0, inputs["psi0"], theta, inputs["ponding0"]), psi


def same(found: Tensor, expected: Tensor, what: str, close: float = CLOSE) -> None:
    __tracebackhide__ = True
    assert found.shape == expected.shape, what
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found - expected).abs().max())
    assert error <= close * scale, f"{what}: {error:.3g} of {scale:.3g}"


def compare(
    problem: StencilProblem,
    inputs: Tensors,
    step: Step,
    psi: Tensor,
    close: float = CLOSE,
    backend: Callable[[StencilProblem, Tensors], CarryingStencil] = CpuStencil,
) -> None:
    """Everything that a backend and the reference compute."""
    native, reference = backend(problem, inputs), ReferenceStencil(problem, inputs)
    allowed = 1e-9 * problem.volume(psi)
    here, there = (stencil.evaluate(step, psi, allowed, True) for stencil in (native, reference))
    for name in ("residual", "theta", "capacity", "ponding", "runoff", "matrix"):
        same(getattr(here, name), getattr(there, name), name, close)
    for name, value in there.fluxes().items():
        same(here.fluxes()[name], value, f"flux {name}", close)
    for name in ("norm", "total", "magnitude"):
        size = {"total": there.magnitude}.get(name, getattr(there, name))
        assert abs(getattr(here, name) - getattr(there, name)) <= close * size, name
    # round-off of the residual is compared: agree to a part of the largest residual
    largest = float(there.residual.abs().max())
    assert abs(here.beyond - there.beyond) <= close * largest
    assert abs(here.exact - there.exact) <= close * largest

    first, second = native.linearise(step, psi), reference.linearise(step, psi)
    same(first.matrix, second.matrix, "matrix of the adjoint", close)
    carried = [stencil.carried(step, psi) for stencil in (native, reference)]
    same(carried[0].theta, carried[1].theta, "theta carried", close)
    for name, value in carried[1].outputs().items():
        same(carried[0].outputs()[name], value, f"{name} carried", close)
    for side in problem.sides:
        same(carried[0].sides[side], carried[1].sides[side], f"{side} carried", close)
    outputs = zero_output(problem, psi) | carried[1].outputs()
    seeds = {name: torch.randn(value.shape).double() for name, value in outputs.items()}
    carry, multiplier = torch.randn(psi.shape).double(), torch.randn(psi.shape).double()
    same(first.load(seeds, carry), second.load(seeds, carry), "load", close)
    pulled = []
    for there_ in (first, second):
        gradients = {
            name: torch.zeros_like(value)
            for name, value in inputs.items()
            if name not in ("psi0", "ponding0")
        }
        carries = there_.pull(multiplier, seeds, carry, gradients)
        pulled.append(
            gradients | dict(zip(("carry theta", "carry psi", "carry ponding"), carries, strict=True))
        )
    for name in pulled[0]:
        same(pulled[0][name], pulled[1][name], f"gradient of {name}", close)
    tangents = {
        n: v * torch.randn(v.shape).double() for n, v in inputs.items() if n not in ("psi0", "ponding0")
    }
    state = tuple(torch.randn(v.shape).double() for v in (psi, psi, step.ponding))
    moved = [there_.push(multiplier, state, tangents) for there_ in (first, second)]
    same(moved[0][0], moved[1][0], "tangent of F", close)
    same(moved[0][1], moved[1][1], "tangent of theta", close)
    assert moved[0][2].keys() == moved[1][2].keys()
    for name in moved[1][2]:
        same(moved[0][2][name], moved[1][2][name], f"tangent of {name}", close)
    gradients = [
        {f"soil.{n}": torch.zeros_like(inputs[f"soil.{n}"]) for n in problem.soil_names()} for _ in range(2)
    ]
    heads = [s.pull_theta(psi, carry, g) for s, g in zip((native, reference), gradients, strict=True)]
    same(heads[0], heads[1], "theta pulled to psi", close)
    same(
        native.push_theta(psi, carry, tangents),
        reference.push_theta(psi, carry, tangents),
        "tangent of theta",
        close,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_network(shape: tuple[int, int, int]) -> None:
    compare(*make(shape, "network"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("face_mean", FACE_MEANS)
def test_every_mean_and_shape(shape: tuple[int, int, int], face_mean: str) -> None:
    compare(*make(shape, face_mean=face_mean))


@pytest.mark.parametrize(("relation", "variant"), SOILS)
def test_every_relation(relation: str, variant: int) -> None:
    # slopes of the steepest random curves (theta of Haverkamp within its log) agree to 1e-11 in the soil's own tests
    compare(*make((3, 4, 17), relation, variant), close=1e-11)


@pytest.mark.parametrize("kind", BOUNDARY_VALUES)
@pytest.mark.parametrize("side", SIDES)
def test_every_boundary_on_every_side(side: str, kind: str) -> None:
    if kind == "atmosphere" and side != "top":
        pytest.skip("the atmosphere is above")
    compare(*make((3, 2, 9), sides={side: kind}))


def test_inactive_cells_and_columns() -> None:
    compare(*make((4, 3, 11), inactive=True))
    compare(*make((4, 1, 21), sides={"top": "atmosphere", "bottom": "head"}, lateral=False))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_tabulated_response_of_roots(shape: tuple[int, int, int]) -> None:
    knots = (-2.0, 0.4)  # ln of the suction; heads are wetter than the first and drier than the last too
    problem, inputs, step, psi = make(shape, root_knots=knots, inactive=shape == (3, 4, 17))
    compare(problem, inputs, step, psi)
    shared = inputs | {"root_response": inputs["root_response"][..., :1, :1]}
    compare(problem, shared, step, psi)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_response_of_evaporation(shape: tuple[int, int, int]) -> None:
    compare(*make(shape, evaporation_knots=(-2.0, 0.4), inactive=shape == (3, 4, 17)))


def test_inactive_cells_stay_as_they_are() -> None:
    problem, inputs, step, psi = make((4, 3, 11), inactive=True)
    assert problem.active is not None
    outside = ~problem.active
    for kind in (CpuStencil, ReferenceStencil):
        now = kind(problem, inputs).evaluate(step, psi, torch.zeros_like(psi), True)
        assert now.matrix is not None
        assert bool((now.matrix[0][outside] == 1.0).all())
        assert bool((now.matrix[1:, outside] == 0.0).all())


def test_one_value_for_all_cells_and_views_are_read_as_they_are() -> None:
    problem, inputs, step, psi = make((3, 4, 17))
    shared = dict(inputs)
    for name in ("soil.theta_r", "soil.alpha", "storage"):
        shared[name] = inputs[name][:1, :1, :1].expand(problem.shape)
    for name in ("soil.n", "soil.theta_s", "face_x"):
        shared[name] = torch.stack([inputs[name], torch.full_like(psi, torch.nan)], -1)[..., 0]
    full = {name: value.clone().contiguous() for name, value in shared.items()}
    found = CpuStencil(problem, shared).evaluate(step, psi, torch.zeros_like(psi), True)
    expected = CpuStencil(problem, full).evaluate(step, psi, torch.zeros_like(psi), True)
    assert torch.equal(found.residual, expected.residual)
    assert torch.equal(found.matrix, expected.matrix)


def test_the_number_of_threads_changes_no_bit() -> None:
    problem, inputs, step, psi = make((3, 4, 63))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(CpuStencil(problem, inputs).evaluate(step, psi, torch.zeros_like(psi), True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].residual, found[1].residual)
    assert torch.equal(found[0].matrix, found[1].matrix)
    assert found[0].norm == found[1].norm


@pytest.mark.parametrize("face_mean", FACE_MEANS)
def test_the_jacobian_is_the_derivative_of_the_residual(face_mean: str) -> None:
    from field_cases import dense

    problem, inputs, step, psi = make((3, 2, 4), face_mean=face_mean, inactive=True)
    state = (step.theta, step.psi, step.ponding)

    def residual(x: Tensor) -> Tensor:
        return terms(problem, inputs, step, x, state).residual

    expected = torch.autograd.functional.jacobian(residual, psi).reshape(problem.cells, problem.cells)
    found = CpuStencil(problem, inputs).evaluate(step, psi, torch.zeros_like(psi), True).matrix
    assert found is not None and problem.active is not None
    same(dense(problem, found), expected, "Jacobian")


def test_a_pass_without_the_matrix_gives_the_same_residual() -> None:
    problem, inputs, step, psi = make((3, 4, 17))
    stencil = CpuStencil(problem, inputs)
    found = stencil.evaluate(step, psi, torch.zeros_like(psi), False)
    assert found.matrix is None
    assert torch.equal(found.residual, stencil.evaluate(step, psi, torch.zeros_like(psi), True).residual)


def test_a_problem_is_linear_only_when_it_is() -> None:
    problem, *_ = make((2, 1, 2), "saturated", sides={"top": "flux", "west": "head"})
    assert not problem.linear and problem.symmetric  # uptake responds to the head
    problem = replace(problem, roots=False)
    assert problem.linear
    assert not replace(problem, sides={"top": "seepage_face"}).linear
    assert not make((2, 1, 2))[0].symmetric
