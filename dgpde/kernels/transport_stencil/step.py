"""One implicit step of all solutes on any backend: its solve, its adjoint and its tangent (README.md, 3 to 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, on_side
from dgpde.kernels.transport_stencil.cell import Cell, Species, Values, inverse_slope, invert, isotherm
from dgpde.kernels.transport_stencil.dispersion import Dispersion, disperse, disperse_sides
from dgpde.kernels.transport_stencil.problem import Faces, Geometry, Network

MARGIN = 1e-2  # a step ends this far below the tolerance of its linear solves, since what it leaves is mass
NEWTON, HALVINGS, LOOSEST = 60, 6, 1e-2
State = dict[str, Tensor]  # "<number of the solute>.c", ".sorbed", ".immobile"


class StepFailure(Exception):
    """A step, its adjoint or its tangent did not come to an end; the message says why."""


@dataclass(frozen=True)
class Water:
    """What the flow does in one step; all of it is differentiable.

    Attributes:
        dt: s.
        old, new: water of the cells before and after, [nz, ny, nx] m3.
        theta: water content after, [nz, ny, nx].
        flow: by axis, [nz, ny, nx] m3/s.
        sides: by side, [*side] m3/s into the domain.
        rates: what sources bring in, by name: a field [nz, ny, nx], or the rates [m] of ``cells``, m3/s.
        cells: by name of the rates, [m] flat indices.
    """

    dt: float
    old: Tensor
    new: Tensor
    theta: Tensor
    flow: dict[int, Tensor]
    sides: dict[str, Tensor]
    rates: dict[str, Tensor]
    cells: dict[str, Tensor] = field(default_factory=dict)

    def named(self) -> Values:
        """The tensors by name."""
        found = {"old": self.old, "new": self.new, "theta": self.theta}
        found |= {f"flow_{AXES[k]}": value for k, value in self.flow.items()}
        found |= {f"side.{side}": value for side, value in self.sides.items()}
        return found | {f"rate.{name}": value for name, value in self.rates.items()}

    def with_values(self, named: Values) -> Water:
        """The same with other tensors."""
        return Water(
            self.dt,
            named["old"],
            named["new"],
            named["theta"],
            {k: named[f"flow_{AXES[k]}"] for k in self.flow},
            {side: named[f"side.{side}"] for side in self.sides},
            {name: named[f"rate.{name}"] for name in self.rates},
            self.cells,
        )

    def inflow(self) -> Tensor:
        """What sources bring in, [nz, ny, nx] m3/s; what they take out does not count."""
        total = torch.zeros_like(self.old)
        for name, rate in self.rates.items():
            entering = torch.where(rate > 0.0, rate, 0.0)
            if name in self.cells:
                flat = torch.zeros_like(total).flatten()
                entering = flat.index_add(0, self.cells[name], entering).reshape(total.shape)
            total = total + entering
        return total


@dataclass(frozen=True)
class Stepped:
    """The end of a step.

    Attributes:
        state: after it.
        sides: by side, mass into the domain, [S, *side] kg/s.
        iterations: of all linear solves.
        reacted: [S] kg/s that production, decay of the parent and its own, and sources add in all cells.
        moved: [S] kg/s, the magnitudes of all exchanges.
        carried: [S] kg/s, c times what the water's step leaves unbalanced.
    """

    state: State
    sides: Values
    iterations: int
    reacted: Tensor
    moved: Tensor
    carried: Tensor


MakeNetwork = Callable[[Faces], Network]


@dataclass(frozen=True)
class _Conducted:
    """The network of one solute, and what it was made of."""

    key: tuple[Tensor, ...]
    network: Network
    sides: Values  # conductances of the sides


class Stepper:
    """Steps of some solutes on some geometry.

    Args:
        geometry, species: what is solved.
        make_network: of the backend, one for each solute.
        tolerance: relative residual of the linear solves.

    Attributes:
        lasting: whether all steps have the same water, so that an adjoint's part by the dispersion can wait for
            ``flush``.
        wanted: by solute, names of the values whose gradients are wanted; None for all.
        wants_water: whether those of the water are.
    """

    def __init__(
        self,
        geometry: Geometry,
        species: tuple[Species, ...],
        make_network: Sequence[MakeNetwork],
        tolerance: float,
    ) -> None:
        self.geometry, self.species, self.make_network = geometry, species, make_network
        self.tolerance = tolerance
        self.lasting = False
        self.wanted: list[set[str]] | None = None
        self.wants_water = True
        self._known: dict[int, _Conducted] = {}
        self._pending: dict[int, Values] = {}

    # ----------------------------------------------------------------------------------------------- the pieces

    def mobile(self, number: int, water: Water, values: Values) -> tuple[Tensor, Tensor, Tensor]:
        """(m before, m after, mobile theta after) of one solute."""
        if not self.species[number].immobile:
            return water.old, water.new, water.theta
        standing = values["immobile_theta"]
        apart = self.geometry.volume * standing
        return water.old - apart, water.new - apart, water.theta - standing

    def conduct(
        self, number: int, water: Water, values: Values, twice: bool = False
    ) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor], Values]:
        """Conductances and cross terms of the faces, conductances of the sides that need them.

        ``twice``: for a tangent, which differentiates the derivatives again.
        """
        theta = self.mobile(number, water, values)[2]
        pore = None
        if "diffusion" in values:
            if "tortuosity" in values:
                pore = theta * values["tortuosity"] * values["diffusion"]
            else:
                pore = theta ** (10.0 / 3.0) / values["theta_s"] ** 2 * values["diffusion"]
        given = Dispersion(values.get("longitudinal"), values.get("horizontal"), values.get("vertical"), pore)
        kinds = self.species[number].sides
        held = tuple(side for side, kind in kinds.items() if kind == "concentration")
        native = None if twice else getattr(self.make_network[number], "disperse", None)
        faces = (native or disperse)(self.geometry, water.flow, water.sides, given)
        return *faces, disperse_sides(self.geometry, water.flow, water.sides, given, held)

    def cell(
        self, number: int, water: Water, values: Values, state: State, sides: Values, born: Tensor | None
    ) -> Cell:
        """The cells of one solute."""
        old, new, _ = self.mobile(number, water, values)
        inside: Values = {"old": old, "new": new} | water.sides
        if self.species[number].sources:
            inside["inflow"] = water.inflow()
        before = {name: state[f"{number}.{name}"] for name in self.species[number].states}
        return Cell(self.geometry, self.species[number], water.dt, values, inside, sides, before, born)

    def _network(self, number: int, water: Water, values: Values) -> tuple[Network, Values]:
        """The network of one solute; of the same water and numbers the one that is there."""
        key = (
            water.theta,
            *water.flow.values(),
            *(values[name] for name in sorted(values) if name in DISPERSION),
        )
        known = self._known.get(number)
        if known is not None and _identical(known.key, key):
            return known.network, known.sides
        with torch.no_grad():
            conductance, cross, sides = self.conduct(number, water, values)
        network = self.make_network[number](Faces(water.flow, conductance, cross))
        self._known[number] = _Conducted(key, network, sides)
        return network, sides

    def numbers(self, water: Water, values: list[Values]) -> tuple[float, float]:
        """The largest grid Peclet and Courant numbers of the faces; the first is infinite where nothing disperses."""
        peclet = courant = 0.0
        least = torch.where(self.geometry.volume > 0.0, water.new, torch.inf)
        for number in range(len(self.species)):
            network, _ = self._network(number, water, values[number])
            for axis, flow in network.faces.flow.items():
                moves = flow.abs()
                ratio = torch.where(moves > 0.0, moves / network.faces.conductance[axis], 0.0)
                peclet = max(peclet, float(ratio.max()))
                courant = max(courant, water.dt * float((moves / least).max()))
        return peclet, courant

    def _set_up(
        self, network: Network, cell: Cell, c: Tensor, linear: Tensor, weight: Tensor | None
    ) -> Tensor | None:
        """Hand the Jacobian at c to the solver, ``Cell.slopes`` given; returns the factors of its columns."""
        column = None
        if weight is not None:
            column = _column(cell, linear, weight, c)
        key = (linear, column, c if self.geometry.scheme == "tvd" else None)
        held = getattr(network, "held", None)
        if held is None or not _same(held, key):
            network.setup(linear, column, c)
            network.held = key  # type: ignore[attr-defined]
        return column

    # -------------------------------------------------------------------------------------------------- forward

    def forward(self, water: Water, values: list[Values], state: State) -> Stepped:
        """Solve a step.

        Raises:
            StepFailure: a solve did not converge.
        """
        after: State = {}
        sides: dict[str, list[Tensor]] = {}
        iterations, sums = 0, []
        cells: list[Cell] = []
        for number, species in enumerate(self.species):
            network, side_conductance = self._network(number, water, values[number])
            born = None
            if species.parent is not None:
                parent = cells[species.parent]
                born = parent.decayed(_of(after, species.parent, parent.species.states))
            cell = self.cell(number, water, values[number], state, side_conductance, born)
            c, more = self._solve(network, cell)
            iterations += more
            cells.append(cell)
            states = cell.states(c)
            after |= {f"{number}.{name}": value for name, value in states.items()}
            for side in species.sides:
                sides.setdefault(side, []).append(cell.side(side, on_side(c, side))[0])
            sums.append(_sums(network, cell, states, water, [sides[side][-1] for side in species.sides]))
        reacted, moved, carried = (torch.stack(part) for part in zip(*sums, strict=True))
        return Stepped(
            after,
            {side: torch.stack(parts) for side, parts in sides.items()},
            iterations,
            reacted,
            moved,
            carried,
        )

    def _solve(self, network: Network, cell: Cell) -> tuple[Tensor, int]:
        """Newton from the state before."""
        geometry, active = self.geometry, self.geometry.active
        linear_problem = geometry.scheme != "tvd" and not cell.species.nonlinear
        c = cell.old["c"]
        iterations, before = 0, math.inf

        def residual(c: Tensor) -> tuple[Tensor, float]:
            found = cell.residual(c) + network.apply(c)
            if active is not None:
                found = torch.where(active, found, 0.0)
            return found, float(torch.linalg.vector_norm(found))

        now, norm = residual(c)
        linear, weight = cell.slopes()
        known = linear * c - now
        if active is not None:
            known = torch.where(active, known, 0.0)
        required = self.tolerance * float(torch.linalg.vector_norm(known))
        allowed = MARGIN * required  # aimed at; round-off may stop a step anywhere below what is required
        for _ in range(NEWTON):
            if norm <= allowed:
                return c, iterations
            if not math.isfinite(norm):
                raise StepFailure("its residual is not finite")
            self._set_up(network, cell, c, linear, weight)
            enough = 0.5 * allowed / norm
            if not linear_problem:
                enough = max(
                    enough, min(LOOSEST, 0.5 * (norm / before) ** 2 if math.isfinite(before) else LOOSEST)
                )
            solved = network.solve(-now, None, min(enough, 0.5), transposed=False)
            iterations += solved.iterations
            if not solved.converged and not solved.residual * norm <= required:
                raise StepFailure(
                    f"its linear solve ended at a relative residual of {solved.residual:.3g} after "
                    f"{solved.iterations} iterations, {enough:.3g} was asked for"
                )
            if linear_problem:
                return c + solved.x, iterations
            before = norm
            share, best = 1.0, None
            for _ in range(HALVINGS):
                trial = _moved(cell, linear, weight, c, share * solved.x)
                there, size = residual(trial)
                if best is None or size < best[2]:
                    best = (trial, there, size)
                if size <= (1.0 - 1e-4 * share) * norm or size <= allowed:
                    break
                share *= 0.5
            assert best is not None
            c, now, norm = best
            if norm >= before:
                if norm <= required:
                    return c, iterations
                raise StepFailure(
                    f"Newton's method found no smaller residual than {norm:.3g} kg/s where {required:.3g} is asked for"
                )
        raise StepFailure(f"Newton's method did not converge in {NEWTON} iterations")

    # -------------------------------------------------------------------------------------------------- adjoint

    def adjoint(
        self,
        water: Water,
        values: list[Values],
        state: State,
        after: State,
        bars: State,
        side_bars: Values,
        guess: dict[int, Tensor] | None = None,
    ) -> tuple[State, list[Values], Values]:
        """Pull the cotangents of a step's end and of its sides back to what went in.

        Args:
            water, values, state, after: of the step.
            bars: cotangents of ``after``.
            side_bars: of the masses through the sides, [S, *side].
            guess: multipliers of the step after this one by solute, for a start; replaced by those found.

        Returns:
            cotangents of ``state``, of the values of each solute, and of ``water.named()``.

        Raises:
            StepFailure: a transposed solve did not converge.
        """
        bars = dict(bars)
        before: State = {}
        value_bars: list[Values] = [{} for _ in self.species]
        water_bars: Values = {}
        for number in reversed(range(len(self.species))):
            species, mine = self.species[number], values[number]
            network, conductance = self._network(number, water, mine)
            c = after[f"{number}.c"]
            parent = None if species.parent is None else self._parent(number, water, values, state)
            born = None
            if parent is not None:
                assert species.parent is not None
                born = parent.decayed(_of(after, species.parent, parent.species.states))
            cell = self.cell(number, water, mine, state, conductance, born)
            seeds = {side: side_bars[side][number] for side in species.sides if side in side_bars}
            multiplier = self._multiplier(
                network,
                cell,
                c,
                _of(bars, number, species.states),
                seeds,
                None if guess is None else guess.get(number),
            )
            if guess is not None:
                guess[number] = multiplier
            face_bars = network.pull(multiplier, c)
            self._pend(number, face_bars)
            # everything but c itself, whose derivative the multiplier has made 0
            leaves = _leaves(
                (self._water_leaves(water) if self.wants_water else {})
                | {f"value.{k}": v for k, v in mine.items() if self._wants(number, k)}
                | {f"state.{k}": state[f"{number}.{k}"] for k in species.states}
                | {f"conductance.{k}": v for k, v in conductance.items() if k in species.sides}
                | ({} if born is None else {"born": born})
            )
            with torch.enable_grad():
                inner = water.with_values(
                    {k: leaves.get(f"water.{k}", value) for k, value in water.named().items()}
                )
                numbers = {k: leaves.get(f"value.{k}", value) for k, value in mine.items()}
                states = {f"{number}.{k}": leaves[f"state.{k}"] for k in species.states}
                on_sides = {k: leaves.get(f"conductance.{k}", value) for k, value in conductance.items()}
                live = self.cell(number, inner, numbers, states, on_sides, leaves.get("born"))
                ends = live.states(c)
                total = -(multiplier * live.residual(c, ends)).sum()
                for name in species.states:
                    bar = bars.get(f"{number}.{name}")
                    if name != "c" and bar is not None:
                        total = total + (bar * ends[name]).sum()
                for side, seed in seeds.items():
                    total = total + (seed * live.side(side, on_side(c, side))[0]).sum()
                found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            by_name = dict(zip(leaves, found, strict=True))
            for name, gradient in by_name.items():
                if gradient is None:
                    continue
                kind, _, rest = name.partition(".")
                if kind == "water":
                    _add(water_bars, rest, gradient)
                elif kind == "value":
                    _add(value_bars[number], rest, gradient)
                elif kind == "state":
                    before[f"{number}.{rest}"] = gradient
                elif kind == "conductance":
                    _add(self._pending[number], f"side.{rest}", gradient)
            for axis, gradient in face_bars.flow.items():
                _add(water_bars, f"flow_{AXES[axis]}", gradient)
            if self.geometry.active is not None:  # c of a cell that takes no part stays as it is
                key = f"{number}.c"
                before[key] = torch.where(self.geometry.active, before[key], multiplier)
            if parent is not None and by_name["born"] is not None:
                self._pull_decay(number, parent, after, by_name["born"], bars, value_bars, water_bars, values)
        if not self.lasting:
            self.flush(water, values, value_bars, water_bars)
        return before, value_bars, water_bars

    def _wants(self, number: int, name: str) -> bool:
        return self.wanted is None or name in self.wanted[number]

    def _water_leaves(self, water: Water) -> Values:
        return {f"water.{k}": v for k, v in water.named().items()}

    def _pend(self, number: int, bars: Faces) -> None:
        """Add cotangents of what the faces conduct to those that wait."""
        mine = self._pending.setdefault(number, {})
        for axis, value in bars.conductance.items():
            _add(mine, f"g{axis}", value)
        for (n, t), value in bars.cross.items():
            _add(mine, f"x{n}{t}", value)

    def flush(self, water: Water, values: list[Values], value_bars: list[Values], water_bars: Values) -> None:
        """Hand the cotangents that wait to the numbers and the water that the dispersion comes from."""
        for number, bars in self._pending.items():
            mine = values[number]
            names = [k for k in DISPERSION if k in mine and self._wants(number, k)]
            of_water = self._water_leaves(water) if self.wants_water else {}
            leaves = _leaves({f"value.{k}": mine[k] for k in names} | of_water)
            if not leaves:
                continue
            with torch.enable_grad():
                inner = water.with_values(
                    {k: leaves.get(f"water.{k}", value) for k, value in water.named().items()}
                )
                numbers = {k: leaves.get(f"value.{k}", value) for k, value in mine.items()}
                g, x, sides = self.conduct(number, inner, numbers)
                outputs = {f"g{k}": v for k, v in g.items()} | {f"x{n}{t}": v for (n, t), v in x.items()}
                outputs |= {f"side.{k}": v for k, v in sides.items()}
                pairs = [(v, bars[k]) for k, v in outputs.items() if k in bars and v.requires_grad]
                if not pairs:
                    continue
                found = torch.autograd.grad(
                    [o for o, _ in pairs], list(leaves.values()), [w for _, w in pairs], allow_unused=True
                )
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is None:
                    continue
                kind, _, rest = name.partition(".")
                _add(water_bars if kind == "water" else value_bars[number], rest, gradient)
        self._pending = {}

    def _parent(self, number: int, water: Water, values: list[Values], state: State) -> Cell:
        parent = self.species[number].parent
        assert parent is not None
        return self.cell(parent, water, values[parent], state, {}, None)

    def _pull_decay(
        self,
        number: int,
        parent: Cell,
        after: State,
        bar: Tensor,
        bars: State,
        value_bars: list[Values],
        water_bars: Values,
        values: list[Values],
    ) -> None:
        """Hand the cotangent of what the parent's decay makes to the parent's states, numbers and water."""
        which = self.species[number].parent
        assert which is not None
        ends = _of(after, which, parent.species.states)
        names = [n for n in ("decay", "bulk_density", "immobile_theta") if n in parent.values]
        leaves = _leaves(
            {f"state.{k}": v for k, v in ends.items()}
            | {f"value.{k}": values[which][k] for k in names}
            | {"new": parent.water["new"]}
        )
        with torch.enable_grad():
            live = Cell(
                parent.geometry,
                parent.species,
                parent.dt,
                parent.values | {k: leaves[f"value.{k}"] for k in names},
                parent.water | {"new": leaves["new"]},
                {},
                parent.old,
            )
            total = (bar * live.decayed({k: leaves[f"state.{k}"] for k in ends})).sum()
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is None:
                continue
            kind, _, rest = name.partition(".")
            if kind == "state":
                _add(bars, f"{which}.{rest}", gradient)
            elif kind == "value":
                _add(value_bars[which], rest, gradient)
            else:
                _add(water_bars, "new", gradient)
                if parent.species.immobile:  # the mobile water is what is left of it
                    _add(value_bars[which], "immobile_theta", -parent.geometry.volume * gradient)

    def _multiplier(
        self, network: Network, cell: Cell, c: Tensor, bars: State, seeds: Values, guess: Tensor | None
    ) -> Tensor:
        """lambda of J^T lambda = g, both scaled with the columns where sorption has an unbounded slope."""
        linear, weight = cell.slopes()
        column = self._set_up(network, cell, c, linear, weight)
        load = bars.get("c", torch.zeros_like(c))
        load = load.clone()
        for side, seed in seeds.items():
            on_side(load, side).add_(seed * cell.side_slope(side))
        if "immobile" in bars:
            load += cell._standing()[0] * bars["immobile"]
        kept = cell._kept()[0] if cell.species.sorption else 1.0
        if column is not None:
            load = load * column
            if "sorbed" in bars:
                assert weight is not None
                load += kept * bars["sorbed"] * _column_slope(cell, linear, weight, c)
        elif "sorbed" in bars:
            load += kept * cell.values["k_d"] * bars["sorbed"]
        return self._linear(network, load, guess, transposed=True)

    def _linear(self, network: Network, rhs: Tensor, guess: Tensor | None, transposed: bool) -> Tensor:
        active = self.geometry.active
        outside = None
        if active is not None:
            outside, rhs = torch.where(active, 0.0, rhs), torch.where(active, rhs, 0.0)
        solved = network.solve(rhs, guess, self.tolerance, transposed=transposed)
        if not (solved.converged and bool(torch.isfinite(solved.x).all())):
            raise StepFailure(
                f"its {'transposed' if transposed else 'linear'} solve ended at a relative residual of "
                f"{solved.residual:.3g} after {solved.iterations} iterations, {self.tolerance:.3g} was asked for"
            )
        return solved.x if outside is None else torch.where(active, solved.x, outside)  # type: ignore[arg-type]

    # -------------------------------------------------------------------------------------------------- tangent

    def tangent(
        self,
        water: Water,
        values: list[Values],
        state: State,
        after: State,
        dots: tuple[Values, list[Values], State],
    ) -> tuple[State, Values]:
        """Tangents of a step's end and of the masses through its sides.

        Args:
            water, values, state, after: of the step.
            dots: tangents of ``water.named()``, of the values of each solute, of ``state``; what is missing does not
                move.
        """
        moved: State = {}
        sides: dict[str, list[Tensor]] = {}
        for number, species in enumerate(self.species):
            mine = values[number]
            network, conductance = self._network(number, water, mine)
            c = after[f"{number}.c"]
            inputs = (
                {f"water.{k}": v for k, v in water.named().items()}
                | {f"value.{k}": v for k, v in mine.items()}
                | {f"state.{k}": state[f"{number}.{k}"] for k in species.states}
            )
            moving = {f"water.{k}": v for k, v in dots[0].items()}
            moving |= {f"value.{k}": v for k, v in dots[1][number].items()}
            moving |= {
                f"state.{k}": dots[2][f"{number}.{k}"] for k in species.states if f"{number}.{k}" in dots[2]
            }
            which = species.parent
            if which is not None:
                names = self.species[which].states
                inputs |= {f"parent.{k}": v for k, v in _of(after, which, names).items()}
                inputs |= {f"its.{k}": v for k, v in values[which].items()}
                moving |= {f"parent.{k}": v for k, v in _of(moved, which, names).items()}
                moving |= {f"its.{k}": v for k, v in dots[1][which].items()}

            def build(
                at: Values, c: Tensor, number: int = number, which: int | None = which
            ) -> tuple[Cell, Values]:
                inner = water.with_values({k: at[f"water.{k}"] for k in water.named()})
                numbers = {k: at[f"value.{k}"] for k in values[number]}
                states = {f"{number}.{k}": at[f"state.{k}"] for k in self.species[number].states}
                g, x, on_sides = self.conduct(number, inner, numbers, twice=True)
                born = None
                if which is not None:
                    its = {k: at[f"its.{k}"] for k in values[which]}
                    ends = {k: at[f"parent.{k}"] for k in self.species[which].states}
                    old = {f"{which}.{k}": state[f"{which}.{k}"] for k in self.species[which].states}
                    born = self.cell(which, inner, its, old, {}, None).decayed(ends)
                cell = self.cell(number, inner, numbers, states, on_sides, born)
                outputs = {f"g{k}": v for k, v in g.items()} | {f"x{n}{t}": v for (n, t), v in x.items()}
                return cell, outputs

            def first(at: Values, c: Tensor = c) -> Values:
                cell, outputs = build(at, c)
                return outputs | {"residual": cell.residual(c)}

            pushed = _pushed(first, inputs, moving)
            faces = Faces(
                {k: dots[0][f"flow_{AXES[k]}"] for k in water.flow if f"flow_{AXES[k]}" in dots[0]},
                {k: pushed[f"g{k}"] for k in self.geometry.axes},
                {(n, t): pushed[f"x{n}{t}"] for n, t in self.geometry.pairs},
            )
            rhs = -(pushed["residual"] + network.push(c, faces))
            cell = self.cell(number, water, mine, state, conductance, None)
            linear, weight = cell.slopes()
            column = self._set_up(network, cell, c, linear, weight)
            y = self._linear(network, rhs, None, transposed=False)
            dc = y if column is None else column * y
            if self.geometry.active is not None:
                dc = torch.where(self.geometry.active, dc, dots[2].get(f"{number}.c", torch.zeros_like(dc)))
            # what sorbs moves with y where its slope is unbounded
            extra = None
            if column is not None:
                assert weight is not None
                extra = cell._kept()[0] * _column_slope(cell, linear, weight, c) * y

            def second(at: Values, c: Tensor = c) -> Values:
                cell, _ = build(at, c)
                found = {f"side.{s}": cell.side(s, on_side(at["c"], s))[0] for s in cell.species.sides}
                ends = cell.states(c)
                if cell.species.sorption:
                    if not cell.species.nonlinear:
                        ends["sorbed"] = cell.states(at["c"])["sorbed"]
                    found["sorbed"] = ends["sorbed"]
                if cell.species.immobile:
                    found["immobile"] = cell.states(at["c"])["immobile"]
                return found

            pushed = _pushed(second, inputs | {"c": c}, moving | {"c": dc})
            moved[f"{number}.c"] = dc
            for name in species.states[1:]:
                moved[f"{number}.{name}"] = pushed[name]
            if extra is not None:
                moved[f"{number}.sorbed"] = moved[f"{number}.sorbed"] + extra
            for side in species.sides:
                sides.setdefault(side, []).append(pushed[f"side.{side}"])
        return moved, {side: torch.stack(parts) for side, parts in sides.items()}


DISPERSION = (
    "longitudinal",
    "horizontal",
    "vertical",
    "diffusion",
    "tortuosity",
    "theta_s",
    "immobile_theta",
)


def _identical(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> bool:
    return len(one) == len(two) and all(a is b for a, b in zip(one, two, strict=True))


def _same(held: tuple[Tensor | None, ...], key: tuple[Tensor | None, ...]) -> bool:
    """Whether two sets of tensors hold the same numbers."""
    for a, b in zip(held, key, strict=True):
        if (a is None) != (b is None) or (a is not None and a is not b and not torch.equal(a, b)):  # type: ignore[arg-type]
            return False
    return True


def _of(state: State, number: int, names: Iterable[str]) -> Values:
    """The states of one solute that are there."""
    return {name: state[f"{number}.{name}"] for name in names if f"{number}.{name}" in state}


def _add(bars: Values, name: str, value: Tensor) -> None:
    bars[name] = bars[name] + value if name in bars else value


def _leaves(values: Values) -> Values:
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _column(cell: Cell, linear: Tensor, weight: Tensor, c: Tensor) -> Tensor:
    """linear/(linear + weight s_eq'), 0 where the slope is infinite."""
    assert cell.species.sorption is not None
    inverse = inverse_slope(cell.species.sorption, cell.values, c)
    sorbs = torch.isfinite(inverse) & (weight != 0.0)
    r = torch.where(sorbs, inverse, 1.0)
    return torch.where(sorbs, linear * r / (linear * r + weight), 1.0)


def _column_slope(cell: Cell, linear: Tensor, weight: Tensor, c: Tensor) -> Tensor:
    """s_eq' times ``_column``, finite where s_eq' is not."""
    assert cell.species.sorption is not None
    inverse = inverse_slope(cell.species.sorption, cell.values, c)
    sorbs = torch.isfinite(inverse)
    r = torch.where(sorbs, inverse, 1.0)
    return torch.where(sorbs, linear / (linear * r + weight), 0.0)


def _moved(cell: Cell, linear: Tensor, weight: Tensor | None, c: Tensor, y: Tensor) -> Tensor:
    """c after a Newton update y, taken in the amount linear c + weight s_eq(c)."""
    if weight is None:
        return c + y
    kind = cell.species.sorption
    assert kind is not None
    amount = linear * c + weight * isotherm(kind, cell.values, c) + linear * y
    return invert(kind, cell.values, linear, weight, amount)


def _sums(
    network: Network, cell: Cell, states: Values, water: Water, masses: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """(reacted, moved, carried) of ``Stepped`` for one solute, kg/s."""
    c, species, values = states["c"], cell.species, cell.values
    reacted, moved = torch.zeros((), dtype=c.dtype), torch.zeros((), dtype=c.dtype)
    parts = []
    if species.decays:
        parts.append(-cell.decayed(states))
    if cell.born is not None:
        parts.append(values["yield"] * cell.born)
    if species.produces:
        parts.append((cell.geometry.volume * values["production"]).expand_as(c))
    if species.sources:
        parts.append(cell.water["inflow"] * values["source_concentration"])
        taken = torch.zeros_like(c)
        for name, rate in water.rates.items():
            leaving = torch.where(rate < 0.0, rate, 0.0)
            if name in water.cells:
                taken.view(-1).index_add_(0, water.cells[name], leaving)
            else:
                taken = taken + leaving
        parts.append(taken * c)
    for part in parts:
        reacted, moved = reacted + part.sum(), moved + part.abs().sum()
    for mass in masses:
        moved = moved + mass.abs().sum()
    # c times (gain of water - inflow through faces, sides and sources); N holds the first of these inflows
    unbalanced = (cell.water["new"] - cell.water["old"]) / cell.dt * c - network.apply(c)
    carried = unbalanced.sum()
    for side in species.sides:
        carried = carried - (cell.water[side] * on_side(c, side)).sum()
    for name, rate in water.rates.items():
        near = c.flatten()[water.cells[name]] if name in water.cells else c
        carried = carried - (rate * near).sum()
    return reacted, moved, carried


def _pushed(function: Callable[[Values], Values], at: Values, tangents: Values) -> Values:
    """Tangents of a function's values at some inputs; those without a tangent do not move."""
    from dgpde.kernels.flow_stencil.reference import pushed

    moving = {name: value for name, value in tangents.items() if name in at}
    still = {name: value for name, value in at.items() if name not in moving}
    if not moving:
        with torch.no_grad():
            return {name: torch.zeros_like(value) for name, value in function(at).items()}
    return pushed(lambda leaves: function(still | leaves), {n: at[n] for n in moving}, moving)
