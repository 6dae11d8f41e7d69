// Column transport as the bindings hand it to the kernels: pointers, strides and options, no ownership of tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "advection.h"
#include "column_problem.h"

namespace dgpde {

enum class Isotherm : int32_t { none = 0, linear = 1, freundlich = 2, langmuir = 3 };
enum class SoluteSide : int32_t { concentration = 0, inflow_concentration = 1, zero_gradient = 2, solute_flux = 3 };

// The differentiable inputs of a solute. A null view is 0 everywhere (of `yield` 1).
enum SoluteSlot {
  kInitial,        // [nz, n] c0, kg/m3
  kDispersivity,   // [nz, n] m
  kDiffusion,      // [nz, n] m2/s: times theta^power the diffusion in the soil
  kDecay,          // [nz, n] 1/s
  kCapacity,       // [nz, n] first parameter of the isotherm of the sorbed mass per volume of soil, m(c):
  kShape,          // [nz, n]   linear a c;  Freundlich a c^b;  Langmuir a c/(1 + b c)
  kSorptionRate,   // [nz, n] 1/s
  kImmobileTheta,  // [nz, n]
  kImmobileRate,   // [nz, n] 1/s
  kYield,          // [nz, n]
  kProduction,     // [T, nz, n] kg m-3 s-1
  kSourceC,        // [T, nz, n] kg/m3
  kTopValue,       // [T, n]
  kBottomValue,    // [T, n]
  kSoluteSlots
};
constexpr int kCellSlots = kYield + 1;  // those of a cell without time

template <class ViewType>
struct SoluteInputs {
  ViewType slot[kSoluteSlots];
};

struct SoluteKind {
  Isotherm isotherm = Isotherm::none;
  bool kinetic = false, immobile = false, uptake = true, evaporates = false;
  double diffusion_power = 1.0;  // of theta
  int32_t parent = -1;
  SoluteSide top = SoluteSide::inflow_concentration, bottom = SoluteSide::inflow_concentration;
};

constexpr int kStates = 3;  // of a cell and solute: x (column_transport/README.md), sorbed kg/m3 soil, immobile kg/m3

struct TransportProblem {
  int64_t n = 0, nz = 0, intervals = 0;
  const double* dz = nullptr;     // [nz] m
  const double* times = nullptr;  // [T + 1] s
  Advection scheme = Advection::upwind;
  bool evaporation = false;  // water that leaves at the top evaporates
  bool single = false;       // the inputs, outputs and their derivatives are float32
  int64_t max_newton = 100;
  double linear_tolerance = 1e-10;
  std::vector<SoluteKind> kinds;
  std::vector<SoluteInputs<View>> in;
  const int32_t* skip = nullptr;  // [n]: not 0 where a column has failed before

  int64_t solutes() const { return static_cast<int64_t>(kinds.size()); }
};

// Contiguous arrays; S solutes. What is void is of the inputs' type.
struct TransportOutput {
  bool start = true;              // begins at c0, else at `state`
  void* state = nullptr;          // [S, kStates, nz, n], left as it is at the end
  void* concentration = nullptr;  // [T, S, nz, n] at the ends of the intervals
  void* top_flux = nullptr;       // [T, S, n]
  void* bottom_flux = nullptr;    // [T, S, n]
  double* mass = nullptr;         // [T + 1, S, 3, n] dissolved, sorbed, immobile
  double* imbalance = nullptr;    // [S, n] kg/m2, added to
  double* moved = nullptr;        // [S, n] kg/m2, added to
  double* failed_time = nullptr;  // [n]
  double* peclet = nullptr;       // [n] largest of the run, added to; central only
  double* courant = nullptr;      // [n]
  int32_t* status = nullptr;      // [n]
  int64_t* iterations = nullptr;  // [n], added to
};

// Cotangents of the outputs (null: zero), gradients of the inputs (null: not asked for; zeros or those of the segments
// after this one, which are added to) and what passes from segment to segment.
struct TransportCotangents {
  const void* concentration = nullptr;  // [T, S, nz, n]
  const void* top_flux = nullptr;       // [T, S, n]
  const void* bottom_flux = nullptr;    // [T, S, n]
  void* carry = nullptr;                // [S, kStates, nz, n] cotangents of c, sorbed and immobile at the start
  std::vector<SoluteInputs<MutableView>> grad;
  bool first = true;          // this segment begins at c0
  int32_t* status = nullptr;  // [n]: 1 where a transposed solve did not meet its tolerance
};

struct TransportTangents {
  std::vector<SoluteInputs<View>> in;
  bool start = true;
  void* state = nullptr;          // [S, kStates, nz, n] tangents of c, of the sorbed mass, of the immobile water's c
  void* concentration = nullptr;  // as TransportOutput
  void* top_flux = nullptr;
  void* bottom_flux = nullptr;
};

}  // namespace dgpde
