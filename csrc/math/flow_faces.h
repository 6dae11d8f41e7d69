// Flow through an inner face of the 7-point stencil, and its derivatives.
//
//   q = T kf drop,  drop = H_b - H_a = psi_b - psi_a + rise        (flow from b into a; a is below, south or west)
#pragma once

#include "column_faces.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
struct FaceFlow {
  V drop, mean, mean_a, mean_b;
};

template <class V>
DGPDE_HD FaceFlow<V> face_flow(FaceMean kind, V psi_a, V psi_b, V kr_a, V kr_b, V rise) {
  const V drop = psi_b - psi_a + rise;
  const Mean<V> m = face_mean(kind, kr_a, kr_b, drop <= V{});
  return {drop, m.k, m.k_a, m.k_b};
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
