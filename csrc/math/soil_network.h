// van Genuchten-Mualem curves whose suction axis two small networks warp (dgpde/soil/neural.py defines and proves it).
//
//   u = log h, h = -psi;   u1 = u + D1(u, x);   u2 = u1 + D2(u1, x);   x: features of the cell
//   theta = theta_r + (theta_s - theta_r) Se(u1),    kr = Se(u2)^l A(u2)^2
//   Se = (1 + y)^-m, y = (alpha h)^n, f = y/(1 + y), g = 1 - f, A = 1 - f^m, m = 1 - 1/n; log(alpha h) = log alpha + u
//   D(u, x) = sum_j a_j s(t_j),  t_j = w_j u + b_j + sum_f U_jf x_f,  s(t) = t/sqrt(1 + t^2),  s' = (1 + t^2)^(-3/2)
//
//   rows of the weights [2, units, 3 + features]: a, w, b, U;   shared by all cells
// Derivatives, with T = d theta/du1 = -(theta_s - theta_r)(n - 1) f Se, K = d kr/du2 = -(n - 1) kr (l f + 2 g f^m/A):
//
//   d theta/du = T (1 + D1'),   d kr/du = K (1 + D2')(1 + D1'),   d/dpsi = -(d/du)/h
//   in a weight v of D1:  T dD1/dv,  K (1 + D2') dD1/dv;   of D2:  0,  K dD2/dv;   features move both
//   dD/da_j = s, dD/dw_j = a_j s' u, dD/db_j = a_j s', dD/dU_jf = a_j s' x_f, dD/dx_f = sum_j a_j s' U_jf
#pragma once

#include <cmath>

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

constexpr int kMaxUnits = 17;    // of one of the two networks, its shift included
constexpr int kMaxFeatures = 3;  // raw parameters that are left
constexpr int kMaxWeights = 2 * kMaxUnits * (3 + kMaxFeatures);

struct SoilNetwork {
  const void* weights = nullptr;  // [2, units, 3 + features], float or double like the lanes
  int64_t units = 0, features = 0;
  DGPDE_HD int64_t row() const { return 3 + features; }
  DGPDE_HD int64_t size() const { return 2 * units * row(); }
};

struct Network {
  static constexpr int n_raw = 8;       // theta_r, theta_s, alpha, n, l, x1, x2, x3
  static constexpr int n_derived = 10;  // theta_r, theta_s - theta_r, log alpha, n, l, m, 1/alpha, x1, x2, x3
  static constexpr int kFeatures = 7;   // where the features stand among the derived values

  template <class V, class A, class D>
  static DGPDE_HD void prepare(const SoilNetwork&, const A& raw, const D& d) {
    using R = RealOf<V>;
    d[0] = raw[0];
    d[1] = raw[1] - raw[0];
    d[2] = vlog(V(raw[2]));
    d[3] = raw[3];
    d[4] = raw[4];
    d[5] = R(1) - R(1) / V(raw[3]);
    d[6] = R(1) / V(raw[2]);
    for (int f = 0; f < kMaxFeatures; ++f) d[kFeatures + f] = raw[5 + f];
  }

  // To first order where the first network sends the inflection of the prior.
  template <class V, class D>
  static DGPDE_HD V wet_suction(const SoilNetwork& net, const D& d) {
    const V u = vlog(V(d[5])) / V(d[3]) - d[2];
    return vexp(u - departure<false>(net, 0, d, u).value);
  }

  template <class V>
  struct Departure {
    V value, slope;
    V in_feature[kMaxFeatures];  // only where asked for
  };
  template <bool kInFeatures, class V, class D>
  static DGPDE_HD Departure<V> departure(const SoilNetwork& net, int part, const D& d, V u) {
    using R = RealOf<V>;
    const R* w = weights<V>(net) + part * net.units * net.row();
    Departure<V> x{};
    for (int64_t j = 0; j < net.units; ++j, w += net.row()) {
      const V t = argument(net, w, d, u);
      const V root = vrsqrt(t * t + R(1));
      const V bend = w[0] * (root * root * root);
      x.value = x.value + w[0] * (t * root);
      x.slope = x.slope + w[1] * bend;
      if constexpr (kInFeatures)
        for (int f = 0; f < net.features; ++f) x.in_feature[f] = x.in_feature[f] + w[3 + f] * bend;
    }
    return x;
  }

