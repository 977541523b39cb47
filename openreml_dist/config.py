"""Typed settings of every program; ``conf/`` gives the values, the command line overrides them.

The dataclasses are the schema: a key that is not here is refused before anything runs. ``MISSING`` marks a value that the user
must give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional  # OmegaConf reads Optional[...] from these annotations

MISSING: Any = "???"

DENSE, STOCHASTIC = "dense", "stochastic"
ENGINES = ("auto", DENSE, STOCHASTIC)


@dataclass
class DaskConfig:
    """Where preparation tasks run."""

    scheduler: Optional[str] = None  # address of a running scheduler; None starts a LocalCluster
    workers: Optional[int] = None  # processes of the LocalCluster; None is one a core; for GRMs one, or one a GPU
    memory_limit: str = "auto"  # of each worker


@dataclass
class SimulateConfig:
    """``openreml-simulate``: PLINK genotypes, phenotypes and covariates with known truth."""

    out: str = MISSING  # folder to write into
    num_samples: int = 1500
    num_variants: int = 10_000
    num_chromosomes: int = 10
    num_causal: Optional[int] = None  # causal variants in all; None makes every variant causal
    h2: list[float] = field(default_factory=lambda: [0.5])  # one a component; chromosomes are dealt to components in turn
    family_size: int = 1  # full siblings a family; 1 is unrelated people
    prevalence: Optional[float] = None  # None is a quantitative trait; else the case rate of a liability threshold
    missing_genotypes: float = 0.0  # rate
    missing_phenotypes: float = 0.0  # rate
    covariates: bool = True  # age (quantitative), sex and batch (discrete) with effects
    founders: str = "auto"  # msprime, numpy, or auto: msprime where it is installed
    seed: int = 1
    overwrite: bool = False


@dataclass
class PrepareConfig:
    """``openreml-prepare``: PLINK 1 into a genotype store with quality control."""

    source: str = MISSING  # PLINK prefix (or the .bed)
    out: str = MISSING  # genotype store, *.vcz
    autosomes_only: bool = True
    min_maf: float = 0.0  # leave out variants with a minor allele frequency below it
    max_missing: float = 1.0  # leave out variants with a higher rate of missing calls
    max_sample_missing: float = 1.0  # leave out samples with a higher rate of missing calls
    min_hwe_pvalue: float = 0.0  # leave out variants with a smaller exact Hardy-Weinberg p-value
    variants_chunk: int = 1000
    samples_chunk: int = 10_000
    calls: str = "unpacked"  # VCF Zarr's call_genotype; packed: two bits a genotype instead; both
    overwrite: bool = False
    dask: DaskConfig = field(default_factory=DaskConfig)


@dataclass
class GrmConfig:
    """``openreml-grm``: genomic relationship matrices from a genotype store, or to and from GCTA."""

    source: str = MISSING  # genotype store, GRM store, or gcta:PREFIX
    out: str = MISSING  # *.grm.zarr, a folder when by=chromosome, or gcta:PREFIX
    by: str = "genome"  # genome or chromosome
    autosomes_only: bool = True
    min_maf: float = 0.0
    max_missing: float = 1.0
    chunk_size: Optional[int] = None  # rows and columns of a stored tile; None chooses from the number of samples
    device: str = "cpu"  # cpu, or cuda: tiles are computed by torch on the GPUs of the workers
    overwrite: bool = False
    dask: DaskConfig = field(default_factory=DaskConfig)


@dataclass
class DataConfig:
    """What ``openreml-fit`` reads."""

    grm: Any = None  # one GRM store or a list of them
    genotypes: Optional[str] = None  # instead: a genotype store, or the prefix of PLINK files, for the stochastic engine
    pheno: Optional[str] = None
    pheno_column: Any = 1  # number (1 is the first after FID IID) or name; a list of them for a model of several traits
    qcovar: Optional[str] = None
    covar: Optional[str] = None
    table: Optional[str] = None  # records with a header, for the models that name columns; instead of pheno
    pedigree: Optional[str] = None  # table of animals with their parents; None takes the columns of the records
    missing: list[str] = field(default_factory=lambda: ["NA", "-9", "nan", "NaN", ".", ""])  # codes, in every table


@dataclass
class ModelConfig:
    """The mixed model: y = Xβ + Σ g_k + e with g_k ~ N(0, σ_k² A_k), or what ``random`` and ``residual`` say."""

    name: str = "greml"
    prevalence: Optional[float] = None  # of the disease in the population: adds the liability scale to the .hsq file
    columns: dict[str, str] = field(default_factory=dict)  # names of columns that the model file refers to
    fixed: Optional[str] = None  # formula: response ~ 1 + covariate + C(factor); None takes all covariate tables
    traits: list[str] = field(default_factory=list)  # columns of the responses of a model of several traits
    random: dict[str, str] = field(default_factory=dict)  # random terms by name: group(plot), unstructured(trait) * genomic(id)
    residual: Optional[str] = None  # None is independent(), with several traits heterogeneous(trait)
    fix: dict[str, float] = field(default_factory=dict)  # values of parameters that are not estimated
    share: list[list[str]] = field(default_factory=list)  # groups of parameters that have one value
    transform: dict[str, str] = field(default_factory=dict)  # log, logit: the scale on which the solver moves a parameter
    partition: str = "genome"  # of data.genotypes into components: genome, chromosome, or a table of SNPs

    @property
    def is_of_records(self) -> bool:
        """Whether terms or fixed effects are written over the columns of a table, be it joined of GCTA's tables."""
        return bool(self.random) or self.residual is not None or self.fixed is not None


