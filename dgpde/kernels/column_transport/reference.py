"""Transport in columns in plain PyTorch, float64: what the fused kernels are tested against.

Cell k of a column, step from n (plain) to n + 1 (primed), per unit area [kg m-2 s-1]:

    dz (theta_m' c' - theta_m c)/dt + dz (m(c') - m(c))/dt + [exchange] + F_above - F_below
        = dz (production - decay (theta_m' c' + m(c'))) - U c' - E c' + max(G, 0) c_source - max(-G, 0) c'
          + yield dz decay_parent (all mass of the parent),

    F = q c_face - (theta D) dc/dz,   theta D = diffusion theta^power + dispersivity |q| of the half cells in series
    [kinetic]   dz (s' - s)/dt + decay: s' = (s/dt + rate m(c'))/(1/dt + rate + decay)   instead of dm/dt
    [immobile]  dz theta_im (b' - b)/dt + decay,
                b' = (theta_im b/dt + rate c')/(theta_im (1/dt + decay) + rate);         theta_m = theta - theta_im

with q by continuity from the bottom, the roots' uptake U, the elastic storage E and sources G of the water's step.

Each step and solute is solved by Newton outside the graph and enters it through one differentiable Newton correction
at the solution, as in the reference of the flow. Dense Jacobians by automatic differentiation: nothing is optimised
and no derivative is written down by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgpde.kernels.column_flow.reference_residual import WaterOfStep, primal
from dgpde.kernels.column_transport.problem import (
    CELL_INPUTS,
    CELL_SERIES,
    NO_CONVERGENCE,
    SIDE_SERIES,
    SoluteProblem,
    TransportProblem,
    TransportReport,
    TransportResult,
)

Step = tuple[int, Tensor, WaterOfStep]  # interval, columns that took the step, their water
Values = dict[str, Tensor]


def column_transport_reference(
    problem: TransportProblem, inputs: Values, steps: Sequence[Step]
) -> TransportResult:
    """Carry the solutes along the steps of the water.

    Args:
        problem: what is not differentiated.
        inputs: the tensors of ``problem.input_names()`` in their full shapes.
        steps: the accepted steps of all columns, each column's in their order.
    """
    run = _Run(problem, inputs)
    for interval, columns, water in steps:
        run.step(interval, columns, water)
    return run.result()


def phases(solute: SoluteProblem, x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Concentration and sorbed mass per volume of soil of the state x.

    x is c; with a Freundlich exponent below 1, whose isotherm has an infinite slope at 0, it is c^exponent.
    """
    if solute.isotherm == "none":
        return x, torch.zeros_like(x)
    a, b = values["capacity"], values["shape"]
    if solute.isotherm == "linear":
        return x, a * x
    if solute.isotherm == "langmuir":
        return x, a * x / (1.0 + b * x)
    sharp = b < 1.0
    y = x.sign() * x.abs().pow(torch.where(sharp, 1.0 / b, b))
    return torch.where(sharp, y, x), a * torch.where(sharp, x, y)


def state_of(solute: SoluteProblem, c: Tensor, values: Values) -> Tensor:
    """The state x of a concentration."""
    if solute.isotherm != "freundlich":
        return c
    b = values["shape"]
    return torch.where(b < 1.0, c.sign() * c.abs().pow(b), c)


def face_flux(problem: TransportProblem, c: Tensor, q: Tensor, conductance: Tensor) -> Tensor:
    """[nz - 1, m] mass flux through the inner faces, positive up, from q and the conductances there."""
    dz = problem.dz[:, None]
    up = q >= 0.0
    if problem.scheme == "central":
        share = dz[:-1] / (dz[:-1] + dz[1:])
        on_face = (1.0 - share) * c[:-1] + share * c[1:]
    else:
        on_face = torch.where(up, c[:-1], c[1:])
    if problem.scheme == "tvd":
        step = c[1:] - c[:-1]
        gradient = step / (0.5 * (dz[:-1] + dz[1:]))
        none = torch.zeros_like(gradient[:1])
        behind = torch.where(up, torch.cat([none, gradient[:-1]]), -torch.cat([gradient[1:], none]))
        behind = behind * 0.5 * (dz[:-1] + dz[1:])
        ahead = torch.where(up, step, -step)
        same = ((behind > 0.0) & (ahead > 0.0)) | ((behind < 0.0) & (ahead < 0.0))
        a, b = (torch.where(same, value, torch.ones_like(value)) for value in (behind, ahead))
        on_face = on_face + torch.where(same, a / (a + b) * b, torch.zeros_like(a))
    return q * on_face - conductance * (c[1:] - c[:-1])


def side_flux(kind: str, q: Tensor, value: Tensor, conductance: Tensor, c: Tensor, held: bool) -> Tensor:
    """[m] mass flux into a boundary cell; q is the inflow of water, ``held`` that outflow leaves its solute behind."""
    inflow = q.clamp(min=0.0)
    outflow = torch.zeros_like(q) if held else q.clamp(max=0.0)
    if kind == "concentration":
        return inflow * value + outflow * c + conductance * (value - c)
    if kind == "inflow_concentration":
        return inflow * value + outflow * c
    if kind == "zero_gradient":
        return (inflow + outflow) * c
    return value


