"""Text files as they are or compressed: gzip, bzip2, xz and zstd, told by their first bytes and not by their names."""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from openreml_dist.errors import InputError


def _module(name: str) -> Callable[[BinaryIO], Any]:
    return lambda file: importlib.import_module(name).open(file, "rb")


def _zstd(file: BinaryIO) -> Any:
    """Python 3.14 has zstd itself; before, pandas and we read it through the package zstandard."""
    try:
        return importlib.import_module("compression.zstd").open(file, "rb")
    except ImportError:
        pass
    try:
        decompressor = importlib.import_module("zstandard").ZstdDecompressor
    except ImportError:
        raise InputError(
            f"{file.name} is compressed by zstd, which Python reads from version 3.14 on, and before with the package "
            f"zstandard: pip install zstandard, or decompress the file (zstd -d {file.name})"
        ) from None
    return io.BufferedReader(_Frames(file, decompressor))


class _Frames(io.RawIOBase):
    """Frames of zstd, one behind the other; the reader of zstandard itself takes a file that is cut off for a whole one."""

    def __init__(self, file: BinaryIO, decompressor: Callable[[], Any]) -> None:
        self._file, self._decompressor = file, decompressor
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        """As ``io`` asks for it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Text of the next frames, as much as there is at hand.

        Raises:
            EOFError: if the file ends within a frame.
        """
        while not self._ready:
            chunk = self._file.read(1 << 16)
            if not chunk and self._frame is not None:
                raise EOFError("compressed file ended before the end of its last frame")
            if not chunk:
                return 0
            self._ready = b"".join(self._decompressed(chunk))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _decompressed(self, chunk: bytes) -> Iterator[bytes]:
        """Text of a chunk, which may end a frame and begin others."""
        while chunk:
            self._frame = self._frame or self._decompressor().decompressobj()
            yield self._frame.decompress(chunk)
            chunk = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame


COMPRESSIONS: dict[bytes, Callable[[BinaryIO], Any]] = {
    rb"\x1f\x8b": _module("gzip"),
    rb"BZh\d1AY&SY": _module("bz2"),
    rb"\xfd7zXZ\x00": _module("lzma"),
    rb"\x28\xb5\x2f\xfd": _zstd,
}
_MODULES_OF_DAMAGE = ("zlib", "lzma", "zstd", "zstandard", "compression")


@contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file, UTF-8 with or without its mark; what goes wrong while it is read is the file's fault.

    Raises:
        InputError: for a file that is absent, damaged, or no text.
    """
    try:
        with Path(path).open("rb") as file:
            first = file.read(10)
            file.seek(0)
            opener = next((opener for magic, opener in COMPRESSIONS.items() if re.match(magic, first)), None)
            content = file if opener is None else opener(file)
            with io.TextIOWrapper(content, encoding="utf-8-sig", newline=newline) as text:
                yield text
    except InputError:
        raise
    except UnicodeDecodeError as error:
        what, code = "in another encoding, such as that of Windows", "WINDOWS-1252"
        if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
            what = code = "UTF-16"
        raise InputError(
            f"cannot read {path}: the text is not UTF-8 but {what}; save it as UTF-8, or iconv -f {code} -t UTF-8 {path}"
        ) from error
    except (OSError, EOFError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Exception as error:
        if type(error).__module__.lstrip("_").split(".")[0] not in _MODULES_OF_DAMAGE:  # which are not imported for this
            raise
        raise InputError(f"cannot read {path}: {error}") from error
