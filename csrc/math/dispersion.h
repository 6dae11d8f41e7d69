// Dispersion through a face and its derivatives, for the transport stencil (dgpde/kernels/transport_stencil/dispersion.py).
//
//   (theta D)_nn = pore + (a_L q_n^2 + a_1 q_1^2 + a_2 q_2^2)/|q|,   (theta D)_nt = (a_L - a_t) q_n q_t/|q|
#pragma once

#include <cmath>

namespace dgpde {

struct FaceDispersion {
  double q[3];        // along the face's normal, and the two other axes
  double a[3], pore;  // coefficients that go with them
  double nn, nt[2];

  inline void evaluate() {
    const double square = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
    const double inverse = square > 0.0 ? 1.0 / std::sqrt(square > 0.0 ? square : 1.0) : 0.0;
    nn = pore + (a[0] * q[0] * q[0] + a[1] * q[1] * q[1] + a[2] * q[2] * q[2]) * inverse;
    for (int t = 0; t < 2; ++t) nt[t] = (a[0] - a[1 + t]) * q[0] * q[1 + t] * inverse;
  }

  // Cotangents of q and a, of pore is that of nn, from those of nn and nt; all 0 where nothing flows.
  inline void pull(double by_nn, const double* by_nt, double* by_q, double* by_a) const {
    const double square = q[0] * q[0] + q[1] * q[1] + q[2] * q[2];
    const double inverse = square > 0.0 ? 1.0 / std::sqrt(square > 0.0 ? square : 1.0) : 0.0;
    double size = 0.0;  // of 1/|q|
    for (int k = 0; k < 3; ++k) {
      by_a[k] = by_nn * q[k] * q[k] * inverse;
      by_q[k] = by_nn * 2.0 * a[k] * q[k] * inverse;
      size += by_nn * a[k] * q[k] * q[k];
    }
    for (int t = 0; t < 2; ++t) {
      const double both = q[0] * q[1 + t], by = by_nt[t] * (a[0] - a[1 + t]);
      by_a[0] += by_nt[t] * both * inverse;
      by_a[1 + t] -= by_nt[t] * both * inverse;
      by_q[0] += by * q[1 + t] * inverse;
      by_q[1 + t] += by * q[0] * inverse;
      size += by * both;
    }
    const double cube = inverse * inverse * inverse;  // d(1/|q|)/dq_k = -q_k/|q|^3
    for (int k = 0; k < 3; ++k) by_q[k] -= size * cube * q[k];
  }
};

// The halves of two cells on both sides of a face, one behind the other: with nn and nt of each and their sizes h,
//
//   conductance = 1/(h_1/nn_1 + h_2/nn_2),   cross_t = (h_1 nn_2 nt_1 + h_2 nn_1 nt_2)/(h_1 nn_2 + h_2 nn_1)
//
// per area of the face; 0 where nothing disperses in both.
struct Series {
  FaceDispersion half[2];
  double size[2];
  double weight[2], inverse;  // h_1 nn_2 and h_2 nn_1, over their sum; one over the sum, or 0

  inline void evaluate() {
    const double first = size[0] * half[1].nn, second = size[1] * half[0].nn, sum = first + second;
    inverse = sum > 0.0 ? 1.0 / (sum > 0.0 ? sum : 1.0) : 0.0;
    weight[0] = first * inverse, weight[1] = second * inverse;
  }
  inline double conductance() const { return half[0].nn * half[1].nn * inverse; }
  inline double cross(int t) const { return weight[0] * half[0].nt[t] + weight[1] * half[1].nt[t]; }

  // Cotangents of nn and nt of one half.
  inline void pull(int k, double by_conductance, const double* by_cross, double& by_nn, double* by_nt) const {
    const double other = half[1 - k].nn * inverse;
    by_nn = by_conductance * size[k] * other * other;
    for (int t = 0; t < 2; ++t) {
      by_nt[t] = by_cross[t] * weight[k];
      // of the weights: that of the other half grows with nn of this one, at the cost of its own
      by_nn += by_cross[t] * size[1 - k] * inverse * weight[k] * (half[1 - k].nt[t] - half[k].nt[t]);
    }
  }
};

}  // namespace dgpde
