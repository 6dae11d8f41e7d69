"""Triton kernels of one level of the hierarchy: factors, sweeps along z, transfers, the coarse operator.

Columns are coloured like a checkerboard, c = (x + y) mod 2, and stored colour by colour: [2, nz, ny, half] with
half = (nx + 1) // 2, where column i of row y and colour c stands at x = 2 i + (y + c) mod 2. All lateral neighbours of
a column have the other colour: its southern and northern ones the same i, its western and eastern ones i - 1 and i or
i and i + 1. One lane takes one column, and lanes that lie side by side read side by side. Entries past the end of a
row are never written: they stay 0.

A matrix is [7, nz, ny, nx] float64 in the order of ``StencilMatrix``. Every kernel gathers; none needs atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _coupling(
    matrix, at, size, shift, there, TRANSPOSED: tl.constexpr, which: tl.constexpr, back: tl.constexpr
):
    """Of A, or of its transpose: what couples the cells `at` to those at `shift`, float64."""
    if TRANSPOSED:
        found = tl.load(matrix + size * back + at + shift, mask=there, other=0.0)
    else:
        found = tl.load(matrix + size * which + at, mask=there, other=0.0)
    return found


@triton.jit
def factor_kernel(
    matrix,  # [7, nz, ny, nx] float64
    scale,  # [1] float64
    lower,
    inverse,
    upper,  # [2, nz, ny, half], results: multipliers, inverse pivots / scale, ratios
    south,
    north,
    west,
    east,  # [2, nz, ny, half], results: lateral couplings * scale
    sums,  # [6, programs] float64, result: along y, along x, excess, weakness, cells, bad pivots
    nz,
    ny,
    nx,
    half,
    cells,  # ny nx
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Factors of all lines along z, the couplings beside them, and what decides how the level is coarsened."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    y, x = n // nx, n % nx
    one = n * 0 + 1
    size = one * nz * cells
    to = ((x + y) % 2 * nz * ny + y) * half + x // 2
    at = n
    by = tl.load(scale)
    nothing = tl.zeros([BLOCK], tl.float64)
    last_inverse, last_upper = nothing, nothing
    along_y, along_x, excess, weak, coupled, bad = nothing, nothing, nothing, nothing, nothing, nothing
    z = n * 0
    for _ in range(nz):
        diag = tl.load(matrix + at, mask=live, other=1.0)
        below = _coupling(matrix, at, size, -one * cells, live & (z > 0), TRANSPOSED, 1, 2)
        above = _coupling(matrix, at, size, one * cells, live & (z < nz - 1), TRANSPOSED, 2, 1)
        s = _coupling(matrix, at, size, -one * nx, live & (y > 0), TRANSPOSED, 3, 4)
        t = _coupling(matrix, at, size, one * nx, live & (y < ny - 1), TRANSPOSED, 4, 3)
        w = _coupling(matrix, at, size, -one, live & (x > 0), TRANSPOSED, 5, 6)
        e = _coupling(matrix, at, size, one, live & (x < nx - 1), TRANSPOSED, 6, 5)
        pivot = diag - below * last_upper
        bad += tl.where((pivot != 0.0) & (pivot - pivot == 0.0), 0.0, 1.0)
        tl.store(lower + to, below * last_inverse, mask=live)
        last_inverse = 1.0 / pivot
        last_upper = above * last_inverse
        tl.store(inverse + to, last_inverse / by, mask=live)
        tl.store(upper + to, last_upper, mask=live)
        tl.store(south + to, by * s, mask=live)
        tl.store(north + to, by * t, mask=live)
        tl.store(west + to, by * w, mask=live)
        tl.store(east + to, by * e, mask=live)
        y_part, x_part = tl.abs(s) + tl.abs(t), tl.abs(w) + tl.abs(e)
        lateral = y_part + x_part
        on = tl.where(live & (lateral + tl.abs(below) + tl.abs(above) != 0.0), 1.0, 0.0)
        row = on * (diag + ((below + above) + (s + t) + (w + e)))
        stiffness = lateral + tl.abs(row)
        along_y += y_part
        along_x += x_part
        excess += row
        stiff = stiffness != 0.0
        weak += tl.where(stiff, 1.0 / tl.where(stiff, stiffness, 1.0), 0.0)
        coupled += on
        z += 1
        at += cells
        to += ny * half
    program, count = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    tl.store(sums + program, tl.sum(along_y, 0))
    tl.store(sums + count + program, tl.sum(along_x, 0))
    tl.store(sums + 2 * count + program, tl.sum(excess, 0))
    tl.store(sums + 3 * count + program, tl.sum(weak, 0))
    tl.store(sums + 4 * count + program, tl.sum(coupled, 0))
    tl.store(sums + 5 * count + program, tl.sum(bad, 0))


@triton.jit
def _beside(south, north, west, east, at, x, other, y, i, parity, ny, half, live):
    """Lateral couplings times the columns beside, which have the other colour; `other` is the place of (y, i) there."""
    one = other * 0 + 1
    found = tl.load(south + at, mask=live, other=0.0) * tl.load(
        x + other - one * half, mask=live & (y > 0), other=0.0
    )
    found += tl.load(north + at, mask=live, other=0.0) * tl.load(
        x + other + one * half, mask=live & (y < ny - 1), other=0.0
    )
    towards = other + parity  # the eastern neighbour; the western one stands before it
    found += tl.load(west + at, mask=live, other=0.0) * tl.load(
        x + towards - 1, mask=live & (i + parity > 0), other=0.0
    )
    found += tl.load(east + at, mask=live, other=0.0) * tl.load(
        x + towards, mask=live & (i + parity < half), other=0.0
    )
    return found


@triton.jit
def sweep_kernel(
    b,
    x,
    lower,
    inverse,
    upper,
    south,
    north,
    west,
    east,  # [2, nz, ny, half]
    before,  # [nz, ny, half], result where KEEP: what the lines were solved for
    nz,
    ny,
    half,
    cells,  # ny half
    COLOUR: tl.constexpr,
    ALONE: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Lines of one colour: T x = b - (lateral couplings) x; no couplings where ALONE, x being 0 beside them."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    y, i = n // half, n % half
    parity = (y + COLOUR) % 2
    all_cells = (n * 0 + nz) * cells
    at, other, kept = n + COLOUR * all_cells, n + (1 - COLOUR) * all_cells, n
    u = tl.zeros([BLOCK], x.dtype.element_ty)
    for _ in range(nz):
        r = tl.load(b + at, mask=live, other=0.0)
        if not ALONE:
            r -= _beside(south, north, west, east, at, x, other, y, i, parity, ny, half, live)
        if KEEP:
            tl.store(before + kept, r, mask=live)
        u = r - tl.load(lower + at, mask=live, other=0.0) * u
        tl.store(x + at, u * tl.load(inverse + at, mask=live, other=0.0), mask=live)
        at += cells
        other += cells
        kept += cells
    at -= cells
    u = tl.load(x + at, mask=live, other=0.0)
    for _ in range(nz - 1):
        at -= cells
        u = tl.load(x + at, mask=live, other=0.0) - tl.load(upper + at, mask=live, other=0.0) * u
        tl.store(x + at, u, mask=live)


@triton.jit
def restrict_kernel(
    b,
    x,
    before,
    south,
    north,
    west,
    east,  # of the level
    coarse_b,  # [2, nz, Ny, Half], result
    nz,
    ny,
    nx,
    half,
    coarse_ny,
    coarse_nx,
    coarse_half,
    cells,  # nz Ny Nx
    FY: tl.constexpr,
    FX: tl.constexpr,
    ZERO: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of the residuals over the aggregates. After a sweep over both colours they are 0 on colour 1; on colour 0
    minus the couplings where x was 0 before (ZERO), else also what b exceeds the lines' right-hand side by.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    big_x, r = n % coarse_nx, n // coarse_nx
    big_y, z = r % coarse_ny, r // coarse_ny
    colour_1 = (n * 0 + nz) * ny * half
    total = tl.zeros([BLOCK], x.dtype.element_ty)
    for down in tl.static_range(FY):
        for right in tl.static_range(FX):
            y, col = big_y * FY + down, big_x * FX + right
            there = live & (y < ny) & (col < nx) & ((col + y) % 2 == 0)
            i, parity = col // 2, y % 2
            at = (z * ny + y) * half + i
            found = -_beside(south, north, west, east, at, x, at + colour_1, y, i, parity, ny, half, there)
            if not ZERO:
                found += tl.load(b + at, mask=there, other=0.0) - tl.load(before + at, mask=there, other=0.0)
            total += found
    to = (((big_x + big_y) % 2 * nz + z) * coarse_ny + big_y) * coarse_half + big_x // 2
    tl.store(coarse_b + to, total, mask=live)


@triton.jit
def prolong_kernel(
    x,
    coarse_x,
    nz,
    ny,
    nx,
    half,
    coarse_ny,
    coarse_half,
    cells,  # nz ny half
    FY: tl.constexpr,
    FX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the aggregates' corrections to colour 0; the sweep over colour 1 that follows needs no other."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i, r = n % half, n // half
    y, z = r % ny, r // ny
    col = 2 * i + y % 2
    live = (n < cells) & (col < nx)
    big_y, big_x = y // FY, col // FX
    at = (((big_x + big_y) % 2 * nz + z) * coarse_ny + big_y) * coarse_half + big_x // 2
    found = tl.load(x + n, mask=live, other=0.0) + tl.load(coarse_x + at, mask=live, other=0.0)
    tl.store(x + n, found, mask=live)


@triton.jit
def _weaker(a, b):
    """The lesser of two couplings' magnitudes; 0 where one of them is positive."""
    return tl.minimum(tl.maximum(-a, 0.0), tl.maximum(-b, 0.0))


