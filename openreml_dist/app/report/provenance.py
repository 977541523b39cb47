"""What a result was made from and by: settings that repeat it, digests of its inputs, versions, and what each rank has done."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from omegaconf import OmegaConf

from openreml_dist.app.inputs.grm_list import grm_paths
from openreml_dist.app.inputs.partition import partition_table
from openreml_dist.config import FitConfig
from openreml_dist.grid import ProcessGrid
from openreml_dist.store.kernels import open_kernel
from openreml_dist.versions import OWN, version_of

CONFIG_HEAD = """# Repeats this run: openreml-fit --config-dir FOLDER_OF_THIS_FILE --config-name config run_dir=ANOTHER
defaults:
- fit_schema
- base
- _self_

"""


def config_yaml(settings: FitConfig) -> str:
    """A configuration that repeats the run."""
    return CONFIG_HEAD + OmegaConf.to_yaml(OmegaConf.structured(settings))


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries that computed."""
    packages = (OWN, "torch", "numpy", "zarr", "hydra-core")
    return {"python": platform.python_version(), "platform": sys.platform, **{name: version_of(name) for name in packages}}


def input_digests(settings: FitConfig) -> dict[str, str]:
    """sha256 of every table, and of the attributes of every GRM store (which hold the digest of its own inputs), by path."""
    digests, data = {}, settings.data
    for table in (data.pheno, data.qcovar, data.covar, data.table, data.pedigree, partition_table(settings.model.partition)):
        if table is not None:
            with Path(table).expanduser().open("rb") as file:
                digests[table] = hashlib.file_digest(file, "sha256").hexdigest()
    for path in [] if data.grm is None else grm_paths(data):
        attributes = json.dumps(open_kernel(path).attributes, sort_keys=True)
        digests[path] = hashlib.sha256(attributes.encode()).hexdigest()
    return digests


def profile_of_rank(grid: ProcessGrid) -> dict[str, float]:
    """What this rank has computed in tiled linear algebra, received and waited for, and its most memory. Local."""
    return {"rank": grid.rank, **asdict(grid.counters), "peak_memory_bytes": _peak_memory()}


def _peak_memory() -> int:
    """Bytes; that of the system's accounts is as large as the parent process was, where there is no /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
