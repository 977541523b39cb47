"""What becomes of fits that are disturbed at random moments: how they end, and whether they go on to the same digits.

    python benchmarks/faults.py --faults 100 --seed 1

Two small fits (two relationship matrices with a refit for their test; genotypes without a matrix), alone and on two ranks under
torchrun and mpirun. At a moment drawn from the whole of its time something happens to one of its processes: SIGKILL, SIGSTOP,
SIGTERM, SIGUSR1, to a rank or to the launcher. The same command is then given until it ends by itself. Written to
``benchmarks/results/NAME.md``: for every kind of fault how often it hit a fit, the longest time until the job was over, what
processes it left, and how many results differ from the undisturbed one in any bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from record import keep
from rounds import remark_on

from openreml_dist.plan.load import OtherLoad

BOUND = 60.0  # seconds in which a disturbed job has to be over
TIMEOUT = 5  # of an exchange between ranks: how a stopped rank is noticed
FAULTS = {
    "SIGKILL of rank 0": (0, signal.SIGKILL),
    "SIGKILL of rank 1": (1, signal.SIGKILL),
    "SIGSTOP of rank 1": (1, signal.SIGSTOP),
    "SIGUSR1 to rank 0": (0, signal.SIGUSR1),
    "SIGTERM to the launcher": (None, signal.SIGTERM),
    "SIGKILL of the launcher": (None, signal.SIGKILL),
}
COLUMNS = (
    *("fault", "engine", "given", "hit a fit that ran", "with a checkpoint", "over within, s"),
    *("processes left", "never finished", "other digits"),
)
OWN = ("status", "loglik", "estimates", "theta_covariance", "monte_carlo_se", "fixed_effects")


@dataclass(frozen=True)
class Job:
    """Settings of a fit, and on what it runs."""

    name: str
    settings: tuple[str, ...]
    launcher: str

    def command(self, run_dir: Path) -> list[str]:
        started = {
            "alone": [sys.executable],
            "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
            "mpirun": ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2", sys.executable],
        }[self.launcher]
        timeout = f"launcher.timeout_seconds={TIMEOUT}"
        return [*started, "-m", "openreml_dist.app.fit", *self.settings, timeout, "launcher.threads=1", f"run_dir={run_dir}"]


@dataclass
class Tally:
    """Of one kind of fault and one kind of job."""

    given: int = 0
    hit: int = 0
    resumed: int = 0
    over: list[float] = field(default_factory=list)
    left: int = 0
    different: int = 0
    unfinished: int = 0


def found(run_dir: Path) -> Any:
    """What a result says that depends on neither time nor place."""
    result = json.loads((run_dir / "result.json").read_text())
    history = [{key: value for key, value in step.items() if key != "seconds"} for step in result["history"]]
    return [result[name] for name in OWN], history


def processes(run_dir: Path) -> list[psutil.Process]:
    """All that have this run directory on their command line, the oldest first."""
    alive = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"run_dir={run_dir}" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return sorted(alive, key=lambda process: process.create_time())


def rank_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.Error):
        environment = process.environ()
        for name in ("RANK", "OMPI_COMM_WORLD_RANK"):
            if name in environment:
                return int(environment[name])
    return None


def start(job: Job, run_dir: Path) -> subprocess.Popen[bytes]:
    with Path(f"{run_dir}.log").open("ab") as log:
        return subprocess.Popen(job.command(run_dir), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def disturb(job: Job, run_dir: Path, fault: str, after: float) -> tuple[bool, float, int]:
    """Whether it hit a fit that ran, seconds from there until all was over, and the processes that were left then."""
    rank, number = FAULTS[fault]
    launched = start(job, run_dir)
    time.sleep(after)
    alone = job.launcher == "alone"
    target = next((p for p in processes(run_dir) if p.pid == launched.pid if rank is None or alone), None)
    if target is None:
        target = next((p for p in processes(run_dir) if rank_of(p) == rank), None)
    if target is None or launched.poll() is not None:
        launched.wait()
        return False, 0.0, 0
    with contextlib.suppress(psutil.Error):
        target.send_signal(number)
    begun = time.monotonic()
    while processes(run_dir) and time.monotonic() - begun < BOUND:
        launched.poll()
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    left = processes(run_dir)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launched.pid, signal.SIGKILL)
    launched.wait()
    return True, seconds, len(left)


def make_data(folder: Path) -> dict[str, tuple[str, ...]]:
    def run(module: str, *settings: str) -> None:
        subprocess.run([sys.executable, "-m", f"openreml_dist.app.{module}", *settings], check=True, stdout=subprocess.DEVNULL)

    run("simulate", f"out={folder / 'example'}", "num_samples=300", "num_variants=2600", "num_chromosomes=2", "founders=numpy")
    run("prepare", f"source={folder / 'example/sim'}", f"out={folder / 'sim.vcz'}")
    run("grm", f"source={folder / 'sim.vcz'}", f"out={folder / 'grms'}", "by=chromosome")
    grms = ",".join(str(path) for path in sorted((folder / "grms").glob("*.grm.zarr")))
    pheno = f"data.pheno={folder / 'example/sim.phen'}"
    return {
        "dense": (f"data.grm=[{grms}]", pheno, "solver.tile_size=8", "solver.start=[0.05,0.9,2]"),
        "matrix-free": (f"data.genotypes={folder / 'example/sim'}", pheno, "solver=stochastic", "solver.mcse=0.01"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="faults", help="of the file of results")
    arguments = parser.parse_args()
    chance, load = random.Random(arguments.seed), OtherLoad()
    launchers = ["alone", "torchrun"] + (["mpirun"] if shutil.which("mpirun") else [])
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [Job(kind, settings, launcher) for kind, settings in make_data(folder).items() for launcher in launchers]
        undisturbed, lasts = {}, {}
        for job in jobs:
            run_dir = folder / f"{job.name}-{job.launcher}"
            begun = time.monotonic()
            if start(job, run_dir).wait():
                raise SystemExit(Path(f"{run_dir}.log").read_text())
            undisturbed[job], lasts[job] = found(run_dir), time.monotonic() - begun
        for number in range(arguments.faults):
            job, fault = chance.choice(jobs), chance.choice([*FAULTS])
            if job.launcher == "alone" and "rank 1" in fault:
                fault = "SIGKILL of rank 0"
            tally, run_dir = tallies[fault, job.name], folder / f"run-{number}"
            tally.given += 1
            hit, seconds, left = disturb(job, run_dir, fault, chance.uniform(0.3, 1.0) * lasts[job])
            tally.hit += hit
            tally.left += left
            if hit:
                tally.over.append(seconds)
            tally.resumed += (run_dir / "checkpoint.json").exists()
            for _ in range(3):
                if (run_dir / "result.json").exists() and "history" in json.loads((run_dir / "result.json").read_text()):
                    break
                start(job, run_dir).wait()
            else:
                tally.unfinished += 1
                print(Path(f"{run_dir}.log").read_text()[-3000:], flush=True)
                continue
            if found(run_dir) != undisturbed[job]:
                tally.different += 1
            print(number, job.name, job.launcher, fault, f"{seconds:.1f} s", "hit" if hit else "too late", flush=True)
    lines = [
        f"{arguments.faults} faults, seed {arguments.seed}; fits of 300 people on {', '.join(launchers)}, two ranks; "
        f"launcher.timeout_seconds={TIMEOUT}. {remark_on(load)}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for (fault, engine), tally in sorted(tallies.items()):
        within = f"{max(tally.over):.1f}" if tally.over else ""
        counts = (tally.given, tally.hit, tally.resumed, within, tally.left, tally.unfinished, tally.different)
        lines.append(f"| {fault} | {engine} | {' | '.join(map(str, counts))} |")
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
