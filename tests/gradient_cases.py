"""The problems on which the gradients of the column engine are proven: every input, every branch, varying steps.

A case is a small column problem (uneven cells, two columns that differ, three intervals of uneven length) whose
run goes through the branches that its name says; `reached` makes sure that it does.
"""

from __future__ import annotations

import torch
from gradient_problem import HOUR, Case, Inputs, Value

from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult


def _ponds(problem: ColumnProblem, inputs: Inputs, result: ColumnResult) -> bool:
    return bool((result.ponding[1:] > 0.0).any())


def _limited(result: ColumnResult, inputs: Inputs, interval: int) -> bool:
    """The evaporation of an interval stays behind what the air asks for."""
    asked = inputs["top.precipitation"][interval] - inputs["top.evaporation"][interval]
    return bool((result.top_flux[interval] > asked + 1e-6 * asked.abs()).all())


RAIN_TO_DRY: dict[str, Value] = {
    "top.precipitation": (2e-6, 0.0, 0.0),
    "top.evaporation": (5e-8, 2e-7, 4e-6),
    "top.psi_min": -6.0,
}
SHORT_STORM: dict[str, Value] = {"top.precipitation": (3e-5, 0.0, 0.0), "top.evaporation": (0.0, 5e-7, 5e-7)}

