// The passes over the 7-point stencil: assembly of residual and Jacobian, its reverse and its forward mode, and the
// boundary faces. Each pass gathers: a cell reads its neighbours and writes its own row, so there are no atomics and
// a run gives the same bits on any number of threads. The equations are in dgpde/kernels/flow_stencil/README.md.
#include <algorithm>
#include <vector>

#include "../math/flow_faces.h"
#include "flow_engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

using Pack8 = Pack<double>::type;

template <class V>
inline V at(const double* p) {
  V x;
  std::memcpy(&x, p, sizeof(V));
  return x;
}
template <class V>
inline void set(double* p, const V& x) {
  std::memcpy(p, &x, sizeof(V));
}
// Values `stride` apart.
template <class V>
inline V strided(const double* p, int64_t stride) {
  if (stride == 1) return at<V>(p);
  V x = broadcast<V>(p[0]);
  if (stride != 0)
    for (int lane = 1; lane < Lane<V>::width; ++lane) put(x, lane, p[lane * stride]);
  return x;
}

// One row of cells along x: what does not vary in it.
struct Row {
  int64_t k, j, first;  // first: index of its first cell
  bool neighbour[4];    // below, above, south, north
  double area;          // of a cell's volume per length along x, m2
};

// Where a cell stands in its row.
struct Place {
  bool west, east;
};

class Stencil {
 public:
  explicit Stencil(const FlowCall& call)
      : c(call), mean(static_cast<FaceMean>(call.face_mean)), inv_dt(1.0 / call.dt) {
    step[0] = c.ny * c.nx, step[1] = c.nx, step[2] = 1;
  }

  Row row(int64_t r) const {
    const int64_t k = r / c.ny, j = r % c.ny;
    return {k,
            j,
            r * c.nx,
            {c.face[0] && k > 0, c.face[0] && k + 1 < c.nz, c.face[1] && j > 0, c.face[1] && j + 1 < c.ny},
            c.width[0][k] * c.width[1][j]};
  }

  // Calls body(V{}, i, place) for all cells of a row: packs inside, single cells at the ends.
  template <class Body>
  void along(const Body& body) const {
    constexpr int64_t W = Lane<Pack8>::width;
    const bool x = c.face[2] != nullptr;
    int64_t i = 0;
    const int64_t last = x ? c.nx - 1 : c.nx;
    if (x) body(double{}, i++, Place{false, c.nx > 1});
    for (; i + W <= last; i += W) body(Pack8{}, i, Place{x, x});
    for (; i < last; ++i) body(double{}, i, Place{x, x});
    if (x && i < c.nx) body(double{}, i, Place{true, false});
  }

  // A face of a cell: its axis, whether the cell is a (below, south, west of the face), and where its coefficient stands
  // in the matrix. Constants, so that nothing of a face is decided at run time.
  template <int kAxis, bool kIsA>
  struct Face {
    static constexpr int axis = kAxis, slot = 1 + 2 * kAxis + (kIsA ? 1 : 0);
    static constexpr bool is_a = kIsA;
    int64_t offset, owner;  // of the neighbour, from the cell; the cell that the face is stored with
  };

  // Calls use(Face) for the faces of a cell.
  template <class Use>
  DGPDE_HD void each_face(const Row& row, const Place& place, int64_t cell, const Use& use) const {
    if (row.neighbour[0]) use(Face<0, false>{-step[0], cell - step[0]});
    if (row.neighbour[1]) use(Face<0, true>{step[0], cell});
    if (row.neighbour[2]) use(Face<1, false>{-step[1], cell - step[1]});
    if (row.neighbour[3]) use(Face<1, true>{step[1], cell});
    if (place.west) use(Face<2, false>{-1, cell - 1});
    if (place.east) use(Face<2, true>{1, cell});
  }

