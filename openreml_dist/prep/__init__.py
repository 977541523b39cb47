"""Preparation of data: PLINK import, relationship matrices, simulation."""
