"""The Celia batch in dgpde: same scheme, steps and soils as the baselines, checked to the same values."""

from __future__ import annotations

import statistics
from functools import partial

import torch
from torch import Tensor

import dgpde
from benchmarks import celia
from benchmarks.measure import Measurement, Timing, timed
from benchmarks.torch_device import peak_memory, reset_peak_memory, synchronizer

# The published runs end Newton at a change below 1e-6 m, which leaves a residual of this size; tightening it
# further does not move the check values.
TOLERANCE = 1e-9
# Of the water moved. Each step holds the sum of its column to TOLERANCE of what moves in it, or to round-off of the
# water held (4e-16 of 0.3 m a step, where 2e-4 m move): twice the former covers both.
BALANCE_TOLERANCE = 2 * TOLERANCE
GRADIENT_BYTES = 8 * 2**30  # sizes whose trajectory is larger are timed forward only


CUT = 1000  # columns of the batches into which `cuts` divides a large one


def model(size: int, device: str) -> tuple[dgpde.Richards, list[Tensor]]:
    """The batch, and its leaves ln k_sat [nz, n], alpha [n], n [n]."""
    leaves = [torch.from_numpy(value).to(device).requires_grad_() for value in celia.columns(size)]
    return of_leaves(*leaves), leaves


def of_leaves(ln_k_sat: Tensor, alpha: Tensor, n: Tensor) -> dgpde.Richards:
    """The batch of columns with these parameters, [nz, n], [n] (1/m), [n]."""
    size = alpha.shape[0]
    soil = dgpde.VanGenuchten(
        theta_r=celia.THETA_R, theta_s=celia.THETA_S, alpha=alpha, n=n, k_sat=ln_k_sat.exp()
    )
    boundaries = {"top": dgpde.Head(celia.PSI_TOP), "bottom": dgpde.Head(celia.PSI_BOTTOM)}
    return dgpde.Richards(dgpde.Grid.columns(n=size, dz=[celia.DZ] * celia.NZ), soil, boundaries)


OPTIONS = dgpde.SolveOptions(dt_fixed=celia.DT, tolerance=TOLERANCE)
TIMES = torch.tensor([0.0, celia.T_END], dtype=torch.float64)


def solve(flow: dgpde.Richards, psi0: Tensor) -> dgpde.Solution:
    """One day."""
    return flow.solve(psi0, TIMES, OPTIONS)


def loss_from(flow: dgpde.Richards, psi0: Tensor) -> Tensor:
    """Squared distance of the final water content from the target."""
    return ((solve(flow, psi0).theta[-1] - celia.THETA_TARGET) ** 2).sum() * celia.DZ


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check the values of column 0 and of the batch, then time forward, and forward and backward."""
    synchronize = synchronizer(device)
    psi0 = torch.full((celia.NZ, size), celia.PSI_INITIAL, dtype=torch.float64, device=device)
    differentiable = 8 * celia.NZ * celia.STEPS * size <= GRADIENT_BYTES
    flow, leaves = model(size, device)
    planned = flow.plan(TIMES, OPTIONS, psi0=psi0)
    memory = {"planned forward": float(planned.forward), "planned backward": float(planned.backward)}
    memory["start"] = reset_peak_memory(device)

    with torch.no_grad():
        run = solve(flow, psi0)
    memory["forward"] = peak_memory(device)
    found = {
        "water": float((run.theta[-1] - run.theta[0]).detach()[:, 0].sum() * celia.DZ),
        "psi_49.5cm": float(run.psi[-1, celia.NZ // 2, 0]),
        "mean_theta": float(run.theta[-1].detach().mean()),
    }
    if differentiable:
        reset_peak_memory(device)
        loss_from(flow, psi0).backward()
        memory["backward"] = peak_memory(device)
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        found["grad_ln_k_sat"] = float(grads[0][:, 0].sum())
        found["grad_alpha"] = float(grads[1][0])
        found["grad_n"] = float(grads[2][0])
    checks = celia.check(found, size)
    balance = float(run.mass_balance_error.max())
    if not balance <= BALANCE_TOLERANCE:
        raise AssertionError(f"mass_balance_error is {balance:.1e}; nothing was timed")
    checks["mass_balance"] = balance

    forward, taped, backward = Timing(), Timing(), Timing()
    for _ in range(repeats):
        with torch.no_grad():
            run = timed(partial(solve, flow, psi0), forward, synchronize)
        if differentiable:
            fresh, _ = model(size, device)
            loss = timed(partial(loss_from, fresh, psi0), taped, synchronize)
            timed(loss.backward, backward, synchronize)
    steps = run.stats.steps.double()
    return Measurement(
        forward=forward.summary(),
        backward=backward.summary() if differentiable else None,
        gradient=(taped + backward).summary() if differentiable else None,
        peak_memory=memory,
        cell_steps=float(celia.NZ * steps.sum()),
        newton_iterations=float((run.stats.newton_iterations / steps).mean()),
        checks=checks,
        extra={"tolerance": TOLERANCE},
    )


def cuts(size: int, device: str, repeats: int) -> Measurement:
    """The same columns as one batch and as batches of CUT, in turns: does a large batch keep the throughput?

    Checks first that a column gives the same bits in either. "forward" is the one batch, "cuts" in `extra` all the
    others together; "batch/cuts" is the median of the ratios of their throughputs in each turn.
    """
    synchronize = synchronizer(device)
    psi0 = torch.full((celia.NZ, size), celia.PSI_INITIAL, dtype=torch.float64, device=device)
    whole, leaves = model(size, device)
    spans = [slice(first, min(first + CUT, size)) for first in range(0, size, CUT)]
    parts = [
        (of_leaves(*(leaf.detach()[..., span].clone() for leaf in leaves)), psi0[:, span].clone())
        for span in spans
    ]

    def solve_parts() -> list[Tensor]:
        # copies: a view would keep the memory of its whole run from the next one
        return [solve(flow, start).psi[-1, :, 0].clone() for flow, start in parts]

    memory = {"start": reset_peak_memory(device)}
    one, many = Timing(), Timing()
    with torch.no_grad():
        for _ in range(repeats):
            run = timed(partial(solve, whole, psi0), one, synchronize)
            for span, first in zip(spans, timed(solve_parts, many, synchronize), strict=True):
                if not torch.equal(run.psi[-1, :, span.start], first):
                    raise AssertionError(f"column {span.start} differs between one batch and its cuts")
    memory["forward"] = peak_memory(device)
    balance = float(run.mass_balance_error.max())
    if not balance <= BALANCE_TOLERANCE:
        raise AssertionError(f"mass_balance_error is {balance:.1e}; the times mean nothing")
    steps = run.stats.steps.double()
    return Measurement(
        forward=one.summary(),
        backward=None,
        gradient=None,
        peak_memory=memory,
        cell_steps=float(celia.NZ * steps.sum()),
        newton_iterations=float((run.stats.newton_iterations / steps).mean()),
        checks={"mass_balance": balance},
        extra={
            "tolerance": TOLERANCE,
            "cuts": many.summary(),
            "batch/cuts": statistics.median(b / a for a, b in zip(one.cpu, many.cpu, strict=True)),
        },
    )
