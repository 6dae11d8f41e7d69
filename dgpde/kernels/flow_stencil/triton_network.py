"""The fused network in Triton: the algebra of csrc/math/soil_network.h, where it is explained.

Gradients of the weights are sums over the cells: each program adds its own cells, and the programs are added after it,
so the sum has one order and the same bits on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpde.kernels.flow_stencil.curves import Curves
from dgpde.kernels.flow_stencil.triton_math import expm1, logistic
from dgpde.kernels.flow_stencil.triton_soil import flat_or_one
from dgpde.kernels.soil_relation.reference_network import OWN
from dgpde.triton_launch import launch, programs


@triton.jit
def _argument(at, u, x, FEATURES: tl.constexpr):
    """t of the unit whose weights stand at ``at``."""
    t = tl.load(at + 1) * u + tl.load(at + 2)
    if FEATURES > 0:
        t += tl.load(at + 3) * x[0]
    if FEATURES > 1:
        t += tl.load(at + 4) * x[1]
    if FEATURES > 2:
        t += tl.load(at + 5) * x[2]
    return t


@triton.jit
def _departure(w, u, x, UNITS: tl.constexpr, FEATURES: tl.constexpr):
    """D, dD/du and dD/dx."""
    value = tl.zeros_like(u)
    slope, x1, x2, x3 = value, value, value, value
    for j in range(UNITS):
        at = w + j * (3 + FEATURES)
        a = tl.load(at)
        t = _argument(at, u, x, FEATURES)
        root = 1.0 / tl.sqrt(t * t + 1.0)
        bend = a * (root * root * root)
        value += a * (t * root)
        slope += tl.load(at + 1) * bend
        if FEATURES > 0:
            x1 += tl.load(at + 3) * bend
        if FEATURES > 1:
            x2 += tl.load(at + 4) * bend
        if FEATURES > 2:
            x3 += tl.load(at + 5) * bend
    return value, slope, (x1, x2, x3)


@triton.jit
def _field(p, n, live, SHARED: tl.constexpr, SLOT: tl.constexpr):
    """A parameter of the cells; past the end of the field what nothing divides by zero with."""
    return tl.load(p + n * (1 - ((SHARED >> SLOT) & 1)), mask=live, other=SLOT + 1.0)


@triton.jit
def _network(psi, n, live, p, w, SHARED: tl.constexpr, UNITS: tl.constexpr, FEATURES: tl.constexpr):
    """The curves and their derivatives; u, u1, T, K, 1 + D2' and the features, for the weights."""
    theta_r, theta_s = _field(p[0], n, live, SHARED, 0), _field(p[1], n, live, SHARED, 1)
    alpha, nn = _field(p[2], n, live, SHARED, 2), _field(p[3], n, live, SHARED, 3)
    tau = _field(p[4], n, live, SHARED, 4)
    zero = tl.zeros_like(psi)
    x1, x2, x3 = zero, zero, zero
    if FEATURES > 0:
        x1 = _field(p[5], n, live, SHARED, 5) + zero
    if FEATURES > 1:
        x2 = _field(p[6], n, live, SHARED, 6) + zero
    if FEATURES > 2:
        x3 = _field(p[7], n, live, SHARED, 7) + zero
    x = (x1, x2, x3)
    m = 1.0 - 1.0 / nn
    wet = psi >= 0.0
    # keeps 1/h finite at a denormal psi and changes no other one; nan stays nan
    h = tl.where(wet, 1.0, 1e-300 - psi)
    u = tl.log(h)
    d1, slope1, in_x1 = _departure(w, u, x, UNITS, FEATURES)
    u1 = u + d1
    d2, slope2, in_x2 = _departure(w + UNITS * (3 + FEATURES), u1, x, UNITS, FEATURES)
    stretch1, stretch2 = slope1 + 1.0, slope2 + 1.0
    lx1 = tl.log(alpha) + u1
    lx2 = lx1 + d2
    f1, _, plus1, _ = logistic(nn * lx1)
    f2, g2, plus2, minus2 = logistic(nn * lx2)
    log_se, log_se2 = -m * plus1, -m * plus2
    se = tl.exp(log_se)
    se2_l = tl.exp(tau * log_se2)
    a = -expm1(-m * minus2)
    big_g = 1.0 - a
    span = theta_s - theta_r
    by_u1 = tl.where(wet, 0.0, (1.0 - nn) * span * f1 * se)
    by_u2 = tl.where(wet, 0.0, (1.0 - nn) * se2_l * a * (tau * f2 * a + 2.0 * g2 * big_g))
    kr = se2_l * a * a
    point = (
        tl.where(wet, theta_r + span, theta_r + span * se),
        tl.where(wet, 1.0, kr),
        -by_u1 * stretch1 / h,
        -by_u2 * stretch1 * stretch2 / h,
    )
    inv_n2 = 1.0 / (nn * nn)
    a_n = -big_g * (m * g2 * lx2 - minus2 * inv_n2)
    dtheta = (
        tl.where(wet, 0.0, 1.0 - se),
        tl.where(wet, 1.0, se),
        by_u1 / alpha,
        tl.where(wet, 0.0, span * se * (log_se * inv_n2 / m - m * f1 * lx1)),
        zero,
        by_u1 * in_x1[0],
        by_u1 * in_x1[1],
        by_u1 * in_x1[2],
    )
    dkr = (
        zero,
        zero,
        by_u2 / alpha,
        tl.where(wet, 0.0, kr * tau * (log_se2 * inv_n2 / m - m * f2 * lx2) + 2.0 * se2_l * a * a_n),
        tl.where(wet, 0.0, kr * log_se2),
        by_u2 * (in_x1[0] * stretch2 + in_x2[0]),
        by_u2 * (in_x1[1] * stretch2 + in_x2[1]),
        by_u2 * (in_x1[2] * stretch2 + in_x2[2]),
    )
    return point, dtheta, dkr, (u, u1, by_u1, by_u2, stretch2), x


