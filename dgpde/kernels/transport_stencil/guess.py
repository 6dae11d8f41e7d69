"""First guesses for the multipliers of one solute, from those of the steps after."""

from __future__ import annotations

from torch import Tensor

from dgpde.forecast import Forecast, Length, Projection
from dgpde.kernels.transport_stencil.pieces import equal
from dgpde.kernels.transport_stencil.problem import Network


class Guess:
    """While the matrix stays the same, the best combination of the multipliers that are known; else a parabola in time.

    Where it is told to be the same depends on the numbers in it alone, so that a run whose steps are taken again begins
    its solves where one that keeps them does.
    """

    def __init__(self) -> None:
        self.forecast, self.projection = Forecast(), Projection()
        self.network: Network | None = None
        self.matrix: tuple[Tensor | None, ...] = ()

    def start(self, network: Network, load: Tensor, dt: Length) -> Tensor | None:
        """For the transposed system that ``network`` was handed last; None when nothing is known."""
        matrix = network.held  # type: ignore[attr-defined]
        if self.network is not network or not equal(self.matrix, matrix):
            self.projection = Projection()
        self.network, self.matrix = network, matrix
        start = self.projection.guess(load)
        return self.forecast.guess(dt) if start is None else start

    def add(self, load: Tensor, dt: Length, multiplier: Tensor) -> None:
        """Take the answer of that system."""
        self.projection.add(load, multiplier)
        self.forecast.add(dt, multiplier)
