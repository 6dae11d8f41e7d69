// What a soil relation returns, and the pattern that every relation follows.
//
// A relation is a struct with
//   n_raw       its raw parameters, in the order of SOIL_PARAMETERS in dgpde/kernels/column_flow/problem.py
//   n_derived   values per cell that are worked out once per run by prepare()
//   prepare(variant, raw, d)            raw parameters -> derived values. Always d[0] = residual water content
//                                       (0 where the relation has none), d[0] + d[1] = theta at psi = 0
//   wet_suction(d)                      suction [m] near the inflection of theta(psi): Newton restarts from there
//   evaluate<partials>(d, psi, p, dtheta, dkr)
//                                       theta, kr and their slopes in psi; with partials also the derivatives of
//                                       theta and kr in every raw parameter: dtheta[i] = ..., written once, never read
// `raw` and `d` are indexable by parameter number: arrays or strided views.
#pragma once

#include "vecmath.h"

namespace dgpde {
inline namespace DGPDE_ISA {

constexpr int kMaxRaw = 8;       // most raw parameters of a relation
constexpr int kMaxDerived = 12;  // most derived values of a relation

template <class V>
struct SoilPoint {
  V theta;     // water content [-]
  V kr;        // relative conductivity [-]
  V capacity;  // dtheta/dpsi [1/m]
  V dkr;       // dkr/dpsi [1/m]
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
