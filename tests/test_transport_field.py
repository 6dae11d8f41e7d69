"""Transport on the field engine: what must hold of its answers, and three proofs of its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from transport_problem import directions, leaves, outputs, run, total

import dgpde
from dgpde.solute import Freundlich, Immobile, Linear, Solute
from dgpde.solution import Solution
from dgpde.steady_flow import SteadyFlow
from dgpde.transport import Transport
from dgpde.transport_boundary import Concentration, InflowConcentration, SoluteFlux, ZeroGradient

pytestmark = pytest.mark.filterwarnings("ignore:scheme 'central' may oscillate")

SCHEMES = ("upwind", "central", "tvd")
CASES = [
    ("upwind", False, "linear"),
    ("central", True, None),
    ("tvd", True, "kinetic"),
    ("tvd", False, "freundlich"),
    ("upwind", True, "langmuir"),
]


def storm() -> tuple[dgpde.Grid, Solution]:
    """A storm on an unsaturated layered section with a well, a river and elastic storage, adaptive steps."""
    grid = dgpde.Grid((8, 9), ([0.3, 0.2, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05], 0.4))
    layer = torch.where(torch.arange(8) < 4, 3e-6, 3e-5).double()[:, None]
    flow = dgpde.Richards(
        grid,
        dgpde.VanGenuchten(0.065, 0.41, 5.0, 1.7, layer),
        {
            "top": dgpde.Atmosphere(dgpde.Series([1.5e-5, 0.0]), dgpde.Series([0.0, 1e-7]), ponding_max=0.01),
            "bottom": dgpde.FreeDrainage(),
            "west": dgpde.SeepageFace(),
        },
        sources=[
            dgpde.Well([(5, 2)], 2e-7),
            dgpde.Well([(1, 7)], -1e-8),
            dgpde.River([(0, 8)], 0.3, 1e-7),
        ],
        specific_storage=1e-4,
    )
    return grid, flow.solve(-1.5, [0.0, 3600.0, 14400.0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_stays_one_through_a_storm(scheme: str) -> None:
    grid, flow = storm()
    # what evaporates must take its part along, else the rest grows richer
    solute = Solute("c", 0.1, 0.02, 1e-9, source_concentration=1.0, evaporates=True)
    found = Transport(grid, solute, {"top": InflowConcentration(1.0)}, scheme, cross_terms=True).solve(
        1.0, flow
    )
    assert float((found.concentration - 1.0).abs().max()) < 1e-12


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_a_storm_carries_mass_and_nothing_else(scheme: str) -> None:
    grid, flow = storm()
    solutes = [
        Solute("parent", 0.05, 0.0, 1e-9, sorption=Freundlich(1e-4, 0.7, 1500.0), decay=1e-6),
        Solute(
            "daughter", 0.05, parent="parent", immobile=Immobile(0.03, 1e-5), sorption=Linear(1e-4, 1500.0)
        ),
    ]
    found = Transport(grid, solutes, {"top": InflowConcentration(1.0)}, scheme).solve(0.0, flow)
    c = found.concentration
    # bounded by what comes in; the daughter by what the parent gives. Round-off of the solves: 1e-12 of the largest.
    assert float(c.min()) > -1e-12
    assert float(c[:, 0].max()) <= 1.0 + 1e-12
    assert float(found.mass_balance_error.max()) < 1e-10


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_a_sharp_front_is_bounded_on_uneven_cells(scheme: str) -> None:
    # no dispersion at all, Courant numbers from 0.2 to 5
    dx = torch.tensor([0.1, 0.4, 0.15, 0.3, 0.1, 0.1, 0.5, 0.2, 0.1, 0.3], dtype=torch.float64)
    grid = dgpde.Grid((2, 10), (0.5, dx))
    flow = SteadyFlow(0.3, {"x": torch.tensor([[3e-5], [-1e-5]], dtype=torch.float64).expand(2, 11)})
    transport = Transport(
        grid, Solute("c"), {"west": InflowConcentration(1.0), "east": InflowConcentration(1.0)}, scheme
    )
    found = transport.solve(0.0, flow, [0.0, 300.0, 1500.0, 6500.0])
    c = found.concentration
    # to the tolerance of the solves
    assert float(c.min()) >= -1e-12
    assert float(c.max()) <= 1.0 + 1e-12
    assert bool((c[:, 0].diff(dim=1) <= 1e-12).all())
    assert bool((c[:, 1].diff(dim=1) >= -1e-12).all())
    assert float(found.mass_balance_error) < 1e-10


def test_zones_without_part_take_none() -> None:
    active = torch.ones(3, 4, dtype=torch.bool)
    active[1, 1] = False
    grid = dgpde.Grid((3, 4), (0.5, 0.5), active=active)
    flow = dgpde.Richards(
        grid, dgpde.Saturated(1e-5), {"west": dgpde.HydraulicHead(1.0), "east": dgpde.HydraulicHead(0.0)}
    ).solve(0.5, [0.0, 3e4], dgpde.SolveOptions(dt_fixed=1e4))
    c0 = torch.full((3, 4), 0.25, dtype=torch.float64, requires_grad=True)
    found = Transport(grid, Solute("c", 0.1, 0.01), {"west": Concentration(1.0)}, "tvd", True).solve(c0, flow)
    assert float(found.concentration[-1, 1, 1].detach()) == 0.25
    assert float(found.mass_balance_error) < 1e-10
    (found.concentration[-1] ** 2).sum().backward()
    assert c0.grad is not None
    assert float(c0.grad[1, 1]) == 0.5


@pytest.mark.parametrize(("scheme", "cross_terms", "sorbs"), CASES)
def test_the_cpu_backend_is_the_reference(scheme: str, cross_terms: bool, sorbs: str | None) -> None:
    found = []
    for backend in ("cpu", "reference"):
        p = {name: value.requires_grad_() for name, value in leaves().items()}
        answer = run(p, scheme, cross_terms, sorbs, backend=backend)
        total(answer).backward()
        found.append(([part.detach() for part in outputs(answer)], {n: v.grad for n, v in p.items()}))
    for one, two in zip(found[0][0], found[1][0], strict=True):
        # both solve to a relative 1e-13, in 12 steps
        assert float((one - two).abs().max()) < 1e-9 * float(two.abs().max())
    for name, two in found[1][1].items():
        one = found[0][1][name]
        assert (one is None) == (two is None), name
        if one is not None and two is not None:
            assert float((one - two).norm()) <= 1e-7 * float(two.norm()), name


@pytest.mark.parametrize(("scheme", "cross_terms", "sorbs"), CASES)
def test_gradients_by_taylor_and_by_the_dot_product(
    scheme: str, cross_terms: bool, sorbs: str | None
) -> None:
    p, d = leaves(), directions(leaves())
    tracked = {name: value.clone().requires_grad_() for name, value in p.items()}
    value = total(run(tracked, scheme, cross_terms, sorbs))
    value.backward()
    pulled = {name: 0.0 if v.grad is None else float((v.grad * d[name]).sum()) for name, v in tracked.items()}
    # a section has no horizontal across; everything else counts
    assert {name for name, slope in pulled.items() if slope == 0.0} == {"horizontal"}
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(v, d[name]) for name, v in p.items()}
        pushed = sum(
            float(forward_ad.unpack_dual(part).tangent.sum())
            for part in outputs(run(duals, scheme, cross_terms, sorbs))
        )
    slope = sum(pulled.values())
    assert abs(pushed - slope) < 1e-10 * abs(slope)
    rest = []
    for size in (1e-3, 5e-4):
        with torch.no_grad():
            there = total(run({n: v + size * d[n] for n, v in p.items()}, scheme, cross_terms, sorbs))
        rest.append(abs(float((there - value).detach()) - size * slope))
    # order 2: a quarter; the limiter has kinks, which a step this small may cross
    assert rest[1] < (0.27 if scheme != "tvd" else 0.35) * rest[0]


def test_checkpoints_change_no_bit() -> None:
    found = []
    for every in (None, 1, 2):
        p = {name: value.requires_grad_() for name, value in leaves().items()}
        answer = run(p, "tvd", False, "freundlich", every=every)
        total(answer).backward()
        found.append((answer.concentration.detach(), {n: v.grad for n, v in p.items() if v.grad is not None}))
    for c, gradients in found[1:]:
        assert torch.equal(c, found[0][0])
        for name, gradient in found[0][1].items():
            assert torch.equal(gradients[name], gradient), name


def _steady(theta: Tensor, flux: Tensor, c0: Tensor, k_d: Tensor) -> Tensor:
    grid = dgpde.Grid((1, 3), (1.0, 0.5))
    solute = Solute("c", 0.2, diffusion=1e-9, sorption=Linear(k_d, 1500.0))
    transport = Transport(grid, solute, {"west": InflowConcentration(1.0), "east": ZeroGradient()})
    flow = SteadyFlow(theta, {"x": flux.expand(1, 4)}, theta_s=0.4)
    found = transport.solve(c0, flow, [0.0, 1e4, 2e4, 2.5e4])
    return torch.cat([found.concentration.flatten(), 1e5 * found.solute_flux["east"].flatten()])


def test_gradcheck_along_a_steady_flow() -> None:
    at = (
        torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
        torch.tensor(1e-5, dtype=torch.float64, requires_grad=True),
        torch.tensor([[0.1, 0.3, 0.2]], dtype=torch.float64, requires_grad=True),
        torch.tensor(2e-4, dtype=torch.float64, requires_grad=True),
    )
    # steps of the finite differences of 1e-6 of values of very different sizes
    scale = torch.tensor([1.0, 1e-5, 1.0, 1e-4], dtype=torch.float64)
    scaled = tuple((value.detach() / size).requires_grad_() for value, size in zip(at, scale, strict=True))
    assert torch.autograd.gradcheck(
        lambda *x: _steady(*(value * size for value, size in zip(x, scale, strict=True))),
        scaled,
        check_forward_ad=True,
    )


def test_second_derivatives_raise() -> None:
    flux = torch.tensor(1e-5, dtype=torch.float64, requires_grad=True)
    value = _steady(torch.tensor(0.3), flux, torch.zeros(1, 3, dtype=torch.float64), torch.tensor(1e-4)).sum()
    (slope,) = torch.autograd.grad(value, flux, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        slope.backward()


def test_bad_input() -> None:
    grid, flow = storm()
    transport = Transport(grid, Solute("c"), {"east": Concentration(1.0)})
    with pytest.raises(ValueError, match="^boundaries.*no water passes that side"):
        transport.solve(0.0, flow)
    with pytest.raises(ValueError, match="^backend must be one of cpu, triton, reference"):
        Transport(grid, Solute("c")).solve(0.0, flow, options=dgpde.SolveOptions(backend="cuda"))
    with pytest.raises(dgpde.SolveError, match="no mobile water"):
        Transport(grid, Solute("c", immobile=Immobile(0.4, 1e-5))).solve(0.0, flow)
    single = Transport(grid, Solute("c"))
    flow.field_run = None
    with pytest.raises(ValueError, match="^flow has not kept its run"):
        single.solve(0.0, flow)


def test_a_central_scheme_says_when_it_may_oscillate() -> None:
    grid = dgpde.Grid((1, 4), (1.0, 1.0))
    flow = SteadyFlow(0.25, {"x": 1e-5})
    with pytest.warns(UserWarning, match=r"Peclet number is 10 .*Courant number 0.4;"):
        Transport(grid, Solute("c", 0.1), scheme="central").solve(0.0, flow, [0.0, 1e4])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "boundary", [Concentration(1.0), InflowConcentration(1.0), SoluteFlux(2e-6), ZeroGradient()]
)
def test_columns_are_those_of_the_column_engine(scheme: str, boundary: object) -> None:
    # steps of one length, so that both engines take the same; what comes in wets the columns, then they drain
    # The limiters differ on uneven layers, where that of fields is exact for a linear concentration.
    grid = dgpde.Grid.columns(3, dz=5 * [0.1] if scheme == "tvd" else [0.2, 0.1, 0.1, 0.05, 0.05])
    options = dgpde.SolveOptions(dt_fixed=600.0, tolerance=1e-13, linear_tolerance=1e-12)
    k_sat = torch.tensor([1e-5, 3e-6, 2e-5], dtype=torch.float64)
    rain = dgpde.Series(torch.tensor([4e-6, 0.0], dtype=torch.float64))
    solutes = [
        Solute("parent", 0.03, diffusion=1e-9, sorption=Freundlich(1e-4, 0.8, 1500.0), decay=2e-6),
        Solute(
            "daughter",
            0.03,
            parent="parent",
            sorption=Linear(1e-4, 1500.0, rate=1e-4),
            immobile=Immobile(0.02, 1e-5),
        ),
    ]
    found = []
    for engine in ("column", "field"):
        soil = dgpde.VanGenuchten(0.065, 0.41, 7.5, 1.89, k_sat)
        sides = {"top": dgpde.Flux(rain), "bottom": dgpde.FreeDrainage()}
        flow = dgpde.Richards(grid, soil, sides, engine=engine).solve(-0.8, [0.0, 3600.0, 10800.0], options)
        transport = Transport(grid, solutes, {"top": boundary}, scheme)  # type: ignore[dict-item]
        found.append(transport.solve(0.2, flow, options=options))
    column, field = found
    # 18 steps, each solved to 1e-12 or better
    assert float((column.concentration - field.concentration).abs().max()) < 1e-9
    for side in ("top", "bottom"):
        assert float((column.solute_flux[side] - field.solute_flux[side]).abs().max()) < 1e-14
