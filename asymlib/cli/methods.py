"""`asymlib methods`: every method and relative with its curve's betas and source."""

from __future__ import annotations

from tabulate import tabulate

from ..methods import CATALOGUE


def methods() -> None:
    """List the methods and their relatives: name, label, betas, source."""
    columns = ["name", "label", "beta_pos", "beta_neg", "source"]
    rows = [[getattr(method, column) for column in columns] for method in CATALOGUE.values()]
    print(tabulate(rows, columns, tablefmt="plain", missingval="-"))
