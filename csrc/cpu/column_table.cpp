// The water of accepted steps of columns as arrays, for what carries solutes outside of this module; its tangents, and
// its cotangents from such arrays to the flow's adjoint. Pack by pack, as in column_transport.cpp.
#include "../math/water_rows.h"
#include "pack_water.h"

namespace dgpde {
namespace DGPDE_ENGINE {

using V = PackD;
constexpr int W = Lane<V>::width;

namespace {

struct PackTable {
  WaterStore rows, derivatives;
};

// each(array, its place in a row, its cells)
template <class Each>
void each_part(const WaterArrays& a, const WaterRow<V>& row, int64_t nz, const Each& each) {
  each(a.theta, row.theta, nz);
  each(a.flux, row.flux, nz + 1);
  each(a.taken, row.taken, nz);
  each(a.elastic, row.elastic, nz);
  each(a.source, row.source, nz);
  each(a.before, row.before, nz);
}

// One lane of one row, to or from [rows][cells][n].
void copy_row(const WaterArrays& a, const WaterRow<V>& row, int64_t r, int lane, int64_t column, int64_t n,
              int64_t nz, bool into) {
  each_part(a, row, nz, [&](double* array, V* at, int64_t cells) {
    if (!array || !at) return;
    for (int64_t k = 0; k < cells; ++k) {
      double& there = array[(r * cells + k) * n + column];
      into ? put(at[k], lane, there) : void(there = get(at[k], lane));
    }
  });
}

}  // namespace

void water_arrays(const TransportWater& water, const WaterArrays& a, bool moves, int threads) {
  const int64_t n = water.flow->n, nz = water.flow->nz;
  for_each_pack<V, PackTable>(
      n, n, water_scratch<V>(water, nz), threads, [&](int64_t pack, int64_t, V* scratch, PackTable& of_pack) {
        load_water(water, pack, of_pack.rows, scratch);
        if (moves && !move_water(water, pack, of_pack.derivatives, scratch)) return;
        const WaterRows<V> rows(of_pack.rows, 0);
        const WaterRows<V> from(moves ? of_pack.derivatives : of_pack.rows, 0);
        for (int lane = 0; lane < W && pack * W + lane < n; ++lane) {
          const int64_t column = pack * W + lane, count = rows.count(lane);
          if (a.counts) a.counts[column] = count;
          for (int64_t r = 0; r < count; ++r) {
            WaterRow<V> row = from.row(r);
            if (r == 0) row.flux = row.taken = row.elastic = row.source = nullptr;  // row 0 holds theta alone
            copy_row(a, row, r, lane, column, n, nz, false);
            if (r == 0 || !a.dt) continue;
            const WaterRow<V> step = rows.row(r);
            a.dt[r * n + column] = step.dt[lane];
            a.interval[r * n + column] = step.interval[lane];
            a.ends[r * n + column] = rows.ends_interval(r, lane);
          }
        }
      });
}

void water_cotangents(const TransportWater& water, const WaterArrays& a, int threads) {
  const int64_t n = water.flow->n, nz = water.flow->nz;
  for_each_pack<V, PackTable>(n, water_chunks(water, n), water_scratch<V>(water, nz), threads,
                              [&](int64_t pack, int64_t chunk, V* scratch, PackTable& of_pack) {
                                load_water(water, pack, of_pack.rows, scratch);
                                begin_bars<V>(water, pack, of_pack.rows, of_pack.derivatives);
                                const WaterRows<V> rows(of_pack.rows, 0);
                                WaterRows<V> bars(of_pack.derivatives, 0);
                                for (int lane = 0; lane < W; ++lane) {
                                  const int64_t column = pack * W + lane, count = rows.count(lane);
                                  bars.finish(lane, count, false);
                                  if (column >= n) continue;
                                  for (int64_t r = 0; r < count; ++r)
                                    copy_row(a, bars.row(r), r, lane, column, n, nz, true);
                                }
                                pull_water(water, pack, chunk, of_pack.derivatives, scratch);
                              });
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
