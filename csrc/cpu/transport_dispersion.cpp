// What the faces of a field conduct, from the flow through them, and the reverse mode. Every pass gathers: a row of cells
// or faces at a time, without atomics, so that the number of threads changes no bit.
#include <algorithm>
#include <vector>

#include "../linear/memory.h"
#include "../math/dispersion.h"
#include "transport_engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {
namespace {

constexpr int kOthers[kAxes][2] = {{1, 2}, {0, 2}, {0, 1}};
constexpr int kPairOf[kAxes][2] = {{0, 1}, {2, 3}, {4, 5}};  // of (axis, each of its others)

class Dispersing {
 public:
  explicit Dispersing(const DispersionCall& call) : c(call), cells(call.nz * call.ny * call.nx) {
    step[0] = call.ny * call.nx, step[1] = call.nx, step[2] = 1;
    size[0] = call.nz, size[1] = call.ny, size[2] = call.nx;
    for (int axis = 0; axis < kAxes; ++axis) flows[axis] = c.flow[axis] || c.side[2 * axis] || c.side[2 * axis + 1];
  }

  void forward() {
    velocities();
    rows([&](int64_t z, int64_t y) {
      for (int n = 0; n < kAxes; ++n) {
        if (!c.inverse[n]) continue;
        const int64_t first = (z * c.ny + y) * c.nx, count = upper(n, z, y);
        for (int64_t i = 0; i < count; ++i) {
          const Series f = series(n, z, y, i);
          const double area = c.inverse[n][first + i] > 0.0 ? face_area(n, z, y, i) : 0.0;
          c.conductance[n][first + i] = area * f.conductance();
          for (int t = 0; t < 2; ++t)
            if (double* to = c.cross[kPairOf[n][t]]) to[first + i] = area * f.cross(t);
        }
        std::fill(c.conductance[n] + first + count, c.conductance[n] + first + c.nx, 0.0);
        for (int t = 0; t < 2; ++t)
          if (double* to = c.cross[kPairOf[n][t]]) std::fill(to + first + count, to + first + c.nx, 0.0);
      }
    });
  }

