"""The equations of one implicit step on the 7-point stencil in plain PyTorch, float64: the specification.

Unknown psi [nz, ny, nx] at the cell centres. Backward Euler, mixed form (Celia, Bouloutas & Zarba 1990, Water
Resour. Res. 26:1483), cell-centred finite volumes, per cell [m3/s]; H = psi + g z:

    F_c = V_c (theta_c - theta_old_c)/dt + s_c theta_c (psi_c - psi_old_c)/dt
          - sum over faces T_f kf (H_neighbour - H_c) - sum over boundary faces A q
          - V_c source_c - wells_c + V_c Tp b_c a(psi_c)

Nothing here is optimised and no derivative is written down by hand: autograd differentiates it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES
from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.flow_stencil.problem import (
    AXES,
    IDENTITY,
    PRESCRIBED,
    ROUND_OFF,
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
from dgpde.kernels.flow_stencil.responses import EVAPORATION, evaporation_share
from dgpde.kernels.flow_stencil.roots import at_interval, taken
from dgpde.kernels.reference_faces import Boundary, BoundaryFace, boundary, face_mean
from dgpde.kernels.soil_relation.reference import theta_kr, wet_suction

Inputs = dict[str, Tensor]
State = tuple[Tensor, Tensor, Tensor]  # theta, psi and ponding before the step


class Terms(NamedTuple):
    """What the residual is made of."""

    residual: Tensor  # [nz, ny, nx] m3/s
    magnitude: Tensor  # [nz, ny, nx] m3/s, of all terms
    own: Tensor  # [nz, ny, nx] m3/s, of all but the flows between cells
    theta: Tensor  # [nz, ny, nx]
    outputs: dict[str, Tensor]  # "ponding" m, "runoff" and "uptake" m/s, and by side the flux m/s
    carried: Carried


def retention(problem: StencilProblem, inputs: Inputs, psi: Tensor) -> tuple[Tensor, Tensor]:
    """theta and kr of all cells at psi [nz, ny, nx]."""
    soil = _soil(problem, inputs)
    if problem.function is not None:
        return problem.function.theta_kr(psi, soil)
    return theta_kr(problem.relation, problem.variant, soil, psi, problem.knots)


def _soil(problem: StencilProblem, inputs: Inputs) -> Inputs:
    values = {name: inputs[f"soil.{name}"] for name in problem.soil_names()}
    return values if problem.classes is None else values | {"classes": problem.classes}


def beyond(field: Tensor, axis: int) -> Tensor:
    """The neighbour above, to the north or to the east of each cell; the last has itself."""
    size = field.shape[axis]
    return torch.cat([field.narrow(axis, 1, size - 1), field.narrow(axis, size - 1, 1)], axis)


def before(face: Tensor, axis: int) -> Tensor:
    """What stands at the faces above (north, east of) the cells, for the faces below (south, west of) them."""
    return torch.cat(
        [torch.zeros_like(face.narrow(axis, 0, 1)), face.narrow(axis, 0, face.shape[axis] - 1)], axis
    )


def faces(problem: StencilProblem, inputs: Inputs, axis: int) -> Tensor:
    """T of the faces above (north of, east of) the cells; the last cell has none, whatever stands there."""
    given = inputs[f"face_{AXES[axis]}"]
    last = problem.shape[axis] - 1
    return torch.cat([given.narrow(axis, 0, last), torch.zeros_like(given.narrow(axis, last, 1))], axis)


def face_flow(
    problem: StencilProblem, axis: int, face: Tensor, psi: tuple[Tensor, Tensor], kr: tuple[Tensor, Tensor]
) -> Tensor:
    """Flow from b, the cell beyond, to a, elementwise [m3/s], given psi and kr of (a, b)."""
    drop = psi[1] - psi[0] + problem.rise[axis].to(face)
    return face * face_mean(problem.face_mean, kr[0], kr[1], drop > 0.0) * drop


def boundary_faces(
    problem: StencilProblem, inputs: Inputs, side: str, interval: int, dt: float, ponding_old: Tensor
) -> BoundaryFace:
    """The faces of one side in one interval."""
    kind = problem.sides[side]

    def now(name: str) -> Tensor:
        return of_interval(name, inputs[name], interval)

    sample = inputs["psi0"]
    zero = torch.zeros(problem.side_shape(side), dtype=sample.dtype, device=sample.device)
    transmissivity = f"{side}.transmissivity"
    return BoundaryFace(
        kind=kind,
        face_mean=problem.face_mean,
        values={name: now(f"{side}.{name}") for name in BOUNDARY_VALUES[kind]},
        kr=now(f"{side}.kr") if kind in PRESCRIBED else None,
        transmissivity=now(transmissivity) if transmissivity in inputs else zero,
        rise=zero + problem.side_rise(side),
        half=zero + problem.half(side),
        gravity=problem.gravity,
        elevation=zero + problem.side_elevation(side).to(zero),
        ponding_old=ponding_old if side == "top" else zero,
        dt=zero + dt,
    )


def responding(
    problem: StencilProblem, inputs: Inputs, side: str, face: BoundaryFace, psi: Tensor
) -> BoundaryFace:
    """The faces with the share of the evaporation that their cells let through at psi [*side]."""
    if side != "top" or problem.evaporation_knots is None:
        return face
    return replace(face, share=evaporation_share(problem, inputs[EVAPORATION], psi))


def side_flow(
    problem: StencilProblem, inputs: Inputs, side: str, step: Step, at: tuple[Tensor, Tensor, Tensor]
) -> Boundary:
    """Flux through the faces of one side and the pond on it, at (psi, kr, ponding before the step) [*side].

    All is 0 where the cell is not active.
    """
    psi, kr, ponding_old = at
    face = boundary_faces(problem, inputs, side, step.interval, step.pond_dt, ponding_old)
    found = boundary(responding(problem, inputs, side, face, psi), psi, kr)
    if problem.active is None:
        return found
    inside = on_side(problem.active, side)
    return Boundary(*(torch.where(inside, part, torch.zeros_like(part)) for part in found))


def _in_field(problem: StencilProblem, side: str, value: Tensor) -> Tensor:
    """A value of a side's faces at their cells, 0 elsewhere: [nz, ny, nx]."""
    axis = SIDES.index(side) // 2
    value, empty = value.unsqueeze(axis), problem.shape[axis] - 1
    zeros = torch.zeros_like(value).expand(*(empty if k == axis else -1 for k in range(3)))
    return torch.cat([value, zeros] if SIDES.index(side) % 2 == 0 else [zeros, value], axis)


