// The water of the accepted steps of a pack of columns, as what is carried by it reads it: rows of a RowStore.
//
// A flow run writes them from its history (column_water.h), a steady flow from its arrays. Whoever reads them knows no
// soil. Row r holds what belongs to a lane's r-th step, row 0 only theta. With the index of cells and faces in a row:
//
//     theta     [nz]      water content at the end of the step
//     flux      [nz + 1]  m/s through the faces, positive up; continuity holds to round-off:
//                         dz (theta' - theta)/dt + flux above - flux below + taken + elastic - source = 0
//     taken     [nz]      m/s by roots                         (only with `roots`)
//     elastic   [nz]      m/s into elastic storage, or what a steady flow's balance lacks   (only with `elastic`)
//     source    [nz]      m/s from sources, negative where they take water out              (only with `source`)
//
// Water that does not change has its values once, in row 0. Its cotangents are summed over the steps there.
//
// The cotangents and the tangents of the water have rows of the same form; cotangents, besides, `before` [nz]: that of
// theta at the beginning of the step.
#pragma once

#include "../cpu/water_store.h"
#include "pack.h"

namespace dgpde {

inline namespace DGPDE_ISA {

template <class V>
struct WaterRow {
  V *theta = nullptr, *flux = nullptr, *taken = nullptr, *elastic = nullptr, *source = nullptr, *before = nullptr;
  double* dt = nullptr;
  int64_t* interval = nullptr;
};

template <class V>
class WaterRows {
 public:
  WaterRows(WaterStore& water, int64_t pack)
      : store(water), rows(water.packs[static_cast<size_t>(pack)]), bytes(water.row_bytes()) {}

  WaterRow<V> row(int64_t r) const {
    if (!store.constant) return row_at(reinterpret_cast<V*>(rows.row(r, bytes)));
    WaterRow<V> w = row_at(reinterpret_cast<V*>(rows.row(0, bytes)));
    if (!store.steps.empty()) {  // cotangents have none
      w.dt = store.steps.data() + r * Lane<V>::width;
      w.interval = store.intervals.data() + r * Lane<V>::width;
    }
    return w;
  }
  bool constant() const { return store.constant; }
  // A row of the same form in other memory, of store.values + 2 packs.
  WaterRow<V> row_at(V* at) const {
    WaterRow<V> w;
    const int64_t nz = store.nz;
    w.theta = at, w.flux = at + nz, at += 2 * nz + 1;
    if (store.roots) w.taken = at, at += nz;
    if (store.elastic) w.elastic = at, at += nz;
    if (store.source) w.source = at, at += nz;
    if (store.before) w.before = at, at += nz;
    w.dt = reinterpret_cast<double*>(at);
    w.interval = reinterpret_cast<int64_t*>(w.dt + Lane<V>::width);
    return w;
  }
  int64_t cells() const { return store.nz; }
  int64_t count(int lane) const { return rows.counts[static_cast<size_t>(lane)]; }
  int64_t longest() const {
    int64_t most = 0;
    for (int lane = 0; lane < Lane<V>::width; ++lane) most = count(lane) > most ? count(lane) : most;
    return most;
  }
  bool ends_interval(int64_t r, int lane) const {
    if (r + 1 >= count(lane)) return rows.complete[static_cast<size_t>(lane)] != 0;
    return row(r + 1).interval[lane] != row(r).interval[lane];
  }
  void finish(int lane, int64_t rows_of_lane, bool complete) {
    rows.counts[static_cast<size_t>(lane)] = rows_of_lane;
    rows.complete[static_cast<size_t>(lane)] = complete;
  }

 private:
  WaterStore& store;
  PackRows& rows;
  const int64_t bytes;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
