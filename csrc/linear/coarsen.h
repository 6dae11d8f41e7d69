// Galerkin operators of the coarser levels, in float64: sums over aggregates of 1 or 2 columns along x and along y, never along z.
//
// With piecewise constant transfers the sums stay 7-point, but a coupling between two aggregates is as strong as between two
// cells at half their distance. So for a face between aggregates with the couplings -a (row i to j) and -b (row j to
// i), d = rho min(a, b) is taken off both couplings and both diagonals, rho = 1 - distance of the cells / distance of the
// aggregates (1/2 on a regular grid): row and column sums stay, and so does the non-symmetric (upwind) part. The
// transpose of the coarse operator is the coarse operator of the transpose.
//
// A cell whose row or whose column has no coupling at all (inactive, isolated, held at a value) is solved exactly by its line
// solve and takes no part; an aggregate of such cells gets the row 1 of an inactive cell.
#pragma once

#include <cmath>
#include <initializer_list>

#include "stencil.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Widths of the columns of a level in units of the finest, so that ends of odd lengths get their true distances.
struct Widths {
  Buffer<double> w;
  int64_t n = 0;
  void ones(int64_t count) {
    w.resize(n = count);
    for (int64_t i = 0; i < n; ++i) w[i] = 1.0;
  }
  void join(const Widths& fine, int step) {
    n = (fine.n + step - 1) / step;
    w.resize(n);
    for (int64_t i = 0; i < n; ++i) {
      w[i] = fine.w[step * i];
      if (step == 2 && 2 * i + 1 < fine.n) w[i] += fine.w[2 * i + 1];
    }
  }
  // rho of the face between i and i + 1 of the fine level, which lies between two aggregates
  double rho(const Widths& coarse, int step, int64_t i) const {
    const int64_t I = i / step;
    return 1.0 - (w[i] + w[i + 1]) / (coarse.w[I] + coarse.w[I + 1]);
  }
};

DGPDE_HD double weaker(double a, double b) {
  const double p = a < 0 ? -a : 0.0, q = b < 0 ? -b : 0.0;
  return p < q ? p : q;
}

// A row of the coarse operator, and whether a cell of the fine level takes part in each aggregate.
struct CoarseRow {
  double *diag, *below, *above, *south, *north, *west, *east;
  uint8_t* used;
};

class Coarsening {
 public:
  Coarsening(const Stencil& fine, Form form, int fy, int fx, const Widths& wy, const Widths& wx,
             const Widths& coarse_y, const Widths& coarse_x)
      : a_(fine), form_(form), fy_(fy), fx_(fx), wy_(wy), wx_(wx), cy_(coarse_y), cx_(coarse_x) {}

  // Row (z, Y) of the coarse operator from the fine rows (z, fy Y) and (z, fy Y + 1).
  void row(int64_t z, int64_t Y, const CoarseRow& out) const {
    const int64_t nX = (a_.nx + fx_ - 1) / fx_;
    for (double* p : {out.diag, out.below, out.above, out.south, out.north, out.west, out.east})
      for (int64_t X = 0; X < nX; ++X) p[X] = 0.0;
    for (int64_t X = 0; X < nX; ++X) out.used[X] = 0;
    for (int64_t y = fy_ * Y; y < fy_ * (Y + 1) && y < a_.ny; ++y) add(z, y, out);
    for (int64_t X = 0; X < nX; ++X)
      if (!out.used[X]) out.diag[X] = 1.0;
  }

 private:
  void add(int64_t z, int64_t y, const CoarseRow& out) const {
    // c: couplings in the rows of the cells; back: in the rows of their neighbours, which are the columns of the cells
    const StencilRow c(a_, form_, z, y);
    const Form other = form_ == Form::plain ? Form::transposed : form_ == Form::transposed ? Form::plain : form_;
    const StencilRow back(a_, other, z, y);
    const bool south_inside = fy_ == 2 && (y & 1), north_inside = fy_ == 2 && !(y & 1) && y + 1 < a_.ny;
    const double rho_s = fy_ == 2 && y > 0 && !south_inside ? wy_.rho(cy_, fy_, y - 1) : 0.0;
    const double rho_n = fy_ == 2 && y < a_.ny - 1 && !north_inside ? wy_.rho(cy_, fy_, y) : 0.0;
    const int64_t nx = a_.nx;
    for (int64_t x = 0; x < nx; ++x) {
      const double w = x > 0 ? c.west[x] : 0.0, e = x < nx - 1 ? c.east[x] : 0.0;
      const double back_w = x > 0 ? back.west[x] : 0.0, back_e = x < nx - 1 ? back.east[x] : 0.0;
      const bool row = c.below[x] != 0 || c.above[x] != 0 || c.south[x] != 0 || c.north[x] != 0 || w != 0 || e != 0;
      const bool column = back.below[x] != 0 || back.above[x] != 0 || back.south[x] != 0 || back.north[x] != 0 ||
                          back_w != 0 || back_e != 0;
      if (!row || !column) continue;
      const int64_t X = x / fx_;
      double diag = c.diag[x];
      out.below[X] += c.below[x];
      out.above[X] += c.above[x];
      if (south_inside) {
        diag += c.south[x];
      } else {
        const double d = rho_s * weaker(c.south[x], back.south[x]);
        out.south[X] += c.south[x] + d;
        diag -= d;
      }
      if (north_inside) {
        diag += c.north[x];
      } else {
        const double d = rho_n * weaker(c.north[x], back.north[x]);
        out.north[X] += c.north[x] + d;
        diag -= d;
      }
      if (fx_ == 2 && (x & 1)) {
        diag += w;
      } else {
        const double d = fx_ == 2 && x > 0 ? wx_.rho(cx_, fx_, x - 1) * weaker(w, back_w) : 0.0;
        out.west[X] += w + d;
        diag -= d;
      }
      if (fx_ == 2 && !(x & 1) && x + 1 < nx) {
        diag += e;
      } else {
        const double d = fx_ == 2 && x < nx - 1 ? wx_.rho(cx_, fx_, x) * weaker(e, back_e) : 0.0;
        out.east[X] += e + d;
        diag -= d;
      }
      out.diag[X] += diag;
      out.used[X] = 1;
    }
  }

  const Stencil& a_;
  Form form_;
  int fy_, fx_;
  const Widths &wy_, &wx_, &cy_, &cx_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
