"""Variably saturated flow: the model that users run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dgpde.assembly import Save, Setup, Times, Words, check_times, kept_in, set_up
from dgpde.boundary import Atmosphere, Boundary, NoFlow
from dgpde.errors import failure
from dgpde.field import solve_field
from dgpde.frame import NOT_NEGATIVE, POSITIVE, store
from dgpde.grid import SIDES, Grid
from dgpde.kernels.column_flow.problem import FACE_MEANS, STATUS_TEXT, ColumnResult
from dgpde.options import SolveOptions
from dgpde.progress import ProgressBar
from dgpde.series import Value
from dgpde.soil import Soil
from dgpde.solution import Solution, actual_evaporation, joined, masked_after_failure
from dgpde.sources import River, RootUptake, Source, Well

if TYPE_CHECKING:
    from dgpde.checkpoint import Plan

DEFAULTS = SolveOptions()
PROGRESS_BLOCKS = 50  # how often a bar moves
ENGINES = ("column", "field")
SAVE_CELLS = "save_cells is for sections and domains; columns keep the psi of all cells"
Sources = RootUptake | Source | Well | River


@dataclass(frozen=True)
class Block:
    """The results of the intervals [first, last), and psi at their end [nz, n], the state that goes on."""

    first: int
    last: int
    result: ColumnResult
    psi_end: Tensor


class Richards:
    """The mixed form of Richards' equation on a grid: columns, sections or domains.

    Args:
        grid: where the cells are.
        soil: a relation of ``dgpde.soil``; its parameters broadcast to ``grid.shape``.
        boundaries: names of sides of the grid (``Grid.sides``) to a boundary; a side that is not named is closed.
        sources: any number of ``Source`` and at most one ``RootUptake``; in sections and domains also any number of
            ``Well`` and ``River``.
        specific_storage: [1/m], not negative; what broadcasts to ``grid.shape``. Default 0.
        anisotropy: ratio of horizontal to vertical conductivity, positive; what broadcasts to ``grid.shape``;
            ``k_sat`` of the soil is the vertical one. Columns have no horizontal flow: it must stay None for them.
        face_mean: relative conductivity on a face from its two cells: "arithmetic" (default of columns), "upstream"
            (by H; default of sections and domains), "geometric" or "harmonic".
        engine: "column" (each column on its own steps, in fused kernels; default of ``Grid.columns``) or "field"
            (one system for all cells; the only one for sections and domains).

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """

    def __init__(
        self,
        grid: Grid,
        soil: Soil,
        boundaries: Mapping[str, Boundary] | None = None,
        sources: Sequence[Sources] = (),
        specific_storage: Value = 0.0,
        anisotropy: Value | None = None,
        face_mean: str | None = None,
        engine: str | None = None,
    ) -> None:
        if not isinstance(grid, Grid):
            raise TypeError(f"grid must be a Grid, not {type(grid).__name__}")
        if not isinstance(soil, Soil):
            raise TypeError(f"soil must be a relation such as VanGenuchten, not {type(soil).__name__}")
        if anisotropy is not None and not grid.lateral:
            raise ValueError(
                "anisotropy has no meaning for columns, which have no horizontal flow; leave it None"
            )
        if engine not in (None, *ENGINES):
            raise ValueError(f"engine must be one of {', '.join(ENGINES)} or None, it is {engine!r}")
        if engine == "column" and grid.lateral:
            raise ValueError("engine 'column' solves independent columns; this grid has lateral neighbours")
        engine = engine or ("field" if grid.lateral else "column")
        if engine == "column" and soil.function is not None:
            raise ValueError(
                f"soil: {type(soil).__name__} is evaluated by PyTorch, which the kernels of the column engine cannot "
                "call; give engine='field', bake it into a table (Tabulated.from_function, NeuralSoil(route='baked')), "
                "or take NeuralSoil(route='fused')"
            )
        if face_mean is None:
            face_mean = "upstream" if grid.lateral else "arithmetic"
        if face_mean not in FACE_MEANS:
            raise ValueError(f"face_mean must be one of {', '.join(FACE_MEANS)}, it is {face_mean!r}")
        soil.parameters_on(grid.shape)  # raises, by name, for what does not broadcast
        soil.k_sat_on(grid.shape)
        roots, others, wells, rivers = _check_sources(sources, grid, engine)
        self.grid, self.soil = grid, soil
        self.words = Words(
            grid=grid,
            soil=soil,
            boundaries=_check_boundaries(boundaries, grid),
            roots=roots,
            sources=others,
            wells=wells,
            rivers=rivers,
            specific_storage=store("specific_storage", specific_storage, NOT_NEGATIVE),
            anisotropy=store("anisotropy", 1.0 if anisotropy is None else anisotropy, POSITIVE),
            face_mean=face_mean,
            engine=engine,
        )

    def solve(
        self,
        psi0: Value,
        times: Times,
        options: SolveOptions = DEFAULTS,
        *,
        save: Save = "all",
        save_cells: object = None,
        ponding0: Value = 0.0,
        progress: bool = False,
    ) -> Solution:
        """Run from psi0 at times[0] to times[-1]; columns each on their own steps. Differentiable.

        Args:
            psi0: initial pressure head [m]; what broadcasts to ``grid.shape``.
            times: [T + 1] output times [s], increasing; series are constant between them.
            options: tolerances, steps, backend, memory.
            save: times whose psi is kept: "all" (default), "last", or increasing indices into ``times``.
            save_cells: the cells whose psi is kept, where a field would be too much: indices or a mask as for
                ``Well``; None (default) for all. Not for the column engine.
            ponding0: water standing on the surface at the start [m]; what broadcasts to the top, only under an
                Atmosphere.
            progress: show a bar on stderr, of fields with the last step, iterations and the mass balance. Columns
                are then computed in blocks of intervals; the result is the same to round-off.

        Returns:
            The solution. The type is float32 when psi0 and every other tensor are, float64 otherwise.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape, type, device or range.
            SolveError: a column could not go on and ``options.on_failure`` is "raise".
        """
        if self.words.engine == "field":
            bar = ProgressBar(check_times(times)) if progress else None
            return solve_field(self.words, psi0, times, options, save, save_cells, ponding0, bar)
        if save_cells is not None:
            raise ValueError(SAVE_CELLS)
        setup = set_up(self.words, psi0, times, options, save, ponding0)
        count = setup.problem.intervals
        block = max(1, -(-count // PROGRESS_BLOCKS)) if progress else count
        parts, bar = [], ProgressBar(setup.problem.times)
        for part in self.blocks(setup, block):
            parts.append(part.result)
            if progress:
                bar.show(part.last)
        solution = self.assemble(setup, parts)
        if options.on_failure == "raise" and bool((solution.status != 0).any()):
            raise failure(solution.status, solution.failed_time, STATUS_TEXT, solution)
        return solution

    def steady(self, psi0: Value, options: SolveOptions = DEFAULTS) -> Solution:
        """The steady state under boundaries and sources that do not vary in time. Differentiable.

        Found by Newton, after steps of growing length when it needs them. Gradients flow to everything that ``solve``
        gives one to, by a single transposed solve; the state does not depend on psi0, whose gradient is zero. Columns
        are solved together as one system.

        Args:
            psi0: first guess of the pressure head [m]; what broadcasts to ``grid.shape``.
            options: tolerance and max_newton of the steps, dt_initial the first of them, linear_tolerance, backend.

        Returns:
            A solution of one interval without end: psi [1, *grid.shape], fluxes [1, *side]; ``mass_balance_error`` is
            relative to ``water_moved``, which is a rate here, m3/s.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape, type, device or range; a Series of several
                intervals; compensated roots; an Atmosphere that lets water stand.
            SolveError: there is no steady state, as in a closed domain, or none was found.
        """
        from dgpde.steady import solve_steady

        return solve_steady(self.words, psi0, options)

    def plan(
        self,
        times: Times,
        options: SolveOptions = DEFAULTS,
        *,
        psi0: Value = -1.0,
        save: Save = "all",
        save_cells: object = None,
        ponding0: Value = 0.0,
        probe: int | None = None,
    ) -> Plan:
        """What a run would take: bytes of the forward run, its history, checkpoints and gradient.

        How many steps an adaptive run takes, and so how long its history grows, only a run can tell: some columns, or
        the first intervals of a field, are run forward, without history. With ``dt_fixed`` nothing is run of columns,
        and the first step of a field. Memory that the C library keeps of freed arrays is not in the plan.

        Args:
            times, options, save, save_cells, ponding0: as for ``solve``.
            psi0: as for ``solve``; of columns with ``dt_fixed`` only its type and device matter.
            probe: of columns, how many are run, default 64; they stand in groups of those that are solved together,
                spread evenly over the batch, and are rounded up to whole groups; all are run when there are no more.
                Of a field, how many intervals are run, default 1.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape, type, device or range.
            SolveError: the part of a field's run that is run could not go on.
        """
        from dgpde.checkpoint import plan_columns
        from dgpde.field_plan import plan_field

        field = self.words.engine == "field"
        if probe is None:
            probe = 1 if field else 64
        unit = "interval" if field else "column"
        if isinstance(probe, bool) or not isinstance(probe, int):
            raise TypeError(f"probe must be an integer number of {unit}s, not {type(probe).__name__}")
        if probe < 1:
            raise ValueError(f"probe must be at least 1 {unit}, it is {probe}")
        if field:
            return plan_field(self.words, psi0, times, options, save, save_cells, ponding0, probe)
        if save_cells is not None:
            raise ValueError(SAVE_CELLS)
        setup = set_up(self.words, psi0, times, options, save, ponding0)
        problem, inputs = setup.span(0, setup.problem.intervals, setup.problem.save)
        return plan_columns(problem, inputs | {"psi0": setup.psi0, "ponding0": setup.ponding0}, probe)

    def stream(
        self,
        path: str | Path,
        psi0: Value,
        times: Times,
        options: SolveOptions = DEFAULTS,
        *,
        save: Save = "all",
        save_cells: object = None,
        ponding0: Value = 0.0,
        block: int | None = None,
        progress: bool = False,
    ) -> Path:
        """Run without a graph, writing results to an HDF5 file as they come: they need not fit in memory.

        A run that is killed loses at most one block: ``resume(path)`` goes on from the last one, and the file
        is the same, bit for bit, as that of a run that was not stopped. Read it with ``Solution.from_hdf5``. Beside
        the file of a section or a domain stands one of that name ending in ``.xdmf``, for ParaView.

        Args:
            path: the HDF5 file; while the run is unfinished its blocks are in the folder ``<path>.parts``.
            psi0, times, options, save, save_cells, ponding0, progress: as for ``solve``.
            block: intervals computed and written at a time; default: as many as keep a block below 256 MB.

        Returns:
            The path of the finished file.

        Raises:
            FileExistsError: the file, or an unfinished run of that name, is there already.
            ValueError: an input requires a gradient (detach it, or call under ``torch.no_grad()``), or as
                ``solve``.
            SolveError: as ``solve``; the blocks before it are kept.
        """
        from dgpde.io.stream import parted, start

        if self.words.engine == "column" and save_cells is not None:
            raise ValueError(SAVE_CELLS)
        return start(parted(self, psi0, times, options, save, save_cells, ponding0), path, block, progress)

    def resume(
        self, path: str | Path, options: SolveOptions | None = None, *, progress: bool = False
    ) -> Path:
        """Go on with a run that ``stream`` began; the model must be the same as then, which is checked.

        Args:
            path: as given to ``stream``. A finished run is left as it is.
            options: other options for the rest of the run; default those that it began with.
            progress: show a bar on stderr.

        Raises:
            FileNotFoundError: no run of that name was begun.
            ValueError: the model or its forcing are not those of the run.
            SolveError: as ``solve``.
        """
        from dgpde.io.stream import resume

        return resume(self, path, options, progress)

    def blocks(self, setup: Setup, block: int, first: int = 0, dt0: Tensor | None = None) -> Iterator[Block]:
        """Compute a run a block of intervals at a time.

        The state handed on is psi, ponding and the next step of each column; the graph runs through it.

        Args:
            setup: the run; its psi0 and ponding0 are the state at ``first``.
            block: intervals at a time.
            first: the interval to begin with.
            dt0: [n] s, the step that each column tries first; None for ``options.dt_initial``.
        """
        from dgpde.kernels.column_flow.function import column_flow

        psi, ponding, total = setup.psi0, setup.ponding0, setup.problem.intervals
        while first < total:
            last = min(first + block, total)
            kept = kept_in(setup.problem.save, first, last)
            more = () if kept and kept[-1] == last - first else (last - first,)
            problem, inputs = setup.span(first, last, kept + more)
            inputs |= {"psi0": psi, "ponding0": ponding}
            if dt0 is not None:
                inputs["dt0"] = dt0
            result = column_flow(problem, inputs, problem.options.backend)
            psi, ponding, dt0 = result.psi[-1], result.ponding[-1], result.report.dt_next
            yield Block(first, last, replace(result, psi=result.psi[: len(kept)]) if more else result, psi)
            first = last

    def assemble(self, setup: Setup, parts: Sequence[ColumnResult]) -> Solution:
        """The solution of a whole run from the results of its blocks."""
        problem = setup.problem
        result = masked_after_failure(joined(parts), problem.times, problem.save)
        evaporation = None
        if isinstance(self.words.top, Atmosphere):
            rain = self.words.top.inputs(setup.frame, "top")["precipitation"]
            evaporation = actual_evaporation(result, rain, problem.times)
        return Solution(
            self.grid, problem.times, problem.save, result, soil=self.soil, evaporation=evaporation
        )

    def __repr__(self) -> str:
        sides = ", ".join(f"{side}={boundary!r}" for side, boundary in self.words.boundaries.items())
        return f"Richards({self.grid!r}, {self.soil!r}, {sides})"


def _check_boundaries(boundaries: Mapping[str, Boundary] | None, grid: Grid) -> dict[str, Boundary]:
    """A boundary for every side of the grid; a side that is not named is closed."""
    given = {} if boundaries is None else boundaries
    if not isinstance(given, Mapping):
        raise TypeError(f"boundaries must map names of sides to boundaries, it is a {type(given).__name__}")
    found: dict[str, Boundary] = {side: NoFlow() for side in grid.sides}
    there = ", ".join(repr(side) for side in grid.sides)
    what = "a column" if not grid.lateral else "a section" if len(grid.shape) == 2 else "a domain"
    for side, boundary in given.items():
        if side not in SIDES:
            raise ValueError(f"boundaries has the unknown side {side!r}; {what} has {there}")
        if side not in found:
            raise ValueError(f"boundaries names {side!r}, but {what} has only {there}")
        if not isinstance(boundary, Boundary):
            raise TypeError(
                f"boundaries[{side!r}] must be a boundary such as Flux, not {type(boundary).__name__}"
            )
        if side not in boundary.sides:
            raise ValueError(
                f"boundaries[{side!r}] is a {type(boundary).__name__}, which can stand only at: "
                f"{', '.join(boundary.sides)}"
            )
        found[side] = boundary
    return found


def _check_sources(
    sources: Sequence[Sources], grid: Grid, engine: str
) -> tuple[RootUptake | None, tuple[Source, ...], tuple[Well, ...], tuple[River, ...]]:
    """The root uptake, if any, the sources, the wells and the rivers."""
    kinds = RootUptake | Source | Well | River
    if isinstance(sources, kinds) or not isinstance(sources, Sequence):
        raise TypeError(
            f"sources must be a list of Source, Well and RootUptake, it is a {type(sources).__name__}"
        )
    for k, source in enumerate(sources):
        if not isinstance(source, kinds):
            raise TypeError(
                f"sources[{k}] must be a Source, a Well or a RootUptake, not {type(source).__name__}"
            )
        if isinstance(source, Well | River) and engine == "column":
            raise ValueError(
                f"sources[{k}] is a {type(source).__name__}, which stands in a section or a domain; use Source here"
            )
    roots = [source for source in sources if isinstance(source, RootUptake)]
    if len(roots) > 1:
        raise ValueError(f"sources holds {len(roots)} RootUptake; a column has one root system: combine them")
    wells = tuple(source for source in sources if isinstance(source, Well))
    rivers = tuple(source for source in sources if isinstance(source, River))
    kinds_of_place: tuple[Sequence[Well | River], ...] = (wells, rivers)
    for places in kinds_of_place:
        for k, place in enumerate(places):
            cells = place.flat(grid.shape)
            if grid.active is not None and not bool(grid.active.flatten()[cells].all()):
                raise ValueError(f"cells of {type(place).__name__} {k} holds a cell that is not active")
    others = tuple(source for source in sources if isinstance(source, Source))
    return (roots[0] if roots else None), others, wells, rivers
