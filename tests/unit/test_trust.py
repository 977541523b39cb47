"""The bounded step against enumeration of all active sets, and the secant correction."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from openreml_dist.reml.trust import bounded_step, positive_definite, secant_correction

INFINITE = float("inf")


def problem(r: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(r, r, generator=generator, dtype=torch.float64)
    B = A @ A.mT + 0.1 * torch.eye(r, dtype=torch.float64)
    g = 3 * torch.randn(r, generator=generator, dtype=torch.float64)
    theta = torch.rand(r, generator=generator, dtype=torch.float64)
    theta[torch.rand(r, generator=generator) < 0.3] = 0.0  # some start on their bound
    return g, B, theta, torch.zeros(r, dtype=torch.float64)


def best_of_all_active_sets(g: Tensor, B: Tensor, theta: Tensor, lower: Tensor) -> float:
    best = -INFINITE
    for active in product([False, True], repeat=len(g)):
        held = torch.tensor(active)
        delta = torch.where(held, lower - theta, torch.zeros_like(g))
        free = ~held
        if bool(free.any()):
            delta[free] = torch.linalg.solve(B[free][:, free], g[free] - B[free][:, held] @ delta[held])
        if bool((theta + delta >= lower - 1e-12).all()):
            best = max(best, float(g @ delta - 0.5 * delta @ B @ delta))
    return best


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_step_is_the_best_within_the_bounds(r: int, seed: int) -> None:
    g, B, theta, lower = problem(r, seed)
    step = bounded_step(g, B, theta, lower, INFINITE)
    assert bool((theta + step.delta >= lower - 1e-12).all())
    expected = best_of_all_active_sets(g, B, theta, lower)
    assert abs(step.gain - expected) <= 1e-9 * (1 + abs(expected))


@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_step_stays_within_the_radius_and_still_gains(r: int, seed: int, radius: float) -> None:
    g, B, theta, lower = problem(r, seed)
    step = bounded_step(g, B, theta, lower, radius)
    assert float(step.delta @ B @ step.delta) ** 0.5 <= radius * (1 + 1e-9)
    assert bool((theta + step.delta >= lower - 1e-12).all())
    assert step.gain >= 0


def test_secant_correction_reproduces_the_change_of_the_score() -> None:
    _, AI, _, _ = problem(3, 1)
    AI = 100 * AI
    delta = torch.tensor([0.01, -0.005, 0.002], dtype=torch.float64)
    change = -(AI + torch.diag(torch.tensor([3.0, 5.0, 2.0], dtype=torch.float64))) @ delta
    E = secant_correction(torch.zeros_like(AI), AI, delta, change)
    torch.testing.assert_close((AI + E) @ delta, -change)


def test_secant_correction_ignores_long_steps_and_drops_wild_ones() -> None:
    AI = torch.eye(2, dtype=torch.float64)
    before = torch.full((2, 2), 0.01, dtype=torch.float64)
    long_step = torch.tensor([3.0, 0.0], dtype=torch.float64)
    assert secant_correction(before, AI, long_step, -2 * long_step) is before
    short_step = torch.tensor([0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(secant_correction(before, AI, short_step, -50 * short_step), torch.zeros(2, 2).double())


def test_singular_curvature_is_raised_and_a_definite_one_left_alone() -> None:
    singular = torch.tensor([[4.0, 4.0], [4.0, 4.0]], dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(positive_definite(singular))[0]) > 0
    definite = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert positive_definite(definite) is definite
