"""The infiltration column of Celia, Bouloutas & Zarba (1990, Water Resour. Res. 26, 1483-1496), as a batch.

Water enters a dry 1 m column of their New Mexico soil through a fixed head at the top. 100 cells of 1 cm, one day
in 200 equal steps of backward Euler; face conductivity is the arithmetic mean; heads are fixed on the end faces.
Column 0 is that soil exactly; the others vary ln k_sat, alpha and n. z is up and cell 0 is the bottom one.

Only numpy is imported here, so that every baseline can share the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

K_SAT, ALPHA, N = 9.22e-5, 3.35, 2.0  # m/s, 1/m, -
THETA_R, THETA_S = 0.102, 0.368
NZ, LENGTH = 100, 1.0  # cells, m
STEPS, T_END = 200, 86400.0  # steps, s
PSI_TOP, PSI_INITIAL, PSI_BOTTOM = -0.75, -10.0, -10.0  # m
DZ, DT = LENGTH / NZ, T_END / STEPS
THETA_TARGET = 0.2  # loss = sum of (theta(t_end) - THETA_TARGET)^2 dz over all cells and columns

# Column 0: two independent codes, JAX and PyTorch, agree on all of these digits. Gradients are those of the loss
# with respect to ln k_sat (summed over the cells), alpha and n.
CHECK = {
    "water": 0.04129106522894,  # m taken up
    "psi_49.5cm": -1.38525645265,  # m
    "grad_ln_k_sat": -0.00268709767311,
    "grad_alpha": 0.00311366212718,
    "grad_n": 0.00578672063637,
}
CHECK_TOLERANCE = 1e-6  # relative; the published runs ended Newton at a change of 1e-6 m
MEAN_THETA = {1: 0.1512278, 64: 0.1509739, 1024: 0.153866}  # of the batch at the end, to the digits given
MEAN_THETA_TOLERANCE = 1e-6


def columns(
    count: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """ln k_sat [nz, count], alpha [count] (1/m) and n [count] of a batch."""
    z = np.random.default_rng(seed).standard_normal((count, 3))
    z[0] = 0.0
    ln_k_sat = np.broadcast_to(np.log(K_SAT) + 0.5 * z[:, 0], (NZ, count))
    return np.ascontiguousarray(ln_k_sat), ALPHA * np.exp(0.1 * z[:, 1]), N * np.exp(0.05 * z[:, 2])


def check(found: dict[str, float], count: int) -> dict[str, float]:
    """The relative error of each check value that was found; raises AssertionError when one is too large.

    `found` holds keys of CHECK and, under "mean_theta", the mean water content of the whole batch at the end.
    """
    errors = {name: abs(found[name] / CHECK[name] - 1.0) for name in CHECK if name in found}
    wrong = [f"{name} by {error:.1e}" for name, error in errors.items() if not error <= CHECK_TOLERANCE]
    if count in MEAN_THETA:
        errors["mean_theta"] = abs(found["mean_theta"] - MEAN_THETA[count])
        if not errors["mean_theta"] <= MEAN_THETA_TOLERANCE:
            wrong.append(f"mean_theta by {errors['mean_theta']:.1e}")
    if wrong:
        raise AssertionError(
            f"check values of the Celia column are missed: {', '.join(wrong)}; nothing was timed"
        )
    return errors
