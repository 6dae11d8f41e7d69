// One implicit Richards run of a column (GPU: a thread) or a pack of columns (CPU: SIMD lanes), forward in time.
//
// Unknowns psi_k, k = 0 (bottom) .. nz-1; rows as in dgpde/kernels/column_flow/README.md. One sweep over the column
// is one Newton iteration: it substitutes the update that the sweep before has eliminated, evaluates the soil there,
// assembles the row behind it and eliminates it. Sweeps alternate in direction, so that each finds the elimination of
// the one before ready:
//
//        up:    x_k = rhs_k - elim_k x_{k-1}  ->  psi_k, theta_k, kr_k  ->  row k-1 complete  ->  eliminate row k-1
//        down:  x_k = rhs_k - elim_k x_{k+1}  ->  ...                       row k+1            ->  eliminate row k+1
//
// Each lane is at its own place in its own sequence of steps: a lane whose step has converged takes the next sweep
// for the first guess of its next step while its neighbours still iterate. Lanes never read one another, so a column
// gives the same bits in any company.
//
// Assumptions: forcing is constant within an output interval; dz is the same for every column.
#pragma once

#include "column_control.h"
#include "column_moves.h"
#include "root_stress.h"

namespace dgpde {
inline namespace DGPDE_ISA {

template <class V>
class ColumnForward : ColumnMoves<V> {
  using Base = ColumnMoves<V>;
  using Base::p, Base::lanes, Base::soil, Base::c, Base::soil_of, Base::dt, Base::inv_dt, Base::dt_before,
      Base::share, Base::newton, Base::recording, Base::guess, Base::steady, Base::gentle, Base::to_old,
      Base::to_predicted, Base::to_wet, Base::to_full, Base::to_drained, Base::any_restart, Base::any_gentle,
      Base::any_steady;
  using Base::W;
  using typename Base::R;
  static constexpr int kCarefulFrom = 4;

 public:
  // What a paused run keeps besides its scratch memory.
  struct Rest {
    LaneControl control[W];
    V ponding_old, omega_old;
  };

  // `lane_count` as in CellMemory. With `rest` a paused run goes on; its scratch memory is as the pause left it.
  DGPDE_HD ColumnForward(const ColumnProblem& problem, const ColumnOutput& output, const Lanes& which, V* scratch,
                         int64_t lane_count, const Rest* rest = nullptr)
      : Base(problem, which, scratch, lane_count), out(output) {
    setup_cells<V>(p, soil, lanes, c, top, bottom);
    this->set_up_moves();
    for (int64_t k = 0; k < p.nz; ++k) {
      c.pore(k) = static_cast<R>(p.dz[k]) * (c.soil_at(k)[0] + c.soil_at(k)[1]);
      // Whether a term is there at all; adding its zeros would not change a bit.
      elastic |= any(V(c.storage(k)) != V{});
    }
    if (p.roots) omega_c = load<V>(p.in.omega_c, 0, 0, lanes);
    if (rest)
      go_on(*rest);
    else
      start();
  }

  // Runs every lane to the end of its last interval or to failure. `history` receives the accepted states; false when
  // it is full and the run has to pause, which it does only between two steps.
  template <class History>
  DGPDE_HD bool run(History& history) {
    if (!resumed) history.begin(c, ponding_old);
    while (prepare_sweep()) {
      if (history.full()) return false;
      if (W == 1 && control[0].waiting) {  // a thread that waits for the others of its warp
        upward = !upward;
        continue;
      }
      if (p.roots)
        upward ? sweep<true, true>() : sweep<false, true>();
      else
        upward ? sweep<true, false>() : sweep<false, false>();
      upward = !upward;
      decide(history);
    }
    for (int lane = 0; lane < W; ++lane) {
      const LaneControl& s = control[lane];
      if (lanes.owns(lane)) s.report(out, lanes.column(lane));
      history.finish(lane, s.status == kFinished || s.interval_steps == 0);
    }
    if (out.psi_end) {
      Mask<V> own{};
      for (int lane = 0; lane < W; ++lane) put_mask(own, lane, lanes.owns(lane));
      for (int64_t k = 0; k < p.nz; ++k)
        store<V>(static_cast<R*>(out.psi_end) + k * p.n, 1, lanes, own, c.psi_old(k));
    }
    return true;
  }

  DGPDE_HD Rest rest() const {
    Rest r{{}, ponding_old, omega_old};
    for (int lane = 0; lane < W; ++lane) r.control[lane] = control[lane];
    return r;
  }

 private:
  const ColumnOutput& out;
  BoundaryFace<V> top, bottom;
  LaneControl control[W];
  int64_t interval[W];
  bool resumed = false;

  // per-lane values of the step in hand
  V ponding_old, omega_c{}, omega{}, omega_old{}, d_omega{}, transpiration{}, feddes_h[4] = {};
  bool elastic = false;
  bool upward = true;  // direction of the next sweep
  int waited = 0;      // sweeps for which a lane has waited
  bool any_guess = false, any_recording = false, any_newton = false, any_careful = false;

  // results of the last sweep
  BoundaryFlux<V> top_flux, bottom_flux;
  V accuracy, round_off;  // weights of pore volume and of the terms of a row in the residual that is accepted
  V excess, norm2, omega_sum, uptake, source_sum{};
  V stored, moved, noise;  // of sum_water()

  // The initial state.
  DGPDE_HD void start() {
    for (int64_t k = 0; k < p.nz; ++k) {
      const V psi = load<V>(p.in.psi0, 0, k, lanes);
      SoilPoint<V> s;
      soil_evaluate<V>(soil, c.soil_at(k), psi, s);
      c.psi(k) = c.psi_old(k) = c.at(k) = psi, c.theta(k) = c.theta_old(k) = c.theta_at(k) = s.theta;
      c.capacity(k) = s.capacity, c.kr_at(k) = s.kr, c.dkr_at(k) = s.dkr;
      c.trust(k) = c.capacity_slope(k) = c.dkr_slope(k) = V{};
      c.rate_theta(k) = c.rate_psi(k) = c.rate_change(k) = c.elim(k) = c.rhs(k) = c.border(k) = V{};
    }
    ponding_old = load<V>(p.in.ponding0, 0, 0, lanes);
    const auto* dt0 = static_cast<const double*>(p.dt0.data);
    for (int lane = 0; lane < W; ++lane) {
      const int64_t column = lanes.column(lane);
      const bool runs = !(p.skip && p.skip[column] != 0);
      control[lane].start(p, runs, dt0[column * p.dt0.n]);
      interval[lane] = 0;
    }
    begin_intervals(~0u);
  }

  // A paused run takes its forcing up again.
  DGPDE_HD void go_on(const Rest& rest) {
    for (int lane = 0; lane < W; ++lane) {
      control[lane] = rest.control[lane];
      interval[lane] = control[lane].interval < p.intervals ? control[lane].interval : p.intervals - 1;
    }
    begin_intervals(~0u);
    ponding_old = rest.ponding_old, omega_old = rest.omega_old;
    resumed = true;
  }

  // ---- forcing -------------------------------------------------------------------------------------------------

  // Takes up the forcing of the interval in which each lane of the bit set now is.
  DGPDE_HD void begin_intervals(unsigned which) {
    load_boundary<V>(p.in.top, kTopSlots, interval, p.nz - 1, soil, lanes, c, top);
    load_boundary<V>(p.in.bottom, kBottomSlots, interval, 0, soil, lanes, c, bottom);
    if (p.roots) {
      transpiration = load_series<V>(p.in.transpiration, interval, 0, lanes);
      load_feddes(p, interval, lanes, feddes_h);
      const bool moving = p.in.root_density.t != 0 || which == ~0u;
      V sum{};
      for (int64_t k = 0; k < p.nz; ++k) {
        if (moving) c.root(k) = static_cast<R>(p.dz[k]) * load_series<V>(p.in.root_density, interval, k, lanes);
        const V weight = c.root(k);
        sum = sum + weight * root_stress<V>(p, lanes, feddes_h, c.psi_old(k), weight).a;
      }
      for (int lane = 0; lane < W; ++lane)
        if (which & (1u << lane)) put(omega_old, lane, get(sum, lane));
    }
    if (p.sources && (p.in.source.t != 0 || which == ~0u)) {
      source_sum = V{};
      for (int64_t k = 0; k < p.nz; ++k) {
        c.source(k) = static_cast<R>(p.dz[k]) * load_series<V>(p.in.source, interval, k, lanes);
        source_sum = source_sum + c.source(k);
      }
    }
  }

  // ---- one sweep -----------------------------------------------------------------------------------------------

  // Hands every lane's next move to the vector side. False when no lane has anything left to do.
  DGPDE_HD bool prepare_sweep() {
    bool busy = false;
    release();
    newton = recording = to_old = to_predicted = to_wet = to_full = to_drained = Mask<V>{};
    any_guess = any_restart = any_recording = any_newton = any_careful = any_gentle = any_steady = false;
    accuracy = round_off = V{};
    for (int lane = 0; lane < W; ++lane) {
      const LaneControl& s = control[lane];
      put(dt, lane, static_cast<R>(s.dt));
      put(inv_dt, lane, static_cast<R>(1.0 / s.dt));
      put(dt_before, lane, static_cast<R>(s.dt_before));
      put(share, lane, static_cast<R>(s.share));
      if (s.waiting) {
        busy = true;
        continue;
      }
      any_recording |= s.move == Move::from_old && !s.has_rate;
      put_mask(recording, lane, s.move == Move::from_old && !s.has_rate);
      const bool slow = s.iteration >= 4 && ((s.iteration & 2) == 0 || (s.restarted && s.cut_in_turn > 2));
      put_mask(gentle, lane, slow);
      any_gentle |= slow;
      // With all the slope of a face's kr at the cell that the water leaves, the matrix is column-wise diagonally
      // dominant: its updates settle where the true ones run in circles, but they converge linearly only. So a restart
      // takes 24 of these and 8 of the others in turn.
      const bool steadied = s.restarted && (s.iteration & 31) < 24;
      put_mask(steady, lane, steadied);
      any_steady |= steadied;
      any_restart |= s.restarted && s.move != Move::newton;
      switch (s.move) {
        case Move::idle:
          continue;
        case Move::newton:
          put_mask(newton, lane, true);
          any_newton = true;
          break;
        case Move::from_old:
          put_mask(to_old, lane, true);
          any_guess = true;
          break;
        case Move::predict:
          put_mask(to_predicted, lane, true);
          any_guess = true;
          break;
        case Move::from_wet:
          put_mask(to_wet, lane, true);
          any_guess = true;
          break;
        case Move::from_full:
          put_mask(to_full, lane, true);
          any_guess = true;
          break;
        case Move::from_drained:
          put_mask(to_drained, lane, true);
          any_guess = true;
          break;
      }
      // A first guess is taken as it is only when it is exact to round-off. Round-off is weighed in the first guess and
      // once Newton has had time to converge without it.
      const bool iterated = s.move == Move::newton;
      const bool careful = !iterated || s.iteration >= kCarefulFrom;
      if (iterated) put(accuracy, lane, static_cast<R>(p.tolerance / s.dt));
      if (careful) put(round_off, lane, R(200) * std::numeric_limits<R>::epsilon());
      any_careful |= careful;
      busy = true;
    }
    if (any_guess) guess = mask_or(mask_or(to_old, to_predicted), mask_or(to_wet, mask_or(to_full, to_drained)));
    return busy;
  }

  // Lanes that have finished a step wait a little for the others, so that the pack evaluates its first guesses in one
  // sweep: in the Newton sweeps that follow most cells move too little to be evaluated at all (column_carry.h). A lane
  // that takes long is not waited for. Every step begins with an upward sweep (a first guess needs no elimination to
  // substitute), so waiting changes when a lane is computed, never what.
  DGPDE_HD void release() {
    constexpr int kPatience = 2;  // sweeps
    bool working = false, waiting = false;
    for (int lane = 0; lane < W; ++lane) {
      waiting |= control[lane].waiting;
      working |= control[lane].move != Move::idle && !control[lane].waiting;
    }
#ifdef __CUDA_ARCH__
    working = __any_sync(__activemask(), working);  // the threads of a warp are the lanes of a pack
#endif
    if (!waiting) return;
    if (working && !(upward && waited >= kPatience)) {
      ++waited;
      return;
    }
    upward = true;
    waited = 0;
    for (int lane = 0; lane < W; ++lane) control[lane].waiting = false;
  }

  // A row while its two faces are being added: residual, its round-off scale, and the three coefficients.
  struct Row {
    V r, terms, before, diag, omega;  // `before` couples to the cell that the sweep has left behind
    V root;                           // the cell's entry in the row of omega
  };
  struct Eliminated {  // the row before: x_before = rhs - elim x - border d_omega
    V elim{}, rhs{}, border{};
  };
  struct Border {  // the eliminated row of omega
    V carry{}, rhs{}, pivot{};
  };

  template <bool kUp, bool kBorder>
  DGPDE_HD void sweep() {
    const FaceMean mean = top.mean;
    const int64_t first = kUp ? 0 : p.nz - 1, step = kUp ? 1 : -1;
    excess = broadcast<V>(-std::numeric_limits<R>::max());
    norm2 = omega_sum = uptake = V{};
    V root_rate{}, omega_slope{};
    if (p.roots) {
      omega = select(newton, omega + d_omega, omega_old);
      const auto limited = omega > omega_c;
      root_rate = transpiration / select(limited, omega, omega_c);
      omega_slope = select(limited, -root_rate / select(limited, omega, broadcast<V>(1)), V{});
    }
    Row row{};
    Border border;
    Eliminated before;
    V x{}, psi_before{}, kr_before{}, dkr_before{};
    if constexpr (CarriedSoil<V>::kCarries) {
      soil_of.begin(recording);
      for (int64_t i = 0; i < p.nz; ++i) {
        const int64_t k = first + i * step;
        soil_of.arrive(k, c.psi(k) = new_head<kBorder>(k, x));
      }
      soil_of.finish();
    }
    for (int64_t i = 0; i < p.nz; ++i) {
      const int64_t k = first + i * step;
      if constexpr (!CarriedSoil<V>::kCarries) c.psi(k) = new_head<kBorder>(k, x);
      const V psi = c.psi(k);
      const SoilPoint<V> s = soil_of.at(k, psi);
      c.theta(k) = s.theta;
      // An interval begins from theta(psi_old) as it is evaluated, so that a run may be taken up again at any output
      // time and give the same bits.
      if (any_recording) c.theta_old(k) = select(recording, s.theta, V(c.theta_old(k)));
      Row mine = own_row(k, psi, s);
      if (p.roots) {
        const V weight = c.root(k);
        const Response<V> stress = root_stress<V>(p, lanes, feddes_h, psi, weight);
        const V taken = weight * stress.a;
        mine.r = mine.r + taken * root_rate;
        mine.diag = mine.diag + weight * stress.a_psi * root_rate;
        mine.omega = taken * omega_slope;
        mine.root = -weight * stress.a_psi;
        omega_sum = omega_sum + taken;
      }
      if (p.sources) mine.r = mine.r - c.source(k);

      if (i == 0) {
        add_boundary(kUp ? bottom : top, kUp ? bottom_flux : top_flux, psi, s, mine);
      } else {
        // lower cell a, upper cell b; q = -T kf G upward
        const int64_t lower = kUp ? k - 1 : k;
        const R d = static_cast<R>(p.gravity * 0.5 * (p.dz[lower] + p.dz[lower + 1]));
        const V fall = kUp ? psi - psi_before + d : psi_before - psi + d;
        const V t = c.face(lower);
        Mean<V> m =
            kUp ? face_mean(mean, kr_before, s.kr, fall <= V{}) : face_mean(mean, s.kr, kr_before, fall <= V{});
        if (any_steady) {
          const V slope = m.k_a + m.k_b;
          m.k_a = select(steady, select(fall > V{}, V{}, slope), m.k_a);
          m.k_b = select(steady, select(fall > V{}, slope, V{}), m.k_b);
        }
        const V tk = t * m.k, tf = t * fall;
        const V q = -tk * fall;
        const V q_a = tk - tf * m.k_a * (kUp ? dkr_before : s.dkr);
        const V q_b = -tk - tf * m.k_b * (kUp ? s.dkr : dkr_before);
        V next;
        if constexpr (kUp) {
          row.r = row.r + q, row.diag = row.diag + q_a, next = q_b;
          mine.r = mine.r - q, mine.diag = mine.diag - q_b, mine.before = -q_a;
        } else {
          row.r = row.r - q, row.diag = row.diag - q_b, next = -q_a;
          mine.r = mine.r + q, mine.diag = mine.diag + q_a, mine.before = q_b;
        }
        if (any_careful) {
          const V terms = tk * (vabs(psi) + vabs(psi_before) + d);
          row.terms = row.terms + terms;
          mine.terms = mine.terms + terms;
        }
        eliminate<kBorder>(k - step, row, next, before, border);
      }
      row = mine, psi_before = psi, kr_before = s.kr, dkr_before = s.dkr;
    }
    const int64_t last = first + (p.nz - 1) * step;
    SoilPoint<V> s;
    s.kr = kr_before, s.dkr = dkr_before;
    add_boundary(kUp ? top : bottom, kUp ? top_flux : bottom_flux, psi_before, s, row);
    eliminate<kBorder>(last, row, V{}, before, border);
    if constexpr (kBorder) {
      // row of omega: omega - sum(root a(psi)) = 0
      d_omega = (omega_sum - omega - border.rhs) / (border.pivot + R(1));
    }
    uptake = omega_sum * root_rate;
  }

  DGPDE_HD Row own_row(int64_t k, V psi, const SoilPoint<V>& s) {
    const V rate = static_cast<R>(p.dz[k]) * inv_dt;
    const V theta_old = c.theta_old(k);
    Row row{};
    row.r = rate * (s.theta - theta_old);
    row.diag = rate * s.capacity;
    if (any_careful) row.terms = rate * (s.theta + theta_old);
    if (elastic) {
      const V psi_old = c.psi_old(k), dpsi = psi - psi_old, factor = c.storage(k) * inv_dt;
      row.r = row.r + factor * s.theta * dpsi;
      row.diag = row.diag + factor * (s.capacity * dpsi + s.theta);
      if (any_careful) row.terms = row.terms + factor * s.theta * (vabs(psi) + vabs(psi_old));
    }
    return row;
  }

  DGPDE_HD void add_boundary(BoundaryFace<V>& face, BoundaryFlux<V>& flux, V psi, const SoilPoint<V>& s, Row& row) {
    respond(p, lanes, psi, face);
    boundary_flux<false, V>(face, psi, s.kr, ponding_old, dt, inv_dt, flux, nullptr);
    row.r = row.r - flux.q;
    row.diag = row.diag - (flux.q_psi + flux.q_kr * s.dkr);
    row.terms = row.terms + vabs(flux.q) + vabs(flux.q_psi) * (vabs(psi) + vabs(face.rise));
  }

  // Row k is complete: judge its residual, then eliminate it towards the next cell.
  template <bool kBorder>
  DGPDE_HD void eliminate(int64_t k, const Row& row, V next, Eliminated& before, Border& border) {
    excess = vmax(vabs(row.r) - (accuracy * c.pore(k) + round_off * row.terms), excess);
    norm2 = norm2 + row.r * row.r;
    if (any_recording) c.rate_theta(k) = select(recording, -row.r / static_cast<R>(p.dz[k]), V(c.rate_theta(k)));
    const V inv = R(1) / (row.diag - row.before * before.elim);
    before.elim = next * inv;
    before.rhs = (-row.r - row.before * before.rhs) * inv;
    c.elim(k) = before.elim, c.rhs(k) = before.rhs;
    if constexpr (kBorder) {
      before.border = (row.omega - row.before * before.border) * inv;
      c.border(k) = before.border;
      const V coefficient = row.root + border.carry;
      border.rhs = border.rhs + coefficient * before.rhs;
      border.pivot = border.pivot - coefficient * before.border;
      border.carry = -coefficient * before.elim;
    }
  }

  // Where cell k goes in this sweep; x is the Newton update of the cell before and becomes that of cell k.
  template <bool kBorder>
  DGPDE_HD V new_head(int64_t k, V& x) {
    V psi = c.psi(k);
    if (any_newton) {
      x = c.rhs(k) - c.elim(k) * x;
      if constexpr (kBorder) x = x - c.border(k) * d_omega;
      psi = select(newton, this->newton_head(k, psi, x), psi);
    }
    return any_guess ? select(guess, this->first_guess(k), psi) : psi;
  }

  // ---- after a sweep -------------------------------------------------------------------------------------------

  template <class History>
  DGPDE_HD void decide(History& history) {
    Mask<V> done{};
    bool any_done = false, summed = false;
    for (int lane = 0; lane < W; ++lane) {
      LaneControl& s = control[lane];
      if (s.move == Move::idle || s.waiting) continue;
      const double norm = get(norm2, lane);
      const bool finite = norm < INFINITY;
      bool converged = finite && get(excess, lane) <= R(0);
      if (converged && p.roots) {
        const R w = get(omega, lane), error = get(omega_sum, lane) - w;
        converged = w <= get(omega_c, lane) ? get(omega_sum, lane) <= get(omega_c, lane) * (R(1) + tight())
                                            : (error < R(0) ? -error : error) <= tight() * w;
      }
      if (converged) {
        if (!summed) sum_water(), summed = true;
        converged =
            water_balances(lane, p.tolerance, 1.0) || (s.balance_tried() && water_balances(lane, 1e-3, loose()));
      }
      if (converged) {
        put_mask(done, lane, true);
        any_done = true;
      } else {
        s.carry_on(p, finite);
      }
    }
    if (!any_done) return;
    const V error = p.time_error > 0.0 ? step_error() : V{};
    Mask<V> accepted{};
    bool any_accepted = false;
    for (int lane = 0; lane < W; ++lane)
      if (get_mask(done, lane) && control[lane].accepts(p, get(error, lane)))
        put_mask(accepted, lane, true), any_accepted = true;
    if (any_accepted) accept(accepted, error, history);
  }

  // Round-off of a sum over the column: how closely the uptake's own sum is asked to agree.
  static constexpr R tight() { return R(4096) * std::numeric_limits<R>::epsilon(); }

  // How many times the round-off of the water held a step may be wrong at worst.
  static constexpr double loose() { return sizeof(R) == 8 ? 1e6 : 30.0; }

  // Water that each column has taken up since the last accepted state, the sum of its cells' magnitudes, and what of
  // either is round-off [m].
  DGPDE_HD void sum_water() {
    stored = moved = V{};
    V held{};
    for (int64_t k = 0; k < p.nz; ++k) {
      const R dz = static_cast<R>(p.dz[k]);
      const V theta = c.theta(k),
              gain = dz * (theta - c.theta_old(k)) + c.storage(k) * theta * (c.psi(k) - c.psi_old(k));
      stored = stored + gain;
      moved = moved + vabs(gain);
      held = held + dz * theta;
    }
    const V at_top = vabs(top_flux.q_psi) * vabs(V(c.psi(p.nz - 1))),
            at_bottom = vabs(bottom_flux.q_psi) * vabs(V(c.psi(0)));
    noise = R(4) * std::numeric_limits<R>::epsilon() * (held + dt * (at_top + at_bottom));
  }

  // Every cell meets the tolerance of its own residual; their sum is held to the water moved, so that a long run in
  // which little moves closes its balance too. What does not come that close in some iterations more is accepted only
  // when no more than round-off is wrong: at heads that are absurd round-off excuses any residual of a cell.
  DGPDE_HD bool water_balances(int lane, double part, double times_noise) const {
    const double step = control[lane].dt, q_top = get(top_flux.q, lane), q_bottom = get(bottom_flux.q, lane);
    const double taken = p.roots ? static_cast<double>(get(uptake, lane)) : 0.0, added = get(source_sum, lane);
    const double error = get(stored, lane) - step * (q_top + q_bottom - taken + added);
    const double all = get(moved, lane) + step * (fabs(q_top) + fabs(q_bottom) + taken + fabs(added));
    return fabs(error) <= part * all + times_noise * get(noise, lane);
  }

  // Largest truncation error of the step, as water content, relative to its limit. It is not taken for larger than the
  // change itself: where a cell is stiff (nearly saturated, thin) the rate before the step says little of the change.
  DGPDE_HD V step_error() const {
    const R half = R(0.5), inv_limit = static_cast<R>(1.0 / p.time_error);
    V worst{};
    for (int64_t k = 0; k < p.nz; ++k) {
      const V theta = c.theta(k);
      const V gain =
          theta - c.theta_old(k) + c.storage(k) * theta * (c.psi(k) - c.psi_old(k)) * static_cast<R>(1.0 / p.dz[k]);
      worst = vmax(worst, vmin(half * vabs(gain - dt * c.rate_theta(k)), vabs(gain)));
    }
    return worst * inv_limit;
  }

  template <class History>
  DGPDE_HD void accept(const Mask<V>& mask, const V& error, History& history) {
    // lanes whose interval has seen a step before this one; the middles of the two lie `apart`
    Mask<V> followed{};
    for (int lane = 0; lane < W; ++lane) put_mask(followed, lane, control[lane].has_rate);
    const V inv_apart = R(2) / select(followed, dt + dt_before, dt);
    for (int64_t k = 0; k < p.nz; ++k) {
      const V psi = c.psi(k), theta = c.theta(k), dpsi = psi - c.psi_old(k);
      const V gain = theta - c.theta_old(k) + c.storage(k) * theta * dpsi * static_cast<R>(1.0 / p.dz[k]);
      const V rate = dpsi * inv_dt, rate_before = c.rate_psi(k);
      c.rate_change(k) = select(mask, select(followed, (rate - rate_before) * inv_apart, V{}), V(c.rate_change(k)));
      c.rate_psi(k) = select(mask, rate, rate_before);
      if (p.time_error > 0.0) c.rate_theta(k) = select(mask, gain * inv_dt, V(c.rate_theta(k)));
      c.psi_old(k) = select(mask, psi, V(c.psi_old(k)));
      c.theta_old(k) = select(mask, theta, V(c.theta_old(k)));
    }
    const V ponding = top.kind == Boundary::atmosphere ? top_flux.ponding : ponding_old;
    const V pond_gain = ponding - ponding_old;
    ponding_old = select(mask, ponding, ponding_old);
    double step[W];
    for (int lane = 0; lane < W; ++lane) step[lane] = control[lane].dt;
    history.record(mask, interval, c, ponding_old, step);
    unsigned entered = 0;
    for (int lane = 0; lane < W; ++lane) {
      if (!get_mask(mask, lane)) continue;
      LaneControl& s = control[lane];
      const double q_top = get(top_flux.q, lane), q_bottom = get(bottom_flux.q, lane);
      const double taken = p.roots ? static_cast<double>(get(uptake, lane)) : 0.0;
      const double added = get(source_sum, lane);
      s.top += s.dt * q_top;
      s.bottom += s.dt * q_bottom;
      s.runoff += s.dt * get(top_flux.runoff, lane);
      s.uptake += s.dt * taken;
      s.imbalance += get(stored, lane) - s.dt * (q_top + q_bottom - taken + added);
      s.moved += get(moved, lane) + fabs(static_cast<double>(get(pond_gain, lane))) +
                 s.dt * (fabs(q_top) + fabs(q_bottom) + taken + fabs(added));
      const bool complete = s.advance(p, get(error, lane));
      if (complete) write_interval(lane);
      if (s.next_step(p, complete)) entered |= 1u << lane;
      s.waiting = s.move != Move::idle;
      interval[lane] = s.interval < p.intervals ? s.interval : p.intervals - 1;
    }
    if (p.roots) omega_old = select(mask, omega_sum, omega_old);
    if (entered) begin_intervals(entered);
  }

  // The interval that the lane has just completed goes to the output.
  DGPDE_HD void write_interval(int lane) {
    const LaneControl& s = control[lane];
    const int64_t column = lanes.column(lane), at = s.interval * p.n + column;
    const double inv = 1.0 / s.length;
    static_cast<R*>(out.top_flux)[at] = static_cast<R>(s.top * inv);
    static_cast<R*>(out.bottom_flux)[at] = static_cast<R>(s.bottom * inv);
    static_cast<R*>(out.runoff)[at] = static_cast<R>(s.runoff * inv);
    static_cast<R*>(out.uptake)[at] = static_cast<R>(s.uptake * inv);
    static_cast<R*>(out.ponding)[at + p.n] = get(ponding_old, lane);
    const int64_t row = out.save_row[s.interval + 1];
    if (row < 0) return;
    R* psi = static_cast<R*>(out.psi) + row * p.nz * p.n + column;
    for (int64_t k = 0; k < p.nz; ++k) psi[k * p.n] = get(V(c.psi_old(k)), lane);
  }
};

}  // namespace DGPDE_ISA
}  // namespace dgpde