@triton.jit
def network_curves_kernel(
    psi,  # [cells] m
    p,  # fields
    w,  # [2, UNITS, 3 + FEATURES]
    theta,
    kr,
    capacity,
    dkr,  # [cells] results; theta alone unless ALL
    cells,
    SHARED: tl.constexpr,
    UNITS: tl.constexpr,
    FEATURES: tl.constexpr,
    ALL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """theta, kr and their slopes in psi."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, _, _, _, _ = _network(here, n, live, p, w, SHARED, UNITS, FEATURES)
    tl.store(theta + n, point[0], mask=live)
    if ALL:
        tl.store(kr + n, point[1], mask=live)
        tl.store(capacity + n, point[2], mask=live)
        tl.store(dkr + n, point[3], mask=live)


@triton.jit
def _pull_units(to, w, u, by, x, UNITS: tl.constexpr, FEATURES: tl.constexpr):
    """Gradients of one network's weights, summed over the cells of the program."""
    for j in range(UNITS):
        at, here = w + j * (3 + FEATURES), to + j * (3 + FEATURES)
        t = _argument(at, u, x, FEATURES)
        root = 1.0 / tl.sqrt(t * t + 1.0)
        by_t = by * (tl.load(at) * (root * root * root))
        tl.store(here, tl.sum(by * (t * root)))
        tl.store(here + 1, tl.sum(by_t * u))
        tl.store(here + 2, tl.sum(by_t))
        if FEATURES > 0:
            tl.store(here + 3, tl.sum(by_t * x[0]))
        if FEATURES > 1:
            tl.store(here + 4, tl.sum(by_t * x[1]))
        if FEATURES > 2:
            tl.store(here + 5, tl.sum(by_t * x[2]))


@triton.jit
def network_pull_kernel(
    psi,  # [cells] m
    p,  # fields
    w,  # [2, UNITS, 3 + FEATURES]
    by_theta,
    by_kr,  # [cells] cotangents; by_kr only where KR
    by_psi,  # [cells] result
    gradients,  # of the fields, [cells] each, added to where WANTED
    sums,  # [programs, 2, UNITS, 3 + FEATURES] result where WEIGHTS
    cells,
    SHARED: tl.constexpr,
    UNITS: tl.constexpr,
    FEATURES: tl.constexpr,
    KR: tl.constexpr,
    WANTED: tl.constexpr,
    WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cotangents of theta and kr to psi, to the fields and to the weights."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, dtheta, dkr, at, x = _network(here, n, live, p, w, SHARED, UNITS, FEATURES)
    g = tl.load(by_theta + n, mask=live, other=0.0)
    k = tl.zeros_like(g)
    if KR:
        k = tl.load(by_kr + n, mask=live, other=0.0)
    tl.store(by_psi + n, g * point[2] + k * point[3], mask=live)
    for slot in tl.static_range(8):
        if (WANTED >> slot) & 1:
            to = gradients[slot] + n
            before = tl.load(to, mask=live, other=0.0)
            tl.store(to, before + (g * dtheta[slot] + k * dkr[slot]), mask=live)
    if WEIGHTS:
        by_u2 = k * at[3]
        by_u1 = g * at[2] + by_u2 * at[4]
        size = UNITS * (3 + FEATURES)
        own = sums + tl.program_id(0).to(tl.int64) * (2 * size)
        _pull_units(own, w, at[0], by_u1, x, UNITS, FEATURES)
        _pull_units(own + size, w + size, at[1], by_u2, x, UNITS, FEATURES)


@triton.jit
def _push_units(w, v, u, x, UNITS: tl.constexpr, FEATURES: tl.constexpr):
    """Movement of D along that of its weights."""
    moved = tl.zeros_like(u)
    for j in range(UNITS):
        at, along = w + j * (3 + FEATURES), v + j * (3 + FEATURES)
        t, dt = _argument(at, u, x, FEATURES), _argument(along, u, x, FEATURES)
        root = 1.0 / tl.sqrt(t * t + 1.0)
        moved += tl.load(along) * (t * root) + tl.load(at) * (root * root * root) * dt
    return moved


@triton.jit
def network_push_kernel(
    psi,  # [cells] m
    p,  # fields
    w,  # [2, UNITS, 3 + FEATURES]
    dot_psi,  # [cells] tangent
    dots,  # of the fields where MOVING: fields, or one value (DOT_SHARED)
    v,  # of the weights where WEIGHTS
    dot_theta,
    dot_kr,  # [cells] results
    cells,
    SHARED: tl.constexpr,
    UNITS: tl.constexpr,
    FEATURES: tl.constexpr,
    MOVING: tl.constexpr,
    DOT_SHARED: tl.constexpr,
    WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tangents of theta and kr."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, dtheta, dkr, at, x = _network(here, n, live, p, w, SHARED, UNITS, FEATURES)
    dot = tl.load(dot_psi + n, mask=live, other=0.0)
    t, k = point[2] * dot, point[3] * dot
    for slot in tl.static_range(8):
        if (MOVING >> slot) & 1:
            d = _field(dots[slot], n, live, DOT_SHARED, slot)
            t += dtheta[slot] * d
            k += dkr[slot] * d
    if WEIGHTS:
        size = UNITS * (3 + FEATURES)
        first = _push_units(w, v, at[0], x, UNITS, FEATURES)
        second = _push_units(w + size, v + size, at[1], x, UNITS, FEATURES)
        t += at[2] * first
        k += at[3] * (first * at[4] + second)
    tl.store(dot_theta + n, t, mask=live)
    tl.store(dot_kr + n, k, mask=live)


class TritonNetwork:
    """The network soil of a run; its methods are those of ``TritonSoil``.

    Args:
        parameters: [nz, ny, nx] each, and the weights last.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        *fields, weights = parameters
        given, shared = flat_or_one(fields)
        self.weights = weights.contiguous()
        self.constants = {
            "p": tuple(given),
            "w": self.weights,
            "SHARED": shared,
            "UNITS": weights.shape[1],
            "FEATURES": weights.shape[2] - OWN,
        }

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        found = torch.empty_like(psi)
        rest = {"kr": found, "capacity": found, "dkr": found}
        launch(network_curves_kernel, psi.numel(), psi=psi, theta=found, ALL=False, **rest, **self.constants)
        return found

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes."""
        found = Curves(*(torch.empty_like(psi) for _ in range(4)))
        launch(network_curves_kernel, psi.numel(), psi=psi, ALL=True, **vars(found), **self.constants)
        return found

    def pull(
        self, psi: Tensor, by_theta: Tensor, by_kr: Tensor | None, gradients: list[Tensor | None]
    ) -> Tensor:
        """Add to the gradients of the parameters (contiguous, or None); returns that of psi."""
        by_psi = torch.empty_like(psi)
        *fields, weights = gradients
        count = programs(psi.numel()) if weights is not None else 0
        sums = psi.new_empty(count, *self.weights.shape)
        launch(
            network_pull_kernel,
            psi.numel(),
            psi=psi,
            by_theta=by_theta.contiguous(),
            by_kr=psi if by_kr is None else by_kr,
            by_psi=by_psi,
            gradients=tuple(by_psi if value is None else value for value in fields),
            sums=sums,
            KR=by_kr is not None,
            WANTED=sum(1 << slot for slot, value in enumerate(fields) if value is not None),
            WEIGHTS=weights is not None,
            **self.constants,
        )
        if weights is not None:
            weights += sums.sum(0)
        return by_psi

    def push(self, psi: Tensor, dot_psi: Tensor, dots: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr; parameters without a tangent do not move."""
        dot_theta, dot_kr = torch.empty_like(psi), torch.empty_like(psi)
        *fields, weights = dots
        given, shared = flat_or_one([psi if dot is None else dot for dot in fields])
        launch(
            network_push_kernel,
            psi.numel(),
            psi=psi,
            dot_psi=dot_psi.contiguous(),
            dots=tuple(given),
            v=self.weights if weights is None else weights.contiguous(),
            dot_theta=dot_theta,
            dot_kr=dot_kr,
            MOVING=sum(1 << slot for slot, dot in enumerate(fields) if dot is not None),
            DOT_SHARED=shared,
            WEIGHTS=weights is not None,
            **self.constants,
        )
        return dot_theta, dot_kr
