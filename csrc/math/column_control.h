// Time steps and nonlinear strategy of one lane: plain scalar logic, one LaneControl per column.
//
// Strategy of a step (counts in the design notes and in dgpde/kernels/column_flow/README.md): Newton from the predicted
// or the old state, at most max_newton iterations; if that fails, once more from another state and mostly with a matrix
// that is column-wise diagonally dominant, at most 3 max_newton iterations; if that fails, the step is cut by four. The
// attempts at a step restart in turn from the wet side, from a column that hangs from its surface, from one that is full
// to the surface, and from one that hangs from a surface which is the wetter the shorter the step: a closed full column
// without storage has no regular Jacobian at its old state, whatever the step. A line search is of no use there: where
// kr is steep the way to the solution leads through large residuals.
//
// Step control: backward Euler's own error, dt/2 |theta'_new - theta'_old| (Kavetski, Binning & Sloan 2001, Adv. Water
// Resour. 24:595), held at time_error; steps land on the ends of the output intervals.
#pragma once

#include <cmath>

#include "../column_problem.h"
#include "pack.h"

namespace dgpde {
inline namespace DGPDE_ISA {

enum class Move : int32_t {
  idle,          // finished or failed
  from_old,      // first guess: the last accepted state
  predict,       // first guess: the last accepted state carried on at its rate
  newton,        // the update that the last sweep eliminated
  from_wet,      // first guess: max(psi_old, -wet suction)
  from_full,     // first guess: full to the surface, max(psi_old, depth)
  from_drained,  // first guess: hanging from the surface, min(psi_old, depth - share * wet suction of the surface)
};

enum StatusCode : int32_t { kFinished = 0, kNoConvergence = 1, kNotFinite = 2, kStepLimit = 3 };

struct LaneControl {
  static constexpr int kClosings = 8;  // iterations that serve only the column's balance, at most
  static constexpr int kAttempts = 8;  // times that a step is tried before its column is given up, at least

  Move move = Move::idle;
  int32_t status = kFinished;
  int64_t interval = 0, mesh = 0, mesh_count = 1;
  double dt = 1.0, dt_before = 1.0, wish = 1.0, t = 0.0, length = 1.0, target = 1.0, failed_time = NAN;
  bool waiting = false;  // for the other lanes of the pack, before its next step
  bool landing = false, has_rate = false, restarted = false, seen_finite = false;
  int iteration = 0, closings = 0, cut_in_turn = 0;
  double share = 1.0;  // of the wet suction from which a restart hangs
  int64_t steps = 0, newton = 0, cuts = 0, rejections = 0, restarts = 0, interval_steps = 0;
  // integrals over the interval [m] and the run's balance [m]
  double top = 0, bottom = 0, runoff = 0, uptake = 0, imbalance = 0, moved = 0;

  DGPDE_HD void start(const ColumnProblem& p, bool runs, double dt0) {
    wish = dt0;
    if (runs) begin_interval(p);
  }

  DGPDE_HD void begin_interval(const ColumnProblem& p) {
    length = p.times[interval + 1] - p.times[interval];
    t = 0.0;
    mesh = 0;
    mesh_count = 1;
    interval_steps = 0;
    has_rate = false;
    if (p.dt_fixed > 0.0) {
      // the small slack keeps 86400/432 at 200 steps whatever the division rounds to
      mesh_count = static_cast<int64_t>(ceil(length / p.dt_fixed * (1.0 - 1e-9)));
      if (mesh_count < 1) mesh_count = 1;
      wish = length / static_cast<double>(mesh_count);
    }
    top = bottom = runoff = uptake = 0.0;
    begin_step();
  }

  DGPDE_HD void begin_step() {
    const double mesh_step = length / static_cast<double>(mesh_count);
    target = mesh + 1 == mesh_count ? length : mesh_step * static_cast<double>(mesh + 1);
    const double rest = target - t;
    landing = wish >= rest * (1.0 - 1e-9);
    if (landing)
      dt = rest;
    else
      dt = wish > 0.5 * rest ? 0.5 * rest : wish;
    cut_in_turn = 0;
    first_guess(has_rate ? Move::predict : Move::from_old);
  }

  DGPDE_HD void first_guess(Move from) {
    move = from;
    restarted = seen_finite = false;
    iteration = closings = 0;
  }

  DGPDE_HD void fail(const ColumnProblem& p, int32_t why) {
    move = Move::idle;
    status = why;
    failed_time = p.times[interval] + t;
  }

  // The sweep did not meet the tolerance: what to do next.
  DGPDE_HD void carry_on(const ColumnProblem& p, bool finite) {
    if (!restarted) {
      if (finite && iteration < p.max_newton) return next_newton();
      restarted = true;
      ++restarts;
      iteration = 0;
      move = cut_in_turn % 2 != 0 ? Move::from_drained : cut_in_turn % 4 == 0 ? Move::from_wet : Move::from_full;
      share = cut_in_turn % 4 == 3 ? ldexp(1.0, -cut_in_turn) : 1.0;
      return;
    }
    seen_finite |= finite;
    // Once cutting has not helped there is time for a front that takes two iterations to move by one cell.
    const int64_t patience = 3 * p.max_newton + (cut_in_turn > 2 ? 2 * p.nz : 0);
    if (!finite || iteration >= patience) return cut(p);
    next_newton();
  }

  // Each cell has converged but the column's sum has not: a few more iterations are spent on it.
  DGPDE_HD bool balance_tried() {
    if (closings < kClosings) ++closings;
    return closings == kClosings;
  }

  DGPDE_HD void next_newton() {
    move = Move::newton;
    ++iteration;
    ++newton;
  }

  DGPDE_HD void cut(const ColumnProblem& p) {
    ++cuts;
    ++cut_in_turn;
    const double before = dt;
    dt = 0.25 * before;
    if (dt < p.dt_min) {  // every kind of restart is tried before the column is given up
      if (cut_in_turn >= kAttempts) return fail(p, seen_finite ? kNoConvergence : kNotFinite);
      dt = before < p.dt_min ? before : p.dt_min;
    }
    landing = landing && dt == before;
    wish = dt;
    first_guess(Move::from_old);
  }

  // Truncation error relative to its limit; false: the step is to be repeated with a shorter dt.
  DGPDE_HD bool accepts(const ColumnProblem& p, double error) {
    if (!(error > 1.0) || dt <= p.dt_min) return true;
    ++rejections;
    const double factor = 0.9 / sqrt(error);
    wish = dt * (factor < 0.1 ? 0.1 : factor);
    if (wish < p.dt_min) wish = p.dt_min;
    dt = wish;
    landing = false;
    first_guess(has_rate ? Move::predict : Move::from_old);
    return false;
  }

  // The step is accepted: time goes on. True when the interval is complete.
  DGPDE_HD bool advance(const ColumnProblem& p, double error) {
    ++steps;
    ++interval_steps;
    has_rate = true;
    dt_before = dt;
    const bool hard = restarted || 2 * iteration > p.max_newton;
    if (p.dt_fixed > 0.0) {
      const double mesh_step = length / static_cast<double>(mesh_count);
      wish = 2.0 * dt < mesh_step ? 2.0 * dt : mesh_step;
    } else {
      double factor = 4.0;
      if (p.time_error > 0.0)
        factor = error > 0.050625 ? 0.9 / sqrt(error) : 4.0;
      else
        factor = iteration <= 5 ? 1.5 : 1.0;
      if (hard && factor > 1.0) factor = 1.0;
      double next = dt * factor;
      if (factor >= 1.0 && wish > next) next = wish;  // this step was only shortened to land
      wish = next < p.dt_max ? next : p.dt_max;
    }
    if (landing) {
      t = target;
      ++mesh;
    } else {
      t += dt;
    }
    return landing && mesh == mesh_count;
  }

  // After an accepted step: the next one, in this interval or the next.
  DGPDE_HD bool next_step(const ColumnProblem& p, bool complete) {
    if (!complete) {
      if (interval_steps >= p.max_steps)
        fail(p, kStepLimit);
      else
        begin_step();
      return false;
    }
    ++interval;
    if (interval == p.intervals) {
      move = Move::idle;
      return false;
    }
    begin_interval(p);
    return true;
  }

  DGPDE_HD void report(const ColumnOutput& out, int64_t column) const {
    out.status[column] = status;
    out.failed_time[column] = failed_time;
    out.steps[column] = steps;
    out.newton[column] = newton;
    out.cuts[column] = cuts;
    out.rejections[column] = rejections;
    out.restarts[column] = restarts;
    out.mass_error[column] = imbalance;
    out.water_moved[column] = moved;
    out.dt_next[column] = wish;
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
