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
  water.elastic = true;  // what the balance of the given fluxes lacks
  water.allocate(from.n, from.nz, W, sizeof(double));
  const View theta{from.theta.data, 0, from.theta.z, from.theta.n}, flux{from.flux.data, 0, from.flux.z, from.flux.n};
  const int64_t count = static_cast<int64_t>(from.steps.size()) + 1;
  for_each_pack<V>(from.n, from.n, 1, threads, [&](int64_t pack, int64_t, V*) {
    WaterRows<V> rows(water, pack);
    const Lanes lanes{pack * W, from.n};
    for (int lane = 0; lane < W; ++lane) rows.finish(lane, count, true);
    for (int64_t r = 0; r < count; ++r) {
      const WaterRow<V> row = rows.row(r);
      row.flux[0] = load<V>(flux, 0, 0, lanes);
      for (int64_t k = 0; k < from.nz; ++k) {
        row.theta[k] = load<V>(theta, 0, k, lanes);
        row.flux[k + 1] = load<V>(flux, 0, k + 1, lanes);
        row.elastic[k] = row.flux[k] - row.flux[k + 1];
      }
      for (int lane = 0; lane < W; ++lane) {
        row.dt[lane] = r > 0 ? from.steps[static_cast<size_t>(r - 1)] : 0.0;
        row.interval[lane] = r > 0 ? from.intervals[static_cast<size_t>(r - 1)] : -1;
      }
    }
  });
}

void steady_gradients(const SteadyWater& to, WaterStore& bars, int threads) {
  check_rows(bars, W, sizeof(double));
  for_each_pack<V>(to.n, to.n, 2 * to.nz + 1, threads, [&](int64_t pack, int64_t, V* sums) {
    const WaterRows<V> rows(bars, pack);
    const Lanes lanes{pack * W, to.n};
    V *theta = sums, *flux = sums + to.nz;
    const View as_theta{to.theta.data, 0, to.theta.z, to.theta.n}, as_flux{to.flux.data, 0, to.flux.z, to.flux.n};
    for (int64_t k = 0; k < to.nz; ++k) theta[k] = load<V>(as_theta, 0, k, lanes);
    for (int64_t k = 0; k <= to.nz; ++k) flux[k] = load<V>(as_flux, 0, k, lanes);
    for (int64_t r = rows.longest() - 1; r > 0; --r) {
      const WaterRow<V> row = rows.row(r);
      for (int64_t k = 0; k < to.nz; ++k) {
        theta[k] = theta[k] + (row.theta[k] + row.before[k]);
        flux[k] = flux[k] + row.flux[k] + row.elastic[k];
        flux[k + 1] = flux[k + 1] - row.elastic[k];
      }
      flux[to.nz] = flux[to.nz] + row.flux[to.nz];
    }
    Mask<V> own{};
    for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
    auto* to_theta = static_cast<double*>(to.theta.data);
    auto* to_flux = static_cast<double*>(to.flux.data);
    for (int64_t k = 0; k < to.nz; ++k) store<V>(to_theta + k * to.theta.z, to.theta.n, lanes, own, theta[k]);
    for (int64_t k = 0; k <= to.nz; ++k) store<V>(to_flux + k * to.flux.z, to.flux.n, lanes, own, flux[k]);
  });
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
