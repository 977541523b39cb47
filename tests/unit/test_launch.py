"""What each launcher leaves in the environment, and how the cores of a host are shared."""

from __future__ import annotations

import pytest

from openreml_dist.app.launch import Placement, find_placement, threads_of_rank
from openreml_dist.errors import ConfigError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Placement("single", 0, 1, 0)),
        (TORCHRUN, Placement("torchrun", 3, 4, 1)),
        (OPEN_MPI, Placement("mpi", 2, 6, 0)),
        (MPICH, Placement("mpi", 1, 2, 1)),
        (STEP, Placement("slurm", 5, 8, 1)),
        (BATCH, Placement("single", 0, 1, 0)),  # the batch script itself, without srun
        (STEP | TORCHRUN, Placement("torchrun", 3, 4, 1)),  # torchrun under srun
        (STEP | OPEN_MPI, Placement("mpi", 2, 6, 0)),  # mpirun within a job starts its daemons by srun
        (STEP | MPICH, Placement("slurm", 5, 8, 1)),  # srun --mpi=pmi2
    ],
)
def test_placement_is_read_from_the_environment(environment: dict[str, str], expected: Placement) -> None:
    assert find_placement("auto", environment) == expected
    assert find_placement(expected.launcher, environment) == expected
    assert find_placement("single", environment) == Placement("single", 0, 1, 0)


def test_launcher_that_did_not_start_this_process_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.name=slurm"):
        find_placement("slurm", TORCHRUN)
    with pytest.raises(ConfigError, match="'ssh'"):
        find_placement("ssh", {})


@pytest.mark.parametrize(
    ("mine", "everyone", "threads"),
    [
        ({0, 1, 2, 3}, [{0, 1, 2, 3}], 4),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}, {0, 1, 2, 3}], 2),  # not bound
        ({0, 1}, [{0, 1}, {2, 3}], 2),  # bound
        ({0, 1, 2}, [{0, 1, 2}, {0, 1, 2}], 1),
        ({0}, [{0}, {0}, {0}], 1),  # more ranks than cores
        ({0, 1, 2, 3}, [{0, 1, 2, 3}, {3}], 3),
    ],
)
def test_each_core_counts_once(mine: set[int], everyone: list[set[int]], threads: int) -> None:
    assert threads_of_rank(frozenset(mine), [frozenset(cores) for cores in everyone]) == threads
