// The tangent-linear run of the transport in a pack of columns, along the accepted steps of a forward run: how its
// outputs move when its inputs and its water move. Derived in dgpde/kernels/column_transport/README.md:
//
//   J y = d(load) - c d(of_c) - m d(of_m) - of_m dm - d(fluxes),    all at fixed c;    dc = dc/dx y
//
// with dm the movement of the isotherm at fixed c. The sums of the solutes' memory hold the tangents of the inputs.
#pragma once

#include "transport_replay.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportTangent : TransportReplay<V> {
  using Base = TransportReplay<V>;
  using Base::p, Base::lanes, Base::c, Base::w, Base::inv_dt, Base::weight, Base::interval, Base::active, Base::top,
      Base::bottom, Base::solute, Base::flux;
  using Base::W;
  using typename Base::Face;
  using typename Base::Local;
  using typename Base::R;

 public:
  DGPDE_HD TransportTangent(const TransportProblem& problem, const TransportTangents& tangents, const Lanes& which,
                            V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride), io(tangents) {}

  // `moves`: tangents of the water of each step; null where it does not move.
  DGPDE_HD void run(const WaterRows<V>& water, const WaterRows<V>* moves, const TransportRows<V>& kept) {
    begin(kept);
    for (int64_t r = 1; r < water.longest(); ++r) {
      for (int lane = 0; lane < W; ++lane) put_mask(active, lane, lanes.owns(lane) && r < kept.count(lane));
      if (!any(active)) break;
      this->load_water(water, r);
      if (moves) now = moves->row(r), before = moves->row(r - 1);
      this->load_states(kept, r, true);
      for (int64_t i = 0; i < p.solutes(); ++i) {
        const V* x = kept.at(r, i, 0);
        for (int64_t k = 0; k < p.nz; ++k) c.x(k) = select(active, x[k], V{});
        this->coefficients(i);
        p.scheme == Advection::tvd ? advance<true>(i) : advance<false>(i);
        settle(i, kept.at(r, i, 1), kept.at(r, i, 2));
      }
      observe(water, r);
    }
    finish();
  }

 private:
  const TransportTangents& io;
  WaterRow<V> now, before;  // of the tangents; null where nothing moves
  V top_moved{}, bottom_moved{};

  // Tangents of a cell's inputs and of the water in it.
  DGPDE_HD V d(const SoluteCells<V>& s, int64_t k, int slot) const { return s.sum(k, slot); }
  DGPDE_HD V moved(const V* values, int64_t k) const { return values ? select(active, values[k], V{}) : V{}; }

  DGPDE_HD void begin(const TransportRows<V>& kept) {
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[i];
      const SoluteInputs<View>& in = io.in[static_cast<size_t>(i)];
      const SoluteCells<V> s = solute(i);
      const V* x = kept.at(0, i, 0);
      for (int64_t k = 0; k < p.nz; ++k) {
        for (int slot = kDispersivity; slot < kCellSlots; ++slot)
          if (in.slot[slot].data) s.sum(k, slot) = load<V>(in.slot[slot], 0, k, lanes);
        if (!io.start) {
          for (int j = 0; j < kStates; ++j)
            s.next(k, j) = load<V>(View{static_cast<R*>(io.state) + this->state_at(i, j, k), 0, 0, 1}, 0, 0, lanes);
          continue;
        }
        const V dc = in.slot[kInitial].data ? load<V>(in.slot[kInitial], 0, k, lanes) : V{};
        s.next(k, 0) = s.next(k, 2) = dc;
        s.next(k, 1) = V{};
        if (kind.isotherm == Isotherm::none) continue;
        const V a = s.input(k, kCapacity), b = s.input(k, kShape);
        // where c stays, an infinite slope has no part
        const V along = select(dc == V{}, V{}, isotherm_slope<V>(kind.isotherm, x[k], a, b) * dc);
        s.next(k, 1) = along + isotherm_moved(kind, s, k, x[k]);
      }
    }
  }

  // dm at fixed c.
  DGPDE_HD V isotherm_moved(const SoluteKind& kind, const SoluteCells<V>& s, int64_t k, V x) const {
    const IsothermPartials<V> of = isotherm_partials<V>(kind.isotherm, x, s.input(k, kCapacity), s.input(k, kShape));
    return of.a * d(s, k, kCapacity) + of.b * d(s, k, kShape);
  }

  // Movement of the mass flux through a side, at fixed c.
  DGPDE_HD V side_moved(int64_t i, int64_t k, const SideFlux<V>& f, V q, V dq, int slot) const {
    const SoluteCells<V> s = solute(i);
    const V conc = c.c(k), length = s.input(k, kDispersivity);
    const V spread = c.of_spread(k) + d(s, k, kDispersivity) * vabs(q) + length * this->sign(q) * dq;
    return (f.q0 + f.q1 * conc) * dq + (f.spread0 + f.spread1 * conc) * spread * (R(2) / this->size(k)) +
           f.v0 * this->series(io.in[static_cast<size_t>(i)].slot[slot], 0);
  }

  // Solves for the movement of the state; c.rhs becomes y, c.load the movement of m at fixed c.
  template <bool kTvd>
  DGPDE_HD void advance(int64_t i) {
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    this->enter_phases(i);
    this->template matrix<kTvd>();
    for (int64_t k = 0; k < p.nz; ++k) row(i, k);
    for (int64_t k = 0; k < last; ++k) {
      const V q = flux(k + 1), dq = moved(now.flux, k + 1);
      const auto g =
          this->in_series(k, this->dispersion(s, k, c.spread(k), q), this->dispersion(s, k + 1, c.spread(k + 1), q));
      const auto moves = [&](int64_t cell) {  // theta D of a half cell
        return c.of_spread(cell) + d(s, cell, kDispersivity) * vabs(q) +
               s.input(cell, kDispersivity) * this->sign(q) * dq;
      };
      const V d_conductance = g.by_below * moves(k) + g.by_above * moves(k + 1);
      const Face f = this->template face_above<kTvd>(k);
      const V through = f.per_q * dq + d_conductance * (c.c(k) - c.c(k + 1));
      c.change(k) = c.change(k) - through;
      c.change(k + 1) = c.change(k + 1) + through;
    }
    top_moved = side_moved(i, last, top, -flux(p.nz), -moved(now.flux, p.nz), kTopValue);
    bottom_moved = side_moved(i, 0, bottom, flux(0), moved(now.flux, 0), kBottomValue);
    c.change(last) = c.change(last) + top_moved;
    c.change(0) = c.change(0) + bottom_moved;
    this->template scale_columns<kTvd>();
    for (int64_t k = 0; k < p.nz; ++k) c.rhs(k) = select(active, V(c.change(k)), V{});
    this->template solve<kTvd, false>();
  }

  // What the terms of cell k, and with them the diffusion in it, move by.
  DGPDE_HD void row(int64_t i, int64_t k) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteInputs<View>& moves = io.in[static_cast<size_t>(i)];
    const SoluteCells<V> s = solute(i);
    const R dz = this->size(k);
    const Local l = this->local(kind, s, k);
    const V conc = c.c(k), a = s.input(k, kCapacity), b = s.input(k, kShape);
    const Phases<V> old = phases<V>(kind.isotherm, s.state(k, 0), a, b);
    const V d_theta = moved(now.theta, k), d_still = d(s, k, kImmobileTheta), d_age = d(s, k, kDecay);
    V d_of_c = dz * ((d_theta - d_still) * l.age + this->mobile(s, k) * d_age), d_of_m{}, m_moved{};
    V d_load = dz * inv_dt * ((moved(before.theta, k) - d_still) * old.c + this->mobile_old(s, k) * s.next(k, 0));
    if (kind.isotherm != Isotherm::none) {
      m_moved = isotherm_moved(kind, s, k, V(c.x(k)));
      if (kind.kinetic) {
        const V rate = s.input(k, kSorptionRate), d_rate = d(s, k, kSorptionRate), was = s.state(k, 1);
        const V d_inv = -l.inv_s * l.inv_s * (d_age + d_rate);
        d_of_m = dz * ((d_rate * l.age + rate * d_age) * l.inv_s + rate * l.age * d_inv);
        d_load = d_load + dz * inv_dt * ((d_rate * was + rate * s.next(k, 1)) * l.inv_s + rate * was * d_inv);
      } else {
        d_of_m = dz * d_age;
        d_load = d_load + dz * inv_dt * s.next(k, 1);
      }
    }
    if (kind.immobile) {
      const V rate = s.input(k, kImmobileRate), theta = s.input(k, kImmobileTheta), was = s.state(k, 2);
      const V exchange = rate * theta * l.inv_b;
      const V d_exchange = (d(s, k, kImmobileRate) * theta + rate * d_still - exchange * d_of_b(s, k, l)) * l.inv_b;
      d_of_c = d_of_c + dz * (d_exchange * l.age + exchange * d_age);
      d_load = d_load + dz * inv_dt * (d_exchange * was + exchange * s.next(k, 2));
    }
    if (kind.uptake) d_of_c = d_of_c + moved(now.taken, k);
    d_of_c = d_of_c + moved(now.elastic, k);
    if (w.source) {
      const V g = select(active, w.source[k], V{}), dg = moved(now.source, k);
      d_of_c = d_of_c - select(g < V{}, dg, V{});
      if (in.slot[kSourceC].data) d_load = d_load + select(g > V{}, dg * this->series(in.slot[kSourceC], k), V{});
      d_load = d_load + vmax(g, V{}) * this->series(moves.slot[kSourceC], k);
    }
    d_load = d_load + dz * this->series(moves.slot[kProduction], k);
    if (kind.parent >= 0) {
      const SoluteCells<V> parent = solute(kind.parent);
      d_load = d_load + d(s, k, kYield) * parent.decayed(k) + s.input(k, kYield) * parent.of_decayed(k);
    }
    c.change(k) = d_load - d_of_c * conc - d_of_m * c.m(k) - c.of_m(k) * m_moved;
    c.load(k) = m_moved;
    const V to = this->theta_power(kind, k), slope = static_cast<R>(kind.diffusion_power) * to / c.theta(k);
    c.of_spread(k) = d(s, k, kDiffusion) * to + s.input(k, kDiffusion) * slope * d_theta;
  }
  DGPDE_HD V d_of_b(const SoluteCells<V>& s, int64_t k, const Local& l) const {
    return d(s, k, kImmobileTheta) * l.age + s.input(k, kImmobileTheta) * d(s, k, kDecay) + d(s, k, kImmobileRate);
  }

  // Movement of the other states after the step, of what decayed and of the fluxes through the sides.
  DGPDE_HD void settle(int64_t i, const V* sorbed_now, const V* still_now) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    for (int64_t k = 0; k < p.nz; ++k) {
      const Local l = this->local(kind, s, k);
      const V y = c.rhs(k), dc = c.dc(k) * y;
      V held = this->mobile(s, k) * c.c(k);
      V d_held = (moved(now.theta, k) - d(s, k, kImmobileTheta)) * c.c(k) + this->mobile(s, k) * dc;
      V d_sorbed{}, d_still{};
      if (kind.isotherm != Isotherm::none) {
        d_sorbed = c.dm(k) * y + c.load(k);
        if (kind.kinetic) {
          const V is = select(active, sorbed_now[k], V{}), d_rate = d(s, k, kSorptionRate);
          d_sorbed = (s.next(k, 1) * inv_dt + d_rate * c.m(k) + s.input(k, kSorptionRate) * d_sorbed -
                      is * (d(s, k, kDecay) + d_rate)) *
                     l.inv_s;
          held = held + is;
        } else {
          held = held + c.m(k);
        }
        d_held = d_held + d_sorbed;
      }
      if (kind.immobile) {
        const V theta = s.input(k, kImmobileTheta), d_theta = d(s, k, kImmobileTheta);
        const V is = select(active, still_now[k], V{});
        d_still = ((d_theta * s.state(k, 2) + theta * s.next(k, 2)) * inv_dt + d(s, k, kImmobileRate) * c.c(k) +
                   s.input(k, kImmobileRate) * dc - is * d_of_b(s, k, l)) *
                  l.inv_b;
        held = held + theta * is;
        d_held = d_held + d_theta * is + theta * d_still;
      }
      s.of_decayed(k) = this->size(k) * (d(s, k, kDecay) * held + s.input(k, kDecay) * d_held);
      s.next(k, 0) = select(active, dc, V(s.next(k, 0)));
      s.next(k, 1) = select(active, d_sorbed, V(s.next(k, 1)));
      s.next(k, 2) = select(active, d_still, V(s.next(k, 2)));
    }
    add_flux(io.top_flux, i, top_moved + top.f1 * s.next(p.nz - 1, 0));
    add_flux(io.bottom_flux, i, bottom_moved + bottom.f1 * s.next(0, 0));
  }
  DGPDE_HD void add_flux(void* fluxes, int64_t i, V x) const {
    R* to = static_cast<R*>(fluxes);
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane))
        to[this->solute_at(interval[lane], i) + lanes.column(lane)] += get(weight, lane) * get(x, lane);
  }

  DGPDE_HD void observe(const WaterRows<V>& water, int64_t r) const {
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(active, lane) || !water.ends_interval(r, lane)) continue;
      for (int64_t i = 0; i < p.solutes(); ++i) {
        R* to = static_cast<R*>(io.concentration) + this->solute_at(interval[lane], i) * p.nz + lanes.column(lane);
        for (int64_t k = 0; k < p.nz; ++k) to[k * p.n] = get(V(solute(i).next(k, 0)), lane);
      }
    }
  }

  DGPDE_HD void finish() const {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    for (int64_t i = 0; i < p.solutes(); ++i)
      for (int j = 0; j < kStates; ++j)
        for (int64_t k = 0; k < p.nz; ++k)
          store<V>(static_cast<R*>(io.state) + this->state_at(i, j, k), 1, lanes, own, solute(i).next(k, j));
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
