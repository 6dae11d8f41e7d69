"""What a run of the field engine takes, before it is run.

The arrays that are alive together at the height of the forward run and of the backward sweep, counted in fields of
8 bytes a cell; what the linear solver holds is asked of it after a step that is run. Autograd is asked what the set-up
of the inputs keeps for their gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgpde.assembly import Save, Times, Words, check_start
from dgpde.checkpoint import Plan
from dgpde.errors import SolveError
from dgpde.field import set_up_field
from dgpde.kernels.column_flow.problem import STATUS_TEXT
from dgpde.kernels.flow_stencil.problem import Step, is_series
from dgpde.kernels.node import is_tracked
from dgpde.linear import LinearSolver, StencilMatrix
from dgpde.newton import Work
from dgpde.options import SolveOptions
from dgpde.series import Value
from dgpde.timeloop import Account, meshes
from dgpde.trajectory import FieldRun

Tensors = dict[str, Tensor]

# Fields that a run holds whatever its inputs are.
MATRIX = 7
# theta before the step, volumes, allowed residual, wet suction, theta_s; the rate of psi, a first guess, psi, its
# update and its target; residual, theta and capacity there; five more of the trial that is evaluated
NEWTON = 18
RATES = 1  # of theta, where the truncation error is looked at
# cotangents of psi and theta, zeros, two multipliers
WALK = 5
# theta, kr and their slopes; load and first guess of the multiplier; cotangents of kr, theta and of the state before
PULL = 10
RECALLED, PAIR = 4, 2  # answers that the solver recalls in the adjoint of a linear problem, with their loads
# of the layers that roots reach: psi, response, weight, product, uptake and slope, with what autograd keeps of them
ROOTS = 10


def plan_field(
    words: Words,
    psi0: Value,
    times: Times,
    options: SolveOptions,
    save: Save,
    save_cells: object,
    ponding0: Value,
    probe: int,
) -> Plan:
    """The plan of a run; arguments as for ``Richards.plan``, ``probe`` in intervals.

    Raises:
        TypeError, ValueError, SolveError: as ``Richards.plan``.
    """
    start = check_start(words, psi0, times, options, ponding0)
    given = [tensor for _, tensor in words.tensors()] + [
        value for value in (psi0, ponding0) if isinstance(value, Tensor)
    ]
    own = {tensor.untyped_storage().data_ptr() for tensor in given}
    graph: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        graph[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run, inputs = set_up_field(words, start, options, save, save_cells)
    if start.frame.device.type != "cpu" or options.backend not in (None, "cpu"):
        raise ValueError("backend: only that of the C++ kernels is planned for fields; leave it None")
    made = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in inputs.values()}
    wanted = [name for name, value in inputs.items() if is_tracked(value)] or list(inputs)
    sizes = _Sizes(run, inputs)
    held = sum(size for where, size in made.items() if where not in own) + sizes.copies()
    kept = sum(size for where, size in graph.items() if where not in own and where not in made)
    with torch.no_grad():
        found = _probe(run, {name: value.detach() for name, value in inputs.items()}, probe)
    lengths = run.times.diff().tolist()
    steps = [found.steps / min(probe, run.intervals)] * run.intervals
    if options.dt_fixed is not None:
        steps = [float(meshes(options.dt_fixed, length)) for length in lengths]
    adaptive = options.dt_fixed is None
    # longer steps than the first ones need more iterations, up to those of a solve to full accuracy
    solver = max(found.forward, found.backward) if adaptive else found.forward
    work = held + solver + sizes.field * (NEWTON + RATES * adaptive + MATRIX) + sizes.roots()
    every = run.every
    longest = max(sum(steps[first : first + every]) for first in range(0, run.intervals, every))
    history = int(math.ceil(longest) * sizes.state)
    whole = every >= run.intervals
    count = min(run.states_at_most, run.intervals) or -(-run.intervals // every)
    checkpoints = 0 if whole else count * (sizes.state + 9)
    # the backward sweep; its cotangents of the outputs are as large as these
    walk = 2 * sizes.outputs + held + kept + found.backward
    if run.problem.linear:
        walk += sizes.field * PAIR * min(RECALLED, math.ceil(sum(steps)))
    walk += sizes.roots() + sizes.field * (WALK + MATRIX) + sum(sizes.gradient(name) for name in wanted)
    pull = PULL + (1 + sizes.soil if any(name.startswith("soil.") for name in wanted) else 0)
    height = max(walk + sizes.field * pull, 0 if whole else walk + work - held + sizes.field)
    outputs = sizes.outputs + sizes.field  # and the state
    gradients = max(kept, height - outputs - work)
    return Plan(math.ceil(sum(steps)), outputs, work, history, checkpoints, gradients)


@dataclass
class _Sizes:
    """Bytes of what a run holds."""

    run: FieldRun
    inputs: Tensors

    @property
    def field(self) -> int:
        """Of a number in every cell."""
        return 8 * self.run.problem.cells

    @property
    def state(self) -> int:
        """Of what is kept of a step."""
        return self.field + 8 * self.inputs["ponding0"].numel()

    @property
    def outputs(self) -> int:
        """Of what the run returns."""
        run = self.run
        cells = run.problem.cells if run.cells is None else run.cells.numel()
        surface, t = self.inputs["ponding0"].numel(), run.intervals
        faces = sum(math.prod(run.problem.side_shape(side)) for side in run.problem.sides)
        return 8 * (len(run.save) * cells + (2 * t + 1) * surface + t * faces)

    @property
    def soil(self) -> int:
        """How many fields of parameters the soil's kernel gives cotangents of."""
        names = self.run.problem.soil_names()
        return 0 if names == ("table",) else len(names)

    def roots(self) -> int:
        """Of what uptake by roots takes."""
        if not self.run.problem.roots:
            return 0
        density = self.inputs["roots.density"].detach()
        share = float((density > 0.0).movedim(1, 0).flatten(1).any(1).double().mean())
        return math.ceil(self.field * (1 + ROOTS * share))  # and the cells' volumes

    def copies(self) -> int:
        """Of inputs that are laid out anew for the kernels."""
        total = 0
        for name, value in self.inputs.items():
            one = (name == "storage" or name.startswith("soil.")) and not any(value.stride())
            if not one and not is_series(name) and not value.is_contiguous():
                total += value.element_size() * value.numel()
        return total

    def gradient(self, name: str) -> int:
        """Of the gradient of an input."""
        value = self.inputs[name]
        if is_series(name) and value.stride(0) == 0:
            value = value[:1]
        return value.element_size() * value.numel()


