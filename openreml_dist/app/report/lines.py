"""Single lines of the terminal: where a run is computed, and what it fits."""

from __future__ import annotations

import torch

from openreml_dist.app.session import Session
from openreml_dist.covariance import Covariance


def place_line(here: Session) -> str:
    """Ranks, grid, device, threads and folder."""
    shape, threads = here.grid.shape, torch.get_num_threads()
    ranks = f"{shape.size} {'rank' if shape.size == 1 else 'ranks'}"
    same_memory = ", which share memory" if shape.shares_memory else ""
    return (
        f"openreml-fit on {ranks} ({here.launcher}), grid {shape.rows} x {shape.columns}, {here.grid.device}, "
        f"{threads} {'thread' if threads == 1 else 'threads'} a rank{same_memory}; writing to {here.directory}"
    )


def model_line(covariance: Covariance, how: str, shape: tuple[int, int]) -> str:
    """Terms with the number of their parameters where there are several, samples and fixed effects, how it is computed."""
    counts = [(term.name, len(term.parameters)) for term in covariance.terms]
    terms = [name if count == 1 else f"{name} ({count} parameters)" for name, count in counts]
    return f"model: {' + '.join(terms)}; {shape[0]:,} samples, {shape[1]} fixed effects; {how}"
