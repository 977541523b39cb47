"""The bounded step against every active set, and the secant correction against its equation."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openreml_dist.reml.trust import LOCAL_STEP, bounded_step, positive_definite, secant_correction

INFINITY = float("inf")


def random_problem(r: int, seed: int, log_condition: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient, curvature, θ and bounds; θ is on some of its bounds, and some are absent."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(r, r, generator=generator, dtype=torch.float64))
    B = (Q * torch.logspace(0, log_condition, r, dtype=torch.float64)) @ Q.mT
    g = B @ torch.randn(r, generator=generator, dtype=torch.float64)
    theta = torch.rand(r, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 4, (r,), generator=generator)
    lower = torch.where(kind == 0, theta, torch.zeros(r, dtype=torch.float64))  # on the bound
    lower = torch.where(kind == 1, torch.full_like(lower, -INFINITY), lower)  # no bound
    return g, 0.5 * (B + B.mT), theta, lower


def best_gain(g: Tensor, B: Tensor, room: Tensor) -> float:
    """The highest gᵀδ − ½δᵀBδ with δ ≥ room, over all sets of parameters held at their bound."""
    best = -INFINITY
    for choice in product([False, True], repeat=len(g)):
        held = torch.tensor(choice)
        if bool(room[held].isinf().any()):
            continue
        delta = torch.where(held, room, torch.zeros_like(g))
        free = ~held
        delta[free] = torch.linalg.solve(B[free][:, free], g[free] - B[free][:, held] @ delta[held])
        if bool((delta >= room - 1e-12).all()):
            best = max(best, float(g @ delta - 0.5 * delta @ B @ delta))
    return best


@settings(max_examples=400)
@given(st.integers(1, 5), st.integers(0, 2**31), st.floats(0, 4))
def test_bounded_step_is_the_best_over_all_active_sets(r: int, seed: int, log_condition: float) -> None:
    g, B, theta, lower = random_problem(r, seed, log_condition)
    step = bounded_step(g, B, theta, lower, INFINITY)
    expected = best_gain(g, B, lower - theta)
    assert bool((step.delta >= lower - theta).all())
    assert abs(step.gain - expected) <= 1e-9 * (1 + abs(expected))
    assert step.length == float((step.delta @ B @ step.delta).sqrt())
    assert torch.equal(step.at_lower, theta + step.delta <= lower)


@given(st.integers(1, 5), st.integers(0, 2**31), st.floats(0.01, 1))
def test_radius_shortens_the_step_and_keeps_its_direction(r: int, seed: int, share: float) -> None:
    g, B, theta, lower = random_problem(r, seed, 2)
    whole = bounded_step(g, B, theta, lower, INFINITY)
    step = bounded_step(g, B, theta, lower, share * whole.length)
    torch.testing.assert_close(step.delta, share * whole.delta, rtol=1e-12, atol=1e-14)
    assert abs(step.length - share * whole.length) <= 1e-12 * whole.length
    assert bool((theta + step.delta >= lower - 1e-15).all())
    assert abs(step.gain - float(g @ step.delta - 0.5 * step.delta @ B @ step.delta)) <= 1e-12 * (1 + abs(step.gain))


def information(r: int, generator: torch.Generator) -> Tensor:
    A = torch.randn(r, r + 3, generator=generator, dtype=torch.float64)
    return A @ A.mT


@given(st.integers(1, 5), st.integers(0, 2**31), st.floats(0.6, 1.6))
def test_secant_equation(r: int, seed: int, curvature: float) -> None:
    """A score that falls along a short step by ``curvature`` times what AI says is reproduced by AI + E."""
    generator = torch.Generator().manual_seed(seed)
    AI = information(r, generator)
    delta = torch.randn(r, generator=generator, dtype=torch.float64)
    delta *= 0.9 * LOCAL_STEP / float((delta @ AI @ delta).sqrt())
    change = -curvature * AI @ delta
    E = secant_correction(torch.zeros_like(AI), AI, delta, change)
    torch.testing.assert_close((AI + E) @ delta, -change, rtol=1e-8, atol=1e-10)
    assert torch.equal(E, E.mT)
    torch.linalg.cholesky(AI + E)


def test_secant_correction_takes_the_last_one_along() -> None:
    generator = torch.Generator().manual_seed(1)
    AI = information(3, generator)
    E = 0.1 * AI
    delta = 0.01 * torch.randn(3, generator=generator, dtype=torch.float64)
    corrected = secant_correction(E, AI, delta, -1.2 * AI @ delta)
    torch.testing.assert_close((AI + corrected) @ delta, 1.2 * AI @ delta)
    assert torch.linalg.matrix_rank(corrected - E) == 1


def test_secant_correction_ignores_a_step_that_is_not_local() -> None:
    AI = torch.eye(2, dtype=torch.float64)
    E = torch.diag(torch.tensor([0.1, 0.0], dtype=torch.float64))
    delta = torch.tensor([1.01 * LOCAL_STEP, 0.0], dtype=torch.float64)
    assert torch.equal(secant_correction(E, AI, delta, -2 * delta), E)


def test_secant_correction_is_dropped_where_it_would_change_the_curvature_tenfold() -> None:
    AI = torch.eye(2, dtype=torch.float64)
    E = torch.diag(torch.tensor([0.1, 0.0], dtype=torch.float64))
    delta = torch.tensor([0.1, 0.0], dtype=torch.float64)
    for factor in (20.0, 0.05, -1.0):
        assert torch.equal(secant_correction(E, AI, delta, -factor * delta), torch.zeros_like(AI))


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_definite_information_is_left_alone(r: int, seed: int) -> None:
    B = information(r, torch.Generator().manual_seed(seed))
    assert torch.equal(positive_definite(B), B)


def test_confounded_information_is_made_definite_whatever_its_units() -> None:
    """Two parameters that cannot be told apart, one in millionths: the others keep their curvature."""
    units = torch.tensor([1.0, 1e6, 1e-3], dtype=torch.float64)
    B = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64) * units[:, None] * units
    definite = positive_definite(B)
    torch.linalg.cholesky(definite)
    torch.testing.assert_close(definite[2, 2], B[2, 2])
    torch.testing.assert_close(definite.diagonal(), B.diagonal(), rtol=1e-9, atol=0)
