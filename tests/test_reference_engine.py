"""The PyTorch reference of the column engine held to physics and to itself, before anything is held to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from dgpde.kernels.column_flow.problem import SOIL_PARAMETERS, ColumnProblem, ColumnResult
from dgpde.kernels.column_flow.reference import column_flow_reference
from dgpde.kernels.column_flow.reference_residual import (
    StepData,
    column_end,
    linearise,
    prepare,
    residual,
    terms,
    with_forcing,
    with_state,
)
from dgpde.kernels.soil_relation.reference import theta_kr
from dgpde.options import SolveOptions

Inputs = dict[str, Tensor]
LOAM = {"theta_r": 0.078, "theta_s": 0.43, "alpha": 3.6, "n": 1.56, "l": 0.5, "air_entry": 0.02}
K_SAT = 2.9e-6
HOUR = 3600.0

VALUES: dict[str, dict[str, float]] = {
    "head": {"psi": -0.4},
    "flux": {"q": 5e-7},
    "free_drainage": {},
    "seepage_face": {},
    "general_head": {"head": 0.7, "conductance": 2e-7},
    "deep_water_table": {"level": -1.0, "coefficient": 4e-7, "exponent": 0.8},
    "atmosphere": {"precipitation": 4e-6, "evaporation": 2e-7, "psi_min": -50.0, "ponding_max": 0.01},
}


def make(
    top: str = "flux",
    bottom: str = "free_drainage",
    *,
    nz: int = 6,
    n: int = 2,
    intervals: int = 2,
    roots: bool = False,
    sources: bool = False,
    face_mean: str = "arithmetic",
    gravity: float = 1.0,
    psi0: float = -1.0,
    omega_c: float = 0.6,
    values: dict[str, float] | None = None,
    **options: object,
) -> tuple[ColumnProblem, Inputs]:
    """A small problem with layers, uneven cells and columns that differ, and its inputs."""
    generator = torch.Generator().manual_seed(3)

    def spread(value: float, *shape: int, by: float = 0.1) -> Tensor:
        noise = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return value * (1.0 + by * (noise - 0.5))

    times = torch.arange(intervals + 1, dtype=torch.float64) * 2.0 * HOUR
    settings = {"dt_fixed": HOUR, "record_steps": True} | options
    problem = ColumnProblem(
        n=n,
        nz=nz,
        dz=torch.linspace(0.12, 0.05, nz, dtype=torch.float64),
        gravity=gravity,
        relation="van_genuchten",
        variant=0,
        face_mean=face_mean,
        top=top,
        bottom=bottom,
        roots=roots,
        sources=sources,
        times=times,
        save=tuple(range(intervals + 1)),
        options=SolveOptions(**settings),  # type: ignore[arg-type]
    )
    inputs: Inputs = {
        "psi0": spread(psi0, nz, n),
        "ponding0": spread(0.002, n) if top == "atmosphere" else torch.zeros(n, dtype=torch.float64),
        "k_sat": spread(K_SAT, nz, n, by=1.0),
        "specific_storage": spread(1e-4, nz, n),
    }
    for name in SOIL_PARAMETERS["van_genuchten"]:
        inputs[f"soil.{name}"] = spread(LOAM[name], nz, n)
    for side, kind in (("top", top), ("bottom", bottom)):
        for name, value in VALUES[kind].items():
            value = (values or {}).get(f"{side}.{name}", value)
            inputs[f"{side}.{name}"] = spread(value, intervals, n)
    if roots:
        density = torch.linspace(0.0, 1.0, nz, dtype=torch.float64)[:, None].expand(intervals, nz, n)
        inputs["root_density"] = density / (density * problem.dz[:, None]).sum(1, keepdim=True)
        inputs["transpiration"] = spread(6e-8, intervals, n)
        for name, value in {"h1": -0.1, "h2": -0.25, "h3": -0.8, "h4": -3.0}.items():
            inputs[name] = spread(value, intervals, n, by=0.02)
        inputs["omega_c"] = spread(omega_c, n, by=0.02)
    if sources:
        inputs["source"] = spread(2e-8, intervals, nz, n)
    return problem, inputs


def one_step(problem: ColumnProblem, inputs: Inputs, dt: float = HOUR) -> StepData:
    data = with_forcing(prepare(problem, inputs), inputs, 0)
    return with_state(
        data, inputs["psi0"], inputs["ponding0"], torch.full((problem.n,), dt, dtype=torch.float64)
    )


def observe(result: ColumnResult) -> Tensor:
    """A scalar that sees every output, each brought to the order of 1."""
    weight = torch.linspace(0.5, 1.5, result.psi[-1].numel(), dtype=torch.float64).reshape(
        result.psi[-1].shape
    )
    fluxes = result.top_flux + 0.7 * result.bottom_flux + 0.4 * result.runoff + 1.3 * result.uptake
    return (weight * result.psi[-1]).sum() + 1e6 * fluxes.sum() + 50.0 * result.ponding[-1].sum()


CASES = {
    "flux over free drainage": {"top": "flux", "bottom": "free_drainage"},
    "head over head": {"top": "head", "bottom": "head"},
    "rain that ponds": {"top": "atmosphere", "bottom": "seepage_face", "values": {"top.precipitation": 2e-5}},
    "rain that runs off": {
        "top": "atmosphere",
        "bottom": "flux",
        "values": {"top.precipitation": 8e-5, "bottom.q": 0.0, "top.ponding_max": 0.003},
        "psi0": -0.2,
    },
    "drying to the limit": {
        "top": "atmosphere",
        "bottom": "deep_water_table",
        "values": {"top.precipitation": 0.0, "top.evaporation": 3e-6, "top.psi_min": -3.0},
        "psi0": -2.0,
    },
    "light rain": {"top": "atmosphere", "bottom": "general_head", "values": {"top.precipitation": 3e-7}},
    "seepage from a wet column": {"top": "seepage_face", "bottom": "general_head", "psi0": 0.3},
    "roots with compensation": {"roots": True, "psi0": -1.2},
    "roots without compensation": {"roots": True, "psi0": -2.0, "omega_c": 0.99},
    "source": {"sources": True},
    "upstream mean": {"face_mean": "upstream"},
    "geometric mean": {"face_mean": "geometric", "top": "head"},
    "harmonic mean": {"face_mean": "harmonic", "top": "head"},
    "lying flat": {"top": "head", "bottom": "head", "gravity": 0.0, "values": {"bottom.psi": -3.0}},
    "saturated": {
        "top": "head",
        "bottom": "head",
        "psi0": 0.5,
        "values": {"top.psi": 0.2, "bottom.psi": 0.9},
    },
}
NAMES = tuple(CASES)


def case(name: str, **more: object) -> tuple[ColumnProblem, Inputs]:
    return make(**(CASES[name] | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stepping", ["fixed", "adaptive"])
def test_mass_balance(name: str, stepping: str) -> None:
    """What the balance is made of is summed here again, from the outputs alone where they suffice."""
    problem, inputs = case(name, dt_fixed=HOUR if stepping == "fixed" else None, dt_initial=300.0)
    result = column_flow_reference(problem, inputs)
    report = result.report
    assert (report.status == 0).all()
    assert (report.mass_balance_error < 1e-12).all()
    assert (report.water_moved > 0.0).all()
    length = problem.times.diff()[:, None]
    gain = (result.top_flux + result.bottom_flux - result.uptake) * length
    if problem.sources:
        gain = gain + (inputs["source"] * problem.dz[:, None]).sum(1) * length
    data = prepare(problem, inputs | {"specific_storage": torch.zeros_like(inputs["specific_storage"])})
    theta = torch.stack([data.retention(psi)[0] for psi in result.psi])
    change = ((theta[-1] - theta[0]) * problem.dz[:, None]).sum(0)
    # The elastic storage Ss dpsi is all that the water contents do not show.
    elastic = 1.1e-4 * (problem.dz[:, None] * (result.psi[1:] - result.psi[:-1]).abs()).sum((0, 1)) + 1e-12
    assert ((change - gain.sum(0)).abs() <= elastic).all()
    if problem.top == "atmosphere":
        net = inputs["top.precipitation"] - inputs["top.evaporation"]
        pond = (net - result.top_flux - result.runoff) * length
        if name != "drying to the limit":
            torch.testing.assert_close(result.ponding.diff(dim=0), pond, rtol=0.0, atol=1e-15)
    for sizes, span in zip(report.step_sizes or [], length[:, 0], strict=True):
        torch.testing.assert_close(sizes.sum(0), span.expand(problem.n), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_jacobian_is_that_of_dense_automatic_differentiation(name: str) -> None:
    """The coloured, rank-one corrected Jacobian against one row at a time through the whole residual."""
    problem, inputs = case(name)
    data = one_step(problem, inputs)
    psi = inputs["psi0"] + 0.01 * torch.arange(problem.nz, dtype=torch.float64)[:, None]
    _, jacobian = linearise(psi, data)
    dense = torch.autograd.functional.jacobian(lambda x: residual(x, data), psi)  # [nz, n, nz, n]
    assert isinstance(dense, Tensor)
    for column in range(problem.n):
        scale = dense.abs().max().item()
        torch.testing.assert_close(
            jacobian[column], dense[:, column, :, column], rtol=0.0, atol=1e-14 * scale
        )
        assert dense[:, column, :, 1 - column].abs().max() == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_steps_solve_their_equation(name: str) -> None:
    """The residual of the state that a step ends in is nothing but round-off."""
    problem, inputs = case(name, intervals=1, dt_fixed=2.0 * HOUR)
    result = column_flow_reference(problem, inputs)
    data = one_step(problem, inputs, 2.0 * HOUR)
    left = terms(result.psi[-1], data)
    assert (left.residual.abs() <= 1e-14 * left.magnitude).all()
    torch.testing.assert_close(left.top.flux, result.top_flux[0], rtol=1e-12, atol=0.0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, in forward mode
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_against_reverse_mode(name: str) -> None:
    """<J v, w> = <v, J^T w> for every input at once, with steps of varying length."""
    problem, inputs = case(name, dt_fixed=None, dt_initial=600.0, time_error=2e-2)
    steps = column_flow_reference(problem, inputs).report.step_sizes
    assert steps is not None
    assert any(len(set(sizes[:, 0].tolist())) > 1 for sizes in steps)
    generator = torch.Generator().manual_seed(5)
    direction = {
        name: value * (torch.rand(value.shape, generator=generator, dtype=torch.float64) - 0.5)
        for name, value in inputs.items()
    }
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, direction[name]) for name, value in inputs.items()}
        pushed = forward_ad.unpack_dual(observe(column_flow_reference(problem, duals, steps))).tangent
        assert pushed is not None
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    observe(column_flow_reference(problem, leaves, steps)).backward()
    pulled = torch.zeros((), dtype=torch.float64)
    size = torch.zeros((), dtype=torch.float64)
    for key, leaf in leaves.items():
        assert leaf.grad is not None, key
        assert torch.isfinite(leaf.grad).all(), key
        part = (leaf.grad * direction[key]).sum()
        pulled, size = pulled + part, size + part.abs()
    assert (pulled - pushed).abs() <= 1e-12 * size


@pytest.mark.parametrize("name", NAMES)
def test_taylor_remainder(name: str) -> None:
    """f(x + e v) - f(x) - e <grad, v> shrinks with the square of e, all inputs moved at once."""
    problem, inputs = case(name, dt_fixed=None, dt_initial=600.0, time_error=2e-2)
    steps = column_flow_reference(problem, inputs).report.step_sizes
    generator = torch.Generator().manual_seed(9)
    direction = {
        name: value * (torch.rand(value.shape, generator=generator, dtype=torch.float64) - 0.5)
        for name, value in inputs.items()
    }
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    base = observe(column_flow_reference(problem, leaves, steps))
    base.backward()
    slope = sum((leaf.grad * direction[key]).sum() for key, leaf in leaves.items() if leaf.grad is not None)
    remainders = []
    for size in (2e-4, 1e-4, 5e-5):
        moved = {key: value + size * direction[key] for key, value in inputs.items()}
        change = observe(column_flow_reference(problem, moved, steps)) - base.detach()
        remainders.append((change - size * slope).abs().item())
    orders = [
        torch.log2(torch.tensor(a / b)).item() for a, b in zip(remainders, remainders[1:], strict=False)
    ]
    assert all(abs(order - 2.0) < 0.1 for order in orders), (orders, remainders)


@pytest.mark.parametrize("name", ["rain that ponds", "roots with compensation"])
def test_gradcheck(name: str) -> None:
    """torch.autograd.gradcheck of a tiny case: psi at the end and fluxes with respect to all inputs."""
    problem, inputs = case(name, nz=3, n=1, intervals=1, dt_fixed=2.0 * HOUR)
    keys = problem.input_names()

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        result = column_flow_reference(problem, dict(zip(keys, values, strict=True)))
        return result.psi[-1], result.ponding[-1], 1e6 * result.top_flux, 1e6 * result.bottom_flux

    # Inputs scaled to the order of 1, so that one step of the differences suits them all.
    scale = [inputs[key].abs().max() if inputs[key].abs().max() > 0 else torch.tensor(1.0) for key in keys]

    def scaled(*values: Tensor) -> tuple[Tensor, ...]:
        return outputs(*(value * size for value, size in zip(values, scale, strict=True)))

    leaves = [(inputs[key] / size).clone().requires_grad_() for key, size in zip(keys, scale, strict=True)]
    assert torch.autograd.gradcheck(scaled, leaves, eps=1e-6, atol=2e-6, rtol=1e-5)


def test_boundary_branches() -> None:
    """Each branch of each boundary is reached and gives the flux that its definition asks for."""
    problem, inputs = make("atmosphere", "free_drainage", n=1, intervals=1)
    k_top, dz = inputs["k_sat"][-1], problem.dz[-1]
    half = k_top / (0.5 * dz)

    def at(
        rain: float, evaporation: float, psi: float, pond: float, depth: float = 0.01
    ) -> tuple[float, ...]:
        forcing = {"precipitation": rain, "evaporation": evaporation, "psi_min": -50.0, "ponding_max": depth}
        changed = inputs | {
            f"top.{key}": torch.full((1, 1), value, dtype=torch.float64) for key, value in forcing.items()
        }
        data = replace(one_step(problem, changed), ponding_old=torch.tensor([pond], dtype=torch.float64))
        state = torch.tensor([psi], dtype=torch.float64)
        kr = data.retention(state, -1)[1]
        end = column_end(data, "top", state, kr)
        return end.flux.item(), end.ponding.item(), end.runoff.item(), kr.item()

    # what the sky asks for
    flux, pond, runoff, _ = at(1e-8, 3e-8, -1.0, 0.0)
    assert flux == pytest.approx(-2e-8, rel=1e-12)
    assert (pond, runoff) == (0.0, 0.0)
    # drying limited by psi_min
    flux, pond, runoff, kr = at(0.0, 1e-3, -1.0, 0.0)
    kr_dry = one_step(problem, inputs).retention(torch.tensor([-50.0], dtype=torch.float64), -1)[1].item()
    assert flux == pytest.approx((half * 0.5 * (kr + kr_dry) * (-50.0 + 1.0 + 0.5 * dz)).item(), rel=1e-12)
    assert (pond, runoff) == (0.0, 0.0)
    # a pond grows: Darcy flux under its own depth at the end of the step, and its balance
    flux, pond, runoff, kr = at(2e-5, 0.0, -0.1, 0.001, depth=1.0)
    assert flux == pytest.approx((half * 0.5 * (1.0 + kr) * (pond + 0.1 + 0.5 * dz)).item(), rel=1e-12)
    assert pond == pytest.approx(0.001 + HOUR * (2e-5 - flux), rel=1e-12)
    assert pond > 0.0
    assert runoff == 0.0
    # a full pond runs off
    flux, pond, runoff, kr = at(2e-4, 0.0, -0.1, 0.001)
    assert pond == 0.01
    assert flux == pytest.approx((half * 0.5 * (1.0 + kr) * (0.01 + 0.1 + 0.5 * dz)).item(), rel=1e-12)
    assert runoff == pytest.approx(2e-4 - flux - 0.009 / HOUR, rel=1e-12)
    # a pond that the soil drinks within the step
    flux, pond, runoff, _ = at(0.0, 0.0, -1.0, 0.0001)
    assert flux == pytest.approx(0.0001 / HOUR, rel=1e-12)
    assert (pond, runoff) == (0.0, 0.0)


@pytest.mark.parametrize(("psi", "open_"), [(-0.5, False), (0.5, True)])
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_seepage_face_opens_outwards_only(side: str, psi: float, open_: bool) -> None:
    problem, inputs = make("seepage_face", "seepage_face", n=1, intervals=1)
    data = one_step(problem, inputs)
    row = -1 if side == "top" else 0
    state = torch.tensor([psi], dtype=torch.float64)
    flux = column_end(data, side, state, data.retention(state, row)[1]).flux.item()
    dz = problem.dz[row].item()
    rise = 0.5 * dz if side == "top" else -0.5 * dz
    expected = inputs["k_sat"][row].item() / (0.5 * dz) * (rise - psi) if open_ else 0.0
    assert flux == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["head", "flux", "general_head"])
def test_mirror(kind: str) -> None:
    """Without gravity a column turned upside down gives the same heads upside down."""
    problem, inputs = make(kind, "head" if kind == "head" else kind, gravity=0.0)
    if kind == "general_head":
        problem = replace(problem, top="general_head", bottom="general_head")
    swap = {"top": "bottom", "bottom": "top"}
    turned = {}
    for name, value in inputs.items():
        side, _, rest = name.partition(".")
        turned[f"{swap[side]}.{rest}" if side in swap else name] = (
            value.flip(0) if value.dim() == 2 and value.shape[0] == problem.nz else value
        )
    straight = column_flow_reference(problem, inputs)
    mirrored = column_flow_reference(replace(problem, dz=problem.dz.flip(0)), turned)
    torch.testing.assert_close(mirrored.psi, straight.psi.flip(1), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(mirrored.top_flux, straight.bottom_flux, rtol=1e-9, atol=1e-18)


def test_hydrostatic_equilibrium_stays() -> None:
    problem, inputs = make("flux", "head", values={"top.q": 0.0, "bottom.psi": 0.0})
    z = problem.dz.cumsum(0) - 0.5 * problem.dz
    inputs["psi0"] = -z[:, None].expand(problem.nz, problem.n)
    result = column_flow_reference(problem, inputs)
    torch.testing.assert_close(result.psi[-1], inputs["psi0"], rtol=0.0, atol=1e-13)
    assert result.bottom_flux.abs().max() < 1e-18


def test_columns_do_not_see_each_other() -> None:
    """A batch gives what its columns give alone, also when one of them needs other steps or fails."""
    problem, inputs = make("atmosphere", "free_drainage", n=3, dt_fixed=None, time_error=0.02)
    inputs["psi0"][:, 1] = -30.0
    together = column_flow_reference(problem, inputs)
    for column in range(3):
        alone = {name: value[..., column : column + 1] for name, value in inputs.items()}
        single = column_flow_reference(replace(problem, n=1), alone)
        assert single.report.steps.item() == together.report.steps[column].item()
        torch.testing.assert_close(single.psi[..., 0], together.psi[..., column], rtol=1e-13, atol=1e-13)
    broken = inputs | {"k_sat": inputs["k_sat"].clone()}
    broken["k_sat"][2, 0] = torch.nan
    result = column_flow_reference(problem, broken)
    assert result.report.status.tolist() == [2, 0, 0]
    assert result.report.failed_time[0] == 0.0
    assert result.report.failed_time[1:].isnan().all()
    torch.testing.assert_close(result.psi[..., 1:], together.psi[..., 1:], rtol=0.0, atol=0.0)


def test_replay_repeats_a_run() -> None:
    problem, inputs = make("atmosphere", "free_drainage", n=3, dt_fixed=None, time_error=0.02)
    first = column_flow_reference(problem, inputs)
    again = column_flow_reference(problem, inputs, first.report.step_sizes)
    # Other columns share the batch of a step now, which changes the order of sums in the linear algebra.
    torch.testing.assert_close(again.psi, first.psi, rtol=1e-12, atol=1e-13)
    assert torch.equal(first.report.steps, again.report.steps)


def test_fixed_steps_are_equal_and_cut_ones_land_on_the_mesh() -> None:
    problem, inputs = make("flux", "free_drainage", n=1, intervals=1, dt_fixed=0.7 * HOUR)
    sizes = column_flow_reference(problem, inputs).report.step_sizes
    assert sizes is not None
    torch.testing.assert_close(sizes[0][:, 0], torch.full((3,), 2.0 * HOUR / 3.0, dtype=torch.float64))
    # One Newton iteration does not do for a step of this length: it is cut, for as long as it must.
    problem = replace(problem, options=SolveOptions(dt_fixed=HOUR, max_newton=1, record_steps=True))
    hard = inputs | {
        "psi0": torch.full_like(inputs["psi0"], -500.0),
        "top.q": torch.full((1, 1), 2e-5, dtype=torch.float64),
    }
    result = column_flow_reference(problem, hard)
    assert result.report.status.item() == 0
    sizes = result.report.step_sizes
    assert sizes is not None
    landed = sizes[0][:, 0].cumsum(0)
    assert ((landed - HOUR).abs() < 1e-6).any()
    assert landed[-1].item() == pytest.approx(2.0 * HOUR, rel=1e-12)
    assert result.report.restarts.item() > 0


def test_limits_are_reported() -> None:
    problem, inputs = make("flux", "free_drainage", n=2, dt_fixed=None, max_steps=3, dt_initial=1.0)
    report = column_flow_reference(problem, inputs).report
    assert report.status.tolist() == [3, 3]
    assert report.steps.tolist() == [3, 3]
    assert (report.failed_time < problem.times[-1]).all()


def test_tightening_the_time_error_takes_more_steps_and_helps() -> None:
    errors, steps = [], []
    exact = None
    for tolerance in (1e-5, 1e-3, 1e-2):
        problem, inputs = make(
            "flux", "free_drainage", n=1, dt_fixed=None, time_error=tolerance, dt_initial=60.0
        )
        result = column_flow_reference(problem, inputs)
        exact = result.psi[-1] if exact is None else exact
        errors.append((result.psi[-1] - exact).abs().max().item())
        steps.append(int(result.report.steps.item()))
    assert errors[0] < errors[1] < errors[2]
    assert steps[0] > 3 * steps[1] > 3 * steps[2]


def table_of(soils: list[dict[str, float]], first: float, spacing: float, count: int) -> Tensor:
    """Knots [n_class, count, 4] of van Genuchten soils: values and slopes in x = ln(-psi)."""
    x = (first + spacing * torch.arange(count, dtype=torch.float64)).requires_grad_()
    tables = []
    for soil in soils:
        params = {name: torch.full_like(x, value) for name, value in soil.items()}
        theta, kr = theta_kr("van_genuchten", 0, params, -x.exp())
        ln_kr = kr.log()
        slopes = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (theta, ln_kr)]
        table = torch.stack([theta, slopes[0], ln_kr, slopes[1]], dim=-1).detach()
        table[0] = torch.tensor([soil["theta_s"], 0.0, 0.0, 0.0])
        tables.append(table)
    return torch.stack(tables)


def test_tabulated_soils() -> None:
    """Two classes baked into knots give nearly what their relations give, and exact gradients to the knots."""
    problem, inputs = make(
        "atmosphere", "free_drainage", n=3, dt_fixed=None, dt_initial=600.0, time_error=2e-2
    )
    soils = [LOAM | {"air_entry": 0.0, "n": 2.1}, LOAM | {"air_entry": 0.0, "n": 2.6, "alpha": 2.0}]
    classes = (torch.arange(problem.nz)[:, None] + torch.arange(problem.n)) // 2 % 2
    for name in SOIL_PARAMETERS["van_genuchten"]:
        inputs[f"soil.{name}"] = torch.tensor([soil[name] for soil in soils], dtype=torch.float64)[classes]
    smooth = column_flow_reference(problem, inputs)
    steps = smooth.report.step_sizes

    first, spacing, count = -8.0, 0.05, 260
    baked = replace(problem, relation="tabulated", classes=classes.to(torch.int32), knots=(first, spacing))
    table = table_of(soils, first, spacing, count)
    others = {name: value for name, value in inputs.items() if not name.startswith("soil.")}
    leaf = table.clone().requires_grad_()
    result = column_flow_reference(baked, others | {"soil.table": leaf}, steps)
    torch.testing.assert_close(result.psi[-1], smooth.psi[-1], rtol=1e-4, atol=1e-5)

    base = observe(result)
    base.backward()
    assert leaf.grad is not None
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(table.shape, generator=generator, dtype=torch.float64) - 0.5
    direction = noise * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=torch.float64)
    direction[:, 0] = 0.0
    slope = (leaf.grad * direction).sum()
    remainders = []
    for size in (1e-5, 5e-6, 2.5e-6):
        moved = column_flow_reference(baked, others | {"soil.table": table + size * direction}, steps)
        remainders.append((observe(moved) - base - size * slope).abs().item())
    orders = [
        torch.log2(torch.tensor(a / b)).item() for a, b in zip(remainders, remainders[1:], strict=False)
    ]
    assert all(abs(order - 2.0) < 0.1 for order in orders), (orders, remainders)


def test_dry_relative_permeability_that_underflows() -> None:
    """Gardner at -1000 m: kr is exactly 0; geometric and harmonic means and their derivatives stay finite."""
    for mean in ("geometric", "harmonic"):
        problem, inputs = make("flux", "free_drainage", n=1, face_mean=mean)
        problem = replace(problem, relation="gardner")
        del inputs["soil.n"], inputs["soil.l"], inputs["soil.air_entry"]
        inputs["psi0"] = torch.full_like(inputs["psi0"], -1000.0).requires_grad_()
        result = column_flow_reference(problem, inputs)
        assert (result.report.status == 0).all()
        result.psi[-1].sum().backward()
        assert inputs["psi0"].grad is not None
        assert torch.isfinite(inputs["psi0"].grad).all()
