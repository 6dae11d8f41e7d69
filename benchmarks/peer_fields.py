"""Random conductivity fields of the cases that were run with other simulators, and a way to time a field."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement, Timing, timed
from benchmarks.torch_device import peak_memory, reset_peak_memory, synchronizer
from dgpde.checkpoint import Plan

BALANCE_TOLERANCE = 1e-9  # of the water moved


def conductivity(
    shape: tuple[int, int, int], mean: float, sigma: float, lengths: tuple[int, int, int]
) -> Tensor:
    """K [nz, ny, nx] m/s: lognormal about ``mean``, Gaussian noise smoothed over ``lengths`` cells, periodic."""
    noise = np.random.default_rng(seed=1).standard_normal(shape)
    noise = scipy.ndimage.gaussian_filter(noise, sigma=lengths, mode="wrap")
    noise = (noise - noise.mean()) / noise.std()
    return torch.from_numpy(mean * np.exp(sigma * noise))


def off(found: dict[str, float], wanted: dict[str, tuple[float, float]]) -> dict[str, float]:
    """How far each value is from what it should be.

    Args:
        found: the values.
        wanted: value and tolerance of each.

    Raises:
        ArithmeticError: one is too far.
    """
    errors = {name: abs(found[name] - value) for name, (value, _) in wanted.items()}
    for name, (value, tolerance) in wanted.items():
        if not errors[name] <= tolerance:
            raise ArithmeticError(f"{name} is {found[name]:.9g}, not {value:.9g} to {tolerance:g}")
    return errors


def measured(
    forward: Callable[[], dgpde.Solution],
    loss: Callable[[], Tensor] | None,
    check: Callable[[dgpde.Solution], dict[str, float]],
    repeats: int,
    cells: int,
    extra: dict[str, Any],
    plan: Callable[[], Plan] | None = None,
    device: str = "cpu",
) -> Measurement:
    """Check a field's run, then time it, and its gradient where there is a loss; ``plan`` is put beside its memory.

    Throughput is that of processor time on the CPU, of wall time on a GPU.
    """
    wait = synchronizer(device)
    planned = plan() if plan is not None else None
    memory = {"start": reset_peak_memory(device)}
    with torch.no_grad():
        run = forward()
    memory["forward"] = peak_memory(device)
    checks = check(run)
    balance = float(run.mass_balance_error.max())
    if not balance <= BALANCE_TOLERANCE:
        raise ArithmeticError(f"the mass balance is off by {balance:.3g} of the water moved")
    if loss is not None:
        reset_peak_memory(device)
        loss().backward()
        memory["backward"] = peak_memory(device)
    if planned is not None:
        memory |= {"planned forward": planned.forward, "planned backward": planned.backward}
    plain, taped, backward = Timing(), Timing(), Timing()
    for _ in range(repeats):
        with torch.no_grad():
            run = timed(forward, plain, wait)
        if loss is not None:
            value = timed(loss, taped, wait)
            timed(partial(value.backward), backward, wait)
    steps = int(run.stats.steps)
    seconds = float(plain.summary()["cpu_least" if device == "cpu" else "wall_least"])
    linear = run.stats.linear_iterations
    return Measurement(
        forward=plain.summary(),
        backward=backward.summary() if loss is not None else None,
        gradient=(taped + backward).summary() if loss is not None else None,
        peak_memory=memory,
        cell_steps=float(cells * steps),
        newton_iterations=float(run.stats.newton_iterations) / steps,
        checks=checks,
        extra=extra
        | {
            "mass_balance_error": balance,
            "linear_iterations": 0.0 if linear is None else float(linear) / steps,
            "cell_steps_per_second": cells * steps / seconds,
        },
    )
