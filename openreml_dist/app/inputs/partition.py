"""Which component the SNPs of a fit belong to: all to one, to that of their chromosome, or as a table says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError, InputError
from openreml_dist.store.genotype_source import GenotypeSource
from openreml_dist.store.matching import places
from openreml_dist.store.tables_fields import MISSING_CODES
from openreml_dist.store.tables_records import Records, Wanted, read_records
from openreml_dist.store.tables_text import find_record_layout, first_duplicate

WORDS = ("genome", "chromosome")  # of the setting; anything else is a table
GENOME = "genetic"  # the component of all SNPs, as the models of conf/model call it
SHOWN = 3


@dataclass(frozen=True)
class Partition:
    """K components over m SNPs.

    Attributes:
        names: K.
        annotation: (m, K) at least 0; in component k, SNP s has variance annotation[s, k] over the sum of its column.
        kept: (m,) place of each SNP in the source, increasing.
        report: lines for the terminal.
    """

    names: tuple[str, ...]
    annotation: NDArray[np.float64]
    kept: NDArray[np.int64]
    report: list[str] = field(default_factory=list)


def partition_table(setting: str) -> str | None:
    """The table that ``model.partition`` names, if it names one."""
    return None if setting in WORDS else setting


def read_partition(
    setting: str, source: GenotypeSource, kept: NDArray[np.int64], missing: Sequence[str] = MISSING_CODES
) -> Partition:
    """Divide the SNPs into components. Local.

    Args:
        setting: ``genome``, ``chromosome``, or a table with a header: a column SNP and a column ``component``, or SNP and
            numbers, a column for each component, where SNPs may be in several and count in part.
        source: the genotypes.
        kept: (m,) those of its SNPs that can be used; those without a component are left out of the partition.
        missing: codes of a missing value.
    Raises:
        ConfigError: neither a word nor a file.
        InputError: for a table that cannot be read, names a SNP twice, or has a component without a SNP.
    """
    if setting == "genome":
        return Partition((GENOME,), np.ones((len(kept), 1)), kept)
    if setting == "chromosome":
        labels = [f"chr{name.removeprefix('chr')}" for name in source.chromosome[kept].tolist()]
        names, annotation = _indicators(labels)
        return Partition(names, annotation, kept, [_sizes(names, annotation)])
    if not Path(setting).expanduser().is_file():
        raise ConfigError(f"model.partition={setting} is neither genome, nor chromosome, nor a table that is there")
    return _of_table(str(Path(setting).expanduser()), source, kept, missing)


def _of_table(path: str, source: GenotypeSource, kept: NDArray[np.int64], missing: Sequence[str]) -> Partition:
    records, snp = _read(path, missing)
    names, of_rows = _components(path, records, snp)
    named = np.array([name is not None for name in records.columns[snp]])
    of_rows, listed = of_rows[named], records.columns[snp][named].tolist()
    if (repeated := first_duplicate(listed)) is not None:
        raise InputError(
            f"{path}: SNP {listed[repeated]} is there twice; in several components it has a number in the column of each"
        )
    row = places(listed, source.variant_id[kept])
    used, times = np.unique(row[row >= 0], return_counts=True)
    if (times > 1).any():
        name = listed[used[np.argmax(times > 1)]]
        raise InputError(f"{path}: {name} is the name of several variants of {source.path}; give each a name of its own")
    there = places(source.variant_id, listed) >= 0
    if not there.any():
        ours, theirs = (", ".join(these[:SHOWN]) for these in (listed, source.variant_id.tolist()))
        raise InputError(f"no SNP of {path} is in {source.path}; the first of each: {ours}, ...; {theirs}, ...")
    annotation = np.where(row[:, None] >= 0, of_rows[row], 0.0)
    empty = [name for name, column in zip(names, annotation.T, strict=True) if not column.any()]
    if empty:
        raise InputError(f"{path}: no SNP of the component {empty[0]} is among the {len(kept):,} usable ones of {source.path}")
    member = annotation.any(axis=1)
    counts = {
        f"lines of {path} name no SNP": np.count_nonzero(~named),
        f"SNPs of {path} are not in {source.path}": len(listed) - np.count_nonzero(there),
        f"SNPs of {path} are of variants that cannot be used": np.count_nonzero(there) - len(used),
        "variants, which have no component": np.count_nonzero(~member),
    }
    report = [
        f"partition: {path}, {len(listed):,} SNPs",
        *(f"left out: {count:,} {words}" for words, count in counts.items() if count),
        _sizes(names, annotation),
    ]
    return Partition(names, annotation[member], kept[member], report)


def _read(path: str, missing: Sequence[str]) -> tuple[Records, str]:
    """The table, and what its column of SNPs is called."""
    header = find_record_layout(path).header or ()
    if header[0].upper() != "SNP" or len(header) < 2:
        raise InputError(
            f"{path}: the header is {' '.join(header[:5])}; it must be SNP component, or SNP and names of columns of numbers"
        )
    if "component" in header and len(header) > 2:
        raise InputError(f"{path}: beside SNP there is either the column component, or a column of numbers for each component")
    numbers = [name for name in header[1:] if name != "component"]
    return read_records(path, Wanted(labels={header[0], "component"}, numbers=numbers), missing), header[0]


def _components(path: str, records: Records, snp: str) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names of the components, and the annotation of each line of the table (lines, K)."""
    columns = {name: column for name, column in records.columns.items() if name != snp}
    if "component" in columns:
        names, annotation = _indicators(columns["component"].tolist())
    else:
        names = tuple(columns)
        for name, column in columns.items():
            _check_numbers(path, name, column, records.columns[snp])
        annotation = np.column_stack([column.astype(np.float64) for column in columns.values()])
    if "" in names or "residual" in names:
        raise InputError(f"{path}: a component needs a name, and another one than residual")
    if not names:
        raise InputError(f"{path}: every SNP lacks its component")
    return names, annotation


def _check_numbers(path: str, name: str, column: NDArray[np.float64], snps: NDArray[np.object_]) -> None:
    """Raise InputError for the first value that is missing or negative, or for a column without any number."""
    bad = ~(column.astype(np.float64) >= 0) if column.dtype.kind in "fib" else np.ones(len(column), np.bool_)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(f"{path}: SNP {snps[i]}, column {name}: {column[i]} is not a number of 0 or more; 0 is outside")


def _indicators(labels: Sequence[str | None]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names in the order of their first label, and 1 where a row has that label (rows, K); a row without one has none."""
    names = tuple(dict.fromkeys(label for label in labels if label is not None))
    place = places(names, ["" if label is None else label for label in labels])
    return names, np.asarray(place[:, None] == np.arange(len(names)), np.float64)


def _sizes(names: Sequence[str], annotation: NDArray[np.float64]) -> str:
    """How many SNPs each component has."""
    sizes = np.count_nonzero(annotation, axis=0)
    shown = ", ".join(f"{name} ({size:,})" for name, size in zip(names, sizes, strict=True))
    several = int((np.count_nonzero(annotation, axis=1) > 1).sum())
    return f"components: {shown} SNPs" + (f"; {several:,} are in several" if several else "")
