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

constexpr int kLanes = Lane<PackF>::width;

// Lanes of the pair (a, b), 2 kLanes numbers in a row.
#if defined(__AVX512F__)
#define DGPDE_SHUFFLE(a, b, i0, i1, step)                                                                   \
  __builtin_shufflevector(a, b, i0, i1, (i0) + (step), (i1) + (step), (i0) + 2 * (step), (i1) + 2 * (step), \
                          (i0) + 3 * (step), (i1) + 3 * (step), (i0) + 4 * (step), (i1) + 4 * (step),       \
                          (i0) + 5 * (step), (i1) + 5 * (step), (i0) + 6 * (step), (i1) + 6 * (step),       \
                          (i0) + 7 * (step), (i1) + 7 * (step))
#elif defined(__AVX__)
#define DGPDE_SHUFFLE(a, b, i0, i1, step)                                                                   \
  __builtin_shufflevector(a, b, i0, i1, (i0) + (step), (i1) + (step), (i0) + 2 * (step), (i1) + 2 * (step), \
                          (i0) + 3 * (step), (i1) + 3 * (step))
#else
#define DGPDE_SHUFFLE(a, b, i0, i1, step) __builtin_shufflevector(a, b, i0, i1, (i0) + (step), (i1) + (step))
#endif

// b moved up by one lane; lane 0 is the last of a.
DGPDE_HD PackF shift_up(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, kLanes - 1, kLanes, 2); }
// a moved down by one lane; the last lane is the first of b.
DGPDE_HD PackF shift_down(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, 1, 2, 2); }
DGPDE_HD PackF even_lanes(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, 0, 2, 4); }
DGPDE_HD PackF odd_lanes(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, 1, 3, 4); }
// a0 b0 a1 b1 ... of the lower or of the upper halves
DGPDE_HD PackF interleave_low(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, 0, kLanes, 1); }
DGPDE_HD PackF interleave_high(PackF a, PackF b) { return DGPDE_SHUFFLE(a, b, kLanes / 2, kLanes + kLanes / 2, 1); }

#undef DGPDE_SHUFFLE

}  // namespace DGPDE_ISA
}  // namespace dgpde
