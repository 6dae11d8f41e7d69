// What an adjoint run sums up over the steps, and how it takes it up from the segment after and leaves it to the one
// before: gradients of the parameters, the carries to the state before, the residuals that were too large.
#pragma once

#include "column_replay.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// A pack of columns sums the gradients of a network's weights in memory of its own.
template <class V>
constexpr bool kKeepsWeights = Lane<V>::width > 1;

template <class V>
class ColumnSums : protected ColumnReplay<V> {
 protected:
  using Base = ColumnReplay<V>;
  using Base::p, Base::lanes, Base::elastic, Base::soil, Base::n_soil, Base::used, Base::c, Base::interval,
      Base::active;
  using Base::W;
  using typename Base::R;

  const ColumnCotangents& in;
  R* const table_grad;
  bool weighs = false;                               // whether the gradient of a network's weights is asked for
  V weight_sum[kKeepsWeights<V> ? kMaxWeights : 1];  // of each column; a GPU thread adds to memory
  V carry_ponding, sum_omega_c{};
  V worst{};  // 1 in lanes whose solves were not met

  // `chunk` says which of the table's gradients (each a sum and what its rounding lost) this pack adds to.
  DGPDE_HD ColumnSums(const ColumnProblem& problem, const ColumnCotangents& cotangents, const Lanes& which,
                      int64_t chunk, V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride),
        in(cotangents),
        table_grad(static_cast<R*>(in.grad.soil[0].data) + (this->tabulated() ? chunk * in.grad.soil[0].t : 0)) {
    this->use_soil(in.grad.soil);
    weighs = in.grad.weights.data != nullptr;
    elastic |= in.grad.specific_storage.data != nullptr;
    this->rootless = in.grad.root_density.data != nullptr;
  }

  static DGPDE_HD View as_view(const MutableView& v) { return {v.data, v.t, v.z, v.n}; }

  // What the segment after has left, or nothing.
  DGPDE_HD void take_up() {
    for (int64_t k = 0; k < p.nz; ++k) {
      c.carry_psi(k) = c.carry_theta(k) = c.sum_face(k) = c.sum_storage(k) = c.sum_k(k) = V{};
      const Strided<V> sum = c.sum_at(k);
      for (int i = 0; i < n_soil; ++i) sum[i] = V{};
      if (in.resume) {
        c.carry_psi(k) = load<V>(as_view(in.carry_psi), 0, k, lanes);
        c.carry_theta(k) = load<V>(as_view(in.carry_theta), 0, k, lanes);
        c.sum_face(k) = load<V>(as_view(in.sum_face), 0, k, lanes);
        c.sum_storage(k) = load<V>(as_view(in.sum_storage), 0, k, lanes);
        c.sum_k(k) = load<V>(as_view(in.sum_k), 0, k, lanes);
        if (!this->tabulated())  // a table's gradient is in memory of its own
          for (int i = 0; i < n_soil; ++i) sum[i] = load<V>(as_view(in.sum_soil), used[i], k, lanes);
      }
    }
    if constexpr (kKeepsWeights<V>)
      for (int64_t i = 0; weighs && i < soil.network.size(); ++i)
        weight_sum[i] = load<V>(as_view(in.grad.weights), i, 0, lanes);
    carry_ponding = in.resume ? load<V>(as_view(in.carry_ponding), 0, 0, lanes) : V{};
    if (in.resume && p.roots) sum_omega_c = load<V>(as_view(in.grad.omega_c), 0, 0, lanes);
  }

  template <class A>
  DGPDE_HD void add_parameters(int64_t k, const A& dtheta, const A& dkr, V gtheta, V gkr) {
    const Strided<V> sum = c.sum_at(k);
    for (int i = 0; i < n_soil; ++i) sum[i] = sum[i] + gtheta * dtheta[i] + gkr * dkr[i];
  }

