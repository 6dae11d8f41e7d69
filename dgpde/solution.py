"""What a run gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.kernels.column_flow.problem import STATUS_TEXT, ColumnResult, Report
from dgpde.soil import Soil

if TYPE_CHECKING:
    import xarray

    from dgpde.trajectory import FieldRun

Names = dict[str, Tensor]


@dataclass(frozen=True)
class Stats:
    """Work done for each column ([n]) or for the field ([1]), over the whole run. Integer tensors."""

    steps: Tensor  # accepted steps
    newton_iterations: Tensor  # each of them one linear solve, in columns a direct one
    cuts: Tensor  # steps shortened because Newton failed
    rejections: Tensor  # steps repeated because of their truncation error
    restarts: Tensor  # Newton restarts from the wet side
    step_sizes: list[Tensor] | None = None  # T tensors [m, n] s, zero padded; with options.record_steps
    linear_iterations: Tensor | None = None  # of the field engine's linear solver

    def __repr__(self) -> str:
        sums = (f"{entry.name}={int(getattr(self, entry.name).sum())}" for entry in fields(self)[:5])
        return f"Stats({', '.join(sums)}, summed over {self.steps.numel()} columns)"


@dataclass(frozen=True)
class FieldResult:
    """What the field engine returns, in the shapes of the grid; see ``Solution`` for the quantities."""

    psi: Tensor
    ponding: Tensor
    boundary_flux: Names
    runoff: Tensor
    uptake: Tensor
    report: Report


class Solution:
    """The trajectory of n columns, a section or a domain over T intervals, carrying the gradients of the inputs.

    After the time at which a column failed (only with ``on_failure="return"``) its values are NaN. What has a
    value for each column has a single one, [1], for a section or a domain, whose cells stand or fall together;
    where [n] is a place on the surface it is the shape of the top, [nx] or [ny, nx].

    Attributes:
        grid: the grid.
        times: [T + 1] output times, s, float64 on the CPU.
        saved: indices into ``times`` of the psi that was kept (all of them unless ``save`` said otherwise).
        cells: [m] flat indices of the cells that were kept, with ``save_cells``; None for all.
        psi: [len(saved), *grid.shape] pressure head, m; [len(saved), m] with ``save_cells``.
        boundary_flux: for every side of the grid, [T, *side] m/s: means over each interval, positive into the
            soil; zeros for a closed side.
        runoff: [T, n] water that left over the surface, m/s.
        uptake: [T, n] water taken by roots, m/s.
        evaporation: [T, n] actual evaporation of the surface, m/s; None unless the top is an Atmosphere.
        ponding: [T + 1, n] water standing on the surface, m.
        status: [n] int32, 0 where the column finished; ``reason(column)`` in words.
        failed_time: [n] s, NaN where the column finished.
        mass_balance_error: [n] |storage change - what went in and out| / water_moved.
        water_moved: [n] m, the sum of the magnitudes of all exchanges.
        stats: steps, iterations, cuts per column.
        dt_next: [n] s, the step that the run would have tried next.
        ride: what a ``Transport`` walks the steps of the run by; None where there is nothing to walk.
    """

    def __init__(
        self,
        grid: Grid,
        times: Tensor,
        saved: Sequence[int],
        result: ColumnResult | FieldResult,
        *,
        soil: Soil | None = None,
        theta: Tensor | None = None,
        saturation: Tensor | None = None,
        evaporation: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> None:
        report = result.report
        self.grid, self.times, self.saved = grid, times, tuple(saved)
        self.psi, self.ponding = result.psi, result.ponding
        self.boundary_flux: Names = result.boundary_flux
        self.cells = cells
        self.runoff, self.uptake, self.evaporation = result.runoff, result.uptake, evaporation
        self.status, self.failed_time = report.status, report.failed_time
        self.mass_balance_error, self.water_moved = report.mass_balance_error, report.water_moved
        self.dt_next = report.dt_next
        self.stats = Stats(
            report.steps,
            report.newton_iterations,
            report.cuts,
            report.rejections,
            report.restarts,
            report.step_sizes,
            report.linear_iterations,
        )
        # The run itself and its inputs, of the field engine: transport rides on its steps.
        self.field_run: tuple[FieldRun, Names] | None = None
        self._soil, self._theta, self._saturation = soil, theta, saturation
        self.ride = result.ride if isinstance(result, ColumnResult) else None

    @property
    def theta(self) -> Tensor:
        """Water content [-], shaped like psi, evaluated from it when it is first asked for."""
        if self._theta is None:
            # A failed column has no theta after its failure; its nan must not reach, as 0 * nan, the gradient of
            # parameters that it shares with the others.
            lost = self.psi.isnan()
            some = bool(lost.any())
            psi = torch.where(lost, torch.zeros_like(self.psi), self.psi) if some else self.psi
            theta = self._theta_of("theta", psi)
            self._theta = torch.where(lost, torch.full_like(theta, torch.nan), theta) if some else theta
        return self._theta

    @property
    def saturation(self) -> Tensor:
        """Water content over that at psi = 0 [-], shaped like psi; 1 below a water table."""
        if self._saturation is None:
            self._saturation = self.theta / self._theta_of("saturation", torch.zeros_like(self.psi[:1]))
        return self._saturation

    def theta_at_saturation(self) -> Tensor:
        """Water content at psi = 0, [*grid.shape]."""
        return self._theta_of("theta_at_saturation", self.psi.new_zeros(self.grid.shape))

    def _theta_of(self, name: str, psi: Tensor) -> Tensor:
        """Water content at some psi in the cells that are kept."""
        if self._soil is None:
            raise ValueError(
                f"{name} is not stored in this solution, and it holds no soil to compute it from psi"
            )
        if self.cells is None:
            return self._soil.theta(psi)
        return self._soil.theta_of_cells(psi, self.cells, self.grid.shape)

    @property
    def boundary_total(self) -> Names:
        """For every side of a section or a domain, [T] m3/s (of a section m2/s): the flux times the area of its
        faces, summed.
        """
        return {
            side: (flux * self.grid.side_area(side).to(flux)).flatten(1).sum(1)
            for side, flux in self.boundary_flux.items()
        }

    @property
    def saved_times(self) -> Tensor:
        """[len(saved)] the times of psi and theta, s."""
        return self.times[list(self.saved)]

    def reason(self, column: int) -> str:
        """What happened to a column, in words."""
        return STATUS_TEXT[int(self.status[column])]

    def series(self) -> Names:
        """The results of shape [T, n] (fluxes of sides: [T, *side]) by name, all m/s: what files and tables hold."""
        found = {f"{side}_flux": flux for side, flux in self.boundary_flux.items()}
        found |= {"runoff": self.runoff, "uptake": self.uptake}
        if self.evaporation is not None:
            found["evaporation"] = self.evaporation
        return found

    def report(self) -> Report:
        """The report of the run, as the kernels gave it."""
        stats = self.stats
        return Report(
            self.status,
            self.failed_time,
            stats.steps,
            stats.newton_iterations,
            stats.cuts,
            stats.rejections,
            stats.restarts,
            self.mass_balance_error,
            self.water_moved,
            self.dt_next,
            stats.step_sizes,
            stats.linear_iterations,
        )

    def to_hdf5(self, path: str | Path, *, theta: bool = True) -> None:
        """Write the solution to an HDF5 file, with units; see ``dgpde.io.hdf5``. Gradients are not kept."""
        from dgpde.io.hdf5 import write_solution

        write_solution(path, self, theta=theta)

    def to_xdmf(self, path: str | Path, *, theta: bool = True) -> None:
        """Write a section or a domain for ParaView: an XDMF file that describes an HDF5 file beside it.

        Args:
            path: the XDMF file; the values go to the file of that name that ends in ``.h5``, which is what
                ``to_hdf5`` writes and ``from_hdf5`` reads.
            theta: write water content and saturation beside the pressure head (default).

        Raises:
            ValueError: the run is one of columns, which have no place in space, or ``path`` ends in ``.h5``.
        """
        from dgpde.io.xdmf import write_xdmf

        write_xdmf(path, self, theta=theta)

    @classmethod
    def from_hdf5(cls, path: str | Path, *, columns: Sequence[int] | slice | None = None) -> Solution:
        """Read what ``to_hdf5`` or ``Richards.stream`` wrote; ``columns`` picks some of them."""
        from dgpde.io.hdf5 import read_solution

        return read_solution(path, columns=columns)

    def to_xarray(self) -> xarray.Dataset:
        """The solution as an xarray Dataset with coordinates and units; xarray must be installed."""
        from dgpde.io.xarray import to_xarray

        return to_xarray(self)

    def __repr__(self) -> str:
        failed = int((self.status != 0).sum())
        end = "all finished" if failed == 0 else f"{failed} failed"
        size = " x ".join(map(str, self.grid.shape)) if self.grid.lateral else ""
        size = f"{size} cells" if size else f"{self.grid.n} columns x {self.grid.nz} cells"
        return f"Solution({size}, {self.times.numel() - 1} intervals, {end})"


def masked_after_failure(result: ColumnResult, times: Tensor, saved: Sequence[int]) -> ColumnResult:
    """The result with NaN in every value of a failed column that belongs to a time after its failure.

    A column that cannot go on keeps its last state in the kernels; as a result that would be a lie.
    """
    failed = result.report.failed_time.to(result.psi.device)
    if not bool((result.report.status != 0).any()):
        return result
    seconds = times.to(failed.device)
    # NaN compares false: columns that finished lose nothing.
    late = seconds[:, None] > failed[None, :]  # [T + 1, n]

    def mask(value: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, torch.full((), torch.nan, dtype=value.dtype, device=value.device), value)

    return ColumnResult(
        psi=mask(result.psi, late[list(saved), None, :]),
        ponding=mask(result.ponding, late),
        top_flux=mask(result.top_flux, late[1:]),
        bottom_flux=mask(result.bottom_flux, late[1:]),
        runoff=mask(result.runoff, late[1:]),
        uptake=mask(result.uptake, late[1:]),
        report=result.report,
        ride=result.ride,
    )


def actual_evaporation(result: ColumnResult | FieldResult, precipitation: Tensor, times: Tensor) -> Tensor:
    """Evaporated water [t, *top], m/s, from the surface's balance: P - inflow - runoff - change of ponding."""
    dt = times.diff().to(result.ponding).reshape(-1, *[1] * (result.ponding.dim() - 1))
    inflow = result.boundary_flux["top"]
    return precipitation - inflow - result.runoff - result.ponding.diff(dim=0) / dt


