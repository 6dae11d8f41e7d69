// Where the cells of a column go from sweep to sweep: first guesses, and the path that a Newton update takes.
//
// None of this changes a solution, only whether and how soon it is found (dgpde/kernels/column_flow/README.md, 3).
#pragma once

#include "column_carry.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class ColumnMoves {
 protected:
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;

  const ColumnProblem& p;
  const Lanes lanes;
  const SoilModel soil;
  Cells<V> c;
  CarriedSoil<V> soil_of;

  // per-lane values of the step in hand
  V dt, inv_dt, dt_before, share;
  Mask<V> newton, recording, guess;
  Mask<V> steady;  // lanes whose matrix has the whole slope of a face's kr at the cell that the water leaves
  Mask<V> gentle;  // saturated cells of these lanes begin to dry by little
  Mask<V> to_old, to_predicted, to_wet, to_full, to_drained;
  bool any_restart = false, any_gentle = false, any_steady = false;
  bool steep = false;  // whether kr has an unbounded slope at saturation anywhere

  DGPDE_HD ColumnMoves(const ColumnProblem& problem, const Lanes& which, V* scratch, int64_t lane_count)
      : p(problem), lanes(which), soil(soil_model(problem)), soil_of(problem, soil, c) {
    c.base = scratch, c.lanes = lane_count;
  }

  // Once the cells have their soils.
  DGPDE_HD void set_up_moves() {
    for (int64_t k = 0; k < p.nz; ++k) {
      V wet;
      soil_wet_suction<V>(soil, c.soil_at(k), wet);
      c.wet(k) = wet;
      c.kink(k) = soil_kink_suction<V>(soil, c.soil_at(k));
      c.sharp(k) = sharpness(k, wet);
      steep |= any(V(c.sharp(k)) < R(1));
    }
  }

  // The head of the lanes that do not iterate, from what is known.
  DGPDE_HD V first_guess(int64_t k) {
    const V psi_old = c.psi_old(k);
    V psi = select(to_predicted, predicted_head(k, psi_old), psi_old);
    if (any_restart) {
      psi = select(to_wet, vmax(psi_old, -V(c.wet(k))), psi);
      psi = select(to_full, vmax(psi_old, broadcast<V>(p.gravity * depth(k))), psi);
      const V level = broadcast<V>(p.gravity * (depth(k) - depth(p.nz - 1)));
      psi = select(to_drained, vmin(psi_old, level - share * c.wet(p.nz - 1)), psi);
    }
    return psi;
  }

  // Exponent e of 1 - kr ~ h^e close to saturation. Below 1 (van Genuchten with n < 2 and no air entry) the slope of
  // kr is unbounded at psi = 0; at n = 1.05 kr falls to 1/4 within a micrometre of suction.
  DGPDE_HD V sharpness(int64_t k, V wet) const {
    const V h = R(1e-6) * wet, one = broadcast<V>(1);
    SoilPoint<V> s;
    soil_evaluate<V>(soil, c.soil_at(k), -h, s);
    const V fall = one - s.kr;
    const auto falls = mask_and(fall > R(1e-12), wet > V{});
    return select(falls, vmin(s.dkr * h / select(falls, fall, one), one), one);
  }

  // Depth of a cell below the surface, with a millimetre of water on it [m].
  DGPDE_HD double depth(int64_t k) const {
    double below = 0.5 * p.dz[k] + 1e-3;
    for (int64_t i = k + 1; i < p.nz; ++i) below += p.dz[i];
    return below;
  }

  // The update is applied in theta where the cell is dry (h > wet suction) and in psi elsewhere. With the local power
  // law theta - theta_r ~ h^-s, s = C h/(theta - theta_r), theta_new = theta + C x means
  //     h_new = h (1 + r)^(-1/s),   r = C x/(theta - theta_r),   1/s = (x/h)/r.
  // A dry cell that would pass saturation stops at psi = 0; drying, theta - theta_r at most halves and h at most triples.
  DGPDE_HD V newton_head(int64_t k, V psi, V x) {
    // a small update is applied as it is
    if (!any_gentle && all(mask_or(vabs(x) <= R(0.05) * vabs(psi), mask_not(newton)))) return psi + x;
    const V h = -psi, wet = c.wet(k);
    V next = vmax(psi + x, R(-3) * vmax(h, wet));
    auto large = mask_and(newton, mask_and(h > wet, vabs(x) > R(0.05) * h));
    // In theta an update passes a kink of root uptake in dry soil from either side, in psi it does not.
    if (any_gentle) large = mask_and(large, mask_not(mask_and(gentle, vabs(x) < R(0.5) * h)));
    if (any(large)) {
      const V one = broadcast<V>(1);
      const Strided<V> d = c.soil_at(k);
      const V hs = select(large, h, one);
      const V wetness = c.theta(k) - d[0];
      // no water above theta_r is left: only log h can tell the cells apart, as for r = 0
      const V r = select(wetness > V{}, soil_of.capacity(k, psi) * x / select(wetness > V{}, wetness, one), V{});
      const V y = x / hs;
      const auto tiny = vabs(r) < R(1e-4);
      const V rs = select(tiny, one, r);
      const V bounded = vmax(rs, broadcast<V>(-0.5));
      const V exponent = select(tiny, y * (one - R(0.5) * r), y / rs * vlog1p_any(bounded));
      const V h_new = hs * vexp(vmin(-exponent, broadcast<V>(1.0986122886681098)));
      const auto passes = wetness * (one + r) >= V(d[1]);
      next = select(large, select(passes, V{}, -h_new), next);
    }
    if (steep) {
      const V sharp = c.sharp(k);
      const auto near =
          mask_and(mask_and(newton, mask_and(sharp < R(1), mask_and(h <= wet, h > V{}))), vabs(x) > R(0.05) * h);
      if (any(near)) next = select(near, near_saturation(h, x, wet, sharp), next);
    }
    if (any_gentle) {
      const auto full = mask_and(mask_and(newton, gentle), h <= V(c.kink(k)));
      if (any(full)) next = select(full, vmax(next, -first_suction(k)), next);
    }
    return next;
  }

  // Where the slope of kr is unbounded at saturation the update is applied in u = h^e, in which kr is almost linear; u
  // falls to a tenth at most before the cell saturates, unless the update goes far beyond. In a restart it grows by no
  // more than 0.2 of its value at the wet suction.
  DGPDE_HD V near_saturation(V h, V x, V wet, V sharp) const {
    const V one = broadcast<V>(1);
    const V hs = select(h > V{}, h, one);
    const V growth = one - sharp * x / hs;
    const V least = suction_of(wet, sharp, R(-18));
    const V exponent = vmax(vmin(vlog(vmax(growth, broadcast<V>(0.1))) / sharp, broadcast<V>(80)), broadcast<V>(-80));
    V most = R(3) * wet;
    if (any_steady) {
      const V u = vexp(sharp * vlog(hs / wet)) + R(0.2);
      most = select(mask_and(steady, u < one), wet * vexp(vlog(u) / sharp), most);
    }
    const V next = vmax(vmin(hs * vexp(exponent), most), select(growth < V{}, least, V{}));
    // 1 - kr is less than round-off of kr
    const auto full = next < suction_of(wet, sharp, sizeof(R) == 8 ? R(-36) : R(-16));
    const auto passes = mask_or(growth < R(-1), mask_and(growth < V{}, hs <= least));
    return select(mask_or(passes, full), V{}, -next);
  }

  // Suction at which ln h^e has fallen by so much below that of the wet suction.
  DGPDE_HD V suction_of(V wet, V sharp, R log_u) const {
    return wet * vexp(vmax(log_u / sharp, broadcast<V>(sizeof(R) == 8 ? -660.0 : -55.0)));
  }

  // How far a full cell dries in a gentle iteration: just so far that its storage or the slope of kr is seen. Without
  // it a column without elastic storage that ceases to be fed jumps between full and far too dry.
  DGPDE_HD V first_suction(int64_t k) const {
    const V kink = c.kink(k), wet = c.wet(k), sharp = c.sharp(k);
    return select(kink > V{}, R(1.01) * kink, select(sharp < R(1), suction_of(wet, sharp, R(-18)), R(0.1) * wet));
  }

  // The rates of the last two steps, carried on; the second order moves a guess by half of the first at most.
  DGPDE_HD V predicted_head(int64_t k, V psi_old) {
    const V limit = R(0.3) * vabs(psi_old);
    const V first = dt * c.rate_psi(k), half = R(0.5) * vabs(first);
    const V second = R(0.5) * dt * (dt + dt_before) * c.rate_change(k);
    const V change = first + vmax(-half, vmin(half, second));
    return psi_old + vmax(-limit, vmin(limit, change));
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
