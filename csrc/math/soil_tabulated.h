// A relation given by a table: cubic Hermite in x = log(-psi) of theta and of log kr, one table for each soil class.
//
//   rows of the table [classes, knots, 4]: theta, dtheta/dx, log kr, dlog kr/dx;   knot i at x = first + i step
//   wetter than knot 0: its values.   Drier than the last knot N: theta_N exp(theta'_N/theta_N (x - x_N)) and
//   log kr_N + log kr'_N (x - x_N), which continue value and slope.
// theta and kr depend on the two rows around x, which are 8 numbers side by side in memory: these are the raw
// parameters of a cell. places() says where they start, so a gradient in them is added to 8 places from there.
#pragma once

#include <type_traits>

#include "soil_common.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct SoilTable {
  const void* data = nullptr;  // [classes, knots, 4], float or double like the lanes
  int64_t knots = 0;
  double first = 0.0, step = 1.0;  // x of knot 0, spacing
  double h_first = 1.0;            // exp(first), m
};

struct Tabulated {
  static constexpr int n_raw = 8;      // of both rows: theta, theta', log kr, log kr'
  static constexpr int n_derived = 3;  // 0, theta at saturation, class

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

  // Where the two rows around psi start in the table, in elements, of every lane.
  template <class V>
  struct Places {
    int64_t at[Lane<V>::width];
  };
  template <class V, class D>
  static DGPDE_HD Places<V> places(const SoilTable& table, const D& d, V psi) {
    const V x = position(table, psi, is_wet(table, psi)), kind = d[2];
    Places<V> p;
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      p.at[lane] = 4 * (table.knots * static_cast<int64_t>(get(kind, lane)) + interval(table, get(x, lane)));
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
    for (int lane = 0; lane < W && first_column + lane < columns; ++lane) {
      R *s = sum + places.at[lane], *q = rest + places.at[lane], after[8], lost[8];
      for (int i = 0; i < 8; ++i) {
        const R before = s[i];
        after[i] = before + row[lane][i];
        const R part = after[i] - before;
        lost[i] = q[i] + ((before - (after[i] - part)) + (row[lane][i] - part));
      }
      for (int i = 0; i < 8; ++i) s[i] = after[i], q[i] = lost[i];
    }
  }

  template <bool kPartials, class V, class D>
  static DGPDE_HD void evaluate(const SoilTable& table, const D& d, V psi, SoilPoint<V>& p, V* dtheta, V* dkr) {
    using R = RealOf<V>;
    const auto wet = is_wet(table, psi);
    const V h = select(wet, broadcast<V>(table.h_first), -psi);
    const V x = position(table, psi, wet);
    const V end = broadcast<V>(static_cast<double>(table.knots - 1));
    const auto beyond = x > end;
    V r[8], u{};
    const R* row[Lane<V>::width];
    for (int lane = 0; lane < Lane<V>::width; ++lane) {
      const int64_t i = interval(table, get(x, lane));
      row[lane] = rows<V>(table) + 4 * (table.knots * static_cast<int64_t>(get(V(d[2]), lane)) + i);
      put(u, lane, get(x, lane) - static_cast<R>(i));
    }
    gather(row, r);
    u = select(beyond, V{}, u);
    const R step = static_cast<R>(table.step), inv_step = R(1.0 / table.step);
    const V past = select(beyond, (x - end) * step, V{});
    const Cubic<V> theta(u, r[0], r[1] * step, r[4], r[5] * step), log_kr(u, r[2], r[3] * step, r[6], r[7] * step);
    const V rate = r[5] / r[4];
    const V fall = vexp_nonpositive(select(beyond, rate * past, V{}));
    const V kr = vexp(select(beyond, r[6] + r[7] * past, log_kr.value));
    const V inv_h = select(wet, V{}, R(1) / h);
    p.theta = select(beyond, r[4] * fall, theta.value);
    p.kr = kr;
    p.capacity = -select(beyond, r[5] * fall, theta.slope * inv_step) * inv_h;
    p.dkr = -kr * select(beyond, r[7], log_kr.slope * inv_step) * inv_h;
    if constexpr (kPartials) {
      // Hermite basis: value at 0, slope at 0, value at 1, slope at 1
      const V one = broadcast<V>(1), v = one - u;
      const V value1 = u * u * (one + R(2) * v), slope0 = step * u * v * v, slope1 = -step * u * u * v;
      const V basis[4] = {select(beyond, V{}, one - value1), select(beyond, V{}, slope0), select(beyond, one, value1),
                          select(beyond, past, slope1)};
      for (int j = 0; j < 8; ++j) {
        const V weight = basis[(j / 4) * 2 + j % 2];
        const bool water = j % 4 < 2;
        dtheta[j] = water ? weight : V{};
        dkr[j] = water ? V{} : kr * weight;
      }
      dtheta[4] = select(beyond, fall * (one - rate * past), dtheta[4]);
      dtheta[5] = select(beyond, fall * past, dtheta[5]);
    }
  }

 private:
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

  // r[j] lane by lane from row[lane][j]: eight numbers side by side in each row.
  template <class V>
  static DGPDE_HD void gather(const RealOf<V>* const* row, V* r) {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<V, PackD>) {
      PackD a[8];
      for (int k = 0; k < 8; ++k) std::memcpy(&a[k], row[k], sizeof(PackD));
      transpose(a, r);
      return;
    }
#endif
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      for (int j = 0; j < 8; ++j) put(r[j], lane, row[lane][j]);
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

  template <class V>
  static DGPDE_HD const RealOf<V>* rows(const SoilTable& table) {
    return static_cast<const RealOf<V>*>(table.data);
  }
  template <class V>
  static DGPDE_HD Mask<V> is_wet(const SoilTable& table, V psi) {
    return psi >= broadcast<V>(-table.h_first);
  }
  // (x - first)/step, 0 where wet.
  template <class V>
  static DGPDE_HD V position(const SoilTable& table, V psi, Mask<V> wet) {
    const V h = select(wet, broadcast<V>(table.h_first), -psi);
    const V x = (vlog(h) - broadcast<V>(table.first)) * broadcast<V>(1.0 / table.step);
    return select(mask_or(wet, x < V{}), V{}, x);
  }
  // A nan gives interval 0, and the position keeps it.
  template <class R>
  static DGPDE_HD int64_t interval(const SoilTable& table, R x) {
    const R last = static_cast<R>(table.knots - 2);
    return x > R(0) ? static_cast<int64_t>(x < last ? x : last) : 0;
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
