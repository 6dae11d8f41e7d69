"""The front of tracer in plain PyTorch, as a careful user would write it: all columns at once, eager, no kernels.

The matrix does not change in steady water: Thomas' elimination of all columns (a Python loop over the cells) is made
once, every step substitutes. Autograd differentiates it. float64, one thread.

    python -m benchmarks.baselines.tracer_torch --columns 1024 --repeats 2
"""

from __future__ import annotations

import argparse
import json

from benchmarks.measure import Measurement, Timing, one_core, peak_memory, timed

one_core()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.tracer import DT, DZ, NZ, SORBED, STEPS, TARGET, THETA, check, columns  # noqa: E402


def solve(flux: Tensor, spread: Tensor) -> Tensor:
    """c [nz, n] at the end; cell 0 at the top."""
    storage = (THETA + SORBED) * DZ / DT
    inner = spread * flux / DZ  # conductance of the faces
    lower, upper = -(flux + inner), -inner
    elim: list[Tensor] = []
    inverse: list[Tensor] = []
    for k in range(NZ):
        diagonal = storage + flux + (inner if k > 0 else 0.0) + (inner if k + 1 < NZ else 0.0)
        pivot = diagonal if k == 0 else diagonal - lower * elim[-1]
        inverse.append(1.0 / pivot)
        elim.append(upper * inverse[-1])
    c = [torch.zeros_like(flux)] * NZ
    for _ in range(STEPS):
        rhs: list[Tensor] = []
        for k in range(NZ):
            right = storage * c[k] + flux if k == 0 else storage * c[k] - lower * rhs[-1]
            rhs.append(right * inverse[k])
        c = [*rhs]
        for k in range(NZ - 2, -1, -1):
            c[k] = rhs[k] - elim[k] * c[k + 1]
    return torch.stack(c)


def gradient(flux: Tensor, spread: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the loss."""
    leaves = [value.detach().clone().requires_grad_() for value in (flux, spread)]
    return torch.autograd.grad((solve(*leaves) - TARGET).square().sum() * DZ, leaves)


def main() -> None:
    """Check, then time, then print the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flux, spread = (torch.from_numpy(value) for value in columns(options.columns))
    memory = {"start": peak_memory()}
    with torch.no_grad():
        c = solve(flux, spread)
    memory["forward"] = peak_memory()
    grads = gradient(flux, spread)
    memory["backward"] = peak_memory()
    found = {
        "held": float((THETA + SORBED) * DZ * c[:, 0].sum()),
        "c_30cm": float(0.5 * (c[29, 0] + c[30, 0])),
        "grad_spread": float(grads[1][0]),
    }
    checks = check(found)
    forward_time, gradient_time = Timing(), Timing()
    for _ in range(options.repeats):
        with torch.no_grad():
            timed(lambda: solve(flux, spread), forward_time)
        timed(lambda: gradient(flux, spread), gradient_time)
    measurement = Measurement(
        forward=forward_time.summary(),
        backward=None,
        gradient=gradient_time.summary(),
        peak_memory=memory,
        cell_steps=float(NZ * STEPS * options.columns),
        newton_iterations=1.0,
        checks=checks,
        extra={"version": f"PyTorch {torch.__version__} eager, Thomas"},
    )
    print(json.dumps(measurement.as_dict()))


if __name__ == "__main__":
    main()
