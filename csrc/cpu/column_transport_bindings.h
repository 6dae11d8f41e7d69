// Bindings of transport in columns.
#pragma once

#include <pybind11/pybind11.h>

namespace dgpde {
void bind_column_transport(pybind11::module_& m);
}  // namespace dgpde
