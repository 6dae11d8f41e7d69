// The list of soil relations and the choice among them, which is the same for every cell of a run.
#pragma once

#include <type_traits>

#include "duo.h"
#include "soil_brooks_corey.h"
#include "soil_durner.h"
#include "soil_fredlund_xing.h"
#include "soil_gardner.h"
#include "soil_haverkamp.h"
#include "soil_kosugi.h"
#include "soil_network.h"
#include "soil_peters_durner_iden.h"
#include "soil_saturated.h"
#include "soil_tabulated.h"
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
  network = 10,
};

// The one place that names every relation: `use` is called with the relation's type.
template <class F>
DGPDE_HD void with_relation(SoilKind kind, F&& use) {
  switch (kind) {
    case SoilKind::van_genuchten:
      use(VanGenuchten{});
      break;
    case SoilKind::brooks_corey:
      use(BrooksCorey{});
      break;
    case SoilKind::gardner:
      use(Gardner{});
      break;
    case SoilKind::haverkamp:
      use(Haverkamp{});
      break;
    case SoilKind::kosugi:
      use(Kosugi{});
      break;
    case SoilKind::fredlund_xing:
      use(FredlundXing{});
      break;
    case SoilKind::durner:
      use(Durner{});
      break;
    case SoilKind::peters_durner_iden:
      use(PetersDurnerIden{});
      break;
    case SoilKind::saturated:
      use(Saturated{});
      break;
    case SoilKind::tabulated:
      use(Tabulated{});
      break;
    default:  // network
      use(Network{});
  }
}

DGPDE_HD int soil_raw_count(SoilKind kind) {
  int n = 0;
  with_relation(kind, [&](auto relation) { n = decltype(relation)::n_raw; });
  return n;
}

DGPDE_HD int soil_derived_count(SoilKind kind) {
  int n = 0;
  with_relation(kind, [&](auto relation) { n = decltype(relation)::n_derived; });
  return n;
}

// What a run knows of its soil besides the per-cell parameters.
struct SoilModel {
  SoilKind kind;
  int32_t variant;    // Brooks-Corey: 0 Mualem, 1 Burdine; Haverkamp: 0 power, 1 logarithm
  SoilTable table{};  // tabulated soils
  SoilNetwork network{};
};

template <class Relation>
constexpr bool is_tabulated = std::is_same_v<Relation, Tabulated>;

// What a relation reads besides a cell's own values: its table, its weights, or the variant.
template <class Relation>
DGPDE_HD const auto& soil_shared(const SoilModel& m) {
  if constexpr (is_tabulated<Relation>)
    return m.table;
  else if constexpr (std::is_same_v<Relation, Network>)
    return m.network;
  else
    return m.variant;
}
template <class Relation>
constexpr bool reads_shared = is_tabulated<Relation> || std::is_same_v<Relation, Network>;

#ifdef __CUDACC__
// A GPU thread keeps what it can in registers. What it passes to a function by reference it cannot, and with one
// member the whole run would move to memory: so these calls pass values.
#define DGPDE_BY_REFERENCE DGPDE_HD
#else
#define DGPDE_BY_REFERENCE DGPDE_HD_NOINLINE
#endif

template <class V, class A, class D>
DGPDE_BY_REFERENCE void soil_prepare(const SoilModel& m, const A& raw, const D& d) {
  with_relation(m.kind, [&](auto relation) {
    using Relation = decltype(relation);
    Relation::template prepare<V>(soil_shared<Relation>(m), raw, d);
  });
}

template <class V, class D>
DGPDE_BY_REFERENCE void soil_wet_suction(const SoilModel& m, const D& d, V& h) {
  with_relation(m.kind, [&](auto relation) {
    using Relation = decltype(relation);
    if constexpr (reads_shared<Relation>)
      h = Relation::template wet_suction<V>(soil_shared<Relation>(m), d);
    else
      h = Relation::template wet_suction<V>(d);
  });
}

// Suction at which theta or kr has a kink besides psi = 0, or 0.
template <class V, class D>
DGPDE_HD V soil_kink_suction(const SoilModel& m, const D& d) {
  if (m.kind == SoilKind::van_genuchten) return VanGenuchten::kink_suction<V>(d);
  if (m.kind == SoilKind::brooks_corey) return BrooksCorey::wet_suction<V>(d);
  if (m.kind == SoilKind::haverkamp) return Haverkamp::kink_suction<V>(d);
  if (m.kind == SoilKind::fredlund_xing) return FredlundXing::kink_suction<V>(d);
  if (m.kind == SoilKind::peters_durner_iden) return PetersDurnerIden::kink_suction<V>(d);
  return V{};
}

// A function of its own: its loops do not change how the compiler sees the other relations. Packs come to it in pairs, a
// single one beside a copy of itself, so that what it rounds is the same in either place.
template <bool kPartials, class V, class D>
DGPDE_BY_REFERENCE void network_point(const SoilNetwork& net, const D& d, const V& psi, SoilPoint<V>& p, V* dtheta,
                                      V* dkr) {
  Network::evaluate<kPartials>(net, d, V(psi), p, dtheta, dkr);
}

