"""The bounded step against enumeration of all active sets, and the secant correction."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.trust import bounded_step, positive_definite, secant_correction

INFINITE = float("inf")


Box = tuple[Tensor, Tensor]


def problem(r: int, seed: int, bounded_above: bool = False) -> tuple[Tensor, Tensor, Tensor, Box]:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(r, r, generator=generator, dtype=torch.float64)
    B = A @ A.mT + 0.1 * torch.eye(r, dtype=torch.float64)
    g = 3 * torch.randn(r, generator=generator, dtype=torch.float64)
    theta = torch.rand(r, generator=generator, dtype=torch.float64)
    lower, upper = torch.zeros(r, dtype=torch.float64), torch.full((r,), INFINITE, dtype=torch.float64)
    if bounded_above:
        upper = torch.where(torch.rand(r, generator=generator) < 0.7, 1.0, INFINITE).double()
        theta[torch.rand(r, generator=generator) < 0.2] = 1.0
    theta[torch.rand(r, generator=generator) < 0.3] = 0.0  # some start on their bound
    return g, B, theta, (lower, upper)


def best_of_all_active_sets(g: Tensor, B: Tensor, theta: Tensor, box: Box) -> float:
    best = -INFINITE
    lower, upper = box
    for active in product([0, -1, 1], repeat=len(g)):
        side = torch.tensor(active)
        if bool((upper[side > 0] == INFINITE).any()):
            continue
        held = side != 0
        delta = torch.where(side < 0, lower - theta, torch.where(side > 0, upper - theta, torch.zeros_like(g)))
        free = ~held
        if bool(free.any()):
            delta[free] = torch.linalg.solve(B[free][:, free], g[free] - B[free][:, held] @ delta[held])
        if bool((theta + delta >= lower - 1e-12).all() and (theta + delta <= upper + 1e-12).all()):
            best = max(best, float(g @ delta - 0.5 * delta @ B @ delta))
    return best


def inside(theta: Tensor, box: Box) -> bool:
    return bool((theta >= box[0] - 1e-12).all() and (theta <= box[1] + 1e-12).all())


@given(st.integers(1, 5), st.integers(0, 10_000), st.booleans())
def test_step_is_the_best_within_the_bounds(r: int, seed: int, bounded_above: bool) -> None:
    g, B, theta, box = problem(r, seed, bounded_above)
    step = bounded_step(g, B, theta, Bounds.of(*box), INFINITE)
    assert inside(theta + step.delta, box)
    expected = best_of_all_active_sets(g, B, theta, box)
    assert abs(step.gain - expected) <= 1e-9 * (1 + abs(expected))


@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0.01, 3.0), st.booleans())
def test_step_stays_within_the_radius_and_still_gains(r: int, seed: int, radius: float, bounded_above: bool) -> None:
    g, B, theta, box = problem(r, seed, bounded_above)
    step = bounded_step(g, B, theta, Bounds.of(*box), radius)
    assert float(step.delta @ B @ step.delta) ** 0.5 <= radius * (1 + 1e-9)
    assert inside(theta + step.delta, box)
    assert step.gain >= 0


def test_secant_correction_reproduces_the_change_of_the_score() -> None:
    _, AI, _, _ = problem(3, 1)
    AI = 100 * AI
    delta = torch.tensor([0.01, -0.005, 0.002], dtype=torch.float64)
    change = -(AI + torch.diag(torch.tensor([3.0, 5.0, 2.0], dtype=torch.float64))) @ delta
    E = secant_correction(torch.zeros_like(AI), AI, delta, change, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close((AI + E) @ delta, -change)


def test_secant_correction_ignores_long_steps_and_drops_wild_ones() -> None:
    AI = torch.eye(2, dtype=torch.float64)
    before = torch.full((2, 2), 0.01, dtype=torch.float64)
    long_step = torch.tensor([3.0, 0.0], dtype=torch.float64)
    free = torch.ones(2, dtype=torch.bool)
    assert secant_correction(before, AI, long_step, -2 * long_step, free) is before
    short_step = torch.tensor([0.1, 0.0], dtype=torch.float64)
    dropped = secant_correction(before, AI, short_step, -50 * short_step, free)
    torch.testing.assert_close(dropped, torch.zeros(2, 2).double())


def test_secant_correction_leaves_out_what_is_held_even_where_it_makes_the_information_singular() -> None:
    AI = torch.diag(torch.tensor([100.0, 100.0, 0.0], dtype=torch.float64))
    delta = torch.tensor([0.01, -0.005, 0.0], dtype=torch.float64)
    change = -(AI + torch.diag(torch.tensor([40.0, 30.0, 0.0], dtype=torch.float64))) @ delta
    E = secant_correction(torch.zeros_like(AI), AI, delta, change, torch.tensor([True, True, False]))
    torch.testing.assert_close((AI + E) @ delta, -change)


def test_a_bound_without_slope_is_approached_but_not_stepped_onto() -> None:
    g, B, theta = torch.tensor([-9.0, 1.0]), torch.eye(2), torch.tensor([1.0, 1.0])
    bounds = replace(Bounds.of(torch.zeros(2)), vanishing=torch.tensor([True, False])).beside_vanishing(theta)
    first = bounded_step(g, B, theta, bounds.for_step_from(theta), INFINITE)
    torch.testing.assert_close(theta + first.delta, torch.tensor([0.1, 2.0]))
    near = torch.tensor([2e-6, 2.0])
    second = bounded_step(g, B, near, bounds.for_step_from(near), INFINITE)
    torch.testing.assert_close(near + second.delta, torch.tensor([1e-6, 3.0]), rtol=1e-6, atol=1e-9)
    assert bounds.holding(near + second.delta, g).tolist() == [True, False]


def test_singular_curvature_is_raised_and_a_definite_one_left_alone() -> None:
    singular = torch.tensor([[4.0, 4.0], [4.0, 4.0]], dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(positive_definite(singular))[0]) > 0
    definite = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert positive_definite(definite) is definite
