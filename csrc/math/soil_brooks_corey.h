// Brooks & Corey (1964) retention with the conductivity of Mualem (1976) (variant 0) or Burdine (1953) (variant 1).
//
//   g = log(h/psi_e), h = -psi;   Se = exp(-lam g),  kr = exp(-e g)        for h > psi_e; 1 and 1 otherwise
//   e = (l + 2) lam + 2 (Mualem)   or   3 lam + 2 (Burdine, which has no l)
#pragma once

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct BrooksCorey {
  static constexpr int n_raw = 5;      // theta_r, theta_s, psi_e, lam, l
  static constexpr int n_derived = 7;  // theta_r, theta_s - theta_r, psi_e, lam, e, de/dlam, de/dl

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t variant, const A& raw, const D& d) {
    using R = RealOf<V>;
    const V lam = raw[3];
    const V de_dlam = variant == 0 ? V(raw[4]) + R(2) : broadcast<V>(3);
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
    d[3] = lam;
    d[4] = de_dlam * lam + R(2);
    d[5] = de_dlam;
    d[6] = variant == 0 ? lam : V{};
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    return d[2];
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    const V range = d[1], psi_e = d[2], lam = d[3], e = d[4];
    const auto wet = psi >= -psi_e;
    const V h = select(wet, psi_e, -psi);
    const V g = vlog(h / psi_e);
    const V se = vexp(-lam * g), kr = vexp(-e * g);
    p.theta = V(d[0]) + range * se;
    p.kr = kr;
    p.capacity = select(wet, V{}, range * lam * se / h);
    p.dkr = select(wet, V{}, e * kr / h);
    if constexpr (kPartials) {
      dtheta[0] = broadcast<V>(1) - se;
      dtheta[1] = se;
      dtheta[2] = select(wet, V{}, range * lam * se / psi_e);
      dtheta[3] = -range * g * se;
      dtheta[4] = V{};
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = select(wet, V{}, e * kr / psi_e);
      dkr[3] = -V(d[5]) * g * kr;
      dkr[4] = -V(d[6]) * g * kr;
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
