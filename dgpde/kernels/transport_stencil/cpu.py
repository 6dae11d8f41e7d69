"""The C++ twin: ``dgpde._C.TransportEngine``, one for each run, which keeps its work vectors from step to step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.transport_stencil.problem import PAIRS, SCHEMES, Faces, Geometry, Solved

MAX_ITERATIONS = 400  # of a linear solve


class CpuEngine:
    """What the steps of a run share: the geometry's arrays and the native engine."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.module = geometry, native_module()
        self.native: Any = self.module.TransportEngine()
        self.halves = [(0.5 * width).contiguous() for width in geometry.widths]
        self.inverse = geometry.inverse
        self.holder: CpuNetwork | None = None  # whose faces the engine points to
        self.matrix_of: object = None  # what its matrix was made from

    def __call__(self, faces: Faces) -> CpuNetwork:
        """The network of one solute in one step."""
        return CpuNetwork(self, faces)


class CpuNetwork:
    """See ``problem.Network``."""

    name = "cpu"

    def __init__(self, engine: CpuEngine, faces: Faces) -> None:
        self.engine, self.geometry = engine, engine.geometry
        self.faces = Faces(
            *({key: v.contiguous() for key, v in part.items()} for part in vars(faces).values())
        )
        self.threads = torch.get_num_threads()
        self._kept: tuple[Tensor | None, ...] = ()

    def _point(self) -> Any:
        engine, geometry = self.engine, self.geometry
        if engine.holder is not self:
            halves = [half.data_ptr() for half in engine.halves]
            inverse = [_address(engine.inverse.get(k)) for k in range(3)]
            scheme = SCHEMES.index(geometry.scheme)
            engine.native.set(geometry.shape, scheme, halves, inverse, *_addresses(self.faces))
            engine.holder = self
        return engine.native

    def apply(self, c: Tensor) -> Tensor:
        """N(c)."""
        return self.push(c, self.faces)

    def push(self, c: Tensor, faces: Faces) -> Tensor:
        """dN(c) for tangents of the faces; N is linear in them."""
        c, out = c.contiguous(), torch.empty_like(c, memory_format=torch.contiguous_format)
        by = Faces(*({key: v.contiguous() for key, v in part.items()} for part in vars(faces).values()))
        self._point().apply(c.data_ptr(), *_addresses(by), out.data_ptr(), self.threads)
        return out

    def setup(self, diagonal: Tensor, column: Tensor | None, at: Tensor) -> None:
        """Assemble the matrix and its factors."""
        kept = (diagonal.contiguous(), None if column is None else column.contiguous(), at.contiguous())
        self._kept = kept
        self._point().setup(*(_address(value) for value in kept), self.threads)

    def solve(self, rhs: Tensor, guess: Tensor | None, tolerance: float, transposed: bool) -> Solved:
        """By the stabilised bi-conjugate gradients with incomplete factors of the upwind matrix."""
        rhs = rhs.contiguous()
        x = torch.zeros_like(rhs) if guess is None else guess.clone(memory_format=torch.contiguous_format)
        options = self.engine.module.LinearOptions()
        options.tolerance, options.max_iterations = tolerance, MAX_ITERATIONS
        options.transposed, options.guess, options.threads = transposed, guess is not None, self.threads
        report = self._point().solve(rhs.data_ptr(), x.data_ptr(), options)
        return Solved(x, report.iterations, report.residual, report.status == 0)

    def pull(self, multiplier: Tensor, c: Tensor) -> Faces:
        """d/d(faces) of -<multiplier, N(c)>."""
        found = Faces(
            *({key: torch.empty_like(v) for key, v in part.items()} for part in vars(self.faces).values())
        )
        multiplier, c = multiplier.contiguous(), c.contiguous()
        self._point().pull(multiplier.data_ptr(), c.data_ptr(), *_addresses(found), self.threads)
        return found


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _addresses(faces: Faces) -> tuple[list[int], list[int], list[int]]:
    return (
        [_address(faces.flow.get(k)) for k in range(3)],
        [_address(faces.conductance.get(k)) for k in range(3)],
        [_address(faces.cross.get(pair)) for pair in PAIRS],
    )
