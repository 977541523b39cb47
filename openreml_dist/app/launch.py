"""How this process became a rank: the only module that reads the environment of a launcher.

torchrun, srun and mpirun each say in variables of their own which rank a process is. Here they become one ``Placement``,
then a process group, then a grid.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from openreml_dist.config import GridConfig, LauncherConfig
from openreml_dist.errors import ConfigError, RankLostError
from openreml_dist.plan.load import usable_cores

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

    from openreml_dist.grid import ProcessGrid

LAUNCHERS = ("auto", "single", "torchrun", "slurm", "mpi")


@dataclass(frozen=True)
class Placement:
    """Which rank of how many this process is, and who started it."""

    launcher: str
    rank: int
    size: int
    local_rank: int


def find_placement(wanted: str, environment: Mapping[str, str] = os.environ) -> Placement:
    """Read the launcher's variables. Local.

    mpirun comes before srun, which it uses to reach other nodes; torchrun before both, since it may run under either.

    Raises:
        ConfigError: if the launcher that was asked for has left no trace in the environment.
    """
    if wanted not in LAUNCHERS:
        raise ConfigError(f"launcher.name: {wanted!r} is none of {', '.join(LAUNCHERS)}")
    found = [placement for placement in _placements(environment) if wanted in ("auto", placement.launcher)]
    if not found:
        raise ConfigError(
            f"launcher.name={wanted}, but this process was not started by it; start it so, or use launcher.name=auto"
        )
    return found[0]


def _placements(environment: Mapping[str, str]) -> list[Placement]:
    """All placements that the variables allow, most specific first; a lone process always is one."""

    def number(name: str) -> int:
        return int(environment.get(name, "0"))

    placements = []
    if "TORCHELASTIC_RUN_ID" in environment:
        placements.append(Placement("torchrun", number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK")))
    if "OMPI_COMM_WORLD_SIZE" in environment:
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        placements.append(Placement("mpi", *map(number, names)))
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        placements.append(Placement("slurm", *map(number, names)))
    if "PMI_SIZE" in environment:  # MPICH and Intel MPI; srun --mpi=pmi2 sets it too, and is recognised above
        placements.append(Placement("mpi", number("PMI_RANK"), number("PMI_SIZE"), number("MPI_LOCALRANKID")))
    placements.append(Placement("single", 0, 1, 0))
    return placements


def connect(placement: Placement, launcher: LauncherConfig, grid: GridConfig) -> ProcessGrid:
    """Join the process group, unless a job before has, lay the grid over it and set the threads of this rank.

    Collective: every rank of the job.

    Raises:
        ConfigError: for a grid that does not match the ranks, a device that is not there.
        RankLostError: if the ranks do not find each other in time.
    """
    import torch.distributed as dist

    from openreml_dist.grid import ProcessGrid

    device = _device(launcher.device, placement)
    timeout = timedelta(seconds=launcher.timeout_seconds)
    if placement.size > 1 and not dist.is_initialized():
        try:
            _init_process_group(
                "gloo" if device.type == "cpu" else dist.get_default_backend_for_device(device), placement, timeout
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise RankLostError(f"the ranks did not find each other: {error}") from error
    process_grid = ProcessGrid.connect(grid.rows, grid.columns, device, timeout, grid.share_memory)
    set_threads(process_grid, launcher.threads)
    return process_grid


def disconnect() -> None:
    """Leave the process group, if there is one. Collective."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _init_process_group(backend: str, placement: Placement, timeout: timedelta) -> None:
    import torch.distributed as dist

    rank, size = placement.rank, placement.size
    if placement.launcher == "torchrun":
        dist.init_process_group(backend, timeout=timeout)
    elif placement.launcher == "slurm":
        address = f"tcp://{_slurm_first_host()}:{_slurm_port()}"
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=size, timeout=timeout)
    else:
        dist.init_process_group(backend, store=_store_over_mpi(timeout), rank=rank, world_size=size, timeout=timeout)


