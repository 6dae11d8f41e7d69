"""Functions that Triton lacks for float64 in one form for GPU and interpreter: log1p, expm1, logistic, erfcx.

Literals stand next to float64 operands only, so that none is rounded to float32 on its way.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """log(1 + x) for x > -1: the rounding of 1 + x is undone by the quotient (Kahan; Higham 2002, 1.14.1)."""
    u = x + 1.0
    there = u != 1.0
    change = tl.where(there, u - 1.0, 1.0)
    # above 1e15, 1 + x is x and the quotient 1; nothing overflows
    return tl.where(there, tl.log(u) * (x / change), x)


@triton.jit
def expm1(x):
    """exp(x) - 1 for x <= 0; as ``log1p``, from exp and log of the same rounded number."""
    e = tl.exp(x)
    there = (e != 1.0) & (e > 1e-20)
    log_e = tl.log(tl.where(there, e, 2.0))
    return tl.where(there, (e - 1.0) * (x / log_e), tl.where(e == 1.0, x, e - 1.0))


@triton.jit
def log_floored(x):
    """log with its argument held at the smallest normal number."""
    return tl.log(tl.where(x < 2.2250738585072014e-308, x * 0.0 + 2.2250738585072014e-308, x))


@triton.jit
def logistic(t):
    """sigma(t), 1 - sigma(t), softplus(t), softplus(-t); none overflows or cancels."""
    positive = t > 0.0
    q = tl.exp(-tl.abs(t))
    near = 1.0 / (q + 1.0)
    far = q * near
    tail = log1p(q)
    return (
        tl.where(positive, near, far),
        tl.where(positive, far, near),
        tl.where(positive, t, 0.0) + tail,
        tl.where(positive, 0.0, -t) + tail,
    )


@triton.jit
def _erfcx_small(x):
    """On [0, 15/32]: exp(x^2) (1 - erf(x))."""
    y = x * x
    num = y * 1.85777706184603153e-1
    num = (num + 3.16112374387056560e0) * y
    num = (num + 1.13864154151050156e2) * y
    num = (num + 3.77485237685302021e2) * y
    den = (y + 2.36012909523441209e1) * y
    den = (den + 2.44024637934444173e2) * y
    den = (den + 1.28261652607737228e3) * y
    erf = x * (num + 3.20937758913846947e3) / (den + 2.84423683343917062e3)
    return tl.exp(y) * (1.0 - erf)


@triton.jit
def _erfcx_middle(x):
    """On [15/32, 4]."""
    num = x * 2.15311535474403846e-8
    num = (num + 5.64188496988670089e-1) * x
    num = (num + 8.88314979438837594e0) * x
    num = (num + 6.61191906371416295e1) * x
    num = (num + 2.98635138197400131e2) * x
    num = (num + 8.81952221241769090e2) * x
    num = (num + 1.71204761263407058e3) * x
    num = (num + 2.05107837782607147e3) * x
    den = (x + 1.57449261107098347e1) * x
    den = (den + 1.17693950891312499e2) * x
    den = (den + 5.37181101862009858e2) * x
    den = (den + 1.62138957456669019e3) * x
    den = (den + 3.29079923573345963e3) * x
    den = (den + 4.36261909014324716e3) * x
    den = (den + 3.43936767414372164e3) * x
    return (num + 1.23033935479799725e3) / (den + 1.23033935480374942e3)


@triton.jit
def _erfcx_large(x):
    """On [4, inf)."""
    inv = 1.0 / x
    y = inv * inv
    num = y * 1.63153871373020978e-2
    num = (num + 3.05326634961232344e-1) * y
    num = (num + 3.60344899949804439e-1) * y
    num = (num + 1.25781726111229246e-1) * y
    num = (num + 1.60837851487422766e-2) * y
    den = (y + 2.56852019228982242e0) * y
    den = (den + 1.87295284992346725e0) * y
    den = (den + 5.27905102951428412e-1) * y
    den = (den + 6.05183413124143191e-2) * y
    tail = y * (num + 6.58749161529837803e-4) / (den + 2.33520497626869185e-3)
    return (5.6418958354775628695e-1 - tail) * inv


@triton.jit
def erfcx(x):
    """exp(x^2) erfc(x) for x >= 0: the rational approximations of Cody (1969, Math. Comput. 23:631)."""
    small, large = x <= 0.46875, x > 4.0
    middle = _erfcx_middle(tl.where(large, 4.0, x))
    y = tl.where(small, _erfcx_small(tl.where(small, x, 0.0)), middle)
    return tl.where(large, _erfcx_large(tl.where(large, x, 4.0)), y)


@triton.jit
def normal_tail(u):
    """Q(u) = erfc(u/sqrt 2)/2, log Q, the density phi = -Q' and the hazard phi/Q."""
    half = erfcx(tl.abs(u) * 0.70710678118654752440) * 0.5
    gauss = tl.exp(u * u * -0.5)
    right = u >= 0.0
    beyond = half * gauss  # Q(|u|)
    density = gauss * 0.39894228040143267794
    tail = tl.where(right, beyond, 1.0 - beyond)
    log_tail = tl.log(tl.where(right, half, tail)) - tl.where(right, u * u * 0.5, 0.0)
    # the density underflows in the far tail, the hazard does not
    hazard = tl.where(right, 0.39894228040143267794 / half, density / tl.where(right, 1.0, tail))
    return tail, log_tail, density, hazard
