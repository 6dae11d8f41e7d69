"""A week of hourly weather: rain, evaporation by day, roots, free drainage; every column another soil.

100 cells of 2 cm, adaptive steps of 1e-3 in water content. The check is the reference: the states and the gradients
of a few columns over two days with rain, on the step sizes that the kernel took.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement, Timing, timed
from benchmarks.torch_device import peak_memory, reset_peak_memory, synchronizer
from dgpde.assembly import set_up
from dgpde.kernels.column_flow.reference import column_flow_reference

NZ, DZ, HOURS = 100, 0.02, 168
CHECK_COLUMNS, CHECK_HOURS = 2, 48
STATE_TOLERANCE = 1e-8  # relative, of psi: both Newton solves end at a residual of 1e-10 of the pore volume
GRADIENT_TOLERANCE = 1e-6  # relative L2: the states differ by STATE_TOLERANCE, dK/dpsi amplifies it
BALANCE_TOLERANCE = 1e-9  # of the water moved


def forcing(hours: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rain, potential evaporation and transpiration [hours] m/s: two storms, a drizzle, clear days between."""
    hour = torch.arange(hours, dtype=torch.float64, device=device)
    rain = torch.zeros_like(hour)
    for first, last, amount in ((10, 14, 0.030), (40, 46, 0.012), (100, 124, 0.008)):
        rain[first:last] = amount / (3600.0 * (last - first))
    sun = torch.sin(torch.pi * ((hour % 24.0) - 6.0) / 12.0).clamp(min=0.0)
    return rain, 3e-8 * sun, 1e-7 * sun


def leaves_of(size: int, device: str) -> dict[str, Tensor]:
    """Soil parameters [n] of a random batch between sand and loam, initial psi [nz, n], rain: all to differentiate."""
    draw = torch.rand(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    z = (torch.arange(NZ, dtype=torch.float64, device=device) + 0.5) * DZ
    leaves = {
        "alpha": 1.0 + 7.0 * draw[0],
        "n": 1.25 + 1.0 * draw[1],
        "k_sat": 10.0 ** (-6.5 + 2.0 * draw[2]),
        "psi0": (-1.0 - z)[:, None].repeat(1, size),
        "rain": forcing(HOURS, device)[0],
    }
    return {name: value.requires_grad_() for name, value in leaves.items()}


def model(leaves: dict[str, Tensor], hours: int) -> dgpde.Richards:
    """The columns of these leaves under the first `hours` of the weather."""
    _, evaporation, transpiration = forcing(hours, leaves["rain"].device.type)
    soil = dgpde.VanGenuchten(
        theta_r=0.05, theta_s=0.42, alpha=leaves["alpha"], n=leaves["n"], k_sat=leaves["k_sat"]
    )
    surface = dgpde.Atmosphere(
        dgpde.Series(leaves["rain"][:hours]), dgpde.Series(evaporation), psi_min=-150.0
    )
    return dgpde.Richards(
        dgpde.Grid.columns(n=leaves["alpha"].numel(), dz=[DZ] * NZ),
        soil,
        boundaries={"top": surface, "bottom": dgpde.FreeDrainage()},
        sources=[dgpde.RootUptake(transpiration=dgpde.Series(transpiration), root_depth=0.6)],
    )


def times_of(hours: int) -> Tensor:
    """[hours + 1] s."""
    return 3600.0 * torch.arange(hours + 1, dtype=torch.float64)


def solve(leaves: dict[str, Tensor], hours: int = HOURS, record_steps: bool = False) -> dgpde.Solution:
    """Run; psi is kept at the end only."""
    options = dgpde.SolveOptions(record_steps=record_steps)
    return model(leaves, hours).solve(leaves["psi0"], times_of(hours), options=options, save="last")


def solve_by_reference(leaves: dict[str, Tensor], hours: int, step_sizes: list[Tensor]) -> dgpde.Solution:
    """The same by the plain PyTorch reference on the accepted steps of another run."""
    flow = model(leaves, hours)
    setup = set_up(flow.words, leaves["psi0"], times_of(hours), dgpde.SolveOptions(), "last", 0.0)
    problem, inputs = setup.span(0, hours, setup.problem.save)
    inputs |= {"psi0": setup.psi0, "ponding0": setup.ponding0}
    return flow.assemble(setup, [column_flow_reference(problem, inputs, step_sizes)])


def loss_of(run: dgpde.Solution) -> Tensor:
    """Something that depends on all of the state and on the fluxes."""
    flux = run.boundary_flux["top"].sum() + run.boundary_flux["bottom"].sum() + run.uptake.sum()
    return (run.theta[-1] - 0.2).square().sum() * DZ + 3600.0 * flux


def check(device: str) -> dict[str, float]:
    """Errors against the reference on the same steps; raises AssertionError when one is too large."""
    own_leaves, reference_leaves = leaves_of(CHECK_COLUMNS, device), leaves_of(CHECK_COLUMNS, "cpu")
    own = solve(own_leaves, CHECK_HOURS, record_steps=True)
    assert own.stats.step_sizes is not None
    reference = solve_by_reference(reference_leaves, CHECK_HOURS, [dt.cpu() for dt in own.stats.step_sizes])
    loss_of(own).backward()
    loss_of(reference).backward()
    errors = {"psi": float(((own.psi.cpu() - reference.psi) / reference.psi).detach().abs().max())}
    for name, leaf in own_leaves.items():
        theirs = reference_leaves[name].grad
        assert leaf.grad is not None
        assert theirs is not None
        errors[f"grad_{name}"] = float((leaf.grad.cpu() - theirs).norm() / theirs.norm())
    for name, error in errors.items():
        limit = STATE_TOLERANCE if name == "psi" else GRADIENT_TOLERANCE
        if not error <= limit:
            raise AssertionError(f"{name} differs from the reference by {error:.1e}; nothing was timed")
    return errors


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check a few columns against the reference, then time forward, and forward and backward."""
    synchronize = synchronizer(device)
    checks = check(device)
    leaves = leaves_of(size, device)
    planned = model(leaves, HOURS).plan(times_of(HOURS), psi0=leaves["psi0"], save="last")
    memory = {"planned forward": float(planned.forward), "planned backward": float(planned.backward)}
    memory["start"] = reset_peak_memory(device)
    with torch.no_grad():
        run = solve(leaves)
    memory["forward"] = peak_memory(device)
    loss_of(solve(leaves)).backward()
    memory["backward"] = peak_memory(device)
    checks["mass_balance"] = float(run.mass_balance_error.max())
    if not checks["mass_balance"] <= BALANCE_TOLERANCE:
        raise AssertionError(f"mass_balance_error is {checks['mass_balance']:.1e}; nothing was timed")

    forward, taped, backward = Timing(), Timing(), Timing()
    for _ in range(repeats):
        with torch.no_grad():
            timed(partial(solve, leaves), forward, synchronize)
        loss = timed(lambda: loss_of(solve(leaves)), taped, synchronize)
        timed(loss.backward, backward, synchronize)
    steps = run.stats.steps.double()
    return Measurement(
        forward=forward.summary(),
        backward=backward.summary(),
        gradient=(taped + backward).summary(),
        peak_memory=memory,
        cell_steps=float(NZ * steps.sum()),
        newton_iterations=float((run.stats.newton_iterations / steps).mean()),
        checks=checks,
        extra={
            "steps_per_column": float(steps.mean()),
            "planned_steps": planned.steps,
            "rejections": int(run.stats.rejections.sum()),
            "cuts": int(run.stats.cuts.sum()),
        },
    )
