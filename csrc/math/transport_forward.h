// Solutes in a pack of columns, forward in time along the accepted steps of the water.
//
// A problem that is linear in c (upwind or central, no or linear sorption) is one direct solve a step and solute, with
// factors that are kept where it is plain (transport_plain.h), else Newton in x. Every iterate is solved for itself, not for its update, so that the linear problems of positive schemes
// stay positive to the last bit.
#pragma once

#include "transport_plain.h"

namespace dgpde {
inline namespace DGPDE_ISA {

enum TransportStatus : int32_t { kDone = 0, kNoConvergence = 1, kNotFinite = 2, kNoMobileWater = 4 };

template <class V>
class TransportForward : TransportPlain<V> {
  using Base = TransportPlain<V>;
  using Base::p, Base::lanes, Base::c, Base::w, Base::dt, Base::inv_dt, Base::weight, Base::interval, Base::active,
      Base::top, Base::bottom, Base::solute, Base::flux, Base::lack, Base::changed, Base::entered;
  using Base::W;
  using typename Base::Local;
  using typename Base::R;

 public:
  DGPDE_HD TransportForward(const TransportProblem& problem, const TransportOutput& output, const Lanes& which,
                            V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride), out(output) {}

  // `kept` may be null: nothing is recorded.
  DGPDE_HD void run(const WaterRows<V>& water, TransportRows<V>* kept) {
    begin();
    if (kept) keep(*kept, 0);
    const int64_t longest = water.longest();
    int64_t counts[W];
    for (int lane = 0; lane < W; ++lane) counts[lane] = water.count(lane);
    first_mass(water);
    for (int64_t r = 1; r < longest; ++r) {
      for (int lane = 0; lane < W; ++lane) put_mask(active, lane, runs[lane] && r < counts[lane]);
      if (!any(active)) break;
      this->load_water(water, r);
      check_mobile();
      for (int64_t i = 0; i < p.solutes(); ++i) {
        if (this->is_plain(i)) {
          advance_plain(i, kept ? kept->at(r, i, 0) : nullptr);
          continue;
        }
        this->coefficients(i);
        p.scheme == Advection::tvd ? advance<true>(i) : advance<false>(i);
        settle(i);
      }
      for (int lane = 0; lane < W; ++lane)
        if (get_mask(failed, lane) && runs[lane]) {
          runs[lane] = false, counts[lane] = r;
          out.failed_time[lanes.column(lane)] = time(water, r, lane);
          out.status[lanes.column(lane)] = status[lane];
        }
      accept();
      if (kept) keep(*kept, r);
      observe(water, r);
    }
    for (int lane = 0; lane < W; ++lane) {
      if (kept) kept->finish(lane, counts[lane]);
      if (!lanes.owns(lane)) continue;
      out.iterations[lanes.column(lane)] += iterations[lane];
    }
    end();
  }

 private:
  const TransportOutput& out;
  bool runs[W];
  int32_t status[W];
  int64_t iterations[W];
  Mask<V> failed{};
  V peclet{}, courant{};
  static constexpr int kCircles = 10;  // iterations after which Newton's steps are shortened for a while

  // What Newton may leave of a row, as a share of its terms, and of the largest row's; the last where its steps go in
  // circles. In float32 little more than the rounding of the row itself, or it would be seen in the concentrations.
  static constexpr bool kSingle = sizeof(R) == 4;
  static constexpr R kOfTerms = kSingle ? R(4e-6) : R(1e-13), kOfLargest = kSingle ? R(5e-7) : R(1e-15),
                     kInCircles = kSingle ? R(8e-6) : R(1e-12);

  DGPDE_HD int64_t solute_at(int64_t t, int64_t i) const { return (t * p.solutes() + i) * p.n; }
  DGPDE_HD int64_t state_at(int64_t i, int s, int64_t k) const { return ((i * kStates + s) * p.nz + k) * p.n; }

  DGPDE_HD void begin() {
    for (int lane = 0; lane < W; ++lane) {
      const int64_t column = lanes.column(lane);
      runs[lane] = lanes.owns(lane) && !(p.skip && p.skip[column] != 0);
      status[lane] = kDone, iterations[lane] = 0;
    }
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) {
        s.decayed(k) = V{};
        if (out.start) {
          const V c0 = p.in[i].slot[kInitial].data ? load<V>(p.in[i].slot[kInitial], 0, k, lanes) : V{};
          const V shape = s.input(k, kShape);
          s.state(k, 0) = state_of<V>(kind.isotherm, c0, shape);
          s.state(k, 1) = phases<V>(kind.isotherm, s.state(k, 0), s.input(k, kCapacity), shape).m;
          s.state(k, 2) = c0;
        } else {
          for (int j = 0; j < kStates; ++j)
            s.state(k, j) = load<V>(View{static_cast<R*>(out.state) + state_at(i, j, k), 0, 0, 1}, 0, 0, lanes);
        }
      }
    }
  }

