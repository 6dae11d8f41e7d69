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
  bool fresh = true;   // the sums of the plain solutes are to begin anew
  bool wary = false;   // an elimination with the factors in hand may lose digits
  bool sided = false;  // whether they are there for an elimination from above too
  bool watered = true,
       before_watered = true;  // whether cotangents of the water are asked for; of theta before a step

  DGPDE_HD TransportPlainAdjoint(const TransportProblem& problem, const TransportCotangents& cotangents,
                                 const Lanes& which, V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride), io(cotangents) {}

  // ---- for every solute ----------------------------------------------------------------------------------------

  DGPDE_HD R* carry_at(int64_t i, int j, int64_t k) const {
    return static_cast<R*>(io.carry) + this->state_at(i, j, k);
  }

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
    const R* given = static_cast<const R*>(io.concentration);
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(where, lane))
        put(x, lane, given[this->solute_at(interval[lane], i) * p.nz + k * p.n + lanes.column(lane)]);
    return x;
  }
  DGPDE_HD V side_cotangent(const void* given, int64_t i) const {
    V x{};
    if (!given) return x;
    const R* cotangent = static_cast<const R*>(given);
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

  // What the flux through a side gives, from its cotangent of_flux and its product with the cell's concentration, to the
  // value there and to the water's inflow q; returns the cotangent of the conductance of half a cell, of which the
  // dispersivity's part has been given. It is linear in the two, which may be sums over steps that share the rest.
  DGPDE_HD V side(int64_t i, int64_t k, const SideFlux<V>& f, V q, V of_flux, V of_flux_conc, int slot, int64_t face,
                  R direction) {
    const SoluteCells<V> s = solute(i);
    const V of_spread = (of_flux * f.spread0 + of_flux_conc * f.spread1) * (R(2) / this->size(k));
    const V of_q = of_flux * f.q0 + of_flux_conc * f.q1 + of_spread * s.input(k, kDispersivity) * this->sign(q);
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

  // Whether the step before step r, the next to be walked, has other coefficients, or another interval: so the sums are
  // the same ones however the run is cut into segments. Lanes all have the steps of constant water.
  DGPDE_HD bool ends_here(const WaterRows<V>& water, const TransportRows<V>& kept, int64_t r) const {
    if (!water.constant() || r == 1) return true;
    const WaterRow<V> before = water.row(r - 1);
    bool other = before.dt[0] != w.dt[0] || before.interval[0] != w.interval[0];
    for (int lane = 0; lane < W; ++lane)
      other |= get_mask(active, lane) != (lanes.owns(lane) && r - 1 < kept.count(lane));
    return other;
  }

  // Factors of the plain solutes for the steps that come next; for more than one of them from either end.
  DGPDE_HD void prepare(bool several) {
    if (!changed && (sided || !several)) return;
    if (changed) wary = false;
    for (int64_t i = 0; i < p.solutes(); ++i) {
      if (!this->is_plain(i)) continue;
      this->sides(i);
      if (changed) {
        this->template factorise<true>(i);
        wary |= any(doubtful);
      }
      if (several) {
        factorise_from_above(i);
        wary |= any(doubtful);
      }
    }
    sided = several;
  }

  // Steps r down to `first`, which share their coefficients.
  DGPDE_HD void reverse_plain(int64_t i, int64_t r, int64_t first, const WaterRows<V>& water,
                              const TransportRows<V>& kept, bool pulls) {
    if (changed || entered || p.solutes() > 1) this->sides(i);
    const V seed_top = side_cotangent(io.top_flux, i), seed_bottom = side_cotangent(io.bottom_flux, i);
    const int64_t last = p.nz - 1;
    Sweep sweep{wanted(i), fresh, gives(i), all(active), seed_top * top.f1, seed_bottom * bottom.f1};
    V of_top{}, of_bottom{}, of_top_conc{}, of_bottom_conc{};
    bool rising = false;
    for (int64_t step = r; step >= first; --step) {
      if (step == r || wary) enter(i, step, water, sweep), rising = false;
      const bool more = step > first && !wary;
      const V *now = kept.at(step, i, 0), *old = kept.at(step - 1, i, 0);
      sweep.ahead = step > 1 ? kept.at(step - 2, i, 0) : now;
      const Sums sums = sweep.everyone && !sweep.fresh && !sweep.gives ? sums_of(sweep.wants) : Sums::look;
      if (!more)
        substitute<false, Sums::look>(rising, i, now, old, sweep);
      else if (sums == Sums::faces)
        substitute<true, Sums::faces>(rising, i, now, old, sweep);
      else if (sums == Sums::faces_cells)
        substitute<true, Sums::faces_cells>(rising, i, now, old, sweep);
      else if (sums == Sums::all)
        substitute<true, Sums::all>(rising, i, now, old, sweep);
      else
        substitute<true, Sums::look>(rising, i, now, old, sweep);
      check_finite(rising ? sweep.top : sweep.bottom);
      if (wary) check_plain(i);
      const V top_flux = sweep.top + seed_top, bottom_flux = sweep.bottom + seed_bottom;
      of_top = of_top + top_flux, of_bottom = of_bottom + bottom_flux;
      of_top_conc = of_top_conc + top_flux * select(active, now[last], V{});
      of_bottom_conc = of_bottom_conc + bottom_flux * select(active, now[0], V{});
      rising = !rising, sweep.fresh = false;
    }
    const V top_spread = side(i, last, top, -flux(p.nz), of_top, of_top_conc, kTopValue, p.nz, R(-1));
    const V bottom_spread = side(i, 0, bottom, flux(0), of_bottom, of_bottom_conc, kBottomValue, 0, R(1));
    if (diffuses(i)) pull_spread(i, last, top_spread), pull_spread(i, 0, bottom_spread);
    if (pulls) pull(i);
  }

  // The factors of an elimination from the top cell down, beside those of one from the bottom up.
  DGPDE_HD void factorise_from_above(int64_t i) {
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    V up_below{};
    this->rows(i, [&](int64_t k, V lo, V diag, V up, V, V) {
      c.diag(k) = diag, c.lo(k) = lo, c.up(k) = up_below, up_below = up;  // c.up: what row k has of the one below
    });
    doubtful = Mask<V>{};
    V lo_above{}, carried{};  // of the row above: lo, and what its multiplier takes of the one below
    for (int64_t k = last; k >= 0; --k) {
      const V fill = lo_above * carried;
      doubtful = mask_or(doubtful, vabs(fill) > R(Base::kMostFill) * vabs(V(c.diag(k))));
      const V inv = R(1) / (c.diag(k) - fill), per_hold = R(1) / s.hold(k);
      carried = c.up(k) * inv;
      s.inv_above(k) = inv, s.pass_above(k) = s.hold(k) * inv, s.pass(k) = s.hold(k) * s.inv(k);
      s.from_below(k) = c.up(k) * per_hold, s.from_above(k) = lo_above * per_hold;
      lo_above = c.lo(k);
    }
    doubtful = mask_and(doubtful, active);
  }

  // Which of the sums of a plain solute anybody asks for.
  struct Wanted {
    bool cells, before, faces;
  };
  // What a sweep of every lane adds to, when it does nothing else; otherwise it has to look.
  enum class Sums { look, faces, faces_cells, all };
  static DGPDE_HD Sums sums_of(const Wanted& wants) {
    if (!wants.faces) return Sums::look;
    if (wants.before) return wants.cells ? Sums::all : Sums::look;
    return wants.cells ? Sums::faces_cells : Sums::faces;
  }
  // What the sweeps of a run of equal steps share.
  struct Sweep {
    Wanted wants;
    bool fresh, gives, everyone;
    V seed_top, seed_bottom;   // what the fluxes through the sides add to the right-hand side of each step
    V top{}, bottom{};         // multipliers there of the step in hand
    const V* ahead = nullptr;  // the row of concentrations that is fetched for the sweep after the next one
  };

  // Whether something comes and goes in single steps.
  DGPDE_HD bool gives(int64_t i) const {
    return w.source || p.kinds[i].parent >= 0 || io.grad[i].slot[kProduction].data || this->has_daughter(i);
  }

  // Rows come from main memory, and what the processor fetches by itself stops at the end of each.
  static DGPDE_HD void fetch([[maybe_unused]] const V* at) {
#ifndef __CUDACC__
    __builtin_prefetch(at, 0, 2);
#endif
  }

  // The right-hand side of the last of some equal steps, eliminated from the bottom up.
  DGPDE_HD void enter(int64_t i, int64_t r, const WaterRows<V>& water, const Sweep& sweep) {
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    const bool tells = this->has_daughter(i);
    Mask<V> ends{};
    const bool observes = observed_lanes(water, r, ends);
    V y{};
    for (int64_t k = 0; k <= last; ++k) {
      V of_c = s.next(k, 0);
      if (observes) of_c = of_c + observed(i, k, ends);
      if (tells) of_c = of_c + s.input(k, kDecay) * s.store(k) * s.of_decayed(k);
      if (k == last) of_c = of_c + sweep.seed_top;
      if (k == 0) of_c = of_c + sweep.seed_bottom;
      of_c = select(active, of_c, V{});
      if (wary) c.change(k) = of_c;
      s.half(k) = y = of_c * s.inv(k) - s.elim(k) * y;
    }
  }

  // Multipliers of a step, from one end of the column to the other, and what they add to the sums; with `kMore` in the
  // same sweep the elimination for the step before, whose right-hand side they are, which then ends where its
  // substitution begins.
  template <bool kMore, Sums kSums>
  DGPDE_HD void substitute(bool rising, int64_t i, const V* now, const V* old, Sweep& sweep) {
    rising ? substitute<true, kMore, kSums>(i, now, old, sweep) : substitute<false, kMore, kSums>(i, now, old, sweep);
  }
  // A function of its own: inside of the run its addresses would not stay in registers.
  template <bool kRising, bool kMore, Sums kSums>
  DGPDE_HD_NOINLINE void substitute(int64_t i, const V* now, const V* old, Sweep& sweep) {
    constexpr bool kBare = kSums != Sums::look;
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1, begin = kRising ? 0 : last, end = last - begin, toward = kRising ? 1 : -1;
    const bool cells = kBare ? kSums != Sums::faces : sweep.wants.cells;
    const bool before = kBare ? kSums == Sums::all : sweep.wants.before, faces = kBare || sweep.wants.faces;
    const bool fresh_sums = !kBare && sweep.fresh, together = kBare || sweep.everyone;
    const auto there = [&](const V* row, int64_t k) { return together ? row[k] : select(active, row[k], V{}); };
    // rounded: a lane sums up the same way in every kind of sweep
    const auto add = [&](V& sum, V x) { sum = fresh_sums ? x : sum + rounded(x); };
    const auto inverse = [&](int64_t k) -> V { return kRising ? s.inv(k) : s.inv_above(k); };
    V lambda{}, conc{}, y{}, seed{};
    if (kMore) seed = (kRising ? sweep.seed_bottom : sweep.seed_top) * inverse(begin);
    int64_t behind = last;
    for (int64_t k = begin, j = 0; j <= last; ++j, k += toward) {
      fetch(sweep.ahead + k);
      const V lambda_behind = lambda, conc_behind = conc;
      conc = there(now, k);
      if constexpr (kMore) {
        const V neighbour = kRising ? s.from_below(k) : s.from_above(k);
        const V made = kRising ? s.pass_above(k) : s.pass(k), meets = kRising ? s.pass(k) : s.pass_above(k);
        lambda = s.half(k) - neighbour * made * lambda;
        y = meets * lambda + seed - neighbour * meets * y;
        s.half(k) = y, seed = V{};
      } else {
        lambda = s.half(k) - (kRising ? s.from_below(k) * s.pass_above(k) : s.couple(k)) * lambda;
        const V carry = lambda * s.hold(k);
        s.next(k, 0) = together ? carry : select(active, carry, V(s.next(k, 0)));
      }
      if (cells) add(s.of_now(k), lambda * conc);
      if (before) add(s.of_old(k), lambda * there(old, k));
      if (faces) {
        // of the face between this cell and the one behind; the first cell has none, and gives to that above the top
        const int64_t face = kRising ? behind : k;
        const V through = kRising ? lambda - lambda_behind : lambda_behind - lambda;
        add(s.of_below(face), through * (kRising ? conc_behind : conc));
        add(s.of_above(face), through * (kRising ? conc : conc_behind));
        behind = k;
      }
      if constexpr (!kBare) {
        if (sweep.gives) give(i, k, lambda, conc);
        if (wary) c.rhs(k) = lambda;
      }
      if (j == 0) (kRising ? sweep.bottom : sweep.top) = lambda;
    }
    (kRising ? sweep.top : sweep.bottom) = lambda;
    if (kMore) s.half(end) = y + (kRising ? sweep.seed_top : sweep.seed_bottom) * inverse(end);
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
      V of_spread = from_below;
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
