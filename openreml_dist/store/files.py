"""Paths that may be local or object-store URLs, and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openreml_dist.errors import ConfigError, files_named


def is_url(path: str) -> bool:
    """Whether ``path`` is an object-store URL such as ``s3://bucket/name``."""
    return "://" in path


def absolute(path: str) -> str:
    """``path`` as every process can use it, whatever its working directory; a URL is returned as it is."""
    return path if is_url(path) else str(Path(path).expanduser().absolute())


def exists(path: str) -> bool:
    """Whether there is a file, a folder, or an object under this prefix."""
    if not is_url(path):
        return Path(path).exists()
    import fsspec  # type: ignore[import-untyped]

    filesystem, root = fsspec.core.url_to_fs(path)
    return bool(filesystem.exists(root))


def list_files(folder: str) -> Iterator[str]:
    """Names of the files below ``folder``, relative to it and with ``/``; none where the folder is absent."""
    if not is_url(folder):
        for parent, _, names in os.walk(folder):
            relative = os.path.relpath(parent, folder).replace(os.sep, "/")
            yield from (name if relative == "." else f"{relative}/{name}" for name in names)
        return
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(folder)
    yield from (name[len(root) :].lstrip("/") for name in filesystem.find(root))


def check_can_be_made(path: str, setting: str) -> None:
    """Refuse, before the work, a local path that could not be written after it; object stores answer for themselves.

    Raises:
        ConfigError: names the setting and what is in the way.
    """
    if is_url(path):
        return
    place = Path(absolute(path))
    above = next(folder for folder in place.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ConfigError(f"{setting}: {path} cannot be made: {above} is not a folder")
    if not os.path.lexists(place) and not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{setting}: {path} cannot be made: {above} is a folder in which you may not write")


def remove_tree(path: str) -> None:
    """Remove a local folder or all objects under a URL; a local one is renamed first, so that no half of it keeps the name."""
    if not is_url(path):
        doomed = f"{path}.{uuid.uuid4().hex}.removed"
        Path(path).rename(doomed)
        shutil.rmtree(doomed)
        return
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(path)
    filesystem.rm(root, recursive=True)


def remove_partials(folder: str) -> None:
    """Remove the ``*.partial`` files that killed processes left below a local folder; object stores have none."""
    if not is_url(folder):
        for name in list(list_files(folder)):
            if name.endswith(".partial"):
                (Path(folder) / name).unlink(missing_ok=True)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; it becomes ``path`` when the block ends, and is removed on an error.

    Raises:
        FileError: for a disk that is full, a folder that cannot be written to.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with files_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
