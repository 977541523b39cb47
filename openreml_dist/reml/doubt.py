"""When the average information AI is not to be trusted with a step, and which parameters there is none on.

Legend: r parameters θ; information on a parameter is counted in units of itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.outcome import Iteration
from openreml_dist.reml.step import Step
from openreml_dist.reml.trust import NO_INFORMATION

NO_SCORE = 1e-9  # what ℓ changes by when the parameter doubles, if that is nothing
LARGE_GAIN, IMPLAUSIBLE = 10.0, 10.0  # of ℓ, from a step ten times as long as the moves of its parameters together


def says_nothing(information: Tensor, theta: Tensor) -> Tensor:
    """(r,) parameters that an information matrix (r, r) says nothing of."""
    return information.diagonal() * _size(theta).square() < NO_INFORMATION


def changes_loglik(step: Step) -> Tensor:
    """(r,) parameters that ℓ changes with."""
    return step.score.abs() * _size(step.theta) >= NO_SCORE


def is_blind(step: Step, bounds: Bounds) -> bool:
    """Whether there is no average information on a parameter that ℓ changes with: V_k P y = 0, as of groups of equal means."""
    held = bounds.holding(step.theta, step.score)
    return bool((says_nothing(step.AI, step.theta) & changes_loglik(step) & ~held).any())


def is_implausible(iteration: Iteration) -> bool:
    """Whether the model promises much from a step that moves no parameter by much: AI is nearly singular, and misleads.

    A step of length d, in standard errors jointly, gains ½d²; correlated estimates make d longer than each move, within limits.
    """
    gain, moves = iteration.next_step.gain, len(iteration.step.theta) * iteration.largest_move**2
    return gain > LARGE_GAIN and 2 * gain > IMPLAUSIBLE**2 * moves


def _size(theta: Tensor) -> Tensor:
    """|θ|, or 1 where that is 0: what is exactly zero is so in any unit."""
    return torch.where(theta == 0, 1.0, theta.abs())
