"""Steps through time of the field engine: their length, their acceptance, and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import Evaluation, Step, zero_output
from dgpde.newton import Newton, Outcome, water
from dgpde.options import SolveOptions

FINISHED, NO_CONVERGENCE, NOT_FINITE, STEP_LIMIT = 0, 1, 2, 3
REACH = 0.3  # a first guess carries psi on by this part of itself at most


@dataclass
class State:
    """What one step hands to the next.

    Attributes:
        psi: [nz, ny, nx] m.
        ponding: [ny, nx] m.
        dt: s, the step to try next.
        precise: whether linear solves have gone over to a preconditioner in float64.
    """

    psi: Tensor
    ponding: Tensor
    dt: float
    precise: bool = False


@dataclass(frozen=True)
class Record:
    """An accepted step: what the backward sweep needs besides the state before it."""

    interval: int
    dt: float
    psi: Tensor  # at its end
    ponding: Tensor


@dataclass
class Account:
    """Counters and the balance of a run.

    Attributes:
        status: 0, or why the run ended early.
        failed_time: s, nan when the run finished.
        cell: flat index of the cell that was furthest from convergence then, or -1.
        imbalance, moved: m3.
    """

    status: int = FINISHED
    failed_time: float = math.nan
    cell: int = -1
    steps: int = 0
    cuts: int = 0
    rejections: int = 0
    imbalance: float = 0.0
    moved: float = 0.0
    step_sizes: list[list[float]] = field(default_factory=list)


def meshes(dt_fixed: float, length: float) -> int:
    """Equal steps of at most ``dt_fixed`` that cover an interval."""
    # the small slack keeps 86400/432 at 200 steps whatever the division rounds to
    return max(1, math.ceil(length / dt_fixed * (1.0 - 1e-9)))


class Control:
    """Length of the steps in one output interval; the rules are those of the column engine (its README, 2)."""

    def __init__(self, options: SolveOptions, length: float, wish: float) -> None:
        self.options, self.length, self.t, self.mesh, self.meshes = options, length, 0.0, 0, 1
        self.wish = min(wish, options.dt_max)
        if options.dt_fixed is not None:
            self.meshes = meshes(options.dt_fixed, length)
            self.wish = length / self.meshes
        self.begin_step()

    def begin_step(self) -> None:
        """Choose the step: the wish, half of what is left when little more than that is, or all of it."""
        last = self.mesh + 1 == self.meshes
        self.target = self.length if last else self.length / self.meshes * (self.mesh + 1)
        rest = self.target - self.t
        self.landing = self.wish >= rest * (1.0 - 1e-9)
        self.dt = rest if self.landing else min(self.wish, 0.5 * rest)

    def shorten(self, factor: float) -> bool:
        """Repeat the step shorter; False when that would be below dt_min."""
        wish = self.dt * factor
        if wish < self.options.dt_min:
            return False
        self.wish = self.dt = wish
        self.landing = False
        return True

    def accept(self, error: float, iterations: int, restarted: bool) -> bool:
        """Go on in time; True when the interval is complete."""
        options = self.options
        if options.dt_fixed is not None:
            self.wish = min(2.0 * self.dt, self.length / self.meshes)
        else:
            factor = 0.9 / math.sqrt(error) if error > 0.050625 else 4.0
            if (restarted or 2 * iterations > options.max_newton) and factor > 1.0:
                factor = 1.0
            # a step that was only shortened to land says nothing against the longer one
            following = max(self.dt * factor, self.wish) if factor >= 1.0 else self.dt * factor
            self.wish = min(following, options.dt_max)
        if self.landing:
            self.t, self.mesh = self.target, self.mesh + 1
        else:
            self.t += self.dt
        complete = self.landing and self.mesh == self.meshes
        if not complete:
            self.begin_step()
        return complete


def run_interval(
    newton: Newton,
    times: tuple[float, float],
    interval: int,
    state: State,
    account: Account,
    keep: Callable[[Record], None] | None = None,
) -> dict[str, Tensor] | None:
    """Take the state to the end of an interval.

    The steps follow from the state at the start of the interval alone, so that an interval may be run again at
    any time and give the same bits.

    Args:
        newton: solves the steps.
        times: start and end of the interval, s.
        interval: its index.
        state: changed in place.
        account: added to.
        keep: called with every accepted step.

    Returns:
        The means of ``StencilProblem.flux_names``, or None when the run could not go on; the account says why.
    """
    stencil, options = newton.stencil, newton.options
    if state.precise and not newton.solver.precise:
        newton.solver.begin_precise()
    length = times[1] - times[0]
    control = Control(options, length, state.dt)
    sums = zero_output(stencil.problem, state.psi)
    theta = stencil.theta(state.psi)
    volume = stencil.problem.volume(state.psi)
    judged = options.dt_fixed is None
    rate_theta: Tensor | None = None
    rate_psi: Tensor | None = None
    sizes: list[float] = []
    newton.cuts_in_turn = steps = 0
    account.step_sizes.append(sizes)
    while True:
        step = Step(interval, control.dt, state.psi, theta, state.ponding)
        if judged and rate_theta is None:
            flow = stencil.evaluate(
                step, state.psi, newton.allowed, False
            ).residual  # the storage terms vanish there
            rate_theta = -flow / torch.where(volume > 0.0, volume, 1.0)
        outcome = newton.solve(step, _guess(step, rate_psi))
        if not outcome.converged:
            account.cuts += 1
            newton.cuts_in_turn += 1
            if not control.shorten(0.25):
                account.status = NO_CONVERGENCE if outcome.finite else NOT_FINITE
                account.failed_time, account.cell = times[0] + control.t, outcome.worst
                return None
            continue
        now = outcome.now
        gain, inflow, sources = water(stencil, step, outcome.psi, now)
        error = 0.0
        if judged:
            assert rate_theta is not None
            wetter = gain / torch.where(volume > 0.0, volume, 1.0)
            error = float(torch.minimum(0.5 * (wetter - step.dt * rate_theta).abs(), wetter.abs()).max())
            error /= options.time_error
            if error > 1.0 and control.dt > options.dt_min:
                account.rejections += 1
                if control.shorten(max(0.1, 0.9 / math.sqrt(error))):
                    continue
            rate_theta = wetter / step.dt
        rate_psi = (outcome.psi - step.psi) / step.dt
        _book(account, sums, step, outcome, gain, inflow, sources)
        sizes.append(step.dt)
        state.psi, state.ponding, theta = outcome.psi, now.ponding, now.theta
        if keep is not None:
            keep(Record(interval, step.dt, state.psi, state.ponding))
        newton.cuts_in_turn = 0
        steps += 1
        complete = control.accept(error, outcome.iterations, outcome.restarted)
        state.dt = control.wish
        if complete:
            state.precise = newton.solver.precise
            return {name: sums[name] / length for name in stencil.problem.flux_names}
        if steps >= options.max_steps:
            account.status, account.failed_time = STEP_LIMIT, times[0] + control.t
            return None


def _guess(step: Step, rate: Tensor | None) -> Tensor:
    """The old state, carried on at its rate by at most a part of itself."""
    if rate is None:
        return step.psi
    reach = REACH * step.psi.abs()
    return step.psi + torch.minimum(torch.maximum(step.dt * rate, -reach), reach)


def _book(
    account: Account,
    sums: dict[str, Tensor],
    step: Step,
    outcome: Outcome,
    gain: Tensor,
    inflow: dict[str, Tensor],
    sources: tuple[float, float],
) -> None:
    """Add an accepted step to the sums of the interval and to the balance."""
    now: Evaluation = outcome.now
    dt = step.dt
    for name, flux in now.fluxes().items():
        sums[name] += dt * flux
    entered = sum(float(part.sum()) for part in inflow.values()) + sources[0]
    exchanged = sum(float(part.abs().sum()) for part in inflow.values()) + sources[1]
    account.imbalance += float(gain.sum()) - dt * entered
    account.moved += float(gain.abs().sum()) + dt * exchanged
    account.steps += 1
