"""One SLURM, and one small cohort, for all tests of this folder, which are marked ``cluster``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, started, why_none
from tests.e2e.data import Cohort, make_cohort


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them all."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Skips where none can be started, and says why."""
    if reason := why_none():
        pytest.skip(reason)
    with started() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Files that are never changed."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))
