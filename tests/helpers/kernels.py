"""Products of the Triton kernels beside those of torch, in a process of their own: Triton's interpreter is chosen when it is
imported, and a process that interprets cannot compile."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor

from openreml_dist.genotypes.packed import ALLELES, MISSING, PackedGenotypes, pack
from openreml_dist.grid import ProcessGrid
from tests.helpers.markers import Genotypes

TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async"}  # instructions by compute capability
ERROR = {1: 2.0**-8, 2: 2.0**-16, 3: 2.0**-22}  # of a float32 number in so many slices, beside the sum of absolute values


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a function in a new process, with the environment of now."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def random_genotypes(
    m: int, widths: list[int], missing: list[bool], device: str, seed: int = 1
) -> tuple[PackedGenotypes, Tensor]:
    """Tiles of so many samples, all codes in them but where none is missing, and the codes (m, n)."""
    generator = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, 4, (m, width), generator=generator, dtype=torch.uint8) for width in widths]
    codes = [of if some else of.masked_fill(of == MISSING, 2) for of, some in zip(codes, missing, strict=True)]
    return PackedGenotypes([pack(of).to(device) for of in codes], sum(widths), missing), torch.cat(codes, dim=1)


def errors(m: int, widths: list[int], missing: list[bool], c: int, slices: int, device: str = "cpu") -> dict[str, float]:
    """Largest error of each product beside what its slices may leave, in float64 by torch: below 1 is right."""
    from openreml_dist.genotypes.kernels import Products

    packed, codes = random_genotypes(m, widths, missing, device)
    generator, n = torch.Generator().manual_seed(2), sum(widths)
    mean, U, B = (torch.randn(*shape, generator=generator) for shape in ((m, 1), (m, c), (n, c)))
    mean = 0.01 + mean.abs()
    G = torch.tensor(ALLELES, dtype=torch.float64)[codes.long()].addcmul_((codes == MISSING).double(), mean.double())
    kernels, mean_there = Products(packed, slices), mean.to(device)
    shift, U_, B_ = mean.double(), U.double(), B.double()
    T = (G - shift).mT @ U_
    bound_T = (G + shift).mT @ U_.abs()
    cases = {
        "GᵀU": (kernels.of_variants(U.to(device), mean_there), G.mT @ U_, G.mT @ U_.abs()),
        "GB": (kernels.of_samples(B.to(device), mean_there), G @ B_, G @ B_.abs()),
        "(G − μ)(G − μ)ᵀU": (kernels.gram(U.to(device), mean_there), (G - shift) @ T, (G + shift) @ bound_T),
    }
    return {
        name: float(((found.cpu() - right).abs() / (ERROR[slices] * (1 + bound))).max())
        for name, (found, right, bound) in cases.items()
    }


def interpreted(cases: list[tuple[int, list[int], list[bool], int, int]]) -> list[dict[str, float]] | str:
    """Errors of cases in Triton's interpreter; a sentence where it does not work with this NumPy."""
    import numpy as np
    import triton

    try:
        return [errors(*case) for case in cases]
    except triton.runtime.errors.InterpreterError as failure:
        if "only 0-dimensional arrays can be converted" in repr(failure):
            return f"the interpreter of Triton {triton.__version__} does not work with NumPy {np.__version__}"
        raise


def interpreted_operator() -> dict[str, float] | str:
    """Largest differences between the operator with interpreted kernels and without, beside its largest number; or as above."""
    import triton

    from openreml_dist.genotypes.kernels import Products

    data = Genotypes.simulated(203, 70)
    plain, fast = (data.operator(ProcessGrid.single()) for _ in range(2))
    fast._kernels, generator = Products(fast.packed, 3), torch.Generator().manual_seed(1)
    V, B = (torch.randn(size, 5, generator=generator) for size in (70, 203))
    found = {name: getattr(fast, name)(argument) for name, argument in (("gram", V), ("of_variants", V), ("of_samples", B))}
    if fast._kernels is None:
        return f"the interpreter of Triton {triton.__version__} does not work with this NumPy"
    right = {name: getattr(plain, name)(B.double() if name == "of_samples" else V.double()) for name in found}
    return {name: float((found[name] - right[name]).abs().max() / right[name].abs().max()) for name in found}


def compiled(capability: int) -> dict[str, tuple[int, int]]:
    """Of every kernel, by case: its products by tensor cores, and its bytes of shared memory. No device is needed."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from openreml_dist.genotypes import kernels

    sizes = dict.fromkeys(("num_variants", "num_samples", "row_bytes", "columns"), "i32")
    pointers = {
        kernels._times_variants: {"tile": "*u8", "U": "*bf16", "rest_U": "*bf16", "rounded_mean": "*bf16", "T": "*fp32"},
        kernels._add_times_samples: {"tile": "*u8", "T": "*bf16", "rest_mean": "*fp32", "rounded_mean": "*bf16", "A": "*fp32"},
    }
    made: dict[str, tuple[int, int]] = {}
    for kernel, arguments in pointers.items():
        for columns, slices, has_missing in [(16, 1, False), (32, 2, True), (64, 3, False), (256, 3, True)]:
            how = kernels.launch(kernel, columns, slices, has_missing)
            constants = {name: value for name, value in how.items() if name.isupper()}
            options = {name: value for name, value in how.items() if name.islower()}
            signature = {**arguments, **sizes, **dict.fromkeys(constants, "constexpr")}
            aligned = {(place,): [["tt.divisibility", 16]] for place in (0, 1, 2, 3, 4, len(arguments) + 3)}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
            name = f"{kernel.__name__} c={columns} s={slices} missing={has_missing}"
            found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            assert found.asm["cubin"]
            made[name] = found.asm["ptx"].count(TENSOR_CORES[capability]), found.metadata.shared
    return made


def imports_without_triton() -> str:
    """What a process says that multiplies genotypes where there is no Triton."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from openreml_dist.genotypes.operator import kernels_of\n"
        "print(kernels_of(None, 3, torch.device('cpu')), kernels_of(None, 3, torch.device('cuda')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
