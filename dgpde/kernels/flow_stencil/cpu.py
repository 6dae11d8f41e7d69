"""The C++ twin: the soil's pointwise pass, the boundary faces, and one gather pass over the stencil."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, FACE_MEANS
from dgpde.kernels.flow_stencil.cpu_call import Call
from dgpde.kernels.flow_stencil.cpu_soil import NativeSoil
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
    DARCY,
    PRESCRIBED,
    SIDES,
    Carried,
    Cotangents,
    Evaluation,
    StencilProblem,
    Step,
    Tangents,
    is_series,
    of_interval,
    on_side,
    river_inflow,
)
from dgpde.kernels.flow_stencil.reference_path import move
from dgpde.kernels.flow_stencil.responses import EVAPORATION, pull_share, push_share, share_and_slope
from dgpde.kernels.flow_stencil.roots import RootZone
from dgpde.kernels.soil_relation.cpu import Relation

Inputs = dict[str, Tensor]
KINDS = {name: code for code, name in enumerate(BOUNDARY_VALUES)}
MOVED = 1 << 15  # cells that an update moves at a time
FLOWS = tuple(f"flow_{axis}" for axis in AXES)
ROWS = ("squares", "beyond", "exact", "sum", "terms")
# Where the partial derivatives of a boundary flux stand (enum BoundaryInput in csrc/math/column_faces.h).
PSI, KR, KR_B, TRANSMISSIVITY, VALUE, PONDING, SHARE, PARTIALS = 0, 1, 2, 3, 4, 8, 9, 10


@dataclass(frozen=True)
class SideFlow:
    """The faces of one side at some state, [*side]; partials [3, 10, *side] of flux, ponding and run-off."""

    flux: Tensor
    flux_psi: Tensor
    flux_kr: Tensor
    scale: Tensor
    ponding: Tensor
    runoff: Tensor
    partials: Tensor | None


class CpuStencil:
    """The equations of a run by the C++ kernels; see ``problem.Stencil``."""

    name = "cpu"

    def __init__(self, problem: StencilProblem, inputs: Inputs) -> None:
        self.problem, self.inputs = problem, {name: _readable(name, value) for name, value in inputs.items()}
        self.module = native_module()
        self.widths = [width.contiguous() for width in problem.widths]
        self.rises = [rise.contiguous() for rise in problem.rise]
        self.active = None if problem.active is None else problem.active.double()
        self.soil = self._soil()
        self.areas = {side: problem.area(side, inputs["psi0"]) for side in problem.sides}
        self.constant = problem.relation == "saturated"
        self._curves: Curves | None = None
        self._wells = None if problem.wells is None else problem.wells.sort(stable=True)
        self._rivers = None if problem.rivers is None else problem.rivers.sort(stable=True)
        self.roots = RootZone(problem, self.inputs) if problem.roots else None
        self._wet: Tensor | None = None
        self._theta_s: Tensor | None = None
        self._matrix: Tensor | None = None  # of the last evaluation that was asked for one

    # ----------------------------------------------------------------------------------------------- the soil

    def _soil(self) -> NativeSoil | FunctionSoil:
        problem, names = self.problem, self.problem.soil_names()
        parameters = [self.inputs[f"soil.{name}"] for name in names]
        if problem.function is not None:
            return FunctionSoil(problem.function, parameters)
        classes = None if problem.classes is None else problem.classes.reshape(-1)
        relation = Relation(problem.relation, problem.variant, classes, problem.knots)
        return NativeSoil(relation, names, parameters)

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        if self.constant:
            return self.curves(psi).theta
        return self.soil.theta(psi)

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes in psi; of a saturated medium they do not depend on it."""
        if self._curves is not None:
            return self._curves
        curves = self.soil.curves(psi)
        if self.constant:
            self._curves = curves
        return curves

    def wet_suction(self) -> Tensor:
        """Suction near the inflection of theta(psi)."""
        if self._wet is None:
            self._wet = self.soil.wet_suction(self.inputs["psi0"])
        return self._wet

    def move(self, psi: Tensor, update: Tensor, now: Evaluation) -> Tensor:
        """Where a Newton update leads."""
        if self._theta_s is None:
            self._theta_s = self.theta(torch.zeros_like(psi))
        theta_r = self.inputs.get("soil.theta_r", torch.zeros((), dtype=psi.dtype)).expand_as(psi)
        fields = (psi, update, now.theta, now.capacity, self.wet_suction(), theta_r, self._theta_s)
        # a part at a time, which stays in the cache and whose temporaries take no memory to speak of
        axis = 0 if psi.shape[0] >= psi.shape[1] else 1
        parts = -(-psi.numel() // MOVED)
        found = torch.empty_like(psi)
        for into, *part in zip(*(field.chunk(parts, axis) for field in (found, *fields)), strict=True):
            into.copy_(move(*part))
        return found

    # ------------------------------------------------------------------------------------------- the boundary

    def side(self, side: str, step: Step, psi: Tensor, kr: Tensor, partials: bool) -> SideFlow:
        """The faces of one side. ``psi`` and ``kr`` are fields; where a cell is not active all is 0."""
        problem, kind = self.problem, self.problem.sides[side]
        shape, inputs = problem.side_shape(side), self.inputs
        call = self.module.SideCall()
        call.count, call.kind = shape[0] * shape[1], KINDS[kind]
        call.face_mean, call.dt = FACE_MEANS.index(problem.face_mean), step.pond_dt
        call.rise, call.half, call.gravity = problem.side_rise(side), problem.half(side), problem.gravity
        keep: list[Tensor] = []

        def give(name: str, value: Tensor, slot: int = 0) -> None:
            keep.append(value.contiguous())
            call.set(name, keep[-1].data_ptr(), slot)

        def now(name: str) -> Tensor:
            return of_interval(name, inputs[name], step.interval)

        give("elevation", problem.side_elevation(side).to(psi).expand(shape))
        give("psi", on_side(psi, side))
        give("kr", on_side(kr, side))
        give("ponding_old", step.ponding if side == "top" else psi.new_zeros(shape))
        for slot, name in enumerate(BOUNDARY_VALUES[kind]):
            give("value", now(f"{side}.{name}"), slot)
        if kind in PRESCRIBED:
            give("kr_b", now(f"{side}.kr"))
        if kind in DARCY:
            give("transmissivity", now(f"{side}.transmissivity"))
        if side == "top" and problem.evaporation_knots is not None:
            share, slope = share_and_slope(problem, inputs, on_side(psi, side))
            give("share", share)
            give("share_psi", slope)
        names = ("flux", "flux_psi", "flux_kr", "scale", "ponding", "runoff")
        found: dict[str, Any] = {name: psi.new_empty(shape) for name in names}
        found["partials"] = psi.new_empty(3, PARTIALS, *shape) if partials else None
        for name, value in found.items():
            if value is not None:
                give(name, value)
        self.module.flow_side(call)
        if problem.active is not None:
            inside = on_side(problem.active, side)
            for name, value in found.items():
                if value is not None:
                    found[name] = torch.where(inside, value, 0.0)
        return SideFlow(**found)

    # -------------------------------------------------------------------------------------------- the stencil

    def call(self, step: Step, psi: Tensor, curves: Curves) -> Call:
        """A pass at some psi, with all that every pass reads."""
        call = Call(self, step)
        state = {
            "psi": psi,
            "psi_old": step.psi,
            "theta": curves.theta,
            "theta_old": step.theta,
            "kr": curves.kr,
        }
        for name, value in state.items():
            call.set(name, value)
        for axis in self.problem.axes:
            call.set("face", self.inputs[f"face_{AXES[axis]}"], axis)
        call.native.storage_stride = call.set_one_or_all("storage", self.inputs["storage"])
        return call

    def evaluate(self, step: Step, psi: Tensor, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations at psi."""
        return self.assemble(step, psi, self.curves(psi), allowed, matrix)

    def assemble(self, step: Step, psi: Tensor, curves: Curves, allowed: Tensor, matrix: bool) -> Evaluation:
        """The equations at psi, where the soil has been evaluated."""
        problem = self.problem
        call = self.call(step, psi, curves)
        if problem.source:
            rate = of_interval("source", self.inputs["source"], step.interval)
            call.set("source", rate.expand(problem.shape), dense=False)
            call.native.set_source_strides(*rate.expand(problem.shape).stride())
        if self._wells is not None:
            cells, order = self._wells
            call.native.wells = cells.numel()
            call.set("well_cell", cells)
            call.set("well_rate", of_interval("wells", self.inputs["wells"], step.interval)[order])
        if self._rivers is not None:
            cells, order = self._rivers
            call.native.rivers = cells.numel()
            call.set("river_cell", cells)
            for name in ("head", "conductance"):
                value = of_interval(f"rivers.{name}", self.inputs[f"rivers.{name}"], step.interval)
                call.set(f"river_{name}", value[order])
        uptake = None
        if self.roots is not None:
            taken, slope = self.roots.taken(step.interval, psi)
            call.native.root_layer = self.roots.first
            call.set("roots", taken)
            call.set("root_slope", slope)
            uptake = self.roots.uptake(taken)
        flux: dict[str, Tensor] = {}
        ponding, runoff = step.ponding, torch.zeros_like(step.ponding)
        for side in problem.sides:
            faces = self.side(side, step, psi, curves.kr, partials=False)
            slope = faces.flux_psi + faces.flux_kr * on_side(curves.dkr, side)
            for name, value in (("flow", faces.flux), ("slope", slope), ("scale", faces.scale)):
                call.set(f"side_{name}", self.areas[side] * value, SIDES.index(side))
            flux[side] = faces.flux
            if side == "top":
                ponding, runoff = faces.ponding, faces.runoff
        residual = torch.empty_like(psi)
        call.set("residual", residual)
        call.set("allowed", allowed)
        found = torch.empty(5, problem.shape[0] * problem.shape[1], dtype=psi.dtype)
        for slot in range(5):
            call.set("rows", found[slot], slot)
        coefficients = None
        if matrix:
            if self._matrix is None:
                self._matrix = psi.new_empty(7, *problem.shape)
            coefficients = self._matrix
            call.set("capacity", curves.capacity)
            call.set("dkr", curves.dkr)
            call.set("matrix", coefficients)
        self.module.flow_assemble(call.native)
        squares, beyond, exact, total, terms = found
        return Evaluation(
            residual=residual,
            norm=float(squares.sum().sqrt()),
            beyond=float(beyond.max()),
            exact=float(exact.max()),
            total=float(total.sum()),
            magnitude=float(terms.sum()),
            theta=curves.theta,
            capacity=curves.capacity,
            flux=flux,
            ponding=ponding,
            runoff=runoff,
            matrix=coefficients,
            uptake=uptake,
        )

    def linearise(self, step: Step, psi: Tensor) -> CpuLinearised:
        """The step at its accepted state."""
        return CpuLinearised(self, step, psi)

    def carried(self, step: Step, psi: Tensor) -> Carried:
        """What the step does to the water."""
        problem, curves = self.problem, self.curves(psi)
        call = self.call(step, psi, curves)
        flow = {axis: torch.zeros_like(psi) for axis in problem.axes}
        for axis, value in flow.items():
            call.set("flow", value, axis)
        self.module.flow_faces(call.native)
        sides = {side: self.side(side, step, psi, curves.kr, partials=False).flux for side in problem.sides}
        rivers = None
        if problem.rivers is not None:
            rivers = river_inflow(self.inputs, problem.rivers, step.interval, psi)
        elastic = self.inputs["storage"] * curves.theta * (psi - step.psi)
        roots = None if self.roots is None else self.roots.field(step.interval, psi)
        return Carried(curves.theta, elastic, flow, sides, rivers, roots)

    def pull_theta(self, psi: Tensor, carry_theta: Tensor, gradients: Inputs) -> Tensor:
        """d/dx of <carry_theta, theta(psi; x)>."""
        return self.pull_soil(psi, carry_theta, None, gradients)

    def push_theta(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> Tensor:
        """Tangent of theta(psi; x)."""
        return self.push_soil(psi, tangent, tangents)[0]

    def pull_soil(self, psi: Tensor, theta: Tensor, kr: Tensor | None, gradients: Inputs) -> Tensor:
        """Add the cotangents of theta and kr to the soil's gradients; returns those of psi."""
        wanted = [gradients.get(f"soil.{name}") for name in self.problem.soil_names()]
        return self.soil.pull(psi, theta, kr, wanted)

    def push_soil(self, psi: Tensor, tangent: Tensor, tangents: Tangents) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr."""
        moving = [tangents.get(f"soil.{name}") for name in self.problem.soil_names()]
        return self.soil.push(psi, tangent, moving)


class CpuLinearised:
    """See ``problem.Linearised``."""

    def __init__(self, stencil: CpuStencil, step: Step, psi: Tensor) -> None:
        self.stencil, self.step, self.psi = stencil, step, psi
        self.curves = stencil.curves(psi)
        self.faces = {
            side: stencil.side(side, step, psi, self.curves.kr, partials=True)
            for side in stencil.problem.sides
        }

    @property
    def matrix(self) -> Tensor:
        """The true Jacobian."""
        now = self.stencil.assemble(self.step, self.psi, self.curves, torch.zeros_like(self.psi), True)
        assert now.matrix is not None
        return now.matrix

    def _partials(self, side: str) -> list[tuple[str, Tensor]]:
        """(name of an output, its partial derivatives [10, *side]) of what one side's faces give."""
        partials = self.faces[side].partials
        assert partials is not None
        outputs = [(side, partials[0])]
        return [*outputs, ("ponding", partials[1]), ("runoff", partials[2])] if side == "top" else outputs

    def load(self, cotangents: Cotangents, carry_theta: Tensor) -> Tensor:
        """d/dpsi of the outputs and theta."""
        found = self.curves.capacity * carry_theta
        for side in self.stencil.problem.sides:
            slope = on_side(self.curves.dkr, side)
            for name, partial in self._partials(side):
                if name in cotangents:
                    on_side(found, side).add_(cotangents[name] * (partial[PSI] + partial[KR] * slope))
        if self.stencil.roots is not None:
            self.stencil.roots.load(self.step, self.psi, cotangents, found)
        return self._load_carried(found, cotangents)

    def _load_carried(self, found: Tensor, cotangents: Cotangents) -> Tensor:
        """Add d/dpsi of what the water carries along with it."""
        stencil, problem = self.stencil, self.stencil.problem
        if any(name in cotangents for name in FLOWS):
            call = stencil.call(self.step, self.psi, self.curves)
            call.set("dkr", self.curves.dkr)
            for axis in problem.axes:
                seed = cotangents.get(FLOWS[axis])
                call.set("seed_flow", torch.zeros_like(found) if seed is None else seed, axis)
            call.set("load", found)
            stencil.module.flow_load(call.native)
        curves = self.curves
        return load_points(
            problem, stencil.inputs, self.step, self.psi, curves.theta, curves.capacity, cotangents, found
        )

    def pull(
        self, multiplier: Tensor, cotangents: Cotangents, carry_theta: Tensor, gradients: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """d/dx of the step's Lagrangian."""
        stencil, step, problem = self.stencil, self.step, self.stencil.problem
        call = stencil.call(step, self.psi, self.curves)
        grad_kr, grad_theta = torch.empty_like(self.psi), carry_theta.clone()
        new_theta, new_psi = torch.empty_like(self.psi), torch.empty_like(self.psi)
        call.set("multiplier", multiplier)
        call.set("grad_kr", grad_kr)
        call.set("grad_theta", grad_theta)
        call.set("carry_theta", new_theta)
        call.set("carry_psi", new_psi)
        for name, axis in ((f"face_{AXES[axis]}", axis) for axis in problem.axes):
            if name in gradients:
                call.set("grad_face", gradients[name], axis)
        for axis in problem.axes:
            if FLOWS[axis] in cotangents:
                call.set("seed_flow", cotangents[FLOWS[axis]], axis)
        if "storage" in gradients:
            call.set("grad_storage", gradients["storage"])
        stencil.module.flow_reverse(call.native)
        pull_elastic(
            stencil.inputs, step, self.psi, self.curves.theta, cotangents, gradients, grad_theta, new_psi
        )
        has_pond = problem.sides.get("top") == "atmosphere"
        carry_ponding = torch.zeros_like(step.ponding) if has_pond else cotangents["ponding"].clone()
        for side in problem.sides:
            by_input = self._pull_side(side, multiplier, cotangents, gradients)
            on_side(grad_kr, side).add_(by_input[KR])
            if has_pond and side == "top":
                carry_ponding = by_input[PONDING]
        pull_points(problem, stencil.inputs, step, self.psi, multiplier, cotangents, gradients)
        if stencil.roots is not None:
            stencil.roots.pull(step, self.psi, multiplier, cotangents, gradients)
        if any(name.startswith("soil.") for name in gradients):
            stencil.pull_soil(self.psi, grad_theta, grad_kr, gradients)
        return new_theta, new_psi, carry_ponding

    def _pull_side(self, side: str, multiplier: Tensor, cotangents: Cotangents, gradients: Inputs) -> Tensor:
        """[10, *side]: the cotangents of what the faces of a side read; added to the gradients."""
        problem, kind = self.stencil.problem, self.stencil.problem.sides[side]
        weight = self.stencil.areas[side] * on_side(multiplier, side)  # F holds -A q
        found = torch.zeros_like(self.faces[side].flux).expand(PARTIALS, *problem.side_shape(side))
        for name, partial in self._partials(side):
            seed = cotangents.get(name)
            total = weight if name == side else None
            if seed is not None:
                total = seed if total is None else total + seed
            if total is not None:
                found = found + total * partial
        slots = {f"{side}.{name}": VALUE + slot for slot, name in enumerate(BOUNDARY_VALUES[kind])}
        slots |= {f"{side}.kr": KR_B, f"{side}.transmissivity": TRANSMISSIVITY}
        for name, slot in slots.items():
            if name in gradients:
                of_interval(name, gradients[name], self.step.interval).add_(found[slot])
        if side == "top" and EVAPORATION in gradients:
            pull_share(problem, self.stencil.inputs, on_side(self.psi, side), found[SHARE], gradients)
        return found

    def push(
        self, psi: Tensor, state: tuple[Tensor, Tensor, Tensor], tangents: Tangents
    ) -> tuple[Tensor, Tensor, Tangents]:
        """Tangents of F, theta and the outputs."""
        stencil, problem, interval = self.stencil, self.stencil.problem, self.step.interval
        call = stencil.call(self.step, self.psi, self.curves)
        dot_theta, dot_kr = stencil.push_soil(self.psi, psi, tangents)
        found = torch.empty_like(psi)
        moving = {"psi": psi, "theta": dot_theta, "kr": dot_kr, "theta_old": state[0], "psi_old": state[1]}
        for name, value in moving.items():
            call.set(f"dot_{name}", value)
        call.set("dot_residual", found)
        for axis in problem.axes:
            if f"face_{AXES[axis]}" in tangents:
                call.set("dot_face", tangents[f"face_{AXES[axis]}"], axis)
        if "storage" in tangents:
            call.native.dot_storage_stride = call.set_one_or_all("dot_storage", tangents["storage"])
        outputs = {"ponding": state[2], "runoff": torch.zeros_like(state[2])}
        for axis in problem.axes:
            outputs[FLOWS[axis]] = torch.zeros_like(psi)
            call.set("dot_flow", outputs[FLOWS[axis]], axis)
        stencil.module.flow_forward(call.native)
        outputs["elastic"] = push_elastic(
            stencil.inputs, self.step, self.psi, self.curves.theta, (psi, state[1], dot_theta), tangents
        )
        for side, kind in problem.sides.items():
            dots = {PSI: on_side(psi, side), KR: on_side(dot_kr, side)}
            slots = {f"{side}.{name}": VALUE + slot for slot, name in enumerate(BOUNDARY_VALUES[kind])}
            slots |= {f"{side}.kr": KR_B, f"{side}.transmissivity": TRANSMISSIVITY}
            for name, slot in slots.items():
                if name in tangents:
                    dots[slot] = of_interval(name, tangents[name], interval)
            if side == "top":
                dots[PONDING] = state[2]
                if EVAPORATION in tangents:
                    dots[SHARE] = push_share(problem, stencil.inputs, on_side(self.psi, side), tangents)
            for name, partial in self._partials(side):
                outputs[name] = sum(
                    (partial[slot] * dot for slot, dot in dots.items()), torch.zeros_like(partial[0])
                )
            on_side(found, side).sub_(stencil.areas[side] * outputs[side])
        outputs |= push_points(problem, stencil.inputs, self.step, self.psi, psi, tangents, found)
        if stencil.roots is not None:
            outputs |= stencil.roots.push(self.step, self.psi, psi, tangents, found)
        return found, dot_theta, outputs


def _readable(name: str, value: Tensor) -> Tensor:
    """Fields as the kernels read them: contiguous, but for one value that all cells share.

    A series is laid out an interval at a time.
    """
    if name == "storage" or is_series(name) or name.startswith("soil."):
        return value
    return value.contiguous()
