"""What a user has given, and the refusal of what nothing reads: alike for every program.

A setting is given where its value is another one than that of the program (or of the model's own file in ``conf/model``). Each
program says of every setting when it is read: a rule gives the reason why it is not, in words that end the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from openreml_dist.app.cli import config_directory
from openreml_dist.config import DaskConfig, FitConfig, ModelConfig
from openreml_dist.errors import ConfigError

Settings = TypeVar("Settings")
Rule = Callable[[Settings], str | None]
"""Why a setting is not read, and what to do; None where it is."""


def always(_: object) -> None:
    """Read in every run."""


def names_of(settings: object) -> list[str]:
    """Dotted names of all settings; a mapping such as ``model.random`` is one."""
    return [".".join(path) for path, _ in _leaves(settings)]


def rules_for(settings: object, conditional: Mapping[str, Rule[Any]]) -> dict[str, Rule[Any]]:
    """A rule for every setting: those that are read on a condition have one of their own, the others are read in every run."""
    names = names_of(settings)
    unknown = conditional.keys() - names
    if unknown:
        raise KeyError(f"rules for settings that there are not: {unknown}")
    return {**dict.fromkeys(names, always), **conditional}


def given(settings: object, standard: object) -> dict[str, Any]:
    """Settings that differ from the standard ones, by their dotted names; of a mapping, each entry that differs."""
    usual = dict(_leaves(standard))
    found: dict[str, Any] = {}
    for path, value in _leaves(settings):
        name, other = ".".join(path), usual[path]
        if isinstance(value, dict) and isinstance(other, dict):
            found |= {f"{name}.{key}": entry for key, entry in value.items() if key not in other or other[key] != entry}
        elif value != other:
            found[name] = value
    return found


def standard_fit(settings: FitConfig) -> FitConfig:
    """The settings of ``openreml-fit`` where nothing but the model and the names of its columns is chosen."""
    model = _standard_model(Path(settings.model.name).name, tuple(settings.model.columns.items()))
    return FitConfig() if model is None else replace(FitConfig(), model=model)


@lru_cache(maxsize=1)  # a run asks twice, and a file takes 15 ms
def _standard_model(name: str, columns: tuple[tuple[str, str], ...]) -> ModelConfig | None:
    """What the model's own file says, with its terms and its formula over ``columns``; None without a file."""
    from omegaconf import OmegaConf

    path = config_directory() / "model" / f"{name}.yaml"
    if not path.is_file():
        return None
    file: Any = OmegaConf.load(path)
    usual = dict(file.get("columns", {}))
    chosen = {"columns": {**usual, **dict(columns)}}
    whole = OmegaConf.create({"model": OmegaConf.merge(OmegaConf.structured(ModelConfig), file, chosen)})
    model: Any = OmegaConf.to_object(whole.model)
    standard: ModelConfig = replace(model, columns=usual)
    return standard


def workers_are_chosen(dask: DaskConfig) -> str | None:
    """Why workers of one's own are not started."""
    return None if dask.scheduler is None else f"the workers are those of dask.scheduler={dask.scheduler}"


def refuse_unread(settings: Settings, standard: object, rules: Mapping[str, Rule[Settings]]) -> None:
    """Refuse what is given and not read. Local: alike on every rank.

    Raises:
        ConfigError: names every such setting, the reason, and what to do.
    """
    unread = []
    for name, value in given(settings, standard).items():
        rule = rules[name] if name in rules else rules[name.rpartition(".")[0]]  # an entry of a mapping has the rule of that
        if (why := rule(settings)) is not None:
            unread.append(f"{name}={value} is given, and nothing reads it: {why}")
    if unread:
        raise ConfigError("\n".join(unread))


def refuse_entries(name: str, unread: Sequence[object], why: str) -> None:
    """Refuse entries of a setting, such as one GRM of several, that nothing uses.

    Raises:
        ConfigError: names them.
    """
    if unread:
        raise ConfigError(f"{name}: {', '.join(map(str, unread))} given, and nothing uses it: {why}")


def _leaves(settings: object, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    assert is_dataclass(settings)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _leaves(value, (*above, field.name))
        else:
            yield (*above, field.name), value
