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
  double weak = 0, cells = 0;  // sum over the coupled cells of 1 / (lateral couplings + excess), and their number
  bool sound = true;           // every pivot finite and not zero

  double contrast() const { return cells > 0 ? (along_y + along_x) / cells * (weak / cells) : 0.0; }
};

template <class V>
class Hierarchy {
  using Real = RealOf<V>;
  static constexpr int kLanes = Lane<V>::width;

 public:
  static constexpr int kMaxLevels = 64;
  static constexpr double kAdaptive =
      4.0;  // a direction joins when its mean coupling is within this factor of the other's
  static constexpr double kWeak = 0.01;  // lateral couplings below this part of the excess need no coarse level

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
      if (count_ == 1) contrast_ = found.contrast();
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
  // The arithmetic mean of the cells' lateral couplings over the harmonic mean of lateral couplings and excess.
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
      work.resize(kRows * a.nx + 2 * kLanes);
#pragma omp for schedule(static)
      for (int64_t y = 0; y < a.ny; ++y) rows[y] = fill_row(a, form, l, y, work.data());
    }
    Couplings sum;
    for (int64_t y = 0; y < a.ny; ++y) {
      sum.along_y += rows[y].along_y;
      sum.along_x += rows[y].along_x;
      sum.excess += rows[y].excess;
      sum.weak += rows[y].weak;
      sum.cells += rows[y].cells;
      sum.sound = sum.sound && rows[y].sound;
    }
    return sum;
  }

  static constexpr int kRows = 12;  // rows of work space for fill_row

  // Elementwise in x, so that it vectorises; sums over a row are made at the end.
  Couplings fill_row(const Stencil& a, Form form, Level<V>& l, int64_t y, double* work) const {
    const int64_t nx = a.nx;
    for (int64_t i = 0; i < kRows * nx + 2 * kLanes; ++i) work[i] = 0;
    double *inverse = work, *upper = inverse + nx, *lower = upper + nx, *west = lower + nx, *east = west + nx;
    double *along_y = east + nx, *along_x = along_y + nx, *excess = along_x + nx;
    double *weak = excess + nx, *cells = weak + nx, *unsound = cells + nx;
    Real* row = reinterpret_cast<Real*>(unsound + nx);  // nx numbers and the rest of their packs
    for (int64_t z = 0; z < a.nz; ++z) {
      const StencilRow c(a, form, z, y);
      for (int64_t x = 1; x < nx; ++x) west[x] = c.west[x];
      for (int64_t x = 0; x < nx - 1; ++x) east[x] = c.east[x];
#pragma GCC ivdep
      for (int64_t x = 0; x < nx; ++x) {
        const double pivot = c.diag[x] - c.below[x] * upper[x];
        lower[x] = c.below[x] * inverse[x];
        unsound[x] += pivot != 0 && pivot - pivot == 0 ? 0.0 : 1.0;
        inverse[x] = 1.0 / pivot;
        upper[x] = c.above[x] * inverse[x];
      }
#pragma GCC ivdep
      for (int64_t x = 0; x < nx; ++x) {
        const double y_part = std::abs(c.south[x]) + std::abs(c.north[x]);
        const double x_part = std::abs(west[x]) + std::abs(east[x]), lateral = y_part + x_part;
        const double on = lateral + std::abs(c.below[x]) + std::abs(c.above[x]) != 0 ? 1.0 : 0.0;
        const double sum =
            on * (c.diag[x] + ((c.below[x] + c.above[x]) + (c.south[x] + c.north[x]) + (west[x] + east[x])));
        const double stiffness = lateral + std::abs(sum);
        along_y[x] += y_part;
        along_x[x] += x_part;
        excess[x] += sum;
        weak[x] += stiffness != 0 ? 1.0 / stiffness : 0.0;
        cells[x] += on;
      }
      V* f = &l.factor[l.tile(0, y, 0) + z].lower;
      V* s = &l.lateral[l.tile(0, y, 0) + z].south;
      store(l, y, lower, 1.0, row, f, 3);
      store(l, y, inverse, 1.0 / scale_, row, f + 1, 3);
      store(l, y, upper, 1.0, row, f + 2, 3);
      store(l, y, c.south, scale_, row, s, 4);
      store(l, y, c.north, scale_, row, s + 1, 4);
      store(l, y, west, scale_, row, s + 2, 4);
      store(l, y, east, scale_, row, s + 3, 4);
    }
    Couplings sum;
    for (int64_t x = 0; x < nx; ++x) {
      sum.along_y += along_y[x];
      sum.along_x += along_x[x];
      sum.excess += excess[x];
      sum.weak += weak[x];
      sum.cells += cells[x];
      sum.sound = sum.sound && unsound[x] == 0;
    }
    return sum;
  }

  // A row of x into the packs of its two colours; `to` is that of colour 0, and packs of neighbouring z are `step` apart.
  void store(const Level<V>& l, int64_t y, const double* from, double factor, Real* row, V* to, int64_t step) const {
    for (int64_t x = 0; x < l.nx; ++x) row[x] = static_cast<Real>(factor * from[x]);
    const int64_t tile = l.nz * step, colour = l.packs() * step;
    V *even = to + (y & 1) * colour, *odd = to + (1 - (y & 1)) * colour;
    for (int64_t t = 0; t < l.tiles; ++t) {
      V a, b;
      std::memcpy(&a, row + 2 * t * kLanes, sizeof(V));
      std::memcpy(&b, row + (2 * t + 1) * kLanes, sizeof(V));
      even[t * tile] = even_lanes(a, b);
      odd[t * tile] = odd_lanes(a, b);
    }
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
      Buffer<double> work;
      work.resize(Coarsening::kRows * from.fine_nx());
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; ++row) {
        double* p = to + row * shape.nx;
        from.row(row / shape.ny, row % shape.ny, {p, p + n, p + 2 * n, p + 3 * n, p + 4 * n, p + 5 * n, p + 6 * n},
                 work.data());
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
