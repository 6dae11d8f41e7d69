// A table over equal distances of x = log(-psi): where a head stands in it, and the cubic between two knots.
#pragma once

#include "pack.h"
#include "vecmath.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct KnotLine {
  int64_t knots = 0;
  double first = 0.0, step = 1.0;  // x of knot 0, spacing
  double h_first = 1.0;            // exp(first), m
};

template <class V>
DGPDE_HD Mask<V> wetter_than_knots(const KnotLine& line, V psi) {
  return psi >= broadcast<V>(-line.h_first);
}
// (x - first)/step, 0 where wet.
template <class V>
DGPDE_HD V knot_position(const KnotLine& line, V psi, Mask<V> wet) {
  const V h = select(wet, broadcast<V>(line.h_first), -psi);
  const V x = (vlog(h) - broadcast<V>(line.first)) * broadcast<V>(1.0 / line.step);
  return select(mask_or(wet, x < V{}), V{}, x);
}
// The knot on the wet side of a position, of which there is one more on the other. A nan gives knot 0; what is left of
// the position keeps it.
template <class V>
DGPDE_HD V knot_before(const KnotLine& line, V x) {
  const V last = broadcast<V>(static_cast<double>(line.knots - 2));
  return to_real(truncate(select(x > V{}, vmin(x, last), V{})));
}

template <class V>
struct Cubic {  // value and slope per interval at u of the cubic with values f and slopes d at 0 and 1
  V value, slope;
  DGPDE_HD Cubic(V u, V f0, V d0, V f1, V d1) {
    using R = RealOf<V>;
    const V rise = f1 - f0;
    const V c2 = R(3) * rise - R(2) * d0 - d1, c3 = d0 + d1 - R(2) * rise;
    value = f0 + u * (d0 + u * (c2 + u * c3));
    slope = d0 + u * (R(2) * c2 + R(3) * u * c3);
  }
};

// Derivatives of its value in the value and the slope (per x) at 0, and in those at 1.
template <class V>
DGPDE_HD void hermite_basis(V u, RealOf<V> step, V* basis) {
  using R = RealOf<V>;
  const V one = broadcast<V>(1), v = one - u, value1 = u * u * (one + R(2) * v);
  basis[0] = one - value1, basis[1] = step * u * v * v, basis[2] = value1, basis[3] = -step * u * u * v;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
