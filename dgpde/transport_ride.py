"""What carries the solutes of a field through time: the accepted steps of a flow run, or a steady flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, SIDES, CarryingStencil, Step, of_interval
from dgpde.kernels.transport_stencil.cell import Values
from dgpde.kernels.transport_stencil.problem import Geometry
from dgpde.kernels.transport_stencil.water import Water
from dgpde.timeloop import Record, State
from dgpde.trajectory import Backward, FieldRun, Riding

ELASTIC = "elastic"  # water that elastic storage holds beyond that at the start, a state of the transport


@dataclass(frozen=True)
class Span:
    """Steps that follow each other.

    Attributes:
        intervals: of each step.
        lengths: s.
        start, records: of a flow run.
    """

    intervals: list[int]
    lengths: list[float]
    start: State | None = None
    records: list[Record] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The first interval."""
        return self.intervals[0] if self.intervals else 0

    def before(self, index: int) -> State:
        """The flow's state before a step."""
        assert self.start is not None
        if index == 0:
            return self.start
        record = self.records[index - 1]
        return State(record.psi, record.ponding, record.dt)


class Ride(Protocol):
    """What carries; tensors by the names of ``names``, in ``inputs``."""

    names: tuple[str, ...]
    elastic: bool  # whether the state of the transport holds elastic water

    def spans(self, inputs: Values, backwards: bool) -> Iterator[Span]:
        """The steps, a span at a time."""

    def water(
        self, inputs: Values, span: Span, index: int, elastic: Tensor | None
    ) -> tuple[Water, Tensor | None]:
        """A step's water, and the elastic water after it, given that before it."""

    def begin(self, inputs: Values, wanted: set[str]) -> None:
        """Before a sweep backwards."""

    def pull(self, span: Span, index: int, bars: Values, elastic: Tensor | None) -> Tensor | None:
        """Take the cotangents of a step's ``Water.named()`` and of the elastic water after it; returns that before."""

    def finish(self) -> Values:
        """Gradients of the inputs wanted, after the sweep."""


class SteadyRide:
    """A flow that stays as it is.

    Args:
        geometry: the grid.
        sides: those of the grid.
        steps: intervals and lengths of the steps.
        every: intervals of a span.
    """

    elastic = False

    def __init__(
        self, geometry: Geometry, sides: tuple[str, ...], steps: list[tuple[int, float]], every: int
    ) -> None:
        self.geometry, self.sides, self.steps, self.every = geometry, sides, steps, every
        flows = tuple(f"flow_{AXES[k]}" for k in geometry.axes)
        self.names: tuple[str, ...] = ("theta", *flows, *(f"side.{side}" for side in sides))
        self._water: dict[float, Water] = {}
        self._of: Values | None = None

    def spans(self, inputs: Values, backwards: bool) -> Iterator[Span]:
        """The steps of ``every`` intervals at a time."""
        last = self.steps[-1][0] + 1
        firsts = list(range(0, last, self.every))
        for first in reversed(firsts) if backwards else firsts:
            part = [step for step in self.steps if first <= step[0] < first + self.every]
            yield Span([interval for interval, _ in part], [dt for _, dt in part])

    def water(
        self, inputs: Values, span: Span, index: int, elastic: Tensor | None
    ) -> tuple[Water, Tensor | None]:
        """The same water in every step of one length."""
        if self._of is not inputs:
            self._water, self._of = {}, inputs
        dt = span.lengths[index]
        if dt not in self._water:
            # tensors of the water of another length serve again, so that what is made of them does too
            known = next(iter(self._water.values()), None)
            stored = known.old if known else self.geometry.volume * inputs["theta"]
            flow = {k: inputs[f"flow_{AXES[k]}"] for k in self.geometry.axes}
            sides = {side: inputs[f"side.{side}"] for side in self.sides}
            self._water[dt] = Water(dt, stored, stored, inputs["theta"], flow, sides, {})
        return self._water[dt], None

    def begin(self, inputs: Values, wanted: set[str]) -> None:
        """Start from zero."""
        self.wanted = wanted
        self.bars: Values = {}

    def pull(self, span: Span, index: int, bars: Values, elastic: Tensor | None) -> Tensor | None:
        """Add up."""
        for name, value in bars.items():
            where = "theta" if name in ("old", "new") else name
            if where in self.wanted:
                part = self.geometry.volume * value if name in ("old", "new") else value
                self.bars[where] = self.bars[where] + part if where in self.bars else part
        return None

    def finish(self) -> Values:
        """The sums."""
        return self.bars

    def tangents(self, dots: Values) -> Values:
        """Tangents of ``Water.named()``."""
        found = {name: value for name, value in dots.items() if name in self.names}
        if "theta" in dots:
            found["old"] = found["new"] = self.geometry.volume * dots["theta"]
        return found


