"""What prediction may know of a term to be spared work: that it is diagonal, or that its rows repeat.

Legend: n samples; η parameters of the term.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.grouping import SameLevel
from openreml_dist.covariance.operators import Scaled
from openreml_dist.covariance.selected import Selected
from openreml_dist.covariance.term import DiagonalTerm, Indices, Term, VarianceComponent


def diagonal_if_alone(term: Term, eta: Tensor, device: torch.device) -> Tensor | None:
    """The diagonal (n,) of a term that has nothing beside it, zeros for a variance of zero; None for all others. Local."""
    if isinstance(term, VarianceComponent | Scaled):
        if float(eta[0]) == 0:
            return torch.zeros(term.size, dtype=torch.float64, device=device)
        inner = term.K if isinstance(term, VarianceComponent) else term.operands[0]
        diagonal = diagonal_if_alone(inner, eta[1:], device)
        return None if diagonal is None else float(eta[0]) * diagonal
    if isinstance(term, DiagonalTerm):
        return term.diagonal(range(term.size), eta, device)
    return None


def distinct_rows(term: Term) -> tuple[Indices, Indices] | None:
    """Samples whose rows of the term are all that there are, and which of them each sample repeats; None if unknown. Local."""
    inner = term.K if isinstance(term, VarianceComponent) else term
    if not isinstance(inner, SameLevel | Selected):
        return None
    codes = inner.codes if isinstance(inner, SameLevel) else inner.index
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)