  // rise of the face that a cell owns; the owner is in row.k or below, in row.j or south, in i or west.
  template <class V, class Face>
  DGPDE_HD V rise(const Face&, const Row& row, int64_t i) const {
    constexpr int64_t back = Face::is_a ? 0 : 1;
    if constexpr (Face::axis == 0)
      return broadcast<V>(c.rise[0][row.k - back]);
    else if constexpr (Face::axis == 1)
      return at<V>(c.rise[1] + (row.j - back) * c.nx + i);
    else
      return at<V>(c.rise[2] + row.j * c.nx + i - back);
  }

  // What flows through a face, from the cell's point of view.
  template <class V, class Face>
  DGPDE_HD FaceFlow<V> flow(const Face&, V psi, V other, V kr, V kr_other, V up) const {
    if constexpr (Face::is_a)
      return face_flow(mean, psi, other, kr, kr_other, up);
    else
      return face_flow(mean, other, psi, kr_other, kr, up);
  }

  template <class V>
  V volume(const Row& row, int64_t i) const {
    const V v = row.area * at<V>(c.width[2] + i);
    return c.active ? v * at<V>(c.active + row.first + i) : v;
  }

  // The row of a cell that takes no part: kIdentity (psi - psi_old).
  template <class V>
  V held(int64_t cell) const {
    return (broadcast<V>(1) - at<V>(c.active + cell)) * kIdentity;
  }
  static constexpr double kIdentity = 1.0;  // m2/s, as in problem.py

  template <class V>
  V storage(int64_t cell) const {
    return c.storage_stride ? at<V>(c.storage + cell) : broadcast<V>(c.storage[0]);
  }

  const FlowCall& c;
  const FaceMean mean;
  const double inv_dt;
  int64_t step[kAxes];
};

// ---- assembly ------------------------------------------------------------------------------------------------

class Assembly : public Stencil {
 public:
  using Stencil::Stencil;

  void operator()(int64_t r, double* scale) const {
    const Row w = row(r);
    if (c.matrix)
      along([&](auto zero, int64_t i, const Place& place) { cell<true, decltype(zero)>(w, i, place, scale); });
    else
      along([&](auto zero, int64_t i, const Place& place) { cell<false, decltype(zero)>(w, i, place, scale); });
    sides(w, scale);
    wells(w, scale);
    finish(r, w, scale);
  }

