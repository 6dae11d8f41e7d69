"""Krylov iterations on a GPU: conjugate gradients and flexible GMRES of ``README.md``, section 3.

Scalars stay on the device; the host waits once an iteration, to see whether it was the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dgpde.linear.stencil import StencilMatrix
from dgpde.linear.triton_hierarchy import Hierarchy
from dgpde.linear.triton_vectors import (
    begin_kernel,
    combine_kernel,
    dots_kernel,
    enter_kernel,
    leave_kernel,
    product_kernel,
    residual_kernel,
    search_kernel,
)
from dgpde.triton_launch import launch, programs

#: (x, scale [1], out): out += scale E x
Extra = Callable[[Tensor, Tensor, Tensor], None]

RESTART = 30
CHUNK = 5  # vectors of a basis that are allocated together
FLOAT32_GAIN = 3e-9  # a basis in float32 reduces the residual that it began with by no more
FLOAT32_TURN = 1e-6  # from there on a new basis goes on faster


class Vectors:
    """Up to ``RESTART + 1`` vectors of the size of a field, allocated as they are needed."""

    def __init__(self, cells: int, like: Tensor) -> None:
        self.cells, self.like = cells, like
        self.chunks: list[Tensor] = []

    def __getitem__(self, k: int) -> Tensor:
        while len(self.chunks) * CHUNK <= k:
            self.chunks.append(self.like.new_empty(CHUNK, self.cells))
        return self.chunks[k // CHUNK][k % CHUNK]

    def parts(self, count: int) -> list[tuple[Tensor, int, int]]:
        """(chunk, number of its first vector, how many of it) of the first ``count`` vectors."""
        return [
            (chunk, k * CHUNK, min(CHUNK, count - k * CHUNK))
            for k, chunk in enumerate(self.chunks)
            if k * CHUNK < count
        ]


class Krylov:
    """Solves with one matrix and its hierarchy.

    Args:
        matrix: on the device.
        hierarchy: of the matrix, or of its transpose.
        transposed: whether the transposed system is solved.
        gamma, fewest: of the cycle.
        extra: what the system holds besides the matrix, where it is not symmetric.
    """

    def __init__(
        self,
        matrix: StencilMatrix,
        hierarchy: Hierarchy,
        transposed: bool,
        gamma: int,
        fewest: int,
        extra: Extra | None = None,
    ) -> None:
        self.matrix, self.hierarchy, self.gamma, self.fewest = matrix, hierarchy, gamma, fewest
        self.coefficients = matrix.coefficients
        self.cells = self.coefficients[0].numel()
        self.extra = extra
        nz, ny, nx = matrix.shape
        self.sizes = {"nz": nz, "ny": ny, "nx": nx}
        self.level = hierarchy.levels[0]
        self.transposed = transposed and not matrix.symmetric
        self.single = self.level.b.dtype == torch.float32
        self.status = ""
        self.unit = 1.0

    def solve(
        self, b: Tensor, x0: Tensor | None, tolerance: float, max_iterations: int
    ) -> tuple[Tensor, int, float, str]:
        """x, iterations, relative residual, reason ("" when converged)."""
        failed = torch.full_like(b, torch.nan)
        largest = float(b.abs().max())
        if not math.isfinite(largest):
            return failed, 0, math.nan, "not finite"
        x = (
            torch.zeros_like(b)
            if x0 is None or largest == 0.0
            else x0.clone(memory_format=torch.contiguous_format)
        )
        if largest == 0.0:
            return x, 0, 0.0, ""
        self.unit = math.ldexp(1.0, -math.frexp(largest)[1])
        r = self.unit * b
        norm = float(torch.linalg.vector_norm(r))
        iterations, before, now = 0, 0.0, norm
        if x0 is not None:
            now = self._residual(b, x, r)
        while True:
            if not math.isfinite(now):
                return failed, iterations, math.nan, "not finite"
            if now <= tolerance * norm:
                return x, iterations, now / norm, ""
            if iterations >= max_iterations:
                return x, iterations, now / norm, "iterations"
            if before > 0.0 and now > 0.5 * before:  # a restart must gain something over the one before
                return x, iterations, now / norm, self.status or "stagnated"
            before, self.status = now, ""
            # leaves room for the residual of the recurrence to differ from the true one
            goal = 0.99 * tolerance * norm
            method = self._conjugate_gradients if self.matrix.symmetric else self._gmres
            iterations += method(x, r, now, goal, max_iterations - iterations)
            now = self._residual(b, x, r)

    def _launch(self, kernel: Any, cells: int | None = None, **arguments: Any) -> None:
        launch(kernel, self.cells if cells is None else cells, **arguments)

    def _one(self, value: float) -> Tensor:
        return self.coefficients.new_full((1,), value)

    def _sums(self, count: int, cells: int | None = None) -> Tensor:
        return self.coefficients.new_empty(count, programs(self.cells if cells is None else cells))

    def _precondition(self) -> None:
        self.hierarchy.cycle(self.gamma, self.fewest)

    def _residual(self, b: Tensor, x: Tensor, r: Tensor) -> float:
        sums = self._sums(1)
        self._launch(
            residual_kernel,
            matrix=self.coefficients,
            b=b,
            x=x,
            unit=self._one(self.unit),
            r=r,
            sums=sums,
            **self.sizes,
            TRANSPOSED=self.transposed,
        )
        if self.extra is None:
            return math.sqrt(float(sums.sum()))
        self.extra(x, self._one(-self.unit), r)
        return float(torch.linalg.vector_norm(r))

    def _product(self, p: Tensor, scale: Tensor, q: Tensor) -> Tensor:
        """q = scale A p; [p . q, q . q]."""
        sums = self._sums(2)
        self._launch(
            product_kernel,
            matrix=self.coefficients,
            p=p,
            scale=scale,
            q=q,
            sums=sums,
            **self.sizes,
            TRANSPOSED=self.transposed,
        )
        if self.extra is not None:
            self.extra(p.reshape(q.shape).to(q.dtype), scale, q)
            self._launch(dots_kernel, basis=p, q=q, sums=sums[:1], count=1)
            self._launch(dots_kernel, basis=q, q=q, sums=sums[1:], count=1)
        return sums.sum(1)

    def _conjugate_gradients(self, x: Tensor, r: Tensor, norm: float, goal: float, limit: int) -> int:
        p, q, level = torch.zeros_like(r), torch.zeros_like(r), self.level
        nothing, alpha, rz = self._one(0.0), self._one(0.0), self._one(0.0)
        add = nothing  # times p, still to be added to x
        into = _power_of_two(norm)
        curvature = self._one(1.0)
        count = 0
        while norm > goal and count < limit:
            scale = self._one(into)
            sums = self._sums(1)
            # the first time nothing is taken off r: alpha is 0
            self._enter(r, q, alpha, scale, sums)
            if count > 0:
                values = torch.cat([rz, curvature, sums.sum(1)]).tolist()
                if not self._sound(*values[:2]):
                    add = nothing
                    break
                norm = math.sqrt(values[2])
                if not norm > goal:
                    break
            count += 1
            self._precondition()
            half = level.b.numel()
            products = self._sums(1, half)
            self._launch(dots_kernel, half, basis=level.b, q=level.x, sums=products, count=1)
            out = self.hierarchy.scale / into
            now = products.sum(1) * (out / into)
            beta = nothing if count == 1 else now / rz
            rz = now
            self._launch(
                search_kernel,
                answer=level.x,
                p=p,
                x=x,
                add=add,
                scale=self._one(out),
                beta=beta,
                half=level.half,
                **self.sizes,
            )
            curvature = self._product(p, self._one(1.0), q)[:1]
            alpha = rz / curvature
            add = alpha / self.unit
            into = _power_of_two(norm)
        x.addcmul_(p, add)
        return count

    def _sound(self, *values: float) -> bool:
        """Whether products that must be positive are; else the status says why not."""
        for value in values:
            if not value > 0.0:
                self.status = "breakdown" if math.isfinite(value) else "not finite"
                return False
        return True

    def _enter(self, r: Tensor, q: Tensor, alpha: Tensor, scale: Tensor, sums: Tensor) -> None:
        self._launch(
            enter_kernel,
            r=r,
            q=q,
            alpha=alpha,
            scale=scale,
            b=self.level.b,
            sums=sums,
            half=self.level.half,
            **self.sizes,
        )

    def _gmres(self, x: Tensor, r: Tensor, norm: float, goal: float, limit: int) -> int:
        """A z = V H with V orthonormal, each v with a scale of its own, z = M v, H in float64."""
        level = self.level
        if self.single:
            goal = max(goal, FLOAT32_GAIN * norm)
        enough = max(goal, FLOAT32_TURN * norm) if self.single else goal
        basis, directions = Vectors(self.cells, level.b), Vectors(self.cells, level.b)
        q = torch.empty_like(r)
        unit_v = self.coefficients.new_empty(RESTART + 1)
        unit_z = self.coefficients.new_empty(RESTART)
        unit_v[0] = self._begin(r, self._one(_power_of_two(norm)), basis[0])[1].rsqrt()
        rhs, columns, cosine, sine = [norm], list[list[float]](), list[float](), list[float]()
        count = 0
        while count < RESTART and count < limit and norm > enough:
            k = count
            count += 1
            self._precondition()
            unit_z[k] = unit_v[k] * self.hierarchy.scale
            direction = directions[k]
            self._launch(leave_kernel, answer=level.x, z=direction, half=level.half, **self.sizes)
            whole = self._product(direction, unit_z[k : k + 1], q)[1]
            products = torch.cat(
                [self._dots(chunk, size, q) for chunk, _, size in basis.parts(k + 1)]
            )  # (stored v_j) . A z
            h = products * unit_v[: k + 1]
            rest = whole - h.square().sum()
            weights = -h * unit_v[: k + 1]
            for chunk, first, size in basis.parts(k + 1):
                self._launch(
                    combine_kernel, basis=chunk, weights=weights[first : first + size], q=q, count=size
                )
            scale = torch.where(rest > 1e-4 * whole, rest, whole).rsqrt().reshape(1)
            left = self._begin(q, scale, basis[k + 1])
            unit_v[k + 1] = left[1].rsqrt()
            *column, off, remains = torch.cat([h, left[:1].sqrt(), rest.reshape(1)]).tolist()
            if not math.isfinite(remains):
                self.status = "not finite"
                return count  # x stays what it was
            for j in range(k):
                a, b = column[j], column[j + 1]
                column[j], column[j + 1] = cosine[j] * a + sine[j] * b, cosine[j] * b - sine[j] * a
            size_of = math.hypot(column[k], off)
            if not size_of > 0.0:  # A z lies in the space that is there already: the matrix is singular on it
                self.status = "breakdown"
                break
            cosine.append(column[k] / size_of)
            sine.append(off / size_of)
            column[k] = size_of
            columns.append(column)
            rhs.append(-sine[k] * rhs[k])
            rhs[k] *= cosine[k]
            norm = abs(rhs[k + 1])
            if off == 0.0:
                break
        used = len(columns)
        weights_of = _back_substitute(columns, rhs[:used])
        y = self.coefficients.new_tensor(weights_of) * unit_z[:used] / self.unit
        for chunk, first, size in directions.parts(used):
            self._launch(combine_kernel, basis=chunk, weights=y[first : first + size], q=x, count=size)
        return count

    def _begin(self, q: Tensor, scale: Tensor, v: Tensor) -> Tensor:
        """v = scale q, also as the right-hand side of the finest level; [q . q, v . v]."""
        sums = self._sums(2)
        self._launch(
            begin_kernel,
            q=q,
            scale=scale,
            v=v,
            b=self.level.b,
            sums=sums,
            half=self.level.half,
            **self.sizes,
        )
        return sums.sum(1)

    def _dots(self, chunk: Tensor, count: int, q: Tensor) -> Tensor:
        sums = self._sums(count)
        self._launch(dots_kernel, basis=chunk, q=q, sums=sums, count=count)
        return sums.sum(1)


def _power_of_two(norm: float) -> float:
    """What brings a norm to between 1/2 and 1."""
    return math.ldexp(1.0, -math.frexp(norm)[1])


def _back_substitute(columns: list[list[float]], rhs: list[float]) -> list[float]:
    """y of R y = rhs, R by its columns."""
    y = list(rhs)
    for i in reversed(range(len(y))):
        y[i] /= columns[i][i]
        for j in range(i):
            y[j] -= columns[i][j] * y[i]
    return y
