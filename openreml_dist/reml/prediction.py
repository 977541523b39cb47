"""Random effects, as every engine predicts them.

Legend: n records, p fixed effects, m targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Term
from openreml_dist.covariance.indices import Indices


@dataclass(frozen=True)
class Effects:
    """The random effects of one term at m targets, float64 on the CPU, the same on every rank.

    Attributes:
        name: of the term.
        values: (m,) û.
        prior: (m,) var(u), before any record; None unless error variances were asked for.
        pev: (m,) prediction error variance var(û − u), likewise.
    """

    name: str
    values: Tensor
    prior: Tensor | None = None
    pev: Tensor | None = None

    @property
    def reliability(self) -> Tensor | None:
        """(m,) 1 − PEV/var(u), the squared correlation of û and u without fixed effects; 0 where var(u) is 0."""
        if self.pev is None or self.prior is None:
            return None
        return torch.where(self.prior > 0, 1 - self.pev / self.prior, 0.0)


@dataclass(frozen=True)
class NewRecords:
    """m records that the fit has not seen.

    Attributes:
        fitted: (m,) xβ̂ + Σ û.
        variance: (m,) of y − fitted, residual included; None unless error variances were asked for.
        effects: of each term.
    """

    fitted: Tensor
    variance: Tensor | None
    effects: list[Effects]


class Predictor(Protocol):
    """Best linear unbiased predictions at one θ, at the records and elsewhere. Each method is collective.

    Attributes:
        Py: (n,) P y, from which every prediction is made, on the device of the grid.
    """

    Py: Tensor

    def records(self) -> list[Effects]:
        """û of every term at the n records, the residual among them."""

    def effects(self, name: str, whole: Term, records: Indices, targets: Indices | None = None) -> Effects:
        """û of the term ``name`` where it has no record: ``whole`` is the same term on everything.

        Args:
            name: of a term of the model.
            whole: of which the model has ``whole.selected(records)``.
            records: (n,) which of ``whole`` each record is.
            targets: (m,) which of ``whole`` to predict; all by default.
        """

    def new_records(self, whole: Covariance, records: Indices, targets: Indices, x: Tensor) -> NewRecords:
        """m records that the fit has not seen, with fixed effects x (m, p); ``whole`` is the model on all samples."""
