// The tangent-linear run: how the outputs move when the inputs move, along the accepted steps of a forward run.
//
//   J_n dpsi_n = -( dF/dpsi_{n-1} dpsi_{n-1} + dF/dp dp + dF/df df_n )
//
// One sweep up (evaluate, eliminate J) and one down (substitute) per step.
#pragma once

#include "column_replay.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// The movement of the water of each step is of no use to a run of flow alone.
struct NoMoves {
  static constexpr bool kThere = false;
};

template <class V>
class ColumnTangent : ColumnReplay<V> {
  using Base = ColumnReplay<V>;
  using Base::p, Base::lanes, Base::soil, Base::n_soil, Base::used, Base::c, Base::top, Base::bottom, Base::top_soil,
      Base::bottom_soil, Base::interval, Base::dt, Base::inv_dt, Base::weight, Base::active, Base::ponding_old,
      Base::omega, Base::omega_c, Base::root_rate, Base::omega_slope, Base::limited, Base::transpiration,
      Base::feddes_h, Base::top_flux, Base::bottom_flux, Base::top_d, Base::bottom_d;
  using Base::W;
  using typename Base::Face;
  using typename Base::R;

 public:
  DGPDE_HD ColumnTangent(const ColumnProblem& problem, const ColumnTangents& tangents, const Lanes& which, int64_t,
                         V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride), io(tangents) {
    this->use_soil(io.in.soil);
    this->elastic = true;  // the old head takes part in every tangent
    this->rootless = io.in.root_density.data != nullptr;
  }

  template <class History>
  DGPDE_HD void run(History& history) {
    NoMoves none;
    run(history, none);
  }

  // Leaves the movement of the water of each step in `moves` (water_moves.h).
  template <class History, class Moves>
  DGPDE_HD void run(History& history, Moves& moves) {
    begin(history);
    if constexpr (Moves::kThere) {
      moves.enter(1);
      for (int64_t k = 0; k < p.nz; ++k) moves.before.theta[k] = c.carry_theta(k);
    }
    for (int64_t r = 1; any(active); ++r) {
      this->load_step(history, row);
      if constexpr (Moves::kThere) moves.enter(r);
      step(moves);
      for (int lane = 0; lane < W; ++lane) {
        if (!get_mask(active, lane)) continue;
        if (history.ends_interval(row[lane], lane)) write_interval(lane);
        if (row[lane] + 1 < history.count(lane))
          ++row[lane];
        else
          put_mask(active, lane, false);
      }
    }
    finish();
  }

 private:
  const ColumnTangents& io;
  int64_t row[W];
  V d_ponding, d_omega{};
  V sum_top{}, sum_bottom{}, sum_runoff{}, sum_uptake{};
  // names of the adjoint's sums, used here for tangents of constants: face, storage and k_sat
  DGPDE_HD V& d_face(int64_t k) const { return c.sum_face(k); }
  DGPDE_HD V& d_storage(int64_t k) const { return c.sum_storage(k); }
  DGPDE_HD V& d_k(int64_t k) const { return c.sum_k(k); }

  DGPDE_HD V cell_tangent(const View& v, int64_t t, int64_t k) const {
    return v.data ? load<V>(v, t, k, lanes) : V{};
  }
  DGPDE_HD V series_tangent(const View& v) const { return v.data ? load_series<V>(v, interval, 0, lanes) : V{}; }
  static DGPDE_HD View as_view(const MutableView& v) { return {v.data, v.t, v.z, v.n}; }

