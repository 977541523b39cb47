"""The files of a finished run."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from omegaconf import OmegaConf

from openreml_dist.app.inputs.grm_list import grm_paths
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.report import tables as report
from openreml_dist.app.report.convergence_plot import plot_convergence
from openreml_dist.app.report.decimals import hsq_line
from openreml_dist.app.report.prediction_files import fixed_effects_block
from openreml_dist.app.report.run_directory import RESULT, write_json, write_text
from openreml_dist.app.run import Run
from openreml_dist.app.traits import traits_hsq
from openreml_dist.config import DataConfig
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml import FitResult
from openreml_dist.reml.result import Estimate
from openreml_dist.store.grm import open_grm

HSQ = "result.hsq"
CONFIG_HEAD = """# Repeats this run: openreml-fit --config-dir FOLDER_OF_THIS_FILE --config-name config run_dir=ANOTHER
defaults:
- fit_schema
- base
- _self_

"""


def write_results(
    run: Run,
    inputs: Inputs,
    fit: FitResult,
    tests: report.Tests | None,
    traits: list[Estimate],
    profile: list[dict[str, int]],
) -> None:
    """config.yaml, result.hsq, convergence.png and, last, result.json, which says that the run is finished. Local: rank 0."""
    n = len(inputs.y)
    prevalence = run.settings.model.prevalence
    liability = None if prevalence is None else report.Liability(prevalence, inputs.num_cases / n)
    fixed = hsq_line(fit, traits) + (fixed_effects_block(fit) if run.settings.output.fixed_in_hsq else "")
    write_text(run.directory / "config.yaml", CONFIG_HEAD + OmegaConf.to_yaml(OmegaConf.structured(run.settings)))
    if tests is not None:
        write_text(run.directory / HSQ, report.hsq(fit, tests, n, liability) + fixed)
    elif traits:
        write_text(run.directory / HSQ, traits_hsq(fit, traits, n) + fixed)
    plot_convergence(fit, inputs.trait, run.directory / "convergence.png")
    content = report.result_json(fit, inputs.fixed_names, tests, n) | {
        "trait": inputs.trait,
        **({"traits": [asdict(row) for row in traits]} if traits else {}),
        "dropped": inputs.dropped,
        "num_ranks": run.grid.shape.size,
        "timings": run.timings,
        "profile": profile,
        "planned_memory_bytes": run.planned_memory_bytes,
        "versions": report.versions(),
        "inputs": input_digests(run.settings.data),
        "command": sys.argv,
        "settings": asdict(run.settings),
        **run.more_results,
    }
    write_json(run.directory / RESULT, content)


def input_digests(data: DataConfig) -> dict[str, str]:
    """sha256 of every table, and of the attributes of every GRM store (which hold the digest of its own inputs), by path."""
    digests = {}
    for table in (data.pheno, data.qcovar, data.covar, data.table, data.pedigree):
        if table is not None:
            with Path(table).open("rb") as file:
                digests[table] = hashlib.file_digest(file, "sha256").hexdigest()
    for path in [] if data.grm is None else grm_paths(data):
        attributes = json.dumps(open_grm(path).attributes, sort_keys=True)
        digests[path] = hashlib.sha256(attributes.encode()).hexdigest()
    return digests


def profile_of_rank(grid: ProcessGrid) -> dict[str, int]:
    """What this rank has computed in tiled linear algebra and received, and the most memory it has held. Local."""
    return {"rank": grid.rank, **asdict(grid.counters), "peak_memory_bytes": _peak_memory()}


def _peak_memory() -> int:
    """Bytes; that of the system's accounts is as large as the parent process was, where there is no /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
