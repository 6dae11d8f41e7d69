// The transport stencil: the network of one solute between the cells of a field, its derivatives, and the systems with its
// Jacobian. Every pass gathers, a row of cells or faces at a time, so there are no atomics and the number of threads
// changes no bit. The equations are in dgpde/kernels/transport_stencil/README.md.
#ifdef _OPENMP
#include <omp.h>
#endif

#include "../linear/bicgstab.h"
#include "../linear/factors.h"
#include "transport_engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

constexpr int kPair[kPairs][2] = {{0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1}};

// Part of the water that enters the cell b (kIntoB) or a of a face; water that stands counts as flowing into a.
inline double entering(bool into_b, double flow, double value) {
  return into_b == (flow > 0.0) ? (into_b ? value : -value) : 0.0;
}

struct Limited {
  double value, up, here;  // and its derivatives
};
// Van Leer's mean of the gradients upstream and at the face; 0 where their signs differ.
inline Limited limited(double up, double here, double half_up, double half_down) {
  const bool same = up * here > 0.0;
  const double u = same ? up : 1.0, f = same ? here : 1.0;
  const double total = half_up + half_down, by = 1.0 / (half_up * u + half_down * f);
  const double value = total * u * f * by, du = total * half_down * (f * by) * (f * by),
               df = total * half_up * (u * by) * (u * by);
  return {same ? value : 0.0, same ? du : 0.0, same ? df : 0.0};
}

class StencilTransport final : public TransportEngine {
 public:
  void set(const TransportCall& call) override {
    c_ = call;
    step_[0] = call.ny * call.nx, step_[1] = call.nx, step_[2] = 1;
    size_[0] = call.nz, size_[1] = call.ny, size_[2] = call.nx;
    cells_ = call.nz * call.ny * call.nx;
    scheme_ = static_cast<Advection>(call.scheme);
    crossing_ = false;
    for (const double* x : call.faces.cross) crossing_ = crossing_ || x;
  }