  void reverse() {
    velocities();
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!flows[axis]) continue;
      bar_u[axis].resize(cells);
      bar_u[axis].fill_zero();
    }
    for (double* to : c.grad_coefficient)
      if (to) std::fill(to, to + cells, 0.0);
    for (auto& side : parts)
      for (auto& part : side) part.resize(cells);
    for (int n = 0; n < kAxes; ++n) {
      if (!c.inverse[n]) continue;
      // parts, of the cell below and of the one above each face across n: of the two other components of q, of a_L, a_1,
      // a_2 and of pore
      rows([&](int64_t z, int64_t y) {
        const int64_t first = (z * c.ny + y) * c.nx, count = upper(n, z, y);
        for (int64_t i = 0; i < count; ++i) {
          const Series f = series(n, z, y, i);
          const double area = face_area(n, z, y, i), open = c.inverse[n][first + i] > 0.0 ? area : 0.0;
          double by_nt[2] = {}, of_flow = 0.0;
          for (int t = 0; t < 2; ++t)
            if (const double* bar = c.bar_cross[kPairOf[n][t]]) by_nt[t] = bar[first + i] * open;
          for (int k = 0; k < 2; ++k) {
            double own_nn, own_nt[2], by_q[3], by_a[3];
            f.pull(k, c.bar_conductance[n][first + i] * open, by_nt, own_nn, own_nt);
            f.half[k].pull(own_nn, own_nt, by_q, by_a);
            of_flow += by_q[0];
            parts[k][0][first + i] = by_q[1], parts[k][1][first + i] = by_q[2];
            for (int m = 0; m < 3; ++m) parts[k][2 + m][first + i] = by_a[m];
            parts[k][5][first + i] = own_nn;
          }
          if (c.grad_flow[n]) c.grad_flow[n][first + i] = of_flow / area;
        }
        for (auto& side : parts)
          for (auto& part : side) std::fill(&part[first] + count, &part[first] + c.nx, 0.0);
        if (c.grad_flow[n]) std::fill(c.grad_flow[n] + first + count, c.grad_flow[n] + first + c.nx, 0.0);
      });
      double* coefficient[3] = {c.grad_coefficient[0], transverse(c.grad_coefficient, n, kOthers[n][0]),
                                transverse(c.grad_coefficient, n, kOthers[n][1])};
      rows([&](int64_t z, int64_t y) {
        for (int t = 0; t < 2; ++t)
          if (flows[kOthers[n][t]]) gather(n, z, y, t, bar_u[kOthers[n][t]].data());
        for (int k = 0; k < 3; ++k)
          if (coefficient[k]) gather(n, z, y, 2 + k, coefficient[k]);
        if (c.grad_coefficient[3]) gather(n, z, y, 5, c.grad_coefficient[3]);
      });
    }
    // from the components in the cells to the flows through their two faces
    rows([&](int64_t z, int64_t y) {
      const int64_t first = (z * c.ny + y) * c.nx;
      for (int n = 0; n < kAxes; ++n) {
        if (!flows[n]) continue;
        const double* u = &bar_u[n][first];
        if (c.grad_flow[n]) {
          const int64_t count = upper(n, z, y);
          for (int64_t i = 0; i < count; ++i)
            c.grad_flow[n][first + i] += 0.5 * (u[i] + u[i + step[n]]) / face_area(n, z, y, i);
        }
        sides_of(n, z, y, [&](int side, int64_t i, int64_t at) {
          if (c.grad_side[side]) c.grad_side[side][at] = (side % 2 == 0 ? 0.5 : -0.5) * u[i] / face_area(n, z, y, i);
        });
      }
    });
  }

 private:
  template <class Work>
  void rows(const Work& work) const {
    const int64_t count = c.nz * c.ny;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (c.threads > 1)
    for (int64_t r = 0; r < count; ++r) work(r / c.ny, r % c.ny);
  }

  int64_t upper(int axis, int64_t z, int64_t y) const {
    if (axis == 2) return c.nx - 1;
    return (axis == 0 ? z : y) + 1 < size[axis] ? c.nx : 0;
  }
  double face_area(int axis, int64_t z, int64_t y, int64_t i) const {
    if (axis == 0) return c.width[1][y] * c.width[2][i];
    return c.width[0][z] * (axis == 1 ? c.width[2][i] : c.width[1][y]);
  }
  // Of the dispersivities horizontal (1) and vertical (2) the one of a flow along t through a face across n, or back.
  template <class T>
  static T transverse(T const* values, int n, int t) {
    return values[n == 0 || t == 0 ? 2 : 1];
  }
  double coefficient(int which, int64_t cell) const {
    const double* v = c.coefficient[which];
    return v ? v[c.stride[which] ? cell : 0] : 0.0;
  }

  // use(side, number in the row, number on the side) for the cells of a row on the sides of an axis that are open.
  template <class Use>
  void sides_of(int axis, int64_t z, int64_t y, const Use& use) const {
    for (int high = 0; high < 2; ++high) {
      const int side = 2 * axis + high;
      if (!c.side[side]) continue;
      if (axis == 2) {
        use(side, high ? c.nx - 1 : 0, z * c.ny + y);
      } else if ((axis == 0 ? z : y) == (high ? size[axis] - 1 : 0)) {
        for (int64_t i = 0; i < c.nx; ++i) use(side, i, (axis == 0 ? y : z) * c.nx + i);
      }
    }
  }

  // Components of the flux in the cells: means of the two faces.
  void velocities() {
    for (int axis = 0; axis < kAxes; ++axis)
      if (flows[axis]) velocity[axis].resize(cells);
    rows([&](int64_t z, int64_t y) {
      const int64_t first = (z * c.ny + y) * c.nx;
      for (int n = 0; n < kAxes; ++n) {
        if (!flows[n]) continue;
        double* u = &velocity[n][first];
        std::fill(u, u + c.nx, 0.0);
        if (c.flow[n]) {
          const double* q = c.flow[n] + first;
          const int64_t above = upper(n, z, y);
          for (int64_t i = 0; i < above; ++i) u[i] += 0.5 * q[i];
          if (n == 2) {
            for (int64_t i = 1; i < c.nx; ++i) u[i] += 0.5 * q[i - 1];
          } else if ((n == 0 ? z : y) > 0) {
            for (int64_t i = 0; i < c.nx; ++i) u[i] += 0.5 * q[i - step[n]];
          }
        }
        sides_of(n, z, y,
                 [&](int side, int64_t i, int64_t at) { u[i] += (side % 2 == 0 ? 0.5 : -0.5) * c.side[side][at]; });
        for (int64_t i = 0; i < c.nx; ++i) u[i] /= face_area(n, z, y, i);
      }
    });
  }

  Series series(int n, int64_t z, int64_t y, int64_t i) const {
    const int64_t cell = (z * c.ny + y) * c.nx + i, place = n == 0 ? z : n == 1 ? y : i;
    Series f{};
    for (int k = 0; k < 2; ++k) {
      const int64_t own = cell + k * step[n];
      FaceDispersion& half = f.half[k];
      f.size[k] = 0.5 * c.width[n][place + k];
      half.q[0] = c.flow[n][cell] / face_area(n, z, y, i);
      half.a[0] = coefficient(0, own);
      half.pore = coefficient(3, own);
      for (int t = 0; t < 2; ++t) {
        const int other = kOthers[n][t];
        half.q[1 + t] = flows[other] ? velocity[other][own] : 0.0;
        half.a[1 + t] = coefficient(n == 0 || other == 0 ? 2 : 1, own);
      }
      half.evaluate();
    }
    f.evaluate();
    return f;
  }

  // to[i] += what the faces across n above and below each cell of a row hold for it.
  void gather(int n, int64_t z, int64_t y, int which, double* to) const {
    const int64_t first = (z * c.ny + y) * c.nx;
    const double *own = parts[0][which].data() + first, *p = parts[1][which].data() + first;
    for (int64_t i = 0; i < c.nx; ++i) to[first + i] += own[i];
    if (n == 2) {
      for (int64_t i = 1; i < c.nx; ++i) to[first + i] += p[i - 1];
    } else if ((n == 0 ? z : y) > 0) {
      for (int64_t i = 0; i < c.nx; ++i) to[first + i] += p[i - step[n]];
    }
  }

  const DispersionCall& c;
  const int64_t cells;
  int64_t step[kAxes], size[kAxes];
  bool flows[kAxes];
  Buffer<double> velocity[kAxes], bar_u[kAxes], parts[2][6];
};

}  // namespace

void transport_disperse(const DispersionCall& call) { Dispersing(call).forward(); }
void transport_disperse_reverse(const DispersionCall& call) { Dispersing(call).reverse(); }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
