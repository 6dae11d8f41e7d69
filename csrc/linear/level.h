// One level of the hierarchy: lines along z solved exactly, colour by colour, and the transfers to the next level.
//
// Storage. Columns are coloured like a checkerboard, c = (x + y) & 1, so the lateral neighbours of a column all have the other
// colour. Row y of colour c holds the columns x = 2i + ((y + c) & 1), i = 0 .. (nx+1)/2 - 1, in packs of kLanes
// columns; pack t of the row runs through all z before the next pack begins:
//
//     index of a pack = ((c * ny + y) * tiles + t) * nz + z,       lane = i % kLanes,   t = i / kLanes
//
// Column i of a row has its southern and northern neighbours at the same i, its western and eastern ones at i - 1 and i or at
// i and i + 1. So every load is a whole pack, and a line solve streams through memory. Lanes past the end of a row
// have zero coefficients and inverse pivots, so whatever is added to them is never read and goes with the next sweep.
//
// A line is factored once, T = L U with multipliers m below the diagonal, inverse pivots 1/d and ratios g above:
// d_z = a_z - b_z g_{z-1},   m_z = b_z / d_{z-1},   g_z = c_z / d_z        (a diagonal, b below, c above).
#pragma once

#include <algorithm>

#include "memory.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
struct Lateral {
  V south, north, west, east;
};
template <class V>
struct Factor {
  V lower, inverse, upper;  // m, 1/d, g
};

template <class V>
struct Level {
  static constexpr int kLanes = Lane<V>::width;
  int64_t nz = 0, ny = 0, nx = 0, tiles = 0, groups = 0;
  int fy = 1, fx = 1;  // columns of an aggregate of the next level, along y and x
  Buffer<Lateral<V>> lateral;
  Buffer<Factor<V>> factor;
  Buffer<V> b, x, before;  // before: right-hand sides of the lines of colour 0, where the cycle needs them

  static constexpr int64_t kGroup = 4;  // tiles that one thread takes at a time

  void shape(int64_t z, int64_t y, int64_t x_cells) {
    nz = z, ny = y, nx = x_cells;
    tiles = ((nx + 1) / 2 + kLanes - 1) / kLanes;
    groups = (tiles + kGroup - 1) / kGroup;
    lateral.resize(2 * packs());
    factor.resize(2 * packs());
    b.resize(2 * packs());
    x.resize(2 * packs());
    x.fill_zero();  // lanes past the end of a row are read, times a coefficient of zero, so they must be numbers
  }
  int64_t cells() const { return nz * ny * nx; }
  int64_t packs() const { return ny * tiles * nz; }  // of one colour
  int64_t tile(int colour, int64_t y, int64_t t) const { return ((colour * ny + y) * tiles + t) * nz; }
  int64_t columns(int parity) const { return (nx + 1 - parity) / 2; }  // of a row that starts at x = parity
  int64_t bytes() const { return lateral.bytes() + factor.bytes() + b.bytes() + x.bytes() + before.bytes(); }
};

// The lateral neighbours of a tile; a missing one is the tile beside it, whose coefficient is zero.
template <class V>
struct Around {
  const V *south, *north, *same, *aside;
  bool shifted_up;  // west is `same` moved up, east is `same`; else west is `same`, east is `same` moved down

  Around(const Level<V>& l, const V* x, int colour, int64_t y, int64_t t) {
    const int other = 1 - colour;
    shifted_up = ((y + colour) & 1) == 0;
    same = x + l.tile(other, y, t);
    south = y > 0 ? x + l.tile(other, y - 1, t) : same;
    north = y < l.ny - 1 ? x + l.tile(other, y + 1, t) : same;
    if (shifted_up)
      aside = t > 0 ? same - l.nz : same;
    else
      aside = t < l.tiles - 1 ? same + l.nz : same;
  }
};

template <bool kUp, class V>
DGPDE_HD V coupled(const Lateral<V>& a, const Around<V>& o, int64_t z) {
  const V same = o.same[z], moved = kUp ? shift_up(o.aside[z], same) : shift_down(same, o.aside[z]);
  const V west = kUp ? moved : same, east = kUp ? same : moved;
  return (a.south * o.south[z] + a.north * o.north[z]) + (a.west * west + a.east * east);
}

// Calls work with a type that says which way the neighbours are shifted.
struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};
template <class V, class Work>
DGPDE_HD void by_shift(const Around<V>& around, const Work& work) {
  if (around.shifted_up)
    work(Yes());
  else
    work(No());
}

// work(row, tile) for every tile of one colour; a thread takes the tiles of a group one after another.
template <class V, class Work>
inline void for_each_tile(const Level<V>& l, int64_t rows, int threads, const Work& work) {
  const int64_t items = rows * l.groups;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && items > 1)
  for (int64_t item = 0; item < items; ++item) {
    const int64_t row = item / l.groups, first = item % l.groups * Level<V>::kGroup;
    for (int64_t t = first; t < l.tiles && t < first + Level<V>::kGroup; ++t) work(row, t);
  }
}

template <class V>
DGPDE_HD void back_substitute(const Factor<V>* f, V* x, int64_t nz) {
  V u = x[nz - 1];
  for (int64_t z = nz - 2; z >= 0; --z) x[z] = u = x[z] - f[z].upper * u;
}

// Lines of one colour with x = 0 around them: T x = b.
template <class V>
inline void solve_alone(Level<V>& l, int colour, int threads) {
  for_each_tile(l, l.ny, threads, [&](int64_t y, int64_t t) {
    const int64_t first = l.tile(colour, y, t);
    const Factor<V>* f = l.factor.data() + first;
    const V* b = l.b.data() + first;
    V *x = l.x.data() + first, u{};
    for (int64_t z = 0; z < l.nz; ++z) {
      u = b[z] - f[z].lower * u;
      x[z] = u * f[z].inverse;
    }
    back_substitute(f, x, l.nz);
  });
}

