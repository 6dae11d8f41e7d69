// Walks over the rows and faces of a field, and the gradients of a solute there, for the passes of the transport stencil.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "../linear/memory.h"
#include "../transport_call.h"

namespace dgpde {
inline namespace DGPDE_ISA {

constexpr int kPair[kPairs][2] = {{0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1}};

// Part of the water that enters the cell b (kIntoB) or a of a face; water that stands counts as flowing into a.
inline double entering(bool into_b, double flow, double value) {
  return into_b == (flow > 0.0) ? (into_b ? value : -value) : 0.0;
}

struct Limited {
  double value, up, here;  // and its derivatives
};
// Van Leer's mean of the gradients upstream and at the face; 0 where their signs differ.
inline Limited limited(double up, double here, double half_up, double half_down) {
  const bool same = up * here > 0.0;
  const double u = same ? up : 1.0, f = same ? here : 1.0;
  const double total = half_up + half_down, by = 1.0 / (half_up * u + half_down * f);
  const double value = total * u * f * by, du = total * half_down * (f * by) * (f * by),
               df = total * half_up * (u * by) * (u * by);
  return {same ? value : 0.0, same ? du : 0.0, same ? df : 0.0};
}

class FaceWalk {
 protected:
  void set_walk(const TransportCall& call) {
    c_ = call;
    step_[0] = call.ny * call.nx, step_[1] = call.nx, step_[2] = 1;
    size_[0] = call.nz, size_[1] = call.ny, size_[2] = call.nx;
    cells_ = call.nz * call.ny * call.nx;
    scheme_ = static_cast<Advection>(call.scheme);
    crossing_ = false;
    for (const double* x : call.faces.cross) crossing_ = crossing_ || x;
    zeros_.resize(c_.nx);
    zeros_.fill_zero();
  }

  // work(z, y, scratch [8 nx]) for all rows along x.
  template <class Work>
  void rows(int threads, const Work& work) {
    const int64_t count = c_.nz * c_.ny;
    prepare_scratch(threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < count; ++r) work(r / c_.ny, r % c_.ny, scratch());
  }

  // Of this thread, [8 nx].
  double* scratch() {
#ifdef _OPENMP
    return scratch_.data() + 8 * c_.nx * omp_get_thread_num();
#else
    return scratch_.data();
#endif
  }
  void prepare_scratch(int threads) {
    if (scratch_.size() < 8 * c_.nx * threads) scratch_.resize(8 * c_.nx * threads);
  }

  // Number of cells of a row, from its first, that have a neighbour above, north or east.
  int64_t upper_count(int axis, int64_t z, int64_t y) const {
    if (axis == 2) return c_.nx - 1;
    return (axis == 0 ? z : y) + 1 < size_[axis] ? c_.nx : 0;
  }

  // use(axis, whether the cells are a, first cell, owner of its face, its neighbour, number of cells) for the faces of a
  // row, six stretches at most.
  template <class Use>
  void faces_of(int64_t z, int64_t y, const Use& use) const {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      const int64_t step = step_[axis], start = axis == 2 ? first + 1 : first, place = axis == 0 ? z : y;
      const int64_t n = axis == 2 ? c_.nx - 1 : c_.nx;
      if (axis == 2 || place > 0) use(axis, std::false_type{}, start, start - step, start - step, n);
      if (axis == 2 || place + 1 < size_[axis]) use(axis, std::true_type{}, first, first, first + step, n);
    }
  }

  // to[i] += scale * (the value of a field, shifted by `by` cells along each axis) where there is one.
  void add_shifted(const double* from, int64_t z, int64_t y, int64_t dz, int64_t dy, int64_t dx, double scale,
                   double* to) const {
    z += dz, y += dy;
    if (z < 0 || z >= c_.nz || y < 0 || y >= c_.ny) return;
    from += (z * c_.ny + y) * c_.nx + dx;
    const int64_t first = std::max<int64_t>(0, -dx), last = c_.nx - std::max<int64_t>(0, dx);
    for (int64_t i = first; i < last; ++i) to[i] += scale * from[i];
  }
  // The same for a shift by m along one axis and n along another.
  void add_shifted(const double* from, int64_t z, int64_t y, int one, int64_t m, int two, int64_t n, double scale,
                   double* to) const {
    int64_t by[kAxes] = {};
    by[one] += m, by[two] += n;
    add_shifted(from, z, y, by[0], by[1], by[2], scale, to);
  }

  // Gradients of c through all faces.
  void gradients(const double* c, int threads) {
    for (int axis = 0; axis < kAxes; ++axis)
      if (c_.inverse[axis]) gradient_[axis].resize(cells_);
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t n = upper_count(axis, z, y);
        const double *inverse = c_.inverse[axis] + first, *a = c + first, *b = a + step_[axis];
        double* to = &gradient_[axis][first];
        for (int64_t i = 0; i < n; ++i) to[i] = inverse[i] * (b[i] - a[i]);
        std::fill(to + n, to + c_.nx, 0.0);
      }
    });
  }

  // The row of the neighbours of cells (z, y) by a number of cells along z or y; `otherwise` where there is none.
  const double* row_at(const double* field, int axis, int64_t z, int64_t y, int64_t by,
                       const double* otherwise) const {
    z += axis == 0 ? by : 0, y += axis == 1 ? by : 0;
    return z < 0 || y < 0 || z >= c_.nz || y >= c_.ny ? otherwise : field + (z * c_.ny + y) * c_.nx;
  }

  // Calls use(i, half size upstream, downstream, gradient upstream, of the face) for the faces of a row, the gradients
  // those of c. Missing faces have gradients of 0.
  template <class Use>
  void upstream(const double* c, int axis, int64_t z, int64_t y, const Use& use) const {
    const int64_t first = (z * c_.ny + y) * c_.nx, n = upper_count(axis, z, y);
    if (n <= 0) return;
    const double *q = c_.faces.flow[axis] + first, *half = c_.half[axis], *a = c + first,
                 *inverse = c_.inverse[axis] + first;
    const auto face = [&](int64_t i, double half_a, double half_b, double behind, double ahead,
                          double here) __attribute__((always_inline)) {
      const bool forward = q[i] > 0.0;
      use(i, forward ? half_a : half_b, forward ? half_b : half_a, forward ? behind : ahead, here);
    };
    if (axis == 2) {
      const auto gradient = [&](int64_t i) { return i >= 0 && i < n ? inverse[i] * (a[i + 1] - a[i]) : 0.0; };
      const auto edge = [&](int64_t i) {
        face(i, half[i], half[i + 1], gradient(i - 1), gradient(i + 1), gradient(i));
      };
      edge(0);
      for (int64_t i = 1; i < n - 1; ++i)
        face(i, half[i], half[i + 1], inverse[i - 1] * (a[i] - a[i - 1]), inverse[i + 1] * (a[i + 2] - a[i + 1]),
             inverse[i] * (a[i + 1] - a[i]));
      if (n > 1) edge(n - 1);
      return;
    }
    const double half_a = half[axis == 0 ? z : y], half_b = half[(axis == 0 ? z : y) + 1];
    const double *b = a + step_[axis], *before = row_at(c, axis, z, y, -1, a), *after = row_at(c, axis, z, y, 2, b);
    const double *lower = row_at(c_.inverse[axis], axis, z, y, -1, inverse),
                 *higher = row_at(c_.inverse[axis], axis, z, y, 1, inverse);
    for (int64_t i = 0; i < n; ++i)
      face(i, half_a, half_b, lower[i] * (a[i] - before[i]), higher[i] * (after[i] - b[i]),
           inverse[i] * (b[i] - a[i]));
  }

  // Calls use(i, half upstream times the slope of the scheme) for the faces of a row.
  template <class Use>
  void slopes(const double* c, int axis, int64_t z, int64_t y, const Use& use) const {
    if (scheme_ == Advection::tvd)
      upstream(c, axis, z, y, [&](int64_t i, double half_up, double half_down, double up, double here) {
        use(i, half_up * limited(up, here, half_up, half_down).value);
      });
    else
      upstream(c, axis, z, y,
               [&](int64_t i, double half_up, double, double, double here) { use(i, half_up * here); });
  }

  // Mean of the four gradients along t beside the faces of a row across n.
  void mean_of_four(int n, int t, int64_t z, int64_t y, double* to) const {
    std::fill(to, to + c_.nx, 0.0);
    const double* g = gradient_[t].data();
    for (int64_t along : {0, 1})
      for (int64_t back : {0, -1}) add_shifted(g, z, y, n, along, t, back, 0.25, to);
  }

  TransportCall c_;
  Advection scheme_ = Advection::upwind;
  bool crossing_ = false;
  int64_t step_[kAxes] = {}, size_[kAxes] = {}, cells_ = 0;
  Buffer<double> scratch_, gradient_[kAxes], zeros_;  // zeros_: a row of what is not there
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
