"""Rates of the machines that a plan is made for: presets, and those measured by ``openreml-plan mode=calibrate``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from openreml_dist.errors import ConfigError

_OF_THREADS = ("update_flops", "update_flops_single", "panel_flops", "pivot_flops", "unpack_genotypes", "skinny_flops")


@dataclass(frozen=True)
class Machine:
    """What one rank can do, alone on its device or with its part of the cores.

    Attributes:
        name: as shown.
        update_flops: flop/s of a rank-b update in float64, b a tile.
        update_flops_single: in float32.
        panel_flops: flop/s of the product of a panel with a tile.
        pivot_flops: flop/s of the factor and the inverse of a tile, once it has begun.
        pivot_latency: seconds that they take whatever the tile.
        stream_bytes: byte/s of a pass over numbers in the memory of the device.
        load_bytes: byte/s from host memory to the device; of stored tiles that are kept.
        read_bytes: byte/s from a store, decoded.
        latency: seconds of a message between ranks.
        link_bytes: byte/s of a message between ranks.
        overlaps: messages travel while the device computes; else both take the same cores.
        memory_bytes: of the device; for a CPU of one rank.
        measured: whether the rates were measured on this machine.
        cores: that all ranks of a host share, 0 where every rank has a device of its own.
        threads: of a rank when the rates were measured.
        other_cores: held by other programs meanwhile; None where that is not known.
        unpack_genotypes: genotypes/s from two bits to float32, some of them missing; None in old calibrations.
        skinny_flops: flop/s of float32 products of a tile of genotypes with 32 vectors; None likewise.
    """

    name: str
    update_flops: float
    update_flops_single: float
    panel_flops: float
    pivot_flops: float
    pivot_latency: float
    stream_bytes: float
    load_bytes: float
    read_bytes: float
    latency: float
    link_bytes: float
    overlaps: bool
    memory_bytes: float
    measured: bool = False
    cores: int = 0
    threads: int = 1
    other_cores: float | None = None
    unpack_genotypes: float | None = None
    skinny_flops: float | None = None

    def shared_by(self, ranks_on_host: int, threads: int) -> Machine:
        """What each of several ranks of a host has of it, with other threads than measured; accelerators do not change."""
        if self.cores == 0:
            return self
        usable = threads * min(1.0, self.cores / (ranks_on_host * threads))
        factor = usable / self.threads
        rates = {name: getattr(self, name) for name in _OF_THREADS}
        faster = {name: rate * factor for name, rate in rates.items() if rate is not None}
        crowded = min(1.0, self.cores / ranks_on_host)
        return replace(self, **faster, latency=self.latency / crowded, link_bytes=self.link_bytes * crowded)


# Genotypes by torch operations on a GPU, modelled and not run: unpacking moves 25 bytes a genotype through the memory of the
# device, a product with 32 vectors 8. (An H200 multiplies float32 at 54 Tflop/s; a kernel unpacks there at 1.7e12 genotypes/s.)
PRESETS = {
    # update and panel rates of H100: benchmarks/results/gpu_h100.md; of A100: in proportion to the data sheets
    "h100-nvlink": Machine(
        "H100, NVLink within a node",
        *(55e12, 50e12, 45e12, 5e12, 2e-3, 2.5e12, 40e9, 4e9, 20e-6, 200e9, True, 76e9),
        unpack_genotypes=1e11,
        skinny_flops=40e12,
    ),
    "h100-ib": Machine(
        "H100, InfiniBand 400 Gb/s a GPU",
        *(55e12, 50e12, 45e12, 5e12, 2e-3, 2.5e12, 40e9, 4e9, 30e-6, 40e9, True, 76e9),
        unpack_genotypes=1e11,
        skinny_flops=40e12,
    ),
    "a100": Machine(
        "A100 80 GB, InfiniBand 200 Gb/s",
        *(17e12, 17e12, 14e12, 2e12, 2.5e-3, 1.5e12, 20e9, 4e9, 30e-6, 20e9, True, 76e9),
        unpack_genotypes=6e10,
        skinny_flops=15e12,
    ),
}


def calibration_file() -> Path:
    """Where the rates of this machine are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "openreml" / "machine.json"


def load_machine(name: str) -> Machine:
    """A preset, or ``this`` for the calibrated machine.

    Raises:
        ConfigError: for an unknown name, or ``this`` before a calibration.
    """
    if name == "this":
        path = calibration_file()
        try:
            return Machine(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ConfigError("machine=this: run openreml-plan mode=calibrate first, or choose a preset") from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not a calibration ({error}); run openreml-plan mode=calibrate again") from error
    if name not in PRESETS:
        raise ConfigError(f"machine: {name!r} is none of this, {', '.join(PRESETS)}")
    return PRESETS[name]


def as_json(machine: Machine) -> str:
    """The contents of a calibration file."""
    return json.dumps(asdict(machine), indent=1) + "\n"
