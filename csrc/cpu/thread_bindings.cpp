// Runs with one thread a column, for Python: on the GPU where CUDA was built, and their twins on the CPU.
#include "thread_bindings.h"

#include "../cuda/column_run.h"

namespace py = pybind11;

namespace dgpde {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

py::dict memory_of(int64_t nz, bool single) {
  const ThreadMemory need = thread_memory(nz, single);
  py::dict d;
  d["forward_scratch"] = need.forward_scratch;
  d["replay_scratch"] = need.replay_scratch;
  d["rest"] = need.rest;
  d["row"] = need.row;
  return d;
}

template <class Io>
void bind_call(py::module_& m, const char* name, void (*call)(const ColumnRun&, const Io&)) {
  m.def(
      name,
      [call](const ColumnRun& run, const Io& io) {
        py::gil_scoped_release release;
        call(run, io);
      },
      py::arg("run"), py::arg("io"));
}

}  // namespace

void bind_threads(py::module_& m) {
#ifdef DGPDE_CUDA
  m.attr("cuda") = true;
#else
  m.attr("cuda") = false;
#endif
  m.attr("GROUP") = kGroup;
  m.attr("ROWS_PER_BLOCK") = kRowsPerBlock;
  m.attr("WINDOW") = kWindow;
  m.attr("PAUSED") = static_cast<int32_t>(kPaused);
  m.def("thread_memory", &memory_of, py::arg("nz"), py::arg("single"));
  py::class_<ColumnRun>(m, "ColumnRun")
      .def(py::init([](const ColumnProblem& problem, bool single) {
             ColumnRun run;
             run.problem = problem;
             run.single = single;
             return run;
           }),
           py::arg("problem"), py::arg("single"))
      .def_readwrite("first", &ColumnRun::first)
      .def_readwrite("count", &ColumnRun::count)
      .def_readwrite("device", &ColumnRun::device)
      .def_readwrite("stream", &ColumnRun::stream)
      .def("set_scratch", [](ColumnRun& run, uintptr_t a) { run.scratch = pointer<void>(a); })
      .def("set_rest", [](ColumnRun& run, uintptr_t a) { run.rest = pointer<void>(a); })
      .def("set_phase", [](ColumnRun& run, uintptr_t a) { run.phase = pointer<int32_t>(a); })
      .def(
          "set_history",
          [](ColumnRun& run, uintptr_t blocks, uintptr_t granted, int64_t groups, uintptr_t counts,
             uintptr_t complete) {
            run.history = {pointer<const int64_t>(blocks), pointer<const int32_t>(granted), groups,
                           pointer<int64_t>(counts), pointer<int32_t>(complete)};
          },
          py::arg("blocks"), py::arg("granted"), py::arg("groups"), py::arg("counts"), py::arg("complete"));
  bind_call(m, "host_forward", &host_threads::column_forward);
  bind_call(m, "host_adjoint", &host_threads::column_adjoint);
  bind_call(m, "host_tangent", &host_threads::column_tangent);
#ifdef DGPDE_CUDA
  bind_call(m, "cuda_forward", &cuda_threads::column_forward);
  bind_call(m, "cuda_adjoint", &cuda_threads::column_adjoint);
  bind_call(m, "cuda_tangent", &cuda_threads::column_tangent);
#endif
}

}  // namespace dgpde
