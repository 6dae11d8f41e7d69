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
  using R = RealOf<V>;
  const auto positive = t > V{};
  const V q = vexp_nonpositive(-vabs(t));
  const V inv = R(1) / ((R(1) + q) * (R(2) + q));
  const V near = (R(2) + q) * inv, far = q * near;  // 1/(1 + q), q/(1 + q)
  const V log1p_q = twice_atanh(q * (R(1) + q) * inv);
  Logistic<V> s;
  s.sigma = select(positive, near, far);
  s.co = select(positive, far, near);
  s.soft_plus = select(positive, t, V{}) + log1p_q;
  s.soft_minus = select(positive, V{}, -t) + log1p_q;
  return s;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