@triton.jit
def coarsen_kernel(
    matrix,  # [7, nz, ny, nx] float64
    coarse,  # [7, nz, Ny, Nx] float64, result
    rho_south,
    rho_north,  # [ny] of the faces of a row that lie between aggregates; 0 inside
    rho_west,
    rho_east,  # [nx]
    nz,
    ny,
    nx,
    coarse_ny,
    coarse_nx,
    cells,  # nz Ny Nx
    FY: tl.constexpr,
    FX: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Galerkin sums over the aggregates with couplings made weaker as README.md says."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    big_x, r = n % coarse_nx, n // coarse_nx
    big_y, z = r % coarse_ny, r // coarse_ny
    one = n * 0 + 1
    plane = one * ny * nx
    size = plane * nz
    zero = tl.zeros([BLOCK], tl.float64)
    diag, below, above, south, north, west, east, used = zero, zero, zero, zero, zero, zero, zero, zero
    for down in tl.static_range(FY):
        for right in tl.static_range(FX):
            y, x = big_y * FY + down, big_x * FX + right
            there = live & (y < ny) & (x < nx)
            at = z * plane + y * nx + x
            under, over = there & (z > 0), there & (z < nz - 1)
            front, behind, left, beyond = (
                there & (y > 0),
                there & (y < ny - 1),
                there & (x > 0),
                there & (x < nx - 1),
            )
            # couplings in the rows of the cells, and in the rows of their neighbours
            b = _coupling(matrix, at, size, -plane, under, TRANSPOSED, 1, 2)
            a = _coupling(matrix, at, size, plane, over, TRANSPOSED, 2, 1)
            s = _coupling(matrix, at, size, -one * nx, front, TRANSPOSED, 3, 4)
            t = _coupling(matrix, at, size, one * nx, behind, TRANSPOSED, 4, 3)
            w = _coupling(matrix, at, size, -one, left, TRANSPOSED, 5, 6)
            e = _coupling(matrix, at, size, one, beyond, TRANSPOSED, 6, 5)
            back_b = _coupling(matrix, at, size, -plane, under, not TRANSPOSED, 1, 2)
            back_a = _coupling(matrix, at, size, plane, over, not TRANSPOSED, 2, 1)
            back_s = _coupling(matrix, at, size, -one * nx, front, not TRANSPOSED, 3, 4)
            back_t = _coupling(matrix, at, size, one * nx, behind, not TRANSPOSED, 4, 3)
            back_w = _coupling(matrix, at, size, -one, left, not TRANSPOSED, 5, 6)
            back_e = _coupling(matrix, at, size, one, beyond, not TRANSPOSED, 6, 5)
            row = tl.abs(b) + tl.abs(a) + tl.abs(s) + tl.abs(t) + tl.abs(w) + tl.abs(e)
            column = tl.abs(back_b) + tl.abs(back_a) + tl.abs(back_s) + tl.abs(back_t)
            column += tl.abs(back_w) + tl.abs(back_e)
            on = tl.where((row != 0.0) & (column != 0.0), 1.0, 0.0)
            d_s = tl.load(rho_south + y, mask=there, other=0.0) * _weaker(s, back_s)
            d_t = tl.load(rho_north + y, mask=there, other=0.0) * _weaker(t, back_t)
            d_w = tl.load(rho_west + x, mask=there, other=0.0) * _weaker(w, back_w)
            d_e = tl.load(rho_east + x, mask=there, other=0.0) * _weaker(e, back_e)
            held = tl.load(matrix + at, mask=there, other=0.0) - ((d_s + d_t) + (d_w + d_e))
            # a coupling inside the aggregate goes to its diagonal
            if FY == 2 and down == 1:
                held += s
            else:
                south += on * (s + d_s)
            if FY == 2 and down == 0:
                # the last row may stand alone, and then has no northern neighbour
                held += t
            else:
                north += on * (t + d_t)
            if FX == 2 and right == 1:
                held += w
            else:
                west += on * (w + d_w)
            if FX == 2 and right == 0:
                held += e
            else:
                east += on * (e + d_e)
            diag += on * held
            below += on * b
            above += on * a
            used += on
    diag = tl.where(used == 0.0, 1.0, diag)
    count = one * cells
    tl.store(coarse + n, diag, mask=live)
    tl.store(coarse + count + n, below, mask=live)
    tl.store(coarse + 2 * count + n, above, mask=live)
    tl.store(coarse + 3 * count + n, south, mask=live)
    tl.store(coarse + 4 * count + n, north, mask=live)
    tl.store(coarse + 5 * count + n, west, mask=live)
    tl.store(coarse + 6 * count + n, east, mask=live)
