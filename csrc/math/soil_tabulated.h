// A relation given by a table: cubic Hermite in x = log(-psi) of theta and of log kr, one table for each soil class.
//
//   rows of the table [classes, knots, 4]: theta, dtheta/dx, log kr, dlog kr/dx;   knot i at x = first + i step
//   wetter than knot 0: its values.   Drier than the last knot N: theta_N exp(theta'_N/theta_N (x - x_N)) and
//   log kr_N + log kr'_N (x - x_N), which continue value and slope.
// theta and kr depend on the two rows around x, which are 8 numbers side by side in memory: these are the raw
// parameters of a cell. places() says where they start, so a gradient in them is added to 8 places from there.
#pragma once

#include <type_traits>

#include "knots.h"
#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct SoilTable : KnotLine {
  const void* data = nullptr;  // [classes, knots, 4], float or double like the lanes
};

#ifndef __CUDACC__
typedef double FourD __attribute__((vector_size(32)));
typedef float FourF __attribute__((vector_size(16)));
template <class R>
struct FourOf {
  using type = std::conditional_t<std::is_same_v<R, double>, FourD, FourF>;
  static_assert(sizeof(type) == 4 * sizeof(R));
};
#endif

struct Tabulated {
  static constexpr int n_raw = 8;      // of both rows: theta, theta', log kr, log kr'
  static constexpr int n_derived = 3;  // 0, theta at saturation, class

  // theta depends on half of the 8 numbers, kr on the others. Partials in those that a curve does not depend on are not
  // given; in the place of one of them, dtheta[kKnot], stands the knot on the wet side, which says where the rows are.
  static constexpr bool of_theta(int i) { return i % 4 < 2; }
  static constexpr int kKnot = 2;

  // raw[0]: class of the cell, as a number of the lane's type.
  template <class V, class A, class D>
  static DGPDE_HD void prepare(const SoilTable& table, const A& raw, const D& d) {
    V theta_s{};
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      put(theta_s, lane, rows<V>(table)[4 * table.knots * static_cast<int64_t>(get(V(raw[0]), lane))]);
    d[0] = V{};
    d[1] = theta_s;
    d[2] = raw[0];
  }

  // The knot with the largest capacity -theta'/h; 1/h falls by a constant factor from knot to knot.
  template <class V, class D>
  static DGPDE_HD V wet_suction(const SoilTable& table, const D& d) {
    using R = RealOf<V>;
    V suction{};
    const R ratio = R(::exp(-table.step));
    for (int lane = 0; lane < Lane<V>::width; ++lane) {
      const R* row = rows<V>(table) + 4 * table.knots * static_cast<int64_t>(get(V(d[2]), lane));
      R inv_h = R(1), steepest = R(-1);
      int64_t best = 0;
      for (int64_t i = 0; i < table.knots; ++i, inv_h *= ratio)
        if (-row[4 * i + 1] * inv_h > steepest) steepest = -row[4 * i + 1] * inv_h, best = i;
      put(suction, lane, R(::exp(table.first + best * table.step)));
    }
    return suction;
  }

  // Where the two rows around a head start in the table, in elements, of every lane.
  template <class V>
  struct Places {
    int64_t at[Lane<V>::width];
  };
  template <class V, class D>
  static DGPDE_HD Places<V> places(const SoilTable& table, const D& d, V psi) {
    return places_of(table, d, knot_before(table, knot_position(table, psi, wetter_than_knots(table, psi))));
  }
  template <class V, class D>
  static DGPDE_HD Places<V> places_of(const SoilTable& table, const D& d, V knot) {
    const V kind = d[2];
    Places<V> p;
    if constexpr (Lane<V>::width > 1 && sizeof(RealOf<V>) == 8) {  // whole numbers below 2^53
      const auto at = truncate(RealOf<V>(4) * (kind * static_cast<RealOf<V>>(table.knots) + knot));
      std::memcpy(p.at, &at, sizeof(at));
    } else {
      for (int lane = 0; lane < Lane<V>::width; ++lane)
        p.at[lane] =
            4 * (table.knots * static_cast<int64_t>(get(kind, lane)) + static_cast<int64_t>(get(knot, lane)));
    }
    return p;
  }

  // Adds x[0..7], the gradients of the 8 numbers of a cell, to a lane's place in `sum` and what the additions lose of
  // them to its place in `rest` (Knuth's two-sum): the two together keep the sum to twice the precision.
  template <class V>
  static DGPDE_HD void add_rows(V* x, const Places<V>& places, int64_t first_column, int64_t columns, RealOf<V>* sum,
                                RealOf<V>* rest) {
    using R = RealOf<V>;
    constexpr int W = Lane<V>::width;
    R row[W][8];
    transpose(x, row);
    for (int lane = 0; lane < W && first_column + lane < columns; ++lane)
      for (int knot = 0; knot < 2; ++knot) {
        const int64_t at = places.at[lane] + 4 * knot;
        add_knot(&row[lane][4 * knot], sum + at, rest + at);
      }
  }

