// Packs of columns, shared out among OpenMP threads. For translation units that are compiled once per instruction set.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "../math/pack.h"
#include "history.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
inline namespace DGPDE_ISA {

inline void check_rows(const RowStore& rows, int width, size_t real_bytes) {
  if (rows.width != width || rows.real_bytes != static_cast<int>(real_bytes))
    throw std::logic_error("history: recorded with another instruction set or number type");
}

// Packs are dealt out in runs of neighbours. Sums over columns (the gradient of a table) are made
// chunk by chunk, so their bits do not depend on the number of threads.
inline int64_t first_pack(int64_t chunk, int64_t chunks, int64_t packs) { return chunk * packs / chunks; }

// Runs work(pack, chunk, scratch, state) for every pack, with a state that a thread makes for itself and keeps from pack
// to pack; an exception of any thread reaches the caller.
template <class V, class State, class Work>
void for_each_pack(int64_t n, int64_t chunks, int64_t scratch_size, int threads, const Work& work) {
  constexpr int W = Lane<V>::width;
  const int64_t packs = (n + W - 1) / W;
  if (chunks > packs) chunks = packs;
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    try {
      const size_t bytes =
          (static_cast<size_t>(scratch_size) * sizeof(V) + 63) / 64 * 64;  // aligned_alloc asks for it
      Block memory(static_cast<char*>(std::aligned_alloc(64, bytes)));
      if (!memory) throw std::bad_alloc();
      V* scratch = reinterpret_cast<V*>(memory.get());
      State state;
#pragma omp for schedule(dynamic, 1)
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int64_t pack = first_pack(chunk, chunks, packs); pack < first_pack(chunk + 1, chunks, packs); ++pack)
          work(pack, chunk, scratch, state);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

// work(pack, chunk, scratch)
template <class V, class Work>
void for_each_pack(int64_t n, int64_t chunks, int64_t scratch_size, int threads, const Work& work) {
  struct None {};
  for_each_pack<V, None>(n, chunks, scratch_size, threads,
                         [&](int64_t pack, int64_t chunk, V* scratch, None&) { work(pack, chunk, scratch); });
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
