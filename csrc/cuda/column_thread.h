// What one thread does: its column from the start, or from where it paused. Compiled by nvcc into the kernels of
// column_flow.cu and by the host compiler into csrc/cpu/host_threads.cpp, which is how it is tested without a GPU.
#pragma once

#include "../math/column_adjoint.h"
#include "../math/column_forward.h"
#include "../math/column_tangent.h"
#include "column_run.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// The history of one column; V is a plain number.
template <class V>
class ThreadHistory {
 public:
  struct Step {
    double dt;
    int64_t interval;
  };

  DGPDE_HD ThreadHistory(const DeviceHistory& history, int64_t cells, int64_t which)
      : h(history),
        nz(cells),
        column(which),
        group(which / kGroup),
        lane(which % kGroup),
        rows(history.blocks ? history.counts[which] : 0) {}

  static DGPDE_HD int64_t row_bytes(int64_t nz) { return kGroup * ((nz + 1) * int64_t(sizeof(V)) + 16); }

  // ---- writing
  DGPDE_HD bool full() const { return h.blocks && rows >= int64_t(h.granted[group]) * kRowsPerBlock; }
  DGPDE_HD void begin(const Cells<V>& c, const V& ponding) {
    rows = 0;
    add(-1, c, ponding, 0.0);
  }
  DGPDE_HD void record(bool accepted, const int64_t* interval, const Cells<V>& c, const V& ponding,
                       const double* dt) {
    if (accepted) add(interval[0], c, ponding, dt[0]);
  }
  DGPDE_HD void finish(int, bool done) {
    if (h.blocks) h.complete[column] = done;
    keep();
  }
  // What a paused column must find again.
  DGPDE_HD void keep() {
    if (h.blocks) h.counts[column] = rows;
  }

  // ---- reading, with the lane number that packs need; rows past the ends are those at the ends
  DGPDE_HD int64_t count(int) const { return rows; }
  DGPDE_HD Step step(int64_t r, int) const {
    const Row at = row(clamp(r));
    return clamp(r) < 1 ? Step{1.0, 0} : Step{*at.dt, *at.interval};
  }
  DGPDE_HD bool ends_interval(int64_t r, int) const {
    return r + 1 >= rows ? h.complete[column] != 0 : *row(r + 1).interval != *row(r).interval;
  }
  DGPDE_HD V ponding(int64_t r, int) const { return *row(clamp(r)).ponding; }
  template <class Arrive>
  DGPDE_HD void load(const int64_t* r, int64_t shift, const Arrive& arrive) const {
    const Row from = row(clamp(r[0] + shift));
    for (int64_t k = 0; k < nz; ++k) arrive(k, from.psi[k * kGroup]);
  }

 private:
  struct Row {
    V *psi, *ponding;
    double* dt;
    int64_t* interval;
  };
  DGPDE_HD Row row(int64_t r) const {
    const int64_t block = h.blocks[r / kRowsPerBlock * h.groups + group];
    char* at = reinterpret_cast<char*>(block) + r % kRowsPerBlock * row_bytes(nz);
    V* psi = reinterpret_cast<V*>(at);
    double* dt = reinterpret_cast<double*>(psi + (nz + 1) * kGroup);
    return {psi + lane, psi + nz * kGroup + lane, dt + lane, reinterpret_cast<int64_t*>(dt + kGroup) + lane};
  }
  DGPDE_HD int64_t clamp(int64_t r) const { return r < rows ? (r < 0 ? 0 : r) : rows - 1; }
  DGPDE_HD void add(int64_t interval, const Cells<V>& c, const V& ponding, double dt) {
    if (!h.blocks) return;
    const Row to = row(rows++);
    for (int64_t k = 0; k < nz; ++k) to.psi[k * kGroup] = c.psi_old(k);
    *to.ponding = ponding, *to.dt = dt, *to.interval = interval;
  }

  const DeviceHistory& h;
  const int64_t nz, column, group, lane;
  int64_t rows;
};

template <class V>
DGPDE_HD V* thread_scratch(const ColumnRun& run, int64_t i, int64_t size) {
  return static_cast<V*>(run.scratch) + i / kGroup * kGroup * size + i % kGroup;
}

// Column run.first + i, forward.
template <class V>
DGPDE_HD void forward_thread(const ColumnRun& run, const ColumnOutput& out, int64_t i) {
  if (i >= run.count || run.phase[i] == kDone) return;
  using Rest = typename ColumnForward<V>::Rest;
  const ColumnProblem& p = run.problem;
  Rest* rest = static_cast<Rest*>(run.rest) + i;
  ThreadHistory<V> history(run.history, p.nz, run.first + i);
  ColumnForward<V> column(p, out, Lanes{run.first + i, p.n}, thread_scratch<V>(run, i, Cells<V>::size(p.nz)), kGroup,
                          run.phase[i] == kPaused ? rest : nullptr);
  if (column.run(history)) {
    run.phase[i] = kDone;
    return;
  }
  *rest = column.rest();
  history.keep();
  run.phase[i] = kPaused;
}

// Engine is ColumnAdjoint or ColumnTangent. The thread's number is that of the table gradient it adds to, so
// sums over columns need no atomics and have the same bits on every run.
template <class Engine, class V, class Io>
DGPDE_HD void replay_thread(const ColumnRun& run, const Io& io, int64_t i) {
  if (i >= run.count) return;
  const ColumnProblem& p = run.problem;
  ThreadHistory<V> history(run.history, p.nz, run.first + i);
  Engine(p, io, Lanes{run.first + i, p.n}, i, thread_scratch<V>(run, i, ReplayCells<V>::size(p.nz)), kGroup)
      .run(history);
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