  DGPDE_HD void end() {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    for (int64_t i = 0; i < p.solutes(); ++i)
      for (int j = 0; j < kStates; ++j)
        for (int64_t k = 0; k < p.nz; ++k)
          store<V>(static_cast<R*>(out.state) + state_at(i, j, k), 1, lanes, own, solute(i).state(k, j));
    if (p.scheme != Advection::central) return;
    for (int lane = 0; lane < W; ++lane) {
      if (!lanes.owns(lane)) continue;
      const int64_t column = lanes.column(lane);
      out.peclet[column] = vmax(out.peclet[column], static_cast<double>(get(peclet, lane)));
      out.courant[column] = vmax(out.courant[column], static_cast<double>(get(courant, lane)));
    }
  }

  // Water must be left that moves.
  DGPDE_HD void check_mobile() {
    failed = Mask<V>{};
    for (int64_t i = 0; i < p.solutes(); ++i) {
      if (!p.kinds[i].immobile) continue;
      for (int64_t k = 0; k < p.nz; ++k) fail(this->mobile(solute(i), k) <= V{}, kNoMobileWater);
    }
  }
  DGPDE_HD void fail(Mask<V> where, int32_t reason) {
    where = mask_and(where, mask_and(active, mask_not(failed)));
    if (!any(where)) return;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(where, lane)) status[lane] = reason;
    failed = mask_or(failed, where);
  }
  DGPDE_HD double time(const WaterRows<V>& water, int64_t r, int lane) const {
    double passed = p.times[w.interval[lane]];
    for (int64_t before = 1; before < r; ++before) {
      const WaterRow<V> row = water.row(before);
      if (row.interval[lane] == w.interval[lane]) passed += row.dt[lane];
    }
    return passed;
  }

  // The new state x of a solute.
  template <bool kTvd>
  DGPDE_HD void advance(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    for (int64_t k = 0; k < p.nz; ++k) c.x(k) = s.state(k, 0);
    if (!kTvd && (kind.isotherm == Isotherm::none || kind.isotherm == Isotherm::linear)) {
      this->enter_phases(i);
      this->template matrix<false>();
      if (kind.isotherm == Isotherm::linear) this->template scale_columns<false>();
      for (int64_t k = 0; k < p.nz; ++k) c.rhs(k) = c.load(k);
      this->template solve<false, false>();
      for (int64_t k = 0; k < p.nz; ++k) c.x(k) = c.rhs(k);
      for (int lane = 0; lane < W; ++lane) iterations[lane] += get_mask(active, lane);
    } else {
      newton<kTvd>(i);
    }
    this->enter_phases(i);
    Mask<V> good = finite(V(c.x(0)));
    for (int64_t k = 1; k < p.nz; ++k) good = mask_and(good, finite(V(c.x(k))));
    fail(mask_not(good), kNotFinite);
  }

  // Langmuir's isotherm has a pole at 1 + b c = 0, beyond which stands another solution: an iterate comes nearer to it by
  // half at most.
  static DGPDE_HD V off_the_pole(V b, V x, V next) {
    const V one = broadcast<V>(1), least = R(0.5) * (one + b * x) - one;  // of b next
    const auto low = b * next < least;
    return select(low, least / select(low, b, one), next);
  }

  template <bool kTvd>
  DGPDE_HD void newton(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    Mask<V> open = mask_and(active, mask_not(failed));
    for (int64_t count = 0; any(open); ++count) {
      this->enter_phases(i);
      this->template matrix<kTvd>();
      // What is left of each row, against the size of its terms and of the largest row's
      V excess = broadcast<V>(-std::numeric_limits<R>::infinity()), largest{};
      for (int64_t k = 0; k < p.nz; ++k) {
        const V stored = c.of_m(k) * c.m(k);
        const V fluxes = this->template times_row<kTvd>(k, [&](int64_t j) { return V(c.c(j)); });
        const V terms = vabs(stored) + vabs(V(c.diag(k)) * V(c.c(k))) + vabs(V(c.load(k)));
        excess = vmax(excess, vabs(stored + fluxes - c.load(k)) - kOfTerms * terms);
        largest = vmax(largest, terms);
        // load of the next iterate: what is not linear in x is taken along at this one
        const V bent = this->template times_row<kTvd>(k, [&](int64_t j) { return V(c.c(j) - c.dc(j) * c.x(j)); });
        c.rhs(k) = c.load(k) - bent - c.of_m(k) * (c.m(k) - c.dm(k) * c.x(k));
      }
      // the first iterate is the old state, which may solve the step by chance only where nothing happens
      const R left = count < 2 * kCircles ? kOfLargest : kInCircles;
      open = mask_and(open, mask_not(excess <= left * largest));
      if (!any(open)) return;
      if (count >= p.max_newton) {
        fail(mask_and(open, finite(excess)), kNoConvergence);
        fail(open, kNotFinite);
        return;
      }
      for (int lane = 0; lane < W; ++lane) iterations[lane] += get_mask(open, lane);
      this->template scale_columns<kTvd>();
      this->template solve<kTvd, false>();
      // Across the kink of the limiter, where a difference changes its sign, full steps may run in a circle.
      const bool damped = count >= kCircles && (count & 7) < 5;
      const R share = count < 3 * kCircles ? R(0.5) : R(0.2);
      for (int64_t k = 0; k < p.nz; ++k) {
        V x = damped ? c.x(k) + share * (c.rhs(k) - c.x(k)) : V(c.rhs(k));
        if (kind.isotherm == Isotherm::langmuir) x = off_the_pole(s.input(k, kShape), V(c.x(k)), x);
        c.x(k) = select(open, x, V(c.x(k)));
      }
    }
  }

  // The other states after the step, what decayed, and the balance of the solute.
  DGPDE_HD void settle(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteCells<V> s = solute(i);
    V gain{}, moved{}, change{};
    const int64_t last = p.nz - 1;
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = this->size(k);
      const Local l = this->local(kind, s, k);
      const V conc = c.c(k);
      const Phases<V> old = phases<V>(kind.isotherm, s.state(k, 0), s.input(k, kCapacity), s.input(k, kShape));
      V held = this->mobile(s, k) * conc, held_old = this->mobile_old(s, k) * old.c;
      if (kind.isotherm != Isotherm::none) {
        if (kind.kinetic) {
          s.next(k, 1) = (s.state(k, 1) * inv_dt + s.input(k, kSorptionRate) * c.m(k)) * l.inv_s;
          held = held + s.next(k, 1), held_old = held_old + s.state(k, 1);
        } else {
          held = held + c.m(k), held_old = held_old + old.m;
        }
      }
      if (kind.immobile) {
        const V still = s.input(k, kImmobileTheta);
        s.next(k, 2) = (still * s.state(k, 2) * inv_dt + s.input(k, kImmobileRate) * conc) * l.inv_b;
        held = held + still * s.next(k, 2), held_old = held_old + still * s.state(k, 2);
      }
      s.next(k, 0) = c.x(k);
      const V decayed = dz * s.input(k, kDecay) * held;
      s.decayed(k) = decayed;
      // exchanges that are neither storage nor flux, from the row's terms
      V taken{};
      if (w.taken && kind.uptake) taken = taken + select(active, w.taken[k], V{});
      if (w.elastic) taken = taken + select(active, w.elastic[k], V{});
      if (k == last) taken = taken + lack;
      V added{};
      if (w.source) {
        const V g = select(active, w.source[k], V{});
        taken = taken - vmin(g, V{});
        if (in.slot[kSourceC].data) added = added + vmax(g, V{}) * this->series(in.slot[kSourceC], k);
      }
      if (in.slot[kProduction].data) added = added + dz * this->series(in.slot[kProduction], k);
      if (kind.parent >= 0) added = added + s.input(k, kYield) * solute(kind.parent).decayed(k);
      const V lost = taken * conc + decayed, stored = dz * (held - held_old);
      gain = gain + dt * (added - lost);
      moved = moved + dt * (vabs(added) + vabs(lost)) + vabs(stored);
      change = change + stored;
    }
    balance(i, gain, moved, change, top.f0 + top.f1 * c.c(last), bottom.f0 + bottom.f1 * c.c(0));
    if (p.scheme == Advection::central)
      for (int64_t k = 0; k < last; ++k) oscillation(k, flux(k + 1), V(c.conductance(k)));
  }
  // What the inside of the columns gained, moved and stored in the step of a solute, with what came through the sides.
  DGPDE_HD void balance(int64_t i, V gain, V moved, V change, V from_top, V from_bottom) {
    gain = gain + dt * (from_top + from_bottom);
    moved = moved + dt * (vabs(from_top) + vabs(from_bottom));
    const auto good = mask_and(active, mask_not(failed));
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(good, lane)) continue;
      const int64_t column = lanes.column(lane), at = interval[lane];
      out.imbalance[i * p.n + column] += get(change, lane) - get(gain, lane);
      out.moved[i * p.n + column] += get(moved, lane);
      static_cast<R*>(out.top_flux)[solute_at(at, i) + column] += get(weight, lane) * get(from_top, lane);
      static_cast<R*>(out.bottom_flux)[solute_at(at, i) + column] += get(weight, lane) * get(from_bottom, lane);
    }
  }

  // Largest grid Peclet and Courant numbers, from the flux through the face above cell k and its conductance.
  DGPDE_HD void oscillation(int64_t k, V q, V d) {
    const auto good = mask_and(active, mask_not(failed));
    const V none = broadcast<V>(std::numeric_limits<R>::infinity());
    const auto spreads = d > V{};
    q = vabs(q);
    const V number = select(q > V{}, select(spreads, q / select(spreads, d, q), none), V{});
    peclet = select(good, vmax(peclet, number), peclet);
    courant = select(good, vmax(courant, q * dt / (c.theta(k) * this->size(k))), courant);
  }

  // A step of a plain solute; its new state goes to `row` too, unless that is null.
  DGPDE_HD void advance_plain(int64_t i, V* row) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    if (changed || entered || p.solutes() > 1) this->sides(i);
    if (changed) {
      this->template factorise<false>(i);
      for (int64_t k = 0; k <= last; ++k) s.lose(k) = s.input(k, kDecay) * s.store(k) + this->loss(kind, k);
      if (p.scheme == Advection::central)
        this->rows(i, [&](int64_t k, V, V, V, V q, V d) {
          if (k < last) oscillation(k, q, d);
        });
    }
    const bool fed = w.source && in.slot[kSourceC].data, made = in.slot[kProduction].data || kind.parent >= 0;
    V r{}, gain{}, moved{};
    for (int64_t k = 0; k <= last; ++k) {
      V load = s.hold(k) * s.state(k, 0);
      if (fed || made) {
        V added{};
        if (fed) added = vmax(select(active, w.source[k], V{}), V{}) * this->series(in.slot[kSourceC], k);
        if (in.slot[kProduction].data) added = added + this->size(k) * this->series(in.slot[kProduction], k);
        if (kind.parent >= 0) added = added + s.input(k, kYield) * solute(kind.parent).decayed(k);
        load = load + added, gain = gain + added, moved = moved + vabs(added);
      }
      if (k == 0) load = load + bottom.f0;
      if (k == last) load = load + top.f0;
      r = load * s.inv(k) - s.couple(k) * r;
      s.next(k, 0) = r;
    }
    const bool tells = this->has_daughter(i);
    V x{}, highest{}, turned{}, change{};
    for (int64_t k = last; k >= 0; --k) {
      const V old = s.state(k, 0);
      x = s.next(k, 0) - s.elim(k) * x;
      if (k == last) highest = x;
      const V lost = s.lose(k) * x, stored = s.store(k) * x - dt * (s.hold(k) * old);
      gain = gain - lost, moved = moved + vabs(lost);
      change = change + stored, turned = turned + vabs(stored);
      if (tells) s.decayed(k) = s.input(k, kDecay) * s.store(k) * x;
      const V now = select(active, x, old);
      s.state(k, 0) = now;
      if (row) row[k] = now;
    }
    for (int lane = 0; lane < W; ++lane) iterations[lane] += get_mask(active, lane);
    fail(mask_not(finite(x)), kNotFinite);  // what is not a number spreads to the lowest cell
    balance(i, dt * gain, dt * moved + turned, change, top.f0 + top.f1 * highest, bottom.f0 + bottom.f1 * x);
  }

  DGPDE_HD void accept() {
    const auto good = mask_and(active, mask_not(failed));
    for (int64_t i = 0; i < p.solutes(); ++i) {
      if (this->is_plain(i)) continue;
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) {
        s.state(k, 0) = select(good, V(s.next(k, 0)), V(s.state(k, 0)));
        if (kind.kinetic) s.state(k, 1) = select(good, V(s.next(k, 1)), V(s.state(k, 1)));
        if (kind.immobile) s.state(k, 2) = select(good, V(s.next(k, 2)), V(s.state(k, 2)));
      }
    }
    active = good;
  }

  DGPDE_HD void keep(const TransportRows<V>& kept, int64_t r) const {
    kept.each(r, [&](int64_t i, int j, V* at) {
      if (r > 0 && this->is_plain(i)) return;  // has left its own
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) at[k] = s.state(k, j);
    });
  }

  // Results at the ends of intervals.
  DGPDE_HD void observe(const WaterRows<V>& water, int64_t r) {
    Mask<V> there{};
    bool together = lanes.owns(W - 1), some = false;
    for (int lane = 0; lane < W; ++lane) {
      const bool ends = get_mask(active, lane) && water.ends_interval(r, lane);
      put_mask(there, lane, ends);
      some |= ends;
      together &= ends && interval[lane] == interval[0];
    }
    if (!some) return;
    R* result = static_cast<R*>(out.concentration);
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      V dissolved{}, sorbed{}, still{};
      for (int64_t k = 0; k < p.nz; ++k) {
        const R dz = this->size(k);
        const Phases<V> f = phases<V>(kind.isotherm, s.state(k, 0), s.input(k, kCapacity), s.input(k, kShape));
        dissolved = dissolved + dz * this->mobile(s, k) * f.c;
        if (kind.isotherm != Isotherm::none) sorbed = sorbed + dz * (kind.kinetic ? V(s.state(k, 1)) : f.m);
        if (kind.immobile) still = still + dz * s.input(k, kImmobileTheta) * s.state(k, 2);
        if (together) {
          std::memcpy(result + solute_at(interval[0], i) * p.nz + k * p.n + lanes.first, &f.c, sizeof(V));
          continue;
        }
        for (int lane = 0; lane < W; ++lane)
          if (get_mask(there, lane))
            result[solute_at(interval[lane], i) * p.nz + k * p.n + lanes.column(lane)] = get(f.c, lane);
      }
      write_mass(there, 1, i, dissolved, sorbed, still);
    }
  }
  DGPDE_HD void write_mass(Mask<V> there, int64_t shift, int64_t i, V dissolved, V sorbed, V still) const {
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(there, lane)) continue;
      double* at = out.mass + solute_at(shift ? interval[lane] + 1 : 0, i) * 3 + lanes.column(lane);
      at[0] = get(dissolved, lane), at[p.n] = get(sorbed, lane), at[2 * p.n] = get(still, lane);
    }
  }
  DGPDE_HD void first_mass(const WaterRows<V>& water) {
    if (!out.start) return;
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    const WaterRow<V> row = water.row(0);
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      V dissolved{}, sorbed{}, still{};
      for (int64_t k = 0; k < p.nz; ++k) {
        const R dz = this->size(k);
        const V theta = s.input(k, kImmobileTheta);
        const Phases<V> f = phases<V>(kind.isotherm, s.state(k, 0), s.input(k, kCapacity), s.input(k, kShape));
        dissolved = dissolved + dz * (row.theta[k] - theta) * f.c;
        sorbed = sorbed + dz * f.m;
        still = still + dz * theta * s.state(k, 2);
      }
      write_mass(own, 0, i, dissolved, sorbed, still);
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
