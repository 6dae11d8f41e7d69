// Saturated flow: theta = theta_s and kr = 1 at every head; storage is the specific storage alone.
#pragma once

#include "soil_point.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Saturated {
  static constexpr int n_raw = 1;  // theta_s
  static constexpr int n_derived = 2;

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    d[0] = V{};
    d[1] = raw[0];
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D&) {  // never dry: Newton moves in psi without limits
    return broadcast<V>(1e30);
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V, SoilPoint<V>& p, P dtheta, P dkr) {
    p.theta = d[1];
    p.kr = broadcast<V>(1);
    p.capacity = V{};
    p.dkr = V{};
    if constexpr (kPartials) {
      dtheta[0] = broadcast<V>(1);
      dkr[0] = V{};
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
