"""The preconditioner on a GPU: the multigrid cycle of ``README.md`` by the Triton kernels of ``triton_level.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.linear.stencil import StencilMatrix
from dgpde.linear.triton_level import (
    coarsen_kernel,
    factor_kernel,
    prolong_kernel,
    restrict_kernel,
    sweep_kernel,
)
from dgpde.triton_launch import launch, programs

ADAPTIVE = 4.0  # a direction is coarsened when its mean coupling is within this factor of the other's
WEAK = 0.01  # lateral couplings below this part of the excess of the rows need no coarser level
LATERAL = ("south", "north", "west", "east")
FACTORS = ("lower", "inverse", "upper")


class SingularLine(Exception):
    """A line along z has a zero or non-finite pivot."""


@dataclass
class Level:
    """One level: what its sweeps read and write, [2, nz, ny, half], colour by colour.

    Attributes:
        shape: (nz, ny, nx).
        fields: lower, inverse, upper, and the couplings by name.
        b, x: right-hand side and solution.
        before: [nz, ny, half] right-hand sides of the lines of colour 0; one number where nobody reads them.
        fy, fx: columns of an aggregate of the next level along y and x; 1 and 1 on the coarsest.
    """

    shape: tuple[int, int, int]
    fields: dict[str, Tensor]
    b: Tensor
    x: Tensor
    before: Tensor
    fy: int = 1
    fx: int = 1

    @classmethod
    def empty(cls, shape: tuple[int, int, int], like: Tensor) -> Level:
        """Zeros: entries past the end of a row are never written, and count for nothing."""
        nz, ny, nx = shape
        size = (2, nz, ny, (nx + 1) // 2)
        fields = {name: like.new_zeros(size) for name in (*FACTORS, *LATERAL)}
        return cls(shape, fields, like.new_zeros(size), like.new_zeros(size), like.new_zeros(1))

    @property
    def half(self) -> int:
        """Columns of a row and colour."""
        return (self.shape[2] + 1) // 2

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(value.nbytes for value in (*self.fields.values(), self.b, self.x, self.before))

    def sweep(self, colour: int, alone: bool = False, keep: bool = False) -> None:
        """Solve the lines of a colour; ``alone`` with x = 0 beside them, ``keep`` what they were solved for."""
        nz, ny, _ = self.shape
        launch(
            sweep_kernel,
            ny * self.half,
            b=self.b,
            x=self.x,
            **self.fields,
            before=self.before,
            nz=nz,
            ny=ny,
            half=self.half,
            COLOUR=colour,
            ALONE=alone,
            KEEP=keep,
        )

    def restrict(self, coarse: Level, zero: bool) -> None:
        """The residual into the right-hand side of the next level; ``zero``: x was 0 before the sweeps."""
        nz, ny, nx = self.shape
        _, coarse_ny, coarse_nx = coarse.shape
        launch(
            restrict_kernel,
            nz * coarse_ny * coarse_nx,
            b=self.b,
            x=self.x,
            before=self.before,
            **{name: self.fields[name] for name in LATERAL},
            coarse_b=coarse.b,
            nz=nz,
            ny=ny,
            nx=nx,
            half=self.half,
            coarse_ny=coarse_ny,
            coarse_nx=coarse_nx,
            coarse_half=coarse.half,
            FY=self.fy,
            FX=self.fx,
            ZERO=zero,
        )

    def prolong(self, coarse: Level) -> None:
        """Add the correction of the next level."""
        nz, ny, nx = self.shape
        launch(
            prolong_kernel,
            nz * ny * self.half,
            x=self.x,
            coarse_x=coarse.x,
            nz=nz,
            ny=ny,
            nx=nx,
            half=self.half,
            coarse_ny=coarse.shape[1],
            coarse_half=coarse.half,
            FY=self.fy,
            FX=self.fx,
        )


class Hierarchy:
    """Levels of a matrix or of its transpose.

    Args:
        matrix: what is to be preconditioned.
        transposed: whether its transpose is.
        dtype: of what is stored: float32 or float64. Factors are made in float64.

    Attributes:
        levels: the finest first. They hold scale * A, so that a cycle returns (1 / scale) A^-1 b.
        contrast: arithmetic mean of the lateral couplings over the harmonic mean of them and the rows' excess.

    Raises:
        SingularLine: a zero or non-finite pivot.
    """

    def __init__(self, matrix: StencilMatrix, transposed: bool, dtype: torch.dtype) -> None:
        coefficients, self.levels = matrix.coefficients, list[Level]()
        largest = float(coefficients[0].abs().max())
        if not (largest > 0.0 and math.isfinite(largest)):
            raise SingularLine
        self.scale = math.ldexp(1.0, -math.frexp(largest)[1])
        scale = coefficients.new_full((1,), self.scale)
        sizes = [torch.ones(n, dtype=torch.float64) for n in matrix.shape[1:]]
        while True:
            level = Level.empty(
                (matrix.shape[0], sizes[0].numel(), sizes[1].numel()), coefficients.new_empty(0, dtype=dtype)
            )
            found = _factor(level, coefficients, scale, transposed)
            if not self.levels:
                self.contrast = _contrast(found)
            self.levels.append(level)
            _choose(found, level)
            if level.fy == level.fx == 1:
                break
            level.before = level.b.new_zeros(level.b.shape[1:])
            coefficients, sizes = _coarsen(level, coefficients, sizes, transposed)
            transposed = False  # the coarser ones are operators of the transpose already

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(level.nbytes for level in self.levels)

    def cycle(self, gamma: int, fewest: int) -> None:
        """x of the finest level from its b; ``gamma`` visits of each coarser level of at least ``fewest`` columns."""
        self._cycle(0, gamma, fewest, zero=True)

    def _cycle(self, k: int, gamma: int, fewest: int, zero: bool) -> None:
        level, last = self.levels[k], k + 1 == len(self.levels)
        level.sweep(0, alone=zero, keep=not zero and not last)
        if level.shape[1] * level.shape[2] == 1:
            return
        level.sweep(1)
        if not last:
            coarse = self.levels[k + 1]
            level.restrict(coarse, zero)
            once = k + 2 == len(self.levels) or coarse.shape[1] * coarse.shape[2] < fewest
            for visit in range(1 if once else gamma):
                self._cycle(k + 1, gamma, fewest, zero=visit == 0)
            level.prolong(coarse)
            level.sweep(1)
        level.sweep(0)


def _factor(level: Level, coefficients: Tensor, scale: Tensor, transposed: bool) -> tuple[float, ...]:
    """Fill a level; sums over it of couplings along y and along x, excess of rows, weakness, coupled cells."""
    nz, ny, nx = level.shape
    sums = coefficients.new_empty(6, programs(ny * nx))
    launch(
        factor_kernel,
        ny * nx,
        matrix=coefficients,
        scale=scale,
        **level.fields,
        sums=sums,
        nz=nz,
        ny=ny,
        nx=nx,
        half=level.half,
        TRANSPOSED=transposed,
    )
    *found, bad = sums.sum(1).tolist()
    if bad > 0.0:
        raise SingularLine
    return tuple(found)


def _contrast(found: tuple[float, ...]) -> float:
    along_y, along_x, _, weak, cells = found
    return (along_y + along_x) / cells * (weak / cells) if cells > 0.0 else 0.0


def _choose(found: tuple[float, ...], level: Level) -> None:
    """How many columns the next level joins along y and x."""
    (_, ny, nx), (along_y, along_x, excess, _, _) = level.shape, found
    both = along_y + along_x
    if both == 0.0 or both < WEAK * excess:
        return
    y = along_y / ((ny - 1) * nx) if ny > 1 else 0.0
    x = along_x / ((nx - 1) * ny) if nx > 1 else 0.0
    level.fy = 2 if y > 0.0 and ADAPTIVE * y >= x else 1
    level.fx = 2 if x > 0.0 and ADAPTIVE * x >= y else 1


def _join(sizes: Tensor, step: int) -> Tensor:
    """Sizes of the aggregates from those of the columns, in units of the finest columns."""
    if step == 1:
        return sizes
    padded = torch.cat([sizes, sizes.new_zeros(sizes.numel() % 2)])
    return padded[0::2] + padded[1::2]


def _rho(sizes: Tensor, joined: Tensor, step: int) -> Iterator[Tensor]:
    """rho of README.md for the face before and the face behind each column; 0 where it lies inside an aggregate."""
    behind = torch.zeros_like(sizes)
    if step == 2:
        first = torch.arange(1, sizes.numel() - 1, 2)  # the columns before a face between two aggregates
        aggregate = first // 2
        behind[first] = 1.0 - (sizes[first] + sizes[first + 1]) / (joined[aggregate] + joined[aggregate + 1])
    yield torch.cat([behind.new_zeros(1), behind[:-1]])
    yield behind


def _coarsen(
    level: Level, coefficients: Tensor, sizes: list[Tensor], transposed: bool
) -> tuple[Tensor, list[Tensor]]:
    """The operator of the next level, and the sizes of its columns."""
    nz, ny, nx = level.shape
    joined = [_join(size, step) for size, step in zip(sizes, (level.fy, level.fx), strict=True)]
    coarse_ny, coarse_nx = joined[0].numel(), joined[1].numel()
    rho = [
        part.to(coefficients.device)
        for size, big, step in zip(sizes, joined, (level.fy, level.fx), strict=True)
        for part in _rho(size, big, step)
    ]
    coarse = coefficients.new_empty(7, nz, coarse_ny, coarse_nx)
    launch(
        coarsen_kernel,
        nz * coarse_ny * coarse_nx,
        matrix=coefficients,
        coarse=coarse,
        rho_south=rho[0],
        rho_north=rho[1],
        rho_west=rho[2],
        rho_east=rho[3],
        nz=nz,
        ny=ny,
        nx=nx,
        coarse_ny=coarse_ny,
        coarse_nx=coarse_nx,
        FY=level.fy,
        FX=level.fx,
        TRANSPOSED=transposed,
    )
    return coarse, joined
