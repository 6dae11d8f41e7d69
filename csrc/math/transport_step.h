// One implicit step of one solute in a pack of columns: coefficients, matrix, solve. dgpde/kernels/column_transport/
// README.md has the equations; names are those of its text.
//
//   row k:   of_c c + of_m m(c) + F_above - F_below = load          [kg m-2 s-1]
//   face:    F = q c_face - conductance (c_above - c_below)
//
// The matrix of the state x is tridiagonal, with the limited scheme pentadiagonal:
//
//   [ d  u  u2          ]
//   [ l  d  u  u2       ]      columns scaled by dc/dx, and of_m dm/dx on the diagonal
//   [ l2 l  d  u  u2    ]
#pragma once

#include "transport_cells.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportStep {
 protected:
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;

  const TransportProblem& p;
  const Lanes lanes;
  TransportCells<V> c;
  V* const solute_memory;
  const int64_t stride;

  WaterRow<V> w;           // of the step in hand
  V dt{}, inv_dt, weight;  // step, its inverse, its part of the interval
  Mask<V> doubtful{};      // lanes in which the last transposed elimination may have lost digits
  V lack{};                // what the tolerance of the flow has left of the water's balance, in the top cell [m/s]
  int64_t interval[W] = {};
  Mask<V> active, loaded{};  // lanes that take the step in hand; that took the one loaded before
  bool changed = true;       // since the step before: lanes, dt or the water
  bool entered = true;       // another interval
  V top_value{}, bottom_value{};
  SideFlux<V> top, bottom;

  DGPDE_HD TransportStep(const TransportProblem& problem, const Lanes& which, V* scratch, int64_t lane_count)
      : p(problem),
        lanes(which),
        solute_memory(scratch + TransportCells<V>::size(problem.nz) * (W == 1 ? lane_count : 1)),
        stride(lane_count) {
    c.base = scratch, c.lanes = lane_count;
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) {
        for (int slot = 0; slot < kCellSlots; ++slot) s.input(k, slot) = cell_input(p.in[i], i, slot, k);
        for (int slot = 0; slot < kCellSlots; ++slot) s.sum(k, slot) = V{};
      }
    }
  }

 public:
  // Numbers of scratch memory of a lane.
  static DGPDE_HD int64_t scratch(int64_t nz, int64_t solutes) {
    return TransportCells<V>::size(nz) + solutes * SoluteCells<V>::size(nz);
  }

 protected:
  DGPDE_HD SoluteCells<V> solute(int64_t i) const {
    SoluteCells<V> s;
    s.base = solute_memory + i * SoluteCells<V>::size(p.nz) * (W == 1 ? stride : 1), s.lanes = stride;
    return s;
  }
  DGPDE_HD V cell_input(const SoluteInputs<View>& in, int64_t, int slot, int64_t k) const {
    if (in.slot[slot].data) return load<V>(in.slot[slot], 0, k, lanes);
    return broadcast<V>(slot == kYield ? 1 : 0);
  }
  DGPDE_HD V series(const View& v, int64_t k) const { return v.data ? load_series<V>(v, interval, k, lanes) : V{}; }
  DGPDE_HD R size(int64_t k) const { return static_cast<R>(p.dz[k]); }

  // The water of a step; lanes that are not active get a step of 1 s through which nothing changes.
  DGPDE_HD void load_water(const WaterRows<V>& water, int64_t r) {
    const bool first = w.theta == nullptr;
    w = water.row(r);
    const WaterRow<V> before = water.row(r - 1);
    changed = first || !water.constant(), entered = first;
    for (int lane = 0; lane < W; ++lane) {
      const bool there = get_mask(active, lane);
      const int64_t at = there ? w.interval[lane] : 0;
      const double step = there ? w.dt[lane] : 1.0;
      const double length = p.times[at + 1] - p.times[at];
      changed |= there != get_mask(loaded, lane) || static_cast<R>(step) != get(dt, lane);
      entered |= at != interval[lane];
      interval[lane] = at;
      put(dt, lane, static_cast<R>(step));
      put(inv_dt, lane, static_cast<R>(1.0 / step));
      put(weight, lane, static_cast<R>(step / length));
    }
    loaded = active;
    if (!changed) return;
    const V one = broadcast<V>(1);
    for (int64_t k = 0; k < p.nz; ++k) {
      c.theta(k) = select(active, w.theta[k], one);
      c.theta_old(k) = select(active, before.theta[k], one);
    }
    const int64_t top_cell = p.nz - 1;
    V gain = w.flux[top_cell] - w.flux[p.nz] - size(top_cell) * inv_dt * (c.theta(top_cell) - c.theta_old(top_cell));
    if (w.taken) gain = gain - w.taken[top_cell];
    if (w.elastic) gain = gain - w.elastic[top_cell];
    if (w.source) gain = gain + w.source[top_cell];
    lack = select(active, gain, V{});
  }
  DGPDE_HD V flux(int64_t face) const { return select(active, w.flux[face], V{}); }
  DGPDE_HD V mobile(const SoluteCells<V>& s, int64_t k) const { return c.theta(k) - s.input(k, kImmobileTheta); }
  DGPDE_HD V mobile_old(const SoluteCells<V>& s, int64_t k) const {
    return c.theta_old(k) - s.input(k, kImmobileTheta);
  }

  // What a cell exchanges with its kinetic sites and its immobile water, both eliminated:
  //   s' = (s/dt + rate m')/of_s,                            of_s = 1/dt + rate + decay
  //   b' = (theta_im b/dt + rate_im c')/of_b,                of_b = theta_im (1/dt + decay) + rate_im
  struct Local {
    V age;  // 1/dt + decay
    V of_s, of_b, inv_s, inv_b;
  };
  DGPDE_HD Local local(const SoluteKind& kind, const SoluteCells<V>& s, int64_t k) const {
    const V one = broadcast<V>(1);
    Local l{};
    l.age = inv_dt + s.input(k, kDecay);
    if (kind.kinetic) l.of_s = l.age + s.input(k, kSorptionRate), l.inv_s = one / l.of_s;
    if (kind.immobile) {
      l.of_b = s.input(k, kImmobileTheta) * l.age + s.input(k, kImmobileRate);
      const auto there = l.of_b > V{};  // neither immobile water nor exchange: none of it is there
      l.inv_b = select(there, one / select(there, l.of_b, one), V{});
    }
    return l;
  }

  // Everything of a step that does not depend on the new state.
  DGPDE_HD void coefficients(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteInputs<View>& in = p.in[i];
    const SoluteCells<V> s = solute(i);
    const bool spreads = in.slot[kDiffusion].data != nullptr;
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = size(k);
      const Local l = local(kind, s, k);
      const Phases<V> old = phases<V>(kind.isotherm, s.state(k, 0), s.input(k, kCapacity), s.input(k, kShape));
      V of_c = dz * mobile(s, k) * l.age, of_m{};
      V load = dz * inv_dt * mobile_old(s, k) * old.c;
      if (kind.isotherm != Isotherm::none) {
        if (kind.kinetic) {
          const V rate = s.input(k, kSorptionRate);
          of_m = dz * rate * l.age * l.inv_s;
          load = load + dz * rate * inv_dt * l.inv_s * s.state(k, 1);
        } else {
          of_m = dz * l.age;
          load = load + dz * inv_dt * old.m;
        }
      }
      if (kind.immobile) {
        const V exchange = dz * s.input(k, kImmobileRate) * s.input(k, kImmobileTheta) * l.inv_b;
        of_c = of_c + exchange * l.age;
        load = load + exchange * inv_dt * s.state(k, 2);
      }
      if (w.taken && kind.uptake) of_c = of_c + select(active, w.taken[k], V{});
      if (w.elastic) of_c = of_c + select(active, w.elastic[k], V{});
      if (w.source) {
        const V g = select(active, w.source[k], V{});
        of_c = of_c - vmin(g, V{});
        if (in.slot[kSourceC].data) load = load + vmax(g, V{}) * series(in.slot[kSourceC], k);
      }
      if (in.slot[kProduction].data) load = load + dz * series(in.slot[kProduction], k);
      if (kind.parent >= 0) load = load + s.input(k, kYield) * solute(kind.parent).decayed(k);
      c.of_c(k) = of_c, c.of_m(k) = of_m, c.load(k) = load;
      c.spread(k) = spreads ? s.input(k, kDiffusion) * theta_power(kind, k) : V{};
    }
    for (int64_t k = 0; k + 1 < p.nz; ++k) c.conductance(k) = face_conductance(s, k);
    const int64_t last = p.nz - 1;
    top_value = series(in.slot[kTopValue], 0), bottom_value = series(in.slot[kBottomValue], 0);
    c.of_c(last) = c.of_c(last) + lack;
    const V q_in = -flux(p.nz);
    top = side_flux<V>(kind.top, q_in, top_value, half_conductance(s, last, q_in), p.evaporation && !kind.evaporates);
    bottom = side_flux<V>(kind.bottom, flux(0), bottom_value, half_conductance(s, 0, flux(0)), false);
    c.load(last) = c.load(last) + top.f0, c.of_c(last) = c.of_c(last) - top.f1;
    c.load(0) = c.load(0) + bottom.f0, c.of_c(0) = c.of_c(0) - bottom.f1;
  }

  DGPDE_HD V theta_power(const SoluteKind& kind, int64_t k) const {
    const V theta = c.theta(k);
    return kind.diffusion_power == 1.0 ? theta : power(theta, broadcast<V>(kind.diffusion_power));
  }
  DGPDE_HD R distance(int64_t k) const { return R(0.5) * (size(k) + size(k + 1)); }  // of the centres beside face k
  DGPDE_HD V face_conductance(const SoluteCells<V>& s, int64_t k) const {
    return in_series(k, dispersion(s, k, c.spread(k), flux(k + 1)),
                     dispersion(s, k + 1, c.spread(k + 1), flux(k + 1)))
        .value;
  }
  // theta D between the centre of cell k and a face with the flux q.
  DGPDE_HD V dispersion(const SoluteCells<V>& s, int64_t k, V spread, V q) const {
    return spread + s.input(k, kDispersivity) * vabs(q);
  }
  // Conductance of the face above k, its half cells one behind the other, from theta D of the cell below and above it, and
  // its derivatives in these; 0 where nothing disperses in both.
  struct Between {
    V value, by_below, by_above;
  };
  DGPDE_HD Between in_series(int64_t k, V below, V above) const {
    const V sum = size(k) * above + size(k + 1) * below, one = broadcast<V>(1);
    const auto some = sum > V{};
    const V twice = select(some, R(2) * one / select(some, sum, one), V{}), a = above * twice, b = below * twice;
    return {below * a, R(0.5) * size(k) * a * a, R(0.5) * size(k + 1) * b * b};
  }
  DGPDE_HD V half_conductance(const SoluteCells<V>& s, int64_t k, V q) const {
    return (c.spread(k) + s.input(k, kDispersivity) * vabs(q)) * (R(2) / size(k));
  }

  // ---- faces ---------------------------------------------------------------------------------------------------

  // Weights of the flux through the face above k in the concentrations of k-1, k, k+1, k+2: F = sum of weight c, whose
  // derivatives they are too (the limited part is homogeneous). Then those of its derivative in q.
  struct Face {
    V far_below{}, below, above, far_above{};
    V per_q;  // dF/dq without dispersion: the concentration on the face
  };
  template <bool kTvd>
  DGPDE_HD Face face_above(int64_t k) const {
    const V q = flux(k + 1), one = broadcast<V>(1);
    const auto upward = q >= V{};
    Face f;
    V wb, wa;
    if (p.scheme == Advection::central) {
      const R share = size(k) / (size(k) + size(k + 1));
      wa = broadcast<V>(share), wb = one - wa;
    } else {
      wb = select(upward, one, V{}), wa = one - wb;
    }
    const V d = c.conductance(k);
    f.per_q = wb * c.c(k) + wa * c.c(k + 1);
    f.below = q * wb + d, f.above = q * wa - d;
    if constexpr (kTvd) {
      const V step = c.c(k + 1) - c.c(k);
      V behind_up{}, behind_down{};
      R scale_up = 0, scale_down = 0;
      if (k > 0) scale_up = distance(k) / distance(k - 1), behind_up = scale_up * (c.c(k) - c.c(k - 1));
      if (k + 2 < p.nz)
        scale_down = distance(k) / distance(k + 1), behind_down = scale_down * (c.c(k + 1) - c.c(k + 2));
      const Limited<V> m = van_leer<V>(select(upward, behind_up, behind_down), select(upward, step, -step));
      const V qa = q * m.da, qb = q * m.db;
      f.per_q = f.per_q + m.value;
      f.below = f.below + select(upward, scale_up * qa - qb, qb);
      f.above = f.above + select(upward, qb, scale_down * qa - qb);
      f.far_below = select(upward, -scale_up * qa, V{});
      f.far_above = select(upward, V{}, -scale_down * qa);
    }
    return f;
  }

  // ---- the system of one iterate -------------------------------------------------------------------------------

  DGPDE_HD void enter_phases(int64_t i) {
    const SoluteKind& kind = p.kinds[i];
    const SoluteCells<V> s = solute(i);
    for (int64_t k = 0; k < p.nz; ++k) {
      const Phases<V> f = phases<V>(kind.isotherm, c.x(k), s.input(k, kCapacity), s.input(k, kShape));
      c.c(k) = f.c, c.dc(k) = f.dc, c.m(k) = f.m, c.dm(k) = f.dm;
    }
  }

  // Matrix in c (columns not scaled yet) from the phases in hand.
  template <bool kTvd>
  DGPDE_HD void matrix() {
    for (int64_t k = 0; k < p.nz; ++k) {
      c.diag(k) = c.of_c(k);
      c.lo(k) = c.up(k) = V{};
      if constexpr (kTvd) c.lo2(k) = c.up2(k) = V{};
    }
    for (int64_t k = 0; k + 1 < p.nz; ++k) {
      const Face f = face_above<kTvd>(k);
      c.diag(k) = c.diag(k) + f.below, c.up(k) = c.up(k) + f.above;
      c.lo(k + 1) = c.lo(k + 1) - f.below, c.diag(k + 1) = c.diag(k + 1) - f.above;
      if constexpr (kTvd) {
        c.lo(k) = c.lo(k) + f.far_below, c.up2(k) = c.up2(k) + f.far_above;
        c.lo2(k + 1) = c.lo2(k + 1) - f.far_below, c.up(k + 1) = c.up(k + 1) - f.far_above;
      }
    }
  }

  // sum_j J_kj f(j)
  template <bool kTvd, class F>
  DGPDE_HD V times_row(int64_t k, const F& f) const {
    V sum = c.diag(k) * f(k);
    if (k > 0) sum = sum + c.lo(k) * f(k - 1);
    if (k + 1 < p.nz) sum = sum + c.up(k) * f(k + 1);
    if constexpr (kTvd) {
      if (k > 1) sum = sum + c.lo2(k) * f(k - 2);
      if (k + 2 < p.nz) sum = sum + c.up2(k) * f(k + 2);
    }
    return sum;
  }
  // sum_j J_jk f(j), the transposed row
  template <bool kTvd, class F>
  DGPDE_HD V times_column(int64_t k, const F& f) const {
    V sum = c.diag(k) * f(k);
    if (k > 0) sum = sum + c.up(k - 1) * f(k - 1);
    if (k + 1 < p.nz) sum = sum + c.lo(k + 1) * f(k + 1);
    if constexpr (kTvd) {
      if (k > 1) sum = sum + c.up2(k - 2) * f(k - 2);
      if (k + 2 < p.nz) sum = sum + c.lo2(k + 2) * f(k + 2);
    }
    return sum;
  }

  // Columns scaled by dc/dx, storage of the sorbed mass added: the Jacobian in x.
  template <bool kTvd>
  DGPDE_HD void scale_columns() {
    for (int64_t k = 0; k < p.nz; ++k) {
      c.diag(k) = c.diag(k) * c.dc(k) + c.of_m(k) * c.dm(k);
      if (k > 0) c.lo(k) = c.lo(k) * c.dc(k - 1);
      if (k + 1 < p.nz) c.up(k) = c.up(k) * c.dc(k + 1);
      if constexpr (kTvd) {
        if (k > 1) c.lo2(k) = c.lo2(k) * c.dc(k - 2);
        if (k + 2 < p.nz) c.up2(k) = c.up2(k) * c.dc(k + 2);
      }
    }
  }

  // Elimination without pivoting solves a system that differs from the given one by round-off of its fill (Higham 2002,
  // section 9.6): as long as that is within so much of the diagonal a tridiagonal solve needs no look at its residual.
  static constexpr int kMostFill = 100;

  // J y = rhs or J^T y = rhs, in place.
  template <bool kTvd, bool kTransposed>
  DGPDE_HD void solve() {
    const int64_t last = p.nz - 1;
    doubtful = Mask<V>{};
    V e1{}, e2{}, r1{}, f1{}, f2{}, r2{};  // x_{k-1} = r1 - e1 x_k - e2 x_{k+1};  x_{k-2} = r2 - f1 x_{k-1} - f2 x_k
    for (int64_t k = 0; k <= last; ++k) {
      V diag = c.diag(k), rhs = c.rhs(k), lo{}, up{}, up2{};
      if (k > 0) lo = kTransposed ? c.up(k - 1) : c.lo(k);
      if (k < last) up = kTransposed ? c.lo(k + 1) : c.up(k);
      if constexpr (kTvd) {
        if (k + 1 < last) up2 = kTransposed ? c.lo2(k + 2) : c.up2(k);
        if (k > 1) {
          const V lo2 = kTransposed ? c.up2(k - 2) : c.lo2(k);
          lo = lo - lo2 * f1, diag = diag - lo2 * f2, rhs = rhs - lo2 * r2;
        }
      }
      const V fill = lo * e1;
      if constexpr (kTransposed) doubtful = mask_or(doubtful, vabs(fill) > R(kMostFill) * vabs(diag));
      diag = diag - fill, rhs = rhs - lo * r1;
      if constexpr (kTvd) up = up - lo * e2;
      const V inv = R(1) / diag;
      if constexpr (kTvd) f1 = e1, f2 = e2, r2 = r1;
      r1 = rhs * inv, e1 = up * inv;
      c.rhs(k) = r1, c.elim(k) = e1;
      if constexpr (kTvd) e2 = up2 * inv, c.elim2(k) = e2;
    }
    V x1{}, x2{};
    for (int64_t k = last; k >= 0; --k) {
      V x = c.rhs(k) - c.elim(k) * x1;
      if constexpr (kTvd) x = x - c.elim2(k) * x2;
      c.rhs(k) = x;
      x2 = x1, x1 = x;
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
