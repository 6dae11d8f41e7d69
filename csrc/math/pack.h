// One lane type for every engine: a SIMD pack of W columns on the CPU, a plain number on the GPU.
//
// All numerical headers are templates on V. They use only the operations of this file and of vecmath.h, so the
// same source is the CPU kernel (V = Pack<double>::type, a GCC vector of W doubles) and the CUDA kernel
// (V = double, one column a thread). A comparison gives a Mask<V>; select() chooses per lane.
//
// DGPDE_ISA names the instruction set this translation unit is compiled for. It is also the inline namespace
// of everything here, so that the same templates compiled for several instruction sets link side by side.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define DGPDE_HD __host__ __device__ __forceinline__
#define DGPDE_HD_NOINLINE __host__ __device__ __noinline__
#define DGPDE_UNROLL
#else
#define DGPDE_HD inline __attribute__((always_inline))
#define DGPDE_HD_NOINLINE inline __attribute__((noinline))
#define DGPDE_UNROLL _Pragma("GCC unroll 8")
#endif

#ifndef DGPDE_ISA
#define DGPDE_ISA generic
#endif

namespace dgpde {
inline namespace DGPDE_ISA {

// ---- traits -----------------------------------------------------------------------------------------------

template <class V>
struct Lane;  // Real, Int, Mask, width

template <>
struct Lane<double> {
  using Real = double;
  using Int = int64_t;
  using Mask = bool;
  static constexpr int width = 1;
};
template <>
struct Lane<float> {
  using Real = float;
  using Int = int32_t;
  using Mask = bool;
  static constexpr int width = 1;
};

#ifndef __CUDACC__
#if defined(__AVX512F__)
constexpr int kPackBytes = 64;
#elif defined(__AVX__)
constexpr int kPackBytes = 32;
#else
constexpr int kPackBytes = 16;
#endif

typedef double PackD __attribute__((vector_size(kPackBytes)));
typedef float PackF __attribute__((vector_size(kPackBytes)));
typedef int64_t PackL __attribute__((vector_size(kPackBytes)));
typedef int32_t PackI __attribute__((vector_size(kPackBytes)));

template <>
struct Lane<PackD> {
  using Real = double;
  using Int = PackL;
  using Mask = PackL;
  static constexpr int width = kPackBytes / 8;
};
template <>
struct Lane<PackF> {
  using Real = float;
  using Int = PackI;
  using Mask = PackI;
  static constexpr int width = kPackBytes / 4;
};

// The pack of a scalar type.
template <class Real>
struct Pack;
template <>
struct Pack<double> {
  using type = PackD;
};
template <>
struct Pack<float> {
  using type = PackF;
};
#endif

template <class V>
using RealOf = typename Lane<V>::Real;
template <class V>
using IntOf = typename Lane<V>::Int;
template <class V>
using Mask = typename Lane<V>::Mask;

// ---- operations -------------------------------------------------------------------------------------------

template <class V>
DGPDE_HD V broadcast(double x) {
  return V{} + static_cast<RealOf<V>>(x);
}

DGPDE_HD double select(bool m, double a, double b) { return m ? a : b; }
DGPDE_HD float select(bool m, float a, float b) { return m ? a : b; }
DGPDE_HD bool any(bool m) { return m; }
DGPDE_HD bool all(bool m) { return m; }
DGPDE_HD bool no_lane(bool) { return false; }
DGPDE_HD bool mask_and(bool a, bool b) { return a && b; }
DGPDE_HD bool mask_or(bool a, bool b) { return a || b; }
DGPDE_HD bool mask_not(bool a) { return !a; }

template <class V>
DGPDE_HD RealOf<V> get(const V& v, int lane) {
  if constexpr (Lane<V>::width == 1)
    return v;
  else
    return v[lane];
}
template <class V>
DGPDE_HD void put(V& v, int lane, RealOf<V> x) {
  if constexpr (Lane<V>::width == 1)
    v = x;
  else
    v[lane] = x;
}
DGPDE_HD bool get_mask(bool m, int) { return m; }
DGPDE_HD void put_mask(bool& m, int, bool x) { m = x; }

#ifndef __CUDACC__
DGPDE_HD PackD select(PackL m, PackD a, PackD b) { return m ? a : b; }
DGPDE_HD PackF select(PackI m, PackF a, PackF b) { return m ? a : b; }
DGPDE_HD PackL mask_and(PackL a, PackL b) { return a & b; }
DGPDE_HD PackI mask_and(PackI a, PackI b) { return a & b; }
DGPDE_HD PackL mask_or(PackL a, PackL b) { return a | b; }
DGPDE_HD PackI mask_or(PackI a, PackI b) { return a | b; }
DGPDE_HD PackL mask_not(PackL a) { return ~a; }
DGPDE_HD PackI mask_not(PackI a) { return ~a; }
DGPDE_HD bool get_mask(const PackL& m, int lane) { return m[lane] != 0; }
DGPDE_HD bool get_mask(const PackI& m, int lane) { return m[lane] != 0; }
DGPDE_HD void put_mask(PackL& m, int lane, bool x) { m[lane] = x ? -1 : 0; }
DGPDE_HD void put_mask(PackI& m, int lane, bool x) { m[lane] = x ? -1 : 0; }

#if defined(__AVX512F__) && defined(__AVX512DQ__)
}  // namespace DGPDE_ISA
}  // namespace dgpde
#include <immintrin.h>
namespace dgpde {
inline namespace DGPDE_ISA {
DGPDE_HD bool any(PackL m) { return _mm512_movepi64_mask((__m512i)m) != 0; }
DGPDE_HD bool any(PackI m) { return _mm512_movepi32_mask((__m512i)m) != 0; }
DGPDE_HD bool all(PackL m) { return _mm512_movepi64_mask((__m512i)m) == 0xff; }
DGPDE_HD bool all(PackI m) { return _mm512_movepi32_mask((__m512i)m) == 0xffff; }
// Bit i of the result: lane i of the mask.
DGPDE_HD unsigned lane_bits(PackL m) { return _mm512_movepi64_mask((__m512i)m); }
DGPDE_HD unsigned lane_bits(PackI m) { return _mm512_movepi32_mask((__m512i)m); }
#else
template <class M>
DGPDE_HD bool any_lane(const M& m) {
  int64_t w[sizeof(M) / 8];
  std::memcpy(w, &m, sizeof(M));
  int64_t r = 0;
  for (unsigned i = 0; i < sizeof(M) / 8; ++i) r |= w[i];
  return r != 0;
}
template <class M>
DGPDE_HD bool every_lane(const M& m) {
  int64_t w[sizeof(M) / 8];
  std::memcpy(w, &m, sizeof(M));
  int64_t r = -1;
  for (unsigned i = 0; i < sizeof(M) / 8; ++i) r &= w[i];
  return r == -1;
}
template <class M>
DGPDE_HD unsigned lane_bits(const M& m) {
  unsigned bits = 0;
  for (unsigned i = 0; i < sizeof(M) / sizeof(m[0]); ++i) bits |= (m[i] != 0 ? 1u : 0u) << i;
  return bits;
}
DGPDE_HD bool any(PackL m) { return any_lane(m); }
DGPDE_HD bool any(PackI m) { return any_lane(m); }
DGPDE_HD bool all(PackL m) { return every_lane(m); }
DGPDE_HD bool all(PackI m) { return every_lane(m); }
#endif
#endif

template <class V>
DGPDE_HD V vmax(V a, V b) {
  return select(a > b, a, b);
}
template <class V>
DGPDE_HD V vmin(V a, V b) {
  return select(a < b, a, b);
}
template <class V>
DGPDE_HD V vabs(V a) {
  return select(a < V{}, -a, a);
}

// A product that is rounded before it is added to another: of a b + c d the compiler may fuse either product, and a cell
// must round the same whether it is evaluated alone or in a pair. A GPU thread evaluates every cell by the same code.
template <class V>
DGPDE_HD V rounded(V x) {
#if defined(__CUDACC__)
#elif defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

// Lanes in which x is neither infinite nor nan.
template <class V>
DGPDE_HD Mask<V> finite(V x) {
  return (x - x) == V{};
}

// ---- values of one cell ---------------------------------------------------------------------------------------

// A list of lanes: contiguous packs on the CPU, one of `stride` neighbouring columns on the GPU.
template <class T>
struct Strided {
  T* data = nullptr;
  int64_t stride = 1;
  DGPDE_HD T& operator[](int64_t i) const {
    if constexpr (Lane<std::remove_const_t<T>>::width == 1)
      return data[i * stride];
    else
      return data[i];
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