def terms(problem: StencilProblem, inputs: Inputs, step: Step, psi: Tensor, state: State) -> Terms:
    """Evaluate the equations at psi; ``state`` is the one before the step, as differentiable tensors."""
    theta_old, psi_old, ponding_old = state
    theta, kr = retention(problem, inputs, psi)
    volume, dt = problem.volume(psi), step.dt
    elastic = inputs["storage"] * theta
    residual = (volume * (theta - theta_old) + elastic * (psi - psi_old)) / dt
    magnitude = (volume * (theta + theta_old) + elastic * (psi.abs() + psi_old.abs())) / dt
    if problem.active is not None:
        residual = residual + torch.where(problem.active, 0.0, IDENTITY) * (psi - psi_old)
    inner = torch.zeros_like(magnitude)
    along: dict[int, Tensor] = {}
    for axis in problem.axes:
        face, psi_b, kr_b = faces(problem, inputs, axis), beyond(psi, axis), beyond(kr, axis)
        flow = face_flow(problem, axis, face, (psi, psi_b), (kr, kr_b))
        residual = residual - flow + before(flow, axis)
        along[axis] = -flow
        mean = face_mean(problem.face_mean, kr, kr_b, psi_b - psi + problem.rise[axis].to(face) > 0.0)
        scale = face * mean * (psi.abs() + psi_b.abs() + problem.rise[axis].to(face).abs())
        inner = inner + scale + before(scale, axis)
    surface = torch.zeros_like(ponding_old)
    outputs = {"ponding": ponding_old, "runoff": surface}
    for side in problem.sides:
        found = side_flow(problem, inputs, side, step, (on_side(psi, side), on_side(kr, side), ponding_old))
        area = problem.area(side, psi)
        residual = residual - _in_field(problem, side, area * found.flux)
        magnitude = magnitude + _in_field(problem, side, area * found.magnitude)
        outputs[side] = found.flux
        if side == "top":
            outputs |= {"ponding": found.ponding, "runoff": found.runoff}
    if problem.source:
        gain = volume * of_interval("source", inputs["source"], step.interval)
        residual, magnitude = residual - gain, magnitude + gain.abs()
    if problem.wells is not None:
        rate = of_interval("wells", inputs["wells"], step.interval)
        gain = torch.zeros_like(residual).flatten().index_add(0, problem.wells, rate).reshape(problem.shape)
        residual, magnitude = residual - gain, magnitude + gain.abs()
    river_rate = None
    if problem.rivers is not None:
        river_rate = river_inflow(inputs, problem.rivers, step.interval, psi)
        gain = torch.zeros_like(residual).flatten().index_add(0, problem.rivers, river_rate)
        gain = gain.reshape(problem.shape)
        conductance = of_interval("rivers.conductance", inputs["rivers.conductance"], step.interval)
        head = of_interval("rivers.head", inputs["rivers.head"], step.interval)
        size = conductance * (head.abs() + psi.flatten()[problem.rivers].abs())
        sizes = torch.zeros_like(residual).flatten().index_add(0, problem.rivers, size).reshape(problem.shape)
        residual, magnitude = residual - gain, magnitude + sizes
    root_rate = None
    if problem.roots:
        root_rate = taken(problem, at_interval(problem, inputs, step.interval), psi, volume)
        residual, magnitude = residual + root_rate, magnitude + root_rate
        outputs["uptake"] = root_rate.sum(0) / problem.plan(psi)
    sides = {side: outputs[side] for side in problem.sides}
    carried = Carried(theta, elastic * (psi - psi_old), along, sides, river_rate, root_rate)
    return Terms(residual, magnitude + inner, magnitude, theta, outputs, carried)


