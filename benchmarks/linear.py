"""Three symmetric systems of flow in heterogeneous ground, from cell-centred two-point fluxes with harmonic means.

slab: 128 x 128 x 40 cells of 10 x 10 x 0.25 m, steady, heads 1 and 0 on the faces at x = 0 and at the far end.
step: the same slab without the heads and with a time term of 0.05 1/m over 3600 s; a random right-hand side.
cube: 96^3 cells of 1 m, steady, the same heads; ln K varies more.

K is exp of a smooth Gaussian field. A size is the number of columns. Only numpy and scipy are imported here, so that
every baseline can share the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Field = NDArray[np.float64]

TOLERANCE = 1e-8  # ||b - A x|| / ||b||
CHECK_TOLERANCE = 1e-6  # relative; the values below have seven digits or more
#: Mean of x and its value in the middle of memory, on which hypre, PETSc and PyAMG agree.
CHECK = {
    "slab": {"mean": 0.5122266, "middle": 0.9977285},
    "step": {"mean": 1.6751761e-05, "middle": -1.0982195e-03},
    "cube": {"mean": 0.4680612, "middle": 0.9796449},
}


@dataclass(frozen=True)
class System:
    """Conductances of the faces [m2/s] across z, y and x, what is added to the diagonal, and the right-hand side."""

    tz: Field  # [nz - 1, ny, nx]
    ty: Field  # [nz, ny - 1, nx]
    tx: Field  # [nz, ny, nx - 1]
    extra: Field  # [nz, ny, nx]
    rhs: Field  # [nz, ny, nx]

    def coefficients(self) -> Field:
        """[7, nz, ny, nx]: diag, below, above, south, north, west, east."""
        c = np.zeros((7, *self.extra.shape))
        c[1, 1:] = c[2, :-1] = -self.tz
        c[3, :, 1:] = c[4, :, :-1] = -self.ty
        c[5, :, :, 1:] = c[6, :, :, :-1] = -self.tx
        c[0] = self.extra - c[1:].sum(0)
        return c


def system(name: str) -> System:
    """One of the three, by name."""
    if name == "cube":
        shape, sigma, corr, (dz, dy, dx) = (96, 96, 96), 2.0, (4, 4, 4), (1.0, 1.0, 1.0)
    else:
        shape, sigma, corr, (dz, dy, dx) = (40, 128, 128), 1.5, (2, 4, 4), (0.25, 10.0, 10.0)
    g = np.random.default_rng(1).standard_normal(shape)
    g = scipy.ndimage.gaussian_filter(g, sigma=corr, mode="wrap")
    k = 1e-5 * np.exp(sigma * (g - g.mean()) / g.std())

    def conductance(axis: int, area_by_distance: float) -> Field:
        a, b = np.delete(k, -1, axis), np.delete(k, 0, axis)
        return 2 * a * b / (a + b) * area_by_distance

    extra, rhs = np.zeros(shape), np.zeros(shape)
    if name == "step":
        volume = dz * dy * dx
        extra += 0.05 * volume / 3600.0
        rhs = np.random.default_rng(2).standard_normal(shape) * volume * 1e-7
    else:
        ends = 2 * dy * dz / dx
        extra[:, :, 0] += k[:, :, 0] * ends
        extra[:, :, -1] += k[:, :, -1] * ends
        rhs[:, :, 0] = k[:, :, 0] * ends
    faces = conductance(0, dy * dx / dz), conductance(1, dz * dx / dy), conductance(2, dz * dy / dx)
    return System(*faces, extra, rhs)


def check(name: str, x: Field, residual: float) -> dict[str, float]:
    """Relative errors of the check values, and the residual; raises AssertionError when one is too large."""
    found = {"mean": float(x.mean()), "middle": float(x.ravel()[x.size // 2])}
    errors = {key: abs(found[key] / value - 1.0) for key, value in CHECK[name].items()}
    wrong = [f"{key} by {error:.1e}" for key, error in errors.items() if not error <= CHECK_TOLERANCE]
    if not residual <= TOLERANCE:
        wrong.append(f"the residual is {residual:.1e}")
    if wrong:
        raise AssertionError(f"check values of the {name} are missed: {', '.join(wrong)}; nothing was timed")
    return errors | {"residual": residual}
