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
    const V x = knot_position(table, psi, wetter_than_knots(table, psi)), kind = d[2];
    Places<V> p;
    for (int lane = 0; lane < Lane<V>::width; ++lane)
      p.at[lane] = 4 * (table.knots * static_cast<int64_t>(get(kind, lane)) + knot_interval(table, get(x, lane)));
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
    const auto wet = wetter_than_knots(table, psi);
    const V h = select(wet, broadcast<V>(table.h_first), -psi);
    const V x = knot_position(table, psi, wet);
    const V end = broadcast<V>(static_cast<double>(table.knots - 1));
    const auto beyond = x > end;
    V r[8], u{};
    const R* row[Lane<V>::width];
    for (int lane = 0; lane < Lane<V>::width; ++lane) {
      const int64_t i = knot_interval(table, get(x, lane));
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
      const V one = broadcast<V>(1);
      V inside[4];
      hermite_basis<V>(u, step, inside);
      const V basis[4] = {select(beyond, V{}, inside[0]), select(beyond, V{}, inside[1]),
                          select(beyond, one, inside[2]), select(beyond, past, inside[3])};
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
  static DGPDE_HD const RealOf<V>* rows(const SoilTable& table) {
    return static_cast<const RealOf<V>*>(table.data);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
