"""`asymlib methods`: every method with its curve's betas and source."""

from __future__ import annotations

from tabulate import tabulate

from ..methods import METHODS


def methods() -> None:
    """List the methods: name, label, betas, source."""
    columns = ["name", "label", "beta_pos", "beta_neg", "source"]
    rows = [[getattr(method, column) for column in columns] for method in METHODS.values()]
    print(tabulate(rows, columns, tablefmt="plain", missingval="-"))
