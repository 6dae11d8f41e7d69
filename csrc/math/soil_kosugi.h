// Kosugi (1996) log-normal retention with the conductivity of Mualem (1976).
//
//   u = (log h - log s_m)/sigma, h = -psi;  Se = Q(u),  kr = exp(l log Q(u) + 2 log Q(u + sigma))     for h > 0
// with Q the tail of the normal distribution, Q' = -phi, (log Q)' = -phi/Q.
#pragma once

#include "erfc.h"
#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Kosugi {
  static constexpr int n_raw = 5;      // theta_r, theta_s, s_m, sigma, l
  static constexpr int n_derived = 7;  // theta_r, theta_s - theta_r, s_m, sigma, l, log s_m, 1/sigma

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
    d[3] = raw[3];
    d[4] = raw[4];
    d[5] = vlog(V(raw[2]));
    d[6] = RealOf<V>(1) / V(raw[3]);
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    const V sigma = d[3];
    return V(d[2]) * vexp(-sigma * sigma);
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    const V range = d[1], sigma = d[3], l = d[4], inv_sigma = d[6];
    const auto wet = psi >= -tiny_suction<V>();
    const V h = select(wet, one, -psi);
    const V inv_h = R(1) / h;
    const V u = (vlog(h) - V(d[5])) * inv_sigma;
    const NormalTail<V> q = normal_tail(u), k = normal_tail(u + sigma);
    const V kr = vexp(l * q.log_tail + R(2) * k.log_tail);
    const V slope = inv_sigma * inv_h;
    const V rate = l * q.hazard + R(2) * k.hazard;  // -d log kr/du
    const V se = select(wet, one, q.tail);
    p.theta = V(d[0]) + range * se;
    p.kr = select(wet, one, kr);
    p.capacity = select(wet, V{}, range * q.density * slope);
    p.dkr = select(wet, V{}, kr * rate * slope);
    if constexpr (kPartials) {
      const V by_s_m = inv_sigma / V(d[2]);
      dtheta[0] = one - se;
      dtheta[1] = se;
      dtheta[2] = select(wet, V{}, range * q.density * by_s_m);
      dtheta[3] = select(wet, V{}, range * q.density * u * inv_sigma);
      dtheta[4] = V{};
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = select(wet, V{}, kr * rate * by_s_m);
      dkr[3] = select(wet, V{}, kr * (rate * u * inv_sigma - R(2) * k.hazard));
      dkr[4] = select(wet, V{}, kr * q.log_tail);
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
