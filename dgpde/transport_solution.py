"""What a run of transport gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgpde.grid import Grid

if TYPE_CHECKING:
    import xarray

Names = dict[str, Tensor]

STATUS_TEXT = {
    0: "finished",
    1: "the nonlinear solve of a step did not converge; shorten the steps of the flow (dt_max, time_error)",
    2: "a value that is not finite came up in the solve; check the parameters and the water of this column",
    3: "the flow run that it rides on had failed there",
    4: "the immobile water (Immobile theta) leaves no mobile water; lower it below the water content of the run",
}


@dataclass(frozen=True)
class Mass:
    """Solute held, [T + 1, (solutes,) n] for columns [kg/m2]; else, and with a reaction, [T + 1, (solutes,) 1] [kg]."""

    dissolved: Tensor
    sorbed: Tensor
    immobile: Tensor  # dissolved in the immobile water

    @property
    def total(self) -> Tensor:
        """All of it."""
        return self.dissolved + self.sorbed + self.immobile


class TransportSolution:
    """The trajectory of the solutes over the T intervals of a run of water, carrying the gradients of the inputs.

    ``(solutes,)`` below is there when ``Transport`` was given a list of solutes, with their number, and absent when it
    was given one ``Solute``. After the time at which a column failed (only with ``on_failure="return"``) its values
    are NaN. Differentiable are concentration, solute_flux and what follows from them.

    Attributes:
        grid: the grid.
        times: [T + 1] output times, s, float64 on the CPU.
        names: of the solutes.
        concentration: [T + 1, (solutes,) *grid.shape] of the (mobile) water, kg/m3.
        solute_flux: for every side of the grid, [T, (solutes,) *side] kg m-2 s-1: means over each interval, positive
            into the domain.
        mass: what the water and the solid hold at the output times; no gradient flows through it (sum the
            concentrations for one).
        mass_balance_error: [(solutes,) n] |change of mass - what went in and out and reacted| / what moved; for
            sections and domains, and with a reaction, [(solutes,) 1].
        mass_moved: [(solutes,) n] sum of the magnitudes of all exchanges [kg/m2].
        status: [n] int32, 0 where the column finished; ``reason(column)`` in words.
        failed_time: [n] s, NaN where the column finished.
        iterations: [n] int64, linear solves of all steps and solutes.
    """

    def __init__(
        self,
        grid: Grid,
        times: Tensor,
        names: tuple[str, ...],
        *,
        concentration: Tensor,
        solute_flux: Names,
        mass: Mass,
        mass_balance_error: Tensor,
        mass_moved: Tensor,
        status: Tensor,
        failed_time: Tensor,
        iterations: Tensor,
    ) -> None:
        self.grid, self.times, self.names = grid, times, names
        self.concentration, self.solute_flux, self.mass = concentration, solute_flux, mass
        self.mass_balance_error, self.mass_moved = mass_balance_error, mass_moved
        self.status, self.failed_time, self.iterations = status, failed_time, iterations

    def reason(self, column: int) -> str:
        """What happened to a column, in words."""
        return STATUS_TEXT[int(self.status[column])]

    def of(self, name: str) -> Tensor:
        """Concentration [T + 1, *grid.shape] of one solute by its name, kg/m3."""
        if name not in self.names:
            raise ValueError(f"name is {name!r}; the solutes are {', '.join(self.names)}")
        if self.concentration.dim() == 1 + len(self.grid.shape):
            return self.concentration
        return self.concentration[:, self.names.index(name)]

    def breakthrough(self, z: float) -> Tensor:
        """Concentration at an elevation of columns over time, [T + 1, (solutes,) n] kg/m3; linear between centres.

        Args:
            z: elevation [m] as the grid counts it, between its lowest and its highest face; beyond the outermost
                centres the concentration is that of the outermost cell.

        Raises:
            TypeError, ValueError: z is no number or not within the grid; the grid is not one of columns.
        """
        if self.grid.lateral:
            raise ValueError(
                "grid is a section or a domain: index concentration at the cells that are wanted"
            )
        if isinstance(z, bool) or not isinstance(z, int | float):
            raise TypeError(f"z must be a number, not {type(z).__name__}")
        faces, centres = self.grid.z_faces, self.grid.z.flatten()
        low, high = faces[0].item(), faces[-1].item()
        if not low <= z <= high:
            raise ValueError(f"z must lie between {low:g} and {high:g} m, the faces of the grid; it is {z:g}")
        upper = int(torch.searchsorted(centres, z).clamp(0, centres.numel() - 1))
        lower = max(upper - 1, 0)
        if upper == lower or z >= centres[upper].item():
            return self.concentration[..., upper, :]
        share = (z - centres[lower].item()) / (centres[upper] - centres[lower]).item()
        below, above = self.concentration[..., lower, :], self.concentration[..., upper, :]
        return below + share * (above - below)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Centre [m] and variance [m2] of the concentration along z of columns, [T + 1, (solutes,) n] each.

        They are NaN where there is no solute.
        """
        if self.grid.lateral:
            raise ValueError("grid is a section or a domain: moments are there for columns")
        c = self.concentration
        weight = c * self.grid.dz.to(c)[:, None]
        z = self.grid.z.to(c)
        total = weight.sum(-2)
        centre = (weight * z).sum(-2) / total
        variance = (weight * (z - centre[..., None, :]).square()).sum(-2) / total
        return centre, variance

    def to_hdf5(self, path: str | Path) -> None:
        """Write the solution to an HDF5 file, with units; see ``dgpde.io.transport``. Gradients are not kept."""
        from dgpde.io.transport import write_transport

        write_transport(path, self)

    @classmethod
    def from_hdf5(
        cls, path: str | Path, *, columns: Sequence[int] | slice | None = None
    ) -> TransportSolution:
        """Read what ``to_hdf5`` wrote; ``columns`` picks some of them."""
        from dgpde.io.transport import read_transport

        return read_transport(path, columns=columns)

    def to_xdmf(self, path: str | Path) -> None:
        """Write a section or a domain for ParaView: an XDMF file with a scalar a solute, named as the solute.

        Args:
            path: the XDMF file; the values go to the file of that name that ends in ``.h5``, which is what
                ``to_hdf5`` writes and ``from_hdf5`` reads.

        Raises:
            ValueError: the run is one of columns, which have no place in space, or ``path`` ends in ``.h5``.
        """
        from dgpde.io.transport import write_transport_xdmf

        write_transport_xdmf(path, self)

    def to_xarray(self) -> xarray.Dataset:
        """The solution as an xarray Dataset with coordinates and units; xarray must be installed."""
        from dgpde.io.transport import transport_to_xarray

        return transport_to_xarray(self)

    def __repr__(self) -> str:
        failed = int((self.status != 0).sum())
        end = "all finished" if failed == 0 else f"{failed} failed"
        return f"TransportSolution({', '.join(self.names)}; {self.grid!r}, {self.times.numel() - 1} intervals, {end})"