@dataclass
class _Probed:
    """Steps of the intervals that were run, and bytes that the linear solver held in them and in their adjoint."""

    steps: int
    forward: int
    backward: int


def _probe(run: FieldRun, inputs: Tensors, probe: int) -> _Probed:
    """Run the first intervals, of fixed steps the first step alone, and solve a transposed system at their end."""
    options, solvers = run.options, list[LinearSolver]()

    def make_solver(options: SolveOptions) -> LinearSolver:
        solvers.append(run.make_solver(options))
        return solvers[-1]

    count = min(probe, run.intervals)
    times = run.times[: count + 1]
    if options.dt_fixed is not None:
        length = float(times[1] - times[0])
        count, times = 1, torch.stack([times[0], times[0] + length / meshes(options.dt_fixed, length)])
    part = replace(
        run,
        times=times,
        save=(count,),
        cells=None,
        make_solver=make_solver,
        account=Account(),
        work=Work(),
        progress=None,
    )
    out = part.forward(inputs)
    account = part.account
    if account.status != 0:
        raise SolveError(
            f"the intervals that plan runs came only to t = {account.failed_time:.6g} s: "
            f"{STATUS_TEXT[account.status]}; what a run takes that cannot go on is not planned",
            times=torch.tensor([account.failed_time], dtype=torch.float64),
        )
    forward = solvers[0].nbytes
    solvers.clear()
    psi = out["psi"][0]
    stencil = run.make_stencil(run.problem, inputs)
    step = Step(count - 1, account.step_sizes[-1][-1], psi, stencil.theta(psi), out["ponding"][-1])
    solver = run.make_solver(options)
    solver.setup(StencilMatrix(stencil.linearise(step, psi).matrix, symmetric=run.problem.symmetric))
    solver.solve(run.problem.volume(psi), tolerance=options.linear_tolerance, transposed=True)
    return _Probed(account.steps, forward, solver.nbytes)
