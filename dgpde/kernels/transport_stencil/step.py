"""One implicit step of all solutes on any backend: its solve, its adjoint and its tangent (README.md, 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.forecast import Forecast
from dgpde.kernels.flow_stencil.problem import AXES, on_side
from dgpde.kernels.transport_stencil.cell import Cell, Species, Values
from dgpde.kernels.transport_stencil.dispersion import Dispersion, disperse, disperse_sides
from dgpde.kernels.transport_stencil.pieces import (
    Pulled,
    State,
    StepFailure,
    Stepped,
    add_to,
    balance,
    column_slopes,
    columns,
    equal,
    identical,
    leaves_of,
    moved_by,
    of_solute,
)
from dgpde.kernels.transport_stencil.problem import Faces, Geometry, Network
from dgpde.kernels.transport_stencil.water import Water

DISPERSION = (
    "longitudinal",
    "horizontal",
    "vertical",
    "diffusion",
    "tortuosity",
    "theta_s",
    "immobile_theta",
)
MARGIN = 1e-2  # a step ends this far below the tolerance of its linear solves, since what it leaves is mass
NEWTON, HALVINGS, LOOSEST = 60, 6, 1e-2


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
        share: of the cells in the sums of ``Stepped``, [1, 1, nx] or ().
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
        self.share = torch.ones((), dtype=torch.float64)
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

    def network(self, number: int, water: Water, values: Values) -> tuple[Network, Values]:
        """The network of one solute; of the same water and numbers the one that is there."""
        key = (
            water.theta,
            *water.flow.values(),
            *(values[name] for name in sorted(values) if name in DISPERSION),
        )
        known = self._known.get(number)
        if known is not None and identical(known.key, key):
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
            network, _ = self.network(number, water, values[number])
            for axis, flow in network.faces.flow.items():
                moves = flow.abs()
                ratio = torch.where(moves > 0.0, moves / network.faces.conductance[axis], 0.0)
                peclet = max(peclet, float(ratio.max()))
                courant = max(courant, float((water.dt * moves / least).max()))
        return peclet, courant

    def set_up(
        self, network: Network, cell: Cell, c: Tensor, linear: Tensor, weight: Tensor | None
    ) -> Tensor | None:
        """Hand the Jacobian at c to the solver, ``Cell.slopes`` given; returns the factors of its columns."""
        column = None if weight is None else columns(cell, linear, weight, c)
        self.hand(network, linear, column, c)
        return column

    def hand(self, network: Network, diagonal: Tensor, column: Tensor | None, c: Tensor) -> None:
        """``Network.setup``, unless the solver has that matrix."""
        key = (diagonal, column, c if self.geometry.scheme == "tvd" else None)
        held = getattr(network, "held", None)
        if held is None or not equal(held, key):
            network.setup(diagonal, column, c)
            network.held = key  # type: ignore[attr-defined]

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
            c, more = self._solve(network, cell)
            iterations += more
            cells.append(cell)
            states = cell.states(c)
            after |= {f"{number}.{name}": value for name, value in states.items()}
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
        forecast: dict[int, Forecast] | None = None,
    ) -> tuple[State, list[Values], Values]:
        """Pull the cotangents of a step's end and of its sides back to what went in.

        Args:
            water, values, state, after: of the step.
            bars: cotangents of ``after``.
            side_bars: of the masses through the sides, [S, *side].
            forecast: of the multipliers by solute, from the steps after this one; those found are added.

        Returns:
            cotangents of ``state``, of the values of each solute, and of ``water.named()``.

        Raises:
            StepFailure: a transposed solve did not converge.
        """
        found = Pulled(dict(bars), {}, [{} for _ in values], {})
        for number in reversed(range(len(self.species))):
            network, cell = self.after(number, water, values, state, after)
            c = after[f"{number}.c"]
            linear, weight = cell.slopes()
            column = self.set_up(network, cell, c, linear, weight)
            load = self.load(number, cell, c, found.bars, side_bars, (linear, weight, column))
            known = None if forecast is None else forecast.setdefault(number, Forecast())
            start = None if known is None else known.guess(water.dt)
            multiplier = self.solve_linear(network, load, start, transposed=True)
            if known is not None:
                known.add(water.dt, multiplier)
            self.pull(number, multiplier, (water, values, state, after), (network, cell), side_bars, found)
        if not self.lasting:
            self.flush(water, values, found.values, found.water)
        return found.before, found.values, found.water

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
        step: tuple[Water, list[Values], State, State],
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

    def _pull_decay(
        self, number: int, step: tuple[Water, list[Values], State, State], bar: Tensor, found: Pulled
    ) -> None:
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
