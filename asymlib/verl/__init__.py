"""Helpers for the distributed engine, verl 0.9.1: plugin, estimator, trainer, settings, launch, SLURM. It knows records
and evaluation, and not the lab."""
