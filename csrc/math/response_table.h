// A response a(psi) in [0, 1] given by a table for each column: of root uptake, of evaporation.
//
//   rows of the table of a column [knots, 2]: a, da/dx, x = log(-psi); knot i at x = first + i step (knots.h)
//   wetter than knot 0: its value.   Drier than the last knot: that one's.
#pragma once

#include <type_traits>

#include "column_cells.h"
#include "knots.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
struct Response {
  V a, a_psi;  // in [0, 1], and its slope in psi
};

// Where the heads of a cell stand in the tables of its columns.
template <class V>
struct ResponsePlace {
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;
  IntOf<V> knot;   // wetter one of the two around psi
  V u;             // from it to the next: 0 to 1
  Mask<V> within;  // not beyond either end

  DGPDE_HD ResponsePlace(const ResponseKnots& k, V psi) {
    const KnotLine line{k.count, k.first, k.step, k.wettest};
    const auto wet = wetter_than_knots(line, psi);
    const V x = knot_position(line, psi, wet), end = broadcast<V>(static_cast<double>(line.knots - 1));
    within = mask_and(mask_not(wet), x < end);
    const V at = select(x > end, end, x);
    const V before = knot_before(line, at);
    knot = truncate(before);
    u = at - before;
  }

  // Where in v the four numbers of a lane begin: value and slope at its knot, and at the next.
  template <class ViewType>
  DGPDE_HD int64_t first(const ViewType& v, const Lanes& lanes, int lane) const {
    if constexpr (W == 1)
      return 2 * static_cast<int64_t>(knot) + lanes.column(0) * v.n;
    else
      return 2 * static_cast<int64_t>(knot[lane]) + lanes.column(lane) * v.n;
  }
  // Adds x, the gradients of the four numbers, to those of each lane that has a column to itself.
  DGPDE_HD void add(const MutableView& v, const Lanes& lanes, const V* x) const {
    R* base = static_cast<R*>(v.data);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (std::is_same_v<V, PackD>) {  // turned
      const PackL low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
      const PackL lower = {0, 1, 8, 9, 2, 3, 10, 11}, upper = {4, 5, 12, 13, 6, 7, 14, 15};
      const PackD a = __builtin_shuffle(x[0], x[1], low), b = __builtin_shuffle(x[2], x[3], low);
      const PackD c = __builtin_shuffle(x[0], x[1], high), d = __builtin_shuffle(x[2], x[3], high);
      const PackD two[4] = {__builtin_shuffle(a, b, lower), __builtin_shuffle(a, b, upper),
                            __builtin_shuffle(c, d, lower), __builtin_shuffle(c, d, upper)};
      __m256d mine[W];
      std::memcpy(mine, two, sizeof(mine));
      for (int lane = 0; lane < W && lanes.owns(lane); ++lane) {
        double* sum = base + first(v, lanes, lane);
        _mm256_storeu_pd(sum, _mm256_loadu_pd(sum) + mine[lane]);
      }
      return;
    }
#endif
    for (int lane = 0; lane < W && lanes.owns(lane); ++lane) {
      R* sum = base + first(v, lanes, lane);
      for (int i = 0; i < 4; ++i) sum[i] += get(x[i], lane);
    }
  }
  DGPDE_HD void read(const View& v, const Lanes& lanes, V* r) const {
    const R* base = static_cast<const R*>(v.data);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (std::is_same_v<V, PackD>) {  // rows of two lanes a register, then turned
      __m512d two[4];
      for (int i = 0; i < 4; ++i) {
        const __m256d lower = _mm256_loadu_pd(base + first(v, lanes, 2 * i));
        two[i] = _mm512_maskz_insertf64x4(0xff, _mm512_castpd256_pd512(lower),
                                          _mm256_loadu_pd(base + first(v, lanes, 2 * i + 1)), 1);
      }
      const PackL here = {0, 4, 8, 12, 1, 5, 9, 13}, next = {2, 6, 10, 14, 3, 7, 11, 15};
      const PackL lower = {0, 1, 2, 3, 8, 9, 10, 11}, upper = {4, 5, 6, 7, 12, 13, 14, 15};
      const PackD a = __builtin_shuffle((PackD)two[0], (PackD)two[1], here);
      const PackD b = __builtin_shuffle((PackD)two[2], (PackD)two[3], here);
      const PackD c = __builtin_shuffle((PackD)two[0], (PackD)two[1], next);
      const PackD d = __builtin_shuffle((PackD)two[2], (PackD)two[3], next);
      r[0] = __builtin_shuffle(a, b, lower), r[1] = __builtin_shuffle(a, b, upper);
      r[2] = __builtin_shuffle(c, d, lower), r[3] = __builtin_shuffle(c, d, upper);
      return;
    }
#endif
    for (int lane = 0; lane < W; ++lane) {
      const R* row = base + first(v, lanes, lane);
      for (int i = 0; i < 4; ++i) put(r[i], lane, row[i]);
    }
  }
};

template <class V>
DGPDE_BY_REFERENCE Response<V> tabulated_response(const ColumnProblem& p, Respond which, const Lanes& lanes, V psi) {
  using R = RealOf<V>;
  const ResponsePlace<V> place(p.response[which], psi);
  const R step = static_cast<R>(p.response[which].step), inv_step = R(1.0 / p.response[which].step);
  V r[4] = {};
  place.read(p.in.response[which], lanes, r);
  const Cubic<V> a(place.u, r[0], r[1] * step, r[2], r[3] * step);
  const V h = select(place.within, -psi, broadcast<V>(1));
  return {a.value, select(place.within, a.slope * inv_step / -h, V{})};
}

// Cotangents of a at the heads of a cell, passed on to the tables.
template <class V>
DGPDE_BY_REFERENCE void pull_response(const ColumnProblem& p, Respond which, const Lanes& lanes,
                                      const Mask<V>& active, V psi, V grad_a, const MutableView& grad) {
  using R = RealOf<V>;
  const ResponsePlace<V> place(p.response[which], psi);
  V basis[4];
  hermite_basis<V>(place.u, static_cast<R>(p.response[which].step), basis);
  for (V& x : basis) x = select(active, grad_a * x, V{});
  place.add(grad, lanes, basis);
}

// How a moves at the heads of a cell when the tables move.
template <class V>
DGPDE_BY_REFERENCE V push_response(const ColumnProblem& p, Respond which, const Lanes& lanes, V psi,
                                   const View& tangent) {
  const ResponsePlace<V> place(p.response[which], psi);
  V basis[4], moved[4] = {};
  hermite_basis<V>(place.u, static_cast<RealOf<V>>(p.response[which].step), basis);
  place.read(tangent, lanes, moved);
  return (moved[0] * basis[0] + moved[1] * basis[1]) + (moved[2] * basis[2] + moved[3] * basis[3]);
}

// Sets what an atmosphere leaves of the evaporation over a cell at psi, if it has a response.
template <class V>
DGPDE_HD void respond(const ColumnProblem& p, const Lanes& lanes, V psi, BoundaryFace<V>& f) {
  if (p.response[kEvaporation].count == 0 || f.kind != Boundary::atmosphere) return;
  const Response<V> r = tabulated_response<V>(p, kEvaporation, lanes, psi);
  f.share = r.a, f.share_psi = r.a_psi;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
