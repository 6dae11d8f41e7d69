// How the water of each step moves, as the tangent run of a column flow leaves it for a transport tangent.
#pragma once

#include "water_rows.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class WaterMoves {
 public:
  static constexpr bool kThere = true;
  explicit WaterMoves(const WaterRows<V>& rows_of_moves) : rows(rows_of_moves) {}

  WaterRow<V> before, now;  // tangents at the beginning of the step in hand and in it

  // The active lanes come to their r-th step, all of them to the same row.
  void enter(int64_t r) { before = rows.row(r - 1), now = rows.row(r); }

  // Fluxes by continuity, upward from that of the bottom.
  void close(V bottom_flux, V inv_dt, const double* dz) const {
    V q = bottom_flux;
    now.flux[0] = q;
    for (int64_t k = 0; k < rows.cells(); ++k) {
      const auto size = static_cast<RealOf<V>>(dz[k]);
      V gain = -size * inv_dt * (now.theta[k] - before.theta[k]) - now.elastic[k];
      if (now.taken) gain = gain - now.taken[k];
      if (now.source) gain = gain + now.source[k];
      q = q + gain;
      now.flux[k + 1] = q;
    }
  }

 private:
  const WaterRows<V>& rows;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
