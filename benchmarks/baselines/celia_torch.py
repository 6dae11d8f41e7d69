"""The Celia batch in plain PyTorch, as a careful user would write it: eager, whole-batch tensors, no kernels.

Newton with an analytic tridiagonal Jacobian, the whole batch until its slowest column is done; the gradient by the
implicit function theorem in an `autograd.Function` once a step. float64, one thread. Newton ends at a change below
1e-6 m; its update is limited to 2 m, since without a limit some of the columns cycle for ever.

    python -m benchmarks.baselines.celia_torch --columns 64 --linear cyclic_reduction --repeats 3

The best linear solve depends on the batch: `dense` for one column, `cyclic_reduction` for tens, `thomas` (a Python
loop over the cells) for a thousand.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.measure import Measurement, Timing, one_core, peak_memory, timed

one_core()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import pad  # noqa: E402

from benchmarks.celia import (  # noqa: E402
    DT,
    DZ,
    NZ,
    PSI_BOTTOM,
    PSI_INITIAL,
    PSI_TOP,
    STEPS,
    THETA_R,
    THETA_S,
    THETA_TARGET,
    check,
    columns,
)

CHANGE, LIMIT, MOST = 1e-6, 2.0, 50  # m, m, iterations
Soils = tuple[Tensor, Tensor, Tensor]  # ln k_sat [nz, n], alpha [1, n], n [1, n]
Diagonals = tuple[Tensor, Tensor, Tensor]  # lower, main, upper [nz, n]; lower[0] and upper[-1] are 0


def soil(psi: Tensor, soils: Soils) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """theta, K [m/s] and their slopes in psi: van Genuchten-Mualem with m = 1 - 1/n and l = 1/2, psi < 0."""
    ln_k_sat, alpha, n = soils
    m = 1.0 - 1.0 / n
    h = torch.clamp(-psi, min=1e-12)
    y = (alpha * h) ** n
    x = 1.0 / (1.0 + y)
    saturation = x**m
    filled = y * x  # 1 - x
    power = filled**m
    root = 1.0 - power
    k = torch.exp(ln_k_sat) * torch.sqrt(saturation) * root**2
    dsaturation = m * n * saturation * filled / h
    dk = k * (0.5 / saturation + 2.0 * power / filled * x / (saturation * root)) * dsaturation
    return THETA_R + (THETA_S - THETA_R) * saturation, k, (THETA_S - THETA_R) * dsaturation, dk


def constants(psi_old: Tensor, soils: Soils) -> tuple[Tensor, Tensor, Tensor]:
    """What does not change within a step: theta of the old state [nz, n], K of the bottom and the top face [1, n]."""
    ends = torch.full_like(soils[0][:2], PSI_BOTTOM)
    ends[1] = PSI_TOP
    k_end = soil(ends, (soils[0][[0, -1]], *soils[1:]))[1]
    return soil(psi_old, soils)[0], k_end[:1], k_end[1:]


def residual(psi: Tensor, fixed: tuple[Tensor, Tensor, Tensor], soils: Soils) -> tuple[Tensor, Diagonals]:
    """Cell 0 at the bottom: the residual [nz, n] m/s and the three diagonals of its Jacobian in psi."""
    theta, k, capacity, dk = soil(psi, soils)
    theta_old, bottom, top = fixed
    k_face = 0.5 * (torch.cat([bottom, k]) + torch.cat([k, top]))  # [nz + 1, n]
    below = pad(psi, (0, 0, 1, 0), value=PSI_BOTTOM)
    above = pad(psi, (0, 0, 0, 1), value=PSI_TOP)
    distance = torch.full((NZ + 1, 1), DZ, dtype=psi.dtype)
    distance[0] = distance[-1] = 0.5 * DZ
    slope = (above - below) / distance + 1.0  # of the hydraulic head, upward
    flux = -k_face * slope  # m/s upward, on the faces from the bottom to the top
    by_lower = k_face[1:] / distance[1:] - 0.5 * dk * slope[1:]  # upper face of each cell
    by_upper = -k_face[:-1] / distance[:-1] - 0.5 * dk * slope[:-1]  # lower face of each cell
    lower, upper = pad(-by_lower[:-1], (0, 0, 1, 0)), pad(by_upper[1:], (0, 0, 0, 1))
    main = capacity * (DZ / DT) + by_lower - by_upper
    return (theta - theta_old) * (DZ / DT) + flux[1:] - flux[:-1], (lower, main, upper)


def thomas(diagonals: Diagonals, right: Tensor) -> Tensor:
    """Eliminate upward, substitute downward, a Python loop over the cells."""
    lower, main, upper, b = (value.unbind(0) for value in (*diagonals, right))
    ratio, value = [upper[0] / main[0]], [b[0] / main[0]]
    for k in range(1, len(b)):
        scale = 1.0 / (main[k] - lower[k] * ratio[-1])
        ratio.append(upper[k] * scale)
        value.append((b[k] - lower[k] * value[-1]) * scale)
    solution = [value[-1]]
    for k in range(len(b) - 2, -1, -1):
        solution.append(value[k] - ratio[k] * solution[-1])
    return torch.stack(solution[::-1])


def cyclic_reduction(diagonals: Diagonals, right: Tensor) -> Tensor:
    """Parallel cyclic reduction: log2(nz) whole-batch sweeps."""
    lower, main, upper = diagonals
    stride = 1
    while stride < NZ:

        def from_below(x: Tensor, fill: float = 0.0, stride: int = stride) -> Tensor:
            return pad(x[:-stride], (0, 0, stride, 0), value=fill)

        def from_above(x: Tensor, fill: float = 0.0, stride: int = stride) -> Tensor:
            return pad(x[stride:], (0, 0, 0, stride), value=fill)

        a, c = -lower / from_below(main, 1.0), -upper / from_above(main, 1.0)
        right = right + a * from_below(right) + c * from_above(right)
        main = main + a * from_below(upper) + c * from_above(lower)
        lower, upper = a * from_below(lower), c * from_above(upper)
        stride *= 2
    return right / main


def dense(diagonals: Diagonals, right: Tensor) -> Tensor:
    """LAPACK on full matrices."""
    lower, main, upper = diagonals
    matrix = torch.diag_embed(main.T) + torch.diag_embed(lower[1:].T, -1) + torch.diag_embed(upper[:-1].T, 1)
    return torch.linalg.solve(matrix, right.T.unsqueeze(-1)).squeeze(-1).T


LINEAR = {"thomas": thomas, "cyclic_reduction": cyclic_reduction, "dense": dense}


def newton(psi_old: Tensor, soils: Soils, linear: str) -> tuple[Tensor, int]:
    """psi [nz, n] after one step, and the iterations of the slowest column."""
    psi, fixed = psi_old, constants(psi_old, soils)
    for count in range(1, MOST + 1):
        value, diagonals = residual(psi, fixed, soils)
        change = LINEAR[linear](diagonals, -value)
        psi = torch.clamp(psi + torch.clamp(change, -LIMIT, LIMIT), max=-1e-6)
        if float(change.abs().max()) < CHANGE:
            return psi, count
    raise RuntimeError(f"Newton did not end within {MOST} iterations")


class Step(torch.autograd.Function):
    """One step; the adjoint from the transposed Jacobian at the converged state."""

    @staticmethod
    def forward(ctx, psi_old, ln_k_sat, alpha, n, linear):  # type: ignore[no-untyped-def]
        """Newton."""
        psi, _ = newton(psi_old, (ln_k_sat, alpha, n), linear)
        ctx.save_for_backward(psi, psi_old, ln_k_sat, alpha, n)
        ctx.linear = linear
        return psi

    @staticmethod
    def backward(ctx, grad_psi):  # type: ignore[no-untyped-def]
        """J^T lambda = g, then -lambda^T dF/d(old state, parameters)."""
        psi, psi_old, *soils = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [value.detach().requires_grad_() for value in (psi_old, *soils)]
            leaves = (inputs[1], inputs[2], inputs[3])
            value, diagonals = residual(psi, constants(inputs[0], leaves), leaves)
        lower, main, upper = (diagonal.detach() for diagonal in diagonals)
        transposed = (pad(upper[:-1], (0, 0, 1, 0)), main, pad(lower[1:], (0, 0, 0, 1)))
        adjoint = LINEAR[ctx.linear](transposed, grad_psi)
        grads = torch.autograd.grad(value, inputs, -adjoint)
        return (*grads, None)  # None: linear


def forward_only(soils: Soils, linear: str) -> tuple[Tensor, Tensor, int]:
    """theta and psi [nz, n] at the end, iterations of the batch."""
    psi, iterations = torch.full_like(soils[0], PSI_INITIAL), 0
    with torch.no_grad():
        for _ in range(STEPS):
            psi, count = newton(psi, soils, linear)
            iterations += count
        return soil(psi, soils)[0], psi, iterations


def gradient(soils: Soils, linear: str) -> list[Tensor]:
    """Gradients of the loss, by one forward and one backward run."""
    leaves = [value.detach().clone().requires_grad_() for value in soils]
    psi = torch.full_like(soils[0], PSI_INITIAL)
    for _ in range(STEPS):
        psi = Step.apply(psi, *leaves, linear)
    theta = soil(psi, (leaves[0], leaves[1], leaves[2]))[0]
    (((theta - THETA_TARGET) ** 2).sum() * DZ).backward()
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def main() -> None:
    """Check, then time, then print the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--linear", choices=sorted(LINEAR), default="cyclic_reduction")
    options = parser.parse_args()
    torch.set_num_threads(1)

    ln_k_sat, alpha, n = (torch.from_numpy(value) for value in columns(options.columns))
    soils = (ln_k_sat, alpha[None], n[None])
    memory = {"start": peak_memory()}
    theta, psi, iterations = forward_only(soils, options.linear)
    memory["forward"] = peak_memory()
    grads = gradient(soils, options.linear)
    memory["backward"] = peak_memory()

    dry = soil(torch.full_like(ln_k_sat, PSI_INITIAL), soils)[0]
    found = {
        "water": float((theta - dry)[:, 0].sum() * DZ),
        "psi_49.5cm": float(psi[NZ // 2, 0]),
        "mean_theta": float(theta.mean()),
        "grad_ln_k_sat": float(grads[0][:, 0].sum()),
        "grad_alpha": float(grads[1][0, 0]),
        "grad_n": float(grads[2][0, 0]),
    }
    checks = check(found, options.columns)

    forward_time, gradient_time = Timing(), Timing()
    for _ in range(options.repeats):
        timed(lambda: forward_only(soils, options.linear), forward_time)
        timed(lambda: gradient(soils, options.linear), gradient_time)
    measurement = Measurement(
        forward=forward_time.summary(),
        backward=None,
        gradient=gradient_time.summary(),
        peak_memory=memory,
        cell_steps=float(NZ * STEPS * options.columns),
        newton_iterations=iterations / STEPS,
        checks=checks,
        extra={"version": f"PyTorch {torch.__version__} eager, {options.linear}"},
    )
    print(json.dumps(measurement.as_dict()))


if __name__ == "__main__":
    main()
