// The rows of the water of accepted steps and of the solutes in it; what their bytes mean is known to
// csrc/math/water_rows.h and csrc/math/transport_rows.h.
#pragma once

#include "../transport_problem.h"
#include "history.h"

namespace dgpde {

struct WaterStore : RowStore {
  bool roots = false, elastic = false, source = false, before = false;
  bool constant = false;           // water that does not change: its values stand in row 0, for every step
  std::vector<double> steps;       // of such water, [row][lane] s; their number is that of every lane's rows
  std::vector<int64_t> intervals;  // likewise: their output intervals
  void allocate(int64_t columns, int64_t cells, int lanes, int bytes) {
    const int64_t parts = 2 + (roots ? 1 : 0) + (elastic ? 1 : 0) + (source ? 1 : 0) + (before ? 1 : 0);
    RowStore::allocate(columns, cells, lanes, bytes, parts * cells + 1);
  }
};

struct TransportStore : RowStore {
  void allocate(const TransportProblem& p, int lanes, int bytes) {
    int64_t values_in_row = 0;
    for (const SoluteKind& kind : p.kinds)
      values_in_row += (1 + (kind.kinetic ? 1 : 0) + (kind.immobile ? 1 : 0)) * p.nz;
    RowStore::allocate(p.n, p.nz, lanes, bytes, values_in_row);
  }
};

}  // namespace dgpde
