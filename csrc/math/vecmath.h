// exp, expm1, log, log1p and pow for packs and for plain numbers.
//
// Packs: range reduction and polynomials after fdlibm (Sun Microsystems, 1993, the algorithms of Tang 1989, ACM TOMS
// 15:144), evaluated with fused multiply-adds, or tables where there is AVX-512 (vectables.h); errors stay below 2 units
// in the last place.
// Arguments: log of x > 0 (normal numbers), log1p of x >= 0; exp below its underflow limit gives 0 and above its
// overflow limit infinity. Plain numbers use the compiler's library, so on the GPU these are CUDA's own functions.
#pragma once

#include <cmath>
#include <limits>

#include "vectables.h"

namespace dgpde {
inline namespace DGPDE_ISA {

DGPDE_HD double vsqrt(double x) { return ::sqrt(x); }
DGPDE_HD float vsqrt(float x) { return ::sqrtf(x); }
// 1/sqrt(x) for normal numbers x > 0, to 2 units in the last place.
#ifdef __CUDA_ARCH__
DGPDE_HD double vrsqrt(double x) { return ::rsqrt(x); }
DGPDE_HD float vrsqrt(float x) { return ::rsqrtf(x); }
#else
DGPDE_HD double vrsqrt(double x) { return 1.0 / ::sqrt(x); }
DGPDE_HD float vrsqrt(float x) { return 1.0f / ::sqrtf(x); }
#endif
DGPDE_HD double vexp(double x) { return ::exp(x); }
DGPDE_HD float vexp(float x) { return ::expf(x); }
DGPDE_HD double vexpm1(double x) { return ::expm1(x); }
DGPDE_HD float vexpm1(float x) { return ::expm1f(x); }
DGPDE_HD double vlog(double x) { return ::log(x); }
DGPDE_HD float vlog(float x) { return ::logf(x); }
DGPDE_HD double vlog1p(double x) { return ::log1p(x); }
DGPDE_HD float vlog1p(float x) { return ::log1pf(x); }
DGPDE_HD double vlog1p_any(double x) { return ::log1p(x); }
DGPDE_HD float vlog1p_any(float x) { return ::log1pf(x); }
DGPDE_HD double vexp_nonpositive(double x) { return ::exp(x); }
DGPDE_HD float vexp_nonpositive(float x) { return ::expf(x); }
DGPDE_HD double vexpm1_nonpositive(double x) { return ::expm1(x); }
DGPDE_HD float vexpm1_nonpositive(float x) { return ::expm1f(x); }
DGPDE_HD double expm1_small(double x) { return ::expm1(x); }
DGPDE_HD float expm1_small(float x) { return ::expm1f(x); }
DGPDE_HD double twice_atanh(double s) { return 2.0 * ::atanh(s); }
DGPDE_HD float twice_atanh(float s) { return 2.0f * ::atanhf(s); }
DGPDE_HD double to_real(int64_t x) { return static_cast<double>(x); }
DGPDE_HD float to_real(int32_t x) { return static_cast<float>(x); }
DGPDE_HD int64_t truncate(double x) { return static_cast<int64_t>(x); }
DGPDE_HD int32_t truncate(float x) { return static_cast<int32_t>(x); }

#ifndef __CUDACC__

// The two vector types and their integer twins, bit by bit.
DGPDE_HD PackL bits(PackD x) { return (PackL)x; }
DGPDE_HD PackI bits(PackF x) { return (PackI)x; }
DGPDE_HD PackD real_bits(PackL x) { return (PackD)x; }
DGPDE_HD PackF real_bits(PackI x) { return (PackF)x; }
DGPDE_HD PackD to_real(PackL x) { return __builtin_convertvector(x, PackD); }
DGPDE_HD PackF to_real(PackI x) { return __builtin_convertvector(x, PackF); }
DGPDE_HD PackL truncate(PackD x) { return __builtin_convertvector(x, PackL); }
DGPDE_HD PackI truncate(PackF x) { return __builtin_convertvector(x, PackI); }

DGPDE_HD PackD vsqrt(PackD x) {
  for (int i = 0; i < Lane<PackD>::width; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
}
DGPDE_HD PackF vsqrt(PackF x) {
  for (int i = 0; i < Lane<PackF>::width; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

#ifdef __AVX512F__
// 14 bits, doubled by every Newton step.
DGPDE_HD PackD vrsqrt(PackD x) {
  PackD y = (PackD)_mm512_maskz_rsqrt14_pd(0xff, (__m512d)x);
  const PackD half = 0.5 * x;
  y = y * (1.5 - half * y * y);
  return y * (1.5 - half * y * y);
}
DGPDE_HD PackF vrsqrt(PackF x) {
  const PackF y = (PackF)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x);
  return y * (1.5f - 0.5f * x * y * y);
}
#else
DGPDE_HD PackD vrsqrt(PackD x) { return 1.0 / vsqrt(x); }
DGPDE_HD PackF vrsqrt(PackF x) { return 1.0f / vsqrt(x); }
#endif

// x = k ln 2 + r with |r| <= ln(2)/2. Adding and taking away 1.5 * 2^52 (2^23) rounds to the nearest integer;
// the integer then stands in the low bits of the sum.
struct ExpReducedD {
  PackL k;
  PackD r;
};
DGPDE_HD ExpReducedD exp_reduce(PackD x) {
  const double shift = 6755399441055744.0;
  PackD t = x * 1.44269504088896338700 + shift;
  PackD kd = t - shift;
  PackD r = x - kd * 6.93147180369123816490e-01;
  r = r - kd * 1.90821492927058770002e-10;
  return {bits(t) - 0x4338000000000000LL, r};
}
struct ExpReducedF {
  PackI k;
  PackF r;
};
DGPDE_HD ExpReducedF exp_reduce(PackF x) {
  const float shift = 12582912.0f;
  PackF t = x * 1.44269504f + shift;
  PackF kd = t - shift;
  PackF r = x - kd * 0.693359375f;
  r = r + kd * 2.12194440e-4f;
  return {bits(t) - 0x4b400000, r};
}

// expm1 of the reduced argument: r + r^2 p(r), p a Chebyshev fit of degree 9 (4) with error 4e-17 (2e-8).
DGPDE_HD PackD expm1_reduced(PackD r) {
  PackD r2 = r * r;
  PackD r4 = r2 * r2;
  PackD a = 0.1666666666666666745 * r + 0.5000000000000001022;
  PackD b = 0.008333333333330061833 * r + 0.04166666666662412787;
  PackD c = 0.0001984126986305361688 * r + 0.00138888889172137169;
  PackD d = 2.755726845999706477e-6 * r + 0.00002480152129595437513;
  PackD e = 2.510038549551031908e-8 * r + 2.762008844540974816e-7;
  return r + r2 * ((a + r2 * b) + r4 * ((c + r2 * d) + r4 * e));
}
DGPDE_HD PackF expm1_reduced(PackF r) {
  PackF r2 = r * r;
  PackF a = 0.16666577f * r + 0.5f;
  PackF b = 0.0083631791f * r + 0.041666555f;
  return r + r2 * (a + r2 * (b + r2 * 0.0013926184f));
}

// expm1 for |x| <= ln(2)/2.
DGPDE_HD PackD expm1_small(PackD x) { return expm1_reduced(x); }
DGPDE_HD PackF expm1_small(PackF x) { return expm1_reduced(x); }

DGPDE_HD PackD power_of_two(PackL k) { return real_bits((k + 1023) << 52); }
DGPDE_HD PackF power_of_two(PackI k) { return real_bits((k + 127) << 23); }

// exp(x) where neither it nor anything on the way leaves the normal numbers.
template <class V>
DGPDE_HD V exp_within(V x) {
  const auto reduced = exp_reduce(x);
  const V two_k = power_of_two(reduced.k);
  return two_k + two_k * expm1_reduced(reduced.r);
}

template <class V>
struct ExpLimits;
template <>
struct ExpLimits<PackD> {
  static constexpr double low = -708.0, high = 709.0;
};
template <>
struct ExpLimits<PackF> {
  static constexpr float low = -87.0f, high = 88.0f;
};

// Taken apart so that no NaN is hidden: a nan argument fails both comparisons and stays nan.
template <class V>
DGPDE_HD V exp_pack(V x) {
  const V lo = broadcast<V>(ExpLimits<V>::low), hi = broadcast<V>(ExpLimits<V>::high);
  const auto under = x < lo;
  const auto over = x > hi;
  const V y = select(under, V{}, exp_within(select(under, lo, select(over, hi, x))));
  return select(over, broadcast<V>(std::numeric_limits<RealOf<V>>::infinity()), y);
}
template <class V>
DGPDE_HD V expm1_pack(V x) {
  const V lo = broadcast<V>(ExpLimits<V>::low), hi = broadcast<V>(ExpLimits<V>::high);
  const auto under = x < lo;
  const auto over = x > hi;
  const V xc = select(under, lo, select(over, hi, x));
  const auto reduced = exp_reduce(xc);
  const V two_k = power_of_two(reduced.k);
  V y = two_k * expm1_reduced(reduced.r) + (two_k - RealOf<V>(1));
  return select(over, broadcast<V>(std::numeric_limits<RealOf<V>>::infinity()), y);
}
// The same for x <= 0, without the overflow test; below the limit exp gives the smallest normal numbers, not 0.
template <class V>
DGPDE_HD V exp_nonpositive_pack(V x) {
  const V lo = broadcast<V>(ExpLimits<V>::low);
  return exp_within(select(x < lo, lo, x));
}
template <class V>
DGPDE_HD V expm1_nonpositive_pack(V x) {
  const V lo = broadcast<V>(ExpLimits<V>::low);
  const auto reduced = exp_reduce(select(x < lo, lo, x));
  const V two_k = power_of_two(reduced.k);
  return two_k * expm1_reduced(reduced.r) + (two_k - RealOf<V>(1));
}
DGPDE_HD PackD vexp_nonpositive(PackD x) { return exp_nonpositive_pack(x); }
DGPDE_HD PackF vexp_nonpositive(PackF x) { return exp_nonpositive_pack(x); }
DGPDE_HD PackD vexpm1_nonpositive(PackD x) { return expm1_nonpositive_pack(x); }
DGPDE_HD PackF vexpm1_nonpositive(PackF x) { return expm1_nonpositive_pack(x); }

// 2 atanh(s) for 0 <= s <= 1/3: log1p(q) with s = q/(2 + q). Chebyshev fit in s^2, error 5e-17 (1e-7) relative.
DGPDE_HD PackD twice_atanh(PackD s) {
  PackD z = s * s;
  PackD z2 = z * z;
  PackD z4 = z2 * z2;
  PackD a = 0.2000000000000729134 * z + 0.3333333333333332928;
  PackD b = 0.1111111135871393149 * z + 0.1428571428355437858;
  PackD c = 0.07692785032479311552 * z + 0.09090894718066429085;
  PackD d = 0.06000536404795356268 * z + 0.06657072104827468075;
  PackD e = 0.0808202280597176611 * z + 0.04400369243072336941;
  PackD t = s + s;
  return t + t * (z * ((a + z2 * b) + z4 * ((c + z2 * d) + z4 * e)));
}
DGPDE_HD PackF twice_atanh(PackF s) {
  PackF z = s * s;
  PackF t = s + s;
  return t + t * (z * ((0.20003780f * z + 0.33333320f) + (z * z) * (0.13425749f * z + 0.14118310f)));
}

DGPDE_HD PackD vexp(PackD x) { return exp_pack(x); }
DGPDE_HD PackF vexp(PackF x) { return exp_pack(x); }
DGPDE_HD PackD vexpm1(PackD x) { return expm1_pack(x); }
DGPDE_HD PackF vexpm1(PackF x) { return expm1_pack(x); }

// log(x) + c for x > 0: x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
#ifndef __AVX512F__
DGPDE_HD PackD log_plus(PackD x, PackD c) {
  PackL hx = bits(x) + (0x3ff0000000000000LL - 0x3fe6a09e667f3bcdLL);
  PackL k = (hx >> 52) - 0x3ff;
  PackD f = real_bits((hx & 0x000fffffffffffffLL) + 0x3fe6a09e667f3bcdLL) - 1.0;
  PackD s = f / (2.0 + f);
  PackD z = s * s;
  PackD w = z * z;
  PackD t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  PackD t2 = z * (6.666666666666735130e-01 +
                  w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  PackD hfsq = 0.5 * f * f;
  PackD kd = to_real(k);
  return (c + (s * (hfsq + (t1 + t2)) + kd * 1.90821492927058770002e-10)) - hfsq + f +
         kd * 6.93147180369123816490e-01;
}
#endif
DGPDE_HD PackF log_plus(PackF x, PackF c) {
  PackI hx = bits(x) + (0x3f800000 - 0x3f3504f3);
  PackI k = (hx >> 23) - 0x7f;
  PackF f = real_bits((hx & 0x007fffff) + 0x3f3504f3) - 1.0f;
  PackF s = f / (2.0f + f);
  PackF z = s * s;
  PackF w = z * z;
  PackF t1 = w * (0.40000972152f + w * 0.24279078841f);
  PackF t2 = z * (0.66666662693f + w * 0.28498786688f);
  PackF hfsq = 0.5f * f * f;
  PackF kd = to_real(k);
  return (c + (s * (hfsq + (t1 + t2)) + kd * 9.0580006145e-06f)) - hfsq + f + kd * 6.9313812256e-01f;
}

template <class V>
DGPDE_HD V log_pack(V x) {
  const V inf = broadcast<V>(std::numeric_limits<RealOf<V>>::infinity());
  return select(x < inf, log_plus(x, V{}), x);
}
// u = 1 + x is rounded; the first-order term c puts the rounding back (fdlibm). Where u = x nothing is lost.
template <class V>
DGPDE_HD V log1p_pack(V x) {
  const V inf = broadcast<V>(std::numeric_limits<RealOf<V>>::infinity());
  const V u = x + RealOf<V>(1);
  const V c = (x - (u - RealOf<V>(1))) / u;
  const V big = broadcast<V>(RealOf<V>(1) / std::numeric_limits<RealOf<V>>::epsilon());
  return select(x < inf, log_plus(u, select(x < big, c, V{})), x);
}
DGPDE_HD PackD vlog(PackD x) { return log_pack(x); }
DGPDE_HD PackF vlog(PackF x) { return log_pack(x); }
DGPDE_HD PackD vlog1p(PackD x) { return log1p_pack(x); }
DGPDE_HD PackF vlog1p(PackF x) { return log1p_pack(x); }

// log1p for x > -1: the same formula, which holds on both sides of 0.
DGPDE_HD PackD vlog1p_any(PackD x) { return log1p_pack(x); }
DGPDE_HD PackF vlog1p_any(PackF x) { return log1p_pack(x); }

#endif  // __CUDACC__

// Whether log1p_unit (vectables.h) serves a type.
template <class V>
struct HasTables {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  static constexpr bool value = std::is_same_v<V, PackD>;
#else
  static constexpr bool value = false;
#endif
};

// What is made of q in [0, 1]: 1/(1 + q), q/(1 + q) and log(1 + q).
template <class V>
struct OnePlus {
  V inverse, part, log;
};
template <class V>
DGPDE_HD OnePlus<V> one_plus(V q) {
  using R = RealOf<V>;
  const V q1 = q + R(1);
  if constexpr (HasTables<V>::value) {
    const V inverse = R(1) / q1;
    return {inverse, q * inverse, log1p_unit(q)};
  } else {  // with a single division
    const V q2 = q + R(2), inv = R(1) / (q1 * q2), inverse = q2 * inv;
    return {inverse, q * inverse, twice_atanh(q * q1 * inv)};
  }
}

// x^a for x > 0; its relative error grows with |a log x| as that of exp(a log x) does.
template <class V>
DGPDE_HD V vpow(V x, V a) {
  return vexp(a * vlog(x));
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
