// Pieces that several soil relations share.
#pragma once

#include "soil_point.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Suctions up to this one count as saturated: their reciprocal overflows (or nearly).
template <class V>
DGPDE_HD V tiny_suction() {
  return broadcast<V>(sizeof(RealOf<V>) == 8 ? 1e-300 : 1e-36);
}

// A logarithm's argument is held at the smallest normal number; what it stands for has then underflowed.
template <class V>
DGPDE_HD V log_floored(V x) {
  return vlog(vmax(x, broadcast<V>(std::numeric_limits<RealOf<V>>::min())));
}

// sigma(t) = 1/(1 + exp(-t)) and its relatives, none of which overflows or cancels:
// sigma' = sigma co, softplus(t) = log(1 + exp(t)), soft_minus = softplus(-t) = -log(sigma).
template <class V>
struct Logistic {
  V sigma, co, soft_plus, soft_minus;
};
template <class V>
DGPDE_HD Logistic<V> logistic(V t) {
  const auto positive = t > V{};
  const OnePlus<V> q = one_plus(vexp_nonpositive(-vabs(t)));
  Logistic<V> s;
  s.sigma = select(positive, q.inverse, q.part);
  s.co = select(positive, q.part, q.inverse);
  s.soft_plus = select(positive, t, V{}) + q.log;
  s.soft_minus = select(positive, V{}, -t) + q.log;
  return s;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