 private:
  template <bool kMatrix, class V>
  void cell(const Row& w, int64_t i, const Place& place, double* scale) const {
    const int64_t n = w.first + i, cells = c.nz * c.ny * c.nx;
    const V psi = at<V>(c.psi + n), kr = at<V>(c.kr + n), theta = at<V>(c.theta + n);
    const V theta_old = at<V>(c.theta_old + n), psi_old = at<V>(c.psi_old + n);
    const V v = volume<V>(w, i), s = storage<V>(n), change = psi - psi_old;
    V f = (v * (theta - theta_old) + s * theta * change) * inv_dt;
    // What a cell holds: the flows between cells cancel in the sum over all of them, and their round-off with them.
    V own = (v * (theta + theta_old) + s * theta * (vabs(psi) + vabs(psi_old))) * inv_dt;
    V size = own;
    V diag{}, dkr{};
    if constexpr (kMatrix) {
      const V capacity = at<V>(c.capacity + n);
      dkr = at<V>(c.dkr + n);
      diag = (v * capacity + s * (capacity * change + theta)) * inv_dt;
    }
    each_face(w, place, n, [&](auto face) __attribute__((always_inline)) {
      using F = decltype(face);
      const V other = at<V>(c.psi + n + face.offset), kr_o = at<V>(c.kr + n + face.offset),
              t = at<V>(c.face[F::axis] + face.owner);
      const V up = rise<V>(face, w, i);
      const FaceFlow<V> q = flow<V>(face, psi, other, kr, kr_o, up);
      const V tk = t * q.mean, td = t * q.drop;
      // q flows from b into a
      f = F::is_a ? f - tk * q.drop : f + tk * q.drop;
      size = size + tk * (vabs(psi) + vabs(other) + vabs(up));
      if constexpr (kMatrix) {
        const V dkr_o = at<V>(c.dkr + n + face.offset);
        const V near = F::is_a ? td * q.mean_a * dkr : td * q.mean_b * dkr;
        const V far = F::is_a ? td * q.mean_b * dkr_o : td * q.mean_a * dkr_o;
        diag = diag + tk + (F::is_a ? -near : near);
        set<V>(c.matrix + F::slot * cells + n, -tk + (F::is_a ? -far : far));
      }
    });
    if (c.active) f = f + held<V>(n) * change;
    if (c.source) {
      const V gain =
          v * strided<V>(c.source + w.k * c.source_stride[0] + w.j * c.source_stride[1] + i * c.source_stride[2],
                         c.source_stride[2]);
      f = f - gain, size = size + vabs(gain), own = own + vabs(gain);
    }
    if (c.roots && w.k >= c.root_layer) {
      const int64_t in_zone = n - c.root_layer * step[0];
      const V taken = at<V>(c.roots + in_zone);
      f = f + taken, size = size + taken, own = own + taken;  // never negative
      if constexpr (kMatrix) diag = diag + at<V>(c.root_slope + in_zone);
    }
    if constexpr (kMatrix) {
      if (c.active) diag = diag + held<V>(n);
      set<V>(c.matrix + n, diag);
      if (!w.neighbour[0]) set<V>(c.matrix + 1 * cells + n, V{});
      if (!w.neighbour[1]) set<V>(c.matrix + 2 * cells + n, V{});
      if (!w.neighbour[2]) set<V>(c.matrix + 3 * cells + n, V{});
      if (!w.neighbour[3]) set<V>(c.matrix + 4 * cells + n, V{});
      if (!place.west) set<V>(c.matrix + 5 * cells + n, V{});
      if (!place.east) set<V>(c.matrix + 6 * cells + n, V{});
    }
    set<V>(c.residual + n, f);
    set<V>(scale + i, size);
    set<V>(scale + c.nx + i, own);
  }

  void sides(const Row& w, double* scale) const {
    const int64_t plane = w.j * c.nx, wall = w.k * c.nx;
    if (w.k == 0) side(0, plane, w.first, c.nx, scale);
    if (w.k == c.nz - 1) side(1, plane, w.first, c.nx, scale);
    if (w.j == 0) side(2, wall, w.first, c.nx, scale);
    if (w.j == c.ny - 1) side(3, wall, w.first, c.nx, scale);
    side(4, w.k * c.ny + w.j, w.first, 1, scale);
    side(5, w.k * c.ny + w.j, w.first + c.nx - 1, 1, scale + c.nx - 1);
  }
  void side(int which, int64_t face, int64_t first, int64_t count, double* scale) const {
    if (!c.side_flow[which]) return;
    for (int64_t i = 0; i < count; ++i) {
      c.residual[first + i] -= c.side_flow[which][face + i];
      scale[i] += c.side_scale[which][face + i];
      scale[c.nx + i] += c.side_scale[which][face + i];
      if (c.matrix) c.matrix[first + i] -= c.side_slope[which][face + i];
    }
  }

  void wells(const Row& w, double* scale) const {
    each_of(w, c.well_cell, c.wells, [&](int64_t i, int64_t cell) {
      const double rate = c.well_rate[i];
      gain(w, cell, rate, vabs(rate), scale);
    });
    each_of(w, c.river_cell, c.rivers, [&](int64_t i, int64_t cell) {
      const double k = c.river_conductance[i], head = c.river_head[i], psi = c.psi[cell];
      gain(w, cell, k * (head - psi), k * (vabs(head) + vabs(psi)), scale);
      if (c.matrix) c.matrix[cell] += k;
    });
  }
  void gain(const Row& w, int64_t cell, double rate, double size, double* scale) const {
    c.residual[cell] -= rate;
    scale[cell - w.first] += size;
    scale[c.nx + cell - w.first] += size;
  }
  // Calls use(number, cell) for those of a sorted list of cells that stand in a row.
  template <class Use>
  void each_of(const Row& w, const int64_t* cells, int64_t count, const Use& use) const {
    const int64_t* end = cells + count;
    for (const int64_t* p = std::lower_bound(cells, end, w.first); p != end && *p < w.first + c.nx; ++p)
      use(p - cells, *p);
  }

