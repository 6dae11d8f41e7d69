// Gardner (1958): theta = theta_r + (theta_s - theta_r) exp(alpha psi), kr = exp(alpha psi) for psi < 0.
#pragma once

#include "soil_point.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Gardner {
  static constexpr int n_raw = 3;      // theta_r, theta_s, alpha
  static constexpr int n_derived = 3;  // theta_r, theta_s - theta_r, alpha

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    return RealOf<V>(1) / V(d[2]);
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    const V range = d[1], alpha = d[2];
    const auto wet = psi >= V{};
    const V e = vexp(alpha * select(wet, V{}, psi));
    const V slope = select(wet, V{}, alpha * e);
    p.theta = V(d[0]) + range * e;
    p.kr = e;
    p.capacity = range * slope;
    p.dkr = slope;
    if constexpr (kPartials) {
      const V de = select(wet, V{}, psi * e);
      dtheta[0] = broadcast<V>(1) - e;
      dtheta[1] = e;
      dtheta[2] = range * de;
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = de;
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
