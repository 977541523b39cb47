"""What both kinds of store share: a Zarr group that is created, filled chunk by chunk, resumed, and complete at the end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from openreml_dist.errors import InputError
from openreml_dist.store.files import exists, is_url, list_files, remove_tree


def open_group(path: str, *, writable: bool = False) -> zarr.Group:
    """Open a Zarr group of format 2 or 3.

    Raises:
        InputError: there is nothing at ``path``, or no Zarr group.
    """
    if not exists(path):
        raise InputError(f"{path}: not found")
    try:
        return zarr.open_group(path, mode="r+" if writable else "r")
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a Zarr store, or its metadata is damaged ({type(error).__name__}: {error})") from error


def get_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array ``name`` of a group. Raises InputError where it has none."""
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{group.store_path}: no array {name}")
    return array


class State(Enum):
    """What a program that writes a store finds in its place."""

    FREE = "free"
    UNFINISHED = "unfinished"  # begun with the same settings: to be resumed
    COMPLETE = "complete"


def begin(path: str, store_format: str, settings: dict[str, Any], *, overwrite: bool) -> State:
    """Look at the place of a store that is to be written with ``settings``, which name the inputs by their digest.

    With ``overwrite`` a store that is there is removed. Nothing but a store of ``store_format`` is ever removed.

    Raises:
        InputError: something else has this name, or a store that was made or begun with other settings.
    """
    if not exists(path):
        return State.FREE
    if not is_url(path) and Path(path).is_dir() and not any(Path(path).iterdir()):
        Path(path).rmdir()
        return State.FREE
    attributes: dict[str, Any] = open_group(path).attrs.asdict() if exists(f"{path.rstrip('/')}/zarr.json") else {}
    if attributes.get("format") != store_format:
        raise InputError(f"{path} exists and is not a store of this program's. Choose another name for out")
    begun = attributes.get("settings")
    if overwrite or begun is None:  # without settings it was killed while it was created
        remove_tree(path)
        return State.FREE
    changed = sorted(key for key in {*begun, *settings} if begun.get(key) != settings.get(key))
    names = ", ".join(changed)
    if changed and attributes.get("complete"):
        raise InputError(f"{path} exists, made with other settings or inputs ({names}); overwrite=true replaces it")
    if changed:
        raise InputError(
            f"{path} is unfinished and was begun with other settings or inputs ({names}). Run the program with the first ones "
            "to resume it, or give overwrite=true to start again"
        )
    return State.COMPLETE if attributes.get("complete") else State.UNFINISHED


def refuse_complete(path: str) -> NoReturn:
    """Raise the InputError that keeps a complete store."""
    raise InputError(f"{path} exists and is complete; overwrite=true replaces it")


def create_array(
    group: zarr.Group, name: str, values: NDArray[Any] | Sequence[str], dimensions: Sequence[str], description: str
) -> None:
    """Write a small array in one chunk, zstd with a crc32c; strings become variable-length UTF-8."""
    data = np.asarray(values)
    text = data.dtype.kind in "UOT"
    array = group.create_array(
        name,
        shape=data.shape,
        dtype="string" if text else data.dtype,
        chunks=tuple(max(1, length) for length in data.shape),
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        dimension_names=tuple(dimensions),
        attributes={"description": description},
    )
    array[...] = data.astype(object) if text else data


def read_strings(group: zarr.Group, name: str) -> NDArray[np.str_]:
    """The values of a string array in any of the encodings that Zarr 2 and 3 have used, as fixed-width unicode."""
    values = np.asarray(get_array(group, name)[...])
    return np.array([str(value) for value in values.ravel().tolist()], dtype=np.str_).reshape(values.shape)


def written_chunks(path: str, name: str) -> set[tuple[int, ...]]:
    """Indices of the chunks of a Zarr 3 array that exist. A chunk is renamed into place, so one that exists is whole."""
    found = set()
    for key in list_files(f"{path.rstrip('/')}/{name}/c"):
        parts = key.split("/")
        if all(part.isdecimal() for part in parts):
            found.add(tuple(map(int, parts)))
    return found


def file_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """What of an array one file holds: a shard where it has some, else a chunk."""
    return array.shards or array.chunks


def file_grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    """How many files a whole array has along each dimension."""
    return tuple(-(-length // size) for length, size in zip(array.shape, file_shape(array), strict=True))


def absent_files(path: str, array: zarr.Array[Any]) -> set[tuple[int, ...]]:
    """Places, in the grid of its files, of those of an array of the store ``path`` that do not exist."""
    return set(np.ndindex(*file_grid(array))) - written_chunks(path, array.basename)


def consolidate(path: str) -> None:
    """Gather the metadata of all arrays in the root document, which saves a request an array on an object store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr warns that format 3 has not standardised it yet
        zarr.consolidate_metadata(path)
