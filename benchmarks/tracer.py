"""A front of tracer in columns of steady water, for dgpde and for what a user would write instead.

100 cells of 1 cm, downward flow, upwind, dispersion, linear sorption, 200 equal steps of backward Euler over a day.
Every column has a flux and a dispersivity of its own; column 0 has those of the constants. Only numpy is imported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THETA, FLUX, SPREAD, SORBED = (
    0.35,
    2e-6,
    0.02,
    0.2,
)  # -, m/s downward, m, mass on the solid per volume and unit of c
NZ, DZ = 100, 0.01
STEPS, T_END = 200, 86400.0
DT = T_END / STEPS
TARGET = 0.5  # loss = sum of (c(t_end) - TARGET)^2 dz over all cells and columns

# Column 0, as dgpde and the PyTorch baseline agree on them.
CHECK = {"held": 0.1727999984, "c_30cm": 0.5372531476, "grad_spread": -1.2345707467}
CHECK_TOLERANCE = 1e-7


def columns(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux [m/s, downward] and dispersivity [m] of a batch, [count] each."""
    z = np.random.default_rng(seed).standard_normal((count, 2))
    z[0] = 0.0
    return FLUX * np.exp(0.3 * z[:, 0]), SPREAD * np.exp(0.3 * z[:, 1])


def check(found: dict[str, float]) -> dict[str, float]:
    """The relative error of each check value; raises AssertionError when one is too large."""
    errors = {name: abs(found[name] / CHECK[name] - 1.0) for name in CHECK}
    wrong = [f"{name} by {error:.1e}" for name, error in errors.items() if not error <= CHECK_TOLERANCE]
    if wrong:
        raise AssertionError(f"check values of the tracer are missed: {', '.join(wrong)}; nothing was timed")
    return errors
