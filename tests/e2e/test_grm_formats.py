"""GRMs as GCTA and MPH write them, through the programs, give the fit of a store; so do lists of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from openreml_dist.app.grm import run as make_grm
from openreml_dist.config import GrmConfig
from tests.e2e.data import Cohort
from tests.e2e.programs import Finished, fit


def components(run: Finished) -> list[float]:
    assert run.exit_code == 0, run.errors
    return [component["variance"] for component in run.result["components"]]


def write(folder: Path, kind: str, K: np.ndarray) -> str:
    """``gcta:PREFIX`` of files with K, written here by hand."""
    n = len(K)
    prefix = folder / f"{kind}_matrix"
    Path(f"{prefix}.grm.id").write_text("".join(f"F{i} I{i}\n" for i in range(n)))
    if kind == "bin":
        K[np.tril_indices(n)].astype("<f4").tofile(f"{prefix}.grm.bin")
    elif kind == "mph":
        columns = np.concatenate([K[j:, j] for j in range(n)]) * 250
        header = np.array([n], dtype="<i4").tobytes() + np.array([250], dtype="<f4").tobytes()
        Path(f"{prefix}.grm.bin").write_bytes(header + columns.astype("<f4").tobytes())
        Path(f"{prefix}.grm.id").unlink()
        Path(f"{prefix}.grm.iid").write_text("".join(f"I{i}\n" for i in range(n)))
    elif kind == "gz":
        lines = (f"{i + 1} {j + 1} 900 {K[i, j]:.9e}\n" for i in range(n) for j in range(i + 1))
        Path(f"{prefix}.grm.gz").write_bytes(gzip.compress("".join(lines).encode()))
    else:
        lines = (f"{i} {j} {K[i, j]:.9e}\n" for i in range(n) for j in range(i + 1))
        Path(f"{prefix}.grm.sp").write_text("".join(lines))
    return f"gcta:{prefix}"


@pytest.mark.parametrize("kind", ["bin", "mph", "gz", "sp"])
def test_imported_and_where_it_lies(cohort: Cohort, tmp_path: Path, kind: str) -> None:
    source = write(tmp_path, kind, cohort.main)
    make_grm(GrmConfig(source=source, out=str(tmp_path / "made.grm.zarr")))
    data = cohort.data()[1:]
    expected = components(fit("inside", tmp_path / "store", *cohort.data()))
    made = fit("inside", tmp_path / "made", f"data.grm={tmp_path / 'made.grm.zarr'}", *data)
    assert components(made) == pytest.approx(expected, rel=1e-5)
    direct = fit("inside", tmp_path / "direct", f"data.grm={source}", *data)
    if kind in ("bin", "mph"):
        assert components(direct) == pytest.approx(expected, rel=1e-5)
        assert [c["name"] for c in direct.result["components"]] == [f"{kind}_matrix", "residual"]
        ranks = fit("torchrun", tmp_path / "ranks", f"data.grm={source}", *data)
        assert components(ranks) == pytest.approx(components(direct), rel=1e-8)
    else:
        assert direct.exit_code == 2
        assert f"openreml-grm source={source}" in direct.errors


def test_a_list_of_grms_is_that_list(cohort: Cohort, tmp_path: Path) -> None:
    order = np.arange(20, 120)  # those that the other store has too
    prefix = write(tmp_path, "bin", cohort.main)
    listed = tmp_path / "grms.txt"
    listed.write_text(f"{prefix.removeprefix('gcta:')}\n\n{cohort.folder / 'other.grm.zarr'}\n")
    data = cohort.data()[1:]
    run = fit("inside", tmp_path / "list", f"data.grm=mgrm:{listed}", *data)
    both = fit("inside", tmp_path / "both", *cohort.data("main", "other"))
    assert components(run) == pytest.approx(components(both), rel=1e-5)
    assert run.result["num_samples"] == len(order)
    for text, said in (("\n", "the list names no GRM"), ("a\na\n", "which must differ: a"), ("a\n", "a.grm.bin: not found")):
        listed.write_text(text)
        refused = fit("inside", tmp_path / "refused", f"data.grm=mgrm:{listed}", *data)
        assert refused.exit_code == 2 and said in refused.errors
