"""Learned soils whose numbers are rows: van Genuchten-Mualem's, and the departures of a `SoilNetwork` or none.

A row of x holds the six numbers of the prior and, where it is longer, 6 UNITS + 2 of the network. Rows are columns of
one run.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import dgpde
from dgpde.soil.roughness import bends

if TYPE_CHECKING:
    from collections.abc import Callable

    Relation = Callable[[Tensor], tuple[Tensor, Tensor]]

UNITS, OWN = 8, 6  # of the network; numbers of van Genuchten's
COUNT = OWN + 6 * UNITS + 2


def own_parameters(x: Tensor) -> dict[str, Tensor]:
    """van Genuchten's parameters [n] of the first six numbers of every row."""
    return {
        "theta_r": 0.3 * torch.sigmoid(x[:, 0] - 1.0),
        "theta_s": 0.3 + 0.4 * torch.sigmoid(x[:, 1] - 0.5),
        "alpha": 2.0 * torch.exp(x[:, 2]),
        "n": 1.0 + torch.exp(x[:, 3] - 0.3),
        "l": 0.5 + x[:, 5],
        "k_sat": 1e-5 * torch.exp(2.0 * x[:, 4]),
    }


@cache
def pattern() -> dgpde.NeuralSoil:
    """The learned soil whose numbers are put in from rows of x."""
    values = {
        name: value[0] for name, value in own_parameters(torch.zeros(1, OWN, dtype=torch.float64)).items()
    }
    prior = dgpde.VanGenuchten(**{name: torch.nn.Parameter(value) for name, value in values.items()})
    return dgpde.NeuralSoil(prior, dgpde.SoilNetwork(units=UNITS), route="torch")


def relation_of(x: Tensor) -> Relation:
    """psi [m] -> theta, ln kr [n, m] of the learned soils x [n, OWN + 6 UNITS + 2]."""
    values = own_parameters(x)
    rest, soil = x[:, OWN:], pattern()
    network = soil.network
    for name in ("slope", "rate", "centre", "shift"):
        base = getattr(network, name).detach()
        part, rest = rest[:, : base.numel()], rest[:, base.numel() :]
        values[f"network.{name}"] = base + part.reshape(-1, *base.shape)

    def relation(psi: Tensor) -> tuple[Tensor, Tensor]:
        call = torch.func.vmap(lambda own: torch.func.functional_call(soil, own, (psi,)))
        theta, conductivity = call(values)
        return theta, torch.log(conductivity / values["k_sat"][:, None])

    return relation


def soil_of(x: Tensor) -> dgpde.Soil:
    """The soil of each column: learned where x has a network's numbers, else van Genuchten's."""
    if x.shape[1] == OWN:
        return dgpde.VanGenuchten(**own_parameters(x))
    n = x.shape[0]
    return dgpde.Tabulated.from_function(
        relation_of(x),
        k_sat=own_parameters(x)["k_sat"],
        classes=torch.arange(n),
        psi_range=(-1e-4, -1e4),
        logarithm=True,
    )


def curves(x: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    """theta and log10 K [n, m] at psi [m]."""
    own = own_parameters(x)
    if x.shape[1] == OWN:
        theta, kr = dgpde.VanGenuchten(**{name: value[:, None] for name, value in own.items()}).theta_kr(psi)
        ln_kr = torch.log(kr)
    else:
        theta, ln_kr = relation_of(x)(psi)
    return theta, (torch.log(own["k_sat"][:, None]) + ln_kr) / math.log(10.0)


def departure_bends(x: Tensor) -> Tensor:
    """[n, 2, c]: how theta's and log10 K's departures from van Genuchten-Mualem bend over log10 of suction.

    1 cm to 1 km, by `dgpde.soil.roughness.bends`. What bends in a row's own van Genuchten curve, as where it becomes
    saturated, is free.
    """
    psi = -(10.0 ** torch.linspace(-2.0, 3.0, 101, dtype=torch.float64))
    bare = torch.cat([x[:, :OWN], torch.zeros_like(x[:, OWN:])], 1)
    parts = zip(curves(x, psi), curves(bare, psi), strict=True)
    return torch.stack([bends((whole - own).T, psi).T for whole, own in parts], 1)
