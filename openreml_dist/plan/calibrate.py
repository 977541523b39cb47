"""Rates of this machine's CPU, measured in some seconds, for plans. GPUs have presets."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import torch.distributed as dist

from openreml_dist.genotypes import PackedGenotypes
from openreml_dist.layout import CPU_TILE_SIZE
from openreml_dist.plan.load import OtherLoad
from openreml_dist.plan.machine import Machine

ROWS, COLUMNS = 3000, 20  # of tiles in the slabs that are updated: larger than any cache
REPEATS = 5
GENOTYPE_ROWS, GENOTYPE_COLUMNS, VECTORS = 20_000, 384, 32  # SNPs and samples of a tile
SMALL, LARGE = 1, 4_000_000  # numbers in a message


def calibrate(read: Callable[[Path], Iterator[int]], say: Callable[[str], None]) -> Machine:
    """Measure one rank with all threads, and messages between two ranks of one thread; and what other programs held meanwhile.

    Args:
        read: writes a small store into a folder, then yields the bytes of each chunk as it is read.
        say: told what is being measured.
    """
    threads, others = torch.get_num_threads(), OtherLoad()
    say(f"products of tiles of {CPU_TILE_SIZE}, {threads} threads")
    update, update_single = _update_rate(torch.float64), _update_rate(torch.float32)
    panel, pivot, stream = _panel_rate(), _pivot_rate(), _stream_rate()
    say("products with genotypes")
    unpack, skinny = _genotype_rates()
    say("reading a store")
    with tempfile.TemporaryDirectory() as folder:
        chunks = read(Path(folder))
        next(chunks)  # written, and the first chunk read
        begun = time.perf_counter()
        read_rate = sum(chunks) / (time.perf_counter() - begun)
    say("messages between two ranks")
    latency, link = _link()
    return Machine(
        name=f"this machine: {platform.processor() or platform.machine()}",
        update_flops=update,
        update_flops_single=update_single,
        panel_flops=panel,
        pivot_flops=pivot,
        pivot_latency=0.0,
        stream_bytes=stream,
        load_bytes=1e15,  # kept tiles are where they are used
        read_bytes=read_rate,
        latency=latency,
        link_bytes=link,
        overlaps=False,
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        measured=True,
        cores=os.cpu_count() or 1,
        threads=threads,
        other_cores=others.cores(),
        unpack_genotypes=unpack,
        skinny_flops=skinny,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Median wall time after a warm-up."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _update_rate(dtype: torch.dtype) -> float:
    """Flop/s of rank-b updates of slabs in memory."""
    b = CPU_TILE_SIZE
    slabs = torch.zeros(COLUMNS, ROWS, b, dtype=dtype)
    left, right = torch.rand(ROWS, b, dtype=dtype), torch.rand(b, b, dtype=dtype)

    def update() -> None:
        for slab in slabs:
            slab.addmm_(left, right.mT, alpha=-1)

    return 2 * slabs.numel() * b / _seconds(update)


def _panel_rate() -> float:
    b = CPU_TILE_SIZE
    below, L_inv, panel = (torch.rand(rows, b, dtype=torch.float64) for rows in (ROWS, b, ROWS))
    return 2 * ROWS * b * b / _seconds(lambda: torch.mm(below, L_inv.mT, out=panel))


def _pivot_rate() -> float:
    b = CPU_TILE_SIZE
    tile = torch.eye(b, dtype=torch.float64) * b + torch.rand(b, b, dtype=torch.float64)
    tile = tile @ tile.mT
    identity = torch.eye(b, dtype=torch.float64)

    def pivot() -> None:
        torch.linalg.solve_triangular(torch.linalg.cholesky_ex(tile).L, identity, upper=False).contiguous()

    return (b**3 // 3 + b**3) / _seconds(pivot)


def _stream_rate() -> float:
    """Byte/s of adding a multiple of float32 numbers to float64 ones."""
    V, K = torch.zeros(10_000_000, dtype=torch.float64), torch.zeros(10_000_000)
    return 20 * len(V) / _seconds(lambda: V.add_(K, alpha=0.5))


def _genotype_rates() -> tuple[float, float]:
    """Genotypes/s that are unpacked, a few of them missing, and flop/s of both products of a tile with a block of vectors."""
    m, n = GENOTYPE_ROWS, GENOTYPE_COLUMNS
    tile = torch.randint(0, 256, (m, n // 4), dtype=torch.uint8)
    packed, means = PackedGenotypes([tile], n, [True]), torch.ones(m)
    unpack = m * n / _seconds(lambda: next(packed.unpacked(means)))
    _, G = next(packed.unpacked(means))
    V, product = torch.rand(m, VECTORS), torch.zeros(m, VECTORS)
    return unpack, 4 * m * n * VECTORS / _seconds(lambda: product.addmm_(G, G.mT @ V))


def _link() -> tuple[float, float]:
    """Latency in seconds and byte/s of a broadcast between two ranks of this host."""
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        ranks = [context.Process(target=_exchange, args=(rank, folder, answers)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    small, large = answers.get()
    return small, 8 * (LARGE - SMALL) / max(large - small, 1e-9)


def _exchange(rank: int, folder: str, answers: SimpleQueue[list[float]]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    seconds = []
    for size in (SMALL, LARGE):
        numbers = torch.zeros(size, dtype=torch.float64)
        seconds.append(_seconds(lambda numbers=numbers: dist.broadcast(numbers, src=0)))  # type: ignore[misc]
    if rank == 1:  # the one that receives
        answers.put(seconds)
    dist.barrier()
    dist.destroy_process_group()
