// The discrete adjoint of a column-flow run: one sweep up (evaluate, eliminate J^T) and one down (substitute,
// accumulate) per accepted step, from the last step to the first. Derived line by line in
// dgpde/kernels/column_flow/README.md:
//
//   J_n^T lambda = g_n,   grad_p += -lambda^T dF/dp,   carry to psi_{n-1} = -(dF/dpsi_{n-1})^T lambda
//
// The old state enters F only through theta(psi_{n-1}), psi_{n-1} (specific storage) and the ponding, so the carry is
// held as carry_theta (cotangent of theta_{n-1}), carry_psi and carry_ponding, and the soil is evaluated once a step.
#pragma once

#include "column_replay.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Cotangents that the water of each step has from what it carried; there are none in a run of flow alone.
struct NoSeeds {
  static constexpr bool kThere = false;
};

template <class V>
class ColumnAdjoint : ColumnReplay<V> {
  using Base = ColumnReplay<V>;
  using Base::p, Base::lanes, Base::elastic, Base::soil, Base::n_soil, Base::used, Base::c, Base::top, Base::bottom,
      Base::top_soil, Base::bottom_soil, Base::interval, Base::dt, Base::inv_dt, Base::weight, Base::active,
      Base::ponding_old, Base::omega, Base::omega_c, Base::root_rate, Base::omega_slope, Base::limited,
      Base::transpiration, Base::feddes_h, Base::top_flux, Base::bottom_flux, Base::top_d, Base::bottom_d;
  using Base::W;
  using typename Base::Face;
  using typename Base::R;

 public:
  // `chunk` says which of the table's gradients (each a sum and what its rounding lost) this pack adds to.
  DGPDE_HD ColumnAdjoint(const ColumnProblem& problem, const ColumnCotangents& cotangents, const Lanes& which,
                         int64_t chunk, V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride),
        in(cotangents),
        table_grad(static_cast<R*>(in.grad.soil[0].data) + (this->tabulated() ? chunk * in.grad.soil[0].t : 0)) {
    this->use_soil(in.grad.soil);
    elastic |= in.grad.specific_storage.data != nullptr;
  }

  template <class History>
  DGPDE_HD void run(History& history) {
    run(history, NoSeeds{}, nullptr);
  }

  // With the cotangents of the water of each step (water_seeds.h); `memory` [nz][kSeeds] holds those of one step.
  template <class History, class Seeds>
  DGPDE_HD void run(History& history, const Seeds& water, V* memory) {
    seeds = memory;
    if constexpr (Seeds::kThere) elastic |= water.elastic();
    begin(history);
    while (any(active)) {
      this->load_step(history, row);
      load_cotangents(history);
      if constexpr (Seeds::kThere)
        seed_bottom =
            seed_bottom + water.load(row, active, memory, [&](int64_t k) -> V& { return c.carry_theta(k); });
      eliminate_up();
      accumulate_down();
      for (int lane = 0; lane < W; ++lane) {
        if (row[lane] > 1)
          --row[lane];
        else
          put_mask(active, lane, false);  // its first step is done
      }
    }
    finish();
  }

  enum Seed { kSeedElastic, kSeedTaken, kSeedSource, kSeedBefore, kSeeds };

 private:
  const ColumnCotangents& in;
  R* const table_grad;
  int64_t row[W];
  V carry_ponding, ponding_from_top{}, mu{}, worst{};
  V seed_top, seed_bottom, seed_runoff, seed_uptake, seed_ponding;
  V sum_omega_c{};
  V* seeds = nullptr;
  DGPDE_HD V seed(int64_t k, Seed which) const { return seeds ? seeds[k * kSeeds + which] : V{}; }

  template <class History>
  DGPDE_HD void begin(History& history) {
    for (int lane = 0; lane < W; ++lane) {
      row[lane] = history.count(lane) - 1;
      put_mask(active, lane, lanes.owns(lane) && row[lane] > 0);
    }
    for (int64_t k = 0; k < p.nz; ++k) {
      c.carry_psi(k) = load<V>(as_view(in.carry_psi), 0, k, lanes);
      c.carry_theta(k) = load<V>(as_view(in.carry_theta), 0, k, lanes);
      c.sum_face(k) = c.sum_storage(k) = c.sum_k(k) = V{};
      const Strided<V> sum = c.sum_at(k);
      for (int i = 0; i < n_soil; ++i) sum[i] = V{};
      if (in.resume) {
        c.sum_face(k) = load<V>(as_view(in.sum_face), 0, k, lanes);
        c.sum_storage(k) = load<V>(as_view(in.sum_storage), 0, k, lanes);
        c.sum_k(k) = load<V>(as_view(in.sum_k), 0, k, lanes);
        if (!this->tabulated())  // a table's gradient is in memory of its own
          for (int i = 0; i < n_soil; ++i) sum[i] = load<V>(as_view(in.sum_soil), used[i], k, lanes);
      }
    }
    carry_ponding = load<V>(as_view(in.carry_ponding), 0, 0, lanes);
    if (in.resume && p.roots) sum_omega_c = load<V>(as_view(in.grad.omega_c), 0, 0, lanes);
  }

