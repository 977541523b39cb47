"""What a run that was cut off goes on from: the journals of its fits and finished batches of probes, in its run directory.

``checkpoint.json`` holds every evaluation so far (``reml/journal.py``), ``checkpoint.npz`` the batches of the one in flight
(``reml/stochastic/batches.py``). Both are written aside and renamed, so that at any moment a whole one is there. Neither holds
anything but numbers and texts.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openreml_dist.app.report.provenance import input_digests
from openreml_dist.app.report.run_directory import BATCHES, CHECKPOINT, write_text
from openreml_dist.app.session import Session
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError, FileError, files_named
from openreml_dist.log import LOGGER
from openreml_dist.reml.journal import Entry, Opening
from openreml_dist.reml.stochastic.batches import Batches, Found
from openreml_dist.store.files import written_aside
from openreml_dist.versions import OWN, version_of

FORMAT = 1
SECONDS_BETWEEN_BATCHES = 10.0
PATH_OF_THE_ITERATION = ("engine", "constrain", "start", "traces", "num_probes", "seed", "mcse")  # settings that decide it


@dataclass
class _Kept:
    """One fit in the file: its opening, and its entries as JSON."""

    opening: Opening | None = None
    entries: list[Entry] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class FitJournal:
    """That of one fit of the run: a ``Journal``."""

    def __init__(self, checkpoint: Checkpoint, name: str, kept: _Kept, resumed: Callable[[], None]) -> None:
        self._checkpoint, self._kept = checkpoint, kept
        self.name, self.opening, self.entries, self.resumed = name, kept.opening, tuple(kept.entries), resumed

    def open(self, opening: Opening) -> None:
        """Write the opening.

        Raises:
            FileError: if it cannot be written: before the work, not after it.
        """
        self._kept.opening = opening
        self._checkpoint.write()

    def add(self, entry: Entry) -> None:
        """Write an entry; where that fails, say so and go on: the last checkpoint is still there."""
        self._kept.lines.append(json.dumps(entry.to_data()))
        self._checkpoint.try_to_write()


class Checkpoint:
    """Of one run; on every rank, but only rank 0 reads and writes files."""

    def __init__(self, here: Session, identity: Mapping[str, Any], fits: dict[str, _Kept], known: dict[str, Found]) -> None:
        self._directory, self._is_root, self._say = here.directory, here.grid.is_root, here.say
        self._identity, self._fits, self._known = identity, fits, known
        self._batches: dict[str, Found] = dict(known)
        self._written = time.monotonic()
        self._warned = False

    @classmethod
    def open(cls, settings: FitConfig, parameters: tuple[str, ...], digests: Mapping[str, str], here: Session) -> Checkpoint:
        """That of the run directory if it is of the same job, else a new one. Collective.

        Args:
            settings: of the run.
            parameters: of the model.
            digests: of inputs that the engine alone reads, by path.
        Raises:
            ConfigError: if what is there is of another job, says what has changed.
        """
        grid, found = here.grid, None
        with grid.together("reading the checkpoint"):
            if grid.is_root:
                identity = identity_of(settings, parameters, {**input_digests(settings), **digests})
                fits, known = _read(here.directory, identity)
                found = {name: kept.opening for name, kept in fits.items()}, known
        found = grid.broadcast_object(found)
        assert found is not None
        openings, known = found
        if not grid.is_root:
            identity, fits = {}, {name: _Kept(opening) for name, opening in openings.items()}
        return cls(here, identity, fits, known)

    def journal(self, name: str, resumed: Callable[[], None]) -> FitJournal:
        """Of the fit of that name. Local."""
        return FitJournal(self, name, self._fits.setdefault(name, _Kept()), resumed)

    def write(self) -> None:
        """All journals. Local: rank 0."""
        fits = []
        for name, kept in self._fits.items():
            opening = json.dumps(None if kept.opening is None else kept.opening.to_data())
            entries = ",\n".join(kept.lines)  # each was put into words when it was new
            fits.append(f'{json.dumps(name)}: {{"opening": {opening}, "entries": [\n{entries}]}}')
        head = json.dumps({"format": FORMAT, "version": version_of(OWN), "identity": self._identity})
        write_text(self._directory / CHECKPOINT, f'{head[:-1]}, "fits": {{{", ".join(fits)}}}}}\n')

    def try_to_write(self) -> None:
        """The same, if the disk has room for it. Local: rank 0."""
        self._tried(self.write)

    def batches(self, between: Callable[[], None]) -> Batches:
        """Those of the evaluation that was cut off; new ones are written from time to time by rank 0. Local."""
        known = dict(self._known)
        return Batches(known, self._keep, self._batches.clear, between) if self._is_root else Batches(known, between=between)

    def _keep(self, key: str, batch: Found) -> None:
        self._batches[key] = batch
        if time.monotonic() - self._written > SECONDS_BETWEEN_BATCHES:
            self._tried(self._write_batches)
            self._written = time.monotonic()

    def _write_batches(self) -> None:
        flat = {f"{key}/{name}": values.numpy() for key, batch in self._batches.items() for name, values in batch.items()}
        path = self._directory / BATCHES
        with written_aside(path) as aside, aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **flat)

    def _tried(self, write: Callable[[], None]) -> None:
        try:
            write()
        except FileError as error:
            LOGGER.warning("no checkpoint: %s", error)
            if not self._warned:
                self._say(f"warning: no checkpoint, the fit goes on: {error}")
            self._warned = True


def identity_of(settings: FitConfig, parameters: tuple[str, ...], digests: Mapping[str, str]) -> dict[str, Any]:
    """What decides the path of the iteration, by the name of whatever a user would change."""
    solver, data = asdict(settings.solver), settings.data
    model = {f"model.{name}": value for name, value in asdict(settings.model).items() if name != "prevalence"}
    identity = {
        "parameters": list(parameters),
        "inputs": {digest: path for path, digest in digests.items()},
        "data.pheno_column": data.pheno_column,
        "data.missing": data.missing,
        **model,
        **{f"solver.{name}": solver[name] for name in PATH_OF_THE_ITERATION},
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _read(directory: Path, identity: Mapping[str, Any]) -> tuple[dict[str, _Kept], dict[str, Found]]:
    """Journals and batches of a run directory, none where there is no checkpoint."""
    path = directory / CHECKPOINT
    if not path.exists():
        return {}, {}
    try:
        with files_named(path):
            content = json.loads(path.read_text(encoding="utf-8"))
        before, fits = content["identity"], {}
        _refuse_another(before, identity, content.get("format"))
        for name, kept in content["fits"].items():
            entries = [Entry.from_data(entry) for entry in kept["entries"]]
            opening = None if kept["opening"] is None else Opening.from_data(kept["opening"])
            fits[name] = _Kept(opening, entries, [json.dumps(entry.to_data()) for entry in entries])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}); resume=never begins anew") from error
    return fits, _read_batches(directory / BATCHES)


def _read_batches(path: Path) -> dict[str, Found]:
    """None where there is no file, or none that can be read: they are found again."""
    batches: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for flat in arrays.files:
                key, _, name = flat.rpartition("/")
                batches.setdefault(key, {})[name] = torch.from_numpy(arrays[flat])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        LOGGER.warning("%s cannot be read, its probes are made again: %s", path, error)
        return {}
    return dict(batches)


def _refuse_another(before: Mapping[str, Any], identity: Mapping[str, Any], number: Any) -> None:
    """Say what has changed since the checkpoint was written."""
    if number != FORMAT:
        raise ConfigError(
            f"run_dir: its checkpoint is of format {number}, this program reads {FORMAT}; resume=never begins anew"
        )
    changed = [
        f"{name} is {_short(now)}, was {_short(before.get(name))}"
        for name, now in identity.items()
        if name != "inputs" and now != before.get(name)
    ]
    changed += [
        f"{path} is not what was read" for digest, path in identity["inputs"].items() if digest not in before.get("inputs", {})
    ]
    if not changed and set(before.get("inputs", {})) - set(identity["inputs"]):
        changed = ["an input that was read is missing"]
    if changed:
        raise ConfigError(
            f"run_dir holds an unfinished run of another job: {'; '.join(changed)}. Choose another folder, or begin anew with "
            "resume=never"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
