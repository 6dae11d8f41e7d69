"""The passes over the 7-point stencil in Triton: assembly, its reverse mode, its forward mode.

Every pass gathers, one cell a lane: a cell reads its neighbours and writes its own row. The equations are in the
README of this folder; a face is computed from both sides with the same operations. Sums are kept for each program and
added in order by the caller. Flags, a bit each: AXES along which cells have neighbours, SIDES that are open.
POINTS: wells and rivers of one program, at most.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _mean(kr_a, kr_b, drop, MEAN: tl.constexpr):
    """Mean of the relative conductivities and its derivatives in both; a is upstream where H does not rise."""
    one = tl.zeros_like(kr_a) + 1.0
    if MEAN == "upstream":
        a = drop <= 0.0
        k, k_a, k_b = tl.where(a, kr_a, kr_b), tl.where(a, one, 0.0), tl.where(a, 0.0, one)
    elif MEAN == "geometric":
        # conductivities that have faded to 0 give a mean of 0, which does not respond to either
        there = (kr_a > 0.0) & (kr_b > 0.0)
        k = tl.sqrt(kr_a) * tl.sqrt(kr_b)
        half = tl.where(there, 0.5 * k, 0.0)
        k_a, k_b = half / tl.where(there, kr_a, one), half / tl.where(there, kr_b, one)
    elif MEAN == "harmonic":
        total = kr_a + kr_b
        inv = 1.0 / tl.where(total > 0.0, total, one)
        part_a, part_b = kr_a * inv, kr_b * inv
        k, k_a, k_b = 2.0 * kr_a * part_b, 2.0 * part_b * part_b, 2.0 * part_a * part_a
    else:
        k, k_a, k_b = 0.5 * (kr_a + kr_b), 0.5 * one, 0.5 * one
    return k, k_a, k_b


@triton.jit
def _cells(ny, nx, BLOCK: tl.constexpr):
    """Index of each lane's cell, and its place along z, y and x."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    r = n // nx
    return n, r // ny, r % ny, n % nx


@triton.jit
def _beside(k, j, i, nz, ny, nx, live, AXIS: tl.constexpr, IS_A: tl.constexpr):
    """Distance to the neighbour in the order of memory, and whether there is one."""
    step = k * 0 + 1  # 64 bits; a size of 1 is a literal to the compiler and has no type of its own
    if AXIS == 0:
        step = step * ny * nx
        place, size = k, nz
    elif AXIS == 1:
        step = step * nx
        place, size = j, ny
    else:
        place, size = i, nx
    if IS_A:
        there = live & (place + 1 < size)
    else:
        there = live & (place > 0)
        step = -step
    return step, there


@triton.jit
def _owner(n, step, IS_A: tl.constexpr):
    """The cell that the face between a cell and its neighbour is stored with."""
    return n + step * (1 - IS_A)


@triton.jit
def _rise(rise, k, j, i, nx, there, AXIS: tl.constexpr, IS_A: tl.constexpr):
    """Rise of the face; it is stored with its lower (southern, western) cell."""
    back = 1 - IS_A
    if AXIS == 0:
        at = k - back
    elif AXIS == 1:
        at = (j - back) * nx + i
    else:
        at = j * nx + i - back
    return tl.load(rise + at, mask=there, other=0.0)


@triton.jit
def _flow(psi, other, kr, kr_other, rise, MEAN: tl.constexpr, IS_A: tl.constexpr):
    """Drop of H over a face, the mean, its derivatives in kr of this cell and of the other one.

    T mean drop flows from b into a; a is below, south or west.
    """
    if IS_A:
        drop = other - psi + rise
        mean, near, far = _mean(kr, kr_other, drop, MEAN)
    else:
        drop = psi - other + rise
        mean, far, near = _mean(kr_other, kr, drop, MEAN)
    return drop, mean, near, far


@triton.jit
def _volume(width, active, n, k, j, i, live, ACTIVE: tl.constexpr):
    """Volume of a cell [m3], and 1 where the cell takes no part, else 0."""
    v = tl.load(width[0] + k, mask=live, other=1.0) * tl.load(width[1] + j, mask=live, other=1.0)
    v = v * tl.load(width[2] + i, mask=live, other=1.0)
    held = tl.zeros_like(v)
    if ACTIVE:
        inside = tl.load(active + n, mask=live, other=1).to(tl.float64)
        held = 1.0 - inside
        v = v * inside
    return v, held


