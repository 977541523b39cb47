"""Distributed REML for linear mixed models.

from openreml_dist import REML, Covariance, Grouping, Identity

result = REML(Covariance([Grouping(batch, "batch"), Identity(len(y))])).fit(y, X)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from openreml_dist.versions import __version__

if TYPE_CHECKING:
    from openreml_dist.compat import REML
    from openreml_dist.covariance import Covariance, Grouping, Identity, Kernel
    from openreml_dist.models import MixedModel
    from openreml_dist.reml import FitResult

__all__ = ["REML", "Covariance", "FitResult", "Grouping", "Identity", "Kernel", "MixedModel", "__version__"]
_HOMES = {"REML": "compat", "FitResult": "reml", "MixedModel": "models"}


def __getattr__(name: str) -> object:
    """Import torch only when the solver is used: preparation programs start without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "covariance")
    return getattr(import_module(f"openreml_dist.{home}"), name)
