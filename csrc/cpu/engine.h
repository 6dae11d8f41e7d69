// The CPU entry points, one set per instruction set; dispatch.cpp chooses at run time.
#pragma once

#include "../column_problem.h"
#include "../soil_call.h"
#include "history.h"

namespace dgpde {

class LinearEngine;  // linear_call.h

#define DGPDE_DECLARE_ENGINE(ISA)                                                                                \
  namespace engine_##ISA {                                                                                       \
    void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single,    \
                        int threads);                                                                            \
    void column_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, bool single, \
                        int threads);                                                                            \
    void column_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, bool single,   \
                        int threads);                                                                            \
    void soil_run(const SoilCall& call);                                                                         \
    LinearEngine* linear_engine();                                                                               \
  }
DGPDE_DECLARE_ENGINE(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_ENGINE(avx2)
DGPDE_DECLARE_ENGINE(avx512)
#endif
#undef DGPDE_DECLARE_ENGINE

}  // namespace dgpde
