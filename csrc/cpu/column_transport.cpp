// Transport of solutes in columns on the CPU: packs of columns, shared out among OpenMP threads. A pack's water is made,
// used and, in the adjoint, differentiated before the next one's, in memory that a thread keeps.
#include "../math/transport_adjoint.h"
#include "../math/transport_forward.h"
#include "../math/transport_tangent.h"
#include "pack_water.h"

namespace dgpde {
namespace DGPDE_ENGINE {

struct PackWater {
  WaterStore rows, derivatives;
};

template <class Real>
void forward(const TransportProblem& p, const TransportWater& water, const TransportOutput& out, TransportStore* kept,
             int threads) {
  using V = typename Pack<Real>::type;
  constexpr int W = Lane<V>::width;
  if (kept) kept->allocate(p, W, sizeof(Real));
  const int64_t size = TransportStep<V>::scratch(p.nz, p.solutes());
  for_each_pack<V, PackWater>(p.n, p.n, size + water_scratch<V>(water, p.nz), threads,
                              [&](int64_t pack, int64_t, V* scratch, PackWater& of_pack) {
                                load_water(water, pack, of_pack.rows, scratch + size);
                                const WaterRows<V> rows(of_pack.rows, 0);
                                TransportForward<V> engine(p, out, Lanes{pack * W, p.n}, scratch, 1);
                                if (kept) {
                                  TransportRows<V> states(*kept, p, pack);
                                  engine.run(rows, &states);
                                } else {
                                  engine.run(rows, nullptr);
                                }
                              });
}

template <class Real>
void adjoint(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
             const TransportCotangents& io, int threads) {
  using V = typename Pack<Real>::type;
  constexpr int W = Lane<V>::width;
  check_rows(kept, W, sizeof(Real));
  const int64_t size = TransportStep<V>::scratch(p.nz, p.solutes());
  // a row of bars that nobody asks for: values, and dt and interval of each lane in 16 bytes
  const int64_t soil = water_scratch<V>(water, p.nz), bar = 6 * p.nz + 1 + 16 / static_cast<int64_t>(sizeof(Real));
  for_each_pack<V, PackWater>(p.n, water_chunks(water, p.n), size + soil + bar, threads,
                              [&](int64_t pack, int64_t chunk, V* scratch, PackWater& of_pack) {
                                load_water(water, pack, of_pack.rows, scratch + size);
                                const bool resumed = begin_bars<V>(water, pack, of_pack.rows, of_pack.derivatives);
                                const WaterRows<V> rows(of_pack.rows, 0);
                                WaterRows<V> bars(of_pack.derivatives, 0);
                                const TransportRows<V> states(kept, p, pack);
                                const bool wanted = wants_bars(water);
                                TransportAdjoint<V>(p, io, Lanes{pack * W, p.n}, scratch, 1)
                                    .run(rows, states, wanted ? &bars : nullptr, bars.row_at(scratch + size + soil),
                                         resumed, water.flow || water.before_sum, water.flow != nullptr);
                                if (wanted) pull_water(water, pack, chunk, of_pack.derivatives, scratch + size);
                              });
}

template <class Real>
void tangent(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
             const TransportTangents& io, int threads) {
  using V = typename Pack<Real>::type;
  constexpr int W = Lane<V>::width;
  check_rows(kept, W, sizeof(Real));
  const int64_t size = TransportStep<V>::scratch(p.nz, p.solutes());
  for_each_pack<V, PackWater>(p.n, p.n, size + water_scratch<V>(water, p.nz), threads,
                              [&](int64_t pack, int64_t, V* scratch, PackWater& of_pack) {
                                load_water(water, pack, of_pack.rows, scratch + size);
                                const bool moved = move_water(water, pack, of_pack.derivatives, scratch + size);
                                const TransportRows<V> states(kept, p, pack);
                                TransportTangent<V> engine(p, io, Lanes{pack * W, p.n}, scratch, 1);
                                const WaterRows<V> rows(of_pack.rows, 0);
                                if (moved) {
                                  const WaterRows<V> moves(of_pack.derivatives, 0);
                                  engine.run(rows, &moves, states);
                                } else {
                                  engine.run(rows, nullptr, states);
                                }
                              });
}

void transport_forward(const TransportProblem& p, const TransportWater& water, const TransportOutput& out,
                       TransportStore* kept, int threads) {
  p.single ? forward<float>(p, water, out, kept, threads) : forward<double>(p, water, out, kept, threads);
}
void transport_adjoint(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportCotangents& io, int threads) {
  p.single ? adjoint<float>(p, water, kept, io, threads) : adjoint<double>(p, water, kept, io, threads);
}
void transport_tangent(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportTangents& io, int threads) {
  p.single ? tangent<float>(p, water, kept, io, threads) : tangent<double>(p, water, kept, io, threads);
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
