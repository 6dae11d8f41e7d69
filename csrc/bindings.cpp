// The Python module dgpde._C: raw pointers, strides and options in, numbers out. It knows nothing of torch; the
// callers in dgpde/kernels keep the tensors alive and have checked their shapes, types and devices.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/column_transport_bindings.h"
#include "cpu/dispatch.h"
#include "cpu/flow_bindings.h"
#include "cpu/linear_bindings.h"
#include "cpu/soil_bindings.h"
#include "cpu/thread_bindings.h"
#include "cpu/transport_bindings.h"

namespace py = pybind11;

namespace {

using dgpde::ColumnCotangents;
using dgpde::ColumnHistory;
using dgpde::ColumnOutput;
using dgpde::ColumnProblem;
using dgpde::ColumnTangents;
using dgpde::MutableView;
using dgpde::View;

template <class ViewType>
ViewType& input_slot(dgpde::ColumnInputs<ViewType>& in, const std::string& name, int slot) {
  if (name == "psi0") return in.psi0;
  if (name == "ponding0") return in.ponding0;
  if (name == "k_sat") return in.k_sat;
  if (name == "specific_storage") return in.specific_storage;
  if (name == "soil" && slot >= 0 && slot < dgpde::kSoilSlots) return in.soil[slot];
  if (name == "weights") return in.weights;
  if (name == "top" && slot >= 0 && slot < dgpde::kTopSlots) return in.top[slot];
  if (name == "bottom" && slot >= 0 && slot < dgpde::kBottomSlots) return in.bottom[slot];
  if (name == "transpiration") return in.transpiration;
  if (name == "root_density") return in.root_density;
  if (name == "response" && slot >= 0 && slot < dgpde::kResponses) return in.response[slot];
  if (name == "feddes" && slot >= 0 && slot < 4) return in.feddes[slot];
  if (name == "omega_c") return in.omega_c;
  if (name == "source") return in.source;
  throw std::invalid_argument("name: no input " + name + "[" + std::to_string(slot) + "]");
}

// The outputs that carry cotangents or tangents.
template <class ViewType, class Struct>
ViewType& output_slot(Struct& s, const std::string& name) {
  if (name == "psi") return s.psi;
  if (name == "ponding") return s.ponding;
  if (name == "top_flux") return s.top_flux;
  if (name == "bottom_flux") return s.bottom_flux;
  if (name == "runoff") return s.runoff;
  if (name == "uptake") return s.uptake;
  throw std::invalid_argument("name: no output " + name);
}

MutableView& carry_slot(ColumnCotangents& c, const std::string& name) {
  if (name == "carry_psi") return c.carry_psi;
  if (name == "carry_theta") return c.carry_theta;
  if (name == "carry_ponding") return c.carry_ponding;
  if (name == "sum_face") return c.sum_face;
  if (name == "sum_storage") return c.sum_storage;
  if (name == "sum_k") return c.sum_k;
  if (name == "sum_soil") return c.sum_soil;
  throw std::invalid_argument("name: no state " + name);
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Accepted steps [s] of one output interval: [most steps of a column, n], zero padded.
py::array_t<double> step_sizes(ColumnHistory& history, int64_t interval) {
  int64_t most = 0;
  std::vector<std::vector<double>> columns(static_cast<size_t>(history.n));
  for (int64_t column = 0; column < history.n; ++column) {
    history.steps_of(column, interval, columns[static_cast<size_t>(column)]);
    most = std::max<int64_t>(most, static_cast<int64_t>(columns[static_cast<size_t>(column)].size()));
  }
  py::array_t<double> table({most, history.n});
  auto out = table.mutable_unchecked<2>();
  for (int64_t column = 0; column < history.n; ++column) {
    const auto& steps = columns[static_cast<size_t>(column)];
    for (int64_t r = 0; r < most; ++r)
      out(r, column) = r < static_cast<int64_t>(steps.size()) ? steps[static_cast<size_t>(r)] : 0.0;
  }
  return table;
}

// What plan() needs to know: bytes of one history row of all columns, rows allocated at a time, scratch of a
// forward run and of a backward one.
py::dict column_memory(int64_t n, int64_t nz, int64_t real_bytes, bool cuda, int threads) {
  const dgpde::MemoryNeed need = dgpde::column_memory(n, nz, real_bytes, cuda, threads);
  py::dict d;
  d["history_row"] = need.history_row;
  d["rows_per_block"] = need.rows_per_block;
  d["work"] = need.work;
  d["replay_work"] = need.replay_work;
  d["lanes"] = need.lanes;
  return d;
}

void bind_problem(py::module_& m) {
  py::class_<ColumnProblem>(m, "ColumnProblem")
      .def(py::init<>())
      .def_readwrite("n", &ColumnProblem::n)
      .def_readwrite("nz", &ColumnProblem::nz)
      .def_readwrite("intervals", &ColumnProblem::intervals)
      .def_readwrite("gravity", &ColumnProblem::gravity)
      .def_readwrite("relation", &ColumnProblem::relation)
      .def_readwrite("variant", &ColumnProblem::variant)
      .def_readwrite("face_mean", &ColumnProblem::face_mean)
      .def_readwrite("top", &ColumnProblem::top)
      .def_readwrite("bottom", &ColumnProblem::bottom)
      .def_readwrite("roots", &ColumnProblem::roots)
      .def_readwrite("sources", &ColumnProblem::sources)
      .def_readwrite("n_classes", &ColumnProblem::n_classes)
      .def_readwrite("n_knots", &ColumnProblem::n_knots)
      .def_readwrite("n_units", &ColumnProblem::n_units)
      .def_readwrite("n_features", &ColumnProblem::n_features)
      .def_readwrite("x_first", &ColumnProblem::x_first)
      .def_readwrite("x_step", &ColumnProblem::x_step)
      .def_readwrite("linear_tolerance", &ColumnProblem::linear_tolerance)
      .def_readwrite("tolerance", &ColumnProblem::tolerance)
      .def_readwrite("dt_min", &ColumnProblem::dt_min)
      .def_readwrite("dt_max", &ColumnProblem::dt_max)
      .def_readwrite("dt_fixed", &ColumnProblem::dt_fixed)
      .def_readwrite("time_error", &ColumnProblem::time_error)
      .def_readwrite("max_newton", &ColumnProblem::max_newton)
      .def_readwrite("max_steps", &ColumnProblem::max_steps)
      .def("set_response",
           [](ColumnProblem& p, int which, int64_t count, double first, double step, double wettest) {
             if (which < 0 || which >= dgpde::kResponses) throw std::invalid_argument("which: no such response");
             p.response[which] = {count, first, step, wettest};
           })
      .def("set_dz", [](ColumnProblem& p, uintptr_t a) { p.dz = pointer<const double>(a); })
      .def("set_times", [](ColumnProblem& p, uintptr_t a) { p.times = pointer<const double>(a); })
      .def("set_skip", [](ColumnProblem& p, uintptr_t a) { p.skip = pointer<const int32_t>(a); })
      .def("set_dt0", [](ColumnProblem& p, uintptr_t a, int64_t n) { p.dt0 = {pointer<const void>(a), 0, 0, n}; })
      .def("set_classes",
           [](ColumnProblem& p, uintptr_t a, int64_t z, int64_t n) { p.classes = {pointer<const void>(a), 0, z, n}; })
      .def("set_input", [](ColumnProblem& p, const std::string& name, int slot, uintptr_t a, int64_t t, int64_t z,
                           int64_t n) { input_slot(p.in, name, slot) = View{pointer<const void>(a), t, z, n}; });

  py::class_<ColumnOutput>(m, "ColumnOutput")
      .def(py::init<>())
      .def("set", [](ColumnOutput& o, const std::string& name, uintptr_t a) {
        if (name == "psi")
          o.psi = pointer<void>(a);
        else if (name == "psi_end")
          o.psi_end = pointer<void>(a);
        else if (name == "ponding")
          o.ponding = pointer<void>(a);
        else if (name == "top_flux")
          o.top_flux = pointer<void>(a);
        else if (name == "bottom_flux")
          o.bottom_flux = pointer<void>(a);
        else if (name == "runoff")
          o.runoff = pointer<void>(a);
        else if (name == "uptake")
          o.uptake = pointer<void>(a);
        else if (name == "save_row")
          o.save_row = pointer<const int64_t>(a);
        else if (name == "status")
          o.status = pointer<int32_t>(a);
        else if (name == "failed_time")
          o.failed_time = pointer<double>(a);
        else if (name == "dt_next")
          o.dt_next = pointer<double>(a);
        else if (name == "mass_error")
          o.mass_error = pointer<double>(a);
        else if (name == "water_moved")
          o.water_moved = pointer<double>(a);
        else if (name == "steps")
          o.steps = pointer<int64_t>(a);
        else if (name == "newton")
          o.newton = pointer<int64_t>(a);
        else if (name == "cuts")
          o.cuts = pointer<int64_t>(a);
        else if (name == "rejections")
          o.rejections = pointer<int64_t>(a);
        else if (name == "restarts")
          o.restarts = pointer<int64_t>(a);
        else
          throw std::invalid_argument("name: no output " + name);
      });

  py::class_<ColumnCotangents>(m, "ColumnCotangents")
      .def(py::init<>())
      .def_readwrite("resume", &ColumnCotangents::resume)
      .def_readwrite("first", &ColumnCotangents::first)
      .def("set_save_row", [](ColumnCotangents& c, uintptr_t a) { c.save_row = pointer<const int64_t>(a); })
      .def("set_status", [](ColumnCotangents& c, uintptr_t a) { c.status = pointer<int32_t>(a); })
      .def("set_cotangent", [](ColumnCotangents& c, const std::string& name, uintptr_t a, int64_t t, int64_t z,
                               int64_t n) { output_slot<View>(c, name) = View{pointer<const void>(a), t, z, n}; })
      .def("set_state", [](ColumnCotangents& c, const std::string& name, uintptr_t a, int64_t t, int64_t z,
                           int64_t n) { carry_slot(c, name) = MutableView{pointer<void>(a), t, z, n}; })
      .def("set_gradient",
           [](ColumnCotangents& c, const std::string& name, int slot, uintptr_t a, int64_t t, int64_t z, int64_t n) {
             input_slot(c.grad, name, slot) = MutableView{pointer<void>(a), t, z, n};
           });

  py::class_<ColumnTangents>(m, "ColumnTangents")
      .def(py::init<>())
      .def_readwrite("start", &ColumnTangents::start)
      .def("set_save_row", [](ColumnTangents& c, uintptr_t a) { c.save_row = pointer<const int64_t>(a); })
      .def("set_state",
           [](ColumnTangents& c, const std::string& name, uintptr_t a, int64_t z, int64_t n) {
             const MutableView v{pointer<void>(a), 0, z, n};
             if (name == "psi")
               c.state_psi = v;
             else if (name == "theta")
               c.state_theta = v;
             else if (name == "ponding")
               c.state_ponding = v;
             else
               throw std::invalid_argument("name: no state " + name);
           })
      .def("set_tangent", [](ColumnTangents& c, const std::string& name, int slot, uintptr_t a, int64_t t, int64_t z,
                             int64_t n) { input_slot(c.in, name, slot) = View{pointer<const void>(a), t, z, n}; })
      .def("set_output",
           [](ColumnTangents& c, const std::string& name, uintptr_t a, int64_t t, int64_t z, int64_t n) {
             output_slot<MutableView>(c, name) = MutableView{pointer<void>(a), t, z, n};
           });

  py::class_<ColumnHistory>(m, "ColumnHistory")
      .def(py::init<>())
      .def_property_readonly("nbytes", &ColumnHistory::bytes)
      .def("step_sizes", &step_sizes, py::arg("interval"));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of dgpde";
  m.attr("TABLE_CHUNKS") = dgpde::kTableChunks;
  m.def("instruction_set", &dgpde::instruction_set);
  m.def("set_instruction_set", &dgpde::set_instruction_set, py::arg("name"));
  m.def("column_memory", &column_memory, py::arg("n"), py::arg("nz"), py::arg("real_bytes"), py::arg("cuda"),
        py::arg("threads"));
  bind_problem(m);
  dgpde::bind_soil(m);
  dgpde::bind_flow(m);
  dgpde::bind_linear(m);
  dgpde::bind_threads(m);
  dgpde::bind_column_transport(m);
  dgpde::bind_transport(m);
  m.def(
      "column_forward",
      [](const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single, int threads) {
        py::gil_scoped_release release;
        dgpde::column_forward(p, out, history, single, threads);
      },
      py::arg("problem"), py::arg("output"), py::arg("history").none(true), py::arg("single"), py::arg("threads"));
  m.def(
      "column_adjoint",
      [](const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, bool single, int threads) {
        py::gil_scoped_release release;
        dgpde::column_adjoint(p, io, history, single, threads);
      },
      py::arg("problem"), py::arg("cotangents"), py::arg("history"), py::arg("single"), py::arg("threads"));
  m.def(
      "column_tangent",
      [](const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, bool single, int threads) {
        py::gil_scoped_release release;
        dgpde::column_tangent(p, io, history, single, threads);
      },
      py::arg("problem"), py::arg("tangents"), py::arg("history"), py::arg("single"), py::arg("threads"));
}
