// Transport of solutes in columns on the CPU: packs of columns, shared out among OpenMP threads.
#include "../math/transport_adjoint.h"
#include "../math/transport_forward.h"
#include "../math/transport_tangent.h"
#include "column_transport_engine.h"
#include "packs.h"

namespace dgpde {
namespace DGPDE_ENGINE {

using V = Pack<double>::type;
constexpr int W = Lane<V>::width;

void transport_forward(const TransportProblem& p, WaterStore& water, const TransportOutput& out, TransportStore* kept,
                       int threads) {
  check_rows(water, W, sizeof(double));
  if (kept) {
    kept->allocate(p, W, sizeof(double));
  }
  for_each_pack<V>(p.n, p.n, TransportStep<V>::scratch(p.nz, p.solutes()), threads,
                   [&](int64_t pack, int64_t, V* scratch) {
                     const WaterRows<V> rows(water, pack);
                     TransportForward<V> engine(p, out, Lanes{pack * W, p.n}, scratch, 1);
                     if (kept) {
                       TransportRows<V> states(*kept, p, pack);
                       engine.run(rows, &states);
                     } else {
                       engine.run(rows, nullptr);
                     }
                   });
}

void transport_adjoint(const TransportProblem& p, WaterStore& water, TransportStore& kept,
                       const TransportCotangents& io, WaterStore* bars, bool continuous, int threads) {
  check_rows(water, W, sizeof(double));
  check_rows(kept, W, sizeof(double));
  WaterStore form;
  WaterStore& to = bars ? *bars : form;
  // those of constant water are summed up over the segments too
  const bool resumed = water.constant && !to.packs.empty();
  to.roots = water.roots, to.elastic = water.elastic, to.source = water.source, to.before = true;
  to.constant = water.constant;
  if (!resumed) to.allocate(p.n, p.nz, W, sizeof(double));
  const int64_t size = TransportStep<V>::scratch(p.nz, p.solutes());
  for_each_pack<V>(p.n, p.n, size + to.values + 2, threads, [&](int64_t pack, int64_t, V* scratch) {
    const WaterRows<V> rows(water, pack);
    const TransportRows<V> states(kept, p, pack);
    WaterRows<V> into(to, pack);
    TransportAdjoint<V>(p, io, Lanes{pack * W, p.n}, scratch, 1)
        .run(rows, states, bars ? &into : nullptr, into.row_at(scratch + size), resumed, continuous);
  });
}

void transport_tangent(const TransportProblem& p, WaterStore& water, WaterStore* moves, TransportStore& kept,
                       const TransportTangents& io, int threads) {
  check_rows(water, W, sizeof(double));
  check_rows(kept, W, sizeof(double));
  if (moves) check_rows(*moves, W, sizeof(double));
  for_each_pack<V>(p.n, p.n, TransportStep<V>::scratch(p.nz, p.solutes()), threads,
                   [&](int64_t pack, int64_t, V* scratch) {
                     const WaterRows<V> rows(water, pack);
                     const TransportRows<V> states(kept, p, pack);
                     TransportTangent<V> engine(p, io, Lanes{pack * W, p.n}, scratch, 1);
                     if (moves) {
                       const WaterRows<V> moved(*moves, pack);
                       engine.run(rows, &moved, states);
                     } else {
                       engine.run(rows, nullptr, states);
                     }
                   });
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
