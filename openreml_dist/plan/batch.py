"""The lines that ask SLURM for what a plan says."""

from __future__ import annotations

import math
from dataclasses import dataclass

LIBRARIES = 4e9  # bytes of a process before it has data, with those of CUDA
MEMORY_MARGIN = 1.2
TIME_MARGIN = 3.0  # a second fit for the likelihood ratio, iterations or probes beyond the usual, nodes that are busy
LEAST_SECONDS = 900.0


@dataclass(frozen=True)
class BatchJob:
    """A job of ranks.

    Attributes:
        ranks: in all.
        ranks_per_node: at most.
        cpus: of a rank.
        on_gpu: whether a rank has a GPU.
        host_bytes: of a rank, outside of its GPU, as planned.
        seconds: as planned; None where that is not known.
    """

    ranks: int
    ranks_per_node: int
    cpus: int
    on_gpu: bool
    host_bytes: float
    seconds: float | None

    def header(self, about: str) -> str:
        """The first lines of a batch file, ``about`` in a comment. Memory and time have margins, which are said."""
        on_node = min(self.ranks_per_node, self.ranks)
        nodes = -(-self.ranks // on_node)
        gpus = f"--gpus-per-node={on_node} " if self.on_gpu else ""
        gigabytes = math.ceil(on_node * (MEMORY_MARGIN * self.host_bytes + LIBRARIES) / 2**30)
        margins = f"{MEMORY_MARGIN - 1:.0%} and {LIBRARIES / 1e9:.0f} GB for libraries"
        planned = "not planned, this machine was not measured with genotypes"
        if self.seconds is not None:
            planned = f"{_clock(self.seconds)}, times {TIME_MARGIN:.0f}"
        lines = [
            "#!/bin/bash",
            f"# {about}",
            f"# memory: {self.host_bytes / 1e9:.1f} GB a rank, and {margins}; time: {planned}",
            "#SBATCH --account=ACCOUNT",
            f"#SBATCH --nodes={nodes} {gpus}--ntasks={self.ranks} --ntasks-per-node={on_node} --cpus-per-task={self.cpus}",
            f"#SBATCH --mem={gigabytes}G",
        ]
        if self.seconds is not None:
            lines[-1] += f" --time={_clock(max(LEAST_SECONDS, TIME_MARGIN * self.seconds))}"
        return "\n".join(lines)


def _clock(seconds: float) -> str:
    """Days-hours:minutes:seconds as SLURM reads them, up to a whole minute."""
    minutes = max(1, math.ceil(seconds / 60))
    days, hours = minutes // 1440, minutes % 1440 // 60
    return f"{f'{days}-' if days else ''}{hours:02}:{minutes % 60:02}:00"
