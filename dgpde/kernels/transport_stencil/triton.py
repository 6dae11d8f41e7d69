"""The Triton twin: the passes of ``triton_stencil.py``, systems by the GPU's linear solver. float64, no atomics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde.kernels.transport_stencil.problem import PAIRS, SCHEMES, Faces, Geometry, Solved
from dgpde.kernels.transport_stencil.triton_stencil import (
    across_kernel,
    divergence_kernel,
    gather_kernel,
    gradient_kernel,
    matrix_kernel,
    network_kernel,
    pull_kernel,
    scheme_kernel,
    wide_flow_kernel,
)
from dgpde.linear.stencil import StencilMatrix
from dgpde.linear.triton import TritonBackend
from dgpde.triton_launch import launch

MAX_ITERATIONS = 400  # of a linear solve

Pointers = tuple[Tensor, ...]


class TritonEngine:
    """What the steps of a run share: the geometry's arrays on the device, the solver, work fields."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.solver = geometry, TritonBackend("V")
        self.solved: StencilMatrix | None = None  # whose hierarchies the solver holds
        sample = geometry.widths[0]
        self.spare = sample.new_zeros(1)
        self.half = tuple((0.5 * width).contiguous() for width in geometry.widths)
        self.inverse = self.by_axis({k: v.contiguous() for k, v in geometry.inverse.items()})
        nz, ny, nx = geometry.shape
        self.sizes = {"nz": nz, "ny": ny, "nx": nx}
        self.axes = sum(1 << axis for axis in geometry.axes)
        self.pairs = sum(1 << PAIRS.index(pair) for pair in geometry.pairs)
        self.scheme = SCHEMES.index(geometry.scheme)

    def by_axis(self, values: dict[int, Tensor]) -> Pointers:
        """A pointer for each axis."""
        return tuple(values.get(axis, self.spare) for axis in range(3))

    def by_pair(self, values: dict[tuple[int, int], Tensor]) -> Pointers:
        """A pointer for each pair of axes."""
        return tuple(values.get(pair, self.spare) for pair in PAIRS)

    def fields(self) -> Pointers:
        """A field for each axis that exists."""
        shape = self.geometry.shape
        return tuple(
            self.spare.new_empty(shape) if axis in self.geometry.axes else self.spare for axis in range(3)
        )

    def __call__(self, faces: Faces) -> TritonNetwork:
        """The network of one solute in one step."""
        return TritonNetwork(self, faces)


