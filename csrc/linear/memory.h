// Memory and lane shuffles of the linear solver. Everything here lies in the namespace of the instruction set.
#pragma once

#include <cstdlib>
#include <new>

#include "../math/pack.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// Aligned memory that is kept when the size asked for does not change.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  void resize(int64_t size) {
    if (size == size_) return;
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64;  // aligned_alloc asks for it
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes > 0 ? bytes : 64));
    if (!data_) throw std::bad_alloc();
    size_ = size;
  }
  void fill_zero() {
    if (size_) std::memset(static_cast<void*>(data_), 0, static_cast<size_t>(size_) * sizeof(T));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Lane shuffles of the pair (a, b), numbered 0 .. 2W-1: the indices i, j, then both moved on by `step` until W are named.
#define DGPDE_LANES4(i, j, step) i, j, (i) + (step), (j) + (step)
#define DGPDE_LANES8(i, j, step) DGPDE_LANES4(i, j, step), DGPDE_LANES4((i) + 2 * (step), (j) + 2 * (step), step)
#define DGPDE_LANES16(i, j, step) DGPDE_LANES8(i, j, step), DGPDE_LANES8((i) + 4 * (step), (j) + 4 * (step), step)
#ifdef __clang__
#define DGPDE_PICK(V, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define DGPDE_PICK(V, a, b, ...) __builtin_shuffle(a, b, IntOf<V>{__VA_ARGS__})
#endif
#define DGPDE_SHUFFLE(name, i, j, step)                      \
  template <class V>                                         \
  DGPDE_HD V name(V a, V b) {                                \
    constexpr int W = Lane<V>::width;                        \
    if constexpr (W == 16)                                   \
      return DGPDE_PICK(V, a, b, DGPDE_LANES16(i, j, step)); \
    else if constexpr (W == 8)                               \
      return DGPDE_PICK(V, a, b, DGPDE_LANES8(i, j, step));  \
    else if constexpr (W == 4)                               \
      return DGPDE_PICK(V, a, b, DGPDE_LANES4(i, j, step));  \
    else                                                     \
      return DGPDE_PICK(V, a, b, i, j);                      \
  }
DGPDE_SHUFFLE(shift_up, W - 1, W, 2)  // b moved up by one lane; lane 0 is the last of a
DGPDE_SHUFFLE(shift_down, 1, 2, 2)    // a moved down by one lane; the last lane is the first of b
DGPDE_SHUFFLE(even_lanes, 0, 2, 4)
DGPDE_SHUFFLE(odd_lanes, 1, 3, 4)
DGPDE_SHUFFLE(interleave_low, 0, W, 1)  // a0 b0 a1 b1 ... of the lower halves
DGPDE_SHUFFLE(interleave_high, W / 2, W + W / 2, 1)
#undef DGPDE_SHUFFLE
#undef DGPDE_PICK
#undef DGPDE_LANES16
#undef DGPDE_LANES8
#undef DGPDE_LANES4

}  // namespace DGPDE_ISA
}  // namespace dgpde
