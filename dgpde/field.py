"""Runs of the field engine: from the words of a problem to the stencil's tensors, and to a Solution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.assembly import Save, Start, Times, Words, check_save, check_start, compact_view
from dgpde.boundary import Atmosphere, NoFlow
from dgpde.errors import SolveError
from dgpde.frame import NOT_NEGATIVE, POSITIVE, Frame
from dgpde.grid import Grid
from dgpde.kernels.column_flow.problem import STATUS_TEXT, Report
from dgpde.kernels.flow_stencil.function import choose_stencil
from dgpde.kernels.flow_stencil.problem import AXES, DARCY, PRESCRIBED, StencilProblem, on_side
from dgpde.kernels.flow_stencil.problem import SIDES as STENCIL_SIDES
from dgpde.kernels.flow_stencil.responses import EVAPORATION
from dgpde.kernels.node import as_node
from dgpde.kernels.soil_relation.function import soil_relation
from dgpde.kernels.soil_relation.reference import is_shared
from dgpde.linear import LinearSolver
from dgpde.options import SolveOptions
from dgpde.series import Value
from dgpde.solution import FieldResult, Solution, actual_evaporation
from dgpde.sources import RootUptake, flat_cells
from dgpde.trajectory import FieldRun, Progress

Tensors = dict[str, Tensor]
MAX_LINEAR = 400  # iterations of a linear solve


def solve_field(
    words: Words,
    psi0: Value,
    times: Times,
    options: SolveOptions,
    save: Save,
    save_cells: object,
    ponding0: Value,
    progress: Progress | None = None,
) -> Solution:
    """Run a section, a domain or columns as one system; arguments as for ``Richards.solve``.

    Raises:
        TypeError, ValueError, SolveError: as ``Richards.solve``.
    """
    start = check_start(words, psi0, times, options, ponding0)
    run, inputs = set_up_field(words, start, options, save, save_cells)
    run.progress = progress
    solution = field_solution(words, start, run, as_node(run, inputs))
    solution.field_run = (run, inputs)
    if options.on_failure == "raise" and run.account.status != 0:
        raise field_failure(words.grid, run, solution)
    return solution


def set_up_field(
    words: Words, start: Start, options: SolveOptions, save: Save, save_cells: object
) -> tuple[FieldRun, Tensors]:
    """The run and its differentiable inputs."""
    grid, frame = words.grid, start.frame
    if frame.dtype != torch.float64:
        raise ValueError(
            f"psi0 and the other tensors are {frame.dtype}; the field engine computes in float64: cast them"
        )
    make_stencil, linear = choose_stencil(frame.device, options.backend)
    build = _Build(words, frame, _kernel_shape(grid))
    inputs = build.inputs(start)
    run = FieldRun(
        problem=build.problem,
        times=start.times,
        save=check_save(save, start.times.numel()),
        cells=None
        if save_cells is None
        else flat_cells("save_cells", save_cells, grid.shape).to(frame.device),
        options=options,
        make_stencil=make_stencil,
        make_solver=lambda options: LinearSolver(
            tolerance=options.linear_tolerance, max_iterations=MAX_LINEAR, backend=linear
        ),
    )
    return run, inputs


def _kernel_shape(grid: Grid) -> tuple[int, int, int]:
    if len(grid.shape) == 3:
        return grid.shape[0], grid.shape[1], grid.shape[2]
    return grid.shape[0], 1, grid.shape[1]


@dataclass
class _Build:
    """Makes the stencil's problem and inputs."""

    words: Words
    frame: Frame
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        words, grid = self.words, self.words.grid
        one = torch.ones(1, dtype=torch.float64)
        dz, *others = grid.spacing
        if not grid.lateral:
            dy, dx = one, one.expand(grid.n)
        elif len(others) == 1:
            dy, dx = one, others[0]
        else:
            dy, dx = others
        self.sides = {
            s: b for s in STENCIL_SIDES if not isinstance(b := words.boundaries.get(s, NoFlow()), NoFlow)
        }
        centre = dz.cumsum(0) - 0.5 * dz
        gap = torch.cat([centre.diff(), torch.zeros(1, dtype=torch.float64)])
        lift = torch.zeros(()).double() if grid.lift is None else grid.lift.reshape(1, *self.shape[1:])
        lift = lift.expand(1, *self.shape[1:])
        device = self.frame.device
        soil, field = words.soil, grid.shape
        classes = soil.classes_on(field, device)
        knots = {name: response.knots for name, response in words.responses().items()}
        wells, rivers = ([place.flat(field) for place in places] for places in (words.wells, words.rivers))
        self.problem = StencilProblem(
            shape=self.shape,
            widths=(dz, dy, dx),
            rise=(grid.gravity * gap[:, None, None], _climb(lift, 1), _climb(lift, 2)),
            gravity=grid.gravity,
            relation=soil.relation,
            variant=soil.variant,
            face_mean=words.face_mean,
            lateral=grid.lateral,
            sides={side: boundary.kind for side, boundary in self.sides.items()},
            wells=torch.cat(wells).to(device) if wells else None,
            rivers=torch.cat(rivers).to(device) if rivers else None,
            source=bool(words.sources),
            roots=words.roots is not None,
            root_knots=knots.get("root_response"),
            evaporation_knots=knots.get(EVAPORATION),
            active=None if grid.active is None else grid.active.reshape(self.shape).to(device),
            classes=None if classes is None else classes.reshape(self.shape),
            knots=soil.knots,
            function=soil.function,
        )

    def inputs(self, start: Start) -> Tensors:
        """The tensors of ``problem.input_names()``."""
        words, frame, problem = self.words, self.frame, self.problem
        field = words.grid.shape
        soil = words.soil.parameters_on(field, frame.dtype, frame.device)
        k_sat = words.soil.k_sat_on(field, frame.dtype, frame.device).reshape(self.shape)
        ratio = frame.constant("anisotropy", words.anisotropy, field, POSITIVE).reshape(self.shape)
        self.soil = {
            name: value if is_shared(name) else value.reshape(self.shape) for name, value in soil.items()
        }
        found = {
            "psi0": start.psi0.reshape(self.shape),
            "ponding0": start.ponding0.reshape(self.shape[1:]),
            "storage": self._storage(start.psi0),
        }
        found |= {f"soil.{name}": value for name, value in self.soil.items()}
        along = (k_sat, ratio * k_sat, ratio * k_sat)
        for axis in problem.axes:
            found[f"face_{AXES[axis]}"] = self._faces(axis, along[axis])
        for side, boundary in self.sides.items():
            shape = problem.side_shape(side)
            values = {
                name: _once(value).reshape(-1, *shape) for name, value in boundary.inputs(frame, side).items()
            }
            found |= {f"{side}.{name}": value for name, value in values.items()}
            if boundary.kind in PRESCRIBED:
                found[f"{side}.kr"] = self._relative_conductivity(side, values[PRESCRIBED[boundary.kind]])
            if boundary.kind in DARCY:
                k_side = on_side(along[STENCIL_SIDES.index(side) // 2], side)
                found[f"{side}.transmissivity"] = (k_side / problem.half(side))[None]
        if words.sources:
            total = sum(self._cells(source.compact(frame, k)) for k, source in enumerate(words.sources))
            assert isinstance(total, Tensor)
            found["source"] = total
        if words.wells:
            found["wells"] = _beside([well.rates(frame, k) for k, well in enumerate(words.wells)])
        if words.rivers:
            given = [river.inputs(frame, k) for k, river in enumerate(words.rivers)]
            for name in ("head", "conductance"):
                found[f"rivers.{name}"] = _beside([values[name] for values in given])
        if words.roots is not None:
            found |= self._roots(words.roots)
        for name, response in words.responses().items():
            found[name] = self._columns(response.table(frame, name))
        return {name: found[name] for name in problem.input_names()}

    def _roots(self, roots: RootUptake) -> Tensors:
        """The roots' inputs; sizes along which they do not vary are 1."""
        given = roots.inputs(self.frame)
        omega_c = given.pop("omega_c")
        if omega_c.requires_grad or bool((omega_c != 1.0).any()):
            raise ValueError(
                "omega_c of RootUptake must be 1 in sections, domains and steady states: compensation would couple "
                "all cells of a column; leave it out"
            )
        found = {
            "roots.transpiration": given.pop("transpiration"),
            "roots.density": given.pop("root_density"),
        }
        found |= {f"roots.{name}": value for name, value in given.items()}  # Feddes' heads
        return {name: self._columns(value) for name, value in found.items()}

    def _columns(self, value: Tensor) -> Tensor:
        """[..., ny or 1, nx or 1] of [..., *top]; a section has one row of columns."""
        value = compact_view(value)
        return value.unsqueeze(-2) if len(self.words.grid.shape) == 2 else value

    def _cells(self, value: Tensor) -> Tensor:
        """[t or 1, ...] values of cells with the axes of the kernel."""
        return value.unsqueeze(2) if value.dim() == 3 else value

    def _storage(self, psi0: Tensor) -> Tensor:
        """V Ss/theta_s, m2."""
        words, frame = self.words, self.frame
        given = frame.constant("specific_storage", words.specific_storage, words.grid.shape, NOT_NEGATIVE)
        if isinstance(words.specific_storage, float) and words.specific_storage == 0.0:
            return given.reshape(self.shape)
        theta_s, _ = self._relation(
            torch.zeros_like(psi0).reshape(self.shape), self.soil, self.problem.classes
        )
        return self.problem.volume(psi0) * given.reshape(self.shape) / theta_s

    def _relation(self, psi: Tensor, soil: Tensors, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        problem = self.problem
        if problem.function is not None:
            return problem.function.theta_kr(psi, soil)
        values = soil if classes is None else soil | {"classes": classes}
        return soil_relation(problem.relation, problem.variant, values, psi, problem.knots)

    def _relative_conductivity(self, side: str, psi: Tensor) -> Tensor:
        """kr of the cells of a side at the heads [t or 1, *side]."""
        soil = {name: value if is_shared(name) else on_side(value, side) for name, value in self.soil.items()}
        classes = self.problem.classes
        return self._relation(psi, soil, None if classes is None else on_side(classes, side))[1].expand_as(
            psi
        )

    def _faces(self, axis: int, conductivity: Tensor) -> Tensor:
        """T = area / (half a/K a + half b/K b) of the faces above (north, east of) the cells, m2/s."""
        problem = self.problem
        widths = [
            width.to(conductivity).reshape([-1 if k == i else 1 for k in range(3)])
            for i, width in enumerate(problem.widths)
        ]
        resistance = widths[axis] / (2.0 * conductivity)
        size = self.shape[axis]
        first, second = resistance.narrow(axis, 0, size - 1), resistance.narrow(axis, 1, size - 1)
        across = [widths[other] for other in range(3) if other != axis]
        face = across[0] * across[1] / (first + second)
        if axis > 0 and self.words.grid.lift is not None:
            # the cosine of the slope between the two centres
            rise = problem.rise[axis].to(conductivity).narrow(axis, 0, size - 1)
            gap = 0.5 * (widths[axis].narrow(axis, 0, size - 1) + widths[axis].narrow(axis, 1, size - 1))
            face = face * gap / torch.hypot(gap, rise)
        active = problem.active
        if active is not None:
            both = active.narrow(axis, 0, size - 1) & active.narrow(axis, 1, size - 1)
            face = torch.where(both, face, 0.0)
        return torch.cat([face, torch.zeros_like(resistance.narrow(axis, 0, 1))], axis)


def _climb(lift: Tensor, axis: int) -> Tensor:
    """Elevation of the next cell along an axis less that of each; 0 for the last."""
    return torch.cat([lift.diff(dim=axis), torch.zeros_like(lift.narrow(axis, 0, 1))], axis)


def _beside(parts: list[Tensor]) -> Tensor:
    """[t or 1, m] values of several wells or rivers as those of one."""
    rows = max(part.shape[0] for part in parts)
    return torch.cat([part.expand(rows, -1) for part in parts], 1)


def _once(value: Tensor) -> Tensor:
    """A series that does not vary in time with its first interval alone."""
    return value[:1] if value.stride(0) == 0 else value


def field_solution(words: Words, start: Start, run: FieldRun, out: Tensors) -> Solution:
    """The run's outputs in the shapes of the grid."""
    grid, account = words.grid, run.account
    surface, intervals = grid.side_shape("top"), run.intervals
    nothing = out["runoff"].new_zeros(())
    seen = grid.shape if run.cells is None else tuple(out["psi"].shape[1:])
    flux = {}
    for side in grid.sides:
        shape = (intervals, *grid.side_shape(side))
        flux[side] = out[side].reshape(shape) if side in out else nothing.expand(shape)

    def one(value: float, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor([value], dtype=dtype)

    work, moved = run.work, account.moved
    report = Report(
        status=one(account.status, torch.int32),
        failed_time=one(account.failed_time, torch.float64),
        steps=one(account.steps),
        newton_iterations=one(work.newton),
        cuts=one(account.cuts),
        rejections=one(account.rejections),
        restarts=one(work.restarts),
        mass_balance_error=one(abs(account.imbalance) / moved if moved > 0.0 else 0.0, torch.float64),
        water_moved=one(moved, torch.float64),
        dt_next=one(run.dt_next, torch.float64),
        step_sizes=[torch.tensor(sizes, dtype=torch.float64)[:, None] for sizes in account.step_sizes]
        if run.options.record_steps
        else None,
        linear_iterations=one(work.linear),
    )
    result = FieldResult(
        psi=out["psi"].reshape(-1, *seen),
        ponding=out["ponding"].reshape(-1, *surface),
        boundary_flux=flux,
        runoff=out["runoff"].reshape(-1, *surface),
        uptake=out["uptake"].reshape(intervals, *surface)
        if "uptake" in out
        else nothing.expand(intervals, *surface),
        report=report,
    )
    evaporation = None
    if isinstance(words.top, Atmosphere):
        rain = words.top.inputs(start.frame, "top")["precipitation"]
        evaporation = actual_evaporation(result, rain, run.times)
    return Solution(
        grid, run.times, run.save, result, soil=words.soil, evaporation=evaporation, cells=run.cells
    )


def field_failure(grid: Grid, run: FieldRun, solution: Solution) -> SolveError:
    """The SolveError of a run that ended early."""
    account = run.account
    place = ""
    if account.cell >= 0:
        rest, index = account.cell, []
        for size in reversed(grid.shape):
            index.append(rest % size)
            rest //= size
        place = f", worst in cell {tuple(reversed(index))}"
    reason = STATUS_TEXT[account.status]
    return SolveError(
        f"the run could not go on at t = {account.failed_time:.6g} s{place}: {reason}.\n"
        "Pass options=SolveOptions(on_failure='return') to receive what was computed until then instead.",
        columns=torch.zeros(1, dtype=torch.int64),
        times=solution.failed_time,
        status=solution.status,
        solution=solution,
    )