def jacobian(problem: StencilProblem, inputs: Inputs, step: Step, psi: Tensor) -> tuple[Tensor, Tensor]:
    """([7, nz, ny, nx] dF/dpsi, capacity): each face's flow is differentiated in psi and kr of its two cells."""
    with torch.enable_grad():
        x = psi.detach().requires_grad_()
        theta, kr = retention(problem, inputs, x)
        capacity, kr_slope = (
            torch.autograd.grad(curve.sum(), x, retain_graph=True)[0]
            if curve.requires_grad
            else torch.zeros_like(psi)
            for curve in (theta, kr)
        )
        theta, kr = theta.detach(), kr.detach()

        def slopes(function: object, *at: Tensor) -> list[Tensor]:
            leaves = [value.detach().clone().requires_grad_() for value in at]
            total = function(*leaves).sum()  # type: ignore[operator]
            if not total.requires_grad:
                return [torch.zeros_like(value) for value in at]
            found = torch.autograd.grad(total, leaves, allow_unused=True)
            return [torch.zeros_like(v) if g is None else g for v, g in zip(at, found, strict=True)]

        volume, storage = problem.volume(psi), inputs["storage"]
        elastic = storage * (capacity * (psi - step.psi) + theta)
        matrix = psi.new_zeros(7, *problem.shape)
        matrix[0] = (volume * capacity + elastic) / step.dt
        for axis in problem.axes:
            face, beyond_slope = faces(problem, inputs, axis), beyond(kr_slope, axis)

            def flow(
                a: Tensor, b: Tensor, kr_a: Tensor, kr_b: Tensor, axis: int = axis, face: Tensor = face
            ) -> Tensor:
                return face_flow(problem, axis, face, (a, b), (kr_a, kr_b))

            at = (psi, beyond(psi, axis), kr, beyond(kr, axis))
            d_a, d_b, d_kr_a, d_kr_b = slopes(flow, *at)
            d_a, d_b = d_a + d_kr_a * kr_slope, d_b + d_kr_b * beyond_slope
            matrix[0] += -d_a + before(d_b, axis)
            matrix[2 + 2 * axis] = -d_b
            matrix[1 + 2 * axis] = before(d_a, axis)
        for side in problem.sides:
            face_data = boundary_faces(problem, inputs, side, step.interval, step.pond_dt, step.ponding)

            def inflow(
                a: Tensor, kr_a: Tensor, face_data: BoundaryFace = face_data, side: str = side
            ) -> Tensor:
                return boundary(responding(problem, inputs, side, face_data, a), a, kr_a).flux

            d_psi, d_kr = slopes(inflow, on_side(psi, side), on_side(kr, side))
            slope = d_psi + d_kr * on_side(kr_slope, side)
            on_side(matrix[0], side).sub_(problem.area(side, psi) * slope)
        if problem.rivers is not None:
            conductance = of_interval("rivers.conductance", inputs["rivers.conductance"], step.interval)
            matrix[0].view(-1).index_add_(0, problem.rivers, conductance)
        if problem.roots:
            now = at_interval(problem, inputs, step.interval)
            matrix[0] += slopes(lambda x: taken(problem, now, x, problem.volume(psi)), psi)[0]
        if problem.active is not None:
            matrix[0] += torch.where(problem.active, 0.0, IDENTITY)
    return matrix, capacity