  void finish(int64_t r, const Row& w, const double* scale) const {
    constexpr double kRoundOff = 200.0 * 2.220446049250313e-16;
    double squares = 0, beyond = -INFINITY, exact = -INFINITY, sum = 0, terms = 0;
    for (int64_t i = 0; i < c.nx; ++i) {
      const double f = c.residual[w.first + i], size = vabs(f) - kRoundOff * scale[i];
      squares += f * f, sum += f, terms += scale[c.nx + i];
      exact = std::max(exact, size);
      beyond = std::max(beyond, size - c.allowed[w.first + i] * inv_dt);
    }
    const double found[5] = {squares, beyond, exact, sum, terms};
    for (int q = 0; q < 5; ++q) c.rows[q][r] = found[q];
  }
};

// ---- reverse mode --------------------------------------------------------------------------------------------

class Reverse : public Stencil {
 public:
  using Stencil::Stencil;

  void operator()(int64_t r) const {
    const Row w = row(r);
    along([&](auto zero, int64_t i, const Place& place) { cell<decltype(zero)>(w, i, place); });
  }

 private:
  template <class V>
  void cell(const Row& w, int64_t i, const Place& place) const {
    const int64_t n = w.first + i;
    const V psi = at<V>(c.psi + n), kr = at<V>(c.kr + n), theta = at<V>(c.theta + n),
            lambda = at<V>(c.multiplier + n);
    V grad_kr{};
    each_face(w, place, n, [&](auto face) __attribute__((always_inline)) {
      using F = decltype(face);
      const V other = at<V>(c.psi + n + face.offset), kr_o = at<V>(c.kr + n + face.offset),
              t = at<V>(c.face[F::axis] + face.owner);
      const V up = rise<V>(face, w, i), lambda_o = at<V>(c.multiplier + n + face.offset);
      const FaceFlow<V> q = flow<V>(face, psi, other, kr, kr_o, up);
      V weight = F::is_a ? lambda - lambda_o : lambda_o - lambda;  // of q in -<lambda, F>
      if (c.seed_flow[F::axis]) weight = weight - at<V>(c.seed_flow[F::axis] + face.owner);
      grad_kr = grad_kr + weight * t * q.drop * (F::is_a ? q.mean_a : q.mean_b);
      if (F::is_a && c.grad_face[F::axis]) {
        double* to = c.grad_face[F::axis] + face.owner;
        set<V>(to, at<V>(to) + weight * q.mean * q.drop);
      }
    });
    const V v = volume<V>(w, i), s = storage<V>(n), change = psi - at<V>(c.psi_old + n), rate = lambda * inv_dt;
    set<V>(c.grad_kr + n, grad_kr);
    set<V>(c.grad_theta + n, at<V>(c.grad_theta + n) - rate * (v + s * change));
    if (c.grad_storage) set<V>(c.grad_storage + n, at<V>(c.grad_storage + n) - rate * theta * change);
    set<V>(c.carry_theta + n, rate * v);
    set<V>(c.carry_psi + n, c.active ? rate * s * theta + lambda * held<V>(n) : rate * s * theta);
  }
};

// ---- forward mode --------------------------------------------------------------------------------------------

class Forward : public Stencil {
 public:
  using Stencil::Stencil;

  void operator()(int64_t r) const {
    const Row w = row(r);
    along([&](auto zero, int64_t i, const Place& place) { cell<decltype(zero)>(w, i, place); });
  }

