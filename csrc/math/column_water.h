// The water of each accepted step of a column-flow run, read back from its history: what solutes are carried by.
//
// The flux through each face follows from the bottom flux by continuity, upward; the flux through the surface is that
// of its boundary, so that what the tolerance of the flow run left is never taken for evaporation. The top cell carries
// it as water of its own concentration (TransportStep::load_water): a concentration of 1 everywhere stays 1.
#pragma once

#include "column_replay.h"
#include "water_rows.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class ColumnWater : ColumnReplay<V> {
  using Base = ColumnReplay<V>;
  using Base::p, Base::lanes, Base::elastic, Base::c, Base::top, Base::bottom, Base::interval, Base::dt, Base::inv_dt,
      Base::active, Base::ponding_old, Base::root_rate, Base::top_flux, Base::bottom_flux;
  using Base::W;
  using typename Base::R;

 public:
  DGPDE_HD ColumnWater(const ColumnProblem& problem, const Lanes& which, V* scratch, int64_t stride)
      : Base(problem, which, scratch, stride) {}

  template <class History>
  DGPDE_HD void run(History& history, WaterRows<V>& water) {
    int64_t row[W], longest = 0;
    for (int lane = 0; lane < W; ++lane) {
      const int64_t count = history.count(lane);
      row[lane] = 0;
      water.finish(lane, count, history.complete(lane));
      longest = count > longest ? count : longest;
    }
    const WaterRow<V> first = water.row(0);
    elastic = first.elastic != nullptr;
    history.load(row, 0, [&](int64_t k, V psi) { this->arrive(k, psi); });
    this->evaluate_waiting();
    for (int64_t k = 0; k < p.nz; ++k) first.theta[k] = c.theta(k);
    for (int64_t r = 1; r < longest; ++r) {
      for (int lane = 0; lane < W; ++lane) row[lane] = r;
      this->load_step(history, row);
      const WaterRow<V> before = water.row(r - 1), now = water.row(r);
      boundary_flux<false, V>(bottom, V(c.psi(0)), V(c.kr(0)), ponding_old, dt, inv_dt, bottom_flux,
                              static_cast<BoundaryPartials<V>*>(nullptr));
      V q = bottom_flux.q;
      now.flux[0] = q;
      for (int64_t k = 0; k < p.nz; ++k) {
        const R dz = static_cast<R>(p.dz[k]);
        V gain = -dz * inv_dt * (c.theta(k) - before.theta[k]);
        if (now.taken) {
          now.taken[k] = c.root(k) * c.stress(k) * root_rate;
          gain = gain - now.taken[k];
        }
        if (now.elastic) {
          now.elastic[k] = c.storage(k) * c.theta(k) * (c.psi(k) - c.psi_old(k)) * inv_dt;
          gain = gain - now.elastic[k];
        }
        if (now.source) {
          now.source[k] = dz * load_series<V>(p.in.source, interval, k, lanes);
          gain = gain + now.source[k];
        }
        q = q + gain;
        now.theta[k] = c.theta(k);
        now.flux[k + 1] = q;
      }
      const int64_t last = p.nz - 1;
      respond(p, lanes, V(c.psi(last)), top);
      boundary_flux<false, V>(top, V(c.psi(last)), V(c.kr(last)), ponding_old, dt, inv_dt, top_flux,
                              static_cast<BoundaryPartials<V>*>(nullptr));
      now.flux[p.nz] = -top_flux.q;
      for (int lane = 0; lane < W; ++lane) {
        now.dt[lane] = get(dt, lane);
        now.interval[lane] = interval[lane];
      }
    }
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
