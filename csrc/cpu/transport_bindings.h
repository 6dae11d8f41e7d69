// The transport stencil of the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace dgpde {
void bind_transport(pybind11::module_& m);
}  // namespace dgpde
