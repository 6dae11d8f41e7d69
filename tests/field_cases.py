"""Small heterogeneous fields that go through every branch, and their trajectory by autograd alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import dgpde
from dgpde.assembly import check_start
from dgpde.field import set_up_field
from dgpde.kernels.flow_stencil.problem import StencilProblem, Step
from dgpde.kernels.flow_stencil.reference import jacobian, retention, terms
from dgpde.trajectory import FieldRun

Tensors = dict[str, Tensor]
HOUR = 3600.0


def random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Case:
    """A model made from its leaves, its initial state and its output times."""

    leaves: Tensors
    model: Callable[[Tensors], dgpde.Richards]
    psi0: Callable[[Tensors], Tensor]
    times: list[float]
    options: dgpde.SolveOptions
    ponding0: Callable[[Tensors], Tensor | float] = lambda leaves: 0.0

    def solve(self, leaves: Tensors, **options: object) -> dgpde.Solution:
        chosen = replace(self.options, **options)  # type: ignore[arg-type]
        return self.model(leaves).solve(self.psi0(leaves), self.times, chosen, ponding0=self.ponding0(leaves))

    def run(self, leaves: Tensors, backend: str | None = None) -> tuple[FieldRun, Tensors]:
        words, options = self.model(leaves).words, replace(self.options, backend=backend)
        start = check_start(words, self.psi0(leaves), self.times, options, self.ponding0(leaves))
        return set_up_field(words, start, options, "all", None)


def section() -> Case:
    """x-z section with a water table, a seepage face, rain and evaporation that switch, a well, a source and roots."""
    nz, nx = 7, 5
    grid = dgpde.Grid((nz, nx), ([0.3, 0.25, 0.2, 0.2, 0.15, 0.1, 0.05], [0.4, 0.5, 0.3, 0.6, 0.5]))
    leaves = {
        "k_sat": 3e-6 * torch.exp(2.0 * random(nz, nx, seed=1) - 1.0),
        "alpha": 1.5 + random(nz, nx, seed=2),
        "n": torch.tensor(1.7, dtype=torch.float64),
        "theta_s": 0.38 + 0.05 * random(nz, 1, seed=3),
        "ss": 1e-4 * (0.5 + random(nz, nx, seed=4)),
        "ratio": torch.tensor(2.5, dtype=torch.float64),
        "rain": torch.tensor([2e-5, 0.0, 1e-6, 5e-5], dtype=torch.float64)[:, None]
        * (0.8 + 0.4 * random(nx, seed=5)),
        "pet": torch.tensor([0.0, 8e-7, 3e-7, 0.0], dtype=torch.float64),
        "psi_min": torch.tensor(-4.0, dtype=torch.float64),
        "head": torch.tensor([0.55, 0.6, 0.5, 0.45], dtype=torch.float64),
        "conductance": torch.tensor(2e-6, dtype=torch.float64),
        "well": torch.tensor([-2e-7, -1e-7, -3e-7, 0.0], dtype=torch.float64),
        "source": 1e-8 * random(nz, nx, seed=6),
        "tp": torch.tensor([0.0, 8e-8, 5e-8, 2e-8], dtype=torch.float64)[:, None]
        * (0.8 + 0.4 * random(nx, seed=8)),
        "root_depth": 0.5 + 0.2 * random(nx, seed=9),
        "h1": torch.tensor(-0.1, dtype=torch.float64),
        "h4": -1.2 - 0.2 * random(nx, seed=10),
        "share": 0.8 + 0.2 * random(nx, 5, seed=20),
        "psi0": 0.45 - grid.z + 0.05 * random(nz, nx, seed=7),
        "pond": torch.full((nx,), 1e-3, dtype=torch.float64),
    }

    def model(v: Tensors) -> dgpde.Richards:
        soil = dgpde.VanGenuchten(0.05, v["theta_s"], v["alpha"], v["n"], v["k_sat"])
        share = dgpde.TabulatedStress(
            torch.nn.functional.pad(v["share"], (0, 1)), (-0.3, -60.0), torch.arange(nx)
        )
        atmosphere = dgpde.Atmosphere(
            dgpde.Series(v["rain"]), dgpde.Series(v["pet"]), v["psi_min"], 2e-3, evaporation_response=share
        )
        stress = dgpde.Feddes(v["h1"], -0.35, -0.45, -0.55, v["h4"], rate_high=8e-8, rate_low=3e-8)
        return dgpde.Richards(
            grid,
            soil,
            boundaries={
                "top": atmosphere,
                "west": dgpde.SeepageFace(),
                "east": dgpde.GeneralHead(dgpde.Series(v["head"]), v["conductance"]),
            },
            sources=[
                dgpde.Well((1, 2), dgpde.Series(v["well"])),
                dgpde.Source(v["source"]),
                dgpde.RootUptake(dgpde.Series(v["tp"]), root_depth=v["root_depth"], response=stress),
                dgpde.River([(2, 0), (2, 1)], dgpde.Series(v["head"]), 3e-7 + v["conductance"]),
            ],
            specific_storage=v["ss"],
            anisotropy=v["ratio"],
        )

    return Case(
        leaves,
        model,
        lambda v: v["psi0"],
        [0.0, 2 * HOUR, 20 * HOUR, 30 * HOUR, 32 * HOUR],
        dgpde.SolveOptions(
            # longer steps fail in one backend and not in another, whose steps then differ
            dt_initial=600.0,
            dt_min=1e-3,
            dt_max=2.0 * HOUR,
            tolerance=1e-13,
            time_error=2e-2,
            linear_tolerance=1e-12,
        ),
        lambda v: v["pond"],
    )


def domain() -> Case:
    """3-D domain over terrain with an inactive corner, prescribed heads, drainage, seepage, wells and roots whose
    response is a table."""
    nz, ny, nx = 4, 3, 3
    active = torch.ones(nz, ny, nx, dtype=torch.bool)
    active[2:, 2, 2] = False
    surface = 1.0 + 0.2 * (random(ny, nx, seed=17) - 0.5)
    spacing = ([0.4, 0.3, 0.2, 0.1], [1.0, 0.7, 0.9], 0.8)
    grid = dgpde.Grid((nz, ny, nx), spacing, active=active, surface=surface)
    leaves = {
        "k_sat": 2e-6 * torch.exp(2.0 * random(nz, ny, nx, seed=11) - 1.0),
        "lam": torch.tensor(0.6, dtype=torch.float64),
        "psi_e": 0.1 + 0.1 * random(nz, ny, nx, seed=12),
        "ss": torch.tensor(5e-5, dtype=torch.float64),
        "q": torch.tensor([1.5e-6, 1e-7, 3e-6], dtype=torch.float64)[:, None, None]
        * (0.5 + random(ny, nx, seed=13)),
        "H": torch.tensor([0.5, 0.7, 0.6], dtype=torch.float64),
        "psi_east": -0.5 + 0.3 * random(nz, ny, seed=14),
        "well": -1e-8 * (1.0 + random(3, 2, seed=15)),
        "density": random(nz, ny, 1, seed=18),
        "stress": 0.2 + 0.6 * random(2, 5, seed=19),
        "psi0": 0.3 - grid.z + 0.1 * random(nz, ny, nx, seed=16),
    }

    kind = (torch.arange(ny)[:, None] + torch.arange(nx)) % 2

    def table(values: Tensor) -> dgpde.TabulatedStress:
        wilted = torch.nn.functional.pad(values, (0, 1))
        return dgpde.TabulatedStress(wilted, (-0.02, -3.0), kind)

    def model(v: Tensors) -> dgpde.Richards:
        soil = dgpde.BrooksCorey(0.04, 0.4, v["psi_e"], v["lam"], v["k_sat"])
        return dgpde.Richards(
            grid,
            soil,
            boundaries={
                "top": dgpde.Flux(dgpde.Series(v["q"])),
                "bottom": dgpde.FreeDrainage(),
                "west": dgpde.HydraulicHead(dgpde.Series(v["H"])),
                "east": dgpde.Head(v["psi_east"]),
                "north": dgpde.SeepageFace(),
            },
            sources=[
                dgpde.Well([(0, 1, 1), (1, 1, 1)], dgpde.Series(v["well"])),
                dgpde.RootUptake(4e-8, density=v["density"], response=table(v["stress"])),
            ],
            specific_storage=v["ss"],
            face_mean="arithmetic",
        )

    return Case(
        leaves,
        model,
        lambda v: v["psi0"],
        [0.0, 3 * HOUR, 10 * HOUR, 14 * HOUR],
        dgpde.SolveOptions(
            dt_initial=900.0, dt_min=1e-3, tolerance=1e-13, time_error=2e-2, linear_tolerance=1e-12
        ),
    )


CASES = {"section": section, "domain": domain}


def losses(run: dgpde.Solution) -> Tensor:
    """A number that every output takes part in, with weights that tell them apart."""
    total = (run.psi * _weights(run.psi)).sum() + 10.0 * (run.theta * _weights(run.theta)).sum()
    total = total + 50.0 * (run.ponding * _weights(run.ponding)).sum()
    for flux in (*run.boundary_flux.values(), run.runoff, run.uptake):
        total = total + 1e6 * (flux * _weights(flux)).sum()
    return total


def _weights(value: Tensor) -> Tensor:
    return torch.cos(torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)


def dense(problem: StencilProblem, matrix: Tensor) -> Tensor:
    """[7, nz, ny, nx] coefficients as a square matrix."""
    nz, ny, nx = problem.shape
    cells, stride = problem.cells, (ny * nx, nx, 1)
    full = torch.diag(matrix[0].flatten())
    for axis in range(3):
        for sign, slot in ((-1, 1 + 2 * axis), (1, 2 + 2 * axis)):
            offset = sign * stride[axis]
            for row, value in enumerate(matrix[slot].flatten().tolist()):
                if value != 0.0:
                    assert 0 <= row + offset < cells
                    full[row, row + offset] += value
    return full


def by_autograd(run: FieldRun, inputs: Tensors) -> Tensors:
    """The outputs of a run on the steps that it took, each step one differentiable Newton correction."""
    problem = run.problem
    values = {name: value.detach() for name, value in inputs.items()}
    run.record = True
    run.forward(values)
    psi, ponding = inputs["psi0"], inputs["ponding0"]
    theta = retention(problem, inputs, psi)[0]
    out = {name: {} for name in run.output_names}
    out["psi"][0], out["ponding"][0] = psi, ponding
    for record in run.history:
        star = record.psi.clone()
        state = (theta, psi, ponding)
        step = Step(record.interval, record.dt, *(value.detach() for value in (psi, theta, ponding)))
        for _ in range(3):
            matrix = dense(problem, jacobian(problem, values, step, star)[0])
            residual = terms(problem, values, step, star, (step.theta, step.psi, step.ponding)).residual
            star = star - torch.linalg.solve(matrix, residual.flatten()).reshape(star.shape)
        residual = terms(problem, inputs, step, star, state).residual
        psi = star - torch.linalg.solve(matrix, residual.flatten()).reshape(star.shape)
        found = terms(problem, inputs, step, psi, state)
        theta, ponding = found.theta, found.outputs["ponding"]
        start, end = run.span(record.interval)
        for name in run.output_names[2:]:
            gain = record.dt / (end - start) * found.outputs[name]
            out[name][record.interval] = out[name].get(record.interval, 0.0) + gain
        out["psi"][record.interval + 1], out["ponding"][record.interval + 1] = psi, ponding
    return {name: torch.stack([value for _, value in sorted(rows.items())]) for name, rows in out.items()}