class _Run:
    def __init__(self, problem: TransportProblem, inputs: Values) -> None:
        self.problem, self.inputs = problem, inputs
        zeros = torch.zeros(problem.nz, problem.n, dtype=torch.float64)
        self.constant: list[Values] = []
        for i in range(len(problem.solutes)):
            found = {name: inputs.get(f"{i}.{name}", zeros) for name in CELL_INPUTS}
            found["yield"] = inputs.get(f"{i}.yield", zeros + 1.0)
            self.constant.append(found)
        self.x: list[Tensor] = []
        self.sorbed: list[Tensor] = []
        self.still: list[Tensor] = []
        for solute, values in zip(problem.solutes, self.constant, strict=True):
            x = state_of(solute, values["c0"], values)
            self.x.append(x)
            self.sorbed.append(_sorbed_at(solute, values["c0"], values))
            self.still.append(values["c0"])
        s, t, n = len(problem.solutes), problem.intervals, problem.n
        self.saved: list[list[Tensor]] = [[values["c0"] for values in self.constant]]
        self.interval = 0
        self.top = [[torch.zeros(n, dtype=torch.float64) for _ in range(s)] for _ in range(t)]
        self.bottom = [[torch.zeros(n, dtype=torch.float64) for _ in range(s)] for _ in range(t)]
        self.status = torch.zeros(n, dtype=torch.int32)
        self.iterations = torch.zeros(n, dtype=torch.int64)

    def step(self, interval: int, columns: Tensor, water: WaterOfStep) -> None:
        """Every solute over one step of some columns."""
        while self.interval < interval:
            self._close()
        decayed: list[Tensor] = []
        for i in range(len(self.problem.solutes)):
            decayed.append(self._solute(i, interval, columns, water, decayed))

    def _solute(
        self, i: int, interval: int, columns: Tensor, water: WaterOfStep, decayed: list[Tensor]
    ) -> Tensor:
        problem, solute = self.problem, self.problem.solutes[i]
        values = {name: value[:, columns] for name, value in self.constant[i].items()}
        zero = torch.zeros_like(water.theta)
        for name in CELL_SERIES:
            key = f"{i}.{name}"
            values[name] = self.inputs[key][interval][:, columns] if key in self.inputs else zero
        for name in SIDE_SERIES:
            key = f"{i}.{name}"
            values[name] = self.inputs[key][interval][columns] if key in self.inputs else zero[0]
        values |= {
            "x": self.x[i][:, columns],
            "s": self.sorbed[i][:, columns],
            "b": self.still[i][:, columns],
        }
        values["made"] = values["yield"] * decayed[solute.parent] if solute.parent >= 0 else zero
        values |= {f"water.{name}": value for name, value in water._asdict().items()}

        def residual(x: Tensor, given: Values) -> Tensor:
            return _terms(problem, solute, x, given)[0]

        fixed = {name: primal(value) for name, value in values.items()}
        star, jacobian, count, done = _solve(residual, fixed)
        self.iterations[columns] += count
        self.status[columns[~done]] = NO_CONVERGENCE
        correction = torch.linalg.solve(jacobian, residual(star, values).T[..., None])
        x = star - correction[..., 0].T
        _, c, sorbed, still, lost, top, bottom = _terms(problem, solute, x, values)
        length = float(problem.times[interval + 1] - problem.times[interval])
        weight = water.dt / length
        for sums, flux in ((self.top, top), (self.bottom, bottom)):
            sums[interval][i] = sums[interval][i].index_add(0, columns, weight * flux)
        self.x[i] = self.x[i].index_copy(1, columns, x)
        self.sorbed[i] = self.sorbed[i].index_copy(1, columns, sorbed)
        self.still[i] = self.still[i].index_copy(1, columns, still)
        return lost

    def _close(self) -> None:
        self.saved.append(
            [
                phases(solute, x, values)[0]
                for solute, x, values in zip(self.problem.solutes, self.x, self.constant, strict=True)
            ]
        )
        self.interval += 1

    def result(self) -> TransportResult:
        while self.interval < self.problem.intervals:
            self._close()
        n, s, t = self.problem.n, len(self.problem.solutes), self.problem.intervals
        nan = torch.full((), torch.nan, dtype=torch.float64)
        return TransportResult(
            concentration=torch.stack([torch.stack(row) for row in self.saved]),
            top_flux=torch.stack([torch.stack(row) for row in self.top]),
            bottom_flux=torch.stack([torch.stack(row) for row in self.bottom]),
            report=TransportReport(
                mass=nan.expand(t + 1, s, 3, n),
                imbalance=nan.expand(s, n),
                moved=nan.expand(s, n),
                status=self.status,
                failed_time=nan.expand(n),
                iterations=self.iterations,
                peclet=nan.expand(n),
                courant=nan.expand(n),
            ),
        )


