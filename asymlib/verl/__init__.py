"""Helpers for the distributed engine, verl 0.9.1: plugin, diagnostics, overrides, launch, data, reward, evaluation."""
