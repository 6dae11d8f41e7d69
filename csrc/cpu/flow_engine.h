// The CPU entry points of the stencil passes, one set per instruction set; dispatch.cpp chooses at run time.
#pragma once

#include "../flow_call.h"

namespace dgpde {

#define DGPDE_DECLARE_FLOW(ISA)               \
  namespace engine_##ISA {                    \
    void flow_assemble(const FlowCall& call); \
    void flow_reverse(const FlowCall& call);  \
    void flow_forward(const FlowCall& call);  \
    void flow_load(const FlowCall& call);     \
    void flow_faces(const FlowCall& call);    \
    void flow_side(const SideCall& call);     \
  }
DGPDE_DECLARE_FLOW(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_FLOW(avx2)
DGPDE_DECLARE_FLOW(avx512)
#endif
#undef DGPDE_DECLARE_FLOW

}  // namespace dgpde
