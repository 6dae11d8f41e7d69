// The scaled complementary error function erfcx(x) = exp(x^2) erfc(x) for x >= 0 and the tail of the normal
// distribution built on it, for packs and plain numbers.
//
// Rational approximations of Cody (1969, Math. Comput. 23:631), coefficients as in his CALERF (netlib/specfun):
// relative error below 1e-15 in double.
#pragma once

#include "vecmath.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// erfcx on [0, 15/32]: exp(x^2) (1 - erf(x)).
template <class V>
DGPDE_HD V erfcx_small(V x) {
  using R = RealOf<V>;
  const V y = x * x;
  V num = R(1.85777706184603153e-1) * y;
  V den = y;
  num = (num + R(3.16112374387056560e0)) * y;
  den = (den + R(2.36012909523441209e1)) * y;
  num = (num + R(1.13864154151050156e2)) * y;
  den = (den + R(2.44024637934444173e2)) * y;
  num = (num + R(3.77485237685302021e2)) * y;
  den = (den + R(1.28261652607737228e3)) * y;
  const V erf = x * (num + R(3.20937758913846947e3)) / (den + R(2.84423683343917062e3));
  return vexp(y) * (R(1) - erf);
}

// erfcx on [15/32, 4].
template <class V>
DGPDE_HD V erfcx_middle(V x) {
  using R = RealOf<V>;
  V num = R(2.15311535474403846e-8) * x;
  V den = x;
  num = (num + R(5.64188496988670089e-1)) * x;
  den = (den + R(1.57449261107098347e1)) * x;
  num = (num + R(8.88314979438837594e0)) * x;
  den = (den + R(1.17693950891312499e2)) * x;
  num = (num + R(6.61191906371416295e1)) * x;
  den = (den + R(5.37181101862009858e2)) * x;
  num = (num + R(2.98635138197400131e2)) * x;
  den = (den + R(1.62138957456669019e3)) * x;
  num = (num + R(8.81952221241769090e2)) * x;
  den = (den + R(3.29079923573345963e3)) * x;
  num = (num + R(1.71204761263407058e3)) * x;
  den = (den + R(4.36261909014324716e3)) * x;
  num = (num + R(2.05107837782607147e3)) * x;
  den = (den + R(3.43936767414372164e3)) * x;
  return (num + R(1.23033935479799725e3)) / (den + R(1.23033935480374942e3));
}

// erfcx on [4, inf).
template <class V>
DGPDE_HD V erfcx_large(V x) {
  using R = RealOf<V>;
  const V inv = R(1) / x;
  const V y = inv * inv;
  V num = R(1.63153871373020978e-2) * y;
  V den = y;
  num = (num + R(3.05326634961232344e-1)) * y;
  den = (den + R(2.56852019228982242e0)) * y;
  num = (num + R(3.60344899949804439e-1)) * y;
  den = (den + R(1.87295284992346725e0)) * y;
  num = (num + R(1.25781726111229246e-1)) * y;
  den = (den + R(5.27905102951428412e-1)) * y;
  num = (num + R(1.60837851487422766e-2)) * y;
  den = (den + R(6.05183413124413191e-2)) * y;
  const V tail = y * (num + R(6.58749161529837803e-4)) / (den + R(2.33520497626869185e-3));
  return (R(5.6418958354775628695e-1) - tail) * inv;
}

// x >= 0. Each lane gets its own range; a range that no lane needs is not computed.
template <class V>
DGPDE_HD V erfcx(V x) {
  const auto small = x <= broadcast<V>(0.46875), large = x > broadcast<V>(4.0);
  V y = erfcx_middle(select(large, broadcast<V>(4.0), x));
  if (any(small)) y = select(small, erfcx_small(select(small, x, V{})), y);
  if (any(large)) y = select(large, erfcx_large(select(large, x, broadcast<V>(4.0))), y);
  return y;
}

// Q(u) = erfc(u/sqrt 2)/2, its logarithm, the density phi(u) = -Q'(u) and the hazard phi/Q = -(log Q)'.
template <class V>
struct NormalTail {
  V tail, log_tail, density, hazard;
};
template <class V>
DGPDE_HD NormalTail<V> normal_tail(V u) {
  using R = RealOf<V>;
  const V x = vabs(u) * R(0.70710678118654752440);
  const V half = R(0.5) * erfcx(x);
  const V gauss = vexp_nonpositive(-R(0.5) * u * u);
  const auto right = u >= V{};
  const V beyond = half * gauss;  // Q(|u|)
  NormalTail<V> t;
  t.density = R(0.39894228040143267794) * gauss;
  t.tail = select(right, beyond, R(1) - beyond);
  t.log_tail = vlog(select(right, half, t.tail)) - select(right, R(0.5) * u * u, V{});
  t.hazard = select(right, R(0.39894228040143267794) / half, t.density / t.tail);
  return t;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