  void apply(const double* c, const FaceFields& by, double* out, int threads) override {
    const bool wide = scheme_ != Advection::upwind || crossing_;
    if (wide) {
      gradients(c, nullptr, threads);
      for (int axis = 0; axis < kAxes; ++axis)
        if (c_.inverse[axis]) phi_[axis].resize(cells_);
      rows(threads, [&](int64_t z, int64_t y, double* work) { flows(by, z, y, work); });
    }
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      std::fill(out + first, out + first + c_.nx, 0.0);
      faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t other, int64_t n) {
        const double *flow = c_.faces.flow[axis] + owner, *moving = by.flow[axis], *g = by.conductance[axis];
        for (int64_t i = 0; i < n; ++i) {
          const double k = (moving ? entering(!upper, flow[i], moving[owner + i]) : 0.0) + (g ? g[owner + i] : 0.0);
          out[cell + i] += k * (c[cell + i] - c[other + i]);
        }
      });
      if (wide) divergence(z, y, phi_, out);
    });
  }

  void pull(const double* multiplier, const double* c, double* const* flow, double* const* conductance,
            double* const* cross, int threads) override {
    const bool wide = scheme_ != Advection::upwind || crossing_;
    if (wide) gradients(c, nullptr, threads);
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t first = (z * c_.ny + y) * c_.nx, n = upper_count(axis, z, y), step = step_[axis];
        const double *l = multiplier + first, *at = c + first, *q = c_.faces.flow[axis] + first;
        double* slope = work;
        if (flow && flow[axis]) {
          double* to = flow[axis] + first;
          if (scheme_ != Advection::upwind) slopes(axis, z, y, slope, work + c_.nx);
          for (int64_t i = 0; i < n; ++i) {
            const double into_a = l[i], into_b = l[i + step], rise = at[i + step] - at[i];
            to[i] = -(q[i] > 0.0 ? into_b : into_a) * rise;
          }
          if (scheme_ != Advection::upwind)
            for (int64_t i = 0; i < n; ++i) {
              const double across = l[i] - l[i + step];
              to[i] -= (q[i] > 0.0 ? across : -across) * slope[i];
            }
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
    matrix_.resize(7 * cells_);
    column_ = column;
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int slot = 1; slot < 7; ++slot)
        std::fill(&matrix_[slot * cells_ + first], &matrix_[slot * cells_ + first] + c_.nx, 0.0);
      std::fill(work, work + c_.nx, 0.0);
      faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t other, int64_t n) {
        const double *flow = c_.faces.flow[axis] + owner, *g = c_.faces.conductance[axis] + owner;
        double *to = &matrix_[(1 + 2 * axis + (upper ? 1 : 0)) * cells_ + cell], *sum = work + (cell - first);
        for (int64_t i = 0; i < n; ++i) {
          const double k = entering(!upper, flow[i], flow[i]) + g[i];
          sum[i] += k;
          to[i] = column ? -k * column[other + i] : -k;
        }
      });
      double* diag = &matrix_[first];
      for (int64_t i = 0; i < c_.nx; ++i)
        diag[i] = diagonal[first + i] + (column ? work[i] * column[first + i] : work[i]);
    });
    if (scheme_ != Advection::upwind) linearise(at, threads);
    good_ = factors_.build(Stencil::of(matrix_.data(), c_.nz, c_.ny, c_.nx), threads);
  }

  LinearReport solve(const double* b, double* x, const LinearOptions& o) override {
    if (!good_) {
      for (int64_t i = 0; i < cells_; ++i) x[i] = NAN;
      return {0, NAN, LinearStatus::pivot};
    }
    const Stencil a = Stencil::of(matrix_.data(), c_.nz, c_.ny, c_.nx);
    const Form form = o.transposed ? Form::transposed : Form::plain;
    const bool wide = scheme_ != Advection::upwind || crossing_;
    return krylov_.solve(
        c_.nz * c_.ny, c_.nx, b, x, o,
        [&](const double* from, double* to) {
          rows(o.threads, [&](int64_t z, int64_t y, double*) {
            apply_row(a, form, z, y, from, 1.0, to + (z * c_.ny + y) * c_.nx);
          });
          if (wide) o.transposed ? wide_transposed(from, to, o.threads) : wide_plain(from, to, o.threads);
        },
        [&](const double* from, double* to) { factors_.solve(from, to, o.transposed, o.threads); });
  }

  int64_t bytes() const override {
    int64_t total = matrix_.bytes() + factors_.bytes() + krylov_.bytes();
    for (int k = 0; k < kAxes; ++k)
      total += gradient_[k].bytes() + phi_[k].bytes() + here_[k].bytes() + up_[k].bytes();
    for (const auto& h : pulled_) total += h.bytes();
    return total;
  }

 private:
  // work(z, y, scratch [4 nx]) for all rows along x.
  template <class Work>
  void rows(int threads, const Work& work) {
    const int64_t count = c_.nz * c_.ny;
    if (scratch_.size() < 4 * c_.nx * threads) scratch_.resize(4 * c_.nx * threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < count; ++r) {
#ifdef _OPENMP
      const int thread = omp_get_thread_num();
#else
      const int thread = 0;
#endif
      work(r / c_.ny, r % c_.ny, scratch_.data() + 4 * c_.nx * thread);
    }
  }

  // Number of cells of a row, from its first, that have a neighbour above, north or east.
  int64_t upper_count(int axis, int64_t z, int64_t y) const {
    if (axis == 2) return c_.nx - 1;
    return (axis == 0 ? z : y) + 1 < size_[axis] ? c_.nx : 0;
  }

  // use(axis, whether the cells are a, first cell, owner of its face, its neighbour, number of cells) for the faces of a
  // row, six stretches at most.
  template <class Use>
  void faces_of(int64_t z, int64_t y, const Use& use) const {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      const int64_t step = step_[axis], start = axis == 2 ? first + 1 : first, place = axis == 0 ? z : y;
      const int64_t n = axis == 2 ? c_.nx - 1 : c_.nx;
      if (axis == 2 || place > 0) use(axis, std::false_type{}, start, start - step, start - step, n);
      if (axis == 2 || place + 1 < size_[axis]) use(axis, std::true_type{}, first, first, first + step, n);
    }
  }

  // to[i] += scale * (the value of a field, shifted by `by` cells along each axis) where there is one.
  void add_shifted(const double* from, int64_t z, int64_t y, int64_t dz, int64_t dy, int64_t dx, double scale,
                   double* to) const {
    z += dz, y += dy;
    if (z < 0 || z >= c_.nz || y < 0 || y >= c_.ny) return;
    from += (z * c_.ny + y) * c_.nx + dx;
    const int64_t first = std::max<int64_t>(0, -dx), last = c_.nx - std::max<int64_t>(0, dx);
    for (int64_t i = first; i < last; ++i) to[i] += scale * from[i];
  }
  // The same for a shift by m along one axis and n along another.
  void add_shifted(const double* from, int64_t z, int64_t y, int one, int64_t m, int two, int64_t n, double scale,
                   double* to) const {
    int64_t by[kAxes] = {};
    by[one] += m, by[two] += n;
    add_shifted(from, z, y, by[0], by[1], by[2], scale, to);
  }

  // Gradients of c (times a factor of the cells) through all faces.
  void gradients(const double* c, const double* factor, int threads) {
    for (int axis = 0; axis < kAxes; ++axis)
      if (c_.inverse[axis]) gradient_[axis].resize(cells_);
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t n = upper_count(axis, z, y);
        const double *inverse = c_.inverse[axis] + first, *a = c + first, *b = a + step_[axis];
        double* to = &gradient_[axis][first];
        if (factor) {
          const double *fa = factor + first, *fb = fa + step_[axis];
          for (int64_t i = 0; i < n; ++i) to[i] = inverse[i] * (fb[i] * b[i] - fa[i] * a[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) to[i] = inverse[i] * (b[i] - a[i]);
        }
        std::fill(to + n, to + c_.nx, 0.0);
      }
    });
  }

  // Half sizes of the cells a and b of a row's faces; along x they vary.
  struct Halves {
    const double *a, *b;
    int64_t stride;
  };
  Halves halves(int axis, int64_t z, int64_t y) const {
    const double* half = c_.half[axis] + (axis == 0 ? z : axis == 1 ? y : 0);
    return {half, half + 1, axis == 2 ? 1 : 0};
  }

  // Calls use(i, half size upstream, downstream, gradient upstream) for the faces of a row; scratch [2 nx].
  template <class Use>
  void upstream(int axis, int64_t z, int64_t y, double* scratch, const Use& use) const {
    const int64_t first = (z * c_.ny + y) * c_.nx, n = upper_count(axis, z, y);
    double *behind = scratch, *ahead = scratch + c_.nx;
    std::fill(scratch, scratch + 2 * c_.nx, 0.0);
    if (scheme_ == Advection::tvd) {
      add_shifted(gradient_[axis].data(), z, y, axis, -1, axis, 0, 1.0, behind);
      add_shifted(gradient_[axis].data(), z, y, axis, 1, axis, 0, 1.0, ahead);
    }
    const Halves h = halves(axis, z, y);
    const double* q = c_.faces.flow[axis] + first;
    for (int64_t i = 0; i < n; ++i) {
      const bool forward = q[i] > 0.0;
      const double a = h.a[i * h.stride], b = h.b[i * h.stride];
      use(i, forward ? a : b, forward ? b : a, forward ? behind[i] : ahead[i]);
    }
  }

  // half upstream times the slope of the scheme, for the faces of a row; scratch [2 nx].
  void slopes(int axis, int64_t z, int64_t y, double* to, double* scratch) const {
    const double* g = gradient_[axis].data() + (z * c_.ny + y) * c_.nx;
    if (scheme_ == Advection::tvd)
      upstream(axis, z, y, scratch, [&](int64_t i, double half_up, double half_down, double up) {
        to[i] = half_up * limited(up, g[i], half_up, half_down).value;
      });
    else
      upstream(axis, z, y, scratch, [&](int64_t i, double half_up, double, double) { to[i] = half_up * g[i]; });
  }

  // Mean of the four gradients along t beside the faces of a row across n.
  void mean_of_four(int n, int t, int64_t z, int64_t y, double* to) const {
    std::fill(to, to + c_.nx, 0.0);
    const double* g = gradient_[t].data();
    for (int64_t along : {0, 1})
      for (int64_t back : {0, -1}) add_shifted(g, z, y, n, along, t, back, 0.25, to);
  }

  // phi of a row's faces for faces `by`, from the gradients.
  void flows(const FaceFields& by, int64_t z, int64_t y, double* work) {
    const int64_t first = (z * c_.ny + y) * c_.nx;
    for (int axis = 0; axis < kAxes; ++axis) {
      if (!c_.inverse[axis]) continue;
      double* phi = &phi_[axis][first];
      const int64_t n = upper_count(axis, z, y);
      std::fill(phi, phi + c_.nx, 0.0);
      if (scheme_ != Advection::upwind && by.flow[axis]) {
        const double *flow = c_.faces.flow[axis] + first, *value = by.flow[axis] + first;
        slopes(axis, z, y, work, work + c_.nx);
        for (int64_t i = 0; i < n; ++i) phi[i] = (flow[i] > 0.0 ? value[i] : -value[i]) * work[i];
      }
      for (int pair = 0; pair < kPairs; ++pair) {
        if (kPair[pair][0] != axis || !by.cross[pair]) continue;
        const double* x = by.cross[pair] + first;
        mean_of_four(axis, kPair[pair][1], z, y, work);
        for (int64_t i = 0; i < n; ++i) phi[i] -= x[i] * work[i];
      }
    }
  }

  void divergence(int64_t z, int64_t y, const Buffer<double>* phi, double* out) const {
    faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t, int64_t n) {
      const double* p = phi[axis].data() + owner;
      double* to = out + cell;
      for (int64_t i = 0; i < n; ++i) to[i] += upper ? p[i] : -p[i];
    });
  }

  // dphi/d(gradients) of the scheme.
  void linearise(const double* at, int threads) {
    gradients(at, nullptr, threads);
    for (int axis = 0; axis < kAxes; ++axis)
      if (c_.inverse[axis]) here_[axis].resize(cells_), up_[axis].resize(cells_);
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        double *here = &here_[axis][first], *up = &up_[axis][first];
        const double *q = c_.faces.flow[axis] + first, *g = &gradient_[axis][first];
        std::fill(here, here + c_.nx, 0.0);
        std::fill(up, up + c_.nx, 0.0);
        if (scheme_ == Advection::tvd)
          upstream(axis, z, y, work, [&](int64_t i, double half_up, double half_down, double gu) {
            const Limited s = limited(gu, g[i], half_up, half_down);
            const double size = std::abs(q[i]) * half_up;
            here[i] = size * s.here, up[i] = size * s.up;
          });
        else
          upstream(axis, z, y, work,
                   [&](int64_t i, double half_up, double, double) { here[i] = std::abs(q[i]) * half_up; });
      }
    });
  }

  // to += d(div phi)/dc diag(column) from
  void wide_plain(const double* from, double* to, int threads) {
    gradients(from, column_, threads);
    for (int axis = 0; axis < kAxes; ++axis)
      if (c_.inverse[axis]) phi_[axis].resize(cells_);
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        double* phi = &phi_[axis][first];
        const double *q = c_.faces.flow[axis] + first, *g = &gradient_[axis][first];
        std::fill(phi, phi + c_.nx, 0.0);
        if (scheme_ != Advection::upwind) {
          const double* here = &here_[axis][first];
          for (int64_t i = 0; i < c_.nx; ++i) phi[i] = here[i] * g[i];
        }
        if (scheme_ == Advection::tvd) {
          const double* up = &up_[axis][first];
          double *behind = work, *ahead = work + c_.nx;
          std::fill(work, work + 2 * c_.nx, 0.0);
          add_shifted(gradient_[axis].data(), z, y, axis, -1, axis, 0, 1.0, behind);
          add_shifted(gradient_[axis].data(), z, y, axis, 1, axis, 0, 1.0, ahead);
          for (int64_t i = 0; i < c_.nx; ++i) phi[i] += up[i] * (q[i] > 0.0 ? behind[i] : ahead[i]);
        }
        for (int pair = 0; pair < kPairs; ++pair) {
          if (kPair[pair][0] != axis || !c_.faces.cross[pair]) continue;
          const double* x = c_.faces.cross[pair] + first;
          mean_of_four(axis, kPair[pair][1], z, y, work);
          for (int64_t i = 0; i < c_.nx; ++i) phi[i] -= x[i] * work[i];
        }
      }
    });
    rows(threads, [&](int64_t z, int64_t y, double*) { divergence(z, y, phi_, to); });
  }

  // to += diag(column) (d(div phi)/dc)^T from
  void wide_transposed(const double* from, double* to, int threads) {
    for (int axis = 0; axis < kAxes; ++axis)
      if (c_.inverse[axis]) gradient_[axis].resize(cells_), phi_[axis].resize(cells_);
    for (int pair = 0; pair < kPairs; ++pair)
      if (c_.faces.cross[pair]) pulled_[pair].resize(cells_);
    // of phi: e = from_a - from_b, into phi_; of the means of four gradients: -X e
    rows(threads, [&](int64_t z, int64_t y, double*) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        const int64_t n = upper_count(axis, z, y);
        double* e = &phi_[axis][first];
        const double *a = from + first, *b = a + step_[axis];
        for (int64_t i = 0; i < n; ++i) e[i] = a[i] - b[i];
        std::fill(e + n, e + c_.nx, 0.0);
        for (int pair = 0; pair < kPairs; ++pair) {
          if (kPair[pair][0] != axis || !c_.faces.cross[pair]) continue;
          const double* x = c_.faces.cross[pair] + first;
          double* h = &pulled_[pair][first];
          for (int64_t i = 0; i < c_.nx; ++i) h[i] = -x[i] * e[i];
        }
      }
    });
    // of the gradients: each gathers from the faces whose phi holds it; times 1/distance at once
    rows(threads, [&](int64_t z, int64_t y, double* work) {
      const int64_t first = (z * c_.ny + y) * c_.nx;
      for (int axis = 0; axis < kAxes; ++axis) {
        if (!c_.inverse[axis]) continue;
        std::fill(work, work + c_.nx, 0.0);
        if (scheme_ != Advection::upwind) {
          const double *here = &here_[axis][first], *e = &phi_[axis][first];
          for (int64_t i = 0; i < c_.nx; ++i) work[i] += here[i] * e[i];
        }
        if (scheme_ == Advection::tvd) {
          add_upstream(axis, z, y, 1, work);
          add_upstream(axis, z, y, -1, work);
        }
        for (int pair = 0; pair < kPairs; ++pair) {
          if (kPair[pair][1] != axis || !c_.faces.cross[pair]) continue;
          for (int64_t along : {0, -1})
            for (int64_t back : {0, 1})
              add_shifted(pulled_[pair].data(), z, y, kPair[pair][0], along, axis, back, 0.25, work);
        }
        const double* inverse = c_.inverse[axis] + first;
        double* g = &gradient_[axis][first];
        for (int64_t i = 0; i < c_.nx; ++i) g[i] = inverse[i] * work[i];
      }
    });
    rows(threads, [&](int64_t z, int64_t y, double*) {
      faces_of(z, y, [&](int axis, auto upper, int64_t cell, int64_t owner, int64_t, int64_t n) {
        const double* g = gradient_[axis].data() + owner;
        for (int64_t i = 0; i < n; ++i) {
          const double value = upper ? -g[i] : g[i];
          to[cell + i] += column_ ? column_[cell + i] * value : value;
        }
      });
    });
  }

  // What the next face (by 1) or the one before (by -1) gives to a face that is upstream of it.
  void add_upstream(int axis, int64_t z, int64_t y, int64_t by, double* to) const {
    int64_t dz = axis == 0 ? by : 0, dy = axis == 1 ? by : 0, dx = axis == 2 ? by : 0;
    if (z + dz < 0 || z + dz >= c_.nz || y + dy < 0 || y + dy >= c_.ny) return;
    const int64_t at = ((z + dz) * c_.ny + y + dy) * c_.nx + dx;
    const double *up = up_[axis].data() + at, *e = phi_[axis].data() + at, *q = c_.faces.flow[axis] + at;
    const int64_t first = std::max<int64_t>(0, -dx), last = c_.nx - std::max<int64_t>(0, dx);
    for (int64_t i = first; i < last; ++i) to[i] += (q[i] > 0.0) == (by > 0) ? up[i] * e[i] : 0.0;
  }

  TransportCall c_;
  Advection scheme_ = Advection::upwind;
  bool crossing_ = false, good_ = false;
  int64_t step_[kAxes] = {}, size_[kAxes] = {}, cells_ = 0;
  const double* column_ = nullptr;
  Buffer<double> matrix_, scratch_, gradient_[kAxes], phi_[kAxes], here_[kAxes], up_[kAxes], pulled_[kPairs];
  Factors factors_;
  BiCGStab krylov_;
};

TransportEngine* transport_engine() { return new StencilTransport; }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