CASES: dict[str, Case] = {
    # ---- states of the soil --------------------------------------------------------------------------------
    "unsaturated flux over free drainage": Case("flux", reached=lambda p, i, r: bool((r.psi < 0.0).all())),
    "saturated between two heads": Case(
        "head",
        "head",
        psi0=0.6,
        values={"top.psi": (0.2, 0.4, 0.1), "bottom.psi": (0.9, 0.5, 1.2)},
        reached=lambda p, i, r: bool((r.psi > 0.0).all()),
    ),
    "rising water table": Case(
        "flux",
        "head",
        psi0=-0.5,
        storage=2e-3,
        values={"bottom.psi": (0.1, 0.5, 0.2)},
        reached=lambda p, i, r: bool((r.psi[-1, 0] > 0.0).all() and (r.psi[-1, -1] < 0.0).all()),
    ),
    "falling water table": Case(
        "flux",
        "head",
        psi0=(0.5, 0.4, 0.3, 0.2, 0.1, 0.05),
        values={"bottom.psi": (0.2, -0.4, -0.6), "top.q": 0.0},
        reached=lambda p, i, r: bool((r.psi[0] > 0.0).all() and (r.psi[-1] < 0.0).all()),
    ),
    "drying from the surface": Case(
        psi0=-0.3,
        values={"top.precipitation": 0.0, "top.evaporation": 4e-7, "top.psi_min": -100.0},
        reached=lambda p, i, r: bool((r.psi.diff(dim=0)[:, -1] < 0.0).all()),
    ),
    "front into a very dry soil": Case(
        "head", psi0=-80.0, values={"top.psi": -0.05}, hours=(0.3, 0.8, 0.5), dt_fixed=0.15 * HOUR
    ),
    "specific storage": Case("general_head", "general_head", psi0=0.3, storage=5e-2),
    # ---- layers and geometry -------------------------------------------------------------------------------
    "layer jump, sand over clay": Case(
        "atmosphere",
        k_sat=(2e-7, 2e-7, 2e-7, 8e-5, 8e-5, 8e-5),
        psi0=(-1.5, -1.4, -1.3, -0.4, -0.4, -0.4),
        values={
            "alpha": (1.0, 1.0, 1.0, 12.0, 12.0, 12.0),
            "n": (1.2, 1.2, 1.2, 2.6, 2.6, 2.6),
            "theta_r": (0.1, 0.1, 0.1, 0.045, 0.045, 0.045),
            "top.precipitation": (5e-6, 0.0, 2e-6),
        },
    ),
    "layer jump, clay over sand": Case(
        "head",
        k_sat=(5e-5, 5e-5, 5e-5, 2e-6, 2e-6, 2e-6),
        psi0=-0.6,
        values={
            "alpha": (7.0, 7.0, 7.0, 1.5, 1.5, 1.5),
            "n": (2.1, 2.1, 2.1, 1.25, 1.25, 1.25),
            "top.psi": (0.02, -0.3, -0.01),
        },
    ),
    "lying flat": Case("head", "head", gravity=0.0, values={"bottom.psi": (-3.0, -0.2, -1.0)}),
    "tilted": Case("flux", "deep_water_table", gravity=0.6),
    "one cell": Case(
        "atmosphere",
        "general_head",
        nz=1,
        psi0=-3.0,
        transpiration=6e-8,
        source=1e-8,
        values=RAIN_TO_DRY | {"top.precipitation": (4e-7, 0.0, 0.0), "h3": -0.3},
        reached=lambda p, i, r: bool((r.uptake < 0.98 * i["transpiration"]).all()),
    ),
    "two cells": Case("head", "seepage_face", nz=2, transpiration=6e-8, omega_c=0.6, values={"top.psi": 0.1}),
    # ---- boundaries ----------------------------------------------------------------------------------------
    "switching atmosphere": Case(
        psi0=-1.5,
        values=RAIN_TO_DRY,
        hours=(1.0, 2.0, 4.0),
        reached=lambda p, i, r: _limited(r, i, 2) and not _limited(r, i, 0),
    ),
    "pond that runs off": Case(
        bottom="flux",
        psi0=-0.4,
        values={"top.precipitation": (3e-5, 5e-6, 3e-5), "top.ponding_max": 0.004, "bottom.q": -1e-7},
        hours=(0.6, 0.9, 0.7),
        dt_fixed=0.25 * HOUR,
        reached=lambda p, i, r: bool(
            (r.runoff[0] > 0.0).all() and (r.ponding[1] == i["top.ponding_max"][0]).all()
        ),
    ),
    "pond that grows": Case(
        bottom="seepage_face",
        psi0=-0.4,
        ponding0=0.003,
        values={"top.precipitation": 2e-5, "top.ponding_max": 10.0},
        hours=(0.6, 0.9, 0.7),
        dt_fixed=0.25 * HOUR,
        reached=lambda p, i, r: bool((r.ponding.diff(dim=0) > 0.0).all()),
    ),
    "pond that drains": Case(
        psi0=-0.4,
        ponding0=0.012,
        values={"top.precipitation": 0.0, "top.evaporation": 4e-7, "top.ponding_max": 0.02},
        hours=(0.6, 1.0, 4.0),
        dt_fixed=0.4 * HOUR,
        reached=lambda p, i, r: bool((r.ponding[0] > 0.0).all() and (r.ponding[-1] == 0.0).all()),
    ),
    "storm, pond, run-off, drying": Case(
        psi0=-0.5,
        values=SHORT_STORM | {"top.ponding_max": 0.006},
        hours=(0.7, 1.0, 9.0),
        reached=lambda p, i, r: bool(
            (r.ponding[1] > 0.0).all() and (r.runoff[0] > 0.0).all() and (r.ponding[-1] == 0.0).all()
        ),
    ),
    "free drainage": Case("flux", "free_drainage", psi0=-0.2, values={"top.q": 0.0}),
    "seepage face below, opens": Case(
        "head",
        "seepage_face",
        psi0=-0.3,
        values={"top.psi": 0.2},
        reached=lambda p, i, r: bool((r.bottom_flux[-1] < 0.0).all()),
    ),
    "seepage face below, closed": Case(
        "flux", "seepage_face", psi0=-1.0, reached=lambda p, i, r: bool((r.bottom_flux == 0.0).all())
    ),
    "seepage face above": Case(
        "seepage_face",
        "head",
        psi0=0.2,
        values={"bottom.psi": 1.2},
        reached=lambda p, i, r: bool((r.top_flux < 0.0).all()),
    ),
    "general head, both ends": Case("general_head", "general_head", values={"top.head": (0.2, 2.0, -1.0)}),
    "deep water table": Case("flux", "deep_water_table", psi0=-0.3),
    # ---- roots and sources ---------------------------------------------------------------------------------
    "uptake without compensation": Case(
        psi0=(-0.05, -0.2, -0.8, -1.5, -3.0, -6.0),
        transpiration=1e-7,
        reached=lambda p, i, r: bool((r.uptake < 0.98 * i["transpiration"]).all()),
    ),
    "uptake compensated in full": Case(
        psi0=(-0.3, -0.4, -0.8, -1.5, -3.0, -6.0),
        transpiration=1e-7,
        omega_c=0.2,
        reached=lambda p, i, r: bool(torch.allclose(r.uptake, i["transpiration"], rtol=1e-9, atol=0.0)),
    ),
    "uptake compensated in part": Case(
        psi0=(-5.0, -5.5, -6.0, -6.5, -7.0, -7.5),
        transpiration=1e-7,
        omega_c=0.6,
        reached=lambda p, i, r: bool(
            (r.uptake < 0.98 * i["transpiration"]).all() and (r.uptake > 0.01 * i["transpiration"]).all()
        ),
    ),
    "uptake, passing the threshold": Case(
        psi0=(-1.0, -1.5, -2.0, -2.5, -3.0, -4.0),
        transpiration=6e-7,
        omega_c=0.55,
        values={"top.precipitation": 0.0},
        hours=(3.0, 8.0, 12.0),
        dt_fixed=4 * HOUR,
        time_error=1e-2,
        reached=lambda p, i, r: bool(
            (r.uptake[0] > 0.999 * i["transpiration"][0]).all()
            and (r.uptake[-1] < 0.98 * i["transpiration"][-1]).all()
        ),
    ),
    "uptake, wilted": Case(
        "flux",
        psi0=-20.0,
        transpiration=1e-7,
        omega_c=0.5,
        values={"top.q": 5e-8},
        reached=lambda p, i, r: bool((r.uptake == 0.0).all()),
    ),
    "roots under a pond": Case(
        psi0=(-0.9, -0.8, -0.7, -0.6, -0.5, -0.4),
        transpiration=2e-7,
        omega_c=0.7,
        values=SHORT_STORM,
        hours=(0.7, 1.0, 4.0),
        reached=_ponds,
    ),
    "tabulated uptake without compensation": Case(
        psi0=(-0.05, -0.2, -0.8, -1.5, -3.0, -6.0),
        transpiration=1e-7,
        stress_table=True,
        reached=lambda p, i, r: bool(
            (r.uptake < 0.98 * i["transpiration"]).all()
            and (r.psi[0, 0] > -0.1).all()  # wetter than the first knot
        ),
    ),
    "tabulated uptake, compensated in part": Case(
        psi0=(-4.0, -4.5, -5.0, -5.5, -6.0, -20.0),
        transpiration=1e-7,
        omega_c=0.7,
        stress_table=True,
        reached=lambda p, i, r: bool(
            (r.uptake < 0.98 * i["transpiration"]).all()
            and (r.uptake > 0.01 * i["transpiration"]).all()
            and (r.psi[0, -1] < -8.2).all()  # drier than the last knot
        ),
    ),
    "tabulated uptake, passing the threshold": Case(
        psi0=(-1.0, -1.5, -2.0, -2.5, -3.0, -4.0),
        transpiration=6e-7,
        omega_c=0.55,
        stress_table=True,
        values={"top.precipitation": 0.0},
        hours=(3.0, 8.0, 12.0),
        dt_fixed=4 * HOUR,
        reached=lambda p, i, r: bool(
            (r.uptake[0] > 0.999 * i["transpiration"][0]).all()
            and (r.uptake[-1] < 0.98 * i["transpiration"][-1]).all()
        ),
    ),
    "tabulated uptake under a pond": Case(
        relation="tabulated",
        psi0=(-0.9, -0.8, -0.7, -0.6, -0.5, -0.4),
        transpiration=2e-7,
        omega_c=0.7,
        stress_table=True,
        values=SHORT_STORM,
        hours=(0.7, 1.0, 4.0),
        reached=_ponds,
    ),
    # ---- response of evaporation ---------------------------------------------------------------------------
    "evaporation response, drying": Case(
        psi0=(-1.5, -1.2, -1.0, -0.8, -0.6, -0.4),
        values={
            "top.precipitation": (4e-7, 0.0, 0.0),
            "top.evaporation": (5e-8, 4e-7, 8e-7),
            "top.psi_min": -60.0,
        },
        hours=(1.0, 3.0, 6.0),
        evaporation_table=True,
        reached=lambda p, i, r: _limited(r, i, 2) and bool((r.psi[-1, -1] > -8.0).all()),
    ),
    "evaporation response, dried to the limit": Case(
        psi0=-3.0,
        values={"top.precipitation": 0.0, "top.evaporation": (4e-7, 4e-6, 4e-6), "top.psi_min": -4.0},
        evaporation_table=True,
        transpiration=4e-8,
        stress_table=True,
        omega_c=0.5,
        reached=lambda p, i, r: _limited(r, i, 2),
    ),
    "evaporation response, pond that drains": Case(
        psi0=-0.4,
        ponding0=0.012,
        values={"top.precipitation": 0.0, "top.evaporation": 4e-7, "top.ponding_max": 0.02},
        hours=(0.6, 1.0, 4.0),
        dt_fixed=0.4 * HOUR,
        evaporation_table=True,
        reached=lambda p, i, r: bool((r.ponding[0] > 0.0).all() and (r.ponding[-1] == 0.0).all()),
    ),
    "evaporation response, pond that runs off": Case(
        bottom="flux",
        psi0=(-0.9, -0.9, -0.9, -0.9, -0.9, -0.9),
        k_sat=3e-7,
        values={
            "top.precipitation": (3e-5, 5e-6, 3e-5),
            "top.evaporation": 2e-6,
            "top.ponding_max": 0.004,
            "bottom.q": -1e-7,
        },
        hours=(0.1, 0.15, 0.12),
        dt_fixed=0.04 * HOUR,
        evaporation_table=True,
        reached=lambda p, i, r: bool(
            (r.runoff[2] > 0.0).all() and (r.ponding[1:] > 0.0).all() and (r.psi[1, -1] < -0.1).all()
        ),
    ),
    "sources and sinks": Case("flux", "deep_water_table", source=2e-7),
    # ---- face means ----------------------------------------------------------------------------------------
    "upstream mean": Case(bottom="head", face_mean="upstream", values=RAIN_TO_DRY),
    "geometric mean": Case(bottom="head", face_mean="geometric", values=RAIN_TO_DRY),
    "harmonic mean": Case(bottom="head", face_mean="harmonic", values=RAIN_TO_DRY),
    "upstream mean, head above": Case(
        "head", "seepage_face", face_mean="upstream", values={"top.psi": (0.05, -2.0, -0.02)}
    ),
    "upstream mean, pond": Case(face_mean="upstream", psi0=-0.4, values=SHORT_STORM, reached=_ponds),
    "harmonic mean, pond": Case(face_mean="harmonic", psi0=-0.4, values=SHORT_STORM, reached=_ponds),
    "geometric mean, pond": Case(face_mean="geometric", psi0=-0.4, values=SHORT_STORM, reached=_ponds),
    # ---- soils ---------------------------------------------------------------------------------------------
    "van Genuchten with air entry": Case(
        bottom="head",
        psi0=(-0.02, -0.04, -0.2, -0.5, -1.0, -1.5),
        values=RAIN_TO_DRY | {"air_entry": 0.06, "bottom.psi": -0.01},
    ),
    "van Genuchten, n near 1": Case(bottom="head", values=RAIN_TO_DRY | {"n": 1.08, "air_entry": 0.02}),
    "Brooks-Corey-Mualem": Case(bottom="head", relation="brooks_corey", values=RAIN_TO_DRY),
    "Brooks-Corey-Burdine": Case(bottom="head", relation="brooks_corey", variant=1, values=RAIN_TO_DRY),
    "Gardner": Case(bottom="head", relation="gardner", values=RAIN_TO_DRY),
    "Haverkamp": Case(bottom="head", relation="haverkamp", values=RAIN_TO_DRY),
    "Haverkamp, logarithm": Case(
        bottom="head",
        relation="haverkamp",
        variant=1,
        values=RAIN_TO_DRY | {"alpha": 739.0, "beta": 4.0, "a": 0.06, "gamma": 1.77},
    ),
    "Kosugi": Case(bottom="head", relation="kosugi", values=RAIN_TO_DRY),
    "Fredlund-Xing": Case(bottom="head", relation="fredlund_xing", values=RAIN_TO_DRY),
    "Durner": Case(bottom="head", relation="durner", values=RAIN_TO_DRY),
    "Peters-Durner-Iden": Case(bottom="head", relation="peters_durner_iden", values=RAIN_TO_DRY),
    "saturated soil": Case(
        "head",
        "general_head",
        relation="saturated",
        psi0=0.8,
        storage=1e-3,
        values={"top.psi": (0.3, 0.9, 0.2)},
        source=1e-8,
    ),
    "table": Case(
        bottom="head",
        relation="tabulated",
        psi0=-1.2,
        storage=1e-2,
        values=RAIN_TO_DRY | {"h3": -1.6},
        transpiration=4e-8,
        omega_c=0.5,
    ),
    "table, pond": Case(relation="tabulated", psi0=-0.4, values=SHORT_STORM, reached=_ponds),
    "table, beyond its ends": Case(
        "head",
        relation="tabulated",
        psi0=(-60.0, -50.0, -30.0, -5.0, -0.5, 0.05),
        values={"top.psi": 0.1},
        hours=(0.3, 0.8, 0.5),
        dt_fixed=0.15 * HOUR,
        reached=lambda p, i, r: bool((r.psi[0, :2] < -40.0).all() and (r.psi[1:, -1] > -0.01).all()),
    ),
    "network": Case(
        bottom="head",
        relation="network",
        psi0=-1.2,
        storage=1e-2,
        values=RAIN_TO_DRY | {"h3": -1.6},
        transpiration=4e-8,
        omega_c=0.5,
    ),
    "network, pond": Case(relation="network", psi0=-0.4, values=SHORT_STORM, reached=_ponds),
}
NAMES = tuple(CASES)
# One case for each soil, for gradcheck.
SOIL_NAMES = NAMES[NAMES.index("van Genuchten with air entry") :]
