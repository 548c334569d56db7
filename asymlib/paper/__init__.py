"""What the paper states as data: `table1.csv`, its Table 1. It is input, never a result of ours, and knows nothing of
asymlib."""

from importlib.resources import files

import pandas as pd


def table1() -> pd.DataFrame:
    """The paper's Table 1, one row a method, accuracies in percent (arXiv 2604.04894, v1). Its index is the method's name."""
    with files(__package__).joinpath("table1.csv").open() as file:
        return pd.read_csv(file).set_index("method")
