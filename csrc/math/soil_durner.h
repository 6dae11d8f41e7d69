// Durner (1994): two van Genuchten pore systems, weights w1 = 1 - w2 and w2, with the conductivity of Mualem in the
// closed form of Priesack & Durner (2006).
//
//   Se = w1 Se1 + w2 Se2,   A = W (w1 alpha1 A1 + w2 alpha2 A2),  W = 1/(w1 alpha1 + w2 alpha2),   kr = Se^l A^2
// with Se_i, A_i, f_i, g_i of soil_van_genuchten.h:
//   h dSe_i/dh = -(n_i - 1) f_i Se_i,   h dA_i/dh = -(n_i - 1) g_i (1 - A_i)
#pragma once

#include "soil_common.h"
#include "soil_van_genuchten.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Durner {
  static constexpr int n_raw = 8;       // theta_r, theta_s, alpha1, n1, alpha2, n2, w2, l
  static constexpr int n_derived = 11;  // theta_r, theta_s - theta_r, alpha1, n1, m1, alpha2, n2, m2, w2, l, W

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    using R = RealOf<V>;
    const V w2 = raw[6];
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
    d[3] = raw[3];
    d[4] = (V(raw[3]) - R(1)) / V(raw[3]);
    d[5] = raw[4];
    d[6] = raw[5];
    d[7] = (V(raw[5]) - R(1)) / V(raw[5]);
    d[8] = w2;
    d[9] = raw[7];
    d[10] = R(1) / ((R(1) - w2) * V(raw[2]) + w2 * V(raw[4]));
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    using R = RealOf<V>;
    const V w2 = d[8];
    const V h1 = vpow(V(d[4]), R(1) / V(d[3])) / V(d[2]), h2 = vpow(V(d[7]), R(1) / V(d[6])) / V(d[5]);
    return select((R(1) - w2) * V(d[2]) >= w2 * V(d[5]), h1, h2);
  }

  // Derivatives of Se and A that one pore system (weight w) contributes.
  template <class V>
  struct System {
    V w, alpha, n, m;
    VanGenuchten::Shape<V> s;
    DGPDE_HD V se_log_h() const { return -w * (n - RealOf<V>(1)) * s.f * s.se; }  // h dSe/dh
    DGPDE_HD V a_log_h() const {                                                  // h dA_i/dh
      return -(n - RealOf<V>(1)) * s.g * (RealOf<V>(1) - s.a);
    }
    DGPDE_HD V se_n() const { return w * s.se * (s.log_se / (n * n * m) - m * s.f * s.lx); }
    DGPDE_HD V a_n() const { return -(RealOf<V>(1) - s.a) * (s.log_f / (n * n) + m * s.g * s.lx); }
  };

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    const V range = d[1], w2 = d[8], l = d[9], weight = d[10];
    const auto wet = psi >= -tiny_suction<V>();
    const V h = select(wet, one, -psi);
    System<V> a{one - w2, d[2], d[3], d[4], {}}, b{w2, d[5], d[6], d[7], {}};
    a.s = VanGenuchten::shape(a.alpha, a.n, a.m, h);
    b.s = VanGenuchten::shape(b.alpha, b.n, b.m, h);
    const V se = a.w * a.s.se + b.w * b.s.se;
    const V wa = weight * a.w * a.alpha, wb = weight * b.w * b.alpha;
    const V mean_a = wa * a.s.a + wb * b.s.a;
    const V log_se = log_floored(se);
    const V se_l = vexp(l * log_se);
    const V kr = se_l * mean_a * mean_a;
    const V by_se = l * se_l * mean_a * (mean_a / vmax(se, broadcast<V>(std::numeric_limits<R>::min())));
    const V by_a = R(2) * se_l * mean_a;
    const V slope = a.se_log_h() + b.se_log_h();
    const V inv_h = a.s.inv_h;
    p.theta = select(wet, V(d[0]) + range, V(d[0]) + range * se);
    p.kr = select(wet, one, kr);
    p.capacity = select(wet, V{}, -range * slope * inv_h);
    p.dkr = select(wet, V{}, -(by_se * slope + by_a * (wa * a.a_log_h() + wb * b.a_log_h())) * inv_h);
    if constexpr (kPartials) {
      const V se_1 = a.se_log_h() / a.alpha, se_2 = b.se_log_h() / b.alpha;
      const V a_1 = weight * a.w * (a.s.a - mean_a + a.a_log_h()),
              a_2 = weight * b.w * (b.s.a - mean_a + b.a_log_h());
      const V se_w = b.s.se - a.s.se;
      const V a_w = weight * (b.alpha * (b.s.a - mean_a) - a.alpha * (a.s.a - mean_a));
      const V dse[5] = {se_1, a.se_n(), se_2, b.se_n(), se_w};
      const V da[5] = {a_1, wa * a.a_n(), a_2, wb * b.a_n(), a_w};
      dtheta[0] = select(wet, V{}, one - se);
      dtheta[1] = select(wet, one, se);
      dkr[0] = V{};
      dkr[1] = V{};
      for (int i = 0; i < 5; ++i) {
        dtheta[2 + i] = select(wet, V{}, range * dse[i]);
        dkr[2 + i] = select(wet, V{}, by_se * dse[i] + by_a * da[i]);
      }
      dtheta[7] = V{};
      dkr[7] = select(wet, V{}, kr * log_se);
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
