"""Public reference sets: data with the answers of other programs, which lie beside the checkout and not in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def references(name: str) -> Path:
    """Folder of one reference set; the test is skipped where it is absent. ``OPENREML_REFS`` names another place."""
    root = Path(os.environ.get("OPENREML_REFS", CHECKOUT.parent / "shared" / "refs"))
    if not (root / name).is_dir():
        pytest.skip(f"no reference data in {root / name}; set OPENREML_REFS to the folder that has it")
    return root / name
