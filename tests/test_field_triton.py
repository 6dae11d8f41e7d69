"""The Triton stencil: in its interpreter against the reference, compiled for a GPU without one, and on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from soil_cases import CASES as SOILS
from test_field_kernel import compare, make
from triton_tools import compile_for_gpu, run_in_the_interpreter

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, FACE_MEANS
from dgpde.kernels.flow_stencil.function import choose_stencil
from dgpde.kernels.flow_stencil.problem import SIDES, zero_output

triton = pytest.importorskip("triton", reason="the package triton is not installed")


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_in_the_interpreter(chosen: str) -> None:
    run_in_the_interpreter("interpreted_triton.py", chosen)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stencil's module with launches that compile."""
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter takes the place of the compiler (TRITON_INTERPRET)")
    import dgpde.kernels.flow_stencil.triton as module
    from dgpde.kernels.flow_stencil import triton_network, triton_soil

    monkeypatch.setattr(module, "launch", compile_for_gpu)
    monkeypatch.setattr(triton_soil, "launch", compile_for_gpu)
    monkeypatch.setattr(triton_network, "launch", compile_for_gpu)
    monkeypatch.setattr(module, "why_not", lambda device: "")
    return module


@pytest.mark.parametrize(
    ("relation", "variant"),
    [
        pytest.param(*case, marks=[] if case[0] in ("van_genuchten", "saturated") else [pytest.mark.slow])
        for case in [*SOILS, ("tabulated", 0)]
    ],
)
def test_the_soil_compiles(compiled: Any, relation: str, variant: int) -> None:
    from dgpde.kernels.flow_stencil.triton_soil import TritonSoil

    cells = 300
    psi = torch.zeros(cells, dtype=torch.float64)
    classes, knots = torch.zeros(cells, dtype=torch.int32), (-3.0, 0.5)
    parameters = [torch.ones(2, 9, 4, dtype=torch.float64)]
    if relation != "tabulated":
        from soil_cases import random_parameters

        parameters = list(random_parameters(relation, cells).values())
    soil = TritonSoil(relation, variant, parameters, classes, knots)
    soil.theta(psi)
    soil.curves(psi)
    soil.pull(psi, psi, psi, [torch.zeros_like(value) for value in parameters])
    soil.push(psi, psi, parameters)


@pytest.mark.parametrize("features", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_the_network_compiles(compiled: Any, features: int) -> None:
    from neural_cases import network
    from soil_cases import random_parameters

    from dgpde.kernels.flow_stencil.triton_network import TritonNetwork

    psi = torch.zeros(300, dtype=torch.float64)
    *fields, _ = random_parameters("network", 300).values()
    parameters = [*fields, network(3, features).weights().detach()]
    soil = TritonNetwork(parameters)
    soil.theta(psi)
    soil.curves(psi)
    soil.pull(psi, psi, psi, [torch.zeros_like(value) for value in parameters])
    soil.push(psi, psi, parameters)


@pytest.mark.parametrize(
    ("face_mean", "shape"),
    [
        ("upstream", (1, 1, 1)),
        ("upstream", (3, 4, 70)),
        *(
            pytest.param(mean, (3, 4, 70), marks=pytest.mark.slow)
            for mean in FACE_MEANS
            if mean != "upstream"
        ),
    ],
)
def test_the_stencil_compiles(compiled: Any, face_mean: str, shape: tuple[int, int, int]) -> None:
    problem, inputs, step, psi = make(shape, "saturated", face_mean=face_mean, inactive=True)
    stencil = compiled.TritonStencil(problem, inputs)
    for matrix in (True, False):
        stencil.evaluate(step, psi, psi, matrix)
    linearised = stencil.linearise(step, psi)
    gradients = {name: torch.zeros_like(value) for name, value in inputs.items()}
    linearised.pull(psi, zero_output(problem, psi), psi, gradients)
    linearised.push(psi, (psi, psi, step.ponding), inputs)


def test_refused_on_the_cpu() -> None:
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter runs on the CPU (TRITON_INTERPRET)")
    with pytest.raises(ValueError, match=r"backend: 'triton' cannot run on tensors on cpu.*TRITON_INTERPRET"):
        choose_stencil(torch.device("cpu"), "triton")


@pytest.mark.gpu
@pytest.mark.parametrize(("relation", "variant"), SOILS)
def test_every_relation_on_a_gpu(relation: str, variant: int) -> None:
    from dgpde.kernels.flow_stencil.triton import TritonStencil

    with torch.device("cuda"):
        compare(*make((3, 4, 170), relation, variant), backend=TritonStencil, close=1e-11)


@pytest.mark.gpu
@pytest.mark.parametrize("face_mean", FACE_MEANS)
@pytest.mark.parametrize("inactive", [False, True])
def test_every_mean_on_a_gpu(face_mean: str, inactive: bool) -> None:
    from dgpde.kernels.flow_stencil.triton import TritonStencil

    with torch.device("cuda"):
        compare(*make((5, 3, 129), face_mean=face_mean, inactive=inactive), backend=TritonStencil)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", BOUNDARY_VALUES)
@pytest.mark.parametrize("side", SIDES)
def test_every_boundary_on_a_gpu(side: str, kind: str) -> None:
    from dgpde.kernels.flow_stencil.triton import TritonStencil

    if kind == "atmosphere" and side != "top":
        pytest.skip("the atmosphere is above")
    with torch.device("cuda"):
        compare(*make((3, 2, 9), sides={side: kind}), backend=TritonStencil)


@pytest.mark.gpu
def test_a_run_and_its_gradient_on_a_gpu() -> None:
    from field_cases import section

    case = section()
    found, expected = [], []
    for device, results in (("cuda", found), ("cpu", expected)):
        leaves = {name: value.to(device).requires_grad_() for name, value in case.leaves.items()}
        solution = case.solve(leaves)
        results.append(solution.psi)
        results += torch.autograd.grad(solution.psi[-1].sum(), list(leaves.values()), allow_unused=True)
    for here, there in zip(found, expected, strict=True):
        assert (here is None) == (there is None)
        if here is not None:
            # Newton stops within its tolerance of the solution, at other iterates
            torch.testing.assert_close(here.cpu(), there, rtol=1e-5, atol=1e-7)
