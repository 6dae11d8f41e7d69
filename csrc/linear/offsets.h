// A matrix on a 7-point stencil and on further neighbours at given offsets, and its products. Each further coupling is an
// array that stands with the cell whose row it is in; the transposed product reads it at the neighbour instead, so that
// both gather and cost the same.
#pragma once

#include <vector>

#include "stencil.h"

namespace dgpde {
inline namespace DGPDE_ISA {

class OffsetMatrix {
 public:
  struct Offset {
    int64_t z, y, x;
  };

  // Coefficients are undefined after it; those at neighbours that do not exist are never read.
  void shape(int64_t nz, int64_t ny, int64_t nx, const std::vector<Offset>& further) {
    nz_ = nz, ny_ = ny, nx_ = nx, further_ = further;
    seven_.resize(7 * cells());
    more_.resize(static_cast<int64_t>(further.size()) * cells());
  }
  // Slot 0 to 6: the cell itself, below, above, south, north, west, east; from 7 on the further ones.
  double* coefficient(int slot) { return slot < 7 ? &seven_[slot * cells()] : &more_[(slot - 7) * cells()]; }
  int slots() const { return 7 + static_cast<int>(further_.size()); }
  Offset offset(int slot) const {
    static constexpr int64_t kNear[7][3] = {{0, 0, 0}, {-1, 0, 0}, {1, 0, 0}, {0, -1, 0},
                                            {0, 1, 0}, {0, 0, -1}, {0, 0, 1}};
    return slot < 7 ? Offset{kNear[slot][0], kNear[slot][1], kNear[slot][2]} : further_[slot - 7];
  }

  // to = row (z, y) of A from, or of A^T from.
  void apply_row(bool transposed, int64_t z, int64_t y, const double* from, double* __restrict to) const {
    const Stencil a = Stencil::of(seven_.data(), nz_, ny_, nx_);
    dgpde::apply_row(a, transposed ? Form::transposed : Form::plain, z, y, from, 1.0, to);
    Term terms[kTogether];
    int count = 0;
    for (size_t k = 0; k < further_.size(); ++k) {
      const int64_t sign = transposed ? -1 : 1;
      const int64_t dz = sign * further_[k].z, dy = sign * further_[k].y, dx = sign * further_[k].x;
      if (z + dz < 0 || z + dz >= nz_ || y + dy < 0 || y + dy >= ny_) continue;
      const int64_t at = (z * ny_ + y) * nx_, other = at + (dz * ny_ + dy) * nx_ + dx;
      terms[count++] = {&more_[static_cast<int64_t>(k) * cells()] + (transposed ? other : at), from + other,
                        std::max<int64_t>(0, -dx), nx_ - std::max<int64_t>(0, dx)};
      if (count == kTogether) add<kTogether>(terms, to), count = 0;
    }
    for (int k = 0; k < count; ++k) add<1>(terms + k, to);
  }

  int64_t cells() const { return nz_ * ny_ * nx_; }
  int64_t bytes() const { return seven_.bytes() + more_.bytes(); }

 private:
  static constexpr int kTogether = 4;
  // to[i] += c[i] * p[i] for first <= i < last.
  struct Term {
    const double *c, *p;
    int64_t first, last;
  };
  template <int N>
  static void add(const Term* terms, double* __restrict to) {
    int64_t first = terms[0].first, last = terms[0].last;
    for (int k = 1; k < N; ++k) first = std::max(first, terms[k].first), last = std::min(last, terms[k].last);
    last = std::max(first, last);
    for (int k = 0; k < N; ++k) {
      for (int64_t i = terms[k].first; i < std::min(first, terms[k].last); ++i)
        to[i] += terms[k].c[i] * terms[k].p[i];
      for (int64_t i = std::max(last, terms[k].first); i < terms[k].last; ++i) to[i] += terms[k].c[i] * terms[k].p[i];
    }
    if constexpr (N == 4) {
      const double *c0 = terms[0].c, *c1 = terms[1].c, *c2 = terms[2].c, *c3 = terms[3].c;
      const double *p0 = terms[0].p, *p1 = terms[1].p, *p2 = terms[2].p, *p3 = terms[3].p;
      for (int64_t i = first; i < last; ++i)
        to[i] += (c0[i] * p0[i] + c1[i] * p1[i]) + (c2[i] * p2[i] + c3[i] * p3[i]);
    } else {
      for (int64_t i = first; i < last; ++i) to[i] += terms[0].c[i] * terms[0].p[i];
    }
  }

  int64_t nz_ = 0, ny_ = 0, nx_ = 0;
  std::vector<Offset> further_;
  Buffer<double> seven_, more_;
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
