// The column engine on the CPU: packs of columns, shared out among OpenMP threads. Compiled once per instruction set.
#include <exception>
#include <stdexcept>

#include "../math/column_adjoint.h"
#include "../math/column_forward.h"
#include "../math/column_tangent.h"
#include "../math/history_rows.h"
#include "engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

// Packs are dealt out in runs of neighbours. Sums over columns (the gradient of a table) are made
// chunk by chunk, so their bits do not depend on the number of threads.
int64_t first_pack(int64_t chunk, int64_t chunks, int64_t packs) { return chunk * packs / chunks; }

// Runs work(pack, chunk, scratch) for every pack; an exception of any thread reaches the caller.
template <class V, class Work>
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
#pragma omp for schedule(dynamic, 1)
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int64_t pack = first_pack(chunk, chunks, packs); pack < first_pack(chunk + 1, chunks, packs); ++pack)
          work(pack, chunk, scratch);
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
  for_each_pack<V>(p.n, p.n, Cells<V>::size(p.nz), threads, [&](int64_t pack, int64_t, V* scratch) {
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

void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single,
                    int threads) {
  if (single)
    forward<float>(p, out, history, threads);
  else
    forward<double>(p, out, history, threads);
}

// Engine is ColumnAdjoint or ColumnTangent, Io what it reads and writes.
template <template <class> class Engine, class Real, class Io>
void replay(const ColumnProblem& p, const Io& io, ColumnHistory& history, int threads) {
  using V = typename Pack<Real>::type;
  constexpr int W = Lane<V>::width;
  if (history.width != W || history.real_bytes != static_cast<int>(sizeof(Real)))
    throw std::logic_error("history: recorded with another instruction set or number type");
  const bool shared_sums = static_cast<SoilKind>(p.relation) == SoilKind::tabulated;
  const int64_t chunks = shared_sums ? kTableChunks : p.n;
  for_each_pack<V>(p.n, chunks, ReplayCells<V>::size(p.nz), threads, [&](int64_t pack, int64_t chunk, V* scratch) {
    PackHistory<V> rows(history, pack);
    Engine<V>(p, io, Lanes{pack * W, p.n}, chunk, scratch, 1).run(rows);
  });
}

void column_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, bool single,
                    int threads) {
  if (single)
    replay<ColumnAdjoint, float>(p, io, history, threads);
  else
    replay<ColumnAdjoint, double>(p, io, history, threads);
}

void column_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, bool single,
                    int threads) {
  if (single)
    replay<ColumnTangent, float>(p, io, history, threads);
  else
    replay<ColumnTangent, double>(p, io, history, threads);
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
