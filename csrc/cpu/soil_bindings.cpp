// soil_run of the Python module: a dictionary of pointers in, results at the pointers out.
#include "soil_bindings.h"

#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace py = pybind11;

namespace dgpde {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

void set_slot(SoilCall& c, const std::string& name, int slot, uintptr_t address, int64_t stride) {
  if (slot < 0 || slot >= 8) throw std::invalid_argument("slot: must lie in 0..7, got " + std::to_string(slot));
  if (name == "raw") {
    c.raw[slot] = pointer(address);
    c.raw_stride[slot] = stride;
  } else if (name == "dot_raw") {
    c.dot_raw[slot] = pointer(address);
    c.dot_stride[slot] = stride;
  } else {
    throw std::invalid_argument("name: must be raw or dot_raw, got " + name);
  }
}

void set_array(SoilCall& c, const std::string& name, uintptr_t address) {
  void* p = pointer(address);
  if (name == "psi")
    c.psi = p;
  else if (name == "table")
    c.table = p;
  else if (name == "weights")
    c.weights = p;
  else if (name == "dot_weights")
    c.dot_weights = p;
  else if (name == "grad_weights")
    c.grad_weights = p;
  else if (name == "theta")
    c.theta = p;
  else if (name == "kr")
    c.kr = p;
  else if (name == "capacity")
    c.capacity = p;
  else if (name == "dkr")
    c.dkr = p;
  else if (name == "partial_theta")
    c.partial_theta = p;
  else if (name == "partial_kr")
    c.partial_kr = p;
  else if (name == "wet_suction")
    c.wet_suction = p;
  else if (name == "grad_theta")
    c.grad_theta = p;
  else if (name == "grad_kr")
    c.grad_kr = p;
  else if (name == "grad_psi")
    c.grad_psi = p;
  else if (name == "grad_raw")
    c.grad_raw = p;
  else if (name == "grad_table")
    c.grad_table = p;
  else if (name == "dot_psi")
    c.dot_psi = p;
  else if (name == "dot_table")
    c.dot_table = p;
  else if (name == "dot_theta")
    c.dot_theta = p;
  else if (name == "dot_kr")
    c.dot_kr = p;
  else
    throw std::invalid_argument("name: no array " + name);
}

}  // namespace

void bind_soil(py::module_& m) {
  py::class_<SoilCall>(m, "SoilCall")
      .def(py::init<>())
      .def_readwrite("relation", &SoilCall::relation)
      .def_readwrite("variant", &SoilCall::variant)
      .def_readwrite("single", &SoilCall::single)
      .def_readwrite("threads", &SoilCall::threads)
      .def_readwrite("batch", &SoilCall::batch)
      .def_readwrite("cells", &SoilCall::cells)
      .def_readwrite("n_classes", &SoilCall::n_classes)
      .def_readwrite("n_knots", &SoilCall::n_knots)
      .def_readwrite("n_units", &SoilCall::n_units)
      .def_readwrite("n_features", &SoilCall::n_features)
      .def_readwrite("x_first", &SoilCall::x_first)
      .def_readwrite("x_step", &SoilCall::x_step)
      .def("set", &set_array, py::arg("name"), py::arg("address"))
      .def("set_slot", &set_slot, py::arg("name"), py::arg("slot"), py::arg("address"), py::arg("stride"))
      .def("set_classes", [](SoilCall& c, uintptr_t address, int64_t stride) {
        c.classes = static_cast<const int32_t*>(pointer(address));
        c.classes_stride = stride;
      });
  m.attr("WEIGHT_CHUNKS") = kWeightChunks;
  m.def("soil_run", [](const SoilCall& call) {
    py::gil_scoped_release release;
    soil_run(call);
  });
}

}  // namespace dgpde
