"""A fit where an n x n matrix of float64 does not fit into the memory that the process is allowed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FIT = """
import json, resource, sys
import numpy as np, torch
from pathlib import Path
from openreml_dist import REML, Covariance, Grouping, Identity
torch.set_num_threads(1)

n, whole = int(sys.argv[1]), sys.argv[2] == "whole"
generator = torch.Generator().manual_seed(1)
levels = torch.randint(0, n // 10, (n,), generator=generator)
effects = torch.randn(n // 10, generator=generator, dtype=torch.float64)
y = effects[levels] + torch.randn(n, generator=generator, dtype=torch.float64)
X = torch.ones(n, 1, dtype=torch.float64)
small = Covariance([Grouping(levels[:300].numpy(), "group"), Identity(300)])
REML(small).fit(y[:300], X[:300])  # libraries take memory of their own before the limit

status = Path("/proc/self/status").read_text().splitlines()
used = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmData"))
limit = used + int(0.9 * 8 * n * n)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if whole:
    torch.zeros(n, n, dtype=torch.float64)
fit = REML(Covariance([Grouping(levels.numpy(), "group"), Identity(n)])).fit(y, X)
print(json.dumps({"status": str(fit.status), "theta": fit.theta.tolist(), "se": fit.standard_errors.tolist()}))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit of data memory is Linux's")


def run(what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", FIT, "4000", what], capture_output=True, text=True)


@linux
def test_fit_succeeds_below_the_memory_of_one_matrix() -> None:
    done = run("tiles")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "converged"
    for estimate, se in zip(found["theta"], found["se"], strict=True):
        assert abs(estimate - 1.0) < 4 * se


@linux
def test_the_limit_would_stop_a_whole_matrix() -> None:
    done = run("whole")
    assert done.returncode != 0
    assert "allocate" in done.stderr
