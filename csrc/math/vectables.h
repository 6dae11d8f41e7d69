// exp, log and log1p of packs of doubles by tables of 16 numbers, which AVX-512 looks up in two registers. The argument
// comes so close to a number of the table that short polynomials do, and no division is needed: half the dependent
// operations of the forms in vecmath.h (tables in place of long polynomials: Tang 1989, ACM TOMS 15:144; 1990, 16:378).
// Errors are at most 2.04 units in the last place.
#pragma once

#include "pack.h"

#ifdef __AVX512F__

namespace dgpde {
inline namespace DGPDE_ISA {

constexpr int64_t kExponentBits = ~0xfffffffffffffLL;  // and the sign

struct alignas(64) Table16 {
  double value[16];
};
// The last four bits of each index say which number is meant.
DGPDE_HD PackD pick(const Table16& t, PackL index) {
  return (PackD)_mm512_permutex2var_pd(*reinterpret_cast<const __m512d*>(t.value), (__m512i)index,
                                       *reinterpret_cast<const __m512d*>(t.value + 8));
}

// log(1 + f) - f + g for |f| <= 1/30: Chebyshev fit, error 4e-17 relative to f.
DGPDE_HD PackD log1p_rest(PackD f, PackD g) {
  const PackD f2 = f * f, f4 = f2 * f2;
  const PackD a = 0.33333333333333226 * f - 0.49999999999999883;
  const PackD b = 0.20000000003123375 * f - 0.25000000003435613;
  const PackD c = 0.1428570023276194 * f - 0.16666651208815636;
  const PackD d = 0.11131339276925563 * f - 0.12522250546281202;
  return g + f2 * ((a + f2 * b) + f4 * (c + f2 * d));
}

// log(x) + c for x > 0: x = 2^k z, z in [0.703, 1.406); z lies within 1/32 of 1/p, p of few digits, so that f = z p - 1
// is exact but for one rounding. Around 1 p is 1.
DGPDE_HD PackD log_plus(PackD x, PackD c) {
  static constexpr Table16 p{{1.391357421875, 1.333251953125, 1.280029296875, 1.230712890625, 1.185302734375,
                              1.142822265625, 1.103515625, 1.066650390625, 1.0322265625, 1.0, 0.941162109375,
                              0.888916015625, 0.842041015625, 0.800048828125, 0.761962890625, 0.727294921875}};
  static constexpr Table16 minus_log_p{{-0.33027983311565584, -0.28762103543281, -0.24688296585318906,
                                        -0.20759358736328712, -0.16999821400608156, -0.13350087458072687,
                                        -0.09850110610693316, -0.06452326223209216, -0.03171818027078454, 0.0,
                                        0.06063988072191385, 0.11775251854391026, 0.1719265537825028,
                                        0.2230825180205291, 0.2718574244485643, 0.31842321400606144}};
  const PackL from = (PackL)x - 0x3fe6800000000000LL;
  const PackL place = from >> 48;
  const PackD z = (PackD)((PackL)x - (from & kExponentBits));
  const PackD kd = __builtin_convertvector(from >> 52, PackD);
  const PackD f = z * pick(p, place) - 1.0;
  const PackD far = kd * 0.6931471806019545 + pick(minus_log_p, place);  // ln 2 = this of 32 bits and the rest
  return far + log1p_rest(f, f + (c - kd * 4.2009150726810846e-11));
}

// log(1 + q) for 0 <= q <= 1; 1 + q is not formed, so nothing is lost where q is small.
DGPDE_HD PackD log1p_unit(PackD q) {
  static constexpr Table16 p_less_1{{0.0, -0.0625, -0.11767578125, -0.166748046875, -0.21044921875, -0.25,
                                     -0.28564453125, -0.318115234375, -0.347900390625, -0.375, -0.39990234375,
                                     -0.423095703125, -0.4443359375, -0.46435546875, -0.482666015625, -0.5}};
  static constexpr Table16 minus_log_p{
      {0.0, 0.06453852113757118, 0.12519569556716992, 0.18241921781263667, 0.23629112658229157, 0.2876820724517809,
       0.3363745851392741, 0.3828946007741669, 0.42755795360938287, 0.4700036292457356, 0.5106628765933636,
       0.5500788895324359, 0.5875913714731221, 0.6242845258841682, 0.6590666084510446, 0.6931471805599453}};
  const PackL place =
      (PackL)(q * 15.0 + 6755399441055744.0);  // 1.5 * 2^52 leaves the nearest integer in the low bits
  const PackD less = pick(p_less_1, place);
  const PackD f = q * less + (q + less);
  return pick(minus_log_p, place) + log1p_rest(f, f);
}

// 2^k t and the rest r of x = (k + j/16) ln 2 + r, with t = 2^(j/16): exp(x) = 2^k t exp(r).
struct ExpParts {
  PackD scale, rest;
};
DGPDE_HD ExpParts exp_parts(PackD x) {
  static constexpr Table16 root{{1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916, 1.189207115002721,
                                 1.241857812073484, 1.2968395546510096, 1.3542555469368927, 1.4142135623730951,
                                 1.4768261459394993, 1.5422108254079407, 1.6104903319492543, 1.681792830507429,
                                 1.7562521603732995, 1.8340080864093424, 1.9152065613971474}};
  const double shift = 6755399441055744.0;
  const PackD t = x * 23.083120654223414 + shift;
  const PackD j = t - shift;
  const PackD r = x - j * 0.043321698787622154;
  const PackL place = (PackL)t;
  const PackL power = (place << 48) & kExponentBits;
  return {(PackD)((PackL)pick(root, place) + power), r + j * 2.625571920425678e-12};
}

// exp(r) - 1 for |r| <= ln(2)/32: Chebyshev fit, error 3e-17.
DGPDE_HD PackD expm1_tiny(PackD r) {
  const PackD r2 = r * r;
  const PackD a = 0.16666666665301144 * r + 0.5;
  const PackD b = 0.008333449724528355 * r + 0.041666666664959766;
  return r + r2 * (a + r2 * (b + r2 * 0.0013889034377693012));
}

// exp(x) where neither it nor anything on the way leaves the normal numbers.
DGPDE_HD PackD exp_within(PackD x) {
  const ExpParts e = exp_parts(x);
  return e.scale + e.scale * expm1_tiny(e.rest);
}

}  // namespace DGPDE_ISA
}  // namespace dgpde

#endif
