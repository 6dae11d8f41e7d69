"""Triton kernels of the transport stencil: the same passes as those of csrc/cpu/transport_stencil.cpp.

One lane takes one cell, or the face between it and the cell above, north or east of it. Tuples hold a pointer for each
axis, z, y, x, or for each pair of axes in the order of ``problem.PAIRS``; those that do not exist point to something
else and are not read. AXES and PAIRS have a bit for each that exists. Every kernel gathers; none needs atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

UPWIND, CENTRAL, TVD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _cells(nz, ny, nx, cells, BLOCK: tl.constexpr):
    """Index of each lane's cell, its place along z, y and x, and whether it is one."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    r = n // nx
    return n, r // ny, r % ny, n % nx, n < cells


@triton.jit
def _step(n, ny, nx, AXIS: tl.constexpr):
    """How far the next cell along an axis stands in memory, 64 bits."""
    one = n * 0 + 1
    if AXIS == 0:
        found = one * ny * nx
    elif AXIS == 1:
        found = one * nx
    else:
        found = one
    return found


@triton.jit
def _place(k, j, i, nz, ny, nx, AXIS: tl.constexpr):
    """Place of a cell along an axis, and how many there are."""
    if AXIS == 0:
        place, size = k, nz
    elif AXIS == 1:
        place, size = j, ny
    else:
        place, size = i, nx
    return place, size


@triton.jit
def _shifted(
    field,
    n,
    k,
    j,
    i,
    nz,
    ny,
    nx,
    live,
    ONE: tl.constexpr,
    M: tl.constexpr,
    TWO: tl.constexpr,
    N: tl.constexpr,
):
    """A field M cells on along one axis and N cells on along another, 0 outside the grid."""
    place, size = _place(k, j, i, nz, ny, nx, ONE)
    there = live & (place + M >= 0) & (place + M < size)
    place, size = _place(k, j, i, nz, ny, nx, TWO)
    there = there & (place + N >= 0) & (place + N < size)
    at = n + M * _step(n, ny, nx, ONE) + N * _step(n, ny, nx, TWO)
    return tl.load(field + at, mask=there, other=0.0)


