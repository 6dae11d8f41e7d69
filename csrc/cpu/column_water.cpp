// The water of a column-flow run's accepted steps, or of a steady flow, as rows that transport reads; its tangents and
// its cotangents.
#include "../math/column_water.h"

#include <stdexcept>

#include "../math/column_adjoint.h"
#include "../math/column_tangent.h"
#include "../math/history_rows.h"
#include "../math/water_moves.h"
#include "../math/water_seeds.h"
#include "pack_water.h"

namespace dgpde {
namespace DGPDE_ENGINE {

namespace {

// Steady water is linear in theta and flux: its tangents are made as it is.
template <class V>
void fill_steady(const TransportWater& water, const View& theta, const View& flux, int64_t pack, WaterStore& to) {
  constexpr int W = Lane<V>::width;
  if (to.packs.empty()) {
    to.elastic = to.constant = true;  // elastic: what the balance of the given fluxes lacks
    to.allocate(W, water.nz, W, sizeof(RealOf<V>));
    to.steps.assign((water.steps.size() + 1) * W, 0.0);
    to.intervals.assign((water.steps.size() + 1) * W, -1);
    for (size_t i = W; i < to.steps.size(); ++i)
      to.steps[i] = water.steps[i / W - 1], to.intervals[i] = water.intervals[i / W - 1];
  }
  WaterRows<V> rows(to, 0);
  const Lanes lanes{pack * W, water.n};
  for (int lane = 0; lane < W; ++lane) rows.finish(lane, static_cast<int64_t>(water.steps.size()) + 1, true);
  const WaterRow<V> row = rows.row(0);
  row.flux[0] = load<V>(flux, 0, 0, lanes);
  for (int64_t k = 0; k < water.nz; ++k) {
    row.theta[k] = load<V>(theta, 0, k, lanes);
    row.flux[k + 1] = load<V>(flux, 0, k + 1, lanes);
    row.elastic[k] = row.flux[k] - row.flux[k + 1];
  }
}

template <class V>
Mask<V> owned(const Lanes& lanes) {
  Mask<V> own{};
  for (int lane = 0; lane < Lane<V>::width; ++lane) put_mask(own, lane, lanes.owns(lane));
  return own;
}

// each(array of sums, its place in a row of bars, its cells)
template <class V, class Each>
void each_sum(const TransportWater& water, const WaterRow<V>& row, const Each& each) {
  const auto give = [&](void* sum, V* at, int64_t cells) { each(static_cast<RealOf<V>*>(sum), at, cells); };
  give(water.theta_sum, row.theta, water.nz);
  if (water.before_sum) give(water.before_sum, row.before, water.nz);
  give(water.flux_sum, row.flux, water.nz + 1);
  give(water.lack_sum, row.elastic, water.nz);
}

}  // namespace

template <class V>
int64_t water_scratch(const TransportWater& water, int64_t nz) {
  return water.flow ? ReplayCells<V>::size(nz) + nz * ColumnAdjoint<V>::kSeeds : 0;
}

int64_t water_chunks(const TransportWater& water, int64_t n) {
  const bool shared_sums =
      water.flow && water.cotangents && static_cast<SoilKind>(water.flow->relation) == SoilKind::tabulated;
  return shared_sums ? kTableChunks : n;
}

template <class V>
void load_water(const TransportWater& water, int64_t pack, WaterStore& rows, V* scratch) {
  constexpr int W = Lane<V>::width;
  if (!water.flow) {
    fill_steady<V>(water, water.theta, water.flux, pack, rows);
    return;
  }
  const ColumnProblem& p = *water.flow;
  if (rows.packs.empty()) {
    check_rows(*water.history, W, sizeof(RealOf<V>));
    rows.roots = p.roots, rows.source = p.sources, rows.elastic = water.elastic;
    rows.allocate(W, p.nz, W, sizeof(RealOf<V>));
  }
  PackHistory<V> from(*water.history, pack);
  WaterRows<V> to(rows, 0);
  ColumnWater<V>(p, Lanes{pack * W, p.n}, scratch, 1).run(from, to);
}

template <class V>
bool move_water(const TransportWater& water, int64_t pack, WaterStore& moves, V* scratch) {
  constexpr int W = Lane<V>::width;
  if (!water.flow) {
    if (!water.theta_moves.data) return false;
    fill_steady<V>(water, water.theta_moves, water.flux_moves, pack, moves);
    return true;
  }
  if (!water.tangents) return false;
  const ColumnProblem& p = *water.flow;
  if (moves.packs.empty()) {
    moves.roots = p.roots, moves.source = p.sources, moves.elastic = true;
    moves.allocate(W, p.nz, W, sizeof(RealOf<V>));
  }
  PackHistory<V> from(*water.history, pack);
  const WaterRows<V> to(moves, 0);
  WaterMoves<V> left(to);
  ColumnTangent<V>(p, *water.tangents, Lanes{pack * W, p.n}, 0, scratch, 1).run(from, left);
  return true;
}

template <class V>
bool begin_bars(const TransportWater& water, int64_t pack, const WaterStore& rows, WaterStore& bars) {
  constexpr int W = Lane<V>::width;
  if (bars.packs.empty()) {
    bars.roots = rows.roots, bars.elastic = rows.elastic, bars.source = rows.source, bars.before = true;
    bars.constant = rows.constant;
    bars.allocate(W, rows.nz, W, sizeof(RealOf<V>));
  }
  if (!water.theta_sum) return false;
  const Lanes lanes{pack * W, water.n};
  const WaterRow<V> row = WaterRows<V>(bars, 0).row(0);
  for (int64_t k = 0; k < water.nz; ++k) row.before[k] = V{};
  each_sum<V>(water, row, [&](const RealOf<V>* from, V* to, int64_t cells) {
    for (int64_t k = 0; k < cells; ++k) to[k] = load<V>(View{from, 0, water.n, 1}, 0, k, lanes);
  });
  return true;
}

template <class V>
void pull_water(const TransportWater& water, int64_t pack, int64_t chunk, WaterStore& bars, V* scratch) {
  constexpr int W = Lane<V>::width;
  const WaterRows<V> rows(bars, 0);
  if (!water.flow) {
    const Lanes lanes{pack * W, water.n};
    const Mask<V> own = owned<V>(lanes);
    each_sum<V>(water, rows.row(0), [&](RealOf<V>* to, const V* from, int64_t cells) {
      for (int64_t k = 0; k < cells; ++k) store<V>(to + k * water.n, 1, lanes, own, from[k]);
    });
    return;
  }
  const ColumnProblem& p = *water.flow;
  PackHistory<V> history(*water.history, pack);
  ColumnAdjoint<V>(p, *water.cotangents, Lanes{pack * W, p.n}, chunk, scratch, 1)
      .run(history, WaterSeeds<V>(rows), scratch + ReplayCells<V>::size(p.nz));
}

#define DGPDE_WATER_OF(V)                                                                      \
  template int64_t water_scratch<V>(const TransportWater&, int64_t);                           \
  template void load_water<V>(const TransportWater&, int64_t, WaterStore&, V*);                \
  template bool move_water<V>(const TransportWater&, int64_t, WaterStore&, V*);                \
  template bool begin_bars<V>(const TransportWater&, int64_t, const WaterStore&, WaterStore&); \
  template void pull_water<V>(const TransportWater&, int64_t, int64_t, WaterStore&, V*);
DGPDE_WATER_OF(PackD)
DGPDE_WATER_OF(PackF)
#undef DGPDE_WATER_OF

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
