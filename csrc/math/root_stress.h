// Reduction a(psi) in [0, 1] of root-water uptake, with its derivatives: by Feddes' four heads or by a table.
#pragma once

#include "response_table.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Piecewise linear: rises from 0 at h4 to 1 at h3, stays 1 to h2, falls to 0 at h1 (h1 > h2 > h3 > h4), as Feddes,
// Kowalik & Zaradny (1978) have it. a_h: derivatives in h1..h4 (with partials only).
template <bool kPartials, class V>
DGPDE_HD Response<V> feddes(const V* h, V psi, V* a_h) {
  const V one = broadcast<V>(1);
  Response<V> s;
  const auto wet = mask_and(psi > h[1], psi < h[0]);
  const auto dry = mask_and(psi<h[2], psi> h[3]);
  const auto best = mask_and(psi <= h[1], psi >= h[2]);
  const V wet_slope = one / (h[0] - h[1]), dry_slope = one / (h[2] - h[3]);
  const V a_wet = (h[0] - psi) * wet_slope, a_dry = (psi - h[3]) * dry_slope;
  s.a = select(best, one, select(wet, a_wet, select(dry, a_dry, V{})));
  s.a_psi = select(wet, -wet_slope, select(dry, dry_slope, V{}));
  if constexpr (kPartials) {
    a_h[0] = select(wet, wet_slope * (one - a_wet), V{});
    a_h[1] = select(wet, wet_slope * a_wet, V{});
    a_h[2] = select(dry, -dry_slope * a_dry, V{});
    a_h[3] = select(dry, dry_slope * (a_dry - one), V{});
  }
  return s;
}

// The response that the problem has; h: Feddes' heads of the interval. A table is not read where `weight` is 0.
template <class V>
DGPDE_HD Response<V> root_stress(const ColumnProblem& p, const Lanes& lanes, const V* h, V psi, V weight) {
  if (p.response[kRoots].count == 0) return feddes<false, V>(h, psi, nullptr);
  return any(weight != V{}) ? tabulated_response<V>(p, kRoots, lanes, psi) : Response<V>{};
}

template <class V>
DGPDE_HD void load_feddes(const ColumnProblem& p, const int64_t* interval, const Lanes& lanes, V* h) {
  if (p.response[kRoots].count > 0) return;
  for (int i = 0; i < 4; ++i) h[i] = load_series<V>(p.in.feddes[i], interval, 0, lanes);
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
