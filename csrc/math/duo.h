// Two packs computed together: the cells of a column are independent where soils are evaluated, and one evaluation is
// a long chain of dependent operations that leaves most of the processor idle. Every operation here is done on both.
#pragma once

#include <type_traits>

#include "vecmath.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
struct Duo {
  V a, b;
};

template <class V>
struct Lane<Duo<V>> {
  using Real = RealOf<V>;
  using Int = Duo<IntOf<V>>;
  using Mask = Duo<typename Lane<V>::Mask>;
  static constexpr int width = 2 * Lane<V>::width;
};

#define DGPDE_DUO_OPERATOR(op)                                  \
  template <class V>                                            \
  DGPDE_HD auto operator op(const Duo<V>& x, const Duo<V>& y) { \
    return Duo<decltype(x.a op y.a)>{x.a op y.a, x.b op y.b};   \
  }                                                             \
  template <class V>                                            \
  DGPDE_HD auto operator op(const Duo<V>& x, RealOf<V> y) {     \
    return Duo<decltype(x.a op y)>{x.a op y, x.b op y};         \
  }                                                             \
  template <class V>                                            \
  DGPDE_HD auto operator op(RealOf<V> x, const Duo<V>& y) {     \
    return Duo<decltype(x op y.a)>{x op y.a, x op y.b};         \
  }
DGPDE_DUO_OPERATOR(+)
DGPDE_DUO_OPERATOR(-)
DGPDE_DUO_OPERATOR(*)
DGPDE_DUO_OPERATOR(/)
DGPDE_DUO_OPERATOR(<)
DGPDE_DUO_OPERATOR(>)
DGPDE_DUO_OPERATOR(<=)
DGPDE_DUO_OPERATOR(>=)
DGPDE_DUO_OPERATOR(==)
DGPDE_DUO_OPERATOR(!=)
#undef DGPDE_DUO_OPERATOR

template <class V>
struct HasTables<Duo<V>> : HasTables<V> {};

template <class V>
DGPDE_HD Duo<V> operator-(const Duo<V>& x) {
  return {-x.a, -x.b};
}
template <class M, class V>
DGPDE_HD Duo<V> select(const Duo<M>& m, const Duo<V>& x, const Duo<V>& y) {
  return {select(m.a, x.a, y.a), select(m.b, x.b, y.b)};
}
template <class V>
DGPDE_HD Duo<V> rounded(const Duo<V>& x) {
  return {rounded(x.a), rounded(x.b)};
}
template <class M>
DGPDE_HD Duo<M> mask_and(const Duo<M>& x, const Duo<M>& y) {
  return {mask_and(x.a, y.a), mask_and(x.b, y.b)};
}
template <class M>
DGPDE_HD Duo<M> mask_or(const Duo<M>& x, const Duo<M>& y) {
  return {mask_or(x.a, y.a), mask_or(x.b, y.b)};
}
template <class M>
DGPDE_HD Duo<M> mask_not(const Duo<M>& x) {
  return {mask_not(x.a), mask_not(x.b)};
}
template <class M>
DGPDE_HD bool any(const Duo<M>& x) {
  return any(mask_or(x.a, x.b));
}
template <class M>
DGPDE_HD bool all(const Duo<M>& x) {
  return all(mask_and(x.a, x.b));
}

#define DGPDE_DUO_FUNCTION(name)          \
  template <class V>                      \
  DGPDE_HD Duo<V> name(const Duo<V>& x) { \
    return {name(x.a), name(x.b)};        \
  }
DGPDE_DUO_FUNCTION(vsqrt)
DGPDE_DUO_FUNCTION(vrsqrt)
DGPDE_DUO_FUNCTION(vexp)
DGPDE_DUO_FUNCTION(vexpm1)
DGPDE_DUO_FUNCTION(vexp_nonpositive)
DGPDE_DUO_FUNCTION(vexpm1_nonpositive)
DGPDE_DUO_FUNCTION(expm1_small)
DGPDE_DUO_FUNCTION(vlog)
DGPDE_DUO_FUNCTION(vlog1p)
DGPDE_DUO_FUNCTION(vlog1p_any)
DGPDE_DUO_FUNCTION(twice_atanh)
DGPDE_DUO_FUNCTION(log1p_unit)
#undef DGPDE_DUO_FUNCTION

// The values of two cells, read as one list.
template <class D>
struct DuoView {
  D a, b;
  DGPDE_HD auto operator[](int64_t i) const { return Duo<std::decay_t<decltype(a[i])>>{a[i], b[i]}; }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
