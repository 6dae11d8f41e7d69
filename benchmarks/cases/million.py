"""The week of hourly weather on a million columns: forward in one call, the gradient in as many parts as memory asks.

Only on a GPU. Columns are independent, so the gradient of a batch is that of its parts; each part keeps all its
accepted states, and nothing is computed twice.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.cases import weather
from benchmarks.measure import Measurement, Timing, timed
from benchmarks.torch_device import peak_memory, reset_peak_memory, synchronizer
from dgpde._native import cuda_missing, native_module

TARGET = 3e9  # cell-steps/s on an H200
SHARE = 0.6  # of the free memory, for the states of a part


def columns_at_once(steps: Tensor) -> int:
    """Columns whose accepted states fit beside the rest; `steps` [n] are those of a run."""
    module = native_module()
    groups = steps[: steps.numel() // module.GROUP * module.GROUP].view(-1, module.GROUP).max(1).values
    # Blocks and the eighth by which they grow; then the arrays and gradients that the sweep itself needs.
    rows = 1.25 * float(groups.double().mean()) + module.ROWS_PER_BLOCK
    bytes_each = rows * (8 * (weather.NZ + 1) + 16) + 8 * 40 * weather.NZ
    free = torch.cuda.mem_get_info()[0]
    fitting = int(SHARE * free / bytes_each) // module.GROUP * module.GROUP
    return max(module.GROUP, min(fitting, steps.numel()))


def part_of(leaves: dict[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
    """Leaves of some of the columns."""
    cut = {name: value if name == "rain" else value[..., first:last] for name, value in leaves.items()}
    return {name: value.detach().clone().requires_grad_() for name, value in cut.items()}


def taped_loss(leaves: dict[str, Tensor]) -> Tensor:
    """A run that keeps its states."""
    return weather.loss_of(weather.solve(leaves))


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check a few columns against the reference, then time forward, and forward and backward part by part.

    Raises:
        RuntimeError: there is no GPU.
    """
    missing = (
        "it was asked for on the CPU; give --device cuda"
        if device != "cuda"
        else cuda_missing(native_module())
    )
    if missing is not None:
        raise RuntimeError(f"million: this case runs on a GPU only: {missing}")
    synchronize = synchronizer(device)
    checks = weather.check(device)
    leaves = weather.leaves_of(size, device)
    planned = weather.model(leaves, weather.HOURS).plan(
        weather.times_of(weather.HOURS), psi0=leaves["psi0"], save="last"
    )
    memory = {"planned forward": float(planned.forward), "start": reset_peak_memory(device)}
    forward, taped, backward = Timing(), Timing(), Timing()
    with torch.no_grad():
        run = weather.solve(leaves)
        memory["forward"] = peak_memory(device)
        checks["mass_balance"] = float(run.mass_balance_error.max())
        if not checks["mass_balance"] <= weather.BALANCE_TOLERANCE:
            raise AssertionError(f"mass_balance_error is {checks['mass_balance']:.1e}; nothing was timed")
        steps = run.stats.steps
        counts = {
            name: int(getattr(run.stats, name).sum()) for name in ("newton_iterations", "rejections", "cuts")
        }
        del run
        for _ in range(repeats):
            timed(partial(weather.solve, leaves), forward, synchronize)
    torch.cuda.empty_cache()
    part = columns_at_once(steps)
    for _ in range(repeats):
        ahead, back = Timing(), Timing()
        for first in range(0, size, part):
            mine = part_of(leaves, first, min(first + part, size))
            loss = timed(partial(taped_loss, mine), ahead, synchronize)
            timed(loss.backward, back, synchronize)
            del loss
        for whole, parts in ((taped, ahead), (backward, back)):
            whole.cpu.append(sum(parts.cpu))
            whole.wall.append(sum(parts.wall))
    cell_steps = float(weather.NZ * steps.double().sum())
    rate = cell_steps / min(forward.wall)
    return Measurement(
        forward=forward.summary(),
        backward=backward.summary(),
        gradient=(taped + backward).summary(),
        peak_memory=memory,
        cell_steps=cell_steps,
        newton_iterations=counts["newton_iterations"] / float(steps.double().sum()),
        checks=checks,
        extra={
            "cell_steps_per_second": rate,
            "of_target": rate / TARGET,
            "backward/forward": min(backward.wall) / min(forward.wall),
            "steps_per_column": float(steps.double().mean()),
            "columns_with_gradient_at_once": part,
            **counts,
        },
    )
