// The discrete adjoint of a column-flow run: one sweep up (evaluate, eliminate J^T) and one down (substitute,
// accumulate) per accepted step, from the last step to the first. Derived line by line in
// dgpde/kernels/column_flow/README.md:
//
//   J_n^T lambda = g_n,   grad_p += -lambda^T dF/dp,   carry to psi_{n-1} = -(dF/dpsi_{n-1})^T lambda
//
// The old state enters F only through theta(psi_{n-1}), psi_{n-1} (specific storage) and the ponding, so the carry is
// held as carry_theta (cotangent of theta_{n-1}), carry_psi and carry_ponding, and the soil is evaluated once a step.
#pragma once

#include "column_sums.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Cotangents that the water of each step has from what it carried; there are none in a run of flow alone.
struct NoSeeds {
  static constexpr bool kThere = false;
};

template <class V>
class ColumnAdjoint : ColumnSums<V> {
  using Base = ColumnSums<V>;
  using Base::p, Base::lanes, Base::elastic, Base::soil, Base::n_soil, Base::used, Base::c, Base::top, Base::bottom,
      Base::top_soil, Base::bottom_soil, Base::interval, Base::dt, Base::inv_dt, Base::weight, Base::active,
      Base::ponding_old, Base::omega, Base::omega_c, Base::root_rate, Base::omega_slope, Base::limited,
      Base::transpiration, Base::feddes_h, Base::top_flux, Base::bottom_flux, Base::top_d, Base::bottom_d, Base::in,
      Base::weighs, Base::carry_ponding, Base::sum_omega_c, Base::worst;
  using Base::W;
  using typename Base::Face;
  using typename Base::R;

 public:
  // `chunk` says which of the table's gradients (each a sum and what its rounding lost) this pack adds to.
  DGPDE_HD ColumnAdjoint(const ColumnProblem& problem, const ColumnCotangents& cotangents, const Lanes& which,
                         int64_t chunk, V* scratch, int64_t stride)
      : Base(problem, cotangents, which, chunk, scratch, stride) {
    simple = !p.roots && !elastic && !weighs && !this->tabulated() && !in.grad.source.data;
  }

  enum Seed { kSeedElastic, kSeedTaken, kSeedSource, kSeedBefore, kSeeds };

  template <class History>
  DGPDE_HD void run(History& history) {
    run(history, NoSeeds{}, nullptr);
  }

  // With the cotangents of the water of each step (water_seeds.h); `memory` [nz][kSeeds] holds those of one step.
  template <class History, class Seeds>
  DGPDE_HD void run(History& history, const Seeds& water, V* memory) {
    seeds = memory;
    if constexpr (Seeds::kThere) elastic |= water.elastic(), simple = false;
    begin(history);
    while (any(active)) {
      this->load_step(history, row);
      load_cotangents(history);
      if constexpr (Seeds::kThere)
        seed_bottom =
            seed_bottom + water.load(row, active, memory, [&](int64_t k) -> V& { return c.carry_theta(k); });
      differentiate_ends();
      const bool bare = kBares && simple && !heads && all(active);
      bare ? eliminate_up<kBares>() : eliminate_up<false>();
      verify();
      bare ? accumulate_down<kBares>() : accumulate_down<false>();
      for (int lane = 0; lane < W; ++lane) {
        if (row[lane] > 1)
          --row[lane];
        else
          put_mask(active, lane, false);  // its first step is done
      }
    }
    this->leave();
  }

