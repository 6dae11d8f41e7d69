"""First guesses of adjoint solves: exact for a parabola over steps of any length, and for what is known already."""

from __future__ import annotations

import pytest
import torch

from dgpde.forecast import KNOWN, Forecast, Projection


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


def test_a_combination_of_known_systems_is_known() -> None:
    made = torch.Generator().manual_seed(1)
    matrix = torch.randn(63, 63, dtype=torch.float64, generator=made) + 20.0 * torch.eye(
        63, dtype=torch.float64
    )
    projection = Projection()
    assert projection.guess(torch.ones(63, dtype=torch.float64)) is None
    projection.add(torch.zeros(63, dtype=torch.float64), torch.zeros(63, dtype=torch.float64))
    assert projection.guess(torch.ones(63, dtype=torch.float64)) is None
    answers = [torch.randn(63, dtype=torch.float64, generator=made) for _ in range(KNOWN + 2)]
    for answer in answers:
        projection.add(matrix @ answer, answer)
    known = answers[-1] - 3.0 * answers[-KNOWN]
    guess = projection.guess(matrix @ known)
    assert guess is not None
    # correlations of six random vectors have condition numbers below 100
    assert float((guess - known).norm()) < 1e-13 * 100 * float(known.norm())
    # those before the last six are forgotten, and one that is told twice changes nothing
    projection.add(matrix @ answers[-1], answers[-1])
    projection.add(matrix @ answers[-1], answers[-1])
    again = projection.guess(matrix @ answers[-1])
    assert again is not None
    # two equal right sides: the smaller eigenvalue is round-off and is left out
    assert float((again - answers[-1]).norm()) < 1e-13 * 100 * float(answers[-1].norm())


def test_the_guess_is_the_closest_there_is() -> None:
    made = torch.Generator().manual_seed(2)
    matrix = torch.randn(20, 20, dtype=torch.float64, generator=made) + 9.0 * torch.eye(
        20, dtype=torch.float64
    )
    projection, known = Projection(), torch.randn(20, 3, dtype=torch.float64, generator=made)
    for k in range(3):
        projection.add((matrix @ known)[:, k], known[:, k])
    rhs = torch.randn(20, dtype=torch.float64, generator=made)
    guess = projection.guess(rhs)
    assert guess is not None
    best = known @ torch.linalg.lstsq(matrix @ known, rhs[:, None]).solution[:, 0]
    assert torch.allclose(guess, best, rtol=0.0, atol=1e-13)  # condition numbers below 100
