"""The reference cases of sections and domains: Tracy's exact solutions, and drawdown around a well."""

from __future__ import annotations

import math

import numpy as np
import torch
from references.cases import Array, read, table

import dgpde

# Weights, wave numbers (in pi/L) and shapes of the modes of the head that is given on the top of each case.
MODES = {
    "P4_tracy2d_no_flux_lateral": [(0.5, 0, np.cos), (-0.5, 2, np.cos)],
    "P4_tracy2d_specified_head_sin": [(1.0, 1, np.sin)],
    "P4_tracy2d_specified_head_sin3": [(0.75, 1, np.sin), (-0.25, 3, np.sin)],
    "P4_tracy2d_specified_head_sin_mild": [(1.0, 1, np.sin)],
    "P4_tracy3d": [(1.0, 1, np.sin)],
}


class Tracy:
    """Tracy 2006, Water Resour. Res. 42, W08503: exact transient solutions for a Gardner soil.

    The series is that of the case's ``exact_solution``; ``exact`` is checked against the case's own table.
    """

    def __init__(self, name: str) -> None:
        self.name, self.case = name, read(name)
        soil = self.case["soil"]
        self.alpha, self.k_sat = soil["alpha_1_per_m"], soil["Ks_m_per_s"]
        self.theta_r, self.theta_s = soil["theta_r"], soil["theta_s"]
        self.length = self.case["domain"]["x_m"][1]
        self.dry = -15.24
        self.eps = math.exp(self.alpha * self.dry)
        self.domain = "y_m" in self.case["domain"]

    def _column(self, mu2: float, z: Array, time: float) -> Array:
        """Z(z, t) of a mode."""
        length, b = self.length, math.sqrt(self.alpha**2 / 4.0 + mu2)
        c = self.alpha * (self.theta_s - self.theta_r) / self.k_sat
        k = np.arange(1, 2001)[:, None]
        lam = k * np.pi / length
        g = (b**2 + lam**2) / c
        series = ((-1.0) ** k * lam / g * np.sin(lam * z.reshape(1, -1)) * np.exp(-g * time)).sum(0)
        shape = np.sinh(b * z) / np.sinh(b * length) + 2.0 / (length * c) * series.reshape(z.shape)
        return np.exp(self.alpha * (length - z) / 2.0) * shape

    def surface(self, x: Array, y: Array | None = None) -> Array:
        """Head on the top, m."""
        return np.log(self.eps + self._sum(x, y, lambda mu2: np.ones(()))) / self.alpha

    def exact(self, z: Array, x: Array, y: Array | None, time: float) -> Array:
        """psi, m, at points that broadcast."""
        return np.log(self.eps + self._sum(x, y, lambda mu2: self._column(mu2, z, time))) / self.alpha

    def _sum(self, x: Array, y: Array | None, column: object) -> Array:
        total = 0.0
        for weight, number, shape in MODES[self.name]:
            mu2 = (number * np.pi / self.length) ** 2
            across = shape(number * np.pi * x / self.length)
            if y is not None:
                mu2, across = 2.0 * mu2, across * np.sin(np.pi * y / self.length)
            total = total + weight * across * column(mu2)  # type: ignore[operator]
        return (1.0 - self.eps) * total

    def model(self, n: int, face_mean: str) -> tuple[dgpde.Richards, torch.Tensor]:
        """The case on n cells along each axis, and its initial state."""
        size = self.length / n
        shape = (n, n, n) if self.domain else (n, n)
        grid = dgpde.Grid(shape, [size] * len(shape))
        x = (np.arange(n) + 0.5) * size
        top = self.surface(x[None, :], x[:, None]) if self.domain else self.surface(x)
        boundaries: dict[str, dgpde.Boundary] = {
            "top": dgpde.Head(torch.from_numpy(top)),
            "bottom": dgpde.Head(self.dry),
        }
        if "no_flux" not in self.name:
            boundaries |= {side: dgpde.Head(self.dry) for side in grid.sides[2:]}
        soil = dgpde.Gardner(self.theta_r, self.theta_s, self.alpha, self.k_sat)
        return dgpde.Richards(grid, soil, boundaries, face_mean=face_mean), torch.full(
            shape, self.dry
        ).double()

    def errors(self, psi: Array, time: float) -> dict[str, float]:
        """Of cell values, as the case's own calibration takes them."""
        n = psi.shape[0]
        centre = (np.arange(n) + 0.5) * self.length / n
        if self.domain:
            exact = self.exact(centre[:, None, None], centre[None, None, :], centre[None, :, None], time)
        else:
            exact = self.exact(centre[:, None], centre[None, :], None, time)
        off = np.abs(psi - exact)
        dried = np.abs(np.exp(self.alpha * psi) - np.exp(self.alpha * exact))
        return {"psi_max_m": off.max(), "psi_mean_m": off.mean(), "exp_alpha_psi_max": dried.max()}


def drawdown(time: float) -> tuple[Array, Array]:
    """Distances from the well along x [m], and the drawdown there between fixed heads [m]."""
    data = table("P6", "drawdown.csv")
    rows = (data["t_s"] == time) & (data["y_m"] == 0.0)
    return data["x_m"][rows], data["s_block_head"][rows]
