"""GCTA GRMs into GRM stores and back, one tile in memory at a time."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from openreml_dist.config import GrmConfig
from openreml_dist.errors import ConfigError
from openreml_dist.prep.grm import chunk_size
from openreml_dist.prep.progress import progress, say
from openreml_dist.store.files import absolute, check_can_be_made
from openreml_dist.store.gcta import PREFIX, Triangle, export_gcta, open_gcta
from openreml_dist.store.gcta_text import open_gcta_text
from openreml_dist.store.grm import GRM_FORMAT, open_grm
from openreml_dist.store.grm_writer import create_grm, resume_grm
from openreml_dist.store.zarr_group import State, begin, refuse_complete


def import_grm(settings: GrmConfig) -> None:
    """Write ``gcta:PREFIX`` as a GRM store, resuming an unfinished one.

    Raises:
        InputError: the files cannot be used, or ``out`` cannot be written.
    """
    check_can_be_made(settings.out, "out")
    prefix = str(Path(settings.source.removeprefix(PREFIX)).expanduser().absolute())
    beside = Path(settings.out).absolute().parent  # the disk that has room for the result
    with TemporaryDirectory(prefix=".reading-", dir=beside if beside.is_dir() else None) as scratch:
        text = None if Path(f"{prefix}.grm.bin").is_file() else open_gcta_text(prefix, Path(scratch))
        _import_triangle(settings, text or open_gcta(prefix))


def _import_triangle(settings: GrmConfig, source: Triangle) -> None:
    """Tile by tile."""
    size = chunk_size(settings, source.num_samples)
    path, digest = absolute(settings.out), source.digest()
    kept = {"source": "gcta", "chunk_size": size, "input_digest": digest}
    state = begin(path, GRM_FORMAT, kept, overwrite=settings.overwrite)
    if state is State.COMPLETE:
        refuse_complete(path)
    if state is State.FREE:
        known = source.num_variants
        if known is not None and known.is_integer():
            known = int(known)
        attributes = {
            "method": "imported from GCTA" if source.family_id is not None else "imported from MPH",
            "num_variants": known,
            "constant_num_variants": known is not None,
            "allele_frequency": "not known",
            "partition": "not known",
            "input_digest": digest,
        }
        writer = create_grm(
            path,
            family_id=source.family_id,
            sample_id=source.sample_id,
            chunk_size=size,
            settings=kept,
            attributes=attributes,
        )
    else:
        writer = resume_grm(path)
        say(f"resuming {settings.out}: {len(writer.finished_tiles()):,} tiles are finished and kept")
    unfinished = writer.unfinished_tiles()
    with progress(f"Tiles of {Path(settings.out).name}", len(unfinished)) as advance:
        for i, j in unfinished:
            writer.write_tile(i, j, source.tile(writer.span(i), writer.span(j)))
            advance(1)
    writer.finalise()


def export_grm(settings: GrmConfig) -> None:
    """Write a GRM store as ``gcta:PREFIX``.

    Raises:
        ConfigError: the files exist.
        InputError: the store cannot be used.
    """
    prefix = Path(settings.out.removeprefix(PREFIX)).expanduser()
    files = [Path(f"{prefix}.grm.{part}") for part in ("bin", "id", "N.bin")]
    check_can_be_made(str(files[0]), "out")
    store = open_grm(settings.source)
    present = [path for path in files if path.exists()]
    if present and not settings.overwrite:
        raise ConfigError(f"{present[0]} exists; overwrite=true replaces it")
    for path in present:
        path.unlink()
    try:
        with progress(f"Tile rows of {prefix.name}", -(-store.num_samples // store.chunk_size)) as advance:
            for _ in export_gcta(store, str(prefix)):
                advance(1)
    except BaseException:  # some of the files alone are no GRM
        for path in files:
            path.unlink(missing_ok=True)
        raise
    if not store.attributes.get("constant_num_variants"):
        say(f"{prefix}.grm.N.bin is not written: the number of SNPs is not known, or differs between pairs of samples")
