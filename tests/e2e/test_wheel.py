"""The wheel holds conf/ and runs without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the wheel installs it, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(CHECKOUT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(folder / "site")
    expected = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "conf").rglob("*.yaml")}
    assert {f"openreml_dist/{name}" for name in expected} <= names
    assert not any(name.startswith("tests/") for name in names)
    return folder / "site"


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_programs_compose_their_settings_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = "from openreml_dist.app.cli import config_directory; print(config_directory())"
    assert run(installed, tmp_path, "-c", where).stdout.strip() == str(installed / "openreml_dist" / "conf")
    for program in ("simulate", "prepare", "grm", "fit", "plan"):
        done = run(installed, tmp_path, "-m", f"openreml_dist.app.{program}", "--cfg", "job")
        assert done.returncode == 0, done.stderr
        assert ("ranks: 1" if program == "plan" else "overwrite: false") in done.stdout


def test_simulation_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    settings = ["out=made", "num_samples=40", "num_variants=60", "num_chromosomes=2", "founders=numpy"]
    done = run(installed, tmp_path, "-m", "openreml_dist.app.simulate", *settings)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "sim.bed").stat().st_size == 3 + 60 * 10


def test_a_wrong_key_is_refused_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "openreml_dist.app.fit", "data.grm=a", "data.pheno=b", "solver.maxiter=3")
    assert done.returncode == 2
    assert "maxiter" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
