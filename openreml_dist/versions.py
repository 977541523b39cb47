"""The version of this package, which pyproject.toml reads here, and those of the libraries that it computes with."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"
OWN = "openreml-dist"
MODULES = {"hydra-core": "hydra"}  # distributions that are imported under another name
UNKNOWN = "unknown"


def version_of(distribution: str) -> str:
    """Version of a distribution: its metadata, else ``__version__`` of its module, else ``unknown``; never an error.

    That of this package is ``__version__`` always: a checkout on ``PYTHONPATH`` has no metadata, or those of another version
    that is installed beside it.
    """
    from importlib import metadata

    if distribution == OWN:
        return __version__
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        pass
    try:
        module = import_module(MODULES.get(distribution, distribution.replace("-", "_")))
    except ImportError:
        return UNKNOWN
    return str(getattr(module, "__version__", UNKNOWN))
