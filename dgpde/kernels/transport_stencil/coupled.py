"""One implicit step of solutes that a reaction joins: all of them are solved together (README.md, 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import on_side
from dgpde.kernels.transport_stencil.cell import Cell, Species, Values
from dgpde.kernels.transport_stencil.krylov import flexible_gmres
from dgpde.kernels.transport_stencil.pieces import (
    Pulled,
    State,
    StepFailure,
    Stepped,
    add_to,
    balance,
    column_slopes,
    columns,
    moved_by,
)
from dgpde.kernels.transport_stencil.problem import Geometry, Network, Solved
from dgpde.kernels.transport_stencil.reaction import PointRate
from dgpde.kernels.transport_stencil.reference import network as between
from dgpde.kernels.transport_stencil.step import HALVINGS, LOOSEST, MARGIN, NEWTON, MakeNetwork, Stepper
from dgpde.kernels.transport_stencil.water import Water

INNER = 1e-2  # relative residual of the solves that precondition


class Between:
    """What the network of one solute does to changes of c, and its transpose."""

    def __init__(self, network: Network, c: Tensor) -> None:
        self.network, self.c = network, c
        self._graph: tuple[Tensor, Tensor] | None = None
        self._pulled: tuple[Tensor, Tensor] | None = None

    def _made(self) -> tuple[Tensor, Tensor]:
        """(c, N(c)) with the graph between them."""
        if self._graph is None:
            with torch.enable_grad():
                leaf = self.c.detach().requires_grad_()
                self._graph = leaf, between(self.network.geometry, self.network.faces, leaf)
        return self._graph

    def apply(self, change: Tensor) -> Tensor:
        """dN/dc times a change; N is linear but for the limiter."""
        if self.network.geometry.scheme != "tvd":
            return self.network.apply(change)
        leaf, out = self._made()
        if not out.requires_grad:
            return torch.zeros_like(change)
        if self._pulled is None:
            with torch.enable_grad():
                dual = torch.zeros_like(out).requires_grad_()
                (pulled,) = torch.autograd.grad(out, leaf, dual, create_graph=True)
                self._pulled = dual, pulled
        dual, pulled = self._pulled
        return torch.autograd.grad(pulled, dual, change, retain_graph=True)[0]

    def transposed(self, multiplier: Tensor) -> Tensor:
        """(dN/dc)^T times a multiplier."""
        leaf, out = self._made()
        if not out.requires_grad:
            return torch.zeros_like(multiplier)
        return torch.autograd.grad(out, leaf, multiplier, retain_graph=True)[0]


class System:
    """The Jacobian of all solutes at some c, in the unknowns of Newton: dc = column y.

    Args:
        stepper, networks, cells: of the step.
        c: [S, nz, ny, nx].
        slopes: of what the reaction makes, [S, S, nz, ny, nx] m3/s.
    """

    def __init__(
        self, stepper: CoupledStepper, networks: list[Network], cells: list[Cell], c: Tensor, slopes: Tensor
    ) -> None:
        self.stepper, self.networks, self.c = stepper, networks, c
        found = [cell.slopes() for cell in cells]
        self.linear = [linear for linear, _ in found]
        self.weight = [weight for _, weight in found]
        self.column = [
            None if weight is None else columns(cell, linear, weight, one)
            for cell, (linear, weight), one in zip(cells, found, c, strict=True)
        ]
        self.between = [Between(network, one) for network, one in zip(networks, c, strict=True)]
        self.joint = -slopes  # [i, j]: dF_i/dy_j inside a cell, besides linear
        for j, column in enumerate(self.column):
            if column is not None:
                self.joint[:, j] *= column
        for i, species in enumerate(stepper.species):
            if species.parent is not None:
                self.joint[i, species.parent] -= cells[i].values["yield"] * self._lost(cells, species.parent)
        # what a solute loses by itself makes its own matrix stronger, what it gains would make it weaker
        self.diagonal = [linear + self.joint[i, i].clamp(min=0.0) for i, linear in enumerate(self.linear)]

    def _lost(self, cells: list[Cell], number: int) -> Tensor:
        """Slope of what a parent loses by decay in its y, m3/s."""
        cell, column = cells[number], self.column[number]
        lost = cell.water["new"]
        if cell.species.immobile:
            lost = lost + cell.geometry.volume * cell.values["immobile_theta"] * cell.standing()[0]
        if column is not None:
            lost = lost * column
        if cell.species.sorption:
            weight = self.weight[number]
            slope = (
                cell.values["k_d"]
                if weight is None
                else column_slopes(cell, self.linear[number], weight, self.c[number])
            )
            lost = lost + cell.geometry.volume * cell.values["bulk_density"] * cell.kept()[0] * slope
        return cell.values["decay"] * lost if cell.species.decays else torch.zeros_like(lost)

    def _scaled(self, number: int, value: Tensor) -> Tensor:
        column = self.column[number]
        return value if column is None else column * value

    def apply(self, y: Tensor) -> Tensor:
        """J y, [S, nz, ny, nx]."""
        own = [
            linear * one + part.apply(self._scaled(i, one))
            for i, (linear, part, one) in enumerate(zip(self.linear, self.between, y, strict=True))
        ]
        return torch.stack(own) + (self.joint * y).sum(1)

    def transposed(self, multiplier: Tensor) -> Tensor:
        """J^T times a multiplier."""
        own = [
            linear * one + self._scaled(i, part.transposed(one))
            for i, (linear, part, one) in enumerate(zip(self.linear, self.between, multiplier, strict=True))
        ]
        return torch.stack(own) + (self.joint * multiplier[:, None]).sum(0)

    def solve(self, rhs: Tensor, weight: Tensor, tolerance: float, transposed: bool) -> Solved:
        """Solve with J or its transpose; each solute's own solve preconditions.

        Args:
            rhs: [S, nz, ny, nx].
            weight: [S], of the rows in the residual.
            tolerance: of the residual so weighted, relative.
            transposed: whether with the transpose.
        """
        inner = 0

        def precondition(residual: Tensor) -> Tensor:
            nonlocal inner
            found = []
            for i, network in enumerate(self.networks):
                one = residual[i].contiguous()
                if not bool((one != 0.0).any()):
                    found.append(one)
                    continue
                self.stepper.hand(network, self.diagonal[i], self.column[i], self.c[i])
                solved = network.solve(one, None, INNER, transposed=transposed)
                inner += solved.iterations
                usable = bool(torch.isfinite(solved.x).all())
                found.append(solved.x if usable else one / self.diagonal[i])
            return torch.stack(found)

        apply = self.transposed if transposed else self.apply
        done = flexible_gmres(apply, precondition, rhs, weight[:, None, None, None], tolerance)
        return replace(done, iterations=done.iterations + inner)


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

    def _residual(
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
        c, made, iterations = self._newton(networks, cells, water, mine)
        _, states = self._residual(networks, cells, c, made)  # what was born, at the end
        after: State = {}
        sides: dict[str, list[Tensor]] = {}
        sums = []
        for number, (network, cell) in enumerate(zip(networks, cells, strict=True)):
            after |= {f"{number}.{name}": value for name, value in states[number].items()}
            masses = [cell.side(side, on_side(c[number], side))[0] for side in cell.species.sides]
            for side, mass in zip(cell.species.sides, masses, strict=True):
                sides.setdefault(side, []).append(mass)
            reacted, moved, carried = balance(network, cell, states[number], water, masses)
            gained = made[number]
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

    def _newton(
        self, networks: list[Network], cells: list[Cell], water: Water, mine: Values
    ) -> tuple[Tensor, Tensor, int]:
        """(c, what the reaction makes there, linear iterations), by Newton on all solutes from the state before."""
        linear = torch.stack([cell.slopes()[0] for cell in cells])
        weights = [cell.slopes()[1] for cell in cells]

        def at(c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """(made, F, norms of F, norms of the terms that F is made of; [S] each)."""
            made = self.reaction.made(c, water.theta, mine)
            found, _ = self._residual(networks, cells, c, made)
            known = linear * c - found
            if self.geometry.active is not None:
                known = torch.where(self.geometry.active, known, 0.0)
            return made, found, _norms(found), _norms(known)

        def size(norms: Tensor, scale: Tensor) -> float:
            """Of F, each solute relative to its scale; solutes that are nowhere count nothing."""
            return float(torch.linalg.vector_norm(torch.where(scale > 0.0, norms / scale, 0.0)))

        c = torch.stack([cell.old["c"] for cell in cells])
        made, now, norms, scale = at(c)
        allowed, iterations, before = MARGIN * self.tolerance, 0, math.inf
        for _ in range(NEWTON):
            if bool((norms <= allowed * scale).all()):
                return c, made, iterations
            if not bool(torch.isfinite(norms).all()):
                raise StepFailure(
                    "its residual is not finite; the reaction's rate must be finite wherever Newton's method looks"
                )
            norm = size(norms, scale)
            system = System(self, networks, cells, c, self.reaction.slopes(c, water.theta, mine))
            quick = min(LOOSEST, 0.5 * (norm / before) ** 2 if math.isfinite(before) else LOOSEST)
            enough = min(max(0.5 * allowed / norm, quick), 0.5)
            solved = system.solve(-now, _weights(scale), enough, transposed=False)
            iterations += solved.iterations
            if not (solved.residual < 0.5 and bool(torch.isfinite(solved.x).all())):
                raise StepFailure(
                    f"the linear solve of its coupled solutes ended at a relative residual of {solved.residual:.3g}"
                )
            share, best = 1.0, None
            for _ in range(HALVINGS):
                trial = torch.stack(
                    [
                        moved_by(cell, *pair, one, share * change)
                        for cell, pair, one, change in zip(
                            cells, zip(linear, weights, strict=True), c, solved.x, strict=True
                        )
                    ]
                )
                there = at(trial)
                common = torch.maximum(scale, there[3])
                gain = size(there[2], common) / size(norms, common)
                gain = gain if math.isfinite(gain) else math.inf
                if best is None or gain < best[0]:
                    best = (gain, trial, there)
                if gain <= 1.0 - 1e-4 * share or bool((there[2] <= allowed * there[3]).all()):
                    break
                share *= 0.5
            assert best is not None
            if not best[0] < 1.0:
                if bool((norms <= self.tolerance * scale).all()):
                    return c, made, iterations
                raise StepFailure(
                    f"Newton's method on all solutes found no smaller residual than {norm:.3g} of the terms that it is "
                    f"made of, {self.tolerance:.3g} is asked for; a reaction that is fast within a step, or whose rate "
                    "jumps, asks for shorter steps"
                )
            before = norm
            _, c, (made, now, norms, scale) = best
        raise StepFailure(f"Newton's method on all solutes did not converge in {NEWTON} iterations")

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
        """Pull the cotangents of a step's end and of its sides back to what went in; see ``Stepper.adjoint``.

        Raises:
            StepFailure: the transposed solve did not converge.
        """
        count = len(self.species)
        mine = values[count]
        ends = [self.after(number, water, values, state, after) for number in range(count)]
        networks, cells = [network for network, _ in ends], [cell for _, cell in ends]
        c = torch.stack([after[f"{number}.c"] for number in range(count)])
        system = System(self, networks, cells, c, self.reaction.slopes(c, water.theta, mine))
        found = Pulled(dict(bars), {}, [{} for _ in values], {})
        load = torch.stack(
            [
                self.load(
                    number,
                    cells[number],
                    c[number],
                    found.bars,
                    side_bars,
                    (system.linear[number], system.weight[number], system.column[number]),
                )
                for number in range(count)
            ]
        )
        multiplier = self.solve_all(system, load, c, transposed=True)
        for number in reversed(range(count)):
            self.pull(
                number, multiplier[number], (water, values, state, after), ends[number], side_bars, found
            )
        wanted = set(mine) if self.wanted is None else self.wanted[count]
        by_theta, by_name = self.reaction.pull(multiplier, c, water.theta, mine, wanted)
        add_to(found.water, "theta", by_theta)
        for name, gradient in by_name.items():
            add_to(found.values[count], name, gradient)
        if not self.lasting:
            self.flush(water, values, found.values, found.water)
        return found.before, found.values, found.water

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
        solved = system.solve(rhs, weight, self.tolerance, transposed)
        if not (solved.converged and bool(torch.isfinite(solved.x).all())):
            raise StepFailure(
                f"its {'transposed' if transposed else 'linear'} solve of the coupled solutes ended at a relative "
                f"residual of {solved.residual:.3g} after {solved.iterations} iterations, {self.tolerance:.3g} was "
                "asked for"
            )
        return solved.x


def _norms(value: Tensor) -> Tensor:
    """Of each solute's, [S]."""
    return torch.linalg.vector_norm(value.flatten(1), dim=1)


def _weights(scale: Tensor) -> Tensor:
    """One over the scale of each solute; over the largest where a solute is nowhere."""
    largest = scale.max()
    return 1.0 / torch.where(scale > 0.0, scale, torch.where(largest > 0.0, largest, 1.0))
