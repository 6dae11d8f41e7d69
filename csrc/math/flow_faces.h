// Flow through an inner face of the 7-point stencil, and its derivatives.
//
//   q = T kf drop,  drop = H_b - H_a = psi_b - psi_a + rise        (flow from b into a; a is below, south or west)
#pragma once

#include <utility>

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

// Sum of the magnitudes that are added to form a boundary flux, for its round-off (kernels/reference_faces.py).
inline double flux_scale(const BoundaryFace<double>& f, double psi, double kr, double ponding_old, double dt,
                         double q) {
  const auto darcy = [&](double psi_b, double kr_b) {
    const double drop = psi_b - psi + f.rise;
    const double k = f.transmissivity * face_mean(f.mean, kr_b, kr, drop >= 0.0).k;
    return std::pair<double, double>(k * (vabs(psi_b) + vabs(psi) + vabs(f.rise)), k);
  };
  switch (f.kind) {
    case Boundary::head:
      return darcy(f.value[0], f.kr_b).first;
    case Boundary::seepage_face:
      return darcy(0.0, 1.0).first;
    case Boundary::general_head:
      return f.value[1] * (vabs(f.value[0]) + vabs(psi) + vabs(f.elevation));
    case Boundary::atmosphere: {
      const auto [wet, conductance] = darcy(0.0, 1.0);
      const double net = f.value[0] - f.value[1] * f.share, available = net + ponding_old / dt;
      if (available > conductance * (f.rise - psi))
        return wet + conductance * (ponding_old + dt * vabs(net) + f.value[3]);
      const auto [dry, k] = darcy(f.value[2], f.kr_b);
      return available < k * (f.value[2] - psi + f.rise) ? dry : vabs(available);
    }
    default:
      return vabs(q);
  }
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
