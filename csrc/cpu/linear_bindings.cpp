// The linear solver for Python: addresses and sizes in, a report out.
#include "linear_bindings.h"

#include <memory>
#include <stdexcept>

#include "../linear_call.h"
#include "dispatch.h"

namespace py = pybind11;

namespace dgpde {
namespace {

const double* source(uintptr_t address) { return reinterpret_cast<const double*>(address); }
double* target(uintptr_t address) { return reinterpret_cast<double*>(address); }

}  // namespace

void bind_linear(py::module_& m) {
  py::class_<StencilData>(m, "StencilData")
      .def(py::init([](uintptr_t coefficients, int64_t nz, int64_t ny, int64_t nx, bool symmetric) {
             if (nz < 1 || ny < 1 || nx < 1) throw std::invalid_argument("nz, ny, nx: must be at least 1");
             return StencilData{source(coefficients), nz, ny, nx, symmetric};
           }),
           py::arg("coefficients"), py::arg("nz"), py::arg("ny"), py::arg("nx"), py::arg("symmetric"));
  py::class_<LinearOptions>(m, "LinearOptions")
      .def(py::init<>())
      .def_readwrite("tolerance", &LinearOptions::tolerance)
      .def_readwrite("max_iterations", &LinearOptions::max_iterations)
      .def_readwrite("transposed", &LinearOptions::transposed)
      .def_readwrite("guess", &LinearOptions::guess)
      .def_readwrite("recall", &LinearOptions::recall)
      .def_readwrite("gamma", &LinearOptions::gamma)
      .def_readwrite("threads", &LinearOptions::threads);
  py::class_<LinearReport>(m, "LinearReport")
      .def_readonly("iterations", &LinearReport::iterations)
      .def_readonly("residual", &LinearReport::residual)
      .def_property_readonly("status", [](const LinearReport& r) { return static_cast<int>(r.status); });
  py::class_<LinearEngine>(m, "LinearEngine")
      .def(py::init([] { return std::unique_ptr<LinearEngine>(linear_engine()); }))
      .def("set_matrix", &LinearEngine::set_matrix, py::arg("matrix"), py::arg("keep"))
      .def("prepare", &LinearEngine::prepare, py::arg("transposed"), py::arg("threads"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "solve",
          [](LinearEngine& engine, uintptr_t b, uintptr_t x, const LinearOptions& options) {
            return engine.solve(source(b), target(x), options);
          },
          py::arg("b"), py::arg("x"), py::arg("options"), py::call_guard<py::gil_scoped_release>())
      .def("levels", &LinearEngine::levels, py::arg("transposed"))
      .def_property_readonly("in_double", &LinearEngine::in_double)
      .def("begin_in_double", &LinearEngine::begin_in_double)
      .def_property_readonly("nbytes", &LinearEngine::bytes);
}

}  // namespace dgpde