  template <bool kPartials, class V, class D>
  static DGPDE_HD void evaluate(const SoilTable& table, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
    using R = RealOf<V>;
    const auto wet = wetter_than_knots(table, psi);
    const V h = select(wet, broadcast<V>(table.h_first), -psi);
    const V x = knot_position(table, psi, wet);
    const V end = broadcast<V>(static_cast<double>(table.knots - 1));
    const auto beyond = x > end;
    const V knot = knot_before(table, x), u = select(beyond, V{}, x - knot);
    V r[8];
    gather(rows<V>(table), places_of(table, d, knot), r);
    const R step = static_cast<R>(table.step), inv_step = R(1.0 / table.step);
    const Cubic<V> theta(u, r[0], r[1] * step, r[4], r[5] * step), log_kr(u, r[2], r[3] * step, r[6], r[7] * step);
    const V inv_h = select(wet, V{}, R(1) / h);
    V kr = vexp(log_kr.value), slope = log_kr.slope * inv_step;
    p.theta = theta.value;
    p.capacity = -(theta.slope * inv_step) * inv_h;
    V basis[4];
    if constexpr (kPartials) {
      hermite_basis<V>(u, step, basis);
      dtheta[kKnot] = knot;
      for (int j = 0; j < 8; ++j)
        if (of_theta(j)) dtheta[j] = basis[(j / 4) * 2 + j % 2];
    }
    if (any(beyond)) {
      const V past = select(beyond, (x - end) * step, V{}), rate = r[5] / r[4];
      const V fall = vexp_nonpositive(select(beyond, rate * past, V{}));
      kr = select(beyond, vexp(r[6] + r[7] * past), kr);
      slope = select(beyond, r[7], slope);
      p.theta = select(beyond, r[4] * fall, p.theta);
      p.capacity = select(beyond, -(r[5] * fall) * inv_h, p.capacity);
      if constexpr (kPartials) {
        const V one = broadcast<V>(1);
        basis[0] = select(beyond, V{}, basis[0]), basis[1] = select(beyond, V{}, basis[1]);
        basis[2] = select(beyond, one, basis[2]), basis[3] = select(beyond, past, basis[3]);
        dtheta[0] = basis[0], dtheta[1] = basis[1];
        dtheta[4] = select(beyond, fall * (one - rate * past), basis[2]);
        dtheta[5] = select(beyond, fall * past, basis[3]);
      }
    }
    p.kr = kr;
    p.dkr = -kr * slope * inv_h;
    if constexpr (kPartials)
      for (int j = 0; j < 8; ++j)
        if (!of_theta(j)) dkr[j] = kr * basis[(j / 4) * 2 + j % 2];
  }

 private:
  // Adds the four numbers of a knot, which stand side by side, to a sum and its rest. One knot at a time: neighbouring
  // lanes often share one of their two, and what has just been written is only read back quickly as it was written.
  template <class R>
  static DGPDE_HD void add_knot(const R* x, R* sum, R* rest) {
#ifdef __CUDACC__
    for (int i = 0; i < 4; ++i) two_sum(x[i], sum[i], rest[i]);
#else
    typename FourOf<R>::type part, s, q;
    std::memcpy(&part, x, sizeof(s)), std::memcpy(&s, sum, sizeof(s)), std::memcpy(&q, rest, sizeof(s));
    two_sum(part, s, q);
    std::memcpy(sum, &s, sizeof(s)), std::memcpy(rest, &q, sizeof(s));
#endif
  }
  template <class T>
  static DGPDE_HD void two_sum(const T& x, T& sum, T& rest) {
    const T before = sum, after = before + x, part = after - before;
    rest = rest + ((before - (after - part)) + (x - part));
    sum = after;
  }

  // row[lane][j] from x[j].
  template <class V>
  static DGPDE_HD void transpose(V* x, RealOf<V> (*row)[8]) {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<V, PackD>) {
      PackD r[8];
      transpose(x, r);
      for (int k = 0; k < 8; ++k) std::memcpy(row[k], &r[k], sizeof(PackD));
      return;
    }
#endif
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      for (int j = 0; j < 8; ++j) row[lane][j] = get(x[j], lane);
  }
#ifdef __AVX512F__
  // 8 x 8 numbers, a row a register; a is used up.
  static DGPDE_HD void transpose(PackD* a, PackD* r) {
    PackD b[8];
    const PackL low1 = {0, 8, 2, 10, 4, 12, 6, 14}, high1 = {1, 9, 3, 11, 5, 13, 7, 15};
    const PackL low2 = {0, 1, 8, 9, 4, 5, 12, 13}, high2 = {2, 3, 10, 11, 6, 7, 14, 15};
    const PackL low4 = {0, 1, 2, 3, 8, 9, 10, 11}, high4 = {4, 5, 6, 7, 12, 13, 14, 15};
    for (int k = 0; k < 8; k += 2) {
      b[k] = __builtin_shuffle(a[k], a[k + 1], low1);
      b[k + 1] = __builtin_shuffle(a[k], a[k + 1], high1);
    }
    for (int k = 0; k < 8; k += 4)
      for (int i = 0; i < 2; ++i) {
        a[k + i] = __builtin_shuffle(b[k + i], b[k + i + 2], low2);
        a[k + i + 2] = __builtin_shuffle(b[k + i], b[k + i + 2], high2);
      }
    for (int k = 0; k < 4; ++k) {
      r[k] = __builtin_shuffle(a[k], a[k + 4], low4);
      r[k + 4] = __builtin_shuffle(a[k], a[k + 4], high4);
    }
  }
#endif

  // r[j] lane by lane: eight numbers side by side from each lane's place on.
  template <class V>
  static DGPDE_HD void gather(const RealOf<V>* table, const Places<V>& places, V* r) {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<V, PackD>) {
      PackD a[8];
      for (int k = 0; k < 8; ++k) std::memcpy(&a[k], table + places.at[k], sizeof(PackD));
      transpose(a, r);
      return;
    }
#endif
    RealOf<V> side[8][Lane<V>::width];
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      for (int j = 0; j < 8; ++j) side[j][lane] = table[places.at[lane] + j];
    for (int j = 0; j < 8; ++j) std::memcpy(&r[j], side[j], sizeof(V));
  }

  template <class V>
  static DGPDE_HD const RealOf<V>* rows(const SoilTable& table) {
    return static_cast<const RealOf<V>*>(table.data);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
