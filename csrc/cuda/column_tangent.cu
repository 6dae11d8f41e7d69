// The tangent-linear run on a GPU: one thread a column.
#include "launch.cuh"

namespace dgpde {
namespace cuda_threads {

template <class V>
__global__ void __launch_bounds__(kBlock)
    tangent_kernel(const __grid_constant__ ColumnRun run, const __grid_constant__ ColumnTangents io) {
  replay_thread<ColumnTangent<V>, V>(run, io, thread_number());
}

void column_tangent(const ColumnRun& run, const ColumnTangents& io) {
  launch(run.single ? tangent_kernel<float> : tangent_kernel<double>, run, io);
}

}  // namespace cuda_threads
}  // namespace dgpde
