// van Genuchten (1980) retention with the conductivity of Mualem (1976), and optionally an air-entry suction h_e
// (Ippisch, Vogel & Bastian 2006, Adv. Water Resour. 29:1780).
//
//   y = (alpha h)^n, h = -psi,  m = 1 - 1/n,  Se = (1 + y)^-m,  f = y/(1 + y) = 1 - Se^(1/m),  A = 1 - f^m
//   theta = theta_r + (theta_s - theta_r) S,  S = Se(h)/Se(h_e),  kr = S^l (A(h)/A(h_e))^2        for h > h_e
//   theta = theta_s,  kr = 1                                                                      for h <= h_e
//
// For y and 1/y one exponential serves: with q = min(y, 1/y) and E = (1 + q)^-m
//
//   wet (y <= 1):  Se = E,             f^m = E q/(alpha h)       because y^m = y/(alpha h)
//   dry (y >  1):  Se = E q alpha h,   f^m = E
//
// and A = 1 - f^m is taken as -expm1(m log f) where it would cancel (dry, or n close to 1). E^(1/2) and w = q^(1/2) (dry: (q alpha h)^(1/2))
// are what is computed, so that Se^(1/2) is at hand and nothing overflows. At h_e = 0 the derivatives in h_e are returned
// as 0; the Python side refuses them there (for n < 2 dkr/dh_e is infinite).
#pragma once

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct VanGenuchten {
  static constexpr int n_raw = 6;      // theta_r, theta_s, alpha, n, l, air_entry
  static constexpr int n_derived = 9;  // theta_r, theta_s - theta_r, alpha, n, l, h_e, 1/Se(h_e), 1/A(h_e), m

  template <class V>
  struct Shape {                         // the functions of h that both passes need
    V lx, f, g, log_f, log1p_y, log_se;  // log(alpha h), f, 1 - f, log f, log(1 + y), log Se
    V root_se, se, a, big_g;             // Se^(1/2), Se, A, f^m
    V inv_ah, inv_h;                     // 1/(alpha h), 1/h
  };

  template <class V>
  static DGPDE_HD Shape<V> shape(V alpha, V n, V m, V h) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    Shape<V> s;
    const V ah = alpha * h;
    const V inv_ah = one / ah;
    s.inv_ah = inv_ah;
    s.inv_h = alpha * inv_ah;
    s.lx = vlog(ah);
    const V ly = n * s.lx;
    const auto dry = ly > V{};
    const V w = vexp_nonpositive(R(0.5) * select(dry, s.lx - ly, ly));
    const V w_ah = w * inv_ah;
    const OnePlus<V> q = one_plus(w * select(dry, w_ah, w));
    const V log1p_q = q.log;
    s.f = select(dry, q.inverse, q.part);
    s.g = select(dry, q.part, q.inverse);
    s.log_f = select(dry, V{}, ly) - log1p_q;
    s.log1p_y = select(dry, ly, V{}) + log1p_q;
    s.log_se = -m * s.log1p_y;
    const V e = expm1_small(R(-0.5) * m * log1p_q);
    const V root_e = one + e;
    s.root_se = select(dry, root_e * w, root_e);
    s.se = s.root_se * s.root_se;
    const V big_e = root_e * root_e;
    s.big_g = select(dry, big_e, big_e * w * w_ah);
    s.a = select(dry, -e * (e + R(2)), one - s.big_g);
    const auto flat = mask_and(mask_not(dry), m < broadcast<V>(0.1));  // f^m is close to 1 down to small suctions
    if (any(flat)) s.a = select(flat, -vexpm1_nonpositive(m * s.log_f), s.a);
    return s;
  }

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    using R = RealOf<V>;
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = raw[2];
    d[3] = raw[3];
    d[4] = raw[4];
    d[5] = raw[5];
    const auto entry = V(raw[5]) > V{};
    d[6] = broadcast<V>(1);
    d[7] = broadcast<V>(1);
    d[8] = R(1) - R(1) / V(raw[3]);
    if (any(entry)) {
      const Shape<V> c = shape(V(raw[2]), V(raw[3]), V(d[8]), select(entry, V(raw[5]), broadcast<V>(1)));
      d[6] = select(entry, R(1) / c.se, broadcast<V>(1));
      d[7] = select(entry, R(1) / c.a, broadcast<V>(1));
    }
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    using R = RealOf<V>;
    const V n = d[3];
    return vmax(V(d[5]), vpow(V(d[8]), R(1) / n) / V(d[2]));
  }

  template <class V, class D>
  static DGPDE_HD V kink_suction(const D& d) {
    return d[5];
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    const V alpha = d[2], n = d[3], h_e = d[5], m = d[8];
    const auto wet = psi >= -h_e;
    // the tiny part keeps 1/h finite at a denormal psi and changes no other one; nan stays nan
    const V h = select(wet, one, tiny_suction<V>() - psi);
    const Shape<V> s = shape(alpha, n, m, h);
    const V range = d[1], l = d[4], inv_sc = d[6], inv_ac = d[7];  // read where they are needed: registers are few
    const V sat = s.se * inv_sc;
    const auto entry = h_e > V{};
    // S^l: the usual l = 1/2 without air entry is the root already at hand; each lane decides for itself.
    const auto plain = mask_and(l == broadcast<V>(0.5), mask_not(entry));
    V sat_l = s.root_se;
    V log_sat = s.log_se;
    if (any(entry)) log_sat = s.log_se + vlog(inv_sc);
    if (!all(plain)) sat_l = select(plain, s.root_se, vexp(l * log_sat));
    const V c2 = sat_l * inv_ac * inv_ac;
    const V big_g = s.big_g;
    const V slope = (n - one) * s.inv_h;
    p.theta = select(wet, V(d[0]) + range, V(d[0]) + range * sat);
    p.kr = select(wet, one, c2 * s.a * s.a);
    p.capacity = select(wet, V{}, range * sat * slope * s.f);
    p.dkr = select(wet, V{}, slope * c2 * s.a * (l * s.f * s.a + rounded(R(2) * s.g * big_g)));
    if constexpr (kPartials) {
      // alpha scales h: where there is no air entry, alpha d/dalpha = h d/dh
      const V inv_alpha = h * s.inv_ah, scale = -h * inv_alpha;
      const V inv_n = one - m, inv_n2 = inv_n * inv_n;
      const V range_sat = range * sat;
      V theta_alpha = scale * p.capacity, kr_alpha = scale * p.dkr;
      // d log S and d A in n
      V ds_n = -(s.log1p_y * inv_n2 + rounded(m * s.f * s.lx));
      const V da_n = -big_g * (s.log_f * inv_n2 + rounded(m * s.g * s.lx));
      V kr_n = R(2) * c2 * s.a * da_n, theta_entry{}, kr_entry{};
      if (any(entry)) {
        const V he = select(entry, h_e, one);
        const Shape<V> c = shape(alpha, n, m, he);
        const V kr = p.kr, ds_log = (n - one) * c.f, dac_log = -(n - one) * c.g * c.big_g / c.a;  // in log h_e
        const V kr_log = kr * (l * ds_log - rounded(R(2) * dac_log));
        theta_alpha = theta_alpha + select(entry, range_sat * ds_log * inv_alpha, V{});
        kr_alpha = kr_alpha + select(entry, kr_log * inv_alpha, V{});
        ds_n = ds_n + select(entry, c.log1p_y * inv_n2 + rounded(m * c.f * c.lx), V{});
        const V dac_n = -c.big_g * (c.log_f * inv_n2 + rounded(m * c.g * c.lx)) / c.a;
        kr_n = kr_n - select(entry, R(2) * kr * dac_n, V{});
        theta_entry = select(entry, range_sat * ds_log / he, V{});
        kr_entry = select(entry, kr_log / he, V{});
      }
      dtheta[0] = select(wet, V{}, one - sat);
      dtheta[1] = select(wet, one, sat);
      dtheta[2] = select(wet, V{}, theta_alpha);
      dtheta[3] = select(wet, V{}, range_sat * ds_n);
      dtheta[4] = V{};
      dtheta[5] = select(wet, V{}, theta_entry);
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = select(wet, V{}, kr_alpha);
      dkr[3] = select(wet, V{}, p.kr * l * ds_n + rounded(kr_n));
      dkr[4] = select(wet, V{}, p.kr * log_sat);
      dkr[5] = select(wet, V{}, kr_entry);
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
