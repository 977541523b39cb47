"""Whether the command line asks for a sweep."""

from __future__ import annotations

from collections.abc import Sequence


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether the command line has Hydra's flag for it, and none that only shows something. Local."""
    if not any(argument.startswith("-") for argument in arguments):
        return False
    from hydra._internal.utils import get_args_parser

    found, _ = get_args_parser().parse_known_args(list(arguments))
    return bool(found.multirun) and not any((found.help, found.hydra_help, found.cfg, found.info, found.shell_completion))
