"""What the plain loop of ``REML.optimize`` is made of: its step, when it ends, what it says; no safeguards.

Legend: r parameters θ. A history has one entry an iteration in each of its lists, all of the θ of that iteration.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openreml_dist.errors import InputError

History = dict[str, list[Tensor]]
KEYS = ("theta", "beta", "loglik", "score", "ai", "delta", "update")
BAR = 30  # characters


def newton_step(AI: Tensor, score: Tensor) -> Tensor:
    """δ (r,) with AI δ = score; the shortest where AI is singular, so that confounded parameters share a step. Local."""
    delta: Tensor = torch.linalg.lstsq(AI, score[:, None], driver="gelsy").solution[:, 0]
    return delta


def has_converged(history: History, checks: tuple[bool, bool, bool], tolerances: tuple[float, float, float]) -> bool:
    """Whether the norms of score and step and the change of ℓ pass the enabled checks; never before two iterations. Local.

    A log-likelihood that was not asked for (nan) is not checked.
    """
    logliks = history.get("loglik", [])
    if len(logliks) < 2:
        return False
    values = (float(history["score"][-1].norm()), float(history["delta"][-1].norm()), abs(float(logliks[-1] - logliks[-2])))
    enabled = (checks[0], checks[1], checks[2] and not bool(logliks[-1].isnan()))
    return all(value < most for value, most, check in zip(values, tolerances, enabled, strict=True) if check)


def chosen(history: History, key: str, select: str) -> Tensor:
    """An entry of the last iteration, or of the one with the highest log-likelihood. Local.

    Raises:
        InputError: if there is no iteration, or no log-likelihood to choose by.
    """
    entries = history.get(key, [])
    if not entries:
        raise InputError(f"history: no iteration with {key}; call optimize first")
    if select == "last":
        return entries[-1]
    logliks = [-math.inf if bool(value.isnan()) else float(value) for value in history["loglik"]]
    if max(logliks) == -math.inf:
        raise InputError("history: no iteration has a log-likelihood to select by; call optimize with require_loglik=True")
    return entries[logliks.index(max(logliks))]


def progress_bar(number: int, max_iter: int) -> str:
    """How many iterations are done, in one line that the next one overwrites."""
    done = BAR * number // max_iter
    return f"\r[{'#' * done}{'.' * (BAR - done)}] {number} of at most {max_iter} iterations"


def progress_line(history: History, eta: float) -> str:
    """The last iteration in words."""
    number, last = len(history["theta"]), {key: values[-1] for key, values in history.items()}
    change = f" ({float(last['loglik'] - history['loglik'][-2]):+.3g})" if number > 1 else ""
    norms = {key: f"{float(last[key].norm()):.4g}" for key in ("score", "delta", "update")}
    return (
        f"iteration {number}: |score| {norms['score']}, |step| {norms['delta']}, eta {eta:g}, "
        f"|clipped step| {norms['update']}, logL {float(last['loglik']):.6f}{change}\n"
    )
