// The CPU entry points of transport in columns, one set per instruction set.
#pragma once

#include "../column_problem.h"
#include "water_store.h"

namespace dgpde {

// The water of some intervals, as a pack of columns finds it: the accepted steps of a column-flow run, or arrays of what
// does not change; and what is asked of it beside. Its rows are made pack by pack and never stand in memory for all.
struct TransportWater {
  const ColumnProblem* flow = nullptr;  // null: steady water
  ColumnHistory* history = nullptr;
  bool elastic = false;                          // whether the flow stores water elastically
  const ColumnCotangents* cotangents = nullptr;  // adjoint: what the flow's takes and gives; null where nobody asks
  const ColumnTangents* tangents = nullptr;      // tangent run: likewise

  int64_t n = 0, nz = 0;
  View theta, flux;              // [nz, n], [nz + 1, n]
  View theta_moves, flux_moves;  // tangent run: their tangents; null where they do not move
  std::vector<double> steps;     // s
  std::vector<int64_t> intervals;
  // adjoint: sums over all segments [.., n], added to; null where nobody asks (before_sum alone: theta's gradient). The gradient of theta is theta_sum +
  // before_sum; of the flux flux_sum and, above and below each cell, what the balance of the fluxes lacks
  void *theta_sum = nullptr, *before_sum = nullptr, *flux_sum = nullptr, *lack_sum = nullptr;
};

// The water of a flow run as arrays [rows][cells][n], fluxes [rows][cells + 1][n]; dt, interval and whether a step ends
// its interval [rows][n]; rows of each column [n]. Row r is the r-th step of every column, row 0 only theta; behind a
// column's last row nothing is written. `before` is for cotangents, of theta at the beginning of the step.
struct WaterArrays {
  double *theta = nullptr, *flux = nullptr, *taken = nullptr, *elastic = nullptr, *source = nullptr,
         *before = nullptr;
  double* dt = nullptr;
  int64_t *interval = nullptr, *ends = nullptr, *counts = nullptr;
};

#define DGPDE_DECLARE_TRANSPORT(ISA)                                                                           \
  namespace engine_##ISA {                                                                                     \
    void transport_forward(const TransportProblem& p, const TransportWater& water, const TransportOutput& out, \
                           TransportStore* kept, int threads);                                                 \
    void transport_adjoint(const TransportProblem& p, const TransportWater& water, TransportStore& kept,       \
                           const TransportCotangents& io, int threads);                                        \
    void transport_tangent(const TransportProblem& p, const TransportWater& water, TransportStore& kept,       \
                           const TransportTangents& io, int threads);                                          \
    void water_arrays(const TransportWater& water, const WaterArrays& a, bool moves, int threads);             \
    void water_cotangents(const TransportWater& water, const WaterArrays& a, int threads);                     \
  }
DGPDE_DECLARE_TRANSPORT(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_TRANSPORT(avx2)
DGPDE_DECLARE_TRANSPORT(avx512)
#endif
#undef DGPDE_DECLARE_TRANSPORT

}  // namespace dgpde
