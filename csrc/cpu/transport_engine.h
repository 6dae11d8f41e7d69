// The CPU entry point of the transport stencil, one for each instruction set; dispatch.cpp chooses at run time.
#pragma once

#include "../transport_call.h"

namespace dgpde {

namespace engine_generic {
TransportEngine* transport_engine();
}
#if defined(__x86_64__)
namespace engine_avx2 {
TransportEngine* transport_engine();
}
namespace engine_avx512 {
TransportEngine* transport_engine();
}
#endif

}  // namespace dgpde
