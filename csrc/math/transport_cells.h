// Isotherms, limiter, boundary faces and the memory of a pack of columns, for the transport of solutes.
#pragma once

#include "../transport_problem.h"
#include "column_cells.h"
#include "vecmath.h"
#include "water_rows.h"

namespace dgpde {
inline namespace DGPDE_ISA {

// ---- isotherms -----------------------------------------------------------------------------------------------

// A cell's state x and what follows from it: dissolved concentration c, sorbed mass per volume of soil m, and their
// slopes in x. x is c, but c^b of a Freundlich isotherm with an exponent b < 1, whose slope in c is infinite at c = 0:
// in the sorbed amount everything is smooth there.
template <class V>
struct Phases {
  V c, dc, m, dm;
};

// |x|^t for t >= 0, with 0^0 = 1.
template <class V>
DGPDE_HD V power(V ax, V t) {
  const V one = broadcast<V>(1);
  const auto there = ax > V{};
  const V y = vexp(t * vlog(select(there, ax, one)));
  return select(mask_or(there, t == V{}), y, V{});
}

template <class V>
DGPDE_HD Phases<V> phases(Isotherm kind, V x, V a, V b) {
  const V one = broadcast<V>(1);
  switch (kind) {
    case Isotherm::linear:
      return {x, one, a * x, a};
    case Isotherm::freundlich: {
      const auto sharp = b < one;
      const V e = select(sharp, one / b, b);
      const V slope = power(vabs(x), e - one), y = x * slope, dy = e * slope;
      return {select(sharp, y, x), select(sharp, dy, one), a * select(sharp, x, y), a * select(sharp, one, dy)};
    }
    case Isotherm::langmuir: {
      const V g = one / (one + b * x);
      return {x, one, a * x * g, a * g * g};
    }
    default:
      return {x, one, V{}, V{}};
  }
}

// The state of a concentration.
template <class V>
DGPDE_HD V state_of(Isotherm kind, V c, V b) {
  if (kind != Isotherm::freundlich) return c;
  const V one = broadcast<V>(1), ac = vabs(c);
  const auto there = ac > V{};
  const V x = select(there, vexp(b * vlog(select(there, ac, one))), V{});
  return select(b < one, select(c < V{}, -x, x), c);
}

// Derivatives of m at given c in the isotherm's parameters.
template <class V>
struct IsothermPartials {
  V a, b;
};
template <class V>
DGPDE_HD IsothermPartials<V> isotherm_partials(Isotherm kind, V x, V a, V b) {
  const V one = broadcast<V>(1);
  switch (kind) {
    case Isotherm::linear:
      return {x, V{}};
    case Isotherm::freundlich: {
      const auto sharp = b < one;
      const V ax = vabs(x);
      const auto there = ax > V{};
      const V ln = select(there, vlog(select(there, ax, one)), V{});
      const V y = x * power(ax, select(sharp, one, b) - one);  // c^b
      return {y, a * y * ln / select(sharp, b, one)};
    }
    case Isotherm::langmuir: {
      const V g = one / (one + b * x);
      return {x * g, -a * x * x * g * g};
    }
    default:
      return {V{}, V{}};
  }
}

// dm/dc at a concentration; infinite at 0 where Freundlich's exponent is below 1.
template <class V>
DGPDE_HD V isotherm_slope(Isotherm kind, V x, V a, V b) {
  const Phases<V> s = phases(kind, x, a, b);
  return s.dm / s.dc;
}

// ---- limiter ---------------------------------------------------------------------------------------------------

// Van Leer's limiter (1974, J. Comput. Phys. 14, 361-370) as the part that it adds to the upwind concentration on a
// face: half the harmonic mean of the difference behind, a, and ahead, b; 0 where they differ in sign.
template <class V>
struct Limited {
  V value, da, db;
};
template <class V>
DGPDE_HD Limited<V> van_leer(V a, V b) {
  const V one = broadcast<V>(1);
  const auto same = mask_or(mask_and(a > V{}, b > V{}), mask_and(a < V{}, b < V{}));
  // no reciprocal: ahead of a front the sum may be so small that its own overflows
  const V sum = select(same, a + b, one);
  const V ra = a / sum, rb = b / sum;
  return {select(same, ra * b, V{}), select(same, rb * rb, V{}), select(same, ra * ra, V{})};
}

// ---- boundary faces --------------------------------------------------------------------------------------------

// Mass flux into the cell [kg m-2 s-1], f0 + f1 c, with its derivatives.
template <class V>
struct SideFlux {
  V f0, f1;            // parts without and with the cell's concentration
  V q0, q1;            // their derivatives in the water's inflow q,
  V v0;                // of f0 in the boundary's value
  V spread0, spread1;  // and in the conductance of half a cell
};
// q: inflow of water; held: water that leaves evaporates and leaves its solute behind; spread: conductance of half a
// cell [m/s], which only a concentration held on the face asks for.
template <class V>
DGPDE_HD SideFlux<V> side_flux(SoluteSide kind, V q, V value, V spread, bool held) {
  const V one = broadcast<V>(1);
  const auto inward = q > V{};
  const V in = select(inward, q, V{}), din = select(inward, one, V{});
  const V out = held ? V{} : select(inward, V{}, q), dout = held ? V{} : select(inward, V{}, one);
  switch (kind) {
    case SoluteSide::concentration:
      return {(in + spread) * value, out - spread, din * value, dout, in + spread, value, -one};
    case SoluteSide::inflow_concentration:
      return {in * value, out, din * value, dout, in, V{}, V{}};
    case SoluteSide::zero_gradient:
      return {V{}, in + out, V{}, din + dout, V{}, V{}, V{}};
    default:
      return {value, V{}, V{}, V{}, one, V{}, V{}};
  }
}

// ---- memory ----------------------------------------------------------------------------------------------------

// clang-format off
#define DGPDE_TRANSPORT_VALUES(VALUE)                                                                     \
  VALUE(theta) VALUE(theta_old)                                                                           \
  VALUE(spread)                       /* theta^power diffusion [m2/s], cell */                            \
  VALUE(conductance)                  /* of the face above: (theta D)/distance [m/s] */                   \
  VALUE(of_c) VALUE(of_m) VALUE(load) /* row: of_c c + of_m m + fluxes = load */                          \
  VALUE(x) VALUE(c) VALUE(dc) VALUE(m) VALUE(dm)                                                          \
  VALUE(lo2) VALUE(lo) VALUE(diag) VALUE(up) VALUE(up2) /* matrix */                                      \
  VALUE(elim) VALUE(elim2) VALUE(rhs)                                                                     \
  VALUE(change) VALUE(of_spread)      /* adjoint: cotangent of c; of spread. tangent: of load; of spread */
// clang-format on
#define DGPDE_TRANSPORT_INDEX(name) transport_##name,
enum TransportIndex { DGPDE_TRANSPORT_VALUES(DGPDE_TRANSPORT_INDEX) kTransportValues };

template <class V>
struct TransportCells : CellMemory<V, kTransportValues> {
#define DGPDE_TRANSPORT_VALUE(name) \
  DGPDE_HD V& name(int64_t k) const { return this->value(k, transport_##name); }
  DGPDE_TRANSPORT_VALUES(DGPDE_TRANSPORT_VALUE)
};

// Values of a cell and solute that stay from step to step; the first ones are those of a plain solute (transport_plain.h).
// clang-format off
#define DGPDE_SOLUTE_VALUES(VALUE)                                                                          \
  VALUE(inv) VALUE(elim) VALUE(couple)        /* factors of its matrix from the bottom up */                \
  VALUE(hold) VALUE(store)                    /* dz (theta + a) at the step's beginning, over dt; at its end */ \
  VALUE(lose)                                 /* forward: what decays and leaves with the water [m/s] */    \
  VALUE(of_now) VALUE(of_old)                 /* adjoint: sums over steps of lambda c', lambda c, */        \
  VALUE(of_below) VALUE(of_above)             /* of (lambda_above - lambda) c' and ... c'_above; */         \
  VALUE(inv_above)                            /* 1/pivot of the elimination from the top down; */           \
  VALUE(from_below) VALUE(from_above)         /* what a transposed row has of its neighbours, over hold; */ \
  VALUE(pass) VALUE(pass_above)               /* hold/pivot of both eliminations; */                        \
  VALUE(half)                                 /* the multipliers, half solved */                            \
  VALUE(decayed) VALUE(of_decayed)            /* kg m-2 s-1; its cotangent or tangent */
// clang-format on
#define DGPDE_SOLUTE_INDEX(name) solute_##name,
enum SoluteIndex { DGPDE_SOLUTE_VALUES(DGPDE_SOLUTE_INDEX) kOwnValues };

constexpr int kSoluteValues = kOwnValues + 2 * kStates + 2 * kCellSlots;
template <class V>
struct SoluteCells : CellMemory<V, kSoluteValues> {
#define DGPDE_SOLUTE_VALUE(name) \
  DGPDE_HD V& name(int64_t k) const { return this->value(k, solute_##name); }
  DGPDE_SOLUTE_VALUES(DGPDE_SOLUTE_VALUE)
  DGPDE_HD V& state(int64_t k, int i) const { return this->value(k, kOwnValues + i); }
  // the state after the step; in the adjoint the cotangents of c, of the sorbed mass and of the immobile concentration,
  // in the tangent run their tangents
  DGPDE_HD V& next(int64_t k, int i) const { return this->value(k, kOwnValues + kStates + i); }
  DGPDE_HD V& input(int64_t k, int slot) const { return this->value(k, kOwnValues + 2 * kStates + slot); }
  // adjoint: gradients of the inputs summed over the steps; tangent run: tangents of the inputs
  DGPDE_HD V& sum(int64_t k, int slot) const { return this->value(k, kOwnValues + 2 * kStates + kCellSlots + slot); }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
