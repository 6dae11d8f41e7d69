"""First guesses of adjoint solves: exact for what is a parabola over steps of any length."""

from __future__ import annotations

import pytest
import torch

from dgpde.forecast import Forecast


@pytest.mark.parametrize("apart", [False, True], ids=["one step for all", "steps of each cell"])
def test_follows_a_parabola_over_uneven_steps(apart: bool) -> None:
    lengths = [2.0, 1.8, 2.3, 2.1, 1.5]
    scale = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64) if apart else 1.0
    a, b, c = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forecast, time = Forecast(), 0.0
    assert forecast.guess(1.0) is None
    for k, length in enumerate(lengths):
        step, middle = length * scale, (time + 0.5 * length) * scale
        answer = step * (a + b * middle + c * middle**2)
        guess = forecast.guess(step)
        if k >= 3:
            assert guess is not None
            # sums of weights below 10
            assert float((guess - answer).abs().max()) < 1e-13 * float(answer.abs().max()) * 10
        forecast.add(step, answer)
        time += length


def test_takes_fewer_answers_where_steps_differ_much() -> None:
    forecast = Forecast()
    for k in range(3):
        forecast.add(1e-3, torch.tensor([1e-3 * (1.0 + 1e-6 * k)], dtype=torch.float64))
    # a parabola through three points within 3 ms, a minute on, would be 1e9 times their noise
    guess = forecast.guess(60.0)
    assert guess is not None
    assert float(guess) == pytest.approx(60.0, rel=1e-5)