@triton.jit
def _other(pair: tl.constexpr):
    """Of a pair of axes the second one: pairs are (0,1) (0,2) (1,0) (1,2) (2,0) (2,1)."""
    found: tl.constexpr = pair % 2 + (1 if pair % 2 >= pair // 2 else 0)
    return found


@triton.jit
def _halves(half, forward, k, j, i, nz, ny, nx, live, AXIS: tl.constexpr):
    """Half sizes of the cells up- and downstream of a face."""
    place, size = _place(k, j, i, nz, ny, nx, AXIS)
    a = tl.load(half + place, mask=live, other=1.0)
    b = tl.load(half + place + 1, mask=live & (place + 1 < size), other=1.0)
    return tl.where(forward, a, b), tl.where(forward, b, a)


@triton.jit
def _upstream(gradient, forward, n, k, j, i, nz, ny, nx, live, AXIS: tl.constexpr):
    """The gradient through the face upstream of each face, 0 where there is none."""
    behind = _shifted(gradient, n, k, j, i, nz, ny, nx, live, AXIS, -1, AXIS, 0)
    ahead = _shifted(gradient, n, k, j, i, nz, ny, nx, live, AXIS, 1, AXIS, 0)
    return tl.where(forward, behind, ahead)


@triton.jit
def _limited(up, here, half_up, half_down):
    """Van Leer's mean of the gradients upstream and at the face with its derivatives; 0 where their signs differ."""
    same = up * here > 0.0
    u, f = tl.where(same, up, 1.0), tl.where(same, here, 1.0)
    total, by = half_up + half_down, 1.0 / (half_up * u + half_down * f)
    value = tl.where(same, total * u * f * by, 0.0)
    by_up = tl.where(same, total * half_down * (f * by) * (f * by), 0.0)
    by_here = tl.where(same, total * half_up * (u * by) * (u * by), 0.0)
    return value, by_up, by_here


@triton.jit
def _mean_of_four(gradients, n, k, j, i, nz, ny, nx, live, NORMAL: tl.constexpr, ALONG: tl.constexpr):
    """Mean of the four gradients along an axis beside the faces across another."""
    g = gradients[ALONG]
    found = _shifted(g, n, k, j, i, nz, ny, nx, live, NORMAL, 0, ALONG, 0)
    found += _shifted(g, n, k, j, i, nz, ny, nx, live, NORMAL, 0, ALONG, -1)
    found += _shifted(g, n, k, j, i, nz, ny, nx, live, NORMAL, 1, ALONG, 0)
    found += _shifted(g, n, k, j, i, nz, ny, nx, live, NORMAL, 1, ALONG, -1)
    return 0.25 * found


@triton.jit
def _entering(flow, value, IS_A: tl.constexpr):
    """Part of the water of a face that enters the cell a, or b; water that stands counts as flowing into a."""
    return tl.where(flow > 0.0, 0.0, -value) if IS_A else tl.where(flow > 0.0, value, 0.0)


@triton.jit
def gradient_kernel(
    c,
    factor,  # [cells] times c where FACTOR
    inverse,  # by axis
    gradient,  # by axis, results
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients through the faces, 0 where there is none."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    here = tl.load(c + n, mask=live, other=0.0)
    if FACTOR:
        here = here * tl.load(factor + n, mask=live, other=0.0)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            there = live & (place + 1 < size)
            step = _step(n, ny, nx, axis)
            next_one = tl.load(c + n + step, mask=there, other=0.0)
            if FACTOR:
                next_one = next_one * tl.load(factor + n + step, mask=there, other=0.0)
            found = tl.load(inverse[axis] + n, mask=there, other=0.0) * (next_one - here)
            tl.store(gradient[axis] + n, found, mask=live)


@triton.jit
def wide_flow_kernel(
    flow,  # by axis: of the water
    moving,  # by axis: what stands in its place in phi, where SCHEME is not upwind and not LINEAR
    cross,  # by pair: what stands in front of the means
    gradient,  # by axis
    up,
    here,  # by axis: derivatives of the scheme, where LINEAR
    half,  # by axis, [size]
    phi,  # by axis, results
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    MOVING: tl.constexpr,
    PAIRS: tl.constexpr,
    SCHEME: tl.constexpr,
    LINEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What the wider scheme adds to the flow of mass through the faces, or its derivative along the gradients."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            face = live & (place + 1 < size)
            found = tl.zeros([BLOCK], tl.float64)
            if SCHEME != UPWIND:
                forward = tl.load(flow[axis] + n, mask=face, other=0.0) > 0.0
                g = tl.load(gradient[axis] + n, mask=face, other=0.0)
                if LINEAR:
                    found = tl.load(here[axis] + n, mask=face, other=0.0) * g
                    if SCHEME == TVD:
                        beside = _upstream(gradient[axis], forward, n, k, j, i, nz, ny, nx, face, axis)
                        found += tl.load(up[axis] + n, mask=face, other=0.0) * beside
                elif (MOVING >> axis) & 1:
                    half_up, half_down = _halves(half[axis], forward, k, j, i, nz, ny, nx, face, axis)
                    slope = g
                    if SCHEME == TVD:
                        beside = _upstream(gradient[axis], forward, n, k, j, i, nz, ny, nx, face, axis)
                        slope, _, _ = _limited(beside, g, half_up, half_down)
                    value = tl.load(moving[axis] + n, mask=face, other=0.0)
                    found = tl.where(forward, value, -value) * half_up * slope
            for pair in tl.static_range(6):
                if pair // 2 == axis and (PAIRS >> pair) & 1:
                    mean = _mean_of_four(gradient, n, k, j, i, nz, ny, nx, face, pair // 2, _other(pair))
                    found -= tl.load(cross[pair] + n, mask=face, other=0.0) * mean
            tl.store(phi[axis] + n, found, mask=live)


@triton.jit
def network_kernel(
    c,
    flow,  # by axis: of the water
    moving,  # by axis: what stands in its place, where MOVING
    conductance,  # by axis, where CONDUCTS
    phi,  # by axis, where WIDE
    out,  # result
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    MOVING: tl.constexpr,
    CONDUCTS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """N(c), or its derivative along tangents of the faces."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    here = tl.load(c + n, mask=live, other=0.0)
    found = tl.zeros([BLOCK], tl.float64)
    for q in tl.static_range(6):
        if (AXES >> (q // 2)) & 1:
            place, size = _place(k, j, i, nz, ny, nx, q // 2)
            step = _step(n, ny, nx, q // 2)
            if q % 2 == 1:
                there, owner, other = live & (place + 1 < size), n, n + step
            else:
                there, owner, other = live & (place > 0), n - step, n - step
            by = tl.zeros([BLOCK], tl.float64)
            if (MOVING >> (q // 2)) & 1:
                water = tl.load(flow[q // 2] + owner, mask=there, other=0.0)
                by += _entering(water, tl.load(moving[q // 2] + owner, mask=there, other=0.0), q % 2)
            if (CONDUCTS >> (q // 2)) & 1:
                by += tl.load(conductance[q // 2] + owner, mask=there, other=0.0)
            found += by * (here - tl.load(c + other, mask=there, other=0.0))
            if WIDE:
                wider = tl.load(phi[q // 2] + owner, mask=there, other=0.0)
                found += wider * (2 * (q % 2) - 1)
    tl.store(out + n, found, mask=live)


@triton.jit
def divergence_kernel(
    phi,  # by axis
    scale,  # [1]
    factor,  # [cells] times what is added, where FACTOR
    out,  # added to
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out += scale factor (what leaves the cells through their faces)."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    found = tl.zeros([BLOCK], tl.float64)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, _ = _place(k, j, i, nz, ny, nx, axis)
            found += tl.load(phi[axis] + n, mask=live, other=0.0)
            found -= tl.load(phi[axis] + n - _step(n, ny, nx, axis), mask=live & (place > 0), other=0.0)
    if FACTOR:
        found = found * tl.load(factor + n, mask=live, other=0.0)
    tl.store(out + n, tl.load(out + n, mask=live, other=0.0) + tl.load(scale) * found, mask=live)


@triton.jit
def pull_kernel(
    multiplier,
    c,
    flow,  # by axis
    gradient,  # by axis, where SCHEME is not upwind or there are PAIRS
    half,  # by axis, [size]
    by_flow,
    by_conductance,  # by axis, results
    by_cross,  # by pair, results
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    PAIRS: tl.constexpr,
    SCHEME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """d/d(faces) of -<multiplier, N(c)>."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    into_a, here = tl.load(multiplier + n, mask=live, other=0.0), tl.load(c + n, mask=live, other=0.0)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            face = live & (place + 1 < size)
            step = _step(n, ny, nx, axis)
            into_b = tl.load(multiplier + n + step, mask=face, other=0.0)
            rise = tl.load(c + n + step, mask=face, other=0.0) - here
            forward = tl.load(flow[axis] + n, mask=face, other=0.0) > 0.0
            across = into_a - into_b
            found = -tl.where(forward, into_b, into_a) * rise
            if SCHEME != UPWIND:
                half_up, half_down = _halves(half[axis], forward, k, j, i, nz, ny, nx, face, axis)
                slope = tl.load(gradient[axis] + n, mask=face, other=0.0)
                if SCHEME == TVD:
                    beside = _upstream(gradient[axis], forward, n, k, j, i, nz, ny, nx, face, axis)
                    slope, _, _ = _limited(beside, slope, half_up, half_down)
                found -= tl.where(forward, across, -across) * half_up * slope
            tl.store(by_flow[axis] + n, tl.where(face, found, 0.0), mask=live)
            tl.store(by_conductance[axis] + n, tl.where(face, across * rise, 0.0), mask=live)
            for pair in tl.static_range(6):
                if pair // 2 == axis and (PAIRS >> pair) & 1:
                    mean = _mean_of_four(gradient, n, k, j, i, nz, ny, nx, face, pair // 2, _other(pair))
                    tl.store(by_cross[pair] + n, tl.where(face, across * mean, 0.0), mask=live)


@triton.jit
def matrix_kernel(
    diagonal,
    column,  # [cells], where COLUMN
    flow,
    conductance,  # by axis
    matrix,  # [7, cells], result
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """diag(diagonal) + dN/dc diag(column) of the upwind scheme without cross terms."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    own = tl.zeros([BLOCK], tl.float64)
    for q in tl.static_range(6):
        to = matrix + (n * 0 + cells) * (1 + q) + n
        by = tl.zeros([BLOCK], tl.float64)
        if (AXES >> (q // 2)) & 1:
            place, size = _place(k, j, i, nz, ny, nx, q // 2)
            step = _step(n, ny, nx, q // 2)
            if q % 2 == 1:
                there, owner, other = live & (place + 1 < size), n, n + step
            else:
                there, owner, other = live & (place > 0), n - step, n - step
            water = tl.load(flow[q // 2] + owner, mask=there, other=0.0)
            by = _entering(water, water, q % 2) + tl.load(conductance[q // 2] + owner, mask=there, other=0.0)
            own += by
            if COLUMN:
                by = by * tl.load(column + other, mask=there, other=0.0)
        tl.store(to, -by, mask=live)
    if COLUMN:
        own = own * tl.load(column + n, mask=live, other=0.0)
    tl.store(matrix + n, tl.load(diagonal + n, mask=live, other=1.0) + own, mask=live)


@triton.jit
def scheme_kernel(
    flow,
    gradient,  # by axis
    half,  # by axis, [size]
    up,
    here,  # by axis, results
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    SCHEME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Derivatives of the scheme's part of phi in the gradients upstream and at the faces."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            face = live & (place + 1 < size)
            water = tl.load(flow[axis] + n, mask=face, other=0.0)
            forward = water > 0.0
            half_up, half_down = _halves(half[axis], forward, k, j, i, nz, ny, nx, face, axis)
            by = tl.abs(water) * half_up
            if SCHEME == TVD:
                g = tl.load(gradient[axis] + n, mask=face, other=0.0)
                beside = _upstream(gradient[axis], forward, n, k, j, i, nz, ny, nx, face, axis)
                _, by_up, by_here = _limited(beside, g, half_up, half_down)
                tl.store(up[axis] + n, by * by_up, mask=live)
                by = by * by_here
            tl.store(here[axis] + n, by, mask=live)


@triton.jit
def across_kernel(
    multiplier,
    cross,  # by pair
    across,  # by axis, results: of phi
    pulled,  # by pair, results: of the means of four gradients
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What the transposed divergence gives to phi, and that to the means."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    here = tl.load(multiplier + n, mask=live, other=0.0)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            face = live & (place + 1 < size)
            found = here - tl.load(multiplier + n + _step(n, ny, nx, axis), mask=face, other=0.0)
            found = tl.where(face, found, 0.0)
            tl.store(across[axis] + n, found, mask=live)
            for pair in tl.static_range(6):
                if pair // 2 == axis and (PAIRS >> pair) & 1:
                    by = tl.load(cross[pair] + n, mask=live, other=0.0)
                    tl.store(pulled[pair] + n, -by * found, mask=live)


@triton.jit
def gather_kernel(
    flow,
    inverse,
    across,
    up,
    here,  # by axis
    pulled,  # by pair
    back,  # by axis, results: minus what the gradients receive, over the distance
    nz,
    ny,
    nx,
    cells,
    AXES: tl.constexpr,
    PAIRS: tl.constexpr,
    SCHEME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What phi and the means give to the gradients: each gathers from the faces whose phi holds it."""
    n, k, j, i, live = _cells(nz, ny, nx, cells, BLOCK)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            place, size = _place(k, j, i, nz, ny, nx, axis)
            found = tl.zeros([BLOCK], tl.float64)
            if SCHEME != UPWIND:
                found = tl.load(here[axis] + n, mask=live, other=0.0)
                found = found * tl.load(across[axis] + n, mask=live, other=0.0)
            if SCHEME == TVD:
                step = _step(n, ny, nx, axis)
                # this face is upstream of the next one where that flows forward, of the one before where it does not
                over, under = live & (place + 1 < size), live & (place > 0)
                forward = tl.load(flow[axis] + n + step, mask=over, other=0.0) > 0.0
                part = tl.load(up[axis] + n + step, mask=over, other=0.0)
                part = part * tl.load(across[axis] + n + step, mask=over, other=0.0)
                found += tl.where(forward, part, 0.0)
                forward = tl.load(flow[axis] + n - step, mask=under, other=1.0) > 0.0
                part = tl.load(up[axis] + n - step, mask=under, other=0.0)
                part = part * tl.load(across[axis] + n - step, mask=under, other=0.0)
                found += tl.where(forward, 0.0, part)
            for pair in tl.static_range(6):
                if (PAIRS >> pair) & 1 and _other(pair) == axis:
                    h = pulled[pair]
                    part = _shifted(h, n, k, j, i, nz, ny, nx, live, pair // 2, 0, axis, 0)
                    part += _shifted(h, n, k, j, i, nz, ny, nx, live, pair // 2, 0, axis, 1)
                    part += _shifted(h, n, k, j, i, nz, ny, nx, live, pair // 2, -1, axis, 0)
                    part += _shifted(h, n, k, j, i, nz, ny, nx, live, pair // 2, -1, axis, 1)
                    found += 0.25 * part
            found = found * tl.load(inverse[axis] + n, mask=live, other=0.0)
            tl.store(back[axis] + n, -found, mask=live)
