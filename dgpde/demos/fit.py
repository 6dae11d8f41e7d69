"""The training loop that the demonstrations share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def fit(
    loss: Callable[[], tuple[Tensor, dict[str, float]]],
    groups: Iterable[dict[str, Any]],
    iterations: int,
    title: str,
) -> list[dict[str, float]]:
    """Minimise `loss` by Adam with a learning rate that falls to a twentieth along a cosine.

    Args:
        loss: called without arguments once an iteration; returns the scalar to minimise and the numbers to show.
        groups: parameter groups of `torch.optim.Adam`, each with its own `lr`.
        iterations: number of steps, >= 0.
        title: of the progress bar.

    Returns:
        The numbers of every iteration, `loss` included.

    Raises:
        FloatingPointError: the loss or a gradient is not finite.
    """
    from tqdm import tqdm

    groups = list(groups)
    optimiser = torch.optim.Adam(groups)
    lowest = 0.05
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * i / max(iterations, 1))),
    )
    history: list[dict[str, float]] = []
    with tqdm(range(iterations), desc=title, unit="it", dynamic_ncols=True) as bar:
        for i in bar:
            optimiser.zero_grad(set_to_none=True)
            value, numbers = loss()
            value.backward()
            check_finite(value, groups, i)
            optimiser.step()
            schedule.step()
            history.append({"loss": value.item(), **numbers})
            bar.set_postfix({name: f"{x:.4g}" for name, x in history[-1].items()})
    return history


def check_finite(value: Tensor, groups: list[dict[str, Any]], iteration: int) -> None:
    """Raise FloatingPointError when the loss or a gradient is not finite."""
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value.item()} at iteration {iteration}; lower the learning rate"
        )
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise FloatingPointError(f"a gradient is not finite at iteration {iteration}")
