"""A section with all that the transport of the field engine knows, small enough for derivatives in every direction."""

from __future__ import annotations

import torch
from torch import Tensor

import dgpde
from dgpde.solute import Freundlich, Immobile, Langmuir, Linear, Solute, Sorption
from dgpde.transport import Transport
from dgpde.transport_boundary import Concentration, InflowConcentration, ZeroGradient
from dgpde.transport_solution import TransportSolution

Leaves = dict[str, Tensor]
SHAPE = (4, 5)
TIMES = [0.0, 2000.0, 5000.0, 6100.0]


def leaves() -> Leaves:
    """The values that every part of the problem depends on."""
    generator = torch.Generator().manual_seed(3)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    ones = ["alpha", "specific_storage", "well", "river", "source", "horizontal", "vertical", "diffusion"]
    ones += ["decay", "production", "yield_", "rate", "immobile", "c_top"]
    found = {name: torch.ones((), dtype=torch.float64) for name in ones}
    return found | {
        "ln_k_sat": uniform(*SHAPE) - 0.5,
        "psi0": -0.6 + 0.1 * uniform(*SHAPE),
        "sorbs": 0.5 + uniform(*SHAPE),
        "longitudinal": 0.5 + uniform(*SHAPE),
        "c0": 0.1 + 0.3 * uniform(2, *SHAPE),
    }


def directions(values: Leaves) -> Leaves:
    """A direction to move in, of the size of the values."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(v.shape, generator=generator, dtype=torch.float64) * v.abs().mean()
        for name, v in values.items()
    }


def sorption(kind: str | None, p: Leaves) -> Sorption | None:
    if kind == "freundlich":
        return Freundlich(1e-4 * p["sorbs"], 0.7, 1500.0)
    if kind == "kinetic":
        return Freundlich(1e-4 * p["sorbs"], 0.8, 1500.0, rate=2e-4)
    if kind == "langmuir":
        return Langmuir(2.0 * p["sorbs"], 1e-3, 1500.0)
    return Linear(1e-4 * p["sorbs"], 1500.0) if kind == "linear" else None


def run(
    p: Leaves,
    scheme: str = "upwind",
    cross_terms: bool = False,
    sorbs: str | None = None,
    every: int | None = None,
    backend: str | None = None,
    reaction: dgpde.Reaction | None = None,
) -> TransportSolution:
    """A storm and what follows it, with a parent and its daughter."""
    # steps of 700 s where they fit and shorter ones where not: their length varies
    options = dgpde.SolveOptions(
        dt_fixed=700.0,
        tolerance=1e-13,
        linear_tolerance=1e-13,
        backend=backend,
        checkpoint=None if every is None else dgpde.Checkpoint(every=every),
    )
    grid = dgpde.Grid(SHAPE, ([0.2, 0.3, 0.2, 0.1], [0.5, 0.4, 0.5, 0.6, 0.5]))
    soil = dgpde.VanGenuchten(0.065, 0.41, 7.5 * p["alpha"], 1.89, 1.2e-5 * p["ln_k_sat"].exp())
    rain = dgpde.Series(torch.tensor([2e-6, 8e-6, 0.0], dtype=torch.float64))
    evaporation = dgpde.Series(torch.tensor([0.0, 0.0, 4e-7], dtype=torch.float64))
    flow = dgpde.Richards(
        grid,
        soil,
        {
            "top": dgpde.Atmosphere(rain, evaporation, psi_min=-50.0, ponding_max=0.01),
            "bottom": dgpde.FreeDrainage(),
            "east": dgpde.SeepageFace(),
        },
        sources=[
            dgpde.Well([(2, 3)], 1e-6 * p["well"]),
            dgpde.Well([(1, 1)], -2e-7),
            dgpde.River([(1, 4), (0, 2)], -0.4 + 0.1 * p["river"], 1e-6),
            dgpde.Source(1e-7 * p["source"]),
        ],
        specific_storage=1e-3 * p["specific_storage"],
    ).solve(p["psi0"], TIMES, options)
    parent = Solute(
        "parent",
        0.1 * p["longitudinal"],
        (0.03 * p["horizontal"], 0.01 * p["vertical"]),
        1e-7 * p["diffusion"],
        sorption=sorption(sorbs, p),
        decay=1e-5 * p["decay"],
        source_concentration=0.5,
        production=1e-6 * p["production"],
    )
    daughter = Solute(
        "daughter",
        0.1,
        0.01,
        1e-8,
        tortuosity=0.5,
        parent="parent",
        yield_=0.8 * p["yield_"],
        decay=2e-5 * p["decay"],
        sorption=Linear(1e-4 * p["sorbs"], 1500.0, rate=1e-4 * p["rate"]),
        immobile=Immobile(0.03 * p["immobile"], 1e-4 * p["rate"]),
    )
    transport = Transport(
        grid,
        [parent, daughter],
        {"top": InflowConcentration(p["c_top"]), "east": Concentration(0.3), "bottom": ZeroGradient()},
        scheme=scheme,
        cross_terms=cross_terms,
        reaction=reaction,
    )
    return transport.solve(p["c0"], flow, options=options)


def outputs(found: TransportSolution) -> list[Tensor]:
    """Everything differentiable, each entry with a weight of its own."""
    parts = [found.concentration, *(1e5 * found.solute_flux[side] for side in ("top", "bottom", "east"))]
    return [part * torch.linspace(0.3, 9.7, part.numel()).view_as(part).cos() for part in parts]


def total(found: TransportSolution) -> Tensor:
    return torch.stack([part.sum() for part in outputs(found)]).sum()
