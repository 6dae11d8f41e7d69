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

struct CoarseRow {
  double *diag, *below, *above, *south, *north, *west, *east;
};

// The work on a row is elementwise in x, so that it vectorises: contributions of the fine cells are summed in rows of the fine
// length, which are added up pairwise at the end.
class Coarsening {
 public:
  static constexpr int kRows = 8;  // rows of the fine length that a thread needs as work space

  Coarsening(const Stencil& fine, Form form, int fy, int fx, const Widths& wy, const Widths& wx,
             const Widths& coarse_y, const Widths& coarse_x)
      : a_(fine), form_(form), fy_(fy), fx_(fx), wy_(wy), cy_(coarse_y) {
    along_x_.resize(4 * a_.nx);
    double *inside_w = &along_x_[0], *inside_e = inside_w + a_.nx, *rho_w = inside_e + a_.nx, *rho_e = rho_w + a_.nx;
    for (int64_t x = 0; x < a_.nx; ++x) {
      const bool west = fx == 2 && (x & 1), east = fx == 2 && !(x & 1) && x + 1 < a_.nx;
      inside_w[x] = west ? 1.0 : 0.0;
      inside_e[x] = east ? 1.0 : 0.0;
      rho_w[x] = fx == 2 && x > 0 && !west ? wx.rho(coarse_x, fx, x - 1) : 0.0;
      rho_e[x] = fx == 2 && x + 1 < a_.nx && !east ? wx.rho(coarse_x, fx, x) : 0.0;
    }
  }

  int64_t fine_nx() const { return a_.nx; }

  // Row (z, Y) of the coarse operator from the fine rows (z, fy Y) and (z, fy Y + 1).
  void row(int64_t z, int64_t Y, const CoarseRow& out, double* work) const {
    const int64_t nx = a_.nx, nX = (nx + fx_ - 1) / fx_;
    for (int64_t i = 0; i < kRows * nx; ++i) work[i] = 0.0;
    for (int64_t y = fy_ * Y; y < fy_ * (Y + 1) && y < a_.ny; ++y) add(z, y, work);
    double* const to[7] = {out.diag, out.below, out.above, out.south, out.north, out.west, out.east};
    for (int k = 0; k < 7; ++k) join(work + k * nx, to[k], nX);
    double* used = work + 7 * nx;
    join(used, used, nX);
    for (int64_t X = 0; X < nX; ++X)
      if (used[X] == 0) out.diag[X] = 1.0;
  }

 private:
  void join(const double* from, double* to, int64_t nX) const {
    if (fx_ == 1) {
      for (int64_t X = 0; X < nX; ++X) to[X] = from[X];
      return;
    }
    const int64_t pairs = a_.nx / 2;
    for (int64_t X = 0; X < pairs; ++X) to[X] = from[2 * X] + from[2 * X + 1];
    if (pairs < nX) to[pairs] = from[2 * pairs];
  }

  void add(int64_t z, int64_t y, double* work) const {
    // c: couplings in the rows of the cells; back: in the rows of their neighbours, which are the columns of the cells
    const StencilRow c(a_, form_, z, y);
    const Form other = form_ == Form::plain ? Form::transposed : form_ == Form::transposed ? Form::plain : form_;
    const StencilRow back(a_, other, z, y);
    const bool south_inside = fy_ == 2 && (y & 1), north_inside = fy_ == 2 && !(y & 1) && y + 1 < a_.ny;
    const double in_s = south_inside ? 1.0 : 0.0, in_n = north_inside ? 1.0 : 0.0;
    const double rho_s = fy_ == 2 && y > 0 && !south_inside ? wy_.rho(cy_, fy_, y - 1) : 0.0;
    const double rho_n = fy_ == 2 && y + 1 < a_.ny && !north_inside ? wy_.rho(cy_, fy_, y) : 0.0;
    const int64_t nx = a_.nx;
    const double *inside_w = &along_x_[0], *inside_e = inside_w + nx, *rho_w = inside_e + nx, *rho_e = rho_w + nx;
    double *diag = work, *below = diag + nx, *above = below + nx, *south = above + nx, *north = south + nx,
           *west = north + nx, *east = west + nx, *used = east + nx;
    const auto cell = [&](int64_t x, double w, double e, double back_w,
                          double back_e) __attribute__((always_inline)) {
      const double row = std::abs(c.below[x]) + std::abs(c.above[x]) + std::abs(c.south[x]) + std::abs(c.north[x]) +
                         std::abs(w) + std::abs(e);
      const double column = std::abs(back.below[x]) + std::abs(back.above[x]) + std::abs(back.south[x]) +
                            std::abs(back.north[x]) + std::abs(back_w) + std::abs(back_e);
      const double on = (row != 0) & (column != 0) ? 1.0 : 0.0;
      const double d_s = rho_s * weaker(c.south[x], back.south[x]), d_n = rho_n * weaker(c.north[x], back.north[x]);
      const double d_w = rho_w[x] * weaker(w, back_w), d_e = rho_e[x] * weaker(e, back_e);
      const double inner = in_s * c.south[x] + in_n * c.north[x] + inside_w[x] * w + inside_e[x] * e;
      diag[x] += on * (c.diag[x] + inner - ((d_s + d_n) + (d_w + d_e)));
      below[x] += on * c.below[x];
      above[x] += on * c.above[x];
      south[x] += on * ((1.0 - in_s) * c.south[x] + d_s);
      north[x] += on * ((1.0 - in_n) * c.north[x] + d_n);
      west[x] += on * ((1.0 - inside_w[x]) * w + d_w);
      east[x] += on * ((1.0 - inside_e[x]) * e + d_e);
      used[x] += on;
    };
    const int64_t last = nx - 1;
    if (nx == 1) return cell(0, 0.0, 0.0, 0.0, 0.0);
    cell(0, 0.0, c.east[0], 0.0, back.east[0]);
#pragma GCC ivdep
    for (int64_t x = 1; x < last; ++x) cell(x, c.west[x], c.east[x], back.west[x], back.east[x]);
    cell(last, c.west[last], 0.0, back.west[last], 0.0);
  }

  const Stencil& a_;
  Form form_;
  int fy_, fx_;
  const Widths &wy_, &cy_;
  Buffer<double>
      along_x_;  // of each x: west and east inside the aggregate (0 or 1), rho of the western and eastern faces
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
