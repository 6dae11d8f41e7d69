// The soil at a cell's head, carried on from where it was last evaluated.
//
// A soil relation costs more than all else that a sweep does to a cell, and most cells move little from one sweep to
// the next, or from step to step. Each cell therefore keeps the head h_a at which it was last evaluated, with theta, kr,
// their slopes there and how those slopes changed since the evaluation before (a secant); as long as
// |psi - h_a| <= trust
//
//     theta = theta_a + d (C_a + d/2 C'),   kr = kr_a + d (kr'_a + d/2 kr''),   d = psi - h_a
//
// stand for the relation. Every value is carried from h_a itself, so that nothing adds up from step to step. The trust
// distance holds the error at a hundredth of the tolerance. With r the distance over which the relation changes (to
// psi = 0, to its kink, and over which kr changes by itself) and D the distance of the last two evaluations:
//
// A network may bend its curves faster than the suction changes; r is divided by how much (network_sharpness).
//
//     secant:   d^2 (d/6 + D/4)/r^3 <= tolerance/100      (Taylor's rest, and the secant's own error in C')
//     slopes:   d^2/r^2             <= tolerance/100      (no evaluation before, or a table, whose C' jumps at knots)
//
// Lanes of a GPU always evaluate: reading what is kept costs them more.
#pragma once

#include "column_cells.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class CarriedSoil {
  using R = RealOf<V>;

 public:
  static constexpr bool kCarries = Lane<V>::width > 1;

  DGPDE_HD CarriedSoil(const ColumnProblem& p, const SoilModel& model, const Cells<V>& cells)
      : soil(model),
        c(cells),
        smooth(model.kind != SoilKind::tabulated),
        reach_part(model.kind == SoilKind::network ? static_cast<R>(1.0 / network_sharpness<R>(model.network))
                                                   : R(1)),
        slope_trust(static_cast<R>(0.1 * sqrt(p.tolerance))),
        cubic(static_cast<R>(0.01 * p.tolerance)),
        cube_root(static_cast<R>(cbrt(0.03 * p.tolerance))) {}

  // A sweep begins; the lanes of `lanes` are to be evaluated wherever they are, and forget what came before.
  DGPDE_HD void begin(Mask<V> lanes) {
    fresh = lanes;
    any_fresh = any(lanes);
    pending = -1;
  }

  // Cell k has come to psi. Where that is too far to carry the soil, it is evaluated there, two cells at a time.
  DGPDE_HD void arrive(int64_t k, V psi) {
    if (all(trusted(k, psi))) return;
    if (pending < 0) {
      pending = k;
      return;
    }
    evaluate_two(pending, k);
    pending = -1;
  }
  DGPDE_HD void finish() {
    if (pending >= 0) evaluate_one(pending);
  }

  // The soil of cell k at psi, to which it has come.
  DGPDE_HD SoilPoint<V> at(int64_t k, V psi) const {
    if constexpr (kCarries) {
      const V d = psi - c.at(k), half = R(0.5) * d;
      const V capacity = c.capacity(k), capacity_slope = c.capacity_slope(k);
      const V dkr = c.dkr_at(k), dkr_slope = c.dkr_slope(k);
      return {c.theta_at(k) + d * (capacity + half * capacity_slope), c.kr_at(k) + d * (dkr + half * dkr_slope),
              capacity + d * capacity_slope, dkr + d * dkr_slope};
    } else {
      SoilPoint<V> s;
      soil_evaluate<V>(soil, c.soil_at(k), psi, s);
      c.capacity(k) = s.capacity;
      return s;
    }
  }

  // Capacity at the head that the cell has now.
  DGPDE_HD V capacity(int64_t k, V psi) const {
    if constexpr (kCarries)
      return c.capacity(k) + (psi - c.at(k)) * c.capacity_slope(k);
    else
      return c.capacity(k);
  }

 private:
  const SoilModel& soil;
  const Cells<V>& c;
  const bool smooth;
  const R reach_part;  // of the suction, over which the relation changes
  const R slope_trust, cubic, cube_root;
  Mask<V> fresh{};
  bool any_fresh = false;
  int64_t pending = -1;  // a cell that waits for a second one

  DGPDE_HD Mask<V> trusted(int64_t k, V psi) const {
    const auto near = vabs(psi - c.at(k)) <= V(c.trust(k));
    return any_fresh ? mask_and(near, mask_not(fresh)) : near;
  }

  DGPDE_HD void evaluate_one(int64_t k) const {
    SoilPoint<V> s;
    soil_evaluate<V>(soil, c.soil_at(k), V(c.psi(k)), s);
    keep(k, s);
  }
  DGPDE_HD void evaluate_two(int64_t i, int64_t k) const {
    SoilPoint<Duo<V>> s;
    soil_pair<false>(soil, DuoView<Strided<V>>{c.soil_at(i), c.soil_at(k)}, Duo<V>{c.psi(i), c.psi(k)}, s,
                     static_cast<Duo<V>*>(nullptr), static_cast<Duo<V>*>(nullptr));
    keep(i, {s.theta.a, s.kr.a, s.capacity.a, s.dkr.a});
    keep(k, {s.theta.b, s.kr.b, s.capacity.b, s.dkr.b});
  }

  DGPDE_HD void keep(int64_t k, const SoilPoint<V>& s) const {
    const V one = broadcast<V>(1), psi = c.psi(k), kink = c.kink(k), d = psi - c.at(k);
    const auto old = trusted(k, psi);
    const V reach = reach_part * vmin(vabs(psi), vabs(psi + kink));
    V trust = slope_trust * reach, capacity_slope{}, dkr_slope{};
    if (smooth) {
      auto moved = d != V{};
      if (any_fresh) moved = mask_and(moved, mask_not(fresh));
      const V inv = one / select(moved, d, one);
      capacity_slope = (s.capacity - c.capacity(k)) * inv;
      dkr_slope = (s.dkr - c.dkr_at(k)) * inv;
      // an iterate that was not finite gives no secant
      moved = mask_and(moved, finite(V(capacity_slope + dkr_slope)));
      capacity_slope = select(moved, capacity_slope, V{}), dkr_slope = select(moved, dkr_slope, V{});
      // 1/r = 1/reach + kr'/kr
      const V both = s.kr + s.dkr * reach;
      const auto conducts = both > V{};
      const V r = reach * select(conducts, s.kr / select(conducts, both, one), one);
      const V far = vmin(cube_root * r, vsqrt(cubic * r * r * vabs(inv) * r));
      trust = select(moved, vmax(trust, far), trust);
    }
    // Where kr is steep at saturation a row has hardly any storage, and Newton feels every digit of kr.
    trust = select(mask_and(V(c.sharp(k)) < R(1), psi >= -V(c.wet(k))), V{}, trust);
    c.at(k) = select(old, V(c.at(k)), psi);
    c.theta_at(k) = select(old, V(c.theta_at(k)), s.theta);
    c.capacity(k) = select(old, V(c.capacity(k)), s.capacity);
    c.kr_at(k) = select(old, V(c.kr_at(k)), s.kr);
    c.dkr_at(k) = select(old, V(c.dkr_at(k)), s.dkr);
    c.capacity_slope(k) = select(old, V(c.capacity_slope(k)), capacity_slope);
    c.dkr_slope(k) = select(old, V(c.dkr_slope(k)), dkr_slope);
    c.trust(k) = select(old, V(c.trust(k)), trust);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
