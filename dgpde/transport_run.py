"""A run of solutes on a field: forward, adjoint and tangent, for the node of `dgpde.kernels.node`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.checkpoint import Checkpoint, StateStore
from dgpde.errors import SolveError
from dgpde.kernels.transport_stencil.assembly import MakeNetwork
from dgpde.kernels.transport_stencil.cell import Species, Values, isotherm
from dgpde.kernels.transport_stencil.coupled import CoupledStepper
from dgpde.kernels.transport_stencil.guess import Guess
from dgpde.kernels.transport_stencil.pieces import State, StepFailure, pushed_values, trend, without_trend
from dgpde.kernels.transport_stencil.problem import Geometry
from dgpde.kernels.transport_stencil.reaction import PointRate
from dgpde.kernels.transport_stencil.step import Stepper
from dgpde.kernels.transport_stencil.tangent import tangent as step_tangent
from dgpde.kernels.transport_stencil.water import Water
from dgpde.options import SolveOptions
from dgpde.timeloop import Record
from dgpde.timeloop import State as FlowState
from dgpde.transport_ride import ELASTIC, FlowRide, Ride, Span, SteadyRide

IN_TIME = ("production", "source_concentration")


@dataclass
class TransportAccount:
    """What a run came to, [S] each but ``failed`` and ``iterations``; kg."""

    failed: float | None = None  # time at which it could not go on, s
    reason: str = ""
    iterations: int = 0
    peclet: float = 0.0  # the largest of a central scheme
    courant: float = 0.0
    moved: Tensor = field(default_factory=lambda: torch.zeros(()))
    entered: Tensor = field(default_factory=lambda: torch.zeros(()))
    carried: Tensor = field(default_factory=lambda: torch.zeros(()))


@dataclass
class TransportRun:
    """A run that is ready.

    Attributes:
        geometry, species: what is solved.
        times: [T + 1] s.
        ride: what carries the solutes.
        values: names of the numbers of each solute; behind them those of the tensors of the reaction, if there is one.
        options: tolerances, checkpoints.
        make_engine: of the backend, once for each solute.
        reaction: what joins the solutes, or None.
    """

    geometry: Geometry
    species: tuple[Species, ...]
    times: Tensor
    ride: Ride
    values: tuple[tuple[str, ...], ...]
    options: SolveOptions
    make_engine: Callable[[Geometry], MakeNetwork]
    reaction: PointRate | None = None
    account: TransportAccount = field(default_factory=TransportAccount)

    def __post_init__(self) -> None:
        self.record = False
        self.states: StateStore | None = None
        self.trail: list[State] = []  # states before every step of the whole run, and the last one
        self.mass: list[Tensor] = []  # dissolved, sorbed, immobile [T + 1, S] kg
        self.names = (
            "c0",
            *(f"{i}.{name}" for i, names in enumerate(self.values) for name in names),
            *(f"water.{name}" for name in self.ride.names),
        )
        self.sides = tuple(self.species[0].sides)

    @property
    def intervals(self) -> int:
        """Number of output intervals."""
        return self.times.numel() - 1

    @property
    def whole(self) -> bool:
        """Whether the states of all steps are kept."""
        checkpoint = self.options.checkpoint
        return checkpoint is None or checkpoint.policy != "every"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in the order of the node's."""
        return ("c", "sorbed", "immobile", *self.sides)

    def _stepper(self) -> Stepper:
        engines = [self.make_engine(self.geometry) for _ in self.species]
        tolerance = self.options.linear_tolerance
        if self.reaction is None:
            return Stepper(self.geometry, self.species, engines, tolerance)
        return CoupledStepper(self.geometry, self.species, engines, tolerance, self.reaction)

    def _values(self, inputs: Values, interval: int) -> list[Values]:
        """The numbers of each solute in an interval."""
        found = []
        for i, names in enumerate(self.values):
            mine = {}
            for name in names:
                value = inputs[f"{i}.{name}"]
                if in_time(name):
                    value = _row(value, interval)
                mine[name] = value
            found.append(mine)
        return found

    def _water_inputs(self, inputs: Values) -> Values:
        return {name: inputs[f"water.{name}"] for name in self.ride.names}

    def _start(self, inputs: Values) -> State:
        """The states at the start: equilibrium with c0."""
        state: State = {}
        numbers = self._values(inputs, 0)
        for i, species in enumerate(self.species):
            c, values = inputs["c0"][i], numbers[i]
            state[f"{i}.c"] = c
            if species.sorption:
                state[f"{i}.sorbed"] = isotherm(species.sorption, values, c).expand_as(c)
            if species.immobile:
                state[f"{i}.immobile"] = c
            if self.geometry.scheme == "tvd" and not species.nonlinear and self.reaction is None:
                state |= trend(i, torch.zeros_like(c), 0.0)
        if self.ride.elastic:
            state[ELASTIC] = torch.zeros_like(inputs["c0"][0])
        return state

    # ------------------------------------------------------------------------------------------------ forward

    def forward(self, inputs: Values) -> Values:
        """Run through all intervals; what a run that failed did not reach stays nan."""
        stepper, water_inputs = self._stepper(), self._water_inputs(inputs)
        state = self._start(inputs)
        self.states = StateStore(self.options.checkpoint or Checkpoint("all")) if not self.whole else None
        out = self._empty(inputs, torch.nan)
        account, count = self.account, len(self.species)
        account.moved, account.entered, account.carried = (inputs["c0"].new_zeros(count) for _ in range(3))
        self._observe(out, 0, state)
        self.mass = [inputs["c0"].new_full((self.intervals + 1, count), torch.nan) for _ in range(3)]
        weighed = False
        for span in self.ride.spans(water_inputs, backwards=False):
            if self.record and self.states is not None:
                self.states.put(span.first, state)
            for index, (interval, dt) in enumerate(zip(span.intervals, span.lengths, strict=True)):
                if self.record and self.whole:
                    self.trail.append(without_trend(state))
                water, elastic = self.ride.water(water_inputs, span, index, state.get(ELASTIC))
                values = self._values(inputs, interval)
                try:
                    self._check_mobile(stepper, water, values)
                    done = stepper.forward(water, values, state)
                except StepFailure as failure:
                    account.failed, account.reason = float(self.times[interval]), str(failure)
                    return out
                if self.geometry.scheme == "central":
                    peclet, courant = stepper.numbers(water, values)
                    account.peclet = max(account.peclet, peclet)
                    account.courant = max(account.courant, courant)
                if not weighed:
                    self._weigh(0, stepper, water, water.old, values, state)
                    weighed = True
                state = dict(done.state)
                if elastic is not None:
                    state[ELASTIC] = elastic
                self._book(out, interval, dt, done.sides)
                account.iterations += done.iterations
                inside = sum(mass.flatten(1).sum(1) for mass in done.sides.values())
                account.moved = account.moved + dt * done.moved
                account.entered = account.entered + dt * (inside + done.reacted)
                account.carried = account.carried + dt * done.carried
                if _ends(span, index):
                    self._observe(out, interval + 1, state)
                    self._weigh(interval + 1, stepper, water, water.new, values, state)
        if self.record and self.whole:
            self.trail.append(without_trend(state))
        return out

    def _weigh(
        self, index: int, stepper: Stepper, water: Water, stored: Tensor, values: list[Values], state: State
    ) -> None:
        """Mass by phase at times[index], the cells holding ``stored`` m3 of water."""
        for i, species in enumerate(self.species):
            mobile = stored
            if species.immobile:
                mobile = stored - self.geometry.volume * values[i]["immobile_theta"]
            cell = stepper.cell(i, water, values[i], state, {}, None)
            held = cell.held({name: state[f"{i}.{name}"] for name in species.states}, mobile)
            for part, name in zip(self.mass, ("dissolved", "sorbed", "immobile"), strict=True):
                part[index, i] = held[name].sum() if name in held else 0.0

    def _check_mobile(self, stepper: Stepper, water: Water, values: list[Values]) -> None:
        for number, species in enumerate(self.species):
            if species.immobile:
                old, new, _ = stepper.mobile(number, water, values[number])
                inside = self.geometry.volume > 0.0
                if bool(((old <= 0.0) | (new <= 0.0))[inside].any()):
                    raise StepFailure("the immobile water leaves no mobile water")

    def _empty(self, inputs: Values, fill: float) -> Values:
        c0, count = inputs["c0"], len(self.species)
        shape = (self.intervals + 1, count, *self.geometry.shape)
        out = {"c": c0.new_full(shape, fill)}
        for name in ("sorbed", "immobile"):
            some = any(name in species.states for species in self.species)
            out[name] = c0.new_full(shape, fill) if some else c0.new_zeros(())
        for side in self.sides:
            size = self.geometry.side_area(side).shape
            out[side] = c0.new_full((self.intervals, count, *size), fill)
        return out

    def _observe(self, out: Values, index: int, state: State) -> None:
        for i, species in enumerate(self.species):
            out["c"][index, i] = state[f"{i}.c"]
            for name in ("sorbed", "immobile"):
                if name in species.states:
                    out[name][index, i] = state[f"{i}.{name}"]
                elif out[name].dim():
                    out[name][index, i] = 0.0

    def _book(self, out: Values, interval: int, dt: float, sides: Values) -> None:
        """Means over the interval, per area."""
        start, end = float(self.times[interval]), float(self.times[interval + 1])
        for side, mass in sides.items():
            area = self.geometry.side_area(side)
            flux = torch.where(area > 0.0, mass / torch.where(area > 0.0, area, 1.0), 0.0)
            part = dt / (end - start) * flux
            row = out[side][interval]
            row.copy_(torch.where(row.isnan(), part, row + part))

    def _trail(self, inputs: Values, span: Span, stepper: Stepper, at: int) -> list[State]:
        """States before every step of a span and after the last: kept, or taken again. ``at``: steps before it."""
        if self.whole:
            return self.trail[at : at + len(span.lengths) + 1]
        assert self.states is not None
        state: State = dict(self.states.get(span.first))
        found, water_inputs = [state], self._water_inputs(inputs)
        for index, interval in enumerate(span.intervals):
            water, elastic = self.ride.water(water_inputs, span, index, state.get(ELASTIC))
            state = dict(stepper.forward(water, self._values(inputs, interval), state).state)
            if elastic is not None:
                state[ELASTIC] = elastic
            found.append(state)
        return found

    # ------------------------------------------------------------------------------------------------ adjoint

    def adjoint(self, inputs: Values, cotangents: dict[str, Tensor | None], wanted: set[str]) -> Values:
        """Gradients of the wanted inputs, each with the input's own shape.

        Raises:
            SolveError: a transposed solve did not converge.
        """
        bars = {name: value for name, value in cotangents.items() if value is not None}
        gradients = {name: torch.zeros_like(inputs[name]) for name in wanted if not name.startswith("water.")}
        stepper, water_inputs = self._stepper(), self._water_inputs(inputs)
        by_water = {name.partition(".")[2] for name in wanted if name.startswith("water.")}
        ride = self.ride
        ride.begin(water_inputs, by_water)
        stepper.lasting = isinstance(ride, SteadyRide)
        stepper.wants_water = bool(by_water)
        stepper.wanted = [{n for n in names if f"{i}.{n}" in wanted} for i, names in enumerate(self.values)]
        state_bars: State = {}
        elastic = torch.zeros_like(inputs["c0"][0]) if ride.elastic else None
        guesses: dict[int, Guess] = {}
        last = None
        end = len(self.trail) - 1
        for span in ride.spans(water_inputs, backwards=True):
            trail = self._trail(inputs, span, stepper, end - len(span.lengths))
            end -= len(span.lengths)
            for index in reversed(range(len(span.lengths))):
                interval, dt = span.intervals[index], span.lengths[index]
                if _ends(span, index):
                    self._pull_observed(bars, interval + 1, state_bars)
                water, _ = ride.water(water_inputs, span, index, trail[index].get(ELASTIC))
                values = self._values(inputs, interval)
                try:
                    state_bars, by_value, by_name = stepper.adjoint(
                        water,
                        values,
                        trail[index],
                        trail[index + 1],
                        state_bars,
                        self._seeds(bars, interval, dt),
                        guesses,
                    )
                except StepFailure as failure:
                    raise self._failed(interval, f"a step of the adjoint failed: {failure}") from failure
                self._add(gradients, by_value, interval)
                elastic = ride.pull(span, index, by_name, elastic)
                last = (span, index, water, values)
        if last is not None and stepper.lasting:
            span, index, water, values = last
            rest: list[Values] = [{} for _ in self.species]
            of_water: Values = {}
            stepper.flush(water, values, rest, of_water)
            self._add(gradients, rest, span.intervals[index])
            ride.pull(span, index, of_water, elastic)
        self._pull_observed(bars, 0, state_bars)
        self._pull_start(inputs, state_bars, gradients)
        found = {f"water.{name}": value for name, value in ride.finish().items()}
        for name in wanted:
            if name.startswith("water."):
                gradients[name] = found.get(name, torch.zeros_like(inputs[name]))
        return gradients

    def _add(self, gradients: Values, found: list[Values], interval: int) -> None:
        """Add gradients of the numbers of the solutes in an interval."""
        for i, mine in enumerate(found):
            for name, value in mine.items():
                if f"{i}.{name}" in gradients:
                    into = gradients[f"{i}.{name}"]
                    into = _row(into, interval) if in_time(name) else into
                    into += value

    def _pull_observed(self, bars: Values, index: int, state_bars: State) -> None:
        for i, species in enumerate(self.species):
            for name in species.states:
                if name in bars:
                    key = f"{i}.{name}"
                    part = bars[name][index, i]
                    state_bars[key] = state_bars[key] + part if key in state_bars else part.clone()

    def _seeds(self, bars: Values, interval: int, dt: float) -> Values:
        start, end = float(self.times[interval]), float(self.times[interval + 1])
        found = {}
        for side in self.sides:
            if side in bars:
                area = self.geometry.side_area(side)
                inverse = torch.where(area > 0.0, 1.0 / torch.where(area > 0.0, area, 1.0), 0.0)
                found[side] = dt / (end - start) * bars[side][interval] * inverse
        return found

    def _pull_start(self, inputs: Values, state_bars: State, gradients: Values) -> None:
        """The states at the start by c0 and the isotherm."""
        names = [name for name in gradients if name == "c0" or name.partition(".")[0].isdigit()]
        with torch.enable_grad():
            leaves = {name: inputs[name].detach().requires_grad_() for name in names}
            start = self._start(inputs | leaves)
            pairs = [(start[k], bar) for k, bar in state_bars.items() if start[k].requires_grad]
            if not pairs:
                return
            found = torch.autograd.grad(
                [s for s, _ in pairs], list(leaves.values()), [b for _, b in pairs], allow_unused=True
            )
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                gradients[name] += gradient

    def _failed(self, interval: int, what: str) -> SolveError:
        start = float(self.times[interval])
        return SolveError(
            f"{what} (in the interval that begins at {start:.6g} s)",
            times=torch.tensor([start], dtype=torch.float64),
        )

    # ------------------------------------------------------------------------------------------------ tangent

    def tangent(self, inputs: Values, tangents: Values) -> Values:
        """Tangents of the outputs along the accepted steps; inputs that are not named do not move."""
        stepper, water_inputs = self._stepper(), self._water_inputs(inputs)
        out = self._empty(inputs, 0.0)
        moving = {n: v for n, v in tangents.items() if not n.startswith("water.")}
        dots: State = {}
        if moving:
            dots = pushed_values(lambda at: self._start(inputs | at), {n: inputs[n] for n in inputs}, moving)
        dots.pop(ELASTIC, None)
        self._observe(out, 0, filled(dots, self.species, inputs["c0"][0]))
        by_water = {n.partition(".")[2]: v for n, v in tangents.items() if n.startswith("water.")}
        trails: dict[int, tuple[list[State], int]] = {}
        done = 0

        def step(span: Span, index: int, water_dots: Values) -> None:
            nonlocal dots, done
            if index == 0:
                trails.clear()
                trails[0] = (self._trail(inputs, span, stepper, done), done)
                done += len(span.lengths)
            trail = trails[0][0]
            interval, dt = span.intervals[index], span.lengths[index]
            water, _ = self.ride.water(water_inputs, span, index, trail[index].get(ELASTIC))
            value_dots = [
                {
                    n: _row(moving[f"{i}.{n}"], interval) if in_time(n) else moving[f"{i}.{n}"]
                    for n in names
                    if f"{i}.{n}" in moving
                }
                for i, names in enumerate(self.values)
            ]
            values = self._values(inputs, interval)
            dots, sides = step_tangent(
                stepper, water, values, trail[index], trail[index + 1], (water_dots, value_dots, dots)
            )
            self._book(out, interval, dt, sides)
            if _ends(span, index):
                self._observe(out, interval + 1, filled(dots, self.species, inputs["c0"][0]))

        try:
            if isinstance(self.ride, SteadyRide):
                steady = self.ride.tangents(by_water)
                for span in self.ride.spans(water_inputs, backwards=False):
                    for index in range(len(span.lengths)):
                        step(span, index, steady)
            else:
                assert isinstance(self.ride, FlowRide)
                self._along_flow(self.ride, water_inputs, by_water, step)
        except StepFailure as failure:
            raise self._failed(0, f"a step of the tangent failed: {failure}") from failure
        return out

    def _along_flow(
        self, ride: FlowRide, inputs: Values, moving: Values, step: Callable[[Span, int, Values], None]
    ) -> None:
        """Steps of the transport's tangent, each after that of the flow."""
        elastic = torch.zeros_like(inputs["psi0"])

        def watch(
            start: FlowState,
            records: list[Record],
            index: int,
            theta: tuple[Tensor, Tensor],
            d_out: dict[str, Tensor],
        ) -> None:
            nonlocal elastic
            span = Span([r.interval for r in records], [r.dt for r in records], start, records)
            dots = ride.pushed(moving, records[index].interval, theta, d_out, elastic)
            elastic = elastic + d_out[ELASTIC]
            step(span, index, dots)

        ride.run.tangent(inputs, moving, watch)


def in_time(name: str) -> bool:
    """Whether a number has a row for each interval."""
    return name in IN_TIME or "." in name


def _row(value: Tensor, interval: int) -> Tensor:
    """Of a series, that of one interval."""
    return value[interval if value.shape[0] > 1 else 0]


def _ends(span: Span, index: int) -> bool:
    return index + 1 == len(span.intervals) or span.intervals[index + 1] != span.intervals[index]


def filled(dots: State, species: tuple[Species, ...], sample: Tensor) -> State:
    """Zeros for what does not move."""
    zero = torch.zeros_like(sample)
    return {f"{i}.{n}": dots.get(f"{i}.{n}", zero) for i, one in enumerate(species) for n in one.states}
