// The CPU entry points of transport in columns, one set per instruction set.
#pragma once

#include "../column_problem.h"
#include "water_store.h"

namespace dgpde {

// Water that does not change, as arrays, for the rows of some intervals; or its gradients.
struct SteadyWater {
  int64_t n = 0, nz = 0;
  MutableView theta, flux;    // [nz, n], [nz + 1, n]
  std::vector<double> steps;  // s
  std::vector<int64_t> intervals;
};

#define DGPDE_DECLARE_TRANSPORT(ISA)                                                                                \
  namespace engine_##ISA {                                                                                          \
    void column_water(const ColumnProblem& p, ColumnHistory& history, WaterStore& water, int threads);              \
    void water_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, WaterStore& moves, \
                       int threads);                                                                                \
    void steady_water(const SteadyWater& from, WaterStore& water, int threads);                                     \
    void steady_gradients(const SteadyWater& to, WaterStore& bars, int threads);                                    \
    void transport_forward(const TransportProblem& p, WaterStore& water, const TransportOutput& out,                \
                           TransportStore* kept, int threads);                                                      \
    void transport_adjoint(const TransportProblem& p, WaterStore& water, TransportStore& kept,                      \
                           const TransportCotangents& io, WaterStore* bars, bool continuous, int threads);          \
    void transport_tangent(const TransportProblem& p, WaterStore& water, WaterStore* moves, TransportStore& kept,   \
                           const TransportTangents& io, int threads);                                               \
  }
DGPDE_DECLARE_TRANSPORT(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_TRANSPORT(avx2)
DGPDE_DECLARE_TRANSPORT(avx512)
#endif
#undef DGPDE_DECLARE_TRANSPORT

}  // namespace dgpde
