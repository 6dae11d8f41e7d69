"""The water of the accepted steps of columns as tensors, for what carries solutes by PyTorch, and its derivatives.

Round r is the r-th accepted step of every column: columns take steps of their own, so that a round mixes times but
never columns. A column that has come to its end stands still in the rounds that are left: no water moves in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.column_transport.cpu import NativeWater

Arrays = dict[str, Tensor]
CELLS = ("theta", "taken", "elastic", "source")


class WaterTable:
    """The water of some intervals of a flow run.

    Args:
        water: of the intervals.
        nz, n: cells and columns.

    Attributes:
        count: number of rows; row 0 is the beginning, rounds are 1 ... count - 1.
        theta: [count, nz, n].
        flux: [count, nz + 1, n] m/s, positive up.
        taken, source: [count, nz, n] m/s by roots, from sources.
        dt: [count, n] s, 1 where a column stands still.
        interval: [count, n] among the intervals.
        live: [count, n] whether the column takes part.
        ends: [count, n] whether its step ends its interval.
    """

    def __init__(self, water: NativeWater, nz: int, n: int) -> None:
        self.water, self.count, self.nz, self.n = water, int(water.native.rows), nz, n
        steps = {"dt": torch.ones(self.count, n, dtype=torch.float64)}
        steps |= {name: torch.zeros(self.count, n, dtype=torch.int64) for name in ("interval", "ends")}
        steps |= {"counts": torch.zeros(n, dtype=torch.int64)}
        arrays = self._zeros()
        self._fill(arrays | steps, moves=False)
        number = torch.arange(self.count)[:, None]
        self.live, self.ends = number < steps["counts"], steps["ends"] != 0
        self.last = torch.minimum(number, steps["counts"] - 1)
        self.theta = self._held(arrays["theta"])
        self.flux, self.taken, self.source = arrays["flux"], arrays["taken"], arrays["source"]
        self.dt, self.interval = steps["dt"], steps["interval"]

    def _zeros(self) -> Arrays:
        cells = (self.count, self.nz, self.n)
        found = {name: torch.zeros(cells, dtype=torch.float64) for name in CELLS}
        return found | {"flux": torch.zeros(self.count, self.nz + 1, self.n, dtype=torch.float64)}

    def _fill(self, arrays: Arrays, moves: bool) -> None:
        at = {name: value.data_ptr() for name, value in arrays.items()}
        native_module().water_arrays(self.water.native, at, moves, torch.get_num_threads())

    def _held(self, theta: Tensor) -> Tensor:
        """theta of columns that stand still is that of their last row."""
        return theta.gather(0, self.last[:, None].expand(-1, self.nz, -1))

    def moves(self) -> Arrays:
        """Tangents of theta, flux, taken and source, 0 where nothing of the flow moves."""
        arrays = self._zeros()
        self._fill(arrays, moves=True)
        return arrays | {"theta": self._held(arrays["theta"])}

    def bars(self) -> Arrays:
        """Zeros for the cotangents of every row, ``before`` that of theta at the beginning of the step."""
        return self._zeros() | {"before": torch.zeros_like(self.theta)}

    def give(self, bars: Arrays, dz: Tensor) -> None:
        """Hand the cotangents to the flow's adjoint, those of the fluxes to what they follow from by continuity.

        dz (theta' - theta)/dt + flux above - flux below + taken + elastic - source = 0 from the bottom up; ``dz``
        [nz, 1] m.
        """
        above = bars["flux"][:, 1:].flip(1).cumsum(1).flip(1)
        filled = above * dz / self.dt[:, None]
        given = {
            "theta": bars["theta"] - filled,
            "before": bars["before"] + filled,
            "taken": bars["taken"] - above,
            "elastic": bars["elastic"] - above,
            "source": bars["source"] + above,
            "flux": torch.cat([bars["flux"][:, :1] + above[:, :1], bars["flux"][:, 1:]], 1),
        }
        at = {name: value.contiguous() for name, value in given.items()}
        native_module().water_cotangents(
            self.water.native, {name: value.data_ptr() for name, value in at.items()}, torch.get_num_threads()
        )
