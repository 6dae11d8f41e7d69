// The step of a plain solute: one that is linear in c, without states of its own beside c (upwind or central, no sorption
// or linear sorption in equilibrium, which is retardation: m = a c joins the storage of the water).
//
//   row k:   (of_c + fluxes) c' = hold c + what comes in,      hold = dz (theta + a)/dt of the step's beginning
//
// Its matrix does not know the state. As long as the water, the step and the lanes that take part stay as they were
// its factors are kept, and a step is two sweeps of two operations a cell:
//
//   J = L U with pivots 1/inv:     r_k = load_k inv_k - couple_k r_{k-1},     c'_k = r_k - elim_k c'_{k+1}
//
// The transposed system is eliminated from either end (lo and up: what row k has of its neighbours):
//
//   from below:  y_k = g_k inv_k - elim_k y_{k-1},            lambda_k = y_k - couple_k lambda_{k+1}
//                elim_k = up_{k-1} inv_k,                     couple_k = lo_{k+1} inv_k
//   from above:  the same with the rows in reverse, with pivots of its own
//
// With g = hold lambda of the step after it, a step whose elimination begins where that one's substitution began needs
// no sweep of its own: both go along the column together, and the next pair the other way. Over hold the neighbours'
// coefficients serve both factors of a pair, elim = (up/hold) pass with pass = hold inv: what a sweep reads is little.
#pragma once

#include "transport_rows.h"
#include "transport_step.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportPlain : protected TransportStep<V> {
  using Base = TransportStep<V>;

 protected:
  using Base::Base;
  using Base::p, Base::lanes, Base::c, Base::w, Base::dt, Base::inv_dt, Base::active, Base::solute, Base::flux,
      Base::lack, Base::doubtful, Base::top, Base::bottom;
  using typename Base::R;

  DGPDE_HD bool is_plain(int64_t i) const {
    const SoluteKind& kind = p.kinds[i];
    return p.scheme != Advection::tvd && !kind.kinetic && !kind.immobile &&
           (kind.isotherm == Isotherm::none || kind.isotherm == Isotherm::linear);
  }
  DGPDE_HD bool has_daughter(int64_t i) const {
    for (int64_t j = i + 1; j < p.solutes(); ++j)
      if (p.kinds[j].parent == i) return true;
    return false;
  }

  // Weights of the concentrations below and above in the advective part of the flux through the face above cell k.
  struct Upwind {
    V below, above;
  };
  DGPDE_HD Upwind weights(int64_t k, V q) const {
    const V one = broadcast<V>(1);
    if (p.scheme == Advection::central) {
      const V above = broadcast<V>(this->size(k) / (this->size(k) + this->size(k + 1)));
      return {one - above, above};
    }
    const V below = select(q >= V{}, one, V{});
    return {below, one - below};
  }

  // What takes the solute out of cell k with the water, beside the sides [m/s].
  DGPDE_HD V loss(const SoluteKind& kind, int64_t k) const {
    V out{};
    if (w.taken && kind.uptake) out = out + select(active, w.taken[k], V{});
    if (w.elastic) out = out + select(active, w.elastic[k], V{});
    if (w.source) out = out - vmin(select(active, w.source[k], V{}), V{});
    return k == p.nz - 1 ? out + lack : out;
  }

  DGPDE_HD V diffusive(const SoluteKind& kind, const SoluteCells<V>& s, int64_t i, int64_t k) const {
    return p.in[i].slot[kDiffusion].data ? s.input(k, kDiffusion) * this->theta_power(kind, k) : V{};
  }

  // Rows of the matrix from the bottom up: take(k, lo, diag, up, q and conductance of the face above).
  template <class Take>
  DGPDE_HD void rows(int64_t i, const Take& take) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    V spread = diffusive(kind, s, i, 0), lo{}, from_below{};
    for (int64_t k = 0; k <= last; ++k) {
      V diag = s.store(k) * (inv_dt + s.input(k, kDecay)) + loss(kind, k) + from_below, up{}, q{}, d{}, next{};
      if (k < last) {
        next = diffusive(kind, s, i, k + 1);
        q = flux(k + 1);
        d = this->in_series(k, this->dispersion(s, k, spread, q), this->dispersion(s, k + 1, next, q)).value;
        const Upwind at = weights(k, q);
        diag = diag + q * at.below + d, up = q * at.above - d;
        from_below = -up;
        if (k == 0) diag = diag - bottom.f1;
        take(k, lo, diag, up, q, d);
        lo = -(q * at.below + d);
      } else {
        if (k == 0) diag = diag - bottom.f1;
        take(k, lo, diag - top.f1, up, q, d);
      }
      spread = next;
    }
  }

  // Sides of the step, from the values of its interval.
  DGPDE_HD void sides(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    const V q_top = -flux(p.nz), q_bottom = flux(0);
    c.spread(last) = diffusive(kind, s, i, last), c.spread(0) = diffusive(kind, s, i, 0);
    this->top_value = this->series(in.slot[kTopValue], 0),
    this->bottom_value = this->series(in.slot[kBottomValue], 0);
    top = side_flux<V>(kind.top, q_top, this->top_value, this->half_conductance(s, last, q_top),
                       p.evaporation && !kind.evaporates);
    bottom = side_flux<V>(kind.bottom, q_bottom, this->bottom_value, this->half_conductance(s, 0, q_bottom), false);
  }

  // Factors, storage and what is held over from the step's beginning; `sides` have been called.
  template <bool kTransposed>
  DGPDE_HD void factorise(int64_t i) {
    const SoluteCells<V> s = solute(i);
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = this->size(k);
      const V a = s.input(k, kCapacity);
      s.store(k) = dz * (c.theta(k) + a);
      s.hold(k) = dz * inv_dt * (c.theta_old(k) + a);
    }
    doubtful = Mask<V>{};
    V elim{}, inv_below{}, up_below{};
    rows(i, [&](int64_t k, V lo, V diag, V up, V, V) {
      const V fill = lo * elim;
      doubtful = mask_or(doubtful, vabs(fill) > R(Base::kMostFill) * vabs(diag));
      const V inv = R(1) / (diag - fill);
      elim = up * inv;
      s.inv(k) = inv;
      if constexpr (kTransposed) {
        s.elim(k) = up_below * inv, s.couple(k) = V{};
        if (k > 0) s.couple(k - 1) = lo * inv_below;
        inv_below = inv, up_below = up;
      } else {
        s.elim(k) = elim, s.couple(k) = lo * inv;
      }
    });
    doubtful = mask_and(doubtful, active);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
