// A column-flow run with one thread a column: what the bindings hand to the GPU, or to its twin on the CPU.
//
// Columns are taken in windows, so that scratch memory is bounded; all memory belongs to the caller. A window of a run
// with history is launched until all its columns are done: the number of steps is not known beforehand, so rows come
// in blocks, a column that has filled its blocks pauses at an accepted state, and the caller grants its group another
// block. No step is lost or taken twice, and memory follows the columns that need it.
#pragma once

#include <cstdint>

#include "../column_problem.h"

namespace dgpde {

constexpr int kGroup = 32;         // neighbouring columns whose numbers stand side by side: a warp
constexpr int kRowsPerBlock = 16;  // history rows that a group is granted at a time
// Most columns in work at once: several times what a large GPU holds in its registers, so that it is busy until the
// end of a launch.
constexpr int64_t kWindow = 1 << 18;

enum ColumnPhase : int32_t { kFresh = 0, kPaused = 1, kDone = 2 };

// Accepted states. Row r of a column (row 0: its initial state) is row r % kRowsPerBlock of its group's block
// r / kRowsPerBlock:   psi [nz][kGroup], ponding [kGroup], dt [kGroup] (double), interval [kGroup] (int64).
struct DeviceHistory {
  const int64_t* blocks = nullptr;   // [most blocks, groups] addresses; null: nothing is recorded
  const int32_t* granted = nullptr;  // [groups] blocks
  int64_t groups = 0;
  int64_t* counts = nullptr;    // [n] rows
  int32_t* complete = nullptr;  // [n] whether the column's last row ends its interval
};

struct ColumnRun {
  ColumnProblem problem;
  DeviceHistory history;
  int64_t first = 0, count = 0;  // the window; first is a multiple of kGroup
  void* scratch = nullptr;       // ThreadMemory bytes of every group of the window
  void* rest = nullptr;          // [count] ThreadMemory::rest bytes: paused runs
  int32_t* phase = nullptr;      // [count] ColumnPhase
  bool single = false;           // float32
  int device = 0;
  uintptr_t stream = 0;
};

struct ThreadMemory {
  int64_t forward_scratch, replay_scratch;  // bytes of a group
  int64_t rest;                             // bytes of a column
  int64_t row;                              // bytes of a history row of a group
};
ThreadMemory thread_memory(int64_t nz, bool single);

#define DGPDE_DECLARE_THREADS                                            \
  void column_forward(const ColumnRun& run, const ColumnOutput& io);     \
  void column_adjoint(const ColumnRun& run, const ColumnCotangents& io); \
  void column_tangent(const ColumnRun& run, const ColumnTangents& io);
namespace cuda_threads {  // asynchronous on run.stream; throw std::runtime_error when CUDA refuses
DGPDE_DECLARE_THREADS
}
namespace host_threads {  // the same code column by column on the CPU, for tests
DGPDE_DECLARE_THREADS
}
#undef DGPDE_DECLARE_THREADS

}  // namespace dgpde