  static DGPDE_HD View as_view(const MutableView& v) { return {v.data, v.t, v.z, v.n}; }

  DGPDE_HD V series_cotangent(const View& v) const {
    return v.data ? select(active, load_series<V>(v, interval, 0, lanes), V{}) : V{};
  }

  // Cotangents of the outputs of this step; a state at the end of an interval may be observed itself.
  template <class History>
  DGPDE_HD void load_cotangents(History& history) {
    seed_top = weight * series_cotangent(in.top_flux);
    seed_bottom = weight * series_cotangent(in.bottom_flux);
    seed_runoff = weight * series_cotangent(in.runoff);
    seed_uptake = weight * series_cotangent(in.uptake);
    seed_ponding = carry_ponding;
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(active, lane) || !history.ends_interval(row[lane], lane)) continue;
      const int64_t column = lanes.column(lane), at = interval[lane] + 1;
      if (in.ponding.data)
        put(seed_ponding, lane,
            get(seed_ponding, lane) +
                static_cast<const R*>(in.ponding.data)[at * in.ponding.t + column * in.ponding.n]);
      const int64_t saved = in.save_row[at];
      if (saved < 0 || !in.psi.data) continue;
      const R* base = static_cast<const R*>(in.psi.data) + saved * in.psi.t + column * in.psi.n;
      for (int64_t k = 0; k < p.nz; ++k) {
        V x = c.carry_psi(k);
        put(x, lane, get(x, lane) + base[k * in.psi.z]);
        c.carry_psi(k) = x;
      }
    }
  }

  // Row k of J^T lambda = g couples to k-1 by dF_{k-1}/dpsi_k and to k+1 by dF_{k+1}/dpsi_k.
  DGPDE_HD void eliminate_up() {
    const int64_t last = p.nz - 1;
    V elim{}, rhs{}, border{}, carry{}, border_rhs{}, pivot = broadcast<V>(1);
    V before{};      // coupling of row k to k-1
    V from_below{};  // diagonal part of the face below
    V seed_roots{};  // of the uptake of single cells
    this->evaluate();
    for (int64_t k = 0; k <= last; ++k) {
      V diag = this->own_diagonal(k) + from_below;
      V load = c.carry_psi(k) + c.capacity(k) * c.carry_theta(k);
      if (seeds && elastic)
        load = load + seed(k, kSeedElastic) * c.storage(k) * inv_dt *
                          (c.theta(k) + c.capacity(k) * (c.psi(k) - c.psi_old(k)));
      V next{}, before_next{};
      if (k < last) {
        const Face f = this->face_above(k);
        diag = diag + f.q_a;
        next = -f.q_a;
        before_next = f.q_b;
        from_below = -f.q_b;
      }
      if (k == 0) {
        boundary_flux<true, V>(bottom, V(c.psi(0)), V(c.kr(0)), ponding_old, dt, inv_dt, bottom_flux, &bottom_d);
        const V slope = bottom_flux.q_psi + bottom_flux.q_kr * c.dkr(0);
        diag = diag - slope;
        load = load + seed_bottom * slope;
      }
      if (k == last) {
        boundary_flux<true, V>(top, V(c.psi(k)), V(c.kr(k)), ponding_old, dt, inv_dt, top_flux, &top_d);
        const V dkr = c.dkr(k);
        const V slope = top_flux.q_psi + top_flux.q_kr * dkr;
        diag = diag - slope;
        load = load + seed_top * slope + seed_ponding * (top_d.ponding[kInPsi] + top_d.ponding[kInKr] * dkr) +
               seed_runoff * (top_d.runoff[kInPsi] + top_d.runoff[kInKr] * dkr);
      }
      V along{}, row_omega{};  // coefficient of mu in this row, coefficient of lambda_k in the row of mu
      if (p.roots) {
        const V weight_k = c.root(k);
        load = load + (seed_uptake + seed(k, kSeedTaken)) * weight_k * c.stress_psi(k) * root_rate;
        if (seeds) seed_roots = seed_roots + seed(k, kSeedTaken) * weight_k * c.stress(k) * omega_slope;
        along = -weight_k * c.stress_psi(k);
        row_omega = weight_k * c.stress(k) * omega_slope;
      }
      c.diag(k) = diag, c.load(k) = load;
      const V inv = R(1) / (diag - before * elim);
      rhs = (load - before * rhs) * inv;
      elim = next * inv;
      c.rhs(k) = rhs, c.elim(k) = elim;
      if (p.roots) {
        border = (along - before * border) * inv;
        c.border(k) = border;
        const V coefficient = row_omega + carry;
        border_rhs = border_rhs + coefficient * rhs;
        pivot = pivot - coefficient * border;
        carry = -coefficient * elim;
      }
      before = before_next;
    }
    if (p.roots) mu = (seed_uptake * omega * omega_slope + seed_roots - border_rhs) / pivot;
  }

  DGPDE_HD void accumulate_down() {
    const int64_t last = p.nz - 1;
    V lambda_above{}, reach_above{}, gkr_above{}, residual_above{}, size_above{};
    V sum_t{}, sum_h[4] = {};
    for (int64_t k = last; k >= 0; --k) {
      V lambda = c.rhs(k) - c.elim(k) * lambda_above;
      V reach = vabs(lambda);  // of the terms whose round-off lambda carries
      V residual = -c.load(k), size = vabs(V(c.load(k)));
      if (p.roots) {
        const V along = c.root(k) * c.stress_psi(k) * mu, part = c.border(k) * mu;
        lambda = lambda - part;
        reach = reach + vabs(part);
        residual = residual - along;
        size = size + vabs(along);
      }
      V gkr{};
      residual = residual + c.diag(k) * lambda;
      size = size + vabs(V(c.diag(k))) * reach;
      if (k < last) {
        const Face f = this->face_above(k);
        const V phi = select(active, lambda_above - lambda, V{});
        gkr = phi * f.q_kra;
        gkr_above = gkr_above + phi * f.q_krb;
        c.sum_face(k) = c.sum_face(k) - phi * f.kf * f.fall;
        residual = residual - f.q_a * lambda_above;
        size = size + vabs(f.q_a) * reach_above;
        check(residual_above + f.q_b * lambda, size_above + vabs(f.q_b) * reach);
        finish_cell(k + 1, lambda_above, gkr_above);
      } else {
        gkr = boundary_gradients(last, top, top_d, top_soil, lambda + seed_top, seed_ponding, seed_runoff, kTopSlots,
                                 in.grad.top);
      }
      if (k == 0)
        gkr = gkr + boundary_gradients(0, bottom, bottom_d, bottom_soil, lambda + seed_bottom, V{}, V{}, kBottomSlots,
                                       in.grad.bottom);
      if (p.roots) root_gradients(k, lambda, sum_t, sum_h);
      if (in.grad.source.data)
        add_cell_series(in.grad.source, k,
                        select(active, lambda + seed(k, kSeedSource), V{}) * static_cast<R>(p.dz[k]));
      lambda_above = lambda, reach_above = reach, gkr_above = gkr;
      residual_above = residual, size_above = size;
    }
    check(residual_above, size_above);
    finish_cell(0, lambda_above, gkr_above);
    carry_ponding = select(active, ponding_from_top, carry_ponding);
    if (p.roots) {
      add_series(in.grad.transpiration, sum_t);
      for (int i = 0; i < 4; ++i) add_series(in.grad.feddes[i], sum_h[i]);
    }
  }

  // What remains of a row of the transposed system, against the size of its terms (each lambda counted with what
  // cancelled in it: under full compensation the border takes away nearly all that the column gives). Direct
  // elimination leaves round-off; a residual that is not a number counts as wrong.
  DGPDE_HD void check(V residual, V size) {
    const R limit = vmax(static_cast<R>(p.linear_tolerance), R(1e4) * std::numeric_limits<R>::epsilon());
    // Far from all that is observed lambda fades below the normal numbers, whose digits are not all there.
    const R fading = std::numeric_limits<R>::min() / std::numeric_limits<R>::epsilon();
    const auto met = vabs(residual) <= limit * size + fading;
    worst = select(mask_and(active, mask_not(met)), broadcast<V>(1), worst);
  }

  // Everything that cell k's own terms give once lambda_k and the cotangent of kr_k are known.
  DGPDE_HD void finish_cell(int64_t k, V lambda, V gkr) {
    const V zero{};
    const V rate = lambda * inv_dt;
    V filled = broadcast<V>(p.dz[k]), carry_psi{}, from_seeds{};  // filled: dF/dtheta dt
    if (elastic) {
      const V dpsi = c.psi(k) - c.psi_old(k), theta = c.theta(k), s = c.storage(k);
      const V stored = seeds ? rate - seed(k, kSeedElastic) * inv_dt : rate;
      if (seeds) from_seeds = seed(k, kSeedElastic) * inv_dt * s * dpsi;
      filled = filled + s * dpsi;
      carry_psi = stored * s * theta;
      c.sum_storage(k) = c.sum_storage(k) - select(active, stored * theta * dpsi, zero);
    }
    const V gtheta = select(active, c.carry_theta(k) - rate * filled + from_seeds, zero);
    add_soil(k, V(c.psi(k)), c.dtheta_at(k), c.dkr_at(k), gtheta, select(active, gkr, zero));
    const V carry_theta = rate * static_cast<R>(p.dz[k]) + seed(k, kSeedBefore);
    c.carry_theta(k) = select(active, carry_theta, V(c.carry_theta(k)));
    c.carry_psi(k) = select(active, carry_psi, V(c.carry_psi(k)));
  }

  // Cotangents through one boundary face; returns the cotangent of the cell's kr.
  DGPDE_HD V boundary_gradients(int64_t k, const BoundaryFace<V>& face, const BoundaryPartials<V>& d,
                                const BoundarySoil<V>& at_face, V flux, V pond, V run, int slots,
                                const MutableView* values) {
    V g[kBoundaryInputs];
    for (int i = 0; i < kBoundaryInputs; ++i)
      g[i] = select(active, flux * d.q[i] + pond * d.ponding[i] + run * d.runoff[i], V{});
    c.sum_k(k) = c.sum_k(k) + g[kInTransmissivity] / face.half;
    if (at_face.used) {
      V psi_b{};
      boundary_head(face, psi_b);
      const auto dkr_p = at_face.list();
      add_soil(k, psi_b, dkr_p, dkr_p, V{}, g[kInKrB]);
      const int head = face.kind == Boundary::head ? kInValue0 : kInValue2;
      g[head] = g[head] + g[kInKrB] * at_face.dkr;
    }
    for (int i = 0; i < slots; ++i) add_series(values[i], g[kInValue0 + i]);
    if (k == p.nz - 1 && &face == &top) ponding_from_top = g[kInPonding];
    return g[kInKr];
  }

  // Cotangents of theta and kr at head psi of cell k, passed on to the soil's parameters.
  template <class A>
  DGPDE_HD void add_soil(int64_t k, V psi, const A& dtheta, const A& dkr, V gtheta, V gkr) {
    if (!this->tabulated()) {
      const Strided<V> sum = c.sum_at(k);
      for (int i = 0; i < n_soil; ++i) sum[i] = sum[i] + gtheta * dtheta[i] + gkr * dkr[i];
      return;
    }
    if (!in.grad.soil[0].data) return;
    // Many columns and steps add to one number, in an order that depends on the segments of the run. The sum is kept
    // to twice the precision (Knuth's two-sum), so that it rounds to the same bits in any order.
    for (int lane = 0; lane < W; ++lane) {
      if (!lanes.owns(lane)) continue;
      R* sum = table_grad + this->table_at(k, psi, lane);
      R* rest = sum + 4 * p.n_classes * p.n_knots;
      for (int i = 0; i < n_soil; ++i) {
        const R x = get(gtheta, lane) * get(V(dtheta[i]), lane) + get(gkr, lane) * get(V(dkr[i]), lane);
        const R before = sum[i], after = before + x, part = after - before;
        rest[i] += (before - (after - part)) + (x - part);
        sum[i] = after;
      }
    }
  }

  DGPDE_HD void root_gradients(int64_t k, V lambda, V& sum_t, V* sum_h) {
    const V share = select(active, seed_uptake + seed(k, kSeedTaken) - lambda, V{});
    const V m = select(active, mu, V{});
    const V w = c.root(k), a = c.stress(k);
    const V inv = R(1) / select(limited, omega, omega_c);
    sum_t = sum_t + share * w * a * inv;
    sum_omega_c = sum_omega_c - select(limited, V{}, share * w * a * root_rate * inv);
    const V ga = share * root_rate + m;  // cotangent of w a
    const Stress<V> s = feddes<true, V>(feddes_h, V(c.psi(k)));
    for (int i = 0; i < 4; ++i) sum_h[i] = sum_h[i] + ga * w * s.a_h[i];
    if (in.grad.root_density.data) add_cell_series(in.grad.root_density, k, ga * a * static_cast<R>(p.dz[k]));
  }

  DGPDE_HD void add_series(const MutableView& v, V x) const {
    if (!v.data) return;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane))
        static_cast<R*>(v.data)[interval[lane] * v.t + lanes.column(lane) * v.n] += get(x, lane);
  }
  DGPDE_HD void add_cell_series(const MutableView& v, int64_t k, V x) const {
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane))
        static_cast<R*>(v.data)[interval[lane] * v.t + k * v.z + lanes.column(lane) * v.n] += get(x, lane);
  }

  DGPDE_HD void put_cell(const MutableView& v, int64_t t, int64_t k, const Mask<V>& own, V x) const {
    if (v.data) store<V>(static_cast<R*>(v.data) + t * v.t + k * v.z, v.n, lanes, own, x);
  }

  // The sums over the steps become gradients once the first step of the run is reached; until then they are kept.
  DGPDE_HD void finish() {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    for (int lane = 0; lane < W; ++lane)
      if (lanes.owns(lane)) in.status[lanes.column(lane)] |= get(worst, lane) != R(0);
    put_cell(in.grad.omega_c, 0, 0, own, sum_omega_c);
    if (!in.first) {
      put_cell(in.carry_ponding, 0, 0, own, carry_ponding);
      for (int64_t k = 0; k < p.nz; ++k) {
        put_cell(in.carry_psi, 0, k, own, c.carry_psi(k));
        put_cell(in.carry_theta, 0, k, own, c.carry_theta(k));
        put_cell(in.sum_face, 0, k, own, c.sum_face(k));
        put_cell(in.sum_storage, 0, k, own, c.sum_storage(k));
        put_cell(in.sum_k, 0, k, own, c.sum_k(k));
        if (!this->tabulated())
          for (int i = 0; i < n_soil; ++i) put_cell(in.sum_soil, used[i], k, own, c.sum_at(k)[i]);
      }
      return;
    }
    put_cell(in.grad.ponding0, 0, 0, own, carry_ponding);
    V from_face{};
    for (int64_t k = 0; k < p.nz; ++k) {
      const Strided<V> sum = c.sum_at(k), d = c.soil_at(k);
      const V theta_s = V(d[0]) + V(d[1]), s = c.storage(k);
      // the initial state: theta_0 and psi_0 entered the first step as the old state
      c.psi(k) = load<V>(p.in.psi0, 0, k, lanes);
      this->evaluate(k);
      const V carry = c.carry_theta(k);
      add_soil(k, V(c.psi(k)), c.dtheta_at(k), c.dkr_at(k), carry, V{});
      put_cell(in.grad.psi0, 0, k, own, c.carry_psi(k) + c.capacity(k) * carry);
      // storage = dz Ss / theta_s
      put_cell(in.grad.specific_storage, 0, k, own, c.sum_storage(k) * static_cast<R>(p.dz[k]) / theta_s);
      SoilPoint<V> full;
      V dfull[kSoilSlots], dkr_full[kSoilSlots];
      soil_partials<V>(soil, d, V{}, full, dfull, dkr_full);
      for (int i = 0; i < n_soil; ++i) dfull[i] = dfull[used[i]];
      const V to_theta_s = -c.sum_storage(k) * s / theta_s;
      add_soil(k, V{}, dfull, dkr_full, to_theta_s, V{});
      if (!this->tabulated())
        for (int i = 0; i < n_soil; ++i) put_cell(in.grad.soil[used[i]], 0, k, own, sum[i]);
      // face = 2/(dz_a/K_a + dz_b/K_b)
      const V k_sat = load<V>(p.in.k_sat, 0, k, lanes);
      V total = c.sum_k(k) + from_face;
      if (k + 1 < p.nz) {
        const V above = load<V>(p.in.k_sat, 0, k + 1, lanes);
        const V t2 = R(0.5) * c.face(k) * c.face(k) * c.sum_face(k);
        total = total + t2 * static_cast<R>(p.dz[k]) / (k_sat * k_sat);
        from_face = t2 * static_cast<R>(p.dz[k + 1]) / (above * above);
      }
      put_cell(in.grad.k_sat, 0, k, own, total);
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
