"""The command line shared by all programs: Hydra composes the settings, errors become exit codes.

Hydra by itself exits with 1 on a bad configuration and prints its own traceback; here every known error is one message and the
exit code of its class, whichever program it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from openreml_dist.errors import ConfigError, OpenREMLError

Settings = TypeVar("Settings")


def config_directory() -> Path:
    """The folder ``conf/``: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def compose(name: str, schema: type[Settings], run: Callable[[Settings], int]) -> int:
    """Compose ``conf/<name>.yaml`` with the overrides of the command line and call ``run`` with typed settings.

    Returns:
        What ``run`` returned, the exit code; with ``--multirun`` or ``--cfg`` the worst of all jobs.
    Raises:
        ConfigError: for an unknown key, a value of the wrong type, or a mandatory value that is missing.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra re-raises instead of printing and exiting with 1
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    exit_codes = [0]

    def task(config: DictConfig) -> None:
        settings: Any = OmegaConf.to_object(config)
        exit_codes.append(run(settings))

    try:
        hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n{error.__cause__}" if error.__cause__ else ""
        raise ConfigError(f"configuration: {error}{cause}\nSee openreml-{name} --help for every key.") from error
    return max(exit_codes)


def exit_with(name: str, run: Callable[[], int]) -> NoReturn:
    """Run a program and end the process with its exit code; a known error is printed as one message, without a traceback."""
    try:
        code = run()
    except OpenREMLError as error:
        print(f"openreml-{name}: error: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"openreml-{name}: interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)
