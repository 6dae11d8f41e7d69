// The column-flow problem as the bindings hand it to every backend: pointers, strides and options, no ownership.
// Strides are in elements; a stride of 0 repeats a value, so broadcast inputs are never copied.
#pragma once

#include <cstdint>

namespace dgpde {

struct View {
  const void* data = nullptr;
  int64_t t = 0, z = 0, n = 0;  // strides: output interval, cell, column
};

struct MutableView {
  void* data = nullptr;
  int64_t t = 0, z = 0, n = 0;
};

enum class FaceMean : int32_t { arithmetic = 0, upstream = 1, geometric = 2, harmonic = 3 };

enum class Boundary : int32_t {
  head = 0,
  flux = 1,
  free_drainage = 2,
  seepage_face = 3,
  general_head = 4,
  deep_water_table = 5,
  atmosphere = 6,
};

constexpr int kSoilSlots = 8;
constexpr int kTableChunks = 32;  // copies of a table's gradient that are summed at the end
constexpr int kTopSlots = 4;
constexpr int kBottomSlots = 3;

// What may have a tabulated response to the pressure head, and its knots at equal distances of x = ln(-psi).
enum Respond : int { kRoots = 0, kEvaporation = 1 };
constexpr int kResponses = 2;
struct ResponseKnots {
  int64_t count = 0;                              // 0: no table
  double first = 0.0, step = 1.0, wettest = 1.0;  // x of the first, spacing, suction at the first [m]
};

// The differentiable inputs. The same struct holds their values (View), their gradients and their tangents.
template <class ViewType>
struct ColumnInputs {
  ViewType psi0;              // [nz, n] m
  ViewType ponding0;          // [n] m
  ViewType k_sat;             // [nz, n] m/s
  ViewType specific_storage;  // [nz, n] 1/m
  ViewType soil[kSoilSlots];  // [nz, n]; for tabulated soils soil[0] is the table [classes, knots, 4]
  ViewType weights;           // of a network [2, units, 3 + features]; their gradients [weights, n] per column
  ViewType top[kTopSlots];    // [T, n]
  ViewType bottom[kBottomSlots];
  ViewType transpiration;         // [T, n] m/s
  ViewType root_density;          // [T, nz, n] 1/m
  ViewType feddes[4];             // [T, n] m: h1 > h2 > h3 > h4
  ViewType response[kResponses];  // [n][knots, 2] (math/response_table.h); that of roots in place of Feddes
  ViewType omega_c;               // [n]
  ViewType source;                // [T, nz, n] 1/s
};

struct ColumnProblem {
  int64_t n = 0, nz = 0, intervals = 0;
  const double* dz = nullptr;     // [nz] m
  const double* times = nullptr;  // [T + 1] s
  double gravity = 1.0;           // cosine of the angle between the column and the vertical
  int32_t relation = 0, variant = 0, face_mean = 0, top = 1, bottom = 1;
  bool roots = false, sources = false;
  ColumnInputs<View> in;
  View dt0;                       // [n] s, the first step to try
  const int32_t* skip = nullptr;  // [n]: not 0 where a column has failed before and is not run

  // tabulated soils: class of each cell, table geometry in x = ln(-psi)
  View classes;  // int32 [nz, n]
  int64_t n_classes = 0, n_knots = 0;
  double x_first = 0.0, x_step = 1.0;

  int64_t n_units = 0, n_features = 0;  // of a network

  ResponseKnots response[kResponses];

  // options
  double linear_tolerance = 1e-10;
  double tolerance = 1e-10, dt_min = 1e-6, dt_max = 86400.0, dt_fixed = 0.0, time_error = 0.0;
  int64_t max_newton = 20, max_steps = 1000000;
};

// Results: psi [rows, nz, n] at the saved times, series [T, n] (ponding [T + 1, n]), per-column counters [n].
struct ColumnOutput {
  void* psi = nullptr;
  const int64_t* save_row = nullptr;  // [T + 1]: row of psi for each time, or -1
  void *ponding = nullptr, *top_flux = nullptr, *bottom_flux = nullptr, *runoff = nullptr, *uptake = nullptr;
  void* psi_end = nullptr;  // [nz, n] the state after the last interval
  double *dt_next = nullptr, *failed_time = nullptr, *mass_error = nullptr, *water_moved = nullptr;
  int32_t* status = nullptr;
  int64_t *steps = nullptr, *newton = nullptr, *cuts = nullptr, *rejections = nullptr, *restarts = nullptr;
};

// What the adjoint of a run (or of a segment of it) reads and writes. Cotangents of the outputs have the shapes of
// ColumnOutput; a null pointer is a zero cotangent. Segments are processed from the last to the first; what passes
// from one to the next stands in the carry and sum arrays, so that any number of segments gives the same bits.
struct ColumnCotangents {
  View psi, ponding, top_flux, bottom_flux, runoff, uptake;
  const int64_t* save_row = nullptr;
  MutableView carry_psi, carry_theta, carry_ponding;  // [nz, n], [nz, n], [n]; null where there is one segment
  MutableView sum_face, sum_storage, sum_k;           // [nz, n]
  MutableView sum_soil;                               // [slots, nz, n]
  ColumnInputs<MutableView> grad;                     // null where no gradient is asked for
  bool resume = false;                                // a later segment has been processed already
  bool first = true;                                  // this segment holds the first step
  int32_t* status = nullptr;                          // [n]: 1 where a transposed solve did not meet its tolerance
};

// Tangents of the inputs (null: zero) and, filled by the tangent run, of the outputs.
struct ColumnTangents {
  ColumnInputs<View> in;
  MutableView state_psi, state_theta, state_ponding;  // of the state at the start of the segment, then at its end
  bool start = true;                                  // the segment starts at psi0
  MutableView psi, ponding, top_flux, bottom_flux, runoff, uptake;
  const int64_t* save_row = nullptr;
};

}  // namespace dgpde
