"""The residual of one implicit step of the column engine in plain PyTorch: the specification.

Unknown psi [nz, n] (cell centres, index 0 at the bottom). Backward Euler, mixed form (Celia, Bouloutas &
Zarba 1990, Water Resour. Res. 26:1483), cell-centred finite volumes, per unit area [m/s]:

    F_k = dz_k (theta_k - theta_old_k) / dt + dz_k Ss_k theta_k / theta_s_k (psi_k - psi_old_k) / dt
          + q_{k+1/2} - q_{k-1/2} + dz_k u_k - dz_k source_k

    q_{k+1/2} = -T kf (psi_{k+1} - psi_k + g d),   T = 1 / (dz_k / (2 Ks_k) + dz_{k+1} / (2 Ks_{k+1})),
                d = (dz_k + dz_{k+1}) / 2,   kf = mean of the two relative permeabilities

with q_{top} = -q_in_top and q_{bottom} = q_in_bottom (boundary fluxes are positive into the column).

Nothing here is optimised and no derivative is written down by hand: autograd differentiates it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dgpde.kernels.column_flow.problem import BOUNDARY_VALUES, RESPONSES, SOIL_PARAMETERS, ColumnProblem
from dgpde.kernels.column_flow.reference_responses import stress, tabulated_response
from dgpde.kernels.reference_faces import Boundary, BoundaryFace, boundary, face_mean
from dgpde.kernels.soil_relation.reference import is_shared, theta_kr, wet_suction


@dataclass(frozen=True)
class StepData:
    """All that one step of n columns reads besides psi. Tensors end in the column axis unless they say
    otherwise.
    """

    problem: ColumnProblem
    dz: Tensor  # [nz, 1] m, not per column
    soil: dict[str, Tensor]  # [nz, n]; tabulated: "table" [n_class, n_knots, 4]
    classes: Tensor | None  # [nz, n] int32, tabulated only
    k_sat: Tensor  # [nz, n] m/s
    specific_storage: Tensor  # [nz, n] 1/m
    theta_s: Tensor  # [nz, n] theta at psi = 0
    transmissivity: Tensor  # [nz - 1, n] 1/s, interior faces
    values: dict[str, Tensor]  # forcing of the interval: "top.psi" [n], "root_density" [nz, n], ...
    kr_boundary: dict[str, Tensor]  # [n] kr of the boundary cell at a prescribed head: "top", "bottom"
    psi_old: Tensor  # [nz, n] m
    theta_old: Tensor  # [nz, n]
    ponding_old: Tensor  # [n] m
    dt: Tensor  # [n] s

    def map(self, function: Callable[[Tensor], Tensor]) -> StepData:
        """The same data with `function` applied to every differentiable per-column tensor and the table."""
        changes: dict[str, object] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor) and entry.name not in ("dz", "classes"):
                changes[entry.name] = function(value)
            elif isinstance(value, dict):
                changes[entry.name] = {name: function(item) for name, item in value.items()}
        return replace(self, **changes)  # type: ignore[arg-type]

    def primal(self) -> StepData:
        """The values alone: no graph, no tangents."""
        return self.map(primal)

    def select(self, columns: Tensor) -> StepData:
        """The columns with the given indices [m]."""

        def take(value: Tensor) -> Tensor:
            return value.index_select(-1, columns)

        shared = {name: value for name, value in self.soil.items() if is_shared(name)}
        fields = {name: value for name, value in self.soil.items() if name not in shared}
        data = replace(self, soil=fields).map(take)
        data = replace(data, soil=data.soil | shared)
        if self.classes is None:
            return data
        return replace(data, classes=self.classes.index_select(-1, columns))

    def retention(self, psi: Tensor, row: int | None = None) -> tuple[Tensor, Tensor]:
        """theta and kr of all cells at psi [nz, n], or of the cells of one row at psi [n]."""
        problem = self.problem
        return theta_kr(problem.relation, problem.variant, self.relation_inputs(row), psi, problem.knots)

    def relation_inputs(self, row: int | None = None) -> dict[str, Tensor]:
        """What the soil relation reads, for all cells or those of one row."""
        cells = self.soil if self.classes is None else self.soil | {"classes": self.classes}
        if row is None:
            return cells
        return {name: value if is_shared(name) else value[row] for name, value in cells.items()}


class Terms(NamedTuple):
    """What the residual is made of."""

    residual: Tensor  # [nz, n] m/s
    magnitude: Tensor  # [nz, n] m/s, sum of the magnitudes of its terms (their round-off)
    theta: Tensor  # [nz, n]
    storage: Tensor  # [nz, n] m/s, rate of change of the water in a cell
    top: Boundary
    bottom: Boundary
    uptake: Tensor  # [n] m/s by roots
    source: Tensor  # [n] m/s added by sources


class WaterOfStep(NamedTuple):
    """The water of one step of some columns: what solutes are carried by."""

    dt: Tensor  # [m] s
    theta: Tensor  # [nz, m] at the end of the step
    theta_old: Tensor  # [nz, m] at its beginning
    bottom_flux: Tensor  # [m] m/s, positive up
    taken: Tensor  # [nz, m] m/s by roots
    elastic: Tensor  # [nz, m] m/s into elastic storage
    source: Tensor  # [nz, m] m/s from sources


def primal(value: Tensor) -> Tensor:
    """The value without graph and without the tangent of forward-mode differentiation."""
    return forward_ad.unpack_dual(value.detach()).primal


def prepare(problem: ColumnProblem, inputs: dict[str, Tensor]) -> StepData:
    """The data of a run that do not change in time; `with_forcing` and `with_state` complete them."""
    dz = problem.dz[:, None]
    names = SOIL_PARAMETERS[problem.relation] or ("table",)
    k_sat = inputs["k_sat"]
    half = dz / (2.0 * k_sat)  # s
    nothing = torch.zeros(0, problem.n, dtype=torch.float64)
    data = StepData(
        problem=problem,
        dz=dz,
        soil={name: inputs[f"soil.{name}"] for name in names},
        classes=problem.classes,
        k_sat=k_sat,
        specific_storage=inputs["specific_storage"],
        theta_s=nothing,
        transmissivity=1.0 / (half[:-1] + half[1:]),
        values={},
        kr_boundary={},
        psi_old=nothing,
        theta_old=nothing,
        ponding_old=nothing,
        dt=nothing,
    )
    theta_s, _ = data.retention(torch.zeros_like(inputs["psi0"]))
    return replace(data, theta_s=theta_s)


def wet_side(data: StepData) -> Tensor:
    """Suction [nz, n] m of the inflection of theta(psi): from states wetter than it Newton is nearly
    monotone.
    """
    problem = data.problem
    suction = wet_suction(problem.relation, problem.variant, data.relation_inputs(), problem.knots)
    return suction.expand_as(data.k_sat)


def with_forcing(data: StepData, inputs: dict[str, Tensor], interval: int) -> StepData:
    """Add the forcing of one output interval."""
    problem = data.problem
    values: dict[str, Tensor] = {}
    for side, kind in (("top", problem.top), ("bottom", problem.bottom)):
        for name in BOUNDARY_VALUES[kind]:
            values[f"{side}.{name}"] = inputs[f"{side}.{name}"][interval]
    if problem.roots:
        for name in problem.root_inputs:
            values[name] = inputs[name] if name in ("omega_c", *RESPONSES) else inputs[name][interval]
    if "evaporation_response" in problem.responses:
        values["evaporation_response"] = inputs["evaporation_response"]
    if problem.sources:
        values["source"] = inputs["source"][interval]
    kr_boundary = {}
    for side, kind, row in (("top", problem.top, -1), ("bottom", problem.bottom, 0)):
        prescribed = {"head": "psi", "atmosphere": "psi_min"}.get(kind)
        if prescribed is not None:
            kr_boundary[side] = data.retention(values[f"{side}.{prescribed}"], row)[1]
    return replace(data, values=values, kr_boundary=kr_boundary)


def with_state(data: StepData, psi: Tensor, ponding: Tensor, dt: Tensor) -> StepData:
    """Add the state at the start of the step and its length."""
    return replace(data, psi_old=psi, theta_old=data.retention(psi)[0], ponding_old=ponding, dt=dt)


def column_end(data: StepData, side: str, psi: Tensor, kr: Tensor) -> Boundary:
    """Flux into the column through its top or bottom, given psi [n] and kr [n] of the boundary cell."""
    problem = data.problem
    top = side == "top"
    kind = problem.top if top else problem.bottom
    row = -1 if top else 0
    dz = data.dz[row]
    knots = problem.responses.get("evaporation_response")
    share = None
    if top and knots is not None:
        share = tabulated_response(psi[None], data.values["evaporation_response"], knots)[0]
    height = problem.dz.sum() - 0.5 * dz if top else 0.5 * dz
    face = BoundaryFace(
        kind=kind,
        face_mean=problem.face_mean,
        values={name: data.values[f"{side}.{name}"] for name in BOUNDARY_VALUES[kind]},
        kr=data.kr_boundary.get(side),
        transmissivity=data.k_sat[row] / (0.5 * dz),
        rise=(1.0 if top else -1.0) * problem.gravity * 0.5 * dz,
        half=0.5 * dz,
        gravity=problem.gravity,
        elevation=problem.gravity * height,
        ponding_old=data.ponding_old,
        dt=data.dt,
        share=share,
    )
    return boundary(face, psi, kr)


def root_omega(psi: Tensor, data: StepData) -> Tensor:
    """Stress index omega [n] of Jarvis (1989, J. Hydrol. 107:57): the density-weighted mean of a(psi)."""
    v = data.values
    a = stress(data.problem, v, psi)
    return (v["root_density"] * data.dz * a).sum(0)


def root_uptake(psi: Tensor, omega: Tensor, data: StepData) -> Tensor:
    """Uptake u [nz, n] 1/s with compensation: other layers make up for stress until omega falls below
    omega_c.
    """
    v = data.values
    a = stress(data.problem, v, psi)
    return v["transpiration"] * v["root_density"] * a / torch.where(omega > v["omega_c"], omega, v["omega_c"])


def terms(psi: Tensor, data: StepData, omega: Tensor | None = None) -> Terms:
    """Evaluate the residual at psi [nz, n]. `omega` [n] overrides the stress index, to differentiate it
    apart.
    """
    problem, dz, dt = data.problem, data.dz, data.dt
    theta, kr = data.retention(psi)
    compressible = data.specific_storage * theta / data.theta_s
    storage = dz * ((theta - data.theta_old) + compressible * (psi - data.psi_old)) / dt
    magnitude = dz * (theta + data.theta_old + compressible * (psi.abs() + data.psi_old.abs())) / dt

    d = 0.5 * (dz[:-1] + dz[1:])
    gradient = psi[1:] - psi[:-1] + problem.gravity * d
    k_face = data.transmissivity * face_mean(problem.face_mean, kr[:-1], kr[1:], gradient > 0.0)
    q = -k_face * gradient
    q_scale = k_face * (psi[1:].abs() + psi[:-1].abs() + abs(problem.gravity) * d)
    top = column_end(data, "top", psi[-1], kr[-1])
    bottom = column_end(data, "bottom", psi[0], kr[0])
    flux = torch.cat([bottom.flux[None], q, -top.flux[None]])  # [nz + 1, n] upward
    scale = torch.cat([bottom.magnitude[None], q_scale, top.magnitude[None]])
    residual = storage + flux[1:] - flux[:-1]
    magnitude = magnitude + scale[1:] + scale[:-1]

    uptake = source = torch.zeros_like(psi[0])
    if problem.roots:
        sink = dz * root_uptake(psi, root_omega(psi, data) if omega is None else omega, data)
        residual, magnitude, uptake = residual + sink, magnitude + sink.abs(), sink.sum(0)
    if problem.sources:
        gain = dz * data.values["source"]
        residual, magnitude, source = residual - gain, magnitude + gain.abs(), gain.sum(0)
    return Terms(residual, magnitude, theta, storage, top, bottom, uptake, source)


def water(psi: Tensor, data: StepData) -> WaterOfStep:
    """What solutes see of a step that ended at psi."""
    dz, nothing = data.dz, torch.zeros_like(psi)
    theta, kr = data.retention(psi)
    taken, source = nothing, nothing
    if data.problem.roots:
        taken = dz * root_uptake(psi, root_omega(psi, data), data)
    if data.problem.sources:
        source = dz * data.values["source"]
    elastic = dz * data.specific_storage * theta / data.theta_s * (psi - data.psi_old) / data.dt
    flux = column_end(data, "bottom", psi[0], kr[0]).flux
    return WaterOfStep(data.dt, theta, data.theta_old, flux, taken, elastic, source)


def residual(psi: Tensor, data: StepData) -> Tensor:
    """F(psi) [nz, n] m/s; a step is the psi at which it vanishes."""
    return terms(psi, data).residual


def linearise(psi: Tensor, data: StepData) -> tuple[Terms, Tensor]:
    """Terms at psi and the true Jacobian dF/dpsi [n, nz, nz] 1/s, by automatic differentiation.

    Without root compensation F_k depends on psi_{k-1..k+1}: vector-Jacobian products with every third row
    recover the three diagonals. The three of them are made at once, on three copies of the columns.
    Compensation adds one dense term of rank one, dF/domega (domega/dpsi)^T.
    """
    nz, n = psi.shape
    copies = data.primal().select(torch.arange(n).repeat(3))
    rows = torch.arange(nz)
    with torch.enable_grad():
        x = primal(psi).repeat(1, 3).requires_grad_()
        omega = root_omega(x, copies) if data.problem.roots else None
        held = None if omega is None else omega.detach().requires_grad_()
        result = terms(x, copies, held)
        chosen = (rows[:, None] % 3 == torch.arange(3)).to(psi.dtype).repeat_interleave(n, dim=1)
        (pulled,) = torch.autograd.grad(result.residual, x, chosen, retain_graph=omega is not None)
        pulled = pulled.reshape(nz, 3, n)
        jacobian = torch.zeros(n, nz, nz, dtype=psi.dtype)
        for offset in (-1, 0, 1):  # dF_k / dpsi_{k + offset}
            k = rows[max(0, -offset) : nz - max(0, offset)]
            jacobian[:, k, k + offset] = pulled[k + offset, k % 3].T
        if omega is not None and held is not None:
            (slope,) = torch.autograd.grad(omega.sum(), x)
            # dF/domega, all rows at once: the derivative of its vector-Jacobian product u -> u dF/domega.
            dummy = torch.zeros_like(x, requires_grad=True)
            (product,) = torch.autograd.grad(result.residual, held, dummy, create_graph=True)
            (by_omega,) = torch.autograd.grad(product.sum(), dummy)
            jacobian += by_omega[:, :n].T[:, :, None] * slope[:, :n].T[:, None, :]

    def one(value: Tensor) -> Tensor:
        return value.detach()[..., :n]

    top, bottom = (Boundary(*(one(part) for part in side)) for side in (result.top, result.bottom))
    found = Terms(
        residual=one(result.residual),
        magnitude=one(result.magnitude),
        theta=one(result.theta),
        storage=one(result.storage),
        top=top,
        bottom=bottom,
        uptake=one(result.uptake),
        source=one(result.source),
    )
    return found, jacobian
