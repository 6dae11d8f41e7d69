// The water of a column-flow run's accepted steps, or of a steady flow, as rows that transport reads.
#include "../math/column_water.h"

#include "../math/column_tangent.h"
#include "../math/history_rows.h"
#include "../math/water_moves.h"
#include "column_transport_engine.h"
#include "packs.h"

namespace dgpde {
namespace DGPDE_ENGINE {

using V = Pack<double>::type;
constexpr int W = Lane<V>::width;

void column_water(const ColumnProblem& p, ColumnHistory& history, WaterStore& water, int threads) {
  check_rows(history, W, sizeof(double));
  water.allocate(p.n, p.nz, W, sizeof(double));
  for_each_pack<V>(p.n, p.n, ReplayCells<V>::size(p.nz), threads, [&](int64_t pack, int64_t, V* scratch) {
    PackHistory<V> from(history, pack);
    WaterRows<V> to(water, pack);
    ColumnWater<V>(p, Lanes{pack * W, p.n}, scratch, 1).run(from, to);
  });
}

void water_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, WaterStore& moves,
                   int threads) {
  check_rows(history, W, sizeof(double));
  moves.roots = p.roots, moves.source = p.sources, moves.elastic = true;
  moves.allocate(p.n, p.nz, W, sizeof(double));
  for_each_pack<V>(p.n, p.n, ReplayCells<V>::size(p.nz), threads, [&](int64_t pack, int64_t chunk, V* scratch) {
    PackHistory<V> rows(history, pack);
    const WaterRows<V> to(moves, pack);
    WaterMoves<V> left(to);
    ColumnTangent<V>(p, io, Lanes{pack * W, p.n}, chunk, scratch, 1).run(rows, left);
  });
}

void steady_water(const SteadyWater& from, WaterStore& water, int threads) {
  water.elastic = water.constant = true;  // elastic: what the balance of the given fluxes lacks
  water.allocate(from.n, from.nz, W, sizeof(double));
  const View theta{from.theta.data, 0, from.theta.z, from.theta.n}, flux{from.flux.data, 0, from.flux.z, from.flux.n};
  const int64_t count = static_cast<int64_t>(from.steps.size()) + 1;
  water.steps.assign(static_cast<size_t>(count * W), 0.0);
  water.intervals.assign(static_cast<size_t>(count * W), -1);
  for (size_t i = W; i < water.steps.size(); ++i)
    water.steps[i] = from.steps[i / W - 1], water.intervals[i] = from.intervals[i / W - 1];
  for_each_pack<V>(from.n, from.n, 1, threads, [&](int64_t pack, int64_t, V*) {
    WaterRows<V> rows(water, pack);
    const Lanes lanes{pack * W, from.n};
    for (int lane = 0; lane < W; ++lane) rows.finish(lane, count, true);
    const WaterRow<V> row = rows.row(0);
    row.flux[0] = load<V>(flux, 0, 0, lanes);
    for (int64_t k = 0; k < from.nz; ++k) {
      row.theta[k] = load<V>(theta, 0, k, lanes);
      row.flux[k + 1] = load<V>(flux, 0, k + 1, lanes);
      row.elastic[k] = row.flux[k] - row.flux[k + 1];
    }
  });
}

void steady_gradients(const SteadyWater& to, WaterStore& bars, int threads) {
  check_rows(bars, W, sizeof(double));
  for_each_pack<V>(to.n, to.n, 1, threads, [&](int64_t pack, int64_t, V*) {
    const WaterRow<V> row = WaterRows<V>(bars, pack).row(0);
    const Lanes lanes{pack * W, to.n};
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    auto* to_theta = static_cast<double*>(to.theta.data);
    auto* to_flux = static_cast<double*>(to.flux.data);
    V below{};
    for (int64_t k = 0; k <= to.nz; ++k) {
      const V here = k < to.nz ? row.elastic[k] : V{};
      store<V>(to_flux + k * to.flux.z, to.flux.n, lanes, own, row.flux[k] + here - below);
      if (k < to.nz) store<V>(to_theta + k * to.theta.z, to.theta.n, lanes, own, row.theta[k] + row.before[k]);
      below = here;
    }
  });
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