  // Cotangents of theta and kr at a head of cell k, passed on to the soil's parameters; place() says where a table has
  // its numbers there.
  template <class A, class Place>
  DGPDE_HD void add_soil(int64_t k, const A& dtheta, const A& dkr, V gtheta, V gkr, const Place& place) {
    if (!this->tabulated()) return add_parameters(k, dtheta, dkr, gtheta, gkr);
    if (!in.grad.soil[0].data) return;
    // Many columns and steps add to one number, in an order that depends on the segments of the run. The sum is kept
    // to twice the precision (Knuth's two-sum), so that it rounds to the same bits in any order.
    V x[Tabulated::n_raw];
    for (int i = 0; i < Tabulated::n_raw; ++i)
      x[i] = Tabulated::of_theta(i) ? gtheta * V(dtheta[i]) : gkr * V(dkr[i]);
    Tabulated::add_rows<V>(x, place(), lanes.first, lanes.n, table_grad, table_grad + 4 * p.n_classes * p.n_knots);
  }

  // Cotangents of theta and kr at head psi of cell k, passed on to a network's weights.
  // The slopes are those at psi.
  DGPDE_HD void add_weights(int64_t k, V psi, V capacity, V dkr, V gtheta, V gkr) {
    if (weighs && any(mask_or(gtheta != V{}, gkr != V{}))) pull_weights(k, psi, capacity, dkr, gtheta, gkr);
  }
  DGPDE_HD_NOINLINE void pull_weights(int64_t k, V psi, V capacity, V dkr, V gtheta, V gkr) {
    Network::pull<V>(soil.network, c.soil_at(k), psi, capacity, dkr, gtheta, gkr, [&](int64_t i, V x) {
      if constexpr (kKeepsWeights<V>)
        weight_sum[i] = weight_sum[i] + x;
      else
        static_cast<R*>(in.grad.weights.data)[i * in.grad.weights.t + lanes.column(0) * in.grad.weights.n] += x;
    });
  }

  DGPDE_HD void add_series(const MutableView& v, V x) const {
    if (!v.data) return;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane) && lanes.owns(lane))
        static_cast<R*>(v.data)[interval[lane] * v.t + lanes.column(lane) * v.n] += get(x, lane);
  }
  DGPDE_HD void add_cell_series(const MutableView& v, int64_t k, V x) const {
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(active, lane) && lanes.owns(lane))
        static_cast<R*>(v.data)[interval[lane] * v.t + k * v.z + lanes.column(lane) * v.n] += get(x, lane);
  }

  DGPDE_HD void put_cell(const MutableView& v, int64_t t, int64_t k, const Mask<V>& own, V x) const {
    if (v.data) store<V>(static_cast<R*>(v.data) + t * v.t + k * v.z, v.n, lanes, own, x);
  }

  // The sums over the steps become gradients once the first step of the run is reached; until then they are kept.
  DGPDE_HD void leave() {
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    for (int lane = 0; lane < W; ++lane)
      if (lanes.owns(lane)) in.status[lanes.column(lane)] |= get(worst, lane) != R(0);
    put_cell(in.grad.omega_c, 0, 0, own, sum_omega_c);
    if (!in.first) {
      keep_weights(own);
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
      add_soil(k, c.dtheta_at(k), c.dkr_at(k), carry, V{}, [&] { return this->table_at(k); });
      add_weights(k, V(c.psi(k)), V(c.capacity(k)), V{}, carry, V{});
      put_cell(in.grad.psi0, 0, k, own, c.carry_psi(k) + c.capacity(k) * carry);
      // storage = dz Ss / theta_s
      put_cell(in.grad.specific_storage, 0, k, own, c.sum_storage(k) * static_cast<R>(p.dz[k]) / theta_s);
      SoilPoint<V> full;
      V dfull[kSoilSlots], dkr_full[kSoilSlots];
      soil_partials<V>(soil, d, V{}, full, dfull, dkr_full);
      for (int i = 0; i < n_soil; ++i) dfull[i] = dfull[used[i]];
      const V to_theta_s = -c.sum_storage(k) * s / theta_s;
      add_soil(k, dfull, dkr_full, to_theta_s, V{}, [&] { return this->table_at(k, V{}); });
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
    keep_weights(own);
  }

  DGPDE_HD void keep_weights(const Mask<V>& own) const {
    if constexpr (kKeepsWeights<V>)
      for (int64_t i = 0; weighs && i < soil.network.size(); ++i) put_cell(in.grad.weights, i, 0, own, weight_sum[i]);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