def joined(parts: Sequence[ColumnResult]) -> ColumnResult:
    """The results of consecutive blocks as those of one run."""
    if len(parts) == 1:
        return parts[0]
    return ColumnResult(
        psi=torch.cat([part.psi for part in parts]),
        ponding=torch.cat([parts[0].ponding[:1], *[part.ponding[1:] for part in parts]]),
        top_flux=torch.cat([part.top_flux for part in parts]),
        bottom_flux=torch.cat([part.bottom_flux for part in parts]),
        runoff=torch.cat([part.runoff for part in parts]),
        uptake=torch.cat([part.uptake for part in parts]),
        report=joined_report([part.report for part in parts]),
    )


def joined_report(reports: Sequence[Report]) -> Report:
    """The report of a run from its blocks: a column's first failure counts, work and errors add up.

    The mass balance errors of the blocks add up in magnitude, so that theirs is an upper bound of the run's.
    """
    total = reports[0]
    for report in reports[1:]:
        went_on = total.status == 0
        moved = total.water_moved + report.water_moved
        lost = total.mass_balance_error * total.water_moved + report.mass_balance_error * report.water_moved
        larger = torch.maximum(total.mass_balance_error, report.mass_balance_error)
        linear = None
        if total.linear_iterations is not None and report.linear_iterations is not None:
            linear = total.linear_iterations + report.linear_iterations
        steps = None
        if total.step_sizes is not None and report.step_sizes is not None:
            steps = total.step_sizes + report.step_sizes
        total = Report(
            status=torch.where(went_on, report.status, total.status),
            failed_time=torch.where(went_on, report.failed_time, total.failed_time),
            steps=total.steps + report.steps,
            newton_iterations=total.newton_iterations + report.newton_iterations,
            cuts=total.cuts + report.cuts,
            rejections=total.rejections + report.rejections,
            restarts=total.restarts + report.restarts,
            mass_balance_error=torch.where(moved > 0, lost / moved, larger),
            water_moved=moved,
            dt_next=report.dt_next,
            step_sizes=steps,
            linear_iterations=linear,
        )
    return total