def _sorbed_at(solute: SoluteProblem, c: Tensor, values: Values) -> Tensor:
    """m(c), as a function of c: with the slope in c, infinite or not, that it has."""
    a, b = values["capacity"], values["shape"]
    if solute.isotherm == "freundlich":
        return a * c.sign() * c.abs().pow(b)
    return phases(solute, c, values)[1]


def _terms(
    problem: TransportProblem, solute: SoluteProblem, x: Tensor, v: Values
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Residual [nz, m], c, sorbed mass, immobile concentration, what decays [nz, m]; fluxes of the sides [m]."""
    dz = problem.dz[:, None]
    dt, theta, theta_old = v["water.dt"], v["water.theta"], v["water.theta_old"]
    c, m = phases(solute, x, v)
    c_old, m_old = phases(solute, v["x"], v)
    decay, still = v["decay"], v["immobile_theta"]
    mobile, mobile_old = theta - still, theta_old - still
    taken, elastic, source = v["water.taken"], v["water.elastic"], v["water.source"]

    stored = dz * (mobile * c - mobile_old * c_old) / dt
    held = mobile * c
    sorbed, b = v["s"], v["b"]
    if solute.kinetic:
        sorbed = (v["s"] / dt + v["sorption_rate"] * m) / (1.0 / dt + v["sorption_rate"] + decay)
        stored, held = stored + dz * (sorbed - v["s"]) / dt, held + sorbed
    elif solute.isotherm != "none":
        sorbed = m
        stored, held = stored + dz * (m - m_old) / dt, held + m
    if solute.immobile:
        b = (still * v["b"] / dt + v["immobile_rate"] * c) / (still * (1.0 / dt + decay) + v["immobile_rate"])
        stored, held = stored + dz * still * (b - v["b"]) / dt, held + still * b
    lost = dz * decay * held

    gain = source - taken - elastic - dz * (theta - theta_old) / dt
    flux = torch.cat([v["water.bottom_flux"][None], v["water.bottom_flux"] + gain.cumsum(0)])
    spread = v["diffusion"] * theta.pow(solute.diffusion_power)
    length = v["dispersivity"]
    q = flux[1:-1]
    below, above = spread[:-1] + length[:-1] * q.abs(), spread[1:] + length[1:] * q.abs()
    together = 0.5 * (dz[:-1] * above + dz[1:] * below)  # two half cells, one behind the other
    some = together > 0.0
    conductance = torch.where(some, below * above / torch.where(some, together, 1.0), 0.0)
    inner = face_flux(problem, c, q, conductance)
    sides = {}
    for side, row, into in (("top", -1, -flux[-1]), ("bottom", 0, flux[0])):
        half = (spread[row] + length[row] * into.abs()) / (0.5 * dz[row])
        held_back = side == "top" and problem.evaporation and not solute.evaporates
        kind = solute.top if side == "top" else solute.bottom
        sides[side] = side_flux(kind, into, v[side], half, c[row], held_back)
    faces = torch.cat([sides["bottom"][None], inner, -sides["top"][None]])

    out = elastic + (-source).clamp(min=0.0)
    if solute.uptake:
        out = out + taken
    added = dz * v["production"] + source.clamp(min=0.0) * v["source_c"] + v["made"]
    residual = stored + lost + out * c - added + faces[1:] - faces[:-1]
    return residual, c, sorbed, b, lost, sides["top"], sides["bottom"]


def _solve(
    residual: Callable[[Tensor, Values], Tensor], values: Values
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The root x [nz, m], the Jacobian there [m, nz, nz], iterations [m] and whether each column converged."""
    x = values["x"].clone()
    count = torch.zeros(x.shape[1], dtype=torch.int64)
    scale = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(60):
        f, jacobian = _jacobian(residual, x, values)
        terms = (jacobian.abs() * x.T[:, None, :].abs()).sum(2).amax(1)
        scale = torch.maximum(scale, torch.maximum(terms, f.abs().amax(0)))
        open_ = f.abs().amax(0) > 1e-15 * scale
        if not bool(open_.any()):
            break
        step = torch.linalg.solve(jacobian, f.T[..., None])[..., 0].T
        settled = step.abs().amax(0) <= 1e-15 * x.abs().amax(0)
        count += open_.to(torch.int64)
        x = torch.where(open_, x - step, x)
        if bool((settled | ~open_).all()):
            break
    f, jacobian = _jacobian(residual, x, values)
    return x, jacobian, count, f.abs().amax(0) <= 1e-10 * scale


def _jacobian(
    residual: Callable[[Tensor, Values], Tensor], x: Tensor, values: Values
) -> tuple[Tensor, Tensor]:
    """Value [nz, m] and dF/dx [m, nz, nz]."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        f = residual(point, values)
        rows = [torch.autograd.grad(row.sum(), point, retain_graph=True)[0] for row in f]
    return f.detach(), torch.stack(rows).permute(2, 0, 1)
