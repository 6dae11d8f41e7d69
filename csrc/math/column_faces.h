// Face conductivity and boundary fluxes of a column, each with its derivatives.
#pragma once

#include "../column_problem.h"
#include "soil_point.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// ---- face mean of the relative conductivity ------------------------------------------------------------------

template <class V>
struct Mean {
  V k, k_a, k_b;  // mean of kr_a and kr_b, and its derivative in each
};

// `a_is_upstream`: lanes in which a has the larger (or equal) total head.
template <class V>
DGPDE_HD Mean<V> face_mean(FaceMean kind, V kr_a, V kr_b, Mask<V> a_is_upstream) {
  using R = RealOf<V>;
  const V one = broadcast<V>(1);
  switch (kind) {
    case FaceMean::upstream:
      return {select(a_is_upstream, kr_a, kr_b), select(a_is_upstream, one, V{}), select(a_is_upstream, V{}, one)};
    // Conductivities that have faded to 0 (very dry soil) give a mean of 0, which does not respond to either.
    case FaceMean::geometric: {
      const V product = kr_a * kr_b;
      const auto there = product > V{};
      const V k = vsqrt(product), half = select(there, R(0.5) * k, V{});
      return {k, half / select(there, kr_a, one), half / select(there, kr_b, one)};
    }
    case FaceMean::harmonic: {
      const V sum = kr_a + kr_b;
      const V inv = one / select(sum > V{}, sum, one);
      const V fa = kr_a * inv, fb = kr_b * inv;
      return {R(2) * kr_a * fb, R(2) * fb * fb, R(2) * fa * fa};
    }
    default:
      return {R(0.5) * (kr_a + kr_b), broadcast<V>(0.5), broadcast<V>(0.5)};
  }
}

// ---- boundary flux -------------------------------------------------------------------------------------------

// What a boundary face sees: its kind, its cell, the values of the interval. side = +1 at the top, -1 at the bottom.
template <class V>
struct BoundaryFace {
  Boundary kind;
  FaceMean mean;
  V transmissivity;  // Ks / (dz/2) [1/s]
  RealOf<V> rise;    // side * gravity * dz/2 [m]: fall of H from the face to the cell at equal psi
  RealOf<V> half;    // dz/2 [m]
  RealOf<V> gravity;
  RealOf<V> elevation;                     // gravity * z of the cell centre [m]
  V value[4];                              // series values of the interval
  V kr_b;                                  // kr at the boundary head (head) or at psi_min (atmosphere)
  V share = broadcast<V>(1), share_psi{};  // of the evaporation that the cell lets through, its slope (atmosphere)
};

// Inflow q [m/s] and the ponding left at the end of the step, with derivatives in the cell's psi and kr.
template <class V>
struct BoundaryFlux {
  V q, q_psi, q_kr;
  V ponding;
  V runoff;
};

// Derivatives of q, ponding and runoff in everything else; the adjoint and the tangent read them.
enum BoundaryInput {
  kInPsi,
  kInKr,
  kInKrB,
  kInTransmissivity,
  kInValue0,
  kInValue1,
  kInValue2,
  kInValue3,
  kInPonding,
  kInShare
};
constexpr int kBoundaryInputs = 10;
template <class V>
struct BoundaryPartials {
  V q[kBoundaryInputs], ponding[kBoundaryInputs], runoff[kBoundaryInputs];
};

template <class V>
struct Darcy {
  V q, q_psi, q_kr, q_krb, q_t, q_head;
  V conductance, conductance_kr;  // T kf and its derivative in the cell's kr
};
// Flux into the cell from a face held at head psi_b, with conductivity kr_b there.
template <class V>
DGPDE_HD Darcy<V> boundary_darcy(const BoundaryFace<V>& f, V psi_b, V kr_b, V psi, V kr) {
  const V drop = psi_b - psi + f.rise;
  const Mean<V> m = face_mean(f.mean, kr_b, kr, drop >= V{});
  const V tk = f.transmissivity * m.k;
  const V td = f.transmissivity * drop;
  return {tk * drop, -tk, td * m.k_b, td * m.k_a, m.k * drop, tk, tk, f.transmissivity * m.k_b};
}