  // Both curves at psi, taken apart.
  template <class V>
  struct Parts {
    Mask<V> wet;
    V u, u1, inv_h;
    Departure<V> first, second;
    V lx1, lx2;                  // log(alpha h) of both
    V se, log_se, f1;            // of the retention
    V log_se2, se2_l, a, big_g;  // of the conductivity: Se, Se^l, A, f^m
    V f2, g2, log_f2;
    V theta_u1, kr_u2;  // T and K, 0 where wet
  };
  template <bool kInFeatures, class V, class D>
  static DGPDE_HD Parts<V> parts(const SoilNetwork& net, const D& d, V psi) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1), n = d[3], l = d[4], m = d[5];
    Parts<V> x;
    x.wet = psi >= V{};
    const V h = select(x.wet, one, tiny_suction<V>() - psi);
    x.inv_h = one / h;
    x.u = vlog(h);
    x.first = departure<kInFeatures>(net, 0, d, x.u);
    x.u1 = x.u + x.first.value;
    x.second = departure<kInFeatures>(net, 1, d, x.u1);
    x.lx1 = d[2] + x.u1;
    x.lx2 = x.lx1 + x.second.value;
    const Logistic<V> s1 = logistic(n * x.lx1), s2 = logistic(n * x.lx2);
    x.log_se = -m * s1.soft_plus;
    x.se = vexp_nonpositive(x.log_se);
    x.f1 = s1.sigma;
    x.log_se2 = -m * s2.soft_plus;
    x.se2_l = vexp(l * x.log_se2);
    x.f2 = s2.sigma, x.g2 = s2.co, x.log_f2 = -s2.soft_minus;
    x.a = -vexpm1_nonpositive(m * x.log_f2);
    x.big_g = one - x.a;
    x.theta_u1 = select(x.wet, V{}, (one - n) * V(d[1]) * x.f1 * x.se);
    x.kr_u2 = select(x.wet, V{}, (one - n) * x.se2_l * x.a * (l * x.f2 * x.a + R(2) * x.g2 * x.big_g));
    return x;
  }

  template <bool kPartials, class V, class D, class P>
  static DGPDE_HD void evaluate(const SoilNetwork& net, const D& d, V psi, SoilPoint<V>& p, P dtheta, P dkr) {
    using R = RealOf<V>;
    const V one = broadcast<V>(1);
    const Parts<V> x = parts<kPartials>(net, d, psi);
    const V stretch1 = one + x.first.slope, stretch2 = one + x.second.slope;
    const V kr = x.se2_l * x.a * x.a;
    p.theta = select(x.wet, V(d[0]) + V(d[1]), V(d[0]) + V(d[1]) * x.se);
    p.kr = select(x.wet, one, kr);
    p.capacity = -x.theta_u1 * stretch1 * x.inv_h;
    p.dkr = -x.kr_u2 * stretch1 * stretch2 * x.inv_h;
    if constexpr (kPartials) {
      const V n = d[3], l = d[4], m = d[5], inv_alpha = d[6];
      const V inv_n = R(1) / n, inv_n2 = inv_n * inv_n;
      dtheta[0] = select(x.wet, V{}, one - x.se);
      dtheta[1] = select(x.wet, one, x.se);
      dtheta[2] = x.theta_u1 * inv_alpha;
      dtheta[3] = select(x.wet, V{}, V(d[1]) * x.se * (x.log_se * inv_n2 / m - m * x.f1 * x.lx1));
      dtheta[4] = V{};
      dkr[0] = V{};
      dkr[1] = V{};
      dkr[2] = x.kr_u2 * inv_alpha;
      const V a_n = -x.big_g * (x.log_f2 * inv_n2 + m * x.g2 * x.lx2);
      dkr[3] = select(x.wet, V{}, kr * l * (x.log_se2 * inv_n2 / m - m * x.f2 * x.lx2) + R(2) * x.se2_l * x.a * a_n);
      dkr[4] = select(x.wet, V{}, kr * x.log_se2);
      for (int f = 0; f < kMaxFeatures; ++f) {
        dtheta[5 + f] = x.theta_u1 * x.first.in_feature[f];
        dkr[5 + f] = x.kr_u2 * (x.first.in_feature[f] * stretch2 + x.second.in_feature[f]);
      }
    }
  }

  // Cotangents of theta and kr at psi, passed on to the weights: add(number of the weight, what is added). The slopes of
  // theta and kr there are known already; T and K follow from them, because 1 + D' > 0 by far more than round-off.
  template <class V, class D, class Add>
  static DGPDE_HD void pull(const SoilNetwork& net, const D& d, V psi, V capacity, V dkr, V grad_theta, V grad_kr,
                            const Add& add) {
    const V one = broadcast<V>(1);
    const auto wet = psi >= V{};
    const V h = select(wet, one, tiny_suction<V>() - psi), u = vlog(h);
    V sigmoid[2][kKept<V>], bend[2][kKept<V>];  // s and a s' of every unit
    const Departure<V> first = units(net, 0, d, u, sigmoid[0], bend[0]);
    const V u1 = u + first.value;
    const Departure<V> second = units(net, 1, d, u1, sigmoid[1], bend[1]);
    const V stretch1 = one + first.slope, stretch2 = one + second.slope;
    const V slope = select(wet, V{}, -h / stretch1);
    const V by_kr_u1 = grad_kr * dkr * slope;
    pull_units(net, 0, d, u, grad_theta * capacity * slope + by_kr_u1, sigmoid[0], bend[0], add);
    pull_units(net, 1, d, u1, by_kr_u1 / stretch2, sigmoid[1], bend[1], add);
  }

  // Tangents of theta and kr at psi along one of the weights.
  template <class V, class D>
  static DGPDE_HD void push(const SoilNetwork& net, const void* dot, const D& d, V psi, V& dot_theta, V& dot_kr) {
    const V one = broadcast<V>(1);
    const Parts<V> x = parts<false>(net, d, psi);
    const V first = push_departure(net, dot, 0, d, x.u), second = push_departure(net, dot, 1, d, x.u1);
    dot_theta = x.theta_u1 * first;
    dot_kr = x.kr_u2 * (first * (one + x.second.slope) + second);
  }

 private:
  template <class V>
  static DGPDE_HD const RealOf<V>* weights(const SoilNetwork& net) {
    return static_cast<const RealOf<V>*>(net.weights);
  }
  // Packs keep what they know of every unit; a GPU thread works it out again.
  template <class V>
  static constexpr int kKept = Lane<V>::width > 1 ? kMaxUnits : 1;

  template <class V, class D>
  static DGPDE_HD V argument(const SoilNetwork& net, const RealOf<V>* w, const D& d, V u) {
    V t = w[1] * u + w[2];
    for (int f = 0; f < net.features; ++f) t = t + w[3 + f] * V(d[kFeatures + f]);
    return t;
  }
  template <class V, class D>
  static DGPDE_HD Departure<V> units(const SoilNetwork& net, int part, const D& d, V u, V* sigmoid, V* bend) {
    using R = RealOf<V>;
    if constexpr (kKept<V> == 1) {
      return departure<false>(net, part, d, u);
    } else {
      const R* w = weights<V>(net) + part * net.units * net.row();
      Departure<V> x{};
      for (int64_t j = 0; j < net.units; ++j, w += net.row()) {
        const V t = argument(net, w, d, u);
        const V root = vrsqrt(t * t + R(1));
        sigmoid[j] = t * root;
        bend[j] = w[0] * (root * root * root);
        x.value = x.value + w[0] * sigmoid[j];
        x.slope = x.slope + w[1] * bend[j];
      }
      return x;
    }
  }
  template <class V, class D, class Add>
  static DGPDE_HD void pull_units(const SoilNetwork& net, int part, const D& d, V u, V by, const V* sigmoid,
                                  const V* bend, const Add& add) {
    using R = RealOf<V>;
    int64_t at = part * net.units * net.row();
    const R* w = weights<V>(net) + at;
    for (int64_t j = 0; j < net.units; ++j, w += net.row(), at += net.row()) {
      V s, by_t;
      if constexpr (kKept<V> == 1) {
        const V t = argument(net, w, d, u);
        const V root = vrsqrt(t * t + R(1));
        s = t * root, by_t = by * (w[0] * (root * root * root));
      } else {
        s = sigmoid[j], by_t = by * bend[j];
      }
      add(at, by * s);
      add(at + 1, by_t * u);
      add(at + 2, by_t);
      for (int f = 0; f < net.features; ++f) add(at + 3 + f, by_t * V(d[kFeatures + f]));
    }
  }
  template <class V, class D>
  static DGPDE_HD V push_departure(const SoilNetwork& net, const void* dot, int part, const D& d, V u) {
    using R = RealOf<V>;
    const int64_t at = part * net.units * net.row();
    const R *w = weights<V>(net) + at, *v = static_cast<const R*>(dot) + at;
    V x{};
    for (int64_t j = 0; j < net.units; ++j, w += net.row(), v += net.row()) {
      V t = w[1] * u + w[2], dt = v[1] * u + v[2];
      for (int f = 0; f < net.features; ++f) {
        t = t + w[3 + f] * V(d[kFeatures + f]);
        dt = dt + v[3 + f] * V(d[kFeatures + f]);
      }
      const V root = vrsqrt(t * t + R(1));
      x = x + v[0] * (t * root) + w[0] * (root * root * root) * dt;
    }
    return x;
  }
};

// By how much faster than the suction itself the networks let the curves change (column_carry.h).
template <class R>
DGPDE_HD double network_sharpness(const SoilNetwork& net) {
  const R* w = static_cast<const R*>(net.weights);
  double sum = 1.0;
  for (int64_t j = 0; j < 2 * net.units; ++j, w += net.row())
    sum += ::fabs(static_cast<double>(w[0]) * w[1]) * (1.0 + static_cast<double>(w[1]) * w[1]);
  return ::cbrt(sum);
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
