// The CPU entry points of the transport stencil, one set for each instruction set; dispatch.cpp chooses at run time.
#pragma once

#include "../transport_call.h"

namespace dgpde {

#define DGPDE_DECLARE_TRANSPORT(ISA)                             \
  namespace engine_##ISA {                                       \
    TransportEngine* transport_engine();                         \
    void transport_disperse(const DispersionCall& call);         \
    void transport_disperse_reverse(const DispersionCall& call); \
  }
DGPDE_DECLARE_TRANSPORT(generic)
#if defined(__x86_64__)
DGPDE_DECLARE_TRANSPORT(avx2)
DGPDE_DECLARE_TRANSPORT(avx512)
#endif
#undef DGPDE_DECLARE_TRANSPORT

}  // namespace dgpde