  template <class History>
  DGPDE_HD void begin(History& history) {
    for (int lane = 0; lane < W; ++lane) {
      row[lane] = 1;
      put_mask(active, lane, history.count(lane) > 1);
    }
    V below{};
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = static_cast<R>(p.dz[k]);
      const Strided<V> d = c.soil_at(k), dp = c.sum_at(k);
      if (!this->tabulated())
        for (int i = 0; i < n_soil; ++i) dp[i] = cell_tangent(io.in.soil[used[i]], 0, k);
      SoilPoint<V> full;
      V dfull[kSoilSlots], unused[kSoilSlots];
      soil_partials<V>(soil, d, V{}, full, dfull, unused);
      for (int i = 0; i < n_soil; ++i) dfull[i] = dfull[used[i]];
      const V d_theta_s = along<kTheta>(dfull, k, V{});
      const V theta_s = V(d[0]) + V(d[1]);
      d_storage(k) = (dz * cell_tangent(io.in.specific_storage, 0, k) - c.storage(k) * d_theta_s) / theta_s;
      const V k_sat = load<V>(p.in.k_sat, 0, k, lanes);
      const V dk = cell_tangent(io.in.k_sat, 0, k);
      d_k(k) = dk;
      const V resistance = dz * dk / (k_sat * k_sat);  // -d(dz/K)
      if (k > 0) d_face(k - 1) = R(0.5) * c.face(k - 1) * c.face(k - 1) * (below + resistance);
      below = resistance;
      if (io.start) {
        c.psi(k) = load<V>(p.in.psi0, 0, k, lanes);
        this->evaluate(k);
        const V dpsi = cell_tangent(io.in.psi0, 0, k);
        c.carry_psi(k) = dpsi;
        c.carry_theta(k) = c.capacity(k) * dpsi + along<kTheta>(c.dtheta_at(k), k, V(c.psi(k)));
      } else {
        c.carry_psi(k) = load<V>(as_view(io.state_psi), 0, k, lanes);
        c.carry_theta(k) = load<V>(as_view(io.state_theta), 0, k, lanes);
      }
    }
    d_ponding = io.start ? cell_tangent(io.in.ponding0, 0, 0) : load<V>(as_view(io.state_ponding), 0, 0, lanes);
  }

  enum Curve { kTheta, kConductivity };
  // Sum over the soil parameters of cell k of derivative of a curve (at head psi) times tangent.
  template <Curve kCurve, class A>
  DGPDE_HD V along(const A& derivative, int64_t k, V psi) const {
    V x{};
    if (!this->tabulated()) {
      const Strided<V> dp = c.sum_at(k);
      for (int i = 0; i < n_soil; ++i) x = x + derivative[i] * dp[i];
      if (io.in.weights.data) {
        V dot_theta, dot_kr;
        Network::push<V>(soil.network, io.in.weights.data, c.soil_at(k), psi, dot_theta, dot_kr);
        x = x + (kCurve == kTheta ? dot_theta : dot_kr);
      }
    } else if (io.in.soil[0].data) {
      const auto places = this->table_at(k, psi);
      for (int lane = 0; lane < W; ++lane) {
        const R* at = static_cast<const R*>(io.in.soil[0].data) + places.at[lane];
        R sum = 0;
        for (int i = 0; i < n_soil; ++i)
          if (Tabulated::of_theta(i) == (kCurve == kTheta)) sum += get(V(derivative[i]), lane) * at[i];
        put(x, lane, sum);
      }
    }
    return x;
  }

  struct BoundaryTangent {
    V q, ponding, runoff;
  };
  // Movement of the boundary's outputs with everything but the cell's psi.
  DGPDE_HD BoundaryTangent boundary_tangent(int64_t k, const BoundaryFace<V>& face, const BoundaryPartials<V>& d,
                                            const BoundarySoil<V>& at_face, V dkr, int slots,
                                            const View* values) const {
    V x[kBoundaryInputs] = {};
    x[kInKr] = dkr;
    x[kInTransmissivity] = c.sum_k(k) / face.half;
    for (int i = 0; i < slots; ++i) x[kInValue0 + i] = series_tangent(values[i]);
    if (at_face.used) {
      V psi_b{};
      boundary_head(face, psi_b);
      x[kInKrB] = at_face.dkr * x[face.kind == Boundary::head ? kInValue0 : kInValue2] +
                  along<kConductivity>(at_face.list(), k, psi_b);
    }
    x[kInPonding] = d_ponding;
    if (face.kind == Boundary::atmosphere && io.in.response[kEvaporation].data)
      x[kInShare] = push_response<V>(p, kEvaporation, lanes, V(c.psi(k)), io.in.response[kEvaporation]);
    BoundaryTangent t{};
    for (int i = 0; i < kBoundaryInputs; ++i) {
      t.q = t.q + d.q[i] * x[i];
      t.ponding = t.ponding + d.ponding[i] * x[i];
      t.runoff = t.runoff + d.runoff[i] * x[i];
    }
    return t;
  }

  template <class Moves>
  DGPDE_HD void step(const Moves& moves) {
    const int64_t last = p.nz - 1;
    V elim{}, rhs{}, border{}, carry{}, border_rhs{}, pivot = broadcast<V>(1), omega_rhs{};
    V before{}, from_below{}, flux_below{};
    V root_rate_p{}, d_h[4] = {}, uptake_p{};
    BoundaryTangent at_top{}, at_bottom{};
    if (p.roots) {
      const V inv = R(1) / select(limited, omega, omega_c);
      const V fixed = root_rate * cell_tangent(io.in.omega_c, 0, 0);
      root_rate_p = (series_tangent(io.in.transpiration) - select(limited, V{}, fixed)) * inv;
      for (int i = 0; i < 4; ++i) d_h[i] = series_tangent(io.in.feddes[i]);
    }
    V dkr = along<kConductivity>(c.dkr_at(0), 0, V(c.psi(0)));
    for (int64_t k = 0; k <= last; ++k) {
      const R dz = static_cast<R>(p.dz[k]);
      V dkr_above{};
      if (k < last) {
        dkr_above = along<kConductivity>(c.dkr_at(k + 1), k + 1, V(c.psi(k + 1)));
      }
      V diag = this->own_diagonal(k) + from_below;
      const V dpsi = c.psi(k) - c.psi_old(k), theta = c.theta(k), s = c.storage(k);
      const V dtheta = along<kTheta>(c.dtheta_at(k), k, V(c.psi(k)));
      V load = -inv_dt * (dz * (dtheta - c.carry_theta(k)) + s * (dtheta * dpsi - theta * c.carry_psi(k)) +
                          d_storage(k) * theta * dpsi) +
               flux_below;
      V next{}, before_next{};
      if (k < last) {
        const Face f = this->face_above(k);
        diag = diag + f.q_a;
        next = f.q_b;
        before_next = -f.q_a;
        from_below = -f.q_b;
        const V moved = f.q_kra * dkr + f.q_krb * dkr_above - d_face(k) * f.kf * f.fall;
        load = load - moved;
        flux_below = moved;
      }
      if (k == 0) {
        boundary_flux<true, V>(bottom, V(c.psi(0)), V(c.kr(0)), ponding_old, dt, inv_dt, bottom_flux, &bottom_d);
        diag = diag - (bottom_flux.q_psi + bottom_flux.q_kr * c.dkr(0));
        at_bottom = boundary_tangent(0, bottom, bottom_d, this->bottom_soil, dkr, kBottomSlots, io.in.bottom);
        load = load + at_bottom.q;
      }
      if (k == last) {
        respond(p, lanes, V(c.psi(k)), top);
        boundary_flux<true, V>(top, V(c.psi(k)), V(c.kr(k)), ponding_old, dt, inv_dt, top_flux, &top_d);
        diag = diag - (top_flux.q_psi + top_flux.q_kr * c.dkr(k));
        at_top = boundary_tangent(k, top, top_d, this->top_soil, dkr, kTopSlots, io.in.top);
        load = load + at_top.q;
      }
      V along_omega{}, row_root{};
      if (p.roots) {
        const V w = c.root(k);
        const V a = c.stress(k), psi = c.psi(k);
        V taken = io.in.root_density.data ? dz * load_series<V>(io.in.root_density, interval, k, lanes) * a : V{};
        if (io.in.response[kRoots].data)
          taken = taken + w * push_response<V>(p, kRoots, lanes, psi, io.in.response[kRoots]);
        if (p.response[kRoots].count == 0) {
          V a_h[4];
          feddes<true, V>(feddes_h, psi, a_h);
          for (int i = 0; i < 4; ++i) taken = taken + w * a_h[i] * d_h[i];
        }
        const V uptake = taken * root_rate + w * a * root_rate_p;
        load = load - uptake;
        uptake_p = uptake_p + uptake;
        omega_rhs = omega_rhs + taken;
        if constexpr (Moves::kThere) moves.now.taken[k] = uptake;
        along_omega = w * a * omega_slope;
        row_root = -w * c.stress_psi(k);
      }
      V added{};
      if (io.in.source.data) added = dz * load_series<V>(io.in.source, interval, k, lanes);
      load = load + added;
      if constexpr (Moves::kThere)
        if (moves.now.source) moves.now.source[k] = added;
      const V inv = R(1) / (diag - before * elim);
      rhs = (load - before * rhs) * inv;
      elim = next * inv;
      c.rhs(k) = rhs, c.elim(k) = elim;
      if (p.roots) {
        border = (along_omega - before * border) * inv;
        c.border(k) = border;
        const V coefficient = row_root + carry;
        border_rhs = border_rhs + coefficient * rhs;
        pivot = pivot - coefficient * border;
        carry = -coefficient * elim;
      }
      before = before_next;
      dkr = dkr_above;
    }
    if (p.roots) d_omega = (omega_rhs - border_rhs) / pivot;
    V x{}, uptake = uptake_p + omega_slope * omega * d_omega;
    for (int64_t k = last; k >= 0; --k) {
      x = c.rhs(k) - c.elim(k) * x;
      if (p.roots) {
        x = x - c.border(k) * d_omega;
        uptake = uptake + c.root(k) * c.stress_psi(k) * root_rate * x;
      }
      const V dtheta = c.capacity(k) * x + along<kTheta>(c.dtheta_at(k), k, V(c.psi(k)));
      if constexpr (Moves::kThere) {
        const V dpsi = c.psi(k) - c.psi_old(k), theta = c.theta(k);
        moves.now.theta[k] = dtheta;
        moves.now.elastic[k] =
            inv_dt * (d_storage(k) * theta * dpsi + c.storage(k) * (dtheta * dpsi + theta * (x - c.carry_psi(k))));
        if (p.roots)
          moves.now.taken[k] = moves.now.taken[k] +
                               c.root(k) * (c.stress_psi(k) * root_rate * x + c.stress(k) * omega_slope * d_omega);
      }
      c.carry_theta(k) = select(active, dtheta, V(c.carry_theta(k)));
      c.carry_psi(k) = select(active, x, V(c.carry_psi(k)));
    }
    const V x_top = c.carry_psi(last), x_bottom = c.carry_psi(0), dkr_top = c.dkr(last);
    const V pond = at_top.ponding + (top_d.ponding[kInPsi] + top_d.ponding[kInKr] * dkr_top) * x_top;
    const V run = at_top.runoff + (top_d.runoff[kInPsi] + top_d.runoff[kInKr] * dkr_top) * x_top;
    sum_top = sum_top + weight * (at_top.q + (top_flux.q_psi + top_flux.q_kr * dkr_top) * x_top);
    const V moved_bottom = at_bottom.q + (bottom_flux.q_psi + bottom_flux.q_kr * c.dkr(0)) * x_bottom;
    if constexpr (Moves::kThere) moves.close(moved_bottom, inv_dt, p.dz);
    sum_bottom = sum_bottom + weight * moved_bottom;
    sum_runoff = sum_runoff + weight * run;
    sum_uptake = sum_uptake + weight * uptake;
    d_ponding = select(active, pond, d_ponding);
  }

  DGPDE_HD void put_series(const MutableView& v, int64_t t, int64_t column, V& sum, int lane) const {
    static_cast<R*>(v.data)[t * v.t + column * v.n] = get(sum, lane);
    put(sum, lane, R(0));
  }

  DGPDE_HD void write_interval(int lane) {
    const int64_t column = lanes.column(lane), t = interval[lane];
    put_series(io.top_flux, t, column, sum_top, lane);
    put_series(io.bottom_flux, t, column, sum_bottom, lane);
    put_series(io.runoff, t, column, sum_runoff, lane);
    put_series(io.uptake, t, column, sum_uptake, lane);
    static_cast<R*>(io.ponding.data)[(t + 1) * io.ponding.t + column * io.ponding.n] = get(d_ponding, lane);
    const int64_t saved = io.save_row[t + 1];
    if (saved < 0) return;
    R* base = static_cast<R*>(io.psi.data) + saved * io.psi.t + column * io.psi.n;
    for (int64_t k = 0; k < p.nz; ++k) base[k * io.psi.z] = get(V(c.carry_psi(k)), lane);
  }

  DGPDE_HD void finish() {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    const auto keep = [&](const MutableView& v, int64_t k, V x) {
      store<V>(static_cast<R*>(v.data) + k * v.z, v.n, lanes, own, x);
    };
    keep(io.state_ponding, 0, d_ponding);
    for (int64_t k = 0; k < p.nz; ++k) {
      keep(io.state_psi, k, c.carry_psi(k));
      keep(io.state_theta, k, c.carry_theta(k));
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