class ReferenceStencil:
    """The equations of a run by autograd; see ``problem.Stencil``."""

    name = "reference"

    def __init__(self, problem: StencilProblem, inputs: Inputs) -> None:
        self.problem, self.inputs = problem, inputs

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        with torch.no_grad():
            return retention(self.problem, self.inputs, psi)[0].expand_as(psi)

    def wet_suction(self) -> Tensor:
        """Suction near the inflection of theta(psi)."""
        problem, soil = self.problem, _soil(self.problem, self.inputs)
        if problem.function is not None:
            return problem.function.wet_suction(self.inputs["psi0"], soil)
        found = wet_suction(problem.relation, problem.variant, soil, problem.knots)
        return found.expand(problem.shape)

    def evaluate(self, step: Step, psi: Tensor, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations at psi."""
        with torch.no_grad():
            found = terms(self.problem, self.inputs, step, psi, (step.theta, step.psi, step.ponding))
        found_matrix, capacity = jacobian(self.problem, self.inputs, step, psi)
        size = found.residual.abs() - ROUND_OFF * found.magnitude
        outputs = dict(found.outputs)
        ponding, runoff = outputs.pop("ponding"), outputs.pop("runoff")
        uptake = outputs.pop("uptake", None)
        return Evaluation(
            found.residual,
            float(found.residual.norm()),
            float((size - allowed / step.dt).max()),
            float(size.max()),
            float(found.residual.sum()),
            float(found.own.sum()),
            found.theta,
            capacity,
            outputs,
            ponding,
            runoff,
            found_matrix if matrix else None,
            uptake,
        )

    def move(self, psi: Tensor, update: Tensor, now: Evaluation) -> Tensor:
        """Where a Newton update leads."""
        zero = torch.zeros_like(psi)
        theta_r = self.inputs.get("soil.theta_r", zero)
        return move(psi, update, now.theta, now.capacity, self.wet_suction(), theta_r, self.theta(zero))

    def linearise(self, step: Step, psi: Tensor) -> ReferenceLinearised:
        """The step at its accepted state."""
        return ReferenceLinearised(self, step, psi)

    def carried(self, step: Step, psi: Tensor) -> Carried:
        """What the step does to the water."""
        with torch.no_grad():
            state = (step.theta, step.psi, step.ponding)
            return terms(self.problem, self.inputs, step, psi, state).carried

    def pull_theta(self, psi: Tensor, carry_theta: Tensor, gradients: Inputs) -> Tensor:
        """d/dx of <carry_theta, theta(psi; x)>."""
        names = [name for name in gradients if name.startswith("soil.")]
        with torch.enable_grad():
            leaves = {name: self.inputs[name].detach().requires_grad_() for name in names}
            x = psi.detach().requires_grad_()
            theta, _ = retention(self.problem, self.inputs | leaves, x)
            return _accumulate((theta * carry_theta).sum(), {"psi": x}, leaves, gradients)["psi"]

    def push_theta(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> Tensor:
        """Tangent of theta(psi; x)."""
        soil = {name: value for name, value in tangents.items() if name.startswith("soil.")}

        def theta(at: Inputs) -> Inputs:
            return {"theta": retention(self.problem, self.inputs | at, at["psi"])[0]}

        at = {"psi": psi} | {name: self.inputs[name] for name in soil}
        return pushed(theta, at, {"psi": tangent} | soil)["theta"]


@dataclass(frozen=True)
class ReferenceLinearised:
    """See ``problem.Linearised``."""

    stencil: ReferenceStencil
    step: Step
    psi: Tensor

    @property
    def matrix(self) -> Tensor:
        """The true Jacobian."""
        return jacobian(self.stencil.problem, self.stencil.inputs, self.step, self.psi)[0]

    def _terms(self, inputs: Inputs, psi: Tensor, state: State) -> Terms:
        return terms(self.stencil.problem, inputs, self.step, psi, state)

    def load(self, cotangents: Cotangents, carry_theta: Tensor) -> Tensor:
        """d/dpsi of the outputs and theta."""
        step = self.step
        with torch.enable_grad():
            x = self.psi.detach().requires_grad_()
            found = self._terms(self.stencil.inputs, x, (step.theta, step.psi, step.ponding))
            total = (found.theta * carry_theta).sum() + _paired(
                found.outputs | found.carried.outputs(), cotangents
            )
            return _accumulate(total, {"psi": x}, {}, {})["psi"]

    def pull(
        self, multiplier: Tensor, cotangents: Cotangents, carry_theta: Tensor, gradients: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """d/dx of the step's Lagrangian."""
        step, inputs = self.step, self.stencil.inputs
        with torch.enable_grad():
            leaves = {name: inputs[name].detach().requires_grad_() for name in gradients}
            before_step = {"theta": step.theta, "psi": step.psi, "ponding": step.ponding}
            state = {name: value.detach().clone().requires_grad_() for name, value in before_step.items()}
            found = self._terms(inputs | leaves, self.psi, (state["theta"], state["psi"], state["ponding"]))
            total = (found.theta * carry_theta).sum() + _paired(
                found.outputs | found.carried.outputs(), cotangents
            )
            total = total - (found.residual * multiplier).sum()
            carry = _accumulate(total, state, leaves, gradients)
        return carry["theta"], carry["psi"], carry["ponding"]

    def push(self, psi: Tensor, state: State, tangents: Tangents) -> tuple[Tensor, Tensor, Tangents]:
        """Tangents of F, theta and the outputs."""
        step, names = self.step, ("theta_old", "psi_old", "ponding_old")

        def found(at: Inputs) -> Inputs:
            inputs = self.stencil.inputs | {name: at[name] for name in tangents}
            found = self._terms(inputs, at["psi"], (at["theta_old"], at["psi_old"], at["ponding_old"]))
            outputs = found.outputs | found.carried.outputs()
            return {"residual": found.residual, "theta": found.theta} | outputs

        before_step = dict(zip(names, (step.theta, step.psi, step.ponding), strict=True))
        at = before_step | {"psi": self.psi} | {name: self.stencil.inputs[name] for name in tangents}
        moving = dict(zip(names, state, strict=True)) | {"psi": psi} | tangents
        outputs = pushed(found, at, moving)
        return outputs.pop("residual"), outputs.pop("theta"), outputs


def _paired(outputs: dict[str, Tensor], cotangents: Cotangents) -> Tensor:
    return sum(
        ((outputs[name] * value).sum() for name, value in cotangents.items()), torch.zeros(()).double()
    )


def _accumulate(total: Tensor, state: Inputs, leaves: Inputs, gradients: Inputs) -> Inputs:
    """Differentiate a sum; add to the gradients, return the rest (zeros where nothing depends on it)."""
    wanted = [*state.values(), *leaves.values()]
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if total.requires_grad:
        found = torch.autograd.grad(total, wanted, allow_unused=True)
    for name, gradient in zip(leaves, found[len(state) :], strict=True):
        if gradient is not None:
            gradients[name] += gradient
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(state.items(), found, strict=False)
    }
