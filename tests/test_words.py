"""The words of a problem: what they accept, and every argument wrong once."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import dgpde
from dgpde import Atmosphere, Feddes, Flux, FreeDrainage, Grid, Head, RootUptake, Series, SolveOptions, Source
from dgpde.assembly import compact_view, set_up
from dgpde.errors import failure
from dgpde.kernels.column_flow.problem import STATUS_TEXT, check_inputs

NZ, N, T = 6, 3, 4
TIMES = torch.arange(T + 1, dtype=torch.float64) * 3600.0
NAN = math.nan


def tensor(*shape: int, value: float = 1.0) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def grid() -> Grid:
    return Grid.columns(N, [0.1] * NZ)


def soil(**change: object) -> dgpde.VanGenuchten:
    values: dict[str, object] = {"theta_r": 0.065, "theta_s": 0.41, "alpha": 7.5, "n": 1.89, "k_sat": 1e-5}
    return dgpde.VanGenuchten(**(values | change))


def flow(**change: object) -> dgpde.Richards:
    values: dict[str, object] = {"grid": grid(), "soil": soil(), "boundaries": {"bottom": FreeDrainage()}}
    return dgpde.Richards(**(values | change))


def solve(
    *, psi0: object = -1.0, times: object = TIMES, model: dgpde.Richards | None = None, **change: object
) -> None:
    """Check everything that a run checks, without running it."""
    (model or flow()).plan  # noqa: B018 - the attribute is part of what is promised
    known = {"options": SolveOptions(), "save": "all", "ponding0": 0.0} | change
    setup = set_up((model or flow()).words, psi0, times, known["options"], known["save"], known["ponding0"])
    setup.span(0, T, (0, T))


def top(boundary: dgpde.Boundary) -> Callable[[], None]:
    return lambda: solve(model=flow(boundaries={"top": boundary}))


def roots(**change: object) -> Callable[[], None]:
    values: dict[str, object] = {"transpiration": 3e-8, "root_depth": 0.4}
    return lambda: solve(model=flow(sources=[RootUptake(**(values | change))]))


# Name of the case: (what is called, class of the error, how its message starts, what else it says).
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str, str]] = {
    # Grid
    "columns n type": (lambda: Grid.columns(2.5, [0.1]), TypeError, "n ", "integer"),
    "columns n bool": (lambda: Grid.columns(True, [0.1]), TypeError, "n ", "integer"),
    "columns n zero": (lambda: Grid.columns(0, [0.1]), ValueError, "n ", "at least 1"),
    "dz number": (lambda: Grid.columns(1, 0.1), ValueError, "dz ", "[0.05] * 40"),
    "dz empty": (lambda: Grid.columns(1, []), ValueError, "dz ", "one-dimensional"),
    "dz shape": (lambda: Grid.columns(1, tensor(2, 3)), ValueError, "dz ", "one-dimensional"),
    "dz zero": (lambda: Grid.columns(1, [0.1, 0.0]), ValueError, "dz ", "positive"),
    "dz nan": (lambda: Grid.columns(1, [0.1, NAN]), ValueError, "dz ", "finite"),
    "dz type": (lambda: Grid.columns(1, "thin"), TypeError, "dz ", "not str"),
    "dz words": (lambda: Grid.columns(1, ["thin"]), TypeError, "dz ", "real numbers"),
    "dz ragged": (lambda: Grid.columns(1, [[0.1], [0.1, 0.2]]), TypeError, "dz ", "regular"),
    "dz gradient": (lambda: Grid.columns(1, tensor(3).requires_grad_()), ValueError, "dz ", "gradient"),
    "gravity range": (lambda: Grid.columns(1, [0.1], gravity=9.81), ValueError, "gravity ", "between 0"),
    "gravity type": (lambda: Grid.columns(1, [0.1], gravity="down"), TypeError, "gravity ", "number"),
    "z_bottom nan": (lambda: Grid.columns(1, [0.1], z_bottom=NAN), ValueError, "z_bottom ", "finite"),
    "shape dims": (lambda: Grid((4,), (0.1,)), ValueError, "shape ", "(nz, nx)"),
    "shape zero": (lambda: Grid((4, 0), (0.1, 1.0)), ValueError, "shape ", "at least one"),
    "shape type": (lambda: Grid((4, 2.0), (0.1, 1.0)), TypeError, "shape ", "integers"),
    "spacing count": (lambda: Grid((4, 2), (0.1,)), ValueError, "spacing ", "2 axes"),
    "spacing sizes": (lambda: Grid((4, 2), ([0.1] * 3, 1.0)), ValueError, "spacing[0] ", "[4]"),
    "spacing negative": (lambda: Grid((4, 2), (0.1, -1.0)), ValueError, "spacing[1] ", "positive"),
    "active type": (lambda: Grid((4, 2), (0.1, 1.0), tensor(4, 2)), TypeError, "active ", "boolean"),
    "active shape": (lambda: Grid((4, 2), (0.1, 1.0), tensor(2, 4) > 0), ValueError, "active ", "[4, 2]"),
    "active none": (lambda: Grid((4, 2), (0.1, 1.0), tensor(4, 2) < 0), ValueError, "active ", "no cell"),
    # Soil
    "theta_r above theta_s": (lambda: soil(theta_r=0.5), ValueError, "theta_r", "theta_s"),
    "n of one": (lambda: soil(n=1.0), ValueError, "n", "> 1"),
    "alpha negative": (lambda: soil(alpha=-1.0), ValueError, "alpha", "> 0"),
    "k_sat zero": (lambda: soil(k_sat=0.0), ValueError, "k_sat", "> 0"),
    "k_sat nan": (lambda: soil(k_sat=NAN), ValueError, "k_sat", "NaN"),
    "k_sat type": (lambda: soil(k_sat="fast"), TypeError, "k_sat", "str"),
    "k_sat dtype": (lambda: soil(k_sat=torch.tensor([1, 2, 3])), TypeError, "k_sat", "int64"),
    "alpha shape": (lambda: flow(soil=soil(alpha=tensor(NZ))), ValueError, "alpha", "broadcast"),
    "k_sat shape": (lambda: flow(soil=soil(k_sat=tensor(NZ))), ValueError, "k_sat", "broadcast"),
    # Series and the values of boundaries
    "series number": (lambda: Series(1.0), ValueError, "values ", "time"),
    "series empty": (lambda: Series([]), ValueError, "values ", "no interval"),
    "series type": (lambda: Series("rain"), TypeError, "values ", "not str"),
    "series dtype": (lambda: Series(torch.zeros(3, dtype=torch.int64)), TypeError, "values ", "int64"),
    "series half": (lambda: Series(torch.zeros(3, dtype=torch.float16)), TypeError, "values ", "float16"),
    "series complex": (lambda: Series(np.zeros(3, complex)), TypeError, "values ", "complex"),
    "head nan": (lambda: Head(NAN), ValueError, "psi ", "not finite"),
    "head infinite": (lambda: Head(tensor(N, value=math.inf)), ValueError, "psi ", "not finite"),
    "head type": (lambda: Head(None), TypeError, "psi ", "NoneType"),
    "head bool": (lambda: Head(True), TypeError, "psi ", "bool"),
    "head shape": (top(Head(tensor(N + 1))), ValueError, "psi of the top Head ", "broadcast to [3]"),
    "head not in series": (top(Head(tensor(T, N))), ValueError, "psi of the top Head ", "Series(...)"),
    "hydraulic head shape": (top(dgpde.HydraulicHead(tensor(7))), ValueError, "H of the top ", "broadcast"),
    "flux intervals": (top(Flux(Series(tensor(T + 1)))), ValueError, "q of the top Flux ", "5 intervals"),
    "flux series shape": (top(Flux(Series(tensor(T, 2)))), ValueError, "q of the top Flux ", "broadcast"),
    "flux series dims": (top(Flux(Series(tensor(T, N, 1)))), ValueError, "q of the top Flux ", "broadcast"),
    "flux device": (
        lambda: solve(psi0=tensor(N), model=flow(boundaries={"top": Flux(torch.empty(N, device="meta"))})),
        ValueError,
        "q is on the device meta",
        "the run is on cpu",
    ),
    "rain negative": (lambda: Atmosphere(-1e-8, 0.0), ValueError, "precipitation ", ">= 0"),
    "rain nan": (lambda: Atmosphere(Series([0.0, NAN]), 0.0), ValueError, "precipitation ", "not finite"),
    "evaporation negative": (lambda: Atmosphere(0.0, -1e-8), ValueError, "evaporation ", ">= 0"),
    "evaporation type": (lambda: Atmosphere(0.0, "pet"), TypeError, "evaporation ", "not str"),
    "psi_min zero": (lambda: Atmosphere(0.0, 0.0, psi_min=0.0), ValueError, "psi_min ", "< 0"),
    "ponding_max negative": (lambda: Atmosphere(0, 0, ponding_max=-0.1), ValueError, "ponding_max ", ">= 0"),
    "conductance negative": (lambda: dgpde.GeneralHead(0.0, -1.0), ValueError, "conductance ", ">= 0"),
    "general head nan": (lambda: dgpde.GeneralHead(NAN, 1.0), ValueError, "H ", "not finite"),
    "coefficient negative": (
        lambda: dgpde.DeepWaterTable(0.0, -1.0, 1.0),
        ValueError,
        "coefficient ",
        ">= 0",
    ),
    "exponent negative": (lambda: dgpde.DeepWaterTable(0.0, 1.0, -1.0), ValueError, "exponent ", ">= 0"),
    "level nan": (lambda: dgpde.DeepWaterTable(NAN, 1.0, 1.0), ValueError, "level ", "not finite"),
    # Sources
    "source nan": (lambda: Source(NAN), ValueError, "values ", "not finite"),
    "source shape": (
        lambda: solve(model=flow(sources=[Source(tensor(NZ))])),
        ValueError,
        "values of Source 0 ",
        "[:, None]",
    ),
    "transpiration negative": (roots(transpiration=-1.0), ValueError, "transpiration ", ">= 0"),
    "transpiration shape": (roots(transpiration=tensor(2)), ValueError, "transpiration of ", "broadcast"),
    "root_depth zero": (roots(root_depth=0.0), ValueError, "root_depth ", "> 0"),
    "root_depth missing": (roots(root_depth=None), ValueError, "root_depth ", "density"),
    "root_depth and density": (roots(density=tensor(NZ, 1)), ValueError, "root_depth ", "not both"),
    "density negative": (roots(root_depth=None, density=-tensor(NZ, 1)), ValueError, "density ", ">= 0"),
    "density zero": (
        roots(root_depth=None, density=tensor(NZ, 1, value=0.0)),
        ValueError,
        "density ",
        "zero",
    ),
    "density shape": (roots(root_depth=None, density=tensor(NZ)), ValueError, "density ", "[:, None]"),
    "omega_c zero": (roots(omega_c=0.0), ValueError, "omega_c ", "> 0"),
    "omega_c above one": (roots(omega_c=1.1), ValueError, "omega_c ", "<= 1"),
    "omega_c series": (roots(omega_c=Series(tensor(T))), ValueError, "omega_c ", "cannot vary in time"),
    "response type": (roots(response=(-0.1, -0.2)), TypeError, "response ", "tuple"),
    "feddes h1 h2": (roots(response=Feddes(h1=-0.3)), ValueError, "h1 of Feddes", "greater than h2"),
    "feddes h2 h3": (roots(response=Feddes(h2=-3.0, h1=-1.0)), ValueError, "h2 of Feddes", "h3_high"),
    "feddes h3 h3": (roots(response=Feddes(h3_high=-9.0)), ValueError, "h3_high of Feddes", "h3_low"),
    "feddes h3 h4": (roots(response=Feddes(h4=-5.0)), ValueError, "h3_low of Feddes", "greater than h4"),
    "feddes rates": (roots(response=Feddes(rate_low=1e-3)), ValueError, "rate_high of Feddes", "rate_low"),
    "feddes rate negative": (lambda: Feddes(rate_low=-1.0), ValueError, "rate_low ", ">= 0"),
    "feddes nan": (lambda: Feddes(h1=NAN), ValueError, "h1 ", "not finite"),
    # Richards
    "grid type": (lambda: flow(grid=(NZ, N)), TypeError, "grid ", "Grid"),
    "soil type": (lambda: flow(soil=0.4), TypeError, "soil ", "float"),
    "boundaries type": (lambda: flow(boundaries=[FreeDrainage()]), TypeError, "boundaries ", "list"),
    "boundaries name": (lambda: flow(boundaries={"left": Head(0.0)}), ValueError, "boundaries ", "'left'"),
    "boundaries lateral": (lambda: flow(boundaries={"west": Head(0.0)}), ValueError, "boundaries ", "'west'"),
    "boundaries value": (lambda: flow(boundaries={"top": 0.0}), TypeError, "boundaries['top'] ", "float"),
    "drainage on top": (
        lambda: flow(boundaries={"top": FreeDrainage()}),
        ValueError,
        "boundaries['top'] ",
        "bottom",
    ),
    "rain from below": (
        lambda: flow(boundaries={"bottom": Atmosphere(0.0, 0.0)}),
        ValueError,
        "boundaries['bottom'] ",
        "top",
    ),
    "sources type": (lambda: flow(sources=Source(0.0)), TypeError, "sources ", "list"),
    "sources entry": (lambda: flow(sources=[0.0]), TypeError, "sources[0] ", "float"),
    "two root systems": (
        lambda: flow(sources=[RootUptake(0.0, 1.0), RootUptake(0.0, 1.0)]),
        ValueError,
        "sources ",
        "2 RootUptake",
    ),
    "specific_storage negative": (
        lambda: flow(specific_storage=-1e-5),
        ValueError,
        "specific_storage ",
        ">= 0",
    ),
    "specific_storage shape": (
        lambda: solve(model=flow(specific_storage=tensor(NZ))),
        ValueError,
        "specific_storage ",
        "[:, None]",
    ),
    "specific_storage series": (
        lambda: solve(model=flow(specific_storage=Series(tensor(T)))),
        ValueError,
        "specific_storage ",
        "cannot vary",
    ),
    "anisotropy": (lambda: flow(anisotropy=10.0), ValueError, "anisotropy ", "columns"),
    "face_mean": (lambda: flow(face_mean="middle"), ValueError, "face_mean ", "arithmetic"),
    # solve
    "psi0 nan": (lambda: solve(psi0=NAN), ValueError, "psi0 ", "not finite"),
    "psi0 shape": (lambda: solve(psi0=tensor(NZ)), ValueError, "psi0 ", "value[:, None]"),
    "psi0 transposed": (lambda: solve(psi0=tensor(N, NZ)), ValueError, "psi0 ", "broadcast to [6, 3]"),
    "psi0 type": (lambda: solve(psi0=None), TypeError, "psi0 ", "NoneType"),
    "psi0 dtype": (lambda: solve(psi0=torch.zeros(NZ, N, dtype=torch.int32)), TypeError, "psi0 ", "int32"),
    "psi0 series": (lambda: solve(psi0=Series(tensor(T))), ValueError, "psi0 ", "cannot vary"),
    "psi0 device": (lambda: solve(psi0=torch.empty(NZ, N, device="meta")), ValueError, "psi0 is on", "cuda"),
    "ponding0 device": (
        lambda: solve(psi0=tensor(N), ponding0=torch.empty(N, device="meta")),
        ValueError,
        "ponding0 is on the device meta",
        "cpu",
    ),
    "k_sat device": (
        lambda: solve(psi0=tensor(N), model=flow(soil=soil(k_sat=tensor(N)).to("meta"))),
        ValueError,
        "k_sat is on the device meta",
        "the run is on cpu",
    ),
    "ponding0 negative": (lambda: solve(ponding0=-0.1), ValueError, "ponding0 ", ">= 0"),
    "ponding0 without atmosphere": (lambda: solve(ponding0=0.1), ValueError, "ponding0 ", "Atmosphere"),
    "ponding0 shape": (lambda: solve(ponding0=tensor(NZ)), ValueError, "ponding0 ", "broadcast"),
    "times order": (lambda: solve(times=[0.0, 2.0, 1.0]), ValueError, "times ", "times[2] = 1 s"),
    "times equal": (lambda: solve(times=[0.0, 1.0, 1.0]), ValueError, "times ", "increase"),
    "times one": (lambda: solve(times=[0.0]), ValueError, "times ", "[T + 1]"),
    "times shape": (lambda: solve(times=tensor(2, 2)), ValueError, "times ", "[T + 1]"),
    "times nan": (lambda: solve(times=[0.0, NAN]), ValueError, "times ", "not finite"),
    "times type": (lambda: solve(times="daily"), TypeError, "times ", "numbers"),
    "times gradient": (
        lambda: solve(times=TIMES.clone().requires_grad_()),
        ValueError,
        "times ",
        "gradient",
    ),
    "options type": (lambda: solve(options={"dt_min": 1.0}), TypeError, "options ", "dict"),
    "save word": (lambda: solve(save="some"), ValueError, "save ", "'some'"),
    "save type": (lambda: solve(save=3), TypeError, "save ", "integers"),
    "save range": (lambda: solve(save=[0, T + 1]), ValueError, "save ", "5 entries"),
    "save order": (lambda: solve(save=[2, 1]), ValueError, "save ", "increase"),
    "save empty": (lambda: solve(save=[]), ValueError, "save ", "no time"),
    # Options
    "dt_initial": (lambda: SolveOptions(dt_initial=0.0), ValueError, "dt_initial ", "positive"),
    "dt_initial small": (lambda: SolveOptions(dt_initial=1e-9), ValueError, "dt_initial ", "dt_min"),
    "dt_min": (lambda: SolveOptions(dt_min=-1.0), ValueError, "dt_min ", "positive"),
    "dt_min above": (lambda: SolveOptions(dt_min=1e6), ValueError, "dt_min ", "dt_max"),
    "dt_max": (lambda: SolveOptions(dt_max=math.inf), ValueError, "dt_max ", "finite"),
    "dt_max type": (lambda: SolveOptions(dt_max="day"), TypeError, "dt_max ", "number"),
    "dt_fixed": (lambda: SolveOptions(dt_fixed=0.0), ValueError, "dt_fixed ", "positive"),
    "dt_fixed small": (lambda: SolveOptions(dt_fixed=1e-9), ValueError, "dt_fixed ", "dt_min"),
    "tolerance": (lambda: SolveOptions(tolerance=0.0), ValueError, "tolerance ", "positive"),
    "time_error": (lambda: SolveOptions(time_error=NAN), ValueError, "time_error ", "finite"),
    "linear_tolerance": (lambda: SolveOptions(linear_tolerance=-1), ValueError, "linear_tolerance ", "pos"),
    "max_newton": (lambda: SolveOptions(max_newton=0), ValueError, "max_newton ", "at least 1"),
    "max_newton type": (lambda: SolveOptions(max_newton=2.5), TypeError, "max_newton ", "integer"),
    "max_steps": (lambda: SolveOptions(max_steps=0), ValueError, "max_steps ", "at least 1"),
    "backend type": (lambda: SolveOptions(backend=3), TypeError, "backend ", "name"),
    "on_failure": (lambda: SolveOptions(on_failure="ignore"), ValueError, "on_failure ", "return"),
    "record_steps": (lambda: SolveOptions(record_steps=1), TypeError, "record_steps ", "True"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_wrong_argument(case: str) -> None:
    call, error, start, says = WRONG[case]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.startswith(start), message
    assert says in message, message


def test_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="^backend"):
        flow().solve(-1.0, TIMES, SolveOptions(backend="abacus"))


def test_unknown_checkpoint_type() -> None:
    with pytest.raises(TypeError, match="^checkpoint"):
        SolveOptions(checkpoint="all")


# What is accepted, and what the kernels then read.


def inputs_of(model: dgpde.Richards, psi0: object = -1.0, **change: object) -> dict[str, Tensor]:
    known = {"options": SolveOptions(), "save": "all", "ponding0": 0.0} | change
    setup = set_up(model.words, psi0, TIMES, known["options"], known["save"], known["ponding0"])
    problem, inputs = setup.span(0, T, setup.problem.save)
    inputs |= {"psi0": setup.psi0, "ponding0": setup.ponding0}
    check_inputs(problem, inputs)
    return inputs


VALUES = {
    "number": 2.0,
    "integer": 2,
    "scalar tensor": torch.tensor(2.0, dtype=torch.float64),
    "parameter": torch.nn.Parameter(tensor(N, value=2.0)),
    "array": np.full(N, 2.0),
    "integer array": np.full(N, 2),
    "list": [2.0] * N,
    "columns": tensor(N, value=2.0),
    "strided": tensor(2 * N, value=2.0)[::2],
    "series": Series(tensor(T, value=2.0)),
    "series of a list": Series([2.0] * T),
    "series columns": Series(tensor(T, N, value=2.0)),
    "series one": Series(tensor(T, 1, value=2.0)),
    "series transposed": Series(tensor(N, T, value=2.0).T),
}


@pytest.mark.parametrize("name", VALUES)
def test_boundary_value_forms(name: str) -> None:
    inputs = inputs_of(flow(boundaries={"top": Flux(VALUES[name])}))
    assert inputs["top.q"].shape == (T, N)
    assert inputs["top.q"].dtype == torch.float64
    assert bool((inputs["top.q"] == 2.0).all())


@pytest.mark.parametrize(
    "value",
    [-1.0, tensor(N), tensor(NZ, 1), tensor(NZ, N), tensor(N, NZ).T, torch.nn.Parameter(tensor(NZ, 1))],
    ids=["number", "columns", "profile", "field", "transposed", "parameter"],
)
def test_field_forms(value: object) -> None:
    inputs = inputs_of(flow(specific_storage=1e-5 if isinstance(value, float) else value.abs()), psi0=value)
    assert inputs["psi0"].shape == (NZ, N)


@pytest.mark.parametrize("shape", [(T,), (T, N), (T, NZ, 1), (T, NZ, N), (T, 1, N)])
def test_source_series_forms(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, dtype=torch.float64)
    inputs = inputs_of(flow(sources=[Source(Series(values)), Source(1.0)]))
    full = values.reshape(T, *[1] * (3 - len(shape)), *shape[1:]).expand(T, NZ, N)
    assert torch.equal(inputs["source"], full + 1.0)


def test_gradient_reaches_the_values_through_the_views() -> None:
    rain = tensor(T).requires_grad_()
    k_sat = torch.nn.Parameter(tensor(NZ, 1))
    depth = torch.tensor(0.35, dtype=torch.float64, requires_grad=True)
    model = flow(
        soil=soil(k_sat=k_sat),
        boundaries={"top": Atmosphere(Series(rain), 0.0)},
        sources=[RootUptake(3e-8, root_depth=depth)],
    )
    inputs = inputs_of(model)
    total = sum((value * torch.arange(value.numel()).reshape(value.shape)).sum() for value in inputs.values())
    total.backward()
    for value in (rain, k_sat, depth):
        assert value.grad is not None
        assert bool((value.grad != 0).all())


def test_stays_a_view() -> None:
    inputs = inputs_of(flow(boundaries={"top": Flux(Series(tensor(T)))}))
    for name in ("top.q", "k_sat", "soil.alpha", "psi0", "specific_storage"):
        assert compact_view(inputs[name]).numel() <= T, name


@pytest.mark.parametrize(
    ("psi0", "rain", "k_sat", "expected"),
    [
        ("single", "single", "single", torch.float32),
        ("single", "number", "number", torch.float32),
        ("single", "double", "number", torch.float64),
        ("single", "number", "double", torch.float64),
        ("double", "single", "single", torch.float64),
        ("number", "number", "number", torch.float64),
    ],
)
def test_type(psi0: str, rain: str, k_sat: str, expected: torch.dtype) -> None:
    def value(kind: str, number: float) -> object:
        types = {"single": torch.float32, "double": torch.float64}
        return number if kind == "number" else torch.full((N,), number, dtype=types[kind])

    model = flow(boundaries={"top": Atmosphere(value(rain, 1e-8), 0.0)}, soil=soil(k_sat=value(k_sat, 1e-5)))
    inputs = inputs_of(model, psi0=value(psi0, -1.0))
    assert {tensor.dtype for tensor in inputs.values()} == {expected}


def test_span_is_a_slice_of_the_whole() -> None:
    model = flow(
        boundaries={"top": Atmosphere(Series(torch.rand(T, N).double()), Series(torch.rand(T).double()))},
        sources=[
            RootUptake(Series(torch.rand(T).double()), root_depth=Series(torch.rand(T).double() + 0.1)),
            Source(Series(torch.rand(T, NZ, 1).double())),
        ],
    )
    setup = set_up(model.words, -1.0, TIMES, SolveOptions(), "all", 0.0)
    _, whole = setup.span(0, T, (0,))
    problem, part = setup.span(1, 3, (0, 2))
    assert torch.equal(problem.times, TIMES[1:4])
    for name, value in part.items():
        timed = whole[name].shape[0] == T and name not in ("k_sat", "specific_storage")
        assert torch.equal(
            value, whole[name][1:3] if timed and not name.startswith("soil.") else whole[name]
        ), name


def test_negative_save_counts_from_the_end() -> None:
    setup = set_up(flow().words, -1.0, TIMES, SolveOptions(), [0, -1], 0.0)
    assert setup.problem.save == (0, T)


# The grid and what depends on it.


def test_elevations() -> None:
    dz = [0.4, 0.3, 0.2, 0.1]
    columns = Grid.columns(5, dz, z_bottom=-1.0)
    assert columns.shape == (4, 5)
    assert not columns.lateral
    assert columns.z.shape == (4, 1)
    torch.testing.assert_close(columns.z_faces, torch.tensor([-1.0, -0.6, -0.3, -0.1, 0.0]).double())
    torch.testing.assert_close(columns.z[:, 0], torch.tensor([-0.8, -0.45, -0.2, -0.05]).double())
    torch.testing.assert_close(columns.depth, -columns.z)
    assert Grid((4, 3, 2), (dz, 1.0, 1.0)).z.shape == (4, 1, 1)
    assert Grid((4, 3), (0.5, 1.0)).lateral


def test_heads_are_counted_from_the_lowest_face() -> None:
    columns = Grid.columns(N, [0.1] * NZ, z_bottom=-0.6)
    for side, z_face in (("top", 0.0), ("bottom", -0.6)):
        inputs = inputs_of(flow(grid=columns, boundaries={side: dgpde.HydraulicHead(-0.25)}))
        torch.testing.assert_close(inputs[f"{side}.psi"], tensor(T, N, value=-0.25 - z_face))
    inputs = inputs_of(flow(grid=columns, boundaries={"bottom": dgpde.GeneralHead(-0.2, 1e-7)}))
    torch.testing.assert_close(inputs["bottom.head"], tensor(T, N, value=0.4))
    inputs = inputs_of(flow(grid=columns, boundaries={"bottom": dgpde.DeepWaterTable(-0.2, 1e-7, 2.0)}))
    torch.testing.assert_close(inputs["bottom.level"], tensor(T, N, value=0.4))


def test_horizontal_column_has_no_elevation_head() -> None:
    columns = Grid.columns(N, [0.1] * NZ, gravity=0.0, z_bottom=3.0)
    inputs = inputs_of(flow(grid=columns, boundaries={"top": dgpde.HydraulicHead(-0.25)}))
    assert bool((inputs["top.psi"] == -0.25).all())


# Roots.


@pytest.mark.parametrize("depth", [1e-3, 0.05, 0.1, 0.33, 0.6, 2.0])
def test_root_density_sums_to_one(depth: float) -> None:
    columns = Grid.columns(1, [0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    density = dgpde.root_density(torch.tensor([depth], dtype=torch.float64), columns.z_faces)
    assert density.shape == (6, 1)
    assert bool((density >= 0).all())
    assert (density[:, 0] * columns.dz).sum().item() == pytest.approx(1.0, abs=1e-15)


def test_root_density_is_hoffman_and_van_genuchten() -> None:
    columns = Grid.columns(1, [0.001] * 1000)
    density = dgpde.root_density(torch.tensor([0.5], dtype=torch.float64), columns.z_faces)[:, 0]
    x = columns.depth[:, 0]
    expected = torch.where(x < 0.1, 1.66667 / 0.5, 2.0833 / 0.5 * (1 - x / 0.5)).clamp(min=0.0)
    assert (density - expected).abs().max().item() < 1e-3 * expected.max().item()


def test_root_density_gradient() -> None:
    faces = Grid.columns(2, [0.1] * 6).z_faces
    depth = torch.tensor([[0.31, 0.47], [0.8, 0.05]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: dgpde.root_density(value, faces), (depth,))


def test_given_density_is_normalised() -> None:
    density = torch.rand(T, NZ, 1, dtype=torch.float64)
    inputs = inputs_of(flow(sources=[RootUptake(1e-8, density=Series(density))]))
    torch.testing.assert_close((inputs["root_density"] * 0.1).sum(1), tensor(T, N))


def test_h3_follows_the_demand() -> None:
    rates = torch.tensor([0.0, 1e-3, 3e-3, 9e-3], dtype=torch.float64) / 86400.0
    inputs = inputs_of(flow(sources=[RootUptake(Series(rates), root_depth=0.3)]))
    expected = torch.tensor([-8.0, -8.0, -5.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(inputs["h3"], expected[:, None].expand(T, N))


# Failure.


def test_solve_error_names_columns_time_reason_and_remedy() -> None:
    status = torch.zeros(20, dtype=torch.int32)
    status[3], status[7:18] = 2, 1
    time = torch.where(status > 0, 12.5, torch.nan).double()
    error = failure(status, time, STATUS_TEXT)
    assert error.columns.tolist() == [3, *range(7, 18)]
    assert error.status.tolist() == [2] + [1] * 11
    assert bool((error.times == 12.5).all())
    message = str(error)
    for part in (
        "12 of 20 columns",
        "t = 12.5 s",
        "and 3 more",
        "dt_min",
        "not finite",
        "on_failure='return'",
    ):
        assert part in message, message
