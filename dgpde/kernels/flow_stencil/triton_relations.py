"""The soil relations as Triton functions: the algebra of csrc/math/soil_*.h, where it is explained.

Every relation is ``f(psi, p, VARIANT)`` with p its raw parameters in the order of ``PARAMETERS``, and returns
(theta, kr, dtheta/dpsi, dkr/dpsi), the derivatives of theta in the parameters, and those of kr. What a kernel does not
use of them the compiler leaves out. tau is the exponent of the saturation in Mualem's model, the parameter l.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dgpde.kernels.flow_stencil.triton_math import (
    expm1,
    log1p,
    log_floored,
    logistic,
    normal_tail,
)


@triton.jit
def _saturated(psi, tiny: tl.constexpr = 1e-300):
    """Suctions up to this one count as saturated; the suction, 1 m where saturated."""
    wet = psi >= -tiny
    return wet, tl.where(wet, 1.0, -psi)


@triton.jit
def _pore_shape(alpha, n, m, h):
    """log(alpha h), f, 1 - f, log f, log Se, Se^(1/2), A of van Genuchten and Mualem."""
    lx = tl.log(alpha * h)
    ly = n * lx
    dry = ly > 0.0
    q = tl.exp(-tl.abs(ly))
    r = 1.0 / (q + 1.0)
    tail = log1p(q)
    f, g = tl.where(dry, r, q * r), tl.where(dry, q * r, r)
    log_f = tl.where(dry, 0.0, ly) - tail
    log_se = -m * (tl.where(dry, ly, 0.0) + tail)
    root_se = tl.exp(log_se * 0.5)
    return lx, f, g, log_f, log_se, root_se, -expm1(m * log_f)


@triton.jit
def van_genuchten(psi, p, VARIANT: tl.constexpr):
    """van Genuchten (1980) with Mualem (1976) and an air entry (Ippisch et al. 2006)."""
    range_, alpha, n, tau, h_e = p[1] - p[0], p[2], p[3], p[4], p[5]
    zero = tl.zeros_like(psi)
    one = zero + 1.0
    m = 1.0 - 1.0 / n
    entry = h_e > 0.0
    he = tl.where(entry, h_e, 1.0)
    lx_e, f_e, g_e, log_f_e, log_se_e, root_e, a_e = _pore_shape(alpha, n, m, he)
    log_se_c, a_c = tl.where(entry, log_se_e, 0.0), tl.where(entry, a_e, 1.0)
    wet = psi >= -h_e
    # keeps 1/h finite at a denormal psi and changes no other one; nan stays nan
    h = tl.where(wet, 1.0, 1e-300 - psi)
    lx, f, g, log_f, log_se, root_se, a = _pore_shape(alpha, n, m, h)
    log_sat = log_se - log_se_c
    sat = root_se * root_se * tl.where(entry, 1.0 / (root_e * root_e), 1.0)
    c2 = tl.exp(tau * log_sat) / (a_c * a_c)
    big_g = 1.0 - a  # f^m
    slope = (n - 1.0) / h
    kr = tl.where(wet, 1.0, c2 * a * a)
    capacity = tl.where(wet, 0.0, range_ * sat * slope * f)
    dkr = tl.where(wet, 0.0, slope * c2 * a * (tau * f * a + 2.0 * g * big_g))
    inv_n2 = 1.0 / (n * n)
    gc = 1.0 - a_e
    ds_alpha = (n - 1.0) * (tl.where(entry, f_e, 0.0) - f) / alpha
    ds_n = (log_se - log_se_c) * inv_n2 / m - m * (f * lx - tl.where(entry, f_e * lx_e, 0.0))
    ds_entry = tl.where(entry, (n - 1.0) * f_e / he, 0.0)
    da_alpha = -(n - 1.0) * g * big_g / alpha
    da_n = -big_g * (log_f * inv_n2 + m * g * lx)
    dac_alpha = tl.where(entry, -(n - 1.0) * g_e * gc / (alpha * a_e), 0.0)  # d log A(h_e)
    dac_n = tl.where(entry, -gc * (log_f_e * inv_n2 + m * g_e * lx_e) / a_e, 0.0)
    dac_entry = tl.where(entry, -(n - 1.0) * g_e * gc / (he * a_e), 0.0)
    change = tl.where(wet, 0.0, range_ * sat)
    two_c2a = 2.0 * c2 * a
    dtheta = (
        tl.where(wet, 0.0, 1.0 - sat),
        tl.where(wet, 1.0, sat),
        change * ds_alpha,
        change * ds_n,
        zero,
        change * ds_entry,
        zero,
        zero,
    )
    dk = (
        zero,
        zero,
        tl.where(wet, 0.0, kr * (tau * ds_alpha - 2.0 * dac_alpha) + two_c2a * da_alpha),
        tl.where(wet, 0.0, kr * (tau * ds_n - 2.0 * dac_n) + two_c2a * da_n),
        tl.where(wet, 0.0, kr * log_sat),
        tl.where(wet, 0.0, kr * (tau * ds_entry - 2.0 * dac_entry)),
        zero,
        zero,
    )
    return (p[0] + range_ * tl.where(wet, one, sat), kr, capacity, dkr), dtheta, dk


@triton.jit
def brooks_corey(psi, p, VARIANT: tl.constexpr):
    """Brooks & Corey (1964) with Mualem (variant 0) or Burdine (1)."""
    range_, psi_e, lam = p[1] - p[0], p[2], p[3]
    zero = tl.zeros_like(psi)
    if VARIANT == 0:
        de_dlam = p[4] + 2.0
        de_dl = lam
    else:
        de_dlam = zero + 3.0
        de_dl = zero
    e = de_dlam * lam + 2.0
    wet = psi >= -psi_e
    h = tl.where(wet, psi_e, -psi)
    log_h = tl.log(h / psi_e)
    se, kr = tl.exp(-lam * log_h), tl.exp(-e * log_h)
    capacity = tl.where(wet, 0.0, range_ * lam * se / h)
    dtheta = (
        1.0 - se,
        se,
        tl.where(wet, 0.0, range_ * lam * se / psi_e),
        -range_ * log_h * se,
        zero,
        zero,
        zero,
        zero,
    )
    by_psi_e = tl.where(wet, 0.0, e * kr / psi_e)
    dk = (zero, zero, by_psi_e, -de_dlam * log_h * kr, -de_dl * log_h * kr, zero, zero, zero)
    return (p[0] + range_ * se, kr, capacity, tl.where(wet, 0.0, e * kr / h)), dtheta, dk


@triton.jit
def gardner(psi, p, VARIANT: tl.constexpr):
    """Gardner (1958)."""
    range_, alpha = p[1] - p[0], p[2]
    zero = tl.zeros_like(psi)
    wet = psi >= 0.0
    e = tl.exp(alpha * tl.where(wet, 0.0, psi))
    slope = tl.where(wet, 0.0, alpha * e)
    de = tl.where(wet, 0.0, psi * e)
    dtheta = (1.0 - e, e, range_ * de, zero, zero, zero, zero, zero)
    dk = (zero, zero, de, zero, zero, zero, zero, zero)
    return (p[0] + range_ * e, e, range_ * slope, slope), dtheta, dk


@triton.jit
def haverkamp(psi, p, VARIANT: tl.constexpr):
    """Haverkamp et al. (1977): powers of h (variant 0), for theta of ln(h/1 cm) (1)."""
    range_, alpha, beta, a, gamma = p[1] - p[0], p[2], p[3], p[4], p[5]
    zero = tl.zeros_like(psi)
    wet, h = _saturated(psi)
    log_h, inv_h = tl.log(h), 1.0 / h
    if VARIANT == 0:
        full = wet
        log_w = log_h
        dlog_w = inv_h
    else:
        unit = zero + 0.01
        full = psi >= -unit
        w = log1p((tl.where(full, unit + unit, h) - unit) / unit)
        log_w = tl.log(w)
        dlog_w = inv_h / w
    t_sigma, t_co, _, _ = logistic(beta * log_w - tl.log(alpha))
    s_sigma, s_co, _, _ = logistic(gamma * log_h - tl.log(a))
    dse = tl.where(full, 0.0, t_sigma * t_co)  # -dSe/dt
    dk = tl.where(wet, 0.0, s_sigma * s_co)
    se = tl.where(full, 1.0, t_co)
    dtheta = (
        tl.where(full, 0.0, t_sigma),
        se,
        range_ * dse / alpha,
        -range_ * dse * log_w,
        zero,
        zero,
        zero,
        zero,
    )
    by_kr = (zero, zero, zero, zero, dk / a, -dk * log_h, zero, zero)
    point = (p[0] + range_ * se, tl.where(wet, 1.0, s_co), range_ * dse * beta * dlog_w, dk * gamma * inv_h)
    return point, dtheta, by_kr


@triton.jit
def saturated(psi, p, VARIANT: tl.constexpr):
    """theta = theta_s, kr = 1."""
    zero = tl.zeros_like(psi)
    one = zero + 1.0
    none = (zero, zero, zero, zero, zero, zero, zero, zero)
    return (p[0] + zero, one, zero, zero), (one, zero, zero, zero, zero, zero, zero, zero), none


@triton.jit
def kosugi(psi, p, VARIANT: tl.constexpr):
    """Kosugi (1996) with Mualem."""
    range_, s_m, sigma, tau = p[1] - p[0], p[2], p[3], p[4]
    zero = tl.zeros_like(psi)
    wet, h = _saturated(psi)
    inv_sigma = 1.0 / sigma
    u = (tl.log(h) - tl.log(s_m)) * inv_sigma
    q_tail, q_log, q_density, q_hazard = normal_tail(u)
    _, k_log, _, k_hazard = normal_tail(u + sigma)
    kr = tl.exp(tau * q_log + 2.0 * k_log)
    slope = inv_sigma / h
    rate = tau * q_hazard + 2.0 * k_hazard  # -d log kr/du
    se = tl.where(wet, 1.0, q_tail)
    by_s_m = inv_sigma / s_m
    fall, kr_dry = tl.where(wet, 0.0, range_ * q_density), tl.where(wet, 0.0, kr)
    dtheta = (1.0 - se, se, fall * by_s_m, fall * u * inv_sigma, zero, zero, zero, zero)
    by_sigma = kr_dry * (rate * u * inv_sigma - 2.0 * k_hazard)
    dk = (zero, zero, kr_dry * rate * by_s_m, by_sigma, kr_dry * q_log, zero, zero, zero)
    return (p[0] + range_ * se, tl.where(wet, 1.0, kr), fall * slope, kr_dry * rate * slope), dtheta, dk


@triton.jit
def fredlund_xing(psi, p, VARIANT: tl.constexpr):
    """Fredlund & Xing (1994) with Leong & Rahardjo (1997)."""
    theta_s, a, n, m, power, s_r = p[0], p[1], p[2], p[3], p[4], p[5]
    zero = tl.zeros_like(psi)
    end = zero + 1e5  # m, no water beyond
    wet, h = _saturated(psi)
    oven = h >= end
    inv_m, inv_h = 1.0 / log1p(end / s_r), 1.0 / h
    log_x = tl.log(h) - tl.log(a)
    t_sigma, _, t_plus, _ = logistic(n * log_x - 1.0)
    log_b = log1p(t_plus)
    rate = t_sigma / (t_plus + 1.0)  # d log B/dt
    g = tl.exp(-m * log_b)
    kr = tl.exp(-power * m * log_b)
    c = log1p(tl.where(oven, 0.0, end - h) / (s_r + h)) * inv_m
    slope_c = tl.where(oven, 0.0, inv_m / (s_r + h))  # -dC/dh
    theta = theta_s * c * g
    capacity = tl.where(wet, 0.0, theta * m * n * rate * inv_h + theta_s * g * slope_c)
    by_a, by_n = m * n * rate / a, -m * rate * log_x  # d log G
    # dC/ds_r from 1 - C = log(1 + h/s_r)/M, which does not cancel in wet soil
    dc = inv_m * (h / (s_r + h) - log1p(h / s_r) * inv_m * end / (s_r + end)) / s_r
    dry, kr_dry = tl.where(wet, 0.0, theta), tl.where(wet, 0.0, kr)
    dtheta = (
        tl.where(wet, 1.0, c * g),
        dry * by_a,
        dry * by_n,
        -dry * log_b,
        zero,
        tl.where(wet | oven, 0.0, theta_s * g * dc),
        zero,
        zero,
    )
    by_kr = kr_dry * power
    dk = (zero, by_kr * by_a, by_kr * by_n, -by_kr * log_b, -kr_dry * m * log_b, zero, zero, zero)
    point = (tl.where(wet, theta_s, theta), tl.where(wet, 1.0, kr), capacity, by_kr * m * n * rate * inv_h)
    return point, dtheta, dk


@triton.jit
def durner(psi, p, VARIANT: tl.constexpr):
    """Durner (1994) with the conductivity of Priesack & Durner (2006)."""
    range_, alpha1, n1, alpha2, n2, w2, tau = p[1] - p[0], p[2], p[3], p[4], p[5], p[6], p[7]
    zero = tl.zeros_like(psi)
    wet, h = _saturated(psi)
    w1, inv_h = 1.0 - w2, 1.0 / h
    m1, m2 = (n1 - 1.0) / n1, (n2 - 1.0) / n2
    weight = 1.0 / (w1 * alpha1 + w2 * alpha2)
    lx1, f1, g1, log_f1, log_se1, root1, a1 = _pore_shape(alpha1, n1, m1, h)
    lx2, f2, g2, log_f2, log_se2, root2, a2 = _pore_shape(alpha2, n2, m2, h)
    se1, se2 = root1 * root1, root2 * root2
    se = w1 * se1 + w2 * se2
    wa, wb = weight * w1 * alpha1, weight * w2 * alpha2
    mean = wa * a1 + wb * a2
    log_se = log_floored(se)
    se_l = tl.exp(tau * log_se)
    kr = se_l * mean * mean
    by_se = (
        tau
        * se_l
        * mean
        * (mean / tl.where(se < 2.2250738585072014e-308, zero + 2.2250738585072014e-308, se))
    )
    by_a = 2.0 * se_l * mean
    se_log1, se_log2 = -w1 * (n1 - 1.0) * f1 * se1, -w2 * (n2 - 1.0) * f2 * se2  # h dSe/dh
    a_log1, a_log2 = -(n1 - 1.0) * g1 * (1.0 - a1), -(n2 - 1.0) * g2 * (1.0 - a2)  # h dA/dh
    slope = se_log1 + se_log2
    se_n1 = w1 * se1 * (log_se1 / (n1 * n1 * m1) - m1 * f1 * lx1)
    se_n2 = w2 * se2 * (log_se2 / (n2 * n2 * m2) - m2 * f2 * lx2)
    a_n1 = -(1.0 - a1) * (log_f1 / (n1 * n1) + m1 * g1 * lx1)
    a_n2 = -(1.0 - a2) * (log_f2 / (n2 * n2) + m2 * g2 * lx2)
    a_alpha1, a_alpha2 = weight * w1 * (a1 - mean + a_log1), weight * w2 * (a2 - mean + a_log2)
    a_w = weight * (alpha2 * (a2 - mean) - alpha1 * (a1 - mean))
    se_alpha1, se_alpha2, se_w = se_log1 / alpha1, se_log2 / alpha2, se2 - se1
    dry = tl.where(wet, 0.0, range_)
    dtheta = (
        tl.where(wet, 0.0, 1.0 - se),
        tl.where(wet, 1.0, se),
        dry * se_alpha1,
        dry * se_n1,
        dry * se_alpha2,
        dry * se_n2,
        dry * se_w,
        zero,
    )
    dk = (
        zero,
        zero,
        tl.where(wet, 0.0, by_se * se_alpha1 + by_a * a_alpha1),
        tl.where(wet, 0.0, by_se * se_n1 + by_a * wa * a_n1),
        tl.where(wet, 0.0, by_se * se_alpha2 + by_a * a_alpha2),
        tl.where(wet, 0.0, by_se * se_n2 + by_a * wb * a_n2),
        tl.where(wet, 0.0, by_se * se_w + by_a * a_w),
        tl.where(wet, 0.0, kr * log_se),
    )
    dkr = tl.where(wet, 0.0, -(by_se * slope + by_a * (wa * a_log1 + wb * a_log2)) * inv_h)
    point = (p[0] + range_ * tl.where(wet, 1.0, se), tl.where(wet, 1.0, kr), -dry * slope * inv_h, dkr)
    return point, dtheta, dk


@triton.jit
def peters_durner_iden(psi, p, VARIANT: tl.constexpr):
    """Peters (2013), Iden & Durner (2014): capillary water and films to oven dryness."""
    theta_r, range_, alpha, n, omega, tau = p[0], p[1] - p[0], p[2], p[3], p[4], p[5]
    h_0, a = p[6], p[7]
    zero = tl.zeros_like(psi)
    one = zero + 1.0
    ratio = theta_r / range_
    inv_n2, n_1 = 1.0 / (n * n), n - 1.0
    m = n_1 / n
    x0 = tl.log(alpha * h_0)
    _, _, plus0, minus0 = logistic(n * x0)
    b = (0.1 - 0.2 * inv_n2 * expm1(-ratio * ratio)) * 2.30258509299404568402
    room = -expm1(-m * plus0)
    wet, h_any = _saturated(psi)
    oven = h_any >= h_0
    h = tl.where(oven, h_0, h_any)
    inv_h, inv_room, inv_x0, inv_h0 = 1.0 / h, 1.0 / room, 1.0 / x0, 1.0 / h_0

    x = tl.where(oven, x0, tl.log(alpha * h))
    x_cap = tl.where(oven, 0.0, x)
    t_sigma, t_co, t_plus, t_minus = logistic(n * x_cap)
    soft_plus0 = n * x0 + minus0
    big_d, big_e = m * (soft_plus0 - t_plus), t_minus - minus0
    gone = oven | (big_d <= 0.0) | (big_e <= 0.0)
    e = tl.where(gone, 1.0, -expm1(tl.where(gone, 0.0, -big_d)))
    g = tl.exp(-m * t_plus)
    s = tl.where(gone, 0.0, g * e * inv_room)
    log_s = log_floored(s)
    rest_b = tl.where(gone, 0.0, -m * big_e)
    bracket = -expm1(rest_b)
    s_l = tl.where(gone, 0.0, tl.exp(tau * log_s))
    k_cap = s_l * bracket * bracket
    s_log = -n_1 * t_sigma  # h dlog G/dh;  h dlog S/dh = s_log/e
    b_log = -n_1 * t_co * (1.0 - bracket)  # h dB/dh
    k_cap_log = tau * k_cap * s_log / e + 2.0 * s_l * bracket * b_log

    film_sigma, _, film_plus, _ = logistic(x / b)
    big_f = b * film_plus
    mean = big_f * inv_x0
    s_nc = 1.0 - mean
    k_nc = tl.exp(a * big_f)
    k_nc_f = a * k_nc

    flat = wet | oven
    theta = tl.where(wet, theta_r + range_, range_ * s + theta_r * s_nc)
    kr = tl.where(wet, 1.0, (1.0 - omega) * k_cap + omega * k_nc)
    capacity = tl.where(
        flat, 0.0, (range_ * n_1 * t_sigma * g * inv_room + theta_r * film_sigma * inv_x0) * inv_h
    )
    dkr = tl.where(flat, 0.0, -((1.0 - omega) * k_cap_log + omega * k_nc_f * film_sigma) * inv_h)

    g0, f0, co0 = tl.exp(-m * soft_plus0), tl.exp(-minus0), -expm1(-minus0)
    rest = -expm1(-m * t_plus) * inv_room * g0
    s_alpha = -n_1 / alpha * (g * t_sigma - rest * f0) * inv_room
    s_n = (
        -(g * (inv_n2 * t_plus + m * t_sigma * x_cap) - rest * (inv_n2 * soft_plus0 + m * f0 * x0)) * inv_room
    )
    s_h0 = rest * n_1 * f0 * inv_h0 * inv_room
    r_m = (1.0 - bracket) * m
    b_alpha = r_m * n * (co0 - t_co) / alpha
    b_n = r_m * (co0 * x0 - t_co * x_cap) + (1.0 - bracket) * big_e * inv_n2
    b_h0 = r_m * n * co0 * inv_h0
    by_s, by_b = tau * k_cap / tl.where(gone, one, s), 2.0 * s_l * bracket
    nc_alpha = (mean - film_sigma) * inv_x0 / alpha
    f_h0 = tl.where(oven, film_sigma, 0.0) * inv_h0
    nc_h0 = (mean * inv_h0 - f_h0) * inv_x0
    f_b = film_plus - film_sigma * x / b
    nc_b = -f_b * inv_x0
    b_n_of = -2.0 * (b - 0.230258509299404568402) / n
    b_ratio = 0.921034037197618273608 * inv_n2 * ratio * tl.exp(-ratio * ratio)
    b_tr, b_ts = b_ratio * (theta_r + range_) / (range_ * range_), -b_ratio * ratio / range_
    there = tl.where(gone, 0.0, range_)
    dtheta = (
        tl.where(wet, 0.0, s_nc - s + theta_r * nc_b * b_tr),
        tl.where(wet, 1.0, s + theta_r * nc_b * b_ts),
        tl.where(wet, 0.0, there * s_alpha + theta_r * nc_alpha),
        tl.where(wet, 0.0, there * s_n + theta_r * nc_b * b_n_of),
        zero,
        zero,
        tl.where(wet, 0.0, there * s_h0 + theta_r * nc_h0),
        zero,
    )
    cap, films = tl.where(flat, 0.0, 1.0 - omega), tl.where(wet, 0.0, omega)
    film_b = films * k_nc_f * f_b
    dk = (
        film_b * b_tr,
        film_b * b_ts,
        cap * (by_s * s_alpha + by_b * b_alpha) + films * k_nc_f * film_sigma / alpha,
        cap * (by_s * s_n + by_b * b_n) + film_b * b_n_of,
        tl.where(wet, 0.0, k_nc - k_cap),
        cap * k_cap * log_s,
        cap * (by_s * s_h0 + by_b * b_h0) + films * k_nc_f * f_h0,
        films * k_nc * big_f,
    )
    return (theta, kr, capacity, dkr), dtheta, dk


@triton.jit
def table_place(psi, first, step, knots):
    """x = (log h - first)/step in knots, its interval, the suction; 0 wetter than the first knot."""
    h_first = tl.exp(first)
    wet = psi >= -h_first
    h = tl.where(wet, h_first, -psi)
    x = (tl.log(h) - first) / step
    x = tl.where(wet | (x < 0.0), 0.0, x)
    last = (knots - 2).to(tl.float64)
    # a nan gives interval 0, and the position keeps it
    inner = tl.where(x > 0.0, tl.where(x < last, x, last), 0.0)
    return wet, h, x, inner.to(tl.int64)


@triton.jit
def tabulated(wet, h, x, interval, step, knots, r):
    """Cubic Hermite in x of theta and log kr; r: the rows at both ends of the interval, 8 numbers."""
    zero = tl.zeros_like(x)
    one = zero + 1.0
    end = (knots - 1).to(tl.float64)
    beyond = x > end
    u = tl.where(beyond, 0.0, x - interval.to(tl.float64))
    past = tl.where(beyond, (x - end) * step, 0.0)
    theta, theta_slope = _cubic(u, r[0], r[1] * step, r[4], r[5] * step)
    log_kr, kr_slope = _cubic(u, r[2], r[3] * step, r[6], r[7] * step)
    rate = r[5] / r[4]
    fall = tl.exp(tl.where(beyond, rate * past, 0.0))
    kr = tl.exp(tl.where(beyond, r[6] + r[7] * past, log_kr))
    inv_h = tl.where(wet, 0.0, 1.0 / h)
    capacity = -tl.where(beyond, r[5] * fall, theta_slope / step) * inv_h
    dkr = -kr * tl.where(beyond, r[7], kr_slope / step) * inv_h
    v = 1.0 - u
    value1 = u * u * (2.0 * v + 1.0)
    b0, b1 = tl.where(beyond, 0.0, 1.0 - value1), tl.where(beyond, 0.0, step * u * v * v)
    b2, b3 = tl.where(beyond, one, value1), tl.where(beyond, past, -step * u * u * v)
    fall0, fall1 = tl.where(beyond, fall * (1.0 - rate * past), b2), tl.where(beyond, fall * past, b3)
    dtheta = (b0, b1, zero, zero, fall0, fall1, zero, zero)
    dk = (zero, zero, kr * b0, kr * b1, zero, zero, kr * b2, kr * b3)
    return (tl.where(beyond, r[4] * fall, theta), kr, capacity, dkr), dtheta, dk


@triton.jit
def _cubic(u, f0, d0, f1, d1):
    """Value and slope at u of the cubic with values f and slopes d at 0 and 1."""
    rise = f1 - f0
    c2, c3 = 3.0 * rise - 2.0 * d0 - d1, d0 + d1 - 2.0 * rise
    return f0 + u * (d0 + u * (c2 + u * c3)), d0 + u * (2.0 * c2 + 3.0 * u * c3)


#: By kernel name; "tabulated" reads its parameters from the table (``triton_soil.py``).
RELATIONS = {
    "van_genuchten": van_genuchten,
    "brooks_corey": brooks_corey,
    "gardner": gardner,
    "haverkamp": haverkamp,
    "kosugi": kosugi,
    "fredlund_xing": fredlund_xing,
    "durner": durner,
    "peters_durner_iden": peters_durner_iden,
    "saturated": saturated,
}
