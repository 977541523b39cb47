"""The interface of the single-machine package torch-openreml, over the solver and the covariance terms."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openreml_dist.compat.reml import REML

__all__ = ["REML"]


def __getattr__(name: str) -> object:
    """``REML`` stands above the covariance terms, ``DenseView`` below them: neither is imported before it is used."""
    if name != "REML":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("openreml_dist.compat.reml").REML
