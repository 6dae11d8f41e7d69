// One accepted step read back from the history and assembled at its converged state, for the adjoint and the tangent.
//
// Both need the true Jacobian there and the derivatives of every row in every input; neither iterates. Arrays live on
// cells; face[k] is the face above cell k.
#pragma once

#include "column_cells.h"
#include "root_stress.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// clang-format off
#define DGPDE_REPLAY_VALUES(VALUE)                                                                      \
  VALUE(psi) VALUE(psi_old)                                                                             \
  VALUE(theta) VALUE(capacity) VALUE(kr) VALUE(dkr)                                                     \
  VALUE(elim) VALUE(rhs) VALUE(border)                                                                  \
  VALUE(carry_theta) VALUE(carry_psi) /* adjoint: from the step after; tangent: of the state before */  \
  VALUE(face) VALUE(rise) VALUE(storage) VALUE(root) VALUE(source) VALUE(stress) VALUE(stress_psi)      \
  VALUE(sum_face) VALUE(sum_storage) VALUE(sum_k) /* adjoint: gradients summed over the steps */
// clang-format on
#define DGPDE_REPLAY_INDEX(name) replay_##name,
enum ReplayIndex { DGPDE_REPLAY_VALUES(DGPDE_REPLAY_INDEX) kReplayValues };

