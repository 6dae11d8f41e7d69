// Fredlund & Xing (1994) retention with the power-law conductivity of Leong & Rahardjo (1997).
//
//   t = n log(h/a) - 1, h = -psi;   B = 1 + softplus(t) = ln(e + (h/a)^n),   G = B^-m
//   C = N/M,  N = log((s_r + H)/(s_r + h)),  M = log((s_r + H)/s_r),  H = 1e5 m;   C = 0 for h >= H
//   theta = theta_s C G,   kr = G^p
#pragma once

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct FredlundXing {
  static constexpr int n_raw = 6;      // theta_s, a, n, m, p, s_r
  static constexpr int n_derived = 9;  // 0, theta_s, a, n, m, p, s_r, log a, 1/M
  static constexpr double dry = 1e5;

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    using R = RealOf<V>;
    d[0] = V{};
    d[1] = raw[0];
    d[2] = raw[1];
    d[3] = raw[2];
    d[4] = raw[3];
    d[5] = raw[4];
    d[6] = raw[5];
    d[7] = vlog(V(raw[1]));
    d[8] = R(1) / vlog1p(R(dry) / V(raw[5]));
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    return d[2];
  }

  template <class V, class D>
  static DGPDE_HD V kink_suction(const D&) {  // no water beyond
    return broadcast<V>(dry);
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1), end = broadcast<V>(dry);
    const V theta_s = d[1], n = d[3], m = d[4], power = d[5], s_r = d[6], inv_m = d[8];
    const auto wet = psi >= -tiny_suction<V>();
    const V h = select(wet, one, -psi);
    const auto oven = h >= end;
    const V inv_h = R(1) / h;
    const V log_x = vlog(h) - V(d[7]);
    const Logistic<V> t = logistic(n * log_x - R(1));
    const V log_b = vlog1p(t.soft_plus);
    const V rate = t.sigma / (R(1) + t.soft_plus);  // d log B/dt
    const V g = vexp(-m * log_b), kr = vexp(-power * m * log_b);
    const V c = vlog1p(select(oven, V{}, end - h) / (s_r + h)) * inv_m;
    const V slope_c = select(oven, V{}, inv_m / (s_r + h));  // -dC/dh
    const V theta = theta_s * c * g;
    p.theta = select(wet, theta_s, theta);
    p.kr = select(wet, one, kr);
    p.capacity = select(wet, V{}, theta * m * n * rate * inv_h + theta_s * g * slope_c);
    p.dkr = select(wet, V{}, kr * power * m * n * rate * inv_h);
    if constexpr (kPartials) {
      const V by_a = m * n * rate / V(d[2]), by_n = -m * rate * log_x;  // d log G
      // dC/ds_r from 1 - C = log(1 + h/s_r)/M, which does not cancel in wet soil
      const V missing = vlog1p(h / s_r) * inv_m;
      const V dc = inv_m * (h / (s_r + h) - missing * end / (s_r + end)) / s_r;
      dtheta[0] = select(wet, one, c * g);
      dtheta[1] = select(wet, V{}, theta * by_a);
      dtheta[2] = select(wet, V{}, theta * by_n);
      dtheta[3] = select(wet, V{}, -theta * log_b);
      dtheta[4] = V{};
      dtheta[5] = select(mask_or(wet, oven), V{}, theta_s * g * dc);
      dkr[0] = V{};
      dkr[1] = select(wet, V{}, power * kr * by_a);
      dkr[2] = select(wet, V{}, power * kr * by_n);
      dkr[3] = select(wet, V{}, -power * kr * log_b);
      dkr[4] = select(wet, V{}, -m * kr * log_b);
      dkr[5] = V{};
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
