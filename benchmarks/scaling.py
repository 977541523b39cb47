"""Strong and weak scaling on up to 1,024 GPUs, on paper: the planner's model, no measurement.

    python benchmarks/scaling.py

From the work of every rank in every step, which tests compare with what the program counts, and the rates of a preset. Written
to ``benchmarks/results/scaling.md`` and ``docs/scaling.png``.
"""

from __future__ import annotations

from pathlib import Path

from record import keep

from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.plan.cost import Plan, plan
from openreml_dist.plan.machine import PRESETS
from openreml_dist.plan.memory import FitSize

PICTURE = Path(__file__).parents[1] / "docs" / "scaling.png"
MACHINE = PRESETS["h100-ib"]
MODEL = FitSize(num_kernels=1, num_fixed=20, chunk_size=2048, cache_bytes=64e9)
SIZES = (50_000, 100_000, 250_000, 500_000, 1_000_000)
RANKS = tuple(2**k for k in range(11))
SHOWN = (1, 8, 64, 256, 1024)
WEAK = 50_000  # samples on one GPU; n² grows with the GPUs, so that each holds as much


def planned(n: int, ranks: int) -> Plan | None:
    """The plan, or None where it does not fit."""
    grid = GridShape.choose(ranks)
    made = plan(TileLayout(n, choose_tile_size(n, grid, on_gpu=True), grid), MODEL, MACHINE)
    return made if made.memory.on_device <= MACHINE.memory_bytes else None


def row(n: int, ranks: int, made: Plan) -> str:
    """A line of a table; efficiency counts n³ flops against the GEMM rate of all GPUs."""
    sweep = made.phases["invert"]
    efficiency = n**3 / ranks / MACHINE.update_flops / sweep
    grid = made.layout.grid
    fits = " | ".join(f"{made.fit_seconds[method]:.3g}" for method in ("exact", "auto", "hutchinson"))
    return (
        f"| {n:,} | {ranks:,} | {grid.rows} x {grid.columns} | {made.memory.on_device / 1e9:.1f} | {made.read_seconds:.2g} "
        f"| {sweep:.3g} | {efficiency:.0%} | {made.iteration_seconds:.3g} | {fits} |"
    )


def draw(strong: dict[int, dict[int, Plan]], weak: dict[int, Plan]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for n, plans in strong.items():
        left.loglog(list(plans), [made.iteration_seconds for made in plans.values()], "o-", label=f"n = {n:,}")
    left.set(xlabel="GPUs", ylabel="seconds of one exact iteration", title="strong scaling (modelled, H100, InfiniBand)")
    left.legend(frameon=False)
    efficiency = [made.layout.size**3 / ranks / MACHINE.update_flops / made.phases["invert"] for ranks, made in weak.items()]
    right.semilogx(list(weak), efficiency, "o-", color="black")
    right.set(xlabel="GPUs", ylabel="share of the GEMM rate", title=f"weak scaling of the sweep, n = {WEAK:,} √GPUs (modelled)")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    head = [
        "| n | GPUs | grid | GB a GPU | read s | sweep s | of GEMM rate | iteration s | exact fit s | auto | hutchinson |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    strong = {n: {ranks: made for ranks in RANKS if (made := planned(n, ranks)) is not None} for n in SIZES}
    weak = {ranks: made for ranks in RANKS if (made := planned(round(WEAK * ranks**0.5), ranks)) is not None}
    lines = [
        f"Modelled, not measured: {MACHINE.name}, float64 at {MACHINE.update_flops / 1e12:.0f} TFLOP/s, stores read at "
        f"{MACHINE.read_bytes / 1e9:.0f} GB/s a GPU, {MODEL.num_kernels} GRM, {MODEL.num_fixed} fixed effects.",
        "",
        "Strong scaling",
        "",
        *head,
        *(row(n, ranks, made) for n, plans in strong.items() for ranks, made in plans.items() if ranks in SHOWN),
        "",
        f"Weak scaling, n = {WEAK:,} √GPUs",
        "",
        *head,
        *(row(made.layout.size, ranks, made) for ranks, made in weak.items()),
    ]
    keep("scaling", lines)
    draw(strong, weak)


if __name__ == "__main__":
    main()
