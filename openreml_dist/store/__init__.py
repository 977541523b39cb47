"""Genotypes and relationship matrices on disk: Zarr v3 stores and the files of other programs."""
