// Python's view of transport in columns: structs that point to tensors, rows that only C++ reads.
#include "column_transport_bindings.h"

#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace py = pybind11;

namespace dgpde {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

size_t slot_of(const std::string& name) {
  static const char* const names[kSoluteSlots] = {"c0",
                                                  "dispersivity",
                                                  "diffusion",
                                                  "decay",
                                                  "capacity",
                                                  "shape",
                                                  "sorption_rate",
                                                  "immobile_theta",
                                                  "immobile_rate",
                                                  "yield",
                                                  "production",
                                                  "source_c",
                                                  "top",
                                                  "bottom"};
  for (size_t i = 0; i < kSoluteSlots; ++i)
    if (name == names[i]) return i;
  throw std::invalid_argument("name: no input " + name);
}

void check_flow(const TransportWater& water) {
  if (!water.flow) throw std::invalid_argument("water: is no flow run");
}

// Rows of the column that took most steps.
int64_t rows_of(const TransportWater& water) {
  int64_t most = 0;
  check_flow(water);
  for (const PackRows& pack : water.history->packs)
    for (const int64_t count : pack.counts) most = count > most ? count : most;
  return most;
}

// Addresses of arrays by their names in WaterArrays.
WaterArrays arrays_at(const std::map<std::string, uintptr_t>& given) {
  WaterArrays a;
  for (const auto& [name, address] : given) {
    if (name == "theta")
      a.theta = pointer<double>(address);
    else if (name == "flux")
      a.flux = pointer<double>(address);
    else if (name == "taken")
      a.taken = pointer<double>(address);
    else if (name == "elastic")
      a.elastic = pointer<double>(address);
    else if (name == "source")
      a.source = pointer<double>(address);
    else if (name == "before")
      a.before = pointer<double>(address);
    else if (name == "dt")
      a.dt = pointer<double>(address);
    else if (name == "interval")
      a.interval = pointer<int64_t>(address);
    else if (name == "ends")
      a.ends = pointer<int64_t>(address);
    else if (name == "counts")
      a.counts = pointer<int64_t>(address);
    else
      throw std::invalid_argument("arrays: no array " + name);
  }
  return a;
}

void bind_problem(py::module_& m) {
  py::class_<TransportProblem>(m, "TransportProblem")
      .def(py::init<>())
      .def_readwrite("n", &TransportProblem::n)
      .def_readwrite("nz", &TransportProblem::nz)
      .def_readwrite("intervals", &TransportProblem::intervals)
      .def_readwrite("evaporation", &TransportProblem::evaporation)
      .def_readwrite("single", &TransportProblem::single)
      .def_readwrite("max_newton", &TransportProblem::max_newton)
      .def_readwrite("linear_tolerance", &TransportProblem::linear_tolerance)
      .def("set_scheme", [](TransportProblem& p, int scheme) { p.scheme = static_cast<Advection>(scheme); })
      .def("set_dz", [](TransportProblem& p, uintptr_t a) { p.dz = pointer<const double>(a); })
      .def("set_times", [](TransportProblem& p, uintptr_t a) { p.times = pointer<const double>(a); })
      .def("set_skip", [](TransportProblem& p, uintptr_t a) { p.skip = pointer<const int32_t>(a); })
      .def("add_solute",
           [](TransportProblem& p, int isotherm, bool kinetic, bool immobile, bool uptake, bool evaporates,
              double diffusion_power, int parent, int top, int bottom) {
             p.kinds.push_back({static_cast<Isotherm>(isotherm), kinetic, immobile, uptake, evaporates,
                                diffusion_power, parent, static_cast<SoluteSide>(top),
                                static_cast<SoluteSide>(bottom)});
             p.in.emplace_back();
           })
      .def("set_input",
           [](TransportProblem& p, size_t solute, const std::string& name, uintptr_t a, int64_t t, int64_t z,
              int64_t n) { p.in.at(solute).slot[slot_of(name)] = View{pointer<const void>(a), t, z, n}; });
}

void bind_results(py::module_& m) {
  py::class_<TransportOutput>(m, "TransportOutput")
      .def(py::init<>())
      .def_readwrite("start", &TransportOutput::start)
      .def("set", [](TransportOutput& o, const std::string& name, uintptr_t a) {
        if (name == "state")
          o.state = pointer<void>(a);
        else if (name == "concentration")
          o.concentration = pointer<void>(a);
        else if (name == "top_flux")
          o.top_flux = pointer<void>(a);
        else if (name == "bottom_flux")
          o.bottom_flux = pointer<void>(a);
        else if (name == "mass")
          o.mass = pointer<double>(a);
        else if (name == "imbalance")
          o.imbalance = pointer<double>(a);
        else if (name == "moved")
          o.moved = pointer<double>(a);
        else if (name == "failed_time")
          o.failed_time = pointer<double>(a);
        else if (name == "peclet")
          o.peclet = pointer<double>(a);
        else if (name == "courant")
          o.courant = pointer<double>(a);
        else if (name == "status")
          o.status = pointer<int32_t>(a);
        else if (name == "iterations")
          o.iterations = pointer<int64_t>(a);
        else
          throw std::invalid_argument("name: no output " + name);
      });

  py::class_<TransportCotangents>(m, "TransportCotangents")
      .def(py::init<>())
      .def_readwrite("first", &TransportCotangents::first)
      .def("set",
           [](TransportCotangents& c, const std::string& name, uintptr_t a) {
             if (name == "concentration")
               c.concentration = pointer<const void>(a);
             else if (name == "top_flux")
               c.top_flux = pointer<const void>(a);
             else if (name == "bottom_flux")
               c.bottom_flux = pointer<const void>(a);
             else if (name == "carry")
               c.carry = pointer<void>(a);
             else if (name == "status")
               c.status = pointer<int32_t>(a);
             else
               throw std::invalid_argument("name: no cotangent " + name);
           })
      .def("set_solutes", [](TransportCotangents& c, size_t count) { c.grad.resize(count); })
      .def("set_gradient",
           [](TransportCotangents& c, size_t solute, const std::string& name, uintptr_t a, int64_t t, int64_t z,
              int64_t n) { c.grad.at(solute).slot[slot_of(name)] = MutableView{pointer<void>(a), t, z, n}; });

  py::class_<TransportTangents>(m, "TransportTangents")
      .def(py::init<>())
      .def_readwrite("start", &TransportTangents::start)
      .def("set",
           [](TransportTangents& c, const std::string& name, uintptr_t a) {
             if (name == "state")
               c.state = pointer<void>(a);
             else if (name == "concentration")
               c.concentration = pointer<void>(a);
             else if (name == "top_flux")
               c.top_flux = pointer<void>(a);
             else if (name == "bottom_flux")
               c.bottom_flux = pointer<void>(a);
             else
               throw std::invalid_argument("name: no tangent " + name);
           })
      .def("set_solutes", [](TransportTangents& c, size_t count) { c.in.resize(count); })
      .def("set_tangent",
           [](TransportTangents& c, size_t solute, const std::string& name, uintptr_t a, int64_t t, int64_t z,
              int64_t n) { c.in.at(solute).slot[slot_of(name)] = View{pointer<const void>(a), t, z, n}; });
}

void bind_water(py::module_& m) {
  py::class_<TransportStore>(m, "TransportRows")
      .def(py::init<>())
      .def_property_readonly("nbytes", &TransportStore::bytes);
  py::class_<TransportWater>(m, "TransportWater")
      .def(py::init<>())
      .def("set_flow", [](TransportWater& w, const ColumnProblem& flow, ColumnHistory& history,
                          bool elastic) { w.flow = &flow, w.history = &history, w.elastic = elastic; })
      .def("set_cotangents", [](TransportWater& w, const ColumnCotangents& io) { w.cotangents = &io; })
      .def("set_tangents", [](TransportWater& w, const ColumnTangents& io) { w.tangents = &io; })
      .def_readwrite("n", &TransportWater::n)
      .def_readwrite("nz", &TransportWater::nz)
      .def_readwrite("steps", &TransportWater::steps)
      .def_readwrite("intervals", &TransportWater::intervals)
      .def("set_steady",
           [](TransportWater& w, const std::string& name, uintptr_t a, int64_t z, int64_t n) {
             const View view{pointer<const void>(a), 0, z, n};
             if (name == "theta")
               w.theta = view;
             else if (name == "flux")
               w.flux = view;
             else if (name == "theta_moves")
               w.theta_moves = view;
             else if (name == "flux_moves")
               w.flux_moves = view;
             else
               throw std::invalid_argument("name: no steady water " + name);
           })
      .def_property_readonly("rows", &rows_of)
      .def("set_sums", [](TransportWater& w, uintptr_t theta, uintptr_t before, uintptr_t flux, uintptr_t lack) {
        w.theta_sum = pointer<void>(theta), w.before_sum = pointer<void>(before);
        w.flux_sum = pointer<void>(flux), w.lack_sum = pointer<void>(lack);
      });
}

}  // namespace