template <bool kPartials, class V>
DGPDE_HD void boundary_flux(const BoundaryFace<V>& f, V psi, V kr, V ponding_old, V dt, V inv_dt,
                            BoundaryFlux<V>& out, BoundaryPartials<V>* d) {
  using R = RealOf<V>;
  const V one = broadcast<V>(1);
  out = {V{}, V{}, V{}, ponding_old, V{}};
  if constexpr (kPartials) {
    for (int i = 0; i < kBoundaryInputs; ++i) d->q[i] = d->ponding[i] = d->runoff[i] = V{};
    d->ponding[kInPonding] = one;
  }
  switch (f.kind) {
    case Boundary::head: {
      const Darcy<V> s = boundary_darcy(f, f.value[0], f.kr_b, psi, kr);
      out.q = s.q, out.q_psi = s.q_psi, out.q_kr = s.q_kr;
      if constexpr (kPartials) {
        d->q[kInKrB] = s.q_krb, d->q[kInTransmissivity] = s.q_t, d->q[kInValue0] = s.q_head;
      }
      break;
    }
    case Boundary::flux:
      out.q = f.value[0];
      if constexpr (kPartials) d->q[kInValue0] = one;
      break;
    case Boundary::free_drainage: {
      const R c = -f.gravity * f.half;
      out.q = c * f.transmissivity * kr, out.q_kr = c * f.transmissivity;
      if constexpr (kPartials) d->q[kInTransmissivity] = c * kr;
      break;
    }
    case Boundary::seepage_face: {
      const Darcy<V> s = boundary_darcy(f, V{}, one, psi, kr);
      const auto open = s.q < V{};
      out.q = select(open, s.q, V{}), out.q_psi = select(open, s.q_psi, V{}), out.q_kr = select(open, s.q_kr, V{});
      if constexpr (kPartials) d->q[kInTransmissivity] = select(open, s.q_t, V{});
      break;
    }
    case Boundary::general_head: {
      const V drop = f.value[0] - psi - f.elevation;
      out.q = f.value[1] * drop, out.q_psi = -f.value[1];
      if constexpr (kPartials) d->q[kInValue0] = f.value[1], d->q[kInValue1] = drop;
      break;
    }
    case Boundary::deep_water_table: {
      const V above = psi + f.elevation - f.value[0];
      const V e = vexp(f.value[2] * above);
      out.q = -f.value[1] * e, out.q_psi = out.q * f.value[2];
      if constexpr (kPartials) {
        d->q[kInValue0] = -out.q_psi, d->q[kInValue1] = -e, d->q[kInValue2] = out.q * above;
      }
      break;
    }
    case Boundary::atmosphere: {
      const V supply = f.value[0] - f.value[1] * f.share, supply_psi = -f.value[1] * f.share_psi;
      const V ponding_max = f.value[3];
      const V available = supply + ponding_old * inv_dt;
      const Darcy<V> wet = boundary_darcy(f, V{}, one, psi, kr);
      const Darcy<V> dry = boundary_darcy(f, f.value[2], f.kr_b, psi, kr);
      const auto ponded = available > wet.q;
      const auto dried = mask_and(mask_not(ponded), available < dry.q);
      // ponded: q = G (p + rise - psi) with p = p_old + dt (supply - q), solved for q
      const V conductance = wet.conductance;
      const V g = one / (one + dt * conductance);
      const V head = ponding_old + dt * supply + f.rise - psi;
      const V q_pond = conductance * head * g;
      const V p_pond = ponding_old + dt * (supply - q_pond);
      const auto full = mask_and(ponded, p_pond > ponding_max);
      const V head_full = ponding_max + f.rise - psi;
      const V q_full = conductance * head_full;
      out.q = select(ponded, select(full, q_full, q_pond), select(dried, dry.q, available));
      out.ponding = select(ponded, select(full, ponding_max, p_pond), V{});
      out.runoff = select(full, supply - q_full - (ponding_max - ponding_old) * inv_dt, V{});
      out.q_psi = select(ponded, select(full, -conductance, conductance * g * (dt * supply_psi - one)),
                         select(dried, dry.q_psi, supply_psi));
      out.q_kr =
          select(ponded, select(full, head_full, head * g * g) * wet.conductance_kr, select(dried, dry.q_kr, V{}));
      if constexpr (kPartials) {
        const V conductance_t = conductance / f.transmissivity;
        const V pond_head = select(full, V{}, conductance * g);  // dq / d(p_old + dt supply)
        const auto free = mask_and(mask_not(ponded), mask_not(dried));
        d->q[kInKrB] = select(dried, dry.q_krb, V{});
        d->q[kInTransmissivity] =
            select(ponded, select(full, head_full, head * g * g) * conductance_t, select(dried, dry.q_t, V{}));
        d->q[kInValue0] = select(ponded, pond_head * dt, select(free, one, V{}));
        d->q[kInValue1] = -f.share * d->q[kInValue0];
        d->q[kInShare] = -f.value[1] * d->q[kInValue0];
        d->q[kInValue2] = select(dried, dry.q_head, V{});
        d->q[kInValue3] = select(full, conductance, V{});
        d->q[kInPonding] = select(ponded, pond_head, select(free, inv_dt, V{}));
        d->q[kInPsi] = out.q_psi, d->q[kInKr] = out.q_kr;
        const auto level = mask_and(ponded, mask_not(full));
        for (int i = 0; i < kBoundaryInputs; ++i) {
          V direct = V{}, direct_runoff = V{};
          if (i == kInPonding) direct = one, direct_runoff = inv_dt;
          if (i == kInValue0) direct = dt, direct_runoff = one;
          if (i == kInValue1) direct = -dt * f.share, direct_runoff = -f.share;
          if (i == kInShare) direct = -dt * f.value[1], direct_runoff = -f.value[1];
          if (i == kInPsi) direct = dt * supply_psi, direct_runoff = supply_psi;
          if (i == kInValue3) direct_runoff = -inv_dt;
          d->ponding[i] = select(level, direct - dt * d->q[i], V{});
          d->runoff[i] = select(full, direct_runoff - d->q[i], V{});
        }
        d->ponding[kInValue3] = select(full, one, d->ponding[kInValue3]);
      }
      break;
    }
  }
  if constexpr (kPartials) d->q[kInPsi] = out.q_psi, d->q[kInKr] = out.q_kr;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
