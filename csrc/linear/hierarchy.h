// The preconditioner: z-line Gauss-Seidel in checkerboard order on every level, coarsening along x and y only, down to one column.
// Built in float64, stored and applied in the lanes of V, float32 or float64. dgpde/linear/README.md has the method and its sources.
#pragma once

#include <memory>

#include "coarsen.h"
#include "level.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// What decides how a level is coarsened.
struct Couplings {
  double along_y = 0, along_x = 0;  // sums of the magnitudes of the lateral couplings
  double excess = 0;                // sum of the rows: time term and boundaries
  double strongest = 0;             // largest sum of lateral couplings of a cell
  double weak = 0, cells = 0;  // sum over the coupled cells of 1 / (lateral couplings + excess), and their number
  bool sound = true;           // every pivot finite and not zero
};

template <class V>
class Hierarchy {
  using Real = RealOf<V>;
  static constexpr int kLanes = Lane<V>::width;

 public:
  static constexpr int kMaxLevels = 64;
  static constexpr double kAdaptive =
      4.0;  // a direction joins when its mean coupling is within this factor of the other's
  static constexpr double kWeak = 0.01; // lateral couplings below this part of the excess need no coarse level

  // False when a line has a zero or non-finite pivot.
  bool build(const StencilData& matrix, Form form, int threads) {
    Stencil a = Stencil::of(matrix.coefficients, matrix.nz, matrix.ny, matrix.nx);
    Widths wy, wx;
    wy.ones(a.ny);
    wx.ones(a.nx);
    scale_ = power_of_two(a, threads);
    if (!(scale_ > 0)) return false;
    count_ = 0;
    Buffer<double> store[2];
    for (int which = 0;; which = 1 - which) {
      if (!levels_[count_]) levels_[count_] = std::make_unique<Level<V>>();
      Level<V>& l = *levels_[count_++];
      l.shape(a.nz, a.ny, a.nx);
      l.fy = l.fx = 1;
      const Couplings found = fill(a, form, l, threads);
      if (!found.sound) return false;
      if (count_ == 1) contrast_ = found.cells > 0 ? found.strongest * found.weak / found.cells : 0.0;
      choose(found, l);
      if (l.fy == 1 && l.fx == 1) break;
      Widths cy, cx;
      cy.join(wy, l.fy);
      cx.join(wx, l.fx);
      store[which].resize(7 * a.nz * cy.n * cx.n);
      const Stencil coarse = Stencil::of(store[which].data(), a.nz, cy.n, cx.n);
      coarsen(Coarsening(a, form, l.fy, l.fx, wy, wx, cy, cx), store[which].data(), coarse, threads);
      a = coarse;
      form = Form::plain;
      wy.join(cy, 1);
      wx.join(cx, 1);
    }
    for (int k = count_; k < kMaxLevels; ++k) levels_[k].reset();
    return true;
  }

  Level<V>& finest() { return *levels_[0]; }
  double scale() const { return scale_; }  // the levels hold scale * A, so x = scale * (what a cycle returns)
  int levels() const { return count_; }
  // The largest lateral stiffness of a cell over the harmonic mean of lateral stiffness and excess.
  double contrast() const { return contrast_; }
  int64_t bytes() const {
    int64_t sum = scratch_.bytes();
    for (const auto& l : levels_) sum += l ? l->bytes() : 0;
    return sum;
  }

  // x of the finest level = (preconditioner) b of the finest level.
  void cycle(int gamma, int threads) {
    gamma_ = gamma;
    cycle<true>(0, threads);
  }

