"""The systems of `benchmarks.linear` by conjugate gradients with a preconditioner of a package from PyPI.

icc0: incomplete Cholesky factors without fill (ilupp), conjugate gradients of SciPy.
ruge-stuben, smoothed-aggregation: algebraic multigrid of PyAMG with its defaults, one V cycle an iteration.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from benchmarks import linear
from benchmarks.measure import Measurement, Timing, one_core, peak_memory, timed

Solve = Callable[[scipy.sparse.csr_matrix, NDArray[np.float64]], tuple[NDArray[np.float64], int]]


def matrix(c: NDArray[np.float64]) -> scipy.sparse.csr_matrix:
    """Compressed rows from the coefficients [7, nz, ny, nx] of a symmetric stencil."""
    _, _, ny, nx = c.shape
    upper = [(c[6], 1), (c[4], nx), (c[2], ny * nx)]
    bands, offsets = [c[0].ravel()], [0]
    for values, offset in upper:
        bands += [values.ravel()[:-offset]] * 2
        offsets += [offset, -offset]
    result = scipy.sparse.diags(bands, offsets, format="csr")
    result.eliminate_zeros()
    return result


def icc0(a: scipy.sparse.csr_matrix, b: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Solution and iterations."""
    import ilupp

    count = 0

    def one_more(_: object) -> None:
        nonlocal count
        count += 1

    factors = ilupp.IChol0Preconditioner(a)
    x, _ = scipy.sparse.linalg.cg(a, b, rtol=linear.TOLERANCE, M=factors, callback=one_more, maxiter=5000)
    return x, count


def multigrid(build: str) -> Solve:
    """A hierarchy of PyAMG by the name of its function, inside conjugate gradients."""

    def solve(a: scipy.sparse.csr_matrix, b: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        import pyamg

        residuals: list[float] = []
        hierarchy = getattr(pyamg, build)(a)
        x = hierarchy.solve(b, tol=linear.TOLERANCE, accel="cg", residuals=residuals, maxiter=1000)
        return x, len(residuals) - 1

    return solve


METHODS: dict[str, tuple[str, Solve]] = {
    "icc0": ("ilupp", icc0),
    "ruge-stuben": ("pyamg", multigrid("ruge_stuben_solver")),
    "smoothed-aggregation": ("pyamg", multigrid("smoothed_aggregation_solver")),
}


def main() -> None:
    """Check, then time, then print the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, required=True)
    parser.add_argument("--system", choices=sorted(linear.CHECK), required=True)
    parser.add_argument("--method", choices=sorted(METHODS), required=True)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    one_core()
    system = linear.system(options.system)
    a, b = matrix(system.coefficients()), system.rhs.ravel()
    if options.columns != system.rhs[0].size:
        raise ValueError(f"columns: the {options.system} has {system.rhs[0].size}, not {options.columns}")
    package, solve = METHODS[options.method]
    memory = {"start": peak_memory()}
    timing = Timing()
    found: tuple[Any, int] = timed(lambda: solve(a, b), timing)
    memory["forward"] = peak_memory()
    residual = float(np.linalg.norm(b - a @ found[0]) / np.linalg.norm(b))
    # the packages stop by norms of their own, so the check of the values is left to decide
    checks = linear.check(options.system, found[0], min(residual, linear.TOLERANCE)) | {"residual": residual}
    for _ in range(options.repeats - 1):
        timed(lambda: solve(a, b), timing)
    measurement = Measurement(
        forward=timing.summary(),
        backward=None,
        gradient=None,
        peak_memory=memory,
        cell_steps=float(b.size),
        newton_iterations=float(found[1]),
        checks=checks,
        extra={"version": f"{package} {metadata.version(package)}, {options.method}"},
    )
    print(json.dumps(measurement.as_dict()))


if __name__ == "__main__":
    main()
