"""Neural soils with random weights, and a small column run by every route and engine."""

from __future__ import annotations

import torch
from torch import Tensor

import dgpde

Tensors = dict[str, Tensor]
HOUR = 3600.0
#: Route and engine; the column engine cannot call PyTorch.
WAYS = [("torch", "field"), ("fused", "column"), ("fused", "field"), ("baked", "field"), ("baked", "column")]


def network(units: int = 4, features: int = 1, scale: float = 0.5, seed: int = 0) -> dgpde.SoilNetwork:
    """A network whose weights are all moved at random."""
    net = dgpde.SoilNetwork(units=units, features=features)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return net


def put(net: dgpde.SoilNetwork, leaves: Tensors) -> dgpde.SoilNetwork:
    """A network of the same shape whose weights are the given tensors, which may be tracked in any mode."""
    copy = dgpde.SoilNetwork(net.units, net.features, steepest=net.steepest)
    for name, _ in list(copy.named_parameters()):
        delattr(copy, name)
        setattr(copy, name, leaves[name])
    return copy


def weights_of(net: dgpde.SoilNetwork) -> Tensors:
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def prior(theta_s: float | Tensor = 0.41, k_sat: float | Tensor = 5e-6) -> dgpde.VanGenuchten:
    return dgpde.VanGenuchten(0.05, theta_s, 3.5, 1.6, k_sat)


def columns(soil: dgpde.Soil, engine: str, nz: int = 6, n: int = 3, **options: object) -> dgpde.Solution:
    """Rain and drying on columns; each interval is one step, and their lengths differ."""
    grid = dgpde.Grid.columns(n=n, dz=[0.1] * nz)
    rain = torch.tensor([4e-6, 6e-6, 0.0, 1e-6, 0.0], dtype=torch.float64).to(soil.k_sat.dtype)
    model = dgpde.Richards(
        grid,
        soil,
        {"top": dgpde.Atmosphere(dgpde.Series(rain), 2e-7, -50.0), "bottom": dgpde.FreeDrainage()},
        engine=engine,
    )
    times = [0.0, 0.5 * HOUR, 0.9 * HOUR, 1.8 * HOUR, 2.5 * HOUR, 3.7 * HOUR]
    chosen: dict[str, object] = {
        "dt_fixed": 2 * HOUR,
        "tolerance": 1e-12,
        "linear_tolerance": 1e-12,
    } | options
    return model.solve(-1.0, times, dgpde.SolveOptions(**chosen))  # type: ignore[arg-type]


def loss_of(run: dgpde.Solution) -> Tensor:
    """A number that depends on psi, theta and fluxes."""
    seen = 1.0 + 0.5 * torch.cos(torch.arange(run.theta.numel()).to(run.theta)).reshape(run.theta.shape)
    drained = run.boundary_flux["bottom"]
    return (seen * run.theta).sum() + 0.1 * (seen * run.psi).sum() + 1e5 * drained.sum()
