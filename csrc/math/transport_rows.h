// The states of the solutes after each accepted step, kept for the adjoint and the tangent; rows as those of the water.
//
// Row r holds x [nz] of each solute, then its kinetically sorbed mass [nz] and its immobile concentration [nz] where it
// has them. The rows of a lane end where its transport failed.
#pragma once

#include "transport_cells.h"

namespace dgpde {

inline namespace DGPDE_ISA {

template <class V>
class TransportRows {
 public:
  TransportRows(TransportStore& store, const TransportProblem& problem, int64_t pack)
      : p(problem), rows(store.packs[static_cast<size_t>(pack)]), bytes(store.row_bytes()) {}

  int64_t count(int lane) const { return rows.counts[static_cast<size_t>(lane)]; }
  void finish(int lane, int64_t rows_of_lane) { rows.counts[static_cast<size_t>(lane)] = rows_of_lane; }

  // A state of a solute in a row: [nz].
  V* at(int64_t r, int64_t solute, int state) const {
    V* found = nullptr;
    each(r, [&](int64_t i, int j, V* address) {
      if (i == solute && j == state) found = address;
    });
    return found;
  }

  // work(state of solute and kind of state, address of its [nz])
  template <class Work>
  void each(int64_t r, const Work& work) const {
    V* at = reinterpret_cast<V*>(rows.row(r, bytes));
    for (int64_t i = 0; i < p.solutes(); ++i) {
      const SoluteKind& kind = p.kinds[static_cast<size_t>(i)];
      work(i, 0, at), at += p.nz;
      if (kind.kinetic) work(i, 1, at), at += p.nz;
      if (kind.immobile) work(i, 2, at), at += p.nz;
    }
  }

 private:
  const TransportProblem& p;
  PackRows& rows;
  const int64_t bytes;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
