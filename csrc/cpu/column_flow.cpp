// The column engine on the CPU: packs of columns, shared out among OpenMP threads. Compiled once per instruction set.
#include <stdexcept>

#include "../math/column_adjoint.h"
#include "../math/column_forward.h"
#include "../math/column_tangent.h"
#include "../math/history_rows.h"
#include "../math/water_seeds.h"
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

// The adjoint of a run whose water carried solutes; `bars` holds the cotangents of the water of its steps.
void seeded_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, WaterStore& bars,
                    int threads) {
  using V = Pack<double>::type;
  using Adjoint = ColumnAdjoint<V>;
  constexpr int W = Lane<V>::width;
  check_rows(history, W, sizeof(double));
  check_rows(bars, W, sizeof(double));
  const bool shared_sums = static_cast<SoilKind>(p.relation) == SoilKind::tabulated;
  const int64_t cells = ReplayCells<V>::size(p.nz);
  for_each_pack<V>(
      p.n, shared_sums ? kTableChunks : p.n, cells + p.nz * Adjoint::kSeeds, threads,
      [&](int64_t pack, int64_t chunk, V* scratch) {
        PackHistory<V> rows(history, pack);
        const WaterRows<V> water(bars, pack);
        Adjoint(p, io, Lanes{pack * W, p.n}, chunk, scratch, 1).run(rows, WaterSeeds<V>(water), scratch + cells);
      });
}

void column_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, WaterStore* bars,
                    bool single, int threads) {
  if (bars) {
    if (single) throw std::logic_error("bars: cotangents of the water are float64");
    seeded_adjoint(p, io, history, *bars, threads);
  } else if (single)
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
