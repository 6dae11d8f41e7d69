// The Jacobian of the network of one solute, J = diag(diagonal) + dN/dc diag(column): what is upwind on 7 points, of which
// the preconditioner is made; with the diagonal neighbours of the cross terms, which are linear as well; and of a wider
// scheme the derivatives of phi at the faces, which change with c. Plain and transposed products gather at the same cost.
#pragma once

#include <vector>

#include "../linear/offsets.h"
#include "../linear/sums.h"
#include "transport_faces.h"

namespace dgpde {
inline namespace DGPDE_ISA {

class NetworkJacobian : protected FaceWalk {
 protected:
  // At c = at; column null for ones, else it must outlive the products.
  void assemble(const double* diagonal, const double* column, const double* at, int threads) {
    layout();
    column_ = column;
    if (crossing_) upwind_.resize(7 * cells_);
    double* seven = crossing_ ? upwind_.data() : all_.coefficient(0);
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      upwind_row(z, y, diagonal, column, seven, work);
      if (!crossing_) return;
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int slot = 0; slot < all_.slots(); ++slot) {
        double* to = all_.coefficient(slot) + first;
        std::fill(to, to + c_.nx, 0.0);
      }
      crossing_row(z, y, work);
      if (column)
        for (int slot = 0; slot < all_.slots(); ++slot) scale_row(z, y, slot, column);
      for (int slot = 0; slot < 7; ++slot) {
        double* to = all_.coefficient(slot) + first;
        const double* part = &upwind_[slot * cells_ + first];
        for (int64_t i = 0; i < c_.nx; ++i) to[i] += part[i];
      }
    });
    differentiate(at, threads);
  }

  // The same of the scheme alone, at another c.
  void differentiate(const double* at, int threads) {
    if (scheme_ == Advection::upwind) return;
    const bool limits = scheme_ == Advection::tvd;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      here_[axis].resize(cells_);
      if (limits) up_[axis].resize(cells_);
    }
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t n = upper_count(axis, z, y);
        const double *q = c_.faces.flow[axis] + first, *inverse = c_.inverse[axis] + first;
        double* here = &here_[axis][first];
        if (limits) {
          double* up = &up_[axis][first];
          // where there is no face upstream the derivative is 0, and any number does for its 1/distance
          const double *before = row_at(c_.inverse[axis], axis, z, y, -1, inverse),
                       *after = row_at(c_.inverse[axis], axis, z, y, 1, inverse);
          if (axis == 2) {
            double* shifted = work + 3 * c_.nx;
            shifted[0] = 0.0;
            std::copy(inverse, inverse + n, shifted + 1);
            before = shifted, after = inverse + 1;
          }
          upstream(at, axis, z, y, [&](int64_t i, double half_up, double half_down, double gu, double g) {
            const Limited s = limited(gu, g, half_up, half_down);
            const double size = std::abs(q[i]) * half_up;
            here[i] = size * s.here * inverse[i];
            up[i] = size * s.up * (q[i] > 0.0 ? before[i] : -after[i]);
          });
          std::fill(up + n, up + c_.nx, 0.0);
        } else {
          upstream(at, axis, z, y, [&](int64_t i, double half_up, double, double, double) {
            here[i] = std::abs(q[i]) * half_up * inverse[i];
          });
        }
        std::fill(here + n, here + c_.nx, 0.0);
      }
    });
  }

  // to = J from, or J^T from; the sums of use(first cell, cells) over its rows.
  template <class Use>
  Sums product(bool transposed, const double* from, double* to, int threads, const Use& use) {
    const bool wider = scheme_ != Advection::upwind;
    const double* moved = from;  // what the columns of the scheme's part take
    if (wider && column_ && !transposed) {
      scaled_.resize(cells_);
      rows(threads, [&](int64_t z, int64_t y, double*) {
        const int64_t first = (z * c_.ny + y) * c_.nx;
        for (int64_t i = first; i < first + c_.nx; ++i) scaled_[i] = column_[i] * from[i];
      });
      moved = scaled_.data();
    }
    prepare_scratch(threads);
    return sum_rows(sums_, c_.nz * c_.ny, c_.nx, threads, [&](int64_t first, int64_t nx) {
      const int64_t r = first / nx, z = r / c_.ny, y = r % c_.ny;
      double* row = to + first;
      all_.apply_row(transposed, z, y, from, row);
      if (wider && transposed)
        scheme_ == Advection::tvd ? pull_row<true>(z, y, from, row, scratch())
                                  : pull_row<false>(z, y, from, row, scratch());
      else if (wider)
        scheme_ == Advection::tvd ? push_row<true>(z, y, moved, row) : push_row<false>(z, y, moved, row);
      return use(first, nx);
    });
  }

  bool wide() const { return scheme_ != Advection::upwind || crossing_; }
  Stencil upwind() { return Stencil::of(crossing_ ? upwind_.data() : all_.coefficient(0), c_.nz, c_.ny, c_.nx); }
  int64_t jacobian_bytes() const {
    int64_t total = upwind_.bytes() + all_.bytes() + scaled_.bytes();
    for (int k = 0; k < kAxes; ++k) total += here_[k].bytes() + up_[k].bytes();
    return total;
  }

 private:
  static int near(int axis, bool upper) { return 1 + 2 * axis + (upper ? 1 : 0); }

  // Which further couplings there are, and where.
  void layout() {
    std::vector<OffsetMatrix::Offset> further;
    for (int n = 0; n < kAxes; ++n)
      for (int t = n + 1; t < kAxes; ++t)
        for (int un : {0, 1})
          for (int ut : {0, 1})
            if (crosses(n, t)) {
              int64_t by[kAxes] = {};
              by[n] = un ? 1 : -1, by[t] = ut ? 1 : -1;
              corner_[n][t][un][ut] = corner_[t][n][ut][un] = 7 + static_cast<int>(further.size());
              further.push_back({by[0], by[1], by[2]});
            }
    all_.shape(c_.nz, c_.ny, c_.nx, further);
  }
  bool crosses(int n, int t) const {
    for (int pair = 0; pair < kPairs; ++pair)
      if (c_.faces.cross[pair] &&
          ((kPair[pair][0] == n && kPair[pair][1] == t) || (kPair[pair][0] == t && kPair[pair][1] == n)))
        return true;
    return false;
  }

  void upwind_row(int64_t z, int64_t y, const double* diagonal, const double* column, double* seven,
                  double* work) const {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int slot = 1; slot < 7; ++slot)
      std::fill(seven + slot * cells_ + first, seven + slot * cells_ + first + c_.nx, 0.0);
    std::fill(work, work + c_.nx, 0.0);
    faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t other, int64_t n) {
      const double *flow = c_.faces.flow[axis] + owner, *g = c_.faces.conductance[axis] + owner;
      double *to = seven + near(axis, upper) * cells_ + cell, *sum = work + (cell - first);
      for (int64_t i = 0; i < n; ++i) {
        const double k = entering(!upper, flow[i], flow[i]) + g[i];
        sum[i] += k;
        to[i] = column ? -k * column[other + i] : -k;
      }
    });
    double* diag = seven + first;
    for (int64_t i = 0; i < c_.nx; ++i)
      diag[i] = diagonal[first + i] + (column ? work[i] * column[first + i] : work[i]);
  }

  // phi of a face by the rises of x across it, across the face before and the one after; up is positive where the flow is.
  template <bool limits>
  static double phi(double here, double up, double rise, double before, double after) {
    return limits ? here * rise + up * (up > 0.0 ? before : -after) : here * rise;
  }

  // to += d(div phi)/dc x of a row.
  template <bool limits>
  void push_row(int64_t z, int64_t y, const double* x, double* __restrict to) const {
    const int64_t first = (z * c_.ny + y) * c_.nx, nx = c_.nx;
    const double *at = x + first, *none = zeros_.data();
    for (int axis = 0; axis < 2; ++axis) {
      if (!c_.inverse[axis]) continue;
      // a face that is missing has derivatives of 0, and rises across missing faces are met by none but them
      const double *h1 = &here_[axis][first], *h0 = row_at(here_[axis].data(), axis, z, y, -1, none);
      const double *u1 = limits ? &up_[axis][first] : none,
                   *u0 = limits ? row_at(up_[axis].data(), axis, z, y, -1, none) : none;
      const double *x1 = row_at(x, axis, z, y, 1, at), *x2 = limits ? row_at(x, axis, z, y, 2, at) : at,
                   *y1 = row_at(x, axis, z, y, -1, at), *y2 = limits ? row_at(x, axis, z, y, -2, at) : at;
      for (int64_t i = 0; i < nx; ++i) {
        const double above = x1[i] - at[i], below = at[i] - y1[i];
        to[i] += phi<limits>(h1[i], u1[i], above, below, x2[i] - x1[i]) -
                 phi<limits>(h0[i], u0[i], below, y1[i] - y2[i], above);
      }
    }
    if (!c_.inverse[2]) return;
    const double *h = &here_[2][first], *u = limits ? &up_[2][first] : none;
    const auto rise = [&](int64_t i) { return i >= 0 && i < nx - 1 ? at[i + 1] - at[i] : 0.0; };
    const auto face = [&](int64_t i) {
      return i >= 0 && i < nx - 1 ? phi<limits>(h[i], u[i], rise(i), rise(i - 1), rise(i + 1)) : 0.0;
    };
    const int64_t inner = std::max<int64_t>(2, nx - 2);
    for (int64_t i = 0; i < std::min<int64_t>(2, nx); ++i) to[i] += face(i) - face(i - 1);
    for (int64_t i = 2; i < inner; ++i) {
      const double above = at[i + 1] - at[i], below = at[i] - at[i - 1];
      to[i] += phi<limits>(h[i], u[i], above, below, at[i + 2] - at[i + 1]) -
               phi<limits>(h[i - 1], u[i - 1], below, at[i - 1] - at[i - 2], above);
    }
    for (int64_t i = inner; i < nx; ++i) to[i] += face(i) - face(i - 1);
  }

  // What four faces along an axis hand to the cell between the second and the third, each e = l_a - l_b of it times the
  // derivative of its phi by c of the cell.
  template <bool limits>
  static double pulled(double e0, double u0, double e1, double h1, double u1, double e2, double h2, double u2,
                       double e3, double u3) {
    const double near = e1 * (h1 + std::min(u1, 0.0)) + e2 * (std::max(u2, 0.0) - h2);
    return limits ? near - (e0 * std::min(u0, 0.0) + e3 * std::max(u3, 0.0)) : e1 * h1 - e2 * h2;
  }

  // to += diag(column) (d(div phi)/dc)^T l of a row.
  template <bool limits>
  void pull_row(int64_t z, int64_t y, const double* l, double* __restrict to, double* sum) const {
    const int64_t first = (z * c_.ny + y) * c_.nx, nx = c_.nx;
    const double *at = l + first, *none = zeros_.data();
    std::fill(sum, sum + nx, 0.0);
    for (int axis = 0; axis < 2; ++axis) {
      if (!c_.inverse[axis]) continue;
      const auto of = [&](const Buffer<double>* field, int64_t by) {
        return row_at(field[axis].data(), axis, z, y, by, none);
      };
      const auto cell = [&](int64_t by) { return row_at(l, axis, z, y, by, at); };
      const double *h1 = of(here_, -1), *h2 = of(here_, 0);
      const double *u0 = limits ? of(up_, -2) : none, *u1 = limits ? of(up_, -1) : none,
                   *u2 = limits ? of(up_, 0) : none, *u3 = limits ? of(up_, 1) : none;
      const double *a = cell(-2), *b = cell(-1), *d = cell(1), *e = cell(2);
      for (int64_t i = 0; i < nx; ++i)
        sum[i] += pulled<limits>(a[i] - b[i], u0[i], b[i] - at[i], h1[i], u1[i], at[i] - d[i], h2[i], u2[i],
                                 d[i] - e[i], u3[i]);
    }
    if (c_.inverse[2]) {
      const double *h = &here_[2][first], *u = limits ? &up_[2][first] : none;
      const auto e = [&](int64_t i) { return i >= 0 && i < nx - 1 ? at[i] - at[i + 1] : 0.0; };
      const auto of = [&](const double* field, int64_t i) { return i >= 0 && i < nx - 1 ? field[i] : 0.0; };
      const auto edge = [&](int64_t i) {
        sum[i] += pulled<limits>(e(i - 2), of(u, i - 2), e(i - 1), of(h, i - 1), of(u, i - 1), e(i), of(h, i),
                                 of(u, i), e(i + 1), of(u, i + 1));
      };
      const int64_t inner = std::max<int64_t>(2, nx - 2);
      for (int64_t i = 0; i < std::min<int64_t>(2, nx); ++i) edge(i);
      for (int64_t i = 2; i < inner; ++i)
        sum[i] += pulled<limits>(at[i - 2] - at[i - 1], u[i - 2], at[i - 1] - at[i], h[i - 1], u[i - 1],
                                 at[i] - at[i + 1], h[i], u[i], at[i + 1] - at[i + 2], u[i + 1]);
      for (int64_t i = inner; i < nx; ++i) edge(i);
    }
    if (column_)
      for (int64_t i = 0; i < nx; ++i) to[i] += column_[first + i] * sum[i];
    else
      for (int64_t i = 0; i < nx; ++i) to[i] += sum[i];
  }

  // What the cross terms add to a row of the matrix: -X of the face times the mean of four gradients along t, of its two cells' faces.
  void crossing_row(int64_t z, int64_t y, double* work) {
    const int64_t first = (z * c_.ny + y) * c_.nx, nx = c_.nx;
    double* row[8];
    for (int k = 0; k < 8; ++k) row[k] = work + k * nx;
    for (int pair = 0; pair < kPairs; ++pair) {
      const double *x = c_.faces.cross[pair], *inverse = c_.inverse[kPair[pair][1]];
      if (!x) continue;
      const int n = kPair[pair][0], t = kPair[pair][1];
      // X of the upper and the lower face; 1/distance of the faces along t of the cell and its neighbours along n, each
      // with the one before it
      const double* from[8] = {x, x, inverse, inverse, inverse, inverse, inverse, inverse};
      const int64_t along[8] = {0, -1, 0, 0, 1, 1, -1, -1}, back[8] = {0, 0, 0, -1, 0, -1, 0, -1};
      for (int k = 0; k < 8; ++k) {
        std::fill(row[k], row[k] + nx, 0.0);
        add_shifted(from[k], z, y, n, along[k], t, back[k], 0.25, row[k]);
      }
      const double *up = row[0], *down = row[1], *i0 = row[2], *i1 = row[3], *j0 = row[4], *j1 = row[5], *k0 = row[6],
                   *k1 = row[7];
      double *diag = all_.coefficient(0) + first, *ahead = all_.coefficient(near(t, true)) + first,
             *behind = all_.coefficient(near(t, false)) + first, *above = all_.coefficient(near(n, true)) + first,
             *below = all_.coefficient(near(n, false)) + first;
      double *uu = all_.coefficient(corner_[n][t][1][1]) + first, *ud = all_.coefficient(corner_[n][t][1][0]) + first,
             *du = all_.coefficient(corner_[n][t][0][1]) + first, *dd = all_.coefficient(corner_[n][t][0][0]) + first;
      for (int64_t i = 0; i < nx; ++i) {
        const double u = 4.0 * up[i], d = 4.0 * down[i], both = u - d;
        diag[i] += both * (i0[i] - i1[i]), ahead[i] -= both * i0[i], behind[i] += both * i1[i];
        above[i] += u * (j0[i] - j1[i]), uu[i] -= u * j0[i], ud[i] += u * j1[i];
        below[i] -= d * (k0[i] - k1[i]), du[i] += d * k0[i], dd[i] -= d * k1[i];
      }
    }
  }

  // A row of coefficients times the column of the cell that each belongs to.
  void scale_row(int64_t z, int64_t y, int slot, const double* column) {
    const OffsetMatrix::Offset by = all_.offset(slot);
    if (z + by.z < 0 || z + by.z >= c_.nz || y + by.y < 0 || y + by.y >= c_.ny) return;
    const int64_t first = (z * c_.ny + y) * c_.nx;
    double* to = all_.coefficient(slot) + first;
    const double* from = column + first + (by.z * c_.ny + by.y) * c_.nx + by.x;
    for (int64_t i = std::max<int64_t>(0, -by.x); i < c_.nx - std::max<int64_t>(0, by.x); ++i) to[i] *= from[i];
  }

  OffsetMatrix all_;
  const double* column_ = nullptr;
  int corner_[kAxes][kAxes][2][2] = {};
  Buffer<double> upwind_, here_[kAxes], up_[kAxes], scaled_;
  Buffer<Sums> sums_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
