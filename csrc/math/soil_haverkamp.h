// Haverkamp et al. (1977), h = -psi in m:  Se = 1/(1 + exp(t)), kr = 1/(1 + exp(s)),  s = gamma log h - log a,
//   t = beta log h - log alpha                          (variant 0)
//   t = beta log(ln(h/u)) - log alpha for h > u = 1 cm, Se = 1 where wetter    (variant 1, their form for clay)
#pragma once

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Haverkamp {
  static constexpr int n_raw = 6;      // theta_r, theta_s, alpha, beta, a, gamma
  static constexpr int n_derived = 9;  // theta_r, theta_s - theta_r, alpha, beta, a, gamma, log alpha, log a, variant
  static constexpr double log_unit = 0.01;

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t variant, const A& raw, const D& d) {
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
    d[3] = raw[3];
    d[4] = raw[4];
    d[5] = raw[5];
    d[6] = vlog(V(raw[2]));
    d[7] = vlog(V(raw[4]));
    d[8] = broadcast<V>(variant);
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    using R = RealOf<V>;
    const V beta = d[3];
    const V x = vmax((beta - R(1)) / (beta + R(1)), broadcast<V>(1e-2));
    return select(V(d[8]) > V{}, broadcast<V>(log_unit), vexp((vlog(x) + V(d[6])) / beta));
  }

  template <class V, class D>
  static DGPDE_HD V kink_suction(const D& d) {  // the logarithmic form saturates there
    return select(V(d[8]) > V{}, broadcast<V>(log_unit), V{});
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    const V range = d[1], beta = d[3], gamma = d[5];
    const auto wet = psi >= -tiny_suction<V>();
    const auto logarithmic = V(d[8]) > V{};
    const V h = select(wet, one, -psi);
    const V log_h = vlog(h), inv_h = R(1) / h;
    V log_w = log_h, dlog_w = inv_h;  // the base of the power in t: h or ln(h/u), as log and d log/dh
    auto full = wet;
    if (any(logarithmic)) {
      const V unit = broadcast<V>(log_unit);
      const auto inner = mask_and(logarithmic, psi >= -unit);
      full = mask_or(wet, inner);
      const V w = vlog1p((select(full, unit + unit, h) - unit) / unit);
      log_w = select(logarithmic, vlog(w), log_h);
      dlog_w = select(logarithmic, inv_h / w, inv_h);
    }
    const Logistic<V> t = logistic(beta * log_w - V(d[6]));
    const Logistic<V> s = logistic(gamma * log_h - V(d[7]));
    const V dse = select(full, V{}, t.sigma * t.co);  // -dSe/dt
    const V dk = select(wet, V{}, s.sigma * s.co);
    const V se = select(full, one, t.co);
    p.theta = V(d[0]) + range * se;
    p.kr = select(wet, one, s.co);
    p.capacity = range * dse * beta * dlog_w;
    p.dkr = dk * gamma * inv_h;
    if constexpr (kPartials) {
      dtheta[0] = select(full, V{}, t.sigma);
      dtheta[1] = se;
      dtheta[2] = range * dse / V(d[2]);
      dtheta[3] = -range * dse * log_w;
      dtheta[4] = V{};
      dtheta[5] = V{};
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = V{};
      dkr[3] = V{};
      dkr[4] = dk / V(d[4]);
      dkr[5] = -dk * log_h;
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