 private:
  template <class V>
  static V maybe(const double* p, int64_t n) {
    return p ? at<V>(p + n) : V{};
  }
  template <class V>
  void cell(const Row& w, int64_t i, const Place& place) const {
    const int64_t n = w.first + i;
    const V psi = at<V>(c.psi + n), kr = at<V>(c.kr + n), theta = at<V>(c.theta + n);
    const V dpsi = at<V>(c.dot_psi + n), dkr = at<V>(c.dot_kr + n), dtheta = at<V>(c.dot_theta + n);
    const V v = volume<V>(w, i), s = storage<V>(n), change = psi - at<V>(c.psi_old + n);
    V ds{};
    if (c.dot_storage) ds = c.dot_storage_stride ? at<V>(c.dot_storage + n) : broadcast<V>(c.dot_storage[0]);
    V f = (v * (dtheta - at<V>(c.dot_theta_old + n)) + (ds * theta + s * dtheta) * change +
           s * theta * (dpsi - at<V>(c.dot_psi_old + n))) *
          inv_dt;
    each_face(w, place, n, [&](auto face) __attribute__((always_inline)) {
      using F = decltype(face);
      const V other = at<V>(c.psi + n + face.offset), kr_o = at<V>(c.kr + n + face.offset),
              t = at<V>(c.face[F::axis] + face.owner);
      const V up = rise<V>(face, w, i), dt = maybe<V>(c.dot_face[F::axis], face.owner);
      const V dpsi_o = at<V>(c.dot_psi + n + face.offset), dkr_o = at<V>(c.dot_kr + n + face.offset);
      const FaceFlow<V> q = flow<V>(face, psi, other, kr, kr_o, up);
      const V dmean = F::is_a ? q.mean_a * dkr + q.mean_b * dkr_o : q.mean_a * dkr_o + q.mean_b * dkr;
      const V fall = F::is_a ? dpsi_o - dpsi : dpsi - dpsi_o;
      const V dq = (dt * q.mean + t * dmean) * q.drop + t * q.mean * fall;
      f = F::is_a ? f - dq : f + dq;
      if (F::is_a && c.dot_flow[F::axis]) set<V>(c.dot_flow[F::axis] + face.owner, -dq);
    });
    if (c.active) f = f + held<V>(n) * (dpsi - at<V>(c.dot_psi_old + n));
    set<V>(c.dot_residual + n, f);
  }
};

// ---- flows through the faces ---------------------------------------------------------------------------------

class Flows : public Stencil {
 public:
  using Stencil::Stencil;

  void operator()(int64_t r) const {
    const Row w = row(r);
    along([&](auto zero, int64_t i, const Place& place) { cell<decltype(zero)>(w, i, place); });
  }

 private:
  template <class V>
  void cell(const Row& w, int64_t i, const Place& place) const {
    const int64_t n = w.first + i;
    const V psi = at<V>(c.psi + n), kr = at<V>(c.kr + n);
    each_face(w, place, n, [&](auto face) __attribute__((always_inline)) {
      using F = decltype(face);
      if constexpr (F::is_a) {
        const V other = at<V>(c.psi + n + face.offset), kr_o = at<V>(c.kr + n + face.offset);
        const FaceFlow<V> q = flow<V>(face, psi, other, kr, kr_o, rise<V>(face, w, i));
        set<V>(c.flow[F::axis] + face.owner, -at<V>(c.face[F::axis] + face.owner) * q.mean * q.drop);
      }
    });
  }
};

// d/dpsi of the flows paired with their cotangents.
class Load : public Stencil {
 public:
  using Stencil::Stencil;

  void operator()(int64_t r) const {
    const Row w = row(r);
    along([&](auto zero, int64_t i, const Place& place) { cell<decltype(zero)>(w, i, place); });
  }

