"""Correlations by position: along a line, and by distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openreml_dist import covariance as cov
from openreml_dist.errors import ConfigError
from openreml_dist.models.columns import numbers_of
from openreml_dist.models.structures import Structure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AR1(Structure):
    """Autoregressive correlation along a column of positions: field rows, days."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: they are numbers."""
        return ()

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """ρ^|difference of positions|."""
        return cov.AR1Correlation(numbers_of(records, self.column, name), f"{name}.{self.column}")


@dataclass(frozen=True, init=False)
class Matern(Structure):
    """Correlation by distance: Matérn of smoothness ½ (exponential), 3/2 or 5/2.

    Args:
        coordinates: columns.
        smoothness: ν.
    """

    coordinates: tuple[str, ...]
    smoothness: float

    def __init__(self, *coordinates: str, smoothness: float = 1.5) -> None:
        if not coordinates:
            raise ConfigError("a distance needs columns of coordinates")
        object.__setattr__(self, "coordinates", coordinates)
        object.__setattr__(self, "smoothness", smoothness)

    @property
    def columns(self) -> tuple[str, ...]:
        """The coordinates."""
        return self.coordinates

    @property
    def labels(self) -> tuple[str, ...]:
        """None: they are numbers."""
        return ()

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """The kernel."""
        points = np.column_stack([numbers_of(records, column, name) for column in self.coordinates])
        return cov.Matern(points, self.smoothness, name)


class Exponential(Matern):
    """Correlation e^(−distance/range)."""

    def __init__(self, *coordinates: str) -> None:
        super().__init__(*coordinates, smoothness=0.5)
