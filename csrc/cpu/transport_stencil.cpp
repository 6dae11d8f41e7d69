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
    if (crossing_) {
      gradients(c, threads);
      for (int axis = 0; axis < kAxes; ++axis)
        if (c_.inverse[axis]) phi_[axis].resize(cells_);
      rows(threads, [&](int64_t z, int64_t y, double* work) { cross_flows(by, z, y, work); });
    }
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      double* row = out + first;
      std::fill(row, row + c_.nx, 0.0);
      switch (scheme_) {
        case Advection::upwind:
          exchange<Advection::upwind>(c, by, z, y, row);
          break;
        case Advection::central:
          exchange<Advection::central>(c, by, z, y, row);
          break;
        case Advection::tvd:
          exchange<Advection::tvd>(c, by, z, y, row);
          break;
      }
      if (!crossing_) return;
      faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t, int64_t n) {
        const double* phi = &phi_[axis][owner];
        for (int64_t i = 0; i < n; ++i) out[cell + i] += upper ? phi[i] : -phi[i];
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
  // What a cell exchanges through the two faces on its sides along an axis, by the flows q, which say what is upstream, by
  // the flows and conductances of `by`, and the rises of c across these faces (1, 2) and those beyond them (0, 3).
  struct Face {
    double q, moving, g;
  };
  template <Advection scheme>
  static double exchanged(const Face& f1, const Face& f2, double rise1, double rise2, const double (&half)[3],
                          const double (&gradient)[4]) {
    const auto phi = [&](const Face& f, int k, double before, double here,
                         double after) __attribute__((always_inline)) {
      if constexpr (scheme == Advection::upwind) return 0.0;
      const bool forward = f.q > 0.0;
      const double up = forward ? half[k] : half[k + 1], down = forward ? half[k + 1] : half[k];
      const double slope = scheme == Advection::tvd ? limited(forward ? before : after, here, up, down).value : here;
      return (forward ? f.moving : -f.moving) * up * slope;
    };
    return (entering(true, f1.q, f1.moving) + f1.g) * rise1 - (entering(false, f2.q, f2.moving) + f2.g) * rise2 +
           phi(f2, 1, gradient[1], gradient[2], gradient[3]) - phi(f1, 0, gradient[0], gradient[1], gradient[2]);
  }

  // out += N(c) of a row without cross terms.
  template <Advection scheme>
  void exchange(const double* c, const FaceFields& by, int64_t z, int64_t y, double* __restrict out) const {
    constexpr bool wide = scheme != Advection::upwind;
    const int64_t first = (z * c_.ny + y) * c_.nx, nx = c_.nx;
    const double *at = c + first, *none = zeros_.data();
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      const auto row = [&](const double* field, int64_t k) {
        return field ? row_at(field, axis, z, y, k, none) : none;
      };
      const double *q = c_.faces.flow[axis], *moving = by.flow[axis], *g = by.conductance[axis],
                   *d = c_.inverse[axis];
      const double* half = c_.half[axis];
      if (axis == 2) {
        const double *q2 = row(q, 0), *m2 = row(moving, 0), *g2 = row(g, 0), *d2 = row(d, 0);
        const auto cell = [&](int64_t i, auto guarded) __attribute__((always_inline)) {
          const auto is = [&](int64_t k) { return !guarded || (k >= 0 && k < nx - 1); };
          const auto face = [&](int64_t k) { return is(k) ? Face{q2[k], m2[k], g2[k]} : Face{0.0, 0.0, 0.0}; };
          const auto rise = [&](int64_t k) { return is(k) ? at[k + 1] - at[k] : 0.0; };
          const auto gradient = [&](int64_t k) { return wide && is(k) ? d2[k] * (at[k + 1] - at[k]) : 0.0; };
          const auto size = [&](int64_t k) { return !wide || (guarded && (k < 0 || k >= nx)) ? 0.0 : half[k]; };
          out[i] += exchanged<scheme>(face(i - 1), face(i), rise(i - 1), rise(i), {size(i - 1), size(i), size(i + 1)},
                                      {gradient(i - 2), gradient(i - 1), gradient(i), gradient(i + 1)});
        };
        const int64_t inner = std::max<int64_t>(2, nx - 2);
        for (int64_t i = 0; i < std::min<int64_t>(2, nx); ++i) cell(i, std::true_type{});
        for (int64_t i = 2; i < inner; ++i) cell(i, std::false_type{});
        for (int64_t i = inner; i < nx; ++i) cell(i, std::true_type{});
        continue;
      }
      const int64_t place = axis == 0 ? z : y, last = size_[axis] - 1;
      const bool above = place < last;  // else what stands at the upper faces is not looked at
      const double *q1 = row(q, -1), *m1 = row(moving, -1), *g1 = row(g, -1), *q2 = above ? row(q, 0) : none,
                   *m2 = above ? row(moving, 0) : none, *g2 = above ? row(g, 0) : none;
      const double *d0 = row(d, -2), *d1 = row(d, -1), *d2 = row(d, 0), *d3 = row(d, 1);
      const auto cells = [&](int64_t k, const double* otherwise) { return row_at(c, axis, z, y, k, otherwise); };
      const double *c1 = cells(-1, at), *c0 = cells(-2, c1), *c3 = cells(1, at), *c4 = cells(2, c3);
      const double size[3] = {half[std::max<int64_t>(place - 1, 0)], half[place], half[std::min(place + 1, last)]};
      for (int64_t i = 0; i < nx; ++i) {
        const double rise1 = at[i] - c1[i], rise2 = c3[i] - at[i];
        out[i] += exchanged<scheme>({q1[i], m1[i], g1[i]}, {q2[i], m2[i], g2[i]}, rise1, rise2, size,
                                    {wide ? d0[i] * (c1[i] - c0[i]) : 0.0, wide ? d1[i] * rise1 : 0.0,
                                     wide ? d2[i] * rise2 : 0.0, wide ? d3[i] * (c4[i] - c3[i]) : 0.0});
      }
    }
  }

  // phi of a row's faces for the cross terms of `by`, from the gradients.
  void cross_flows(const FaceFields& by, int64_t z, int64_t y, double* work) {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      double* phi = &phi_[axis][first];
      const int64_t n = upper_count(axis, z, y);
      std::fill(phi, phi + c_.nx, 0.0);
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
