// The adjoint on a GPU: one thread a column.
#include "launch.cuh"

namespace dgpde {
namespace cuda_threads {

template <class V>
__global__ void __launch_bounds__(kBlock)
    adjoint_kernel(const __grid_constant__ ColumnRun run, const __grid_constant__ ColumnCotangents io) {
  replay_thread<ColumnAdjoint<V>, V>(run, io, thread_number());
}

void column_adjoint(const ColumnRun& run, const ColumnCotangents& io) {
  launch(run.single ? adjoint_kernel<float> : adjoint_kernel<double>, run, io);
}

}  // namespace cuda_threads
}  // namespace dgpde