template <class Relation, bool kPartials, class V, class D>
DGPDE_HD void soil_one(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
  if constexpr (is_tabulated<Relation>)
    Relation::template evaluate<kPartials>(m.table, d, psi, p, dtheta, dkr);
  else if constexpr (!reads_shared<Relation>)
    Relation::template evaluate<kPartials>(d, psi, p, dtheta, dkr);
  else if constexpr (Lane<V>::width == 1)
    network_point<kPartials, V>(m.network, d, psi, p, dtheta, dkr);
  else {
    SoilPoint<Duo<V>> q;
    Duo<V> t[kMaxRaw], k[kMaxRaw];
    network_point<kPartials, Duo<V>>(m.network, DuoView<D>{d, d}, Duo<V>{psi, psi}, q, t, k);
    p = {q.theta.a, q.kr.a, q.capacity.a, q.dkr.a};
    if constexpr (kPartials)
      for (int i = 0; i < kMaxRaw; ++i) dtheta[i] = t[i].a, dkr[i] = k[i].a;
  }
}

template <bool kPartials, class V, class D>
DGPDE_HD void soil_point(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
  with_relation(m.kind, [&](auto relation) { soil_one<decltype(relation), kPartials>(m, d, psi, p, dtheta, dkr); });
}

#ifdef __CUDACC__
template <class V, class D>
DGPDE_HD_NOINLINE SoilPoint<V> soil_evaluate_call(SoilModel m, D d, V psi) {
  SoilPoint<V> p;
  soil_point<false>(m, d, psi, p, static_cast<V*>(nullptr), static_cast<V*>(nullptr));
  return p;
}
template <class V, class D>
DGPDE_HD_NOINLINE SoilPoint<V> soil_partials_call(SoilModel m, D d, V psi, V* dtheta, V* dkr) {
  SoilPoint<V> p;
  soil_point<true>(m, d, psi, p, dtheta, dkr);
  return p;
}
#endif

template <class V, class D>
DGPDE_BY_REFERENCE void soil_evaluate(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p) {
#ifdef __CUDACC__
  p = soil_evaluate_call<V>(m, d, psi);
#else
  soil_point<false>(m, d, psi, p, static_cast<V*>(nullptr), static_cast<V*>(nullptr));
#endif
}

// As soil_evaluate, with the derivatives of theta and kr in each raw parameter. Tabulated: in the 8 numbers of the
// table that start at Tabulated::places(), as far as a curve depends on them (Tabulated::of_theta).
template <class V, class D>
DGPDE_BY_REFERENCE void soil_partials(const SoilModel& m, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
#ifdef __CUDACC__
  p = soil_partials_call<V>(m, d, psi, dtheta, dkr);
#else
  soil_point<true>(m, d, psi, p, dtheta, dkr);
#endif
}

// Two cells at a time, in less than twice the time of one. The pair of points is assigned to `point`; with partials
// dtheta[i] and dkr[i] are assigned one pair a parameter.
template <class Relation, bool kPartials, class V, class D, class S, class P>
DGPDE_HD void soil_pair_of(const SoilModel& m, const DuoView<D>& d, const Duo<V>& psi, S& point, const P& dtheta,
                           const P& dkr) {
  SoilPoint<Duo<V>> p;
  if constexpr (std::is_same_v<Relation, Network>) {
    Duo<V> t[kMaxRaw], k[kMaxRaw];
    network_point<kPartials, Duo<V>>(m.network, d, psi, p, t, k);
    if constexpr (kPartials)
      for (int i = 0; i < kMaxRaw; ++i) dtheta[i] = t[i], dkr[i] = k[i];
  } else if constexpr (is_tabulated<Relation>) {  // reads its table lane by lane
    SoilPoint<V> a, b;
    V t[2][kMaxRaw], k[2][kMaxRaw];
    soil_one<Relation, kPartials>(m, d.a, psi.a, a, t[0], k[0]);
    soil_one<Relation, kPartials>(m, d.b, psi.b, b, t[1], k[1]);
    p = {{a.theta, b.theta}, {a.kr, b.kr}, {a.capacity, b.capacity}, {a.dkr, b.dkr}};
    if constexpr (kPartials)
      for (int i = 0; i < kMaxRaw; ++i) {
        if (Relation::of_theta(i) || i == Relation::kKnot) dtheta[i] = {t[0][i], t[1][i]};
        if (!Relation::of_theta(i)) dkr[i] = {k[0][i], k[1][i]};
      }
  } else {
    Relation::template evaluate<kPartials>(d, psi, p, dtheta, dkr);
  }
  point = p;
}
template <bool kPartials, class V, class D, class S, class P>
DGPDE_HD_NOINLINE void soil_pair(const SoilModel& m, const DuoView<D>& d, const Duo<V>& psi, S& point,
                                 const P& dtheta, const P& dkr) {
  with_relation(m.kind,
                [&](auto relation) { soil_pair_of<decltype(relation), kPartials>(m, d, psi, point, dtheta, dkr); });
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
