"""A relationship matrix for a fit, whatever holds it: a GRM store, or files of GCTA or MPH where they lie."""

from __future__ import annotations

from openreml_dist.store.gcta import PREFIX, TriangleStore, open_triangle_store
from openreml_dist.store.grm import GrmStore, open_grm


def open_kernel(path: str) -> GrmStore | TriangleStore:
    """Open a store, or ``gcta:PREFIX``, and verify what can be verified without reading its matrix.

    Raises:
        InputError: for what cannot be used.
    """
    return open_triangle_store(path) if path.startswith(PREFIX) else open_grm(path)
