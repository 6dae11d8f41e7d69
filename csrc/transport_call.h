// What a solute does between the cells of a field, as the bindings hand it to the CPU engine: pointers, no ownership. The
// equations are in dgpde/kernels/transport_stencil/README.md.
#pragma once

#include <cstdint>

#include "advection.h"
#include "flow_call.h"
#include "linear_call.h"

namespace dgpde {

constexpr int kPairs = 6;  // (axis of a face, axis of a gradient along it), in the order of problem.py

// Fields are [nz, ny, nx], x fastest; a face stands with the cell below, south or west of it. Null along an axis without
// neighbours, and where there are no cross terms.
struct FaceFields {
  const double *flow[kAxes] = {}, *conductance[kAxes] = {}, *cross[kPairs] = {};
};

struct TransportCall {
  int64_t nz = 0, ny = 0, nx = 0;
  int32_t scheme = 0;
  const double *half[kAxes] = {},
               *inverse[kAxes] = {};  // of the cells' sizes [n]; of the distances, 0 without a face
  FaceFields faces;
};

// Dispersion of the faces from the flow; in reverse mode bars in, gradients out.
struct DispersionCall {
  int64_t nz = 0, ny = 0, nx = 0;
  int threads = 1;
  const double *width[kAxes] = {}, *inverse[kAxes] = {};
  const double *flow[kAxes] = {}, *side[kSides] = {};  // m3/s, of sides into the domain; null where nothing flows
  // longitudinal, horizontal, vertical dispersivity, diffusion of the pores; null for 0; stride 0: one value for all cells
  const double* coefficient[4] = {};
  int64_t stride[4] = {};
  double *conductance[kAxes] = {}, *cross[kPairs] = {};
  const double *bar_conductance[kAxes] = {}, *bar_cross[kPairs] = {};
  double *grad_flow[kAxes] = {}, *grad_side[kSides] = {}, *grad_coefficient[4] = {};  // fields [nz, ny, nx]; set
};

// One solute's network in one step, and the systems with its Jacobian; keeps its work vectors from step to step.
class TransportEngine {
 public:
  virtual ~TransportEngine() = default;
  // Pointers must outlive their use.
  virtual void set(const TransportCall& call) = 0;
  // out = N(c) with `by` in the place of the faces, whose signs of the flow hold: N is linear in the faces.
  virtual void apply(const double* c, const FaceFields& by, double* out, int threads) = 0;
  // d/d(faces) of -<multiplier, N(c)>, set; null is left out.
  virtual void pull(const double* multiplier, const double* c, double* const* flow, double* const* conductance,
                    double* const* cross, int threads) = 0;
  // J = diag(diagonal) + dN/dc(at) diag(column), column null for ones; what it points to must outlive the solves.
  virtual void setup(const double* diagonal, const double* column, const double* at, int threads) = 0;
  // The same matrix but for what N is nonlinear in, at another c.
  virtual void linearise(const double* at, int threads) = 0;
  // x holds a first guess or 0.
  virtual LinearReport solve(const double* b, double* x, const LinearOptions& options) = 0;
  virtual int64_t bytes() const = 0;
};

}  // namespace dgpde
