"""REML from packed genotypes, V never formed."""

from openreml_dist.reml.stochastic.engine import StochasticEngine

__all__ = ["StochasticEngine"]
