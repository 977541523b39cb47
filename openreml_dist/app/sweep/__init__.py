"""A sweep: one fit for each combination of settings, each in a folder of its own, and one table of all of them."""
