// Krylov iterations in float64 around the hierarchy: conjugate gradients for symmetric matrices, flexible GMRES (Saad 1993)
// for all others, restarted, its directions stored in the hierarchy's number type.
//
// Vectors lie in the caller's order. Each pass over memory does all that it can: products with the matrix end in the dot products
// that need them, updates of the residual hand it to the finest level, and corrections come back in the update that uses them.
// Sums are made in fixed pieces and added in fixed order, so results do not depend on the number of threads.
#pragma once

#include "hierarchy.h"
#include "sums.h"

namespace dgpde {
inline namespace DGPDE_ISA {

DGPDE_HD void add_product(PackD a, PackD b, PackD& low, PackD&) { low += a * b; }
DGPDE_HD void add_product(PackF a, PackF b, PackD& low, PackD& high) {
  HalfPackF u[2], v[2];
  std::memcpy(u, &a, sizeof(a));
  std::memcpy(v, &b, sizeof(b));
  low += __builtin_convertvector(u[0], PackD) * __builtin_convertvector(v[0], PackD);
  high += __builtin_convertvector(u[1], PackD) * __builtin_convertvector(v[1], PackD);
}

// The last right-hand sides b of one matrix, each over its norm, with their answers over the same: A answer = load. The
// combination of loads that is nearest to a new b tells which combination of answers to begin from.
struct Recollection {
  static constexpr int kMost = 4;
  static constexpr double kSame = 1e-13;  // the square of what is left of a load beside the others, to be of use
  static constexpr double kNews = 1e-8;   // the part of b that the others must leave for it to be kept
  int count = 0, oldest = 0;
  Buffer<double> load[kMost], answer[kMost];
  double gram[kMost][kMost] = {};

  void forget() { count = oldest = 0; }
  int64_t bytes() const {
    int64_t sum = 0;
    for (int j = 0; j < kMost; ++j) sum += load[j].bytes() + answer[j].bytes();
    return sum;
  }

  // The shares c of the loads in what has these products with them: gram c = products, without loads that the newer
  // ones span. Cholesky's factors, the newest first.
  void shares(const double* products, double* c) const {
    double factor[kMost][kMost] = {}, part[kMost];
    int used[kMost], n = 0;
    for (int k = 0; k < kMost; ++k) c[k] = 0;
    for (int age = 0; age < count; ++age) {
      const int j = (oldest + count - 1 - age) % count;
      double rest = gram[j][j], value = products[j];
      for (int i = 0; i < n; ++i) {
        double sum = gram[j][used[i]];
        for (int k = 0; k < i; ++k) sum -= factor[n][k] * factor[i][k];
        factor[n][i] = sum / factor[i][i];
        rest -= factor[n][i] * factor[n][i];
        value -= factor[n][i] * part[i];
      }
      if (!(rest > kSame)) continue;
      factor[n][n] = std::sqrt(rest);
      part[n] = value / factor[n][n];
      used[n++] = j;
    }
    for (int i = n - 1; i >= 0; --i) {
      double value = part[i];
      for (int k = i + 1; k < n; ++k) value -= factor[k][i] * c[used[k]];
      c[used[i]] = value / factor[i][i];
    }
  }

  // The place of a new load that has these products with the others.
  int place(const double* products) {
    const int j = count < kMost ? count++ : oldest;
    oldest = count < kMost ? 0 : (j + 1) % kMost;
    for (int i = 0; i < count; ++i) gram[i][j] = gram[j][i] = products[i];
    gram[j][j] = 1.0;
    return j;
  }
};

// The vectors of a solve, kept from one solve to the next.
template <class Real>
struct Workspace {
  static constexpr int kRestart = 30;
  Buffer<double> r, p, q;
  Buffer<Real> basis[kRestart + 1], direction[kRestart];  // of GMRES; each is there once an iteration has needed it
  Buffer<Sums> sums;
  Buffer<double> dots;
  Recollection past;
  int64_t bytes() const {
    int64_t sum = r.bytes() + p.bytes() + q.bytes() + sums.bytes() + dots.bytes() + past.bytes();
    for (const auto& v : basis) sum += v.bytes();
    for (const auto& v : direction) sum += v.bytes();
    return sum;
  }
};

template <class V>
class Krylov {
  using Real = RealOf<V>;
  static constexpr int kLanes = Lane<V>::width;

 public:
  Krylov(const StencilData& matrix, Hierarchy<V>& hierarchy, Workspace<Real>& work, const LinearOptions& options)
      : a_(Stencil::of(matrix.coefficients, matrix.nz, matrix.ny, matrix.nx)),
        form_(matrix.symmetric     ? Form::symmetric
              : options.transposed ? Form::transposed
                                   : Form::plain),
        m_(hierarchy),
        w_(work),
        o_(options) {}

  LinearReport solve(const double* b, double* x) {
    LinearReport report;
    const double largest = magnitude(b);
    if (!std::isfinite(largest)) return failed(report, x, LinearStatus::not_finite);
    if (!o_.guess || largest == 0) std::memset(x, 0, static_cast<size_t>(a_.cells()) * sizeof(double));
    if (largest == 0) return report;
    int exponent;
    std::frexp(largest, &exponent);
    unit_ = std::ldexp(
        1.0, -exponent);  // the residual is carried in this unit, so that its square neither over- nor underflows
    w_.r.resize(a_.cells());
    const double norm = std::sqrt(rows([&](int64_t i, int64_t n) {
                                    for (int64_t k = i; k < i + n; ++k) w_.r[k] = unit_ * b[k];
                                    return Sums{dot_row(&w_.r[i], &w_.r[i], n), 0};
                                  }).a);
    bool zero = !o_.guess;
    const bool recalls = o_.recall && form_ == Form::symmetric;
    double products[Recollection::kMost] = {},
           began = 0;  // products of b/|b| with the loads; first residual over |b|
    if (recalls && w_.past.count > 0) {
      recall(x, norm, products);
      zero = false;
    }
    for (double before = 0;; zero = false) {
      const double now = zero ? norm : residual(b, x);
      report.residual = now / norm;
      if (!std::isfinite(now)) return failed(report, x, LinearStatus::not_finite);
      if (before == 0) began = report.residual;
      if (now <= o_.tolerance * norm) {
        if (recalls && began > Recollection::kNews) keep(b, x, norm, products);
        return report;
      }
      report.status = status_;
      if (report.iterations >= o_.max_iterations) report.status = LinearStatus::iterations;
      // a restart must have gained something over the one before
      else if (before > 0 && now > 0.5 * before)
        report.status = status_ == LinearStatus::converged ? LinearStatus::stagnated : status_;
      else
        report.status = LinearStatus::converged;
      if (report.status != LinearStatus::converged) return report;
      before = now;
      status_ = LinearStatus::converged;
      const double goal =
          0.99 * o_.tolerance * norm;  // leaves room for the residual of the recurrence to differ from the true one
      if (form_ == Form::symmetric)
        conjugate_gradients(x, now, goal, report.iterations);
      else
        gmres(x, now, goal, report.iterations);
    }
  }

 private:
  static constexpr int64_t kSegment = 2 * kLanes * Level<V>::kGroup;  // cells of x that belong to a group of tiles

  // x = the combination of earlier answers, given r = unit b and its norm.
  void recall(double* x, double norm, double* products) {
    constexpr int width = Recollection::kMost;
    const int count = w_.past.count;
    const int64_t lines = a_.nz * a_.ny, step = std::max<int64_t>(1, kBlock / a_.nx),
                  items = (lines + step - 1) / step;
    if (w_.dots.size() < items * width) w_.dots.resize(items * width);
#pragma omp parallel for schedule(static) num_threads(o_.threads) if (o_.threads > 1 && items > 3)
    for (int64_t item = 0; item < items; ++item) {
      const int64_t i = item * step * a_.nx, n = std::min(step, lines - item * step) * a_.nx;
      for (int j = 0; j < count; ++j) w_.dots[item * width + j] = dot_row(&w_.past.load[j][i], &w_.r[i], n);
    }
    for (int64_t item = 0; item < items; ++item)
      for (int j = 0; j < count; ++j) products[j] += w_.dots[item * width + j] / norm;
    double c[width];
    w_.past.shares(products, c);
    rows([&](int64_t i, int64_t n) {
      for (int64_t k = i; k < i + n; ++k) x[k] = 0;
      for (int j = 0; j < count; ++j) {
        const double add = c[j] * (norm / unit_);
        const double* y = w_.past.answer[j].data();
        for (int64_t k = i; k < i + n; ++k) x[k] += add * y[k];
      }
      return Sums();
    });
  }

  void keep(const double* b, const double* x, double norm, const double* products) {
    const int j = w_.past.place(products);
    w_.past.load[j].resize(a_.cells());
    w_.past.answer[j].resize(a_.cells());
    double *load = w_.past.load[j].data(), *answer = w_.past.answer[j].data();
    const double scale = unit_ / norm;
    rows([&](int64_t i, int64_t n) {
      for (int64_t k = i; k < i + n; ++k) load[k] = scale * b[k], answer[k] = scale * x[k];
      return Sums();
    });
  }

  LinearReport failed(LinearReport& report, double* x, LinearStatus status) const {
    for (int64_t i = 0; i < a_.cells(); ++i) x[i] = NAN;
    report.residual = NAN;
    report.status = status;
    return report;
  }

  Sums total(int64_t items) const {
    Sums sum;
    for (int64_t i = 0; i < items; ++i) sum.a += w_.sums[i].a, sum.b += w_.sums[i].b;
    return sum;
  }

  // work(first cell, cells) over all rows of x; the sums of what it returns.
  template <class Work>
  Sums rows(const Work& work) {
    return sum_rows(w_.sums, a_.nz * a_.ny, a_.nx, o_.threads, work);
  }

  // work(y, group, z, first cell, cells) over all segments of x that belong to a group of tiles, z innermost.
  template <class Work>
  Sums segments(const Work& work) {
    const int64_t groups = m_.finest().groups, items = a_.ny * groups;
    if (w_.sums.size() < items) w_.sums.resize(items);
#pragma omp parallel for schedule(static) num_threads(o_.threads) if (o_.threads > 1 && items > 1)
    for (int64_t item = 0; item < items; ++item) {
      const int64_t y = item / groups, g = item % groups, x = g * kSegment, n = std::min(kSegment, a_.nx - x);
      Sums sum;
      for (int64_t z = 0; z < a_.nz; ++z) {
        const Sums more = work(y, g, z, (z * a_.ny + y) * a_.nx + x, n);
        sum.a += more.a, sum.b += more.b;
      }
      w_.sums[item] = sum;
    }
    return total(items);
  }

  double magnitude(const double* b) {
    const int64_t planes = a_.nz;
    if (w_.sums.size() < planes) w_.sums.resize(planes);
#pragma omp parallel for schedule(static) num_threads(o_.threads) if (o_.threads > 1)
    for (int64_t z = 0; z < planes; ++z) {
      double largest = 0, bad = 0;
      const double* row = b + z * a_.ny * a_.nx;
      for (int64_t i = 0; i < a_.ny * a_.nx; ++i) {
        const double m = std::abs(row[i]);
        largest = m > largest ? m : largest;
        bad += m - m;  // 0, or nan when m is not finite
      }
      w_.sums[z] = {largest, bad};
    }
    double largest = 0, bad = 0;
    for (int64_t z = 0; z < planes; ++z) {
      largest = std::max(largest, w_.sums[z].a);
      bad += w_.sums[z].b;
    }
    return largest + bad;
  }

  // r = unit (b - A x); its norm.
  double residual(const double* b, const double* x) {
    return std::sqrt(rows([&](int64_t i, int64_t n) {
                       double* r = &w_.r[i];
                       const int64_t row = i / n;
                       apply_row(a_, form_, row / a_.ny, row % a_.ny, x, 1.0, r);
                       for (int64_t k = 0; k < n; ++k) r[k] = unit_ * (b[i + k] - r[k]);
                       return Sums{dot_row(r, r, n), 0};
                     }).a);
  }

  // q = scale A p;  (with . q, q . q)
  template <class T>
  Sums product(const T* p, double scale, double* q, const double* with) {
    return rows([&](int64_t i, int64_t n) {
      const int64_t row = i / n;
      apply_row(a_, form_, row / a_.ny, row % a_.ny, p, scale, q + i);
      return Sums{dot_row(with + i, q + i, n), dot_row(q + i, q + i, n)};
    });
  }

  // A segment of a vector to b of the finest level, and of x of the finest level to the natural order.
  template <class T>
  DGPDE_HD void import(int64_t y, int64_t g, int64_t z, const T* from, int64_t n, double scale) {
    Level<V>& l = m_.finest();
    alignas(64) Real row[kSegment];
    for (int64_t i = 0; i < n; ++i) row[i] = static_cast<Real>(scale * from[i]);
    for (int64_t i = n; i < kSegment && i < n + 2 * kLanes; ++i) row[i] = 0.0f;
    const int even = static_cast<int>(y & 1);
    for (int64_t k = 0; k < Level<V>::kGroup && g * Level<V>::kGroup + k < l.tiles; ++k) {
      const int64_t t = g * Level<V>::kGroup + k;
      V a, b;
      std::memcpy(&a, row + 2 * k * kLanes, sizeof(a));
      std::memcpy(&b, row + (2 * k + 1) * kLanes, sizeof(b));
      l.b[l.tile(even, y, t) + z] = even_lanes(a, b);
      l.b[l.tile(1 - even, y, t) + z] = odd_lanes(a, b);
    }
  }
  DGPDE_HD void fetch(int64_t y, int64_t g, int64_t z, Real* row) {
    Level<V>& l = m_.finest();
    const int even = static_cast<int>(y & 1);
    for (int64_t k = 0; k < Level<V>::kGroup && g * Level<V>::kGroup + k < l.tiles; ++k) {
      const int64_t t = g * Level<V>::kGroup + k;
      const V a = l.x[l.tile(even, y, t) + z], b = l.x[l.tile(1 - even, y, t) + z];
      const V low = interleave_low(a, b), high = interleave_high(a, b);
      std::memcpy(row + 2 * k * kLanes, &low, sizeof(low));
      std::memcpy(row + (2 * k + 1) * kLanes, &high, sizeof(high));
    }
  }

  // b . x of the finest level in float64
  double level_dot() {
    Level<V>& l = m_.finest();
    const int64_t items = 2 * l.ny, length = l.tiles * l.nz;
    if (w_.sums.size() < items) w_.sums.resize(items);
#pragma omp parallel for schedule(static) num_threads(o_.threads) if (o_.threads > 1)
    for (int64_t item = 0; item < items; ++item) {
      PackD low{}, high{};
      for (int64_t i = item * length; i < (item + 1) * length; ++i) {
        add_product(l.b[i], l.x[i], low, high);
      }
      w_.sums[item] = {sum_lanes(low + high), 0};
    }
    return total(items).a;
  }

  // The factor that brings the residual to norm 1 for the hierarchy, and the one that its answer takes.
  void set_scale(double norm) {
    int exponent;
    std::frexp(norm, &exponent);
    in_ = std::ldexp(1.0, -exponent);
    out_ = m_.scale() / in_;
  }

  void conjugate_gradients(double* x, double norm, double goal, int64_t& iterations) {
    Buffer<double>&p = w_.p, &q = w_.q, &r = w_.r;
    p.resize(a_.cells());
    q.resize(a_.cells());
    set_scale(norm);
    segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
      import(y, g, z, &r[i], n, in_);
      return Sums();
    });
    double rz = 0, alpha = 0;  // alpha p is still to be added to x
    for (bool first = true; norm > goal; first = false) {
      if (iterations >= o_.max_iterations) break;
      ++iterations;
      m_.cycle(o_.gamma, o_.threads);
      const double rz_new = level_dot() * out_ / in_, beta = first ? 0.0 : rz_new / rz;
      if (!(rz_new > 0)) {
        status_ = std::isfinite(rz_new) ? LinearStatus::breakdown : LinearStatus::not_finite;
        break;
      }
      rz = rz_new;
      segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
        alignas(64) Real row[kSegment];
        fetch(y, g, z, row);
        double *to = &p[i], *sum = x + i;
        if (first) {
          for (int64_t k = 0; k < n; ++k) to[k] = out_ * row[k];
        } else {
          const double add = alpha / unit_;
          for (int64_t k = 0; k < n; ++k) {
            sum[k] += add * to[k];
            to[k] = out_ * row[k] + beta * to[k];
          }
        }
        return Sums();
      });
      const double curvature = product(p.data(), 1.0, q.data(), p.data()).a;
      if (!(curvature > 0)) {
        status_ = std::isfinite(curvature) ? LinearStatus::breakdown : LinearStatus::not_finite;
        alpha = 0;
        break;
      }
      alpha = rz / curvature;
      set_scale(norm);
      norm = std::sqrt(segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
                         double* to = &r[i];
                         const double* from = &q[i];
                         for (int64_t k = 0; k < n; ++k) to[k] -= alpha * from[k];
                         import(y, g, z, to, n, in_);
                         return Sums{dot_row(to, to, n), 0};
                       }).a);
    }
    if (alpha != 0) {
      const double add = alpha / unit_;
      rows([&](int64_t i, int64_t n) {
        for (int64_t k = i; k < i + n; ++k) x[k] += add * p[k];
        return Sums();
      });
    }
  }

  // A z = V H with V orthonormal, each v with a scale of its own, z = M v, H in float64. In float32, rounding V costs an
  // iteration now and then, since the true residual is looked at before the end, and saves half the memory.
  void gmres(double* x, double norm, double goal, int64_t& iterations) {
    constexpr int m = Workspace<Real>::kRestart;
    // Directions rounded to float32 gain no more than this on the residual they began with; then a new one is better.
    if (sizeof(Real) == 4) goal = std::max(goal, 3e-9 * norm);
    double h[m][m + 2], cosine[m], sine[m], rhs[m + 1], unit_v[m + 1], unit_z[m];
    Buffer<double>&r = w_.r, &q = w_.q;
    q.resize(a_.cells());
    set_scale(norm);
    Real* v = next_basis(0);
    const double first = segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
                           for (int64_t k = 0; k < n; ++k) v[i + k] = static_cast<Real>(in_ * r[i + k]);
                           import(y, g, z, v + i, n, 1.0);
                           return Sums{dot_row(v + i, v + i, n), 0};
                         }).a;
    unit_v[0] = 1.0 / std::sqrt(first);
    rhs[0] = norm;
    int k = 0;
    // Vectors kept in float32 span no more than this of a reduction; from there on a restart goes on faster.
    const double enough = sizeof(Real) == 4 ? std::max(goal, 1e-6 * norm) : goal;
    for (; k < m && norm > enough && iterations < o_.max_iterations; ++k) {
      ++iterations;
      m_.cycle(o_.gamma, o_.threads);
      unit_z[k] = unit_v[k] * m_.scale();
      Real* direction = next_direction(k);
      segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
        alignas(64) Real row[kSegment];
        fetch(y, g, z, row);
        std::memcpy(direction + i, row, static_cast<size_t>(n) * sizeof(Real));
        return Sums();
      });
      const double whole = orthogonal_parts(direction, unit_z[k], k, h[k]);  // h[k][j] = (stored v_j) . A z
      double rest = whole;
      for (int j = 0; j <= k; ++j) {
        h[k][j] *= unit_v[j];
        rest -= h[k][j] * h[k][j];
      }
      if (!std::isfinite(rest)) {
        status_ = LinearStatus::not_finite;
        return;
      }
      set_scale(std::sqrt(rest > 1e-4 * whole ? rest : whole));
      Real* next = next_basis(k + 1);
      const Sums left = subtract(next, k, h[k], unit_v);
      const double length = h[k][k + 1] = std::sqrt(left.a);
      unit_v[k + 1] = 1.0 / std::sqrt(left.b);  // of the rounded vector: else rounding would stay in all that follows
      for (int j = 0; j < k; ++j) {
        const double a = h[k][j], b = h[k][j + 1];
        h[k][j] = cosine[j] * a + sine[j] * b;
        h[k][j + 1] = cosine[j] * b - sine[j] * a;
      }
      const double size = std::hypot(h[k][k], h[k][k + 1]);
      if (!(size > 0)) {  // A z lies in the space that is there already: the matrix is singular on it
        status_ = LinearStatus::breakdown;
        break;
      }
      cosine[k] = h[k][k] / size;
      sine[k] = h[k][k + 1] / size;
      h[k][k] = size;
      rhs[k + 1] = -sine[k] * rhs[k];
      rhs[k] *= cosine[k];
      norm = std::abs(rhs[k + 1]);
      if (length == 0) {
        ++k;
        break;
      }
    }
    for (int i = k - 1; i >= 0; --i) {
      for (int j = i + 1; j < k; ++j) rhs[i] -= h[j][i] * rhs[j];
      rhs[i] /= h[i][i];
    }
    for (int j = 0; j < k; ++j) rhs[j] *= unit_z[j] / unit_;
    rows([&](int64_t i, int64_t n) {
      for (int j = 0; j < k; ++j) {
        const Real* z = w_.direction[j].data();
        for (int64_t c = i; c < i + n; ++c) x[c] += rhs[j] * z[c];
      }
      return Sums();
    });
  }

  Real* next_basis(int k) {
    w_.basis[k].resize(a_.cells());
    return w_.basis[k].data();
  }
  Real* next_direction(int k) {
    w_.direction[k].resize(a_.cells());
    return w_.direction[k].data();
  }

  // q = scale A z, its products with the stored v_0 .. v_k, and q . q.
  double orthogonal_parts(const Real* z, double scale, int last, double* products) {
    const int64_t count = a_.nz * a_.ny, step = std::max<int64_t>(1, kBlock / a_.nx),
                  items = (count + step - 1) / step;
    constexpr int64_t width = Workspace<Real>::kRestart + 2;
    if (w_.dots.size() < items * width) w_.dots.resize(items * width);
#pragma omp parallel for schedule(static) num_threads(o_.threads) if (o_.threads > 1 && items > 3)
    for (int64_t item = 0; item < items; ++item) {
      double sums[width] = {};
      for (int64_t row = item * step; row < count && row < (item + 1) * step; ++row) {
        const int64_t i = row * a_.nx;
        double* q = &w_.q[i];
        apply_row(a_, form_, row / a_.ny, row % a_.ny, z, scale, q);
        for (int j = 0; j <= last; ++j) sums[j] += dot_row(&w_.basis[j][i], q, a_.nx);
        sums[last + 1] += dot_row(q, q, a_.nx);
      }
      for (int j = 0; j <= last + 1; ++j) w_.dots[item * width + j] = sums[j];
    }
    double whole = 0;
    for (int j = 0; j <= last; ++j) products[j] = 0;
    for (int64_t item = 0; item < items; ++item) {
      for (int j = 0; j <= last; ++j) products[j] += w_.dots[item * width + j];
      whole += w_.dots[item * width + last + 1];
    }
    return whole;
  }

  // q -= sum of h_j v_j; stored as the next v, handed to the finest level; the squares of q and of what was stored.
  Sums subtract(Real* next, int last, const double* h, const double* unit_v) {
    return segments([&](int64_t y, int64_t g, int64_t z, int64_t i, int64_t n) {
      double* q = &w_.q[i];
      for (int j = 0; j <= last; ++j) {
        const Real* v = &w_.basis[j][i];
        const double factor = h[j] * unit_v[j];
        for (int64_t c = 0; c < n; ++c) q[c] -= factor * v[c];
      }
      for (int64_t c = 0; c < n; ++c) next[i + c] = static_cast<Real>(in_ * q[c]);
      import(y, g, z, next + i, n, 1.0);
      return Sums{dot_row(q, q, n), dot_row(next + i, next + i, n)};
    });
  }

  Stencil a_;
  Form form_;
  Hierarchy<V>& m_;
  Workspace<Real>& w_;
  LinearOptions o_;
  LinearStatus status_ = LinearStatus::converged;
  double unit_ = 1, in_ = 1, out_ = 1;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
