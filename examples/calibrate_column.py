"""Find the soil of one column from the moisture at three depths: infiltration, then evaporation, four days.

Run it with `python examples/calibrate_column.py`; it takes a few seconds and needs no data. The "measurements" are
made by a soil that the calibration does not know, with the noise of a good probe.
"""

from __future__ import annotations

import torch

import dgpde

HOUR = 3600.0
torch.manual_seed(0)

grid = dgpde.Grid.columns(n=1, dz=[0.05] * 18 + [0.02] * 5)  # 1 m, finer at the top
times = torch.arange(97, dtype=torch.float64) * HOUR
rain, evaporation = (
    torch.zeros(96, dtype=torch.float64),
    torch.full((96,), 0.2e-3 / HOUR, dtype=torch.float64),
)
rain[6:12] = 6e-3 / HOUR  # six hours of 6 mm
evaporation[:24] = 0.0
probes = [(grid.depth[:, 0] - depth).abs().argmin().item() for depth in (0.05, 0.15, 0.30)]


def moisture(log_alpha: torch.Tensor, log_n1: torch.Tensor, log_k: torch.Tensor) -> torch.Tensor:
    """Water content at the probes [97, 3] for alpha [1/m], n - 1 and k_sat [m/s] given by their logarithms."""
    soil = dgpde.VanGenuchten(
        theta_r=0.065, theta_s=0.41, alpha=log_alpha.exp(), n=1.0 + log_n1.exp(), k_sat=log_k.exp()
    )
    flow = dgpde.Richards(
        grid,
        soil,
        boundaries={
            "top": dgpde.Atmosphere(dgpde.Series(rain), dgpde.Series(evaporation), psi_min=-150.0),
            "bottom": dgpde.FreeDrainage(),
        },
    )
    return flow.solve(psi0=-2.0, times=times).theta[:, probes, 0]


def main() -> None:
    truth = torch.log(torch.tensor([7.5, 0.89, 1.2e-5], dtype=torch.float64))  # sandy loam
    with torch.no_grad():
        measured = moisture(*truth) + 0.002 * torch.randn(97, 3, dtype=torch.float64)
    guess = torch.log(torch.tensor([3.6, 0.56, 2.9e-6], dtype=torch.float64)).requires_grad_()  # loam
    optimiser = torch.optim.LBFGS([guess], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = 0.5 * ((moisture(*guess) - measured) / 0.002).square().mean()
        value.backward()
        return value

    print(
        f"start: alpha {guess[0].exp():.2f} 1/m, n {1 + guess[1].exp():.3f}, k_sat {guess[2].exp():.2e} m/s"
    )
    optimiser.step(loss)
    print(
        f"found: alpha {guess[0].exp():.2f} 1/m, n {1 + guess[1].exp():.3f}, k_sat {guess[2].exp():.2e} m/s"
    )
    print(
        f"truth: alpha {truth[0].exp():.2f} 1/m, n {1 + truth[1].exp():.3f}, k_sat {truth[2].exp():.2e} m/s"
    )
    print(f"misfit, in standard deviations of the noise: {(2 * loss().item()) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
