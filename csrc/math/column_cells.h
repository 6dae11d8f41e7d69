// The arrays of one column (GPU) or one pack of columns (CPU), and how they are filled from the problem.
#pragma once

#include "column_faces.h"
#include "soil.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Columns first .. first + width - 1; lanes past the last column repeat it and are never written.
struct Lanes {
  int64_t first, n;
  DGPDE_HD int64_t column(int lane) const { return first + lane < n ? first + lane : n - 1; }
  DGPDE_HD bool owns(int lane) const { return first + lane < n; }
};

template <class V>
DGPDE_HD V load(const View& v, int64_t t, int64_t z, const Lanes& lanes) {
  using R = RealOf<V>;
  const R* base = static_cast<const R*>(v.data) + t * v.t + z * v.z;
  if constexpr (Lane<V>::width == 1) {
    return base[lanes.column(0) * v.n];
  } else {
    V x{};
    if (v.n == 0) {
      x = broadcast<V>(base[0]);
    } else if (v.n == 1 && lanes.owns(Lane<V>::width - 1)) {
      std::memcpy(&x, base + lanes.first, sizeof(V));
    } else {
      for (int lane = 0; lane < Lane<V>::width; ++lane) x[lane] = base[lanes.column(lane) * v.n];
    }
    return x;
  }
}

// Writes the lanes of a mask to an array whose columns are `stride` apart.
template <class V>
DGPDE_HD void store(RealOf<V>* base, int64_t stride, const Lanes& lanes, const Mask<V>& mask, const V& x) {
  for (int lane = 0; lane < Lane<V>::width; ++lane)
    if (get_mask(mask, lane)) base[lanes.column(lane) * stride] = get(x, lane);
}

// Where the numbers of a column stand in its scratch memory: `arrays` of one value and `slots` more values a cell.
//   lane_count = 1 (CPU): one array after another, a pack a cell.
//   else (GPU): cell after cell, all values of a cell one after another, and in each place the numbers of `lane_count`
//   neighbouring columns: a warp reads whole cache lines, walks through memory in one direction, and one address
//   serves a cell.
template <class V>
struct Scratch {
  V* data;
  int64_t lanes, nz, array, cell;
  V* block;  // of the slots

  DGPDE_HD Scratch(V* memory, int64_t lane_count, int64_t cells, int64_t arrays, int64_t slots)
      : data(memory),
        lanes(lane_count),
        nz(cells),
        array(lane_count == 1 ? cells : lane_count),
        cell(lane_count == 1 ? 1 : (arrays + slots) * lane_count),
        block(memory + arrays * array) {}
  DGPDE_HD Strided<V> values(int64_t i) const { return {data + i * array, cell}; }
  // `count` values a cell from slot `first` on.
  DGPDE_HD Slots<V> slots(int64_t first, int64_t count) const {
    if (lanes == 1) return {block + first * nz, count, 1};
    return {block + first * lanes, cell, lanes};
  }
};

template <class V>
struct Cells {
  Strided<V> psi, theta, capacity, kr, dkr;  // current iterate
  Strided<V> psi_old, theta_old;             // last accepted state
  Strided<V> rate_theta, rate_psi;           // of the last accepted step, or at the start of an interval
  Strided<V> elim, rhs, border;              // x = rhs - elim x_next - border d_omega after a sweep
  Strided<V> face;                           // transmissivity of the face above cell k [1/s]
  Strided<V> storage;                        // dz Ss / theta_s
  Strided<V> wet, kink;                      // suctions: where Newton restarts, where the relation has a kink [m]
  Strided<V> sharp;                          // exponent e of 1 - kr ~ h^e close to saturation, at most 1
  Strided<V> root, source;                   // density * dz [-], source * dz [m/s]
  Strided<V> pore;                           // dz theta_s [m]
  Slots<V> soil;                             // kMaxDerived values a cell
  static constexpr int kArrays = 20;

  static DGPDE_HD int64_t size(int64_t nz) { return (kArrays + kMaxDerived) * nz; }

  DGPDE_HD void bind(V* data, int64_t lane_count, int64_t nz) {
    const Scratch<V> scratch(data, lane_count, nz, kArrays, kMaxDerived);
    Strided<V>* arrays[kArrays] = {&psi,        &theta,    &capacity, &kr,     &dkr,    &psi_old, &theta_old,
                                   &rate_theta, &rate_psi, &elim,     &rhs,    &border, &face,    &storage,
                                   &wet,        &kink,     &root,     &source, &pore,   &sharp};
    for (int i = 0; i < kArrays; ++i) *arrays[i] = scratch.values(i);
    soil = scratch.slots(0, kMaxDerived);
  }
  DGPDE_HD Strided<V> soil_at(int64_t k) const { return soil[k]; }
};

