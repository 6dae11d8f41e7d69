// Reduction a(psi) in [0, 1] of root-water uptake, with its derivatives: by Feddes' four heads or by a table.
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
struct Stress {
  V a, a_psi;  // reduction in [0, 1] and its slope in psi
};

// Piecewise linear: rises from 0 at h4 to 1 at h3, stays 1 to h2, falls to 0 at h1 (h1 > h2 > h3 > h4), as Feddes,
// Kowalik & Zaradny (1978) have it. a_h: derivatives in h1..h4 (with partials only).
template <bool kPartials, class V>
DGPDE_HD Stress<V> feddes(const V* h, V psi, V* a_h) {
  const V one = broadcast<V>(1);
  Stress<V> s;
  const auto wet = mask_and(psi > h[1], psi < h[0]);
  const auto dry = mask_and(psi<h[2], psi> h[3]);
  const auto best = mask_and(psi <= h[1], psi >= h[2]);
  const V wet_slope = one / (h[0] - h[1]), dry_slope = one / (h[2] - h[3]);
  const V a_wet = (h[0] - psi) * wet_slope, a_dry = (psi - h[3]) * dry_slope;
  s.a = select(best, one, select(wet, a_wet, select(dry, a_dry, V{})));
  s.a_psi = select(wet, -wet_slope, select(dry, dry_slope, V{}));
  if constexpr (kPartials) {
    a_h[0] = select(wet, wet_slope * (one - a_wet), V{});
    a_h[1] = select(wet, wet_slope * a_wet, V{});
    a_h[2] = select(dry, -dry_slope * a_dry, V{});
    a_h[3] = select(dry, dry_slope * (a_dry - one), V{});
  }
  return s;
}

// Where the heads of a cell stand in the tables of its columns.
template <class V>
struct StressPlace {
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;
  IntOf<V> knot;   // wetter one of the two around psi
  V u;             // from it to the next: 0 to 1
  Mask<V> within;  // not beyond either end

  DGPDE_HD StressPlace(const ColumnProblem& p, V psi) {
    const KnotLine line{p.stress_knots, p.stress_first, p.stress_step, p.stress_wettest};
    const auto wet = wetter_than_knots(line, psi);
    const V x = knot_position(line, psi, wet), end = broadcast<V>(static_cast<double>(line.knots - 1));
    within = mask_and(mask_not(wet), x < end);
    const V at = select(x > end, end, x);
    knot = truncate(select(at > V{}, vmin(at, end - R(1)), V{}));  // a nan gives knot 0, and u keeps it
    u = at - to_real(knot);
  }

  // Where in v the four numbers of a lane begin: value and slope at its knot, and at the next.
  template <class ViewType>
  DGPDE_HD int64_t first(const ViewType& v, const Lanes& lanes, int lane) const {
    if constexpr (W == 1)
      return 2 * static_cast<int64_t>(knot) + lanes.column(0) * v.n;
    else
      return 2 * static_cast<int64_t>(knot[lane]) + lanes.column(lane) * v.n;
  }
  DGPDE_HD void read(const View& v, const Lanes& lanes, V* r) const {
    const R* base = static_cast<const R*>(v.data);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if constexpr (std::is_same_v<V, PackD>) {  // rows of two lanes a register, then turned
      __m512d two[4];
      for (int i = 0; i < 4; ++i) {
        const __m256d lower = _mm256_loadu_pd(base + first(v, lanes, 2 * i));
        two[i] = _mm512_maskz_insertf64x4(0xff, _mm512_zextpd256_pd512(lower),
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
DGPDE_BY_REFERENCE Stress<V> tabulated_stress(const ColumnProblem& p, const Lanes& lanes, V psi) {
  using R = RealOf<V>;
  const StressPlace<V> place(p, psi);
  const R step = static_cast<R>(p.stress_step), inv_step = R(1.0 / p.stress_step);
  V r[4] = {};
  place.read(p.in.stress, lanes, r);
  const Cubic<V> a(place.u, r[0], r[1] * step, r[2], r[3] * step);
  const V h = select(place.within, -psi, broadcast<V>(1));
  return {a.value, select(place.within, a.slope * inv_step / -h, V{})};
}

// Cotangents of a at the heads of a cell, passed on to the tables.
template <class V>
DGPDE_BY_REFERENCE void pull_stress(const ColumnProblem& p, const Lanes& lanes, const Mask<V>& active, V psi,
                                    V grad_a, const MutableView& grad) {
  using R = RealOf<V>;
  const StressPlace<V> place(p, psi);
  V basis[4];
  hermite_basis<V>(place.u, static_cast<R>(p.stress_step), basis);
  for (int lane = 0; lane < Lane<V>::width; ++lane) {
    if (!get_mask(active, lane) || !lanes.owns(lane)) continue;
    R* sum = static_cast<R*>(grad.data) + place.first(grad, lanes, lane);
    for (int i = 0; i < 4; ++i) sum[i] += get(grad_a, lane) * get(basis[i], lane);
  }
}

// How a moves at the heads of a cell when the tables move.
template <class V>
DGPDE_BY_REFERENCE V push_stress(const ColumnProblem& p, const Lanes& lanes, V psi, const View& tangent) {
  const StressPlace<V> place(p, psi);
  V basis[4], moved[4] = {};
  hermite_basis<V>(place.u, static_cast<RealOf<V>>(p.stress_step), basis);
  place.read(tangent, lanes, moved);
  return (moved[0] * basis[0] + moved[1] * basis[1]) + (moved[2] * basis[2] + moved[3] * basis[3]);
}

// The response that the problem has; h: Feddes' heads of the interval. A table is not read where `weight` is 0.
template <class V>
DGPDE_HD Stress<V> root_stress(const ColumnProblem& p, const Lanes& lanes, const V* h, V psi, V weight) {
  if (p.stress_knots == 0) return feddes<false, V>(h, psi, nullptr);
  return any(weight != V{}) ? tabulated_stress<V>(p, lanes, psi) : Stress<V>{};
}

template <class V>
DGPDE_HD void load_feddes(const ColumnProblem& p, const int64_t* interval, const Lanes& lanes, V* h) {
  if (p.stress_knots > 0) return;
  for (int i = 0; i < 4; ++i) h[i] = load_series<V>(p.in.feddes[i], interval, 0, lanes);
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