// Lines of one colour: T x = b - (lateral couplings) x, which goes to `before` as well when kKeep.
template <bool kKeep, class V>
inline void solve_lines(Level<V>& l, int colour, int threads) {
  for_each_tile(l, l.ny, threads, [&](int64_t y, int64_t t) {
    const int64_t first = l.tile(colour, y, t);
    const Factor<V>* f = l.factor.data() + first;
    const Lateral<V>* a = l.lateral.data() + first;
    const V* b = l.b.data() + first;
    V *x = l.x.data() + first, *keep = kKeep ? l.before.data() + first : nullptr;
    const Around<V> around(l, l.x.data(), colour, y, t);
    by_shift(around, [&](auto up) __attribute__((always_inline)) {
      V u{};
      for (int64_t z = 0; z < l.nz; ++z) {
        const V r = b[z] - coupled<decltype(up)::value>(a[z], around, z);
        if (kKeep) keep[z] = r;
        u = r - f[z].lower * u;
        x[z] = u * f[z].inverse;
      }
    });
    back_substitute(f, x, l.nz);
  });
}

// Residuals after the sweeps 0, 1: zero on colour 1; on colour 0 minus the couplings times x when x was zero before, else
// (b - couplings x) less what the line was solved for.
template <bool kZero, bool kUp, class V>
DGPDE_HD V residual(const Level<V>& l, int64_t first, const Around<V>& around, int64_t z) {
  const V r = -coupled<kUp>(l.lateral[first + z], around, z);
  return kZero ? r : (l.b[first + z] - l.before[first + z]) + r;
}

template <bool kZero, class V>
inline void add_residual(const Level<V>& l, int64_t y, int64_t t, bool add, V* out) {
  const Around<V> around(l, l.x.data(), 0, y, t);
  const int64_t first = l.tile(0, y, t);
  by_shift(around, [&](auto up) __attribute__((always_inline)) {
    for (int64_t z = 0; z < l.nz; ++z) {
      const V r = residual<kZero, decltype(up)::value>(l, first, around, z);
      out[z] = add ? out[z] + r : r;
    }
  });
}

// Sums of the residuals over the aggregates, into b of the next level. Aggregates begin at even x and y, so column i of colour 0
// lies in aggregate X = i where pairs along x are joined; else at X = 2i + (y & 1) = x.
template <bool kZero, class V>
inline void restrict_residual(const Level<V>& l, Level<V>& coarse, Buffer<V>& scratch, int threads) {
  const int64_t nz = l.nz;
  if (l.fx == 1) {
    for_each_tile(l, l.ny, threads, [&](int64_t y, int64_t t) {
      const int64_t Y = y / 2, parity = y & 1;
      add_residual<kZero>(l, y, t, false, coarse.b.data() + coarse.tile((Y + parity) & 1, Y, t));
    });
    if (l.ny & 1) {  // the last row stands alone: its aggregates at odd x hold no column of colour 0
      const int64_t Y = (l.ny - 1) / 2;
      std::memset(static_cast<void*>(coarse.b.data() + coarse.tile((Y + 1) & 1, Y, 0)), 0,
                  static_cast<size_t>(coarse.tiles * nz) * sizeof(V));
    }
    return;
  }
  scratch.resize(std::max(scratch.size(), 2 * nz * coarse.ny * coarse.groups));
  for_each_tile(coarse, coarse.ny, threads, [&](int64_t Y, int64_t T) {
    V* low = scratch.data() + (Y * coarse.groups + T / Level<V>::kGroup) * 2 * nz;
    V* high = low + nz;
    const int64_t last = std::min(l.fy * (Y + 1), l.ny);
    for (int64_t y = l.fy * Y; y < last; ++y) {
      const bool add = y > l.fy * Y;
      add_residual<kZero>(l, y, 2 * T, add, low);
      if (2 * T + 1 < l.tiles) add_residual<kZero>(l, y, 2 * T + 1, add, high);
    }
    V* even = coarse.b.data() + coarse.tile(static_cast<int>(Y & 1), Y, T);
    V* odd = coarse.b.data() + coarse.tile(static_cast<int>((Y + 1) & 1), Y, T);
    const bool both = 2 * T + 1 < l.tiles;
    for (int64_t z = 0; z < nz; ++z) {
      const V second = both ? high[z] : V{};
      even[z] = even_lanes(low[z], second);
      odd[z] = odd_lanes(low[z], second);
    }
  });
}

// Adds each aggregate's correction to its columns of colour 0; the sweep over colour 1 that follows needs no other.
template <class V>
inline void prolong(Level<V>& l, const Level<V>& coarse, int threads) {
  for_each_tile(l, l.ny, threads, [&](int64_t y, int64_t t) {
    const int64_t Y = y / l.fy, parity = y & 1;
    V* x = l.x.data() + l.tile(0, y, t);
    if (l.fx == 1) {
      const V* e = coarse.x.data() + coarse.tile(static_cast<int>((Y + parity) & 1), Y, t);
      for (int64_t z = 0; z < l.nz; ++z) x[z] += e[z];
      return;
    }
    const V* even = coarse.x.data() + coarse.tile(static_cast<int>(Y & 1), Y, t / 2);
    const V* odd = coarse.x.data() + coarse.tile(static_cast<int>((Y + 1) & 1), Y, t / 2);
    if (t & 1)
      for (int64_t z = 0; z < l.nz; ++z) x[z] += interleave_high(even[z], odd[z]);
    else
      for (int64_t z = 0; z < l.nz; ++z) x[z] += interleave_low(even[z], odd[z]);
  });
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
