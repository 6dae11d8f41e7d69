// Peters-Durner-Iden: capillary water (van Genuchten) and film water to oven dryness (Peters 2013, Iden & Durner
// 2014, Peters 2014, all in Water Resour. Res.; no vapour).
//
//   X = log(alpha h), h = -psi;   L = n X,  m = 1 - 1/n;   X0, L0, G0 at h_0;   sp = softplus
//   G = exp(-m sp(L)),   S = (G - G0)/(1 - G0) = G e/(1 - G0),  e = 1 - exp(-D),  D = log(G/G0) = m (sp(L0) - sp(L))
//   K_cap = S^l B^2,  B = 1 - R,  R = exp(-m E),  E = sp(-L) - sp(-L0)
//   F = b sp(X/b),  S_nc = 1 - F/X0,  K_nc = exp(a F)
//   b = ln 10 (0.1 + 0.2/n^2 (1 - exp(-(theta_r/(theta_s - theta_r))^2)))
//   theta = (theta_s - theta_r) S + theta_r S_nc,   kr = (1 - omega) K_cap + omega K_nc
// For h >= h_0 everything stays at its value at h_0: S = K_cap = 0, X = X0.
#pragma once

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct PetersDurnerIden {
  static constexpr int n_raw = 8;  // theta_r, theta_s, alpha, n, omega, l, h_0, a
  // theta_r, theta_s - theta_r, alpha, n, omega, l, h_0, a, b, X0, sp(-L0), 1 - G0
  static constexpr int n_derived = 12;
  static constexpr double ln10 = 2.30258509299404568402;

  template <class V, class A, class D>
  static DGPDE_HD void prepare(int32_t, const A& raw, const D& d) {
    using R = RealOf<V>;
    const V range = raw[1] - raw[0], n = raw[3];
    const V ratio = V(raw[0]) / range;
    const V x0 = vlog(V(raw[2]) * V(raw[6]));
    const Logistic<V> end = logistic(n * x0);
    d[0] = raw[0];
    d[1] = range;
    for (int i = 2; i < 8; ++i) d[i] = raw[i];
    d[8] = R(ln10) * (R(0.1) - R(0.2) / (n * n) * vexpm1_nonpositive(-ratio * ratio));
    d[9] = x0;
    d[10] = end.soft_minus;
    d[11] = -vexpm1_nonpositive((R(1) - n) / n * end.soft_plus);
  }

  template <class V, class D>
  static DGPDE_HD V wet_suction(const D& d) {
    using R = RealOf<V>;
    const V n = d[3];
    return vpow((n - R(1)) / n, R(1) / n) / V(d[2]);
  }

  template <class V, class D>
  static DGPDE_HD V kink_suction(const D& d) {  // no water beyond
    return d[6];
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1), zero{};
    const V theta_r = d[0], range = d[1], alpha = d[2], n = d[3], omega = d[4], l = d[5], h_0 = d[6], a = d[7];
    const V b = d[8], x0 = d[9], soft_minus0 = d[10], room = d[11];
    const V n_1 = n - R(1), m = n_1 / n, inv_h0 = R(1) / h_0;
    const auto wet = psi >= -tiny_suction<V>();
    const V h_any = select(wet, one, -psi);
    const auto oven = h_any >= h_0;
    const V h = select(oven, h_0, h_any);
    const V inv_h = R(1) / h;

    // Capillary part. Where D or E has underflowed h is h_0 to round-off, and the part is gone.
    const V x = select(oven, x0, vlog(alpha * h));
    const V x_cap = select(oven, zero, x);
    const Logistic<V> t = logistic(n * x_cap);
    const V soft_plus0 = n * x0 + soft_minus0;
    const V big_d = m * (soft_plus0 - t.soft_plus), big_e = t.soft_minus - soft_minus0;
    const auto gone = mask_or(oven, mask_or(big_d <= zero, big_e <= zero));
    const V e = select(gone, one, -vexpm1_nonpositive(select(gone, zero, -big_d)));
    const V g = vexp_nonpositive(-m * t.soft_plus);
    const V inv_room = R(1) / room;
    const V s = select(gone, zero, g * e * inv_room);
    const V log_s = log_floored(s);
    const V bracket = -vexpm1_nonpositive(select(gone, zero, -m * big_e));
    const V s_l = select(gone, zero, vexp(l * log_s));
    const V k_cap = s_l * bracket * bracket;
    const V s_log = -n_1 * t.sigma;                 // h dlog G/dh;  h dlog S/dh = s_log/e
    const V b_log = -n_1 * t.co * (one - bracket);  // h dB/dh
    const V k_cap_log = l * k_cap * s_log / e + R(2) * s_l * bracket * b_log;

    // Films
    const Logistic<V> film = logistic(x / b);
    const V big_f = b * film.soft_plus;
    const V inv_x0 = R(1) / x0;
    const V s_nc = one - big_f * inv_x0;
    const V k_nc = vexp(a * big_f);
    const V k_nc_f = a * k_nc;

    const auto flat = mask_or(wet, oven);
    p.theta = select(wet, theta_r + range, range * s + theta_r * s_nc);
    p.kr = select(wet, one, (one - omega) * k_cap + omega * k_nc);
    p.capacity = select(flat, zero, (range * n_1 * t.sigma * g * inv_room + theta_r * film.sigma * inv_x0) * inv_h);
    p.dkr = select(flat, zero, -((one - omega) * k_cap_log + omega * k_nc_f * film.sigma) * inv_h);
    if constexpr (kPartials) {
      const V inv_n2 = R(1) / (n * n);
      const V g0 = vexp_nonpositive(-m * soft_plus0), f0 = vexp_nonpositive(-soft_minus0);
      const V co0 = -vexpm1_nonpositive(-soft_minus0);  // 1 - f0
      // S = (G - G0)/(1 - G0): dS = (dG - (1 - S) dG0)/(1 - G0), 1 - S = (1 - G)/(1 - G0)
      const V rest = -vexpm1_nonpositive(-m * t.soft_plus) * inv_room * g0;
      const V s_alpha = -n_1 / alpha * (g * t.sigma - rest * f0) * inv_room;
      const V s_n =
          -(g * (inv_n2 * t.soft_plus + m * t.sigma * x_cap) - rest * (inv_n2 * soft_plus0 + m * f0 * x0)) * inv_room;
      const V s_h0 = rest * n_1 * f0 * inv_h0 * inv_room;
      const V r_m = (one - bracket) * m;  // dB = R (m dE + E dm)
      const V b_alpha = r_m * n * (co0 - t.co) / alpha;
      const V b_n = r_m * (co0 * x0 - t.co * x_cap) + (one - bracket) * big_e * inv_n2;
      const V b_h0 = r_m * n * co0 * inv_h0;
      const V by_s = l * k_cap / select(gone, one, s), by_b = R(2) * s_l * bracket;
      // F and S_nc in X, X0 and b
      const V mean = big_f * inv_x0;
      const V nc_alpha = (mean - film.sigma) * inv_x0 / alpha;
      const V f_h0 = select(oven, film.sigma, zero) * inv_h0;
      const V nc_h0 = (mean * inv_h0 - f_h0) * inv_x0;
      const V f_b = film.soft_plus - film.sigma * x / b;
      const V nc_b = -f_b * inv_x0;
      // b in n, theta_r and theta_s, through ratio = theta_r/(theta_s - theta_r)
      const V ratio = theta_r / range;
      const V b_n_of = R(-2) * (b - R(0.1 * ln10)) / n;
      const V b_ratio = R(0.4 * ln10) * inv_n2 * ratio * vexp_nonpositive(-ratio * ratio);
      const V b_tr = b_ratio * (theta_r + range) / (range * range), b_ts = -b_ratio * ratio / range;

      dtheta[0] = select(wet, zero, s_nc - s + theta_r * nc_b * b_tr);
      dtheta[1] = select(wet, one, s + theta_r * nc_b * b_ts);
      dtheta[2] = select(wet, zero, select(gone, zero, range * s_alpha) + theta_r * nc_alpha);
      dtheta[3] = select(wet, zero, select(gone, zero, range * s_n) + theta_r * nc_b * b_n_of);
      dtheta[4] = zero;
      dtheta[5] = zero;
      dtheta[6] = select(wet, zero, select(gone, zero, range * s_h0) + theta_r * nc_h0);
      dtheta[7] = zero;
      const V cap = select(flat, zero, one - omega), films = select(wet, zero, omega);
      dkr[0] = films * k_nc_f * f_b * b_tr;
      dkr[1] = films * k_nc_f * f_b * b_ts;
      dkr[2] = cap * (by_s * s_alpha + by_b * b_alpha) + films * k_nc_f * film.sigma / alpha;
      dkr[3] = cap * (by_s * s_n + by_b * b_n) + films * k_nc_f * f_b * b_n_of;
      dkr[4] = select(wet, zero, k_nc - k_cap);
      dkr[5] = cap * k_cap * log_s;
      dkr[6] = cap * (by_s * s_h0 + by_b * b_h0) + films * k_nc_f * f_h0;
      dkr[7] = films * k_nc * big_f;
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
