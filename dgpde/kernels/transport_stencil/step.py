"""One implicit step of all solutes on any backend: its solve, its adjoint and its tangent (README.md, 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES, on_side
from dgpde.kernels.transport_stencil.assembly import DISPERSION, Assembly
from dgpde.kernels.transport_stencil.cell import Cell, Values
from dgpde.kernels.transport_stencil.guess import Guess
from dgpde.kernels.transport_stencil.pieces import (
    LENGTH,
    TREND,
    Pulled,
    State,
    StepFailure,
    Stepped,
    add_to,
    balance,
    column_slopes,
    leaves_of,
    moved_by,
    of_solute,
    trend,
)
from dgpde.kernels.transport_stencil.problem import Faces, Network
from dgpde.kernels.transport_stencil.water import Water

MARGIN = 1e-2  # a step ends this far below the tolerance of its linear solves, since what they leave is mass
NEWTON, HALVINGS, LOOSEST = 60, 6, 1e-2
FURTHEST = 4.0  # lengths of the step before, as far as its change is believed to go on

Step = tuple[Water, list[Values], State, State]  # and the numbers of each solute, states before and after


class Stepper(Assembly):
    """Steps of some solutes, their adjoint, and the linear solves of both; see ``Assembly``."""

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
            network, side_conductance = self.network(number, water, values[number])
            born = None
            if species.parent is not None:
                parent = cells[species.parent]
                born = parent.decayed(of_solute(after, species.parent, parent.species.states))
            cell = self.cell(number, water, values[number], state, side_conductance, born)
            c, more = self._solve(network, cell, self._start(number, water, state))
            iterations += more
            cells.append(cell)
            states = cell.states(c)
            after |= {f"{number}.{name}": value for name, value in states.items()}
            if f"{number}.{TREND}" in state:
                after |= trend(number, c - state[f"{number}.c"], water.dt)
            for side in species.sides:
                sides.setdefault(side, []).append(cell.side(side, on_side(c, side))[0])
            masses = [sides[side][-1] for side in species.sides]
            sums.append(balance(network, cell, states, water, masses, self.share))
        reacted, moved, carried = (torch.stack(part) for part in zip(*sums, strict=True))
        return Stepped(
            after,
            {side: torch.stack(parts) for side, parts in sides.items()},
            iterations,
            reacted,
            moved,
            carried,
        )

    def _start(self, number: int, water: Water, state: State) -> Tensor | None:
        """Where Newton begins: what follows from the step before, unless that is unknown or was much shorter."""
        if f"{number}.{TREND}" not in state or isinstance(water.dt, Tensor):
            return None
        before = float(state[f"{number}.{LENGTH}"])
        if water.dt > FURTHEST * before:
            return None
        return torch.add(state[f"{number}.c"], state[f"{number}.{TREND}"], alpha=water.dt / before)

    def _solve(self, network: Network, cell: Cell, start: Tensor | None = None) -> tuple[Tensor, int]:
        """Newton from a start, and from the state before where that is None or leads nowhere."""
        if start is not None:
            try:
                return self._newton(network, cell, start)
            except StepFailure:
                pass  # a trend that does not go on; the state before is the safer start
        return self._newton(network, cell, cell.old["c"])

    def _newton(self, network: Network, cell: Cell, c: Tensor) -> tuple[Tensor, int]:
        """Newton's method from c."""
        geometry, active = self.geometry, self.geometry.active
        linear_problem = geometry.scheme != "tvd" and not cell.species.nonlinear
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
            self.set_up(network, cell, c, linear, weight)
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
                trial = moved_by(cell, linear, weight, c, share * solved.x)
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
        guesses: dict[int, Guess] | None = None,
    ) -> tuple[State, list[Values], Values]:
        """Pull the cotangents of a step's end and of its sides back to what went in.

        Args:
            water, values, state, after: of the step.
            bars: cotangents of ``after``.
            side_bars: of the masses through the sides, [S, *side].
            guesses: for the multipliers by solute, from the steps after this one; those found are added.

        Returns:
            cotangents of ``state``, of the values of each solute, and of ``water.named()``.

        Raises:
            StepFailure: a transposed solve did not converge.
        """
        found, step = Pulled(dict(bars), {}, [{} for _ in values], {}), (water, values, state, after)
        for number, multiplier, at in self._multipliers(step, side_bars, found, guesses):
            self.pull(number, multiplier, step, at, side_bars, found)
        if not self.lasting:
            self.flush(water, values, found.values, found.water)
        return found.before, found.values, found.water

    def _multipliers(
        self, step: Step, side_bars: Values, found: Pulled, guesses: dict[int, Guess] | None
    ) -> Iterator[tuple[int, Tensor, tuple[Network, Cell]]]:
        """Number, multiplier and what ``after`` returns for each solute, each pulled before the next is asked for."""
        water, _, _, after = step
        for number in reversed(range(len(self.species))):
            network, cell = self.after(number, *step)
            c = after[f"{number}.c"]
            linear, weight = cell.slopes()
            column = self.set_up(network, cell, c, linear, weight)
            load = self.load(number, cell, c, found.bars, side_bars, (linear, weight, column))
            known = Guess() if guesses is None else guesses.setdefault(number, Guess())
            start = known.start(network, load, water.dt)
            multiplier = self.solve_linear(network, load, start, transposed=True)
            known.add(load, water.dt, multiplier)
            yield number, multiplier, (network, cell)

    def after(
        self, number: int, water: Water, values: list[Values], state: State, after: State
    ) -> tuple[Network, Cell]:
        """The network and the cells of one solute at the end of a step that was solved."""
        species, mine = self.species[number], values[number]
        network, conductance = self.network(number, water, mine)
        born = None
        if species.parent is not None:
            parent = self._parent(number, water, values, state)
            born = parent.decayed(of_solute(after, species.parent, parent.species.states))
        return network, self.cell(number, water, mine, state, conductance, born)

    def load(
        self,
        number: int,
        cell: Cell,
        c: Tensor,
        bars: State,
        side_bars: Values,
        slopes: tuple[Tensor, Tensor | None, Tensor | None],
    ) -> Tensor:
        """The right side of one solute's transposed system, ``slopes`` as ``Cell.slopes`` and the columns' factors."""
        linear, weight, column = slopes
        mine = of_solute(bars, number, cell.species.states)
        load = mine["c"].clone() if "c" in mine else torch.zeros_like(c)
        for side in cell.species.sides:
            if side in side_bars:
                on_side(load, side).add_(side_bars[side][number] * cell.side_slope(side))
        if "immobile" in mine:
            load += cell.standing()[0] * mine["immobile"]
        kept = cell.kept()[0] if cell.species.sorption else 1.0
        if column is not None:
            load = load * column
            if "sorbed" in mine:
                assert weight is not None
                load += kept * mine["sorbed"] * column_slopes(cell, linear, weight, c)
        elif "sorbed" in mine:
            load += kept * cell.values["k_d"] * mine["sorbed"]
        return load

    def pull(
        self,
        number: int,
        multiplier: Tensor,
        step: Step,
        at: tuple[Network, Cell],
        side_bars: Values,
        found: Pulled,
    ) -> None:
        """Add what one solute's multiplier hands to everything but the concentrations at the end of the step.

        ``step``: water, values, state, after; ``at``: what ``after`` returns.
        """
        water, values, state, after = step
        network, cell = at
        species, mine, c = self.species[number], values[number], after[f"{number}.c"]
        conductance, born = cell.conductance, cell.born
        face_bars = network.pull(multiplier, c)
        self._pend(number, face_bars)
        # everything but c itself, whose derivative the multiplier has made 0
        leaves = leaves_of(
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
                bar = found.bars.get(f"{number}.{name}")
                if name != "c" and bar is not None:
                    total = total + (bar * ends[name]).sum()
            for side in species.sides:
                if side in side_bars:
                    mass = live.side(side, on_side(c, side))[0]
                    total = total + (side_bars[side][number] * mass).sum()
            gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        by_name = dict(zip(leaves, gradients, strict=True))
        for name, gradient in by_name.items():
            if gradient is None:
                continue
            kind, _, rest = name.partition(".")
            if kind == "water":
                add_to(found.water, rest, gradient)
            elif kind == "value":
                add_to(found.values[number], rest, gradient)
            elif kind == "state":
                found.before[f"{number}.{rest}"] = gradient
            elif kind == "conductance":
                add_to(self._pending[number], f"side.{rest}", gradient)
        for axis, gradient in face_bars.flow.items():
            add_to(found.water, f"flow_{AXES[axis]}", gradient)
        if self.geometry.active is not None:  # c of a cell that takes no part stays as it is
            key = f"{number}.c"
            found.before[key] = torch.where(self.geometry.active, found.before[key], multiplier)
        if born is not None and by_name["born"] is not None:
            self._pull_decay(number, (water, values, state, after), by_name["born"], found)

    def _wants(self, number: int, name: str) -> bool:
        return self.wanted is None or name in self.wanted[number]

    def _water_leaves(self, water: Water) -> Values:
        return {f"water.{k}": v for k, v in water.named().items()}

    def _pend(self, number: int, bars: Faces) -> None:
        """Add cotangents of what the faces conduct to those that wait."""
        mine = self._pending.setdefault(number, {})
        for axis, value in bars.conductance.items():
            add_to(mine, f"g{axis}", value)
        for (n, t), value in bars.cross.items():
            add_to(mine, f"x{n}{t}", value)

    def flush(self, water: Water, values: list[Values], value_bars: list[Values], water_bars: Values) -> None:
        """Hand the cotangents that wait to the numbers and the water that the dispersion comes from."""
        for number, bars in self._pending.items():
            mine = values[number]
            names = [k for k in DISPERSION if k in mine and self._wants(number, k)]
            of_water = self._water_leaves(water) if self.wants_water else {}
            leaves = leaves_of({f"value.{k}": mine[k] for k in names} | of_water)
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
                add_to(water_bars if kind == "water" else value_bars[number], rest, gradient)
        self._pending = {}

    def _parent(self, number: int, water: Water, values: list[Values], state: State) -> Cell:
        parent = self.species[number].parent
        assert parent is not None
        return self.cell(parent, water, values[parent], state, {}, None)

    def _pull_decay(self, number: int, step: Step, bar: Tensor, found: Pulled) -> None:
        """Hand the cotangent of what the parent's decay makes to the parent's states, numbers and water."""
        water, values, state, after = step
        which = self.species[number].parent
        assert which is not None
        parent = self._parent(number, water, values, state)
        ends = of_solute(after, which, parent.species.states)
        names = [n for n in ("decay", "bulk_density", "immobile_theta") if n in parent.values]
        leaves = leaves_of(
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
            gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is None:
                continue
            kind, _, rest = name.partition(".")
            if kind == "state":
                add_to(found.bars, f"{which}.{rest}", gradient)
            elif kind == "value":
                add_to(found.values[which], rest, gradient)
            else:
                add_to(found.water, "new", gradient)
                if parent.species.immobile:  # the mobile water is what is left of it
                    add_to(found.values[which], "immobile_theta", -parent.geometry.volume * gradient)

    def solve_linear(self, network: Network, rhs: Tensor, guess: Tensor | None, transposed: bool) -> Tensor:
        """Solve with the Jacobian that was set up, or its transpose, to the tolerance.

        Raises:
            StepFailure: the solve did not converge.
        """
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
