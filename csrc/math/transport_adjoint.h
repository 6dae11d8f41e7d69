// The discrete adjoint of the transport in a pack of columns, from the last accepted step to the first; derived in
// dgpde/kernels/column_transport/README.md, whose names are used here. Cotangents of the water of each step (water
// content at both ends, fluxes, uptake, sources) go to rows of their own, for the adjoint of the flow.
#pragma once

#include "transport_plain_adjoint.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportAdjoint : TransportPlainAdjoint<V> {
  using Base = TransportPlainAdjoint<V>;
  using Base::p, Base::lanes, Base::c, Base::w, Base::dt, Base::inv_dt, Base::weight, Base::interval, Base::active,
      Base::top, Base::bottom, Base::solute, Base::flux, Base::io, Base::bar, Base::worst, Base::carry_at;
  using Base::W;
  using typename Base::Face;
  using typename Base::Local;
  using typename Base::R;

 public:
  DGPDE_HD TransportAdjoint(const TransportProblem& problem, const TransportCotangents& cotangents,
                            const Lanes& which, V* scratch, int64_t stride)
      : Base(problem, cotangents, which, scratch, stride) {}

  // `continuous`: the fluxes of the water follow from its bottom flux, as those of a flow run do. `resumed`: bars of
  // constant water already hold those of the segments after this one. `before`: those of theta before each step count.
  // Where nobody asks for the bars they go to one row of scratch memory, `none`.
  DGPDE_HD void run(const WaterRows<V>& water, const TransportRows<V>& kept, WaterRows<V>* bars,
                    const WaterRow<V>& none, bool resumed, bool before, bool continuous) {
    begin();
    this->watered = bars != nullptr, this->before_watered = bars && before;
    bar = bars ? bars->row(0) : none;
    if (!resumed) clear(bar);
    if (bars)
      for (int lane = 0; lane < W; ++lane) bars->finish(lane, water.count(lane), false);
    const bool apart = separate();
    for (int64_t r = water.longest() - 1, first; r > 0; r = first - 1) {
      first = r;
      for (int lane = 0; lane < W; ++lane) put_mask(active, lane, lanes.owns(lane) && r < kept.count(lane));
      if (!water.constant()) {
        if (bars) bar = bars->row(r);
        clear(bar);
      }
      if (!any(active)) continue;
      this->load_water(water, r);
      this->load_states(kept, r, false);
      bool last_of_these = this->ends_here(water, kept, r);
      while (apart && !last_of_these) last_of_these = this->ends_here(water, kept, --first);
      this->prepare(first < r);
      for (int64_t i = p.solutes() - 1; i >= 0; --i) {
        if (this->is_plain(i))
          this->reverse_plain(i, r, first, water, kept, last_of_these);
        else
          p.scheme == Advection::tvd ? reverse<true>(i, r, water, kept) : reverse<false>(i, r, water, kept);
      }
      this->fresh = last_of_these;
      fold_fluxes(continuous);
    }
    finish(kept);
  }

 private:
  // Whether each solute can walk several steps before the next one does.
  DGPDE_HD bool separate() const {
    bool apart = true;
    for (int64_t i = 0; i < p.solutes(); ++i) apart &= this->is_plain(i) && p.kinds[i].parent < 0;
    return apart;
  }

  DGPDE_HD void begin() {
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) {
        for (int j = 0; j < kStates; ++j) s.next(k, j) = load<V>(View{carry_at(i, j, k), 0, 0, 1}, 0, 0, lanes);
        for (int slot = kDispersivity; slot < kCellSlots; ++slot) {
          const MutableView& v = io.grad[i].slot[slot];
          if (v.data) s.sum(k, slot) = load<V>(View{v.data, v.t, v.z, v.n}, 0, k, lanes);
        }
      }
    }
  }

  DGPDE_HD void clear(const WaterRow<V>& row) const {
    for (int64_t k = 0; k < p.nz; ++k) {
      row.theta[k] = row.before[k] = row.flux[k] = V{};
      if (row.taken) row.taken[k] = V{};
      if (row.elastic) row.elastic[k] = V{};
      if (row.source) row.source[k] = V{};
    }
    row.flux[p.nz] = V{};
  }

  template <bool kTvd>
  DGPDE_HD void reverse(int64_t i, int64_t r, const WaterRows<V>& water, const TransportRows<V>& kept) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    const int64_t last = p.nz - 1;
    const bool sorbs = kind.isotherm != Isotherm::none;
    this->coefficients(i);
    const V* x = kept.at(r, i, 0);
    for (int64_t k = 0; k < p.nz; ++k) c.x(k) = select(active, x[k], V{});
    this->enter_phases(i);
    this->template matrix<kTvd>();
    this->template scale_columns<kTvd>();

    // Cotangents of the new state: carried, observed, of the fluxes through the sides, of what decayed
    const V seed_top = this->side_cotangent(io.top_flux, i), seed_bottom = this->side_cotangent(io.bottom_flux, i);
    Mask<V> ends{};
    const bool observes = this->observed_lanes(water, r, ends);
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = this->size(k);
      const Local l = this->local(kind, s, k);
      V of_c = s.next(k, 0), of_m = s.next(k, 1), of_still = s.next(k, 2);
      if (observes) of_c = of_c + this->observed(i, k, ends);
      if (k == last) of_c = of_c + seed_top * top.f1;
      if (k == 0) of_c = of_c + seed_bottom * bottom.f1;
      const V decay = dz * s.input(k, kDecay) * s.of_decayed(k);
      of_c = of_c + decay * this->mobile(s, k), of_m = of_m + decay;
      if (kind.immobile) {
        of_still = of_still + decay * s.input(k, kImmobileTheta);
        of_c = of_c + select(active, of_still * s.input(k, kImmobileRate) * l.inv_b, V{});
      }
      s.next(k, 0) = of_c, s.next(k, 1) = of_m, s.next(k, 2) = of_still;
      const V of_sorbed = kind.kinetic ? of_m * s.input(k, kSorptionRate) * l.inv_s : of_m;
      c.change(k) = of_c * c.dc(k);
      if (sorbs) c.change(k) = c.change(k) + of_sorbed * c.dm(k);
      c.rhs(k) = select(active, V(c.change(k)), V{});
      c.of_spread(k) = V{};
    }
    this->template solve<kTvd, true>();
    check<kTvd>();
    cells(i, r, kept);
    faces<kTvd>(i);
    end(i, last, top, -flux(p.nz), seed_top, kTopValue, p.nz, R(-1));
    end(i, 0, bottom, flux(0), seed_bottom, kBottomValue, 0, R(1));
    if (this->diffuses(i))
      for (int64_t k = 0; k < p.nz; ++k) this->pull_spread(i, k, V(c.of_spread(k)));
  }
  DGPDE_HD void end(int64_t i, int64_t k, const SideFlux<V>& f, V q, V seed, int slot, int64_t face, R direction) {
    const V of_flux = select(active, c.rhs(k) + seed, V{});
    c.of_spread(k) = c.of_spread(k) + this->side(i, k, f, q, of_flux, of_flux * c.c(k), slot, face, direction);
  }

  // What is left of the transposed rows, against the size of their terms.
  template <bool kTvd>
  DGPDE_HD void check() {
    if (!kTvd && !any(this->doubtful)) {
      this->check_finite(V(c.rhs(0)));
      return;
    }
    for (int64_t k = 0; k < p.nz; ++k) {
      const V made = this->template times_column<kTvd>(k, [&](int64_t j) { return V(c.rhs(j)); });
      const V asked = select(active, V(c.change(k)), V{});
      this->check_row(made - asked, vabs(V(c.diag(k)) * V(c.rhs(k))) + vabs(asked));
    }
  }

  // What the terms of each cell give, with lambda in c.rhs and the cotangents of the new state in s.next, which
  // become those of the state before.
  DGPDE_HD void cells(int64_t i, int64_t r, const TransportRows<V>& kept) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteInputs<MutableView>& grad = io.grad[i];
    const SoluteCells<V> s = solute(i);
    const bool sorbs = kind.isotherm != Isotherm::none;
    const V *sorbed_now = kept.at(r, i, 1), *still_now = kept.at(r, i, 2);
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = this->size(k);
      const Local l = this->local(kind, s, k);
      const V lambda = c.rhs(k), conc = c.c(k), a = s.input(k, kCapacity), b = s.input(k, kShape);
      const Phases<V> old = phases<V>(kind.isotherm, s.state(k, 0), a, b);
      const V of_coefficient = -lambda * conc;  // of of_c
      const V of_decayed = dz * s.of_decayed(k);
      V of_decay = of_coefficient * dz * this->mobile(s, k) + of_decayed * this->mobile(s, k) * conc;
      V of_theta = of_coefficient * dz * l.age + of_decayed * s.input(k, kDecay) * conc;
      V before = lambda * dz * inv_dt * old.c;
      V carry_c = lambda * dz * inv_dt * this->mobile_old(s, k), carry_m{}, carry_still{};
      if (sorbs) {
        const V of_of_m = -lambda * c.m(k);
        V of_m = s.next(k, 1);  // of m at the new state, as a function of c
        if (kind.kinetic) {
          const V rate = s.input(k, kSorptionRate), of_s = of_m, now = select(active, sorbed_now[k], V{});
          const V was = s.state(k, 1), square = l.inv_s * l.inv_s;
          of_m = of_s * rate * l.inv_s;
          of_decay = of_decay + dz * rate * square * (of_of_m * rate - lambda * inv_dt * was) - of_s * now * l.inv_s +
                     of_decayed * now;
          s.sum(k, kSorptionRate) = s.sum(k, kSorptionRate) +
                                    dz * l.age * square * (of_of_m * l.age + lambda * inv_dt * was) +
                                    of_s * (c.m(k) - now) * l.inv_s;
          carry_m = (lambda * dz * rate + of_s) * inv_dt * l.inv_s;
        } else {
          of_decay = of_decay + of_of_m * dz + of_decayed * c.m(k);
          carry_m = lambda * dz * inv_dt;
        }
        of_m = of_m - lambda * c.of_m(k);
        const IsothermPartials<V> d = isotherm_partials<V>(kind.isotherm, c.x(k), a, b);
        s.sum(k, kCapacity) = s.sum(k, kCapacity) + select(active, of_m * d.a, V{});
        s.sum(k, kShape) = s.sum(k, kShape) + select(active, of_m * d.b, V{});
      }
      if (kind.immobile) {
        const V rate = s.input(k, kImmobileRate), theta = s.input(k, kImmobileTheta), of_still = s.next(k, 2);
        const V now = select(active, still_now[k], V{}), was = s.state(k, 2), square = l.inv_b * l.inv_b;
        const V both = of_coefficient * l.age + lambda * inv_dt * was;  // of rate theta/of_b dz
        of_decay = of_decay + dz * rate * theta * square * (of_coefficient * rate - lambda * inv_dt * was * theta) -
                   of_still * theta * now * l.inv_b + of_decayed * theta * now;
        s.sum(k, kImmobileRate) =
            s.sum(k, kImmobileRate) + dz * theta * theta * l.age * square * both + of_still * (conc - now) * l.inv_b;
        s.sum(k, kImmobileTheta) = s.sum(k, kImmobileTheta) - of_theta - before + dz * rate * rate * square * both +
                                   of_still * (inv_dt * was - l.age * now) * l.inv_b +
                                   of_decayed * s.input(k, kDecay) * now;
        carry_still = (lambda * dz * rate + of_still) * theta * inv_dt * l.inv_b;
      }
      s.sum(k, kDecay) = s.sum(k, kDecay) + of_decay;
      bar.theta[k] = bar.theta[k] + of_theta;
      bar.before[k] = bar.before[k] + before;
      if (bar.taken && kind.uptake) bar.taken[k] = bar.taken[k] + of_coefficient;
      if (bar.elastic) bar.elastic[k] = bar.elastic[k] + of_coefficient;
      if (bar.source) {
        const V g = select(active, w.source[k], V{}), gone = select(g < V{}, -of_coefficient, V{});
        V come{};
        if (in.slot[kSourceC].data) come = select(g > V{}, lambda * this->series(in.slot[kSourceC], k), V{});
        bar.source[k] = bar.source[k] + gone + come;
        this->add_series(grad.slot[kSourceC], k, lambda * vmax(g, V{}));
      }
      this->add_series(grad.slot[kProduction], k, lambda * dz);
      if (kind.parent >= 0) {
        const SoluteCells<V> parent = solute(kind.parent);
        s.sum(k, kYield) = s.sum(k, kYield) + lambda * parent.decayed(k);
        parent.of_decayed(k) = parent.of_decayed(k) + lambda * s.input(k, kYield);
      }
      s.next(k, 0) = select(active, carry_c, V(s.next(k, 0)));
      s.next(k, 1) = select(active, carry_m, V(s.next(k, 1)));
      s.next(k, 2) = select(active, carry_still, V(s.next(k, 2)));
    }
  }

  template <bool kTvd>
  DGPDE_HD void faces(int64_t i) {
    const SoluteCells<V> s = solute(i);
    for (int64_t k = 0; k + 1 < p.nz; ++k) {
      const V q = flux(k + 1), of_flux = c.rhs(k + 1) - c.rhs(k);
      const Face f = this->template face_above<kTvd>(k);
      const auto g =
          this->in_series(k, this->dispersion(s, k, c.spread(k), q), this->dispersion(s, k + 1, c.spread(k + 1), q));
      const V of_conductance = of_flux * (c.c(k) - c.c(k + 1));
      const V of_below = of_conductance * g.by_below, of_above = of_conductance * g.by_above;
      bar.flux[k + 1] =
          bar.flux[k + 1] + of_flux * f.per_q +
          (of_below * s.input(k, kDispersivity) + of_above * s.input(k + 1, kDispersivity)) * this->sign(q);
      c.of_spread(k) = c.of_spread(k) + of_below;
      c.of_spread(k + 1) = c.of_spread(k + 1) + of_above;
      s.sum(k, kDispersivity) = s.sum(k, kDispersivity) + of_below * vabs(q);
      s.sum(k + 1, kDispersivity) = s.sum(k + 1, kDispersivity) + of_above * vabs(q);
    }
  }
  // Cotangents of the fluxes as those of what they follow from.
  DGPDE_HD void fold_fluxes(bool continuous) {
    if (!continuous) return;
    V above{};
    for (int64_t k = p.nz - 1; k >= 0; --k) {
      above = above + bar.flux[k + 1];
      const V filled = above * inv_dt * this->size(k);
      bar.theta[k] = bar.theta[k] - filled;
      bar.before[k] = bar.before[k] + filled;
      if (bar.taken) bar.taken[k] = bar.taken[k] - above;
      if (bar.elastic) bar.elastic[k] = bar.elastic[k] - above;
      if (bar.source) bar.source[k] = bar.source[k] + above;
    }
    bar.flux[0] = bar.flux[0] + above;
  }

  DGPDE_HD void finish(const TransportRows<V>& kept) {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    for (int lane = 0; lane < W; ++lane)
      if (lanes.owns(lane)) io.status[lanes.column(lane)] |= get(worst, lane) != R(0);
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      const V* x = kept.at(0, i, 0);
      for (int64_t k = 0; k < p.nz; ++k) {
        for (int j = 0; j < kStates; ++j) store<V>(carry_at(i, j, k), 1, lanes, own, s.next(k, j));
        if (io.first) initial(i, kind, s, k, x[k], own);
        for (int slot = kDispersivity; slot < kCellSlots; ++slot) {
          const MutableView& v = io.grad[i].slot[slot];
          if (v.data) store<V>(static_cast<R*>(v.data) + k * v.z, v.n, lanes, own, s.sum(k, slot));
        }
      }
    }
  }

  // The state at the start: c0, m(c0) and immobile water at c0.
  DGPDE_HD void initial(int64_t i, const SoluteKind& kind, const SoluteCells<V>& s, int64_t k, V x,
                        Mask<V> own) const {
    const V a = s.input(k, kCapacity), b = s.input(k, kShape), of_m = s.next(k, 1);
    V of_c = s.next(k, 0) + s.next(k, 2);
    if (kind.isotherm != Isotherm::none) {
      const IsothermPartials<V> d = isotherm_partials<V>(kind.isotherm, x, a, b);
      s.sum(k, kCapacity) = s.sum(k, kCapacity) + of_m * d.a;
      s.sum(k, kShape) = s.sum(k, kShape) + of_m * d.b;
      of_c = of_c + of_m * isotherm_slope<V>(kind.isotherm, x, a, b);
    }
    const MutableView& v = io.grad[i].slot[kInitial];
    if (v.data) store<V>(static_cast<R*>(v.data) + k * v.z, v.n, lanes, own, of_c);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
