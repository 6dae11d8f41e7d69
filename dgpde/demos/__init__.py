"""Complete jobs on measured data: `python -m dgpde demo` runs them.

maricopa    64 irrigated cotton plots, neutron-probe moisture: soils per plot and layer, withheld dates and plots
uscrn       weather stations with soil-moisture probes: soils per station and layer, withheld months
pumping     pumping tests: transmissivity and storativity from drawdown, two numbers and a field
vauclin     a rising water table in a slab of sand, simulated with the authors' own curves
bromide     a tracer through an unsaturated column: water content, dispersivity, immobile water
capecod     a plume in an aquifer: its spread fitted, and predicted from random fields of conductivity
watson      deuterium in a dry plot: soil and spread from probes and early cores, late cores predicted
tables      the files of `dgpde/data` as tensors
crop        FAO-56 dual crop coefficients, root growth
soils       priors from the catalogue, the transformed parameter space
fit         the training loop
score       baselines and the table of errors
least_squares   Levenberg-Marquardt on models whose Jacobian is one backward
"""

from __future__ import annotations

import importlib
from pathlib import Path

SITES = ("maricopa", "uscrn", "pumping", "vauclin", "bromide", "capecod", "watson")


def run_demo(site: str = "maricopa", output: str | Path | None = None, iterations: int | None = None) -> Path:
    """Run a demonstration and return the folder of its results.

    Args:
        site: one of `SITES`.
        output: folder for figures, table and HDF5 result; made if it is not there. Default `out/demo-<site>`.
        iterations: number of optimiser steps; None takes the demonstration's own. `vauclin` fits nothing.

    Raises:
        ValueError: `site` is not known, or `iterations` is negative.
    """
    if site not in SITES:
        raise ValueError(f"site {site!r} is not known; choose one of {', '.join(SITES)}")
    if iterations is not None and iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}; 0 gives the prior soil only")
    folder = Path(output) if output is not None else Path("out") / f"demo-{site}"
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"dgpde.demos.{site}")
    if site == "vauclin":
        module.run(folder)
    else:
        module.run(folder, iterations)
    return folder
