"""The words of transport: what they accept, and every argument wrong once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import dgpde
from dgpde import Grid, Series, SolveOptions
from dgpde.solute import Freundlich, Immobile, Langmuir, Linear, Solute
from dgpde.steady_flow import SteadyFlow
from dgpde.transport import Transport
from dgpde.transport_boundary import Concentration, InflowConcentration, SoluteFlux, ZeroGradient

NZ, N, T = 4, 3, 2
TIMES = [0.0, 100.0, 250.0]
DEFAULTS = SolveOptions()


def grid() -> Grid:
    return Grid.columns(N, [0.1] * NZ)


def model(*solutes: Solute, **change: object) -> Transport:
    values: dict[str, object] = {"grid": grid(), "solutes": list(solutes) or Solute("a")}
    return Transport(**(values | change))  # type: ignore[arg-type]


def set_up(transport: Transport, **change: object) -> object:
    values: dict[str, object] = {
        "c0": 0.0,
        "flow": SteadyFlow(0.3, -1e-6),
        "times": TIMES,
        "options": DEFAULTS,
    }
    return transport.set_up(**(values | change))  # type: ignore[arg-type]


def of_solute(**change: object) -> Callable[[], object]:
    return lambda: set_up(model(Solute("a", **change)))  # type: ignore[arg-type]


def at_top(boundary: object, *solutes: Solute) -> Callable[[], object]:
    return lambda: set_up(model(*solutes, boundaries={"top": boundary}))


def steady(*values: object, **change: object) -> Callable[[], object]:
    return lambda: set_up(model(), flow=SteadyFlow(*values), **change)  # type: ignore[arg-type]


SORBING = Solute("a", sorption=Freundlich(1e-3, 0.8, 1500.0))
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "name": (lambda: Solute(3), TypeError, "name must be a string"),  # type: ignore[arg-type]
    "name empty": (lambda: Solute(""), ValueError, "name is empty"),
    "dispersivity": (
        of_solute(longitudinal_dispersivity=-0.1),
        ValueError,
        "longitudinal_dispersivity must be >= 0",
    ),
    "dispersivity in time": (
        of_solute(longitudinal_dispersivity=Series([0.1, 0.1])),
        ValueError,
        "longitudinal_dispersivity cannot vary",
    ),
    "transverse triple": (
        of_solute(transverse_dispersivity=(0.1, 0.1, 0.1)),
        ValueError,
        "transverse_dispersivity must be one value or a pair",
    ),
    "diffusion": (of_solute(diffusion="fast"), TypeError, "diffusion must be a number"),
    "diffusion nan": (of_solute(diffusion=math.nan), ValueError, "diffusion has values that are not finite"),
    "tortuosity": (of_solute(tortuosity="penman"), ValueError, "tortuosity must be a number"),
    "decay": (of_solute(decay=-1e-6), ValueError, "decay must be >= 0"),
    "decay shape": (
        of_solute(decay=torch.zeros(NZ + 1, N)),
        ValueError,
        "decay of 'a' is a tensor of the shape",
    ),
    "decay profile": (of_solute(decay=torch.zeros(NZ)), ValueError, r"decay of 'a' .* value\[:, None\]"),
    "production length": (
        of_solute(production=Series([1.0, 1.0, 1.0])),
        ValueError,
        "production of 'a' is a Series of 3 intervals",
    ),
    "yield": (of_solute(yield_=-1.0), ValueError, "yield_ must be >= 0"),
    "sorption": (of_solute(sorption=0.3), TypeError, "sorption must be Linear"),
    "k_d": (lambda: Linear(-1.0, 1500.0), ValueError, "k_d must be >= 0"),
    "bulk_density": (lambda: Linear(1.0, -1500.0), ValueError, "bulk_density must be >= 0"),
    "rate": (lambda: Linear(1.0, 1500.0, rate=-1.0), ValueError, "rate must be >= 0"),
    "exponent": (lambda: Freundlich(1.0, 0.0, 1500.0), ValueError, "exponent must be > 0"),
    "k_f": (lambda: Freundlich(-1.0, 1.0, 1500.0), ValueError, "k_f must be >= 0"),
    "k_l": (lambda: Langmuir(-1.0, 1.0, 1500.0), ValueError, "k_l must be >= 0"),
    "s_max": (lambda: Langmuir(1.0, Series([1.0]), 1500.0), ValueError, "s_max cannot vary in time"),
    "immobile": (of_solute(immobile=0.1), TypeError, "immobile must be an Immobile"),
    "immobile theta": (lambda: Immobile(-0.1, 1e-6), ValueError, "theta must be >= 0"),
    "immobile rate": (lambda: Immobile(0.1, None), TypeError, "rate must be a number"),  # type: ignore[arg-type]
    "parent itself": (lambda: Solute("a", parent="a"), ValueError, "parent is 'a' itself"),
    "parent type": (lambda: Solute("a", parent=1), TypeError, "parent must be the name"),  # type: ignore[arg-type]
    "parent alone": (
        lambda: Transport(grid(), Solute("a", parent="b")),
        ValueError,
        "solutes is 'a' alone, whose parent",
    ),
    "parent later": (
        lambda: model(Solute("a", parent="b"), Solute("b")),
        ValueError,
        r"solutes\[0\] \('a'\) has the parent 'b', which does not stand before it",
    ),
    "uptake": (of_solute(uptake="active"), ValueError, "uptake must be one of"),
    "evaporates": (of_solute(evaporates=1), TypeError, "evaporates must be True or False"),
    "grid": (lambda: model(grid=3), TypeError, "grid must be a Grid"),
    "solutes": (lambda: model(solutes="a"), TypeError, "solutes must be a Solute"),
    "solutes none": (lambda: model(solutes=[]), ValueError, "solutes holds no solute"),
    "solutes entry": (lambda: model(solutes=["a"]), TypeError, r"solutes\[0\] must be a Solute"),
    "solutes twice": (lambda: model(Solute("a"), Solute("a")), ValueError, "solutes holds 'a' twice"),
    "scheme": (lambda: model(scheme="quick"), ValueError, "scheme must be one of upwind, central, tvd"),
    "cross_terms": (lambda: model(cross_terms=1), TypeError, "cross_terms must be True or False"),
    "cross_terms columns": (lambda: model(cross_terms=True), ValueError, "cross_terms has no meaning"),
    "boundaries": (lambda: model(boundaries=[1]), TypeError, "boundaries must map names"),
    "boundaries side": (
        lambda: model(boundaries={"west": ZeroGradient()}),
        ValueError,
        "boundaries names 'west'",
    ),
    "boundaries unknown": (
        lambda: model(boundaries={"above": ZeroGradient()}),
        ValueError,
        "boundaries has the unknown side 'above'",
    ),
    "boundaries of water": (
        at_top(dgpde.Flux(1e-6)),
        TypeError,
        r"boundaries\['top'\] must be a boundary of solutes",
    ),
    "boundaries solute": (
        lambda: model(boundaries={"b": {"top": ZeroGradient()}}),
        ValueError,
        "boundaries names 'b'; the solutes are a",
    ),
    "boundaries mixed": (
        lambda: model(Solute("a"), Solute("b"), boundaries={"a": {}, "b": ZeroGradient()}),
        TypeError,
        r"boundaries\['b'\] must map names of sides",
    ),
    "concentration shape": (
        at_top(Concentration(torch.ones(N + 1))),
        ValueError,
        "c of the top Concentration is a tensor of the shape",
    ),
    "concentration negative": (
        at_top(InflowConcentration(-1.0), SORBING),
        ValueError,
        r"boundaries\['top'\] must be >= 0",
    ),
    "flux": (lambda: SoluteFlux("much"), TypeError, "f must be a number"),  # type: ignore[arg-type]
    "c0 shape": (lambda: set_up(model(), c0=torch.zeros(N, NZ)), ValueError, "c0 is a tensor of the shape"),
    "c0 negative": (lambda: set_up(model(SORBING), c0=-1.0), ValueError, "c0 must be >= 0"),
    "c0 unknown": (lambda: set_up(model(), c0={"b": 1.0}), ValueError, "c0 names 'b'"),
    "c0 missing": (
        lambda: set_up(model(Solute("a"), Solute("b")), c0={"a": 1.0}),
        ValueError,
        "c0 has no entry for 'b'",
    ),
    "flow": (lambda: set_up(model(), flow=1e-6), TypeError, "flow must be a Solution"),
    "times missing": (lambda: set_up(model(), times=None), ValueError, "times must be given"),
    "times": (lambda: set_up(model(), times=[0.0, 0.0]), ValueError, "times must increase"),
    "options": (lambda: set_up(model(), options=None), TypeError, "options must be a SolveOptions"),
    "theta": (steady(0.0, 1e-6), ValueError, "theta must be > 0"),
    "theta in time": (steady(Series([0.3]), 1e-6), ValueError, "theta cannot vary in time"),
    "theta_s": (steady(0.3, 1e-6, -0.4), ValueError, "theta_s must be > 0"),
    "flux shape": (steady(0.3, torch.zeros(NZ, N)), ValueError, "flux is a tensor of the shape"),
    "flux axis": (steady(0.3, {"r": 1e-6}), ValueError, "flux has the unknown axis 'r'"),
    "flux lateral": (steady(0.3, {"x": 1e-6}), ValueError, "flux names the axis 'x'"),
    "flux balance": (
        steady(0.3, torch.arange(NZ + 1.0)[:, None] * 1e-6),
        ValueError,
        r"flux is not in balance: cell \(0, 0\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case: str) -> None:
    call, error, message = WRONG[case]
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_flow_on_another_grid() -> None:
    soil = dgpde.VanGenuchten(theta_r=0.065, theta_s=0.41, alpha=7.5, n=1.89, k_sat=1e-5)
    run = dgpde.Richards(Grid.columns(N, [0.2] * NZ), soil).solve(-1.0, TIMES)
    with pytest.raises(ValueError, match=r"^flow was run on Grid.columns"):
        set_up(model(), flow=run, times=None)
    with pytest.raises(ValueError, match=r"^times must be left out"):
        set_up(model(grid=Grid.columns(N, [0.2] * NZ)), flow=run)


def test_values_broadcast() -> None:
    """Fields, profiles, numbers and series come out in full shape, their graph kept."""
    k_d = torch.full((NZ, 1), 1e-4, dtype=torch.float64, requires_grad=True)
    a = Solute("a", sorption=Linear(k_d, 1500.0, rate=1e-5), production=Series([1.0, 2.0]))
    b = Solute("b", parent="a", immobile=Immobile(0.05, 1e-6))
    transport = model(a, b, boundaries={"a": {"top": InflowConcentration(Series([[1.0] * N, [2.0] * N]))}})
    setup = set_up(transport, c0={"a": torch.ones(NZ, 1), "b": 0.5})
    assert setup.c0.shape == (2, NZ, N)
    first, second = (setup.solute_inputs(solute) for solute in (a, b))
    assert first["sorption.k_d"].shape == (NZ, N)
    assert first["sorption.k_d"].requires_grad
    assert first["production"].shape == (T, NZ, N)
    assert first["production"][1, 0, 0] == 2.0
    assert first["top.c"].shape == (T, N)
    assert second["immobile.theta"].shape == (NZ, N)
    assert "sorption.k_d" not in second
    assert not transport.words.single
    assert model(solutes=Solute("a")).words.single


def test_field_words() -> None:
    """Sections take fluxes by axis, which must balance; cross terms and a pair of dispersivities."""
    section = Grid((2, 3), (0.5, [0.1, 0.2, 0.3]))
    transport = Transport(section, Solute("a", transverse_dispersivity=(0.1, 0.01)), cross_terms=True)
    flux = {"x": torch.full((2, 4), 1e-5, dtype=torch.float64), "z": 0.0}
    setup = transport.set_up(0.0, SteadyFlow(0.3, flux), TIMES, DEFAULTS)
    values = setup.solute_inputs(transport.words.solutes[0])
    assert values["transverse_dispersivity.vertical"].shape == (2, 3)
    assert values["west.c"].shape == (T, 2)
    assert setup.flow.inputs(setup.frame)["flux.z"].shape == (3, 3)
    with pytest.raises(ValueError, match=r"^flux is not in balance"):
        transport.set_up(0.0, SteadyFlow(0.3, {"x": torch.arange(4.0)}), TIMES, DEFAULTS)


def test_grids_differ_in_more_than_their_layers() -> None:
    """A run on another width or another land surface has the same layers."""
    level = Grid((2, 3), (0.1, 1.0))
    for other in (
        Grid((2, 3), (0.1, 2.0)),
        Grid((2, 3), (0.1, 1.0), surface=torch.tensor([1.0, 1.1, 1.2]).double()),
    ):
        assert not level.same_as(other)
        assert not other.same_as(level)
    assert level.same_as(Grid((2, 3), (0.1, 1.0)))
    inside = torch.tensor([[True, True, False], [True, True, True]])
    assert not level.same_as(Grid((2, 3), (0.1, 1.0), active=inside))