class FlowRide:
    """The accepted steps of a run of the field engine."""

    def __init__(self, run: FieldRun, geometry: Geometry) -> None:
        self.run, self.geometry = run, geometry
        self.names: tuple[str, ...] = tuple(run.names)
        self.elastic = True
        self.stencil: CarryingStencil | None = None
        self._inputs: Values | None = None
        self._theta: tuple[Tensor, Tensor] | None = None  # psi, theta there

    def _use(self, inputs: Values) -> None:
        if self._inputs is not inputs:
            self._inputs = inputs
            self.stencil = cast(CarryingStencil, self.run.make_stencil(self.run.problem, inputs))
            storage = inputs["storage"]
            self.elastic_now = bool((storage != 0.0).any())

    def spans(self, inputs: Values, backwards: bool) -> Iterator[Span]:
        """The run's spans."""
        for start, records in self.run.replays(inputs, backwards):
            yield Span([r.interval for r in records], [r.dt for r in records], start, records)

    def _theta_at(self, psi: Tensor) -> Tensor:
        if self._theta is None or self._theta[0] is not psi:
            assert self.stencil is not None
            self._theta = (psi, self.stencil.theta(psi))
        return self._theta[1]

    def water(
        self, inputs: Values, span: Span, index: int, elastic: Tensor | None
    ) -> tuple[Water, Tensor | None]:
        """What the flow did in a step."""
        self._use(inputs)
        assert self.stencil is not None and elastic is not None
        record, before, problem = span.records[index], span.before(index), self.run.problem
        theta_old = self._theta_at(before.psi)
        step = Step(record.interval, record.dt, before.psi, theta_old, before.ponding)
        done = self.stencil.carried(step, record.psi)
        self._theta = (record.psi, done.theta)
        volume = self.geometry.volume
        after = elastic + done.elastic
        rates, cells = {}, {}
        if problem.source:
            rate = of_interval("source", inputs["source"], record.interval)
            rates["source"] = (volume * rate).expand(problem.shape)
        if problem.wells is not None:
            rates["wells"] = of_interval("wells", inputs["wells"], record.interval)
            cells["wells"] = problem.wells
        if problem.rivers is not None:
            assert done.rivers is not None
            rates["rivers"], cells["rivers"] = done.rivers, problem.rivers
        if done.roots is not None:
            rates["roots"] = -done.roots
        sides = {side: self.geometry.side_area(side) * flux for side, flux in done.sides.items()}
        water = Water(
            record.dt,
            volume * theta_old + elastic,
            volume * done.theta + after,
            done.theta,
            done.flow,
            sides,
            rates,
            cells,
        )
        return water, after

    def begin(self, inputs: Values, wanted: set[str]) -> None:
        """Prepare the flow's own sweep, where one of its inputs asks for a gradient."""
        self._use(inputs)
        self.back = Backward(self.run, inputs, {}, wanted) if wanted else None

    def pull(self, span: Span, index: int, bars: Values, elastic: Tensor | None) -> Tensor | None:
        """Walk the flow's step with the cotangents as seeds."""
        volume, record = self.geometry.volume, span.records[index]
        zero = torch.zeros_like(record.psi)
        assert elastic is not None
        old, new = bars.get("old", zero), bars.get("new", zero)
        stored = elastic + new  # of the elastic water at the end of the step
        if self.back is not None:
            seeds = {name: bars[name] for name in (f"flow_{axis}" for axis in AXES) if name in bars}
            for side in SIDES:
                if f"side.{side}" in bars:
                    seeds[side] = self.geometry.side_area(side) * bars[f"side.{side}"]
            if self.elastic_now:
                seeds[ELASTIC] = stored
            if "rate.rivers" in bars:
                seeds["rivers"] = bars["rate.rivers"]
            if "rate.roots" in bars:
                seeds["roots"] = -bars["rate.roots"]
            for name in ("source", "wells"):
                if f"rate.{name}" in bars and name in self.back.gradients:
                    row = of_interval(name, self.back.gradients[name], record.interval)
                    part = bars[f"rate.{name}"]
                    row.add_(part if name == "wells" else (volume * part).sum_to_size(row.shape))
            theta = volume * new + bars.get("theta", zero)
            assert span.start is not None
            self.back.step(span.start, span.records, index, Riding(seeds, theta, volume * old))
        return stored + old

    def finish(self) -> Values:
        """The flow's gradients."""
        return {} if self.back is None else self.back.finish()

    def pushed(
        self, moving: Values, interval: int, theta: tuple[Tensor, Tensor], d_out: Values, elastic: Tensor
    ) -> Values:
        """Tangents of a step's ``Water.named()`` from those of the flow's inputs and of its step.

        ``theta``: tangents before and after the step; ``elastic``: of the elastic water before it.
        """
        volume, problem = self.geometry.volume, self.run.problem
        found = {
            "old": volume * theta[0] + elastic,
            "new": volume * theta[1] + elastic + d_out[ELASTIC],
            "theta": theta[1],
        }
        found |= {name: d_out[name] for name in (f"flow_{axis}" for axis in AXES) if name in d_out}
        for side in problem.sides:
            found[f"side.{side}"] = self.geometry.side_area(side) * d_out[side]
        if "rivers" in d_out:
            found["rate.rivers"] = d_out["rivers"]
        if "roots" in d_out:
            found["rate.roots"] = -d_out["roots"]
        if "wells" in moving:
            found["rate.wells"] = of_interval("wells", moving["wells"], interval)
        if "source" in moving:
            found["rate.source"] = volume * of_interval("source", moving["source"], interval)
        return found