@dataclass
class SolverConfig:
    """The AI-REML iteration."""

    engine: str = "auto"  # dense (exact), stochastic (of genotypes, never a matrix); of genotypes auto takes the cheaper one
    tile_size: Optional[int] = None  # rows of a tile; None chooses from n and the grid
    constrain: bool = True  # variances stay at or above their bound
    start: Any = "auto"  # auto, haseman-elston, equal, a list of values, one a parameter, or the directory of an earlier run
    max_iter: int = 50
    tolerance_theta: float = 1e-6  # the next step would move no component by more, in standard errors
    tolerance_loglik: float = 1e-9  # ... nor raise logL by more, beyond its rounding
    lrt: bool = True  # refit without the first GRM for the likelihood-ratio test
    kernel_cache_gb: float = 1.0  # host memory a rank may use to keep the stored tiles it has read
    traces: str = "auto"  # auto (exact at the end), exact (always), hutchinson (random probes to the end)
    num_probes: Optional[int] = None  # None is that of the method, see traces.py; of the stochastic engine at most, None 4096
    seed: int = 1  # of the probes
    mcse: float = 0.01  # Monte-Carlo error that the stochastic engine aims at, as a share of the standard error

    @property
    def kernel_cache_bytes(self) -> float:
        """``kernel_cache_gb`` in bytes."""
        return 1e9 * self.kernel_cache_gb


@dataclass
class GridConfig:
    """P x Q process grid; None is chosen as square as the ranks allow, with P >= Q."""

    rows: Optional[int] = None
    columns: Optional[int] = None
    share_memory: bool = True  # ranks that are CPUs of one host see the same panels instead of sending them


@dataclass
class LauncherConfig:
    """How ranks find each other and what they run on."""

    name: str = "auto"  # auto, single, torchrun, slurm, mpi
    device: str = "auto"  # auto, cpu, cuda
    threads: Optional[int] = None  # a rank; None shares the cores given among the ranks of a host
    timeout_seconds: float = 600.0  # of one exchange between ranks
    grace_seconds: float = 20.0  # from a signal that ends the job until it ends, finished with its evaluation or not
    profile: Optional[int] = None  # number of an iteration whose steps rank 0 writes to trace.json, for Perfetto
    heartbeat_seconds: float = 5.0  # between two lines of life in heartbeat.json; 0 writes none


@dataclass
class PlanConfig:
    """``openreml-plan``: memory and time of a fit before it is started, or the rates of this machine."""

    mode: str = "plan"  # plan, or calibrate
    format: str = "table"  # table, or sbatch: the first lines of a batch file for SLURM
    num_samples: Optional[int] = None
    genotypes: Optional[str] = None  # instead: people x SNPs, as 500000x600000, of a fit without GRMs
    num_components: int = 1  # of these SNPs
    mcse: float = 0.01  # Monte-Carlo error of such a fit, as a share of the standard error
    num_kernels: int = 1  # GRMs
    num_generated: int = 1  # parameters of all terms that no store holds: the residual, a permanent environment, a correlation
    num_fixed: int = 1  # columns of X
    traces: str = "auto"  # that memory is planned for: auto, exact or hutchinson
    ranks: int = 1
    ranks_per_node: Optional[int] = None  # None is 4 of GPUs; of CPUs 1 in a batch file, in a table all on this host
    machine: str = "this"  # this, h100-nvlink, h100-ib, a100
    grid: GridConfig = field(default_factory=GridConfig)
    tile_size: Optional[int] = None  # None is that of openreml-fit
    threads: Optional[int] = None  # of a rank on a CPU; None shares the cores
    chunk_size: int = 1024  # of the stores
    kernel_cache_gb: float = 1.0  # memory a rank may use to keep stored tiles, or genotypes as it has unpacked them
    memory_gb: Optional[float] = None  # of a rank; None is what the machine has
    read_gb_per_second: Optional[float] = None  # of a rank, from the stores


@dataclass
class OutputConfig:
    """What ``openreml-fit`` writes beside the estimates."""

    blup: bool = False  # random effects of every term at the records: result.indi.blp, and a table
    pev: bool = False  # ... with prediction error variances and reliabilities
    format: str = "tsv"  # of the table: tsv, or parquet (needs the extra `parquet`)
    fixed_tests: bool = False  # a Wald test of each covariate
    fixed_in_hsq: bool = False  # GCTA's block of fixed effects at the end of result.hsq
    snp_effects: Optional[str] = None  # genotype store that the GRMs were made from: effects of its SNPs, result.snp.blp


@dataclass
class FitConfig:
    """``openreml-fit``: variance components by REML."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    run_dir: Optional[str] = None  # None is runs/<time>, decided by rank 0
    resume: str = "auto"  # go on from the unfinished run that run_dir holds, if there is one: auto, never, require
    overwrite: bool = False

    @property
    def is_stochastic(self) -> bool:
        """Whether the engine of probes is asked for; with ``auto`` and genotypes it may be the one that is taken."""
        return self.solver.engine == STOCHASTIC
