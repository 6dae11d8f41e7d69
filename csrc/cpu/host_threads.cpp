// The GPU's threads run one after another on the CPU: the same headers, memory layout, history and pauses as the CUDA
// kernels, for tests on machines without a GPU. Users run the SIMD engine instead.
#define DGPDE_ISA scalar
#include "../cuda/column_thread.h"

namespace dgpde {

ThreadMemory thread_memory(int64_t nz, bool single) {
  const auto need = [nz](auto real) {
    using V = decltype(real);
    const int64_t bytes = kGroup * static_cast<int64_t>(sizeof(V));
    return ThreadMemory{bytes * Cells<V>::size(nz), bytes * ReplayCells<V>::size(nz),
                        static_cast<int64_t>(sizeof(typename ColumnForward<V>::Rest)),
                        ThreadHistory<V>::row_bytes(nz)};
  };
  return single ? need(0.0f) : need(0.0);
}

namespace host_threads {
namespace {

template <class Thread>
void for_each(const ColumnRun& run, const Thread& thread) {
  for (int64_t i = 0; i < run.count; ++i)
    if (run.single)
      thread(i, 0.0f);
    else
      thread(i, 0.0);
}

}  // namespace

void column_forward(const ColumnRun& run, const ColumnOutput& io) {
  for_each(run, [&](int64_t i, auto real) { forward_thread<decltype(real)>(run, io, i); });
}
void column_adjoint(const ColumnRun& run, const ColumnCotangents& io) {
  for_each(run, [&](int64_t i, auto real) {
    using V = decltype(real);
    replay_thread<ColumnAdjoint<V>, V>(run, io, i);
  });
}
void column_tangent(const ColumnRun& run, const ColumnTangents& io) {
  for_each(run, [&](int64_t i, auto real) {
    using V = decltype(real);
    replay_thread<ColumnTangent<V>, V>(run, io, i);
  });
}

}  // namespace host_threads
}  // namespace dgpde