 private:
  static double power_of_two(const Stencil& a, int threads) {
    Buffer<double> largest;
    largest.resize(a.nz);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t z = 0; z < a.nz; ++z) {
      double m = 0;
      const double* d = a.diag + z * a.ny * a.nx;
      for (int64_t i = 0; i < a.ny * a.nx; ++i) m = std::abs(d[i]) > m ? std::abs(d[i]) : m;
      largest[z] = m;
    }
    double m = 0;
    for (int64_t z = 0; z < a.nz; ++z) m = largest[z] > m ? largest[z] : m;
    if (!(m > 0) || !std::isfinite(m)) return 0;
    int exponent;
    std::frexp(m, &exponent);
    return std::ldexp(1.0, -exponent);
  }

  // Factors and lateral couplings of a level.
  Couplings fill(const Stencil& a, Form form, Level<V>& l, int threads) const {
    Buffer<Couplings> rows;
    rows.resize(a.ny);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      Buffer<double> work;
      work.resize(4 * a.nx);
#pragma omp for schedule(static)
      for (int64_t y = 0; y < a.ny; ++y) rows[y] = fill_row(a, form, l, y, work.data());
    }
    Couplings sum;
    for (int64_t y = 0; y < a.ny; ++y) {
      sum.along_y += rows[y].along_y;
      sum.along_x += rows[y].along_x;
      sum.excess += rows[y].excess;
      sum.strongest = std::max(sum.strongest, rows[y].strongest);
      sum.weak += rows[y].weak;
      sum.cells += rows[y].cells;
      sum.sound = sum.sound && rows[y].sound;
    }
    return sum;
  }

  Couplings fill_row(const Stencil& a, Form form, Level<V>& l, int64_t y, double* work) const {
    const int64_t nx = a.nx;
    double *inverse = work, *upper = work + nx, *lower = work + 2 * nx, *edge = work + 3 * nx;
    for (int64_t x = 0; x < nx; ++x) inverse[x] = upper[x] = 0;
    Couplings sum;
    bool sound = true;
    for (int64_t z = 0; z < a.nz; ++z) {
      const StencilRow c(a, form, z, y);
      double along_y = 0, along_x = 0, excess = 0, strongest = 0, weak = 0, cells = 0;
      for (int64_t x = 0; x < nx; ++x) {
        const double pivot = c.diag[x] - c.below[x] * upper[x];
        lower[x] = c.below[x] * inverse[x];
        sound &= pivot != 0 && pivot - pivot == 0;
        inverse[x] = 1.0 / pivot;
        upper[x] = c.above[x] * inverse[x];
      }
      for (int64_t x = 0; x < nx; ++x) {
        const double w = x > 0 ? c.west[x] : 0.0, e = x < nx - 1 ? c.east[x] : 0.0;
        const double y_part = std::abs(c.south[x]) + std::abs(c.north[x]), x_part = std::abs(w) + std::abs(e);
        const double lateral = y_part + x_part, vertical = std::abs(c.below[x]) + std::abs(c.above[x]);
        const bool coupled = lateral + vertical != 0;
        const double row = coupled ? c.diag[x] + c.below[x] + c.above[x] + c.south[x] + c.north[x] + w + e : 0.0;
        along_y += y_part;
        along_x += x_part;
        excess += row;
        strongest = lateral > strongest ? lateral : strongest;
        const double stiffness = lateral + std::abs(row);
        weak += stiffness != 0 ? 1.0 / stiffness : 0.0;
        cells += coupled ? 1.0 : 0.0;
      }
      sum.along_y += along_y;
      sum.along_x += along_x;
      sum.excess += excess;
      sum.strongest = std::max(sum.strongest, strongest);
      sum.weak += weak;
      sum.cells += cells;
      const auto store = [&](const double* from, double factor, V* at, int64_t stride, int parity) {
        const int64_t n = l.columns(parity);
        for (int64_t t = 0; t < l.tiles; ++t) {
          Real lane[kLanes] = {};
          const int64_t first = t * kLanes;
          if (first + kLanes <= n)
            for (int k = 0; k < kLanes; ++k) lane[k] = static_cast<Real>(factor * from[2 * (first + k) + parity]);
          else
            for (int64_t k = 0; first + k < n; ++k)
              lane[k] = static_cast<Real>(factor * from[2 * (first + k) + parity]);
          std::memcpy(at + t * l.nz * stride, lane, sizeof(V));
        }
      };
      for (int parity = 0; parity < 2; ++parity) {
        const int colour = static_cast<int>((y + parity) & 1);
        const int64_t first = l.tile(colour, y, 0) + z;
        V* f = &l.factor[first].lower;
        store(lower, 1.0, f, 3, parity);
        store(inverse, 1.0 / scale_, f + 1, 3, parity);
        store(upper, 1.0, f + 2, 3, parity);
        V* s = &l.lateral[first].south;
        store(c.south, scale_, s, 4, parity);
        store(c.north, scale_, s + 1, 4, parity);
        edge[0] = 0;
        for (int64_t x = 1; x < nx; ++x) edge[x] = c.west[x];
        store(edge, scale_, s + 2, 4, parity);
        for (int64_t x = 0; x < nx - 1; ++x) edge[x] = c.east[x];
        edge[nx - 1] = 0;
        store(edge, scale_, s + 3, 4, parity);
      }
    }
    sum.sound = sound;
    return sum;
  }

  static void choose(const Couplings& found, Level<V>& l) {
    const double all = found.along_y + found.along_x;
    if (all == 0 || all < kWeak * found.excess) return;
    const double y = l.ny > 1 ? found.along_y / (static_cast<double>(l.ny - 1) * l.nx) : 0.0;
    const double x = l.nx > 1 ? found.along_x / (static_cast<double>(l.nx - 1) * l.ny) : 0.0;
    l.fy = y > 0 && kAdaptive * y >= x ? 2 : 1;
    l.fx = x > 0 && kAdaptive * x >= y ? 2 : 1;
  }

  static void coarsen(const Coarsening& from, double* to, const Stencil& shape, int threads) {
    const int64_t n = shape.cells(), rows = shape.nz * shape.ny;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      Buffer<uint8_t> used;
      used.resize(shape.nx);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; ++row) {
        double* p = to + row * shape.nx;
        from.row(row / shape.ny, row % shape.ny,
                 {p, p + n, p + 2 * n, p + 3 * n, p + 4 * n, p + 5 * n, p + 6 * n, used.data()});
      }
    }
  }

  // kZero: the first guess is zero, else it stands in x.
  template <bool kZero>
  void cycle(int k, int threads) {
    Level<V>& l = *levels_[k];
    if (l.cells() < kThreadedCells) threads = 1;
    if (kZero) {
      solve_alone(l, 0, threads);
    } else if (k + 1 < count_) {
      l.before.resize(l.packs());
      solve_lines<true>(l, 0, threads);
    } else {
      solve_lines<false>(l, 0, threads);
    }
    if (l.ny * l.nx == 1) return;
    solve_lines<false>(l, 1, threads);
    if (k + 1 < count_) {
      Level<V>& coarse = *levels_[k + 1];
      restrict_residual<kZero>(l, coarse, scratch_, threads);
      cycle<true>(k + 1, threads);
      for (int visit = 1; visit < gamma_ && k + 2 < count_; ++visit) cycle<false>(k + 1, threads);
      prolong(l, coarse, threads);
      solve_lines<false>(l, 1, threads);
    }
    solve_lines<false>(l, 0, threads);
  }

  static constexpr int64_t kThreadedCells = 20000;  // below it the start of the threads costs more than they save

  std::unique_ptr<Level<V>> levels_[kMaxLevels];
  Buffer<V> scratch_;
  double scale_ = 1, contrast_ = 0;
  int count_ = 0, gamma_ = 1;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
