"""The Jacobian of a step of solutes that a reaction joins, and solves with it (README.md, 4)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.reference import before
from dgpde.kernels.transport_stencil.cell import Cell
from dgpde.kernels.transport_stencil.krylov import flexible_gmres
from dgpde.kernels.transport_stencil.pieces import column_slopes, columns
from dgpde.kernels.transport_stencil.problem import Network, Solved
from dgpde.kernels.transport_stencil.reference import network as between
from dgpde.kernels.transport_stencil.step import Stepper

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
        self, stepper: Stepper, networks: list[Network], cells: list[Cell], c: Tensor, slopes: Tensor
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
        self.losing = self.joint.diagonal(dim1=0, dim2=1).movedim(-1, 0).clamp(min=0.0)
        self.diagonal = [linear + one for linear, one in zip(self.linear, self.losing, strict=True)]
        self._inside: Tensor | None = None

    def inside(self) -> Tensor:
        """D P^-1 of every cell, [S, S, nz, ny, nx]; P is J without what moves between cells.

        J is about P D^-1 T: T holds for each solute its transport and what it loses by itself, D is T without what
        moves between cells. With J = P - L, T = D - L what is left over is (P D^-1 - 1) L: 0 where nothing joins
        solutes, and bounded however fast the reaction is.
        """
        if self._inside is None:
            own = torch.stack(
                [linear + self._scaled(i, _own(self.networks[i])) for i, linear in enumerate(self.linear)]
            )
            unit = torch.eye(len(own), dtype=own.dtype, device=own.device)[..., None, None, None]
            block = (self.joint + unit * own).movedim((0, 1), (-2, -1))
            inverse = torch.linalg.inv_ex(block)[0].movedim((-2, -1), (0, 1))
            ratio = (own + self.losing)[:, None] * inverse
            self._inside = torch.where(torch.isfinite(ratio).all(0).all(0), ratio, unit)
        return self._inside

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
        """Solve with J or its transpose; the cells by themselves and each solute's transport precondition.

        Args:
            rhs: [S, nz, ny, nx].
            weight: [S], of the rows in the residual.
            tolerance: of the residual so weighted, relative.
            transposed: whether with the transpose.
        """
        inner, inside = 0, self.inside()

        def transport(residual: Tensor) -> Tensor:
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

        def precondition(residual: Tensor) -> Tensor:
            if transposed:
                return (inside * transport(residual)[:, None]).sum(0)
            return transport((inside * residual).sum(1))

        apply = self.transposed if transposed else self.apply
        done = flexible_gmres(apply, precondition, rhs, weight[:, None, None, None], tolerance)
        return replace(done, iterations=done.iterations + inner)


def _own(network: Network) -> Tensor:
    """Diagonal of dN/dc without what is not upwind, [nz, ny, nx] m3/s."""
    geometry, faces = network.geometry, network.faces
    total = torch.zeros_like(geometry.volume)
    for axis in geometry.axes:
        flow, conductance = faces.flow[axis], faces.conductance[axis]
        total = total + (-flow).clamp(min=0.0) + conductance
        total = total + before(flow.clamp(min=0.0) + conductance, axis)
    return total
