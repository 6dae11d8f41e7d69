"""What moisture can tell of K(psi): the standard deviations that a design of `soil_curves` leaves, by linear theory.

    python -m benchmarks.learning.identifiability

Around the true curves theta and log10 K are moved by hat functions of log10 of suction (five a decade, 1.6 cm to
1 km), K_s as a whole; the tangents of all readings in them, from the solver, give J. With the smoothness prior of
`evidence`, at about the strengths that the fits find (100 for theta, 0.5 for log10 K), the covariance is
(J'J/noise^2 + prior)^-1. Three designs:

- weather alone: readings every 3 h, the surface may dry to 150 m of suction;
- weather alone, hourly: three times the readings;
- stepped: hourly, and the surface's largest suction set anew each day (`soil_curves`).

What comes out: in the dry range gravity plays no part, and readings of moisture then tell K dpsi/dtheta but not how
suctions go with water contents, which only the limit of the surface ties to a number. One limit leaves theta(psi)
between 1 and 150 m, hence K, to the smoothness of the curves, and more readings help little; limits at known steps
tell both. An earlier form of this experiment, which put a normal prior on the network's weights, ended at 0.36 whatever
the optimiser: that prior charged the true curves 80 units of log likelihood, of which the readings paid back 4 to 9.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor
from torch.autograd import forward_ad

import dgpde
from benchmarks.learning import soil_curves
from benchmarks.learning.record import Row, table, write
from benchmarks.learning.soil_curves import (
    CELLS,
    DECADES,
    LIMITS,
    NOISE,
    SENSORS,
    STRENGTHS,
    TRAINED,
    TRUTHS,
    Design,
    truth,
)
from dgpde.soil.roughness import bends

DESIGNS = {
    "weather alone": Design(8, LIMITS[:1]),
    "weather alone, hourly": Design(24, LIMITS[:1]),
    "stepped": soil_curves.STEPPED,
}
WIDTH = 0.2  # decades between two hats
CENTRES = -1.8 + WIDTH * torch.arange(25, dtype=torch.float64)  # log10 of suction in m
WIDE = (
    0.3,
    5.0,
    3.0,
)  # standard deviations of a hat of theta, of log10 K, and of log10 K_s, without any data
RANGE, KNOTS = (-1e-4, -1e4), 256  # of the tables


def moved(soil: dgpde.Soil) -> dgpde.Soil:
    """The soil of columns that have a hat's tangent each: of theta, of log10 K, of K_s. Inside a dual level."""
    count, m = 2 * CENTRES.numel() + 1, CENTRES.numel()
    psi = -torch.logspace(math.log10(-RANGE[0]), math.log10(-RANGE[1]), KNOTS, dtype=torch.float64)
    psi[0] = 0.0  # the first knot counts as saturated
    hats = torch.zeros(m, KNOTS, dtype=torch.float64)
    hats[:, 1:] = (1.0 - (torch.log10(-psi[1:]) - CENTRES[:, None]).abs() / WIDTH).clamp(min=0.0)
    theta, ln_kr = soil.theta(psi), torch.log(soil.conductivity(psi) / soil.k_sat)
    nothing = torch.zeros(m, KNOTS, dtype=torch.float64)
    rows = {
        "theta": (theta.expand(count, -1), torch.cat([hats, nothing, nothing[:1]])),
        "ln_kr": (ln_kr.expand(count, -1), torch.cat([nothing, math.log(10.0) * hats, nothing[:1]])),
    }
    dual = {name: forward_ad.make_dual(value.clone(), tangent) for name, (value, tangent) in rows.items()}
    k_sat = soil.k_sat.expand(count).clone()
    k_tangent = torch.zeros_like(k_sat)
    k_tangent[-1] = math.log(10.0) * k_sat[-1]
    return dgpde.Tabulated(
        **dual, psi_range=RANGE, k_sat=forward_ad.make_dual(k_sat, k_tangent), classes=torch.arange(count)
    )


def sensitivity(name: str, design: Design) -> Tensor:
    """J/noise [readings * sensors, 2 m + 1]."""
    with forward_ad.dual_level():
        run = soil_curves.solve(moved(TRUTHS[name]), 2 * CENTRES.numel() + 1, CELLS, TRAINED, design=design)
        theta = forward_ad.unpack_dual(soil_curves.at_depths(run.theta, SENSORS)[1:]).tangent
    assert theta is not None
    return theta.flatten(0, 1) / NOISE


def deviations(j: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations of theta and of log10 K at the centres [m]."""
    m = CENTRES.numel()
    bend = bends(torch.eye(m, dtype=torch.float64), -(10.0**CENTRES))
    precision = torch.zeros(2 * m + 1, 2 * m + 1, dtype=torch.float64)
    for k, (strength, wide) in enumerate(zip(STRENGTHS, WIDE[:2], strict=True)):
        block = slice(k * m, (k + 1) * m)
        precision[block, block] = strength * bend.T @ bend + torch.eye(m, dtype=torch.float64) / wide**2
    precision[-1, -1] = 1.0 / WIDE[2] ** 2
    covariance = torch.linalg.inv(j.T @ j + precision)
    whole = torch.cat([torch.zeros(m, m), torch.eye(m), torch.ones(m, 1)], 1).to(covariance)  # of log10 K
    return covariance.diagonal()[:m].sqrt(), (whole @ covariance @ whole.T).diagonal().sqrt()


def row_of(name: str, design: Design) -> Row:
    """Root mean squares of the deviations over the range seen and every decade."""
    theta, log_k = deviations(sensitivity(name, design))
    ranges = {"seen": truth(name, design).seen} | {
        f"{low:g}-{high:g} m": (low, high) for low, high in DECADES
    }
    row = {}
    for label, (low, high) in ranges.items():
        # a range of whole decades has its ends half-way between two centres
        inside = (math.log10(low) - 1e-9 <= CENTRES) & (math.log10(high) + 1e-9 >= CENTRES)
        row[f"log10 K, {label}"] = log_k[inside].square().mean().sqrt().item()
        row[f"theta, {label}"] = theta[inside].square().mean().sqrt().item()
    return row


def main() -> None:
    """Every soil and design: tables and record."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    began = time.process_time()
    kept: dict[str, dict[str, Row]] = {}
    for name in TRUTHS:
        kept[name] = {label: row_of(name, design) for label, design in DESIGNS.items()}
        for label, row in kept[name].items():
            print(table(f"{name}, {label}: standard deviations", [row]), flush=True)
    write("identifiability", {"processor seconds": time.process_time() - began, **kept})


if __name__ == "__main__":
    main()
