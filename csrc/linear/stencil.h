// Products with a 7-point matrix, fused with the dot products that follow them.
//
// A row of x is the unit: six coefficient rows and six rows of the vector. Three forms differ only in where the coefficient
// of a neighbour is read: at the cell (A), at the neighbour (A^T), or, for a symmetric matrix, each coupling at the lower of
// its two cells, which reads four arrays of memory where the others read seven.
//
// Where a neighbour is missing its coefficient row is one that the contract of StencilData makes zero, and its row of the
// vector is the cell's own, so there are no branches within a row.
#pragma once

#include "../linear_call.h"
#include "memory.h"

namespace dgpde {
inline namespace DGPDE_ISA {

enum class Form { plain, transposed, symmetric };

struct Stencil {
  const double *diag, *below, *above, *south, *north, *west, *east;
  int64_t nz, ny, nx;

  static Stencil of(const double* c, int64_t nz, int64_t ny, int64_t nx) {
    const int64_t n = nz * ny * nx;
    return {c, c + n, c + 2 * n, c + 3 * n, c + 4 * n, c + 5 * n, c + 6 * n, nz, ny, nx};
  }
  int64_t cells() const { return nz * ny * nx; }
};

// The coefficient rows of cells (z, y, 0..nx-1) in one of the forms. west and east are indexed by x as they stand; in the
// transposed and symmetric forms their first or last entry may lie outside and must not be read.
struct StencilRow {
  const double *diag, *below, *above, *south, *north, *west, *east;

  StencilRow(const Stencil& a, Form form, int64_t z, int64_t y) {
    const int64_t plane = a.ny * a.nx, i = z * plane + y * a.nx;
    diag = a.diag + i;
    below = form == Form::plain || z == 0 ? a.below + i : a.above + i - plane;
    south = form == Form::plain || y == 0 ? a.south + i : a.north + i - a.nx;
    west = form == Form::plain ? a.west + i : a.east + i - 1;
    above = form != Form::transposed || z == a.nz - 1 ? a.above + i : a.below + i + plane;
    north = form != Form::transposed || y == a.ny - 1 ? a.north + i : a.south + i + a.nx;
    east = form != Form::transposed ? a.east + i : a.west + i + 1;
  }
};

// q = scale * (row (z, y) of A) . p; T is the number type of p, q the row of the result.
template <class T>
inline void apply_row(const Stencil& a, Form form, int64_t z, int64_t y, const T* p, double scale,
                      double* __restrict q) {
  const int64_t plane = a.ny * a.nx, i = z * plane + y * a.nx, nx = a.nx;
  const StencilRow c(a, form, z, y);
  const T *o = p + i, *b = z > 0 ? o - plane : o, *t = z < a.nz - 1 ? o + plane : o;
  const T *s = y > 0 ? o - nx : o, *n = y < a.ny - 1 ? o + nx : o;
  const auto inner = [&](int64_t x) __attribute__((always_inline)) {
    return c.diag[x] * o[x] + c.below[x] * b[x] + c.above[x] * t[x] + c.south[x] * s[x] + c.north[x] * n[x];
  };
  q[0] = scale * (inner(0) + (nx > 1 ? c.east[0] * o[1] : 0.0));
  for (int64_t x = 1; x < nx - 1; ++x) q[x] = scale * (inner(x) + c.west[x] * o[x - 1] + c.east[x] * o[x + 1]);
  if (nx > 1) q[nx - 1] = scale * (inner(nx - 1) + c.west[nx - 1] * o[nx - 2]);
}

DGPDE_HD double sum_lanes(PackD v) {
  double sum = 0;
  for (int lane = 0; lane < Lane<PackD>::width; ++lane) sum += v[lane];
  return sum;
}

typedef float HalfPackF __attribute__((vector_size(kPackBytes / 2)));

DGPDE_HD PackD load_pack(const double* from) {
  PackD v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
DGPDE_HD PackD load_pack(const float* from) {
  HalfPackF v;
  std::memcpy(&v, from, sizeof(v));
  return __builtin_convertvector(v, PackD);
}

// Sum of a[i] b[i]; the order of the additions depends on n alone.
template <class T, class U>
inline double dot_row(const T* a, const U* b, int64_t n) {
  constexpr int64_t W = Lane<PackD>::width;
  PackD sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int k = 0; k < 4; ++k) sum[k] += load_pack(a + i + k * W) * load_pack(b + i + k * W);
  double rest = 0;
  for (; i < n; ++i) rest += static_cast<double>(a[i]) * b[i];
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
