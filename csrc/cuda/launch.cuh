// Starting the kernels of the column engine.
#pragma once

#include <stdexcept>
#include <string>

#include "column_thread.h"

namespace dgpde {
namespace cuda_threads {

constexpr int kBlock = 128;

inline __device__ int64_t thread_number() { return int64_t(blockIdx.x) * kBlock + threadIdx.x; }

inline void check(cudaError_t error, const char* doing) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + doing + " failed: " + cudaGetErrorString(error));
}

// One thread for each column of the run's window.
template <class Io>
void launch(void (*kernel)(const ColumnRun, const Io), const ColumnRun& run, const Io& io) {
  if (run.count == 0) return;
  check(cudaSetDevice(run.device), "choosing the device");
  const auto blocks = static_cast<unsigned>((run.count + kBlock - 1) / kBlock);
  kernel<<<blocks, kBlock, 0, reinterpret_cast<cudaStream_t>(run.stream)>>>(run, io);
  check(cudaGetLastError(), "starting a kernel");
}

}  // namespace cuda_threads
}  // namespace dgpde
