// Forward runs on a GPU: one thread a column.
#include "launch.cuh"

namespace dgpde {
namespace cuda_threads {

template <class V>
__global__ void __launch_bounds__(kBlock)
    forward_kernel(const __grid_constant__ ColumnRun run, const __grid_constant__ ColumnOutput io) {
  forward_thread<V>(run, io, thread_number());
}

void column_forward(const ColumnRun& run, const ColumnOutput& io) {
  launch(run.single ? forward_kernel<float> : forward_kernel<double>, run, io);
}

}  // namespace cuda_threads
}  // namespace dgpde
