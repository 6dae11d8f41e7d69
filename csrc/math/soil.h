// The list of soil relations and the choice among them, which is the same for every cell of a run.
#pragma once

#include "soil_gardner.h"
#include "soil_saturated.h"
#include "soil_van_genuchten.h"

namespace dgpde {
inline namespace DGPDE_ISA {

enum class SoilKind : int32_t {
  van_genuchten = 0,
  brooks_corey = 1,
  gardner = 2,
  haverkamp = 3,
  kosugi = 4,
  fredlund_xing = 5,
  durner = 6,
  peters_durner_iden = 7,
  saturated = 8,
  tabulated = 9,
};

// The one place that names every relation: `use` is called with the relation's type.
template <class F>
DGPDE_HD void with_relation(SoilKind kind, F&& use) {
  switch (kind) {
    case SoilKind::van_genuchten:
      use(VanGenuchten{});
      break;
    case SoilKind::gardner:
      use(Gardner{});
      break;
    case SoilKind::saturated:
      use(Saturated{});
      break;
    default:
      break;
  }
}

// What a run knows of its soil besides the per-cell parameters.
struct SoilModel {
  SoilKind kind;
  int32_t variant;  // of Brooks-Corey: 0 Mualem, 1 Burdine
};

template <class V, class A, class D>
DGPDE_HD_NOINLINE void soil_prepare(const SoilModel& m, const A& raw, const D& d) {
  with_relation(m.kind, [&](auto relation) { decltype(relation)::template prepare<V>(m.variant, raw, d); });
}

template <class V, class D>
DGPDE_HD_NOINLINE void soil_wet_suction(const SoilModel& m, const D& d, V& h) {
  with_relation(m.kind, [&](auto relation) { h = decltype(relation)::template wet_suction<V>(d); });
}

template <class V, class D>
DGPDE_HD_NOINLINE void soil_evaluate(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p) {
  with_relation(m.kind, [&](auto relation) {
    decltype(relation)::template evaluate<false>(d, psi, p, static_cast<V*>(nullptr), static_cast<V*>(nullptr));
  });
}

// As soil_evaluate, with the derivatives of theta and kr in each raw parameter.
template <class V, class D>
DGPDE_HD_NOINLINE void soil_partials(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
  with_relation(m.kind, [&](auto relation) { decltype(relation)::template evaluate<true>(d, psi, p, dtheta, dkr); });
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
