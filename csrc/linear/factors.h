// Incomplete factors of a 7-point matrix on its own pattern, M = (D + L) D^-1 (D + U) with the lower and upper parts of A
// and D chosen so that M has the diagonal of A. D of the transpose is the same, so one array serves both.
//
// Cells are taken in the order of memory: what flows up, north or east is solved exactly by the first sweep, what flows
// the other way by the second. A row along x needs the rows below and south of it, so that threads take the rows (z, y) of
// one z + y together; each row's numbers are the same in any order of the rows.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmath>

#include "stencil.h"

namespace dgpde {
inline namespace DGPDE_ISA {

class Factors {
 public:
  // False when a pivot is not positive and finite.
  bool build(const Stencil& a, int threads) {
    a_ = a;
    inverse_.resize(a.cells());
    rows_.resize(2 * a.nx * std::max(threads, 1));
    bool good = true;
    const Form form = Form::plain;
    sweep(false, 1, [&](int64_t z, int64_t y, double*) {
      const int64_t i = z * a_.ny * a_.nx + y * a_.nx, plane = a_.ny * a_.nx;
      const StencilRow c(a_, form, z, y), t(a_, Form::transposed, z, y);
      double* inv = &inverse_[i];
      for (int64_t x = 0; x < a_.nx; ++x) {
        double d = c.diag[x];
        if (z > 0) d -= c.below[x] * t.below[x] * inv[x - plane];
        if (y > 0) d -= c.south[x] * t.south[x] * inv[x - a_.nx];
        if (x > 0) d -= c.west[x] * t.west[x] * inv[x - 1];
        good = good && d > 0.0 && std::isfinite(d);
        inv[x] = 1.0 / d;
      }
    });
    return good;
  }

  // z = M^-1 r, or with the transpose; they may be the same.
  void solve(const double* r, double* z, bool transposed, int threads) {
    const Form form = transposed ? Form::transposed : Form::plain;
    const int64_t plane = a_.ny * a_.nx, nx = a_.nx;
    if (rows_.size() < 2 * nx * threads) rows_.resize(2 * nx * threads);
    sweep(false, threads, [&](int64_t k, int64_t j, double* work) {
      const int64_t i = k * plane + j * nx;
      const StencilRow c(a_, form, k, j);
      const double *below = k > 0 ? z + i - plane : nullptr, *south = j > 0 ? z + i - nx : nullptr;
      const double *inv = &inverse_[i], *from = r + i;
      double *known = work, *west = work + nx, *to = z + i;
      for (int64_t x = 0; x < nx; ++x) known[x] = from[x];
      if (below)
        for (int64_t x = 0; x < nx; ++x) known[x] -= c.below[x] * below[x];
      if (south)
        for (int64_t x = 0; x < nx; ++x) known[x] -= c.south[x] * south[x];
      for (int64_t x = 0; x < nx; ++x) known[x] *= inv[x];
      for (int64_t x = 1; x < nx; ++x) west[x] = inv[x] * c.west[x];
      double last = to[0] = known[0];
      for (int64_t x = 1; x < nx; ++x) to[x] = last = known[x] - west[x] * last;
    });
    sweep(true, threads, [&](int64_t k, int64_t j, double* work) {
      const int64_t i = k * plane + j * nx;
      const StencilRow c(a_, form, k, j);
      const double *above = k + 1 < a_.nz ? z + i + plane : nullptr, *north = j + 1 < a_.ny ? z + i + nx : nullptr;
      const double* inv = &inverse_[i];
      double *known = work, *east = work + nx, *to = z + i;
      for (int64_t x = 0; x < nx; ++x) known[x] = 0.0;
      if (above)
        for (int64_t x = 0; x < nx; ++x) known[x] += c.above[x] * above[x];
      if (north)
        for (int64_t x = 0; x < nx; ++x) known[x] += c.north[x] * north[x];
      for (int64_t x = 0; x < nx; ++x) known[x] = to[x] - inv[x] * known[x];
      for (int64_t x = 0; x + 1 < nx; ++x) east[x] = inv[x] * c.east[x];
      double last = to[nx - 1] = known[nx - 1];
      for (int64_t x = nx - 2; x >= 0; --x) to[x] = last = known[x] - east[x] * last;
    });
  }

  int64_t bytes() const { return inverse_.bytes() + rows_.bytes(); }

 private:
  // work(z, y, scratch [2 nx]) for all rows, each after those below and south of it, or in the opposite order.
  template <class Work>
  void sweep(bool backward, int threads, const Work& work) {
    if (threads <= 1) {
      const int64_t count = a_.nz * a_.ny;
      for (int64_t n = 0; n < count; ++n) {
        const int64_t row = backward ? count - 1 - n : n;
        work(row / a_.ny, row % a_.ny, rows_.data());
      }
      return;
    }
#pragma omp parallel num_threads(threads)
    {
      double* scratch = rows_.data() + 2 * a_.nx * thread();
      for (int64_t n = 0; n < a_.nz + a_.ny - 1; ++n) {
        const int64_t sum = backward ? a_.nz + a_.ny - 2 - n : n;
        const int64_t first = std::max<int64_t>(0, sum - a_.ny + 1), last = std::min(a_.nz - 1, sum);
#pragma omp for schedule(static)
        for (int64_t z = first; z <= last; ++z) work(z, sum - z, scratch);
      }
    }
  }
  static int thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
  }

  Stencil a_{};
  Buffer<double> inverse_, rows_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