def _store_over_mpi(timeout: timedelta) -> Store:
    """Rank 0 opens a store on a free port and MPI tells everybody where: no port is guessed."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ConfigError(
            f"mpirun started this process, but mpi4py is not usable: {error}; install openreml-dist[mpi]"
        ) from error
    world = MPI.COMM_WORLD
    hosts = world.allgather(socket.gethostname())
    host = "127.0.0.1" if len(set(hosts)) == 1 else hosts[0]
    if world.rank == 0:
        store = TCPStore(host, 0, world.size, is_master=True, timeout=timeout, wait_for_workers=False)
        world.bcast(store.port)
        return store
    return TCPStore(host, world.bcast(None), world.size, is_master=False, timeout=timeout)


def _slurm_first_host() -> str:
    """Address of the node of rank 0, which is the first of the step; MASTER_ADDR overrides it."""
    if "MASTER_ADDR" in os.environ:
        return os.environ["MASTER_ADDR"]
    first = _scontrol("hostnames", os.environ.get("SLURM_STEP_NODELIST", os.environ["SLURM_JOB_NODELIST"])).split()[0]
    fields = dict(field.split("=", 1) for field in _scontrol("node", first, "--oneliner").split() if "=" in field)
    return fields.get("NodeAddr", first)  # the name of a node need not be one that the network knows


def _scontrol(*what: str) -> str:
    return subprocess.run(["scontrol", "show", *what], capture_output=True, text=True, check=True).stdout


def _slurm_port() -> int:
    """A port that the tasks of this step compute alike, and another step hardly would; MASTER_PORT overrides it."""
    if "MASTER_PORT" in os.environ:
        return int(os.environ["MASTER_PORT"])
    step = int(os.environ["SLURM_JOB_ID"]) * 64 + int(os.environ["SLURM_STEP_ID"])
    return 20_000 + step % 10_000


def _device(wanted: str, placement: Placement) -> torch.device:
    """The accelerator of this rank's turn on its host, or the CPU."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted != "cuda":
        raise ConfigError(f"launcher.device: {wanted!r} is none of auto, cpu, cuda")
    count = torch.cuda.device_count()
    own = placement.launcher == "slurm" and "SLURM_GPUS_PER_TASK" in os.environ  # srun shows a task its own GPUs alone
    index = 0 if own else placement.local_rank
    if index >= count:
        raise ConfigError(
            f"launcher.device=cuda: rank {placement.rank} is number {placement.local_rank + 1} on {socket.gethostname()}, "
            f"which has {count} GPUs; start no more ranks than GPUs on a node, or set launcher.device=cpu"
        )
    torch.accelerator.set_device_index(index)
    return torch.device("cuda", index)


def set_threads(grid: ProcessGrid, wanted: int | None) -> None:
    """Give this rank its part of the cores that it may run on, or the number wanted. Collective.

    A core that several ranks of a host may use is shared evenly between them, so that neither bound nor unbound ranks
    oversubscribe it. ``OMP_NUM_THREADS`` is obeyed, except the 1 that torchrun sets by itself.
    """
    import torch

    if wanted is None:
        from_user = os.environ.get("OMP_NUM_THREADS", "1")
        wanted = int(from_user) if from_user.isdigit() and int(from_user) > 1 else None
    mine = (socket.gethostname(), usable_cores())
    everyone = grid.gather(mine)
    if wanted is None:
        wanted = threads_of_rank(mine[1], [cores for host, cores in everyone if host == mine[0]])
        wanted = min(
            wanted, int(os.environ.get("SLURM_CPUS_PER_TASK", wanted))
        )  # where SLURM gives cores without binding to them
    torch.set_num_threads(max(1, wanted))


def threads_of_rank(mine: frozenset[int], all_on_host: list[frozenset[int]]) -> int:
    """Threads for a rank: each core counts as one over the number of ranks that may use it."""
    part = sum(1 / max(1, sum(core in cores for cores in all_on_host)) for core in mine)
    return max(1, math.floor(part + 1e-9))
