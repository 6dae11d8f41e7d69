"""Test problems of MT3DMS (Zheng & Wang 1999, SERDP-99-1), against MODFLOW 6 GWT 6.6.2 run on them."""

from __future__ import annotations

import pytest
import torch

import dgpde
from dgpde.solute import Linear, Solute
from dgpde.steady_flow import SteadyFlow
from dgpde.transport import Transport

DAY = 86400.0
PLACES = (5, 10, 20, 40, 48, 60)  # cells of 10 m
# dispersivity [m], retardation, decay [1/d]; concentrations upstream and TVD at PLACES
FRONTS = {
    "a": (
        0.0,
        1.0,
        0.0,
        [1.0, 1.0, 0.999962, 0.844146, 0.508213, 0.090641],
        [1.0, 1.0, 1.0, 0.9567, 0.538995, 0.010586],
    ),
    "b": (
        10.0,
        1.0,
        0.0,
        [0.999962, 0.999673, 0.992984, 0.769698, 0.537014, 0.20145],
        [0.999997, 0.999958, 0.997854, 0.804412, 0.539397, 0.159436],
    ),
    "c": (
        10.0,
        5.0,
        0.0,
        [0.89135, 0.563911, 0.044227, 1e-6, 0.0, 0.0],
        [0.923029, 0.571326, 0.018175, 0.0, 0.0, 0.0],
    ),
    "d": (
        10.0,
        5.0,
        0.002,
        [0.236404, 0.053494, 0.001389, 0.0, 0.0, 0.0],
        [0.222821, 0.042437, 0.000417, 0.0, 0.0, 0.0],
    ),
}


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
@pytest.mark.parametrize("name", list(FRONTS))
def test_a_front_in_one_dimension(name: str, scheme: str) -> None:
    dispersivity, retardation, decay, upstream, tvd = FRONTS[name]
    grid = dgpde.Grid((1, 101), (1.0, 10.0))
    theta = torch.full((1, 101), 0.25, dtype=torch.float64)
    theta[0, 0] = 1e7  # so much water that its concentration stays 1 to 1e-6, as in MODFLOW's cell 0
    sorption = Linear((retardation - 1.0) * 0.25 / 1000.0, 1000.0)
    solute = Solute(
        "c", dispersivity, sorption=sorption, decay=torch.tensor([[0.0] + [decay / DAY] * 100]).double()
    )
    c0 = torch.zeros(1, 101, dtype=torch.float64)
    c0[0, 0] = 1.0
    # MODFLOW gives flow a fixed head in cell 0: no water is missing there
    flow = SteadyFlow(theta, {"x": 0.24 * 0.25 / DAY})
    found = Transport(grid, solute, scheme=scheme).solve(
        # the residual is judged against the mass of all cells, that of cell 0 included
        c0,
        flow,
        [0.0, 2000.0 * DAY],
        dgpde.SolveOptions(dt_fixed=20.0 * DAY, linear_tolerance=1e-14),
    )
    c = found.concentration[-1, 0]
    here = c[list(PLACES)]
    # six printed digits, and what cell 0 loses; MODFLOW's limiter is van Leer's too
    wanted = torch.tensor(upstream if scheme == "upwind" else tvd, dtype=torch.float64)
    assert float((here - wanted).abs().max()) < 2e-6
    assert float(c.min()) > -1e-10


@pytest.mark.parametrize("scheme", ["upwind", "tvd"])
def test_a_plume_from_a_well_in_three_dimensions(scheme: str) -> None:
    grid = dgpde.Grid((8, 15, 21), 3 * (10.0,))
    ends = torch.zeros(2, *grid.shape, dtype=torch.bool)
    ends[0, :, :, 0] = ends[1, :, :, 20] = True
    well = (7 - 6, 7, 2)  # layers count from the top
    flow = dgpde.Richards(
        grid,
        dgpde.Saturated(0.5 / DAY, theta_s=0.2),
        sources=[
            # what holds the head of a cell: far above the 1e-4 m2/s of its neighbours
            dgpde.River(ends[0], 13.3333, 1e3),
            dgpde.River(ends[1], 0.0, 1e3),
            dgpde.Well([well], 0.5 / DAY),
        ],
    ).solve(0.0, [0.0, 100.0 * DAY], dgpde.SolveOptions(dt_fixed=10.0 * DAY))
    entering = torch.zeros(grid.shape, dtype=torch.float64)
    entering[well] = 100.0
    solute = Solute("c", 10.0, 3.0, source_concentration=entering)
    for cross_terms in (False, True):
        found = Transport(grid, solute, scheme=scheme, cross_terms=cross_terms).solve(0.0, flow)
        c = found.concentration[-1]
        mine = torch.stack([c[1, 7, i] for i in range(2, 9)] + [c[1, 8, 3], c[2, 7, 3], c[3, 7, 4]])
        printed = {
            ("upwind", False): [
                4.67498,
                2.5295,
                1.31404,
                0.64881,
                0.30427,
                0.13583,
                0.05793,
                0.49386,
                0.49229,
                0.05544,
            ],
            ("upwind", True): [
                4.67474,
                2.53023,
                1.31493,
                0.64948,
                0.30469,
                0.13605,
                0.05804,
                0.49118,
                0.49525,
                0.05578,
            ],
            ("tvd", False): [
                4.82723,
                2.81074,
                1.33542,
                0.56923,
                0.22121,
                0.07907,
                0.02626,
                0.54188,
                0.54007,
                0.06153,
            ],
            ("tvd", True): [
                4.82697,
                2.81132,
                1.33646,
                0.57005,
                0.22166,
                0.07927,
                0.02634,
                0.5396,
                0.54253,
                0.06193,
            ],
        }[scheme, cross_terms]
        # MODFLOW takes the dispersion of cells, here it is that of faces: they differ where the well turns the flow
        assert float((mine - torch.tensor(printed, dtype=torch.float64)).abs().max()) < 4e-3 * printed[0]
        assert abs(float(found.mass.total[-1]) / 5000.0 - 1.0) < 1e-4
