// Stabilised bi-conjugate gradients (van der Vorst 1992, SIAM J. Sci. Stat. Comput. 13:631) for systems that advection
// decides, right-preconditioned. The residual is the true one when a solve ends; where the recurrence has drifted from it,
// or broken down, it begins again from the iterate. Only of a solve that asks for little, an update of Newton's method,
// whose own residual is taken next, that of the recurrence is believed.
#pragma once

#include <cmath>

#include "../linear_call.h"
#include "stencil.h"
#include "sums.h"

namespace dgpde {
inline namespace DGPDE_ISA {

class BiCGStab {
 public:
  // apply(x, y, use): y = A x; the sums of use(first cell, cells) over its rows, each called when the row is there.
  // precondition(x, y): y = M^-1 x.  Without options.guess x is set to 0.
  template <class Apply, class Precondition>
  LinearReport solve(int64_t rows, int64_t nx, const double* b, double* x, const LinearOptions& options,
                     const Apply& apply, const Precondition& precondition) {
    rows_ = rows, nx_ = nx, threads_ = options.threads;
    const int64_t n = rows * nx;
    for (auto* v : {&r_, &first_, &p_, &v_, &ph_, &rh_, &t_}) v->resize(n);
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
    if (!options.guess) std::memset(x, 0, static_cast<size_t>(n) * sizeof(double));
    for (double before = INFINITY;; before = report.residual * norm) {
      const bool none = std::isinf(before) && !options.guess;
      const auto rest = [&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) r_[k] = unit * (none ? b[k] : b[k] - r_[k]);
        return Sums{dot_row(&r_[i], &r_[i], m), 0};
      };
      const double now = std::sqrt((none ? sum(rest) : apply(x, r_.data(), rest)).a);
      report.residual = now / norm;
      if (!std::isfinite(now)) return failed(report, x, n, LinearStatus::not_finite);
      if (now <= options.tolerance * norm) return report;
      if (report.iterations >= options.max_iterations) why = LinearStatus::iterations;
      if (report.iterations >= options.max_iterations || now > 0.5 * before) {
        report.status = why;
        return report;
      }
      const Ended ended = run(x, now, 0.9 * options.tolerance * norm, back, options.max_iterations, report.iterations,
                              apply, precondition);
      if (ended.residual <= options.tolerance * norm && options.tolerance >= kBelieved) {
        report.residual = ended.residual / norm;
        return report;
      }
      why = ended.broken ? LinearStatus::breakdown : LinearStatus::stagnated;
    }
  }

  int64_t bytes() const {
    int64_t total = sums_.bytes();
    for (const auto* v : {&r_, &first_, &p_, &v_, &ph_, &rh_, &t_}) total += v->bytes();
    return total;
  }

 private:
  // Tolerances from which on a residual of the recurrence is believed: it drifts from the true one by round-off.
  static constexpr double kBelieved = 1e-7;

  struct Ended {
    double residual;  // of the recurrence
    bool broken;      // a product that is divided by vanished
  };

  // Iterates from the residual in r_, whose norm is given.
  template <class Apply, class Precondition>
  Ended run(double* x, double norm, double goal, double back, int64_t limit, int64_t& iterations, const Apply& apply,
            const Precondition& precondition) {
    const int64_t n = rows_ * nx_;
    std::memcpy(first_.data(), r_.data(), static_cast<size_t>(n) * sizeof(double));
    std::memcpy(p_.data(), r_.data(), static_cast<size_t>(n) * sizeof(double));
    double rho = norm * norm;
    while (iterations < limit) {
      ++iterations;
      precondition(p_.data(), ph_.data());
      const double by = apply(ph_.data(), v_.data(), [&](int64_t i, int64_t m) {
                          return Sums{dot_row(&first_[i], &v_[i], m), 0};
                        }).a;
      const double alpha = rho / by;
      if (by == 0.0 || !std::isfinite(alpha)) return {norm, true};
      norm = std::sqrt(sum([&](int64_t i, int64_t m) {
                         for (int64_t k = i; k < i + m; ++k) r_[k] -= alpha * v_[k];
                         return Sums{dot_row(&r_[i], &r_[i], m), 0};
                       }).a);
      const auto half = [&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) x[k] += back * alpha * ph_[k];
        return Sums{};
      };
      if (norm <= goal) {
        sum(half);
        return {norm, false};
      }
      precondition(r_.data(), rh_.data());
      const Sums ts = apply(rh_.data(), t_.data(), [&](int64_t i, int64_t m) {
        return Sums{dot_row(&t_[i], &r_[i], m), dot_row(&t_[i], &t_[i], m)};
      });
      const double omega = ts.a / ts.b;
      if (ts.b == 0.0 || omega == 0.0 || !std::isfinite(omega)) {
        sum(half);
        return {norm, true};
      }
      const Sums next = sum([&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) {
          x[k] += back * (alpha * ph_[k] + omega * rh_[k]);
          r_[k] -= omega * t_[k];
        }
        return Sums{dot_row(&first_[i], &r_[i], m), dot_row(&r_[i], &r_[i], m)};
      });
      norm = std::sqrt(next.b);
      if (norm <= goal) return {norm, false};
      const double beta = next.a / rho * (alpha / omega);
      if (next.a == 0.0 || !std::isfinite(beta)) return {norm, true};
      rho = next.a;
      sum([&](int64_t i, int64_t m) {
        for (int64_t k = i; k < i + m; ++k) p_[k] = r_[k] + beta * (p_[k] - omega * v_[k]);
        return Sums{};
      });
    }
    return {norm, false};
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
  Buffer<double> r_, first_, p_, v_, ph_, rh_, t_;
  Buffer<Sums> sums_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
