// Cotangents of the water of each step, from rows that a transport adjoint has filled, as ColumnAdjoint takes them.
#pragma once

#include "column_adjoint.h"
#include "water_rows.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class WaterSeeds {
  static constexpr int W = Lane<V>::width;

 public:
  static constexpr bool kThere = true;
  explicit WaterSeeds(const WaterRows<V>& bars) : rows(bars) {}

  bool elastic() const { return rows.row(0).elastic != nullptr; }

  // Adds those of theta in each lane's row; leaves the others in memory [nz][kSeeds] and returns that of the bottom
  // flux.
  template <class Theta>
  V load(const int64_t* row, Mask<V> active, V* memory, const Theta& theta) const {
    using Adjoint = ColumnAdjoint<V>;
    const int64_t nz = rows.cells();
    V bottom{};
    for (int64_t k = 0; k < nz * Adjoint::kSeeds; ++k) memory[k] = V{};
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(active, lane)) continue;
      const WaterRow<V> r = rows.row(row[lane]);
      put(bottom, lane, get(r.flux[0], lane));
      for (int64_t k = 0; k < nz; ++k) {
        V* seeds = memory + k * Adjoint::kSeeds;
        put(theta(k), lane, get(theta(k), lane) + get(r.theta[k], lane));
        if (r.elastic) put(seeds[Adjoint::kSeedElastic], lane, get(r.elastic[k], lane));
        if (r.taken) put(seeds[Adjoint::kSeedTaken], lane, get(r.taken[k], lane));
        if (r.source) put(seeds[Adjoint::kSeedSource], lane, get(r.source[k], lane));
        put(seeds[Adjoint::kSeedBefore], lane, get(r.before[k], lane));
      }
    }
    return bottom;
  }

 private:
  const WaterRows<V>& rows;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
