// The CPU entry points, one set per instruction set; dispatch.cpp chooses at run time.
#pragma once

#include "../column_problem.h"
#include "history.h"

namespace dgpde {

#define DGPDE_DECLARE_ENGINE(ISA)                                                                            \
  namespace engine_##ISA {                                                                                   \
    void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single, \
                        int threads);                                                                        \
  }
DGPDE_DECLARE_ENGINE(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_ENGINE(avx2)
DGPDE_DECLARE_ENGINE(avx512)
#endif
#undef DGPDE_DECLARE_ENGINE

}  // namespace dgpde
