"""The version has one home, and programs run from a checkout that was never installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import openreml_dist
from openreml_dist.versions import OWN, UNKNOWN, version_of

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_metadata(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that finds all libraries and this checkout, and no metadata of this package."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for folder in {Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))}:
        for entry in folder.iterdir():
            if not entry.name.startswith(("openreml_dist", "_editable")) and not (libraries / entry.name).exists():
                (libraries / entry.name).symlink_to(entry)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(libraries)])}


def isolated(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python without site-packages of its own (-S)."""
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_programs_run_from_a_checkout_that_is_not_installed(without_metadata: dict[str, str], tmp_path: Path) -> None:
    look = "from importlib.metadata import version; version('openreml-dist')"
    assert "PackageNotFoundError" in isolated(without_metadata, "-c", look, cwd=tmp_path).stderr
    settings = ["out=made", "num_samples=40", "num_variants=60", "num_chromosomes=2", "founders=numpy"]
    done = isolated(without_metadata, "-m", "openreml_dist.app.simulate", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "made" / "truth.json").read_text())["version"] == openreml_dist.__version__
    show = "import json; from openreml_dist.app.report.provenance import versions; print(json.dumps(versions()))"
    found = json.loads(isolated(without_metadata, "-c", show, cwd=tmp_path).stdout)
    assert found["openreml-dist"] == openreml_dist.__version__
    assert found["numpy"] == metadata.version("numpy")


def test_libraries_without_metadata_are_asked_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {name: metadata.version(name) for name in ("numpy", "hydra-core")}

    def none(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", none)
    assert {name: version_of(name) for name in expected} == expected
    assert version_of("no-such-library") == UNKNOWN


def test_pyproject_reads_the_version_where_it_lives() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    home = (CHECKOUT / project["tool"]["hatch"]["version"]["path"]).read_text()
    assert f'__version__ = "{version_of(OWN)}"' in home
