"""One implicit step of solutes that a reaction joins: all of them are solved together (README.md, 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import on_side
from dgpde.kernels.transport_stencil.assembly import MakeNetwork
from dgpde.kernels.transport_stencil.cell import Cell, Species, Values
from dgpde.kernels.transport_stencil.guess import Guess
from dgpde.kernels.transport_stencil.joint import System
from dgpde.kernels.transport_stencil.pieces import (
    Pulled,
    State,
    StepFailure,
    Stepped,
    add_to,
    balance,
    moved_by,
)
from dgpde.kernels.transport_stencil.problem import Geometry, Network
from dgpde.kernels.transport_stencil.reaction import PointRate
from dgpde.kernels.transport_stencil.step import HALVINGS, LOOSEST, MARGIN, NEWTON, Step, Stepper
from dgpde.kernels.transport_stencil.water import Water

STAGES, RISE, STAGE = 40, 4.0, 1e-2  # of a reaction that is turned on little by little
NEW = 10.0  # ratio of the terms of a solute from which on they are new
LEFT = 0.1  # of a concentration that Newton's update would make negative


@dataclass(frozen=True)
class _Point:
    """Where Newton's method stands.

    Attributes:
        c, made, residual: [S, nz, ny, nx] concentrations, what the reaction makes of them and F there.
        norms, scale: [S] of F, and of the terms that it is made of.
    """

    c: Tensor
    made: Tensor
    residual: Tensor
    norms: Tensor
    scale: Tensor

    def within(self, tolerance: float) -> bool:
        """Whether F of every solute is that small."""
        return bool((self.norms <= tolerance * self.scale).all())

    def size(self, scale: Tensor) -> float:
        """Of F, each solute relative to a scale; solutes that are nowhere count nothing."""
        return float(torch.linalg.vector_norm(torch.where(scale > 0.0, self.norms / scale, 0.0)))


@dataclass
class _Problem:
    """The nonlinear problem of a step, with a share ``strength`` of the reaction."""

    stepper: CoupledStepper
    networks: list[Network]
    cells: list[Cell]
    water: Water
    mine: Values
    strength: float
    iterations: int = 0  # of its linear solves so far

    def __post_init__(self) -> None:
        self.slopes = [cell.slopes() for cell in self.cells]
        self.linear = torch.stack([linear for linear, _ in self.slopes])

    def at(self, c: Tensor) -> _Point:
        """What there is at c."""
        made = self.strength * self.stepper.reaction.made(c, self.water.theta, self.mine)
        found, _ = self.stepper.residual(self.networks, self.cells, c, made)
        known = self.linear * c - found
        if self.stepper.geometry.active is not None:
            known = torch.where(self.stepper.geometry.active, known, 0.0)
        return _Point(c, made, found, _norms(found), _norms(known))

    def moved(self, c: Tensor, update: Tensor) -> Tensor:
        """c after an update of Newton."""
        parts = zip(self.cells, self.slopes, c, update, strict=True)
        return torch.stack([moved_by(cell, *pair, one, change) for cell, pair, one, change in parts])

    def newton(self, c: Tensor, tolerance: float) -> _Point:
        """Newton's method from c.

        Raises:
            StepFailure: it did not converge.
        """
        now, allowed, last = self.at(c), MARGIN * tolerance, math.inf
        for _ in range(NEWTON):
            if now.within(allowed):
                return now
            if not bool(torch.isfinite(now.norms).all()):
                raise StepFailure(
                    "its residual is not finite; the reaction's rate must be finite wherever Newton's method looks"
                )
            norm = now.size(now.scale)
            slopes = self.strength * self.stepper.reaction.slopes(now.c, self.water.theta, self.mine)
            system = System(self.stepper, self.networks, self.cells, now.c, slopes)
            quick = min(LOOSEST, 0.5 * (norm / last) ** 2 if math.isfinite(last) else LOOSEST)
            enough = min(max(0.5 * allowed / norm, quick), 0.5)
            solved = system.solve(-now.residual, _weights(now.scale), enough, transposed=False)
            self.iterations += solved.iterations
            if not (solved.residual < 0.5 and bool(torch.isfinite(solved.x).all())):
                raise StepFailure(
                    f"the linear solve of its coupled solutes ended at a relative residual of {solved.residual:.3g}"
                )
            there = self.search(now, solved.x, allowed)
            if there is None:
                if now.within(tolerance):
                    return now
                raise StepFailure(
                    f"Newton's method on all solutes found no smaller residual than {norm:.3g} of the terms that it is "
                    f"made of, {tolerance:.3g} is asked for; a reaction that is fast within a step, or whose rate "
                    "jumps, asks for shorter steps"
                )
            now, last = there, norm
        raise StepFailure(f"Newton's method on all solutes did not converge in {NEWTON} iterations")

    def search(self, now: _Point, update: Tensor, allowed: float) -> _Point | None:
        """A point on the way of Newton's update with a smaller residual, the update halved as often as it needs.

        Where a solute is used up the rate bends, and a straight line leads far beyond 0: with cells in which the
        update would make a positive concentration negative, going only so far there that a tenth of it is left is
        tried as well, with all solutes, so that what they make of each other stays in proportion.
        """
        share, best, least = 1.0, None, 1.0
        for _ in range(HALVINGS):
            trial = self.moved(now.c, share * update)
            trials, below = [trial], (trial < 0.0) & (now.c > 0.0)
            if bool(below.any()):
                change = trial - now.c
                part = torch.where(below, (LEFT - 1.0) * now.c / torch.where(below, change, 1.0), 1.0)
                trials.append(now.c + part.amin(0) * change)
            for c in trials:
                there = self.at(c)
                if there.within(allowed):
                    return there
                if not bool(torch.isfinite(there.norms).all()):
                    continue
                common = torch.maximum(now.scale, there.scale)
                # what has just come into being is nothing to measure by
                common = torch.where(there.scale > NEW * now.scale, common.max(), common)
                gain = there.size(common) / now.size(common)
                if gain < least:
                    best, least = there, gain
            if least <= 1.0 - 1e-4 * share:
                break
            share *= 0.5
        return best


class CoupledStepper(Stepper):
    """Steps of some solutes that a reaction joins; see ``Stepper``. Values have an entry more: the reaction's tensors.

    Args:
        reaction: what it makes.
    """

    def __init__(
        self,
        geometry: Geometry,
        species: tuple[Species, ...],
        make_network: Sequence[MakeNetwork],
        tolerance: float,
        reaction: PointRate,
    ) -> None:
        super().__init__(geometry, species, make_network, tolerance)
        self.reaction = reaction

    def _cells(self, water: Water, values: list[Values], state: State) -> tuple[list[Network], list[Cell]]:
        """Networks and cells of all solutes; what parents lose is not in them yet."""
        networks, cells = [], []
        for number in range(len(self.species)):
            network, conductance = self.network(number, water, values[number])
            networks.append(network)
            cells.append(self.cell(number, water, values[number], state, conductance, None))
        return networks, cells

    def residual(
        self, networks: list[Network], cells: list[Cell], c: Tensor, made: Tensor
    ) -> tuple[Tensor, list[Values]]:
        """F [S, nz, ny, nx] kg/s, and the states that belong to c."""
        states = [cell.states(one) for cell, one in zip(cells, c, strict=True)]
        found = []
        for number, (network, cell) in enumerate(zip(networks, cells, strict=True)):
            parent = cell.species.parent
            cell.born = None if parent is None else cells[parent].decayed(states[parent])
            found.append(cell.residual(c[number], states[number]) + network.apply(c[number]) - made[number])
        total = torch.stack(found)
        if self.geometry.active is not None:
            total = torch.where(self.geometry.active, total, 0.0)
        return total, states

    # -------------------------------------------------------------------------------------------------- forward

    def forward(self, water: Water, values: list[Values], state: State) -> Stepped:
        """Solve a step.

        Raises:
            StepFailure: a solve did not converge.
        """
        networks, cells = self._cells(water, values, state)
        mine = values[len(self.species)]
        point, iterations = self._solve_all(networks, cells, water, mine)
        c, made = point.c, point.made
        _, states = self.residual(networks, cells, c, made)  # what was born, at the end
        after: State = {}
        sides: dict[str, list[Tensor]] = {}
        sums = []
        for number, (network, cell) in enumerate(zip(networks, cells, strict=True)):
            after |= {f"{number}.{name}": value for name, value in states[number].items()}
            masses = [cell.side(side, on_side(c[number], side))[0] for side in cell.species.sides]
            for side, mass in zip(cell.species.sides, masses, strict=True):
                sides.setdefault(side, []).append(mass)
            reacted, moved, carried = balance(network, cell, states[number], water, masses, self.share)
            gained = self.share * made[number]
            sums.append((reacted + gained.sum(), moved + gained.abs().sum(), carried))
        reacted, moved, carried = (torch.stack(part) for part in zip(*sums, strict=True))
        return Stepped(
            after,
            {side: torch.stack(parts) for side, parts in sides.items()},
            iterations,
            reacted,
            moved,
            carried,
        )

    def _solve_all(
        self, networks: list[Network], cells: list[Cell], water: Water, mine: Values
    ) -> tuple[_Point, int]:
        """The end of a step and the linear iterations: Newton on all solutes from the state before.

        Where it comes to a stand the reaction is turned on little by little, each solution the start of the next.
        """
        c, done = torch.stack([cell.old["c"] for cell in cells]), 0.0
        strength, iterations, failure = 1.0, 0, StepFailure()
        for _ in range(STAGES):
            tolerance = self.tolerance if strength == 1.0 else STAGE
            problem = _Problem(self, networks, cells, water, mine, strength)
            try:
                point = problem.newton(c, tolerance)
            except StepFailure as stopped:
                failure = stopped
                strength = strength / RISE**2 if done == 0.0 else math.sqrt(done * strength)
            else:
                if strength == 1.0:
                    return point, iterations + problem.iterations
                c, done, strength = point.c, strength, min(1.0, RISE * strength)
            iterations += problem.iterations
        raise failure

    # -------------------------------------------------------------------------------------------------- adjoint

    def _multipliers(
        self, step: Step, side_bars: Values, found: Pulled, guesses: dict[int, Guess] | None
    ) -> Iterator[tuple[int, Tensor, tuple[Network, Cell]]]:
        """All of one solve; what the reaction hands on is added here."""
        water, values, _, after = step
        count = len(self.species)
        mine = values[count]
        ends = [self.after(number, *step) for number in range(count)]
        c = torch.stack([after[f"{number}.c"] for number in range(count)])
        networks, cells = [network for network, _ in ends], [cell for _, cell in ends]
        system = System(self, networks, cells, c, self.reaction.slopes(c, water.theta, mine))
        slopes = list(zip(system.linear, system.weight, system.column, strict=True))
        load = torch.stack(
            [self.load(k, cells[k], c[k], found.bars, side_bars, slopes[k]) for k in range(count)]
        )
        multiplier = self.solve_all(system, load, c, transposed=True)
        wanted = set(mine) if self.wanted is None else self.wanted[count]
        by_theta, by_name = self.reaction.pull(multiplier, c, water.theta, mine, wanted)
        add_to(found.water, "theta", by_theta)
        for name, gradient in by_name.items():
            add_to(found.values[count], name, gradient)
        for number in reversed(range(count)):
            yield number, multiplier[number], ends[number]

    def solve_all(self, system: System, rhs: Tensor, c: Tensor, transposed: bool) -> Tensor:
        """Solve with the Jacobian of all solutes, or its transpose, to the tolerance.

        Rows are weighed so that solutes of very different concentrations count alike.

        Raises:
            StepFailure: the solve did not converge.
        """
        size = _norms(c)
        if not transposed:
            size = _norms(torch.stack(system.linear) * c)
        weight = 1.0 / _weights(size) if transposed else _weights(size)
        active, outside = self.geometry.active, rhs
        if active is not None:
            rhs = torch.where(active, rhs, 0.0)
        solved = system.solve(rhs, weight, self.tolerance, transposed)
        if not (solved.converged and bool(torch.isfinite(solved.x).all())):
            raise StepFailure(
                f"its {'transposed' if transposed else 'linear'} solve of the coupled solutes ended at a relative "
                f"residual of {solved.residual:.3g} after {solved.iterations} iterations, {self.tolerance:.3g} was "
                "asked for"
            )
        return solved.x if active is None else torch.where(active, solved.x, outside)


def _norms(value: Tensor) -> Tensor:
    """Of each solute, [S]."""
    return torch.linalg.vector_norm(value.flatten(1), dim=1)


def _weights(scale: Tensor) -> Tensor:
    """One over the scale of each solute; over the largest where a solute is nowhere."""
    largest = scale.max()
    return 1.0 / torch.where(scale > 0.0, scale, torch.where(largest > 0.0, largest, 1.0))