DGPDE_HD SoilModel soil_model(const ColumnProblem& p) {
  SoilModel m{static_cast<SoilKind>(p.relation), p.variant, {}};
  if (m.kind == SoilKind::tabulated) m.table = {p.in.soil[0].data, p.n_knots, p.x_first, p.x_step, ::exp(p.x_first)};
  return m;
}

// Raw parameters of cell k; of a tabulated soil the number of its class.
template <class V>
DGPDE_HD void load_soil_raw(const ColumnProblem& p, const SoilModel& soil, int64_t k, const Lanes& lanes, V* raw) {
  if (soil.kind == SoilKind::tabulated) {
    const auto* classes = static_cast<const int32_t*>(p.classes.data) + k * p.classes.z;
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      put(raw[0], lane, static_cast<RealOf<V>>(classes[lanes.column(lane) * p.classes.n]));
    return;
  }
  for (int i = 0; i < kSoilSlots; ++i)
    if (p.in.soil[i].data) raw[i] = load<V>(p.in.soil[i], 0, k, lanes);
}

// Parameters that stay the same through the run.
template <class V, class C>
DGPDE_HD void setup_cells(const ColumnProblem& p, const SoilModel& soil, const Lanes& lanes, const C& c,
                          BoundaryFace<V>& top, BoundaryFace<V>& bottom) {
  using R = RealOf<V>;
  V k_below{};
  R z = 0;
  for (int64_t k = 0; k < p.nz; ++k) {
    const R dz = static_cast<R>(p.dz[k]);
    V raw[kSoilSlots] = {};
    load_soil_raw(p, soil, k, lanes, raw);
    const Strided<V> d = c.soil_at(k);
    soil_prepare<V>(soil, raw, d);
    const V k_sat = load<V>(p.in.k_sat, 0, k, lanes);
    if (k > 0) c.face[k - 1] = R(2) / (static_cast<R>(p.dz[k - 1]) / k_below + dz / k_sat);
    c.storage[k] = dz * load<V>(p.in.specific_storage, 0, k, lanes) / (d[0] + d[1]);
    c.root[k] = V{};
    c.source[k] = V{};
    const R half = R(0.5) * dz, gravity = static_cast<R>(p.gravity);
    z += half;
    if (k == 0) {
      bottom.kind = static_cast<Boundary>(p.bottom);
      bottom.transmissivity = k_sat / half;
      bottom.rise = -gravity * half, bottom.half = half, bottom.gravity = gravity, bottom.elevation = gravity * z;
    }
    if (k == p.nz - 1) {
      top.kind = static_cast<Boundary>(p.top);
      top.transmissivity = k_sat / half;
      top.rise = gravity * half, top.half = half, top.gravity = gravity, top.elevation = gravity * z;
    }
    z += half;
    k_below = k_sat;
  }
  top.mean = bottom.mean = static_cast<FaceMean>(p.face_mean);
}

// A value of each lane's own interval.
template <class V>
DGPDE_HD V load_series(const View& v, const int64_t* interval, int64_t z, const Lanes& lanes) {
  V x{};
  for (int lane = 0; lane < Lane<V>::width; ++lane) {
    const auto* base = static_cast<const RealOf<V>*>(v.data);
    put(x, lane, base[interval[lane] * v.t + z * v.z + lanes.column(lane) * v.n]);
  }
  return x;
}

// The boundary head at which kr is needed: the given head, or the driest head that the atmosphere may reach.
template <class V>
DGPDE_HD bool boundary_head(const BoundaryFace<V>& f, V& psi_b) {
  if (f.kind == Boundary::head) return psi_b = f.value[0], true;
  if (f.kind == Boundary::atmosphere) return psi_b = f.value[2], true;
  return false;
}

// Boundary values of each lane's interval.
template <class V, class C>
DGPDE_HD void load_boundary(const View* values, int slots, const int64_t* interval, int64_t cell,
                            const SoilModel& soil, const Lanes& lanes, const C& c, BoundaryFace<V>& f) {
  for (int i = 0; i < slots; ++i) {
    if (!values[i].data) continue;
    f.value[i] = load_series<V>(values[i], interval, 0, lanes);
  }
  V psi_b{};
  if (boundary_head(f, psi_b)) {
    SoilPoint<V> s;
    soil_evaluate<V>(soil, c.soil_at(cell), psi_b, s);
    f.kr_b = s.kr;
  }
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
