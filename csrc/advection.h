// How solutes are carried through a face.
#pragma once

#include <cstdint>

namespace dgpde {
enum class Advection : int32_t { upwind, central, tvd };
}  // namespace dgpde