@triton.jit
def _side(side, which: tl.constexpr, k, j, i, nz, ny, nx, live):
    """Where a side's values stand for the cells that touch it, and which these are."""
    one = k * 0 + 1
    plane, south, west = one * ny * nx, one * nz * nx, one * nz * ny
    if which == 0:
        start, face, touches = plane * 0, j * nx + i, k == 0
    elif which == 1:
        start, face, touches = plane, j * nx + i, k == nz - 1
    elif which == 2:
        start, face, touches = 2 * plane, k * nx + i, j == 0
    elif which == 3:
        start, face, touches = 2 * plane + south, k * nx + i, j == ny - 1
    elif which == 4:
        start, face, touches = 2 * (plane + south), k * ny + j, i == 0
    else:
        start, face, touches = 2 * (plane + south) + west, k * ny + j, i == nx - 1
    return side + start + face, live & touches, 2 * (plane + south + west)


@triton.jit
def assemble_kernel(
    psi,
    psi_old,
    theta,
    theta_old,
    kr,
    capacity,
    dkr,  # [cells]
    face,  # transmissivities along z, y, x, [cells] m2/s
    rise,  # along z [nz], y and x [ny, nx], m
    width,  # along z, y, x, m
    storage,  # [cells] m2, or one value
    active,  # [cells] uint8
    source,  # 1/s, source_z, source_y, source_x apart
    roots,  # [2, cells from root_start]: taken [m3/s], its slope in psi [m2/s]
    point_cell,  # [m] wells and rivers, increasing
    point_start,  # [programs + 1] the first of each program
    points,  # [3, m]: inflow [m3/s], its round-off scale, minus its slope in psi [m2/s]
    sides,  # [3, faces]: A q [m3/s], its slope in psi [m2/s], its scale; of the sides in order
    allowed,  # [cells] m3
    inv_dt,  # [1] 1/s
    residual,  # [cells] m3/s, result
    matrix,  # [7, cells] m2/s, result
    found,  # [5, programs]: squares, beyond, exact, sum, terms; result
    source_z,
    source_y,
    source_x,
    root_start,
    nz,
    ny,
    nx,
    point_count,
    cells,
    MEAN: tl.constexpr,
    AXES: tl.constexpr,
    SIDES: tl.constexpr,
    ACTIVE: tl.constexpr,
    SOURCE: tl.constexpr,
    ROOTS: tl.constexpr,
    POINTS: tl.constexpr,
    MATRIX: tl.constexpr,
    ONE_STORAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Residual, Jacobian, and what the iteration wants to know of the residual."""
    n, k, j, i = _cells(ny, nx, BLOCK)
    live = n < cells
    here, old = tl.load(psi + n, mask=live, other=0.0), tl.load(psi_old + n, mask=live, other=0.0)
    water, water_old = tl.load(theta + n, mask=live, other=0.0), tl.load(theta_old + n, mask=live, other=0.0)
    k_here = tl.load(kr + n, mask=live, other=0.0)
    rate = tl.load(inv_dt)
    v, held = _volume(width, active, n, k, j, i, live, ACTIVE)
    s = tl.load(storage + n * (1 - ONE_STORAGE), mask=live, other=0.0)
    change = here - old
    f = (v * (water - water_old) + s * water * change) * rate
    # What a cell holds: the flows between cells cancel in the sum over all of them, and their round-off with them.
    own = (v * (water + water_old) + s * water * (tl.abs(here) + tl.abs(old))) * rate
    inner = tl.zeros_like(f)
    diag, slope = tl.zeros_like(f), tl.zeros_like(f)
    if MATRIX:
        c = tl.load(capacity + n, mask=live, other=0.0)
        slope = tl.load(dkr + n, mask=live, other=0.0)
        diag = (v * c + s * (c * change + water)) * rate
    for q in tl.static_range(6):
        to = matrix + n + (n * 0 + cells) * (1 + q)
        if (AXES >> (q // 2)) & 1:
            step, there = _beside(k, j, i, nz, ny, nx, live, q // 2, q % 2)
            t = tl.load(face[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            other = tl.load(psi + n + step, mask=there, other=0.0)
            k_other = tl.load(kr + n + step, mask=there, other=0.0)
            up = _rise(rise[q // 2], k, j, i, nx, there, q // 2, q % 2)
            drop, mean, near, far = _flow(here, other, k_here, k_other, up, MEAN, q % 2)
            tk, td = t * mean, t * drop
            inner += tk * (tl.abs(here) + tl.abs(other) + tl.abs(up))
            if MATRIX:
                far = td * far * tl.load(dkr + n + step, mask=there, other=0.0)
                near = td * near * slope
            if q % 2 == 1:
                f = f - tk * drop
                if MATRIX:
                    diag = diag + tk - near
                    tl.store(to, -tk - far, mask=live)
            else:
                f = f + tk * drop
                if MATRIX:
                    diag = diag + tk + near
                    tl.store(to, -tk + far, mask=live)
        elif MATRIX:
            tl.store(to, tl.zeros_like(f), mask=live)
    if ACTIVE:
        f += held * change
        diag += held
    if SOURCE:
        gain = v * tl.load(source + k * source_z + j * source_y + i * source_x, mask=live, other=0.0)
        f -= gain
        own += tl.abs(gain)
    if ROOTS:
        rooted = live & (n >= root_start)
        zone = roots + (n - root_start)
        taken = tl.load(zone, mask=rooted, other=0.0)
        f += taken
        own += taken
        if MATRIX:
            diag += tl.load(zone + (n * 0 + cells - root_start), mask=rooted, other=0.0)
    if POINTS > 0:
        first = point_start + tl.program_id(0).to(tl.int64)
        begin, end = tl.load(first), tl.load(first + 1)
        for number in range(POINTS):
            point = begin + number
            mine = point < end
            there = n == tl.load(point_cell + point, mask=mine, other=-1)
            at = points + point
            f -= tl.where(there, tl.load(at, mask=mine, other=0.0), 0.0)
            own += tl.where(there, tl.load(at + point_count, mask=mine, other=0.0), 0.0)
            if MATRIX:
                diag += tl.where(there, tl.load(at + 2 * point_count, mask=mine, other=0.0), 0.0)
    for which in tl.static_range(6):
        if (SIDES >> which) & 1:
            at, touches, faces = _side(sides, which, k, j, i, nz, ny, nx, live)
            f -= tl.load(at, mask=touches, other=0.0)
            own += tl.load(at + 2 * faces, mask=touches, other=0.0)
            if MATRIX:
                diag -= tl.load(at + faces, mask=touches, other=0.0)
    tl.store(residual + n, f, mask=live)
    if MATRIX:
        tl.store(matrix + n, diag, mask=live)
    size = tl.abs(f) - (own + inner) * 4.440892098500626e-14  # 200 times the spacing of numbers at 1
    limit = tl.load(allowed + n, mask=live, other=0.0) * rate
    to = found + tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    none = tl.zeros_like(f)
    low = none - float("inf")
    tl.store(to, tl.sum(tl.where(live, f * f, none), 0))
    tl.store(to + programs, tl.max(tl.where(live, size - limit, low), 0))
    tl.store(to + 2 * programs, tl.max(tl.where(live, size, low), 0))
    tl.store(to + 3 * programs, tl.sum(tl.where(live, f, none), 0))
    tl.store(to + 4 * programs, tl.sum(tl.where(live, own, none), 0))


@triton.jit
def reverse_kernel(
    psi,
    psi_old,
    theta,
    kr,
    multiplier,  # [cells]
    face,
    rise,
    width,
    storage,
    active,  # as above
    inv_dt,  # [1] 1/s
    grad_kr,  # [cells] result
    grad_theta,  # [cells] added to
    carry_theta,
    carry_psi,  # [cells] results
    grad_face,  # along z, y, x, [cells], added to where FACES
    grad_storage,  # [cells] added to where STORAGE
    seed,  # along z, y, x, [cells], cotangents of what flows through the faces, where SEEDS
    nz,
    ny,
    nx,
    cells,
    MEAN: tl.constexpr,
    AXES: tl.constexpr,
    ACTIVE: tl.constexpr,
    ONE_STORAGE: tl.constexpr,
    FACES: tl.constexpr,
    STORAGE: tl.constexpr,
    SEEDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What the multiplier of a step's equations gives to kr, theta, the faces, the storage and the state before."""
    n, k, j, i = _cells(ny, nx, BLOCK)
    live = n < cells
    here, old = tl.load(psi + n, mask=live, other=0.0), tl.load(psi_old + n, mask=live, other=0.0)
    water, k_here = tl.load(theta + n, mask=live, other=0.0), tl.load(kr + n, mask=live, other=0.0)
    weight = tl.load(multiplier + n, mask=live, other=0.0)
    v, held = _volume(width, active, n, k, j, i, live, ACTIVE)
    s = tl.load(storage + n * (1 - ONE_STORAGE), mask=live, other=0.0)
    by_kr = tl.zeros_like(here)
    for q in tl.static_range(6):
        if (AXES >> (q // 2)) & 1:
            step, there = _beside(k, j, i, nz, ny, nx, live, q // 2, q % 2)
            t = tl.load(face[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            other = tl.load(psi + n + step, mask=there, other=0.0)
            k_other = tl.load(kr + n + step, mask=there, other=0.0)
            up = _rise(rise[q // 2], k, j, i, nx, there, q // 2, q % 2)
            drop, mean, near, _ = _flow(here, other, k_here, k_other, up, MEAN, q % 2)
            difference = weight - tl.load(multiplier + n + step, mask=there, other=0.0)
            if q % 2 == 0:
                difference = -difference  # of the flow in -<multiplier, F>
            if (SEEDS >> (q // 2)) & 1:
                difference -= tl.load(seed[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            by_kr += difference * t * drop * near
            if q % 2 == 1 and (FACES >> (q // 2)) & 1:
                to = grad_face[q // 2] + n
                before = tl.load(to, mask=there, other=0.0)
                tl.store(to, before + difference * mean * drop, mask=there)
    change, rate = here - old, weight * tl.load(inv_dt)
    tl.store(grad_kr + n, by_kr, mask=live)
    tl.store(
        grad_theta + n, tl.load(grad_theta + n, mask=live, other=0.0) - rate * (v + s * change), mask=live
    )
    if STORAGE:
        before = tl.load(grad_storage + n, mask=live, other=0.0)
        tl.store(grad_storage + n, before - rate * water * change, mask=live)
    tl.store(carry_theta + n, rate * v, mask=live)
    tl.store(carry_psi + n, rate * s * water + weight * held, mask=live)


@triton.jit
def forward_kernel(
    psi,
    psi_old,
    theta,
    kr,  # [cells]
    dot_psi,
    dot_psi_old,
    dot_theta,
    dot_theta_old,
    dot_kr,  # [cells] tangents
    face,
    rise,
    width,
    storage,
    active,  # as above
    dot_face,  # [cells] tangents of the faces where FACES
    dot_storage,  # [cells] or one value, where STORAGE
    inv_dt,  # [1] 1/s
    dot_residual,  # [cells] result
    dot_flow,  # along z, y, x, [cells], results
    nz,
    ny,
    nx,
    cells,
    MEAN: tl.constexpr,
    AXES: tl.constexpr,
    ACTIVE: tl.constexpr,
    ONE_STORAGE: tl.constexpr,
    FACES: tl.constexpr,
    STORAGE: tl.constexpr,
    ONE_DOT_STORAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tangent of the residual, but for sides, sources and wells."""
    n, k, j, i = _cells(ny, nx, BLOCK)
    live = n < cells
    here, old = tl.load(psi + n, mask=live, other=0.0), tl.load(psi_old + n, mask=live, other=0.0)
    water, k_here = tl.load(theta + n, mask=live, other=0.0), tl.load(kr + n, mask=live, other=0.0)
    d_psi, d_old = tl.load(dot_psi + n, mask=live, other=0.0), tl.load(dot_psi_old + n, mask=live, other=0.0)
    d_water = tl.load(dot_theta + n, mask=live, other=0.0)
    d_water_old = tl.load(dot_theta_old + n, mask=live, other=0.0)
    d_kr = tl.load(dot_kr + n, mask=live, other=0.0)
    v, held = _volume(width, active, n, k, j, i, live, ACTIVE)
    s = tl.load(storage + n * (1 - ONE_STORAGE), mask=live, other=0.0)
    d_s = tl.zeros_like(s)
    if STORAGE:
        d_s = tl.load(dot_storage + n * (1 - ONE_DOT_STORAGE), mask=live, other=0.0)
    change = here - old
    f = v * (d_water - d_water_old) + (d_s * water + s * d_water) * change + s * water * (d_psi - d_old)
    f = f * tl.load(inv_dt)
    for q in tl.static_range(6):
        if (AXES >> (q // 2)) & 1:
            step, there = _beside(k, j, i, nz, ny, nx, live, q // 2, q % 2)
            t = tl.load(face[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            other = tl.load(psi + n + step, mask=there, other=0.0)
            k_other = tl.load(kr + n + step, mask=there, other=0.0)
            up = _rise(rise[q // 2], k, j, i, nx, there, q // 2, q % 2)
            drop, mean, near, far = _flow(here, other, k_here, k_other, up, MEAN, q % 2)
            fall = tl.load(dot_psi + n + step, mask=there, other=0.0) - d_psi
            d_mean = near * d_kr + far * tl.load(dot_kr + n + step, mask=there, other=0.0)
            moved = t * d_mean
            if (FACES >> (q // 2)) & 1:
                d_t = tl.load(dot_face[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
                moved += d_t * mean
            if q % 2 == 1:
                f -= moved * drop + t * mean * fall
                tl.store(dot_flow[q // 2] + n, -(moved * drop + t * mean * fall), mask=live)
            else:
                f += moved * drop - t * mean * fall
    if ACTIVE:
        f += held * (d_psi - d_old)
    tl.store(dot_residual + n, f, mask=live)


@triton.jit
def flow_kernel(
    psi,
    psi_old,
    kr,  # [cells]
    face,
    rise,
    width,
    storage,
    active,  # as above
    inv_dt,  # [1] 1/s
    flow,  # along z, y, x, [cells] m3/s, results: through the faces, positive along the axis
    nz,
    ny,
    nx,
    cells,
    MEAN: tl.constexpr,
    AXES: tl.constexpr,
    ACTIVE: tl.constexpr,
    ONE_STORAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What flows between the cells."""
    n, k, j, i = _cells(ny, nx, BLOCK)
    live = n < cells
    here, k_here = tl.load(psi + n, mask=live, other=0.0), tl.load(kr + n, mask=live, other=0.0)
    for axis in tl.static_range(3):
        if (AXES >> axis) & 1:
            step, there = _beside(k, j, i, nz, ny, nx, live, axis, 1)
            t = tl.load(face[axis] + n, mask=there, other=0.0)
            other = tl.load(psi + n + step, mask=there, other=0.0)
            k_other = tl.load(kr + n + step, mask=there, other=0.0)
            up = _rise(rise[axis], k, j, i, nx, there, axis, 1)
            drop, mean, _, _ = _flow(here, other, k_here, k_other, up, MEAN, 1)
            tl.store(flow[axis] + n, -t * mean * drop, mask=live)


@triton.jit
def load_kernel(
    psi,
    psi_old,
    kr,
    dkr,  # [cells]
    face,
    rise,
    width,
    storage,
    active,  # as above
    inv_dt,  # [1] 1/s
    seed,  # along z, y, x, [cells], cotangents of what flows through the faces, where SEEDS
    load,  # [cells] added to
    nz,
    ny,
    nx,
    cells,
    MEAN: tl.constexpr,
    AXES: tl.constexpr,
    ACTIVE: tl.constexpr,
    ONE_STORAGE: tl.constexpr,
    SEEDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """d/dpsi of <seed, what flows between the cells>."""
    n, k, j, i = _cells(ny, nx, BLOCK)
    live = n < cells
    here, k_here = tl.load(psi + n, mask=live, other=0.0), tl.load(kr + n, mask=live, other=0.0)
    slope = tl.load(dkr + n, mask=live, other=0.0)
    found = tl.load(load + n, mask=live, other=0.0)
    for q in tl.static_range(6):
        if (SEEDS >> (q // 2)) & 1:
            step, there = _beside(k, j, i, nz, ny, nx, live, q // 2, q % 2)
            t = tl.load(face[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            other = tl.load(psi + n + step, mask=there, other=0.0)
            k_other = tl.load(kr + n + step, mask=there, other=0.0)
            up = _rise(rise[q // 2], k, j, i, nx, there, q // 2, q % 2)
            drop, mean, near, _ = _flow(here, other, k_here, k_other, up, MEAN, q % 2)
            weight = t * tl.load(seed[q // 2] + _owner(n, step, q % 2), mask=there, other=0.0)
            found -= weight * (drop * near * slope + mean * (1 - 2 * (q % 2)))
    tl.store(load + n, found, mask=live)
