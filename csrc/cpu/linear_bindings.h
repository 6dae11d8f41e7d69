#pragma once

#include <pybind11/pybind11.h>

namespace dgpde {

void bind_linear(pybind11::module_& m);

}  // namespace dgpde
