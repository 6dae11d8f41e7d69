"""Complete jobs on measured data: `python -m dgpde demo` runs them.

maricopa    64 irrigated cotton plots, neutron-probe moisture: soils per plot and layer, withheld dates and plots
uscrn       weather stations with soil-moisture probes: soils per station and layer, withheld months
tables      the files of `dgpde/data` as tensors
crop        FAO-56 dual crop coefficients, root growth
soils       priors from the catalogue, the transformed parameter space, the map from a plot to its soil
fit         the training loop
score       baselines and the table of errors
"""

from __future__ import annotations

from pathlib import Path

SITES = ("maricopa", "uscrn")


def run_demo(site: str = "maricopa", output: str | Path | None = None, iterations: int | None = None) -> Path:
    """Run a demonstration and return the folder of its results.

    Args:
        site: `maricopa` or `uscrn`.
        output: folder for figures, table and HDF5 result; made if it is not there. Default `out/demo-<site>`.
        iterations: number of optimiser steps; None takes the demonstration's own.

    Raises:
        ValueError: `site` is not known, or `iterations` is negative.
    """
    if site not in SITES:
        raise ValueError(f"site {site!r} is not known; choose one of {', '.join(SITES)}")
    if iterations is not None and iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}; 0 gives the prior soil only")
    folder = Path(output) if output is not None else Path("out") / f"demo-{site}"
    folder.mkdir(parents=True, exist_ok=True)
    if site == "maricopa":
        from dgpde.demos import maricopa

        maricopa.run(folder, iterations)
    else:
        from dgpde.demos import uscrn

        uscrn.run(folder, iterations)
    return folder
