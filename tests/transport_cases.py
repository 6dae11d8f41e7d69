"""Transport problems on which the kernel is held against its reference and its gradients are proven."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

import dgpde
from dgpde import (
    Atmosphere,
    Concentration,
    FreeDrainage,
    Freundlich,
    Grid,
    Immobile,
    InflowConcentration,
    Langmuir,
    Linear,
    Richards,
    RootUptake,
    Series,
    Solute,
    SolveOptions,
    Source,
    SteadyFlow,
    Transport,
    ZeroGradient,
)
from dgpde.solute import Sorption

DZ = [0.05, 0.08, 0.06, 0.1, 0.05]
NZ, N, T = len(DZ), 2, 3
SORPTIONS = (
    "none",
    "linear",
    "linear kinetic",
    "freundlich < 1",
    "freundlich > 1",
    "langmuir",
    "freundlich kinetic",
)
Inputs = dict[str, Tensor]


@dataclass
class Built:
    """A model with every input that it has, by name; all of them ask for a gradient."""

    seed: int = 0
    dtype: torch.dtype = torch.float64
    inputs: Inputs = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)

    def cells(self, name: str, value: float, spread: float = 0.1) -> Tensor:
        """[NZ, N] about a value."""
        noise = torch.rand(NZ, N, dtype=torch.float64, generator=self.random)
        return self.add(name, value * (1.0 + spread * noise))

    def add(self, name: str, value: object) -> Tensor:
        tensor = torch.as_tensor(value, dtype=self.dtype).clone().requires_grad_()
        self.inputs[name] = tensor
        return tensor

    def sorption(self, kind: str) -> Sorption | None:
        rate = self.cells("rate", 1e-4) if "kinetic" in kind else None
        if kind.startswith("linear"):
            return Linear(self.cells("k_d", 2e-4), self.cells("rho", 1500.0), rate)
        if kind.startswith("freundlich"):
            exponent = self.cells("exponent", 1.3 if ">" in kind else 0.7)
            return Freundlich(self.cells("k_f", 2e-4), exponent, self.cells("rho", 1500.0), rate)
        if kind == "langmuir":
            return Langmuir(
                self.cells("k_l", 0.8), self.cells("s_max", 4e-4), self.cells("rho", 1500.0), rate
            )
        return None

    def transport(self, scheme: str, sorption: str, immobile: bool) -> tuple[Transport, Tensor]:
        """Parent and daughter with all that a solute may have, and their initial concentrations."""
        parent = Solute(
            "parent",
            longitudinal_dispersivity=self.cells("dispersivity", 0.03),
            diffusion=self.cells("diffusion", 1e-9),
            decay=self.cells("decay", 2e-6),
            production=Series(self.add("production", 1e-7 * torch.tensor([1.0, 3.0, 2.0])[:, None, None])),
            sorption=self.sorption(sorption),
            immobile=Immobile(self.cells("theta_im", 0.04), self.cells("rate_im", 1e-5))
            if immobile
            else None,
            source_concentration=self.cells("source_c", 0.4),
        )
        daughter = Solute(
            "daughter",
            longitudinal_dispersivity=0.02,
            diffusion=1e-9,
            tortuosity=self.add("tortuosity", 0.4),
            parent="parent",
            yield_=self.cells("yield", 0.8),
            sorption=Linear(1e-4, 1500.0),
            decay=1e-6,
            uptake="excluded",
        )
        top = Series(self.add("top c", 1.0 + torch.rand(T, N, dtype=torch.float64, generator=self.random)))
        boundaries = {
            "parent": {"top": InflowConcentration(top), "bottom": ZeroGradient()},
            "daughter": {"top": Concentration(self.add("held c", 0.3))},
        }
        c0 = self.add("c0", 0.2 + torch.rand(2, NZ, N, dtype=torch.float64, generator=self.random))
        return Transport(Grid.columns(N, DZ), [parent, daughter], boundaries, scheme), c0

    def steady(self) -> SteadyFlow:
        """Downward in one column, upward in the other."""
        return SteadyFlow(self.cells("theta", 0.35), self.add("flux", [-2e-6, 1.5e-6]))

    def storm(self, options: SolveOptions) -> dgpde.Solution:
        """Rain, then evaporation, then rain, on roots, sources and elastic storage; adaptive steps."""
        soil = dgpde.VanGenuchten(
            theta_r=self.cells("theta_r", 0.05),
            theta_s=self.cells("theta_s", 0.4),
            alpha=self.cells("alpha", 3.0),
            n=self.cells("n", 1.6),
            k_sat=self.cells("k_sat", 2e-5),
        )
        rain = Series(self.add("rain", [6e-6, 0.0, 2e-6]))
        evaporation = Series(torch.tensor([0.0, 1e-7, 0.0], dtype=self.dtype))
        source = Series(self.add("source", torch.tensor([3e-8, -2e-8, 1e-8])[:, None, None]))
        model = Richards(
            Grid.columns(N, DZ),
            soil,
            {"top": Atmosphere(rain, evaporation), "bottom": FreeDrainage()},
            [
                RootUptake(
                    self.add("transpiration", 5e-8), density=torch.ones(NZ, 1, dtype=self.dtype), omega_c=0.8
                ),
                Source(source),
            ],
            specific_storage=self.add("storage", 1e-3),
        )
        return model.solve(self.cells("psi0", -0.6), [0.0, 4e3, 1.2e4, 1.6e4], options)


def outputs(done: dgpde.TransportSolution) -> list[Tensor]:
    """What carries gradients, at like sizes."""
    return [done.concentration, 1e6 * done.solute_flux["top"], 1e6 * done.solute_flux["bottom"]]


def weighted(values: list[Tensor], seed: int = 1) -> Tensor:
    """A sum with random weights."""
    random = torch.Generator().manual_seed(seed)
    return sum(
        (value * torch.rand(value.shape, dtype=torch.float64, generator=random)).sum() for value in values
    )  # type: ignore[return-value]


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())
