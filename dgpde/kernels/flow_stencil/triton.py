"""The Triton twin: the soil's pointwise pass and one gather pass over the stencil; boundary faces by PyTorch.

float64 and 64-bit offsets throughout, no atomics, the same bits on every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from dgpde.kernels.flow_stencil.curves import Curves
from dgpde.kernels.flow_stencil.module import FunctionSoil
from dgpde.kernels.flow_stencil.points import (
    load_points,
    pull_elastic,
    pull_points,
    push_elastic,
    push_points,
)
from dgpde.kernels.flow_stencil.problem import (
    AXES,
    SIDES,
    Carried,
    Cotangents,
    Evaluation,
    StencilProblem,
    Step,
    Tangents,
    of_interval,
    on_side,
    river_inflow,
)
from dgpde.kernels.flow_stencil.reference_path import move
from dgpde.kernels.flow_stencil.roots import RootZone
from dgpde.kernels.flow_stencil.sides import faces_of
from dgpde.kernels.flow_stencil.triton_network import TritonNetwork
from dgpde.kernels.flow_stencil.triton_soil import TritonSoil, flat_or_one
from dgpde.kernels.flow_stencil.triton_stencil import (
    assemble_kernel,
    flow_kernel,
    forward_kernel,
    load_kernel,
    reverse_kernel,
)
from dgpde.kernels.soil_relation.reference import wet_suction
from dgpde.triton_launch import BLOCK, launch, programs, why_not

Inputs = dict[str, Tensor]


class TritonStencil:
    """The equations of a run by the Triton kernels; see ``problem.Stencil``.

    Raises:
        ValueError: tensors that are not on a GPU (unless in the interpreter), or a relation without a kernel.
    """

    name = "triton"

    def __init__(self, problem: StencilProblem, inputs: Inputs) -> None:
        sample = inputs["psi0"]
        if reason := why_not(sample.device):
            raise ValueError(f"backend: 'triton' cannot run on tensors on {sample.device}: {reason}")
        self.problem, self.inputs = problem, {name: value.detach() for name, value in inputs.items()}
        soil = [self.inputs[f"soil.{name}"] for name in problem.soil_names()]
        self.soil: TritonSoil | TritonNetwork | FunctionSoil
        if problem.function is not None:
            self.soil = FunctionSoil(problem.function, soil)
        elif problem.relation == "network":
            self.soil = TritonNetwork(soil)
        else:
            self.soil = TritonSoil(problem.relation, problem.variant, soil, problem.classes, problem.knots)
        self.constant = problem.relation == "saturated"
        storage, one = flat_or_one([self.inputs["storage"]])
        self.storage, self.one_storage = storage[0], bool(one)
        self.faces = self._by_axis({axis: self.inputs[f"face_{AXES[axis]}"] for axis in problem.axes})
        active = problem.active
        nz, ny, nx = problem.shape
        # What every pass over the stencil reads.
        self.constants: dict[str, Any] = {
            "face": self.faces,
            "rise": tuple(rise.to(sample).contiguous() for rise in problem.rise),
            "width": tuple(width.to(sample).contiguous() for width in problem.widths),
            "storage": self.storage,
            "active": sample if active is None else active.to(sample.device, torch.uint8).contiguous(),
            "nz": nz,
            "ny": ny,
            "nx": nx,
            "MEAN": problem.face_mean,
            "AXES": sum(1 << axis for axis in problem.axes),
            "ACTIVE": active is not None,
            "ONE_STORAGE": self.one_storage,
        }
        self.roots = RootZone(problem, self.inputs) if problem.roots else None
        self._curves: Curves | None = None
        self._wet: Tensor | None = None
        self._theta_s: Tensor | None = None
        cells = [value for value in (problem.wells, problem.rivers) if value is not None]
        self.point_cell = sample.new_zeros(0, dtype=torch.int64)
        if cells:
            self.point_cell, self.point_order = torch.cat(cells).sort(stable=True)
        edges = BLOCK * torch.arange(programs(problem.cells) + 1, device=sample.device)
        self.point_start = torch.searchsorted(self.point_cell, edges)
        # a power of two, so that few kernels are compiled
        self.most_points = triton.next_power_of_2(int(self.point_start.diff().max())) if cells else 0

    def _by_axis(self, values: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """A pointer for each axis; those of axes that are missing are not read."""
        spare = self.storage
        return tuple(values[axis].contiguous() if axis in values else spare for axis in range(3))

    # ----------------------------------------------------------------------------------------------- the soil

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        return self.soil.theta(psi.contiguous())

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes in psi; of a saturated medium they do not depend on it."""
        if self._curves is not None:
            return self._curves
        found = self.soil.curves(psi.contiguous())
        if self.constant:
            self._curves = found
        return found

    def wet_suction(self) -> Tensor:
        """Suction near the inflection of theta(psi)."""
        if self._wet is None:
            problem = self.problem
            if isinstance(self.soil, FunctionSoil):
                self._wet = self.soil.wet_suction(self.inputs["psi0"])
                return self._wet
            soil = {name: self.inputs[f"soil.{name}"] for name in problem.soil_names()}
            if problem.classes is not None:
                soil |= {"classes": problem.classes}
            found = wet_suction(problem.relation, problem.variant, soil, problem.knots)
            self._wet = found.expand(problem.shape)
        return self._wet

    def move(self, psi: Tensor, update: Tensor, now: Evaluation) -> Tensor:
        """Where a Newton update leads."""
        if self._theta_s is None:
            self._theta_s = self.theta(torch.zeros_like(psi))
        theta_r = self.inputs.get("soil.theta_r", torch.zeros((), dtype=psi.dtype, device=psi.device))
        return move(psi, update, now.theta, now.capacity, self.wet_suction(), theta_r, self._theta_s)

    # -------------------------------------------------------------------------------------------- the stencil

    def run(self, kernel: Any, step: Step, psi: Tensor, **arguments: Any) -> None:
        """One pass over the stencil."""
        launch(
            kernel,
            self.problem.cells,
            psi=psi,
            psi_old=step.psi.contiguous(),
            inv_dt=psi.new_full((1,), 1.0 / step.dt),
            **self.constants,
            **arguments,
        )

    def points(self, interval: int, psi: Tensor) -> Tensor:
        """Of the wells and rivers in the order of ``point_cell``: inflow, its round-off scale, its -slope, [3, m]."""
        problem, inputs, found = self.problem, self.inputs, []
        if problem.wells is not None:
            rate = of_interval("wells", inputs["wells"], interval)
            found.append(torch.stack([rate, rate.abs(), torch.zeros_like(rate)]))
        if problem.rivers is not None:
            head = of_interval("rivers.head", inputs["rivers.head"], interval)
            k = of_interval("rivers.conductance", inputs["rivers.conductance"], interval)
            here = psi.flatten()[problem.rivers]
            found.append(torch.stack([k * (head - here), k * (head.abs() + here.abs()), k]))
        return torch.cat(found, 1)[:, self.point_order].contiguous()

    def evaluate(self, step: Step, psi: Tensor, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations at psi."""
        return self.assemble(step, psi.contiguous(), self.curves(psi), allowed, matrix)

    def assemble(self, step: Step, psi: Tensor, curves: Curves, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations at psi, where the soil has been evaluated."""
        problem = self.problem
        open_sides = faces_of(problem, self.inputs, step, psi, curves.kr)
        counts = [side[0] * side[1] for side in map(problem.side_shape, SIDES)]
        flows = psi.new_zeros(3, sum(counts)) if open_sides else psi
        flux: dict[str, Tensor] = {}
        ponding, runoff = step.ponding, torch.zeros_like(step.ponding)
        for side, faces in open_sides.items():
            found = faces.evaluate()
            place = SIDES.index(side)
            start = sum(counts[:place])
            to = flows[:, start : start + counts[place]].view(3, *faces.psi.shape)
            to[0], to[2] = faces.area * found.flux, faces.area * found.magnitude
            if matrix:
                to[1] = faces.area * faces.slope(on_side(curves.dkr, side))
            flux[side] = found.flux
            if side == "top":
                ponding, runoff = found.ponding, found.runoff
        source, strides = psi, tuple(psi.stride())
        if problem.source:
            source = of_interval("source", self.inputs["source"], step.interval).expand(problem.shape)
            strides = tuple(source.stride())
        roots, uptake = psi, None
        if self.roots is not None:
            taken, slope = self.roots.taken(step.interval, psi)
            roots, uptake = torch.stack([taken, slope]), self.roots.uptake(taken)
        residual = torch.empty_like(psi)
        coefficients = psi.new_empty(7, *problem.shape) if matrix else None
        sums = psi.new_empty(5, programs(problem.cells))
        self.run(
            assemble_kernel,
            step,
            psi,
            theta=curves.theta,
            theta_old=step.theta.contiguous(),
            kr=curves.kr,
            capacity=curves.capacity,
            dkr=curves.dkr,
            source=source,
            roots=roots,
            root_start=0 if self.roots is None else self.roots.first * problem.shape[1] * problem.shape[2],
            point_cell=self.point_cell,
            point_start=self.point_start,
            points=self.points(step.interval, psi) if self.most_points else psi,
            point_count=self.point_cell.numel(),
            sides=flows,
            allowed=allowed.contiguous(),
            residual=residual,
            matrix=residual if coefficients is None else coefficients,
            found=sums,
            source_z=strides[0],
            source_y=strides[1],
            source_x=strides[2],
            SIDES=sum(1 << SIDES.index(side) for side in problem.sides),
            SOURCE=problem.source,
            ROOTS=problem.roots,
            POINTS=self.most_points,
            MATRIX=matrix,
        )
        worst, total = sums[1:3].amax(1), sums.sum(1)
        # one transfer to the host
        squares, beyond, exact, net, size = torch.stack(
            [total[0].sqrt(), worst[0], worst[1], total[3], total[4]]
        ).tolist()
        return Evaluation(
            residual=residual,
            norm=squares,
            beyond=beyond,
            exact=exact,
            total=net,
            magnitude=size,
            theta=curves.theta,
            capacity=curves.capacity,
            flux=flux,
            ponding=ponding,
            runoff=runoff,
            matrix=coefficients,
            uptake=uptake,
        )

    def carried(self, step: Step, psi: Tensor) -> Carried:
        """What the step does to the water."""
        psi, problem = psi.contiguous(), self.problem
        curves = self.curves(psi)
        flow = {axis: torch.empty_like(psi) for axis in problem.axes}
        self.run(flow_kernel, step, psi, kr=curves.kr, flow=tuple(flow.get(axis, psi) for axis in range(3)))
        faces = faces_of(problem, self.inputs, step, psi, curves.kr)
        sides = {side: one.evaluate().flux for side, one in faces.items()}
        rivers = None
        if problem.rivers is not None:
            rivers = river_inflow(self.inputs, problem.rivers, step.interval, psi)
        elastic = self.inputs["storage"] * curves.theta * (psi - step.psi)
        roots = None if self.roots is None else self.roots.field(step.interval, psi)
        return Carried(curves.theta, elastic, flow, sides, rivers, roots)

    def seeds(self, cotangents: Cotangents) -> dict[int, Tensor]:
        """By axis, the cotangents of what flows through the faces."""
        names = {axis: f"flow_{AXES[axis]}" for axis in self.problem.axes}
        return {axis: cotangents[name].contiguous() for axis, name in names.items() if name in cotangents}

    def linearise(self, step: Step, psi: Tensor) -> TritonLinearised:
        """The step at its accepted state."""
        return TritonLinearised(self, step, psi.contiguous())

    def pull_theta(self, psi: Tensor, carry_theta: Tensor, gradients: Inputs) -> Tensor:
        """d/dx of <carry_theta, theta(psi; x)>."""
        return self.pull_soil(psi.contiguous(), carry_theta, None, gradients)

    def push_theta(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> Tensor:
        """Tangent of theta(psi; x)."""
        return self.push_soil(psi.contiguous(), tangent, tangents)[0]

    def pull_soil(self, psi: Tensor, theta: Tensor, kr: Tensor | None, gradients: Inputs) -> Tensor:
        """Add the cotangents of theta and kr to the soil's gradients; returns those of psi."""
        wanted = [gradients.get(f"soil.{name}") for name in self.problem.soil_names()]
        return self.soil.pull(psi, theta, kr, wanted)

    def push_soil(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr."""
        moving = [tangents.get(f"soil.{name}") for name in self.problem.soil_names()]
        return self.soil.push(psi, tangent, moving)


class TritonLinearised:
    """See ``problem.Linearised``."""

    def __init__(self, stencil: TritonStencil, step: Step, psi: Tensor) -> None:
        self.stencil, self.step, self.psi = stencil, step, psi
        self.curves = stencil.curves(psi)
        self.sides = faces_of(stencil.problem, stencil.inputs, step, psi, self.curves.kr)

    @property
    def matrix(self) -> Tensor:
        """The true Jacobian."""
        nothing = torch.zeros_like(self.psi)
        now = self.stencil.assemble(self.step, self.psi, self.curves, nothing, True)
        assert now.matrix is not None
        return now.matrix

    def load(self, cotangents: Cotangents, carry_theta: Tensor) -> Tensor:
        """d/dpsi of the outputs and theta."""
        found = self.curves.capacity * carry_theta
        for side, faces in self.sides.items():
            on_side(found, side).add_(faces.load(cotangents, on_side(self.curves.dkr, side)))
        if self.stencil.roots is not None:
            self.stencil.roots.load(self.step, self.psi, cotangents, found)
        stencil, step, psi, curves = self.stencil, self.step, self.psi, self.curves
        problem, seeds = stencil.problem, stencil.seeds(cotangents)
        if seeds:
            stencil.run(
                load_kernel,
                step,
                psi,
                kr=curves.kr,
                dkr=curves.dkr,
                seed=tuple(seeds.get(axis, found) for axis in range(3)),
                load=found,
                SEEDS=sum(1 << axis for axis in seeds),
            )
        return load_points(
            problem, stencil.inputs, step, psi, curves.theta, curves.capacity, cotangents, found
        )

    def pull(
        self, multiplier: Tensor, cotangents: Cotangents, carry_theta: Tensor, gradients: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """d/dx of the step's Lagrangian."""
        stencil, problem, psi = self.stencil, self.stencil.problem, self.psi
        grad_kr, grad_theta = torch.empty_like(psi), carry_theta.clone(memory_format=torch.contiguous_format)
        new_theta, new_psi = torch.empty_like(psi), torch.empty_like(psi)
        seeds = stencil.seeds(cotangents)
        faces = {a: gradients[f"face_{AXES[a]}"] for a in problem.axes if f"face_{AXES[a]}" in gradients}
        stencil.run(
            reverse_kernel,
            self.step,
            psi,
            theta=self.curves.theta,
            kr=self.curves.kr,
            multiplier=multiplier.contiguous(),
            grad_kr=grad_kr,
            grad_theta=grad_theta,
            carry_theta=new_theta,
            carry_psi=new_psi,
            grad_face=tuple(faces.get(axis, grad_kr) for axis in range(3)),
            grad_storage=gradients.get("storage", grad_kr),
            seed=tuple(seeds.get(axis, grad_kr) for axis in range(3)),
            SEEDS=sum(1 << axis for axis in seeds),
            FACES=sum(1 << axis for axis in faces),
            STORAGE="storage" in gradients,
        )
        seed = cotangents.get("ponding")
        carry_ponding = torch.zeros_like(self.step.ponding) if seed is None else seed.clone()
        for side, there in self.sides.items():
            by_kr, by_pond = there.pull(on_side(multiplier, side), cotangents, gradients)
            on_side(grad_kr, side).add_(by_kr)
            if side == "top":
                carry_ponding = by_pond
        pull_elastic(
            stencil.inputs, self.step, psi, self.curves.theta, cotangents, gradients, grad_theta, new_psi
        )
        pull_points(problem, stencil.inputs, self.step, psi, multiplier, cotangents, gradients)
        if stencil.roots is not None:
            stencil.roots.pull(self.step, psi, multiplier, cotangents, gradients)
        if any(name.startswith("soil.") for name in gradients):
            stencil.pull_soil(psi, grad_theta, grad_kr, gradients)
        return new_theta, new_psi, carry_ponding

    def push(
        self, psi: Tensor, state: tuple[Tensor, Tensor, Tensor], tangents: Tangents
    ) -> tuple[Tensor, Tensor, Tangents]:
        """Tangents of F, theta and the outputs."""
        stencil, problem = self.stencil, self.stencil.problem
        dot_theta, dot_kr = stencil.push_soil(self.psi, psi, tangents)
        found = torch.empty_like(self.psi)
        faces = {a: tangents[f"face_{AXES[a]}"] for a in problem.axes if f"face_{AXES[a]}" in tangents}
        storage, one = flat_or_one([tangents.get("storage", found)])
        moving = {axis: torch.empty_like(self.psi) for axis in problem.axes}
        stencil.run(
            forward_kernel,
            self.step,
            self.psi,
            theta=self.curves.theta,
            kr=self.curves.kr,
            dot_psi=psi.contiguous(),
            dot_psi_old=state[1].contiguous(),
            dot_theta=dot_theta,
            dot_theta_old=state[0].contiguous(),
            dot_kr=dot_kr,
            dot_face=tuple(faces[axis].contiguous() if axis in faces else found for axis in range(3)),
            dot_storage=storage[0],
            dot_residual=found,
            dot_flow=tuple(moving.get(axis, found) for axis in range(3)),
            FACES=sum(1 << axis for axis in faces),
            STORAGE="storage" in tangents,
            ONE_DOT_STORAGE=bool(one),
        )
        outputs = {"ponding": state[2], "runoff": torch.zeros_like(state[2])}
        outputs |= {f"flow_{AXES[axis]}": value for axis, value in moving.items()}
        outputs["elastic"] = push_elastic(
            stencil.inputs, self.step, self.psi, self.curves.theta, (psi, state[1], dot_theta), tangents
        )
        for side, there in self.sides.items():
            moved = there.push(on_side(psi, side), on_side(dot_kr, side), state[2], tangents)
            outputs |= moved
            on_side(found, side).sub_(there.area * moved[side])
        outputs |= push_points(problem, stencil.inputs, self.step, self.psi, psi, tangents, found)
        if stencil.roots is not None:
            outputs |= stencil.roots.push(self.step, self.psi, psi, tangents, found)
        return found, dot_theta, outputs
