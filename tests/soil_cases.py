"""Random soils of every relation, shared by the tests of the soil relations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from neural_cases import network
from torch import Tensor

CASES = [
    ("van_genuchten", 0),
    ("brooks_corey", 0),
    ("brooks_corey", 1),
    ("gardner", 0),
    ("haverkamp", 0),
    ("haverkamp", 1),
    ("kosugi", 0),
    ("fredlund_xing", 0),
    ("durner", 0),
    ("peters_durner_iden", 0),
    ("saturated", 0),
]


def uniform(low: float, high: float, n: int) -> Tensor:
    return low + (high - low) * torch.rand(n, dtype=torch.float64)


def spread(low: float, high: float, n: int) -> Tensor:
    """Log-uniform."""
    return torch.exp(uniform(math.log(low), math.log(high), n))


def random_parameters(relation: str, n: int) -> dict[str, Tensor]:
    """Kernel parameters [n] float64 over the whole range in which soils are found, and beyond."""
    water = {"theta_r": uniform(0.0, 0.2, n), "theta_s": uniform(0.25, 0.6, n)}
    connectivity = {"l": uniform(-1.0, 2.0, n)}
    draw: dict[str, Callable[[], dict[str, Tensor]]] = {
        "van_genuchten": lambda: {
            "alpha": spread(0.05, 20.0, n),
            "n": uniform(1.001, 5.0, n),
            **connectivity,
            "air_entry": torch.where(torch.rand(n) < 0.5, torch.zeros(n).double(), spread(0.005, 0.2, n)),
        },
        "brooks_corey": lambda: {"psi_e": spread(0.01, 1.0, n), "lam": uniform(0.05, 4.0, n), **connectivity},
        "gardner": lambda: {"alpha": spread(0.05, 20.0, n)},
        "haverkamp": lambda: {
            "alpha": spread(1e-3, 800.0, n),
            "beta": uniform(1.0, 6.0, n),
            "a": spread(1e-3, 800.0, n),
            "gamma": uniform(0.5, 6.0, n),
        },
        "kosugi": lambda: {"s_m": spread(0.05, 50.0, n), "sigma": uniform(0.3, 3.0, n), **connectivity},
        "fredlund_xing": lambda: {
            "theta_s": water["theta_s"],
            "a": spread(0.05, 50.0, n),
            "n": uniform(0.5, 6.0, n),
            "m": uniform(0.3, 3.0, n),
            "p": uniform(1.0, 6.0, n),
            "s_r": spread(1.0, 3000.0, n),
        },
        "durner": lambda: {
            "alpha1": spread(0.5, 20.0, n),
            "n1": uniform(1.001, 5.0, n),
            "alpha2": spread(0.01, 1.0, n),
            "n2": uniform(1.001, 5.0, n),
            "w2": uniform(0.01, 0.99, n),
            **connectivity,
        },
        "peters_durner_iden": lambda: {
            "alpha": spread(0.05, 20.0, n),
            "n": uniform(1.001, 5.0, n),
            "omega": uniform(0.0, 1.0, n) ** 4,
            **connectivity,
            "h_0": spread(1e4, 1e5, n),
            "a": uniform(-3.0, -0.5, n),
        },
        "saturated": lambda: {"theta_s": water["theta_s"]},
        "network": lambda: {
            "alpha": spread(0.05, 20.0, n),
            "n": uniform(1.05, 4.0, n),
            **connectivity,
            **{name: torch.randn(n, dtype=torch.float64) for name in ("x1", "x2", "x3")},
            "weights": network(5, 3, 0.6).weights().detach(),
        },
    }
    own = draw[relation]()
    return own if relation in ("fredlund_xing", "saturated") else {**water, **own}


def random_heads(n: int) -> Tensor:
    """[n] float64 m: saturated, at both ends of what is promised, and log-uniform in between."""
    psi = -spread(1e-10, 1e8, n)
    wet = n // 20
    psi[:wet] = uniform(0.0, 1.0, wet)
    extremes = torch.tensor([0.0, -1e8, -1e-290, -1e-30], dtype=torch.float64)[: n - wet]
    psi[wet : wet + len(extremes)] = extremes
    return psi
