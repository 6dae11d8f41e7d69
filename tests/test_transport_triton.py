"""The transport stencil in Triton: in its interpreter against the reference, compiled for a GPU without one, and on
one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_transport_stencil import SHAPES, case, close, uniform
from triton_tools import compile_for_gpu, run_in_the_interpreter

from dgpde.kernels.transport_stencil.cpu import CpuEngine
from dgpde.kernels.transport_stencil.problem import SCHEMES, Faces, Geometry

triton = pytest.importorskip("triton", reason="the package triton is not installed")


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_in_the_interpreter(chosen: str) -> None:
    run_in_the_interpreter("interpreted_triton_transport.py", chosen)


@pytest.mark.parametrize("shape", [(3, 4, 20), pytest.param((1, 1, 1), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_kernel_compiles(
    scheme: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter takes the place of the compiler (TRITON_INTERPRET)")
    import dgpde.kernels.transport_stencil.triton as module

    monkeypatch.setattr(module, "launch", compile_for_gpu)
    geometry, faces = case(shape, scheme, scheme != "central", holes=False)
    network = module.TritonEngine(geometry)(faces)
    c = uniform(*shape)
    network.apply(c)
    network.pull(c, c)
    one = torch.ones(1, dtype=torch.float64)
    for column in (None, c):
        network.setup(c, column, c)
        network._plain(c, one, c.clone())
        network._transposed(c, one, c.clone())


def moved(geometry: Geometry, faces: Faces, device: str) -> tuple[Geometry, Faces]:
    """On a device."""
    widths: Any = tuple(width.to(device) for width in geometry.widths)
    active = None if geometry.active is None else geometry.active.to(device)
    there = Geometry(geometry.shape, widths, geometry.axes, active, geometry.scheme, geometry.cross_terms)
    return there, Faces(*({k: v.to(device) for k, v in part.items()} for part in vars(faces).values()))


@pytest.mark.gpu
@pytest.mark.parametrize("cross_terms", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_cpu_backend_on_a_gpu(shape: tuple[int, int, int], scheme: str, cross_terms: bool) -> None:
    from dgpde.kernels.transport_stencil.triton import TritonEngine

    geometry, faces = case(shape, scheme, cross_terms, holes=True)
    there, on_gpu = moved(geometry, faces, "cuda")
    mine, cpu = TritonEngine(there)(on_gpu), CpuEngine(geometry)(faces)
    c, multiplier = uniform(*shape, seed=20), uniform(*shape, seed=21) - 0.5
    assert close(mine.apply(c.cuda()).cpu(), cpu.apply(c))
    pulled, wanted = mine.pull(multiplier.cuda(), c.cuda()).named(), cpu.pull(multiplier, c).named()
    for name, value in wanted.items():
        exists = geometry.inverse["zyx".index(name.partition("_")[2][0])] > 0.0
        assert close(torch.where(exists, pulled[name].cpu(), 0.0), torch.where(exists, value, 0.0)), name
    diagonal = 1.0 + 3.0 * uniform(*shape, seed=23)
    for transposed in (False, True):
        mine.setup(diagonal.cuda(), None, c.cuda())
        cpu.setup(diagonal, None, c)
        found = mine.solve(multiplier.cuda(), None, 1e-11, transposed)
        expected = cpu.solve(multiplier, None, 1e-13, transposed)
        assert found.converged
        # the condition numbers of these systems are below 100
        assert (found.x.cpu() - expected.x).norm() <= 1e-9 * expected.x.norm()