void bind_column_transport(py::module_& m) {
  bind_problem(m);
  bind_results(m);
  bind_water(m);
  const auto free_gil = py::call_guard<py::gil_scoped_release>();
  m.def("transport_forward", &transport_forward, py::arg("problem"), py::arg("water"), py::arg("output"),
        py::arg("kept").none(true), py::arg("threads"), free_gil);
  m.def("transport_adjoint", &transport_adjoint, py::arg("problem"), py::arg("water"), py::arg("kept"),
        py::arg("cotangents"), py::arg("threads"), free_gil);
  m.def("transport_tangent", &transport_tangent, py::arg("problem"), py::arg("water"), py::arg("kept"),
        py::arg("tangents"), py::arg("threads"), free_gil);
  m.def(
      "water_arrays",
      [](const TransportWater& water, const std::map<std::string, uintptr_t>& arrays, bool moves, int threads) {
        check_flow(water);
        water_arrays(water, arrays_at(arrays), moves, threads);
      },
      py::arg("water"), py::arg("arrays"), py::arg("moves"), py::arg("threads"), free_gil);
  m.def(
      "water_cotangents",
      [](const TransportWater& water, const std::map<std::string, uintptr_t>& arrays, int threads) {
        check_flow(water);
        if (!water.cotangents) throw std::invalid_argument("water: the flow takes no cotangents");
        water_cotangents(water, arrays_at(arrays), threads);
      },
      py::arg("water"), py::arg("arrays"), py::arg("threads"), free_gil);
}

}  // namespace dgpde
