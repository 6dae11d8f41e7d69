// Stabilised bi-conjugate gradients (van der Vorst 1992, SIAM J. Sci. Stat. Comput. 13:631) for systems that advection
// decides, right-preconditioned. The residual is the true one when a solve ends; where the recurrence has drifted from it,
// or broken down, it begins again from the iterate.
#pragma once

#include <cmath>

#include "../linear_call.h"
#include "stencil.h"
#include "sums.h"

namespace dgpde {
inline namespace DGPDE_ISA {

class BiCGStab {
 public:
  // apply(x, y): y = A x.  precondition(x, y): y = M^-1 x.
  template <class Apply, class Precondition>
  LinearReport solve(int64_t rows, int64_t nx, const double* b, double* x, const LinearOptions& options,
                     const Apply& apply, const Precondition& precondition) {
    rows_ = rows, nx_ = nx, threads_ = options.threads;
    const int64_t n = rows * nx;
    for (auto* v : {&r_, &first_, &p_, &v_, &ph_, &t_}) v->resize(n);
    LinearReport report;
    // the residual is carried in a unit in which its square neither over- nor underflows
    double largest = 0, bad = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double m = std::abs(b[i]);
      largest = m > largest ? m : largest;
      bad += m - m;
    }
    if (!std::isfinite(largest + bad)) return failed(report, x, n, LinearStatus::not_finite);
    if (largest == 0) {
      std::memset(x, 0, static_cast<size_t>(n) * sizeof(double));
      return report;
    }
    int exponent;
    std::frexp(largest, &exponent);
    const double unit = std::ldexp(1.0, -exponent), back = std::ldexp(1.0, exponent);
    const double norm = std::sqrt(sum([&](int64_t i, int64_t m) {
                                    double s = 0;
                                    for (int64_t k = i; k < i + m; ++k) s += (unit * b[k]) * (unit * b[k]);
                                    return Sums{s, 0};
                                  }).a);
    LinearStatus why = LinearStatus::stagnated;
    for (double before = INFINITY;;) {
      apply(x, r_.data());
      const double now = std::sqrt(sum([&](int64_t i, int64_t m) {
                                     for (int64_t k = i; k < i + m; ++k) r_[k] = unit * (b[k] - r_[k]);
                                     return Sums{dot_row(&r_[i], &r_[i], m), 0};
                                   }).a);
      report.residual = now / norm;
      if (!std::isfinite(now)) return failed(report, x, n, LinearStatus::not_finite);
      if (now <= options.tolerance * norm) return report;
      if (report.iterations >= options.max_iterations) why = LinearStatus::iterations;
      if (report.iterations >= options.max_iterations || now > 0.5 * before) {
        report.status = why;
        return report;
      }
      before = now;
      why = run(x, now, 0.9 * options.tolerance * norm, back, options.max_iterations, report.iterations, apply,
                precondition)
                ? LinearStatus::stagnated
                : LinearStatus::breakdown;
    }
  }

  int64_t bytes() const {
    int64_t total = sums_.bytes();
    for (const auto* v : {&r_, &first_, &p_, &v_, &ph_, &t_}) total += v->bytes();
    return total;
  }

 private:
  // Iterates from the residual in r_; false when a product that is divided by vanished.
  template <class Apply, class Precondition>
  bool run(double* x, double norm, double goal, double back, int64_t limit, int64_t& iterations, const Apply& apply,
           const Precondition& precondition) {
    const int64_t n = rows_ * nx_;
    std::memcpy(first_.data(), r_.data(), static_cast<size_t>(n) * sizeof(double));
    std::memcpy(p_.data(), r_.data(), static_cast<size_t>(n) * sizeof(double));
    double rho = norm * norm;
    while (iterations < limit) {
      ++iterations;
      precondition(p_.data(), ph_.data());
      apply(ph_.data(), v_.data());
      const double by = sum([&](int64_t i, int64_t m) { return Sums{dot_row(&first_[i], &v_[i], m), 0}; }).a;
      const double alpha = rho / by;
      if (by == 0.0 || !std::isfinite(alpha)) return false;
      const double half = sum([&](int64_t i, int64_t m) {
                            for (int64_t k = i; k < i + m; ++k) {
                              r_[k] -= alpha * v_[k];
                              x[k] += back * alpha * ph_[k];
                            }
                            return Sums{dot_row(&r_[i], &r_[i], m), 0};
                          }).a;
      if (std::sqrt(half) <= goal) return true;
      precondition(r_.data(), ph_.data());
      apply(ph_.data(), t_.data());
      const Sums ts =
          sum([&](int64_t i, int64_t m) { return Sums{dot_row(&t_[i], &r_[i], m), dot_row(&t_[i], &t_[i], m)}; });
      const double omega = ts.a / ts.b;
      if (ts.b == 0.0 || omega == 0.0 || !std::isfinite(omega)) return false;
      const Sums next = sum([&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) {
          x[k] += back * omega * ph_[k];
          r_[k] -= omega * t_[k];
        }
        return Sums{dot_row(&first_[i], &r_[i], m), dot_row(&r_[i], &r_[i], m)};
      });
      if (std::sqrt(next.b) <= goal) return true;
      const double beta = next.a / rho * (alpha / omega);
      if (next.a == 0.0 || !std::isfinite(beta)) return false;
      rho = next.a;
      sum([&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) p_[k] = r_[k] + beta * (p_[k] - omega * v_[k]);
        return Sums{};
      });
    }
    return true;
  }

  template <class Work>
  Sums sum(const Work& work) {
    return sum_rows(sums_, rows_, nx_, threads_, work);
  }
  LinearReport failed(LinearReport& report, double* x, int64_t n, LinearStatus status) const {
    for (int64_t i = 0; i < n; ++i) x[i] = NAN;
    report.residual = NAN;
    report.status = status;
    return report;
  }

  int64_t rows_ = 0, nx_ = 0;
  int threads_ = 1;
  Buffer<double> r_, first_, p_, v_, ph_, t_;
  Buffer<Sums> sums_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
