// The column engine on the CPU: packs of columns, shared out among OpenMP threads. Compiled once per instruction set.
#include "../math/column_adjoint.h"
#include "../math/column_forward.h"
#include "../math/column_tangent.h"
#include "../math/history_rows.h"
#include "engine.h"
#include "packs.h"

namespace dgpde {
namespace DGPDE_ENGINE {

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
  check_rows(history, W, sizeof(Real));
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
