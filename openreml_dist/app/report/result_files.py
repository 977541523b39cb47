"""The files of a finished run in their order: tables, a picture, and last ``result.json``, which says that it is finished."""

from __future__ import annotations

from pathlib import Path

from openreml_dist.app.report.convergence_plot import plot_convergence
from openreml_dist.app.report.hsq import hsq
from openreml_dist.app.report.provenance import config_yaml
from openreml_dist.app.report.result_json import result_json
from openreml_dist.app.report.results import Results
from openreml_dist.app.report.run_directory import CONFIG, HSQ, PICTURE, RESULT, end_checkpoint, write_json, write_text


def write_tables(results: Results, directory: Path) -> None:
    """What is to be there before the user reads the estimates: config.yaml and result.hsq. Local: rank 0."""
    write_text(directory / CONFIG, config_yaml(results.settings))
    table = hsq(results)
    if table is not None:
        write_text(directory / HSQ, table)


def finish(results: Results, directory: Path) -> None:
    """Draw convergence.png and write result.json. Local: rank 0."""
    plot_convergence(results.fit, results.inputs.trait, directory / PICTURE)
    write_json(directory / RESULT, result_json(results))
    end_checkpoint(directory, str(results.fit.status))


def written_files(results: Results, directory: Path) -> list[Path]:
    """The files to tell the user of. Local: rank 0."""
    names = (RESULT, HSQ, PICTURE, *results.predictions.files)
    return [path for name in names if (path := directory / name).exists()]
