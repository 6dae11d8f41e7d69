"""Triton kernels of the Krylov iterations: each pass over memory ends in the sums that need it.

Vectors are [nz, ny, nx]. Sums are made by program and added afterwards in a fixed order: the same bits on every run.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(n, nz, ny, nx, half):
    """Where a cell stands in the arrays of a level: see triton_level.py."""
    x, r = n % nx, n // nx
    y, z = r % ny, r // ny
    return (((x + y) % 2 * nz + z) * ny + y) * half + x // 2


@triton.jit
def _product(matrix, p, n, nz, ny, nx, live, TRANSPOSED: tl.constexpr):
    """A p or A^T p in the cells n, float64."""
    one = n * 0 + 1
    plane = one * ny * nx
    size = plane * nz
    x, r = n % nx, n // nx
    y, z = r % ny, r // ny
    found = tl.load(matrix + n, mask=live, other=0.0) * tl.load(p + n, mask=live, other=0.0).to(tl.float64)
    for k in tl.static_range(6):
        if k // 2 == 0:
            shift, place, count = plane, z, nz
        elif k // 2 == 1:
            shift, place, count = one * nx, y, ny
        else:
            shift, place, count = one, x, nx
        if k % 2 == 0:
            shift = -shift
            there = live & (place > 0)
        else:
            there = live & (place < count - 1)
        # transposed: the opposite coupling, in the row of the neighbour
        at = n + shift + size * (2 + k - 2 * (k % 2)) if TRANSPOSED else n + size * (1 + k)
        found += tl.load(matrix + at, mask=there, other=0.0) * tl.load(
            p + n + shift, mask=there, other=0.0
        ).to(tl.float64)
    return found


@triton.jit
def residual_kernel(
    matrix,
    b,
    x,
    unit,  # [1]
    r,  # result: unit (b - A x)
    sums,  # [programs] result: of r r
    nz,
    ny,
    nx,
    cells,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The residual in a unit in which its square neither over- nor underflows."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    found = tl.load(b + n, mask=live, other=0.0) - _product(matrix, x, n, nz, ny, nx, live, TRANSPOSED)
    found = tl.load(unit) * found
    tl.store(r + n, found, mask=live)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(live, found * found, 0.0), 0))


@triton.jit
def product_kernel(
    matrix,
    p,
    scale,  # [1]
    q,  # result: scale A p
    sums,  # [2, programs] result: of p q and q q
    nz,
    ny,
    nx,
    cells,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A product with the matrix."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    found = tl.load(scale) * _product(matrix, p, n, nz, ny, nx, live, TRANSPOSED)
    tl.store(q + n, found, mask=live)
    with_p = tl.load(p + n, mask=live, other=0.0).to(tl.float64) * found
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(live, with_p, 0.0), 0))
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(live, found * found, 0.0), 0))


@triton.jit
def enter_kernel(
    r,
    q,
    alpha,  # [1] r -= alpha q first
    scale,  # [1]
    b,  # of the finest level, result: scale r
    sums,  # [programs] result: of r r
    nz,
    ny,
    nx,
    half,
    cells,
    BLOCK: tl.constexpr,
):
    """Update the residual of conjugate gradients, and hand it to the finest level."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    found = tl.load(r + n, mask=live, other=0.0) - tl.load(alpha) * tl.load(q + n, mask=live, other=0.0)
    tl.store(r + n, found, mask=live)
    tl.store(b + _place(n, nz, ny, nx, half), tl.load(scale) * found, mask=live)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(live, found * found, 0.0), 0))


@triton.jit
def search_kernel(
    answer,  # x of the finest level
    p,  # added to x first, then replaced: scale answer + beta p
    x,
    add,  # [1]
    scale,  # [1]
    beta,  # [1]
    nz,
    ny,
    nx,
    half,
    cells,
    BLOCK: tl.constexpr,
):
    """x += add p, then the next direction of conjugate gradients."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    before = tl.load(p + n, mask=live, other=0.0)
    tl.store(x + n, tl.load(x + n, mask=live, other=0.0) + tl.load(add) * before, mask=live)
    found = tl.load(answer + _place(n, nz, ny, nx, half), mask=live, other=0.0).to(tl.float64)
    tl.store(p + n, tl.load(scale) * found + tl.load(beta) * before, mask=live)


@triton.jit
def begin_kernel(
    q,
    scale,  # [1]
    v,  # result: scale q, rounded to the type of the basis
    b,  # of the finest level, result: the same
    sums,  # [2, programs] result: of q q and v v
    nz,
    ny,
    nx,
    half,
    cells,
    BLOCK: tl.constexpr,
):
    """A vector becomes one of the basis, and the next right-hand side of the preconditioner."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    found = tl.load(q + n, mask=live, other=0.0)
    rounded = (tl.load(scale) * found).to(v.dtype.element_ty)
    tl.store(v + n, rounded, mask=live)
    tl.store(b + _place(n, nz, ny, nx, half), rounded, mask=live)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(live, found * found, 0.0), 0))
    wide = rounded.to(tl.float64)
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(live, wide * wide, 0.0), 0))


@triton.jit
def leave_kernel(
    answer,  # x of the finest level
    z,  # result
    nz,
    ny,
    nx,
    half,
    cells,
    BLOCK: tl.constexpr,
):
    """The answer of the preconditioner in the order of the cells."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    tl.store(z + n, tl.load(answer + _place(n, nz, ny, nx, half), mask=live, other=0.0), mask=live)


@triton.jit
def dots_kernel(
    basis,  # [count, cells]
    q,
    sums,  # [count, programs] result
    count,
    cells,
    BLOCK: tl.constexpr,
):
    """Products of a vector with those of the basis."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    there = tl.load(q + n, mask=live, other=0.0)
    at = n
    for k in range(count):
        found = tl.load(basis + at, mask=live, other=0.0).to(tl.float64) * there
        tl.store(sums + k * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(live, found, 0.0), 0))
        at += cells


@triton.jit
def combine_kernel(
    basis,  # [count, cells]
    weights,  # [count]
    q,  # added to
    count,
    cells,
    BLOCK: tl.constexpr,
):
    """q += sum of weights v."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    found = tl.load(q + n, mask=live, other=0.0)
    at = n
    for k in range(count):
        found += tl.load(weights + k) * tl.load(basis + at, mask=live, other=0.0).to(tl.float64)
        at += cells
    tl.store(q + n, found, mask=live)
