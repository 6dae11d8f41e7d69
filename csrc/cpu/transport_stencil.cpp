// The transport stencil: the network of one solute between the cells of a field, its derivatives, and the systems with its
// Jacobian. Every pass gathers, a row of cells or faces at a time, so there are no atomics and the number of threads
// changes no bit. The equations are in dgpde/kernels/transport_stencil/README.md.
#include "../linear/bicgstab.h"
#include "../linear/factors.h"
#include "transport_engine.h"
#include "transport_jacobian.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

class StencilTransport final : public TransportEngine, private NetworkJacobian {
 public:
  void set(const TransportCall& call) override { set_walk(call); }

  void apply(const double* c, const FaceFields& by, double* out, int threads) override {
    if (crossing_) gradients(c, threads);
    if (wide()) {
      for (int axis = 0; axis < kAxes; ++axis)
        if (c_.inverse[axis]) phi_[axis].resize(cells_);
      rows(threads, [&](int64_t z, int64_t y, double* work) { flows(c, by, z, y, work); });
    }
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      std::fill(out + first, out + first + c_.nx, 0.0);
      faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t other, int64_t n) {
        const double *flow = c_.faces.flow[axis] + owner, *moving = by.flow[axis], *g = by.conductance[axis];
        const double *phi = wide() ? &phi_[axis][owner] : nullptr, *here = c + cell, *there = c + other;
        double* to = out + cell;
        if (moving && g && phi) {
          moving += owner, g += owner;
          for (int64_t i = 0; i < n; ++i)
            to[i] +=
                (entering(!upper, flow[i], moving[i]) + g[i]) * (here[i] - there[i]) + (upper ? phi[i] : -phi[i]);
          return;
        }
        for (int64_t i = 0; i < n; ++i) {
          const double k = (moving ? entering(!upper, flow[i], moving[owner + i]) : 0.0) + (g ? g[owner + i] : 0.0);
          to[i] += k * (here[i] - there[i]) + (phi ? (upper ? phi[i] : -phi[i]) : 0.0);
        }
      });
    });
  }

  void pull(const double* multiplier, const double* c, double* const* flow, double* const* conductance,
            double* const* cross, int threads) override {
    if (crossing_) gradients(c, threads);
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t first = (z * c_.ny + y) * c_.nx, n = upper_count(axis, z, y), step = step_[axis];
        const double *l = multiplier + first, *at = c + first, *q = c_.faces.flow[axis] + first;
        if (flow && flow[axis]) {
          double* to = flow[axis] + first;
          for (int64_t i = 0; i < n; ++i) {
            const double into_a = l[i], into_b = l[i + step], rise = at[i + step] - at[i];
            to[i] = -(q[i] > 0.0 ? into_b : into_a) * rise;
          }
          if (scheme_ != Advection::upwind)
            slopes(c, axis, z, y, [&](int64_t i, double slope) {
              const double across = l[i] - l[i + step];
              to[i] -= (q[i] > 0.0 ? across : -across) * slope;
            });
          std::fill(to + n, to + c_.nx, 0.0);
        }
        if (conductance && conductance[axis]) {
          double* to = conductance[axis] + first;
          for (int64_t i = 0; i < n; ++i) to[i] = (l[i] - l[i + step]) * (at[i + step] - at[i]);
          std::fill(to + n, to + c_.nx, 0.0);
        }
        for (int pair = 0; pair < kPairs; ++pair) {
          if (kPair[pair][0] != axis || !cross || !cross[pair]) continue;
          double* to = cross[pair] + first;
          mean_of_four(axis, kPair[pair][1], z, y, work);
          for (int64_t i = 0; i < n; ++i) to[i] = (l[i] - l[i + step]) * work[i];
          std::fill(to + n, to + c_.nx, 0.0);
        }
      }
    });
  }

  void setup(const double* diagonal, const double* column, const double* at, int threads) override {
    assemble(diagonal, column, at, threads);
    good_ = factors_.build(upwind(), threads);
  }

  void linearise(const double* at, int threads) override { differentiate(at, threads); }

  LinearReport solve(const double* b, double* x, const LinearOptions& o) override {
    if (!good_) {
      for (int64_t i = 0; i < cells_; ++i) x[i] = NAN;
      return {0, NAN, LinearStatus::pivot};
    }
    return krylov_.solve(
        c_.nz * c_.ny, c_.nx, b, x, o,
        [&](const double* from, double* to, const auto& use) {
          return product(o.transposed, from, to, o.threads, use);
        },
        [&](const double* from, double* to) { factors_.solve(from, to, o.transposed, o.threads); });
  }

  int64_t bytes() const override {
    int64_t total = jacobian_bytes() + factors_.bytes() + krylov_.bytes();
    for (int k = 0; k < kAxes; ++k) total += gradient_[k].bytes() + phi_[k].bytes();
    return total;
  }

 private:
  // phi of a row's faces for faces `by`; of the cross terms from the gradients.
  void flows(const double* c, const FaceFields& by, int64_t z, int64_t y, double* work) {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      double* phi = &phi_[axis][first];
      const int64_t n = upper_count(axis, z, y);
      std::fill(phi, phi + c_.nx, 0.0);
      if (scheme_ != Advection::upwind && by.flow[axis]) {
        const double *flow = c_.faces.flow[axis] + first, *value = by.flow[axis] + first;
        slopes(c, axis, z, y,
               [&](int64_t i, double slope) { phi[i] = (flow[i] > 0.0 ? value[i] : -value[i]) * slope; });
      }
      for (int pair = 0; pair < kPairs; ++pair) {
        if (kPair[pair][0] != axis || !by.cross[pair]) continue;
        const double* x = by.cross[pair] + first;
        mean_of_four(axis, kPair[pair][1], z, y, work);
        for (int64_t i = 0; i < n; ++i) phi[i] -= x[i] * work[i];
      }
    }
  }

  bool good_ = false;
  Buffer<double> phi_[kAxes];
  Factors factors_;
  BiCGStab krylov_;
};

TransportEngine* transport_engine() { return new StencilTransport; }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
