// One pass over the 7-point stencil of a field, as the bindings hand it to the CPU kernels: pointers, no ownership.
#pragma once

#include <cstdint>

#include "column_problem.h"

namespace dgpde {

// Sides and axes in the order of dgpde/kernels/flow_stencil/problem.py.
constexpr int kSides = 6;  // bottom, top, south, north, west, east
constexpr int kAxes = 3;   // z, y, x

// Fields are [nz, ny, nx], contiguous, x fastest. A face of cell c along an axis is the one above it (north of it, east
// of it). What is null is absent, or not computed.
struct FlowCall {
  int64_t nz = 0, ny = 0, nx = 0;
  int threads = 1;
  int32_t face_mean = 0;
  double dt = 1.0;
  const double* width[kAxes] = {};  // sizes of the cells along each axis, m
  const double* rise[kAxes] = {};   // of H across the faces at equal psi, m: [nz], [ny, nx], [ny, nx]
  const double* active = nullptr;   // 1, or 0 where a cell takes no part

  // state
  const double *psi = nullptr, *psi_old = nullptr, *theta = nullptr, *theta_old = nullptr;
  const double *capacity = nullptr, *kr = nullptr, *dkr = nullptr;

  // inputs
  const double* face[kAxes] = {};  // T, m2/s; null along an axis without neighbours
  const double* storage = nullptr;
  int64_t storage_stride = 1;  // 0: one value for all cells
  const double* source = nullptr;
  int64_t source_stride[kAxes] = {};
  // what roots take from the cells of the layers from root_layer up, m3/s, and its slope in psi, m2/s
  const double *roots = nullptr, *root_slope = nullptr;
  int64_t root_layer = 0;
  int64_t wells = 0;
  const int64_t* well_cell = nullptr;  // increasing
  const double* well_rate = nullptr;   // m3/s

  int64_t rivers = 0;
  const int64_t* river_cell = nullptr;                               // increasing
  const double *river_head = nullptr, *river_conductance = nullptr;  // psi of equal H, m; m2/s

  // boundary faces: area times the inflow, its slope in psi of the cell (kr included) and its round-off scale
  const double *side_flow[kSides] = {}, *side_slope[kSides] = {}, *side_scale[kSides] = {};
  const double* allowed = nullptr;  // residual times dt that is accepted, m3

  // assembly: F, the Jacobian [7, ...], and for each row [nz, ny]: sum of squares of F, largest |F| beyond what is
  // accepted and round-off, beyond round-off alone, sum of F, sum of the magnitudes of all terms but the flows between cells
  double *residual = nullptr, *matrix = nullptr;
  double* rows[5] = {};

  // reverse mode: the multiplier lambda in, and d/dx of -<lambda, F>; grad_kr, grad_theta, carries are set, others added to
  const double* multiplier = nullptr;
  double *grad_kr = nullptr, *grad_theta = nullptr, *grad_storage = nullptr;
  double* grad_face[kAxes] = {};
  double *carry_theta = nullptr, *carry_psi = nullptr;

  // cotangents of the flows through the faces, m3/s along their axis, besides the multiplier; load is added to
  const double* seed_flow[kAxes] = {};
  double* load = nullptr;

  // flows through the faces, m3/s along their axis, and their tangents; 0 where there is no face
  double *flow[kAxes] = {}, *dot_flow[kAxes] = {};

  // forward mode: tangents in (null: 0), that of F out
  const double *dot_psi = nullptr, *dot_kr = nullptr, *dot_theta = nullptr, *dot_theta_old = nullptr,
               *dot_psi_old = nullptr, *dot_storage = nullptr;
  int64_t dot_storage_stride = 1;
  const double* dot_face[kAxes] = {};
  double* dot_residual = nullptr;
};

// Fluxes through `count` boundary faces of one side, with their derivatives; arrays [count] unless they say otherwise.
struct SideCall {
  int64_t count = 0;
  int32_t kind = 0, face_mean = 0;
  double rise = 0.0, half = 0.0, gravity = 1.0, dt = 1.0;
  const double *elevation = nullptr, *transmissivity = nullptr, *kr_b = nullptr, *psi = nullptr, *kr = nullptr,
               *ponding_old = nullptr;
  const double* value[4] = {};
  const double *share = nullptr, *share_psi = nullptr;  // of the evaporation that the cells let through, its slope
  double *flux = nullptr, *flux_psi = nullptr, *flux_kr = nullptr, *scale = nullptr, *ponding = nullptr,
         *runoff = nullptr;
  double* partials = nullptr;  // [3, kBoundaryInputs, count] of flux, ponding and runoff
};

}  // namespace dgpde
