// The adjoint of a plain solute's step (transport_plain.h): what it shares with every other solute's, and its own sweeps.
//
// Each step adds products of multipliers and concentrations to five sums a cell: the cotangents of its matrix and of
// what is held over. They are pulled to the inputs and to the water once for all steps that share their coefficients,
// an interval of steady water at most, and in water that changes after every step.
#pragma once

#include "transport_replay.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportPlainAdjoint : protected TransportReplay<V> {
  using Base = TransportReplay<V>;

 protected:
  using Base::p, Base::lanes, Base::c, Base::w, Base::dt, Base::inv_dt, Base::weight, Base::interval, Base::active,
      Base::top, Base::bottom, Base::solute, Base::flux, Base::changed, Base::entered, Base::doubtful;
  using Base::W;
  using typename Base::R;
  using typename Base::Upwind;

  const TransportCotangents& io;
  WaterRow<V> bar;
  V worst{};
  bool fresh = true;  // the sums of the plain solutes are to begin anew
  bool wary = false;  // an elimination may have lost digits
  bool watered = true,
       before_watered = true;  // whether cotangents of the water are asked for; of theta before a step

  DGPDE_HD TransportPlainAdjoint(const TransportProblem& problem, const TransportCotangents& cotangents,
                                 const Lanes& which, V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride), io(cotangents) {}

  // ---- for every solute ----------------------------------------------------------------------------------------

  DGPDE_HD double* carry_at(int64_t i, int j, int64_t k) const { return io.carry + this->state_at(i, j, k); }

  // Lanes whose step ends an interval, when concentrations are observed there; whether there are any.
  DGPDE_HD bool observed_lanes(const WaterRows<V>& water, int64_t r, Mask<V>& ends) const {
    bool some = false;
    if (!io.concentration) return some;
    for (int lane = 0; lane < W; ++lane) {
      const bool there = get_mask(active, lane) && water.ends_interval(r, lane);
      put_mask(ends, lane, there);
      some |= there;
    }
    return some;
  }
  DGPDE_HD V observed(int64_t i, int64_t k, Mask<V> where) const {
    V x{};
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(where, lane))
        put(x, lane, io.concentration[this->solute_at(interval[lane], i) * p.nz + k * p.n + lanes.column(lane)]);
    return x;
  }
  DGPDE_HD V side_cotangent(const double* cotangent, int64_t i) const {
    V x{};
    if (!cotangent) return x;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane)) put(x, lane, cotangent[this->solute_at(interval[lane], i) + lanes.column(lane)]);
    return weight * x;
  }
  DGPDE_HD void add_series(const MutableView& v, int64_t k, V x) const {
    if (!v.data) return;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane))
        static_cast<R*>(v.data)[interval[lane] * v.t + k * v.z + lanes.column(lane) * v.n] += get(x, lane);
  }

  // What the flux through a side gives, from the cotangent of_flux, to the value there and to the water's inflow q;
  // returns the cotangent of the conductance of half a cell, of which the dispersivity's part has been given.
  DGPDE_HD V side(int64_t i, int64_t k, const SideFlux<V>& f, V q, V of_flux, V conc, int slot, int64_t face,
                  R direction) {
    const SoluteCells<V> s = solute(i);
    const V of_spread = of_flux * (f.spread0 + f.spread1 * conc) * (R(2) / this->size(k));
    const V of_q = of_flux * (f.q0 + f.q1 * conc) + of_spread * s.input(k, kDispersivity) * this->sign(q);
    s.sum(k, kDispersivity) = s.sum(k, kDispersivity) + of_spread * vabs(q);
    bar.flux[face] = bar.flux[face] + direction * of_q;
    add_series(io.grad[i].slot[slot], 0, of_flux * f.v0);
    return of_spread;
  }
  DGPDE_HD bool diffuses(int64_t i) const {
    return p.in[i].slot[kDiffusion].data || io.grad[i].slot[kDiffusion].data;
  }
  // What the cotangent of the diffusion in the soil of cell k gives.
  DGPDE_HD void pull_spread(int64_t i, int64_t k, V of_spread) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    const V theta = c.theta(k), to = this->theta_power(kind, k);
    s.sum(k, kDiffusion) = s.sum(k, kDiffusion) + of_spread * to;
    bar.theta[k] =
        bar.theta[k] + of_spread * s.input(k, kDiffusion) * static_cast<R>(kind.diffusion_power) * to / theta;
  }

  // What is left of a transposed row, against the size of its terms.
  DGPDE_HD void check_row(V left, V terms) {
    const R limit = vmax(static_cast<R>(p.linear_tolerance), R(1e4) * std::numeric_limits<R>::epsilon());
    // Far from all that is observed the multipliers fade below the normal numbers, whose digits are not all there.
    const R fading = std::numeric_limits<R>::min() / std::numeric_limits<R>::epsilon();
    worst = select(vabs(left) <= limit * terms + fading, worst, broadcast<V>(1));
  }
  // What is not a number spreads through the substitution to the end of it.
  DGPDE_HD void check_finite(V lambda) {
    worst = select(mask_and(active, mask_not(finite(lambda))), broadcast<V>(1), worst);
  }

  // ---- plain solutes -------------------------------------------------------------------------------------------

  // Whether the step before this one, the next to be walked, has other coefficients, or another interval: so the sums
  // are the same ones however the run is cut into segments.
  DGPDE_HD bool ends_here(const WaterRows<V>& water, const TransportRows<V>& kept, int64_t r) const {
    if (!water.constant() || r == 1) return true;
    const WaterRow<V> before = water.row(r - 1);
    for (int lane = 0; lane < W; ++lane) {
      const bool there = lanes.owns(lane) && r - 1 < kept.count(lane);
      if (there != get_mask(active, lane)) return true;
      if (there && (before.dt[lane] != w.dt[lane] || before.interval[lane] != w.interval[lane])) return true;
    }
    return false;
  }

  DGPDE_HD void reverse_plain(int64_t i, int64_t r, const WaterRows<V>& water, const TransportRows<V>& kept,
                              bool pulls) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    if (changed || entered || p.solutes() > 1) this->sides(i);
    if (changed) {
      this->template factorise<true>(i);
      wary |= any(doubtful);
    }
    const bool tells = this->has_daughter(i);
    const V seed_top = side_cotangent(io.top_flux, i), seed_bottom = side_cotangent(io.bottom_flux, i);
    Mask<V> ends{};
    const bool observes = observed_lanes(water, r, ends);
    V z{}, elim{};
    for (int64_t k = 0; k <= last; ++k) {
      V of_c = s.next(k, 0);
      if (observes) of_c = of_c + observed(i, k, ends);
      if (tells) of_c = of_c + s.input(k, kDecay) * s.store(k) * s.of_decayed(k);
      if (k == last) of_c = of_c + seed_top * top.f1;
      if (k == 0) of_c = of_c + seed_bottom * bottom.f1;
      of_c = select(active, of_c, V{});
      if (wary) c.change(k) = of_c;
      z = of_c - elim * z;
      c.rhs(k) = z, elim = s.elim(k);
    }
    const V *now = kept.at(r, i, 0), *old = kept.at(r - 1, i, 0);
    const Wanted wants = wanted(i);
    const bool everyone = all(active);
    const auto add = [&](V& sum, V x) { sum = fresh ? x : sum + x; };
    const bool gives = w.source || kind.parent >= 0 || io.grad[i].slot[kProduction].data || tells;
    V lambda{}, above{};
    for (int64_t k = last; k >= 0; --k) {
      const V lambda_above = lambda, conc = everyone ? now[k] : select(active, now[k], V{});
      lambda = c.rhs(k) * s.inv(k) - s.couple(k) * lambda;
      if (wants.cells) add(s.of_now(k), lambda * conc);
      if (wants.before) add(s.of_old(k), lambda * (everyone ? old[k] : select(active, old[k], V{})));
      if (wants.faces && k < last) {
        const V through = lambda_above - lambda;
        add(s.of_below(k), through * conc), add(s.of_above(k), through * above);
      }
      if (fresh) s.of_side(k) = V{};
      const V carry = lambda * s.hold(k);
      s.next(k, 0) = everyone ? carry : select(active, carry, V(s.next(k, 0)));
      if (gives) give(i, k, lambda, conc);
      if (wary || k == last || k == 0) c.rhs(k) = lambda;
      above = conc;
    }
    check_finite(lambda);
    if (wary) check_plain(i);
    const V at_top = select(active, now[last], V{}), at_bottom = select(active, now[0], V{});
    const V top_flux = c.rhs(last) + seed_top, bottom_flux = c.rhs(0) + seed_bottom;
    s.of_side(last) = s.of_side(last) + side(i, last, top, -flux(p.nz), top_flux, at_top, kTopValue, p.nz, R(-1));
    s.of_side(0) = s.of_side(0) + side(i, 0, bottom, flux(0), bottom_flux, at_bottom, kBottomValue, 0, R(1));
    if (pulls) pull(i);
  }

  // What comes and goes in single steps: sources, production, what a parent and a daughter pass on.
  DGPDE_HD void give(int64_t i, int64_t k, V lambda, V conc) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteInputs<MutableView>& grad = io.grad[i];
    const SoluteCells<V> s = solute(i);
    const R dz = this->size(k);
    if (w.source) {
      const V g = select(active, w.source[k], V{}), gone = select(g < V{}, lambda * conc, V{});
      V come{};
      if (in.slot[kSourceC].data) come = select(g > V{}, lambda * this->series(in.slot[kSourceC], k), V{});
      bar.source[k] = bar.source[k] + gone + come;
      add_series(grad.slot[kSourceC], k, lambda * vmax(g, V{}));
    }
    add_series(grad.slot[kProduction], k, lambda * dz);
    if (kind.parent >= 0) {
      const SoluteCells<V> parent = solute(kind.parent);
      s.sum(k, kYield) = s.sum(k, kYield) + lambda * parent.decayed(k);
      parent.of_decayed(k) = parent.of_decayed(k) + lambda * s.input(k, kYield);
    }
    // decayed = decay dz (theta + a) c
    const V of_held = s.of_decayed(k) * conc, of_storage = s.input(k, kDecay) * dz * of_held;
    if (this->has_daughter(i)) {
      s.sum(k, kDecay) = s.sum(k, kDecay) + s.store(k) * of_held;
      s.sum(k, kCapacity) = s.sum(k, kCapacity) + of_storage;
      bar.theta[k] = bar.theta[k] + of_storage;
    }
  }

  // Which of the sums of a plain solute anybody asks for.
  struct Wanted {
    bool cells, before, faces;
  };
  DGPDE_HD Wanted wanted(int64_t i) const {
    const MutableView* grad = io.grad[i].slot;
    return {watered || grad[kDecay].data || grad[kCapacity].data, before_watered || grad[kCapacity].data,
            watered || grad[kDispersivity].data || grad[kDiffusion].data};
  }

  // From the sums to the inputs and the water of the steps that they were made in.
  DGPDE_HD void pull(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    const bool spreads = diffuses(i);
    const Wanted wants = wanted(i);
    V from_below{}, diffused = wants.faces ? this->diffusive(kind, s, i, 0) : V{};
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = this->size(k);
      if (wants.cells) {
        const V gone = -s.of_now(k), of_storage = dz * (inv_dt + s.input(k, kDecay)) * gone;
        s.sum(k, kDecay) = s.sum(k, kDecay) + s.store(k) * gone;
        s.sum(k, kCapacity) = s.sum(k, kCapacity) + of_storage;
        bar.theta[k] = bar.theta[k] + of_storage;
        if (bar.taken && kind.uptake) bar.taken[k] = bar.taken[k] + gone;
        if (bar.elastic) bar.elastic[k] = bar.elastic[k] + gone;
      }
      if (wants.before) {
        const V held = dz * inv_dt * s.of_old(k);
        s.sum(k, kCapacity) = s.sum(k, kCapacity) + held;
        bar.before[k] = bar.before[k] + held;
      }
      V of_spread = s.of_side(k) + from_below;
      if (wants.faces && k + 1 < p.nz) {
        const V q = flux(k + 1), of_conductance = s.of_below(k) - s.of_above(k);
        const V next = this->diffusive(kind, s, i, k + 1);
        const auto g = this->in_series(k, this->dispersion(s, k, diffused, q), this->dispersion(s, k + 1, next, q));
        diffused = next;
        const V of_lower = of_conductance * g.by_below, of_upper = of_conductance * g.by_above;
        const Upwind at = this->weights(k, q);
        bar.flux[k + 1] =
            bar.flux[k + 1] + at.below * s.of_below(k) + at.above * s.of_above(k) +
            (of_lower * s.input(k, kDispersivity) + of_upper * s.input(k + 1, kDispersivity)) * this->sign(q);
        s.sum(k, kDispersivity) = s.sum(k, kDispersivity) + of_lower * vabs(q);
        s.sum(k + 1, kDispersivity) = s.sum(k + 1, kDispersivity) + of_upper * vabs(q);
        from_below = of_upper;
        of_spread = of_spread + of_lower;
      }
      if (spreads) pull_spread(i, k, of_spread);
    }
  }

  // Every transposed row, with lambda in c.rhs and its right-hand side in c.change.
  DGPDE_HD void check_plain(int64_t i) {
    V left{}, terms{}, up_below{};  // of the row below, to which its neighbour above still adds
    this->rows(i, [&](int64_t k, V lo, V diag, V up, V, V) {
      const V lambda = c.rhs(k), asked = c.change(k);
      if (k > 0) check_row(left + lo * lambda, terms);
      left = diag * lambda - asked;
      if (k > 0) left = left + up_below * c.rhs(k - 1);
      terms = vabs(diag * lambda) + vabs(asked);
      up_below = up;
    });
    check_row(left, terms);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
