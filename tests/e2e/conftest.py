"""One small cohort for all programs of a session."""

from __future__ import annotations

import pytest

from tests.e2e.data import Cohort, make_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Files that are never changed; a test that damages one works on a copy."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))
