// The arrays of one column (GPU) or one pack of columns (CPU), and how they are filled from the problem.
#pragma once

#include "column_faces.h"
#include "soil.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Columns first .. first + width - 1. Lanes past the last column repeat it, all the way; nothing adds up what they do.
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

// Where the numbers of a column stand in its scratch memory: cell after cell, all `kValues` of a cell one after another,
// so that a sweep walks through memory in one direction and one address serves a cell. A pack of columns has its memory
// to itself; GPU threads share it with the `lanes` columns of their warp, whose numbers stand side by side.
template <class V, int kValues>
struct CellMemory {
  V* base = nullptr;
  int64_t lanes = 1;
  DGPDE_HD V& value(int64_t k, int i) const {
    if constexpr (Lane<V>::width == 1)
      return base[(k * kValues + i) * lanes];
    else
      return base[k * kValues + i];
  }
  DGPDE_HD Strided<V> list(int64_t k, int first) const { return {&value(k, first), lanes}; }
  static DGPDE_HD int64_t size(int64_t nz) { return kValues * nz; }
};

// name(k) is the value of cell k
#define DGPDE_CELL_VALUE(name) \
  DGPDE_HD V& name(int64_t k) const { return this->value(k, at_##name); }

// clang-format off
#define DGPDE_CELL_VALUES(VALUE)                                                                        \
  VALUE(psi) VALUE(at) VALUE(trust) /* head; where the soil was evaluated last, how far that carries */ \
  VALUE(elim) VALUE(rhs)            /* x = rhs - elim x_next - border d_omega after a sweep */          \
  VALUE(theta_at) VALUE(capacity) VALUE(capacity_slope) VALUE(kr_at) VALUE(dkr_at) VALUE(dkr_slope)     \
  VALUE(theta)                      /* at psi; the six before stand for `at` (column_carry.h) */        \
  VALUE(theta_old) VALUE(psi_old)   /* last accepted state */                                           \
  VALUE(face) VALUE(pore) VALUE(wet)                                                                    \
  VALUE(rate_psi) VALUE(rate_change) VALUE(rate_theta)                                                  \
  VALUE(storage) VALUE(sharp) VALUE(kink) VALUE(border) VALUE(root) VALUE(source)
// clang-format on
//   face            transmissivity of the face above the cell [1/s]
//   pore            dz theta_s [m]
//   rate_psi, theta of the last accepted step, rate_theta also at the start of an interval
//   rate_change     how fast rate_psi changed between the last two steps of an interval, 0 before [m/s2]
//   wet, kink       suctions: where Newton restarts, where the relation has a kink [m]
//   storage         dz Ss / theta_s
//   sharp           exponent e of 1 - kr ~ h^e close to saturation, at most 1
//   root, source    root density * dz [-], source * dz [m/s]
#define DGPDE_CELL_INDEX(name) at_##name,
enum CellIndex { DGPDE_CELL_VALUES(DGPDE_CELL_INDEX) kCellValues };

template <class V>
struct Cells : CellMemory<V, kCellValues + kMaxDerived> {
  DGPDE_CELL_VALUES(DGPDE_CELL_VALUE)
  DGPDE_HD Strided<V> soil_at(int64_t k) const { return this->list(k, kCellValues); }
};

DGPDE_HD SoilModel soil_model(const ColumnProblem& p) {
  SoilModel m{static_cast<SoilKind>(p.relation), p.variant, {}, {p.in.weights.data, p.n_units, p.n_features}};
  if (m.kind == SoilKind::tabulated)
    m.table = {{p.n_knots, p.x_first, p.x_step, ::exp(p.x_first)}, p.in.soil[0].data};
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
    if (k > 0) c.face(k - 1) = R(2) / (static_cast<R>(p.dz[k - 1]) / k_below + dz / k_sat);
    c.storage(k) = dz * load<V>(p.in.specific_storage, 0, k, lanes) / (d[0] + d[1]);
    c.root(k) = V{};
    c.source(k) = V{};
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
