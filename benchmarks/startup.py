"""What a whole ``openreml-fit`` takes beside its fit: imports, the command line, reading, the tables, the plot, leaving.

    git worktree add /tmp/before COMMIT
    python benchmarks/startup.py --before /tmp/before --simulate 2000 --repeats 5

Whole processes of this checkout and of the one before it in turn. ``beside the fit`` is the process less ``timings.fit`` less
``timings.read``, which is part of it; ``to the table``, from the end of the fit to the last line of the table, is part of
it. Rounds beside other programs are discarded. Written to ``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fit import simulated
from record import keep
from rounds import quiet_rounds

from openreml_dist.plan.load import OtherLoad

HERE = Path(__file__).resolve().parents[1]
COLUMNS = ("process", "fit", "read", "beside the fit", "to the table", "after the table")
IMPORTS = "import torch, numpy"


def run(checkout: Path, settings: list[str], folder: str) -> dict[str, float]:
    """Seconds by part of one process."""
    begun = time.perf_counter()
    program = [sys.executable, "-m", "openreml_dist.app.fit", *settings, f"run_dir={folder}/run", "overwrite=true"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    last_iteration = table = begun
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[-1:] in (["float64"], ["float32"]):
                last_iteration = time.perf_counter()
            if line.startswith("logL"):  # the last line of the table
                table = time.perf_counter()
    ended = time.perf_counter()
    assert process.returncode == 0
    timings = json.loads(Path(folder, "run", "result.json").read_text())["timings"]
    fit = timings["fit"] - timings["read"]
    return {
        "process": ended - begun,
        "fit": fit,
        "read": timings["read"],
        "beside the fit": ended - begun - fit,
        "to the table": table - last_iteration,
        "after the table": ended - table,
    }


def imports() -> float:
    """Seconds of a process that imports what any fit needs and leaves at once: the least there can be."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"{IMPORTS}; import os; os._exit(0)"], check=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--simulate", type=int, default=2000, help="number of samples")
    parser.add_argument("--repeats", type=int, default=5, help="quiet rounds")
    parser.add_argument("--most", type=int, default=12, help="rounds at most, for as many quiet ones")
    parser.add_argument("--name", default="startup", help="of the file of results")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before, "now": HERE}
    with tempfile.TemporaryDirectory() as folder:
        settings = [*simulated(arguments.simulate, folder), "solver.lrt=false"]

        def measure() -> tuple[dict[str, dict[str, float]], float]:
            load = OtherLoad()
            found = {name: run(path.resolve(), settings, folder) for name, path in checkouts.items() if path}
            found["imports"] = {"process": imports()}
            return found, load.cores() or 0.0

        measure()  # byte code and pages are read once
        rounds = quiet_rounds(measure, arguments.repeats, arguments.most)
    lines = [
        f"n = {arguments.simulate:,}, 1 GRM, one process of {os.cpu_count()} threads. Medians of seconds; {rounds}. "
        f"A process that does `{IMPORTS}` and leaves takes "
        f"{statistics.median(found['imports']['process'] for found in rounds.found):.2f} s.",
        "",
        f"| checkout | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name in [name for name, path in checkouts.items() if path]:
        cells = [f"{statistics.median(found[name][column] for found in rounds.found):.2f}" for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
