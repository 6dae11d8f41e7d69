// How an engine writes and reads the rows of a ColumnHistory (csrc/cpu/history.h).
#pragma once

#include "../cpu/history.h"
#include "column_cells.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
struct RowView {
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;
  V* psi;             // [nz]
  R* ponding;         // [W]
  double* dt;         // [W]
  int64_t* interval;  // [W]
};

template <class V>
inline RowView<V> row_view(char* data, int64_t nz) {
  RowView<V> r;
  constexpr int W = RowView<V>::W;
  r.psi = reinterpret_cast<V*>(data);
  r.ponding = reinterpret_cast<RealOf<V>*>(r.psi + nz);
  r.dt = reinterpret_cast<double*>(r.ponding + W);
  r.interval = reinterpret_cast<int64_t*>(r.dt + W);
  return r;
}

// Records nothing: a forward run of which no gradient is asked.
struct NoHistory {
  template <class C, class V>
  void begin(const C&, const V&) {}
  template <class M, class C, class V>
  void record(const M&, const int64_t*, const C&, const V&, const double*) {}
  void finish(int, bool) {}
  bool full() const { return false; }
};

template <class V>
class PackHistory {
  static constexpr int W = Lane<V>::width;

 public:
  PackHistory(ColumnHistory& history, int64_t pack)
      : rows(history.packs[static_cast<size_t>(pack)]), nz(history.nz), bytes(history.row_bytes()) {}

  int64_t count(int lane) const { return rows.counts[static_cast<size_t>(lane)]; }
  RowView<V> row(int64_t r) { return row_view<V>(rows.row(r, bytes), nz); }

  void begin(const Cells<V>& c, const V& ponding) {
    const RowView<V> r = row(0);
    for (int64_t k = 0; k < nz; ++k) r.psi[k] = c.psi_old(k);
    for (int lane = 0; lane < W; ++lane) {
      r.ponding[lane] = get(ponding, lane), r.dt[lane] = 0.0, r.interval[lane] = -1;
      rows.counts[static_cast<size_t>(lane)] = 1;
    }
  }

  // The step that led to a lane's row r. A lane that never took a step shows row 0 with a step of 1 s.
  struct Step {
    double dt;
    int64_t interval;
  };
  Step step(int64_t r, int lane) {
    const int64_t at = clamp(r, lane);
    if (at < 1) return {1.0, 0};
    const RowView<V> v = row(at);
    return {v.dt[lane], v.interval[lane]};
  }
  bool ends_interval(int64_t r, int lane) {
    return r + 1 >= count(lane) ? complete(lane) : row(r + 1).interval[lane] != row(r).interval[lane];
  }
  RealOf<V> ponding(int64_t r, int lane) { return row(clamp(r, lane)).ponding[lane]; }

  // Each lane's row r[lane] + shift, cell after cell: arrive(k, psi).
  template <class Arrive>
  void load(const int64_t* r, int64_t shift, const Arrive& arrive) {
    const V* from[W];
    bool together = true;
    for (int lane = 0; lane < W; ++lane) {
      from[lane] = row(clamp(r[lane] + shift, lane)).psi;
      together &= from[lane] == from[0];
    }
    if (together) {
      // rows lie far apart: the one that the adjoint comes to next is fetched meanwhile, not so near as to push out the
      // column
      const int64_t at = clamp(r[0] + shift, 0);
      const V *psi = from[0], *next = row(at > 0 ? at - 1 : 0).psi;
      for (int64_t k = 0; k < nz; ++k) {
        __builtin_prefetch(&next[k], 0, 2);
        arrive(k, psi[k]);
      }
      // ponding, steps and intervals are read a row ahead of the heads
      const V* after = row(at > 1 ? at - 2 : 0).psi;
      for (int i = 0; i < 3; ++i) __builtin_prefetch(&after[nz + i], 0, 2);
      return;
    }
    for (int64_t k = 0; k < nz; ++k) {
      V psi;
      for (int lane = 0; lane < W; ++lane) put(psi, lane, get(from[lane][k], lane));
      arrive(k, psi);
    }
  }

  bool full() const { return false; }
  void finish(int lane, bool done) { rows.complete[static_cast<size_t>(lane)] = done; }
  bool complete(int lane) const { return rows.complete[static_cast<size_t>(lane)] != 0; }

  // The lanes of `mask` have just accepted the state in c.psi_old.
  void record(const Mask<V>& mask, const int64_t* interval, const Cells<V>& c, const V& ponding, const double* dt) {
    bool together = true;
    int64_t common = -1;
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(mask, lane)) continue;
      const int64_t mine = count(lane);
      together &= common < 0 || mine == common;
      common = mine;
    }
    if (together) {
      const RowView<V> r = row(common);
      for (int64_t k = 0; k < nz; ++k) r.psi[k] = select(mask, V(c.psi_old(k)), r.psi[k]);
    }
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(mask, lane)) continue;
      int64_t& mine = rows.counts[static_cast<size_t>(lane)];
      const RowView<V> r = row(mine);
      if (!together)
        for (int64_t k = 0; k < nz; ++k) put(r.psi[k], lane, get(V(c.psi_old(k)), lane));
      r.ponding[lane] = get(ponding, lane);
      r.dt[lane] = dt[lane];
      r.interval[lane] = interval[lane];
      ++mine;
    }
  }

 private:
  int64_t clamp(int64_t r, int lane) const { return r < count(lane) ? (r < 0 ? 0 : r) : count(lane) - 1; }

  PackRows& rows;
  const int64_t nz, bytes;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