template <class V>
struct ReplayCells : CellMemory<V, kReplayValues + 3 * kSoilSlots + kMaxDerived> {
#define DGPDE_REPLAY_VALUE(name) \
  DGPDE_HD V& name(int64_t k) const { return this->value(k, replay_##name); }
  DGPDE_REPLAY_VALUES(DGPDE_REPLAY_VALUE)
  DGPDE_HD Strided<V> sum_at(int64_t k) const { return this->list(k, kReplayValues); }
  DGPDE_HD Strided<V> dtheta_at(int64_t k) const { return this->list(k, kReplayValues + kSoilSlots); }
  DGPDE_HD Strided<V> dkr_at(int64_t k) const { return this->list(k, kReplayValues + 2 * kSoilSlots); }
  DGPDE_HD Strided<V> soil_at(int64_t k) const { return this->list(k, kReplayValues + 3 * kSoilSlots); }
  DGPDE_HD void keep(int64_t k, const SoilPoint<V>& s) const {
    theta(k) = s.theta, capacity(k) = s.capacity, kr(k) = s.kr, dkr(k) = s.dkr;
  }
};

// kr at a boundary head, with its derivatives in the soil parameters.
template <class V>
struct BoundarySoil {
  bool used = false;
  V dkr{}, dkr_p[kSoilSlots] = {};
  // A copy to be indexed at run time: members indexed so would keep a GPU thread's whole run out of its registers.
  struct List {
    V value[kSoilSlots];
    DGPDE_HD const V& operator[](int i) const { return value[i]; }
  };
  DGPDE_HD List list() const {
    List x;
    for (int i = 0; i < kSoilSlots; ++i) x.value[i] = dkr_p[i];
    return x;
  }
};

// A short list of parameter numbers, packed so that a GPU thread keeps it in registers.
struct SlotNumbers {
  uint64_t packed = 0;
  DGPDE_HD int operator[](int i) const { return static_cast<int>(packed >> (8 * i) & 255); }
  DGPDE_HD void set(int i, int slot) { packed |= static_cast<uint64_t>(slot) << (8 * i); }
};

// Where soil_pair puts the soil of cells a and b.
template <class V>
struct PairPoint {
  const ReplayCells<V>& c;
  int64_t a, b;
  DGPDE_HD void operator=(const SoilPoint<Duo<V>>& s) const {
    c.keep(a, {s.theta.a, s.kr.a, s.capacity.a, s.dkr.a});
    c.keep(b, {s.theta.b, s.kr.b, s.capacity.b, s.dkr.b});
  }
};

// Where it puts the derivatives in the parameters that take part. The others are not stored, and what only they need is
// not computed.
template <class V>
struct PairPartials {
  V *a, *b;           // lists of the two cells
  SlotNumbers place;  // of each raw parameter: its place in the lists + 1, or 0
  struct Slot {
    const PairPartials& to;
    int place;
    DGPDE_HD void operator=(const Duo<V>& x) const {
      if (place > 0) to.a[place - 1] = x.a, to.b[place - 1] = x.b;
    }
  };
  DGPDE_HD Slot operator[](int i) const { return {*this, place[i]}; }
};

// Single lanes of cells whose soil is to be evaluated, put side by side.
template <class V>
struct ScatteredSoils {
  static constexpr int W = Lane<V>::width, kPlaces = 2 * W;
  int64_t cell[kPlaces];
  int lane[kPlaces], count = 0;
  V psi[2] = {}, derived[2][kMaxDerived] = {};

  DGPDE_HD void add(const ReplayCells<V>& c, int64_t k, int which, int n_derived) {
    const int half = count / W, at = count % W;
    cell[count] = k, lane[count] = which;
    ++count;
    psi[half][at] = c.psi(k)[which];
    const Strided<V> d = c.soil_at(k);
    for (int i = 0; i < n_derived; ++i) derived[half][i][at] = d[i][which];
  }
};

template <class V>
class ColumnReplay {
 protected:
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;

  const ColumnProblem& p;
  const Lanes lanes;
  const SoilModel soil;
  const int n_derived = soil_derived_count(soil.kind);
  int n_soil = 0;     // raw parameters that take part: those with a gradient or a tangent
  SlotNumbers used;   // their numbers
  SlotNumbers place;  // of each raw parameter: its place among those + 1, or 0
  ReplayCells<V> c;
  BoundaryFace<V> top, bottom;
  BoundarySoil<V> top_soil, bottom_soil;
  int64_t interval[W];
  double length[W];  // of the step [s]
  const bool alone;  // whether a single column has the pack to itself
  struct None {};
  static constexpr int kQueue = 32;
  std::conditional_t<(W > 1), int64_t[kQueue], None> queue;  // cells that wait to be evaluated
  int queued = 0;
  std::conditional_t<(W > 1), ScatteredSoils<V>, None> scattered;  // lanes that wait to be evaluated
  bool fresh = true;                                               // no forcing loaded yet
  bool elastic = false;                                            // whether any cell has specific storage
  // Whether the response counts in cells without roots too: where the root density has a gradient or tangent.
  bool rootless = false;

  V dt, inv_dt, weight;  // step, its inverse, its part of the interval
  Mask<V> active;
  V ponding_old, omega_c{}, transpiration{}, feddes_h[4] = {};
  V omega{}, root_rate{}, omega_slope{};
  Mask<V> limited{};  // lanes in which the uptake is compensated by omega

  BoundaryFlux<V> top_flux, bottom_flux;
  BoundaryPartials<V> top_d, bottom_d;

  DGPDE_HD ColumnReplay(const ColumnProblem& problem, const Lanes& which, V* scratch, int64_t stride)
      : p(problem), lanes(which), soil(soil_model(problem)), alone(W > 1 && !which.owns(1)) {
    c.base = scratch, c.lanes = stride;
    setup_cells<V>(p, soil, lanes, c, top, bottom);
    if (p.roots) omega_c = load<V>(p.in.omega_c, 0, 0, lanes);
    for (int64_t k = 0; k < p.nz; ++k) {
      c.stress(k) = c.stress_psi(k) = V{};
      if (k + 1 < p.nz) c.rise(k) = broadcast<V>(static_cast<R>(p.gravity * 0.5 * (p.dz[k] + p.dz[k + 1])));
      elastic |= any(V(c.storage(k)) != V{});
      c.psi(k) = broadcast<V>(std::numeric_limits<R>::quiet_NaN());  // nowhere evaluated
    }
  }

  // Names the soil parameters that take part; a table takes part with all numbers of two rows or not at all.
  template <class ViewType>
  DGPDE_HD void use_soil(const ViewType* views) {
    for (int i = 0; i < soil_raw_count(soil.kind); ++i)
      if (views[tabulated() ? 0 : i].data) used.set(n_soil, i), place.set(i, ++n_soil);
  }

  DGPDE_HD void load_face_soil(const BoundaryFace<V>& face, int64_t cell, BoundarySoil<V>& s) {
    V psi_b{};
    s.used = boundary_head(face, psi_b);
    if (!s.used) return;
    SoilPoint<V> point;
    V dtheta[kSoilSlots] = {}, dkr[kSoilSlots] = {};
    soil_partials<V>(soil, c.soil_at(cell), psi_b, point, dtheta, dkr);
    s.dkr = point.dkr;
    for (int i = 0; i < kSoilSlots; ++i)
      if (i < n_soil) s.dkr_p[i] = dkr[used[i]];
  }

  // Takes up the forcing of each lane's interval, if any has changed.
  DGPDE_HD void enter(const int64_t* now) {
    bool same = !fresh;
    for (int lane = 0; lane < W; ++lane) {
      same = same && interval[lane] == now[lane];
      interval[lane] = now[lane];
    }
    if (same) return;
    load_boundary<V>(p.in.top, kTopSlots, interval, p.nz - 1, soil, lanes, c, top);
    load_boundary<V>(p.in.bottom, kBottomSlots, interval, 0, soil, lanes, c, bottom);
    load_face_soil(top, p.nz - 1, top_soil);
    load_face_soil(bottom, 0, bottom_soil);
    if (p.roots) {
      transpiration = load_series<V>(p.in.transpiration, interval, 0, lanes);
      load_feddes(p, interval, lanes, feddes_h);
      if (fresh || p.in.root_density.t != 0)
        for (int64_t k = 0; k < p.nz; ++k)
          c.root(k) = static_cast<R>(p.dz[k]) * load_series<V>(p.in.root_density, interval, k, lanes);
    }
    fresh = false;
  }

  // Loads the rows that each lane has come to: the state at the end of its step and the one before.
  template <class History>
  DGPDE_HD void load_step(History& history, const int64_t* row) {
    bool same = !fresh;  // steps and intervals as in the step walked before
    int64_t now[W];
    for (int lane = 0; lane < W; ++lane) {
      const auto step = history.step(row[lane], lane);
      now[lane] = step.interval;
      same = same && interval[lane] == step.interval && length[lane] == step.dt;
      length[lane] = step.dt;
      put(ponding_old, lane, history.ponding(row[lane] - 1, lane));
    }
    if (!same) {
      for (int lane = 0; lane < W; ++lane) {
        put(dt, lane, static_cast<R>(length[lane]));
        put(inv_dt, lane, static_cast<R>(1.0 / length[lane]));
        put(weight, lane, static_cast<R>(length[lane] / (p.times[now[lane] + 1] - p.times[now[lane]])));
      }
      enter(now);
    }
    history.load(row, 0, [&](int64_t k, V psi) { arrive(k, psi); });
    evaluate_waiting();
    if (elastic) history.load(row, -1, [&](int64_t k, V psi) { c.psi_old(k) = psi; });
    if (p.roots) {
      omega = V{};
      for (int64_t k = 0; k < p.nz; ++k) {
        const V weight_of_cell = rootless ? broadcast<V>(1) : V(c.root(k));
        const Response<V> s = root_stress<V>(p, lanes, feddes_h, V(c.psi(k)), weight_of_cell);
        c.stress(k) = s.a, c.stress_psi(k) = s.a_psi;
        omega = omega + c.root(k) * s.a;
      }
      limited = omega > omega_c;
      root_rate = transpiration / select(limited, omega, omega_c);
      omega_slope = select(limited, -root_rate / select(limited, omega, broadcast<V>(1)), V{});
    }
  }

  // Where the numbers of the table begin on which theta and kr depend in cell k, and at a head psi; of tables only.
  DGPDE_HD Tabulated::Places<V> table_at(int64_t k) const {
    return Tabulated::places_of(soil.table, c.soil_at(k), V(c.dtheta_at(k)[Tabulated::kKnot]));
  }
  DGPDE_HD Tabulated::Places<V> table_at(int64_t k, V psi) const {
    return Tabulated::places(soil.table, c.soil_at(k), psi);
  }
  DGPDE_HD bool tabulated() const { return soil.kind == SoilKind::tabulated; }

  // Cell k has come to psi; the soil there, with its derivatives in the parameters, is evaluated two cells at a time. A
  // head that is, to the last bit, that of the step before (dry soil ahead of a front) has its soil already: where most
  // lanes have, the others are put side by side with those of other cells. So are the cells of a column that has the
  // pack to itself.
  DGPDE_HD void arrive(int64_t k, V psi) {
    const auto moved = psi != c.psi(k);
    if (!any(moved)) return;
    c.psi(k) = psi;
    if constexpr (W == 1) {
      evaluate(k);
    } else {
      const unsigned lanes_moved = alone ? 1u : lane_bits(moved);
      if (alone || 4 * __builtin_popcount(lanes_moved) <= W) {
        for (unsigned left = lanes_moved; left != 0; left &= left - 1) {
          scattered.add(c, k, __builtin_ctz(left), n_derived);
          if (scattered.count == scattered.kPlaces) evaluate_scattered();
        }
      } else {
        queue[queued++] = k;
        if (queued == kQueue) evaluate_queue();
      }
    }
  }
  DGPDE_HD void evaluate_waiting() {
    if constexpr (W > 1) {
      evaluate_queue();
      if (scattered.count > 0) evaluate_scattered();
    }
  }
  // Many at once: the evaluation of a pair begins while the one before it ends, as nothing is decided between them.
  DGPDE_BY_REFERENCE void evaluate_queue() {
    const int pairs = queued / 2;
    if (pairs > 0)
      with_relation(soil.kind, [&](auto relation) {
        for (int i = 0; i < 2 * pairs; i += 2) evaluate<decltype(relation)>(queue[i], queue[i + 1]);
      });
    if (2 * pairs < queued) evaluate(queue[2 * pairs]);
    queued = 0;
  }
  DGPDE_HD void evaluate(int64_t k) {
    SoilPoint<V> s;
    if (n_soil == 0) {
      soil_evaluate<V>(soil, c.soil_at(k), V(c.psi(k)), s);
    } else {
      V dtheta[kSoilSlots] = {}, dkr[kSoilSlots] = {};
      soil_partials<V>(soil, c.soil_at(k), V(c.psi(k)), s, dtheta, dkr);
      const Strided<V> t = c.dtheta_at(k), r = c.dkr_at(k);
      for (int i = 0; i < n_soil; ++i) t[i] = dtheta[used[i]], r[i] = dkr[used[i]];
    }
    c.keep(k, s);
  }
  template <class Relation>
  DGPDE_HD void evaluate(int64_t i, int64_t k) {
    const PairPoint<V> s{c, i, k};
    const DuoView<Strided<V>> d{c.soil_at(i), c.soil_at(k)};
    const Duo<V> psi{c.psi(i), c.psi(k)};
    if (n_soil == 0) {
      soil_pair_of<Relation, false>(soil, d, psi, s, static_cast<Duo<V>*>(nullptr), static_cast<Duo<V>*>(nullptr));
    } else {
      soil_pair_of<Relation, true>(soil, d, psi, s, PairPartials<V>{&c.dtheta_at(i)[0], &c.dtheta_at(k)[0], place},
                                   PairPartials<V>{&c.dkr_at(i)[0], &c.dkr_at(k)[0], place});
    }
  }
  DGPDE_BY_REFERENCE void evaluate_scattered() {
    if constexpr (W > 1) {
      ScatteredSoils<V>& from = scattered;
      SoilPoint<Duo<V>> s;
      Duo<V> dtheta[kSoilSlots] = {}, dkr[kSoilSlots] = {};
      soil_pair<true>(soil, DuoView<Strided<V>>{{from.derived[0], 1}, {from.derived[1], 1}},
                      Duo<V>{from.psi[0], from.psi[1]}, s, &dtheta[0], &dkr[0]);
      for (int half = 0; half < 2; ++half)
        for (int j = 0; j < W && half * W + j < from.count; ++j) {
          const int64_t k = from.cell[half * W + j];
          const int lane = from.lane[half * W + j];
          const auto give = [&](V& to, const Duo<V>& x) {
            const R value = reinterpret_cast<const R*>(half == 0 ? &x.a : &x.b)[j];
            if (alone)
              to = broadcast<V>(value);
            else
              reinterpret_cast<R*>(&to)[lane] = value;
          };
          give(c.theta(k), s.theta), give(c.kr(k), s.kr), give(c.capacity(k), s.capacity), give(c.dkr(k), s.dkr);
          const Strided<V> t = c.dtheta_at(k), r = c.dkr_at(k);
          for (int i = 0; i < n_soil; ++i) give(t[i], dtheta[used[i]]), give(r[i], dkr[used[i]]);
        }
      from.count = 0;
    }
  }

  // Diagonal of row k without its faces: storage and uptake.
  template <bool kBare = false>
  DGPDE_HD V own_diagonal(int64_t k) const {
    V diag = rounded(static_cast<R>(p.dz[k]) * inv_dt * c.capacity(k));
    if constexpr (kBare) return diag;
    if (elastic) diag = diag + c.storage(k) * inv_dt * (c.capacity(k) * (c.psi(k) - c.psi_old(k)) + c.theta(k));
    return p.roots ? diag + c.root(k) * c.stress_psi(k) * root_rate : diag;
  }

  struct Face {  // between cell a below and cell b above: q = -t kf fall
    V t, fall, q_a, q_b, q_kra, q_krb, kf;
  };
  DGPDE_HD Face face_above(int64_t a) const {
    const int64_t b = a + 1;
    Face f;
    f.fall = c.psi(b) - c.psi(a) + c.rise(a);
    f.t = c.face(a);
    const Mean<V> m = face_mean(top.mean, V(c.kr(a)), V(c.kr(b)), f.fall <= V{});
    const V tf = -f.t * f.fall;
    f.kf = m.k;
    f.q_kra = tf * m.k_a, f.q_krb = tf * m.k_b;
    const V tk = rounded(f.t * m.k);
    f.q_a = tk + f.q_kra * c.dkr(a);
    f.q_b = f.q_krb * c.dkr(b) - tk;
    return f;
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
