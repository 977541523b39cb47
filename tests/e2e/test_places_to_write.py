"""Disks that are full, files where folders are needed, folders without permission: a line, exit code 2, nothing half-made."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.data import Cohort
from tests.e2e.programs import SECONDS, environment, fit

MODULES = {name: f"openreml_dist.app.{name}" for name in ("fit", "grm", "prepare", "simulate", "plan")}
SMALL = 20_000  # bytes of the largest file that may be written


@pytest.fixture(scope="module")
def genotypes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PLINK files, a genotype store and a GRM store."""
    folder = tmp_path_factory.mktemp("genotypes")
    sizes = ("num_samples=300", "num_variants=900", "num_chromosomes=2", "founders=numpy")
    for name, *settings in (
        ("simulate", f"out={folder}", *sizes),
        ("prepare", f"source={folder}/sim", f"out={folder}/sim.vcz", "dask.workers=1"),
        ("grm", f"source={folder}/sim.vcz", f"out={folder}/sim.grm.zarr", "dask.workers=1"),
        ("grm", f"source={folder}/sim.grm.zarr", f"out=gcta:{folder}/sim"),
    ):
        ended = program(name, *settings)
        assert ended.returncode == 0, ended.stderr
    return folder


def program(name: str, *settings: str, prepare: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; ``prepare`` is called in its process."""
    return subprocess.run(
        [sys.executable, "-m", MODULES[name], *settings],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=prepare,
        check=False,
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], name: str, *words: str) -> None:
    said = [line for line in ended.stderr.splitlines() if "warning" not in line]
    assert ended.returncode == 2, ended.stderr
    assert len(said) == 1 and said[0].startswith(f"openreml-{name}: error: "), ended.stderr
    assert [word for word in words if word not in said[0]] == [], said[0]


OUTPUTS = {  # program and settings but the place, {g} is the folder of genotypes; the setting of the place, and its ending
    "simulate": ("simulate", "num_samples=20 num_variants=40 founders=numpy", "out", ""),
    "prepare": ("prepare", "source={g}/sim dask.workers=1", "out", "/x.vcz"),
    "grm": ("grm", "source={g}/sim.vcz dask.workers=1", "out", "/x.grm.zarr"),
    "grm of each chromosome": ("grm", "source={g}/sim.vcz by=chromosome dask.workers=1", "out", "/x"),
    "import": ("grm", "source=gcta:{g}/sim", "out", "/x.grm.zarr"),
    "export": ("grm", "source={g}/sim.grm.zarr", "out", "/x"),
    "fit": ("fit", "data.grm={g}/sim.grm.zarr data.pheno={g}/sim.phen", "run_dir", "/run"),
}


def place(case: str, folder: Path) -> tuple[str, list[str]]:
    """A program of OUTPUTS, and its settings with the place in a folder; ``{g}`` is left."""
    name, settings, key, ending = OUTPUTS[case]
    return name, [*settings.split(), f"{key}={'gcta:' if case == 'export' else ''}{folder}{ending}"]


@pytest.mark.parametrize("case", OUTPUTS)
def test_place_below_a_file(case: str, genotypes: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    name, settings = place(case, tmp_path / "notes")
    ended = program(name, *(setting.format(g=genotypes) for setting in settings))
    assert_one_line(ended, name, f"{OUTPUTS[case][2]}: ", str(tmp_path / "notes"), "cannot be made")
    assert (tmp_path / "notes").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("case", OUTPUTS)
def test_file_that_cannot_grow(case: str, genotypes: Path, tmp_path: Path) -> None:
    """A limit of the size of files fails in the middle of a write, as a disk that fills up does."""
    name, settings = place(case, tmp_path / "out")
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))  # noqa: E731
    settings = [setting.format(g=genotypes) for setting in settings]
    if case == "simulate":
        settings = [*settings, "num_samples=2000", "num_variants=400"]
    ended = program(name, *settings, prepare=full)
    assert_one_line(ended, name, str(tmp_path / "out"), "File too large")
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not {name for name in names if name.endswith((".partial", ".bed", ".phen", ".bin", ".grm.id", ".png"))}
    assert not [path for path in (tmp_path / "out").rglob("zarr.json") if '"complete": true' in path.read_text()]


def test_full_disk_names_the_file(cohort: Cohort, tmp_path: Path) -> None:
    """Python's own word for a full disk names no file; ours does. ``/dev/full`` stands for steps.jsonl."""
    from openreml_dist.app.report import run_directory
    from openreml_dist.errors import FileError

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "steps.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"steps\.jsonl: No space left on device; free some space"):
        run_directory.append_json_line(tmp_path / "steps.jsonl", {"a": 1})


def test_output_to_a_full_disk_or_a_closed_pipe(cohort: Cohort, tmp_path: Path) -> None:
    command = [sys.executable, "-m", MODULES["plan"], "num_samples=1000", "machine=a100"]
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False
            )
        assert_one_line(ended, "plan", "No space left on device")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ended = subprocess.run(
            command, env=environment(), stdout=closed, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False
        )
    assert ended.returncode != 0 and len(ended.stderr.splitlines()) <= 1, ended.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("case", OUTPUTS)
def test_folder_without_permission(case: str, genotypes: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    name, settings = place(case, tmp_path / "locked" / "below")
    ended = program(name, *(setting.format(g=genotypes) for setting in settings))
    assert_one_line(ended, name, OUTPUTS[case][2], str(tmp_path / "locked"))


def test_full_disk_during_a_fit_on_two_ranks(cohort: Cohort, tmp_path: Path) -> None:
    """Rank 0 writes alone; what it cannot write ends both ranks with one message."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({SMALL // 20}, {SMALL // 20}))\n"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nif 'RANK' in os.environ:  # not torchrun, which has much to say\n    {limit}"
    )
    settings = (*cohort.data(), "grid.share_memory=false")
    run = fit("torchrun", tmp_path / "run", *settings, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert run.exit_code == 1  # of torchrun
    assert run.errors.count("openreml-fit: error: ") == 1, run.errors
    assert "checkpoint.json: File too large" in run.errors
    assert "openreml_dist/" not in "".join(line for line in run.errors.splitlines() if line.lstrip().startswith("File "))
