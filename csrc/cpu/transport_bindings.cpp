// The transport stencil for Python: addresses in, results at the addresses.
#include "transport_bindings.h"

#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "dispatch.h"

namespace py = pybind11;

namespace dgpde {
namespace {

using Axes = std::array<uintptr_t, kAxes>;
using Pairs = std::array<uintptr_t, kPairs>;

FaceFields fields(const Axes& flow, const Axes& conductance, const Pairs& cross) {
  FaceFields f;
  for (int k = 0; k < kAxes; ++k) {
    f.flow[k] = reinterpret_cast<const double*>(flow[k]);
    f.conductance[k] = reinterpret_cast<const double*>(conductance[k]);
  }
  for (int k = 0; k < kPairs; ++k) f.cross[k] = reinterpret_cast<const double*>(cross[k]);
  return f;
}
const double* source(uintptr_t address) { return reinterpret_cast<const double*>(address); }
double* target(uintptr_t address) { return reinterpret_cast<double*>(address); }

#define DGPDE_ARRAYS(field, count)                                                               \
  if (name == #field) {                                                                          \
    if (slot < 0 || slot >= count) throw std::invalid_argument("slot: out of range of " + name); \
    c.field[slot] = reinterpret_cast<std::remove_reference_t<decltype(c.field[0])>>(address);    \
    return;                                                                                      \
  }

void set_dispersion(DispersionCall& c, const std::string& name, uintptr_t address, int slot) {
  DGPDE_ARRAYS(width, kAxes)
  DGPDE_ARRAYS(inverse, kAxes)
  DGPDE_ARRAYS(flow, kAxes)
  DGPDE_ARRAYS(side, kSides)
  DGPDE_ARRAYS(coefficient, 4)
  DGPDE_ARRAYS(conductance, kAxes)
  DGPDE_ARRAYS(cross, kPairs)
  DGPDE_ARRAYS(bar_conductance, kAxes)
  DGPDE_ARRAYS(bar_cross, kPairs)
  DGPDE_ARRAYS(grad_flow, kAxes)
  DGPDE_ARRAYS(grad_side, kSides)
  DGPDE_ARRAYS(grad_coefficient, 4)
  throw std::invalid_argument("name: no array " + name);
}

}  // namespace

void bind_transport(py::module_& m) {
  py::class_<DispersionCall>(m, "DispersionCall")
      .def(py::init([](std::array<int64_t, 3> shape, int threads, std::array<int64_t, 4> strides) {
             DispersionCall call;
             call.nz = shape[0], call.ny = shape[1], call.nx = shape[2], call.threads = threads;
             for (int k = 0; k < 4; ++k) call.stride[k] = strides[k];
             return call;
           }),
           py::arg("shape"), py::arg("threads"), py::arg("strides"))
      .def("set", &set_dispersion, py::arg("name"), py::arg("address"), py::arg("slot") = 0);
  m.def("transport_disperse", [](const DispersionCall& call) {
    py::gil_scoped_release release;
    transport_disperse(call);
  });
  m.def("transport_disperse_reverse", [](const DispersionCall& call) {
    py::gil_scoped_release release;
    transport_disperse_reverse(call);
  });
  py::class_<TransportEngine>(m, "TransportEngine")
      .def(py::init([] { return std::unique_ptr<TransportEngine>(transport_engine()); }))
      .def(
          "set",
          [](TransportEngine& engine, std::array<int64_t, 3> shape, int scheme, const Axes& half, const Axes& inverse,
             const Axes& flow, const Axes& conductance, const Pairs& cross) {
            TransportCall call;
            call.nz = shape[0], call.ny = shape[1], call.nx = shape[2], call.scheme = scheme;
            for (int k = 0; k < kAxes; ++k) call.half[k] = source(half[k]), call.inverse[k] = source(inverse[k]);
            call.faces = fields(flow, conductance, cross);
            engine.set(call);
          },
          py::arg("shape"), py::arg("scheme"), py::arg("half"), py::arg("inverse"), py::arg("flow"),
          py::arg("conductance"), py::arg("cross"))
      .def(
          "apply",
          [](TransportEngine& engine, uintptr_t c, const Axes& flow, const Axes& conductance, const Pairs& cross,
             uintptr_t out, int threads) {
            py::gil_scoped_release release;
            engine.apply(source(c), fields(flow, conductance, cross), target(out), threads);
          },
          py::arg("c"), py::arg("flow"), py::arg("conductance"), py::arg("cross"), py::arg("out"), py::arg("threads"))
      .def(
          "pull",
          [](TransportEngine& engine, uintptr_t multiplier, uintptr_t c, const Axes& flow, const Axes& conductance,
             const Pairs& cross, int threads) {
            double *to_flow[kAxes], *to_conductance[kAxes], *to_cross[kPairs];
            for (int k = 0; k < kAxes; ++k) to_flow[k] = target(flow[k]), to_conductance[k] = target(conductance[k]);
            for (int k = 0; k < kPairs; ++k) to_cross[k] = target(cross[k]);
            py::gil_scoped_release release;
            engine.pull(source(multiplier), source(c), to_flow, to_conductance, to_cross, threads);
          },
          py::arg("multiplier"), py::arg("c"), py::arg("flow"), py::arg("conductance"), py::arg("cross"),
          py::arg("threads"))
      .def(
          "setup",
          [](TransportEngine& engine, uintptr_t diagonal, uintptr_t column, uintptr_t at, int threads) {
            py::gil_scoped_release release;
            engine.setup(source(diagonal), source(column), source(at), threads);
          },
          py::arg("diagonal"), py::arg("column"), py::arg("at"), py::arg("threads"))
      .def(
          "linearise",
          [](TransportEngine& engine, uintptr_t at, int threads) {
            py::gil_scoped_release release;
            engine.linearise(source(at), threads);
          },
          py::arg("at"), py::arg("threads"))
      .def(
          "solve",
          [](TransportEngine& engine, uintptr_t b, uintptr_t x, const LinearOptions& options) {
            return engine.solve(source(b), target(x), options);
          },
          py::arg("b"), py::arg("x"), py::arg("options"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("nbytes", &TransportEngine::bytes);
}

}  // namespace dgpde
