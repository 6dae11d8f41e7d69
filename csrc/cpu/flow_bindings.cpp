// The stencil passes of the Python module: addresses in, results at the addresses.
#include "flow_bindings.h"

#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace py = pybind11;

namespace dgpde {
namespace {

template <class T>
void point(T*& member, uintptr_t address) {
  member = reinterpret_cast<T*>(address);
}

void check_slot(int slot, int count) {
  if (slot < 0 || slot >= count)
    throw std::invalid_argument("slot: must lie in 0.." + std::to_string(count - 1) + ", got " +
                                std::to_string(slot));
}

#define DGPDE_ARRAY(field) \
  if (name == #field) return point(c.field, address)
#define DGPDE_ARRAYS(field, count)        \
  if (name == #field) {                   \
    check_slot(slot, count);              \
    return point(c.field[slot], address); \
  }

void set_flow(FlowCall& c, const std::string& name, uintptr_t address, int slot) {
  DGPDE_ARRAYS(width, kAxes)
  DGPDE_ARRAYS(rise, kAxes)
  DGPDE_ARRAYS(face, kAxes)
  DGPDE_ARRAYS(side_flow, kSides)
  DGPDE_ARRAYS(side_slope, kSides)
  DGPDE_ARRAYS(side_scale, kSides)
  DGPDE_ARRAYS(rows, 5)
  DGPDE_ARRAYS(grad_face, kAxes)
  DGPDE_ARRAYS(dot_face, kAxes)
  DGPDE_ARRAYS(seed_flow, kAxes)
  DGPDE_ARRAYS(flow, kAxes)
  DGPDE_ARRAYS(dot_flow, kAxes)
  DGPDE_ARRAY(active);
  DGPDE_ARRAY(psi);
  DGPDE_ARRAY(psi_old);
  DGPDE_ARRAY(theta);
  DGPDE_ARRAY(theta_old);
  DGPDE_ARRAY(capacity);
  DGPDE_ARRAY(kr);
  DGPDE_ARRAY(dkr);
  DGPDE_ARRAY(storage);
  DGPDE_ARRAY(source);
  DGPDE_ARRAY(roots);
  DGPDE_ARRAY(root_slope);
  DGPDE_ARRAY(well_cell);
  DGPDE_ARRAY(well_rate);
  DGPDE_ARRAY(river_cell);
  DGPDE_ARRAY(river_head);
  DGPDE_ARRAY(river_conductance);
  DGPDE_ARRAY(allowed);
  DGPDE_ARRAY(residual);
  DGPDE_ARRAY(matrix);
  DGPDE_ARRAY(multiplier);
  DGPDE_ARRAY(grad_kr);
  DGPDE_ARRAY(grad_theta);
  DGPDE_ARRAY(grad_storage);
  DGPDE_ARRAY(carry_theta);
  DGPDE_ARRAY(carry_psi);
  DGPDE_ARRAY(load);
  DGPDE_ARRAY(dot_psi);
  DGPDE_ARRAY(dot_kr);
  DGPDE_ARRAY(dot_theta);
  DGPDE_ARRAY(dot_theta_old);
  DGPDE_ARRAY(dot_psi_old);
  DGPDE_ARRAY(dot_storage);
  DGPDE_ARRAY(dot_residual);
  throw std::invalid_argument("name: no array " + name);
}

void set_side(SideCall& c, const std::string& name, uintptr_t address, int slot) {
  DGPDE_ARRAYS(value, 4)
  DGPDE_ARRAY(share);
  DGPDE_ARRAY(share_psi);
  DGPDE_ARRAY(elevation);
  DGPDE_ARRAY(transmissivity);
  DGPDE_ARRAY(kr_b);
  DGPDE_ARRAY(psi);
  DGPDE_ARRAY(kr);
  DGPDE_ARRAY(ponding_old);
  DGPDE_ARRAY(flux);
  DGPDE_ARRAY(flux_psi);
  DGPDE_ARRAY(flux_kr);
  DGPDE_ARRAY(scale);
  DGPDE_ARRAY(ponding);
  DGPDE_ARRAY(runoff);
  DGPDE_ARRAY(partials);
  throw std::invalid_argument("name: no array " + name);
}

}  // namespace

void bind_flow(py::module_& m) {
  py::class_<FlowCall>(m, "FlowCall")
      .def(py::init<>())
      .def_readwrite("nz", &FlowCall::nz)
      .def_readwrite("ny", &FlowCall::ny)
      .def_readwrite("nx", &FlowCall::nx)
      .def_readwrite("threads", &FlowCall::threads)
      .def_readwrite("face_mean", &FlowCall::face_mean)
      .def_readwrite("dt", &FlowCall::dt)
      .def_readwrite("storage_stride", &FlowCall::storage_stride)
      .def_readwrite("dot_storage_stride", &FlowCall::dot_storage_stride)
      .def_readwrite("root_layer", &FlowCall::root_layer)
      .def_readwrite("wells", &FlowCall::wells)
      .def_readwrite("rivers", &FlowCall::rivers)
      .def("set_source_strides",
           [](FlowCall& c, int64_t z, int64_t y, int64_t x) {
             c.source_stride[0] = z, c.source_stride[1] = y, c.source_stride[2] = x;
           })
      .def("set", &set_flow, py::arg("name"), py::arg("address"), py::arg("slot") = 0);
  py::class_<SideCall>(m, "SideCall")
      .def(py::init<>())
      .def_readwrite("count", &SideCall::count)
      .def_readwrite("kind", &SideCall::kind)
      .def_readwrite("face_mean", &SideCall::face_mean)
      .def_readwrite("rise", &SideCall::rise)
      .def_readwrite("half", &SideCall::half)
      .def_readwrite("gravity", &SideCall::gravity)
      .def_readwrite("dt", &SideCall::dt)
      .def("set", &set_side, py::arg("name"), py::arg("address"), py::arg("slot") = 0);
  const auto pass = [&m](const char* name, void (*run)(const FlowCall&)) {
    m.def(name, [run](const FlowCall& call) {
      py::gil_scoped_release release;
      run(call);
    });
  };
  pass("flow_assemble", &flow_assemble);
  pass("flow_reverse", &flow_reverse);
  pass("flow_forward", &flow_forward);
  pass("flow_load", &flow_load);
  pass("flow_faces", &flow_faces);
  m.def("flow_side", [](const SideCall& call) {
    py::gil_scoped_release release;
    flow_side(call);
  });
}

}  // namespace dgpde
