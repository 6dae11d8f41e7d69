// One accepted step of the transport read back from its rows, for the adjoint and the tangent; neither iterates.
#pragma once

#include "transport_plain.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class TransportReplay : protected TransportPlain<V> {
  using Base = TransportPlain<V>;

 protected:
  using Base::Base;
  using Base::p, Base::lanes, Base::c, Base::active, Base::solute;
  using typename Base::R;

  DGPDE_HD int64_t solute_at(int64_t t, int64_t i) const { return (t * p.solutes() + i) * p.n; }
  // Of state j of a solute, in what passes from segment to segment.
  DGPDE_HD int64_t state_at(int64_t i, int j, int64_t k) const { return ((i * kStates + j) * p.nz + k) * p.n; }

  // The states before the step, and what decayed in it; of a plain solute only if `all`, or if it has a daughter.
  DGPDE_HD void load_states(const TransportRows<V>& kept, int64_t r, bool all) {
    kept.each(r - 1, [&](int64_t i, int j, const V* at) {
      if (!all && this->is_plain(i)) return;
      const SoluteCells<V> s = solute(i);
      for (int64_t k = 0; k < p.nz; ++k) s.state(k, j) = select(active, at[k], V{});
    });
    for (int64_t i = 0; i < p.solutes(); ++i) {
      if (!all && this->is_plain(i) && !this->has_daughter(i)) continue;
      const SoluteKind& kind = p.kinds[i];
      const SoluteCells<V> s = solute(i);
      const V *x = kept.at(r, i, 0), *sorbed = kept.at(r, i, 1), *still = kept.at(r, i, 2);
      for (int64_t k = 0; k < p.nz; ++k) {
        s.of_decayed(k) = V{};
        const Phases<V> f =
            phases<V>(kind.isotherm, select(active, x[k], V{}), s.input(k, kCapacity), s.input(k, kShape));
        V held = this->mobile(s, k) * f.c + (kind.kinetic ? select(active, sorbed[k], V{}) : f.m);
        if (kind.immobile) held = held + s.input(k, kImmobileTheta) * select(active, still[k], V{});
        s.decayed(k) = this->size(k) * s.input(k, kDecay) * held;
      }
    }
  }

  static DGPDE_HD V sign(V q) {
    const V one = broadcast<V>(1);
    return select(q > V{}, one, select(q < V{}, -one, V{}));
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