class TritonNetwork:
    """See ``problem.Network``."""

    name = "triton"

    def __init__(self, engine: TritonEngine, faces: Faces) -> None:
        self.engine, self.geometry = engine, engine.geometry
        self.faces = _contiguous(faces)
        self.flow = engine.by_axis(self.faces.flow)
        self.cross = engine.by_pair(self.faces.cross)
        self._column: Tensor | None = None
        self._matrix: StencilMatrix | None = None
        self._scheme: tuple[Pointers, Pointers] = (engine.fields(), engine.fields())

    def _launch(self, kernel: Any, **arguments: Any) -> None:
        cells = self.geometry.volume.numel()
        launch(kernel, cells, **arguments, **self.engine.sizes, AXES=self.engine.axes)

    def _gradients(self, c: Tensor, factor: Tensor | None = None) -> Pointers:
        found = self.engine.fields()
        self._launch(
            gradient_kernel,
            c=c,
            factor=c if factor is None else factor,
            inverse=self.engine.inverse,
            gradient=found,
            FACTOR=factor is not None,
        )
        return found

    def _wide(self, moving: Faces, gradient: Pointers, linear: bool) -> Pointers:
        engine, phi = self.engine, self.engine.fields()
        up, here = self._scheme
        pairs = sum(1 << PAIRS.index(pair) for pair in moving.cross)
        self._launch(
            wide_flow_kernel,
            flow=self.flow,
            moving=engine.by_axis(moving.flow),
            cross=engine.by_pair(moving.cross),
            gradient=gradient,
            up=up,
            here=here,
            half=engine.half,
            phi=phi,
            MOVING=sum(1 << axis for axis in moving.flow),
            PAIRS=pairs,
            SCHEME=engine.scheme,
            LINEAR=linear,
        )
        return phi

    def apply(self, c: Tensor) -> Tensor:
        """N(c)."""
        return self.push(c, self.faces)

    def push(self, c: Tensor, faces: Faces) -> Tensor:
        """dN(c) for tangents of the faces; N is linear in them."""
        c, by = c.contiguous(), _contiguous(faces)
        out = torch.empty_like(c)
        wide = self.geometry.wide
        phi = self._wide(by, self._gradients(c), linear=False) if wide else self.engine.fields()
        self._launch(
            network_kernel,
            c=c,
            flow=self.flow,
            moving=self.engine.by_axis(by.flow),
            conductance=self.engine.by_axis(by.conductance),
            phi=phi,
            out=out,
            MOVING=sum(1 << axis for axis in by.flow),
            CONDUCTS=sum(1 << axis for axis in by.conductance),
            WIDE=wide,
        )
        return out

    def pull(self, multiplier: Tensor, c: Tensor) -> Faces:
        """d/d(faces) of -<multiplier, N(c)>."""
        engine = self.engine
        found = Faces(
            *({key: torch.empty_like(v) for key, v in part.items()} for part in vars(self.faces).values())
        )
        multiplier, c = multiplier.contiguous(), c.contiguous()
        gradient = self._gradients(c) if self.geometry.wide else engine.fields()
        self._launch(
            pull_kernel,
            multiplier=multiplier,
            c=c,
            flow=self.flow,
            gradient=gradient,
            half=engine.half,
            by_flow=engine.by_axis(found.flow),
            by_conductance=engine.by_axis(found.conductance),
            by_cross=engine.by_pair(found.cross),
            PAIRS=engine.pairs,
            SCHEME=engine.scheme,
        )
        return found

    def setup(self, diagonal: Tensor, column: Tensor | None, at: Tensor) -> None:
        """Assemble the matrix of the narrow part and the derivatives of the wide one."""
        engine, geometry = self.engine, self.geometry
        self._column = None if column is None else column.contiguous()
        diagonal = diagonal.expand(geometry.shape).contiguous()
        matrix = diagonal.new_empty(7, *geometry.shape)
        self._launch(
            matrix_kernel,
            diagonal=diagonal,
            column=diagonal if self._column is None else self._column,
            flow=self.flow,
            conductance=engine.by_axis(self.faces.conductance),
            matrix=matrix,
            COLUMN=column is not None,
        )
        self._matrix = StencilMatrix(matrix)
        if geometry.scheme != "upwind":
            up, here = self._scheme
            gradient = self._gradients(at.contiguous())
            self._launch(
                scheme_kernel,
                flow=self.flow,
                gradient=gradient,
                half=engine.half,
                up=up,
                here=here,
                SCHEME=engine.scheme,
            )

    def solve(self, rhs: Tensor, guess: Tensor | None, tolerance: float, transposed: bool) -> Solved:
        """GMRES with a multigrid cycle for the narrow part of the matrix."""
        assert self._matrix is not None
        solver = self.engine.solver
        extra = (self._transposed if transposed else self._plain) if self.geometry.wide else None
        # in steady water the matrix of a linear solute is the same one in every step
        solver.setup(self._matrix, reuse=self.engine.solved is self._matrix, extra=extra)
        self.engine.solved = self._matrix
        x, iterations, residual, reason = solver.solve(rhs, guess, tolerance, MAX_ITERATIONS, transposed)
        return Solved(x, iterations, residual, reason == "")

    def _plain(self, x: Tensor, scale: Tensor, out: Tensor) -> None:
        """out += scale d(div phi)/dc diag(column) x."""
        phi = self._wide(self.faces, self._gradients(x, self._column), linear=True)
        self._spread(phi, scale, None, out)

    def _transposed(self, x: Tensor, scale: Tensor, out: Tensor) -> None:
        """out += scale diag(column) (d(div phi)/dc)^T x."""
        engine = self.engine
        across, back = engine.fields(), engine.fields()
        pulled = engine.by_pair({pair: torch.empty_like(x) for pair in self.geometry.pairs})
        up, here = self._scheme
        self._launch(
            across_kernel, multiplier=x, cross=self.cross, across=across, pulled=pulled, PAIRS=engine.pairs
        )
        self._launch(
            gather_kernel,
            flow=self.flow,
            inverse=engine.inverse,
            across=across,
            up=up,
            here=here,
            pulled=pulled,
            back=back,
            PAIRS=engine.pairs,
            SCHEME=engine.scheme,
        )
        self._spread(back, scale, self._column, out)

    def _spread(self, phi: Pointers, scale: Tensor, factor: Tensor | None, out: Tensor) -> None:
        self._launch(
            divergence_kernel,
            phi=phi,
            scale=scale,
            factor=out if factor is None else factor,
            out=out,
            FACTOR=factor is not None,
        )


def _contiguous(faces: Faces) -> Faces:
    return Faces(*({key: v.contiguous() for key, v in part.items()} for part in vars(faces).values()))