 private:
  // Steps of a pack in which all lanes move, nothing is observed, and no cell has roots, storage or a source asked for,
  // have sweeps of their own: a quarter of the general ones' instructions ask for these. A GPU thread has one pair.
  static constexpr bool kBares = W > 1;
  bool simple = false;  // but for what changes from step to step
  int64_t row[W];
  V ponding_from_top{}, mu{};
  V seed_top, seed_bottom, seed_runoff, seed_uptake, seed_ponding;
  V top_slope, bottom_slope, top_load, bottom_load;  // of the boundary fluxes: what they add to the end rows
  V* seeds = nullptr;
  DGPDE_HD V seed(int64_t k, Seed which) const { return seeds ? seeds[k * kSeeds + which] : V{}; }
  bool heads = true;   // whether carry_psi may hold anything
  Mask<V> doubtful{};  // lanes in which the elimination may have lost digits

  template <class History>
  DGPDE_HD void begin(History& history) {
    for (int lane = 0; lane < W; ++lane) {
      row[lane] = history.count(lane) - 1;
      put_mask(active, lane, row[lane] > 0);
    }
    this->take_up();
  }

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
      heads = true;
    }
  }

  DGPDE_HD void differentiate_ends() {
    const int64_t last = p.nz - 1;
    boundary_flux<true, V>(bottom, V(c.psi(0)), V(c.kr(0)), ponding_old, dt, inv_dt, bottom_flux, &bottom_d);
    respond(p, lanes, V(c.psi(last)), top);
    boundary_flux<true, V>(top, V(c.psi(last)), V(c.kr(last)), ponding_old, dt, inv_dt, top_flux, &top_d);
    const V dkr = c.dkr(last);
    bottom_slope = bottom_flux.q_psi + bottom_flux.q_kr * c.dkr(0);
    bottom_load = seed_bottom * bottom_slope;
    top_slope = top_flux.q_psi + top_flux.q_kr * dkr;
    top_load = seed_top * top_slope + seed_ponding * (top_d.ponding[kInPsi] + top_d.ponding[kInKr] * dkr) +
               seed_runoff * (top_d.runoff[kInPsi] + top_d.runoff[kInKr] * dkr);
  }

  // Right-hand side of row k without the boundaries.
  template <bool kBare = false>
  DGPDE_HD V own_load(int64_t k) const {
    V load = rounded(c.capacity(k) * c.carry_theta(k));
    if constexpr (kBare) return load;
    if (heads) load = load + c.carry_psi(k);
    if (seeds && elastic) {
      const V stored = c.theta(k) + c.capacity(k) * (c.psi(k) - c.psi_old(k));  // d(theta dpsi)/dpsi
      load = load + seed(k, kSeedElastic) * c.storage(k) * inv_dt * stored;
    }
    const V of_uptake = seed_uptake + seed(k, kSeedTaken);
    return p.roots ? load + of_uptake * c.root(k) * c.stress_psi(k) * root_rate : load;
  }

  struct Elimination {  // lambda_k = rhs - elim lambda_{k+1} - border mu, elim = next inv
    V next{}, inv{}, rhs{}, border{};
    V carry{}, border_rhs{}, pivot = broadcast<V>(1);  // the eliminated row of mu
  };

  // Row k of J^T lambda = g couples to k-1 by dF_{k-1}/dpsi_k and to k+1 by dF_{k+1}/dpsi_k.
  template <bool kBare>
  DGPDE_HD void eliminate_up() {
    const int64_t last = p.nz - 1;
    Elimination e;
    V before{}, diag = this->template own_diagonal<kBare>(0) - bottom_slope, load = own_load<kBare>(0) + bottom_load;
    doubtful = Mask<V>{};
    for (int64_t k = 0; k < last; ++k) {
      const Face f = this->face_above(k);
      eliminate<kBare>(k, before, diag + f.q_a, -f.q_a, load, e);
      before = f.q_b, diag = this->template own_diagonal<kBare>(k + 1) - f.q_b, load = own_load<kBare>(k + 1);
    }
    eliminate<kBare>(last, before, diag - top_slope, V{}, load + top_load, e);
    if (!kBare && p.roots) {
      V taken = seed_uptake * omega;
      if (seeds)
        for (int64_t k = 0; k <= last; ++k) taken = taken + seed(k, kSeedTaken) * c.root(k) * c.stress(k);
      mu = (taken * omega_slope - e.border_rhs) / e.pivot;
    }
  }

  template <bool kBare>
  DGPDE_HD void eliminate(int64_t k, V before, V diag, V next, V load, Elimination& e) {
    const V fill = before * e.next * e.inv;  // in this order nothing but a division waits for the row before
    doubtful = mask_or(doubtful, vabs(fill) > R(kMostFill) * vabs(diag));
    const V inv = R(1) / (diag - fill);
    e.rhs = (load - before * e.rhs) * inv;
    const V elim = next * inv;
    e.next = next, e.inv = inv;
    c.rhs(k) = e.rhs, c.elim(k) = elim;
    if (!kBare && p.roots) {
      // coefficient of mu in this row, coefficient of lambda_k in the row of mu
      const V along = -c.root(k) * c.stress_psi(k), coefficient = c.root(k) * c.stress(k) * omega_slope + e.carry;
      e.border = (along - before * e.border) * inv;
      c.border(k) = e.border;
      e.border_rhs = e.border_rhs + coefficient * e.rhs;
      e.pivot = e.pivot - coefficient * e.border;
      e.carry = -coefficient * elim;
    }
  }

  template <bool kBare = false>
  DGPDE_HD V substitute(int64_t k, V lambda_above) const {
    const V lambda = c.rhs(k) - c.elim(k) * lambda_above;
    return !kBare && p.roots ? lambda - c.border(k) * mu : lambda;
  }

  // Elimination without pivoting solves a system that differs from the given one by round-off of |L||U|: on the
  // diagonal |diag| + 2 |fill|, everywhere else the coefficients themselves (Higham 2002, section 9.6). So while fill is
  // within kMostFill of diag no residual can come near the limit of check(), and none is formed. Otherwise, and where
  // the border may have taken away nearly all that the column gave (full compensation), every row is held against it.
  static constexpr int kMostFill = 100;
  DGPDE_HD void verify() {
    if (p.roots) doubtful = mask_or(doubtful, mu != V{});
    doubtful = mask_and(doubtful, active);
    if (!any(doubtful)) return;
    V lambda{}, reach{}, residual{}, size{};  // of the row above, which its neighbour below is still to complete
    Face above{};
    for (int64_t k = p.nz - 1; k >= 0; --k) {
      const bool highest = k == p.nz - 1;
      const Face below = k > 0 ? this->face_above(k - 1) : Face{};
      const V diag = this->own_diagonal(k) + (highest ? -top_slope : above.q_a) - (k > 0 ? below.q_b : bottom_slope);
      V load = own_load(k);
      if (highest) load = load + top_load;
      if (k == 0) load = load + bottom_load;
      const V mine = substitute(k, lambda);
      V terms = vabs(mine);  // whose round-off lambda carries
      V mine_residual = diag * mine - load, mine_size = vabs(load);
      if (p.roots) {
        const V part = c.border(k) * mu, along = c.root(k) * c.stress_psi(k) * mu;
        terms = vabs(mine + part) + vabs(part);
        mine_residual = mine_residual - along;
        mine_size = mine_size + vabs(along);
      }
      mine_size = mine_size + vabs(diag) * terms;
      if (!highest) {
        check(residual + above.q_b * mine, size + vabs(above.q_b) * terms);
        mine_residual = mine_residual - above.q_a * lambda;
        mine_size = mine_size + vabs(above.q_a) * reach;
      }
      lambda = mine, reach = terms, residual = mine_residual, size = mine_size, above = below;
    }
    check(residual, size);
  }

  template <bool kBare>
  DGPDE_HD void accumulate_down() {
    const int64_t last = p.nz - 1;
    V sum_t{}, sum_h[4] = {};
    V lambda = substitute<kBare>(last, V{});
    V gkr = boundary_gradients(last, top, top_d, top_soil, lambda + seed_top, seed_ponding, seed_runoff, kTopSlots,
                               in.grad.top);
    forcing_gradients<kBare>(last, lambda, sum_t, sum_h);
    for (int64_t k = last - 1; k >= 0; --k) {
      const V lambda_above = lambda;
      lambda = substitute<kBare>(k, lambda);
      const Face f = this->face_above(k);
      const V phi = moving<kBare>(lambda_above - lambda);
      c.sum_face(k) = c.sum_face(k) - phi * f.kf * f.fall;
      finish_cell<kBare>(k + 1, lambda_above, gkr + phi * f.q_krb);
      gkr = phi * f.q_kra;
      forcing_gradients<kBare>(k, lambda, sum_t, sum_h);
    }
    gkr = gkr + boundary_gradients(0, bottom, bottom_d, bottom_soil, lambda + seed_bottom, V{}, V{}, kBottomSlots,
                                   in.grad.bottom);
    finish_cell<kBare>(0, lambda, gkr);
    // what is not a number spreads downwards
    worst = select(mask_and(active, mask_not(finite(lambda))), broadcast<V>(1), worst);
    heads = elastic || !all(active);
    carry_ponding = select(active, ponding_from_top, carry_ponding);
    if (!kBare && p.roots) {
      this->add_series(in.grad.transpiration, sum_t);
      for (int i = 0; i < 4; ++i) this->add_series(in.grad.feddes[i], sum_h[i]);  // none of a table
    }
  }

  // x in the lanes that move, 0 in the others.
  template <bool kBare>
  DGPDE_HD V moving(V x) const {
    return kBare ? x : select(active, x, V{});
  }

  // Cotangents of the forcing that acts on cell k.
  template <bool kBare>
  DGPDE_HD void forcing_gradients(int64_t k, V lambda, V& sum_t, V* sum_h) {
    if constexpr (kBare) return;
    if (p.roots) root_gradients(k, lambda, sum_t, sum_h);
    if (in.grad.source.data)
      this->add_cell_series(in.grad.source, k,
                            select(active, lambda + seed(k, kSeedSource), V{}) * static_cast<R>(p.dz[k]));
  }

  // What remains of a row of the transposed system, against the size of its terms (each lambda counted with what
  // cancelled in it: under full compensation the border takes away nearly all that the column gives). Direct
  // elimination leaves round-off; a residual that is not a number counts as wrong.
  DGPDE_HD void check(V residual, V size) {
    const R limit = vmax(static_cast<R>(p.linear_tolerance), R(1e4) * std::numeric_limits<R>::epsilon());
    // Far from all that is observed lambda fades below the normal numbers, whose digits are not all there.
    const R fading = std::numeric_limits<R>::min() / std::numeric_limits<R>::epsilon();
    const auto met = vabs(residual) <= limit * size + fading;
    worst = select(mask_and(doubtful, mask_not(met)), broadcast<V>(1), worst);
  }

  // Everything that cell k's own terms give once lambda_k and the cotangent of kr_k are known.
  template <bool kBare>
  DGPDE_HD void finish_cell(int64_t k, V lambda, V gkr) {
    const V rate = lambda * inv_dt;
    V filled = broadcast<V>(p.dz[k]), carry_psi{}, from_seeds{};  // filled: dF/dtheta dt
    if (!kBare && elastic) {
      const V dpsi = c.psi(k) - c.psi_old(k), theta = c.theta(k), s = c.storage(k);
      const V of_stored = seed(k, kSeedElastic) * inv_dt, stored = rate - of_stored;
      from_seeds = of_stored * s * dpsi;
      filled = filled + s * dpsi;
      carry_psi = stored * s * theta;
      c.sum_storage(k) = c.sum_storage(k) - moving<kBare>(stored * theta * dpsi);
    }
    const V gtheta = moving<kBare>(c.carry_theta(k) - rate * filled + from_seeds);
    gkr = moving<kBare>(gkr);
    if constexpr (kBare) {
      this->add_parameters(k, c.dtheta_at(k), c.dkr_at(k), gtheta, gkr);
      c.carry_theta(k) = rounded(rate) * static_cast<R>(p.dz[k]);  // not the product above, which is fused there
    } else {
      this->add_soil(k, c.dtheta_at(k), c.dkr_at(k), gtheta, gkr, [&] { return this->table_at(k); });
      this->add_weights(k, V(c.psi(k)), V(c.capacity(k)), V(c.dkr(k)), gtheta, gkr);
      const V carry_theta = rate * static_cast<R>(p.dz[k]) + seed(k, kSeedBefore);
      c.carry_theta(k) = select(active, carry_theta, V(c.carry_theta(k)));
      if (heads) c.carry_psi(k) = select(active, carry_psi, V(c.carry_psi(k)));
    }
  }

  // Cotangents through one boundary face; returns the cotangent of the cell's kr.
  DGPDE_HD V boundary_gradients(int64_t k, const BoundaryFace<V>& face, const BoundaryPartials<V>& d,
                                const BoundarySoil<V>& at_face, V flux, V pond, V run, int slots,
                                const MutableView* values) {
    // one by one: few boundaries have all of them
    const auto gradient = [&](int i) {
      return select(active, flux * d.q[i] + pond * d.ponding[i] + run * d.runoff[i], V{});
    };
    c.sum_k(k) = c.sum_k(k) + gradient(kInTransmissivity) / face.half;
    const int head = face.kind == Boundary::head ? kInValue0 : kInValue2;  // the value that sets kr_b
    V through_kr{};
    if (at_face.used) {
      V psi_b{};
      boundary_head(face, psi_b);
      const auto dkr_p = at_face.list();
      const V gkr = gradient(kInKrB);
      this->add_soil(k, dkr_p, dkr_p, V{}, gkr, [&] { return this->table_at(k, psi_b); });
      this->add_weights(k, psi_b, V{}, at_face.dkr, V{}, gkr);
      through_kr = gkr * at_face.dkr;
    }
    for (int i = 0; i < slots; ++i)
      if (values[i].data)
        this->add_series(values[i], gradient(kInValue0 + i) + (kInValue0 + i == head ? through_kr : V{}));
    if (face.kind == Boundary::atmosphere && in.grad.response[kEvaporation].data)
      pull_response<V>(p, kEvaporation, lanes, active, V(c.psi(k)), gradient(kInShare),
                       in.grad.response[kEvaporation]);
    if (k == p.nz - 1 && &face == &top) ponding_from_top = gradient(kInPonding);
    return gradient(kInKr);
  }

  DGPDE_HD void root_gradients(int64_t k, V lambda, V& sum_t, V* sum_h) {
    const V share = select(active, seed_uptake + seed(k, kSeedTaken) - lambda, V{});
    const V m = select(active, mu, V{});
    const V w = c.root(k), a = c.stress(k);
    const V inv = R(1) / select(limited, omega, omega_c);
    sum_t = sum_t + share * w * a * inv;
    sum_omega_c = sum_omega_c - select(limited, V{}, share * w * a * root_rate * inv);
    const V ga = share * root_rate + m;  // cotangent of w a
    if (in.grad.response[kRoots].data && any(w != V{}))
      pull_response<V>(p, kRoots, lanes, active, V(c.psi(k)), ga * w, in.grad.response[kRoots]);
    if (p.response[kRoots].count == 0) {
      V a_h[4];
      feddes<true, V>(feddes_h, V(c.psi(k)), a_h);
      for (int i = 0; i < 4; ++i) sum_h[i] = sum_h[i] + ga * w * a_h[i];
    }
    if (in.grad.root_density.data) this->add_cell_series(in.grad.root_density, k, ga * a * static_cast<R>(p.dz[k]));
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
