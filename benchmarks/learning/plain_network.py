"""A perceptron from depth and past weather to water content: what a network does without the physics."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

MEMORIES = (0.25, 1.0, 4.0, 16.0)  # days
DECAYS = (1e-4, 1e-2)
APART = 8  # readings, of those that one step of the training takes; it begins at a drawn one
WITHHELD = 0.2  # the last part of the record, on which weight decay and number of steps are chosen


def past_weather(series: Sequence[Tensor], dt: float) -> Tensor:
    """[T, 4 m + 4]: m series [T] as seen by memories that fade over 0.25 to 16 days, and the fading of the start."""
    columns = []
    for days in MEMORIES:
        keep = math.exp(-dt / (days * 86400.0))
        for entry in series:
            held, kept = 0.0, []
            for value in entry.tolist():
                held = keep * held + (1.0 - keep) * value
                kept.append(held)
            column = torch.tensor(kept, dtype=torch.float64)
            columns.append(column / entry.mean())
        columns.append(keep ** torch.arange(1, series[0].numel() + 1, dtype=torch.float64))
    return torch.stack(columns, 1)


class PlainNetwork(torch.nn.Module):
    """theta(depth, weather): two hidden layers where there is room for them, else one."""

    def __init__(self, inputs: Tensor, hidden: int, mean: float, scale: float) -> None:
        super().__init__()
        self.centre, self.width = inputs.mean(0), inputs.std(0)
        self.mean, self.scale = mean, scale
        layers: list[torch.nn.Module] = [torch.nn.Linear(inputs.shape[1] + 1, hidden), torch.nn.Tanh()]
        if hidden > 8:
            layers += [torch.nn.Linear(hidden, hidden), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 1)).double()

    def forward(self, inputs: Tensor, depths: Sequence[float]) -> Tensor:
        """Inputs [T, 4 m + 4], depths [m] -> theta [T, m]."""
        scaled = ((inputs - self.centre) / self.width)[:, None].expand(-1, len(depths), -1)
        place = 4.0 * torch.tensor(depths, dtype=torch.float64) - 2.0
        x = torch.cat([scaled, place[None, :, None].expand(inputs.shape[0], -1, 1)], -1)
        return self.mean + self.scale * self.layers(x)[..., 0]


def fit_plain(
    inputs: Tensor, depths: Sequence[float], theta: Tensor, hidden: int, seed: int, steps: int
) -> PlainNetwork:
    """Trained by AdamW on theta [T, m] with the weight decay and at the step that do best on the end of the record."""
    split = round((1.0 - WITHHELD) * inputs.shape[0])
    best, least = None, math.inf
    for decay in DECAYS:
        torch.manual_seed(seed)
        model = PlainNetwork(inputs, hidden, theta.mean().item(), theta.std().item())
        optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            taken = slice(int(torch.randint(APART, ())), split, APART)
            optimiser.zero_grad()
            (model(inputs[taken], depths) - theta[taken]).square().mean().backward()
            optimiser.step()
            schedule.step()
            if step % 50 == 49:
                with torch.no_grad():
                    error = (model(inputs[split:], depths) - theta[split:]).square().mean().item()
                if error < least:
                    best, least = copy.deepcopy(model), error
    assert best is not None
    return best.requires_grad_(False)
