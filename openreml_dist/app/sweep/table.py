"""One table of all points of a sweep, made from what is in their folders: at the end of the sweep, or again at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openreml_dist.app.report.run_directory import write_text
from openreml_dist.app.report.run_state import Standing, read_run, sweep_record
from openreml_dist.store.files import written_aside

TSV, PARQUET = "sweep.tsv", "sweep.parquet"
REFUSED = "refused"
INTEGERS = ("exit_code", "iterations", "samples")
TEXTS = ("status", "run_dir", "message")
STAGES = ("startup", "fit", "tests", "predictions")  # of timings, one after the other
NOT_AVAILABLE = "NA"

Row = dict[str, Any]


def sweep_rows(folder: Path) -> list[Row]:
    """A row a point, in the order of ``sweep.json``; a point has the columns that it has something for. Local."""
    return [_row(folder, point) for point in sweep_record(folder)["points"]]


def write_sweep_table(folder: Path) -> list[str]:
    """Write ``sweep.tsv``, and ``sweep.parquet`` where pyarrow is installed. Local: rank 0.

    Returns:
        Lines that say what was written.
    """
    rows = sweep_rows(folder)
    columns = columns_of(rows)
    lines = ["\t".join(columns), *("\t".join(_text(row.get(column)) for column in columns) for row in rows)]
    write_text(folder / TSV, "\n".join(lines) + "\n")
    said = f"{len(rows)} {'point' if len(rows) == 1 else 'points'}: {folder / TSV}"
    try:
        import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return [f"{said} (no {PARQUET}: pyarrow is not installed)"]
    _write_parquet(pyarrow, rows, columns, folder / PARQUET)
    return [f"{said}, {folder / PARQUET}"]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All columns: settings, then how the fit ended, then estimates, and last the texts."""
    last = ("seconds", "run_dir", "message")
    seen = dict.fromkeys(column for row in rows for column in row)
    return [*(column for column in seen if column not in last), *(column for column in last if column in seen)]


def _row(folder: Path, point: Mapping[str, Any]) -> Row:
    values: Row = {name: str(value) for name, value in point["values"].items()}
    if point.get("refused"):
        ended = {"status": REFUSED, "exit_code": 2, "message": point["refused"]}
        return {**values, **ended, "run_dir": point["run_dir"]}
    run = read_run(folder / point["run_dir"])
    result = run.result
    ended = {
        "status": result.get("status", str(run.standing)),
        "exit_code": result.get("exit_code", None if not run.standing.is_over else run.standing.exit_code),
        "message": _message(result) if result else run.heartbeat.get("said") if run.standing is Standing.DEAD else None,
    }
    return {**values, **ended, **_estimates(result), "seconds": _seconds(result), "run_dir": str(point["run_dir"])}


def _message(result: Mapping[str, Any]) -> str | None:
    """Of what has no answer."""
    return None if result.get("exit_code") == 0 else result.get("message")


def _estimates(result: Mapping[str, Any]) -> Row:
    row: Row = {"logL": result.get("loglik"), "iterations": result.get("num_iterations"), "samples": result.get("num_samples")}
    components = result.get("components")
    if components is None:
        for estimate in result.get("estimates", []):
            row |= {estimate["name"]: estimate["value"], f"{estimate['name']}.se": estimate["se"]}
        return row
    row |= dict(zip(("explained", "explained.se"), _explained(components, result.get("theta_covariance")), strict=True))
    for component in components:
        name = component["name"]
        row |= {name: component["variance"], f"{name}.se": component["se"]}
        row |= {f"{name}.proportion": component["proportion"], f"{name}.proportion.se": component["proportion_se"]}
    return row


def _explained(components: Sequence[Mapping[str, Any]], covariance: Any) -> tuple[float | None, float | None]:
    """Part of all components but the residual, the last, in Vp, and its standard error by the delta method."""
    variances = [component["variance"] for component in components]
    if any(value is None for value in variances) or not sum(variances):
        return None, None
    total, rest = sum(variances), variances[-1]
    slopes = [rest / total**2] * (len(variances) - 1) + [(rest - total) / total**2]
    if not isinstance(covariance, list) or len(covariance) != len(slopes) or any(None in line for line in covariance):
        return 1 - rest / total, None
    square = sum(
        a * b * entry for a, line in zip(slopes, covariance, strict=True) for b, entry in zip(slopes, line, strict=True)
    )
    return 1 - rest / total, math.sqrt(square) if square > 0 else None


def _seconds(result: Mapping[str, Any]) -> float | None:
    timings = result.get("timings")
    return None if timings is None else round(sum(timings[stage] for stage in STAGES), 3)


def _text(value: Any) -> str:
    if value is None:
        return NOT_AVAILABLE
    return " ".join(value.split()) if isinstance(value, str) else repr(value)


def _write_parquet(pyarrow: Any, rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """Settings and texts as strings, numbers as float64 or int64, what is missing as null."""
    from pyarrow import parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        is_text = column in TEXTS or any(isinstance(value, str) for value in values)
        kind = pyarrow.string() if is_text else pyarrow.int64() if column in INTEGERS else pyarrow.float64()
        arrays[column] = pyarrow.array(values, type=kind)
    with written_aside(path) as aside:
        parquet.write_table(pyarrow.table(arrays), aside)
