"""A run of solutes along columns whose flow took steps of its own in every column: round by round, all columns at once.

Round r is the r-th accepted step of each column, with its own length and output interval (``WaterTable``); a column
that has come to its end stands still. Otherwise this is ``TransportRun``, for the solutes that a reaction joins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from dgpde.checkpoint import StateStore
from dgpde.kernels.column_flow.native import Segment
from dgpde.kernels.column_transport.cpu import NativeWater
from dgpde.kernels.column_transport.table import Arrays, WaterTable
from dgpde.kernels.column_transport.water import FlowWater
from dgpde.kernels.transport_stencil.cell import Values
from dgpde.kernels.transport_stencil.pieces import State, StepFailure, pushed_values
from dgpde.kernels.transport_stencil.step import Stepper
from dgpde.kernels.transport_stencil.tangent import tangent as step_tangent
from dgpde.kernels.transport_stencil.water import Water
from dgpde.transport_run import TransportRun, filled, in_time


class ColumnRide:
    """The accepted steps of a run of the column engine.

    Attributes:
        flow: its water.
        names: of its tensors.
        sides: of a grid of columns.
        sources, atmosphere: whether sources bring water in, whether the top evaporates.
    """

    elastic = False  # such water leaves with the concentration of its cell, as in the column engine

    def __init__(self, water: FlowWater) -> None:
        self.flow, self.names, self.sides = water, water.names, ("bottom", "top")
        problem = water.trajectory.problem
        self.atmosphere = problem.top == "atmosphere"
        self.sources = bool(problem.sources or problem.roots)


@dataclass(frozen=True)
class Round:
    """One step of every column.

    Attributes:
        water: of the step.
        interval: [n] of the whole run.
        live, ends: [n] bool.
        dt: [n] s.
    """

    water: Water
    interval: Tensor
    live: Tensor
    ends: Tensor
    dt: Tensor


@dataclass
class RoundsRun(TransportRun):
    """See ``TransportRun``; ``ride`` is a ``ColumnRide``."""

    @property
    def flow(self) -> FlowWater:
        """The water."""
        return cast(ColumnRide, self.ride).flow

    def _rounds(self, table: WaterTable, segment: Segment) -> Iterator[Round]:
        for r in range(1, table.count):
            yield self._round(table, segment, r)

    def _round(self, table: WaterTable, segment: Segment, r: int) -> Round:
        arrays = {"theta": table.theta, "flux": table.flux, "taken": table.taken, "source": table.source}
        named = self._named(arrays, r)
        rates = {name: named[f"rate.{name}"] for name in ("source", "roots")}
        water = Water(
            table.dt[r, None, None],
            named["old"],
            named["new"],
            named["theta"],
            dict.fromkeys(self.geometry.axes, named["flow_z"]),
            {side: named[f"side.{side}"] for side in self.sides},
            rates if cast(ColumnRide, self.ride).sources else {},
        )
        return Round(water, table.interval[r] + segment.first, table.live[r], table.ends[r], table.dt[r])

    def _named(self, arrays: Arrays, r: int) -> Values:
        """A round's water as ``Water.named`` has it, or its tangents: it is linear in the arrays."""
        volume, flux = self.geometry.volume, arrays["flux"][r, :, None]
        theta = arrays["theta"][r, :, None]
        found = {"old": volume * arrays["theta"][r - 1, :, None], "new": volume * theta, "theta": theta}
        found |= {"side.bottom": flux[0], "side.top": -flux[-1]}
        found |= {"rate.source": arrays["source"][r, :, None], "rate.roots": -arrays["taken"][r, :, None]}
        return found | {"flow_z": torch.cat([flux[1:-1], torch.zeros_like(flux[:1])])}

    def _values_of(self, inputs: Values, interval: Tensor) -> list[Values]:
        """The numbers of each solute, of every column in its own interval."""
        return [
            {name: self._rows(name, inputs[f"{i}.{name}"], interval) for name in names}
            for i, names in enumerate(self.values)
        ]

    def _rows(self, name: str, value: Tensor, interval: Tensor) -> Tensor:
        if not in_time(name):
            return value
        if value.shape[0] == 1:
            return value[0]
        columns = torch.arange(interval.numel())
        return value[interval, ..., columns].movedim(0, -1)

    def _shares(self, one: Round) -> Tensor:
        """Of the interval that a column's step is, [n]; 0 where it stands still."""
        return torch.where(one.live, one.dt / self.times.diff()[one.interval], 0.0)

    # ------------------------------------------------------------------------------------------------ forward

    def forward(self, inputs: Values) -> Values:
        """Run through all intervals; what a run that failed did not reach stays nan."""
        stepper, state = self._stepper(), self._start(inputs)
        water_inputs = self._water_inputs(inputs)
        out, account = self._empty(inputs, torch.nan), self.account
        count, n = len(self.species), self.geometry.shape[2]
        account.moved, account.entered, account.carried = (inputs["c0"].new_zeros(count) for _ in range(3))
        self._observe(out, 0, state)
        masses = inputs["c0"].new_zeros(3, self.intervals + 1, count)
        whole = len(self.flow.cuts) == 1
        self.states = None if whole or not self.record else StateStore(self.flow.checkpoint)
        weighed, everywhere = False, torch.ones(n, dtype=torch.bool)
        for side in self.sides:
            out[side].zero_()
        for index, (segment, native) in enumerate(self.flow.walk(water_inputs, self.record)):
            if self.states is not None:
                self.states.put(index, state)
            table = WaterTable(native, self.geometry.shape[0], n)
            for one in self._rounds(table, segment):
                if self.record and whole:
                    self.trail.append(state)
                values = self._values_of(inputs, one.interval)
                if not weighed:
                    self._weigh_columns(masses[:, 0], stepper, one, one.water.old, values, state, everywhere)
                    weighed = True
                stepper.share = torch.where(one.live, one.dt, 0.0)[None, None]
                try:
                    self._check_mobile(stepper, one.water, values)
                    found = stepper.forward(one.water, values, state)
                except StepFailure as failure:
                    first = int(one.interval[one.live].min())
                    account.failed, account.reason = float(self.times[first]), str(failure)
                    for side in self.sides:
                        out[side][first:] = torch.nan
                    masses[:, first + 1 :] = torch.nan
                    self.mass = list(masses)
                    return out
                if self.geometry.scheme == "central":
                    peclet, courant = stepper.numbers(one.water, values)
                    account.peclet, account.courant = (
                        max(account.peclet, peclet),
                        max(account.courant, courant),
                    )
                state = {k: torch.where(one.live, v, state[k]) for k, v in found.state.items()}
                self._book_columns(out, one, found.sides)
                account.iterations += found.iterations
                inside = sum((stepper.share[0] * mass).flatten(1).sum(1) for mass in found.sides.values())
                account.moved = account.moved + found.moved
                account.entered = account.entered + inside + found.reacted
                account.carried = account.carried + found.carried
                self._observe_columns(out, one, state)
                for interval in one.interval[one.ends].unique().tolist():
                    at = one.ends & (one.interval == interval)
                    where = masses[:, interval + 1]
                    self._weigh_columns(where, stepper, one, one.water.new, values, state, at)
        if self.record and whole:
            self.trail.append(state)
        self.mass = list(masses)
        return out

    def _weigh_columns(
        self,
        into: Tensor,
        stepper: Stepper,
        one: Round,
        stored: Tensor,
        values: list[Values],
        state: State,
        at: Tensor,
    ) -> None:
        """Add the mass by phase of some columns, the cells holding ``stored`` m3 of water, to [3, S]."""
        for i, species in enumerate(self.species):
            mobile = stored
            if species.immobile:
                mobile = stored - self.geometry.volume * values[i]["immobile_theta"]
            cell = stepper.cell(i, one.water, values[i], state, {}, None)
            held = cell.held({name: state[f"{i}.{name}"] for name in species.states}, mobile)
            for k, name in enumerate(("dissolved", "sorbed", "immobile")):
                if name in held:
                    into[k, i] += held[name][..., at].sum()

    def _book_columns(self, out: Values, one: Round, sides: Values) -> None:
        """Means over the intervals, per area."""
        shares, columns = self._shares(one), torch.arange(one.live.numel())
        for side, mass in sides.items():
            part = (shares * mass).movedim(-1, 0)  # [n, S, 1]; every column has a row of its own
            out[side][one.interval, ..., columns] += part

    def _observe_columns(self, out: Values, one: Round, state: State) -> None:
        at = one.ends.nonzero().flatten()
        if at.numel() == 0:
            return
        rows = one.interval[at] + 1
        for i, species in enumerate(self.species):
            out["c"][rows, i, ..., at] = state[f"{i}.c"][..., at].movedim(-1, 0)
            for name in ("sorbed", "immobile"):
                if name in species.states:
                    out[name][rows, i, ..., at] = state[f"{i}.{name}"][..., at].movedim(-1, 0)
                elif out[name].dim():
                    out[name][rows, i, ..., at] = 0.0

    def _trail_of(self, inputs: Values, stepper: Stepper, index: int, rounds: list[Round]) -> list[State]:
        """States before every round of a segment and after the last: kept, or taken again."""
        if self.states is None:
            return self.trail
        state: State = dict(self.states.get(index))
        found = [state]
        for one in rounds:
            stepper.share = torch.where(one.live, one.dt, 0.0)[None, None]
            after = stepper.forward(one.water, self._values_of(inputs, one.interval), state).state
            state = {k: torch.where(one.live, v, state[k]) for k, v in after.items()}
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
        stepper = self._stepper()
        by_water = {name.partition(".")[2] for name in wanted if name.startswith("water.")}
        stepper.wants_water = bool(by_water)
        stepper.wanted = [{n for n in names if f"{i}.{n}" in wanted} for i, names in enumerate(self.values)]
        carried: list[State] = [{}]  # cotangents of the states, from segment to segment

        def work(segment: Segment, native: NativeWater) -> None:
            table = WaterTable(native, self.geometry.shape[0], self.geometry.shape[2])
            rounds = list(self._rounds(table, segment))
            trail = self._trail_of(inputs, stepper, self.flow.cuts.index(segment), rounds)
            water_bars = table.bars() if by_water else None
            for r in reversed(range(len(rounds))):
                one = rounds[r]
                state_bars = carried[0]
                self._pull_ends(bars, one, state_bars)
                live_bars = {k: torch.where(one.live, v, 0.0) for k, v in state_bars.items()}
                values, seeds = self._values_of(inputs, one.interval), self._seeds_of(bars, one)
                try:
                    before, by_value, by_name = stepper.adjoint(
                        one.water, values, trail[r], trail[r + 1], live_bars, seeds
                    )
                except StepFailure as failure:
                    first = int(one.interval[one.live].min())
                    raise self._failed(first, f"a step of the adjoint failed: {failure}") from failure
                carried[0] = {
                    k: torch.where(one.live, v, state_bars.get(k, torch.zeros_like(v)))
                    for k, v in before.items()
                }
                self._add_rows(gradients, by_value, one.interval)
                if water_bars is not None:
                    self._put(water_bars, r + 1, by_name)
            if water_bars is not None:
                table.give(water_bars, self.geometry.widths[0][:, None])

        found = self.flow.backward(self._water_inputs(inputs), by_water, work)
        self._pull_observed(bars, 0, carried[0])
        self._pull_start(inputs, carried[0], gradients)
        for name in by_water:
            gradients[f"water.{name}"] = found[name]
        return gradients

    def _put(self, bars: Arrays, r: int, found: Values) -> None:
        """The cotangents of a round's ``Water.named()`` to its row."""
        volume, zero = self.geometry.volume, torch.zeros_like(self.geometry.volume)
        new = volume * found.get("new", zero) + found.get("theta", zero)
        bars["theta"][r] += new[:, 0]
        bars["before"][r] += (volume * found.get("old", zero))[:, 0]
        if "flow_z" in found:
            bars["flux"][r, 1:-1] += found["flow_z"][:-1, 0]
        if "side.bottom" in found:
            bars["flux"][r, 0] += found["side.bottom"][0]
        if "side.top" in found:
            bars["flux"][r, -1] -= found["side.top"][0]
        for name, rate, sign in (("taken", "rate.roots", -1.0), ("source", "rate.source", 1.0)):
            if rate in found:
                bars[name][r] += sign * found[rate][:, 0]

    def _pull_ends(self, bars: Values, one: Round, state_bars: State) -> None:
        """Add the cotangents of what was observed after a round."""
        if not bool(one.ends.any()):
            return
        columns = torch.arange(one.ends.numel())
        for i, species in enumerate(self.species):
            for name in species.states:
                if name in bars:
                    part = bars[name][one.interval + 1, i, ..., columns].movedim(0, -1)
                    part = torch.where(one.ends, part, 0.0)
                    key = f"{i}.{name}"
                    state_bars[key] = state_bars[key] + part if key in state_bars else part

    def _seeds_of(self, bars: Values, one: Round) -> Values:
        shares, columns = self._shares(one), torch.arange(one.live.numel())
        return {
            side: shares * bars[side][one.interval, ..., columns].movedim(0, -1)
            for side in self.sides
            if side in bars
        }

    def _add_rows(self, gradients: Values, found: list[Values], interval: Tensor) -> None:
        columns = torch.arange(interval.numel())
        for i, mine in enumerate(found):
            for name, value in mine.items():
                into = gradients.get(f"{i}.{name}")
                if into is None:
                    continue
                if not in_time(name):
                    into += value
                elif into.shape[0] == 1:
                    into[0] += value
                else:  # every column has a row of its own
                    into[interval, ..., columns] += value.movedim(-1, 0)

    # ------------------------------------------------------------------------------------------------ tangent

    def tangent(self, inputs: Values, tangents: Values) -> Values:
        """Tangents of the outputs along the accepted steps; inputs that are not named do not move."""
        stepper, out = self._stepper(), self._empty(inputs, 0.0)
        moving = {n: v for n, v in tangents.items() if not n.startswith("water.")}
        by_water = {n.partition(".")[2]: v for n, v in tangents.items() if n.startswith("water.")}
        start = pushed_values(lambda at: self._start(inputs | at), dict(inputs), moving) if moving else {}
        carried: list[State] = [filled(start, self.species, inputs["c0"][0])]
        self._observe(out, 0, carried[0])

        def work(segment: Segment, native: NativeWater) -> None:
            table = WaterTable(native, self.geometry.shape[0], self.geometry.shape[2])
            rounds, moves = list(self._rounds(table, segment)), table.moves()
            trail = self._trail_of(inputs, stepper, self.flow.cuts.index(segment), rounds)
            for r, one in enumerate(rounds):
                still = {k: torch.where(one.live, v, 0.0) for k, v in carried[0].items()}
                named, there = self._named(moves, r + 1), one.water.named()
                water_dots = {k: torch.where(one.live, v, 0.0) for k, v in named.items() if k in there}
                value_dots = [
                    {
                        n: self._rows(n, moving[f"{i}.{n}"], one.interval)
                        for n in names
                        if f"{i}.{n}" in moving
                    }
                    for i, names in enumerate(self.values)
                ]
                values = self._values_of(inputs, one.interval)
                try:
                    found, sides = step_tangent(
                        stepper, one.water, values, trail[r], trail[r + 1], (water_dots, value_dots, still)
                    )
                except StepFailure as failure:
                    first = int(one.interval[one.live].min())
                    raise self._failed(first, f"a step of the tangent failed: {failure}") from failure
                carried[0] = {k: torch.where(one.live, found[k], v) for k, v in carried[0].items()}
                self._book_columns(out, one, sides)
                self._observe_columns(out, one, carried[0])

        self.flow.tangent(self._water_inputs(inputs), by_water, work)
        return out
