// The column engine on the CPU: packs of columns, shared out among OpenMP threads. Compiled once per instruction set.
#include <exception>

#include "../math/column_forward.h"
#include "../math/history_rows.h"
#include "engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)

namespace dgpde {
namespace DGPDE_JOIN(engine_, DGPDE_ISA) {

// Runs work(pack, scratch) for every pack; an exception of any thread reaches the caller.
template <class V, class Work>
void for_each_pack(int64_t n, int64_t scratch_size, int threads, const Work& work) {
  constexpr int W = Lane<V>::width;
  const int64_t packs = (n + W - 1) / W;
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    try {
      Block memory(static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>(scratch_size) * sizeof(V))));
      if (!memory) throw std::bad_alloc();
#pragma omp for schedule(dynamic, 1)
      for (int64_t pack = 0; pack < packs; ++pack) work(pack, reinterpret_cast<V*>(memory.get()));
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

template <class Real>
void forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, int threads) {
  using V = typename Pack<Real>::type;
  constexpr int W = Lane<V>::width;
  if (history) history->allocate(p.n, p.nz, W, sizeof(Real));
  for_each_pack<V>(p.n, Cells<V>::size(p.nz), threads, [&](int64_t pack, V* scratch) {
    ColumnForward<V> engine(p, out, Lanes{pack * W, p.n}, scratch, 1);
    if (history) {
      PackHistory<V> rows(*history, pack);
      engine.run(rows);
    } else {
      NoHistory none;
      engine.run(none);
    }
  });
}

void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single, int threads) {
  if (single)
    forward<float>(p, out, history, threads);
  else
    forward<double>(p, out, history, threads);
}

}  // namespace DGPDE_JOIN(engine_, DGPDE_ISA)
}  // namespace dgpde