 private:
  template <class V>
  void cell(const Row& w, int64_t i, const Place& place) const {
    const int64_t n = w.first + i;
    const V psi = at<V>(c.psi + n), kr = at<V>(c.kr + n), dkr = at<V>(c.dkr + n);
    V sum = at<V>(c.load + n);
    each_face(w, place, n, [&](auto face) __attribute__((always_inline)) {
      using F = decltype(face);
      const V other = at<V>(c.psi + n + face.offset), kr_o = at<V>(c.kr + n + face.offset),
              t = at<V>(c.face[F::axis] + face.owner), seed = at<V>(c.seed_flow[F::axis] + face.owner);
      const FaceFlow<V> q = flow<V>(face, psi, other, kr, kr_o, rise<V>(face, w, i));
      // q flows from b into a, the flow along the axis is -q
      const V by_drop = F::is_a ? t * q.mean : -t * q.mean;
      sum = sum + seed * (by_drop - t * q.drop * (F::is_a ? q.mean_a : q.mean_b) * dkr);
    });
    set<V>(c.load + n, sum);
  }
};

// ---- all rows, and the boundary ------------------------------------------------------------------------------

template <class Pass>
void over_rows(const FlowCall& call) {
  const Pass pass(call);
  const int64_t rows = call.nz * call.ny;
#pragma omp parallel for schedule(static) num_threads(std::max(call.threads, 1))
  for (int64_t r = 0; r < rows; ++r) pass(r);
}

void flow_assemble(const FlowCall& call) {
  const Assembly pass(call);
  const int64_t rows = call.nz * call.ny;
#pragma omp parallel num_threads(std::max(call.threads, 1))
  {
    std::vector<double> scale(2 * static_cast<size_t>(call.nx));  // of a row's terms, with and without inner faces
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; ++r) pass(r, scale.data());
  }
}

void flow_reverse(const FlowCall& call) { over_rows<Reverse>(call); }
void flow_forward(const FlowCall& call) { over_rows<Forward>(call); }
void flow_load(const FlowCall& call) { over_rows<Load>(call); }
void flow_faces(const FlowCall& call) { over_rows<Flows>(call); }

void flow_side(const SideCall& call) {
  const bool rest = call.partials != nullptr;
  for (int64_t i = 0; i < call.count; ++i) {
    BoundaryFace<double> f{};
    f.kind = static_cast<Boundary>(call.kind), f.mean = static_cast<FaceMean>(call.face_mean);
    f.transmissivity = call.transmissivity ? call.transmissivity[i] : 0.0;
    f.rise = call.rise, f.half = call.half, f.gravity = call.gravity, f.elevation = call.elevation[i];
    for (int v = 0; v < 4; ++v) f.value[v] = call.value[v] ? call.value[v][i] : 0.0;
    f.kr_b = call.kr_b ? call.kr_b[i] : 0.0;
    if (call.share) f.share = call.share[i], f.share_psi = call.share_psi[i];
    BoundaryFlux<double> out{};
    BoundaryPartials<double> d{};
    const double pond = call.ponding_old[i];
    if (rest)
      boundary_flux<true>(f, call.psi[i], call.kr[i], pond, call.dt, 1.0 / call.dt, out, &d);
    else
      boundary_flux<false>(f, call.psi[i], call.kr[i], pond, call.dt, 1.0 / call.dt, out, &d);
    call.flux[i] = out.q, call.flux_psi[i] = out.q_psi, call.flux_kr[i] = out.q_kr;
    call.ponding[i] = out.ponding, call.runoff[i] = out.runoff;
    call.scale[i] = flux_scale(f, call.psi[i], call.kr[i], pond, call.dt, out.q);
    if (!rest) continue;
    const double* sets[3] = {d.q, d.ponding, d.runoff};
    for (int s = 0; s < 3; ++s)
      for (int p = 0; p < kBoundaryInputs; ++p)
        call.partials[(s * kBoundaryInputs + p) * call.count + i] = sets[s][p];
  }
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
